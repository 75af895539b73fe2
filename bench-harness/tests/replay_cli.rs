// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench replay` as a user meets it: exit codes, messages, files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::common::fits;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn trace(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../workloads/traces/{name}.tce.zst"))
}

fn plain(name: &str) -> String {
    let packed = fs::read(trace(name)).unwrap();
    String::from_utf8(zstd::decode_all(packed.as_slice()).unwrap()).unwrap()
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tce-bench"));
    command.arg("replay").env_remove("NO_COLOR");
    command
}

fn replay(arguments: &[&Path]) -> Output {
    command().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Fails with exit code 1, nothing on stdout and one line on stderr, which is returned.
fn refused(arguments: &[&Path]) -> String {
    let output = replay(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    let line = text(&output.stderr).strip_suffix('\n').unwrap();
    assert!(line.starts_with("error: ") && !line.contains('\n'), "{line}");
    line.to_string()
}

#[test]
fn recorded_boots_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (json, hlog) = (dir.path().join("out.json"), dir.path().join("out.hlog"));
    let (fallback, ddw) = (trace("boot-ddw-fallback"), trace("boot-ddw"));
    let output = replay(&[
        &fallback,
        &ddw,
        Path::new("--json"),
        &json,
        Path::new("--hlog"),
        &hlog,
        Path::new("--host-page=4K"),
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stderr), "", "no bar where there is no terminal");
    let table = text(&output.stdout);
    for words in ["mock: software PHB, not hardware", "boot-ddw-fallback", "total", "p99.9"] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(table.contains("verified: true") && !table.contains('\x1b'), "{table}");

    let doc: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!((&doc["verified"], &doc["run"]["complete"]), (&true.into(), &true.into()));
    assert_eq!(doc["replay"]["total"]["calls"], 546 + 1089);
    assert_eq!(doc["replay"]["total"]["tces_mapped"], 57 + 32_896);
    let entries = 262_144 * 3 + 65_536 + 256;
    assert_eq!(doc["replay"]["total"]["final_entries"], entries);
    assert_eq!(doc["verification"]["translations"], entries);
    assert!(doc["replay"]["traces"][1]["calls_per_s"].as_f64().unwrap() > 0.0);
    let ids: Vec<_> =
        doc["results"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["put", "indirect", "stuff", "get"]);
    assert_eq!(doc["results"][2]["count"], 525 + 1024);
    assert_eq!(doc["counters"]["kills_issued"], doc["counters"]["register_stores"]);
    assert_eq!(doc["counters"]["pinned_end_bytes"], 0);
    fits("result", &doc);
    assert!(fs::read_to_string(&hlog).unwrap().contains("\nTag=stuff,"));
}

#[test]
fn one_document_on_stdout_and_passes_by_name() {
    let output = command()
        .arg(trace("boot-ddw-fallback"))
        .args(["--json", "-", "--pass", "latency", "--simd", "portable", "--seed", "7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let doc: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(doc["config"]["passes"], serde_json::json!(["latency"]));
    assert_eq!(doc["config"]["simd"], "portable");
    // Nothing was compared, so nothing is verified, and the document says why.
    assert_eq!(doc["verified"], false);
    assert_eq!(doc["warnings"][0]["code"], "NOT_CHECKED");
    assert_eq!(doc["replay"]["traces"][0]["calls_per_s"], Value::Null);
    let quiet = replay(&[&trace("boot-ddw-fallback"), Path::new("-q")]);
    assert_eq!((quiet.status.code(), quiet.stdout.len(), quiet.stderr.len()), (Some(0), 0, 0));
}

#[test]
fn a_doctored_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (path, json) = (dir.path().join("doctored.tce"), dir.path().join("out.json"));
    let original = plain("boot-ddw-fallback");
    let (nth, line) =
        original.lines().enumerate().find(|(_, line)| line.contains(" put ")).unwrap();
    // The return code: the third column from the right.
    let mut columns: Vec<&str> = line.split(' ').collect();
    columns[6] = "-4";
    let doctored = original.replacen(line, &columns.join(" "), 1);
    fs::write(&path, doctored).unwrap();
    let output = replay(&[&path, Path::new("--json"), &json]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let begin = format!("error: {}:{}: put ", path.display(), nth + 1);
    let error = text(&output.stderr).lines().next().unwrap();
    assert!(error.starts_with(&begin), "{error}");
    assert!(error.ends_with("expected ret -4 (H_PARAMETER), got 0 (H_SUCCESS)"), "{error}");
    assert!(text(&output.stdout).contains("verified: false"));
    let doc: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(doc["verified"], false);
    let first = doc["verification"]["first_mismatch"].as_str().unwrap();
    assert_eq!(format!("error: {first}"), error);
    assert!(doc["replay"]["traces"][0]["mismatches"].as_u64().unwrap() >= 1);
}

#[test]
fn guest_ram_below_the_targets_is_a_mismatch() {
    let output = replay(&[
        &trace("boot-ddw-fallback"),
        Path::new("--ram=1M"),
        Path::new("--pass=throughput"),
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains(": throughput pass, first of "), "{output:?}");
    let output = replay(&[&trace("boot-ddw-fallback"), Path::new("--ram=1000")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn broken_traces_are_one_line_and_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("out.json");
    let good = trace("boot-ddw-fallback");
    let packed = fs::read(&good).unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let mut corrupt = packed.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0x55);
    let text = plain("boot-ddw-fallback");
    let cut = &text[..text.len() - 10];
    let field = text.replacen(" stuff ", " stuf ", 1);
    let cases = [
        (write("truncated.zst", &packed[..packed.len() - 100]), "truncated or corrupt"),
        (write("corrupt.zst", &corrupt), ":"),
        (write("cut.tce", cut.as_bytes()), "truncated"),
        (write("field.tce", field.as_bytes()), "unknown op 'stuf'"),
        (write("empty.tce", b""), "empty"),
        (dir.path().join("missing.tce"), "No such file"),
    ];
    for (path, words) in &cases {
        // A good trace before it does not make the result any better.
        let line = refused(&[&good, path, Path::new("--json"), &json]);
        assert!(line.starts_with(&format!("error: {}:", path.display())), "{line}");
        assert!(line.contains(words), "{line}");
        assert!(!json.exists(), "{line}");
    }
}

#[test]
fn a_full_disk_and_a_missing_directory_are_one_line() {
    let good = trace("boot-ddw-fallback");
    let output = replay(&[&good, Path::new("-q"), Path::new("--json"), Path::new("/dev/full")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stderr), "error: cannot write '/dev/full': No space left on device\n");
    let line = refused(&[&good, Path::new("--json"), Path::new("/nonexistent/out.json")]);
    assert!(line.contains("'/nonexistent' does not exist"), "{line}");
}

#[test]
fn an_interrupt_writes_a_partial_result() {
    let dir = tempfile::tempdir().unwrap();
    let (path, json) = (dir.path().join("endless.tce"), dir.path().join("out.json"));
    // Comparing the entries of a terabyte window takes minutes.
    let lines = "# tce-trace 1\n0 window-create 0x80000000 0x0 12 268435456 0 - -\n\
                 5 put 0x80000000 0x1000 0x5003 1 0 0 1\n";
    fs::write(&path, lines).unwrap();
    let mut child =
        command().args([&path, Path::new("--json"), &json]).stdout(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    crate::common::wait_for_handler(&child);
    // Into the checked pass.
    std::thread::sleep(Duration::from_millis(300));
    kill_process(pid, Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let doc: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!((&doc["run"]["complete"], &doc["verified"]), (&false.into(), &false.into()));
    assert_eq!(doc["counters"]["pinned_end_bytes"], 0);
}
