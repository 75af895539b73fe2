// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench compare` and `gate` of sweeps: point by point, and all together.

use std::fs;
use std::path::Path;

use crate::common::{bench, fits, refused, text};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tce-bench");
/// A document of a real run of `--phase ring`.
const RUN: &str = include_str!("data/ring.json");
/// A real sweep, short enough for a debug build.
const SMALL: &str =
    "--backend mock --window 4M --phase ring --warmup 0s --repetitions 2 --sweep groups=1,2";

/// `RUN` as run number `nth`, with times of its own.
fn taken(nth: usize, ns: f64) -> Value {
    let mut doc: Value = serde_json::from_str(RUN).unwrap();
    doc["run"]["id"] = format!("01TEST{nth:020}").into();
    for result in doc["results"].as_array_mut().unwrap() {
        let p = json!({"50": ns, "90": ns, "99": ns, "99.9": null, "99.99": null});
        result["latency"] = json!({"min": ns, "mean": ns, "max": ns, "p": p});
    }
    doc
}

/// A sweep of one setting, number `nth`: each value with the time at it.
fn sweep(nth: usize, setting: &str, points: &[(&str, f64)]) -> Value {
    let values: Vec<_> = points.iter().map(|(value, _)| *value).collect();
    let runs = points.iter().enumerate().map(|(at, (value, ns))| {
        json!({ "values": { setting: value }, "result": taken(100 * nth + at, *ns) })
    });
    let first = taken(nth, 1.0);
    json!({
        "schema": "tce-bench.sweep/1",
        "tool": first["tool"],
        "run": first["run"],
        "swept": [{ "setting": setting, "values": values }],
        "runs": runs.collect::<Vec<_>>(),
        "verified": true,
    })
}

