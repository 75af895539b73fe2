// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ranges of entries that await a kill, in any order, and the fewest ranges that say the same.

use std::slice;

/// Up to so many ranges are sorted as they are.
const FEW: usize = 8;
/// Up to so many are sorted by rank, ...
const RANKED: usize = 64;
/// ... if their span has at most so many entries.
const RANKED_SPAN: u64 = 1 << 25;
/// More ranges are put into a bitmap if their span has at most so many entries, ...
const BITMAP_SPAN: u64 = 1 << 20;
/// ... and at most so many for each range: beyond that, finding them takes longer than to sort.
///
/// ns for each random range from push to result, sorted / by bitmap; minima on a shared 2-core Xeon
/// (Sapphire Rapids), the two interleaved:
///
/// | ranges | span 2^12 | 2^16 | 2^18 | 2^20 |
/// |---|---|---|---|---|
/// | 16 | 6.3 / 7.6 | 6.3 / 9.9 | 6.5 / 15 | 6.4 / 21 |
/// | 64 | 8.4 / 8.5 | 8.4 / 7.8 | 8.4 / 11 | 8.3 / 15 |
/// | 128 | 6.7 / 8.1 | 8.5 / 6.9 | 7.9 / 8.2 | 7.8 / 13 |
/// | 256 | 6.2 / 6.6 | 7.8 / 6.6 | 7.1 / 7.2 | 7.0 / 9.9 |
/// | 1024 | 6.9 / 5.0 | 7.3 / 7.6 | 6.6 / 6.2 | 6.4 / 7.0 |
/// | 4096 | 7.1 / 4.4 | 8.1 / 7.0 | 7.4 / 7.9 | 7.1 / 6.7 |
const BITMAP_DENSITY: u64 = 1024;

/// Bits of a digit where keys are sorted by digits, ...
const DIGIT: u32 = 7;
/// ... which is faster from so many ranges for each digit on.
const DIGIT_RANGES: usize = 32;

const WORD: u64 = u64::BITS as u64;

/// Collects ranges of entries, merges what overlaps or follows, and keeps its memory for the next
/// time. A new one has no memory, and one range needs none.
#[derive(Debug, Default)]
pub struct Coalescer {
    /// The range that grows: its first entry and its end, the same if there is none.
    open: (u64, u64),
    /// First entry and end of all others.
    ranges: Vec<(u64, u64)>,
    /// `ranges` are not ascending, or not apart.
    unsorted: bool,
    /// [`pages`](Self::pages), less the entries of `open`: so a range that follows the last one
    /// needs nothing that was just stored. Wraps below 0.
    more: u64,
    scratch: Option<Box<Scratch>>,
}

/// What only many ranges need.
#[derive(Debug, Default)]
struct Scratch {
    keys: Vec<u64>,
    /// As many as there are keys, while they are sorted by digits.
    spare: Vec<u64>,
    bitmap: Bitmap,
}

impl Coalescer {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `count` entries from entry number `first` on, of which `invalid` have to be
    /// invalidated. A range that follows the last one, or begins in it, becomes part of that.
    #[inline]
    pub fn push(&mut self, first: u64, count: u64, invalid: u64) {
        let end = first + count;
        if invalid != count {
            self.more = self.more.wrapping_add(invalid).wrapping_sub(count);
        }
        if first == self.open.1 {
            self.open.1 = end;
        } else {
            self.jump(first, end);
        }
    }

