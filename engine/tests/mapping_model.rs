// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random maps and unmaps against a plain model, seen through the PHB of every member; and
//! threads.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};

use crate::common::*;
use proptest::prelude::*;
use tce_engine::addr::{Ioba, PageShift, Uaddr};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::backend::{FillRule, KillCaps};
use tce_engine::container::{Container, Mapper, Mode, Receipt, Removal};
use tce_engine::error::{MapError, UnmapError};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

const P: u64 = 64 * K;
const A: u64 = 0x7f00_0003_0000;
/// Regions as (first host page, host pages) from [`A`]: two side by side, a hole, one more.
const REGIONS: [(u64, u64); 3] = [(0, 40), (40, 7), (48, 30)];
const LAST: u64 = 78;
/// Pages of each window that the test uses.
const SPAN: u64 = 9000;

#[derive(Clone, Debug)]
enum Op {
    Map {
        at: u64,
        from: u64,
        pages: u64,
    },
    List {
        at: u64,
        from: Vec<u64>,
    },
    Unmap {
        at: u64,
        pages: u64,
    },
    /// One page, mapped and unmapped again and again.
    Pairs {
        at: u64,
        from: u64,
        times: u64,
    },
    Attach(bool),
}

/// Places where leaves and locks meet, entry 8192 of a table on a host with 64 KiB pages, and tiles,
/// every 1024 entries.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..200, 900u64..1100, 8100u64..8300, Just(SPAN - 1)]
}

fn op() -> impl Strategy<Value = Op> {
    let from = || 0u64..LAST * 16;
    prop_oneof![
        4 => (place(), from(), prop_oneof![1u64..8, 1u64..300])
            .prop_map(|(at, from, pages)| Op::Map { at, from, pages }),
        3 => (place(), prop::collection::vec(0u64..LAST * 16, 1..160))
            .prop_map(|(at, from)| Op::List { at, from }),
        3 => (place(), prop_oneof![1u64..8, 1u64..9000])
            .prop_map(|(at, pages)| Op::Unmap { at, pages }),
        3 => (place(), from(), 1u64..6)
            .prop_map(|(at, from, times)| Op::Pairs { at, from, times }),
        1 => any::<bool>().prop_map(Op::Attach),
    ]
}

type Choice = (Op, u64, bool, bool);

/// Who calls: anybody, or a thread's handle. They do the same.
enum Caller<'a> {
    Anybody(&'a Container),
    Thread(&'a mut Mapper),
}

impl Caller<'_> {
    fn map(
        &mut self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        match self {
            Self::Anybody(c) => c.map(at, memory, bytes, perm, mode),
            Self::Thread(m) => m.map(at, memory, bytes, perm, mode),
        }
    }

    fn map_list(
        &mut self,
        at: Ioba,
        pages: &[Uaddr],
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        match self {
            Self::Anybody(c) => c.map_list(at, pages, perm, mode),
            Self::Thread(m) => m.map_list(at, pages, perm, mode),
        }
    }

    fn unmap(&mut self, at: Ioba, bytes: u64) -> Result<Receipt, UnmapError> {
        match self {
            Self::Anybody(c) => c.unmap(at, bytes),
            Self::Thread(m) => m.unmap(at, bytes),
        }
    }
}

/// The model: bus page of a window → (memory, permission asked for).
struct Model {
    windows: [BTreeMap<u64, (u64, Perm)>; 2],
    shifts: [u32; 2],
    members: u64,
    kill: KillCaps,
}

impl Model {
    fn region(&self, at: u64) -> Option<usize> {
        let page = at.checked_sub(A)? / P;
        REGIONS.iter().position(|(first, n)| (*first..first + n).contains(&page))
    }

    fn count(&self, region: usize) -> u64 {
        let all = self.windows.iter().flat_map(|w| w.values());
        all.filter(|(at, _)| self.region(*at) == Some(region)).count() as u64
    }

    fn live(&self, w: usize, first: u64, pages: u64) -> u64 {
        self.windows[w].range(first..first + pages).count() as u64
    }

    fn stores(&self, invalid: u64) -> u64 {
        let each = if invalid > self.kill.max_page_kills { 1 } else { invalid };
        each * self.members
    }

    fn check_kills(&self, receipt: &Receipt, invalid: u64) {
        assert_eq!(receipt.kills.asked, invalid * self.members);
        assert_eq!(receipt.kills.issued, self.stores(invalid));
    }