fn write(path: &Path, doc: &Value) -> String {
    fs::write(path, doc.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Twelve sweeps of about these times.
fn folder(at: &Path, first: usize, points: &[(&str, f64)]) -> String {
    fs::create_dir_all(at).unwrap();
    for nth in 0..12 {
        let jitter = 1.0 + 0.001 * (nth % 5) as f64;
        let points: Vec<_> = points.iter().map(|(v, ns)| (*v, ns * jitter)).collect();
        write(&at.join(format!("{nth:02}.json")), &sweep(first + nth, "pages", &points));
    }
    at.to_str().unwrap().to_owned()
}

fn checked(bytes: &[u8]) -> Value {
    let doc: Value = serde_json::from_slice(bytes).expect("one document");
    fits("compare", &doc);
    doc
}

/// Each point with its verdict and why.
fn points(found: &Value) -> Vec<(&str, &str, &str)> {
    let points = found["first"]["points"].as_array().unwrap();
    let told = |p| (said(p, "/values/pages"), said(p, "/verdict"), said(p, "/reason"));
    points.iter().map(told).collect()
}

fn said<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn each_point_has_its_verdict_and_one_regression_is_one_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let old = folder(&at("old"), 0, &[("1", 100.0), ("8", 400.0), ("64", 1000.0)]);
    let same = folder(&at("same"), 100, &[("1", 100.1), ("8", 400.0), ("64", 1000.0)]);
    let slow = folder(&at("slow"), 200, &[("1", 90.0), ("8", 440.0), ("64", 1000.0)]);
    let fast = folder(&at("fast"), 300, &[("1", 90.0), ("8", 400.0), ("64", 1000.0)]);
    // Not all points, and one more.
    let other = folder(&at("other"), 400, &[("8", 400.0), ("64", 900.0), ("512", 9.0)]);
    let (no, better) = ("no-change", "improvement");
    let (of_a, of_b) =
        ("in 12 of 12 runs of A, 0 of 12 of B", "in 0 of 12 runs of A, 12 of 12 of B");
    for (new, code, verdict, reason, expected) in [
        (&same, 0, no, "", vec![("1", no, ""), ("8", no, ""), ("64", no, "")]),
        (
            &slow,
            3,
            "regression",
            "pages=8: ring.map min: +10.0 %",
            vec![
                ("1", better, "ring.map min: -10.0 %"),
                ("8", "regression", "ring.map min: +10.0 %"),
                ("64", no, ""),
            ],
        ),
        (
            &fast,
            0,
            better,
            "pages=1: ring.map min: -10.0 %",
            vec![("1", better, "ring.map min: -10.0 %"), ("8", no, ""), ("64", no, "")],
        ),
        (
            &other,
            5,
            "inconclusive",
            "pages=1: in 12 of 12 runs of A, 0 of 12 of B",
            vec![
                ("1", "inconclusive", of_a),
                ("8", no, ""),
                ("64", better, "ring.map min: -10.0 %"),
                ("512", "inconclusive", of_b),
            ],
        ),
    ] {
        let out = bench(&["gate", "--baseline", &old, new, "--json", "-"]);
        let found = checked(&out.stdout);
        assert_eq!((out.status.code(), said(&found, "/verdict")), (Some(code), verdict));
        assert_eq!((said(&found, "/reason"), points(&found)), (reason, expected));
        assert_eq!((&found["a"]["runs"], &found["b"]["runs"]), (&12.into(), &12.into()));
        // One interval of each metric of each operation at each point that both have.
        let cells = found["first"]["cells"].as_array().unwrap();
        let judged = cells.iter().filter(|c| c["judged"] == true).count();
        assert_eq!(judged, if new == &other { 8 } else { 12 });
        assert_eq!(found["first"]["error_per_interval"], 0.05 / judged as f64);
        assert_eq!(cells[0]["point"], json!({ "pages": if new == &other { "8" } else { "1" } }));
    }
    // What nobody compared is named.
    let table = text(&bench(&["compare", &old, &other]).stdout);
    for line in [format!("left out: pages=1: {of_a}"), format!("left out: pages=512: {of_b}")] {
        assert!(table.lines().any(|l| l == line), "{table}");
    }
}

#[test]
fn the_formats_name_points_and_the_verdict_of_all_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let old = folder(&dir.path().join("old"), 0, &[("1", 100.0), ("8", 400.0)]);
    let new = folder(&dir.path().join("new"), 100, &[("1", 100.0), ("8", 320.0)]);
    let show = |format: &str| {
        let out = bench(&["compare", &old, &new, "--format", format]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        text(&out.stdout)
    };
    let verdict = "verdict: improvement (pages=8: ring.map min: -20.0 %)";
    let table = show("table");
    let lines: Vec<_> = table.lines().collect();
    assert_eq!((lines[1], lines.last()), (verdict, Some(&verdict)), "{table}");
    for start in [["point", "operation", "metric"], ["pages=8", "ring.map", "min"]] {
        let begins = |line: &str| line.split_whitespace().take(3).eq(start);
        assert!(lines.iter().copied().any(begins), "{table}");
    }
    assert!(lines.contains(&"pages=1: no change"), "{table}");
    assert!(lines.contains(&"pages=8: improvement (ring.map min: -20.0 %)"), "{table}");
    let markdown = show("markdown");
    assert!(markdown.starts_with(&format!("**{verdict}**\n")), "{markdown}");
    let row = "| pages=8 | ring.map | min | ";
    assert!(markdown.lines().any(|l| l.starts_with(row) && l.contains(" -20.00 % ")), "{markdown}");
    let rule = markdown.lines().find(|l| l.starts_with("|---")).expect("a table");
    let columns = |line: &str| line.matches('|').count();
    assert!(markdown.lines().filter(|l| l.starts_with('|')).all(|l| columns(l) == columns(rule)));
    let iommu = show("iommu");
    let row = "     2^12,    321,401   ,     320,400     ,  20.00 (ring, pages=8)";
    assert_eq!(iommu.lines().nth(3), Some(row), "{iommu}");
    let kernel = show("kernel");
    assert!(kernel.lines().any(|l| l == "A: ring, pages=1"), "{kernel}");
    let block = kernel.split("B: ring, pages=8\n").nth(1).expect("its lines");
    assert!(
        block.lines().nth(1).unwrap().starts_with("average map latency(us):0.3206 "),
        "{kernel}"
    );
}

/// The whole way, with the program itself on both sides.
#[test]
fn a_real_sweep_is_compared_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let line =
        format!("gate --run {PROGRAM} {PROGRAM} --pairs 2 --keep {} --json -", kept.display());
    let args: Vec<&str> = line.split(' ').chain(["--"]).chain(SMALL.split(' ')).collect();
    let out = bench(&args);
    let found = checked(&out.stdout);
    assert_eq!(out.status.code(), Some(5), "{}", text(&out.stderr));
    let points = found["first"]["points"].as_array().unwrap();
    let values: Vec<_> = points.iter().map(|p| &p["values"]["groups"]).collect();
    assert_eq!(values, ["1", "2"]);
    assert!(points.iter().all(|p| said(p, "/reason").contains("2 pairs, and it takes 9")));
    let [first, second] = ["a/01.json", "b/01.json"].map(|name| kept.join(name));
    let doc: Value = serde_json::from_slice(&fs::read(&first).unwrap()).unwrap();
    assert_eq!(doc["schema"], "tce-bench.sweep/1");
    let min = |doc: &Value| doc["runs"][1]["result"]["results"][0]["latency"]["min"].clone();
    let cells = found["first"]["cells"].as_array().unwrap();
    let cell = cells.iter().find(|c| c["point"]["groups"] == "2").unwrap();
    assert_eq!(cell["a_ns"][0], min(&doc));
    // Two documents are one run of each point.
    let [first, second] = [&first, &second].map(|path| path.to_str().unwrap());
    let out = bench(&["gate", "--baseline", first, second]);
    let table = text(&out.stdout);
    assert_eq!(out.status.code(), Some(5), "{table}");
    assert!(table.contains("groups=2: inconclusive (ring.map min: one run of each"), "{table}");
}

