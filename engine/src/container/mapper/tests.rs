// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which calls are usual. The general path does the same, only slower, so nobody else would notice.

mod guests;

use std::time::Duration;

use super::*;
use crate::engine::{Engine, EngineOptions};
use crate::geometry::WindowSpec;
use crate::ioba::{IobaOptions, IobaSpace};
use crate::kill::KillPolicy;
use crate::table::SEGMENT_LG2;
use crate::{Mock, MockBuilder};

const P: u64 = 4 << 10;
const M: u64 = 1 << 20;
/// Of a segment of 4 KiB pages.
const SEGMENT: u64 = P << SEGMENT_LG2;
const A: u64 = 0x7f00_0000_0000;
const B: u64 = 0x7f10_0000_0000;
const RW: Perm = Perm::READ_WRITE;

fn engine(mock: &Arc<Mock>, policy: KillPolicy) -> Engine {
    Engine::new(mock.clone(), EngineOptions { policy, ..EngineOptions::default() })
}

fn deferred() -> KillPolicy {
    KillPolicy::Deferred { max_pages: 64, max_age: Duration::MAX }
}

/// Two groups, a window of sixteen segments, and two regions of which one is where handles have settled.
struct Rig {
    mock: Arc<Mock>,
    c: Arc<Container>,
    m: Mapper,
}

impl Rig {
    fn new() -> Self {
        Self::under(KillPolicy::Strict)
    }

    fn under(policy: KillPolicy) -> Self {
        let mock = MockBuilder::new(3).build();
        let c = engine(&mock, policy).container();
        c.attach(GroupId(0)).unwrap();
        c.attach(GroupId(1)).unwrap();
        c.create_window(WindowSpec::new(16 * SEGMENT, PageShift::K4)).unwrap();
        for start in [A, B] {
            c.register(Uaddr(start), 4 * M).unwrap();
        }
        let c = Arc::new(c);
        let m = c.mapper();
        Self { mock, c, m }
    }

    /// One whose calls at 0 are usual now, and whose handle owes nothing.
    fn settled(policy: KillPolicy) -> Self {
        let mut rig = Self::under(policy);
        rig.settle(0);
        rig.m.submit();
        rig
    }

    fn settle(&mut self, at: u64) {
        for _ in 0..4 {
            self.m.map(Ioba(at), Uaddr(A), P, RW, Mode::Refuse).unwrap();
            self.m.unmap(Ioba(at), P).unwrap();
        }
    }

    fn map_later(&mut self, at: u64, memory: u64) -> Option<(u32, u32)> {
        let done = self.m.map_later(Ioba(at), Uaddr(memory), P, RW);
        done.map(|done| (done.released, done.asked))
    }

    fn unmap_later(&mut self, at: u64, bytes: u64, free: bool) -> Option<(u32, u32)> {
        let done = self.m.unmap_later(Ioba(at), bytes, free);
        done.map(|done| (done.released, done.asked))
    }

    /// Released and asked, if it was usual.
    fn map(&mut self, at: u64, memory: u64) -> Option<(u32, u32)> {
        self.m.map_usual(Ioba(at), Uaddr(memory), P, RW).map(|done| (done.released, done.asked))
    }

    fn unmap(&mut self, at: u64, bytes: u64) -> Option<(u32, u32)> {
        self.m.unmap_usual(Ioba(at), bytes).map(|done| (done.released, done.asked))
    }

    /// Page by page, so that the lock stays with the handle.
    fn fill(&mut self, at: u64, pages: u64) {
        for n in 0..pages {
            let (at, memory) = (Ioba(at + n * P), Uaddr(A + n * P));
            self.m.map(at, memory, P, RW, Mode::Replace).unwrap();
        }
    }

    fn mapped(&self) -> Vec<u64> {
        self.c.regions().iter().map(|region| region.mapped).collect()
    }

