// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A simulated kernel with sPAPR TCE containers, as Linux offers them on powernv, traps included.
//!
//! It answers every request of [`RawContainer`](super::raw::RawContainer) as the kernel of its
//! [`Profile`] does: the order of the checks, the error numbers, the positive returns that are no
//! success, the charges that never come back, the checks that are not made. What would damage a
//! real kernel is noted as [`Damage`].
//!
//! It has tables, user-space views, regions and books of its own and shares none of the engine's,
//! so that it can prove the engine wrong. A device's accesses are walked by code that knows TVE
//! and TCE bits only ([`MockKernel::translate`]).
//!
//! It is a simulation: nothing measured on it is a number of hardware, nor of a kernel.
//!
//! It can be any kernel of the last ten years ([`Profile::ALL`]) on the machine of any
//! [`Platform`], so that users can see what would happen to them there.
//!
//! Where it knows more than was observed, it follows the architecture: a group's window is refused
//! (firmware code -1) if the group cannot have that page size, that slot or that many levels.
//!
//! Not simulated: what a device sees between an entry's change and its kill, races inside the
//! kernel (one lock serialises all requests), and processes that end.
//!
//! ```
//! use tce_engine::backend::linux::mock_kernel::MockKernel;
//! use tce_engine::backend::linux::raw::{RawContainer, RawHost};
//! use tce_engine::backend::linux::uapi::{DmaMap, RegisterMemory, TceCreate, TceRemove, kind};
//! use tce_engine::{GroupId, Ioba, Perm, Uaddr};
//!
//! let kernel = MockKernel::new(1);
//! let process = kernel.process();
//! let container = process.open_container().unwrap();
//! assert_eq!(container.open_group(GroupId(0)), Ok(0));
//! assert_eq!(container.set_container(GroupId(0)), Ok(0));
//! assert_eq!(container.set_iommu(kind::SPAPR_TCE_V2), Ok(0));
//!
//! assert_eq!(container.remove(&TceRemove::new(0)), Ok(0)); // the default window
//! let mut create = TceCreate::new(16, 1 << 30, 1);
//! assert_eq!(container.create(&mut create), Ok(0));
//! assert_eq!(container.register(&RegisterMemory::new(0x7000_0000, 0x10_0000)), Ok(0));
//! assert_eq!(container.map(&DmaMap::new(3, 0x7000_0000, create.start_addr, 0x1_0000)), Ok(0));
//! let there = kernel.translate(GroupId(0), Ioba(0x123), Perm::WRITE).unwrap();
//! assert_eq!((there.process, there.at), (process.id(), Uaddr(0x7000_0123)));
//!
//! assert_eq!(process.locked_bytes(), (1 << 20) + (256 << 10));
//! drop(container);
//! assert_eq!(process.locked_bytes(), 0);
//! assert_eq!(kernel.leftovers(), Default::default());
//! assert_eq!(kernel.damage(), []);
//! ```

mod container;
mod dma;
mod eeh;
mod log;
mod memory;
mod phb;
mod process;
mod profile;
mod spapr;
mod state;
mod table;
mod windows;
// Without `unsafe`, and with tables of millions of entries: nothing for Miri.
#[cfg(all(test, not(miri)))]
mod tests;

use std::fmt;

pub use container::MockContainer;
pub use log::{Counters, Damage, Event, Injection};
pub use memory::Vma;
pub use phb::{DmaFault, Reached};
pub use process::{Books, Process};
pub use profile::{Admission, DefaultWindow, ImpossiblePair, Profile, UnknownProfile, View};

use crate::addr::{GroupId, Ioba, PageShift, PageSizes};
use crate::platform::Platform;
use crate::sync::{Arc, Mutex, lock};
use crate::tce::Perm;
use state::State;

/// The number of a process on its machine, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

/// The number of a container on its machine, from 0 in the order of opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub u64);

