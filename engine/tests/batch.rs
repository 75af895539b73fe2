// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Batches: what the requests one by one would do, all of it or nothing, neighbours joined.

use std::collections::BTreeMap;
use std::sync::Barrier;

use crate::common::*;
use proptest::prelude::*;
use tce_engine::addr::{Ioba, PageShift, Uaddr};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::{Container, MapRequest, Mode, UnmapRequest};
use tce_engine::error::{MapError, UnmapError};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

const A: u64 = 0x7f00_0000_0000;
const PAGE: u64 = 4 * K;
/// Bytes registered, in two regions that touch.
const MEMORY: u64 = 8 * M;

fn setup(rig: &Rig) -> Container {
    let c = rig.container(&[G0, G1]);
    c.register(Uaddr(A), MEMORY / 2).unwrap();
    c.register(Uaddr(A + MEMORY / 2), MEMORY / 2).unwrap();
    c.create_window(WindowSpec::new(G, PageShift::K4).levels(2)).unwrap();
    c
}

fn request(page: u64, from: u64, pages: u64, perm: Perm) -> MapRequest {
    let (at, memory) = (Ioba(page * PAGE), Uaddr(A + from * PAGE));
    MapRequest { at, memory, bytes: pages * PAGE, perm }
}

#[derive(Clone, Debug)]
struct Part {
    gap: u64,
    from: u64,
    pages: u64,
    perm: Perm,
    /// Memory goes on where the part before ended.
    joined: bool,
}

fn part() -> impl Strategy<Value = Part> {
    let gap = prop_oneof![3 => Just(0), 2 => 1u64..6, 1 => 8000u64..8400];
    let perm =
        prop_oneof![3 => Just(Perm::READ_WRITE), 1 => Just(Perm::READ), 1 => Just(Perm::WRITE)];
    (gap, 0u64..2000, 1u64..40, perm, any::<bool>())
        .prop_map(|(gap, from, pages, perm, joined)| Part { gap, from, pages, perm, joined })
}

