// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The plots of an operation: percentiles as HdrHistogram's own plotter has them, and the histogram.

use hdrhistogram::Histogram;

use super::html::Html;
use super::scale::{Scale, number, span, time};
use super::svg::{About, Series, columns, curve, figure, rows};
use super::table::{Cell, plot_table};
use crate::recorder::MIN_BEYOND;
use crate::style::{thousands, time_ns};

const SIZE: (u32, u32) = (400, 250);
const LEFT: f64 = 58.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 222.0;
const PS_PER_NS: f64 = 1e3;
/// Bars of a histogram.
const BINS: usize = 48;
/// Points for each halving of what is left.
const STEPS: usize = 6;
/// The percentiles of the tables, in parts of 10,000, and their names.
const TOLD: [(u64, &str); 7] = [
    (0, "min"),
    (5000, "50 %"),
    (9000, "90 %"),
    (9900, "99 %"),
    (9990, "99.9 %"),
    (9999, "99.99 %"),
    (10_000, "max"),
];

/// The samples of one document for an operation.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) series: Series,
    pub(super) name: String,
    pub(super) hist: Histogram<u64>,
    /// Exact, in ns; the histogram's are rounded to three digits.
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Samples {
    /// As the document tells it: nothing that fewer than [`MIN_BEYOND`] samples are beyond.
    fn told(&self, part: u64) -> Option<f64> {
        match part {
            0 => Some(self.min),
            10_000 => Some(self.max),
            _ => {
                let beyond = u128::from(self.hist.len()) * u128::from(10_000 - part) / 10_000;
                (beyond >= u128::from(MIN_BEYOND)).then(|| self.at(part as f64 / 1e4))
            }
        }
    }

    fn at(&self, quantile: f64) -> f64 {
        let ps = self.hist.value_at_quantile(quantile) as f64;
        (ps / PS_PER_NS).clamp(self.min, self.max)
    }

    /// Points of the curve: 1/(1-p) and ns. Those of the second part have fewer than [`MIN_BEYOND`] samples
    /// beyond them.
    fn points(&self) -> [Vec<(f64, f64)>; 2] {
        let total = self.hist.len() as f64;
        let firm = total / MIN_BEYOND as f64;
        let mut parts = [vec![(1.0, self.min)], Vec::new()];
        let halvings = total.max(2.0).log2();
        for step in 1..=(halvings * STEPS as f64) as usize {
            let beyond = (step as f64 / STEPS as f64).exp2();
            let point = (beyond, self.at(1.0 - 1.0 / beyond));
            if beyond > firm && parts[1].is_empty() {
                parts[1].extend(parts[0].last().copied());
            }
            parts[usize::from(beyond > firm)].push(point);
        }
        let last = usize::from(total > firm);
        if parts[last].is_empty() {
            parts[1].extend(parts[0].last().copied());
        }
        parts[last].push((total.max(2.0), self.max));
        parts
    }
}

fn samples_in_words(all: &[Samples]) -> String {
    let one = |s: &Samples| {
        let told = |part| s.told(part).map_or_else(|| "–".to_owned(), time_ns);
        let who = if s.name.is_empty() { String::new() } else { format!("{}: ", s.name) };
        format!("{who}median {}, 99 % {}, longest {}.", told(5000), told(9900), time_ns(s.max))
    };
    all.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Latency by percentile, both axes logarithmic.
pub(super) fn percentiles(html: &mut Html, id: &str, all: &[Samples]) {
    let Some(span) = span(all.iter().flat_map(|s| [s.min, s.max])) else { return };
    let most = all.iter().map(|s| s.hist.len()).max().unwrap_or(0) as f64;
    let about = About {
        id: format!("{id}-percentiles"),
        title: "Latency by percentile".to_owned(),
        text: format!("{id}, time of a call by percentile. {}", samples_in_words(all)),
    };
    figure(html, &about, &[SIZE], |h, width| {
        let right = f64::from(width) - 12.0;
        let y = Scale::log(span, (BOTTOM, TOP));
        let x = Scale::log((1.0, most.max(100.0)), (LEFT, right));
        rows(h, &y, (LEFT, right), time);
        columns(h, &x, &percents(most.max(100.0)), (TOP, BOTTOM));
        for samples in all {
            let place = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
                points.iter().map(|(p, ns)| (x.at(*p), y.at(*ns))).collect()
            };
            let [firm, few] = samples.points();
            let hue = samples.series.stroke();
            curve(h, &format!("curve few {}", hue.replace(" d1", "")), &place(&few));
            curve(h, &format!("curve {hue}"), &place(&firm));
        }
    });
    let heads: Vec<String> = all.iter().map(|s| head(s, "time of a call")).collect();
    let row = |(part, name): &(u64, &str)| {
        (name.to_string(), all.iter().map(|s| Cell::time(s.told(*part))).collect())
    };
    plot_table(html, "percentile", &heads, TOLD.iter().map(row).collect());
}

fn head(samples: &Samples, what: &str) -> String {
    if samples.name.is_empty() { what.to_owned() } else { samples.name.clone() }
}

/// Percentiles at decades of 1/(1-p), as many as have room.
fn percents(most: f64) -> Vec<(f64, String)> {
    let names = ["0", "90", "99", "99.9", "99.99", "99.999", "99.9999", "99.99999"];
    let all = (0..names.len()).map(|n| (10f64.powi(n as i32), format!("{} %", names[n])));
    all.take_while(|(value, _)| *value <= most * 1.0001).collect()
}

