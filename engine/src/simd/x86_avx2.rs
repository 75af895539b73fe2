// SPDX-License-Identifier: Apache-2.0 OR MIT
//! AVX2: four entries a vector. The vector *values* come from intrinsics; the accesses to table
//! memory are `asm!`, because devices read it at any time and a plain store would be a data race
//! in Rust's terms. Aligned doublewords are seen whole.

#![allow(unsafe_code)]

mod tally;

use std::arch::asm;
use std::arch::x86_64::{
    __m256i, _mm_sfence, _mm256_add_epi64, _mm256_loadu_si256, _mm256_or_si256, _mm256_set_epi64x,
    _mm256_set1_epi64x, _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_storeu_si256, _mm256_testz_si256,
};

use tally::Tally;

use super::x86::{Cut, four};
use super::{Frames, Tier, portable};
use crate::sync::Slot;
use crate::tce::{Summary, Tce};

/// Entries in a vector.
const LANES: usize = 4;
/// Entries that one turn of a loop handles: two cache lines. Fewer are left to the portable tier.
const TURN: usize = 4 * LANES;
/// A turn's entries.
type Turn = [__m256i; 4];

/// The tier, if this machine has AVX2.
pub(super) fn tier() -> Option<&'static Tier> {
    static TIER: Tier = Tier {
        name: "avx2",
        // SAFETY: the only way to this tier is through the detection below, so there is AVX2.
        fill: |slots, first, step| unsafe { fill(slots, first, step) },
        // SAFETY: as above.
        fill_empty: |slots, first, step| unsafe { fill_empty(slots, first, step) },
        // SAFETY: as above.
        fill_frames: |slots, frames| unsafe { fill_frames(slots, frames) },
        // SAFETY: as above.
        store: |slots, tce| unsafe { store(slots, tce) },
        // SAFETY: as above.
        put: |slots, words| unsafe { put(slots, words) },
        // SAFETY: as above.
        list: |slots, values| unsafe { list(slots, values) },
        // SAFETY: as above.
        exchange: |slots, words, old| unsafe { exchange(slots, words, old) },
        // SAFETY: as above.
        replace: |slots, words| unsafe { replace(slots, words) },
        // SAFETY: as above.
        take: |slots| unsafe { take(slots) },
        // SAFETY: as above.
        clear: |slots| unsafe { store(slots, Tce::EMPTY) },
        // SAFETY: as above.
        clear_streaming: |slots| unsafe { clear_streaming(slots) },
        // SAFETY: every x86-64 has the instruction.
        drain: || unsafe { _mm_sfence() },
        // SAFETY: as above.
        any_live: |slots| unsafe { any_live(slots) },
        // SAFETY: as above.
        scan: |slots| unsafe { scan(slots) },
        // SAFETY: as above.
        survey: |words| unsafe { survey(words) },
    };
    is_x86_feature_detected!("avx2").then_some(&TIER)
}

/// Stores a turn at `at`.
///
/// # Safety
/// `at` points to 16 slots that stay valid for the call.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store4(at: *const Slot, v: Turn) {
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

/// Loads a turn from `at`.
///
/// # Safety
/// `at` points to 16 slots.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load4(at: *const Slot) -> Turn {
    let (a, b, c, d);
    // SAFETY: the caller vouches for the memory; asm accesses take no part in Rust's race rules.
    unsafe {
        asm!(
            "vmovdqu {a}, [{at}]",
            "vmovdqu {b}, [{at} + 32]",
            "vmovdqu {c}, [{at} + 64]",
            "vmovdqu {d}, [{at} + 96]",
            at = in(reg) at,
            a = out(ymm_reg) a,
            b = out(ymm_reg) b,
            c = out(ymm_reg) c,
            d = lateout(ymm_reg) d,
            options(nostack, preserves_flags, readonly),
        );
    }
    [a, b, c, d]
}

