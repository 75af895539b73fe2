// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What handles owe, and how it is settled: kill → fence → unmark → release.

use std::cell::Cell;
use std::time::Duration;

use super::call::{Call, Hand};
use super::windows::Window;
use super::{Container, State};
use crate::addr::Ioba;
use crate::engine::Shared;
use crate::ioba::Magazine;
use crate::kill::debts::{Debts, Owed};
use crate::kill::{KillCount, KillDebt, KillPolicy, exposure};
use crate::places;
use crate::regions::Counts;
use crate::sabotage::{Guard, stands};
use crate::sync::{Arc, AtomicU32, Ordering, Seen, Slot, Write};
use crate::table::{Entry, Held};
use crate::tce::Tce;

/// A handle's side of its debts.
pub(super) struct Debtor {
    pub(super) debts: Arc<Debts>,
    /// By which name its entries are marked.
    id: u32,
    /// Most pages that it may owe.
    most: u32,
    max_age: Duration,
    /// Filled entries may be killed later, too.
    pub(super) fills: bool,
    /// Not every fill kills, so entries in debt are marked.
    marks: bool,
    /// Entries of a line, where fills kill beside live ones only.
    line: Option<u32>,
    /// The call that is being made gives addresses back.
    free: Cell<bool>,
    /// The structure that it owes in; nothing where the engine does not kill.
    pub(super) seen: Seen,
}

impl Debtor {
    /// The debtor of a handle under a policy that knows debts; `debts` become the structure's too.
    pub(super) fn new(engine: &Shared, state: &mut State) -> Option<Self> {
        let caps = engine.caps.tables.kill()?;
        let (most, max_age, fills) = match engine.policy {
            KillPolicy::Strict => return None,
            KillPolicy::Batched => (KillPolicy::MAX_PAGES, Duration::MAX, true),
            KillPolicy::Deferred { max_pages, max_age } => {
                (max_pages.clamp(1, KillPolicy::MAX_PAGES), max_age, false)
            }
        };
        // Each record of a range has a page that changed, and so has each of a count.
        let debts = Arc::new(Debts::new(2 * most));
        let id = state.debtors.open(debts.clone());
        let marks = !caps.fill.always();
        let (free, seen) = (Cell::new(false), Seen::NOTHING);
        let possible = |line: &u32| line.is_power_of_two() && *line <= 64;
        let line = caps.fill.line().filter(possible).filter(|_| stands(Guard::KillFill));
        Some(Self { debts, id, most, max_age, fills, marks, line, free, seen })
    }

    /// True if what is owed has to be settled before so many more pages are.
    pub(super) fn is_due(&self, more: u64) -> bool {
        let owed = self.debts.pages();
        let most = u64::from(self.most);
        let too_many = more <= most && u64::from(owed) + more > most;
        let limited = self.max_age != Duration::MAX;
        owed > 0 && (too_many || limited && self.debts.age() >= self.max_age)
    }

    /// True if so many more pages can be owed.
    #[inline]
    pub(super) fn has_room(&self, pages: u64) -> bool {
        u64::from(self.debts.pages()) + pages <= self.most.into()
    }

