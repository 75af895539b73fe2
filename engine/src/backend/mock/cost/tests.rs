// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is charged is counted, not timed: a busy machine only makes it take longer.

use super::*;
use crate::addr::{GroupId, Ioba, PageShift, Uaddr};
use crate::backend::mock::{Mock, MockBuilder, MockError};
use crate::backend::{Backend, KillCaps};
use crate::container::{Container, Mode};
use crate::engine::{Engine, EngineOptions};
use crate::geometry::WindowSpec;
use crate::sync::Arc;
use crate::tce::Perm;

const COST: KillCost = KillCost { store_ns: 3, fence_ns: 50, refill_ns: 7 };
const MEMORY: Uaddr = Uaddr(0x10_0000_0000);
const PAGE: u64 = 4096;
/// Pages of each window.
const PAGES: u64 = 2048;

/// One container with groups and a window of two levels, which leaves nothing behind.
struct Fixture {
    mock: Arc<Mock>,
    container: Arc<Container>,
    start: Ioba,
    /// Stores and fences of setting up.
    before: (u64, u64),
}

impl Fixture {
    /// Blocks are small, so that all leaves are looked at.
    fn new(builder: MockBuilder, groups: u32) -> Self {
        let mock = builder.host_page(PageShift::K4).build();
        let engine = Engine::new(mock.clone(), EngineOptions::default());
        let container = Arc::new(engine.container());
        for group in 0..groups {
            container.attach(GroupId(group)).unwrap();
        }
        container.register(MEMORY, PAGES * PAGE).unwrap();
        let spec = WindowSpec::new(PAGES * PAGE, PageShift::K4).levels(2);
        let start = container.create_window(spec).unwrap().start;
        let before = (mock.register_stores(), mock.fences());
        Self { mock, container, start, before }
    }

    fn map(&self, pages: u64) {
        let (bytes, perm) = (pages * PAGE, Perm::READ_WRITE);
        self.container.map(self.start, MEMORY, bytes, perm, Mode::Refuse).unwrap();
    }

    /// What happened since the last call: stores, fences, what was charged.
    fn since(&self, last: &mut ((u64, u64), KillCharge)) -> (u64, u64, KillCharge) {
        let now = ((self.mock.register_stores(), self.mock.fences()), self.mock.kill_charge());
        let (then, was) = std::mem::replace(last, now);
        let charge = KillCharge {
            store_ns: now.1.store_ns - was.store_ns,
            fence_ns: now.1.fence_ns - was.fence_ns,
            refill_ns: now.1.refill_ns - was.refill_ns,
        };
        (now.0.0 - then.0, now.0.1 - then.1, charge)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.container.close();
        if !std::thread::panicking() {
            assert_eq!(self.mock.leftovers(), (0, 0, 0), "pinned, tables, windows");
        }
    }
}

fn costly(groups: u16) -> MockBuilder {
    MockBuilder::new(groups).kill_cost(COST)
}