    fn is_live(&self, at: u64) -> bool {
        let found = [0, 1].map(|pe| self.mock.probe(crate::addr::PeNumber(pe), Ioba(at)).is_ok());
        assert_eq!(found[0], found[1]);
        found[0]
    }
}

#[test]
fn a_page_is_usual_where_the_handle_has_settled() {
    let mut rig = Rig::new();
    assert_eq!((rig.map(0, A), rig.unmap(0, P)), (None, None), "nothing is known");
    rig.settle(0);
    assert_eq!(rig.map(0, A), Some((0, 2)));
    assert!(rig.is_live(0));
    assert_eq!(rig.mapped(), [1, 0]);
    assert_eq!(rig.map(0, A), None, "it is live");
    assert_eq!(rig.unmap(0, P), Some((1, 2)));
    assert!(!rig.is_live(0));
    assert_eq!(rig.mapped(), [0, 0]);
    assert!(rig.m.map_usual(Ioba(0), Uaddr(A), P, Perm::NONE).is_none());
    // Every page of the segment, and none beyond.
    let last = SEGMENT - P;
    assert_eq!((rig.map(last, A), rig.unmap(last, P)), (Some((0, 2)), Some((1, 2))));
    assert_eq!(rig.map(SEGMENT, A), None);
    // What changes the structure makes it forget.
    rig.c.register(Uaddr(B + 4 * M), M).unwrap();
    assert_eq!(rig.map(0, A), None);
}

#[test]
fn eight_segments_are_known_at_a_time() {
    let mut rig = Rig::new();
    let of = |segment: u64| segment * SEGMENT + 7 * P;
    (0..8).for_each(|segment| rig.settle(of(segment)));
    for segment in 0..8 {
        let at = of(segment);
        assert_eq!((rig.map(at, A), rig.unmap(at, P)), (Some((0, 2)), Some((1, 2))), "{segment}");
    }
    rig.settle(of(9));
    assert_eq!(rig.map(of(9), A), Some((0, 2)));
    assert_eq!(rig.map(of(1), A), None, "the other has its place");
    assert_eq!(rig.map(of(0), A), Some((0, 2)));
}

#[test]
fn what_is_no_page_is_not_usual() {
    let mut rig = Rig::settled(KillPolicy::Strict);
    rig.m.map(Ioba(0), Uaddr(A), P, RW, Mode::Refuse).unwrap();
    for (at, bytes) in [
        (1, P),
        (P / 2, P),
        (0, 0),
        (0, P / 2),
        (0, P + 1),
        (P / 2, 2 * P),
        (0, 2 * P + 2),
        (0, 2 * P + 5),
    ] {
        assert_eq!(rig.unmap(at, bytes), None, "{bytes} at {at}");
    }
    assert!(rig.is_live(0));
    let large = PageShift::K64.bytes();
    assert!(rig.m.map_usual(Ioba(large), Uaddr(A), large, RW).is_none());
    // A run that is as long as a page elsewhere.
    rig.fill(0, 16);
    assert_eq!(rig.unmap(0, large), Some((16, 32)));
}

#[test]
fn runs_of_one_segment() {
    let mut rig = Rig::settled(KillPolicy::Strict);
    rig.fill(0, 32);
    assert_eq!(rig.unmap(3 * P, P), Some((1, 2)));
    assert_eq!(rig.unmap(0, 33 * P), None, "too long");
    assert!(rig.is_live(0));
    let before = rig.mock.register_stores();
    let done = rig.m.unmap_usual(Ioba(0), 32 * P).unwrap();
    assert_eq!((done.released, done.asked), (31, 62));
    assert_eq!(u64::from(done.issued), rig.mock.register_stores() - before);
    assert!((0..32).all(|page| !rig.is_live(page * P)));
    assert_eq!(rig.mapped(), [0, 0]);
    assert_eq!(rig.unmap(0, 2 * P), Some((0, 0)), "nothing was there");
    assert_eq!(rig.unmap(5 * P, P), Some((0, 0)));
    // To the end of the segment, and one page beyond.
    let at = SEGMENT - 2 * P;
    rig.fill(at, 3);
    assert_eq!(rig.unmap(at, 3 * P), None);
    assert_eq!(rig.unmap(at, 2 * P), Some((2, 4)));
    assert!(rig.is_live(SEGMENT));
}

