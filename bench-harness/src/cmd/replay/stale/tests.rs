// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::path::Path;

use tce_engine::backend::mock::TceCache;
use tce_engine::platform::Platform;

use super::*;
use crate::policy::Batch;
use crate::trace::{HEADER, TraceFile};

/// The beginning of a recorded guest with a NIC and a disk: it boots, and then works.
fn mixed(steps: usize) -> Script {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads/traces/mixed.tce.zst");
    let mut script = Script::load(Path::new(path)).unwrap();
    script.steps.truncate(steps);
    script.when.truncate(steps);
    script.on_vcpus();
    script
}

fn config(threads: u32, loops: u32) -> StaleConfig {
    StaleConfig {
        workload: "mixed".into(),
        calls: 1,
        policies: vec![
            Policy::Strict,
            Policy::Batched(Some(Batch::Calls(16))),
            Policy::Deferred { max_pages: 64, max_age: None },
        ],
        fills: vec![Fill::Always, Fill::BESIDE_LIVE, Fill::Never],
        devices: 2,
        pace: 2,
        threads,
        loops,
        groups: 1,
        cache: TceCache::POWER8,
        platform: Platform::Phb3,
        seed: threads.into(),
        json: None,
        label: None,
        quiet: true,
    }
}

fn rows(config: &StaleConfig, script: &Script) -> Vec<Row> {
    let each = config.policies.iter().flat_map(|p| config.fills.iter().map(|fill| (*p, *fill)));
    each.map(|rules| row(config, script, rules, &Progress::hidden()).unwrap().0).collect()
}

#[track_caller]
fn clean(config: &StaleConfig, script: &Script) {
    let calls = script.steps.iter().filter(|step| step.call.kind().is_some()).count() as u64;
    for row in rows(config, script) {
        assert_eq!(row.first_violations, Vec::<String>::new());
        assert_eq!(row.first_mismatch, None);
        assert!(row.verified && row.loops == u64::from(config.loops), "{row:?}");
        assert_eq!(row.calls, row.loops * calls, "{row:?}");
        assert!(row.accesses >= row.calls * 2 && row.judged > row.accesses / 4, "{row:?}");
        assert!(row.reached > 0 && row.entries > 0 && row.register_stores > 0, "{row:?}");
    }
}

#[test]
fn a_recorded_guest_leaves_nothing_stale_under_any_policy() {
    let script = mixed(6_000);
    assert!(script.vcpus > 1);
    clean(&config(1, 1), &script);
    clean(&config(2, 3), &script);
    let cache = TceCache { entries: 64, line: 4, ..TceCache::POWER8 };
    clean(&StaleConfig { cache, groups: 2, ..config(2, 2) }, &script);
    clean(&StaleConfig { platform: Platform::Phb4, ..config(1, 1) }, &script);
    let held =
        rows(&config(1, 1), &script).iter().map(|row| row.most_held_back > 0).collect::<Vec<_>>();
    assert_eq!(held, [[false; 3], [true; 3], [true; 3]].concat());
}

#[test]
fn windows_that_come_and_go_and_calls_that_are_refused_are_watched() {
    let lines = [
        HEADER,
        "0 window-create 0x80000000 0x0 12 1024 0 - -",
        "0 window-create 0x80000100 0x0 12 1024 0 - -",
        "1 stuff 0x80000000 0x0 0x0 512 0 0 1",
        "2 put 0x80000100 0x1000 0x5001 1 0 0 1",
        "3 indirect 0x80000000 0x2000 6001,7003,0,8002 4 0 1 1",
        "4 xlate 0x80000000 0x2008 0x6001 1 0 - -",
        "5 put 0x80000000 0x2000 0x99999999000003 1 -4 0 1",
        "6 put 0x90000000 0x2000 0x5003 1 -4 0 1",
        "7 put 0x80000000 0x2000 0xabc0 1 0 0 1",
        "8 get 0x80000000 0x2000 0xabc0 1 0 0 1",
        "9 window-create 0x80000001 0x800000000000000 16 4096 0 0 1",
        "10 put 0x80000001 0x800000000010000 0x70003 1 0 0 1",
        "11 get 0x80000001 0x800000000010000 0x70003 1 0 0 1",
        "12 window-remove 0x80000000 - - - 0 0 5",
        "13 put 0x80000000 0x1000 0x5003 1 -4 0 1",
        "14 window-remove 0x80000001 - - - 0 0 5",
        "15 put 0x80000000 0x1000 0x6003 1 0 0 1",
        "16 window-reset 0x80000100 - - - 0 0 5",
        "17 stuff 0x80000100 0x0 0x9003 8 0 1 1",
        "18 stuff 0x80000100 0x0 0x0 4 0 0 1",
    ];
    let text = lines.join("\n") + "\n";
    let mut script = Script::new(TraceFile::read("t.tce", text.as_bytes()).unwrap()).unwrap();
    script.on_vcpus();
    clean(&config(1, 20), &script);
    clean(&config(3, 20), &script);
}

#[test]
fn random_calls_leave_nothing_stale_under_any_policy() {
    let mut script = guests::script("random", 5_000, 3).unwrap();
    script.on_vcpus();
    assert_eq!((script.vcpus, script.phbs.len()), (4, 1));
    clean(&config(1, 2), &script);
    clean(&config(4, 4), &script);
}

/// Bugs of the engine are seen, each under the policies whose promise it breaks.
#[test]
#[cfg(feature = "sabotage")]
fn kills_that_are_taken_away_are_missed() {
    use tce_engine::sabotage::{Guard, without};

    let mut random = guests::script("random", 200_000, 3).unwrap();
    random.on_vcpus();
    let scripts = [mixed(usize::MAX), random];
    for (guard, policies) in [
        (Guard::Kill, &[0, 1, 2][..]),
        (Guard::KillFill, &[0, 1, 2]),
        (Guard::KillPe, &[0, 1, 2]),
        (Guard::Fence, &[0]),
        (Guard::DebtKill, &[1, 2]),
    ] {
        for (nth, script) in policies.iter().flat_map(|nth| scripts.iter().map(move |s| (nth, s))) {
            let mut config = StaleConfig { fills: vec![Fill::Always], ..config(2, 4) };
            config.policies = vec![config.policies[*nth]];
            let row = without(guard, || rows(&config, script)).remove(0);
            println!("{guard:?}, {}: {} after {} calls", row.policy, row.violations, row.calls);
            assert!(row.violations > 0 && !row.verified, "{guard:?}: {row:?}");
            // With all that happened to the page.
            assert!(row.first_violations[0].contains("\n "), "{row:?}");
        }
    }
}
