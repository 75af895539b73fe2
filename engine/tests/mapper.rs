// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One thread's handle: what it does beyond what a container does, and what it must not keep.

use std::sync::{Arc, Mutex};

use crate::common::*;
use tce_engine::addr::{Ioba, PageShift, Uaddr};
use tce_engine::backend::KillCaps;
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::{Container, Mapper, Mode, Removal};
use tce_engine::error::{IobaError, MapError, UnmapError, UnregisterError};
use tce_engine::geometry::WindowSpec;
use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace};
use tce_engine::tce::Perm;

const A: Uaddr = Uaddr(0x7f00_0000_0000);
const P: u64 = 4 * K;
const RW: Perm = Perm::READ_WRITE;

/// A window of 64 MiB, two segments of 8192 pages, and as much memory.
fn container(rig: &Rig) -> Arc<Container> {
    let c = rig.container(&[G0, G1]);
    c.create_window(WindowSpec::new(64 * M, PageShift::K4)).unwrap();
    c.register(A, 64 * M).unwrap();
    Arc::new(c)
}

fn rig() -> Rig {
    Rig::new(MockBuilder::new(3))
}

fn memory(page: u64) -> Uaddr {
    Uaddr(A.0 + page * P)
}

/// Maps and unmaps a page often enough to have the lock of its segment left to the handle.
fn settle(mapper: &mut Mapper, page: u64) {
    for _ in 0..4 {
        mapper.map(Ioba(page * P), memory(page), P, RW, Mode::Refuse).unwrap();
        mapper.unmap(Ioba(page * P), P).unwrap();
    }
}

fn space(start: u64, bytes: u64) -> Arc<IobaAllocator> {
    let space = IobaSpace { start: Ioba(start), bytes, page: PageShift::K4 };
    IobaAllocator::new(space, IobaOptions::default()).unwrap()
}

#[test]
fn every_answer_is_the_containers_own() {
    let rig = rig();
    let c = container(&rig);
    let mut m = c.mapper();
    settle(&mut m, 5);
    let (at, page) = (Ioba(5 * P), memory(5));
    for (handle, shared) in [
        (
            m.map(at, page, P, Perm::NONE, Mode::Refuse),
            c.map(at, page, P, Perm::NONE, Mode::Refuse),
        ),
        (m.map(Ioba(1), page, P, RW, Mode::Refuse), c.map(Ioba(1), page, P, RW, Mode::Refuse)),
        (m.map(at, Uaddr(1), P, RW, Mode::Refuse), c.map(at, Uaddr(1), P, RW, Mode::Refuse)),
        (m.map(at, page, 0, RW, Mode::Refuse), c.map(at, page, 0, RW, Mode::Refuse)),
        (m.map(at, page, P + 1, RW, Mode::Refuse), c.map(at, page, P + 1, RW, Mode::Refuse)),
        (m.map(at, Uaddr(0), P, RW, Mode::Refuse), c.map(at, Uaddr(0), P, RW, Mode::Refuse)),
        (m.map(SECOND, page, P, RW, Mode::Refuse), c.map(SECOND, page, P, RW, Mode::Refuse)),
    ] {
        assert!(handle.is_err());
        assert_eq!(handle, shared);
    }
    for (handle, shared) in [
        (m.unmap(Ioba(1), P), c.unmap(Ioba(1), P)),
        (m.unmap(at, 0), c.unmap(at, 0)),
        (m.unmap(at, P + 1), c.unmap(at, P + 1)),
        (m.unmap(SECOND, P), c.unmap(SECOND, P)),
        (m.unmap(at, 128 * M), c.unmap(at, 128 * M)),
        // Nothing is there, of one page, of some, of many.
        (m.unmap(at, P), c.unmap(at, P)),
        (m.unmap(at, 7 * P), c.unmap(at, 7 * P)),
        (m.unmap(Ioba(0), 64 * M), c.unmap(Ioba(0), 64 * M)),
    ] {
        assert_eq!(handle, shared);
    }
    let once = m.map(at, page, P, RW, Mode::Refuse).unwrap();
    assert_eq!(c.unmap(at, P).unwrap().released, 1);
    assert_eq!(c.map(at, page, P, RW, Mode::Refuse), Ok(once));
    let live = MapError::Overlap { start: at, live: 1 };
    assert_eq!(m.map(at, page, P, RW, Mode::Refuse), Err(live));
    let replaced = m.map(at, memory(6), P, RW, Mode::Replace).unwrap();
    assert_eq!(c.map(at, page, P, RW, Mode::Replace), Ok(replaced));
    // A short run with a hole, and one that ends beyond the segment.
    m.map(Ioba(7 * P), memory(7), P, RW, Mode::Refuse).unwrap();
    let done = m.unmap(Ioba(4 * P), 6 * P).unwrap();
    assert_eq!((done.tces, done.released, done.kills.asked, done.kills.issued), (2, 2, 4, 4));
    m.map(Ioba(8190 * P), memory(0), 4 * P, RW, Mode::Refuse).unwrap();
    assert_eq!(m.unmap(Ioba(8189 * P), 6 * P).unwrap().released, 4);
    assert_eq!(c.regions()[0].mapped, 0);
}

