// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench replay`: recorded hypercalls of real guests through the engine's `papr` front end,
//! every answer checked, then timed.

mod books;
mod checked;
mod guests;
mod handles;
mod live;
mod machine;
mod mismatch;
mod model;
mod outcome;
pub mod policies;
mod progress;
mod report;
mod script;
pub mod stale;
#[cfg(test)]
mod tests;
mod timed;

use std::io::Write;
use std::time::{Instant, SystemTime};

use anyhow::Error;
use tce_engine::addr::PageShift;

use super::{Status, check_outputs, write_outputs};
use crate::cli::{Pass, ReplayConfig};
use crate::clock::Clock;
use crate::cmd::profiler::Profiler;
use crate::interrupt::interrupted;
use crate::result::Run;
use crate::style::Style;
use machine::{Machine, Setup};
use mismatch::KEPT;
use outcome::Outcome;
use progress::Progress;
use report::report;
use script::{Call, Script};

/// Replays the traces and writes what was found. `argv` is the command line, for the result;
/// whoever calls has installed the [interrupt handler](crate::interrupt::install).
///
/// # Errors
/// One line: a trace that cannot be read, with file and line, a guest that cannot be set up, or a
/// result that cannot be written. No part of a result file was left behind then.
pub fn replay(config: &ReplayConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    let (started, begin) = (SystemTime::now(), Instant::now());
    let setup = match setup(config) {
        Ok(setup) => setup,
        Err(message) => return Ok(Status::Usage(message)),
    };
    check_outputs(&config.output)?;
    // All are read before the first is replayed: the last one's error must not cost minutes.
    let mut scripts = Vec::with_capacity(config.traces.len());
    for path in &config.traces {
        if interrupted() {
            break;
        }
        let mut script = Script::load(path)?;
        if let Some(batch) = config.policy.batch() {
            script.batch(batch);
        }
        let ram = script.ram(setup.ram, setup.host_page)?;
        drop(Machine::new(&script, &setup, ram)?);
        scripts.push(script);
    }
    let clock = Clock::measure();
    let progress = Progress::new(work(&scripts, &config.passes), config.output.quiet);
    let mut outcome = Outcome::default();
    let profiler = Profiler::start(&config.output)?;
    for script in scripts {
        if interrupted() {
            break;
        }
        outcome.trace(&script, &setup, &config.passes, &progress)?;
    }
    progress.clear();
    profiler.map_or(Ok(()), Profiler::write)?;
    if interrupted() {
        outcome.interrupt();
    }
    let mut run = Run::begin(started, argv, config.output.label.clone(), config.seed);
    run.complete = !outcome.interrupted();
    run.wall_s = begin.elapsed().as_secs_f64();
    let recorders = outcome.recorders();
    let doc = outcome.document(config, &setup, run, clock, &recorders).map_err(Error::msg)?;
    let table = report(&doc, &recorders, Style::detect());
    let written = write_outputs(&config.output, &doc, started, &recorders, &table);
    // After the table, so that they stand below it, and even if a file could not be written.
    complain(&outcome);
    written?;
    Ok(if outcome.interrupted() {
        Status::Interrupted
    } else if outcome.mismatches.count > 0 {
        Status::Failed
    } else {
        Status::Ok
    })
}

fn setup(config: &ReplayConfig) -> Result<Setup, String> {
    let tier = config.simd.0;
    let host_page = PageShift::new(u32::from(config.host_page_shift)).ok_or_else(|| {
        format!("--host-page of 2^{} bytes; accepted: 4K, 64K", config.host_page_shift)
    })?;
    let compat = config.compat.compat();
    let (seed, ram, policy) = (config.seed, config.ram_bytes, config.policy);
    Ok(Setup { tier, host_page, seed, ram, compat, policy, ..Setup::default() })
}

/// What the bar counts to: the steps of each pass, and the entries compared at the end.
fn work(scripts: &[Script], passes: &[Pass]) -> u64 {
    let of = |script: &Script| {
        let steps = script.steps.len() as u64 * passes.len() as u64;
        if !passes.contains(&Pass::Checked) {
            return steps;
        }
        let defaults = script.phbs.iter().map(|p| p.window.size >> p.window.page.get());
        let created = script.steps.iter().filter_map(|step| match step.call {
            Call::Create { entries, given: Some(_), .. } => Some(entries),
            _ => None,
        });
        defaults.chain(created).fold(steps, u64::saturating_add)
    };
    scripts.iter().map(of).fold(0, u64::saturating_add)
}

/// Names the first mismatches on stderr.
fn complain(outcome: &Outcome) {
    let found = &outcome.mismatches;
    let mut text = String::new();
    for line in &found.first {
        text += &format!("error: {line}\n");
    }
    let more = found.count.saturating_sub(KEPT as u64);
    if found.count > 0 && more > 0 {
        text += &format!("error: and {more} more mismatches\n");
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}
