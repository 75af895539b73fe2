// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The multi-TCE-table option: black-box case J9, what is refused, and that it is all or nothing over
//! all tables. By a guest as a whole and by a vCPU's handle.

use std::sync::Arc;

use crate::common::guest::{Caller, List};
use crate::common::*;
use tce_engine::addr::{GroupId, Ioba, Liobn, PageShift, PeNumber};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::Receipt;
use tce_engine::geometry::WindowSpec;
use tce_engine::papr::{Answer, HCode, Papr, PhbSpec, Vcpu};

const RAM: u64 = G;
const P: u64 = 4 * K;
const LIST: u64 = 0x7000;

/// LIOBN of the default window of the PHB with this number.
const fn liobn(phb: u64) -> u64 {
    0x8000_0000 + 0x100 * phb
}

struct Guest {
    papr: Arc<Papr>,
    vcpu: Option<Vcpu>,
    rig: Rig,
}

impl Guest {
    /// A PHB for each of the default windows.
    fn new(by_vcpu: bool, windows: &[WindowSpec]) -> Self {
        let rig = Rig::new(MockBuilder::new(windows.len() as u16));
        let papr = Arc::new(Papr::new(RAM).multi_table());
        for (n, window) in (0u64..).zip(windows) {
            let (group, liobn) = (GroupId(n as u32), Liobn(liobn(n) as u32));
            papr.add_phb(&rig.engine, PhbSpec { buid: n, group, liobn, window: *window }).unwrap();
        }
        let vcpu = by_vcpu.then(|| papr.vcpu());
        Self { papr, vcpu, rig }
    }

    fn call(&mut self) -> Caller<'_> {
        Caller(&self.papr, self.vcpu.as_mut())
    }

    fn multi(&mut self, liobns: &[u64], ioba: u64, tces: &[u64]) -> Answer {
        let (cnt, count) = ((liobns.len() as u64).wrapping_neg(), tces.len() as u64);
        let memory = List(Some([liobns, tces].concat()));
        self.call().put_tce_indirect(cnt, ioba, LIST, count, &memory)
    }

    /// Entries of a 4 KiB window, which the PHB sees too.
    fn entries(&mut self, phb: u64, count: u64) -> Vec<u64> {
        let entry = |n: u64| {
            let (code, value) = self.call().get_tce(liobn(phb), n * P);
            assert_eq!(code, HCode::SUCCESS);
            let seen = self.rig.mock.probe(PeNumber(phb as u16), Ioba(n * P)).ok();
            assert_eq!(seen.map(|t| t.at.0 | t.perm.bits()), (value & 3 != 0).then_some(value));
            value
        };
        (0..count).map(entry).collect()
    }

    fn mapped(&self, phb: u64) -> u64 {
        self.papr.with_container(phb, |c| c.regions()[0].mapped).unwrap()
    }
}

fn k4(size: u64) -> WindowSpec {
    WindowSpec::new(size, PageShift::K4)
}

/// Runs `f` for the guest as a whole and for a vCPU's handle.
fn both(windows: &[WindowSpec], f: impl Fn(&mut Guest)) {
    for by_vcpu in [false, true] {
        f(&mut Guest::new(by_vcpu, windows));
    }
}

/// Entries that are all live.
fn tces(n: u64) -> Vec<u64> {
    (0..n).map(|i| (i * 7 % 1000) << 16 | (1 + i % 3)).collect()
}

const REFUSED: Answer = Answer { code: HCode::PARAMETER, receipt: Receipt::NONE };

#[test]
fn j9_two_liobns_and_510_entries() {
    both(&[k4(16 * M); 3], |guest| {
        let answer = guest.multi(&[liobn(2), liobn(0)], 0, &tces(510));
        assert_eq!((answer.code, answer.receipt.tces), (HCode::SUCCESS, 1020));
        assert_eq!(guest.entries(0, 512), guest.entries(2, 512));
        assert_eq!(guest.entries(0, 512), [tces(510), vec![0; 2]].concat());
        assert_eq!([guest.mapped(0), guest.mapped(1), guest.mapped(2)], [510, 0, 510]);
        // Replaced, with the kills on both PEs, and cleared.
        let answer = guest.multi(&[liobn(0), liobn(2)], 0, &[tces(2), vec![0; 508]].concat());
        assert_eq!((answer.receipt.released, answer.receipt.kills.asked), (1020, 1020));
        assert_eq!([guest.mapped(0), guest.mapped(2)], [2, 2]);
        let answer = guest.multi(&[liobn(0), liobn(2)], 0, &[0; 510]);
        assert_eq!((answer.code, answer.receipt.released), (HCode::SUCCESS, 4));
        assert_eq!([guest.mapped(0), guest.mapped(2)], [0, 0]);
    });
}

