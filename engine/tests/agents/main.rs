// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that read and write through a TCE cache while threads map and unmap: they never find what
//! they must not; and if a kill is missing, wrong, early or not waited for, they do.

#[path = "../common/mod.rs"]
mod common;
mod domain;
mod driver;

use common::phb3;
use driver::{Outcome, Plan, drive};
use std::time::Duration;

use tce_engine::backend::mock::TceCache;
use tce_engine::backend::mock::agents::Kind;
use tce_engine::backend::{FillRule, KillCaps};
use tce_engine::kill::KillPolicy;

const SMALL: TceCache = TceCache { entries: 64, line: 4, keep_faults: true };
const NO_NEIGHBOURS: TceCache = TceCache { entries: 1024, line: 1, keep_faults: true };

/// Holds empty entries beside a live one alone.
const BESIDE: TceCache = TceCache { entries: 256, line: 4, keep_faults: false };

fn beside(line: u32) -> KillCaps {
    KillCaps { fill: FillRule::BesideLive { line }, ..KillCaps::PHB3 }
}

/// Few pages are many, so both kinds of kills are used.
const FEW_PAGES: KillCaps = KillCaps { max_page_kills: 12, ..KillCaps::PHB3 };

const STRICT: KillPolicy = KillPolicy::Strict;
/// As many pages as some plans kill one by one, and more than others do.
const DEFERRED: KillPolicy =
    KillPolicy::Deferred { max_pages: 16, max_age: Duration::from_millis(20) };

fn plan(threads: usize, jitter: bool, one_region: bool, calls: u64) -> Plan {
    let cache = TceCache::POWER8;
    let seed = threads as u64 + 10;
    Plan {
        threads,
        cache,
        seed,
        jitter,
        one_region,
        kill: KillCaps::PHB3,
        policy: STRICT,
        pace: 10,
        calls,
    }
}

#[track_caller]
fn clean(plan: Plan) {
    let Outcome { calls, accesses, judged, debts, violations } = drive(plan);
    assert!(violations.is_empty(), "after {calls} calls: {}", violations[0]);
    assert_eq!(calls, plan.calls);
    let least = calls * (plan.pace - 1);
    assert!(accesses >= least && judged > accesses / 4, "{accesses} accesses, {judged} judged");
    let owed = debts.pages;
    println!(
        "{} threads: {calls} calls, {accesses} accesses, {judged} judged, {owed} pages owed in {}",
        plan.threads, debts.retirements
    );
}

/// Plans of so many calls each: twelve.
fn plans(policy: KillPolicy, calls: u64) -> Vec<Plan> {
    let all = [1, 2, 4, 8].into_iter().flat_map(|threads| {
        let basic = Plan { policy, ..plan(threads, false, false, calls) };
        let jitter = Plan { jitter: true, kill: FEW_PAGES, ..basic };
        let one_region = Plan { one_region: true, jitter: threads < 4, ..basic };
        [basic, jitter, one_region]
    });
    all.collect()
}

/// 10^5 calls.
fn nothing_is_stale(policy: KillPolicy) {
    plans(policy, 6_500).into_iter().for_each(clean);
    let basic = Plan { policy, ..plan(2, true, false, 4_000) };
    clean(Plan { cache: SMALL, one_region: true, ..basic });
    clean(Plan { cache: NO_NEIGHBOURS, ..basic });
    for kill in [KillCaps::PHB4, KillCaps::NPU2] {
        clean(Plan { kill, ..basic });
    }
    // Where no empty entry is cached, fills need no kill but that of what was there before.
    let cache = TceCache { keep_faults: false, ..NO_NEIGHBOURS };
    let kill = phb3(false);
    clean(Plan { cache, kill, ..basic });
    clean(Plan { cache, kill, one_region: true, ..basic });
    // Where they are beside live ones, fills kill beside live ones.
    clean(Plan { cache: BESIDE, kill: beside(4), ..basic });
    clean(Plan { cache: BESIDE, kill: beside(4), one_region: true, threads: 4, ..basic });
    clean(Plan { cache: BESIDE, kill: beside(16), jitter: false, threads: 1, ..basic });
}

/// Rules about fills that are not those of the cache.
#[test]
fn fills_that_need_a_kill_and_get_none_are_seen() {
    let keeps_faults = TceCache { keep_faults: true, ..BESIDE };
    for (cache, kill) in [
        (keeps_faults, beside(4)),
        (TceCache { line: 8, ..BESIDE }, beside(2)),
        (BESIDE, phb3(false)),
        (TceCache::POWER8, phb3(false)),
    ] {
        let seen =
            drive(Plan { cache, kill, policy: DEFERRED, ..plan(1, false, false, 1_000_000) });
        let first = seen.violations.first();
        assert_eq!(first.map(|first| first.kind), Some(Kind::StaleEmpty), "{cache:?}, {kill:?}");
    }
}

