// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The loops over TCEs, in tiers: portable, and one for each instruction set worth it.
//!
//! A tier is a set of functions that all do, byte for byte, what the one-line definitions in the
//! test macro below say. It exists only if the machine can run it, is chosen once, and is named in
//! every result.

mod portable;
#[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
mod x86_avx2;

use std::fmt;

use crate::sync::Slot;
use crate::tce::{Summary, Tce};

/// One implementation of the loops over TCEs. All tiers write the same bytes.
///
/// A list is a slice of *words*: doublewords whose bytes in memory are those of the big-endian
/// entries, as they stand in a table or in a guest's list page.
pub struct Tier {
    name: &'static str,
    fill: fn(&[Slot], Tce, u64),
    store: fn(&[Slot], Tce),
    put: fn(&[Slot], &[u64]),
    exchange: fn(&[Slot], &[u64], &mut [u64]),
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

    /// Every tier that this machine can run, the portable one first.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
        let fast = x86_avx2::tier();
        #[cfg(not(all(target_arch = "x86_64", not(any(loom, miri)))))]
        let fast = None;
        std::iter::once(&portable::TIER).chain(fast)
    }

    /// The tier's name: `portable` or `avx2`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Writes an arithmetic run: entry *i* becomes `first + i * step`.
    #[inline]
    pub fn fill(&self, slots: &[Slot], first: Tce, step: u64) {
        (self.fill)(slots, first, step);
    }

    /// Writes the same entry everywhere.
    #[inline]
    pub fn store(&self, slots: &[Slot], tce: Tce) {
        (self.store)(slots, tce);
    }

    /// Writes a list of words.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn put(&self, slots: &[Slot], words: &[u64]) {
        assert_eq!(slots.len(), words.len());
        (self.put)(slots, words);
    }

    /// Writes a list of words and hands back what was there. The caller is the only writer.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn exchange(&self, slots: &[Slot], words: &[u64], old: &mut [u64]) {
        assert!(slots.len() == words.len() && slots.len() == old.len());
        (self.exchange)(slots, words, old);
    }

    /// Counts and bounds the live entries of a stretch of table.
    #[inline]
    #[must_use]
    pub fn scan(&self, slots: &[Slot]) -> Summary {
        (self.scan)(slots)
    }

    /// Counts and bounds the live entries of a list of words.
    #[inline]
    #[must_use]
    pub fn survey(&self, words: &[u64]) -> Summary {
        (self.survey)(words)
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tier({})", self.name)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Ordering;
    use crate::tce::Perm;

    /// Lengths and starts around every unrolling border.
    const SHAPES: &[(usize, usize)] =
        &[(0, 0), (0, 1), (1, 3), (3, 4), (0, 15), (1, 16), (2, 17), (5, 63), (0, 64), (7, 131)];
    const LEN: usize = 160;
    const NOISE: u64 = 0x5a5a_1234_5678_9abc;

    fn slots() -> Vec<Slot> {
        (0..LEN as u64).map(|i| Slot::new(NOISE.wrapping_mul(i | 1))).collect()
    }

    fn words(slots: &[Slot]) -> Vec<u64> {
        slots.iter().map(|s| s.load(Ordering::Relaxed)).collect()
    }

    /// Words with all control bits, live and empty ones mixed, some with poison.
    fn list(n: usize) -> Vec<u64> {
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        (0..n)
            .map(|_| {
                let v = next();
                let v = if v & 0x30 == 0 { v & !3 } else { v };
                Tce::from_value(v).to_be_word()
            })
            .collect()
    }

    fn summary(words: &[u64]) -> Summary {
        words.iter().fold(Summary::NONE, |s, w| s.with(Tce::from_be_word(*w)))
    }

    /// Runs `write` on one stretch and compares the whole memory with the definition.
    fn check_write(
        tier: &Tier,
        what: &str,
        write: impl Fn(&[Slot]),
        define: impl Fn(usize, u64) -> u64,
    ) {
        for &(at, n) in SHAPES {
            let memory = slots();
            let mut expected = words(&memory);
            for (i, w) in expected[at..at + n].iter_mut().enumerate() {
                *w = define(i, *w);
            }
            write(&memory[at..at + n]);
            assert_eq!(words(&memory), expected, "{} {what} at {at}, {n} entries", tier.name());
        }
    }

    macro_rules! tier_tests {
        ($name:ident, $tier:expr) => {
            #[test]
            fn $name() {
                let Some(tier) = $tier else {
                    eprintln!("this machine cannot run the tier");
                    return;
                };
                let source = list(LEN);
                for step in [0, 0x1000, 0x1_0000, u64::MAX - 0xfff] {
                    let first = Tce::new(0xffff_ffff_f000, Perm::READ_WRITE);
                    check_write(
                        tier,
                        "fill",
                        |s| tier.fill(s, first, step),
                        |i, _| first.value().wrapping_add(step.wrapping_mul(i as u64)).to_be(),
                    );
                }
                let tce = Tce::from_value(0x0102_0304_0506_0703);
                check_write(tier, "store", |s| tier.store(s, tce), |_, _| tce.value().to_be());
                check_write(tier, "put", |s| tier.put(s, &source[..s.len()]), |i, _| source[i]);
                check_write(
                    tier,
                    "exchange",
                    |s| {
                        let before = words(s);
                        let mut old = vec![1; s.len()];
                        tier.exchange(s, &source[..s.len()], &mut old);
                        assert_eq!(old, before, "exchange hands the old words back");
                    },
                    |i, _| source[i],
                );
                for &(at, n) in SHAPES {
                    let expected = summary(&source[at..at + n]);
                    assert_eq!(tier.survey(&source[at..at + n]), expected, "survey {at} {n}");
                    let memory: Vec<_> = source.iter().map(|w| Slot::new(*w)).collect();
                    assert_eq!(tier.scan(&memory[at..at + n]), expected, "scan {at} {n}");
                }
                let empty = vec![Tce::from_value(!3).to_be_word(); 33];
                assert_eq!(tier.survey(&empty), Summary::NONE);
            }
        };
    }

    tier_tests!(portable_equals_the_definition, Tier::named("portable"));
    #[cfg(target_arch = "x86_64")]
    tier_tests!(avx2_equals_the_definition, Tier::named("avx2"));

    #[test]
    fn names_are_unique_and_unknown_ones_are_refused() {
        let names: Vec<_> = Tier::all().map(Tier::name).collect();
        assert_eq!(names[0], "portable");
        assert_eq!(names.last(), Some(&Tier::best().name()));
        assert!(Tier::named("avx9").is_none());
    }
}
