// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table that people read.

use std::fmt::Write as _;

use super::document::{Doc, Kills, Row};
use crate::columns;
use crate::size::format_size;
use crate::style::{Style, count, thousands, time_ns, time_or_dash};

const KILLS: [&str; 12] = [
    "policy",
    "fills",
    "platform",
    "kills",
    "whole",
    "levels",
    "per 1000",
    "Linux",
    "fewer",
    "valid",
    "held back",
    "by the trace",
];
const TIMES: [&str; 10] =
    ["policy", "fills", "platform", "calls/s", "ns/call", "p50", "p99", "p99.9", "max", "exposed"];

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let mut out = format!("policies: {}\n", doc.label);
    let w = &doc.workload;
    let _ = writeln!(
        out,
        "{} ({}): {} hypercalls, {} TCEs mapped, {} handle(s), {} PHB(s) of {} PE(s), {:.1} s\n",
        style.bold(&w.name),
        if w.recorded { "recorded" } else { "made up" },
        thousands(w.hypercalls),
        thousands(w.tces_mapped),
        w.handles,
        w.phbs,
        doc.config.groups,
        w.seconds
    );
    let rows = doc.rows.iter();
    let heads = std::iter::once(KILLS.map(str::to_owned));
    columns::table(&mut out, &heads.chain(rows.clone().map(kills)).collect::<Vec<_>>(), style);
    out.push('\n');
    let heads = std::iter::once(TIMES.map(str::to_owned));
    columns::table(&mut out, &heads.chain(rows.map(times)).collect::<Vec<_>>(), style);
    let l = &doc.linux;
    let _ = writeln!(
        out,
        "\nLinux's rules for these calls ({} TCEs stored or cleared, {} of them valid before or after):\n\
         PHB3 {} stores ({} without clearing what was clear), PHB4 {} calls ({}) and {} levels read again",
        thousands(l.tces),
        thousands(l.valid_tces),
        thousands(l.phb3_stores),
        thousands(l.phb3_stores_valid),
        thousands(l.phb4_calls),
        thousands(l.phb4_calls_valid),
        thousands(l.phb4_refills)
    );
    out.push_str(
        "kills: stores to kill registers, all PEs together, also by 1000 TCEs stored or cleared; whole: those \
         that killed a PE;\nlevels: read again after these; fewer: Linux's kills by ours; valid: the same \
         without Linux's clearing of what was clear;\nby the trace: the longest that a page was held back, \
         by its clock, which is of emulation where it was recorded;\nexposed: the longest that one was \
         reachable while the replay went as fast as it could. Fill rules but always are\nassumptions about a \
         PHB. Times of the mock\n\n",
    );
    let verdict = if doc.verified {
        style.green("verified: true")
    } else if let Some(first) = &doc.first_mismatch {
        style.red(&format!("verified: false ({first})"))
    } else {
        style.yellow("verified: false, not everything was checked")
    };
    let _ = writeln!(
        out,
        "{verdict}{}",
        if doc.run.complete { "" } else { " · interrupted, incomplete" }
    );
    out
}

fn dash() -> String {
    "–".to_owned()
}

fn names(row: &Row) -> [String; 3] {
    [&row.policy, &row.fill, &row.platform].map(String::clone)
}

fn kills(row: &Row) -> [String; 12] {
    let [policy, fill, platform] = names(row);
    let of = |f: fn(&Kills) -> u64| row.kills.as_ref().map_or_else(dash, |k| thousands(f(k)));
    let fewer = |times: Option<f64>| times.map_or_else(dash, |times| format!("{times:.1} x"));
    let held = match (row.held_back_pages, row.held_back_bytes) {
        (None, _) => dash(),
        (Some(pages), None) => format!("{pages} pages"),
        (Some(_), Some(bytes)) => format_size(bytes),
    };
    [
        policy,
        fill,
        platform,
        of(|k| k.stores),
        of(|k| k.whole_stores),
        of(|k| k.refills),
        row.kills.map_or_else(dash, |k| format!("{:.1}", k.per_1000_tces)),
        format!("{} {}", thousands(row.linux.kills), row.linux.unit),
        fewer(row.linux.times_fewer),
        fewer(row.linux.times_fewer_valid),
        held,
        time(row.exposure_trace_ns),
    ]
}

/// 0 is no time at all.
fn time(ns: Option<u64>) -> String {
    match ns {
        None => dash(),
        Some(0) => "0".to_owned(),
        Some(ns) => time_ns(ns as f64),
    }
}

fn times(row: &Row) -> [String; 10] {
    let [policy, fill, platform] = names(row);
    let [p50, p99, p99_9, max] =
        [row.latency.p.p50, row.latency.p.p99, row.latency.p.p99_9, row.latency.max]
            .map(time_or_dash);
    [
        policy,
        fill,
        platform,
        row.calls_per_s.map_or_else(dash, |rate| count(rate as u64)),
        row.ns_per_call.map_or_else(dash, |ns| format!("{ns:.1}")),
        p50,
        p99,
        p99_9,
        max,
        time(row.exposure_ns),
    ]
}
