// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tells the program what it was built from, for its result files. Nothing here can fail a build:
//! what is not known is left out.

use std::env;
use std::process::Command;

fn main() {
    for path in ["src", "Cargo.toml", "../Cargo.lock", "../engine/src", "../.git/HEAD"] {
        println!("cargo::rerun-if-changed={path}");
    }
    // Moves with each commit and each `git add`; a tarball has none, and then it is not watched.
    if std::path::Path::new("../.git/index").exists() {
        println!("cargo::rerun-if-changed=../.git/index");
    }
    if let Some(git) = output("git", &["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=TCE_BENCH_GIT={git}");
        // No optional locks: a build must not get in the way of a commit being made.
        let status = ["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"];
        let dirty = output("git", &status).is_none_or(|changes| !changes.is_empty());
        println!("cargo::rustc-env=TCE_BENCH_DIRTY={dirty}");
    }
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
    // "rustc 1.95.0 (hash date)": the number is enough.
    if let Some(version) =
        output(&rustc, &["--version"]).as_deref().and_then(|text| text.split_whitespace().nth(1))
    {
        println!("cargo::rustc-env=TCE_BENCH_RUSTC={version}");
    }
    for (name, variable) in [("TARGET", "TCE_BENCH_TARGET"), ("PROFILE", "TCE_BENCH_PROFILE")] {
        if let Ok(value) = env::var(name) {
            println!("cargo::rustc-env={variable}={value}");
        }
    }
}

/// What a command prints, without the line end; `None` if it cannot be run or fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
