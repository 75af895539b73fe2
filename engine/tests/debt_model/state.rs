// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What there is: the table and its marks, the books, what is under way, and what bridges have cached.

use std::fmt;

pub(crate) const ENTRIES: usize = 3;
pub(crate) const LINES: usize = 2;
pub(crate) const WORDS: usize = 2;
pub(crate) const PAGES: usize = 2;
pub(crate) const HANDLES: usize = 2;
pub(crate) const PES: usize = 2;
/// Records that a handle's ring has room for, at most.
pub(crate) const RING: usize = 3;

/// Numbers of entries, of PEs, and so on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Set(pub(crate) u8);

impl Set {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn of(n: usize) -> Self {
        Self(1 << n)
    }

    pub(crate) fn below(n: usize) -> Self {
        Self((1 << n) - 1)
    }

    pub(crate) fn has(self, n: usize) -> bool {
        self.0 >> n & 1 == 1
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }

    pub(crate) fn first(self) -> Option<usize> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as usize)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |n| self.has(*n))
    }

    pub(crate) fn add(&mut self, n: usize) {
        self.0 |= 1 << n;
    }

    pub(crate) fn remove(&mut self, n: usize) {
        self.0 &= !(1 << n);
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(all: I) -> Self {
        all.into_iter().fold(Self::NONE, |set, n| set.with(Self::of(n)))
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A page of a registration: each registration has one here.
pub(crate) type Page = u8;
/// An entry: the page that it leads to, or empty.
pub(crate) type Tce = Option<Page>;

/// A kill that is owed, and what may be given back after it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Record {
    pub(crate) entry: u8,
    /// Whose mapped count goes down: what was there.
    pub(crate) page: Option<Page>,
    /// The IOBA goes back to the stock.
    pub(crate) back: bool,
    /// For an entry that was filled, not cleared (Batched).
    pub(crate) fill: bool,
}

/// A handle's debts, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Ring([Option<Record>; RING]);

impl Ring {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Record> {
        self.0.iter().flatten().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(crate) fn push(&mut self, record: Record) {
        let place = self.0.iter_mut().find(|place| place.is_none());
        *place.expect("somebody looked for room") = Some(record);
    }

    pub(crate) fn drop_oldest(&mut self, n: usize) {
        self.0.rotate_left(n);
        self.0[RING - n..].fill(None);
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) enum Step {
    /// Nothing is under way.
    #[default]
    Idle,
    /// Under the segment's lock: the next entry is stored.
    Store,
    /// Under the lock once more, by one of the mistakes only.
    MarkLate,
    /// Bridges carry out what was stored to their kill registers.
    Kill,
    /// Accesses that were in flight at a kill come to their end.
    Fence,
    /// Under the lock: the marks of what is retired are reset.
    Unmark,
    /// Mapped counts and IOBAs go back.
    Release,
}

/// What is under way: a handle's call, or a change of the structure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Op {
    pub(crate) step: Step,
    /// The call's entries.
    pub(crate) run: Set,
    /// Those that are still to be stored.
    pub(crate) stores: Set,
    /// What they are filled with; `None` clears them.
    pub(crate) fill: Tce,
    /// Cleared without a mark, so that the kills of this call are all there will be.
    pub(crate) strict: bool,
    /// Entries whose change goes into the ring.
    pub(crate) queued: Set,
    /// For each PE, pages that are still to be killed.
    pub(crate) kills: [Set; PES],
    /// PEs with an access that was in flight at a kill.
    pub(crate) waits: Set,
    /// For each handle, how many of its records, oldest first, are retired with this.
    pub(crate) retires: [u8; HANDLES],
    /// Mapped counts that go down after the fence, beside those of the records.
    pub(crate) owed: [u8; PAGES],
    /// IOBAs that go back, beside those of the records.
    pub(crate) freed: Set,
    /// What is owed has been released.
    pub(crate) released: bool,
}

impl Op {
    pub(crate) fn idle(&self) -> bool {
        self.step == Step::Idle
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Handle {
    pub(crate) op: Op,
    pub(crate) ring: Ring,
}

/// Changes of the structure; whoever makes them holds `Container::state` alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) enum Change {
    /// Debts are retired and nothing else: what a timer of the embedder's asks for.
    #[default]
    Retire,
    /// A handle's oldest record alone is.
    RetireOldest(u8),
    Unregister(Page),
    Join(u8),
    Leave(u8),
}

/// What a bridge holds of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) enum Cached {
    #[default]
    No,
    Entry(Tce),
    /// Of somebody else's table, from the time when the PE was his.
    Foreign,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) enum Member {
    #[default]
    No,
    Yes,
    /// Without a window: the last one's is unset, the next one's is not set yet.
    Bare,
}

/// A PE, the device behind it, and its part of the bridge's TCE cache.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Pe {
    pub(crate) member: Member,
    pub(crate) cache: [Cached; ENTRIES],
    /// The page that an access has been translated to, until the device has done with it.
    pub(crate) flight: Tce,
}

impl Pe {
    /// Pages that the device can get at without a look at the table, or has got at.
    pub(crate) fn reaches(&self) -> impl Iterator<Item = Page> {
        let cached = self.cache.iter().filter_map(|cached| match cached {
            Cached::Entry(tce) => *tce,
            _ => None,
        });
        cached.chain(self.flight)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct State {
    pub(crate) table: [Tce; ENTRIES],
    /// Entries in debt.
    pub(crate) marks: Set,
    /// Whose the marks of a word are.
    pub(crate) debtors: [Option<u8>; WORDS],
    /// The segment's lock, where it is held for longer than a step.
    pub(crate) lock: Option<u8>,
    /// Mapped counts.
    pub(crate) counts: [i8; PAGES],
    /// Registrations: their pages are pinned.
    pub(crate) pinned: Set,
    /// How often an IOBA is in the allocator's stock: once, or not at all.
    pub(crate) stock: [u8; ENTRIES],
    /// IOBAs that the callers have, mapped or not.
    pub(crate) held: Set,
    pub(crate) handles: [Handle; HANDLES],
    pub(crate) writer: Op,
    pub(crate) change: Change,
    pub(crate) pes: [Pe; PES],
    // Nothing in the engine: what its callers have been told.
    /// Entries of which it was promised that every device finds what the table says.
    pub(crate) promised: Set,
    /// Whose promise it will be.
    pub(crate) filler: [Option<u8>; ENTRIES],
    /// A registration was said to be in use without an entry that leads there.
    pub(crate) refused: bool,
}

/// Whose op it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Actor {
    Handle(usize),
    Writer,
}

impl State {
    pub(crate) fn op(&self, actor: Actor) -> &Op {
        match actor {
            Actor::Handle(h) => &self.handles[h].op,
            Actor::Writer => &self.writer,
        }
    }

    pub(crate) fn op_mut(&mut self, actor: Actor) -> &mut Op {
        match actor {
            Actor::Handle(h) => &mut self.handles[h].op,
            Actor::Writer => &mut self.writer,
        }
    }

    pub(crate) fn everybody() -> impl Iterator<Item = Actor> {
        (0..HANDLES).map(Actor::Handle).chain([Actor::Writer])
    }

    pub(crate) fn retired_entries(&self, actor: Actor) -> Set {
        self.retired(actor).iter().map(|(_, record)| record.entry.into()).collect()
    }

    /// A handle's callers are told that all devices find what the table says, unless somebody else
    /// has been at the entry.
    pub(crate) fn promise(&mut self, h: usize, e: usize) {
        if self.filler[e].take_if(|of| usize::from(*of) == h).is_some() && self.table[e].is_some() {
            self.promised.add(e);
        }
    }

    /// The same but for the names of handles and pages, of which none is special: it stands for up to
    /// four states, so that the checker sees a quarter of them.
    pub(crate) fn representative(self, pages: bool) -> Self {
        let least = self.min(self.with_handles_swapped());
        if !pages {
            return least;
        }
        let other = self.with_pages_swapped();
        least.min(other).min(other.with_handles_swapped())
    }

    fn with_handles_swapped(mut self) -> Self {
        let other = |h: u8| 1 - h;
        self.handles.reverse();
        State::everybody().for_each(|actor| self.op_mut(actor).retires.reverse());
        self.debtors = self.debtors.map(|h| h.map(other));
        self.filler = self.filler.map(|h| h.map(other));
        self.lock = self.lock.map(other);
        if let Change::RetireOldest(h) = &mut self.change {
            *h = other(*h);
        }
        self
    }

    fn with_pages_swapped(mut self) -> Self {
        let other = |page: Page| 1 - page;
        self.table = self.table.map(|tce| tce.map(other));
        self.counts.reverse();
        self.pinned = self.pinned.iter().map(|page| 1 - page).collect();
        for actor in State::everybody() {
            let op = self.op_mut(actor);
            op.owed.reverse();
            op.fill = op.fill.map(other);
        }
        for handle in &mut self.handles {
            for record in handle.ring.0.iter_mut().flatten() {
                record.page = record.page.map(other);
            }
        }
        if let Change::Unregister(page) = &mut self.change {
            *page = other(*page);
        }
        for pe in &mut self.pes {
            pe.flight = pe.flight.map(other);
            for cached in &mut pe.cache {
                if let Cached::Entry(Some(page)) = cached {
                    *page = other(*page);
                }
            }
        }
        self
    }

    /// True if nothing is under way, so that `Container::state` can be held alone.
    pub(crate) fn alone(&self) -> bool {
        State::everybody().all(|actor| self.op(actor).idle())
    }

    /// Entries that calls are on their op to change.
    pub(crate) fn busy(&self) -> Set {
        self.handles.iter().fold(Set::NONE, |busy, handle| busy.with(handle.op.run))
    }

    pub(crate) fn live(&self) -> Set {
        (0..ENTRIES).filter(|e| self.table[*e].is_some()).collect()
    }

    pub(crate) fn members(&self) -> Set {
        (0..PES).filter(|pe| self.pes[*pe].member == Member::Yes).collect()
    }

    /// The records that an actor retires with what is under way, each with whose it is.
    pub(crate) fn retired(&self, actor: Actor) -> Vec<(usize, Record)> {
        let of = |h: usize| {
            let n = self.op(actor).retires[h].into();
            self.handles[h].ring.iter().take(n).map(move |record| (h, record))
        };
        (0..HANDLES).flat_map(of).collect()
    }
}