    /// Entries to be invalidated: the sum of what the calls of [`push`](Self::push) said.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.more.wrapping_add(self.open.1 - self.open.0)
    }

    /// All entries that were added since the last [`clear`](Self::clear), as the fewest ranges,
    /// ascending: first entry and number of entries. More may be added later.
    pub fn coalesce(&mut self) -> impl ExactSizeIterator<Item = (u64, u64)> + Clone {
        let ranges = if !self.ranges.is_empty() {
            self.close();
            self.open = (0, 0);
            if self.unsorted {
                self.sort();
                self.unsorted = false;
            }
            &self.ranges
        } else if self.open.0 < self.open.1 {
            slice::from_ref(&self.open)
        } else {
            &[]
        };
        ranges.iter().map(|(first, end)| (*first, end - first))
    }

    /// Empties the queue, but keeps its memory.
    pub fn clear(&mut self) {
        self.open = (0, 0);
        self.ranges.clear();
        self.unsorted = false;
        self.more = 0;
    }

    /// Adds a range that does not follow the last one.
    #[inline]
    fn jump(&mut self, first: u64, end: u64) {
        if (self.open.0..self.open.1).contains(&first) {
            let grown = self.open.1.max(end) - self.open.1;
            self.open.1 += grown;
            self.more = self.more.wrapping_add(end - first).wrapping_sub(grown);
        } else {
            self.close();
            self.open = (first, end);
        }
    }

    /// Adds the open range to the others.
    #[inline]
    fn close(&mut self) {
        let (first, end) = self.open;
        if first == end {
            return;
        }
        self.more = self.more.wrapping_add(end - first);
        match self.ranges.last() {
            Some(last) => self.unsorted |= first <= last.1,
            None => self.ranges.reserve(RANKED),
        }
        self.ranges.push((first, end));
    }

    /// Sorts and merges `ranges`.
    fn sort(&mut self) {
        let many = self.ranges.len();
        let (mut low, mut high) = (u64::MAX, 0);
        for (first, end) in &self.ranges {
            low = low.min(*first);
            high = high.max(*end);
        }
        let span = high - low;
        if many <= FEW || span > u64::from(u32::MAX) {
            self.ranges.sort_unstable();
            self.ranges.dedup_by(|next, last| {
                let joins = next.0 <= last.1;
                if joins {
                    last.1 = last.1.max(next.1);
                }
                joins
            });
            return;
        }
        let mut joined = Joined { first: low, end: low, count: 0 };
        if many <= RANKED && span <= RANKED_SPAN {
            match many.div_ceil(LANES) {
                1 => joined.by_rank::<LANES>(low, &mut self.ranges),
                2 => joined.by_rank::<{ 2 * LANES }>(low, &mut self.ranges),
                3 => joined.by_rank::<{ 3 * LANES }>(low, &mut self.ranges),
                _ => joined.by_rank::<RANKED>(low, &mut self.ranges),
            }
        } else {
            let scratch = self.scratch.get_or_insert_default();
            if many > RANKED && span <= BITMAP_SPAN.min(many as u64 * BITMAP_DENSITY) {
                scratch.bitmap.span(low, high);
                self.ranges.iter().for_each(|range| scratch.bitmap.set(*range));
                scratch.bitmap.drain(&mut joined, &mut self.ranges);
            } else {
                scratch.keys.clear();
                scratch.keys.extend(self.ranges.iter().map(|range| key(low, *range)));
                let digits = span.ilog2() / DIGIT + 1;
                if many >= DIGIT_RANGES * digits as usize {
                    sort_by_digits(digits, &mut scratch.keys, &mut scratch.spare);
                } else {
                    scratch.keys.sort_unstable();
                }
                joined.add_keys(low, &scratch.keys, &mut self.ranges);
            }
        }
        joined.finish(&mut self.ranges);
        self.ranges.truncate(joined.count);
    }
}

/// A range as one word, which ascends with its first entry. The span has to fit into 32 bits.
fn key(low: u64, (first, end): (u64, u64)) -> u64 {
    (first - low) << 32 | (end - low)
}

/// Ranks that are counted at once: they stay in vector registers.
const LANES: usize = 16;

/// The keys of up to `N` ranges in ascending order. How many are less than a key is its place;
/// nothing is compared by a branch, so nothing is mispredicted.
fn ranked<const N: usize>(low: u64, ranges: &[(u64, u64)]) -> [u64; N] {
    let (mut keys, mut short, mut sorted) = ([0; N], [i32::MAX; N], [0; N]);
    for (i, range) in ranges.iter().enumerate() {
        keys[i] = key(low, *range);
        // No two are the same.
        short[i] = ((range.0 - low) as i32) << RANKED.ilog2() | i as i32;
    }
    let ranges = 0..ranges.len();
    for (mine, keys) in short.as_chunks::<LANES>().0.iter().zip(keys.as_chunks::<LANES>().0) {
        let mut ranks = [0; LANES];
        for other in &short[ranges.clone()] {
            for (rank, mine) in ranks.iter_mut().zip(mine) {
                *rank += i32::from(other < mine);
            }
        }
        for (rank, key) in ranks.into_iter().zip(keys) {
            sorted[rank as usize % N] = *key;
        }
    }
    sorted
}

