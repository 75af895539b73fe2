// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench compare` and `gate` as a user calls them. The only verdicts asserted here are those that no
//! clock decides.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{bench, fits, interrupted, refused, text};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tce-bench");
/// Short enough for a debug build.
const SMALL: &str = "--backend mock --window 4M --phase ring --warmup 0s --repetitions 2";

/// A document of a real run.
fn document() -> Value {
    let args: Vec<&str> = SMALL.split(' ').chain(["--json", "-"]).collect();
    let out = bench(&args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one document")
}

/// `document`, with times of its own for all operations, as run number `nth`.
fn taken(document: &Value, nth: usize, ns: f64) -> Value {
    let mut doc = document.clone();
    doc["run"]["id"] = format!("01TEST{nth:020}").into();
    for result in doc["results"].as_array_mut().expect("results") {
        let p = json!({"50": ns, "90": ns, "99": ns, "99.9": null, "99.99": null});
        result["latency"] = json!({"min": ns, "mean": ns, "max": ns, "p": p});
    }
    doc
}

/// Writes `runs` documents of about `ns` nanoseconds into a folder.
fn folder(at: &Path, document: &Value, first: usize, runs: usize, ns: f64) -> String {
    fs::create_dir_all(at).unwrap();
    for nth in 0..runs {
        let ns = ns * (1.0 + 0.001 * (nth % 5) as f64);
        write(&at.join(format!("{nth:02}.json")), &taken(document, first + nth, ns));
    }
    at.to_str().unwrap().to_owned()
}

fn write(path: &Path, doc: &Value) {
    fs::write(path, doc.to_string()).unwrap();
}

fn script(at: &Path, body: &str) -> String {
    fs::write(at, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
    at.to_str().unwrap().to_owned()
}

fn checked(bytes: &[u8]) -> Value {
    let doc: Value = serde_json::from_slice(bytes).expect("one document");
    fits("compare", &doc);
    doc
}

#[test]
fn wrong_usage_is_exit_2() {
    for (line, part) in [
        ("compare", "OLD NEW"),
        ("compare a.json", "OLD NEW"),
        ("compare a b --run A B", "cannot be used with"),
        ("compare --run A", "--run"),
        ("compare a b --confirm", "cannot be used with"),
        ("compare a b -- --phase ring", "cannot be used with"),
        ("compare --run A B --threshold 0", "'0' is no threshold"),
        ("compare --run A B --pairs 0", "from 1 to 10000"),
        ("compare --run A B --metric p42", "p42"),
        ("compare --run A B -- --json x.json", "--json behind --"),
        ("compare --run A B -- --hlog=x", "--hlog=x behind --"),
        ("gate new.json", "--baseline"),
        ("gate --baseline old.json", "NEW"),
        ("gate --baseline old.json new.json --pairs 5", "cannot be used with"),
        ("compare a b --best-of 2", "cannot be used with"),
        ("compare --run A B --best-of 0", "from 1 to 100"),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let error = refused(&args, 2);
        assert!(error.contains(part), "{line}: {error}");
    }
}

/// Two real programs, here the same one: the whole way, but too few pairs for a verdict.
#[test]
fn a_few_real_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let line =
        format!("compare --run {PROGRAM} {PROGRAM} --pairs 3 --keep {} --json -", kept.display());
    let args: Vec<&str> = line.split(' ').chain(["--"]).chain(SMALL.split(' ')).collect();
    let out = bench(&args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let doc = checked(&out.stdout);
    assert_eq!((&doc["verdict"], &doc["run"]["complete"]), (&"inconclusive".into(), &true.into()));
    assert_eq!(doc["a_first"].as_array().map(Vec::len), Some(3));
    let cells = doc["first"]["cells"].as_array().unwrap();
    let names: Vec<_> =
        cells.iter().map(|c| format!("{} {}", c["id"], c["metric"]).replace('"', "")).collect();
    assert!(names.starts_with(&["ring.map min".to_owned()]), "{names:?}");
    for cell in cells {
        let (a, b) = (cell["a_ns"].as_array().unwrap(), cell["b_ns"].as_array().unwrap());
        assert_eq!((a.len(), b.len()), (3, 3));
        assert!(cell["reason"].as_str().unwrap().starts_with("3 pairs, and it takes "), "{cell}");
    }
    // What was kept is what was compared.
    for (side, ns) in [("a", "a_ns"), ("b", "b_ns")] {
        for (nth, compared) in cells[0][ns].as_array().unwrap().iter().enumerate() {
            let file = kept.join(side).join(format!("{:02}.json", nth + 1));
            let doc: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            assert_eq!(&doc["results"][0]["latency"]["min"], compared);
        }
    }
}

/// A program that prints prepared documents: run `n` takes `ns(n)`, run 0 being the warm-up.
fn player(dir: &Path, name: &str, doc: &Value, runs: usize, ns: impl Fn(usize) -> f64) -> String {
    let first = 1000 * usize::from(name.as_bytes()[0]);
    for nth in 0..runs {
        write(&dir.join(format!("{name}.{nth}.json")), &taken(doc, first + nth, ns(nth)));
    }
    let file = dir.join(name).display().to_string();
    let body = format!(
        "n=$(cat '{file}.n' 2>/dev/null || echo 0); echo $((n + 1)) >'{file}.n'; exec cat \"{file}.$n.json\""
    );
    script(&dir.join(name), &body)
}

#[test]
fn a_regression_has_to_be_there_again_if_it_is_to_be_confirmed() {
    let doc = document();
    let jitter = |nth: usize| 100.0 + 0.1 * (nth % 3) as f64;
    // Slower in all runs; in those before the confirmation only; in none.
    for (from, to, code, reason) in [
        (0, 18, 3, "confirmed: ring.map min, ring.map p50, ring.unmap min, ring.unmap p50"),
        (0, 9, 5, "a regression that was not there again: ring.map min, "),
        (18, 18, 0, ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let slow =
            |nth| if (from..to).contains(&nth) { 1.06 * jitter(nth) } else { jitter(nth + 1) };
        let a = player(dir.path(), "a", &doc, 18, jitter);
        let b = player(dir.path(), "b", &doc, 18, slow);
        let out = bench(&["gate", "--run", &a, &b, "--pairs", "8", "--confirm", "--json", "-"]);
        let found = checked(&out.stdout);
        assert_eq!(out.status.code(), Some(code), "{found:#}");
        assert!(found["reason"].as_str().unwrap_or_default().starts_with(reason), "{found:#}");
        assert_eq!(found["confirmation"].is_null(), code == 0);
        // Eight pairs and a warm-up, and once more only if there is something to confirm.
        let calls = fs::read_to_string(dir.path().join("b.n")).unwrap();
        assert_eq!(calls.trim(), if code == 0 { "9" } else { "18" });
        // Pairs stand as they ran.
        let first = &found["first"]["cells"][0];
        assert_eq!((&first["a_ns"][0], &first["a_ns"][7]), (&jitter(1).into(), &jitter(8).into()));
    }
}

/// Others are at work in two runs of three, of either program: it tells all the same if a pair goes on until the
/// least time came again.
#[test]
fn the_best_of_a_pairs_runs_counts() {
    let doc = document();
    let disturbed =
        |nth: usize| if nth.is_multiple_of(3) { 100.0 } else { 100.0 + 7.0 * (nth % 5) as f64 };
    for (slower, code) in [(1.0, 0), (1.06, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        let a = player(dir.path(), "a", &doc, 60, disturbed);
        let b = player(dir.path(), "b", &doc, 60, |nth| slower * disturbed(nth + 1));
        let keep = ["--keep", kept.to_str().unwrap()];
        let args = ["gate", "--run", &a, &b, "--pairs", "8", "--json", "-"];
        let alone = checked(&bench(&args).stdout);
        assert_eq!(
            (&alone["verdict"], &alone["settings"]["best_of"]),
            (&"inconclusive".into(), &1.into())
        );
        for program in ["a", "b"] {
            fs::remove_file(dir.path().join(format!("{program}.n"))).unwrap();
        }
        let out = bench(&[&args[..], &keep, &["--best-of", "6"]].concat());
        let found = checked(&out.stdout);
        assert_eq!(out.status.code(), Some(code), "{found:#}");
        assert_eq!(found["settings"]["best_of"], 6);
        let runs: Vec<u64> = serde_json::from_value(found["runs_of_pairs"].clone()).unwrap();
        assert_eq!(runs.len(), 8);
        assert!(
            runs.iter().all(|n| (3..=6).contains(n)) && runs.iter().any(|n| *n < 6),
            "{runs:?}"
        );
        let runs = runs.iter().sum::<u64>();
        assert_eq!((&found["a"]["runs"], &found["b"]["runs"]), (&runs.into(), &runs.into()));
        let cell = &found["first"]["cells"][0];
        assert_eq!(
            (&cell["a_ns"], &cell["b_ns"]),
            (&json!(vec![100.0; 8]), &json!(vec![slower * 100.0; 8]))
        );
        assert_eq!(fs::read_dir(kept.join("a")).unwrap().count() as u64, runs);
    }
}

/// The same slowdown, and runs of one program that differ as much from one to the next.
#[test]
fn what_a_program_does_by_itself_is_no_regression() {
    let doc = document();
    let dir = tempfile::tempdir().unwrap();
    let wild = |nth: usize| 100.0 * 1.1f64.powi(nth as i32);
    let a = player(dir.path(), "a", &doc, 13, wild);
    let b = player(dir.path(), "b", &doc, 13, |nth| 1.06 * wild(nth));
    let out = bench(&["gate", "--run", &a, &b, "--pairs", "12", "--json", "-"]);
    let found = checked(&out.stdout);
    assert_eq!(out.status.code(), Some(5), "{found:#}");
    assert!(
        found["reason"].as_str().unwrap().contains("noise floor 10.0 %"),
        "{}",
        found["reason"]
    );
}

#[test]
fn a_run_that_is_slow_on_purpose_says_so() {
    let run = |percent: &str| {
        std::process::Command::new(PROGRAM)
            .args(SMALL.split(' ').chain(["--json", "-"]))
            .env("TCE_BENCH_SLOW_PERCENT", percent)
            .output()
            .unwrap()
    };
    let out = run("5");
    let doc: Value = serde_json::from_slice(&out.stdout).expect("one document");
    let warnings = doc["warnings"].as_array().unwrap();
    let slowed = warnings.iter().find(|w| w["code"] == "SLOWED").expect("the warning");
    assert!(slowed["text"].as_str().unwrap().ends_with("5 % longer"), "{slowed}");
    assert!(document()["warnings"].as_array().unwrap().iter().all(|w| w["code"] != "SLOWED"));
    let out = run("lots");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("TCE_BENCH_SLOW_PERCENT='lots'"));
}

#[test]
fn a_program_that_fails_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let unverified = {
        let mut doc = document();
        doc["verified"] = false.into();
        doc["verification"]["first_mismatch"] = "page 7 leads nowhere".into();
        let file = dir.path().join("unverified.json");
        write(&file, &doc);
        script(&dir.path().join("unverified"), &format!("cat '{}'; exit 1", file.display()))
    };
    for (body, parts) in [
        (
            "echo 'error: no such thing' >&2; exit 7",
            ["B (warm-up)", "exit status: 7: no such thing"],
        ),
        ("exit 1", ["B (warm-up)", "it said nothing"]),
        ("echo hello", ["gave nothing to compare", "not JSON"]),
        ("echo '{\"schema\": \"tce-bench.limits/1\"}'", ["of the schema", "tce-bench.limits/1"]),
        ("kill -9 $$", ["signal: 9", "it said nothing"]),
    ] {
        let bad = script(&dir.path().join("bad"), body);
        let error = refused(
            &[
                "compare",
                "--run",
                PROGRAM,
                &bad,
                "--",
                "--phase",
                "ring",
                "--window",
                "4M",
                "--repetitions",
                "1",
                "--backend",
                "mock",
            ],
            1,
        );
        assert!(parts.iter().all(|part| error.contains(part)), "{body}: {error}");
    }
    let error = refused(&["compare", "--run", &unverified, PROGRAM], 1);
    assert!(error.contains("A (warm-up)") && error.contains("page 7 leads nowhere"), "{error}");
    let error = refused(&["compare", "--run", "/nowhere/tce-bench", PROGRAM], 1);
    assert!(error.contains("'/nowhere/tce-bench' cannot be started"), "{error}");
}

#[test]
fn one_run_of_each_is_inconclusive_however_much_they_differ() {
    let dir = tempfile::tempdir().unwrap();
    let doc = document();
    let file = |name: &str, nth, ns| -> String {
        let path: PathBuf = dir.path().join(name);
        write(&path, &taken(&doc, nth, ns));
        path.to_str().unwrap().to_owned()
    };
    let (old, new) = (file("old.json", 1, 100.0), file("new.json", 2, 300.0));
    let out = bench(&["compare", &old, &new]);
    let table = text(&out.stdout);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(table.contains("mock: software PHB, not hardware"), "{table}");
    assert!(table.contains("+200.00 %") && table.contains("one run of each"), "{table}");
    let out = bench(&["gate", "--baseline", &old, &new, "--quiet"]);
    assert_eq!((out.status.code(), out.stdout.len()), (Some(5), 0));
    let error = refused(&["compare", &old, &old], 1);
    assert!(error.contains("have the same run"), "{error}");
}

#[test]
fn a_broken_file_alone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let doc = document();
    let old = folder(&dir.path().join("old"), &doc, 0, 8, 100.0);
    let file = dir.path().join("broken.json");
    let name = file.to_str().unwrap();
    let mut other = taken(&doc, 100, 100.0);
    other["schema"] = "tce-bench.limits/1".into();
    for (content, part) in [
        (other.to_string(), "tce-bench.limits/1"),
        ("{".to_owned(), "not JSON"),
        (String::new(), "not JSON"),
    ] {
        fs::write(&file, content).unwrap();
        for args in [["gate", "--baseline", name, &old], ["gate", "--baseline", &old, name]] {
            let error = refused(&args, 1);
            assert!(error.contains(name) && error.contains(part), "{error}");
        }
    }
}

#[test]
fn an_interrupted_comparison_has_no_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let doc = dir.path().join("doc.json");
    let mut run = taken(&document(), 0, 100.0);
    run["run"]["id"] = "SIDEPID".into();
    write(&doc, &run);
    let side = |name: &str| {
        let body = format!("sleep 0.02; exec sed \"s/SIDEPID/{name}$$/\" '{}'", doc.display());
        script(&dir.path().join(name), &body)
    };
    let (a, b, out) = (side("a"), side("b"), dir.path().join("out.json"));
    let args = ["gate", "--run", &a, &b, "--pairs", "10000", "--json"];
    assert_eq!(interrupted(&args, &out, Duration::from_secs(2)), Some(130));
    let found = checked(&fs::read(&out).unwrap());
    assert_eq!(
        (&found["verdict"], &found["reason"]),
        (&"inconclusive".into(), &"interrupted".into())
    );
    assert_eq!(found["run"]["complete"], false);
    assert_eq!(found["a"]["runs"], found["b"]["runs"]);
}

