// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the simulated machine is to be like.

use super::Mock;
use super::cache::{Caches, TceCache};
use super::cost::{Costs, KillCost};
use super::eeh::Bridges;
use super::phb::Phb;
use super::real::RealMemory;
use crate::addr::{GroupId, Ioba, PageShift, PeNumber};
use crate::backend::{GroupCaps, KillCaps};
use crate::platform::Platform;
use crate::sync::Arc;

/// Says what the simulated machine is like.
#[derive(Clone, Debug)]
pub struct MockBuilder {
    pub(super) groups: Vec<GroupCaps>,
    pub(super) platform: Platform,
    phbs: u16,
    no_freeze: bool,
    pub(super) host_page: PageShift,
    backing: PageShift,
    contiguous: bool,
    seed: u64,
    pub(super) max_block: u64,
    pub(super) kill: KillCaps,
    pub(super) record: bool,
    pub(super) tce_cache: Option<TceCache>,
    kill_cost: Option<KillCost>,
}

/// No such machine can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MockError {
    /// The engine is the hypervisor of the mock.
    #[error(
        "no software PHB of {platform}: a guest's tables are its firmware's; the mock kernel \
         simulates one"
    )]
    Guest {
        /// The platform.
        platform: Platform,
    },
    /// More PEs than there are numbers or bus segments.
    #[error("{groups} groups on {platform}, which has at most {most}")]
    Groups {
        /// What was asked for.
        groups: usize,
        /// The platform.
        platform: Platform,
        /// Its limit.
        most: usize,
    },
    /// A PHB would have no PE.
    #[error("{phbs} PHBs for {groups} groups; accepted: 1 to {groups}, and 1 without a group")]
    Phbs {
        /// What was asked for.
        phbs: u16,
        /// Groups of the machine.
        groups: usize,
    },
    /// No such cache can be simulated.
    #[error(
        "a TCE cache of {entries} entries, {line} a line; accepted: powers of two, at most 512 a line \
         and no more than the cache has"
    )]
    TceCache {
        /// Entries that were asked for.
        entries: usize,
        /// Entries of a line.
        line: usize,
    },
    /// Kills would take too long to be waited for.
    #[error(
        "kills that cost {} ns a store, {} a fence and {} a level; accepted: up to {} each",
        cost.store_ns, cost.fence_ns, cost.refill_ns, KillCost::MOST_NS
    )]
    KillCost {
        /// What was asked for.
        cost: KillCost,
    },
}

/// What a platform offers its nth group.
fn offers(platform: Platform, nth: u16) -> GroupCaps {
    let (start, bytes) = platform.default_window(nth.into());
    let second = (platform.dynamic_windows() > 1).then_some(Ioba(1 << 59));
    GroupCaps {
        pe: PeNumber(nth),
        page_sizes: platform.page_sizes(),
        max_levels: platform.max_levels(),
        window_starts: [Some(Ioba(start.into())), second],
        default_bytes: bytes.into(),
        can_share_tables: platform.shares_tables(),
        node: None,
    }
}

impl MockBuilder {
    /// `groups` groups as a POWER8 with 64 KiB pages has them; memory in pages of 2 MiB.
    #[must_use]
    pub fn new(groups: u16) -> Self {
        Self {
            groups: (0..groups).map(|nth| offers(Platform::Phb3, nth)).collect(),
            platform: Platform::Phb3,
            phbs: 1,
            no_freeze: false,
            host_page: PageShift::K64,
            backing: PageShift::M2,
            contiguous: false,
            seed: 1,
            max_block: 16 << 20,
            kill: KillCaps::PHB3,
            record: false,
            tce_cache: None,
            kill_cost: None,
        }
    }

