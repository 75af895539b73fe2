// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands, and how they end.

pub mod churn;
pub mod compare;
pub mod cost;
pub mod crash;
pub mod dma;
pub mod doctor;
mod documents;
pub mod export;
pub mod files;
pub(crate) mod fuzz;
mod ground;
pub mod hazards;
pub mod import;
pub mod info;
mod least;
pub mod limits;
pub mod merge;
pub mod plan;
mod profiler;
pub mod replay;
pub mod report;
pub mod run;
pub mod sharing;
pub mod soak;
pub mod sweep;
pub mod teardown;
pub mod trace;
pub mod workloads;

pub use replay::{policies, stale};

use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::Output;
use crate::hist_io::{LogEntry, write_hlog};
use crate::outfile::OutFile;
use crate::recorder::Recorder;
use crate::result::ResultDoc;

/// How a command ended. What failed on the way is an error instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Done, and everything that was checked was right.
    Ok,
    /// Done, but something was wrong; the report says what.
    Failed,
    /// Done, and B is slower than A.
    Regression,
    /// Done, and it cannot be said whether B is slower than A.
    Inconclusive,
    /// The settings cannot be: one line.
    Usage(String),
    /// The back end that was asked for is not there: one line.
    Unavailable(String),
    /// Ctrl-C; what there was has been written.
    Interrupted,
}

impl Status {
    /// Of what ran to its end or not, and was found right or wrong if that could be found.
    fn of(complete: bool, right: Option<bool>) -> Self {
        match (complete, right) {
            (false, _) => Self::Interrupted,
            (true, Some(false)) => Self::Failed,
            (true, _) => Self::Ok,
        }
    }
}

/// Finds out before a long run whether its results can be written.
///
/// # Errors
/// Which file cannot, and why, one line.
pub fn check_outputs(output: &Output) -> anyhow::Result<()> {
    let files = output.json.iter().chain(&output.hlog).chain(&output.profile);
    files.into_iter().try_for_each(|f| f.check().map_err(|e| anyhow!(e)))
}

/// Writes the table, the JSON document and the histogram log, each if it was asked for.
///
/// # Errors
/// What could not be written, one line.
pub fn write_outputs(
    output: &Output,
    doc: &ResultDoc,
    started: SystemTime,
    recorders: &[(String, Recorder)],
    table: &str,
) -> anyhow::Result<()> {
    let on_stdout = |file: &Option<OutFile>| matches!(file, Some(OutFile::Stdout));
    // What goes to standard output has it to itself.
    let taken = [&output.json, &output.hlog, &output.profile].into_iter().any(on_stdout);
    show(!output.quiet && !taken, || table.to_owned());
    write_json(output.json.as_ref(), doc)?;
    if let Some(file) = &output.hlog {
        let length = Duration::try_from_secs_f64(doc.run.wall_s).unwrap_or_default();
        let entry = |(id, recorder)| LogEntry {
            tag: String::as_str(id),
            start: Duration::ZERO,
            length,
            hist: Recorder::histogram(recorder),
        };
        let entries: Vec<_> = recorders.iter().map(|(id, r)| entry((id, r))).collect();
        let mut text = Vec::new();
        write_hlog(&mut text, started, &entries)?;
        file.write(&text).map_err(|e| anyhow!(e))?;
    }
    Ok(())
}

/// Prints what somebody wants to see.
fn show(wanted: bool, text: impl FnOnce() -> String) {
    if wanted {
        // A closed pipe is the reader's choice.
        let _ = std::io::stdout().write_all(text().as_bytes());
    }
}

fn json_text(doc: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(doc)? + "\n")
}

fn write_text(file: &OutFile, text: &str) -> anyhow::Result<()> {
    file.write(text.as_bytes()).map_err(|e| anyhow!(e))
}

fn write_json(file: Option<&OutFile>, doc: &impl Serialize) -> anyhow::Result<()> {
    file.map_or(Ok(()), |file| write_text(file, &json_text(doc)?))
}

/// Prints the table and writes the document, which has standard output to itself where it goes there.
fn present(
    quiet: bool,
    json: Option<&OutFile>,
    doc: &impl Serialize,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    show(!quiet && json != Some(&OutFile::Stdout), table);
    write_json(json, doc)
}

/// A bar of so many steps on standard error; hidden where nobody would see it or it is not wanted.
fn bar(steps: u64, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:24} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
