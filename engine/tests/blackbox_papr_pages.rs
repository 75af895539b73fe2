// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guest pages that are several pages of the hardware: one entry of the guest is several of the
//! table's, and the guest never sees that. By a guest as a whole and by a vCPU's handle.

use std::sync::Arc;

use crate::common::guest::{Caller, List};
use crate::common::*;
use tce_engine::addr::{Ioba, Liobn, PageShift, PageSizes, PeNumber};
use tce_engine::backend::KillScope;
use tce_engine::backend::mock::{Fault, MockBuilder};
use tce_engine::error::{GeometryError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::papr::{Compat, HCode, Papr, PhbError, PhbSpec, RtasStatus, Vcpu};

const LIOBN: u64 = 0x8000_0000;
const BUID: u64 = 1;
/// Ends inside a 16 MiB page, and 4 KiB behind a 64 KiB one.
const RAM: u64 = 256 * M + 68 * K;
/// 256 entries of 64 KiB.
const WINDOW: u64 = 16 * M;
const P: u64 = 64 * K;
const LIST: u64 = 0x7000;

struct Guest {
    papr: Arc<Papr>,
    vcpu: Option<Vcpu>,
    rig: Rig,
}

fn builder() -> MockBuilder {
    let small = PageSizes::of(&[PageShift::K4]);
    MockBuilder::new(1).host_page(PageShift::K4).group(G0, |caps| caps.page_sizes = small)
}

fn composing() -> Papr {
    Papr::new(RAM).compose_pages(PageSizes::of(&[PageShift::K64, PageShift::M16]))
}

fn spec(size: u64, page: PageShift) -> PhbSpec {
    let window = WindowSpec::new(size, page);
    PhbSpec { buid: BUID, group: G0, liobn: Liobn(LIOBN as u32), window }
}

impl Guest {
    fn new(by_vcpu: bool, builder: MockBuilder, papr: Papr) -> Self {
        let rig = Rig::new(builder);
        papr.add_phb(&rig.engine, spec(WINDOW, PageShift::K64)).unwrap();
        let papr = Arc::new(papr);
        let vcpu = by_vcpu.then(|| papr.vcpu());
        Self { papr, vcpu, rig }
    }

    fn call(&mut self) -> Caller<'_> {
        Caller(&self.papr, self.vcpu.as_mut())
    }

    fn put(&mut self, ioba: u64, tce: u64) -> HCode {
        self.call().put_tce(LIOBN, ioba, tce).code
    }

    fn list(&mut self, ioba: u64, list: &[u64]) -> HCode {
        let memory = List(Some(list.to_vec()));
        self.call().put_tce_indirect(LIOBN, ioba, LIST, list.len() as u64, &memory).code
    }

    fn stuff(&mut self, ioba: u64, tce: u64, count: u64) -> HCode {
        self.call().stuff_tce(LIOBN, ioba, tce, count).code
    }

    /// All entries by H_GET_TCE; behind each, the PHB sees its 16 pages of memory or nothing.
    fn all(&mut self) -> Vec<u64> {
        let entry = |at: u64| {
            let (code, value) = self.call().get_tce(LIOBN, at);
            assert_eq!(code, HCode::SUCCESS, "{at:#x}");
            for offset in (0..P).step_by(4 << 10) {
                match self.rig.mock.probe(PeNumber(0), Ioba(at + offset)) {
                    Ok(t) => assert_eq!(t.at.0 | t.perm.bits(), value + offset, "{at:#x}"),
                    Err(Fault::Empty { value: poison }) => {
                        assert_eq!((poison, value & 3), (value, 0), "{at:#x}");
                    }
                    Err(Fault::NoLevel { .. }) => assert_eq!(value, 0, "{at:#x}"),
                    Err(fault) => panic!("{at:#x}: {fault:?}"),
                }
            }
            value
        };
        (0..WINDOW).step_by(P as usize).map(entry).collect()
    }

    fn mapped(&self) -> u64 {
        self.papr.with_container(BUID, |c| c.regions()[0].mapped).unwrap()
    }
}

