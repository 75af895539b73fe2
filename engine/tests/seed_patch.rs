// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was wrong with the first patch that let several groups share a container (S1 to S19): each is
//! a rule here, see "Rules from the review" in DESIGN.md. Those that need a kernel are in
//! `seed_patch_kernel.rs`, S13 is in `eeh.rs`.

use std::sync::{Arc, Mutex};

use crate::common::*;
use tce_engine::addr::{GroupId, Ioba, PageShift, PageSizes, PeNumber, Uaddr};
use tce_engine::backend::KillScope;
use tce_engine::backend::mock::{Fault, MockBuilder, MockEvent};
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::error::{AttachError, BackendError, MapError, UnmapError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

const SPEC: WindowSpec = WindowSpec::new(G, PageShift::K64).levels(1);
const P: u64 = 64 * K;
/// Host pages that [`SPEC`] costs, and those of the region.
const COST: u64 = 4;
const REGION: u64 = 16;

fn map_one(c: &Container, at: u64) {
    c.map(Ioba(at), Uaddr(G), P, Perm::READ_WRITE, Mode::Refuse).unwrap();
}

fn registered(rig: &Rig, groups: &[GroupId]) -> Container {
    let c = rig.container(groups);
    c.register(Uaddr(G), M).unwrap();
    c
}

/// With two windows and a page mapped in each.
fn mapped_twice(rig: &Rig, groups: &[GroupId]) -> Container {
    let c = registered(rig, groups);
    for start in [0, SECOND.0] {
        c.create_window(SPEC).unwrap();
        map_one(&c, start);
    }
    c
}

/// A kill of all of a PE.
fn pe_kill(pe: PeNumber) -> MockEvent {
    MockEvent::Kill(pe, 1 << 62 | u64::from(pe.0))
}

/// A group that is refused because it is a member is still one, in every respect.
#[test]
fn s1_attaching_twice_then_using_and_detaching() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = registered(&rig, &[G0, G1]);
    let other = rig.engine.container();
    for group in [G0, G1, G0] {
        assert_eq!(c.attach(group), Err(AttachError::Member(group)));
        assert_eq!(other.attach(group), Err(AttachError::Elsewhere(group)));
    }
    c.create_window(SPEC).unwrap();
    map_one(&c, 0);
    assert!(reach(&rig.mock, 0, Ioba(0)).is_some() && reach(&rig.mock, 1, Ioba(0)).is_some());
    c.detach(G0).unwrap();
    assert_eq!(c.detach(G0), Err(AttachError::NotMember(G0)));
    other.attach(G0).unwrap();
    assert_eq!((c.groups(), other.groups()), (vec![G1], vec![G0]));
    assert_eq!(rig.mock.probe(PeNumber(0), Ioba(0)), Err(Fault::NoWindow { slot: 0 }));
    c.unmap(Ioba(0), P).unwrap();
}

/// A search through the members that finds nobody ends with nobody, and not with the last one.
#[test]
fn s2_who_is_not_found_is_nobody() {
    let rig = Rig::new(MockBuilder::new(4).group(GroupId(3), |caps| caps.can_share_tables = false));
    let c = mapped_twice(&rig, &[G0, G1]);
    let whole = || {
        assert_eq!(c.groups(), [G0, G1]);
        (0..2).for_each(|pe| assert!(reach(&rig.mock, pe, SECOND).is_some()));
    };
    for group in [G2, GroupId(3), GroupId(9)] {
        assert_eq!(c.detach(group), Err(AttachError::NotMember(group)));
        whole();
    }
    // After a refusal, the next one is a member of its own.
    assert!(matches!(c.attach(GroupId(3)), Err(AttachError::Incompatible { .. })));
    whole();
    c.attach(G2).unwrap();
    c.detach(G2).unwrap();
    whole();
}

/// Whether a group is the first one is decided while nobody else can join.
#[test]
fn s3_two_first_groups_that_do_not_fit() {
    let rig = Rig::new(MockBuilder::new(2).group(G1, |caps| caps.window_starts[1] = None));
    let c = Arc::new(rig.engine.container());
    let second = c.clone();
    let race = meanwhile(&rig, |step| step == Step::Take(G0), move || second.attach(G1));
    c.attach(G0).unwrap();
    let (refused, early) = race.end();
    assert!(matches!(refused, Err(AttachError::Incompatible { group: G1, .. })), "{refused:?}");
    assert!(!early, "it joined while another was joining");
    assert_eq!((c.groups(), rig.mock.taken()), (vec![G0], 1));
}

