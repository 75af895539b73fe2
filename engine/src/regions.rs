// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Registered memory: regions of the process, pinned and charged once; and, in `registrations`, what
//! one container has of them, with the number of its live entries that point into each.

mod counts;
mod ranges;
mod registrations;

use std::collections::BTreeMap;

use crate::addr::Uaddr;
use crate::backend::layout::RealLayout;
use crate::backend::{Backend, Caps, Memory};
use crate::error::RegisterError;
use crate::ledger::{Charge, ChargeKind, Ledger};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock};

pub(crate) use counts::{Count, Shard};
pub(crate) use registrations::{Counts, Hits, Registrations};

/// A pinned region of the process.
pub(crate) struct Region {
    pub(crate) memory: Memory,
    pub(crate) layout: RealLayout,
    /// A kernel that owns tables may hold on to it: a map into it failed half way.
    doubtful: AtomicBool,
    /// Given back when the region goes; `None` where it is paid for otherwise.
    _charge: Option<Charge>,
}

impl Region {
    /// A region for tests and measurements, which nobody pinned or charged.
    #[cfg(any(feature = "internals", all(test, not(loom))))]
    pub(crate) fn uncharged(memory: Memory, layout: RealLayout) -> Self {
        Self { memory, layout, doubtful: AtomicBool::new(false), _charge: None }
    }

    /// A kernel failed while it was mapping the region. By our reading, Linux then counts a mapping
    /// that is not there, and unregistering looks like success but frees nothing.
    pub(crate) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    pub(crate) fn doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }
}

/// The process's regions and the number of containers that use each. A region without a user is one
/// that a kernel would not give back: it stays charged. Registering it again would succeed, and lead
/// devices to the pages of then, whatever is at its addresses now; so it is refused.
pub(crate) struct Registry {
    regions: Mutex<BTreeMap<Memory, (Arc<Region>, usize)>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { regions: Mutex::new(BTreeMap::new()) }
    }

    /// The region with exactly this memory, pinned and charged if it is the first use.
    pub(crate) fn acquire(
        &self,
        backend: &dyn Backend,
        caps: &Caps,
        ledger: &Arc<Ledger>,
        memory: Memory,
    ) -> Result<Arc<Region>, RegisterError> {
        let mut regions = lock(&self.regions);
        if let Some((region, users)) = regions.get_mut(&memory) {
            if *users == 0 {
                let (start, bytes) = (Uaddr(memory.start()), memory.bytes());
                return Err(RegisterError::Kept { start, bytes });
            }
            *users += 1;
            return Ok(region.clone());
        }
        if let Some(other) = regions.keys().find(|other| overlap(other, &memory)) {
            return Err(RegisterError::Overlap {
                start: Uaddr(memory.start()),
                bytes: memory.bytes(),
                other: Uaddr(other.start()),
                other_bytes: other.bytes(),
            });
        }
        let paid = caps.tables.kernel().is_some_and(|k| k.paid_ahead > 0);
        let charge =
            (!paid).then(|| ledger.charge(ChargeKind::Region, memory.bytes())).transpose()?;
        let layout = backend.pin(memory)?;
        let doubtful = AtomicBool::new(false);
        let region = Arc::new(Region { memory, layout, doubtful, _charge: charge });
        regions.insert(memory, (region.clone(), 1));
        Ok(region)
    }

    /// The regions, and how many containers use each.
    pub(crate) fn users(&self) -> Vec<(Memory, usize)> {
        lock(&self.regions).iter().map(|(memory, (_, users))| (*memory, *users)).collect()
    }

    /// Ends one use; the last one unpins and gives the charge back, unless it is `kept`. Then, it
    /// returns true.
    pub(crate) fn release(&self, backend: &dyn Backend, region: Arc<Region>, kept: bool) -> bool {
        let mut regions = lock(&self.regions);
        let Some((_, users)) = regions.get_mut(&region.memory) else {
            debug_assert!(false, "a region that nobody acquired");
            return false;
        };
        *users -= 1;
        let last = *users == 0;
        if last && !kept {
            regions.remove(&region.memory);
            backend.unpin(region.memory, &region.layout);
        }
        // The last one takes the charge with it, before anybody can acquire the same memory anew.
        drop(region);
        last && kept
    }
}

fn overlap(a: &Memory, b: &Memory) -> bool {
    let same_space = matches!(
        (a, b),
        (Memory::User { .. }, Memory::User { .. }) | (Memory::Guest { .. }, Memory::Guest { .. })
    );
    let end = |m: &Memory| m.start() + m.bytes();
    same_space && a.start() < end(b) && b.start() < end(a)
}
