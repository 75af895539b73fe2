// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory for tables: an arena that hands out level blocks from huge pages.
//!
//! An arena owns one stretch of real address space, as large as the complete tree of its table,
//! and backs it chunk by chunk on demand. Because the stretch is linear, a level's real address
//! leads to its memory by a subtraction; no map is searched.

#![allow(unsafe_code)] // viewing a chunk, or a stretch of it that is kept, as slots

use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::OnceLock;

#[cfg(not(loom))]
use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::addr::Hpa;
use crate::error::BackendError;
use crate::sync::{Arc, Mutex, Slot, lock};

/// The pages that table memory stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TablePages {
    /// Reserved huge pages (hugetlbfs).
    Hugetlb,
    /// The kernel took the advice to use transparent huge pages; whether it has is in `/proc` only
    /// (see [`TableChunk::process_address`]).
    Transparent,
    /// Pages of the base size.
    Small,
}

impl fmt::Display for TablePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hugetlb => "hugetlb",
            Self::Transparent => "thp",
            Self::Small => "small",
        })
    }
}

/// A stretch of zeroed memory for table blocks, made of one mapping.
#[cfg(not(loom))]
pub struct TableChunk {
    /// Raw: a view as a slice of bytes would claim that nobody else writes.
    map: MmapRaw,
    /// Bytes before the first slot, so that huge pages can begin there.
    skip: usize,
    slots: usize,
    pages: TablePages,
}

/// Huge pages of this size are asked for first; a chunk has at least one. Miri looks at every slot of a chunk
/// whenever one comes to it.
#[cfg(not(loom))]
const CHUNK_LG2: u32 = if cfg!(miri) { 16 } else { 21 };
/// A model has to create every slot by itself: as few as possible.
#[cfg(loom)]
const CHUNK_LG2: u32 = 0;

/// loom's atomics are larger than a doubleword, so its slots are ordinary objects.
#[cfg(loom)]
pub struct TableChunk(Box<[Slot]>);

#[cfg(loom)]
#[allow(missing_docs)]
impl TableChunk {
    pub fn new(bytes: usize) -> Result<Self, BackendError> {
        Ok(Self((0..bytes / 8).map(|_| Slot::new(0)).collect()))
    }

    pub fn pages(&self) -> TablePages {
        TablePages::Small
    }

    pub fn bytes(&self) -> usize {
        self.0.len() * 8
    }

    pub fn slots(&self) -> &[Slot] {
        &self.0
    }
}

#[cfg(not(loom))]
impl TableChunk {
    /// `bytes` of zeroed table memory: reserved huge pages, else transparent ones, else small.
    ///
    /// # Errors
    /// [`BackendError::NoTableMemory`] if there is no memory at all.
    pub fn new(bytes: usize) -> Result<Self, BackendError> {
        let huge = 1usize << CHUNK_LG2;
        // Miri knows plain anonymous mappings only.
        let plain = cfg!(miri);
        if bytes.is_multiple_of(huge) && !plain {
            let huge_map = MmapOptions::new().len(bytes).huge(Some(CHUNK_LG2 as u8)).map_anon();
            if let Ok(map) = huge_map {
                return Ok(Self {
                    map: map.into(),
                    skip: 0,
                    slots: bytes / 8,
                    pages: TablePages::Hugetlb,
                });
            }
        }
        let failed = |reason: String| BackendError::NoTableMemory { bytes: bytes as u64, reason };
        let padded = bytes
            .checked_add(huge)
            .ok_or_else(|| failed("larger than the address space".to_owned()))?;
        let mut options = MmapOptions::new();
        options.len(padded);
        if !plain {
            options.no_reserve_swap();
        }
        let map = options.map_anon().map_err(|e| failed(e.to_string()))?;
        let skip = map.as_ptr().align_offset(huge);
        let transparent =
            bytes >= huge && !plain && map.advise_range(Advice::HugePage, skip, bytes).is_ok();
        let pages = if transparent { TablePages::Transparent } else { TablePages::Small };
        Ok(Self { map: map.into(), skip, slots: bytes / 8, pages })
    }

