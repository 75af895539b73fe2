// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ranges against sets of entries, however they are sorted.

use std::collections::BTreeSet;
use std::iter::once;

use proptest::prelude::*;

use super::*;

/// The fewest ranges of a set.
fn ranges(set: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = vec![];
    for entry in set {
        match ranges.last_mut() {
            Some(last) if last.0 + last.1 == *entry => last.1 += 1,
            _ => ranges.push((*entry, 1)),
        }
    }
    ranges
}

fn all(queue: &mut Coalescer) -> Vec<(u64, u64)> {
    queue.coalesce().collect()
}

/// Pushes of one use: dense or sparse, few or many, from the low or the high end of what is
/// possible; some follow the one before.
fn pushes() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let low = prop_oneof![Just(0u64), Just((1 << 44) - 2000), Just(1 << 51), 0..1u64 << 43];
    let span = prop_oneof![Just(100u64), Just(2000), Just(70_000), Just(1 << 20), Just(1 << 30)];
    // Miri takes seconds for each thousand.
    let most = if cfg!(miri) { 40usize } else { 600 };
    let many = prop_oneof![0..24usize, 60..70usize, 20..most];
    (low, span, many).prop_flat_map(|(low, span, many)| {
        let count = prop_oneof![6 => Just(1u64), 2 => 0u64..10, 1 => 50u64..140];
        prop::collection::vec((0..span, count, 0u8..4), many).prop_map(move |raw| {
            let mut next = 0;
            let place = |(first, count, follow)| {
                let first = if follow == 0 { next } else { low + first };
                next = first + count;
                (first, count)
            };
            raw.into_iter().map(place).collect()
        })
    })
}

proptest! {
    #[test]
    fn ranges_equal_a_set(uses in prop::collection::vec((pushes(), any::<bool>()), 1..5)) {
        let mut queue = Coalescer::new();
        let mut set = BTreeSet::new();
        let mut pages = 0;
        for (pushes, clear) in uses {
            for (i, (first, count)) in pushes.into_iter().enumerate() {
                queue.push(first, count, i as u64);
                set.extend(first..first + count);
                pages += i as u64;
            }
            prop_assert_eq!(queue.pages(), pages);
            prop_assert_eq!(all(&mut queue), ranges(&set));
            prop_assert_eq!(all(&mut queue), ranges(&set), "a second time");
            if clear {
                queue.clear();
                (set, pages) = (BTreeSet::new(), 0);
            }
        }
    }
}

#[test]
fn what_follows_needs_no_memory() {
    let mut queue = Coalescer::new();
    assert_eq!(all(&mut queue), []);
    (0..512u64).for_each(|i| queue.push(1000 + i, 1, 1));
    queue.push(1200, 400, 7);
    assert_eq!(all(&mut queue), [(1000, 600)]);
    assert_eq!((queue.ranges.capacity(), queue.pages()), (0, 519));
    queue.clear();
    assert_eq!(all(&mut queue), []);
    assert_eq!(queue.pages(), 0);
}

#[test]
fn ascending_ranges_are_not_sorted() {
    let mut queue = Coalescer::new();
    (0..100).for_each(|i| queue.push(16 * i, 2, 2));
    let expected: Vec<_> = (0..100).map(|i| (16 * i, 2)).collect();
    assert_eq!(all(&mut queue), expected);
    assert!(queue.scratch.is_none());
    // One that follows the last, once that was handed out.
    queue.push(1586, 1, 1);
    assert_eq!(queue.coalesce().last(), Some((1584, 3)));
    // Later ones may fill the gaps.
    (0..100).for_each(|i| queue.push(16 * i + 2, 14, 14));
    assert_eq!(all(&mut queue), [(0, 1600)]);
}

/// Too large to be sorted as words.
#[test]
fn huge_ranges() {
    let mut queue = Coalescer::new();
    let huge = 1 << 40;
    for first in [3 * huge, 0, huge - 1, 7 * huge, 1 << 50] {
        queue.push(first, huge, huge);
    }
    queue.push(100, 1, 1);
    let expected = [(0, 2 * huge - 1), (3 * huge, huge), (7 * huge, huge), (1 << 50, huge)];
    assert_eq!(all(&mut queue), expected);
}

#[test]
fn memory_is_kept() {
    let mut queue = Coalescer::new();
    let fill = |queue: &mut Coalescer, many: u64, gap: u64| {
        (0..many).rev().for_each(|i| queue.push(i * gap, 1, 1));
        assert_eq!(queue.coalesce().len() as u64, many);
        queue.clear();
        let scratch = queue.scratch.as_ref().unwrap();
        let bitmap = &scratch.bitmap;
        assert!(bitmap.words.iter().chain(&bitmap.used).all(|word| *word == 0));
        (queue.ranges.capacity(), scratch.keys.capacity(), bitmap.words.capacity())
    };
    // By keys, and by bitmap.
    fill(&mut queue, 500, 1 << 20);
    let before = fill(&mut queue, 500, 2);
    assert_eq!(fill(&mut queue, 400, 1 << 20), before);
    assert_eq!(fill(&mut queue, 300, 1000), before);
}

/// What random ranges hardly ever are.
#[test]
fn odd_shapes() {
    let descending = |n: u64, from: u64| (1..=n).map(move |i| from - i);
    // Ranks are of the sum, then, if they are not of the difference to the lowest.
    let far = descending(20, (1 << 24) + 15).map(|at| (at, 1));
    for (name, list) in [
        ("an empty one after others that descend", vec![(10, 1), (5, 1), (20, 0)]),
        (
            "an even number from below a power of two to beyond it",
            once((1024, 1)).chain(descending(12, 1000).map(|at| (at, 2026 - 2 * at))).collect(),
        ),
        (
            "many that end at a power of two",
            descending(70, 1095).map(|at| (at, (1 << 13) - at)).collect(),
        ),
        ("half a span apart", once(((1 << 25) + 1, 1)).chain(far).collect()),
    ] {
        let mut queue = Coalescer::new();
        let mut set = BTreeSet::new();
        for (first, count) in list {
            queue.push(first, count, count);
            set.extend(first..first + count);
        }
        assert_eq!(all(&mut queue), ranges(&set), "{name}");
    }
}

/// Digits of either length, and the bitmap for as many.
#[test]
fn thousands_of_ranges() {
    let all_of = [
        (2100, 1 << 19),
        (2100, 1 << 14),
        (3000, 1 << 20),
        (3000, 1 << 22),
        (700, 1 << 30),
        (700, 1 << 17),
    ];
    // Miri takes minutes for each.
    for &(many, span) in if cfg!(miri) { &all_of[..1] } else { &all_of[..] } {
        let mut queue = Coalescer::new();
        let mut set = BTreeSet::new();
        let mut random = 1_u64;
        for i in 0..many {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(i);
            let (first, count) = ((1 << 33) + (random >> 20) % span, 1 + i % 3);
            queue.push(first, count, count);
            set.extend(first..first + count);
        }
        assert_eq!(all(&mut queue), ranges(&set), "{many} in {span}");
    }
}
