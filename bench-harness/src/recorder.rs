// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Latencies of one operation on one thread: an HdrHistogram with exact totals beside it.
//!
//! The histogram counts in picoseconds. A bulk map costs a tenth of a nanosecond per TCE; in a
//! histogram of nanoseconds the mean of a group of those would vanish.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::result::Interval;
use crate::timeline::{Timeline, Totals};

/// Lowest value of a histogram: one picosecond.
pub const LOWEST_PS: u64 = 1;
/// Highest value of a histogram: one hour. Anything longer is recorded as this.
pub const HIGHEST_PS: u64 = 3_600_000_000_000_000;
/// Significant decimal digits of a histogram.
pub const SIGFIG: u8 = 3;

/// A percentile is only told if at least so many samples lie beyond it; fewer are anecdotes.
pub const MIN_BEYOND: u64 = 10;

const PS_PER_NS: u64 = 1000;

/// An empty histogram of picoseconds with the bounds that all results use, so that any two merge.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_PS, HIGHEST_PS, SIGFIG)
        .expect("the constant bounds are valid for an HdrHistogram")
}

/// Collects one operation's times on one thread; merge them at the end.
#[derive(Debug, Clone)]
pub struct Recorder {
    hist: Histogram<u64>,
    calls: u64,
    tces: u64,
    total_ns: u64,
    group: u64,
    min_ps: u64,
    max_ps: u64,
    best: Option<f64>,
    best_round: Option<f64>,
    /// Time and TCEs when the round began.
    round: (u64, u64),
    timeline: Option<Box<Timeline>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty recorder. Allocates the histogram; recording allocates nothing.
    pub fn new() -> Self {
        Self {
            hist: new_histogram(),
            calls: 0,
            tces: 0,
            total_ns: 0,
            group: 1,
            min_ps: u64::MAX,
            max_ps: 0,
            best: None,
            best_round: None,
            round: (0, 0),
            timeline: None,
        }
    }

    /// An empty recorder that also keeps a timeline of intervals of `length` from `begin` on: call
    /// [`Recorder::at`] before each sample, and [`Recorder::end_timeline`] in the end.
    pub fn with_timeline(begin: Instant, length: Duration) -> Self {
        let timeline = Some(Box::new(Timeline::new(begin, length)));
        Self { timeline, ..Self::new() }
    }

    /// The calls of the samples that follow began at `at`, or later; before, `kills` had been issued.
    #[inline]
    pub fn at(&mut self, at: Instant, kills: u64) {
        if self.timeline.as_ref().is_some_and(|timeline| timeline.is_over(at)) {
            self.go_on(at, kills);
        }
    }

    #[cold]
    fn go_on(&mut self, at: Instant, kills: u64) {
        let now = self.totals(kills);
        if let Some(timeline) = &mut self.timeline {
            timeline.go_on(at, now);
        }
    }

    /// Leaves a pause out of the timeline.
    pub fn skip(&mut self, pause: Duration) {
        if let Some(timeline) = &mut self.timeline {
            timeline.skip(pause);
        }
    }

    /// Ends the timeline at `at`, when `kills` had been issued.
    pub fn end_timeline(&mut self, at: Instant, kills: u64) {
        let now = self.totals(kills);
        if let Some(timeline) = &mut self.timeline {
            timeline.end(at, now);
        }
    }

    /// The timeline, which is gone then; none if none was kept, or nothing was done.
    pub fn take_timeline(&mut self) -> Option<Vec<Interval>> {
        let intervals = self.timeline.take()?.intervals();
        (!intervals.is_empty()).then_some(intervals)
    }

    const fn totals(&self, kills: u64) -> Totals {
        Totals { calls: self.calls, tces: self.tces, ns: self.total_ns, kills }
    }

    /// One call that took `ns` nanoseconds and handled `tces` TCEs.
    #[inline]
    pub fn record(&mut self, ns: u64, tces: u64) {
        self.sample(ns.saturating_mul(PS_PER_NS));
        self.rate(ns, tces);
        self.add(ns, 1, tces);
    }

