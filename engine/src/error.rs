// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One enum per operation. Every variant carries the value that was wrong and the limit it broke;
//! when one is returned, nothing was changed.

mod ioba;
mod mapping;

use thiserror::Error;

pub use ioba::IobaError;
pub use mapping::{EntryError, LostError, MapError, NoRealMemory, UnmapError};

use crate::addr::{DmaMask, GroupId, Ioba, PageShift, PageSizes, Uaddr};
use crate::eeh::EehOp;
use crate::geometry::{MAX_ADDRESS_BITS, MAX_LEVELS};

/// A window that no table can serve.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// The size is 0 or not a power of two.
    #[error("window size {size:#x} is not a power of two")]
    NotPowerOfTwo {
        /// What was asked for, in bytes.
        size: u64,
    },
    /// The window has less than one page.
    #[error("window size {size:#x} is smaller than one page of {page}")]
    SmallerThanPage {
        /// What was asked for, in bytes.
        size: u64,
        /// The IOMMU page size.
        page: PageShift,
    },
    /// The level count is 0 or beyond what a TVE can name.
    #[error("{levels} levels asked for; a table has 1 to {MAX_LEVELS}")]
    Levels {
        /// What was asked for.
        levels: u32,
    },
    /// The levels together decode too many address bits.
    #[error(
        "{levels} levels with {page} pages on a host with {host_page} pages decode {bits} address \
         bits; fewer than {MAX_ADDRESS_BITS} are possible, use fewer levels or a smaller window"
    )]
    TooManyBits {
        /// What was asked for.
        levels: u32,
        /// Bits that this would decode.
        bits: u32,
        /// The IOMMU page size.
        page: PageShift,
        /// The host page size.
        host_page: PageShift,
    },
    /// One level needs a larger contiguous block than the platform provides.
    #[error(
        "a table of {levels} level(s) needs contiguous blocks of {block} bytes; this platform \
         provides up to {limit}, use more levels"
    )]
    BlockTooLarge {
        /// What was asked for.
        levels: u32,
        /// Bytes of a block.
        block: u64,
        /// Largest block of the platform.
        limit: u64,
    },
}

/// The back end refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// There is no such group.
    #[error("there is no IOMMU group {0}")]
    NoGroup(GroupId),
    /// The group belongs to somebody else.
    #[error("IOMMU group {0} is in use")]
    GroupBusy(GroupId),
    /// Firmware refused a window.
    #[error("group {group}: firmware code {code} when setting window {slot}")]
    Firmware {
        /// The group whose PE was to be programmed.
        group: GroupId,
        /// Window slot, 0 or 1.
        slot: usize,
        /// The firmware's own code; not an errno.
        code: i64,
    },
    /// No memory for a table.
    #[error("no memory for {bytes} bytes of table: {reason}")]
    NoTableMemory {
        /// What was asked for.
        bytes: u64,
        /// What the system said.
        reason: String,
    },
    /// A kernel refused a request, or answered what is no success.
    #[error("{request}: the kernel answered {answer}")]
    Kernel {
        /// The request with its arguments.
        request: String,
        /// What came back, with its meaning.
        answer: String,
        /// The error number, if it was one.
        errno: Option<i32>,
    },
    /// The container belongs to another process.
    #[error("the container belongs to another process: only the one that first used it may")]
    WrongProcess,
    /// Devices of the group are in use by other drivers.
    #[error("IOMMU group {0} is not viable: bind all of its devices to vfio-pci, or to no driver")]
    NotViable(GroupId),
    /// The request can do damage, or cannot succeed, and was not sent.
    #[error("{request} was not sent: {reason}")]
    Guarded {
        /// The request with its arguments.
        request: String,
        /// What would happen.
        reason: &'static str,
    },
    /// Error handling of a PE was refused.
    #[error("group {group}: {request}: {reason}")]
    Eeh {
        /// The group.
        group: GroupId,
        /// What was asked for.
        request: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// Memory could not be pinned.
    #[error("cannot pin {bytes} bytes at {at:#x}: {reason}")]
    Pin {
        /// Start of the range.
        at: u64,
        /// Length of the range.
        bytes: u64,
        /// What the back end said.
        reason: String,
    },
}

