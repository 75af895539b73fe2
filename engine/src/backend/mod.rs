// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the engine needs of the machine below it.
//!
//! A back end pins memory and says where it lies, programs the windows of PEs, and kills cached
//! translations. The engine holds it as `Arc<dyn Backend>`: one indirect call a batch.

pub mod layout;
#[cfg(not(loom))]
pub mod linux;
pub mod mock;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

use crate::addr::{Gra, GroupId, Hpa, Ioba, PageShift, PageSizes, PeNumber, Uaddr};
use crate::error::BackendError;
use crate::mem::TableMemory;
use layout::RealLayout;

/// Windows that a PE can have, and hence a container.
pub const MAX_WINDOWS: usize = 2;

/// What the platform is like, for all of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// The host page size: the unit of registration and of charges.
    pub host_page: PageShift,
    /// Largest contiguous block that a table level can get, in bytes.
    pub max_block: u64,
    /// How translations are killed.
    pub kill: KillCaps,
}

/// What kills the platform's PHBs know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillCaps {
    /// More pages than this are killed by one PE-wide kill instead.
    pub max_page_kills: u64,
    /// True if a filled entry has to be killed too. It is safe only where the PHB never caches an
    /// empty entry to leave this out, and no platform promises that.
    pub on_fill: bool,
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
    /// True if its windows may use a table that other PEs use.
    pub can_share_tables: bool,
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

/// What one kill covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillScope {
    /// `count` pages from `start`, each by a register store of its own.
    Pages {
        /// First page.
        start: Ioba,
        /// Number of pages.
        count: u64,
        /// Their size.
        page: PageShift,
    },
    /// Everything of the PE.
    Pe,
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

    /// Stores to the kill register of the PE's PHB; returns the number of stores. All table writes
    /// before it in program order are visible to the PHB first.
    fn kill(&self, group: GroupId, scope: KillScope) -> u64;

    /// Returns when all kills before it are complete: no access that used a killed translation is
    /// in flight.
    fn fence(&self);

    /// Pins memory and says where it lies.
    ///
    /// # Errors
    /// [`BackendError::Pin`].
    fn pin(&self, memory: Memory) -> Result<RealLayout, BackendError>;

    /// Gives back what [`Backend::pin`] returned.
    fn unpin(&self, memory: Memory, layout: &RealLayout);
}