    /// `k` calls timed together: one sample, the mean of the `k`. `tces` is the sum over the
    /// group. A group of no calls is not recorded.
    #[inline]
    pub fn record_group(&mut self, total_ns: u64, k: u64, tces: u64) {
        if k == 0 {
            return;
        }
        self.sample((total_ns.saturating_mul(PS_PER_NS).saturating_add(k / 2)) / k);
        self.group = self.group.max(k);
        self.rate(total_ns, tces);
        self.add(total_ns, k, tces);
    }

    /// Calls that were only timed as a whole: they count, but give no sample.
    #[inline]
    pub fn record_untimed(&mut self, total_ns: u64, calls: u64, tces: u64) {
        self.add(total_ns, calls, tces);
    }

    /// Ends a round: what was recorded since the last one ended, or since the start.
    pub fn end_round(&mut self) {
        let (ns, tces) = (self.total_ns - self.round.0, self.tces - self.round.1);
        self.round = (self.total_ns, self.tces);
        if tces > 0 {
            let rate = ns as f64 / tces as f64;
            self.best_round = Some(self.best_round.map_or(rate, |best| best.min(rate)));
        }
    }

    #[inline]
    fn sample(&mut self, ps: u64) {
        let ps = ps.clamp(LOWEST_PS, HIGHEST_PS);
        self.min_ps = self.min_ps.min(ps);
        self.max_ps = self.max_ps.max(ps);
        self.hist.saturating_record(ps);
        if let Some(timeline) = &mut self.timeline {
            timeline.sample(ps);
        }
    }

    #[inline]
    fn rate(&mut self, ns: u64, tces: u64) {
        if tces > 0 {
            let rate = ns as f64 / tces as f64;
            self.best = Some(self.best.map_or(rate, |best| best.min(rate)));
        }
    }

    #[inline]
    const fn add(&mut self, ns: u64, calls: u64, tces: u64) {
        self.calls += calls;
        self.tces += tces;
        self.total_ns = self.total_ns.saturating_add(ns);
    }

    /// Adds everything that another thread's recorder holds. There is a timeline of the sum if there is one
    /// of both, or nothing was in this one.
    pub fn merge(&mut self, other: &Self) {
        self.timeline = match (self.timeline.take(), &other.timeline) {
            (Some(mut mine), Some(other)) => {
                mine.add(other);
                Some(mine)
            }
            (None, Some(other)) if self.calls == 0 => Some(other.clone()),
            _ => None,
        };
        self.hist.add(&other.hist).expect("all recorders have the same bounds");
        self.calls += other.calls;
        self.tces += other.tces;
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.group = self.group.max(other.group);
        self.min_ps = self.min_ps.min(other.min_ps);
        self.max_ps = self.max_ps.max(other.max_ps);
        let least = |a: Option<f64>, b| a.into_iter().chain(b).reduce(f64::min);
        self.best = least(self.best, other.best);
        self.best_round = least(self.best_round, other.best_round);
        self.round = (self.total_ns, self.tces);
    }

