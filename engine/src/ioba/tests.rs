// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Cases with small numbers; `tests/ioba.rs` has the random ones.

use super::*;

const LINES: IobaOptions = IobaOptions { own_line: true };

fn space(start: u64, pages: u64, page: PageShift) -> IobaSpace {
    IobaSpace { start: Ioba(start), bytes: pages << page.get(), page }
}

fn allocator(start: u64, pages: u64, page: PageShift) -> Arc<IobaAllocator> {
    IobaAllocator::new(space(start, pages, page), IobaOptions::default()).unwrap()
}

/// All single pages, in the order in which they come.
fn all_pages(magazine: &mut Magazine) -> Vec<u64> {
    std::iter::from_fn(|| magazine.take_page().ok()).map(|at| at.0).collect()
}

fn refusal(start: u64, bytes: u64, page: PageShift) -> IobaError {
    let space = IobaSpace { start: Ioba(start), bytes, page };
    IobaAllocator::new(space, IobaOptions::default()).unwrap_err()
}

#[test]
fn spaces_that_cannot_be() {
    let k4 = PageShift::K4;
    assert_eq!(refusal(0, 0, k4), IobaError::Empty);
    let unaligned = |what, value| IobaError::Unaligned { what, value, page: k4 };
    assert_eq!(refusal(0x800, 0x1000, k4), unaligned("bus address", 0x800));
    assert_eq!(refusal(0x1000, 0x1800, k4), unaligned("length", 0x1800));
    let (start, bytes) = (Ioba(u64::MAX - 0xfff), 0x1000);
    assert_eq!(refusal(start.0, bytes, k4), IobaError::Wraps { start, bytes });
    let pages = MAX_PAGES + 1;
    assert_eq!(refusal(1 << 59, pages << 12, k4), IobaError::TooLarge { pages });
    let in_hole = |start, bytes| IobaError::InHole { start: Ioba(start), bytes };
    assert_eq!(refusal(3 << 30, 4 << 30, k4), in_hole(3 << 30, 4 << 30));
    assert_eq!(refusal(2 << 30, 1 << 12, k4), in_hole(2 << 30, 1 << 12));
    // Its only page begins below the hole and reaches beyond it.
    let g16 = PageShift::new(34).unwrap();
    assert_eq!(refusal(0, 16 << 30, g16), in_hole(0, 16 << 30));
}

#[test]
fn the_hole_of_a_large_window_0() {
    let m16 = PageShift::M16;
    let all = allocator(0, 512, m16);
    assert_eq!(all.capacity(), 512 - 128);
    let mut magazine = Magazine::new(&all);
    // Nothing longer fits on either side, although there are enough pages.
    assert!(matches!(magazine.take(257), Err(IobaError::Exhausted { free: 384, held: 0, .. })));
    let beyond = magazine.take(256).unwrap();
    assert_eq!(beyond, Ioba(4 << 30));
    let below = magazine.take(128).unwrap();
    assert_eq!(below, Ioba(0));
    magazine.give(beyond, 256);
    magazine.give(below, 128);
    let mut pages = all_pages(&mut magazine);
    pages.sort_unstable();
    let expected = (0..512).map(|page| page << 24).filter(|at| !MMIO_HOLE.contains(at));
    assert!(pages.into_iter().eq(expected));

    let in_hole = |start, bytes| IobaError::InHole { start: Ioba(start), bytes };
    assert_eq!(all.reserve(Ioba(3 << 30), 16 << 20), Err(in_hole(3 << 30, 16 << 20)));
    assert_eq!(all.unreserve(Ioba(1 << 30), 4 << 30), Err(in_hole(1 << 30, 4 << 30)));

    // No hole: it ends where the hole begins; it begins where the hole ends; it is high up.
    for start in [0, 4 << 30, 1 << 59] {
        assert_eq!(allocator(start, 128, m16).capacity(), 128);
    }
    // The hole reaches to the end.
    assert_eq!(allocator(1 << 30, 128, m16).capacity(), 64);
    // Page 0 begins below the hole.
    let large = allocator(0, 4, PageShift::new(34).unwrap());
    assert_eq!(all_pages(&mut Magazine::new(&large)), [16 << 30, 32 << 30, 48 << 30]);
}