    /// Maps if it can be, and says what the engine has to have done.
    fn map(&mut self, w: usize, at: u64, from: &[u64], perm: Perm, replace: bool) -> Option<u64> {
        let (pages, shift) = (from.len() as u64, self.shifts[w]);
        let live = self.live(w, at, pages);
        let usable = |m: &u64| self.region(*m).is_some() && m.is_multiple_of(1 << shift);
        if at + pages > SPAN_ENTRIES || !from.iter().all(usable) || (live > 0 && !replace) {
            return None;
        }
        for (page, from) in (at..).zip(from) {
            self.windows[w].insert(page, (*from, perm));
        }
        Some(live)
    }
}

/// Entries of each window: both are made that large.
const SPAN_ENTRIES: u64 = 1 << 14;

fn bus(w: usize, shift: u32, page: u64) -> Ioba {
    Ioba(if w == 0 { 0 } else { SECOND.0 } + (page << shift))
}

fn compare(rig: &Rig, c: &Container, model: &Model) {
    for (region, info) in c.regions().iter().enumerate() {
        assert_eq!(info.mapped, model.count(region), "region {region}");
    }
    for (w, pages) in model.windows.iter().enumerate() {
        for page in 0..SPAN_ENTRIES {
            let at = bus(w, model.shifts[w], page);
            let expected = pages.get(&page).map(|(m, perm)| (*m, perm.powernv()));
            for pe in 0..model.members as u16 {
                assert_eq!(reach(&rig.mock, pe, at), expected, "window {w} page {page} PE {pe}");
            }
            let requested = c.requested(at).unwrap().1;
            assert_eq!(requested, pages.get(&page).map_or(Perm::NONE, |p| p.1));
        }
    }
}

fn run(builder: MockBuilder, kill: KillCaps, ops: &[Choice]) {
    let rig = Rig::new(builder.kill(kill));
    let c = Arc::new(rig.container(&[G0, G1]));
    let mut mappers = [c.mapper(), c.mapper()];
    let shifts = [12, 16];
    for (w, shift) in shifts.into_iter().enumerate() {
        let spec = WindowSpec::new(SPAN_ENTRIES << shift, page(shift)).levels(2);
        assert_eq!(c.create_window(spec).unwrap().start, bus(w, shift, 0));
    }
    for (first, n) in REGIONS {
        c.register(Uaddr(A + first * P), n * P).unwrap();
    }
    let mut model = Model { windows: Default::default(), shifts, members: 2, kill };
    for (op, choice, replace, second) in ops {
        let perm = [Perm::READ, Perm::WRITE, Perm::READ_WRITE][*choice as usize % 3];
        let w = usize::from(*second);
        let shift = shifts[w];
        let mode = if *replace { Mode::Replace } else { Mode::Refuse };
        let before = rig.mock.register_stores();
        let from = |n: &u64| A + (n << if *choice & 8 != 0 { 12 } else { shift });
        let mut caller = match mappers.get_mut(*choice as usize >> 4) {
            Some(mapper) => Caller::Thread(mapper),
            None => Caller::Anybody(&c),
        };
        let receipt = match op {
            Op::Map { at, from: first, pages } => {
                let list: Vec<_> = (0..*pages).map(|i| from(first) + (i << shift)).collect();
                let (to, first) = (bus(w, shift, *at), Uaddr(list[0]));
                let done = caller.map(to, first, pages << shift, perm, mode);
                check_map(&mut model, w, *at, &list, (perm, *replace), done)
            }
            Op::List { at, from: list } => {
                let list: Vec<_> = list.iter().map(from).collect();
                let pages: Vec<_> = list.iter().copied().map(Uaddr).collect();
                let done = caller.map_list(bus(w, shift, *at), &pages, perm, mode);
                check_map(&mut model, w, *at, &list, (perm, *replace), done)
            }
            Op::Unmap { at, pages } => {
                let pages = (*pages).min(SPAN_ENTRIES - at);
                let done = caller.unmap(bus(w, shift, *at), pages << shift);
                check_unmap(&mut model, w, *at, pages, done)
            }
            Op::Pairs { at, from: first, times } => {
                let (to, memory) = (bus(w, shift, *at), from(first));
                let mut sum = Receipt::default();
                for _ in 0..*times {
                    let done = caller.map(to, Uaddr(memory), 1 << shift, perm, mode);
                    sum.kills +=
                        check_map(&mut model, w, *at, &[memory], (perm, *replace), done).kills;
                    let done = caller.unmap(to, 1 << shift);
                    sum.kills += check_unmap(&mut model, w, *at, 1, done).kills;
                }
                sum
            }
            Op::Attach(yes) => {
                let member = model.members == 2;
                if *yes && !member {
                    c.attach(G1).unwrap();
                } else if !yes && member {
                    c.detach(G1).unwrap();
                }
                model.members = 1 + u64::from(*yes);
                continue;
            }
        };
        assert_eq!(rig.mock.register_stores() - before, receipt.kills.issued);
        for (region, info) in c.regions().iter().enumerate() {
            assert_eq!(info.mapped, model.count(region), "region {region} after {op:?}");
        }
    }
    compare(&rig, &c, &model);
    for (first, n) in REGIONS {
        let region = model.region(A + first * P).unwrap();
        let gone = c.unregister(Uaddr(A + first * P), n * P);
        assert_eq!(gone.is_ok(), model.count(region) == 0, "{gone:?}");
    }
}

