// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Result documents that other commands take: read, found usable, found to be of like machines and like
//! work.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use hdrhistogram::Histogram;
use serde_json::Value;

use crate::hist_io;
use crate::result::{HistData, OpResult, ResultDoc, SCHEMA, SWEEP_SCHEMA, SweepDoc};

/// Settings that say how much of the work was done, not what it was.
const AMOUNTS: [&str; 1] = ["phases"];
/// Of the histograms.
const UNIT: &str = "ps";

/// The document in a file, if anything can stand on it.
///
/// # Errors
/// The file and what is wrong with it, one line.
pub(super) fn read(path: &Path) -> anyhow::Result<ResultDoc> {
    document(&content(path)?).with_context(|| format!("'{}'", path.display()))
}

/// The document in a file, or those of the points of a sweep, if anything can stand on all of them.
///
/// # Errors
/// The file and what is wrong with it, one line.
pub(super) fn read_each(path: &Path) -> anyhow::Result<Vec<ResultDoc>> {
    each(&content(path)?).with_context(|| format!("'{}'", path.display()))
}

/// The document in a file, also if its run was interrupted or is not verified; then it may be shown, if
/// that is said.
///
/// # Errors
/// The file and what is wrong with it, one line.
pub(super) fn read_any(path: &Path) -> anyhow::Result<ResultDoc> {
    document_of_any(&content(path)?).with_context(|| format!("'{}'", path.display()))
}

fn content(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    fs::read(path)
        .map_err(|e| anyhow!("'{name}' cannot be read: {e}; accepted: a result of run or replay"))
}

/// The document in `text`, if anything can stand on it.
///
/// # Errors
/// What is wrong with it, one line.
pub(super) fn document(text: &[u8]) -> anyhow::Result<ResultDoc> {
    let doc = parsed(text)?;
    usable(&doc)?;
    Ok(doc)
}

/// The document in `text`, or those of the points of a sweep, if anything can stand on all of them.
///
/// # Errors
/// What is wrong with it, one line.
pub(super) fn each(text: &[u8]) -> anyhow::Result<Vec<ResultDoc>> {
    let value = json(text)?;
    if value.get("schema").and_then(Value::as_str) == Some(SWEEP_SCHEMA) {
        let sweep =
            serde_json::from_value(value).map_err(|e| anyhow!("it is no {SWEEP_SCHEMA}: {e}"))?;
        return points(sweep);
    }
    let doc = result(value, &format!("{SCHEMA}, {SWEEP_SCHEMA}"))?;
    usable(&doc)?;
    Ok(vec![doc])
}

/// The results of a sweep, which know their points.
fn points(sweep: SweepDoc) -> anyhow::Result<Vec<ResultDoc>> {
    if !sweep.run.complete {
        bail!("the sweep was interrupted: it has a part of its runs only");
    }
    let settings: BTreeSet<&str> = sweep.swept.iter().map(|s| s.setting.as_str()).collect();
    // They become parts of names in other formats.
    let is_option =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    if let Some(odd) = settings.iter().find(|name| !is_option(name)) {
        bail!("it sweeps {odd:?}, which is no option; accepted: as \"page-size\"");
    }
    if settings.is_empty() || sweep.runs.is_empty() {
        bail!("it has no runs, or sweeps nothing");
    }
    let mut docs: Vec<ResultDoc> = Vec::new();
    for run in sweep.runs {
        let (point, doc) = (run.values, run.result);
        if !point.settings().eq(settings.iter().copied()) {
            bail!("a run is at \"{point}\", which is no point of the sweep's settings");
        }
        if docs.iter().any(|other| other.point == point) {
            bail!("it has {point} twice");
        }
        if let Some(id) = docs.iter().find_map(|other| other.shared_run(&doc)) {
            bail!("it has the run {id} twice");
        }
        if doc.schema != SCHEMA {
            bail!("{point}: it is of the schema {:?}; accepted: {SCHEMA}", doc.schema);
        }
        usable(&doc).with_context(|| point.to_string())?;
        docs.push(ResultDoc { point, ..doc });
    }
    if sweep.verified == Some(false) {
        bail!("the sweep is not verified: times of wrong work mean nothing");
    }
    Ok(docs)
}

/// The document in `text`, also if its run was interrupted or is not verified.
///
/// # Errors
/// What is wrong with it, one line.
pub(super) fn document_of_any(text: &[u8]) -> anyhow::Result<ResultDoc> {
    let doc = parsed(text)?;
    sound(&doc)?;
    Ok(doc)
}

fn parsed(text: &[u8]) -> anyhow::Result<ResultDoc> {
    result(json(text)?, SCHEMA)
}

