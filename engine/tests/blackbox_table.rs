// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Black-box cases C1–C7: the table tree, named after their ids. What a table holds is read back
//! through the table itself and through the PHB's walker, which shares no code with it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};

use crate::common::*;
use proptest::prelude::*;
use tce_engine::addr::{Gra, Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::mock::{Fault, Mock, MockBuilder};
use tce_engine::backend::{Backend, Memory, WindowProgram};
use tce_engine::container::Mode;
use tce_engine::error::TableError;
use tce_engine::geometry::{Geometry, WindowSpec};
use tce_engine::simd::Tier;
use tce_engine::table::TceTable;
use tce_engine::tce::{Perm, Tce};

fn geometry(host: PageShift, size: u64, shift: u32, levels: u32) -> Geometry {
    let spec = WindowSpec::new(size, page(shift)).levels(levels);
    Geometry::new(spec, host, u64::MAX).unwrap()
}

fn put_one(table: &TceTable, index: u64, tce: Tce) {
    table.prepare(index, 1).unwrap().put(&[tce.to_be_word()], false);
}

fn entry(n: u64) -> Tce {
    Tce::new((n + 1) << 16, Perm::READ_WRITE)
}

/// A table alone on a mock of its own.
struct Bench {
    mock: Arc<Mock>,
    faulty: Arc<FaultyBackend>,
    table: Option<TceTable>,
}

impl Bench {
    fn new(geometry: Geometry, tier: &'static Tier) -> Self {
        let mock = MockBuilder::new(1).build();
        let faulty = Arc::new(FaultyBackend::new(mock.clone()));
        let table = TceTable::new(geometry, faulty.clone(), tier).unwrap();
        Self { mock, faulty, table: Some(table) }
    }

    fn plain(geometry: Geometry) -> Self {
        Self::new(geometry, Tier::best())
    }

    fn table(&self) -> &TceTable {
        self.table.as_ref().unwrap()
    }

    fn blocks(&self) -> u64 {
        let usage = self.table().usage();
        assert_eq!(usage.used_bytes, usage.blocks * self.table().geometry().block_bytes());
        usage.blocks
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.table.take());
        if !std::thread::panicking() {
            assert_eq!(self.mock.leftovers(), (0, 0, 0));
        }
    }
}

#[test]
fn c1_first_and_last_entry_of_a_full_tree_make_five_blocks() {
    let g = geometry(PageShift::K4, 64 * T, 16, 3);
    assert_eq!((g.level_entries(), g.entries()), (1024, 1 << 30), "the tree is exactly full");
    let bench = Bench::plain(g);
    let table = bench.table();
    assert_eq!(bench.blocks(), 1);
    put_one(table, 0, entry(1));
    assert_eq!(bench.blocks(), 3);
    put_one(table, g.entries() - 1, entry(2));
    assert_eq!(bench.blocks(), 1 + 2 * 2);
    assert_eq!(table.get(0), Ok(entry(1)));
    assert_eq!(table.get(g.entries() - 1), Ok(entry(2)));
    assert_eq!(table.live(), 2);
    let beyond = TableError::OutOfTable { first: 1 << 30, count: 1, entries: 1 << 30 };
    assert_eq!(table.get(1 << 30), Err(beyond));
    assert!(table.prepare((1 << 30) - 1, 2).is_err() && table.prepare(u64::MAX, 2).is_err());
    assert!(table.clear(1, u64::MAX, |_| ()).is_err());
}

#[test]
fn c2_reads_and_clears_make_no_block() {
    let g = geometry(PageShift::K4, 64 * T, 16, 3);
    let bench = Bench::plain(g);
    let table = bench.table();
    for index in [0, 1, 1023, 1024, 1 << 20, (1 << 30) - 1] {
        assert_eq!(table.get(index), Ok(Tce::EMPTY));
        assert_eq!(table.write_only(index), Ok(false));
    }
    let steps = table.clear(0, g.entries(), |_| panic!("nothing is live")).unwrap();
    assert!(steps <= g.level_entries(), "an absent subtree is one step: {steps}");
    table.for_each_live(0, g.entries(), |_, _| panic!("nothing is live")).unwrap();
    assert_eq!((table.live(), bench.blocks()), (0, 1));
}

