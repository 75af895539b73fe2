// SPDX-License-Identifier: Apache-2.0 OR MIT
//! loom models: every interleaving (up to a bound on preemptions) of what runs concurrently.
//! `RUSTFLAGS="--cfg loom" cargo test -p tce-engine --lib --release models`

use std::time::Duration;

use loom::model::Builder;
use loom::thread;

use crate::addr::{GroupId, Ioba, PageShift, PeNumber, Uaddr};
use crate::backend::mock::{Mock, MockBuilder};
use crate::backend::testing::PlainMemory;
use crate::backend::{FillRule, KillCaps};
use crate::container::{Container, Mapper, Mode};
use crate::engine::{Engine, EngineOptions};
use crate::geometry::{Geometry, WindowSpec};
use crate::ioba::{IobaAllocator, IobaOptions, IobaSpace, Magazine};
use crate::kill::KillPolicy;
use crate::simd::Tier;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::table::TceTable;
use crate::tce::{Perm, Tce};

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(f);
}

const HOST: PageShift = PageShift::K4;
/// The smallest with two levels that are not full: 512 entries in each.
const SPEC: WindowSpec = WindowSpec::new(4 << 20, PageShift::K4).levels(2);

fn table() -> Arc<TceTable> {
    let geometry = Geometry::new(SPEC, HOST, 1 << 22).unwrap();
    Arc::new(TceTable::new(geometry, Arc::new(PlainMemory::default()), Tier::best()).unwrap())
}

fn tce(page: u64) -> Tce {
    Tce::new(page << 12, Perm::READ_WRITE)
}

/// Two writers of one absent leaf: one block survives, the loser's is free again.
#[test]
fn install_publishes_one_leaf() {
    model(|| {
        let table = table();
        let other = table.clone();
        let thread = thread::spawn(move || other.prepare(3, 1).unwrap().stuff(tce(3)));
        table.prepare(5, 1).unwrap().stuff(tce(5));
        thread.join().unwrap();
        assert_eq!(table.get(3).unwrap(), tce(3));
        assert_eq!(table.get(5).unwrap(), tce(5));
        assert_eq!(table.usage().blocks, 2);
        assert_eq!(table.live(), 2);
    });
}

/// A reader meets nothing or the whole path, never half of one.
#[test]
fn a_reader_sees_a_whole_path() {
    model(|| {
        let table = table();
        let other = table.clone();
        let thread = thread::spawn(move || other.prepare(7, 1).unwrap().stuff(tce(7)));
        let seen = table.get(7).unwrap();
        assert!(seen == Tce::EMPTY || seen == tce(7));
        thread.join().unwrap();
    });
}

/// Two that want the same entry and refuse to overwrite: exactly one gets it.
#[test]
fn one_writer_of_an_entry() {
    model(|| {
        let table = table();
        let take = |table: &TceTable, page| {
            let mut writer = table.prepare(1, 1).unwrap();
            let free = writer.live() == 0;
            if free {
                writer.stuff(tce(page));
            }
            free
        };
        let other = table.clone();
        let thread = thread::spawn(move || take(&other, 10));
        let mine = take(&table, 20);
        let others = thread.join().unwrap();
        assert!(mine != others, "one of them");
        assert_eq!(table.get(1).unwrap(), tce(if mine { 20 } else { 10 }));
        assert_eq!(table.live(), 1);
    });
}

const MEMORY: Uaddr = Uaddr(0x10_0000);
const PAGE: u64 = 4096;

fn container() -> (Arc<Mock>, Engine, Arc<Container>) {
    let mock = MockBuilder::new(2).host_page(HOST).backing(PageShift::K64).build();
    let engine = Engine::new(mock.clone(), EngineOptions::default());
    let container = engine.container();
    container.attach(GroupId(0)).unwrap();
    container.register(MEMORY, PAGE).unwrap();
    container.create_window(SPEC).unwrap();
    (mock, engine, Arc::new(container))
}

