// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The multi-level TCE table.
//!
//! Levels appear on demand and stay until the table dies; reads and clears never make one. All
//! that can fail (bounds, memory for levels) is in [`TceTable::prepare`]; the [`Writer`] it returns
//! owns its range and cannot fail.

mod locks;
mod marks;
mod one;
mod segment;
#[cfg(all(test, not(loom)))]
mod tests;
mod tree;
mod wide;
mod writer;

use crate::addr::Hpa;
use crate::error::{BackendError, TableError};
use crate::geometry::Geometry;
use crate::mem::{ArenaUse, TableChunk, TableMemory};
use crate::simd::Tier;
use crate::sync::{Arc, Ordering, Slot, Turns, Who};
use crate::tce::{Summary, Tce};

pub use locks::Held;
use locks::Locked;
pub(crate) use one::{Entry, Lane, One, User};
pub(crate) use segment::SEGMENT_LG2;
use tree::{Run, Step, Tree};
pub use writer::Writer;
pub(crate) use writer::Written;

/// One window's table, as a PHB walks it.
pub struct TceTable {
    tree: Tree,
    tier: &'static Tier,
}

/// A stretch of live entries that is about to go.
pub struct Old<'a> {
    first: u64,
    slots: &'a [Slot],
    /// Number and bounds of the live ones.
    pub summary: Summary,
    /// Whose all of them are, where the table knows.
    owner: Option<usize>,
}

/// Live entries that go.
pub(crate) enum Gone<'a> {
    /// They are one owner's. So nobody has to look at them, and they were overwritten in the same
    /// pass that counted them.
    Known {
        /// First entry of the stretch.
        first: u64,
        /// Length of the stretch.
        count: u64,
        /// Live entries in it.
        live: u64,
        /// Whose.
        owner: usize,
    },
    /// They are still there.
    Look(&'a Old<'a>),
}

impl Gone<'_> {
    /// Number of live entries.
    pub(crate) fn live(&self) -> u64 {
        match self {
            Self::Known { live, .. } => *live,
            Self::Look(old) => old.summary.live,
        }
    }
}

impl<'a> Old<'a> {
    /// What is live in a run.
    fn of(tier: &Tier, run: &Run<'a>) -> Self {
        let summary = tier.scan(run.slots);
        Self { first: run.first, slots: run.slots, summary, owner: run.segment.owner() }
    }

    /// Whose all of them are, where the table knows.
    pub(crate) fn owner(&self) -> Option<usize> {
        self.owner
    }

    /// The live entries with their numbers.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Tce)> {
        (self.first..)
            .zip(self.slots.iter().map(|s| Tce::from_be_word(s.load(Ordering::Relaxed))))
            .filter(|(_, tce)| !tce.is_empty())
    }

    /// Number of the first entry of the stretch.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Length of the stretch.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.slots.len() as u64
    }
}

impl TceTable {
    /// An empty table: its top level only.
    ///
    /// # Errors
    /// If `memory` has no room.
    pub fn new(
        geometry: Geometry,
        memory: Arc<dyn TableMemory>,
        tier: &'static Tier,
    ) -> Result<Self, BackendError> {
        Self::shared(geometry, memory, tier, Arc::new(Turns::new()))
    }

    /// The same for threads that are registered with `turns`: segments may be left to them.
    pub(crate) fn shared(
        geometry: Geometry,
        memory: Arc<dyn TableMemory>,
        tier: &'static Tier,
        turns: Arc<Turns>,
    ) -> Result<Self, BackendError> {
        Ok(Self { tree: Tree::new(geometry, memory, turns)?, tier })
    }