proptest! {
    #[test]
    fn a_batch_is_its_requests_one_by_one(
        before in prop::collection::vec((0u64..30_000, 1u64..60), 0..12),
        parts in prop::collection::vec(part(), 1..40),
        rotate in 0usize..40,
        replace in any::<bool>(),
    ) {
        let rig = Rig::new(MockBuilder::new(2));
        let c = setup(&rig);
        let mut model: BTreeMap<u64, (u64, Perm)> = BTreeMap::new();
        for (page, pages) in before {
            let r = request(page, 7, pages, Perm::READ);
            c.map(r.at, r.memory, r.bytes, r.perm, Mode::Replace).unwrap();
            model.extend((0..pages).map(|i| (page + i, (A + (7 + i) * PAGE, Perm::READ))));
        }
        let (mut page, mut next) = (0, 0);
        let mut requests: Vec<MapRequest> = Vec::new();
        for Part { gap, from, pages, perm, joined } in parts {
            page += gap;
            let from = if joined && next + pages <= MEMORY / PAGE { next } else { from };
            requests.push(request(page, from, pages, perm));
            page += pages;
            next = from + pages;
        }
        let turn = rotate % requests.len();
        requests.rotate_left(turn);

        let wanted: Vec<(u64, (u64, Perm))> = requests
            .iter()
            .flat_map(|r| (0..r.bytes / PAGE).map(|i| {
                (r.at.0 / PAGE + i, (r.memory.0 + i * PAGE, r.perm))
            }))
            .collect();
        let live = wanted.iter().filter(|(page, _)| model.contains_key(page)).count() as u64;
        let mode = if replace { Mode::Replace } else { Mode::Refuse };
        match c.map_batch(&requests, mode) {
            Ok(done) => {
                prop_assert!(replace || live == 0);
                prop_assert_eq!(done.tces, wanted.len() as u64);
                prop_assert_eq!(done.released, live);
                prop_assert_eq!((done.requests, done.ioctls), (requests.len() as u64, 0));
                model.extend(wanted.iter().copied());
            }
            Err(MapError::Overlap { live: found, .. }) => {
                prop_assert!(!replace);
                prop_assert_eq!(found, live);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
        for page in 0..page + 100 {
            let expected = model.get(&page).map(|(m, perm)| (*m, perm.powernv()));
            for pe in 0..2 {
                prop_assert_eq!(reach(&rig.mock, pe, Ioba(page * PAGE)), expected, "page {}", page);
            }
            let asked = c.requested(Ioba(page * PAGE)).unwrap().1;
            prop_assert_eq!(asked, model.get(&page).map_or(Perm::NONE, |m| m.1));
        }

        let unmaps: Vec<_> =
            requests.iter().map(|r| UnmapRequest { at: r.at, bytes: r.bytes }).collect();
        let gone = wanted.iter().filter(|(page, _)| model.remove(page).is_some()).count() as u64;
        let done = c.unmap_batch(&unmaps).unwrap();
        prop_assert_eq!((done.tces, done.requests), (gone, unmaps.len() as u64));
        for page in 0..page + 100 {
            let expected = model.get(&page).map(|(m, perm)| (*m, perm.powernv()));
            prop_assert_eq!(reach(&rig.mock, 1, Ioba(page * PAGE)), expected);
        }
        let mapped: u64 = c.regions().iter().map(|r| r.mapped).sum();
        prop_assert_eq!(mapped, model.len() as u64);
    }
}

/// 512 neighbours, in any order, are one range: one PE-wide kill, not 512 of a page.
#[test]
fn neighbours_are_joined() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = setup(&rig);
    let mut all: Vec<_> = (0..512).map(|i| request(100 + i, i, 1, Perm::READ)).collect();
    all.reverse();
    let done = c.map_batch(&all, Mode::Refuse).unwrap();
    assert_eq!((done.tces, done.requests), (512, 512));
    assert_eq!((done.kills.asked, done.kills.issued), (2 * 512, 2));
    let all: Vec<_> = all.iter().map(|r| UnmapRequest { at: r.at, bytes: r.bytes }).collect();
    assert_eq!(c.unmap_batch(&all).unwrap().kills.issued, 2);
}

#[test]
fn all_or_nothing() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = setup(&rig);
    c.create_window(WindowSpec::new(G, PageShift::K4)).unwrap();
    let good = request(10, 0, 4, Perm::READ);
    let refused = |requests: &[MapRequest]| {
        let error = c.map_batch(requests, Mode::Refuse).unwrap_err();
        assert_eq!(reach(&rig.mock, 0, good.at), None, "{error}");
        assert_eq!(mapped(&c, Uaddr(A)), 0);
        error
    };
    let unregistered = refused(&[good, request(20, MEMORY / PAGE - 1, 2, Perm::READ)]);
    assert_eq!(unregistered, MapError::NotRegistered { at: Uaddr(A + MEMORY) });
    let overlap = refused(&[request(13, 9, 1, Perm::READ), good]);
    assert_eq!(overlap, MapError::BatchOverlap(good.at, Ioba(13 * PAGE)));
    let other = MapRequest { at: SECOND, ..good };
    assert_eq!(refused(&[good, other]), MapError::BatchWindows(good.at, SECOND));
    let none = MapRequest { perm: Perm::NONE, ..good };
    assert_eq!(refused(&[good, none]), MapError::Nothing(good.at));
    let behind = request(G / PAGE - 1, 0, 2, Perm::READ);
    let outside = MapError::OutsideWindows { start: behind.at, bytes: behind.bytes };
    assert_eq!(refused(&[good, behind]), outside);
    let crooked = MapRequest { memory: Uaddr(A + 5), ..good };
    assert!(
        matches!(refused(&[good, crooked]), MapError::Unaligned { value, .. } if value == A + 5)
    );

    assert_eq!(c.map_batch(&[], Mode::Refuse).unwrap().requests, 0);
    assert_eq!(c.unmap_batch(&[]).unwrap().requests, 0);
    c.map_batch(&[good], Mode::Refuse).unwrap();
    let unmap = |at: Ioba, pages: u64| UnmapRequest { at, bytes: pages * PAGE };
    let twice = c.unmap_batch(&[unmap(good.at, 4), unmap(good.at, 1)]);
    assert_eq!(twice, Err(UnmapError::BatchOverlap(good.at, good.at)));
    let two = c.unmap_batch(&[unmap(good.at, 4), unmap(SECOND, 1)]);
    assert_eq!(two, Err(UnmapError::BatchWindows(good.at, SECOND)));
    assert_eq!(mapped(&c, Uaddr(A)), 4);
}

