// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench run` over a kernel's containers: the simulated kernel, and what is said where there is
//! no real one.

use std::time::Duration;

use crate::common::{bench, fits, interrupted, misfits, text};
use serde_json::Value;

/// Says which kernel is simulated; these are what is played unless asked otherwise.
const LABEL: &str = "mock kernel k6_11 on phb3: simulated, not hardware";

/// A run on the simulated kernel that was right, and its document.
fn run(extra: &str) -> Value {
    let mut args = vec!["--backend", "mock-kernel", "--repetitions", "2", "--json", "-"];
    args.extend(extra.split_whitespace());
    let out = bench(&args);
    assert!(out.status.success(), "{extra}: {}", text(&out.stderr));
    let doc: Value = serde_json::from_slice(&out.stdout).expect("one JSON document");
    let errors = misfits("result", &doc);
    assert!(errors.is_empty(), "{extra}: {errors:?}");
    assert_eq!(doc["verified"], true, "{extra}: {}", doc["verification"]);
    assert_eq!(doc["backend"]["kind"], "mock-kernel");
    let label = doc["backend"]["label"].as_str().expect("a label");
    assert!(label.starts_with("mock kernel ") && label.ends_with(": simulated, not hardware"));
    assert_eq!(doc["verification"]["books"]["first_difference"], Value::Null);
    assert_eq!(doc["counters"]["pinned_end_bytes"], 0);
    doc
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

#[test]
fn groups_share_a_container_and_its_table_is_charged_once() {
    let mut charges = Vec::new();
    for groups in [1, 2, 4, 6] {
        let doc = run(&format!("--groups {groups} --window 128M --levels 2"));
        let (counters, checked) = (&doc["counters"], &doc["verification"]);
        let pages = 128 << 20 >> 12;
        assert_eq!(number(&checked["translations"]), 7 * 2 * groups * pages);
        let numbers: Vec<_> = (0..groups).map(Value::from).collect();
        assert_eq!(doc["backend"]["group_numbers"], Value::from(numbers));
        // Attached, registered, created; phases; removed, unregistered, closed.
        assert_eq!(number(&checked["books"]["comparisons"]), groups + 2 + 7 + 3);
        // Where only the engine's own tables will do.
        let skipped: Vec<_> = doc["skipped"].as_array().unwrap().iter().map(|s| &s["id"]).collect();
        assert_eq!(skipped, ["single", "clear"]);
        let (charge, buffer) = (number(&counters["table_charge_bytes"]), 64 << 20);
        assert_eq!(number(&counters["pinned_peak_bytes"]), buffer + charge);
        assert_eq!(
            (number(&counters["kills_asked"]), &doc["results"][0]["limit"]),
            (0, &Value::Null)
        );
        charges.push(charge);
    }
    assert!(charges.iter().all(|c| *c == charges[0]), "{charges:?}");
}

#[test]
fn two_containers_of_two() {
    let doc = run("--groups 4 --containers 2 --window 64M");
    let books = &doc["verification"]["books"];
    assert_eq!(number(&books["comparisons"]), 2 * (2 + 2) + 7 + 2 * 3);
    // The buffer is charged once, each container's table by itself.
    let counters = &doc["counters"];
    let charge = number(&counters["table_charge_bytes"]);
    assert_eq!(number(&counters["pinned_peak_bytes"]), (64 << 20) + charge);
    assert_eq!(charge % 2, 0);
}

#[test]
fn requests_and_what_becomes_of_them() {
    let phases = ["bulk", "checked", "indirect", "exchange", "batch", "ring", "naive"];
    let run_of = |phases: &[&str]| {
        let phases: String = phases.iter().map(|phase| format!(" --phase {phase}")).collect();
        run(&format!("--window 64M --warmup 0s{phases}"))
    };
    let doc = run_of(&phases);
    let of = |id: &str| {
        let results = doc["results"].as_array().unwrap();
        let result = results.iter().find(|r| r["id"] == id).unwrap_or_else(|| panic!("no {id}"));
        let field = |name: &str| number(&result[name]);
        (field("count"), field("tces"), field("requests"), field("ioctls"))
    };
    // Two rounds of 16384 pages, or of 8192 where each is asked for by itself.
    assert_eq!(of("bulk.unmap"), (2, 32768, 2, 2));
    assert_eq!(of("batch.map"), (32, 16384, 16384, 32));
    assert_eq!(of("batch.unmap"), (32, 16384, 16384, 32));
    assert_eq!(of("bulk.map"), (2, 32768, 2, 2));
    assert_eq!(of("naive.map"), (16384, 16384, 16384, 16384));
    let (calls, tces, requests, ioctls) = of("indirect.map");
    assert_eq!((calls, tces, requests), (32, 16384, 32));
    assert!(ioctls > tces * 9 / 10, "scattered pages are seldom neighbours: {ioctls}");
    // Of the first 8192 pages, the second half beside the first, and all in lists of 512.
    assert_eq!(of("checked.map"), (2, 8192, 2, 2));
    assert_eq!(of("exchange"), (32, 16384, 32, 32));
    assert_eq!(of("exchange.bulk"), (1, 8192, 1, 1));
    // Where nothing is mapped beforehand, all that is asked for is measured.
    let doc = run_of(&["bulk", "indirect", "batch", "ring", "naive"]);
    let sum = |name: &str| -> u64 {
        doc["results"].as_array().unwrap().iter().map(|r| number(&r[name])).sum()
    };
    assert_eq!(number(&doc["counters"]["ioctls"]), sum("ioctls"));
    assert_eq!(number(&doc["counters"]["requests"]), sum("requests"));
}

#[test]
fn shapes_of_machine_and_window() {
    for extra in [
        "--window 256M --page-size 64K --levels 2",
        "--window 64M --host-page 4K --levels 3",
        "--window 2G --page-size 16M --buffer 256M",
        "--window 1G --page-size 256M --buffer 512M",
        "--window 64M --buffer 1M --threads 2",
        "--window 64K",
        "--window 64M --vfio-groups 3,1",
    ] {
        run(extra);
    }
    let doc = run("--window 64M --vfio-groups 3,1");
    assert_eq!(doc["backend"]["group_numbers"], serde_json::json!([3, 1]));
}

#[test]
fn version_1_pays_for_its_window_beforehand() {
    let doc = run("--vfio-v1 --buffer 1M");
    assert_eq!(doc["backend"]["container_version"], 1);
    let counters = &doc["counters"];
    let charge = number(&counters["table_charge_bytes"]);
    assert_eq!(number(&counters["pinned_peak_bytes"]), (2 << 30) + charge);
}

#[test]
fn too_little_may_be_locked() {
    let run = "--backend mock-kernel --window 64M --memlock";
    // 64 MiB and the table's 256 KiB.
    let need = (64 << 20) + (256 << 10);
    for limit in ["64K", "64M", "67371007"] {
        let args: Vec<_> = run.split(' ').chain([limit]).collect();
        let out = bench(&args);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(4), "{limit}: {error}");
        assert!(error.contains(&format!("has to lock {need} bytes")), "{error}");
        assert!(error.contains(&format!("; fix: --memlock {need},")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let need = need.to_string();
    let args: Vec<_> = run.split(' ').chain([need.as_str(), "--repetitions", "1", "-q"]).collect();
    let out = bench(&args);
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
fn what_cannot_be_is_said_before_anything_is_taken() {
    for (args, code, names) in [
        ("--page-size 2M", 2, &["2M", "4K, 64K, 16M, 256M"][..]),
        ("--window 2G --levels 4", 2, &["4 levels", "55"]),
        ("--window 64M --buffer 4K", 2, &["a multiple of 64K"]),
        ("--vfio-groups 0,300", 4, &["no IOMMU group 300", "fix: "]),
    ] {
        let all: Vec<_> = ["--backend", "mock-kernel"].into_iter().chain(args.split(' ')).collect();
        let out = bench(&all);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args}: {error}");
        assert_eq!(error.lines().count(), 1, "{args}: {error}");
        assert!(names.iter().all(|n| error.contains(n)), "{args}: {error}");
        assert!(out.stdout.is_empty());
    }
}

#[test]
fn the_table_says_what_it_is_and_what_was_asked() {
    let out = bench(&["--backend", "mock-kernel", "--window", "16M", "--repetitions", "1"]);
    let table = text(&out.stdout);
    for part in [
        LABEL,
        "v2 containers · group(s) 0 · host pages 64 KiB",
        " requests (",
        "VmLck compared 13 times",
        "clear: not measured: a kernel owns the tables",
        "verified: true",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(!table.contains("of limit") && !table.contains("kills"), "{table}");
}

/// Where containers can be had this would take a group, so it only runs where that is ruled out.
#[test]
#[cfg(not(target_arch = "powerpc64"))]
fn without_a_kernel_that_has_containers() {
    for args in [&["--backend", "vfio"][..], &["--vfio-groups", "0,1"], &["--vfio-v1"]] {
        let out = bench(args);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(4), "{args:?}: {error}");
        assert!(error.contains("exist on POWER only; fix: use a mock"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(out.stdout.is_empty());
    }
    let out = bench(&["--window", "4M", "--phase", "bulk", "--repetitions", "1", "--json", "-"]);
    let doc: Value = serde_json::from_slice(&out.stdout).expect("one JSON document");
    assert_eq!(doc["backend"]["kind"], "mock");
    let warning = &doc["warnings"][0];
    assert_eq!(warning["code"], "NO_VFIO");
    assert!(warning["text"].as_str().unwrap().contains("POWER only; measured on the mock"));
}

#[test]
fn an_interrupt_gives_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("partial.json");
    let line = "--backend mock-kernel --groups 2 --window 2G --levels 2 --duration 1h --json";
    let args: Vec<_> = line.split(' ').collect();
    // Into the first phase, which would go on for an hour.
    assert_eq!(interrupted(&args, &file, Duration::from_millis(700)), Some(130));
    let doc: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((&doc["run"]["complete"], &doc["verified"]), (&false.into(), &false.into()));
    // Nothing was left in the kernel, or that would be what was found wrong.
    let checked = &doc["verification"];
    assert_eq!(checked["first_mismatch"], Value::Null, "{checked}");
    assert_eq!(checked["books"]["first_difference"], Value::Null);
    assert_eq!(doc["counters"]["pinned_end_bytes"], 0);
    fits("result", &doc);
}

#[test]
fn a_group_leaves_others_and_comes_back() {
    let small = "--groups 3 --window 16M --levels 2 --phase bulk";
    let left = |extra: &str| {
        let doc = run(&format!("{small} {extra}"));
        let left = doc["left"].as_array().expect("a list").clone();
        (doc, left)
    };
    let (_, none) = left("");
    assert!(none.is_empty());
    let (_, refused) = left("--detach refuse");
    let text = refused[0]["refused"].as_str().expect("a reason");
    assert!(text.contains("shares its windows with 2 other group(s)"), "{text}");
    assert_eq!(refused[0]["joined"], Value::Null);

    let (doc, replay) = left("--detach replay");
    assert_eq!(doc["config"]["detach"], "replay");
    assert_eq!((number(&replay[0]["replayed"]), number(&replay[0]["lost_tces"])), (4096, 0));
    assert!(replay[0]["replay_ns"].as_f64() > Some(0.0));
    assert_eq!(number(&replay[0]["joined"]["replayed"]), 0);
    let one = number(&doc["counters"]["table_charge_bytes"]);

    let (doc, isolated) = left("--detach isolate");
    assert_eq!((number(&isolated[0]["replayed"]), number(&isolated[0]["lost_tces"])), (0, 0));
    assert_eq!(number(&isolated[0]["joined"]["replayed"]), 4096);
    assert_eq!(number(&doc["counters"]["table_charge_bytes"]), 3 * one);
    assert_eq!(number(&doc["counters"]["pinned_peak_bytes"]), (16 << 20) + 3 * one);
    // Late joiners of such a kernel get their windows only so; and groups that cannot share tables.
    for machine in ["--profile k4_9", "--profile pseries --levels 1"] {
        let extra = format!("--groups 2 --window 16M --phase bulk --detach isolate {machine}");
        let doc = run(&extra);
        assert_eq!(number(&doc["left"][0]["joined"]["replayed"]), 4096, "{machine}");
    }
    let doc = run(&format!("{small} --detach replay --profile k4_9"));
    let refused = doc["left"][0]["joined"]["refused"].as_str().expect("a reason");
    assert!(refused.contains("add all groups first"), "{refused}");
}