#[test]
fn a_regression_of_a_sweep_has_to_be_there_again_at_the_same_point() {
    let dir = tempfile::tempdir().unwrap();
    // Run 0 is a warm-up and 10 pairs follow; to confirm there are as many once more.
    let player = |name: &str, first: usize, slow_at: &dyn Fn(usize) -> &'static str| {
        for nth in 0..22 {
            let jitter = 1.0 + 0.001 * (nth % 3) as f64;
            let slower = |value: &str| if slow_at(nth) == value { 1.1 } else { 1.0 };
            let points = [("1", 100.0), ("8", 400.0)].map(|(v, ns)| (v, ns * jitter * slower(v)));
            let doc = sweep(first + nth, "pages", &points);
            write(&dir.path().join(format!("{name}.{nth}.json")), &doc);
        }
        let file = dir.path().join(name).display().to_string();
        let body = format!(
            "#!/bin/sh\nn=$(cat '{file}.n' 2>/dev/null || echo 0); echo $((n + 1)) >'{file}.n'\n\
             exec cat \"{file}.$n.json\"\n"
        );
        fs::write(&file, body).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        file
    };
    let quick = player("quick", 0, &|_| "");
    for (name, later, code, reason) in [
        ("again", "8", 3, "confirmed: pages=8: ring.map min, pages=8: ring.map p50, "),
        ("moved", "1", 5, "a regression that was not there again: pages=8: ring.map min, "),
    ] {
        let _ = fs::remove_file(format!("{quick}.n"));
        let slow = player(name, 100 * (1 + usize::from(later == "1")), &|nth| {
            if nth <= 10 { "8" } else { later }
        });
        let out =
            bench(&["gate", "--run", &quick, &slow, "--pairs", "10", "--confirm", "--json", "-"]);
        let found = checked(&out.stdout);
        assert_eq!(out.status.code(), Some(code), "{found:#}");
        assert!(said(&found, "/reason").starts_with(reason), "{}", found["reason"]);
    }
}

#[test]
fn sweeps_that_cannot_be_compared_are_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, doc: &Value| write(&dir.path().join(name), doc);
    let old = file("old.json", &sweep(1, "pages", &[("1", 100.0), ("8", 400.0)]));
    let changed = |pointer: &str, value: Value| {
        let mut doc = sweep(2, "pages", &[("1", 100.0), ("8", 400.0)]);
        *doc.pointer_mut(pointer).unwrap() = value;
        doc
    };
    let one = changed("/runs/1/values/pages", json!("1"));
    let same_run = changed("/runs/1/result/run/id", json!(format!("01TEST{:020}", 200)));
    for (name, new, parts) in [
        ("single", taken(900, 100.0), ["single results, whose points are others", "same --sweep"]),
        ("live", sweep(3, "live", &[("1", 1.0)]), ["has sweeps of pages", "has sweeps of live"]),
        (
            "apart",
            sweep(4, "pages", &[("2", 1.0), ("4", 1.0)]),
            ["no point in common, as pages=1 and pages=2", "the same values"],
        ),
        ("same", sweep(1, "pages", &[("1", 1.0)]), ["have the same run", "no news of itself"]),
        ("cut", changed("/run/complete", json!(false)), ["cut'", "the sweep was interrupted"]),
        (
            "wrong",
            changed("/runs/1/result/verified", json!(false)),
            ["wrong': pages=8", "the run is not verified"],
        ),
        ("unsure", changed("/verified", json!(false)), ["unsure'", "the sweep is not verified"]),
        ("twice", one, ["twice'", "it has pages=1 twice"]),
        ("again", same_run, ["again'", "twice"]),
        ("empty", changed("/runs", json!([])), ["empty'", "no runs"]),
        ("odd", sweep(5, "Pages,", &[("1", 1.0)]), ["odd'", "no option"]),
        ("far", changed("/runs/1/values", json!({"live": "1"})), ["live=1", "no point of"]),
        (
            "limits",
            changed("/runs/0/result/schema", json!("tce-bench.limits/1")),
            ["pages=1: it is of the schema", "accepted: tce-bench.result/1"],
        ),
    ] {
        let new = file(name, &new);
        for force in [&["--force"][..], &[]] {
            let args = [&["gate", "--baseline", &old, &new], force].concat();
            let error = refused(&args, 1);
            assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
        }
    }
    // Machines and builds, as for single results.
    let unlike = file("unlike", &changed("/runs/1/result/host/cpu/model", json!("POWER9")));
    let error = refused(&["compare", &old, &unlike], 1);
    assert!(error.contains("host.cpu.model") && error.contains("--force"), "{error}");
    let out = bench(&["compare", &old, &unlike, "--force", "--json", "-"]);
    assert!(said(&checked(&out.stdout), "/unlike/0").starts_with("host.cpu.model"));
    // In a folder, what cannot be used is left out and named.
    let folder = folder(&dir.path().join("folder"), 10, &[("1", 100.0), ("8", 400.0)]);
    write(&Path::new(&folder).join("x.json"), &changed("/run/complete", json!(false)));
    let found = checked(&bench(&["compare", &old, &folder, "--json", "-"]).stdout);
    assert_eq!(found["b"]["runs"], 12);
    assert!(said(&found, "/skipped/0/reason").contains("the sweep was interrupted"));
}
