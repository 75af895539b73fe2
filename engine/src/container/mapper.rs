// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One thread's handle to a container: maps and unmaps without a lock that others share.

mod later;
#[cfg(all(test, not(loom)))]
mod tests;

use super::batch::Scratch;
use super::call::{Call, Hand};
use super::debtor::Debtor;
use super::entries::Place;
use super::fast::{At, Done, Fast, Page};
use super::mapping::{Mode, Receipt};
use super::{Container, MapRequest, State, UnmapRequest};
use crate::addr::{GroupId, Ioba, PageShift, Uaddr};
use crate::backend::{Backend, KillPort, SharedPort};
use crate::error::{EntryError, MapError, UnmapError};
use crate::ioba::{IobaAllocator, Magazine};
use crate::kill::{KillCount, KillDebt};
use crate::regions::Counts;
use crate::sync::{Arc, Inside, Reader, Seen, Version};
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
///
/// Under a [`KillPolicy`](crate::kill::KillPolicy) other than strict, kills may wait until the handle's debt
/// is settled: [`Mapper::submit`].
pub struct Mapper {
    container: Arc<Container>,
    state: Reader<State>,
    counts: Counts,
    debt: KillDebt,
    /// What may be owed between calls, if anything.
    debtor: Option<Debtor>,
    /// Kills that no receipt has told of.
    untold: KillCount,
    at: At,
    magazine: Option<Magazine>,
    scratch: Scratch,
    /// What was looked up last, and the version of the structure that it is of.
    fast: Fast,
    version: Version,
    /// The same, or nothing if the fast path is not for this platform.
    seen: Seen,
}

/// A thread's way to the kill registers of some groups.
fn port(backend: &Arc<dyn Backend>, members: &[GroupId]) -> Box<dyn KillPort> {
    backend.clone().kill_port(members).unwrap_or_else(|| {
        Box::new(SharedPort { backend: backend.clone(), members: members.to_vec() })
    })
}

impl Container {
    /// A handle for one thread.
    #[must_use]
    pub fn mapper(self: &Arc<Self>) -> Mapper {
        let state = self.state.reader();
        let mut alone = self.state.write();
        let counts = alone.registrations.open_counts();
        let debtor = Debtor::new(&self.engine, &mut alone);
        drop(alone);
        let backend = &self.engine.backend;
        let debt = self.engine.kill_debt();
        Mapper {
            container: self.clone(),
            at: At {
                who: state.who(),
                on_fill: debt.on_fill(),
                members: 0,
                max_page_kills: debt.max_page_kills(),
                port: port(backend, &[]),
                register: None,
                fill_register: None,
            },
            state,
            counts,
            debt,
            debtor,
            untold: KillCount::default(),
            magazine: None,
            scratch: Scratch::default(),
            fast: Fast::new(PageShift::K4),
            version: Version::NEVER,
            seen: Seen::NOTHING,
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
            // It has no time to look at a clock, and waits for each kill.
            let strict = self.debtor.is_none() && !self.debt.measures_exposure();
            let usual = self.at.max_page_kills > 0 && strict;
            self.seen = if usual { state.seen() } else { Seen::NOTHING };
            self.debtor.iter_mut().for_each(|debtor| debtor.seen = state.seen());
            let ours = self.magazine.as_ref().map_or(PageShift::K4, Magazine::page);
            self.fast = Fast::new(ours);
            self.at.port = port(&self.container.engine.backend, &state.member_ids);
            self.at.register = self.at.port.page_register();
            self.at.fill_register = self.at.register.clone().filter(|_| self.at.on_fill);
            self.at.members = state.member_ids.len() as u32;
        }
        if let Some(debtor) = &self.debtor {
            debtor.take_back(&mut self.magazine);
        }
        let streak = one.map_or(0, |at| self.fast.streak(at));
        let hand = Hand {
            debt: &mut self.debt,
            debtor: self.debtor.as_ref(),
            port: &mut *self.at.port,
            user: User { who: self.at.who, streak },
            counts: self.counts,
            hits: &mut self.fast.hits,
            scratch: &mut self.scratch,
        };
        let (engine, space) = (&*self.container.engine, &*self.container.space);
        f(&mut Call { engine, space, state: &state, hand })
    }

