// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench doctor`: whether the real back end is usable, and if not, all that is in the way. It opens
//! the nodes of VFIO, asks them and closes them again; nothing is changed.

mod findings;
mod report;
#[cfg(test)]
mod tests;

use serde::Serialize;
use tce_engine::addr::GroupId;
use tce_engine::backend::linux::vfio::{Tree, examine};

use super::{Status, present};
use crate::cli::DoctorConfig;
use crate::host::{self, HostFacts};
use crate::result::Tool;
use crate::run::model;
use crate::run::rig::Plan;
use crate::style::Style;
use findings::{Finding, Level, Seen};

/// The name of the schema.
const SCHEMA: &str = "tce-bench.doctor/1";

/// Modules of the kernel that take part.
pub(super) const MODULES: [&str; 3] = ["vfio", "vfio_pci", "vfio_iommu_spapr_tce"];

/// Looks and reports.
///
/// # Errors
/// What could not be written, one line.
pub fn doctor(config: &DoctorConfig) -> anyhow::Result<Status> {
    let run = &config.run;
    let host = HostFacts::capture();
    // What is needed is a matter of the host's pages and the window, not of the groups.
    let plan = match model::model(run, &host) {
        Ok((machine, _)) => Plan::new(run, &machine, host::mem_available()),
        Err(e) => Err(e.to_string()),
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(message) => return Ok(Status::Usage(message)),
    };
    let tree = Tree::default();
    let wanted: Option<Vec<_>> =
        run.vfio_groups.as_ref().map(|all| all.iter().copied().map(GroupId).collect());
    let (groups, need) = (run.groups as usize, plan.need_locked);
    let examined = examine(&tree, wanted.as_deref(), groups, need, run.vfio_v1);
    let modules = MODULES.map(|name| (name, tree.module(name)));
    let seen = Seen { host: &host, examined: &examined, modules: &modules, plan: &plan };
    let findings = seen.findings(wanted.is_some());
    let doc = Doc::new(findings, &plan, u64::from(run.groups), run.vfio_v1, host);
    let root = rustix::process::geteuid().is_root();
    let text = || report::report(&doc, root, Style::detect());
    present(config.quiet, config.json.as_ref(), &doc, text)?;
    Ok(doc.status())
}

/// What was found.
#[derive(Debug, Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    host: HostFacts,
    /// What was looked for.
    wanted: Wanted,
    usable: bool,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Wanted {
    groups: u64,
    container_version: u8,
    window_bytes: u64,
    page_bytes: u64,
    need_locked_bytes: u64,
}

impl Doc {
    fn new(findings: Vec<Finding>, plan: &Plan, groups: u64, v1: bool, host: HostFacts) -> Self {
        Self {
            schema: SCHEMA,
            tool: Tool::current(),
            host,
            wanted: Wanted {
                groups,
                container_version: if v1 { 1 } else { 2 },
                window_bytes: plan.geometry.size(),
                page_bytes: plan.geometry.page().bytes(),
                need_locked_bytes: plan.need_locked,
            },
            usable: findings.iter().all(|f| f.status != Level::Fail),
            findings,
        }
    }

    fn status(&self) -> Status {
        let Some(first) = self.findings.iter().find(|f| f.status == Level::Fail) else {
            return Status::Ok;
        };
        let fix = first.fix.as_ref().map_or_else(String::new, |fix| format!("; fix: {fix}"));
        Status::Unavailable(format!("the real back end is not usable: {}{fix}", first.text))
    }
}
