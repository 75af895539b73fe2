// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Documents to compare: read, found usable, found to be of like machines and like work.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

use crate::hist_io;
use crate::recorder::LOWEST_PS;
use crate::result::{HistData, OpResult, ResultDoc, SCHEMA, Skipped};

/// Settings that say how much of the work was done, not what it was.
const AMOUNTS: [&str; 1] = ["phases"];

/// The runs of one program, in order of time.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// As the user named it.
    pub(super) name: String,
    pub(super) docs: Vec<ResultDoc>,
}

/// Reads a document, or those of a folder. Of a folder, what cannot be used is left out and told.
pub(super) fn side(path: &Path, skipped: &mut Vec<Skipped>) -> anyhow::Result<Side> {
    let name = path.display().to_string();
    let about = fs::metadata(path).map_err(|e| {
        anyhow!("'{name}' cannot be read: {e}; accepted: a result or a folder of them")
    })?;
    if !about.is_dir() {
        let doc = document(&fs::read(path)?).with_context(|| format!("'{name}'"))?;
        return Ok(Side { name, docs: vec![doc] });
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("'{name}'"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|e| e == "json") {
            files.push(file);
        }
    }
    files.sort();
    let mut docs: Vec<ResultDoc> = Vec::new();
    for file in &files {
        let read = fs::read(file).map_err(anyhow::Error::from).and_then(|text| document(&text));
        let read = read.and_then(|doc| match docs.iter().any(|d| d.run.id == doc.run.id) {
            true => bail!("it is the run {} once more", doc.run.id),
            false => Ok(doc),
        });
        match read {
            Ok(doc) => docs.push(doc),
            Err(why) => {
                let (id, reason) = (file.display().to_string(), format!("{why:#}"));
                skipped.push(Skipped { id, reason });
            }
        }
    }
    if docs.is_empty() {
        let first = skipped.last().map_or(String::new(), |s| format!("; {}: {}", s.id, s.reason));
        bail!("'{name}' has no usable result among {} files *.json{first}", files.len());
    }
    docs.sort_by(|a, b| a.run.id.cmp(&b.run.id));
    Ok(Side { name, docs })
}

/// The document in `text`, if a comparison can stand on it.
///
/// # Errors
/// What is wrong with it, one line.
pub(super) fn document(text: &[u8]) -> anyhow::Result<ResultDoc> {
    let value: Value = serde_json::from_slice(text).map_err(|e| anyhow!("it is not JSON: {e}"))?;
    match value.get("schema").and_then(Value::as_str) {
        Some(SCHEMA) => {}
        Some(other) => bail!("it is of the schema {other:?}; accepted: {SCHEMA}"),
        None => bail!("it names no schema; accepted: {SCHEMA}"),
    }
    let doc: ResultDoc =
        serde_json::from_value(value).map_err(|e| anyhow!("it is no {SCHEMA}: {e}"))?;
    usable(&doc)?;
    Ok(doc)
}

fn usable(doc: &ResultDoc) -> anyhow::Result<()> {
    if !doc.run.complete {
        bail!("the run was interrupted: it has a part of the samples only");
    }
    if doc.verified == Some(false) {
        let why =
            doc.verification.first_mismatch.as_deref().unwrap_or("not everything was checked");
        bail!("the run is not verified ({why}): times of wrong work mean nothing");
    }
    if doc.results.is_empty() {
        bail!("it has no results");
    }
    if !(doc.run.wall_s >= 0.0 && doc.clock.resolution_ns > 0.0) {
        let (wall, step) = (doc.run.wall_s, doc.clock.resolution_ns);
        bail!("its clock stood still or went backwards: {wall} s in all, steps of {step} ns");
    }
    let mut ids = BTreeSet::new();
    for result in &doc.results {
        let id = &result.id;
        if !ids.insert(id) {
            bail!("it has {id} twice");
        }
        let l = &result.latency;
        let told = [l.min, l.p.p50, l.p.p90, l.p.p99, l.p.p99_9, l.p.p99_99, l.max];
        let told: Vec<f64> = told.into_iter().flatten().collect();
        if let Some(wrong) = told.iter().chain(&l.mean).find(|t| !(t.is_finite() && **t > 0.0)) {
            bail!("{id}: a time of {wrong} ns; a clock went backwards or the file is broken");
        }
        if !told.is_sorted() {
            bail!("{id}: its percentiles do not rise: {told:?} ns");
        }
        if let Some(hist) = &result.hist {
            readable(hist).map_err(|e| anyhow!("{id}: {e}"))?;
        }
    }
    Ok(())
}

