// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The protocol of the kill policies: debts, their marks, their retirement and the reuse of what is in
//! debt, written to be read, and checked in every order of its steps.
//!
//! # Who is there
//!
//! * **Handles** (`handle.rs`), two, each on a thread: map, unmap, retire. A call shares
//!   `Container::state` from its beginning to its end.
//! * **A writer** (`change.rs`) changes the structure: unregisters memory, lets a PE join or leave. It
//!   holds `Container::state` alone, so it meets no call; devices it does meet.
//! * **Devices and bridges** (`device.rs`), one for each PE: a line comes into the cache at any time,
//!   whatever is next to what in it; an access is in flight for as long as the device likes.
//!
//! # What they do
//!
//! A call changes entries under the lock of their segment. What comes then is the same for everybody
//! (`settle.rs`): *kill*, *fence*, *unmark*, *release*. A clear that waits does none of it. It leaves a
//! **mark** at its entry in the same hold of the lock in which it cleared it, and a **record** in its
//! handle's ring: the mapped count stays up, and the IOBA stays taken. Whoever retires the record does
//! kill, fence, unmark and release on the debtor's behalf.
//!
//! * Marks share words, and a word has one debtor. A clear beside another's marks does not wait.
//! * A fill of a marked entry kills it, whatever the rule for fills is. The mark stays.
//! * Whoever resets a mark looks whether it still is the debtor's. It need not be: a ring may have an
//!   entry twice, and a kill of the first record serves the second.
//! * With `FillRule::BesideLive` a fill is killed if anything else in its line is live, marked, being
//!   cleared by a call that does not wait, or filled by the same call.
//! * The writer retires all debts first.
//!
//! # What is shown
//!
//! `properties.rs` has it: what holds in every state, and what happens in some, so that it is not about
//! nothing. Calls are without end, yet there are finitely many states, so each instance is seen whole.
//! Each [`Mistake`] is found out, and so is each cache that is not what a fill rule rests on.
//! Calls are straight lines of steps, and whatever is under way can go on: so each debt can be retired
//! if devices have done with their accesses at some time.
//!
//! # What is taken for granted
//!
//! That the locks are locks (loom: `src/models.rs`). That a kill is carried out at one moment between the
//! store to its register and the end of the fence, and that a walk is one moment: either it comes before a
//! kill, which takes its line away, or it finds what the table says after the kill. That two handles,
//! two PEs, two pages and three entries are enough to go wrong with.
#![cfg(not(any(loom, target_arch = "powerpc64")))]

mod change;
mod device;
mod handle;
mod model;
mod properties;
mod protocol;
mod settle;
mod state;

use std::collections::HashSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use device::{Cache, Keeps};
use properties::{ALWAYS, COUNTED, EXACT, FOREIGN, FRESH, GONE, IN_USE, ONCE, ONWARD, OWED, SAFE};
use protocol::{FillRule, Mistake, Policy, Protocol};
use state::{PAGES, State};

