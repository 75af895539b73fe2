// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sampler of powerpc64le. There is one in a process, so there is one test.

use std::hint::black_box;
use std::io::Read;

use pprof::protos::{Message, Profile};

use super::{Sampler, backchain};

/// Three functions that need a frame, and one that needs none and takes all of the time.
#[inline(never)]
fn outer(rounds: u64) -> u64 {
    black_box(middle(black_box(rounds))) + 1
}

#[inline(never)]
fn middle(rounds: u64) -> u64 {
    black_box(inner(black_box(rounds))) + 1
}

#[inline(never)]
fn inner(rounds: u64) -> u64 {
    black_box(leaf(black_box(rounds))) + 1
}

#[inline(never)]
fn leaf(rounds: u64) -> u64 {
    let mut state = rounds | 1;
    for _ in 0..rounds {
        state = state.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    state
}

/// The functions of each sample, the youngest first, and how often.
fn stacks(packed: &[u8]) -> Vec<(Vec<String>, i64)> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("it is gzip");
    let profile = Profile::decode(bytes.as_slice()).expect("it is a profile");
    let name = |id: &u64| {
        let location = profile.location.iter().find(|l| l.id == *id).expect("its location");
        let names = location.line.iter().map(|line| {
            let function = profile.function.iter().find(|f| f.id == line.function_id);
            profile.string_table[function.expect("its function").name as usize].clone()
        });
        names.collect::<Vec<_>>()
    };
    let stack = |ids: &[u64]| ids.iter().flat_map(name).collect();
    profile.sample.iter().map(|s| (stack(&s.location_id), s.value[0])).collect()
}

#[test]
fn the_back_chain_has_all_callers() {
    let sampler = Sampler::start().unwrap();
    assert!(Sampler::start().is_err(), "there is one already");
    let begin = backchain::taken();
    let worker = std::thread::spawn(move || {
        while backchain::taken() < begin + 50 {
            black_box(outer(black_box(2_000_000)));
        }
    });
    worker.join().unwrap();
    let stacks = stacks(&sampler.finish().unwrap());
    let whole: Vec<_> = ["leaf", "inner", "middle", "outer"]
        .map(|name| format!("tce_bench::profile::tests::{name}"))
        .into();
    let found: i64 = stacks
        .iter()
        .filter(|(stack, _)| stack.windows(4).any(|part| part == whole))
        .map(|(_, count)| count)
        .sum();
    // But for the few that a stack newer than the list of mappings makes short.
    assert!(found >= 30, "{found} of {stacks:#?}");
    // The thread's first function is at the end of each of them.
    let deep = stacks.iter().filter(|(stack, _)| stack.contains(&whole[3]));
    for (stack, _) in deep {
        assert!(stack.len() > 6 && !stack.windows(2).any(|two| two[0] == two[1]), "{stack:#?}");
    }
    // It can be had again.
    drop(Sampler::start().unwrap());
    Sampler::start().unwrap().finish().unwrap();
}
