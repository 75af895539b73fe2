// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can happen in a state, for the checker. What must not happen yet has no next state.

use stateright::{Model, Property};

use crate::properties;
use crate::protocol::Protocol;
use crate::state::{
    Actor, Change, ENTRIES, HANDLES, Handle, LINES, Member, Op, PAGES, Page, Pe, Set,
};
use crate::state::{State, Step};

/// One step, of one party.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// A handle's call begins.
    Map {
        handle: usize,
        run: Set,
        page: Page,
    },
    /// A handle's call begins.
    Unmap {
        handle: usize,
        run: Set,
    },
    /// A handle begins to retire so many of its records.
    Retire {
        handle: usize,
        records: usize,
    },
    /// A change of the structure begins.
    Change(Change),
    Register(Page),
    /// What is under way goes on with this step.
    Step(Actor, Step),
    /// A bridge carries out a kill that somebody waits for.
    Kill {
        of: Actor,
        pe: usize,
        page: usize,
    },
    /// A bridge brings a line.
    Load {
        pe: usize,
        line: usize,
    },
    /// A device's access is translated.
    Access {
        pe: usize,
        page: Page,
    },
    /// A device has done with an access.
    Done {
        pe: usize,
    },
}

impl Protocol {
    fn step(&self, s: &State, actor: Actor) -> Option<State> {
        match (s.op(actor).step, actor) {
            (Step::Store, Actor::Handle(h)) => Some(self.store(s, h)),
            (Step::MarkLate, Actor::Handle(h)) => self.mark_late(s, h),
            (Step::Fence, _) => self.fence(s, actor),
            (Step::Unmark, _) => self.unmark(s, actor),
            (Step::Release, _) => Some(self.release(s, actor)),
            _ => None,
        }
    }

    fn changes(&self) -> impl Iterator<Item = Change> {
        let memory = (0..self.pages as Page).filter(|_| self.unregister).map(Change::Unregister);
        let last = self.pes as u8 - 1;
        let member = [Change::Join(last), Change::Leave(last)].into_iter().filter(|_| self.join);
        let oldest = (0..HANDLES as u8).filter(|_| self.parts).map(Change::RetireOldest);
        let any = self.unregister || self.join;
        memory.chain(member).chain(oldest).chain([Change::Retire]).filter(move |_| any)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let pe = |nth: usize| {
            let joined = nth < self.pes - usize::from(self.join);
            Pe { member: if joined { Member::Yes } else { Member::No }, ..Pe::default() }
        };
        let all = Set::below(self.entries());
        vec![State {
            table: [None; ENTRIES],
            marks: Set::NONE,
            debtors: Default::default(),
            lock: None,
            counts: [0; PAGES],
            pinned: Set::below(self.pages),
            stock: std::array::from_fn(|e| u8::from(self.stock && all.has(e))),
            held: all.when(!self.stock),
            handles: [Handle::default(); HANDLES],
            writer: Op::default(),
            change: Change::Retire,
            pes: std::array::from_fn(pe),
            promised: Set::NONE,
            filler: [None; ENTRIES],
            refused: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        let pages = 0..self.pages as Page;
        for handle in 0..HANDLES {
            for run in self.all_runs() {
                actions.extend(pages.clone().map(|page| Action::Map { handle, run, page }));
                actions.push(Action::Unmap { handle, run });
            }
            let records = 1..=s.handles[handle].ring.len();
            actions.extend(records.map(|records| Action::Retire { handle, records }));
        }
        actions.extend(self.changes().map(Action::Change));
        actions.extend(pages.clone().map(Action::Register));
        actions.extend(State::everybody().map(|actor| Action::Step(actor, s.op(actor).step)));
        for pe in 0..self.pes {
            for of in State::everybody().filter(|of| s.op(*of).step == Step::Kill) {
                let killed = s.op(of).kills[pe].iter();
                actions.extend(killed.map(|page| Action::Kill { of, pe, page }));
            }
            actions.extend((0..LINES).map(|line| Action::Load { pe, line }));
            actions.extend(pages.clone().map(|page| Action::Access { pe, page }));
            actions.push(Action::Done { pe });
        }
    }

    fn next_state(&self, s: &State, action: Action) -> Option<State> {
        let next = match action {
            Action::Map { handle, run, page } => self.map(s, handle, run, page),
            Action::Unmap { handle, run } => self.unmap(s, handle, run),
            Action::Retire { handle, records } => self.retire(s, handle, records),
            Action::Change(change) => self.change(s, change),
            Action::Register(page) => self.register(s, page),
            Action::Step(actor, _) => self.step(s, actor),
            Action::Kill { of, pe, page } => self.kill(s, of, pe, page),
            Action::Load { pe, line } => self.load(s, pe, line),
            Action::Access { pe, page } => self.access(s, pe, page),
            Action::Done { pe } => self.done(s, pe),
        };
        let name = |s: State| if self.symmetry { s.representative(self.pages == PAGES) } else { s };
        next.map(name)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
