// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A simulated kernel of which a request fails: before it arrives, or with a part of it done.

use std::sync::Arc;

use tce_engine::addr::{GroupId, PageShift, Uaddr};
use tce_engine::backend::linux::mock_kernel::{MockContainer, Process};
use tce_engine::backend::linux::raw::{Errno, Raw, RawContainer, RawHost};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, RegisterMemory, Request, TceCreate, TceInfo, TceRemove, eeh_op,
};

use super::plan::{Outcome, Plan, Site};
use super::world::{HOST, PAGE};

#[derive(Debug)]
pub(crate) struct FaultyHost {
    pub(crate) process: Arc<Process>,
    pub(crate) plan: Arc<Plan>,
}

impl RawHost for FaultyHost {
    fn label(&self) -> &'static str {
        self.process.label()
    }

    fn open(&self) -> Result<Box<dyn RawContainer>, Errno> {
        if let Some(Err(e)) = self.plan.next("open", 1).map(Outcome::answer) {
            return Err(e);
        }
        let inner = self.process.open_container()?;
        Ok(Box::new(FaultyContainer { inner, plan: self.plan.clone() }))
    }

    fn host_page(&self) -> PageShift {
        self.process.host_page()
    }

    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift> {
        match self.plan.next("backing of memory", 1) {
            None => self.process.backing(start, bytes),
            Some(_) => None,
        }
    }

    fn node(&self, group: GroupId) -> Option<u32> {
        self.process.node(group)
    }

    fn locked_bytes(&self) -> u64 {
        self.process.locked_bytes()
    }

    fn memlock(&self) -> Option<u64> {
        self.process.memlock()
    }
}

#[derive(Debug)]
struct FaultyContainer {
    inner: MockContainer,
    plan: Arc<Plan>,
}

impl FaultyContainer {
    /// A request that is done or not.
    fn ask(&self, site: Site, arrive: impl FnOnce() -> Raw) -> Raw {
        self.plan.next(site, 1).map_or_else(arrive, Outcome::answer)
    }
}

impl RawContainer for FaultyContainer {
    fn check_extension(&self, extension: u32) -> Raw {
        self.ask("CHECK_EXTENSION", || self.inner.check_extension(extension))
    }

    fn set_iommu(&self, kind: u32) -> Raw {
        self.ask("SET_IOMMU", || self.inner.set_iommu(kind))
    }

    fn open_group(&self, group: GroupId) -> Raw {
        self.ask("open group", || self.inner.open_group(group))
    }

    /// Linux closes a file whatever it answers.
    fn close_group(&self, group: GroupId) -> Raw {
        let closed = self.inner.close_group(group);
        self.ask("close group", || closed)
    }

    fn group_status(&self, group: GroupId) -> Result<u32, Errno> {
        match self.plan.next("GROUP_GET_STATUS", 1) {
            None => self.inner.group_status(group),
            Some(outcome) => outcome.answer().map(|flags| flags as u32),
        }
    }

    fn set_container(&self, group: GroupId) -> Raw {
        self.ask("GROUP_SET_CONTAINER", || self.inner.set_container(group))
    }

    fn unset_container(&self, group: GroupId) -> Raw {
        self.ask("GROUP_UNSET_CONTAINER", || self.inner.unset_container(group))
    }

    fn info(&self, info: &mut TceInfo) -> Raw {
        self.ask("TCE_GET_INFO", || self.inner.info(info))
    }

    fn enable(&self) -> Raw {
        self.ask("ENABLE", || self.inner.enable())
    }

    fn disable(&self) -> Raw {
        self.ask("DISABLE", || self.inner.disable())
    }

    /// Of a range with a hole Linux answers how many pages it could pin, and keeps none of them.
    fn register(&self, arg: &RegisterMemory) -> Raw {
        let pages = arg.size / HOST;
        match self.plan.next("REGISTER_MEMORY", pages) {
            None => self.inner.register(arg),
            Some(outcome) => match outcome.done(pages) {
                Some(pinned) => Ok(pinned as i32),
                None => outcome.answer(),
            },
        }
    }

    fn unregister(&self, arg: &RegisterMemory) -> Raw {
        self.ask("UNREGISTER_MEMORY", || self.inner.unregister(arg))
    }

    fn create(&self, arg: &mut TceCreate) -> Raw {
        match self.plan.next("TCE_CREATE", 1) {
            None => self.inner.create(arg),
            Some(Outcome::All) => self.inner.create(arg).and(Outcome::All.answer()),
            Some(outcome) => outcome.answer(),
        }
    }

    fn remove(&self, arg: &TceRemove) -> Raw {
        self.ask("TCE_REMOVE", || self.inner.remove(arg))
    }

    fn map(&self, arg: &DmaMap) -> Raw {
        let pages = arg.size / PAGE;
        let Some(outcome) = self.plan.next("MAP_DMA", pages) else { return self.inner.map(arg) };
        if let Some(done) = outcome.done(pages) {
            let size = done * PAGE;
            assert_eq!(self.inner.map(&DmaMap { size, ..*arg }), Ok(0));
            if outcome == Outcome::Cleared {
                assert_eq!(self.inner.unmap(&mut DmaUnmap::new(arg.iova, size)), Ok(0));
            }
        }
        outcome.answer()
    }

    fn unmap(&self, arg: &mut DmaUnmap) -> Raw {
        let pages = arg.size / PAGE;
        let Some(outcome) = self.plan.next("UNMAP_DMA", pages) else {
            return self.inner.unmap(arg);
        };
        if let Some(done) = outcome.done(pages) {
            let part = self.inner.unmap(&mut DmaUnmap { size: done * PAGE, ..*arg });
            assert_eq!(part, Ok(0));
        }
        outcome.answer()
    }

    fn eeh(&self, arg: &EehPeOp) -> Raw {
        let site = if arg.op == eeh_op::GET_STATE { "EEH_PE_OP, state" } else { "EEH_PE_OP" };
        self.ask(site, || self.inner.eeh(arg))
    }

    fn fault(&self, request: Request) -> Raw {
        self.inner.fault(request)
    }
}
