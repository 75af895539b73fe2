// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench workloads`: what there is, whether it is right, and whether what it expects comes out.

use std::fmt::Write as _;

use anyhow::anyhow;

use super::run::measure;
use super::{Status, show};
use crate::cli::{WorkloadsConfig, small};
use crate::columns::table;
use crate::interrupt::interrupted;
use crate::style::Style;
use crate::workload::{Check, Faults, Workload, names};

/// Does it.
///
/// # Errors
/// What failed, one line.
pub fn workloads(config: &WorkloadsConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    match config {
        WorkloadsConfig::List => list(),
        WorkloadsConfig::Show(name) => {
            let workload = match Workload::find(name) {
                Ok(workload) => workload,
                Err(faults) => return Ok(told(&faults)),
            };
            show(true, || workload.text.clone());
            Ok(Status::Ok)
        }
        WorkloadsConfig::Check(names) => {
            let (_, right) = each(names, |workload| {
                println(&format!("{}: {} is right", workload.origin, workload.name));
                true
            });
            Ok(if right { Status::Ok } else { Status::Failed })
        }
        WorkloadsConfig::Verify(names) => verify(names, &argv),
    }
}

fn println(line: &str) {
    show(true, || format!("{line}\n"));
}

/// Each fault on a line of standard error.
fn told(faults: &Faults) -> Status {
    for line in faults.to_string().lines() {
        eprintln!("error: {line}");
    }
    Status::Failed
}

/// Calls `f` with each workload that is right by itself; those done, and whether all were right and `f`
/// was true of them.
fn each(asked: &[String], mut f: impl FnMut(&Workload) -> bool) -> (usize, bool) {
    let own = || names().into_iter().map(str::to_owned).collect();
    let asked: Vec<String> = if asked.is_empty() { own() } else { asked.to_vec() };
    let (mut done, mut right) = (0, true);
    for name in asked.iter().take_while(|_| !interrupted()) {
        let found = Workload::find(name).map_err(|faults| drop(told(&faults)));
        let found = found.and_then(|workload| match small(&workload) {
            Ok(_) => Ok(workload),
            Err(text) => {
                eprintln!("error: {text}");
                Err(())
            }
        });
        right &= found.is_ok_and(|workload| f(&workload));
        done += 1;
    }
    (done, right)
}

fn list() -> anyhow::Result<Status> {
    let all = Workload::built_in().map_err(|faults| anyhow!("{faults}"))?;
    let heads = ["name", "window", "pages", "groups", "threads", ""];
    let mut rows: Vec<[String; 6]> = vec![heads.map(str::to_owned)];
    for workload in &all {
        let value = |key: &str, usual: &str| {
            workload.setting(key).map_or(usual.to_owned(), |setting| setting.value())
        };
        rows.push([
            workload.name.clone(),
            value("window.size", "2G"),
            value("window.page_size", "4K"),
            value("window.groups", "1"),
            value("run.threads", "1"),
            workload.description.clone(),
        ]);
    }
    show(true, || {
        let mut out = String::new();
        table(&mut out, &rows, Style::detect());
        out
    });
    Ok(Status::Ok)
}

/// Runs each once and prints what was expected and what came out.
fn verify(asked: &[String], argv: &[String]) -> anyhow::Result<Status> {
    let mut failed = None;
    let (_, right) = each(asked, |workload| {
        if failed.is_some() {
            return false;
        }
        match verify_one(workload, argv) {
            Ok(right) => right,
            Err(e) => {
                failed = Some(e.context(workload.name.clone()));
                false
            }
        }
    });
    match failed {
        Some(e) => Err(e),
        None if interrupted() => Ok(Status::Interrupted),
        None if right => Ok(Status::Ok),
        None => Ok(Status::Failed),
    }
}

fn verify_one(workload: &Workload, argv: &[String]) -> anyhow::Result<bool> {
    let config = small(workload).map_err(|e| anyhow!(e))?;
    let doc = match measure(&config, argv.to_vec())? {
        Ok(measured) if interrupted() => return Ok(measured.doc.run.complete),
        Ok(measured) => measured.doc,
        Err(Status::Usage(text) | Status::Unavailable(text)) => return Err(anyhow!(text)),
        Err(_) => return Ok(false),
    };
    let mut checks: Vec<Check> = workload.expect.iter().map(|e| e.check(&doc)).collect();
    checks.sort_by_key(|check| check.line);
    // Expected or not: counts of wrong work mean nothing.
    let verified = doc.verified == Some(true);
    let right = verified && checks.iter().all(|check| check.right);
    let style = Style::detect();
    let mut out = String::new();
    let mark = if right { style.green("ok    ") } else { style.red("FAILED") };
    let _ = writeln!(out, "{mark} {}", workload.name);
    if !verified && checks.iter().all(|check| check.right) {
        let why = doc.verification.first_mismatch.as_deref().unwrap_or("nobody could be asked");
        let _ = writeln!(out, "       not verified: {why}");
    }
    for Check { key, line, wanted, found, right } in &checks {
        let at = if *right { String::new() } else { format!(" ({}:{line})", workload.origin) };
        let sign = if *right { String::new() } else { style.red("wrong: ") };
        let _ = writeln!(out, "       {sign}{key}: {found}, expected {wanted}{at}");
    }
    show(true, || out);
    Ok(right)
}
