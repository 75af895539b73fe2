// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sPAPR back end of a container: who is in it, its regions, its requests.
//! An argument that is `None` points to memory that is not there.

use super::log::Event;
use super::state::{SLOTS, State};
use super::table::Table;
use super::{Admission, ContainerId, DefaultWindow, GroupAttrs, ProcessId};
use crate::addr::GroupId;
use crate::backend::linux::raw::{Errno, Raw};
use crate::backend::linux::uapi::{RegisterMemory, TceInfo};

/// What SET_IOMMU adds to a container.
pub(super) struct Spapr {
    pub(super) id: ContainerId,
    pub(super) v2: bool,
    /// The process that it belongs to, once one has used it.
    pub(super) owner: Option<ProcessId>,
    /// MAP and UNMAP are allowed.
    pub(super) enabled: bool,
    /// What ENABLE charged, in host pages, and to whom.
    pub(super) paid: Option<(ProcessId, u64)>,
    /// The default window has not been made yet.
    pub(super) pending: bool,
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
            paid: None,
            pending: false,
            groups: Vec::new(),
            tables: [None, None],
            regions: Vec::new(),
        }
    }

    /// Makes the container this process's, if it is nobody's.
    pub(super) fn own(&mut self, process: ProcessId) {
        self.owner.get_or_insert(process);
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
        self.admit(spapr, group, &attrs)?;
        let first = spapr.groups.is_empty() && spapr.tables[0].is_none();
        let own_table =
            attrs.max_windows == 0 && self.profile.admission != Admission::OneInVersion1;
        let mut ret = Ok(0);
        for (slot, table) in spapr.tables.iter().enumerate() {
            if let Some(table) = table.as_ref().filter(|_| self.profile.late_joiner_gets_windows) {
                ret = self.set_window(group, slot, table);
                if ret != Ok(0) {
                    (0..SLOTS).for_each(|slot| self.unset_window(group, slot));
                    break;
                }
            }
        }
        let lazy = self.profile.default_window == DefaultWindow::Lazy;
        if first && lazy && !own_table {
            spapr.pending = true;
        }
        if ret == Ok(0) {
            spapr.groups.insert(0, group);
            if first && (own_table || !lazy) {
                let charged = !own_table;
                ret = self.create_window(spapr, 12, attrs.dma32_size.into(), 1, charged, &mut 0);
                if ret != Ok(0) {
                    spapr.groups.remove(0);
                    return ret;
                }
            }
            self.log.event(Event::Attach { container: spapr.id, group });
        }
        ret
    }

    /// Whether a group may be in a container, as far as its kind and who is there tell.
    fn admit(&mut self, spapr: &Spapr, group: GroupId, attrs: &GroupAttrs) -> Result<(), Errno> {
        let dynamic = attrs.max_windows != 0;
        let newest = self.profile.admission == Admission::OneInVersion1;
        if !attrs.platform_data {
            return Err(Errno::ENODEV);
        }
        if newest && spapr.v2 && !dynamic {
            return Err(Errno::EINVAL);
        }
        if newest && !spapr.v2 && !spapr.groups.is_empty() || spapr.groups.contains(&group) {
            return Err(Errno::EBUSY);
        }
        if spapr.groups.iter().any(|member| self.group(*member).attrs.ops != attrs.ops) {
            return Err(Errno::EPERM);
        }
        if self.profile.admission == Admission::ByDynamicWindows && spapr.v2 != dynamic {
            return Err(Errno::EPERM);
        }
        // A group that has its own table only cannot use another's, nor the other way round.
        let static_one = |member: &GroupId| self.groups[member.0 as usize].attrs.max_windows == 0;
        if !spapr.groups.is_empty() && (!dynamic || spapr.groups.iter().any(static_one)) {
            return Err(Errno::EBUSY);
        }
        Ok(())
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
        if let Some(owner) = spapr.owner.filter(|_| self.profile.lists_regions) {
            let State { processes, real, log, .. } = self;
            for start in std::mem::take(&mut spapr.regions) {
                // A region that another container still maps stays without an owner.
                let _ = processes[owner.0 as usize].region_put(start, real, log);
            }
        }
        let _ = self.disable(&mut spapr);
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
        spapr.own(process);
        let pages = size >> self.host_shift;
        self.memory(process).charge(pages)?;
        (spapr.enabled, spapr.paid) = (true, Some((process, pages)));
        Ok(0)
    }

    pub(super) fn disable(&mut self, spapr: &mut Spapr) -> Raw {
        spapr.enabled = false;
        if let Some((from, pages)) = spapr.paid.take() {
            self.give_back(spapr, from, pages);
        }
        Ok(0)
    }

    pub(super) fn register(
        &mut self,
        spapr: &mut Spapr,
        process: ProcessId,
        arg: Option<&RegisterMemory>,
    ) -> Raw {
        spapr.own(process);
        let (start, bytes) = self.region_argument(arg)?;
        if start.checked_add(bytes).is_none() {
            return Err(Errno::EINVAL);
        }
        // The list of a chunk's pages fills one block of the largest size.
        let chunk = (self.max_block / 8).max(1);
        let State { processes, real, log, profile, .. } = self;
        let memory = &mut processes[process.0 as usize];
        if memory.region_get(start, bytes) {
            if profile.lists_regions && spapr.regions.contains(&start) {
                let _ = memory.region_put(start, real, log);
                return Err(Errno::EBUSY);
            }
        } else {
            let made = memory.region_new(start, bytes, chunk, profile, real, log);
            if made != Ok(0) {
                return made;
            }
        }
        if profile.lists_regions {
            spapr.regions.push(start);
        }
        spapr.enabled = true;
        Ok(0)
    }

    pub(super) fn unregister(&mut self, spapr: &mut Spapr, arg: Option<&RegisterMemory>) -> Raw {
        let owner = self.payer(spapr).ok_or(Errno::EPERM)?;
        let (start, bytes) = self.region_argument(arg)?;
        let State { processes, real, log, profile, .. } = self;
        let memory = &mut processes[owner.0 as usize];
        // The look-up counts as a user for as long as the request lasts. That is why a region that
        // is mapped loses its container here, and the refusal comes too late to be heard.
        if !memory.region_get(start, bytes) {
            return Err(Errno::ENOENT);
        }
        let mut ret = Err(Errno::ENOENT);
        let listed = spapr.regions.iter().position(|region| *region == start);
        if listed.is_some() || !profile.lists_regions {
            let last = memory.region_counts(start).is_some_and(|(mapped, used)| {
                mapped > 0 && used == 2 && !profile.unregister_orphans
            });
            ret = if last { Err(Errno::EBUSY) } else { memory.region_put(start, real, log) };
            if let (Ok(()), Some(at)) = (ret, listed) {
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
}