fn map(container: &Container) {
    container.map(Ioba(0), MEMORY, PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
}

/// Memory is given back only after the kill of its entry was waited for: an unregister that
/// succeeds beside an unmap finds the fence done.
#[test]
fn no_release_before_the_fence() {
    model(|| {
        let (mock, _engine, container) = container();
        map(&container);
        let before = mock.fences();
        let other = container.clone();
        let thread = thread::spawn(move || other.unmap(Ioba(0), PAGE).unwrap());
        if container.unregister(MEMORY, PAGE).is_ok() {
            assert!(mock.fences() > before, "unpinned before the fence");
            assert!(mock.probe(PeNumber(0), Ioba(0)).is_err());
        }
        thread.join().unwrap();
    });
}

/// A thread's handle to which the lock of the table's first segment was left.
fn biased(container: &Arc<Container>) -> Mapper {
    let mut mapper = container.mapper();
    for _ in 0..3 {
        mapper.map(Ioba(0), MEMORY, PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
        mapper.unmap(Ioba(0), PAGE).unwrap();
    }
    mapper
}

/// Who relies on a lock that was left to it, and who takes that lock away, are never both behind it:
/// no live count is lost.
#[test]
fn a_lock_that_was_left_excludes_others() {
    model(|| {
        let (_mock, _engine, container) = container();
        let mut mapper = biased(&container);
        let other = container.clone();
        let thread = thread::spawn(move || {
            other.map(Ioba(PAGE), MEMORY, PAGE, Perm::READ, Mode::Refuse).unwrap();
        });
        mapper.map(Ioba(0), MEMORY, PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
        thread.join().unwrap();
        assert_eq!(container.live(), 2);
        assert_eq!(mapper.unmap(Ioba(0), PAGE).unwrap().released, 1);
        assert_eq!((container.live(), container.regions()[0].mapped), (1, 1));
    });
}

/// The same of two handles that take it from each other.
#[test]
fn handles_take_a_lock_from_each_other() {
    model(|| {
        let (_mock, _engine, container) = container();
        let mut mapper = biased(&container);
        let mut other = container.mapper();
        let thread = thread::spawn(move || {
            other.map(Ioba(PAGE), MEMORY, PAGE, Perm::READ, Mode::Refuse).unwrap();
            other.unmap(Ioba(PAGE), PAGE).unwrap();
        });
        mapper.map(Ioba(0), MEMORY, PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
        thread.join().unwrap();
        assert_eq!((container.live(), container.regions()[0].mapped), (1, 1));
    });
}

/// As `no_release_before_the_fence`, for a handle: an unregister waits until it is not in a call.
#[test]
fn no_release_before_the_fence_of_a_handle() {
    model(|| {
        let (mock, _engine, container) = container();
        let mut mapper = biased(&container);
        mapper.map(Ioba(0), MEMORY, PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
        let before = mock.fences();
        let thread = thread::spawn(move || mapper.unmap(Ioba(0), PAGE).unwrap());
        if container.unregister(MEMORY, PAGE).is_ok() {
            assert!(mock.fences() > before, "unpinned before the fence");
            assert!(mock.probe(PeNumber(0), Ioba(0)).is_err());
        }
        thread.join().unwrap();
    });
}

/// Kills wait, and fills need none but of what is in debt.
fn deferring() -> (Arc<Mock>, Engine, Arc<Container>) {
    let kill = KillCaps { fill: FillRule::Never, ..KillCaps::PHB3 };
    let mock = MockBuilder::new(2).host_page(HOST).backing(PageShift::K64).kill(kill).build();
    let policy = KillPolicy::Deferred { max_pages: 2, max_age: Duration::MAX };
    let engine = Engine::new(mock.clone(), EngineOptions { policy, ..EngineOptions::default() });
    let container = engine.container();
    container.attach(GroupId(0)).unwrap();
    container.register(MEMORY, PAGE).unwrap();
    container.create_window(SPEC).unwrap();
    (mock, engine, Arc::new(container))
}

/// A handle that owes nothing and has mapped a page, and how many fences there were.
fn about_to_owe(mock: &Mock, container: &Arc<Container>) -> (Mapper, u64) {
    let mut mapper = biased(container);
    mapper.submit();
    mapper.map(Ioba(0), MEMORY, PAGE, Perm::READ_WRITE, Mode::Refuse).unwrap();
    (mapper, mock.fences())
}

/// Who fills an entry that a handle has cleared kills what was there, or finds it killed.
#[test]
fn a_fill_never_meets_an_old_translation() {
    model(|| {
        let (mock, _engine, container) = deferring();
        let (mut mapper, before) = about_to_owe(&mock, &container);
        let thread = thread::spawn(move || {
            mapper.unmap(Ioba(0), PAGE).unwrap();
            mapper.submit();
        });
        if container.map(Ioba(0), MEMORY, PAGE, Perm::READ, Mode::Refuse).is_ok() {
            assert!(mock.fences() > before, "filled, and the old entry not killed");
        }
        thread.join().unwrap();
        assert_eq!(container.regions()[0].mapped, container.live());
    });
}

/// Who gives memory back settles the debt of a handle first, and nothing is released twice.
#[test]
fn no_release_before_the_fence_of_a_debt() {
    model(|| {
        let (mock, _engine, container) = deferring();
        let (mut mapper, before) = about_to_owe(&mock, &container);
        let thread = thread::spawn(move || {
            mapper.unmap(Ioba(0), PAGE).unwrap();
            mapper
        });
        let gone = container.unregister(MEMORY, PAGE).is_ok();
        if gone {
            assert!(mock.fences() > before, "unpinned before the fence");
            assert!(mock.probe(PeNumber(0), Ioba(0)).is_err());
        }
        let mut mapper = thread.join().unwrap();
        assert_eq!(mapper.held_back(), u64::from(!gone));
        assert_eq!(mapper.submit().issued, u64::from(!gone));
        assert!(gone || container.regions()[0].mapped == 0);
    });
}

/// A handle and somebody else settle the same debt: one of them does.
#[test]
fn a_debt_is_settled_once() {
    model(|| {
        let (mock, _engine, container) = deferring();
        let (mut mapper, before) = about_to_owe(&mock, &container);
        mapper.unmap(Ioba(0), PAGE).unwrap();
        let thread = thread::spawn(move || {
            let own = mapper.submit().issued;
            // It owes again, whoever did it.
            mapper.map(Ioba(0), MEMORY, PAGE, Perm::READ, Mode::Refuse).unwrap();
            mapper.unmap(Ioba(0), PAGE).unwrap();
            (own, mapper)
        });
        let others = container.retire_debts(Duration::ZERO).issued;
        let (own, mut mapper) = thread.join().unwrap();
        let rest = mapper.submit().issued;
        assert_eq!(own + others + rest, 2);
        assert_eq!(mock.fences(), before + 2);
        assert_eq!((container.regions()[0].mapped, container.live()), (0, 0));
    });
}

/// A group that joins beside a map sees it, and the map killed on it if it was a member by then.
#[test]
fn a_late_joiner_sees_the_mapping() {
    model(|| {
        let (mock, _engine, container) = container();
        let other = container.clone();
        let thread = thread::spawn(move || other.attach(GroupId(1)).unwrap());
        map(&container);
        thread.join().unwrap();
        let seen = |pe| mock.probe(PeNumber(pe), Ioba(0)).map(|t| t.at);
        assert_eq!(seen(0), seen(1));
        assert!(seen(1).is_ok());
    });
}

/// An allocator of four pages, in two words of its bitmap.
fn four_pages() -> Arc<IobaAllocator> {
    let space = IobaSpace { start: Ioba(62 << 12), bytes: 4 << 12, page: HOST };
    IobaAllocator::new(space, IobaOptions::default()).unwrap()
}

/// A thread's magazine, and a word for each of the four pages that only the page's owner touches:
/// 1 while it is taken. Neither stale nor early values of it are ever seen.
struct Taker(Magazine, Arc<[AtomicU64; 4]>);

impl Taker {
    fn pass(&self, at: Ioba, pages: u64, from: u64) {
        let first = (at.0 >> 12) - 62;
        for word in &self.1[first as usize..][..pages as usize] {
            assert_eq!(word.load(Ordering::Relaxed), from);
            word.store(1 - from, Ordering::Relaxed);
        }
    }

    fn take(&mut self, pages: u64) -> Option<Ioba> {
        let at = self.0.take(pages).ok()?;
        self.pass(at, pages, 0);
        Some(at)
    }

    fn give(&mut self, at: Ioba, pages: u64) {
        self.pass(at, pages, 1);
        self.0.give(at, pages);
    }
}

/// Threads that take, keep and give back: no page is ever with two, who gets it sees what the one
/// before did, and all are free in the end.
#[test]
fn magazines_never_share_a_page() {
    model(|| {
        let allocator = four_pages();
        let words = Arc::new([0; 4].map(AtomicU64::new));
        let mut mine = Taker(Magazine::new(&allocator), words.clone());
        let mut other = Taker(Magazine::new(&allocator), words);
        let thread = thread::spawn(move || {
            let page = other.take(1).unwrap();
            other.give(page, 1);
            // Made of the page in the magazine, if no other two are left.
            let run = other.take(2);
            (run, other)
        });
        let run = mine.take(2);
        run.into_iter().for_each(|run| mine.give(run, 2));
        let page = mine.take(1).unwrap();
        let (run, other) = thread.join().unwrap();
        drop(other);
        let taken = 1 + 2 * run.iter().len() as u64;
        assert_eq!(allocator.in_use(), taken);

        mine.give(page, 1);
        run.into_iter().for_each(|run| mine.give(run, 2));
        drop(mine);
        assert_eq!((allocator.in_use(), allocator.held()), (0, 0));
        allocator.reserve(Ioba(62 << 12), 4 << 12).unwrap();
    });
}

/// Two that want runs of which only one fits: one gets it, and the other leaves nothing behind.
#[test]
fn a_run_is_claimed_whole_or_not_at_all() {
    model(|| {
        let allocator = four_pages();
        let other = allocator.clone();
        let thread = thread::spawn(move || Magazine::new(&other).take(3).ok());
        let reserved = allocator.reserve(Ioba(63 << 12), 3 << 12).is_ok();
        let taken = thread.join().unwrap();
        assert_eq!(allocator.in_use(), if reserved || taken.is_some() { 3 } else { 0 });
        assert!(!(reserved && taken.is_some()));
        assert!(reserved || taken.is_some(), "both begin with the same word");
    });
}
