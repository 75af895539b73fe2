// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page of a trend.

use super::html::Html;
use super::operations::day_and_minute;
use super::page::{banner, chips, menu, page, section};
use super::results::commit;
use super::svg::About;
use super::table::{Cell, boxed, heads, plot_table, table};
use super::timeline::{self, Mark, Point};
use super::trend::{History, Series, Trend};
use crate::cmd::compare::history::{Change, JUDGED, WINDOW, least};
use crate::cmd::compare::{Metric, Verdict};
use crate::cmd::export::case;
use crate::result::ResultDoc;

/// Builds in the table of a plot, beside those where something changed.
const NEWEST: usize = 100;

pub(super) fn html(trend: &Trend) -> String {
    let title = format!("Trend of {}", trend.folder);
    page(&title, |h| {
        banner(h, &title, |h| {
            chips(h, &head_chips(trend));
            let titles: Vec<_> =
                trend.series.iter().enumerate().map(|(n, s)| (id_of(n), name(s))).collect();
            let mut links = vec![("changes", "Changes")];
            links.extend(titles.iter().map(|(id, name)| (id.as_str(), name.as_str())));
            if !trend.skipped.is_empty() {
                links.push(("left-out", "Left out"));
            }
            menu(h, &links);
        });
        h.tag("main", &[], |h| {
            changes(h, trend);
            for (nth, series) in trend.series.iter().enumerate() {
                one(h, nth, series);
            }
            left_out(h, trend);
        });
    })
}

fn id_of(nth: usize) -> String {
    format!("series-{}", nth + 1)
}

fn newest(series: &Series) -> Option<&ResultDoc> {
    series.docs.last()
}

fn name(series: &Series) -> String {
    newest(series).map_or_else(String::new, |doc| format!("{} on {}", case(doc), doc.host.hostname))
}

fn found(trend: &Trend, verdict: Verdict) -> usize {
    let all = trend.series.iter().flat_map(|s| &s.operations).flat_map(|o| &o.changes);
    all.filter(|(_, change)| change.verdict == verdict).count()
}

fn head_chips(trend: &Trend) -> Vec<(&'static str, String)> {
    let runs: usize = trend.series.iter().map(|s| s.docs.len()).sum();
    let mut all = vec![
        ("", format!("{runs} results")),
        ("", format!("kinds of machine and work: {}", trend.series.len())),
    ];
    match found(trend, Verdict::Regression) {
        0 => all.push(("good", "no regression found".to_owned())),
        n => all.push(("bad", format!("▲ {n} slower"))),
    }
    if let n @ 1.. = found(trend, Verdict::Improvement) {
        all.push(("good", format!("▼ {n} faster")));
    }
    if !trend.skipped.is_empty() {
        all.push(("warn", format!("{} files left out", trend.skipped.len())));
    }
    for series in &trend.series {
        if let Some(doc) = newest(series) {
            let label = ("warn", doc.backend.label.clone());
            if !all.contains(&label) {
                all.push(label);
            }
        }
    }
    all
}

/// All changes, the newest first.
fn changes(html: &mut Html, trend: &Trend) {
    let about = format!(
        "At each commit, up to {WINDOW} runs before it are compared with up to {WINDOW} from it on, by the rule of \
         compare for folders: the interval of the change has to lie beyond the threshold of {:.1} % and beyond \
         what halves of one side differ by. min and p50 are judged. Many commits are many chances for noise: \
         gate with pairs tells for sure.",
        100.0 * crate::cmd::compare::THRESHOLD
    );
    section(html, "changes", "Changes", &about, |h| {
        let mut rows: Vec<(&str, Vec<Cell>)> = Vec::new();
        for series in &trend.series {
            for operation in &series.operations {
                for (metric, change) in &operation.changes {
                    let doc = &series.docs[change.at];
                    let mut cells = vec![
                        Cell::text(operation.id.as_str()),
                        Cell::text(metric.name()),
                        told(change),
                        Cell::text(format!("{:+.1} to {:+.1} %", change.low, change.high)),
                        Cell::text(build(doc)),
                        Cell::text(name(series)),
                    ];
                    cells.insert(0, Cell::text(day_and_minute(&doc.run.started)));
                    rows.push((&doc.run.started, cells));
                }
            }
        }
        rows.sort_by(|a, b| b.0.cmp(a.0));
        let few = trend.series.iter().filter(|s| too_few(s)).count();
        if few > 0 {
            let text = format!(
                "{few} of {} have too few runs to judge: it takes as many on both sides of a commit as \
                 their sections say.",
                trend.series.len()
            );
            h.leaf("p", &[("class", "about")], &text);
        }
        if rows.is_empty() {
            h.leaf("p", &[], "No change was found.");
            return;
        }
        h.tag("div", &[("class", "card")], |h| {
            boxed(h, "Where times changed, the newest first", "words", |h| {
                heads(
                    h,
                    &[
                        "first run",
                        "operation",
                        "metric",
                        "change",
                        "interval",
                        "commit",
                        "machine and work",
                    ],
                );
                h.tag("tbody", &[], |h| {
                    for (_, cells) in &rows {
                        h.tag("tr", &[], |h| cells.iter().for_each(|c| c.write(h, "td", None)));
                    }
                });
            });
        });
    });
}

fn build(doc: &ResultDoc) -> String {
    doc.tool.git.as_deref().map_or("unknown commit".to_owned(), |git| commit(git, doc.tool.dirty))
}

/// Not by colour alone.
fn told(change: &Change) -> Cell {
    let (sign, class) =
        if change.verdict == Verdict::Regression { ("▲", "bad") } else { ("▼", "good") };
    Cell::text(format!("{sign} {:+.1} %", change.percent)).class(class)
}

