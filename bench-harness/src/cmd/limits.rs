// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench limits`: what this machine's memory and clock allow, for tables of several sizes. No
//! engine is behind it, only the loops that the engine's tables are written with and what they are
//! compared with.

mod measure;
mod result;
#[cfg(test)]
mod tests;

use std::time::{Instant, SystemTime};

use anyhow::anyhow;

use super::{Status, bar, present};
use crate::cli::LimitsConfig;
use crate::clock::Clock;
use crate::host::{self, HostFacts};
use crate::interrupt::interrupted;
use crate::loops::libc_version;
use crate::result::{Run, Tool};
use crate::size::format_size;
use crate::style::Style;
use measure::{Bench, recording};
use result::{Doc, SCHEMA};

/// Measures and reports.
///
/// # Errors
/// What failed, one line.
pub fn limits(config: &LimitsConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    if let Err(message) = check_memory(config, host::mem_available()) {
        return Ok(Status::Usage(message));
    }
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let begin = Instant::now();
    let mut doc = Doc::begin(config, SystemTime::now(), argv);
    measure(config, &mut doc)?;
    doc.run.complete = !interrupted();
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    present(config.quiet, config.json.as_ref(), &doc, || doc.report(Style::detect()))?;
    Ok(Status::of(doc.run.complete, None))
}

impl Doc {
    fn begin(config: &LimitsConfig, started: SystemTime, argv: Vec<String>) -> Self {
        Self {
            schema: SCHEMA,
            tool: Tool::current(),
            run: Run::begin(started, argv, None, 0),
            host: HostFacts::capture(),
            libc: libc_version(),
            repeat: config.repeat,
            clock: Clock::measure(),
            recording: recording(),
            sizes: Vec::new(),
        }
    }
}

/// A size that an interrupt ended is left out, unless each of its loops was timed.
fn measure(config: &LimitsConfig, doc: &mut Doc) -> anyhow::Result<()> {
    let rounds = config.repeat as usize;
    let bar = bar((config.sizes.len() * rounds) as u64, config.quiet);
    for bytes in &config.sizes {
        bar.set_message(format_size(*bytes));
        let mut bench = Bench::new(*bytes as usize)?;
        for round in 0..rounds {
            bench.round(round);
            bar.inc(1);
        }
        doc.sizes.extend(bench.result());
    }
    bar.finish_and_clear();
    Ok(())
}

/// A table and libc's memory beside it have to be there at a time.
fn check_memory(config: &LimitsConfig, available: Option<u64>) -> Result<(), String> {
    let largest = config.sizes.iter().copied().max().unwrap_or(0);
    match available {
        Some(available) if largest.saturating_mul(2) > available => Err(format!(
            "--sizes {}: twice that is needed, more than the {} of memory available; accepted: up \
             to {}",
            format_size(largest),
            format_size(available),
            format_size(available / 2),
        )),
        _ => Ok(()),
    }
}