/// What one IOMMU group is like. The default is a PE of a POWER8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupAttrs {
    /// IOMMU page sizes. Sizes outside 4 KiB to 16 GiB are dropped.
    pub page_sizes: PageSizes,
    /// Largest number of levels that GET_INFO names and CREATE accepts, up to 5.
    pub max_levels: u32,
    /// Windows: 0 (the table that the group comes with), 1 (in a guest likewise) or 2.
    pub max_windows: u32,
    /// Start of the default window, in bytes.
    pub dma32_start: u32,
    /// Size of the default window, in bytes.
    pub dma32_size: u32,
    /// Groups of different kinds cannot share a container.
    pub ops: u32,
    /// Every device is free for user space.
    pub viable: bool,
    /// The platform knows the group's tables; without, it cannot be attached.
    pub platform_data: bool,
    /// There is a PE that EEH knows.
    pub eeh: bool,
    /// The NUMA node that its devices name, if they name one.
    pub node: Option<u32>,
}

impl GroupAttrs {
    /// What the nth group (from 0) of a platform is like.
    #[must_use]
    pub fn of(platform: Platform, group: u32) -> Self {
        let (dma32_start, dma32_size) = platform.default_window(group);
        Self {
            page_sizes: platform.page_sizes(),
            max_levels: platform.max_levels(),
            max_windows: platform.dynamic_windows(),
            dma32_start,
            dma32_size,
            ops: 0,
            viable: true,
            platform_data: true,
            eeh: true,
            node: None,
        }
    }
}

impl Default for GroupAttrs {
    fn default() -> Self {
        Self::of(Platform::Phb3, 0)
    }
}

/// What EEH says about a group. In any state but the first, its device reaches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum GroupState {
    /// All is well.
    Normal = 0,
    /// It is being reset.
    InReset = 1,
    /// Neither loads and stores nor DMA.
    Stopped = 2,
    /// Loads and stores, but no DMA.
    DmaStopped = 4,
    /// It has been given up.
    Unavailable = 5,
}

/// What a closed container should leave: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Open containers.
    pub containers: u64,
    /// Windows that containers have or that groups are set to.
    pub windows: u64,
    /// Host pages that are pinned.
    pub pinned_pages: u64,
}

/// Says what the simulated machine is like.
#[derive(Clone, Debug)]
pub struct MockKernelBuilder {
    groups: Vec<GroupAttrs>,
    host_page: PageShift,
    profile: Profile,
    platform: Platform,
    memory: u64,
    eeh: bool,
    record: bool,
}

impl MockKernelBuilder {
    /// Changes what one group is like. There has to be such a group, otherwise nothing is changed.
    #[must_use]
    pub fn group(mut self, group: GroupId, change: impl FnOnce(&mut GroupAttrs)) -> Self {
        if let Some(attrs) = self.groups.get_mut(group.0 as usize) {
            change(attrs);
            attrs.page_sizes.0 &= (1 << 35) - (1 << 12);
            attrs.max_levels = attrs.max_levels.min(5);
        }
        self
    }

    /// The kernel's page size, 64K at first. Powerpc knows 4K and 64K; the largest contiguous block
    /// is 16 MiB with both.
    #[must_use]
    pub fn host_page(mut self, page: PageShift) -> Self {
        self.host_page = page;
        self
    }

    /// Whose habits it has; [`Profile::K6_11`] at first.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// What the groups are like, [`Platform::Phb3`] at first. Comes before [`Self::group`], as it
    /// sets all that the platform decides.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self.groups = (0..self.groups.len() as u32).map(|n| GroupAttrs::of(platform, n)).collect();
        self
    }

    /// Bytes of memory that can be pinned at the same time, 1 TiB at first. Tables do not count.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Whether the platform has EEH at all. It has at first.
    #[must_use]
    pub fn eeh(mut self, yes: bool) -> Self {
        self.eeh = yes;
        self
    }

    /// Keeps an [`Event`] for each change of windows, kill and pin.
    #[must_use]
    pub fn record(mut self, yes: bool) -> Self {
        self.record = yes;
        self
    }

    /// The machine, if its kernel ever ran on its platform.
    ///
    /// # Errors
    /// Why it did not.
    pub fn try_build(self) -> Result<Arc<MockKernel>, ImpossiblePair> {
        self.profile.runs_on(self.platform)?;
        Ok(self.build())
    }

    /// The machine, whether there could ever have been one or not.
    #[must_use]
    pub fn build(self) -> Arc<MockKernel> {
        let max_block = 16 << 20;
        let host_shift = self.host_page.get();
        let kind = (self.profile, self.platform);
        let mut state = State::new(kind, host_shift, max_block, self.memory, self.eeh, self.groups);
        state.log.record = self.record;
        let (profile, platform) = kind;
        let state = Mutex::new(state);
        Arc::new(MockKernel { host_page: self.host_page, profile, platform, state })
    }
}

