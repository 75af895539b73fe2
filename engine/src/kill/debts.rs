// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a handle owes between its calls: entries that it changed and whose kills have not been waited
//! for, and the mapped counts and bus addresses that wait with them.
//!
//! Only the handle adds to it, while it is inside the container's structure, and by plain stores. Who has
//! the structure alone may settle it. So the structure's lock orders everything here.

use std::time::{Duration, Instant};

use crate::addr::Ioba;
use crate::kill::DebtMetrics;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Some pages of one window in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    /// Where they are killed; `None`: that is another record's. Where so many are killed that it will be
    /// the whole PE, not all of them need to have changed.
    pub(crate) at: Option<Ioba>,
    pub(crate) pages: u32,
    /// The registration whose mapped count goes down by so many, if they were live.
    pub(crate) number: Option<usize>,
    /// The addresses go back to the handle's magazine.
    pub(crate) free: bool,
}

/// Where no page begins.
const NOWHERE: u64 = u64::MAX;
/// No registration's number.
const NOBODY: u64 = (1 << 31) - 1;

/// From the lowest bit on: pages, 32 bits; a bit for an address that goes back; the number.
#[derive(Default)]
struct Record {
    at: AtomicU64,
    what: AtomicU64,
}

/// See the [module](self).
pub(crate) struct Debts {
    records: Box<[Record]>,
    /// Records that are there.
    len: AtomicU32,
    /// Pages that await their kill.
    pages: AtomicU32,
    /// Pages that count as mapped until then.
    held: AtomicU32,
    /// Nothing is owed any more: what is there are addresses that the handle has not taken back.
    settled: AtomicBool,
    epoch: Instant,
    /// Since when the oldest waits, in ns from `epoch`.
    since: AtomicU64,
}

impl Debts {
    /// Room for so many records.
    pub(crate) fn new(room: u32) -> Self {
        Self {
            records: (0..room).map(|_| Record::default()).collect(),
            len: AtomicU32::new(0),
            pages: AtomicU32::new(0),
            held: AtomicU32::new(0),
            settled: AtomicBool::new(false),
            epoch: Instant::now(),
            since: AtomicU64::new(0),
        }
    }

    /// Pages that await their kill.
    #[inline]
    pub(crate) fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Pages that count as mapped until then; one counts twice that was unmapped twice.
    pub(crate) fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    fn len(&self) -> u32 {
        self.len.load(Ordering::Relaxed)
    }

    /// How long the oldest has waited.
    pub(crate) fn age(&self) -> Duration {
        let since = Duration::from_nanos(self.since.load(Ordering::Relaxed));
        self.epoch.elapsed().saturating_sub(since)
    }

    /// For the handle, before it changes entries: so many pages that were changed at `since`, or now, are
    /// about to be added. There is room for them, and nothing that was settled is left.
    #[inline]
    pub(crate) fn begin(&self, since: Option<Instant>, pages: u32) {
        debug_assert!(!self.settled.load(Ordering::Relaxed));
        if self.len() == 0 {
            let since = since.unwrap_or_else(Instant::now).saturating_duration_since(self.epoch);
            self.since.store(since.as_nanos() as u64, Ordering::Relaxed);
        }
        self.pages.store(self.pages() + pages, Ordering::Relaxed);
    }

    /// For the handle: adds a record of what has begun.
    #[inline]
    pub(crate) fn push(&self, owed: Owed) {
        let Owed { at, pages, number, free } = owed;
        let len = self.len();
        let record = &self.records[len as usize];
        if number.is_some() {
            self.held.store(self.held() + pages, Ordering::Relaxed);
        }
        let number = number.map_or(NOBODY, |number| number as u64);
        record.at.store(at.map_or(NOWHERE, |at| at.0), Ordering::Relaxed);
        let what = u64::from(pages) | u64::from(free) << 32 | number << 33;
        record.what.store(what, Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Relaxed);
    }

