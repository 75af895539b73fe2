// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The concerns of the review in which several groups first shared a container (G1 to G8): each is a
//! rule here, see "Rules from the review" in DESIGN.md. G8 is in `eeh.rs`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::*;
use tce_engine::addr::{GroupId, Ioba, PageShift, PageSizes, PeNumber, Uaddr};
use tce_engine::backend::KillScope;
use tce_engine::backend::linux::mock_kernel::{MockKernel, Profile};
use tce_engine::backend::linux::{Linux, LinuxOptions};
use tce_engine::backend::mock::{MockBuilder, MockEvent};
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::error::{AttachError, RegisterError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::platform::Platform;
use tce_engine::tce::Perm;

const SPEC: WindowSpec = WindowSpec::new(G, PageShift::K64).levels(1);
const P: u64 = 64 * K;

fn map_one(c: &Container, at: u64) {
    c.map(Ioba(at), Uaddr(G), P, Perm::READ_WRITE, Mode::Refuse).unwrap();
}

/// Whether groups may share is one thing, how many windows each has another.
#[test]
fn g1_sharing_and_the_number_of_windows_are_independent() {
    let kinds = [(true, 2), (true, 1), (false, 2), (false, 1)];
    let mut machine = MockBuilder::new(8);
    for n in 0..8 {
        let (share, windows) = kinds[n % 4];
        machine = machine.group(GroupId(n as u32), |caps| {
            caps.can_share_tables = share;
            caps.window_starts[1] = caps.window_starts[1].filter(|_| windows == 2);
        });
    }
    let rig = Rig::new(machine);
    for (n, (share, windows)) in (0..).zip(kinds) {
        let c = rig.container(&[GroupId(n)]);
        (0..windows).for_each(|_| assert!(c.create_window(SPEC).is_ok()));
        assert_eq!(c.create_window(SPEC), Err(WindowError::NoSlot(windows)));
        let joined = c.attach(GroupId(n + 4));
        assert_eq!(joined.is_ok(), share, "{windows} windows: {joined:?}");
    }
}

/// No common address space where the PEs' ranges of the bus are disjoint.
#[test]
fn g2_groups_with_other_ranges_of_the_bus_do_not_share() {
    let builder = MockBuilder::new(5)
        .group(G1, |caps| caps.window_starts[0] = Some(Ioba(1 << 28)))
        .group(G2, |caps| caps.window_starts[1] = None)
        .group(GroupId(3), |caps| caps.can_share_tables = false)
        .group(GroupId(4), |caps| caps.default_bytes = G);
    let rig = Rig::new(builder);
    for first in 0..5 {
        let c = rig.container(&[GroupId(first)]);
        for second in (0..5).filter(|s| *s != first).map(GroupId) {
            let e = c.attach(second).unwrap_err();
            let refused = matches!(&e, AttachError::Incompatible { group, .. } if *group == second);
            assert!(refused, "{second} after {first}: {e}");
            assert!(rig.mock.bypass(PeNumber(second.0 as u16)), "it was not even taken");
        }
        assert_eq!(c.groups(), [GroupId(first)]);
    }
    // Each has an address space of its own.
    let all: Vec<_> = (0..5).map(|n| rig.container(&[GroupId(n)])).collect();
    all.iter().for_each(|c| assert!(c.create_window(SPEC).is_ok()));
    assert_eq!(rig.mock.leftovers(), (0, 5, 5));
}

/// The machine of which the reviewer spoke: each PE has segments of the bus of its own. Its kernel
/// does not say no for this reason.
#[test]
fn g2_disjoint_segments_of_a_real_platform() {
    let machine = MockKernel::builder(2).profile(Profile::K4_2).platform(Platform::Ioda1);
    let kernel = machine.try_build().unwrap();
    let linux = Linux::new(kernel.process(), LinuxOptions::default());
    let engine = Engine::new(linux, EngineOptions::default());
    let (c, d) = (engine.container(), engine.container());
    c.attach(G0).unwrap();
    let e = c.attach(G1).unwrap_err();
    assert!(matches!(e, AttachError::Incompatible { group: G1, .. }), "{e}");
    assert!(e.to_string().contains("start at 0x10000000"), "{e}");
    d.attach(G1).unwrap();
    let first = |c: &Container| c.caps().unwrap().window_starts[0];
    assert_eq!((first(&c), first(&d)), (Some(Ioba(0)), Some(Ioba(1 << 28))));
    drop((c, d));
    assert_eq!((kernel.damage(), kernel.leftovers()), (vec![], Default::default()));
}

/// There is one table, however many members use it, and one owner of its memory.
#[test]
fn g3_members_share_one_table_and_have_no_copies() {
    let rig = Rig::new(MockBuilder::new(4));
    let c = rig.container(&[G0]);
    c.register(Uaddr(G), M).unwrap();
    c.create_window(SPEC).unwrap();
    let (charged, held) = (rig.pages(), c.table_memory());
    let users = || held.iter().map(Arc::strong_count).collect::<Vec<_>>();
    let alone = users();
    assert!(!alone.is_empty());
    for (n, group) in [G1, G2, GroupId(3)].into_iter().enumerate() {
        c.attach(group).unwrap();
        assert_eq!(
            (users(), rig.pages(), rig.mock.leftovers()),
            (alone.clone(), charged, (1, 1, n + 2))
        );
    }
    // What one map wrote, all find.
    map_one(&c, 0x40_0000);
    let seen = (0..4).map(|pe| rig.mock.probe(PeNumber(pe), Ioba(0x40_0000)).unwrap().at);
    assert_eq!(seen.collect::<BTreeSet<_>>().len(), 1);
    c.detach(G0).unwrap();
    assert_eq!(users(), alone);
    c.remove_window(Ioba(0), Removal::Force).unwrap();
    assert!(users().iter().all(|users| *users == 1), "nobody but this test has it");
}

/// A table has the container's members, whoever they are, and none of them is its own.
#[test]
fn g4_kills_go_to_the_members_of_the_moment() {
    let rig = Rig::new(MockBuilder::new(4).record(true));
    let c = rig.container(&[G0]);
    c.register(Uaddr(G), M).unwrap();
    c.create_window(SPEC).unwrap();
    let mut members = BTreeSet::from([0]);
    // The one that the table was made for leaves, and comes back; so does everybody else.
    for n in [1, 2, 0, 3, 1, 0, 2, 1] {
        let group = GroupId(n);
        if members.insert(n) {
            c.attach(group).unwrap();
        } else {
            members.remove(&n);
            c.detach(group).unwrap();
        }
        map_one(&c, 0);
        rig.forget_events();
        c.unmap(Ioba(0), P).unwrap();
        let kill = |e| if let MockEvent::Kill(pe, _) = e { Some(u32::from(pe.0)) } else { None };
        let killed: Vec<_> = rig.mock.take_events().into_iter().filter_map(kill).collect();
        assert_eq!(killed.len(), members.len());
        assert_eq!(killed.into_iter().collect::<BTreeSet<_>>(), members, "after {group}");
    }
}

/// All orders of the numbers below `n`.
fn orders(n: u32) -> Vec<Vec<u32>> {
    if n == 0 {
        return vec![vec![]];
    }
    let shorter = orders(n - 1).into_iter();
    let with_last = shorter.flat_map(|order| {
        (0..n as usize).map(move |at| {
            let mut order = order.clone();
            order.insert(at, n - 1);
            order
        })
    });
    with_last.collect()
}

/// Who left limits nobody, whenever it came and whatever it lacked.
#[test]
fn g5_caps_are_those_of_the_members_that_stay() {
    let all = [PageShift::K4, PageShift::K64].as_slice();
    for order in orders(3) {
        for (pages, levels) in [(&[PageShift::K64][..], 1), (&[PageShift::K64], 2), (all, 1)] {
            let limited = (PageSizes::of(pages), levels);
            let builder = MockBuilder::new(3)
                .group(G0, |caps| (caps.page_sizes, caps.max_levels) = (PageSizes::of(all), 2))
                .group(G1, |caps| (caps.page_sizes, caps.max_levels) = (PageSizes::of(all), 2))
                .group(G2, |caps| (caps.page_sizes, caps.max_levels) = limited);
            let rig = Rig::new(builder);
            let groups: Vec<_> = order.iter().copied().map(GroupId).collect();
            let c = rig.container(&groups);
            let of = |c: &Container| c.caps().map(|caps| (caps.page_sizes, caps.max_levels));
            assert_eq!(of(&c), Some(limited), "{order:?}");
            c.detach(G2).unwrap();
            assert_eq!(of(&c), Some((PageSizes::of(all), 2)), "{order:?} without {limited:?}");
            assert_eq!(of(&rig.container(&[G2])), Some(limited));
        }
    }
}

/// No member is the one whose abilities count: in every order, the same is offered and made.
#[test]
fn g5_caps_and_windows_are_the_intersection_in_every_order() {
    let (low, high) = ([PageShift::K4, PageShift::K64], [PageShift::K64, PageShift::M16]);
    let lacking = GroupId(4);
    for order in orders(4) {
        let builder = MockBuilder::new(5)
            .group(G0, |caps| caps.page_sizes = PageSizes::of(&low))
            .group(G1, |caps| caps.page_sizes = PageSizes::of(&high))
            .group(G2, |caps| caps.max_levels = 1)
            .group(lacking, |caps| caps.page_sizes = PageSizes::of(&[PageShift::K4]));
        let rig = Rig::new(builder);
        let groups: Vec<_> = order.iter().copied().map(GroupId).collect();
        let c = rig.container(&groups);
        let caps = c.caps().unwrap();
        assert_eq!(caps.page_sizes, PageSizes::of(&[PageShift::K64]), "{order:?}");
        assert_eq!((caps.max_levels, caps.window_starts), (1, [Some(Ioba(0)), Some(SECOND)]));
        for page in [PageShift::K4, PageShift::M16] {
            let e = c.create_window(WindowSpec::new(2 * G, page)).unwrap_err();
            assert!(matches!(e, WindowError::PageSize { .. }), "{e}");
        }
        let e = c.create_window(SPEC.levels(2)).unwrap_err();
        assert_eq!(e, WindowError::Levels { levels: 2, offered: 1 });
        let e = c.attach(lacking).unwrap_err();
        assert!(matches!(e, AttachError::Incompatible { .. }), "nothing in common: {e}");
        let made = c.create_window(SPEC).unwrap();
        assert_eq!((made.start, made.geometry.levels(), rig.pages()), (Ioba(0), 1, 4), "{order:?}");
        // What left no longer counts, but may come back only if it can walk the windows there are.
        c.detach(G0).unwrap();
        assert_eq!(c.caps().unwrap().page_sizes, PageSizes::of(&high));
        c.attach(G0).unwrap();
    }
}

/// For each table whose memory is freed, what was wrong then: nothing, if all members' windows had been
/// unset and killed, and that had been waited for.
fn watch_frees(rig: &Rig, members: &'static [GroupId]) -> Arc<Mutex<Vec<String>>> {
    let (frees, steps) = (Arc::new(Mutex::new(Vec::new())), Mutex::new(Vec::new()));
    let (found, mock) = (frees.clone(), rig.mock.clone());
    rig.faulty.watch(move |step| {
        let mut steps = steps.lock().unwrap();
        if step != Step::FreeTable {
            return steps.push(step);
        }
        let last = |wanted: Step| steps.iter().rposition(|s| *s == wanted);
        let ordered = members.iter().all(|group| {
            let (unset, kill) = (Step::Unset(*group, 0), Step::Kill(*group, KillScope::Pe));
            let [unset, kill, fence] = [unset, kill, Step::Fence].map(last);
            unset.is_some() && unset < kill && kill < fence
        });
        let windows = mock.leftovers().2;
        // The drop of a table must not panic: the test does, later.
        let wrong = if ordered && windows == 0 {
            String::new()
        } else {
            format!("{windows} windows are set; {steps:?}")
        };
        found.lock().unwrap().push(wrong);
        steps.clear();
    });
    frees
}

/// Nobody has to know who else refers to a table's memory: it goes with its one owner, when no PE can
/// reach it any more.
#[test]
fn g6_table_memory_goes_after_the_last_pe_has_forgotten_it() {
    static MEMBERS: [GroupId; 3] = [G0, G1, G2];
    type End = fn(Container);
    let ends: [End; 4] = [
        |c| assert!(c.remove_window(Ioba(0), Removal::Force).is_ok()),
        |c| c.close(),
        |c| drop(c),
        // The last one is alone with its table: the others have left before.
        |c| MEMBERS.iter().for_each(|group| assert!(c.detach(*group).is_ok())),
    ];
    for end in ends {
        let rig = Rig::new(MockBuilder::new(3));
        let frees = watch_frees(&rig, &MEMBERS);
        let c = rig.container(&MEMBERS);
        c.register(Uaddr(G), M).unwrap();
        c.create_window(SPEC).unwrap();
        map_one(&c, 0x40_0000);
        let held = c.table_memory();
        assert!(!held.is_empty());
        end(c);
        assert_eq!(*frees.lock().unwrap(), [""]);
        for chunk in held {
            assert!(
                chunk.slots().iter().all(|slot| slot.load(Ordering::SeqCst) & 3 << 56 == 0),
                "cleared"
            );
            assert_eq!(Arc::strong_count(&chunk), 1, "nobody but this test has it");
        }
    }
}

/// The same for a window that one of the members could not get.
#[test]
fn g6_table_memory_of_a_window_that_could_not_be_made() {
    let rig = Rig::new(MockBuilder::new(3));
    let frees = watch_frees(&rig, &[G0, G1]);
    let c = rig.container(&[G0, G1, G2]);
    rig.faulty.fail_set_window(3, -1);
    assert!(c.create_window(SPEC).is_err());
    assert_eq!(*frees.lock().unwrap(), [""]);
    assert_eq!(rig.mock.leftovers(), (0, 0, 0));
}

/// Two containers want the same groups, and only one gets each; `owners` are those of G1 and G2.
fn contend(c: &Container, owners: &[AtomicUsize; 2]) {
    for _ in 0..400 {
        for (group, owners) in [G1, G2].into_iter().zip(owners) {
            match c.attach(group) {
                Ok(_) => {
                    assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0, "{group} twice");
                    assert!(c.groups().contains(&group));
                    owners.fetch_sub(1, Ordering::SeqCst);
                    c.detach(group).unwrap();
                }
                Err(AttachError::Elsewhere(found)) => assert_eq!(found, group),
                Err(other) => panic!("{other}"),
            }
        }
        match c.register(Uaddr(G), M) {
            Ok(()) => c.unregister(Uaddr(G), M).unwrap(),
            Err(e) => assert!(matches!(e, RegisterError::Busy { .. }), "{e}"),
        }
    }
}