fn both(f: impl Fn(&mut Guest)) {
    for by_vcpu in [false, true] {
        f(&mut Guest::new(by_vcpu, builder(), composing()));
    }
}

#[test]
fn one_entry_is_sixteen_of_the_table() {
    both(|guest| {
        assert_eq!(guest.papr.windows(), [(Liobn(LIOBN as u32), Ioba(0), 256)]);
        let mut model = vec![0; 256];
        // Often enough for a lock to be left to the vCPU.
        for round in 0..4 {
            model[3] = (round + 1) << 16 | 2;
            let answer = guest.call().put_tce(LIOBN, 3 * P, model[3]);
            let released = if round == 0 { 0 } else { 16 };
            let receipt = answer.receipt;
            assert_eq!(
                (answer.code, receipt.tces, receipt.released),
                (HCode::SUCCESS, 16, released)
            );
            assert_eq!((guest.all(), guest.mapped()), (model.clone(), 16));
        }
        let list: Vec<_> = (0..250u64).map(|n| ((n * 7 % 300) << 16) | (n % 4)).collect();
        model[4..254].copy_from_slice(&list);
        assert_eq!(guest.list(4 * P, &list), HCode::SUCCESS);
        let live = |model: &[u64]| model.iter().filter(|v| **v & 3 != 0).count() as u64 * 16;
        assert_eq!((guest.all(), guest.mapped()), (model.clone(), live(&model)));
        model[255] = 0x9_0003;
        assert_eq!(guest.list(255 * P, &model[255..]), HCode::SUCCESS, "a list of one");
        assert_eq!((guest.all(), guest.mapped()), (model.clone(), live(&model)));
        for (first, count, value) in [(0, 9, 0x5_0003), (100, 50, 0), (120, 1, 0), (3, 2, 0xfff0)] {
            model[first..first + count].fill(value);
            let answer = guest.stuff(first as u64 * P, value, count as u64);
            assert_eq!(answer, HCode::SUCCESS);
            assert_eq!((guest.all(), guest.mapped()), (model.clone(), live(&model)));
        }
        assert_eq!(guest.put(0, 0), HCode::SUCCESS);
        assert_eq!(guest.mapped(), live(&model) - 16);
    });
}

#[test]
fn the_whole_guest_page_is_checked() {
    both(|guest| {
        let last = (RAM - 4 * K - P) | 3;
        assert_eq!(guest.put(0, last), HCode::SUCCESS);
        let mut model = vec![0; 256];
        model[0] = last;
        // Past the end of RAM with its last 60 KiB; at a 4 KiB page; with a reserved bit.
        for bad in [(RAM - 4 * K) | 3, 0x1000 | 3, 0x8000 | 1, 0x1_0000 | 0x10 | 2] {
            assert_eq!(guest.put(0, bad), HCode::PARAMETER, "{bad:#x}");
            assert_eq!(guest.stuff(0, bad, 3), HCode::PARAMETER, "{bad:#x}");
            assert_eq!(guest.list(0, &[0x1_0003, bad]), HCode::PARAMETER, "{bad:#x}");
        }
        // A bus address is one of a guest page, and counts are in these.
        for ioba in [4 * K, P + 4 * K, WINDOW - 4 * K, WINDOW, 8] {
            assert_eq!(guest.put(ioba, 3), HCode::PARAMETER, "{ioba:#x}");
            assert_eq!(guest.list(ioba, &[3, 3]), HCode::PARAMETER, "{ioba:#x}");
            assert_eq!(guest.stuff(ioba, 0, 1), HCode::PARAMETER, "{ioba:#x}");
            assert_eq!(guest.call().get_tce(LIOBN, ioba).0, HCode::PARAMETER, "{ioba:#x}");
        }
        assert_eq!(guest.list(WINDOW - P, &[3, 3]), HCode::PARAMETER);
        assert_eq!(guest.stuff(0, 3, 257), HCode::PARAMETER);
        assert_eq!(guest.stuff(0, 3, 513), HCode::P4);
        assert_eq!((guest.all(), guest.mapped()), (model, 16));
        assert_eq!(guest.stuff(0, 3, 256), HCode::SUCCESS);
        assert_eq!(guest.mapped(), 256 * 16);
    });
}

