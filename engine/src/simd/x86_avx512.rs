// SPDX-License-Identifier: Apache-2.0 OR MIT
//! AVX-512: eight entries a vector, a cache line; what is left over goes under a mask. Values come
//! from intrinsics and accesses to table memory are `asm!`, as in the AVX2 tier.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{
    __m512i, __mmask8, _mm_setr_epi8, _mm512_add_epi64, _mm512_broadcast_i32x4, _mm512_loadu_si512,
    _mm512_mask_add_epi64, _mm512_mask_and_epi64, _mm512_mask_or_epi64, _mm512_mask_storeu_epi64,
    _mm512_maskz_loadu_epi64, _mm512_mullo_epi64, _mm512_or_si512, _mm512_reduce_add_epi64,
    _mm512_reduce_and_epi64, _mm512_reduce_or_epi64, _mm512_set1_epi64, _mm512_setr_epi64,
    _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_storeu_si512, _mm512_ternarylogic_epi64,
    _mm512_test_epi64_mask, _mm512_testn_epi64_mask,
};

use super::{Tier, portable, x86_avx2};
use crate::sync::Slot;
use crate::tce::{Perm, Summary, Tce};

/// Entries in a vector.
const LANES: usize = 8;
/// Entries that one turn of a loop handles.
const TURN: usize = 4 * LANES;
/// A turn's entries.
type Turn = [__m512i; 4];
/// Fewer entries than this are quicker one by one than under a mask.
const FEW: usize = 4;

/// The tier, if this machine has AVX-512 with doublewords and bytes (all but the first such CPUs).
pub(super) fn tier() -> Option<&'static Tier> {
    static TIER: Tier = Tier {
        name: "avx512",
        // SAFETY: the only way to this tier is through the detection below, so all is there.
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
        drain: x86_avx2::drain,
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
        && is_x86_feature_detected!("avx512vl");
    all.then_some(&TIER)
}

/// Stores a turn at `at`.
///
/// # Safety
/// `at` points to 32 slots that stay valid for the call.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store4(at: *const Slot, v: Turn) {
    // SAFETY: the caller vouches for the memory; slots are atomics, so writing through a shared
    // pointer is allowed, and asm accesses take no part in Rust's race rules.
    unsafe {
        asm!(
            "vmovdqu64 [{at}], {a}",
            "vmovdqu64 [{at} + 64], {b}",
            "vmovdqu64 [{at} + 128], {c}",
            "vmovdqu64 [{at} + 192], {d}",
            at = in(reg) at,
            a = in(zmm_reg) v[0],
            b = in(zmm_reg) v[1],
            c = in(zmm_reg) v[2],
            d = in(zmm_reg) v[3],
            options(nostack, preserves_flags),
        );
    }
}

/// Loads a turn from `at`.
///
/// # Safety
/// `at` points to 32 slots.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load4(at: *const Slot) -> Turn {
    let (a, b, c, d);
    // SAFETY: the caller vouches for the memory; asm accesses take no part in Rust's race rules.
    unsafe {
        asm!(
            "vmovdqu64 {a}, [{at}]",
            "vmovdqu64 {b}, [{at} + 64]",
            "vmovdqu64 {c}, [{at} + 128]",
            "vmovdqu64 {d}, [{at} + 192]",
            at = in(reg) at,
            a = out(zmm_reg) a,
            b = out(zmm_reg) b,
            c = out(zmm_reg) c,
            d = lateout(zmm_reg) d,
            options(nostack, preserves_flags, readonly),
        );
    }
    [a, b, c, d]
}

