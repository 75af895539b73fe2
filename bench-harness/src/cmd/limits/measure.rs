// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Times the loops over tables of one size, in turns, and what keeping a time costs.

use std::hint::black_box;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tce_engine::mem::{TableChunk, TablePages};
use tce_engine::simd::Tier;

use super::result::{LoopKind, LoopResult, Recording, SizeResult};
use crate::cmd::least::Cost;
use crate::interrupt::interrupted;
use crate::loops::{self, HAS_NON_TEMPORAL, Plain, Source};
use crate::recorder::{Recorder, new_histogram};
use crate::result::TableMemoryKind;
use crate::run::smaps::huge_share;

/// A sample passes over the table until so many bytes have been written, so that what the clock costs
/// does not show.
const BYTES_PER_SAMPLE: usize = 4 << 20;

/// One loop, and the nanoseconds per TCE of its samples.
struct Timed {
    kind: LoopKind,
    tier: Option<&'static Tier>,
    samples: Vec<f64>,
}

/// The memory of one size. The tree's loops write a table, libc's memory that is aligned and backed
/// the same way: Rust has no view of the table as bytes.
pub(super) struct Bench {
    table: Arc<TableChunk>,
    plain: Plain,
    source: Source,
    bytes: usize,
    loops: Vec<Timed>,
}

impl Bench {
    /// `bytes` are whole cache lines.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn new(bytes: usize) -> anyhow::Result<Self> {
        let mapped = bytes.next_multiple_of(2 << 20);
        let timed = |kind, tier| Timed { kind, tier, samples: Vec::new() };
        let of_tiers = |kind| Tier::all().map(move |tier| timed(kind, Some(tier)));
        let mut loops: Vec<_> = of_tiers(LoopKind::Store).collect();
        loops.push(timed(LoopKind::Memset, None));
        loops.extend(of_tiers(LoopKind::Copy));
        loops.push(timed(LoopKind::Memcpy, None));
        loops.extend(of_tiers(LoopKind::ClearStreaming));
        if HAS_NON_TEMPORAL {
            loops.push(timed(LoopKind::NonTemporal, None));
        }
        loops.push(timed(LoopKind::SwapStore, None));
        loops.push(timed(LoopKind::LockedExchange, None));
        Ok(Self {
            table: Arc::new(TableChunk::new(mapped)?),
            plain: Plain::new(mapped)?,
            source: Source::new(),
            bytes,
            loops,
        })
    }

    /// One sample of each loop; which is the first goes around. Ends early once the run is
    /// interrupted.
    pub(super) fn round(&mut self, nth: usize) {
        let passes = (BYTES_PER_SAMPLE / self.bytes).max(1);
        let tces = (passes * self.bytes / 8) as f64;
        for at in 0..self.loops.len() {
            if interrupted() {
                return;
            }
            let at = (at + nth) % self.loops.len();
            let Timed { kind, tier, .. } = self.loops[at];
            // Its memory, and nothing else, has just been touched.
            self.pass(kind, tier);
            let begin = Instant::now();
            for _ in 0..passes {
                self.pass(kind, tier);
            }
            let ns = begin.elapsed().as_nanos() as f64;
            self.loops[at].samples.push(ns / tces);
        }
    }

    fn pass(&mut self, kind: LoopKind, tier: Option<&'static Tier>) {
        let slots = &self.table.slots()[..self.bytes / 8];
        let plain = &mut self.plain.bytes()[..self.bytes];
        let tier = tier.unwrap_or_else(Tier::best);
        match kind {
            LoopKind::Store => loops::store(tier, slots),
            LoopKind::Memset => loops::memset(plain),
            LoopKind::Copy => loops::copy(tier, slots, &self.source),
            LoopKind::Memcpy => loops::memcpy(plain, &self.source),
            LoopKind::ClearStreaming => loops::clear_streaming(tier, slots),
            LoopKind::NonTemporal => loops::non_temporal(plain),
            LoopKind::SwapStore => loops::swap_store(slots),
            LoopKind::LockedExchange => loops::locked_exchange(slots),
        }
    }

    /// `None` unless each loop was timed.
    pub(super) fn result(self) -> Option<SizeResult> {
        let result = |timed: Timed| {
            let ns_per_tce = (!timed.samples.is_empty()).then(|| Cost::of(timed.samples))?;
            Some(LoopResult::new(timed.kind, timed.tier.map(Tier::name), ns_per_tce))
        };
        let table_memory = table_memory(&self.table);
        let loops: Option<Vec<_>> = self.loops.into_iter().map(result).collect();
        Some(SizeResult { bytes: self.bytes as u64, table_memory, loops: loops? })
    }
}

/// What the table stands on. The kernel may take the advice to use huge pages and give small ones.
fn table_memory(table: &Arc<TableChunk>) -> TableMemoryKind {
    match table.pages() {
        TablePages::Hugetlb => TableMemoryKind::Hugetlb,
        TablePages::Transparent
            if huge_share(slice::from_ref(table)) >= table.bytes() as u64 / 2 =>
        {
            TableMemoryKind::Thp
        }
        TablePages::Transparent | TablePages::Small => TableMemoryKind::Small,
    }
}

/// What recording one sample costs: in the histogram alone, and with all that is kept beside it.
pub(super) fn recording() -> Recording {
    let begin = Instant::now();
    let mut histogram = new_histogram();
    let mut recorder = Recorder::with_timeline(begin, Duration::from_secs(1));
    Recording {
        histogram_ns: time_records(|ps| histogram.saturating_record(ps)),
        recorder_ns: time_records(|ps| {
            recorder.at(begin, 0);
            recorder.record(ps / 1000, 1);
        }),
    }
}

fn time_records(mut record: impl FnMut(u64)) -> Cost {
    const RECORDS: u64 = 10_000;
    const RUNS: usize = 20;
    // Values as they come: most of about one size, a few far from it.
    let value = |nth: u64| black_box(200_000 + nth * 7919 % 4096 * (1 + nth % 64));
    let run = |_| {
        let begin = Instant::now();
        (0..RECORDS).for_each(|nth| record(value(nth)));
        begin.elapsed().as_nanos() as f64 / RECORDS as f64
    };
    Cost::of((0..RUNS).map(run).collect())
}
