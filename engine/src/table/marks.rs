// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which empty entries of a segment are in debt: what was there has not been killed for sure. Who fills
//! one of them kills it, whatever else fills need.
//!
//! 64 entries share a word, which is one handle's as long as one of its bits is set: only that handle
//! sets bits there, and resets them once their kills are complete. Written by the segment's holder, or by
//! who has the container's structure alone.

use std::ops::Range;

use super::segment::SEGMENT_LG2;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Words of a segment.
const WORDS: usize = 1 << (SEGMENT_LG2 - 6);

struct Word {
    bits: AtomicU64,
    debtor: AtomicU32,
}

/// See the [module](self).
pub(super) struct Marks([Word; WORDS]);

/// The words that entries lie in, and which of their bits they are.
fn words(at: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (at.start / 64..at.end.div_ceil(64)).map(move |word| {
        let (from, to) = (at.start.max(word * 64), at.end.min(word * 64 + 64));
        (word, (!0u64 >> (64 - (to - from))) << (from % 64))
    })
}

impl Marks {
    pub(super) fn new() -> Self {
        let word = |_| Word { bits: AtomicU64::new(0), debtor: AtomicU32::new(0) };
        Self(std::array::from_fn(word))
    }

    fn bits(&self, word: usize) -> u64 {
        self.0[word].bits.load(Ordering::Relaxed)
    }

    fn is(&self, word: usize, debtor: u32) -> bool {
        self.0[word].debtor.load(Ordering::Relaxed) == debtor
    }

    /// Calls `f` with the first and the number of entries in a row that are in debt.
    pub(super) fn each(&self, at: Range<usize>, mut f: impl FnMut(usize, usize)) {
        for (word, mask) in words(at) {
            let mut left = self.bits(word) & mask;
            while left != 0 {
                let from = left.trailing_zeros();
                let n = (left >> from).trailing_ones();
                f(word * 64 + from as usize, n as usize);
                left &= !((!0 >> (64 - n)) << from);
            }
        }
    }

    /// True if none of the words is another's.
    pub(super) fn are_free(&self, at: Range<usize>, debtor: u32) -> bool {
        words(at).all(|(word, _)| self.bits(word) == 0 || self.is(word, debtor))
    }

    /// Sets bits of words that are nobody else's.
    pub(super) fn set(&self, at: Range<usize>, debtor: u32) {
        debug_assert!(self.are_free(at.clone(), debtor));
        for (word, mask) in words(at) {
            self.0[word].bits.store(self.bits(word) | mask, Ordering::Relaxed);
            self.0[word].debtor.store(debtor, Ordering::Relaxed);
        }
    }

    /// Resets the debtor's own bits.
    pub(super) fn reset(&self, at: Range<usize>, debtor: u32) {
        for (word, mask) in words(at).filter(|(word, _)| self.is(*word, debtor)) {
            self.0[word].bits.store(self.bits(word) & !mask, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn marks_equal_a_plain_vector_and_words_are_one_debtors() {
        let marks = Marks::new();
        const ALL: usize = 1 << SEGMENT_LG2;
        let mut model = vec![false; ALL];
        let ranges = [0..1, 60..70, 64..128, 100..ALL - 192, ALL - 1..ALL];
        for (n, at) in ranges.into_iter().enumerate() {
            assert!(marks.are_free(at.clone(), 1));
            marks.set(at.clone(), 1);
            model[at.clone()].fill(true);
            if n % 2 == 1 {
                marks.reset(at.start + 1..at.end, 2);
                marks.reset(at.start + 1..at.end, 1);
                model[at.start + 1..at.end].fill(false);
            }
            let mut seen = vec![false; model.len()];
            marks.each(0..model.len(), |first, count| {
                assert!(!seen[first..first + count].contains(&true));
                seen[first..first + count].fill(true);
            });
            assert_eq!(seen, model);
        }
        assert!(!marks.are_free(1..2, 2), "in the word of entry 0");
        assert!(marks.are_free(128..192, 2));
        marks.set(128..129, 2);
        assert!(!marks.are_free(191..192, 1));
        marks.reset(128..129, 2);
        assert!(marks.are_free(191..192, 1));
    }
}
