// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::cli::{self, Invocation};

/// The document of a command line.
fn churned(line: &str) -> Doc {
    let line = format!("tce-bench churn --window 16M --rounds 8 --calls 16 {line}");
    let config = match cli::parse(line.split_whitespace()) {
        Ok(Invocation::Churn(config)) => config,
        other => panic!("{line}: {other:?}"),
    };
    let machine = Machine::open(&config.run, &mut Vec::new()).unwrap();
    let plan = Plan::new(&config.run, &machine, None).unwrap();
    measure(&config, &machine, &plan).unwrap()
}

/// What was wrong, if anything.
fn well(doc: &Doc) -> bool {
    doc.verified == Some(true)
        && (doc.lost, doc.stray, doc.reached) == (0, 0, 0)
        && doc.first_difference.is_none()
        && doc.rounds.done == 8
}

#[test]
fn nothing_is_lost_on_the_mock_whatever_the_policy() {
    for detach in ["refuse", "replay", "isolate"] {
        let doc = churned(&format!("--backend mock --detach {detach}"));
        assert!(well(&doc), "{doc:#?}");
        assert_eq!((doc.rounds.attached, doc.rounds.detached), (8, 8));
        // No kernel, so nothing is emptied and nothing has to be replayed or refused.
        assert_eq!((doc.replay.entries, doc.rounds.detach_refused), (0, 0));
        // Both groups in the first half of a round, then each by itself, and all in the end.
        let pages = doc.config.pages;
        assert!(doc.verification.translations > pages * (8 * 3 + 1), "{doc:#?}");
        let calls: u64 = doc.results[2..].iter().map(|result| result.count).sum();
        assert!(calls >= 4 * 16 * 8, "{calls}");
    }
}

#[test]
fn a_kernel_that_empties_windows_is_replayed_each_time() {
    for profile in ["k4_2", "k4_12", "k5_0", "k6_4", "k6_11"] {
        let doc = churned(&format!("--profile {profile} --detach replay"));
        assert!(well(&doc), "{doc:#?}");
        assert_eq!((doc.rounds.attached, doc.rounds.detached, doc.replay.pauses), (8, 8, 8));
        assert!(doc.replay.entries >= 8 * doc.config.standing && doc.replay.ioctls > 8, "{doc:#?}");
        // A table is charged once, however many groups share it.
        assert!(doc.locked.alone_bytes.is_some(), "{doc:#?}");
        assert_eq!(doc.locked.alone_bytes, doc.locked.shared_bytes);
        let books = doc.verification.books.as_ref().unwrap();
        assert_eq!(books.comparisons, 4 + 8 * 2 + 3);
    }
}

#[test]
fn where_a_kernel_might_empty_windows_refuse_refuses_and_the_group_stays() {
    let doc = churned("--profile k6_11 --detach refuse");
    assert!(well(&doc), "{doc:#?}");
    let rounds = &doc.rounds;
    assert_eq!((rounds.attached, rounds.detached, rounds.detach_refused), (1, 0, 8));
    assert!(rounds.refusal.as_ref().unwrap().contains("shares its windows"), "{doc:#?}");
    assert_eq!(doc.replay, result::Replay::default());
}

#[test]
fn a_kernel_that_forgets_late_joiners_is_not_asked_to_take_one() {
    let doc = churned("--profile k4_9");
    assert!(well(&doc), "{doc:#?}");
    assert_eq!((doc.rounds.attached, doc.rounds.attach_refused), (0, 8));
    assert!(doc.rounds.refusal.as_ref().unwrap().contains("kind of this one (4.9)"), "{doc:#?}");
    assert!(doc.locked.shared_bytes.is_none());
}

#[test]
fn a_kernel_that_shares_nothing_empties_nothing() {
    // Even where a late joiner would be forgotten: it has a container of its own.
    for profile in ["k4_9", "k5_0", "k6_11"] {
        let doc = churned(&format!("--profile {profile} --detach isolate"));
        assert!(well(&doc), "{doc:#?}");
        assert_eq!((doc.rounds.attached, doc.rounds.detached, doc.replay.pauses), (8, 8, 0));
        // What the one that comes is given: all that is mapped.
        assert!(doc.replay.entries >= 8 * doc.config.standing && doc.replay.ioctls > 8, "{doc:#?}");
        // A table each.
        assert!(doc.locked.shared_bytes > doc.locked.alone_bytes, "{doc:#?}");
    }
}

/// Without the replay, what the kernel has wiped is missed in the first round.
#[cfg(feature = "sabotage")]
#[test]
fn a_replay_that_is_taken_away_is_missed() {
    use tce_engine::sabotage::{Guard, without};
    let doc = without(Guard::Replay, || churned("--profile k6_11"));
    assert_eq!((doc.verified, doc.rounds.done), (Some(false), 1), "{doc:#?}");
    assert!(doc.lost >= doc.config.standing, "{doc:#?}");
    let first = doc.first_difference.unwrap();
    assert!(first.starts_with("after the detach: group 0 at 0x0: expected page 0"), "{first}");
    // A kernel that empties nothing needs none.
    let doc = without(Guard::Replay, || churned("--profile k6_4"));
    assert!(well(&doc), "{doc:#?}");
}

/// Those of `results/baseline` follow the schema, were right, and come from a clean tree.
#[test]
fn baselines_are_valid() {
    let schema = include_str!("../../../../results/schema/tce-bench.churn-1.schema.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/baseline/emulated");
    let mut folders = vec![std::path::PathBuf::from(root)];
    let mut policies = std::collections::BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !name.starts_with("churn-") || !name.ends_with(".json") {
                continue;
            }
            let doc = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let errors: Vec<_> = schema.iter_errors(&doc).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
            assert_eq!(doc["verified"], true, "{}", path.display());
            assert_eq!(doc["tool"]["dirty"], false, "{}", path.display());
            assert!(doc["label"].as_str().unwrap().contains("emulated"), "{}", path.display());
            assert_eq!(doc["rounds"]["done"], 1000, "{}", path.display());
            assert_eq!(doc["config"]["pages"], 1 << 16, "{}", path.display());
            policies.insert(doc["config"]["detach"].as_str().unwrap().to_owned());
        }
    }
    assert!(policies.len() > 1, "{policies:?}");
}
