// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The multi-level TCE table.
//!
//! Levels appear on demand and stay until the table dies; reads and clears never make one. All
//! that can fail (bounds, memory for levels) is in [`TceTable::prepare`]; the [`Writer`] it returns
//! owns its range and cannot fail.

mod locks;
mod segment;
mod tree;

use crate::addr::Hpa;
use crate::error::{BackendError, TableError};
use crate::geometry::Geometry;
use crate::mem::{ArenaUse, TableChunk, TableMemory};
use crate::simd::Tier;
use crate::sync::{Arc, Ordering, Slot};
use crate::tce::{Summary, Tce};

pub use locks::Held;
use locks::Locked;
use tree::{Run, Step, Tree};

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
}

impl Old<'_> {
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
        Ok(Self { tree: Tree::new(geometry, memory)?, tier })
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
        let word = |r: Run<'_>| Tce::from_be_word(r.slots[0].load(Ordering::Relaxed));
        Ok(self.tree.entry(index).map_or(Tce::EMPTY, word))
    }

    /// True if the entry was asked for as write-only although it lets the device read.
    ///
    /// # Errors
    /// Beyond the table.
    pub fn write_only(&self, index: u64) -> Result<bool, TableError> {
        self.check(index, 1)?;
        Ok(self.tree.entry(index).is_some_and(|r| r.segment.write_only(r.at)))
    }

    /// Makes `count` entries from `first` writable: every level installed, every lock of the range
    /// taken. Nothing after it can fail.
    ///
    /// # Errors
    /// Beyond the table, or no memory for a level: then no level was added.
    pub fn prepare(&self, first: u64, count: u64) -> Result<Writer<'_>, TableError> {
        self.check(first, count)?;
        self.tree.install(first, count)?;
        // Leaves never go, so from here on the range has no absent part.
        Ok(Writer { table: self, range: Locked::new(&self.tree, first, count), empty: false })
    }

    /// [`TceTable::prepare`] for several parts at once, ascending and disjoint.
    ///
    /// # Errors
    /// As there; levels that were added for a part before the one that failed stay, empty.
    ///
    /// # Panics
    /// If there is no part, or they are not ascending and disjoint.
    pub fn prepare_all(&self, parts: &[(u64, u64)]) -> Result<Writer<'_>, TableError> {
        parts.iter().try_for_each(|part| self.check(part.0, part.1))?;
        parts.iter().try_for_each(|part| self.tree.install(part.0, part.1))?;
        Ok(Writer { table: self, range: Locked::parts(&self.tree, parts), empty: false })
    }

    /// Locks `count` entries from `first` for a clear; makes no level.
    ///
    /// # Errors
    /// Beyond the table.
    pub fn hold(&self, first: u64, count: u64) -> Result<Held<'_>, TableError> {
        self.check(first, count)?;
        // As a map, a clear is one step for others: the range is locked as a whole. A leaf that
        // appeared in between would be one that is not locked.
        let one = count == 0 || self.tree.one_segment(first, count);
        let frozen = (!one).then(|| self.tree.freeze());
        Ok(Held::new(self, Locked::new(&self.tree, first, count), frozen))
    }

    /// [`TceTable::hold`] for several parts at once, ascending and disjoint.
    ///
    /// # Errors
    /// Beyond the table.
    ///
    /// # Panics
    /// If there is no part, or they are not ascending and disjoint.
    pub fn hold_all(&self, parts: &[(u64, u64)]) -> Result<Held<'_>, TableError> {
        parts.iter().try_for_each(|part| self.check(part.0, part.1))?;
        let frozen = Some(self.tree.freeze());
        Ok(Held::new(self, Locked::parts(&self.tree, parts), frozen))
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
                let old = Old { first: run.first, slots: run.slots, summary: Summary::NONE };
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

/// What was written to a stretch.
pub(crate) struct Written {
    /// Live entries.
    pub(crate) live: u64,
    /// True if a write-only permission was asked for.
    pub(crate) write_only: bool,
}

/// Sole writer of a range of a table. Dropping it lets others in.
#[must_use]
pub struct Writer<'a> {
    table: &'a TceTable,
    range: Locked<'a>,
    /// Nothing is live in the range, as far as it was looked at.
    empty: bool,
}