fn check_unmap(
    model: &mut Model,
    w: usize,
    at: u64,
    pages: u64,
    done: Result<Receipt, UnmapError>,
) -> Receipt {
    let (receipt, live) = (done.unwrap(), model.live(w, at, pages));
    model.windows[w].retain(|page, _| !(at..at + pages).contains(page));
    assert_eq!((receipt.tces, receipt.released), (live, live));
    model.check_kills(&receipt, live);
    receipt
}

fn check_map(
    model: &mut Model,
    w: usize,
    at: u64,
    from: &[u64],
    (perm, replace): (Perm, bool),
    done: Result<Receipt, MapError>,
) -> Receipt {
    let expected = model.map(w, at, from, perm, replace);
    assert_eq!(done.is_ok(), expected.is_some(), "{done:?}");
    let (Ok(receipt), Some(released)) = (done, expected) else { return Receipt::default() };
    assert_eq!((receipt.tces, receipt.released), (from.len() as u64, released));
    let always = model.kill.fill == FillRule::Always;
    let invalid = if always { from.len() as u64 } else { released };
    model.check_kills(&receipt, invalid);
    receipt
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_maps_equal_a_model_on_every_pe(
        ops in prop::collection::vec((op(), 0u64..48, any::<bool>(), any::<bool>()), 1..40),
        contiguous: bool,
        small_backing: bool,
        host_64k: bool,
        on_fill: bool,
        seed: u64,
    ) {
        let host = if host_64k { PageShift::K64 } else { PageShift::K4 };
        let backing = if small_backing { PageShift::K64 } else { PageShift::M2 };
        let builder =
            MockBuilder::new(2).host_page(host).backing(backing).contiguous(contiguous).seed(seed);
        run(builder, phb3(on_fill), &ops);
    }
}

fn one_window(rig: &Rig) -> Arc<Container> {
    let c = rig.container(&[G0, G1]);
    c.create_window(WindowSpec::new(2 * G, PageShift::K4).levels(2)).unwrap();
    c.register(Uaddr(A), 64 * P).unwrap();
    Arc::new(c)
}

/// Where the test maps a bus page to, always.
fn home(page: u64) -> u64 {
    A + (page * 7 % 1024) * 4096
}

#[test]
fn two_threads_map_disjoint_ranges() {
    for contiguous in [false, true] {
        let rig = Rig::new(MockBuilder::new(2).contiguous(contiguous));
        let c = one_window(&rig);
        let barrier = Barrier::new(2);
        // Interleaved, so that both always work in the same leaves under the same locks.
        std::thread::scope(|scope| {
            for thread in 0..2u64 {
                let (c, barrier) = (&c, &barrier);
                scope.spawn(move || {
                    let mut mapper = c.mapper();
                    barrier.wait();
                    for block in (thread..64).step_by(2) {
                        let first = 8000 + block * 8;
                        for page in first..first + 8 {
                            let (at, from) = (Ioba(page << 12), Uaddr(home(page)));
                            mapper.map(at, from, 4096, Perm::READ_WRITE, Mode::Refuse).unwrap();
                        }
                        let list: Vec<_> = (first..first + 8).map(|p| Uaddr(home(p))).collect();
                        c.unmap(Ioba(first << 12), 8 << 12).unwrap();
                        c.map_list(Ioba(first << 12), &list, Perm::WRITE, Mode::Refuse).unwrap();
                    }
                });
            }
        });
        assert_eq!(c.regions()[0].mapped, 512);
        assert_eq!(c.regions()[0].contiguous, contiguous);
        assert_eq!(c.table_use()[0].blocks, 3, "a root and two leaves");
        for page in 7990..8530u64 {
            let inside = (8000..8512).contains(&page);
            for pe in 0..2 {
                let seen = reach(&rig.mock, pe, Ioba(page << 12));
                assert_eq!(seen, inside.then(|| (home(page), Perm::READ_WRITE)));
            }
        }
    }
}

