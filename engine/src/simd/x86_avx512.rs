// SPDX-License-Identifier: Apache-2.0 OR MIT
//! AVX-512: eight entries a vector, a cache line; what is left over goes under a mask. Values come
//! from intrinsics and accesses to table memory are `asm!`, as in the AVX2 tier.

#![allow(unsafe_code)]

mod access;
mod tally;

use std::arch::x86_64::{
    __m512i, _mm_setr_epi8, _mm_sfence, _mm512_add_epi64, _mm512_broadcast_i32x4,
    _mm512_mask_storeu_epi64, _mm512_mullo_epi64, _mm512_or_si512, _mm512_set1_epi64,
    _mm512_setr_epi64, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_storeu_si512,
    _mm512_test_epi64_mask,
};

use access::{
    fetch, load_some, load4, mask, prefetch, prefetch_to_write, read_some, read4, store_some,
    store1, store4, stream4,
};
use tally::{Tally, or3};

use super::x86::{Cut, four};
use super::{Frames, Tier, portable};
use crate::sync::Slot;
use crate::tce::{Summary, Tce};

/// Entries in a vector.
const LANES: usize = 8;
/// Entries that one turn of a loop handles.
const TURN: usize = 4 * LANES;
/// A turn's entries.
type Turn = [__m512i; 4];
/// Fewer entries than this are quicker one by one than under a mask.
const FEW: usize = LANES;

/// The tier, if this machine has AVX-512 with doublewords and bytes (all but the first such CPUs).
pub(super) fn tier() -> Option<&'static Tier> {
    static TIER: Tier = Tier {
        name: "avx512",
        // SAFETY: the only way to this tier is through the detection below, so all is there.
        fill: |slots, first, step| unsafe { fill::<true>(slots, first, step) },
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
    let all = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx2");
    all.then_some(&TIER)
}

/// Cuts a stretch; vectors of the turns cross no cache line. What is around the turns goes under
/// masks, vector by vector: the head, which may be nothing, is one.
#[inline]
fn cut(slots: &[Slot]) -> Cut {
    Cut::new(slots, TURN, LANES * 8)
}

/// What is around the turns, as vectors.
#[inline]
fn ends<'a, T>(head: &'a [T], rest: &'a [T]) -> impl Iterator<Item = &'a [T]> {
    std::iter::once(head).chain(rest.chunks(LANES))
}

/// Shuffle that reverses the bytes of each entry.
#[inline]
#[target_feature(enable = "avx512f")]
fn swap() -> __m512i {
    let two = _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
    _mm512_broadcast_i32x4(two)
}

