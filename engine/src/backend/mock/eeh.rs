// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which PEs are frozen: two bits for each, for its loads and stores and for its DMA, as in the
//! bridge's own state tables.
//!
//! Nothing of the data path looks here. Kills, windows and tables work on a frozen PE as on others;
//! only what a device does ([`Mock::dma`]) and what is done to one asks.

use super::Mock;
use super::phb::{Access, Fault, MockEvent, Translation};
use crate::addr::{GroupId, Ioba, PeNumber};
use crate::backend::Backend as _;
use crate::eeh::{EehAccess, EehInjection, EehOp, EehState};
use crate::error::BackendError;
use crate::sync::{Mutex, RwLock, lock, read, write};

/// The error state of one PE, and its device's only register.
#[derive(Debug, Default)]
struct Pe {
    io_frozen: bool,
    dma_frozen: bool,
    in_reset: bool,
    /// An error that waits for its access.
    armed: Option<EehInjection>,
    register: u64,
}

impl Pe {
    fn freeze(&mut self) {
        (self.io_frozen, self.dma_frozen) = (true, true);
    }

    fn state(&self) -> EehState {
        match (self.in_reset, self.io_frozen, self.dma_frozen) {
            (true, ..) => EehState::InReset,
            (_, false, false) => EehState::Normal,
            (_, false, true) => EehState::DmaStopped,
            (_, true, true) => EehState::Stopped,
            // The numbers of the uapi have no name for DMA without loads and stores.
            (_, true, false) => EehState::Unavailable,
        }
    }

    /// An error that was injected strikes once.
    fn strike(&mut self, access: EehAccess, at: u64) {
        if self.armed.take_if(|armed| armed.strikes(access, at)).is_some() {
            self.freeze();
        }
    }
}

/// Error states of all PEs, and which bridge each is of.
pub(super) struct Bridges {
    /// Shared by accesses, which are many.
    pes: Box<[RwLock<Pe>]>,
    /// Whether each bridge is fenced. Locked before any of its PEs.
    fenced: Box<[Mutex<bool>]>,
    no_freeze: bool,
}

impl Bridges {
    pub(super) fn new(pes: usize, bridges: usize, no_freeze: bool) -> Self {
        Self {
            pes: (0..pes).map(|_| RwLock::new(Pe::default())).collect(),
            fenced: (0..bridges).map(|_| Mutex::default()).collect(),
            no_freeze,
        }
    }

    fn of(&self, pe: PeNumber) -> usize {
        usize::from(pe.0) % self.fenced.len()
    }

    /// The state of a PE that there is.
    fn pe(&self, pe: PeNumber) -> &RwLock<Pe> {
        &self.pes[usize::from(pe.0)]
    }

    fn state(&self, pe: PeNumber) -> EehState {
        read(self.pe(pe)).state()
    }

    /// Does it, unless the bridge has to be recovered first: then the bridge that says so.
    fn apply(&self, pe: PeNumber, op: EehOp) -> Result<(), usize> {
        let bridge = self.of(pe);
        let fenced = lock(&self.fenced[bridge]);
        let mut state = write(self.pe(pe));
        if matches!(op, EehOp::Enable | EehOp::Disable) {
            // Who wants to be told of errors; the bridge freezes PEs whether anybody does.
            return Ok(());
        }
        if *fenced {
            return Err(bridge);
        }
        match op {
            EehOp::Enable | EehOp::Disable | EehOp::Configure => {}
            EehOp::UnfreezeIo => state.io_frozen = false,
            EehOp::UnfreezeDma => state.dma_frozen = false,
            EehOp::ResetHot | EehOp::ResetFundamental => {
                // The device forgets what it knew; TVEs and tables are not the device's.
                (state.in_reset, state.register, state.armed) = (true, 0, None);
            }
            EehOp::ResetDeactivate => {
                (state.in_reset, state.io_frozen, state.dma_frozen) = (false, false, false);
            }
            EehOp::Inject(injection) => state.armed = Some(injection),
        }
        Ok(())
    }
}

impl Mock {
    /// What a device of the PE does: it reads or writes a byte at a bus address. A PE whose device
    /// reaches nothing freezes, unless the machine was built with
    /// [`no_freeze`](super::MockBuilder::no_freeze); then the access is lost and that is all.
    /// [`translate`](Self::translate) is the same without a device, and freezes nothing.
    ///
    /// When [`freeze`](Self::freeze), or whatever else froze the PE, has returned, no access gets
    /// through.
    ///
    /// # Errors
    /// [`Fault::Frozen`], or why it reached nothing.
    pub fn dma(&self, pe: PeNumber, at: Ioba, access: Access) -> Result<Translation, Fault> {
        self.dma_with(pe, at, access, |found| found)
    }

