// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the times of each operation went in the course of a run; those of several runs in one plot.

use super::html::Html;
use super::operations::{ids, slug};
use super::page::section;
use super::results::Shown;
use super::scale::{Scale, span, time};
use super::svg::{About, Series, columns, curve, figure, label, rows};
use super::table::{Cell, plot_table};
use crate::result::{Interval, OpResult};
use crate::style::time_ns;

const SIZE: (u32, u32) = (400, 230);
const LEFT: f64 = 58.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 202.0;
/// More runs than this are hard to tell apart in one plot.
const RUNS: usize = 12;

/// One run, with a hue of its own.
struct Run<'a> {
    series: Series,
    name: String,
    results: &'a [OpResult],
}

/// One operation of it.
struct Course<'a> {
    series: Series,
    name: &'a str,
    intervals: &'a [Interval],
}

/// A line of the plot: its name, its class, its hue if there is one run only, and its value in an interval.
type Line = (&'static str, &'static str, Series, fn(&Interval) -> Option<f64>);

const P99: Line = ("p99", "curve thin", Series(1), |i| i.p99);
const MAX: Line = ("max", "curve few", Series(3), |i| i.max);
const P50: Line = ("p50", "curve", Series(0), |i| i.p50);
const MEAN: Line = ("mean", "curve", Series(0), |i| i.mean);

fn has(results: &[OpResult]) -> bool {
    results.iter().any(|r| r.timeline.is_some())
}

/// Runs that have timelines: of merged documents, those that they are the sum of.
fn runs(shown: &[Shown]) -> Vec<Run<'_>> {
    let merged = shown.iter().any(|s| !s.doc.hosts.is_empty());
    let mut all = Vec::new();
    for one in shown {
        let own = (one.name(), one.doc.results.as_slice());
        let of_hosts = one.doc.hosts.iter().map(|run| {
            (format!("{} {}", one.name(), run.host.hostname).trim().to_owned(), &*run.results)
        });
        for (name, results) in std::iter::once(own).chain(of_hosts).filter(|(_, r)| has(r)) {
            let series = if merged { Series(all.len()) } else { one.series };
            all.push(Run { series, name, results });
        }
    }
    all
}

/// Whether there is anything to be drawn.
pub(super) fn wanted(shown: &[Shown]) -> bool {
    shown.iter().any(|s| has(&s.doc.results) || s.doc.hosts.iter().any(|h| has(&h.results)))
}

pub(super) fn sections(html: &mut Html, shown: &[Shown]) {
    let mut runs = runs(shown);
    if runs.is_empty() {
        return;
    }
    let left_out = runs.len().saturating_sub(RUNS);
    runs.truncate(RUNS);
    let about = "Each operation from the beginning of its phase to its end, in intervals of one length; a call \
                 counts where it began. The thick line is the median, or the mean where intervals have too few \
                 samples for one, the thin one the 99th percentile, the dotted one the longest call.";
    section(html, "intervals", "Within a run", about, |h| {
        if runs.len() > 1 {
            h.tag("ul", &[("class", "key")], |h| {
                for run in &runs {
                    h.tag("li", &[], |h| {
                        run.series.swatch(h);
                        h.text(&run.name);
                    });
                }
            });
        }
        if left_out > 0 {
            let text = format!("{left_out} more runs have timelines and are not drawn.");
            h.leaf("p", &[("class", "about")], &text);
        }
        h.tag("div", &[("class", "cards")], |h| {
            ids(shown).into_iter().for_each(|id| card(h, id, &runs))
        });
    });
}

