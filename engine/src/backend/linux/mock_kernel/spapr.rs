// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sPAPR back end of a container: who is in it, its windows, its regions, its requests.
//! An argument that is `None` points to memory that is not there.

use super::log::{Damage, Event, Injection};
use super::state::{SECOND_START, SLOTS, State};
use super::table::{self, Table};
use super::{ContainerId, ProcessId};
use crate::addr::{GroupId, Ioba};
use crate::backend::linux::raw::{Errno, Raw};
use crate::backend::linux::uapi::{RegisterMemory, TceCreate, TceInfo, TceRemove};

/// What SET_IOMMU adds to a container.
pub(super) struct Spapr {
    pub(super) id: ContainerId,
    pub(super) v2: bool,
    /// The process that it belongs to, once one has used it.
    pub(super) owner: Option<ProcessId>,
    /// MAP and UNMAP are allowed.
    pub(super) enabled: bool,
    /// What ENABLE charged.
    pub(super) enabled_pages: u64,
    /// The default window has not been made yet.
    pending: bool,
    /// The group that was attached last comes first.
    pub(super) groups: Vec<GroupId>,
    pub(super) tables: [Option<Table>; SLOTS],
    /// Starts of the regions registered through this container.
    regions: Vec<u64>,
}

impl Spapr {
    pub(super) fn new(id: ContainerId, v2: bool) -> Self {
        Self {
            id,
            v2,
            owner: None,
            enabled: false,
            enabled_pages: 0,
            pending: false,
            groups: Vec::new(),
            tables: [None, None],
            regions: Vec::new(),
        }
    }

    /// Makes the container this process's, if it is nobody's.
    fn own(&mut self, process: ProcessId) -> Result<(), Errno> {
        match self.owner {
            Some(owner) if owner != process => Err(Errno::EPERM),
            _ => {
                self.owner = Some(process);
                Ok(())
            }
        }
    }

    /// The window that a bus address is in.
    pub(super) fn window_at(&self, at: u64) -> Option<usize> {
        self.tables.iter().position(|table| {
            table.as_ref().is_some_and(|t| {
                let index = (at >> t.shape.page_shift).checked_sub(t.first);
                index.is_some_and(|index| index < t.shape.entries)
            })
        })
    }
}

impl State {
    pub(super) fn attach(&mut self, spapr: &mut Spapr, group: GroupId) -> Raw {
        let attrs = self.group(group).attrs.clone();
        if !attrs.platform_data {
            return Err(Errno::ENODEV);
        }
        if spapr.v2 && attrs.max_windows == 0 {
            return Err(Errno::EINVAL);
        }
        if !spapr.v2 && !spapr.groups.is_empty() || spapr.groups.contains(&group) {
            return Err(Errno::EBUSY);
        }
        if spapr.groups.iter().any(|member| self.group(*member).attrs.ops != attrs.ops) {
            return Err(Errno::EPERM);
        }
        let mut ret = Ok(0);
        for (slot, table) in spapr.tables.iter().enumerate() {
            if let Some(table) = table {
                ret = self.set_window(group, slot, table);
                if ret != Ok(0) {
                    (0..SLOTS).for_each(|slot| self.unset_window(group, slot));
                    break;
                }
            }
        }
        if spapr.groups.is_empty() && spapr.tables[0].is_none() {
            spapr.pending = true;
        }
        if ret == Ok(0) {
            spapr.groups.insert(0, group);
            self.log.event(Event::Attach { container: spapr.id, group });
        }
        ret
    }

    pub(super) fn detach(&mut self, spapr: &mut Spapr, group: GroupId) {
        let Some(at) = spapr.groups.iter().position(|member| *member == group) else { return };
        spapr.groups.remove(at);
        self.log.event(Event::Detach { container: spapr.id, group });
        if self.profile.clear_before_unset {
            (0..SLOTS).for_each(|slot| self.clear_window(spapr, slot));
        }
        (0..SLOTS).for_each(|slot| self.unset_window(group, slot));
    }

