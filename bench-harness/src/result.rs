// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The JSON document of a run, schema `tce-bench.result/1`.
//!
//! Fields are added freely, never renamed and never given another meaning; the schema in
//! `results/schema/` says which ones a reader can rely on. All times are nanoseconds.

mod hosts;
mod interval;
mod left;
mod operations;
mod setup;
mod sweep;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::hist_io;
use crate::host::HostFacts;
use crate::profile;
use crate::recorder::{self, Recorder, Summary};
use crate::stamp;

pub use hosts::HostRun;
pub use interval::Interval;
pub use left::{Joined, Left};
pub use operations::operation_ids;
pub use setup::{
    Backend, BackendKind, Config, KillCostSettings, Layout, MixSettings, RealMemory,
    ReplaySettings, RunSettings, TableMemory, TableMemoryKind, WorkloadSettings,
};
pub use sweep::{SWEEP_SCHEMA, SweepDoc, SweepPoint, SweepRun, Swept};

/// The name of the schema, in every document.
pub const SCHEMA: &str = "tce-bench.result/1";

/// What every table and document says of the mock.
pub const MOCK_LABEL: &str = "mock: software PHB, not hardware";

/// The whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultDoc {
    /// [`SCHEMA`].
    pub schema: String,
    /// What measured.
    pub tool: Tool,
    /// When and how it was called.
    pub run: Run,
    /// Where.
    pub host: HostFacts,
    /// What the engine ran on.
    pub backend: Backend,
    /// What was asked for, with defaults filled in.
    pub config: Config,
    /// What the clock costs.
    pub clock: Clock,
    /// One entry per operation.
    pub results: Vec<OpResult>,
    /// What happened beside the time.
    pub counters: Counters,
    /// True only if everything that was to be checked was, and agreed; null if nobody independent
    /// of the engine could be asked ([`Verification::unproven`] says why).
    pub verified: Option<bool>,
    /// What was checked.
    pub verification: Verification,
    /// The traces, of a replay.
    pub replay: Option<Replay>,
    /// Groups that left others while everything was mapped; empty unless `--detach` was given.
    #[serde(default)]
    pub left: Vec<Left>,
    /// What a reader should know before trusting the numbers.
    pub warnings: Vec<Warning>,
    /// What was asked for and could not be measured here.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// The runs that this is the sum of, by their ids; empty unless `tce-bench merge` made it.
    #[serde(default)]
    pub hosts: Vec<HostRun>,
    /// The point of the sweep that it was read from, which says so beside it.
    #[serde(skip)]
    pub point: SweepPoint,
}

impl ResultDoc {
    /// The document as indented JSON with a final newline.
    ///
    /// # Errors
    /// Only if a value has no JSON form.
    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|error| format!("the result cannot be written as JSON: {error}"))
    }
}

/// The program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// `tce-bench`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from, if it was built from a repository.
    pub git: Option<String>,
    /// True if the tree differed from that commit.
    pub dirty: Option<bool>,
    /// Compiler version.
    pub rustc: Option<String>,
    /// Target triple.
    pub target: Option<String>,
    /// Cargo profile.
    pub profile: Option<String>,
    /// Cargo features that were on and do something on this machine.
    pub features: Vec<String>,
}

impl Tool {
    /// This program, as it was built.
    pub fn current() -> Self {
        let owned = |value: Option<&str>| value.map(str::to_string);
        Self {
            name: env!("CARGO_PKG_NAME").to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            git: owned(option_env!("TCE_BENCH_GIT")),
            dirty: option_env!("TCE_BENCH_DIRTY").map(|dirty| dirty == "true"),
            rustc: owned(option_env!("TCE_BENCH_RUSTC")),
            target: owned(option_env!("TCE_BENCH_TARGET")),
            profile: owned(option_env!("TCE_BENCH_PROFILE")),
            features: profile::AVAILABLE.then(|| "pprof".to_string()).into_iter().collect(),
        }
    }
}

/// One call of the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// A name that sorts by time.
    pub id: String,
    /// RFC 3339, UTC.
    pub started: String,
    /// Seconds from start to the writing of this document.
    pub wall_s: f64,
    /// False if the run was interrupted: the document holds what there was.
    pub complete: bool,
    /// The command line.
    pub argv: Vec<String>,
    /// `--label`.
    pub label: Option<String>,
    /// `--seed`.
    pub seed: u64,
}

impl Run {
    /// A run that began at `started` and is not complete yet.
    pub fn begin(started: SystemTime, argv: Vec<String>, label: Option<String>, seed: u64) -> Self {
        Self {
            id: stamp::run_id(started),
            started: stamp::rfc3339(started),
            wall_s: 0.0,
            complete: false,
            argv,
            label,
            seed,
        }
    }
}

