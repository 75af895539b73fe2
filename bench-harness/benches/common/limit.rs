// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the memory allows: the tree's own AVX2 store and copy loops, and libc's, on memory that is
//! aligned and backed as the tables are.

use std::hint::black_box;
use std::sync::atomic::AtomicU64;

use memmap2::{Advice, MmapMut};
use tce_engine::mem::TableChunk;
use tce_engine::{Perm, Tce, Tier};

use super::rig::{LIST, PAGE, lists};

/// Huge pages begin at multiples of this, and so do tables.
const HUGE: usize = 2 << 20;

/// The tier that the bars name as the reference; the portable one where there is no AVX2.
pub(crate) fn reference() -> &'static Tier {
    Tier::named("avx2").or_else(|| Tier::named("portable")).expect("every machine has one")
}

/// Memory for as many entries as a table has.
pub(crate) struct Limit {
    tier: &'static Tier,
    chunk: TableChunk,
    lists: Vec<[u64; LIST]>,
    /// The same, as bytes for libc.
    list_bytes: Vec<u8>,
    libc: MmapMut,
    /// Bytes before the first huge page of `libc`.
    skip: usize,
    entries: usize,
}

impl Limit {
    pub(crate) fn new(entries: usize) -> Self {
        let bytes = (8 * entries).next_multiple_of(HUGE);
        let libc = MmapMut::map_anon(bytes + HUGE).expect("memory for libc's loops");
        let skip = libc.as_ptr().align_offset(HUGE);
        // Advice: the loops are right without it, and the tables got theirs the same way.
        let _ = libc.advise_range(Advice::HugePage, skip, bytes);
        let lists = lists(entries as u64);
        let list_bytes = lists.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
        let chunk = TableChunk::new(bytes).expect("memory for the limits");
        Self { tier: reference(), chunk, lists, list_bytes, libc, skip, entries }
    }

    fn slots(&self) -> &[AtomicU64] {
        &self.chunk.slots()[..self.entries]
    }

    /// The store loop over all of it.
    pub(crate) fn store(&self) {
        self.tier.store(self.slots(), Tce::new(PAGE, Perm::READ_WRITE));
    }

    /// The same in calls of `each` entries, of which every one leaves one entry out.
    pub(crate) fn store_but_one(&self, each: usize) {
        for slots in self.slots().chunks(each) {
            self.tier.store(&slots[..each - 1], Tce::new(PAGE, Perm::READ_WRITE));
        }
    }

    /// The copy loop over all of it, list by list.
    pub(crate) fn copy(&self) {
        for (slots, list) in self.slots().chunks(LIST).zip(self.lists.iter().cycle()) {
            self.tier.put(slots, &list[..slots.len()]);
        }
    }

    /// One list, copied to entry `first`.
    #[inline]
    pub(crate) fn copy_list(&self, first: usize, list: &[u64; LIST]) {
        self.tier.put(&self.slots()[first..first + LIST], list);
    }

    /// `memset` over as many bytes.
    pub(crate) fn memset(&mut self) {
        let to = &mut self.libc[self.skip..][..8 * self.entries];
        to.fill(black_box(0x5a));
        black_box(to);
    }

    /// `memcpy` over as many bytes, list by list.
    pub(crate) fn memcpy(&mut self) {
        let to = &mut self.libc[self.skip..][..8 * self.entries];
        let lists = self.list_bytes.chunks(8 * LIST).cycle();
        for (to, list) in to.chunks_mut(8 * LIST).zip(lists) {
            to.copy_from_slice(&list[..to.len()]);
        }
        black_box(to);
    }
}