#[test]
fn c3_clear_from_the_middle_of_an_absent_leaf_meets_the_next() {
    for (host, levels) in [(PageShift::K64, 2), (PageShift::K64, 3), (PageShift::K4, 3)] {
        let g = geometry(host, 8 * G, 12, levels);
        let leaf = g.level_entries();
        let bench = Bench::plain(g);
        let table = bench.table();
        // Live: the first slot of block 5 and the last one before the range and behind it.
        put_one(table, 5 * leaf, entry(5));
        put_one(table, 7 * leaf + 9, entry(7));
        let (first, count) = (4 * leaf + leaf / 2, 2 * leaf + leaf / 2 + 9);
        let mut gone = Vec::new();
        let steps = table.clear(first, count, |old| gone.extend(old.entries())).unwrap();
        assert_eq!(gone, [(5 * leaf, entry(5))]);
        assert_eq!(table.get(5 * leaf), Ok(Tce::EMPTY));
        assert_eq!(table.get(7 * leaf + 9), Ok(entry(7)), "behind the range");
        assert_eq!(steps, 4, "two absent leaves and two that are there");
        assert_eq!(table.live(), 1);
    }
}

#[test]
fn c4_clearing_a_sparse_1t_window_costs_what_is_there() {
    let g = geometry(PageShift::K64, T, 16, 2);
    assert_eq!(g.entries(), 1 << 24);
    let bench = Bench::plain(g);
    let table = bench.table();
    put_one(table, 12_345_678, entry(0));
    assert_eq!(bench.blocks(), 2);
    let mut gone = 0;
    let steps = table.clear(0, g.entries(), |old| gone += old.summary.live).unwrap();
    assert_eq!(gone, 1);
    // At most one look at each slot of the root that the window uses, and one at the leaf.
    assert!(steps <= g.entries() / g.level_entries() + 1, "{steps} steps for 2 blocks");
    assert_eq!(table.live(), 0);
    assert_eq!(bench.blocks(), 2, "levels stay until the table dies");

    // With one level more an absent subtree of 512 x 512 entries is one step.
    let g = geometry(PageShift::K4, T, 16, 3);
    let bench = Bench::plain(g);
    put_one(bench.table(), 12_345_678, entry(0));
    let steps = bench.table().clear(0, g.entries(), |_| ()).unwrap();
    let root_slots = g.entries() / (512 * 512);
    assert_eq!(steps, root_slots - 1 + 512, "the root's other slots, the middle's slots");
}

#[test]
fn issue_item_4_1t_window_with_one_page_is_two_blocks() {
    let rig = Rig::new(MockBuilder::new(1));
    let c = rig.container(&[G0]);
    c.create_window(WindowSpec::new(T, PageShift::K64).levels(2)).unwrap();
    c.register(Uaddr(G), 64 * K).unwrap();
    let before = c.table_use()[0];
    assert_eq!((before.blocks, before.used_bytes), (1, 64 * K));
    c.map(Ioba(700 * G), Uaddr(G), 64 * K, Perm::READ_WRITE, Mode::Refuse).unwrap();
    let usage = c.table_use();
    assert_eq!(usage.len(), 1);
    assert_eq!((usage[0].blocks, usage[0].used_bytes), (2, 128 * K));
    assert!(usage[0].mapped_bytes >= usage[0].used_bytes, "the reserve is reported apart");
    assert!(usage[0].mapped_bytes <= 2 * M, "one huge page is enough: {:?}", usage[0]);
    let chunks: u64 = c.table_memory().iter().map(|chunk| chunk.bytes() as u64).sum();
    assert_eq!(chunks, usage[0].mapped_bytes);
    assert!(usage[0].pages.is_some());
    let receipt = c.unmap(Ioba(0), T).unwrap();
    assert_eq!((receipt.released, receipt.tces), (1, 1));
    assert!(receipt.steps <= 2048 + 1, "{} steps, not 16 M", receipt.steps);
    assert_eq!((receipt.kills.asked, receipt.kills.issued), (1, 1));
    assert_eq!(reach(&rig.mock, 0, Ioba(700 * G)), None);
    assert_eq!(c.table_use()[0].blocks, 2);
    assert_eq!(rig.pages(), 4098 + 1, "the complete tree is charged");
}

