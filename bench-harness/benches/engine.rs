// SPDX-License-Identifier: Apache-2.0 OR MIT
//! criterion: every loop of every tier over one leaf, and every path of the engine on the mock.

#[path = "common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Bencher, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tce_engine::internals::Accounts;
use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace, Magazine};
use tce_engine::kill::queue::Coalescer;
use tce_engine::mem::TableChunk;
use tce_engine::simd::Frames;
use tce_engine::{Hpa, Ioba, MapRequest, Mode, PageShift, Perm, Tce, Tier, Uaddr, UnmapRequest};

use common::peers::PAGES;
use common::profile::Pprof;
use common::rig::{BUFFER, Guest, LEAF, LIST, PAGE, Random, Rig, USUAL, WINDOW, lists};

const RW: Perm = Perm::READ_WRITE;

/// Times `work` alone; `ready` goes before each turn.
fn after(b: &mut Bencher<'_>, mut ready: impl FnMut(), mut work: impl FnMut()) {
    b.iter_custom(|turns| {
        let mut sum = Duration::ZERO;
        for _ in 0..turns {
            ready();
            let at = Instant::now();
            work();
            sum += at.elapsed();
        }
        sum
    });
}

fn loops(c: &mut Criterion) {
    let chunk = TableChunk::new(2 << 20).expect("2 MiB of memory");
    let slots = &chunk.slots()[..LEAF];
    let words: Vec<_> = lists(PAGES).into_iter().flatten().take(LEAF).collect();
    let values: Vec<_> = words.iter().map(|word| u64::from_be(*word)).collect();
    let mut old = vec![0; LEAF];
    let first = Tce::new(1 << 30, RW);
    let mut group = c.benchmark_group("leaf");
    group.throughput(Throughput::Elements(LEAF as u64));
    for tier in Tier::all() {
        let id = |what| BenchmarkId::new(what, tier.name());
        group.bench_function(id("fill"), |b| b.iter(|| tier.fill(black_box(slots), first, PAGE)));
        group.bench_function(id("fill_empty"), |b| {
            let fill = || assert!(tier.fill_empty(black_box(slots), first, PAGE));
            after(b, || tier.clear(slots), fill);
        });
        let at: Vec<_> = (1..=LEAF as u64 / 16).map(|n| Hpa((n * 7919 % 4096) << 16)).collect();
        let frames = Frames { at: &at, each: 16, perm: RW, step: PAGE };
        group.bench_function(id("fill_frames, 64 KiB"), |b| {
            b.iter(|| tier.fill_frames(black_box(slots), &frames));
        });
        group.bench_function(id("store"), |b| b.iter(|| tier.store(black_box(slots), first)));
        group.bench_function(id("put"), |b| b.iter(|| tier.put(black_box(slots), &words)));
        group.bench_function(id("list"), |b| b.iter(|| tier.list(black_box(slots), &values)));
        group.bench_function(id("exchange"), |b| {
            b.iter(|| tier.exchange(black_box(slots), &words, &mut old));
        });
        group.bench_function(id("replace"), |b| b.iter(|| tier.replace(black_box(slots), &words)));
        group.bench_function(id("take"), |b| {
            after(b, || tier.put(slots, &words), || _ = black_box(tier.take(slots)));
        });
        group.bench_function(id("clear"), |b| b.iter(|| tier.clear(black_box(slots))));
        group.bench_function(id("clear_streaming"), |b| {
            b.iter(|| {
                tier.clear_streaming(black_box(slots));
                tier.drain();
            });
        });
        group.bench_function(id("any_live, none"), |b| b.iter(|| tier.any_live(black_box(slots))));
        tier.put(slots, &words);
        group.bench_function(id("scan"), |b| b.iter(|| tier.scan(black_box(slots))));
        group.bench_function(id("survey"), |b| b.iter(|| tier.survey(black_box(&words))));
    }
    group.finish();
}

