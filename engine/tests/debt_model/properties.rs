// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What must be so in every state, and what has to be so in some, or the model says nothing.

use stateright::Property;

use crate::protocol::{FillRule, Mistake, Policy, Protocol};
use crate::state::{Actor, Cached, ENTRIES, HANDLES, Member, PAGES, Set, State, Step};

pub(crate) const SAFE: &str = "no access reaches memory that is not pinned";
pub(crate) const COUNTED: &str = "memory that can be reached has a mapped count";
pub(crate) const EXACT: &str = "a mapped count is what is live and what is owed";
pub(crate) const FRESH: &str = "what a map has promised is what devices find";
pub(crate) const GONE: &str =
    "an empty entry without a mark is dead, or its unmap has not returned";
pub(crate) const FOREIGN: &str = "a PE finds its own container's entries only";
pub(crate) const OWED: &str = "every mark has its debt";
pub(crate) const ONCE: &str = "an IOBA is handed out once, and not before it is dead";
pub(crate) const IN_USE: &str = "what nobody maps can be unregistered";
pub(crate) const ONWARD: &str =
    "what is under way can go on, or waits for a bridge, a device or a lock";

pub(crate) const ALWAYS: [&str; 10] =
    [SAFE, COUNTED, EXACT, FRESH, GONE, FOREIGN, OWED, ONCE, IN_USE, ONWARD];

fn safe(_: &Protocol, s: &State) -> bool {
    s.pes.iter().flat_map(|pe| pe.reaches()).all(|page| s.pinned.has(page.into()))
}

fn counted(_: &Protocol, s: &State) -> bool {
    let reached = s.pes.iter().flat_map(|pe| pe.reaches());
    reached.chain(s.table.iter().flatten().copied()).all(|page| s.counts[usize::from(page)] > 0)
}

fn exact(_: &Protocol, s: &State) -> bool {
    let mut counts = [0_i8; PAGES];
    let mut add = |page: u8, n: i8| counts[usize::from(page)] += n;
    s.table.iter().flatten().for_each(|page| add(*page, 1));
    for actor in State::everybody() {
        let op = s.op(actor);
        if let Some(page) = op.fill {
            add(page, op.stores.len() as i8);
        }
        let owed = op.owed.iter().enumerate().filter(|_| !op.released);
        owed.for_each(|(page, n)| add(page as u8, *n as i8));
        let released = s.retired(actor).into_iter().filter(|_| op.released);
        released.filter_map(|(_, record)| record.page).for_each(|page| add(page, -1));
    }
    let records = s.handles.iter().flat_map(|handle| handle.ring.iter());
    records.filter_map(|record| record.page).for_each(|page| add(page, 1));
    counts == s.counts
}

fn fresh(_: &Protocol, s: &State) -> bool {
    s.members().iter().all(|pe| {
        let found = |e| match s.pes[pe].cache[e] {
            Cached::Entry(tce) => tce == s.table[e],
            _ => true,
        };
        s.promised.iter().all(found)
    })
}

fn gone(_: &Protocol, s: &State) -> bool {
    let dead = Set::below(ENTRIES).without(s.live()).without(s.marks).without(s.busy());
    let members = s.members();
    members
        .iter()
        .all(|pe| dead.iter().all(|e| !matches!(s.pes[pe].cache[e], Cached::Entry(Some(_)))))
}

fn foreign(_: &Protocol, s: &State) -> bool {
    s.pes.iter().all(|pe| match pe.member {
        Member::Yes => !pe.cache.contains(&Cached::Foreign),
        Member::No => pe.reaches().next().is_none(),
        Member::Bare => true,
    })
}

fn owed(p: &Protocol, s: &State) -> bool {
    s.marks.iter().all(|e| {
        let debtor = s.debtors[p.words[e]];
        debtor.is_some_and(|h| {
            s.handles[usize::from(h)].ring.iter().any(|record| usize::from(record.entry) == e)
        })
    })
}

fn once(p: &Protocol, s: &State) -> bool {
    (0..p.entries()).all(|e| {
        let behind = s.live().with(s.marks).with(s.busy()).has(e);
        match s.stock[e] {
            0 => true,
            1 => !s.held.has(e) && !behind,
            _ => false,
        }
    })
}

fn in_use(_: &Protocol, s: &State) -> bool {
    !s.refused
}

