// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every tier against one-line definitions, with the memory around each stretch.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::tce::Perm;

/// Starts and lengths around every unrolling border.
#[cfg(not(miri))]
const SHAPES: &[(usize, usize)] = &[
    (0, 0),
    (0, 1),
    (1, 2),
    (1, 3),
    (3, 4),
    (2, 7),
    (0, 8),
    (5, 9),
    (0, 15),
    (1, 16),
    (2, 17),
    (3, 31),
    (0, 32),
    (4, 33),
    (5, 63),
    (0, 64),
    (7, 131),
    (2, 128),
    (1, 159),
];
/// The portable tier has no borders, and Miri takes its time.
#[cfg(miri)]
const SHAPES: &[(usize, usize)] = &[(0, 0), (0, 1), (1, 2), (3, 5)];
const LEN: usize = if cfg!(miri) { 10 } else { 160 };
const NOISE: u64 = 0x5a5a_1234_5678_9abc;

/// An empty entry whose other bits are all set.
const POISON: Tce = Tce::from_value(!Tce::CONTROL_MASK);

fn slots(words: &[u64]) -> Vec<Slot> {
    words.iter().map(|w| Slot::new(*w)).collect()
}

fn words(slots: &[Slot]) -> Vec<u64> {
    slots.iter().map(|s| s.load(Ordering::Relaxed)).collect()
}

/// What stands around a stretch. No part of it may change.
fn noise() -> Vec<u64> {
    (0..LEN as u64).map(|i| NOISE.wrapping_mul(i | 1)).collect()
}

