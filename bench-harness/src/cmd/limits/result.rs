// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a machine allows: tables for people and a JSON document, schema `tce-bench.limits/1`.

use serde::Serialize;

use crate::clock::Clock;
use crate::cmd::least::Cost;
use crate::columns::table;
use crate::host::HostFacts;
use crate::result::{Run, TableMemoryKind, Tool};
use crate::size::format_size;
use crate::style::{Style, time_ns};

/// The name of the schema.
pub(super) const SCHEMA: &str = "tce-bench.limits/1";

/// Bytes of a TCE.
const TCE: f64 = 8.0;

/// The loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LoopKind {
    /// The tree's own: the same entry everywhere.
    Store,
    /// libc's.
    Memset,
    /// The tree's own: lists of 512 words that stay in the cache.
    Copy,
    /// libc's, from the same lists.
    Memcpy,
    /// The tree's own, of zeros, past the caches where the machine has such stores; the wait for them
    /// is included.
    ClearStreaming,
    /// Stores that go past the caches, and the wait for them.
    NonTemporal,
    /// An arithmetic run by scalar instructions: add, swap the bytes, store.
    SwapStore,
    /// A locked exchange for each entry.
    LockedExchange,
}

impl LoopKind {
    /// For people.
    fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Memset => "memset",
            Self::Copy => "copy",
            Self::Memcpy => "memcpy",
            Self::ClearStreaming => "streaming clear",
            Self::NonTemporal => "non-temporal store",
            Self::SwapStore => "swap + store",
            Self::LockedExchange => "locked exchange",
        }
    }
}

/// One loop over tables of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LoopResult {
    #[serde(rename = "loop")]
    pub(super) kind: LoopKind,
    /// Whose loop it is; null where it is nobody's.
    pub(super) tier: Option<&'static str>,
    pub(super) ns_per_tce: Cost,
    /// 10^9 bytes of table per second, by the least time.
    pub(super) gb_per_s: f64,
}

impl LoopResult {
    pub(super) fn new(kind: LoopKind, tier: Option<&'static str>, ns_per_tce: Cost) -> Self {
        Self { kind, tier, ns_per_tce, gb_per_s: TCE / ns_per_tce.min }
    }

    fn name(&self) -> String {
        self.tier.map_or_else(
            || self.kind.name().to_owned(),
            |tier| format!("{}, {tier}", self.kind.name()),
        )
    }
}

/// All loops over tables of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SizeResult {
    pub(super) bytes: u64,
    /// What the table stood on.
    pub(super) table_memory: TableMemoryKind,
    pub(super) loops: Vec<LoopResult>,
}

/// What recording one sample costs, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Recording {
    /// HdrHistogram alone.
    pub(super) histogram_ns: Cost,
    /// With the totals, the extremes and the timeline.
    pub(super) recorder_ns: Cost,
}

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Doc {
    pub(super) schema: &'static str,
    pub(super) tool: Tool,
    pub(super) run: Run,
    pub(super) host: HostFacts,
    /// Name and version; null if it does not tell.
    pub(super) libc: Option<String>,
    /// Samples of each loop.
    pub(super) repeat: u32,
    pub(super) clock: Clock,
    pub(super) recording: Recording,
    pub(super) sizes: Vec<SizeResult>,
}

impl Doc {
    /// The tables.
    pub(super) fn report(&self, style: Style) -> String {
        let cpu = self.host.cpu.model.as_deref().unwrap_or("unknown CPU");
        let mut out = format!(
            "{} limits · {cpu}, {} CPUs{} · Linux {} · {}\n",
            style.bold(&format!("{} {}", self.tool.name, self.tool.version)),
            self.host.cpu.cpus,
            if self.host.virt.as_deref() == Some("vm") { " of a virtual machine" } else { "" },
            self.host.kernel,
            self.libc.as_deref().unwrap_or("libc of unknown version"),
        );
        let (clock, cost) = (&self.clock, self.recording);
        out += &format!(
            "timer: {} to read, steps of {}; recording a sample: {} in the histogram, {} in all\n",
            time_ns(clock.overhead_ns),
            time_ns(clock.resolution_ns),
            time_ns(cost.histogram_ns.min),
            time_ns(cost.recorder_ns.min),
        );
        let small = self.sizes.iter().filter(|s| s.table_memory == TableMemoryKind::Small);
        let small: Vec<_> = small.map(|size| format_size(size.bytes)).collect();
        if !small.is_empty() {
            out += &format!("on small pages, not huge ones: {}\n", small.join(", "));
        }
        let of = format!("of {}", self.repeat);
        self.block(&mut out, style, ("ns per TCE", &format!("least {of}")), |r| {
            format!("{:.3}", r.ns_per_tce.min)
        });
        self.block(&mut out, style, ("ns per TCE", &format!("median {of}")), |r| {
            format!("{:.3}", r.ns_per_tce.median)
        });
        self.block(&mut out, style, ("GB/s of table", &format!("best {of}")), |r| {
            format!("{:.1}", r.gb_per_s)
        });
        if !self.run.complete {
            out += "interrupted, incomplete\n";
        }
        out
    }

    fn block(
        &self,
        out: &mut String,
        style: Style,
        (what, which): (&str, &str),
        cell: impl Fn(&LoopResult) -> String,
    ) {
        let Some(first) = self.sizes.first() else { return };
        *out += &format!("\n{}, {which}\n", style.bold(what));
        let head = std::iter::once("table".to_owned());
        let mut rows = vec![head.chain(self.sizes.iter().map(|s| format_size(s.bytes))).collect()];
        for (nth, result) in first.loops.iter().enumerate() {
            let cells = self.sizes.iter().map(|size| cell(&size.loops[nth]));
            rows.push(std::iter::once(result.name()).chain(cells).collect::<Vec<_>>());
        }
        table(out, &rows, style);
    }
}
