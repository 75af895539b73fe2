// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sorted numbers with a search that waits for few loads: three looks at up to 32 neighbours
//! instead of a chain of one load for each halving.

/// Neighbours that are compared at once: four lines of memory on x86-64, two on POWER.
const WIDTH: usize = 32;

/// Ascending numbers.
#[derive(Default)]
pub(super) struct Sorted {
    keys: Vec<u64>,
    /// Every 32nd of them, and of these again.
    tops: [Vec<u64>; 2],
}

impl Sorted {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn insert(&mut self, at: usize, key: u64) {
        self.keys.insert(at, key);
        self.index();
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.keys.remove(at);
        self.index();
    }

    fn index(&mut self) {
        let every = |of: &[u64]| of.iter().step_by(WIDTH).copied().collect();
        self.tops[0] = every(&self.keys);
        self.tops[1] = every(&self.tops[0]);
    }

    /// How many are not greater than `key`.
    #[inline]
    pub(super) fn up_to(&self, key: u64) -> usize {
        if self.keys.len() <= WIDTH {
            return count(&self.keys, key);
        }
        let below = |of: &[u64], top: usize| {
            // Of `top` numbers of the level above, the last begins the stretch to look at.
            let first = top.saturating_sub(1) * WIDTH;
            first + count(&of[first.min(of.len())..(first + WIDTH).min(of.len())], key)
        };
        let top = self.tops[1].partition_point(|other| *other <= key);
        below(&self.keys, below(&self.tops[0], top))
    }
}

/// How many are not greater than `key`, without a branch on any of them.
#[inline]
fn count(sorted: &[u64], key: u64) -> usize {
    let mut counts = [0usize; 4];
    let mut chunks = sorted.chunks_exact(4);
    for chunk in &mut chunks {
        for (count, other) in counts.iter_mut().zip(chunk) {
            *count += usize::from(*other <= key);
        }
    }
    let rest: usize = chunks.remainder().iter().map(|other| usize::from(*other <= key)).sum();
    counts.iter().sum::<usize>() + rest
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_search_equals_a_count() {
        let mut sorted = Sorted::default();
        assert_eq!(sorted.up_to(5), 0);
        let most = if cfg!(miri) { 100 } else { 3000 };
        for n in 0..most {
            // From both ends and the middle.
            let key = [7 * n, 100_000 - 7 * n, 50_000 + 3 * n][n as usize % 3];
            let at = sorted.keys.partition_point(|other| *other < key);
            sorted.insert(at, key);
            if n % 97 < 2 || n < 70 {
                for probe in [0, key.saturating_sub(1), key, key + 1, 50_000, u64::MAX] {
                    let plain = sorted.keys.iter().filter(|other| **other <= probe).count();
                    assert_eq!(sorted.up_to(probe), plain, "{probe} of {}", sorted.len());
                }
            }
        }
        while sorted.len() > 0 {
            sorted.remove(sorted.len() / 2);
            let last = sorted.keys.last().copied().unwrap_or(9);
            assert_eq!(sorted.up_to(last), sorted.len());
        }
    }
}
