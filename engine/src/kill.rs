// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Killing cached translations, and the debt that is open until it is done.
//!
//! Whoever takes entries out of a table runs up a `KillDebt`: what has to be killed, and the mapped
//! counts that fall due. Only `KillDebt::settle` hands the counts out, after the fence. So nothing
//! can be released before the kill has been waited for.

pub(crate) mod debts;
pub(crate) mod exposure;
pub mod queue;

use std::time::{Duration, Instant};

use crate::addr::{Ioba, PageShift};
use crate::backend::{KillCaps, KillPort, KillScope};
use crate::sabotage::{Guard, stands};
use crate::table::Old;

use exposure::{Exposure, Longest};
use queue::Coalescer;

/// When kills are issued and waited for.
///
/// Whatever the policy, memory stays pinned and mapped counts stay up until the kills of what was
/// unmapped have been waited for, and an address that a handle allocated is not given back before. So a
/// device that is late reaches memory that the container still holds, never memory that it has given
/// back. Policies other than [`Strict`](Self::Strict) concern the calls of handles
/// ([`Mapper`](crate::container::Mapper), [`Vcpu`](crate::papr::Vcpu)), which have a place for what
/// is owed; a call on a [`Container`](crate::container::Container) itself always is strict. Where a
/// kernel owns the tables it kills as it sees fit, and the policy says nothing.
///
/// Whatever needs the truth settles all debts of the container first: to register memory or give it
/// back, to create or remove a window, to attach or detach a group, to close, and to drop a handle its
/// own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KillPolicy {
    /// Before the call that changed the table returns: no device can use an old translation once
    /// its memory may be reused. Costs a fence a call.
    #[default]
    Strict,
    /// At [`Mapper::submit`](crate::container::Mapper::submit) or
    /// [`Vcpu::submit`](crate::papr::Vcpu::submit), the end of a batch, of fills as of clears: one
    /// fence for all of them, and one kill of the PE where they are many. Until then devices may find
    /// what was there before: old entries, and emptiness where something was mapped. A batch with more
    /// than [`KillPolicy::MAX_PAGES`] pages is settled in parts.
    Batched,
    /// Clears are settled together and later; fills never wait: when a map has returned, devices find
    /// the new entries, whatever was there before. What is *unmapped* devices may reach until the
    /// handle holds back `max_pages` pages, or the oldest of them for `max_age`. Fewer fences and
    /// fewer kills, for a window in which a device that misbehaves still reaches what its driver has
    /// let go of, as under Linux's lazy IOTLB flushing.
    Deferred {
        /// Most pages that one handle holds back. 0 counts as 1, and more than
        /// [`KillPolicy::MAX_PAGES`] as that.
        max_pages: u32,
        /// Looked at in each call of the handle that has debt; the engine has no clock of its own.
        /// A handle that may be idle for longer needs somebody to call
        /// [`Container::retire_debts`](crate::container::Container::retire_debts).
        /// [`Duration::MAX`]: without limit, and no clock is read.
        max_age: Duration,
    },
}

impl KillPolicy {
    /// Most pages that a handle holds back, whatever was asked for.
    pub const MAX_PAGES: u32 = 4096;
}

/// What became of debts since the engine was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DebtMetrics {
    /// Times that what a handle owed was settled.
    pub retirements: u64,
    /// Pages whose kills waited.
    pub pages: u64,
    /// Most pages that one handle owed.
    pub most_pages: u64,
    /// The longest that a page was held back.
    pub longest: Duration,
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

impl std::ops::Add for KillCount {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

/// Amounts by registration number, few at a time.
#[derive(Default)]
pub(crate) struct Tally {
    last: Option<(usize, u64)>,
    more: Vec<(usize, u64)>,
}

impl Tally {
    /// One amount.
    #[inline]
    pub(crate) fn of(number: usize, amount: u64) -> Self {
        Self { last: Some((number, amount)), more: Vec::new() }
    }

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

    /// Each amount so many times.
    #[inline]
    pub(crate) fn times(mut self, n: u64) -> Self {
        self.last.iter_mut().chain(&mut self.more).for_each(|(_, amount)| *amount *= n);
        self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, u64)> {
        self.last.iter().chain(&self.more).copied()
    }

    /// The number, if there is only one.
    pub(crate) fn sole(&self) -> Option<usize> {
        if self.more.is_empty() { self.last.map(|last| last.0) } else { None }
    }

