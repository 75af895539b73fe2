// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The protocol of the kill policies.
#![cfg(not(any(loom, target_arch = "powerpc64")))]

mod calls;
mod device;
mod properties;
mod protocol;
mod retire;
mod state;

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};

use device::Cache;
use protocol::{FillRule, Mistake, Policy, Protocol};
use state::{Change, ENTRIES, HANDLES, Handle, Member, PAGES, PES, Page, Pe, Set, State, Step, Way, Who};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Map(usize, Set, Page),
    Unmap(usize, Set),
    Retire(usize, usize),
    Change(Change),
    Register(Page),
    /// The next step of somebody on his way.
    Next(Who),
    Load(usize, usize),
    Access(usize, Page),
    Done(usize),
}

impl Protocol {
    fn step(&self, s: &State, who: Who) -> Option<State> {
        match (s.way(who).step, who) {
            (Step::Store, Who::Handle(h)) => Some(self.store(s, h)),
            (Step::MarkLate, Who::Handle(h)) => self.mark_late(s, h),
            (Step::Kill, _) => self.kill(s, who),
            (Step::Fence, _) => self.fence(s, who),
            (Step::Unmark, _) => self.unmark(s, who),
            (Step::Release, _) => Some(self.release(s, who)),
            _ => None,
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let pe = |nth: usize| {
            let member = nth < self.pes && !(self.join && nth + 1 == self.pes);
            let member = if member { Member::Yes } else { Member::No };
            Pe { member, ..Pe::default() }
        };
        let stock: [u8; ENTRIES] = std::array::from_fn(|e| u8::from(self.stock && e < self.entries()));
        vec![State {
            table: [None; ENTRIES],
            marks: Set::NONE,
            debtors: Default::default(),
            lock: None,
            counts: [0; PAGES],
            pinned: Set::below(self.pages),
            stock,
            held: Set::below(self.entries()).when(!self.stock),
            handles: [Handle::default(); HANDLES],
            writer: Way::default(),
            change: Change::Retire,
            pes: std::array::from_fn::<_, PES, _>(pe),
            promised: Set::NONE,
            filler: [None; ENTRIES],
            refused: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        let pages = 0..self.pages as Page;
        for who in State::everybody().filter(|who| !s.way(*who).idle()) {
            actions.push(Action::Next(who));
        }
        for h in (0..HANDLES).filter(|h| s.handles[*h].way.idle() && s.writer.idle()) {
            for run in self.all_runs() {
                actions.extend(pages.clone().map(|page| Action::Map(h, run, page)));
                actions.push(Action::Unmap(h, run));
            }
            actions.extend((1..=s.handles[h].ring.len()).map(|n| Action::Retire(h, n)));
        }
        if s.writer.idle() && s.handles.iter().all(|handle| handle.way.idle()) {
            if self.unregister || self.join {
                actions.push(Action::Change(Change::Retire));
            }
            for page in pages.clone().filter(|_| self.unregister) {
                let pinned = s.pinned.has(page.into());
                actions.push(if pinned {
                    Action::Change(Change::Unregister(page))
                } else {
                    Action::Register(page)
                });
            }
            if self.join {
                let last = self.pes - 1;
                let is = s.pes[last].member == Member::Yes;
                let last = last as u8;
                let change = if is { Change::Leave(last) } else { Change::Join(last) };
                actions.push(Action::Change(change));
            }
        }
        let lines = self.lines.iter().copied().collect::<BTreeSet<_>>();
        for pe in 0..self.pes {
            actions.extend(lines.iter().map(|line| Action::Load(pe, *line)));
            actions.extend(pages.clone().map(|page| Action::Access(pe, page)));
            actions.push(Action::Done(pe));
        }
    }

    fn next_state(&self, s: &State, action: Action) -> Option<State> {
        let next = match action {
            Action::Map(h, run, page) => self.map(s, h, run, page),
            Action::Unmap(h, run) => self.unmap(s, h, run, self.stock),
            Action::Retire(h, records) => self.retire(s, h, records),
            Action::Change(change) => self.change(s, change),
            Action::Register(page) => self.register(s, page),
            Action::Next(who) => self.step(s, who),
            Action::Load(pe, line) => self.load(s, pe, line),
            Action::Access(pe, page) => self.access(s, pe, page),
            Action::Done(pe) => self.done(s, pe),
        };
        if self.symmetry && self.pages == PAGES { next.map(State::representative) } else { next }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

fn told(actions: Vec<Action>) -> String {
    actions.iter().enumerate().map(|(n, action)| format!("{:3} {action:?}\n", n + 1)).collect()
}

#[track_caller]
fn holds(name: &str, protocol: Protocol) {
    let began = Instant::now();
    let protocol = Protocol { symmetry: true, ..protocol };
    let checker = protocol.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let seconds = began.elapsed().as_secs_f32();
    println!("{name}: {} states, depth {}, {seconds:.1} s", checker.unique_state_count(), checker.max_depth());
    for name in properties::ALWAYS {
        if checker.discovery(name).is_some() {
            fails(name, Protocol { symmetry: false, ..protocol }, name);
            panic!("not so: {name}");
        }
    }
    checker.assert_properties();
}

#[track_caller]
fn fails(name: &str, protocol: Protocol, property: &'static str) {
    let began = Instant::now();
    let checker = protocol.checker().finish_when(HasDiscoveries::AllOf([property].into())).spawn_bfs().join();
    let seconds = began.elapsed().as_secs_f32();
    print!("{name}: {} states, depth {}, {seconds:.1} s: ", checker.unique_state_count(), checker.max_depth());
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{name}: no counterexample to: {property}; but {:?}", checker.discoveries().keys()));
    let last = *path.last_state();
    println!("{property}\n{}{last:?}", told(path.into_actions()));
}

#[test]
fn small() {
    let p = Protocol::new(Policy::Deferred, FillRule::Never, Cache::LIVE);
    holds("deferred, never, r1", Protocol { ring: 1, pages: 1, ..p.clone() });
    holds("deferred, never, r1 p2", Protocol { ring: 1, ..p.clone() });
    holds("deferred, never, r2", Protocol { ring: 2, ..p.clone() });
    holds("deferred, never, r2 parts", Protocol { ring: 2, parts: true, ..p.clone() });
    let p = Protocol::new(Policy::Deferred, FillRule::BesideLive, Cache::BESIDE_LIVE);
    holds("deferred, beside r1", Protocol { ring: 1, ..p.clone() });
    holds("deferred, beside r1 runs", Protocol { ring: 2, pages: 1, runs: true, ..p.clone() });
    let p = Protocol::new(Policy::Strict, FillRule::Always, Cache::ANY);
    holds("strict", Protocol { ..p.clone() });
    let p = Protocol::new(Policy::Batched, FillRule::Always, Cache::ANY);
    holds("batched r1", Protocol { ring: 1, ..p.clone() });
    holds("batched r2 p1", Protocol { ring: 2, pages: 1, ..p.clone() });
}

#[test]
fn mistakes() {
    use properties::*;
    let never = Protocol::new(Policy::Deferred, FillRule::Never, Cache::LIVE);
    let two = Protocol { unregister: true, ..never.clone() };
    let m = |mistake: Mistake, p: &Protocol, property| {
        fails(&format!("{mistake:?}"), Protocol { mistake: Some(mistake), ..p.clone() }, property);
    };
    let parts = Protocol { parts: true, ..never.clone() };
    m(Mistake::NoKill, &two, SAFE);
    m(Mistake::NoKill, &two, GONE);
    m(Mistake::NoFence, &two, SAFE);
    m(Mistake::ReleaseBeforeFence, &never, COUNTED);
    m(Mistake::ReleaseBeforeKill, &never, COUNTED);
    m(Mistake::UnmarkBeforeKill, &never, FRESH);
    m(Mistake::NoMark, &never, FRESH);
    m(Mistake::FillIgnoresMarks, &never, FRESH);
    m(Mistake::UnmarkWord, &parts, FRESH);
    m(Mistake::UnmarkAnothers, &parts, FRESH);
    m(Mistake::TwoDebtors, &never, OWED);
    m(Mistake::WriterSkipsDebts, &two, IN_USE);
    m(Mistake::WriterKeepsDebts, &two, EXACT);
    m(Mistake::WriterKeepsDebts, &two, SAFE);
    let stock = Protocol { stock: true, ..two.clone() };
    m(Mistake::WriterKeepsDebts, &stock, ONCE);
    m(Mistake::StockBeforeKill, &stock, ONCE);
    let pes = Protocol { pes: 2, ..two.clone() };
    m(Mistake::FirstMemberOnly, &pes, SAFE);
    let join = Protocol { pes: 2, join: true, ..never.clone() };
    m(Mistake::JoinWithoutKill, &join, FOREIGN);
    m(Mistake::LeaveWithoutKill, &join, FOREIGN);
    let batched = Protocol::new(Policy::Batched, FillRule::Always, Cache::ANY);
    m(Mistake::SubmitForgetsFills, &batched, FRESH);
    let beside = Protocol::new(Policy::Deferred, FillRule::BesideLive, Cache::BESIDE_LIVE);
    let one = Protocol { ring: 1, ..beside.clone() };
    m(Mistake::StrictClearsUnseen, &one, FRESH);
    m(Mistake::MarkLate, &beside, FRESH);
    m(Mistake::FillIgnoresMarks, &beside, FRESH);
    m(Mistake::OwnRunUnseen, &Protocol { runs: true, ..beside.clone() }, FRESH);
    fails("beside, any", Protocol { cache: Cache::ANY, ..beside.clone() }, FRESH);
    let faults = Cache { keeps: device::Keeps::Everything, ..Cache::BESIDE_LIVE };
    fails("beside, keeps faults", Protocol { cache: faults, ..beside.clone() }, FRESH);
    let entry = Cache { drops_line: false, ..Cache::BESIDE_LIVE };
    fails("beside, drops entry", Protocol { cache: entry, ..beside.clone() }, FRESH);
    fails("never, beside", Protocol { cache: Cache::BESIDE_LIVE, ..never.clone() }, FRESH);
}
