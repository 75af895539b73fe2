// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one container has registered, and how many of its live entries point into each region.

#[cfg(all(test, not(loom)))]
mod tests;

use super::Region;
use super::counts::{Shard, Shards};
use super::ranges::{Numbered, Ranges};
use crate::addr::{Hpa, PageShift, Uaddr};
use crate::backend::Backend;
use crate::backend::Memory;
use crate::backend::layout::Extent;
use crate::error::{EntryError, MapError};
use crate::kill::Tally;
use crate::places;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::table::Old;
use crate::tce::{Summary, Tce};

/// One container's use of a region.
pub(crate) struct Registration {
    pub(crate) region: Arc<Region>,
    /// Live entries of the container's tables that point into the region, but for what the shards
    /// have counted.
    mapped: AtomicU64,
}

/// What one container has registered.
#[derive(Default)]
pub(crate) struct Registrations {
    /// By number. A registration keeps its number as long as it lives.
    slots: Vec<Option<Registration>>,
    /// Numbers by memory, user ranges first.
    by_memory: Vec<(Memory, usize)>,
    /// User memory.
    users: Ranges,
    /// Spans of entry addresses.
    spans: Ranges,
    /// Counts of threads that have their own.
    shards: Shards,
}

/// Where a call counts: in the registrations, or in what its thread has for itself.
#[derive(Clone, Copy)]
pub(crate) struct Counts(Option<usize>);

impl Counts {
    /// In the registrations, as anybody may.
    pub(crate) const SHARED: Self = Self(None);
}

/// What a thread's last look-ups found: most of them find the same again. Good as long as nothing
/// is registered or given back.
#[derive(Clone, Copy, Default)]
pub(crate) struct Hits {
    user: Numbered,
    guest: Numbered,
}

impl Hits {
    /// The registration of guest memory that was looked up last.
    pub(crate) fn guest_number(&self) -> Option<usize> {
        (self.guest.bytes > 0).then_some(self.guest.number)
    }

    /// The registration of guest memory that all of the page at `address` lies in, if it is that of
    /// the last look-up.
    #[inline]
    pub(crate) fn guest_page(&self, address: u64, page: PageShift) -> Option<usize> {
        let hit = &self.guest;
        let offset = address.wrapping_sub(hit.start);
        (offset < hit.bytes && hit.bytes - offset >= page.bytes()).then_some(hit.number)
    }
}

