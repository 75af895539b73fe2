// SPDX-License-Identifier: Apache-2.0 OR MIT
//! POWER8's vectors by `core::arch`, which only a nightly compiler has. It does what the power8 tier
//! does in assembly; a comparison of the two shows what a compiler makes of it.
//!
//! The vector *values* come from intrinsics. The accesses to memory are `asm!`, as in the AVX2 tier:
//! plain stores would race with devices, and `vec_xl` and `vec_xst` would cost an exchange of a
//! vector's halves each. `lxvd2x` and `stxvd2x` leave the halves exchanged, both of them.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::powerpc64::{
    vec_add, vec_all_eq, vec_and, vec_andc, vec_any_eq, vec_cmpeq, vec_or, vec_perm, vec_sub,
    vector_bool_char, vector_unsigned_char, vector_unsigned_int,
};
use std::mem::transmute;

use super::{Frames, Tier, portable, ppc64};
use crate::sync::Slot;
use crate::tce::{Summary, Tce};

/// Entries in a vector.
const LANES: usize = 2;
/// Entries that one turn of a loop handles. Fewer are left to the portable tier.
const TURN: usize = 4 * LANES;
/// A turn's entries.
type Turn = [vector_unsigned_char; 4];

/// The tier, if this machine has the vectors of POWER8.
pub(super) fn tier() -> Option<&'static Tier> {
    static TIER: Tier = Tier {
        name: "stdarch",
        // SAFETY: the only way to this tier is through the detection below.
        fill: |slots, first, step| unsafe { fill(slots, first, step) },
        fill_empty: |slots, first, step| {
            // SAFETY: as above.
            let empty = !unsafe { any_live(slots) };
            if empty {
                // SAFETY: as above.
                unsafe { fill(slots, first, step) };
            }
            empty
        },
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
        clear_streaming: |slots| unsafe { store(slots, Tce::EMPTY) },
        drain: || {},
        // SAFETY: as above.
        any_live: |slots| unsafe { any_live(slots) },
        // SAFETY: as above; a slot is a doubleword.
        scan: |slots| unsafe { totals(slots.as_ptr().cast(), slots.len()) },
        // SAFETY: as above.
        survey: |words| unsafe { totals(words.as_ptr(), words.len()) },
    };
    ppc64::has_power8().then_some(&TIER)
}

/// Loads a turn from `at`.
///
/// # Safety
/// `at` points to 8 doublewords.
#[inline]
#[target_feature(enable = "vsx,power8-vector")]
unsafe fn load4(at: *const u64) -> Turn {
    let (a, b, c, d);
    // SAFETY: the caller vouches for the memory; asm accesses take no part in Rust's race rules.
    unsafe {
        asm!(
            "lxvd2x {a}, 0, {at}",
            "lxvd2x {b}, {at}, {at16}",
            "lxvd2x {c}, {at}, {at32}",
            "lxvd2x {d}, {at}, {at48}",
            at = in(reg_nonzero) at,
            at16 = in(reg) 16,
            at32 = in(reg) 32,
            at48 = in(reg) 48,
            a = out(vsreg) a,
            b = out(vsreg) b,
            c = out(vsreg) c,
            d = out(vsreg) d,
            options(nostack, preserves_flags, readonly),
        );
    }
    [a, b, c, d]
}

/// Stores a turn at `at`.
///
/// # Safety
/// `at` points to 8 doublewords that stay valid for the call: slots, or the caller's alone.
#[inline]
#[target_feature(enable = "vsx,power8-vector")]
unsafe fn store4(at: *const u64, v: Turn) {
    // SAFETY: as in `load4`; slots are atomics, so writing through a shared pointer is allowed.
    unsafe {
        asm!(
            "stxvd2x {a}, 0, {at}",
            "stxvd2x {b}, {at}, {at16}",
            "stxvd2x {c}, {at}, {at32}",
            "stxvd2x {d}, {at}, {at48}",
            at = in(reg_nonzero) at,
            at16 = in(reg) 16,
            at32 = in(reg) 32,
            at48 = in(reg) 48,
            a = in(vsreg) v[0],
            b = in(vsreg) v[1],
            c = in(vsreg) v[2],
            d = in(vsreg) v[3],
            options(nostack, preserves_flags),
        );
    }
}

