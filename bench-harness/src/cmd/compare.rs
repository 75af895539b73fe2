// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench compare` and `gate`: is B slower than A? From programs that run in turns, or from results
//! that were kept.

mod evaluate;
mod format;
pub(super) mod fuzz;
pub(super) mod history;
mod kernel_formats;
mod load;
mod pairs;
mod stats;
#[cfg(test)]
mod synthetic;
mod verdict;

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime};

use anyhow::{anyhow, bail};
use serde::Serialize;

use super::documents::unlike;
use super::{Status, bar, json_text, show, write_text};
use crate::cli::{CompareConfig, Compared, Format, PairsConfig};
use crate::host::HostFacts;
use crate::interrupt::interrupted;
use crate::outfile::OutFile;
use crate::result::{ResultDoc, Run, Skipped, SweepPoint, Tool, Warning};
use crate::style::Style;

use evaluate::{Cell, Evaluation, Rules, came_twice, evaluate};
use load::{Side, points};
use pairs::Pairs;

pub use load::Metric;
pub(super) use stats::median;
pub use verdict::Verdict;

/// What counts as a change unless somebody says otherwise, as a part.
pub(super) const THRESHOLD: f64 = 0.025;

/// The name of the schema.
pub const SCHEMA: &str = "tce-bench.compare/1";

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    run: Run,
    host: HostFacts,
    /// What the compared runs ran on.
    label: String,
    settings: Settings,
    a: About,
    b: About,
    /// With pairs: true where A ran first.
    a_first: Vec<bool>,
    /// With pairs: how often each ran in it.
    runs_of_pairs: Vec<usize>,
    verdict: Verdict,
    reason: Option<String>,
    /// The pairs that the verdict comes from.
    first: Evaluation,
    /// The pairs that had to confirm it; null if none had to.
    confirmation: Option<Evaluation>,
    /// Files that were left out.
    skipped: Vec<Skipped>,
    /// How the runs differ in what should be alike; empty unless forced.
    unlike: Vec<String>,
    notes: Vec<String>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
struct Settings {
    gate: bool,
    /// Runs stand beside each other; else they are of two folders or files.
    paired: bool,
    metrics: Vec<Metric>,
    threshold_percent: f64,
    /// Of all that is judged together.
    error: f64,
    resamples: usize,
    seed: u64,
    confirm: bool,
    /// Most runs of each in a pair, of which the least of each time counts.
    best_of: u32,
    force: bool,
    /// What both programs were called with.
    arguments: Vec<String>,
}

/// One side.
#[derive(Debug, Serialize)]
struct About {
    name: String,
    runs: usize,
    tool: Option<Tool>,
    /// Of all runs, each once.
    warnings: Vec<Warning>,
}

impl About {
    fn new(side: &Side) -> Self {
        let mut warnings: Vec<Warning> = Vec::new();
        for warning in side.docs().flat_map(|d| &d.warnings) {
            if !warnings.iter().any(|w| w.code == warning.code) {
                warnings.push(warning.clone());
            }
        }
        let tool = side.docs().next().map(|d| d.tool.clone());
        Self { name: side.name.clone(), runs: side.runs.len(), tool, warnings }
    }
}

