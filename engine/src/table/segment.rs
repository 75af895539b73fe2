// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a table keeps beside its entries: per stretch of a leaf a lock, the number of live entries,
//! in which tiles they may be, whose they are if all are the same one's and, made on first use, which
//! of them were asked for as write-only.

use std::hint::cold_path;
use std::ops::Range;
use std::sync::OnceLock;

use super::marks::Marks;
use crate::sync::{Arc, AtomicU32, AtomicU64, BiasLock, Ordering, Turns, Who};

/// log2 of the most entries under one lock: 64 KiB of table, and a whole leaf on most hosts. Miri takes
/// a minute for so many.
pub(crate) const SEGMENT_LG2: u32 = if cfg!(miri) { 10 } else { 13 };

/// log2 of the entries of a tile, which stay in the innermost cache from one pass to the next: 8 KiB.
pub(super) const TILE_LG2: u32 = SEGMENT_LG2 - 3;

/// After so many times, only a million calls in a row get a lock left to them.
const MOST_TAKEN: u32 = 19;

/// Live entries of more than one owner, or of nobody knows whom.
const MIXED: u32 = u32::MAX >> 1;

/// In a segment's state: there are write-only bits.
const MARKED: u64 = 1 << 63;
/// In a segment's state: whose all live entries are, or [`MIXED`].
const WHOSE: u64 = (MIXED as u64) << 32;
/// In a segment's state: the number of live entries.
const LIVE: u64 = 0xffff;
/// First of the state's bits for tiles, one each.
const TILES: u32 = 16;
// A full segment's count, and a bit for each of its tiles, below the owner.
const _: () = assert!(1 << SEGMENT_LG2 <= LIVE && TILES + (1 << (SEGMENT_LG2 - TILE_LG2)) <= 32);

/// State of up to `1 << SEGMENT_LG2` consecutive entries of one leaf.
#[repr(align(64))]
pub(crate) struct Segment {
    lock: BiasLock,
    /// From the lowest bit on: live entries, 16 bits; for each tile whether one may be in it, which is
    /// sure to be none where the bit is 0. In the high half [`MARKED`], and whose they all are, or
    /// [`MIXED`]. Tiles and owner are of no meaning if none is live. Written by the lock's holder only.
    state: AtomicU64,
    /// Times that the lock was taken from who had it without taking it, up to a limit.
    taken_away: AtomicU32,
    write_only: OnceLock<Box<[AtomicU64]>>,
    /// Made by the first debt.
    marks: OnceLock<Box<Marks>>,
}

/// The state's bits for the tiles that the entries `at`, which are some, lie in.
#[inline(always)]
fn touched(at: &Range<usize>) -> u64 {
    ((2 << ((at.end - 1) >> TILE_LG2)) - (1 << (at.start >> TILE_LG2))) << TILES
}

/// The state's bits for the tiles that lie in `at`.
#[inline(always)]
fn covered(at: &Range<usize>) -> u64 {
    let (from, to) = (at.start.div_ceil(1 << TILE_LG2), at.end >> TILE_LG2);
    ((1 << to.max(from)) - (1 << from)) << TILES
}

/// Those of one chunk. Each can be kept by itself.
pub(super) type Segments = Box<[Arc<Segment>]>;

/// True if all live entries are known to be `owner`'s and there are no write-only bits: one comparison
/// for both.
#[inline(always)]
fn is_plain(state: u64, owner: usize) -> bool {
    state >> 32 == owner as u64
}

impl Segment {
    pub(super) fn new() -> Self {
        Self {
            lock: BiasLock::new(),
            state: AtomicU64::new(WHOSE),
            taken_away: AtomicU32::new(0),
            write_only: OnceLock::new(),
            marks: OnceLock::new(),
        }
    }

    /// Takes the lock. True if `turns` have to be waited for before anything is touched; for that
    /// segments can be collected.
    #[inline]
    #[must_use]
    pub(super) fn lock(&self, who: Who) -> bool {
        let taken_away = self.lock.acquire(who);
        if taken_away {
            let times = self.taken_away.load(Ordering::Relaxed);
            self.taken_away.store((times + 1).min(MOST_TAKEN), Ordering::Relaxed);
        }
        taken_away
    }

    /// The same for this segment alone.
    #[inline]
    pub(super) fn lock_alone(&self, who: Who, turns: &Turns) {
        if self.lock(who) {
            turns.wait_until_not_relying();
        }
    }

    #[inline]
    pub(super) fn unlock(&self) {
        self.lock.release();
    }

    /// Leaves the lock to its holder, who has taken it `streak` times in a row, if that is enough:
    /// the more, the oftener it had to be taken away from someone.
    pub(super) fn unlock_to(&self, who: Who, streak: u32) {
        let enough = 2 << self.taken_away.load(Ordering::Relaxed);
        if who.is_registered() && streak >= enough {
            self.lock.release_to(who);
        } else {
            self.lock.release();
        }
    }

    /// True if `who`, who is inside and does not wait, has it without taking it.
    #[inline]
    pub(super) fn is_biased_to(&self, who: Who) -> bool {
        self.lock.is_biased_to(who)
    }