    fn clear(&mut self) {
        self.last = None;
        self.more.clear();
    }
}

/// What changes of a table still owe: kills first, then the release of mapped counts. It is settled
/// in every call that ran it up, and keeps its memory for the next one.
pub(crate) struct KillDebt {
    queue: Coalescer,
    owed: Tally,
    /// `None` where a kernel kills: then only the counts are owed.
    caps: Option<KillCaps>,
    /// What is killed instead of too many pages: the PE, or all where that cannot be.
    whole: KillScope,
    /// Only where it is to be measured.
    exposure: Option<Exposure>,
    /// What was settled last took a kill of everything.
    all_killed: bool,
}

impl KillDebt {
    /// `longest` is where the longest exposure goes, if that is to be measured.
    pub(crate) fn new(caps: Option<KillCaps>, longest: Option<&Longest>) -> Self {
        let whole = caps.map_or(KillScope::Pe, KillCaps::whole);
        let exposure = longest.cloned().map(Exposure::new);
        let (queue, owed) = (Coalescer::new(), Tally::default());
        Self { queue, owed, caps, whole, exposure, all_killed: false }
    }

    /// True if somebody wants to know how long released pages stay reachable.
    pub(crate) fn measures_exposure(&self) -> bool {
        self.exposure.is_some()
    }

    /// Entries are about to change: pages that they lead to are exposed from now on.
    #[inline]
    pub(crate) fn expose(&mut self) {
        if let Some(exposure) = &mut self.exposure {
            exposure.begin();
        }
    }

    /// True if entries that were empty before have to be killed too, unless somebody has looked.
    #[inline]
    pub(crate) fn on_fill(&self) -> bool {
        self.caps.is_some_and(|caps| caps.fill.unseen()) && stands(Guard::KillFill)
    }

    /// Most pages that are killed one by one; 0 also where a kernel kills.
    pub(crate) fn max_page_kills(&self) -> u64 {
        self.caps.map_or(0, |caps| caps.max_page_kills)
    }

    /// The counts that a stretch of old entries owes.
    pub(crate) fn owed(&mut self) -> &mut Tally {
        &mut self.owed
    }

    /// All entries of a range changed.
    pub(crate) fn changed(&mut self, first: u64, count: u64) {
        self.some_gone(first, count, count);
    }

    /// `live` entries of a stretch go, nobody looked which.
    pub(crate) fn some_gone(&mut self, first: u64, count: u64, live: u64) {
        if self.caps.is_some() {
            self.queue.push(first, count, live);
        }
    }

    /// The live entries of a stretch go.
    pub(crate) fn gone(&mut self, old: &Old<'_>) {
        let live = old.summary.live;
        let Some(caps) = self.caps else { return };
        if self.queue.pages() <= caps.max_page_kills
            && live < old.count()
            && live <= caps.max_page_kills
        {
            old.entries().for_each(|(index, _)| self.queue.push(index, 1, 1));
        } else {
            // All of them, or so many that it will be a PE-wide kill: then ranges do not matter.
            self.queue.push(old.first(), old.count(), live);
        }
    }

    /// Kills one page by `port`, which has so many members, waits, and then releases what was there.
    #[inline]
    pub(crate) fn settle_one(
        &mut self,
        port: &mut dyn KillPort,
        members: usize,
        (start, page): (Ioba, PageShift),
        release: impl FnOnce(),
    ) -> KillCount {
        let mut kills = KillCount::default();
        if let Some(caps) = self.caps {
            kills.asked = members as u64;
            if caps.max_page_kills > 0 {
                kills.issued = port.kill_page_and_wait(start, page);
            } else {
                kills.issued = port.kill(self.whole);
                port.fence();
                self.all_killed = true;
            }
        }
        if let Some(exposure) = &mut self.exposure {
            exposure.end(true);
        }
        release();
        kills
    }

    /// True if what was settled last took a kill of everything, which was waited for: then all that
    /// the caller changed before is killed, too. Says so once.
    #[inline]
    pub(crate) fn take_all_killed(&mut self) -> bool {
        std::mem::take(&mut self.all_killed)
    }

    /// Calls `f` with ranges, merged and ascending. Nothing is owed meanwhile.
    pub(crate) fn merged(
        &mut self,
        ranges: impl Iterator<Item = (u64, u64)>,
        mut f: impl FnMut(u64, u64),
    ) {
        ranges.for_each(|(first, count)| self.queue.push(first, count, count));
        self.queue.coalesce().for_each(|(first, count)| f(first, count));
        self.queue.clear();
    }

    /// Hands all of it to who settles it later: ranges and counts, and since when they are exposed if
    /// that is measured.
    pub(crate) fn put_off(
        &mut self,
        mut kill: impl FnMut(u64, u64),
        release: impl FnMut((usize, u64)),
    ) {
        self.queue.coalesce().for_each(|(first, count)| kill(first, count));
        self.queue.clear();
        self.owed.iter().for_each(release);
        self.owed.clear();
        self.exposure.iter_mut().for_each(Exposure::pass_on);
    }

