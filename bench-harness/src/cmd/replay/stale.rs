// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench stale`: a trace on a software PHB that remembers translations, while devices read and write
//! through it, under each kill policy. Nothing here is a measurement of time.

mod guest;
mod plan;
mod promises;
mod report;
mod stage;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use serde::Serialize;
use tce_engine::backend::mock::agents::Violation;
use tce_engine::papr::Compat;

use self::plan::Plan;
use self::stage::{Ran, Stage};
use super::guests;
use super::model::Model;
use super::progress::Progress;
use super::script::{Call, Script};
use crate::cli::StaleConfig;
use crate::cmd::{Status, present};
use crate::interrupt::interrupted;
use crate::policy::{Fill, Policy};
use crate::result::{MOCK_LABEL, Run, Tool};
use crate::style::Style;
use crate::trace::TraceError;

/// The document's schema.
const SCHEMA: &str = "tce-bench.stale/1";
/// PEs that kill registers of a bridge can name.
const MOST_PES: u64 = 256;

/// Everything that was found. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    run: Run,
    label: &'static str,
    trace: Trace,
    config: Settings,
    rows: Vec<Row>,
    /// No device found anything that it must not, in any row; all answers and entries were the trace's; and
    /// nothing was left. False if a signal ended it.
    verified: bool,
}

#[derive(Debug, Serialize)]
struct Trace {
    /// As the user named it.
    file: String,
    name: String,
    /// Hypercalls of one turn.
    calls: u64,
    vcpus: u64,
    phbs: u64,
}

#[derive(Debug, Serialize)]
struct Settings {
    platform: &'static str,
    /// PEs behind each PHB.
    groups: u64,
    threads: u64,
    /// Turns through the trace, of all threads together.
    loops: u64,
    devices: u64,
    /// Accesses for each hypercall, at least.
    pace: u64,
    cache_entries: u64,
    /// Where the rule for fills does not say another.
    cache_line: u64,
}

/// One policy. Numbers are of all threads together.
#[derive(Debug, Serialize)]
struct Row {
    policy: String,
    fill: String,
    /// Turns that came to their end.
    loops: u64,
    /// Hypercalls.
    calls: u64,
    /// Pages that they mapped, replaced or unmapped.
    pages: u64,
    /// Of devices.
    accesses: u64,
    /// Accesses of which it was known what they must find.
    judged: u64,
    /// Accesses that reached a page.
    reached: u64,
    violations: u64,
    /// The first of them, in words, with all that happened to the page.
    first_violations: Vec<String>,
    /// Answers, translations and entries that were not the trace's.
    mismatches: u64,
    first_mismatch: Option<String>,
    /// `xlate` lines compared.
    translations: u64,
    /// Entries compared after the turns, by H_GET_TCE and by the PHB.
    entries: u64,
    /// Stores to kill registers.
    register_stores: u64,
    /// Times that a handle settled what it owed, and most pages whose kills one owed.
    retirements: u64,
    most_held_back: u64,
    wall_s: f64,
    verified: bool,
}

/// Replays the trace under each policy and writes what was found.
///
/// # Errors
/// One line: a trace that cannot be read or watched, with file and line, a guest that cannot be set up, or
/// a result that cannot be written.
pub fn stale(config: &StaleConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let (started, begin) = (SystemTime::now(), Instant::now());
    let mut script = match guests::load(&config.workload, config.calls.into(), config.seed)? {
        Ok(script) => script,
        Err(message) => return Ok(Status::Usage(message)),
    };
    script.on_vcpus();
    if let Err(message) = check_pes(config, &script) {
        return Ok(Status::Usage(message));
    }
    let mut doc = Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(started, argv, config.label.clone(), config.seed),
        label: MOCK_LABEL,
        trace: Trace {
            file: script.file.clone(),
            name: script.name.clone(),
            calls: script.counts.calls(),
            vcpus: script.vcpus.into(),
            phbs: script.phbs.len() as u64,
        },
        config: config.into(),
        rows: Vec::new(),
        verified: false,
    };
    let rows = (config.policies.len() * config.fills.len()) as u64;
    let steps = script.steps.len() as u64 * u64::from(config.loops);
    let progress = Progress::new(rows * steps, config.quiet);
    for &policy in &config.policies {
        for &fill in &config.fills {
            if !interrupted() {
                progress.name(format!("{policy} · fill {fill}"));
                let (row, violations) = row(config, &script, (policy, fill), &progress)?;
                complain(&row, &violations);
                doc.rows.push(row);
            }
        }
    }
    progress.clear();
    doc.run.complete = !interrupted();
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    doc.verified = doc.run.complete && doc.rows.iter().all(|row| row.verified);
    present(config.quiet, config.json.as_ref(), &doc, || report::table(&doc, Style::detect()))?;
    Ok(Status::of(doc.run.complete, Some(doc.verified)))
}