#[test]
fn folders_are_gated_and_broken_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let doc = document();
    let old = folder(&dir.path().join("old"), &doc, 0, 12, 100.0);
    let same = folder(&dir.path().join("same"), &doc, 100, 12, 100.2);
    let slow = folder(&dir.path().join("slow"), &doc, 200, 12, 105.0);
    let fast = folder(&dir.path().join("fast"), &doc, 300, 12, 95.0);
    let few = folder(&dir.path().join("few"), &doc, 400, 3, 150.0);
    for (new, code, verdict) in [
        (&same, 0, "no-change"),
        (&slow, 3, "regression"),
        (&fast, 0, "improvement"),
        (&few, 5, "inconclusive"),
    ] {
        let out = bench(&["gate", "--baseline", &old, new, "--json", "-"]);
        let doc = checked(&out.stdout);
        assert_eq!((out.status.code(), &doc["verdict"]), (Some(code), &verdict.into()), "{doc:#}");
        assert!(doc["notes"][0].as_str().unwrap().contains("not taken in turns"));
        // The same is no gate: done is done.
        assert_eq!(bench(&["compare", &old, new]).status.code(), Some(0));
    }
    // None of these may count.
    let broken = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut doc = taken(&doc, 900, 1.0);
        change(&mut doc);
        write(&Path::new(&same).join(name), &doc);
    };
    broken("x1.json", &|d| d["schema"] = "tce-bench.result/2".into());
    broken("x2.json", &|d| d["run"]["complete"] = false.into());
    broken("x3.json", &|d| d["verified"] = false.into());
    broken("x4.json", &|d| d["results"] = json!([]));
    broken("x5.json", &|d| d["run"]["wall_s"] = (-1.0).into());
    broken("x6.json", &|d| d["results"][0]["latency"]["min"] = (-5.0).into());
    broken("x7.json", &|d| d["results"][0]["latency"]["max"] = 0.5.into());
    broken("x8.json", &|d| d["results"][0]["hist"]["data"] = "HISTFAAA".into());
    broken("x9.json", &|d| d["results"][0]["hist"]["sigfig"] = 2.into());
    broken("y1.json", &|d| d["run"]["id"] = format!("01TEST{:020}", 100).into());
    broken("y2.json", &|d| drop(d.as_object_mut().unwrap().remove("clock")));
    fs::write(Path::new(&same).join("y3.json"), "").unwrap();
    fs::write(Path::new(&same).join("notes.txt"), "not looked at").unwrap();
    let out = bench(&["gate", "--baseline", &old, &same, "--json", "-"]);
    let found = checked(&out.stdout);
    assert_eq!((out.status.code(), &found["b"]["runs"]), (Some(0), &12.into()));
    let skipped = found["skipped"].as_array().unwrap();
    let reasons: Vec<_> = skipped.iter().map(|s| s["reason"].as_str().unwrap()).collect();
    for (reason, part) in reasons.iter().zip([
        "tce-bench.result/2",
        "interrupted",
        "not verified",
        "no results",
        "went backwards",
        "a time of -5 ns",
        "do not rise",
        "cannot be read",
        "is said to be of",
        "once more",
        "missing field `clock`",
        "not JSON",
    ]) {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_eq!(reasons.len(), 12, "{reasons:?}");
}

