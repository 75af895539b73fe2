// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench crash` as a user calls it, on a machine without VFIO.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{bench, fits, interrupted, refused, text, wait_for_handler};
use serde_json::{Value, json};

const TRACE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads/traces/boot-ddw-fallback.tce.zst");

#[test]
fn nothing_is_left_of_what_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("out.json");
    // Each kind of victim once.
    let args = ["crash", "--backend", "mock", "--rounds", "8", "--seed", "0x2a", "--trace", TRACE];
    let out = bench(&[&args[..], &["--json", json.to_str().unwrap()]].concat());
    assert_eq!(
        (out.status.code(), text(&out.stderr).as_str()),
        (Some(0), ""),
        "{}",
        text(&out.stdout)
    );
    let table = text(&out.stdout);
    assert_eq!(table.matches("fresh run verified").count(), 8, "{table}");
    assert!(table.contains("mock: software PHB, not hardware"), "{table}");
    let doc: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    fits("crash", &doc);
    assert_eq!((&doc["verified"], &doc["rounds"]), (&json!(true), &json!(8)));
    assert_eq!(doc["kills"].as_array().unwrap().len(), 8);
    let of = doc["kills_of"].as_object().unwrap();
    assert!(of.len() == 8 && of["replay"] == 1, "{of:?}");
    let beside = &doc["bystander"];
    assert!(beside["turns"].as_u64() >= Some(16), "{beside}");
    assert!(beside["translations"].as_u64() >= Some(16 * 1024), "{beside}");
}

#[test]
fn what_cannot_be_is_refused_in_a_line() {
    for (args, part) in [
        (&["--rounds", "0"][..], "from 1 to 1000000"),
        (&["--backend", "mock-kernel"], "accepted: mock, vfio or auto"),
        (&["--backend", "mock", "--vfio-groups", "1,2"], "accepted: vfio"),
        (&["--vfio-groups", "1"], "--vfio-groups names 1; accepted: two groups or more"),
        (&["--backend", "vfio", "--trace", "x"], "a replay needs the mock"),
        (&["--patience", "10"], "10"),
    ] {
        let error = refused(&[&["crash"], args].concat(), 2);
        assert!(error.contains(part), "{args:?}: {error}");
    }
    // No group has so high a number.
    let error = refused(&["crash", "--vfio-groups", "4294967294,4294967295"], 4);
    assert!(error.contains("; fix: "), "{error}");
    let error = refused(&["crash", "--json", "/nonexistent/out.json"], 1);
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn a_victim_that_fails_by_itself_is_told() {
    let args = ["crash", "--backend", "mock", "--rounds", "100", "--trace", "/nonexistent.tce"];
    let out = bench(&[&args[..], &["--json", "-"]].concat());
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    let doc: Value = serde_json::from_slice(&out.stdout).unwrap();
    fits("crash", &doc);
    assert_eq!((&doc["verified"], &doc["rounds"]), (&json!(false), &json!(7)));
    let what = doc["failures"][0]["what"].as_str().unwrap();
    assert!(what.starts_with("replay") && what.contains("/nonexistent.tce"), "{what}");
}

#[test]
fn an_interrupt_writes_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("out.json");
    let args = ["crash", "--backend", "mock", "--rounds", "1000000", "-q", "--json"];
    assert_eq!(interrupted(&args, &json, Duration::from_millis(700)), Some(130));
    let doc: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    fits("crash", &doc);
    assert_eq!((&doc["run"]["complete"], &doc["verified"]), (&json!(false), &json!(false)));
    assert_eq!(doc["failures"], json!([]));
}

/// The kills on real containers follow the schema, left nothing, and were made by a clean tree.
#[test]
fn the_baseline_is_valid() {
    let doc = include_str!(
        "../../results/baseline/emulated/qemu10-powernv8-linux6.12-64k/2026-11-30/crash.json"
    );
    let doc: Value = serde_json::from_str(doc).unwrap();
    fits("crash", &doc);
    assert_eq!((&doc["verified"], &doc["rounds"]), (&json!(true), &json!(200)));
    assert_eq!(doc["tool"]["dirty"], false);
    assert!(doc["label"].as_str().unwrap().contains("emulated"), "{}", doc["label"]);
}

/// The bystander is no orphan: it ends with who asks it.
#[test]
fn a_killed_crash_leaves_no_bystander() {
    let args = ["crash", "--backend", "mock", "--rounds", "1000000", "-q"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_tce-bench"))
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_handler(&child);
    std::thread::sleep(Duration::from_millis(300));
    let children = children(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!children.is_empty());
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while children.iter().any(|pid| is_ours(*pid)) {
        assert!(std::time::Instant::now() < deadline, "{children:?} are left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    tasks.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// It is there, and this program: numbers are used again.
fn is_ours(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.starts_with(env!("CARGO_BIN_EXE_tce-bench").as_bytes())
}