/// The simulated machine. See the [module](self).
pub struct MockKernel {
    host_page: PageShift,
    profile: Profile,
    platform: Platform,
    state: Mutex<State>,
}

impl MockKernel {
    /// A machine with so many default groups, numbered from 0, and pages of 64K.
    #[must_use]
    #[allow(clippy::new_ret_no_self)] // it is shared from the start
    pub fn new(groups: u32) -> Arc<Self> {
        Self::builder(groups).build()
    }

    /// The same, to be changed before it is built.
    #[must_use]
    pub fn builder(groups: u32) -> MockKernelBuilder {
        MockKernelBuilder {
            groups: vec![GroupAttrs::default(); groups as usize],
            host_page: PageShift::K64,
            profile: Profile::K6_11,
            platform: Platform::Phb3,
            memory: 1 << 40,
            eeh: true,
            record: false,
        }
    }

    /// Whose habits it has.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Whose host bridges it has.
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// Starts a process: without limits, all of its memory anonymous and on host pages.
    #[must_use]
    pub fn process(self: &Arc<Self>) -> Arc<Process> {
        let id = lock(&self.state).new_process();
        Arc::new(Process { kernel: self.clone(), id })
    }

    /// What a group's device would reach at a bus address if it did `need` there;
    /// [`Perm::NONE`] asks only whether there is anything. A fault does not stop the group.
    ///
    /// # Errors
    /// Why it would not arrive.
    pub fn translate(&self, group: GroupId, at: Ioba, need: Perm) -> Result<Reached, DmaFault> {
        lock(&self.state).translate(group, at, need)
    }

    /// Says that a file of one of the group's devices is open, or not any more. While it is, the
    /// group cannot leave its container, and closing the group's node waits for it.
    pub fn set_device_open(&self, group: GroupId, open: bool) {
        lock(&self.state).set_device_open(group, open);
    }

    /// Puts a group into a state of EEH's; nothing if there is no such group.
    pub fn set_group_state(&self, group: GroupId, state: GroupState) {
        if let Some(found) = lock(&self.state).groups.get_mut(group.0 as usize) {
            found.state = state;
        }
    }

    /// The state of a group, if there is one.
    #[must_use]
    pub fn group_state(&self, group: GroupId) -> Option<GroupState> {
        lock(&self.state).groups.get(group.0 as usize).map(|found| found.state)
    }

    /// Makes something fail once. Several injections of one kind count down at the same time.
    pub fn inject(&self, injection: Injection) {
        lock(&self.state).log.injected.push(injection);
    }

    /// What was injected and has not failed yet; it is forgotten.
    pub fn take_injections(&self) -> Vec<Injection> {
        std::mem::take(&mut lock(&self.state).log.injected)
    }

    /// From now on every request to this container gets ENODEV. Closing it still works.
    pub fn lose(&self, container: ContainerId) {
        if let Some(found) = lock(&self.state).containers.get_mut(&container) {
            found.lost = true;
        }
    }

    /// The open containers.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerId> {
        lock(&self.state).containers.keys().copied().collect()
    }

    /// The damage so far.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        lock(&self.state).log.damage.clone()
    }

    /// What was asked for and done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.state).log.counters
    }

    /// What was recorded since the last call; see [`MockKernelBuilder::record`].
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.state).log.events)
    }

    /// What is still there.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers {
        let state = lock(&self.state);
        let spaprs = state.containers.values().filter_map(|c| c.spapr.as_deref());
        let tables = spaprs.flat_map(|spapr| spapr.tables.iter().flatten()).count();
        let set = state.groups.iter().flat_map(|g| g.tve).filter(|tve| *tve != 0).count();
        Leftovers {
            containers: state.containers.len() as u64,
            windows: (tables + set) as u64,
            pinned_pages: state.real.bytes() >> self.host_page.get(),
        }
    }
}

impl fmt::Debug for MockKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockKernel").field("host_page", &self.host_page).finish_non_exhaustive()
    }
}
