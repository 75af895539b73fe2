// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Registered memory and the ledger: black-box cases of the series F.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::*;
use proptest::prelude::*;
use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::backend::{Backend, Memory};
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::engine::{EngineOptions, RegionUse};
use tce_engine::error::{LimitError, RegisterError, UnregisterError};
use tce_engine::geometry::{Geometry, WindowSpec};
use tce_engine::ledger::ChargeKind;
use tce_engine::tce::Perm;

const P: u64 = 64 * K;
const A: Uaddr = Uaddr(0x7f00_0000_0000);

fn at(pages: u64) -> Uaddr {
    Uaddr(A.0 + pages * P)
}

fn limited(pages: u64) -> Rig {
    let options = EngineOptions { memlock: Some(pages * P), ..EngineOptions::default() };
    Rig::with(MockBuilder::new(2), options)
}

#[test]
fn f1_f2_register_and_again() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    c.register(A, 16 * P).unwrap();
    assert_eq!(rig.pages(), 16);
    let entries = rig.engine.ledger().entries();
    assert_eq!((entries.len(), entries[0].kind, entries[0].pages), (1, ChargeKind::Region, 16));
    let again = c.register(A, 16 * P);
    assert_eq!(again, Err(RegisterError::Busy { start: A, bytes: 16 * P }));
    assert_eq!((rig.pages(), rig.mock.leftovers()), (16, (1, 0, 0)));
    c.unregister(A, 16 * P).unwrap();
    assert_eq!(rig.pages(), 0);
    assert_eq!(c.regions(), []);
}

#[test]
fn f3_f4_a_second_container_is_not_charged() {
    for first_leaves_first in [true, false] {
        let rig = Rig::new(MockBuilder::new(2));
        let (c, d) = (rig.container(&[G0]), rig.container(&[G1]));
        c.register(A, 16 * P).unwrap();
        d.register(A, 16 * P).unwrap();
        assert_eq!((rig.pages(), rig.mock.leftovers()), (16, (1, 0, 0)));
        assert_eq!(c.resolve(A, 16 * P), d.resolve(A, 16 * P), "it is the same memory");
        let (x, y) = if first_leaves_first { (&c, &d) } else { (&d, &c) };
        x.unregister(A, 16 * P).unwrap();
        assert_eq!(rig.pages(), 16);
        y.unregister(A, 16 * P).unwrap();
        assert_eq!(rig.pages(), 0);
    }
}

#[test]
fn f5_f6_ranges_that_are_none() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    let unaligned = |start, bytes| {
        let host_page = PageShift::K64;
        assert_eq!(
            c.register(start, bytes),
            Err(RegisterError::Unaligned { start, bytes, host_page })
        );
    };
    unaligned(Uaddr(A.0 + 4096), P);
    unaligned(A, P + 4096);
    unaligned(Uaddr(A.0 + 4096), P + 4096);
    unaligned(A, 1);
    let start = Uaddr(!0 - (P - 1));
    for bytes in [P, 2 * P] {
        assert_eq!(c.register(start, bytes), Err(RegisterError::Wraps { start, bytes }));
    }
    assert_eq!(c.register(A, 0), Err(RegisterError::Empty(A)));
    assert_eq!((rig.pages(), rig.mock.leftovers()), (0, (0, 0, 0)));
    let free = rig.engine.container();
    assert_eq!(free.register(A, P), Err(RegisterError::NoGroup));
}

