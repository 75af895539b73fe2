// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

/// Compares with a search through all, at the ends of every range and beside them.
fn check(ranges: &Ranges) {
    let inside = |r: &Numbered, at: u64| r.start <= at && at <= r.start + (r.bytes - 1);
    let plain = |address| ranges.ranges.iter().find(|range| inside(range, address));
    let mut probes = vec![0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    for range in &ranges.ranges {
        let (start, last) = (range.start, range.last());
        probes.extend([start.wrapping_sub(1), start, start + range.bytes / 2, last]);
        probes.push(last.wrapping_add(1));
    }
    for probe in probes {
        let found = ranges.at(probe).map(|range| range.number);
        assert_eq!(found, plain(probe).map(|range| range.number), "{probe:#x}");
    }
}

fn insert_all(list: impl IntoIterator<Item = (u64, u64)>, every: usize) -> Ranges {
    let mut ranges = Ranges::default();
    check(&ranges);
    for (number, (start, bytes)) in list.into_iter().enumerate() {
        ranges.insert(Numbered { start, bytes, number });
        if number.is_multiple_of(every) || number < 20 {
            check(&ranges);
        }
    }
    check(&ranges);
    ranges
}

fn remove_all(mut ranges: Ranges, every: usize) {
    while !ranges.ranges.is_empty() {
        let at = ranges.ranges.len() / 2;
        ranges.remove(ranges.ranges[at].start);
        if at.is_multiple_of(every) || at < 10 {
            check(&ranges);
        }
    }
}

const MOST: u64 = if cfg!(miri) { 60 } else { 1500 };

#[test]
fn at_any_distance_it_is_a_search() {
    let mut x = 7_u64;
    let mut random = |below: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % below
    };
    // Gaps and lengths of all magnitudes; 0 makes neighbours.
    for most in [1, 1 << 16, 1 << 30, u64::MAX / MOST / 2] {
        let mut next = random(most);
        let mut list: Vec<_> = (0..MOST)
            .map(|_| {
                let shift = random(48);
                let range = (next + (random(most) >> shift), 1 + (random(most) >> shift));
                next = range.0 + range.1;
                range
            })
            .collect();
        for n in (1..list.len()).rev() {
            list.swap(n, random(n as u64 + 1) as usize);
        }
        remove_all(insert_all(list, 300), 100);
    }
}

#[test]
#[cfg_attr(miri, ignore = "what it costs shows with many only")]
fn clusters_of_clusters_cost_a_few_loads() {
    // Twice as far each time, and a crowd of the smallest at the far end.
    let far = (0..62).map(|n| (1 << n, 1));
    let crowd = (0..MOST).map(|n| (u64::MAX - 2 * n, 1 + n % 2));
    let ranges = insert_all(far.chain(crowd), 200);
    let index = ranges.index.get().expect("it was looked up");
    let most_below = |node: &Node, below: &[usize]| {
        let places = &index.places[node.place as usize..][..=node.more as usize];
        let nodes = places.iter().filter_map(|place| place.checked_sub(NODES));
        1 + nodes.map(|n| below[n as usize]).max().unwrap_or(0)
    };
    // A node leads to later ones only.
    let mut below = vec![0; index.nodes.len()];
    for n in (0..below.len()).rev() {
        below[n] = most_below(&index.nodes[n], &below);
    }
    assert!((2..=17).contains(&below[0]), "{} levels", below[0]);
    let places = 8 * (ranges.ranges.len() + index.nodes.len());
    assert!(index.places.len() <= places, "{} places", index.places.len());
    remove_all(ranges, 100);
}

#[test]
fn the_only_one_between() {
    let ranges = insert_all([(100, 10), (110, 10), (200, 1)], 1);
    let only = |low, high| ranges.only(low, high).map(|range| range.number);
    assert_eq!((only(0, 99), only(0, 100), only(0, 110)), (None, Some(0), None));
    assert_eq!((only(110, 199), only(120, 199), only(120, u64::MAX)), (Some(1), None, Some(2)));
    // The last address of one and the first of the next.
    assert_eq!((only(109, 109), only(109, 110), only(110, 110)), (Some(0), None, Some(1)));
}

#[test]
fn at_equal_distances_they_are_one_table() {
    let ranges = insert_all((0..MOST).map(|n| (n << 20, 1 << 19)), 500);
    let index = ranges.index.get().expect("it was looked up");
    let places = index.places.len() as u64;
    assert!(index.nodes.len() == 1 && (MOST..=4 * MOST).contains(&places), "{places} places");
}
