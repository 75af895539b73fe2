// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench merge`: results of many hosts, or of many runs, into one.
//!
//! The result is a function of the runs alone, ordered by their ids, and of the sums of their histograms.
//! So it does not matter in which order, or in how many steps, documents are merged.

mod sum;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow, bail};
use hdrhistogram::Histogram;

use super::Status;
use super::documents::{Tally, histogram, parameters, read, unlike};
use crate::cli::MergeConfig;
use crate::result::{HistData, HostRun, ResultDoc, Warning};
use crate::style::printable;

/// The code of the warning that names a file that was left out.
const LEFT_OUT: &str = "LEFT_OUT";

/// Merges and writes.
///
/// # Errors
/// What cannot be read, does not fit or cannot be written, one line. Then nothing is written.
pub fn merge(config: &MergeConfig) -> anyhow::Result<Status> {
    config.out.check().map_err(|e| anyhow!(e))?;
    let mut parts = Vec::new();
    let mut broken = Vec::new();
    for path in &config.results {
        match read(path) {
            Ok(doc) => parts.push((path.display().to_string(), doc)),
            Err(why) => broken.push(format!("{why:#}")),
        }
    }
    if !broken.is_empty() {
        if !config.skip_unusable {
            bail!("{}; --skip-unusable merges the others without them", broken.join("; "));
        }
        if parts.is_empty() {
            bail!("none of {} files is a usable result: {}", broken.len(), broken.join("; "));
        }
    }
    let mut doc = merged(&parts)?;
    doc.warnings.extend(broken.iter().map(|why| Warning::new(LEFT_OUT, why.as_str())));
    let text = doc.to_json().map_err(|e| anyhow!(e))?;
    config.out.write(text.as_bytes()).map_err(|e| anyhow!(e))?;
    for why in &broken {
        eprintln!("left out: {}", printable(why));
    }
    if !config.quiet {
        let hosts: BTreeSet<_> = doc.hosts.iter().map(|h| &h.host.hostname).collect();
        let total = doc.results.iter().try_fold(Tally::default(), |mut sum, result| {
            sum.add(Tally::of(result)?).map(|()| sum)
        })?;
        eprintln!(
            "{} run(s) of {} host(s): {} operation(s), {} calls, {} samples",
            doc.hosts.len(),
            hosts.len(),
            doc.results.len(),
            total.calls,
            total.samples
        );
    }
    Ok(Status::Ok)
}

/// The first few of many, and how many more there are.
fn list(all: &[String]) -> String {
    let (shown, more) = all.split_at(all.len().min(4));
    let more = if more.is_empty() { String::new() } else { format!("; {} more", more.len()) };
    format!("{}{more}", shown.join("; "))
}

/// All runs of named documents as one document.
///
/// # Errors
/// If one does not fit the first, or has a run that another has, too.
pub(super) fn merged(parts: &[(String, ResultDoc)]) -> anyhow::Result<ResultDoc> {
    let (first_name, first) = parts.first().context("there is nothing to merge")?;
    let mut rows: BTreeMap<String, (HostRun, &str)> = BTreeMap::new();
    let mut sums: BTreeMap<&str, Histogram<u64>> = BTreeMap::new();
    let mut left_out: Vec<Warning> = Vec::new();
    for (name, doc) in parts {
        let differences = misfit(first, doc);
        if !differences.is_empty() {
            bail!(
                "'{first_name}' and '{name}' do not fit: {}; merge those of one program, one kind of \
                 machine and one workload by themselves",
                list(&differences)
            );
        }
        for row in runs(doc)? {
            let id = row.run.id.clone();
            if let Some((_, other)) = rows.insert(id.clone(), (row, name)) {
                bail!(
                    "'{other}' and '{name}' both have the run {id}, whose samples would count twice; \
                     give each result once"
                );
            }
        }
        for result in &doc.results {
            let Some(data) = &result.hist else { continue };
            let hist = histogram(data).map_err(|e| anyhow!("'{name}': {}: {e}", result.id))?;
            match sums.get_mut(result.id.as_str()) {
                None => drop(sums.insert(&result.id, hist)),
                Some(sum) => {
                    let wanted = sum.len().checked_add(hist.len());
                    sum.add(&hist).map_err(|e| anyhow!("'{name}': {}: {e}", result.id))?;
                    if wanted != Some(sum.len()) {
                        bail!("'{name}': {}: the samples add up to more than 2^64", result.id);
                    }
                }
            }
        }
        left_out.extend(doc.warnings.iter().filter(|w| w.code == LEFT_OUT).cloned());
    }
    let rows: Vec<HostRun> = rows.into_values().map(|(row, _)| row).collect();
    let mut hists = BTreeMap::new();
    for (id, hist) in &sums {
        hists.insert(*id, (HistData::new(hist).map_err(|e| anyhow!("{id}: {e}"))?, hist));
    }
    let mut doc = sum::document(first, rows, &hists)?;
    left_out.sort_by(|a, b| a.text.cmp(&b.text));
    left_out.dedup();
    doc.warnings.extend(left_out);
    Ok(doc)
}

/// The runs of a document: those it was merged from, or itself.
fn runs(doc: &ResultDoc) -> anyhow::Result<Vec<HostRun>> {
    if !doc.hosts.is_empty() {
        return Ok(doc.hosts.clone());
    }
    let ResultDoc { run, host, backend, clock, counters, verified, .. } = doc.clone();
    let ResultDoc { verification, replay, left, warnings, skipped, .. } = doc.clone();
    let mut results = Vec::new();
    for result in &doc.results {
        let samples = Some(Tally::of(result)?.samples);
        let mut row = result.clone();
        (row.samples, row.hist) = (samples, None);
        results.push(row);
    }
    Ok(vec![HostRun {
        run,
        host,
        backend,
        clock,
        results,
        counters,
        verified,
        verification,
        replay,
        left,
        warnings,
        skipped,
    }])
}

/// Why samples of two documents cannot be of one population, each in words.
fn misfit(a: &ResultDoc, b: &ResultDoc) -> Vec<String> {
    let mut found = unlike(a, b);
    let (tool_a, tool_b) = (&a.tool, &b.tool);
    if tool_a != tool_b {
        let about = |t: &crate::result::Tool| {
            let git = t.git.as_deref().unwrap_or("an unknown commit");
            let changed = if t.dirty == Some(true) { " and changes" } else { "" };
            format!("{} of {git}{changed}, {:?}, {:?}", t.version, t.rustc, t.features)
        };
        found.push(format!("tool: {} and {}", about(tool_a), about(tool_b)));
    }
    for result in &a.results {
        match b.operation(&result.id) {
            None => found.push(format!("{} is in the first only", result.id)),
            // One without samples has no parameters to differ.
            Some(other) => {
                if let (Some(one), Some(two)) = (parameters(result), parameters(other))
                    && one != two
                {
                    found.push(format!(
                        "{}: histograms of other parameters: {one:?} and {two:?}",
                        result.id
                    ));
                }
            }
        }
    }
    for result in &b.results {
        if !a.results.iter().any(|r| r.id == result.id) {
            found.push(format!("{} is in the second only", result.id));
        }
    }
    found
}
