// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A bit for each page, set while the page is out. Without locks: a claim sets bits that were all
//! clear, or none.

use std::ops::Range;

use crate::sync::{AtomicU64, Ordering};

/// Bits of a word.
pub(super) const WORD: u64 = u64::BITS as u64;

pub(super) struct Bitmap {
    words: Box<[AtomicU64]>,
}

impl Bitmap {
    /// `bits`, rounded up to whole words, all clear.
    pub(super) fn new(bits: u64) -> Self {
        // The system gives zeroed memory as it is touched, and wrapping it in place touches none.
        let words = vec![0u64; bits.div_ceil(WORD) as usize];
        Self { words: words.into_iter().map(AtomicU64::new).collect() }
    }

    pub(super) fn bits(&self) -> u64 {
        self.words.len() as u64 * WORD
    }

    /// Sets `bits`, whatever they were.
    pub(super) fn fill(&self, bits: Range<u64>) {
        for (word, mask) in parts(bits) {
            self.words[word].fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// Sets `bits` if all were clear; else sets none and returns the first that was not.
    pub(super) fn claim(&self, bits: Range<u64>) -> Result<(), u64> {
        for (word, mask) in parts(bits.clone()) {
            if let Err(taken) = self.claim_mask(word, mask) {
                self.release(bits.start..(word as u64 * WORD).max(bits.start));
                return Err(taken);
            }
        }
        Ok(())
    }

    /// As [`claim`](Self::claim), for the bits of `mask` in a word.
    #[inline]
    fn claim_mask(&self, index: usize, mask: u64) -> Result<(), u64> {
        let word = &self.words[index];
        let mut seen = word.load(Ordering::Relaxed);
        while seen & mask == 0 {
            match exchange(word, seen, seen | mask) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
        Err(index as u64 * WORD + u64::from((seen & mask).trailing_zeros()))
    }

    /// Clears `bits`; how many were set.
    pub(super) fn release(&self, bits: Range<u64>) -> u64 {
        match single(&bits) {
            Some((word, mask)) => self.release_word(word, mask),
            None => parts(bits).map(|(word, mask)| self.release_word(word, mask)).sum(),
        }
    }

    /// Clears the bits of `mask` in a word; how many were set.
    pub(super) fn release_word(&self, word: usize, mask: u64) -> u64 {
        let before = self.words[word].fetch_and(!mask, Ordering::Release);
        u64::from((before & mask).count_ones())
    }

    /// Sets up to `most` clear bits of `pattern` in the first of `words` that has one: the word,
    /// and the bits.
    pub(super) fn claim_word(
        &self,
        words: Range<usize>,
        pattern: u64,
        most: u32,
    ) -> Option<(usize, u64)> {
        for (index, word) in words.clone().zip(&self.words[words]) {
            let mut seen = word.load(Ordering::Relaxed);
            while !seen & pattern != 0 {
                let mask = lowest(!seen & pattern, most);
                match exchange(word, seen, seen | mask) {
                    Ok(_) => return Some((index, mask)),
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    /// Claims `count` consecutive clear bits inside `bits`; where they begin.
    pub(super) fn claim_run(&self, bits: Range<u64>, count: u64, align: Align) -> Option<u64> {
        let mut from = bits.start;
        loop {
            let clear = self.first_clear(from..bits.end)?;
            let start = align.up(clear)?;
            let end = start.checked_add(count).filter(|end| *end <= bits.end)?;
            // A claim of one word looks and takes at once.
            let taken = match single(&(start..end)) {
                Some((word, mask)) => self.claim_mask(word, mask).err(),
                None => self.first_set(start..end).or_else(|| self.claim(start..end).err()),
            };
            let Some(taken) = taken else { return Some(start) };
            from = taken + 1;
        }
    }

    pub(super) fn first_set(&self, bits: Range<u64>) -> Option<u64> {
        self.first(bits, 0)
    }

    pub(super) fn first_clear(&self, bits: Range<u64>) -> Option<u64> {
        self.first(bits, u64::MAX)
    }

    /// The first of `bits` that is set once its word is xored with `flip`.
    fn first(&self, bits: Range<u64>, flip: u64) -> Option<u64> {
        if bits.is_empty() {
            return None;
        }
        let mut index = (bits.start / WORD) as usize;
        let last = ((bits.end - 1) / WORD) as usize;
        let seen = |index: usize| self.words[index].load(Ordering::Relaxed) ^ flip;
        let mut found = seen(index) & (u64::MAX << (bits.start % WORD));
        while found == 0 && index < last {
            index += 1;
            found = seen(index);
        }
        // Beyond the last word if nothing was found.
        let bit = index as u64 * WORD + u64::from(found.trailing_zeros());
        (bit < bits.end).then_some(bit)
    }
}

/// Where a run may begin: bit *n* if `origin + n` is a multiple of `to`, a power of two.
#[derive(Clone, Copy)]
pub(super) struct Align {
    pub(super) origin: u64,
    pub(super) to: u64,
}

impl Align {
    /// The first place at or after `bit`; `None` if there is none.
    fn up(self, bit: u64) -> Option<u64> {
        let low = self.to - 1;
        Some((((self.origin + bit).checked_add(low)?) & !low) - self.origin)
    }
}

/// Pairs with the release of whoever had the pages before.
#[inline]
fn exchange(word: &AtomicU64, seen: u64, new: u64) -> Result<u64, u64> {
    word.compare_exchange_weak(seen, new, Ordering::Acquire, Ordering::Relaxed)
}

/// The word and the mask of `bits`, if there are any and all are in one word.
#[inline]
fn single(bits: &Range<u64>) -> Option<(usize, u64)> {
    let (word, from) = (bits.start / WORD, bits.start % WORD);
    let count = bits.end.wrapping_sub(bits.start);
    let fits = (1..=WORD - from).contains(&count);
    fits.then(|| (word as usize, u64::MAX >> (WORD - count) << from))
}

/// `bits` by word: its index, and the mask of those that are in it.
fn parts(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let words = bits.start / WORD..bits.end.div_ceil(WORD);
    // An empty range inside a word is no part of it.
    let words = if bits.is_empty() { 0..0 } else { words };
    words.map(move |word| {
        let first = word * WORD;
        let mut mask = u64::MAX << bits.start.saturating_sub(first);
        if bits.end - first < WORD {
            mask &= (1 << (bits.end - first)) - 1;
        }
        (word as usize, mask)
    })
}

/// The lowest `most` set bits.
fn lowest(bits: u64, most: u32) -> u64 {
    if bits.count_ones() <= most {
        return bits;
    }
    let rest = (0..most).fold(bits, |rest, _| rest & (rest - 1));
    bits & !rest
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_range_once() {
        for start in [0, 1, 63, 64, 65, 127, 128] {
            for count in [0, 1, 2, 62, 63, 64, 65, 128, 129] {
                let mut covered = vec![];
                for (word, mask) in parts(start..start + count) {
                    assert_ne!(mask, 0);
                    let bits = (0..64).filter(|bit| mask >> bit & 1 == 1);
                    covered.extend(bits.map(|bit| word as u64 * 64 + bit));
                }
                assert_eq!(covered, (start..start + count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn single_words_are_parts() {
        for start in [0, 1, 63, 64, 65] {
            for count in [0, 1, 2, 62, 63, 64, 65] {
                let bits = start..start + count;
                let all: Vec<_> = parts(bits.clone()).collect();
                let expected = if let [one] = all[..] { Some(one) } else { None };
                assert_eq!(single(&bits), expected, "{bits:?}");
            }
        }
    }

    #[test]
    fn lowest_bits() {
        assert_eq!(lowest(0, 3), 0);
        assert_eq!(lowest(0b1011_0100, 2), 0b1_0100);
        assert_eq!(lowest(u64::MAX, 64), u64::MAX);
        assert_eq!(lowest(u64::MAX, 1), 1);
    }

    #[test]
    fn a_refused_claim_sets_nothing() {
        let map = Bitmap::new(200);
        assert_eq!(map.bits(), 256);
        map.fill(130..131);
        assert_eq!(map.claim(10..180), Err(130));
        assert_eq!(map.first_set(0..256), Some(130));
        assert_eq!(map.first_set(131..256), None);
        assert_eq!(map.claim(10..130), Ok(()));
        assert_eq!(map.first_clear(10..131), None);
        assert_eq!((map.release(0..256), map.first_set(0..256)), (121, None));
    }

    #[test]
    fn runs_fit_between_what_is_taken() {
        let map = Bitmap::new(256);
        let any = Align { origin: 0, to: 1 };
        for bit in [3, 70, 140] {
            map.fill(bit..bit + 1);
        }
        assert_eq!(map.claim_run(0..256, 70, any), Some(141));
        assert_eq!(map.claim_run(0..256, 70, any), None);
        assert_eq!(map.claim_run(0..69, 66, any), None);
        assert_eq!(map.claim_run(0..70, 66, any), Some(4));
        // Bit 72 is page 100 of the bus, a multiple of 4.
        assert_eq!(map.claim_run(71..256, 2, Align { origin: 28, to: 4 }), Some(72));
        assert_eq!(map.claim_run(0..256, 1, Align { origin: 28, to: 1 << 63 }), None);
        assert_eq!(map.claim_run(0..256, u64::MAX, any), None);
    }

    #[test]
    fn a_word_is_claimed_in_part() {
        let map = Bitmap::new(128);
        map.fill(0..62);
        assert_eq!(map.claim_word(0..2, u64::MAX, 64), Some((0, 3 << 62)));
        assert_eq!(map.claim_word(0..2, 0x10001, 64), Some((1, 0x10001)));
        assert_eq!(map.claim_word(0..2, u64::MAX, 2), Some((1, 0b110)));
        assert_eq!(map.claim_word(0..1, u64::MAX, 64), None);
        assert_eq!(map.release_word(1, 0b11111), 3);
    }
}
