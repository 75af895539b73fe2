// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The mock: a software POWER8, or another [`Platform`], whose PHB walks the engine's own tables.
//!
//! The engine is the hypervisor here; its table is the one the PHB reads, entry by entry, out of
//! simulated real memory. The walker shares no code with the table, so it can prove it wrong.
//! Nothing measured here is a number of hardware.

pub mod agents;
mod builder;
mod cache;
mod cost;
mod eeh;
mod flight;
mod phb;
mod real;

use std::fmt;
use std::ops::Range;

pub use builder::{MockBuilder, MockError};
pub use cache::{Happened, TceCache, TceEvent};
pub use cost::{KillCharge, KillCost};
pub use phb::{Access, Fault, MockEvent, OwnedTranslation, Translation};

use crate::addr::{GroupId, Hpa, Ioba, PageShift, PeNumber};
use crate::backend::layout::RealLayout;
use crate::backend::{
    Backend, Caps, GroupCaps, KillPort, KillScope, MAX_WINDOWS, Memory, PageRegister, Tables,
    WindowProgram, told,
};
use crate::eeh::{EehOp, EehState};
use crate::error::BackendError;
use crate::mem::{TableChunk, TableMemory};
use crate::platform::Platform;
use crate::sabotage::{Guard, stands};
use crate::sync::Arc;
use cost::Costs;
use eeh::Bridges;
use phb::{Pe, Phb, PortCounts};
use real::RealMemory;

/// The simulated machine. See the [module](self).
pub struct Mock {
    setup: MockBuilder,
    real: RealMemory,
    phb: Phb,
    bridges: Bridges,
    /// `None`: kills take as long as they take here.
    costs: Option<Costs>,
    /// Where each PE's only window lies, if it has no other.
    segments: Option<Box<[Range<u64>]>>,
}

impl Mock {
    #[inline]
    fn pe(&self, group: GroupId) -> Result<PeNumber, BackendError> {
        let group = self.setup.groups.get(group.0 as usize).ok_or(BackendError::NoGroup(group))?;
        Ok(group.pe)
    }

    /// Whose host bridges it has.
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.setup.platform
    }

    /// What the PE's device would reach: the PHB reads the TVE and the table in real memory. A look
    /// from outside, which frozen PEs allow too; [`dma`](Self::dma) is what a device does.
    ///
    /// # Errors
    /// What made the PHB refuse.
    pub fn translate(&self, pe: PeNumber, at: Ioba, access: Access) -> Result<Translation, Fault> {
        self.look(pe, at, access)
    }

    /// The same, unless a device asks for nothing in particular: the entry's own permission.
    ///
    /// # Errors
    /// What made the PHB refuse.
    pub fn probe(&self, pe: PeNumber, at: Ioba) -> Result<Translation, Fault> {
        self.look(pe, at, Access::Any)
    }

    fn look(&self, pe: PeNumber, at: Ioba, access: Access) -> Result<Translation, Fault> {
        self.phb.translate(&self.real, pe, self.segment(pe), at, access)
    }

    /// What [`probe`](Self::probe) finds at each of `count` pages from `start` on, and
    /// [`owner`](Self::owner) says of where that is. `heard` is told in order, with the number of the
    /// page, and says whether to go on. For who looks at a whole table: the levels above are read once
    /// for some neighbours, so what changes meanwhile may be seen late.
    pub fn probe_pages(
        &self,
        pe: PeNumber,
        (start, page, count): (Ioba, PageShift, u64),
        heard: &mut dyn FnMut(u64, Result<OwnedTranslation, Fault>) -> bool,
    ) {
        self.phb.translate_pages(&self.real, pe, self.segment(pe), (start, page, count), heard);
    }

    fn segment(&self, pe: PeNumber) -> Option<&Range<u64>> {
        self.segments.as_ref().and_then(|segments| segments.get(usize::from(pe.0)))
    }

    /// What the TCE cache remembers of the line that a bus address of the PE is in, in order; nothing
    /// without one. See [`MockBuilder::tce_cache`].
    #[must_use]
    pub fn tce_history(&self, pe: PeNumber, at: Ioba) -> Vec<Happened> {
        self.phb.caches.as_ref().map_or_else(Vec::new, |caches| caches.history(pe, at))
    }

    /// The time of an event that happens now, in the order of [`tce_history`](Self::tce_history); 0
    /// without a TCE cache.
    #[must_use]
    pub fn tce_time(&self) -> u64 {
        self.phb.caches.as_ref().map_or(0, cache::Caches::now)
    }

    /// The pinned memory that a real address belongs to, and the offset in it.
    #[must_use]
    pub fn owner(&self, at: Hpa) -> Option<(Memory, u64)> {
        self.real.owner(at)
    }

    /// Stores to the kill registers so far.
    #[must_use]
    pub fn register_stores(&self) -> u64 {
        self.phb.register_stores()
    }

    /// The last word that was stored to the kill register for this PE; 0 before the first.
    #[must_use]
    pub fn last_kill_word(&self, pe: PeNumber) -> u64 {
        self.phb.last_kill_word(pe)
    }

    /// Fences so far.
    #[must_use]
    pub fn fences(&self) -> u64 {
        self.phb.fences()
    }

    /// What kills are to cost; `None` where they take as long as they take here.
    #[must_use]
    pub fn kill_cost(&self) -> Option<KillCost> {
        self.costs.as_ref().map(Costs::cost)
    }

    /// What kills and fences were charged with so far; nothing without
    /// [`MockBuilder::kill_cost`].
    #[must_use]
    pub fn kill_charge(&self) -> KillCharge {
        self.costs.as_ref().map_or_else(KillCharge::default, Costs::charged)
    }

    /// What was recorded since the last call; see [`MockBuilder::record`].
    #[must_use]
    pub fn take_events(&self) -> Vec<MockEvent> {
        self.phb.take_events()
    }

    /// True if the host's bypass is on for the PE, as it is while nobody has taken the group.
    #[must_use]
    pub fn bypass(&self, pe: PeNumber) -> bool {
        self.phb.bypass(pe)
    }

    /// True if the host's own window is set in slot 0 of the PE, as it is while nobody has taken the
    /// group.
    #[must_use]
    pub fn default_window(&self, pe: PeNumber) -> bool {
        self.phb.default_window(pe)
    }

    /// PEs that the host has handed over and not got back. It gets none back in which a window is
    /// set.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.phb.taken()
    }

    /// What is still there: pinned ranges, stretches of table, windows set. All zero when
    /// everybody has cleaned up.
    #[must_use]
    pub fn leftovers(&self) -> (usize, usize, usize) {
        let (pinned, tables) = self.real.leftovers();
        (pinned, tables, self.phb.windows_set())
    }
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mock({} groups: software PHB, not hardware)", self.setup.groups.len())
    }
}

