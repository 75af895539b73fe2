// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A container: groups that share the same windows, and the memory registered for them.
//!
//! One lock guards the structure. Maps and unmaps share it; whatever changes groups, windows or
//! registrations takes it alone, so such a change never meets a half-done map. A thread that maps
//! and unmaps a lot has a [`Mapper`], which shares it without a locked instruction.

mod batch;
mod call;
mod commit;
mod deal;
mod debtor;
mod eeh;
mod entries;
mod fast;
mod groups;
mod isolate;
mod mapper;
mod mapping;
mod one;
mod publish;
mod windows;

pub use batch::{MapRequest, UnmapRequest};
pub use eeh::EehResults;
pub(crate) use entries::Place;
pub use groups::{Attached, Detached, SharedCaps};
pub use mapper::Mapper;
pub use mapping::{LIST_MAX, Mode, Receipt};
pub use windows::{Reach, Removal, WindowInfo};

use crate::addr::{GroupId, Uaddr};
use crate::backend::layout::Extent;
use crate::backend::{GroupCaps, MAX_WINDOWS, Memory};
use crate::engine::Shared;
use crate::error::{MapError, RegisterError, UnregisterError};
use crate::mem::{ArenaUse, TableChunk};
use crate::regions::{Region, Registrations};
use crate::sabotage::{Guard, stands};
use crate::sync::{Arc, AtomicU32, BrLock, Mutex, lock};
use debtor::Debtors;
use groups::Common;
use isolate::Side;
use windows::Window;

/// A member group.
struct Member {
    group: GroupId,
    caps: GroupCaps,
}

#[derive(Default)]
pub(crate) struct State {
    members: Vec<Member>,
    /// Their groups, in the same order.
    member_ids: Vec<GroupId>,
    /// What they have in common; `None` without a member.
    common: Option<Common>,
    windows: [Option<Window>; MAX_WINDOWS],
    registrations: Registrations,
    debtors: Debtors,
    /// Calls that have cleared entries, or may have, and whose kills are not complete; counted only
    /// where it matters for fills beside them.
    clearing: AtomicU32,
}

impl State {
    pub(crate) fn regions(&self) -> Vec<RegionInfo> {
        let info = self.registrations.iter().map(|(number, r)| RegionInfo {
            memory: r.region.memory,
            mapped: self.registrations.mapped(number),
            contiguous: r.region.layout.is_contiguous(),
        });
        info.collect()
    }
}

/// Groups that share windows, and the memory registered for them. Closed when dropped.
pub struct Container {
    engine: Arc<Shared>,
    id: u64,
    space: Side,
    /// Who changes the structure waits here for others who do, even where `state` is not held.
    structure: Mutex<()>,
    state: Arc<BrLock<State>>,
}

/// One registered region, as a report shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// The memory.
    pub memory: Memory,
    /// Live entries of this container that point into it; exact while nobody maps or unmaps. Those of
    /// all: [`Engine::regions`](crate::engine::Engine::regions).
    pub mapped: u64,
    /// True if it lies in one contiguous run of real memory.
    pub contiguous: bool,
}

impl Container {
    pub(crate) fn new(engine: Arc<Shared>, id: u64) -> Self {
        let space = Side::new(&engine);
        let state = Arc::new(BrLock::new(State::default()));
        engine.opened(id, state.clone());
        Self { engine, id, space, structure: Mutex::new(()), state }
    }

    /// Pins memory of the process for DMA and charges it, once however many containers register
    /// the same range. Both numbers are multiples of the host page.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing was pinned or charged.
    pub fn register(&self, start: Uaddr, bytes: u64) -> Result<(), RegisterError> {
        self.register_memory(Memory::User { start, bytes })
    }

    /// Registers memory of either kind; guest RAM serves windows whose entries hold the guest's own
    /// addresses ([`papr`](crate::papr)).
    ///
    /// # Errors
    /// [`RegisterError`]; nothing was pinned or charged.
    pub fn register_memory(&self, memory: Memory) -> Result<(), RegisterError> {
        self.engine.same_process()?;
        let (start, bytes) = (Uaddr(memory.start()), memory.bytes());
        let host_page = self.engine.caps.host_page;
        if bytes == 0 {
            return Err(RegisterError::Empty(start));
        }
        if (start.0 | bytes) & (host_page.bytes() - 1) != 0 {
            return Err(RegisterError::Unaligned { start, bytes, host_page });
        }
        if start.checked_add(bytes).is_none() {
            return Err(RegisterError::Wraps { start, bytes });
        }
        let _structure = lock(&self.structure);
        let mut state = self.alone();
        if state.members.is_empty() {
            return Err(RegisterError::NoGroup);
        }
        if state.registrations.find(memory).is_some() {
            return Err(RegisterError::Busy { start, bytes });
        }
        let engine = &self.engine;
        let region =
            engine.registry.acquire(&*engine.backend, &engine.caps, &engine.ledger, memory)?;
        if let Err(e) = self.space.register(memory) {
            engine.registry.release(&*engine.backend, region, false);
            return Err(e.into());
        }
        state.registrations.insert(region);
        Ok(())
    }

