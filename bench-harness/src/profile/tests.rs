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

/// A profile of a thread that is in `leaf` until so many samples were taken, of whatever threads there are.
fn profile() -> Vec<(Vec<String>, i64)> {
    let sampler = Sampler::start().unwrap();
    assert!(Sampler::start().is_err(), "there is one already");
    let worker = std::thread::spawn(|| {
        while !backchain::knows_this_stack() {
            std::thread::yield_now();
        }
        let begin = backchain::taken();
        while backchain::taken() < begin + 50 {
            black_box(outer(black_box(2_000_000)));
        }
    });
    worker.join().unwrap();
    stacks(&sampler.finish().unwrap())
}

#[test]
fn the_back_chain_has_all_callers() {
    let ours = "tce_bench::profile::tests::";
    let whole = ["leaf", "inner", "middle", "outer"];
    // Between them are what was inlined, as far as the debugging information tells.
    let is_whole = |stack: &[String]| {
        let ours: Vec<_> = stack.iter().filter_map(|name| name.strip_prefix(ours)).collect();
        ours.windows(whole.len()).any(|part| part == whole)
    };
    let mut found = 0;
    // Other tests beside it may take most samples of a round.
    for _ in 0..100 {
        let stacks = profile();
        let deep = stacks.iter().filter(|(stack, _)| is_whole(stack));
        for (stack, count) in deep {
            found += count;
            // Down to the standard library's first function of a thread.
            assert!(stack.iter().any(|name| name.contains("thread_start")), "{stack:#?}");
        }
        if found >= 30 {
            return;
        }
    }
    panic!("only {found} samples have all callers");
}