    /// What the chunk stands on.
    #[must_use]
    pub fn pages(&self) -> TablePages {
        self.pages
    }

    /// Address of the first slot in this process, for looking the mapping up in `/proc`.
    #[must_use]
    pub fn process_address(&self) -> usize {
        self.map.as_ptr().addr() + self.skip
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots * 8
    }

    /// The big-endian doublewords. Devices (the software PHB) read them at any time; whoever
    /// writes them holds the table's own locks.
    #[inline]
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        let first = self.map.as_mut_ptr().wrapping_add(self.skip).cast::<Slot>();
        // SAFETY: the mapping is private to `self`, readable and writable, `skip + slots * 8` bytes
        // long or more, and lives as long as `self`, hence as long as the slice. It starts page
        // aligned and `skip` keeps that, which satisfies the alignment of `AtomicU64`; any bytes
        // are valid ones. Nobody gets a `&mut` or a plain pointer to the mapping, so all accesses
        // are through atomics, or are the tiers' asm accesses to them.
        unsafe { std::slice::from_raw_parts(first, self.slots) }
    }
}

impl fmt::Debug for TableChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableChunk({} bytes, {})", self.bytes(), self.pages())
    }
}

/// Some slots of a chunk, which is kept as long as this is there. A look at one costs a comparison
/// with the length and two loads.
#[derive(Clone)]
pub(crate) struct Stretch {
    slots: NonNull<[Slot]>,
    /// `None`: there are no slots.
    _keep: Option<Arc<TableChunk>>,
}

impl Stretch {
    /// The slots `at` of `chunk`.
    ///
    /// # Panics
    /// If the chunk does not have them.
    pub(crate) fn new(chunk: &Arc<TableChunk>, at: Range<usize>) -> Self {
        Self { slots: NonNull::from(&chunk.slots()[at]), _keep: Some(chunk.clone()) }
    }

    /// The first `count` of them, or all if there are fewer.
    pub(crate) fn first(&self, count: usize) -> Self {
        let count = count.min(self.len());
        Self { slots: NonNull::from(&self[..count]), _keep: self._keep.clone() }
    }
}

impl Default for Stretch {
    fn default() -> Self {
        Self { slots: NonNull::from(&[]), _keep: None }
    }
}

impl Deref for Stretch {
    type Target = [Slot];

    #[inline(always)]
    fn deref(&self) -> &[Slot] {
        // SAFETY: `slots` comes from a slice of the chunk that `_keep` holds, or from one of no slots.
        // A chunk's slots stay where they are until it is dropped, nobody ever has a `&mut` to them,
        // and the reference given out here ends with `self`, which keeps the chunk.
        unsafe { self.slots.as_ref() }
    }
}

// SAFETY: it is an `Arc<TableChunk>` and a `&[Slot]` into it; both may be sent and shared, as slots
// are atomics.
unsafe impl Send for Stretch {}
// SAFETY: as above.
unsafe impl Sync for Stretch {}

/// Who gives table memory a place in real address space, so that a PHB can walk it.
pub trait TableMemory: Send + Sync {
    /// Sets aside `bytes` of real address space, aligned to their size rounded up to a power of
    /// two.
    ///
    /// # Errors
    /// If the space is exhausted.
    fn reserve_table(&self, bytes: u64) -> Result<Hpa, BackendError>;

    /// Puts `chunk` at `at`, inside a reserved stretch.
    ///
    /// # Errors
    /// If the back end cannot.
    fn back_table(&self, at: Hpa, chunk: Arc<TableChunk>) -> Result<(), BackendError>;

    /// Takes the stretch that was reserved at `at`, and all that backs it, away.
    fn free_table(&self, at: Hpa);
}

