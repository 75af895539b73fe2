// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What comes after the table has been changed, for handles and for changes of the structure alike:
//! kill, fence, unmark, release. Whoever retires another's debts goes the same way.

use crate::protocol::{Mistake, Protocol};
use crate::state::{Change, HANDLES, Member, Page, Set, State, Step, Who};

/// Every page of a PE: more than can be killed one by one.
const ALL: Set = Set(u8::MAX);

impl Protocol {
    /// The order of steps.
    fn order(&self) -> &'static [Step] {
        use Step::{Fence, Idle, Kill, Release, Unmark};
        match self.mistake {
            Some(Mistake::NoFence) => &[Kill, Unmark, Release, Idle],
            Some(Mistake::ReleaseBeforeFence) => &[Kill, Release, Fence, Unmark, Idle],
            Some(Mistake::ReleaseBeforeKill) => &[Release, Kill, Fence, Unmark, Idle],
            Some(Mistake::UnmarkBeforeKill) => &[Unmark, Kill, Fence, Release, Idle],
            _ => &[Kill, Fence, Unmark, Release, Idle],
        }
    }

    /// Goes to the next step that has something to do; the last one ends the call.
    pub(crate) fn go_on(&self, s: &mut State, who: Who) {
        let order = self.order();
        let now = s.way(who).step;
        let done = order.iter().position(|step| *step == now && !s.way(who).idle());
        let retires = !s.retired(who).is_empty();
        let way = s.way_mut(who);
        let owes = retires || way.owed.iter().any(|n| *n > 0) || !way.freed.is_empty();
        let useful = |step: &&Step| match step {
            Step::Kill => way.kills.iter().any(|pages| !pages.is_empty()),
            Step::Fence => !way.waits.is_empty(),
            Step::Unmark => retires,
            Step::Release => owes,
            _ => true,
        };
        way.step = *order[done.map_or(0, |at| at + 1)..].iter().find(useful).unwrap_or(&Step::Idle);
        if way.idle() {
            self.end(s, who);
        }
    }

    /// Kills of what is to be retired.
    pub(crate) fn plan_retirement(&self, s: &mut State, who: Who) {
        let pages: Set = s.retired(who).iter().map(|(_, record)| record.entry.into()).collect();
        if !self.makes(Mistake::NoKill) {
            s.members().iter().for_each(|pe| s.way_mut(who).kills[pe] = pages);
        }
    }

    /// One store to a kill register: a page, or all pages of a PE.
    pub(crate) fn kill(&self, s: &State, who: Who) -> Option<State> {
        let mut s = *s;
        let way = s.way_mut(who);
        let pe = way.kills.iter().position(|pages| !pages.is_empty())?;
        let whole = way.kills[pe].len() > self.max_page_kills;
        let page = way.kills[pe].first()?;
        if whole {
            way.kills[pe] = Set::NONE;
        } else {
            way.kills[pe].remove(page);
        }
        if pe == 0 || !self.makes(Mistake::FirstMemberOnly) {
            self.invalidate(&mut s.pes[pe], (!whole).then_some(page));
        }
        if s.pes[pe].flight.is_some() {
            s.way_mut(who).waits.add(pe);
        }
        // The next one follows; there is nothing else to be done in between.
        if s.way(who).kills.iter().all(|pages| pages.is_empty()) {
            self.go_on(&mut s, who);
        }
        Some(s)
    }

    /// Returns when no access is in flight that was at a kill.
    pub(crate) fn fence(&self, s: &State, who: Who) -> Option<State> {
        let mut s = s.way(who).waits.is_empty().then_some(*s)?;
        self.go_on(&mut s, who);
        Some(s)
    }

    /// One hold of the segment's lock: the marks of what was retired are reset, if they are still
    /// those of whoever owed it.
    pub(crate) fn unmark(&self, s: &State, who: Who) -> Option<State> {
        let mut s = s.lock.is_none().then_some(*s)?;
        for (h, record) in s.retired(who) {
            let e = usize::from(record.entry);
            let word = self.words[e];
            let own = s.debtors[word].is_some_and(|of| usize::from(of) == h);
            if record.fill || !(own || self.makes(Mistake::UnmarkAnothers)) {
                continue;
            }
            let whole = self.makes(Mistake::UnmarkWord);
            s.marks = s.marks.without(if whole { self.word(word) } else { Set::of(e) });
            if s.marks.and(self.word(word)).is_empty() {
                s.debtors[word] = None;
            }
        }
        self.go_on(&mut s, who);
        Some(s)
    }

    /// What was held back is given back.
    pub(crate) fn release(&self, s: &State, who: Who) -> State {
        let mut s = *s;
        for (_, record) in s.retired(who) {
            record.page.into_iter().for_each(|page| s.counts[usize::from(page)] -= 1);
            s.stock[usize::from(record.entry)] += u8::from(record.back);
        }
        let way = *s.way(who);
        way.owed.iter().zip(&mut s.counts).for_each(|(owed, count)| *count -= *owed as i8);
        way.freed.iter().for_each(|e| s.stock[e] += 1);
        s.way_mut(who).released = true;
        self.go_on(&mut s, who);
        s
    }

    /// The call returns, or the change has been made.
    fn end(&self, s: &mut State, who: Who) {
        let retired = s.retired(who);
        let way = std::mem::take(s.way_mut(who));
        for h in 0..HANDLES {
            if who != Who::Writer || !self.makes(Mistake::WriterKeepsDebts) {
                s.handles[h].ring.drop_oldest(way.retires[h].into());
            }
        }
        // Told to callers: what a map that has returned promises, and what a submit does.
        if let Who::Handle(h) = who {
            way.run.without(way.queued).iter().for_each(|e| s.promise(h, e));
        }
        for (h, record) in retired.into_iter().filter(|(_, record)| record.fill) {
            s.promise(h, record.entry.into());
        }
        if who == Who::Writer {
            self.end_change(s);
        }
    }

    // ---- changes of the structure ----

    /// A change begins when no call is under way, and none begins before it ends. It retires all
    /// debts first.
    pub(crate) fn change(&self, s: &State, change: Change) -> Option<State> {
        let alone = s.writer.idle() && s.handles.iter().all(|handle| handle.way.idle());
        let mut s = alone.then_some(*s)?;
        let skips = self.makes(Mistake::WriterSkipsDebts) && change != Change::Retire;
        if !skips {
            s.writer.retires = s.handles.map(|handle| handle.ring.len() as u8);
        }
        self.plan_retirement(&mut s, Who::Writer);
        s.change = change;
        match change {
            Change::Retire if s.retired(Who::Writer).is_empty() => return None,
            Change::Retire | Change::Unregister(_) => {}
            Change::Join(pe) => {
                if !self.makes(Mistake::JoinWithoutKill) {
                    s.writer.kills[usize::from(pe)] = ALL;
                }
            }
            Change::Leave(pe) => {
                s.pes[usize::from(pe)].member = Member::Leaving;
                let kills = &mut s.writer.kills[usize::from(pe)];
                *kills = if self.makes(Mistake::LeaveWithoutKill) { Set::NONE } else { ALL };
            }
        }
        self.go_on(&mut s, Who::Writer);
        Some(s)
    }

    fn end_change(&self, s: &mut State) {
        match std::mem::take(&mut s.change) {
            Change::Retire => {}
            Change::Unregister(page) if s.counts[usize::from(page)] == 0 => {
                s.pinned.remove(page.into());
            }
            Change::Unregister(page) => s.refused |= !s.table.contains(&Some(page)),
            Change::Join(pe) => s.pes[usize::from(pe)].member = Member::Yes,
            Change::Leave(pe) => s.pes[usize::from(pe)].member = Member::No,
        }
    }

    pub(crate) fn register(&self, s: &State, page: Page) -> Option<State> {
        let alone = s.writer.idle() && s.handles.iter().all(|handle| handle.way.idle());
        let mut s = (alone && !s.pinned.has(page.into())).then_some(*s)?;
        s.pinned.add(page.into());
        Some(s)
    }
}
