// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One entry: the path of its own that a single page takes.

use std::ops::Deref;

use super::segment::Segment;
use super::tree::Tree;
use crate::mem::Stretch;
use crate::sync::{Arc, Ordering, Slot, Who};
use crate::tce::Tce;

/// One entry, whose segment belongs to who has this.
pub(crate) struct Entry<'a> {
    slot: &'a Slot,
    segment: &'a Segment,
    /// Place in the segment.
    at: usize,
}

impl Entry<'_> {
    /// The entry.
    #[inline(always)]
    pub(crate) fn get(&self) -> Tce {
        Tce::from_be_word(self.slot.load(Ordering::Relaxed))
    }

    /// The entry as a stretch.
    pub(super) fn slots(&self) -> &[Slot] {
        std::slice::from_ref(self.slot)
    }

    /// True if the entry is as a table is made. Another may be empty too: see [`Tce::is_empty`].
    #[inline(always)]
    pub(crate) fn is_zero(&self) -> bool {
        self.slot.load(Ordering::Relaxed) == 0
    }

    /// Whose the entry is if it is live, where the table knows.
    #[inline(always)]
    pub(crate) fn owner(&self) -> Option<usize> {
        self.segment.owner()
    }

    /// Clears the entry, which was live, if it is known to be `owner`'s, and nothing else is to do.
    #[inline(always)]
    pub(crate) fn clear_of(&self, owner: usize) -> bool {
        let plain = self.segment.one_less_of(owner);
        if plain {
            self.slot.store(Tce::EMPTY.to_be_word(), Ordering::Relaxed);
        }
        plain
    }

    /// Fills the entry, which was empty, for `owner`.
    #[inline(always)]
    pub(crate) fn fill(&self, tce: Tce, owner: usize, write_only: bool) {
        self.slot.store(tce.to_be_word(), Ordering::Relaxed);
        if write_only || !self.segment.one_more_of(self.at, owner) {
            self.segment.filled(self.at, owner, write_only);
        }
    }

    /// Clears the entry, which was live or not.
    #[inline(always)]
    pub(crate) fn clear(&self, was_live: bool) {
        self.slot.store(Tce::EMPTY.to_be_word(), Ordering::Relaxed);
        self.segment.some_less(u64::from(was_live));
        self.segment.set_write_only(self.at, 1, false);
    }

    /// Says that `count` entries from this one on were cleared, of which `live` were live.
    pub(crate) fn cleared(&self, count: usize, live: u64) {
        self.segment.some_less(live);
        self.segment.set_write_only(self.at, count, false);
    }

    /// True if what was there before may be cached still.
    #[inline]
    pub(crate) fn in_debt(&self) -> bool {
        let mut some = false;
        self.segment.in_debt(self.at..self.at + 1, |_, _| some = true);
        some
    }

    /// The same of any entry of its line of so many.
    pub(crate) fn line_in_debt(&self, line: u32) -> bool {
        let mut some = false;
        let first = self.at & !(line as usize - 1);
        self.segment.in_debt(first..first + line as usize, |_, _| some = true);
        some
    }

    /// True if `count` entries from this one on can be marked as the debtor's.
    #[inline]
    pub(crate) fn may_mark(&self, count: usize, debtor: u32) -> bool {
        self.segment.may_mark(self.at..self.at + count, debtor)
    }

    /// Marks `count` entries from the one that is `skip` behind this one.
    #[inline]
    pub(crate) fn mark_debt(&self, skip: usize, count: usize, debtor: u32) {
        let first = self.at + skip;
        self.segment.mark_debt(first..first + count, debtor);
    }

    /// Writes the entry, which was `old`; `owner` says whose it is from now on.
    #[inline]
    pub(crate) fn set(&self, old: Tce, tce: Tce, owner: Option<usize>, write_only: bool) {
        self.slot.store(tce.to_be_word(), Ordering::Relaxed);
        let live = |tce: Tce| u64::from(!tce.is_empty());
        self.segment.recount(self.at..self.at + 1, live(old), live(tce), owner);
        self.segment.set_write_only(self.at, 1, write_only);
    }
}

/// One entry whose segment is locked. Dropping it lets others in.
#[must_use]
pub(crate) struct One<'a> {
    entry: Entry<'a>,
    user: User,
}

/// Who works on one entry.
#[derive(Clone, Copy)]
pub(crate) struct User {
    pub(crate) who: Who,
    /// Times in a row that this thread has locked the entry's segment.
    pub(crate) streak: u32,
}

impl User {
    pub(crate) const ANYONE: Self = Self { who: Who::ANYONE, streak: 0 };
}

impl<'a> One<'a> {
    #[inline]
    pub(super) fn lock(tree: &'a Tree, index: u64, user: User) -> Option<Self> {
        let (slot, segment, at) = tree.slot(index)?;
        segment.lock_alone(user.who, tree.turns());
        Some(Self { entry: Entry { slot, segment, at }, user })
    }
}

impl<'a> Deref for One<'a> {
    type Target = Entry<'a>;

    #[inline]
    fn deref(&self) -> &Entry<'a> {
        &self.entry
    }
}

impl Drop for One<'_> {
    #[inline]
    fn drop(&mut self) {
        self.entry.segment.unlock_to(self.user.who, self.user.streak);
    }
}

/// One segment, looked up once. Good as long as its table is; it keeps the memory in any case.
#[derive(Clone)]
pub(crate) struct Lane {
    pub(super) segment: Arc<Segment>,
    pub(super) slots: Stretch,
    /// Number in the table of the first entry.
    pub(super) first: u64,
}

impl Lane {
    /// Of no table: it has no entries.
    pub(crate) fn nowhere() -> Self {
        Self { segment: Arc::new(Segment::new()), slots: Stretch::default(), first: 0 }
    }

    /// Number in the table of the first entry.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Number of entries.
    #[inline(always)]
    pub(crate) fn entries(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The same segment, with no more than its first `count` entries.
    pub(crate) fn of_first(&self, count: u64) -> Self {
        let slots = self.slots.first(usize::try_from(count).unwrap_or(usize::MAX));
        Self { segment: self.segment.clone(), slots, first: self.first }
    }

    /// Entries by their place in the segment, for who has an entry of it.
    pub(crate) fn run(&self, at: usize, count: usize) -> &[Slot] {
        &self.slots[at..][..count]
    }

    /// The same of those that share a line of so many with one.
    pub(crate) fn line(&self, at: usize, line: u32) -> &[Slot] {
        self.run(at & !(line as usize - 1), line as usize)
    }

    /// An entry by its place in the segment, if that is left to `who`, who is inside and does not
    /// wait for any lock.
    #[inline(always)]
    pub(crate) fn entry(&self, who: Who, at: usize) -> Option<Entry<'_>> {
        let slot = self.slots.get(at)?;
        if !self.segment.is_biased_to(who) {
            return None;
        }
        Some(Entry { slot, segment: &self.segment, at })
    }
}
