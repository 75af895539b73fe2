// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Windows: made, removed, and kills of what is in them.

use super::log::{Damage, Event, Injection, Log};
use super::spapr::Spapr;
use super::state::{Group, SECOND_START, State};
use super::table::{self, Table};
use super::{Admission, GroupAttrs, Platform, ProcessId, View};
use crate::addr::{GroupId, Ioba};
use crate::backend::linux::raw::{Errno, Raw};
use crate::backend::linux::uapi::{TceCreate, TceRemove};

impl State {
    pub(super) fn clear_window(&mut self, spapr: &mut Spapr, slot: usize) {
        if let Some(table) = &spapr.tables[slot] {
            let (first, entries) = (table.first, table.shape.entries);
            let live = self.clear(spapr, slot, 0, entries);
            self.log.event(Event::Clear { container: spapr.id, slot, live });
            self.kill(spapr, slot, first, entries);
        }
    }

    pub(super) fn free_window(&mut self, spapr: &mut Spapr, slot: usize) {
        if let Some(table) = spapr.tables[slot].take() {
            self.free_table(spapr, slot, &table);
        }
    }

    fn free_table(&mut self, spapr: &Spapr, slot: usize, table: &Table) {
        table.free(&mut self.tables);
        for (from, pages) in &table.charges {
            self.give_back(spapr, *from, *pages);
        }
        self.log.event(Event::Free { container: spapr.id, slot });
    }

    /// Makes the default window if that is still to be done.
    pub(super) fn default_window(&mut self, spapr: &mut Spapr) -> Raw {
        if !spapr.pending {
            return Ok(0);
        }
        let head = *spapr.groups.first().ok_or(Errno::ENODEV)?;
        let size = self.group(head).attrs.dma32_size;
        let made = self.create_window(spapr, 12, size.into(), 1, true, &mut 0);
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
        spapr.own(process);
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
        let (page_shift, size, levels) = (arg.page_shift, arg.window_size, arg.levels);
        let made = self.create_window(spapr, page_shift, size, levels, true, &mut start);
        if made == Ok(0) {
            if self.log.fire(|x| (*x == Injection::CopyOut).then_some(())).is_some() {
                return Err(Errno::EFAULT);
            }
            arg.start_addr = start;
        }
        made
    }

