// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the times of an operation went in the course of a phase: intervals of equal length, each with
//! samples of its own.
//!
//! A sample counts in the interval in which its calls began. The histograms of the intervals are coarse, so
//! that all of them are there before the first call: while calls are timed nothing is allocated, and a
//! sample costs one more increment.

use std::time::{Duration, Instant};

use crate::recorder::{HIGHEST_PS, MIN_BEYOND};
use crate::result::Interval;

/// Most intervals.
pub const MOST: usize = 120;
/// Into so many a duration is divided that is known beforehand; there is room for what is over time.
const PLANNED: u32 = 100;
/// No interval is shorter: one has to hold some calls.
const SHORTEST: Duration = Duration::from_millis(1);
/// Pairs of intervals with few samples are joined, as long as there are more than this.
const ENOUGH: usize = 16;
/// log2 of the bins for each doubling.
const BITS: u32 = 6;
const BINS: usize = bin(HIGHEST_PS) + 1;
const PS_PER_NS: f64 = 1000.0;

/// The length of an interval for a phase that goes on for so long, if that is known.
pub fn interval(phase: Option<Duration>) -> Duration {
    phase.map_or(SHORTEST, |phase| (phase / PLANNED).max(SHORTEST))
}

/// The bin of a time: of 1 ps below 128 ps, and a 64th to a 128th of the time above.
const fn bin(ps: u64) -> usize {
    let shift = (ps | 1 << BITS).ilog2() - BITS;
    ((shift as usize) << BITS) + (ps >> shift) as usize
}

/// The longest time of a bin.
const fn longest(bin: usize) -> u64 {
    let shift = (bin >> BITS).saturating_sub(1);
    (((bin - (shift << BITS)) as u64 + 1) << shift) - 1
}

/// What an operation came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    pub(crate) tces: u64,
    pub(crate) ns: u64,
    pub(crate) kills: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    totals: Totals,
    max_ps: u64,
}

impl Row {
    /// Adds what there is `now` and was not `before`.
    const fn add(&mut self, now: &Totals, before: &Totals) {
        self.totals.calls += now.calls - before.calls;
        self.totals.tces += now.tces - before.tces;
        self.totals.ns = self.totals.ns.saturating_add(now.ns - before.ns);
        self.totals.kills += now.kills - before.kills;
    }

    /// Adds another row.
    fn join(&mut self, other: &Self) {
        self.add(&other.totals, &Totals::default());
        self.max_ps = self.max_ps.max(other.max_ps);
    }

    fn is_empty(&self) -> bool {
        self.totals == Totals::default()
    }
}

/// One operation's on one thread; add them up at the end.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    begin: Instant,
    length_ns: u64,
    /// The current one: which, when it ends, and what there was when it began.
    row: usize,
    until: Instant,
    before: Totals,
    rows: Vec<Row>,
    /// [`BINS`] for each row.
    bins: Vec<u64>,
    /// When the last calls had ended, from the beginning.
    end_ns: u64,
}

impl Timeline {
    /// Of intervals of `length`, the first of which begins at `begin`.
    pub(crate) fn new(begin: Instant, length: Duration) -> Self {
        Self {
            begin,
            length_ns: (length.as_nanos() as u64).max(1),
            row: 0,
            until: begin + length,
            before: Totals::default(),
            rows: vec![Row::default(); MOST],
            bins: vec![0; MOST * BINS],
            end_ns: 0,
        }
    }

    /// True if the current interval has ended at `at`.
    #[inline]
    pub(crate) fn is_over(&self, at: Instant) -> bool {
        at >= self.until
    }

    /// Goes on to the interval that `at` is in; until then the recorder has come to `now`.
    pub(crate) fn go_on(&mut self, at: Instant, now: Totals) {
        self.settle(now);
        let since = at.saturating_duration_since(self.begin).as_nanos() as u64;
        while since / self.length_ns >= MOST as u64 {
            self.join();
        }
        self.row = (since / self.length_ns) as usize;
        let until = self.length_ns.saturating_mul(self.row as u64 + 1);
        self.until = self.begin + Duration::from_nanos(until);
    }

