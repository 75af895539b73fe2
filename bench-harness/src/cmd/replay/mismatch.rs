// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Answers that differ from the recorded ones: all are counted, the first are kept in words.

use std::fmt;

use tce_engine::papr::HCode;

/// So many are kept in words.
pub(super) const KEPT: usize = 10;

/// The differences of one or more traces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mismatches {
    pub(super) count: u64,
    /// The first of them: `FILE:LINE: what: expected …, got …`.
    pub(super) first: Vec<String>,
}

impl Mismatches {
    /// Notes one. `at` is `FILE:LINE`; it and the rest are only put into words if kept.
    pub(super) fn add(
        &mut self,
        at: impl FnOnce() -> String,
        what: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(format!("{}: {what}: expected {expected}, got {got}", at()));
        }
    }

    /// Adds those of another trace.
    pub(super) fn extend(&mut self, other: &Self) {
        self.count += other.count;
        let room = KEPT - self.first.len().min(KEPT);
        self.first.extend(other.first.iter().take(room).cloned());
    }
}

/// A return code with its name: `-4 (H_PARAMETER)`.
pub(super) struct Code(pub(super) i64);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", HCode(self.0));
        // A code without a name prints as H(code).
        if name.starts_with("H_") {
            write!(f, "{} ({name})", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// What a window call gave: `status 0, LIOBN 0x80000001 at 0x800000000000000`.
pub(super) struct Given(pub(super) i64, pub(super) Option<(u32, u64)>);

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.0)?;
        match self.1 {
            Some((liobn, ioba)) => write!(f, " with LIOBN {liobn:#x} at {ioba:#x}"),
            None => Ok(()),
        }
    }
}