/// Maps and unmaps its own pages, each of them often enough to have the lock of its segment left to
/// it until another thread comes; what it unmapped must be gone at once.
fn churn(rig: &Rig, c: &Arc<Container>, thread: u64, rounds: u64) {
    let mut mapper = c.mapper();
    for round in 0..rounds {
        let first = 8180 + 16 * thread;
        let n = 1 + (round * 5 + thread) % 16;
        for page in first..first + n {
            let (at, from) = (Ioba(page << 12), Uaddr(home(page)));
            for _ in 0..3 {
                mapper.map(at, from, 4096, Perm::READ_WRITE, Mode::Refuse).unwrap();
                assert_eq!(mapper.unmap(at, 4096).unwrap().released, 1);
                assert_eq!(reach(&rig.mock, 0, at), None);
            }
            mapper.map(at, from, 4096, Perm::READ_WRITE, Mode::Refuse).unwrap();
            assert_eq!(reach(&rig.mock, 0, at).map(|s| s.0), Some(home(page)));
        }
        if round + 1 < rounds {
            assert_eq!(c.unmap(Ioba(first << 12), 16 << 12).unwrap().released, n);
            for page in first..first + 16 {
                assert_eq!(reach(&rig.mock, 0, Ioba(page << 12)), None);
            }
        }
    }
}

#[test]
fn h24_map_unmap_attach_detach_windows_and_regions_at_once() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = one_window(&rig);
    const ROUNDS: u64 = 200;
    std::thread::scope(|scope| {
        let (c, rig) = (&c, &rig);
        for thread in 0..2 {
            scope.spawn(move || churn(rig, c, thread, ROUNDS));
        }
        // Joins and leaves; a member sees translations of home pages or none.
        scope.spawn(move || {
            for _ in 0..ROUNDS {
                c.detach(G1).unwrap();
                c.attach(G1).unwrap();
                for page in 8180..8212 {
                    if let Some((seen, _)) = reach(&rig.mock, 1, Ioba(page << 12)) {
                        assert_eq!(seen, home(page));
                    }
                }
            }
        });
        // A second window comes and goes, forced, while somebody maps into it.
        scope.spawn(move || {
            for _ in 0..ROUNDS {
                c.create_window(WindowSpec::new(G, PageShift::K64)).unwrap();
                c.remove_window(SECOND, Removal::Force).unwrap();
            }
        });
        scope.spawn(move || {
            let other = Uaddr(A + 1000 * P);
            for _ in 0..ROUNDS {
                c.register(other, P).unwrap();
                let done = c.map(SECOND, other, P, Perm::READ, Mode::Replace);
                let outside = matches!(done, Err(MapError::OutsideWindows { .. }));
                assert!(done.is_ok() || outside, "{done:?}");
                // In use until it is unmapped, or until its window went.
                while c.unregister(other, P).is_err() {
                    let _ = c.unmap(SECOND, P);
                }
            }
        });
    });
    let live: u64 = (0..2).map(|t| 1 + ((ROUNDS - 1) * 5 + t) % 16).sum();
    assert_eq!((c.regions().len(), c.regions()[0].mapped), (1, live));
    let seen = |pe| (8180..8212).filter(|p| reach(&rig.mock, pe, Ioba(p << 12)).is_some()).count();
    assert_eq!([seen(0), seen(1)], [live as usize; 2]);
    assert_eq!((c.windows().len(), rig.pages()), (1, 64 + 130));
    c.unmap(Ioba(0), 2 * G).unwrap();
    c.unregister(Uaddr(A), 64 * P).unwrap();
}
