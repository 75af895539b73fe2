// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the CLI tests share.

#![allow(dead_code)] // every test binary uses its own part

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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