    /// Gives a region back: exactly what was registered, and only while no entry of this container
    /// points into it.
    ///
    /// # Errors
    /// [`UnregisterError`]; the region stays, but for [`UnregisterError::Kept`].
    pub fn unregister(&self, start: Uaddr, bytes: u64) -> Result<(), UnregisterError> {
        self.unregister_memory(Memory::User { start, bytes })
    }

    /// [`Container::unregister`] for memory of either kind.
    ///
    /// # Errors
    /// [`UnregisterError`]; the region stays, but for [`UnregisterError::Kept`].
    pub fn unregister_memory(&self, memory: Memory) -> Result<(), UnregisterError> {
        self.engine.same_process()?;
        let start = Uaddr(memory.start());
        let _structure = lock(&self.structure);
        let mut state = self.alone();
        let Some(number) = state.registrations.find(memory) else {
            return Err(UnregisterError::NotFound { start, bytes: memory.bytes() });
        };
        let mapped = state.registrations.mapped(number);
        if mapped > 0 {
            if !stands(Guard::Mapped) {
                // The request that the guard holds back, and nothing else.
                let _ = self.space.unregister(memory, false);
                return Ok(());
            }
            return Err(UnregisterError::Mapped { start, mapped });
        }
        if let Some(window) = state.windows.iter().flatten().find(|w| w.left_to_kvm) {
            return Err(UnregisterError::LeftToKvm { start, window: window.start });
        }
        let doubtful = state.registrations.get(number).region.doubtful();
        let kept = self.space.unregister(memory, doubtful)?;
        let region = state.registrations.remove(number);
        if self.engine.registry.release(&*self.engine.backend, region, kept) {
            return Err(UnregisterError::Kept { start, bytes: memory.bytes() });
        }
        Ok(())
    }

    /// What a platform refuses to take back goes when its container is closed, which comes next.
    fn give_back(&self, region: Arc<Region>) {
        let kept = self.space.unregister(region.memory, region.doubtful()).unwrap_or(false);
        self.engine.registry.release(&*self.engine.backend, region, kept);
    }

    /// The extents of contiguous real memory behind a range of registered process memory, in
    /// order.
    ///
    /// # Errors
    /// [`MapError::NotRegistered`] with the first address that is not.
    pub fn resolve(&self, start: Uaddr, bytes: u64) -> Result<Vec<Extent>, MapError> {
        let state = self.state.read();
        let end = start.checked_add(bytes).ok_or(MapError::NotRegistered { at: start })?;
        let mut extents = Vec::new();
        let mut at = start;
        while at < end {
            let (_, registration, offset) = state.registrations.user(at)?;
            let mut extent = registration.region.layout.extent_at(offset);
            extent.bytes = extent.bytes.min(end.0 - at.0);
            at = Uaddr(at.0 + extent.bytes);
            extents.push(extent);
        }
        Ok(extents)
    }

    /// What is registered here.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionInfo> {
        self.state.read().regions()
    }

    /// The member groups, in order of joining; nothing depends on that order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.state.read().members.iter().map(|m| m.group).collect()
    }

    /// The windows.
    #[must_use]
    pub fn windows(&self) -> Vec<WindowInfo> {
        self.state.read().windows.iter().flatten().map(Window::info).collect()
    }

    /// Live entries of all windows.
    #[cfg(loom)]
    pub(crate) fn live(&self) -> u64 {
        self.state.read().windows.iter().flatten().map(|w| w.table.live()).sum()
    }

    /// Blocks and memory of the tables of all windows.
    #[must_use]
    pub fn table_use(&self) -> Vec<ArenaUse> {
        self.state.read().windows.iter().flatten().map(|w| w.table.usage()).collect()
    }

    /// The memory that the tables stand on: what a device's PHB reads. Whoever writes to it has
    /// become the faulty hardware.
    #[must_use]
    pub fn table_memory(&self) -> Vec<Arc<TableChunk>> {
        let state = self.state.read();
        state.windows.iter().flatten().flat_map(|w| w.table.chunks().cloned()).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.close();
        self.engine.closed(self.id);
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, groups, windows) = (self.id, self.groups(), self.windows());
        write!(f, "Container {id}: groups {groups:?}, windows {windows:?}")
    }
}
