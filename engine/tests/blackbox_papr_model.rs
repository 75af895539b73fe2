// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random hypercalls and window calls against a plain model, under the rules of the architecture, of
//! KVM and of QEMU, with and without the multi-TCE-table option, and in pages that the PEs have or
//! that are made of smaller ones: every return code, and at the end every entry by H_GET_TCE and
//! through the PHB's walker.

use std::collections::HashMap;
use std::sync::Arc;

use crate::common::guest::{Caller, List};
use crate::common::*;
use proptest::prelude::*;
use tce_engine::addr::{Ioba, Liobn, PageShift, PageSizes, PeNumber};
use tce_engine::backend::mock::{Fault, MockBuilder};
use tce_engine::geometry::WindowSpec;
use tce_engine::papr::{Compat, HCode, Papr, PhbSpec, RtasStatus};

/// Not a multiple of the largest page: an entry may reach past the end.
const RAM: u64 = 256 * M + 64 * K;
const LIOBNS: [u64; 4] = [0x8000_0000, 0x8000_0001, 0x8000_0100, 0x8000_0101];
const BUIDS: [u64; 2] = [0x10, 0x20];
const ENTRIES: u64 = 1024;

/// A window of the model.
#[derive(Clone, Copy)]
struct Window {
    start: u64,
    shift: u32,
    entries: u64,
    /// Pages of the table for each of the guest's.
    parts: u64,
}

const DEFAULT: Window = Window { start: 0, shift: 12, entries: ENTRIES, parts: 1 };

/// LIOBN → window, and (LIOBN, entry) → value.
#[derive(Default)]
struct Model {
    compat: Compat,
    multi_table: bool,
    /// The PEs have 4 KiB pages only; a guest gets more.
    composed: bool,
    windows: HashMap<u64, Window>,
    entries: HashMap<(u64, u64), u64>,
}

impl Model {
    /// Number of the first entry, if `count` from `ioba` are entries of the window.
    fn range(&self, liobn: u64, ioba: u64, count: u64) -> Result<u64, HCode> {
        let w = self.windows.get(&liobn).ok_or(self.unknown())?;
        let end = w.start + (w.entries << w.shift);
        let aligned = ioba.is_multiple_of(1 << w.shift);
        let inside = ioba >= w.start && ioba < end && count <= (end - ioba) >> w.shift;
        if aligned && inside { Ok((ioba - w.start) >> w.shift) } else { Err(HCode::PARAMETER) }
    }

    /// For a LIOBN that names nothing, and a list that cannot be read.
    fn unknown(&self) -> HCode {
        if self.compat == Compat::Kvm { HCode::TOO_HARD } else { HCode::PARAMETER }
    }

    /// The address that counts: QEMU looks at the page only.
    fn address(&self, liobn: u64, ioba: u64) -> u64 {
        let page = self.windows.get(&liobn).map_or(1, |w| 1 << w.shift);
        if self.compat == Compat::Qemu { ioba / page * page } else { ioba }
    }

    fn valid(&self, liobn: u64, value: u64) -> Result<(), HCode> {
        let page = 1u64 << self.windows[&liobn].shift;
        let address = value & !3;
        let inside = address.is_multiple_of(page) && address < RAM && page <= RAM - address;
        if value & 3 == 0 || inside { Ok(()) } else { Err(self.unknown()) }
    }

    /// One entry.
    fn put(&mut self, liobn: u64, ioba: u64, value: u64) -> Result<(), HCode> {
        let first = self.range(liobn, self.address(liobn, ioba), 1)?;
        self.valid(liobn, value)?;
        self.entries.insert((liobn, first), value);
        Ok(())
    }

    /// All of the entries in all of the windows, or none.
    fn store(&mut self, liobns: &[u64], ioba: u64, values: &[u64]) -> Result<(), HCode> {
        for liobn in liobns {
            self.range(*liobn, ioba, values.len() as u64)?;
            values.iter().try_for_each(|v| self.valid(*liobn, *v))?;
        }
        for liobn in liobns {
            let first = self.range(*liobn, ioba, 1)?;
            for (i, value) in (first..).zip(values) {
                self.entries.insert((*liobn, i), *value);
            }
        }
        Ok(())
    }

