// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table that people read.

use std::fmt::Write as _;

use super::outcome::label;
use crate::cli::Pass;
use crate::columns::table;
use crate::recorder::Recorder;
use crate::result::{Config, ReplaySettings, ResultDoc};
use crate::size::format_size;
use crate::style::{Style, count, thousands, time_or_dash};

/// Width of the little histogram.
const BARS: usize = 12;

/// The whole report.
pub(super) fn report(doc: &ResultDoc, recorders: &[(String, Recorder)], style: Style) -> String {
    let mut out = String::new();
    if let Config::Replay(settings) = &doc.config {
        head(&mut out, doc, settings, style);
    }
    traces(&mut out, doc, style);
    if !recorders.is_empty() {
        out.push('\n');
        latencies(&mut out, recorders, style);
    }
    out.push('\n');
    foot(&mut out, doc, style);
    out
}

fn head(out: &mut String, doc: &ResultDoc, settings: &ReplaySettings, style: Style) {
    let memory = doc.backend.table_memory.kind.name();
    let name = style.bold(&format!("{} {}", doc.tool.name, doc.tool.version));
    let _ = writeln!(
        out,
        "{name} · {} · simd {} · table memory: {memory} · host pages {}",
        doc.backend.label,
        settings.simd,
        format_size(1 << settings.host_page_shift)
    );
    let number = settings.traces.len();
    let ram = match settings.ram_bytes {
        Some(bytes) => format_size(bytes),
        None => "as large as each trace needs".to_string(),
    };
    let _ = writeln!(
        out,
        "replay of {number} trace{} · passes: {} · rules: {} · kills: {} · guest RAM {ram}\n",
        if number == 1 { "" } else { "s" },
        settings.passes.join(", "),
        settings.compat,
        settings.policy
    );
}

fn was_checked(doc: &ResultDoc) -> bool {
    let Config::Replay(settings) = &doc.config else { return false };
    settings.passes.iter().any(|pass| pass == Pass::Checked.name())
}

fn traces(out: &mut String, doc: &ResultDoc, style: Style) {
    let Some(replay) = &doc.replay else { return };
    let checked = was_checked(doc);
    let mut rows = vec![
        [
            "trace",
            "calls",
            "mapped",
            "xlates",
            "entries",
            "mismatches",
            "calls/s",
            "ns/call",
            "ns/TCE",
        ]
        .map(str::to_string),
    ];
    let total = &replay.total;
    for t in &replay.traces {
        let name = label(&t.file).to_string();
        let sums = [t.calls, t.tces_mapped, t.translations, t.final_entries, t.mismatches];
        rows.push(trace_row(name, sums, checked, t.calls_per_s, t.ns_per_tce));
    }
    if replay.traces.len() > 1 {
        let t = total;
        let sums = [t.calls, t.tces_mapped, t.translations, t.final_entries, t.mismatches];
        rows.push(trace_row("total".to_string(), sums, checked, t.calls_per_s, t.ns_per_tce));
    }
    table(out, &rows, style);
}

fn trace_row(
    name: String,
    sums: [u64; 5],
    checked: bool,
    rate: Option<f64>,
    per_tce: Option<f64>,
) -> [String; 9] {
    let dash = || "–".to_string();
    let [calls, mapped, mut xlates, mut entries, mismatches] = sums.map(thousands);
    if !checked {
        // Not compared at all, which "0" would not say.
        (xlates, entries) = (dash(), dash());
    }
    [
        name,
        calls,
        mapped,
        xlates,
        entries,
        mismatches,
        rate.map_or_else(dash, |rate| count(rate as u64)),
        rate.map_or_else(dash, |rate| format!("{:.1}", 1e9 / rate)),
        per_tce.map_or_else(dash, |ns| format!("{ns:.2}")),
    ]
}

fn latencies(out: &mut String, recorders: &[(String, Recorder)], style: Style) {
    let mut rows = vec![
        ["operation", "calls", "TCEs", "ns/TCE", "p50", "p90", "p99", "p99.9", "max", ""]
            .map(str::to_string),
    ];
    for (name, recorder) in recorders.iter().filter(|(_, recorder)| recorder.calls() > 0) {
        let s = recorder.summary();
        let [p50, p90, p99, p99_9, max] =
            [s.p.p50, s.p.p90, s.p.p99, s.p.p99_9, s.max].map(time_or_dash);
        let per_tce =
            recorder.ns_per_tce().map_or_else(|| "–".to_string(), |ns| format!("{ns:.2}"));
        rows.push([
            name.clone(),
            count(recorder.calls()),
            count(recorder.tces()),
            per_tce,
            p50,
            p90,
            p99,
            p99_9,
            max,
            recorder.bars(BARS),
        ]);
    }
    table(out, &rows, style);
}

fn foot(out: &mut String, doc: &ResultDoc, style: Style) {
    let counters = &doc.counters;
    let total = doc.replay.as_ref().map(|replay| replay.total.clone()).unwrap_or_default();
    if !doc.results.is_empty() {
        let _ = writeln!(
            out,
            "each call timed alone; a clock reading costs {:.0} ns, not subtracted",
            doc.clock.overhead_ns
        );
    }
    let _ = writeln!(
        out,
        "kills: asked {}, issued {} · pinned {} (peak), {} at the end",
        thousands(counters.kills_asked),
        thousands(counters.kills_issued),
        format_size(counters.pinned_peak_bytes),
        if counters.pinned_end_bytes == 0 {
            "0".to_string()
        } else {
            format_size(counters.pinned_end_bytes)
        }
    );
    if was_checked(doc) {
        let _ = writeln!(
            out,
            "{} recorded translations and {} final entries compared, the entries by H_GET_TCE and by \
         the PHB",
            thousands(total.translations),
            thousands(total.final_entries)
        );
    }
    let verdict = if doc.verified == Some(true) {
        style.green("verified: true")
    } else if total.mismatches > 0 {
        let first = doc.verification.first_mismatch.as_deref().unwrap_or("see above");
        style.red(&format!("verified: false, {} mismatches ({first})", thousands(total.mismatches)))
    } else {
        style.yellow("verified: false, not everything was checked")
    };
    let _ = writeln!(
        out,
        "{verdict}{}",
        if doc.run.complete { "" } else { " · interrupted, incomplete" }
    );
    for warning in &doc.warnings {
        let _ = writeln!(out, "{} {}", style.yellow("warning:"), warning.text);
    }
}
