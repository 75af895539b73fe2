// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the memory allows: the tree's own store and copy loops, and libc's, over as many bytes as a
//! phase writes, on memory of the same kind, timed between its calls.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Context;
use memmap2::{Advice, MmapMut};
use tce_engine::mem::TableChunk;
use tce_engine::simd::Tier;
use tce_engine::tce::{Perm, Tce};

use crate::recorder::Recorder;
use crate::result::{Limit, LimitKind};

/// One thread's memory for measuring limits.
pub struct LimitLoop {
    kind: LimitKind,
    tier: &'static Tier,
    chunk: TableChunk,
    words: Vec<u64>,
    libc_to: MmapMut,
    libc_from: MmapMut,
    entries: usize,
    own: Recorder,
    libc: Recorder,
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
        let words = match kind {
            LimitKind::Store => Vec::new(),
            LimitKind::Copy => (0..entries).map(|i| (i << 12 | 3).to_be()).collect(),
        };
        Ok(Self {
            kind,
            tier,
            chunk: TableChunk::new(bytes)?,
            words,
            libc_to: anonymous(bytes)?,
            libc_from: anonymous(bytes)?,
            entries: entries as usize,
            own: Recorder::new(),
            libc: Recorder::new(),
        })
    }

    /// Times each loop once.
    pub fn measure(&mut self) {
        let slots = &self.chunk.slots()[..self.entries];
        let tces = self.entries as u64;
        let bytes = 8 * self.entries;
        let at = Instant::now();
        match self.kind {
            LimitKind::Store => self.tier.store(slots, Tce::new(tces << 12, Perm::READ)),
            LimitKind::Copy => self.tier.put(slots, &self.words),
        }
        self.own.record(at.elapsed().as_nanos() as u64, tces);
        let at = Instant::now();
        match self.kind {
            LimitKind::Store => self.libc_to[..bytes].fill(black_box(0x5a)),
            LimitKind::Copy => self.libc_to[..bytes].copy_from_slice(&self.libc_from[..bytes]),
        }
        black_box(&mut self.libc_to[..]);
        self.libc.record(at.elapsed().as_nanos() as u64, tces);
    }

    /// Forgets what was measured.
    pub fn reset(&mut self) {
        self.own = Recorder::new();
        self.libc = Recorder::new();
    }
}

/// The limit that several threads' loops show together.
pub fn limit<'a>(loops: impl Iterator<Item = &'a LimitLoop>) -> Option<Limit> {
    let mut own = Recorder::new();
    let mut libc = Recorder::new();
    let mut kind = None;
    for each in loops {
        own.merge(&each.own);
        libc.merge(&each.libc);
        kind = Some(each.kind);
    }
    Some(Limit { kind: kind?, ns_per_tce: own.ns_per_tce()?, libc_ns_per_tce: libc.ns_per_tce() })
}
