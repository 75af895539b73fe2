// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench dma`, `cost`, `limits`, `hazards`, `sharing`, `teardown`, `churn` and `policies` as a user calls them, on
//! a machine without VFIO.

use std::time::Duration;

use crate::common::{bench, interrupted, misfits, refused, text};
use serde_json::Value;

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
        (
            &["limits", "--sizes", "64K,5000"],
            "'5000' is no size of a table; accepted: multiples of 4K",
        ),
        (&["limits", "--sizes", "0"], "'0' is no size of a table"),
        (&["limits", "--sizes", "4K,"], "a size is empty"),
        (&["limits", "--sizes", "1P"], "more than the"),
        (&["limits", "--repeat", "0"], "from 1 to 10000"),
        (&["hazards", "--trap", "bear"], "no trap \"bear\"; there are failed-create, "),
        (&["hazards", "--profile", "k3_1"], "k3_1"),
        (&["sharing", "--groups", "1,257"], "from 1 to 256"),
        (&["teardown", "--windows", "3G"], "3G is no power of two from 1G to 1P"),
        (
            &["policies", "ring", "--policy", "lazy"],
            "'lazy' is no policy; accepted: strict, batched",
        ),
        (
            &["policies", "bear"],
            "'bear' is no workload; accepted: ring, block, random, the name of a trace",
        ),
        (&["stale", "bear"], "'bear' is no workload; accepted: ring, block, random"),
        (&["policies", "--fill", "always,beside-live=3"], "'beside-live=3' is no rule for fills"),
        (&["policies", "--platform", "ioda1"], "accepted: phb3, phb4, phb5"),
        (&["policies", "--svg", "-", "--json", "-"], "--json and --svg both name '-'"),
        (&["policies", "--kill-cost", "1,2"], "is no cost of kills"),
        (&["--policy", "deferred", "--backend", "mock-kernel"], "--policy is of the mock's kills"),
        (&["--policy", "batched=1us", "--backend", "mock"], "a run has no clock of a trace"),
        (&["replay", "a", "--policy", "deferred=0"], "'deferred=0' is no policy"),
        (&["churn", "--rounds", "0"], "from 1 to 1000000"),
        (&["churn", "--window", "2M"], "--window 2M is 32 pages of 64K; accepted: 4M to 256G"),
        (&["churn", "--window", "5M"], "not a power of two"),
        (&["churn", "--window", "4M", "--standing", "17"], "accepted: 2 to 16"),
        (&["churn", "--vfio-groups", "1,2,3"], "--vfio-groups names 3; accepted: two groups"),
        (&["churn", "--profile", "k3_1"], "k3_1"),
        (&["churn", "--detach", "ignore"], "ignore"),
        (&["churn", "--backend", "mock", "--profile", "k6_4"], "is of a simulated kernel"),
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

#[test]
fn limits_prints_a_table_or_a_document_or_neither() {
    let small = ["limits", "--sizes", "4K,64K", "--repeat", "1"];
    let with = |extra: &[&str]| bench(&[&small[..], extra].concat());
    let out = with(&[]);
    let table = text(&out.stdout);
    assert!(out.status.success() && out.stderr.is_empty(), "{}", text(&out.stderr));
    assert!(table.contains("store, portable") && table.contains("memcpy"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colour outside a terminal");

    let out = with(&["--json", "-"]);
    let doc: Value = serde_json::from_slice(&out.stdout).expect("one document");
    assert_eq!(doc["schema"], "tce-bench.limits/1");
    assert_eq!((&doc["run"]["complete"], &doc["repeat"]), (&Value::from(true), &Value::from(1)));
    let sizes: Vec<_> = doc["sizes"].as_array().unwrap().iter().map(|s| &s["bytes"]).collect();
    assert_eq!(sizes, [4096, 65536]);

    let out = with(&["--quiet"]);
    assert!(out.status.success() && out.stdout.is_empty());
    assert_eq!(with(&["--json", "/dev/full"]).status.code(), Some(1));
}

#[test]
fn limits_that_are_interrupted_tell_what_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("partial.json");
    let args = ["limits", "--sizes", "4K,64K", "--repeat", "10000", "--json"];
    assert_eq!(interrupted(&args, &file, Duration::from_millis(300)), Some(130));
    let doc: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(doc["run"]["complete"], false);
}

/// Its document follows its schema, and says so of itself.
#[test]
fn documents_follow_their_schemas() {
    for (schema, args) in [
        ("hazards", &["hazards", "--profile", "k6_11", "--trap", "detach", "--trap", "closed"][..]),
        ("sharing", &["sharing", "--groups", "1,3"]),
        ("teardown", &["teardown", "--windows", "1G", "--levels", "2", "--rounds", "2"]),
        ("policies", &["policies", "--calls", "2000", "--repeat", "1", "--kill-cost", "1,2,3"]),
        ("policies", &["policies", "block", "--calls", "2000", "--groups", "3", "--one-handle"]),
        ("churn", &["churn", "--backend", "mock", "--window", "16M", "--rounds", "3"]),
        ("churn", &["churn", "--profile", "k6_11", "--window", "16M", "--rounds", "3"]),
        ("churn", &["churn", "--profile", "k6_11", "--detach", "refuse", "--window", "4M"]),
        ("churn", &["churn", "--profile", "k4_9", "--window", "16M", "--rounds", "3"]),
    ] {
        let out = bench(&[args, &["--json", "-"]].concat());
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        let doc: Value = serde_json::from_slice(&out.stdout).expect("one document");
        let errors = misfits(schema, &doc);
        assert!(errors.is_empty(), "{args:?}: {errors:?}");
        assert_eq!(doc["verified"], true, "{doc:#}");
    }
}

#[test]
fn churn_says_what_it_found() {
    let churn = ["churn", "--profile", "k6_11", "--window", "16M", "--rounds", "3"];
    let out = bench(&churn);
    let table = text(&out.stdout);
    assert!(out.status.success() && out.stderr.is_empty(), "{}", text(&out.stderr));
    assert!(table.contains("mock kernel k6_11 on phb3: simulated, not hardware"), "{table}");
    assert!(table.contains("3 of 3 rounds; 3 attached, 3 detached\n"), "{table}");
    assert!(
        table.contains("in 3 detaches, during each of which the devices of group 0"),
        "{table}"
    );
    assert!(table.contains("lost 0, stray 0, reached from outside 0\n"), "{table}");
    assert!(table.ends_with("verified: true\n"), "{table}");
    let out = bench(&[&churn[..], &["--quiet"]].concat());
    assert!(out.status.success() && out.stdout.is_empty());
}

#[test]
fn churn_that_is_interrupted_tells_what_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("partial.json");
    let args = ["churn", "--profile", "k6_11", "--rounds", "100000", "--json"];
    assert_eq!(interrupted(&args, &file, Duration::from_millis(500)), Some(130));
    let doc: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(doc["run"]["complete"], false);
    // What was not done is not right; nor was anything wrong.
    assert_eq!((&doc["verified"], &doc["lost"]), (&Value::from(false), &Value::from(0)));
    assert_eq!(doc["first_difference"], Value::Null, "{doc:#}");
}

