// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Groups, windows, registrations and charges.

use tce_engine::addr::{DmaMask, GroupId, Ioba, PageSizes, Uaddr};
use tce_engine::backend::MAX_WINDOWS;
use tce_engine::container::Removal;
use tce_engine::error::{
    AttachError, BackendError, LimitError, RegisterError, UnregisterError, WindowError,
};
use tce_engine::geometry::WindowSpec;

use super::super::machine::MAX_BLOCK;
use super::shape::shape;
use super::{Done, Mistake, Model, Region, Side, Window};

/// Where windows begin on the bus.
pub(in super::super) const STARTS: [u64; MAX_WINDOWS] = [0, 1 << 59];

impl Model {
    fn caps(&self, side: usize) -> Option<(PageSizes, u32)> {
        let members = self.sides[side].members.iter().filter_map(|group| self.group(*group));
        members.reduce(|(a, b), (c, d)| (a.intersect(c), b.min(d)))
    }

    pub(in super::super) fn attach(
        &mut self,
        side: usize,
        group: GroupId,
    ) -> Result<(), AttachError> {
        match self.sides.iter().position(|s| s.members.contains(&group)) {
            Some(owner) if owner == side => return Err(AttachError::Member(group)),
            Some(_) => return Err(AttachError::Elsewhere(group)),
            None => {}
        }
        let (pages, levels) = self.group(group).ok_or(BackendError::NoGroup(group))?;
        let fits = |w: &Window| pages.contains(w.page) && w.shape.levels <= levels;
        if !self.sides[side].windows.iter().flatten().all(fits) {
            // Nobody compares the reason.
            return Err(AttachError::Incompatible { group, reason: String::new() });
        }
        self.sides[side].members.push(group);
        Ok(())
    }

    pub(in super::super) fn detach(
        &mut self,
        side: usize,
        group: GroupId,
    ) -> Result<(), AttachError> {
        let members = &self.sides[side].members;
        let Some(at) = members.iter().position(|member| *member == group) else {
            return Err(AttachError::NotMember(group));
        };
        if members.len() == 1 {
            self.close(side);
        } else if !self.is(Mistake::NobodyLeaves) {
            self.sides[side].members.remove(at);
        }
        Ok(())
    }

    pub(in super::super) fn close(&mut self, side: usize) {
        let gone = std::mem::take(&mut self.sides[side]);
        gone.regions.keys().for_each(|start| self.release(*start));
    }

    pub(in super::super) fn create(
        &mut self,
        side: usize,
        spec: WindowSpec,
    ) -> Result<usize, WindowError> {
        let (offered, most) = self.caps(side).ok_or(WindowError::NoGroup)?;
        let free = self.sides[side].windows.iter().position(Option::is_none);
        let slot = free.ok_or(WindowError::NoSlot(MAX_WINDOWS))?;
        let shape = shape(spec, self.machine.host, MAX_BLOCK)?;
        if !offered.contains(spec.page) {
            return Err(WindowError::PageSize { page: spec.page, offered });
        }
        if shape.levels > most {
            return Err(WindowError::Levels { levels: shape.levels, offered: most });
        }
        self.charge(shape.charge)?;
        let (start, page, live) = (STARTS[slot], spec.page, Default::default());
        self.sides[side].windows[slot] = Some(Window { start, page, shape, live });
        Ok(slot)
    }

    /// What it did, if it was done, and to which slot.
    pub(in super::super) fn remove(
        &mut self,
        side: usize,
        start: Ioba,
        removal: Removal,
    ) -> Result<(usize, Done), WindowError> {
        let windows = self.sides[side].windows.iter().enumerate();
        let mut named = windows.filter_map(|(slot, w)| Some((slot, w.as_ref()?)));
        let found = named.find(|(_, window)| window.start == start.0);
        let (slot, window) = found.ok_or(WindowError::NotFound(start))?;
        let live = window.live.len() as u64;
        if removal == Removal::IfUnmapped && live > 0 {
            return Err(WindowError::Mapped { start, live });
        }
        let entries = window.shape.entries;
        let released = self.clear(side, (slot, 0, entries));
        let done = self.cleared(side, released, 0);
        let members = self.sides[side].members.len() as u64;
        self.sides[side].windows[slot] = None;
        if slot == 0 {
            self.sides[side].given.clear();
        }
        // Each member's PE once more, when the window is unset.
        Ok((slot, Done { issued: done.issued + members, ..done }))
    }

