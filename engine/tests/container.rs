// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Windows, groups and teardown of a container: black-box cases of the series G and I. What is
//! registered has a file of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::*;
use tce_engine::addr::{GroupId, Ioba, PageShift, PageSizes, PeNumber, Uaddr};
use tce_engine::backend::mock::{Fault, MockBuilder, MockEvent};
use tce_engine::container::{Container, Detached, Mode, Removal};
use tce_engine::engine::{DetachPolicy, EngineOptions};
use tce_engine::error::{BackendError, LimitError, MapError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

const SPEC: WindowSpec = WindowSpec::new(G, PageShift::K64).levels(1);
/// Host pages that [`SPEC`] costs.
const COST: u64 = 4;

fn starts(c: &Container) -> Vec<Ioba> {
    c.windows().iter().map(|w| w.start).collect()
}

fn map_one(c: &Container, at: u64) {
    c.map(Ioba(at), Uaddr(G), 64 * K, Perm::READ_WRITE, Mode::Refuse).unwrap();
}

fn registered(rig: &Rig, groups: &[GroupId]) -> Container {
    let c = rig.container(groups);
    c.register(Uaddr(G), M).unwrap();
    c
}

#[test]
fn g1_to_g5_windows_have_fixed_starts_and_there_are_two() {
    let rig = Rig::new(MockBuilder::new(1));
    let empty = rig.engine.container();
    assert_eq!(empty.create_window(SPEC), Err(WindowError::NoGroup));
    assert_eq!(empty.caps(), None);
    let c = rig.container(&[G0]);
    let first = c.create_window(SPEC).unwrap();
    assert_eq!((first.start, first.geometry.size(), rig.pages()), (Ioba(0), G, COST));
    assert_eq!(c.create_window(SPEC).unwrap().start, SECOND);
    assert_eq!(rig.pages(), 2 * COST);
    assert_eq!(c.create_window(SPEC), Err(WindowError::NoSlot(2)), "a third");
    assert_eq!(rig.pages(), 2 * COST);
    // The same start after each re-creation, whichever went.
    for start in [SECOND, Ioba(0), SECOND] {
        c.remove_window(start, Removal::IfUnmapped).unwrap();
        assert_eq!(rig.pages(), COST);
        assert_eq!(c.create_window(SPEC).unwrap().start, start);
    }
    assert_eq!(starts(&c), [Ioba(0), SECOND]);
}

#[test]
fn a_new_window_starts_with_a_kill_of_every_pe() {
    // In its slot there may have been another window, which a PE remembers.
    let rig = Rig::new(MockBuilder::new(2).record(true));
    let c = rig.container(&[G0, G1]);
    rig.forget_events();
    c.create_window(SPEC).unwrap();
    let (a, b) = (PeNumber(0), PeNumber(1));
    use MockEvent::{Fence, Kill, SetWindow};
    let kill = |pe: PeNumber| Kill(pe, 0x4000_0000_0000_0000 | u64::from(pe.0));
    let expected = [SetWindow(a, 0), SetWindow(b, 0), kill(a), kill(b), Fence];
    assert_eq!(rig.mock.take_events(), expected);
}

#[test]
fn g6_g7_page_sizes_and_levels_are_checked_first() {
    let limited = |caps: &mut tce_engine::backend::GroupCaps| caps.max_levels = 1;
    let rig = Rig::new(MockBuilder::new(2).group(G1, limited));
    let c = rig.container(&[G0]);
    let e = c.create_window(WindowSpec::new(G, PageShift::M2)).unwrap_err();
    let offered = PageSizes(0x1101_1000);
    assert_eq!(e, WindowError::PageSize { page: PageShift::M2, offered });
    assert!(e.to_string().contains("4K, 64K, 16M, 256M"), "{e}");
    // 55 bits: the kernel leaks 6 pages here.
    let e = c.create_window(WindowSpec::new(M, PageShift::K64).levels(3)).unwrap_err();
    assert!(matches!(e, WindowError::Geometry(_)), "{e}");
    c.attach(G1).unwrap();
    let e = c.create_window(SPEC.levels(2)).unwrap_err();
    assert_eq!(e, WindowError::Levels { levels: 2, offered: 1 });
    assert_eq!((rig.pages(), rig.engine.ledger().peak_pages()), (0, 0));
    assert_eq!(rig.mock.leftovers(), (0, 0, 0));
}

#[test]
fn g9_window_over_the_limit() {
    let options = EngineOptions { memlock: Some((COST - 1) * 64 * K), ..EngineOptions::default() };
    let rig = Rig::with(MockBuilder::new(1), options);
    let c = rig.container(&[G0]);
    let limit = LimitError { asked: COST, charged: 0, limit: COST - 1 };
    assert_eq!(c.create_window(SPEC), Err(WindowError::Limit(limit)));
    assert_eq!((rig.pages(), rig.mock.leftovers()), (0, (0, 0, 0)));
    // A smaller one fits.
    c.create_window(WindowSpec::new(512 * M, PageShift::K64)).unwrap();
    assert_eq!(rig.pages(), 2);
}

#[test]
fn g10_firmware_fails_on_the_second_of_three_groups() {
    for code in [-1, -2, -6, -7] {
        let rig = Rig::new(MockBuilder::new(3).record(true));
        let c = registered(&rig, &[G0, G1, G2]);
        c.create_window(SPEC).unwrap();
        map_one(&c, 0x10_0000);
        let (pages, leftovers) = (rig.pages(), rig.mock.leftovers());
        rig.forget_events();
        rig.faulty.fail_set_window(2, code);
        let e = c.create_window(SPEC).unwrap_err();
        let firmware = BackendError::Firmware { group: G1, slot: 1, code };
        assert_eq!(e, WindowError::Backend(firmware));
        assert!(e.to_string().contains(&format!("firmware code {code}")), "{e}");
        assert_eq!((rig.pages(), rig.mock.leftovers()), (pages, leftovers), "exactly as before");
        let events = rig.mock.take_events();
        let on = |pe| events.iter().filter(|e| **e == MockEvent::UnsetWindow(pe, 1)).count();
        assert_eq!([0, 1, 2].map(|pe| on(PeNumber(pe))), [1, 0, 0], "only what was done");
        assert_eq!(events.last(), Some(&MockEvent::Fence));
        for pe in 0..3 {
            let gone = rig.mock.probe(PeNumber(pe), SECOND);
            assert_eq!(gone, Err(Fault::NoWindow { slot: 1 }));
            assert!(reach(&rig.mock, pe, Ioba(0x10_0000)).is_some(), "the first one is untouched");
        }
        assert_eq!(c.create_window(SPEC).unwrap().start, SECOND);
    }
}

#[test]
fn g11_removal_needs_the_exact_start() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    c.create_window(SPEC).unwrap();
    for start in [Ioba(0x1_0000), Ioba(G), SECOND, Ioba(u64::MAX)] {
        let refused = c.remove_window(start, Removal::Force);
        assert_eq!(refused, Err(WindowError::NotFound(start)));
    }
    assert!(c.remove_window(Ioba(0), Removal::IfUnmapped).is_ok());
}

