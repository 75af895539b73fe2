// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A whole window of 2 GiB in pages of 4 KiB, mapped and unmapped at once.
//!
//! A map finds its table where the last unmap left it, with other memory touched since; an unmap
//! finds its table just written. The limit of each is taken the same way: the loop runs over its
//! memory twice in a row, and the first turn is the limit of a map, the second that of an unmap.

use tce_engine::mem::TableChunk;
use tce_engine::{Ioba, MapError, Mode, PageShift, Perm, Tce};

use crate::Setup;
use crate::common::limit::Limit;
use crate::common::peers::{self, Kind, LOCKED_WALK, PAGES};
use crate::common::rig::{BUFFER, Backing, LEAF, LIST, PAGE, Rig, USUAL, WINDOW, lists};
use crate::common::samples::Samples;
use crate::line::{Bar, Line, Unit};

/// Entries of which the table knows together whether one may be live.
const TILE: usize = 1024;

/// `op`'s share of `limit`, which did the same amount of work in the same run.
pub(crate) fn share(samples: &Samples, what: &str, bar: Bar, op: &str, limit: &str) -> Line {
    let value = 100.0 * samples.min(limit) / samples.min(op);
    let times = |name: &str| {
        format!("{name} {:.3} (median {:.3})", samples.min(name), samples.median(name))
    };
    Line::new(what, bar, Unit::Percent, value).note(format!(
        "ns a TCE: {}, {}",
        times(op),
        times(limit)
    ))
}

fn limits(samples: &mut Samples, limit: &Limit) {
    samples.time("store", PAGES, || limit.store());
    samples.time("store again", PAGES, || limit.store());
}

fn map_and_unmap(samples: &mut Samples, rig: &mut Rig) {
    samples.time("map", PAGES, || rig.map(0, PAGES, 0, Mode::Refuse));
    samples.time("unmap", PAGES, || rig.unmap(0, PAGES));
}

/// Memory in pages of 2 MiB.
pub(crate) fn scattered(setup: &Setup) -> Vec<Line> {
    let mut rig = Rig::new(WINDOW, USUAL, setup.tier);
    let mut limit = Limit::new(PAGES as usize);
    let samples = setup.repeat(|samples, _| {
        samples.time("memset", PAGES, || limit.memset());
        limits(samples, &limit);
        map_and_unmap(samples, &mut rig);
    });
    vec![
        share(&samples, "bulk map, 2M backing", Bar::AtLeast(90.0), "map", "store"),
        share(&samples, "unmap of a bulk mapping", Bar::AtLeast(85.0), "unmap", "store again"),
        share(&samples, "libc's memset, against the store limit", Bar::None, "memset", "store"),
    ]
}

/// The engine beside its peers, over 2 GiB, which the bars are for, and over 256 MiB, whose table of
/// 512 KiB the second level of most caches holds: there the stores themselves cost less.
pub(crate) fn against_peers(setup: &Setup) -> Vec<Line> {
    let bars = |walk, best| [Bar::AtLeast(walk), Bar::AtLeast(best)];
    let mut lines = beside_peers(setup, PAGES, "2 GiB", bars(25.0, 15.0));
    lines.extend(beside_peers(setup, PAGES / 8, "256 MiB", [Bar::None; 2]));
    lines
}

/// Each has some rounds in a row and maps what it has just unmapped, so that its minimum is that of a
/// table as near as it can be, whoever was at work before.
fn beside_peers(setup: &Setup, pages: u64, size: &str, [walk, crates]: [Bar; 2]) -> Vec<Line> {
    const ROUNDS: usize = 3;
    let mut rig = Rig::new(WINDOW, USUAL, setup.tier);
    let limit = Limit::new(pages as usize);
    let mut peers = peers::all();
    peers.retain(|peer| peer.kind() == Kind::Crate || peer.name() == LOCKED_WALK);
    peers.iter_mut().for_each(|peer| peer.map_many(pages));
    rig.map(0, pages, 0, Mode::Refuse);
    let samples = setup.repeat(|samples, _| {
        for peer in &mut peers {
            for _ in 0..ROUNDS {
                peer.unmap_many(pages);
                samples.time(peer.name(), pages, || peer.map_many(pages));
            }
        }
        for _ in 0..ROUNDS {
            limit.store();
            samples.time("store", pages, || limit.store());
        }
        for _ in 0..ROUNDS {
            rig.unmap(0, pages);
            samples.time("map", pages, || rig.map(0, pages, 0, Mode::Refuse));
        }
    });
    let line = |what: &str, bar, peer: &str| {
        let [map, store, by] = ["map", "store", peer].map(|name| samples.min(name));
        let note = format!(
            "ns a TCE: map {map:.3}, {peer} {by:.3}; the store limit {store:.3} is {:.2} x",
            by / store
        );
        let what = format!("bulk map of {size}, against {what}");
        Line::new(what, bar, Unit::Times, by / map).note(note)
    };
    let names = peers.iter().filter(|peer| peer.kind() == Kind::Crate).map(|peer| peer.name());
    let best = names.min_by(|a, b| samples.min(a).total_cmp(&samples.min(b)));
    std::iter::once(line("the inlined walk with locked exchange", walk, LOCKED_WALK))
        .chain(best.map(|best| line("the best peer crate", crates, best)))
        .collect()
}