/// Words with all control bits, live and empty ones mixed, some with poison.
fn mixed(n: usize) -> Vec<u64> {
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

/// Contents of a stretch of `n` entries that take every way through a summary: none live, all live,
/// with each permission, mixed, and a single one that is different, at each position.
fn contents(n: usize) -> Vec<Vec<u64>> {
    let run = |perm| {
        (0..n as u64).map(|i| Tce::new(0x1234_5000 + (i << 12), perm).to_be_word()).collect()
    };
    let mut all = vec![vec![0; n], vec![POISON.to_be_word(); n], mixed(n)];
    all.extend([Perm::READ, Perm::WRITE, Perm::READ_WRITE].map(run));
    for i in 0..n {
        for perm in [Perm::READ, Perm::WRITE] {
            let mut one_live = vec![if i % 2 == 0 { 0 } else { POISON.to_be_word() }; n];
            one_live[i] = Tce::new(0xabc_d000, perm).to_be_word();
            all.push(one_live);
        }
        let mut one_empty: Vec<_> = run(Perm::READ_WRITE);
        one_empty[i] = POISON.to_be_word();
        all.push(one_empty);
    }
    all
}

fn summary(words: &[u64]) -> Summary {
    words.iter().fold(Summary::NONE, |s, w| s.with(Tce::from_be_word(*w)))
}

fn values(words: &[u64]) -> Vec<u64> {
    words.iter().map(|w| Tce::from_be_word(*w).value()).collect()
}

/// Runs `f` on stretches of all shapes and contents. Compares the whole memory with what `define`
/// says of each entry (its number, what was there), and what `f` returns with `result`.
fn check<R: PartialEq + fmt::Debug>(
    tier: &Tier,
    what: &str,
    f: impl Fn(&[Slot]) -> R,
    define: impl Fn(usize, u64, &[u64]) -> u64,
    result: impl Fn(&[u64]) -> R,
) {
    for &(at, n) in SHAPES {
        for before in contents(n) {
            let mut expected = noise();
            expected[at..at + n].copy_from_slice(&before);
            let memory = slots(&expected);
            for (i, w) in expected[at..at + n].iter_mut().enumerate() {
                *w = define(i, *w, &before);
            }
            let returned = f(&memory[at..at + n]);
            let name = tier.name();
            assert_eq!(returned, result(&before), "{name} {what} of {before:x?} at {at}");
            assert_eq!(words(&memory), expected, "{name} {what} of {before:x?} at {at}");
        }
    }
}

fn check_tier(tier: &Tier) {
    let live = |before: &[u64]| summary(before).live > 0;
    let keep = |_: usize, word: u64, _: &[u64]| word;
    for step in [0, 0x1000, 0x1_0000, u64::MAX - 0xfff] {
        let first = Tce::new(0xffff_ffff_f000, Perm::READ_WRITE);
        let nth = |i: usize| first.value().wrapping_add(step.wrapping_mul(i as u64)).to_be();
        check(tier, "fill", |s| tier.fill(s, first, step), |i, _, _| nth(i), |_| ());
        check(
            tier,
            "fill_empty",
            |s| tier.fill_empty(s, first, step),
            |i, word, before| if live(before) { word } else { nth(i) },
            |before| !live(before),
        );
    }
    // Frames of all sizes that a stretch can be cut into, none of them beside the next.
    for (each, step) in (1..=LEN).flat_map(|each| [(each, 0x1000), (each, 0x1_0000)]) {
        let at: Vec<_> = (1..=(LEN / each) as u64).map(|n| Hpa((n * 7919 % 61) << 36)).collect();
        for (at_slot, frames) in (0..).step_by(3).zip(0..=at.len()) {
            let mut expected = noise();
            let memory = slots(&expected);
            let start = (at_slot % 9).min(LEN - frames * each);
            let stretch = start..start + frames * each;
            for (i, word) in expected[stretch.clone()].iter_mut().enumerate() {
                let bytes = step * (i % each) as u64;
                *word = Tce::new(at[i / each].0 + bytes, Perm::READ).to_be_word();
            }
            let at = &at[..frames];
            tier.fill_frames(&memory[stretch], &Frames { at, each, perm: Perm::READ, step });
            assert_eq!(words(&memory), expected, "{} {frames} of {each}", tier.name());
        }
    }
    let tce = Tce::from_value(0x0102_0304_0506_0703);
    check(tier, "store", |s| tier.store(s, tce), |_, _, _| tce.value().to_be(), |_| ());
    let source = mixed(LEN);
    check(tier, "put", |s| tier.put(s, &source[..s.len()]), |i, _, _| source[i], |_| ());
    check(
        tier,
        "exchange",
        |s| {
            let mut old = vec![NOISE; LEN];
            tier.exchange(s, &source[..s.len()], &mut old[1..=s.len()]);
            old
        },
        |i, _, _| source[i],
        |before| [&[NOISE], before, &vec![NOISE; LEN - 1 - before.len()]].concat(),
    );
    check(tier, "replace", |s| tier.replace(s, &source[..s.len()]), |i, _, _| source[i], summary);
    check(tier, "take", |s| tier.take(s), |_, _, _| 0, summary);
    check(tier, "clear", |s| tier.clear(s), |_, _, _| 0, |_| ());
    check(
        tier,
        "clear_streaming",
        |s| {
            tier.clear_streaming(s);
            tier.drain();
        },
        |_, _, _| 0,
        |_| (),
    );
    check(tier, "any_live", |s| tier.any_live(s), keep, live);
    check(tier, "scan", |s| tier.scan(s), keep, summary);
    check(tier, "survey", |s| tier.survey(&words(s)), keep, summary);
    // What `list` returns depends on its source, so that goes through all contents here.
    for &(at, n) in SHAPES {
        for source in contents(n) {
            let mut expected = noise();
            let memory = slots(&expected);
            expected[at..at + n].copy_from_slice(&source);
            let returned = tier.list(&memory[at..at + n], &values(&source));
            assert_eq!(returned, summary(&source), "{} list {source:x?} at {at}", tier.name());
            assert_eq!(words(&memory), expected, "{} list {source:x?} at {at}", tier.name());
        }
    }
}

macro_rules! tier_tests {
    ($test:ident, $name:literal) => {
        #[test]
        fn $test() {
            match Tier::named($name) {
                Some(tier) => check_tier(tier),
                None => eprintln!("this machine cannot run the tier"),
            }
        }
    };
}

tier_tests!(portable_equals_the_definition, "portable");
#[cfg(target_arch = "x86_64")]
tier_tests!(avx2_equals_the_definition, "avx2");
#[cfg(target_arch = "x86_64")]
tier_tests!(avx512_equals_the_definition, "avx512");
#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
tier_tests!(power8_equals_the_definition, "power8");
#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
tier_tests!(power9_equals_the_definition, "power9");
#[cfg(all(feature = "stdarch-powerpc", target_arch = "powerpc64", target_endian = "little"))]
tier_tests!(stdarch_equals_the_definition, "stdarch");

/// What a device relies on that reads at any time.
#[test]
fn readers_see_whole_entries() {
    const SLOTS: usize = if cfg!(miri) { 3 } else { 67 };
    let turns = if cfg!(miri) { 3 } else { 2000 };
    // Of each entry's two values, no half is a half of the other or of 0.
    let first = Tce::from_value(0x1111_1111_1111_1003);
    let second: Vec<_> = (0..SLOTS as u64).map(|i| 0x2222_2222_2222_2002 + (i << 12)).collect();
    let second_words: Vec<_> = second.iter().map(|v| v.to_be()).collect();
    let is_whole = |i: usize, word| {
        [0, first.value() + ((i as u64) << 12), second[i]]
            .contains(&Tce::from_be_word(word).value())
    };
    for tier in Tier::all() {
        let memory = slots(&[0; SLOTS]);
        let at = [Hpa(0x1111_1111_1111_1000)];
        let frames = Frames { at: &at, each: SLOTS, perm: Perm::READ_WRITE, step: 0x1000 };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut passes = 0;
                while passes == 0 || !done.load(Ordering::Relaxed) {
                    for (i, word) in words(&memory).into_iter().enumerate() {
                        assert!(is_whole(i, word), "{}: {word:#x} at {i}", tier.name());
                    }
                    passes += 1;
                }
            });
            for _ in 0..turns {
                tier.fill(&memory, first, 0x1000);
                tier.put(&memory, &second_words);
                assert_eq!(tier.take(&memory).live, SLOTS as u64);
                assert!(tier.fill_empty(&memory, first, 0x1000));
                assert_eq!(tier.replace(&memory, &second_words).live, SLOTS as u64);
                tier.clear(&memory);
                tier.list(&memory, &second);
                tier.clear_streaming(&memory);
                tier.drain();
                tier.exchange(&memory, &second_words, &mut [0; SLOTS]);
                tier.fill_frames(&memory, &frames);
            }
            done.store(true, Ordering::Relaxed);
            reader.join().expect("no entry is seen in part");
        });
    }
}

