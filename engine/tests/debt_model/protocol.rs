// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instances of the protocol: how much there is, under which rules, with which mistake.

use crate::device::Cache;
use crate::state::{ENTRIES, Set};

/// When kills are issued and waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    /// Before the call returns.
    Strict,
    /// When the batch is submitted, those of fills too. Nothing is promised before.
    Batched,
    /// Those of clears later, all others before the call returns.
    Deferred,
}

/// When entries that were empty are killed, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FillRule {
    Always,
    /// Where something else of the line may have brought it into a cache. A strict engine takes it for
    /// `Always`.
    BesideLive,
    Never,
}

/// What one could get wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    /// Debts are retired without a kill.
    NoKill,
    /// Kills reach the first member's cache only.
    FirstMemberOnly,
    /// Nobody waits for accesses in flight.
    NoFence,
    ReleaseBeforeFence,
    ReleaseBeforeKill,
    UnmarkBeforeKill,
    /// Clears that wait leave no mark.
    NoMark,
    /// The lock is let go of between a clear and its mark.
    MarkLate,
    FillIgnoresMarks,
    /// Whoever retires a record resets all marks of its word.
    UnmarkWord,
    /// Whoever retires a record resets its mark, even if that is another's by now.
    UnmarkAnothers,
    /// Clears wait beside another's debt, and the word becomes theirs.
    TwoDebtors,
    /// A ring that is full is settled where it is noticed: under the segment's lock.
    SettleUnderLock,
    /// A change of the structure retires no debts.
    WriterSkipsDebts,
    /// A change of the structure leaves in the rings what it has retired.
    WriterKeepsDebts,
    /// An IOBA goes back to the stock when it is unmapped.
    StockBeforeKill,
    JoinWithoutKill,
    LeaveWithoutKill,
    /// Fills are not among the debts of a batch.
    SubmitForgetsFills,
    /// `BesideLive` does not look for strict clears that are under way.
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
    /// Of each entry that there is, the line of the cache.
    pub(crate) lines: &'static [usize],
    /// Of each entry, the word of its mark.
    pub(crate) words: &'static [usize],
    /// Registrations of a page each.
    pub(crate) pages: usize,
    pub(crate) pes: usize,
    /// Records that a handle's ring has room for.
    pub(crate) ring: usize,
    /// More pages are killed as a whole PE.
    pub(crate) max_page_kills: usize,
    /// Calls are for two neighbours, too.
    pub(crate) runs: bool,
    /// Callers have IOBAs from the allocator and give them back; else they choose them.
    pub(crate) stock: bool,
    /// Maps may replace.
    pub(crate) replace: bool,
    /// Debts may be retired in part, the oldest first.
    pub(crate) parts: bool,
    /// Calls for the same entry may overlap; then nothing is promised of it, but memory is safe.
    pub(crate) overlap: bool,
    /// Memory is unregistered and registered again.
    pub(crate) unregister: bool,
    /// The last PE joins and leaves.
    pub(crate) join: bool,
    /// States that differ by names only are one.
    pub(crate) symmetry: bool,
}

impl Protocol {
    /// Two entries of one line, two pages, one PE, two records for each handle.
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
            let pair = self.runs && e + 1 < self.entries();
            pair.then(|| Set::of(e).with(Set::of(e + 1)))
        };
        (0..self.entries()).flat_map(move |e| [Some(Set::of(e)), two(e)]).flatten()
    }
}
