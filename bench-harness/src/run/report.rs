// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table that people read.

use std::fmt::Write;

use super::phase::per_1000;
use crate::columns::table;
use crate::recorder::Recorder;
use crate::result::{
    BackendKind, Config, Left, LimitKind, OpResult, ResultDoc, RunSettings, Skipped,
};
use crate::size::format_size;
use crate::style::{Style, count, thousands, time_or_dash};

/// Columns of the little histogram.
const BARS: usize = 12;

/// The whole report. `recorders` are the histograms behind the results.
pub fn report(doc: &ResultDoc, recorders: &[(String, Recorder)], style: Style) -> String {
    let mut out = String::new();
    let Config::Run(settings) = &doc.config else { return out };
    head(&mut out, doc, settings, style);
    let mut limits: Vec<String> = Vec::new();
    for result in &doc.results {
        let Some(limit) = &result.limit else { continue };
        let name = match limit.kind {
            LimitKind::Store => "store",
            LimitKind::Copy => "copy",
        };
        if limits.iter().all(|l| !l.starts_with(name)) {
            let libc = limit.libc_ns_per_tce.map_or(String::new(), |l| format!(" (libc {l:.3})"));
            limits.push(format!("{name} {:.3} ns/TCE{libc}", limit.ns_per_tce));
        }
    }
    if !limits.is_empty() {
        let _ = writeln!(out, "limits here: {} (same run, best)", limits.join(", "));
    }
    if let Some(mixed) = mixed(settings) {
        let _ = writeln!(out, "{}", mixed.to_lowercase());
    }
    out.push('\n');
    operations(&mut out, doc, recorders, style);
    sums(&mut out, doc, settings);
    let first = doc.verification.first_mismatch.as_deref();
    let verdict = match doc.verified {
        Some(true) => style.green("verified: true"),
        Some(false) => {
            let why = first.unwrap_or("not everything was checked");
            style.red(&format!("verified: false ({why})"))
        }
        None => {
            let why = doc.verification.unproven.as_deref().unwrap_or("nobody could be asked");
            style.yellow(&format!("verified: unknown ({why}); nothing was found wrong"))
        }
    };
    let incomplete = if doc.run.complete { "" } else { " · interrupted, incomplete" };
    let _ = writeln!(out, "{verdict}{incomplete}");
    for warning in &doc.warnings {
        let _ = writeln!(out, "{} {}", style.yellow("warning:"), warning.text);
    }
    out
}

/// What was counted and checked.
fn sums(out: &mut String, doc: &ResultDoc, settings: &RunSettings) {
    let counters = &doc.counters;
    let _ = write!(
        out,
        "\nregistered {} + {} tables (peak {}), {} at the end",
        format_size(settings.buffer_bytes),
        format_size(counters.table_charge_bytes),
        format_size(counters.pinned_peak_bytes),
        format_size(counters.pinned_end_bytes),
    );
    let checked = &doc.verification;
    if doc.backend.kind == BackendKind::Mock {
        let _ = write!(
            out,
            " · kills, {}: asked {}, issued {} ({} per 1000 TCEs)",
            settings.policy,
            thousands(counters.kills_asked),
            thousands(counters.kills_issued),
            per_1000(counters.kills_issued, counters.tces_written)
                .map_or("–".to_owned(), |n| format!("{n:.1}")),
        );
        let exposed = |r: &&OpResult| r.exposure_ns.is_some_and(|ns| ns > 0);
        if let Some(result) = doc.results.iter().filter(exposed).max_by_key(|r| r.exposure_ns) {
            let longest = time_or_dash(result.exposure_ns.map(|ns| ns as f64));
            let phase = result.id.split('.').next().unwrap_or_default();
            let _ = write!(out, " · released pages reachable for up to {longest} ({phase})");
        }
        if counters.kill_cost_ns > 0 {
            let ns = time_or_dash(Some(counters.kill_cost_ns as f64));
            let _ = write!(out, " · {ns} charged for kills");
        }
    } else {
        let (ioctls, requests) = (counters.ioctls, counters.requests);
        let _ = write!(
            out,
            " · ioctls: {} for {} requests ({} per ioctl), {} entries written or cleared",
            thousands(ioctls),
            thousands(requests),
            ratio(requests, ioctls),
            thousands(counters.tces_written),
        );
    }
    let mut lines = Vec::new();
    if checked.translations > 0 {
        lines.push(format!("{} translations verified", thousands(checked.translations)));
    }
    if checked.mirror_entries > 0 {
        lines.push(format!("{} entries of the mirror compared", thousands(checked.mirror_entries)));
    }
    if let Some(dma) = &checked.dma {
        let (pages, unmapped) = (thousands(dma.pages), thousands(dma.unmapped));
        let (n, plural) = (dma.devices.len(), if dma.devices.len() == 1 { "" } else { "s" });
        lines.push(format!(
            "{n} device{plural} copied {pages} pages and reached none of {unmapped} unmapped"
        ));
    }
    if let Some(books) = &checked.books {
        lines.push(format!("VmLck compared {} times", thousands(books.comparisons)));
    }
    for left in &doc.left {
        lines.push(leaving(left));
    }
    let separator = if doc.backend.kind == BackendKind::Mock { " · " } else { "\n" };
    let _ = writeln!(out, "{separator}{}", lines.join(" · "));
}

