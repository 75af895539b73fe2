// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every call that the engine makes to the platform below fails once in every way that it can: each
//! request to a kernel, and each call of a back end. After each failure the state is one that the
//! documentation allows, which is mostly that of before; the books are exact; and whether the caller goes
//! on or gives up, nothing is left in the end.
//!
//! `-- --nocapture` prints which call failed how, how often, and what its caller saw.

mod backend;
mod plan;
mod several;
mod steps;
mod table;
mod world;

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use plan::{Fault, Plan};
use steps::Step;
use table::{BACKEND, LEVEL, LEVELS, Table};
use tce_engine::backend::linux::Version;
use tce_engine::backend::linux::faulty::Outcome::{Cleared, Enomem};
use tce_engine::backend::linux::faulty::{Outcome, REQUESTS, Row, Site};
use tce_engine::backend::linux::mock_kernel::{Admission, Profile};
use tce_engine::engine::DetachPolicy;
use tce_engine::kill::KillPolicy;
use world::{Kind, World};

/// Failures that do not stop a step.
const GOES_ON: &[(Site, &str)] = &[
    // The first attach tries out how windows are charged. If it cannot, the next one tries.
    ("ENABLE", "attach"),
    ("TCE_CREATE", "attach"),
    ("TCE_REMOVE", "attach"),
    ("UNMAP_DMA", "attach"),
    // Who leaves is not kept: closing the group, and at last the container, does for all of these.
    ("GROUP_UNSET_CONTAINER", "detach"),
    ("UNREGISTER_MEMORY", "detach"),
    ("close group", "detach"),
    ("DISABLE", "detach, the last"),
    ("GROUP_UNSET_CONTAINER", "detach, the last"),
    ("TCE_REMOVE", "detach, the last"),
    ("UNMAP_DMA", "detach, the last"),
    ("UNREGISTER_MEMORY", "detach, the last"),
    ("close group", "detach, the last"),
];

/// How much is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Amount {
    /// After a failure the caller goes on, or gives up, by turns.
    Turns,
    /// Both.
    Both,
}

fn steps(kind: Kind) -> &'static [Step] {
    match kind {
        Kind::Kernel(_, Version::V1, _) => steps::VERSION_1,
        _ => steps::ALL,
    }
}

/// The steps without a failure; says who was called, and for how many pages.
fn calls(kind: Kind) -> BTreeMap<Site, Vec<u64>> {
    let plan = Arc::new(Plan::default());
    let mut world = World::new(kind, &plan);
    for step in steps(kind) {
        (step.run)(&mut world).unwrap_or_else(|e| panic!("{}: {}: {e:?}", name(kind), step.name));
        world.check();
    }
    let mut calls = plan.calls();
    calls.insert(LEVEL, vec![1; world.levels_made()]);
    world.end();
    let unlisted =
        |site: &&Site| !rows(&[REQUESTS, LEVELS, BACKEND]).iter().any(|row| row.site == **site);
    assert_eq!(calls.keys().find(unlisted), None, "a site without a row");
    calls
}

/// One failure, and what it leads to.
fn fail(kind: Kind, fault: Fault, goes_on: bool, table: &mut Table) {
    let plan = Arc::new(Plan::failing(fault));
    let mut world = World::new(kind, &plan);
    if fault.site == LEVEL {
        world.lack_level(fault.nth);
    }
    let mut met = false;
    for step in steps(kind) {
        let before = world.structure();
        let done = (step.run)(&mut world);
        if !plan.take_met() && !world.lacked_level() {
            done.unwrap_or_else(|e| panic!("{}: {e:?}", step.name));
            continue;
        }
        met = true;
        let Fault { site, outcome, .. } = fault;
        let told = done.as_ref().map_or_else(|e| e.variant.clone(), |()| "nothing".to_owned());
        table.visited(site, outcome, step.name, told);
        match &done {
            Ok(()) => table.went_on(site, step.name),
            Err(e) => {
                if let Some(lost) = &e.lost {
                    world.take_lost(lost);
                }
                assert!(e.done || world.structure() == before, "{:?}", world.structure());
            }
        }
        world.check();
        if !goes_on {
            break;
        }
        if done.is_err_and(|e| !e.done) {
            (step.run)(&mut world).unwrap_or_else(|e| panic!("{} again: {e:?}", step.name));
            world.check();
        }
    }
    assert!(met, "it was never called");
    world.end();
}

