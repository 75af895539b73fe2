// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A comparison as the kernel's own benchmarks print theirs: the table of its page-table tests, which
//! goes into cover letters, and the lines of `dma_map_benchmark`. Both are of calls, in whole runs, and
//! know no interval, so the verdict stands below; so does what it was measured on.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Doc;
use super::load::{Side, points};
use crate::hist_io;
use crate::recorder;
use crate::result::{Config, ResultDoc, RunSettings, SweepPoint};
use crate::style::printable;

/// `iommu_map()` and `iommu_unmap()`: averages and minima of new and old, and by how much the new minimum
/// is less. A is old. The two digits of the percentage are digits.
pub(super) fn iommu(doc: &Doc, sides: &[Side; 2]) -> String {
    let mut out = String::new();
    for op in ["map", "unmap"] {
        let rows = rows(sides, op);
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(out, "iommu_{op}()");
        out.push_str("   pgsz  ,avg new,old ns, min new,old ns  , min % (+ve is better)\n");
        for Row { point, call, phase, old, new, .. } in rows {
            let better = (old.min - new.min) / old.min * 100.0;
            let (old_avg, old_min) = (format!("{:.0}", old.mean), format!("{:.0}", old.min));
            let _ = writeln!(
                out,
                "{call:>9},{:7.0},{old_avg:<6},{:8.0},{old_min:<8}, {better:6.2} ({phase}{})",
                new.mean,
                new.min,
                behind(&point)
            );
        }
        out.push('\n');
    }
    end(&mut out, doc);
    out
}

/// Three lines for each phase and side, a line that names both before them. Times have three digits more
/// than the kernel's, where calls of less than 50 ns would be 0.0.
pub(super) fn kernel(doc: &Doc, sides: &[Side; 2]) -> String {
    let mut out = String::new();
    let unmaps = rows(sides, "unmap");
    for map in rows(sides, "map") {
        let unmap = unmaps.iter().find(|row| row.point == map.point && row.phase == map.phase);
        let first = sides[0].docs().find(|doc| doc.point == map.point);
        let (Some(unmap), Some(settings)) = (unmap, first.and_then(settings)) else { continue };
        let node = first.and_then(|d| d.backend.table_nodes.first().copied().flatten());
        let node = node.map_or("-1".to_owned(), |node| node.to_string());
        let mode = if SCATTERED.contains(&map.phase.as_str()) { "SG" } else { "SINGLE" };
        for (name, map_times, unmap_times) in [("A", map.old, unmap.old), ("B", map.new, unmap.new)]
        {
            let (threads, granule) = (settings.threads, map.pages);
            let seconds = settings.duration_s.unwrap_or_default();
            let _ = writeln!(
                out,
                "{name}: {}{}\ndma mapping benchmark({mode}_MODE): threads:{threads} seconds:{seconds} \
                 node:{node} dir:BIDIRECTIONAL granule:{granule}",
                map.phase,
                behind(&map.point)
            );
            for (what, times) in [("map", map_times), ("unmap", unmap_times)] {
                let (mean, deviation) = (times.mean / 1e3, times.deviation / 1e3);
                let _ = writeln!(
                    out,
                    "average {what} latency(us):{mean:.4} standard deviation:{deviation:.4}"
                );
            }
        }
        out.push('\n');
    }
    end(&mut out, doc);
    out
}

/// Phases whose calls are of many pages that do not lie together.
const SCATTERED: [&str; 2] = ["batch", "indirect"];

/// The label of the machine, and what came out.
fn end(out: &mut String, doc: &Doc) {
    let why = doc.reason.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    let verdict = format!("{}; verdict: {}{why}", doc.label, doc.verdict.name());
    let names = format!("old, A: {}; new, B: {}", doc.a.name, doc.b.name);
    let _ = writeln!(out, "{}\n{}", printable(&verdict), printable(&names));
}

/// The point of a sweep, behind a phase.
fn behind(point: &SweepPoint) -> String {
    if point.is_none() { String::new() } else { format!(", {point}") }
}

/// A phase's calls that all have as many pages.
struct Row {
    point: SweepPoint,
    /// As `2^12` or `256*2^12`.
    call: String,
    pages: u64,
    phase: String,
    old: Times,
    new: Times,
}

/// Of calls, in nanoseconds, over all runs of a side.
#[derive(Clone, Copy)]
struct Times {
    mean: f64,
    min: f64,
    deviation: f64,
}

/// What both sides have of an operation, by the size of a call; of a sweep, point by point.
fn rows(sides: &[Side; 2], op: &str) -> Vec<Row> {
    points(sides).into_iter().flat_map(|point| rows_at(sides, point, op)).collect()
}

fn rows_at(sides: &[Side; 2], point: &SweepPoint, op: &str) -> Vec<Row> {
    let mut rows = BTreeMap::new();
    let [a, b] =
        sides.each_ref().map(|side| side.at(point).into_iter().flatten().collect::<Vec<_>>());
    let Some((results, settings)) = a.first().and_then(|d| Some((&d.results, settings(d)?))) else {
        return Vec::new();
    };
    for result in results.iter().filter(|r| r.op == op) {
        let (Some(old), Some(new)) = (times(&a, &result.id), times(&b, &result.id)) else {
            continue;
        };
        // Calls of several sizes have no line.
        if result.count == 0 || !result.tces.is_multiple_of(result.count) {
            continue;
        }
        let pages = result.tces / result.count;
        let shift = result.own_table.as_ref().map_or(settings.page_shift, |own| own.page_shift);
        let call = if pages == 1 { format!("2^{shift}") } else { format!("{pages}*2^{shift}") };
        let phase = printable(result.id.split('.').next().unwrap_or_default());
        let row = Row { point: point.clone(), call, pages, phase: phase.clone(), old, new };
        rows.insert((pages, shift, phase), row);
    }
    rows.into_values().collect()
}

fn settings(doc: &ResultDoc) -> Option<&RunSettings> {
    match &doc.config {
        Config::Run(settings) => Some(settings),
        Config::Replay(_) => None,
    }
}

fn times(docs: &[&ResultDoc], id: &str) -> Option<Times> {
    let runs = docs.iter().filter_map(|doc| doc.operation(id));
    let mut all = recorder::new_histogram();
    let (mut calls, mut total) = (0, 0.0);
    let mut min = f64::INFINITY;
    for run in runs {
        all.add(hist_io::decode(&run.hist.as_ref()?.data).ok()?).ok()?;
        calls += run.count;
        total += run.latency.mean? * run.count as f64;
        min = min.min(run.latency.min?);
    }
    (calls > 0).then(|| Times { mean: total / calls as f64, min, deviation: all.stdev() / 1e3 })
}