#[test]
fn memory_that_is_near() {
    let mut rig = Rig::settled(KillPolicy::Strict);
    let last = A + 4 * M - P;
    for memory in [A - P, A + 1, last + P, B] {
        assert!(!rig.m.fast.move_near(Uaddr(memory), PageShift::K4), "{memory:#x}");
        assert_eq!(rig.map(0, memory), None, "{memory:#x}");
    }
    assert!(!rig.m.fast.move_near(Uaddr(A), PageShift::K64));
    for memory in [A, last] {
        assert!(rig.m.fast.move_near(Uaddr(memory), PageShift::K4), "{memory:#x}");
        assert_eq!((rig.map(0, memory), rig.unmap(0, P)), (Some((0, 2)), Some((1, 2))));
    }
    // Another region's page is cleared here, too, and counted where it belongs.
    rig.fill(0, 1);
    rig.settle(SEGMENT);
    rig.m.map(Ioba(SEGMENT), Uaddr(B), P, RW, Mode::Refuse).unwrap();
    assert_eq!(rig.mapped(), [1, 1]);
    assert_eq!(rig.unmap(0, P), Some((1, 2)));
    assert_eq!(rig.mapped(), [0, 1]);
    // That other one is the known one since it was mapped.
    assert!(rig.m.fast.move_near(Uaddr(B + P), PageShift::K4));
    assert_eq!(rig.map(2 * P, B + P), Some((0, 2)));
}

#[test]
fn visits_in_a_row() {
    let mut rig = Rig::settled(KillPolicy::Strict);
    rig.settle(SEGMENT);
    let fast = &mut rig.m.fast;
    let mut visit = |at| fast.streak(Ioba(at));
    let known = visit(SEGMENT);
    assert_eq!([visit(SEGMENT), visit(SEGMENT + P)], [known + 1, known + 2]);
    assert_eq!([visit(0), visit(P), visit(SEGMENT), visit(0)], [1, 2, 1, 1]);
    assert_eq!([visit(3 * SEGMENT), visit(3 * SEGMENT)], [1, 1], "unknown");
}

#[test]
fn pages_of_another_size() {
    let mut rig = Rig::settled(KillPolicy::Strict);
    let second = rig.c.create_window(WindowSpec::new(64 * M, PageShift::K64)).unwrap().start;
    let large = PageShift::K64.bytes();
    for _ in 0..4 {
        rig.m.map(second, Uaddr(A), large, RW, Mode::Refuse).unwrap();
        rig.m.unmap(second, large).unwrap();
    }
    assert!(rig.m.map_usual(second, Uaddr(A), large, RW).is_some());
    assert!(rig.m.map_usual(Ioba(second.0 + large), Uaddr(A), P, RW).is_none());
    assert_eq!(rig.unmap(second.0, P), None, "a part of a page");
    assert_eq!(rig.unmap(second.0, large), Some((1, 2)));
    // Where memory ends is known for pages of one size at a time.
    rig.settle(SEGMENT);
    assert!(rig.m.map_usual(second, Uaddr(A), large, RW).is_none());
}

