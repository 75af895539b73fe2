// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The TCE: one 64-bit big-endian entry. The only file that knows its bits.

use std::fmt;
use std::ops::BitOr;

use crate::addr::PageShift;

/// What a device may do with a page: the mapping-and-control bits of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Perm(u8);

impl Perm {
    /// Control bits 00: the entry is empty and an access faults.
    pub const NONE: Self = Self(0);
    /// The device may read memory.
    pub const READ: Self = Self(1);
    /// The device may write memory.
    pub const WRITE: Self = Self(2);
    /// The device may do both.
    pub const READ_WRITE: Self = Self(3);

    /// True if everything in `other` is allowed.
    #[must_use]
    pub const fn allows(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The two control bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0 as u64
    }

    /// What a powernv table holds for this request: WRITE implies READ there.
    #[must_use]
    pub const fn powernv(self) -> Self {
        if self.0 & 2 != 0 { Self::READ_WRITE } else { self }
    }
}

impl BitOr for Perm {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["none", "read", "write", "read-write"][usize::from(self.0)])
    }
}

/// A TCE as a number; its bytes in a table are the big-endian ones ([`Tce::to_be_word`]).
///
/// Bits 0–51 (IBM numbering) are the real page number, 52–61 reserved, 62–63 write and read.
/// Source: LoPAR; with control bits 00 all other bits are without meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tce(u64);

impl Tce {
    /// The entry that clearing writes. Not the only empty one: see [`Tce::is_empty`].
    pub const EMPTY: Self = Self(0);
    /// The address bits.
    pub const ADDRESS_MASK: u64 = !0xfff;
    /// The control bits.
    pub const CONTROL_MASK: u64 = 3;

    /// An entry that allows `perm` to the page at `address`, an address in the back end's space.
    /// The low 12 bits of `address` are dropped.
    #[must_use]
    pub const fn new(address: u64, perm: Perm) -> Self {
        Self(address & Self::ADDRESS_MASK | perm.bits())
    }

    /// [`Tce::new`] of an address whose low 12 bits are 0.
    #[inline(always)]
    pub(crate) const fn of_page(address: u64, perm: Perm) -> Self {
        debug_assert!(address & !Self::ADDRESS_MASK == 0, "a page's address");
        // Not `|`: one instruction adds both, and the way from a user's address to this one.
        Self(address + perm.bits())
    }

    /// The entry with this value, as a hypercall passes it.
    #[must_use]
    pub const fn from_value(value: u64) -> Self {
        Self(value)
    }

    /// The value, as a hypercall passes it.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The entry whose bytes in memory are those of `word`.
    #[must_use]
    pub const fn from_be_word(word: u64) -> Self {
        Self(u64::from_be(word))
    }

    /// The word whose bytes in memory are the entry's.
    #[must_use]
    pub const fn to_be_word(self) -> u64 {
        self.0.to_be()
    }

    /// True if the control bits are 00, whatever the others hold.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 & Self::CONTROL_MASK == 0
    }

    /// What the device may do.
    #[must_use]
    pub const fn perm(self) -> Perm {
        Perm((self.0 & Self::CONTROL_MASK) as u8)
    }

    /// The page's address, in the back end's space.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0 & Self::ADDRESS_MASK
    }

    /// The bits that must be 0 in a valid entry of a window with such pages: the reserved ones and
    /// the offset inside the page.
    #[must_use]
    pub const fn must_be_zero(page: PageShift) -> u64 {
        (page.bytes() - 1) & !Self::CONTROL_MASK
    }
}

impl fmt::Debug for Tce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tce({:#x})", self.0)
    }
}

impl fmt::Display for Tce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What one pass over a stretch of entries tells about its live ones.
///
/// `and` and `or` bound every live value bit by bit, so that one look says whether all of them lie
/// in one region and are aligned, without a second pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Number of live entries.
    pub live: u64,
    /// AND of the live values; all ones if there is none.
    pub and: u64,
    /// OR of the live values; 0 if there is none.
    pub or: u64,
}

impl Summary {
    /// The summary of nothing.
    pub const NONE: Self = Self { live: 0, and: !0, or: 0 };

    /// Adds one entry.
    #[must_use]
    pub fn with(self, tce: Tce) -> Self {
        if tce.is_empty() {
            return self;
        }
        Self { live: self.live + 1, and: self.and & tce.0, or: self.or | tce.0 }
    }

    /// The summary of both stretches.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self { live: self.live + other.live, and: self.and & other.and, or: self.or | other.or }
    }

    /// Bounds that hold for every live address: the leading bits that all share, followed by
    /// zeros and by ones. `None` if nothing is live.
    #[must_use]
    pub fn address_bounds(self) -> Option<(u64, u64)> {
        if self.live == 0 {
            return None;
        }
        let (and, or) = (self.and & Tce::ADDRESS_MASK, self.or & Tce::ADDRESS_MASK);
        let differ = and ^ or;
        let free = if differ == 0 { 0 } else { !0 >> differ.leading_zeros() };
        Some((and & !free, and | free & Tce::ADDRESS_MASK))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a5_bytes_of_an_entry() {
        let tce = Tce::new(0x1234_5678_0000, Perm::READ_WRITE);
        assert_eq!(tce.value().to_be_bytes(), [0x00, 0x00, 0x12, 0x34, 0x56, 0x78, 0x00, 0x03]);
        let word = tce.to_be_word();
        assert_eq!(u64::from_be(word), tce.value());
        assert_eq!(Tce::from_be_word(word), tce);
    }

    #[test]
    fn emptiness_is_control_bits_not_zero() {
        assert!(Tce::from_value(0xffff_ffff_ffff_f000).is_empty());
        assert!(Tce::EMPTY.is_empty());
        assert!(!Tce::from_value(1).is_empty());
        assert!(!Tce::from_value(2).is_empty());
    }

    #[test]
    fn powernv_write_implies_read() {
        assert_eq!(Perm::WRITE.powernv(), Perm::READ_WRITE);
        assert_eq!(Perm::READ.powernv(), Perm::READ);
        assert_eq!(Perm::NONE.powernv(), Perm::NONE);
    }

    #[test]
    fn bounds_hold_for_every_live_entry() {
        let values = [0x12_3000u64, 0x12_7000, 0x13_f000, 0x12_0000];
        let s = values
            .iter()
            .fold(Summary::NONE, |s, v| s.with(Tce::new(*v, Perm::READ)))
            .with(Tce::from_value(!3));
        assert_eq!(s.live, 4);
        let (lo, hi) = s.address_bounds().unwrap();
        assert_eq!((lo, hi), (0x12_0000, 0x13_f000));
        assert_eq!(Summary::NONE.address_bounds(), None);
        let one = Summary::NONE.with(Tce::new(0x5000, Perm::WRITE));
        assert_eq!(one.address_bounds(), Some((0x5000, 0x5000)));
    }
}