    /// Inside, if what is remembered still holds. No closure is taken: some would not be inlined.
    #[inline(always)]
    fn usual(&mut self) -> Option<(Inside<'_, State>, &mut Fast, &mut At)> {
        let inside = self.state.enter_if(&self.seen)?;
        Some((inside, &mut self.fast, &mut self.at))
    }

    /// Maps one page of the usual kind; `None` if it is not, and nothing was done.
    #[inline(always)]
    fn map_usual(&mut self, at: Ioba, memory: Uaddr, bytes: u64, perm: Perm) -> Option<Done> {
        let page = Page::Any(PageShift::from_bytes(bytes)?);
        let (_inside, fast, call) = self.usual()?;
        fast.map(call, at, memory, page, perm)
    }

    /// The same for an unmap.
    #[inline(always)]
    fn unmap_usual(&mut self, at: Ioba, bytes: u64) -> Option<Done> {
        let (_inside, fast, call) = self.usual()?;
        fast.unmap(call, at, bytes)
    }

    /// The same for one word of a guest's.
    #[inline(always)]
    fn store_usual(&mut self, window: Ioba, at: Ioba, tce: Tce) -> Option<Done> {
        let (_inside, fast, call) = self.usual()?;
        fast.store(call, window, at, tce)
    }

    /// Makes the memory of one page the near one: the fast path may have missed only that.
    fn move_near(&mut self, memory: Uaddr, bytes: u64) {
        let Some(page) = PageShift::from_bytes(bytes) else { return };
        if let Some((_inside, fast, _)) = self.usual() {
            fast.move_near(memory, page);
        }
    }

    /// Remembers what a call on the general path found.
    fn learn(&mut self, at: Ioba, memory: Option<Uaddr>) {
        let state = self.state.enter(true);
        if self.version == state.version() {
            let magazine = self.magazine.as_ref();
            self.fast.learn(&state, self.counts, magazine, at, memory);
        }
    }