    /// Ends the back end: its groups leave, then everything is freed and returned.
    pub(super) fn release(&mut self, mut spapr: Spapr) {
        while let Some(group) = spapr.groups.first().copied() {
            self.detach(&mut spapr, group);
        }
        for slot in 0..SLOTS {
            if !self.profile.clear_before_unset {
                self.clear_window(&mut spapr, slot);
            }
            self.free_window(&mut spapr, slot);
        }
        if let Some(owner) = spapr.owner {
            let State { processes, real, log, .. } = self;
            for start in std::mem::take(&mut spapr.regions) {
                // A region that another container still maps stays without an owner.
                let _ = processes[owner.0 as usize].region_put(start, real, log);
            }
        }
        let _ = self.disable(&mut spapr);
    }

    fn clear_window(&mut self, spapr: &mut Spapr, slot: usize) {
        if let Some(table) = &spapr.tables[slot] {
            let (first, entries) = (table.first, table.shape.entries);
            let live = self.clear(spapr, slot, 0, entries);
            self.log.event(Event::Clear { container: spapr.id, slot, live });
            self.kill(spapr, slot, first, entries);
        }
    }

    fn free_window(&mut self, spapr: &mut Spapr, slot: usize) {
        if let Some(table) = spapr.tables[slot].take() {
            self.free_table(spapr, slot, &table);
        }
    }

    fn free_table(&mut self, spapr: &Spapr, slot: usize, table: &Table) {
        table.free(&mut self.tables);
        if let Some(owner) = spapr.owner {
            self.memory(owner).uncharge(table.charge);
        }
        self.log.event(Event::Free { container: spapr.id, slot });
    }

    pub(super) fn info(&mut self, spapr: &Spapr, arg: Option<&mut TceInfo>) -> Raw {
        let head = *spapr.groups.first().ok_or(Errno::ENXIO)?;
        let info = arg.ok_or(Errno::EFAULT)?;
        if info.argsz < 16 {
            return Err(Errno::EINVAL);
        }
        let attrs = &self.group(head).attrs;
        let ddw = spapr.v2 && attrs.max_windows != 0;
        info.flags = if ddw { TceInfo::DDW } else { 0 };
        info.dma32_window_start = attrs.dma32_start;
        info.dma32_window_size = attrs.dma32_size;
        if info.argsz >= TceInfo::SIZE {
            info.ddw = Default::default();
            if ddw {
                info.ddw.pgsizes = attrs.page_sizes.0;
                info.ddw.max_dynamic_windows_supported = attrs.max_windows;
                info.ddw.levels = attrs.max_levels;
            }
        }
        Ok(0)
    }

    pub(super) fn enable(&mut self, spapr: &mut Spapr, process: ProcessId) -> Raw {
        if spapr.enabled {
            return Err(Errno::EBUSY);
        }
        let head = *spapr.groups.first().ok_or(Errno::ENODEV)?;
        let size = u64::from(self.group(head).attrs.dma32_size);
        if size == 0 {
            return Err(Errno::EPERM);
        }
        spapr.own(process)?;
        let pages = size >> self.host_shift;
        self.memory(process).charge(pages)?;
        (spapr.enabled, spapr.enabled_pages) = (true, pages);
        Ok(0)
    }

    pub(super) fn disable(&mut self, spapr: &mut Spapr) -> Raw {
        spapr.enabled = false;
        let pages = std::mem::take(&mut spapr.enabled_pages);
        if let Some(owner) = spapr.owner {
            self.memory(owner).uncharge(pages);
        }
        Ok(0)
    }

