// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Stands between the engine and a simulated kernel, and lets one request fail that then never
//! arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tce_engine::addr::{GroupId, PageShift, Uaddr};
use tce_engine::backend::linux::mock_kernel::{MockContainer, Process};
use tce_engine::backend::linux::raw::{Errno, Raw, RawContainer, RawHost};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, RegisterMemory, Request, TceCreate, TceInfo, TceRemove,
};

/// What is to go wrong.
#[derive(Debug, Default)]
struct Plan {
    /// Requests until one fails; 0 is none.
    left: AtomicU64,
    /// Creations until one finds no memory, and how much of its charge stays.
    creations: AtomicU64,
    leaks: AtomicU64,
    leaked: AtomicU64,
    /// Nothing is mapped.
    refuses_maps: AtomicBool,
}

/// A kernel of which one request fails.
#[derive(Debug)]
pub(crate) struct Flaky {
    process: Arc<Process>,
    plan: Arc<Plan>,
}

impl Flaky {
    pub(crate) fn new(process: Arc<Process>) -> Arc<Self> {
        Arc::new(Self { process, plan: Arc::default() })
    }

    /// The nth request from now on (1 is the next) gets ENOMEM. Giving back is not failed: no kernel
    /// refuses to close what is open or to forget what is not mapped.
    pub(crate) fn fail(&self, nth: u64) {
        self.plan.left.store(nth, Ordering::SeqCst);
    }

    /// True if what was to fail has not yet; it will not any more.
    pub(crate) fn relent(&self) -> bool {
        self.plan.left.swap(0, Ordering::SeqCst) > 0
    }

    /// The nth creation from now on finds no memory, and so many bytes of its charge stay.
    pub(crate) fn leak(&self, nth: u64, bytes: u64) {
        self.plan.creations.store(nth, Ordering::SeqCst);
        self.plan.leaks.store(bytes, Ordering::SeqCst);
    }

    /// Each request to map gets ENOMEM, or none any more.
    pub(crate) fn refuse_maps(&self, yes: bool) {
        self.plan.refuses_maps.store(yes, Ordering::SeqCst);
    }
}

impl RawHost for Flaky {
    fn label(&self) -> &'static str {
        self.process.label()
    }

    fn open(&self) -> Result<Box<dyn RawContainer>, Errno> {
        self.plan.next()?;
        let inner = self.process.open_container()?;
        Ok(Box::new(Watched { inner, plan: self.plan.clone() }))
    }

    fn host_page(&self) -> PageShift {
        self.process.host_page()
    }

    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift> {
        self.process.backing(start, bytes)
    }

    fn node(&self, group: GroupId) -> Option<u32> {
        self.process.node(group)
    }

    fn locked_bytes(&self) -> u64 {
        self.process.locked_bytes() + self.plan.leaked.load(Ordering::SeqCst)
    }

    fn memlock(&self) -> Option<u64> {
        self.process.memlock()
    }
}

impl Plan {
    fn next(&self) -> Result<(), Errno> {
        let down = |left: u64| left.checked_sub(1);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, down) {
            Ok(1) => Err(Errno::ENOMEM),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Watched {
    inner: MockContainer,
    plan: Arc<Plan>,
}

impl Watched {
    fn ask(&self) -> Result<&MockContainer, Errno> {
        self.plan.next()?;
        Ok(&self.inner)
    }
}

impl RawContainer for Watched {
    fn check_extension(&self, extension: u32) -> Raw {
        self.ask()?.check_extension(extension)
    }

    fn set_iommu(&self, kind: u32) -> Raw {
        self.ask()?.set_iommu(kind)
    }

    fn open_group(&self, group: GroupId) -> Raw {
        self.ask()?.open_group(group)
    }

    fn close_group(&self, group: GroupId) -> Raw {
        self.inner.close_group(group)
    }

    fn group_status(&self, group: GroupId) -> Result<u32, Errno> {
        self.ask()?.group_status(group)
    }

    fn set_container(&self, group: GroupId) -> Raw {
        self.ask()?.set_container(group)
    }

    fn unset_container(&self, group: GroupId) -> Raw {
        self.ask()?.unset_container(group)
    }

    fn info(&self, info: &mut TceInfo) -> Raw {
        self.ask()?.info(info)
    }

    fn enable(&self) -> Raw {
        self.ask()?.enable()
    }

    fn disable(&self) -> Raw {
        self.ask()?.disable()
    }

    fn register(&self, arg: &RegisterMemory) -> Raw {
        self.ask()?.register(arg)
    }

    fn unregister(&self, arg: &RegisterMemory) -> Raw {
        self.inner.unregister(arg)
    }

    fn create(&self, arg: &mut TceCreate) -> Raw {
        let down = |left: u64| left.checked_sub(1);
        let creations = &self.plan.creations;
        if creations.fetch_update(Ordering::SeqCst, Ordering::SeqCst, down) == Ok(1) {
            let leaks = self.plan.leaks.load(Ordering::SeqCst);
            self.plan.leaked.fetch_add(leaks, Ordering::SeqCst);
            return Err(Errno::ENOMEM);
        }
        self.ask()?.create(arg)
    }

    fn remove(&self, arg: &TceRemove) -> Raw {
        self.ask()?.remove(arg)
    }

    fn map(&self, arg: &DmaMap) -> Raw {
        if self.plan.refuses_maps.load(Ordering::SeqCst) {
            return Err(Errno::ENOMEM);
        }
        self.ask()?.map(arg)
    }

    fn unmap(&self, arg: &mut DmaUnmap) -> Raw {
        self.ask()?.unmap(arg)
    }

    fn eeh(&self, arg: &EehPeOp) -> Raw {
        self.ask()?.eeh(arg)
    }

    fn fault(&self, request: Request) -> Raw {
        self.inner.fault(request)
    }
}
