// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the memory allows: the tree's own AVX2 store and copy loops, and libc's, on memory that is
//! aligned and backed as the tables are.

use std::sync::atomic::AtomicU64;

use tce_bench::loops::{self, Plain, Source};
use tce_engine::Tier;
use tce_engine::mem::TableChunk;

use super::rig::LIST;

/// The tier that the bars name as the reference; the portable one where there is no AVX2.
pub(crate) fn reference() -> &'static Tier {
    Tier::named("avx2").or_else(|| Tier::named("portable")).expect("every machine has one")
}

/// Memory for as many entries as a table has.
pub(crate) struct Limit {
    tier: &'static Tier,
    chunk: TableChunk,
    source: Source,
    libc: Plain,
    entries: usize,
}

impl Limit {
    pub(crate) fn new(entries: usize) -> Self {
        let bytes = (8 * entries).next_multiple_of(2 << 20);
        let chunk = TableChunk::new(bytes).expect("memory for the limits");
        let libc = Plain::new(bytes).expect("memory for libc's loops");
        Self { tier: reference(), chunk, source: Source::new(), libc, entries }
    }

    fn slots(&self) -> &[AtomicU64] {
        &self.chunk.slots()[..self.entries]
    }

    /// The store loop over all of it.
    pub(crate) fn store(&self) {
        loops::store(self.tier, self.slots());
    }

    /// The same in calls of `each` entries, of which every one leaves one entry out.
    pub(crate) fn store_but_one(&self, each: usize) {
        self.slots().chunks(each).for_each(|slots| loops::store(self.tier, &slots[..each - 1]));
    }

    /// The copy loop over all of it, list by list.
    pub(crate) fn copy(&self) {
        loops::copy(self.tier, self.slots(), &self.source);
    }

    /// One list, copied to entry `first`.
    #[inline]
    pub(crate) fn copy_list(&self, first: usize, list: &[u64; LIST]) {
        self.tier.put(&self.slots()[first..first + LIST], list);
    }

    /// `memset` over as many bytes.
    pub(crate) fn memset(&mut self) {
        loops::memset(&mut self.libc.bytes()[..8 * self.entries]);
    }

    /// `memcpy` over as many bytes, list by list.
    pub(crate) fn memcpy(&mut self) {
        loops::memcpy(&mut self.libc.bytes()[..8 * self.entries], &self.source);
    }
}
