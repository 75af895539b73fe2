// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The radix tree: walking it, and installing what is missing.
//!
//! An interior slot goes from empty to "next level at this real address" once, and never back
//! while the table lives. A new path is linked below before it is published above, so a walk, which
//! takes no lock, never meets half of one. Whoever adds levels does so alone.

use std::ops::Range;

use crate::addr::Hpa;
use crate::error::{BackendError, TableError};
use crate::geometry::{Geometry, MAX_LEVELS};
use crate::mem::{Arena, Block, Stretch};
use crate::sync::{Arc, Ordering, RwLock, RwLockReadGuard, Slot, Turns, read, write};
use crate::tce::{Perm, Tce};

use super::one::Lane;
use super::segment::{SEGMENT_LG2, Segment, Segments, TILE_LG2};
use crate::mem::TableMemory;

/// The blocks of one table.
pub(super) struct Tree {
    geometry: Geometry,
    arena: Arena<Segments>,
    root: Block,
    /// Held alone while levels are added.
    growing: RwLock<()>,
    /// Threads to which segments may be left.
    turns: Arc<Turns>,
}

/// A stretch of one leaf under one lock.
pub(super) struct Run<'a> {
    /// Number of the first entry.
    pub(super) first: u64,
    /// The entries.
    pub(super) slots: &'a [Slot],
    pub(super) segment: &'a Segment,
    /// The first entry's number inside the segment.
    pub(super) at: usize,
    /// Entries of the segment.
    of: usize,
}

impl<'a> Run<'a> {
    /// True if it is all of its segment.
    pub(super) fn is_whole(&self) -> bool {
        self.slots.len() == self.of
    }

    /// Its entries' places in the segment.
    pub(super) fn places(&self) -> Range<usize> {
        self.at..self.at + self.slots.len()
    }

    /// For who has locked it: false if none of its entries is live.
    pub(super) fn may_be_live(&self) -> bool {
        self.segment.may_be_live(self.places())
    }

    /// Says that it was written: `before` entries had been live, `after` are, which are `owner`'s.
    pub(super) fn recount(&self, before: u64, after: u64, owner: Option<usize>) {
        self.segment.recount(self.places(), before, after, owner);
    }

    /// Its parts in the segment's tiles, each to be worked on in several passes.
    pub(super) fn tiles(&self) -> impl Iterator<Item = Run<'a>> {
        let Self { mut first, slots: mut left, segment, mut at, of } = *self;
        std::iter::from_fn(move || {
            let in_tile = (1 << TILE_LG2) - at % (1 << TILE_LG2);
            let (slots, rest) = left.split_at(in_tile.min(left.len()));
            let tile = Run { first, slots, segment, at, of };
            (first, left, at) = (first + slots.len() as u64, rest, at + slots.len());
            (!slots.is_empty()).then_some(tile)
        })
    }
}

/// What a walk over a range meets.
pub(super) enum Step<'a> {
    Run(Run<'a>),
    /// Nothing was ever written here; the walk goes on behind the highest absent level.
    Absent,
}

impl Tree {
    pub(super) fn new(
        geometry: Geometry,
        memory: Arc<dyn TableMemory>,
        turns: Arc<Turns>,
    ) -> Result<Self, BackendError> {
        let arena = Arena::new(memory, geometry.level_entries_lg2() + 3, geometry.blocks())?;
        let tree =
            Self { geometry, arena, root: Block::default(), growing: RwLock::new(()), turns };
        // The first block of all, number 0.
        tree.take(1)?.for_each(|block| debug_assert_eq!(block, tree.root));
        Ok(tree)
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(super) fn arena(&self) -> &Arena<Segments> {
        &self.arena
    }

    pub(super) fn root(&self) -> Hpa {
        self.arena.hpa(self.root)
    }

    fn take(&self, blocks: u64) -> Result<impl Iterator<Item = Block> + use<>, BackendError> {
        let per_segment = 1usize << self.segment_lg2();
        self.arena.take(blocks, move |slots| {
            (0..slots / per_segment).map(|_| Arc::new(Segment::new())).collect()
        })
    }

    /// A segment never spans two leaves.
    #[inline]
    fn segment_lg2(&self) -> u32 {
        SEGMENT_LG2.min(self.geometry.level_entries_lg2())
    }

    /// log2 of the entries below one slot of a block at `level`; level 0 is the leaf.
    fn span_lg2(&self, level: u32) -> u32 {
        self.geometry.level_entries_lg2() * level
    }

    #[inline]
    fn slot_of(&self, block: Block, level: u32, index: u64) -> &Slot {
        let at = (index >> self.span_lg2(level)) & (self.geometry.level_entries() - 1);
        &self.arena.slots(block)[at as usize]
    }

    /// The block that `slot` leads to. Acquire: what was linked below is seen.
    #[inline]
    fn below(&self, slot: &Slot) -> Option<Block> {
        let link = Tce::from_be_word(slot.load(Ordering::Acquire));
        (!link.is_empty()).then(|| self.arena.block_at(Hpa(link.address())))
    }

    /// The leaf of `index`, or the level of the block whose slot for it is empty, and that block.
    #[inline]
    fn leaf(&self, index: u64) -> Result<Block, (u32, Block)> {
        let mut block = self.root;
        for level in (1..self.geometry.levels()).rev() {
            match self.below(self.slot_of(block, level, index)) {
                Some(next) => block = next,
                None => return Err((level, block)),
            }
        }
        Ok(block)
    }

    /// Makes every leaf of the range exist: all of them, or none is added and the error says why.
    pub(super) fn install(&self, first: u64, count: u64) -> Result<(), TableError> {
        if self.missing(first, count) == 0 {
            return Ok(());
        }
        let _alone = write(&self.growing);
        // Counted again: others may have added some of it meanwhile, and nobody can now.
        let mut blocks = self.take(self.missing(first, count))?;
        let mut at = first;
        while at < first + count {
            if let Err((level, block)) = self.leaf(at) {
                self.link(at, level, block, &mut blocks);
            }
            at = self.next_after(at, 1);
        }
        debug_assert!(blocks.next().is_none(), "counted more levels than were missing");
        Ok(())
    }

    /// Blocks that the range lacks.
    fn missing(&self, first: u64, count: u64) -> u64 {
        let mut missing = 0;
        // Each absent parent once, though several leaves below it are missed.
        let mut parents_upto = [first; MAX_LEVELS as usize];
        let mut at = first;
        while at < first + count {
            if let Err((level, _)) = self.leaf(at) {
                missing += 1;
                for l in 1..level {
                    if at >= parents_upto[l as usize] {
                        missing += 1;
                        parents_upto[l as usize] = self.next_after(at, l + 1);
                    }
                }
            }
            at = self.next_after(at, 1);
        }
        missing
    }

    /// Keeps levels from being added while it is held.
    pub(super) fn freeze(&self) -> RwLockReadGuard<'_, ()> {
        read(&self.growing)
    }

