// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which call failed how, how often, and what its caller saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::plan::{Outcome, Site};

/// Outcomes that a site cannot have, and why.
pub(crate) type Never = (&'static [Outcome], &'static str);

/// A place where the engine calls out.
pub(crate) struct Row {
    pub(crate) site: Site,
    pub(crate) never: &'static [Never],
}

impl Row {
    pub(crate) fn why_not(&self, outcome: Outcome) -> Option<&'static str> {
        self.never.iter().find(|(never, _)| never.contains(&outcome)).map(|(_, why)| *why)
    }
}

use Outcome::{
    All, Cleared, Ebusy, Efault, Einval, Enoent, Enomem, Enxio, Eperm, First, Most, One,
};

const ALL_OF_THEM: &[Outcome] = &Outcome::EVERY;
const PARTS: &[Outcome] = &[First, Most, All, Cleared];
const WHOLE: Never = (PARTS, "names no range: it is done or not");
const NUMBER: Never = (&[One], "answers a number, and 1 is one");

/// A level that a kernel adds to a table on demand: no request of its own.
pub(crate) const LEVEL: Site = "a kernel's table level";
const BUT_EFAULT: &[Outcome] =
    &[Eperm, Enoent, Enomem, Ebusy, Einval, Enxio, One, First, Most, All, Cleared];
const BUT_ENOMEM: &[Outcome] =
    &[Eperm, Enoent, Efault, Ebusy, Einval, Enxio, One, First, Most, All, Cleared];

macro_rules! rows {
    ($($site:tt: [$($never:expr),*]),* $(,)?) => {
        &[$(Row { site: $site, never: &[$($never),*] }),*]
    };
}

/// Requests to a kernel, `RawContainer` and `RawHost`.
pub(crate) const KERNEL: &[Row] = rows! {
    "open": [WHOLE, (&[One], "answers a file")],
    "open group": [WHOLE],
    "GROUP_GET_STATUS": [WHOLE, NUMBER],
    "GROUP_SET_CONTAINER": [WHOLE],
    "SET_IOMMU": [WHOLE],
    "TCE_GET_INFO": [WHOLE],
    "ENABLE": [WHOLE],
    "DISABLE": [WHOLE],
    "REGISTER_MEMORY": [
        (&[First], "+1 is the same: it answers how many pages it could pin"),
        (&[All, Cleared], "Linux keeps none of a range that it cannot pin whole")
    ],
    "UNREGISTER_MEMORY": [WHOLE],
    "TCE_CREATE": [(&[First, Most, Cleared], "names no range")],
    "TCE_REMOVE": [WHOLE],
    "MAP_DMA": [],
    "UNMAP_DMA": [(&[All, Cleared], "clears anyway; when it has, nothing is left that could fail")],
    "EEH_PE_OP": [WHOLE],
    "EEH_PE_OP, state": [WHOLE, NUMBER],
    "GROUP_UNSET_CONTAINER": [WHOLE],
    "close group": [WHOLE, (&[One], "close(2) answers 0 or an error number")],
    "backing of memory": [(BUT_EFAULT, "answers nothing, without a number")],
    LEVEL: [(BUT_ENOMEM, "there is memory for it or not")],
    "CHECK_EXTENSION": [(ALL_OF_THEM, "the engine never asks")],
};

const NONE: Never = (ALL_OF_THEM, "cannot fail, by its type");
const ONE_RESULT: Never = (PARTS, "fails as a whole, by its contract");

/// Calls of a back end, `Backend` and `TableMemory`.
pub(crate) const BACKEND: &[Row] = rows! {
    "group": [ONE_RESULT],
    "take_ownership": [ONE_RESULT],
    "set_window": [ONE_RESULT],
    "reserve_table": [ONE_RESULT],
    "back_table": [ONE_RESULT],
    "pin": [ONE_RESULT],
    "eeh": [ONE_RESULT],
    "eeh_state": [ONE_RESULT],
    "unpin": [NONE],
    "free_table": [NONE],
    "unset_window": [NONE],
    "release_ownership": [NONE],
    "kill": [NONE],
    "fence": [NONE],
};

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
