// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Entries as a guest gives them: validated whole, stored as they are, old ones handed back.

use super::call::Call;
use super::windows::Window;
use super::{Container, Receipt, State};
use crate::addr::Ioba;
use crate::error::EntryError;
use crate::tce::{Summary, Tce};

impl State {
    /// The window that starts at `window` and the first of `count` entries at bus address `at`. A
    /// guest has what it asked for, not what the table covers beyond.
    fn guest_range(
        &self,
        window: Ioba,
        at: Ioba,
        count: u64,
    ) -> Result<(&Window, u64), EntryError> {
        let outside = EntryError::OutsideWindow { at, count };
        let found = self.windows.iter().flatten().find(|w| w.start == window);
        let Some((window, offset)) = found.zip(at.0.checked_sub(window.0)) else {
            return Err(outside);
        };
        let geometry = window.table.geometry();
        if window.kernel {
            return Err(EntryError::KernelOwned(window.start));
        }
        let (page, entries) = (geometry.page(), geometry.requested_entries());
        let first = offset >> page.get();
        if first >= entries || count > entries - first {
            return Err(outside);
        }
        if !at.is_aligned(page) {
            return Err(EntryError::Unaligned { at, page });
        }
        Ok((window, first))
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
        let state = self.state;
        let (window, first) = state.guest_range(window, at, words.len() as u64)?;
        if let [word] = words {
            return self.store_one(window, first, Tce::from_be_word(*word));
        }
        let summary = self.engine.tier.survey(words);
        if summary.live == 0 && words.iter().all(|word| *word == Tce::EMPTY.to_be_word()) {
            return self.clear_guest(window, first, words.len() as u64);
        }
        let page = window.table.geometry().page();
        let claim = state.registrations.guest_entries(words.iter().copied(), summary, page)?;
        let writer = window.table.prepare_as(self.hand.user.who, first, words.len() as u64)?;
        // Where filled entries are killed too, nobody needs to know which of them were live.
        let look = !self.hand.debt.on_fill();
        Ok(self.commit(window, writer, &claim, |writer, gone| {
            writer.put_for(words, summary.live, claim.sole(), look, gone)
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
        if count == 1 {
            return self.store_one(window, first, tce);
        }
        if tce == Tce::EMPTY {
            return self.clear_guest(window, first, count);
        }
        let one = Summary::NONE.with(tce);
        let summary = Summary { live: one.live * count, ..one };
        let words = std::iter::repeat_n(tce.to_be_word(), count as usize);
        let page = window.table.geometry().page();
        let claim = state.registrations.guest_entries(words, summary, page)?;
        let writer = window.table.prepare_as(self.hand.user.who, first, count)?;
        Ok(self.commit(window, writer, &claim, |writer, gone| {
            writer.stuff_for(tce, claim.sole(), gone)
        }))
    }

    /// A guest's call covers all its entries, live before or not.
    fn clear_guest(
        &mut self,
        window: &Window,
        first: u64,
        count: u64,
    ) -> Result<Receipt, EntryError> {
        let held = window.table.hold_as(self.hand.user.who, first, count)?;
        Ok(Receipt { tces: count, ..self.clear(window, held) })
    }

    /// The entry at bus address `at`, as it was stored.
    pub(super) fn load(&self, window: Ioba, at: Ioba) -> Result<Tce, EntryError> {
        let (window, index) = self.state.guest_range(window, at, 1)?;
        Ok(window.table.get(index)?)
    }
}
