// SPDX-License-Identifier: Apache-2.0 OR MIT
//! AVX2: four entries a vector. The vector *values* come from intrinsics; the accesses to table
//! memory are `asm!`, because devices read it at any time and a plain store would be a data race
//! in Rust's terms. Aligned doublewords are seen whole.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{
    __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_andnot_si256, _mm256_cmpeq_epi64,
    _mm256_or_si256, _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_setr_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_storeu_si256, _mm256_sub_epi64,
};

use super::{Tier, portable};
use crate::sync::Slot;
use crate::tce::{Summary, Tce};

/// Entries in a vector.
const LANES: usize = 4;
/// Entries that one turn of a store loop writes: one cache line twice.
const TURN: usize = 4 * LANES;

/// The tier, if this machine has AVX2.
pub(super) fn tier() -> Option<&'static Tier> {
    static TIER: Tier = Tier {
        name: "avx2",
        // SAFETY: the only way to this tier is through the detection below, so there is AVX2.
        fill: |slots, first, step| unsafe { fill(slots, first, step) },
        // SAFETY: as above.
        store: |slots, tce| unsafe { store(slots, tce) },
        // SAFETY: as above.
        put: |slots, words| unsafe { put(slots, words) },
        // SAFETY: as above.
        exchange: |slots, words, old| unsafe { exchange(slots, words, old) },
        // SAFETY: as above; a slot is a doubleword.
        scan: |slots| unsafe { summarise(slots.as_ptr().cast(), slots.len()) },
        // SAFETY: as above.
        survey: |words| unsafe { summarise(words.as_ptr(), words.len()) },
    };
    is_x86_feature_detected!("avx2").then_some(&TIER)
}

/// Stores four vectors, 128 bytes, at `at`.
///
/// # Safety
/// `at` points to 16 slots that stay valid for the call.
#[target_feature(enable = "avx2")]
unsafe fn store4(at: *const Slot, v: [__m256i; 4]) {
    // SAFETY: the caller vouches for the memory; slots are atomics, so writing through a shared
    // pointer is allowed, and asm accesses take no part in Rust's race rules.
    unsafe {
        asm!(
            "vmovdqu [{at}], {a}",
            "vmovdqu [{at} + 32], {b}",
            "vmovdqu [{at} + 64], {c}",
            "vmovdqu [{at} + 96], {d}",
            at = in(reg) at,
            a = in(ymm_reg) v[0],
            b = in(ymm_reg) v[1],
            c = in(ymm_reg) v[2],
            d = in(ymm_reg) v[3],
            options(nostack, preserves_flags),
        );
    }
}

/// Loads one vector from `at`.
///
/// # Safety
/// `at` points to 4 readable doublewords.
#[target_feature(enable = "avx2")]
unsafe fn load(at: *const u64) -> __m256i {
    let v: __m256i;
    // SAFETY: the caller vouches for the memory; asm accesses take no part in Rust's race rules.
    unsafe {
        asm!("vmovdqu {v}, [{at}]", at = in(reg) at, v = out(ymm_reg) v,
            options(nostack, preserves_flags, readonly));
    }
    v
}

/// Splits off the part that whole turns cover.
fn whole_turns(slots: &[Slot]) -> (&[Slot], &[Slot]) {
    slots.split_at(slots.len() - slots.len() % TURN)
}

#[target_feature(enable = "avx2")]
fn fill(slots: &[Slot], first: Tce, step: u64) {
    let swap = _mm256_setr_epi8(
        7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13,
        12, 11, 10, 9, 8,
    );
    let nth = |i: u64| first.value().wrapping_add(step.wrapping_mul(i)) as i64;
    let lanes = |i: u64| _mm256_set_epi64x(nth(i + 3), nth(i + 2), nth(i + 1), nth(i));
    let mut v = [lanes(0), lanes(4), lanes(8), lanes(12)];
    let ahead = _mm256_set1_epi64x(step.wrapping_mul(TURN as u64) as i64);
    let (body, rest) = whole_turns(slots);
    for turn in body.chunks_exact(TURN) {
        let words = v.map(|v| _mm256_shuffle_epi8(v, swap));
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), words) };
        v = v.map(|v| _mm256_add_epi64(v, ahead));
    }
    let next = first.value().wrapping_add(step.wrapping_mul(body.len() as u64));
    portable::TIER.fill(rest, Tce::from_value(next), step);
}

