// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Documents to compare, and what is compared of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use crate::cmd::documents::each;
use crate::recorder::LOWEST_PS;
use crate::result::{OpResult, ResultDoc, Skipped, SweepPoint};

/// A run: its result, or those of the points of a sweep.
pub(super) type Taken = Vec<ResultDoc>;

/// The runs of one program, in order of time.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// As the user named it.
    pub(super) name: String,
    pub(super) runs: Vec<Taken>,
}

impl Side {
    pub(super) fn docs(&self) -> impl Iterator<Item = &ResultDoc> {
        self.runs.iter().flatten()
    }

    /// What each run has of a point.
    pub(super) fn at(&self, point: &SweepPoint) -> Vec<Option<&ResultDoc>> {
        self.runs.iter().map(|run| run.iter().find(|doc| doc.point == *point)).collect()
    }
}

/// All points, in the order of the first run that has them. Runs that are no sweeps have one, which is none.
pub(super) fn points(sides: &[Side; 2]) -> Vec<&SweepPoint> {
    let mut points = Vec::new();
    for doc in sides.iter().flat_map(Side::docs) {
        if !points.contains(&&doc.point) {
            points.push(&doc.point);
        }
    }
    points
}

/// Reads a document, or those of a folder. Of a folder, what cannot be used is left out and told.
pub(super) fn side(path: &Path, skipped: &mut Vec<Skipped>) -> anyhow::Result<Side> {
    let name = path.display().to_string();
    let about = fs::metadata(path).map_err(|e| {
        anyhow!("'{name}' cannot be read: {e}; accepted: a result, a sweep or a folder of either")
    })?;
    if !about.is_dir() {
        let run = each(&fs::read(path)?).with_context(|| format!("'{name}'"))?;
        return Ok(Side { name, runs: vec![run] });
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("'{name}'"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|e| e == "json") {
            files.push(file);
        }
    }
    files.sort();
    let mut side = Side { name, runs: Vec::new() };
    for file in &files {
        let read = fs::read(file).map_err(anyhow::Error::from).and_then(|text| each(&text));
        let shared = |run: &Taken| {
            let of = |doc: &ResultDoc| {
                side.docs().find_map(|known| known.shared_run(doc).map(str::to_owned))
            };
            run.iter().find_map(of)
        };
        let read = read.and_then(|run| match shared(&run) {
            Some(id) => bail!("it is the run {id} once more"),
            None => Ok(run),
        });
        match read {
            Ok(run) => side.runs.push(run),
            Err(why) => {
                let (id, reason) = (file.display().to_string(), format!("{why:#}"));
                skipped.push(Skipped { id, reason });
            }
        }
    }
    if side.runs.is_empty() {
        let name = side.name;
        let first = skipped.last().map_or(String::new(), |s| format!("; {}: {}", s.id, s.reason));
        bail!("'{name}' has no usable result among {} files *.json{first}", files.len());
    }
    let began = |run: &Taken| run.first().map(|doc| doc.run.id.clone());
    side.runs.sort_by_key(began);
    Ok(side)
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
    pub(in crate::cmd) fn of(self, result: &OpResult) -> Result<f64, String> {
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
