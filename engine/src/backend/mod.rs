// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the engine needs of the machine below it.
//!
//! A back end pins memory and says where it lies, programs the windows of PEs, and kills cached
//! translations. The engine holds it as `Arc<dyn Backend>`: one indirect call a batch.

mod kills;
pub mod layout;
#[cfg(not(loom))]
pub mod linux;
pub mod mock;
pub(crate) mod per_member;
mod register;
#[cfg(test)]
pub(crate) mod testing;

use std::borrow::Borrow;
use std::fmt;

use crate::addr::{Gra, GroupId, Hpa, Ioba, PageShift, PageSizes, PeNumber, Uaddr};
use crate::eeh::{EehOp, EehState};
use crate::error::BackendError;
use crate::geometry::Geometry;
use crate::mem::TableMemory;
use crate::sabotage::{Guard, stands};
use crate::sync::Arc;
use crate::tce::Perm;
pub use kills::{FillRule, KillCaps, KillScope};
use layout::RealLayout;
pub use register::{PageRegister, Word};

/// Windows that a PE can have, and hence a container.
pub const MAX_WINDOWS: usize = 2;

/// What the platform is like, for all of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// The host page size: the unit of registration and of charges.
    pub host_page: PageShift,
    /// Largest contiguous block that a table level can get, in bytes.
    pub max_block: u64,
    /// Who owns the tables.
    pub tables: Tables,
    /// Bytes that the process may still lock, if the platform enforces a limit.
    pub memlock: Option<u64>,
}

/// Who owns the tables that PHBs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// The engine: it is the hypervisor, programs PEs and kills translations in this way.
    Engine(KillCaps),
    /// A kernel, which writes entries and kills translations when its container is asked to. The
    /// engine's own table is a mirror that holds user addresses.
    Kernel(KernelCaps),
}

impl Tables {
    /// How the engine kills; `None` if a kernel does.
    #[must_use]
    pub fn kill(self) -> Option<KillCaps> {
        match self {
            Self::Engine(kill) => Some(kill),
            Self::Kernel(_) => None,
        }
    }

    /// What it takes to have a PE forget everything; a kernel does so by itself.
    #[must_use]
    pub fn kill_of_pe(self) -> KillScope {
        self.kill().map_or(KillScope::Pe, KillCaps::whole)
    }

    /// What the kernel that owns the tables is like.
    #[must_use]
    pub fn kernel(self) -> Option<KernelCaps> {
        match self {
            Self::Engine(_) => None,
            Self::Kernel(kernel) => Some(kernel),
        }
    }
}

/// What containers of a kernel do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelCaps {
    /// True if a group that leaves may empty the windows of those that stay.
    pub detach_clears: bool,
    /// Bytes charged before anything can be mapped (version 1 containers). Their regions cost
    /// nothing, and their one window cannot be removed. 0: regions are charged one by one.
    pub paid_ahead: u64,
}

/// What one group can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupCaps {
    /// The group's PE.
    pub pe: PeNumber,
    /// IOMMU page sizes.
    pub page_sizes: PageSizes,
    /// Most levels of a table.
    pub max_levels: u32,
    /// Where the windows of each slot begin; `None` where the PE lacks the slot.
    pub window_starts: [Option<Ioba>; MAX_WINDOWS],
    /// Size of the window that the group comes with in slot 0, in bytes: what the bus leaves to it
    /// below the devices' own addresses.
    pub default_bytes: u64,
    /// True if its windows may use a table that other PEs use.
    pub can_share_tables: bool,
    /// The NUMA node of its host bridge; `None` if it is not known, or there are no nodes.
    pub node: Option<u32>,
}

/// Memory to be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    /// A range of the process. Its entries hold real addresses that the back end chooses.
    User {
        /// Start.
        start: Uaddr,
        /// Length in bytes.
        bytes: u64,
    },
    /// A guest's RAM, named by the guest's own real addresses, for windows whose entries hold
    /// these as the guest gave them. Needs no memory behind it.
    Guest {
        /// Start.
        start: Gra,
        /// Length in bytes.
        bytes: u64,
    },
}

impl Memory {
    /// The start address as a number, whatever space it is in.
    #[must_use]
    pub fn start(&self) -> u64 {
        match self {
            Self::User { start, .. } => start.0,
            Self::Guest { start, .. } => start.0,
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::User { bytes, .. } | Self::Guest { bytes, .. } => *bytes,
        }
    }
}

/// A table as a PE's window is programmed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowProgram {
    /// Real address of the top level.
    pub root: Hpa,
    /// Number of levels.
    pub levels: u32,
    /// Bytes of one level.
    pub block_bytes: u64,
    /// IOMMU page size.
    pub page: PageShift,
}

impl WindowProgram {
    /// Bytes of bus space that it serves.
    #[must_use]
    pub const fn covers(&self) -> u64 {
        (self.block_bytes / 8).saturating_pow(self.levels).saturating_mul(self.page.bytes())
    }
}

