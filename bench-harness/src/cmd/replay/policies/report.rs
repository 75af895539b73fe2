// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table that people read.

use std::fmt::Write as _;

use super::document::{Doc, Row};
use crate::columns;
use crate::size::format_size;
use crate::style::{Style, thousands, time_ns, time_or_dash};

const HEADS: [&str; 16] = [
    "policy",
    "fills",
    "platform",
    "kills",
    "whole",
    "per 1000",
    "Linux",
    "fewer",
    "fewer, valid",
    "ns/call",
    "p50",
    "p99",
    "p99.9",
    "exposed",
    "by the trace",
    "held back",
];

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let mut out = format!("policies: {}\n", doc.label);
    let w = &doc.workload;
    let _ = writeln!(
        out,
        "{} ({}): {} hypercalls, {} TCEs mapped, {} vCPU(s), {} PHB(s) of {} PE(s), {:.1} s\n",
        style.bold(&w.name),
        if w.recorded { "recorded" } else { "made up" },
        thousands(w.hypercalls),
        thousands(w.tces_mapped),
        w.vcpus,
        w.phbs,
        doc.config.groups,
        w.seconds
    );
    let heads = std::iter::once(HEADS.map(str::to_owned));
    let rows: Vec<_> = heads.chain(doc.rows.iter().map(row)).collect();
    columns::table(&mut out, &rows, style);
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
        "kills: stores to kill registers; whole: those that killed a PE, and the levels read again after \
         them;\n\
         fewer: Linux's kills of that platform by these; valid: without Linux's clearing of what was clear;\n\
         exposed: measured while the replay goes as fast as it can; by the trace: by its clock, which is of\n\
         emulation where it was recorded. Fill rules but always are assumptions about a PHB. Times of the \
         mock\n\n",
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

fn row(row: &Row) -> [String; 16] {
    let dash = || "–".to_owned();
    let of = |ns: Option<u64>| ns.map_or_else(dash, |ns| time_ns(ns as f64));
    let times = |times: Option<f64>| times.map_or_else(dash, |times| format!("{times:.1} x"));
    let p = row.latency.p;
    let kills = row.kills;
    let held = match (row.held_back_pages, row.held_back_bytes) {
        (None, _) => dash(),
        (Some(pages), None) => format!("{pages} pages"),
        (Some(_), Some(bytes)) => format_size(bytes),
    };
    let whole = kills.map_or_else(dash, |k| match k.whole_stores {
        0 => "0".to_owned(),
        whole => format!("{} ({})", thousands(whole), thousands(k.refills)),
    });
    [
        row.policy.clone(),
        row.fill.clone(),
        row.platform.clone(),
        kills.map_or_else(dash, |k| thousands(k.stores)),
        whole,
        kills.map_or_else(dash, |k| format!("{:.1}", k.per_1000_tces)),
        format!("{} {}", thousands(row.linux.kills), row.linux.unit),
        times(row.linux.times_fewer),
        times(row.linux.times_fewer_valid),
        row.ns_per_call.map_or_else(dash, |ns| format!("{ns:.1}")),
        time_or_dash(p.p50),
        time_or_dash(p.p99),
        time_or_dash(p.p99_9),
        of(row.exposure_ns),
        of(row.exposure_trace_ns),
        held,
    ]
}
