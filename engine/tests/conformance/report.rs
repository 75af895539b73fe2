// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table, what the kernel gets wrong, and the JSON.

use std::fmt::Write as _;

use crate::case::{Case, Column, End, On, Outcome};
use crate::kernels::Kernel;

struct Row {
    case: Case,
    outcomes: [Option<Outcome>; 2],
}

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

impl Row {
    fn verdict(&self) -> Verdict {
        let ran = |o: &&Outcome| !matches!(o.end, End::Skipped(_));
        if self.outcomes.iter().flatten().any(Outcome::failed) {
            Verdict::Failed
        } else if self.outcomes.iter().flatten().any(|o| ran(&o)) {
            Verdict::Passed
        } else {
            Verdict::Skipped
        }
    }
}

pub(crate) struct Report {
    here: On,
    column: Option<Column>,
    kernel: Kernel,
    /// Shows only what failed.
    brief: bool,
    rows: Vec<Row>,
}

const WHAT: usize = 50;
const CELL: usize = 34;

/// Cut to `width` characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// The answers of a column, those that repeat only once. One that is not what was expected is shown
/// as expected/answered.
fn cell(outcome: Option<&Outcome>) -> String {
    let Some(outcome) = outcome else { return "-".to_owned() };
    if let Some(wrong) = outcome.steps.iter().find(|step| !step.ok()) {
        return format!("{}/{}", wrong.expected, wrong.answered);
    }
    let mut words: Vec<&str> = outcome.steps.iter().map(|step| step.answered.as_str()).collect();
    words.dedup();
    match &outcome.end {
        End::Ended => words.join(" "),
        End::Skipped(_) => "skipped".to_owned(),
        End::Broken(_) => "broken".to_owned(),
    }
}

impl Report {
    pub(crate) fn new(here: On, column: Option<Column>, kernel: Kernel, brief: bool) -> Self {
        Self { here, column, kernel, brief, rows: Vec::new() }
    }

    /// Which kernel.
    fn kernel(&self) -> String {
        if self.here == On::Real {
            return "the kernel of this machine".to_owned();
        }
        let Kernel { profile, platform, host_page } = self.kernel;
        format!("mock-kernel {profile} on {platform}, {host_page} host pages")
    }

    pub(crate) fn header(&self) {
        if self.brief {
            return;
        }
        let kernel = self.kernel();
        let only = self.column.map_or(String::new(), |c| format!(", {} only", c.name()));
        println!(
            "Conformance on {kernel}{only}. Shown is what was answered; where that is not what"
        );
        println!(
            "was expected, expected/answered. V is locked memory, in host pages since the start."
        );
        println!();
        println!(
            "{:4} {:4} {:WHAT$} {:CELL$} {:CELL$} verdict",
            "id", "on", "what", "raw: the kernel", "the engine"
        );
    }

    pub(crate) fn add(&mut self, case: &Case, outcomes: [Option<Outcome>; 2]) {
        let row = Row { case: *case, outcomes };
        let [raw, engine] = row.outcomes.each_ref().map(|o| cut(&cell(o.as_ref()), CELL));
        let verdict = match row.verdict() {
            Verdict::Passed => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        };
        if self.brief && row.verdict() != Verdict::Failed {
            self.rows.push(row);
            return;
        }
        if self.brief {
            print!("{}: ", self.kernel());
        }
        let (id, on, what) = (case.id, case.on.name(), cut(case.what, WHAT));
        println!("{id:4} {on:4} {what:WHAT$} {raw:CELL$} {engine:CELL$} {verdict}");
        for (column, outcome) in Column::ALL.iter().zip(&row.outcomes) {
            let Some(outcome) = outcome else { continue };
            if outcome.failed() {
                for step in &outcome.steps {
                    let (label, expected, answered) = (&step.label, &step.expected, &step.answered);
                    let mark = if step.ok() { ' ' } else { '!' };
                    println!(
                        "       {mark} {} {label}: expected {expected}, answered {answered}",
                        column.name()
                    );
                }
            }
            match &outcome.end {
                End::Ended => {}
                End::Skipped(why) => println!("         {}: skipped: {why}", column.name()),
                End::Broken(why) => println!("       ! {}: {why}", column.name()),
            }
        }
        self.rows.push(row);
    }

    fn number(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict() == verdict).count()
    }

    pub(crate) fn failed(&self) -> usize {
        self.number(Verdict::Failed)
    }

    pub(crate) fn summary(&self) {
        if self.brief {
            return;
        }
        let mut heading = Some("Where the kernel is wrong, and what the engine does instead");
        for row in self.rows.iter().filter(|row| row.verdict() == Verdict::Passed) {
            let (Some(instead), [Some(raw), _]) = (row.case.instead, &row.outcomes) else {
                continue;
            };
            if let Some(heading) = heading.take() {
                println!("\n{heading}\n");
            }
            println!("{:4} {}", row.case.id, row.case.what);
            println!("     kernel: {}", cell(Some(raw)));
            println!("     engine: {instead}");
        }
        println!("\n{}", self.counts());
    }

    fn counts(&self) -> String {
        let (passed, failed, skipped) =
            (self.number(Verdict::Passed), self.failed(), self.number(Verdict::Skipped));
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }

    /// One line for the kernel.
    pub(crate) fn totals(&self) {
        let skipped = self.rows.iter().filter(|row| row.verdict() == Verdict::Skipped);
        let ids: Vec<_> = skipped.map(|row| row.case.id).collect();
        let ids = if ids.is_empty() { String::new() } else { format!(": {}", ids.join(" ")) };
        println!("{:46} {}{ids}", self.kernel(), self.counts());
    }

    /// All steps of each case.
    pub(crate) fn json(&self) -> Vec<String> {
        let one = |row: &Row| {
            let mut text = String::new();
            let verdict = match row.verdict() {
                Verdict::Passed => "passed",
                Verdict::Failed => "failed",
                Verdict::Skipped => "skipped",
            };
            let _ = write!(
                text,
                "\n{{\"kernel\": {}, \"id\": {}, \"what\": {}, \"on\": {}, \"verdict\": {}, \
                 \"instead\": {}",
                quoted(&self.kernel()),
                quoted(row.case.id),
                quoted(row.case.what),
                quoted(row.case.on.name()),
                quoted(verdict),
                row.case.instead.map_or("null".to_owned(), quoted),
            );
            for (column, outcome) in Column::ALL.iter().zip(&row.outcomes) {
                let _ = write!(text, ", {}: {}", quoted(column.name()), outcome_json(outcome));
            }
            text.push('}');
            text
        };
        self.rows.iter().map(one).collect()
    }
}

fn outcome_json(outcome: &Option<Outcome>) -> String {
    let Some(outcome) = outcome else { return "null".to_owned() };
    let steps: Vec<_> = outcome
        .steps
        .iter()
        .map(|step| {
            let [label, expected, answered] =
                [&step.label, &step.expected, &step.answered].map(|text| quoted(text));
            format!("{{\"step\": {label}, \"expected\": {expected}, \"answered\": {answered}}}")
        })
        .collect();
    let end = match &outcome.end {
        End::Ended => "null".to_owned(),
        End::Skipped(why) => quoted(&format!("skipped: {why}")),
        End::Broken(why) => quoted(&format!("broken: {why}")),
    };
    format!("{{\"steps\": [{}], \"stopped\": {end}}}", steps.join(", "))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
