// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One page, mapped and unmapped again, everything on: a ring of pages, half of which are mapped at a
//! time. The crates change the entry and do nothing else: no address is allocated, nothing is
//! accounted, nothing is killed.

use std::sync::atomic::AtomicU64;

use tce_bench::loops;

use crate::Setup;
use crate::common::peers::{self, Kind};
use crate::common::rig::Ring;
use crate::line::{Bar, Line, Unit};

/// Pairs between two readings of the clock.
const GROUP: u64 = 64;

pub(crate) fn pair(setup: &Setup) -> Vec<Line> {
    let mut ring = Ring::new(setup.tier);
    let mut crates = peers::all();
    crates.retain(|peer| peer.kind() == Kind::Crate);
    crates.iter_mut().for_each(|peer| peer.start_ring());
    let words: Vec<_> = (0..GROUP).map(AtomicU64::new).collect();
    let samples = setup.repeat(|samples, rep| {
        samples.time("locked exchange", GROUP, || {
            loops::locked_exchange(&words);
        });
        samples.time("pair", GROUP, || ring.turn(GROUP as usize));
        for peer in &mut crates {
            samples.time(peer.name(), GROUP, || peer.turn_ring(rep as u64 * GROUP, GROUP));
        }
    });
    let min = samples.min("pair");
    let times = |what: &str, bar, by: &str| {
        let other = samples.min(by);
        Line::new(what, Bar::AtMost(bar), Unit::Times, min / other)
            .note(format!("minima: pair {min:.2} ns, {by} {other:.2} ns"))
    };
    let mut lines = vec![
        Line::new(
            "one page, map + unmap, p50",
            Bar::AtMost(20.0),
            Unit::Ns,
            samples.median("pair"),
        )
        .note(format!("p50 of means of {GROUP} pairs")),
        times("one page, minimum, against a locked exchange", 5.0, "locked exchange"),
    ];
    let names = crates.iter().map(|peer| peer.name());
    if let Some(best) = names.min_by(|a, b| samples.min(a).total_cmp(&samples.min(b))) {
        lines.push(times("one page, minimum, against the fastest crate's", 1.0, best));
    }
    lines
}
