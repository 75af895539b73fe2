// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One newtype per address space, so that a bus address can never stand where a real address is
//! meant. All of them print in hex.

use std::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on, or `None` past the end of the address space.
            #[must_use]
            pub fn checked_add(self, bytes: u64) -> Option<Self> {
                self.0.checked_add(bytes).map(Self)
            }

            /// True if the address is a multiple of `1 << shift`.
            #[inline]
            #[must_use]
            pub fn is_aligned(self, shift: PageShift) -> bool {
                self.0 & (shift.bytes() - 1) == 0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A bus address: what a device puts on the bus, in bytes. Windows live in this space.
    Ioba
}
address! {
    /// A user-space (virtual) address of the process that owns the memory. The engine never
    /// follows it; it is a name for memory.
    Uaddr
}
address! {
    /// A host real ("physical") address: what a TCE of the mock holds and the software PHB reads.
    Hpa
}
address! {
    /// A guest's real address (LoPAR: logical real address): what a guest puts into its TCEs.
    Gra
}

/// The logical I/O bus number by which a guest names a window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Liobn(pub u32);

impl fmt::Debug for Liobn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Liobn({:#x})", self.0)
    }
}

impl fmt::Display for Liobn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The number of an IOMMU group; to the operating system a group is one PE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A partitionable endpoint of a PHB: the unit of isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeNumber(pub u16);

impl fmt::Display for PeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How far a device's bus addresses reach: it can put `bits` bits on the bus, so those from 0 up to
/// [`DmaMask::last`]. Drivers call it a DMA mask.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DmaMask(u8);

impl DmaMask {
    /// A device that reaches everything.
    pub const ALL: Self = Self(64);

    /// A mask of so many bits, or `None` outside 1..=64.
    #[must_use]
    pub const fn new(bits: u32) -> Option<Self> {
        if bits >= 1 && bits <= 64 { Some(Self(bits as u8)) } else { None }
    }

    /// Number of bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// The last bus address that the device reaches.
    #[must_use]
    pub const fn last(self) -> Ioba {
        Ioba(u64::MAX >> (64 - self.0 as u32))
    }

    /// How many whole pages that begin at `start`, of `bytes` bytes together, the device reaches.
    #[must_use]
    pub fn pages(self, start: Ioba, bytes: u64, page: PageShift) -> u64 {
        let all = bytes >> page.get();
        match self.last().0.checked_sub(start.0) {
            None => 0,
            Some(u64::MAX) => all,
            Some(reached) => all.min((reached + 1) >> page.get()),
        }
    }
}

impl fmt::Debug for DmaMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaMask({})", self.0)
    }
}

/// As in `32 bits, up to 0xffffffff`.
impl fmt::Display for DmaMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits, up to {}", self.0, self.last())
    }
}

/// log2 of a page size, 12..=34 (4 KiB to 16 GiB).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageShift(u8);

impl PageShift {
    /// 4 KiB.
    pub const K4: Self = Self(12);
    /// 64 KiB.
    pub const K64: Self = Self(16);
    /// 2 MiB.
    pub const M2: Self = Self(21);
    /// 16 MiB.
    pub const M16: Self = Self(24);
    /// 256 MiB.
    pub const M256: Self = Self(28);
    /// 1 GiB.
    pub const G1: Self = Self(30);

    /// A page shift, or `None` outside 12..=34.
    #[must_use]
    pub const fn new(shift: u32) -> Option<Self> {
        if shift >= 12 && shift <= 34 { Some(Self(shift as u8)) } else { None }
    }

    /// The shift of a page of `bytes`, or `None` if that is no page size.
    #[must_use]
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        bytes.is_power_of_two().then(|| Self::new(bytes.trailing_zeros())).flatten()
    }

    /// log2 of the page size.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// The page size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.0
    }
}

impl fmt::Debug for PageShift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageShift({})", self.0)
    }
}

/// The page size, as in `64K`.
impl fmt::Display for PageShift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, by) = match self.0 {
            30.. => ('G', 30),
            20..30 => ('M', 20),
            _ => ('K', 10),
        };
        write!(f, "{}{unit}", self.bytes() >> by)
    }
}

/// A set of page sizes; bit *n* stands for pages of `1 << n` bytes, as in the uapi's `pgsizes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PageSizes(pub u64);

impl PageSizes {
    /// The set of `shifts`.
    #[must_use]
    pub const fn of(shifts: &[PageShift]) -> Self {
        let mut mask = 0;
        let mut i = 0;
        while i < shifts.len() {
            mask |= shifts[i].bytes();
            i += 1;
        }
        Self(mask)
    }

    /// True if pages of this size are in the set.
    #[must_use]
    pub const fn contains(self, shift: PageShift) -> bool {
        self.0 & shift.bytes() != 0
    }

    /// The sizes that are in both sets.
    #[must_use]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The largest size in the set that is smaller than `shift`.
    #[must_use]
    pub const fn largest_below(self, shift: PageShift) -> Option<PageShift> {
        match (self.0 & (shift.bytes() - 1)).checked_ilog2() {
            Some(below) => PageShift::new(below),
            None => None,
        }
    }

    /// The sizes in the set, smallest first.
    pub fn iter(self) -> impl Iterator<Item = PageShift> {
        (12..=34).filter_map(PageShift::new).filter(move |s| self.contains(*s))
    }
}

/// The sizes, smallest first, as in `4K, 64K`.
impl fmt::Display for PageSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, shift) in self.iter().enumerate() {
            write!(f, "{}{shift}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn page_shift_limits_and_names() {
        assert_eq!(PageShift::new(11), None);
        assert_eq!(PageShift::new(35), None);
        assert_eq!(PageShift::from_bytes(3 << 12), None);
        assert_eq!(PageShift::from_bytes(0), None);
        let names: Vec<_> =
            [12, 16, 21, 24, 28, 30, 34].map(|s| PageShift::new(s).unwrap().to_string()).into();
        assert_eq!(names, ["4K", "64K", "2M", "16M", "256M", "1G", "16G"]);
    }

    #[test]
    fn page_sizes_intersect_and_print() {
        let a = PageSizes::of(&[PageShift::K4, PageShift::K64]);
        let b = PageSizes::of(&[PageShift::K64, PageShift::M16]);
        assert_eq!(a.intersect(b).to_string(), "64K");
        assert_eq!(PageSizes(0x1101_1000).to_string(), "4K, 64K, 16M, 256M");
    }

    #[test]
    fn addresses_do_not_wrap() {
        assert_eq!(Ioba(u64::MAX).checked_add(1), None);
        assert!(Uaddr(0x20000).is_aligned(PageShift::K64));
        assert_eq!(format!("{:?} {}", Hpa(0x1000), Ioba(1 << 59)), "Hpa(0x1000) 0x800000000000000");
    }
}
