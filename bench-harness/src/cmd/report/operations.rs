// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was timed: the table, the plots of each operation, and how it went from run to run.

use super::html::Html;
use super::intervals;
use super::overview::{Row, ranges};
use super::page::section;
use super::plots::{self, Samples};
use super::results::Shown;
use super::svg::About;
use super::table::{Cell, boxed, heads, plot_table};
use super::timeline::{self, Point};
use crate::cmd::documents::histogram;
use crate::result::{OpResult, operation_ids};

const HEADS: [&str; 14] = [
    "operation",
    "calls",
    "TCEs",
    "ns/TCE",
    "best",
    "limit",
    "of limit",
    "min",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "p99.99",
    "max",
];

pub(super) fn ids(shown: &[Shown]) -> Vec<&str> {
    operation_ids(shown.iter().map(|s| &s.doc))
}

/// Each operation's results, one after the other.
pub(super) fn by_operation(shown: &[Shown]) -> Vec<(&Shown, &OpResult)> {
    let of = |id| shown.iter().filter_map(move |s| s.doc.operation(id).map(|r| (s, r)));
    ids(shown).into_iter().flat_map(of).collect()
}

/// A name for a line of a plot: the operation, and of which document if there are several.
pub(super) fn line_name(one: &Shown, result: &OpResult) -> String {
    format!("{} {}", result.id, one.letter).trim().to_owned()
}

pub(super) fn sections(html: &mut Html, shown: &[Shown]) {
    let all = by_operation(shown);
    if all.is_empty() {
        section(html, "operations", "Operations", "", |h| {
            h.leaf("p", &[("class", "about")], "Nothing was timed before the run ended.");
        });
        return;
    }
    let about = "ns/TCE is the mean over all calls, best the least of any sample. The limit is what the same \
                 memory allows a plain loop of stores, measured in turns in the same run.";
    section(html, "operations", "Operations", about, |h| {
        h.tag("div", &[("class", "card")], |h| {
            let row = |(one, result): &(&Shown, &OpResult)| Row {
                name: line_name(one, result),
                series: one.series,
                value: result.latency,
            };
            ranges(h, &all.iter().map(row).collect::<Vec<_>>());
        });
        h.tag("div", &[("class", "card")], |h| operations(h, shown, &all));
        groups(h, &all);
    });
    if all.iter().any(|(_, r)| r.hist.is_some()) {
        let about = "Percentiles as HdrHistogram's plotter draws them: each step to the right is a tenth of \
                     the calls that were left. Dotted where fewer than 10 samples lie beyond. Both axes of \
                     all plots are logarithmic.";
        section(html, "plots", "Percentiles and histograms", about, |h| {
            key(h, shown);
            h.tag("div", &[("class", "cards")], |h| {
                ids(shown).into_iter().for_each(|id| card(h, shown, id));
            });
        });
    }
    intervals::sections(html, shown);
    timelines(html, shown);
}

/// Which colour is which document.
fn key(html: &mut Html, shown: &[Shown]) {
    if shown.len() < 2 {
        return;
    }
    html.tag("ul", &[("class", "key")], |h| {
        for one in shown {
            h.tag("li", &[], |h| {
                one.series.swatch(h);
                h.text(&one.name());
            });
        }
    });
}

fn operations(html: &mut Html, shown: &[Shown], all: &[(&Shown, &OpResult)]) {
    boxed(html, "Time of calls by operation", "", |h| {
        heads(h, &HEADS);
        h.tag("tbody", &[], |h| {
            for (one, result) in all {
                h.tag("tr", &[("data-op", &result.id)], |h| {
                    h.tag("th", &[("scope", "row")], |h| {
                        if shown.len() > 1 {
                            one.series.swatch(h);
                        }
                        h.text(&line_name(one, result));
                    });
                    cells(result).iter().for_each(|c| c.write(h, "td", None));
                });
            }
        });
    });
}

fn cells(result: &OpResult) -> [Cell; 13] {
    let (latency, p) = (&result.latency, &result.latency.p);
    [
        Cell::count(result.count),
        Cell::count(result.tces),
        Cell::per_tce(result.ns_per_tce),
        Cell::per_tce(result.best_ns_per_tce),
        Cell::per_tce(result.limit.as_ref().map(|l| l.ns_per_tce)),
        Cell::share(result.of_limit),
        Cell::time(latency.min),
        Cell::time(p.p50),
        Cell::time(p.p90),
        Cell::time(p.p99),
        Cell::time(p.p99_9),
        Cell::time(p.p99_99),
        Cell::time(latency.max),
    ]
}