/// Bypass off, default window gone, killed, windows set; and exactly back.
#[test]
fn s5_ownership_goes_in_order_and_comes_back_in_order() {
    use MockEvent::{Bypass, DefaultWindow, Fence, GiveBack, SetWindow, Take, UnsetWindow};
    let rig = Rig::new(MockBuilder::new(2).record(true));
    let c = mapped_twice(&rig, &[G0]);
    let pe = PeNumber(1);
    let (off, on) = (false, true);
    let takes = [Take(pe), Bypass(pe, off), DefaultWindow(pe, off), pe_kill(pe), Fence];
    let gives = [pe_kill(pe), Fence, DefaultWindow(pe, on), Bypass(pe, on), GiveBack(pe)];
    let (sets, unsets) = ([0, 1].map(|n| SetWindow(pe, n)), [0, 1].map(|n| UnsetWindow(pe, n)));
    let before = (rig.pages(), rig.mock.leftovers());
    let unchanged = |error, wanted: BackendError| {
        assert_eq!(error, Err(AttachError::Backend(wanted)));
        assert_eq!((rig.pages(), rig.mock.leftovers(), rig.mock.taken()), (before.0, before.1, 1));
        assert!(rig.mock.bypass(pe) && rig.mock.default_window(pe), "it is the host's");
        assert_eq!(c.groups(), [G0]);
    };
    rig.forget_events();
    // Refused at once: there is nothing to be undone.
    rig.faulty.fail_take(1);
    unchanged(c.attach(G1), BackendError::GroupBusy(G1));
    assert_eq!(rig.mock.take_events(), []);
    for slot in 0..2 {
        rig.faulty.fail_set_window(slot as u32 + 1, -7);
        unchanged(c.attach(G1), BackendError::Firmware { group: G1, slot, code: -7 });
        let wanted = [&takes[..], &sets[..slot], &unsets[..slot], &gives].concat();
        assert_eq!(rig.mock.take_events(), wanted, "failed at window {slot}");
    }
    c.attach(G1).unwrap();
    assert_eq!(rig.mock.take_events(), [&takes[..], &sets].concat());
    c.detach(G1).unwrap();
    assert_eq!(rig.mock.take_events(), [&unsets[..], &gives].concat());
}

/// The books are as they were, whatever could not be made: no window is kept for later.
#[test]
fn s6_what_fails_costs_nothing() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = registered(&rig, &[G0]);
    let state = || (rig.pages(), rig.engine.ledger().entries(), rig.mock.leftovers(), c.windows());
    let before = state();
    for nth in [1, 2] {
        // The first or the second member does not get it.
        if nth == 2 {
            c.attach(G1).unwrap();
        }
        rig.faulty.fail_set_window(nth, -6);
        let e = c.create_window(SPEC).unwrap_err();
        assert!(matches!(e, WindowError::Backend(BackendError::Firmware { .. })), "{e}");
        assert_eq!(state(), before);
    }
    c.detach(G1).unwrap();
    c.create_window(SPEC).unwrap();
    let before = state();
    for step in 0..2 {
        if step == 0 {
            rig.faulty.fail_take(1)
        } else {
            rig.faulty.fail_set_window(1, -1)
        }
        c.attach(G1).unwrap_err();
        assert_eq!(state(), before);
    }
}

/// A PE that could not get the second window does not keep the first.
#[test]
fn s7_a_failed_attach_leaves_no_window_behind() {
    for nth in [1, 2] {
        let rig = Rig::new(MockBuilder::new(2));
        let c = mapped_twice(&rig, &[G0]);
        rig.faulty.fail_set_window(nth, -7);
        c.attach(G1).unwrap_err();
        assert_eq!(rig.mock.leftovers(), (1, 2, 2), "two windows of the one member");
        assert_eq!(rig.mock.probe(PeNumber(1), Ioba(0)), Err(Fault::NotOwned(PeNumber(1))));
        // Whoever takes it next finds it empty.
        let next = rig.container(&[G1]);
        assert_eq!(rig.mock.probe(PeNumber(1), Ioba(0)), Err(Fault::NoWindow { slot: 0 }));
        drop(next);
        assert!(reach(&rig.mock, 0, SECOND).is_some(), "G0 still maps");
        map_one(&c, P);
        c.attach(G1).unwrap();
        assert!(reach(&rig.mock, 1, Ioba(P)).is_some());
    }
}

