// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process of the simulated machine.

use std::fmt;

use super::memory::Vma;
use super::{MockContainer, MockKernel, ProcessId};
use crate::addr::{GroupId, PageShift, Uaddr};
use crate::backend::linux::raw::{Errno, RawContainer, RawHost};
use crate::sync::{Arc, lock};

/// One process: its memory and its books. Dropping it ends nothing, as its id stays valid.
pub struct Process {
    pub(super) kernel: Arc<MockKernel>,
    pub(super) id: ProcessId,
}

/// What a process's locked memory consists of, in host pages. Each part is counted from what there
/// is, not from the sum that the kernel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Books {
    /// What the kernel keeps, and shows as VmLck.
    pub locked: u64,
    /// Registered regions, each counted once; those without a container too.
    pub regions: u64,
    /// Tables of windows.
    pub tables: u64,
    /// What ENABLE charged.
    pub enabled: u64,
    /// What failed CREATE requests charged and never returned; without owners, also what was
    /// returned to another process.
    pub leaked: u64,
    /// What was returned to it although another process had been charged. Kernels without owners do
    /// that.
    pub excess: u64,
}

impl Books {
    /// The sum of the parts, which is what [`Self::locked`] has to be.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.regions + self.tables + self.enabled + self.leaked - self.excess
    }
}

impl Process {
    /// Its number on this machine, from 0.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// The machine.
    #[must_use]
    pub fn kernel(&self) -> &Arc<MockKernel> {
        &self.kernel
    }

    /// Opens a container; [`RawHost::open`] is the same, with less to say about what it returns.
    ///
    /// # Errors
    /// EIO if the machine hangs.
    pub fn open_container(&self) -> Result<MockContainer, Errno> {
        MockContainer::open(&self.kernel, self.id)
    }

    /// Declares what a range of its memory is; rounded outwards to host pages. Memory that is
    /// pinned already stays so whatever is declared later, as with a real `munmap`.
    pub fn vma(&self, start: Uaddr, bytes: u64, vma: Vma) {
        lock(&self.kernel.state).memory(self.id).declare(start.0, bytes, vma);
    }

    /// Sets the limit of locked bytes; `None` is none, as at the start.
    pub fn set_memlock(&self, bytes: Option<u64>) {
        lock(&self.kernel.state).memory(self.id).limit = bytes;
    }

    /// Gives it the right to exceed its limit (CAP_IPC_LOCK), or takes it away. It starts without.
    pub fn set_ipc_lock(&self, yes: bool) {
        lock(&self.kernel.state).memory(self.id).may_exceed = yes;
    }

    /// Host pages that failed CREATE requests leaked so far.
    #[must_use]
    pub fn leaked_pages(&self) -> u64 {
        self.books().leaked
    }

    /// What its locked memory consists of.
    #[must_use]
    pub fn books(&self) -> Books {
        let mut state = lock(&self.kernel.state);
        let memory = state.memory(self.id);
        let mut books = Books {
            locked: memory.locked,
            leaked: memory.leaked,
            excess: memory.excess,
            regions: memory.region_pages(),
            ..Books::default()
        };
        for spapr in state.containers.values().filter_map(|c| c.spapr.as_deref()) {
            let mine = |of: &ProcessId| *of == self.id;
            let charges = spapr.tables.iter().flatten().flat_map(|table| &table.charges);
            books.tables += charges.filter(|(of, _)| mine(of)).map(|(_, pages)| pages).sum::<u64>();
            books.enabled += spapr.paid.filter(|(of, _)| mine(of)).map_or(0, |(_, pages)| pages);
        }
        books
    }

    /// Entries that map the registered region which starts here, and how many containers (and
    /// left-over users) hold it. `None` if no region starts here.
    #[must_use]
    pub fn region_counts(&self, start: Uaddr) -> Option<(u64, u64)> {
        lock(&self.kernel.state).memory(self.id).region_counts(start.0)
    }
}

impl RawHost for Process {
    fn label(&self) -> &'static str {
        "mock kernel: simulated, not hardware"
    }

    fn open(&self) -> Result<Box<dyn RawContainer>, Errno> {
        Ok(Box::new(self.open_container()?))
    }

    fn host_page(&self) -> PageShift {
        self.kernel.host_page
    }

    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift> {
        lock(&self.kernel.state).memory(self.id).backing(start.0, bytes)
    }

    fn node(&self, group: GroupId) -> Option<u32> {
        let state = lock(&self.kernel.state);
        state.groups.get(group.0 as usize)?.attrs.node
    }

    fn locked_bytes(&self) -> u64 {
        let locked = lock(&self.kernel.state).memory(self.id).locked;
        locked.saturating_mul(self.kernel.host_page.bytes())
    }

    fn memlock(&self) -> Option<u64> {
        let mut state = lock(&self.kernel.state);
        let memory = state.memory(self.id);
        memory.limit.filter(|_| !memory.may_exceed)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.id.0)
    }
}