/// Two threads write different entries of the same absent leaf, `rounds` times.
fn race_for_a_leaf(g: Geometry, rounds: u64, blocks: u64) {
    let barrier = Barrier::new(2);
    for round in 0..rounds {
        let bench = Bench::plain(g);
        let table = bench.table();
        let indices = [round % 8, 100 + round % 8];
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads = indices.map(|index| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let mut writer = table.prepare(index, 1)?;
                    writer.put(&[entry(index).to_be_word()], false);
                    Ok::<_, TableError>(())
                })
            });
            threads.map(|t| t.join().unwrap()).into()
        });
        assert_eq!(results, [Ok(()), Ok(())], "round {round}");
        assert_eq!(bench.blocks(), blocks, "round {round}: the loser's blocks are free again");
        for index in indices {
            assert_eq!(table.get(index), Ok(entry(index)), "round {round}");
        }
        assert_eq!(table.live(), 2);
    }
}

#[test]
fn c5_two_threads_make_one_leaf() {
    race_for_a_leaf(geometry(PageShift::K64, 2 * G, 12, 2), 1000, 2);
    race_for_a_leaf(geometry(PageShift::K4, 2 * G, 12, 3), 1000, 3);
}

#[test]
fn c5_two_threads_make_the_last_leaf_of_a_small_tree() {
    // The complete tree is a root and one leaf: the loser finds nothing left to take.
    race_for_a_leaf(geometry(PageShift::K64, 16 * M, 12, 2), 1000, 2);
    race_for_a_leaf(geometry(PageShift::K4, M, 12, 3), 1000, 3);
}

#[test]
fn c6_no_memory_for_the_second_level() {
    // Levels of one huge page, so that a chunk of table memory is one block.
    let g = geometry(PageShift::M2, 8 * G, 12, 2);
    assert_eq!((g.block_bytes(), g.blocks()), (2 * M, 1 + 8));
    let bench = Bench::plain(g);
    let table = bench.table();
    let before = table.usage();
    for index in [0, 5 << 18] {
        bench.faulty.allow_chunks(0);
        let failed = table.prepare(index, 1).map(|_| ()).unwrap_err();
        assert!(matches!(failed, TableError::NoMemory(_)), "{failed}");
        assert_eq!(table.usage(), before, "counters as before");
        assert_eq!((table.get(index), table.live()), (Ok(Tce::EMPTY), 0));
        table.for_each_live(0, g.entries(), |_, _| panic!("nothing is live")).unwrap();
        // The root has no entry at all.
        let root = table.chunks().next().unwrap();
        assert!(root.slots().iter().all(|s| s.load(Ordering::Relaxed) == 0));
    }
    // A range of which only a part can be had gets none of it.
    bench.faulty.allow_chunks(2);
    assert!(table.prepare(0, 3 << 18).is_err());
    assert_eq!(bench.blocks(), 1);
    let root = table.chunks().next().unwrap();
    assert!(root.slots().iter().all(|s| s.load(Ordering::Relaxed) == 0), "nothing published");
    // With memory again it works, and nothing was lost.
    bench.faulty.allow_chunks(i64::MAX);
    table.prepare(0, g.entries()).unwrap().stuff(entry(3));
    assert_eq!((bench.blocks(), table.live()), (9, g.entries()));
}