#[test]
fn addresses_of_the_magazine() {
    let rig = Rig::new();
    let space = IobaSpace { start: Ioba(0), bytes: SEGMENT, page: PageShift::K4 };
    let addresses = IobaAllocator::new(space, IobaOptions::default()).unwrap();
    let mut m = rig.c.mapper().with_addresses(&addresses);
    let mut last = Ioba(0);
    for _ in 0..4 {
        last = m.map_alloc(Uaddr(A), P, RW).unwrap();
        m.unmap_free(last, P).unwrap();
    }
    let ours = Page::Ours(PageShift::K4);
    let Mapper { fast, at, .. } = &mut m;
    assert!(fast.map(at, last, Uaddr(A), ours, RW).is_some());
    assert_eq!(fast.unmap_usual(at, last, ours).map(|done| done.released), Some(1));
    assert!(fast.map(at, Ioba(SEGMENT), Uaddr(A), ours, RW).is_none(), "not the allocator's");
    // As many pages as one of another size, at whatever place that would be.
    let map_run = || m.map_alloc(Uaddr(A), 64 << 10, RW);
    let runs: Vec<_> = std::iter::repeat_with(map_run).map_while(Result::ok).collect();
    for bytes in [0, 5, P - 1, P + 1] {
        let wrong = rig.c.unmap(runs[0], bytes).unwrap_err();
        assert_eq!(m.unmap_free(runs[0], bytes), Err(wrong), "{bytes}");
    }
    assert_eq!(rig.mapped(), [16 * runs.len() as u64, 0]);
    runs.iter().rev().for_each(|run| m.unmap_free(*run, 64 << 10).unwrap());
    assert_eq!((rig.mapped(), addresses.in_use()), (vec![0, 0], 0));
    // Without a magazine nothing is one's.
    let mut rig = Rig::settled(KillPolicy::Strict);
    let Mapper { fast, at, .. } = &mut rig.m;
    assert!(fast.map(at, Ioba(0), Uaddr(A), ours, RW).is_none());
}

#[test]
fn pages_whose_kills_wait() {
    let mut rig = Rig::under(deferred());
    assert_eq!((rig.map_later(0, A), rig.unmap_later(0, P, false)), (None, None));
    rig.settle(0);
    rig.m.submit();
    assert_eq!(rig.map(0, A), None, "strict ones have no debts");
    // A fill is killed at once.
    assert_eq!(rig.map_later(0, A), Some((0, 2)));
    assert_eq!(rig.map_later(0, A), None, "it is live");
    assert!(rig.m.map_later(Ioba(P), Uaddr(A), P, Perm::NONE).is_none());
    for memory in [A - P, A + 1, A + 4 * M, B] {
        assert_eq!(rig.map_later(P, memory), None, "{memory:#x}");
    }
    assert_eq!(rig.map_later(P, A + 4 * M - P), Some((0, 2)));
    assert_eq!((rig.m.owed(), rig.mapped()), (0, vec![2, 0]));
    assert_eq!(rig.unmap_later(0, P, false), Some((1, 0)));
    assert_eq!((rig.m.owed(), rig.m.held_back(), rig.mapped()), (1, 1, vec![2, 0]));
    assert!(!rig.is_live(0));
    assert_eq!(rig.unmap_later(0, P, true), None, "there is nothing that could be free");
    assert_eq!(rig.unmap_later(0, P, false), Some((0, 0)));
    rig.m.submit();
    assert_eq!((rig.m.owed(), rig.mapped()), (0, vec![1, 0]));
    // Where fills may wait, too, they are owed.
    let mut rig = Rig::settled(KillPolicy::Batched);
    assert_eq!(rig.map_later(0, A), Some((0, 0)));
    assert_eq!((rig.m.owed(), rig.m.held_back()), (1, 0));
    // Strict handles owe nothing.
    let mut rig = Rig::settled(KillPolicy::Strict);
    assert_eq!((rig.map_later(0, A), rig.unmap_later(0, P, false)), (None, None));
}

