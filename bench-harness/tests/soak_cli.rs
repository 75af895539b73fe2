// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench soak` as a user calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{bench, fits, interrupted, refused, text};
use serde_json::Value;

#[test]
fn calls_are_as_the_model_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("out.json");
    let options = ["--operations", "40k", "--threads", "1,3", "--policy", "strict"];
    let more = ["--policy", "deferred=16", "--seed", "0x2a", "--json", json.to_str().unwrap()];
    let out = bench(&[&["soak"], &options[..], &more[..]].concat());
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
    let table = text(&out.stdout);
    assert!(table.contains("everything was as it has to be"), "{table}");
    assert!(table.contains("mock: software PHB, not hardware"), "{table}");
    let doc: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    fits("soak", &doc);
    let rows = doc["rows"].as_array().unwrap();
    assert_eq!((&doc["verified"], rows.len()), (&true.into(), 6));
    let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("calls"), 40_000);
    // Neither nothing nor most of them.
    assert!((400..8_000).contains(&sum("refused")), "{}", sum("refused"));
    assert!(sum("entries") > 40_000 && sum("audits") > 6);
}

#[test]
fn a_hostile_guest_stays_within_its_bounds() {
    let args = ["soak", "--guest", "--operations", "20k", "--threads", "2", "--json", "-"];
    let out = bench(&args);
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
    let doc: Value = serde_json::from_slice(&out.stdout).unwrap();
    fits("soak", &doc);
    for row in doc["rows"].as_array().unwrap() {
        let guest = &row["guest"];
        assert_eq!((&row["verified"], &row["containers"]), (&true.into(), &"guest".into()));
        for (most, bound) in [
            ("most_windows", "windows_bound"),
            ("most_table_bytes", "table_bytes_bound"),
            ("most_charged_bytes", "charged_bytes_bound"),
        ] {
            let (most, bound) = (guest[most].as_u64().unwrap(), guest[bound].as_u64().unwrap());
            assert!(0 < most && most <= bound, "{guest}");
        }
        assert!(guest["words"].as_u64() > Some(0) && guest["turns_of_others"].as_u64() > Some(0));
    }
    let out = bench(&["soak", "--guest", "--operations", "2k", "--policy", "strict"]);
    let table = text(&out.stdout);
    assert!(table.contains("longest call") && table.contains("windows (bound 4)"), "{table}");
}

#[test]
fn what_cannot_be_is_refused_in_a_line() {
    for (args, part) in [
        (&["--operations", "0"][..], "'0' is no number of operations; accepted: a whole number"),
        (&["--operations", "1.5M"], "'1.5M' is no number of operations"),
        (&["--threads", "1,17"], "from 1 to 16"),
        (&["--threads", "0"], "from 1 to 16"),
        (&["--policy", "lazy"], "'lazy' is no policy"),
        (&["--policy", "batched=32"], "when a batch ends, which is random here; accepted: batched"),
        (&["--machine", "phb9"], "no machine \"phb9\"; there are phb3-4k (4K host pages"),
        (&["--machine", "phb3-tight", "--threads", "1,2"], "--threads 2 on phb3-tight"),
        (&["--seed", "-1"], "'-1' is no seed"),
    ] {
        let error = refused(&[&["soak"], args].concat(), 2);
        assert!(error.contains(part), "{args:?}: {error}");
    }
    let error = refused(&["soak", "--json", "/nonexistent/out.json"], 1);
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn an_interrupt_writes_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    for more in [&[][..], &["--guest"]] {
        let json = dir.path().join(format!("out{}.json", more.len()));
        let args = [&["soak", "--operations", "100G", "-q"], more, &["--json"]].concat();
        assert_eq!(interrupted(&args, &json, Duration::from_millis(300)), Some(130));
        let doc: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        fits("soak", &doc);
        assert_eq!((&doc["run"]["complete"], &doc["verified"]), (&false.into(), &false.into()));
        assert_eq!(doc["rows"][0]["difference"], Value::Null);
    }
}

/// Of the runs that are kept: what they add up to, and that none found anything.
#[test]
fn a_billion_calls_are_in_the_results() {
    let mut calls = 0;
    for file in walk(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../results/baseline/mock"))) {
        let name = file.file_name().unwrap().to_string_lossy();
        if !name.starts_with("soak-") {
            continue;
        }
        let doc: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        fits("soak", &doc);
        let said = ["verified", "run", "tool"].map(|key| &doc[key]);
        assert_eq!(
            (said[0], &said[1]["complete"], &said[2]["dirty"]),
            (&true.into(), &true.into(), &false.into()),
            "{name}"
        );
        let rows = doc["rows"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["difference"].is_null()), "{name}");
        let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
        if doc["config"]["guest"] == false {
            assert!(sum("refused") * 5 <= sum("calls"), "{name}: more than a fifth refused");
            calls += sum("calls");
        }
    }
    assert_eq!(calls, 1_000_000_000);
}

/// All files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