    /// Pages that are to be killed.
    pub(crate) fn pages(&self) -> u64 {
        self.queue.pages()
    }

    /// What is to be killed: first entries and numbers.
    pub(crate) fn ranges(&mut self) -> impl Iterator<Item = (u64, u64)> {
        self.queue.coalesce()
    }

    /// Since when what is owed is exposed, if that is measured.
    pub(crate) fn exposed_since(&self) -> Option<Instant> {
        self.exposure.as_ref().and_then(Exposure::since)
    }

    /// Kills what is owed in several windows, by `port`, which has so many members, and waits. `pages`
    /// are all of them; `each` calls its argument with each window and its part of what is owed.
    pub(crate) fn kill_all_of(
        &mut self,
        port: &mut dyn KillPort,
        members: usize,
        pages: u64,
        each: impl FnOnce(&mut dyn FnMut((Ioba, PageShift), &mut dyn Iterator<Item = (u64, u64)>)),
    ) -> KillCount {
        let mut kills = KillCount { asked: pages * members as u64, issued: 0 };
        let most = self.max_page_kills();
        if pages > most {
            kills.issued = port.kill(self.whole);
        } else {
            let queue = &mut self.queue;
            each(&mut |(start, page), ranges| {
                ranges.for_each(|(first, count)| queue.push(first, count, count));
                kills.issued += kill_ranges(queue, port, (start, page));
                queue.clear();
            });
        }
        port.fence();
        kills
    }

    /// Kills by `port`, which has so many members, waits, and then hands out what may be released.
    /// Nothing is owed after it.
    pub(crate) fn settle(
        &mut self,
        port: &mut dyn KillPort,
        members: usize,
        (start, page): (Ioba, PageShift),
        release: impl FnMut((usize, u64)),
    ) -> KillCount {
        let mut kills = KillCount::default();
        if let Some(caps) = self.caps.filter(|_| self.queue.pages() > 0) {
            kills.asked = self.queue.pages() * members as u64;
            if self.queue.pages() > caps.max_page_kills {
                kills.issued = port.kill(self.whole);
                self.all_killed = true;
            } else {
                kills.issued = kill_ranges(&mut self.queue, port, (start, page));
            }
            if kills.issued > 0 {
                port.fence();
            }
        }
        self.queue.clear();
        if let Some(exposure) = &mut self.exposure {
            exposure.end(self.owed.last.is_some());
        }
        self.owed.iter().for_each(release);
        self.owed.clear();
        kills
    }
}

/// Kills what is in the queue, of a table whose first entry is at `start`; the stores.
fn kill_ranges(
    queue: &mut Coalescer,
    port: &mut dyn KillPort,
    (start, page): (Ioba, PageShift),
) -> u64 {
    let start = |first| Ioba(start.0 + (first << page.get()));
    queue.coalesce().map(|(first, count)| port.kill(pages(start(first), count, page))).sum()
}

/// The kill of a range of pages, one by one.
#[inline]
pub(crate) fn pages(start: Ioba, count: u64, page: PageShift) -> KillScope {
    let count = if stands(Guard::KillLast) { count } else { count - 1 };
    let page = if stands(Guard::KillStep) { page } else { PageShift::K4 };
    KillScope::Pages { start, count, page }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn tally_sums_by_number() {
        let mut tally = Tally::default();
        for (n, a) in [(1, 5), (1, 2), (0, 1), (1, 1)] {
            tally.add(n, a);
        }
        let sum = |n| tally.iter().filter(|t| t.0 == n).map(|t| t.1).sum::<u64>();
        assert_eq!((sum(0), sum(1)), (1, 8));
        assert_eq!(tally.sole(), None);
        tally.clear();
        tally.add(3, 1);
        tally.add(3, 2);
        assert_eq!((tally.sole(), tally.iter().collect::<Vec<_>>()), (Some(3), vec![(3, 3)]));
    }

    #[test]
    fn exposure_is_measured_on_request() {
        assert!(!KillDebt::new(None, None).measures_exposure());
        let mut debt = KillDebt::new(None, Some(&Longest::default()));
        assert!(debt.measures_exposure() && debt.exposed_since().is_none());
        debt.expose();
        assert!(debt.exposed_since().is_some());
        // Whoever settles it later measures it.
        debt.put_off(|_, _| (), |_| ());
        assert!(debt.exposed_since().is_none());
    }
}