impl From<&StaleConfig> for Settings {
    fn from(config: &StaleConfig) -> Self {
        Self {
            platform: config.platform.name(),
            groups: config.groups.into(),
            threads: config.threads.into(),
            loops: config.loops.into(),
            devices: config.devices.into(),
            pace: config.pace.into(),
            cache_entries: config.cache.entries as u64,
            cache_line: config.cache.line as u64,
        }
    }
}

fn check_pes(config: &StaleConfig, script: &Script) -> Result<(), String> {
    let phbs = script.phbs.len() as u64;
    if phbs == 0 {
        return Err(format!(
            "{}: no PHB; accepted: a trace with a window at power on",
            script.file
        ));
    }
    let pes = u64::from(config.threads) * phbs * u64::from(config.groups);
    if pes <= MOST_PES {
        return Ok(());
    }
    Err(format!(
        "--threads {} with --groups {} behind each of {phbs} PHBs are {pes} PEs; accepted: up to {MOST_PES}",
        config.threads, config.groups
    ))
}

/// The trace under one policy.
fn row(
    config: &StaleConfig,
    script: &Script,
    (policy, fill): (Policy, Fill),
    progress: &Progress,
) -> Result<(Row, Vec<Violation>), TraceError> {
    let batched = policy.batch().map(|batch| {
        let mut script = script.clone();
        script.batch(batch);
        script
    });
    let script = batched.as_ref().unwrap_or(script);
    let plan = Plan::new(script, config.threads)?;
    let mut left = Model::new(script, Compat::Arch);
    script.steps.iter().for_each(|step| left.apply(step, script));
    let stage = Stage::new(config, script, (&plan, &left), (policy, fill), progress);
    let ran = stage.run()?;
    let calls = script.steps.iter().any(|step| !matches!(step.call, Call::Xlate { .. }));
    Ok((Row::new((policy, fill), &ran, calls), ran.violations))
}

impl Row {
    /// `calls`: the trace has any, so that devices have had something to judge.
    fn new((policy, fill): (Policy, Fill), ran: &Ran, calls: bool) -> Self {
        let [accesses, judged, reached] = ran.accesses;
        let right = ran.violation_count == 0 && ran.mismatches.count == 0;
        Self {
            policy: policy.to_string(),
            fill: fill.to_string(),
            loops: ran.counts.loops,
            calls: ran.counts.calls,
            pages: ran.counts.pages,
            accesses,
            judged,
            reached,
            violations: ran.violation_count,
            first_violations: ran.violations.iter().map(Violation::to_string).collect(),
            mismatches: ran.mismatches.count,
            first_mismatch: ran.mismatches.first.first().cloned(),
            translations: ran.counts.xlates,
            entries: ran.counts.entries,
            register_stores: ran.register_stores,
            retirements: ran.debts.retirements,
            most_held_back: ran.debts.most_pages,
            wall_s: ran.took.as_secs_f64(),
            verified: right && ran.complete && (judged > 0 || !calls),
        }
    }
}

/// Says on stderr what was wrong.
fn complain(row: &Row, violations: &[Violation]) {
    let under = format!("{}, fill {}", row.policy, row.fill);
    let mut text = String::new();
    if let Some(line) = &row.first_mismatch {
        text += &format!("error: {under}: {line}\n");
    }
    for violation in violations {
        text += &format!("error: {under}: {violation}\n");
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}
