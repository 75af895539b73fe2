// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What kills would cost on a machine where they are slow. Every number is an assumption: no bridge's
//! are documented.
//!
//! Whoever kills spins for it: for each store to a register, for each fence, and, after a kill of a
//! whole PE or bridge, for what devices then have to walk for again. On a machine those devices would
//! wait, not who kills; the time is charged here because a mock has none.

use std::time::Instant;

use super::cache::TceCache;
use super::phb::Phb;
use super::real::RealMemory;
use crate::addr::PeNumber;
use crate::backend::KillScope;
use crate::sync::{AtomicU64, Ordering};

/// What kills are to cost, in ns. See [`MockBuilder::kill_cost`](super::MockBuilder::kill_cost).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillCost {
    /// One store to a kill register, with the barrier before it.
    pub store_ns: u64,
    /// One fence: a bridge is asked to wait for accesses in flight, and polled until it has.
    pub fence_ns: u64,
    /// One level that is read again for a translation that a kill threw away with others.
    pub refill_ns: u64,
}

impl KillCost {
    /// An assumption, to be overridden where somebody knows better: 100 ns for an uncached store that is
    /// not waited for, 1000 ns for a fence, which is a few loads from the bridge, 200 ns for a level,
    /// which is one load by the bridge from memory.
    pub const ASSUMED: Self = Self { store_ns: 100, fence_ns: 1000, refill_ns: 200 };

    /// The most that each of them can be: a millisecond.
    pub const MOST_NS: u64 = 1_000_000;

    pub(super) fn possible(self) -> bool {
        let Self { store_ns, fence_ns, refill_ns } = self;
        store_ns.max(fence_ns).max(refill_ns) <= Self::MOST_NS
    }
}

impl Default for KillCost {
    fn default() -> Self {
        Self::ASSUMED
    }
}

/// What was charged so far, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KillCharge {
    /// For stores to kill registers.
    pub store_ns: u64,
    /// For fences.
    pub fence_ns: u64,
    /// For levels that have to be read again.
    pub refill_ns: u64,
}

impl KillCharge {
    /// All of it.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.store_ns + self.fence_ns + self.refill_ns
    }
}

/// Charges kills and fences, and spins for them.
pub(super) struct Costs {
    cost: KillCost,
    /// Translations that a bridge holds at most.
    cached: u64,
    bridges: usize,
    /// What reading the clock once takes.
    reading_ns: u64,
    store_ns: AtomicU64,
    fence_ns: AtomicU64,
    refill_ns: AtomicU64,
    /// Which entries of large tables are looked at next.
    looks: AtomicU64,
}

/// The least of several means: only interference makes one longer.
fn clock_reading_ns() -> u64 {
    const READINGS: u32 = 64;
    let mean = |_| {
        let begin = Instant::now();
        for _ in 1..READINGS {
            let _ = std::hint::black_box(Instant::now());
        }
        begin.elapsed() / READINGS
    };
    (0..16).map(mean).min().unwrap_or_default().as_nanos() as u64
}

impl Costs {
    pub(super) fn new(cost: KillCost, cache: Option<TceCache>, bridges: usize) -> Self {
        Self {
            cost,
            cached: cache.unwrap_or(TceCache::POWER8).entries as u64,
            bridges,
            reading_ns: clock_reading_ns(),
            store_ns: AtomicU64::new(0),
            fence_ns: AtomicU64::new(0),
            refill_ns: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        }
    }

    /// Charges a kill that took so many stores, and spins. Time that it takes to find out what was
    /// thrown away is part of it.
    #[cold]
    pub(super) fn kill(
        &self,
        (phb, real): (&Phb, &RealMemory),
        pe: PeNumber,
        scope: KillScope,
        stores: u64,
    ) {
        let begin = Instant::now();
        let store = stores * self.cost.store_ns;
        let refill = self.levels_lost((phb, real), pe, scope) * self.cost.refill_ns;
        self.store_ns.fetch_add(store, Ordering::Relaxed);
        self.refill_ns.fetch_add(refill, Ordering::Relaxed);
        self.spin(begin, store + refill);
    }

    /// Charges a fence, and spins.
    #[cold]
    pub(super) fn fence(&self) {
        let begin = Instant::now();
        self.fence_ns.fetch_add(self.cost.fence_ns, Ordering::Relaxed);
        self.spin(begin, self.cost.fence_ns);
    }

    pub(super) fn cost(&self) -> KillCost {
        self.cost
    }

    pub(super) fn charged(&self) -> KillCharge {
        KillCharge {
            store_ns: self.store_ns.load(Ordering::Relaxed),
            fence_ns: self.fence_ns.load(Ordering::Relaxed),
            refill_ns: self.refill_ns.load(Ordering::Relaxed),
        }
    }

    /// Levels that have to be read again for translations that are still valid: as many as the bridge
    /// holds, or as are live, if these are fewer. As if all had come back since the kill before.
    fn levels_lost(&self, (phb, real): (&Phb, &RealMemory), pe: PeNumber, scope: KillScope) -> u64 {
        let pes = match scope {
            KillScope::Pages { .. } => return 0,
            KillScope::Pe => usize::from(pe.0)..usize::from(pe.0) + 1,
            KillScope::All => usize::from(pe.0) % self.bridges..phb.pe_count(),
        };
        if self.cost.refill_ns == 0 {
            return 0;
        }
        let nth = self.looks.fetch_add(1, Ordering::Relaxed);
        let (mut left, mut levels) = (self.cached, 0);
        for tve in pes.step_by(self.bridges).flat_map(|pe| phb.windows(pe)) {
            let lost = tve.live(real, nth).min(left);
            left -= lost;
            levels += lost * u64::from(tve.levels());
            if left == 0 {
                break;
            }
        }
        levels
    }

    /// Until so long after `begin`, less what reading the clock for it adds.
    fn spin(&self, begin: Instant, ns: u64) {
        let ns = u128::from(ns.saturating_sub(self.reading_ns));
        while begin.elapsed().as_nanos() < ns {
            std::hint::spin_loop();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
