// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Map and unmap through a container, one rule at a time: black-box cases of the series H and K.
//! Everything at once against a model is in `mapping_model.rs`.

use std::sync::{Arc, Mutex, Weak};

use crate::common::*;
use tce_engine::addr::{Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::mock::{Fault, MockBuilder};
use tce_engine::container::{Container, LIST_MAX, Mode, Receipt};
use tce_engine::engine::Engine;
use tce_engine::error::{MapError, UnmapError};
use tce_engine::geometry::WindowSpec;
use tce_engine::kill::KillCount;
use tce_engine::tce::Perm;

const P: u64 = 64 * K;
const A: Uaddr = Uaddr(0x7f00_0000_0000);
const RW: Perm = Perm::READ_WRITE;

fn mem(pages: u64) -> Uaddr {
    Uaddr(A.0 + pages * P)
}

fn bus(pages: u64) -> Ioba {
    Ioba(pages * P)
}

/// Two groups, a window of 16384 64 KiB pages at 0, regions of 16 and 1024 pages side by side, and
/// one of 16 pages behind a hole of one page.
fn setup(builder: MockBuilder) -> (Rig, Container) {
    let rig = Rig::new(builder);
    let c = rig.container(&[G0, G1]);
    c.create_window(WindowSpec::new(G, PageShift::K64)).unwrap();
    c.register(A, 16 * P).unwrap();
    c.register(mem(16), 1024 * P).unwrap();
    c.register(mem(16 + 1024 + 1), 16 * P).unwrap();
    (rig, c)
}

/// A group, a window of 1024 pages at 0 and a region of 16, on whatever platform.
fn small(engine: &Engine, levels: u32) -> Container {
    let c = engine.container();
    c.attach(G0).unwrap();
    c.register(A, 16 * P).unwrap();
    c.create_window(WindowSpec::new(64 * M, PageShift::K64).levels(levels)).unwrap();
    c
}

fn counts(c: &Container) -> Vec<u64> {
    c.regions().iter().map(|r| r.mapped).collect()
}

fn seen(rig: &Rig, pages: std::ops::Range<u64>) -> Vec<Option<u64>> {
    let on = |pe| -> Vec<_> {
        pages.clone().map(|n| reach(&rig.mock, pe, bus(n)).map(|(at, _)| at)).collect()
    };
    let all = on(0);
    assert_eq!(on(1), all, "both PEs see the same");
    all
}

/// An entry that is empty is one step to clear, whether its level is there or not, and no kernel is
/// asked about it.
#[test]
fn a_page_that_is_not_mapped_is_one_step() {
    let rig = Rig::new(MockBuilder::new(2));
    for (engine, levels, ioctls) in [(&rig.engine, 2, 0), (&on_a_kernel(), 1, 1)] {
        let c = small(engine, levels);
        let unmapped = |at| {
            let done = c.unmap(at, P).unwrap();
            (done.requests, done.tces, done.released, done.steps, done.ioctls)
        };
        assert_eq!(unmapped(bus(0)), (1, 0, 0, 1, 0), "no level");
        assert_eq!(c.map(bus(1), A, P, RW, Mode::Refuse).unwrap().ioctls, ioctls);
        assert_eq!(unmapped(bus(0)), (1, 0, 0, 1, 0), "an empty entry");
        assert_eq!(unmapped(bus(1)), (1, 1, 1, 1, ioctls));
    }
}

/// As long as it may be; and to a kernel it is one for each run of memory.
#[test]
fn a_range_is_a_request() {
    let rig = Rig::new(MockBuilder::new(2));
    for (engine, kernel) in [(&rig.engine, 0), (&on_a_kernel(), 1)] {
        let c = small(engine, 1);
        let told = |done: Receipt| (done.requests, done.tces, done.released, done.ioctls);
        let range = c.map(bus(0), A, 4 * P, RW, Mode::Refuse).unwrap();
        assert_eq!(told(range), (1, 4, 0, kernel));
        let list = c.map_list(bus(4), &[mem(1), mem(2), mem(8)], RW, Mode::Refuse).unwrap();
        assert_eq!(told(list), (1, 3, 0, 2 * kernel));
        assert_eq!(told(c.unmap(bus(0), 8 * P).unwrap()), (1, 7, 7, kernel));
    }
}

#[test]
fn receipts_add_up() {
    let kills = KillCount { asked: 4, issued: 5 };
    let one = Receipt { tces: 1, released: 2, steps: 3, kills, requests: 6, ioctls: 7 };
    let mut sum = Receipt::NONE;
    (0..2).for_each(|_| sum += one);
    let kills = KillCount { asked: 8, issued: 10 };
    let two = Receipt { tces: 2, released: 4, steps: 6, kills, requests: 12, ioctls: 14 };
    assert_eq!(sum, two);
}

#[test]
fn h2_h8_ranges_outside_the_windows() {
    let (rig, c) = setup(MockBuilder::new(2));
    let last = (G >> 16) - 1;
    for (start, bytes) in
        [(bus(last), 2 * P), (bus(last + 1), P), (SECOND, P), (Ioba(!0xffff), P), (bus(0), 2 * G)]
    {
        let outside = c.map(start, mem(16), bytes, RW, Mode::Refuse);
        assert_eq!(outside, Err(MapError::OutsideWindows { start, bytes }));
        assert_eq!(c.unmap(start, bytes), Err(UnmapError::OutsideWindows { start, bytes }));
    }
    let list = c.map_list(bus(last), &[A, A], RW, Mode::Refuse);
    assert!(matches!(list, Err(MapError::OutsideWindows { .. })));
    assert_eq!(counts(&c), [0, 0, 0]);
    c.map(bus(last), A, P, RW, Mode::Refuse).unwrap();
    assert_eq!(reach(&rig.mock, 1, bus(last)), Some((A.0, RW)));
    assert_eq!(c.windows()[0].geometry.covered(), G);
}

#[test]
fn h3_h4_h5_unaligned_or_nothing() {
    let (rig, c) = setup(MockBuilder::new(2));
    let page = PageShift::K64;
    let map = |at, from, bytes, perm| c.map(at, from, bytes, perm, Mode::Refuse);
    let what = |what, value| MapError::Unaligned { what, value, page };
    assert_eq!(map(Ioba(4096), A, P, RW), Err(what("bus address", 4096)));
    assert_eq!(map(bus(0), A, P + 4096, RW), Err(what("length", P + 4096)));
    let from = Uaddr(A.0 + 4096);
    assert_eq!(map(bus(0), from, P, RW), Err(what("user address", from.0)));
    assert_eq!(c.map_list(bus(0), &[A, from], RW, Mode::Refuse), Err(what("user address", from.0)));
    assert_eq!(map(bus(0), A, 0, RW), Err(MapError::Nothing(bus(0))));
    assert_eq!(map(bus(0), A, P, Perm::NONE), Err(MapError::Nothing(bus(0))));
    assert_eq!(c.map_list(bus(0), &[], RW, Mode::Refuse), Err(MapError::Nothing(bus(0))));
    let long = vec![A; LIST_MAX + 1];
    let limit = LIST_MAX;
    let too_long = Err(MapError::ListTooLong { count: limit + 1, limit });
    assert_eq!(c.map_list(bus(0), &long, RW, Mode::Refuse), too_long);
    assert_eq!(c.unmap(bus(0), 0), Err(UnmapError::Nothing(bus(0))));
    for (at, bytes) in [(Ioba(4096), P), (bus(0), 4096)] {
        assert!(matches!(c.unmap(at, bytes), Err(UnmapError::Unaligned { .. })));
    }
    assert_eq!((seen(&rig, 0..8), counts(&c)), (vec![None; 8], vec![0, 0, 0]));
    assert_eq!(c.map_list(bus(0), &long[1..], RW, Mode::Refuse).unwrap().tces, 512);
}

#[test]
fn h10_across_adjacent_regions() {
    let (rig, c) = setup(MockBuilder::new(2));
    c.map(bus(3), mem(15), 8 * P, RW, Mode::Refuse).unwrap();
    assert_eq!(counts(&c), [1, 7, 0]);
    let expected: Vec<_> = (0..8).map(|i| Some(mem(15 + i).0)).collect();
    assert_eq!(seen(&rig, 3..11), expected);
    assert_eq!((seen(&rig, 2..3), seen(&rig, 11..12)), (vec![None], vec![None]));
    c.unmap(bus(0), 5 * P).unwrap();
    assert_eq!(counts(&c), [0, 6, 0]);
}

#[test]
fn h11_a_hole_between_regions_changes_nothing() {
    let (rig, c) = setup(MockBuilder::new(2));
    c.map(bus(0), A, 2 * P, RW, Mode::Refuse).unwrap();
    let stores = rig.mock.register_stores();
    let hole = mem(16 + 1024);
    let before = (seen(&rig, 0..16), counts(&c), c.table_use());
    for mode in [Mode::Refuse, Mode::Replace] {
        let refused = c.map(bus(0), Uaddr(hole.0 - 3 * P), 8 * P, RW, mode);
        assert_eq!(refused, Err(MapError::NotRegistered { at: hole }));
        let list = [mem(20), hole, mem(21)];
        assert_eq!(c.map_list(bus(0), &list, RW, mode), Err(MapError::NotRegistered { at: hole }));
    }
    let nowhere = c.map(bus(0), Uaddr(!0xffff), P, RW, Mode::Replace);
    assert!(matches!(nowhere, Err(MapError::NotRegistered { .. })));
    assert_eq!((seen(&rig, 0..16), counts(&c), c.table_use()), before);
    assert_eq!(rig.mock.register_stores(), stores, "nothing was killed");
}

#[test]
fn h14_mapping_twice_needs_replace() {
    let (rig, c) = setup(MockBuilder::new(2));
    c.map(bus(2), A, 4 * P, RW, Mode::Refuse).unwrap();
    for (first, pages, live) in [(2, 4, 4), (5, 3, 1), (0, 3, 1)] {
        let refused = c.map(bus(first), mem(100), pages * P, RW, Mode::Refuse);
        assert_eq!(refused, Err(MapError::Overlap { start: bus(first), live }));
        let list: Vec<_> = (0..pages).map(|i| mem(100 + i)).collect();
        let refused = c.map_list(bus(first), &list, RW, Mode::Refuse);
        assert_eq!(refused, Err(MapError::Overlap { start: bus(first), live }));
    }
    assert_eq!(counts(&c), [4, 0, 0]);
    let receipt = c.map(bus(4), mem(100), 4 * P, Perm::WRITE, Mode::Replace).unwrap();
    assert_eq!((receipt.tces, receipt.released), (4, 2));
    assert_eq!(counts(&c), [2, 4, 0]);
    let expected = [A, mem(1), mem(100), mem(101), mem(102), mem(103)].map(|at| Some(at.0));
    assert_eq!(seen(&rig, 2..8), expected);
    assert_eq!(c.requested(bus(4)).unwrap().1, Perm::WRITE);
    c.map_list(bus(4), &[mem(3)], Perm::READ, Mode::Replace).unwrap();
    assert_eq!((counts(&c), c.requested(bus(4)).unwrap().1), (vec![3, 3, 0], Perm::READ));
}

#[test]
fn h18_unmapping_the_middle_third() {
    let (rig, c) = setup(MockBuilder::new(2));
    c.map(bus(0), mem(10), 12 * P, RW, Mode::Refuse).unwrap();
    let receipt = c.unmap(bus(4), 4 * P).unwrap();
    assert_eq!((receipt.tces, receipt.released, counts(&c)), (4, 4, vec![4, 4, 0]));
    let left = |n: u64| (!(4..8).contains(&n)).then(|| mem(10 + n).0);
    assert_eq!(seen(&rig, 0..12), (0..12).map(left).collect::<Vec<_>>());
    let again = c.unmap(bus(4), 4 * P).unwrap();
    assert_eq!((again.released, again.kills.asked, again.kills.issued), (0, 0, 0));
    c.unmap(bus(0), G).unwrap();
    assert_eq!(counts(&c), [0, 0, 0]);
}

#[test]
fn backing_pages_smaller_than_the_windows() {
    for (backing, contiguous, fits) in
        [(PageShift::M2, false, false), (PageShift::M16, false, true), (PageShift::M2, true, true)]
    {
        let rig = Rig::new(MockBuilder::new(1).backing(backing).contiguous(contiguous));
        let c = rig.container(&[G0]);
        c.create_window(WindowSpec::new(G, PageShift::M16)).unwrap();
        c.register(A, 64 * M + P).unwrap();
        let mapped_now = c.map(Ioba(0), A, 32 * M, RW, Mode::Refuse);
        let listed = c.map_list(Ioba(64 * M), &[A], RW, Mode::Refuse);
        if fits {
            assert_eq!((mapped_now.unwrap().tces, listed.unwrap().tces), (2, 1));
            assert_eq!(reach(&rig.mock, 0, Ioba(16 * M + 5)), Some((A.0 + 16 * M + 5, RW)));
            assert_eq!(mapped(&c, A), 3);
            // A page that reaches past the end of the region is not registered as a whole.
            let end = Uaddr(A.0 + 64 * M + P);
            let past = c.map(Ioba(0), A, 80 * M, RW, Mode::Replace);
            assert_eq!(past, Err(MapError::NotRegistered { at: end }));
            let tail = Uaddr(A.0 + 64 * M);
            let past = c.map_list(Ioba(0), &[tail], RW, Mode::Replace);
            assert_eq!(past, Err(MapError::NotRegistered { at: end }));
            let past = c.map(Ioba(0), tail, 16 * M, RW, Mode::Replace);
            assert_eq!(past, Err(MapError::NotRegistered { at: end }));
            assert_eq!(mapped(&c, A), 3);
        } else {
            let refused = MapError::BackingTooSmall { at: A, backing, page: PageShift::M16 };
            assert_eq!((mapped_now, listed), (Err(refused.clone()), Err(refused.clone())));
            assert_eq!(c.map(Ioba(0), A, 16 * M, RW, Mode::Refuse), Err(refused));
            assert_eq!((mapped(&c, A), c.table_use()[0].blocks), (0, 1));
        }
    }
}

#[test]
fn small_window_covers_a_host_page_of_entries() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    let window = c.create_window(WindowSpec::new(M, PageShift::K64)).unwrap();
    c.register(A, P).unwrap();
    assert_eq!(window.geometry.covered(), 512 * M);
    // As on Linux, addresses between the asked and the real size are accepted.
    c.map(Ioba(512 * M - P), A, P, RW, Mode::Refuse).unwrap();
    assert_eq!(reach(&rig.mock, 0, Ioba(512 * M - 1)), Some((A.0 + P - 1, RW)));
    assert!(c.map(Ioba(512 * M), A, P, RW, Mode::Refuse).is_err());
    let beyond = rig.mock.probe(PeNumber(0), Ioba(512 * M));
    assert!(matches!(beyond, Err(Fault::Extent { .. })), "{beyond:?}");
}

