// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Killing cached translations, and the debt that is open until it is done.
//!
//! Whoever takes entries out of a table gets a `KillDebt`: what has to be killed, and the mapped
//! counts that fall due. Only `KillDebt::settle` hands the counts out, and it returns after the
//! fence. So nothing can be released before the kill has been waited for.

pub mod queue;

use crate::addr::{GroupId, Ioba, PageShift};
use crate::backend::{Backend, KillCaps, KillScope};
use crate::table::Old;

/// When kills are issued and waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KillPolicy {
    /// Before the call that changed the table returns: no device can use an old translation once
    /// its memory may be reused. Costs a fence a call.
    #[default]
    Strict,
}

/// What killing took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KillCount {
    /// Entries that had to be invalidated, times the PEs that could have cached them.
    pub asked: u64,
    /// Stores to kill registers.
    pub issued: u64,
}

impl std::ops::AddAssign for KillCount {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.issued += other.issued;
    }
}

/// Ranges kept without an allocation.
const INLINE: usize = 8;

/// Ranges of one table to be killed, merged where one follows the other.
#[derive(Default)]
struct KillQueue {
    inline: [(u64, u64); INLINE],
    len: usize,
    spilled: Vec<(u64, u64)>,
    /// Entries to be invalidated; a range may hold more than that.
    pages: u64,
}

impl KillQueue {
    fn push(&mut self, first: u64, count: u64, invalid: u64) {
        self.pages += invalid;
        let last = match self.spilled.last_mut() {
            Some(last) => Some(last),
            None => self.inline[..self.len].last_mut(),
        };
        match last {
            Some(last) if last.0 + last.1 == first => last.1 += count,
            _ if self.len < INLINE => {
                self.inline[self.len] = (first, count);
                self.len += 1;
            }
            _ => self.spilled.push((first, count)),
        }
    }

    fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.inline[..self.len].iter().chain(&self.spilled).copied()
    }
}

/// Amounts by registration number, few at a time.
#[derive(Default)]
pub(crate) struct Tally {
    last: Option<(usize, u64)>,
    more: Vec<(usize, u64)>,
}

impl Tally {
    #[inline]
    pub(crate) fn add(&mut self, number: usize, amount: u64) {
        match &mut self.last {
            Some(last) if last.0 == number => last.1 += amount,
            last => {
                if let Some(before) = last.replace((number, amount)) {
                    self.more.push(before);
                }
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, u64)> {
        self.last.iter().chain(&self.more).copied()
    }
}

/// What a change of a table still owes: kills first, then the release of mapped counts.
#[must_use = "entries were taken out; the kills for them have to be settled"]
pub(crate) struct KillDebt {
    queue: KillQueue,
    owed: Tally,
    /// `None` where a kernel kills: then only the counts are owed.
    caps: Option<KillCaps>,
}

/// A debt whose kills have been waited for.
#[must_use]
pub(crate) struct Settled {
    pub(crate) kills: KillCount,
    /// Mapped counts that may be released now.
    pub(crate) released: Tally,
}

impl KillDebt {
    pub(crate) fn new(caps: Option<KillCaps>) -> Self {
        Self { queue: KillQueue::default(), owed: Tally::default(), caps }
    }

    /// The counts that a stretch of old entries owes.
    pub(crate) fn owed(&mut self) -> &mut Tally {
        &mut self.owed
    }

    /// All entries of a range changed.
    pub(crate) fn changed(&mut self, first: u64, count: u64) {
        if self.caps.is_some() {
            self.queue.push(first, count, count);
        }
    }

    /// The live entries of a stretch go.
    pub(crate) fn gone(&mut self, old: &Old<'_>) {
        let live = old.summary.live;
        let Some(caps) = self.caps else { return };
        if self.queue.pages > caps.max_page_kills {
            // Ranges do not matter any more.
            self.queue.pages += live;
        } else if live < old.count() && live <= caps.max_page_kills {
            old.entries().for_each(|(index, _)| self.queue.push(index, 1, 1));
        } else {
            // So many that it will be a PE-wide kill, or all of them.
            self.queue.push(old.first(), old.count(), live);
        }
    }

    /// Kills on every PE, waits, and hands out what may be released.
    pub(crate) fn settle(
        self,
        policy: KillPolicy,
        backend: &dyn Backend,
        members: impl Iterator<Item = GroupId>,
        start: Ioba,
        page: PageShift,
    ) -> Settled {
        let KillPolicy::Strict = policy;
        let mut kills = KillCount::default();
        if let Some(caps) = self.caps.filter(|_| self.queue.pages > 0) {
            for group in members {
                kills.asked += self.queue.pages;
                if self.queue.pages > caps.max_page_kills {
                    kills.issued += backend.kill(group, KillScope::Pe);
                    continue;
                }
                for (first, count) in self.queue.ranges() {
                    let start = Ioba(start.0 + (first << page.get()));
                    kills.issued += backend.kill(group, KillScope::Pages { start, count, page });
                }
            }
            if kills.issued > 0 {
                backend.fence();
            }
        }
        Settled { kills, released: self.owed }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_spill() {
        let mut queue = KillQueue::default();
        queue.push(5, 3, 3);
        queue.push(8, 2, 2);
        assert_eq!(queue.ranges().collect::<Vec<_>>(), [(5, 5)]);
        for i in 0..20 {
            queue.push(100 + 2 * i, 1, 1);
        }
        queue.push(139, 1, 1);
        let ranges: Vec<_> = queue.ranges().collect();
        assert_eq!(ranges.len(), 21);
        assert_eq!(ranges[20], (138, 2));
        assert_eq!(ranges.iter().map(|r| r.1).sum::<u64>(), queue.pages);
    }

    #[test]
    fn tally_sums_by_number() {
        let mut tally = Tally::default();
        for (n, a) in [(1, 5), (1, 2), (0, 1), (1, 1)] {
            tally.add(n, a);
        }
        let sum = |n| tally.iter().filter(|t| t.0 == n).map(|t| t.1).sum::<u64>();
        assert_eq!((sum(0), sum(1)), (1, 8));
    }
}
