// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The summary that AVX2 loops keep.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_and_si128, _mm_cvtsi128_si64, _mm_or_si128, _mm_unpackhi_epi64,
    _mm256_add_epi64, _mm256_and_si256, _mm256_andnot_si256, _mm256_castsi256_si128,
    _mm256_cmpeq_epi64, _mm256_extract_epi64, _mm256_extracti128_si256, _mm256_or_si256,
    _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_testc_si256, _mm256_testz_si256,
};

use super::Turn;
use crate::tce::{Perm, Summary, Tce};

/// The summary of what a loop has passed, lane by lane.
pub(super) struct Tally {
    /// The control bits, and one of them, where the entries have them.
    pub(super) control: __m256i,
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
    pub(super) fn words() -> Self {
        let bits = |value| _mm256_set1_epi64x(Tce::from_value(value).to_be_word() as i64);
        Self::new(bits(Tce::CONTROL_MASK), bits(Perm::READ.bits()))
    }

    /// For values.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn values() -> Self {
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
    pub(super) fn add(&mut self, v: Turn) {
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
    pub(super) fn finish(&self, n: usize) -> Summary {
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
    pub(super) fn finish_words(&self, n: usize) -> Summary {
        let s = self.finish(n);
        Summary { and: u64::from_be(s.and), or: u64::from_be(s.or), ..s }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn halves(v: __m256i) -> (__m128i, __m128i) {
    (_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v))
}