#[test]
fn nothing_of_an_old_structure_is_used() {
    let rig = rig();
    let c = container(&rig);
    let mut m = c.mapper();
    settle(&mut m, 3);
    let at = Ioba(3 * P);
    m.map(at, memory(3), P, RW, Mode::Refuse).unwrap();
    // Another member joins: it sees the page, and is killed with the others from now on.
    c.attach(G2).unwrap();
    assert_eq!(reach(&rig.mock, 2, at).unwrap().0, memory(3).0);
    let gone = m.unmap(at, P).unwrap();
    assert_eq!((gone.released, gone.kills.issued), (1, 3));
    assert_eq!(reach(&rig.mock, 2, at), None);
    // The window goes, and another takes its place.
    m.map(at, memory(3), P, RW, Mode::Refuse).unwrap();
    c.remove_window(Ioba(0), Removal::Force).unwrap();
    assert!(matches!(m.unmap(at, P), Err(UnmapError::OutsideWindows { .. })));
    c.create_window(WindowSpec::new(64 * M, PageShift::K64)).unwrap();
    assert!(matches!(m.map(at, memory(3), P, RW, Mode::Refuse), Err(MapError::Unaligned { .. })));
    m.map(Ioba(0), A, 64 * K, RW, Mode::Refuse).unwrap();
    // A region cannot go while a handle's page points into it, and is not found afterwards.
    let busy = c.unregister(A, 64 * M);
    assert_eq!(busy, Err(UnregisterError::Mapped { start: A, mapped: 1 }));
    m.unmap(Ioba(0), 64 * K).unwrap();
    c.unregister(A, 64 * M).unwrap();
    let gone = MapError::NotRegistered { at: A };
    assert_eq!(m.map(Ioba(0), A, 64 * K, RW, Mode::Refuse), Err(gone));
    c.close();
    assert!(matches!(m.unmap(Ioba(0), 64 * K), Err(UnmapError::OutsideWindows { .. })));
}

#[test]
fn counts_go_from_handle_to_handle_and_survive_them() {
    let rig = rig();
    let c = container(&rig);
    for n in 1..40 {
        // So many registrations that the counts need room.
        c.register(Uaddr(A.0 + n * 64 * M), 64 * K).unwrap();
    }
    let (mut a, mut b) = (c.mapper(), c.mapper());
    settle(&mut a, 1);
    for page in 0..16 {
        a.map(Ioba(page * P), memory(page), P, RW, Mode::Refuse).unwrap();
    }
    for page in 0..10 {
        // The lock was left to the other one.
        assert_eq!(b.unmap(Ioba(page * P), P).unwrap().released, 1);
    }
    assert_eq!(mapped(&c, A), 6);
    drop(b);
    assert_eq!(mapped(&c, A), 6);
    c.register(Uaddr(A.0 - 64 * K), 64 * K).unwrap();
    assert_eq!(a.unmap(Ioba(0), 64 * M).unwrap().released, 6);
    assert_eq!(mapped(&c, A), 0);
    drop(a);
    c.unregister(A, 64 * M).unwrap();
}

#[test]
fn addresses_are_taken_and_given_back() {
    let rig = rig();
    let c = container(&rig);
    let addresses = space(0, 64 * M);
    let mut m = c.mapper().with_addresses(&addresses);
    settle(&mut m, 9);
    let mut places: Vec<_> = (0..300).map(|n| m.map_alloc(memory(n), P, RW).unwrap()).collect();
    let run = m.map_alloc(A, 40 * P, Perm::READ).unwrap();
    for (n, at) in places.iter().enumerate() {
        assert_eq!(reach(&rig.mock, 1, *at), Some((memory(n as u64).0, RW)));
        assert!(at.0 + P <= run.0 || at.0 >= run.0 + 40 * P);
    }
    assert_eq!(reach(&rig.mock, 0, Ioba(run.0 + 39 * P)), Some((memory(39).0, Perm::READ)));
    assert_eq!((addresses.in_use(), mapped(&c, A)), (340, 340));
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 300);
    // A refused one takes nothing.
    let refused = m.map_alloc(Uaddr(0), P, RW);
    assert_eq!(refused, Err(MapError::NotRegistered { at: Uaddr(0) }));
    let length = MapError::Unaligned { what: "length", value: P + 1, page: PageShift::K4 };
    assert_eq!(m.map_alloc(A, P + 1, RW), Err(length));
    assert_eq!(addresses.in_use(), 340);
    m.unmap_free(run, 40 * P).unwrap();
    for at in &places {
        m.unmap_free(*at, P).unwrap();
        assert_eq!(reach(&rig.mock, 0, *at), None);
    }
    assert_eq!((addresses.in_use(), mapped(&c, A)), (0, 0));
    let twice = m.unmap_free(places[0], P);
    assert_eq!(twice, Err(UnmapError::NotMapped { start: places[0], pages: 1, live: 0 }));
    let at = m.map_alloc(A, 4 * P, RW).unwrap();
    m.unmap(at, P).unwrap();
    let part = m.unmap_free(at, 4 * P);
    assert_eq!(part, Err(UnmapError::NotMapped { start: at, pages: 4, live: 3 }));
    assert_eq!((addresses.in_use(), mapped(&c, A)), (4, 0), "the addresses stay taken");
}