/// The vector of two doublewords, the second of which will be stored first.
#[inline]
fn pair(doublewords: [u64; 2]) -> vector_unsigned_char {
    // SAFETY: all bits of either are valid.
    unsafe { transmute::<[u64; 2], vector_unsigned_char>(doublewords) }
}

/// The doublewords of a vector.
#[inline]
fn halves(v: vector_unsigned_char) -> [u64; 2] {
    // SAFETY: all bits of either are valid.
    unsafe { transmute::<vector_unsigned_char, [u64; 2]>(v) }
}

#[inline]
fn words(v: vector_unsigned_char) -> vector_unsigned_int {
    // SAFETY: all bits of either are valid.
    unsafe { transmute::<vector_unsigned_char, vector_unsigned_int>(v) }
}

// The intrinsics, on bytes. None of them has a condition beyond the instructions.

#[inline]
#[target_feature(enable = "vsx,power8-vector")]
fn and(a: vector_unsigned_char, b: vector_unsigned_char) -> vector_unsigned_char {
    // SAFETY: the function has the instructions.
    unsafe { vec_and(a, b) }
}

#[inline]
#[target_feature(enable = "vsx,power8-vector")]
fn or(a: vector_unsigned_char, b: vector_unsigned_char) -> vector_unsigned_char {
    // SAFETY: the function has the instructions.
    unsafe { vec_or(a, b) }
}

/// Picks bytes of `v` by their numbers.
#[inline]
#[target_feature(enable = "vsx,power8-vector")]
fn pick(v: vector_unsigned_char, bytes: vector_unsigned_char) -> vector_unsigned_char {
    // SAFETY: the function has the instructions.
    unsafe { vec_perm(v, v, bytes) }
}

/// For [`pick`], to reverse the bytes of each entry.
#[inline]
fn swap() -> vector_unsigned_char {
    pair([0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f])
}

/// The summary of what a loop has passed, lane by lane.
struct Tally {
    /// The control bits where the entries have them.
    control: vector_unsigned_char,
    /// All bits of the other bytes.
    others: vector_unsigned_char,
    /// For [`pick`]: the byte with the control bits, eight times for each entry.
    picked: vector_unsigned_char,
    zero: vector_unsigned_char,
    and: vector_unsigned_char,
    or: vector_unsigned_char,
    /// The number of empty entries. Each word of a lane counts.
    empty: vector_unsigned_int,
}

impl Tally {
    /// For entries with the control bits at `control`.
    #[inline]
    fn new(control: u64) -> Self {
        let byte = u64::from(control.trailing_zeros() / 8);
        let (zero, repeat) = (pair([0; 2]), 0x0101_0101_0101_0101);
        Self {
            control: pair([control; 2]),
            others: pair([!(0xff << (8 * byte)); 2]),
            picked: pair([byte * repeat, (byte + 8) * repeat]),
            zero,
            and: pair([!0; 2]),
            or: zero,
            empty: words(zero),
        }
    }

    /// For words.
    #[inline]
    fn words() -> Self {
        Self::new(Tce::from_value(Tce::CONTROL_MASK).to_be_word())
    }

    /// For values.
    #[inline]
    fn values() -> Self {
        Self::new(Tce::CONTROL_MASK)
    }

    /// Adds a turn. The two usual ones need no look at single entries: if each lane of AND has a
    /// control bit then all are live, if no lane of OR has one then none is.
    #[inline]
    #[target_feature(enable = "vsx,power8-vector")]
    fn add(&mut self, v: Turn) {
        let [a, b, c, d] = v;
        let turn_and = and(and(a, b), and(c, d));
        let turn_or = or(or(a, b), or(c, d));
        let controls = or(and(turn_and, self.control), self.others);
        // SAFETY: the function has the instructions.
        if !unsafe { vec_any_eq(controls, self.zero) } {
            self.and = and(self.and, turn_and);
            self.or = or(self.or, turn_or);
            return;
        }
        let controls = and(turn_or, self.control);
        // SAFETY: as above.
        if unsafe { vec_all_eq(controls, self.zero) } {
            // SAFETY: as above.
            self.empty = unsafe { vec_add(self.empty, words(pair([0x4_0000_0004; 2]))) };
            return;
        }
        for v in v {
            let empty = self.empty_lanes(v);
            self.and = and(self.and, or(v, empty));
            // SAFETY: as above.
            self.or = or(self.or, unsafe { vec_andc(v, empty) });
            // SAFETY: as above. All bits of a lane are −1.
            self.empty = unsafe { vec_sub(self.empty, words(empty)) };
        }
    }