/// A machine with PEs, or something that behaves like one.
pub trait Backend: TableMemory + fmt::Debug {
    /// What the platform is like.
    fn caps(&self) -> Caps;

    /// What a group can do.
    ///
    /// # Errors
    /// [`BackendError::NoGroup`].
    fn group(&self, group: GroupId) -> Result<GroupCaps, BackendError>;

    /// Takes the group from the host's own use: its bypass goes off, no window is set.
    ///
    /// # Errors
    /// If the group is in use, or firmware refuses.
    fn take_ownership(&self, group: GroupId) -> Result<(), BackendError>;

    /// Gives the group back to the host. All its windows were unset before.
    fn release_ownership(&self, group: GroupId);

    /// Programs a window slot of the group's PE.
    ///
    /// # Errors
    /// [`BackendError::Firmware`]; the slot is as before.
    fn set_window(
        &self,
        group: GroupId,
        slot: usize,
        window: &WindowProgram,
    ) -> Result<(), BackendError>;

    /// Disables a window slot.
    fn unset_window(&self, group: GroupId, slot: usize);

    /// The side of a new container that is not the engine's.
    fn space(&self) -> Box<dyn Space> {
        Box::new(EngineOwned)
    }

    /// Stores to the kill register of the PE's PHB; returns the number of stores. All table writes
    /// before it in program order are visible to the PHB first.
    fn kill(&self, group: GroupId, scope: KillScope) -> u64;

    /// Returns when all kills before it are complete: no access that used a killed translation is
    /// in flight.
    fn fence(&self);

    /// One thread's way to the kill registers of `members`' PHBs, if that is faster than
    /// [`Backend::kill`] and [`Backend::fence`].
    fn kill_port(self: Arc<Self>, members: &[GroupId]) -> Option<Box<dyn KillPort>> {
        let _ = members;
        None
    }

    /// Does something to the group's PE, and to no other. Not called where a kernel owns the tables.
    ///
    /// # Errors
    /// [`BackendError::Eeh`]; the PE is as before.
    fn eeh(&self, group: GroupId, op: EehOp) -> Result<(), BackendError> {
        Err(no_eeh(group, op.name()))
    }

    /// The state of the group's PE. Not called where a kernel owns the tables.
    ///
    /// # Errors
    /// If it cannot be told.
    fn eeh_state(&self, group: GroupId) -> Result<EehState, BackendError> {
        Err(no_eeh(group, "ask for the state"))
    }

    /// Pins memory and says where it lies.
    ///
    /// # Errors
    /// [`BackendError::Pin`].
    fn pin(&self, memory: Memory) -> Result<RealLayout, BackendError>;

    /// Gives back what [`Backend::pin`] returned.
    fn unpin(&self, memory: Memory, layout: &RealLayout);
}

fn no_eeh(group: GroupId, request: &'static str) -> BackendError {
    BackendError::Eeh { group, request, reason: "this platform has no EEH".to_owned() }
}

/// A way to the kill registers of some groups' PHBs.
pub trait KillPort: Send {
    /// Stores to the kill register of each member's PHB; returns the number of stores. All table
    /// writes before it in program order are visible to the PHBs first.
    fn kill(&mut self, scope: KillScope) -> u64;

    /// Returns when all kills of this port are complete: no access that used a killed translation is
    /// in flight.
    fn fence(&mut self);

    /// The register that kills a page, if there is one member and a store is all that it takes. It
    /// may be used beside the port, by the same thread, as long as the port is there.
    fn page_register(&self) -> Option<PageRegister> {
        None
    }

    /// Both for one page, in one call.
    fn kill_page_and_wait(&mut self, start: Ioba, page: PageShift) -> u64 {
        let stores = self.kill(KillScope::Pages { start, count: 1, page });
        self.fence();
        stores
    }
}

/// The members whose PEs a port kills: all of them.
#[inline(always)]
fn told<T>(members: &[T]) -> &[T] {
    if !stands(Guard::Kill) {
        return &[];
    }
    if stands(Guard::Members) { members } else { &members[..members.len().min(1)] }
}

/// The way that everybody shares.
pub(crate) struct SharedPort<B, M> {
    /// The platform.
    pub(crate) backend: B,
    /// The groups.
    pub(crate) members: M,
}

impl<B, M> KillPort for SharedPort<B, M>
where
    B: Borrow<dyn Backend> + Send,
    M: Borrow<[GroupId]> + Send,
{
    fn kill(&mut self, scope: KillScope) -> u64 {
        let backend = self.backend.borrow();
        told(self.members.borrow()).iter().map(|member| backend.kill(*member, scope)).sum()
    }

    fn fence(&mut self) {
        if stands(Guard::Fence) {
            self.backend.borrow().fence();
        }
    }
}

/// What a container of the platform does for one of the engine: everything that a kernel keeps to
/// itself. Each method is called with the container's state held alone, but for `map` and `unmap`,
/// which are called with their range locked.
pub trait Space: Send + Sync + fmt::Debug {
    /// Makes a group a member, with all windows that exist.
    ///
    /// # Errors
    /// If it cannot be; the group is as before.
    fn attach(&self, group: GroupId) -> Result<(), CreateError>;