/// Contiguous memory, and memory in pages of 64 KiB, whose runs are 16 entries long.
pub(crate) fn other_backing(setup: &Setup) -> Vec<Line> {
    let kinds = [
        ("bulk map, contiguous backing", 93.0, Backing::Contiguous),
        ("bulk map, 64K backing", 60.0, Backing::Pages(PageShift::K64)),
    ];
    kinds
        .map(|(what, bar, backing)| {
            let mut rig = Rig::new(WINDOW, backing, setup.tier);
            let limit = Limit::new(PAGES as usize);
            let samples = setup.repeat(|samples, _| {
                limits(samples, &limit);
                map_and_unmap(samples, &mut rig);
            });
            share(&samples, what, Bar::AtLeast(bar), "map", "store")
        })
        .into()
}

/// One live page in each segment, so that what lies beside it can be mapped only after a look. In the
/// first of two turns the table knows seven of eight tiles to be empty; before the second a page of
/// each was mapped and unmapped, and every entry is looked at.
pub(crate) fn overlap(setup: &Setup) -> Vec<Line> {
    let (leaf, leaves) = (LEAF as u64, PAGES / LEAF as u64);
    let units = PAGES - leaves;
    let mut rig = Rig::new(WINDOW, USUAL, setup.tier);
    for n in 0..leaves {
        rig.map(n * leaf + leaf - 1, 1, 0, Mode::Refuse);
    }
    let over = rig.mapper.map(Ioba(0), BUFFER, WINDOW, Perm::READ_WRITE, Mode::Refuse);
    assert!(matches!(over, Err(MapError::Overlap { .. })), "{over:?}");
    let limit = Limit::new(PAGES as usize);
    let chunk = TableChunk::new(8 * PAGES as usize).expect("memory for a table");
    let samples = setup.repeat(|samples, _| {
        for (marked, store, map) in [(false, "store", "map"), (true, "store again", "map marked")] {
            for at in (0..PAGES).step_by(TILE).filter(|_| marked) {
                rig.map(at, 1, 0, Mode::Refuse);
                rig.unmap(at, 1);
            }
            samples.time(store, units, || limit.store_but_one(LEAF));
            samples.time(map, units, || {
                for n in 0..leaves {
                    rig.map(n * leaf, leaf - 1, n * leaf, Mode::Refuse);
                }
            });
            for n in 0..leaves {
                rig.unmap(n * leaf, leaf - 1);
            }
        }
        setup.tier.clear(chunk.slots());
        samples.time("whole store", PAGES, || limit.store());
        samples.time("checked fill", PAGES, || {
            for (n, slots) in (0..).zip(chunk.slots().chunks(LEAF)) {
                let first = Tce::new((n + 1) << 25, Perm::READ_WRITE);
                assert!(setup.tier.fill_empty(slots, first, PAGE), "the leaf is empty");
            }
        });
    });
    vec![
        share(&samples, "map refusing overlap", Bar::AtLeast(80.0), "map", "store"),
        share(
            &samples,
            "map refusing overlap, every entry looked at",
            Bar::None,
            "map marked",
            "store again",
        ),
        share(
            &samples,
            "checked fill, the loop alone",
            Bar::AtLeast(80.0),
            "checked fill",
            "whole store",
        ),
    ]
}

/// Everything is live and gets other entries.
pub(crate) fn exchange(setup: &Setup) -> Vec<Line> {
    let mut rig = Rig::with_buffer(WINDOW, 2 * WINDOW, USUAL, setup.tier);
    rig.map(0, PAGES, 0, Mode::Refuse);
    let mut limit = Limit::new(PAGES as usize);
    let chunk = TableChunk::new(8 * PAGES as usize).expect("memory for a table");
    let (lists, mut old) = (lists(PAGES), [0; LIST]);
    let samples = setup.repeat(|samples, rep| {
        samples.time("memcpy", PAGES, || limit.memcpy());
        samples.time("copy", PAGES, || limit.copy());
        samples.time("map", PAGES, || {
            rig.map(0, PAGES, (rep as u64 + 1) % 2 * PAGES, Mode::Replace);
        });
        samples.time("exchange", PAGES, || {
            for (slots, list) in chunk.slots().chunks(LIST).zip(lists.iter().cycle()) {
                setup.tier.exchange(slots, list, &mut old);
            }
        });
    });
    let bar = Bar::AtLeast(85.0);
    vec![
        share(&samples, "exchange of live entries, map in replacing mode", bar, "map", "copy"),
        share(&samples, "exchange, the loop alone", bar, "exchange", "copy"),
        share(&samples, "libc's memcpy, against the copy limit", Bar::None, "memcpy", "copy"),
    ]
}
