// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Entries as a guest gives them: validated whole, stored as they are, old ones handed back.

use super::call::Call;
use super::windows::Window;
use super::{Container, Receipt, State};
use crate::addr::{Ioba, PageShift};
use crate::error::EntryError;
use crate::tce::{Summary, Tce};

impl State {
    /// The window that starts at `window`, and the guest's entry whose page bus address `at` lies in.
    /// A guest has what it asked for, not what the table covers beyond. `count` is for the error.
    #[inline]
    fn place(&self, window: Ioba, at: Ioba, count: u64) -> Result<(&Window, Place), EntryError> {
        let outside = EntryError::OutsideWindow { at, count };
        let found = self.windows.iter().flatten().find(|w| w.start == window);
        let window = found.ok_or(EntryError::NoWindow(window))?;
        let Some(offset) = at.0.checked_sub(window.start.0) else { return Err(outside) };
        if window.kernel {
            return Err(EntryError::KernelOwned(window.start));
        }
        let page = window.guest_page;
        let place = Place {
            page,
            index: offset >> page.get(),
            entries: window.table.geometry().size() >> page.get(),
        };
        if place.index < place.entries { Ok((window, place)) } else { Err(outside) }
    }

    /// The window that starts at `window` and the table's first entry of `count` of a guest's at bus
    /// address `at`.
    #[inline]
    fn guest_range(
        &self,
        window: Ioba,
        at: Ioba,
        count: u64,
    ) -> Result<(&Window, u64), EntryError> {
        let (window, place) = self.place(window, at, count)?;
        if count > place.left() {
            return Err(EntryError::OutsideWindow { at, count });
        }
        if !at.is_aligned(place.page) {
            return Err(EntryError::Unaligned { at, page: place.page });
        }
        Ok((window, place.index << window.parts()))
    }
}

/// Where in a guest's window an address lies.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) page: PageShift,
    /// Which of the guest's entries it is.
    index: u64,
    /// How many the window has.
    pub(crate) entries: u64,
}

impl Place {
    /// Entries from there to the window's end.
    #[inline]
    pub(crate) fn left(&self) -> u64 {
        self.entries - self.index
    }
}

impl Container {
    /// See [`Call::store_words`].
    pub(crate) fn store_words(
        &self,
        window: Ioba,
        at: Ioba,
        words: &[u64],
    ) -> Result<Receipt, EntryError> {
        self.call(|call| call.store_words(window, at, words))
    }

    /// See [`Call::store_same`].
    pub(crate) fn store_same(
        &self,
        window: Ioba,
        at: Ioba,
        tce: Tce,
        count: u64,
    ) -> Result<Receipt, EntryError> {
        self.call(|call| call.store_same(window, at, tce, count))
    }

    /// [`Call::store_words`] here when `then`, which runs once nothing can fail here any more, has
    /// succeeded; otherwise nothing.
    pub(crate) fn store_words_after(
        &self,
        window: Ioba,
        at: Ioba,
        words: &[u64],
        then: impl FnOnce() -> Result<(), EntryError>,
    ) -> Result<Receipt, EntryError> {
        self.call(|call| {
            let (window, first) = call.state.guest_range(window, at, words.len() as u64)?;
            call.store_list(window, first, words, then)
        })
    }

    /// See [`Call::check`].
    pub(crate) fn check(&self, window: Ioba, at: Ioba, words: &[u64]) -> Result<(), EntryError> {
        self.call(|call| call.check(window, at, words))
    }

    /// See [`Call::place`].
    pub(crate) fn place(&self, window: Ioba, at: Ioba) -> Result<Place, EntryError> {
        self.call(|call| call.place(window, at))
    }

    /// The entry at bus address `at`, as it was stored.
    pub(crate) fn load(&self, window: Ioba, at: Ioba) -> Result<Tce, EntryError> {
        self.call(|call| call.load(window, at))
    }
}

