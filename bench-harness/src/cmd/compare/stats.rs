// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ratios of times on a logarithmic scale, and how sure one can be of their median.
//!
//! The interval is that of the percentile bootstrap: resample, take the median, and of many such medians
//! the middle ones; with pairs widened to ratios that were really seen. BCa would correct it by a jackknife, but of a median that has only a few values, so
//! its correction is noise. The median itself is what keeps a run that somebody disturbed from counting
//! for more than one.

use crate::run::lists::Random;

/// Medians that an interval is read from.
pub(super) const RESAMPLES: usize = 10_000;

/// Where a value lies, as logarithms of ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    /// The end that is farther from no change.
    pub(super) fn farthest(self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    /// The middle ones of [`RESAMPLES`] medians, which are given with how often each came.
    fn of(medians: impl Iterator<Item = (f64, usize)>, error: f64) -> Self {
        let mut medians: Vec<(f64, usize)> = medians.collect();
        medians.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
        let beyond = (error / 2.0 * RESAMPLES as f64) as usize;
        let low = nth(medians.iter().map(|(_, times)| *times), beyond);
        let high = nth(medians.iter().rev().map(|(_, times)| *times), beyond);
        Self { low: medians[low].0, high: medians[medians.len() - 1 - high].0 }
    }
}

/// The place of number `nth` among things of which there are so many at each place; the first if there are fewer.
fn nth(mut times: impl Iterator<Item = usize>, nth: usize) -> usize {
    let mut seen = 0;
    let place = times.position(|times| {
        seen += times;
        seen > nth
    });
    place.unwrap_or(0)
}

/// The middle value, or the mean of both; not a number without values.
pub(in crate::cmd) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match sorted.len() {
        0 => f64::NAN,
        len => f64::midpoint(sorted[(len - 1) / 2], sorted[len / 2]),
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// How often an interval may miss, and the seed of its choices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Care {
    /// As 0.05.
    pub(super) error: f64,
    pub(super) seed: u64,
}

impl Care {
    /// Fewest values that can tell: with fewer, all of them lie on one side of the true median more often
    /// than `error`, and no interval among them could be sure enough.
    pub(super) fn least(self) -> usize {
        let mut one_sided = 2.0;
        let mut values = 0;
        while one_sided > self.error {
            one_sided /= 2.0;
            values += 1;
        }
        values
    }

    /// The interval of the median; none with too few values.
    pub(super) fn of_median(self, logs: &[f64]) -> Option<Interval> {
        let enough = logs.len() >= self.least();
        enough.then(|| self.of_median_by(&self.choices([logs.len()]), logs))
    }

    /// The same by the choices for so many values, which are enough.
    pub(super) fn of_median_by(self, choices: &Choices<1>, logs: &[f64]) -> Interval {
        let seen = sorted(logs);
        let medians = choices.0.iter().map(|([middle], times)| (middle.of(&seen), *times));
        let Interval { low, high } = Interval::of(medians, self.error);
        // Medians of two values fill the gaps between those that were seen, and so seem surer than
        // they are: of 95 % intervals of 20 values some 91 % would hold the truth.
        let below = seen.iter().copied().rfind(|v| *v <= low).unwrap_or(low);
        let above = seen.iter().copied().find(|v| *v >= high).unwrap_or(high);
        Interval { low: below, high: above }
    }

    /// The interval of the median of `b` less that of `a`, which have no pairs; none with too few of
    /// either.
    pub(super) fn of_difference(self, a: &[f64], b: &[f64]) -> Option<Interval> {
        let enough = a.len().min(b.len()) >= self.least();
        enough.then(|| self.of_difference_by(&self.choices([b.len(), a.len()]), a, b))
    }

    /// The same by the choices for so many values of `b` and of `a`, which are enough.
    pub(super) fn of_difference_by(self, choices: &Choices<2>, a: &[f64], b: &[f64]) -> Interval {
        let (a, b) = (sorted(a), sorted(b));
        let medians =
            choices.0.iter().map(|([of_b, of_a], times)| (of_b.of(&b) - of_a.of(&a), *times));
        Interval::of(medians, self.error)
    }

    /// What is chosen of lists of so many values. It takes most of the time, and depends on the seed and the lengths
    /// alone: who judges many lists of one length chooses once.
    pub(super) fn choices<const N: usize>(self, lens: [usize; N]) -> Choices<N> {
        let mut random = Random::new(self.seed);
        let mut drawn = lens.map(|len| vec![0; len]);
        let draw = |_| drawn.each_mut().map(|drawn| Middle::draw(drawn, &mut random));
        let mut middles: Vec<[Middle; N]> = (0..RESAMPLES).map(draw).collect();
        middles.sort_unstable();
        Choices(middles.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect())
    }
}

/// Where the medians of [`RESAMPLES`] resamples lie in sorted lists, and how often there.
pub(super) struct Choices<const N: usize>(Vec<([Middle; N], usize)>);

/// The two places in the middle of a list, which are one if its length is odd.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Middle {
    lower: usize,
    upper: usize,
}

