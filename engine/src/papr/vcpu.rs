// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One vCPU's way to its windows.

use super::compat::Entries;
use super::{Answer, Compat, GuestMemory, HCode, Papr, copy_list, several, too_many};
use crate::addr::{Ioba, Liobn};
use crate::container::{LIST_MAX, Mapper, Place, Receipt};
use crate::error::EntryError;
use crate::kill::KillCount;
use crate::sync::{Arc, read};
use crate::tce::Tce;

/// One vCPU's handle, for the thread that runs it. Its calls are those of [`Papr`]; what it needs
/// to look up, it remembers, and no lock of its path is shared with other vCPUs (see [`Mapper`]).
pub struct Vcpu {
    papr: Arc<Papr>,
    /// The guest's.
    compat: Compat,
    /// LIOBNs that were named before. Each means the same window as long as its PHB is there;
    /// whether that exists at the moment, the container says.
    known: Vec<Known>,
    /// Place of the last one in `known`.
    last: usize,
    mappers: Vec<(u64, Mapper)>,
    /// Private copy of a list.
    words: Box<[u64; LIST_MAX]>,
}

#[derive(Clone, Copy)]
struct Known {
    liobn: u64,
    start: Ioba,
    /// Place in `mappers`.
    mapper: usize,
}

impl Papr {
    /// A handle for the thread that runs a vCPU.
    #[must_use]
    pub fn vcpu(self: &Arc<Self>) -> Vcpu {
        let words = Box::new([0; LIST_MAX]);
        let (papr, compat) = (self.clone(), self.compat);
        Vcpu { papr, compat, known: Vec::new(), last: 0, mappers: Vec::new(), words }
    }
}

