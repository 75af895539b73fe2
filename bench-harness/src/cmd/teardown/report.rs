// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::{Doc, Row};
use crate::columns;
use crate::recorder::Summary;
use crate::size::format_arg;
use crate::style::{Style, time_or_dash};

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let mut out = format!("teardown: {}\n\n", doc.label);
    let heads = [
        "window",
        "levels",
        "groups",
        "live",
        "removal",
        "detach",
        "peers p50",
        "p99",
        "while removed p99",
        "longest a round",
        "while detached p99",
        "",
    ];
    let heads = std::iter::once(heads.map(str::to_owned).to_vec());
    let rows: Vec<_> = heads.chain(doc.rows.iter().map(row)).collect();
    columns::table(&mut out, &rows, style);
    let verdict = style.verdict(
        doc.verified,
        doc.run.complete,
        "every window went as it should",
        "SOMETHING DID NOT GO AS IT SHOULD",
    );
    out.push_str(&format!(
        "\npeers: a map and an unmap of one page in another window of the container, the longest of each \
         peer and round its median;\n\
         times of the mock\n\n{verdict}\n"
    ));
    out
}

fn row(row: &Row) -> Vec<String> {
    let p99 = |s: &Summary| time_or_dash(s.p.p99);
    vec![
        format_arg(row.window_bytes),
        row.levels.to_string(),
        row.members.to_string(),
        row.live.to_string(),
        time_or_dash(row.removal.mean),
        time_or_dash(row.detach.mean),
        time_or_dash(row.calm.p.p50),
        p99(&row.calm),
        p99(&row.during_removal),
        time_or_dash(row.longest_in_removal.p.p50.or(row.longest_in_removal.mean)),
        p99(&row.during_detach),
        if row.verified { "" } else { "WRONG" }.to_owned(),
    ]
}
