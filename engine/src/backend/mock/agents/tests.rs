// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The judge, without threads: each thing that is wrong, and what is right beside it.

use super::judge::judge;
use super::*;
use crate::addr::GroupId;
use crate::backend::mock::{MockBuilder, TceCache};
use crate::container::{Container, Mode, Removal};
use crate::engine::{Engine, EngineOptions};
use crate::geometry::WindowSpec;

const A: Uaddr = Uaddr(0x0100_0000_0000);
const PE: PeNumber = PeNumber(0);
const S: Stretch = Stretch { bus: 0, nth: 0 };
const P: u64 = 4096;

struct Bench {
    expect: Arc<Expectations>,
    container: Container,
    engine: Engine,
}

fn bench() -> Bench {
    let mock = MockBuilder::new(1).no_freeze(true).tce_cache(TceCache::POWER8).build();
    let engine = Engine::new(mock.clone(), EngineOptions::default());
    let container = engine.container();
    container.attach(GroupId(0)).unwrap();
    container.create_window(WindowSpec::new(1 << 20, PageShift::K4)).unwrap();
    container.register(A, 1 << 20).unwrap();
    let watched = Watched { start: Ioba(0), page: PageShift::K4, pages: 16 };
    let expect = Arc::new(Expectations::new(mock, 1, &[&[watched]]));
    expect.moving(PE);
    expect.moved(PE, Some(0));
    Bench { expect, container, engine }
}

impl Bench {
    fn access(&self, page: u64, access: Access) -> Option<Kind> {
        self.expect.access(PE, S, page, access, 0)
    }

    fn map(&self, page: u64, perm: Perm) {
        self.container.map(Ioba(page * P), A, P, perm, Mode::Replace).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.container.close();
        assert_eq!(self.expect.mock.leftovers(), (0, 0, 0));
        assert_eq!(self.engine.ledger().pages(), 0);
    }
}

#[test]
fn who_says_what_is_there_is_taken_at_his_word() {
    use Access::{Read, Write};
    let b = bench();
    assert_eq!(b.access(3, Read), None, "nothing, as nothing was said");
    b.map(3, Perm::READ_WRITE);
    assert_eq!(b.access(3, Read), Some(Kind::Stale));
    b.expect.changing(S, 3, "test");
    assert_eq!(b.access(3, Read), None, "nobody can say");
    b.expect.mapped(S, 3, A, Perm::READ_WRITE);
    assert_eq!((b.access(3, Read), b.access(3, Write)), (None, None));
    b.expect.mapped(S, 3, Uaddr(A.0 + P), Perm::READ_WRITE);
    assert_eq!(b.access(3, Read), Some(Kind::OtherPage));
    b.expect.mapped(S, 3, A, Perm::READ);
    assert_eq!([b.access(3, Read), b.access(3, Write)], [Some(Kind::Permission); 2]);
    b.map(3, Perm::READ);
    assert_eq!((b.access(3, Read), b.access(3, Write)), (None, None), "a store is refused");
    b.expect.mapped(S, 3, A, Perm::WRITE);
    assert_eq!(b.access(3, Write), Some(Kind::StaleEmpty));
    b.map(3, Perm::WRITE);
    assert_eq!((b.access(3, Read), b.access(3, Write)), (None, None), "a store implies a load");
    b.expect.mapped(S, 4, A, Perm::READ);
    assert_eq!((b.access(4, Read), b.access(4, Write)), (Some(Kind::StaleEmpty), None));
    assert_eq!(b.expect.count(), 6);
    assert_eq!(b.expect.violations().len(), 6);
}

#[test]
fn what_is_owed_may_be_found_and_nothing_else() {
    use Access::{Read, Write};
    let b = bench();
    b.expect.owed(S, 3, A, Perm::READ_WRITE);
    assert_eq!(b.access(3, Read), None, "it has been killed before it had to be");
    b.map(3, Perm::READ_WRITE);
    assert_eq!((b.access(3, Read), b.access(3, Write)), (None, None), "not yet");
    b.expect.owed(S, 3, Uaddr(A.0 + P), Perm::READ_WRITE);
    assert_eq!(b.access(3, Read), Some(Kind::OtherPage));
    b.expect.owed(S, 3, A, Perm::READ);
    assert_eq!(b.access(3, Write), Some(Kind::Permission));
    b.expect.released(S, 3);
    assert_eq!(b.access(3, Read), Some(Kind::Stale));
    assert_eq!((b.expect.arrived(), b.expect.accesses()), (5, (6, 6)));
}