/// Of an empty window and of one with three pages: entries, live ones, steps, requests to a kernel, and kills.
#[test]
fn a_removal_says_what_it_did() {
    let rig = Rig::new(MockBuilder::new(2));
    let ours = [(0, 0, 2, 0, 2), (3, 3, 2, 0, 2 * 3 + 2)];
    let a_kernels = [(0, 0, 2, 1, 0), (3, 3, 2, 3 + 1, 0)];
    for (engine, expected) in [(&rig.engine, ours), (&on_a_kernel(), a_kernels)] {
        let c = engine.container();
        c.attach(G0).unwrap();
        c.attach(G1).unwrap();
        c.register(Uaddr(G), M).unwrap();
        let told = [0, 3].map(|pages| {
            c.create_window(SPEC).unwrap();
            (0..pages).for_each(|page| map_one(&c, page << 20));
            let done = c.remove_window(Ioba(0), Removal::Force).unwrap();
            (done.tces, done.released, done.steps, done.ioctls, done.kills.issued)
        });
        assert_eq!(told, expected);
    }
}

/// Where nobody's windows are emptied, nothing is mapped again, and the last one may always leave.
#[test]
fn a_detach_that_takes_nothing() {
    let nothing = Ok(Detached::default());
    let rig = Rig::new(MockBuilder::new(2));
    let c = registered(&rig, &[G0, G1]);
    c.create_window(SPEC).unwrap();
    map_one(&c, 0);
    assert_eq!((c.detach(G1), c.detach(G0)), (nothing.clone(), nothing.clone()));
    for detach in [DetachPolicy::RefuseWhileShared, DetachPolicy::Replay, DetachPolicy::Isolate] {
        let engine = on_a_kernel_with(EngineOptions { detach, ..EngineOptions::default() });
        let c = engine.container();
        c.attach(G0).unwrap();
        c.create_window(SPEC).unwrap();
        assert_eq!(c.detach(G0), nothing, "{detach:?}");
    }
}

