// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A table by hand, so that nothing is killed that a test does not kill.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::addr::{GroupId, PageShift, Uaddr};
use crate::backend::layout::RealLayout;
use crate::backend::mock::{Mock, MockBuilder, MockError};
use crate::backend::{Backend, KillScope, Memory, WindowProgram};
use crate::mem::{TableChunk, TableMemory};
use crate::sync::Arc;
use crate::tce::{Perm, Tce};

const PAGE: u64 = 4096;
const MEMORY: Memory = Memory::User { start: Uaddr(0x10_0000_0000), bytes: 2 << 20 };

/// Two PEs whose windows, at 0, share a table of one level.
struct Table {
    mock: Arc<Mock>,
    root: Hpa,
    chunk: Arc<TableChunk>,
    layout: RealLayout,
    page: PageShift,
}

fn table(cache: TceCache, phbs: u16, page: PageShift) -> Table {
    let mock = MockBuilder::new(3).phbs(phbs).no_freeze(true).tce_cache(cache).build();
    let root = mock.reserve_table(1 << 16).unwrap();
    let chunk = Arc::new(TableChunk::new(1 << 16).unwrap());
    mock.back_table(root, chunk.clone()).unwrap();
    let layout = mock.pin(MEMORY).unwrap();
    let table = Table { mock, root, chunk, layout, page };
    for group in 0..3 {
        table.mock.take_ownership(GroupId(group)).unwrap();
        table.set(group, page);
    }
    table
}

impl Table {
    fn set(&self, group: u32, page: PageShift) {
        let window = WindowProgram { root: self.root, levels: 1, block_bytes: 1 << 16, page };
        self.mock.set_window(GroupId(group), 0, &window).unwrap();
    }

    /// Maps an entry to a page of the memory, or to nothing, and kills nothing.
    fn put(&self, entry: u64, page: Option<u64>) {
        let real = page.map(|page| self.layout.extent_at(page * PAGE).at.0);
        let tce = real.map_or(Tce::EMPTY, |real| Tce::new(real, Perm::READ_WRITE));
        self.chunk.slots()[entry as usize].store(tce.to_be_word(), Ordering::Relaxed);
    }

    /// The page of the memory that a device finds at an entry.
    fn dma(&self, pe: u16, entry: u64) -> Option<u64> {
        let at = Ioba(entry << self.page.get());
        match self.mock.dma(PeNumber(pe), at, Access::Read) {
            Ok(found) => Some(self.mock.owner(found.at).unwrap().1 / PAGE),
            Err(Fault::Empty { .. }) => None,
            Err(other) => panic!("{other}"),
        }
    }

    fn kill_pages(&self, pe: u32, entry: u64, count: u64) {
        let start = Ioba(entry << self.page.get());
        let scope = KillScope::Pages { start, count, page: self.page };
        assert_eq!(self.mock.kill(GroupId(pe), scope), count);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for group in (0..3).map(GroupId) {
            self.mock.unset_window(group, 0);
            self.mock.release_ownership(group);
        }
        self.mock.free_table(self.root);
        self.mock.unpin(MEMORY, &self.layout);
        assert_eq!((self.mock.leftovers(), self.mock.taken()), ((0, 0, 0), 0));
    }
}

#[test]
fn a_line_stays_as_it_was_until_it_is_killed() {
    let t = table(TceCache::POWER8, 1, PageShift::K4);
    t.put(9, Some(1));
    assert_eq!((t.dma(0, 9), t.dma(0, 8), t.dma(0, 16)), (Some(1), None, None));
    // Its neighbours are cached too, empty ones as well; the next line, by its own access.
    for entry in [8, 9, 15, 16, 24] {
        t.put(entry, Some(2));
    }
    let seen = |pe| [8, 9, 15, 16, 24].map(|entry| t.dma(pe, entry));
    assert_eq!(seen(0), [None, Some(1), None, None, Some(2)]);
    assert_eq!(
        t.mock.probe(PeNumber(0), Ioba(9 * PAGE)).map(|_| ()),
        Ok(()),
        "a look is no access"
    );
    // Another PE has lines of its own.
    assert_eq!(seen(1), [Some(2); 5]);
    // A page's kill drops its line and no other.
    t.kill_pages(0, 15, 1);
    assert_eq!(seen(0), [Some(2), Some(2), Some(2), None, Some(2)]);
}