impl Registrations {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Registration)> {
        self.by_memory.iter().map(|(_, number)| (*number, self.get(*number)))
    }

    pub(crate) fn find(&self, memory: Memory) -> Option<usize> {
        let at = self.by_memory.binary_search_by_key(&memory, |(memory, _)| *memory).ok()?;
        Some(self.by_memory[at].1)
    }

    /// The registration with a number that a look-up gave.
    #[inline]
    pub(crate) fn get(&self, number: usize) -> &Registration {
        self.slots[number].as_ref().expect("a look-up gives numbers of what is there")
    }

    pub(crate) fn insert(&mut self, region: Arc<Region>) {
        let memory = region.memory;
        let span = region.layout.span();
        let registration = Registration { region, mapped: AtomicU64::new(0) };
        let number = places::put(&mut self.slots, registration);
        self.shards.reach(self.slots.len());
        let at = self.by_memory.partition_point(|(other, _)| *other < memory);
        self.by_memory.insert(at, (memory, number));
        if let Memory::User { start, bytes } = memory {
            self.users.insert(Numbered { start: start.0, bytes, number });
        }
        self.spans.insert(Numbered { start: span.start, bytes: span.end - span.start, number });
    }

    pub(crate) fn remove(&mut self, number: usize) -> Arc<Region> {
        debug_assert_eq!(self.mapped(number), 0);
        let gone = self.slots[number].take().expect("a look-up gives numbers of what is there");
        self.shards.forget(number);
        let memory = gone.region.memory;
        if let Ok(at) = self.by_memory.binary_search_by_key(&memory, |(memory, _)| *memory) {
            self.by_memory.remove(at);
        }
        if let Memory::User { start, .. } = memory {
            self.users.remove(start.0);
        }
        self.spans.remove(gone.region.layout.span().start);
        gone.region
    }

    /// Has the memory of all of them unpinned before it is their time: a bug for tests.
    pub(crate) fn unpin(&self, backend: &dyn Backend) {
        self.iter().for_each(|(_, r)| backend.unpin(r.region.memory, &r.region.layout));
    }

    /// Everything at once, by memory.
    pub(crate) fn take_all(&mut self) -> Vec<Arc<Region>> {
        debug_assert!(self.by_memory.iter().all(|(_, number)| self.mapped(*number) == 0));
        self.users = Ranges::default();
        self.spans = Ranges::default();
        let mut slots = std::mem::take(&mut self.slots);
        let take = |(_, number): (Memory, usize)| {
            self.shards.forget(number);
            let gone = slots[number].take().expect("a look-up gives numbers of what is there");
            gone.region
        };
        std::mem::take(&mut self.by_memory).into_iter().map(take).collect()
    }

    /// The range of user memory that `at` lies in.
    #[inline]
    fn user_hit(&self, at: Uaddr) -> Result<Numbered, MapError> {
        self.users.at(at.0).copied().ok_or(MapError::NotRegistered { at })
    }

    /// The registration of the user memory at `at`, its number, and the offset in it.
    pub(crate) fn user(&self, at: Uaddr) -> Result<(usize, &Registration, u64), MapError> {
        let hit = self.user_hit(at)?;
        Ok((hit.number, self.get(hit.number), at.0 - hit.start))
    }

    /// The number of the registration of the user memory at `at`: often that of the last look-up.
    #[inline]
    pub(crate) fn number(&self, at: Uaddr, hits: &mut Hits) -> Result<usize, MapError> {
        if !hits.user.contains(at.0) {
            hits.user = self.user_hit(at)?;
        }
        Ok(hits.user.number)
    }

    /// The entry address of the one page of user memory at `at`, a multiple of `page`, and the
    /// number of its registration; all that [`Registrations::plan`] checks is checked.
    #[inline]
    pub(crate) fn page(
        &self,
        at: Uaddr,
        page: PageShift,
        hits: &mut Hits,
    ) -> Result<(usize, Hpa), MapError> {
        let number = self.number(at, hits)?;
        let offset = at.0 - hits.user.start;
        let layout = &self.get(number).region.layout;
        if hits.user.bytes - offset < page.bytes() || !layout.can_map(offset, page) {
            // Says what is wrong.
            self.plan_parts(at, page.bytes(), page)?;
        }
        Ok((number, layout.page_at(offset)))
    }

    /// Checks that `bytes` of user memory from `at` can be mapped in pages of `page`, and says how
    /// many pages fall to which registration.
    #[inline]
    pub(crate) fn plan(
        &self,
        at: Uaddr,
        bytes: u64,
        page: PageShift,
        hits: &mut Hits,
    ) -> Result<Tally, MapError> {
        // Mostly it is one region, and often that of the last look-up.
        if let Ok(number) = self.number(at, hits) {
            let offset = at.0 - hits.user.start;
            let inside = bytes <= hits.user.bytes - offset;
            if inside && self.get(number).region.layout.can_map(offset, page) {
                return Ok(Tally::of(number, bytes >> page.get()));
            }
        }
        self.plan_parts(at, bytes, page)
    }

    /// The same region by region.
    #[cold]
    fn plan_parts(&self, at: Uaddr, bytes: u64, page: PageShift) -> Result<Tally, MapError> {
        let mut tally = Tally::default();
        let end = at.0.checked_add(bytes).ok_or(MapError::NotRegistered { at })?;
        let mut next = at;
        while next.0 < end {
            let (number, registration, offset) = self.user(next)?;
            let region = &registration.region;
            if !region.layout.can_map(offset, page) {
                let backing = region.layout.backing();
                return Err(MapError::BackingTooSmall { at: next, backing, page });
            }
            // Whole pages only: one may not reach into the next region.
            let part = (region.memory.bytes() - offset).min(end - next.0) & !(page.bytes() - 1);
            if part == 0 {
                return Err(MapError::NotRegistered {
                    at: Uaddr(region.memory.start() + region.memory.bytes()),
                });
            }
            tally.add(number, part >> page.get());
            next = Uaddr(next.0 + part);
        }
        Ok(tally)
    }

    /// Doubts every region of a range that was planned before.
    pub(crate) fn doubt(&self, mut at: Uaddr, bytes: u64) {
        let end = at.0 + bytes;
        while at.0 < end
            && let Ok((_, registration, offset)) = self.user(at)
        {
            registration.region.doubt();
            at.0 += registration.region.memory.bytes() - offset;
        }
    }

    /// The extent that begins at user address `at`, which was planned before.
    pub(crate) fn extent(&self, at: Uaddr) -> Extent {
        match self.user(at) {
            Ok((_, r, offset)) => r.region.layout.extent_at(offset),
            Err(e) => unreachable!("planned memory: {e}"),
        }
    }

    /// The region with user address `at`, which was planned before, its number, and how far inside it
    /// the address is.
    pub(crate) fn region(&self, at: Uaddr) -> (usize, &Region, u64) {
        match self.user(at) {
            Ok((number, r, offset)) => (number, &r.region, offset),
            Err(e) => unreachable!("planned memory: {e}"),
        }
    }

    /// Writes for each of `pages` of user memory the number of an entry for it, with control bits
    /// `bits`, and says how many fall to which registration. All that [`Registrations::plan`] checks
    /// is checked for each, and that it is a multiple of the page.
    pub(crate) fn list(
        &self,
        pages: &[Uaddr],
        page: PageShift,
        bits: u64,
        values: &mut [u64],
    ) -> Result<Tally, MapError> {
        let mut tally = Tally::default();
        let mut done = 0;
        while let Some(at) = pages.get(done) {
            if !at.is_aligned(page) {
                return Err(MapError::Unaligned { what: "user address", value: at.0, page });
            }
            // A plan of one page makes every check there is; most pages lie in the same region.
            self.plan_parts(*at, page.bytes(), page)?;
            let (number, registration, _) = self.user(*at)?;
            let Region { memory, layout, .. } = &*registration.region;
            let hull = (memory.start(), memory.bytes() - page.bytes());
            let n = layout.entries_of(hull, page, &pages[done..], bits, &mut values[done..]);
            tally.add(number, n as u64);
            done += n;
        }
        Ok(tally)
    }

    /// The registration of guest memory that an entry address lies in.
    #[inline]
    fn guest(&self, address: u64) -> Option<&Numbered> {
        let span = self.spans.at(address)?;
        let memory = self.get(span.number).region.memory;
        matches!(memory, Memory::Guest { .. }).then_some(span)
    }

    /// Checks the live entries of a list of words that a guest gave for pages of `page`, and says
    /// how many fall to which registration of guest memory.
    #[inline(always)]
    pub(crate) fn guest_entries(
        &self,
        words: impl Iterator<Item = u64>,
        summary: Summary,
        page: PageShift,
    ) -> Result<Tally, EntryError> {
        let Some((low, high)) = summary.address_bounds() else { return Ok(Tally::default()) };
        let bits = summary.or & Tce::must_be_zero(page);
        if bits != 0 {
            return Err(EntryError::Reserved { bits });
        }
        if let Some(span) = self.guest(low)
            && high
                .checked_add(page.bytes())
                .is_some_and(|behind| behind - span.start <= span.bytes)
        {
            return Ok(Tally::of(span.number, summary.live));
        }
        self.guest_entries_apart(words, page)
    }

    /// The same entry by entry.
    #[inline(never)]
    fn guest_entries_apart(
        &self,
        words: impl Iterator<Item = u64>,
        page: PageShift,
    ) -> Result<Tally, EntryError> {
        let mut tally = Tally::default();
        for tce in words.map(Tce::from_be_word).filter(|tce| !tce.is_empty()) {
            let address = tce.address();
            match self.guest(address) {
                Some(span) if page.bytes() <= span.bytes - (address - span.start) => {
                    tally.add(span.number, 1);
                }
                _ => return Err(EntryError::NotMemory { address }),
            }
        }
        Ok(tally)
    }

    /// [`Registrations::guest_entries`] for one live entry: the registration's number.
    #[inline]
    pub(crate) fn guest_entry(
        &self,
        tce: Tce,
        page: PageShift,
        hits: &mut Hits,
    ) -> Result<usize, EntryError> {
        let bits = tce.value() & Tce::must_be_zero(page);
        if bits != 0 {
            return Err(EntryError::Reserved { bits });
        }
        let address = tce.address();
        if let Some(number) = hits.guest_page(address, page) {
            return Ok(number);
        }
        let not_memory = EntryError::NotMemory { address };
        let Some(span) = self.guest(address) else { return Err(not_memory) };
        hits.guest = *span;
        hits.guest_page(address, page).ok_or(not_memory)
    }

    /// The number of the registration that an entry address belongs to.
    #[inline]
    pub(crate) fn number_of_entry(&self, address: u64) -> Option<usize> {
        Some(self.spans.at(address)?.number)
    }

    /// Adds to `tally` which registrations a stretch of live entries points into. What
    /// is in a table was claimed, so it points into some registration of the container.
    pub(crate) fn attribute(&self, old: &Old<'_>, tally: &mut Tally) {
        let Some((low, high)) = old.summary.address_bounds() else { return };
        // The bounds may reach out of a region that is not aligned to its size; often nothing else is
        // there.
        let around = self.spans.at(low).filter(|span| span.contains(high));
        if let Some(span) = around.or_else(|| self.spans.only(low, high)) {
            return tally.add(span.number, old.summary.live);
        }
        for (_, tce) in old.entries() {
            if let Some(number) = self.number_of_entry(tce.address()) {
                tally.add(number, 1);
            }
        }
    }

    /// Counts entries of a registration that are about to be written.
    #[inline]
    pub(crate) fn claim(&self, counts: Counts, number: usize, amount: u64) {
        match counts.0 {
            None => drop(self.get(number).mapped.fetch_add(amount, Ordering::AcqRel)),
            Some(nth) => self.shards.get(nth).add(number, amount),
        }
    }

    /// Uncounts entries of a registration whose kills have been waited for.
    #[inline]
    pub(crate) fn unclaim(&self, counts: Counts, number: usize, amount: u64) {
        self.claim(counts, number, amount.wrapping_neg());
    }

    /// Live entries that point into a registration; exact while no map or unmap is under way.
    pub(crate) fn mapped(&self, number: usize) -> u64 {
        // One thread may have mapped what another has unmapped: only the sum means something.
        let own = self.get(number).mapped.load(Ordering::Acquire);
        let mapped = own.wrapping_add(self.shards.sum(number));
        debug_assert!(mapped <= i64::MAX as u64, "released more than was mapped");
        mapped
    }

    /// Counts of its own for one thread.
    pub(crate) fn open_counts(&mut self) -> Counts {
        Counts(Some(self.shards.open(self.slots.len())))
    }

    /// The counts that a thread has opened, until something is registered or given back.
    pub(crate) fn shard(&self, counts: Counts) -> Option<Shard> {
        counts.0.map(|nth| self.shards.get(nth).clone())
    }

    /// Ends a thread's counts: what they say is kept.
    pub(crate) fn close_counts(&mut self, counts: Counts) {
        let Some(nth) = counts.0 else { return };
        let shard = self.shards.close(nth);
        for (number, registration) in self.slots.iter().enumerate() {
            if let Some(registration) = registration {
                registration.mapped.fetch_add(shard.get(number), Ordering::AcqRel);
            }
        }
    }
}
