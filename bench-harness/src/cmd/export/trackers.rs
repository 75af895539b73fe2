// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What keeps a history of numbers: github-action-benchmark, Bencher, LNT, Perfherder. Several runs of the
//! same are one point, or one list where the format has lists.

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::series::{Measure, Series, series};
use crate::cli::{Better, ExportConfig};
use crate::cmd::json_text;
use crate::result::ResultDoc;

/// github-action-benchmark, `customSmallerIsBetter` or `customBiggerIsBetter`: the configuration has
/// measures of one direction only.
pub(super) fn gha(docs: &[ResultDoc], config: &ExportConfig) -> anyhow::Result<String> {
    let point = |s: &Series<'_>| {
        let value = s.median();
        let mut point = json!({
            "name": s.name(),
            "unit": s.measure.unit(),
            "value": value,
            "extra": about(s),
        });
        if let Some((low, high)) = s.range() {
            let half = (value - low).max(high - value);
            point["range"] = format!("± {half:.3}").into();
        }
        point
    };
    let points: Vec<Value> = series(docs, &config.measures)?.iter().map(point).collect();
    json_text(&points)
}

/// What a chart shows beside a point.
fn about(series: &Series<'_>) -> String {
    let doc = series.doc;
    let git = doc.tool.git.as_deref().unwrap_or("unknown");
    let dirty = if doc.tool.dirty == Some(true) { "+changes" } else { "" };
    let of = match (series.values.len(), doc.hosts.len()) {
        (1, 0) => "1 run".to_owned(),
        (1, merged) => format!("{merged} run(s) merged"),
        (n, _) => format!("median of {n} runs"),
    };
    format!(
        "{}\nhost {} · {} · Linux {}\ncommit {git}{dirty} · {of}",
        doc.backend.label,
        doc.host.hostname,
        doc.host.cpu.model.as_deref().unwrap_or(&doc.host.arch),
        doc.host.kernel,
    )
}

/// Bencher Metric Format: benchmark `BACKEND/GEOMETRY/OPERATION`, each measure by its slug.
pub(super) fn bmf(docs: &[ResultDoc], config: &ExportConfig) -> anyhow::Result<String> {
    let mut all = Map::new();
    for s in series(docs, &config.measures)? {
        let mut metric = json!({ "value": s.median() });
        if let Some((low, high)) = s.range() {
            metric["lower_value"] = low.into();
            metric["upper_value"] = high.into();
        }
        let benchmark = all.entry(format!("{}/{}", s.case, s.id)).or_insert_with(|| json!({}));
        benchmark[slug(s.measure)] = metric;
    }
    json_text(&all)
}

/// Lower case, digits and hyphens.
const fn slug(measure: Measure) -> &'static str {
    match measure {
        Measure::Min => "latency-min",
        Measure::Mean => "latency-mean",
        Measure::P50 => "latency-p50",
        Measure::P90 => "latency-p90",
        Measure::P99 => "latency-p99",
        Measure::P99_9 => "latency-p99-9",
        Measure::P99_99 => "latency-p99-99",
        Measure::Max => "latency-max",
        Measure::NsPerTce => "ns-per-tce",
        Measure::BestNsPerTce => "best-ns-per-tce",
        Measure::CallsPerS => "calls-per-s",
        Measure::TcesPerS => "tces-per-s",
    }
}

/// An LNT report, format 2, for the default suite `nts`: times as `execution_time` in seconds, rates as
/// `score`; the order of runs is the time when they began.
pub(super) fn lnt(docs: &[ResultDoc], config: &ExportConfig) -> anyhow::Result<String> {
    let all = series(docs, &config.measures)?;
    let Some(first) = docs.first() else { bail!("there is nothing to export") };
    if let Some(other) = docs.iter().find(|d| d.host.hostname != first.host.hostname) {
        bail!(
            "an LNT report is of one machine, and these are of {} and {}: export each by itself, or merge \
             them",
            first.host.hostname,
            other.host.hostname
        );
    }
    let tests: Vec<Value> = all
        .iter()
        .map(|s| match s.measure.better() {
            Better::Smaller => {
                let seconds: Vec<f64> = s.values.iter().map(|ns| ns / 1e9).collect();
                json!({ "name": s.name(), "execution_time": seconds })
            }
            Better::Bigger => json!({ "name": s.name(), "score": s.values }),
        })
        .collect();
    let started: Vec<&str> = docs.iter().map(|d| d.run.started.trim_end_matches('Z')).collect();
    let begin = started.iter().min().copied().unwrap_or_default();
    let order: String = begin.chars().filter(char::is_ascii_digit).collect();
    let cpu = first.host.cpu.model.as_deref().unwrap_or("unknown");
    json_text(&json!({
        "format_version": "2",
        "machine": {
            "name": first.host.hostname,
            "arch": first.host.arch,
            "cpu": cpu,
            "kernel": first.host.kernel,
        },
        "run": {
            "start_time": begin,
            "end_time": started.iter().max(),
            "llvm_project_revision": order,
            "git": first.tool.git.as_deref().unwrap_or("unknown"),
            "backend": first.backend.label,
        },
        "tests": tests,
    }))
}

/// A Perfherder artifact: a suite for each `BACKEND/GEOMETRY`, a subtest for each `OPERATION/MEASURE`.
pub(super) fn perfherder(docs: &[ResultDoc], config: &ExportConfig) -> anyhow::Result<String> {
    let mut suites: Vec<(&str, &ResultDoc, Vec<Value>)> = Vec::new();
    let all = series(docs, &config.measures)?;
    for s in &all {
        let subtest = json!({
            "name": format!("{}/{}", s.id, s.measure.name()),
            "value": s.median(),
            "unit": s.measure.unit(),
            "lowerIsBetter": s.measure.better() == Better::Smaller,
            "replicates": s.values,
        });
        match suites.iter_mut().find(|(name, ..)| *name == s.case) {
            Some((.., subtests)) => subtests.push(subtest),
            None => suites.push((&s.case, s.doc, vec![subtest])),
        }
    }
    let suites: Vec<Value> = suites
        .into_iter()
        .map(|(name, doc, subtests)| {
            let label: String = doc.backend.label.chars().take(100).collect();
            json!({ "name": name, "extraOptions": [label], "subtests": subtests })
        })
        .collect();
    json_text(&json!({ "framework": { "name": "tce-bench" }, "suites": suites }))
}