fn together(series: &Series) -> usize {
    series.operations.len() * JUDGED.len()
}

/// No place has enough runs on both sides.
fn too_few(series: &Series) -> bool {
    let least = least(together(series));
    let enough = |at: &usize| *at >= least && series.docs.len() - at >= least;
    !series.builds.iter().any(enough)
}

fn one(html: &mut Html, nth: usize, series: &Series) {
    let Some(doc) = newest(series) else { return };
    let about = format!(
        "{} · {} · {} runs of {} builds · {} build{}",
        doc.backend.label,
        doc.host.cpu.model.as_deref().unwrap_or(&doc.host.arch),
        series.docs.len(),
        series.builds.len(),
        doc.tool.profile.as_deref().unwrap_or("unknown"),
        if too_few(series) {
            let least = least(together(series));
            format!(" · not judged: no commit has {least} runs before it and {least} from it on")
        } else {
            String::new()
        },
    );
    section(html, &id_of(nth), &name(series), &about, |h| {
        h.tag("div", &[("class", "cards")], |h| {
            for (place, operation) in series.operations.iter().enumerate() {
                h.tag("article", &[("class", "card")], |h| {
                    h.leaf("h3", &[], &operation.id);
                    plot(h, &format!("{}-{}", id_of(nth), place + 1), series, operation);
                });
            }
        });
    });
}

fn plot(html: &mut Html, id: &str, series: &Series, operation: &History) {
    let point = |at: &usize| {
        let doc = &series.docs[*at];
        let latency = doc.operation(&operation.id).map(|r| r.latency).unwrap_or_default();
        let about = format!("{}, {}", day_and_minute(&doc.run.started), build(doc));
        let (min, p50, p99) = (latency.min, latency.p.p50, latency.p.p99);
        Point { about, min, p50, p99, mark: mark(operation, *at) }
    };
    let points: Vec<Point> = operation.runs.iter().map(point).collect();
    let marked: Vec<String> = operation
        .changes
        .iter()
        .map(|(m, c)| {
            format!(
                "{} {} {:+.1} %",
                day_and_minute(&series.docs[c.at].run.started),
                m.name(),
                c.percent
            )
        })
        .collect();
    let about = About {
        id: id.to_owned(),
        title: "min, p50 and p99 of each run".to_owned(),
        text: format!(
            "{}: {} runs in order of time. Changes: {}.",
            operation.id,
            points.len(),
            if marked.is_empty() { "none".to_owned() } else { marked.join("; ") }
        ),
    };
    let day = |at: Option<&usize>| {
        at.map_or_else(String::new, |at| series.docs[*at].run.started.chars().take(10).collect())
    };
    let ends = [day(operation.runs.first()), day(operation.runs.last())];
    timeline::plot(html, &about, &points, [&ends[0], &ends[1]]);
    let names = ["first run", "runs", "min", "p50", "p99", "change"].map(str::to_owned);
    plot_table(html, "commit", &names, builds(series, operation));
}

fn mark(operation: &History, at: usize) -> Option<Mark> {
    let verdicts: Vec<Verdict> =
        operation.changes.iter().filter(|(_, c)| c.at == at).map(|(_, c)| c.verdict).collect();
    if verdicts.contains(&Verdict::Regression) {
        Some(Mark::Slower)
    } else {
        verdicts.contains(&Verdict::Improvement).then_some(Mark::Faster)
    }
}

/// Medians of builds, the newest first.
fn builds(series: &Series, operation: &History) -> Vec<(String, Vec<Cell>)> {
    let mut rows = Vec::new();
    for (nth, from) in series.builds.iter().enumerate().rev() {
        let to = series.builds.get(nth + 1).copied().unwrap_or(series.docs.len());
        let here: Vec<&(Metric, Change)> =
            operation.changes.iter().filter(|(_, c)| (*from..to).contains(&c.at)).collect();
        let runs: Vec<usize> =
            operation.runs.iter().copied().filter(|at| (*from..to).contains(at)).collect();
        let (Some(first), true) = (runs.first(), rows.len() < NEWEST || !here.is_empty()) else {
            continue;
        };
        let median = |metric: Metric| {
            let told = |at: &usize| {
                series.docs[*at].operation(&operation.id).and_then(|r| metric.of(r).ok())
            };
            let ns: Vec<f64> = runs.iter().filter_map(told).collect();
            (!ns.is_empty()).then(|| crate::cmd::compare::median(&ns))
        };
        let doc = &series.docs[*first];
        let mut cells =
            vec![Cell::text(day_and_minute(&doc.run.started)), Cell::count(runs.len() as u64)];
        cells.extend(Metric::ALL.map(|m| Cell::time(median(m))));
        let change = here.iter().map(|(m, c)| format!("{} {:+.1} %", m.name(), c.percent));
        cells.push(match here.first() {
            Some((_, change_here)) => {
                let class = if change_here.verdict == Verdict::Regression { "bad" } else { "good" };
                Cell::text(change.collect::<Vec<_>>().join(", ")).class(class)
            }
            None => Cell::none(),
        });
        rows.push((build(doc), cells));
    }
    rows
}

fn left_out(html: &mut Html, trend: &Trend) {
    if trend.skipped.is_empty() {
        return;
    }
    section(html, "left-out", "Left out", "Files of which nothing is on this page.", |h| {
        let row = |s: &crate::result::Skipped| (s.id.clone(), vec![Cell::text(s.reason.as_str())]);
        let rows: Vec<_> = trend.skipped.iter().map(row).collect();
        h.tag("div", &[("class", "card")], |h| table(h, "Files and why", &["file", "why"], &rows));
    });
}
