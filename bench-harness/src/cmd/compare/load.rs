// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Documents to compare, and what is compared of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use crate::cmd::documents::document;
use crate::recorder::LOWEST_PS;
use crate::result::{OpResult, ResultDoc, Skipped};

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
        let read = read.and_then(|doc| match docs.iter().find_map(|d| d.shared_run(&doc)) {
            Some(id) => bail!("it is the run {id} once more"),
            None => Ok(doc),
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
