// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The document, schema `tce-bench.policies/1`. Fields are added, never renamed.

use serde::Serialize;

use super::rules::Linux;
use crate::host::HostFacts;
use crate::recorder::Summary;
use crate::result::{KillCostSettings, Run, Tool};

pub(super) const SCHEMA: &str = "tce-bench.policies/1";

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Doc {
    pub(super) schema: &'static str,
    pub(super) tool: Tool,
    pub(super) run: Run,
    pub(super) host: HostFacts,
    pub(super) label: String,
    pub(super) workload: Workload,
    pub(super) config: Settings,
    /// Linux's rules for the same calls.
    pub(super) linux: Linux,
    pub(super) rows: Vec<Row>,
    /// All answers and final tables were as the trace says, in every row, and nothing was left.
    pub(super) verified: bool,
    pub(super) first_mismatch: Option<String>,
}

/// Whose calls.
#[derive(Debug, Serialize)]
pub(super) struct Workload {
    pub(super) name: String,
    /// As the user named it.
    pub(super) file: String,
    /// False if it was made up.
    pub(super) recorded: bool,
    pub(super) hypercalls: u64,
    pub(super) tces_mapped: u64,
    /// As many as vCPUs made calls, or one.
    pub(super) handles: u64,
    pub(super) phbs: u64,
    /// From the first call to the last, by the trace's clock.
    pub(super) seconds: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Settings {
    /// PEs behind each PHB.
    pub(super) groups: u64,
    pub(super) repeat: u64,
    pub(super) host_page_shift: u8,
    pub(super) simd: &'static str,
    pub(super) kill_cost: Option<KillCostSettings>,
}

/// A policy on a platform. What an interrupt left out is null.
#[derive(Debug, Default, Serialize)]
pub(super) struct Row {
    pub(super) policy: String,
    pub(super) fill: String,
    pub(super) platform: String,
    pub(super) kills: Option<Kills>,
    pub(super) linux: Beside,
    /// By the best throughput pass; ends of batches are in it, but are no calls.
    pub(super) calls_per_s: Option<f64>,
    pub(super) ns_per_call: Option<f64>,
    pub(super) ns_per_tce: Option<f64>,
    /// Of hypercalls and ends of batches.
    pub(super) latency: Summary,
    pub(super) operations: Vec<Op>,
    /// The longest that a released page stayed reachable, measured while the replay went as fast as it
    /// could.
    pub(super) exposure_ns: Option<u64>,
    /// The longest that a page was held back by the clock of the trace; 0 if none was.
    pub(super) exposure_trace_ns: Option<u64>,
    /// Most pages that all handles together held back.
    pub(super) held_back_pages: Option<u64>,
    /// Their size; null also where windows have pages of several sizes.
    pub(super) held_back_bytes: Option<u64>,
    /// Time that kills were made to take in the last throughput pass, with setting up.
    pub(super) kill_cost_ns: u64,
    /// Entries of the final tables that were compared.
    pub(super) entries_compared: u64,
    pub(super) mismatches: u64,
    pub(super) verified: bool,
}

/// What kill registers saw from the first call to the last, all PEs together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Kills {
    /// Entries times PEs that had to be forgotten.
    pub(super) asked: u64,
    /// `page_stores` and `whole_stores`.
    pub(super) stores: u64,
    pub(super) page_stores: u64,
    /// Each a PE, or all of a bridge.
    pub(super) whole_stores: u64,
    pub(super) fences: u64,
    /// Levels that have to be read again after `whole_stores`, as the cost model counts.
    pub(super) refills: u64,
    /// `stores`, by the TCEs that calls stored or cleared.
    pub(super) per_1000_tces: f64,
}

/// Linux's rule for the row's platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Beside {
    /// What is compared: `stores` with stores, `calls` with calls.
    pub(super) unit: &'static str,
    pub(super) kills: u64,
    /// Without the clearing of what was clear.
    pub(super) kills_valid: u64,
    /// `kills` by the row's; null if it has none.
    pub(super) times_fewer: Option<f64>,
    /// `kills_valid` by the row's.
    pub(super) times_fewer_valid: Option<f64>,
}

/// One kind of call.
#[derive(Debug, Serialize)]
pub(super) struct Op {
    pub(super) op: &'static str,
    pub(super) count: u64,
    pub(super) latency: Summary,
}