#[test]
fn pages_come_ascending_and_the_last_comes_again() {
    let allocator = allocator(1 << 59, 1 << 14, PageShift::K64);
    let mut magazine = Magazine::new(&allocator);
    let taken: Vec<_> = (0..100).map(|_| magazine.take_page().unwrap()).collect();
    assert!(taken.iter().enumerate().all(|(i, at)| at.0 == (1 << 59) + ((i as u64) << 16)));
    assert_eq!((allocator.in_use(), allocator.held(), magazine.held()), (100, 28, 28));
    magazine.give_page(taken[7]);
    assert_eq!(magazine.take_page(), Ok(taken[7]));
    // What is given back beyond 128 goes to the bitmap, by the half.
    taken.iter().for_each(|at| magazine.give_page(*at));
    assert_eq!((allocator.in_use(), magazine.held()), (0, 128));
    let more = Magazine::new(&allocator).take_page().unwrap();
    magazine.give_page(more);
    assert_eq!((allocator.in_use(), magazine.held()), (0, 65));
    magazine.flush();
    assert_eq!((allocator.in_use(), magazine.held()), (0, 0));
    assert_eq!(allocator.reserve(Ioba(1 << 59), 1 << 30), Ok(()));
}

#[test]
fn threads_sweep_stretches_of_their_own() {
    // The space begins in the middle of a stretch of 8192 pages.
    let allocator = allocator((1 << 59) + (5000 << 12), 1 << 20, PageShift::K4);
    let mut magazines = [0; 3].map(|_| Magazine::new(&allocator));
    let page = |at: Result<Ioba, _>| (at.unwrap().0 - (1 << 59)) >> 12;
    let mut first = || magazines.each_mut().map(|m| page(m.take(2)));
    assert_eq!(first(), [5000, 8192, 16384]);
    assert_eq!(first(), [5002, 8194, 16386]);
    // The next stretch is the one that nobody was sent to.
    assert_eq!(page(magazines[0].take(8191 - 5003)), 5004);
    assert_eq!(page(magazines[0].take(3)), 24576);
}

#[test]
fn runs_are_found_in_what_is_left() {
    let all = allocator(0, 100, PageShift::K4);
    let mut magazine = Magazine::new(&all);
    let whole = magazine.take(100).unwrap();
    let full = IobaError::Exhausted { pages: 1, align: 1, free: 0, held: 0 };
    assert_eq!(magazine.take_page(), Err(full));
    // A part of a run is a run.
    magazine.give(Ioba(60 << 12), 9);
    assert_eq!(magazine.take_aligned(4, 16), Ok(Ioba(64 << 12)));
    let no_place = |pages, align| IobaError::Exhausted { pages, align, free: 5, held: 0 };
    assert_eq!(magazine.take(5), Err(no_place(5, 1)));
    assert_eq!(magazine.take_aligned(2, 8), Err(no_place(2, 8)));
    assert_eq!(magazine.take_aligned(1, 1 << 63), Err(no_place(1, 1 << 63)));
    assert_eq!(magazine.take_aligned(1, 3), Err(IobaError::Alignment { pages: 3 }));
    assert_eq!((magazine.take(0), magazine.take(u64::MAX).is_err()), (Err(IobaError::Empty), true));
    assert_eq!(magazine.take(4), Ok(Ioba(60 << 12)));
    // Pages of one's own magazine are part of what is free; those of others are named.
    let mut other = Magazine::new(&all);
    magazine.give(whole, 2);
    let page = other.take_page().unwrap();
    other.give_page(page);
    let held = IobaError::Exhausted { pages: 2, align: 1, free: 2, held: 1 };
    assert_eq!(magazine.take(2), Err(held));
    assert_eq!(other.take(2), Ok(whole));
    assert_eq!((all.in_use(), other.take_page()), (99, Ok(Ioba(68 << 12))));
}

