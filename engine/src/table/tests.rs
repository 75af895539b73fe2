// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table as a whole: short enough for Miri. The long comparison with a model is in `tests/`.

use proptest::prelude::*;

use super::*;
use crate::addr::PageShift;
use crate::backend::testing::PlainMemory;
use crate::geometry::WindowSpec;
use crate::tce::Perm;
use segment::{SEGMENT_LG2, TILE_LG2};

#[test]
fn writers_and_clears_across_leaves() {
    let spec = WindowSpec::new(8 << 20, PageShift::K4).levels(2);
    let geometry = Geometry::new(spec, PageShift::K4, 1 << 20).unwrap();
    assert_eq!((geometry.entries(), geometry.level_entries()), (2048, 512));
    let memory = Arc::new(PlainMemory::default());
    let table = TceTable::new(geometry, memory.clone(), Tier::best()).unwrap();
    let nth = |i: u64| Tce::new((100 + i) << 12, Perm::READ_WRITE);
    table.prepare(500, 30).unwrap().fill(nth(500), 1 << 12);
    assert_eq!((table.live(), table.usage().blocks), (30, 3));
    assert_eq!(table.get(529).unwrap(), nth(529));

    let words: Vec<_> = (0..4).map(|i| nth(i).to_be_word()).collect();
    let mut old = [0; 4];
    let mut writer = table.prepare(510, 4).unwrap();
    assert_eq!((writer.live(), writer.parts()), (4, &[(510, 4)][..]));
    writer.exchange(&words, &mut old);
    drop(writer);
    assert_eq!(old.map(Tce::from_be_word), [510, 511, 512, 513].map(nth));

    let mut gone = 0;
    // The first and the last leaf are absent; 4 steps for the four leaves.
    let steps = table.clear(0, 2048, |old| gone += old.summary.live).unwrap();
    assert_eq!((gone, steps, table.live(), table.usage().blocks), (30, 4, 0, 3));
    assert!(table.prepare(2047, 2).is_err());
    drop(table);
    assert_eq!(memory.stretches(), 0);
}

/// What changes some entries, one way of each kind that there is.
#[derive(Clone, Debug)]
enum Change {
    Fill,
    Stuff {
        live: bool,
    },
    Exchange,
    Put,
    PutFor {
        look_at: bool,
    },
    Forget,
    Clear,
    Sweep,
    /// The first entry alone.
    Set {
        live: bool,
    },
    /// As far as the first segment goes: each entry that is empty is filled, or all are cleared.
    FillEach,
    ClearEach,
}

const ENTRIES: u64 = 2 << SEGMENT_LG2;

fn change() -> impl Strategy<Value = (Change, u64, u64)> {
    use Change::*;
    let live = any::<bool>;
    let change = prop_oneof![
        Just(Fill),
        live().prop_map(|live| Stuff { live }),
        Just(Exchange),
        Just(Put),
        live().prop_map(|look_at| PutFor { look_at }),
        Just(Forget),
        Just(Clear),
        Just(Sweep),
        live().prop_map(|live| Set { live }),
        Just(FillEach),
        Just(ClearEach),
    ];
    // About the ends of tiles and segments, and a few entries or many.
    let first = (0..16u64, 0..6u64).prop_map(|(tile, at)| (tile << TILE_LG2) + at);
    let first = first.prop_map(|at| at.saturating_sub(3));
    let count = prop_oneof![
        1..7u64,
        (1..14u64, 0..6u64).prop_map(|(tiles, more)| (tiles << TILE_LG2) + more - 3)
    ];
    (change, first, count)
        .prop_map(|(change, first, count)| (change, first, count.min(ENTRIES - first)))
}

/// Words of which some are empty.
fn words(seed: u64, count: u64) -> Vec<u64> {
    let live = |i: u64| !(i + seed).is_multiple_of(5);
    let word = |i| if live(i) { Tce::new((i + 1) << 12, Perm::READ) } else { Tce::EMPTY };
    (0..count).map(|i| word(i).to_be_word()).collect()
}

