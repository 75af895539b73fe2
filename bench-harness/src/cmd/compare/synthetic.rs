// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The statistics and the rule on pairs that a seed makes: how often nothing is called something, and how
//! often something is missed. The counts are exact; a change of the rule shows in them.

use super::evaluate::least;
use super::stats::{Care, Choices, Interval, least_came_twice, neighbours};
use super::verdict::{Lines, Verdict, judge};
use crate::run::lists::Random;

const COMPARISONS: usize = 200;
const PAIRS: usize = 20;
/// As `--threshold 2.5`.
const THRESHOLD: f64 = 0.025;

/// How single runs differ from each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Noise {
    /// Normal, of this standard deviation.
    Normal(f64),
    /// The same, but one run of ten is disturbed: only ever slower, by up to 50 %.
    Disturbed(f64),
    /// A mixture with tails on both sides: one run of five has five times the deviation.
    Heavy(f64),
    /// Normal, and the machine gets slower by 20 % from the first pair to the last.
    Drift(f64),
}

impl Noise {
    /// Of the run at `when`, from 0 to 1.
    fn draw(self, random: &mut Random, when: f64) -> f64 {
        match self {
            Self::Normal(sd) => sd * normal(random),
            Self::Disturbed(sd) => {
                let hit = random.below(10) == 0;
                sd * normal(random) + if hit { 0.4 * unit(random) } else { 0.0 }
            }
            Self::Heavy(sd) => {
                let wide = random.below(5) == 0;
                sd * normal(random) * if wide { 5.0 } else { 1.0 }
            }
            Self::Drift(sd) => sd * normal(random) + 0.18 * when,
        }
    }
}

fn unit(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1u64 << 53) as f64
}

/// A sum of twelve: no logarithms, so that every machine draws the same.
fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| unit(random)).sum::<f64>() - 6.0
}

/// Regressions, no changes, inconclusive ones and improvements of [`COMPARISONS`] comparisons in which B
/// is slower by `effect`; all values are logarithms.
fn verdicts(judges: &[Judge], noise: Noise, effect: f64) -> Counts {
    let mut counts = [0; 4];
    for (nth, judge) in judges.iter().enumerate() {
        let mut random = Random::new(nth as u64);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            let when = pair as f64 / PAIRS as f64;
            a.push(noise.draw(&mut random, when));
            b.push(noise.draw(&mut random, when) + effect);
        }
        counts[judge.judged(&a, &b)] += 1;
    }
    counts
}

/// Who judges comparisons of [`PAIRS`] pairs, by the choices of one seed.
struct Judge {
    care: Care,
    choices: Choices<1>,
}

impl Judge {
    /// As for one phase judged by its minimum: a map and an unmap.
    fn new(seed: u64) -> Self {
        let care = Care { error: 0.05 / 2.0, seed };
        Self { care, choices: care.choices([PAIRS]) }
    }

    fn many(comparisons: usize) -> Vec<Self> {
        (0..comparisons as u64).map(Self::new).collect()
    }

    /// Where in [`Counts`] a comparison of these pairs belongs.
    fn judged(&self, a: &[f64], b: &[f64]) -> usize {
        let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
        // As many as the pairs: half of either side.
        let same: Vec<f64> = neighbours(a).chain(neighbours(b)).collect();
        let of = |logs: &[f64]| self.care.of_median_by(&self.choices, logs);
        let (interval, floor) = (of(&ratios), of(&same).farthest());
        match judge(interval, Lines { threshold: THRESHOLD.ln_1p(), floor }).0 {
            Verdict::Regression => 0,
            Verdict::NoChange => 1,
            Verdict::Inconclusive => 2,
            Verdict::Improvement => 3,
        }
    }
}

/// [`verdicts`] on a machine that somebody else slows down by a fifth for some three runs at a time, half of the
/// time; each pair goes on as `--best-of` says.
fn beside_others(judges: &[Judge], best_of: usize, slower: f64) -> Counts {
    let mut counts = [0; 4];
    for (nth, judge) in judges.iter().enumerate() {
        let mut random = Random::new(nth as u64);
        let mut busy = false;
        let mut run = |slower: f64| {
            busy ^= random.below(3) == 0;
            slower * (1.0 + 0.005 * normal(&mut random) + if busy { 0.2 } else { 0.0 })
        };
        let (mut a, mut b, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            let first = a.len();
            for round in 1..=best_of {
                if pair % 2 == 0 {
                    a.push(run(1.0));
                    b.push(run(slower));
                } else {
                    b.push(run(slower));
                    a.push(run(1.0));
                }
                let enough = |ns: &Vec<f64>| least_came_twice(&ns[first..], THRESHOLD);
                if round > 1 && enough(&a) && enough(&b) {
                    break;
                }
            }
            runs.push(a.len() - first);
        }
        let logs = |ns: &[f64]| least(ns, &runs).into_iter().map(f64::ln).collect::<Vec<f64>>();
        counts[judge.judged(&logs(&a), &logs(&b))] += 1;
    }
    counts
}