fn card(html: &mut Html, id: &str, runs: &[Run<'_>]) {
    let mut all = Vec::new();
    for Run { series, name, results } in runs {
        let result = results.iter().find(|r| r.id == id);
        if let Some(intervals) = result.and_then(|r| r.timeline.as_deref()) {
            all.push(Course { series: *series, name, intervals });
        }
    }
    if all.is_empty() {
        return;
    }
    html.tag("article", &[("class", "card")], |h| {
        h.leaf("h3", &[], id);
        plot(h, id, &all);
        table(h, &all);
    });
}

fn plot(html: &mut Html, id: &str, all: &[Course<'_>]) {
    let every = || all.iter().flat_map(|course| course.intervals);
    let centre = if every().any(|i| i.p50.is_some()) { P50 } else { MEAN };
    let lines = [MAX, P99, centre];
    let values = every().flat_map(|i| lines.iter().filter_map(move |(.., of)| of(i)));
    let (Some(span), Some(end)) = (span(values), every().map(end).reduce(f64::max)) else { return };
    let about = About {
        id: format!("{}-intervals", slug(id)),
        title: "Latency in the course of the run".to_owned(),
        text: format!("{id}, time of a call by when it began. {}", in_words(all, centre)),
    };
    figure(html, &about, &[SIZE], |h, width| {
        let right = f64::from(width) - if all.len() == 1 { 42.0 } else { 12.0 };
        let y = Scale::log(span, (BOTTOM, TOP));
        let x = Scale::linear((0.0, end), (LEFT, right));
        rows(h, &y, (LEFT, right), time);
        let ticks: Vec<_> = x.ticks().into_iter().map(|t| (t, from_start(t))).collect();
        columns(h, &x, &ticks, (TOP, BOTTOM));
        let mut lowest = f64::NEG_INFINITY;
        for (name, class, hue, of) in lines {
            for course in all {
                let series = if all.len() == 1 { hue } else { course.series };
                let mut last = None;
                for steps in steps(course.intervals, of) {
                    let places: Vec<_> =
                        steps.iter().map(|(t, ns)| (x.at(*t), y.at(*ns))).collect();
                    curve(h, &format!("{class} {}", series.stroke()), &places);
                    last = places.last().map(|(_, at)| *at);
                }
                if let (1, Some(at)) = (all.len(), last) {
                    // From above: each below the one before.
                    lowest = at.max(lowest + 11.0);
                    label(h, (right + 5.0, lowest + 3.5), "start", "", name);
                }
            }
        }
    });
}

/// Stretches of intervals that follow on each other and have a value: two points for each.
fn steps(intervals: &[Interval], of: fn(&Interval) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let mut all: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut before = None;
    for interval in intervals {
        let Some(ns) = of(interval) else {
            before = None;
            continue;
        };
        let start = interval.start_ns as f64;
        if before != Some(start) {
            all.push(Vec::new());
        }
        before = Some(end(interval));
        all.last_mut().into_iter().for_each(|s| s.extend([(start, ns), (end(interval), ns)]));
    }
    all
}

fn end(interval: &Interval) -> f64 {
    interval.start_ns as f64 + interval.length_ns as f64
}

/// 0 is no time that has a unit.
fn from_start(ns: f64) -> String {
    if ns == 0.0 { "0".to_owned() } else { time(ns) }
}

fn in_words(all: &[Course<'_>], (name, _, _, of): Line) -> String {
    let one = |course: &Course<'_>| {
        let of_all = |of: fn(&Interval) -> Option<f64>| course.intervals.iter().filter_map(of);
        let least = of_all(of).reduce(f64::min);
        let most = of_all(of).reduce(f64::max);
        let longest = of_all(MAX.3).reduce(f64::max);
        let told = |ns: Option<f64>| ns.map_or_else(|| "–".to_owned(), time_ns);
        let who = if course.name.is_empty() { String::new() } else { format!("{}: ", course.name) };
        let n = course.intervals.len();
        format!(
            "{who}{n} intervals, {name} from {} to {}, longest {}.",
            told(least),
            told(most),
            told(longest)
        )
    };
    all.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn table(html: &mut Html, all: &[Course<'_>]) {
    let names = ["calls", "TCEs", "mean", "p50", "p99", "max", "kills"].map(str::to_owned);
    let row = |course: &Course<'_>, i: &Interval| {
        let from = from_start(i.start_ns as f64);
        let name = format!("{} {from} to {}", course.name, time(end(i))).trim().to_owned();
        let times = [i.mean, i.p50, i.p99, i.max].map(Cell::time);
        let kills = i.kills.map_or_else(Cell::none, Cell::count);
        let counts = [i.calls, i.tces].map(Cell::count);
        (name, counts.into_iter().chain(times).chain([kills]).collect())
    };
    let rows = all.iter().flat_map(|course| course.intervals.iter().map(|i| row(course, i)));
    plot_table(html, "began", &names, rows.collect());
}
