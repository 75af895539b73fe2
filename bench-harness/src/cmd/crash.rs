// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench crash`: runs of this program are killed (SIGKILL) at random moments, and after each kill
//! nothing may be left behind: not in the system, not for others, not for the next run.
//!
//! It starts its victims, and the bystander, as processes of the same program: what a killed process
//! leaves is seen from outside only.

mod bystander;
mod moment;
mod processes;
mod report;
mod result;
mod rounds;
mod victims;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use tce_engine::addr::{GroupId, PageShift};
use tce_engine::backend::linux::vfio::{Tree, examine};

use super::{Status, check_outputs, present, show};
use crate::cli::{BackendChoice, CrashConfig};
use crate::host::HostFacts;
use crate::interrupt::interrupted;
use crate::kernel::Unavailable;
use crate::outfile::OutFile;
use crate::result::{Run, Tool, Warning};
use crate::run::lists::Random;
use crate::size::format_arg;
use crate::style::Style;
use bystander::{Answer, Bystander};
use processes::System;
use result::{Beside, Doc, Failure, Longest, SCHEMA, Settings};
use rounds::Rounds;
use victims::Kind;

/// Pages of the bystander's window, and of the fresh run's.
const PAGES: u64 = 1024;

/// Runs the rounds and reports.
///
/// # Errors
/// What failed other than a check, one line.
pub fn crash(config: &CrashConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    if config.is_bystander {
        return match bystander::serve(config) {
            Ok(()) => Ok(Status::Ok),
            Err(e) if e.is::<Unavailable>() => Ok(Status::Unavailable(format!("{e:#}"))),
            Err(e) => Err(e),
        };
    }
    let output = &config.run.output;
    check_outputs(output)?;
    let mut warnings = Vec::new();
    let groups = match groups(config, &mut warnings) {
        Ok(groups) => groups,
        Err(e) => return Ok(Status::Unavailable(e.to_string())),
    };
    let (started, begin) = (SystemTime::now(), Instant::now());
    let host = HostFacts::capture();
    let page = PageShift::from_bytes(host.page_size)
        .ok_or_else(|| anyhow!("pages of {} bytes are unknown", host.page_size))?;
    let kinds = match &groups {
        Some(groups) => victims::real(groups.len() - 1, page, &host.hugepages),
        None => victims::simulated(&config.traces),
    };
    let victims_groups = groups.as_ref().map_or(&[][..], |groups| &groups[1..]);
    let bystander = Bystander::start(beside(config, groups.as_deref())?)?;
    let hello = bystander.hello.clone();
    let before = System::now();
    let mut doc = Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(started, argv, None, config.run.seed),
        host,
        label: hello.label,
        kernel: hello.kernel,
        machine: hello.machine,
        config: Settings {
            backend: if groups.is_some() { "vfio" } else { "mock" },
            rounds: config.rounds,
            bystander_group: groups.as_ref().map(|groups| groups[0].0),
            groups: victims_groups.iter().map(|group| group.0).collect(),
            patience_s: config.patience.as_secs_f64(),
        },
        rounds: 0,
        ended_before: 0,
        kills_at: BTreeMap::new(),
        kills_of: BTreeMap::new(),
        temporary_files: 0,
        longest: Longest::default(),
        bystander: Beside {
            locked_bytes: bystander.locked_bytes,
            charged_bytes: hello.charged_bytes,
            standing: hello.standing,
            ..Beside::default()
        },
        before: before.clone(),
        after: before.clone(),
        failures: Vec::new(),
        kills: Vec::new(),
        warnings,
        verified: None,
    };
    let directory = tempfile::Builder::new().prefix("tce-bench-crash-").tempdir()?;
    let mut rounds = Rounds {
        directory: directory.path(),
        fresh: fresh(groups.is_some(), page),
        groups: victims_groups,
        patience: config.patience,
        bystander,
        before,
        courses: vec![None; kinds.len()],
        kinds: &kinds,
        random: Random::new(config.run.seed),
        answer: Answer::default(),
        unproven: groups.is_some() && hello.devices.is_empty(),
        ended_before: 0,
    };
    let aloud = !output.quiet && output.json != Some(OutFile::Stdout);
    for number in 1..=config.rounds {
        if interrupted() {
            break;
        }
        match rounds.round(number) {
            Ok(None) => break,
            Ok(Some(kill)) => {
                show(aloud, || report::line(&kill));
                doc.add(kill);
            }
            // What comes after it could be its consequence.
            Err(e) => {
                doc.failures.push(Failure { round: number, what: format!("{e:#}") });
                break;
            }
        }
    }
    doc.run.complete = !interrupted();
    doc.ended_before = rounds.ended_before;
    doc.bystander.add(rounds.answer);
    doc.after = System::now();
    if let Err(e) = rounds.bystander.end() {
        doc.failures.push(Failure { round: 0, what: format!("{e:#}") });
    }
    if rounds.unproven {
        let text = "not verified: no device whose DMA this tool can drive in some of the groups";
        doc.warnings.push(Warning::new("NO_DMA_PROOF", text));
    }
    let well = doc.failures.is_empty() && doc.run.complete && doc.rounds == config.rounds;
    doc.verified = if well && rounds.unproven { None } else { Some(well) };
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    present(output.quiet, output.json.as_ref(), &doc, || report::table(&doc, Style::detect()))?;
    Ok(Status::of(doc.run.complete || !doc.failures.is_empty(), doc.verified))
}

/// The real groups to use, the bystander's first; `None` for mocks.
fn groups(
    config: &CrashConfig,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Vec<GroupId>>, Unavailable> {
    if config.run.backend == BackendChoice::Mock {
        return Ok(None);
    }
    let named: Option<Vec<_>> =
        config.run.vfio_groups.as_ref().map(|all| all.iter().copied().map(GroupId).collect());
    let seen = examine(&Tree::default(), named.as_deref(), 2, 0, false);
    let usable = || seen.groups.iter().filter(|g| g.usable.is_ok()).map(|g| g.group).collect();
    match seen.container.and(seen.enough) {
        Ok(()) => Ok(Some(named.unwrap_or_else(usable))),
        Err(e) if config.run.backend == BackendChoice::Auto && named.is_none() => {
            let text = format!("no vfio: {}; processes with mocks are killed", e.cause());
            warnings.push(Warning::new("NO_VFIO", text));
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

/// The command that is the bystander.
fn beside(config: &CrashConfig, groups: Option<&[GroupId]>) -> anyhow::Result<Command> {
    let mut command = processes::program()?;
    command.args(["crash", "--bystander", "--seed", &config.run.seed.to_string(), "--backend"]);
    match groups {
        Some(groups) => command.args(["vfio", "--vfio-groups", &groups[0].to_string()]),
        None => command.arg("mock"),
    };
    Ok(command)
}

/// The run after each kill.
fn fresh(real: bool, page: PageShift) -> Kind {
    let size = |bytes| format_arg(bytes);
    let more =
        format!("--window {} --page-size {}", size(PAGES * page.bytes()), size(page.bytes()));
    if real {
        Kind::fresh(1, &format!("--backend vfio {more}"))
    } else {
        Kind::fresh(0, &format!("--backend mock {more}"))
    }
}
