// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench --sweep`: one run for each value of a setting, together in one table and one document.

use std::fmt::Write as _;
use std::time::{Instant, SystemTime};

use super::run::{measure, refused};
use super::{Status, bar, check_outputs, present};
use crate::cli::{Point, Sweep, SweepConfig};
use crate::columns::table;
use crate::interrupt::interrupted;
use crate::result::{OpResult, Run, SWEEP_SCHEMA, SweepDoc, SweepPoint, SweepRun, Swept, Tool};
use crate::style::{Style, count, time_or_dash};

/// Runs each and reports all.
///
/// # Errors
/// What failed, one line.
pub fn sweep(config: &SweepConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    let named = |point: &Point, status: Status| match status {
        Status::Usage(text) => Status::Usage(format!("{}: {text}", name(point))),
        Status::Unavailable(text) => Status::Unavailable(format!("{}: {text}", name(point))),
        other => other,
    };
    // All of them before the first: nobody wants to hear of the last after an hour.
    for point in config.points.iter().take_while(|_| !interrupted()) {
        if let Some(status) = refused(&point.config) {
            return Ok(named(point, status));
        }
    }
    check_outputs(&config.output)?;
    let (started, begin) = (SystemTime::now(), Instant::now());
    let progress = bar(config.points.len() as u64, config.output.quiet);
    let mut runs = Vec::new();
    for point in &config.points {
        if interrupted() {
            break;
        }
        progress.set_message(name(point));
        let measured = match measure(&point.config, argv.clone())
            .map_err(|e| e.context(format!("--sweep {}", name(point))))?
        {
            Ok(measured) => measured,
            Err(status) => return Ok(named(point, status)),
        };
        runs.push(SweepRun { values: values(point), result: measured.doc });
        progress.inc(1);
    }
    progress.finish_and_clear();
    let label = config.output.label.clone();
    let seed = config.points.first().map_or(0, |point| point.config.seed);
    let mut run = Run::begin(started, argv, label, seed);
    run.complete = runs.len() == config.points.len() && runs.iter().all(|r| r.result.run.complete);
    run.wall_s = begin.elapsed().as_secs_f64();
    // One that is wrong decides; else one that nobody could judge.
    let verdicts = || runs.iter().map(|run| run.result.verified);
    let verified = if verdicts().any(|v| v == Some(false)) || !run.complete {
        Some(false)
    } else {
        verdicts().all(|v| v == Some(true)).then_some(true)
    };
    let swept = |s: &Sweep| Swept { setting: s.setting.clone(), values: s.values.clone() };
    let swept = config.sweeps.iter().map(swept).collect();
    let schema = SWEEP_SCHEMA.to_owned();
    let doc = SweepDoc { schema, tool: Tool::current(), run, swept, runs, verified };
    let output = &config.output;
    present(output.quiet, output.json.as_ref(), &doc, || report(&doc, Style::detect()))?;
    Ok(Status::of(doc.run.complete, doc.verified))
}

fn values(point: &Point) -> SweepPoint {
    SweepPoint(point.values.iter().cloned().collect())
}

fn name(point: &Point) -> String {
    values(point).to_string()
}

fn report(doc: &SweepDoc, style: Style) -> String {
    let mut out = String::new();
    let Some(first) = doc.runs.first() else {
        return "interrupted before the first run\n".to_owned();
    };
    let tool = style.bold(&format!("{} {}", doc.tool.name, doc.tool.version));
    let label = &first.result.backend.label;
    let _ = writeln!(out, "{tool} · {label} · {} runs\n", doc.runs.len());
    let kernel = first.result.backend.container_version.is_some();
    let last = if kernel { "ioctls" } else { "kills/1000" };
    let fixed = ["operation", "calls", "TCEs", "ns/TCE", "best", "p50", "p99", "max", last];
    let heads = doc.swept.iter().map(|s| s.setting.as_str()).chain(fixed);
    let mut rows: Vec<Vec<String>> = vec![heads.map(str::to_owned).collect()];
    for run in &doc.runs {
        for result in &run.result.results {
            let values = doc.swept.iter().map(|s| run.values.0[&s.setting].clone());
            rows.push(values.chain(cells(result)).collect());
        }
    }
    table(&mut out, &rows, style);
    if doc.runs.iter().any(|run| run.result.results.iter().any(|r| r.open_loop.is_some())) {
        let _ = writeln!(out, "mix.response: from when each operation was due (open loop)");
    }
    for run in &doc.runs {
        let values = &run.values;
        if run.result.verified == Some(false) {
            let why =
                run.result.verification.first_mismatch.as_deref().unwrap_or("not all was checked");
            let _ = writeln!(out, "{} {values}: {why}", style.red("not verified:"));
        }
        for warning in &run.result.warnings {
            let _ = writeln!(out, "{} {values}: {}", style.yellow("warning:"), warning.text);
        }
    }
    if !doc.run.complete {
        let of = doc.swept.iter().map(|s| s.values.len()).product::<usize>();
        let text = format!("interrupted, incomplete: {} of {of} runs", doc.runs.len());
        let _ = writeln!(out, "{}", style.yellow(&text));
    } else if doc.verified == Some(true) {
        let _ = writeln!(out, "{}", style.green("all verified"));
    }
    out
}

fn cells(result: &OpResult) -> [String; 9] {
    let per_tce = |ns: Option<f64>| ns.map_or("–".to_owned(), |ns| format!("{ns:.3}"));
    let kills = result.kills_per_1000_tces.map(|kills| format!("{kills:.1}"));
    let last = result.ioctls.map(|n| n.to_string()).or(kills);
    [
        result.id.clone(),
        result.count.to_string(),
        count(result.tces),
        per_tce(result.ns_per_tce),
        per_tce(result.best_ns_per_tce),
        time_or_dash(result.latency.p.p50),
        time_or_dash(result.latency.p.p99),
        time_or_dash(result.latency.max),
        last.unwrap_or_else(|| "–".to_owned()),
    ]
}