#[test]
fn f7_f8_overlapping_and_adjacent() {
    let rig = Rig::new(MockBuilder::new(2));
    let (c, d) = (rig.container(&[G0]), rig.container(&[G1]));
    c.register(at(10), 10 * P).unwrap();
    let clash =
        RegisterError::Overlap { start: at(19), bytes: 2 * P, other: at(10), other_bytes: 10 * P };
    assert_eq!(c.register(at(19), 2 * P), Err(clash.clone()));
    assert_eq!(d.register(at(19), 2 * P), Err(clash), "overlap counts for the whole process");
    for (from, pages) in [(0, 11), (0, 30), (12, 1), (10, 9), (11, 9)] {
        let e = c.register(at(from), pages * P).unwrap_err();
        assert!(matches!(e, RegisterError::Overlap { .. }), "{e}");
    }
    assert_eq!((rig.pages(), rig.mock.leftovers()), (10, (1, 0, 0)), "nothing was pinned");
    c.register(at(0), 10 * P).unwrap();
    d.register(at(20), 5 * P).unwrap();
    assert_eq!(rig.pages(), 25);
}

#[test]
fn f9_f10_the_limit() {
    let rig = limited(16);
    let c = rig.container(&[G0]);
    let refused = |asked, charged| RegisterError::Limit(LimitError { asked, charged, limit: 16 });
    assert_eq!(c.register(A, 17 * P), Err(refused(17, 0)));
    assert_eq!((rig.pages(), rig.mock.leftovers()), (0, (0, 0, 0)));
    c.register(at(0), 8 * P).unwrap();
    c.register(at(8), 8 * P).unwrap();
    assert_eq!(c.register(at(16), P), Err(refused(1, 16)));
    assert_eq!(rig.engine.ledger().limit_pages(), Some(16));
    // A second use costs nothing, so it is allowed at the limit.
    let d = rig.container(&[G1]);
    d.register(at(0), 8 * P).unwrap();
    c.unregister(at(8), 8 * P).unwrap();
    c.register(at(16), P).unwrap();
    assert_eq!((rig.pages(), rig.engine.ledger().peak_pages()), (9, 16));
}

#[test]
fn pinning_that_fails_charges_nothing() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    rig.faulty.fail_pin(true);
    let e = c.register(A, 16 * P).unwrap_err();
    assert!(matches!(e, RegisterError::Backend(_)), "{e}");
    assert_eq!((rig.pages(), c.regions()), (0, vec![]));
    rig.faulty.fail_pin(false);
    c.register(A, 16 * P).unwrap();
}

#[test]
fn f14_f18_only_what_was_registered_here() {
    let rig = Rig::new(MockBuilder::new(2));
    let (c, d) = (rig.container(&[G0]), rig.container(&[G1]));
    c.register(A, 16 * P).unwrap();
    let missing = |c: &Container, start, bytes| {
        assert_eq!(c.unregister(start, bytes), Err(UnregisterError::NotFound { start, bytes }));
    };
    missing(&c, A, 8 * P);
    missing(&c, at(8), 8 * P);
    missing(&c, A, 17 * P);
    missing(&c, at(100), P);
    missing(&d, A, 16 * P);
    assert_eq!(rig.pages(), 16);
}

#[test]
fn f16_not_while_mapped() {
    let rig = Rig::new(MockBuilder::new(2));
    let (c, d) = (rig.container(&[G0]), rig.container(&[G1]));
    for c in [&c, &d] {
        c.create_window(WindowSpec::new(2 * G, PageShift::K4)).unwrap();
        c.register(A, 16 * P).unwrap();
    }
    let pages = rig.pages();
    c.map(Ioba(0), at(3), 3 * 4096, Perm::READ, Mode::Refuse).unwrap();
    let refused = c.unregister(A, 16 * P);
    assert_eq!(refused, Err(UnregisterError::Mapped { start: A, mapped: 3 }));
    assert_eq!(rig.pages(), pages);
    // The other container has nothing mapped: its use ends, the memory stays pinned.
    d.unregister(A, 16 * P).unwrap();
    assert_eq!((rig.pages(), rig.mock.leftovers().0), (pages, 1));
    c.unmap(Ioba(4096), 4096).unwrap();
    assert_eq!(mapped(&c, A), 2);
    c.unmap(Ioba(0), 3 * 4096).unwrap();
    c.unregister(A, 16 * P).unwrap();
    assert_eq!(rig.mock.leftovers().0, 0);
}