#[test]
fn reservations() {
    let allocator = allocator(0x10_0000, 200, PageShift::K4);
    let at = |page: u64| Ioba(0x10_0000 + (page << 12));
    assert_eq!(allocator.reserve(at(50), 100 << 12), Ok(()));
    assert_eq!(allocator.reserve(at(0), 51 << 12), Err(IobaError::Busy { at: at(50) }));
    assert_eq!(allocator.unreserve(at(149), 2 << 12), Err(IobaError::Free { at: at(150) }));
    assert_eq!(allocator.in_use(), 100);
    let outside = |start, pages: u64| IobaError::OutsideSpace {
        start,
        bytes: pages << 12,
        space: at(0),
        space_bytes: 200 << 12,
    };
    assert_eq!(allocator.reserve(Ioba(0xf_f000), 0x2000), Err(outside(Ioba(0xf_f000), 2)));
    assert_eq!(allocator.unreserve(at(199), 2 << 12), Err(outside(at(199), 2)));
    assert_eq!(allocator.reserve(at(0), 0), Err(IobaError::Empty));
    let mut magazine = Magazine::new(&allocator);
    let run = magazine.take(30).unwrap();
    drop(magazine);
    // What was taken outlives the magazine, and goes back without it too.
    assert_eq!(allocator.in_use(), 130);
    assert_eq!(allocator.unreserve(run, 30 << 12), Ok(()));
    assert_eq!(allocator.unreserve(at(50), 100 << 12), Ok(()));
    assert_eq!(allocator.in_use(), 0);
}

#[test]
fn lines_of_their_own() {
    // Page 1008 of the bus is a multiple of 16.
    let space = space(1000 << 12, 100, PageShift::K4);
    let allocator = IobaAllocator::new(space, LINES).unwrap();
    let mut magazine = Magazine::new(&allocator);
    let page = |at: Result<Ioba, _>| at.map(|at| at.0 >> 12);
    assert_eq!(page(magazine.take(17)), Ok(1008));
    assert_eq!(page(magazine.take_page()), Ok(1040));
    assert_eq!(page(magazine.take_aligned(3, 4)), Ok(1056));
    assert_eq!(page(magazine.take(2)), Ok(1072));
    assert_eq!(page(magazine.take_page()), Ok(1088));
    let full = IobaError::Exhausted { pages: 1, align: 16, free: 100 - 24, held: 0 };
    assert_eq!(magazine.take_page(), Err(full));
    // One page of a run is no page to be handed out alone, until its first is free.
    magazine.give_page(Ioba(1057 << 12));
    assert!(magazine.take_page().is_err());
    magazine.give(Ioba(1056 << 12), 1);
    assert_eq!(page(magazine.take_page()), Ok(1056));
}

#[test]
#[cfg_attr(debug_assertions, should_panic = "are not of IobaAllocator(0x0, 0x100000000 bytes")]
fn a_foreign_page_is_not_kept() {
    let allocator = allocator(0, 1 << 20, PageShift::K4);
    let mut magazine = Magazine::new(&allocator);
    let used = magazine.take(3).unwrap();
    for at in [1 << 32, 3 << 30, 0x800, u64::MAX] {
        magazine.give_page(Ioba(at));
        magazine.give(Ioba(at), 2);
    }
    magazine.give(used, 0);
    magazine.give(Ioba((2 << 30) - 4096), 2);
    magazine.give(used, u64::MAX);
    assert_eq!((allocator.in_use(), magazine.held()), (3, 0));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic = "free already"]
fn a_page_is_given_once() {
    let mut magazine = Magazine::new(&allocator(0, 100, PageShift::K4));
    let page = magazine.take_page().unwrap();
    magazine.give_page(page);
    magazine.give_page(page);
}

#[test]
fn everybody_may_share_an_allocator() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Magazine>();
    sync::<IobaAllocator>();
    let allocator = allocator(0, 100, PageShift::K4);
    let mut magazine = Magazine::new(&allocator);
    magazine.take(3).unwrap();
    assert_eq!(magazine.allocator().in_use(), 3);
    assert_eq!(
        (allocator.options(), allocator.space()),
        (IobaOptions::default(), space(0, 100, PageShift::K4))
    );
    let text = format!("{magazine:?}");
    assert_eq!(
        text,
        "Magazine(0 pages of IobaAllocator(0x0, 0x64000 bytes, 3 of 100 pages of 4K))"
    );
}