/// Windows live as long as the address space: they end with the last member, and who comes while
/// they are there has to fit them, even if it made them.
#[test]
fn s8_windows_live_while_the_address_space_does() {
    let machine = MockBuilder::new(2)
        .group(G0, |caps| caps.page_sizes = PageSizes::of(&[PageShift::K4, PageShift::K64]))
        .group(G1, |caps| caps.max_levels = 1);
    let rig = Rig::new(machine);
    let c = registered(&rig, &[G0, G1]);
    c.create_window(SPEC).unwrap();
    map_one(&c, 0);
    c.detach(G1).unwrap();
    c.create_window(SPEC.levels(2)).unwrap();
    let e = c.attach(G1).unwrap_err();
    assert!(e.to_string().contains("has 2 levels, it walks 1"), "{e}");
    // What another first group would find if the windows stayed: it could not walk them either.
    c.detach(G0).unwrap();
    rig.assert_empty();
    assert_eq!((c.windows(), c.regions()), (vec![], vec![]));
    c.attach(G1).unwrap();
    assert_eq!(c.create_window(SPEC).unwrap().start, Ioba(0));
    assert_eq!(reach(&rig.mock, 1, Ioba(0)), None, "nothing of the former life");
}

/// What happens to a container, in short, while a device of each member looks on. What must not be is
/// in capitals; it is no panic, as most of this happens while something is dropped.
fn phases(rig: &Rig) -> Arc<Mutex<Vec<&'static str>>> {
    let (log, mock) = (Arc::new(Mutex::new(Vec::new())), rig.mock.clone());
    let phases = log.clone();
    rig.faulty.watch(move |step| {
        let (_, tables, windows) = mock.leftovers();
        let phase = match step {
            Step::Kill(group, scope) => {
                match mock.probe(PeNumber(group.0 as u16), Ioba(0x10_0000)) {
                    Ok(_) => "KILLED WHILE MAPPED",
                    Err(_) if scope == KillScope::Pe => "PE",
                    Err(_) => "page",
                }
            }
            Step::Fence => "fence",
            Step::Unset(..) if tables != 1 => "UNSET WITHOUT A TABLE",
            Step::Unset(..) => "unset",
            Step::FreeTable if windows != 0 => "FREED WHILE SET",
            Step::FreeTable => "free",
            Step::Unpin(_) if (tables, windows) != (0, 0) => "UNPINNED BEFORE THE TABLE WENT",
            Step::Unpin(_) => "unpin",
            Step::Release(_) => "release",
            Step::Take(_) | Step::Set(..) => return,
        };
        log.lock().unwrap().push(phase);
    });
    phases
}

/// Clear → kill → wait → unset → kill → wait → free → unpin, in whichever way it ends.
#[test]
fn s10_order_of_the_end() {
    type End = fn(Container);
    let all = "page page fence unset unset PE PE fence free unpin";
    let (leaves, one) = ("unset PE fence release", "page fence unset PE fence free unpin");
    let gone = "PE fence release";
    let ends: [(End, String); 4] = [
        (
            |c| {
                c.remove_window(Ioba(0), Removal::Force).unwrap();
                c.unregister(Uaddr(G), M).unwrap();
            },
            format!("{all} {gone} {gone}"),
        ),
        (|c| c.close(), format!("{all} {gone} {gone}")),
        (|c| drop(c), format!("{all} {gone} {gone}")),
        (
            |c| {
                c.detach(G1).unwrap();
                c.detach(G0).unwrap();
            },
            format!("{leaves} {one} {gone}"),
        ),
    ];
    for (end, wanted) in ends {
        let rig = Rig::new(MockBuilder::new(2));
        let c = registered(&rig, &[G0, G1]);
        c.create_window(SPEC).unwrap();
        map_one(&c, 0x10_0000);
        let phases = phases(&rig);
        end(c);
        assert_eq!(phases.lock().unwrap().join(" "), wanted);
    }
}

