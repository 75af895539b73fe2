// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Workloads, sweeps and open loops as a user calls them.

use std::fs;
use std::path::Path;

use crate::common::{bench, fits, refused, text};
use serde_json::{Value, json};

/// Short, and the same number of operations everywhere.
const BRIEF: &[&str] = &["--backend", "mock", "--warmup", "0s", "--repetitions", "2"];

fn brief<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [BRIEF, args].concat()
}

fn json(args: &[&str]) -> Value {
    let out = bench(&[args, &["--json", "-"]].concat());
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one JSON document and nothing else on stdout")
}

fn result<'a>(doc: &'a Value, id: &str) -> &'a Value {
    let results = doc["results"].as_array().unwrap();
    results.iter().find(|r| r["id"] == id).unwrap_or_else(|| panic!("no {id}"))
}

fn file(folder: &tempfile::TempDir, name: &str, content: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

const SMALL: &str = "\
name = \"small\"
description = \"for tests\"
seed = 9

[window]
size = \"64M\"
levels = 2
groups = 2

[mix]
pages = 4
live = 32

[expect]
verified = true
tces_per_call = 4
kills_per_1000_tces = 2000
";

#[test]
fn every_workload_of_the_tree_has_what_it_expects() {
    let out = bench(&["workloads", "verify"]);
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/synthetic");
    let files = fs::read_dir(folder).unwrap().count();
    let report = text(&out.stdout);
    assert_eq!(report.lines().filter(|line| line.starts_with("ok ")).count(), files, "{report}");
}

#[test]
fn what_is_not_as_expected_is_said_with_its_line_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let right = file(&folder, "right.toml", SMALL);
    assert_eq!(bench(&["workloads", "verify", &right]).status.code(), Some(0));
    let wrong = SMALL.replace("kills_per_1000_tces = 2000", "kills_per_1000_tces = { max = 1999 }");
    let wrong = file(&folder, "wrong.toml", &wrong);
    let out = bench(&["workloads", "verify", &right, &wrong]);
    let report = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{report}");
    let line = "wrong: kills_per_1000_tces: 2000, expected 1999 or less (";
    assert!(report.contains(line) && report.contains("wrong.toml:17)"), "{report}");
    assert!(report.starts_with("ok     small\n"), "{report}");
}

#[test]
fn verdicts_are_written_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let right = file(&folder, "right.toml", SMALL);
    let wrong = SMALL.replace("kills_per_1000_tces = 2000", "kills_per_1000_tces = { max = 1999 }");
    let wrong = file(&folder, "wrong.toml", &wrong);
    let broken = file(&folder, "broken.toml", &SMALL.replace("live", "life"));
    let verify = ["workloads", "verify", &right, &wrong, &broken];
    let out = bench(&[&verify[..], &["--json", "-"]].concat());
    let doc: Value = serde_json::from_slice(&out.stdout).expect("one document and nothing else");
    fits("verify", &doc);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!((&doc["right"], &doc["run"]["complete"]), (&false.into(), &true.into()));
    let all = doc["workloads"].as_array().unwrap();
    let verdicts: Vec<_> = all.iter().map(|one| (&one["verdict"], &one["verified"])).collect();
    let (yes, unknown) = (Value::from(true), Value::Null);
    let expected = [("right", &yes), ("wrong", &yes), ("broken", &unknown)];
    assert_eq!(verdicts.len(), 3);
    for ((verdict, verified), found) in expected.iter().zip(&verdicts) {
        assert_eq!((*verdict, *verified), (found.0.as_str().unwrap(), found.1));
    }
    assert_eq!((&all[0]["workload"]["name"], &all[0]["asked"]), (&json!("small"), &json!(right)));
    assert_eq!(all[0]["label"], "mock: software PHB, not hardware");
    let check = all[1]["checks"].as_array().unwrap().iter().find(|c| c["right"] == false).unwrap();
    assert_eq!(check["key"], "kills_per_1000_tces");
    assert_eq!((&check["found"], &check["wanted"]), (&"2000".into(), &"1999 or less".into()));
    assert_eq!(check["line"], 17);
    let why = all[2]["reason"].as_str().unwrap();
    assert!(why.contains("broken.toml:") && why.contains("perhaps live is meant"), "{why}");
    assert_eq!(text(&out.stderr).trim_end(), format!("error: {why}"));
    // Into a file, beside the text or without it; and found out beforehand if it cannot be.
    let path = folder.path().join("verdicts.json");
    let out = bench(&["workloads", "verify", &right, "--json", path.to_str().unwrap()]);
    assert!(out.status.success() && text(&out.stdout).starts_with("ok     small\n"));
    let doc: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(doc["right"], true);
    let quiet = bench(&["workloads", "verify", &right, "--quiet"]);
    assert!(quiet.status.success() && quiet.stdout.is_empty());
    let error = refused(&["workloads", "verify", "--json", "/nowhere/at/all.json"], 1);
    assert!(error.contains("does not exist"), "{error}");
}

