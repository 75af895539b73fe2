// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a table keeps beside its entries: per stretch of a leaf a lock, the number of live entries
//! and, made on first use, which of them were asked for as write-only.

use std::sync::OnceLock;

use crate::sync::{AtomicU32, AtomicU64, Ordering, SpinLock};

/// log2 of the most entries under one lock: 64 KiB of table, and a whole leaf on most hosts.
pub(super) const SEGMENT_LG2: u32 = 13;

/// State of up to `1 << SEGMENT_LG2` consecutive entries of one leaf.
pub(crate) struct Segment {
    lock: SpinLock,
    /// Live entries; written by the lock's holder only.
    live: AtomicU32,
    write_only: OnceLock<Box<[AtomicU64]>>,
}

impl Segment {
    pub(super) fn new() -> Self {
        Self { lock: SpinLock::new(), live: AtomicU32::new(0), write_only: OnceLock::new() }
    }

    pub(super) fn lock(&self) {
        self.lock.acquire();
    }

    pub(super) fn unlock(&self) {
        self.lock.release();
    }

    /// Live entries; exact for the lock's holder.
    pub(super) fn live(&self) -> u64 {
        u64::from(self.live.load(Ordering::Relaxed))
    }

    /// For the lock's holder: `before` live entries became `after`.
    pub(super) fn recount(&self, before: u64, after: u64) {
        let live = self.live() + after - before;
        debug_assert!(live <= 1 << SEGMENT_LG2);
        self.live.store(live as u32, Ordering::Relaxed);
    }

    /// For the lock's holder: remembers for `count` entries from `at` whether they are write-only.
    pub(super) fn set_write_only(&self, at: usize, count: usize, yes: bool) {
        let bits = match (self.write_only.get(), yes) {
            (None, false) => return,
            (Some(bits), _) => bits,
            (None, true) => self
                .write_only
                .get_or_init(|| (0..1 << (SEGMENT_LG2 - 6)).map(|_| AtomicU64::new(0)).collect()),
        };
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
    fn write_only_bits_equal_a_plain_vector() {
        let segment = Segment::new();
        let mut model = vec![false; 1 << SEGMENT_LG2];
        segment.set_write_only(5, 100, false);
        assert!(segment.write_only.get().is_none(), "made on first use only");
        for (at, count, yes) in
            [(0, 1, true), (60, 8, true), (64, 64, true), (100, 4, false), (8000, 192, true)]
        {
            segment.set_write_only(at, count, yes);
            model[at..at + count].fill(yes);
            let bits: Vec<_> = (0..model.len()).map(|i| segment.write_only(i)).collect();
            assert_eq!(bits, model);
        }
    }
}