/// What ends in one container is still another's.
#[test]
fn s11_who_goes_wipes_nothing_of_others() {
    for share in [true, false] {
        let machine = MockBuilder::new(3).group(G0, |caps| caps.can_share_tables = share);
        let rig = Rig::new(machine);
        let (c, d) = (mapped_twice(&rig, &[G0]), mapped_twice(&rig, &[G1, G2]));
        let alive = |pe| {
            for at in [Ioba(0), SECOND] {
                assert_eq!(reach(&rig.mock, pe, at), Some((G, Perm::READ_WRITE)), "PE {pe}, {at}");
            }
        };
        c.close();
        [1, 2].into_iter().for_each(alive);
        d.detach(G2).unwrap();
        alive(1);
        assert_eq!((mapped(&d, Uaddr(G)), rig.pages()), (2, REGION + 2 * COST));
    }
}

/// Unset is what was set: nothing else is touched, whoever has it.
#[test]
fn s12_only_what_was_set_is_unset() {
    let rig = Rig::new(MockBuilder::new(3));
    let unset = Arc::new(Mutex::new(Vec::new()));
    let log = unset.clone();
    rig.faulty.watch(move |step| {
        if let Step::Unset(group, slot) = step {
            log.lock().unwrap().push((group, slot));
        }
    });
    let unset = || std::mem::take(&mut *unset.lock().unwrap());
    let c = rig.container(&[G0, G1, G2]);
    // The third of three members refuses, then the first.
    for (nth, wanted) in [(3, &[(G0, 0), (G1, 0)][..]), (1, &[])] {
        rig.faulty.fail_set_window(nth, -1);
        c.create_window(SPEC).unwrap_err();
        assert_eq!(unset(), wanted);
    }
    c.create_window(SPEC).unwrap();
    c.create_window(SPEC).unwrap();
    c.remove_window(Ioba(0), Removal::Force).unwrap();
    assert_eq!(unset(), [(G0, 0), (G1, 0), (G2, 0)]);
    // There is only the second window.
    c.detach(G2).unwrap();
    assert_eq!(unset(), [(G2, 1)]);
    rig.faulty.fail_set_window(1, -1);
    c.attach(G2).unwrap_err();
    assert_eq!(unset(), []);
    c.create_window(SPEC).unwrap();
    rig.faulty.fail_set_window(2, -1);
    c.attach(G2).unwrap_err();
    assert_eq!(unset(), [(G2, 0)], "the second was not set");
}

/// All that a window and a group are is compared, not what they are made by.
#[test]
fn s15_a_group_must_fit_in_every_respect() {
    let four = GroupId(4);
    let builder = MockBuilder::new(6)
        .group(G1, |caps| caps.page_sizes = PageSizes::of(&[PageShift::K4]))
        .group(G2, |caps| caps.max_levels = 1)
        .group(GroupId(3), |caps| caps.window_starts[1] = Some(Ioba(1 << 58)))
        .group(four, |caps| caps.default_bytes = G)
        .group(GroupId(5), |caps| caps.page_sizes = PageSizes::of(&[PageShift::M2]));
    let rig = Rig::new(builder);
    let c = rig.container(&[G0]);
    c.create_window(SPEC.levels(2)).unwrap();
    let refused = |n, why: &str| match c.attach(GroupId(n)) {
        Err(AttachError::Incompatible { group, reason }) => {
            assert_eq!(group, GroupId(n));
            assert!(reason.contains(why), "{reason}");
        }
        other => panic!("{other:?}"),
    };
    refused(1, "the window at 0x0 has 64K pages, it offers 4K");
    refused(2, "the window at 0x0 has 2 levels, it walks 1");
    refused(3, "its windows start at");
    refused(4, "0x40000000 bytes, a member's 0x80000000");
    refused(5, "none in common");
    // Without that window, two of them fit.
    c.remove_window(Ioba(0), Removal::IfUnmapped).unwrap();
    c.attach(G1).unwrap();
    c.attach(G2).unwrap();
    refused(3, "its windows start at");
    refused(4, "bytes, a member's");
}

