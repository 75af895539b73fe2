// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ranges that are locked: all segments of all their parts, ascending.

use super::tree::{Run, Step, Tree, Walk};
use super::{Gone, Old, TceTable, wide};
use crate::simd::Tier;
use crate::sync::{RwLockReadGuard, Who};

/// The locks of the segments that hold some parts of a table. What is absent stays so for as long as
/// this lives: either nothing is, or no level can be added, or it is one absent segment.
pub(super) struct Locked<'a> {
    tree: &'a Tree,
    /// First entry and number of entries, of all of it.
    range: (u64, u64),
    /// If that is not what was asked for.
    many: Option<Box<Many>>,
    /// Segments that were locked.
    runs: u64,
    /// True if none of them had a live entry when it was locked; false also if that is not known.
    empty: bool,
    /// Steps of the walk.
    steps: u64,
}

struct Many {
    /// The stretches that are locked, none of which shares a segment with another.
    hulls: Vec<(u64, u64)>,
    /// What was asked for inside them.
    parts: Box<[(u64, u64)]>,
}

impl<'a> Locked<'a> {
    pub(super) fn new(tree: &'a Tree, who: Who, first: u64, count: u64) -> Self {
        let mut locked =
            Self { tree, range: (first, count), many: None, runs: 0, empty: true, steps: 0 };
        if locked.lock(who, first, count) {
            tree.turns().wait_until_not_relying();
            locked.empty = false;
        }
        locked
    }

    pub(super) fn parts(tree: &'a Tree, who: Who, parts: &[(u64, u64)]) -> Self {
        let (&first, more) = parts.split_first().expect("at least one part");
        let mut hulls = vec![first];
        for &(first, count) in more {
            let last = hulls.last_mut().expect("the first");
            let end = last.0 + last.1;
            assert!(first >= end, "parts are ascending and disjoint");
            // A segment has one lock, whatever number of parts are in it.
            if tree.one_segment(end - 1, first - end + 2) {
                last.1 = first + count - last.0;
            } else {
                hulls.push((first, count));
            }
        }
        let end = parts[parts.len() - 1];
        let range = (first.0, end.0 + end.1 - first.0);
        let mut locked = Self { tree, range, many: None, runs: 0, empty: true, steps: 0 };
        let mut taken_away = false;
        hulls.iter().for_each(|(first, count)| taken_away |= locked.lock(who, *first, *count));
        if taken_away {
            tree.turns().wait_until_not_relying();
            locked.empty = false;
        }
        locked.many = Some(Box::new(Many { hulls, parts: parts.into() }));
        locked
    }

    /// Ascending, in every thread, so that no two can wait for each other. True if one was left to
    /// another thread, which may still rely on it.
    fn lock(&mut self, who: Who, first: u64, count: u64) -> bool {
        let mut taken_away = false;
        for step in self.tree.walk(first, count) {
            self.steps += 1;
            if let Step::Run(run) = step {
                taken_away |= run.segment.lock(who);
                self.empty &= run.segment.live() == 0;
                self.runs += 1;
            }
        }
        taken_away
    }

    /// True if nothing is live in any locked segment.
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// First entry of all.
    pub(super) fn first(&self) -> u64 {
        self.range.0
    }

    /// What was asked for: first entry and number of entries of each part.
    #[inline]
    pub(super) fn asked(&self) -> &[(u64, u64)] {
        match &self.many {
            None => std::slice::from_ref(&self.range),
            Some(many) => &many.parts,
        }
    }

    /// Clears a part of what is locked.
    pub(super) fn forget(&self, tier: &Tier, part: (u64, u64), mut old: impl FnMut(&Old<'_>)) {
        self.walk(&[part]).for_each(|run| clear(tier, &run, &mut old));
    }

    /// The stretches of what was asked for; all are locked.
    pub(super) fn runs(&self) -> Runs<'a, '_> {
        self.walk(self.asked())
    }

    fn walk<'l>(&self, stretches: &'l [(u64, u64)]) -> Runs<'a, 'l> {
        // Counted, because a single absent segment may have appeared since.
        let stretches = if self.runs > 0 { stretches } else { &[] };
        Runs { tree: self.tree, walk: self.tree.walk(0, 0), next: stretches.iter() }
    }
}

/// The runs of some stretches, one after the other. (A chain of adapters takes twice the
/// instructions for a single page.)
pub(super) struct Runs<'a, 'l> {
    tree: &'a Tree,
    walk: Walk<'a>,
    next: std::slice::Iter<'l, (u64, u64)>,
}

impl<'a> Iterator for Runs<'a, '_> {
    type Item = Run<'a>;

    #[inline]
    fn next(&mut self) -> Option<Run<'a>> {
        loop {
            match self.walk.next() {
                Some(Step::Run(run)) => return Some(run),
                Some(Step::Absent) => {}
                None => {
                    let (first, count) = self.next.next()?;
                    self.walk = self.tree.walk(*first, *count);
                }
            }
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let stretches = match &self.many {
            None => std::slice::from_ref(&self.range),
            Some(many) => &many.hulls,
        };
        self.walk(stretches).for_each(|run| run.segment.unlock());
    }
}