/// What an arena has used and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaUse {
    /// Blocks that are part of the table.
    pub blocks: u64,
    /// Bytes of those blocks.
    pub used_bytes: u64,
    /// Bytes mapped, the reserve for further blocks included.
    pub mapped_bytes: u64,
    /// The worst pages that any part stands on; `None` before the first block.
    pub pages: Option<TablePages>,
}

/// A level block's number inside its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Block(u64);

/// One chunk's memory and what the table keeps beside it.
pub(crate) struct Part<M> {
    chunk: Arc<TableChunk>,
    pub(crate) beside: M,
}

impl<M> Part<M> {
    /// The chunk.
    pub(crate) fn chunk(&self) -> &Arc<TableChunk> {
        &self.chunk
    }

    /// The chunk's slots.
    #[inline]
    pub(crate) fn slots(&self) -> &[Slot] {
        self.chunk.slots()
    }
}

#[derive(Default)]
struct Pool {
    /// Blocks below this number are part of the table.
    next: u64,
    mapped: u64,
    pages: Option<TablePages>,
}

/// Blocks of one size for one table. `M` is what the owner keeps beside each chunk.
pub(crate) struct Arena<M> {
    memory: Arc<dyn TableMemory>,
    base: Hpa,
    block_lg2: u32,
    /// log2 of the blocks in a chunk.
    chunk_blocks_lg2: u32,
    limit: u64,
    parts: Box<[OnceLock<Arc<Part<M>>>]>,
    pool: Mutex<Pool>,
}

impl<M> Arena<M> {
    /// An arena for up to `blocks` blocks of `1 << block_lg2` bytes. Nothing is mapped yet.
    pub(crate) fn new(
        memory: Arc<dyn TableMemory>,
        block_lg2: u32,
        blocks: u64,
    ) -> Result<Self, BackendError> {
        // Chunks of a huge page, or so much larger that a table has at most 1024 of them.
        let per_chunk = (blocks.div_ceil(1024)).max((1 << CHUNK_LG2) >> block_lg2);
        let chunk_blocks_lg2 = per_chunk.max(1).next_power_of_two().trailing_zeros();
        let chunks = blocks.div_ceil(1 << chunk_blocks_lg2);
        let base = memory.reserve_table(chunks << (chunk_blocks_lg2 + block_lg2))?;
        let parts = (0..chunks).map(|_| OnceLock::new()).collect();
        let pool = Mutex::new(Pool::default());
        Ok(Self { memory, base, block_lg2, chunk_blocks_lg2, limit: blocks, parts, pool })
    }

    /// Takes `count` zeroed blocks, all or none. `beside` makes what is kept beside a new chunk,
    /// from its number of slots.
    pub(crate) fn take<F: Fn(usize) -> M>(
        &self,
        count: u64,
        beside: F,
    ) -> Result<impl Iterator<Item = Block> + use<M, F>, BackendError> {
        let mut pool = lock(&self.pool);
        let first = pool.next;
        if count > self.limit - first {
            return Err(BackendError::NoTableMemory {
                bytes: count << self.block_lg2,
                reason: format!("the table's {} blocks are all in use", self.limit),
            });
        }
        if count > 0 {
            let last = (first + count - 1) >> self.chunk_blocks_lg2;
            for chunk in first >> self.chunk_blocks_lg2..=last {
                self.back(chunk, &mut pool, &beside)?;
            }
        }
        pool.next += count;
        Ok((first..first + count).map(Block))
    }

