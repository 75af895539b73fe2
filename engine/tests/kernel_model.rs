// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The engine over a simulated kernel, with random requests and a kernel that now and then runs out
//! of memory, against a plain model. What devices reach, what is charged and how often each region
//! is mapped is asked of the kernel, whose tables and books are its own.
//!
//! It holds for every profile of the simulated kernel, with one container of the kernel for all groups
//! and with one for each. Where one of them makes something impossible [`Rig::can_join_late`] and
//! [`Rig::levels`] say so.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::linux::mock_kernel::{DmaFault, Injection, MockKernel, Process, Profile};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::{Linux, LinuxOptions};
use tce_engine::container::{Container, MapRequest, Mode, Removal, UnmapRequest};
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::error::{AttachError, MapError, RegisterError, UnregisterError};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

const HOST: u64 = 64 << 10;
const PAGE: u64 = 4 << 10;
const A: u64 = 0x7f00_0000_0000;
/// Regions in pages of the window from [`A`]: two side by side, a hole, one more.
const REGIONS: [(u64, u64); 3] = [(0, 640), (640, 112), (768, 320)];
const GROUPS: [GroupId; 3] = [GroupId(0), GroupId(1), GroupId(2)];
/// Pages of the window, 4 leaves of 8192, that the test looks at.
const SPAN: u64 = 32 << 10;

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
    Batch {
        at: u64,
        parts: Vec<(u64, u64, u64)>,
    },
    Unmap {
        at: u64,
        pages: u64,
    },
    UnmapBatch {
        at: u64,
        parts: Vec<(u64, u64)>,
    },
    Attach(usize),
    Detach(usize),
    Unregister(usize),
    Register(usize),
    /// The nth level from now on is not to be had.
    NoMemory(u64),
    /// A new window: leaves are missing again.
    Renew,
}

fn place() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0u64), 4 => 0u64..40, 4 => 8100u64..8300, 2 => 16_300u64..16_500]
}

fn op() -> impl Strategy<Value = Op> {
    let from = || 0u64..1100;
    let pages = || prop_oneof![2 => 1u64..4, 1 => 1u64..400, 1 => Just(9000u64)];
    prop_oneof![
        6 => (place(), from(), pages()).prop_map(|(at, from, pages)| Op::Map { at, from, pages }),
        3 => (place(), prop::collection::vec(from(), 1..100), any::<bool>()).prop_map(
            |(at, mut from, sort)| {
                if sort {
                    from.sort_unstable();
                }
                Op::List { at, from }
            }
        ),
        4 => (place(), prop::collection::vec((0u64..3, from(), 1u64..30), 1..20))
            .prop_map(|(at, parts)| Op::Batch { at, parts }),
        4 => (place(), pages()).prop_map(|(at, pages)| Op::Unmap { at, pages }),
        3 => (place(), prop::collection::vec((0u64..7, 1u64..30), 1..20))
            .prop_map(|(at, parts)| Op::UnmapBatch { at, parts }),
        1 => (0usize..3).prop_map(Op::Attach),
        1 => (0usize..3).prop_map(Op::Detach),
        1 => (0usize..3).prop_map(Op::Unregister),
        1 => (0usize..3).prop_map(Op::Register),
        3 => (1u64..4).prop_map(Op::NoMemory),
        1 => Just(Op::Renew),
    ]
}

/// Everything under test, and the model: bus page → memory and permission.
struct Rig {
    kernel: Arc<MockKernel>,
    process: Arc<Process>,
    engine: Engine,
    c: Container,
    model: BTreeMap<u64, (u64, Perm)>,
    registered: [bool; 3],
    /// A map into the region has failed: by our reading, Linux then counts a mapping too many, and
    /// keeps the region, charged, when it is unregistered. The ledger has to say so too.
    doubtful: [bool; 3],
    members: Vec<GroupId>,
    /// Each group has a container of its own.
    isolate: bool,
}

