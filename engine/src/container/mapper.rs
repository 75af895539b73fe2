// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One thread's handle to a container: maps and unmaps without a lock that others share.

use super::call::{Call, Hand};
use super::fast::{At, Done, Fast, Memory};
use super::mapping::{Mode, Receipt};
use super::{Container, MapRequest, State, UnmapRequest};
use crate::addr::{Ioba, Uaddr};
use crate::backend::KillPort;
use crate::error::{EntryError, MapError, UnmapError};
use crate::kill::{KillCount, KillDebt, KillPolicy};
use crate::regions::{Counts, Hits};
use crate::sync::{Arc, Reader, Who};
use crate::table::User;
use crate::tce::{Perm, Tce};

/// One thread's handle to a container, for those that map and unmap a lot.
///
/// Its calls do what the [`Container`]'s of the same name do. What they need of their own, they
/// keep: counts, the memory of a kill queue, a way to the kill registers, and what they looked up
/// last. The lock of a stretch of table is left to the handle that keeps coming back to it, so that
/// a map or an unmap of one page takes no locked instruction there, and one elsewhere.
///
/// In return, a change of the structure (groups, windows, registrations) waits for every handle that
/// is in a call, as do making a handle and dropping it; and who wants a stretch that was left to
/// another handle has to wait until that is not in a call.
pub struct Mapper {
    container: Arc<Container>,
    state: Reader<State>,
    who: Who,
    counts: Counts,
    debt: KillDebt,
    /// Pages are killed one by one here, and by the engine.
    by_page: bool,
    port: Box<dyn KillPort>,
    /// What was looked up last, and the version of the structure that it is of.
    hits: Hits,
    fast: Fast,
    version: u64,
}

impl Container {
    /// A handle for one thread.
    #[must_use]
    pub fn mapper(self: &Arc<Self>) -> Mapper {
        let state = self.state.reader();
        let counts = self.state.write().registrations.open_counts();
        let backend = &self.engine.backend;
        let debt = KillDebt::new(self.engine.caps.tables.kill());
        Mapper {
            container: self.clone(),
            who: state.who(),
            state,
            counts,
            by_page: debt.by_page() && self.engine.policy == KillPolicy::Strict,
            debt,
            port: backend.clone().kill_port().unwrap_or_else(|| Box::new(backend.clone())),
            hits: Hits::default(),
            fast: Fast::default(),
            version: 0,
        }
    }
}

impl Mapper {
    /// The container.
    #[must_use]
    pub fn container(&self) -> &Arc<Container> {
        &self.container
    }

    /// A call on the general path. A single page at `one` counts as a visit to its segment.
    fn call<T>(&mut self, one: Option<Ioba>, f: impl FnOnce(&mut Call<'_>) -> T) -> T {
        let state = self.state.enter(true);
        if self.version != state.version() {
            self.version = state.version();
            self.hits = Hits::default();
            self.fast = Fast::default();
        }
        let streak = one.map_or(0, |at| self.fast.streak(at));
        let hand = Hand {
            debt: &mut self.debt,
            port: &mut *self.port,
            user: User { who: self.who, streak },
            counts: self.counts,
            hits: &mut self.hits,
        };
        let (engine, space) = (&*self.container.engine, &*self.container.space);
        f(&mut Call { engine, space, state: &state, hand })
    }

    /// A call for one page of the usual kind; `None` if it is not, and nothing was done.
    #[inline]
    fn fast(&mut self, f: impl FnOnce(&Fast, &mut At<'_>) -> Option<Done>) -> Option<Done> {
        let state = self.state.enter(false);
        if self.version != state.version() || !self.by_page {
            return None;
        }
        let (who, on_fill) = (self.who, self.debt.on_fill());
        f(&self.fast, &mut At { state: &state, who, on_fill, port: &mut *self.port })
    }

    /// Remembers what a call on the general path found.
    fn learn(&mut self, at: Ioba, memory: Memory) {
        let state = self.state.enter(true);
        if self.version == state.version() {
            self.fast.learn(&state, self.counts, at, memory);
        }
    }

    /// See [`Container::map`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn map(
        &mut self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        match self.fast(|fast, call| fast.map(call, at, memory, bytes, perm)) {
            Some(done) => Ok(Receipt { tces: 1, requests: 1, ..done.receipt() }),
            None => self.map_slowly(at, memory, bytes, perm, mode),
        }
    }

    fn map_slowly(
        &mut self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        let done = self.call(Some(at), |call| call.map(at, memory, bytes, perm, mode))?;
        if done.tces == 1 {
            self.learn(at, Memory::User(memory));
        }
        Ok(done)
    }

    /// See [`Container::map_list`].
    ///
    /// # Errors
    /// As there.
    pub fn map_list(
        &mut self,
        at: Ioba,
        pages: &[Uaddr],
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        self.call(None, |call| call.map_list(at, pages, perm, mode))
    }

    /// See [`Container::unmap`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn unmap(&mut self, at: Ioba, bytes: u64) -> Result<Receipt, UnmapError> {
        match self.fast(|fast, call| fast.unmap(call, at, bytes)) {
            Some(done) => {
                let tces = u64::from(done.released);
                Ok(Receipt { tces, requests: 1, steps: 1, ..done.receipt() })
            }
            None => self.unmap_slowly(at, bytes),
        }
    }

