// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench doctor`, `info`, `plan`, `completions` and `man` as a user calls them.

use std::fs;
use std::process::Command;

use crate::common::{bench, refused, text};
use serde_json::Value;

fn document(args: &[&str]) -> Value {
    let out = bench(args);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {out:?}"))
}

/// What a plan says is what the run then reports.
fn planned_as_run(line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let short =
        ["--phase", "bulk", "--repetitions", "1", "--warmup", "0s", "--quiet", "--json", "-"];
    let with = |command: &'static str| document(&[&[command], &words[..], &short].concat());
    let (plan, run) = (with("plan"), with("run"));
    assert_eq!(run["verified"], true, "{line}");
    assert_eq!(plan["config"], run["config"], "{line}");
    for field in [
        "kind",
        "label",
        "groups",
        "group_numbers",
        "container_version",
        "bridges",
        "page_sizes",
        "max_windows",
        "max_levels",
        "table_nodes",
    ] {
        assert_eq!(plan["backend"][field], run["backend"][field], "{line}: {field}");
    }
    let (memory, counters) = (&plan["memory"], &run["counters"]);
    for (planned, counted) in [
        ("table_charge_bytes", "table_charge_bytes"),
        ("need_locked_bytes", "pinned_peak_bytes"),
        ("table_blocks", "table_blocks"),
    ] {
        assert_eq!(memory[planned], counters[counted], "{line}: {planned}");
    }
    let used = &run["backend"]["table_memory"]["used_bytes"];
    assert_eq!(&memory["table_bytes"], used, "{line}");
    assert_eq!(memory["memlock_fits"], true);
}

#[test]
fn a_run_on_the_mock_is_as_it_was_planned() {
    for line in [
        "--backend mock --window 64M --buffer 16M --groups 4 --levels 2",
        "--backend mock --window 64M --buffer 16M --groups 4 --containers 2 --levels 1",
        "--backend mock --window 1G --page-size 64K --host-page 4K --levels 3 --buffer 8M",
        "--backend mock --platform phb4 --window 64G --page-size 2M --buffer 64M --seed 7",
        "--backend mock --platform ioda1 --groups 2 --containers 2 --window 256M --buffer 4M",
    ] {
        planned_as_run(line);
    }
}

#[test]
fn a_run_on_a_simulated_kernel_is_as_it_was_planned() {
    for line in [
        "--backend mock-kernel --window 64M --buffer 16M --groups 2 --levels 2",
        "--backend mock-kernel --window 64M --buffer 4M --vfio-groups 5,2 --detach isolate",
        "--backend mock-kernel --vfio-v1 --buffer 1M",
        "--profile k4_9 --platform phb4 --window 64M --buffer 4M --host-page 4K",
    ] {
        planned_as_run(line);
    }
}