#[test]
fn what_is_missing_or_unlike_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let doc = document();
    let old = folder(&dir.path().join("old"), &doc, 0, 8, 100.0);
    let other = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut doc = doc.clone();
        change(&mut doc);
        folder(&dir.path().join(name), &doc, 100, 8, 100.0)
    };
    let error = refused(&["gate", "--baseline", "/nowhere/main", &old], 1);
    assert!(error.contains("'/nowhere/main' cannot be read"), "{error}");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let error = refused(&["gate", "--baseline", empty.to_str().unwrap(), &old], 1);
    assert!(error.contains("no usable result among 0 files"), "{error}");
    for (name, change, part) in [
        (
            "cpu",
            (&|d: &mut Value| d["host"]["cpu"]["model"] = "POWER9".into()) as &dyn Fn(&mut Value),
            "host.cpu.model",
        ),
        ("page", &|d| d["host"]["page_size"] = 65536.into(), "host.page_size: 4096 and 65536"),
        ("kind", &|d| d["backend"]["kind"] = "vfio".into(), "backend.kind"),
        ("window", &|d| d["config"]["window_bytes"] = 42.into(), "config.window_bytes"),
        ("seed", &|d| d["run"]["seed"] = 2.into(), "run.seed: 1 and 2"),
        ("build", &|d| d["tool"]["profile"] = "odd".into(), "tool.profile"),
    ] {
        let new = other(name, change);
        let error = refused(&["gate", "--baseline", &old, &new], 1);
        assert!(error.contains(part) && error.contains("--force"), "{name}: {error}");
        let out = bench(&["gate", "--baseline", &old, &new, "--force", "--json", "-"]);
        let found = checked(&out.stdout);
        assert_eq!(out.status.code(), Some(0), "{name}: {found:#}");
        assert!(found["unlike"][0].as_str().unwrap().starts_with(part.split(':').next().unwrap()));
    }
}