    pub(in super::super) fn register(
        &mut self,
        side: usize,
        start: Uaddr,
        bytes: u64,
    ) -> Result<(), RegisterError> {
        let host_page = self.machine.host;
        if bytes == 0 {
            return Err(RegisterError::Empty(start));
        }
        if !start.0.is_multiple_of(host_page.bytes()) || !bytes.is_multiple_of(host_page.bytes()) {
            return Err(RegisterError::Unaligned { start, bytes, host_page });
        }
        let end = start.0.checked_add(bytes).ok_or(RegisterError::Wraps { start, bytes })?;
        if self.sides[side].members.is_empty() {
            return Err(RegisterError::NoGroup);
        }
        if self.sides[side].regions.get(&start.0).is_some_and(|region| region.bytes == bytes) {
            return Err(RegisterError::Busy { start, bytes });
        }
        match self.registry.get_mut(&start.0) {
            Some((same, users)) if *same == bytes => *users += 1,
            _ => {
                let meets = |(other, (length, _)): &(&u64, &(u64, u64))| {
                    **other < end && start.0 < **other + *length
                };
                if let Some((other, (other_bytes, _))) = self.registry.iter().find(meets) {
                    let (other, other_bytes) = (Uaddr(*other), *other_bytes);
                    return Err(RegisterError::Overlap { start, bytes, other, other_bytes });
                }
                self.charge(bytes)?;
                self.registry.insert(start.0, (bytes, 1));
            }
        }
        self.sides[side].regions.insert(start.0, Region { bytes, mapped: 0 });
        Ok(())
    }

    pub(in super::super) fn unregister(
        &mut self,
        side: usize,
        start: Uaddr,
        bytes: u64,
    ) -> Result<(), UnregisterError> {
        let found = self.sides[side].regions.get(&start.0).filter(|region| region.bytes == bytes);
        let mapped = found.ok_or(UnregisterError::NotFound { start, bytes })?.mapped;
        if mapped > 0 && !self.is(Mistake::GiveMappedBack) {
            return Err(UnregisterError::Mapped { start, mapped });
        }
        self.sides[side].regions.remove(&start.0);
        self.release(start.0);
        Ok(())
    }

    fn release(&mut self, start: u64) {
        if let Some((_, users)) = self.registry.get_mut(&start) {
            *users -= 1;
            if *users == 0 {
                self.registry.remove(&start);
            }
        }
    }

    /// Host pages of locked memory.
    pub(in super::super) fn charged(&self) -> u64 {
        let windows = self.sides.iter().flat_map(|side| side.windows.iter().flatten());
        let tables: u64 = windows.map(|w| w.shape.charge).sum();
        let tables = if self.is(Mistake::FreeTables) { 0 } else { tables };
        let regions: u64 = self.registry.values().map(|(bytes, _)| bytes).sum();
        (tables + regions) >> self.machine.host.get()
    }

    /// Refuses what would be too much.
    fn charge(&self, bytes: u64) -> Result<(), LimitError> {
        let shift = self.machine.host.get();
        let (asked, charged) = (bytes >> shift, self.charged());
        match self.machine.memlock.map(|bytes| bytes >> shift) {
            Some(limit) if charged + asked > limit => Err(LimitError { asked, charged, limit }),
            _ => Ok(()),
        }
    }

    /// Start and bytes of the window that serves a device best, or of all that do not.
    pub(in super::super) fn window_for(
        &self,
        side: usize,
        mask: DmaMask,
    ) -> Result<(Ioba, u64), WindowError> {
        let windows: Vec<_> = self.sides[side].windows.iter().flatten().collect();
        let reach = |w: &&Window| {
            let (page, last) = (w.page.bytes(), mask.last().0);
            let bytes = (last.checked_sub(w.start)?.saturating_add(1)) / page * page;
            let bytes = bytes.min(w.shape.entries * page);
            (bytes > 0).then_some((Ioba(w.start), bytes))
        };
        let mut best: Option<(Ioba, u64)> = None;
        for (start, bytes) in windows.iter().filter_map(reach) {
            if best.is_none_or(|(_, most)| bytes > most) {
                best = Some((start, bytes));
            }
        }
        let all = |w: &&Window| (Ioba(w.start), w.shape.entries * w.page.bytes());
        best.ok_or_else(|| WindowError::Mask { mask, windows: windows.iter().map(all).collect() })
    }

    /// Windows that PEs have set.
    pub(in super::super) fn windows_set(&self) -> usize {
        let of = |side: &Side| side.members.len() * side.windows.iter().flatten().count();
        self.sides.iter().map(of).sum()
    }

    /// Pages of all addresses that were handed out.
    pub(in super::super) fn given_pages(&self, side: usize) -> u64 {
        self.sides[side].given.values().sum()
    }
}