/// A histogram that is what it says; one in another encoding is left to who wants to read it.
fn readable(data: &HistData) -> Result<(), String> {
    if data.encoding != hist_io::ENCODING {
        return Ok(());
    }
    let hist = hist_io::decode(&data.data)?;
    let (stated, found) =
        ((data.lowest, data.highest, data.sigfig), (hist.low(), hist.high(), hist.sigfig()));
    if stated != found {
        return Err(format!("its histogram is said to be of {stated:?} and is of {found:?}"));
    }
    if hist.is_empty() {
        return Err("its histogram is empty".to_owned());
    }
    Ok(())
}

/// What differs between the machines, the builds or the work of two documents, each in words.
pub(super) fn unlike(a: &ResultDoc, b: &ResultDoc) -> Vec<String> {
    let mut found = Vec::new();
    let (of_a, of_b) = (facts(a), facts(b));
    let names: BTreeSet<&String> = of_a.keys().chain(of_b.keys()).collect();
    for name in names {
        let (one, other) = (of_a.get(name), of_b.get(name));
        if one != other {
            let text = |v: Option<&Value>| v.map_or("nothing".to_owned(), Value::to_string);
            found.push(format!("{name}: {} and {}", text(one), text(other)));
        }
    }
    found
}

/// What has to be alike.
fn facts(doc: &ResultDoc) -> BTreeMap<String, Value> {
    let (host, backend) = (&doc.host, &doc.backend);
    let own = [
        ("host.arch", Value::from(host.arch.clone())),
        ("host.cpu.model", host.cpu.model.clone().into()),
        ("host.cpu.cpus", host.cpu.cpus.into()),
        ("host.cpu.mmu", host.cpu.mmu.clone().into()),
        ("host.page_size", host.page_size.into()),
        ("host.virt", host.virt.clone().into()),
        ("host.governor", host.governor.clone().into()),
        ("backend.label", backend.label.clone().into()),
        ("backend.runs_on", backend.runs_on.clone().into()),
        ("backend.kernel_release", backend.kernel_release.clone().into()),
        ("tool.profile", doc.tool.profile.clone().into()),
        ("tool.target", doc.tool.target.clone().into()),
        ("run.seed", doc.run.seed.into()),
    ];
    let kind = serde_json::to_value(backend.kind).unwrap_or_default();
    let mut facts: BTreeMap<String, Value> =
        own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    facts.insert("backend.kind".to_owned(), kind);
    let config = serde_json::to_value(&doc.config).unwrap_or_default();
    for (name, value) in config.as_object().into_iter().flatten() {
        if !AMOUNTS.contains(&name.as_str()) {
            facts.insert(format!("config.{name}"), value.clone());
        }
    }
    facts
}

/// What is compared of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The shortest sample.
    Min,
    /// The median.
    P50,
    /// 99 of 100 samples are shorter.
    P99,
}

impl Metric {
    /// All, in the order of the tables.
    pub const ALL: [Self; 3] = [Self::Min, Self::P50, Self::P99];

    /// As typed and as written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::P50 => "p50",
            Self::P99 => "p99",
        }
    }

    /// In nanoseconds.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn of(self, result: &OpResult) -> Result<f64, String> {
        let latency = &result.latency;
        let few = || format!("too few samples for a {}", self.name());
        if result.unit != "ns" || result.direction != "lower" {
            let OpResult { unit, direction, .. } = result;
            return Err(format!("it is in {unit:?}, of which {direction:?} is better"));
        }
        match self {
            Self::Min => match latency.min {
                // What no time at all is recorded as.
                Some(min) if min <= LOWEST_PS as f64 / 1e3 => {
                    Err("a sample took no time: the clock is too coarse or went backwards"
                        .to_owned())
                }
                min => min.ok_or_else(few),
            },
            Self::P50 => latency.p.p50.ok_or_else(few),
            Self::P99 => latency.p.p99.ok_or_else(few),
        }
    }
}

/// The parameters of an operation's histogram, which decide what a percentile is.
pub(super) fn parameters(result: &OpResult) -> Option<(&str, &str, u64, u64, u8)> {
    result
        .hist
        .as_ref()
        .map(|h| (h.encoding.as_str(), h.unit.as_str(), h.lowest, h.highest, h.sigfig))
}
