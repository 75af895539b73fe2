// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a PHB can be told to forget.

use crate::addr::{Ioba, PageShift};
use crate::platform::Platform;

/// What kills the platform's PHBs know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillCaps {
    /// More pages than this are killed by one kill of the whole PE instead.
    pub max_page_kills: u64,
    /// When an entry that was empty has to be killed once it is filled.
    pub fill: FillRule,
    /// True if one PE can be killed. If not, everything of its PHB is.
    pub pe_scope: bool,
}

impl KillCaps {
    /// PHB3 (POWER8): pages and PEs. From how many pages on a PE is killed is the engine's choice.
    pub const PHB3: Self = Self { max_page_kills: 128, fill: FillRule::Always, pe_scope: true };
    /// PHB4 (POWER9): a kill of a page can be lost (its firmware's workaround for HW560152), so whole
    /// PEs always.
    pub const PHB4: Self = Self { max_page_kills: 0, ..Self::PHB3 };
    /// PHB5 (POWER10): as PHB4.
    pub const PHB5: Self = Self::PHB4;
    /// The NVLink bridge of POWER9: fewer than 128 pages, or everything.
    pub const NPU2: Self = Self { max_page_kills: 127, fill: FillRule::Always, pe_scope: false };
    /// P7IOC (POWER7): pages, one by one. It has to be told of filled entries. The hardware takes the
    /// entry's own address, which is not modelled; as for `P5IOC2`, more than a few pages are all.
    pub const IODA1: Self = Self { max_page_kills: 128, fill: FillRule::Always, pe_scope: false };

    /// Those of a platform. A guest kills nothing itself; it gets a PHB3's.
    #[must_use]
    pub const fn of(platform: Platform) -> Self {
        match platform {
            Platform::P5ioc2 | Platform::Ioda1 => Self::IODA1,
            Platform::Phb3 | Platform::Pseries => Self::PHB3,
            Platform::Phb4 => Self::PHB4,
            Platform::Phb5 => Self::PHB5,
            Platform::Npu2 => Self::NPU2,
        }
    }

    /// What it takes to have a PE forget everything.
    #[must_use]
    pub const fn whole(self) -> KillScope {
        if self.pe_scope { KillScope::Pe } else { KillScope::All }
    }
}

/// When an entry that was empty has to be killed once it is filled: a PHB may have cached that it was
/// empty. No platform promises more than [`FillRule::Always`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FillRule {
    /// Each time, as Linux does.
    #[default]
    Always,
    /// Where it can have come in beside a live one: the PHB keeps no failed translation, but it reads
    /// lines of `line` entries (a power of two, at most 64), empty ones among them, and a kill of a page
    /// drops its line. Handles under [`KillPolicy::Batched`](crate::kill::KillPolicy::Batched) and
    /// [`KillPolicy::Deferred`](crate::kill::KillPolicy::Deferred) make use of it; everybody else
    /// kills each time.
    BesideLive {
        /// Entries of a line.
        line: u32,
    },
    /// Never: the PHB caches no empty entry.
    Never,
}

impl FillRule {
    /// True if every fill is killed, whoever fills.
    pub(crate) fn always(self) -> bool {
        self == Self::Always
    }

    /// True if a fill is killed where nobody looks what is beside it.
    pub(crate) fn unseen(self) -> bool {
        self != Self::Never
    }

    /// Entries of a line, if that decides.
    pub(crate) fn line(self) -> Option<u32> {
        match self {
            Self::BesideLive { line } => Some(line),
            Self::Always | Self::Never => None,
        }
    }
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
    /// Everything of all PEs of its PHB.
    All,
}