    /// Adds a sample to the current interval.
    #[inline]
    pub(crate) fn sample(&mut self, ps: u64) {
        let row = &mut self.rows[self.row];
        row.max_ps = row.max_ps.max(ps);
        self.bins[self.row * BINS + bin(ps)] += 1;
    }

    /// Leaves out the time that has passed since nothing was measured any more.
    pub(crate) fn skip(&mut self, pause: Duration) {
        self.begin += pause;
        self.until += pause;
    }

    /// Ends the last interval at `at`.
    pub(crate) fn end(&mut self, at: Instant, now: Totals) {
        self.settle(now);
        self.end_ns = at.saturating_duration_since(self.begin).as_nanos() as u64;
    }

    fn settle(&mut self, now: Totals) {
        self.rows[self.row].add(&now, &self.before);
        self.before = now;
    }

    /// Joins each two intervals to one.
    fn join(&mut self) {
        for nth in 1..MOST {
            let row = std::mem::take(&mut self.rows[nth]);
            self.rows[nth / 2].join(&row);
            let (to, from) = self.bins.split_at_mut(nth * BINS);
            let to = &mut to[nth / 2 * BINS..][..BINS];
            // Memory that nobody has written to is not even there yet.
            for (to, from) in to.iter_mut().zip(from).filter(|(_, from)| **from > 0) {
                *to += std::mem::take(from);
            }
        }
        self.length_ns = self.length_ns.saturating_mul(2);
        self.row /= 2;
    }

