// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is expected, in one word, so that it is read in one moment.

use crate::addr::Uaddr;
use crate::tce::Perm;

/// From the lowest bit: 3 of kind, 2 of permission, 32 of a number (memory in pages of 4 KiB, or a bus),
/// and the rest count changes, so that what is the same as before did not change meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell(pub(super) u64);

const KIND: u64 = 7;
const NOTHING: u64 = 0;
const MAPPED: u64 = 1;
const ON: u64 = 2;
const CHANGING: u64 = 3;
const OWED: u64 = 4;
const PERM: u32 = 3;
const NUMBER: u32 = 5;
const CHANGES: u32 = 37;

/// What does not change at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stable {
    /// No translation; of a PE: on no bus.
    Nothing,
    /// A page of a process.
    Mapped { memory: Uaddr, perm: Perm },
    /// No entry, but a translation to this page may be left: its kill is still owed.
    Owed { memory: Uaddr, perm: Perm },
    /// Of a PE: on this bus.
    On(u64),
}

impl Cell {
    pub(super) const NOTHING: Self = Self(NOTHING);

    /// One more change has begun.
    pub(super) fn changing(self) -> Self {
        Self(((self.0 >> CHANGES) + 1) << CHANGES | CHANGING)
    }

    /// The change has ended.
    pub(super) fn stable(self, to: Stable) -> Self {
        let page = |memory: Uaddr, perm: Perm| {
            let number = memory.0 >> 12;
            debug_assert!(memory.0 & 0xfff == 0 && number >> 32 == 0, "{memory}");
            number << NUMBER | perm.bits() << PERM
        };
        let changes = self.0 >> CHANGES << CHANGES;
        Self(
            changes
                | match to {
                    Stable::Nothing => NOTHING,
                    Stable::Mapped { memory, perm } => page(memory, perm) | MAPPED,
                    Stable::Owed { memory, perm } => page(memory, perm) | OWED,
                    Stable::On(bus) => bus << NUMBER | ON,
                },
        )
    }

    pub(super) fn get(self) -> Option<Stable> {
        let number = self.0 >> NUMBER & u64::from(u32::MAX);
        let bits = self.0 >> PERM & 3;
        let perm = [Perm::NONE, Perm::READ, Perm::WRITE, Perm::READ_WRITE][bits as usize];
        let memory = Uaddr(number << 12);
        match self.0 & KIND {
            NOTHING => Some(Stable::Nothing),
            MAPPED => Some(Stable::Mapped { memory, perm }),
            OWED => Some(Stable::Owed { memory, perm }),
            ON => Some(Stable::On(number)),
            _ => None,
        }
    }
}
