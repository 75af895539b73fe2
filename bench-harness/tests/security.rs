// SPDX-License-Identifier: Apache-2.0 OR MIT
//! SECURITY.md: each promise has tests, and they are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::{bench, text};
use serde_json::{Value, json};
use tce_bench::fuzz::TARGETS;

const SECURITY: &str = include_str!("../../SECURITY.md");

/// A document of a real run.
const RUN: &str = include_str!("data/ring.json");

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Cells of the table that begins with a row of these heads.
fn rows<const N: usize>(heads: [&str; N]) -> Vec<[&'static str; N]> {
    let head = format!("| {} |", heads.join(" | "));
    let table = SECURITY.split_once(&head).unwrap_or_else(|| panic!("no table {head}")).1;
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        cells.try_into().unwrap_or_else(|_| panic!("not {N} cells: {line}"))
    };
    lines.map(cells).collect()
}

/// What stands between back quotes.
fn quoted(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split('`').skip(1).step_by(2)
}

/// True if `name` is a test of `source`, or what a case of the conformance test runs.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim_start).collect();
    let Some(at) = lines.iter().position(|line| line.starts_with(&format!("fn {name}("))) else {
        return false;
    };
    let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    let mut attributes = attributes.copied();
    attributes.any(|line| line == "#[test]")
        || source.contains(&format!(".engine({name})"))
        || source.contains(&format!(".raw({name})"))
}

#[test]
fn every_promise_has_tests_and_they_exist() {
    let senders = rows(["from", "to", "what"]);
    let promises = rows(["from", "promise", "shown by"]);
    let mut programs = BTreeSet::new();
    let mut of = BTreeSet::new();
    for [from, promise, shown] in promises {
        assert!(!promise.is_empty() && quoted(shown).next().is_some(), "{from}: {promise}");
        of.insert(from);
        for test in quoted(shown) {
            let (file, name) = test.split_once("::").unwrap_or((test, ""));
            let source = fs::read_to_string(root().join(file));
            let source = source.unwrap_or_else(|e| panic!("{promise}: {file}: {e}"));
            match file.strip_prefix("fuzz/fuzz_targets/") {
                Some(program) if name.is_empty() => _ = programs.insert(program),
                _ => assert!(is_test(&source, name), "{promise}: {name} is no test of {file}"),
            }
        }
    }
    // All who can send something, and nobody else.
    let named = |from: &&str| senders.iter().any(|[sender, ..]| sender.contains(*from));
    assert!(of.iter().all(named) && of.len() == senders.len(), "{of:?}: {senders:?}");
    let all = TARGETS.map(|(name, _)| format!("{name}.rs"));
    let missing: Vec<_> = all.iter().filter(|name| !programs.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "fuzz targets behind no promise: {missing:?}");
}

#[test]
fn what_is_no_test_is_none() {
    let source = "#[test]\n#[ignore]\nfn a() {}\nfn b() {}\ncase.engine(c)\nfn c() {}";
    assert_eq!(["a", "b", "c", "d"].map(|name| is_test(source, name)), [true, false, true, false]);
}

#[test]
fn links_lead_somewhere() {
    for (at, _) in SECURITY.match_indices("](") {
        let target = SECURITY[at + 2..].split(')').next().unwrap();
        assert!(root().join(target).exists(), "no {target}");
    }
}

/// Colours, a title, a line that says something else.
const HOSTILE: &str = "\u{1b}[31m\u{1b}]0;title\u{7}\r\nverdict: no change\u{9b}";

/// Nothing but text and ends of lines.
fn is_plain(output: &[u8]) -> bool {
    !text(output).contains(|c: char| c.is_control() && c != '\n')
}

#[test]
fn what_a_document_says_does_not_control_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, nth: usize, doc: &Value| -> String {
        let mut doc = doc.clone();
        doc["run"]["id"] = format!("01TEST{nth:020}").into();
        let path = dir.path().join(name);
        fs::write(&path, doc.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut doc: Value = serde_json::from_str(RUN).unwrap();
    for place in ["/backend/label", "/tool/git", "/host/hostname", "/host/cpu/model"] {
        *doc.pointer_mut(place).unwrap() = HOSTILE.into();
    }
    doc["run"]["label"] = HOSTILE.into();
    doc["warnings"] = json!([{"code": HOSTILE, "text": HOSTILE}]);
    for result in doc["results"].as_array_mut().unwrap() {
        let op = result["op"].as_str().unwrap();
        result["id"] = format!("{HOSTILE}.{op}").into();
    }
    let (a, b) = (file("a.json", 1, &doc), file("b.json", 2, &doc));
    for format in ["table", "markdown", "iommu", "kernel"] {
        let out = bench(&["compare", &a, &b, "--format", format]);
        let (said, told) = (text(&out.stdout), text(&out.stderr));
        assert!(out.status.success() && said.contains("\\u{1b}[31m"), "{format}: {said:?} {told}");
        assert!(is_plain(&out.stdout), "{format}: {said:?}");
        assert_eq!(said.matches("\nverdict: no change").count(), 0, "{format}: {said}");
    }
    // What is refused, and why, quotes it too.
    let mut wrong = doc.clone();
    wrong["schema"] = HOSTILE.into();
    let wrong = file("wrong.json", 3, &wrong);
    let mut unverified = doc.clone();
    unverified["verified"] = false.into();
    unverified["verification"]["first_mismatch"] = HOSTILE.into();
    let unverified = file("unverified.json", 4, &unverified);
    let folder = dir.path().to_str().unwrap();
    let cases: [(&[&str], i32); 4] = [
        (&["compare", &a, &wrong], 1),
        (&["compare", &a, &unverified], 1),
        (&["merge", &a, &b, &unverified, "--skip-unusable", "--output", "/dev/null"], 0),
        (&["report", "--trend", folder, "--output", "/dev/null"], 0),
    ];
    for (args, code) in cases {
        let out = bench(args);
        let told = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {told}");
        assert!(!told.is_empty() && is_plain(&out.stderr), "{args:?}: {told:?}");
    }
}
