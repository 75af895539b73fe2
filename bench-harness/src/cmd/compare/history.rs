// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where in a history of runs the times changed, by the rule that folders are compared by.

use super::evaluate::{ERROR, halves, hash};
use super::stats::{Care, median};
use super::verdict::{self, Lines, Verdict};
use super::{Metric, THRESHOLD};

/// Runs on each side of a place that are compared, at most.
pub(in crate::cmd) const WINDOW: usize = 20;
/// What is judged, as `compare` does if nothing else is asked for.
pub(in crate::cmd) const JUDGED: [Metric; 2] = [Metric::Min, Metric::P50];

/// A place where times changed. Percent are of what was before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cmd) struct Change {
    /// The first run after it.
    pub(in crate::cmd) at: usize,
    pub(in crate::cmd) verdict: Verdict,
    pub(in crate::cmd) percent: f64,
    pub(in crate::cmd) low: f64,
    pub(in crate::cmd) high: f64,
}

/// The changes in `ns`, times of one metric of one operation in order of time. Only a run in `places` can be
/// the first one after a change. `together` is how many such metrics are judged of the same runs.
pub(in crate::cmd) fn changes(
    ns: &[f64],
    places: &[usize],
    (id, metric): (&str, Metric),
    together: usize,
) -> Vec<Change> {
    let logs: Vec<f64> = ns.iter().map(|t| t.ln()).collect();
    let care = Care { error: ERROR / together.max(1) as f64, seed: hash(id, metric) };
    let threshold = THRESHOLD.ln_1p();
    let sides = |at: usize| {
        let (before, after) = logs.split_at(at);
        (&before[before.len().saturating_sub(WINDOW)..], &after[..after.len().min(WINDOW)])
    };
    let mut found: Vec<Change> = Vec::new();
    // Near a change its neighbours seem to be one, too: of those in a row the one that parts the runs best.
    let mut best: Option<(usize, f64, bool)> = None;
    let mut rows = Vec::new();
    for &at in places.iter().filter(|at| (1..ns.len()).contains(*at)) {
        let (before, after) = sides(at);
        let difference = median(after) - median(before);
        // An interval holds its median, so nothing that is left out here would have been a change.
        let enough = before.len().min(after.len()) >= care.least();
        if !enough || difference.abs() <= threshold {
            rows.extend(best.take());
            continue;
        }
        let cost = spread(before) + spread(after);
        let slower = difference > 0.0;
        match best {
            Some((_, least, same)) if same == slower && least <= cost => {}
            Some((_, _, same)) if same != slower => {
                rows.extend(best.replace((at, cost, slower)));
            }
            _ => best = Some((at, cost, slower)),
        }
    }
    rows.extend(best);
    for (at, ..) in rows {
        let (before, after) = sides(at);
        let Some(interval) = care.of_difference(before, after) else { continue };
        let floor = halves(before, after, care).map_or(0.0, super::stats::Interval::farthest);
        let (verdict, _) = verdict::judge(interval, Lines { threshold, floor });
        if matches!(verdict, Verdict::Regression | Verdict::Improvement) {
            let percent = verdict::per_cent(median(after) - median(before));
            let [low, high] = [interval.low, interval.high].map(verdict::per_cent);
            found.push(Change { at, verdict, percent, low, high });
        }
    }
    found
}

/// How far values are from their median, all together.
fn spread(logs: &[f64]) -> f64 {
    let middle = median(logs);
    logs.iter().map(|v| (v - middle).abs()).sum()
}

/// Runs that it takes on each side, with so many metrics judged.
pub(in crate::cmd) fn least(together: usize) -> usize {
    Care { error: ERROR / together.max(1) as f64, seed: 0 }.least()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::lists::Random;

    /// `count` runs of some `ns` with a noise of so many per cent.
    fn noisy(random: &mut Random, ns: f64, per_cent: f64, count: usize) -> Vec<f64> {
        let mut one = || {
            let sum: f64 =
                (0..12).map(|_| (random.next() >> 11) as f64 / (1u64 << 53) as f64).sum();
            ns * (1.0 + per_cent / 100.0 * (sum - 6.0))
        };
        (0..count).map(|_| one()).collect()
    }

    fn found(ns: &[f64]) -> Vec<Change> {
        let places: Vec<usize> = (0..ns.len()).collect();
        changes(ns, &places, ("ring.map", Metric::P50), 4)
    }

    #[test]
    fn a_step_is_found_once_where_it_is() {
        for seed in 1..20 {
            let mut random = Random::new(seed);
            let mut ns = noisy(&mut random, 100.0, 1.0, 40);
            ns.extend(noisy(&mut random, 110.0, 1.0, 40));
            ns.extend(noisy(&mut random, 90.0, 1.0, 40));
            let all = found(&ns);
            let told: Vec<_> = all.iter().map(|c| (c.at, c.verdict)).collect();
            assert_eq!(
                told,
                [(40, Verdict::Regression), (80, Verdict::Improvement)],
                "seed {seed}"
            );
            assert!((all[0].percent - 10.0).abs() < 1.5 && all[0].low > 2.5, "{all:?}");
            assert!((all[1].percent + 18.2).abs() < 1.5 && all[1].high < -2.5, "{all:?}");
        }
    }

    #[test]
    fn noise_is_no_change_and_few_runs_tell_nothing() {
        let mut count = 0;
        for seed in 1..20 {
            count += found(&noisy(&mut Random::new(seed), 100.0, 2.0, 120)).len();
        }
        assert_eq!(count, 0);
        let mut random = Random::new(1);
        let few = least(4) - 1;
        let mut ns = noisy(&mut random, 100.0, 0.5, few);
        ns.extend(noisy(&mut random, 150.0, 0.5, 40));
        assert_eq!(changes(&ns, &[few], ("ring.map", Metric::P50), 4), []);
        assert!(found(&[]).is_empty() && found(&[1.0]).is_empty());
    }

    #[test]
    fn only_given_places_are_the_first_of_a_change() {
        let mut random = Random::new(7);
        let mut ns = noisy(&mut random, 100.0, 0.5, 30);
        ns.extend(noisy(&mut random, 120.0, 0.5, 30));
        let at = |places: &[usize]| -> Vec<usize> {
            let found = changes(&ns, places, ("x", Metric::Min), 4);
            found.into_iter().map(|c| c.at).collect()
        };
        assert_eq!(at(&[10, 30, 50]), [30]);
        assert_eq!(at(&[5, 55]), [0usize; 0]);
    }
}
