// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Black-box cases J1–J5 and J9 under the rules of the architecture, of KVM and of QEMU, and where
//! else the three differ. All by a guest as a whole and by a vCPU's handle.

use std::sync::Arc;

use crate::common::guest::{Caller, List};
use crate::common::*;
use tce_engine::addr::{Ioba, Liobn, PageShift, PeNumber};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::Receipt;
use tce_engine::geometry::WindowSpec;
use tce_engine::papr::{Answer, Compat, HCode, Papr, PhbSpec, Vcpu};

const LIOBN: u64 = 0x8000_0000;
const BUID: u64 = 1;
const RAM: u64 = G;
/// 4096 entries.
const WINDOW: u64 = 16 * M;
const P: u64 = 4 * K;
const LIST: u64 = 0x7000;
const ALL: [Compat; 3] = [Compat::Arch, Compat::Kvm, Compat::Qemu];

struct Guest {
    papr: Arc<Papr>,
    vcpu: Option<Vcpu>,
    rig: Rig,
}

impl Guest {
    fn new(compat: Compat, by_vcpu: bool, window: WindowSpec) -> Self {
        let rig = Rig::new(MockBuilder::new(2));
        let papr = Arc::new(Papr::new(RAM).compat(compat).multi_table());
        let liobn = Liobn(LIOBN as u32);
        papr.add_phb(&rig.engine, PhbSpec { buid: BUID, group: G0, liobn, window }).unwrap();
        let vcpu = by_vcpu.then(|| papr.vcpu());
        Self { papr, vcpu, rig }
    }

    fn call(&mut self) -> Caller<'_> {
        Caller(&self.papr, self.vcpu.as_mut())
    }

    fn put(&mut self, ioba: u64, tce: u64) -> HCode {
        self.call().put_tce(LIOBN, ioba, tce).code
    }

    fn list(&mut self, ioba: u64, list: &[u64]) -> Answer {
        let memory = List(Some(list.to_vec()));
        self.call().put_tce_indirect(LIOBN, ioba, LIST, list.len() as u64, &memory)
    }

    fn stuff(&mut self, ioba: u64, tce: u64, count: u64) -> Answer {
        self.call().stuff_tce(LIOBN, ioba, tce, count)
    }

    /// Entries from bus page `first` on, by H_GET_TCE and as the PHB sees them.
    fn entries(&mut self, first: u64, count: u64) -> Vec<u64> {
        let entry = |n: u64| {
            let at = (first + n) * P;
            let (code, value) = self.call().get_tce(LIOBN, at);
            assert_eq!(code, HCode::SUCCESS, "{at:#x}");
            let seen = self.rig.mock.probe(PeNumber(0), Ioba(at)).ok();
            let seen = seen.map(|t| t.at.0 | t.perm.bits());
            assert_eq!(seen, (value & 3 != 0).then_some(value), "{at:#x}");
            value
        };
        (0..count).map(entry).collect()
    }

    fn mapped(&self) -> u64 {
        self.papr.with_container(BUID, |c| c.regions()[0].mapped).unwrap()
    }

    /// Live entries behind the window's end, which the table has but the guest does not.
    fn behind(&self) -> usize {
        let beyond = (WINDOW..2 * WINDOW).step_by(P as usize);
        beyond.filter(|at| self.rig.mock.probe(PeNumber(0), Ioba(*at)).is_ok()).count()
    }
}

/// Runs `f` for the guest as a whole and for a vCPU's handle.
fn both(compat: Compat, f: impl Fn(&mut Guest)) {
    for by_vcpu in [false, true] {
        f(&mut Guest::new(compat, by_vcpu, WindowSpec::new(WINDOW, PageShift::K4)));
    }
}

/// Entries that are all live.
fn tces(n: u64) -> Vec<u64> {
    (0..n).map(|i| (i * 7 % 1000) << 12 | (1 + i % 3)).collect()
}

#[test]
fn j1_indirect_of_512_entries_in_each_mode() {
    for compat in ALL {
        both(compat, |guest| {
            let answer = guest.list(0x10_0000, &tces(512));
            assert_eq!((answer.code, answer.receipt.tces), (HCode::SUCCESS, 512), "{compat:?}");
            assert_eq!(guest.entries(0x100, 512), tces(512));
            assert_eq!(guest.mapped(), 512);
        });
    }
}

