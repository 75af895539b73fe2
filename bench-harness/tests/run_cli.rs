// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench run` as a user calls it: small runs, wrong usage, interrupts, full disks.

use std::time::Duration;

use crate::common::{bench, fits, interrupted, misfits, text};
use serde_json::Value;

/// Short enough for a debug build.
const SMALL: &[&str] = &["--backend", "mock", "--warmup", "0s", "--repetitions", "2"];

fn run_json(extra: &[&str]) -> Value {
    let mut args = SMALL.to_vec();
    args.extend_from_slice(extra);
    args.extend_from_slice(&["--json", "-"]);
    let out = bench(&args);
    assert!(out.status.success(), "{extra:?}: {}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one JSON document and nothing else on stdout")
}

#[test]
fn a_run_is_verified_and_its_document_fits_the_schema() {
    let doc = run_json(&["--groups", "3", "--containers", "2", "--window", "64M", "--levels", "2"]);
    fits("result", &doc);
    assert_eq!(doc["verified"], true);
    assert_eq!(doc["run"]["complete"], true);
    // 8 phases, mapped and empty, 3 PEs, 16384 pages; clear has 32 GiB for one PE.
    assert_eq!(doc["verification"]["translations"], 8 * 2 * 3 * 16384 + 2 * (8 << 20));
    assert_eq!(
        (&doc["backend"]["kind"], &doc["backend"]["kernel_release"]),
        (&"mock".into(), &Value::Null)
    );
    assert_eq!(
        (&doc["verification"]["books"], &doc["results"][0]["ioctls"]),
        (&Value::Null, &Value::Null)
    );
    let results = doc["results"].as_array().unwrap();
    let ids: Vec<_> = results.iter().filter_map(|r| r["id"].as_str()).collect();
    let pair = |phase: &str| [format!("{phase}.map"), format!("{phase}.unmap")];
    let mut expected: Vec<_> =
        ["bulk", "checked", "indirect"].iter().flat_map(|p| pair(p)).collect();
    expected.extend(["exchange", "exchange.bulk"].map(str::to_owned));
    expected.extend(["batch", "ring"].iter().flat_map(|p| pair(p)));
    expected.extend(["single.pair", "clear"].map(str::to_owned));
    expected.extend(pair("naive"));
    assert_eq!(ids, expected);
    for result in results {
        let id = result["id"].as_str().unwrap();
        let copies = id.starts_with("exchange") || id.starts_with("indirect");
        if id == "single.pair" {
            assert_eq!((&result["limit"], &result["of_limit"]), (&Value::Null, &Value::Null));
        } else {
            assert_eq!(result["limit"]["kind"], if copies { "copy" } else { "store" }, "{id}");
            assert!(result["of_limit"].as_f64().unwrap() > 0.0, "{id}");
        }
        assert_eq!(result["own_table"].is_object(), id == "clear", "{id}");
    }
    assert_eq!(doc["skipped"], Value::from(Vec::<Value>::new()));
    let counters = &doc["counters"];
    assert_eq!(counters["kills_issued"], counters["register_stores"]);
    assert_eq!(counters["pinned_end_bytes"], 0);
    // Each container's table is charged by itself, the buffer once.
    let charge = counters["table_charge_bytes"].as_u64().unwrap();
    let buffer = doc["config"]["buffer_bytes"].as_u64().unwrap();
    assert_eq!(counters["pinned_peak_bytes"].as_u64().unwrap(), buffer + charge);
}

#[test]
fn kills_and_exposure_are_reported_for_every_phase() {
    let doc = run_json(&["--groups", "2", "--window", "16M"]);
    for result in doc["results"].as_array().unwrap() {
        let id = result["id"].as_str().unwrap();
        let (kills, exposure) = (&result["kills_per_1000_tces"], &result["exposure_ns"]);
        let kills = kills.as_f64().unwrap_or_else(|| panic!("{id}: {kills}"));
        // By the PEs of both groups, but for clear, which has one.
        let expected = match id {
            "clear" => 1000.0 / f64::from(8 << 20),
            // Killed one by one.
            "ring.map" | "ring.unmap" => 2000.0,
            "single.pair" => 4000.0,
            // Killed as a whole, for each call.
            "indirect.map" | "indirect.unmap" | "batch.map" | "batch.unmap" | "exchange" => {
                2000.0 / 512.0
            }
            "bulk.map" | "bulk.unmap" | "naive.map" | "naive.unmap" => 2000.0 / 4096.0,
            // Their calls are of several lengths.
            _ => kills,
        };
        assert!(kills > 0.0 && (kills - expected).abs() < 1e-6, "{id}: {kills}, not {expected}");
        if id.starts_with("naive") {
            assert_eq!(*exposure, Value::Null, "{id}");
        } else {
            assert!(exposure.as_u64().unwrap() > 0, "{id}");
        }
    }
    let counters = &doc["counters"];
    assert_eq!(counters["kill_cost_ns"], 0);
    assert_eq!(doc["config"]["kill_cost"], Value::Null);
}

