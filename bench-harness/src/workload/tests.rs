// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::cli::small;
use crate::result::ResultDoc;

const RIGHT: &str = "\
name = \"mine\"
description = \"what I do\"
seed = 0x10

[window]
size = \"64M\"
levels = 2

[run]
threads = 1

[mix]
pages = { 1 = 3, 16 = 1 }
operations = { map = 9, replace = 1 }

[expect]
verified = true
";

/// `RIGHT` with something else in it: what is said, without the file.
fn faults(from: &str, to: &str) -> String {
    assert!(RIGHT.contains(from), "{from}");
    let error = Workload::parse("mine.toml", &RIGHT.replace(from, to)).expect_err(to).to_string();
    error.replace("mine.toml:", "")
}

#[test]
fn a_workload_is_the_options_that_it_stands_for() {
    let workload = Workload::parse("mine.toml", RIGHT).unwrap();
    assert_eq!((workload.name.as_str(), workload.description.as_str()), ("mine", "what I do"));
    let all: Vec<_> = workload.settings.iter().flat_map(|s| s.arguments.clone()).collect();
    assert_eq!(
        all.join(" "),
        "--seed=16 --window=64M --levels=2 --threads=1 --pages=1:3,16:1 --mix=map=9,replace=1"
    );
    assert_eq!(
        workload.setting("window.size").map(|s| (s.value(), s.line)),
        Some(("64M".into(), 6))
    );
    assert_ne!(workload.digest, digest(""));
    // By `sha256sum` of an empty file.
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(digest(""), empty);
}

#[test]
fn keys_that_are_not_known_are_named_with_the_nearest() {
    for (from, to, said) in [
        (
            "levels",
            "level",
            "7: unknown key of [window] 'level', perhaps levels is meant; accepted: size,",
        ),
        (
            "levels",
            "Page-Size",
            "7: unknown key of [window] 'Page-Size', perhaps page_size is meant",
        ),
        ("threads", "thread", "10: unknown key of [run] 'thread', perhaps threads is meant"),
        (
            "seed",
            "sed",
            "3: unknown key 'sed', perhaps seed is meant; accepted: name, description, seed,",
        ),
        ("[window]", "[windows]", "5: unknown key 'windows', perhaps window is meant"),
        ("verified", "verfied", "17: unknown key of [expect] 'verfied', perhaps verified is meant"),
        ("levels", "colour", "7: unknown key of [window] 'colour'; accepted: size"),
    ] {
        let error = faults(from, to);
        assert!(error.starts_with(said), "{to}: {error}");
    }
}