/// Who reads a list that is shared has the lock that protects it: groups, windows and regions change
/// while others look and map, and whatever is seen is whole.
#[test]
fn g7_lists_are_whole_while_they_change() {
    let rig = Rig::new(MockBuilder::new(4));
    let (c, d) = (rig.container(&[G0]), rig.container(&[GroupId(3)]));
    c.create_window(SPEC).unwrap();
    c.register(Uaddr(G), M).unwrap();
    let done = AtomicBool::new(false);
    // How many have G1, and G2.
    let owners = [0, 0].map(AtomicUsize::new);
    let (c, d) = (&c, &d);
    thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let groups = c.groups();
                assert_eq!(groups.iter().collect::<BTreeSet<_>>().len(), groups.len());
                assert_eq!(groups[0], G0);
                assert!(c.windows().iter().all(|w| w.geometry.size() == G));
                let regions = rig.engine.regions();
                let ours = regions.iter().find(|r| r.memory.start() == G).unwrap();
                assert!((1..=2).contains(&ours.containers) && ours.mapped <= 1);
            }
        });
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                map_one(c, 0);
                let members = c.groups();
                let receipt = c.unmap(Ioba(0), P).unwrap();
                // As many as there were during the call.
                assert!((1..=3).contains(&receipt.kills.asked), "{members:?}: {receipt:?}");
            }
        });
        let both = [c, d].map(|c| s.spawn(|| contend(c, &owners)));
        let both = both.map(|thread| thread.join());
        done.store(true, Ordering::Relaxed);
        both.into_iter().for_each(|ended| ended.unwrap());
    });
    assert_eq!((c.groups(), d.groups()), (vec![G0], vec![GroupId(3)]));
    assert_eq!(rig.mock.taken(), 2);
    c.unregister(Uaddr(G), M).unwrap();
}