#[test]
fn kills_that_cost_are_charged_and_said_to_be_an_assumption() {
    let line = "--window 4M --phase ring --phase indirect --kill-cost 40,3000,70";
    let doc = run_json(&line.split(' ').collect::<Vec<_>>());
    fits("result", &doc);
    let says = "mock: software PHB, not hardware; kills cost as modelled: 40 ns a store, 3000 ns a \
                fence, 70 ns a level read again, an assumption";
    assert_eq!((&doc["verified"], &doc["backend"]["label"]), (&true.into(), &says.into()));
    let cost = serde_json::json!({ "store_ns": 40, "fence_ns": 3000, "refill_ns": 70 });
    assert_eq!(doc["config"]["kill_cost"], cost);
    // A store and a fence for each page of the ring, at least.
    let result = |id: &str| {
        let results = doc["results"].as_array().unwrap();
        results.iter().find(|r| r["id"] == id).unwrap().clone()
    };
    let tces = |id: &str| result(id)["tces"].as_u64().unwrap();
    let ring = 3040 * (tces("ring.map") + tces("ring.unmap"));
    let charged = doc["counters"]["kill_cost_ns"].as_u64().unwrap();
    assert!(charged > ring, "{charged} of {ring}");
    assert!(result("ring.unmap")["exposure_ns"].as_u64().unwrap() >= 2700);
    let mut args = SMALL.to_vec();
    args.extend(line.split(' '));
    let out = bench(&args);
    let table = text(&out.stdout);
    assert!(table.lines().next().unwrap().contains(says), "{table}");
    assert!(table.contains(" per 1000 TCEs) · released pages reachable for up to "), "{table}");
    assert!(table.contains(" charged for kills"), "{table}");
}

/// Each with what its bridges kill, seen in the kill registers.
#[test]
fn a_run_on_each_platform_of_the_mock() {
    for platform in ["p5ioc2", "ioda1", "phb3", "phb4", "phb5", "npu2"] {
        let alone = ["p5ioc2", "ioda1"].contains(&platform);
        let containers = if alone { "3" } else { "2" };
        let line =
            format!("--platform {platform} --groups 3 --containers {containers} --window 16M");
        // Only where it is impossible, as it takes the longest.
        let phases = if alone {
            "bulk indirect ring single clear naive"
        } else {
            "bulk indirect ring single naive"
        };
        let phases = phases.split(' ').flat_map(|phase| ["--phase", phase]);
        let doc = run_json(&line.split(' ').chain(phases).collect::<Vec<_>>());
        let errors = misfits("result", &doc);
        assert!(errors.is_empty(), "{platform}: {errors:?}");
        assert_eq!(
            (&doc["verified"], &doc["backend"]["bridges"]),
            (&true.into(), &platform.into())
        );
        let label = match platform {
            "phb3" => "mock: software PHB, not hardware".to_owned(),
            other => format!("mock of {other}: software PHB, not hardware"),
        };
        assert_eq!(doc["backend"]["label"], label);
        assert_eq!(doc["backend"]["max_windows"], if alone { 1 } else { 2 });
        let skipped: Vec<_> = doc["skipped"].as_array().unwrap().iter().collect();
        assert_eq!(skipped.len(), usize::from(alone), "{skipped:?}");
        if alone {
            assert!(skipped[0]["reason"].as_str().unwrap().contains("has 2 levels"), "{skipped:?}");
        }
        let counters = &doc["counters"];
        assert_eq!(counters["kills_issued"], counters["register_stores"], "{platform}");
        assert!(counters["kills_issued"].as_u64().unwrap() > 0);
    }
}