#[test]
fn workloads_are_listed_shown_and_checked() {
    let list = text(&bench(&["workloads", "list"]).stdout);
    assert!(
        list.lines().any(|line| line.starts_with("sparse-1T ") && line.contains(" 1T ")),
        "{list}"
    );
    let shown = text(&bench(&["workloads", "show", "nic-ring"]).stdout);
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "copy.toml", &shown);
    assert!(bench(&["workloads", "check", &path, "nic-ring"]).status.success());
    assert!(bench(&["workloads", "check"]).status.success());
    let broken = shown.replace("page_size", "pagesize").replace("512", "0");
    let broken = file(&folder, "broken.toml", &broken);
    let out = bench(&["workloads", "check", &broken, &path]);
    let (errors, rest) = (text(&out.stderr), text(&out.stdout));
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(errors.lines().count(), 2, "{errors}");
    assert!(
        errors.contains("unknown key of [window] 'pagesize', perhaps page_size is meant"),
        "{errors}"
    );
    assert!(errors.contains("live: '0' is out of range"), "{errors}");
    assert!(rest.contains("nic-ring is right"), "{rest}");
    // Right by itself, but not together; the line is that of the setting that is named.
    let odd = file(&folder, "odd.toml", &SMALL.replace("\"64M\"", "\"48M\""));
    let error = text(&bench(&["workloads", "check", &odd]).stderr);
    assert!(error.contains("odd.toml:6: --window 48M"), "{error}");
    assert!(refused(&["workloads", "show", "nic-rng"], 1).contains("perhaps nic-ring is meant"));
    assert!(refused(&["workloads", "check", "./no-such.toml"], 1).contains("cannot be read"));
}

#[test]
fn a_run_says_its_workload_and_what_the_command_line_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "small.toml", SMALL);
    let doc = json(&brief(&["--workload", &path]));
    fits("result", &doc);
    let config = &doc["config"];
    assert_eq!(config["workload"]["name"], "small");
    assert_eq!(config["workload"]["overridden"], Value::from(Vec::<Value>::new()));
    assert_eq!((&config["window_bytes"], &config["groups"]), (&(64 << 20).into(), &2.into()));
    assert_eq!((&config["mix"]["pages"], &config["mix"]["live"]), (&"4".into(), &32.into()));
    assert_eq!(doc["run"]["seed"], 9);
    assert_eq!(config["phases"], Value::from(vec!["mix"]));
    assert_eq!((&doc["verified"], &result(&doc, "mix.map")["count"]), (&true.into(), &512.into()));
    let typed = ["run", "--groups", "1", "--workload", &path, "--pages=2", "--seed", "9"];
    let other = json(&[&typed[..], BRIEF].concat());
    let told = &other["config"]["workload"];
    assert_eq!(told["overridden"], Value::from(vec!["seed", "window.groups", "mix.pages"]));
    assert_eq!(told["digest"], config["workload"]["digest"]);
    assert_eq!(
        (&other["config"]["groups"], &other["config"]["mix"]["pages"]),
        (&1.into(), &"2".into())
    );
    // Phases that are named replace those of the file.
    let bulk =
        json(&brief(&["--workload", "bulk-guest-ram", "--window", "64M", "--phase", "batch"]));
    assert_eq!(bulk["config"]["phases"], Value::from(vec!["batch"]));
    let ring = json(&brief(&["--workload", &path, "--phase", "ring"]));
    assert_eq!((&ring["config"]["mix"], &ring["verified"]), (&Value::Null, &true.into()));
    assert!(
        refused(&["--workload", "bulk", "--quiet"], 2)
            .contains("accepted: batched-net, bulk-guest-ram")
    );
    let bad = file(&folder, "bad.toml", &SMALL.replace("levels = 2", "levels = 9\nfoo = 1"));
    let error = refused(&["--workload", &bad], 2);
    assert!(error.contains("bad.toml:7: levels: '9'") && error.contains("and 1 more"), "{error}");
}