#[test]
fn addresses_that_cannot_be_had() {
    let rig = rig();
    let c = container(&rig);
    let mut m = c.mapper();
    assert_eq!(m.map_alloc(A, P, RW), Err(MapError::NoAddresses));
    assert_eq!(m.unmap_free(Ioba(0), P), Err(UnmapError::NoAddresses));
    let mut m = m.with_addresses(&space(M, 16 * P));
    let places: Vec<_> = (0..16).map(|n| m.map_alloc(memory(n), P, RW).unwrap()).collect();
    let full = m.map_alloc(A, P, RW);
    assert!(matches!(full, Err(MapError::Addresses(IobaError::Exhausted { .. }))), "{full:?}");
    // Mapped by address, beyond what the allocator has.
    m.map(Ioba(0), A, P, RW, Mode::Refuse).unwrap();
    assert_eq!(m.unmap_free(Ioba(0), P), Err(UnmapError::Foreign { start: Ioba(0), pages: 1 }));
    assert!(m.unmap_free(Ioba(M + 1), P).is_err());
    assert_eq!(mapped(&c, A), 17);
    places.into_iter().for_each(|at| m.unmap_free(at, P).unwrap());
    // Somebody who does not ask is in the way.
    m.map(Ioba(M), A, 16 * P, RW, Mode::Refuse).unwrap();
    assert!(matches!(m.map_alloc(A, P, RW), Err(MapError::Overlap { live: 1, .. })));
}

/// Pages of two registrations and such that are write-only, all from a magazine that has the whole
/// window: what the handle remembers last is not always whose the page is.
#[test]
fn addresses_of_pages_that_are_not_alike() {
    let rig = rig();
    let c = container(&rig);
    const B: Uaddr = Uaddr(A.0 + (1 << 40));
    c.register(B, M).unwrap();
    let addresses = space(0, 64 * M);
    let mut m = c.mapper().with_addresses(&addresses);
    settle(&mut m, 9);
    let page = |n: u64| Uaddr((if n.is_multiple_of(3) { B } else { A }).0 + n * P);
    let perm = |n: u64| if n.is_multiple_of(5) { Perm::WRITE } else { RW };
    for round in 0..20 {
        // At first one registration alone, then both, then both with write-only pages.
        let all: Vec<_> = (1..100u64)
            .filter(|n| (round > 5 || n % 3 != 0) && (round > 10 || n % 5 != 0))
            .map(|n| (n, m.map_alloc(page(n), P, perm(n)).unwrap()))
            .collect();
        let of_b = all.iter().filter(|(n, _)| n % 3 == 0).count() as u64;
        assert_eq!((mapped(&c, A), mapped(&c, B)), (all.len() as u64 - of_b, of_b));
        for (n, at) in &all {
            assert_eq!(reach(&rig.mock, 1, *at), Some((page(*n).0, RW)));
            assert_eq!(c.requested(*at).unwrap().1, perm(*n));
        }
        for (_, at) in &all {
            m.unmap_free(*at, P).unwrap();
            let twice = m.unmap_free(*at, P);
            assert_eq!(twice, Err(UnmapError::NotMapped { start: *at, pages: 1, live: 0 }));
        }
        assert_eq!((mapped(&c, A), mapped(&c, B), addresses.in_use()), (0, 0, 0));
    }
}

