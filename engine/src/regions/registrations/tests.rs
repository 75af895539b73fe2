// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::sync::atomic::AtomicBool;

use super::*;
use crate::backend::layout::RealLayout;

/// A region that nobody pinned or charged.
fn region(start: u64, bytes: u64) -> Arc<Region> {
    let memory = Memory::User { start: Uaddr(start), bytes };
    let layout = RealLayout::process(Uaddr(start), bytes, PageShift::K64);
    Arc::new(Region { memory, layout, doubtful: AtomicBool::new(false), _charge: None })
}

/// What a thread has counted stays when its counts go, and their place is the next one's.
#[test]
fn counts_that_are_closed() {
    let mut registrations = Registrations::default();
    registrations.insert(region(1 << 20, 1 << 16));
    let first = registrations.open_counts();
    registrations.claim(first, 0, 3);
    registrations.claim(Counts::SHARED, 0, 4);
    registrations.close_counts(first);
    assert_eq!(registrations.mapped(0), 7);
    let next = registrations.open_counts();
    assert_eq!(next.0, first.0);
    assert_eq!(registrations.mapped(0), 7);
    registrations.unclaim(next, 0, 7);
    registrations.close_counts(next);
    assert_eq!(registrations.mapped(0), 0);
}
