// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The same for handles whose kills may wait: what is cleared is owed, and so is what fills need if it
//! may be. Not for who has no debts; and the caller has seen to it that there is room for the pages.

use super::{At, BusLane, Done, Fast, Page};
use crate::addr::{Ioba, PageShift, Uaddr};
use crate::container::State;
use crate::container::debtor::{Debtor, fill_kills};
use crate::kill::debts::Owed;
use crate::sync::Ordering;
use crate::tce::{Perm, Tce};

impl Fast {
    /// Maps one page where nothing is.
    pub(in crate::container) fn map_later(
        &mut self,
        at: &mut At,
        (state, debtor): (&State, &Debtor),
        bus: Ioba,
        memory: Uaddr,
        page: PageShift,
        perm: Perm,
    ) -> Option<Done> {
        if perm == Perm::NONE {
            return None;
        }
        let real = match self.user.near(memory, Page::Any(page)) {
            Some(real) => real,
            None if self.user.move_near(memory, page, self.ours) => {
                self.user.near(memory, Page::Any(page))?
            }
            None => return None,
        };
        let (lane, place) = self.lane_of(bus, Page::Any(page))?;
        let entry = lane.entry(at.who, place)?;
        let slots = |line| lane.line(place, line);
        let kill = fill_kills(at.on_fill, Some(debtor), state, &entry, slots);
        if !entry.is_zero() || !at.can_fill(debtor, kill) {
            return None;
        }
        let user = &self.user;
        user.count.add(1);
        let tce = Tce::of_page(real.0, perm.powernv());
        entry.fill(tce, user.count.number(), perm == Perm::WRITE);
        Some(at.kill_filled_later(debtor, kill, bus, page))
    }

    /// Clears `bytes`; if they are to be `free`, only if all of it is live.
    pub(in crate::container) fn unmap_later(
        &self,
        at: &At,
        debtor: &Debtor,
        bus: Ioba,
        bytes: u64,
        free: bool,
    ) -> Option<Done> {
        let (lane, place) = self.lane(bus);
        let whole = bytes & (lane.page.bytes() - 1) == 0;
        let count = bytes >> lane.page.get();
        let inside = count <= lane.lane.entries().saturating_sub(place as u64);
        if whole && count > 0 && inside {
            self.clear_later(at, debtor, (lane, place), bus, count, free)
        } else {
            None
        }
    }

    /// H_STUFF_TCE of 0, or H_PUT_TCE of 0, for a run of the window that starts at `window`.
    pub(in crate::container) fn clear_guest_later(
        &self,
        at: &At,
        debtor: &Debtor,
        window: Ioba,
        bus: Ioba,
        count: u64,
    ) -> Option<Done> {
        let (lane, place) = self.lane(bus);
        let inside = count > 0 && count <= lane.guest_pages.saturating_sub(place as u64);
        if lane.window == window && inside {
            self.clear_later(at, debtor, (lane, place), bus, count, false)
        } else {
            None
        }
    }

    /// Clears entries of one lane and owes for those that were live.
    fn clear_later(
        &self,
        at: &At,
        debtor: &Debtor,
        (lane, place): (&BusLane, usize),
        bus: Ioba,
        count: u64,
        free: bool,
    ) -> Option<Done> {
        if !debtor.has_room(count) {
            return None;
        }
        let first = lane.lane.entry(at.who, place)?;
        let run = lane.lane.run(place, count as usize);
        let is_live = |n: usize| !Tce::from_be_word(run[n].load(Ordering::Relaxed)).is_empty();
        let owner = first.owner();
        let live = (0..run.len()).filter(|n| is_live(*n)).count();
        if free && live < run.len()
            || live > 0 && (owner.is_none() || !debtor.may_owe(&first, run.len()))
        {
            return None;
        }
        debtor.debts.begin(None, live as u32);
        let mut n = 0;
        while let Some(number) = owner
            && n < run.len()
        {
            let from = n;
            while n < run.len() && is_live(n) {
                n += 1;
            }
            if n > from {
                let start = Ioba(bus.0 + ((from as u64) << lane.page.get()));
                debtor.owe(&first, from, (start, (n - from) as u32), number, free);
            }
            n += 1;
        }
        run.iter().for_each(|slot| slot.store(Tce::EMPTY.to_be_word(), Ordering::Relaxed));
        first.cleared(run.len(), live as u64);
        Some(Done { released: live as u32, ..Done::NOTHING })
    }

    /// Stores what a guest gives for one page of the window that starts at `window`, where nothing is.
    pub(in crate::container) fn store_later(
        &self,
        at: &mut At,
        (state, debtor): (&State, &Debtor),
        window: Ioba,
        bus: Ioba,
        tce: Tce,
    ) -> Option<Done> {
        if tce == Tce::EMPTY {
            return self.clear_guest_later(at, debtor, window, bus, 1);
        }
        let (lane, place) = self.lane(bus);
        let page = lane.page;
        if lane.window != window || place as u64 >= lane.guest_pages {
            return None;
        }
        if tce.is_empty() || tce.value() & Tce::must_be_zero(page) != 0 {
            return None;
        }
        let number = self.hits.guest_page(tce.address(), page)?;
        let entry = lane.lane.entry(at.who, place)?;
        let usual = entry.get().is_empty() && self.guest.number() == number;
        let slots = |line| lane.lane.line(place, line);
        let kill = fill_kills(at.on_fill, Some(debtor), state, &entry, slots);
        if !usual || !at.can_fill(debtor, kill) {
            return None;
        }
        self.guest.add(1);
        entry.fill(tce, number, false);
        Some(at.kill_filled_later(debtor, kill, bus, page))
    }
}

impl At {
    /// False if a fill that has to be killed now would take a kill of everything.
    fn can_fill(&self, debtor: &Debtor, kill: bool) -> bool {
        if debtor.fills { debtor.has_room(1) } else { self.max_page_kills > 0 || !kill }
    }

    fn kill_filled_later(
        &mut self,
        debtor: &Debtor,
        kill: bool,
        bus: Ioba,
        page: PageShift,
    ) -> Done {
        if !kill {
            return Done::NOTHING;
        }
        if debtor.fills {
            debtor.debts.begin(None, 1);
            debtor.debts.push(Owed { at: Some(bus), pages: 1, number: None, free: false });
            return Done::NOTHING;
        }
        Done { released: 0, ..self.kill_live(bus, page) }
    }
}
