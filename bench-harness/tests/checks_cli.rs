// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench dma` and `tce-bench cost` as a user calls them, on a machine without VFIO.

mod common;

use common::{bench, text};
use serde_json::Value;

/// One line on standard error, nothing else, and the code.
fn refused(args: &[&str], code: i32) -> String {
    let out = bench(args);
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {error}");
    assert!(error.starts_with("error: ") && error.lines().count() == 1, "{args:?}: {error}");
    assert!(out.stdout.is_empty());
    error
}

#[test]
fn dma_without_devices_is_exit_4() {
    // No group has so high a number.
    let error = refused(&["dma", "--vfio-groups", "4294967295"], 4);
    assert!(error.contains("no edu device") && error.contains("; fix: "), "{error}");
}

#[test]
fn wrong_usage_is_exit_2() {
    for (args, part) in [
        (&["dma", "--vfio-groups", "0,x"][..], "'x' is no group number"),
        (&["dma", "--groups", "3"], "--groups"),
        (&["cost", "--pages", "0"], "accepted: 1 to 4096"),
        (&["cost", "--pages", "1,,8"], "'' is no number of pages"),
        (&["cost", "--repeat", "0"], "from 1 to 10000"),
        (&["cost", "--groups", "2", "--vfio-groups", "5"], "--vfio-groups names 1"),
    ] {
        let error = refused(args, 2);
        assert!(error.contains(part), "{args:?}: {error}");
    }
}

#[test]
fn cost_in_ns_is_never_judged() {
    let args = ["cost", "--backend", "mock-kernel", "--repeat", "1", "--pages", "1,8"];
    let out = bench(&args);
    let table = text(&out.stdout);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(table.contains("mock: software PHB, not hardware"), "{table}");
    assert!(table.contains("ns per page") && !table.contains("instructions per"), "{table}");

    let args = ["cost", "--backend", "mock", "--repeat", "1", "--groups", "2", "--json", "-"];
    let out = bench(&args);
    let doc: Value = serde_json::from_slice(&out.stdout).expect("one document");
    assert_eq!((&doc["unit"], &doc["passed"]), (&Value::from("ns"), &Value::Null));
    assert_eq!((&doc["kernel"], &doc["groups"]), (&Value::Null, &Value::from(2)));
    assert_eq!(doc["shapes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn icount_wants_a_machine_that_counts() {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !line.contains("tce.icount=") {
        let error = refused(&["cost", "--icount"], 4);
        assert!(error.contains("--icount") && error.contains("; fix: "), "{error}");
    }
}