fn onward(_: &Protocol, s: &State) -> bool {
    let holder = |h: u8| s.handles[usize::from(h)].op.step == Step::Store;
    State::everybody().all(|actor| match s.op(actor).step {
        Step::Kill => s.op(actor).kills.iter().any(|pages| !pages.is_empty()),
        Step::Fence => s.op(actor).waits.iter().all(|pe| s.pes[pe].flight.is_some()),
        Step::Unmark | Step::MarkLate => s.lock.is_none_or(holder),
        _ => true,
    })
}

fn stale_in_debt(_: &Protocol, s: &State) -> bool {
    s.pes.iter().any(|pe| {
        let stale = |e: &usize| matches!(pe.cache[*e], Cached::Entry(Some(_)));
        s.marks.without(s.live()).iter().any(|e| stale(&e))
    })
}

fn reused(_: &Protocol, s: &State) -> bool {
    !s.marks.and(s.live()).and(s.promised).is_empty()
}

fn reused_by_another(p: &Protocol, s: &State) -> bool {
    (0..HANDLES).any(|h| {
        let op = &s.handles[h].op;
        let anothers = |e: usize| s.debtors[p.words[e]].is_some_and(|of| usize::from(of) != h);
        op.step == Step::Kill && op.fill.is_some() && s.marks.and(op.run).iter().any(anothers)
    })
}

fn twice(_: &Protocol, s: &State) -> bool {
    s.handles.iter().any(|handle| {
        let entries: Vec<_> = handle.ring.iter().filter(|r| !r.fill).map(|r| r.entry).collect();
        entries.iter().enumerate().any(|(n, e)| entries[..n].contains(e))
    })
}

fn strict_beside_debt(p: &Protocol, s: &State) -> bool {
    (0..HANDLES).any(|h| {
        let op = &s.handles[h].op;
        let anothers = |e: usize| s.debtors[p.words[e]].is_some_and(|of| usize::from(of) != h);
        op.strict && op.run.iter().any(anothers)
    })
}

fn retired_by_owner(_: &Protocol, s: &State) -> bool {
    (0..HANDLES)
        .map(Actor::Handle)
        .any(|actor| s.op(actor).step == Step::Release && !s.retired(actor).is_empty())
}

fn retired_by_writer(_: &Protocol, s: &State) -> bool {
    s.writer.step == Step::Release && !s.retired(Actor::Writer).is_empty()
}

fn waits(_: &Protocol, s: &State) -> bool {
    State::everybody().any(|actor| s.op(actor).step == Step::Fence)
}

fn unregistered(p: &Protocol, s: &State) -> bool {
    s.pinned != Set::below(p.pages)
}

fn joined(p: &Protocol, s: &State) -> bool {
    s.pes[p.pes - 1].member == Member::Yes
}

fn fills_wait(_: &Protocol, s: &State) -> bool {
    s.handles.iter().any(|handle| handle.ring.iter().any(|record| record.fill))
}

fn part(_: &Protocol, s: &State) -> bool {
    (0..HANDLES).any(|h| {
        let n = usize::from(s.handles[h].op.retires[h]);
        n > 0 && n < s.handles[h].ring.len()
    })
}

pub(crate) fn all(p: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(SAFE, safe),
        Property::always(COUNTED, counted),
        Property::always(EXACT, exact),
        Property::always(FRESH, fresh),
        Property::always(GONE, gone),
        Property::always(FOREIGN, foreign),
        Property::always(OWED, owed),
        Property::always(ONCE, once),
        Property::always(IN_USE, in_use),
        Property::always(ONWARD, onward),
        Property::sometimes("a fence waits for an access", waits),
    ];
    let debts = p.policy != Policy::Strict;
    let marks = debts && !p.makes(Mistake::NoMark);
    let mut some = |if_so: bool, name, condition| {
        all.extend(if_so.then(|| Property::sometimes(name, condition)));
    };
    some(debts, "a handle retires its debts", retired_by_owner);
    some(debts && (p.unregister || p.join), "a writer retires a handle's debts", retired_by_writer);
    some(debts && p.parts, "a ring is retired in part", part);
    some(marks, "a page in debt is still cached", stale_in_debt);
    some(marks, "a call is strict beside another's debt", strict_beside_debt);
    some(marks && !p.stock, "an entry in debt is mapped again", reused);
    some(marks && !p.stock, "an entry in another's debt is mapped again", reused_by_another);
    some(marks && !p.stock && p.ring > 1, "a ring has an entry twice", twice);
    some(p.policy == Policy::Batched && p.fill != FillRule::Never, "a fill waits", fills_wait);
    some(p.unregister, "a page is unregistered", unregistered);
    some(p.join, "a PE joins", joined);
    all
}