const SLOWER: f64 = 0.048_790_164_169_432; // ln 1.05

/// Regressions, no changes, inconclusive ones, improvements.
type Counts = [usize; 4];

#[test]
fn verdicts_on_seeded_pairs() {
    use Noise::{Disturbed, Drift, Heavy, Normal};
    // Of 200 comparisons of 20 pairs: nothing changed, 5 % slower, 5 % faster, slower by the threshold.
    let expected: [(Noise, Counts, Counts, Counts, Counts); 7] = [
        (Normal(0.01), [0, 200, 0, 0], [200, 0, 0, 0], [0, 0, 0, 200], [2, 3, 195, 0]),
        (Normal(0.02), [0, 118, 82, 0], [127, 0, 73, 0], [0, 0, 77, 123], [2, 3, 195, 0]),
        (Normal(0.04), [0, 3, 197, 0], [4, 0, 196, 0], [0, 0, 190, 10], [0, 0, 200, 0]),
        (Disturbed(0.01), [0, 174, 26, 0], [183, 0, 17, 0], [0, 0, 21, 179], [1, 1, 198, 0]),
        (Heavy(0.01), [0, 169, 31, 0], [174, 0, 26, 0], [0, 0, 21, 179], [1, 1, 198, 0]),
        (Heavy(0.02), [0, 29, 171, 0], [40, 0, 160, 0], [0, 0, 159, 41], [1, 1, 198, 0]),
        (Drift(0.01), [0, 200, 0, 0], [198, 0, 2, 0], [0, 0, 0, 200], [2, 3, 195, 0]),
    ];
    let judges = Judge::many(COMPARISONS);
    let found = expected.map(|(noise, ..)| {
        let of = |effect| verdicts(&judges, noise, effect);
        (noise, of(0.0), of(SLOWER), of(-SLOWER), of(THRESHOLD.ln_1p()))
    });
    for (noise, same, slower, faster, edge) in found {
        // Never wrong: nothing found where nothing changed, nothing missed for good; at the threshold
        // itself no more of either than the intervals may miss (1.25 % on either side, and luck).
        assert_eq!((same[0], same[3], slower[1], slower[3]), (0, 0, 0, 0), "{noise:?}");
        assert_eq!((faster[0], faster[1]), (0, 0), "{noise:?}");
        assert!(edge[0].max(edge[1]) <= 7 && edge[3] == 0, "{noise:?}: {edge:?}");
    }
    assert_eq!(found, expected);
}

#[test]
fn verdicts_beside_others() {
    let judges = Judge::many(COMPARISONS / 2);
    let counts = |best_of, slower| beside_others(&judges, best_of, slower);
    let of = |best_of| (best_of, counts(best_of, 1.0), counts(best_of, 1.05));
    let found = [1, 10].map(of);
    for (_, same, slower) in found {
        assert_eq!((same[0], same[3], slower[1], slower[3]), (0, 0, 0, 0));
    }
    assert_eq!(found, [(1, [0, 49, 51, 0], [22, 0, 78, 0]), (10, [0, 100, 0, 0], [72, 0, 28, 0])]);
}

/// Of the interval of 95 %, with pairs and without, for as few runs as there may be and for many.
#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    // The choices are the same each time; what differs are the runs.
    let care = Care { error: 0.05, seed: 1 };
    let holds = |interval: Interval| interval.low <= 0.0 && 0.0 <= interval.high;
    let found = [6, 10, 20, 40].map(|runs| {
        let (one, two) = (care.choices([runs]), care.choices([runs, runs]));
        let (mut with, mut without) = (0, 0);
        for nth in 0..500 {
            let mut random = Random::new(nth + 1_000_000);
            let mut side = || (0..runs).map(|_| normal(&mut random)).collect::<Vec<f64>>();
            let (a, b) = (side(), side());
            let ratios: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b - a).collect();
            with += usize::from(holds(care.of_median_by(&one, &ratios)));
            without += usize::from(holds(care.of_difference_by(&two, &a, &b)));
        }
        (runs, with, without)
    });
    // 475 of 500, less what two standard deviations of such a count are.
    assert!(found.iter().all(|(_, with, without)| *with.min(without) >= 465), "{found:?}");
    assert_eq!(found, [(6, 477, 474), (10, 481, 483), (20, 467, 474), (40, 481, 483)]);
}