    /// The sum of several threads' recorders.
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::new();
        parts.into_iter().for_each(|part| sum.merge(part));
        sum
    }

    /// Calls recorded, in groups or not.
    pub const fn calls(&self) -> u64 {
        self.calls
    }

    /// TCEs that those calls handled.
    pub const fn tces(&self) -> u64 {
        self.tces
    }

    /// Time in those calls, in nanoseconds, summed over threads.
    pub const fn total_ns(&self) -> u64 {
        self.total_ns
    }

    /// The largest k of "mean of k"; 1 if each call was timed.
    pub const fn group(&self) -> u64 {
        self.group
    }

    /// Samples in the histogram: calls, or groups of calls.
    pub fn samples(&self) -> u64 {
        self.hist.len()
    }

    /// Time per TCE in nanoseconds; `None` without TCEs.
    pub fn ns_per_tce(&self) -> Option<f64> {
        (self.tces > 0).then(|| self.total_ns as f64 / self.tces as f64)
    }

    /// The least time per TCE of any sample, in nanoseconds; `None` without TCEs. On a shared
    /// machine this is the steadiest figure, and the one to compare by.
    pub const fn best_ns_per_tce(&self) -> Option<f64> {
        self.best
    }

    /// The least time per TCE of a whole round, in nanoseconds; `None` if none had TCEs. A round goes
    /// over as much memory as the loop that is its limit; a single call may be lucky with the caches.
    pub const fn best_round_ns_per_tce(&self) -> Option<f64> {
        self.best_round
    }

    /// The histogram, in picoseconds.
    pub const fn histogram(&self) -> &Histogram<u64> {
        &self.hist
    }

    /// The latency per call, in nanoseconds.
    pub fn summary(&self) -> Summary {
        let timed = self.samples() > 0;
        Summary {
            min: timed.then(|| ns(self.min_ps)),
            mean: (self.calls > 0).then(|| self.total_ns as f64 / self.calls as f64),
            max: timed.then(|| ns(self.max_ps)),
            p: Percentiles::of(&self.hist, self.min_ps, self.max_ps),
        }
    }

    /// A histogram `width` characters wide, from the shortest to the longest sample on a
    /// logarithmic axis; blank where nothing was seen. Empty without samples.
    pub fn bars(&self, width: usize) -> String {
        const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        if self.samples() == 0 || width == 0 {
            return String::new();
        }
        let low = (self.min_ps as f64).ln();
        let span = (self.max_ps as f64).ln() - low;
        let mut columns = vec![0u64; width];
        for step in self.hist.iter_recorded() {
            let value = step.value_iterated_to().clamp(self.min_ps, self.max_ps) as f64;
            // With a single value there is no axis: it stands in the middle.
            let place = if span > 0.0 { (value.ln() - low) / span } else { 0.5 };
            let column = ((place * width as f64) as usize).min(width - 1);
            columns[column] += step.count_since_last_iteration();
        }
        let highest = columns.iter().copied().max().unwrap_or(1).max(1);
        let bar = |&count: &u64| match count {
            0 => ' ',
            // Rounded up, so that the rarest sample still shows.
            _ => LEVELS[(count as u128 * 8).div_ceil(u128::from(highest)) as usize - 1],
        };
        columns.iter().map(bar).collect()
    }
}

/// Picoseconds to nanoseconds.
fn ns(ps: u64) -> f64 {
    ps as f64 / PS_PER_NS as f64
}

/// Latency per call in nanoseconds; `None` = not measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Shortest sample.
    pub min: Option<f64>,
    /// Total time by calls; exact, not from the histogram.
    pub mean: Option<f64>,
    /// Longest sample.
    pub max: Option<f64>,
    /// Percentiles, from the histogram (3 digits).
    pub p: Percentiles,
}

/// Percentiles in nanoseconds; `None` (null) with fewer than [`MIN_BEYOND`] samples beyond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Percentiles {
    #[serde(rename = "50")]
    pub p50: Option<f64>,
    #[serde(rename = "90")]
    pub p90: Option<f64>,
    #[serde(rename = "99")]
    pub p99: Option<f64>,
    #[serde(rename = "99.9")]
    pub p99_9: Option<f64>,
    #[serde(rename = "99.99")]
    pub p99_99: Option<f64>,
}

