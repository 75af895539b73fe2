// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What differs from kernel to kernel. A further kernel is a further constant.

use std::fmt;
use std::str::FromStr;

use crate::platform::Platform;

/// The habits of one range of kernels. Every field is a branch somewhere in this module.
///
/// Version borders are from the order of changes, one release more or less. Most of the habits are
/// from reading; those of 6.12 were observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What options and results call it.
    pub name: &'static str,
    /// The kernels that are meant, in words.
    pub kernels: &'static str,
    /// Which host bridges these kernels know.
    pub platforms: &'static [Platform],
    /// Only the process that first used a container may use it; others get EPERM. Without, every
    /// request works on the memory and the books of whoever sends it.
    pub owner_only: bool,
    /// A container knows the regions registered through it: a repeat gets EBUSY, nobody else can
    /// unregister them, and closing it does. Without, a repeat counts one more user, and regions
    /// outlive their container.
    pub lists_regions: bool,
    /// When the default window is made.
    pub default_window: DefaultWindow,
    /// Where the user addresses behind the entries are kept, and what that is charged with.
    pub view: View,
    /// A table's levels are added as they are needed, not all at creation.
    pub levels_on_demand: bool,
    /// Which groups may be in which containers.
    pub admission: Admission,
    /// A group that joins a container gets the windows that are there.
    pub late_joiner_gets_windows: bool,
    /// A bus address off a page's start is answered by +1 instead of EINVAL.
    pub misaligned_is_one: bool,
    /// UNMAP checks the end of its range, not only its first page, and answers EINVAL.
    pub unmap_checks_end: bool,
    /// UNREGISTER of mapped memory returns 0 and leaves the region without an owner, instead of
    /// EBUSY.
    pub unregister_orphans: bool,
    /// A registration that finds only some of its pages returns their number, instead of EFAULT.
    pub short_pin_is_positive: bool,
    /// A registration is compared with other regions only after it was charged and pinned.
    pub overlap_tested_last: bool,
    /// A CREATE that fails after its charge never returns it.
    pub failed_create_leaks: bool,
    /// A window may not be larger than the machine's memory.
    pub window_within_memory: bool,
    /// A request sends one kill for its whole range, when it is done, even if it did nothing.
    /// Without, each entry is killed as it changes. Version 1 unpins what was replaced or cleared
    /// as it goes: before the one kill, but after that of each entry.
    pub one_kill: bool,
    /// A window is cleared before it is unset, and a group that leaves clears all windows of its
    /// container.
    pub clear_before_unset: bool,
    /// On a PHB3, killing no pages from the first entry of a window at 0 does not end. It needs
    /// [`Self::one_kill`], as nothing else kills no pages. Other host bridges are told by other
    /// code, of which nothing is known; they do not hang here.
    pub empty_kill_hangs: bool,
    /// The size of a hugetlb page stands for the small pages that follow it in a region, too.
    /// Since when is not known, so all have it.
    pub stale_backing: bool,
    /// A table that decodes as many address bits, or more, is refused.
    pub refused_bits: u32,
}

/// When the default window is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultWindow {
    /// When the first group joins.
    AtAttach,
    /// By the first MAP, UNMAP or CREATE.
    Lazy,
}

/// Where the user addresses behind the entries are kept. A version 1 container needs none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// In an array that is charged, beside the table, when the window is created.
    FlatAtCreate,
    /// In an array that is charged, beside the table, by the first MAP in the window.
    FlatAtFirstMap,
    /// In a tree of the table's shape: a window is charged with twice its table.
    Tree,
}

/// Which groups may be in which containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Any in both versions; a group without dynamic windows stays alone.
    Any,
    /// Version 1 is for groups without dynamic windows (one), version 2 for the others.
    ByDynamicWindows,
    /// Version 1 is for one group of any kind, version 2 for those with dynamic windows.
    OneInVersion1,
}

/// The host bridges of POWER8 to POWER10 that are still known.
const POWERNV: &[Platform] = &[Platform::Phb3, Platform::Phb4, Platform::Phb5];

impl Profile {
    /// Linux 4.2 to 4.8, as 4.4. Tables may decode up to 59 bits.
    pub const K4_2: Self = Self {
        name: "k4_2",
        kernels: "Linux 4.2 to 4.8",
        platforms: &[Platform::P5ioc2, Platform::Ioda1, Platform::Phb3],
        owner_only: false,
        lists_regions: false,
        default_window: DefaultWindow::AtAttach,
        view: View::FlatAtCreate,
        admission: Admission::Any,
        late_joiner_gets_windows: true,
        failed_create_leaks: false,
        refused_bits: 60,
        ..Self::K4_9
    };

    /// Linux 4.9 to 4.11, as 4.9.325: late joiners do without windows, which 4.10 mended, and the
    /// limit of 55 bits was brought back to it.
    pub const K4_9: Self = Self {
        name: "k4_9",
        kernels: "Linux 4.9 to 4.11",
        platforms: &[Platform::Ioda1, Platform::Phb3, Platform::Phb4],
        view: View::FlatAtFirstMap,
        levels_on_demand: false,
        late_joiner_gets_windows: false,
        misaligned_is_one: false,
        unmap_checks_end: true,
        window_within_memory: true,
        ..Self::K4_12
    };