#[test]
fn words_kill_what_they_name() {
    // PE 0 and 2 are of bridge 0, PE 1 of bridge 1.
    let t = table(TceCache::POWER8, 2, PageShift::K4);
    let fill = || {
        t.put(0, Some(1));
        t.put(100, Some(1));
        t.mock.kill(GroupId(0), KillScope::All);
        t.mock.kill(GroupId(1), KillScope::All);
        for pe in 0..3 {
            assert_eq!((t.dma(pe, 0), t.dma(pe, 100)), (Some(1), Some(1)));
        }
        t.put(0, Some(2));
        t.put(100, Some(2));
    };
    let fresh = || [0, 1, 2].map(|pe| [t.dma(pe, 0), t.dma(pe, 100)].map(|page| page == Some(2)));
    fill();
    assert_eq!(fresh(), [[false; 2]; 3]);
    t.kill_pages(2, 0, 1);
    assert_eq!(fresh(), [[false; 2], [false; 2], [true, false]]);
    fill();
    t.mock.kill(GroupId(0), KillScope::Pe);
    assert_eq!(fresh(), [[true; 2], [false; 2], [false; 2]]);
    fill();
    t.mock.kill(GroupId(2), KillScope::All);
    assert_eq!(fresh(), [[true; 2], [false; 2], [true; 2]]);
}

#[test]
fn a_window_that_goes_leaves_its_lines() {
    let t = table(TceCache::POWER8, 1, PageShift::K64);
    t.put(3, Some(0));
    assert_eq!(t.dma(0, 3), Some(0));
    t.put(3, None);
    t.mock.unset_window(GroupId(0), 0);
    assert_eq!(t.mock.probe(PeNumber(0), Ioba(3 << 16)), Err(Fault::NoWindow { slot: 0 }));
    assert_eq!(t.dma(0, 3), Some(0), "unset");
    // Pages of another size are other lines; those of before are still found.
    t.set(0, PageShift::K4);
    assert_eq!(t.dma(0, 3), Some(0), "set again");
    let at = Ioba((3 << 16) + (17 << 16));
    assert!(matches!(t.mock.dma(PeNumber(0), at, Access::Read), Err(Fault::Empty { .. })));
    t.kill_pages(0, 3, 1);
    assert_eq!(t.dma(0, 3), None);
    t.mock.kill(GroupId(0), KillScope::Pe);
    t.mock.unset_window(GroupId(0), 0);
    let done = t.mock.dma(PeNumber(0), Ioba(3 << 16), Access::Read);
    assert_eq!(done, Err(Fault::NoWindow { slot: 0 }));
}

#[test]
fn it_holds_no_more_than_its_entries() {
    let entries = if cfg!(miri) { 80 } else { 400 };
    let t = table(TceCache { entries: 32, line: 4, keep_faults: true }, 1, PageShift::K4);
    (0..entries).for_each(|entry| t.put(entry, Some(1)));
    (0..entries).for_each(|entry| assert_eq!(t.dma(0, entry), Some(1)));
    (0..entries).for_each(|entry| t.put(entry, Some(2)));
    let caches = t.mock.phb.caches.as_ref().unwrap();
    let held = |cache: &Cache| {
        let lines = |set: &Mutex<Set>| lock(set).lines.iter().flatten().count();
        cache.sets.iter().map(lines).sum::<usize>()
    };
    assert_eq!(held(&caches.caches[0]), 8, "32 entries, 4 a line");
    let stale = (0..entries).filter(|entry| t.dma(0, *entry) == Some(1)).count();
    assert!(stale <= 32, "{stale}");
}

#[test]
fn it_may_keep_no_entry_that_was_missed_and_is_empty() {
    for keep_faults in [true, false] {
        let t = table(TceCache { keep_faults, ..TceCache::POWER8 }, 1, PageShift::K4);
        t.put(9, Some(1));
        assert_eq!(t.dma(0, 8), None);
        t.put(8, Some(2));
        assert_eq!(t.dma(0, 8), (!keep_faults).then_some(2));
        // Beside a live one it does.
        assert_eq!(t.dma(0, 10), None);
        t.put(10, Some(3));
        assert_eq!(t.dma(0, 10), None);
        t.kill_pages(0, 9, 1);
        assert_eq!((t.dma(0, 8), t.dma(0, 10)), (Some(2), Some(3)));
    }
}

#[test]
fn an_absent_level_is_remembered_too() {
    let t = table(TceCache::POWER8, 1, PageShift::K4);
    let top = t.mock.reserve_table(1 << 16).unwrap();
    let chunk = Arc::new(TableChunk::new(1 << 16).unwrap());
    t.mock.back_table(top, chunk.clone()).unwrap();
    let window = WindowProgram { root: top, levels: 2, block_bytes: 1 << 16, page: PageShift::K4 };
    t.mock.set_window(GroupId(1), 0, &window).unwrap();
    let dma = || t.mock.dma(PeNumber(1), Ioba(0), Access::Read).map(|found| found.page);
    t.put(0, Some(1));
    assert_eq!(dma(), Err(Fault::NoLevel { level: 0 }));
    chunk.slots()[0].store((t.root.0 | 3).to_be(), Ordering::Release);
    assert_eq!(dma(), Err(Fault::NoLevel { level: 0 }));
    t.kill_pages(1, 1, 1);
    assert_eq!(dma(), Ok(PageShift::K4));
    t.mock.free_table(top);
}