#[target_feature(enable = "avx2")]
fn store(slots: &[Slot], tce: Tce) {
    let v = _mm256_set1_epi64x(tce.to_be_word() as i64);
    let (body, rest) = whole_turns(slots);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), [v; 4]) };
    }
    portable::TIER.store(rest, tce);
}

#[target_feature(enable = "avx2")]
fn put(slots: &[Slot], words: &[u64]) {
    let (body, rest) = whole_turns(slots);
    let (list, list_rest) = words.split_at(body.len());
    for (turn, words) in body.chunks_exact(TURN).zip(list.chunks_exact(TURN)) {
        // SAFETY: `words` is 16 doublewords.
        let v = unsafe { load_turn(words.as_ptr()) };
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), v) };
    }
    portable::TIER.put(rest, list_rest);
}

/// # Safety
/// `at` points to 16 readable doublewords.
#[target_feature(enable = "avx2")]
unsafe fn load_turn(at: *const u64) -> [__m256i; 4] {
    // SAFETY: the four vectors are the 16 doublewords that the caller vouches for.
    [0, 1, 2, 3].map(|i| unsafe { load(at.wrapping_add(i * LANES)) })
}

#[target_feature(enable = "avx2")]
fn exchange(slots: &[Slot], words: &[u64], old: &mut [u64]) {
    let (body, rest) = whole_turns(slots);
    let (list, list_rest) = words.split_at(body.len());
    let (old, old_rest) = old.split_at_mut(body.len());
    let turns = body.chunks_exact(TURN).zip(list.chunks_exact(TURN));
    for ((turn, words), old) in turns.zip(old.chunks_exact_mut(TURN)) {
        // SAFETY: `turn` is 16 slots, a slot is a doubleword.
        let before = unsafe { load_turn(turn.as_ptr().cast()) };
        // SAFETY: `words` is 16 doublewords.
        let v = unsafe { load_turn(words.as_ptr()) };
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), v) };
        for (old, before) in old.chunks_exact_mut(LANES).zip(before) {
            // SAFETY: `old` is 4 doublewords that nobody else can see; the store is unaligned.
            unsafe { _mm256_storeu_si256(old.as_mut_ptr().cast(), before) };
        }
    }
    portable::TIER.exchange(rest, list_rest, old_rest);
}

/// # Safety
/// `at` points to `n` readable doublewords.
#[target_feature(enable = "avx2")]
unsafe fn summarise(at: *const u64, n: usize) -> Summary {
    // The control bits are in the last byte of an entry, the highest of a little-endian lane.
    let control = _mm256_set1_epi64x(Tce::from_value(Tce::CONTROL_MASK).to_be_word() as i64);
    let zero = _mm256_setzero_si256();
    let mut and = [_mm256_set1_epi64x(-1); 2];
    let mut or = [zero; 2];
    // Counts empty lanes: a comparison gives −1.
    let mut empty = [zero; 2];
    let whole = n - n % (2 * LANES);
    for i in (0..whole).step_by(2 * LANES) {
        for k in 0..2 {
            // SAFETY: `i + 8 <= n`, so both vectors are inside what the caller vouches for.
            let v = unsafe { load(at.wrapping_add(i + k * LANES)) };
            let dead = _mm256_cmpeq_epi64(_mm256_and_si256(v, control), zero);
            and[k] = _mm256_and_si256(and[k], _mm256_or_si256(v, dead));
            or[k] = _mm256_or_si256(or[k], _mm256_andnot_si256(dead, v));
            empty[k] = _mm256_sub_epi64(empty[k], dead);
        }
    }
    let and = lanes(_mm256_and_si256(and[0], and[1])).into_iter().fold(!0, |a, b| a & b);
    let or = lanes(_mm256_or_si256(or[0], or[1])).into_iter().fold(0, |a, b| a | b);
    let empty: u64 = lanes(_mm256_add_epi64(empty[0], empty[1])).into_iter().sum();
    let body = Summary { live: whole as u64 - empty, and: u64::from_be(and), or: u64::from_be(or) };
    (whole..n).fold(body, |s, i| {
        // SAFETY: `i < n`. Volatile, because another owner's slots may change under a scan.
        s.with(Tce::from_be_word(unsafe { at.wrapping_add(i).read_volatile() }))
    })
}

#[target_feature(enable = "avx2")]
fn lanes(v: __m256i) -> [u64; LANES] {
    let mut out = [0u64; LANES];
    // SAFETY: `out` is 32 bytes; the store is unaligned.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) };
    out
}
