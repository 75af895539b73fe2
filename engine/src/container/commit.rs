// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The steps that cannot fail any more, shared by maps, guests' stores, unmaps and removals.

use super::Receipt;
use super::call::Call;
use super::windows::Window;
use crate::kill::{KillDebt, Tally};
use crate::regions::Registrations;
use crate::sabotage::{Guard, stands};
use crate::table::{Gone, Held, Writer};

/// What goes owes its kill, unless its whole range does anyway, and its count.
fn owe(registrations: &Registrations, debt: &mut KillDebt, kill: bool, gone: &Gone<'_>) {
    match *gone {
        Gone::Known { first, count, live, owner } => {
            debt.owed().add(owner, live);
            if kill {
                debt.some_gone(first, count, live);
            }
        }
        Gone::Look(old) => {
            match old.owner() {
                Some(owner) => debt.owed().add(owner, old.summary.live),
                None => registrations.attribute(old, debt.owed()),
            }
            if kill {
                debt.gone(old);
            }
        }
    }
}

impl Call<'_> {
    /// Claim → write → unlock → kill → fence → release. `store` writes all parts and passes on what
    /// was live there; it returns how many entries that were.
    #[inline]
    pub(super) fn commit(
        &mut self,
        window: &Window,
        mut writer: Writer<'_>,
        claim: &Tally,
        store: impl FnOnce(&mut Writer<'_>, &mut dyn FnMut(Gone<'_>)) -> u64,
    ) -> Receipt {
        let tces = writer.count();
        let (registrations, debt) = (&self.state.registrations, &mut *self.hand.debt);
        let on_fill = debt.on_fill();
        if on_fill {
            writer.parts().iter().for_each(|(first, count)| debt.changed(*first, *count));
        } else if !window.kernel {
            writer.in_debt(|first, count| debt.changed(first, count));
        }
        claim.iter().for_each(|(number, n)| registrations.claim(self.hand.counts, number, n));
        debt.expose();
        let credit = self.hand.debtor.filter(|debtor| debtor.lends_to_fills(tces));
        let _clearing = self.clearing(credit);
        let debt = &mut *self.hand.debt;
        let mut gone = |gone: Gone<'_>| owe(registrations, debt, !on_fill, &gone);
        let released = store(&mut writer, &mut gone);
        drop(writer);
        let kills = self.settle(window, credit);
        Receipt { tces, released, kills, ..Receipt::default() }
    }

    /// Clear → kill → fence → release. Makes no level.
    pub(super) fn clear(&mut self, window: &Window, held: Held<'_>) -> Receipt {
        if !stands(Guard::ClearFirst) {
            held.live(|old| self.hand.debt.gone(old));
            self.settle(window, None);
        }
        let count = held.count();
        let credit = self.hand.debtor.filter(|debtor| debtor.lends_to(&held));
        let _clearing = self.clearing(credit);
        let (registrations, debt) = (&self.state.registrations, &mut *self.hand.debt);
        let mut released = 0;
        debt.expose();
        let steps = held.sweep(|gone| {
            released += gone.live();
            owe(registrations, debt, stands(Guard::ClearFirst), &gone);
        });
        if let Some(debtor) = credit {
            debtor.mark(debt, &held);
            debtor.free_if(released == count);
        }
        drop(held);
        let kills = self.settle(window, credit);
        Receipt { tces: released, released, steps, kills, ..Receipt::default() }
    }
}