    /// A list that could be read: the number of entries that were stored, and how it ended.
    fn list(&mut self, liobn: u64, ioba: u64, values: &[u64]) -> (u64, Result<(), HCode>) {
        match self.compat {
            Compat::Arch => match self.store(&[liobn], ioba, values) {
                Ok(()) => return (values.len() as u64, Ok(())),
                Err(code) => return (0, Err(code)),
            },
            Compat::Kvm => {
                let checked = self.range(liobn, ioba, 1);
                let all = values.iter().try_for_each(|v| checked.and(self.valid(liobn, *v)));
                if let Err(code) = all {
                    return (0, Err(code));
                }
            }
            Compat::Qemu => {}
        }
        let Some(w) = self.windows.get(&liobn) else { return (0, Err(self.unknown())) };
        let (page, start) = (1u64 << w.shift, self.address(liobn, ioba));
        for (i, value) in (0..).zip(values) {
            if let Err(code) = self.put(liobn, start + i * page, *value) {
                return (i, Err(code));
            }
        }
        (values.len() as u64, Ok(()))
    }

    /// H_STUFF_TCE: the number of entries that were stored, and how it ended.
    fn stuff(&mut self, liobn: u64, ioba: u64, value: u64, count: u64) -> (u64, Result<(), HCode>) {
        if self.compat == Compat::Arch {
            if count > 512 {
                return (0, Err(HCode::P4));
            }
            return self.list(liobn, ioba, &vec![value; count as usize]);
        }
        let Some(w) = self.windows.get(&liobn).copied() else { return (0, Err(self.unknown())) };
        let refused = match self.compat {
            Compat::Kvm => value & 3 != 0,
            _ => count > w.entries,
        };
        let first = self.range(liobn, self.address(liobn, ioba), 1);
        match first {
            Ok(_) if refused => (0, Err(HCode::PARAMETER)),
            Err(code) => (0, Err(code)),
            Ok(first) => {
                let inside = count.min(w.entries - first);
                match self.list(liobn, ioba, &vec![value; inside as usize]) {
                    (stored, Ok(())) if inside < count => (stored, Err(HCode::PARAMETER)),
                    done => done,
                }
            }
        }
    }

    fn get(&self, liobn: u64, ioba: u64) -> (HCode, u64) {
        match self.range(liobn, self.address(liobn, ioba), 1) {
            Ok(i) => (HCode::SUCCESS, self.entries.get(&(liobn, i)).copied().unwrap_or(0)),
            Err(code) => (code, 0),
        }
    }

    fn parts(&self, liobn: u64) -> u64 {
        self.windows.get(&liobn).map_or(1, |w| w.parts)
    }

    fn forget(&mut self, liobn: u64) {
        self.windows.remove(&liobn);
        self.entries.retain(|(l, _), _| *l != liobn);
    }

    fn live(&self, phb: usize) -> u64 {
        let liobns = &LIOBNS[2 * phb..2 * phb + 2];
        let live = self.entries.iter().filter(|((l, _), v)| liobns.contains(l) && **v & 3 != 0);
        live.map(|((l, _), _)| self.parts(*l)).sum()
    }
}

#[derive(Clone, Debug)]
enum Call {
    Put(u64),
    Indirect { values: Vec<u64>, count: u64, list: u64, readable: bool },
    Multi { liobns: Vec<u64>, values: Vec<u64> },
    Stuff { value: u64, count: u64 },
    Get,
    Create { phb: usize, page: u64, window: u64 },
    Remove,
    Reset { phb: usize },
}

fn value() -> impl Strategy<Value = u64> {
    let ram_pages = RAM >> 12;
    prop_oneof![
        20 => (0..ram_pages, 1u64..4).prop_map(|(p, c)| p << 12 | c),
        20 => (0..ram_pages >> 4, 1u64..4).prop_map(|(p, c)| p << 16 | c),
        8 => Just(0u64),
        4 => any::<u64>().prop_map(|v| v & !3),
        1 => (0..ram_pages, 1u64..4, 2u32..12).prop_map(|(p, c, bit)| p << 12 | c | 1 << bit),
        1 => (ram_pages..ram_pages + 2, 1u64..4).prop_map(|(p, c)| p << 12 | c),
        1 => any::<u64>(),
    ]
}

