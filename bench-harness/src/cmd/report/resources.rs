// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was spent beside time: kills or requests, and memory; and what was replayed and checked.

use super::html::Html;
use super::operations::{by_operation, line_name};
use super::overview::{Amount, Row, bars, marks};
use super::page::section;
use super::results::{Shown, verdict};
use super::svg::About;
use super::table::{Cell, plot_table, table};
use crate::result::{BackendKind, Config, ResultDoc};
use crate::size::format_size;
use crate::style::time_or_dash;

pub(super) fn sections(html: &mut Html, shown: &[Shown]) {
    replay(html, shown);
    kills(html, shown);
    accounting(html, shown);
    verification(html, shown);
}

/// The first column of tables with a line for each document.
fn name(one: &Shown) -> String {
    if one.letter.is_empty() { "this run".to_owned() } else { one.name() }
}

fn per_1000(part: u64, tces: u64) -> Option<f64> {
    (tces > 0).then(|| 1e3 * part as f64 / tces as f64)
}

fn kills(html: &mut Html, shown: &[Shown]) {
    let about = "Asked: entries that had to be invalidated, times the PEs that could have cached them. Issued: \
                 stores to kill registers. Exposure: the longest time that a device could still reach a page \
                 that was being released. Where a kernel owns the tables, it kills, and requests are counted.";
    section(html, "kills", "Kills", about, |h| {
        h.tag("div", &[("class", "card")], |h| {
            let names = [
                "document",
                "asked",
                "issued",
                "issued per 1000 TCEs",
                "stores the PHB saw",
                "charged for kills",
                "requests",
                "ioctls",
            ];
            let row = |one: &Shown| {
                let c = &one.doc.counters;
                let mock = one.doc.backend.kind == BackendKind::Mock;
                let of_mock = |count| if mock { Cell::count(count) } else { Cell::none() };
                let of_kernel = |count| if mock { Cell::none() } else { Cell::count(count) };
                let rate = per_1000(c.kills_issued, c.tces_written).filter(|_| mock);
                let cells = vec![
                    of_mock(c.kills_asked),
                    of_mock(c.kills_issued),
                    Cell::number(rate, 1),
                    of_mock(c.register_stores),
                    Cell::time((c.kill_cost_ns > 0).then_some(c.kill_cost_ns as f64)),
                    of_kernel(c.requests),
                    of_kernel(c.ioctls),
                ];
                (name(one), cells)
            };
            table(h, "Kills of the whole run", &names, &shown.iter().map(row).collect::<Vec<_>>());
        });
        by_kind(h, shown);
    });
}

