// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::{Doc, Row};
use crate::columns;
use crate::style::{Style, count, thousands};

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let (trace, c) = (&doc.trace, &doc.config);
    let several = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut out = format!(
        "stale: {}, {} of {} calls on {}, {} at least for each call of {} · {}\n\
         {} · PEs behind each PHB: {} · TCE cache: {} entries, lines of {}\n\n",
        trace.name,
        several(c.loops, "turn"),
        thousands(trace.calls),
        several(c.threads, "thread"),
        several(c.pace, "access").replace("accesss", "accesses"),
        several(c.devices, "device"),
        doc.label,
        c.platform,
        c.groups,
        c.cache_entries,
        c.cache_line,
    );
    let heads = [
        "policy",
        "fill",
        "turns",
        "calls",
        "pages",
        "accesses",
        "judged",
        "reached",
        "held back",
        "kills",
        "calls/s",
        "mismatches",
        "violations",
    ];
    let heads = std::iter::once(heads.map(str::to_owned).to_vec());
    let rows: Vec<_> = heads.chain(doc.rows.iter().map(row)).collect();
    columns::table(&mut out, &rows, style);
    out.push_str(
        "\njudged: accesses of which it was known what they must find; held back: most pages whose kills one \
         handle owed;\nkills: stores to kill registers\n\n",
    );
    let (good, bad) = ("no device found anything stale", "SOMETHING WAS FOUND THAT MUST NOT BE");
    let verdict = style.verdict(doc.verified, doc.run.complete, good, bad);
    out + &verdict + "\n"
}

fn row(row: &Row) -> Vec<String> {
    vec![
        row.policy.clone(),
        row.fill.clone(),
        thousands(row.loops),
        thousands(row.calls),
        thousands(row.pages),
        thousands(row.accesses),
        thousands(row.judged),
        thousands(row.reached),
        thousands(row.most_held_back),
        thousands(row.register_stores),
        count((row.calls as f64 / row.wall_s.max(f64::MIN_POSITIVE)) as u64),
        thousands(row.mismatches),
        thousands(row.violations),
    ]
}
