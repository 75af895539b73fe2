// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables in the kernel's own memory: what one costs, its two trees, and exchanging entries.
//!
//! Each window has two trees of the same shape: what the hardware reads, and the user addresses
//! behind it. Both grow on demand, or are made whole. Nothing here checks a range: that is what
//! kernels leave out.

use std::collections::BTreeMap;

use super::ProcessId;
use super::log::{Injection, Log};
use crate::addr::GroupId;
use crate::tce::Tce;

/// What a table looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// log2 of the IOMMU page.
    pub(super) page_shift: u32,
    /// Levels, 1 if there is only the leaf.
    pub(super) levels: u32,
    /// log2 of the entries of one block.
    pub(super) bits: u32,
    /// Entries that belong to the window, which may be more than were asked for.
    pub(super) entries: u64,
}

/// Bytes of a window's table with all of its levels, or `None` if nobody can make it.
///
/// A window smaller than a page is among those: the arithmetic of real kernels goes below zero
/// there and arrives at nothing too, for the level counts that were looked at.
pub(super) fn bytes(page_shift: u32, window: u64, levels: u32, host_shift: u32) -> Option<u64> {
    if levels == 0 || !window.is_power_of_two() {
        return None;
    }
    let index_bits = window.ilog2().checked_sub(page_shift)?;
    let block = 1u128 << (index_bits.div_ceil(levels) + 3).max(host_shift);
    // From the leaves upwards; each level is rounded up to whole blocks, and has one pointer for
    // each block below it.
    let mut level = (8u128 << index_bits).max(4096);
    let mut tree = 0u128;
    for _ in 0..levels {
        tree += level.div_ceil(block) * block;
        level = (level / block * 8).max(block);
    }
    u64::try_from(tree).ok()
}

/// The shape of a window's table; `None` if it would decode too many address bits.
/// The window is one that [`bytes`] has accepted.
pub(super) fn shape(
    page_shift: u32,
    window: u64,
    levels: u32,
    host_shift: u32,
    refused_bits: u32,
) -> Option<Shape> {
    let index_bits = window.ilog2() - page_shift;
    let bits = index_bits.div_ceil(levels).max(host_shift - 3);
    if bits * levels + page_shift >= refused_bits {
        return None;
    }
    Some(Shape { page_shift, levels, bits, entries: 1 << index_bits.max(host_shift - 3) })
}

/// The memory that tables live in. An address is never used twice, so whoever still looks at a
/// freed table finds nothing there.
#[derive(Default)]
pub(super) struct Arena {
    blocks: Vec<Option<Box<[u64]>>>,
}

/// Blocks start at multiples of this, the first one not at 0.
const STEP: u32 = 32;

impl Arena {
    /// A zeroed block; `None` if it is larger than the step between two blocks.
    pub(super) fn alloc(&mut self, entries: u64) -> Option<u64> {
        if entries > 1 << (STEP - 3) {
            return None;
        }
        self.blocks.push(Some(vec![0; entries as usize].into()));
        Some((self.blocks.len() as u64) << STEP)
    }

    fn at(address: u64) -> Option<usize> {
        let aligned = address.trailing_zeros() >= STEP;
        ((address >> STEP) as usize).checked_sub(1).filter(|_| aligned)
    }

    pub(super) fn block(&self, address: u64) -> Option<&[u64]> {
        self.blocks.get(Self::at(address)?)?.as_deref()
    }

    fn block_mut(&mut self, address: u64) -> Option<&mut [u64]> {
        self.blocks.get_mut(Self::at(address)?)?.as_deref_mut()
    }

    fn free(&mut self, address: u64) -> Option<Box<[u64]>> {
        self.blocks.get_mut(Self::at(address)?)?.take()
    }

    /// Frees a block and all that is below it.
    fn free_tree(&mut self, address: u64, levels: u32) {
        let Some(block) = self.free(address) else { return };
        if levels > 1 {
            for entry in block.iter().map(|word| Tce::from_be_word(*word)) {
                if !entry.is_empty() {
                    self.free_tree(entry.address(), levels - 1);
                }
            }
        }
    }
}

