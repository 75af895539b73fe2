// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mappings, unmappings and a guest's entries that cannot be.

use thiserror::Error;

use super::{BackendError, IobaError, TableError};
use crate::addr::{Hpa, Ioba, PageShift, Uaddr};

/// A mapping that cannot be made. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MapError {
    /// No bytes or no permission.
    #[error("a mapping at {0} needs at least one page and a permission")]
    Nothing(Ioba),
    /// An address or the length is not a multiple of the IOMMU page.
    #[error("{what} {value:#x} is not a multiple of the window's page, {page}")]
    Unaligned {
        /// Which one.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The window's page size.
        page: PageShift,
    },
    /// The bus range is not inside one window.
    #[error("bus range {start}, {bytes:#x} bytes, is not inside one window")]
    OutsideWindows {
        /// Start of the range.
        start: Ioba,
        /// Length of the range.
        bytes: u64,
    },
    /// The memory is not registered.
    #[error("memory at {at} is not registered in this container")]
    NotRegistered {
        /// First address that is not.
        at: Uaddr,
    },
    /// The backing pages are smaller than the window's.
    #[error(
        "memory at {at} is backed by pages of {backing}, smaller than the window's page {page}"
    )]
    BackingTooSmall {
        /// Where.
        at: Uaddr,
        /// The backing page size.
        backing: PageShift,
        /// The window's page size.
        page: PageShift,
    },
    /// A list has too many pages.
    #[error("a list of {count} pages; at most {limit} go into one call")]
    ListTooLong {
        /// Pages in the list.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Something is mapped there and `replace` was not asked for.
    #[error("{live} entries are live in the range at {start}; unmap them or ask for replacement")]
    Overlap {
        /// Start of the range.
        start: Ioba,
        /// Live entries in it.
        live: u64,
    },
    /// No memory for a level of the table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Requests of a batch that name the same page.
    #[error("the requests at {0} and at {1} of the batch overlap")]
    BatchOverlap(Ioba, Ioba),
    /// Requests of a batch that are in different windows.
    #[error("a batch stays in one window; {0} and {1} are in two")]
    BatchWindows(Ioba, Ioba),
    /// A handle was asked for a bus address and has no allocator.
    #[error("this handle has no allocator of bus addresses; give it one with `with_addresses`")]
    NoAddresses,
    /// No bus address could be had.
    #[error(transparent)]
    Addresses(#[from] IobaError),
    /// The window was left to KVM.
    #[error("the window at {0} was left to KVM, which edits it for its guest")]
    LeftToKvm(Ioba),
    /// The platform refused. What was mapped before is mapped again.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The platform refused, and refused to map again what it had dropped.
    #[error(transparent)]
    Lost(#[from] LostError),
}

/// Entries that a kernel dropped and would not take back. They are unmapped and released.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{source}; {entries} entries from {first} on were lost with it and could not be restored")]
pub struct LostError {
    /// What the platform said first.
    pub source: BackendError,
    /// Bus address of the first lost entry.
    pub first: Ioba,
    /// How many.
    pub entries: u64,
}

/// A range that cannot be unmapped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnmapError {
    /// No bytes.
    #[error("an unmap at {0} needs at least one page")]
    Nothing(Ioba),
    /// The start or the length is not a multiple of the IOMMU page.
    #[error("{what} {value:#x} is not a multiple of the window's page, {page}")]
    Unaligned {
        /// Which one.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The window's page size.
        page: PageShift,
    },
    /// A handle was given an address back and has no allocator.
    #[error("this handle has no allocator of bus addresses; unmap with `unmap`")]
    NoAddresses,
    /// What was to be given back is no run of the allocator's.
    #[error("{pages} pages from {start} are no run of this handle's allocator; unmap with `unmap`")]
    Foreign {
        /// First page.
        start: Ioba,
        /// Pages.
        pages: u64,
    },
    /// Not all of what was to be given back was mapped.
    #[error(
        "of {pages} pages from {start} only {live} were mapped; these are unmapped now, and no address \
         was given back"
    )]
    NotMapped {
        /// First page.
        start: Ioba,
        /// Pages.
        pages: u64,
        /// Those that were live.
        live: u64,
    },
    /// The bus range is not inside one window.
    #[error("bus range {start}, {bytes:#x} bytes, is not inside one window")]
    OutsideWindows {
        /// Start of the range.
        start: Ioba,
        /// Length of the range.
        bytes: u64,
    },
    /// Requests of a batch that name the same page.
    #[error("the requests at {0} and at {1} of the batch overlap")]
    BatchOverlap(Ioba, Ioba),
    /// Requests of a batch that are in different windows.
    #[error("a batch stays in one window; {0} and {1} are in two")]
    BatchWindows(Ioba, Ioba),
    /// The window was left to KVM.
    #[error("the window at {0} was left to KVM, which edits it for its guest")]
    LeftToKvm(Ioba),
    /// The platform refused. What was mapped before is still mapped.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The platform refused, and refused to map again what it had dropped.
    #[error(transparent)]
    Lost(#[from] LostError),
}

/// Entries that a guest may not write. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntryError {
    /// No window starts here (any more).
    #[error("no window starts at {0}")]
    NoWindow(Ioba),
    /// The entries are not all inside the window.
    #[error("{count} entries at {at} are not inside the window")]
    OutsideWindow {
        /// Bus address of the first.
        at: Ioba,
        /// Number of entries.
        count: u64,
    },
    /// The bus address is not that of a page.
    #[error("bus address {at} is not a multiple of the window's page, {page}")]
    Unaligned {
        /// The address.
        at: Ioba,
        /// The window's page size.
        page: PageShift,
    },
    /// A live entry has bits that must be 0.
    #[error("an entry has reserved or offset bits set: {bits:#x}")]
    Reserved {
        /// The bits.
        bits: u64,
    },
    /// A live entry points to what is not the guest's memory.
    #[error("an entry points to {address:#x}, which is not registered guest memory")]
    NotMemory {
        /// Where it points.
        address: u64,
    },
    /// No memory for a level of the table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The platform's kernel owns the table.
    #[error(
        "the window at {0} belongs to a kernel's container, which takes ranges of user memory and \
         not a guest's entries"
    )]
    KernelOwned(Ioba),
}

/// Real memory that is not there: what a bus error is to hardware.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no real memory at {0}")]
pub struct NoRealMemory(pub Hpa);
