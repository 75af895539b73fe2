// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a group that leaves does to those that stay, on simulated kernels: with a container for each
//! member (`DetachPolicy::Isolate`) nothing; beside it what the other policies promise.

mod every_request;
mod flaky;
mod refused;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::Stop;
use flaky::Flaky;
use tce_engine::EehState;
use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::linux::mock_kernel::{GroupState, MockKernel, Process, Profile};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};
use tce_engine::container::{Attached, Container, Mode, Removal};
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::error::{AttachError, MapError, RegisterError, UnmapError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::ledger::ChargeKind;
use tce_engine::platform::Platform;
use tce_engine::tce::Perm;

const HOST: u64 = 64 << 10;
const PAGE: u64 = 4 << 10;
const A: Uaddr = Uaddr(0x7f00_0000_0000);
const B: Uaddr = Uaddr(0x7f00_1000_0000);
const BYTES: u64 = 4 << 20;
const SECOND: Ioba = Ioba(1 << 59);
const G0: GroupId = GroupId(0);
const G1: GroupId = GroupId(1);
const G2: GroupId = GroupId(2);

/// A simulated kernel, the engine on it, one container, and what should be mapped there: bus address
/// → memory. When it goes nothing may be left.
struct Rig {
    kernel: Arc<MockKernel>,
    process: Arc<Process>,
    flaky: Arc<Flaky>,
    engine: Engine,
    c: Arc<Container>,
    model: BTreeMap<u64, u64>,
    /// What failed creations may leave.
    leaked: u64,
}

impl Rig {
    fn new(profile: Profile, detach: DetachPolicy) -> Self {
        Self::on(profile, profile.usual_platform(), Version::V2, detach)
    }

    fn on(profile: Profile, platform: Platform, version: Version, detach: DetachPolicy) -> Self {
        let machine = MockKernel::builder(3).profile(profile).platform(platform);
        let kernel = machine.try_build().unwrap();
        let process = kernel.process();
        let flaky = Flaky::new(process.clone());
        let linux = LinuxOptions { version, ..LinuxOptions::default() };
        let linux = Linux::new(flaky.clone(), linux);
        let engine = Engine::new(linux, EngineOptions { detach, ..EngineOptions::default() });
        let c = Arc::new(engine.container());
        Self { kernel, process, flaky, engine, c, model: BTreeMap::new(), leaked: 0 }
    }

    fn levels(&self) -> u32 {
        self.kernel.platform().max_levels().min(2)
    }

    /// What the kernel has locked is what the ledger says, and the tables of each member are there.
    fn check(&self) {
        let ledger = self.engine.ledger();
        assert_eq!(self.flaky.locked_bytes(), ledger.pages() * HOST, "VmLck and ledger");
        assert_eq!(self.process.books().sum(), self.process.books().locked);
        assert_eq!(self.kernel.damage(), []);
        let groups = self.c.groups();
        for group in groups.iter() {
            for (at, memory) in &self.model {
                let found = self.kernel.translate(*group, Ioba(*at), Perm::NONE);
                assert_eq!(found.map(|to| to.at.0), Ok(*memory), "group {group} at {at:#x}");
            }
        }
        for region in self.c.regions() {
            let start = region.memory.start();
            let here = self.model.values().filter(|m| (start..start + BYTES).contains(m)).count();
            assert_eq!(region.mapped, here as u64);
        }
    }

    /// Everybody of the container reaches exactly the model's pages among these.
    fn check_pages(&self, start: Ioba, pages: u64) {
        for group in self.c.groups() {
            for at in (0..pages).map(|page| start.0 + page * PAGE) {
                let found = self.kernel.translate(group, Ioba(at), Perm::NONE);
                let found = found.ok().map(|to| to.at.0);
                assert_eq!(found, self.model.get(&at).copied(), "group {group} at {at:#x}");
            }
        }
    }

    fn window(&self) -> WindowSpec {
        WindowSpec::new(1 << 30, PageShift::K4).levels(self.levels())
    }

    fn map(&mut self, at: u64, memory: Uaddr, pages: u64) -> u64 {
        let bytes = pages * PAGE;
        let done = self.c.map(Ioba(at), memory, bytes, Perm::READ_WRITE, Mode::Replace).unwrap();
        self.mapped(at, memory, pages);
        done.ioctls
    }

    fn mapped(&mut self, at: u64, memory: Uaddr, pages: u64) {
        let each = (0..pages).map(|i| (at + i * PAGE, memory.0 + i * PAGE));
        self.model.extend(each);
    }

    /// A group, two regions, a window and some mappings.
    fn begin(&mut self) {
        self.c.attach(G0).unwrap();
        self.c.register(A, BYTES).unwrap();
        self.c.register(B, BYTES).unwrap();
        assert_eq!(self.c.create_window(self.window()).unwrap().start, Ioba(0));
        self.map(0, A, 40);
        // Two regions, so two requests; far from the rest, so another leaf.
        self.map(600 << 20, Uaddr(B.0 + PAGE), 7);
        self.check();
    }

    fn tables(&self) -> u64 {
        let entries = self.engine.ledger().entries();
        entries.iter().filter(|e| e.kind == ChargeKind::Table).map(|e| e.pages).sum()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        self.c.close();
        self.model.clear();
        self.check();
        assert_eq!(self.engine.ledger().pages() * HOST, self.leaked);
        assert_eq!(self.kernel.leftovers(), Default::default());
    }
}

/// Profiles with their policies, so that a failing test says which.
fn for_all(test: impl Fn(Profile)) {
    for profile in Profile::ALL {
        println!("{profile}");
        test(profile);
    }
}

#[test]
fn an_attach_with_nothing_to_map_takes_nothing() {
    for_all(|profile| {
        let rig = Rig::new(profile, DetachPolicy::Isolate);
        rig.c.attach(G0).unwrap();
        assert_eq!(rig.c.attach(G1), Ok(Attached::default()));
    });
}

#[test]
fn each_member_costs_a_table_and_a_region_is_charged_once() {
    for_all(|profile| {
        let mut rig = Rig::new(profile, DetachPolicy::Isolate);
        rig.begin();
        let one = rig.tables();
        let regions = rig.engine.ledger().pages() - one;
        assert!(one > 0 || !rig.kernel.platform().shares_tables());
        assert_eq!(regions, 2 * BYTES / HOST);
        for (n, group) in [G1, G2].into_iter().enumerate() {
            let Attached { replayed, ioctls, time } = rig.c.attach(group).unwrap();
            assert_eq!((replayed, ioctls), (47, 2 + first_leaf(&rig)));
            assert!(!time.is_zero());
            rig.check();
            assert_eq!(rig.tables(), (2 + n as u64) * one);
            assert_eq!(rig.engine.ledger().pages(), rig.tables() + regions);
            assert_eq!(rig.kernel.containers().len(), 2 + n);
        }
        // One request for each member.
        assert_eq!(rig.map(1 << 20, B, 3), 3);
        assert_eq!(rig.c.unmap(Ioba(1 << 20), 3 * PAGE).unwrap().ioctls, 3);
        rig.model.retain(|at, _| !(1 << 20..2 << 20).contains(at));
        rig.check();
        rig.check_pages(Ioba(0), 300);
        // A second window, if there can be one.
        if rig.kernel.platform().shares_tables() {
            assert_eq!(rig.c.create_window(rig.window()).unwrap().start, SECOND);
            rig.check();
            assert_eq!(rig.tables(), 6 * one);
            rig.c.remove_window(SECOND, Removal::IfUnmapped).unwrap();
            rig.check();
        }
        rig.c.unregister(A, BYTES).unwrap_err();
        rig.c.unmap(Ioba(0), 40 * PAGE).unwrap();
        rig.model.retain(|at, _| *at >= 40 * PAGE);
        rig.c.unregister(A, BYTES).unwrap();
        rig.check();
        assert_eq!(rig.process.region_counts(A), None);
    });
}

/// A range that goes on in the next region is two requests for each member, and a page of it is one.
#[test]
fn a_request_is_for_one_region() {
    for_all(|profile| {
        let mut rig = Rig::new(profile, DetachPolicy::Isolate);
        rig.begin();
        rig.c.attach(G1).unwrap();
        let (start, end) = (2 << 20, A.0 + BYTES);
        rig.c.register(Uaddr(end), BYTES).unwrap();
        assert_eq!(rig.map(start, Uaddr(end - 3 * PAGE), 5), 2 * 2);
        rig.check();
        assert_eq!(rig.c.unmap(Ioba(start + PAGE), PAGE).unwrap().ioctls, 2);
        rig.model.remove(&(start + PAGE));
        rig.check();
        rig.check_pages(Ioba(start), 8);
    });
}

/// Page 0's leaf is made by a request of its own.
fn first_leaf(rig: &Rig) -> u64 {
    u64::from(rig.levels() > 1)
}

#[test]
fn groups_leave_in_any_order_and_nobody_notices() {
    for_all(|profile| {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut rig = Rig::new(profile, DetachPolicy::Isolate);
            rig.begin();
            rig.c.attach(G1).unwrap();
            rig.c.attach(G2).unwrap();
            for (n, leaver) in order.into_iter().enumerate() {
                let live = rig.model.len();
                let left = rig.c.detach(GroupId(leaver)).unwrap();
                assert_eq!((left.replayed, left.ioctls, left.time), (0, 0, Duration::ZERO));
                assert_eq!(rig.kernel.containers().len(), 2 - n);
                if n == 2 {
                    rig.model.clear();
                }
                rig.check();
                assert!(n == 2 || rig.model.len() == live);
                let gone = rig.kernel.translate(GroupId(leaver), Ioba(0), Perm::NONE);
                assert!(gone.is_err(), "a group that has left reaches nothing");
            }
            assert_eq!(rig.engine.ledger().pages(), 0);
        }
    });
}