/// One operation's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpResult {
    /// Names the result across documents: `bulk.map`.
    pub id: String,
    /// What was done: `map`.
    pub op: String,
    /// `ns`.
    pub unit: String,
    /// `lower` is better.
    pub direction: String,
    /// Calls.
    pub count: u64,
    /// TCEs that those calls handled.
    pub tces: u64,
    /// Time per TCE, the mean over all calls; null without TCEs.
    pub ns_per_tce: Option<f64>,
    /// The least time per TCE of any sample; null without TCEs.
    pub best_ns_per_tce: Option<f64>,
    /// The least time per TCE of a whole round of calls; null without rounds.
    #[serde(default)]
    pub best_round_ns_per_tce: Option<f64>,
    /// Calls per sample: k of "mean of k", 1 = each call timed.
    pub group: u64,
    /// Samples in the histogram; null in documents of versions that did not say.
    #[serde(default)]
    pub samples: Option<u64>,
    /// Latency per call.
    pub latency: Summary,
    /// The memory limit of the same run; null where none applies.
    pub limit: Option<Limit>,
    /// The limit's time by the time of the best round: 1 = at the limit. Both go over the same number
    /// of bytes. Minima are compared, because means of a shared machine hold other people's work.
    pub of_limit: Option<f64>,
    /// Maps or unmaps that the engine was asked for; null where no kernel owns the tables.
    #[serde(default)]
    pub requests: Option<u64>,
    /// Requests that the engine sent to the kernel for them.
    #[serde(default)]
    pub ioctls: Option<u64>,
    /// Stores to kill registers for each 1000 TCEs; null where a kernel owns the tables, or without TCEs.
    #[serde(default)]
    pub kills_per_1000_tces: Option<f64>,
    /// The longest time in this phase, measured in a pass of its own, that a released page stayed
    /// reachable: from before its entry was cleared or changed until its kill had been waited for. 0 if
    /// none was released; null where the engine does not kill, or nobody measured.
    #[serde(default)]
    pub exposure_ns: Option<u64>,
    /// What it was measured on, if not on the run's windows.
    #[serde(default)]
    pub own_table: Option<OwnTable>,
    /// Times are from when each operation was due, not from when it was begun; null for those of closed
    /// loops, and for the calls themselves.
    #[serde(default)]
    pub open_loop: Option<OpenLoop>,
    /// How it went in the course of its phase; null where nobody looked, and in sums of several runs.
    #[serde(default, serialize_with = "interval::one_a_line")]
    pub timeline: Option<Vec<Interval>>,
    /// The histogram; null without samples.
    pub hist: Option<HistData>,
}

impl OpResult {
    /// The result of what `recorder` holds.
    ///
    /// # Errors
    /// If the histogram cannot be encoded.
    pub fn new(
        id: &str,
        op: &str,
        recorder: &Recorder,
        limit: Option<Limit>,
    ) -> Result<Self, String> {
        let best_round = recorder.best_round_ns_per_tce();
        let of_limit = match (&limit, best_round) {
            (Some(limit), Some(ns)) if ns > 0.0 => Some(limit.ns_per_tce / ns),
            _ => None,
        };
        let hist =
            if recorder.samples() > 0 { Some(HistData::new(recorder.histogram())?) } else { None };
        Ok(Self {
            id: id.to_string(),
            op: op.to_string(),
            unit: "ns".to_string(),
            direction: "lower".to_string(),
            count: recorder.calls(),
            tces: recorder.tces(),
            ns_per_tce: recorder.ns_per_tce(),
            best_ns_per_tce: recorder.best_ns_per_tce(),
            best_round_ns_per_tce: best_round,
            group: recorder.group(),
            samples: Some(recorder.samples()),
            latency: recorder.summary(),
            limit,
            of_limit,
            requests: None,
            ioctls: None,
            kills_per_1000_tces: None,
            exposure_ns: None,
            own_table: None,
            open_loop: None,
            timeline: None,
            hist,
        })
    }
}

/// Operations that were due at times fixed beforehand. Waiting behind slow ones is in their times, so
/// nothing is omitted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OpenLoop {
    /// Operations a second, of all threads together.
    pub asked_per_s: u64,
    /// As many as were done, of those that were due; less than asked for if it was out of reach.
    pub achieved_per_s: f64,
    /// Operations begun when the next one was due already, or later.
    pub late: u64,
    /// The longest time between when one was due and when it was begun.
    pub most_behind_ns: u64,
}

/// A table that one operation has for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnTable {
    /// Bytes of bus address space.
    pub window_bytes: u64,
    /// log2 of the IOMMU page size.
    pub page_shift: u8,
    /// Levels.
    pub levels: u64,
    /// Bytes of all blocks.
    pub table_bytes: u64,
    /// IOMMU groups that share it.
    pub groups: u64,
    /// Cores that the engine may use for one call.
    pub cores: u64,
}

/// What the memory allows, measured in the same run over the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Which loop it is.
    pub kind: LimitKind,
    /// The tree's own loop, its best time.
    pub ns_per_tce: f64,
    /// libc's memset or memcpy beside it, the best time.
    pub libc_ns_per_tce: Option<f64>,
}

/// The loops that limits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitKind {
    /// Stores only.
    Store,
    /// Loads and stores.
    Copy,
}

/// A histogram with what is needed to read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistData {
    /// [`hist_io::ENCODING`].
    pub encoding: String,
    /// `ps`.
    pub unit: String,
    /// Lowest value told apart.
    pub lowest: u64,
    /// Highest value.
    pub highest: u64,
    /// Significant digits.
    pub sigfig: u8,
    /// Base64.
    pub data: String,
}