/// Long lists of random values are hardly ever valid, so most are made of one kind.
fn values() -> impl Strategy<Value = Vec<u64>> {
    let many = |aligned: u64| {
        prop::collection::vec((0..(RAM >> 16) - 1, 0u64..16, 0u64..4), 1..513).prop_map(
            move |list| {
                list.iter().map(|(p, sub, c)| p << 16 | (sub * aligned) << 12 | c).collect()
            },
        )
    };
    prop_oneof![many(0), many(1), prop::collection::vec(value(), 1..6)]
}

fn call() -> impl Strategy<Value = Call> {
    let phb = || 0usize..2;
    let list = prop_oneof![9 => Just(0x7000u64), 1 => Just(0x7008u64)];
    let indirect = (values(), list, 0u32..20, prop::bool::weighted(0.95)).prop_map(
        |(values, list, odd, readable)| {
            let count = if odd == 0 { 513 } else { values.len() as u64 };
            Call::Indirect { values, count, list, readable }
        },
    );
    let several = prop::collection::vec(prop::sample::select(LIOBNS.to_vec()), 1..4);
    let alike = (0usize..2).prop_map(|slot| vec![LIOBNS[slot], LIOBNS[2 + slot]]);
    let odd = (0usize..200).prop_map(|n| (0..n).map(|n| LIOBNS[n % 2 * 2]).collect());
    let liobns = prop_oneof![4 => alike, 2 => several, 1 => odd];
    let multi = (liobns, values()).prop_map(|(liobns, values)| Call::Multi { liobns, values });
    let count = prop_oneof![1u64..20, 1u64..513, Just(513u64), 513u64..5000];
    let create = (phb(), prop::sample::select(vec![12u64, 16, 21, 24, 40]), 0u64..40)
        .prop_map(|(phb, page, window)| Call::Create { phb, page, window });
    prop_oneof![
        6 => value().prop_map(Call::Put),
        6 => indirect,
        4 => multi,
        6 => (value(), count).prop_map(|(value, count)| Call::Stuff { value, count }),
        4 => Just(Call::Get),
        2 => create,
        1 => Just(Call::Remove),
        1 => phb().prop_map(|phb| Call::Reset { phb }),
    ]
}

fn liobn() -> impl Strategy<Value = u64> {
    let odd = vec![0, 0x7fff_ffff, 1 << 32 | LIOBNS[0], -1i64 as u64, -2i64 as u64];
    prop_oneof![12 => prop::sample::select(LIOBNS.to_vec()), 1 => prop::sample::select(odd)]
}

/// A bus address as (in the window, page, in 64 KiB pages, offset).
fn bus() -> impl Strategy<Value = (bool, u64, bool, u64)> {
    let page = prop_oneof![0u64..ENTRIES, ENTRIES - 520..ENTRIES + 3];
    (
        prop::bool::weighted(0.95),
        page,
        any::<bool>(),
        prop_oneof![19 => Just(0u64), 1 => 1u64..4096],
    )
}

/// Creates a window, and says what the answer has to be.
fn create(model: &mut Model, papr: &Papr, phb: usize, page: u64, window: u64) {
    let answer = papr.ddw_create(BUIDS[phb], page, window);
    let free = [0, 1].into_iter().find(|slot| !model.windows.contains_key(&LIOBNS[2 * phb + slot]));
    let Some(slot) = free else {
        assert!(matches!(answer, Err(RtasStatus::HARDWARE | RtasStatus::PARAMETER)), "{answer:?}");
        return;
    };
    // The mock offers 4K, 64K and 16M of these.
    if ![12, 16, 24].contains(&page) || window < page {
        assert_eq!(answer, Err(RtasStatus::PARAMETER), "page {page} window {window}");
        return;
    }
    let (liobn, start) = (LIOBNS[2 * phb + slot], (slot as u64) << 59);
    assert_eq!(answer, Ok((Liobn(liobn as u32), Ioba(start))));
    let entries = 1 << (window - page);
    let parts = if model.composed { 1 << (page - 12) } else { 1 };
    model.windows.insert(liobn, Window { start, shift: page as u32, entries, parts });
}

