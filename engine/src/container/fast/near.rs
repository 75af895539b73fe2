// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory of the pages that were mapped last.

use super::Page;
use crate::addr::{Hpa, PageShift, Uaddr};
use crate::backend::layout::RealLayout;
use crate::container::State;
use crate::regions::{Count, Shard};

/// A region of the process, or none.
pub(super) struct UserHit {
    /// The handle's count of it.
    pub(super) count: Count,
    start: u64,
    /// Last offset at which a page begins.
    last: u64,
    page: PageShift,
    layout: Option<Box<RealLayout>>,
    near: Near,
}

/// The extent of the last page.
struct Near {
    start: u64,
    /// The same if the page is of the magazine's size, and where no page begins if not.
    ours: u64,
    /// Last offset at which a page begins.
    last: u64,
    /// Leads from user addresses to entry addresses.
    to_real: u64,
}

/// No page begins there.
const NO_PAGE: u64 = 1;

impl UserHit {
    pub(super) fn none() -> Self {
        let near = Near { start: NO_PAGE, ours: NO_PAGE, last: 0, to_real: 0 };
        Self { count: Count::nobody(), start: 0, last: 0, page: PageShift::K4, layout: None, near }
    }

    pub(super) fn new(
        state: &State,
        shard: &Shard,
        memory: Uaddr,
        page: PageShift,
    ) -> Option<Self> {
        let (number, registration, offset) = state.registrations.user(memory).ok()?;
        let region = &registration.region;
        // A run may be aligned for one page and not for the next: only what holds for all is kept.
        if !region.layout.can_map(offset, page) {
            return None;
        }
        let last = region.memory.bytes().checked_sub(page.bytes())?;
        let (start, layout) = (region.memory.start(), Some(Box::new(region.layout.clone())));
        Some(Self { start, last, page, layout, count: shard.one(number), ..Self::none() })
    }

    /// Entry address of the page at `at`, if it is of the near extent.
    #[inline(always)]
    pub(super) fn near(&self, at: Uaddr, page: Page) -> Option<Hpa> {
        let start = match page {
            Page::Any(page) if page == self.page => self.near.start,
            Page::Any(_) => return None,
            Page::Ours(_) => self.near.ours,
        };
        let near = at.is_aligned(page.size()) && at.0.wrapping_sub(start) <= self.near.last;
        if near { Some(Hpa(at.0.wrapping_add(self.near.to_real))) } else { None }
    }

    /// See [`Fast::move_near`](super::Fast::move_near).
    pub(super) fn move_near(&mut self, at: Uaddr, page: PageShift, ours: PageShift) -> bool {
        let Some(layout) = &self.layout else { return false };
        let offset = at.0.wrapping_sub(self.start);
        if page != self.page || !at.is_aligned(page) || offset > self.last {
            return false;
        }
        let extent = layout.extent_at(offset);
        let Some(last) = extent.bytes.checked_sub(page.bytes()) else { return false };
        let (start, to_real) = (at.0, extent.at.0.wrapping_sub(at.0));
        let ours = if page == ours { start } else { NO_PAGE };
        self.near = Near { start, ours, last, to_real };
        true
    }
}