#[test]
fn the_other_policies_as_documented() {
    // Kernels that wipe and kernels that do not: the engine does the same on both.
    for profile in [Profile::K6_4, Profile::K6_11] {
        let mut rig = Rig::new(profile, DetachPolicy::RefuseWhileShared);
        rig.begin();
        let one = rig.tables();
        assert_eq!(rig.c.attach(G1), Ok(Attached::default()));
        assert_eq!(rig.tables(), one, "one table for both");
        assert_eq!(rig.c.detach(G1), Err(AttachError::Shared { group: G1, others: 1 }));
        rig.check();

        let mut rig = Rig::new(profile, DetachPolicy::Replay);
        rig.begin();
        rig.c.attach(G1).unwrap();
        let done = rig.c.detach(G1).unwrap();
        assert_eq!((done.replayed, done.ioctls, done.skipped), (47, 2, 0));
        assert!(done.time > Duration::ZERO);
        rig.check();
        // What is in a window that KVM edits, nobody here knows.
        rig.c.create_window(rig.window()).unwrap();
        rig.c.leave_to_kvm(SECOND).unwrap();
        rig.c.attach(G1).unwrap();
        let done = rig.c.detach(G1).unwrap();
        assert_eq!((done.replayed, done.ioctls, done.skipped), (47, 2, 1));
        rig.check();
    }
}

