// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is counted and not timed: instructions, locked instructions, allocations.

use crate::common::counted::{CALLS, LOOPS, Work};
use crate::common::limit::reference;
use crate::common::stepper::check_classification;
use crate::line::{Bar, Line, Unit};
use crate::{COUNTING, Setup};

pub(crate) fn counts(setup: &Setup) -> Vec<Line> {
    check_classification();
    let count = |work: Work, tier| work.count(tier).unwrap_or_else(|e| panic!("{e}"));
    let mut lines = Vec::new();
    for work in LOOPS {
        let Some(budget) = work.instruction_budget() else { continue };
        let tier = reference();
        let each = count(work, tier).instructions as f64 / work.units() as f64;
        let what = format!("{}, instructions for each TCE, {}", work.name(), tier.name());
        lines.push(Line::new(what, Bar::AtMost(budget), Unit::Instructions, each));
    }
    for work in CALLS {
        if let Some(budget) = work.locked_budget() {
            let (counts, units) = (count(work, setup.tier), work.units() as f64);
            let note = format!("{:.1} instructions a call", counts.instructions as f64 / units);
            let what = format!("{}, locked instructions", work.name());
            let each = counts.locked as f64 / units;
            lines.push(Line::new(what, Bar::AtMost(budget), Unit::Count, each).note(note));
        }
        let allocations = work.allocations(setup.tier, &COUNTING) as f64;
        let what = format!("{}, allocations", work.name());
        lines.push(Line::new(what, Bar::AtMost(0.0), Unit::Count, allocations));
    }
    lines
}