#[test]
fn j2_513_entries_or_an_unaligned_list_in_each_mode() {
    for compat in ALL {
        both(compat, |guest| {
            let memory = List(Some(tces(600)));
            for (list, count) in [(LIST, 513), (LIST, u64::MAX), (LIST + 8, 1), (LIST + 0x800, 4)] {
                let answer = guest.call().put_tce_indirect(LIOBN, 0, list, count, &memory);
                assert_eq!(answer, Answer { code: HCode::PARAMETER, receipt: Receipt::NONE });
            }
            assert_eq!((guest.entries(0, 512), guest.mapped()), (vec![0; 512], 0));
        });
    }
}

#[test]
fn j3_a_list_past_the_end_by_one_in_each_mode() {
    let at = WINDOW - 511 * P;
    for compat in ALL {
        both(compat, |guest| {
            let answer = guest.list(at, &tces(512));
            assert_eq!(answer.code, HCode::PARAMETER, "{compat:?}");
            let stored = if compat == Compat::Arch { 0 } else { 511 };
            assert_eq!((answer.receipt.tces, guest.mapped()), (stored, stored));
            let expected = if stored > 0 { tces(511) } else { vec![0; 511] };
            assert_eq!(guest.entries(at / P, 511), expected);
            assert_eq!(guest.behind(), 0, "the table goes on, the window does not");
            // Nothing of it is inside.
            for ioba in [WINDOW, 2 * WINDOW, !0xfff] {
                let answer = guest.list(ioba, &tces(2));
                assert_eq!(answer, Answer { code: HCode::PARAMETER, receipt: Receipt::NONE });
            }
            assert_eq!(guest.behind(), 0);
        });
    }
}

#[test]
fn j4_one_bad_entry_at_300_in_each_mode() {
    let before: Vec<_> = tces(512).iter().map(|v| v ^ 0x40_0000).collect();
    for bad in [RAM | 3, 0x1234_5000 | 0x800 | 1, !0xfff | 1] {
        let mut list = tces(512);
        list[300] = bad;
        for (compat, code, stored) in [
            (Compat::Arch, HCode::PARAMETER, 0),
            (Compat::Kvm, HCode::TOO_HARD, 0),
            (Compat::Qemu, HCode::PARAMETER, 300),
        ] {
            both(compat, |guest| {
                assert_eq!(guest.list(0, &before).code, HCode::SUCCESS);
                let answer = guest.list(0, &list);
                assert_eq!(answer.code, code, "{compat:?} {bad:#x}");
                assert_eq!((answer.receipt.tces, answer.receipt.released), (stored, stored));
                let expected = [&list[..stored as usize], &before[stored as usize..]].concat();
                assert_eq!((guest.entries(0, 512), guest.mapped()), (expected, 512));
                assert_eq!(guest.put(0, bad), code, "H_PUT_TCE of it");
                assert_eq!(guest.entries(0, 1)[0], if stored > 0 { list[0] } else { before[0] });
            });
        }
    }
}

#[test]
fn j5_no_memory_for_the_level_of_entry_300_in_each_mode() {
    // 8192 entries a leaf, and a chunk of table memory that the root and 31 leaves fill.
    let window = WindowSpec::new(4 * G, PageShift::K4).levels(2);
    let first = 31 * 8192 - 300;
    for (compat, stored) in [(Compat::Arch, 0), (Compat::Kvm, 300), (Compat::Qemu, 300)] {
        for by_vcpu in [false, true] {
            let mut guest = Guest::new(compat, by_vcpu, window);
            for leaf in 0..31 {
                assert_eq!(guest.put(leaf * 8192 * P, 3), HCode::SUCCESS);
            }
            guest.rig.faulty.allow_chunks(0);
            let answer = guest.list(first * P, &tces(512));
            assert_eq!(answer.code, HCode::NOT_ENOUGH_RESOURCES, "{compat:?}");
            assert_eq!((answer.receipt.tces, guest.mapped()), (stored, 31 + stored));
            let mut expected = tces(512);
            expected[stored as usize..].fill(0);
            assert_eq!(guest.entries(first, 512), expected, "0–299 stay, 300 is clear");
            guest.rig.faulty.allow_chunks(i64::MAX);
            assert_eq!(guest.list(first * P, &tces(512)).code, HCode::SUCCESS);
            assert_eq!(guest.entries(first, 512), tces(512));
        }
    }
}