    pub(super) fn register(
        &mut self,
        spapr: &mut Spapr,
        process: ProcessId,
        arg: Option<&RegisterMemory>,
    ) -> Raw {
        spapr.own(process)?;
        let (start, bytes) = self.region_argument(arg)?;
        if start.checked_add(bytes).is_none() {
            return Err(Errno::EINVAL);
        }
        // The list of a chunk's pages fills one block of the largest size.
        let chunk = (self.max_block / 8).max(1);
        let State { processes, real, log, profile, .. } = self;
        let memory = &mut processes[process.0 as usize];
        if memory.region_get(start, bytes) {
            if spapr.regions.contains(&start) {
                let _ = memory.region_put(start, real, log);
                return Err(Errno::EBUSY);
            }
        } else {
            let made = memory.region_new(start, bytes, chunk, profile, real, log);
            if made != Ok(0) {
                return made;
            }
        }
        spapr.regions.push(start);
        spapr.enabled = true;
        Ok(0)
    }

    pub(super) fn unregister(&mut self, spapr: &mut Spapr, arg: Option<&RegisterMemory>) -> Raw {
        let owner = spapr.owner.ok_or(Errno::EPERM)?;
        let (start, bytes) = self.region_argument(arg)?;
        let State { processes, real, log, profile, .. } = self;
        let memory = &mut processes[owner.0 as usize];
        // The look-up counts as a user for as long as the request lasts. That is why a region that
        // is mapped loses its container here, and the refusal comes too late to be heard.
        if !memory.region_get(start, bytes) {
            return Err(Errno::ENOENT);
        }
        let mut ret = Err(Errno::ENOENT);
        if let Some(at) = spapr.regions.iter().position(|region| *region == start) {
            let last = memory.region_counts(start).is_some_and(|(mapped, used)| {
                mapped > 0 && used == 2 && !profile.unregister_orphans
            });
            ret = if last { Err(Errno::EBUSY) } else { memory.region_put(start, real, log) };
            if ret.is_ok() {
                spapr.regions.remove(at);
            }
        }
        let _ = memory.region_put(start, real, log);
        ret.map(|()| 0)
    }

    /// The range of a (un)registration, in whole host pages.
    fn region_argument(&self, arg: Option<&RegisterMemory>) -> Result<(u64, u64), Errno> {
        let arg = arg.ok_or(Errno::EFAULT)?;
        let in_page = (1u64 << self.host_shift) - 1;
        if arg.argsz < RegisterMemory::SIZE
            || arg.flags != 0
            || (arg.vaddr | arg.size) & in_page != 0
        {
            return Err(Errno::EINVAL);
        }
        Ok((arg.vaddr, arg.size))
    }

    /// Makes the default window if that is still to be done.
    pub(super) fn default_window(&mut self, spapr: &mut Spapr) -> Raw {
        if !spapr.pending {
            return Ok(0);
        }
        let head = *spapr.groups.first().ok_or(Errno::ENODEV)?;
        let size = self.group(head).attrs.dma32_size;
        let made = self.create_window(spapr, 12, size.into(), 1, &mut 0);
        if made == Ok(0) {
            spapr.pending = false;
        }
        made
    }

    pub(super) fn create(
        &mut self,
        spapr: &mut Spapr,
        process: ProcessId,
        arg: Option<&mut TceCreate>,
    ) -> Raw {
        spapr.own(process)?;
        if spapr.groups.is_empty() {
            return Err(Errno::ENXIO);
        }
        let arg = arg.ok_or(Errno::EFAULT)?;
        if arg.argsz < TceCreate::SIZE || arg.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let made = self.default_window(spapr);
        if made != Ok(0) {
            return made;
        }
        let mut start = 0;
        let made =
            self.create_window(spapr, arg.page_shift, arg.window_size, arg.levels, &mut start);
        if made == Ok(0) {
            if self.log.fire(|x| (*x == Injection::CopyOut).then_some(())).is_some() {
                return Err(Errno::EFAULT);
            }
            arg.start_addr = start;
        }
        made
    }

