// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A one-word lock that can be left to the thread that takes it again and again.
//!
//! It is held for at most one pass over a stretch of table, and one locked instruction takes it. If
//! the same registered thread keeps coming back, the lock may stay *biased* to it: from then on that
//! thread finds so by a plain load, and needs neither take nor release it. Whoever else wants it
//! takes it with a locked instruction as ever, and then waits until that thread is not inside
//! ([`Turns`](super::turns::Turns)); later it will see that its bias is gone.

use super::{AtomicU32, Ordering, relax};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Biased to thread 0, 1, … from here on.
const FIRST: u32 = 2;
/// Set while it is held by the thread that it is biased to.
const KEPT: u32 = 1 << 31;

/// Who takes a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who(u32);

impl Who {
    /// A thread that is not registered.
    pub(crate) const ANYONE: Self = Self(FREE);

    pub(super) fn registered(id: u32) -> Self {
        Self(FIRST + id)
    }

    /// True if it is registered.
    #[inline]
    pub(crate) fn is_registered(self) -> bool {
        self != Self::ANYONE
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct BiasLock(AtomicU32);

impl BiasLock {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(FREE))
    }

    /// True if it is `who`'s, who is inside and not waiting, without being taken.
    ///
    /// Relaxed: what is behind the lock was last written by `who`, or else the bias would be gone.
    #[inline]
    pub(crate) fn is_biased_to(&self, who: Who) -> bool {
        self.0.load(Ordering::Relaxed) == who.0
    }

    /// Takes it. True if it was biased to another thread: then, nothing behind it may be touched
    /// before that thread is known not to rely on it.
    #[must_use]
    #[inline]
    pub(crate) fn acquire(&self, who: Who) -> bool {
        let swap = |from, to| {
            self.0.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).map(drop)
        };
        let mut spins = 0;
        let mut seen = FREE;
        loop {
            let biased = seen >= FIRST && seen & KEPT == 0;
            let own = biased && seen == who.0;
            let done = match seen {
                FREE => swap(FREE, HELD),
                _ if own => swap(seen, seen | KEPT),
                _ if biased => swap(seen, HELD),
                _ => Err(seen),
            };
            if done.is_ok() {
                return biased && !own;
            }
            if seen == HELD || seen & KEPT != 0 {
                relax(spins);
                spins = spins.saturating_add(1);
            }
            seen = self.0.load(Ordering::Relaxed);
        }
    }

    /// Gives it back. Only the holder may call this.
    #[inline]
    pub(crate) fn release(&self) {
        let held = self.0.load(Ordering::Relaxed);
        debug_assert!(held == HELD || held & KEPT != 0, "release of a free lock");
        let next = if held == HELD { FREE } else { held & !KEPT };
        self.0.store(next, Ordering::Release);
    }

    /// Leaves it to the holder, who is registered.
    #[inline]
    pub(crate) fn release_to(&self, who: Who) {
        debug_assert!(who.is_registered());
        self.0.store(who.0, Ordering::Release);
    }
}
