// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A single page: the same steps as for a range, without what only ranges need.

use super::call::{Call, Hand};
use super::debtor::fill_kills;
use super::mapping::{Mode, Receipt};
use super::windows::Window;
use crate::addr::Uaddr;
use crate::error::{EntryError, MapError, UnmapError};
use crate::kill::KillCount;
use crate::table::{One, User};
use crate::tce::{Perm, Tce};

impl Call<'_> {
    /// Maps the page at `memory`, which is aligned, as entry `index`.
    #[inline]
    pub(super) fn map_one(
        &mut self,
        window: &Window,
        index: u64,
        memory: Uaddr,
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        let page = window.table.geometry().page();
        let (number, real) = self.state.registrations.page(memory, page, self.hand.hits)?;
        let one = window.table.one(index, true, self.user(window))?.expect("the levels were made");
        let old = one.get();
        if mode == Mode::Refuse && !old.is_empty() {
            return Err(MapError::Overlap { start: window.bus(index, 1).at, live: 1 });
        }
        let ioctls =
            if window.kernel { self.publish_one(window, index, &one, memory, perm)? } else { 0 };
        let tce = Tce::new(real.0, perm.powernv());
        let write_only = perm == Perm::WRITE;
        let done = self.replace_one(window, index, one, old, tce, Some(number), write_only);
        Ok(Receipt { ioctls, ..done })
    }

    /// Clears entry `index`.
    #[inline]
    pub(super) fn unmap_one(&mut self, window: &Window, index: u64) -> Result<Receipt, UnmapError> {
        let one = window.table.one(index, false, self.user(window));
        let Some(one) = one.expect("the range is inside the table") else {
            return Ok(Receipt { requests: 1, steps: 1, ..Receipt::NONE });
        };
        let old = one.get();
        let ioctls = if window.kernel && !old.is_empty() {
            self.publish_clear_one(window, index, &one)?
        } else {
            0
        };
        let done = self.replace_one(window, index, one, old, Tce::EMPTY, None, false);
        Ok(Receipt { tces: done.released, steps: 1, ioctls, ..done })
    }

    /// By whom an entry is locked. Nobody works on a kernel's window without the lock, so it is left
    /// to nobody there.
    #[inline]
    fn user(&self, window: &Window) -> User {
        if window.kernel { User { streak: 0, ..self.hand.user } } else { self.hand.user }
    }

    /// Stores what a guest gives as entry `index`.
    #[inline]
    pub(super) fn store_one(
        &mut self,
        window: &Window,
        index: u64,
        tce: Tce,
    ) -> Result<Receipt, EntryError> {
        let mut owner = None;
        if !tce.is_empty() {
            let page = window.table.geometry().page();
            let registrations = &self.state.registrations;
            owner = Some(registrations.guest_entry(tce, page, self.hand.hits)?);
        }
        // A clear makes no level; poison is an entry like others.
        let Some(one) = window.table.one(index, tce != Tce::EMPTY, self.hand.user)? else {
            return Ok(Receipt { tces: 1, steps: 1, ..Receipt::NONE });
        };
        let old = one.get();
        let done = self.replace_one(window, index, one, old, tce, owner, false);
        let steps = u64::from(tce == Tce::EMPTY);
        Ok(Receipt { requests: 0, steps, ..done })
    }

    /// True if an entry has to be killed once it is filled.
    #[inline]
    fn fill_kills(&self, window: &Window, index: u64, one: &One<'_>) -> bool {
        let slots = |line| window.table.line(index, line);
        fill_kills(self.hand.debt.on_fill(), self.hand.debtor, self.state, one, slots)
    }

    /// Claim → write → unlock → kill → fence → release, for one entry.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "one private place where three callers meet")]
    fn replace_one(
        &mut self,
        window: &Window,
        index: u64,
        one: One<'_>,
        old: Tce,
        tce: Tce,
        owner: Option<usize>,
        write_only: bool,
    ) -> Receipt {
        let registrations = &self.state.registrations;
        let was = if old.is_empty() { None } else { one.owner() };
        if let Some(owner) = owner {
            registrations.claim(self.hand.counts, owner, 1);
        }
        if !old.is_empty() {
            self.hand.debt.expose();
        }
        let credit = self.hand.debtor.filter(|debtor| debtor.lends_to_one(&one, tce));
        if let Some(debtor) = credit
            && !old.is_empty()
        {
            debtor.mark_one(&one, tce);
        }
        let _clearing = if old.is_empty() { None } else { self.clearing(credit) };
        // An empty entry may be cached too, or what it was before, if it is filled now.
        let fills = tce != Tce::EMPTY && self.fill_kills(window, index, &one);
        one.set(old, tce, owner, write_only);
        drop(one);
        let kills = if fills || !old.is_empty() {
            let at = (window.bus(index, 1).at, window.table.geometry().page());
            let number = || match old.is_empty() {
                true => None,
                false => was.or_else(|| registrations.number_of_entry(old.address())),
            };
            if let Some(debtor) = credit {
                self.put_off_one(debtor, at.0, number());
                KillCount::default()
            } else {
                let Hand { debt, port, counts, .. } = &mut self.hand;
                let kills = debt.settle_one(*port, self.state.member_ids.len(), at, || {
                    number().into_iter().for_each(|n| registrations.unclaim(*counts, n, 1));
                });
                self.forgive();
                kills
            }
        } else {
            KillCount::default()
        };
        let released = u64::from(!old.is_empty());
        Receipt { tces: 1, released, kills, requests: 1, ..Receipt::NONE }
    }
}
