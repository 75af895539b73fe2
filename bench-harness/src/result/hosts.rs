// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The runs that a merged document is the sum of.

use serde::{Deserialize, Serialize};

use super::{
    Backend, Counters, Left, OpResult, Replay, ResultDoc, Run, Skipped, Verification, Warning,
};
use crate::clock::Clock;
use crate::host::HostFacts;

/// One run with everything that is its own; a host that ran several times has as many. Program and
/// settings are those of the whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostRun {
    /// When and how it was called.
    pub run: Run,
    /// Where.
    pub host: HostFacts,
    /// What the engine ran on.
    pub backend: Backend,
    /// What the clock costs there.
    pub clock: Clock,
    /// As the document's; `hist` is null, since the samples are in the document's histogram.
    pub results: Vec<OpResult>,
    /// What happened beside the time.
    pub counters: Counters,
    /// As the document's.
    pub verified: Option<bool>,
    /// What was checked.
    pub verification: Verification,
    /// The traces, of a replay.
    pub replay: Option<Replay>,
    /// Groups that left others.
    #[serde(default)]
    pub left: Vec<Left>,
    /// What a reader should know before trusting the numbers.
    pub warnings: Vec<Warning>,
    /// What was asked for and could not be measured there.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

impl ResultDoc {
    /// The ids of all runs whose samples are in here, the document's own first.
    pub fn run_ids(&self) -> impl Iterator<Item = &str> {
        let of_hosts = self.hosts.iter().map(|host| host.run.id.as_str());
        std::iter::once(self.run.id.as_str()).chain(of_hosts)
    }

    /// A run whose samples are in both documents.
    pub fn shared_run<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        other.run_ids().find(|id| self.run_ids().any(|own| own == *id))
    }
}