/// There was no memory for a level.
pub(super) struct NoLevel;

/// One of the two trees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Hardware,
    View,
}

/// A window's table.
pub(super) struct Table {
    pub(super) shape: Shape,
    /// Number of the window's first entry, counted from bus address 0.
    pub(super) first: u64,
    /// Host pages that it is charged with, and to whom.
    pub(super) charges: Vec<(ProcessId, u64)>,
    /// There is no flat view yet.
    pub(super) view_due: bool,
    /// The one group that can use it, where tables belong to groups.
    pub(super) of: Option<GroupId>,
    /// All levels were made at once, and there are no more than the entries need.
    whole: bool,
    /// Address of the top block that the hardware reads.
    pub(super) hardware: u64,
    view: u64,
    /// What was written where no table is: (hardware, view) by entry.
    astray: BTreeMap<u64, [u64; 2]>,
}

/// Entries of the largest table that can be made whole.
const WHOLE_MAX: u64 = 1 << 27;

/// How much of what went astray is remembered; a real machine would not have come so far.
const ASTRAY_MAX: usize = 1 << 16;

impl Table {
    /// An empty table; `None` if there is no contiguous block of the size it needs.
    pub(super) fn new(
        arena: &mut Arena,
        shape: Shape,
        first: u64,
        max_block: u64,
        whole: bool,
    ) -> Option<Self> {
        if 8u64 << shape.bits > max_block || whole && shape.entries > WHOLE_MAX {
            return None;
        }
        let hardware = arena.alloc(1 << shape.bits)?;
        let Some(view) = arena.alloc(1 << shape.bits) else {
            arena.free(hardware);
            return None;
        };
        let table = Self {
            shape,
            first,
            charges: Vec::new(),
            view_due: false,
            of: None,
            whole,
            hardware,
            view,
            astray: BTreeMap::new(),
        };
        if whole {
            let leaves = (0..shape.entries).step_by(1 << shape.bits);
            let mut log = Log::default();
            for (index, side) in leaves.flat_map(|i| [(i, Side::Hardware), (i, Side::View)]) {
                if table.place(arena, side, index, Some(&mut log)).is_err() {
                    table.free(arena);
                    return None;
                }
            }
        }
        Some(table)
    }

    pub(super) fn free(&self, arena: &mut Arena) {
        arena.free_tree(self.hardware, self.shape.levels);
        arena.free_tree(self.view, self.shape.levels);
    }

    /// Entries that the table's memory can hold; those from [`Shape::entries`] on are spare.
    pub(super) fn reach(&self) -> u64 {
        if self.whole {
            return self.shape.entries;
        }
        1 << (self.shape.bits * self.shape.levels)
    }

    /// Host pages of a flat view.
    pub(super) fn flat_view(&self, host_shift: u32) -> u64 {
        (8 * self.shape.entries).div_ceil(1 << host_shift)
    }

    /// Where an entry is: its block and its place in it. Levels that are not there are added if
    /// `grow` says so. `Ok(None)` if they are not and shall not be.
    fn place(
        &self,
        arena: &mut Arena,
        side: Side,
        index: u64,
        mut grow: Option<&mut Log>,
    ) -> Result<Option<(u64, usize)>, NoLevel> {
        let mut block = if side == Side::Hardware { self.hardware } else { self.view };
        let part =
            |level| (index >> (level * self.shape.bits) & ((1 << self.shape.bits) - 1)) as usize;
        for level in (1..self.shape.levels).rev() {
            let Some(words) = arena.block(block) else { return Ok(None) };
            let entry = Tce::from_be_word(words[part(level)]);
            block = if !entry.is_empty() {
                entry.address()
            } else if let Some(log) = grow.as_deref_mut() {
                let due = log.due(|x| match x {
                    Injection::Level { nth } => Some(nth),
                    _ => None,
                });
                if due {
                    return Err(NoLevel);
                }
                log.counters.levels += 1;
                let new = arena.alloc(1 << self.shape.bits).ok_or(NoLevel)?;
                if let Some(words) = arena.block_mut(block) {
                    words[part(level)] = Tce::from_value(new | Tce::CONTROL_MASK).to_be_word();
                }
                new
            } else {
                return Ok(None);
            };
        }
        Ok(Some((block, part(0))))
    }