#[test]
fn the_same_seed_gives_the_same_mix() {
    let args = ["--window", "64M", "--mix", "map=5,list=3,replace=2", "--pages", "1:1,8:1"];
    let more = ["--order", "random", "--place", "random", "--threads", "2"];
    let args = brief(&[&args[..], &more[..]].concat());
    let counts = |seed: &str| {
        let doc = json(&[&args[..], &["--seed", seed]].concat());
        assert_eq!(doc["verified"], true);
        let ids = ["mix.map", "mix.unmap", "mix.list", "mix.replace"];
        ids.map(|id| (result(&doc, id)["count"].clone(), result(&doc, id)["tces"].clone()))
    };
    let one = counts("1");
    assert_eq!(one, counts("1"));
    assert_ne!(one, counts("2"));
    let number = |n: usize| one[n].0.as_u64().unwrap();
    // Two threads, two turns; what is mapped is unmapped in the end.
    assert_eq!(number(0) + number(2) + number(3), 1024);
    assert_eq!(number(1), number(0) + number(2));
    assert!(number(2) > 100 && number(3) > 50, "{one:?}");
}

#[test]
fn a_mix_with_kills_that_wait_is_verified() {
    for policy in ["batched=8", "deferred=64"] {
        let args = ["--window", "64M", "--pages", "2", "--live", "16", "--order", "lifo"];
        let mixed = ["--mix", "map=2,list=1,replace=1", "--policy", policy];
        let doc = json(&brief(&[&args[..], &mixed[..]].concat()));
        assert_eq!(doc["verified"], true, "{policy}");
        assert_eq!(doc["counters"]["kills_issued"], doc["counters"]["register_stores"], "{policy}");
    }
}

#[test]
fn a_sweep_is_one_run_for_each_value_in_one_document() {
    let args = brief(&["--window", "64M", "--sweep", "pages=1..16*4", "--sweep", "groups=1,2"]);
    let doc = json(&args);
    fits("sweep", &doc);
    let runs = doc["runs"].as_array().unwrap();
    let values: Vec<_> = runs.iter().map(|run| run["values"].to_string()).collect();
    let expected = [(1, 1), (1, 2), (4, 1), (4, 2), (16, 1), (16, 2)];
    let expected = expected.map(|(p, g)| format!("{{\"groups\":\"{g}\",\"pages\":\"{p}\"}}"));
    assert_eq!(values, expected);
    for (run, (pages, groups)) in
        runs.iter().zip([(1, 1), (1, 2), (4, 1), (4, 2), (16, 1), (16, 2)])
    {
        fits("result", &run["result"]);
        let map = result(&run["result"], "mix.map");
        assert_eq!(map["tces"], pages * map["count"].as_u64().unwrap());
        assert_eq!(map["kills_per_1000_tces"], 1000.0 * f64::from(groups));
    }
    assert_eq!((&doc["verified"], &doc["run"]["complete"]), (&true.into(), &true.into()));
    let table = text(&bench(&brief(&["--window", "64M", "--sweep", "live=1,2"])).stdout);
    assert_eq!(table.lines().filter(|line| line.contains("  mix.map ")).count(), 2, "{table}");
    let swept = json(&brief(&["--workload", "many-groups", "--sweep", "groups=1,3"]));
    let told = &swept["runs"][1]["result"]["config"];
    assert_eq!(
        (&told["groups"], &told["workload"]["overridden"]),
        (&3.into(), &vec!["window.groups"].into())
    );
}