/// An access to a table that is not possible.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableError {
    /// Entries beyond the table.
    #[error("entries {first:#x}..+{count:#x} are outside a table of {entries:#x}")]
    OutOfTable {
        /// First entry.
        first: u64,
        /// Number of entries.
        count: u64,
        /// Entries of the table.
        entries: u64,
    },
    /// No memory for a level.
    #[error(transparent)]
    NoMemory(#[from] BackendError),
}

/// A charge beyond the limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "charging {asked} pages would exceed the locked-memory limit: {charged} of {limit} pages are \
     charged already"
)]
pub struct LimitError {
    /// Pages asked for.
    pub asked: u64,
    /// Pages charged before.
    pub charged: u64,
    /// The limit, in pages.
    pub limit: u64,
}

/// A change of structure from another process than the engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the engine belongs to process {owner}, and this is process {caller}: after a fork the child needs \
     an engine of its own"
)]
pub struct ProcessError {
    /// The process that made the engine.
    pub owner: u32,
    /// The one that called.
    pub caller: u32,
}

/// Memory that cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Another process asked.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No bytes.
    #[error("a region at {0} of 0 bytes cannot be registered")]
    Empty(Uaddr),
    /// Start or length is not a multiple of the host page.
    #[error(
        "region {start}, {bytes:#x} bytes: both must be multiples of the host page, {host_page}"
    )]
    Unaligned {
        /// Start of the region.
        start: Uaddr,
        /// Length of the region.
        bytes: u64,
        /// The host page size.
        host_page: PageShift,
    },
    /// The end is beyond the address space.
    #[error("region {start}, {bytes:#x} bytes, ends beyond the address space")]
    Wraps {
        /// Start of the region.
        start: Uaddr,
        /// Length of the region.
        bytes: u64,
    },
    /// This container has the very same region already.
    #[error("region {start}, {bytes:#x} bytes, is registered in this container already")]
    Busy {
        /// Start of the region.
        start: Uaddr,
        /// Length of the region.
        bytes: u64,
    },
    /// It overlaps another region of the process.
    #[error(
        "region {start}, {bytes:#x} bytes, overlaps the registered region {other}, {other_bytes:#x} \
         bytes"
    )]
    Overlap {
        /// Start of the region.
        start: Uaddr,
        /// Length of the region.
        bytes: u64,
        /// Start of the other.
        other: Uaddr,
        /// Length of the other.
        other_bytes: u64,
    },
    /// A kernel did not give the region back when it was unregistered.
    #[error(
        "the kernel still pins what was at {start}, {bytes:#x} bytes, when it was unregistered: devices \
         would reach that, and not what is there now; use other addresses"
    )]
    Kept {
        /// Start of the region.
        start: Uaddr,
        /// Length of the region.
        bytes: u64,
    },
    /// Locked-memory limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The container has no group, so there is no address space to register in.
    #[error("the container has no group")]
    NoGroup,
    /// The back end refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A region that cannot be given back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnregisterError {
    /// Another process asked.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No region has exactly this start and length in this container.
    #[error("no region {start}, {bytes:#x} bytes, is registered in this container")]
    NotFound {
        /// Start of the region.
        start: Uaddr,
        /// Length of the region.
        bytes: u64,
    },
    /// Entries still point into it.
    #[error(
        "region {start} is still mapped by {mapped} entries of this container; unmap them first"
    )]
    Mapped {
        /// Start of the region.
        start: Uaddr,
        /// Live entries that point into it.
        mapped: u64,
    },
    /// The region has left the container, but the kernel gave nothing back.
    #[error(
        "region {start}, {bytes:#x} bytes, has left the container, but the kernel pins and charges it \
         until the process ends, because a map into it failed"
    )]
    Kept {
        /// Start of the region.
        start: Uaddr,
        /// Length of the region.
        bytes: u64,
    },
    /// KVM may have mapped it.
    #[error(
        "region {start} may be mapped in the window at {window}, which was left to KVM; remove that \
         window first"
    )]
    LeftToKvm {
        /// Start of the region.
        start: Uaddr,
        /// Start of the window.
        window: Ioba,
    },
    /// The platform refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// As in `0x0..0x80000000 and 0x800000000000000..0x800000040000000`, or that there is none.