/// Clears the turn at `at`, around the caches. Without a fence: see [`x86_avx2::drain`].
///
/// # Safety
/// `at` points to 32 slots that stay valid for the call, at the beginning of a cache line.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn stream4(at: *const Slot) {
    let zero = _mm512_setzero_si512();
    // SAFETY: as in `store4`; the instruction wants the alignment that the caller vouches for.
    unsafe {
        asm!(
            "vmovntdq [{at}], {zero}",
            "vmovntdq [{at} + 64], {zero}",
            "vmovntdq [{at} + 128], {zero}",
            "vmovntdq [{at} + 192], {zero}",
            at = in(reg) at,
            zero = in(zmm_reg) zero,
            options(nostack, preserves_flags),
        );
    }
}

/// Stores the first `lanes.len` entries of a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_some(slots: &[Slot], v: __m512i) {
    // SAFETY: the mask has no more lanes than `slots` has entries; the others are not touched.
    unsafe {
        asm!(
            "vmovdqu64 [{at}] {{{k}}}, {v}",
            at = in(reg) slots.as_ptr(),
            k = in(kreg) mask(slots),
            v = in(zmm_reg) v,
            options(nostack, preserves_flags),
        );
    }
}

/// Loads up to a vector of entries; the other lanes are 0, hence empty.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_some(slots: &[Slot]) -> __m512i {
    let v;
    // SAFETY: the mask has no more lanes than `slots` has entries; the others are not touched.
    unsafe {
        asm!(
            "vmovdqu64 {v} {{{k}}} {{z}}, [{at}]",
            at = in(reg) slots.as_ptr(),
            k = in(kreg) mask(slots),
            v = out(zmm_reg) v,
            options(nostack, preserves_flags, readonly),
        );
    }
    v
}

/// The lanes that a slice fills, up to a vector.
#[inline]
fn mask<T>(slice: &[T]) -> __mmask8 {
    0xff >> (LANES - slice.len().min(LANES))
}

/// Reads a turn of a list, which is ordinary memory.
#[inline]
#[target_feature(enable = "avx512f")]
fn read4(list: &[u64]) -> Turn {
    let list: &[u64; TURN] = list.try_into().expect("a whole turn");
    // SAFETY: the four vectors are the 32 doublewords of `list`; the load is unaligned.
    [0, 1, 2, 3]
        .map(|i| unsafe { _mm512_loadu_si512(list.as_ptr().wrapping_add(i * LANES).cast()) })
}

/// Reads up to a vector of a list; the other lanes are 0.
#[inline]
#[target_feature(enable = "avx512f")]
fn read_some(list: &[u64]) -> __m512i {
    // SAFETY: the mask has no more lanes than `list` has doublewords; the others are not touched.
    unsafe { _mm512_maskz_loadu_epi64(mask(list), list.as_ptr().cast()) }
}

/// Splits off the part that whole turns cover.
#[inline]
fn whole_turns<T>(slots: &[T]) -> (&[T], &[T]) {
    slots.split_at(slots.len() - slots.len() % TURN)
}

/// Shuffle that reverses the bytes of each entry.
#[inline]
#[target_feature(enable = "avx512f")]
fn swap() -> __m512i {
    let two = _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
    _mm512_broadcast_i32x4(two)
}

/// AND of three.
#[inline]
#[target_feature(enable = "avx512f")]
fn and3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x80>(a, b, c)
}

/// OR of three.
#[inline]
#[target_feature(enable = "avx512f")]
fn or3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0xfe>(a, b, c)
}

/// The summary of what a loop has passed, lane by lane.
struct Tally {
    /// The control bits, and one of them, where the entries have them.
    control: __m512i,
    read: __m512i,
    and: __m512i,
    or: __m512i,
    live: __m512i,
}