#[test]
fn how_many_liobns_and_entries() {
    both(&[k4(16 * M); 2], |guest| {
        let most = vec![liobn(1); 128];
        let answer = guest.multi(&most, 0, &tces(384));
        assert_eq!(
            (answer.code, answer.receipt.tces),
            (HCode::SUCCESS, 384),
            "once, not 128 times"
        );
        assert_eq!(guest.entries(1, 384), tces(384));
        assert_eq!(guest.multi(&most, 0, &tces(385)), REFUSED, "513 doublewords");
        assert_eq!(guest.multi(&[most, vec![liobn(1)]].concat(), 0, &tces(1)), REFUSED, "129");
        let memory = List(Some(vec![liobn(0); 512]));
        for first in [i64::MIN, i64::MIN + 1, -129, -1 << 32] {
            for count in [0, 1, u64::MAX] {
                let answer = guest.call().put_tce_indirect(first as u64, 0, LIST, count, &memory);
                assert_eq!(answer, REFUSED, "{first:#x} {count}");
            }
        }
        let two = (-2i64) as u64;
        for (list, count) in [(LIST + 8, 1), (LIST, 511), (LIST, u64::MAX)] {
            assert_eq!(guest.call().put_tce_indirect(two, 0, list, count, &memory), REFUSED);
        }
        assert_eq!(guest.call().put_tce_indirect(two, 0, LIST, 4, &List(None)), REFUSED);
        let none = guest.multi(&[liobn(0)], 0, &[]);
        assert_eq!(none.code, HCode::SUCCESS, "no entry");
        assert_eq!((guest.mapped(0), guest.mapped(1)), (0, 384));
    });
}

#[test]
fn the_option_is_off_unless_asked_for() {
    let rig = Rig::new(MockBuilder::new(1));
    let papr = Arc::new(Papr::new(RAM));
    let spec = PhbSpec { buid: 0, group: G0, liobn: Liobn(liobn(0) as u32), window: k4(16 * M) };
    papr.add_phb(&rig.engine, spec).unwrap();
    let memory = List(Some(vec![liobn(0), 3]));
    let one = (-1i64) as u64;
    let refused = Answer { code: HCode::FUNCTION, receipt: Receipt::NONE };
    assert_eq!(papr.put_tce_indirect(one, 0, LIST, 1, &memory), refused);
    assert_eq!(papr.vcpu().put_tce_indirect(one, 0, LIST, 1, &memory), refused);
}

#[test]
fn one_bad_liobn_or_entry_stores_nothing_anywhere() {
    let windows = [k4(16 * M), k4(32 * K), WindowSpec::new(16 * M, PageShift::K64)];
    both(&windows, |guest| {
        let (all, good) = ([liobn(0), liobn(1), liobn(2)], tces(8));
        assert_eq!(guest.multi(&all, 0, &good).receipt.tces, 24);
        let kills = guest.rig.mock.register_stores();
        let other: Vec<_> = good.iter().map(|v| v ^ 0x100_0000).collect();
        for unknown in [0, liobn(3), liobn(0) + 1, 1 << 32 | liobn(0), u64::MAX] {
            assert_eq!(guest.multi(&[liobn(0), unknown, liobn(2)], 0, &other), REFUSED);
        }
        // The second window has 8 entries only, the third has other pages.
        assert_eq!(guest.multi(&all, 0, &tces(9)), REFUSED);
        assert_eq!(guest.multi(&all, P, &other[..1]), REFUSED);
        assert_eq!(guest.multi(&[liobn(0), liobn(1)], 32 * K, &other[..1]), REFUSED);
        for bad in [RAM | 3, 0x1000 | 3, 0x800 | 1] {
            // The second is good for 4 KiB pages and not for 64 KiB ones.
            assert_eq!(guest.multi(&all, 0, &[other[0], bad]), REFUSED, "{bad:#x}");
        }
        assert_eq!(guest.rig.mock.register_stores(), kills, "nothing was killed either");
        for phb in [0, 1] {
            assert_eq!(guest.entries(phb, 8), good);
        }
        assert_eq!([guest.mapped(0), guest.mapped(1), guest.mapped(2)], [8; 3]);
    });
}

#[test]
fn no_memory_for_a_level_of_one_of_them() {
    // 8192 entries a leaf, and a chunk of table memory that the root and 31 leaves fill.
    let windows = [k4(16 * M), k4(4 * G).levels(2), k4(16 * M)];
    both(&windows, |guest| {
        for leaf in 0..31 {
            let put = guest.call().put_tce(liobn(1), leaf * 8192 * P, 3);
            assert_eq!(put.code, HCode::SUCCESS);
        }
        // The second window's leaf is missing where the others end: they are refused for that.
        guest.rig.faulty.allow_chunks(0);
        let at = 31 * 8192 * P;
        assert_eq!(guest.multi(&[liobn(0), liobn(1), liobn(2)], at, &tces(2)), REFUSED);
        let alone = guest.multi(&[liobn(1)], at, &tces(2));
        assert_eq!(alone.code, HCode::NOT_ENOUGH_RESOURCES);
        // Zeros make no level.
        assert_eq!(guest.multi(&[liobn(1)], at, &[0; 2]).code, HCode::SUCCESS);
        assert_eq!([guest.mapped(0), guest.mapped(1), guest.mapped(2)], [0, 31, 0]);
    });
    // All of them reach there, and the last one has no memory: the first gets nothing.
    let windows = [k4(4 * G).levels(2), k4(4 * G).levels(2)];
    both(&windows, |guest| {
        for phb in [0, 1] {
            // The first PHB keeps room in its chunk.
            for leaf in 0..30 + phb {
                let put = guest.call().put_tce(liobn(phb), leaf * 8192 * P, 3);
                assert_eq!(put.code, HCode::SUCCESS);
            }
        }
        guest.rig.faulty.allow_chunks(0);
        let at = 31 * 8192 * P;
        let answer = guest.multi(&[liobn(0), liobn(1)], at, &tces(2));
        assert_eq!(answer, Answer { code: HCode::NOT_ENOUGH_RESOURCES, receipt: Receipt::NONE });
        assert_eq!([guest.mapped(0), guest.mapped(1)], [30, 31]);
        assert_eq!(guest.call().get_tce(liobn(0), at), (HCode::SUCCESS, 0));
    });
}

