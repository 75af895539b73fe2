// SPDX-License-Identifier: Apache-2.0 OR MIT
//! MAP and UNMAP.

use super::log::{Damage, Injection, Log};
use super::memory::{Memory, RealMemory};
use super::spapr::Spapr;
use super::state::State;
use super::table::{Arena, Table};
use super::windows::kill_each;
use crate::backend::linux::raw::{Errno, Raw};
use crate::backend::linux::uapi::{DmaMap, DmaUnmap, map_flags};
use crate::tce::{Perm, Tce};

/// Where a request begins.
struct Range {
    slot: usize,
    /// First entry, counted from the start of the window.
    index: u64,
    pages: u64,
}

impl State {
    /// What MAP and UNMAP check alike. `Err` is what the request returns.
    fn range(
        &mut self,
        spapr: &mut Spapr,
        iova: u64,
        size: u64,
        vaddr: u64,
        perm: Option<u32>,
    ) -> Result<Range, Raw> {
        match self.default_window(spapr) {
            Ok(0) => {}
            refused => return Err(refused),
        }
        let slot = spapr.window_at(iova).ok_or(Err(Errno::ENXIO))?;
        let Some(table) = &spapr.tables[slot] else { return Err(Err(Errno::ENXIO)) };
        let shift = table.shape.page_shift;
        let in_page = (1u64 << shift) - 1;
        if (size | vaddr) & in_page != 0 || perm == Some(0) {
            return Err(Err(Errno::EINVAL));
        }
        if iova & in_page != 0 {
            let one = self.profile.misaligned_is_one;
            return Err(if one { Ok(1) } else { Err(Errno::EINVAL) });
        }
        Ok(Range { slot, index: (iova >> shift) - table.first, pages: size >> shift })
    }

    pub(super) fn map(&mut self, spapr: &mut Spapr, arg: Option<&DmaMap>) -> Raw {
        if !spapr.enabled {
            return Err(Errno::EPERM);
        }
        let arg = arg.ok_or(Errno::EFAULT)?;
        if arg.argsz < DmaMap::SIZE || arg.flags & !(map_flags::READ | map_flags::WRITE) != 0 {
            return Err(Errno::EINVAL);
        }
        let range = match self.range(spapr, arg.iova, arg.size, arg.vaddr, Some(arg.flags)) {
            Ok(range) => range,
            Err(ret) => return ret,
        };
        self.log.counters.maps += 1;
        self.log.counters.map_pages += range.pages;
        let perm = if arg.flags & map_flags::WRITE != 0 { Perm::READ_WRITE } else { Perm::READ };

        let payer = self.payer(spapr).ok_or(Errno::EPERM)?;
        let Some(table) = &mut spapr.tables[range.slot] else { return Err(Errno::ENXIO) };
        self.make_view(payer, table)?;
        let (first, reach) = (table.first, table.reach());
        let page = 1u64 << table.shape.page_shift;
        let State { processes, tables: arena, real, log, groups, profile, .. } = self;
        let memory = &mut processes[payer.0 as usize];
        let (mut done, mut ret) = (0, Ok(()));
        // What version 1 replaces and has not unpinned yet.
        let mut replaced = Vec::new();
        while done < range.pages {
            let index = range.index + done;
            // Wraps only past what can be registered.
            let from = arg.vaddr.wrapping_add(done * page);
            let step = if spapr.v2 {
                map_v2(memory, table, arena, log, index, from, perm)
            } else {
                let (memory, table) = (&mut *memory, &mut *table);
                match memory.pin_page(from, real, log) {
                    Ok(to) => match table.exchange(arena, log, index, Tce::new(to, perm)) {
                        Ok(old) => {
                            replaced.push(old);
                            Ok(true)
                        }
                        Err(_) => {
                            memory.unpin_page(from, real, log);
                            Err(Errno::ENOMEM)
                        }
                    },
                    Err(e) => Err(e),
                }
            };
            match step {
                Ok(true) => done += 1,
                Ok(false) => break, // and yet it is success
                Err(e) => {
                    ret = Err(e);
                    break;
                }
            }
        }
        if !profile.one_kill {
            kill_each(groups, log, table, range.slot, first + range.index, done);
        }
        replaced.into_iter().for_each(|old| unpin(processes, real, log, old));
        let id = spapr.id;
        astray(log, id, range.slot, range.index, done, reach);
        if ret.is_err() {
            self.clear(spapr, range.slot, range.index, done);
        }
        let pages = if ret.is_err() { done } else { range.pages };
        self.kill(spapr, range.slot, first + range.index, pages);
        ret.map(|()| 0)
    }