/// Attaches, detaches, maps and unmaps go on at once; what is mapped throughout is reached throughout
/// by who stays.
#[test]
fn peers_map_while_groups_come_and_go() {
    for profile in [Profile::K4_9, Profile::K6_4, Profile::K6_11, Profile::PSERIES] {
        let mut rig = Rig::new(profile, DetachPolicy::Isolate);
        rig.begin();
        let (stop, looks, maps) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let (rig, stop, looks, maps) = (&rig, &stop, &looks, &maps);
            let _stop = Stop(stop);
            for thread in 0..2u64 {
                scope.spawn(move || {
                    let mut mapper = rig.c.mapper();
                    let base = (100 + 100 * thread) << 20;
                    while !stop.load(Ordering::Relaxed) {
                        for page in 0..16 {
                            let (at, from) = (Ioba(base + page * PAGE), Uaddr(B.0 + page * PAGE));
                            mapper.map(at, from, PAGE, Perm::READ, Mode::Refuse).unwrap();
                        }
                        mapper.unmap(Ioba(base), 16 * PAGE).unwrap();
                        maps.fetch_add(16, Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let found = rig.kernel.translate(G0, Ioba(5 * PAGE), Perm::READ);
                    assert_eq!(found.map(|to| to.at.0), Ok(A.0 + 5 * PAGE));
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
            for turn in 0..30 {
                let group = [G1, G2][turn % 2];
                rig.c.attach(group).unwrap();
                let found = rig.kernel.translate(group, Ioba(5 * PAGE), Perm::READ);
                assert_eq!(found.map(|to| to.at.0), Ok(A.0 + 5 * PAGE));
                if turn % 3 > 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                rig.c.detach(group).unwrap();
            }
            let idle = || maps.load(Ordering::Relaxed) == 0 || looks.load(Ordering::Relaxed) == 0;
            let begin = Instant::now();
            while idle() {
                assert!(begin.elapsed() < Duration::from_secs(20), "nobody maps or looks");
                thread::yield_now();
            }
        });
        rig.check();
        rig.check_pages(Ioba(100 << 20), 16);
    }
}

#[test]
fn what_a_late_joiners_failed_window_leaks_is_in_the_books() {
    let mut rig = Rig::new(Profile::K6_11, DetachPolicy::Isolate);
    rig.begin();
    let table = rig.tables() * HOST;
    // The trial makes no window any more: the first creation is the joiner's.
    rig.flaky.leak(1, table);
    assert!(matches!(rig.c.attach(G1), Err(AttachError::Backend(_))));
    rig.check();
    rig.leaked = table;
    // And in the second of three containers.
    rig.c.attach(G1).unwrap();
    rig.c.attach(G2).unwrap();
    let spec = rig.window();
    rig.flaky.leak(2, table);
    assert!(matches!(rig.c.create_window(spec), Err(WindowError::Backend(_))));
    rig.check();
    rig.leaked += table;
    assert_eq!(rig.c.create_window(spec).unwrap().start, SECOND);
    rig.check();
}

#[test]
fn a_limit_refuses_a_joiner_before_anything_is_asked() {
    let kernel = MockKernel::new(2);
    let process = kernel.process();
    let linux = Linux::new(process.clone(), LinuxOptions::default());
    let spec = WindowSpec::new(1 << 30, PageShift::K4).levels(1);
    // Twice 2 MiB of table, and a region.
    let memlock = Some((4 << 20) + BYTES + (1 << 20));
    let detach = DetachPolicy::Isolate;
    let engine = Engine::new(linux, EngineOptions { memlock, detach, ..EngineOptions::default() });
    let c = engine.container();
    c.attach(G0).unwrap();
    c.register(A, BYTES).unwrap();
    c.create_window(spec).unwrap();
    let before = engine.ledger().pages();
    assert!(matches!(c.attach(G1), Err(AttachError::Limit(e)) if e.charged == before));
    assert_eq!((engine.ledger().pages() * HOST, c.groups()), (process.locked_bytes(), vec![G0]));
    assert!(matches!(c.register(B, BYTES), Err(RegisterError::Limit(_))));
    drop(c);
    assert_eq!((engine.ledger().pages(), process.locked_bytes()), (0, 0));
    assert_eq!(kernel.leftovers(), Default::default());
}

/// Version 1 containers hold one group; several of them make one address space all the same, if their
/// windows are the same.
#[test]
fn version_1_containers_side_by_side() {
    let v1 = |platform| Rig::on(Profile::K6_4, platform, Version::V1, DetachPolicy::Isolate);
    let mut rig = v1(Platform::Phb3);
    rig.c.attach(G0).unwrap();
    rig.c.register(A, BYTES).unwrap();
    let spec = WindowSpec::new(2 << 30, PageShift::K4).levels(1);
    rig.c.create_window(spec).unwrap();
    rig.check();
    let one = rig.engine.ledger().pages();
    rig.map(PAGE, A, 10);
    assert_eq!(rig.c.attach(G1).unwrap().replayed, 10);
    rig.check();
    assert_eq!(rig.engine.ledger().pages(), 2 * one, "each pays its whole window ahead");
    rig.map(64 * PAGE, A, 10);
    rig.check();
    rig.c.detach(G0).unwrap();
    rig.check();
    assert_eq!(rig.engine.ledger().pages(), one);
    drop(rig);
    // Segments of their own cannot be one address space.
    let rig = v1(Platform::Ioda1);
    rig.c.attach(G0).unwrap();
    let e = rig.c.attach(G1).unwrap_err().to_string();
    assert!(e.contains("windows start at 0x10000000 and none, the members' at 0x0"), "{e}");
}

/// Linux makes the table for the group that joined last; with a container each, there are several.
#[test]
fn a_window_names_the_node_of_its_table() {
    for (detach, wanted) in [(DetachPolicy::Replay, Some(8)), (DetachPolicy::Isolate, None)] {
        let kernel = MockKernel::builder(3)
            .group(G0, |attrs| attrs.node = Some(0))
            .group(G1, |attrs| attrs.node = Some(8))
            .build();
        let linux = Linux::new(kernel.process(), LinuxOptions::default());
        let engine = Engine::new(linux, EngineOptions { detach, ..EngineOptions::default() });
        let c = engine.container();
        c.attach(G0).unwrap();
        let spec = WindowSpec::new(1 << 30, PageShift::K4);
        assert_eq!(c.create_window(spec).unwrap().node, Some(0));
        c.attach(G1).unwrap();
        assert_eq!(c.create_window(spec).unwrap().node, wanted);
        c.remove_window(SECOND, Removal::IfUnmapped).unwrap();
        c.attach(G2).unwrap();
        assert_eq!(c.create_window(spec).unwrap().node, None, "of the third nothing is known");
        assert_eq!(c.windows()[0].node, Some(0), "it stays where it was made");
    }
}

/// A kernel says nothing of whose error a shared container tells; of containers of their own it does.
#[test]
fn each_member_is_asked_for_its_own_errors() {
    let rig = Rig::new(Profile::K6_11, DetachPolicy::Isolate);
    for group in [G0, G1] {
        rig.c.attach(group).unwrap();
    }
    rig.kernel.set_group_state(G1, GroupState::Stopped);
    let states = |c: &Container| -> Vec<_> {
        let states = c.eeh_states().unwrap().into_iter();
        states.map(|(group, state)| (group, state.unwrap())).collect()
    };
    assert_eq!(states(&rig.c), [(G0, EehState::Normal), (G1, EehState::Stopped)]);
    rig.c.detach(G0).unwrap();
    assert_eq!(states(&rig.c), [(G1, EehState::Stopped)]);
    rig.kernel.set_group_state(G1, GroupState::Normal);
}

/// A container that answers nothing any more cannot be put back. What its member reaches is not known
/// then; the others have exactly what the mirror says.
#[test]
fn a_lost_container_leaves_nothing_behind_in_the_others() {
    let mut rig = Rig::new(Profile::K6_11, DetachPolicy::Isolate);
    rig.begin();
    rig.c.attach(G1).unwrap();
    rig.c.attach(G2).unwrap();
    let lost = rig.kernel.containers()[1];
    rig.kernel.lose(lost);
    let e = rig.c.unmap(Ioba(0), 40 * PAGE).unwrap_err();
    assert!(matches!(&e, UnmapError::Lost(lost) if lost.entries == 40), "{e}");
    rig.model.retain(|at, _| *at >= 40 * PAGE);
    let e = rig.c.map(Ioba(0), A, PAGE, Perm::READ, Mode::Refuse).unwrap_err();
    assert!(matches!(e, MapError::Backend(_)), "{e}");
    rig.c.detach(G1).unwrap();
    rig.check_pages(Ioba(0), 64);
    rig.check();
    rig.map(0, A, 3);
    rig.check();
    // It had registered the regions too, and could not say that it gives them back.
    rig.c.attach(G1).unwrap();
    rig.check_pages(Ioba(0), 64);
}

#[test]
fn a_window_of_kvm_keeps_joiners_out() {
    let rig = Rig::new(Profile::K6_11, DetachPolicy::Isolate);
    rig.c.attach(G0).unwrap();
    rig.c.create_window(rig.window()).unwrap();
    rig.c.leave_to_kvm(Ioba(0)).unwrap();
    let e = rig.c.attach(G1).unwrap_err();
    assert!(matches!(&e, AttachError::Incompatible { group: G1, .. }), "{e}");
    assert!(e.to_string().contains("left to KVM"), "{e}");
    rig.check();
    rig.c.remove_window(Ioba(0), Removal::Force).unwrap();
    rig.c.attach(G1).unwrap();
    rig.check();
}
