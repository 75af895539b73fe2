// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tier for every machine, and the oracle for the others: relaxed atomic accesses, one entry at
//! a time, no `unsafe`.

use super::Tier;
use crate::sync::{Ordering, Slot};
use crate::tce::{Summary, Tce};

pub(super) static TIER: Tier = Tier { name: "portable", fill, store, put, exchange, scan, survey };

fn fill(slots: &[Slot], first: Tce, step: u64) {
    let mut value = first.value();
    for slot in slots {
        slot.store(value.to_be(), Ordering::Relaxed);
        value = value.wrapping_add(step);
    }
}

fn store(slots: &[Slot], tce: Tce) {
    for slot in slots {
        slot.store(tce.to_be_word(), Ordering::Relaxed);
    }
}

fn put(slots: &[Slot], words: &[u64]) {
    for (slot, word) in slots.iter().zip(words) {
        slot.store(*word, Ordering::Relaxed);
    }
}

fn exchange(slots: &[Slot], words: &[u64], old: &mut [u64]) {
    for ((slot, word), old) in slots.iter().zip(words).zip(old) {
        // Not a swap: the caller is the only writer, and a locked instruction costs ten times more.
        *old = slot.load(Ordering::Relaxed);
        slot.store(*word, Ordering::Relaxed);
    }
}

fn scan(slots: &[Slot]) -> Summary {
    summarise(slots.iter().map(|s| s.load(Ordering::Relaxed)))
}

fn survey(words: &[u64]) -> Summary {
    summarise(words.iter().copied())
}

fn summarise(words: impl Iterator<Item = u64>) -> Summary {
    words.fold(Summary::NONE, |s, w| s.with(Tce::from_be_word(w)))
}
