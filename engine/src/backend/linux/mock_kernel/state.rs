// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything there is, behind one lock, and the kernel's generic part: groups and containers.

use std::collections::BTreeMap;

use super::log::{Event, Injection, Log};
use super::memory::{Memory, RealMemory};
use super::phb::{self, DmaFault, Reached};
use super::spapr::Spapr;
use super::table::Arena;
use super::{ContainerId, GroupAttrs, GroupState, Platform, ProcessId, Profile};
use crate::addr::{GroupId, Ioba};
use crate::backend::linux::raw::{Errno, Raw};
use crate::backend::linux::uapi::{GroupStatus, kind};
use crate::tce::Perm;

/// Windows of a group.
pub(super) const SLOTS: usize = 2;
/// Where window 1 begins.
pub(super) const SECOND_START: u64 = 1 << 59;

/// An IOMMU group, which is a PE.
pub(super) struct Group {
    pub(super) attrs: GroupAttrs,
    pub(super) state: GroupState,
    /// Through which container's file its node was opened.
    node: Option<ContainerId>,
    /// It is in that container.
    member: bool,
    device_open: bool,
    /// The node was closed while a device was open.
    closing: bool,
    /// What the hardware has; 0 is disabled.
    pub(super) tve: [u64; SLOTS],
}

pub(super) struct Container {
    open: bool,
    /// Who used it last; what is closed is closed by them.
    user: ProcessId,
    pub(super) lost: bool,
    /// In the order in which they joined.
    members: Vec<GroupId>,
    pub(super) spapr: Option<Box<Spapr>>,
}

/// The machine.
pub(super) struct State {
    pub(super) profile: Profile,
    pub(super) platform: Platform,
    /// Whose request it is.
    pub(super) caller: ProcessId,
    /// Bytes of memory that can be pinned.
    pub(super) memory_bytes: u64,
    pub(super) host_shift: u32,
    pub(super) max_block: u64,
    pub(super) eeh: bool,
    pub(super) groups: Vec<Group>,
    pub(super) processes: Vec<Memory>,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    next_container: u64,
    pub(super) tables: Arena,
    pub(super) real: RealMemory,
    pub(super) log: Log,
}

impl State {
    pub(super) fn new(
        (profile, platform): (Profile, Platform),
        host_shift: u32,
        max_block: u64,
        memory: u64,
        eeh: bool,
        groups: Vec<GroupAttrs>,
    ) -> Self {
        let group = |attrs| Group {
            attrs,
            state: GroupState::Normal,
            node: None,
            member: false,
            device_open: false,
            closing: false,
            tve: [0; SLOTS],
        };
        Self {
            profile,
            platform,
            caller: ProcessId(0),
            memory_bytes: memory,
            host_shift,
            max_block,
            eeh,
            groups: groups.into_iter().map(group).collect(),
            processes: Vec::new(),
            containers: BTreeMap::new(),
            next_container: 0,
            tables: Arena::default(),
            real: RealMemory::new(memory),
            log: Log::default(),
        }
    }

    pub(super) fn new_process(&mut self) -> ProcessId {
        let id = ProcessId(self.processes.len() as u32);
        self.processes.push(Memory::new(id, self.host_shift));
        id
    }

    pub(super) fn memory(&mut self, process: ProcessId) -> &mut Memory {
        &mut self.processes[process.0 as usize]
    }

    pub(super) fn open(&mut self) -> Result<ContainerId, Errno> {
        if self.log.hung {
            return Err(Errno::EIO);
        }
        let id = ContainerId(self.next_container);
        self.next_container += 1;
        let (user, members) = (self.caller, Vec::new());
        let new = Container { open: true, user, lost: false, members, spapr: None };
        self.containers.insert(id, new);
        Ok(id)
    }

    /// A process sends a request to a container, or lets go of it.
    pub(super) fn used_by(&mut self, id: ContainerId, process: ProcessId) {
        self.caller = process;
        if let Some(container) = self.containers.get_mut(&id) {
            container.user = process;
        }
    }

    /// The process whose memory and books a container's request is about.
    pub(super) fn payer(&self, spapr: &Spapr) -> Option<ProcessId> {
        if self.profile.owner_only { spapr.owner } else { Some(self.caller) }
    }

    /// Gives pages back that `from` was charged with. Without owners it is the caller that gets
    /// them, who may be another.
    pub(super) fn give_back(&mut self, spapr: &Spapr, from: ProcessId, pages: u64) {
        let to = self.payer(spapr).unwrap_or(from);
        if to != from {
            self.memory(from).leaked += pages;
            self.memory(to).overpay(pages);
        } else {
            self.memory(to).uncharge(pages);
        }
    }