/// Those of one PE.
fn words_of(rig: &Rig, pe: u16) -> Vec<u64> {
    kill_words(rig).into_iter().filter_map(|(of, word)| (of == pe).then_some(word)).collect()
}

#[test]
fn k3_ten_live_entries_are_ten_page_kills_for_each_pe() {
    let (rig, c) = setup(MockBuilder::new(2).record(true));
    // Side by side, and with empty entries between them.
    for (step, pe) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
        let page = |i| bus(5 + step * i);
        (0..10).for_each(|i| {
            c.map(page(i), mem(i), P, RW, Mode::Refuse).unwrap();
        });
        rig.forget_events();
        let before = rig.mock.register_stores();
        let receipt = c.unmap(bus(0), 40 * P).unwrap();
        assert_eq!((receipt.kills.asked, receipt.kills.issued), (20, 20));
        assert_eq!(rig.mock.register_stores() - before, 20);
        let word = |i| 0x2000_0000_0000_0000 | page(i).0 | u64::from(pe);
        let words: Vec<_> = (0..10).map(word).collect();
        assert_eq!(words_of(&rig, pe), words, "rising by the IOMMU page");
    }
}

#[test]
fn k2_more_than_128_pages_are_one_kill_for_each_pe() {
    let (rig, c) = setup(MockBuilder::new(2).record(true));
    for (pages, issued) in [(128u64, 2 * 128u64), (129, 2), (512, 2)] {
        let check = |receipt: tce_engine::container::Receipt, before: u64| {
            assert_eq!((receipt.kills.asked, receipt.kills.issued), (2 * pages, issued));
            assert_eq!(rig.mock.register_stores() - before, issued);
            let words = words_of(&rig, 1);
            assert_eq!(words.len() as u64, issued / 2);
            assert_eq!(words[0] >> 62, u64::from(issued == 2), "of the whole PE, or of pages");
        };
        rig.forget_events();
        let before = rig.mock.register_stores();
        check(c.map(bus(0), mem(16), pages * P, RW, Mode::Refuse).unwrap(), before);
        let before = rig.mock.register_stores();
        check(c.map(bus(0), mem(17), pages * P, RW, Mode::Replace).unwrap(), before);
        let before = rig.mock.register_stores();
        check(c.unmap(bus(0), G).unwrap(), before);
    }
}

