// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The JSON document of a sweep, schema `tce-bench.sweep/1`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ResultDoc, Run, Tool};

/// The name of the schema, in every document.
pub const SWEEP_SCHEMA: &str = "tce-bench.sweep/1";

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepDoc {
    /// [`SWEEP_SCHEMA`].
    pub schema: String,
    /// What measured.
    pub tool: Tool,
    /// When and how it was called.
    pub run: Run,
    /// Settings and their values, in the order of the command line.
    pub swept: Vec<Swept>,
    /// In the order in which they ran; not all of them if the sweep was interrupted.
    pub runs: Vec<SweepRun>,
    /// As of a result, of all together.
    pub verified: Option<bool>,
}

/// A setting and its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// As its option, without the dashes.
    pub setting: String,
    /// As they can be typed.
    pub values: Vec<String>,
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepRun {
    /// Which.
    pub values: SweepPoint,
    /// What it gave.
    pub result: ResultDoc,
}

/// The value of each swept setting, by which runs of different sweeps are told to be of the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SweepPoint(pub BTreeMap<String, String>);

impl SweepPoint {
    /// True for a run by itself.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the settings.
    pub fn settings(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Display for SweepPoint {
    /// `groups=2 pages=8`; of a run by itself nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (setting, value)) in self.0.iter().enumerate() {
            let between = if nth == 0 { "" } else { " " };
            write!(f, "{between}{setting}={value}")?;
        }
        Ok(())
    }
}