/// Looks at all states, or at as many as it takes to break one of the properties.
fn check(name: &str, p: Protocol, broken: &[&'static str]) -> impl Checker<Protocol> + use<> {
    let began = Instant::now();
    let until = HasDiscoveries::AnyOf(broken.iter().copied().collect());
    let checker = p.checker().finish_when(until).spawn_bfs().join();
    let (states, seconds) = (checker.unique_state_count(), began.elapsed().as_secs_f32());
    println!("{name}: {states} states, depth {}, {seconds:.1} s", checker.max_depth());
    checker
}

/// How a property was broken, step by step.
fn story(checker: &impl Checker<Protocol>, property: &'static str) -> Option<String> {
    let path = checker.discovery(property)?;
    let last = *path.last_state();
    let steps = path.into_actions().into_iter().enumerate();
    let steps: String = steps.map(|(n, action)| format!("{:4} {action:?}\n", n + 1)).collect();
    Some(format!("not so: {property}\n{steps}{last:#?}"))
}

/// Everything holds but for what is excepted.
#[track_caller]
fn holds_but(name: &str, p: &Protocol, excepted: &[&'static str]) {
    let always: Vec<_> = ALWAYS.into_iter().filter(|name| !excepted.contains(name)).collect();
    let checker = check(name, Protocol { symmetry: true, ..p.clone() }, &always);
    if always.iter().any(|property| checker.discovery(property).is_some()) {
        // Once more, with everybody keeping his name.
        let checker = check(name, p.clone(), &always);
        let story = always.iter().find_map(|property| story(&checker, property));
        panic!("{name}: {}", story.expect("names change nothing"));
    }
    for property in p.properties().iter().map(|property| property.name) {
        let found = checker.discovery(property).is_some();
        assert!(found || always.contains(&property), "{name}: never so: {property}");
    }
}

#[track_caller]
fn holds(name: &str, p: &Protocol) {
    holds_but(name, p, &[]);
}

/// The instance breaks this property.
#[track_caller]
fn breaks(name: &str, p: Protocol, property: &'static str) {
    let checker = check(name, p, &[property]);
    assert!(story(&checker, property).is_some(), "{name}: nobody noticed. Always: {property}");
}

#[track_caller]
fn found_out(mistake: Mistake, p: &Protocol, property: &'static str) {
    breaks(&format!("{mistake:?}"), Protocol { mistake: Some(mistake), ..p.clone() }, property);
}

const STRICT: Protocol = Protocol {
    replace: true,
    unregister: true,
    ..Protocol::new(Policy::Strict, FillRule::Always, Cache::ANY)
};
const NEVER: Protocol = Protocol {
    ring: 1,
    unregister: true,
    ..Protocol::new(Policy::Deferred, FillRule::Never, Cache::LIVE)
};
/// An entry may be twice in a ring.
const TWICE: Protocol = Protocol { ring: 2, pages: 1, parts: true, ..NEVER };
const MEMBERS: Protocol = Protocol { pes: 2, pages: 1, join: true, ..NEVER };
const STOCK: Protocol = Protocol { ring: 2, stock: true, parts: true, ..NEVER };
const BESIDE: Protocol = Protocol {
    ring: 1,
    ..Protocol::new(Policy::Deferred, FillRule::BesideLive, Cache::BESIDE_LIVE)
};
const RUNS: Protocol = Protocol { ring: 2, pages: 1, runs: true, unregister: true, ..BESIDE };
const ALWAYS_FILL: Protocol = Protocol {
    ring: 1,
    replace: true,
    unregister: true,
    ..Protocol::new(Policy::Deferred, FillRule::Always, Cache::ANY)
};
const BATCHED: Protocol = Protocol { policy: Policy::Batched, replace: false, ..ALWAYS_FILL };
const BATCHED_BESIDE: Protocol = Protocol { policy: Policy::Batched, ..RUNS };

#[test]
fn strict() {
    holds("strict", &STRICT);
    holds("strict, calls overlap", &Protocol { overlap: true, runs: true, ..STRICT });
    holds("strict, members", &Protocol { pes: 2, join: true, pages: 1, ..STRICT });
}

#[test]
fn deferred() {
    holds("deferred", &NEVER);
    holds("deferred, calls overlap", &Protocol { overlap: true, replace: true, ..NEVER });
    holds("deferred, twice", &TWICE);
    holds("deferred, members", &MEMBERS);
    holds("deferred, stock", &STOCK);
    holds("deferred, always", &ALWAYS_FILL);
    holds("deferred, whole PEs", &Protocol { max_page_kills: 0, ring: 2, pages: 1, ..ALWAYS_FILL });
}

#[test]
fn deferred_beside_live() {
    holds("beside live", &BESIDE);
    holds("beside live, runs", &Protocol { overlap: true, ..RUNS });
    holds("beside live, runs as whole PEs", &Protocol { max_page_kills: 1, ..RUNS });
    let lines = Protocol { lines: &[0, 0, 1], pages: 1, ..BESIDE };
    holds("beside live, two lines of a word", &Protocol { words: &[0, 0, 0], ..lines });
    holds("beside live, two words", &Protocol { words: &[0, 0, 1], ..lines });
}

#[test]
fn batched() {
    holds("batched", &BATCHED);
    holds("batched, replacing", &Protocol { pages: 1, replace: true, ..BATCHED });
    holds("batched, never", &Protocol { policy: Policy::Batched, ..NEVER });
    holds("batched, beside live", &BATCHED_BESIDE);
}

/// Where each fill is killed anyway, marks are of no use: what is in debt is killed when it is mapped again.
#[test]
fn no_marks_where_each_fill_is_killed() {
    for (name, p) in [("unmarked, deferred", ALWAYS_FILL), ("unmarked, batched", BATCHED)] {
        holds_but(name, &Protocol { mistake: Some(Mistake::NoMark), ..p }, &[GONE]);
    }
}

/// All states, found in another way than the checker's.
fn reached(p: &Protocol) -> HashSet<State> {
    let mut new = p.init_states();
    let mut all: HashSet<_> = new.iter().copied().collect();
    while let Some(state) = new.pop() {
        new.extend(p.next_states(&state).into_iter().filter(|next| all.insert(*next)));
    }
    all
}

/// What the checker does not look at, as it differs from something else by names only, does so.
#[test]
fn names_change_nothing() {
    for (name, p) in [("members", MEMBERS), ("stock", STOCK), ("beside live", BESIDE)] {
        let named = Protocol { symmetry: true, ..p.clone() };
        let rename = |state: State| state.representative(p.pages == PAGES);
        let all: HashSet<_> = reached(&p).into_iter().map(rename).collect();
        assert!(all == reached(&named), "{name}");
        assert_eq!(all.len(), check(name, named, &ALWAYS).unique_state_count(), "{name}");
    }
}

#[test]
fn mistakes_in_the_order_of_steps_are_found() {
    found_out(Mistake::NoKill, &NEVER, SAFE);
    found_out(Mistake::NoKill, &NEVER, GONE);
    found_out(Mistake::NoFence, &NEVER, SAFE);
    found_out(Mistake::ReleaseBeforeFence, &NEVER, COUNTED);
    found_out(Mistake::ReleaseBeforeKill, &NEVER, COUNTED);
    found_out(Mistake::UnmarkBeforeKill, &NEVER, FRESH);
    found_out(Mistake::StockBeforeKill, &STOCK, ONCE);
    found_out(Mistake::SettleUnderLock, &NEVER, ONWARD);
    found_out(Mistake::SubmitForgetsFills, &BATCHED, FRESH);
    for mistake in [Mistake::NoKill, Mistake::NoFence, Mistake::ReleaseBeforeKill] {
        found_out(mistake, &BATCHED, COUNTED);
    }
}

#[test]
fn mistakes_with_marks_are_found() {
    found_out(Mistake::NoMark, &NEVER, FRESH);
    found_out(Mistake::NoMark, &BESIDE, FRESH);
    found_out(Mistake::MarkLate, &BESIDE, FRESH);
    found_out(Mistake::FillIgnoresMarks, &NEVER, FRESH);
    found_out(Mistake::FillIgnoresMarks, &BESIDE, FRESH);
    found_out(Mistake::FillIgnoresMarks, &Protocol { policy: Policy::Batched, ..NEVER }, FRESH);
    found_out(Mistake::UnmarkWord, &TWICE, GONE);
    found_out(Mistake::UnmarkAnothers, &TWICE, GONE);
    found_out(Mistake::TwoDebtors, &NEVER, OWED);
}

#[test]
fn mistakes_with_others_are_found() {
    found_out(Mistake::FirstMemberOnly, &MEMBERS, SAFE);
    found_out(Mistake::JoinWithoutKill, &MEMBERS, FOREIGN);
    found_out(Mistake::LeaveWithoutKill, &MEMBERS, FOREIGN);
    found_out(Mistake::WriterSkipsDebts, &NEVER, IN_USE);
    found_out(Mistake::WriterKeepsDebts, &NEVER, EXACT);
    found_out(Mistake::WriterKeepsDebts, &NEVER, SAFE);
    found_out(Mistake::WriterKeepsDebts, &STOCK, ONCE);
}

#[test]
fn wrong_rules_for_fills_are_found() {
    found_out(Mistake::StrictClearsUnseen, &BESIDE, FRESH);
    found_out(Mistake::OwnRunUnseen, &RUNS, FRESH);
    let lasting = Cache { drops_line: false, ..Cache::BESIDE_LIVE };
    breaks("a kill that leaves its line", Protocol { cache: lasting, ..BESIDE }, FRESH);
    let failed = Cache { keeps: Keeps::Everything, ..Cache::BESIDE_LIVE };
    breaks("a cache of failed translations", Protocol { cache: failed, ..BESIDE }, FRESH);
    let empty = Cache { keeps: Keeps::BesideLive, ..Cache::LIVE };
    breaks("a cache of empty entries", Protocol { cache: empty, ..NEVER }, FRESH);
}

/// More of everything.
#[test]
#[ignore = "18 million states, minutes"]
fn large() {
    holds("large, deferred", &Protocol { ring: 2, pages: 2, ..TWICE });
    holds("large, members", &Protocol { ring: 2, pages: 2, ..MEMBERS });
    let three = Protocol { lines: &[0, 0, 0], words: &[0, 0, 0], overlap: true, ..RUNS };
    holds("large, beside live", &Protocol { pages: 2, overlap: true, ..RUNS });
    holds("large, beside live, a line of three", &three);
    holds(
        "large, beside live, two words",
        &Protocol { lines: &[0, 0, 1], words: &[0, 0, 1], ..three },
    );
    holds("large, batched", &Protocol { ring: 2, pages: 1, parts: true, ..BATCHED });
    holds("large, batched, twice", &Protocol { policy: Policy::Batched, ..TWICE });
    holds("large, batched beside live", &Protocol { overlap: true, ..BATCHED_BESIDE });
}
