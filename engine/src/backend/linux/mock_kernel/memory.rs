// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process's memory as the kernel sees it: what is mapped where, what is pinned, what is charged.

use std::collections::BTreeMap;

use super::log::{Event, Injection, Log};
use super::{ProcessId, Profile};
use crate::addr::{PageShift, Uaddr};
use crate::backend::linux::raw::{Errno, Raw};

/// End of the addresses that a process can have; what is above is the kernel's.
pub(super) const USER_END: u64 = 1 << 52;

/// What a range of a process's memory is. What nobody has declared is [`Vma::ANONYMOUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vma {
    mapped: bool,
    writable: bool,
    huge: Option<PageShift>,
}

impl Vma {
    /// Anonymous, readable, writable, on host pages.
    pub const ANONYMOUS: Self = Self { mapped: true, writable: true, huge: None };
    /// Not mapped.
    pub const HOLE: Self = Self { mapped: false, writable: false, huge: None };
    /// Mapped, but not writable.
    pub const READ_ONLY: Self = Self { mapped: true, writable: false, huge: None };

    /// Hugetlb pages of this size; the range should start and end at one.
    #[must_use]
    pub const fn hugetlb(page: PageShift) -> Self {
        Self { mapped: true, writable: true, huge: Some(page) }
    }
}

/// Which memory a real address belongs to. Real addresses are never used twice.
pub(super) struct RealMemory {
    next: u64,
    /// Bytes that can still be pinned.
    left: u64,
    pinned: BTreeMap<u64, Extent>,
}

#[derive(Clone, Copy)]
struct Extent {
    process: ProcessId,
    start: u64,
    bytes: u64,
}

impl RealMemory {
    pub(super) fn new(bytes: u64) -> Self {
        // Above everything that the tables' memory can reach.
        Self { next: 1 << 60, left: bytes, pinned: BTreeMap::new() }
    }

    /// Real memory for a range that stands on pages of `1 << shift`: an offset in such a page is
    /// the same for both addresses.
    fn pin(&mut self, process: ProcessId, start: u64, bytes: u64, shift: u32) -> Option<u64> {
        let page = 1u64 << shift;
        let left = self.left.checked_sub(bytes)?;
        let real = self.next.checked_next_multiple_of(page)?.checked_add(start & (page - 1))?;
        self.next = real.checked_add(bytes)?;
        self.left = left;
        self.pinned.insert(real, Extent { process, start, bytes });
        Some(real)
    }

    fn unpin(&mut self, real: u64) {
        if let Some(extent) = self.pinned.remove(&real) {
            self.left += extent.bytes;
        }
    }

    /// Whose the byte is.
    pub(super) fn owner(&self, real: u64) -> Option<(ProcessId, Uaddr)> {
        let (start, extent) = self.pinned.range(..=real).next_back()?;
        let offset = real - start;
        (offset < extent.bytes).then(|| (extent.process, Uaddr(extent.start + offset)))
    }

    /// Bytes that are pinned; a page that is pinned twice counts twice.
    pub(super) fn bytes(&self) -> u64 {
        self.pinned.values().fold(0, |sum, extent| sum.saturating_add(extent.bytes))
    }
}

/// A registered region. Regions belong to the process; containers only use them.
pub(super) struct Region {
    start: u64,
    bytes: u64,
    /// log2 of the largest IOMMU page that it may be mapped with.
    shift: u32,
    /// Containers that use it, and who is left over.
    used: u64,
    /// One more than the entries that map it.
    mapped: u64,
    /// Stretches of one page size: (start, log2 of the page, real address).
    pieces: Vec<(u64, u32, u64)>,
}

/// One process.
pub(super) struct Memory {
    id: ProcessId,
    host_shift: u32,
    pub(super) locked: u64,
    /// Pages that are charged for good.
    pub(super) leaked: u64,
    /// Pages that were given back although others had been charged with them.
    pub(super) excess: u64,
    /// In bytes.
    pub(super) limit: Option<u64>,
    pub(super) may_exceed: bool,
    /// What was declared: end and kind by start.
    declared: BTreeMap<u64, (u64, Vma)>,
    regions: BTreeMap<u64, Region>,
    /// Pages that v1 has pinned: real address and count by user address.
    pins: BTreeMap<u64, (u64, u64)>,
}

impl Memory {
    pub(super) fn new(id: ProcessId, host_shift: u32) -> Self {
        Self {
            id,
            host_shift,
            locked: 0,
            leaked: 0,
            excess: 0,
            limit: None,
            may_exceed: false,
            declared: BTreeMap::new(),
            regions: BTreeMap::new(),
            pins: BTreeMap::new(),
        }
    }

    /// Declares a range, rounded outwards to host pages.
    pub(super) fn declare(&mut self, start: u64, bytes: u64, vma: Vma) {
        let page = 1u64 << self.host_shift;
        let end = start.saturating_add(bytes).checked_next_multiple_of(page).unwrap_or(!(page - 1));
        let start = start & !(page - 1);
        if start >= end {
            return;
        }
        let overlapping: Vec<_> = self
            .declared
            .range(..end)
            .filter(|(_, v)| v.0 > start)
            .map(|(s, v)| (*s, *v))
            .collect();
        for (s, (e, old)) in overlapping {
            self.declared.remove(&s);
            if s < start {
                self.declared.insert(s, (start, old));
            }
            if e > end {
                self.declared.insert(end, (e, old));
            }
        }
        self.declared.insert(start, (end, vma));
    }

