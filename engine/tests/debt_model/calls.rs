// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What handles do. A step is what nobody else can see half of: a store, or what is done in one hold
//! of the segment's lock.

use crate::protocol::{FillRule, Mistake, Policy, Protocol};
use crate::state::{Handle, Page, Record, Set, State, Step, Way, Who};

impl Protocol {
    /// A call begins, and shares `Container::state` until it ends: so no change of the structure is
    /// under way. It takes the lock of the segment.
    fn begin(&self, s: &State, h: usize, run: Set) -> Option<State> {
        let may = s.writer.idle() && s.handles[h].way.idle() && s.lock.is_none();
        let others = s.busy().and(run);
        if !may || (!others.is_empty() && !self.overlap) {
            return None;
        }
        let mut s = *s;
        s.promised = s.promised.without(run);
        run.iter().for_each(|e| s.filler[e] = (!others.has(e)).then_some(h as u8));
        s.lock = Some(h as u8);
        s.handles[h].way = Way { step: Step::Store, run, stores: run, ..Way::default() };
        Some(s)
    }

    /// A map: look, claim, and store the first entry.
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
        // What is in debt is killed whatever the rules say, and so is what is replaced.
        let blind = self.makes(Mistake::FillIgnoresMarks);
        let marked = if blind { Set::NONE } else { s.marks.and(run) };
        let kill = self.kills_of_fill(&s, run).with(replaced).with(marked);
        let unmarked = kill.without(marked);
        let waits = self.policy == Policy::Batched && self.room(&s, h, unmarked);
        let (now, queued) = if waits { (marked, unmarked) } else { (kill, Set::NONE) };
        let forgets = self.makes(Mistake::SubmitForgetsFills);
        let way = &mut s.handles[h].way;
        way.fill = Some(page);
        way.queued = if forgets { queued.and(replaced) } else { queued };
        self.plan_kills(&mut s, h, now);
        Some(self.store(&s, h))
    }

    /// Which of the entries that are filled have to be killed though they were empty.
    fn kills_of_fill(&self, s: &State, run: Set) -> Set {
        if self.fill == FillRule::Never {
            return Set::NONE;
        }
        let strict = s.handles.iter().any(|handle| handle.way.strict);
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
    pub(crate) fn unmap(&self, s: &State, h: usize, run: Set, back: bool) -> Option<State> {
        let callers = run.without(s.live()).is_empty() && run.without(s.held).is_empty();
        if !callers || back != self.stock {
            return None;
        }
        let mut s = self.begin(s, h, run)?;
        run.iter().for_each(|e| s.filler[e] = None);
        if back {
            s.held = s.held.without(run);
        }
        let own = |e: usize| s.debtors[self.words[e]].is_none_or(|of| usize::from(of) == h);
        let may = run.iter().all(own) || self.makes(Mistake::TwoDebtors);
        let later = self.policy != Policy::Strict && self.room(&s, h, run) && may;
        let way = &mut s.handles[h].way;
        way.back = back;
        if later {
            way.queued = run;
        } else {
            way.strict = true;
            self.plan_kills(&mut s, h, run);
        }
        Some(self.store(&s, h))
    }

    fn room(&self, s: &State, h: usize, queued: Set) -> bool {
        s.handles[h].ring.len() + queued.len() <= self.ring
    }

    /// What this call will kill; if that is whole PEs, its handle's debts go with it.
    fn plan_kills(&self, s: &mut State, h: usize, run: Set) {
        let members = s.members();
        let Self { max_page_kills, .. } = *self;
        let handle = &mut s.handles[h];
        members.iter().for_each(|pe| handle.way.kills[pe] = run);
        if run.len() > max_page_kills {
            handle.way.retires[h] = handle.ring.len() as u8;
        }
    }

    /// Under the segment's lock: an entry is stored, and with it the mark and the record, if this
    /// change is to wait. After the last one the lock is let go of.
    pub(crate) fn store(&self, s: &State, h: usize) -> State {
        let mut s = *s;
        let way = &mut s.handles[h].way;
        let e = way.stores.first().expect("an entry is left to be stored");
        way.stores.remove(e);
        let way = *way;
        let page = std::mem::replace(&mut s.table[e], way.fill);
        if way.queued.has(e) {
            let early = way.back && self.makes(Mistake::StockBeforeKill);
            s.stock[e] += u8::from(early);
            let back = way.back && !early;
            s.handles[h].ring.push(Record { entry: e as u8, page, back, fill: way.fill.is_some() });
            if !self.makes(Mistake::MarkLate) {
                self.mark(&mut s, h, e);
            }
        } else {
            let way = &mut s.handles[h].way;
            page.into_iter().for_each(|page| way.owed[usize::from(page)] += 1);
            way.freed = way.freed.with(Set::of(e).when(way.back));
        }
        if way.stores.is_empty() {
            s.lock = None;
            let late = self.makes(Mistake::MarkLate) && !way.queued.is_empty();
            if late {
                s.handles[h].way.step = Step::MarkLate;
            } else {
                self.go_on(&mut s, Who::Handle(h));
            }
        }
        s
    }

    /// Only what was cleared is marked.
    fn mark(&self, s: &mut State, h: usize, e: usize) {
        if s.handles[h].way.fill.is_none() && !self.makes(Mistake::NoMark) {
            s.marks.add(e);
            s.debtors[self.words[e]] = Some(h as u8);
        }
    }

    /// By mistake: the lock is taken a second time for the marks.
    pub(crate) fn mark_late(&self, s: &State, h: usize) -> Option<State> {
        let mut s = s.lock.is_none().then_some(*s)?;
        let queued = s.handles[h].way.queued;
        queued.iter().for_each(|e| self.mark(&mut s, h, e));
        self.go_on(&mut s, Who::Handle(h));
        Some(s)
    }

    /// `submit`, a ring that is full, or a debt that is old: so many records are retired.
    pub(crate) fn retire(&self, s: &State, h: usize, records: usize) -> Option<State> {
        let Handle { way, ring } = s.handles[h];
        let part = records < ring.len();
        if !s.writer.idle() || !way.idle() || !(1..=ring.len()).contains(&records) {
            return None;
        }
        if part && !self.parts {
            return None;
        }
        let mut s = *s;
        s.handles[h].way.retires[h] = records as u8;
        self.plan_retirement(&mut s, Who::Handle(h));
        self.go_on(&mut s, Who::Handle(h));
        Some(s)
    }
}