#[test]
fn counts_of_all_containers_together() {
    let rig = Rig::new(MockBuilder::new(3));
    let [c, d, e] = [G0, G1, G2].map(|group| Arc::new(rig.container(&[group])));
    for c in [&c, &d] {
        c.create_window(WindowSpec::new(2 * G, PageShift::K4)).unwrap();
    }
    for c in [&c, &d, &e] {
        c.register(A, 16 * P).unwrap();
    }
    e.register(at(100), P).unwrap();
    let of = |start: Uaddr, bytes| Memory::User { start, bytes };
    let regions = || rig.engine.regions();
    let told = |containers, mapped| {
        let all = RegionUse { memory: of(A, 16 * P), containers, mapped };
        assert_eq!(regions()[0], all);
    };
    assert_eq!(regions()[1], RegionUse { memory: of(at(100), P), containers: 1, mapped: 0 });
    c.map(Ioba(0), A, 3 * 4096, Perm::READ, Mode::Refuse).unwrap();
    // A handle counts for itself, and one thread may unmap what another has mapped.
    let mut handle = d.mapper();
    handle.map(Ioba(0), at(1), 2 * 4096, Perm::READ, Mode::Refuse).unwrap();
    d.map(Ioba(8192), at(2), 4096, Perm::READ, Mode::Refuse).unwrap();
    told(3, 6);
    handle.unmap(Ioba(8192), 4096).unwrap();
    told(3, 5);
    // It costs once, and each use ends alone.
    let pages = rig.pages();
    e.unregister(A, 16 * P).unwrap();
    told(2, 5);
    let refused = d.unregister(A, 16 * P);
    assert_eq!(refused, Err(UnregisterError::Mapped { start: A, mapped: 2 }));
    drop(handle);
    drop(d);
    told(1, 3);
    let table = (pages - 17) / 2;
    assert_eq!(rig.pages(), 17 + table, "the region's pages, and one table less");
    assert_eq!(reach(&rig.mock, 0, Ioba(0)), Some((A.0, Perm::READ)));
    drop((c, e));
    assert_eq!(regions(), []);
}

#[test]
fn resolve_gives_extents_of_backing_pages() {
    for contiguous in [false, true] {
        let rig = Rig::new(MockBuilder::new(1).contiguous(contiguous));
        let c = rig.container(&[G0]);
        c.register(A, 8 * M).unwrap();
        c.register(Uaddr(A.0 + 8 * M), P).unwrap();
        assert!(c.regions().iter().all(|r| r.contiguous == contiguous));
        let extents = c.resolve(Uaddr(A.0 + 4096), 8 * M).unwrap();
        assert_eq!(extents.iter().map(|e| e.bytes).sum::<u64>(), 8 * M);
        assert_eq!(extents.len(), if contiguous { 2 } else { 5 });
        let mut offset = 4096;
        for extent in extents {
            let (memory, inside) = rig.mock.owner(extent.at).unwrap();
            assert_eq!(memory.start() + inside, A.0 + offset);
            offset += extent.bytes;
        }
        assert!(c.resolve(A, 8 * M + P + 1).is_err());
        assert!(c.resolve(Uaddr(A.0 - 1), 1).is_err());
    }
}

#[derive(Clone, Debug)]
enum Op {
    Register(usize, u64, u64),
    Unregister(usize, usize),
    Create(usize, u32, u32),
    Remove(usize, bool),
    Leave(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0usize..3;
    prop_oneof![
        3 => (who.clone(), 0u64..12, 1u64..5).prop_map(|(c, p, n)| Op::Register(c, p, n)),
        2 => (who.clone(), 0usize..8).prop_map(|(c, n)| Op::Unregister(c, n)),
        2 => (who.clone(), 24u32..42, 1u32..4).prop_map(|(c, w, l)| Op::Create(c, w, l)),
        1 => (who.clone(), any::<bool>()).prop_map(|(c, second)| Op::Remove(c, second)),
        1 => who.prop_map(Op::Leave),
    ]
}

/// What the process should show as locked, kept apart from the engine.
#[derive(Default)]
struct Model {
    regions: [Vec<(u64, u64)>; 3],
    windows: [BTreeMap<u64, u64>; 3],
}

impl Model {
    fn locked(&self) -> u64 {
        let mut regions: Vec<_> = self.regions.iter().flatten().collect();
        regions.sort_unstable();
        regions.dedup();
        regions.iter().map(|r| r.1).sum::<u64>()
            + self.windows.iter().flat_map(|w| w.values()).sum::<u64>()
    }

