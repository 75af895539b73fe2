// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The accounting alone, for benchmarks. Behind a feature; nothing here is part of the interface.

use crate::addr::{Hpa, PageShift, Uaddr};
use crate::backend::Memory;
use crate::backend::layout::RealLayout;
use crate::error::MapError;
use crate::regions::{Counts, Hits, Region, Registrations};
use crate::sync::Arc;

/// What a container keeps of registered memory, with the counts of one thread.
pub struct Accounts {
    registrations: Registrations,
    counts: Counts,
    hits: Hits,
}

impl Accounts {
    /// Registers ranges of the process, each in one contiguous run of real memory.
    pub fn new(ranges: impl IntoIterator<Item = (Uaddr, u64)>) -> Self {
        let mut registrations = Registrations::default();
        for (start, bytes) in ranges {
            let layout = RealLayout::contiguous(Hpa(start.0), bytes, PageShift::M2);
            let region = Region::uncharged(Memory::User { start, bytes }, layout);
            registrations.insert(Arc::new(region));
        }
        let counts = registrations.open_counts();
        Self { registrations, counts, hits: Hits::default() }
    }

    /// What a map and an unmap of a range account for: whose it is and whether it can be mapped, the
    /// count up, the count down. Returns the pages.
    ///
    /// # Errors
    /// [`MapError`], as a map's.
    pub fn range(&mut self, at: Uaddr, bytes: u64, page: PageShift) -> Result<u64, MapError> {
        let claim = self.registrations.plan(at, bytes, page, &mut self.hits)?;
        let mut pages = 0;
        for (number, amount) in claim.iter() {
            self.registrations.claim(self.counts, number, amount);
            pages += amount;
        }
        for (number, amount) in claim.iter() {
            self.registrations.unclaim(self.counts, number, amount);
        }
        Ok(pages)
    }

    /// The number of the region of `at`, as a thread's handle looks it up: first in the one that it
    /// found last.
    ///
    /// # Errors
    /// [`MapError::NotRegistered`].
    #[inline]
    pub fn look_up(&mut self, at: Uaddr) -> Result<usize, MapError> {
        self.registrations.number(at, &mut self.hits)
    }
}