#[test]
fn c6_no_memory_in_the_middle_of_three_levels() {
    // 32 blocks a chunk: a range of 40 leaves needs a second chunk.
    let g = geometry(PageShift::K64, 2 * G, 12, 3);
    let bench = Bench::plain(g);
    let table = bench.table();
    bench.faulty.allow_chunks(0);
    assert!(table.prepare(0, 40 << 13).is_err());
    assert_eq!(bench.blocks(), 1);
    let slots = table.chunks().flat_map(|c| c.slots());
    assert!(slots.map(|s| s.load(Ordering::Relaxed)).all(|w| w == 0), "no half of a path");
    table.prepare(0, 1).unwrap().stuff(entry(0));
    assert_eq!(bench.blocks(), 3, "what the chunk at hand holds can be had");
}

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u64>, bool),
    Exchange(Vec<u64>),
    Stuff(u64, u64),
    Fill(u64, u64),
    Clear(u64),
}

/// Entry values: live with each permission, 0, and poison.
fn value() -> impl Strategy<Value = u64> {
    (0u64..1 << 34, 0u64..4, 0u32..8).prop_map(|(page, control, kind)| match kind {
        0 => 0,
        1 => (page << 12 | 0xff0) & !3,
        _ => page << 12 | control,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let list = || prop::collection::vec(value(), 1..600);
    prop_oneof![
        (list(), any::<bool>()).prop_map(|(v, w)| Op::Put(v, w)),
        list().prop_map(Op::Exchange),
        (1u64..3000, value()).prop_map(|(n, v)| Op::Stuff(n, v)),
        (1u64..3000, 0u64..1 << 33).prop_map(|(n, first)| Op::Fill(n, first)),
        prop_oneof![1u64..3000, 1u64..1 << 20].prop_map(Op::Clear),
    ]
}

/// A place near a border between two leaves, or anywhere.
fn place() -> impl Strategy<Value = (u64, i64)> {
    (0u64..1 << 20, prop_oneof![-40i64..40, -3000i64..3000])
}

fn is_live(value: u64) -> bool {
    value & 3 != 0
}

/// Runs the operations on a table and on a flat vector, then compares everything.
fn check_against_flat_vector(g: Geometry, tier: &'static Tier, ops: &[((u64, i64), Op)]) {
    let bench = Bench::new(g, tier);
    let table = bench.table();
    let entries = g.entries();
    let mut model = vec![0u64; entries as usize];
    let mut write_only = BTreeMap::new();
    for ((leaf, offset), op) in ops {
        let border = (leaf * g.level_entries().min(8192)) % entries;
        let first = border.saturating_add_signed(*offset) % entries;
        let room = entries - first;
        let wanted = match op {
            Op::Put(words, _) | Op::Exchange(words) => words.len() as u64,
            Op::Stuff(n, _) | Op::Fill(n, _) | Op::Clear(n) => *n,
        };
        let count = wanted.min(room);
        let range = first as usize..(first + count) as usize;
        let before: Vec<_> = (first..)
            .zip(model[range.clone()].iter().copied())
            .filter(|(_, v)| is_live(*v))
            .map(|(i, v)| (i, Tce::from_value(v)))
            .collect();
        let words = |list: &[u64]| -> Vec<u64> {
            list[..count as usize].iter().map(|v| Tce::from_value(*v).to_be_word()).collect()
        };
        let mut old = Vec::new();
        if let Op::Clear(_) = op {
            let gone = |o: &tce_engine::table::Old<'_>| old.extend(o.entries());
            table.clear(first, count, gone).unwrap();
            model[range.clone()].fill(0);
        } else {
            let mut writer = table.prepare(first, count).unwrap();
            assert_eq!(writer.live(), before.len() as u64);
            writer.old(|o| old.extend(o.entries()));
            match op {
                Op::Put(list, wo) => {
                    writer.put(&words(list), *wo);
                    model[range.clone()].copy_from_slice(&list[..count as usize]);
                }
                Op::Exchange(list) => {
                    let mut was = vec![1; count as usize];
                    writer.exchange(&words(list), &mut was);
                    let was: Vec<_> = was.iter().map(|w| Tce::from_be_word(*w).value()).collect();
                    assert_eq!(was, model[range.clone()]);
                    model[range.clone()].copy_from_slice(&list[..count as usize]);
                }
                Op::Stuff(_, value) => {
                    writer.stuff(Tce::from_value(*value));
                    model[range.clone()].fill(*value);
                }
                Op::Fill(_, page) => {
                    let nth = |i: u64| Tce::new((page + (i - first)) << 12, Perm::READ_WRITE);
                    writer.fill(nth(first), 1 << 12);
                    (first..first + count).for_each(|i| model[i as usize] = nth(i).value());
                }
                Op::Clear(_) => {}
            }
        }
        assert_eq!(old, before, "what goes is what was there: {op:?}");
        let remember = matches!(op, Op::Put(_, true));
        for i in [first, first + count / 2, first + count - 1] {
            write_only.insert(i, remember && is_live(model[i as usize]));
        }
        write_only.retain(|i, _| {
            !(first..first + count).contains(i)
                || [first, first + count / 2, first + count - 1].contains(i)
        });
    }
    let live: Vec<_> = (0..).zip(&model).filter(|(_, v)| is_live(**v)).collect();
    assert_eq!(table.live(), live.len() as u64, "the kept counts are exact");
    let mut found = Vec::new();
    table.for_each_live(0, entries, |i, tce| found.push((i, tce.value()))).unwrap();
    assert!(found.iter().map(|(i, v)| (*i, v)).eq(live), "every live entry, in order");
    for (i, yes) in write_only {
        if is_live(model[i as usize]) {
            assert_eq!(table.write_only(i), Ok(yes), "entry {i}");
        }
    }
    walk_and_compare(&bench, &model);
}

/// The PHB's walker finds the same in every entry.
fn walk_and_compare(bench: &Bench, model: &[u64]) {
    let (mock, g) = (&bench.mock, bench.table().geometry());
    let everything = Memory::Guest { start: Gra(0), bytes: 1 << 46 };
    let layout = mock.pin(everything).unwrap();
    mock.take_ownership(G0).unwrap();
    let (levels, block_bytes, page) = (g.levels(), g.block_bytes(), g.page());
    let program = WindowProgram { root: bench.table().root(), levels, block_bytes, page };
    mock.set_window(G0, 0, &program).unwrap();
    for (i, value) in (0u64..).zip(model) {
        assert_eq!(bench.table().get(i), Ok(Tce::from_value(*value)), "entry {i}");
        let seen = match mock.probe(PeNumber(0), Ioba(i << page.get())) {
            Ok(t) => t.at.0 | t.perm.bits(),
            Err(Fault::Empty { value }) => value,
            Err(Fault::NoLevel { .. }) => 0,
            Err(other) => panic!("entry {i}: {other:?}"),
        };
        // Of a live entry the walker shows address and permission.
        let expected = if is_live(*value) { value & !0xffc } else { *value };
        assert_eq!(seen, expected, "entry {i} through the PHB");
    }
    mock.unset_window(G0, 0);
    mock.release_ownership(G0);
    mock.unpin(everything, &layout);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn c7_random_operations_equal_a_flat_vector(
        ops in prop::collection::vec((place(), op()), 1..24),
        host_64k: bool,
        levels in 1u32..=3,
    ) {
        // Enough entries for several leaves, and with three small levels for several middles.
        let (host, size) = if host_64k { (PageShift::K64, 256 * M) } else { (PageShift::K4, 2 * G) };
        for tier in Tier::all() {
            check_against_flat_vector(geometry(host, size, 12, levels), tier, &ops);
        }
    }
}
