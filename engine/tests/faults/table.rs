// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which call failed how, how often, and what its caller saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tce_engine::backend::linux::faulty::Outcome::{
    All, Cleared, Ebusy, Efault, Einval, Enoent, Enxio, Eperm, First, Most, One,
};
use tce_engine::backend::linux::faulty::{Never, Outcome, Row, Site};

/// A level that a kernel adds to a table on demand: no request of its own.
pub(crate) const LEVEL: Site = "a kernel's table level";
const BUT_ENOMEM: &[Outcome] =
    &[Eperm, Enoent, Efault, Ebusy, Einval, Enxio, One, First, Most, All, Cleared];
/// What a kernel lacks beside its requests' failures.
pub(crate) const LEVELS: &[Row] =
    &[Row::new(LEVEL, &[(BUT_ENOMEM, "there is memory for it or not")])];

const NONE: Never = (&Outcome::EVERY, "cannot fail, by its type");
const ONE_RESULT: Never = (&[First, Most, All, Cleared], "fails as a whole, by its contract");

/// Calls of a back end, `Backend` and `TableMemory`.
pub(crate) const BACKEND: &[Row] = &[
    Row::new("group", &[ONE_RESULT]),
    Row::new("take_ownership", &[ONE_RESULT]),
    Row::new("set_window", &[ONE_RESULT]),
    Row::new("reserve_table", &[ONE_RESULT]),
    Row::new("back_table", &[ONE_RESULT]),
    Row::new("pin", &[ONE_RESULT]),
    Row::new("eeh", &[ONE_RESULT]),
    Row::new("eeh_state", &[ONE_RESULT]),
    Row::new("unpin", &[NONE]),
    Row::new("free_table", &[NONE]),
    Row::new("unset_window", &[NONE]),
    Row::new("release_ownership", &[NONE]),
    Row::new("kill", &[NONE]),
    Row::new("fence", &[NONE]),
];

/// What came of one kind of failure.
#[derive(Default)]
struct Cell {
    visits: u64,
    /// By step: what the caller was told.
    seen: BTreeSet<(&'static str, String)>,
}

#[derive(Default)]
pub(crate) struct Table {
    cells: BTreeMap<(Site, Outcome), Cell>,
    calls: BTreeMap<Site, u64>,
    went_on: BTreeSet<(Site, &'static str)>,
    /// Failures after which something was not as it has to be.
    pub(crate) wrong: u32,
}

impl Table {
    pub(crate) fn called(&mut self, site: Site, calls: usize) {
        *self.calls.entry(site).or_default() += calls as u64;
    }

    pub(crate) fn visited(
        &mut self,
        site: Site,
        outcome: Outcome,
        step: &'static str,
        told: String,
    ) {
        let cell = self.cells.entry((site, outcome)).or_default();
        cell.visits += 1;
        cell.seen.insert((step, told));
    }

    /// A step was done although a call failed.
    pub(crate) fn went_on(&mut self, site: Site, step: &'static str) {
        self.went_on.insert((site, step));
    }

    /// Every cell that can be was visited, nothing went wrong, and only what is listed went on.
    pub(crate) fn assert_full(&self, rows: &[&Row], goes_on: &[(Site, &'static str)]) {
        assert_eq!(self.wrong, 0, "failures after which something is wrong, told above");
        let listed: BTreeSet<_> = goes_on.iter().copied().collect();
        assert_eq!(self.went_on, listed, "steps that go on after a failure");
        let mut empty = Vec::new();
        for row in rows {
            for outcome in Outcome::EVERY {
                let visits = self.cells.get(&(row.site, outcome)).map_or(0, |cell| cell.visits);
                if row.why_not(outcome).is_none() && visits == 0 {
                    empty.push(format!("{}: {outcome}", row.site));
                }
            }
        }
        assert_eq!(empty, Vec::<String>::new(), "never failed like this:\n{}", self.shown(rows));
    }

    pub(crate) fn shown(&self, rows: &[&Row]) -> String {
        Shown(self, rows).to_string()
    }
}

struct Shown<'a>(&'a Table, &'a [&'a Row]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(table, rows) = self;
        write!(f, "{:<23}{:>6}", "failed, times", "calls")?;
        Outcome::EVERY.iter().try_for_each(|outcome| write!(f, "{outcome:>8}"))?;
        writeln!(f)?;
        let mut notes: Vec<&str> = Vec::new();
        for row in *rows {
            write!(f, "{:<23}{:>6}", row.site, table.calls.get(row.site).unwrap_or(&0))?;
            for outcome in Outcome::EVERY {
                if let Some(why) = row.why_not(outcome) {
                    let note = notes.iter().position(|n| *n == why).unwrap_or_else(|| {
                        notes.push(why);
                        notes.len() - 1
                    });
                    write!(f, "{:>8}", format!("({})", (b'a' + note as u8) as char))?;
                } else {
                    let visits = table.cells.get(&(row.site, outcome)).map_or(0, |c| c.visits);
                    write!(f, "{visits:>8}")?;
                }
            }
            writeln!(f)?;
        }
        for (note, why) in (b'a'..).zip(&notes) {
            writeln!(f, "({}) {why}", note as char)?;
        }
        writeln!(f, "\nwhat the caller saw")?;
        for row in *rows {
            let mut told: BTreeMap<&(&str, String), Vec<String>> = BTreeMap::new();
            for outcome in Outcome::EVERY {
                for seen in table.cells.get(&(row.site, outcome)).into_iter().flat_map(|c| &c.seen)
                {
                    told.entry(seen).or_default().push(outcome.to_string());
                }
            }
            for ((step, answer), outcomes) in told {
                writeln!(f, "  {:<23}{step:<28}{answer:<29}{}", row.site, outcomes.join(" "))?;
            }
        }
        Ok(())
    }
}
