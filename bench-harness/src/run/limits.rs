// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the memory allows: the tree's own store and copy loops, and libc's, over as many bytes as a
//! phase writes, on memory of the same kind, timed between its calls.

use std::time::Instant;

use tce_engine::mem::TableChunk;
use tce_engine::simd::Tier;

use crate::loops::{self, Plain, Source};
use crate::recorder::Recorder;
use crate::result::{Limit, LimitKind};

/// libc's loops are measured until so many bytes have been written, and [`LIBC_TURNS`] times.
const LIBC_BYTES: usize = 128 << 20;
/// Least and most times.
const LIBC_TURNS: (usize, usize) = (4, 32);

/// One thread's memory for measuring limits.
///
/// A phase maps (its table was last touched before the other memory here) and then unmaps (its
/// table has just been touched). The loops run twice over their memory for the same reason: the
/// first is the limit of a map, the second that of an unmap.
pub struct LimitLoop {
    kind: LimitKind,
    tier: &'static Tier,
    chunk: TableChunk,
    source: Source,
    libc_to: Plain,
    entries: usize,
    own: [Recorder; 2],
    libc: [Recorder; 2],
}

impl LimitLoop {
    /// Memory for `entries` TCEs: as many as a round writes.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(kind: LimitKind, tier: &'static Tier, entries: u64) -> anyhow::Result<Self> {
        let bytes = (entries as usize * 8).next_multiple_of(2 << 20);
        Ok(Self {
            kind,
            tier,
            chunk: TableChunk::new(bytes)?,
            source: Source::new(),
            libc_to: Plain::new(bytes)?,
            entries: entries.max(1) as usize,
            own: Default::default(),
            libc: Default::default(),
        })
    }

    /// Times the tree's own loop.
    pub fn measure(&mut self) {
        for nth in 0..2 {
            let at = Instant::now();
            self.own_loop();
            self.own[nth].record(at.elapsed().as_nanos() as u64, self.entries as u64);
        }
    }

    /// Times libc's loop some times, with as much other memory touched in between as a round of a
    /// phase touches.
    pub fn measure_libc(&mut self) {
        let turns = (LIBC_BYTES / (8 * self.entries)).clamp(LIBC_TURNS.0, LIBC_TURNS.1);
        // The first turn only brings the pages in.
        for turn in 0..=turns {
            self.own_loop();
            for nth in 0..2 {
                let at = Instant::now();
                let to = &mut self.libc_to.bytes()[..8 * self.entries];
                match self.kind {
                    LimitKind::Store => loops::memset(to),
                    LimitKind::Copy => loops::memcpy(to, &self.source),
                }
                let ns = at.elapsed().as_nanos() as u64;
                if turn > 0 {
                    self.libc[nth].record(ns, self.entries as u64);
                }
            }
        }
    }

    fn own_loop(&self) {
        let slots = &self.chunk.slots()[..self.entries];
        match self.kind {
            LimitKind::Store => loops::store(self.tier, slots),
            LimitKind::Copy => loops::copy(self.tier, slots, &self.source),
        }
    }

    /// Forgets what was measured.
    pub fn reset(&mut self) {
        self.own = Default::default();
        self.libc = Default::default();
    }
}

/// The limits of map and of unmap that several threads' loops show together.
pub fn limits(loops: &[&LimitLoop]) -> [Option<Limit>; 2] {
    [0, 1].map(|nth| {
        let own = Recorder::merged(loops.iter().map(|l| &l.own[nth]));
        let libc = Recorder::merged(loops.iter().map(|l| &l.libc[nth]));
        Some(Limit {
            kind: loops.first()?.kind,
            ns_per_tce: own.best_ns_per_tce()?,
            libc_ns_per_tce: libc.best_ns_per_tce(),
        })
    })
}
