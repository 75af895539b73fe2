// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Containers of the kernel and of the engine, in the words of the cases.

use std::cell::{Cell, RefCell};

use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::linux::raw::{Raw, RawContainer};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, RegisterMemory, TceCreate, TceInfo, TceRemove,
};
use tce_engine::container::{Container, Mode, Receipt, WindowInfo};
use tce_engine::error::{MapError, RegisterError, UnmapError, UnregisterError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

use crate::case::{Done, Zero};
use crate::ctx::{G, RW, SECOND};
use crate::rig::Mem;
use crate::spy::Watched;

/// A container of the kernel.
pub(crate) struct Ct {
    pub(crate) raw: Watched,
    io: u32,
    /// The default window has been removed already, and nobody knows yet.
    put_off: Cell<bool>,
    /// What it has registered, where that outlives it.
    outlives: Option<RefCell<Vec<Mem>>>,
}

/// Regions that would outlive it are unregistered, as a program should do on such kernels.
impl Drop for Ct {
    fn drop(&mut self) {
        let Some(registered) = self.outlives.take() else { return };
        for start in [0, SECOND] {
            let _ = self.raw.remove(&TceRemove::new(start));
        }
        for memory in registered.into_inner() {
            let _ = self.unregister(memory);
        }
    }
}

impl Ct {
    pub(crate) fn new(raw: Watched, io: u32, outlives: bool) -> Self {
        let outlives = outlives.then(RefCell::default);
        Self { raw, io, put_off: Cell::new(false), outlives }
    }

    /// Removes the default window, and lets the next REMOVE of it succeed.
    pub(crate) fn put_off_default_window(&self) -> Done {
        self.remove(0).zero("REMOVE of the default window")?;
        self.put_off.set(true);
        Ok(())
    }

    /// Leaves behind what it has registered.
    pub(crate) fn forget_regions(&mut self) {
        self.outlives = None;
    }

    /// Opens the group's node and makes it a member.
    pub(crate) fn join(&self, group: GroupId) -> Done {
        self.raw.open_group(group).zero("opening the group")?;
        self.raw.set_container(group).zero("SET_CONTAINER")
    }

    pub(crate) fn set_iommu(&self, kind: u32) -> Raw {
        self.raw.set_iommu(kind)
    }

    pub(crate) fn info(&self) -> (Raw, TceInfo) {
        let mut info = TceInfo::new();
        (self.raw.info(&mut info), info)
    }

    pub(crate) fn register(&self, memory: Mem) -> Raw {
        let answer = self.raw.register(&RegisterMemory::new(memory.at, memory.bytes));
        if let (Ok(0), Some(list)) = (answer, &self.outlives) {
            list.borrow_mut().push(memory);
        }
        answer
    }

    pub(crate) fn unregister(&self, memory: Mem) -> Raw {
        let answer = self.raw.unregister(&RegisterMemory::new(memory.at, memory.bytes));
        if let (Ok(0), Some(list)) = (answer, &self.outlives) {
            let mut list = list.borrow_mut();
            if let Some(at) = list.iter().position(|m| *m == memory) {
                list.remove(at);
            }
        }
        answer
    }

    pub(crate) fn create(&self, size: u64, shift: u32, levels: u32) -> (Raw, u64) {
        let mut create = TceCreate::new(shift, size, levels);
        (self.raw.create(&mut create), create.start_addr)
    }

    pub(crate) fn remove(&self, start: u64) -> Raw {
        if start == 0 && self.put_off.take() {
            return Ok(0);
        }
        self.raw.remove(&TceRemove::new(start))
    }

    /// Removes the default window and creates one of 1 GiB, one level, at 0.
    pub(crate) fn w1(&self) -> Done {
        self.remove(0).zero("REMOVE of the default window")?;
        self.create(G, self.io, 1).0.zero("CREATE")
    }

    pub(crate) fn map(&self, flags: u32, at: u64, memory: u64, bytes: u64) -> Raw {
        self.raw.map(&DmaMap::new(flags, memory, at, bytes))
    }

    pub(crate) fn put(&self, at: u64, memory: Mem) -> Raw {
        self.map(RW, at, memory.at, memory.bytes)
    }

    pub(crate) fn take(&self, at: u64, bytes: u64) -> Raw {
        self.raw.unmap(&mut DmaUnmap::new(at, bytes))
    }
}

/// The engine's containers in the words of the cases.
pub(crate) trait Eng {
    fn reg(&self, memory: Mem) -> Result<(), RegisterError>;
    fn unreg(&self, memory: Mem) -> Result<(), UnregisterError>;
    fn put(&self, at: u64, memory: Mem) -> Result<Receipt, MapError>;
    fn replace(&self, at: u64, memory: Mem) -> Result<Receipt, MapError>;
    fn take(&self, at: u64, bytes: u64) -> Result<Receipt, UnmapError>;
    fn window(&self, size: u64, shift: u32, levels: u32) -> Result<WindowInfo, WindowError>;
    /// Live entries that point into the region; all ones if it is not registered here.
    fn mapped(&self, memory: Mem) -> u64;
}

impl Eng for Container {
    fn reg(&self, memory: Mem) -> Result<(), RegisterError> {
        self.register(memory.uaddr(), memory.bytes)
    }

    fn unreg(&self, memory: Mem) -> Result<(), UnregisterError> {
        self.unregister(memory.uaddr(), memory.bytes)
    }

    fn put(&self, at: u64, memory: Mem) -> Result<Receipt, MapError> {
        self.map(Ioba(at), Uaddr(memory.at), memory.bytes, Perm::READ_WRITE, Mode::Refuse)
    }

    fn replace(&self, at: u64, memory: Mem) -> Result<Receipt, MapError> {
        self.map(Ioba(at), Uaddr(memory.at), memory.bytes, Perm::READ_WRITE, Mode::Replace)
    }

    fn take(&self, at: u64, bytes: u64) -> Result<Receipt, UnmapError> {
        self.unmap(Ioba(at), bytes)
    }

    fn window(&self, size: u64, shift: u32, levels: u32) -> Result<WindowInfo, WindowError> {
        let page = PageShift::new(shift).expect("the cases ask for shifts that exist");
        self.create_window(WindowSpec::new(size, page).levels(levels))
    }

    fn mapped(&self, memory: Mem) -> u64 {
        let regions = self.regions();
        let mine = regions.iter().find(|region| region.memory.start() == memory.at);
        mine.map_or(u64::MAX, |region| region.mapped)
    }
}