#[test]
fn pages_of_one_entry_are_killed_together() {
    for on_fill in [false, true] {
        let builder = builder().kill(phb3(on_fill));
        let mut guest = Guest::new(true, builder, composing());
        let kills = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = kills.clone();
        guest.rig.faulty.watch(move |step| match step {
            Step::Kill(_, KillScope::Pages { start, count, .. }) => {
                seen.lock().unwrap().push((start.0, count));
            }
            Step::Kill(_, KillScope::Pe) => seen.lock().unwrap().push((u64::MAX, 0)),
            _ => {}
        });
        let mut took = |call: &mut dyn FnMut(&mut Guest)| {
            call(&mut guest);
            std::mem::take(&mut *kills.lock().unwrap())
        };
        let fill = if on_fill { vec![(2 * P, 16)] } else { vec![] };
        assert_eq!(took(&mut |g| assert_eq!(g.put(2 * P, 3), HCode::SUCCESS)), fill);
        let again = took(&mut |g| assert_eq!(g.put(2 * P, 0x1_0003), HCode::SUCCESS));
        assert_eq!(again, [(2 * P, 16)], "one range");
        let cleared = took(&mut |g| assert_eq!(g.put(2 * P, 0), HCode::SUCCESS));
        assert_eq!(cleared, [(2 * P, 16)]);
        let list = took(&mut |g| assert_eq!(g.list(P, &[3, 3, 0, 3]), HCode::SUCCESS));
        assert_eq!(list, if on_fill { vec![(P, 64)] } else { vec![] });
        // 4 pages of the guest, of which 3 were live: 48 pages of the table.
        let cleared = took(&mut |g| assert_eq!(g.stuff(P, 0, 4), HCode::SUCCESS));
        assert_eq!(cleared, [(P, 32), (4 * P, 16)]);
    }
}

#[test]
fn composed_pages_under_the_rules_of_kvm_and_qemu() {
    for compat in [Compat::Kvm, Compat::Qemu] {
        for by_vcpu in [false, true] {
            let mut guest = Guest::new(by_vcpu, builder(), composing().compat(compat));
            assert_eq!(guest.list(WINDOW - 2 * P, &[3, 0x1_0001, 0x2_0002]), HCode::PARAMETER);
            let mut model = vec![0; 256];
            model[254..].copy_from_slice(&[3, 0x1_0001]);
            assert_eq!((guest.all(), guest.mapped()), (model.clone(), 32), "{compat:?}");
            let code = guest.put(4 * K, 0x3_0003);
            if compat == Compat::Qemu {
                model[0] = 0x3_0003;
                assert_eq!(code, HCode::SUCCESS, "the guest's page is what counts");
            } else {
                assert_eq!(code, HCode::PARAMETER);
            }
            assert_eq!(guest.all(), model);
        }
    }
}

#[test]
fn a_guest_page_over_several_leaves() {
    // 16 MiB are 4096 entries of 4 KiB; a leaf of a 4 KiB block has 512.
    let rig = Rig::new(builder());
    let papr = Arc::new(composing());
    let window = WindowSpec::new(G, PageShift::M16).levels(3);
    papr.add_phb(&rig.engine, PhbSpec { window, ..spec(G, PageShift::M16) }).unwrap();
    let mut vcpu = papr.vcpu();
    let mapped = || papr.with_container(BUID, |c| c.regions()[0].mapped).unwrap();
    assert_eq!(vcpu.put_tce(LIOBN, 16 * M, (32 * M) | 3).code, HCode::SUCCESS);
    assert_eq!(mapped(), 4096);
    for offset in (0..16 * M).step_by(4 << 10) {
        let seen = rig.mock.probe(PeNumber(0), Ioba(16 * M + offset)).unwrap();
        assert_eq!(seen.at.0, 32 * M + offset);
    }
    assert_eq!(vcpu.put_tce(LIOBN, 16 * M, (256 * M) | 3).code, HCode::PARAMETER, "68 KiB are RAM");
    assert_eq!(vcpu.stuff_tce(LIOBN, 0, (16 * M) | 1, 64).code, HCode::SUCCESS);
    assert_eq!((mapped(), vcpu.get_tce(LIOBN, 63 * 16 * M).1), (64 * 4096, (16 * M) | 1));
    assert_eq!(vcpu.stuff_tce(LIOBN, 0, 0, 64).receipt.released, 64 * 4096);
    assert_eq!(mapped(), 0);
}