/// Of two windows, the one that was left to KVM goes by force alone, and nothing is mapped there.
#[test]
fn a_window_that_was_left_to_kvm() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = registered(&rig, &[G0]);
    for _ in 0..2 {
        c.create_window(SPEC).unwrap();
    }
    c.leave_to_kvm(SECOND).unwrap();
    let map = |at| c.map(at, Uaddr(G), 64 * K, Perm::READ_WRITE, Mode::Refuse);
    assert_eq!(map(SECOND), Err(MapError::LeftToKvm(SECOND)));
    map(Ioba(0)).unwrap();
    let refused = c.remove_window(SECOND, Removal::IfUnmapped);
    assert_eq!(refused, Err(WindowError::LeftToKvm(SECOND)));
    c.remove_window(SECOND, Removal::Force).unwrap();
    c.unmap(Ioba(0), 64 * K).unwrap();
    c.remove_window(Ioba(0), Removal::IfUnmapped).unwrap();
}

#[test]
fn g13_mapped_window_goes_only_by_force() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = registered(&rig, &[G0, G1]);
    c.create_window(SPEC).unwrap();
    (0..3).for_each(|i| map_one(&c, i << 20));
    let refused = c.remove_window(Ioba(0), Removal::IfUnmapped);
    assert_eq!(refused, Err(WindowError::Mapped { start: Ioba(0), live: 3 }));
    assert_eq!(mapped(&c, Uaddr(G)), 3);
    c.remove_window(Ioba(0), Removal::Force).unwrap();
    assert_eq!((mapped(&c, Uaddr(G)), rig.pages()), (0, 16));
    c.unregister(Uaddr(G), M).unwrap();
    // A new one in the same place is empty.
    c.create_window(SPEC).unwrap();
    assert_eq!(reach(&rig.mock, 1, Ioba(0)), None);
}

#[test]
fn i1_i2_a_table_is_charged_once_per_window_and_a_region_once_per_process() {
    let rig = Rig::new(MockBuilder::new(4));
    let c = registered(&rig, &[G0, G1, G2]);
    c.create_window(SPEC).unwrap();
    assert_eq!((rig.pages(), rig.mock.leftovers()), (16 + COST, (1, 1, 3)));
    let other = registered(&rig, &[GroupId(3)]);
    other.create_window(SPEC).unwrap();
    assert_eq!((rig.pages(), rig.mock.leftovers()), (16 + 2 * COST, (1, 2, 4)));
    map_one(&other, 0);
    assert_eq!(reach(&rig.mock, 3, Ioba(0)), Some((G, Perm::READ_WRITE)));
    assert_eq!(reach(&rig.mock, 0, Ioba(0)), None, "containers are apart");
    drop(c);
    assert_eq!((rig.pages(), rig.mock.leftovers()), (16 + COST, (1, 1, 1)));
}

#[test]
fn i12_the_others_keep_their_mappings() {
    let rig = Rig::new(MockBuilder::new(3).record(true));
    let c = registered(&rig, &[G0, G1, G2]);
    c.create_window(SPEC).unwrap();
    (0..5).for_each(|i| map_one(&c, i << 18));
    // The one that joined first, so nothing hangs on the head of the list.
    for (left, group) in [(2u16, G0), (1, G2)] {
        rig.forget_events();
        c.detach(group).unwrap();
        for i in 0..5 {
            assert!(reach(&rig.mock, 1, Ioba(i << 18)).is_some());
        }
        let pe = PeNumber(group.0 as u16);
        assert_eq!(rig.mock.probe(pe, Ioba(0)), Err(Fault::NotOwned(pe)));
        let kill = MockEvent::Kill(pe, 0x4000_0000_0000_0000 | u64::from(pe.0));
        let events = rig.mock.take_events();
        assert_eq!(events[..3], [MockEvent::UnsetWindow(pe, 0), kill, MockEvent::Fence]);
        let others = events.iter().any(|e| matches!(e, MockEvent::Kill(of, _) if *of != pe));
        assert!(!others, "nothing was done to those that stay");
        assert_eq!((c.groups().len() as u16, mapped(&c, Uaddr(G))), (left, 5));
        assert_eq!(rig.pages(), 16 + COST);
    }
}

#[test]
fn last_leave_ends_the_address_space() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = registered(&rig, &[G0, G1]);
    c.create_window(SPEC).unwrap();
    c.create_window(SPEC).unwrap();
    map_one(&c, 0);
    c.detach(G1).unwrap();
    c.detach(G0).unwrap();
    rig.assert_empty();
    assert!(rig.mock.bypass(PeNumber(0)) && rig.mock.bypass(PeNumber(1)));
    assert_eq!((c.windows(), c.regions(), c.table_use()), (vec![], vec![], vec![]));
    let e = c.map(Ioba(0), Uaddr(G), 64 * K, Perm::READ, Mode::Refuse).unwrap_err();
    assert!(matches!(e, MapError::OutsideWindows { .. }), "{e}");
    // The container is as new.
    c.attach(G1).unwrap();
    assert_eq!(c.create_window(SPEC).unwrap().start, Ioba(0));
    assert_eq!(reach(&rig.mock, 1, Ioba(0)), None, "nothing of the former life");
    c.close();
    rig.assert_empty();
    c.close();
}