/// A plot for kills and one for exposure, by operation.
fn by_kind(html: &mut Html, shown: &[Shown]) {
    let all = by_operation(shown);
    let mut rates = Vec::new();
    let mut exposures = Vec::new();
    for (one, result) in all {
        let name = line_name(one, result);
        let row = |value, text| Row {
            name: name.clone(),
            series: one.series,
            value: Amount { value, text },
        };
        if let Some(rate) = result.kills_per_1000_tces {
            rates.push((row(rate, format!("{rate:.1}")), Cell::number(Some(rate), 3)));
        }
        if let Some(ns) = result.exposure_ns {
            let ns = ns as f64;
            exposures.push((row(ns, time_or_dash(Some(ns))), Cell::time(Some(ns))));
        }
    }
    let words = |rows: &[(Row<Amount>, Cell)]| {
        rows.iter()
            .map(|(r, _)| format!("{} {}", r.name, r.value.text))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut card = |id: &str, title: &str, rows: Vec<(Row<Amount>, Cell)>, bar: bool| {
        if rows.is_empty() {
            return;
        }
        let about = About {
            id: id.to_owned(),
            title: title.to_owned(),
            text: format!("{title}: {}.", words(&rows)),
        };
        html.tag("div", &[("class", "card")], |h| {
            let (lines, cells): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            if bar {
                bars(h, &about, &lines)
            } else {
                marks(h, &about, &lines)
            }
            let row = |(line, cell): (&Row<Amount>, Cell)| (line.name.clone(), vec![cell]);
            let rows = lines.iter().zip(cells).map(row).collect();
            plot_table(h, "operation", &[title.to_owned()], rows);
        });
    };
    card("kills-per-1000", "Stores to kill registers per 1000 TCEs", rates, true);
    card("exposure", "Longest time that a released page stayed reachable", exposures, false);
}

/// What a document says of memory: names and bytes.
fn books(doc: &ResultDoc) -> Vec<(&'static str, u64)> {
    let counters = &doc.counters;
    let registered = match &doc.config {
        Config::Run(run) => Some(("registered", run.buffer_bytes)),
        Config::Replay(_) => None,
    };
    let rest = [
        ("charged for tables", counters.table_charge_bytes),
        ("used by table blocks", doc.backend.table_memory.used_bytes),
        ("pinned at the peak", counters.pinned_peak_bytes),
        ("pinned at the end", counters.pinned_end_bytes),
    ];
    registered.into_iter().chain(rest).collect()
}

fn accounting(html: &mut Html, shown: &[Shown]) {
    let about = "A region is charged once, however many containers use it; a table once, however many groups \
                 share it. Anything that is pinned at the end has leaked.";
    section(html, "accounting", "Accounting", about, |h| {
        h.tag("div", &[("class", "card")], |h| {
            let names = [
                "registered",
                "charged for tables",
                "used by table blocks",
                "pinned at the peak",
                "pinned at the end",
            ];
            let mut lines = Vec::new();
            for what in names {
                for one in shown {
                    let Some((_, bytes)) = books(&one.doc).into_iter().find(|(w, _)| *w == what)
                    else {
                        continue;
                    };
                    lines.push(Row {
                        name: format!("{what} {}", one.letter).trim().to_owned(),
                        series: one.series,
                        value: Amount { value: bytes as f64, text: format_size(bytes) },
                    });
                }
            }
            let words =
                lines.iter().map(|l| format!("{} {}", l.name, l.value.text)).collect::<Vec<_>>();
            let about = About {
                id: "accounting-plot".to_owned(),
                title: "Bytes against the locked-memory limit".to_owned(),
                text: format!("{}.", words.join(", ")),
            };
            bars(h, &about, &lines);
            let row = |one: &Shown| {
                let books = books(&one.doc);
                let of = |what: &&str| books.iter().find(|(w, _)| w == what).map(|(_, b)| *b);
                let mut cells: Vec<Cell> =
                    names.iter().map(|n| of(n).map_or_else(Cell::none, Cell::bytes)).collect();
                if let Some(end) = cells.pop() {
                    let leaked = one.doc.counters.pinned_end_bytes > 0;
                    cells.push(if leaked { end.class("bad") } else { end });
                }
                let counters = &one.doc.counters;
                cells.extend(
                    [counters.leaf_blocks, counters.table_blocks, counters.tces_written]
                        .map(Cell::count),
                );
                (name(one), cells)
            };
            let mut heads = vec!["document"];
            heads.extend(names);
            heads.extend(["leaf blocks", "all blocks", "TCEs written"]);
            table(h, "The ledger", &heads, &shown.iter().map(row).collect::<Vec<_>>());
        });
    });
}

fn replay(html: &mut Html, shown: &[Shown]) {
    if shown.iter().all(|s| s.doc.replay.is_none()) {
        return;
    }
    let names = [
        "trace",
        "calls",
        "TCEs mapped",
        "translations",
        "entries compared after",
        "mismatches",
        "guest RAM",
        "calls/s",
        "ns/TCE",
    ];
    section(html, "replay", "Replay", "Recorded hypercalls, every answer compared.", |h| {
        for one in shown {
            let Some(replay) = &one.doc.replay else { continue };
            let row = |t: &crate::result::TraceResult| {
                let wrong = Cell::count(t.mismatches);
                let cells = vec![
                    Cell::count(t.calls),
                    Cell::count(t.tces_mapped),
                    Cell::count(t.translations),
                    Cell::count(t.final_entries),
                    if t.mismatches > 0 { wrong.class("bad") } else { wrong },
                    Cell::bytes(t.ram_bytes),
                    Cell::number(t.calls_per_s, 0),
                    Cell::per_tce(t.ns_per_tce),
                ];
                (t.name.clone(), cells)
            };
            let rows: Vec<_> = replay.traces.iter().map(row).collect();
            h.tag("div", &[("class", "card")], |h| {
                table(h, &format!("Traces of {}", name(one)), &names, &rows);
            });
        }
    });
}

fn verification(html: &mut Html, shown: &[Shown]) {
    let names = [
        "document",
        "verified",
        "translations",
        "entries of the mirror",
        "passes",
        "first difference",
        "VmLck compared",
        "pages through devices",
        "why nobody could be asked",
    ];
    section(html, "verification", "Verification", "", |h| {
        let row = |one: &Shown| {
            let v = &one.doc.verification;
            let text = |t: &Option<String>| t.as_deref().map_or_else(Cell::none, Cell::text);
            let count = |c: Option<u64>| c.map_or_else(Cell::none, Cell::count);
            let cells = vec![
                verdict(one.doc.verified),
                Cell::count(v.translations),
                Cell::count(v.mirror_entries),
                Cell::count(v.passes),
                text(&v.first_mismatch),
                count(v.books.as_ref().map(|b| b.comparisons)),
                count(v.dma.as_ref().map(|d| d.pages)),
                text(&v.unproven),
            ];
            (name(one), cells)
        };
        h.tag("div", &[("class", "card")], |h| {
            table(h, "What was checked", &names, &shown.iter().map(row).collect::<Vec<_>>());
            left(h, shown);
        });
    });
}

/// Groups that left others.
fn left(html: &mut Html, shown: &[Shown]) {
    if shown.iter().all(|s| s.doc.left.is_empty()) {
        return;
    }
    let mut rows = Vec::new();
    for one in shown {
        for left in &one.doc.left {
            let cells = vec![
                Cell::count(left.others),
                Cell::text(left.policy.as_str()),
                left.refused.as_deref().map_or_else(Cell::none, Cell::text),
                Cell::time(Some(left.detach_ns)),
                Cell::count(left.replayed),
                left.lost_tces.map_or_else(Cell::none, Cell::count),
            ];
            rows.push((format!("group {} {}", left.group, one.letter).trim().to_owned(), cells));
        }
    }
    let names = ["group", "left behind", "policy", "refused", "detach", "mapped again", "lost"];
    table(html, "Groups that left others", &names, &rows);
}