    fn create_window(
        &mut self,
        spapr: &mut Spapr,
        page_shift: u32,
        size: u64,
        levels: u32,
        start: &mut u64,
    ) -> Raw {
        let free = spapr.tables.iter().position(Option::is_none);
        let slot = free.ok_or(Errno::ENOSPC)?;
        let head = *spapr.groups.first().ok_or(Errno::EFAULT)?;
        let attrs = &self.group(head).attrs;
        if 1u64.checked_shl(page_shift).is_none_or(|page| attrs.page_sizes.0 & page == 0)
            || levels > attrs.max_levels
        {
            return Err(Errno::EINVAL);
        }
        let first = if slot == 0 { attrs.dma32_start.into() } else { SECOND_START } >> page_shift;
        let bytes = table::charge(page_shift, size, levels, self.host_shift);
        let pages = bytes.ok_or(Errno::EINVAL)? >> self.host_shift;
        let owner = spapr.owner.ok_or(Errno::EPERM)?;
        self.memory(owner).charge(pages)?;
        let bits = self.profile.refused_bits;
        let table = match table::shape(page_shift, size, levels, self.host_shift, bits) {
            None => Err(Errno::EINVAL),
            Some(shape) => Table::new(&mut self.tables, shape, first, pages, self.max_block)
                .ok_or(Errno::ENOMEM),
        };
        let table = match table {
            Ok(table) => table,
            Err(e) if self.profile.failed_create_leaks => {
                self.memory(owner).leaked += pages;
                return Err(e);
            }
            Err(e) => {
                self.memory(owner).uncharge(pages);
                return Err(e);
            }
        };
        *start = first << page_shift;
        let event = Event::Create { container: spapr.id, slot, start: Ioba(*start) };
        self.log.event(event);
        for group in spapr.groups.clone() {
            let set = self.set_window(group, slot, &table);
            if set != Ok(0) {
                // All of them, those that were never set too.
                spapr.groups.iter().for_each(|group| self.unset_window(*group, slot));
                self.free_table(spapr, slot, &table);
                return set;
            }
        }
        spapr.tables[slot] = Some(table);
        Ok(0)
    }

    pub(super) fn remove(
        &mut self,
        spapr: &mut Spapr,
        process: ProcessId,
        arg: Option<&TceRemove>,
    ) -> Raw {
        spapr.own(process)?;
        if spapr.groups.is_empty() {
            return Err(Errno::ENXIO);
        }
        let arg = arg.ok_or(Errno::EFAULT)?;
        if arg.argsz < TceRemove::SIZE || arg.flags != 0 {
            return Err(Errno::EINVAL);
        }
        if spapr.pending && arg.start_addr == 0 {
            spapr.pending = false;
            return Ok(0);
        }
        // Any address inside will do.
        let slot = spapr.window_at(arg.start_addr).ok_or(Errno::EINVAL)?;
        if self.profile.clear_before_unset {
            self.clear_window(spapr, slot);
        }
        for group in spapr.groups.clone() {
            self.unset_window(group, slot);
        }
        if !self.profile.clear_before_unset {
            self.clear_window(spapr, slot);
        }
        self.free_window(spapr, slot);
        Ok(0)
    }

    /// Kills the pages `first..first + entries` (counted from bus address 0) for every group that
    /// uses the table.
    pub(super) fn kill(&mut self, spapr: &Spapr, slot: usize, first: u64, entries: u64) {
        let Some(table) = &spapr.tables[slot] else { return };
        if entries == 0 && first == 0 && self.profile.empty_kill_hangs {
            self.log.damage(Damage::Hang { container: spapr.id });
            return;
        }
        if entries == 0 {
            return;
        }
        let at = Ioba(first << table.shape.page_shift);
        for (i, group) in self.groups.iter().enumerate() {
            if group.tve[slot] >> 16 << 12 == table.hardware {
                self.log.counters.range_kills += 1;
                let group = GroupId(i as u32);
                self.log.event(Event::Kill { group, at, pages: entries });
            }
        }
    }
}