fn bulk(c: &mut Criterion) {
    let mut rig = Rig::with_buffer(WINDOW, 2 * WINDOW, USUAL, Tier::best());
    let mut group = c.benchmark_group("2 GiB");
    group.throughput(Throughput::Elements(PAGES));
    group.bench_function("map + unmap", |b| {
        b.iter(|| {
            rig.map(0, PAGES, 0, Mode::Refuse);
            rig.unmap(0, PAGES);
        });
    });
    rig.map(0, PAGES, 0, Mode::Refuse);
    let mut from = 0;
    group.bench_function("map that replaces", |b| {
        b.iter(|| {
            from = PAGES - from;
            rig.map(0, PAGES, from, Mode::Replace);
        });
    });
    rig.unmap(0, PAGES);
    let (leaf, leaves) = (LEAF as u64, PAGES / LEAF as u64);
    (0..leaves).for_each(|n| rig.map(n * leaf + leaf - 1, 1, 0, Mode::Refuse));
    group.bench_function("map beside live pages + unmap", |b| {
        b.iter(|| {
            for n in 0..leaves {
                rig.map(n * leaf, leaf - 1, n * leaf, Mode::Refuse);
                rig.unmap(n * leaf, leaf - 1);
            }
        });
    });
    group.finish();
}

/// 512 pages a call.
fn many(c: &mut Criterion) {
    let mut rig = Rig::new(WINDOW, USUAL, Tier::best());
    let memory = |n: u64| Uaddr(BUFFER.0 + n * PAGE);
    let scattered: Vec<_> = (0..LIST as u64).map(|n| memory(n * 7919 % PAGES)).collect();
    let at = |n: usize| Ioba(n as u64 * PAGE);
    let maps: Vec<_> = (0..LIST)
        .map(|n| MapRequest { at: at(n), memory: memory(n as u64), bytes: PAGE, perm: RW })
        .collect();
    let unmaps: Vec<_> = (0..LIST).map(|n| UnmapRequest { at: at(n), bytes: PAGE }).collect();
    let bytes = LIST as u64 * PAGE;
    let mut group = c.benchmark_group("512 pages");
    group.throughput(Throughput::Elements(LIST as u64));
    group.bench_function("list, map + unmap", |b| {
        b.iter(|| {
            rig.mapper.map_list(Ioba(0), &scattered, RW, Mode::Refuse).expect("empty");
            rig.mapper.unmap(Ioba(0), bytes).expect("inside")
        });
    });
    group.bench_function("batch, map + unmap", |b| {
        b.iter(|| {
            rig.mapper.map_batch(&maps, Mode::Refuse).expect("empty");
            rig.mapper.unmap_batch(&unmaps).expect("inside")
        });
    });
    group.finish();
}

fn single(c: &mut Criterion) {
    let mut rig = Rig::new(WINDOW, USUAL, Tier::best());
    let mut group = c.benchmark_group("one page");
    let (at, mode) = (Ioba(0x5000), Mode::Refuse);
    group.bench_function("container, map + unmap", |b| {
        b.iter(|| {
            rig.container.map(at, BUFFER, PAGE, RW, mode).expect("empty");
            rig.container.unmap(at, PAGE).expect("inside")
        });
    });
    group.bench_function("handle, address allocated, map + unmap", |b| {
        b.iter(|| {
            let at = rig.mapper.map_alloc(BUFFER, PAGE, RW).expect("there is room");
            rig.mapper.unmap_free(at, PAGE).expect("it is mapped");
        });
    });
    group.bench_function("handle, map + unmap", |b| {
        b.iter(|| {
            rig.mapper.map(at, BUFFER, PAGE, RW, mode).expect("empty");
            rig.mapper.unmap(at, PAGE).expect("inside")
        });
    });
    group.finish();
}

