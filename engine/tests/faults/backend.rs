// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A back end of which a call fails. What its trait lets fail does nothing then, as its contract says;
//! what cannot fail is counted only.

use std::sync::Arc;

use tce_engine::addr::{GroupId, Hpa};
use tce_engine::backend::layout::RealLayout;
use tce_engine::backend::linux::faulty::Site;
use tce_engine::backend::{
    Backend, Caps, GroupCaps, KillPort, KillScope, Memory, Space, WindowProgram,
};
use tce_engine::eeh::{EehOp, EehState};
use tce_engine::error::BackendError;
use tce_engine::mem::{TableChunk, TableMemory};

use super::plan::Plan;

#[derive(Debug)]
pub(crate) struct FaultyBackend {
    pub(crate) inner: Arc<dyn Backend>,
    pub(crate) plan: Arc<Plan>,
}

impl FaultyBackend {
    fn next(&self, site: Site) -> Result<(), BackendError> {
        let Some(outcome) = self.plan.next(site, 1) else { return Ok(()) };
        let (answer, errno) = match outcome.answer() {
            Ok(positive) => (positive.to_string(), None),
            Err(errno) => (errno.to_string(), Some(errno.0)),
        };
        Err(BackendError::Kernel { request: site.to_owned(), answer, errno })
    }

    fn count(&self, site: Site) {
        assert_eq!(self.plan.next(site, 1), None, "{site} cannot fail");
    }
}

impl TableMemory for FaultyBackend {
    fn reserve_table(&self, bytes: u64) -> Result<Hpa, BackendError> {
        self.next("reserve_table")?;
        self.inner.reserve_table(bytes)
    }

    fn back_table(&self, at: Hpa, chunk: Arc<TableChunk>) -> Result<(), BackendError> {
        self.next("back_table")?;
        self.inner.back_table(at, chunk)
    }

    fn free_table(&self, at: Hpa) {
        self.count("free_table");
        self.inner.free_table(at);
    }
}

impl Backend for FaultyBackend {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn group(&self, group: GroupId) -> Result<GroupCaps, BackendError> {
        self.next("group")?;
        self.inner.group(group)
    }

    fn take_ownership(&self, group: GroupId) -> Result<(), BackendError> {
        self.next("take_ownership")?;
        self.inner.take_ownership(group)
    }

    fn release_ownership(&self, group: GroupId) {
        self.count("release_ownership");
        self.inner.release_ownership(group);
    }

    fn set_window(
        &self,
        group: GroupId,
        slot: usize,
        window: &WindowProgram,
    ) -> Result<(), BackendError> {
        self.next("set_window")?;
        self.inner.set_window(group, slot, window)
    }

    fn unset_window(&self, group: GroupId, slot: usize) {
        self.count("unset_window");
        self.inner.unset_window(group, slot);
    }

    fn space(&self) -> Box<dyn Space> {
        self.inner.space()
    }

    fn kill(&self, group: GroupId, scope: KillScope) -> u64 {
        self.count("kill");
        self.inner.kill(group, scope)
    }

    fn fence(&self) {
        self.count("fence");
        self.inner.fence();
    }

    fn kill_port(self: Arc<Self>, members: &[GroupId]) -> Option<Box<dyn KillPort>> {
        self.inner.clone().kill_port(members)
    }

    fn eeh(&self, group: GroupId, op: EehOp) -> Result<(), BackendError> {
        self.next("eeh")?;
        self.inner.eeh(group, op)
    }

    fn eeh_state(&self, group: GroupId) -> Result<EehState, BackendError> {
        self.next("eeh_state")?;
        self.inner.eeh_state(group)
    }

    fn pin(&self, memory: Memory) -> Result<RealLayout, BackendError> {
        self.next("pin")?;
        self.inner.pin(memory)
    }

    fn unpin(&self, memory: Memory, layout: &RealLayout) {
        self.count("unpin");
        self.inner.unpin(memory, layout);
    }
}