    /// What is at an address, and where that ends.
    fn vma(&self, at: u64) -> (Vma, u64) {
        if at >= USER_END {
            return (Vma::HOLE, u64::MAX);
        }
        let before = self.declared.range(..=at).next_back();
        if let Some((_, &(end, vma))) = before.filter(|(_, v)| v.0 > at) {
            return (vma, end.min(USER_END));
        }
        let next = self.declared.range(at..).next().map_or(USER_END, |(start, _)| *start);
        (Vma::ANONYMOUS, next.min(USER_END))
    }

    /// log2 of the page that a mapping stands on.
    fn backing_shift(&self, vma: Vma) -> u32 {
        vma.huge.map_or(self.host_shift, |page| page.get().max(self.host_shift))
    }

    /// The smallest page behind a range; `None` if a part of it is not mapped for reading and writing.
    pub(super) fn backing(&self, start: u64, bytes: u64) -> Option<PageShift> {
        let end = start.checked_add(bytes.max(1))?;
        let (mut at, mut smallest) = (start, u32::MAX);
        while at < end {
            let (vma, to) = self.vma(at);
            if !(vma.mapped && vma.writable) {
                return None;
            }
            smallest = smallest.min(self.backing_shift(vma));
            at = to;
        }
        PageShift::new(smallest)
    }

    /// Charges host pages.
    pub(super) fn charge(&mut self, pages: u64) -> Result<(), Errno> {
        let after = self.locked.checked_add(pages).ok_or(Errno::ENOMEM)?;
        let limit = self.limit.filter(|_| !self.may_exceed);
        if pages > 0 && limit.is_some_and(|bytes| after > bytes >> self.host_shift) {
            return Err(Errno::ENOMEM);
        }
        self.locked = after;
        Ok(())
    }

    /// Gives host pages back; what would go below 0 is dropped.
    pub(super) fn uncharge(&mut self, pages: u64) {
        self.excess = self.excess.saturating_sub(pages.saturating_sub(self.locked));
        self.locked = self.locked.saturating_sub(pages);
    }

    /// Gives host pages back that it was never charged with.
    pub(super) fn overpay(&mut self, pages: u64) {
        let taken = pages.min(self.locked);
        self.locked -= taken;
        self.excess += taken;
    }

    /// Host pages that the regions are charged with.
    pub(super) fn region_pages(&self) -> u64 {
        self.regions.values().map(|region| region.bytes >> self.host_shift).sum()
    }

    /// Counts one more user of exactly this region. False if there is no such region.
    pub(super) fn region_get(&mut self, start: u64, bytes: u64) -> bool {
        match self.regions.get_mut(&start) {
            Some(region) if region.bytes == bytes => {
                region.used += 1;
                true
            }
            _ => false,
        }
    }

    /// Counts one user less. The last one takes the region with it, unless something still maps
    /// it: then that user stays.
    pub(super) fn region_put(
        &mut self,
        start: u64,
        real: &mut RealMemory,
        log: &mut Log,
    ) -> Result<(), Errno> {
        let region = self.regions.get_mut(&start).ok_or(Errno::ENOENT)?;
        if region.used > 1 {
            region.used -= 1;
            return Ok(());
        }
        if region.mapped > 1 {
            return Err(Errno::EBUSY);
        }
        let bytes = region.bytes;
        for (_, _, at) in std::mem::take(&mut region.pieces) {
            real.unpin(at);
        }
        self.regions.remove(&start);
        self.uncharge(bytes >> self.host_shift);
        log.event(Event::Unpin { process: self.id, start: Uaddr(start), bytes });
        Ok(())
    }

    /// Charges, pins and lists a new region with one user. `Ok` with a number above 0: so many
    /// pages could be pinned, and nothing was registered.
    pub(super) fn region_new(
        &mut self,
        start: u64,
        bytes: u64,
        chunk_pages: u64,
        profile: &Profile,
        real: &mut RealMemory,
        log: &mut Log,
    ) -> Raw {
        let pages = bytes >> self.host_shift;
        if !profile.overlap_tested_last && self.overlaps(start, start + bytes) {
            return Err(Errno::EINVAL);
        }
        self.charge(pages)?;
        let made = self.pin_region(start, bytes, chunk_pages, profile, real, log);
        if made != Ok(0) {
            self.uncharge(pages);
        }
        made
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        let before = self.regions.range(..end).next_back();
        before.is_some_and(|(_, region)| region.start + region.bytes > start)
    }