    /// What the groups and the kills are like, [`Platform::Phb3`] at first. Comes before
    /// [`Self::group`] and [`Self::kill`], as it sets all that the platform decides.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self.groups = (0..self.groups.len() as u16).map(|nth| offers(platform, nth)).collect();
        self.kill = KillCaps::of(platform);
        self
    }

    /// Host bridges, 1 at first. The PEs are dealt over them: PE n is of PHB n modulo this.
    #[must_use]
    pub fn phbs(mut self, phbs: u16) -> Self {
        self.phbs = phbs;
        self
    }

    /// Whether a bad DMA is only lost, as by QEMU's model of a PHB3. Hardware freezes the PE, and so
    /// does the mock at first.
    #[must_use]
    pub fn no_freeze(mut self, yes: bool) -> Self {
        self.no_freeze = yes;
        self
    }

    /// Changes what one group can do. Its PE number stays.
    ///
    /// # Panics
    /// If there is no such group.
    #[must_use]
    pub fn group(mut self, group: GroupId, change: impl FnOnce(&mut GroupCaps)) -> Self {
        let caps = &mut self.groups[group.0 as usize];
        let pe = caps.pe;
        change(caps);
        caps.pe = pe;
        self
    }

    /// The host page size.
    #[must_use]
    pub fn host_page(mut self, page: PageShift) -> Self {
        self.host_page = page;
        self
    }

    /// Largest contiguous block that a table level can get, in bytes; 16 MiB at first, the page
    /// allocator's largest on hosts with 4 KiB and with 64 KiB pages alike.
    #[must_use]
    pub fn max_block(mut self, bytes: u64) -> Self {
        self.max_block = bytes;
        self
    }

    /// Size of the pages behind a region.
    #[must_use]
    pub fn backing(mut self, backing: PageShift) -> Self {
        self.backing = backing;
        self
    }

    /// Lays each region out in one run instead of scattered backing pages. Real memory is hardly
    /// ever like that: a result has to say so.
    #[must_use]
    pub fn contiguous(mut self, yes: bool) -> Self {
        self.contiguous = yes;
        self
    }

    /// Seed of the layout.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What kills the PHB knows.
    #[must_use]
    pub fn kill(mut self, kill: KillCaps) -> Self {
        self.kill = kill;
        self
    }

    /// Keeps every window change, kill, fence and freeze for [`Mock::take_events`].
    #[must_use]
    pub fn record(mut self, yes: bool) -> Self {
        self.record = yes;
        self
    }

    /// Gives each host bridge a TCE cache; there is none at first. Devices ([`Mock::dma`]) go through
    /// it, and only kills empty it, so a kill that is missing, wrong or early shows as a wrong answer.
    /// A fence then waits for accesses in flight.
    #[must_use]
    pub fn tce_cache(mut self, cache: TceCache) -> Self {
        self.tce_cache = Some(cache);
        self
    }

    /// Has kills and fences take as long as said, by spinning: what a policy would save on a machine
    /// where they are slow. Off at first. A kill of a PE also costs what devices then have to walk for
    /// again: a bridge's [`TceCache`] (or [`TceCache::POWER8`] without one) of translations at most, and no
    /// more than are live in the PE's windows, times their levels; a kill of all counts all PEs of the
    /// bridge. Tables of many entries are sampled. Results have to say so: see [`KillCost`].
    #[must_use]
    pub fn kill_cost(mut self, cost: KillCost) -> Self {
        self.kill_cost = Some(cost);
        self
    }

    /// The machine, if there can be one.
    ///
    /// # Errors
    /// Why not.
    pub fn try_build(self) -> Result<Arc<Mock>, MockError> {
        let Self { platform, phbs, .. } = self;
        let groups = self.groups.len();
        let most = match platform {
            Platform::Pseries => return Err(MockError::Guest { platform }),
            // Each has a segment of the bus below the devices' own addresses.
            Platform::Ioda1 => 8,
            _ => 256,
        };
        if groups > most {
            return Err(MockError::Groups { groups, platform, most });
        }
        if phbs == 0 || usize::from(phbs) > groups.max(1) {
            return Err(MockError::Phbs { phbs, groups });
        }
        if let Some(TceCache { entries, line, .. }) =
            self.tce_cache.filter(|cache| !cache.possible())
        {
            return Err(MockError::TceCache { entries, line });
        }
        if let Some(cost) = self.kill_cost.filter(|cost| !cost.possible()) {
            return Err(MockError::KillCost { cost });
        }
        let costs = self.kill_cost.map(|cost| Costs::new(cost, self.tce_cache, phbs.into()));
        let caches = self.tce_cache.map(|shape| Caches::new(shape, groups, phbs, self.seed));
        let segment = |caps: &GroupCaps| {
            let start = caps.window_starts[0]?.0;
            Some(start..start + caps.default_bytes)
        };
        // The others' windows are told apart by the bus address alone.
        let segments = (platform.dynamic_windows() == 0)
            .then(|| self.groups.iter().map(|caps| segment(caps).unwrap_or(0..0)).collect());
        Ok(Arc::new(Mock {
            real: RealMemory::new(self.backing, self.contiguous, self.seed),
            phb: Phb::new(groups, self.record, caches),
            bridges: Bridges::new(groups, phbs.into(), self.no_freeze),
            costs,
            segments,
            setup: self,
        }))
    }

    /// The machine.
    ///
    /// # Panics
    /// If there can be none: see [`Self::try_build`].
    #[must_use]
    pub fn build(self) -> Arc<Mock> {
        self.try_build().unwrap_or_else(|e| panic!("{e}"))
    }
}
