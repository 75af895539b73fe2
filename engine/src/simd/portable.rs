// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tier for every machine, and the oracle for the others: relaxed atomic accesses, one entry at
//! a time, no `unsafe`. The other tiers use its functions for what is too short for a vector; they
//! are never inlined there, because the vector loops are better off without their registers.

use super::Tier;
use crate::sync::{Ordering, Slot};
use crate::tce::{Summary, Tce};

pub(super) static TIER: Tier = Tier {
    name: "portable",
    fill,
    fill_empty,
    fill_frames: |slots, frames| frames.one_by_one(slots, fill),
    store,
    put,
    list,
    exchange,
    replace,
    take,
    clear,
    clear_streaming: clear,
    drain: || {},
    any_live,
    scan,
    survey,
};

#[inline(never)]
pub(super) fn fill(slots: &[Slot], first: Tce, step: u64) {
    let mut value = first.value();
    for slot in slots {
        slot.store(value.to_be(), Ordering::Relaxed);
        value = value.wrapping_add(step);
    }
}

#[inline(never)]
pub(super) fn fill_empty(slots: &[Slot], first: Tce, step: u64) -> bool {
    let empty = !any_live(slots);
    if empty {
        fill(slots, first, step);
    }
    empty
}

#[inline(never)]
pub(super) fn store(slots: &[Slot], tce: Tce) {
    for slot in slots {
        slot.store(tce.to_be_word(), Ordering::Relaxed);
    }
}

#[inline(never)]
pub(super) fn put(slots: &[Slot], words: &[u64]) {
    for (slot, word) in slots.iter().zip(words) {
        slot.store(*word, Ordering::Relaxed);
    }
}

#[inline(never)]
pub(super) fn list(slots: &[Slot], values: &[u64]) -> Summary {
    slots.iter().zip(values).fold(Summary::NONE, |s, (slot, value)| {
        let tce = Tce::from_value(*value);
        slot.store(tce.to_be_word(), Ordering::Relaxed);
        s.with(tce)
    })
}

/// Writes a word and returns the one before it. Not a swap: the caller is the only writer, and a
/// locked instruction costs ten times more.
#[inline]
fn turn_over(slot: &Slot, word: u64) -> u64 {
    let old = slot.load(Ordering::Relaxed);
    slot.store(word, Ordering::Relaxed);
    old
}

#[inline(never)]
pub(super) fn exchange(slots: &[Slot], words: &[u64], old: &mut [u64]) {
    for ((slot, word), old) in slots.iter().zip(words).zip(old) {
        *old = turn_over(slot, *word);
    }
}

#[inline(never)]
pub(super) fn replace(slots: &[Slot], words: &[u64]) -> Summary {
    summarise(slots.iter().zip(words).map(|(slot, word)| turn_over(slot, *word)))
}

#[inline(never)]
pub(super) fn take(slots: &[Slot]) -> Summary {
    summarise(slots.iter().map(|slot| turn_over(slot, Tce::EMPTY.to_be_word())))
}

#[inline(never)]
pub(super) fn clear(slots: &[Slot]) {
    store(slots, Tce::EMPTY);
}

#[inline(never)]
pub(super) fn any_live(slots: &[Slot]) -> bool {
    let or = slots.iter().fold(0, |or, slot| or | slot.load(Ordering::Relaxed));
    !Tce::from_be_word(or).is_empty()
}

#[inline(never)]
pub(super) fn scan(slots: &[Slot]) -> Summary {
    summarise(slots.iter().map(|s| s.load(Ordering::Relaxed)))
}

#[inline(never)]
pub(super) fn survey(words: &[u64]) -> Summary {
    summarise(words.iter().copied())
}

#[inline]
fn summarise(words: impl Iterator<Item = u64>) -> Summary {
    words.fold(Summary::NONE, |s, w| s.with(Tce::from_be_word(w)))
}
