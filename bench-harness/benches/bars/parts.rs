// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Parts of a call that are held to bars of their own: the accounting of a range, the look-up of the
//! region that memory belongs to, and the merging of ranges to be killed.

use std::hint::black_box;

use tce_engine::internals::Accounts;
use tce_engine::kill::queue::Coalescer;
use tce_engine::{PageShift, Uaddr};

use crate::Setup;
use crate::common::peers::PAGES;
use crate::common::rig::{BUFFER, PAGE, Random};
use crate::line::{Bar, Line, Unit};

/// Operations between two readings of the clock.
const GROUP: u64 = 64;
/// Groups of addresses, taken in turn.
const GROUPS: usize = 128;

/// Plan, claim and release of a range in one region.
pub(crate) fn accounting(setup: &Setup) -> Vec<Line> {
    let lengths = [("1 page", PAGE), ("512 pages", 512 * PAGE), ("2 GiB", 2 << 30)];
    let mut accounts = Accounts::new([(BUFFER, 2 << 30)]);
    let samples = setup.repeat(|samples, _| {
        for (name, bytes) in lengths {
            samples.time(name, GROUP, || {
                for _ in 0..GROUP {
                    let pages = accounts.range(black_box(BUFFER), black_box(bytes), PageShift::K4);
                    assert_eq!(pages.expect("registered memory"), bytes / PAGE);
                }
            });
        }
    });
    let line = |(name, _): (&'static str, u64)| {
        let what = format!("accounting of a range of {name}");
        Line::new(what, Bar::AtMost(25.0), Unit::Ns, samples.min(name))
            .note(format!("median {:.2} ns", samples.median(name)))
    };
    lengths.map(line).into()
}

/// As a thread's handle looks up whose memory an address is.
pub(crate) fn lookup(setup: &Setup) -> Vec<Line> {
    const REGIONS: u64 = 10_000;
    const BYTES: u64 = 1 << 20;
    // With room between them, so that no two are neighbours.
    let start = |n: u64| Uaddr(BUFFER.0 + n * 2 * BYTES);
    let mut accounts = Accounts::new((0..REGIONS).map(|n| (start(n), BYTES)));
    let mut random = Random::new(3);
    let mut page = || random.below(BYTES / PAGE) * PAGE;
    let same: Vec<_> = (0..GROUP).map(|_| Uaddr(start(7).0 + page())).collect();
    let mut random = Random::new(4);
    let mut anywhere = || Uaddr(start(random.below(REGIONS)).0 + random.below(BYTES / PAGE) * PAGE);
    let anywhere: Vec<_> = (0..GROUPS * GROUP as usize).map(|_| anywhere()).collect();
    // Half far from the others, of any size at any distance: no spacing to rely on.
    let mut random = Random::new(5);
    let mut next = BUFFER.0;
    let uneven: Vec<_> = (0..REGIONS)
        .map(|n| {
            next += (random.below(512) >> random.below(10)) * PAGE;
            next += if n == REGIONS / 2 { 1 << 46 } else { 0 };
            let range = (Uaddr(next), (1 + random.below(512)) * PAGE);
            next += range.1;
            range
        })
        .collect();
    let mut uneven_accounts = Accounts::new(uneven.iter().copied());
    let mut in_uneven = || {
        let (start, bytes) = uneven[random.below(REGIONS) as usize];
        Uaddr(start.0 + random.below(bytes / PAGE) * PAGE)
    };
    let in_uneven: Vec<_> = anywhere.iter().map(|_| in_uneven()).collect();
    let look_up = |accounts: &mut Accounts, pages: &[Uaddr]| {
        for at in pages {
            let region = accounts.look_up(*at);
            black_box(region.expect("registered memory"));
        }
    };
    let samples = setup.repeat(|samples, turn| {
        samples.time("same", GROUP, || look_up(&mut accounts, &same));
        let first = turn % GROUPS * GROUP as usize;
        let group = first..first + GROUP as usize;
        samples.time("random", GROUP, || look_up(&mut accounts, &anywhere[group.clone()]));
        samples.time("uneven", GROUP, || look_up(&mut uneven_accounts, &in_uneven[group.clone()]));
    });
    let line = |what: &str, bar, name| {
        Line::new(what, Bar::AtMost(bar), Unit::Ns, samples.min(name))
            .note(format!("median {:.2} ns", samples.median(name)))
    };
    vec![
        line("look-up of a page in the same region", 3.0, "same"),
        line("look-up of a page in one of 10,000 regions, at random", 25.0, "random"),
        line("the same, regions of any size at any distance", 25.0, "uneven"),
    ]
}

/// Ranges pushed, merged, read and dropped: single pages anywhere in a window of 2 GiB, as few as a
/// list has and as many as a flush may collect; and pages that follow one another.
pub(crate) fn coalescing(setup: &Setup) -> Vec<Line> {
    const MOST: usize = 4096;
    let random = [
        ("kill coalescing, 32 random ranges", 32),
        ("kill coalescing, 512 random ranges", 512),
        ("kill coalescing, 4096 random ranges", MOST),
    ];
    let sequential = "kill coalescing, 4096 sequential ranges";
    let mut choice = Random::new(6);
    // More than one set, or the branches of a sort would be known by heart.
    let sets: Vec<Vec<_>> =
        (0..16).map(|_| (0..MOST).map(|_| choice.below(PAGES)).collect()).collect();
    let in_order: Vec<_> = (0..MOST as u64).collect();
    let mut queue = Coalescer::new();
    let mut merge = |firsts: &[u64]| {
        for first in firsts {
            queue.push(*first, 1, 1);
        }
        let ranges: u64 = queue.coalesce().map(|(first, count)| black_box(first ^ count)).sum();
        queue.clear();
        black_box(ranges);
    };
    let samples = setup.repeat(|samples, turn| {
        let set = &sets[turn % sets.len()];
        for (what, count) in random {
            samples.time(what, count as u64, || merge(&set[..count]));
        }
        samples.time(sequential, MOST as u64, || merge(&in_order));
    });
    let line = |what: &'static str, bar| {
        Line::new(what, Bar::AtMost(bar), Unit::Ns, samples.min(what))
            .note(format!("a range; median {:.2} ns", samples.median(what)))
    };
    random.iter().map(|(what, _)| line(what, 10.0)).chain([line(sequential, 1.5)]).collect()
}
