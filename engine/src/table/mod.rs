// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The multi-level TCE table.
//!
//! Levels appear on demand and stay until the table dies; reads and clears never make one. All
//! that can fail (bounds, memory for levels) is in [`TceTable::prepare`]; the [`Writer`] it returns
//! owns its range and cannot fail.

mod segment;
mod tree;

use crate::addr::Hpa;
use crate::error::{BackendError, TableError};
use crate::geometry::Geometry;
use crate::mem::{ArenaUse, TableChunk, TableMemory};
use crate::simd::Tier;
use crate::sync::{Arc, Ordering, Slot};
use crate::tce::{Summary, Tce};

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

    /// Clears `count` entries from `first`. `old` sees each stretch that has live entries before it
    /// goes. Returns the number of steps that the walk took: stretches of present leaves, and
    /// absent subtrees however large.
    ///
    /// # Errors
    /// Beyond the table.
    pub fn clear(
        &self,
        first: u64,
        count: u64,
        mut old: impl FnMut(&Old<'_>),
    ) -> Result<u64, TableError> {
        self.check(first, count)?;
        if count == 0 {
            return Ok(0);
        }
        // As a map, a clear is one step for others: the range is locked as a whole. A leaf that
        // appeared in between would be one that is not locked.
        let _frozen = (!self.tree.one_segment(first, count)).then(|| self.tree.freeze());
        let range = Locked::new(&self.tree, first, count);
        for run in range.runs() {
            if run.segment.live() > 0 {
                let summary = self.tier.scan(run.slots);
                if summary.live > 0 {
                    old(&Old { first: run.first, slots: run.slots, summary });
                }
                run.segment.recount(summary.live, 0);
                run.segment.set_write_only(run.at, run.slots.len(), false);
            }
            // Empty entries may hold poison, so the stretch is cleared even if none is live.
            self.tier.store(run.slots, Tce::EMPTY);
        }
        Ok(range.steps)
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

/// The locks of a range's segments. What is absent stays so for as long as this lives: either
/// nothing is, or no level can be added, or the range is one absent segment.
struct Locked<'a> {
    tree: &'a Tree,
    first: u64,
    count: u64,
    /// Segments that were locked.
    runs: u64,
    /// Steps of the walk.
    steps: u64,
}

impl<'a> Locked<'a> {
    fn new(tree: &'a Tree, first: u64, count: u64) -> Self {
        let mut range = Self { tree, first, count, runs: 0, steps: 0 };
        // Ascending, in every thread, so that no two can wait for each other.
        for step in tree.walk(first, count) {
            range.steps += 1;
            if let Step::Run(run) = step {
                run.segment.lock();
                range.runs += 1;
            }
        }
        range
    }

    /// The stretches that are locked.
    fn runs(&self) -> impl Iterator<Item = Run<'a>> + use<'a> {
        // Counted, because a single absent segment may have appeared since.
        let steps = if self.runs == 0 { 0 } else { self.count };
        self.tree.walk(self.first, steps).filter_map(|step| match step {
            Step::Run(run) => Some(run),
            Step::Absent => None,
        })
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.runs().for_each(|run| run.segment.unlock());
    }
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
    /// First entry and number of entries.
    #[must_use]
    pub fn range(&self) -> (u64, u64) {
        (self.range.first, self.range.count)
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

    /// Writes the whole range. `f` gets each stretch with the number of its first entry, writes
    /// every slot of it with the tier, and returns how many entries are live now. `write_only` says
    /// whether a write-only permission was asked for.
    pub(crate) fn write(
        &mut self,
        write_only: bool,
        mut f: impl FnMut(&Tier, u64, &[Slot]) -> u64,
    ) {
        for run in self.range.runs() {
            let before = self.live_in(&run).live;
            let after = f(self.table.tier, run.first, run.slots);
            run.segment.recount(before, after);
            run.segment.set_write_only(run.at, run.slots.len(), write_only);
        }
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
        let base = self.range.first;
        self.write(false, |tier, first, slots| {
            let value = tce.value().wrapping_add(step.wrapping_mul(first - base));
            tier.fill(slots, Tce::from_value(value), step);
            slots.len() as u64
        });
    }

    /// Writes the same entry everywhere (H_STUFF_TCE).
    pub fn stuff(&mut self, tce: Tce) {
        self.write(false, |tier, _, slots| {
            tier.store(slots, tce);
            if tce.is_empty() { 0 } else { slots.len() as u64 }
        });
    }

    /// Writes a list of words that covers the range, and hands back what was there.
    ///
    /// # Panics
    /// If a list is not as long as the range.
    pub fn exchange(&mut self, words: &[u64], old: &mut [u64]) {
        assert!(words.len() as u64 == self.range.count && old.len() == words.len());
        let base = self.range.first;
        self.write(false, |tier, first, slots| {
            let at = (first - base) as usize;
            let words = &words[at..at + slots.len()];
            tier.exchange(slots, words, &mut old[at..at + slots.len()]);
            tier.survey(words).live
        });
    }

    /// Writes a list of words that covers the range; `write_only` says whether a
    /// write-only permission was asked for.
    ///
    /// # Panics
    /// If the list is not as long as the range.
    pub fn put(&mut self, words: &[u64], write_only: bool) {
        assert!(words.len() as u64 == self.range.count);
        let base = self.range.first;
        self.write(write_only, |tier, first, slots| {
            let at = (first - base) as usize;
            let words = &words[at..at + slots.len()];
            tier.put(slots, words);
            tier.survey(words).live
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
        assert_eq!((writer.live(), writer.range()), (4, (510, 4)));
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