    /// True if the range lies in one segment, present or not.
    pub(super) fn one_segment(&self, first: u64, count: u64) -> bool {
        first >> self.segment_lg2() == (first + count - 1) >> self.segment_lg2()
    }

    /// First entry behind the block at `level - 1` that holds `index`.
    fn next_after(&self, index: u64, level: u32) -> u64 {
        (index | ((1 << self.span_lg2(level)) - 1)) + 1
    }

    /// Hangs a path down to the leaf of `index` into the empty slot of `block`, which is at `level`.
    fn link(&self, index: u64, level: u32, block: Block, blocks: &mut impl Iterator<Item = Block>) {
        let link = |to: Block| Tce::new(self.arena.hpa(to).0, Perm::READ_WRITE).to_be_word();
        let path: Vec<_> = blocks.take(level as usize).collect();
        // path[0] is the leaf; each one above points to it before the path can be seen.
        for (l, pair) in (1..level).zip(path.windows(2)) {
            self.slot_of(pair[1], l, index).store(link(pair[0]), Ordering::Relaxed);
        }
        let top = link(path[level as usize - 1]);
        self.slot_of(block, level, index).store(top, Ordering::Release);
    }

    /// The entry `index`, its segment, and its place in that.
    #[inline]
    pub(super) fn slot(&self, index: u64) -> Option<(&Slot, &Segment, usize)> {
        let leaf = self.leaf(index).ok()?;
        let in_leaf = (index & (self.geometry.level_entries() - 1)) as usize;
        let (part, first) = self.arena.chunk_of(leaf);
        let (at, lg2) = (first + in_leaf, self.segment_lg2());
        Some((&part.slots()[at], &part.beside[at >> lg2], at & ((1 << lg2) - 1)))
    }

    /// The segment of `index`, to be kept: see [`Lane`].
    pub(super) fn lane(&self, index: u64) -> Option<Lane> {
        let leaf = self.leaf(index).ok()?;
        let (part, first) = self.arena.chunk_of(leaf);
        let lg2 = self.segment_lg2();
        let in_leaf = (index & (self.geometry.level_entries() - 1)) as usize;
        let segment = (first + in_leaf) >> lg2;
        let slots = Stretch::new(part.chunk(), segment << lg2..(segment + 1) << lg2);
        let first = index & !((1 << lg2) - 1);
        Some(Lane { segment: part.beside[segment].clone(), slots, first })
    }

    /// The run from `index` to the end of its segment or to `end`.
    fn run(&self, leaf: Block, index: u64, end: u64) -> Run<'_> {
        let in_leaf = index & (self.geometry.level_entries() - 1);
        let segment_entries = 1usize << self.segment_lg2();
        let at = in_leaf & (segment_entries as u64 - 1);
        let count = (segment_entries as u64 - at).min(end - index);
        let (part, first) = self.arena.chunk_of(leaf);
        let from = first + in_leaf as usize;
        let (segment, at) = (&part.beside[from >> self.segment_lg2()], at as usize);
        let slots = &part.slots()[from..from + count as usize];
        Run { first: index, slots, segment, at, of: segment_entries }
    }

    /// Walks the range. Each leaf is looked up once; what is absent is skipped at the highest
    /// absent level.
    pub(super) fn walk(&self, first: u64, count: u64) -> Walk<'_> {
        Walk { tree: self, at: first, end: first + count, leaf: None }
    }
}

/// See [`Tree::walk`].
pub(super) struct Walk<'a> {
    tree: &'a Tree,
    at: u64,
    end: u64,
    /// The leaf in hand, and the first entry behind it.
    leaf: Option<(Block, u64)>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        if self.at >= self.end {
            return None;
        }
        let (leaf, behind) = match self.leaf {
            Some(leaf) if self.at < leaf.1 => leaf,
            _ => match self.tree.leaf(self.at) {
                Ok(leaf) => *self.leaf.insert((leaf, self.tree.next_after(self.at, 1))),
                Err((level, _)) => {
                    self.at = self.tree.next_after(self.at, level);
                    return Some(Step::Absent);
                }
            },
        };
        let run = self.tree.run(leaf, self.at, self.end.min(behind));
        self.at += run.slots.len() as u64;
        Some(Step::Run(run))
    }
}