impl Middle {
    /// Of as many values as there are, drawn with repetition. How often each was drawn is left in `drawn`.
    fn draw(drawn: &mut [usize], random: &mut Random) -> Self {
        let len = drawn.len();
        drawn.fill(0);
        for _ in 0..len {
            // The upper half of the product: a number below `len` without a division.
            let nth = (u128::from(random.next()) * len as u128) >> 64;
            drawn[nth as usize] += 1;
        }
        let place = |th| nth(drawn.iter().copied(), th);
        Self { lower: place(len.saturating_sub(1) / 2), upper: place(len / 2) }
    }

    fn of(self, sorted: &[f64]) -> f64 {
        f64::midpoint(sorted[self.lower], sorted[self.upper])
    }
}

/// Whether the two least times are the same but for four fifths of a change that counts.
pub(super) fn least_came_twice(ns: &[f64], threshold: f64) -> bool {
    let [least, next] = ns.iter().fold([f64::INFINITY; 2], |[least, next], ns| {
        if *ns < least { [*ns, least] } else { [least, next.min(*ns)] }
    });
    next <= least * (1.0 + 0.8 * threshold)
}

/// A against A: each run by the one before it, no run twice. `logs` are of one side, in order of time.
pub(super) fn neighbours(logs: &[f64]) -> impl Iterator<Item = f64> + '_ {
    logs.as_chunks::<2>().0.iter().map(|[first, second]| second - first)
}

/// Which of a pair runs first, `true` for A: half of the pairs each, in an order that the seed decides.
/// A fixed order would give one side all of what a machine does after a pause.
pub(super) fn orders(pairs: usize, seed: u64) -> Vec<bool> {
    let mut random = Random::new(seed);
    // The odd one, if there is one, is anybody's.
    let extra = usize::from(random.below(2) == 0 && pairs % 2 == 1);
    let mut orders: Vec<bool> = (0..pairs).map(|nth| nth < pairs / 2 + extra).collect();
    for last in (1..pairs).rev() {
        orders.swap(last, random.below(last as u64 + 1) as usize);
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn too_few_values_give_no_interval() {
        let care = Care { error: 0.05, seed: 1 };
        assert_eq!(care.least(), 6);
        assert_eq!(Care { error: 0.05 / 34.0, ..care }.least(), 11);
        let logs = [0.1, 0.2, 0.15, 0.12, 0.18, 0.16];
        assert_eq!(care.of_median(&logs[..5]), None);
        let all = care.of_median(&logs).unwrap();
        assert!(0.1 <= all.low && all.low < 0.15 && 0.16 < all.high && all.high <= 0.2, "{all:?}");
        assert_eq!(care.of_difference(&logs[..5], &logs), None);
        assert_eq!(care.of_difference(&logs, &logs[..5]), None);
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        let care = Care { error: 0.05, seed: 7 };
        let same = care.of_median(&[0.05; 8]).unwrap();
        assert_eq!((same.low, same.high), (0.05, 0.05));
        let same = care.of_difference(&[0.25; 8], &[0.75; 9]).unwrap();
        assert_eq!((same.low, same.high), (0.5, 0.5));
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let logs: Vec<f64> = (0..20).map(|n: u32| f64::from(n * n * n) / 1000.0).collect();
        let of = |seed| Care { error: 0.001, seed }.of_difference(&logs, &logs[3..]).unwrap();
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
        // The ends are values that were seen.
        let ends = Care { error: 0.05, seed: 5 }.of_median(&logs).unwrap();
        assert!(logs.contains(&ends.low) && logs.contains(&ends.high), "{ends:?}");
    }

    #[test]
    fn the_least_comes_twice_or_not() {
        for (ns, twice) in [
            (&[100.0][..], false),
            (&[100.0, 102.1], false),
            (&[100.0, 102.0], true),
            (&[130.0, 102.0, 140.0, 100.0], true),
            // What came twice is no longer the least.
            (&[110.0, 110.0, 100.0], false),
        ] {
            assert_eq!(least_came_twice(ns, 0.025), twice, "{ns:?}");
        }
    }

    #[test]
    fn neighbours_are_taken_once() {
        let all: Vec<f64> = neighbours(&[1.0, 3.0, 7.0, 6.0, 100.0]).collect();
        assert_eq!(all, [2.0, -1.0]);
        assert_eq!(neighbours(&[1.0]).count(), 0);
    }

    #[test]
    fn orders_are_balanced_and_shuffled() {
        for (pairs, seed) in [(20, 1), (20, 2), (8, 3)] {
            let orders = orders(pairs, seed);
            assert_eq!(orders.iter().filter(|a| **a).count(), pairs / 2);
            assert!(orders[..pairs / 2].iter().any(|a| *a), "{orders:?}");
            assert!(orders[..pairs / 2].iter().any(|a| !*a), "{orders:?}");
        }
        assert_ne!(orders(20, 1), orders(20, 2));
        let odd = |seed| orders(7, seed).iter().filter(|a| **a).count();
        let counts: Vec<usize> = (0..16).map(odd).collect();
        assert!(counts.contains(&3) && counts.contains(&4), "{counts:?}");
        assert!(counts.iter().all(|n| [3, 4].contains(n)), "{counts:?}");
    }
}