    /// Live entries; exact for the lock's holder.
    #[inline]
    pub(super) fn live(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & LIVE
    }

    /// For the lock's holder: false if none of the entries `at` is live; they are some.
    #[inline]
    pub(super) fn may_be_live(&self, at: Range<usize>) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state & LIVE != 0 && state & touched(&at) != 0
    }

    /// For the lock's holder: whose all live entries are, if that is one's and known.
    #[inline]
    pub(super) fn owner(&self) -> Option<usize> {
        let owner = ((self.state.load(Ordering::Relaxed) & !MARKED) >> 32) as u32;
        (owner != MIXED).then_some(owner as usize)
    }

    /// For the lock's holder: the entries `at`, of which `before` were live, were written, and
    /// `after` of them, `owner`'s, are live now.
    #[inline]
    pub(super) fn recount(&self, at: Range<usize>, before: u64, after: u64, owner: Option<usize>) {
        self.some_less(before);
        if after > 0 {
            self.some_more(touched(&at), after, owner.map_or(MIXED, |owner| owner as u32));
        } else {
            let old = self.state.load(Ordering::Relaxed);
            self.state.store(old & !covered(&at), Ordering::Relaxed);
        }
        debug_assert!(self.live() <= 1 << SEGMENT_LG2);
    }

    /// [`Segment::recount`] for entry `at`, which was empty, if all are known to be `owner`'s and there
    /// are no write-only bits. False if not: nothing was done.
    #[inline(always)]
    pub(super) fn one_more_of(&self, at: usize, owner: usize) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        // Whose none are has no meaning, and neither has where they may be, so both may be kept.
        let plain = is_plain(state, owner);
        if plain {
            let tile = 1 << ((at >> TILE_LG2) + TILES as usize);
            self.state.store((state | tile) + 1, Ordering::Relaxed);
        }
        plain
    }

    /// The same for a live entry that goes.
    #[inline(always)]
    pub(super) fn one_less_of(&self, owner: usize) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        let plain = is_plain(state, owner);
        if plain {
            debug_assert!(self.live() > 0);
            self.state.store(state - 1, Ordering::Relaxed);
        }
        plain
    }

    /// The entry at `at`, which was empty, became `owner`'s.
    #[cold]
    #[inline(never)]
    pub(super) fn filled(&self, at: usize, owner: usize, write_only: bool) {
        self.recount(at..at + 1, 0, 1, Some(owner));
        self.set_write_only(at, 1, write_only);
    }

    #[inline(always)]
    fn some_more(&self, tiles: u64, after: u64, owner: u32) {
        let mut state = self.state.load(Ordering::Relaxed);
        let mine = u64::from(owner) << 32;
        let all_mine = state & WHOSE == mine && state & LIVE != 0;
        if !all_mine {
            cold_path();
            let none = state & LIVE == 0;
            state = if none { state & MARKED | mine } else { state | WHOSE };
        }
        self.state.store((state | tiles) + after, Ordering::Relaxed);
    }

    /// [`Segment::recount`] for entries that go.
    #[inline(always)]
    pub(super) fn some_less(&self, before: u64) {
        debug_assert!(before <= self.live());
        self.state.store(self.state.load(Ordering::Relaxed) - before, Ordering::Relaxed);
    }

    /// For the lock's holder: remembers for `count` entries from `at` whether they are write-only.
    #[inline]
    pub(super) fn set_write_only(&self, at: usize, count: usize, yes: bool) {
        if yes || self.state.load(Ordering::Relaxed) & MARKED != 0 {
            self.mark(at, count, yes);
        }
    }

    fn mark(&self, at: usize, count: usize, yes: bool) {
        let bits = match (self.write_only.get(), yes) {
            (None, false) => return,
            (Some(bits), _) => bits,
            (None, true) => self
                .write_only
                .get_or_init(|| (0..1 << (SEGMENT_LG2 - 6)).map(|_| AtomicU64::new(0)).collect()),
        };
        self.state.store(self.state.load(Ordering::Relaxed) | MARKED, Ordering::Relaxed);
        let (mut at, end) = (at, at + count);
        while at < end {
            let in_word = (64 - at % 64).min(end - at);
            let mask = (!0u64 >> (64 - in_word)) << (at % 64);
            let word = bits[at / 64].load(Ordering::Relaxed);
            let word = if yes { word | mask } else { word & !mask };
            bits[at / 64].store(word, Ordering::Relaxed);
            at += in_word;
        }
    }

    /// For the lock's holder: calls `f` with the first and the number of those in a row, of the entries
    /// `at`, that are in debt.
    #[inline]
    pub(super) fn in_debt(&self, at: Range<usize>, f: impl FnMut(usize, usize)) {
        if let Some(marks) = self.marks.get() {
            marks.each(at, f);
        }
    }

    /// For the lock's holder: true if the entries `at` can be marked as the debtor's.
    #[inline]
    pub(super) fn may_mark(&self, at: Range<usize>, debtor: u32) -> bool {
        self.marks.get().is_none_or(|marks| marks.are_free(at, debtor))
    }

    /// For the lock's holder: the entries `at`, which can be marked, are in debt.
    pub(super) fn mark_debt(&self, at: Range<usize>, debtor: u32) {
        self.marks.get_or_init(|| Box::new(Marks::new())).set(at, debtor);
    }

    /// For the lock's holder: those of the entries `at` that the debtor has marked are in debt no more.
    pub(super) fn unmark(&self, at: Range<usize>, debtor: u32) {
        if let Some(marks) = self.marks.get() {
            marks.reset(at, debtor);
        }
    }

    pub(super) fn write_only(&self, at: usize) -> bool {
        self.write_only
            .get()
            .is_some_and(|bits| bits[at / 64].load(Ordering::Relaxed) >> (at % 64) & 1 != 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_known_while_all_are_his() {
        let segment = Segment::new();
        assert_eq!(segment.owner(), None);
        segment.recount(0..5, 0, 5, Some(3));
        segment.recount(5..7, 0, 2, Some(3));
        assert_eq!((segment.live(), segment.owner()), (7, Some(3)));
        segment.recount(6..7, 1, 1, Some(4));
        assert_eq!((segment.live(), segment.owner()), (7, None));
        segment.recount(5..7, 2, 0, None);
        assert_eq!(segment.owner(), None, "the rest may be of both");
        segment.recount(0..5, 5, 1, Some(4));
        assert_eq!((segment.live(), segment.owner()), (1, Some(4)), "nobody else is left");
        segment.recount(5..6, 0, 1, None);
        assert_eq!(segment.owner(), None);
        segment.some_less(2);
        assert!(
            !segment.one_more_of(0, 7),
            "none is live, but it is not known whose they would be"
        );
        segment.recount(0..1, 0, 1, Some(7));
        assert!(segment.one_more_of(1, 7));
        assert!(!segment.one_more_of(2, 8) && !segment.one_less_of(8));
        assert_eq!((segment.live(), segment.owner()), (2, Some(7)));
        assert!(segment.one_less_of(7) && segment.one_less_of(7) && segment.one_more_of(0, 7));
        assert_eq!((segment.live(), segment.owner()), (1, Some(7)));
        segment.set_write_only(3, 1, true);
        assert!(
            !segment.one_more_of(1, 7) && !segment.one_less_of(7),
            "bits have to be looked after"
        );
        segment.recount(1..3, 0, 2, Some(7));
        assert_eq!((segment.live(), segment.owner()), (3, Some(7)));
        segment.recount(3..4, 0, 1, Some(8));
        assert_eq!((segment.live(), segment.owner()), (4, None));
    }

    #[test]
    fn a_tile_is_free_of_live_entries_once_it_was_cleared_whole() {
        const TILE: usize = 1 << TILE_LG2;
        const ALL: usize = 1 << SEGMENT_LG2;
        let segment = Segment::new();
        let marked = || {
            let tile = |n: usize| segment.may_be_live(n * TILE..(n + 1) * TILE);
            (0..ALL / TILE).filter(|n| tile(*n)).collect::<Vec<_>>()
        };
        assert_eq!(marked(), []);
        segment.recount(0..ALL, 0, ALL as u64, Some(0));
        assert_eq!(marked(), [0, 1, 2, 3, 4, 5, 6, 7]);
        segment.recount(TILE - 1..4 * TILE + 1, 3 * TILE as u64 + 2, 0, None);
        assert_eq!(marked(), [0, 4, 5, 6, 7], "of the first and the last a part is left");
        segment.recount(0..ALL - 1, 5 * TILE as u64 - 3, 0, None);
        assert_eq!(marked(), [7]);
        assert!(!segment.may_be_live(0..7 * TILE) && segment.may_be_live(0..7 * TILE + 1));
        assert!(segment.one_more_of(2 * TILE, 0) && segment.one_more_of(4 * TILE - 1, 0));
        assert_eq!(marked(), [2, 3, 7]);
        segment.some_less(3);
        assert_eq!(marked(), []);
        segment.recount(TILE..TILE + 1, 0, 1, Some(0));
        assert_eq!(marked(), [1], "the others were of no meaning");
        segment.recount(2 * TILE - 1..2 * TILE + 1, 0, 2, None);
        assert_eq!(marked(), [1, 2]);
        segment.recount(0..TILE, 0, 0, None);
        segment.recount(TILE..TILE + 1, 1, 0, None);
        assert_eq!(marked(), [1, 2], "one entry is not a tile");
    }

    #[test]
    fn write_only_bits_equal_a_plain_vector() {
        let segment = Segment::new();
        const ALL: usize = 1 << SEGMENT_LG2;
        let mut model = vec![false; ALL];
        segment.set_write_only(5, 100, false);
        assert!(segment.write_only.get().is_none(), "made on first use only");
        for (at, count, yes) in
            [(0, 1, true), (60, 8, true), (64, 64, true), (100, 4, false), (ALL - 192, 192, true)]
        {
            segment.set_write_only(at, count, yes);
            model[at..at + count].fill(yes);
            let bits: Vec<_> = (0..model.len()).map(|i| segment.write_only(i)).collect();
            assert_eq!(bits, model);
        }
    }
}