#[test]
fn lengths_have_to_agree() {
    let refused = |f: &dyn Fn(&Tier, &[Slot])| {
        let memory = slots(&[NOISE; 4]);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            f(Tier::best(), &memory);
        }));
        outcome.is_err() && words(&memory) == [NOISE; 4]
    };
    for n in [0, 3, 5] {
        let list = vec![0; n];
        assert!(refused(&|tier, slots| tier.put(slots, &list)));
        let at = vec![Hpa(0); n];
        let frames = |each| Frames { at: &at, each, perm: Perm::READ, step: 0x1000 };
        assert!(refused(&|tier, slots| tier.fill_frames(slots, &frames(1))));
        assert!(refused(&|tier, slots| tier.fill_frames(slots, &frames(0))));
        assert!(refused(&|tier, slots| _ = tier.list(slots, &list)));
        assert!(refused(&|tier, slots| _ = tier.replace(slots, &list)));
        assert!(refused(&|tier, slots| tier.exchange(slots, &[0; 4], &mut list.clone())));
        assert!(refused(&|tier, slots| tier.exchange(slots, &list, &mut [0; 4])));
    }
}

#[test]
fn names_are_unique_and_unknown_ones_are_refused() {
    let names: Vec<_> = Tier::all().map(Tier::name).collect();
    assert_eq!(names[0], "portable");
    assert_eq!(names.last(), Some(&Tier::best().name()));
    for (i, name) in names.iter().enumerate() {
        assert!(!names[..i].contains(name));
        assert_eq!(Tier::named(name).map(Tier::name), Some(*name));
    }
    assert!(Tier::named("avx9").is_none());
}
