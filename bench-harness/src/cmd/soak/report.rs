// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::{Doc, Row};
use crate::columns;
use crate::size::format_size;
use crate::style::{Style, count, thousands};

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let what = if doc.config.guest {
        "hypercalls of a hostile guest"
    } else {
        "calls of the interface beside a model"
    };
    let machines = doc.config.machines.join(", ");
    let mut out = format!(
        "soak: {} {what}, seed {:#x} · {}\nmachines: {machines}\n\n",
        thousands(doc.config.operations),
        doc.run.seed,
        doc.label
    );
    let heads = [
        "containers",
        "policy",
        "threads",
        "machines",
        "calls",
        "refused",
        "entries",
        "audits",
        "calls/s",
        "p50 drift",
        "differences",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(doc.rows.iter().map(row));
    columns::table(&mut out, &rows, style);
    for row in doc.rows.iter().filter(|row| row.guest.is_some()) {
        let Some(guest) = &row.guest else { continue };
        out += &format!("\n{}, {}: {guest}\n", row.policy, threads(row.threads));
    }
    let calls = doc.rows.iter().map(|row| row.calls).sum();
    let refused: u64 = doc.rows.iter().map(|row| row.refused).sum();
    let differences = doc.rows.iter().filter(|row| row.difference.is_some()).count();
    let peak = doc.peak_rss_bytes.map_or("unknown".to_owned(), format_size);
    out += &format!(
        "\nentries: compared as the PHB has them; audits: looks at all entries, counts and charges\n\
         p50 drift: of calls that were done, the last machines beside the first; not judged\n\
         {} calls, {} refused, differences: {differences}; peak memory: {peak}\n\n",
        thousands(calls),
        percent(refused, calls),
    );
    let verdict = match (doc.verified, differences, doc.run.complete) {
        (true, ..) => style.green("everything was as it has to be"),
        (false, 0, false) => style.yellow("interrupted, incomplete: right as far as it went"),
        (false, 0, true) => style.red("TOO MANY CALLS WERE REFUSED"),
        (false, ..) => style.red("SOMETHING WAS NOT AS IT HAS TO BE"),
    };
    out + &verdict + "\n"
}

/// As in 1 thread, 2 threads.
pub(super) fn threads(n: u32) -> String {
    format!("{n} thread{}", if n == 1 { "" } else { "s" })
}

fn percent(part: u64, of: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / of.max(1) as f64)
}

fn row(row: &Row) -> Vec<String> {
    vec![
        row.containers.to_owned(),
        row.policy.clone(),
        row.threads.to_string(),
        thousands(row.episodes),
        thousands(row.calls),
        percent(row.refused, row.calls),
        thousands(row.entries),
        thousands(row.audits),
        count((row.calls as f64 / row.wall_s.max(f64::MIN_POSITIVE)) as u64),
        row.p50_drift.map_or("-".to_owned(), |drift| format!("{:+.1} %", drift.percent())),
        u64::from(row.difference.is_some()).to_string(),
    ]
}