/// Adds the bits of the turn at `at` to `or`.
///
/// # Safety
/// `at` points to 16 slots.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn or4(at: *const Slot, or: &mut Turn) {
    let [a, b, c, d] = or;
    // SAFETY: the caller vouches for the memory; asm accesses take no part in Rust's race rules.
    unsafe {
        asm!(
            "vpor {a}, {a}, [{at}]",
            "vpor {b}, {b}, [{at} + 32]",
            "vpor {c}, {c}, [{at} + 64]",
            "vpor {d}, {d}, [{at} + 96]",
            at = in(reg) at,
            a = inout(ymm_reg) *a,
            b = inout(ymm_reg) *b,
            c = inout(ymm_reg) *c,
            d = inout(ymm_reg) *d,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Clears the turn at `at`, around the caches. Without a fence: see [`Tier::drain`].
///
/// # Safety
/// `at` points to 16 slots that stay valid for the call, at a multiple of 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn stream4(at: *const Slot) {
    let zero = _mm256_setzero_si256();
    // SAFETY: as in `store4`; the instruction wants the alignment that the caller vouches for.
    unsafe {
        asm!(
            "vmovntdq [{at}], {zero}",
            "vmovntdq [{at} + 32], {zero}",
            "vmovntdq [{at} + 64], {zero}",
            "vmovntdq [{at} + 96], {zero}",
            at = in(reg) at,
            zero = in(ymm_reg) zero,
            options(nostack, preserves_flags),
        );
    }
}

/// Fetches the turn that comes 512 bytes later. Where a loop has loads between its stores the
/// machine does not look ahead far enough by itself: a list takes 10 % longer without. To fetch for
/// writing is no better in the caches, and worse in busy memory.
#[inline]
fn prefetch(turn: &[Slot]) {
    // SAFETY: a hint, without an effect on memory or on what else is seen; the address need not be
    // one.
    unsafe {
        asm!(
            "prefetcht0 [{at} + 512]",
            "prefetcht0 [{at} + 576]",
            at = in(reg) turn.as_ptr(),
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Reads a turn of a list, which is ordinary memory.
#[inline]
#[target_feature(enable = "avx2")]
fn read4(list: &[u64]) -> Turn {
    let list: &[u64; TURN] = list.try_into().expect("a whole turn");
    let at = |i: usize| list.as_ptr().wrapping_add(i * LANES).cast();
    four!(
        |at| {
            // SAFETY: the four vectors are the 16 doublewords of `list`; the load is unaligned.
            unsafe { _mm256_loadu_si256(at) }
        },
        [at(0), at(1), at(2), at(3)]
    )
}

/// Cuts a stretch; vectors of the turns cross no cache line.
#[inline]
fn cut(slots: &[Slot]) -> Cut {
    Cut::new(slots, TURN, LANES * 8)
}

/// Shuffle that reverses the bytes of each entry.
#[inline]
#[target_feature(enable = "avx2")]
fn swap() -> __m256i {
    _mm256_setr_epi8(
        7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13,
        12, 11, 10, 9, 8,
    )
}

#[target_feature(enable = "avx2")]
fn fill(slots: &[Slot], first: Tce, step: u64) {
    if slots.len() < TURN {
        return portable::fill(slots, first, step);
    }
    let [head, body, rest] = cut(slots).split(slots);
    let nth = |i: usize| first.value().wrapping_add(step.wrapping_mul(i as u64));
    portable::fill(head, first, step);
    let lane = |i: usize| nth(head.len() + i) as i64;
    let lanes = |i| _mm256_set_epi64x(lane(i + 3), lane(i + 2), lane(i + 1), lane(i));
    let mut v = [lanes(0), lanes(4), lanes(8), lanes(12)];
    let ahead = _mm256_set1_epi64x(step.wrapping_mul(TURN as u64) as i64);
    let swap = swap();
    for turn in body.chunks_exact(TURN) {
        let words = four!(|v| _mm256_shuffle_epi8(v, swap), v);
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), words) };
        v = four!(|v| _mm256_add_epi64(v, ahead), v);
    }
    portable::fill(rest, Tce::from_value(nth(head.len() + body.len())), step);
}

#[target_feature(enable = "avx2")]
fn fill_empty(slots: &[Slot], first: Tce, step: u64) -> bool {
    let empty = !any_live(slots);
    if empty {
        fill(slots, first, step);
    }
    empty
}

#[target_feature(enable = "avx2")]
fn fill_frames(slots: &[Slot], frames: &Frames<'_>) {
    let Frames { at, each, perm, step } = *frames;
    if each % TURN != 0 {
        return frames.one_by_one(slots, |slots, first, step| fill(slots, first, step));
    }
    let lane = |i: u64| Tce::new(step.wrapping_mul(i), perm).value() as i64;
    let lanes = |i| _mm256_set_epi64x(lane(i + 3), lane(i + 2), lane(i + 1), lane(i));
    let inside = [lanes(0), lanes(4), lanes(8), lanes(12)];
    let ahead = _mm256_set1_epi64x(step.wrapping_mul(TURN as u64) as i64);
    let swap = swap();
    for (frame, at) in slots.chunks_exact(each).zip(at) {
        let base = _mm256_set1_epi64x(at.0 as i64);
        let mut v = four!(|v| _mm256_add_epi64(v, base), inside);
        for turn in frame.chunks_exact(TURN) {
            let words = four!(|v| _mm256_shuffle_epi8(v, swap), v);
            // SAFETY: `turn` is 16 slots.
            unsafe { store4(turn.as_ptr(), words) };
            v = four!(|v| _mm256_add_epi64(v, ahead), v);
        }
    }
}

#[target_feature(enable = "avx2")]
fn store(slots: &[Slot], tce: Tce) {
    if slots.len() < TURN {
        return portable::store(slots, tce);
    }
    let [head, body, rest] = cut(slots).split(slots);
    portable::store(head, tce);
    let v = _mm256_set1_epi64x(tce.to_be_word() as i64);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), [v; 4]) };
    }
    portable::store(rest, tce);
}

#[target_feature(enable = "avx2")]
fn put(slots: &[Slot], words: &[u64]) {
    if slots.len() < TURN {
        return portable::put(slots, words);
    }
    let cut = cut(slots);
    let ([head, body, rest], [words_head, words, words_rest]) =
        (cut.split(slots), cut.split(words));
    portable::put(head, words_head);
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        prefetch(turn);
        let v = read4(words);
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), v) };
    }
    portable::put(rest, words_rest);
}