impl Call<'_> {
    /// Stores a list of words at bus address `at` of the window that starts at `window`: all of
    /// them, or none.
    pub(super) fn store_words(
        &mut self,
        window: Ioba,
        at: Ioba,
        words: &[u64],
    ) -> Result<Receipt, EntryError> {
        let (window, first) = self.state.guest_range(window, at, words.len() as u64)?;
        match words {
            [word] if window.parts() == 0 => {
                self.store_one(window, first, Tce::from_be_word(*word))
            }
            _ => self.store_list(window, first, words, || Ok(())),
        }
    }

    /// Stores a list of words from the table's entry `first` on, if `then` agrees once nothing can
    /// fail here any more.
    #[inline]
    fn store_list(
        &mut self,
        window: &Window,
        first: u64,
        words: &[u64],
        then: impl FnOnce() -> Result<(), EntryError>,
    ) -> Result<Receipt, EntryError> {
        let summary = self.engine.tier.survey(words);
        let (count, who) = (words.len() as u64, self.hand.user.who);
        if summary.live == 0 && words.iter().all(|word| *word == Tce::EMPTY.to_be_word()) {
            return self.clear_guest(window, first, count, then);
        }
        let all = words.iter().copied();
        if window.parts() > 0 {
            let tce = |n: u64| Tce::from_be_word(words[n as usize]);
            return self.store_parts(window, (first, count), (summary, all), tce, then);
        }
        let claim = self.state.registrations.guest_entries(all, summary, window.guest_page)?;
        let writer = window.table.prepare_as(who, first, count)?;
        then()?;
        // Where filled entries are killed too, nobody needs to know which of them were live.
        let look = !self.hand.debt.on_fill();
        Ok(self.commit(window, writer, &claim, |writer, gone| {
            writer.put_for(words, summary.live, claim.sole(), look, gone)
        }))
    }

    /// Stores entries that are each for several pages of the table: `count` of the guest's, which
    /// `tce` gives by number, and their words and sum.
    #[inline(never)]
    fn store_parts(
        &mut self,
        window: &Window,
        (first, count): (u64, u64),
        (summary, words): (Summary, impl Iterator<Item = u64>),
        tce: impl Fn(u64) -> Tce + Sync,
        then: impl FnOnce() -> Result<(), EntryError>,
    ) -> Result<Receipt, EntryError> {
        let (parts, who) = (window.parts(), self.hand.user.who);
        let claim = self.state.registrations.guest_entries(words, summary, window.guest_page)?;
        let claim = claim.times(1 << parts);
        let writer = window.table.prepare_as(who, first, count << parts)?;
        then()?;
        Ok(self.commit(window, writer, &claim, |writer, gone| {
            writer.put_parts(parts, tce, claim.sole(), gone)
        }))
    }

    /// Stores the same entry `count` times.
    pub(super) fn store_same(
        &mut self,
        window: Ioba,
        at: Ioba,
        tce: Tce,
        count: u64,
    ) -> Result<Receipt, EntryError> {
        let state = self.state;
        let (window, first) = state.guest_range(window, at, count)?;
        if count == 1 && window.parts() == 0 {
            return self.store_one(window, first, tce);
        }
        if tce == Tce::EMPTY {
            return self.clear_guest(window, first, count, || Ok(()));
        }
        let one = Summary::NONE.with(tce);
        let summary = Summary { live: one.live * count, ..one };
        let words = std::iter::repeat_n(tce.to_be_word(), count as usize);
        if window.parts() > 0 {
            let given = (summary, words);
            return self.store_parts(window, (first, count), given, |_| tce, || Ok(()));
        }
        let claim = state.registrations.guest_entries(words, summary, window.guest_page)?;
        let writer = window.table.prepare_as(self.hand.user.who, first, count)?;
        Ok(self.commit(window, writer, &claim, |writer, gone| {
            writer.stuff_for(tce, claim.sole(), gone)
        }))
    }

    /// A guest's call covers all its entries, live before or not.
    #[inline(never)]
    fn clear_guest(
        &mut self,
        window: &Window,
        first: u64,
        count: u64,
        then: impl FnOnce() -> Result<(), EntryError>,
    ) -> Result<Receipt, EntryError> {
        let tces = count << window.parts();
        let held = window.table.hold_as(self.hand.user.who, first, tces)?;
        then()?;
        Ok(Receipt { tces, ..self.clear(window, held) })
    }

    /// Checks a list as [`Call::store_words`] does, but of its bus addresses only the first.
    pub(super) fn check(&self, window: Ioba, at: Ioba, words: &[u64]) -> Result<(), EntryError> {
        let (window, _) = self.state.guest_range(window, at, words.len().min(1) as u64)?;
        let summary = self.engine.tier.survey(words);
        let words = words.iter().copied();
        self.state.registrations.guest_entries(words, summary, window.guest_page).map(drop)
    }

    /// The entry whose page bus address `at` lies in.
    pub(super) fn place(&self, window: Ioba, at: Ioba) -> Result<Place, EntryError> {
        Ok(self.state.place(window, at, 1)?.1)
    }

    /// The entry at bus address `at`, as it was stored.
    pub(super) fn load(&self, window: Ioba, at: Ioba) -> Result<Tce, EntryError> {
        let (window, index) = self.state.guest_range(window, at, 1)?;
        Ok(window.table.get(index)?)
    }
}
