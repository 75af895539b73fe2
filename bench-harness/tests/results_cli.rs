// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Result files when something goes wrong: a full disk, a program that is killed, Ctrl-C.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{interrupted, misfits, text, wait_for_handler};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_tce-bench");
const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads/traces/net-rx.tce.zst");

fn names(dir: &Path) -> Vec<String> {
    let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    fs::read_dir(dir).unwrap().map(name).collect()
}

/// A disk of 8 KiB, which nobody else sees, with an old result on it. `$0` is where, `$@` what is run there.
const FULL: &str = r#"
mount -t tmpfs -o size=8k none "$0" || exit 99
echo old >"$0/out"
"$@" >"$0.said" 2>&1
echo "$? $(cat "$0/out") $(ls -A "$0")" >"$0.found"
"#;

/// What the program said on a full disk, and what was found then; `None` if nobody may make one here.
fn on_a_full_disk(args: &[&str]) -> Option<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", FULL]).arg(&disk).arg(BENCH).args(args);
    let out = command.arg(disk.join("out")).output();
    match out {
        Ok(out) if out.status.success() => {}
        Ok(out) => {
            println!("SKIPPED: no disk of its own: {}", text(&out.stderr).trim());
            return None;
        }
        Err(e) => {
            println!("SKIPPED: unshare: {e}");
            return None;
        }
    }
    let read = |what| fs::read_to_string(disk.with_extension(what)).unwrap();
    Some((read("said"), read("found")))
}

/// The old file is whole, nothing lies beside it, and what to do is said.
#[test]
fn a_full_disk_keeps_the_old_result() {
    let run = ["--backend", "mock", "--window", "4M", "--warmup", "0s", "--repetitions", "1"];
    let run = [&run[..], &["--phase", "bulk", "--quiet", "--json"]].concat();
    let cut = ["trace", "cut", TRACE, "--calls", "1-900000", "--quiet", "-o"];
    let ring = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ring.json");
    let report = ["report", ring, "-o"];
    let sweep = [&run[..8], &["--sweep", "groups=1,2"], &run[8..]].concat();
    let verify = ["workloads", "verify", "nic-ring", "nvme-sg", "churn", "-q", "--json"];
    let cost = ["cost", "--backend", "mock", "--repeat", "1", "--quiet", "--json"];
    let (sharing, hazards) = (["sharing", "-q", "--json"], ["hazards", "-q", "--json"]);
    for args in [&run[..], &cut, &report, &sweep, &verify, &cost, &sharing, &hazards] {
        let Some((said, found)) = on_a_full_disk(args) else { return };
        assert_eq!(found.trim(), "1 old out", "{args:?}: {said}");
        let line = said.lines().last().unwrap_or_default();
        let expected = "/disk/out': No space left on device; nothing was changed there: make room, or name \
                        a file on another disk";
        assert!(line.starts_with("error: cannot write '") && line.ends_with(expected), "{said}");
    }
}

/// A result comes into being by a rename at the end: who is killed before has touched nothing.
#[test]
fn a_run_that_is_killed_keeps_the_old_result() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.json");
    fs::write(&file, "old").unwrap();
    let mut child = Command::new(BENCH)
        .args(["--backend", "mock", "--window", "64M", "--duration", "1h", "--json"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_handler(&child);
    std::thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "ended by the signal");
    assert_eq!(
        (fs::read_to_string(&file).unwrap(), names(dir.path())),
        ("old".into(), vec!["out.json".to_owned()])
    );
}

/// What there is of a result says that it is not all, and so does the program. Each would go on for minutes.
#[test]
fn partial_results_say_so() {
    let (traces, names) = ([TRACE; 400], ["nic-ring"; 400]);
    let (groups, kernels) = (["256"; 2000].join(","), ["k6_11"; 20_000].join(","));
    let mock = ["--backend", "mock", "--window", "64M", "--phase", "bulk", "--duration", "1h"];
    let kinds: [&[&str]; 7] = [
        &["teardown", "--rounds", "10000", "--quiet", "--json"],
        &[&["replay", "--quiet"], &traces[..], &["--json"]].concat(),
        &["sharing", "--groups", &groups, "--quiet", "--json"],
        &["hazards", "--profile", &kernels, "--quiet", "--json"],
        &["cost", "--backend", "mock-kernel", "--repeat", "10000", "--quiet", "--json"],
        &[&mock[..], &["--sweep", "groups=1,2", "--quiet", "--json"]].concat(),
        &[&["workloads", "verify"], &names[..], &["--quiet", "--json"]].concat(),
    ];
    for args in kinds {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("partial.json");
        let code = interrupted(args, &file, Duration::from_millis(500));
        assert_eq!(code, Some(130), "{}", args[0]);
        let doc: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(doc["run"]["complete"], false, "{}", args[0]);
        for verdict in ["verified", "passed", "right"] {
            assert_ne!(doc[verdict], true, "{}", args[0]);
        }
        let schema = doc["schema"].as_str().expect("a schema");
        let name = schema.strip_prefix("tce-bench.").and_then(|name| name.strip_suffix("/1"));
        let errors = misfits(name.expect("one of ours"), &doc);
        assert!(errors.is_empty(), "{}: {errors:?}", args[0]);
        assert_eq!(self::names(dir.path()), ["partial.json"]);
    }
}

/// The same without a document: it is said, and nothing of what was not done is called right.
#[test]
fn tables_of_what_was_interrupted_say_so() {
    let groups = ["256"; 2000].join(",");
    let mock = ["--backend", "mock", "--window", "64M", "--phase", "bulk", "--duration", "1h"];
    let kinds: [&[&str]; 3] = [
        &["sharing", "--groups", &groups],
        &["cost", "--backend", "mock-kernel", "--repeat", "10000"],
        &[&mock[..], &["--sweep", "groups=1,2"]].concat(),
    ];
    for args in kinds {
        let mut command = Command::new(BENCH);
        let child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        wait_for_handler(&child);
        std::thread::sleep(Duration::from_millis(300));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let out = child.wait_with_output().unwrap();
        let table = text(&out.stdout);
        assert_eq!(out.status.code(), Some(130), "{}: {}", args[0], text(&out.stderr));
        assert!(table.contains("interrupted"), "{table}");
        assert!(!table.contains("all verified") && !table.contains("as the rules"), "{table}");
    }
}