#[test]
fn dry_run_is_plan() {
    let settings = ["--backend", "mock", "--window", "64M", "--buffer", "1M", "--json", "-"];
    let plan = document(&[&["plan"], &settings[..]].concat());
    for command in [&["run", "--dry-run"][..], &["--dry-run"]] {
        let dry = document(&[command, &settings].concat());
        assert_eq!((&dry["schema"], &dry["table"]), (&plan["schema"], &plan["table"]));
        assert_eq!(dry["schema"], "tce-bench.plan/1");
    }
    let out = bench(&["plan", "--backend", "mock", "--window", "2G", "--levels", "2"]);
    let table = text(&out.stdout);
    assert!(out.status.success(), "{}", text(&out.stderr));
    for part in ["524,288 TCEs", "window 2 GiB (0x80000000) at 0x0", "huge pages: none needed"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn wrong_usage_is_exit_2() {
    for (args, part) in [
        (&["plan", "--window", "3G"][..], "not a power of two"),
        (&["plan", "--dma-mask", "32,65"], "'65' is no number of bits; accepted: 1 to 64"),
        (&["plan", "--hlog", "-"], "--hlog of a plan, which measures nothing"),
        (&["doctor", "--window", "3G"], "not a power of two"),
        (&["doctor", "--vfio-groups", "1,x"], "'x' is no group number"),
        (&["doctor", "--groups", "2", "--vfio-groups", "1"], "--vfio-groups names 1"),
        (&["completions", "csh"], "csh"),
        (&["completions"], "SHELL"),
    ] {
        let error = refused(args, 2);
        assert!(error.contains(part), "{args:?}: {error}");
    }
    let named = ["plan", "--backend", "vfio", "--vfio-groups", "4294967295"];
    assert!(refused(&named, 4).contains("; fix: "));
}

/// No group has so high a number, so that this is true of every machine.
const NO_GROUP: [&str; 3] = ["doctor", "--vfio-groups", "4294967295"];

#[test]
fn a_doctor_who_finds_something_ends_with_exit_4_and_says_what() {
    let out = bench(&NO_GROUP);
    let (table, error) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(4), "{error}");
    assert!(table.contains("FAIL") && table.ends_with("\nnot usable\n"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colour outside a terminal");
    assert!(error.starts_with("error: the real back end is not usable: "), "{error}");
    assert_eq!(error.lines().count(), 1);

    let doc = document(&[&NO_GROUP[..], &["--json", "-"]].concat());
    assert_eq!((&doc["schema"], &doc["usable"]), (&"tce-bench.doctor/1".into(), &false.into()));
    let fails = doc["findings"].as_array().unwrap().iter().filter(|f| f["status"] == "fail");
    assert!(fails.count() > 0);
    assert!(bench(&[&NO_GROUP[..], &["--quiet"]].concat()).stdout.is_empty());
}

#[test]
fn documents_that_cannot_be_written_are_an_error() {
    let plan = ["plan", "--backend", "mock", "--window", "64M", "--buffer", "1M"];
    for command in [&["info"][..], &NO_GROUP, &plan] {
        let out = bench(&[command, &["--json", "/dev/full"]].concat());
        assert_eq!(out.status.code(), Some(1), "{command:?}");
        assert!(text(&out.stderr).contains("/dev/full"), "{command:?}: {}", text(&out.stderr));
    }
    assert_eq!(bench(&["man", "--dir", "/nowhere"]).status.code(), Some(1));
}

#[test]
fn info_has_lines_or_a_document() {
    let out = bench(&["info"]);
    let lines = text(&out.stdout);
    assert!(out.status.success() && out.stderr.is_empty());
    for part in ["processor", "page size", "memlock limit", "modules", "SIMD tiers"] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    let doc = document(&["info", "--json", "-"]);
    assert_eq!(doc["schema"], "tce-bench.info/1");
    assert_eq!(doc["host"]["page_size"], rustix::param::page_size());
}

/// Runs a script in bash with the completions in its file `$1`.
fn in_bash(script: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tce-bench.bash");
    fs::write(&file, bench(&["completions", "bash"]).stdout).unwrap();
    let out = Command::new("bash")
        .args(["--norc", "-uec", script, "bash"])
        .arg(&file)
        .output()
        .expect("bash is there");
    assert!(out.status.success() && out.stderr.is_empty(), "{script}: {}", text(&out.stderr));
    text(&out.stdout)
}

#[test]
fn bash_completes_commands_and_options() {
    in_bash("bash -n \"$1\"");
    let complete = |words: &str, at: usize, word: &str| {
        in_bash(&format!(
            "set +u; source \"$1\"; COMP_WORDS=({words}); COMP_CWORD={at}; \
             _tce__bench tce-bench '{word}' x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        ))
    };
    let commands = complete("tce-bench do", 1, "do");
    assert_eq!(commands.lines().collect::<Vec<_>>(), ["doctor"]);
    let options = complete("tce-bench plan --dma", 2, "--dma");
    assert_eq!(options.lines().collect::<Vec<_>>(), ["--dma-mask"]);
    let registered = in_bash("set +u; source \"$1\"; complete -p tce-bench");
    assert!(registered.contains("-F _tce__bench tce-bench"), "{registered}");
}

#[test]
fn other_shells_have_completions() {
    for (shell, part) in [("zsh", "#compdef tce-bench"), ("fish", "complete -c tce-bench")] {
        let out = bench(&["completions", shell]);
        assert!(text(&out.stdout).contains(part) && out.status.success(), "{shell}");
    }
}

#[test]
fn manual_pages_are_written_and_render_without_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let out = bench(&["man", "--dir", dir.path().to_str().unwrap()]);
    assert!(out.status.success() && out.stdout.is_empty(), "{}", text(&out.stderr));
    let first = fs::read(dir.path().join("tce-bench.1")).unwrap();
    assert_eq!(bench(&["man"]).stdout, first);
    let mut pages: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert!(pages.len() > 15, "{pages:?}");
    // Where there is no groff, the pages are still looked at by their own test.
    if Command::new("groff").arg("--version").output().is_err() {
        return;
    }
    for page in &pages {
        let mut groff = Command::new("groff");
        let out = groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(page).output().unwrap();
        let warnings = text(&out.stderr);
        assert!(out.status.success() && warnings.is_empty(), "{}: {warnings}", page.display());
    }
}
