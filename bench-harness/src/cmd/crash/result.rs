// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the rounds gave: the JSON document, schema `tce-bench.crash/1`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bystander::Answer;
use super::processes::System;
use crate::host::HostFacts;
use crate::result::{DmaResult, Run, Tool, Warning};

pub(super) const SCHEMA: &str = "tce-bench.crash/1";

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Doc {
    pub(super) schema: &'static str,
    pub(super) tool: Tool,
    pub(super) run: Run,
    pub(super) host: HostFacts,
    /// What it ran on.
    pub(super) label: String,
    pub(super) kernel: Option<String>,
    pub(super) machine: Option<String>,
    pub(super) config: Settings,
    /// Rounds whose victim was killed, and after which everything was as it should be.
    pub(super) rounds: u32,
    /// Victims that had ended before their moment came: what they left was looked at, but they are no
    /// round.
    pub(super) ended_before: u64,
    /// Kills by the last step that a victim had begun; `start`: none.
    pub(super) kills_at: BTreeMap<&'static str, u64>,
    /// Kills by victim.
    pub(super) kills_of: BTreeMap<&'static str, u64>,
    /// Temporary files of results that victims left, and that the next run took away.
    pub(super) temporary_files: u64,
    pub(super) longest: Longest,
    pub(super) bystander: Beside,
    /// The system before the first victim, and after the last.
    pub(super) before: System,
    pub(super) after: System,
    pub(super) failures: Vec<Failure>,
    pub(super) kills: Vec<Kill>,
    pub(super) warnings: Vec<Warning>,
    /// Null if no device could be asked.
    pub(super) verified: Option<bool>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    /// `mock` or `vfio`.
    pub(super) backend: &'static str,
    pub(super) rounds: u32,
    /// The bystander's; null on mocks.
    pub(super) bystander_group: Option<u32>,
    /// Those of victims; none on mocks.
    pub(super) groups: Vec<u32>,
    pub(super) patience_s: f64,
}

/// The longest of all rounds.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Longest {
    /// From a kill until the process was gone.
    pub(super) reap_ns: u64,
    /// From then until its groups could be opened; null on mocks.
    pub(super) release_ns: Option<u64>,
    /// From then until the system was as before.
    pub(super) settle_ns: u64,
}

/// The bystander.
#[derive(Debug, Default, Serialize)]
pub(super) struct Beside {
    /// `VmLck`, the same after each kill.
    pub(super) locked_bytes: u64,
    /// What its engine has charged.
    pub(super) charged_bytes: u64,
    /// Pages that stay mapped.
    pub(super) standing: u64,
    pub(super) turns: u64,
    pub(super) calls: u64,
    /// Translations that an independent walker found as they should be.
    pub(super) translations: u64,
    pub(super) mirror_entries: u64,
    pub(super) dma: Option<DmaResult>,
}

impl Beside {
    pub(super) fn add(&mut self, answer: Answer) {
        self.turns = answer.turns;
        self.calls = answer.calls;
        self.translations = answer.translations;
        self.mirror_entries = answer.mirror_entries;
        self.dma = answer.dma;
    }
}

/// What was not as it should be.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Failure {
    /// 0 if it was after all rounds.
    pub(super) round: u32,
    pub(super) what: String,
}

/// One kill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Kill {
    pub(super) round: u32,
    pub(super) victim: &'static str,
    /// Real ones; none on mocks.
    pub(super) groups: Vec<u32>,
    /// What was waited for, in words.
    pub(super) moment: String,
    /// The last step that it had begun.
    pub(super) at: &'static str,
    pub(super) after_s: f64,
    /// `VmLck` when it was last looked at.
    pub(super) locked_bytes: u64,
    pub(super) reap_ns: u64,
    pub(super) release_ns: Option<u64>,
    pub(super) settle_ns: u64,
    pub(super) temporary_files: u64,
}

impl Doc {
    pub(super) fn add(&mut self, kill: Kill) {
        self.rounds += 1;
        *self.kills_at.entry(kill.at).or_default() += 1;
        *self.kills_of.entry(kill.victim).or_default() += 1;
        self.temporary_files += kill.temporary_files;
        let longest = &mut self.longest;
        longest.reap_ns = longest.reap_ns.max(kill.reap_ns);
        longest.release_ns = longest.release_ns.max(kill.release_ns);
        longest.settle_ns = longest.settle_ns.max(kill.settle_ns);
        self.kills.push(kill);
    }
}