#[target_feature(enable = "avx2")]
fn list(slots: &[Slot], values: &[u64]) -> Summary {
    if slots.len() < TURN {
        return portable::list(slots, values);
    }
    let cut = cut(slots);
    let ([head, body, rest], [head_values, values, rest_values]) =
        (cut.split(slots), cut.split(values));
    let ends = portable::list(head, head_values).merge(portable::list(rest, rest_values));
    let swap = swap();
    let mut tally = Tally::values();
    for (turn, values) in body.chunks_exact(TURN).zip(values.chunks_exact(TURN)) {
        prefetch(turn);
        let v = read4(values);
        tally.add(v);
        let words = four!(|v| _mm256_shuffle_epi8(v, swap), v);
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), words) };
    }
    tally.finish(body.len()).merge(ends)
}

#[target_feature(enable = "avx2")]
fn exchange(slots: &[Slot], words: &[u64], old: &mut [u64]) {
    if slots.len() < TURN {
        return portable::exchange(slots, words, old);
    }
    let cut = cut(slots);
    let ([head, body, rest], [head_words, words, rest_words]) =
        (cut.split(slots), cut.split(words));
    let [head_old, old, rest_old] = cut.split_mut(old);
    portable::exchange(head, head_words, head_old);
    let turns = body.chunks_exact(TURN).zip(words.chunks_exact(TURN));
    for ((turn, words), old) in turns.zip(old.chunks_exact_mut(TURN)) {
        // SAFETY: `turn` is 16 slots.
        let before = unsafe { load4(turn.as_ptr()) };
        let v = read4(words);
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), v) };
        for (old, before) in old.chunks_exact_mut(LANES).zip(before) {
            // SAFETY: `old` is 4 doublewords that nobody else can see; the store is unaligned.
            unsafe { _mm256_storeu_si256(old.as_mut_ptr().cast(), before) };
        }
    }
    portable::exchange(rest, rest_words, rest_old);
}

#[target_feature(enable = "avx2")]
fn replace(slots: &[Slot], words: &[u64]) -> Summary {
    if slots.len() < TURN {
        return portable::replace(slots, words);
    }
    let cut = cut(slots);
    let ([head, body, rest], [head_words, words, rest_words]) =
        (cut.split(slots), cut.split(words));
    let ends = portable::replace(head, head_words).merge(portable::replace(rest, rest_words));
    let mut tally = Tally::words();
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        // SAFETY: `turn` is 16 slots.
        tally.add(unsafe { load4(turn.as_ptr()) });
        let v = read4(words);
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), v) };
    }
    tally.finish_words(body.len()).merge(ends)
}

#[target_feature(enable = "avx2")]
fn take(slots: &[Slot]) -> Summary {
    if slots.len() < TURN {
        return portable::take(slots);
    }
    let [head, body, rest] = cut(slots).split(slots);
    let ends = portable::take(head).merge(portable::take(rest));
    let zero = [_mm256_setzero_si256(); 4];
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots.
        tally.add(unsafe { load4(turn.as_ptr()) });
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), zero) };
    }
    tally.finish_words(body.len()).merge(ends)
}

#[target_feature(enable = "avx2")]
fn clear_streaming(slots: &[Slot]) {
    // Whole cache lines only: a part of one would be merged in memory.
    let [head, body, rest] = Cut::lines(slots, TURN).split(slots);
    portable::clear(head);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots; the first begins a cache line, and each is two of them.
        unsafe { stream4(turn.as_ptr()) };
    }
    portable::clear(rest);
}

/// Goes backwards, so that the entries that a fill touches first are still in the nearest cache.
#[target_feature(enable = "avx2")]
fn any_live(slots: &[Slot]) -> bool {
    if slots.len() < TURN {
        return portable::any_live(slots);
    }
    let [head, body, rest] = cut(slots).split(slots);
    let mut or = [_mm256_setzero_si256(); 4];
    for turn in body.rchunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots.
        unsafe { or4(turn.as_ptr(), &mut or) };
    }
    let [a, b, c, d] = or;
    let or = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
    let live = _mm256_testz_si256(or, Tally::words().control) == 0;
    live || portable::any_live(head) || portable::any_live(rest)
}

#[target_feature(enable = "avx2")]
fn scan(slots: &[Slot]) -> Summary {
    if slots.len() < TURN {
        return portable::scan(slots);
    }
    let [head, body, rest] = cut(slots).split(slots);
    let ends = portable::scan(head).merge(portable::scan(rest));
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots.
        tally.add(unsafe { load4(turn.as_ptr()) });
    }
    tally.finish_words(body.len()).merge(ends)
}

#[target_feature(enable = "avx2")]
fn survey(words: &[u64]) -> Summary {
    if words.len() < TURN {
        return portable::survey(words);
    }
    let (body, rest) = words.split_at(words.len() - words.len() % TURN);
    let end = portable::survey(rest);
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        tally.add(read4(turn));
    }
    tally.finish_words(body.len()).merge(end)
}