/// Sorts keys by one digit of their first entries after the other, the lowest first.
fn sort_by_digits(digits: u32, keys: &mut Vec<u64>, spare: &mut Vec<u64>) {
    const VALUES: usize = 1 << DIGIT;
    spare.resize(keys.len(), 0);
    for shift in (0..digits).map(|digit| 32 + digit * DIGIT) {
        let digit = |key: u64| (key >> shift) as usize % VALUES;
        let mut places = [0; VALUES];
        keys.iter().for_each(|key| places[digit(*key)] += 1);
        let mut sum = 0;
        for place in &mut places {
            sum += std::mem::replace(place, sum);
        }
        for key in &*keys {
            let place = &mut places[digit(*key)];
            spare[*place] = *key;
            *place += 1;
        }
        std::mem::swap(keys, spare);
    }
}

/// Merges ranges that come in ascending order, and stores them over those they come from.
struct Joined {
    first: u64,
    end: u64,
    /// Ranges that are stored.
    count: usize,
}

impl Joined {
    #[inline]
    fn add(&mut self, first: u64, end: u64, ranges: &mut [(u64, u64)]) {
        if first <= self.end {
            self.end = self.end.max(end);
        } else {
            self.finish(ranges);
            (self.first, self.end) = (first, end);
        }
    }

    #[inline]
    fn finish(&mut self, ranges: &mut [(u64, u64)]) {
        ranges[self.count] = (self.first, self.end);
        self.count += 1;
    }

    fn add_keys(&mut self, low: u64, keys: &[u64], ranges: &mut [(u64, u64)]) {
        for key in keys {
            self.add(low + (key >> 32), low + (key & u64::from(u32::MAX)), ranges);
        }
    }

    fn by_rank<const N: usize>(&mut self, low: u64, ranges: &mut [(u64, u64)]) {
        let sorted = ranked::<N>(low, ranges);
        self.add_keys(low, &sorted[..ranges.len()], ranges);
    }
}

/// A bit for each entry of a span, and a bit for each word that has one. Between uses all are 0.
#[derive(Debug, Default)]
struct Bitmap {
    words: Vec<u64>,
    used: Vec<u64>,
    /// The entry of bit 0.
    low: u64,
    /// Words of `used` that the span needs.
    blocks: usize,
}

impl Bitmap {
    /// Entries `low..high` are to be set; no bit is.
    fn span(&mut self, low: u64, high: u64) {
        self.low = low;
        self.blocks = (high - low).div_ceil(WORD * WORD) as usize;
        if self.words.is_empty() {
            // As large as it will ever have to be.
            self.words.resize((BITMAP_SPAN / WORD) as usize, 0);
            self.used.resize((BITMAP_SPAN / WORD / WORD) as usize, 0);
        }
    }

    fn set(&mut self, (first, end): (u64, u64)) {
        let (from, to) = (first - self.low, end - 1 - self.low);
        let head = u64::MAX << (from % WORD);
        let tail = u64::MAX >> (WORD - 1 - to % WORD);
        let (from, to) = ((from / WORD) as usize, (to / WORD) as usize);
        if from == to {
            self.or(from, head & tail);
        } else {
            self.or(from, head);
            (from + 1..to).for_each(|word| self.or(word, u64::MAX));
            self.or(to, tail);
        }
    }

    #[inline]
    fn or(&mut self, word: usize, bits: u64) {
        self.words[word] |= bits;
        self.used[word / WORD as usize] |= 1 << (word % WORD as usize);
    }