#[test]
fn fills_are_not_killed_where_the_phb_never_caches_empty_entries() {
    let kill = phb3(false);
    let (rig, c) = setup(MockBuilder::new(2).kill(kill));
    let (stores, fences) = (rig.mock.register_stores(), rig.mock.fences());
    let fill = c.map(bus(0), A, 8 * P, RW, Mode::Refuse).unwrap();
    assert_eq!((fill.kills.asked, fill.kills.issued), (0, 0));
    assert_eq!((rig.mock.register_stores(), rig.mock.fences()), (stores, fences));
    let replace = c.map(bus(6), mem(20), 8 * P, RW, Mode::Replace).unwrap();
    assert_eq!((replace.kills.asked, replace.kills.issued, replace.released), (4, 4, 2));
}

#[test]
fn k6_table_then_kill_then_fence_then_release() {
    let (rig, c) = setup(MockBuilder::new(2));
    let c = Arc::new(c);
    c.map(bus(0), A, 4 * P, RW, Mode::Refuse).unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let (mock, container, seen): (_, Weak<Container>, _) =
        (rig.mock.clone(), Arc::downgrade(&c), log.clone());
    rig.faulty.watch(move |step| {
        let Some(c) = container.upgrade() else { return };
        // Another thread asks: the caller holds the container's lock, shared.
        let ask = || std::thread::scope(|s| s.spawn(|| counts(&c)).join().unwrap());
        let entry = reach(&mock, 1, bus(0)).map(|(at, _)| at);
        let what = if step == Step::Fence { "fence" } else { "kill" };
        seen.lock().unwrap().push((what, entry, ask()[0]));
    });
    let take = || std::mem::take(&mut *log.lock().unwrap());
    // Replaced: the new entry is there before the kill, both are counted until the fence.
    c.map(bus(0), mem(3), P, RW, Mode::Replace).unwrap();
    let new = Some(mem(3).0);
    assert_eq!(take(), [("kill", new, 5), ("kill", new, 5), ("fence", new, 5)]);
    assert_eq!(counts(&c)[0], 4);
    c.unmap(bus(0), 4 * P).unwrap();
    let log = take();
    assert!(log.len() >= 3 && log.iter().all(|(_, entry, count)| (*entry, *count) == (None, 4)));
    assert_eq!(log.last().map(|l| l.0), Some("fence"));
    assert_eq!(log.iter().filter(|l| l.0 == "fence").count(), 1, "one fence a call");
    assert_eq!(counts(&c)[0], 0);
}

