// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one container has registered, and how many of its live entries point into each region.

use super::Region;
use super::counts::{Shard, Shards};
use super::sorted::Sorted;
use crate::addr::{Hpa, PageShift, Uaddr};
use crate::backend::Memory;
use crate::backend::layout::Extent;
use crate::error::{EntryError, MapError};
use crate::kill::Tally;
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
    /// Starts of user ranges, ascending, and what lies there: the first of `by_memory` once more, for
    /// the search.
    user_starts: Sorted,
    users: Vec<Hit>,
    /// Spans of entry addresses with the registration's number, by start.
    spans: Vec<(u64, u64, usize)>,
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
    user: Hit,
    guest: Hit,
}

/// A range of addresses and the number of the registration that it belongs to.
#[derive(Clone, Copy, Default)]
struct Hit {
    start: u64,
    /// 0 where nothing is known.
    bytes: u64,
    number: usize,
}

impl Hits {
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
        let number = match self.slots.iter().position(Option::is_none) {
            Some(free) => {
                self.slots[free] = Some(registration);
                free
            }
            None => {
                self.slots.push(Some(registration));
                self.slots.len() - 1
            }
        };
        self.shards.reach(self.slots.len());
        let at = self.by_memory.partition_point(|(other, _)| *other < memory);
        self.by_memory.insert(at, (memory, number));
        if let Memory::User { start, bytes } = memory {
            self.user_starts.insert(at, start.0);
            self.users.insert(at, Hit { start: start.0, bytes, number });
        }
        let at = self.spans.partition_point(|(start, ..)| *start < span.start);
        self.spans.insert(at, (span.start, span.end, number));
    }

    pub(crate) fn remove(&mut self, number: usize) -> Arc<Region> {
        debug_assert_eq!(self.mapped(number), 0);
        let gone = self.slots[number].take().expect("a look-up gives numbers of what is there");
        self.shards.forget(number);
        let memory = gone.region.memory;
        if let Ok(at) = self.by_memory.binary_search_by_key(&memory, |(memory, _)| *memory) {
            self.by_memory.remove(at);
            if at < self.user_starts.len() {
                self.user_starts.remove(at);
                self.users.remove(at);
            }
        }
        self.spans.retain(|(_, _, n)| *n != number);
        gone.region
    }

    /// Everything at once, by memory.
    pub(crate) fn take_all(&mut self) -> Vec<Arc<Region>> {
        debug_assert!(self.by_memory.iter().all(|(_, number)| self.mapped(*number) == 0));
        self.user_starts = Sorted::default();
        self.users.clear();
        self.spans.clear();
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
    fn user_hit(&self, at: Uaddr) -> Result<Hit, MapError> {
        let before = self.user_starts.up_to(at.0).checked_sub(1);
        let hit = before.map(|n| self.users[n]).filter(|hit| at.0 - hit.start < hit.bytes);
        hit.ok_or(MapError::NotRegistered { at })
    }

    /// The registration of the user memory at `at`, its number, and the offset in it.
    pub(crate) fn user(&self, at: Uaddr) -> Result<(usize, &Registration, u64), MapError> {
        let hit = self.user_hit(at)?;
        Ok((hit.number, self.get(hit.number), at.0 - hit.start))
    }

    /// The number of the registration of the user memory at `at`: often that of the last look-up.
    #[inline]
    pub(crate) fn number(&self, at: Uaddr, hits: &mut Hits) -> Result<usize, MapError> {
        if at.0.wrapping_sub(hits.user.start) >= hits.user.bytes {
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

    /// The extents of up to `bytes` from user address `at`, which was planned before, as far as its
    /// region goes; the region's number, and the bytes that they cover.
    pub(crate) fn extents(
        &self,
        at: Uaddr,
        bytes: u64,
    ) -> (usize, impl Iterator<Item = Extent> + '_, u64) {
        match self.user(at) {
            Ok((number, r, offset)) => {
                let bytes = bytes.min(r.region.memory.bytes() - offset);
                (number, r.region.layout.extents(offset..offset + bytes), bytes)
            }
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

    /// End and number of the registration of guest memory that an entry address lies in.
    #[inline]
    fn guest(&self, address: u64) -> Option<(u64, usize)> {
        let (_, end, number) = *self.by_entry(address)?;
        let memory = self.get(number).region.memory;
        matches!(memory, Memory::Guest { .. }).then_some((end, number))
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
        if let Some((end, number)) = self.guest(low)
            && high.checked_add(page.bytes()).is_some_and(|behind| behind <= end)
        {
            return Ok(Tally::of(number, summary.live));
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
                Some((end, number)) if page.bytes() <= end - address => tally.add(number, 1),
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
        let found = self.by_entry(address).filter(|(_, _, number)| {
            matches!(self.get(*number).region.memory, Memory::Guest { .. })
        });
        let Some((start, end, number)) = found.copied() else { return Err(not_memory) };
        hits.guest = Hit { start, bytes: end - start, number };
        hits.guest_page(address, page).ok_or(not_memory)
    }

    /// The number of the registration that an entry address belongs to.
    #[inline]
    pub(crate) fn by_entry(&self, address: u64) -> Option<&(u64, u64, usize)> {
        let n = self.spans.partition_point(|(start, _, _)| *start <= address).checked_sub(1)?;
        Some(&self.spans[n]).filter(|(_, end, _)| address < *end)
    }

    /// Adds to `tally` which registrations a stretch of live entries points into. What
    /// is in a table was claimed, so it points into some registration of the container.
    pub(crate) fn attribute(&self, old: &Old<'_>, tally: &mut Tally) {
        let Some((low, high)) = old.summary.address_bounds() else { return };
        if let Some((_, end, number)) = self.by_entry(low)
            && high < *end
        {
            return tally.add(*number, old.summary.live);
        }
        // The bounds reach out of a region that is not aligned to its size; often nothing else is there.
        let n = self.spans.partition_point(|(start, ..)| *start <= high);
        if let Some((_, end, number)) = n.checked_sub(1).map(|n| &self.spans[n])
            && low < *end
            && n.checked_sub(2).is_none_or(|n| self.spans[n].1 <= low)
        {
            return tally.add(*number, old.summary.live);
        }
        for (_, tce) in old.entries() {
            if let Some((_, _, number)) = self.by_entry(tce.address()) {
                tally.add(*number, 1);
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