/// How a group left.
fn leaving(left: &Left) -> String {
    let Left { group, others, policy, .. } = left;
    if left.refused.is_some() {
        return format!("group {group} may not leave {others} other(s) ({policy})");
    }
    let time = |ns: f64| time_or_dash(Some(ns));
    let part = |replayed: u64, ioctls: u64, ns: f64| match replayed {
        0 => String::new(),
        _ => {
            format!(", {} entries mapped in {ioctls} ioctl(s), {}", thousands(replayed), time(ns))
        }
    };
    let mut text =
        format!("group {group} left {others} other(s) ({policy}) in {}", time(left.detach_ns));
    text.push_str(&part(left.replayed, left.ioctls, left.replay_ns));
    match &left.joined {
        Some(joined) if joined.refused.is_none() => {
            text.push_str(&format!("; back in {}", time(joined.attach_ns)));
            text.push_str(&part(joined.replayed, joined.ioctls, joined.replay_ns));
        }
        Some(_) => text.push_str("; could not come back"),
        None => {}
    }
    text
}

/// With a digit where it is small.
fn ratio(a: u64, b: u64) -> String {
    match b {
        0 => "–".to_owned(),
        _ if a / b >= 10 => thousands((a + b / 2) / b),
        _ => format!("{:.1}", a as f64 / b as f64),
    }
}

fn head(out: &mut String, doc: &ResultDoc, settings: &RunSettings, style: Style) {
    let memory = &doc.backend.table_memory;
    let kind = memory.kind.name();
    let contiguous =
        if settings.contiguous { ", contiguous (seldom so on real machines)" } else { "" };
    let name = style.bold(&format!("{} {}", doc.tool.name, doc.tool.version));
    let _ = writeln!(
        out,
        "{name} · {} · simd {} · {}: {kind} · backing {}{contiguous}",
        doc.backend.label,
        settings.simd,
        if doc.backend.kind == BackendKind::Mock { "table memory" } else { "mirror" },
        format_size(settings.backing_bytes),
    );
    let entries = |levels: u64, total: u64| match levels {
        1 => format!("1 level of {total}"),
        n => format!("{n} levels of {}", settings.level_entries),
    };
    if doc.backend.kind != BackendKind::Mock {
        let backend = &doc.backend;
        let numbers: Vec<_> = backend.group_numbers.iter().map(u32::to_string).collect();
        let runs_on = backend.runs_on.as_ref().map_or(String::new(), |m| format!(" on {m}"));
        let _ = writeln!(
            out,
            "kernel {}{runs_on} · v{} containers · group(s) {} · host pages {}",
            backend.kernel_release.as_deref().unwrap_or("unknown"),
            backend.container_version.unwrap_or(2),
            numbers.join(", "),
            format_size(1 << settings.host_page_shift),
        );
    }
    let pages = settings.window_bytes >> settings.page_shift;
    if let Some(workload) = &settings.workload {
        let overridden = match workload.overridden.as_slice() {
            [] => String::new(),
            keys => format!(" (but for {})", keys.join(", ")),
        };
        let _ =
            writeln!(out, "workload {}{overridden} · {}", workload.name, &workload.digest[..19]);
    }
    let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let _ = writeln!(
        out,
        "{} in {} · window {} at {:#x} · {} pages · {} · table {} · charged once: {}",
        plural(settings.groups, "group"),
        plural(settings.containers, "container"),
        format_size(settings.window_bytes),
        settings.window_start,
        format_size(1 << settings.page_shift),
        entries(settings.levels, pages),
        format_size(memory.used_bytes),
        format_size(doc.counters.table_charge_bytes),
    );
}

