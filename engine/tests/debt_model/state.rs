// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What there is: the table and its marks, the books, who is on the way, and what bridges have cached.

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

/// What a call comes to next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) enum Step {
    /// Nobody is on the way.
    #[default]
    Idle,
    /// Under the segment's lock: the next entry is stored.
    Store,
    /// Under the lock once more, by one of the mistakes only.
    MarkLate,
    /// One store to a kill register.
    Kill,
    /// Waits for accesses that were in flight.
    Fence,
    /// Under the lock: the marks of what is retired are reset.
    Unmark,
    /// Mapped counts and IOBAs go back.
    Release,
}

/// A call on its way, or a change of the structure on its.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Way {
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
    /// `unmap_free`: the IOBAs go back.
    pub(crate) back: bool,
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

impl Way {
    pub(crate) fn idle(&self) -> bool {
        self.step == Step::Idle
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Handle {
    pub(crate) way: Way,
    pub(crate) ring: Ring,
}

/// Changes of the structure; whoever makes them holds `Container::state` alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) enum Change {
    /// Debts are retired and nothing else: what a timer of the embedder's asks for.
    #[default]
    Retire,
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
    /// Its window is unset, and it is not killed yet.
    Leaving,
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
    pub(crate) writer: Way,
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

/// Whose way it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Who {
    Handle(usize),
    Writer,
}

impl State {
    pub(crate) fn way(&self, who: Who) -> &Way {
        match who {
            Who::Handle(h) => &self.handles[h].way,
            Who::Writer => &self.writer,
        }
    }

    pub(crate) fn way_mut(&mut self, who: Who) -> &mut Way {
        match who {
            Who::Handle(h) => &mut self.handles[h].way,
            Who::Writer => &mut self.writer,
        }
    }

    pub(crate) fn everybody() -> impl Iterator<Item = Who> {
        (0..HANDLES).map(Who::Handle).chain([Who::Writer])
    }

    /// A handle's callers are told that all devices find what the table says, unless somebody else
    /// has been at the entry.
    pub(crate) fn promise(&mut self, h: usize, e: usize) {
        if self.filler[e].take_if(|of| usize::from(*of) == h).is_some() && self.table[e].is_some() {
            self.promised.add(e);
        }
    }

    /// The same but for the names of handles and pages, of which none is special: each state has one
    /// representative, so that the checker sees a quarter of them.
    pub(crate) fn representative(self) -> Self {
        let handles = self.with_handles_swapped();
        let least = if handles < self { handles } else { self };
        [self, handles].into_iter().map(Self::with_pages_swapped).fold(least, Self::min)
    }

    fn with_handles_swapped(mut self) -> Self {
        let other = |h: u8| 1 - h;
        self.handles.reverse();
        State::everybody().for_each(|who| self.way_mut(who).retires.reverse());
        self.debtors = self.debtors.map(|h| h.map(other));
        self.filler = self.filler.map(|h| h.map(other));
        self.lock = self.lock.map(other);
        self
    }

    fn with_pages_swapped(mut self) -> Self {
        let other = |page: Page| 1 - page;
        self.table = self.table.map(|tce| tce.map(other));
        self.counts.reverse();
        self.pinned = self.pinned.iter().map(|page| 1 - page).collect();
        for who in State::everybody() {
            let way = self.way_mut(who);
            way.owed.reverse();
            way.fill = way.fill.map(other);
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

    /// Entries that calls are on their way to change.
    pub(crate) fn busy(&self) -> Set {
        self.handles.iter().fold(Set::NONE, |busy, handle| busy.with(handle.way.run))
    }

    pub(crate) fn live(&self) -> Set {
        (0..ENTRIES).filter(|e| self.table[*e].is_some()).collect()
    }

    pub(crate) fn members(&self) -> Set {
        (0..PES).filter(|pe| self.pes[*pe].member == Member::Yes).collect()
    }

    /// The records that somebody on his way retires, each with whose it is.
    pub(crate) fn retired(&self, who: Who) -> Vec<(usize, Record)> {
        let of = |h: usize| {
            let n = self.way(who).retires[h].into();
            self.handles[h].ring.iter().take(n).map(move |record| (h, record))
        };
        (0..HANDLES).flat_map(of).collect()
    }
}
