// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bus addresses that an allocator cannot give, keep or take back.

use thiserror::Error;

use crate::addr::{DmaMask, Ioba, PageShift};
use crate::ioba::{MAX_PAGES, MMIO_HOLE};

/// An allocator that cannot be made, or a range it cannot give. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IobaError {
    /// No bytes or no pages.
    #[error("a range of bus addresses needs at least one page")]
    Empty,
    /// The start or the length is not a multiple of the page.
    #[error("{what} {value:#x} is not a multiple of the page, {page}")]
    Unaligned {
        /// Which one.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The page size.
        page: PageShift,
    },
    /// The end is beyond the address space.
    #[error("bus range {start}, {bytes:#x} bytes, ends beyond the address space")]
    Wraps {
        /// Start of the range.
        start: Ioba,
        /// Length of the range.
        bytes: u64,
    },
    /// More pages than an allocator keeps books of.
    #[error(
        "{pages} pages are too many for one allocator, which takes {MAX_PAGES}; give it a part of \
         the window, or use larger pages"
    )]
    TooLarge {
        /// Pages of the space.
        pages: u64,
    },
    /// The range meets the bus addresses of 32-bit MMIO.
    #[error(
        "bus range {start}, {bytes:#x} bytes, meets the 32-bit MMIO range {:#x}..{:#x}, where DMA \
         does not reach a window; end below it or begin beyond it",
        MMIO_HOLE.start,
        MMIO_HOLE.end
    )]
    InHole {
        /// Start of the range.
        start: Ioba,
        /// Length of the range.
        bytes: u64,
    },
    /// The range is not inside the allocator's space.
    #[error(
        "bus range {start}, {bytes:#x} bytes, is not inside the allocator's space, {space}, \
         {space_bytes:#x} bytes"
    )]
    OutsideSpace {
        /// Start of the range.
        start: Ioba,
        /// Length of the range.
        bytes: u64,
        /// Start of the space.
        space: Ioba,
        /// Length of the space.
        space_bytes: u64,
    },
    /// A page of the range is in use, or waits in a magazine.
    #[error("the page at {at} is in use or in a thread's magazine")]
    Busy {
        /// The first such page.
        at: Ioba,
    },
    /// A page of the range is free already.
    #[error("the page at {at} is free already")]
    Free {
        /// The first such page.
        at: Ioba,
    },
    /// An alignment that is none.
    #[error("an alignment of {pages} pages is not a power of two")]
    Alignment {
        /// What was asked for.
        pages: u64,
    },
    /// A device's mask reaches no page of the space.
    #[error(
        "a device with a mask of {mask}, reaches no page of the space at {start}, {bytes:#x} bytes, \
         that can be handed out"
    )]
    Mask {
        /// The mask.
        mask: DmaMask,
        /// Start of the space.
        start: Ioba,
        /// Length of the space.
        bytes: u64,
    },
    /// No place for the run where a device reaches it.
    #[error(
        "no run of {pages} page(s) at a multiple of {align} page(s) is free within a mask of {mask}; give \
         pages back, or flush the magazines of idle threads"
    )]
    BelowMask {
        /// Pages asked for.
        pages: u64,
        /// Alignment asked for, in pages.
        align: u64,
        /// The mask.
        mask: DmaMask,
    },
    /// No place for the run.
    #[error(
        "no run of {pages} page(s) at a multiple of {align} page(s) is free: {free} pages are free \
         in all, and {held} more wait in magazines; give pages back, or flush the magazines of idle \
         threads"
    )]
    Exhausted {
        /// Pages asked for.
        pages: u64,
        /// Alignment asked for, in pages.
        align: u64,
        /// Free pages, wherever they are.
        free: u64,
        /// Pages that wait in the magazines of all threads.
        held: u64,
    },
}
