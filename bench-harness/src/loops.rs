// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The loops over memory that operations are compared with: the tree's own, libc's, and what the
//! machine offers beside them. All of them write doublewords of 8 bytes, one for each TCE.

mod raw;

use std::hint::black_box;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use memmap2::{Advice, MmapMut};
use tce_engine::container::LIST_MAX;
use tce_engine::simd::Tier;
use tce_engine::tce::{Perm, Tce};

pub use raw::{HAS_NON_TEMPORAL, libc_version};

/// What is stored: a live entry.
const ENTRY: Tce = Tce::new(1 << 12, Perm::READ);
/// Huge pages of this size are asked for.
const HUGE: usize = 2 << 20;

/// Lists of entries that copies read: as many as the indirect phase of a run has, few enough to stay
/// in the cache, each on a page of its own, as a guest's list is.
pub struct Source {
    words: Vec<Page<u64, LIST_MAX>>,
    /// The same words as bytes, for libc.
    bytes: Vec<Page<u8, { 8 * LIST_MAX }>>,
}

#[derive(Clone)]
#[repr(align(4096))]
struct Page<T, const N: usize>([T; N]);

impl Source {
    /// Number of lists.
    pub const LISTS: usize = 64;

    /// All lists.
    #[must_use]
    pub fn new() -> Self {
        let word = |list: usize, at: usize| ((list * LIST_MAX + at) as u64) << 12 | 3;
        let words = |list| Page(std::array::from_fn(|at| word(list, at).to_be()));
        let words: Vec<Page<u64, LIST_MAX>> = (0..Self::LISTS).map(words).collect();
        let byte = |page: &Page<u64, LIST_MAX>, at: usize| page.0[at / 8].to_le_bytes()[at % 8];
        let bytes = words.iter().map(|page| Page(std::array::from_fn(|at| byte(page, at))));
        Self { bytes: bytes.collect(), words }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory for libc's loops, aligned and backed as a table's is.
pub struct Plain {
    map: MmapMut,
    part: Range<usize>,
}

impl Plain {
    /// `bytes` of zeros.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(bytes: usize) -> anyhow::Result<Self> {
        let no_memory = || format!("no memory for {bytes} bytes");
        let padded = bytes.checked_add(HUGE).with_context(no_memory)?;
        let map = MmapMut::map_anon(padded).with_context(no_memory)?;
        let skip = map.as_ptr().align_offset(HUGE);
        // Advice: the loops are right without it, and the tables got theirs the same way.
        let _ = map.advise_range(Advice::HugePage, skip, bytes);
        Ok(Self { map, part: skip..skip + bytes })
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.map[self.part.clone()]
    }
}

/// The tier's store loop.
pub fn store(tier: &Tier, slots: &[AtomicU64]) {
    tier.store(slots, black_box(ENTRY));
}

/// The tier's copy loop, list by list.
pub fn copy(tier: &Tier, slots: &[AtomicU64], source: &Source) {
    for (slots, list) in slots.chunks(LIST_MAX).zip(source.words.iter().cycle()) {
        tier.put(slots, &list.0[..slots.len()]);
    }
}

/// The tier's clear that goes around the caches, and the wait for it.
pub fn clear_streaming(tier: &Tier, slots: &[AtomicU64]) {
    tier.clear_streaming(slots);
    tier.drain();
}

/// libc's `memset`.
pub fn memset(to: &mut [u8]) {
    to.fill(black_box(0x5a));
    black_box(to);
}

/// libc's `memcpy`, list by list.
pub fn memcpy(to: &mut [u8], source: &Source) {
    for (to, list) in to.chunks_mut(8 * LIST_MAX).zip(source.bytes.iter().cycle()) {
        to.copy_from_slice(&list.0[..to.len()]);
    }
    black_box(to);
}

/// Stores past the caches, fenced once at the end; `to` is aligned to 16 bytes and whole vectors of
/// that size long. Panics where there is no such store ([`HAS_NON_TEMPORAL`]).
pub fn non_temporal(to: &mut [u8]) {
    raw::non_temporal(to, black_box(ENTRY.to_be_word()));
    black_box(to);
}

/// A locked exchange for each entry, as a table without an owner needs it.
pub fn locked_exchange(slots: &[AtomicU64]) {
    let word = black_box(ENTRY.to_be_word());
    for slot in slots {
        black_box(slot.swap(word, Ordering::Relaxed));
    }
}

/// An arithmetic run, one entry at a time: add, swap the bytes, store.
pub fn swap_store(slots: &[AtomicU64]) {
    let mut value = black_box(ENTRY.value());
    for slot in slots {
        slot.store(value.to_be(), Ordering::Relaxed);
        value = value.wrapping_add(1 << 12);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 3 * LIST_MAX + 24;

    fn slots() -> Vec<AtomicU64> {
        (0..SIZE as u64).map(AtomicU64::new).collect()
    }

    fn words(slots: &[AtomicU64]) -> Vec<u64> {
        slots.iter().map(|slot| slot.load(Ordering::Relaxed)).collect()
    }

    fn in_lists(at: usize) -> u64 {
        ((at as u64) << 12 | 3).to_be()
    }

    #[test]
    fn own_loops_write_every_entry() {
        let (source, slots) = (Source::new(), slots());
        let entry = 0x1001u64.to_be();
        for tier in Tier::all() {
            store(tier, &slots);
            assert_eq!(words(&slots), [entry; SIZE], "{}", tier.name());
            copy(tier, &slots, &source);
            assert_eq!(words(&slots), (0..SIZE).map(in_lists).collect::<Vec<_>>());
            clear_streaming(tier, &slots);
            assert_eq!(words(&slots), [0; SIZE]);
        }
        locked_exchange(&slots);
        assert_eq!(words(&slots), [entry; SIZE]);
        swap_store(&slots);
        let run = |i: usize| (0x1001 + ((i as u64) << 12)).to_be();
        assert_eq!(words(&slots), (0..SIZE).map(run).collect::<Vec<_>>());
    }

    #[test]
    fn lists_come_around() {
        let source = Source::new();
        let all: Vec<_> = (0..(Source::LISTS + 1) * LIST_MAX).map(|_| AtomicU64::new(0)).collect();
        copy(Tier::best(), &all, &source);
        let last = words(&all).split_off(Source::LISTS * LIST_MAX);
        assert_eq!(last, (0..LIST_MAX).map(in_lists).collect::<Vec<_>>());
    }

    #[test]
    fn libcs_loops_write_every_byte() {
        let source = Source::new();
        let mut plain = Plain::new(8 * SIZE).unwrap();
        let to = plain.bytes();
        assert_eq!((to.len(), to.as_ptr().align_offset(HUGE)), (8 * SIZE, 0));
        memset(to);
        assert!(to.iter().all(|byte| *byte == 0x5a));
        memcpy(to, &source);
        let bytes: Vec<u8> = (0..SIZE).flat_map(|at| in_lists(at).to_le_bytes()).collect();
        assert!(*to == bytes);
        if HAS_NON_TEMPORAL {
            non_temporal(to);
            let entry = 0x1001u64.to_be().to_le_bytes();
            assert!(to.chunks(8).all(|word| word == entry));
        }
    }

    #[test]
    fn no_memory_is_an_error() {
        for bytes in [usize::MAX, 1 << 62] {
            let error = Plain::new(bytes).err().map(|e| e.to_string()).unwrap();
            assert_eq!(error, format!("no memory for {bytes} bytes"));
        }
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn glibc_says_its_version() {
        let version = libc_version().unwrap();
        let number = version.strip_prefix("glibc 2.").unwrap();
        assert!(number.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    }
}