fn perform(model: &mut Model, mut caller: Caller<'_>, call: &Call, liobn: u64, ioba: u64) {
    let papr = caller.0;
    match call {
        Call::Put(value) => {
            let expected = model.put(liobn, ioba, *value).err().unwrap_or(HCode::SUCCESS);
            // Often enough for a lock to be left to the vCPU.
            for _ in 0..4 {
                assert_eq!(caller.put_tce(liobn, ioba, *value).code, expected);
            }
        }
        Call::Indirect { values, count, list, readable } => {
            let memory = List(readable.then(|| values.clone()));
            let answer = caller.put_tce_indirect(liobn, ioba, *list, *count, &memory);
            let known = model.windows.contains_key(&liobn);
            let negative = liobn >> 63 != 0 && model.compat == Compat::Arch;
            let (stored, done) = match () {
                // Of two faults either may be named.
                () if negative && model.multi_table => {
                    return assert_ne!(answer.code, HCode::SUCCESS);
                }
                () if negative => (0, Err(HCode::FUNCTION)),
                () if !known => (0, Err(model.unknown())),
                () if *count > 512 || list % 4096 != 0 => (0, Err(HCode::PARAMETER)),
                () if !readable => (0, Err(model.unknown())),
                () => model.list(liobn, ioba, values),
            };
            assert_eq!(answer.code, done.err().unwrap_or(HCode::SUCCESS));
            assert_eq!(answer.receipt.tces, stored * model.parts(liobn));
        }
        Call::Multi { liobns, values } => {
            let count = values.len() as u64;
            let memory = List(Some([&liobns[..], values].concat()));
            let first = (liobns.len() as u64).wrapping_neg();
            if liobns.is_empty() {
                return;
            }
            let answer = caller.put_tce_indirect(first, ioba, 0x7000, count, &memory);
            let long = liobns.len() > 128 || liobns.len() + values.len() > 512;
            let known = liobns.iter().all(|l| model.windows.contains_key(l));
            let mut once = liobns.clone();
            once.sort_unstable();
            once.dedup();
            let done = match model.compat {
                Compat::Kvm | Compat::Qemu => Err(model.unknown()),
                Compat::Arch if !model.multi_table => Err(HCode::FUNCTION),
                Compat::Arch if long || !known => Err(HCode::PARAMETER),
                Compat::Arch => model.store(&once, ioba, values),
            };
            assert_eq!(answer.code, done.err().unwrap_or(HCode::SUCCESS));
            let parts: u64 = once.iter().map(|l| model.parts(*l)).sum();
            assert_eq!(answer.receipt.tces, done.map_or(0, |()| count * parts));
        }
        Call::Stuff { value, count } => {
            let answer = caller.stuff_tce(liobn, ioba, *value, *count);
            let (stored, done) = model.stuff(liobn, ioba, *value, *count);
            assert_eq!(answer.code, done.err().unwrap_or(HCode::SUCCESS));
            assert_eq!(answer.receipt.tces, stored * model.parts(liobn));
        }
        Call::Get => assert_eq!(caller.get_tce(liobn, ioba), model.get(liobn, ioba)),
        Call::Create { phb, page, window } => create(model, papr, *phb, *page, *window),
        Call::Remove => {
            // The default window stays here: what removing it means has tests of its own.
            let second = liobn % 2 == 1 && model.windows.contains_key(&liobn);
            if second {
                assert_eq!(papr.ddw_remove(Liobn(liobn as u32)), Ok(()));
                model.forget(liobn);
            } else if let Ok(n) = u32::try_from(liobn)
                && !model.windows.contains_key(&liobn)
            {
                assert_eq!(papr.ddw_remove(Liobn(n)), Err(RtasStatus::PARAMETER));
            }
        }
        Call::Reset { phb } => {
            assert_eq!(papr.ddw_reset(BUIDS[*phb]), Ok(()));
            LIOBNS[2 * phb..2 * phb + 2].iter().for_each(|l| model.forget(*l));
            model.windows.insert(LIOBNS[2 * phb], DEFAULT);
        }
    }
}

