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

fn written(lines: &[&str]) -> Script {
    let text = format!("{HEADER}\n{}\n", lines.join("\n"));
    let mut script = Script::new(TraceFile::read("t.tce", text.as_bytes()).unwrap()).unwrap();
    script.on_vcpus();
    script
}

fn config(threads: u32, loops: u32) -> StaleConfig {
    StaleConfig {
        trace: "mixed".into(),
        policies: vec![
            Policy::Strict,
            Policy::Batched(Some(Batch::Calls(16))),
            Policy::Deferred { max_pages: 64, max_age: None },
        ],
        fills: vec![Fill::Always, Fill::Never],
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
    for row in rows(config, script) {
        assert_eq!(row.first_violations, Vec::<String>::new());
        assert_eq!(row.first_mismatch, None);
        assert!(row.verified && row.loops == u64::from(config.loops), "{row:?}");
        assert_eq!(row.calls, u64::from(config.loops) * calls(script), "{row:?}");
        assert!(row.accesses >= row.calls * 2 && row.judged > row.accesses / 4, "{row:?}");
        assert!(row.entries > 0 && row.register_stores > 0, "{row:?}");
        assert_eq!(row.policy.starts_with("strict"), row.most_held_back == 0, "{row:?}");
    }
}

fn calls(script: &Script) -> u64 {
    script.steps.iter().filter(|step| step.call.kind().is_some()).count() as u64
}

#[test]
fn a_recorded_guest_leaves_nothing_stale_under_any_policy() {
    let script = mixed(6_000);
    assert!(script.vcpus > 1);
    clean(&config(1, 1), &script);
    clean(&config(2, 3), &script);
    let small = TceCache { entries: 64, line: 4, ..TceCache::POWER8 };
    clean(&StaleConfig { cache: small, groups: 2, ..config(2, 2) }, &script);
    clean(&StaleConfig { platform: Platform::Phb4, ..config(1, 1) }, &script);
}

#[test]
#[cfg(feature = "sabotage")]
fn explore() {
    use tce_engine::sabotage::{Guard, without};
    let script = mixed(100_000);
    for guard in Guard::KILLS.into_iter().filter(|g| ![Guard::ClearFirst, Guard::Kill, Guard::KillFill].contains(g)) {
        for (threads, groups) in [(2, 2)] {
            let config = StaleConfig { groups, ..config(threads, 2) };
            for policy in &config.policies {
                for fill in &config.fills {
                    let ran = std::panic::catch_unwind(|| {
                        without(guard, || {
                            row(&config, &script, (*policy, *fill), &Progress::hidden()).unwrap().0
                        })
                    });
                    let Ok(row) = ran else {
                        println!("{guard:?} {threads} {policy} {fill}: PANIC");
                        continue;
                    };
                    let first = row
                        .first_violations
                        .first()
                        .map(|f| f.split(':').next().unwrap().to_owned());
                    println!(
                        "{guard:?} {threads} {} {}: {first:?} after {} {:?}",
                        row.policy, row.fill, row.calls, row.first_mismatch
                    );
                }
            }
        }
    }
}
