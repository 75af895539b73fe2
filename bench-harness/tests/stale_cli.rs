// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench stale` as a user calls it.

use std::fs;

use crate::common::{bench, fits, interrupted, refused, text};
use serde_json::Value;

const BOOT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads/traces/boot-ddw-fallback.tce.zst");

#[test]
fn a_recorded_boot_leaves_nothing_stale() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("out.json");
    let out = bench(&[
        "stale",
        BOOT,
        "--threads",
        "2",
        "--loops",
        "3",
        "--policy",
        "strict",
        "--policy",
        "deferred=8,1ms",
        "--policy",
        "batched=4",
        "--fill",
        "always,never",
        "--json",
        json.to_str().unwrap(),
    ]);
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
    let table = text(&out.stdout);
    assert!(table.contains("no device found anything stale"), "{table}");
    assert!(table.contains("mock: software PHB, not hardware"), "{table}");
    let doc: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let rows = doc["rows"].as_array().unwrap();
    assert_eq!((&doc["verified"], rows.len()), (&true.into(), 6));
    for row in rows {
        assert_eq!((&row["calls"], &row["loops"]), (&(3 * 546).into(), &3.into()), "{row}");
        assert!(row["judged"].as_u64() > Some(0), "{row}");
    }
    fits("stale", &doc);
}

#[test]
fn an_answer_that_is_not_the_traces_is_named_and_is_exit_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("doctored.tce");
    let lines = "# tce-trace 1\n0 window-create 0x80000000 0x0 12 1024 0 - -\n\
                 1 put 0x80000000 0x1000 0x5003 1 0 0 1\n2 get 0x80000000 0x1000 0x6003 1 0 0 1\n";
    fs::write(&path, lines).unwrap();
    let out = bench(&["stale", path.to_str().unwrap(), "--policy", "strict"]);
    assert_eq!(out.status.code(), Some(1));
    let error = text(&out.stderr);
    let said = format!(
        "error: strict, fill always: {}:4: get 0x80000000 0x1000: expected 0x6003",
        path.display()
    );
    assert!(error.starts_with(&said) && error.lines().count() == 1, "{error}");
    assert!(text(&out.stdout).contains("SOMETHING WAS FOUND"));
}

#[test]
fn what_cannot_be_is_refused_in_a_line() {
    for (args, part) in [
        (&["--loops", "2", "--threads", "3"][..], "accepted: 3 or more, as they are dealt out"),
        (&["--tce-cache", "1000,8"], "'1000,8' is no TCE cache"),
        (&["--tce-cache", "8,16"], "is no TCE cache"),
        (&["--tce-cache", "8,8", "--fill", "beside-live=16"], "accepted: lines that fit in"),
        (&["--platform", "npu2"], "accepted: phb3, phb4, phb5"),
        (&["--threads", "64", "--groups", "5"], "are 320 PEs; accepted: up to 256"),
        (&["--devices", "0"], "from 1 to 16"),
        (&["--policy", "lazy"], "'lazy' is no policy"),
    ] {
        let error = refused(&[&["stale", BOOT], args].concat(), 2);
        assert!(error.contains(part), "{args:?}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().join("nothing.tce");
    fs::write(&nothing, "# tce-trace 1\n1 put 0x80000000 0x1000 0x5003 1 -4 0 1\n").unwrap();
    let error = refused(&["stale", nothing.to_str().unwrap()], 2);
    assert!(error.contains("nothing.tce: no PHB"), "{error}");
    let window = |n: u32, at: &str, entries: u64| {
        format!("{n} window-create 0x8000000{n} {at} 12 {entries} 0 0 1\n")
    };
    for (name, lines, part) in [
        (
            "two",
            window(1, "0x800000000000000", 64) + &window(1, "0x800000000000000", 128),
            ":4: a window at",
        ),
        ("large", window(1, "0x800000000000000", 1 << 25), ":3: 33555456 pages in all windows"),
    ] {
        let path = dir.path().join(name);
        let begin = "# tce-trace 1\n0 window-create 0x80000000 0x0 12 1024 0 - -\n";
        fs::write(&path, begin.to_owned() + &lines).unwrap();
        let error = refused(&["stale", path.to_str().unwrap()], 1);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_interrupt_writes_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("out.json");
    let args = ["stale", BOOT, "--loops", "1000000", "-q", "--json"];
    let code = interrupted(&args, &json, std::time::Duration::from_millis(500));
    assert_eq!(code, Some(130));
    let doc: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!((&doc["run"]["complete"], &doc["verified"]), (&false.into(), &false.into()));
}