/// Every entry that the model knows, and the first and last thousands of each window.
fn compare(rig: &Rig, papr: &Papr, model: &Model) {
    for (liobn, w) in &model.windows {
        let known = model.entries.keys().filter(|k| k.0 == *liobn).map(|k| k.1);
        let edges = (0..w.entries.min(2000)).chain(w.entries.saturating_sub(1000)..w.entries);
        for i in known.chain(edges) {
            let at = w.start + (i << w.shift);
            let value = model.entries.get(&(*liobn, i)).copied().unwrap_or(0);
            assert_eq!(papr.get_tce(*liobn, at), (HCode::SUCCESS, value), "{liobn:#x} {i}");
            let pe = PeNumber(u16::from(*liobn >= LIOBNS[2]));
            for part in [0, w.parts / 3, w.parts - 1] {
                let offset = part << (w.shift - w.parts.trailing_zeros());
                match rig.mock.probe(pe, Ioba(at + offset)) {
                    Ok(t) => {
                        assert_eq!(t.at.0 | t.perm.bits(), value + offset, "{liobn:#x} {i} {part}");
                        assert_eq!(t.page.bytes() * w.parts, 1 << w.shift);
                    }
                    Err(Fault::Empty { value: seen }) => assert_eq!((seen, value & 3), (value, 0)),
                    Err(Fault::NoLevel { .. }) => assert_eq!(value, 0),
                    Err(other) => panic!("{liobn:#x} {i}: {other:?}"),
                }
            }
        }
    }
    let mut windows: Vec<_> =
        model.windows.iter().map(|(l, w)| (Liobn(*l as u32), Ioba(w.start), w.entries)).collect();
    windows.sort_unstable();
    assert_eq!(papr.windows(), windows);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_calls_equal_a_plain_model(
        calls in prop::collection::vec((call(), liobn(), bus(), 0usize..3), 1..80),
        host_64k: bool,
        on_fill: bool,
        compat in prop::sample::select(vec![Compat::Arch, Compat::Arch, Compat::Kvm, Compat::Qemu]),
        multi_table: bool,
        composed: bool,
    ) {
        let host = if host_64k { PageShift::K64 } else { PageShift::K4 };
        let kill = phb3(on_fill);
        let mut builder = MockBuilder::new(2).host_page(host).kill(kill);
        let mut papr = Papr::new(RAM).compat(compat);
        if composed {
            for group in [G0, G1] {
                builder = builder.group(group, |c| c.page_sizes = PageSizes::of(&[PageShift::K4]));
            }
            papr = papr.compose_pages(PageSizes::of(&[PageShift::K64, PageShift::M16]));
        }
        let rig = Rig::new(builder);
        let papr = Arc::new(if multi_table { papr.multi_table() } else { papr });
        let mut vcpus = [papr.vcpu(), papr.vcpu()];
        let mut model = Model { compat, multi_table, composed, ..Model::default() };
        for (phb, group) in [(0, G0), (1, G1)] {
            let liobn = LIOBNS[2 * phb];
            let window = WindowSpec::new(ENTRIES << 12, PageShift::K4);
            let spec = PhbSpec { buid: BUIDS[phb], group, liobn: Liobn(liobn as u32), window };
            papr.add_phb(&rig.engine, spec).unwrap();
            model.windows.insert(liobn, DEFAULT);
        }
        for (call, liobn, (own, page, wide, offset), vcpu) in &calls {
            let window = model.windows.get(liobn).copied().unwrap_or(DEFAULT);
            let shift = if *wide { 16 } else { window.shift };
            let start = if *own { window.start } else { 1 << 59 ^ window.start };
            // Near the start, or from near the end to a little behind it.
            let near_end = (window.entries + page).saturating_sub(ENTRIES);
            let page = if *page < ENTRIES - 520 { page % window.entries } else { near_end };
            let ioba = start + (page << shift) + offset;
            let caller = Caller(&papr, vcpus.get_mut(*vcpu));
            perform(&mut model, caller, call, *liobn, ioba);
            for (phb, buid) in BUIDS.iter().enumerate() {
                let mapped = papr.with_container(*buid, |c| c.regions()[0].mapped);
                prop_assert_eq!(mapped, Some(model.live(phb)), "after {:?}", call);
            }
        }
        compare(&rig, &papr, &model);
        drop((vcpus, papr));
        rig.assert_empty();
    }
}
