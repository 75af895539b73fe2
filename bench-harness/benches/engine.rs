// SPDX-License-Identifier: Apache-2.0 OR MIT
//! criterion: the tiers' loops over one leaf, and the public calls on the mock.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tce_engine::mem::TableChunk;
use tce_engine::{
    Container, Engine, EngineOptions, Gra, GroupId, Ioba, LIST_MAX, Liobn, MockBuilder, Mode,
    PageShift, Papr, Perm, PhbSpec, Tce, Tier, Uaddr, WindowSpec,
};

const LEAF: usize = 8192;
const BUFFER: Uaddr = Uaddr(0x7000_0000_0000);

fn tiers(c: &mut Criterion) {
    let chunk = TableChunk::new(2 << 20).expect("2 MiB of memory");
    let slots = &chunk.slots()[..LEAF];
    let words: Vec<_> = (0..LEAF as u64).map(|i| (i << 12 | 3).to_be()).collect();
    let mut old = vec![0; LEAF];
    let mut group = c.benchmark_group("leaf");
    group.throughput(Throughput::Elements(LEAF as u64));
    for tier in Tier::all() {
        let name = |what: &str| format!("{what}/{}", tier.name());
        let first = Tce::new(1 << 30, Perm::READ_WRITE);
        group.bench_function(name("fill"), |b| {
            b.iter(|| tier.fill(black_box(slots), first, 4096));
        });
        group.bench_function(name("store"), |b| b.iter(|| tier.store(black_box(slots), first)));
        group.bench_function(name("put"), |b| b.iter(|| tier.put(black_box(slots), &words)));
        group.bench_function(name("exchange"), |b| {
            b.iter(|| tier.exchange(black_box(slots), &words, &mut old));
        });
        group.bench_function(name("scan"), |b| b.iter(|| tier.scan(black_box(slots))));
    }
    group.finish();
}

fn container(engine: &Engine, window: u64) -> Container {
    let container = engine.container();
    container.attach(GroupId(0)).expect("the mock has a group");
    container.register(BUFFER, window).expect("no limit");
    let spec = WindowSpec::new(window, PageShift::K4).levels(2);
    container.create_window(spec).expect("a plain window");
    container
}

fn calls(c: &mut Criterion) {
    let engine = Engine::new(MockBuilder::new(1).build(), EngineOptions::default());
    let window = 2 << 30;
    let container = container(&engine, window);
    let (rw, mode) = (Perm::READ_WRITE, Mode::Refuse);
    let mut group = c.benchmark_group("mock");
    group.throughput(Throughput::Elements(window >> 12));
    group.bench_function("bulk map + unmap 2G", |b| {
        b.iter(|| {
            container.map(Ioba(0), BUFFER, window, rw, mode).expect("empty");
            container.unmap(Ioba(0), window).expect("inside")
        });
    });
    let page = |i: u64| Uaddr(BUFFER.0 + ((i * 7919 % (window >> 12)) << 12));
    let list: Vec<_> = (0..LIST_MAX as u64).map(page).collect();
    group.throughput(Throughput::Elements(LIST_MAX as u64));
    group.bench_function("list of 512, map + unmap", |b| {
        b.iter(|| {
            container.map_list(Ioba(0), &list, rw, mode).expect("empty");
            container.unmap(Ioba(0), (LIST_MAX as u64) << 12).expect("inside")
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("one page, map + unmap", |b| {
        b.iter(|| {
            container.map(Ioba(0x5000), BUFFER, 4096, rw, mode).expect("empty");
            container.unmap(Ioba(0x5000), 4096).expect("inside")
        });
    });
    group.finish();
}

struct List(Vec<u64>);

impl tce_engine::GuestMemory for List {
    fn copy_words(&self, _: Gra, words: &mut [u64]) -> bool {
        words.copy_from_slice(&self.0[..words.len()]);
        true
    }
}

fn papr(c: &mut Criterion) {
    let engine = Engine::new(MockBuilder::new(1).build(), EngineOptions::default());
    let papr = Papr::new(2 << 30);
    let liobn = 0x8000_0000;
    let spec = PhbSpec {
        buid: 1,
        group: GroupId(0),
        liobn: Liobn(liobn as u32),
        window: WindowSpec::new(1 << 30, PageShift::K4),
    };
    papr.add_phb(&engine, spec).expect("a plain PHB");
    let list = List((0..512u64).map(|i| ((i * 7919 % (1 << 19)) << 12 | 3).to_be()).collect());
    let mut group = c.benchmark_group("papr");
    group.throughput(Throughput::Elements(1));
    group.bench_function("put + stuff", |b| {
        b.iter(|| {
            black_box(papr.put_tce(liobn, 0x10000, 0x12_3003));
            papr.stuff_tce(liobn, 0x10000, 0, 1)
        });
    });
    group.throughput(Throughput::Elements(512));
    group.bench_function("indirect 512 + stuff 512", |b| {
        b.iter(|| {
            black_box(papr.put_tce_indirect(liobn, 0x10000, 0x4000, 512, &list));
            papr.stuff_tce(liobn, 0x10000, 0, 512)
        });
    });
    group.finish();
}

criterion_group!(benches, tiers, calls, papr);
criterion_main!(benches);
