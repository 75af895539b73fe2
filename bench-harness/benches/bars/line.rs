// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One bar: what was reached in each run, and whether the worst of them is good enough.

use std::fmt;

/// What a value has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
    /// Reported beside the others, judged by nobody.
    None,
}

impl Bar {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
            Self::None => true,
        }
    }

    fn worse(self, a: f64, b: f64) -> bool {
        match self {
            Self::AtLeast(_) => a < b,
            Self::AtMost(_) | Self::None => a > b,
        }
    }
}

/// What a value is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Per cent of a limit of the same run.
    Percent,
    /// Times another operation of the same run.
    Times,
    /// Nanoseconds.
    Ns,
    /// Million calls a second.
    MCalls,
    /// Instructions for each TCE.
    Instructions,
    /// Pieces.
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{value:.1} %"),
            Self::Times => format!("{value:.2} x"),
            Self::Ns => format!("{value:.2} ns"),
            Self::MCalls => format!("{value:.1} M/s"),
            Self::Instructions => format!("{value:.3}"),
            Self::Count => format!("{value}"),
        }
    }
}

/// What one run found for one bar.
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) bar: Bar,
    pub(crate) unit: Unit,
    pub(crate) value: f64,
    /// The times behind it.
    pub(crate) note: String,
}

impl Line {
    pub(crate) fn new(what: impl Into<String>, bar: Bar, unit: Unit, value: f64) -> Self {
        Self { what: what.into(), bar, unit, value, note: String::new() }
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// The runs of one bar.
pub(crate) struct Judged {
    runs: Vec<f64>,
    worst: Line,
}

impl Judged {
    pub(crate) fn new(line: Line) -> Self {
        Self { runs: vec![line.value], worst: line }
    }

    pub(crate) fn what(&self) -> &str {
        &self.worst.what
    }

    /// Adds another run.
    pub(crate) fn add(&mut self, line: Line) {
        self.runs.push(line.value);
        // A value that is no number is the worst there is.
        if line.value.is_nan() || line.bar.worse(line.value, self.worst.value) {
            self.worst = line;
        }
    }

    /// False if the bar was missed.
    pub(crate) fn passed(&self) -> bool {
        self.worst.bar.met(self.worst.value)
    }

    /// True if there is a bar.
    pub(crate) fn judged(&self) -> bool {
        self.worst.bar != Bar::None
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { what, bar, unit, value, note } = &self.worst;
        let (sign, bar) = match bar {
            Bar::AtLeast(bar) => (">=", unit.show(*bar)),
            Bar::AtMost(bar) => ("<=", unit.show(*bar)),
            Bar::None => ("", String::new()),
        };
        let verdict = match (self.judged(), self.passed()) {
            (false, _) => "-",
            (true, true) => "PASS",
            (true, false) => "FAIL",
        };
        let runs: Vec<_> = self.runs.iter().map(|run| unit.show(*run)).collect();
        let value = unit.show(*value);
        writeln!(f, "{verdict:<5}{what:<58}{value:>12}  {sign:2} {bar}")?;
        write!(f, "     runs: {}", runs.join(", "))?;
        if note.is_empty() { Ok(()) } else { write!(f, "; {note}") }
    }
}
