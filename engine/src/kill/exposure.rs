// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long devices may still reach what was released: from before an entry is cleared, or given
//! another value, until the fence after its kill.

use std::time::{Duration, Instant};

use crate::sync::{Arc, AtomicU64, Ordering};

/// The longest of all, in ns.
pub(crate) type Longest = Arc<AtomicU64>;

/// The longest since the last time, and forgets it.
pub(crate) fn take(longest: &Longest) -> Duration {
    Duration::from_nanos(longest.swap(0, Ordering::AcqRel))
}

/// Something was released that had been reachable for so long.
pub(crate) fn tell(longest: &Longest, exposed: Duration) {
    longest.fetch_max(exposed.as_nanos() as u64, Ordering::AcqRel);
}

/// One debt's stopwatch.
pub(crate) struct Exposure {
    longest: Longest,
    since: Option<Instant>,
}

impl Exposure {
    pub(crate) fn new(longest: Longest) -> Self {
        Self { longest, since: None }
    }

    /// Entries are about to change.
    #[cold]
    pub(super) fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Since when something is exposed.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Somebody else measures it from here on.
    pub(super) fn pass_on(&mut self) {
        self.since = None;
    }

    /// All kills are complete; live entries were among what changed, or not.
    #[cold]
    pub(super) fn end(&mut self, released: bool) {
        if let Some(since) = self.since.take().filter(|_| released) {
            tell(&self.longest, since.elapsed());
        }
    }
}