fn papr(c: &mut Criterion) {
    let mut guest = Guest::new(Tier::best());
    let lists = lists(Guest::RAM / PAGE);
    let mut group = c.benchmark_group("papr");
    group.bench_function("put + stuff", |b| {
        b.iter(|| {
            black_box(guest.vcpu.put_tce(Guest::LIOBN, 0x10000, 0x12_3003));
            guest.vcpu.stuff_tce(Guest::LIOBN, 0x10000, 0, 1)
        });
    });
    group.bench_function("get", |b| b.iter(|| guest.vcpu.get_tce(Guest::LIOBN, 0x10000)));
    group.throughput(Throughput::Elements(LIST as u64));
    group.bench_function("indirect 512 + stuff 512", |b| {
        let mut next = lists.iter().cycle();
        b.iter(|| {
            guest.put_list(16, next.next().expect("it has no end"));
            guest.vcpu.stuff_tce(Guest::LIOBN, 0x10000, 0, LIST as u64)
        });
    });
    group.bench_function("indirect 512 over live entries", |b| {
        let mut next = lists.iter().cycle();
        b.iter(|| guest.put_list(16, next.next().expect("it has no end")));
    });
    group.finish();
}

/// Bus addresses alone.
fn addresses(c: &mut Criterion) {
    let space = IobaSpace { start: Ioba(0), bytes: WINDOW, page: PageShift::K4 };
    let addresses = IobaAllocator::new(space, IobaOptions::default()).expect("a window's space");
    let mut magazine = Magazine::new(&addresses);
    let mut group = c.benchmark_group("addresses");
    group.bench_function("take + give one page", |b| {
        b.iter(|| {
            let at = magazine.take_page().expect("there is room");
            magazine.give_page(black_box(at));
        });
    });
    group.bench_function("take + give 16 pages", |b| {
        b.iter(|| {
            let at = magazine.take(16).expect("there is room");
            magazine.give(black_box(at), 16);
        });
    });
    group.finish();
}

/// Registered memory alone.
fn regions(c: &mut Criterion) {
    const REGIONS: u64 = 10_000;
    let start = |n: u64| Uaddr(BUFFER.0 + (n << 21));
    let mut accounts = Accounts::new((0..REGIONS).map(|n| (start(n), 1 << 20)));
    let mut random = Random::new(5);
    let anywhere: Vec<_> = (0..8192).map(|_| start(random.below(REGIONS))).collect();
    let mut group = c.benchmark_group("regions");
    group.bench_function("look-up, the same", |b| {
        b.iter(|| accounts.look_up(black_box(start(7))));
    });
    group.bench_function("look-up, one of 10,000", |b| {
        let mut next = anywhere.iter().cycle();
        b.iter(|| accounts.look_up(*next.next().expect("it has no end")));
    });
    group.bench_function("accounting of 256 pages", |b| {
        b.iter(|| accounts.range(black_box(start(7)), 1 << 20, PageShift::K4));
    });
    group.finish();
}

/// Ranges to be killed, pushed and merged.
fn kills(c: &mut Criterion) {
    let mut random = Random::new(7);
    let anywhere: Vec<_> = (0..4096).map(|_| random.below(PAGES)).collect();
    let in_order: Vec<_> = (0..4096).collect();
    let mut queue = Coalescer::new();
    let mut merge = |firsts: &[u64]| {
        firsts.iter().for_each(|first| queue.push(*first, 1, 1));
        let ranges = black_box(queue.coalesce().len());
        queue.clear();
        ranges
    };
    let mut group = c.benchmark_group("kills");
    for count in [1, 8, 64, 512, 4096] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("random", count), |b| {
            b.iter(|| merge(black_box(&anywhere[..count])));
        });
        group.bench_function(BenchmarkId::new("sequential", count), |b| {
            b.iter(|| merge(black_box(&in_order[..count])));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_profiler(Pprof::default());
    targets = loops, bulk, many, single, papr, addresses, regions, kills
}
criterion_main!(benches);