/// A walk passes over what is absent, however large that is, and says how far it went.
#[test]
fn sparse_ranges_take_few_steps() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    c.create_window(WindowSpec::new(1 << 40, PageShift::K4).levels(3)).unwrap();
    c.register(A, P).unwrap();
    assert_eq!(c.unmap(Ioba(0), 1 << 40).unwrap().steps, 4);
    for at in [0, 1 << 39] {
        c.map(Ioba(at), A, 4 * K, RW, Mode::Refuse).unwrap();
    }
    let done = c.unmap(Ioba(0), 1 << 40).unwrap();
    assert_eq!((done.released, done.steps), (2, 2 + 2 * 8192), "two of four, and two levels");
}

/// So long that several cores map and clear it, if there are, and that the clear goes past the caches:
/// 40 GiB in 4 KiB pages is 80 MiB of table. Every entry is right, what stands in the middle with
/// another permission too.
#[test]
fn ranges_for_several_cores() {
    const PAGE: u64 = 4 * K;
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    c.create_window(WindowSpec::new(64 * G, PageShift::K4).levels(2)).unwrap();
    c.register(A, 40 * G).unwrap();
    c.register(Uaddr(A.0 + 40 * G), G).unwrap();
    let (pages, odd) = (40 * G / PAGE, 2_345_678);
    let check = |from: u64, live: bool| {
        for n in (0..pages + 4).step_by(4099).chain([0, 8191, 8192, pages - 1, pages]) {
            let expected = (live && n < pages).then(|| (A.0 + (n * PAGE + from) % (41 * G), RW));
            let expected = if live && n == odd { Some((A.0, Perm::READ)) } else { expected };
            assert_eq!(reach(&rig.mock, 0, Ioba(n * PAGE)), expected, "page {n}");
        }
    };
    let done = c.map(Ioba(0), A, 40 * G, RW, Mode::Refuse).unwrap();
    assert_eq!((done.tces, done.released, done.kills.issued), (pages, 0, 1));
    c.map(Ioba(odd * PAGE), A, PAGE, Perm::READ, Mode::Replace).unwrap();
    check(0, true);
    // Over the border of two regions, and over what is live.
    let moved = c.map(Ioba(0), Uaddr(A.0 + G), 40 * G, RW, Mode::Replace).unwrap();
    assert_eq!(moved.released, pages);
    assert_eq!(counts(&c), [39 * G / PAGE, G / PAGE]);
    c.map(Ioba(odd * PAGE), A, PAGE, Perm::READ, Mode::Replace).unwrap();
    check(G, true);
    let gone = c.unmap(Ioba(0), 64 * G).unwrap();
    assert_eq!((gone.released, gone.kills.issued), (pages, 1));
    check(0, false);
    assert_eq!(counts(&c), [0, 0]);
}
