// SPDX-License-Identifier: Apache-2.0 OR MIT
//! POWER8 and POWER9, little-endian: two entries a vector. All accesses to table memory are `asm!`,
//! because devices read it at any time; whole loops stand in one block each (`ppc64/turns.rs`),
//! because stable Rust cannot carry a vector from one block to the next.
//!
//! Entries are stored by `stxvd2x`, which is defined as two stores of a doubleword, so nobody sees
//! half of one. `stxvb16x` would need no swap of bytes, but is defined as 16 stores of a byte, and
//! `dcbz` says nothing of what others see.

#![allow(unsafe_code)]

mod turns;

use turns::{TURN, Totals};

use super::{Frames, Tier, portable};
use crate::sync::Slot;
use crate::tce::{Summary, Tce};

const POWER8: Tier = Tier {
    name: "power8",
    fill: |slots, first, step| fill(slots, first, step, turns::fill_power8),
    fill_empty: |slots, first, step| fill_empty(slots, first, step, turns::fill_power8),
    fill_frames: |slots, frames| fill_frames(slots, frames, turns::fill_power8),
    store,
    put,
    list: |slots, values| list(slots, values, turns::list_power8),
    exchange,
    replace,
    take,
    clear: |slots| store(slots, Tce::EMPTY),
    clear_streaming: |slots| store(slots, Tce::EMPTY),
    drain: || {},
    any_live,
    scan,
    survey,
};

/// The tier, if this machine has the vectors of POWER8.
pub(super) fn power8() -> Option<&'static Tier> {
    static TIER: Tier = POWER8;
    has_power8().then_some(&TIER)
}

/// The tier, if this machine can swap the bytes of a vector's doublewords in one go.
pub(super) fn power9() -> Option<&'static Tier> {
    static TIER: Tier = Tier {
        name: "power9",
        fill: |slots, first, step| fill(slots, first, step, turns::fill_power9),
        fill_empty: |slots, first, step| fill_empty(slots, first, step, turns::fill_power9),
        fill_frames: |slots, frames| fill_frames(slots, frames, turns::fill_power9),
        list: |slots, values| list(slots, values, turns::list_power9),
        ..POWER8
    };
    (has_power8() && second_capabilities() & ISA_3_00 != 0).then_some(&TIER)
}

// What Linux says of the machine, by its published numbers.
const ALTIVEC: u64 = 0x1000_0000;
const VSX: u64 = 0x80;
const ISA_2_07: u64 = 0x8000_0000;
const ISA_3_00: u64 = 0x0080_0000;

pub(super) fn has_power8() -> bool {
    // SAFETY: it only reads what the kernel passed at the start of the process.
    let capabilities = unsafe { libc::getauxval(libc::AT_HWCAP) };
    capabilities & ALTIVEC != 0 && capabilities & VSX != 0 && second_capabilities() & ISA_2_07 != 0
}

fn second_capabilities() -> u64 {
    // SAFETY: as in `has_power8`.
    unsafe { libc::getauxval(libc::AT_HWCAP2) }
}

/// Splits off the part that whole turns cover, and says how many these are.
fn whole_turns<T>(all: &[T]) -> (&[T], &[T], usize) {
    let turns = all.len() / TURN;
    let (body, rest) = all.split_at(turns * TURN);
    (body, rest, turns)
}

/// Splits a slice to write the same way.
fn whole_turns_mut<T>(all: &mut [T]) -> (&mut [T], &mut [T]) {
    all.split_at_mut(all.len() / TURN * TURN)
}

/// A loop that fills whole turns.
type FillTurns = unsafe fn(*const Slot, usize, u64, u64);
/// A loop that lists whole turns.
type ListTurns = unsafe fn(*const Slot, *const u64, usize) -> Totals;

fn fill(slots: &[Slot], first: Tce, step: u64, fill_turns: FillTurns) {
    let (body, rest, turns) = whole_turns(slots);
    let mut next = first.value();
    if turns > 0 {
        // SAFETY: `body` is that many turns of slots; the tier exists, so the machine can run it.
        unsafe { fill_turns(body.as_ptr(), turns, next, step) };
        next = next.wrapping_add(step.wrapping_mul(body.len() as u64));
    }
    if !rest.is_empty() {
        // SAFETY: the slots of `rest` are as many as it says, and not none.
        unsafe { turns::fill_few(rest.as_ptr(), rest.len(), next, step) };
    }
}

