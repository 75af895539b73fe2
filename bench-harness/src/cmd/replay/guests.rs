// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guests that were never recorded: their calls are made up, as a trace, from a seed.
//!
//! Addresses of all but the random one are Linux's: short requests begin at multiples of 16 pages in the
//! lower three quarters of the window, longer ones follow each other in the upper quarter, each sweeping on
//! from the last. A request is one call, and so is its unmap.

mod random;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;

use super::script::Script;
use crate::trace::{HEADER, TraceError, TraceFile};

/// Names of the guests, as typed.
pub(super) const NAMES: [&str; 3] = ["ring", "block", "random"];

/// Where traces that are named lie, seen from the root of the repository.
pub(super) const TRACES: &str = "workloads/traces";

const LIOBN: &str = "0x80000000";
/// Pages of the window, 1 GiB.
const PAGES: u64 = 1 << 18;
/// Where runs of 16 pages and more begin.
const LARGE: u64 = PAGES / 4 * 3;
/// Pages of guest memory that are mapped, 64 MiB.
const MEMORY: u64 = 1 << 14;

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

struct Guest {
    text: String,
    calls: u64,
    t_ns: u64,
    random: Random,
    /// Mapped runs: first page and number.
    live: BTreeMap<u64, u64>,
    /// Where each pool goes on.
    next: [u64; 2],
}

/// True if it was never recorded.
pub(super) fn made_up(workload: &str) -> bool {
    NAMES.contains(&workload)
}

/// The guest that was asked for, with so many calls if it is made up; in the second place what is wrong
/// with its name.
///
/// # Errors
/// The first thing that is wrong with a trace, and its line.
pub(super) fn load(
    workload: &str,
    calls: u64,
    seed: u64,
) -> Result<Result<Script, String>, TraceError> {
    if made_up(workload) {
        return script(workload, calls, seed).map(Ok);
    }
    let named = Path::new(TRACES).join(format!("{workload}.tce.zst"));
    if Path::new(workload).exists() || workload.contains(['/', '.']) {
        return Script::load(Path::new(workload)).map(Ok);
    }
    if named.exists() {
        return Script::load(&named).map(Ok);
    }
    Ok(Err(format!(
        "'{workload}' is no workload; accepted: {}, the name of a trace in {TRACES} seen from here, or a \
         trace file",
        NAMES.join(", ")
    )))
}

pub(super) fn script(name: &str, calls: u64, seed: u64) -> Result<Script, TraceError> {
    let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut text = format!("{HEADER}\n# name {name}\n");
    if name == "random" {
        text += &random::lines(calls, random);
    } else {
        text += &format!("0 window-create {LIOBN} 0x0 12 {PAGES} 0 - -\n");
        let live = BTreeMap::new();
        let mut guest = Guest { text, calls: 0, t_ns: 1, random, live, next: [0, LARGE] };
        match name {
            "ring" => guest.ring(calls),
            _ => guest.block(calls),
        }
        text = guest.text;
    }
    Script::new(TraceFile::read(name, text.as_bytes())?)
}

impl Guest {
    /// A receive ring: 256 buffers of one page, taken and given 16 at a time, one every microsecond.
    fn ring(&mut self, calls: u64) {
        let mut ring: VecDeque<u64> = (0..256).map(|_| self.map(1)).collect();
        while self.calls < calls {
            self.t_ns += 16_000;
            let done: Vec<u64> = ring.drain(..16).collect();
            done.into_iter().for_each(|at| self.unmap(at));
            ring.extend((0..16).map(|_| self.map(1)));
        }
        ring.into_iter().for_each(|at| self.unmap(at));
    }

    /// A disk: 32 requests of 1 to 128 pages at a time, half of them of one, done in any order, one every
    /// 10 microseconds.
    fn block(&mut self, calls: u64) {
        let mut queue = Vec::new();
        while self.calls < calls {
            self.t_ns += 10_000;
            if queue.len() == 32 {
                let nth = self.random.below(32) as usize;
                let done = queue.swap_remove(nth);
                self.unmap(done);
            }
            let pages = if self.random.below(2) == 0 { 1 } else { 1 << self.random.below(8) };
            queue.push(self.map(pages));
        }
        queue.into_iter().for_each(|at| self.unmap(at));
    }

    /// The next free run in its pool.
    fn take(&mut self, pages: u64) -> u64 {
        let large = usize::from(pages > 15);
        let (from, to, unit) = [(0, LARGE, 16), (LARGE, PAGES, 1)][large];
        loop {
            let at = self.next[large];
            if at + pages > to {
                self.next[large] = from;
                continue;
            }
            let before = self.live.range(..at + pages).next_back();
            match before.map(|(first, count)| first + count).filter(|end| *end > at) {
                Some(end) => self.next[large] = end.next_multiple_of(unit),
                None => {
                    self.next[large] = (at + pages).next_multiple_of(unit);
                    return at;
                }
            }
        }
    }

    fn map(&mut self, pages: u64) -> u64 {
        let at = self.take(pages);
        let memory = self.random.below(MEMORY - pages);
        self.live.insert(at, pages);
        let tce = |nth: u64| (memory + nth) << 12 | 3;
        let (ioba, t_ns) = (at << 12, self.t_ns);
        let _ = if pages == 1 {
            writeln!(self.text, "{t_ns} put {LIOBN} {ioba:#x} {:#x} 1 0 0 1", tce(0))
        } else {
            let list: Vec<_> = (0..pages).map(|nth| format!("{:x}", tce(nth))).collect();
            let list = list.join(",");
            writeln!(self.text, "{t_ns} indirect {LIOBN} {ioba:#x} {list} {pages} 0 0 1")
        };
        self.calls += 1;
        at
    }

    fn unmap(&mut self, at: u64) {
        let Some(pages) = self.live.remove(&at) else { return };
        let (ioba, t_ns) = (at << 12, self.t_ns);
        let _ = writeln!(self.text, "{t_ns} stuff {LIOBN} {ioba:#x} 0x0 {pages} 0 0 1");
        self.calls += 1;
    }
}