    /// The same, with what the device does with the memory: `f` runs while the access is in flight.
    /// With a [TCE cache](super::MockBuilder::tce_cache) a fence waits until it has returned, and
    /// freezing waits in any case; so `f` must not do what might wait for either.
    ///
    /// # Errors
    /// As [`dma`](Self::dma); `f` was not called.
    pub fn dma_with<T>(
        &self,
        pe: PeNumber,
        at: Ioba,
        access: Access,
        f: impl FnOnce(Translation) -> T,
    ) -> Result<T, Fault> {
        let Some(bridge_pe) = self.bridges.pes.get(usize::from(pe.0)) else {
            return Err(Fault::NoPe(pe));
        };
        let struck = match access {
            Access::Read => Some(EehAccess::DmaRead),
            Access::Write => Some(EehAccess::DmaWrite),
            Access::Any => None,
        };
        if let Some(struck) = struck
            && read(bridge_pe).armed.is_some()
        {
            write(bridge_pe).strike(struck, at.0);
        }
        let state = read(bridge_pe);
        if state.in_reset || state.dma_frozen {
            return Err(Fault::Frozen { pe, state: state.state() });
        }
        let done = match &self.phb.caches {
            None => self.translate(pe, at, access).map(f),
            Some(caches) => {
                let _flight = caches.begin(pe);
                let segment = self.segment(pe);
                caches.translate(&self.phb, &self.real, pe, segment, at, access).map(f)
            }
        };
        drop(state);
        if let Err(fault) = &done
            // What the host's own bypass lets through is no error.
            && *fault != Fault::NotOwned(pe)
            && !self.bridges.no_freeze
        {
            write(bridge_pe).freeze();
            self.phb.event(|| MockEvent::Freeze(pe));
        }
        done
    }

    /// A load from the register of the PE's device: what was stored there last, 0 at first and after
    /// a reset, and all-ones if the PE is frozen or there is none.
    #[must_use]
    pub fn mmio_load(&self, pe: PeNumber) -> u64 {
        let Some(state) = self.bridges.pes.get(usize::from(pe.0)) else { return u64::MAX };
        let mut state = write(state);
        state.strike(EehAccess::Load, 0);
        if state.in_reset || state.io_frozen { u64::MAX } else { state.register }
    }

    /// A store to it, which is dropped without a word if the PE is frozen or there is none.
    pub fn mmio_store(&self, pe: PeNumber, value: u64) {
        let Some(state) = self.bridges.pes.get(usize::from(pe.0)) else { return };
        let mut state = write(state);
        state.strike(EehAccess::Store, 0);
        if !(state.in_reset || state.io_frozen) {
            state.register = value;
        }
    }

    /// Freezes a PE, as an error of its own does; nothing of the others.
    ///
    /// # Panics
    /// If there is no such PE.
    pub fn freeze(&self, pe: PeNumber) {
        write(self.bridges.pe(pe)).freeze();
        self.phb.event(|| MockEvent::Freeze(pe));
    }

    /// The bridge that a PE is of.
    #[must_use]
    pub fn phb_of(&self, pe: PeNumber) -> u16 {
        self.bridges.of(pe) as u16
    }

    /// Fences a host bridge, as an error of its own does: all of its PEs are frozen, and stay so
    /// until it has been recovered.
    ///
    /// # Panics
    /// If there is no such bridge.
    pub fn fence_phb(&self, phb: u16) {
        let mut fenced = lock(&self.bridges.fenced[usize::from(phb)]);
        *fenced = true;
        for pe in self.pes_of(phb) {
            self.freeze(pe);
        }
    }

    /// Resets a fenced bridge. Its windows are as before, as firmware sets up what it knows again. Its
    /// PEs are still frozen: each waits until somebody who knows of it resets or unfreezes it.
    ///
    /// # Panics
    /// If there is no such bridge.
    pub fn recover_phb(&self, phb: u16) {
        *lock(&self.bridges.fenced[usize::from(phb)]) = false;
    }

    fn pes_of(&self, phb: u16) -> impl Iterator<Item = PeNumber> {
        (phb..self.bridges.pes.len() as u16).step_by(self.bridges.fenced.len()).map(PeNumber)
    }

