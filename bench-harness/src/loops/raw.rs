// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the standard library does not offer: stores past the caches, and the version of libc.

#![allow(unsafe_code)] // intrinsics that take pointers, and one call of libc

/// True if this machine has stores that go past the caches.
pub const HAS_NON_TEMPORAL: bool = cfg!(all(target_arch = "x86_64", not(miri)));

/// See [`non_temporal`](super::non_temporal).
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) fn non_temporal(to: &mut [u8], word: u64) {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { stream(to, word) }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "sse2")]
fn stream(to: &mut [u8], word: u64) {
    use std::arch::x86_64::{__m128i, _mm_set1_epi64x, _mm_sfence, _mm_stream_si128};

    const VECTOR: usize = size_of::<__m128i>();
    assert!(to.as_ptr().align_offset(VECTOR) == 0 && to.len().is_multiple_of(VECTOR));
    let value = _mm_set1_epi64x(word as i64);
    for vector in to.chunks_exact_mut(VECTOR) {
        // SAFETY: `vector` is 16 writable bytes at a multiple of 16: the start is one and all chunks
        // before this one are of that length. Nothing reads them before the fence below, since `to`
        // is borrowed until then.
        unsafe { _mm_stream_si128(vector.as_mut_ptr().cast(), value) };
    }
    _mm_sfence();
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) fn non_temporal(_: &mut [u8], _: u64) {
    panic!("this machine has no non-temporal store; HAS_NON_TEMPORAL says so");
}

/// Name and version of the libc that this program runs with, as `glibc 2.41`; `None` if it does not
/// tell.
#[cfg(all(target_env = "gnu", not(miri)))]
#[must_use]
pub fn libc_version() -> Option<String> {
    // SAFETY: the function takes nothing and returns a pointer to a constant of libc.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: glibc documents it as a string with a final NUL; being a constant, it is never freed
    // or changed.
    let version = unsafe { std::ffi::CStr::from_ptr(version) };
    Some(format!("glibc {}", version.to_string_lossy()))
}

/// Name and version of libc; `None`, since this one does not tell.
#[cfg(not(all(target_env = "gnu", not(miri))))]
#[must_use]
pub fn libc_version() -> Option<String> {
    None
}
