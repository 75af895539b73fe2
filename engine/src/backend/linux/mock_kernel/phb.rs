// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host bridge: a group's two TVEs, and a walk of what they point to.
//!
//! Written from the layout of TVEs and TCEs alone; it shares nothing with the table but the memory
//! that the table is in. Keep it so.

use super::ProcessId;
use super::table::Arena;
use crate::addr::{Ioba, Uaddr};
use crate::tce::{Perm, Tce};

/// Where a device's access arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Whose memory it is.
    pub process: ProcessId,
    /// The byte.
    pub at: Uaddr,
    /// What the entry allows.
    pub perm: Perm,
}

/// Why an access does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaFault {
    /// There is no such group.
    #[error("there is no such group")]
    NoGroup,
    /// The error handling has stopped the group.
    #[error("the group is stopped")]
    Stopped,
    /// The address bits above a window's are not 0.
    #[error("bus address {0} is in no window's range")]
    BadAddress(Ioba),
    /// The window is not set.
    #[error("window {0} is not set")]
    NoWindow(usize),
    /// The address is beyond what the levels decode.
    #[error("offset {offset:#x} is beyond what the table decodes")]
    Extent {
        /// Offset in the window.
        offset: u64,
    },
    /// An interior entry is empty.
    #[error("level {0} is absent")]
    NoLevel(u32),
    /// The table, or a level of it, has been freed.
    #[error("there is no table at {0:#x}")]
    NoTable(u64),
    /// The entry is empty.
    #[error("the entry is empty")]
    Empty,
    /// The entry does not allow this access.
    #[error("the entry allows {0:?} only")]
    Denied(Perm),
    /// The entry points to memory that is not pinned any more. On a real machine the access
    /// arrives, in whatever is there now.
    #[error("the memory at {0:#x} is not pinned")]
    NotPinned(u64),
}

/// The word that enables a window. IBM bits 0–47 address, 48–50 levels, 51–55 size, 59–63 page.
pub(super) fn tve(table: u64, levels: u32, block_shift: u32, page_shift: u32) -> u64 {
    (table >> 12) << 16
        | u64::from(levels - 1) << 13
        | u64::from(block_shift - 11) << 8
        | u64::from(page_shift - 11)
}

/// The real address behind `offset` in a window, and what the entry allows.
pub(super) fn walk(memory: &Arena, tve: u64, offset: u64) -> Result<(u64, Perm), DmaFault> {
    let page_shift = (tve & 0x1f) + 11;
    let index_bits = (tve >> 8 & 0x1f) + 11 - 3;
    let mut level = tve >> 13 & 7;
    let mut base = tve >> 16 << 12;
    let index = offset >> page_shift;
    let decoded = index_bits * (level + 1);
    if decoded < 64 && index >> decoded != 0 {
        return Err(DmaFault::Extent { offset });
    }
    loop {
        let part = index >> (level * index_bits) & ((1 << index_bits) - 1);
        let word = memory.block(base).and_then(|block| block.get(part as usize));
        let entry = u64::from_be(*word.ok_or(DmaFault::NoTable(base))?);
        let perm = Tce::from_value(entry).perm();
        if level == 0 {
            let in_page = (1 << page_shift) - 1;
            return match perm {
                Perm::NONE => Err(DmaFault::Empty),
                perm => Ok((entry & !in_page | offset & in_page, perm)),
            };
        }
        level -= 1;
        if perm == Perm::NONE {
            return Err(DmaFault::NoLevel(level as u32));
        }
        base = entry & !0xfff;
    }
}