    fn pin_region(
        &mut self,
        start: u64,
        bytes: u64,
        chunk_pages: u64,
        profile: &Profile,
        real: &mut RealMemory,
        log: &mut Log,
    ) -> Raw {
        if bytes == 0 {
            return Err(Errno::ENOMEM); // nothing to keep the list of pages in
        }
        let end = start + bytes;
        let short = log.fire(|x| match x {
            Injection::Pin { pages } => Some(*pages),
            _ => None,
        });
        let pages = short.unwrap_or(u64::MAX).min(real.left >> self.host_shift);
        let stop = start.saturating_add(pages.saturating_mul(1 << self.host_shift)).min(end);
        let mut stretches = Vec::new();
        let mut at = start;
        while at < stop {
            let (vma, to) = self.vma(at);
            if !vma.mapped || !vma.writable {
                break;
            }
            stretches.push((at, to.min(stop), self.backing_shift(vma)));
            at = to.min(stop);
        }
        if at < end {
            // Pages are pinned in chunks, and only the chunk that failed is counted.
            let pinned = ((at - start) >> self.host_shift) % chunk_pages;
            return match i32::try_from(pinned) {
                Ok(n) if n > 0 && profile.short_pin_is_positive => Ok(n),
                _ => Err(Errno::EFAULT),
            };
        }
        if self.overlaps(start, end) {
            return Err(Errno::EINVAL);
        }

        let mut shift = (start | bytes).trailing_zeros();
        let mut running = self.host_shift;
        for (_, _, backing) in &stretches {
            if shift > self.host_shift && *backing > self.host_shift {
                running = *backing;
            } else if !profile.stale_backing {
                running = self.host_shift;
            }
            shift = shift.min(running);
        }
        let mut pieces = Vec::new();
        for (from, to, backing) in stretches {
            match real.pin(self.id, from, to - from, backing) {
                Some(at) => pieces.push((from, backing, at)),
                None => {
                    pieces.iter().for_each(|(_, _, at)| real.unpin(*at));
                    return Err(Errno::ENOMEM);
                }
            }
        }
        log.event(Event::Pin { process: self.id, start: Uaddr(start), bytes });
        self.regions.insert(start, Region { start, bytes, shift, used: 1, mapped: 1, pieces });
        Ok(0)
    }

    /// The region that a range is inside.
    fn region_of(&mut self, at: u64, bytes: u64) -> Option<&mut Region> {
        let end = at.checked_add(bytes)?;
        let (_, region) = self.regions.range_mut(..=at).next_back()?;
        (end <= region.start + region.bytes).then_some(region)
    }

    /// The region that an IOMMU page of a v2 MAP lies in, to be counted on: its start and the
    /// page's real address.
    pub(super) fn look_up(&mut self, at: u64, shift: u32) -> Result<(u64, u64), Errno> {
        let region = self.region_of(at, 1 << shift).ok_or(Errno::EINVAL)?;
        if shift > region.shift {
            return Err(Errno::EINVAL);
        }
        let piece = region.pieces.iter().rev().find(|piece| piece.0 <= at);
        let (from, backing, real) = *piece.ok_or(Errno::EINVAL)?;
        // What the region's own page size said may have been wrong.
        if backing < shift {
            return Err(Errno::EPERM);
        }
        Ok((region.start, real + (at - from)))
    }

    pub(super) fn map_count(&mut self, region: u64) {
        if let Some(region) = self.regions.get_mut(&region) {
            region.mapped += 1;
        }
    }

    /// Takes an entry off the count of whatever region is at a remembered address.
    pub(super) fn unmap_count(&mut self, at: u64, shift: u32) {
        if let Some(region) = self.region_of(at, 1 << shift) {
            region.mapped = region.mapped.saturating_sub(1).max(1);
        }
    }

    /// How many entries are counted on the region that starts here, and its users.
    pub(super) fn region_counts(&self, start: u64) -> Option<(u64, u64)> {
        self.regions.get(&start).map(|region| (region.mapped - 1, region.used))
    }

    /// Pins one page as v1 does, for writing whatever the mapping says; the real address of `at`.
    pub(super) fn pin_page(
        &mut self,
        at: u64,
        real: &mut RealMemory,
        log: &mut Log,
    ) -> Result<u64, Errno> {
        let host = 1u64 << self.host_shift;
        let page = at & !(host - 1);
        let (vma, _) = self.vma(page);
        if !vma.mapped || !vma.writable {
            return Err(Errno::EFAULT);
        }
        let shift = self.backing_shift(vma);
        let (first, count) = match self.pins.get(&page) {
            Some(pin) => *pin,
            None => {
                let first = real.pin(self.id, page, host, shift).ok_or(Errno::EFAULT)?;
                log.event(Event::Pin { process: self.id, start: Uaddr(page), bytes: host });
                (first, 0)
            }
        };
        self.pins.insert(page, (first, count + 1));
        Ok(first + (at - page))
    }

    pub(super) fn unpin_page(&mut self, at: u64, real: &mut RealMemory, log: &mut Log) {
        let bytes = 1u64 << self.host_shift;
        let page = at & !(bytes - 1);
        let Some((first, count)) = self.pins.get_mut(&page) else { return };
        *count -= 1;
        if *count == 0 {
            real.unpin(*first);
            self.pins.remove(&page);
            log.event(Event::Unpin { process: self.id, start: Uaddr(page), bytes });
        }
    }
}