/// Members are counted by calls only while nobody joins or leaves.
#[test]
fn s17_no_call_meets_members_that_change() {
    // Who joins, at which step a peer gets its chance, and the members that it has to find.
    let cases = [(true, Step::Set(G1, 0), 2), (false, Step::Unset(G1, 0), 1)];
    for (joins, step, members) in cases {
        let rig = Rig::new(MockBuilder::new(2));
        let c = Arc::new(registered(&rig, &[G0]));
        c.create_window(SPEC).unwrap();
        if !joins {
            c.attach(G1).unwrap();
        }
        let peer = c.clone();
        let race = meanwhile(
            &rig,
            move |s| s == step,
            move || {
                map_one(&peer, 0);
                let killed = peer.unmap(Ioba(0), P).unwrap().kills.asked;
                (peer.groups().len(), killed)
            },
        );
        if joins {
            c.attach(G1).unwrap();
        } else {
            assert!(c.detach(G1).is_ok());
        }
        assert_eq!(race.end(), ((members, members as u64), false), "joins: {joins}");
    }
}

/// A slot without a window is none: nothing is found in it, not even at address 0.
#[test]
fn s18_a_slot_without_a_window_is_nowhere() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = registered(&rig, &[G0]);
    let nowhere = |at: Ioba| {
        let mapped = c.map(at, Uaddr(G), P, Perm::READ, Mode::Replace);
        assert!(matches!(mapped, Err(MapError::OutsideWindows { .. })), "{at}: {mapped:?}");
        let unmapped = c.unmap(at, P);
        assert!(matches!(unmapped, Err(UnmapError::OutsideWindows { .. })), "{at}: {unmapped:?}");
        assert_eq!(c.remove_window(at, Removal::Force), Err(WindowError::NotFound(at)));
    };
    let all = [Ioba(0), Ioba(P), Ioba(G), SECOND, Ioba(SECOND.0 + P), Ioba(!(P - 1))];
    all.into_iter().for_each(nowhere);
    c.create_window(SPEC).unwrap();
    c.create_window(SPEC).unwrap();
    // Each half of the bus without its window, and then both.
    c.remove_window(Ioba(0), Removal::Force).unwrap();
    all[..3].iter().copied().for_each(nowhere);
    c.unmap(SECOND, P).unwrap();
    c.create_window(SPEC).unwrap();
    c.remove_window(SECOND, Removal::Force).unwrap();
    all[2..].iter().copied().for_each(nowhere);
    c.unmap(Ioba(0), P).unwrap();
    c.remove_window(Ioba(0), Removal::Force).unwrap();
    all.into_iter().for_each(nowhere);
}

/// A PE is killed before it can see the mappings of those it joins, and when it has lost them.
#[test]
fn s19_a_pe_is_killed_when_it_joins_and_when_it_leaves() {
    let rig = Rig::new(MockBuilder::new(2).record(true));
    let c = mapped_twice(&rig, &[G0]);
    let pe = PeNumber(1);
    rig.forget_events();
    c.attach(G1).unwrap();
    for at in [Ioba(0), SECOND] {
        assert_eq!(reach(&rig.mock, 1, at), Some((G, Perm::READ_WRITE)));
        assert_eq!(rig.mock.probe(PeNumber(0), at), rig.mock.probe(pe, at));
    }
    let killed = || {
        let events = rig.mock.take_events();
        let kill = events.iter().position(|e| *e == pe_kill(pe)).expect("a kill of all of the PE");
        assert_eq!(events[kill + 1], MockEvent::Fence, "which is waited for");
        (events[..kill].to_vec(), events[kill + 2..].to_vec())
    };
    let (before, after) = killed();
    assert!(
        before.contains(&MockEvent::Take(pe)) && !before.contains(&MockEvent::SetWindow(pe, 0))
    );
    assert_eq!(after, [0, 1].map(|slot| MockEvent::SetWindow(pe, slot)));
    c.detach(G1).unwrap();
    let (before, after) = killed();
    assert_eq!(before, [0, 1].map(|slot| MockEvent::UnsetWindow(pe, slot)));
    assert_eq!(after.last(), Some(&MockEvent::GiveBack(pe)));
}
