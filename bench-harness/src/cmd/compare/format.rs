// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A comparison as people read it: in a terminal, in a pull request. What documents say in words shall not
//! control either.

use std::fmt::Write;

use super::evaluate::{Cell, Evaluation};
use super::{About, Doc, Verdict};
use crate::columns;
use crate::style::{Style, printable, time_ns};

/// Of a sweep's points there is one more before them.
const HEADS: [&str; 8] =
    ["operation", "metric", "A", "B", "change", "interval", "noise floor", "verdict"];

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let mut out = format!("compare: {}\n", printable(&doc.label));
    if !doc.first.points.is_empty() {
        // It may be far down to the end.
        let _ = writeln!(out, "{}", coloured(doc, style));
    }
    let _ = writeln!(out, "A {}\nB {}\n", about(&doc.a), about(&doc.b));
    columns::table(&mut out, &rows(&doc.first), style);
    if let Some(again) = &doc.confirmation {
        out.push_str("\nonce more, to confirm:\n");
        columns::table(&mut out, &rows(again), style);
    }
    let _ = writeln!(out, "\n{}", how(doc));
    for line in remarks(doc) {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "{}", coloured(doc, style));
    out
}

fn coloured(doc: &Doc, style: Style) -> String {
    let text = verdict(doc);
    match doc.verdict {
        Verdict::Regression => style.red(&text),
        Verdict::Inconclusive => style.yellow(&text),
        Verdict::NoChange | Verdict::Improvement => style.green(&text),
    }
}

pub(super) fn markdown(doc: &Doc) -> String {
    let mut out = format!("**{}**\n\n{}\n\n", verdict(doc), printable(&doc.label));
    let _ = writeln!(out, "* A: {}\n* B: {}\n", about(&doc.a), about(&doc.b));
    markdown_rows(&mut out, &doc.first);
    if let Some(again) = &doc.confirmation {
        out.push_str("\nOnce more, to confirm:\n\n");
        markdown_rows(&mut out, again);
    }
    let _ = writeln!(out, "\n{}", how(doc));
    for line in remarks(doc) {
        let _ = writeln!(out, "\n{line}");
    }
    out
}

fn markdown_rows(out: &mut String, evaluation: &Evaluation) {
    let mut rows = rows(evaluation).into_iter();
    let heads = rows.next().unwrap_or_default();
    let point = if evaluation.points.is_empty() { "" } else { "---|" };
    let _ =
        writeln!(out, "| {} |\n|{point}---|---|---:|---:|---:|---:|---:|---|", heads.join(" | "));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
}

/// The heads, and a row for each metric of each operation.
fn rows(evaluation: &Evaluation) -> Vec<Vec<String>> {
    let sweep = !evaluation.points.is_empty();
    let point = |cell: &Cell| sweep.then(|| cell.point.to_string());
    let heads = sweep.then_some("point").into_iter().chain(HEADS).map(str::to_owned).collect();
    let of_cell = |cell: &Cell| point(cell).into_iter().chain(row(cell)).collect();
    std::iter::once(heads).chain(evaluation.cells.iter().map(of_cell)).collect()
}

fn row(cell: &Cell) -> [String; 8] {
    let interval = match (cell.low_percent, cell.high_percent) {
        (Some(low), Some(high)) => format!("{} … {} %", signed(low), signed(high)),
        _ => "–".to_owned(),
    };
    let verdict = cell.verdict.name();
    [
        printable(&cell.id),
        cell.metric.name().to_owned(),
        time_ns(cell.a_median_ns),
        time_ns(cell.b_median_ns),
        format!("{} %", signed(cell.change_percent)),
        interval,
        cell.noise_floor_percent.map_or("–".to_owned(), |floor| format!("{floor:.2} %")),
        if cell.judged { verdict.to_owned() } else { format!("({verdict})") },
    ]
}

/// No minus before what rounds to nothing.
fn signed(percent: f64) -> String {
    let text = format!("{percent:+.2}");
    if text == "-0.00" { "+0.00".to_owned() } else { text }
}

fn about(side: &About) -> String {
    let tool = side.tool.as_ref();
    let git = tool.and_then(|t| t.git.as_deref()).unwrap_or("of an unknown commit");
    let dirty = if tool.and_then(|t| t.dirty) == Some(true) { " and changes" } else { "" };
    printable(&format!("{} · {git}{dirty} · {} runs", side.name, side.runs))
}

fn how(doc: &Doc) -> String {
    let settings = &doc.settings;
    let metrics: Vec<_> = settings.metrics.iter().map(|m| m.name()).collect();
    let of = match (settings.paired, settings.best_of) {
        (false, _) => "the runs".to_owned(),
        (true, 1) => "the pairs' ratios".to_owned(),
        (true, runs) => format!("the pairs' ratios, of the best of up to {runs} runs each"),
    };
    format!(
        "judged: {}, a change is more than {} %; medians of {of}; intervals are {:.2} % ones, so that all \
         judged ones together are {:.0} % sure; what is in brackets is not judged",
        metrics.join(" and "),
        settings.threshold_percent,
        100.0 * (1.0 - doc.first.error_per_interval),
        100.0 * (1.0 - settings.error),
    )
}

fn remarks(doc: &Doc) -> Vec<String> {
    let mut lines = Vec::new();
    let again = doc.confirmation.iter().map(|again| ("once more, ", again));
    let first = if doc.confirmation.is_some() { "at first, " } else { "" };
    for (when, evaluation) in std::iter::once((first, &doc.first)).chain(again) {
        for point in &evaluation.points {
            let why = point.reason.as_ref().map_or(String::new(), |why| format!(" ({why})"));
            lines.push(format!("{when}{}: {}{why}", point.values, point.verdict.name()));
        }
    }
    for skipped in doc.skipped.iter().chain(&doc.first.skipped) {
        lines.push(format!("left out: {}: {}", skipped.id, skipped.reason));
    }
    for unlike in &doc.unlike {
        lines.push(format!("unlike: {unlike}"));
    }
    for (name, side) in [("A", &doc.a), ("B", &doc.b)] {
        for warning in &side.warnings {
            lines.push(format!("{name}: {}: {}", warning.code, warning.text));
        }
    }
    lines.extend(doc.notes.iter().map(|note| format!("note: {note}")));
    lines.iter().map(|line| printable(line)).collect()
}

fn verdict(doc: &Doc) -> String {
    let why = doc.reason.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    printable(&format!("verdict: {}{why}", doc.verdict.name()))
}
