// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text for Prometheus (0.0.4, as the textfile collector reads it) and OpenMetrics 1.0: the same samples,
//! in base units, with the few differences between both.

use std::borrow::Cow;
use std::fmt::Write;

use anyhow::{Context, bail};

use super::series::{Operation, backend, geometry, once, operations};
use crate::result::ResultDoc;
use crate::stamp;

/// Whose text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenMetrics,
    Prometheus,
}

/// Names and values of labels.
type Labels = Vec<(Cow<'static, str>, String)>;

/// A sample: what follows the family's name, labels, value.
type Sample = (&'static str, Labels, String);

struct Family {
    name: &'static str,
    kind: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    samples: Vec<Sample>,
}

/// All documents.
///
/// # Errors
/// If two of them have the same labels, which a scrape would refuse.
pub(super) fn text(docs: &[ResultDoc], dialect: Dialect) -> anyhow::Result<String> {
    once(docs)?;
    let mut seen: Vec<Labels> = Vec::new();
    for doc in docs {
        let labels = labels(doc);
        if seen.contains(&labels) {
            let told: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
            bail!(
                "two results have the labels {}: merge them first, or export them into files of their own \
                 that are read one by one",
                told.join(",")
            );
        }
        seen.push(labels);
    }
    let mut out = String::new();
    for family in families(docs)? {
        write_family(&mut out, &family, dialect);
    }
    if dialect == Dialect::OpenMetrics {
        out.push_str("# EOF\n");
    }
    Ok(out)
}

/// What all samples of a result carry; a merged one is of no single host, and a point of a sweep has a label
/// for each setting, as `sweep_pages`.
fn labels(doc: &ResultDoc) -> Labels {
    let mut labels = vec![("backend".into(), backend(doc)), ("case".into(), geometry(doc))];
    if doc.hosts.is_empty() {
        labels.push(("host".into(), doc.host.hostname.clone()));
    }
    // A name of a label has no hyphen.
    let of_sweep = |(setting, value): (&String, &String)| {
        (Cow::Owned(format!("sweep_{}", setting.replace('-', "_"))), value.clone())
    };
    labels.extend(doc.point.0.iter().map(of_sweep));
    labels
}

fn with(labels: &Labels, more: &[(&'static str, &str)]) -> Labels {
    let more = more.iter().map(|(name, value)| ((*name).into(), (*value).to_owned()));
    labels.iter().cloned().chain(more).collect()
}

fn families(docs: &[ResultDoc]) -> anyhow::Result<Vec<Family>> {
    let family = |name, kind, unit, help| Family { name, kind, unit, help, samples: Vec::new() };
    let seconds = Some("seconds");
    let mut calls = family(
        "tce_bench_call_duration_seconds",
        "summary",
        seconds,
        "Time of a call; quantile 0 is the shortest sample and 1 the longest.",
    );
    let mut tces = family("tce_bench_tces", "counter", None, "TCEs that the calls handled.");
    let mut per_tce = family(
        "tce_bench_tce_duration_seconds",
        "gauge",
        seconds,
        "Time per TCE, the mean over all calls.",
    );
    let mut best = family(
        "tce_bench_best_tce_duration_seconds",
        "gauge",
        seconds,
        "The least time per TCE of any sample.",
    );
    let mut runs =
        family("tce_bench_merged_runs", "gauge", None, "Runs that the result is the sum of.");
    let mut verified = family(
        "tce_bench_verified",
        "gauge",
        None,
        "1 if every translation was checked; absent if nobody could be asked.",
    );
    let mut started =
        family("tce_bench_start_time_seconds", "gauge", seconds, "When the run began.");
    let mut info = family("tce_bench", "info", None, "What measured, and on what.");
    for doc in docs {
        let own = labels(doc);
        for o in operations(doc) {
            let own = with(&own, &[("operation", &o.id)]);
            summary(&mut calls.samples, &own, &o);
            tces.samples.push(("_total", own.clone(), o.tces.to_string()));
            per_tce.samples.extend(o.ns_per_tce.map(|ns| ("", own.clone(), seconds_of(ns))));
            best.samples.extend(o.best_ns_per_tce.map(|ns| ("", own.clone(), seconds_of(ns))));
        }
        runs.samples.push(("", own.clone(), doc.hosts.len().max(1).to_string()));
        verified.samples.extend(doc.verified.map(|v| ("", own.clone(), u8::from(v).to_string())));
        let begin = stamp::seconds(&doc.run.started)
            .with_context(|| format!("{:?} is no time in UTC", doc.run.started))?;
        started.samples.push(("", own.clone(), begin.to_string()));
        let git = doc.tool.git.as_deref().unwrap_or("unknown");
        let about =
            [("version", doc.tool.version.as_str()), ("git", git), ("label", &doc.backend.label)];
        info.samples.push(("_info", with(&own, &about), "1".to_owned()));
    }
    let all = [calls, tces, per_tce, best, runs, verified, started, info];
    Ok(all.into_iter().filter(|family| !family.samples.is_empty()).collect())
}

fn summary(samples: &mut Vec<Sample>, labels: &Labels, o: &Operation) {
    let (latency, p) = (&o.latency, &o.latency.p);
    for (quantile, ns) in [
        ("0.0", latency.min),
        ("0.5", p.p50),
        ("0.9", p.p90),
        ("0.99", p.p99),
        ("0.999", p.p99_9),
        ("0.9999", p.p99_99),
        ("1.0", latency.max),
    ] {
        let Some(ns) = ns else { continue };
        samples.push(("", with(labels, &[("quantile", quantile)]), seconds_of(ns)));
    }
    let total = match (latency.mean, o.calls_per_s) {
        (Some(mean), _) => Some(mean / 1e9 * o.calls as f64),
        // Timed as a whole.
        (None, Some(rate)) if rate > 0.0 => Some(o.calls as f64 / rate),
        _ => None,
    };
    if let Some(total) = total {
        samples.push(("_sum", labels.clone(), total.to_string()));
        samples.push(("_count", labels.clone(), o.calls.to_string()));
    }
}

/// Nanoseconds in the base unit, without the digits that a division would invent.
fn seconds_of(ns: f64) -> String {
    format!("{ns}e-9")
}

fn write_family(out: &mut String, family: &Family, dialect: Dialect) {
    let Family { name, kind, unit, help, samples } = family;
    let open = dialect == Dialect::OpenMetrics;
    // Prometheus knows no info, and its counters are called as their samples are.
    let (told, kind) = match (*kind, open) {
        ("info", false) => (format!("{name}_info"), "gauge"),
        ("counter", false) => (format!("{name}_total"), "counter"),
        (kind, _) => ((*name).to_owned(), kind),
    };
    // Writing into a String cannot fail.
    let _ = writeln!(out, "# HELP {told} {help}\n# TYPE {told} {kind}");
    if let (Some(unit), true) = (unit, open) {
        let _ = writeln!(out, "# UNIT {told} {unit}");
    }
    for (suffix, labels, value) in samples {
        let labels: Vec<String> =
            labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
        let _ = writeln!(out, "{name}{suffix}{{{}}} {value}", labels.join(","));
    }
}

/// Within quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