impl HistData {
    /// Encodes a histogram of picoseconds.
    ///
    /// # Errors
    /// As [`hist_io::encode`].
    pub fn new(hist: &Histogram<u64>) -> Result<Self, String> {
        Ok(Self {
            encoding: hist_io::ENCODING.to_string(),
            unit: "ps".to_string(),
            lowest: recorder::LOWEST_PS,
            highest: recorder::HIGHEST_PS,
            sigfig: recorder::SIGFIG,
            data: hist_io::encode(hist)?,
        })
    }
}

/// What was counted. Bytes are charges against the locked-memory limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Entries stored into tables.
    pub tces_written: u64,
    /// Invalidated entries times PEs.
    pub kills_asked: u64,
    /// Kills that were sent to the PHB.
    pub kills_issued: u64,
    /// Stores that the PHB's kill registers saw.
    pub register_stores: u64,
    /// Time that kills and fences of the run's mock were made to take, of all threads together, with
    /// setting up and warm-up; 0 unless `--kill-cost` was given.
    pub kill_cost_ns: u64,
    /// Maps and unmaps that the engine was asked for, warm-up included.
    pub requests: u64,
    /// Requests that the engine sent to a kernel for them; 0 where no kernel owns the tables.
    pub ioctls: u64,
    /// Most that was pinned at a time, tables included.
    pub pinned_peak_bytes: u64,
    /// Still pinned at the end; 0 unless something leaked.
    pub pinned_end_bytes: u64,
    /// Charged for tables.
    pub table_charge_bytes: u64,
    /// Leaf blocks of all tables.
    pub leaf_blocks: u64,
    /// All blocks of all tables.
    pub table_blocks: u64,
}

/// What was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Translations by an independent walker that were compared with the model or the trace.
    pub translations: u64,
    /// Entries of the engine's mirror of a kernel's table that were compared with the model.
    #[serde(default)]
    pub mirror_entries: u64,
    /// Times that everything was compared.
    pub passes: u64,
    /// The first difference, in words; null = none.
    pub first_mismatch: Option<String>,
    /// What the kernel's books of the process said; null where no kernel keeps any (the mock).
    #[serde(default)]
    pub books: Option<BooksResult>,
    /// What devices said; null where none can be driven.
    #[serde(default)]
    pub dma: Option<DmaResult>,
    /// Why `verified` is null; null if it is not.
    #[serde(default)]
    pub unproven: Option<String>,
}

/// The process's locked memory, compared with the sum of the engine's charges after each step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksResult {
    /// Steps after which they were compared.
    pub comparisons: u64,
    /// The first difference, in words; null = none.
    pub first_difference: Option<String>,
}

/// Pages that devices were told to read and to write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmaResult {
    /// Devices, each as `group 3: 0000:04:00.0`.
    pub devices: Vec<String>,
    /// Pages whose bytes went both ways through a device.
    pub pages: u64,
    /// Unmapped pages that devices found nothing at, and could not write.
    pub unmapped: u64,
}

/// A replay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// In the order given.
    pub traces: Vec<TraceResult>,
    /// Over all traces.
    pub total: ReplayTotal,
}

/// The sum over the traces of a replay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayTotal {
    /// Hypercalls.
    pub calls: u64,
    /// TCEs that successful put and indirect calls mapped.
    pub tces_mapped: u64,
    /// `xlate` lines compared.
    pub translations: u64,
    /// Entries compared after the traces.
    pub final_entries: u64,
    /// Answers, values and translations that differed.
    pub mismatches: u64,
    /// All calls by the time of all throughput passes; null if there was none.
    pub calls_per_s: Option<f64>,
    /// The same time by all TCEs stored, cleared or read.
    pub ns_per_tce: Option<f64>,
}

/// One replayed trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceResult {
    /// As the user named it.
    pub file: String,
    /// The trace's own name.
    pub name: String,
    /// Hypercalls.
    pub calls: u64,
    /// TCEs that successful put and indirect calls mapped.
    pub tces_mapped: u64,
    /// `xlate` lines compared.
    pub translations: u64,
    /// Entries read back with H_GET_TCE after the trace and compared.
    pub final_entries: u64,
    /// Answers, values and translations that differed.
    pub mismatches: u64,
    /// Guest RAM in bytes.
    pub ram_bytes: u64,
    /// Calls per second of the throughput pass; null if it was not asked for.
    pub calls_per_s: Option<f64>,
    /// Time of the throughput pass per TCE stored, cleared or read.
    pub ns_per_tce: Option<f64>,
    /// False if a signal ended one of its passes.
    pub complete: bool,
}

/// Something that was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its id, or how its ids would begin.
    pub id: String,
    /// One line for people.
    pub reason: String,
}

/// A warning with a code that a program can look for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Upper case, as `NO_VFIO`.
    pub code: String,
    /// One line for people.
    pub text: String,
}

impl Warning {
    /// A warning from its two parts.
    pub fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_string(), text: text.into() }
    }
}
