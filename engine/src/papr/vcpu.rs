// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One vCPU's way to its windows.

use super::{Answer, GuestMemory, HCode, Papr, get, indirect, stuff};
use crate::addr::{Ioba, Liobn};
use crate::container::{LIST_MAX, Mapper, Receipt};
use crate::error::EntryError;
use crate::sync::{Arc, read};
use crate::tce::Tce;

/// One vCPU's handle, for the thread that runs it. Its calls are those of [`Papr`]; what it needs
/// to look up, it remembers, and no lock of its path is shared with other vCPUs (see [`Mapper`]).
pub struct Vcpu {
    papr: Arc<Papr>,
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
        Vcpu { papr: self.clone(), known: Vec::new(), last: 0, mappers: Vec::new(), words }
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
        f: impl FnOnce(&mut Mapper, Ioba, &mut [u64; LIST_MAX]) -> Result<Receipt, EntryError>,
    ) -> Answer {
        match self.find(liobn) {
            Some(known) => {
                f(&mut self.mappers[known.mapper].1, known.start, &mut self.words).into()
            }
            None => Answer::refused(HCode::PARAMETER),
        }
    }

    /// [`Papr::put_tce`].
    #[inline]
    #[must_use]
    pub fn put_tce(&mut self, liobn: u64, ioba: u64, tce: u64) -> Answer {
        // No closure: it would not be inlined.
        match self.mapper(liobn) {
            Some((mapper, start)) => {
                mapper.store_one(start, Ioba(ioba), Tce::from_value(tce)).into()
            }
            None => Answer::refused(HCode::PARAMETER),
        }
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
        if (liobn as i64) < 0 {
            return Answer::refused(HCode::FUNCTION);
        }
        self.with(liobn, |mapper, start, words| {
            let words = indirect(list, count, memory, words)?;
            mapper.store_words(start, Ioba(ioba), words)
        })
    }

    /// [`Papr::stuff_tce`].
    #[inline]
    #[must_use]
    pub fn stuff_tce(&mut self, liobn: u64, ioba: u64, tce: u64, count: u64) -> Answer {
        if let Some(refused) = stuff(count) {
            return refused;
        }
        match self.mapper(liobn) {
            Some((mapper, start)) => {
                mapper.store_same(start, Ioba(ioba), Tce::from_value(tce), count).into()
            }
            None => Answer::refused(HCode::PARAMETER),
        }
    }

    /// [`Papr::get_tce`].
    #[must_use]
    pub fn get_tce(&mut self, liobn: u64, ioba: u64) -> (HCode, u64) {
        get(|value| {
            self.with(liobn, |mapper, start, _| {
                *value = mapper.load(start, Ioba(ioba))?.value();
                Ok(Receipt::default())
            })
        })
    }
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vcpu of {:?}", self.papr)
    }
}