/// An operation or a percentile that one side has not is not known to be as fast.
#[test]
fn what_one_side_lacks_is_inconclusive() {
    let dir = tempfile::tempdir().unwrap();
    let doc = document();
    let old = folder(&dir.path().join("old"), &doc, 0, 12, 100.0);
    for (name, change, part) in [
        (
            "operation",
            (&|d: &mut Value| drop(d["results"].as_array_mut().unwrap().pop()))
                as &dyn Fn(&mut Value),
            "ring.unmap: in 12 of 12 runs of A, 0 of 12 of B",
        ),
        ("unit", &|d| d["results"][1]["unit"] = "s".into(), "ring.unmap min: it is in \"s\""),
        (
            "histogram",
            &|d| d["results"][1]["hist"]["encoding"] = "odd".into(),
            "ring.unmap p50: histograms of other parameters",
        ),
    ] {
        let mut doc = doc.clone();
        change(&mut doc);
        let new = folder(&dir.path().join(name), &doc, 100, 12, 100.0);
        let out = bench(&["gate", "--baseline", &old, &new, "--json", "-"]);
        let found = checked(&out.stdout);
        assert_eq!(
            (out.status.code(), &found["verdict"]),
            (Some(5), &"inconclusive".into()),
            "{name}"
        );
        assert!(found["reason"].as_str().unwrap().starts_with(part), "{name}: {}", found["reason"]);
        let judged = found["first"]["cells"].as_array().unwrap();
        assert!(judged.iter().all(|c| c["verdict"] == "no-change"), "{name}");
    }
}