#[test]
fn policies_prints_a_table_and_writes_a_plot() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plot.svg");
    let small = ["policies", "ring", "--calls", "2000", "--repeat", "1", "--platform", "phb3"];
    let with = |extra: &[&str]| bench(&[&small[..], extra].concat());
    let out = with(&["--svg", file.to_str().unwrap()]);
    let table = text(&out.stdout);
    assert!(out.status.success() && out.stderr.is_empty(), "{}", text(&out.stderr));
    for words in ["mock: software PHB, not hardware", "deferred=256,10ms", "beside-live=16"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(table.ends_with("verified: true\n"), "{table}");
    let plot = std::fs::read_to_string(&file).unwrap();
    // strict once, the others under two rules.
    assert_eq!((plot.matches("<circle").count(), plot.starts_with("<svg")), (7, true), "{plot}");
    let out = with(&["--svg", "-"]);
    assert!(text(&out.stdout).starts_with("<svg"));
    for option in ["--svg", "--json"] {
        let error = text(&with(&[option, "/dev/full", "-q"]).stderr);
        assert_eq!(error, "error: cannot write '/dev/full': No space left on device\n");
        assert!(text(&with(&[option, "/nonexistent/x"]).stderr).contains("does not exist"));
    }
    assert!(refused(&["policies", "no/such.tce"], 1).contains("no/such.tce: cannot be read"));
}

#[test]
fn policies_that_are_interrupted_tell_what_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("partial.json");
    let args = ["policies", "ring", "--repeat", "1000", "--json"];
    assert_eq!(interrupted(&args, &file, Duration::from_millis(500)), Some(130));
    let doc: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((&doc["run"]["complete"], &doc["verified"]), (&false.into(), &false.into()));
    assert_eq!(doc["first_mismatch"], Value::Null, "{doc:#}");
}

/// The policy is a part of what a result says of its work.
#[test]
fn runs_and_replays_take_a_policy() {
    let trace =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads/traces/boot-ddw-fallback.tce.zst");
    let run = ["--backend", "mock", "--window", "64M", "--repetitions", "2", "--warmup", "0s"];
    for policy in ["strict", "batched=7", "deferred=64", "deferred=64,1ms"] {
        let phases = ["--phase", "ring", "--phase", "single", "--threads", "2", "--groups", "3"];
        for args in [&[&run[..], &phases].concat()[..], &["replay", trace]] {
            let out = bench(&[args, &["--policy", policy, "--json", "-"]].concat());
            assert!(out.status.success(), "{args:?} {policy}: {}", text(&out.stderr));
            let doc: Value = serde_json::from_slice(&out.stdout).expect("one document");
            assert_eq!(
                (&doc["verified"], &doc["config"]["policy"]),
                (&true.into(), &policy.into())
            );
        }
    }
    let args = [&run[..], &["--policy", "deferred", "--phase", "bulk", "--phase", "ring"]].concat();
    let out = text(&bench(&args).stdout);
    assert!(
        out.contains("kills, deferred=256: asked") && out.contains("strict were: bulk"),
        "{out}"
    );
}