/// A single member's kill register is stored to without its port being called; members that come
/// and go, and handles too, are not forgotten.
#[test]
fn one_member_is_killed_by_its_register() {
    for on_fill in [true, false] {
        let rig = Rig::new(MockBuilder::new(3).kill(phb3(on_fill)));
        let c = Arc::new(rig.container(&[G0]));
        c.create_window(WindowSpec::new(64 * M, PageShift::K4)).unwrap();
        c.register(A, 64 * M).unwrap();
        let mut m = c.mapper();
        settle(&mut m, 2);
        let word = |pe: u64, page: u64| (1 << 61) | (page * P) | pe;
        for members in [1, 2, 1] {
            settle(&mut m, 2);
            let before = (rig.mock.register_stores(), rig.mock.fences());
            let filled = m.map(Ioba(6 * P), memory(1), P, RW, Mode::Refuse).unwrap().kills;
            let kills = if on_fill { members } else { 0 };
            assert_eq!((filled.asked, filled.issued), (kills, kills));
            let gone = m.unmap(Ioba(6 * P), P).unwrap().kills;
            assert_eq!((gone.asked, gone.issued), (members, members));
            let calls = 1 + u64::from(on_fill);
            let after = (before.0 + calls * members, before.1 + calls);
            assert_eq!((rig.mock.register_stores(), rig.mock.fences()), after);
            for pe in 0..members {
                let last = rig.mock.last_kill_word(tce_engine::PeNumber(pe as u16));
                assert_eq!(last, word(pe, 6));
            }
            if members == 1 {
                c.attach(G1).unwrap();
            } else {
                c.detach(G1).unwrap();
            }
        }
        let before = (rig.mock.register_stores(), rig.mock.fences());
        drop(m);
        assert_eq!((rig.mock.register_stores(), rig.mock.fences()), before);
    }
}

#[test]
fn a_platform_that_kills_whole_pes_only() {
    let kill = KillCaps::PHB4;
    let rig = Rig::new(MockBuilder::new(3).kill(kill));
    let c = container(&rig);
    let mut m = c.mapper();
    settle(&mut m, 2);
    let before = rig.mock.register_stores();
    let done = m.map(Ioba(0), A, P, RW, Mode::Refuse).unwrap();
    assert_eq!((done.kills.asked, done.kills.issued), (2, 2));
    assert_eq!(rig.mock.register_stores() - before, 2);
    let whole = 1 << 62;
    assert_eq!(rig.mock.last_kill_word(tce_engine::PeNumber(1)), whole | 1);
}

/// Page by page and for each member, wherever on the bus.
#[test]
fn a_run_with_gaps_is_killed_where_it_was_live() {
    let rig = Rig::new(MockBuilder::new(3).record(true));
    let c = container(&rig);
    let mut m = c.mapper();
    settle(&mut m, 100);
    let live = [16, 17, 19, 22];
    for page in live {
        m.map(Ioba(page * P), memory(page), P, RW, Mode::Refuse).unwrap();
    }
    rig.forget_events();
    let before = rig.mock.fences();
    let done = m.unmap(Ioba(15 * P), 10 * P).unwrap();
    assert_eq!((done.released, done.kills.asked, done.kills.issued), (4, 8, 8));
    let fences = rig.mock.fences();
    assert_eq!(m.unmap(Ioba(15 * P), 10 * P).unwrap().released, 0);
    assert_eq!((fences, rig.mock.fences()), (before + 1, fences), "nothing, nothing to wait for");
    let mut words = kill_words(&rig);
    words.sort_unstable();
    let word = |pe: u16| live.map(|page| (pe, 0x2000_0000_0000_0000 | (page * P) | u64::from(pe)));
    assert_eq!(words, [word(0), word(1)].concat());
}

/// Over a back end without ports of its own, the handle goes the way that all share; nothing is
/// released before that has waited.
#[test]
fn the_order_is_kill_fence_release() {
    let rig = rig();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = steps.clone();
    rig.faulty.watch(move |step| seen.lock().unwrap().push(step));
    let c = container(&rig);
    let mut m = c.mapper();
    settle(&mut m, 2);
    m.map(Ioba(0), A, P, RW, Mode::Refuse).unwrap();
    steps.lock().unwrap().clear();
    m.unmap(Ioba(0), P).unwrap();
    let steps = std::mem::take(&mut *steps.lock().unwrap());
    assert!(matches!(steps[..], [Step::Kill(G0, _), Step::Kill(G1, _), Step::Fence]), "{steps:?}");
}

/// A kernel's container has no fast path; its handles do what the container does.
#[test]
fn over_a_kernel() {
    let engine = on_a_kernel();
    let c = engine.container();
    c.attach(G0).unwrap();
    c.register(A, 64 * M).unwrap();
    let window = c.create_window(WindowSpec::new(64 * M, PageShift::K4)).unwrap().start;
    let c = Arc::new(c);
    let mut m = c.mapper();
    for _ in 0..5 {
        let at = Ioba(window.0 + 7 * P);
        assert_eq!(m.map(at, memory(7), P, RW, Mode::Refuse).unwrap().ioctls, 1);
        assert_eq!(m.unmap(at, P).unwrap().ioctls, 1);
    }
    drop(m);
    c.close();
    assert_eq!(engine.ledger().pages(), 0);
}
