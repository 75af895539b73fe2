// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machines that calls are made on.

use std::sync::Arc;

use tce_engine::addr::{GroupId, PageShift, PageSizes};
use tce_engine::backend::{FillRule, KillCaps};
use tce_engine::platform::Platform;
use tce_engine::{Mock, MockBuilder};

/// A simulated machine, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// How it is typed.
    pub name: &'static str,
    /// What it is like, in words.
    pub about: &'static str,
    pub(super) platform: Platform,
    pub(super) host: PageShift,
    pub(super) backing: PageShift,
    pub(super) contiguous: bool,
    pub(super) fill: FillRule,
    /// The engine's limit of locked memory, in bytes. Who is refused then depends on what others have, so
    /// only where one thread is alone.
    pub(super) memlock: Option<u64>,
}

const PHB3: Machine = Machine {
    name: "phb3",
    about: "64K host pages, 16M backing",
    platform: Platform::Phb3,
    host: PageShift::K64,
    backing: PageShift::M16,
    contiguous: false,
    fill: FillRule::Always,
    memlock: None,
};

/// Groups of a thread. The last can do less than the others: [`FEW_PAGES`] and [`FEW_LEVELS`].
pub(super) const GROUPS: u32 = 4;
pub(super) const FEW_PAGES: PageSizes = PageSizes::of(&[PageShift::K4, PageShift::K64]);
pub(super) const FEW_LEVELS: u32 = 2;
/// Largest block of a table level: so small that some shapes need another level.
pub(super) const MAX_BLOCK: u64 = 1 << 20;

impl Machine {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self {
            name: "phb3-4k",
            about: "4K host pages, 64K backing",
            host: PageShift::K4,
            backing: PageShift::K64,
            ..PHB3
        },
        PHB3,
        Self {
            name: "phb3-run",
            about: "4K host pages, memory in one run",
            host: PageShift::K4,
            contiguous: true,
            ..PHB3
        },
        Self {
            name: "phb3-never",
            about: "4K host pages, fills need no kill",
            host: PageShift::K4,
            fill: FillRule::Never,
            ..PHB3
        },
        Self {
            name: "phb3-tight",
            about: "4K host pages, 4M of locked memory, for one thread",
            host: PageShift::K4,
            backing: PageShift::K64,
            memlock: Some(4 << 20),
            ..PHB3
        },
        Self {
            name: "phb4-4k",
            about: "4K host pages, whole PEs are killed",
            platform: Platform::Phb4,
            host: PageShift::K4,
            backing: PageShift::M2,
            ..PHB3
        },
        Self {
            name: "phb5",
            about: "64K host pages, whole PEs are killed",
            platform: Platform::Phb5,
            backing: PageShift::M2,
            ..PHB3
        },
    ];

    /// The machine of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|machine| machine.name == name)
    }

    /// True if these many threads can use it.
    pub(crate) fn takes(&self, threads: u32) -> bool {
        self.memlock.is_none() || threads == 1
    }

    pub(super) fn kill(&self) -> KillCaps {
        KillCaps { fill: self.fill, ..KillCaps::of(self.platform) }
    }

    /// The same as a mock, for so many threads.
    pub(super) fn build(&self, threads: u32, seed: u64) -> Arc<Mock> {
        let mut builder = MockBuilder::new((threads * GROUPS) as u16)
            .platform(self.platform)
            .host_page(self.host)
            .backing(self.backing)
            .contiguous(self.contiguous)
            .max_block(MAX_BLOCK)
            .kill(self.kill())
            .seed(seed);
        for thread in 0..threads {
            builder = builder.group(GroupId(thread * GROUPS + GROUPS - 1), |caps| {
                caps.page_sizes = FEW_PAGES;
                caps.max_levels = FEW_LEVELS;
            });
        }
        builder.build()
    }
}