impl Percentiles {
    /// Those of a histogram of picoseconds whose shortest and longest samples are known.
    pub fn of(hist: &Histogram<u64>, min_ps: u64, max_ps: u64) -> Self {
        let at = |part_per_10k: u64| {
            let beyond = u128::from(hist.len()) * u128::from(10_000 - part_per_10k) / 10_000;
            // The histogram answers with the upper end of a bucket, which may lie above the maximum.
            let ps =
                || hist.value_at_quantile(part_per_10k as f64 / 10_000.0).clamp(min_ps, max_ps);
            (beyond >= u128::from(MIN_BEYOND)).then(|| ns(ps()))
        };
        Self { p50: at(5000), p90: at(9000), p99: at(9900), p99_9: at(9990), p99_99: at(9999) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_a_nanosecond_survives_grouping() {
        let mut recorder = Recorder::new();
        recorder.record_group(113, 1000, 1000);
        assert_eq!(recorder.group(), 1000);
        assert_eq!((recorder.calls(), recorder.samples()), (1000, 1));
        assert_eq!(recorder.summary().min, Some(0.113));
        assert_eq!(recorder.summary().mean, Some(0.113));
        assert_eq!(recorder.ns_per_tce(), Some(0.113));
        recorder.record(500, 1000);
        let mut other = Recorder::new();
        other.record(90, 1000);
        other.merge(&recorder);
        assert_eq!(
            (recorder.best_ns_per_tce(), other.best_ns_per_tce()),
            (Some(0.113), Some(0.09))
        );
    }

    #[test]
    fn the_best_round_is_that_of_a_whole_round() {
        let mut recorder = Recorder::new();
        recorder.end_round();
        assert_eq!(recorder.best_round_ns_per_tce(), None);
        for (ns, end) in [(100, false), (20, true), (50, false), (90, true), (1, false)] {
            recorder.record(ns, 10);
            if end {
                recorder.end_round();
            }
        }
        assert_eq!(recorder.best_ns_per_tce(), Some(0.1));
        assert_eq!(recorder.best_round_ns_per_tce(), Some(6.0));
        let mut other = Recorder::new();
        other.record(50, 10);
        other.end_round();
        recorder.merge(&other);
        assert_eq!(recorder.best_round_ns_per_tce(), Some(5.0));
    }

    #[test]
    fn percentiles_need_ten_samples_beyond() {
        let mut recorder = Recorder::new();
        for ns in 1..=19 {
            recorder.record(ns, 1);
        }
        assert_eq!(recorder.summary().p.p50, None);
        recorder.record(20, 1);
        let p50 = recorder.summary().p.p50.unwrap();
        assert!((p50 - 10.0).abs() < 0.01, "three digits: {p50}");
        for ns in 21..=999 {
            recorder.record(ns, 1);
        }
        let p = recorder.summary().p;
        assert!(p.p90.is_some() && p.p99.is_none(), "{p:?}");
        recorder.record(1000, 1);
        let p = recorder.summary().p;
        assert!((p.p99.unwrap() - 990.0).abs() < 1.0, "{p:?}");
        assert_eq!(p.p99_9, None);
    }

    #[test]
    fn percentiles_never_leave_the_measured_range() {
        let mut recorder = Recorder::new();
        for _ in 0..100_000 {
            recorder.record(1_234_567, 1);
        }
        let summary = recorder.summary();
        assert_eq!(summary.p.p99_99, Some(1_234_567.0));
        assert_eq!((summary.min, summary.max), (Some(1_234_567.0), Some(1_234_567.0)));
    }

    #[test]
    fn merging_adds_samples_and_totals() {
        let (mut a, mut b) = (Recorder::new(), Recorder::new());
        a.record(100, 512);
        a.record(300, 512);
        b.record_group(80, 8, 8);
        b.record_untimed(1000, 5, 50);
        let sum = Recorder::merged([&a, &b]);
        assert_eq!((sum.calls(), sum.tces(), sum.samples()), (15, 1082, 3));
        assert_eq!((sum.total_ns(), sum.group()), (1480, 8));
        assert_eq!((sum.summary().min, sum.summary().max), (Some(10.0), Some(300.0)));
        assert_eq!(sum.histogram().len(), 3);
    }

    #[test]
    fn an_empty_recorder_has_no_values() {
        let mut recorder = Recorder::new();
        recorder.record_group(5, 0, 0);
        assert_eq!(recorder.summary(), Summary::default());
        assert_eq!(recorder.ns_per_tce(), None);
        assert_eq!(recorder.bars(12), "");
    }

    #[test]
    fn out_of_range_times_are_clamped_not_lost() {
        let mut recorder = Recorder::new();
        recorder.record(0, 1);
        recorder.record(u64::MAX, 1);
        assert_eq!(recorder.samples(), 2);
        assert_eq!(recorder.summary().min, Some(0.001));
        assert_eq!(recorder.summary().max, Some(3.6e12));
    }

    #[test]
    fn bars_show_shape_and_rare_samples() {
        let mut recorder = Recorder::new();
        for _ in 0..1000 {
            recorder.record(100, 1);
        }
        for _ in 0..500 {
            recorder.record(1000, 1);
        }
        recorder.record(10_000, 1);
        let bars = recorder.bars(3);
        assert_eq!(bars, "█▄▁");
        let wide: Vec<char> = recorder.bars(12).chars().collect();
        assert_eq!(wide.len(), 12);
        assert_eq!((wide[0], wide[1], wide[11]), ('█', ' ', '▁'));
        let mut single = Recorder::new();
        single.record(5, 1);
        assert_eq!(single.bars(5), "  █  ");
    }
}