impl Tally {
    /// For words.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn words() -> Self {
        let bits = |value| _mm512_set1_epi64(Tce::from_value(value).to_be_word() as i64);
        Self::new(bits(Tce::CONTROL_MASK), bits(Perm::READ.bits()))
    }

    /// For values.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn values() -> Self {
        let bits = |value| _mm512_set1_epi64(value as i64);
        Self::new(bits(Tce::CONTROL_MASK), bits(Perm::READ.bits()))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(control: __m512i, read: __m512i) -> Self {
        let zero = _mm512_setzero_si512();
        Self { control, read, and: _mm512_set1_epi64(-1), or: zero, live: zero }
    }

    /// Adds a turn. The usual one needs no look at single lanes: if AND has a control bit then all
    /// are live.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add4(&mut self, v: Turn) {
        let [a, b, c, d] = v;
        let and = and3(and3(self.and, a, b), c, d);
        if _mm512_testn_epi64_mask(and, self.read) == 0 {
            self.and = and;
            self.or = or3(or3(self.or, a, b), c, d);
            self.live = _mm512_add_epi64(self.live, _mm512_set1_epi64(4));
        } else {
            v.into_iter().for_each(|v| self.add(v));
        }
    }

    /// Adds a vector.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(&mut self, v: __m512i) {
        let live = _mm512_test_epi64_mask(v, self.control);
        self.and = _mm512_mask_and_epi64(self.and, live, self.and, v);
        self.or = _mm512_mask_or_epi64(self.or, live, self.or, v);
        self.live = _mm512_mask_add_epi64(self.live, live, self.live, _mm512_set1_epi64(1));
    }

    /// The summary of all that was added, as values.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn finish(&self) -> Summary {
        Summary {
            live: _mm512_reduce_add_epi64(self.live) as u64,
            and: _mm512_reduce_and_epi64(self.and) as u64,
            or: _mm512_reduce_or_epi64(self.or) as u64,
        }
    }

    /// The summary of all that was added, as words.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn finish_words(&self) -> Summary {
        let s = self.finish();
        Summary { and: u64::from_be(s.and), or: u64::from_be(s.or), ..s }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn fill(slots: &[Slot], first: Tce, step: u64) {
    if slots.len() < FEW {
        return portable::fill(slots, first, step);
    }
    let (first, step) = (_mm512_set1_epi64(first.value() as i64), _mm512_set1_epi64(step as i64));
    let times = |n| _mm512_mullo_epi64(step, n);
    let (swap, ahead) = (swap(), times(_mm512_set1_epi64(LANES as i64)));
    let mut next = _mm512_add_epi64(first, times(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7)));
    let (body, rest) = whole_turns(slots);
    if !body.is_empty() {
        let ahead4 = times(_mm512_set1_epi64(TURN as i64));
        let mut v = [next; 4];
        for i in 1..4 {
            v[i] = _mm512_add_epi64(v[i - 1], ahead);
        }
        for turn in body.chunks_exact(TURN) {
            let words = v.map(|v| _mm512_shuffle_epi8(v, swap));
            // SAFETY: `turn` is 32 slots.
            unsafe { store4(turn.as_ptr(), words) };
            v = v.map(|v| _mm512_add_epi64(v, ahead4));
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
        fill(slots, first, step);
    }
    empty
}

#[target_feature(enable = "avx512f")]
fn store(slots: &[Slot], tce: Tce) {
    if slots.len() < FEW {
        return portable::store(slots, tce);
    }
    let (body, rest) = whole_turns(slots);
    let v = _mm512_set1_epi64(tce.to_be_word() as i64);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 32 slots.
        unsafe { store4(turn.as_ptr(), [v; 4]) };
    }
    for some in rest.chunks(LANES) {
        store_some(some, v);
    }
}

