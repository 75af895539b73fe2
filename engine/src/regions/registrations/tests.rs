// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::backend::layout::RealLayout;

/// What a thread has counted stays when its counts go, and their place is the next one's.
#[test]
fn counts_that_are_closed() {
    let mut registrations = Registrations::default();
    let (start, bytes) = (Uaddr(1 << 20), 1 << 16);
    let layout = RealLayout::process(start, bytes, PageShift::K64);
    let memory = Memory::User { start, bytes };
    registrations.insert(Arc::new(Region::uncharged(memory, layout)));
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