fn fill_empty(slots: &[Slot], first: Tce, step: u64, fill_turns: FillTurns) -> bool {
    let empty = !any_live(slots);
    if empty {
        fill(slots, first, step, fill_turns);
    }
    empty
}

fn fill_frames(slots: &[Slot], frames: &Frames<'_>, fill_turns: FillTurns) {
    frames.one_by_one(slots, |slots, first, step| fill(slots, first, step, fill_turns));
}

fn store(slots: &[Slot], tce: Tce) {
    let (body, rest, turns) = whole_turns(slots);
    if turns > 0 {
        // SAFETY: `body` is that many turns of slots.
        unsafe { turns::store(body.as_ptr(), turns, tce.to_be_word()) };
    }
    portable::store(rest, tce);
}

fn put(slots: &[Slot], words: &[u64]) {
    let (body, rest, turns) = whole_turns(slots);
    let (words, rest_words, _) = whole_turns(words);
    if turns > 0 {
        // SAFETY: both are that many turns.
        unsafe { turns::put(body.as_ptr(), words.as_ptr(), turns) };
    }
    portable::put(rest, rest_words);
}

fn list(slots: &[Slot], values: &[u64], list_turns: ListTurns) -> Summary {
    let (body, rest, turns) = whole_turns(slots);
    let (values, rest_values, _) = whole_turns(values);
    let end = portable::list(rest, rest_values);
    if turns == 0 {
        return end;
    }
    // SAFETY: both are that many turns; the tier exists, so the machine can run it.
    let totals = unsafe { list_turns(body.as_ptr(), values.as_ptr(), turns) };
    totals.of_values(turns).merge(end)
}

fn exchange(slots: &[Slot], words: &[u64], old: &mut [u64]) {
    let (body, rest, turns) = whole_turns(slots);
    let (words, rest_words, _) = whole_turns(words);
    let (old, rest_old) = whole_turns_mut(old);
    if turns > 0 {
        // SAFETY: all three are that many turns, and `old` is nobody else's.
        unsafe { turns::exchange(body.as_ptr(), words.as_ptr(), old.as_mut_ptr(), turns) };
    }
    portable::exchange(rest, rest_words, rest_old);
}

fn replace(slots: &[Slot], words: &[u64]) -> Summary {
    let (body, rest, turns) = whole_turns(slots);
    let (words, rest_words, _) = whole_turns(words);
    let end = portable::replace(rest, rest_words);
    if turns == 0 {
        return end;
    }
    // SAFETY: both are that many turns.
    let totals = unsafe { turns::replace(body.as_ptr(), words.as_ptr(), turns) };
    totals.of_words(turns).merge(end)
}

fn take(slots: &[Slot]) -> Summary {
    let (body, rest, turns) = whole_turns(slots);
    let end = portable::take(rest);
    if turns == 0 {
        return end;
    }
    // SAFETY: `body` is that many turns of slots.
    unsafe { turns::take(body.as_ptr(), turns) }.of_words(turns).merge(end)
}

fn any_live(slots: &[Slot]) -> bool {
    let (body, rest, turns) = whole_turns(slots);
    if portable::any_live(rest) {
        return true;
    }
    // SAFETY: `body` is that many turns of slots.
    turns > 0 && !Tce::from_be_word(unsafe { turns::or(body.as_ptr(), turns) }).is_empty()
}

fn scan(slots: &[Slot]) -> Summary {
    let (body, rest, turns) = whole_turns(slots);
    let end = portable::scan(rest);
    if turns == 0 {
        return end;
    }
    // SAFETY: `body` is that many turns of slots, and a slot is a doubleword.
    unsafe { turns::scan(body.as_ptr().cast(), turns) }.of_words(turns).merge(end)
}

fn survey(words: &[u64]) -> Summary {
    let (body, rest, turns) = whole_turns(words);
    let end = portable::survey(rest);
    if turns == 0 {
        return end;
    }
    // SAFETY: `body` is that many turns of doublewords.
    unsafe { turns::scan(body.as_ptr(), turns) }.of_words(turns).merge(end)
}