#[test]
fn strict_kills_leave_nothing_stale() {
    nothing_is_stale(STRICT);
}

#[test]
fn batched_kills_leave_nothing_stale() {
    nothing_is_stale(KillPolicy::Batched);
}

#[test]
fn deferred_kills_leave_nothing_stale() {
    nothing_is_stale(DEFERRED);
}

/// 10^6 calls, or as many as `TCE_AGENTS_CALLS` says, by all threads and plans together, others for each
/// `TCE_AGENTS_SEED`. Of so many, fewer accesses each do.
fn nothing_is_stale_for_long(policy: KillPolicy) {
    let set = |name, usual| std::env::var(name).map_or(usual, |set| set.parse().expect(name));
    let (calls, seed) = (set("TCE_AGENTS_CALLS", 1_000_000_u64), set("TCE_AGENTS_SEED", 0));
    let never = TceCache { keep_faults: false, ..NO_NEIGHBOURS };
    let rules = [(never, phb3(false)), (BESIDE, beside(4))].map(|(cache, kill)| {
        let basic = Plan { policy, ..plan(4, true, false, 0) };
        Plan { cache, kill, ..basic }
    });
    let plans: Vec<_> = plans(policy, 0).into_iter().chain(rules).collect();
    let calls = calls / plans.len() as u64;
    for plan in plans {
        clean(Plan { calls, pace: 3, seed: plan.seed + 100 * seed, ..plan });
    }
}

#[test]
#[ignore = "10^6 calls, half a minute"]
fn strict_kills_leave_nothing_stale_for_long() {
    nothing_is_stale_for_long(STRICT);
}

#[test]
#[ignore = "10^6 calls, half a minute"]
fn batched_kills_leave_nothing_stale_for_long() {
    nothing_is_stale_for_long(KillPolicy::Batched);
}

#[test]
#[ignore = "10^6 calls, half a minute"]
fn deferred_kills_leave_nothing_stale_for_long() {
    nothing_is_stale_for_long(DEFERRED);
}

/// Each seeded bug is seen.
#[cfg(feature = "sabotage")]
mod seeded {
    use tce_engine::sabotage::{Guard, without};

    use super::*;

    /// Calls, at most. A few thousand do.
    const MOST: u64 = 1_000_000;

    fn caught(guard: Guard, plan: Plan) {
        let Outcome { calls, accesses, violations, .. } = without(guard, || drive(plan));
        let (first, policy) = (violations.first(), plan.policy);
        let first = first.unwrap_or_else(|| panic!("{guard:?}: not in {calls} calls, {policy:?}"));
        println!("{guard:?}: {:?} after {calls} calls, {accesses} accesses", first.kind);
        assert!(!first.history.is_empty(), "{first}");
    }

    /// Threads, jitter, one region; with which a bug can be seen that is wrong for a moment only if that
    /// lasts.
    fn shapes(guard: Guard) -> [(usize, bool, bool); 4] {
        let moment = [Guard::ClearFirst, Guard::Fence, Guard::UnpinLast].contains(&guard);
        [(1, true, false), (2, moment, false), (2, moment, true), (4, true, false)]
    }

    #[test]
    fn all_are_caught() {
        for guard in Guard::KILLS.into_iter().filter(|guard| !Guard::DEBTS.contains(guard)) {
            for (threads, jitter, one_region) in shapes(guard) {
                caught(guard, plan(threads, jitter, one_region, MOST));
            }
        }
    }

    #[test]
    fn those_of_debts_are_caught() {
        for guard in Guard::DEBTS {
            for (threads, jitter, one_region) in shapes(guard) {
                let plan = Plan { policy: DEFERRED, ..plan(threads, jitter, one_region, MOST) };
                match guard {
                    Guard::DebtMark => {
                        let cache = TceCache { keep_faults: false, ..NO_NEIGHBOURS };
                        caught(guard, Plan { cache, kill: phb3(false), ..plan });
                    }
                    // All few pages wait for the end of a batch.
                    Guard::DebtAll => caught(guard, plan),
                    _ => {
                        caught(guard, plan);
                        caught(guard, Plan { policy: KillPolicy::Batched, ..plan });
                    }
                }
            }
        }
    }
}
