// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How an operation's times went from the beginning of its phase to its end.

use serde::{Deserialize, Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

use super::OpResult;
use crate::timeline::MOST;

/// What began in one interval of a timeline. All are of one length, but for the last, which may be shorter; those
/// in which nothing was done are left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// From when the calls began to count; time in which only checks were made is left out.
    pub start_ns: u64,
    /// Its length.
    pub length_ns: u64,
    /// Calls that began in it.
    pub calls: u64,
    /// TCEs that those calls handled.
    pub tces: u64,
    /// Their time per call, the mean over all; null without calls.
    pub mean: Option<f64>,
    /// The median sample, at most a 64th too long; null with fewer than 10 samples beyond.
    pub p50: Option<f64>,
    /// The 99th percentile, as the median.
    pub p99: Option<f64>,
    /// The longest sample, exact; null without samples.
    pub max: Option<f64>,
    /// Stores to kill registers by the operation's calls; null where nobody counts them for it.
    pub kills: Option<u64>,
}

/// Each interval on a line of its own, however the rest of the document is laid out.
pub(super) fn one_a_line<S: Serializer>(
    timeline: &Option<Vec<Interval>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let line = |one| serde_json::to_string(one).and_then(RawValue::from_string);
    let lines = timeline.as_ref().map(|all| all.iter().map(line).collect::<Result<Vec<_>, _>>());
    lines.transpose().map_err(S::Error::custom)?.serialize(serializer)
}

impl OpResult {
    /// That the timeline, if there is one, is one, and of the calls of this result.
    ///
    /// # Errors
    /// What is wrong, one line.
    pub fn check_timeline(&self) -> Result<(), String> {
        let Some(timeline) = &self.timeline else { return Ok(()) };
        if timeline.is_empty() || timeline.len() > MOST {
            let n = timeline.len();
            return Err(format!("its timeline has {n} intervals; accepted: 1 to {MOST}, or null"));
        }
        let mut end = 0;
        for (nth, interval) in timeline.iter().enumerate() {
            end = interval.check(end).map_err(|e| format!("interval {nth} of its timeline {e}"))?;
            let (length, usual) = (interval.length_ns, timeline[0].length_ns);
            let last = nth + 1 == timeline.len();
            if length > usual || length < usual && !last {
                return Err(format!(
                    "interval {nth} of its timeline is {length} ns long, and the first {usual} ns"
                ));
            }
        }
        let sum = |of: fn(&Interval) -> u64| {
            timeline.iter().try_fold(0u64, |sum, interval| sum.checked_add(of(interval)))
        };
        for (what, sum, told) in
            [("calls", sum(|i| i.calls), self.count), ("TCEs", sum(|i| i.tces), self.tces)]
        {
            if sum != Some(told) {
                let sum = sum.map_or("more than 2^64".to_owned(), |sum| sum.to_string());
                return Err(format!("its timeline has {sum} {what}, and all together {told}"));
            }
        }
        Ok(())
    }
}

impl Interval {
    /// That it is one, and begins after the one before, which ends at `before`. Where it ends.
    fn check(&self, before: u64) -> Result<u64, String> {
        let Self { start_ns, length_ns, .. } = *self;
        if length_ns == 0 {
            return Err("is 0 ns long".to_owned());
        }
        if start_ns < before {
            return Err(format!(
                "begins at {start_ns} ns, when the one before ends at {before} ns"
            ));
        }
        let told: Vec<f64> = [self.p50, self.p99, self.max].into_iter().flatten().collect();
        if let Some(wrong) = told.iter().chain(&self.mean).find(|t| !(t.is_finite() && **t > 0.0)) {
            return Err(format!("has a time of {wrong} ns"));
        }
        if !told.is_sorted() {
            return Err(format!("has percentiles that do not rise: {told:?} ns"));
        }
        start_ns
            .checked_add(length_ns)
            .ok_or_else(|| format!("begins at {start_ns} ns and is {length_ns} ns long"))
    }
}