/// How often which time was taken, on a logarithmic axis both ways.
pub(super) fn histogram(html: &mut Html, id: &str, all: &[Samples]) {
    let Some((low, high)) = span(all.iter().flat_map(|s| [s.min, s.max])) else { return };
    let step = (high / low).powf(1.0 / BINS as f64);
    let edge = |n: usize| low * step.powi(n as i32);
    let counts: Vec<Vec<u64>> = all.iter().map(|s| binned(s, low, step)).collect();
    let most = counts.iter().flatten().copied().max().unwrap_or(1) as f64;
    let about = About {
        id: format!("{id}-histogram"),
        title: "Samples by latency".to_owned(),
        text: format!("{id}, how many samples took how long. {}", samples_in_words(all)),
    };
    figure(html, &about, &[SIZE], |h, width| {
        let right = f64::from(width) - 12.0;
        let x = Scale::log((low, high), (LEFT, right));
        // A bin with one sample has to be seen.
        let y = Scale::log((0.5, most * 1.2), (BOTTOM, TOP));
        rows(h, &y, (LEFT, right), number);
        let ticks: Vec<_> = thinned(&x).into_iter().map(|t| (t, time(t))).collect();
        columns(h, &x, &ticks, (TOP, BOTTOM));
        for (samples, counts) in all.iter().zip(&counts) {
            let mut steps = vec![(x.at(low), BOTTOM)];
            for (nth, count) in counts.iter().enumerate() {
                let height = if *count == 0 { BOTTOM } else { y.at(*count as f64) };
                steps.extend([(x.at(edge(nth)), height), (x.at(edge(nth + 1)), height)]);
            }
            steps.push((x.at(high), BOTTOM));
            curve(h, &format!("area {}", samples.series.fill()), &steps);
            curve(h, &format!("curve thin {}", samples.series.stroke()), &steps);
        }
    });
    let heads: Vec<String> = all.iter().map(|s| head(s, "samples")).collect();
    let filled = (0..BINS).filter(|n| counts.iter().any(|c| c[*n] > 0));
    let row = |n: usize| {
        let cells = counts.iter().map(|c| Cell::count(c[n])).collect();
        (format!("{} to {}", time(edge(n)), time(edge(n + 1))), cells)
    };
    plot_table(html, "time of a call", &heads, filled.map(row).collect());
}

/// At most five: numbers with units are wide.
fn thinned(x: &Scale) -> Vec<f64> {
    let ticks = x.ticks();
    let every = ticks.len().div_ceil(5);
    ticks.into_iter().step_by(every).collect()
}

/// Samples in each of [`BINS`] bins, each `step` times as wide as the one before.
fn binned(samples: &Samples, low: f64, step: f64) -> Vec<u64> {
    let mut counts = vec![0u64; BINS];
    for recorded in samples.hist.iter_recorded() {
        let ps = samples.hist.median_equivalent(recorded.value_iterated_to()) as f64;
        let ns = (ps / PS_PER_NS).clamp(samples.min, samples.max);
        let nth = ((ns / low).ln() / step.ln()) as usize;
        let bin = &mut counts[nth.min(BINS - 1)];
        *bin = bin.saturating_add(recorded.count_at_value());
    }
    counts
}

/// Of a number of samples, for the head of a card.
pub(super) fn in_short(all: &[Samples]) -> String {
    match all {
        [one] => format!("{} samples", thousands(one.hist.len())),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;

    fn samples(times: impl Iterator<Item = u64>) -> Samples {
        let mut recorder = Recorder::new();
        times.for_each(|ns| recorder.record(ns, 1));
        let summary = recorder.summary();
        Samples {
            series: Series(0),
            name: String::new(),
            hist: recorder.histogram().clone(),
            min: summary.min.unwrap(),
            max: summary.max.unwrap(),
        }
    }

    #[test]
    fn the_curve_goes_from_the_shortest_to_the_longest_and_never_falls() {
        for count in [1, 2, 9, 10, 11, 25, 1000, 12_345] {
            let samples = samples(1..=count);
            let [firm, few] = samples.points();
            let all: Vec<_> = firm.iter().chain(&few).collect();
            assert_eq!(*all[0], (1.0, 1.0));
            assert_eq!(all[all.len() - 1].1, count as f64, "{count}");
            assert!(all.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{count}: {all:?}");
            // Ten samples lie beyond each point of the first part, but its first.
            assert!(firm[1..].iter().all(|(p, _)| count as f64 / p >= 10.0 - 1e-9), "{count}");
            assert!(!few.is_empty(), "{count}");
        }
    }

    #[test]
    fn no_sample_is_lost_in_the_bins() {
        let samples = samples((1..=5000).map(|n| n * n));
        let (low, high) = span([samples.min, samples.max].into_iter()).unwrap();
        let counts = binned(&samples, low, (high / low).powf(1.0 / BINS as f64));
        assert_eq!(counts.iter().sum::<u64>(), 5000);
        assert!(counts[0] > 0 || counts[1] > 0);
        assert!(counts[BINS - 2] > counts[BINS / 2]);
    }

    #[test]
    fn the_table_says_what_the_document_says() {
        let mut recorder = Recorder::new();
        (1..=2000u64).for_each(|ns| recorder.record(ns * 7, 1));
        let p = recorder.summary().p;
        let samples = samples((1..=2000).map(|ns| ns * 7));
        let told = [5000, 9000, 9900, 9990, 9999].map(|part| samples.told(part));
        assert_eq!(told, [p.p50, p.p90, p.p99, p.p99_9, p.p99_99]);
    }
}