    /// The table's shape.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.tree.geometry()
    }

    /// Real address of the top level.
    #[must_use]
    pub fn root(&self) -> Hpa {
        self.tree.root()
    }

    /// Blocks that exist, and the memory held for more.
    #[must_use]
    pub fn usage(&self) -> ArenaUse {
        self.tree.arena().usage()
    }

    /// The memory that the table stands on.
    pub fn chunks(&self) -> impl Iterator<Item = &Arc<TableChunk>> {
        self.tree.arena().chunks()
    }

    #[inline]
    fn check(&self, first: u64, count: u64) -> Result<(), TableError> {
        let entries = self.geometry().entries();
        if first >= entries || count > entries - first {
            return Err(TableError::OutOfTable { first, count, entries });
        }
        Ok(())
    }

    /// The entry, as it stands; [`Tce::EMPTY`] where no level exists.
    ///
    /// # Errors
    /// Beyond the table.
    pub fn get(&self, index: u64) -> Result<Tce, TableError> {
        self.check(index, 1)?;
        let slot = self.tree.slot(index);
        Ok(slot.map_or(Tce::EMPTY, |(slot, ..)| Tce::from_be_word(slot.load(Ordering::Relaxed))))
    }

    /// True if the entry was asked for as write-only although it lets the device read.
    ///
    /// # Errors
    /// Beyond the table.
    pub fn write_only(&self, index: u64) -> Result<bool, TableError> {
        self.check(index, 1)?;
        Ok(self.tree.slot(index).is_some_and(|(_, segment, at)| segment.write_only(at)))
    }

    /// Makes `count` entries from `first` writable: every level installed, every lock of the range
    /// taken. Nothing after it can fail.
    ///
    /// # Errors
    /// Beyond the table, or no memory for a level: then no level was added.
    pub fn prepare(&self, first: u64, count: u64) -> Result<Writer<'_>, TableError> {
        self.prepare_as(Who::ANYONE, first, count)
    }

    /// The same for a thread that may be registered, and then is inside and says that it waits.
    pub(crate) fn prepare_as(
        &self,
        who: Who,
        first: u64,
        count: u64,
    ) -> Result<Writer<'_>, TableError> {
        self.check(first, count)?;
        self.tree.install(first, count)?;
        // Leaves never go, so from here on the range has no absent part.
        Ok(Writer::new(self, Locked::new(&self.tree, who, first, count)))
    }

    /// [`TceTable::prepare`] for several parts at once, ascending and disjoint.
    ///
    /// # Errors
    /// As there; levels that were added for a part before the one that failed stay, empty.
    ///
    /// # Panics
    /// If there is no part, or they are not ascending and disjoint.
    pub fn prepare_all(&self, parts: &[(u64, u64)]) -> Result<Writer<'_>, TableError> {
        self.prepare_all_as(Who::ANYONE, parts)
    }

    /// The same for a thread that may be registered.
    pub(crate) fn prepare_all_as(
        &self,
        who: Who,
        parts: &[(u64, u64)],
    ) -> Result<Writer<'_>, TableError> {
        if let [(first, count)] = *parts {
            return self.prepare_as(who, first, count);
        }
        parts.iter().try_for_each(|part| self.check(part.0, part.1))?;
        parts.iter().try_for_each(|part| self.tree.install(part.0, part.1))?;
        Ok(Writer::new(self, Locked::parts(&self.tree, who, parts)))
    }

    /// Locks one entry, and makes the levels above it if asked to. `None` if one is missing.
    ///
    /// # Errors
    /// Beyond the table, or no memory for a level: then no level was added.
    #[inline]
    pub(crate) fn one(
        &self,
        index: u64,
        install: bool,
        user: User,
    ) -> Result<Option<One<'_>>, TableError> {
        self.check(index, 1)?;
        if let Some(one) = One::lock(&self.tree, index, user) {
            return Ok(Some(one));
        }
        if !install {
            return Ok(None);
        }
        self.tree.install(index, 1)?;
        Ok(One::lock(&self.tree, index, user))
    }

    /// Clears the entry number `index`, which is locked. `old` sees it before, if it is live.
    pub(crate) fn forget_one(&self, index: u64, one: &One<'_>, old: impl FnOnce(&Old<'_>)) {
        let tce = one.get();
        if !tce.is_empty() {
            let (slots, owner) = (one.slots(), one.owner());
            old(&Old { first: index, slots, summary: self.tier.scan(slots), owner });
        }
        one.set(tce, Tce::EMPTY, None, false);
    }

    /// The segment of an entry, if its levels exist.
    pub(crate) fn lane(&self, index: u64) -> Option<Lane> {
        self.check(index, 1).ok()?;
        self.tree.lane(index)
    }

    /// The entries that share a line of so many with entry `index`, whose levels exist.
    pub(crate) fn line(&self, index: u64, line: u32) -> &[Slot] {
        let line = u64::from(line);
        match self.tree.walk(index & !(line - 1), line).next() {
            Some(Step::Run(run)) => run.slots,
            _ => &[],
        }
    }

    /// Resets the debtor's marks of `count` entries from `first`, which are inside the table; `who`
    /// locks their segments, or nobody needs to.
    pub(crate) fn unmark(&self, who: Option<Who>, first: u64, count: u64, debtor: u32) {
        for step in self.tree.walk(first, count) {
            let Step::Run(run) = step else { continue };
            if let Some(who) = who {
                run.segment.lock_alone(who, self.tree.turns());
            }
            run.segment.unmark(run.at..run.at + run.slots.len(), debtor);
            if who.is_some() {
                run.segment.unlock();
            }
        }
    }

    /// Locks `count` entries from `first` for a clear; makes no level.
    ///
    /// # Errors
    /// Beyond the table.
    pub fn hold(&self, first: u64, count: u64) -> Result<Held<'_>, TableError> {
        self.hold_as(Who::ANYONE, first, count)
    }

    /// The same for a thread that may be registered.
    pub(crate) fn hold_as(&self, who: Who, first: u64, count: u64) -> Result<Held<'_>, TableError> {
        self.check(first, count)?;
        // As a map, a clear is one step for others: the range is locked as a whole. A leaf that
        // appeared in between would be one that is not locked.
        let one = count == 0 || self.tree.one_segment(first, count);
        let frozen = (!one).then(|| self.tree.freeze());
        Ok(Held::new(self, Locked::new(&self.tree, who, first, count), frozen))
    }

    /// [`TceTable::hold`] for several parts at once, ascending and disjoint.
    ///
    /// # Errors
    /// Beyond the table.
    ///
    /// # Panics
    /// If there is no part, or they are not ascending and disjoint.
    pub fn hold_all(&self, parts: &[(u64, u64)]) -> Result<Held<'_>, TableError> {
        self.hold_all_as(Who::ANYONE, parts)
    }

    /// The same for a thread that may be registered.
    pub(crate) fn hold_all_as(
        &self,
        who: Who,
        parts: &[(u64, u64)],
    ) -> Result<Held<'_>, TableError> {
        if let [(first, count)] = *parts {
            return self.hold_as(who, first, count);
        }
        parts.iter().try_for_each(|part| self.check(part.0, part.1))?;
        let frozen = Some(self.tree.freeze());
        Ok(Held::new(self, Locked::parts(&self.tree, who, parts), frozen))
    }

    /// Clears `count` entries from `first`; see [`Held::clear`].
    ///
    /// # Errors
    /// Beyond the table.
    pub fn clear(
        &self,
        first: u64,
        count: u64,
        old: impl FnMut(&Old<'_>),
    ) -> Result<u64, TableError> {
        Ok(self.hold(first, count)?.clear(old))
    }

    /// Calls `f` with every live entry of the range.
    ///
    /// # Errors
    /// Beyond the table.
    pub fn for_each_live(
        &self,
        first: u64,
        count: u64,
        mut f: impl FnMut(u64, Tce),
    ) -> Result<(), TableError> {
        self.check(first, count)?;
        for step in self.tree.walk(first, count) {
            let Step::Run(run) = step else { continue };
            if run.segment.live() > 0 {
                let (first, slots) = (run.first, run.slots);
                let old = Old { first, slots, summary: Summary::NONE, owner: None };
                old.entries().for_each(|(i, tce)| f(i, tce));
            }
        }
        Ok(())
    }

    /// Number of live entries, from the counts that are kept; exact while nobody writes.
    #[must_use]
    pub fn live(&self) -> u64 {
        // A walk over everything meets each segment once.
        let segments = self.tree.walk(0, self.geometry().entries()).map(|step| match step {
            Step::Run(run) => run.segment.live(),
            Step::Absent => 0,
        });
        segments.sum()
    }
}

impl std::fmt::Debug for TceTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TceTable(root {}, {:?})", self.root(), self.geometry())
    }
}
