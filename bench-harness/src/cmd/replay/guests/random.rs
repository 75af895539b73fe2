// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest whose four vCPUs put, stuff and ask for anything anywhere in two small windows, and now and
//! then take the second one away and make it again: nothing that a real one would do for long.

use std::fmt::Write as _;

use super::Random;

const VCPUS: u64 = 4;
/// Bytes of guest memory that are mapped.
const MEMORY: u64 = 64 << 20;
/// Calls between two removals of the second window, about.
const REMOVALS: u64 = 2000;
/// Nanoseconds between two calls, at most.
const APART: u64 = 8000;

struct Window {
    liobn: u32,
    start: u64,
    shift: u32,
    /// What is stored.
    tces: Vec<u64>,
}

impl Window {
    fn new(liobn: u32, start: u64, shift: u32, pages: usize) -> Self {
        Self { liobn, start, shift, tces: vec![0; pages] }
    }

    fn creation(&self) -> String {
        let Self { liobn, start, shift, tces } = self;
        format!("window-create {liobn:#x} {start:#x} {shift} {} 0", tces.len())
    }
}

struct Guest {
    text: String,
    t_ns: u64,
    random: Random,
    windows: [Window; 2],
}

/// The lines of a guest that makes so many calls.
pub(super) fn lines(calls: u64, random: Random) -> String {
    let windows =
        [Window::new(0x8000_0000, 0, 12, 2048), Window::new(0x8000_0001, 1 << 59, 16, 256)];
    let text = format!("0 {} - -\n", windows[0].creation());
    let mut guest = Guest { text, t_ns: 1, random, windows };
    let creation = guest.windows[1].creation();
    guest.line(&creation);
    for _ in 0..calls {
        if guest.random.below(REMOVALS) == 0 {
            guest.renew();
        }
        guest.call();
    }
    guest.text
}

impl Guest {
    fn line(&mut self, call: &str) {
        self.t_ns += self.random.below(APART);
        let _ = writeln!(self.text, "{} {call} {} 1", self.t_ns, self.random.below(VCPUS));
    }

    fn renew(&mut self) {
        let (liobn, creation) = (self.windows[1].liobn, self.windows[1].creation());
        self.line(&format!("window-remove {liobn:#x} - - - 0"));
        self.line(&creation);
        self.windows[1].tces.fill(0);
    }

    fn call(&mut self) {
        let nth = usize::from(self.random.below(4) == 0);
        let pages = self.windows[nth].tces.len() as u64;
        let count = match self.random.below(64) {
            0..44 => 1,
            44..63 => 1 + self.random.below(16),
            _ => 1 + self.random.below(pages.min(512)),
        };
        let first = self.random.below(pages - count + 1);
        let Window { liobn, start, shift, .. } = self.windows[nth];
        let place = format!("{liobn:#x} {:#x}", start + (first << shift));
        let (first, count) = (first as usize, count as usize);
        let call = match self.random.below(100) {
            0..50 => self.put(nth, first..first + count, &place),
            50..90 => {
                let put = count == 1 && self.random.below(2) == 0;
                self.windows[nth].tces[first..first + count].fill(0);
                format!("{} {place} 0x0 {count} 0", if put { "put" } else { "stuff" })
            }
            _ => format!("get {place} {:#x} 1 0", self.windows[nth].tces[first]),
        };
        self.line(&call);
    }

    /// Memory in one piece, or pages from anywhere with some that are left out.
    fn put(&mut self, nth: usize, at: std::ops::Range<usize>, place: &str) -> String {
        let (count, shift) = (at.len() as u64, self.windows[nth].shift);
        let (run, memory) = (self.random.below(5) == 0, MEMORY >> shift);
        let first = self.random.below(memory - count + 1);
        let perm = 1 + self.random.below(3);
        let mut tce = |nth| match (run, self.random.below(16)) {
            (true, _) => (first + nth) << shift | perm,
            (false, 0) => 0,
            (false, _) => self.random.below(memory) << shift | (1 + self.random.below(3)),
        };
        let tces: Vec<u64> = (0..count).map(&mut tce).collect();
        let list: Vec<_> = tces.iter().map(|tce| format!("{tce:x}")).collect();
        self.windows[nth].tces[at].copy_from_slice(&tces);
        match &list[..] {
            [one] => format!("put {place} 0x{one} 1 0"),
            list => format!("indirect {place} {} {count} 0", list.join(",")),
        }
    }
}
