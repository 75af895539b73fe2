// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo bench --features callgrind --bench callgrind`: instructions under valgrind, each with a hard
//! limit that fails the run. Needs valgrind and `gungraun-runner` of the version in Cargo.toml.
//!
//! valgrind knows no AVX-512: the tier is AVX2's everywhere. The work and what counts of it are
//! those of `--bench counters`.

#[path = "../common/mod.rs"]
mod common;

use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint, EventKind};

use common::allocs::Counting;
use common::counted::Work;
use common::limit::reference;

#[global_allocator]
static COUNTING: Counting = Counting::new();

/// Instructions that a call may take: what it took when this was set, and 3 % more.
const fn call_budget(work: Work) -> u64 {
    match work {
        Work::MapOne => 93,
        Work::UnmapOne => 73,
        Work::PutTce => 121,
        Work::StuffTce => 94,
        Work::PutList => 3_890,
        Work::BulkMap => 737_000,
        Work::BulkUnmap => 766_000,
        _ => 0,
    }
}

fn config(work: Work) -> LibraryBenchmarkConfig {
    let units = work.units() as f64;
    let each = work.instruction_budget().unwrap_or(call_budget(work) as f64);
    let limit = (each * units) as u64;
    let mut callgrind = Callgrind::default();
    callgrind
        .entry_point(EntryPoint::Custom("*::counted_stretch".to_string()))
        .hard_limits([(EventKind::Ir, limit)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// What is counted: callgrind collects from here until this returns.
#[inline(never)]
fn counted_stretch(work: &mut dyn FnMut()) {
    work();
}

#[library_benchmark]
#[bench::fill(args = (Work::Fill), config = config(Work::Fill))]
#[bench::checked_fill(args = (Work::CheckedFill), config = config(Work::CheckedFill))]
#[bench::list(args = (Work::List), config = config(Work::List))]
#[bench::exchange(args = (Work::Exchange), config = config(Work::Exchange))]
fn leaf(work: Work) {
    work.run(reference(), &mut counted_stretch);
}

#[library_benchmark]
#[bench::map_one(args = (Work::MapOne), config = config(Work::MapOne))]
#[bench::unmap_one(args = (Work::UnmapOne), config = config(Work::UnmapOne))]
#[bench::put_tce(args = (Work::PutTce), config = config(Work::PutTce))]
#[bench::stuff_tce(args = (Work::StuffTce), config = config(Work::StuffTce))]
#[bench::put_list(args = (Work::PutList), config = config(Work::PutList))]
#[bench::bulk_map(args = (Work::BulkMap), config = config(Work::BulkMap))]
#[bench::bulk_unmap(args = (Work::BulkUnmap), config = config(Work::BulkUnmap))]
fn call(work: Work) {
    work.run(reference(), &mut counted_stretch);
}

library_benchmark_group!(name = instructions, benchmarks = [leaf, call]);
main!(library_benchmark_groups = instructions);
