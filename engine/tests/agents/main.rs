// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that read and write through a TCE cache while threads map and unmap: they never find what
//! they must not; and if a kill is missing, wrong, early or not waited for, they do.

#[path = "../common/mod.rs"]
mod common;
mod driver;

use driver::{Outcome, Plan, drive};
use tce_engine::backend::mock::TceCache;

const SMALL: TceCache = TceCache { entries: 64, line: 4 };
const NO_NEIGHBOURS: TceCache = TceCache { entries: 1024, line: 1 };

fn plan(threads: usize, cache: TceCache, calls: u64) -> Plan {
    Plan { threads, cache, seed: threads as u64 + 10, calls }
}

#[track_caller]
fn clean(plan: Plan) {
    let Outcome { calls, accesses, judged, violations } = drive(plan);
    assert!(violations.is_empty(), "after {calls} calls: {}", violations[0]);
    assert_eq!(calls, plan.calls);
    assert!(accesses >= calls / 2 && judged > accesses / 4, "{accesses} accesses, {judged} judged");
}

#[test]
fn strict_kills_leave_nothing_stale() {
    for threads in [1, 2, 4, 8] {
        clean(plan(threads, TceCache::POWER8, 20_000));
    }
    clean(plan(2, SMALL, 10_000));
    clean(plan(2, NO_NEIGHBOURS, 10_000));
}

/// Minutes on a busy machine.
#[test]
#[ignore = "10^6 calls"]
fn strict_kills_leave_nothing_stale_in_a_million_calls() {
    for threads in [1, 2, 4, 8] {
        clean(plan(threads, TceCache::POWER8, 250_000));
    }
}

/// Each seeded bug is seen.
#[cfg(feature = "sabotage")]
mod seeded {
    use tce_engine::sabotage::{Guard, without};

    use super::*;

    const MOST: u64 = 1_000_000;

    fn caught(guard: Guard) {
        let found = without(guard, || drive(plan(2, TceCache::POWER8, MOST)));
        let Outcome { calls, violations, .. } = &found;
        let first = violations.first();
        let first = first.unwrap_or_else(|| panic!("{guard:?}: nothing found in {calls} calls"));
        println!("{guard:?}: {:?} after {calls} calls, {} accesses", first.kind, found.accesses);
        println!("{first}");
        assert!(!first.history.is_empty(), "{first}");
    }

    #[test]
    fn all_ten_are_caught() {
        for guard in Guard::KILLS {
            let began = std::time::Instant::now();
            caught(guard);
            println!("{guard:?}: {:?}", began.elapsed());
        }
    }
}