    pub(super) fn unmap(&mut self, spapr: &mut Spapr, arg: Option<&DmaUnmap>) -> Raw {
        if !spapr.enabled {
            return Err(Errno::EPERM);
        }
        let arg = arg.ok_or(Errno::EFAULT)?;
        if arg.argsz < DmaUnmap::SIZE || arg.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let range = match self.range(spapr, arg.iova, arg.size, 0, None) {
            Ok(range) => range,
            Err(ret) => return ret,
        };
        let Some(table) = &spapr.tables[range.slot] else { return Err(Errno::ENXIO) };
        let (first, reach) = (table.first, table.reach());
        if self.profile.unmap_checks_end && range.pages > table.shape.entries - range.index {
            return Err(Errno::EINVAL);
        }
        self.log.counters.unmaps += 1;
        self.log.counters.unmap_pages += range.pages;
        astray(&mut self.log, spapr.id, range.slot, range.index, range.pages, reach);
        self.clear(spapr, range.slot, range.index, range.pages);
        self.kill(spapr, range.slot, first + range.index, range.pages);
        Ok(0)
    }

    /// Empties entries and gives back what they held; how many were live. The kill is the
    /// caller's.
    pub(super) fn clear(&mut self, spapr: &mut Spapr, slot: usize, index: u64, pages: u64) -> u64 {
        let Some(payer) = self.payer(spapr) else { return 0 };
        let Some(table) = &mut spapr.tables[slot] else { return 0 };
        let State { processes, tables: arena, real, log, groups, profile, .. } = self;
        let live = table.take_live(arena, index, index.saturating_add(pages));
        if !profile.one_kill {
            kill_each(groups, log, table, slot, table.first + index, pages);
        }
        for (index, old) in &live {
            if spapr.v2 {
                forget(&mut processes[payer.0 as usize], table, arena, *index);
            } else {
                unpin(processes, real, log, *old);
            }
        }
        live.len() as u64
    }
}

/// Maps one page of registered memory. `Ok(false)`: its region has just gone.
fn map_v2(
    memory: &mut Memory,
    table: &mut Table,
    arena: &mut Arena,
    log: &mut Log,
    index: u64,
    from: u64,
    perm: Perm,
) -> Result<bool, Errno> {
    table.prepare_view(arena, log, index).map_err(|_| Errno::ENOMEM)?;
    let (region, to) = memory.look_up(from, table.shape.page_shift)?;
    let dying = log.due(|x| match x {
        Injection::RegionDying { nth } => Some(nth),
        _ => None,
    });
    if dying {
        return Ok(false);
    }
    memory.map_count(region);
    let Ok(old) = table.exchange(arena, log, index, Tce::new(to, perm)) else {
        // Taken back for what the view remembers, which is not what was just counted.
        forget(memory, table, arena, index);
        return Err(Errno::ENOMEM);
    };
    if !old.is_empty() {
        forget(memory, table, arena, index);
    }
    table.exchange_view(arena, index, from);
    Ok(true)
}

/// Takes an entry off the count of the region that the view remembers for it.
fn forget(memory: &mut Memory, table: &mut Table, arena: &mut Arena, index: u64) {
    if let Some(from) = table.exchange_view(arena, index, 0) {
        memory.unmap_count(from, table.shape.page_shift);
    }
}

/// Unpins the page that a v1 entry held.
fn unpin(processes: &mut [Memory], real: &mut RealMemory, log: &mut Log, old: Tce) {
    if !old.is_empty()
        && let Some((process, at)) = real.owner(old.address())
    {
        processes[process.0 as usize].unpin_page(at.0, real, log);
    }
}

/// Notes entries of `index..index + pages` for which a table has no memory.
fn astray(
    log: &mut Log,
    container: super::ContainerId,
    slot: usize,
    index: u64,
    pages: u64,
    reach: u64,
) {
    let end = index.saturating_add(pages);
    if end > reach {
        let first = index.max(reach);
        log.damage(Damage::OutOfTable { container, slot, first, entries: end - first });
    }
}