    /// True if an entry of a segment that is locked may be filled without a kill because of what is
    /// beside it; `line` gives the entries and their place, and `state` is where.
    fn is_quiet<'a>(
        &self,
        state: &State,
        entry: &Entry<'_>,
        slots: impl FnOnce(u32) -> &'a [Slot],
    ) -> bool {
        let Some(line) = self.line else { return false };
        let empty = |slot: &Slot| Tce::from_be_word(slot.load(Ordering::Relaxed)).is_empty();
        // Acquire: the kills of those who were at it are complete.
        let nobody = state.clearing.load(Ordering::Acquire) == 0;
        nobody && slots(line).iter().all(empty) && !entry.line_in_debt(line)
    }

    /// True if so many entries of any kind may be written on credit. What is cleared among them would have
    /// to be marked.
    pub(super) fn lends_to_fills(&self, count: u64) -> bool {
        self.fills && !self.marks && self.has_room(count)
    }

    /// True if what is held may be cleared on credit.
    pub(super) fn lends_to(&self, held: &Held<'_>) -> bool {
        self.has_room(held.count()) && (!self.marks || held.may_mark(self.id))
    }

    /// True if an entry may become `tce` on credit.
    pub(super) fn lends_to_one(&self, entry: &Entry<'_>, tce: Tce) -> bool {
        let may = if tce.is_empty() { self.may_owe(entry, 1) } else { self.fills };
        may && self.has_room(1)
    }

    /// Marks what was cleared of what is held, as `debt` says.
    pub(super) fn mark(&self, debt: &mut KillDebt, held: &Held<'_>) {
        if self.marks && stands(Guard::DebtMark) {
            debt.ranges().for_each(|(first, count)| held.mark_debt(first, count, self.id));
        }
    }

    /// Marks an entry that was live if it was cleared.
    pub(super) fn mark_one(&self, entry: &Entry<'_>, tce: Tce) {
        if tce.is_empty() && self.marks && stands(Guard::DebtMark) {
            entry.mark_debt(0, 1, self.id);
        }
    }

    /// The addresses of what is cleared next go back to the magazine when that is settled.
    pub(super) fn ask_free(&self, yes: bool) {
        self.free.set(yes);
    }

    /// All that they were asked for is live, or they stay.
    pub(super) fn free_if(&self, all_live: bool) {
        self.free.set(self.free.get() && all_live);
    }

    /// True once if that was asked for.
    pub(super) fn takes_free(&self) -> bool {
        self.free.replace(false)
    }

    /// Gives addresses back whose debt was settled, be it by somebody else.
    #[inline]
    pub(super) fn take_back(&self, magazine: &mut Option<Magazine>) {
        self.debts.take_back(|at, pages| {
            magazine.iter_mut().for_each(|magazine| magazine.give(at, pages));
        });
    }

    /// True if `count` entries from this one on may be cleared on credit, as far as marks go.
    pub(super) fn may_owe(&self, first: &Entry<'_>, count: usize) -> bool {
        !self.marks || first.may_mark(count, self.id)
    }

    /// Owes for `count` live entries in a row that were cleared: those that are `skip` behind `first`,
    /// which is still locked.
    pub(super) fn owe(
        &self,
        first: &Entry<'_>,
        skip: usize,
        (at, pages): (Ioba, u32),
        number: usize,
        free: bool,
    ) {
        if self.marks && stands(Guard::DebtMark) {
            first.mark_debt(skip, pages as usize, self.id);
        }
        self.debts.push(Owed { at: Some(at), pages, number: Some(number), free });
    }
}

/// True if an entry of a segment that is locked has to be killed once it is filled; `on_fill` if any has
/// to be. `slots` gives the entries of its cache line.
#[inline]
pub(super) fn fill_kills<'a>(
    on_fill: bool,
    debtor: Option<&Debtor>,
    state: &State,
    entry: &Entry<'_>,
    slots: impl FnOnce(u32) -> &'a [Slot],
) -> bool {
    on_fill && !debtor.is_some_and(|debtor| debtor.is_quiet(state, entry, slots)) || entry.in_debt()
}

/// The debts of a container's handles.
#[derive(Default)]
pub(super) struct Debtors(Vec<Option<Arc<Debts>>>);

impl Debtors {
    /// Another handle's; the number that it goes by.
    fn open(&mut self, debts: Arc<Debts>) -> u32 {
        places::put(&mut self.0, debts) as u32
    }

    /// The handle is gone.
    pub(super) fn close(&mut self, debtor: &Debtor) {
        self.0[debtor.id as usize] = None;
    }

    /// Those that owe something, with the numbers that they go by.
    fn owing(&self) -> impl Iterator<Item = (u32, &Debts)> {
        let each = (0..).zip(&self.0);
        each.filter_map(|(id, d)| d.as_deref().filter(|d| d.pages() > 0).map(|d| (id, d)))
    }

    /// The same of those of which the oldest has waited for so long.
    fn older(&self, min_age: Duration) -> impl Iterator<Item = (u32, &Debts)> {
        self.owing().filter(move |(_, debts)| debts.age() >= min_age)
    }
}

impl Container {
    /// The structure, for one who changes what debts are of, and finds none.
    pub(super) fn alone(&self) -> Write<'_, State> {
        let state = self.state.write();
        self.retire_older(&state, Duration::ZERO);
        state
    }

    /// Settles what handles owe, if the oldest of it is at least `min_age` old: for a timer of the
    /// embedder's under [`KillPolicy::Deferred`], as handles look at their debts' age in their own calls
    /// only. Waits for every handle that is in a call, if there is something to settle; they all look
    /// up again, then, what they have remembered. [`Duration::ZERO`]: whatever its age. Returns the
    /// kills that it took.
    pub fn retire_debts(&self, min_age: Duration) -> KillCount {
        let due = |state: &State| state.debtors.older(min_age).next().is_some();
        if self.engine.same_process().is_err() || !due(&self.state.read()) {
            return KillCount::default();
        }
        self.retire_older(&self.state.write(), min_age)
    }

    /// For who has the structure alone.
    fn retire_older(&self, state: &State, min_age: Duration) -> KillCount {
        let mut kills = KillCount::default();
        for (id, debts) in state.debtors.older(min_age) {
            kills += self.call_on(state, |call| call.retire(debts, id, true));
        }
        kills
    }
}