#[test]
fn every_store_and_every_fence_is_charged_once_whoever_makes_it() {
    let fixture = Fixture::new(costly(2), 2);
    // Setting up and joining, too.
    let first = fixture.mock.kill_charge();
    assert_eq!((first.store_ns, first.fence_ns), (3 * fixture.before.0, 50 * fixture.before.1));
    let mut last = (fixture.before, first);
    // By the container, then by a handle: two members, a store each.
    fixture.map(8);
    let expected = |stores, fences, refill_ns| {
        (stores, fences, KillCharge { store_ns: 3 * stores, fence_ns: 50 * fences, refill_ns })
    };
    assert_eq!(fixture.since(&mut last), expected(16, 1, 0));
    let mut mapper = fixture.container.mapper();
    for _ in 0..4 {
        mapper.unmap(fixture.start, PAGE).unwrap();
        assert_eq!(fixture.since(&mut last), expected(2, 1, 0));
        mapper.map(fixture.start, MEMORY, PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
        assert_eq!(fixture.since(&mut last), expected(2, 1, 0));
    }
    mapper.unmap(fixture.start, 8 * PAGE).unwrap();
    assert_eq!(fixture.since(&mut last), expected(16, 1, 0));
    drop(mapper);
}

#[test]
#[cfg_attr(miri, ignore = "whole tables are looked at, entry by entry")]
fn a_kill_of_a_pe_is_charged_with_what_its_other_users_lose() {
    let fixture = Fixture::new(costly(2), 2);
    let mut last = (fixture.before, fixture.mock.kill_charge());
    let mut refills = |do_it: &dyn Fn()| {
        do_it();
        let (stores, fences, charge) = fixture.since(&mut last);
        assert_eq!((stores, fences), (2, 1));
        charge.refill_ns
    };
    let unmap = |first: u64, pages: u64| {
        let at = Ioba(fixture.start.0 + first * PAGE);
        fixture.container.unmap(at, pages * PAGE).unwrap();
    };
    // Filled entries are killed, too: no more than a bridge holds, two levels each, two PEs.
    assert_eq!(refills(&|| fixture.map(PAGES)), 2 * 2 * 1024 * 7);
    assert_eq!(refills(&|| unmap(0, 1024)), 2 * 2 * 1024 * 7);
    // 300 are left beside those that go, which nobody has to walk for again.
    assert_eq!(refills(&|| unmap(1024, PAGES - 1024 - 300)), 2 * 2 * 300 * 7);
    assert_eq!(refills(&|| unmap(PAGES - 300, 300)), 0);
}

#[test]
#[cfg_attr(miri, ignore = "whole tables are looked at, entry by entry")]
fn a_kill_of_all_is_charged_with_every_pe_of_the_bridge_and_no_other() {
    let kill = KillCaps { pe_scope: false, ..KillCaps::PHB3 };
    let one = |group: u32, phbs: u16| {
        let fixture = Fixture::new(costly(4).phbs(phbs).kill(kill), 3);
        fixture.map(200);
        let before = fixture.mock.kill_charge().refill_ns;
        assert_eq!(fixture.mock.kill(GroupId(group), KillScope::All), 1);
        fixture.mock.kill_charge().refill_ns - before
    };
    // PEs 0, 1 and 2 have the window.
    assert_eq!(one(3, 1), 3 * 200 * 2 * 7);
    assert_eq!((one(0, 2), one(3, 2)), (2 * 200 * 2 * 7, 200 * 2 * 7));
}

#[test]
#[cfg_attr(miri, ignore = "whole tables are looked at, entry by entry")]
fn a_smaller_cache_has_less_to_refill() {
    let cache = TceCache { entries: 64, line: 1, keep_faults: true };
    let fixture = Fixture::new(costly(1).tce_cache(cache), 1);
    fixture.map(200);
    let before = fixture.mock.kill_charge().refill_ns;
    fixture.mock.kill(GroupId(0), KillScope::Pe);
    assert_eq!(fixture.mock.kill_charge().refill_ns - before, 64 * 2 * 7);
}

#[test]
#[cfg_attr(miri, ignore = "whole tables are looked at, entry by entry")]
fn large_tables_are_sampled_and_the_samples_move() {
    // 64 leaf blocks of 8192 entries, of which every 256th line of 64 is looked at.
    let mock = costly(1).build();
    let engine = Engine::new(mock.clone(), EngineOptions::default());
    let container = engine.container();
    container.attach(GroupId(0)).unwrap();
    let bytes = (64 * 8192) * PAGE;
    container.register(MEMORY, bytes).unwrap();
    let window = container.create_window(WindowSpec::new(bytes, PageShift::K4).levels(2)).unwrap();
    let map = |first: u64, pages: u64| {
        let at = Ioba(window.start.0 + first * PAGE);
        container.map(at, MEMORY, pages * PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
    };
    let phb = mock.phb.windows(0).next().unwrap();
    let live = |nth| phb.live(&mock.real, nth);
    // One page in each block makes them all; 64 pages in a row are one line of the first.
    (1..64).for_each(|block| map(block * 8192 + 8191, 1));
    map(0, 64);
    let step = 64 * 8192 / 64 / 32;
    let looks: Vec<_> = (0..step).map(live).collect();
    // Together the samples see all, each line once.
    assert_eq!(looks.iter().sum::<u64>(), step * (64 + 63));
    assert_eq!((looks[0], looks[1]), (64 * step, 0));
    container.unmap(window.start, bytes).unwrap();
    assert!((0..step).all(|nth| live(nth) == 0));
    container.close();
    assert_eq!(mock.leftovers(), (0, 0, 0));
}

#[test]
fn nothing_is_charged_unless_asked_for() {
    let fixture = Fixture::new(MockBuilder::new(1), 1);
    fixture.map(PAGES);
    fixture.map_and_unmap_by_a_handle();
    assert_eq!(fixture.mock.kill_charge(), KillCharge::default());
    let members = [GroupId(0)];
    let register = |mock: &Arc<Mock>| mock.clone().kill_port(&members).unwrap().page_register();
    assert!(register(&fixture.mock).is_some());
    let costly = costly(1).build();
    assert!(register(&costly).is_none());
}

impl Fixture {
    fn map_and_unmap_by_a_handle(&self) {
        let mut mapper = self.container.mapper();
        mapper.unmap(self.start, PAGES * PAGE).unwrap();
        mapper.map(self.start, MEMORY, PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
        mapper.unmap(self.start, PAGE).unwrap();
    }
}

#[test]
fn a_call_takes_at_least_what_it_is_charged_with() {
    let cost = KillCost { store_ns: 0, fence_ns: 200_000, refill_ns: 0 };
    let mock = MockBuilder::new(1).kill_cost(cost).build();
    let begin = Instant::now();
    (0..5).for_each(|_| mock.fence());
    let (took, charged) = (begin.elapsed(), mock.kill_charge().total_ns());
    assert_eq!(charged, 1_000_000);
    // Less what reading the clock adds.
    assert!(took.as_nanos() >= 900_000, "{took:?}");
}

#[test]
fn costs_that_nobody_would_wait_for_are_refused() {
    for nth in 0..3 {
        let mut cost = KillCost { store_ns: 0, fence_ns: 0, refill_ns: 0 };
        let which = [&mut cost.store_ns, &mut cost.fence_ns, &mut cost.refill_ns];
        *which.into_iter().nth(nth).unwrap() = KillCost::MOST_NS + 1;
        let error = MockBuilder::new(1).kill_cost(cost).try_build().err();
        assert_eq!(error, Some(MockError::KillCost { cost }));
        assert!(error.unwrap().to_string().contains("1000001"), "{cost:?}");
    }
    let most = KillCost { store_ns: KillCost::MOST_NS, fence_ns: 0, refill_ns: 0 };
    assert!(MockBuilder::new(1).kill_cost(most).try_build().is_ok());
}