#[test]
fn table_memory_that_cannot_be_had() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = registered(&rig, &[G0]);
    rig.faulty.allow_chunks(0);
    let e = c.create_window(SPEC).unwrap_err();
    assert!(matches!(e, WindowError::Backend(BackendError::NoTableMemory { .. })), "{e}");
    assert_eq!((rig.pages(), rig.mock.leftovers()), (16, (1, 0, 0)));
    rig.faulty.allow_chunks(1);
    // 32 levels' blocks a chunk: the 40 leaves of this range need another.
    c.register(Uaddr(64 * G), 20 * G).unwrap();
    c.create_window(WindowSpec::new(64 * G, PageShift::K64).levels(2)).unwrap();
    let e = c.map(Ioba(0), Uaddr(64 * G), 20 * G, Perm::READ, Mode::Refuse).unwrap_err();
    assert!(matches!(e, MapError::Table(_)), "{e}");
    assert_eq!((mapped(&c, Uaddr(64 * G)), c.table_use()[0].blocks), (0, 1));
    assert_eq!(reach(&rig.mock, 0, Ioba(0)), None);
    rig.faulty.allow_chunks(1);
    c.map(Ioba(0), Uaddr(64 * G), 20 * G, Perm::READ, Mode::Refuse).unwrap();
    assert_eq!(mapped(&c, Uaddr(64 * G)), (20 * G) >> 16);
}

/// A window goes, and at each of its kills and as it is disabled a peer maps and unmaps in the other.
/// Were it held up, the test would say so after a while.
#[test]
fn peers_go_on_while_a_window_is_taken_down() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = Arc::new(registered(&rig, &[G0, G1]));
    c.create_window(SPEC).unwrap();
    c.create_window(SPEC).unwrap();
    (0..300).for_each(|page| map_one(&c, page * 64 * K));
    let (meet, meetings) = mpsc::channel::<mpsc::Sender<()>>();
    let (ready, is_ready) = mpsc::channel();
    let peer = {
        let c = c.clone();
        thread::spawn(move || {
            // Making it changes the structure, so it would wait for the part that is being cleared.
            let mut handle = c.mapper();
            ready.send(()).unwrap();
            let mut rounds = 0;
            for done in meetings {
                let memory = Uaddr(G);
                handle.map(SECOND, memory, 64 * K, Perm::READ_WRITE, Mode::Refuse).unwrap();
                assert_eq!(handle.unmap(SECOND, 64 * K).unwrap().released, 1);
                map_one(&c, SECOND.0);
                c.unmap(SECOND, 64 * K).unwrap();
                // Nobody finds the other any more.
                let gone = c.map(Ioba(0), memory, 64 * K, Perm::READ, Mode::Replace);
                assert!(matches!(gone, Err(MapError::OutsideWindows { .. })), "{gone:?}");
                rounds += 1;
                done.send(()).unwrap();
            }
            rounds
        })
    };
    is_ready.recv().unwrap();
    let removal = thread::current().id();
    let held_up = Arc::new(AtomicBool::new(false));
    let meet = Arc::new(Mutex::new(Some(meet)));
    {
        let (meet, held_up) = (meet.clone(), held_up.clone());
        rig.faulty.watch(move |step| {
            let mine = thread::current().id() == removal;
            if !mine || !matches!(step, Step::Kill(..) | Step::Unset(..)) {
                return;
            }
            if let Some(meet) = meet.lock().unwrap().as_ref() {
                let (done, is_done) = mpsc::channel();
                meet.send(done).unwrap();
                let late = is_done.recv_timeout(Duration::from_secs(60)).is_err();
                held_up.fetch_or(late, Ordering::Relaxed);
            }
        });
    }
    let receipt = c.remove_window(Ioba(0), Removal::Force).unwrap();
    assert_eq!((receipt.released, receipt.kills.asked), (300, 600));
    assert!(!held_up.load(Ordering::Relaxed));
    drop(meet.lock().unwrap().take());
    // Two PEs: one kill of each for the entries, then each is disabled and killed.
    assert_eq!(peer.join().unwrap(), 2 + 2 + 2);
    assert_eq!(c.create_window(SPEC).unwrap().start, Ioba(0), "its slot is free again");
}