impl TableMemory for Mock {
    fn reserve_table(&self, bytes: u64) -> Result<Hpa, BackendError> {
        self.real.reserve_table(bytes)
    }

    fn back_table(&self, at: Hpa, chunk: Arc<TableChunk>) -> Result<(), BackendError> {
        self.real.back_table(at, chunk);
        Ok(())
    }

    fn free_table(&self, at: Hpa) {
        self.real.free_table(at);
    }
}

impl Backend for Mock {
    fn caps(&self) -> Caps {
        Caps {
            host_page: self.setup.host_page,
            max_block: self.setup.max_block,
            tables: Tables::Engine(self.setup.kill),
            memlock: None,
        }
    }

    fn group(&self, group: GroupId) -> Result<GroupCaps, BackendError> {
        self.setup.groups.get(group.0 as usize).copied().ok_or(BackendError::NoGroup(group))
    }

    fn take_ownership(&self, group: GroupId) -> Result<(), BackendError> {
        if self.phb.take(self.pe(group)?) { Ok(()) } else { Err(BackendError::GroupBusy(group)) }
    }

    fn release_ownership(&self, group: GroupId) {
        if let Ok(pe) = self.pe(group) {
            self.phb.give_back(pe);
        }
    }

    fn set_window(
        &self,
        group: GroupId,
        slot: usize,
        window: &WindowProgram,
    ) -> Result<(), BackendError> {
        let caps = self.group(group)?;
        let offered = caps.page_sizes.contains(window.page) && window.levels <= caps.max_levels;
        let code = |code| BackendError::Firmware { group, slot, code };
        if slot >= MAX_WINDOWS || caps.window_starts[slot].is_none() || !offered {
            // OPAL_PARAMETER
            return Err(code(-1));
        }
        if self.segments.is_some() && window.covers() > caps.default_bytes {
            return Err(BackendError::Guarded {
                request: format!(
                    "setting a window of {:#x} bytes on group {group}, whose part of the bus has {:#x}",
                    window.covers(),
                    caps.default_bytes
                ),
                reason: "behind it are other PEs, or devices; make it no larger than that",
            });
        }
        self.phb.set_window(caps.pe, slot, window).map_err(code)
    }