    /// Takes a group out; the last one ends all that is left.
    fn detach(&self, group: GroupId);

    /// Creates the window of a slot that begins at `start`, for all members.
    ///
    /// # Errors
    /// If it cannot be; no member has it.
    fn create_window(
        &self,
        slot: usize,
        start: Ioba,
        geometry: &Geometry,
    ) -> Result<(), CreateError>;

    /// What the process is going to be charged with for a window.
    fn cost(&self, geometry: &Geometry) -> WindowCost {
        WindowCost { table: geometry.charge(), ahead: 0 }
    }

    /// Removes a window from all members.
    ///
    /// # Errors
    /// If the platform refuses; the window stays.
    fn remove_window(&self, slot: usize, start: Ioba) -> Result<(), BackendError>;

    /// Removes a window that was just created and is not to be, as somebody else could not have it.
    /// Nothing is charged for it any more; a platform that refuses is beyond help.
    fn take_back_window(&self, slot: usize, start: Ioba) {
        let _ = self.remove_window(slot, start);
    }

    /// Makes pinned memory known to the container.
    ///
    /// # Errors
    /// If the platform refuses; it stays unknown.
    fn register(&self, memory: Memory) -> Result<(), BackendError>;

    /// What error handling says of the one member's PE, as a number of the uapi.
    ///
    /// # Errors
    /// If it cannot be asked.
    fn eeh_state(&self) -> Result<i32, BackendError>;

    /// Does something to the one member's PE.
    ///
    /// # Errors
    /// If the platform refuses.
    fn eeh(&self, op: EehOp) -> Result<(), BackendError>;

    /// Takes it back. Nothing of the container is mapped there any more. With `watch`, says whether
    /// the process is still charged for it afterwards, although nobody else of it has it registered.
    ///
    /// # Errors
    /// If the platform refuses; it stays known.
    fn unregister(&self, memory: Memory, watch: bool) -> Result<bool, BackendError>;

    /// Maps a range of one region, replacing what is there. Returns the number of requests that it
    /// took.
    ///
    /// # Errors
    /// If the platform refuses; entries of the range may have been lost.
    fn map(&self, range: BusRange, memory: Uaddr, perm: Perm) -> Result<u64, BackendError>;

    /// Clears a range. Returns the number of requests that it took.
    ///
    /// # Errors
    /// If the platform refuses; entries of the range may be gone.
    fn unmap(&self, range: BusRange) -> Result<u64, BackendError>;
}

/// What a window costs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowCost {
    /// For its table, and for what belongs to it.
    pub table: u64,
    /// Paid ahead for all that may be mapped in it.
    pub ahead: u64,
}

/// Why a window could not be created, or a group not furnished with windows, and what that cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateError {
    /// What the platform said.
    pub error: BackendError,
    /// Bytes that the process stays charged with until it ends.
    pub leaked: u64,
}

impl From<BackendError> for CreateError {
    fn from(error: BackendError) -> Self {
        Self { error, leaked: 0 }
    }
}

/// A range of pages of one window, inside what its table covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusRange {
    /// Window slot.
    pub slot: usize,
    /// Where the window begins.
    pub window: Ioba,
    /// First page.
    pub at: Ioba,
    /// Length in bytes, not 0.
    pub bytes: u64,
}

/// Where the engine owns everything, a container of the platform has nothing to do.
#[derive(Debug)]
struct EngineOwned;

impl Space for EngineOwned {
    fn attach(&self, _: GroupId) -> Result<(), CreateError> {
        Ok(())
    }

    fn detach(&self, _: GroupId) {}

    fn create_window(&self, _: usize, _: Ioba, _: &Geometry) -> Result<(), CreateError> {
        Ok(())
    }

    fn remove_window(&self, _: usize, _: Ioba) -> Result<(), BackendError> {
        Ok(())
    }

    fn register(&self, _: Memory) -> Result<(), BackendError> {
        Ok(())
    }

    fn eeh_state(&self) -> Result<i32, BackendError> {
        Err(not_a_kernels("asking for the error state".to_owned()))
    }

    fn eeh(&self, op: EehOp) -> Result<(), BackendError> {
        Err(not_a_kernels(op.to_string()))
    }

    fn unregister(&self, _: Memory, _: bool) -> Result<bool, BackendError> {
        Ok(false)
    }

    fn map(&self, _: BusRange, _: Uaddr, _: Perm) -> Result<u64, BackendError> {
        Ok(0)
    }

    fn unmap(&self, _: BusRange) -> Result<u64, BackendError> {
        Ok(0)
    }
}

/// Error handling where the engine owns everything: the back end is to be asked.
fn not_a_kernels(request: String) -> BackendError {
    BackendError::Guarded { request, reason: "no kernel is there to be asked" }
}
