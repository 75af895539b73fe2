// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench merge` as a user calls it, with real runs.

use std::fs;

use crate::common::{bench, fits, refused, text};
use serde_json::{Value, json};

/// Short enough for a debug build.
const SMALL: &str = "--backend mock --window 4M --phase ring --warmup 0s --repetitions 2 --quiet";

fn valid(text: &[u8]) -> Value {
    let doc: Value = serde_json::from_slice(text).expect("one document");
    fits("result", &doc);
    doc
}

#[test]
fn runs_add_up_and_the_sum_is_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let mut calls = [0, 0];
    for nth in 0..3 {
        let file = at(&format!("{nth}.json"));
        let label = format!("task {nth}");
        let args: Vec<&str> =
            SMALL.split(' ').chain(["--label", &label, "--json", &file]).collect();
        let out = bench(&args);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let doc: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for (sum, result) in calls.iter_mut().zip(doc["results"].as_array().unwrap()) {
            *sum += result["count"].as_u64().unwrap();
        }
    }
    let files: Vec<String> = (0..3).map(|nth| at(&format!("{nth}.json"))).collect();
    let out = bench(&["merge", &files[0], &files[1], &files[2], "-o", &at("all.json")]);
    let said = text(&out.stderr);
    assert!(out.status.success() && out.stdout.is_empty(), "{said}");
    let total = calls.iter().sum::<u64>();
    assert!(said.starts_with("3 run(s) of 1 host(s): 2 operation(s), "), "{said}");
    assert!(said.contains(&format!(" {total} calls, ")), "{said}");
    let doc = valid(&fs::read(at("all.json")).unwrap());
    for (sum, result) in calls.iter().zip(doc["results"].as_array().unwrap()) {
        assert_eq!(result["count"], *sum);
    }
    assert_eq!((&doc["verified"], &doc["run"]["label"]), (&json!(true), &Value::Null));
    let labels: Vec<_> =
        doc["hosts"].as_array().unwrap().iter().map(|h| &h["run"]["label"]).collect();
    assert_eq!(labels, ["task 0", "task 1", "task 2"]);

    // In steps, and to standard output.
    assert!(bench(&["merge", "-q", &files[2], &files[0], "-o", &at("two.json")]).status.success());
    let out = bench(&["merge", "-q", &at("two.json"), &files[1], "-o", "-"]);
    assert_eq!(out.stdout, fs::read(at("all.json")).unwrap());
    assert!(out.stderr.is_empty());
    // A part of it is no other run.
    let error = refused(&["compare", &at("all.json"), &files[1]], 1);
    assert!(error.contains("it is no news of itself"), "{error}");
    let args: Vec<&str> = SMALL.split(' ').chain(["--json"]).collect();
    let other = at("other.json");
    assert!(bench(&[args, vec![&other]].concat()).status.success());
    let error = refused(&["compare", &at("all.json"), &other], 1);
    assert!(error.contains("merged runs: 3 and 0"), "{error}");
    let out = bench(&["compare", "--force", &at("all.json"), &other]);
    assert!(out.status.success() && text(&out.stdout).contains("verdict: inconclusive"));
}

#[test]
fn broken_and_partial_files_are_named_and_left_out_only_if_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let good: Value = serde_json::from_str(include_str!("data/ring.json")).unwrap();
    fs::write(at("good.json"), good.to_string()).unwrap();
    let mut partial = good.clone();
    partial["run"]["complete"] = false.into();
    partial["run"]["id"] = "01OTHER".into();
    fs::write(at("partial.json"), partial.to_string()).unwrap();
    fs::write(at("cut.json"), &good.to_string()[..700]).unwrap();
    fs::write(at("empty.json"), "").unwrap();
    let broken = ["partial.json", "cut.json", "empty.json", "missing.json"];
    let out = at("out.json");
    let good = at("good.json");
    let names: Vec<String> = broken.iter().map(|name| at(name)).collect();
    let mut args = vec!["merge", "-o", &out, &good];
    args.extend(names.iter().map(String::as_str));
    let error = refused(&args, 1);
    for (name, why) in names.iter().zip(["interrupted", "not JSON", "not JSON", "cannot be read"]) {
        assert!(error.contains(&format!("'{name}'")) && error.contains(why), "{error}");
    }
    assert!(error.contains("--skip-unusable merges the others"), "{error}");
    assert!(!fs::exists(&out).unwrap());

    args.push("--skip-unusable");
    let done = bench(&args);
    let said = text(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("left out: '")).count(), 4, "{said}");
    let doc = valid(&fs::read(&out).unwrap());
    let left_out: Vec<_> =
        doc["warnings"].as_array().unwrap().iter().filter(|w| w["code"] == "LEFT_OUT").collect();
    assert_eq!((doc["hosts"].as_array().unwrap().len(), left_out.len()), (1, 4));
    let gha = bench(&["export", "--to", "gha", &out]);
    assert!(text(&gha.stdout).contains("1 run(s) merged"));
    // Nothing is left of what is unusable alone.
    let error = refused(&["merge", "--skip-unusable", "-q", &names[1], "-o", &at("none.json")], 1);
    assert!(error.contains("none of 1 files is a usable result"), "{error}");
    // Nor does the option help what does not fit.
    let error = refused(&["merge", "--skip-unusable", "-q", &good, &out, "-o", "-"], 1);
    assert!(error.contains("count twice"), "{error}");
}