    /// Linux 4.12 to 4.20, as 4.19: with tables that grow, and no flat view any more.
    pub const K4_12: Self = Self {
        name: "k4_12",
        kernels: "Linux 4.12 to 4.20",
        platforms: &[Platform::Ioda1, Platform::Phb3, Platform::Phb4, Platform::Npu2],
        unregister_orphans: false,
        short_pin_is_positive: false,
        overlap_tested_last: false,
        one_kill: false,
        empty_kill_hangs: false,
        ..Self::K5_0
    };

    /// Linux 5.0 to 6.3, as from 5.4 on: one kill for each request.
    pub const K5_0: Self = Self {
        name: "k5_0",
        kernels: "Linux 5.0 to 6.3",
        platforms: &[
            Platform::Ioda1,
            Platform::Phb3,
            Platform::Phb4,
            Platform::Phb5,
            Platform::Npu2,
        ],
        admission: Admission::ByDynamicWindows,
        ..Self::K6_4
    };

    /// Linux 6.4 to 6.10.
    pub const K6_4: Self = Self {
        name: "k6_4",
        kernels: "Linux 6.4 to 6.10",
        platforms: &[Platform::Ioda1, Platform::Phb3, Platform::Phb4, Platform::Phb5],
        clear_before_unset: false,
        ..Self::K6_11
    };

    /// Linux 6.11 and later, until UNMAP was given a check of its end again (7.2 has it). Observed
    /// on 6.12.
    pub const K6_11: Self = Self {
        name: "k6_11",
        kernels: "Linux 6.11 and later",
        platforms: POWERNV,
        owner_only: true,
        lists_regions: true,
        default_window: DefaultWindow::Lazy,
        view: View::Tree,
        levels_on_demand: true,
        admission: Admission::OneInVersion1,
        late_joiner_gets_windows: true,
        misaligned_is_one: true,
        unmap_checks_end: false,
        unregister_orphans: true,
        short_pin_is_positive: true,
        overlap_tested_last: true,
        failed_create_leaks: true,
        window_within_memory: false,
        one_kill: true,
        clear_before_unset: true,
        empty_kill_hangs: true,
        stale_backing: true,
        refused_bits: 55,
    };

    /// Linux 6.9 and later as a guest, as from 6.11 on.
    pub const PSERIES: Self = Self {
        name: "pseries",
        kernels: "Linux 6.9 and later as a guest",
        platforms: &[Platform::Pseries],
        ..Self::K6_11
    };

    /// All of them, oldest first; the guest last.
    pub const ALL: [Self; 7] =
        [Self::K4_2, Self::K4_9, Self::K4_12, Self::K5_0, Self::K6_4, Self::K6_11, Self::PSERIES];

    /// The platform of a machine of which nothing else is said: PHB3, for a guest its own.
    #[must_use]
    pub const fn usual_platform(&self) -> Platform {
        match self.platforms {
            [only] => *only,
            _ => Platform::Phb3,
        }
    }

    /// Whether these kernels ran on such a machine.
    ///
    /// # Errors
    /// Why they did not.
    pub fn runs_on(&self, platform: Platform) -> Result<(), ImpossiblePair> {
        if self.platforms.contains(&platform) {
            return Ok(());
        }
        Err(ImpossiblePair { profile: *self, platform })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let found = Self::ALL.into_iter().find(|profile| profile.name == name);
        found.ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

/// There is no profile of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no profile {0:?}; there are k4_2, k4_9, k4_12, k5_0, k6_4, k6_11 and pseries")]
pub struct UnknownProfile(String);

/// No such kernel ever ran on such a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImpossiblePair {
    /// The kernel.
    pub profile: Profile,
    /// The machine.
    pub platform: Platform,
}

impl fmt::Display for ImpossiblePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile, platform } = self;
        let why = match (profile.platforms, platform) {
            ([Platform::Pseries], _) => "a guest sees its hypervisor's tables, no host bridge",
            (_, Platform::Pseries) => "these habits are a host's; a guest is the profile pseries",
            (_, Platform::P5ioc2) => "its support left Linux in 4.6",
            (_, Platform::Ioda1) => "its support left Linux in 6.5",
            (_, Platform::Phb3) => "it is a kernel of another machine",
            (_, Platform::Phb4) => "Linux knows it since about 4.8, and this is as 4.4",
            (_, Platform::Phb5) => "POWER10 is younger than these kernels",
            (_, Platform::Npu2) => "its support came with 4.12 and left Linux in 5.13",
        };
        let possible: Vec<_> = profile.platforms.iter().map(|p| p.name()).collect();
        write!(
            f,
            "profile {profile} ({}) does not run on platform {platform}: {why}; it runs on {}",
            profile.kernels,
            possible.join(", ")
        )
    }
}

impl std::error::Error for ImpossiblePair {}