/// `FAR`: the stretch may be in no near cache.
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn fill<const FAR: bool>(slots: &[Slot], first: Tce, step: u64) {
    if slots.len() < FEW {
        return portable::fill(slots, first, step);
    }
    let [head, body, rest] = cut(slots).split(slots);
    let times = |n: __m512i| _mm512_mullo_epi64(_mm512_set1_epi64(step as i64), n);
    let entries = |n: usize| times(_mm512_set1_epi64(n as i64));
    let (swap, ahead) = (swap(), entries(LANES));
    let nth = times(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    let mut next = _mm512_add_epi64(_mm512_set1_epi64(first.value() as i64), nth);
    if !body.is_empty() {
        store_some(head, _mm512_shuffle_epi8(next, swap));
        next = _mm512_add_epi64(next, entries(head.len()));
        let mut v = [next; 4];
        for i in 1..4 {
            v[i] = _mm512_add_epi64(v[i - 1], ahead);
        }
        let ahead4 = entries(TURN);
        for turn in body.chunks_exact(TURN) {
            if FAR {
                prefetch_to_write(turn);
            }
            let words = four!(|v| _mm512_shuffle_epi8(v, swap), v);
            // SAFETY: `turn` is 32 slots.
            unsafe { store4(turn.as_ptr(), words) };
            v = four!(|v| _mm512_add_epi64(v, ahead4), v);
        }
        next = v[0];
    }
    for some in rest.chunks(LANES) {
        store_some(some, _mm512_shuffle_epi8(next, swap));
        next = _mm512_add_epi64(next, ahead);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn fill_empty(slots: &[Slot], first: Tce, step: u64) -> bool {
    let empty = !any_live(slots);
    if empty {
        // What was just looked at is near; to fetch it again takes 1 % more.
        fill::<false>(slots, first, step);
    }
    empty
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn fill_frames(slots: &[Slot], frames: &Frames<'_>) {
    let Frames { at, each, perm, step } = *frames;
    // Long frames are better off with whole turns.
    if each % LANES != 0 || each > 4 * TURN {
        return frames.one_by_one(slots, |slots, first, step| fill::<true>(slots, first, step));
    }
    let times = |n: __m512i| _mm512_mullo_epi64(_mm512_set1_epi64(step as i64), n);
    let (swap, ahead) = (swap(), times(_mm512_set1_epi64(LANES as i64)));
    let bits = _mm512_set1_epi64(perm.bits() as i64);
    let nth = times(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    let inside = _mm512_add_epi64(nth, bits);
    for (frame, at) in slots.chunks_exact(each).zip(at) {
        let mut next = _mm512_add_epi64(_mm512_set1_epi64(at.0 as i64), inside);
        for vector in frame.chunks_exact(LANES) {
            let words = _mm512_shuffle_epi8(next, swap);
            // SAFETY: `vector` is 8 slots.
            unsafe { store1(vector.as_ptr(), words) };
            next = _mm512_add_epi64(next, ahead);
        }
    }
}

#[target_feature(enable = "avx512f")]
fn store(slots: &[Slot], tce: Tce) {
    if slots.len() < FEW {
        return portable::store(slots, tce);
    }
    let [head, body, rest] = cut(slots).split(slots);
    let v = _mm512_set1_epi64(tce.to_be_word() as i64);
    store_some(head, v);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 32 slots.
        unsafe { store4(turn.as_ptr(), [v; 4]) };
    }
    rest.chunks(LANES).for_each(|some| store_some(some, v));
}

#[target_feature(enable = "avx512f")]
fn put(slots: &[Slot], words: &[u64]) {
    if slots.len() < FEW {
        return portable::put(slots, words);
    }
    let cut = cut(slots);
    let ([head, body, rest], [head_words, words, rest_words]) =
        (cut.split(slots), cut.split(words));
    store_some(head, read_some(head_words));
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        prefetch(turn);
        let v = read4(words);
        // SAFETY: `turn` is 32 slots.
        unsafe { store4(turn.as_ptr(), v) };
    }
    for (some, words) in rest.chunks(LANES).zip(rest_words.chunks(LANES)) {
        store_some(some, read_some(words));
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn list(slots: &[Slot], values: &[u64]) -> Summary {
    if slots.len() < FEW {
        return portable::list(slots, values);
    }
    let cut = cut(slots);
    let ([head, body, rest], [head_values, values, rest_values]) =
        (cut.split(slots), cut.split(values));
    let swap = swap();
    let mut tally = Tally::values();
    for (turn, values) in body.chunks_exact(TURN).zip(values.chunks_exact(TURN)) {
        prefetch(turn);
        let v = read4(values);
        tally.add4(v);
        let words = four!(|v| _mm512_shuffle_epi8(v, swap), v);
        // SAFETY: `turn` is 32 slots.
        unsafe { store4(turn.as_ptr(), words) };
    }
    for (some, values) in ends(head, rest).zip(ends(head_values, rest_values)) {
        let v = read_some(values);
        tally.add(v);
        store_some(some, _mm512_shuffle_epi8(v, swap));
    }
    tally.finish()
}

#[target_feature(enable = "avx512f")]
fn exchange(slots: &[Slot], words: &[u64], old: &mut [u64]) {
    if slots.len() < FEW {
        return portable::exchange(slots, words, old);
    }
    let cut = cut(slots);
    let ([head, body, rest], [head_words, words, rest_words]) =
        (cut.split(slots), cut.split(words));
    let [head_old, old, rest_old] = cut.split_mut(old);
    let turns = body.chunks_exact(TURN).zip(words.chunks_exact(TURN));
    for ((turn, words), old) in turns.zip(old.chunks_exact_mut(TURN)) {
        // SAFETY: `turn` is 32 slots.
        let before = unsafe { load4(turn.as_ptr()) };
        let v = read4(words);
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), v) };
        for (old, before) in old.chunks_exact_mut(LANES).zip(before) {
            // SAFETY: `old` is 8 doublewords that nobody else can see; the store is unaligned.
            unsafe { _mm512_storeu_si512(old.as_mut_ptr().cast(), before) };
        }
    }
    let old = std::iter::once(head_old).chain(rest_old.chunks_mut(LANES));
    for ((some, words), old) in ends(head, rest).zip(ends(head_words, rest_words)).zip(old) {
        let before = load_some(some);
        store_some(some, read_some(words));
        // SAFETY: the mask has no more lanes than `old` has doublewords.
        unsafe { _mm512_mask_storeu_epi64(old.as_mut_ptr().cast(), mask(old), before) };
    }
}

#[target_feature(enable = "avx512f")]
fn replace(slots: &[Slot], words: &[u64]) -> Summary {
    if slots.len() < FEW {
        return portable::replace(slots, words);
    }
    let cut = cut(slots);
    let ([head, body, rest], [head_words, words, rest_words]) =
        (cut.split(slots), cut.split(words));
    let mut tally = Tally::words();
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        // SAFETY: `turn` is 32 slots.
        tally.add4(unsafe { load4(turn.as_ptr()) });
        let v = read4(words);
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), v) };
    }
    for (some, words) in ends(head, rest).zip(ends(head_words, rest_words)) {
        tally.add(load_some(some));
        store_some(some, read_some(words));
    }
    tally.finish_words()
}

