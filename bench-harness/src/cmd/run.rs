// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench [run]`: sets up, runs the phases, checks, reports.

pub(super) mod facts;

use std::time::{Instant, SystemTime};

use anyhow::Context;

use super::profiler::{self, Profiler};
use super::{Status, bar, check_outputs, write_outputs};
use crate::cli::RunConfig;
use crate::clock::Clock;
use crate::cpus;
use crate::host::{self, HostFacts};
use crate::interrupt::interrupted;
use crate::kernel::Unavailable;
use crate::recorder::Recorder;
use crate::result::{
    BackendKind, Config, Counters, OpResult, ResultDoc, Run, SCHEMA, Skipped, SweepPoint, Tool,
    Verification, Warning,
};
use crate::run::exposure;
use crate::run::leave;
use crate::run::machine::Machine;
use crate::run::phase::{self, Outcome};
use crate::run::report::report;
use crate::run::rig::{Plan, Rig};
use crate::slow;
use crate::style::Style;

/// What a run gave.
pub(super) struct Measured {
    pub(super) doc: ResultDoc,
    pub(super) recorders: Vec<(String, Recorder)>,
    started: SystemTime,
}

impl Measured {
    /// How the run ended.
    pub(super) fn status(&self) -> Status {
        Status::of(self.doc.run.complete, self.doc.verified)
    }
}

/// Runs and reports.
///
/// # Errors
/// What failed, one line.
pub fn run(config: &RunConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    let measured = match measure(config, argv)? {
        Ok(measured) => measured,
        Err(status) => return Ok(status),
    };
    let Measured { doc, recorders, started } = &measured;
    let text = report(doc, recorders, Style::detect());
    write_outputs(&config.output, doc, *started, recorders, &text)?;
    Ok(measured.status())
}

/// Why a run cannot be, as far as that can be told without running; and nothing stays taken.
pub(super) fn refused(config: &RunConfig) -> Option<Status> {
    ready(config, &mut Vec::new()).err()
}

/// The machine, open, and what is to be done on it.
fn ready(config: &RunConfig, warnings: &mut Vec<Warning>) -> Result<(Machine, Plan), Status> {
    if let Some(cpus) = &config.cpus
        && let Err(message) = cpus::check(cpus)
    {
        return Err(Status::Usage(message));
    }
    warnings.extend(slow::from_env().map_err(Status::Usage)?);
    let machine =
        Machine::open(config, warnings).map_err(|e| Status::Unavailable(e.to_string()))?;
    // What can be refused before anything is taken.
    let plan = Plan::new(config, &machine, host::mem_available()).map_err(Status::Usage)?;
    machine.check_memlock(config, &plan).map_err(|e| Status::Unavailable(e.to_string()))?;
    Ok((machine, plan))
}

