// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::{Containers, Doc, Members};
use crate::columns;
use crate::style::{Style, time_ns};

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let mut out = format!("sharing: {}\n\n{}\n", doc.label, style.bold("groups of one container"));
    let heads = [
        "groups",
        "attach",
        "table",
        "memory",
        "map 1",
        "unmap 1",
        "map 128",
        "unmap 128",
        "map 512",
        "unmap 512",
        "removal",
        "",
    ];
    let heads = std::iter::once(heads.map(str::to_owned).to_vec());
    columns::table(
        &mut out,
        &heads.chain(doc.members.iter().map(members)).collect::<Vec<_>>(),
        style,
    );
    let title = style.bold("containers of one group each, the same memory in all");
    out.push_str(&format!("\n{title}\n"));
    let heads = ["containers", "set up", "table", "memory", "memory, one left", ""];
    let heads = std::iter::once(heads.map(str::to_owned).to_vec());
    let rows: Vec<_> = heads.chain(doc.containers.iter().map(containers)).collect();
    columns::table(&mut out, &rows, style);
    let verdict = style.verdict(
        doc.verified,
        doc.run.complete,
        "charges and kills are as the rules say",
        "NOT AS THE RULES SAY",
    );
    out.push_str(&format!(
        "\ntable and memory: host pages of 64K that are charged; map, unmap and removal: stores to \
         kill registers;\ntimes are means of one sample, of the mock\n\n{verdict}\n"
    ));
    out
}

fn members(row: &Members) -> Vec<String> {
    let attach = if row.groups == 1 { "-".to_owned() } else { time_ns(row.attach_ns) };
    let mut cells = vec![
        row.groups.to_string(),
        attach,
        row.table_pages.to_string(),
        row.region_pages.to_string(),
    ];
    for request in &row.requests {
        cells.extend([request.map, request.unmap].map(|kills| kills.stores.to_string()));
    }
    cells.extend([row.remove.stores.to_string(), mark(row.as_ruled)]);
    cells
}

fn containers(row: &Containers) -> Vec<String> {
    vec![
        row.containers.to_string(),
        time_ns(row.set_up_ns),
        row.table_pages.to_string(),
        row.region_pages.to_string(),
        row.region_pages_with_one_left.to_string(),
        mark(row.as_ruled),
    ]
}

fn mark(as_ruled: bool) -> String {
    if as_ruled { "" } else { "WRONG" }.to_owned()
}