    /// Makes a table and sets it in every group. What is not `charged` stood there before, and its
    /// table belongs to the host.
    pub(super) fn create_window(
        &mut self,
        spapr: &mut Spapr,
        page_shift: u32,
        size: u64,
        levels: u32,
        charged: bool,
        start: &mut u64,
    ) -> Raw {
        let free = spapr.tables.iter().position(Option::is_none);
        let slot = free.ok_or(Errno::ENOSPC)?;
        let head = *spapr.groups.first().ok_or(Errno::EFAULT)?;
        let attrs = self.group(head).attrs.clone();
        if 1u64.checked_shl(page_shift).is_none_or(|page| attrs.page_sizes.0 & page == 0)
            || levels > attrs.max_levels
        {
            return Err(Errno::EINVAL);
        }
        if charged && attrs.max_windows == 0 && self.profile.admission != Admission::OneInVersion1 {
            return Err(Errno::EPERM);
        }
        let first = if slot == 0 { attrs.dma32_start.into() } else { SECOND_START } >> page_shift;
        let bytes = self.table_bytes(page_shift, size, levels).ok_or(Errno::EINVAL)?;
        // Nobody owns the container yet when a group brings its table along.
        let payer = self.payer(spapr).or((!charged).then_some(self.caller)).ok_or(Errno::EPERM)?;
        let pages = if charged { bytes >> self.host_shift } else { 0 };
        self.memory(payer).charge(pages)?;
        let made = self.new_table(slot, &attrs, first, (page_shift, size, levels));
        let mut table = match made {
            Ok(table) => table,
            Err(e) if self.profile.failed_create_leaks => {
                self.memory(payer).leaked += pages;
                return Err(e);
            }
            Err(e) => {
                self.memory(payer).uncharge(pages);
                return Err(e);
            }
        };
        table.charges.push((payer, pages));
        table.of = (self.platform == Platform::Pseries).then_some(head);
        table.view_due = spapr.v2 && self.profile.view != View::Tree;
        *start = first << page_shift;
        let event = Event::Create { container: spapr.id, slot, start: Ioba(*start) };
        self.log.event(event);
        if self.profile.view == View::FlatAtCreate
            && let Err(e) = self.make_view(payer, &mut table)
        {
            self.free_table(spapr, slot, &table);
            return Err(e);
        }
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

    /// Bytes that a window's table is charged with.
    fn table_bytes(&self, page_shift: u32, size: u64, levels: u32) -> Option<u64> {
        if self.profile.window_within_memory && size > self.memory_bytes {
            return None;
        }
        let copies = if self.profile.view == View::Tree { 2 } else { 1 };
        table::bytes(page_shift, size, levels, self.host_shift)?.checked_mul(copies)
    }

    /// What the platform makes, or finds, for a window.
    fn new_table(
        &mut self,
        slot: usize,
        attrs: &GroupAttrs,
        first: u64,
        (page_shift, size, levels): (u32, u64, u32),
    ) -> Result<Table, Errno> {
        // A group without dynamic windows has one table, which is there already.
        let dynamic = if self.platform == Platform::Pseries { 2 } else { 1 };
        if attrs.max_windows < dynamic {
            if slot != 0 {
                return Err(Errno::EPERM);
            }
            if (page_shift, size, levels) != (12, attrs.dma32_size.into(), 1) {
                return Err(Errno::EINVAL);
            }
        }
        let (host, bits) = (self.host_shift, self.profile.refused_bits);
        let shape = table::shape(page_shift, size, levels, host, bits).ok_or(Errno::EINVAL)?;
        let whole = !self.profile.levels_on_demand;
        Table::new(&mut self.tables, shape, first, self.max_block, whole).ok_or(Errno::ENOMEM)
    }

    /// Makes and charges a flat view, if that is still to be done.
    pub(super) fn make_view(&mut self, payer: ProcessId, table: &mut Table) -> Result<(), Errno> {
        if table.view_due {
            let pages = table.flat_view(self.host_shift);
            self.memory(payer).charge(pages)?;
            table.charges.push((payer, pages));
            table.view_due = false;
        }
        Ok(())
    }

    pub(super) fn remove(
        &mut self,
        spapr: &mut Spapr,
        process: ProcessId,
        arg: Option<&TceRemove>,
    ) -> Raw {
        spapr.own(process);
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
        if !self.profile.one_kill {
            return; // done by `kill_each`
        }
        let hangs = self.profile.empty_kill_hangs && self.platform == Platform::Phb3;
        if entries == 0 && first == 0 && hangs {
            self.log.damage(Damage::Hang { container: spapr.id });
            return;
        }
        if entries == 0 {
            return;
        }
        let at = Ioba(first << table.shape.page_shift);
        for group in users(&self.groups, table, slot) {
            self.log.counters.range_kills += 1;
            self.log.event(Event::Kill { group, at, pages: entries });
        }
    }
}

/// The groups whose window is set to a table.
fn users<'a>(
    groups: &'a [Group],
    table: &'a Table,
    slot: usize,
) -> impl Iterator<Item = GroupId> + 'a {
    let here = move |group: &Group| group.tve[slot] >> 16 << 12 == table.hardware;
    (0..).map(GroupId).zip(groups).filter(move |(_, group)| here(group)).map(|(id, _)| id)
}

/// Kills each of the entries `first..first + entries` (counted from bus address 0) as it changes.
pub(super) fn kill_each(
    groups: &[Group],
    log: &mut Log,
    table: &Table,
    slot: usize,
    first: u64,
    entries: u64,
) {
    let at = Ioba(first << table.shape.page_shift);
    for group in users(groups, table, slot).filter(|_| entries > 0) {
        log.counters.range_kills += entries;
        log.event(Event::KillEach { group, at, pages: entries });
    }
}
