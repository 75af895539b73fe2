// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the AVX-512 tier does to memory: table memory by `asm!`, lists by intrinsics.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_loadu_si512, _mm512_maskz_loadu_epi64, _mm512_setzero_si512,
};

use super::{LANES, TURN, Turn};
use crate::simd::x86::four;
use crate::sync::Slot;

/// Stores a turn at `at`.
///
/// # Safety
/// `at` points to 32 slots that stay valid for the call.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store4(at: *const Slot, v: Turn) {
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

/// Stores a vector at `at`, and fetches the one that comes 512 bytes later, to write it.
///
/// # Safety
/// `at` points to 8 slots that stay valid for the call.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store1(at: *const Slot, v: __m512i) {
    // SAFETY: as in `store4`; what is fetched need not be an address.
    unsafe {
        asm!(
            "prefetchw [{at} + 512]",
            "vmovdqu64 [{at}], {v}",
            at = in(reg) at,
            v = in(zmm_reg) v,
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
pub(super) unsafe fn load4(at: *const Slot) -> Turn {
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

/// Clears the turn at `at`, around the caches. Without a fence: see [`Tier::drain`].
///
/// # Safety
/// `at` points to 32 slots that stay valid for the call, at the beginning of a cache line.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn stream4(at: *const Slot) {
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

/// Stores as many of a vector's entries as there are slots, up to all.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_some(slots: &[Slot], v: __m512i) {
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
pub(super) fn load_some(slots: &[Slot]) -> __m512i {
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
pub(super) fn mask<T>(slice: &[T]) -> __mmask8 {
    (0xffu32 >> (LANES - slice.len().min(LANES))) as __mmask8
}

/// Fetches the turn that comes 512 bytes later. Where a loop has loads between its stores the
/// machine does not look ahead far enough by itself: a list takes 10 % longer without. To fetch for
/// writing is no better in the caches, and worse in busy memory.
#[inline]
pub(super) fn prefetch(turn: &[Slot]) {
    fetch(turn.as_ptr().wrapping_byte_add(512));
}

/// Fetches a turn.
#[inline]
pub(super) fn fetch(at: *const Slot) {
    // SAFETY: a hint, without an effect on memory or on what else is seen; the address need not be
    // one.
    unsafe {
        asm!(
            "prefetcht0 [{at}]",
            "prefetcht0 [{at} + 64]",
            "prefetcht0 [{at} + 128]",
            "prefetcht0 [{at} + 192]",
            at = in(reg) at,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Fetches the turn that comes 512 bytes later, to write it. A fill does nothing but store, and yet
/// takes 1 to 3 % less beyond the second-level cache (Sapphire Rapids): more lines are under way.
#[inline]
pub(super) fn prefetch_to_write(turn: &[Slot]) {
    // SAFETY: as in `fetch`.
    unsafe {
        asm!(
            "prefetchw [{at} + 512]",
            "prefetchw [{at} + 576]",
            "prefetchw [{at} + 640]",
            "prefetchw [{at} + 704]",
            at = in(reg) turn.as_ptr(),
            options(nostack, preserves_flags),
        );
    }
}

/// Reads a turn of a list, which is ordinary memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn read4(list: &[u64]) -> Turn {
    let list: &[u64; TURN] = list.try_into().expect("a whole turn");
    let at = |i: usize| list.as_ptr().wrapping_add(i * LANES).cast();
    four!(
        |at| {
            // SAFETY: the four vectors are the 32 doublewords of `list`; the load is unaligned.
            unsafe { _mm512_loadu_si512(at) }
        },
        [at(0), at(1), at(2), at(3)]
    )
}

/// Reads up to a vector of a list; the other lanes are 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn read_some(list: &[u64]) -> __m512i {
    // SAFETY: the mask has no more lanes than `list` has doublewords; the others are not touched.
    unsafe { _mm512_maskz_loadu_epi64(mask(list), list.as_ptr().cast()) }
}
