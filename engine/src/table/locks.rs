// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ranges that are locked: all segments of all their parts, ascending.

use super::tree::{Run, Step, Tree};
use super::{Old, TceTable};
use crate::simd::Tier;
use crate::sync::RwLockReadGuard;
use crate::tce::Tce;

/// The locks of the segments that hold some parts of a table. What is absent stays so for as long as
/// this lives: either nothing is, or no level can be added, or it is one absent segment.
pub(super) struct Locked<'a> {
    tree: &'a Tree,
    /// First entry and number of entries of the stretch that is locked.
    hull: (u64, u64),
    /// Further stretches, none of which shares a segment with another.
    more: Vec<(u64, u64)>,
    /// What was asked for inside the stretches, if that is not all of them.
    parts: Box<[(u64, u64)]>,
    /// Segments that were locked.
    runs: u64,
    /// Steps of the walk.
    steps: u64,
}

impl<'a> Locked<'a> {
    pub(super) fn new(tree: &'a Tree, first: u64, count: u64) -> Self {
        Self::lock(tree, (first, count), Vec::new(), Box::default())
    }

    pub(super) fn parts(tree: &'a Tree, parts: &[(u64, u64)]) -> Self {
        let mut more: Vec<(u64, u64)> = Vec::new();
        let mut hull = *parts.first().expect("at least one part");
        for &(first, count) in &parts[1..] {
            let last = more.last_mut().unwrap_or(&mut hull);
            assert!(first >= last.0 + last.1, "parts are ascending and disjoint");
            // A segment has one lock, whatever number of parts are in it.
            if tree.one_segment(last.0 + last.1 - 1, first + 1 - (last.0 + last.1 - 1)) {
                last.1 = first + count - last.0;
            } else {
                more.push((first, count));
            }
        }
        Self::lock(tree, hull, more, parts.into())
    }

    fn lock(
        tree: &'a Tree,
        hull: (u64, u64),
        more: Vec<(u64, u64)>,
        parts: Box<[(u64, u64)]>,
    ) -> Self {
        let mut range = Self { tree, hull, more, parts, runs: 0, steps: 0 };
        // Ascending, in every thread, so that no two can wait for each other.
        for i in 0..=range.more.len() {
            let (first, count) = if i == 0 { hull } else { range.more[i - 1] };
            for step in tree.walk(first, count) {
                range.steps += 1;
                if let Step::Run(run) = step {
                    run.segment.lock();
                    range.runs += 1;
                }
            }
        }
        range
    }

    /// What was asked for: first entry and number of entries of each part.
    pub(super) fn asked(&self) -> &[(u64, u64)] {
        if self.parts.is_empty() { std::slice::from_ref(&self.hull) } else { &self.parts }
    }

    /// Clears a part of what is locked.
    pub(super) fn forget(&self, tier: &Tier, part: (u64, u64), mut old: impl FnMut(&Old<'_>)) {
        self.walk(&[part]).for_each(|run| clear(tier, &run, &mut old));
    }

    /// The stretches of what was asked for; all are locked.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run<'a>> {
        self.walk(self.asked())
    }

    fn walk(&self, stretches: &[(u64, u64)]) -> impl Iterator<Item = Run<'a>> {
        // Counted, because a single absent segment may have appeared since.
        let any = self.runs > 0;
        let tree = self.tree;
        stretches
            .iter()
            .flat_map(move |(first, count)| tree.walk(*first, if any { *count } else { 0 }))
            .filter_map(|step| match step {
                Step::Run(run) => Some(run),
                Step::Absent => None,
            })
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.walk(std::slice::from_ref(&self.hull)).for_each(|run| run.segment.unlock());
        self.walk(&self.more).for_each(|run| run.segment.unlock());
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
        for run in self.range.runs().filter(|run| run.segment.live() > 0) {
            let summary = self.table.tier.scan(run.slots);
            if summary.live > 0 {
                f(&Old { first: run.first, slots: run.slots, summary });
            }
        }
    }

    /// First entry and number of entries of each part.
    #[must_use]
    pub fn parts(&self) -> &[(u64, u64)] {
        self.range.asked()
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
}

/// Clears a run whose segment is locked.
fn clear(tier: &Tier, run: &Run<'_>, old: &mut impl FnMut(&Old<'_>)) {
    if run.segment.live() > 0 {
        let summary = tier.scan(run.slots);
        if summary.live > 0 {
            old(&Old { first: run.first, slots: run.slots, summary });
        }
        run.segment.recount(summary.live, 0);
        run.segment.set_write_only(run.at, run.slots.len(), false);
    }
    // Empty entries may hold poison, so the stretch is cleared even if none is live.
    tier.store(run.slots, Tce::EMPTY);
}