/// Runs; nothing is written.
///
/// # Errors
/// What failed, one line.
pub(super) fn measure(
    config: &RunConfig,
    argv: Vec<String>,
) -> anyhow::Result<Result<Measured, Status>> {
    let mut warnings = Vec::new();
    let (machine, plan) = match ready(config, &mut warnings) {
        Ok(ready) => ready,
        Err(status) => return Ok(Err(status)),
    };
    check_outputs(&config.output)?;

    let started = SystemTime::now();
    let begin = Instant::now();
    let clock = Clock::measure();
    if let Some(text) = machine.chosen().filter(|_| !config.output.quiet) {
        eprintln!("using {text}");
    }
    let mut rig = match Rig::new(config, &plan, machine) {
        Ok(rig) => rig,
        Err(e) if e.is::<Unavailable>() => return Ok(Err(Status::Unavailable(format!("{e:#}")))),
        Err(e) => return Err(e),
    };
    let progress = bar(config.phases.len() as u64, config.output.quiet);
    let devices = rig.device_names();
    let dma = facts::dma(&devices);
    let mut verification = Verification { dma, ..Verification::default() };
    let mut verified = true;
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut skipped = Vec::new();
    warnings.extend(profiler::warning(&config.output));
    warnings.extend(facts::strict_phases(config));
    let profiler = Profiler::start(&config.output)?;
    for phase in config.phases.iter().copied() {
        if interrupted() {
            break;
        }
        progress.set_message(phase.name());
        if let Some(reason) = phase::impossible(phase, &rig.machine) {
            skipped.push(Skipped { id: phase.name().to_owned(), reason });
            progress.inc(1);
            continue;
        }
        let outcome = phase::run(phase, &rig, config, &plan, &mut verification)
            .with_context(|| format!("phase {}", phase.name()))?;
        rig.compare_books(&format!("phase {}", phase.name()));
        verified &= outcome.verified;
        outcomes.push(outcome);
        progress.inc(1);
    }
    progress.finish_and_clear();
    profiler.map_or(Ok(()), Profiler::write)?;
    let complete = !interrupted();

    let backend = facts::backend(config, &plan, &rig, &mut warnings)?;
    let settings = facts::settings(config, &plan, rig.machine.has_kernel(), rig.start.0);
    let mut counters = facts::counters(config, &rig, &outcomes);
    let mut fail = |text: String| {
        verified = false;
        verification.first_mismatch.get_or_insert(text);
    };
    if counters.register_stores != counters.kills_issued {
        let Counters { register_stores: seen, kills_issued: issued, .. } = counters;
        fail(format!("the engine counted {issued} kills, the PHB's registers saw {seen}"));
    }
    let left = match config.detach {
        Some(policy) if complete => leave::leave(&mut rig, policy)?,
        _ => Vec::new(),
    };
    if let Some(lost) = left.iter().find(|l| l.lost_tces.is_some_and(|lost| lost > 0)) {
        let (tces, group) = (lost.lost_tces.unwrap_or_default(), lost.group);
        fail(format!("{tces} entries of other groups were lost when group {group} left"));
    }
    // Everything is given back, and what is not is a leak.
    if let Some(wrong) = rig.close() {
        fail(wrong);
    }
    let ledger = rig.engine.ledger();
    counters.pinned_end_bytes = ledger.pages() << ledger.page().get();
    verification.books = rig.books.take().map(|b| b.result);
    if let Some(difference) = verification.books.iter().find_map(|b| b.first_difference.clone()) {
        fail(difference);
    }
    let (kind, groups) = (rig.machine.kind(), &rig.machine.groups);
    let unproven = facts::unproven(kind, groups, verification.dma.as_ref(), &devices);
    let verified = match unproven {
        Some(why) if verified && complete => {
            warnings.push(Warning::new("NO_DMA_PROOF", format!("not verified: {why}")));
            verification.unproven = Some(why);
            None
        }
        _ => Some(verified && complete),
    };
    drop(rig);

    let mut results: Vec<OpResult> = outcomes.iter().flat_map(|o| o.results.clone()).collect();
    let mut verified = verified;
    if kind == BackendKind::Mock && complete {
        let done =
            config.phases.iter().copied().filter(|p| skipped.iter().all(|s| s.id != p.name()));
        let found = exposure::measure(config, &plan, &done.collect::<Vec<_>>())?;
        found.add_to(&mut results);
        if let Some(wrong) = found.wrong {
            verified = Some(false);
            verification.first_mismatch.get_or_insert(wrong);
        }
    }
    warnings.extend(facts::rate_not_reached(&results));
    let recorders: Vec<(String, Recorder)> =
        outcomes.into_iter().flat_map(|o| o.recorders).collect();
    let mut run = Run::begin(started, argv, config.output.label.clone(), config.seed);
    run.complete = complete;
    run.wall_s = begin.elapsed().as_secs_f64();
    let doc = ResultDoc {
        schema: SCHEMA.to_owned(),
        tool: Tool::current(),
        run,
        host: HostFacts::capture(),
        backend,
        config: Config::Run(settings),
        clock,
        results,
        counters,
        verified,
        verification,
        replay: None,
        left,
        warnings,
        skipped,
        hosts: Vec::new(),
        point: SweepPoint::default(),
    };
    Ok(Ok(Measured { doc, recorders, started }))
}