#[test]
fn which_pages_a_guest_is_offered() {
    let rig = Rig::new(builder());
    let alone = Papr::new(RAM);
    let added = alone.add_phb(&rig.engine, spec(WINDOW, PageShift::K64)).unwrap_err();
    assert!(matches!(added, PhbError::Window(WindowError::PageSize { .. })), "{added}");
    alone.add_phb(&rig.engine, spec(WINDOW, PageShift::K4)).unwrap();
    assert_eq!(alone.ddw_query(BUID).unwrap().page_mask, 1);
    assert_eq!(alone.ddw_create(BUID, 16, 28), Err(RtasStatus::PARAMETER));
    drop(alone);

    // A window of less than a guest page is none, even if the table's pages fit.
    let papr = composing();
    let added = papr.add_phb(&rig.engine, spec(32 * K, PageShift::K64)).unwrap_err();
    let small = |e: &PhbError| {
        matches!(e, PhbError::Window(WindowError::Geometry(GeometryError::SmallerThanPage { .. })))
    };
    assert!(small(&added), "{added}");
    let one = composing();
    one.add_phb(&rig.engine, spec(P, PageShift::K64)).unwrap();
    assert_eq!(one.windows(), [(Liobn(LIOBN as u32), Ioba(0), 1)]);
    drop(one);
    papr.add_phb(&rig.engine, spec(WINDOW, PageShift::K64)).unwrap();
    assert_eq!(papr.ddw_query(BUID).unwrap().page_mask, 1 | 2 | 4);
    assert_eq!(papr.ddw_create(BUID, 16, 15), Err(RtasStatus::PARAMETER));
    assert_eq!(papr.ddw_create(BUID, 21, 30), Err(RtasStatus::PARAMETER), "not composed");
    let (liobn, start) = papr.ddw_create(BUID, 24, 32).unwrap();
    assert_eq!(papr.windows()[1], (liobn, start, 256));
    papr.ddw_remove(liobn).unwrap();
    // The default window comes back in the guest's pages.
    papr.ddw_reset(BUID).unwrap();
    assert_eq!(papr.windows(), [(Liobn(LIOBN as u32), Ioba(0), 256)]);
    let info = papr.with_container(BUID, |c| c.windows()[0]).unwrap();
    assert_eq!((info.guest_page, info.geometry.page()), (PageShift::K64, PageShift::K4));
    drop(papr);

    // Where the PEs have the page, or a larger one below it, nothing smaller is used.
    let rig = Rig::new(MockBuilder::new(1).host_page(PageShift::K4));
    let papr = Papr::new(RAM).compose_pages(PageSizes::of(&[PageShift::K64, PageShift::M2]));
    papr.add_phb(&rig.engine, spec(WINDOW, PageShift::K64)).unwrap();
    papr.ddw_create(BUID, 21, 30).unwrap();
    let pages = |c: &tce_engine::container::Container| {
        c.windows().iter().map(|w| (w.guest_page, w.geometry.page())).collect::<Vec<_>>()
    };
    let pages = papr.with_container(BUID, pages).unwrap();
    assert_eq!(pages, [(PageShift::K64, PageShift::K64), (PageShift::M2, PageShift::K64)]);
}
