// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The loops over TCEs, in tiers: portable, and one for each instruction set worth it.
//!
//! A tier is a set of functions that all do, byte for byte, what the one-line definitions in
//! `tests.rs` say. It exists only if the machine can run it, is chosen once, and is named in every
//! result.

mod portable;
#[cfg(all(target_arch = "powerpc64", target_endian = "little", not(any(loom, miri))))]
mod ppc64;
#[cfg(all(
    feature = "stdarch-powerpc",
    target_arch = "powerpc64",
    target_endian = "little",
    not(any(loom, miri))
))]
mod ppc64_stdarch;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
mod x86;
#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
mod x86_avx2;
#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
mod x86_avx512;

use std::fmt;

use crate::addr::Hpa;
use crate::sync::{Ordering, Slot};
use crate::tce::{Perm, Summary, Tce};

/// One implementation of the loops over TCEs. All tiers write the same bytes.
///
/// A list is a slice of *words*: doublewords whose bytes in memory are those of the big-endian
/// entries, as they stand in a table or in a guest's list page. *Values* are the entries as numbers.
///
/// What writes expects to be the only writer of its slots; anybody may read them meanwhile and sees
/// each entry whole, old or new.
pub struct Tier {
    name: &'static str,
    fill: fn(&[Slot], Tce, u64),
    fill_empty: fn(&[Slot], Tce, u64) -> bool,
    fill_frames: fn(&[Slot], &Frames<'_>),
    store: fn(&[Slot], Tce),
    put: fn(&[Slot], &[u64]),
    list: fn(&[Slot], &[u64]) -> Summary,
    exchange: fn(&[Slot], &[u64], &mut [u64]),
    replace: fn(&[Slot], &[u64]) -> Summary,
    take: fn(&[Slot]) -> Summary,
    clear: fn(&[Slot]),
    clear_streaming: fn(&[Slot]),
    drain: fn(),
    any_live: fn(&[Slot]) -> bool,
    scan: fn(&[Slot]) -> Summary,
    survey: fn(&[u64]) -> Summary,
}

impl Tier {
    /// The fastest tier of this machine.
    #[must_use]
    pub fn best() -> &'static Self {
        Self::all().last().unwrap_or(&portable::TIER)
    }