/// Compares and reports.
///
/// # Errors
/// What failed, or cannot be compared, one line.
pub fn compare(config: &CompareConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let (started, begin) = (SystemTime::now(), Instant::now());
    let rules =
        Rules { metrics: config.metrics.clone(), threshold: config.threshold, seed: config.seed };
    let mut skipped = Vec::new();
    let mut confirmation = None;
    let (Pairs { sides, a_first, runs }, paired) = match &config.what {
        Compared::Results(old, new) => {
            let sides = [load::side(old, &mut skipped)?, load::side(new, &mut skipped)?];
            (Pairs { sides, a_first: Vec::new(), runs: Vec::new() }, false)
        }
        Compared::Run(programs) => (run(config, programs, &rules)?, true),
    };
    let unlike = alike(&sides, config.force)?;
    let first = evaluate(&sides, paired.then_some(&runs), &rules);
    let (mut verdict, mut reason) = (first.verdict, first.reason.clone());
    if let Compared::Run(programs) = &config.what
        && programs.confirm
        && verdict == Verdict::Regression
        && !interrupted()
    {
        let keep = programs.keep.as_ref().map(|folder| folder.join("confirm"));
        // Another order, so that not both have the luck of the same.
        let rules = Rules { seed: config.seed.wrapping_add(1), ..rules };
        let again = run(config, &PairsConfig { keep, ..programs.clone() }, &rules)?;
        alike(&again.sides, config.force)?;
        let second = evaluate(&again.sides, Some(&again.runs), &rules);
        (verdict, reason) = confirmed(&first, &second);
        confirmation = Some(second);
    }
    if interrupted() {
        verdict = Verdict::Inconclusive;
        reason = Some("interrupted".to_owned());
    }
    let mut run = Run::begin(started, argv, None, config.seed);
    run.complete = !interrupted();
    run.wall_s = begin.elapsed().as_secs_f64();
    let doc = Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run,
        host: HostFacts::capture(),
        label: sides[0].docs().next().map_or(String::new(), |d| d.backend.label.clone()),
        settings: settings(config, paired),
        a: About::new(&sides[0]),
        b: About::new(&sides[1]),
        a_first,
        runs_of_pairs: runs,
        verdict,
        reason,
        first,
        confirmation,
        skipped,
        unlike,
        notes: notes(&sides, paired),
    };
    write(config, &doc, &sides)?;
    Ok(match (doc.run.complete, config.gate, verdict) {
        (false, ..) => Status::Interrupted,
        (true, true, Verdict::Regression) => Status::Regression,
        (true, true, Verdict::Inconclusive) => Status::Inconclusive,
        _ => Status::Ok,
    })
}

fn run(config: &CompareConfig, programs: &PairsConfig, rules: &Rules) -> anyhow::Result<Pairs> {
    let progress = bar(programs.pairs.into(), config.quiet);
    let likely = |sides: &[Side; 2]| alike(sides, config.force).map(drop);
    let enough = |sides: &[Side; 2]| came_twice(sides, rules);
    let pairs = pairs::run(programs, rules.seed, &progress, likely, enough);
    progress.finish_and_clear();
    pairs
}

/// A regression that the second look found in the same place.
fn confirmed(first: &Evaluation, second: &Evaluation) -> (Verdict, Option<String>) {
    let found = |e: &Evaluation| -> Vec<String> {
        let slower = e.cells.iter().filter(|c| c.judged && c.verdict == Verdict::Regression);
        slower.map(Cell::name).collect()
    };
    let again = found(second);
    let (both, once): (Vec<_>, Vec<_>) = found(first).into_iter().partition(|c| again.contains(c));
    if both.is_empty() {
        let what = once.join(", ");
        (Verdict::Inconclusive, Some(format!("a regression that was not there again: {what}")))
    } else {
        (Verdict::Regression, Some(format!("confirmed: {}", both.join(", "))))
    }
}

/// How the runs differ in what should be alike.
///
/// # Errors
/// If they do and nobody forces us, or they are the same runs, or of points that have no counterpart.
fn alike(sides: &[Side; 2], force: bool) -> anyhow::Result<Vec<String>> {
    let [a, b] = sides;
    let of_a: BTreeSet<&str> = a.docs().flat_map(ResultDoc::run_ids).collect();
    if let Some(id) = b.docs().flat_map(ResultDoc::run_ids).find(|id| of_a.contains(id)) {
        bail!("'{}' and '{}' have the same run {id}: it is no news of itself", a.name, b.name);
    }
    matching(sides)?;
    let mut found = BTreeSet::new();
    for point in points(sides) {
        let mut all = sides.iter().flat_map(|side| side.at(point)).flatten();
        let Some(first) = all.next() else { continue };
        for doc in all {
            found.extend(unlike(first, doc));
            // Percentiles of many hosts hold the differences between them.
            if first.hosts.len() != doc.hosts.len() {
                found.insert(format!("merged runs: {} and {}", first.hosts.len(), doc.hosts.len()));
            }
        }
    }
    let found: Vec<String> = found.into_iter().collect();
    if found.is_empty() || force { Ok(found) } else { Err(refusal(&found)) }
}

