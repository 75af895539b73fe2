// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The peer: a table changed page by page, each with a walk from the top and a locked exchange, as
//! kernels do it. It has a mock of its own, so the engine's books know nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::ensure;
use tce_engine::addr::{GroupId, Hpa};
use tce_engine::backend::layout::RealLayout;
use tce_engine::backend::mock::Mock;
use tce_engine::backend::{Backend, Memory, WindowProgram};
use tce_engine::error::BackendError;
use tce_engine::geometry::Geometry;
use tce_engine::mem::{TableChunk, TableMemory};
use tce_engine::tce::{Perm, Tce};

use super::rig::Rig;
use super::work::{Meters, Share, Work, ns};

/// A table with all of its levels in place, programmed into PEs of a mock.
pub struct NaiveTable {
    mock: Arc<Mock>,
    groups: Vec<GroupId>,
    geometry: Geometry,
    base: Hpa,
    chunk: Arc<TableChunk>,
    memory: Memory,
    layout: RealLayout,
}

impl NaiveTable {
    /// A table of this shape for `groups`, which map `memory`.
    ///
    /// # Errors
    /// What the mock refuses.
    pub fn new(
        mock: Arc<Mock>,
        groups: Vec<GroupId>,
        geometry: Geometry,
        memory: Memory,
    ) -> Result<Self, BackendError> {
        let bytes = (geometry.blocks() * geometry.block_bytes()).next_multiple_of(2 << 20);
        let chunk = Arc::new(TableChunk::new(bytes as usize)?);
        let base = mock.reserve_table(bytes)?;
        mock.back_table(base, chunk.clone())?;
        let layout = mock.pin(memory)?;
        let table = Self { mock, groups, geometry, base, chunk, memory, layout };
        table.link_levels();
        let program = WindowProgram {
            root: base,
            levels: geometry.levels(),
            block_bytes: geometry.block_bytes(),
            page: geometry.page(),
        };
        for group in &table.groups {
            table.mock.take_ownership(*group)?;
            table.mock.set_window(*group, 0, &program)?;
        }
        Ok(table)
    }

    /// Blocks in order of level, the top first; every level in place before it is used.
    fn link_levels(&self) {
        let (levels, per) = (self.geometry.levels(), self.geometry.level_entries());
        let mut counts = vec![self.geometry.entries().div_ceil(per)];
        for _ in 1..levels {
            let above = counts[counts.len() - 1].div_ceil(per);
            counts.push(above);
        }
        let mut block = 0;
        for level in (1..levels as usize).rev() {
            let below = block + counts[level];
            for n in 0..counts[level - 1] {
                let link = Tce::new(self.base.0 + (below + n) * 8 * per, Perm::READ_WRITE);
                let slot = (block * per + n) as usize;
                self.chunk.slots()[slot].store(link.to_be_word(), Ordering::Relaxed);
            }
            block = below;
        }
    }

    /// The entry's slot, by a walk from the top.
    #[inline]
    fn slot(&self, index: u64) -> &AtomicU64 {
        let bits = self.geometry.level_entries_lg2();
        let mask = self.geometry.level_entries() - 1;
        let slots = self.chunk.slots();
        let mut table = self.base.0;
        for level in (1..self.geometry.levels()).rev() {
            let at = (table - self.base.0) / 8 + (index >> (bits * level) & mask);
            table = Tce::from_be_word(slots[at as usize].load(Ordering::Relaxed)).address();
        }
        &slots[((table - self.base.0) / 8 + (index & mask)) as usize]
    }

    /// Maps pages of the memory, one by one, from `offset` bytes in. Returns what was there.
    pub fn map(&self, first: u64, count: u64, offset: u64) -> u64 {
        let page = self.geometry.page();
        let mut live = 0;
        for i in 0..count {
            let at = self.layout.extent_at(offset + (i << page.get())).at;
            let new = Tce::new(at.0, Perm::READ_WRITE).to_be_word();
            let old = self.slot(first + i).swap(new, Ordering::AcqRel);
            live += u64::from(!Tce::from_be_word(old).is_empty());
        }
        self.kill();
        live
    }

    /// Clears pages one by one. Returns how many were live.
    pub fn unmap(&self, first: u64, count: u64) -> u64 {
        let mut live = 0;
        for i in 0..count {
            let old = self.slot(first + i).swap(Tce::EMPTY.to_be_word(), Ordering::AcqRel);
            live += u64::from(!Tce::from_be_word(old).is_empty());
        }
        self.kill();
        live
    }

    /// One kill a call, as kernels do since 5.4.
    fn kill(&self) {
        let whole = self.mock.caps().tables.kill_of_pe();
        for group in &self.groups {
            self.mock.kill(*group, whole);
        }
        self.mock.fence();
    }

    /// Stores to kill registers that each map or unmap makes.
    pub fn kills_per_call(&self) -> u64 {
        self.groups.len() as u64
    }

    /// The mock that it is programmed into.
    pub fn mock(&self) -> &Arc<Mock> {
        &self.mock
    }

    /// Its groups.
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }
}

impl Drop for NaiveTable {
    fn drop(&mut self) {
        for group in &self.groups {
            self.mock.unset_window(*group, 0);
            self.mock.release_ownership(*group);
        }
        self.mock.unpin(self.memory, &self.layout);
        self.mock.free_table(self.base);
    }
}

/// The bulk work by the naive peer.
pub struct Naive<'a> {
    /// The machine that is imitated.
    pub rig: &'a Rig,
    /// One table for each container.
    pub tables: Arc<Vec<NaiveTable>>,
    /// The thread's pages.
    pub share: Share,
}

impl Work for Naive<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let page = self.rig.page();
        for table in self.tables.iter() {
            self.share.runs(self.rig.buffer_pages(), u64::MAX, |first, count| {
                let offset = self.rig.buffer.page(first, page).0 - self.rig.buffer.start().0;
                let at = Instant::now();
                let live = table.map(first, count, offset);
                let took = ns(at);
                meters.map.at(at, meters.map_io.kills);
                meters.map.record(took, count);
                meters.map_io.kills += table.kills_per_call();
                ensure!(live == 0, "the naive table had {live} live entries before a map");
                Ok(())
            })?;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let Share { first, count } = self.share;
        for table in self.tables.iter() {
            let at = Instant::now();
            let live = table.unmap(first, count);
            let took = ns(at);
            meters.unmap.at(at, meters.unmap_io.kills);
            meters.unmap.record(took, count);
            meters.unmap_io.kills += table.kills_per_call();
            ensure!(live == count, "the naive table had {live} of {count} entries to unmap");
        }
        Ok(())
    }

    fn mapped(&self) -> (u64, u64) {
        self.share.bounds()
    }
}