#[test]
fn shapes_of_machine_and_window() {
    for extra in [
        &["--window", "32M", "--host-page", "4K", "--levels", "3"][..],
        &["--window", "256M", "--page-size", "64K", "--backing", "64K"],
        &["--window", "4G", "--page-size", "16M", "--backing", "16M"],
        &["--window", "64M", "--buffer", "1M"],
        &["--window", "64M", "--contiguous", "--simd", "portable"],
        &["--window", "128M", "--threads", "3", "--groups", "2"],
        &["--window", "4K"],
    ] {
        // All but clear, whose window is always the same.
        let phases =
            ["bulk", "checked", "indirect", "exchange", "batch", "ring", "single", "naive"];
        let phases = phases.iter().flat_map(|phase| ["--phase", phase]);
        let doc = run_json(&extra.iter().copied().chain(phases).collect::<Vec<_>>());
        assert_eq!(doc["verified"], true, "{extra:?}: {}", doc["verification"]);
    }
}

/// Rounds of 16384 pages in two containers, one thread.
#[test]
fn calls_of_each_kind_are_counted() {
    let doc = run_json(
        &["--groups", "2", "--containers", "2", "--window", "64M", "--phase"]
            .into_iter()
            .chain(["exchange", "--phase", "checked", "--phase", "clear", "--phase", "single"])
            .collect::<Vec<_>>(),
    );
    assert_eq!(
        doc["config"]["phases"],
        serde_json::json!(["checked", "exchange", "single", "clear"])
    );
    let of = |id: &str| {
        let results = doc["results"].as_array().unwrap();
        let result = results.iter().find(|r| r["id"] == id).unwrap_or_else(|| panic!("no {id}"));
        (result["count"].as_u64().unwrap(), result["tces"].as_u64().unwrap())
    };
    // The second half of each of two stretches; the second round's unmap counts too.
    assert_eq!(of("checked.map"), (2 * 2 * 2, 2 * 16384));
    assert_eq!(of("checked.unmap"), (2 * 2 * 2, 2 * 16384));
    assert_eq!(of("exchange"), (2 * 2 * 32, 2 * 2 * 16384));
    assert_eq!(of("single.pair"), (2 * 2 * 16384, 2 * 2 * 16384));
    // Between the two; the memory is shifted, so its end is met once.
    assert_eq!(of("exchange.bulk"), (2 * 2, 2 * 16384));
    assert_eq!(of("clear"), (2, 2 * (8 << 20)));
    let own = &doc["results"].as_array().unwrap().last().unwrap()["own_table"];
    assert_eq!((&own["window_bytes"], &own["levels"]), (&(32u64 << 30).into(), &2.into()));
    assert!(own["table_bytes"].as_u64().unwrap() >= 64 << 20);
}

/// Nothing is lost between the intervals of a timeline, nor counted twice.
#[test]
fn intervals_add_up_to_what_was_measured() {
    let all = "--groups 2 --containers 2 --window 64M --duration 60ms --warmup 10ms";
    for line in [
        all.to_owned(),
        "--window 64M --threads 2 --phase bulk --phase ring --repetitions 40".to_owned(),
        format!("{all} --policy batched=8 --phase ring --phase single --phase mix"),
        "--window 64M --phase mix --mix map=80,list=15,replace=5 --rate 20k/s --duration 150ms"
            .to_owned(),
        "--backend mock-kernel --window 16M --phase indirect --phase ring --duration 50ms"
            .to_owned(),
    ] {
        let mut args: Vec<&str> = line.split(' ').collect();
        if !line.contains("--backend") {
            args.extend(["--backend", "mock"]);
        }
        args.extend(["--json", "-"]);
        let out = bench(&args);
        assert!(out.status.success(), "{line}: {}", text(&out.stderr));
        let doc: Value = serde_json::from_slice(&out.stdout).unwrap();
        let errors = misfits("result", &doc);
        assert!(errors.is_empty(), "{line}: {errors:?}");
        let guessed = doc["backend"]["kind"] != "mock";
        for result in doc["results"].as_array().unwrap() {
            let id = result["id"].as_str().unwrap();
            let timeline = result["timeline"].as_array().unwrap_or_else(|| panic!("{line}: {id}"));
            let sum = |key: &str| timeline.iter().map(|i| i[key].as_u64().unwrap()).sum::<u64>();
            assert_eq!(result["count"], sum("calls"), "{line}: {id}");
            assert_eq!(result["tces"], sum("tces"), "{line}: {id}");
            let longest = timeline.iter().filter_map(|i| i["max"].as_f64()).reduce(f64::max);
            assert_eq!(result["latency"]["max"].as_f64(), longest, "{line}: {id}");
            // Rounded to picoseconds each.
            let time: f64 = timeline
                .iter()
                .map(|i| i["calls"].as_f64().unwrap() * i["mean"].as_f64().unwrap_or(0.0))
                .sum();
            let mean = time / result["count"].as_f64().unwrap();
            let told = result["latency"]["mean"].as_f64().unwrap();
            assert!((mean - told).abs() < 0.001 + told * 1e-9, "{line}: {id}: {mean}, not {told}");
            if guessed || id == "mix.response" || line.contains("batched") && id == "single.pair" {
                assert!(timeline.iter().all(|i| i["kills"].is_null()), "{line}: {id}");
            } else {
                let kills = 1000.0 * sum("kills") as f64 / sum("tces") as f64;
                let told = result["kills_per_1000_tces"].as_f64().unwrap();
                assert!((kills - told).abs() < 1e-6, "{line}: {id}: {kills}, not {told}");
            }
        }
    }
}

