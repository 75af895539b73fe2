// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host bridges of the POWER generations offer a PE, as their firmware and Linux show it.
//!
//! The simulated machines are built from these facts. An engine on a real machine never asks for
//! them: it looks at what the groups report.

use std::fmt;
use std::str::FromStr;

use crate::addr::{PageShift, PageSizes};

/// A kind of host bridge, by the name that firmware and kernel give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    /// The P5IOC2 of early POWER7 machines: one table that no other PE can use.
    P5ioc2,
    /// P7IOC (POWER7): each PE owns 256 MiB segments of one bus space, so PEs share no addresses.
    Ioda1,
    /// PHB3 (POWER8): each PE has a window at 0 and one at `1 << 59`. The default.
    Phb3,
    /// PHB4 (POWER9): as PHB3, with other page sizes; kills always hit whole PEs.
    Phb4,
    /// PHB5 (POWER10): as PHB4.
    Phb5,
    /// The NVLink bridge of POWER9: no kills of single PEs.
    Npu2,
    /// A guest of a hypervisor: the tables are firmware's, one for each PE.
    Pseries,
}

impl Platform {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] =
        [Self::P5ioc2, Self::Ioda1, Self::Phb3, Self::Phb4, Self::Phb5, Self::Npu2, Self::Pseries];

    /// The name that options and results use, as in `phb3`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P5ioc2 => "p5ioc2",
            Self::Ioda1 => "ioda1",
            Self::Phb3 => "phb3",
            Self::Phb4 => "phb4",
            Self::Phb5 => "phb5",
            Self::Npu2 => "npu2",
            Self::Pseries => "pseries",
        }
    }

    /// IOMMU page sizes. Of a guest's it is the hypervisor that decides; these are usual.
    #[must_use]
    pub const fn page_sizes(self) -> PageSizes {
        use PageShift as P;
        match self {
            Self::P5ioc2 | Self::Ioda1 => PageSizes::of(&[P::K4]),
            Self::Phb3 | Self::Npu2 => PageSizes::of(&[P::K4, P::K64, P::M16, P::M256]),
            Self::Phb4 | Self::Phb5 => PageSizes::of(&[P::K4, P::K64, P::M2, P::G1]),
            Self::Pseries => PageSizes::of(&[P::K4, P::K64, P::M16]),
        }
    }

    /// Most levels of a table.
    #[must_use]
    pub const fn max_levels(self) -> u32 {
        match self {
            Self::P5ioc2 | Self::Ioda1 | Self::Pseries => 1,
            Self::Phb3 | Self::Phb4 | Self::Phb5 | Self::Npu2 => 5,
        }
    }

    /// Windows that can be created and removed; 0 where a PE has the one that it comes with.
    #[must_use]
    pub const fn dynamic_windows(self) -> u32 {
        match self {
            Self::P5ioc2 | Self::Ioda1 => 0,
            Self::Phb3 | Self::Phb4 | Self::Phb5 | Self::Npu2 | Self::Pseries => 2,
        }
    }

    /// True if several PEs can use one table.
    #[must_use]
    pub const fn shares_tables(self) -> bool {
        match self {
            Self::P5ioc2 | Self::Ioda1 | Self::Pseries => false,
            Self::Phb3 | Self::Phb4 | Self::Phb5 | Self::Npu2 => true,
        }
    }

    /// Start and size in bytes of the window that the nth group (from 0) comes with: below the 32-bit
    /// MMIO space, or the group's own segment of the bus.
    #[must_use]
    pub const fn default_window(self, group: u32) -> (u32, u32) {
        match self {
            // Eight groups at most: their segments end where MMIO begins.
            Self::Ioda1 => ((group & 7) << 28, 1 << 28),
            _ => (0, 1 << 31),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(name: &str) -> Result<Self, UnknownPlatform> {
        let found = Self::ALL.into_iter().find(|platform| platform.name() == name);
        found.ok_or_else(|| UnknownPlatform(name.to_owned()))
    }
}

/// There is no platform of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no platform {0:?}; there are p5ioc2, ioda1, phb3, phb4, phb5, npu2 and pseries")]
pub struct UnknownPlatform(String);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for platform in Platform::ALL {
            assert_eq!(platform.name().parse(), Ok(platform));
            let error = "phb9".parse::<Platform>().unwrap_err();
            assert!(error.to_string().contains(platform.name()), "{error}");
        }
    }

    #[test]
    fn segments_of_ioda1_are_disjoint() {
        let windows: Vec<_> = (0..8).map(|n| Platform::Ioda1.default_window(n)).collect();
        for pair in windows.windows(2) {
            assert_eq!(pair[0].0 + pair[0].1, pair[1].0);
        }
        assert_eq!(windows[7].0 as u64 + u64::from(windows[7].1), 2 << 30);
    }
}