    /// The tier of that name, if this machine can run it.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|t| t.name == name)
    }

    /// Every tier that this machine can run, the portable one first, the fastest last.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        // On a Sapphire Rapids VM, minima of interleaved turns: where the second-level cache (64 KiB)
        // or the third (4 MiB) is the limit, AVX-512 is within 5 % of AVX2, except that it takes 15 %
        // less for a checked fill and half for mixed entries. In the first-level cache it takes 10 to
        // 35 % less, in memory (256 MiB) 10 %.
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        let fast = [x86_avx2::tier(), x86_avx512::tier()];
        // Not measured on POWER. By instructions the last two are equal, and ahead of the first.
        #[cfg(all(target_arch = "powerpc64", target_endian = "little", not(any(loom, miri))))]
        let fast = [
            #[cfg(feature = "stdarch-powerpc")]
            ppc64_stdarch::tier(),
            ppc64::power8(),
            ppc64::power9(),
        ];
        #[cfg(any(
            loom,
            miri,
            not(any(
                target_arch = "x86_64",
                all(target_arch = "powerpc64", target_endian = "little")
            ))
        ))]
        let fast = [None];
        std::iter::once(&portable::TIER).chain(fast.into_iter().flatten())
    }

    /// The tier's name: `portable`, `avx2`, `avx512`, `power8`, `power9`, or `stdarch` where the
    /// feature `stdarch-powerpc` makes one.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Writes an arithmetic run: entry *i* becomes `first + i * step`.
    #[inline]
    pub fn fill(&self, slots: &[Slot], first: Tce, step: u64) {
        match slots {
            [slot] => write_one(slot, first),
            _ => (self.fill)(slots, first, step),
        }
    }

    /// Writes an arithmetic run like [`Tier::fill`] if no entry of the stretch is live; otherwise
    /// writes nothing and returns false.
    #[inline]
    #[must_use]
    pub fn fill_empty(&self, slots: &[Slot], first: Tce, step: u64) -> bool {
        match slots {
            [slot] if read_one(slot).is_empty() => {
                write_one(slot, first);
                true
            }
            [_] => false,
            _ => (self.fill_empty)(slots, first, step),
        }
    }

    /// Writes a run of entries for each frame.
    ///
    /// # Panics
    /// If the frames do not have as many entries as there are slots.
    #[inline]
    pub fn fill_frames(&self, slots: &[Slot], frames: &Frames<'_>) {
        assert!(frames.each > 0 && frames.at.len().checked_mul(frames.each) == Some(slots.len()));
        (self.fill_frames)(slots, frames);
    }

    /// Writes the same entry everywhere.
    #[inline]
    pub fn store(&self, slots: &[Slot], tce: Tce) {
        match slots {
            [slot] => write_one(slot, tce),
            _ => (self.store)(slots, tce),
        }
    }

    /// Writes a list of words. This, and what else reads a list, is faster if the list begins at a
    /// multiple of 64 bytes.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn put(&self, slots: &[Slot], words: &[u64]) {
        assert_eq!(slots.len(), words.len());
        (self.put)(slots, words);
    }

    /// Writes a list of values, and counts and bounds the live ones among them.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn list(&self, slots: &[Slot], values: &[u64]) -> Summary {
        assert_eq!(slots.len(), values.len());
        (self.list)(slots, values)
    }

    /// Writes a list of words and hands back what was there.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn exchange(&self, slots: &[Slot], words: &[u64], old: &mut [u64]) {
        assert!(slots.len() == words.len() && slots.len() == old.len());
        (self.exchange)(slots, words, old);
    }

    /// Writes a list of words, and counts and bounds the live entries that were there, in one pass.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn replace(&self, slots: &[Slot], words: &[u64]) -> Summary {
        assert_eq!(slots.len(), words.len());
        (self.replace)(slots, words)
    }

    /// Clears every entry to [`Tce::EMPTY`], and counts and bounds the live ones that were there, in
    /// one pass.
    #[inline]
    pub fn take(&self, slots: &[Slot]) -> Summary {
        match slots {
            [slot] => {
                let old = read_one(slot);
                write_one(slot, Tce::EMPTY);
                Summary::NONE.with(old)
            }
            _ => (self.take)(slots),
        }
    }

    /// Clears every entry to [`Tce::EMPTY`].
    #[inline]
    pub fn clear(&self, slots: &[Slot]) {
        (self.clear)(slots);
    }

    /// Clears every entry to [`Tce::EMPTY`] with stores that go around the caches where the machine
    /// has such: for stretches that are larger than the caches and not wanted soon.
    ///
    /// These stores are not ordered with any others. [`Tier::drain`] has to come after the last of
    /// them and before anything that tells others the entries are gone: a release of their lock, a
    /// kill, a link to them. One is enough for any number of stretches.
    ///
    /// On a Sapphire Rapids VM it takes as long as [`Tier::clear`] for 64 MiB, which its caches may
    /// still hold, three times as long for 64 KiB, and 0.4 times for 256 MiB and 1 GiB.
    #[inline]
    pub fn clear_streaming(&self, slots: &[Slot]) {
        (self.clear_streaming)(slots);
    }

    /// Orders all that [`Tier::clear_streaming`] has stored before every later store of this thread.
    #[inline]
    pub fn drain(&self) {
        (self.drain)();
    }

    /// True if any entry of a stretch is live.
    #[inline]
    #[must_use]
    pub fn any_live(&self, slots: &[Slot]) -> bool {
        match slots {
            [slot] => !read_one(slot).is_empty(),
            _ => (self.any_live)(slots),
        }
    }

    /// Counts and bounds the live entries of a stretch of table.
    #[inline]
    #[must_use]
    pub fn scan(&self, slots: &[Slot]) -> Summary {
        match slots {
            [slot] => Summary::NONE.with(read_one(slot)),
            _ => (self.scan)(slots),
        }
    }

    /// Counts and bounds the live entries of a list of words.
    #[inline]
    #[must_use]
    pub fn survey(&self, words: &[u64]) -> Summary {
        (self.survey)(words)
    }
}

/// Memory in pieces of one size, such as the pages of a kernel whose pages are larger than those of the
/// window.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    /// Where each piece begins.
    pub at: &'a [Hpa],
    /// Entries for each, at least one.
    pub each: usize,
    /// Control bits of all entries.
    pub perm: Perm,
    /// Bytes from one entry of a piece to the next.
    pub step: u64,
}

impl Frames<'_> {
    /// One frame after the other, by a loop for one.
    #[inline]
    fn one_by_one(&self, slots: &[Slot], fill: impl Fn(&[Slot], Tce, u64)) {
        for (slots, at) in slots.chunks_exact(self.each).zip(self.at) {
            fill(slots, Tce::new(at.0, self.perm), self.step);
        }
    }
}

// A single page is a common request, and not worth a call of its own.

#[inline]
fn read_one(slot: &Slot) -> Tce {
    Tce::from_be_word(slot.load(Ordering::Relaxed))
}

#[inline]
fn write_one(slot: &Slot, tce: Tce) {
    slot.store(tce.to_be_word(), Ordering::Relaxed);
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tier({})", self.name)
    }
}