/// Every failure that these calls can have.
fn fail_all(kind: Kind, rows: &[&Row], amount: Amount, table: &mut Table) {
    let calls = calls(kind);
    for row in rows {
        table.called(row.site, calls.get(row.site).map_or(0, Vec::len));
        for (nth, pages) in calls.get(row.site).into_iter().flatten().enumerate() {
            for (turn, outcome) in Outcome::EVERY.into_iter().enumerate() {
                if !row.can(outcome, *pages) {
                    continue;
                }
                // Whoever puts mappings back asks for a map, too: that shall fail as well.
                let maps = row.site == "MAP_DMA" && [Enomem, Cleared].contains(&outcome);
                let all = if maps { &[false, true][..] } else { &[false] };
                for lasts in all.iter().copied() {
                    let fault = Fault { site: row.site, nth, outcome, lasts };
                    let by_turns = (nth + turn + usize::from(lasts)).is_multiple_of(2);
                    for goes_on in [true, false] {
                        if amount == Amount::Both || goes_on == by_turns {
                            try_one(kind, fault, goes_on, table);
                        }
                    }
                }
            }
        }
    }
}

/// All that goes wrong is told, not only what does first.
fn try_one(kind: Kind, fault: Fault, goes_on: bool, table: &mut Table) {
    let failed = panic::catch_unwind(AssertUnwindSafe(|| fail(kind, fault, goes_on, table)));
    if failed.is_err() {
        table.wrong += 1;
        let then = if goes_on { "goes on" } else { "gives up" };
        eprintln!("^ {}: {fault:?}, and the caller {then}", name(kind));
    }
}

/// For messages.
fn name(kind: Kind) -> String {
    match kind {
        Kind::Phb(policy) => format!("{policy:?}"),
        Kind::Kernel(profile, version, detach) => format!("{profile} {version:?} {detach:?}"),
    }
}

fn rows(lists: &[&'static [Row]]) -> Vec<&'static Row> {
    lists.iter().copied().flatten().collect()
}

const fn kernel(profile: Profile, detach: DetachPolicy) -> Kind {
    Kind::Kernel(profile, Version::V2, detach)
}

#[test]
fn every_request_to_a_kernel_fails_in_every_way() {
    let rows = rows(&[REQUESTS, LEVELS]);
    let mut table = Table::default();
    let k6_11 = Profile::K6_11;
    let kinds = [
        kernel(k6_11, DetachPolicy::Isolate),
        kernel(k6_11, DetachPolicy::Replay),
        Kind::Kernel(k6_11, Version::V1, DetachPolicy::Isolate),
    ];
    for kind in kinds {
        fail_all(kind, &rows, Amount::Turns, &mut table);
    }
    println!("{}", table.shown(&rows));
    table.assert_full(&rows, GOES_ON);
}

#[test]
fn every_call_of_a_back_end_fails_in_every_way() {
    let rows = rows(&[BACKEND]);
    let mut table = Table::default();
    let deferred = KillPolicy::Deferred { max_pages: 64, max_age: Duration::MAX };
    for policy in [KillPolicy::Strict, KillPolicy::Batched, deferred] {
        fail_all(Kind::Phb(policy), &rows, Amount::Both, &mut table);
    }
    for detach in [DetachPolicy::Isolate, DetachPolicy::Replay] {
        fail_all(kernel(Profile::K6_11, detach), &rows, Amount::Turns, &mut table);
    }
    println!("{}", table.shown(&rows));
    table.assert_full(&rows, &[]);
}

/// Kernels of all ages, and a guest's.
#[test]
#[ignore = "takes minutes"]
fn every_call_fails_in_every_way_on_kernels_of_all_ages() {
    for profile in Profile::ALL {
        let mut rows = rows(&[REQUESTS, LEVELS, BACKEND]);
        if !profile.lists_regions {
            // There, what is refused at the end outlives its container, as `guard.rs` says.
            rows.retain(|row| row.site != "UNREGISTER_MEMORY");
        }
        let mut table = Table::default();
        for detach in [DetachPolicy::Isolate, DetachPolicy::Replay] {
            fail_all(kernel(profile, detach), &rows, Amount::Turns, &mut table);
            // Others have such a container for groups without dynamic windows alone, or charge the window
            // before the engine is asked for it.
            if profile.admission == Admission::OneInVersion1 {
                let version_1 = Kind::Kernel(profile, Version::V1, detach);
                fail_all(version_1, &self::rows(&[REQUESTS, LEVELS]), Amount::Turns, &mut table);
            }
        }
        println!("{profile}\n{}", table.shown(&rows));
        assert_eq!(table.wrong, 0, "{profile}: told above");
    }
}