/// Ranges of a table that are about to be cleared. Dropping it lets others in.
#[must_use]
pub struct Held<'a> {
    // Before the guard: segments are unlocked while levels still cannot be added.
    range: Locked<'a>,
    table: &'a TceTable,
    _frozen: Option<RwLockReadGuard<'a, ()>>,
}

impl<'a> Held<'a> {
    pub(super) fn new(
        table: &'a TceTable,
        range: Locked<'a>,
        frozen: Option<RwLockReadGuard<'a, ()>>,
    ) -> Self {
        Self { range, table, _frozen: frozen }
    }

    /// Calls `f` with each stretch that has live entries.
    pub fn live(&self, mut f: impl FnMut(&Old<'_>)) {
        for run in self.range.runs().filter(Run::may_be_live) {
            let old = Old::of(self.table.tier, &run);
            if old.summary.live > 0 {
                f(&old);
            }
        }
    }

    /// First entry and number of entries of each part.
    #[must_use]
    pub fn parts(&self) -> &[(u64, u64)] {
        self.range.asked()
    }

    /// Number of entries.
    pub(crate) fn count(&self) -> u64 {
        self.parts().iter().map(|part| part.1).sum()
    }

    /// True if all of it can be marked as the debtor's.
    pub(crate) fn may_mark(&self, debtor: u32) -> bool {
        self.range.runs().all(|run| run.segment.may_mark(run.at..run.at + run.slots.len(), debtor))
    }

    /// Marks `count` entries from `first`, which are some of those held and can be marked.
    pub(crate) fn mark_debt(&self, first: u64, count: u64, debtor: u32) {
        for run in self.range.walk(&[(first, count)]) {
            run.segment.mark_debt(run.at..run.at + run.slots.len(), debtor);
        }
    }

    /// Clears a part of it, as [`Held::clear`] does.
    pub fn forget(&self, part: (u64, u64), old: impl FnMut(&Old<'_>)) {
        self.range.forget(self.table.tier, part, old);
    }

    /// Clears it all. `old` sees each stretch that has live entries before it goes. Returns the
    /// number of steps that the walk took: stretches of present leaves, and absent subtrees however
    /// large.
    pub fn clear(self, mut old: impl FnMut(&Old<'_>)) -> u64 {
        for run in self.range.runs() {
            clear(self.table.tier, &run, &mut old);
        }
        self.range.steps
    }

    /// The same for those who do not have to look at a segment that is live throughout and one
    /// owner's: it is counted and cleared in one pass or, where the whole is too large for any
    /// cache, cleared unread and past it.
    pub(crate) fn sweep(&self, mut gone: impl FnMut(Gone<'_>)) -> u64 {
        let tier = self.table.tier;
        let entries = self.count();
        let stream = entries >= STREAM;
        let known = |run: &Run<'_>| {
            let owner = run.segment.owner();
            owner.filter(|_| run.is_whole() && run.segment.live() == run.slots.len() as u64)
        };
        let clear_known = |run: &Run<'_>| {
            if stream {
                tier.clear_streaming(run.slots);
            } else {
                let found = tier.take(run.slots).live;
                debug_assert_eq!(found, run.slots.len() as u64);
            }
        };
        let wide = wide::worth(entries);
        if wide {
            wide::for_each(self.range.runs().filter(|run| known(run).is_some()), |run| {
                clear_known(run);
                // By the core that stored.
                tier.drain();
            });
        }
        for run in self.range.runs() {
            match known(&run) {
                Some(owner) => {
                    if !wide {
                        clear_known(&run);
                    }
                    let (first, count) = (run.first, run.slots.len() as u64);
                    run.recount(count, 0, None);
                    run.segment.set_write_only(run.at, run.slots.len(), false);
                    gone(Gone::Known { first, count, live: count, owner });
                }
                None if run.segment.live() == 0 && stream => {
                    tier.clear_streaming(run.slots);
                }
                None => run.tiles().for_each(|tile| {
                    clear(tier, &tile, &mut |old| gone(Gone::Look(old)));
                }),
            }
        }
        if stream {
            tier.drain();
        }
        self.range.steps
    }
}

/// Entries from which on a clear does not read what it clears, and does not bring it into the
/// caches: 64 MiB of table.
const STREAM: u64 = 8 << 20;

/// Clears a run whose segment is locked.
fn clear(tier: &Tier, run: &Run<'_>, old: &mut impl FnMut(&Old<'_>)) {
    if run.may_be_live() {
        let found = Old::of(tier, run);
        if found.summary.live > 0 {
            old(&found);
        }
        run.recount(found.summary.live, 0, None);
        run.segment.set_write_only(run.at, run.slots.len(), false);
    }
    // Empty entries may hold poison, so the stretch is cleared even if none is live.
    tier.clear(run.slots);
}