fn json(text: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(text).map_err(|e| anyhow!("it is not JSON: {e}"))
}

fn result(value: Value, accepted: &str) -> anyhow::Result<ResultDoc> {
    match value.get("schema").and_then(Value::as_str) {
        Some(SCHEMA) => {}
        Some(other) => bail!("it is of the schema {other:?}; accepted: {accepted}"),
        None => bail!("it names no schema; accepted: {accepted}"),
    }
    serde_json::from_value(value).map_err(|e| anyhow!("it is no {SCHEMA}: {e}"))
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
    sound(doc)?;
    add_up(doc)
}

/// That its times can be, and its histograms be read.
fn sound(doc: &ResultDoc) -> anyhow::Result<()> {
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
        result.check_timeline().map_err(|e| anyhow!("{id}: {e}"))?;
    }
    for host in &doc.hosts {
        for result in &host.results {
            let (run, id) = (&host.run.id, &result.id);
            result.check_timeline().map_err(|e| anyhow!("run {run}: {id}: {e}"))?;
        }
    }
    Ok(())
}

/// That a merged document is the sum of its runs.
fn add_up(doc: &ResultDoc) -> anyhow::Result<()> {
    let mut runs = BTreeSet::new();
    for host in &doc.hosts {
        let id = &host.run.id;
        if !runs.insert(id) {
            bail!("it has the run {id} twice");
        }
        if host.verified == Some(false) || !host.run.complete {
            bail!("its run {id} is not verified or not complete");
        }
        if host.results.len() != doc.results.len() {
            let (found, wanted) = (host.results.len(), doc.results.len());
            bail!("its run {id} has {found} results, and all together have {wanted}");
        }
    }
    if doc.hosts.is_empty() {
        return Ok(());
    }
    for result in &doc.results {
        let mut sum = Tally::default();
        for host in &doc.hosts {
            let of_host = host.results.iter().find(|r| r.id == result.id);
            let of_host =
                of_host.with_context(|| format!("its run {} has no {}", host.run.id, result.id))?;
            sum.add(Tally::of(of_host)?)?;
        }
        let told = Tally::of(result)?;
        if sum != told {
            bail!(
                "{}: its runs have {sum:?}, and all together are said to have {told:?}",
                result.id
            );
        }
    }
    Ok(())
}

/// What adds up over runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) tces: u64,
    pub(super) samples: u64,
}

impl Tally {
    /// # Errors
    /// If the histogram cannot be read, or has another number of samples than the result says.
    pub(super) fn of(result: &OpResult) -> anyhow::Result<Self> {
        let (id, told) = (&result.id, result.samples);
        let samples = match (&result.hist, told) {
            (None, told) => told.unwrap_or(0),
            (Some(hist), told) => {
                let found = histogram(hist).map_err(|e| anyhow!("{id}: {e}"))?.len();
                if told.is_some_and(|told| told != found) {
                    bail!("{id}: {told:?} samples, and its histogram has {found}");
                }
                found
            }
        };
        Ok(Self { calls: result.count, tces: result.tces, samples })
    }

    /// # Errors
    /// If a sum has no room in 64 bits.
    pub(super) fn add(&mut self, other: Self) -> anyhow::Result<()> {
        let sum = |a: u64, b: u64| a.checked_add(b).context("counts add up to more than 2^64");
        self.calls = sum(self.calls, other.calls)?;
        self.tces = sum(self.tces, other.tces)?;
        self.samples = sum(self.samples, other.samples)?;
        Ok(())
    }
}

/// The histogram of a result.
///
/// # Errors
/// If it is in another encoding or unit than ours, or broken.
pub(super) fn histogram(data: &HistData) -> Result<Histogram<u64>, String> {
    if data.encoding != hist_io::ENCODING || data.unit != UNIT {
        return Err(format!(
            "its histogram is of {} in {}; accepted: {UNIT} in {}",
            data.unit,
            data.encoding,
            hist_io::ENCODING
        ));
    }
    hist_io::decode(&data.data)
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

/// What runs have in common that can stand in one history: the machine by its name, and all that has to be
/// alike.
pub(super) fn kind(doc: &ResultDoc) -> String {
    let parameters: BTreeSet<_> = doc.results.iter().filter_map(parameters).collect();
    format!("{} {} {parameters:?} {:?}", doc.host.hostname, doc.hosts.len(), facts(doc))
}

/// The parameters of an operation's histogram, which decide what a percentile is.
pub(super) fn parameters(result: &OpResult) -> Option<(&str, &str, u64, u64, u8)> {
    result
        .hist
        .as_ref()
        .map(|h| (h.encoding.as_str(), h.unit.as_str(), h.lowest, h.highest, h.sigfig))
}