/// What a mix was made of.
fn mixed(settings: &RunSettings) -> Option<String> {
    let mix = settings.mix.as_ref()?;
    Some(format!(
        "mix: {} of {} pages, {} mapped at a time, {} unmapped together, {:?} order, {:?} places",
        mix.operations, mix.pages, mix.live, mix.burst, mix.order, mix.place
    ))
}

fn operations(out: &mut String, doc: &ResultDoc, recorders: &[(String, Recorder)], style: Style) {
    // A kernel's entries have no limit that we could measure; it is asked, more or less often.
    let kernel = doc.backend.kind != BackendKind::Mock;
    let heads = [
        "operation",
        "calls",
        "TCEs",
        "ns/TCE",
        "best",
        if kernel { "requests" } else { "limit" },
        if kernel { "ioctls" } else { "of limit" },
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "",
    ];
    let mut rows: Vec<[String; 13]> = vec![heads.map(str::to_owned)];
    for result in &doc.results {
        rows.push(row(result, recorders));
    }
    table(out, &rows, style);
    notes(out, doc);
}

/// What a reader has to know of single lines.
fn notes(out: &mut String, doc: &ResultDoc) {
    let mut groups: Vec<u64> = doc.results.iter().map(|r| r.group).filter(|k| *k > 1).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let of_group = doc.results.iter().filter(|r| r.group == group);
        let names: Vec<_> = of_group.map(|r| r.id.as_str()).collect();
        let names = names.join(", ");
        let _ = writeln!(
            out,
            "{names}: too short to be timed alone; each sample is the mean of {group}"
        );
    }
    for result in &doc.results {
        let Some(own) = &result.own_table else { continue };
        let _ = writeln!(
            out,
            "{}: on a table of its own of {} ({} of {} pages, {} level{}, {} group{}), by {} core{}",
            result.id,
            format_size(own.table_bytes),
            format_size(own.window_bytes),
            format_size(1 << own.page_shift),
            own.levels,
            if own.levels == 1 { "" } else { "s" },
            own.groups,
            if own.groups == 1 { "" } else { "s" },
            own.cores,
            if own.cores == 1 { "" } else { "s" },
        );
    }
    for result in &doc.results {
        let Some(open) = &result.open_loop else { continue };
        let _ = writeln!(
            out,
            "{}: open loop, {} of {} operations/s; from when each was due, {} late, at most {} behind (nothing \
             omitted); other lines are of the calls alone",
            result.id,
            thousands(open.achieved_per_s.round() as u64),
            thousands(open.asked_per_s),
            thousands(open.late),
            time_or_dash(Some(open.most_behind_ns as f64)),
        );
    }
    for Skipped { id, reason } in &doc.skipped {
        let _ = writeln!(out, "{id}: not measured: {reason}");
    }
}

fn row(result: &OpResult, recorders: &[(String, Recorder)]) -> [String; 13] {
    let p = &result.latency.p;
    let bars = recorders.iter().find(|(id, _)| *id == result.id).map(|(_, r)| r.bars(BARS));
    [
        result.id.clone(),
        result.count.to_string(),
        count(result.tces),
        per_tce(result.ns_per_tce),
        per_tce(result.best_ns_per_tce),
        result.requests.map_or_else(|| limit(result), |n| n.to_string()),
        result.ioctls.map_or_else(|| share(result.of_limit), |n| n.to_string()),
        time_or_dash(p.p50),
        time_or_dash(p.p90),
        time_or_dash(p.p99),
        time_or_dash(p.p99_9),
        time_or_dash(result.latency.max),
        bars.unwrap_or_default(),
    ]
}

fn per_tce(ns: Option<f64>) -> String {
    ns.map_or("–".to_owned(), |ns| format!("{ns:.3}"))
}

fn limit(result: &OpResult) -> String {
    per_tce(result.limit.as_ref().map(|limit| limit.ns_per_tce))
}

/// A share of the limit in per cent; small ones keep a digit.
fn share(of_limit: Option<f64>) -> String {
    of_limit.map_or("–".to_owned(), |share| {
        let per_cent = 100.0 * share;
        if per_cent < 9.95 { format!("{per_cent:.1} %") } else { format!("{per_cent:.0} %") }
    })
}
