// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that read and write through a TCE cache while threads map and unmap: they never find what
//! they must not; and if a kill is missing, wrong, early or not waited for, they do.

#[path = "../common/mod.rs"]
mod common;
mod domain;
mod driver;

use driver::{Outcome, Plan, drive};
use tce_engine::backend::KillCaps;
use tce_engine::backend::mock::TceCache;

const SMALL: TceCache = TceCache { entries: 64, line: 4, keep_faults: true };
const NO_NEIGHBOURS: TceCache = TceCache { entries: 1024, line: 1, keep_faults: true };

/// Few pages are many, so both kinds of kills are used.
const FEW_PAGES: KillCaps = KillCaps { max_page_kills: 12, ..KillCaps::PHB3 };

fn plan(threads: usize, jitter: bool, one_region: bool, calls: u64) -> Plan {
    let cache = TceCache::POWER8;
    let seed = threads as u64 + 10;
    Plan { threads, cache, seed, jitter, one_region, kill: KillCaps::PHB3, calls }
}

#[track_caller]
fn clean(plan: Plan) {
    let Outcome { calls, accesses, judged, violations } = drive(plan);
    assert!(violations.is_empty(), "after {calls} calls: {}", violations[0]);
    assert_eq!(calls, plan.calls);
    assert!(accesses >= calls * 9 && judged > accesses / 4, "{accesses} accesses, {judged} judged");
    println!("{} threads: {calls} calls, {accesses} accesses, {judged} judged", plan.threads);
}

/// Plans of so many calls each: twelve.
fn plans(calls: u64) -> Vec<Plan> {
    let all = [1, 2, 4, 8].into_iter().flat_map(|threads| {
        let basic = plan(threads, false, false, calls);
        let jitter = Plan { jitter: true, kill: FEW_PAGES, ..basic };
        let one_region = Plan { one_region: true, jitter: threads < 4, ..basic };
        [basic, jitter, one_region]
    });
    all.collect()
}

#[test]
fn strict_kills_leave_nothing_stale() {
    plans(7_000).into_iter().for_each(clean);
    let basic = plan(2, true, false, 4_000);
    clean(Plan { cache: SMALL, one_region: true, ..basic });
    clean(Plan { cache: NO_NEIGHBOURS, ..basic });
    for kill in [KillCaps::PHB4, KillCaps::NPU2] {
        clean(Plan { kill, ..basic });
    }
}

#[test]
#[ignore = "10^6 calls, half a minute"]
fn strict_kills_leave_nothing_stale_in_a_million_calls() {
    plans(84_000).into_iter().for_each(clean);
}

/// Each seeded bug is seen.
#[cfg(feature = "sabotage")]
mod seeded {
    use tce_engine::sabotage::{Guard, without};

    use super::*;

    /// Calls, at most. A few thousand do.
    const MOST: u64 = 1_000_000;

    #[test]
    fn all_ten_are_caught() {
        for guard in Guard::KILLS {
            // What is only wrong for a moment needs a moment that lasts.
            let moment = [Guard::ClearFirst, Guard::Fence, Guard::UnpinLast].contains(&guard);
            for (threads, jitter, one_region) in
                [(1, true, false), (2, moment, false), (2, moment, true), (4, true, false)]
            {
                let plan = plan(threads, jitter, one_region, MOST);
                let Outcome { calls, accesses, violations, .. } = without(guard, || drive(plan));
                let first = violations.first();
                let first = first.unwrap_or_else(|| panic!("{guard:?}: not in {calls} calls"));
                println!("{guard:?}: {:?} after {calls} calls, {accesses} accesses", first.kind);
                assert!(!first.history.is_empty(), "{first}");
            }
        }
    }
}
