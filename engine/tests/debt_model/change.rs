// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Changes of the structure: their maker holds `Container::state` alone, so that no call of a handle's
//! is under way from the beginning to the end. Devices go on.

use crate::protocol::{Mistake, Protocol};
use crate::settle::ALL;
use crate::state::{Actor, Change, HANDLES, Member, Page, State};

impl Protocol {
    /// A change begins when no call is under way, and none begins before it ends. It retires all
    /// debts first.
    pub(crate) fn change(&self, s: &State, change: Change) -> Option<State> {
        let mut s = s.alone().then_some(*s)?;
        let due = match change {
            Change::Retire => s.handles.iter().any(|handle| handle.ring.len() > 0),
            Change::RetireOldest(h) => s.handles[usize::from(h)].ring.len() > 1,
            Change::Unregister(page) => s.pinned.has(page.into()),
            Change::Join(pe) => s.pes[usize::from(pe)].member == Member::No,
            Change::Leave(pe) => s.pes[usize::from(pe)].member == Member::Yes,
        };
        if !due {
            return None;
        }
        s.writer.retires = match change {
            Change::RetireOldest(h) => std::array::from_fn(|of| u8::from(of == usize::from(h))),
            Change::Unregister(_) | Change::Join(_) | Change::Leave(_)
                if self.makes(Mistake::WriterSkipsDebts) =>
            {
                [0; HANDLES]
            }
            _ => s.handles.map(|handle| handle.ring.len() as u8),
        };
        self.plan_retirement(&mut s, Actor::Writer);
        s.change = change;
        match change {
            Change::Retire | Change::RetireOldest(_) | Change::Unregister(_) => {}
            Change::Join(pe) => {
                s.pes[usize::from(pe)].member = Member::Bare;
                let kills = &mut s.writer.kills[usize::from(pe)];
                *kills = ALL.when(!self.makes(Mistake::JoinWithoutKill));
            }
            Change::Leave(pe) => {
                s.pes[usize::from(pe)].member = Member::Bare;
                let kills = &mut s.writer.kills[usize::from(pe)];
                *kills = ALL.when(!self.makes(Mistake::LeaveWithoutKill));
            }
        }
        self.go_on(&mut s, Actor::Writer);
        Some(s)
    }

    /// Debts are retired; what the change is about comes last.
    pub(crate) fn end_change(&self, s: &mut State) {
        match std::mem::take(&mut s.change) {
            Change::Retire | Change::RetireOldest(_) => {}
            Change::Unregister(page) if s.counts[usize::from(page)] == 0 => {
                s.pinned.remove(page.into());
            }
            // In use: it stays.
            Change::Unregister(page) => s.refused |= !s.table.contains(&Some(page)),
            Change::Join(pe) => s.pes[usize::from(pe)].member = Member::Yes,
            Change::Leave(pe) => s.pes[usize::from(pe)].member = Member::No,
        }
    }

    /// Memory is registered once more.
    pub(crate) fn register(&self, s: &State, page: Page) -> Option<State> {
        let mut s = (s.alone() && !s.pinned.has(page.into())).then_some(*s)?;
        s.pinned.add(page.into());
        Some(s)
    }
}
