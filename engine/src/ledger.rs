// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The books: one entry for each charge, so that their sum is what the process should show as
//! locked memory.

use std::collections::BTreeMap;

use crate::addr::PageShift;
use crate::error::LimitError;
use crate::sync::{Arc, Mutex, lock};

/// What a charge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeKind {
    /// A registered region: its size, once a process.
    Region,
    /// A window's table, once a window: [`Geometry::charge`](crate::geometry::Geometry::charge),
    /// less on kernels that keep less for it.
    Table,
    /// What a version 1 container pays ahead: the size of its window, once a container.
    Enable,
    /// What a kernel did not give back when a window could not be created; it does when the process
    /// ends.
    Leaked,
}

/// One line of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Unique, in order of charging.
    pub id: u64,
    /// What for.
    pub kind: ChargeKind,
    /// Host pages.
    pub pages: u64,
}

#[derive(Default)]
struct Books {
    entries: BTreeMap<u64, LedgerEntry>,
    total: u64,
    peak: u64,
    next: u64,
}

/// The charges of one process.
pub struct Ledger {
    page: PageShift,
    limit: Option<u64>,
    books: Mutex<Books>,
}

/// A charge that was made; dropping it gives the pages back.
#[must_use]
pub(crate) struct Charge {
    ledger: Arc<Ledger>,
    id: u64,
}

impl Ledger {
    /// Empty books in pages of `page`; charges beyond `limit` bytes are refused.
    pub(crate) fn new(page: PageShift, limit: Option<u64>) -> Self {
        let limit = limit.map(|bytes| bytes >> page.get());
        Self { page, limit, books: Mutex::new(Books::default()) }
    }

    /// Charges `bytes`, a multiple of the page.
    pub(crate) fn charge(
        self: &Arc<Self>,
        kind: ChargeKind,
        bytes: u64,
    ) -> Result<Charge, LimitError> {
        let pages = bytes >> self.page.get();
        let mut books = lock(&self.books);
        let total = books.total.saturating_add(pages);
        if let Some(limit) = self.limit
            && total > limit
        {
            return Err(LimitError { asked: pages, charged: books.total, limit });
        }
        let id = books.next;
        books.next += 1;
        books.entries.insert(id, LedgerEntry { id, kind, pages });
        books.total = total;
        books.peak = books.peak.max(total);
        Ok(Charge { ledger: self.clone(), id })
    }

    /// The unit of all charges.
    #[must_use]
    pub fn page(&self) -> PageShift {
        self.page
    }

    /// The limit in pages, if there is one.
    #[must_use]
    pub fn limit_pages(&self) -> Option<u64> {
        self.limit
    }

    /// Pages charged now: what the process should show as locked.
    #[must_use]
    pub fn pages(&self) -> u64 {
        lock(&self.books).total
    }

    /// Most pages that were ever charged at once.
    #[must_use]
    pub fn peak_pages(&self) -> u64 {
        lock(&self.books).peak
    }

    /// All charges, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<LedgerEntry> {
        lock(&self.books).entries.values().copied().collect()
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger({} pages of {})", self.pages(), self.page)
    }
}

impl Charge {
    /// What is charged.
    pub(crate) fn pages(&self) -> u64 {
        lock(&self.ledger.books).entries.get(&self.id).map_or(0, |entry| entry.pages)
    }

    /// So many bytes of the charge are never given back; the rest is, now.
    pub(crate) fn leak(self, bytes: u64) {
        let books = &mut *lock(&self.ledger.books);
        if let Some(entry) = books.entries.get_mut(&self.id) {
            let pages = (bytes >> self.ledger.page.get()).min(entry.pages);
            books.total -= entry.pages - pages;
            (entry.kind, entry.pages) = (ChargeKind::Leaked, pages);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut books = lock(&self.ledger.books);
        if books.entries.get(&self.id).is_some_and(|entry| entry.kind == ChargeKind::Leaked) {
            return;
        }
        if let Some(entry) = books.entries.remove(&self.id) {
            books.total -= entry.pages;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn sum_of_entries_is_the_total_and_the_limit_holds() {
        let ledger = Arc::new(Ledger::new(PageShift::K64, Some(10 << 16)));
        let a = ledger.charge(ChargeKind::Region, 4 << 16).unwrap();
        let b = ledger.charge(ChargeKind::Table, 6 << 16).unwrap();
        let sum = |l: &Ledger| l.entries().iter().map(|e| e.pages).sum::<u64>();
        assert_eq!((ledger.pages(), sum(&ledger)), (10, 10));
        let refused = ledger.charge(ChargeKind::Region, 1 << 16).map(|_| ()).unwrap_err();
        assert_eq!(refused, LimitError { asked: 1, charged: 10, limit: 10 });
        drop(a);
        assert_eq!((ledger.pages(), sum(&ledger), ledger.peak_pages()), (6, 6, 10));
        drop(b);
        assert_eq!((ledger.pages(), ledger.entries().len()), (0, 0));
    }

    #[test]
    fn what_leaks_stays_and_the_rest_is_given_back() {
        let ledger = Arc::new(Ledger::new(PageShift::K64, Some(20 << 16)));
        let charge = ledger.charge(ChargeKind::Table, 9 << 16).unwrap();
        assert_eq!(charge.pages(), 9);
        charge.leak(2 << 16);
        // Never more than was charged.
        ledger.charge(ChargeKind::Region, 3 << 16).unwrap().leak(4 << 16);
        let told: Vec<_> = ledger.entries().iter().map(|e| (e.id, e.kind, e.pages)).collect();
        assert_eq!(told, [(0, ChargeKind::Leaked, 2), (1, ChargeKind::Leaked, 3)]);
        assert_eq!((ledger.pages(), ledger.peak_pages()), (5, 9));
        // It counts against the limit like all else.
        let refused = ledger.charge(ChargeKind::Region, 16 << 16).map(|_| ()).unwrap_err();
        assert_eq!(refused, LimitError { asked: 16, charged: 5, limit: 20 });
        assert_eq!((ledger.page(), ledger.limit_pages()), (PageShift::K64, Some(20)));
    }
}