    fn back(
        &self,
        chunk: u64,
        pool: &mut Pool,
        beside: &impl Fn(usize) -> M,
    ) -> Result<(), BackendError> {
        let part = &self.parts[chunk as usize];
        if part.get().is_some() {
            return Ok(());
        }
        let lg2 = self.chunk_blocks_lg2 + self.block_lg2;
        let made = Arc::new(TableChunk::new(1 << lg2)?);
        self.memory.back_table(Hpa(self.base.0 + (chunk << lg2)), made.clone())?;
        pool.mapped += made.bytes() as u64;
        pool.pages = pool.pages.max(Some(made.pages()));
        let beside = beside(made.slots().len());
        // The pool's lock is held, so nobody else can have filled it.
        let _ = part.set(Arc::new(Part { chunk: made, beside }));
        Ok(())
    }

    /// The real address of a block.
    pub(crate) fn hpa(&self, block: Block) -> Hpa {
        Hpa(self.base.0 + (block.0 << self.block_lg2))
    }

    /// The block at a real address that [`Arena::hpa`] gave.
    #[inline]
    pub(crate) fn block_at(&self, at: Hpa) -> Block {
        Block((at.0 - self.base.0) >> self.block_lg2)
    }

    /// The slots of a block.
    #[inline]
    pub(crate) fn slots(&self, block: Block) -> &[Slot] {
        let part = self.part(block);
        let first = self.slot_in_chunk(block);
        &part.slots()[first..first + (1 << (self.block_lg2 - 3))]
    }

    /// The chunk of `block`, and the block's first slot there.
    #[inline]
    pub(crate) fn chunk_of(&self, block: Block) -> (&Arc<Part<M>>, usize) {
        (self.part(block), self.slot_in_chunk(block))
    }

    #[inline]
    fn slot_in_chunk(&self, block: Block) -> usize {
        let in_chunk = block.0 & ((1 << self.chunk_blocks_lg2) - 1);
        (in_chunk << (self.block_lg2 - 3)) as usize
    }

    #[inline]
    fn part(&self, block: Block) -> &Arc<Part<M>> {
        let chunk = block.0 >> self.chunk_blocks_lg2;
        self.parts[chunk as usize].get().expect("a block was taken, so its chunk exists")
    }

    /// What is used and held.
    pub(crate) fn usage(&self) -> ArenaUse {
        let pool = lock(&self.pool);
        let blocks = pool.next;
        ArenaUse {
            blocks,
            used_bytes: blocks << self.block_lg2,
            mapped_bytes: pool.mapped,
            pages: pool.pages,
        }
    }

    /// The chunks mapped so far.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Arc<TableChunk>> {
        self.parts.iter().filter_map(|p| p.get()).map(|p| &p.chunk)
    }
}

impl<M> Drop for Arena<M> {
    fn drop(&mut self) {
        self.memory.free_table(self.base);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::backend::testing::PlainMemory;

    #[test]
    fn chunk_is_zeroed_and_as_long_as_asked() {
        let chunk = TableChunk::new(1 << 16).unwrap();
        assert_eq!(chunk.slots().len(), 8192);
        assert!(chunk.slots().iter().all(|s| s.load(crate::sync::Ordering::Relaxed) == 0));
        assert_eq!(chunk.process_address() % 4096, 0);
    }

    #[test]
    #[cfg(not(miri))] // it would take the memory
    fn impossible_chunk_is_an_error() {
        assert!(matches!(TableChunk::new(1 << 60), Err(BackendError::NoTableMemory { .. })));
    }

    #[test]
    fn take_is_all_or_none() {
        let memory = Arc::new(PlainMemory::default());
        let arena: Arena<()> = Arena::new(memory.clone(), 16, 40).unwrap();
        assert_eq!(arena.take(39, |_| ()).unwrap().count(), 39);
        assert!(arena.take(2, |_| ()).is_err());
        assert_eq!(arena.usage().blocks, 39);
        let last: Vec<_> = arena.take(1, |_| ()).unwrap().collect();
        assert_eq!(last, [Block(39)]);
        assert_eq!(arena.block_at(arena.hpa(last[0])), last[0]);
        drop(arena);
        assert_eq!(memory.stretches(), 0, "the arena gives its stretch back");
    }
}