fn ranges(windows: &[(Ioba, u64)]) -> String {
    let range = |(start, bytes): &(Ioba, u64)| format!("{start}..{:#x}", start.0 + bytes);
    let each: Vec<_> = windows.iter().map(range).collect();
    if each.is_empty() { "there is none".to_owned() } else { each.join(" and ") }
}

/// A window that cannot be created or removed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WindowError {
    /// Another process asked.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The container has no group.
    #[error("the container has no group")]
    NoGroup,
    /// Every slot is taken.
    #[error("the container has {0} windows already, as many as its groups can have")]
    NoSlot(usize),
    /// The page size is not offered by every member.
    #[error("pages of {page} are not offered by every group of the container; all offer {offered}")]
    PageSize {
        /// What was asked for.
        page: PageShift,
        /// What all members offer.
        offered: PageSizes,
    },
    /// More levels than every member offers.
    #[error("{levels} levels asked for; the groups of the container offer up to {offered}")]
    Levels {
        /// What was asked for.
        levels: u32,
        /// What all members offer.
        offered: u32,
    },
    /// No table can have this shape.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Locked-memory limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The back end refused; every member has been put back.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A device reaches none of the windows.
    #[error("a device with a mask of {mask}, reaches no window: {}", ranges(windows))]
    Mask {
        /// How far it reaches.
        mask: DmaMask,
        /// Start and length in bytes of each window.
        windows: Vec<(Ioba, u64)>,
    },
    /// No window starts exactly here.
    #[error("no window starts at {0}")]
    NotFound(Ioba),
    /// Entries are live and removal was not forced.
    #[error("the window at {start} still has {live} live entries; unmap them or force the removal")]
    Mapped {
        /// Start of the window.
        start: Ioba,
        /// Live entries.
        live: u64,
    },
    /// What KVM has mapped there is not known.
    #[error("the window at {0} was left to KVM, so its entries are not known; force the removal")]
    LeftToKvm(Ioba),
    /// The entries could not be cleared.
    #[error(transparent)]
    Unmap(#[from] UnmapError),
}

/// A group that cannot join or leave.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Another process asked.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The group is a member already.
    #[error("group {0} is in this container already")]
    Member(GroupId),
    /// The group is in another container, or another is just trying to attach it, which may fail yet.
    #[error("group {0} is in another container")]
    Elsewhere(GroupId),
    /// The group is not in this container.
    #[error("group {0} is not in this container")]
    NotMember(GroupId),
    /// The group cannot share the container's tables.
    #[error("group {group} cannot share the container's windows: {reason}")]
    Incompatible {
        /// The group.
        group: GroupId,
        /// Which capability does not fit.
        reason: String,
    },
    /// The back end refused; every step has been taken back.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Locked-memory limit: with [`DetachPolicy::Isolate`](crate::engine::DetachPolicy::Isolate) a
    /// further group is charged for the tables of all windows.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Others would lose their mappings.
    #[error(
        "group {group} shares its windows with {others} other group(s), and this kernel may empty \
         them when it leaves; close the container, choose DetachPolicy::Replay and stop their \
         devices first, or DetachPolicy::Isolate"
    )]
    Shared {
        /// The group that was to leave.
        group: GroupId,
        /// Groups that would stay.
        others: usize,
    },
    /// The group has left, and the others' entries could not all be mapped again.
    #[error("group {group} has left; replaying the others' mappings: {lost}")]
    Replay {
        /// The group that left.
        group: GroupId,
        /// What was lost.
        lost: LostError,
    },
}

/// Error handling that is not possible. Nothing was done to any PE.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EehError {
    /// The container has no group.
    #[error("the container has no group")]
    NoGroup,
    /// The group is not in this container.
    #[error("group {0} is not in this container")]
    NotMember(GroupId),
    /// A kernel would do it to all of them, or to some.
    #[error(
        "the container has {members} groups, and the kernel cannot be asked to {op} one of them: it \
         goes through all until one fails; put a group whose errors matter into a container of its own"
    )]
    Shared {
        /// What was asked for.
        op: EehOp,
        /// Groups of the container.
        members: usize,
    },
    /// A kernel's answer would be about any of them.
    #[error(
        "the container has {members} groups, and the kernel does not say whose state it tells; put \
         a group whose errors matter into a container of its own"
    )]
    Ambiguous {
        /// Groups of the container.
        members: usize,
    },
    /// The back end refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
