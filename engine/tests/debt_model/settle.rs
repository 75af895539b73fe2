// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What comes after the table has been changed, for handles and for changes of the structure alike:
//! kill, fence, unmark, release. Whoever retires another's debts goes the same way.

use crate::protocol::{Mistake, Protocol};
use crate::state::{Actor, HANDLES, Set, State, Step};

/// Every page of a PE: more than can be killed one by one.
pub(crate) const ALL: Set = Set(u8::MAX);

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
    pub(crate) fn go_on(&self, s: &mut State, actor: Actor) {
        let order = self.order();
        let now = s.op(actor).step;
        let done = order.iter().position(|step| *step == now && !s.op(actor).idle());
        let retires = !s.retired(actor).is_empty();
        let op = s.op_mut(actor);
        let owes = retires || op.owed.iter().any(|n| *n > 0) || !op.freed.is_empty();
        let useful = |step: &&Step| match step {
            Step::Kill => op.kills.iter().any(|pages| !pages.is_empty()),
            Step::Fence => !op.waits.is_empty(),
            Step::Unmark => retires,
            Step::Release => owes,
            _ => true,
        };
        op.step = *order[done.map_or(0, |at| at + 1)..].iter().find(useful).unwrap_or(&Step::Idle);
        if op.idle() {
            self.end(s, actor);
        }
    }

    /// Kills of what is to be retired.
    pub(crate) fn plan_retirement(&self, s: &mut State, actor: Actor) {
        let pages = s.retired_entries(actor);
        if !self.makes(Mistake::NoKill) {
            s.members().iter().for_each(|pe| s.op_mut(actor).kills[pe] = pages);
        }
    }

    /// A bridge carries out a kill: of a page, or of all pages of a PE. That is some time between the
    /// store to its register and the end of the fence, in any order; whoever stored does nothing in
    /// between that others could see.
    pub(crate) fn kill(&self, s: &State, actor: Actor, pe: usize, page: usize) -> Option<State> {
        let mut s = *s;
        let kills = &mut s.op_mut(actor).kills[pe];
        let whole = kills.len() > self.max_page_kills;
        if whole && kills.first() != Some(page) {
            return None;
        }
        *kills = kills.without(if whole { *kills } else { Set::of(page) });
        if pe == 0 || !self.makes(Mistake::FirstMemberOnly) {
            self.invalidate(&mut s.pes[pe], (!whole).then_some(page));
        }
        if s.pes[pe].flight.is_some() {
            s.op_mut(actor).waits.add(pe);
        }
        if s.op(actor).kills.iter().all(|pages| pages.is_empty()) {
            self.go_on(&mut s, actor);
        }
        Some(s)
    }

    /// Returns when no access is in flight that was at a kill.
    pub(crate) fn fence(&self, s: &State, actor: Actor) -> Option<State> {
        let mut s = s.op(actor).waits.is_empty().then_some(*s)?;
        self.go_on(&mut s, actor);
        Some(s)
    }

    /// One hold of the segment's lock: the marks of what was retired are reset, if they are still
    /// those of whoever owed it.
    pub(crate) fn unmark(&self, s: &State, actor: Actor) -> Option<State> {
        let mut s = s.lock.is_none().then_some(*s)?;
        for (h, record) in s.retired(actor) {
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
        self.go_on(&mut s, actor);
        Some(s)
    }

    /// What was held back is given back.
    pub(crate) fn release(&self, s: &State, actor: Actor) -> State {
        let mut s = *s;
        for (_, record) in s.retired(actor) {
            record.page.into_iter().for_each(|page| s.counts[usize::from(page)] -= 1);
            s.stock[usize::from(record.entry)] += u8::from(record.back);
        }
        let op = *s.op(actor);
        op.owed.iter().zip(&mut s.counts).for_each(|(owed, count)| *count -= *owed as i8);
        op.freed.iter().for_each(|e| s.stock[e] += 1);
        s.op_mut(actor).released = true;
        self.go_on(&mut s, actor);
        s
    }

    /// The call returns, or the change has been made.
    fn end(&self, s: &mut State, actor: Actor) {
        let retired = s.retired(actor);
        let op = std::mem::take(s.op_mut(actor));
        for h in 0..HANDLES {
            if actor != Actor::Writer || !self.makes(Mistake::WriterKeepsDebts) {
                s.handles[h].ring.drop_oldest(op.retires[h].into());
            }
        }
        // Told to callers: what a map that has returned promises, and what a submit does.
        if let Actor::Handle(h) = actor {
            op.run.without(op.queued).iter().for_each(|e| s.promise(h, e));
        }
        for (h, record) in retired.into_iter().filter(|(_, record)| record.fill) {
            s.promise(h, record.entry.into());
        }
        if actor == Actor::Writer {
            self.end_change(s);
        }
    }
}
