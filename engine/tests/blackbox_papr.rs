// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Black-box cases J1–J4 in architecture mode, the other return codes of the four hypercalls, and
//! dynamic windows.

use std::cell::Cell;
use std::collections::HashMap;

use crate::common::*;
use tce_engine::addr::{Gra, Ioba, Liobn, PageShift, PeNumber};
use tce_engine::backend::mock::{Fault, Mock, MockBuilder};
use tce_engine::container::LIST_MAX;
use tce_engine::engine::EngineOptions;
use tce_engine::error::{RegisterError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::papr::{GuestMemory, HCode, Papr, PhbError, PhbSpec, RtasStatus};
use tce_engine::tce::Perm;

const LIOBN: u64 = 0x8000_0000;
const BUID: u64 = 0x800_0000_2000_0000;
const RAM: u64 = G;
/// 4096 entries.
const WINDOW: u64 = 16 * M;
const LIST: u64 = 0x7000;

/// List pages of the guest.
#[derive(Default)]
struct Pages {
    lists: HashMap<u64, Vec<u64>>,
    calls: Cell<u32>,
}

impl Pages {
    fn with(list: &[u64]) -> Self {
        Self { lists: HashMap::from([(LIST, list.to_vec())]), calls: Cell::new(0) }
    }
}

impl GuestMemory for Pages {
    fn copy_words(&self, at: Gra, words: &mut [u64]) -> bool {
        self.calls.set(self.calls.get() + 1);
        let Some(list) = self.lists.get(&at.0) else { return false };
        for (i, word) in words.iter_mut().enumerate() {
            *word = list.get(i).copied().unwrap_or(0).to_be();
        }
        true
    }
}

struct Guest {
    papr: Papr,
    rig: Rig,
}

fn spec() -> PhbSpec {
    let window = WindowSpec::new(WINDOW, PageShift::K4);
    PhbSpec { buid: BUID, group: G0, liobn: Liobn(LIOBN as u32), window }
}

impl Guest {
    fn new() -> Self {
        Self::on(MockBuilder::new(2).record(true))
    }

    fn on(builder: MockBuilder) -> Self {
        Self::with(builder, spec())
    }

    fn with(builder: MockBuilder, phb: PhbSpec) -> Self {
        let rig = Rig::new(builder);
        let papr = Papr::new(RAM);
        papr.add_phb(&rig.engine, phb).unwrap();
        Self { papr, rig }
    }

    fn put(&self, ioba: u64, tce: u64) -> HCode {
        self.papr.put_tce(LIOBN, ioba, tce).code
    }

    fn indirect(&self, ioba: u64, list: &[u64]) -> HCode {
        let pages = Pages::with(list);
        self.papr.put_tce_indirect(LIOBN, ioba, LIST, list.len() as u64, &pages).code
    }

    fn get(&self, ioba: u64) -> u64 {
        let (code, value) = self.papr.get_tce(LIOBN, ioba);
        assert_eq!(code, HCode::SUCCESS, "get {ioba:#x}");
        value
    }

    fn mapped(&self) -> u64 {
        self.papr.with_container(BUID, |c| c.regions()[0].mapped).unwrap()
    }

    fn all(&self) -> Vec<u64> {
        (0..WINDOW).step_by(4096).map(|ioba| self.get(ioba)).collect()
    }

    fn mock(&self) -> &Mock {
        &self.rig.mock
    }
}

fn tces(n: u64) -> Vec<u64> {
    (0..n).map(|i| ((i * 7 % 1000) << 12) | (1 + i % 3)).collect()
}

/// Also of entries that let nobody in, alone and in lists.
#[test]
fn what_is_stored_is_what_is_read() {
    let guest = Guest::new();
    let read = |list: &[u64]| (0..).zip(list).map(|(i, _)| guest.get(i << 12)).collect::<Vec<_>>();
    for list in [[0, 0x1000, 0x7000, 0], [0x3000, 0x5003, 0, 0x1002], [0; 4]] {
        for (i, tce) in (0..).zip(&list) {
            assert_eq!(guest.put(i << 12, *tce), HCode::SUCCESS);
        }
        assert_eq!(read(&list), list);
        assert_eq!(guest.indirect(0, &[0x9003; 4]), HCode::SUCCESS);
        assert_eq!(guest.indirect(0, &list), HCode::SUCCESS);
        assert_eq!(read(&list), list);
    }
    assert_eq!(guest.mapped(), 0);
}

/// Of an entry that nobody has stored, with its level or without, then filled, replaced, cleared, and
/// cleared again: entries, live ones, steps of a clear and requests.
#[test]
fn a_put_says_what_it_did() {
    for levels in [1, 2] {
        let phb = PhbSpec { window: spec().window.levels(levels), ..spec() };
        let guest = Guest::with(MockBuilder::new(2), phb);
        let told = |tce| {
            let done = guest.papr.put_tce(LIOBN, 0, tce).receipt;
            (done.tces, done.released, done.steps, done.requests)
        };
        let all = [0, 0x3003, 0x5003, 0, 0].map(told);
        assert_eq!(all, [(1, 0, 1, 0), (1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0), (1, 0, 1, 0)]);
    }
}

/// A list kills what it replaces; and what it fills where that may be cached.
#[test]
fn a_list_kills_what_it_has_to() {
    for (on_fill, kills) in [(true, 8), (false, 2)] {
        let guest = Guest::on(MockBuilder::new(1).kill(phb3(on_fill)));
        for page in [2, 5] {
            assert_eq!(guest.put(page << 12, 0x9003), HCode::SUCCESS);
        }
        let pages = Pages::with(&tces(8));
        let receipt = guest.papr.put_tce_indirect(LIOBN, 0, LIST, 8, &pages).receipt;
        let asked = (receipt.kills.asked, receipt.kills.issued);
        assert_eq!((receipt.released, asked), (2, (kills, kills)), "{on_fill}");
    }
}

#[test]
fn j1_indirect_of_512_entries() {
    let guest = Guest::new();
    let list = tces(512);
    let pages = Pages::with(&list);
    let answer = guest.papr.put_tce_indirect(LIOBN, 0x10_0000, LIST, 512, &pages);
    assert_eq!((answer.code, answer.receipt.tces), (HCode::SUCCESS, 512));
    assert_eq!(pages.calls.get(), 1, "the list is copied once, so it cannot change under us");
    for (i, value) in (0u64..).zip(&list) {
        assert_eq!(guest.get(0x10_0000 + (i << 12)), *value);
        let seen = guest.mock().probe(PeNumber(0), Ioba(0x10_0000 + (i << 12))).unwrap();
        assert_eq!((seen.at.0, seen.perm.bits()), (value & !0xfff, value & 3));
    }
    assert_eq!(guest.mapped(), 512);
    assert_eq!((guest.get(0x10_0000 - 4096), guest.get(0x10_0000 + (512 << 12))), (0, 0));
}

#[test]
fn j2_513_entries_or_an_unaligned_list() {
    let guest = Guest::new();
    let mut pages = Pages::with(&tces(512));
    pages.lists.insert(LIST + 8, tces(512));
    let call = |list, count| guest.papr.put_tce_indirect(LIOBN, 0, list, count, &pages).code;
    assert_eq!(call(LIST, 513), HCode::PARAMETER);
    assert_eq!(call(LIST, u64::MAX), HCode::PARAMETER);
    assert_eq!(call(LIST + 8, 1), HCode::PARAMETER);
    assert_eq!(call(LIST + 0x800, 1), HCode::PARAMETER);
    assert_eq!(pages.calls.get(), 0, "refused before the list is looked at");
    assert_eq!((guest.all(), guest.mapped()), (vec![0; 4096], 0));
    assert_eq!(LIST_MAX, 512);
}

#[test]
fn j3_a_list_past_the_end_by_one_stores_nothing() {
    let guest = Guest::new();
    let at = WINDOW - (511 << 12);
    assert_eq!(guest.indirect(at, &tces(512)), HCode::PARAMETER);
    assert_eq!((guest.all(), guest.mapped()), (vec![0; 4096], 0));
    assert_eq!(guest.indirect(at, &tces(511)), HCode::SUCCESS);
    assert_eq!(guest.indirect(WINDOW - 4096, &tces(1)), HCode::SUCCESS);
    // The table covers 32 MiB of bus space, but the guest has what it asked for.
    assert_eq!(guest.indirect(WINDOW, &tces(1)), HCode::PARAMETER);
    assert_eq!(guest.indirect(!0xfff, &tces(2)), HCode::PARAMETER, "wraps");
}

#[test]
fn j4_one_bad_entry_at_300_stores_nothing() {
    let guest = Guest::new();
    let before = tces(512).iter().map(|v| v ^ 0x40_0000).collect::<Vec<_>>();
    assert_eq!(guest.indirect(0, &before), HCode::SUCCESS);
    let (all, mapped) = (guest.all(), guest.mapped());
    let stores = guest.mock().register_stores();
    for bad in [RAM | 3, 0x1234_5000 | 0x800 | 1, 0x1000 | 0x10 | 2, 1 << 46 | 3, !0xfff | 1] {
        let mut list = tces(512);
        list[300] = bad;
        let pages = Pages::with(&list);
        let answer = guest.papr.put_tce_indirect(LIOBN, 0, LIST, 512, &pages);
        assert_eq!(answer.code, HCode::PARAMETER, "{bad:#x}");
        assert_eq!((answer.receipt.tces, answer.receipt.released), (0, 0));
        assert_eq!((guest.all(), guest.mapped()), (all.clone(), mapped));
        assert_eq!(guest.put(0, bad), HCode::PARAMETER);
        assert_eq!(guest.papr.stuff_tce(LIOBN, 0, bad, 5).code, HCode::PARAMETER);
    }
    assert_eq!(guest.mock().register_stores(), stores, "nothing was killed either");
    // The last page of RAM is still RAM, and any content is fine with control 00.
    let mut list = tces(512);
    list[300] = (RAM - 4096) | 3;
    list[301] = (RAM | 0xff0) & !3;
    assert_eq!(guest.indirect(0, &list), HCode::SUCCESS);
    assert_eq!((guest.get(300 << 12), guest.get(301 << 12)), (list[300], list[301]));
    assert_eq!(guest.mapped(), 511);
}

#[test]
fn a_page_that_reaches_past_the_end_of_ram() {
    let rig = Rig::new(MockBuilder::new(1));
    let papr = Papr::new(RAM + 64 * K);
    let window = WindowSpec::new(G, PageShift::M16);
    papr.add_phb(&rig.engine, PhbSpec { window, ..spec() }).unwrap();
    let put = |tce| papr.put_tce(LIOBN, 0, tce).code;
    assert_eq!(put(RAM | 3), HCode::PARAMETER, "64 KiB of its 16 MiB are RAM");
    assert_eq!(put((RAM - 16 * M) | 3), HCode::SUCCESS);
    assert_eq!(papr.stuff_tce(LIOBN, 0, RAM | 1, 2).code, HCode::PARAMETER);
    assert_eq!(papr.get_tce(LIOBN, 0), (HCode::SUCCESS, (RAM - 16 * M) | 3));
}

/// What a list's entries have in common may lead out of it where each of them does not.
#[test]
fn a_list_for_ram_of_any_size() {
    let rig = Rig::new(MockBuilder::new(1));
    let papr = Papr::new(RAM + 64 * K);
    papr.add_phb(&rig.engine, spec()).unwrap();
    let indirect = |list: &[u64]| {
        papr.put_tce_indirect(LIOBN, 0, LIST, list.len() as u64, &Pages::with(list)).code
    };
    let list = [(RAM + 60 * K) | 3, (RAM - 4 * K) | 1, 0, 3];
    assert_eq!(indirect(&list), HCode::SUCCESS);
    let get = |nth: u64| papr.get_tce(LIOBN, nth << 12);
    assert!((0..4).all(|nth| get(nth) == (HCode::SUCCESS, list[nth as usize])));
    assert_eq!(papr.with_container(BUID, |c| c.regions()[0].mapped), Some(3));
    assert_eq!(indirect(&[(RAM + 64 * K) | 3, (RAM - 4 * K) | 1]), HCode::PARAMETER);
    assert_eq!(get(0), (HCode::SUCCESS, list[0]));
}

#[test]
fn list_page_that_cannot_be_read() {
    let guest = Guest::new();
    let pages = Pages::default();
    let answer = guest.papr.put_tce_indirect(LIOBN, 0, LIST, 4, &pages);
    assert_eq!((answer.code, pages.calls.get()), (HCode::PARAMETER, 1));
    assert_eq!(guest.all(), vec![0; 4096]);
}

#[test]
fn liobns_that_name_nothing() {
    let guest = Guest::new();
    let pages = Pages::with(&tces(2));
    let unknown = [(0, HCode::PARAMETER), (LIOBN + 1, HCode::PARAMETER)];
    let wide = [(1 << 32 | LIOBN, HCode::PARAMETER), (i64::MAX as u64, HCode::PARAMETER)];
    let negative = [(-1i64 as u64, HCode::FUNCTION), (-128i64 as u64, HCode::FUNCTION)];
    for (liobn, code) in unknown.into_iter().chain(wide).chain(negative) {
        let p = &guest.papr;
        assert_eq!(p.put_tce_indirect(liobn, 0, LIST, 2, &pages).code, code, "{liobn:#x}");
        // The multi-table option is one of lists only; elsewhere a negative number is no LIOBN.
        assert_eq!(p.put_tce(liobn, 0, 3).code, HCode::PARAMETER);
        assert_eq!(p.stuff_tce(liobn, 0, 0, 1).code, HCode::PARAMETER);
        assert_eq!(p.get_tce(liobn, 0).0, HCode::PARAMETER);
    }
    assert_eq!(guest.all(), vec![0; 4096]);
}

#[test]
fn stuff_limits() {
    let guest = Guest::new();
    let stuff = |ioba, value, count| guest.papr.stuff_tce(LIOBN, ioba, value, count).code;
    assert_eq!(stuff(0, 0x3000 | 3, 512), HCode::SUCCESS);
    assert_eq!(stuff(0, 0x5000 | 3, 513), HCode::P4);
    assert_eq!(stuff(0, 0x5000 | 3, u64::MAX), HCode::P4);
    assert_eq!(stuff(WINDOW - (511 << 12), 0x5000 | 3, 512), HCode::PARAMETER);
    assert_eq!(stuff(WINDOW - (512 << 12), 0x5000 | 2, 512), HCode::SUCCESS);
    let mut model = vec![0; 4096];
    model[..512].fill(0x3003);
    model[4096 - 512..].fill(0x5002);
    assert_eq!((guest.all(), guest.mapped()), (model, 1024));
    assert_eq!(stuff(0, 0, 512), HCode::SUCCESS);
    assert_eq!(stuff(WINDOW - (512 << 12), 0xabc, 512), HCode::SUCCESS, "poison clears too");
    assert_eq!((guest.get(WINDOW - 4096), guest.mapped()), (0xabc, 0));
    // Over poison a plain clear leaves zeros.
    assert_eq!(stuff(WINDOW - (512 << 12), 0, 512), HCode::SUCCESS);
    assert_eq!(guest.all(), vec![0; 4096]);
}

#[test]
fn bus_addresses_outside_or_between_pages() {
    let guest = Guest::new();
    for ioba in [WINDOW, WINDOW + 4096, 32 * M, 1 << 59, !0xfff, 1, 0x1008, WINDOW - 1] {
        assert_eq!(guest.put(ioba, 0x1003), HCode::PARAMETER, "{ioba:#x}");
        assert_eq!(guest.indirect(ioba, &tces(1)), HCode::PARAMETER, "{ioba:#x}");
        assert_eq!(guest.papr.stuff_tce(LIOBN, ioba, 0, 1).code, HCode::PARAMETER, "{ioba:#x}");
        assert_eq!(guest.papr.get_tce(LIOBN, ioba).0, HCode::PARAMETER, "{ioba:#x}");
    }
    assert_eq!(guest.all(), vec![0; 4096]);
}

#[test]
fn write_only_is_kept_as_given() {
    let guest = Guest::new();
    assert_eq!(guest.put(0x2000, 0x1234_5002), HCode::SUCCESS);
    assert_eq!(guest.get(0x2000), 0x1234_5002);
    let seen = guest.mock().probe(PeNumber(0), Ioba(0x2000)).unwrap();
    assert_eq!(seen.perm, Perm::WRITE, "no READ is added on this side");
}

#[test]
fn replacing_and_clearing_keeps_the_counts() {
    let guest = Guest::new();
    assert_eq!(guest.put(0, 0x1003), HCode::SUCCESS);
    let again = guest.papr.put_tce(LIOBN, 0, 0x2001);
    assert_eq!((again.receipt.released, guest.mapped()), (1, 1));
    let cleared = guest.papr.put_tce(LIOBN, 0, 0);
    assert_eq!((cleared.receipt.released, guest.mapped()), (1, 0));
    let cleared = guest.papr.stuff_tce(LIOBN, 0, 0, 512);
    assert_eq!((cleared.receipt.released, cleared.receipt.kills.asked), (0, 0));
}

#[test]
fn ddw_fills_the_second_slot_and_reports_what_is_left() {
    let guest = Guest::new();
    let papr = &guest.papr;
    let query = papr.ddw_query(BUID).unwrap();
    assert_eq!((query.available, query.page_mask), (1, 1 | 2 | 4 | 1 << 6));
    assert!(query.largest_block >= 1 << 20 && query.migration_mask == 0);
    let (liobn, start) = papr.ddw_create(BUID, 16, 28).unwrap();
    assert_eq!((u64::from(liobn.0), start), (LIOBN + 1, SECOND));
    assert_eq!(papr.ddw_query(BUID).unwrap().available, 0);
    assert_eq!(papr.ddw_create(BUID, 16, 28), Err(RtasStatus::HARDWARE), "no window is left");
    assert_eq!(
        papr.windows(),
        [(Liobn(LIOBN as u32), Ioba(0), 4096), (Liobn(LIOBN as u32 + 1), SECOND, 4096)]
    );
    // 64 KiB pages: entries aligned to them.
    let put = |tce| papr.put_tce(LIOBN + 1, SECOND.0 + 0x3_0000, tce).code;
    assert_eq!(put(0x2_1000 | 3), HCode::PARAMETER);
    assert_eq!(put(0x2_0000 | 3), HCode::SUCCESS);
    assert_eq!(papr.put_tce(LIOBN + 1, SECOND.0 + 0x3_1000, 0).code, HCode::PARAMETER);
    assert_eq!(papr.put_tce(LIOBN + 1, 0x3_0000, 0).code, HCode::PARAMETER, "a full bus address");
    let seen = guest.mock().probe(PeNumber(0), Ioba(SECOND.0 + 0x3_4567)).unwrap();
    assert_eq!((seen.at.0, seen.page), (0x2_4567, PageShift::K64));
    // Removal clears what was left, and the LIOBN names nothing any more.
    assert_eq!(papr.ddw_remove(liobn), Ok(()));
    assert_eq!(guest.mapped(), 0);
    assert_eq!(papr.put_tce(LIOBN + 1, SECOND.0, 0).code, HCode::PARAMETER);
    assert_eq!(papr.ddw_remove(liobn), Err(RtasStatus::PARAMETER));
    let gone = guest.mock().probe(PeNumber(0), SECOND);
    assert_eq!(gone, Err(Fault::NoWindow { slot: 1 }));
}

#[test]
fn ddw_bad_parameters_are_minus_3() {
    let guest = Guest::new();
    let papr = &guest.papr;
    let refused = Err(RtasStatus(-3));
    let cases = [(24, 0), (16, 15), (12, 64), (12, u64::MAX), (21, 30), (0, 30), (99, 30)];
    for (page_shift, window_shift) in cases {
        let answer = papr.ddw_create(BUID, page_shift, window_shift);
        assert_eq!(answer, refused, "{page_shift} {window_shift}");
    }
    assert_eq!(papr.ddw_create(BUID + 1, 16, 28), refused);
    assert_eq!(papr.ddw_query(BUID + 1), Err(RtasStatus(-3)));
    assert_eq!(papr.ddw_reset(BUID + 1), Err(RtasStatus(-3)));
    assert_eq!(papr.windows().len(), 1);
    assert_eq!(guest.rig.pages(), RAM / (64 * K) + 2, "nothing charged");
}

#[test]
fn ddw_removal_of_the_last_window_restores_the_default() {
    let guest = Guest::new();
    let papr = &guest.papr;
    let default = [(Liobn(LIOBN as u32), Ioba(0), 4096)];
    let (second, _) = papr.ddw_create(BUID, 16, 28).unwrap();
    assert_eq!(guest.put(0, 0x1003), HCode::SUCCESS);
    assert_eq!(papr.ddw_remove(Liobn(LIOBN as u32)), Ok(()), "the default window");
    assert_eq!(guest.mapped(), 0);
    assert_eq!(papr.windows().len(), 1);
    assert_eq!(papr.ddw_remove(second), Ok(()), "the last one, which is not the default");
    assert_eq!(papr.windows(), default, "is back");
    assert_eq!(guest.all(), vec![0; 4096]);
    // Removing the default one itself leaves none.
    assert_eq!(papr.ddw_remove(Liobn(LIOBN as u32)), Ok(()));
    assert_eq!(papr.windows(), []);
    assert_eq!(papr.ddw_query(BUID).unwrap().available, 2);
    assert_eq!(papr.ddw_reset(BUID), Ok(()));
    assert_eq!(papr.windows(), default);
}

#[test]
fn ddw_window_in_the_defaults_slot_is_not_the_default() {
    // LoPAR: the platform restores the default window when the last window goes and that one is
    // not the default. Which slot it stands in does not matter.
    let guest = Guest::new();
    let papr = &guest.papr;
    assert_eq!(papr.ddw_remove(Liobn(LIOBN as u32)), Ok(()));
    let (liobn, start) = papr.ddw_create(BUID, 16, 30).unwrap();
    assert_eq!(start, Ioba(0), "the free slot");
    assert_eq!(papr.ddw_remove(liobn), Ok(()));
    assert_eq!(papr.windows(), [(Liobn(LIOBN as u32), Ioba(0), 4096)]);
    assert_eq!(guest.all(), vec![0; 4096]);
}

#[test]
fn ddw_reset_leaves_an_empty_default_window() {
    let guest = Guest::new();
    let papr = &guest.papr;
    papr.ddw_create(BUID, 24, 34).unwrap();
    assert_eq!(guest.put(0x5000, 0x1003), HCode::SUCCESS);
    assert_eq!(papr.put_tce(LIOBN + 1, SECOND.0, 3).code, HCode::SUCCESS);
    assert_eq!(guest.mapped(), 2);
    assert_eq!(papr.ddw_reset(BUID), Ok(()));
    assert_eq!(papr.windows(), [(Liobn(LIOBN as u32), Ioba(0), 4096)]);
    assert_eq!((guest.all(), guest.mapped()), (vec![0; 4096], 0));
}

#[test]
fn ddw_create_beyond_the_limit_is_hardware() {
    let memlock = Some(RAM + 128 * K);
    let options = EngineOptions { memlock, ..EngineOptions::default() };
    let rig = Rig::with(MockBuilder::new(1), options);
    let papr = Papr::new(RAM);
    papr.add_phb(&rig.engine, spec()).unwrap();
    assert_eq!(papr.ddw_create(BUID, 16, 28), Err(RtasStatus(-1)));
    assert_eq!((papr.windows().len(), rig.pages()), (1, RAM / (64 * K) + 2));
}

#[test]
fn two_phbs_share_ram_and_nothing_else() {
    let guest = Guest::new();
    let papr = &guest.papr;
    let other = PhbSpec { buid: 7, group: G1, liobn: Liobn(0x100), ..spec() };
    papr.add_phb(&guest.rig.engine, other).unwrap();
    assert_eq!(guest.rig.pages(), RAM / (64 * K) + 2 * 2, "RAM is charged once");
    assert_eq!(papr.put_tce(0x100, 0x1000, 0x9003).code, HCode::SUCCESS);
    assert_eq!((guest.get(0x1000), papr.get_tce(0x100, 0x1000).1), (0, 0x9003));
    assert_eq!(reach(guest.mock(), 0, Ioba(0x1000)), None);
    assert_eq!(reach(guest.mock(), 1, Ioba(0x1000)), Some((0x9000, Perm::READ_WRITE)));
}

#[test]
fn phbs_that_cannot_be_added_leave_nothing() {
    let guest = Guest::new();
    let engine = &guest.rig.engine;
    let pages = guest.rig.pages();
    let add = |s: PhbSpec| guest.papr.add_phb(engine, s).unwrap_err();
    let in_use = |s: PhbSpec| assert!(matches!(add(s), PhbError::InUse { .. }), "{s:?}");
    in_use(PhbSpec { group: G1, ..spec() });
    in_use(PhbSpec { buid: 7, group: G1, ..spec() });
    in_use(PhbSpec { buid: 7, group: G1, liobn: Liobn(LIOBN as u32 - 1), ..spec() });
    let e = add(PhbSpec { buid: 7, liobn: Liobn(1), ..spec() });
    assert!(matches!(e, PhbError::Attach(_)), "{e}");
    let window = WindowSpec::new(3 * G, PageShift::K4);
    let e = add(PhbSpec { buid: 7, group: G1, liobn: Liobn(1), window });
    assert!(matches!(e, PhbError::Window(WindowError::Geometry(_))), "{e}");
    let odd = Papr::new(RAM + 1).add_phb(engine, PhbSpec { group: G1, ..spec() }).unwrap_err();
    assert!(matches!(odd, PhbError::Register(RegisterError::Unaligned { .. })), "{odd}");
    assert_eq!(guest.rig.pages(), pages);
    assert!(guest.mock().bypass(PeNumber(1)), "the group is the host's again");
}

#[test]
fn liobn_of_a_second_slot_is_taken_before_its_window_exists() {
    // A PHB owns two LIOBNs. Another one may not have the second, or a window that is created
    // later would take over the other's name.
    let guest = Guest::new();
    let next = Liobn(LIOBN as u32 + 1);
    let other = PhbSpec { buid: 7, group: G1, liobn: next, ..spec() };
    let added = guest.papr.add_phb(&guest.rig.engine, other);
    assert!(matches!(added, Err(PhbError::InUse { .. })), "{added:?}");
}