impl Vcpu {
    /// Place in `known` of what a guest's register names.
    #[inline]
    fn find(&mut self, liobn: u64) -> Option<Known> {
        match self.known.get(self.last) {
            Some(known) if known.liobn == liobn => Some(*known),
            _ => self.look_up(liobn),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, liobn: u64) -> Option<Known> {
        let place = self.known.iter().position(|known| known.liobn == liobn);
        self.last = match place {
            Some(place) => place,
            None => {
                let names = read(&self.papr.names);
                let target = names.liobns.get(&Liobn(u32::try_from(liobn).ok()?))?;
                let buid = target.phb.spec.buid;
                let mapper = self.mappers.iter().position(|(of, _)| *of == buid);
                let mapper = mapper.unwrap_or_else(|| {
                    self.mappers.push((buid, target.phb.container.mapper()));
                    self.mappers.len() - 1
                });
                self.known.push(Known { liobn, start: target.start, mapper });
                self.known.len() - 1
            }
        };
        Some(self.known[self.last])
    }

    /// The handle for the window that a guest's register names, and where the window begins.
    #[inline(always)]
    fn mapper(&mut self, liobn: u64) -> Option<(&mut Mapper, Ioba)> {
        let known = self.find(liobn)?;
        Some((&mut self.mappers[known.mapper].1, known.start))
    }

    #[inline]
    fn with(
        &mut self,
        liobn: u64,
        f: impl FnOnce(&mut Own<'_>, &mut [u64; LIST_MAX]) -> Answer,
    ) -> Answer {
        match self.find(liobn) {
            Some(Known { mapper, start, .. }) => {
                f(&mut Own { mapper: &mut self.mappers[mapper].1, start }, &mut self.words)
            }
            None => Answer::refused(self.compat.unknown()),
        }
    }

    /// [`Papr::put_tce`].
    #[inline]
    #[must_use]
    pub fn put_tce(&mut self, liobn: u64, ioba: u64, tce: u64) -> Answer {
        // What is usual is the same under all rules.
        if let Some((mapper, start)) = self.mapper(liobn)
            && let Some(receipt) = mapper.try_one(start, Ioba(ioba), Tce::from_value(tce))
        {
            return Answer::done(receipt);
        }
        self.put_slowly(liobn, ioba, tce)
    }

    #[cold]
    fn put_slowly(&mut self, liobn: u64, ioba: u64, tce: u64) -> Answer {
        if let Some((mapper, start)) = self.mapper(liobn)
            && let Some(receipt) = mapper.try_one_later(start, Ioba(ioba), Tce::from_value(tce))
        {
            return Answer::done(receipt);
        }
        let compat = self.compat;
        self.with(liobn, |on, _| compat.put(on, ioba, tce))
    }

    /// [`Papr::put_tce_indirect`].
    #[must_use]
    pub fn put_tce_indirect(
        &mut self,
        liobn: u64,
        ioba: u64,
        list: u64,
        count: u64,
        memory: &dyn GuestMemory,
    ) -> Answer {
        let compat = self.compat;
        if let Some(liobns) = several(compat, liobn) {
            return self.papr.put_multi(liobns, ioba, list, count, memory, &mut self.words);
        }
        self.with(liobn, |on, words| match copy_list(compat, list, count, memory, words) {
            Ok(words) => compat.list(on, ioba, words),
            Err(code) => compat.no_list(on, ioba, code),
        })
    }

    /// [`Papr::stuff_tce`].
    #[inline]
    #[must_use]
    pub fn stuff_tce(&mut self, liobn: u64, ioba: u64, tce: u64, count: u64) -> Answer {
        if Tce::from_value(tce) == Tce::EMPTY
            && let Some(Known { mapper, start, .. }) = self.find(liobn)
        {
            let mapper = &mut self.mappers[mapper].1;
            let done = if count == 1 {
                mapper.try_one(start, Ioba(ioba), Tce::EMPTY)
            } else {
                mapper.try_clear(start, Ioba(ioba), count)
            };
            if let Some(receipt) = done {
                return Answer::done(receipt);
            }
        }
        self.stuff_slowly(liobn, ioba, tce, count)
    }

    #[inline(never)]
    fn stuff_slowly(&mut self, liobn: u64, ioba: u64, tce: u64, count: u64) -> Answer {
        let compat = self.compat;
        if too_many(compat, count) {
            return Answer::refused(HCode::P4);
        }
        if Tce::from_value(tce) == Tce::EMPTY
            && let Some((mapper, start)) = self.mapper(liobn)
            && let Some(receipt) = mapper.try_clear_later(start, Ioba(ioba), count)
        {
            return Answer::done(receipt);
        }
        self.with(liobn, |on, _| compat.stuff(on, ioba, tce, count))
    }

    /// [`Mapper::submit`] for all windows that the vCPU has used.
    pub fn submit(&mut self) -> KillCount {
        let mut kills = KillCount::default();
        self.mappers.iter_mut().for_each(|(_, mapper)| kills += mapper.submit());
        kills
    }

    /// [`Mapper::owed`] of all windows that the vCPU has used.
    #[must_use]
    pub fn owed(&self) -> u64 {
        self.mappers.iter().map(|(_, mapper)| mapper.owed()).sum()
    }

    /// [`Mapper::held_back`] of all windows that the vCPU has used.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        self.mappers.iter().map(|(_, mapper)| mapper.held_back()).sum()
    }

    /// [`Papr::get_tce`].
    #[must_use]
    pub fn get_tce(&mut self, liobn: u64, ioba: u64) -> (HCode, u64) {
        let (compat, mut value) = (self.compat, 0);
        let answer = self.with(liobn, |on, _| compat.get(on, ioba, &mut value));
        (answer.code, value)
    }
}

/// One window by this vCPU's handle.
struct Own<'a> {
    mapper: &'a mut Mapper,
    start: Ioba,
}

impl Entries for Own<'_> {
    fn store_words(&mut self, at: Ioba, words: &[u64]) -> Result<Receipt, EntryError> {
        self.mapper.store_words(self.start, at, words)
    }

    fn store_same(&mut self, at: Ioba, tce: Tce, count: u64) -> Result<Receipt, EntryError> {
        self.mapper.store_same(self.start, at, tce, count)
    }

    fn load(&mut self, at: Ioba) -> Result<Tce, EntryError> {
        self.mapper.load(self.start, at)
    }

    fn check(&mut self, at: Ioba, words: &[u64]) -> Result<(), EntryError> {
        self.mapper.check(self.start, at, words)
    }

    fn place(&mut self, at: Ioba) -> Result<Place, EntryError> {
        self.mapper.place(self.start, at)
    }
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vcpu of {:?}", self.papr)
    }
}