    /// Closes the container's file: the groups' nodes first.
    pub(super) fn close(&mut self, id: ContainerId) {
        self.caller = self.containers.get(&id).map_or(self.caller, |c| c.user);
        for group in self.opened_for(id) {
            let _ = self.close_group(id, group);
        }
        if let Some(container) = self.containers.get_mut(&id) {
            container.open = false;
        }
        self.reap(id);
    }

    /// A container ends when its file is closed and its last group is gone.
    fn reap(&mut self, id: ContainerId) {
        if self.containers.get(&id).is_some_and(|c| !c.open && c.members.is_empty()) {
            self.containers.remove(&id);
        }
    }

    /// The groups whose nodes were opened for a container.
    fn opened_for(&self, id: ContainerId) -> Vec<GroupId> {
        let mine = |(i, g): (usize, &Group)| (g.node == Some(id)).then_some(GroupId(i as u32));
        self.groups.iter().enumerate().filter_map(mine).collect()
    }

    pub(super) fn group(&mut self, group: GroupId) -> &mut Group {
        &mut self.groups[group.0 as usize]
    }

    /// The group, if its node was opened for this container.
    fn node(&mut self, id: ContainerId, group: GroupId) -> Result<&mut Group, Errno> {
        let open = self.groups.get_mut(group.0 as usize).filter(|g| g.node == Some(id));
        open.filter(|g| !g.closing).ok_or(Errno::EINVAL)
    }

    pub(super) fn open_group(&mut self, id: ContainerId, group: GroupId) -> Raw {
        let found = self.groups.get_mut(group.0 as usize).ok_or(Errno::ENOENT)?;
        if found.node.is_some() {
            return Err(Errno::EBUSY);
        }
        found.node = Some(id);
        Ok(0)
    }

    pub(super) fn close_group(&mut self, id: ContainerId, group: GroupId) -> Raw {
        let node = self.node(id, group)?;
        if node.device_open {
            node.closing = true; // the open device keeps the node
            return Ok(0);
        }
        self.node_closed(id, group);
        Ok(0)
    }

    fn node_closed(&mut self, id: ContainerId, group: GroupId) {
        self.leave(id, group);
        let node = self.group(group);
        (node.node, node.closing) = (None, false);
        self.reap(id);
    }

    pub(super) fn set_device_open(&mut self, group: GroupId, open: bool) {
        let Some(found) = self.groups.get_mut(group.0 as usize) else { return };
        found.device_open = open;
        if let (false, true, Some(id)) = (open, found.closing, found.node) {
            self.caller = self.containers.get(&id).map_or(self.caller, |c| c.user);
            self.node_closed(id, group);
        }
    }

    pub(super) fn group_status(&mut self, id: ContainerId, group: GroupId) -> Result<u32, Errno> {
        let node = self.node(id, group)?;
        Ok(match (node.member, node.attrs.viable) {
            (true, _) => GroupStatus::CONTAINER_SET | GroupStatus::VIABLE,
            (false, true) => GroupStatus::VIABLE,
            (false, false) => 0,
        })
    }

    pub(super) fn set_container(&mut self, id: ContainerId, group: GroupId) -> Raw {
        let node = self.node(id, group)?;
        if node.member {
            return Err(Errno::EINVAL);
        }
        if !node.attrs.viable {
            return Err(Errno::EPERM); // somebody else owns its DMA
        }
        if self.containers.get(&id).is_some_and(|c| c.spapr.is_some()) {
            let joined = self.with_spapr(id, |state, spapr| state.attach(spapr, group));
            if joined != Ok(0) {
                return joined;
            }
        }
        self.group(group).member = true;
        if let Some(container) = self.containers.get_mut(&id) {
            container.members.push(group);
        }
        Ok(0)
    }

    pub(super) fn unset_container(&mut self, id: ContainerId, group: GroupId) -> Raw {
        let node = self.node(id, group)?;
        if !node.member {
            return Err(Errno::EINVAL);
        }
        if node.device_open {
            return Err(Errno::EBUSY);
        }
        self.leave(id, group);
        Ok(0)
    }

    /// Takes a group out of its container; what the last one leaves behind is released.
    fn leave(&mut self, id: ContainerId, group: GroupId) {
        if !std::mem::take(&mut self.group(group).member) {
            return;
        }
        let Some(container) = self.containers.get_mut(&id) else { return };
        container.members.retain(|member| *member != group);
        let last = container.members.is_empty();
        if let Some(mut spapr) = container.spapr.take() {
            self.detach(&mut spapr, group);
            if last {
                self.release(*spapr);
            } else if let Some(container) = self.containers.get_mut(&id) {
                container.spapr = Some(spapr);
            }
        }
    }