/// Which samples are means of several calls.
fn groups(html: &mut Html, all: &[(&Shown, &OpResult)]) {
    let of: Vec<String> = all
        .iter()
        .filter(|(_, r)| r.group > 1)
        .map(|(one, r)| format!("{} (mean of {})", line_name(one, r), r.group))
        .collect();
    if !of.is_empty() {
        let text =
            format!("Too short to be timed alone; each sample is a mean: {}.", of.join(", "));
        html.leaf("p", &[("class", "about")], &text);
    }
}

/// An id as part of another one: no blanks.
pub(super) fn slug(id: &str) -> String {
    id.chars()
        .map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' })
        .collect()
}

/// The plots of one operation.
fn card(html: &mut Html, shown: &[Shown], id: &str) {
    let mut all = Vec::new();
    let mut without = Vec::new();
    for one in shown {
        let Some(result) = one.doc.operation(id) else { continue };
        let Some(data) = &result.hist else { continue };
        match (histogram(data), result.latency.min, result.latency.max) {
            (Ok(hist), Some(min), Some(max)) if !hist.is_empty() && min > 0.0 && max >= min => {
                all.push(Samples { series: one.series, name: one.name(), hist, min, max });
            }
            (Err(why), ..) => without.push(format!("{} {why}", one.letter)),
            _ => without.push(format!("{} its times are none that can be drawn", one.letter)),
        }
    }
    if all.is_empty() && without.is_empty() {
        return;
    }
    html.tag("article", &[("class", "card"), ("id", &format!("op-{}", slug(id)))], |h| {
        h.tag("header", &[], |h| {
            h.leaf("h3", &[], id);
            h.leaf("p", &[], &plots::in_short(&all));
        });
        plots::percentiles(h, &slug(id), &all);
        plots::histogram(h, &slug(id), &all);
        for why in without {
            h.leaf("p", &[("class", "about")], why.trim());
        }
    });
}

/// Single runs by start: those that merged documents are the sum of, instead of the sum.
pub(super) fn runs(shown: &[Shown]) -> Vec<(String, &str, &[OpResult])> {
    let mut all: Vec<(&str, String, &[OpResult])> = Vec::new();
    for one in shown {
        let of = |host: &str| format!("{} {host}", one.name()).trim().to_owned();
        if one.doc.hosts.is_empty() {
            all.push((&one.doc.run.started, of(&one.doc.host.hostname), &one.doc.results));
        }
        for run in &one.doc.hosts {
            all.push((&run.run.started, of(&run.host.hostname), &run.results));
        }
    }
    all.sort_by(|a, b| a.0.cmp(b.0));
    all.into_iter().map(|(started, name, results)| (name, started, results)).collect()
}

fn timelines(html: &mut Html, shown: &[Shown]) {
    let runs = runs(shown);
    if runs.len() < 2 {
        return;
    }
    let about = "One point for each run, in order of their start.";
    section(html, "timeline", "From run to run", about, |h| {
        h.tag("div", &[("class", "cards")], |h| {
            for id in ids(shown) {
                let point = |(name, started, results): &(String, &str, &[OpResult])| {
                    let latency = results.iter().find(|r| r.id == id)?.latency;
                    let about = format!("{name}, {started}");
                    let (min, p50, p99) = (latency.min, latency.p.p50, latency.p.p99);
                    Some(Point { about, min, p50, p99, mark: None })
                };
                let points: Vec<Point> = runs.iter().filter_map(point).collect();
                if points.len() > 1 {
                    h.tag("article", &[("class", "card")], |h| {
                        h.leaf("h3", &[], id);
                        runs_plot(h, id, &points, [runs[0].1, runs[runs.len() - 1].1]);
                    });
                }
            }
        });
    });
}

fn runs_plot(html: &mut Html, id: &str, points: &[Point], ends: [&str; 2]) {
    let about = About {
        id: format!("{}-timeline", slug(id)),
        title: "Latency from run to run".to_owned(),
        text: format!("{id}: 99 %, median and minimum of {} runs.", points.len()),
    };
    timeline::plot(html, &about, points, ends.map(day_and_minute).each_ref().map(String::as_str));
    let row = |p: &Point| (p.about.clone(), [p.min, p.p50, p.p99].map(Cell::time).to_vec());
    let names = ["min", "p50", "p99"].map(str::to_owned);
    plot_table(html, "run", &names, points.iter().map(row).collect());
}

/// Of RFC 3339; other text stays as it is.
pub(super) fn day_and_minute(started: &str) -> String {
    match (started.get(..10), started.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute}"),
        _ => started.to_owned(),
    }
}