    /// What is owed, or what was and is settled but for its addresses.
    pub(crate) fn records(&self) -> impl Iterator<Item = Owed> + Clone + '_ {
        self.records[..self.len() as usize].iter().map(|record| {
            let at = record.at.load(Ordering::Relaxed);
            let what = record.what.load(Ordering::Relaxed);
            let number = what >> 33;
            Owed {
                at: (at != NOWHERE).then_some(Ioba(at)),
                pages: what as u32,
                number: (number != NOBODY).then_some(number as usize),
                free: what >> 32 & 1 == 1,
            }
        })
    }

    /// Everything was killed, waited for and released.
    pub(crate) fn settled(&self) {
        self.pages.store(0, Ordering::Relaxed);
        self.held.store(0, Ordering::Relaxed);
        // Release: an address is used again only after its kill.
        self.settled.store(self.len() > 0, Ordering::Release);
    }

    /// For the handle: the addresses that go back, once what was there is settled. To be called inside
    /// before anything is added.
    #[inline]
    pub(crate) fn take_back(&self, mut give: impl FnMut(Ioba, u64)) {
        if self.settled.load(Ordering::Acquire) {
            for owed in self.records().filter(|owed| owed.free) {
                owed.at.into_iter().for_each(|at| give(at, owed.pages.into()));
            }
            self.len.store(0, Ordering::Relaxed);
            self.settled.store(false, Ordering::Relaxed);
        }
    }
}

/// What became of the debts of an engine's handles.
#[derive(Default)]
pub(crate) struct Books {
    retirements: AtomicU64,
    pages: AtomicU64,
    most_pages: AtomicU64,
    /// In ns.
    longest: AtomicU64,
}

impl Books {
    /// A debt of so many pages was settled, of which the oldest had waited for so long.
    pub(crate) fn settled(&self, pages: u32, age: Duration) {
        let pages = u64::from(pages);
        self.retirements.fetch_add(1, Ordering::Relaxed);
        self.pages.fetch_add(pages, Ordering::Relaxed);
        self.most_pages.fetch_max(pages, Ordering::Relaxed);
        self.longest.fetch_max(age.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> DebtMetrics {
        DebtMetrics {
            retirements: self.retirements.load(Ordering::Relaxed),
            pages: self.pages.load(Ordering::Relaxed),
            most_pages: self.most_pages.load(Ordering::Relaxed),
            longest: Duration::from_nanos(self.longest.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_leaves_its_addresses() {
        let debts = Debts::new(3);
        let live = Owed { at: Some(Ioba(0x1000)), pages: 4096, number: Some(7), free: true };
        let fill = Owed { at: Some(Ioba(0x2000)), pages: 1, number: None, free: false };
        let count = Owed { at: None, pages: 9, number: Some(0), free: false };
        debts.begin(None, 4097);
        [live, fill, count].into_iter().for_each(|owed| debts.push(owed));
        assert!(debts.records().eq([live, fill, count]));
        assert_eq!((debts.pages(), debts.held()), (4097, 4105));
        debts.take_back(|at, _| panic!("{at} is still owed"));
        debts.settled();
        assert_eq!((debts.pages(), debts.held(), debts.len()), (0, 0, 3));
        let mut back = Vec::new();
        debts.take_back(|at, pages| back.push((at, pages)));
        assert_eq!((back, debts.len()), (vec![(Ioba(0x1000), 4096)], 0));
        debts.settled();
        debts.take_back(|at, _| panic!("{at} was given back"));
    }
    #[test]
    fn the_age_is_that_of_the_oldest() {
        const WAIT: Duration = Duration::from_millis(2);
        let debts = Debts::new(2);
        let one = Owed { at: Some(Ioba(0)), pages: 1, number: None, free: false };
        let begin = Instant::now();
        for _ in 0..2 {
            debts.begin(None, 1);
            debts.push(one);
            std::thread::sleep(WAIT);
        }
        assert!(debts.age() >= 2 * WAIT && debts.age() <= begin.elapsed());
        debts.settled();
        debts.take_back(|_, _| ());
        let begin = Instant::now();
        debts.begin(None, 1);
        assert!(debts.age() <= begin.elapsed(), "it is of those that there are");
    }
}
