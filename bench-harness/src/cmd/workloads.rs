// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench workloads`: what there is, whether it is right, and whether what it expects comes out.

mod verify;

use anyhow::anyhow;

use super::{Status, show};
use crate::cli::{WorkloadsConfig, small};
use crate::columns::table;
use crate::interrupt::interrupted;
use crate::style::Style;
use crate::workload::{Faults, Workload, names};

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
                Err(faults) => {
                    complain(&lines(&faults));
                    return Ok(Status::Failed);
                }
            };
            show(true, || workload.text.clone());
            Ok(Status::Ok)
        }
        WorkloadsConfig::Check(names) => Ok(check(names)),
        WorkloadsConfig::Verify(config) => verify::verify(config, &argv),
    }
}

fn check(names: &[String]) -> Status {
    let mut right = true;
    for name in asked(names).iter().take_while(|_| !interrupted()) {
        match usable(name) {
            Ok(Workload { origin, name, .. }) => {
                show(true, || format!("{origin}: {name} is right\n"))
            }
            Err(lines) => {
                complain(&lines);
                right = false;
            }
        }
    }
    if right { Status::Ok } else { Status::Failed }
}

/// What was asked for, or all of the program.
fn asked(asked: &[String]) -> Vec<String> {
    if asked.is_empty() {
        return names().into_iter().map(str::to_owned).collect();
    }
    asked.to_vec()
}

/// A workload that is right by itself, or all that is wrong, a line each.
fn usable(name: &str) -> Result<Workload, Vec<String>> {
    let workload = Workload::find(name).map_err(|faults| lines(&faults))?;
    small(&workload).map_err(|text| vec![text])?;
    Ok(workload)
}

fn lines(faults: &Faults) -> Vec<String> {
    faults.to_string().lines().map(str::to_owned).collect()
}

/// Each on a line of standard error.
fn complain(lines: &[String]) {
    for line in lines {
        eprintln!("error: {line}");
    }
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