#[test]
fn wrong_types_and_ranges_are_named_with_their_line() {
    for (from, to, said) in [
        (
            "levels = 2",
            "levels = 6",
            "7: levels: '6' is no number of levels; accepted: 1 to 5, or auto",
        ),
        ("levels = 2", "levels = true", "7: levels: true; accepted: a whole number or a string"),
        ("\"64M\"", "2.5", "6: size: the number 2.5; accepted: a whole number or a string"),
        ("\"64M\"", "\"2.5G\"", "6: size: '2.5G' is not a whole number"),
        (
            "threads = 1",
            "threads = 0",
            "10: threads: '0' is out of range; accepted: a whole number from 1",
        ),
        ("threads = 1", "duration = 5", "10: duration: the number 5; accepted: a string"),
        ("threads = 1", "duration = \"5\"", "10: duration: '5' has no time unit"),
        ("threads = 1", "rate = \"5\"", "10: rate: '5' is no rate"),
        ("16 = 1", "x = 1", "13: pages: 'x:1'; accepted: pages, 1 to"),
        (
            "16 = 1",
            "16 = \"a\"",
            "13: pages: a table; accepted: a whole number or a table of shares",
        ),
        ("replace = 1", "unmap = 1", "14: operations: 'unmap=1'; accepted: map, list and replace"),
        ("[run]", "[run]\nphases = 1\n[run.x]", "10: unknown key of [run] 'phases'"),
        ("verified = true", "verified = false", "17: verified: false; accepted: true"),
        (
            "verified = true",
            "tces_per_call = \"1\"",
            "17: tces_per_call: the string \"1\"; accepted: a number",
        ),
        (
            "verified = true",
            "tces_per_call = { max = 1, min = 2 }",
            "17: tces_per_call: min 2 is more",
        ),
        (
            "verified = true",
            "tces_per_call = { most = 1 }",
            "17: unknown bound of tces_per_call 'most'",
        ),
        ("verified = true", "tces_per_call = {}", "17: tces_per_call: an empty table"),
        ("verified = true", "", " nothing is expected; accepted: [expect]"),
        ("name = \"mine\"\n", "", " there is no name; accepted: name = "),
        ("\"mine\"", "\"a b\"", "1: name: 'a b' is no name"),
        ("\"what I do\"", "7", "2: description: the number 7; accepted: one line of text"),
        (
            "verified = true",
            "rounds = 0",
            "17: rounds: the number 0; accepted: a whole number from 1",
        ),
        ("seed = 0x10", "seed = ", "3: this is no TOML: "),
        ("seed = 0x10", "name = \"b\"", "3: this is no TOML: "),
    ] {
        let error = faults(from, to);
        assert!(error.starts_with(said), "{to}: {error}");
    }
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_lines() {
    let text = RIGHT
        .replace("levels", "level")
        .replace("seed = 0x10", "seed = -1")
        .replace("verified", "x");
    let error = Workload::parse("f", &text).unwrap_err();
    assert_eq!(
        error.faults.iter().map(|f| f.line).collect::<Vec<_>>(),
        [Some(3), Some(7), Some(17)]
    );
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let error = Workload::find("nic-rng").unwrap_err().to_string();
    assert!(error.contains("perhaps nic-ring is meant; accepted: batched-net, "), "{error}");
    let error = Workload::find("none/such.toml").unwrap_err().to_string();
    assert!(error.starts_with("none/such.toml: cannot be read: No such file"), "{error}");
}

#[test]
fn every_workload_of_the_tree_is_built_in_under_its_own_name() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads/synthetic");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_by_key(|name| name.to_lowercase());
    assert_eq!(files, names().iter().map(|name| format!("{name}.toml")).collect::<Vec<_>>());
    for (workload, name) in Workload::built_in().unwrap().iter().zip(names()) {
        assert_eq!(workload.name, name);
        assert!(workload.expect.iter().any(|e| e.key == "verified"), "{name}");
        assert!(workload.expect.len() > 1, "{name} expects nothing that is counted");
        small(workload).unwrap();
    }
}

#[test]
fn the_format_s_documentation_has_every_key() {
    let text = include_str!("../../../workloads/README.md");
    for key in &keys::KEYS {
        assert!(text.contains(&format!("| `{}` |", key.name)), "{} is not documented", key.name);
    }
    for (name, _) in expect::OF_RUN {
        assert!(text.contains(&format!("`{name}`")), "{name} is not documented");
    }
    for name in names() {
        assert!(text.contains(&format!("`{name}`")), "{name} is not listed");
    }
}

#[test]
fn expectations_hold_or_not() {
    let doc: ResultDoc =
        serde_json::from_slice(include_bytes!("../../tests/data/ring.json")).unwrap();
    let found = |key: &str| {
        let text = RIGHT.replace("verified = true", key);
        let workload = Workload::parse("f", &text).unwrap();
        let checks: Vec<_> = workload.expect.iter().map(|e| e.check(&doc)).collect();
        assert_eq!(checks.len(), 1, "{key}");
        checks[0].clone()
    };
    assert!(found("verified = true").right);
    let per_call = found("tces_per_call = 1");
    assert!(per_call.right, "{per_call:?}");
    assert_eq!((per_call.found.as_str(), per_call.wanted.as_str()), ("1", "1"));
    assert!(!found("tces_per_call = { min = 1.001 }").right);
    assert!(found("tces_per_call = { min = 0.5, max = 1.5 }").right);
    assert!(!found("tces_per_call = { max = 0.999 }").right);
    let none = found("requests_per_ioctl = { min = 0 }");
    assert!(!none.right && none.found == "not counted", "{none:?}");
    let none = found("results.\"no.such\".tces_per_call = 1");
    assert!(!none.right && none.key == "results.no.such.tces_per_call", "{none:?}");
    assert!(found("results.\"ring.map\".tces_per_call = 1").right);
    let wrong = ResultDoc { verified: Some(false), ..doc.clone() };
    let workload = Workload::parse("f", RIGHT).unwrap();
    assert!(!workload.expect[0].check(&wrong).right);
}