#[test]
fn after_a_level_that_could_not_be_made_a_page_counts_where_it_lies() {
    let window = WindowSpec::new(4 * G, PageShift::K4).levels(2);
    let mut guest = Guest::new(Compat::Arch, true, window);
    // Another vCPU fills the chunk of table memory, so that this one has stored nothing yet.
    let mut other = guest.papr.vcpu();
    for leaf in 0..31 {
        assert_eq!(other.put_tce(LIOBN, leaf * 8192 * P, 3).code, HCode::SUCCESS);
    }
    // Often enough for the segment's lock to be left to it.
    for _ in 0..8 {
        assert_eq!(guest.put(0, 0), HCode::SUCCESS);
    }
    guest.rig.faulty.allow_chunks(0);
    // Of this call the vCPU remembers the memory, but there is nothing to count.
    assert_eq!(guest.put(31 * 8192 * P, 3), HCode::NOT_ENOUGH_RESOURCES);
    assert_eq!((guest.mapped(), guest.put(0, 3)), (30, HCode::SUCCESS));
    assert_eq!((guest.mapped(), guest.entries(0, 2)), (31, vec![3, 0]));
    assert_eq!((guest.put(0, 0), guest.mapped()), (HCode::SUCCESS, 30));
}

#[test]
fn j9_kvm_and_qemu_have_no_multi_table_option() {
    for (compat, code) in [(Compat::Kvm, HCode::TOO_HARD), (Compat::Qemu, HCode::PARAMETER)] {
        both(compat, |guest| {
            let list = [&[LIOBN][..], &tces(4)].concat();
            let memory = List(Some(list));
            let minus_one = 1u64.wrapping_neg();
            let answer = guest.call().put_tce_indirect(minus_one, 0, LIST, 4, &memory);
            assert_eq!(answer.code, code, "{compat:?}");
            assert_eq!(guest.mapped(), 0);
        });
    }
}

#[test]
fn unknown_liobns_and_unreadable_lists() {
    for compat in ALL {
        let code = if compat == Compat::Kvm { HCode::TOO_HARD } else { HCode::PARAMETER };
        both(compat, |guest| {
            for liobn in [0, LIOBN + 1, 1 << 32 | LIOBN] {
                let mut call = guest.call();
                assert_eq!(call.put_tce(liobn, 0, 3).code, code, "{compat:?} {liobn:#x}");
                assert_eq!(call.stuff_tce(liobn, 0, 0, 1).code, code);
                assert_eq!(call.get_tce(liobn, 0), (code, 0));
                let memory = List(Some(tces(1)));
                assert_eq!(call.put_tce_indirect(liobn, 0, LIST, 1, &memory).code, code);
            }
            let unreadable = guest.call().put_tce_indirect(LIOBN, 0, LIST, 1, &List(None));
            assert_eq!(unreadable.code, code);
            assert_eq!(guest.mapped(), 0);
        });
    }
}

#[test]
fn a_liobn_whose_window_has_gone_is_unknown() {
    for compat in ALL {
        let code = if compat == Compat::Kvm { HCode::TOO_HARD } else { HCode::PARAMETER };
        both(compat, |guest| {
            let (liobn, start) = guest.papr.ddw_create(BUID, 12, 24).unwrap();
            let (second, at) = (u64::from(liobn.0), start.0);
            assert_eq!(guest.call().put_tce(second, at, 3).code, HCode::SUCCESS);
            guest.papr.ddw_remove(liobn).unwrap();
            let mut call = guest.call();
            assert_eq!(call.put_tce(second, at, 3).code, code, "{compat:?}");
            assert_eq!(call.stuff_tce(second, at, 0, 4).code, code);
            assert_eq!(call.stuff_tce(second, at, 3, 4).code, code);
            assert_eq!(call.get_tce(second, at), (code, 0));
            let memory = List(Some(tces(4)));
            assert_eq!(call.put_tce_indirect(second, at, LIST, 4, &memory).code, code);
        });
    }
}