#[test]
fn runs_whose_kills_wait() {
    let mut rig = Rig::settled(deferred());
    rig.fill(0, 16);
    for (at, bytes) in [(0, 0), (0, P / 2), (P / 2, P), (0, P + 1), (SEGMENT - P, 2 * P)] {
        assert_eq!(rig.unmap_later(at, bytes, false), None, "{bytes} at {at:#x}");
    }
    assert_eq!(rig.unmap_later(0, 65 * P, false), None, "more than may be owed");
    assert_eq!(rig.unmap_later(0, 17 * P, true), None, "the last is not live");
    assert_eq!((rig.m.owed(), rig.mapped()), (0, vec![16, 0]));
    assert_eq!(rig.unmap_later(0, 17 * P, false), Some((16, 0)));
    rig.fill(0, 60);
    assert_eq!(rig.unmap_later(0, 44 * P, true), Some((44, 0)));
    assert_eq!((rig.m.owed(), rig.m.held_back()), (60, 60));
    // There is no room for sixteen more, so first the others are settled.
    assert_eq!(rig.unmap_later(44 * P, 16 * P, false), Some((16, 0)));
    assert_eq!((rig.m.owed(), rig.mapped()), (16, vec![16, 0]));
    assert!((0..60).all(|page| !rig.is_live(page * P)));
    rig.fill(SEGMENT - 2 * P, 2);
    assert_eq!(rig.unmap_later(SEGMENT - 2 * P, 2 * P, false), Some((2, 0)));
    // Whose they are is known of a segment with one region's alone.
    rig.fill(0, 1);
    rig.m.map(Ioba(P), Uaddr(B), P, RW, Mode::Refuse).unwrap();
    assert_eq!(rig.unmap_later(0, P, false), None);
}

#[test]
fn a_handle_that_is_gone_leaves_no_debts() {
    let rig = Rig::under(deferred());
    let debts = rig.m.debtor.as_ref().expect("kills wait").debts.clone();
    assert_eq!(Arc::strong_count(&debts), 3, "the handle's, the structure's and this one");
    drop(rig.m);
    assert_eq!(Arc::strong_count(&debts), 1);
}

#[test]
fn a_timer_with_nothing_to_settle_disturbs_nobody() {
    let mut rig = Rig::settled(deferred());
    assert_eq!(rig.c.retire_debts(Duration::ZERO).issued, 0);
    assert!(rig.map_later(0, A).is_some());
    assert!(rig.unmap_later(0, P, false).is_some());
    assert_eq!(rig.c.retire_debts(Duration::MAX).issued, 0, "it is not so old");
    assert!(rig.map_later(P, A).is_some());
    assert_eq!(rig.c.retire_debts(Duration::ZERO).issued, 2);
    assert!(rig.map_later(2 * P, A).is_none(), "it looks up again");
}

#[test]
fn who_only_unmaps_settles_too() {
    let mut rig = Rig::new();
    rig.c.map(Ioba(0), Uaddr(A), 8 * P, RW, Mode::Refuse).unwrap();
    for n in 0..4 {
        rig.m.unmap(Ioba(n * P), P).unwrap();
    }
    assert_eq!((rig.unmap(4 * P, P), rig.mapped()), (Some((1, 2)), vec![3, 0]));
}

/// Whichever way it goes.
#[test]
fn a_call_is_a_request() {
    for policy in [KillPolicy::Strict, KillPolicy::Batched, deferred()] {
        let mut rig = Rig::settled(policy);
        // Usual, of a segment that has two regions' pages, and of one that is not known.
        for all in [&[(0, A), (P, A + P)][..], &[(0, A), (P, B)], &[(3 * SEGMENT, A)]] {
            for (at, memory) in all {
                let done = rig.m.map(Ioba(*at), Uaddr(*memory), P, RW, Mode::Refuse).unwrap();
                assert_eq!((done.tces, done.requests), (1, 1), "{policy:?}, {at:#x}");
            }
            for (at, _) in all {
                let done = rig.m.unmap(Ioba(*at), P).unwrap();
                assert_eq!(
                    (done.tces, done.steps, done.requests),
                    (1, 1, 1),
                    "{policy:?}, {at:#x}"
                );
            }
        }
        rig.m.submit();
    }
}
