// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mapped counts of threads that count for themselves: no locked instruction, no shared line.

use crate::places;
use crate::sync::{Arc, AtomicU64, Ordering};

/// Counts on a line, or on two that are fetched together.
const LINE: usize = 16;

#[derive(Default)]
#[repr(align(128))]
struct Line([AtomicU64; LINE]);

impl Line {
    #[inline(always)]
    fn add(&self, nth: usize, amount: u64) {
        let count = &self.0[nth % LINE];
        count.store(count.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }
}

/// One thread's share of the mapped counts, by registration number. Modulo 2^64: it may unmap what
/// another thread has mapped.
#[derive(Clone)]
pub(crate) struct Shard(Arc<[Arc<Line>]>);

impl Shard {
    /// Room for so many registrations, with the counts of `old`.
    fn new(numbers: usize, old: &[Arc<Line>]) -> Self {
        let line = |nth| old.get(nth).cloned().unwrap_or_default();
        Self((0..numbers.div_ceil(LINE).max(1)).map(line).collect())
    }

    #[inline]
    fn count(&self, number: usize) -> &AtomicU64 {
        &self.0[number / LINE].0[number % LINE]
    }

    /// Adds, or takes away the negative; only the shard's own thread may.
    #[inline]
    pub(crate) fn add(&self, number: usize, amount: u64) {
        self.0[number / LINE].add(number, amount);
    }

    /// The count of one registration.
    pub(crate) fn one(&self, number: usize) -> Count {
        Count { line: self.0[number / LINE].clone(), number }
    }

    pub(super) fn get(&self, number: usize) -> u64 {
        self.count(number).load(Ordering::Relaxed)
    }
}

/// One thread's count of one registration, looked up once.
pub(crate) struct Count {
    line: Arc<Line>,
    number: usize,
}

impl Count {
    /// Of no registration: nothing is its number's.
    pub(crate) fn nobody() -> Self {
        Self { line: Arc::default(), number: usize::MAX }
    }

    /// The registration's number.
    #[inline(always)]
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// [`Shard::add`].
    #[inline(always)]
    pub(crate) fn add(&self, amount: u64) {
        self.line.add(self.number, amount);
    }
}

/// The shards of one container.
#[derive(Default)]
pub(super) struct Shards(Vec<Option<Shard>>);

impl Shards {
    /// A shard for so many registrations; its place.
    pub(super) fn open(&mut self, numbers: usize) -> usize {
        places::put(&mut self.0, Shard::new(numbers, &[]))
    }

    pub(super) fn close(&mut self, nth: usize) -> Shard {
        self.0[nth].take().expect("it was opened, and is closed once")
    }

    #[inline]
    pub(super) fn get(&self, nth: usize) -> &Shard {
        self.0[nth].as_ref().expect("it was opened and not closed")
    }

    /// Room for so many registrations in each. Threads that kept a shard have to get it anew.
    pub(super) fn reach(&mut self, numbers: usize) {
        for shard in self.0.iter_mut().flatten().filter(|s| s.0.len() * LINE < numbers) {
            *shard = Shard::new(2 * numbers, &shard.0);
        }
    }

    /// The number will name another registration.
    pub(super) fn forget(&mut self, number: usize) {
        for shard in self.0.iter().flatten() {
            shard.count(number).store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn sum(&self, number: usize) -> u64 {
        self.0.iter().flatten().fold(0, |sum, shard| sum.wrapping_add(shard.get(number)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_thread_may_unmap_what_another_mapped() {
        let mut shards = Shards::default();
        let (a, b) = (shards.open(1), shards.open(1));
        shards.get(a).add(3, 7);
        shards.reach(40);
        shards.get(a).add(39, 5);
        shards.get(b).add(39, 3u64.wrapping_neg());
        assert_eq!((shards.sum(39), shards.sum(3), shards.sum(0)), (2, 7, 0));
        let gone = shards.close(a);
        assert_eq!((gone.get(39), shards.sum(39)), (5, 0u64.wrapping_sub(3)));
        assert_eq!(shards.open(40), a, "places are used again");
        shards.forget(39);
        assert_eq!(shards.sum(39), 0);
    }

    #[test]
    fn room_doubles_when_there_is_none() {
        let mut shards = Shards::default();
        let a = shards.open(1);
        for numbers in 1..=100 {
            shards.reach(numbers);
            shards.get(a).add(numbers - 1, numbers as u64);
        }
        assert!((1..=100).all(|n| shards.sum(n - 1) == n as u64));
        // Those who keep one need not get it anew before there is none.
        let a = shards.open(1);
        let kept = |shards: &mut Shards, numbers| {
            let before = shards.get(a).clone();
            shards.reach(numbers);
            Arc::ptr_eq(&before.0, &shards.get(a).0)
        };
        assert!(kept(&mut shards, LINE) && !kept(&mut shards, LINE + 1));
        assert!(kept(&mut shards, 2 * (LINE + 1)));
    }
}
