// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an interval means.

use serde::{Deserialize, Serialize};

use super::stats::Interval;

/// What can be said of B beside A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// B is slower by more than the threshold.
    Regression,
    /// B is faster by more than the threshold.
    Improvement,
    /// They differ by less than the threshold.
    NoChange,
    /// Nothing can be said.
    Inconclusive,
}

impl Verdict {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Improvement => "improvement",
            Self::NoChange => "no change",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// Of all that was judged: one regression is one; what is not known of a part is not known of all.
    #[must_use]
    pub fn of_all(all: impl IntoIterator<Item = Self>) -> Self {
        let mut any = None;
        for one in all {
            any = Some(match (any, one) {
                (None, one) => one,
                (Some(Self::Regression), _) | (_, Self::Regression) => Self::Regression,
                (Some(Self::Inconclusive), _) | (_, Self::Inconclusive) => Self::Inconclusive,
                (Some(Self::Improvement), _) | (_, Self::Improvement) => Self::Improvement,
                _ => Self::NoChange,
            });
        }
        any.unwrap_or(Self::Inconclusive)
    }
}

/// Lines between the verdicts, as logarithms of ratios, neither below 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    /// What counts as a change.
    pub(super) threshold: f64,
    /// What A against A showed.
    pub(super) floor: f64,
}

/// A verdict, and why nothing could be said if so.
pub(super) fn judge(interval: Interval, lines: Lines) -> (Verdict, Option<String>) {
    let Interval { low, high } = interval;
    let Lines { threshold, floor } = lines;
    // Half a change is none; half in the noise is not known to be one.
    let margin = threshold.max(floor);
    let unknown = |why: String| (Verdict::Inconclusive, Some(why));
    if low > margin {
        (Verdict::Regression, None)
    } else if high < -margin {
        (Verdict::Improvement, None)
    } else if -threshold <= low && high <= threshold {
        (Verdict::NoChange, None)
    } else if low > threshold || high < -threshold {
        unknown(format!(
            "a run beside one of the same program differs as much: noise floor {:.1} %",
            per_cent(floor)
        ))
    } else {
        unknown(format!(
            "the interval is on both sides of the threshold of {:.1} %; more pairs or a quieter machine \
             would tell",
            per_cent(threshold)
        ))
    }
}

/// What a logarithm of a ratio is in per cent.
pub(super) fn per_cent(log: f64) -> f64 {
    log.exp_m1() * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(low: f64, high: f64, threshold: f64, floor: f64) -> Verdict {
        judge(Interval { low, high }, Lines { threshold, floor }).0
    }

    #[test]
    fn the_whole_interval_decides() {
        use Verdict::{Improvement, Inconclusive, NoChange, Regression};
        for (low, high, expected) in [
            (0.026, 0.04, Regression),
            (0.025, 0.04, Inconclusive),
            (-0.04, -0.026, Improvement),
            (-0.04, -0.025, Inconclusive),
            (-0.025, 0.025, NoChange),
            (0.01, 0.02, NoChange),
            (-0.01, 0.03, Inconclusive),
            (-0.03, 0.01, Inconclusive),
            (-0.1, 0.1, Inconclusive),
        ] {
            assert_eq!(verdict(low, high, 0.025, 0.0), expected, "{low} {high}");
        }
    }

    #[test]
    fn what_the_same_program_shows_is_no_change_of_another() {
        use Verdict::{Inconclusive, NoChange, Regression};
        assert_eq!(verdict(0.03, 0.04, 0.025, 0.05), Inconclusive);
        assert_eq!(verdict(-0.04, -0.03, 0.025, 0.05), Inconclusive);
        assert_eq!(verdict(0.051, 0.06, 0.025, 0.05), Regression);
        // Where it was quiet enough to say that nothing changed, the floor takes nothing back.
        assert_eq!(verdict(-0.01, 0.01, 0.025, 0.05), NoChange);
        let (_, why) =
            judge(Interval { low: 0.03, high: 0.04 }, Lines { threshold: 0.025, floor: 0.05 });
        assert!(why.unwrap().ends_with("noise floor 5.1 %"));
    }

    #[test]
    fn the_worst_of_all_is_told() {
        use Verdict::{Improvement, Inconclusive, NoChange, Regression};
        assert_eq!(Verdict::of_all([]), Inconclusive);
        assert_eq!(Verdict::of_all([NoChange, NoChange]), NoChange);
        assert_eq!(Verdict::of_all([NoChange, Improvement]), Improvement);
        assert_eq!(Verdict::of_all([Improvement, Inconclusive, NoChange]), Inconclusive);
        assert_eq!(Verdict::of_all([Inconclusive, Regression, Improvement]), Regression);
    }
}
