// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Registered memory: regions of the process, pinned and charged once, and what one container has
//! of them, with the number of its live entries that point into each.

use std::collections::BTreeMap;

use crate::addr::{Hpa, PageShift, Uaddr};
use crate::backend::layout::{Extent, RealLayout};
use crate::backend::{Backend, Caps, Memory};
use crate::error::{EntryError, MapError, RegisterError};
use crate::kill::Tally;
use crate::ledger::{Charge, ChargeKind, Ledger};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock};
use crate::table::Old;
use crate::tce::{Summary, Tce};

/// A pinned region of the process.
pub(crate) struct Region {
    pub(crate) memory: Memory,
    pub(crate) layout: RealLayout,
    /// A kernel that owns tables may hold on to it: a map into it failed half way.
    doubtful: AtomicBool,
    /// Given back when the region goes; `None` where it is paid for otherwise.
    _charge: Option<Charge>,
}

impl Region {
    /// A kernel failed while it was mapping the region. By our reading, Linux then counts a mapping
    /// that is not there, and unregistering looks like success but frees nothing.
    pub(crate) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    pub(crate) fn doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }
}

/// The process's regions and the number of containers that use each. A region without a user is one
/// that a kernel would not give back: it stays charged. Registering it again would succeed, and lead
/// devices to the pages of then, whatever is at its addresses now; so it is refused.
pub(crate) struct Registry {
    regions: Mutex<BTreeMap<Memory, (Arc<Region>, usize)>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { regions: Mutex::new(BTreeMap::new()) }
    }

    /// The region with exactly this memory, pinned and charged if it is the first use.
    pub(crate) fn acquire(
        &self,
        backend: &dyn Backend,
        caps: &Caps,
        ledger: &Arc<Ledger>,
        memory: Memory,
    ) -> Result<Arc<Region>, RegisterError> {
        let mut regions = lock(&self.regions);
        if let Some((region, users)) = regions.get_mut(&memory) {
            if *users == 0 {
                let (start, bytes) = (Uaddr(memory.start()), memory.bytes());
                return Err(RegisterError::Kept { start, bytes });
            }
            *users += 1;
            return Ok(region.clone());
        }
        if let Some(other) = regions.keys().find(|other| overlap(other, &memory)) {
            return Err(RegisterError::Overlap {
                start: Uaddr(memory.start()),
                bytes: memory.bytes(),
                other: Uaddr(other.start()),
                other_bytes: other.bytes(),
            });
        }
        let paid = caps.tables.kernel().is_some_and(|k| k.paid_ahead > 0);
        let charge =
            (!paid).then(|| ledger.charge(ChargeKind::Region, memory.bytes())).transpose()?;
        let layout = backend.pin(memory)?;
        let doubtful = AtomicBool::new(false);
        let region = Arc::new(Region { memory, layout, doubtful, _charge: charge });
        regions.insert(memory, (region.clone(), 1));
        Ok(region)
    }

    /// Ends one use; the last one unpins and gives the charge back, unless it is `kept`. Then, it
    /// returns true.
    pub(crate) fn release(&self, backend: &dyn Backend, region: Arc<Region>, kept: bool) -> bool {
        let mut regions = lock(&self.regions);
        let Some((_, users)) = regions.get_mut(&region.memory) else {
            debug_assert!(false, "a region that nobody acquired");
            return false;
        };
        *users -= 1;
        let last = *users == 0;
        if last && !kept {
            regions.remove(&region.memory);
            backend.unpin(region.memory, &region.layout);
        }
        // The last one takes the charge with it, before anybody can acquire the same memory anew.
        drop(region);
        last && kept
    }
}

fn overlap(a: &Memory, b: &Memory) -> bool {
    let same_space = matches!(
        (a, b),
        (Memory::User { .. }, Memory::User { .. }) | (Memory::Guest { .. }, Memory::Guest { .. })
    );
    let end = |m: &Memory| m.start() + m.bytes();
    same_space && a.start() < end(b) && b.start() < end(a)
}

/// One container's use of a region.
pub(crate) struct Registration {
    pub(crate) region: Arc<Region>,
    /// Live entries of the container's tables that point into the region.
    mapped: AtomicU64,
}

impl Registration {
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Acquire)
    }
}

/// What one container has registered. Numbers stay valid while the container's state is not
/// changed.
#[derive(Default)]
pub(crate) struct Registrations {
    /// By memory: user ranges first, by start.
    list: Vec<Registration>,
    /// Spans of entry addresses with the registration's number, by start.
    spans: Vec<(u64, u64, usize)>,
}

impl Registrations {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Registration> {
        self.list.iter()
    }

    pub(crate) fn find(&self, memory: Memory) -> Option<usize> {
        self.list.binary_search_by_key(&memory, |r| r.region.memory).ok()
    }

    pub(crate) fn get(&self, number: usize) -> &Registration {
        &self.list[number]
    }

    pub(crate) fn insert(&mut self, region: Arc<Region>) {
        let at = self.list.partition_point(|r| r.region.memory < region.memory);
        self.list.insert(at, Registration { region, mapped: AtomicU64::new(0) });
        self.index();
    }

    pub(crate) fn remove(&mut self, number: usize) -> Arc<Region> {
        let gone = self.list.remove(number);
        self.index();
        gone.region
    }