#[test]
fn the_table_is_labelled() {
    let mut args = SMALL.to_vec();
    args.extend_from_slice(&["--window", "16M"]);
    let out = bench(&args);
    let table = text(&out.stdout);
    assert!(table.contains("mock: software PHB, not hardware"), "{table}");
    assert!(table.contains("verified: true"), "{table}");
    assert!(table.contains("ring.map, ring.unmap: too short"), "{table}");
    assert!(table.contains("mean of 16") && table.contains("mean of 64"), "{table}");
    assert!(table.contains("clear: on a table of its own of 64.1 MiB (32 GiB of 4 KiB"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colour outside a terminal");
    assert!(out.stderr.is_empty(), "{}", text(&out.stderr));
}

#[test]
fn wrong_usage_is_one_line_and_exit_2() {
    for (args, names) in [
        (&["--window", "3G"][..], &["3G", "2G", "4G"][..]),
        (&["--window", "0"], &["0"]),
        (&["--levels", "0"], &["levels", "1 to 5"]),
        (&["--levels", "6"], &["levels", "1 to 5"]),
        (&["--levels", "4", "--window", "2G"], &["4 levels", "55"]),
        (&["--page-size", "8K"], &["8K", "4K, 64K"]),
        (&["--page-size", "2M"], &["2M", "4K, 64K, 16M, 256M"]),
        (&["--groups", "0"], &["groups", "1 to 256"]),
        (&["--containers", "3", "--groups", "2"], &["3", "2"]),
        (&["--window", "128T", "--page-size", "64K", "--buffer", "100T"], &["100 TiB"]),
        (&["--window", "1P"], &["more than", "memory"]),
        (&["--threads", "9", "--window", "16M"], &["9", "accepted"]),
        (&["--phase", "bulky"], &["bulky", "bulk, checked, indirect", "naive"]),
        (&["--cpus", "99999"], &["99999"]),
        (&["--frobnicate"], &["--frobnicate"]),
    ] {
        let out = bench(args);
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
        assert!(error.starts_with("error: "), "{error}");
        assert!(names.iter().all(|n| error.contains(n)), "{args:?}: {error}");
        assert!(out.stdout.is_empty());
    }
}

#[test]
fn the_memlock_limit_says_what_is_needed() {
    let out = bench(&["--backend", "mock", "--memlock", "1M", "--window", "64M"]);
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    assert!(error.contains("--memlock is 1 MiB, this run needs 64."), "{error}");
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let mut args = SMALL.to_vec();
    args.extend_from_slice(&["--phase", "bulk", "--window", "4M", "--json", "/dev/full"]);
    let out = bench(&args);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("/dev/full"), "{}", text(&out.stderr));
    let out = bench(&["--json", "/nowhere/at/all.json"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(out.stdout.is_empty(), "found out before the run");
}

#[test]
fn an_interrupt_writes_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("partial.json");
    let args = ["--backend", "mock", "--window", "64M", "--duration", "1h", "--json"];
    // Into the first phase, which would go on for an hour.
    assert_eq!(interrupted(&args, &file, Duration::from_millis(500)), Some(130));
    let doc: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(doc["run"]["complete"], false);
    assert_eq!(doc["verified"], false, "not everything was checked");
    assert_eq!(doc["counters"]["pinned_end_bytes"], 0, "released all the same");
    fits("result", &doc);
}
