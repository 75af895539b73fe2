// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Per-entry loops over a TCE table of two levels with leaves of 8192 entries, the shape of a
//! window of 2 GiB on a host with pages of 64 KiB. They account nothing and kill nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use tce_engine::mem::TableChunk;
use tce_engine::{Perm, Tce};

use super::{Kind, LOCKED_WALK, PAGE, PAGES, Peer, TARGET};

/// log2 of the entries of a block.
const BLOCK_LG2: u64 = 13;
const BLOCK: u64 = 1 << BLOCK_LG2;
/// Simulated real address of the table.
const BASE: u64 = 1 << 40;

/// A root and its leaves, linked.
struct Table(TableChunk);

impl Table {
    fn new() -> Self {
        let leaves = PAGES / BLOCK;
        let bytes = ((1 + leaves) * BLOCK * 8).next_multiple_of(2 << 20);
        let chunk = TableChunk::new(bytes as usize).expect("memory for a peer's table");
        for leaf in 0..leaves {
            let link = Tce::new(BASE + (1 + leaf) * BLOCK * 8, Perm::READ_WRITE);
            chunk.slots()[leaf as usize].store(link.to_be_word(), Ordering::Relaxed);
        }
        Self(chunk)
    }

    /// Place in the chunk of the first slot of a page's leaf, by a walk from the top.
    #[inline(always)]
    fn leaf(&self, page: u64) -> usize {
        let link = self.0.slots()[(page >> BLOCK_LG2) as usize].load(Ordering::Relaxed);
        ((Tce::from_be_word(link).address() - BASE) / 8) as usize
    }

    #[inline(always)]
    fn slot(&self, page: u64) -> &AtomicU64 {
        &self.0.slots()[self.leaf(page) + (page & (BLOCK - 1)) as usize]
    }

    fn target(&self, page: u64) -> Option<u64> {
        let tce = Tce::from_be_word(self.slot(page).load(Ordering::Relaxed));
        (!tce.is_empty()).then_some(tce.address())
    }
}

/// The word that maps `page`.
#[inline(always)]
fn word(page: u64) -> u64 {
    Tce::new(TARGET + page * PAGE, Perm::READ_WRITE).to_be_word()
}

const EMPTY: u64 = Tce::EMPTY.to_be_word();

/// The leaf is looked up once, its entries are stored one by one.
pub(super) struct Hoisted(Table);

impl Hoisted {
    pub(super) fn new() -> Self {
        Self(Table::new())
    }

    #[inline(always)]
    fn store_many(&self, count: u64, word: impl Fn(u64) -> u64) {
        for first in (0..count).step_by(BLOCK as usize) {
            let leaf = self.0.leaf(first);
            let slots = &self.0.0.slots()[leaf..leaf + BLOCK as usize];
            for (slot, page) in slots.iter().zip(first..) {
                slot.store(word(page), Ordering::Relaxed);
            }
        }
    }
}

impl Peer for Hoisted {
    fn name(&self) -> &'static str {
        "leaf hoisted, scalar stores"
    }

    fn kind(&self) -> Kind {
        Kind::Model
    }

    fn map_many(&mut self, count: u64) {
        self.store_many(count, word);
    }

    fn unmap_many(&mut self, count: u64) {
        self.store_many(count, |_| EMPTY);
    }

    #[inline(always)]
    fn map_one(&mut self, page: u64) {
        self.0.slot(page).store(word(page), Ordering::Relaxed);
    }

    #[inline(always)]
    fn unmap_one(&mut self, page: u64) {
        self.0.slot(page).store(EMPTY, Ordering::Relaxed);
    }

    fn target(&self, page: u64) -> Option<u64> {
        self.0.target(page)
    }
}

/// A walk and a store for each entry.
pub(super) struct Walk(Table);

impl Walk {
    pub(super) fn new() -> Self {
        Self(Table::new())
    }
}

impl Peer for Walk {
    fn name(&self) -> &'static str {
        "walk + store"
    }

    fn kind(&self) -> Kind {
        Kind::Model
    }

    #[inline(always)]
    fn map_one(&mut self, page: u64) {
        self.0.slot(page).store(word(page), Ordering::Relaxed);
    }

    #[inline(always)]
    fn unmap_one(&mut self, page: u64) {
        self.0.slot(page).store(EMPTY, Ordering::Relaxed);
    }

    fn target(&self, page: u64) -> Option<u64> {
        self.0.target(page)
    }
}

/// A walk and a locked exchange for each entry, whose old value is looked at, as kernels do.
pub(super) struct LockedWalk {
    table: Table,
    /// Live entries that were overwritten or cleared.
    live: u64,
}

impl LockedWalk {
    pub(super) fn new() -> Self {
        Self { table: Table::new(), live: 0 }
    }

    #[inline(always)]
    fn exchange(&mut self, page: u64, word: u64) {
        let old = self.table.slot(page).swap(word, Ordering::AcqRel);
        self.live += u64::from(!Tce::from_be_word(old).is_empty());
    }
}

impl Peer for LockedWalk {
    fn name(&self) -> &'static str {
        LOCKED_WALK
    }

    fn kind(&self) -> Kind {
        Kind::Model
    }

    #[inline(always)]
    fn map_one(&mut self, page: u64) {
        self.exchange(page, word(page));
    }

    #[inline(always)]
    fn unmap_one(&mut self, page: u64) {
        self.exchange(page, EMPTY);
    }

    fn target(&self, page: u64) -> Option<u64> {
        self.table.target(page)
    }
}