    fn registers(&self, c: usize, first: u64, pages: u64, limit: u64) -> bool {
        let all = || self.regions.iter().flatten();
        if self.regions[c].contains(&(first, pages)) {
            return false;
        }
        all().any(|r| *r == (first, pages))
            || (!all().any(|r| r.0 < first + pages && first < r.0 + r.1)
                && self.locked() + pages <= limit)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn f22_the_ledger_is_what_the_process_should_show(
        ops in prop::collection::vec(op(), 1..60),
        limit in 8u64..200,
    ) {
        let rig = {
            let options = EngineOptions { memlock: Some(limit * P), ..EngineOptions::default() };
            Rig::with(MockBuilder::new(3), options)
        };
        let containers = [0, 1, 2].map(|g| rig.container(&[GroupId(g)]));
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Register(c, first, pages) => {
                    let expected = model.registers(c, first, pages, limit);
                    let done = containers[c].register(at(first), pages * P).is_ok();
                    prop_assert_eq!(done, expected);
                    if done {
                        model.regions[c].push((first, pages));
                    }
                }
                Op::Unregister(c, n) => {
                    let list = &mut model.regions[c];
                    if let Some(n) = n.checked_rem(list.len()) {
                        let (first, pages) = list.remove(n);
                        containers[c].unregister(at(first), pages * P).unwrap();
                    }
                }
                Op::Create(c, size, levels) => {
                    let spec = WindowSpec::new(1 << size, PageShift::K64).levels(levels);
                    let max = rig.faulty.caps().max_block;
                    let shape = Geometry::new(spec, PageShift::K64, max);
                    let cost = shape.map(|g| g.charge_pages()).ok();
                    let fits = cost.filter(|cost| {
                        model.windows[c].len() < 2 && model.locked() + cost <= limit
                    });
                    let done = containers[c].create_window(spec);
                    prop_assert_eq!(done.is_ok(), fits.is_some());
                    if let Ok(info) = done {
                        model.windows[c].insert(info.start.0, cost.unwrap());
                    }
                }
                Op::Remove(c, second) => {
                    let start = if second { SECOND } else { Ioba(0) };
                    let done = containers[c].remove_window(start, Removal::IfUnmapped).is_ok();
                    prop_assert_eq!(done, model.windows[c].remove(&start.0).is_some());
                }
                Op::Leave(c) => {
                    containers[c].detach(GroupId(c as u32)).unwrap();
                    model.regions[c].clear();
                    model.windows[c].clear();
                    containers[c].attach(GroupId(c as u32)).unwrap();
                }
            }
            prop_assert_eq!(rig.pages(), model.locked());
            let tables = model.windows.iter().map(BTreeMap::len).sum::<usize>();
            let mut pinned: Vec<_> = model.regions.iter().flatten().collect();
            pinned.sort_unstable();
            pinned.dedup();
            prop_assert_eq!(rig.mock.leftovers(), (pinned.len(), tables, tables));
            for (c, list) in containers.iter().zip(&model.regions) {
                let mut list: Vec<_> = list
                    .iter()
                    .map(|(first, n)| Memory::User { start: at(*first), bytes: n * P })
                    .collect();
                list.sort_unstable();
                let has: Vec<_> = c.regions().iter().map(|r| r.memory).collect();
                prop_assert_eq!(has, list);
            }
        }
    }
}
