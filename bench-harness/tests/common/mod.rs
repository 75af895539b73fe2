// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What these tests share.

pub(crate) mod hlog;
pub(crate) mod shell;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Runs the built program to its end.
pub(crate) fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tce-bench"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the built binary runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// In what a document differs from the schema of that name.
pub(crate) fn misfits(schema: &str, doc: &Value) -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/schema");
    let rules = fs::read(format!("{folder}/tce-bench.{schema}-1.schema.json")).expect("a schema");
    let rules = serde_json::from_slice(&rules).expect("JSON");
    assert!(jsonschema::meta::is_valid(&rules), "the schema itself is wrong");
    let rules = jsonschema::validator_for(&rules).expect("a schema's rules");
    rules.iter_errors(doc).map(|e| e.to_string()).collect()
}

/// A document fits the schema of that name.
#[track_caller]
pub(crate) fn fits(schema: &str, doc: &Value) {
    assert_eq!(misfits(schema, doc), Vec::<String>::new());
}

/// One line on standard error, nothing else, and the code.
pub(crate) fn refused(args: &[&str], code: i32) -> String {
    let out = bench(args);
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {error}");
    assert!(error.starts_with("error: ") && error.lines().count() == 1, "{args:?}: {error}");
    assert!(out.stdout.is_empty());
    error
}

/// Starts the program, which goes on for longer than this, sends it SIGINT after a while and returns
/// its exit code. `file` is its last argument.
pub(crate) fn interrupted(args: &[&str], file: &Path, after: Duration) -> Option<i32> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tce-bench"))
        .args(args)
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the built binary runs");
    wait_for_handler(&child);
    std::thread::sleep(after);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it still runs");
    child.wait().expect("our child").code()
}

/// Returns when the program catches SIGINT: before that, the signal would just kill it.
pub(crate) fn wait_for_handler(child: &Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !catches_sigint(child.id()) {
        assert!(Instant::now() < deadline, "no handler");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// True once the process has a handler for SIGINT, signal 2.
fn catches_sigint(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 << 1 != 0)
}
