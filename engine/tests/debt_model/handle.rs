// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What handles do. A step is what nobody else can see half of: a store, or what is done in one hold
//! of the segment's lock.

use crate::protocol::{FillRule, Mistake, Policy, Protocol};
use crate::state::{Actor, Handle, Op, Page, Record, Set, State, Step};

impl Protocol {
    /// A call begins, and shares `Container::state` until it ends: so no change of the structure is
    /// under way. It takes the lock of the segment.
    fn begin(&self, s: &State, h: usize, run: Set) -> Option<State> {
        let may = s.writer.idle() && s.handles[h].op.idle() && s.lock.is_none();
        let others = s.busy().and(run);
        if !may || (!others.is_empty() && !self.overlap) {
            return None;
        }
        let mut s = *s;
        s.promised = s.promised.without(run);
        run.iter().for_each(|e| s.filler[e] = (!others.has(e)).then_some(h as u8));
        s.lock = Some(h as u8);
        s.handles[h].op = Op { step: Step::Store, run, stores: run, ..Op::default() };
        Some(s)
    }

    /// A map: look, claim, and store the first entry. All that can fail comes before.
    pub(crate) fn map(&self, s: &State, h: usize, run: Set, page: Page) -> Option<State> {
        let replaced = s.live().and(run);
        let callers = run.iter().all(|e| s.held.has(e) || s.stock[e] > 0);
        if !s.pinned.has(page.into()) || !callers || !(replaced.is_empty() || self.replace) {
            return None;
        }
        let mut s = self.begin(s, h, run)?;
        for e in run.iter().filter(|e| s.stock[*e] > 0).collect::<Vec<_>>() {
            s.stock[e] -= 1;
            s.held.add(e);
        }
        s.counts[usize::from(page)] += run.len() as i8;
        // What is in debt and what is replaced is killed whatever the rule says.
        let blind = self.makes(Mistake::FillIgnoresMarks);
        let marked = if blind { Set::NONE } else { s.marks.and(run) };
        let kill = self.kills_of_fill(&s, run).with(replaced).with(marked);
        let waits = self.policy == Policy::Batched && self.room(&s, h, kill);
        let (now, queued) = if waits { (Set::NONE, kill) } else { (kill, Set::NONE) };
        let forgets = self.makes(Mistake::SubmitForgetsFills);
        let op = &mut s.handles[h].op;
        op.fill = Some(page);
        op.queued = if forgets { queued.and(replaced) } else { queued };
        self.plan_kills(&mut s, h, now);
        Some(self.store(&s, h))
    }

    /// Which of the entries that are filled have to be killed though they were empty. Entries of the call
    /// itself are beside one another: a walk between two of its stores finds one live and one empty.
    fn kills_of_fill(&self, s: &State, run: Set) -> Set {
        if self.fill == FillRule::Never {
            return Set::NONE;
        }
        let strict = s.handles.iter().any(|handle| handle.op.strict);
        let clears = strict && !self.makes(Mistake::StrictClearsUnseen);
        if self.fill == FillRule::Always || self.policy == Policy::Strict || clears {
            return run;
        }
        let own = if self.makes(Mistake::OwnRunUnseen) { Set::NONE } else { run };
        let marks = if self.makes(Mistake::FillIgnoresMarks) { Set::NONE } else { s.marks };
        let there = s.live().with(marks).with(own);
        let beside = |e: &usize| there.and(self.line(self.lines[*e])).without(Set::of(*e));
        run.iter().filter(|e| !beside(e).is_empty()).collect()
    }