fn apply(table: &TceTable, change: &Change, first: u64, count: u64) {
    let tce = Tce::new(7 << 12, Perm::READ_WRITE);
    let prepare = || table.prepare(first, count).unwrap();
    let words = words(first, count);
    match *change {
        Change::Fill => prepare().fill(tce, 1 << 12),
        Change::Stuff { live } => prepare().stuff(if live { tce } else { Tce::EMPTY }),
        Change::Exchange => prepare().exchange(&words, &mut vec![0; count as usize]),
        Change::Put => prepare().put(&words, false),
        Change::PutFor { look_at } => {
            let live = words.iter().filter(|word| !Tce::from_be_word(**word).is_empty()).count();
            prepare().put_for(&words, live as u64, Some(1), look_at, |_| ());
        }
        Change::Forget => prepare().forget((first, count), |_| ()),
        Change::Clear => {
            table.clear(first, count, |_| ()).unwrap();
        }
        Change::Sweep => {
            table.hold(first, count).unwrap().sweep(|_| ());
        }
        Change::Set { live } => {
            let one = table.one(first, true, User::ANYONE).unwrap().unwrap();
            one.set(one.get(), if live { tce } else { Tce::EMPTY }, Some(2), false);
        }
        Change::FillEach | Change::ClearEach => {
            let end = (first + count).min(((first >> SEGMENT_LG2) + 1) << SEGMENT_LG2);
            for index in first..end {
                let one = table.one(index, true, User::ANYONE).unwrap().unwrap();
                let empty = one.get().is_empty();
                match change {
                    Change::FillEach if empty => one.fill(tce, 3, false),
                    Change::FillEach => {}
                    _ => one.clear(!empty),
                }
            }
        }
    }
}

/// The counts of every segment, and its tiles, beside what is in the table. Returns the number of
/// tiles that are taken to have live entries.
fn check_counts(table: &TceTable) -> usize {
    let live = |run: &Run<'_>| {
        let tces = run.slots.iter().map(|slot| Tce::from_be_word(slot.load(Ordering::Relaxed)));
        tces.filter(|tce| !tce.is_empty()).count() as u64
    };
    let mut marked = 0;
    for step in table.tree.walk(0, ENTRIES) {
        let Step::Run(run) = step else { continue };
        assert_eq!(run.segment.live(), live(&run));
        assert_eq!(run.tiles().map(|tile| live(&tile)).sum::<u64>(), live(&run));
        assert_eq!(run.may_be_live(), live(&run) > 0);
        for tile in run.tiles() {
            assert!(tile.may_be_live() || live(&tile) == 0, "entry {} is live", tile.first);
            marked += usize::from(tile.may_be_live());
        }
    }
    marked
}

fn two_segments() -> TceTable {
    let spec = WindowSpec::new(ENTRIES << 12, PageShift::K4).levels(1);
    let geometry = Geometry::new(spec, PageShift::K64, 1 << 20).unwrap();
    TceTable::new(geometry, Arc::new(PlainMemory::default()), Tier::best()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 200 }))]

    #[test]
    fn counts_and_tiles_are_those_of_the_entries(
        changes in prop::collection::vec(change(), 1..if cfg!(miri) { 4 } else { 40 })
    ) {
        let table = two_segments();
        for (change, first, count) in changes {
            let mut live = 0;
            table.for_each_live(first, count, |_, _| live += 1).unwrap();
            prop_assert_eq!(table.prepare(first, count).unwrap().live(), live);
            apply(&table, &change, first, count);
            check_counts(&table);
        }
    }
}

/// A tile that was cleared whole is not looked at again, whatever is left beside it.
#[test]
fn only_tiles_that_may_be_live_are_looked_at() {
    let (table, tce) = (two_segments(), Tce::new(7 << 12, Perm::READ_WRITE));
    table.prepare(0, ENTRIES).unwrap().stuff(tce);
    assert_eq!(check_counts(&table), 16);
    table.clear(0, ENTRIES - 1, |_| ()).unwrap();
    assert_eq!(check_counts(&table), 1);
    table.prepare(ENTRIES - (1 << TILE_LG2) - 1, 2).unwrap().stuff(tce);
    assert_eq!(check_counts(&table), 2);
    table.hold(5 << TILE_LG2, ENTRIES - (5 << TILE_LG2)).unwrap().sweep(|_| ());
    assert_eq!((check_counts(&table), table.live()), (0, 0));
}