    /// All bits where a lane is empty.
    #[inline]
    #[target_feature(enable = "vsx,power8-vector")]
    fn empty_lanes(&self, v: vector_unsigned_char) -> vector_unsigned_char {
        let controls = and(v, self.control);
        // SAFETY: the function has the instructions.
        let equal: vector_bool_char = unsafe { vec_cmpeq(controls, self.zero) };
        // SAFETY: all bits of either are valid.
        let equal = unsafe { transmute::<vector_bool_char, vector_unsigned_char>(equal) };
        pick(equal, self.picked)
    }

    /// The summary of `n` entries that were added as values.
    fn finish(&self, n: usize) -> Summary {
        // SAFETY: all bits of either are valid.
        let empty = unsafe { transmute::<vector_unsigned_int, [u32; 4]>(self.empty) };
        Summary {
            live: n as u64 - u64::from(empty[0]) - u64::from(empty[2]),
            and: halves(self.and)[0] & halves(self.and)[1],
            or: halves(self.or)[0] | halves(self.or)[1],
        }
    }

    /// The summary of `n` entries that were added as words.
    fn finish_words(&self, n: usize) -> Summary {
        let s = self.finish(n);
        Summary { and: u64::from_be(s.and), or: u64::from_be(s.or), ..s }
    }
}

/// Splits off the part that whole turns cover.
#[inline]
fn whole_turns<T>(all: &[T]) -> (&[T], &[T]) {
    all.split_at(all.len() - all.len() % TURN)
}

#[target_feature(enable = "vsx,power8-vector")]
fn fill(slots: &[Slot], first: Tce, step: u64) {
    let (body, rest) = whole_turns(slots);
    let mut next = first.value();
    // There is no addition of doublewords among the intrinsics.
    let nth = |next: u64, i: u64| next.wrapping_add(step.wrapping_mul(i));
    for turn in body.chunks_exact(TURN) {
        let v = [0, 2, 4, 6].map(|i| pick(pair([nth(next, i + 1), nth(next, i)]), swap()));
        // SAFETY: `turn` is 8 slots.
        unsafe { store4(turn.as_ptr().cast(), v) };
        next = nth(next, TURN as u64);
    }
    portable::fill(rest, Tce::from_value(next), step);
}

#[target_feature(enable = "vsx,power8-vector")]
fn fill_frames(slots: &[Slot], frames: &Frames<'_>) {
    frames.one_by_one(slots, |slots, first, step| fill(slots, first, step));
}

#[target_feature(enable = "vsx,power8-vector")]
fn store(slots: &[Slot], tce: Tce) {
    let (body, rest) = whole_turns(slots);
    let v = pair([tce.to_be_word(); 2]);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 8 slots.
        unsafe { store4(turn.as_ptr().cast(), [v; 4]) };
    }
    portable::store(rest, tce);
}

#[target_feature(enable = "vsx,power8-vector")]
fn put(slots: &[Slot], words: &[u64]) {
    let ((body, rest), (words, rest_words)) = (whole_turns(slots), whole_turns(words));
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        // SAFETY: `words` is 8 doublewords.
        let v = unsafe { load4(words.as_ptr()) };
        // SAFETY: `turn` is 8 slots.
        unsafe { store4(turn.as_ptr().cast(), v) };
    }
    portable::put(rest, rest_words);
}