    /// Hands over all that is set, and clears it.
    fn drain(&mut self, joined: &mut Joined, ranges: &mut [(u64, u64)]) {
        for (i, used) in self.used[..self.blocks].iter_mut().enumerate() {
            let mut used = std::mem::take(used);
            while used != 0 {
                let word = i * WORD as usize + used.trailing_zeros() as usize;
                used &= used - 1;
                let mut bits = std::mem::take(&mut self.words[word]);
                let low = self.low + word as u64 * WORD;
                while bits != 0 {
                    let from = bits.trailing_zeros();
                    // Carries through the lowest run, so the bit after it is the lowest that is set.
                    let carried = bits.wrapping_add(1 << from);
                    let (from, to) = (u64::from(from), u64::from(carried.trailing_zeros()));
                    joined.add(low + from, low + to, ranges);
                    bits &= carried;
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The fewest ranges of a set.
    fn ranges(set: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = vec![];
        for entry in set {
            match ranges.last_mut() {
                Some(last) if last.0 + last.1 == *entry => last.1 += 1,
                _ => ranges.push((*entry, 1)),
            }
        }
        ranges
    }

    fn all(queue: &mut Coalescer) -> Vec<(u64, u64)> {
        queue.coalesce().collect()
    }

    /// Pushes of one use: dense or sparse, few or many, from the low or the high end of what is
    /// possible; some follow the one before.
    fn pushes() -> impl Strategy<Value = Vec<(u64, u64)>> {
        let low = prop_oneof![Just(0u64), Just((1 << 44) - 2000), Just(1 << 51), 0..1u64 << 43];
        let span =
            prop_oneof![Just(100u64), Just(2000), Just(70_000), Just(1 << 20), Just(1 << 30)];
        // Miri takes seconds for each thousand.
        let most = if cfg!(miri) { 80usize } else { 600 };
        let many = prop_oneof![0..24usize, 60..70usize, 20..most];
        (low, span, many).prop_flat_map(|(low, span, many)| {
            let count = prop_oneof![6 => Just(1u64), 2 => 0u64..10, 1 => 50u64..140];
            prop::collection::vec((0..span, count, 0u8..4), many).prop_map(move |raw| {
                let mut next = 0;
                let place = |(first, count, follow)| {
                    let first = if follow == 0 { next } else { low + first };
                    next = first + count;
                    (first, count)
                };
                raw.into_iter().map(place).collect()
            })
        })
    }

    proptest! {
        #[test]
        fn ranges_equal_a_set(uses in prop::collection::vec((pushes(), any::<bool>()), 1..5)) {
            let mut queue = Coalescer::new();
            let mut set = BTreeSet::new();
            let mut pages = 0;
            for (pushes, clear) in uses {
                for (i, (first, count)) in pushes.into_iter().enumerate() {
                    queue.push(first, count, i as u64);
                    set.extend(first..first + count);
                    pages += i as u64;
                }
                prop_assert_eq!(queue.pages(), pages);
                prop_assert_eq!(all(&mut queue), ranges(&set));
                prop_assert_eq!(all(&mut queue), ranges(&set), "a second time");
                if clear {
                    queue.clear();
                    (set, pages) = (BTreeSet::new(), 0);
                }
            }
        }
    }

    #[test]
    fn what_follows_needs_no_memory() {
        let mut queue = Coalescer::new();
        assert_eq!(all(&mut queue), []);
        (0..512u64).for_each(|i| queue.push(1000 + i, 1, 1));
        queue.push(1200, 400, 7);
        assert_eq!(all(&mut queue), [(1000, 600)]);
        assert_eq!((queue.ranges.capacity(), queue.pages()), (0, 519));
        queue.clear();
        assert_eq!(all(&mut queue), []);
        assert_eq!(queue.pages(), 0);
    }

    #[test]
    fn ascending_ranges_are_not_sorted() {
        let mut queue = Coalescer::new();
        (0..100).for_each(|i| queue.push(16 * i, 2, 2));
        let expected: Vec<_> = (0..100).map(|i| (16 * i, 2)).collect();
        assert_eq!(all(&mut queue), expected);
        assert!(queue.scratch.is_none());
        // One that follows the last, once that was handed out.
        queue.push(1586, 1, 1);
        assert_eq!(queue.coalesce().last(), Some((1584, 3)));
        // Later ones may fill the gaps.
        (0..100).for_each(|i| queue.push(16 * i + 2, 14, 14));
        assert_eq!(all(&mut queue), [(0, 1600)]);
    }

    /// Too large to be sorted as words.
    #[test]
    fn huge_ranges() {
        let mut queue = Coalescer::new();
        let huge = 1 << 40;
        for first in [3 * huge, 0, huge - 1, 7 * huge, 1 << 50] {
            queue.push(first, huge, huge);
        }
        queue.push(100, 1, 1);
        let expected = [(0, 2 * huge - 1), (3 * huge, huge), (7 * huge, huge), (1 << 50, huge)];
        assert_eq!(all(&mut queue), expected);
    }

    #[test]
    fn memory_is_kept() {
        let mut queue = Coalescer::new();
        let fill = |queue: &mut Coalescer, many: u64, gap: u64| {
            (0..many).rev().for_each(|i| queue.push(i * gap, 1, 1));
            assert_eq!(queue.coalesce().len() as u64, many);
            queue.clear();
            let scratch = queue.scratch.as_ref().unwrap();
            let bitmap = &scratch.bitmap;
            assert!(bitmap.words.iter().chain(&bitmap.used).all(|word| *word == 0));
            (queue.ranges.capacity(), scratch.keys.capacity(), bitmap.words.capacity())
        };
        // By keys, and by bitmap.
        fill(&mut queue, 500, 1 << 20);
        let before = fill(&mut queue, 500, 2);
        assert_eq!(fill(&mut queue, 400, 1 << 20), before);
        assert_eq!(fill(&mut queue, 300, 1000), before);
    }
}
