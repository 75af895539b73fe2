// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The statistics and the rule on pairs that a seed makes: how often nothing is called something, and how
//! often something is missed. The counts are exact; a change of the rule shows in them.

use super::stats::{Care, Interval, median, neighbours};
use super::verdict::{Lines, Verdict, judge};
use crate::run::lists::Random;

const COMPARISONS: usize = 200;
const PAIRS: usize = 20;
/// As `--threshold 2.5`.
const THRESHOLD: f64 = 0.025;

/// How single runs differ from each other.
#[derive(Clone, Copy, Debug)]
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
fn verdicts(noise: Noise, effect: f64) -> [usize; 4] {
    let mut counts = [0; 4];
    for nth in 0..COMPARISONS {
        let mut random = Random::new(nth as u64);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            let when = pair as f64 / PAIRS as f64;
            a.push(noise.draw(&mut random, when));
            b.push(noise.draw(&mut random, when) + effect);
        }
        let ratios: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b - a).collect();
        let same: Vec<f64> = neighbours(&a).chain(neighbours(&b)).collect();
        // As for one phase judged by its minimum: a map and an unmap.
        let care = Care { error: 0.05 / 2.0, seed: nth as u64 };
        let interval = care.of_median(&ratios).expect("20 pairs");
        let floor = care.of_median(&same).map(Interval::farthest).expect("20 neighbours");
        let lines = Lines { threshold: THRESHOLD.ln_1p(), floor };
        let at = match judge(interval, lines).0 {
            Verdict::Regression => 0,
            Verdict::NoChange => 1,
            Verdict::Inconclusive => 2,
            Verdict::Improvement => 3,
        };
        counts[at] += 1;
    }
    counts
}

const SLOWER: f64 = 0.048_790_164_169_432; // ln 1.05

#[test]
fn print_counts() {
    use Noise::{Disturbed, Drift, Heavy, Normal};
    for noise in [
        Normal(0.01),
        Normal(0.02),
        Normal(0.04),
        Disturbed(0.01),
        Heavy(0.01),
        Heavy(0.02),
        Drift(0.01),
    ] {
        eprintln!(
            "{noise:?} 0: {:?} 5: {:?} -5: {:?} 2.5: {:?} 10: {:?}",
            verdicts(noise, 0.0),
            verdicts(noise, SLOWER),
            verdicts(noise, -SLOWER),
            verdicts(noise, 0.025f64.ln_1p()),
            verdicts(noise, 0.1f64.ln_1p())
        );
    }
}