    fn unmap_slowly(&mut self, at: Ioba, bytes: u64) -> Result<Receipt, UnmapError> {
        let done = self.call(Some(at), |call| call.unmap(at, bytes))?;
        if done.tces <= 1 {
            self.learn(at, Memory::None);
        }
        Ok(done)
    }

    /// See [`Container::map_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn map_batch(&mut self, requests: &[MapRequest], mode: Mode) -> Result<Receipt, MapError> {
        self.call(None, |call| call.map_batch(requests, mode))
    }

    /// See [`Container::unmap_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn unmap_batch(&mut self, requests: &[UnmapRequest]) -> Result<Receipt, UnmapError> {
        self.call(None, |call| call.unmap_batch(requests))
    }

    /// See [`Call::store_words`].
    #[inline]
    pub(crate) fn store_words(
        &mut self,
        window: Ioba,
        at: Ioba,
        words: &[u64],
    ) -> Result<Receipt, EntryError> {
        self.call(None, |call| call.store_words(window, at, words))
    }

    /// One word of them.
    #[inline]
    pub(crate) fn store_one(
        &mut self,
        window: Ioba,
        at: Ioba,
        tce: Tce,
    ) -> Result<Receipt, EntryError> {
        match self.fast(|fast, call| fast.store(call, window, at, tce)) {
            Some(done) => {
                let steps = u64::from(tce == Tce::EMPTY);
                Ok(Receipt { tces: 1, steps, ..done.receipt() })
            }
            None => self.store_slowly(window, at, tce),
        }
    }

    fn store_slowly(&mut self, window: Ioba, at: Ioba, tce: Tce) -> Result<Receipt, EntryError> {
        let done = self.call(Some(at), |call| call.store_same(window, at, tce, 1))?;
        let memory = if tce.is_empty() { Memory::None } else { Memory::Guest(tce.address()) };
        self.learn(at, memory);
        Ok(done)
    }

    /// See [`Call::store_same`].
    #[inline]
    pub(crate) fn store_same(
        &mut self,
        window: Ioba,
        at: Ioba,
        tce: Tce,
        count: u64,
    ) -> Result<Receipt, EntryError> {
        if count == 1 {
            return self.store_one(window, at, tce);
        }
        self.call(None, |call| call.store_same(window, at, tce, count))
    }

    pub(crate) fn load(&mut self, window: Ioba, at: Ioba) -> Result<Tce, EntryError> {
        self.call(None, |call| call.load(window, at))
    }
}

impl Done {
    #[inline]
    fn receipt(&self) -> Receipt {
        Receipt {
            released: u64::from(self.released),
            kills: KillCount { asked: self.asked, issued: self.issued },
            ..Receipt::NONE
        }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.container.state.write().registrations.close_counts(self.counts);
    }
}

impl std::fmt::Debug for Mapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapper of {:?}", self.container)
    }
}
