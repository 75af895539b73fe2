// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The summary that AVX-512 loops keep.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_mask_add_epi64, _mm512_mask_and_epi64, _mm512_mask_or_epi64,
    _mm512_reduce_add_epi64, _mm512_reduce_and_epi64, _mm512_reduce_or_epi64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_ternarylogic_epi64, _mm512_test_epi64_mask,
    _mm512_testn_epi64_mask,
};

use super::Turn;
use crate::tce::{Summary, Tce};

/// AND of three.
#[inline]
#[target_feature(enable = "avx512f")]
fn and3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x80>(a, b, c)
}

/// OR of three.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn or3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0xfe>(a, b, c)
}

/// The summary of what a loop has passed, lane by lane.
pub(super) struct Tally {
    /// The control bits where the entries have them.
    pub(super) control: __m512i,
    and: __m512i,
    or: __m512i,
    live: __m512i,
}

impl Tally {
    /// For words.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn words() -> Self {
        Self::new(Tce::from_value(Tce::CONTROL_MASK).to_be_word())
    }

    /// For values.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn values() -> Self {
        Self::new(Tce::CONTROL_MASK)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(control: u64) -> Self {
        let zero = _mm512_setzero_si512();
        let control = _mm512_set1_epi64(control as i64);
        Self { control, and: _mm512_set1_epi64(-1), or: zero, live: zero }
    }

    /// Adds a turn. The usual one needs no look at single entries: if each lane of AND has a
    /// control bit then all are live.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn add4(&mut self, v: Turn) {
        let [a, b, c, d] = v;
        let and = and3(and3(self.and, a, b), c, d);
        if _mm512_testn_epi64_mask(and, self.control) == 0 {
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
    pub(super) fn add(&mut self, v: __m512i) {
        let live = _mm512_test_epi64_mask(v, self.control);
        self.and = _mm512_mask_and_epi64(self.and, live, self.and, v);
        self.or = _mm512_mask_or_epi64(self.or, live, self.or, v);
        self.live = _mm512_mask_add_epi64(self.live, live, self.live, _mm512_set1_epi64(1));
    }

    /// The summary of all that was added, as values.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn finish(&self) -> Summary {
        Summary {
            live: _mm512_reduce_add_epi64(self.live) as u64,
            and: _mm512_reduce_and_epi64(self.and) as u64,
            or: _mm512_reduce_or_epi64(self.or) as u64,
        }
    }

    /// The summary of all that was added, as words.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn finish_words(&self) -> Summary {
        let s = self.finish();
        Summary { and: u64::from_be(s.and), or: u64::from_be(s.or), ..s }
    }
}