    pub(crate) fn take_all(&mut self) -> Vec<Arc<Region>> {
        self.spans.clear();
        self.list.drain(..).map(|r| r.region).collect()
    }

    fn index(&mut self) {
        let span = |(n, r): (usize, &Registration)| {
            let span = r.region.layout.span();
            (span.start, span.end, n)
        };
        self.spans = self.list.iter().enumerate().map(span).collect();
        self.spans.sort_unstable();
    }

    /// The registration of the user memory at `at`, its number, and the offset in it.
    pub(crate) fn user(&self, at: Uaddr) -> Result<(usize, &Registration, u64), MapError> {
        let users = self.list.partition_point(|r| match r.region.memory {
            Memory::User { start, .. } => start <= at,
            Memory::Guest { .. } => false,
        });
        users
            .checked_sub(1)
            .map(|n| (n, &self.list[n], at.0 - self.list[n].region.memory.start()))
            .filter(|(_, r, offset)| *offset < r.region.memory.bytes())
            .ok_or(MapError::NotRegistered { at })
    }

    /// Checks that `bytes` of user memory from `at` can be mapped in pages of `page`, and says how
    /// many pages fall to which registration.
    pub(crate) fn plan(&self, at: Uaddr, bytes: u64, page: PageShift) -> Result<Tally, MapError> {
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

    /// Looks up single pages of user memory, of which most lie in the region of the one before.
    pub(crate) fn pages(&self, page: PageShift) -> PageCursor<'_> {
        PageCursor { registrations: self, page, hit: None, count: 0, tally: Tally::default() }
    }

    /// Checks the live entries of a list of words that a guest gave for pages of `page`, and says
    /// how many fall to which registration of guest memory.
    pub(crate) fn guest_entries(
        &self,
        words: impl Iterator<Item = u64> + Clone,
        summary: Summary,
        page: PageShift,
    ) -> Result<Tally, EntryError> {
        let mut tally = Tally::default();
        let Some((low, high)) = summary.address_bounds() else { return Ok(tally) };
        let bits = summary.or & Tce::must_be_zero(page);
        if bits != 0 {
            return Err(EntryError::Reserved { bits });
        }
        let guest = |address: u64| {
            let (_, end, number) = *self.by_entry(address)?;
            let memory = self.list[number].region.memory;
            matches!(memory, Memory::Guest { .. }).then_some((end, number))
        };
        if let Some((end, number)) = guest(low)
            && high.checked_add(page.bytes()).is_some_and(|behind| behind <= end)
        {
            tally.add(number, summary.live);
            return Ok(tally);
        }
        for tce in words.map(Tce::from_be_word).filter(|tce| !tce.is_empty()) {
            let address = tce.address();
            match guest(address) {
                Some((end, number)) if page.bytes() <= end - address => tally.add(number, 1),
                _ => return Err(EntryError::NotMemory { address }),
            }
        }
        Ok(tally)
    }

    /// The number of the registration that an entry address belongs to.
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

    /// Counts entries that are about to be written.
    pub(crate) fn claim(&self, tally: &Tally) {
        for (number, amount) in tally.iter() {
            self.list[number].mapped.fetch_add(amount, Ordering::AcqRel);
        }
    }

    /// Uncounts entries whose kills have been waited for.
    pub(crate) fn unclaim(&self, tally: &Tally) {
        for (number, amount) in tally.iter() {
            let before = self.list[number].mapped.fetch_sub(amount, Ordering::AcqRel);
            debug_assert!(before >= amount, "released more than was mapped");
        }
    }
}

/// See [`Registrations::pages`].
pub(crate) struct PageCursor<'a> {
    registrations: &'a Registrations,
    page: PageShift,
    hit: Option<Hit<'a>>,
    /// Pages found in the region of the hit.
    count: u64,
    tally: Tally,
}

struct Hit<'a> {
    number: usize,
    start: u64,
    /// Last offset at which a whole page begins.
    last: u64,
    layout: &'a RealLayout,
}

impl PageCursor<'_> {
    /// The real address of the page at `at`, which is a multiple of the page.
    #[inline]
    pub(crate) fn real(&mut self, at: Uaddr) -> Result<Hpa, MapError> {
        if let Some(hit) = &self.hit {
            let offset = at.0.wrapping_sub(hit.start);
            if offset <= hit.last {
                self.count += 1;
                return Ok(hit.layout.page_at(offset));
            }
        }
        self.look_up(at)
    }

    #[cold]
    fn look_up(&mut self, at: Uaddr) -> Result<Hpa, MapError> {
        // A plan of one page makes every check there is.
        self.registrations.plan(at, self.page.bytes(), self.page)?;
        let (number, registration, offset) = self.registrations.user(at)?;
        self.flush();
        let region = &registration.region;
        let last = region.memory.bytes() - self.page.bytes();
        self.hit = Some(Hit { number, start: region.memory.start(), last, layout: &region.layout });
        self.count = 1;
        Ok(region.layout.page_at(offset))
    }

    fn flush(&mut self) {
        if let Some(hit) = &self.hit {
            self.tally.add(hit.number, self.count);
        }
    }

    /// How many pages fell to which registration.
    pub(crate) fn finish(mut self) -> Tally {
        self.flush();
        self.tally
    }
}
