// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A table for spreadsheets and scripts (RFC 4180, but with LF): a row for each operation of each result,
//! and of each run that a merged result is the sum of. A cell without a value is empty.

use super::series::{Operation, backend, case, operations};
use crate::result::ResultDoc;

const HEADS: [&str; 21] = [
    "run",
    "runs",
    "host",
    "label",
    "backend",
    "case",
    "operation",
    "calls",
    "tces",
    "samples",
    "min_ns",
    "mean_ns",
    "p50_ns",
    "p90_ns",
    "p99_ns",
    "p99.9_ns",
    "p99.99_ns",
    "max_ns",
    "ns_per_tce",
    "best_ns_per_tce",
    // As `pages=8 threads=2`, of a sweep only.
    "point",
];

pub(super) fn text(docs: &[ResultDoc]) -> String {
    let mut out = HEADS.join(",") + "\n";
    for doc in docs {
        let case = case(doc);
        let backend = backend(doc);
        let mut row = |head: [String; 4], o: &Operation| {
            let p = &o.latency.p;
            let number = |n: Option<f64>| n.map_or(String::new(), |n| n.to_string());
            let cells = [
                backend.clone(),
                case.clone(),
                o.id.clone(),
                o.calls.to_string(),
                o.tces.to_string(),
                o.samples.map_or(String::new(), |n| n.to_string()),
                number(o.latency.min),
                number(o.latency.mean),
                number(p.p50),
                number(p.p90),
                number(p.p99),
                number(p.p99_9),
                number(p.p99_99),
                number(o.latency.max),
                number(o.ns_per_tce),
                number(o.best_ns_per_tce),
                doc.point.to_string(),
            ];
            let line: Vec<String> = head.iter().chain(&cells).map(|cell| quoted(cell)).collect();
            out.push_str(&(line.join(",") + "\n"));
        };
        let head = |run: &crate::result::Run, runs: usize, host: &str| {
            [
                run.id.clone(),
                runs.to_string(),
                host.to_owned(),
                run.label.clone().unwrap_or_default(),
            ]
        };
        let runs = doc.hosts.len().max(1);
        for operation in operations(doc) {
            row(head(&doc.run, runs, &doc.host.hostname), &operation);
        }
        for host in &doc.hosts {
            for result in &host.results {
                row(head(&host.run, 1, &host.host.hostname), &Operation::new(result));
            }
        }
    }
    out
}

/// In quotes if it has to be.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
#[test]
fn separators_within_cells_are_quoted() {
    assert_eq!(quoted("bulk.map"), "bulk.map");
    assert_eq!(quoted("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
}
