// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that read and write through a TCE cache while threads map and unmap: they never find what
//! they must not; and if a kill is missing, wrong, early or not waited for, they do.

#[path = "../common/mod.rs"]
mod common;
mod domain;
mod driver;

use driver::{Outcome, Plan, drive};
use tce_engine::backend::mock::TceCache;

const SMALL: TceCache = TceCache { entries: 64, line: 4 };
const NO_NEIGHBOURS: TceCache = TceCache { entries: 1024, line: 1 };

fn plan(threads: usize, cache: TceCache, jitter: bool, calls: u64) -> Plan {
    Plan { threads, cache, seed: threads as u64 + 10, jitter, calls }
}

#[track_caller]
fn clean(plan: Plan) {
    let Outcome { calls, accesses, judged, violations } = drive(plan);
    assert!(violations.is_empty(), "after {calls} calls: {}", violations[0]);
    assert_eq!(calls, plan.calls);
    assert!(accesses >= calls * 9 && judged > accesses / 4, "{accesses} accesses, {judged} judged");
    println!("{} threads: {calls} calls, {accesses} accesses, {judged} judged", plan.threads);
}

#[test]
fn strict_kills_leave_nothing_stale() {
    for threads in [1, 2, 4, 8] {
        for jitter in [false, true] {
            clean(plan(threads, TceCache::POWER8, jitter, 10_000));
        }
    }
    clean(plan(2, SMALL, false, 10_000));
    clean(plan(4, NO_NEIGHBOURS, true, 10_000));
}

#[test]
#[ignore = "10^6 calls, half a minute"]
fn strict_kills_leave_nothing_stale_in_a_million_calls() {
    for threads in [1, 2, 4, 8] {
        for jitter in [false, true] {
            clean(plan(threads, TceCache::POWER8, jitter, 125_000));
        }
    }
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
            for (threads, jitter) in [(1, true), (2, moment), (4, true)] {
                let plan = plan(threads, TceCache::POWER8, jitter, MOST);
                let Outcome { calls, accesses, violations, .. } = without(guard, || drive(plan));
                let first = violations.first();
                let first = first.unwrap_or_else(|| panic!("{guard:?}: not in {calls} calls"));
                println!("{guard:?}: {:?} after {calls} calls, {accesses} accesses", first.kind);
                assert!(!first.history.is_empty(), "{first}");
            }
        }
    }
}