impl Call<'_> {
    /// Settles what the handle owes.
    pub(super) fn retire_own(&mut self) -> KillCount {
        let Some(debtor) = self.hand.debtor else { return KillCount::default() };
        self.retire(&debtor.debts, debtor.id, false)
    }

    /// Kill → fence → unmark → release. Who has the structure `alone` need not lock what is marked.
    fn retire(&mut self, debts: &Debts, id: u32, alone: bool) -> KillCount {
        if debts.pages() == 0 {
            return KillCount::default();
        }
        let state = self.state;
        let Hand { debt, port, .. } = &mut self.hand;
        let (pages, members) = (u64::from(debts.pages()), state.member_ids.len());
        let guard = if alone { Guard::DebtOthers } else { Guard::DebtKill };
        let kills = if stands(guard) {
            debt.kill_all_of(*port, members, pages, |each| {
                for window in state.windows.iter().flatten() {
                    let at = (window.start, window.table.geometry().page());
                    each(at, &mut records(debts, window));
                }
            })
        } else {
            KillCount::default()
        };
        self.release(debts, id, alone);
        kills
    }

    /// Unmarks and releases what was killed and waited for.
    fn release(&mut self, debts: &Debts, id: u32, alone: bool) {
        let (state, engine) = (self.state, self.engine);
        let (who, counts) = match alone {
            true => (None, Counts::SHARED),
            false => (Some(self.hand.user.who), self.hand.counts),
        };
        if !engine.caps.tables.kill().is_some_and(|caps| caps.fill.always()) {
            for window in state.windows.iter().flatten() {
                self.hand.debt.merged(records(debts, window), |first, count| {
                    window.table.unmark(who, first, count, id);
                });
            }
        }
        let age = debts.age();
        engine.debts.settled(debts.pages(), age);
        let mut released = false;
        for (number, pages) in debts.records().filter_map(|owed| Some((owed.number?, owed.pages))) {
            state.registrations.unclaim(counts, number, pages.into());
            released = true;
        }
        if let Some(longest) = engine.exposure.as_ref().filter(|_| released) {
            exposure::tell(longest, age);
        }
        debts.settled();
    }

    /// Has what is owed settled later.
    pub(super) fn put_off(&mut self, window: &Window, debtor: &Debtor) {
        let (debt, debts) = (&mut *self.hand.debt, &debtor.debts);
        debts.begin(debt.exposed_since(), debt.pages() as u32);
        let free = debtor.takes_free();
        debt.put_off(
            |first, count| {
                let at = Some(window.bus(first, count).at);
                debts.push(Owed { at, pages: count as u32, number: None, free });
            },
            |(number, pages)| {
                let pages = pages as u32;
                debts.push(Owed { at: None, pages, number: Some(number), free: false });
            },
        );
    }

    /// The same for one entry, and whose it was if it was live.
    pub(super) fn put_off_one(&mut self, debtor: &Debtor, at: Ioba, number: Option<usize>) {
        let (debt, debts) = (&mut *self.hand.debt, &debtor.debts);
        debts.begin(debt.exposed_since(), 1);
        let free = number.is_some() && debtor.takes_free();
        debts.push(Owed { at: Some(at), pages: 1, number, free });
        debt.put_off(|_, _| (), |_| ());
    }

    /// What the handle owes is killed if everything was.
    #[inline]
    pub(super) fn forgive(&mut self) {
        if let Some(debtor) = self.hand.debtor
            && (self.hand.debt.take_all_killed() || !stands(Guard::DebtAll))
            && debtor.debts.pages() > 0
        {
            self.release(&debtor.debts, debtor.id, false);
        }
    }
}

/// Says that a call clears entries and kills them itself, until it is dropped.
pub(super) struct Clearing<'a>(&'a AtomicU32);

impl Drop for Clearing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl<'a> Call<'a> {
    /// To be said while what is about to be cleared is locked, if fills beside it have to know.
    pub(super) fn clearing(&self, credit: Option<&Debtor>) -> Option<Clearing<'a>> {
        let Shared { policy, caps, .. } = self.engine;
        let line = caps.tables.kill().and_then(|caps| caps.fill.line());
        if *policy == KillPolicy::Strict || credit.is_some() {
            return None;
        }
        line?;
        let count = &self.state.clearing;
        count.fetch_add(1, Ordering::Relaxed);
        Some(Clearing(count))
    }
}

/// What is owed in a window: first entry and number of entries.
fn records<'a>(debts: &'a Debts, window: &'a Window) -> impl Iterator<Item = (u64, u64)> + 'a {
    let geometry = window.table.geometry();
    let ranges = debts.records().filter_map(|owed| Some((owed.at?, owed.pages)));
    ranges.filter_map(move |(at, pages)| {
        let offset = at.0.checked_sub(window.start.0).filter(|o| *o < geometry.covered())?;
        Some((offset >> geometry.page().get(), pages.into()))
    })
}