#[test]
fn bus_addresses_inside_a_page() {
    for compat in ALL {
        both(compat, |guest| {
            let masked = compat == Compat::Qemu;
            let code = if masked { HCode::SUCCESS } else { HCode::PARAMETER };
            assert_eq!(guest.put(5 * P + 8, 0x9003), code, "{compat:?}");
            assert_eq!(guest.list(6 * P + 0xfff, &tces(3)).code, code);
            assert_eq!(guest.stuff(WINDOW - 1, 0x60, 1).code, code);
            let expected = [&[0x9003][..], &tces(3)].concat();
            let expected = if masked { expected } else { vec![0; 4] };
            assert_eq!(guest.entries(5, 4), expected);
            assert_eq!(guest.entries(4095, 1), [if masked { 0x60 } else { 0 }]);
            let read = guest.call().get_tce(LIOBN, 5 * P + 1);
            assert_eq!(read, if masked { (code, 0x9003) } else { (code, 0) });
            // Past the end and unaligned.
            let answer = guest.list(WINDOW - 2 * P + 4, &tces(3));
            let stored = if masked { 2 } else { 0 };
            assert_eq!((answer.code, answer.receipt.tces), (HCode::PARAMETER, stored));
            assert_eq!(guest.behind(), 0);
        });
    }
}

#[test]
fn stuff_with_a_permission_bit() {
    for compat in ALL {
        both(compat, |guest| {
            for count in [1, 20] {
                let stored = compat != Compat::Kvm;
                let code = if stored { HCode::SUCCESS } else { HCode::PARAMETER };
                // Often enough for a lock to be left to the vCPU.
                for _ in 0..4 {
                    assert_eq!(guest.put(0, 0), HCode::SUCCESS);
                    assert_eq!(guest.stuff(0, 0x5001, count).code, code, "{compat:?}");
                }
                assert_eq!(guest.mapped(), if stored { count } else { 0 });
                assert_eq!(guest.stuff(0, 0xabc0, count).code, HCode::SUCCESS, "poison clears");
                assert_eq!(guest.mapped(), 0);
            }
            assert_eq!(guest.entries(0, 20), [0xabc0; 20]);
        });
    }
}

#[test]
fn stuff_of_more_than_512_and_past_the_end() {
    for compat in ALL {
        both(compat, |guest| {
            let fill = |guest: &mut Guest| {
                for first in (0..4096).step_by(512) {
                    assert_eq!(guest.list(first * P, &tces(512)).code, HCode::SUCCESS);
                }
            };
            fill(guest);
            let arch = compat == Compat::Arch;
            let answer = guest.stuff(0, 0, 600);
            let code = if arch { HCode::P4 } else { HCode::SUCCESS };
            assert_eq!((answer.code, answer.receipt.tces), (code, if arch { 0 } else { 600 }));
            assert_eq!(guest.mapped(), if arch { 4096 } else { 3496 });
            // Past the end: KVM and QEMU clear what there is.
            let answer = guest.stuff(WINDOW - 10 * P, 0x80, 11);
            let stored = if arch { 0 } else { 10 };
            assert_eq!((answer.code, answer.receipt.tces), (HCode::PARAMETER, stored));
            let last = guest.entries(4086, 10);
            assert_eq!(last == [0x80; 10], !arch, "{last:x?}");
            // More than the window has: QEMU looks first.
            fill(guest);
            for count in [4097, u64::MAX] {
                let answer = guest.stuff(0, 0, count);
                let (code, stored) = match compat {
                    Compat::Arch => (HCode::P4, 0),
                    Compat::Qemu => (HCode::PARAMETER, 0),
                    Compat::Kvm => (HCode::PARAMETER, 4096),
                };
                assert_eq!((answer.code, answer.receipt.tces), (code, stored), "{compat:?}");
                assert_eq!(guest.mapped(), 4096 - stored);
            }
            assert_eq!(guest.stuff(WINDOW, 0, 1).code, HCode::PARAMETER);
            assert_eq!(guest.behind(), 0);
        });
    }
}

#[test]
fn an_empty_list() {
    for compat in ALL {
        both(compat, |guest| {
            let expected = if compat == Compat::Qemu { HCode::PARAMETER } else { HCode::SUCCESS };
            let answer = guest.list(P, &[]);
            assert_eq!(answer, Answer { code: expected, receipt: Receipt::NONE }, "{compat:?}");
            assert_eq!(guest.list(WINDOW, &[]).code, HCode::PARAMETER);
        });
    }
}
