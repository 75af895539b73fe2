// SPDX-License-Identifier: Apache-2.0 OR MIT
//! AVX2: four entries a vector. The vector *values* come from intrinsics; the accesses to table
//! memory are `asm!`, because devices read it at any time and a plain store would be a data race
//! in Rust's terms. Aligned doublewords are seen whole.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_and_si128, _mm_cvtsi128_si64, _mm_or_si128, _mm_unpackhi_epi64,
    _mm256_add_epi64, _mm256_and_si256, _mm256_andnot_si256, _mm256_castsi256_si128,
    _mm256_cmpeq_epi64, _mm256_extract_epi64, _mm256_extracti128_si256, _mm256_loadu_si256,
    _mm256_or_si256, _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_setr_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_storeu_si256, _mm256_testc_si256, _mm256_testz_si256,
};

use super::{Tier, portable};
use crate::sync::Slot;
use crate::tce::{Perm, Summary, Tce};

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
        drain,
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

/// Clears the turn at `at`, around the caches. Without a fence: see [`drain`].
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

/// Orders streaming stores before all later ones. Every x86-64 has the instruction.
pub(super) fn drain() {
    // SAFETY: a fence has no operands. The asm may touch memory as far as the compiler knows, so
    // it moves no access across.
    unsafe { asm!("sfence", options(nostack, preserves_flags)) };
}

/// Reads a turn of a list, which is ordinary memory.
#[inline]
#[target_feature(enable = "avx2")]
fn read4(list: &[u64]) -> Turn {
    let list: &[u64; TURN] = list.try_into().expect("a whole turn");
    // SAFETY: the four vectors are the 16 doublewords of `list`; the load is unaligned.
    [0, 1, 2, 3]
        .map(|i| unsafe { _mm256_loadu_si256(list.as_ptr().wrapping_add(i * LANES).cast()) })
}

/// Splits off the part that whole turns cover.
#[inline]
fn whole_turns<T>(slots: &[T]) -> (&[T], &[T]) {
    slots.split_at(slots.len() - slots.len() % TURN)
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

/// The summary of what a loop has passed, lane by lane.
struct Tally {
    /// The control bits, and one of them, where the entries have them.
    control: __m256i,
    read: __m256i,
    and: __m256i,
    or: __m256i,
    /// The number of empty entries, negative.
    empty: __m256i,
}

impl Tally {
    /// For words.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn words() -> Self {
        let bits = |value| _mm256_set1_epi64x(Tce::from_value(value).to_be_word() as i64);
        Self::new(bits(Tce::CONTROL_MASK), bits(Perm::READ.bits()))
    }

    /// For values.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn values() -> Self {
        let bits = |value| _mm256_set1_epi64x(value as i64);
        Self::new(bits(Tce::CONTROL_MASK), bits(Perm::READ.bits()))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(control: __m256i, read: __m256i) -> Self {
        let zero = _mm256_setzero_si256();
        Self { control, read, and: _mm256_set1_epi64x(-1), or: zero, empty: zero }
    }

    /// Adds a turn. The two usual ones need no look at single lanes: if AND has a control bit then
    /// all are live, if OR has none then none is.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, v: Turn) {
        let [a, b, c, d] = v;
        let and = _mm256_and_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, d));
        let or = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
        if _mm256_testc_si256(and, self.read) != 0 {
            self.and = _mm256_and_si256(self.and, and);
            self.or = _mm256_or_si256(self.or, or);
        } else if _mm256_testz_si256(or, self.control) != 0 {
            self.empty = _mm256_add_epi64(self.empty, _mm256_set1_epi64x(-4));
        } else {
            for v in v {
                let zero = _mm256_setzero_si256();
                // A comparison gives −1.
                let empty = _mm256_cmpeq_epi64(_mm256_and_si256(v, self.control), zero);
                self.and = _mm256_and_si256(self.and, _mm256_or_si256(v, empty));
                self.or = _mm256_or_si256(self.or, _mm256_andnot_si256(empty, v));
                self.empty = _mm256_add_epi64(self.empty, empty);
            }
        }
    }

    /// The summary of `n` entries, in their byte order.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn finish(&self, n: usize) -> Summary {
        let (low, high) = halves(self.and);
        let and = _mm_and_si128(low, high);
        let and = _mm_and_si128(and, _mm_unpackhi_epi64(and, and));
        let (low, high) = halves(self.or);
        let or = _mm_or_si128(low, high);
        let or = _mm_or_si128(or, _mm_unpackhi_epi64(or, or));
        let e = self.empty;
        let empty = _mm256_extract_epi64::<0>(e)
            + _mm256_extract_epi64::<1>(e)
            + _mm256_extract_epi64::<2>(e)
            + _mm256_extract_epi64::<3>(e);
        Summary {
            live: (n as u64).wrapping_add_signed(empty),
            and: _mm_cvtsi128_si64(and) as u64,
            or: _mm_cvtsi128_si64(or) as u64,
        }
    }

    /// The summary of `n` entries that were added as words.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn finish_words(&self, n: usize) -> Summary {
        let s = self.finish(n);
        Summary { and: u64::from_be(s.and), or: u64::from_be(s.or), ..s }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn halves(v: __m256i) -> (__m128i, __m128i) {
    (_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v))
}