#[target_feature(enable = "vsx,power8-vector")]
fn list(slots: &[Slot], values: &[u64]) -> Summary {
    let ((body, rest), (values, rest_values)) = (whole_turns(slots), whole_turns(values));
    let mut tally = Tally::values();
    for (turn, values) in body.chunks_exact(TURN).zip(values.chunks_exact(TURN)) {
        // SAFETY: `values` is 8 doublewords.
        let v = unsafe { load4(values.as_ptr()) };
        tally.add(v);
        let v = v.map(|v| pick(v, swap()));
        // SAFETY: `turn` is 8 slots.
        unsafe { store4(turn.as_ptr().cast(), v) };
    }
    tally.finish(body.len()).merge(portable::list(rest, rest_values))
}

#[target_feature(enable = "vsx,power8-vector")]
fn exchange(slots: &[Slot], words: &[u64], old: &mut [u64]) {
    let ((body, rest), (words, rest_words)) = (whole_turns(slots), whole_turns(words));
    let (old, rest_old) = old.split_at_mut(body.len());
    let turns = body.chunks_exact(TURN).zip(words.chunks_exact(TURN));
    for ((turn, words), old) in turns.zip(old.chunks_exact_mut(TURN)) {
        // SAFETY: `turn` is 8 slots, and a slot is a doubleword.
        let before = unsafe { load4(turn.as_ptr().cast()) };
        // SAFETY: `words` is 8 doublewords.
        let v = unsafe { load4(words.as_ptr()) };
        // SAFETY: `turn` is 8 slots.
        unsafe { store4(turn.as_ptr().cast(), v) };
        // SAFETY: `old` is 8 doublewords that nobody else can see.
        unsafe { store4(old.as_mut_ptr(), before) };
    }
    portable::exchange(rest, rest_words, rest_old);
}

#[target_feature(enable = "vsx,power8-vector")]
fn replace(slots: &[Slot], words: &[u64]) -> Summary {
    let ((body, rest), (words, rest_words)) = (whole_turns(slots), whole_turns(words));
    let mut tally = Tally::words();
    for (turn, words) in body.chunks_exact(TURN).zip(words.chunks_exact(TURN)) {
        // SAFETY: `turn` is 8 slots, and a slot is a doubleword.
        tally.add(unsafe { load4(turn.as_ptr().cast()) });
        // SAFETY: `words` is 8 doublewords.
        let v = unsafe { load4(words.as_ptr()) };
        // SAFETY: `turn` is 8 slots.
        unsafe { store4(turn.as_ptr().cast(), v) };
    }
    tally.finish_words(body.len()).merge(portable::replace(rest, rest_words))
}

#[target_feature(enable = "vsx,power8-vector")]
fn take(slots: &[Slot]) -> Summary {
    let (body, rest) = whole_turns(slots);
    let mut tally = Tally::words();
    let zero = [tally.zero; 4];
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 8 slots, and a slot is a doubleword.
        tally.add(unsafe { load4(turn.as_ptr().cast()) });
        // SAFETY: as above.
        unsafe { store4(turn.as_ptr().cast(), zero) };
    }
    tally.finish_words(body.len()).merge(portable::take(rest))
}

#[target_feature(enable = "vsx,power8-vector")]
fn any_live(slots: &[Slot]) -> bool {
    let (body, rest) = whole_turns(slots);
    let mut all = pair([0; 2]);
    for turn in body.chunks_exact(TURN) {
        // SAFETY: `turn` is 8 slots, and a slot is a doubleword.
        let [a, b, c, d] = unsafe { load4(turn.as_ptr().cast()) };
        all = or(or(or(a, b), or(c, d)), all);
    }
    let [a, b] = halves(all);
    !Tce::from_be_word(a | b).is_empty() || portable::any_live(rest)
}

/// Counts and bounds words.
///
/// # Safety
/// `from` points to `n` doublewords.
#[target_feature(enable = "vsx,power8-vector")]
unsafe fn totals(from: *const u64, n: usize) -> Summary {
    let body = n - n % TURN;
    let mut tally = Tally::words();
    for i in (0..body).step_by(TURN) {
        // SAFETY: `i + 8 <= n`.
        tally.add(unsafe { load4(from.wrapping_add(i)) });
    }
    (body..n).fold(tally.finish_words(body), |s, i| {
        // SAFETY: `i < n`. Volatile, because another owner's slots may change under a scan.
        s.with(Tce::from_be_word(unsafe { from.wrapping_add(i).read_volatile() }))
    })
}