    pub(super) fn eeh_of_group(&self, group: GroupId, op: EehOp) -> Result<(), BackendError> {
        let pe = self.group(group)?.pe;
        self.bridges.apply(pe, op).map_err(|phb| BackendError::Eeh {
            group,
            request: op.name(),
            reason: format!("PHB {phb} is fenced; recover it first"),
        })
    }

    pub(super) fn eeh_state_of_group(&self, group: GroupId) -> Result<EehState, BackendError> {
        Ok(self.bridges.state(self.group(group)?.pe))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::backend::mock::MockBuilder;
    use crate::eeh::EehFunction;

    const PE: PeNumber = PeNumber(0);
    const GROUP: GroupId = GroupId(0);

    #[test]
    fn io_and_dma_are_unfrozen_apart() {
        let mock = MockBuilder::new(1).build();
        let state = || mock.eeh_state(GROUP).unwrap();
        let op = |op| mock.eeh(GROUP, op).unwrap();
        mock.mmio_store(PE, 7);
        mock.freeze(PE);
        mock.mmio_store(PE, 8);
        assert_eq!((state(), mock.mmio_load(PE)), (EehState::Stopped, u64::MAX));
        op(EehOp::UnfreezeIo);
        assert_eq!((state(), mock.mmio_load(PE)), (EehState::DmaStopped, 7), "8 was dropped");
        op(EehOp::UnfreezeDma);
        assert_eq!(state(), EehState::Normal);
        mock.freeze(PE);
        op(EehOp::UnfreezeDma);
        assert_eq!((state(), mock.mmio_load(PE)), (EehState::Unavailable, u64::MAX));
        op(EehOp::UnfreezeIo);
        assert_eq!((state(), mock.mmio_load(PE)), (EehState::Normal, 7));
    }

    #[test]
    fn a_reset_begins_and_ends() {
        let mock = MockBuilder::new(1).build();
        let op = |op| mock.eeh(GROUP, op).unwrap();
        for reset in [EehOp::ResetHot, EehOp::ResetFundamental] {
            mock.mmio_store(PE, 7);
            mock.freeze(PE);
            op(reset);
            assert_eq!(mock.eeh_state(GROUP), Ok(EehState::InReset));
            assert_eq!(mock.mmio_load(PE), u64::MAX);
            op(EehOp::Configure);
            assert_eq!(mock.eeh_state(GROUP), Ok(EehState::InReset));
            op(EehOp::ResetDeactivate);
            assert_eq!(mock.eeh_state(GROUP), Ok(EehState::Normal));
            assert_eq!(mock.mmio_load(PE), 0, "the device was reset");
        }
    }

    #[test]
    fn an_injected_error_strikes_once() {
        let mock = MockBuilder::new(1).build();
        let inject = |f| mock.eeh(GROUP, EehOp::Inject(EehInjection::anywhere(f))).unwrap();
        inject(EehFunction::STORE);
        assert_eq!((mock.mmio_load(PE), mock.eeh_state(GROUP)), (0, Ok(EehState::Normal)));
        mock.mmio_store(PE, 5);
        assert_eq!((mock.mmio_load(PE), mock.eeh_state(GROUP)), (u64::MAX, Ok(EehState::Stopped)));
        mock.eeh(GROUP, EehOp::ResetDeactivate).unwrap();
        mock.mmio_store(PE, 6);
        assert_eq!(mock.mmio_load(PE), 6);
        inject(EehFunction::LOAD);
        assert_eq!(mock.mmio_load(PE), u64::MAX);
    }

    #[test]
    fn who_is_not_there_is_told_so() {
        let mock = MockBuilder::new(1).build();
        let none = GroupId(1);
        assert_eq!(mock.eeh(none, EehOp::Enable), Err(BackendError::NoGroup(none)));
        assert_eq!(mock.eeh_state(none), Err(BackendError::NoGroup(none)));
        assert_eq!(mock.dma(PeNumber(9), Ioba(0), Access::Read), Err(Fault::NoPe(PeNumber(9))));
        assert_eq!(mock.mmio_load(PeNumber(9)), u64::MAX);
        // The host's own DMA is its own affair.
        assert_eq!(mock.dma(PE, Ioba(0), Access::Read), Err(Fault::NotOwned(PE)));
        assert_eq!(mock.eeh_state(GROUP), Ok(EehState::Normal));
    }
}