#[test]
fn sweeps_that_cannot_be_are_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.json");
    let to = path.to_str().unwrap();
    for (sweep, said) in [
        ("pages=1..8", "has no step"),
        ("containers=1,2", "--sweep --containers=2: --containers 2 is more than --groups 1"),
        ("threads=1,64", "threads=64: --threads 64 is more than"),
        ("live=1,100000", "live=100000: --live 100000 requests"),
        ("rate=1/s..10/s*10", "--rate"),
    ] {
        let args = [
            "--window",
            "64M",
            "--threads",
            "1",
            "--sweep",
            sweep,
            "--json",
            to,
            "--phase",
            "ring",
        ];
        // Some are for phase mix.
        let args = if sweep.starts_with("rate") { &args[..] } else { &args[..8] };
        let error = refused(&brief(args), 2);
        assert!(error.contains(said), "{sweep}: {error}");
        assert!(!path.exists());
    }
    let twice = ["--sweep", "pages=1", "--sweep", "pages=2"];
    assert!(refused(&brief(&twice), 2).contains("--sweep pages twice"));
    assert!(
        refused(&brief(&["--sweep", "pages=1", "--hlog", "x"]), 2).contains("--hlog with --sweep")
    );
    let full = bench(&brief(&["--window", "64M", "--sweep", "pages=1", "--json", "/dev/full"]));
    assert_eq!(full.status.code(), Some(1), "{}", text(&full.stderr));
}

#[test]
fn an_open_loop_is_labelled_and_one_out_of_reach_is_warned_of() {
    // Of 512 operations none can be done in a nanosecond, whatever the machine.
    let args = brief(&["--window", "64M", "--rate", "1000M/s", "--live", "8"]);
    let doc = json(&args);
    fits("result", &doc);
    assert_eq!(doc["config"]["rate_per_s"], 1_000_000_000);
    let response = result(&doc, "mix.response");
    let open = &response["open_loop"];
    assert_eq!((&response["count"], &open["asked_per_s"]), (&512.into(), &1_000_000_000.into()));
    assert!(open["achieved_per_s"].as_f64().unwrap() < 9.9e8, "{open}");
    assert!(open["late"].as_u64().unwrap() > 500, "{open}");
    assert_eq!(
        (&response["ns_per_tce"], &result(&doc, "mix.map")["open_loop"]),
        (&Value::Null, &Value::Null)
    );
    // Waiting is part of it, so the longest is longer than any call.
    let max = |id: &str| result(&doc, id)["latency"]["max"].as_f64().unwrap();
    assert!(max("mix.response") > max("mix.map"));
    let mut warnings = doc["warnings"].as_array().unwrap().iter();
    assert!(warnings.any(|w| w["code"] == "RATE_NOT_REACHED"));
    let out = bench(&args);
    let table = text(&out.stdout);
    assert!(
        table.contains("mix.response: open loop, ") && table.contains("nothing omitted"),
        "{table}"
    );
    assert!(table.contains("--rate 1000000000/s was not reached"), "{table}");
    let closed = json(&brief(&["--window", "64M", "--live", "8"]));
    assert_eq!(
        (&closed["config"]["rate_per_s"], &closed["results"][2]),
        (&Value::Null, &Value::Null)
    );
    assert!(refused(&["--rate", "5"], 2).contains("accepted: operations per second"));
    assert!(refused(&["--rate", "5/s", "--phase", "ring"], 2).contains("--rate is for phase mix"));
    assert!(refused(&["--rate", "2/s", "--threads", "3"], 2).contains("3/s or more"));
}
