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

    /// All kills are complete; live entries were among what changed, or not.
    #[cold]
    pub(super) fn end(&mut self, released: bool) {
        if let Some(since) = self.since.take().filter(|_| released) {
            self.longest.fetch_max(since.elapsed().as_nanos() as u64, Ordering::AcqRel);
        }
    }
}
