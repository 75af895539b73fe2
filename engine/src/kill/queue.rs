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
/// ns for each random range from push to result, sorted / by bitmap; minima on a shared 2-core EPYC
/// (Zen 3), the two interleaved:
///
/// | ranges | span 2^12 | 2^14 | 2^16 | 2^18 | 2^20 |
/// |---|---|---|---|---|---|
/// | 128 | 13.3 / 10.4 | 13.0 / 10.9 | 12.9 / 8.6 | 16.0 / 12.6 | 15.1 / 14.6 |
/// | 256 | 12.3 / 9.7 | 8.6 / 8.0 | 12.1 / 8.2 | 15.4 / 11.8 | 14.2 / 14.4 |
/// | 512 | 11.9 / 9.1 | 8.5 / 8.4 | 15.0 / 10.8 | 15.8 / 12.2 | 14.1 / 14.4 |
/// | 1024 | 12.5 / 8.7 | 8.8 / 8.7 | 14.9 / 12.3 | 12.3 / 9.5 | 13.6 / 13.6 |
/// | 4096 | 13.8 / 7.2 | 14.9 / 8.7 | 13.1 / 11.4 | 12.6 / 13.7 | 12.1 / 12.9 |
const BITMAP_DENSITY: u64 = 512;
/// The same where digits are long.
const BITMAP_DENSITY_LONG: u64 = 32;

/// Digits have 7 bits where keys are sorted by digits, ...
const DIGIT: u32 = 7;
/// ... which is faster from so many ranges for each digit on; ...
const DIGIT_RANGES: usize = 32;
/// ... or 10 bits, so that two do, if there are so many ranges ...
const LONG_DIGIT_RANGES: usize = 2048;
/// ... in a span of at most so many entries.
const LONG_DIGIT_SPAN: u64 = 1 << 20;

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
            if self.close() {
                if self.unsorted {
                    self.sort();
                }
                self.open = (0, 0);
                // What comes later may begin anywhere.
                self.unsorted = true;
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
        } else if first < end {
            self.close();
            self.unsorted |= first < self.open.0;
            self.open = (first, end);
        }
    }

    /// Adds the open range to the others. False if there is none.
    #[inline]
    fn close(&mut self) -> bool {
        let (first, end) = self.open;
        if first == end {
            return false;
        }
        self.more = self.more.wrapping_add(end - first);
        self.ranges.push((first, end));
        true
    }

    /// Sorts and merges `ranges`.
    fn sort(&mut self) {
        let many = self.ranges.len();
        let (low, high) = bounds(&self.ranges);
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
        let mut joined = Joined::default();
        if many <= RANKED && span <= RANKED_SPAN {
            match many.div_ceil(RANKED / 4) {
                1 => joined.by_rank::<{ RANKED / 4 }>(low, &mut self.ranges),
                2 => joined.by_rank::<{ RANKED / 2 }>(low, &mut self.ranges),
                3 => joined.by_rank::<{ RANKED * 3 / 4 }>(low, &mut self.ranges),
                _ => joined.by_rank::<RANKED>(low, &mut self.ranges),
            }
        } else {
            let long = many >= LONG_DIGIT_RANGES && span <= LONG_DIGIT_SPAN;
            let density = if long { BITMAP_DENSITY_LONG } else { BITMAP_DENSITY };
            let scratch = self.scratch.get_or_insert_default();
            if many > RANKED && span <= BITMAP_SPAN.min(many as u64 * density) {
                scratch.bitmap.span(low, high);
                self.ranges.iter().for_each(|range| scratch.bitmap.set(*range));
                scratch.bitmap.drain(&mut joined, &mut self.ranges);
            } else {
                scratch.sort(low, span, long, &self.ranges);
                joined.add_keys(low, &scratch.keys, &mut self.ranges);
            }
        }
        self.ranges.truncate(joined.count);
    }
}

impl Scratch {
    /// Makes `keys` those of `ranges`, ascending.
    fn sort(&mut self, low: u64, span: u64, long: bool, ranges: &[(u64, u64)]) {
        let Self { keys, spare, .. } = self;
        keys.clear();
        keys.extend(ranges.iter().map(|range| key(low, *range)));
        let digits = span.ilog2() / DIGIT + 1;
        if keys.len() < DIGIT_RANGES * digits as usize {
            return keys.sort_unstable();
        }
        match digits {
            _ if long => sort_by_digits::<2, 1024>(keys, spare),
            1 | 2 => sort_by_digits::<2, 128>(keys, spare),
            3 => sort_by_digits::<3, 128>(keys, spare),
            4 => sort_by_digits::<4, 128>(keys, spare),
            _ => sort_by_digits::<5, 128>(keys, spare),
        }
    }
}

/// No first entry is below the first of these, and no end beyond the second.
fn bounds(ranges: &[(u64, u64)]) -> (u64, u64) {
    // The bits in which they differ take less to find than the least and the largest do.
    let base = ranges[0].0;
    let differ = ranges.iter().fold(0, |differ, range| differ | range.0 ^ base | range.1 ^ base);
    let mask = u64::MAX.checked_shr(differ.leading_zeros()).unwrap_or(0);
    if mask <= RANKED_SPAN {
        return (base & !mask, base | mask);
    }
    let low = ranges.iter().fold(u64::MAX, |low, range| low.min(range.0));
    (low, ranges.iter().fold(0, |high, range| high.max(range.1)))
}

/// A range as one word, which ascends with its first entry. The span has to fit into 32 bits.
fn key(low: u64, (first, end): (u64, u64)) -> u64 {
    (first - low) << 32 | (end - low)
}

/// Ranks that are counted at once: they stay in vector registers.
const LANES: usize = 8;

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

/// Sorts keys by `DIGITS` digits of their first entries, one after the other, the lowest first.
fn sort_by_digits<const DIGITS: usize, const VALUES: usize>(
    keys: &mut Vec<u64>,
    spare: &mut Vec<u64>,
) {
    let digit =
        |key: u64, nth: usize| (key >> (32 + nth as u32 * VALUES.ilog2())) as usize % VALUES;
    spare.resize(keys.len(), 0);
    // How many keys have which digit is found for all digits at once.
    let mut places = [[0_u32; VALUES]; DIGITS];
    for key in &*keys {
        for (nth, places) in places.iter_mut().enumerate() {
            places[digit(*key, nth)] += 1;
        }
    }
    for (nth, places) in places.iter_mut().enumerate() {
        let mut sum = 0;
        for place in &mut *places {
            sum += std::mem::replace(place, sum);
        }
        for key in &*keys {
            let place = &mut places[digit(*key, nth)];
            spare[*place as usize] = *key;
            *place += 1;
        }
        std::mem::swap(keys, spare);
    }
}

/// Merges ranges that come in ascending order, and stores them over those they come from.
#[derive(Default)]
struct Joined {
    /// The end of the last one.
    end: u64,
    /// Ranges that are stored.
    count: usize,
}

impl Joined {
    #[inline]
    fn add(&mut self, first: u64, end: u64, ranges: &mut [(u64, u64)]) {
        if self.count > 0 && first <= self.end {
            self.end = self.end.max(end);
            ranges[self.count - 1].1 = self.end;
        } else {
            self.end = end;
            ranges[self.count] = (first, end);
            self.count += 1;
        }
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
mod tests;
