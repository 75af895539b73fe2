// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The steps that cannot fail any more, shared by maps, guests' stores, unmaps and removals.

use super::windows::Window;
use super::{Container, Receipt, State};
use crate::kill::{KillCount, KillDebt, Tally};
use crate::table::{Held, Writer};

impl Container {
    /// Claim → write → unlock → kill → fence → release. `store` writes all parts.
    #[inline]
    pub(super) fn commit(
        &self,
        state: &State,
        window: &Window,
        mut writer: Writer<'_>,
        claim: &Tally,
        store: impl FnOnce(&mut Writer<'_>),
    ) -> Receipt {
        let count = writer.count();
        let kill = self.engine.caps.tables.kill();
        let on_fill = kill.is_some_and(|kill| kill.on_fill);
        let mut debt = KillDebt::new(kill);
        if on_fill {
            writer.parts().iter().for_each(|(first, count)| debt.changed(*first, *count));
        }
        state.registrations.claim(claim);
        let released = writer.old(|old| {
            state.registrations.attribute(old, debt.owed());
            if !on_fill {
                debt.gone(old);
            }
        });
        store(&mut writer);
        drop(writer);
        let kills = self.settle(state, window, debt);
        Receipt { tces: count, released, kills, ..Receipt::default() }
    }

    /// Clear → kill → fence → release. Makes no level.
    pub(super) fn clear(&self, state: &State, window: &Window, held: Held<'_>) -> Receipt {
        let mut debt = KillDebt::new(self.engine.caps.tables.kill());
        let mut released = 0;
        let steps = held.clear(|old| {
            released += old.summary.live;
            state.registrations.attribute(old, debt.owed());
            debt.gone(old);
        });
        let kills = self.settle(state, window, debt);
        Receipt { tces: released, released, steps, kills, ..Receipt::default() }
    }

    fn settle(&self, state: &State, window: &Window, debt: KillDebt) -> KillCount {
        let engine = &self.engine;
        let members = state.members.iter().map(|m| m.group);
        let page = window.table.geometry().page();
        let settled = debt.settle(engine.policy, &*engine.backend, members, window.start, page);
        state.registrations.unclaim(&settled.released);
        settled.kills
    }
}