    /// See [`Container::map`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn map(
        &mut self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        match self.map_usual(at, memory, bytes, perm) {
            Some(done) => Ok(Receipt { tces: 1, requests: 1, ..done.receipt() }),
            None => self.map_slowly(at, memory, bytes, perm, mode),
        }
    }

    #[cold]
    #[inline(never)]
    fn map_slowly(
        &mut self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        self.move_near(memory, bytes);
        let usual = match self.debtor {
            Some(_) => self.map_later(at, memory, bytes, perm),
            None => self.map_usual(at, memory, bytes, perm),
        };
        if let Some(done) = usual {
            return Ok(self.told(Receipt { tces: 1, requests: 1, ..done.receipt() }));
        }
        let done = self.general(Some(at), |call| call.map(at, memory, bytes, perm, mode))?;
        if done.tces == 1 {
            self.learn(at, Some(memory));
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
        self.general(None, |call| call.map_list(at, pages, perm, mode))
    }

    /// See [`Container::unmap`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn unmap(&mut self, at: Ioba, bytes: u64) -> Result<Receipt, UnmapError> {
        match self.unmap_usual(at, bytes) {
            Some(done) => {
                let receipt = done.receipt();
                Ok(Receipt { tces: receipt.released, requests: 1, steps: 1, ..receipt })
            }
            None => self.unmap_slowly(at, bytes),
        }
    }

    #[cold]
    #[inline(never)]
    fn unmap_slowly(&mut self, at: Ioba, bytes: u64) -> Result<Receipt, UnmapError> {
        match self.unmap_later(at, bytes, false) {
            Some(done) => {
                let receipt = done.receipt();
                let done = Receipt { tces: receipt.released, requests: 1, steps: 1, ..receipt };
                Ok(self.told(done))
            }
            None => self.unmap_generally(at, bytes),
        }
    }

    fn unmap_generally(&mut self, at: Ioba, bytes: u64) -> Result<Receipt, UnmapError> {
        let done = self.general(Some(at), |call| call.unmap(at, bytes))?;
        if done.tces <= 1 {
            self.learn(at, None);
        }
        Ok(done)
    }

    /// The handle with a magazine of bus addresses, for [`Mapper::map_alloc`].
    #[must_use]
    pub fn with_addresses(mut self, addresses: &Arc<IobaAllocator>) -> Self {
        // Some addresses may have to go back to the one before.
        let kills = self.submit();
        self.untold += kills;
        self.magazine = Some(Magazine::new(addresses));
        // What is remembered knows which addresses are the magazine's.
        self.version = Version::NEVER;
        self.seen = Seen::NOTHING;
        self
    }

    /// Maps registered memory where there is room on the bus, and says where. A range of pages gets a
    /// range of addresses.
    ///
    /// # Errors
    /// As [`Container::map`]; [`MapError::NoAddresses`] without an allocator, and
    /// [`MapError::Addresses`] if it has no room. Nothing was mapped or taken.
    #[inline(always)]
    pub fn map_alloc(&mut self, memory: Uaddr, bytes: u64, perm: Perm) -> Result<Ioba, MapError> {
        let Self { state, fast, at: call, magazine, seen, .. } = self;
        let Some(magazine) = magazine else { return Err(MapError::NoAddresses) };
        let Some(page) = PageShift::from_bytes(bytes).filter(|page| *page == fast.ours) else {
            return self.map_alloc_run(memory, bytes, perm);
        };
        let Some(at) = magazine.take_held() else {
            return self.map_alloc_run(memory, bytes, perm);
        };
        let Some(inside) = state.enter_if(seen) else {
            return self.map_taken(at, memory, bytes, perm);
        };
        let done = fast.map(call, at, memory, Page::Ours(page), perm);
        drop(inside);
        if done.is_none() {
            return self.map_taken(at, memory, bytes, perm);
        }
        Ok(at)
    }

    #[cold]
    #[inline(never)]
    fn map_alloc_run(&mut self, memory: Uaddr, bytes: u64, perm: Perm) -> Result<Ioba, MapError> {
        let Some(magazine) = &mut self.magazine else { return Err(MapError::NoAddresses) };
        let page = magazine.page();
        if bytes & (page.bytes() - 1) != 0 {
            return Err(MapError::Unaligned { what: "length", value: bytes, page });
        }
        let pages = bytes >> page.get();
        let at = match magazine.take(pages) {
            Ok(at) => at,
            // Some are owed, perhaps.
            Err(e) => self.take_owed(pages).ok_or(e)?,
        };
        self.map_taken(at, memory, bytes, perm)
    }

    /// Maps at an address that was taken, or gives it back.
    #[cold]
    #[inline(never)]
    fn map_taken(
        &mut self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
    ) -> Result<Ioba, MapError> {
        let done = self.map_slowly(at, memory, bytes, perm, Mode::Refuse);
        if let (Err(_), Some(magazine)) = (&done, &mut self.magazine) {
            magazine.give(at, bytes >> magazine.page().get());
        }
        done.map(|_| at)
    }

    /// Unmaps what [`Mapper::map_alloc`] of a handle with the same allocator mapped at `at`, and gives
    /// the address back.
    ///
    /// # Errors
    /// As [`Container::unmap`]; [`UnmapError::NoAddresses`] without an allocator, and
    /// [`UnmapError::Foreign`] if it has no such run, change nothing. [`UnmapError::NotMapped`] if not
    /// all of it was mapped: then no address was given back.
    #[inline(always)]
    pub fn unmap_free(&mut self, at: Ioba, bytes: u64) -> Result<(), UnmapError> {
        let Self { state, fast, at: call, magazine, seen, .. } = self;
        let Some(page) = PageShift::from_bytes(bytes).filter(|page| *page == fast.ours) else {
            return self.unmap_free_slowly(at, bytes);
        };
        let Some(inside) = state.enter_if(seen) else {
            return self.unmap_free_slowly(at, bytes);
        };
        let done = fast.unmap_usual(call, at, Page::Ours(page));
        drop(inside);
        match magazine {
            Some(magazine) if done.is_some() => magazine.give_covered(at),
            _ => return self.unmap_free_slowly(at, bytes),
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn unmap_free_slowly(&mut self, at: Ioba, bytes: u64) -> Result<(), UnmapError> {
        let Some(magazine) = &self.magazine else { return Err(UnmapError::NoAddresses) };
        let pages = bytes >> magazine.page().get();
        if pages > 0 && !magazine.covers(at, pages) {
            return Err(UnmapError::Foreign { start: at, pages });
        }
        if self.unmap_later(at, bytes, true).is_some() {
            return Ok(());
        }
        // Says what else is wrong with the range.
        let (live, owed) = match self.debtor {
            Some(_) => self.unmap_owing(at, bytes)?,
            None => (self.unmap(at, bytes)?.released, false),
        };
        match &mut self.magazine {
            Some(_) if live == pages && owed => {}
            Some(magazine) if live == pages => magazine.give(at, pages),
            _ => return Err(UnmapError::NotMapped { start: at, pages, live }),
        }
        Ok(())
    }

    /// See [`Container::map_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn map_batch(&mut self, requests: &[MapRequest], mode: Mode) -> Result<Receipt, MapError> {
        self.general(None, |call| call.map_batch(requests, mode))
    }

    /// See [`Container::unmap_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn unmap_batch(&mut self, requests: &[UnmapRequest]) -> Result<Receipt, UnmapError> {
        self.general(None, |call| call.unmap_batch(requests))
    }

    /// See [`Call::store_words`].
    #[inline]
    pub(crate) fn store_words(
        &mut self,
        window: Ioba,
        at: Ioba,
        words: &[u64],
    ) -> Result<Receipt, EntryError> {
        self.general(None, |call| call.store_words(window, at, words))
    }

    /// Stores one entry of the usual kind; `None` if it is not, and nothing was done.
    #[inline(always)]
    pub(crate) fn try_one(&mut self, window: Ioba, at: Ioba, tce: Tce) -> Option<Receipt> {
        let done = self.store_usual(window, at, tce)?;
        let steps = u64::from(tce == Tce::EMPTY);
        Some(Receipt { tces: 1, steps, ..done.receipt() })
    }

    /// Clears a short run of the usual kind; `None` if it is not, and nothing was done.
    #[inline(never)]
    pub(crate) fn try_clear(&mut self, window: Ioba, at: Ioba, count: u64) -> Option<Receipt> {
        let (_inside, fast, call) = self.usual()?;
        let done = fast.clear_guest(call, window, at, count)?;
        Some(Receipt { tces: count, steps: 1, ..done.receipt() })
    }

    /// See [`Call::store_same`].
    pub(crate) fn store_same(
        &mut self,
        window: Ioba,
        at: Ioba,
        tce: Tce,
        count: u64,
    ) -> Result<Receipt, EntryError> {
        let one = (count == 1).then_some(at);
        let done = self.general(one, |call| call.store_same(window, at, tce, count))?;
        one.into_iter().for_each(|at| self.learn(at, None));
        Ok(done)
    }

    /// See [`Call::check`].
    pub(crate) fn check(
        &mut self,
        window: Ioba,
        at: Ioba,
        words: &[u64],
    ) -> Result<(), EntryError> {
        self.call(None, |call| call.check(window, at, words))
    }

    /// See [`Call::place`].
    pub(crate) fn place(&mut self, window: Ioba, at: Ioba) -> Result<Place, EntryError> {
        self.call(None, |call| call.place(window, at))
    }

    pub(crate) fn load(&mut self, window: Ioba, at: Ioba) -> Result<Tce, EntryError> {
        self.call(None, |call| call.load(window, at))
    }
}

impl Done {
    #[inline]
    fn receipt(&self) -> Receipt {
        Receipt {
            released: self.released.into(),
            kills: KillCount { asked: self.asked.into(), issued: self.issued.into() },
            ..Receipt::NONE
        }
    }
}

impl std::fmt::Debug for Mapper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapper of {:?}", self.container)
    }
}