#[target_feature(enable = "avx512f")]
fn put(slots: &[Slot], words: &[u64]) {
    if slots.len() < FEW {
        return portable::put(slots, words);
    }
    let (body, rest) = whole_turns(slots);
    let (words, words_rest) = words.split_at(body.len());
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        let v = read4(words);
        // SAFETY: `turn` is 32 slots.
        unsafe { store4(turn.as_ptr(), v) };
    }
    for (some, words) in rest.chunks(LANES).zip(words_rest.chunks(LANES)) {
        store_some(some, read_some(words));
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn list(slots: &[Slot], values: &[u64]) -> Summary {
    if slots.len() < FEW {
        return portable::list(slots, values);
    }
    let (body, rest) = whole_turns(slots);
    let (values, values_rest) = values.split_at(body.len());
    let swap = swap();
    let mut tally = Tally::values();
    for (turn, values) in body.chunks_exact(TURN).zip(values.chunks_exact(TURN)) {
        let v = read4(values);
        tally.add4(v);
        let words = v.map(|v| _mm512_shuffle_epi8(v, swap));
        // SAFETY: `turn` is 32 slots.
        unsafe { store4(turn.as_ptr(), words) };
    }
    for (some, values) in rest.chunks(LANES).zip(values_rest.chunks(LANES)) {
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
    let (body, rest) = whole_turns(slots);
    let (words, words_rest) = words.split_at(body.len());
    let (old, old_rest) = old.split_at_mut(body.len());
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
    let some = rest.chunks(LANES).zip(words_rest.chunks(LANES));
    for ((some, words), old) in some.zip(old_rest.chunks_mut(LANES)) {
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
    let (body, rest) = whole_turns(slots);
    let (words, words_rest) = words.split_at(body.len());
    let mut tally = Tally::words();
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        // SAFETY: `turn` is 32 slots.
        tally.add4(unsafe { load4(turn.as_ptr()) });
        let v = read4(words);
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), v) };
    }
    for (some, words) in rest.chunks(LANES).zip(words_rest.chunks(LANES)) {
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
    let (body, rest) = whole_turns(slots);
    let zero = _mm512_setzero_si512();
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 32 slots.
        tally.add4(unsafe { load4(turn.as_ptr()) });
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr(), [zero; 4]) };
    }
    for some in rest.chunks(LANES) {
        tally.add(load_some(some));
        store_some(some, zero);
    }
    tally.finish_words()
}

#[target_feature(enable = "avx512f")]
fn clear_streaming(slots: &[Slot]) {
    // Whole cache lines only: a part of one would be merged in memory.
    let (head, slots) = slots.split_at(slots.as_ptr().align_offset(64).min(slots.len()));
    let (body, rest) = whole_turns(slots);
    store(head, Tce::EMPTY);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 32 slots; the first begins a cache line, and each is four of them.
        unsafe { stream4(turn.as_ptr()) };
    }
    store(rest, Tce::EMPTY);
}

#[target_feature(enable = "avx512f")]
fn any_live(slots: &[Slot]) -> bool {
    if slots.len() < FEW {
        return portable::any_live(slots);
    }
    let (body, rest) = whole_turns(slots);
    let mut or = _mm512_setzero_si512();
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 32 slots.
        let [a, b, c, d] = unsafe { load4(turn.as_ptr()) };
        or = or3(or, or3(a, b, c), d);
    }
    for some in rest.chunks(LANES) {
        or = _mm512_or_si512(or, load_some(some));
    }
    _mm512_test_epi64_mask(or, Tally::words().control) != 0
}

#[target_feature(enable = "avx512f")]
fn scan(slots: &[Slot]) -> Summary {
    if slots.len() < FEW {
        return portable::scan(slots);
    }
    let (body, rest) = whole_turns(slots);
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 32 slots.
        tally.add4(unsafe { load4(turn.as_ptr()) });
    }
    for some in rest.chunks(LANES) {
        tally.add(load_some(some));
    }
    tally.finish_words()
}

#[target_feature(enable = "avx512f")]
fn survey(words: &[u64]) -> Summary {
    if words.len() < FEW {
        return portable::survey(words);
    }
    let (body, rest) = whole_turns(words);
    let mut tally = Tally::words();
    for turn in body.chunks_exact(TURN) {
        tally.add4(read4(turn));
    }
    for some in rest.chunks(LANES) {
        tally.add(read_some(some));
    }
    tally.finish_words()
}