impl Writer<'_> {
    /// First entry and number of entries of each part.
    #[must_use]
    pub fn parts(&self) -> &[(u64, u64)] {
        self.range.asked()
    }

    /// Number of entries.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.parts().iter().map(|part| part.1).sum()
    }

    /// First entry of the first part.
    fn base(&self) -> u64 {
        self.range.first()
    }

    /// Live entries of a run.
    fn live_in(&self, run: &Run<'_>) -> Summary {
        // The common case of a bulk map: nothing to read.
        if self.empty || run.segment.live() == 0 {
            Summary::NONE
        } else {
            self.table.tier.scan(run.slots)
        }
    }

    /// Number of live entries in the range.
    #[must_use]
    pub fn live(&mut self) -> u64 {
        self.old(|_| ())
    }

    /// Calls `f` with each stretch that has live entries, and returns how many there are.
    pub fn old(&mut self, mut f: impl FnMut(&Old<'_>)) -> u64 {
        if self.empty {
            return 0;
        }
        let mut live = 0;
        for run in self.range.runs() {
            let summary = self.live_in(&run);
            live += summary.live;
            if summary.live > 0 {
                f(&Old { first: run.first, slots: run.slots, summary });
            }
        }
        self.empty = live == 0;
        live
    }

    /// Writes all parts. `f` gets each stretch with the number of its first entry, writes every
    /// slot of it with the tier, and says what it has written.
    pub(crate) fn write(&mut self, mut f: impl FnMut(&Tier, u64, &[Slot]) -> Written) {
        for run in self.range.runs() {
            let before = self.live_in(&run).live;
            let written = f(self.table.tier, run.first, run.slots);
            run.segment.recount(before, written.live);
            run.segment.set_write_only(run.at, run.slots.len(), written.write_only);
        }
        self.empty = false;
    }

    /// Clears a part of what is locked, as [`Held::clear`] does.
    pub fn forget(&mut self, part: (u64, u64), old: impl FnMut(&Old<'_>)) {
        self.range.forget(self.table.tier, part, old);
        self.empty = false;
    }

    /// Writes an arithmetic run: the entry that is `i` behind the first becomes `tce + i * step`.
    ///
    /// The low bits of `step` are 0 and `tce` is live, so that all entries are.
    ///
    /// # Panics
    /// Otherwise.
    pub fn fill(&mut self, tce: Tce, step: u64) {
        assert!(!tce.is_empty() && step & Tce::CONTROL_MASK == 0);
        let base = self.base();
        self.write(|tier, first, slots| {
            let value = tce.value().wrapping_add(step.wrapping_mul(first - base));
            tier.fill(slots, Tce::from_value(value), step);
            Written { live: slots.len() as u64, write_only: false }
        });
    }

    /// Writes the same entry everywhere (H_STUFF_TCE).
    pub fn stuff(&mut self, tce: Tce) {
        self.write(|tier, _, slots| {
            tier.store(slots, tce);
            let live = if tce.is_empty() { 0 } else { slots.len() as u64 };
            Written { live, write_only: false }
        });
    }

    /// Writes a list of words that covers the range, and hands back what was there.
    ///
    /// # Panics
    /// If a list is not as long as the range.
    pub fn exchange(&mut self, words: &[u64], old: &mut [u64]) {
        assert!(words.len() as u64 == self.count() && old.len() == words.len());
        let base = self.base();
        self.write(|tier, first, slots| {
            let at = (first - base) as usize;
            let words = &words[at..at + slots.len()];
            tier.exchange(slots, words, &mut old[at..at + slots.len()]);
            Written { live: tier.survey(words).live, write_only: false }
        });
    }

    /// Writes a list of words that covers the range; `write_only` says whether a
    /// write-only permission was asked for.
    ///
    /// # Panics
    /// If the list is not as long as the range.
    pub fn put(&mut self, words: &[u64], write_only: bool) {
        assert!(words.len() as u64 == self.count());
        let base = self.base();
        self.write(|tier, first, slots| {
            let at = (first - base) as usize;
            let words = &words[at..at + slots.len()];
            tier.put(slots, words);
            Written { live: tier.survey(words).live, write_only }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::addr::PageShift;
    use crate::backend::testing::PlainMemory;
    use crate::geometry::WindowSpec;
    use crate::tce::Perm;

    /// Small enough for Miri; the long comparison with a model is in `tests/`.
    #[test]
    fn writers_and_clears_across_leaves() {
        let spec = WindowSpec::new(8 << 20, PageShift::K4).levels(2);
        let geometry = Geometry::new(spec, PageShift::K4, 1 << 20).unwrap();
        assert_eq!((geometry.entries(), geometry.level_entries()), (2048, 512));
        let memory = Arc::new(PlainMemory::default());
        let table = TceTable::new(geometry, memory.clone(), Tier::best()).unwrap();
        let nth = |i: u64| Tce::new((100 + i) << 12, Perm::READ_WRITE);
        table.prepare(500, 30).unwrap().fill(nth(500), 1 << 12);
        assert_eq!((table.live(), table.usage().blocks), (30, 3));
        assert_eq!(table.get(529).unwrap(), nth(529));

        let words: Vec<_> = (0..4).map(|i| nth(i).to_be_word()).collect();
        let mut old = [0; 4];
        let mut writer = table.prepare(510, 4).unwrap();
        assert_eq!((writer.live(), writer.parts()), (4, &[(510, 4)][..]));
        writer.exchange(&words, &mut old);
        drop(writer);
        assert_eq!(old.map(Tce::from_be_word), [510, 511, 512, 513].map(nth));

        let mut gone = 0;
        // The first and the last leaf are absent; 4 steps for the four leaves.
        let steps = table.clear(0, 2048, |old| gone += old.summary.live).unwrap();
        assert_eq!((gone, steps, table.live(), table.usage().blocks), (30, 4, 0, 3));
        assert!(table.prepare(2047, 2).is_err());
        drop(table);
        assert_eq!(memory.stretches(), 0);
    }
}