/// What a batch refuses is what a request alone refuses, also of one that goes on where another ended.
#[test]
fn neighbours_are_looked_at_too() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = setup(&rig);
    let before = request(G / PAGE - 4, 0, 2, Perm::READ);
    let next = MapRequest { bytes: 2 * PAGE, ..request(G / PAGE - 2, 2, 2, Perm::READ) };
    for bytes in [0, 1, 2, 5, PAGE - 1, PAGE + 1, PAGE + 2, 2 * PAGE + 1, 3 * PAGE, 4 * PAGE, G] {
        let bad = MapRequest { bytes, ..next };
        let alone = c.map(bad.at, bad.memory, bytes, bad.perm, Mode::Refuse).unwrap_err();
        assert_eq!(c.map_batch(&[before, bad], Mode::Refuse), Err(alone), "{bytes:#x}");
        let alone = c.unmap(bad.at, bytes).unwrap_err();
        let of = |r: MapRequest| UnmapRequest { at: r.at, bytes: r.bytes };
        assert_eq!(c.unmap_batch(&[of(before), of(bad)]), Err(alone), "{bytes:#x}");
    }
    assert_eq!(mapped(&c, Uaddr(A)), 0);
    assert_eq!(c.map_batch(&[before, next], Mode::Refuse).unwrap().tces, 4);
}

/// A kernel gets a request for each joined range of a region, and is asked to clear as few.
#[test]
fn a_kernel_is_asked_for_ranges() {
    let engine = on_a_kernel();
    let c = engine.container();
    c.attach(G0).unwrap();
    c.register(Uaddr(A), MEMORY).unwrap();
    c.create_window(WindowSpec::new(64 * M, PageShift::K4)).unwrap();
    let pages =
        |first: u64, from: u64, perm| (0..4).map(move |i| request(first + i, from + i, 1, perm));
    let mut all: Vec<_> = pages(16, 32, Perm::READ)
        .chain(pages(20, 36, Perm::READ)) // goes on
        .chain(pages(24, 50, Perm::READ)) // other memory
        .chain(pages(28, 54, Perm::READ_WRITE)) // another permission
        .chain(pages(35, 58, Perm::READ_WRITE)) // elsewhere on the bus
        .collect();
    // What is between the ranges of a batch is not asked to be cleared, as short as it may be.
    c.map_batch(&[request(33, 0, 1, Perm::READ)], Mode::Refuse).unwrap();
    for _ in 0..2 {
        assert_eq!(c.map_batch(&all, Mode::Refuse).unwrap().ioctls, 4);
        let gone: Vec<_> = all.iter().map(|r| UnmapRequest { at: r.at, bytes: r.bytes }).collect();
        let done = c.unmap_batch(&gone).unwrap();
        assert_eq!((done.released, done.ioctls), (20, 2));
        all.reverse();
    }
    c.close();
    assert_eq!(engine.ledger().pages(), 0);
}

/// Batches whose parts share leaves and locks with those of others, from both ends.
#[test]
fn threads_with_interleaved_batches() {
    let rig = Rig::new(MockBuilder::new(2));
    let c = setup(&rig);
    let start = Barrier::new(2);
    let work = |odd: u64| {
        start.wait();
        for round in 0..200 {
            let mut batch: Vec<_> = (0..64)
                .map(|i| request((2 * i + odd) * 300 + round, i + odd * 500, 1, Perm::READ))
                .collect();
            if odd == 1 {
                batch.reverse();
            }
            c.map_batch(&batch, Mode::Refuse).unwrap();
            for r in &batch {
                let there = reach(&rig.mock, 1, r.at).map(|to| to.0);
                assert_eq!(there, Some(r.memory.0));
            }
            let batch: Vec<_> =
                batch.iter().map(|r| UnmapRequest { at: r.at, bytes: r.bytes }).collect();
            assert_eq!(c.unmap_batch(&batch).unwrap().released, 64);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(0));
        scope.spawn(|| work(1));
    });
    assert_eq!(mapped(&c, Uaddr(A)), 0);
}