impl Rig {
    fn new(profile: Profile, isolate: bool) -> Self {
        let machine = MockKernel::builder(3).profile(profile);
        let kernel = machine.platform(profile.usual_platform()).try_build().unwrap();
        let process = kernel.process();
        let linux = Linux::new(process.clone(), LinuxOptions::default());
        let detach = if isolate { DetachPolicy::Isolate } else { DetachPolicy::Replay };
        let options = EngineOptions { detach, ..EngineOptions::default() };
        let engine = Engine::new(linux, options);
        let c = engine.container();
        let mut rig = Self {
            kernel,
            process,
            engine,
            c,
            model: BTreeMap::new(),
            registered: [false; 3],
            doubtful: [false; 3],
            members: Vec::new(),
            isolate,
        };
        rig.begin();
        rig
    }

    /// An address space with one group; with all, where they share tables but cannot join later.
    fn begin(&mut self) {
        let shares = self.kernel.platform().shares_tables();
        let first = if shares && !self.can_join_late() { &GROUPS[..] } else { &GROUPS[..1] };
        for group in first {
            self.c.attach(*group).unwrap();
            self.members.push(*group);
            self.check_books();
        }
        (0..3).for_each(|region| self.register(region));
        self.window();
    }

    /// A kernel that may forget the windows of a late joiner (k4_9) is not asked to add one, and a
    /// guest's group cannot use another's table. Neither matters where each has its own.
    fn can_join_late(&self) -> bool {
        self.isolate
            || self.kernel.profile().late_joiner_gets_windows
                && self.kernel.platform().shares_tables()
    }

    /// A guest's tables have one level.
    fn levels(&self) -> u32 {
        self.kernel.platform().max_levels().min(2)
    }

    fn window(&mut self) {
        let spec = WindowSpec::new(1 << 30, PageShift::K4).levels(self.levels());
        self.c.create_window(spec).unwrap();
        self.check_books();
    }

    fn memory(region: usize) -> (Uaddr, u64) {
        let (first, pages) = REGIONS[region];
        (Uaddr(A + first * PAGE), pages * PAGE)
    }

    fn register(&mut self, region: usize) {
        let (start, bytes) = Self::memory(region);
        match self.c.register(start, bytes) {
            Ok(()) => assert!(!std::mem::replace(&mut self.registered[region], true)),
            Err(RegisterError::Kept { .. }) => {
                assert!(self.doubtful[region] && !self.registered[region]);
            }
            Err(e) => assert!(self.registered[region], "{e}"),
        }
        self.check_books();
    }

    fn region(at: u64) -> Option<usize> {
        let page = at.checked_sub(A)? / PAGE;
        REGIONS.iter().position(|(first, n)| (*first..first + n).contains(&page))
    }

    fn usable(&self, at: u64) -> bool {
        Self::region(at).is_some_and(|region| self.registered[region])
    }

    fn check_books(&self) {
        let ledger = self.engine.ledger();
        let shown = self.process.locked_bytes();
        assert_eq!(shown, ledger.pages() * HOST, "locked by the process and by the ledger");
        assert_eq!(self.process.leaked_pages(), 0);
        assert_eq!(self.kernel.damage(), []);
    }

    /// What devices reach, and the counts, are the model's.
    fn check(&self) {
        for group in &self.members {
            for page in 0..SPAN {
                let got = match self.kernel.translate(*group, Ioba(page * PAGE), Perm::NONE) {
                    Ok(to) => Some((to.at.0, to.perm)),
                    Err(DmaFault::Empty | DmaFault::NoLevel(_)) => None,
                    Err(other) => panic!("{other}"),
                };
                let wanted = self.model.get(&page).map(|(m, perm)| (*m, perm.powernv()));
                assert_eq!(got, wanted, "group {group}, page {page}");
            }
        }
        for region in (0..3).filter(|r| self.registered[*r]) {
            let here = |(at, _): &&(u64, Perm)| Self::region(*at) == Some(region);
            let wanted = self.model.values().filter(here).count() as u64;
            let (start, _) = Self::memory(region);
            let info = self.c.regions().into_iter().find(|i| i.memory.start() == start.0).unwrap();
            assert_eq!(info.mapped, wanted);
            let wanted = wanted * self.containers();
            let counted = self.process.region_counts(start).unwrap().0;
            assert!(counted == wanted || self.doubtful[region] && counted > wanted, "{counted}");
        }
        self.check_books();
    }

