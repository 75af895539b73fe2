// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The history in a folder: read, sorted into series of runs that are alike, judged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rayon::prelude::*;

use crate::cmd::compare::Metric;
use crate::cmd::compare::history::{Change, JUDGED, changes};
use crate::cmd::documents::{kind, read};
use crate::result::{ResultDoc, Skipped, operation_ids};

/// Runs of one machine and one workload, in order of time.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) docs: Vec<ResultDoc>,
    /// The first run of each build.
    pub(super) builds: Vec<usize>,
    pub(super) operations: Vec<History>,
}

/// One operation of a series.
#[derive(Debug)]
pub(super) struct History {
    pub(super) id: String,
    /// Its runs, by their place in the series.
    pub(super) runs: Vec<usize>,
    /// Of its runs; `at` is a place in the series.
    pub(super) changes: Vec<(Metric, Change)>,
}

/// Everything that was found in a folder.
#[derive(Debug)]
pub(super) struct Trend {
    pub(super) folder: String,
    pub(super) series: Vec<Series>,
    pub(super) skipped: Vec<Skipped>,
}

/// Reads all results below a folder.
///
/// # Errors
/// If it cannot be read, or there is none.
pub(super) fn trend(folder: &Path) -> anyhow::Result<Trend> {
    let name = folder.display().to_string();
    let mut files = Vec::new();
    collect(folder, &mut files).with_context(|| format!("'{name}' cannot be read"))?;
    files.sort();
    let found: Vec<_> = files.par_iter().map(|file| read(file).map(slim)).collect();
    let mut kinds: BTreeMap<String, Vec<ResultDoc>> = BTreeMap::new();
    let mut skipped = Vec::new();
    let mut taken: BTreeMap<String, &PathBuf> = BTreeMap::new();
    for (file, found) in files.iter().zip(found) {
        let mut skip = |reason| skipped.push(Skipped { id: file.display().to_string(), reason });
        match found {
            Err(why) => {
                // Its name stands beside it already.
                let why = format!("{:#}", why.root_cause());
                skip(why);
            }
            Ok(doc) => {
                let again = doc.run_ids().find_map(|id| taken.get(id).map(|file| (id, *file)));
                if let Some((id, other)) = again {
                    skip(format!("it is the run {id} of {} once more", other.display()));
                    continue;
                }
                taken.extend(doc.run_ids().map(|id| (id.to_owned(), file)));
                kinds.entry(kind(&doc)).or_default().push(doc);
            }
        }
    }
    if kinds.is_empty() {
        let first = skipped.first().map_or(String::new(), |s| format!("; {}: {}", s.id, s.reason));
        bail!("'{name}' has no usable result among {} files *.json{first}", files.len());
    }
    let mut series: Vec<Series> = kinds.into_values().map(judged).collect();
    // Those that went on last come first.
    series.sort_by(|a, b| last(b).cmp(last(a)).then_with(|| b.docs.len().cmp(&a.docs.len())));
    Ok(Trend { folder: name, series, skipped })
}

fn last(series: &Series) -> &str {
    series.docs.last().map_or("", |doc| &doc.run.started)
}

/// Files `*.json` below a folder. Links to folders are not followed: they may lead back.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "json") {
            files.push(path);
        }
    }
    Ok(())
}

/// Without what a trend does not show: a thousand histograms and timelines take much memory.
fn slim(mut doc: ResultDoc) -> ResultDoc {
    for result in &mut doc.results {
        result.timeline = None;
        result.hist.iter_mut().for_each(|hist| hist.data.clear());
    }
    doc.hosts.iter_mut().for_each(|host| host.results.clear());
    doc
}

/// A build, as far as a document knows.
fn build(doc: &ResultDoc) -> (Option<&str>, Option<bool>, &str) {
    (doc.tool.git.as_deref(), doc.tool.dirty, &doc.tool.version)
}

fn judged(mut docs: Vec<ResultDoc>) -> Series {
    docs.sort_by(|a, b| (&a.run.started, &a.run.id).cmp(&(&b.run.started, &b.run.id)));
    let first_of_build = |at: &usize| *at == 0 || build(&docs[*at]) != build(&docs[*at - 1]);
    let builds: Vec<usize> = (0..docs.len()).filter(first_of_build).collect();
    let ids = operation_ids(&docs);
    let together = ids.len() * JUDGED.len();
    let history = |id: &&str| {
        let has = |at: &usize| docs[*at].operation(id).is_some();
        let runs: Vec<usize> = (0..docs.len()).filter(has).collect();
        let of = |metric| changes_of(&docs, &builds, (id, metric), together);
        let changes = JUDGED.into_iter().flat_map(of).collect();
        History { id: (*id).to_owned(), runs, changes }
    };
    let operations = ids.par_iter().map(history).collect();
    Series { builds, operations, docs }
}

/// Changes of one metric of an operation. A build whose first runs lack it begins with the first that has it.
fn changes_of(
    docs: &[ResultDoc],
    builds: &[usize],
    (id, metric): (&str, Metric),
    together: usize,
) -> Vec<(Metric, Change)> {
    let told =
        |at: usize| docs[at].operation(id).and_then(|r| metric.of(r).ok()).map(|ns| (at, ns));
    let (runs, ns): (Vec<usize>, Vec<f64>) = (0..docs.len()).filter_map(told).unzip();
    let places: Vec<usize> = builds.iter().map(|at| runs.partition_point(|run| run < at)).collect();
    let found = changes(&ns, &places, (id, metric), together);
    found.into_iter().map(|change| (metric, Change { at: runs[change.at], ..change })).collect()
}
