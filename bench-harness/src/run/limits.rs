// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the memory allows: the tree's own store and copy loops, and libc's, over as many bytes as a
//! phase writes, on memory of the same kind, timed between its calls.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Context;
use memmap2::{Advice, MmapMut};
use tce_engine::container::LIST_MAX;
use tce_engine::mem::TableChunk;
use tce_engine::simd::Tier;
use tce_engine::tce::{Perm, Tce};

use super::lists::Lists;
use crate::recorder::Recorder;
use crate::result::{Limit, LimitKind};

/// Times that libc's loops are measured.
const LIBC_TURNS: u32 = 32;

/// One thread's memory for measuring limits.
///
/// A phase maps (its table was last touched before the other memory here) and then unmaps (its
/// table has just been touched). The loops run twice over their memory for the same reason: the
/// first is the limit of a map, the second that of an unmap.
pub struct LimitLoop {
    kind: LimitKind,
    tier: &'static Tier,
    chunk: TableChunk,
    /// As many lists as the indirect phase has, so that the source stays in the cache there and
    /// here.
    words: Vec<u64>,
    /// The same as bytes, for libc.
    bytes: Vec<u8>,
    libc_to: MmapMut,
    entries: usize,
    own: [Recorder; 2],
    libc: [Recorder; 2],
}

fn anonymous(bytes: usize) -> anyhow::Result<MmapMut> {
    let map = MmapMut::map_anon(bytes).with_context(|| format!("no memory for {bytes} bytes"))?;
    // Advice: the loop is right without it, and the tables got theirs the same way.
    let _ = map.advise(Advice::HugePage);
    Ok(map)
}

impl LimitLoop {
    /// Memory for `entries` TCEs.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(kind: LimitKind, tier: &'static Tier, entries: u64) -> anyhow::Result<Self> {
        let bytes = (entries as usize * 8).next_multiple_of(2 << 20);
        let words: Vec<_> =
            (0..(Lists::COUNT * LIST_MAX) as u64).map(|i| (i << 12 | 3).to_be()).collect();
        let list_bytes = words.iter().flat_map(|w: &u64| w.to_le_bytes()).collect();
        Ok(Self {
            kind,
            tier,
            chunk: TableChunk::new(bytes)?,
            words,
            bytes: list_bytes,
            libc_to: anonymous(bytes)?,
            entries: entries as usize,
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
        // The first turn only brings the pages in.
        for turn in 0..=LIBC_TURNS {
            self.own_loop();
            for nth in 0..2 {
                let at = Instant::now();
                let to = &mut self.libc_to[..8 * self.entries];
                match self.kind {
                    LimitKind::Store => to.fill(black_box(0x5a)),
                    LimitKind::Copy => {
                        let lists = self.bytes.chunks(8 * LIST_MAX).cycle();
                        for (to, list) in to.chunks_mut(8 * LIST_MAX).zip(lists) {
                            to.copy_from_slice(&list[..to.len()]);
                        }
                    }
                }
                black_box(&mut *to);
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
            LimitKind::Store => self.tier.store(slots, Tce::new(1 << 12, Perm::READ)),
            LimitKind::Copy => {
                let lists = self.words.chunks(LIST_MAX).cycle();
                for (slots, words) in slots.chunks(LIST_MAX).zip(lists) {
                    self.tier.put(slots, &words[..slots.len()]);
                }
            }
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