#[test]
fn a_guests_permissions_are_as_given() {
    let b = bench();
    let mock = b.expect.mock.clone();
    let watched = Watched { start: Ioba(0), page: PageShift::K4, pages: 16 };
    let guest = Expectations::new(mock, 1, &[&[watched]]).as_given();
    guest.moved(PE, Some(0));
    b.map(3, Perm::WRITE);
    b.expect.mapped(S, 3, A, Perm::WRITE);
    guest.mapped(S, 3, A, Perm::WRITE);
    assert_eq!(b.access(3, Access::Read), None, "what a process may write it may read");
    assert_eq!(guest.access(PE, S, 3, Access::Read, 0), Some(Kind::Permission));
}

#[test]
fn a_pe_that_is_elsewhere_finds_nothing() {
    let b = bench();
    b.map(0, Perm::READ_WRITE);
    b.expect.moving(PE);
    assert_eq!(b.access(0, Access::Read), None);
    b.expect.moved(PE, None);
    assert_eq!(b.access(0, Access::Read), Some(Kind::Stale));
    b.expect.moved(PE, Some(1));
    assert_eq!(b.access(0, Access::Read), None, "another bus, about which nothing was asked");
}

#[test]
fn a_violation_tells_what_happened() {
    let b = bench();
    assert_eq!(b.access(1, Access::Read), None);
    b.expect.changing(S, 1, "a map");
    b.map(1, Perm::READ_WRITE);
    b.expect.mapped(S, 1, A, Perm::READ_WRITE);
    assert_eq!(b.access(1, Access::Read), None);
    b.expect.released(S, 1);
    assert_eq!(b.access(1, Access::Write), Some(Kind::Stale));
    let first = b.expect.violations().remove(0);
    let has = |what: &dyn Fn(&Event) -> bool| first.history.iter().any(|(_, event)| what(event));
    use crate::backend::mock::TceEvent;
    assert!(has(&|e| *e == Event::Begin("a map")) && has(&|e| *e == Event::Mapped(A)));
    assert!(has(&|e| *e == Event::Released));
    assert!(has(&|e| matches!(e, Event::Access { times: 1, arrived: true, .. })));
    assert!(has(&|e| matches!(e, Event::Cache(TceEvent::Kill(0x2000_0000_0000_1000)))));
    assert!(has(&|e| matches!(e, Event::Cache(TceEvent::Fill { .. }))));
    assert!(has(&|e| matches!(e, Event::Cache(TceEvent::Hits(1)))));
    assert!(has(&|e| matches!(e, Event::Cache(TceEvent::Fence))));
    let text = first.to_string();
    assert!(text.starts_with("Stale: PE 0 at 0x1000, Write"), "{text}");
}

#[test]
fn memory_of_nobody_is_never_right() {
    let fault = Found::Fault(Fault::NoMemory(Hpa(0)));
    for must in [None, Some(Stable::Nothing)] {
        assert_eq!(judge(must, &fault, Access::Read), Some(Kind::Unpinned));
    }
    let to = Translation { at: Hpa(0), perm: Perm::READ, page: PageShift::K4 };
    let found = Found::Page { to, owner: None };
    assert_eq!(judge(None, &found, Access::Read), Some(Kind::Unpinned));
}

#[test]
fn an_agent_sees_what_its_expectations_do_not_say() {
    let b = bench();
    b.map(7, Perm::READ_WRITE);
    let steps = if cfg!(miri) { 50 } else { 1000 };
    let mut agent = b.expect.agent(1);
    (0..steps).for_each(|_| agent.step());
    assert!(b.expect.count() > 0);
    assert!(b.expect.violations().iter().all(|v| v.kind == Kind::Stale && v.at == Ioba(7 * P)));
    let (accesses, judged) = b.expect.accesses();
    assert_eq!((accesses, judged), (steps, steps));
    b.container.remove_window(Ioba(0), Removal::Force).unwrap();
    let before = b.expect.count();
    (0..steps).for_each(|_| agent.step());
    assert_eq!(b.expect.count(), before);
}
