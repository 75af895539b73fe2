// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Calls of handles that may owe kills.

use super::{At, Done, Fast, Mapper};
use crate::addr::{Ioba, PageShift, Uaddr};
use crate::container::call::Call;
use crate::container::debtor::Debtor;
use crate::container::{Receipt, State};
use crate::error::UnmapError;
use crate::kill::KillCount;
use crate::sync::Inside;
use crate::tce::{Perm, Tce};

impl Mapper {
    /// Settles what the handle owes: kills, waits, releases. The end of a batch under
    /// [`KillPolicy::Batched`](crate::kill::KillPolicy::Batched). Returns the kills that it took.
    pub fn submit(&mut self) -> KillCount {
        let kills = match &self.debtor {
            Some(debtor) if debtor.debts.pages() > 0 => self.call(None, |call| call.retire_own()),
            _ => KillCount::default(),
        };
        if let Some(debtor) = &self.debtor {
            debtor.take_back(&mut self.magazine);
        }
        kills + std::mem::take(&mut self.untold)
    }

    /// Pages that the handle has changed and whose kills it owes; one counts as often as it was changed.
    /// 0 under [`KillPolicy::Strict`](crate::kill::KillPolicy::Strict).
    #[must_use]
    pub fn owed(&self) -> u64 {
        self.debtor.as_ref().map_or(0, |debtor| debtor.debts.pages().into())
    }

    /// Those of them that were unmapped or replaced, and are held back: pinned, and counted as mapped, as
    /// often as they were; the addresses of what was unmapped stay taken.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        self.debtor.as_ref().map_or(0, |debtor| debtor.debts.held().into())
    }

    /// Makes room for so many more pages, or settles what has waited for long enough.
    fn make_room(&mut self, more: u64) {
        if self.debtor.as_ref().is_some_and(|debtor| debtor.is_due(more)) {
            self.untold = self.submit();
        }
    }

    /// A receipt with the kills that no other has told of.
    pub(super) fn told(&mut self, receipt: Receipt) -> Receipt {
        let kills = receipt.kills + std::mem::take(&mut self.untold);
        Receipt { kills, ..receipt }
    }

    /// A call on the general path.
    pub(super) fn general<E>(
        &mut self,
        one: Option<Ioba>,
        f: impl FnOnce(&mut Call<'_>) -> Result<Receipt, E>,
    ) -> Result<Receipt, E> {
        self.make_room(0);
        let done = self.call(one, f)?;
        Ok(self.told(done))
    }

    /// Takes addresses of which some are owed.
    #[cold]
    pub(super) fn take_owed(&mut self, pages: u64) -> Option<Ioba> {
        self.debtor.as_ref()?;
        self.untold = self.submit();
        self.magazine.as_mut()?.take(pages).ok()
    }

    /// Unmaps on the general path; the live entries that went, and true if their addresses go back when
    /// the debt is settled.
    pub(super) fn unmap_owing(&mut self, at: Ioba, bytes: u64) -> Result<(u64, bool), UnmapError> {
        let ask = |mapper: &Self, yes| mapper.debtor.iter().for_each(|debtor| debtor.ask_free(yes));
        ask(self, true);
        let done = self.unmap_generally(at, bytes);
        let owed = self.debtor.as_ref().is_some_and(|debtor| !debtor.takes_free());
        let done = done?;
        self.untold = done.kills;
        Ok((done.released, owed))
    }

    /// Inside, if what is remembered still holds, with what may be owed.
    fn usual_later(&mut self) -> Option<(Inside<'_, State>, &mut Fast, &mut At, &Debtor)> {
        let debtor = self.debtor.as_ref()?;
        let inside = self.state.enter_if(&debtor.seen)?;
        debtor.take_back(&mut self.magazine);
        Some((inside, &mut self.fast, &mut self.at, debtor))
    }

    /// Maps one page of the usual kind; `None` if it is not, and nothing was done.
    pub(super) fn map_later(
        &mut self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
    ) -> Option<Done> {
        let page = PageShift::from_bytes(bytes)?;
        self.make_room(u64::from(self.debtor.as_ref()?.fills));
        let (inside, fast, call, debtor) = self.usual_later()?;
        fast.map_later(call, (&inside, debtor), at, memory, page, perm)
    }

    /// The same for an unmap of a run, whose addresses may go back to the magazine.
    pub(super) fn unmap_later(&mut self, at: Ioba, bytes: u64, free: bool) -> Option<Done> {
        self.debtor.as_ref()?;
        self.make_room(self.fast.pages(at, bytes));
        let (_inside, fast, call, debtor) = self.usual_later()?;
        fast.unmap_later(call, debtor, at, bytes, free)
    }

    /// Stores one entry of the usual kind and owes for it; `None` if it is not, and nothing was done.
    pub(crate) fn try_one_later(&mut self, window: Ioba, at: Ioba, tce: Tce) -> Option<Receipt> {
        self.debtor.as_ref()?;
        self.make_room(1);
        let (inside, fast, call, debtor) = self.usual_later()?;
        let done = fast.store_later(call, (&inside, debtor), window, at, tce)?;
        let steps = u64::from(tce == Tce::EMPTY);
        drop(inside);
        Some(self.told(Receipt { tces: 1, steps, ..done.receipt() }))
    }

    /// Clears a run of the usual kind and owes for it; `None` if it is not, and nothing was done.
    pub(crate) fn try_clear_later(
        &mut self,
        window: Ioba,
        at: Ioba,
        count: u64,
    ) -> Option<Receipt> {
        self.debtor.as_ref()?;
        self.make_room(count);
        let (inside, fast, call, debtor) = self.usual_later()?;
        let done = fast.clear_guest_later(call, debtor, window, at, count)?;
        drop(inside);
        Some(self.told(Receipt { tces: count, steps: 1, ..done.receipt() }))
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        if self.container.engine.same_process().is_ok() {
            self.submit();
        }
        let mut state = self.container.state.write();
        state.registrations.close_counts(self.counts);
        self.debtor.iter().for_each(|debtor| state.debtors.close(debtor));
    }
}