#[test]
fn memory_that_is_unpinned_is_reached_no_more() {
    let t = table(TceCache::POWER8, 1, PageShift::K4);
    let other = Memory::User { start: Uaddr(0x20_0000_0000), bytes: 1 << 20 };
    let layout = t.mock.pin(other).unwrap();
    let at = layout.extent_at(0).at;
    t.chunk.slots()[0].store(Tce::new(at.0, Perm::READ).to_be_word(), Ordering::Relaxed);
    let dma = |access| {
        t.mock.dma_with(PeNumber(0), Ioba(0), access, |found| {
            let before = t.mock.owner(found.at);
            t.mock.unpin(other, &layout);
            (before, t.mock.owner(found.at))
        })
    };
    assert_eq!(dma(Access::Write), Err(Fault::Denied { perm: Perm::READ }));
    assert_eq!(dma(Access::Read), Ok((Some((other, 0)), None)));
    assert_eq!(dma(Access::Read), Err(Fault::NoMemory(at)));
}

#[test]
fn a_fence_waits_for_accesses_and_not_for_their_translation() {
    let t = table(TceCache::POWER8, 1, PageShift::K4);
    t.put(0, Some(1));
    let (into, inside) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let (done, fenced) = mpsc::channel();
    thread::scope(|scope| {
        let t = &t;
        scope.spawn(move || {
            let found = t.mock.dma_with(PeNumber(0), Ioba(0), Access::Write, |_| {
                into.send(()).unwrap();
                wait.recv().unwrap();
            });
            found.unwrap();
        });
        inside.recv().unwrap();
        // Others come and go meanwhile.
        assert_eq!(t.dma(0, 0), Some(1));
        scope.spawn(move || {
            t.mock.fence();
            done.send(()).unwrap();
        });
        let early = fenced.recv_timeout(Duration::from_millis(30));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        // One that begins after the fence has, does not hold it up.
        t.mock.dma_with(PeNumber(1), Ioba(0), Access::Read, |_| {
            go.send(()).unwrap();
            fenced.recv().unwrap();
        })
    })
    .unwrap();
    assert_eq!(t.mock.fences(), 1);
}

#[test]
fn more_accesses_than_places_wait_for_one() {
    let flights = Flights::new();
    let held: Vec<_> = (0..32).map(|n| flights.begin(n)).collect();
    thread::scope(|scope| {
        let (begun, is_in) = mpsc::channel();
        let flights = &flights;
        scope.spawn(move || {
            let _flight = flights.begin(7);
            begun.send(()).unwrap();
        });
        let early = is_in.recv_timeout(Duration::from_millis(20));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        drop(held);
        is_in.recv().unwrap();
    });
    flights.wait();
}

#[test]
fn the_history_of_a_line_is_in_order() {
    let t = table(TceCache::POWER8, 1, PageShift::K4);
    t.put(1, Some(1));
    assert_eq!([1, 2, 1].map(|entry| t.dma(0, entry)), [Some(1), None, Some(1)]);
    t.dma(0, 64);
    t.kill_pages(0, 3, 1);
    t.mock.fence();
    t.mock.kill(GroupId(0), KillScope::Pe);
    t.dma(0, 3);
    let history = t.mock.tce_history(PeNumber(0), Ioba(PAGE));
    assert!(history.is_sorted_by_key(|(now, _)| *now));
    let entry = Tce::new(t.layout.extent_at(PAGE).at.0, Perm::READ_WRITE).value();
    let events: Vec<_> = history.into_iter().map(|(_, event)| event).collect();
    assert_eq!(
        events,
        [
            TceEvent::Fill { entry },
            TceEvent::Hits(2),
            TceEvent::Kill(0x2000_0000_0000_3000),
            TceEvent::Fence,
            TceEvent::Kill(0x4000_0000_0000_0000),
            TceEvent::Fill { entry: 0 },
        ]
    );
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let shape = |entries, line| TceCache { entries, line, keep_faults: true };
    for (entries, line) in [(0, 1), (1024, 0), (1000, 8), (1024, 3), (4, 8), (1024, 1024)] {
        let done = MockBuilder::new(1).tce_cache(shape(entries, line)).try_build();
        assert_eq!(done.err(), Some(MockError::TceCache { entries, line }));
    }
    for (entries, line) in [(1, 1), (512, 512), (1024, 8)] {
        assert!(MockBuilder::new(1).tce_cache(shape(entries, line)).try_build().is_ok());
    }
}

#[test]
fn a_handle_uses_no_register_beside_a_cache() {
    let ports = [true, false].map(|cached| {
        let mut builder = MockBuilder::new(1);
        if cached {
            builder = builder.tce_cache(TceCache::POWER8);
        }
        builder.build().kill_port(&[GroupId(0)]).unwrap().page_register().is_some()
    });
    assert_eq!(ports, [false, true]);
}