/// That sweeps are of the same settings and have a point in common.
///
/// # Errors
/// What they are of, and what to do.
fn matching(sides: &[Side; 2]) -> anyhow::Result<()> {
    let kind = |point: &SweepPoint| match point.settings().collect::<Vec<_>>().as_slice() {
        [] => "single results".to_owned(),
        settings => format!("sweeps of {}", settings.join(" and ")),
    };
    let mut all = sides.iter().flat_map(|s| s.docs().map(move |doc| (&s.name, kind(&doc.point))));
    let Some((name, first)) = all.next() else { return Ok(()) };
    if let Some((other, unlike)) = all.find(|(_, kind)| *kind != first) {
        bail!(
            "'{name}' has {first}, and '{other}' has {unlike}, whose points are others: run both with the \
             same --sweep, or both without"
        );
    }
    let [a, b] = sides.each_ref().map(|s| s.docs().map(|d| &d.point).collect::<BTreeSet<_>>());
    if let (Some(of_a), Some(of_b)) = (a.first(), b.first())
        && a.is_disjoint(&b)
    {
        bail!(
            "'{}' and '{}' have no point in common, as {of_a} and {of_b}: give both --sweep the same \
             values, or at least one",
            sides[0].name,
            sides[1].name
        );
    }
    Ok(())
}

fn refusal(difference: &[String]) -> anyhow::Error {
    let (shown, more) = difference.split_at(difference.len().min(4));
    let more = if more.is_empty() { String::new() } else { format!("; {} more", more.len()) };
    anyhow!(
        "these runs are not alike: {}{more}; --force compares them all the same",
        shown.join("; ")
    )
}

/// What a reader should know besides.
fn notes(sides: &[Side; 2], paired: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !paired {
        notes.push(
            "these runs were not taken in turns: what the machine did in between counts as a difference"
                .to_owned(),
        );
    }
    for (name, side) in ["A", "B"].into_iter().zip(sides) {
        let unproven = side.docs().filter(|d| d.verified.is_none()).count();
        if unproven > 0 {
            notes.push(format!("{name}: nobody could be asked whether {unproven} runs were right"));
        }
        let builds: BTreeSet<_> = side.docs().map(|d| (&d.tool.git, d.tool.dirty)).collect();
        if builds.len() > 1 {
            notes.push(format!("{name}: its runs are of {} builds", builds.len()));
        }
    }
    let kinds = |side: &Side| -> BTreeSet<&'static str> {
        side.docs().map(|d| d.backend.table_memory.kind.name()).collect()
    };
    let kinds: BTreeSet<_> = sides.iter().flat_map(kinds).collect();
    if kinds.len() > 1 {
        let kinds: Vec<_> = kinds.into_iter().collect();
        notes.push(format!("not all tables lay in memory of one kind: {}", kinds.join(", ")));
    }
    notes
}

fn settings(config: &CompareConfig, paired: bool) -> Settings {
    let (confirm, arguments) = match &config.what {
        Compared::Run(run) => {
            (run.confirm, run.args.iter().map(|a| a.to_string_lossy().into_owned()).collect())
        }
        Compared::Results(..) => (false, Vec::new()),
    };
    Settings {
        gate: config.gate,
        paired,
        metrics: config.metrics.clone(),
        threshold_percent: config.threshold * 100.0,
        error: evaluate::ERROR,
        resamples: stats::RESAMPLES,
        seed: config.seed,
        confirm,
        best_of: config.what.best_of(),
        force: config.force,
        arguments,
    }
}

fn write(config: &CompareConfig, doc: &Doc, sides: &[Side; 2]) -> anyhow::Result<()> {
    let json = json_text(doc)?;
    show(!config.quiet && config.json != Some(OutFile::Stdout), || match config.format {
        Format::Table => format::table(doc, Style::detect()),
        Format::Markdown => format::markdown(doc),
        Format::Json => json.clone(),
        Format::Iommu => kernel_formats::iommu(doc, sides),
        Format::Kernel => kernel_formats::kernel(doc, sides),
    });
    config.json.iter().try_for_each(|file| write_text(file, &json))
}
