// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instances of the protocol: how much there is, under which rules, with which mistake.

use crate::device::Cache;
use crate::state::{ENTRIES, Set};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    /// Everything is killed before the call returns.
    Strict,
    /// Nothing need be killed before the batch is submitted.
    Batched,
    /// Only clears wait.
    Deferred,
}

/// When an entry that was empty has to be killed, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FillRule {
    Always,
    /// If something else in its line could have brought it into a cache. Strict calls take it for
    /// `Always`.
    BesideLive,
    Never,
}

/// What somebody could get wrong. The protocol is right without each of these, and no longer with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    /// A debt is retired without a kill.
    NoKill,
    /// The first member's cache alone is killed.
    FirstMemberOnly,
    /// Nobody waits for accesses in flight.
    NoFence,
    ReleaseBeforeFence,
    ReleaseBeforeKill,
    UnmarkBeforeKill,
    /// Clears that wait leave no mark.
    NoMark,
    /// The mark is made after the lock was let go of.
    MarkLate,
    FillIgnoresMarks,
    /// Who retires resets all marks of the words.
    UnmarkWord,
    /// Who retires resets its entries' marks, whosever they are.
    UnmarkAnothers,
    /// A word's marks are taken over with another's in it.
    TwoDebtors,
    /// A change of the structure leaves debts open.
    WriterSkipsDebts,
    /// A change of the structure retires debts and leaves them in their rings.
    WriterKeepsDebts,
    /// An IOBA goes back when it is unmapped.
    StockBeforeKill,
    /// A PE joins as it is.
    JoinWithoutKill,
    /// A PE leaves as it is.
    LeaveWithoutKill,
    /// Fills of a batch are not killed when it is submitted.
    SubmitForgetsFills,
    /// `BesideLive` looks at marks and live entries only, not at clears that are under way.
    StrictClearsUnseen,
    /// `BesideLive` looks at what there was before the call only.
    OwnRunUnseen,
}

/// An instance: what there is, and the rules it is under.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) policy: Policy,
    pub(crate) fill: FillRule,
    pub(crate) cache: Cache,
    pub(crate) mistake: Option<Mistake>,
    /// The line of each entry; so many entries are there.
    pub(crate) lines: &'static [usize],
    /// The word of marks of each entry.
    pub(crate) words: &'static [usize],
    /// Registrations of a page each.
    pub(crate) pages: usize,
    pub(crate) pes: usize,
    /// Records that a handle's ring has room for.
    pub(crate) ring: usize,
    /// More pages are killed as a whole PE.
    pub(crate) max_page_kills: usize,
    /// Calls for two entries of a line, beside those for one.
    pub(crate) runs: bool,
    /// IOBAs come from the allocator and go back to it; else callers choose them.
    pub(crate) stock: bool,
    /// Maps may replace.
    pub(crate) replace: bool,
    /// Debts may be retired in part.
    pub(crate) parts: bool,
    /// Calls for the same entry may overlap; then nothing is promised of it, but memory is safe.
    pub(crate) overlap: bool,
    /// The structure changes.
    pub(crate) unregister: bool,
    /// The last PE joins and leaves.
    pub(crate) join: bool,
    /// States that differ by names only are one.
    pub(crate) symmetry: bool,
}

impl Protocol {
    /// Two entries of one line, one page, one PE, callers that choose addresses.
    pub(crate) const fn new(policy: Policy, fill: FillRule, cache: Cache) -> Self {
        Self {
            policy,
            fill,
            cache,
            mistake: None,
            lines: &[0, 0],
            words: &[0, 0],
            pages: 2,
            pes: 1,
            ring: 2,
            max_page_kills: ENTRIES,
            runs: false,
            stock: false,
            replace: false,
            parts: false,
            overlap: false,
            unregister: false,
            join: false,
            symmetry: false,
        }
    }

    pub(crate) fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    pub(crate) fn entries(&self) -> usize {
        self.lines.len()
    }

    /// The entries of a line.
    pub(crate) fn line(&self, line: usize) -> Set {
        self.those(|e| self.lines[e] == line)
    }

    pub(crate) fn word(&self, word: usize) -> Set {
        self.those(|e| self.words[e] == word)
    }

    fn those(&self, which: impl Fn(usize) -> bool) -> Set {
        (0..self.entries()).filter(|e| which(*e)).collect()
    }

    /// What calls are for: each entry, and two neighbours.
    pub(crate) fn all_runs(&self) -> impl Iterator<Item = Set> {
        let two = |e: usize| {
            let pair = self.runs && self.lines.get(e) == self.lines.get(e + 1);
            pair.then(|| Set::of(e).with(Set::of(e + 1)))
        };
        (0..self.entries()).flat_map(move |e| [Some(Set::of(e)), two(e)]).flatten()
    }
}