    fn unset_window(&self, group: GroupId, slot: usize) {
        if let Ok(pe) = self.pe(group) {
            self.phb.unset_window(pe, slot);
        }
    }

    fn kill(&self, group: GroupId, scope: KillScope) -> u64 {
        let Ok(pe) = self.pe(group) else { return 0 };
        let stores = self.phb.kill(pe, scope);
        if let Some(costs) = &self.costs {
            costs.kill((&self.phb, &self.real), pe, scope, stores);
        }
        stores
    }

    fn fence(&self) {
        self.phb.fence();
        self.costs.iter().for_each(Costs::fence);
    }

    fn eeh(&self, group: GroupId, op: EehOp) -> Result<(), BackendError> {
        self.eeh_of_group(group, op)
    }

    fn eeh_state(&self, group: GroupId) -> Result<EehState, BackendError> {
        self.eeh_state_of_group(group)
    }

    fn kill_port(self: Arc<Self>, members: &[GroupId]) -> Option<Box<dyn KillPort>> {
        let counts = self.phb.open_port();
        let pes = members.iter().filter_map(|group| self.pe(*group).ok());
        let pes = pes.map(|pe| self.phb.pe(pe).clone()).collect();
        let silent = !self.setup.record && self.setup.tce_cache.is_none();
        let costly = self.costs.is_some();
        let port = Port { mock: self, counts, pes, silent };
        Some(if costly { Box::new(Costly(port)) } else { Box::new(port) })
    }

    fn pin(&self, memory: Memory) -> Result<RealLayout, BackendError> {
        self.real.pin(memory)
    }

    fn unpin(&self, memory: Memory, layout: &RealLayout) {
        self.real.unpin(memory, layout);
    }
}

/// One thread's way to the kill registers: it counts for itself.
struct Port {
    mock: Arc<Mock>,
    counts: Arc<PortCounts>,
    pes: Vec<Arc<Pe>>,
    /// Nobody has to be told of a kill: nothing is recorded or cached.
    silent: bool,
}

impl KillPort for Port {
    fn kill(&mut self, scope: KillScope) -> u64 {
        if self.silent {
            // Nobody has to be told: only the registers and the counts are left.
            let stores = self.pes.iter().map(|pe| pe.store_kills(scope, |_| ())).sum();
            self.counts.add(stores, 0);
            return stores;
        }
        let pes = told(&self.pes).iter();
        pes.map(|pe| self.mock.phb.port_kill(&self.counts, pe, scope)).sum()
    }

    fn fence(&mut self) {
        if self.silent {
            self.counts.add(0, 1);
        } else if stands(Guard::Fence) {
            self.mock.phb.port_fence(&self.counts);
        }
    }

    fn page_register(&self) -> Option<PageRegister> {
        match &self.pes[..] {
            [pe] if self.silent => Some(self.counts.page_register(pe)),
            _ => None,
        }
    }

    fn kill_page_and_wait(&mut self, start: Ioba, page: PageShift) -> u64 {
        if !self.silent {
            return self.heard(start, page);
        }
        // As in `kill`.
        for pe in &self.pes {
            pe.store_page_kill(start);
        }
        self.counts.add(self.pes.len() as u64, 1);
        self.pes.len() as u64
    }
}

impl Port {
    /// A page's kill and fence, one after the other.
    #[cold]
    #[inline(never)]
    fn heard(&mut self, start: Ioba, page: PageShift) -> u64 {
        let stores = self.kill(KillScope::Pages { start, count: 1, page });
        self.fence();
        stores
    }
}

/// A port whose kills and fences cost time. It has no page register: a store to that would be free.
struct Costly(Port);

impl KillPort for Costly {
    fn kill(&mut self, scope: KillScope) -> u64 {
        let Port { mock, counts, pes, .. } = &self.0;
        let Some(costs) = &mock.costs else { return self.0.kill(scope) };
        let kill = |pe: &Arc<Pe>| {
            let stores = mock.phb.port_kill(counts, pe, scope);
            costs.kill((&mock.phb, &mock.real), pe.number(), scope, stores);
            stores
        };
        told(pes).iter().map(kill).sum()
    }

    fn fence(&mut self) {
        self.0.fence();
        if stands(Guard::Fence) {
            self.0.mock.costs.iter().for_each(Costs::fence);
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.mock.phb.close_port(&self.counts);
    }
}