    /// An unmap: look whether it can wait, and clear the first entry.
    pub(crate) fn unmap(&self, s: &State, h: usize, run: Set) -> Option<State> {
        if !run.without(s.live()).is_empty() || !run.without(s.held).is_empty() {
            return None;
        }
        let mut s = self.begin(s, h, run)?;
        run.iter().for_each(|e| s.filler[e] = None);
        s.held = s.held.without(run.when(self.stock));
        let own = |e: usize| s.debtors[self.words[e]].is_none_or(|of| usize::from(of) == h);
        let may = run.iter().all(own) || self.makes(Mistake::TwoDebtors);
        let later = self.policy != Policy::Strict && self.room(&s, h, run) && may;
        if later {
            s.handles[h].op.queued = run;
        } else {
            s.handles[h].op.strict = true;
            let mut kill = run;
            if self.makes(Mistake::SettleUnderLock) && !self.room(&s, h, run) {
                s.handles[h].op.retires[h] = s.handles[h].ring.len() as u8;
                kill = kill.with(s.retired_entries(Actor::Handle(h)));
            }
            self.plan_kills(&mut s, h, kill);
        }
        Some(self.store(&s, h))
    }

    fn room(&self, s: &State, h: usize, queued: Set) -> bool {
        s.handles[h].ring.len() + queued.len() <= self.ring
    }

    /// What this call will kill; if that is whole PEs, its handle's debts go with it.
    fn plan_kills(&self, s: &mut State, h: usize, run: Set) {
        let members = s.members();
        let handle = &mut s.handles[h];
        members.iter().for_each(|pe| handle.op.kills[pe] = run);
        if run.len() > self.max_page_kills {
            handle.op.retires[h] = handle.ring.len() as u8;
        }
    }

    /// Under the segment's lock: an entry is stored, and with it the record and the mark, if this change
    /// is to wait. After the last one the lock is let go of.
    pub(crate) fn store(&self, s: &State, h: usize) -> State {
        let mut s = *s;
        let Handle { op, ring } = &mut s.handles[h];
        let e = op.stores.first().expect("an entry is left to be stored");
        op.stores.remove(e);
        let Op { stores, queued, fill, retires, .. } = *op;
        let page = std::mem::replace(&mut s.table[e], fill);
        let back = self.stock && fill.is_none();
        if queued.has(e) {
            let early = back && self.makes(Mistake::StockBeforeKill);
            s.stock[e] += u8::from(early);
            let back = back && !early;
            ring.push(Record { entry: e as u8, page, back, fill: fill.is_some() });
            if !self.makes(Mistake::MarkLate) {
                self.mark(&mut s, h, e);
            }
        } else {
            page.into_iter().for_each(|page| op.owed[usize::from(page)] += 1);
            op.freed = op.freed.with(Set::of(e).when(back));
        }
        if stores.is_empty() {
            if !self.makes(Mistake::SettleUnderLock) || retires[h] == 0 {
                s.lock = None;
            }
            if self.makes(Mistake::MarkLate) && !queued.is_empty() {
                s.handles[h].op.step = Step::MarkLate;
            } else {
                self.go_on(&mut s, Actor::Handle(h));
            }
        }
        s
    }

    /// Only what was cleared is marked.
    fn mark(&self, s: &mut State, h: usize, e: usize) {
        if s.handles[h].op.fill.is_none() && !self.makes(Mistake::NoMark) {
            s.marks.add(e);
            s.debtors[self.words[e]] = Some(h as u8);
        }
    }

    /// By mistake: the lock is taken a second time for the marks.
    pub(crate) fn mark_late(&self, s: &State, h: usize) -> Option<State> {
        let mut s = s.lock.is_none().then_some(*s)?;
        let queued = s.handles[h].op.queued;
        queued.iter().for_each(|e| self.mark(&mut s, h, e));
        self.go_on(&mut s, Actor::Handle(h));
        Some(s)
    }

    /// `submit`, a ring that is full, or a debt that is old: so many records are retired.
    pub(crate) fn retire(&self, s: &State, h: usize, records: usize) -> Option<State> {
        let Handle { op, ring } = s.handles[h];
        let allowed = records == ring.len() || self.parts;
        let mut s = (s.writer.idle() && op.idle() && allowed).then_some(*s)?;
        s.handles[h].op.retires[h] = records as u8;
        self.plan_retirement(&mut s, Actor::Handle(h));
        self.go_on(&mut s, Actor::Handle(h));
        Some(s)
    }
}