#[target_feature(enable = "avx512f")]
fn take(slots: &[Slot]) -> Summary {
    if slots.len() < FEW {
        return portable::take(slots);
    }
    let [head, body, rest] = cut(slots).split(slots);
    let zero = _mm512_setzero_si512();
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 32 slots.
        tally.add4(unsafe { load4(turn.as_ptr()) });
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), [zero; 4]) };
    }
    for some in ends(head, rest) {
        tally.add(load_some(some));
        store_some(some, zero);
    }
    tally.finish_words()
}

#[target_feature(enable = "avx512f")]
fn clear_streaming(slots: &[Slot]) {
    // Whole cache lines only: a part of one would be merged in memory.
    let [head, body, rest] = Cut::lines(slots, TURN).split(slots);
    portable::clear(head);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 32 slots; the first begins a cache line, and each is four of them.
        unsafe { stream4(turn.as_ptr()) };
    }
    portable::clear(rest);
}

/// Goes backwards, so that the entries that a fill touches first are still in the nearest cache.
#[target_feature(enable = "avx512f")]
fn any_live(slots: &[Slot]) -> bool {
    if slots.len() < FEW {
        return portable::any_live(slots);
    }
    let [head, body, rest] = cut(slots).split(slots);
    let mut or = _mm512_setzero_si512();
    for turn in body.rchunks_exact(TURN) {
        fetch(turn.as_ptr().wrapping_byte_sub(512));
        // SAFETY: `turn` is 32 slots.
        let [a, b, c, d] = unsafe { load4(turn.as_ptr()) };
        or = or3(or, or3(a, b, c), d);
    }
    ends(head, rest).for_each(|some| or = _mm512_or_si512(or, load_some(some)));
    _mm512_test_epi64_mask(or, Tally::words().control) != 0
}

#[target_feature(enable = "avx512f")]
fn scan(slots: &[Slot]) -> Summary {
    if slots.len() < FEW {
        return portable::scan(slots);
    }
    let [head, body, rest] = cut(slots).split(slots);
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 32 slots.
        tally.add4(unsafe { load4(turn.as_ptr()) });
    }
    ends(head, rest).for_each(|some| tally.add(load_some(some)));
    tally.finish_words()
}

#[target_feature(enable = "avx512f")]
fn survey(words: &[u64]) -> Summary {
    if words.len() < FEW {
        return portable::survey(words);
    }
    let (body, rest) = words.split_at(words.len() - words.len() % TURN);
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        tally.add4(read4(turn));
    }
    rest.chunks(LANES).for_each(|some| tally.add(read_some(some)));
    tally.finish_words()
}