    /// The word of an entry; `None` if its leaf is not there.
    fn word<'a>(
        &'a mut self,
        arena: &'a mut Arena,
        side: Side,
        index: u64,
        grow: Option<&mut Log>,
    ) -> Result<Option<&'a mut u64>, NoLevel> {
        if index >= self.reach() {
            if grow.is_some() && self.astray.len() < ASTRAY_MAX {
                self.astray.entry(index).or_default();
            }
            return Ok(self.astray.get_mut(&index).map(|pair| &mut pair[side as usize]));
        }
        let Some((block, at)) = self.place(arena, side, index, grow)? else { return Ok(None) };
        Ok(arena.block_mut(block).map(|words| &mut words[at]))
    }

    /// Stores an entry for the hardware and returns the one that was there.
    pub(super) fn exchange(
        &mut self,
        arena: &mut Arena,
        log: &mut Log,
        index: u64,
        new: Tce,
    ) -> Result<Tce, NoLevel> {
        let word = self.word(arena, Side::Hardware, index, Some(log))?;
        Ok(word.map_or(Tce::EMPTY, |word| {
            Tce::from_be_word(std::mem::replace(word, new.to_be_word()))
        }))
    }

    /// Sees to it that the view has a place for an entry.
    pub(super) fn prepare_view(
        &mut self,
        arena: &mut Arena,
        log: &mut Log,
        index: u64,
    ) -> Result<(), NoLevel> {
        self.word(arena, Side::View, index, Some(log)).map(|_| ())
    }

    /// Puts a user address into the view and returns the one that was there; `None` if there is no
    /// place for it.
    pub(super) fn exchange_view(
        &mut self,
        arena: &mut Arena,
        index: u64,
        uaddr: u64,
    ) -> Option<u64> {
        let word = self.word(arena, Side::View, index, None).ok().flatten()?;
        Some(u64::from_be(std::mem::replace(word, uaddr.to_be())))
    }

    /// Empties the entries `first..end` for the hardware and returns those that were live.
    /// Subtrees that are not there take no time.
    pub(super) fn take_live(&mut self, arena: &mut Arena, first: u64, end: u64) -> Vec<(u64, Tce)> {
        let mut live = Vec::new();
        let inside = end.min(self.reach());
        if first < inside {
            self.take_block(
                arena,
                self.hardware,
                self.shape.levels - 1,
                0,
                first..inside,
                &mut live,
            );
        }
        if first < end {
            for (index, pair) in self.astray.range_mut(first..end) {
                let old = Tce::from_be_word(std::mem::take(&mut pair[0]));
                if !old.is_empty() {
                    live.push((*index, old));
                }
            }
        }
        live
    }

    /// Does so for one block, whose first entry belongs to the leaf entry `base`.
    fn take_block(
        &self,
        arena: &mut Arena,
        block: u64,
        level: u32,
        base: u64,
        range: std::ops::Range<u64>,
        live: &mut Vec<(u64, Tce)>,
    ) {
        let shift = level * self.shape.bits;
        let from = (range.start.max(base) - base) >> shift;
        let to = ((range.end - base).div_ceil(1 << shift)).min(1 << self.shape.bits);
        let Some(words) = arena.block_mut(block) else { return };
        if level == 0 {
            for (index, word) in (from..to).zip(&mut words[from as usize..to as usize]) {
                let old = Tce::from_be_word(std::mem::take(word));
                if !old.is_empty() {
                    live.push((base + index, old));
                }
            }
            return;
        }
        let below: Vec<_> = (from..to)
            .map(|index| (index, Tce::from_be_word(words[index as usize])))
            .filter(|(_, entry)| !entry.is_empty())
            .collect();
        for (index, entry) in below {
            let base = base + (index << shift);
            self.take_block(arena, entry.address(), level - 1, base, range.clone(), live);
        }
    }
}