    /// Containers of the kernel: so many requests a request makes.
    fn containers(&self) -> u64 {
        if self.isolate { self.members.len() as u64 } else { 1 }
    }

    /// The kernel ran out of memory, and nothing has changed.
    fn refused(error: &MapError) -> bool {
        matches!(error, MapError::Backend(_))
    }

    fn map(
        &mut self,
        wanted: &[(u64, u64)],
        perm: Perm,
        replace: bool,
        answer: Result<u64, MapError>,
    ) {
        let live = wanted.iter().filter(|(page, _)| self.model.contains_key(page)).count();
        let usable = wanted.iter().all(|(_, memory)| self.usable(*memory));
        match answer {
            Ok(tces) => {
                assert!(usable && (replace || live == 0));
                assert_eq!(tces, wanted.len() as u64);
                self.model.extend(wanted.iter().map(|(page, memory)| (*page, (*memory, perm))));
            }
            Err(MapError::NotRegistered { .. }) => assert!(!usable),
            Err(MapError::Overlap { live: found, .. }) => {
                assert!(usable && !replace && found == live as u64 && live > 0);
            }
            Err(e) => {
                assert!(Self::refused(&e) && usable && (replace || live == 0), "{e}");
                for (_, memory) in wanted {
                    self.doubtful[Self::region(*memory).unwrap()] = true;
                }
            }
        }
    }

    fn run(&mut self, op: &Op, perm: Perm, replace: bool) {
        let mode = if replace { Mode::Replace } else { Mode::Refuse };
        let bus = |page: u64| Ioba(page * PAGE);
        match op {
            Op::Map { at, from, pages } => {
                let wanted: Vec<_> = (0..*pages).map(|i| (at + i, A + (from + i) * PAGE)).collect();
                let memory = Uaddr(A + from * PAGE);
                let done = self.c.map(bus(*at), memory, pages * PAGE, perm, mode);
                self.map(&wanted, perm, replace, done.map(|d| d.tces));
            }
            Op::List { at, from } => {
                let list: Vec<_> = from.iter().map(|page| Uaddr(A + page * PAGE)).collect();
                let wanted: Vec<_> = (*at..).zip(list.iter().map(|m| m.0)).collect();
                let done = self.c.map_list(bus(*at), &list, perm, mode);
                self.map(&wanted, perm, replace, done.map(|d| d.tces));
            }
            Op::Batch { at, parts } => {
                let mut page = *at;
                let mut requests = Vec::new();
                let mut wanted = Vec::new();
                for (gap, from, pages) in parts {
                    page += gap;
                    wanted.extend((0..*pages).map(|i| (page + i, A + (from + i) * PAGE)));
                    let memory = Uaddr(A + from * PAGE);
                    requests.push(MapRequest { at: bus(page), memory, bytes: pages * PAGE, perm });
                    page += pages;
                }
                let done = self.c.map_batch(&requests, mode);
                self.map(&wanted, perm, replace, done.map(|d| d.tces));
            }
            Op::Unmap { at, pages } => {
                let done = self.c.unmap(bus(*at), pages * PAGE).unwrap();
                let before = self.model.len();
                self.model.retain(|page, _| !(*at..at + pages).contains(page));
                assert_eq!(done.released, (before - self.model.len()) as u64);
                assert!(done.ioctls <= done.released * self.containers());
            }
            Op::UnmapBatch { at, parts } => {
                let mut page = *at;
                let mut requests = Vec::new();
                let before = self.model.len();
                for (gap, pages) in parts {
                    page += gap;
                    requests.push(UnmapRequest { at: bus(page), bytes: pages * PAGE });
                    self.model.retain(|p, _| !(page..page + pages).contains(p));
                    page += pages;
                }
                let done = self.c.unmap_batch(&requests).unwrap();
                assert_eq!(done.released, (before - self.model.len()) as u64);
            }
            Op::Attach(n) => {
                let group = GROUPS[*n];
                self.attach(group);
            }
            Op::Detach(n) => self.detach(GROUPS[*n]),
            Op::Register(n) => self.register(*n),
            Op::Unregister(n) => {
                let (start, bytes) = Self::memory(*n);
                let here = |(at, _): &&(u64, Perm)| Self::region(*at) == Some(*n);
                let mapped = self.model.values().filter(here).count() as u64;
                match self.c.unregister(start, bytes) {
                    Ok(()) => {
                        assert!(self.registered[*n] && mapped == 0);
                        self.registered[*n] = false;
                    }
                    Err(UnregisterError::Kept { .. }) => {
                        assert!(self.registered[*n] && self.doubtful[*n] && mapped == 0);
                        self.registered[*n] = false;
                    }
                    Err(UnregisterError::Mapped { mapped: found, .. }) => assert_eq!(found, mapped),
                    Err(_) => assert!(!self.registered[*n]),
                }
            }
            Op::NoMemory(nth) => self.kernel.inject(Injection::Level { nth: *nth }),
            Op::Renew => {
                self.c.remove_window(Ioba(0), Removal::Force).unwrap();
                self.model.clear();
                self.window();
            }
        }
    }