#[test]
fn each_format_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let doc = document();
    let old = folder(&dir.path().join("old"), &doc, 0, 12, 100.0);
    let new = folder(&dir.path().join("new"), &doc, 100, 12, 80.0);
    let show = |format: &str| {
        let out = bench(&["compare", &old, &new, "--format", format]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        text(&out.stdout)
    };
    let iommu = show("iommu");
    let lines: Vec<&str> = iommu.lines().collect();
    assert_eq!(lines[0], "iommu_map()");
    assert_eq!(lines[1], "   pgsz  ,avg new,old ns, min new,old ns  , min % (+ve is better)");
    assert_eq!(lines[2], "     2^12,     80,100   ,      80,100     ,  20.00 (ring)");
    assert_eq!(lines[4], "iommu_unmap()");
    assert!(iommu.contains("mock: software PHB, not hardware; verdict: improvement"), "{iommu}");
    let kernel = show("kernel");
    let lines: Vec<&str> = kernel.lines().collect();
    assert_eq!(lines[0], "A: ring");
    assert_eq!(
        lines[1],
        "dma mapping benchmark(SINGLE_MODE): threads:1 seconds:0 node:-1 dir:BIDIRECTIONAL granule:1"
    );
    assert!(lines[2].starts_with("average map latency(us):0.1002 standard deviation:"), "{kernel}");
    assert!(
        lines[3].starts_with("average unmap latency(us):0.1002 standard deviation:"),
        "{kernel}"
    );
    assert!(lines[6].starts_with("average map latency(us):0.0801 "), "{kernel}");
    assert!(kernel.contains("verdict: improvement"));
    let markdown = show("markdown");
    assert!(
        markdown.starts_with("**verdict: improvement (ring.map min: -20.0 %)**\n"),
        "{markdown}"
    );
    let row = "| ring.map | min | 100 ns | 80 ns | -20.00 % | ";
    assert!(
        markdown.lines().any(|l| l.starts_with(row) && l.ends_with(" | improvement |")),
        "{markdown}"
    );
    let table = show("table");
    assert!(table.ends_with("verdict: improvement (ring.map min: -20.0 %)\n"), "{table}");
    assert!(table.contains("(improvement)"), "p99 is not judged: {table}");
    checked(show("json").as_bytes());
}