#[test]
fn two_windows_of_one_phb_cannot_both_hold_the_range() {
    both(&[k4(16 * M); 2], |guest| {
        let (second, start) = guest.papr.ddw_create(0, 12, 24).unwrap();
        let second = u64::from(second.0);
        for ioba in [0, start.0] {
            for liobns in [[liobn(0), second], [second, liobn(0)]] {
                assert_eq!(guest.multi(&liobns, ioba, &tces(3)), REFUSED);
            }
        }
        assert_eq!(guest.multi(&[second, liobn(1)], start.0, &tces(3)), REFUSED);
        // Each for itself, twice.
        assert_eq!(guest.multi(&[second, second], start.0, &tces(3)).receipt.tces, 3);
        assert_eq!((guest.mapped(0), guest.mapped(1)), (3, 0));
        guest.papr.ddw_create(1, 12, 24).unwrap();
        let both = [second, liobn(1) + 1];
        assert_eq!(guest.multi(&both, start.0, &tces(4)).receipt.tces, 8);
        assert_eq!((guest.mapped(0), guest.mapped(1)), (4, 4));
    });
}

#[test]
fn windows_of_different_pages_and_sizes() {
    let windows = [k4(16 * M), WindowSpec::new(G, PageShift::K64)];
    both(&windows, |guest| {
        assert_eq!(guest.multi(&[liobn(1), liobn(0)], M, &tces(100)).code, HCode::SUCCESS);
        for (n, value) in (0..).zip(tces(100)) {
            for (phb, page) in [(0u16, 4 * K), (1, 64 * K)] {
                let at = M + n * page;
                let read = guest.call().get_tce(liobn(phb.into()), at);
                assert_eq!(read, (HCode::SUCCESS, value));
                let seen = guest.rig.mock.probe(PeNumber(phb), Ioba(at + page - 1)).unwrap();
                assert_eq!(seen.at.0, (value & !3) + page - 1);
            }
        }
    });
}

#[test]
fn a_list_for_128_phbs() {
    let windows = [k4(M); 128];
    let mut guest = Guest::new(true, &windows);
    let mut liobns: Vec<_> = (0..128).map(liobn).collect();
    liobns.rotate_left(50);
    let answer = guest.multi(&liobns, 0, &tces(200));
    assert_eq!((answer.code, answer.receipt.tces), (HCode::SUCCESS, 128 * 200));
    for phb in [0, 49, 50, 127] {
        assert_eq!(guest.entries(phb, 201), [tces(200), vec![0]].concat());
    }
}

#[test]
fn lists_in_any_order_do_not_wait_for_each_other_or_mix() {
    // Each call stores one value everywhere; whoever is last, all tables end up the same.
    let guest = Guest::new(false, &[k4(16 * M); 3]);
    let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]];
    std::thread::scope(|scope| {
        for (thread, order) in (1u64..).zip(orders) {
            let papr = guest.papr.clone();
            scope.spawn(move || {
                let mut vcpu = papr.vcpu();
                for round in 0..400u64 {
                    let tces = vec![(round * 3 + thread) << 12 | 3; 64];
                    let memory = List(Some([order.map(liobn).to_vec(), tces].concat()));
                    let cnt = (-3i64) as u64;
                    let answer = vcpu.put_tce_indirect(cnt, 0, LIST, 64, &memory);
                    assert_eq!(answer.receipt.tces, 192);
                    // Single pages, by the lock that is left to a handle.
                    let own = vcpu.put_tce(liobn(thread - 1), (100 + thread) * P, 0x5003);
                    assert_eq!(own.code, HCode::SUCCESS);
                }
            });
        }
    });
    let mut guest = guest;
    let first = guest.entries(0, 64);
    assert!(first.iter().all(|value| *value == first[0]), "{first:x?}");
    for phb in [1, 2] {
        assert_eq!(guest.entries(phb, 64), first);
    }
    assert_eq!([guest.mapped(0), guest.mapped(1), guest.mapped(2)], [65; 3]);
}