    /// Adds another thread's, whose intervals began as long as these; both have ended.
    pub(crate) fn add(&mut self, other: &Self) {
        while self.length_ns < other.length_ns {
            self.join();
        }
        let factor = (self.length_ns / other.length_ns) as usize;
        for (nth, row) in other.rows.iter().enumerate() {
            self.rows[nth / factor].join(row);
            let from = &other.bins[nth * BINS..][..BINS];
            let to = &mut self.bins[nth / factor * BINS..][..BINS];
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
        self.end_ns = self.end_ns.max(other.end_ns);
    }

    /// The intervals in which something was done. Where most have too few samples for a median, pairs are
    /// joined first.
    pub(crate) fn intervals(mut self) -> Vec<Interval> {
        while self.rows.iter().rposition(|row| !row.is_empty()) >= Some(ENOUGH) && self.is_thin() {
            self.join();
        }
        (0..MOST).filter(|nth| !self.rows[*nth].is_empty()).map(|nth| self.interval(nth)).collect()
    }

    /// True if most intervals have too few samples for a median.
    fn is_thin(&self) -> bool {
        let with = self.rows.iter().filter(|row| !row.is_empty()).count();
        let told = self.bins.chunks_exact(BINS).filter(|bins| quantile(bins, 50).is_some());
        told.count() * 2 < with
    }

    fn interval(&self, nth: usize) -> Interval {
        let Row { totals: Totals { calls, tces, ns, kills }, max_ps } = self.rows[nth];
        let start_ns = self.length_ns.saturating_mul(nth as u64);
        let bins = &self.bins[nth * BINS..][..BINS];
        let at = |percent| quantile(bins, percent).map(|ps| ps.min(max_ps) as f64 / PS_PER_NS);
        let mean = (ns as f64 * PS_PER_NS / calls as f64).round().max(1.0) / PS_PER_NS;
        Interval {
            start_ns,
            length_ns: self.end_ns.saturating_sub(start_ns).clamp(1, self.length_ns),
            calls,
            tces,
            mean: (calls > 0).then_some(mean),
            p50: at(50),
            p99: at(99),
            max: (max_ps > 0).then_some(max_ps as f64 / PS_PER_NS),
            kills: Some(kills),
        }
    }
}

/// The longest time of the bin that holds a percentile; none with fewer than [`MIN_BEYOND`] samples beyond.
fn quantile(bins: &[u64], percent: u64) -> Option<u64> {
    let samples: u64 = bins.iter().sum();
    let beyond = u128::from(samples) * u128::from(100 - percent) / 100;
    if beyond < u128::from(MIN_BEYOND) {
        return None;
    }
    let wanted = (u128::from(samples) * u128::from(percent)).div_ceil(100);
    let mut seen = 0;
    let reached = |count: &u64| {
        seen += u128::from(*count);
        seen >= wanted
    };
    bins.iter().position(reached).map(longest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::recorder::Recorder;

    const MS: u64 = 1_000_000;

    /// Numbers below `limit`, always the same.
    struct Dice(u64);

    impl Dice {
        const fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % limit
        }
    }

    /// Calls as an oracle keeps them: every one.
    #[derive(Clone, Copy)]
    struct Calls {
        start: u64,
        ns: u64,
        count: u64,
        tces: u64,
        kills: u64,
    }

    impl Calls {
        const fn ps(&self) -> u64 {
            let ps = (self.ns * 1000 + self.count / 2) / self.count;
            if ps > 0 { ps } else { 1 }
        }
    }

    /// One thread's calls over some `ms`, one after another with gaps.
    fn calls(dice: &mut Dice, ms: u64, most: u64) -> Vec<Calls> {
        let (mut all, mut start) = (Vec::new(), dice.below(MS));
        while start < ms * MS && (all.len() as u64) < most {
            let ns = match dice.below(2000) {
                // A hiccup of several intervals.
                0 => dice.below(5 * MS),
                n => n * dice.below(2),
            };
            let (count, kills) = (1 + dice.below(2) * 15, dice.below(4));
            all.push(Calls { start, ns, count, tces: count * dice.below(9), kills });
            start += ns + dice.below(2 * ms * MS / most);
        }
        all
    }

    /// Has a recorder see them, with a pause in between that does not count.
    fn recorded(calls: &[Calls], begin: Instant, length: u64, end: u64) -> Recorder {
        let mut recorder = Recorder::with_timeline(begin, Duration::from_nanos(length));
        let pause = Duration::from_millis(77);
        let (mut kills, mut late) = (0, Duration::ZERO);
        for (nth, one) in calls.iter().enumerate() {
            if nth == calls.len() / 2 {
                recorder.skip(pause);
                late = pause;
            }
            recorder.at(begin + late + Duration::from_nanos(one.start), kills);
            match one.count {
                1 => recorder.record(one.ns, one.tces),
                count => recorder.record_group(one.ns, count, one.tces),
            }
            kills += one.kills;
        }
        recorder.end_timeline(begin + late + Duration::from_nanos(end), kills);
        recorder
    }

    /// By the words of this module: calls by the interval that they began in.
    fn sorted(all: &[Calls], mut length: u64) -> (u64, BTreeMap<u64, Vec<Calls>>) {
        let in_intervals = |length| {
            let mut intervals: BTreeMap<u64, Vec<Calls>> = BTreeMap::new();
            all.iter().for_each(|c| intervals.entry(c.start / length).or_default().push(*c));
            intervals
        };
        loop {
            let intervals = in_intervals(length);
            let last = *intervals.keys().next_back().unwrap();
            let told = intervals.values().filter(|calls| calls.len() >= 20).count();
            if last < 16 || last < 120 && told * 2 >= intervals.len() {
                return (length, intervals);
            }
            length *= 2;
        }
    }

    /// How many 99th percentiles were told.
    fn compare(intervals: &[Interval], all: &[Calls], length: u64, end: u64) -> usize {
        let (length, wanted) = sorted(all, length);
        assert_eq!(intervals.len(), wanted.len());
        assert!(intervals.len() <= MOST);
        for (interval, (nth, calls)) in intervals.iter().zip(&wanted) {
            let sum = |of: fn(&Calls) -> u64| calls.iter().map(of).sum::<u64>();
            let start = nth * length;
            assert_eq!(interval.start_ns, start);
            assert_eq!(interval.length_ns, length.min(end - start).max(1));
            assert_eq!((interval.calls, interval.tces), (sum(|c| c.count), sum(|c| c.tces)));
            assert_eq!(interval.kills, Some(sum(|c| c.kills)));
            let mean = sum(|c| c.ns) as f64 / interval.calls as f64;
            assert!((interval.mean.unwrap() - mean).abs() <= 0.0011, "{interval:?} {mean}");
            let mut ps: Vec<u64> = calls.iter().map(Calls::ps).collect();
            ps.sort_unstable();
            assert_eq!(interval.max, Some(ps[ps.len() - 1] as f64 / 1000.0));
            for (told, percent, least) in [(interval.p50, 50, 20), (interval.p99, 99, 1000)] {
                assert_eq!(told.is_some(), ps.len() >= least, "{percent} of {}", ps.len());
                let Some(told) = told else { continue };
                let exact = ps[(ps.len() * percent).div_ceil(100) - 1] as f64 / 1000.0;
                assert!(told >= exact && told <= exact * (1.0 + 1.0 / 64.0), "{told} for {exact}");
            }
        }
        intervals.iter().filter(|i| i.p99.is_some()).count()
    }

    #[test]
    fn intervals_are_what_keeping_every_call_gives() {
        let begin = Instant::now();
        let mut dice = Dice(1);
        let (mut joined, mut firm) = (0, 0);
        // Milliseconds, calls of each thread at most, length of an interval in microseconds.
        for (ms, most, length) in [
            (100, 20_000, 1000),
            (100, 200_000, 1000),
            (500, 3000, 1000),
            (1000, 37, 10_000),
            (119, 4000, 1000),
            (121, 4000, 1000),
            (3, 5000, 7),
            (5, 1, 1000),
        ] {
            let threads: Vec<_> =
                (0..3).map(|n| calls(&mut dice, ms / (n + 1) + 1, most)).collect();
            let all: Vec<Calls> = threads.iter().flatten().copied().collect();
            let end = all.iter().map(|c| c.start + c.ns).max().unwrap();
            let parts: Vec<_> =
                threads.iter().map(|t| recorded(t, begin, length * 1000, end)).collect();
            let mut sum = Recorder::merged(&parts);
            let intervals = sum.take_timeline().unwrap();
            firm += compare(&intervals, &all, length * 1000, end);
            joined += usize::from(intervals[0].length_ns > length * 1000);
            assert!(sum.take_timeline().is_none());
        }
        assert!((2..8).contains(&joined) && firm > 20, "both have to be seen: {joined}, {firm}");
    }

    #[test]
    fn a_sum_has_a_timeline_if_all_parts_have_one() {
        let begin = Instant::now();
        let with = recorded(&calls(&mut Dice(3), 10, 100), begin, MS, 11 * MS);
        let mut without = Recorder::new();
        without.record(5, 1);
        assert!(Recorder::merged([&with, &with]).take_timeline().is_some());
        assert!(Recorder::merged([&with, &without]).take_timeline().is_none());
        assert!(Recorder::merged([&without, &with]).take_timeline().is_none());
        // Of nothing there is none.
        let mut nothing = Recorder::with_timeline(begin, Duration::from_millis(1));
        nothing.end_timeline(begin, 0);
        assert!(nothing.take_timeline().is_none());
    }

    #[test]
    fn bins_hold_their_times_and_are_narrow() {
        for nth in 0..BINS {
            assert_eq!(bin(longest(nth)), nth);
            assert!(nth == 0 || bin(longest(nth - 1) + 1) == nth);
        }
        let mut dice = Dice(2);
        for _ in 0..10_000 {
            let ps = (1 + dice.below(1 << 31)) << dice.below(20);
            let most = longest(bin(ps));
            assert!(ps <= most && most - ps <= ps / 64, "{ps} {most}");
        }
        assert!(longest(BINS - 1) >= HIGHEST_PS);
    }

    #[test]
    fn the_length_follows_from_what_is_planned() {
        let of = |ms| interval(Some(Duration::from_millis(ms)));
        assert_eq!(of(800), Duration::from_millis(8));
        assert_eq!([of(20), of(0), interval(None)], [Duration::from_millis(1); 3]);
    }
}