    /// Nothing is charged any more, but for what the kernel has kept of doubtful regions.
    fn check_left(&self) {
        self.check_books();
        let doubtful = (0..3).filter(|r| self.doubtful[*r]).map(|r| Self::memory(r).1);
        assert!(self.process.locked_bytes() <= doubtful.sum::<u64>());
        let left = self.kernel.leftovers();
        assert_eq!((left.containers, left.windows), (0, 0));
    }

    fn attach(&mut self, group: GroupId) {
        let can = !self.members.contains(&group) && self.can_join_late();
        match self.c.attach(group) {
            Ok(done) => {
                assert!(can);
                let live = if self.isolate { self.model.len() as u64 } else { 0 };
                assert_eq!(done.replayed, live);
                self.members.push(group);
            }
            // The kernel ran out of memory when it was to get the mappings.
            Err(AttachError::Backend(_)) if can && self.isolate => {
                for (memory, _) in self.model.values() {
                    self.doubtful[Self::region(*memory).unwrap()] = true;
                }
            }
            Err(e) => assert!(!can, "{e}"),
        }
    }

    fn detach(&mut self, group: GroupId) {
        let last = self.members == [group];
        match self.c.detach(group) {
            Ok(done) => {
                assert!(self.members.contains(&group));
                let replays = !last && !self.isolate;
                assert_eq!(done.replayed, if replays { self.model.len() as u64 } else { 0 });
                self.members.retain(|m| *m != group);
            }
            Err(e) => assert_eq!(e, AttachError::NotMember(group)),
        }
        if last {
            // The address space has ended; begin a new one.
            self.check_left();
            self.model.clear();
            self.registered = [false; 3];
            self.begin();
        }
    }
}

fn random_requests_equal_a_model(profile: Profile) {
    let ops = prop::collection::vec((op(), 0u64..3, any::<bool>()), 1..25);
    let ops = (ops, any::<bool>());
    let config = ProptestConfig {
        cases: 96,
        source_file: Some(file!()),
        test_name: Some(profile.name),
        ..ProptestConfig::default()
    };
    let tested = TestRunner::new(config).run(&ops, |(ops, isolate)| {
        let mut rig = Rig::new(profile, isolate);
        for (op, perm, replace) in &ops {
            let perm = [Perm::READ_WRITE, Perm::READ, Perm::WRITE][*perm as usize];
            rig.run(op, perm, *replace);
            rig.check();
        }
        // What was to fail and has not.
        drop(rig.kernel.take_injections());
        rig.c.close();
        rig.check_left();
        Ok(())
    });
    tested.unwrap_or_else(|e| panic!("{profile}: {e}"));
}

macro_rules! for_profiles {
    ($($test:ident: $profile:ident),*) => {
        $(
            #[test]
            fn $test() {
                random_requests_equal_a_model(Profile::$profile);
            }
        )*

        #[test]
        fn no_profile_is_left_out() {
            assert_eq!(Profile::ALL, [$(Profile::$profile),*]);
        }
    };
}

for_profiles!(
    k4_2: K4_2, k4_9: K4_9, k4_12: K4_12, k5_0: K5_0, k6_4: K6_4, k6_11: K6_11, pseries: PSERIES
);