#[target_feature(enable = "avx2")]
fn fill(slots: &[Slot], first: Tce, step: u64) {
    let (body, rest) = whole_turns(slots);
    let mut next = first.value();
    if !body.is_empty() {
        let nth = |i: u64| next.wrapping_add(step.wrapping_mul(i)) as i64;
        let lanes = |i: u64| _mm256_set_epi64x(nth(i + 3), nth(i + 2), nth(i + 1), nth(i));
        let mut v = [lanes(0), lanes(4), lanes(8), lanes(12)];
        let ahead = _mm256_set1_epi64x(step.wrapping_mul(TURN as u64) as i64);
        let swap = swap();
        for turn in body.chunks_exact(TURN) {
            let words = v.map(|v| _mm256_shuffle_epi8(v, swap));
            // SAFETY: `turn` is 16 slots.
            unsafe { store4(turn.as_ptr(), words) };
            v = v.map(|v| _mm256_add_epi64(v, ahead));
        }
        next = next.wrapping_add(step.wrapping_mul(body.len() as u64));
    }
    portable::fill(rest, Tce::from_value(next), step);
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
fn store(slots: &[Slot], tce: Tce) {
    let (body, rest) = whole_turns(slots);
    let v = _mm256_set1_epi64x(tce.to_be_word() as i64);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), [v; 4]) };
    }
    portable::store(rest, tce);
}

#[target_feature(enable = "avx2")]
fn put(slots: &[Slot], words: &[u64]) {
    let (body, rest) = whole_turns(slots);
    let (words, words_rest) = words.split_at(body.len());
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        let v = read4(words);
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), v) };
    }
    portable::put(rest, words_rest);
}

#[target_feature(enable = "avx2")]
fn list(slots: &[Slot], values: &[u64]) -> Summary {
    let (body, rest) = whole_turns(slots);
    let (values, values_rest) = values.split_at(body.len());
    let tail = portable::list(rest, values_rest);
    if body.is_empty() {
        return tail;
    }
    let swap = swap();
    let mut tally = Tally::values();
    for (turn, values) in body.chunks_exact(TURN).zip(values.chunks_exact(TURN)) {
        let v = read4(values);
        tally.add(v);
        let words = v.map(|v| _mm256_shuffle_epi8(v, swap));
        // SAFETY: `turn` is 16 slots.
        unsafe { store4(turn.as_ptr(), words) };
    }
    tally.finish(body.len()).merge(tail)
}

#[target_feature(enable = "avx2")]
fn exchange(slots: &[Slot], words: &[u64], old: &mut [u64]) {
    let (body, rest) = whole_turns(slots);
    let (words, words_rest) = words.split_at(body.len());
    let (old, old_rest) = old.split_at_mut(body.len());
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
    portable::exchange(rest, words_rest, old_rest);
}

#[target_feature(enable = "avx2")]
fn replace(slots: &[Slot], words: &[u64]) -> Summary {
    let (body, rest) = whole_turns(slots);
    let (words, words_rest) = words.split_at(body.len());
    let tail = portable::replace(rest, words_rest);
    if body.is_empty() {
        return tail;
    }
    let mut tally = Tally::words();
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        // SAFETY: `turn` is 16 slots.
        tally.add(unsafe { load4(turn.as_ptr()) });
        let v = read4(words);
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), v) };
    }
    tally.finish_words(body.len()).merge(tail)
}

#[target_feature(enable = "avx2")]
fn take(slots: &[Slot]) -> Summary {
    let (body, rest) = whole_turns(slots);
    let tail = portable::take(rest);
    if body.is_empty() {
        return tail;
    }
    let zero = [_mm256_setzero_si256(); 4];
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots.
        tally.add(unsafe { load4(turn.as_ptr()) });
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), zero) };
    }
    tally.finish_words(body.len()).merge(tail)
}

#[target_feature(enable = "avx2")]
fn clear_streaming(slots: &[Slot]) {
    // Whole cache lines only: a part of one would be merged in memory.
    let (head, slots) = slots.split_at(slots.as_ptr().align_offset(64).min(slots.len()));
    let (body, rest) = whole_turns(slots);
    portable::clear(head);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots; the first begins a cache line, and each is two of them.
        unsafe { stream4(turn.as_ptr()) };
    }
    portable::clear(rest);
}

#[target_feature(enable = "avx2")]
fn any_live(slots: &[Slot]) -> bool {
    let (body, rest) = whole_turns(slots);
    let live = portable::any_live(rest);
    if body.is_empty() || live {
        return live;
    }
    let mut or = [_mm256_setzero_si256(); 4];
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots.
        unsafe { or4(turn.as_ptr(), &mut or) };
    }
    let [a, b, c, d] = or;
    let or = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
    _mm256_testz_si256(or, Tally::words().control) == 0
}

#[target_feature(enable = "avx2")]
fn scan(slots: &[Slot]) -> Summary {
    let (body, rest) = whole_turns(slots);
    let tail = portable::scan(rest);
    if body.is_empty() {
        return tail;
    }
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 16 slots.
        tally.add(unsafe { load4(turn.as_ptr()) });
    }
    tally.finish_words(body.len()).merge(tail)
}

#[target_feature(enable = "avx2")]
fn survey(words: &[u64]) -> Summary {
    let (body, rest) = whole_turns(words);
    let tail = portable::survey(rest);
    if body.is_empty() {
        return tail;
    }
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        tally.add(read4(turn));
    }
    tally.finish_words(body.len()).merge(tail)
}