    pub(super) fn set_iommu(&mut self, id: ContainerId, wanted: u32) -> Raw {
        let container = self.containers.get(&id).ok_or(Errno::ENODEV)?;
        if container.members.is_empty() || container.spapr.is_some() {
            return Err(Errno::EINVAL);
        }
        let members = container.members.clone();
        let v2 = match wanted {
            kind::SPAPR_TCE => false,
            kind::SPAPR_TCE_V2 => true,
            // An extension of the driver that is no container type.
            kind::EEH if self.eeh => return Err(Errno::EINVAL),
            _ => return Err(Errno::ENODEV),
        };
        let mut spapr = Box::new(Spapr::new(id, v2));
        for group in members {
            let joined = self.attach(&mut spapr, group);
            if joined != Ok(0) {
                self.release(*spapr);
                return joined;
            }
        }
        if let Some(container) = self.containers.get_mut(&id) {
            container.spapr = Some(spapr);
        }
        Ok(0)
    }

    /// Runs a request on a container's back end; EINVAL if it has none.
    pub(super) fn with_spapr(
        &mut self,
        id: ContainerId,
        request: impl FnOnce(&mut Self, &mut Spapr) -> Raw,
    ) -> Raw {
        let taken = self.containers.get_mut(&id).and_then(|c| c.spapr.take());
        let mut spapr = taken.ok_or(Errno::EINVAL)?;
        let ret = request(self, &mut spapr);
        if let Some(container) = self.containers.get_mut(&id) {
            container.spapr = Some(spapr);
        }
        ret
    }

    /// Programs a group's window; not 0 or an error: the firmware's code.
    pub(super) fn set_window(
        &mut self,
        group: GroupId,
        slot: usize,
        table: &super::table::Table,
    ) -> Raw {
        let injected = self.log.fire(|x| match x {
            Injection::SetWindow { group: g, slot: s, code } if (*g, *s) == (group, slot) => {
                Some(*code)
            }
            _ => None,
        });
        let shape = table.shape;
        if table.of.is_some_and(|of| of != group) {
            return Err(Errno::EPERM); // it is another PE's
        }
        let found = self.group(group);
        let attrs = &found.attrs;
        let fits = attrs.page_sizes.0 & 1 << shape.page_shift != 0
            && slot < attrs.max_windows.max(1) as usize
            && shape.levels <= attrs.max_levels;
        match injected.unwrap_or(if fits { 0 } else { -1 }) {
            0 => {}
            code if code < 0 => return Err(Errno(code.saturating_neg())),
            code => return Ok(code),
        }
        let block_shift = shape.bits + 3;
        found.tve[slot] = phb::tve(table.hardware, shape.levels, block_shift, shape.page_shift);
        self.log.event(Event::Set { group, slot });
        self.kill_all(group);
        Ok(0)
    }

    /// Disables a group's window, whether it was set or not.
    pub(super) fn unset_window(&mut self, group: GroupId, slot: usize) {
        self.group(group).tve[slot] = 0;
        self.log.event(Event::Unset { group, slot });
        self.kill_all(group);
    }

    fn kill_all(&mut self, group: GroupId) {
        self.log.counters.group_kills += 1;
        self.log.event(Event::KillAll { group });
    }

    /// What the group's device reaches.
    pub(super) fn translate(
        &self,
        group: GroupId,
        at: Ioba,
        need: Perm,
    ) -> Result<Reached, DmaFault> {
        let group = self.groups.get(group.0 as usize).ok_or(DmaFault::NoGroup)?;
        if group.state != GroupState::Normal {
            return Err(DmaFault::Stopped);
        }
        let slot = usize::from(at.0 & SECOND_START != 0);
        let mut offset = at.0 & !SECOND_START;
        if at.0 >> 60 != 0 {
            return Err(DmaFault::BadAddress(at));
        }
        if slot == 0 {
            let below = DmaFault::BadAddress(at);
            offset = offset.checked_sub(group.attrs.dma32_start.into()).ok_or(below)?;
        }
        match group.tve[slot] {
            0 => Err(DmaFault::NoWindow(slot)),
            tve => {
                let (real, perm) = phb::walk(&self.tables, tve, offset)?;
                if !perm.allows(need) {
                    return Err(DmaFault::Denied(perm));
                }
                let (process, at) = self.real.owner(real).ok_or(DmaFault::NotPinned(real))?;
                Ok(Reached { process, at, perm })
            }
        }
    }
}
