// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dynamic DMA windows: the RTAS calls query, create, remove and reset.

use super::{Papr, Phb, Target};
use crate::addr::{Ioba, Liobn, PageShift, PageSizes};
use crate::container::Removal;
use crate::error::WindowError;
use crate::geometry::{Levels, WindowSpec};
use crate::sync::{Arc, read, write};

/// An RTAS status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtasStatus(pub i64);

impl RtasStatus {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// The platform could not do it.
    pub const HARDWARE: Self = Self(-1);
    /// A parameter is wrong.
    pub const PARAMETER: Self = Self(-3);
}

/// The answer to ibm,query-pe-dma-window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DdwQuery {
    /// Windows that can still be created.
    pub available: u32,
    /// The largest window, in TCEs of 4 KiB pages.
    pub largest_block: u64,
    /// Page sizes, in RTAS's own bits.
    pub page_mask: u32,
    /// Page sizes that survive a migration: none is promised.
    pub migration_mask: u32,
}

/// RTAS's bit for each page shift.
const PAGE_BITS: [(u32, u32); 9] =
    [(12, 0), (16, 1), (24, 2), (25, 3), (26, 4), (27, 5), (28, 6), (34, 7), (21, 8)];

fn page_mask(sizes: PageSizes) -> u32 {
    PAGE_BITS
        .iter()
        .filter(|(shift, _)| sizes.0 >> shift & 1 != 0)
        .fold(0, |mask, (_, bit)| mask | 1 << bit)
}

impl Papr {
    fn phb(&self, buid: u64) -> Result<Arc<Phb>, RtasStatus> {
        read(&self.names).phbs.get(&buid).cloned().ok_or(RtasStatus::PARAMETER)
    }

    /// Makes the default window again.
    fn restore(&self, phb: &Phb) -> Result<Ioba, RtasStatus> {
        let info = phb.container.create_guest_window(phb.spec.window, self.composed);
        info.map(|w| w.start).map_err(|_| RtasStatus::HARDWARE)
    }

    /// What a guest may have where the PEs have `sizes`.
    fn guest_pages(&self, sizes: PageSizes) -> PageSizes {
        let composed = self.composed.iter().filter(|page| sizes.largest_below(*page).is_some());
        composed.fold(sizes, |all, page| PageSizes(all.0 | page.bytes()))
    }

    /// ibm,query-pe-dma-window.
    ///
    /// # Errors
    /// [`RtasStatus::PARAMETER`] for an unknown PHB.
    pub fn ddw_query(&self, buid: u64) -> Result<DdwQuery, RtasStatus> {
        let phb = self.phb(buid)?;
        let caps = phb.container.caps().ok_or(RtasStatus::HARDWARE)?;
        let slots = caps.window_starts.iter().flatten().count();
        let used = phb.container.windows().len();
        let largest = phb.container.largest_window(PageShift::K4);
        Ok(DdwQuery {
            available: slots.saturating_sub(used) as u32,
            largest_block: largest >> PageShift::K4.get(),
            page_mask: page_mask(self.guest_pages(caps.page_sizes)),
            migration_mask: 0,
        })
    }

    /// ibm,create-pe-dma-window: `1 << window_shift` bytes in pages of `1 << page_shift`.
    ///
    /// # Errors
    /// [`RtasStatus::PARAMETER`] for an unknown PHB, page size or window size;
    /// [`RtasStatus::HARDWARE`] when no window is left or there is no memory for its table.
    pub fn ddw_create(
        &self,
        buid: u64,
        page_shift: u64,
        window_shift: u64,
    ) -> Result<(Liobn, Ioba), RtasStatus> {
        let shift = |v: u64| u32::try_from(v).map_err(|_| RtasStatus::PARAMETER);
        let page = PageShift::new(shift(page_shift)?).ok_or(RtasStatus::PARAMETER)?;
        let size = 1u64.checked_shl(shift(window_shift)?).ok_or(RtasStatus::PARAMETER)?;
        // Names are held throughout, so that a window and its LIOBN appear together.
        let mut names = write(&self.names);
        let phb = names.phbs.get(&buid).cloned().ok_or(RtasStatus::PARAMETER)?;
        let spec = WindowSpec { size, page, levels: Levels::Auto };
        let info = phb.container.create_guest_window(spec, self.composed).map_err(|e| match e {
            WindowError::PageSize { .. } | WindowError::Geometry(_) => RtasStatus::PARAMETER,
            _ => RtasStatus::HARDWARE,
        })?;
        let liobn = phb.liobn_at(info.start);
        names.liobns.insert(liobn, Target { phb, start: info.start, default: false });
        Ok((liobn, info.start))
    }

    /// ibm,remove-pe-dma-window. What the guest left mapped is cleared and released. When the last
    /// dynamic window goes and no other is left, the default one comes back.
    ///
    /// # Errors
    /// [`RtasStatus::PARAMETER`] for an unknown LIOBN; [`RtasStatus::HARDWARE`] if the default
    /// window cannot be had back.
    pub fn ddw_remove(&self, liobn: Liobn) -> Result<(), RtasStatus> {
        let mut names = write(&self.names);
        let target = names.liobns.remove(&liobn).ok_or(RtasStatus::PARAMETER)?;
        let Target { phb, start, default } = target;
        phb.container.remove_window(start, Removal::Force).map_err(|_| RtasStatus::HARDWARE)?;
        if phb.container.windows().is_empty() && !default {
            let start = self.restore(&phb)?;
            names.liobns.insert(phb.spec.liobn, Target { phb, start, default: true });
        }
        Ok(())
    }

    /// ibm,reset-pe-dma-window: back to the default window, empty, and no other.
    ///
    /// # Errors
    /// [`RtasStatus::PARAMETER`] for an unknown PHB; [`RtasStatus::HARDWARE`] if the default
    /// window cannot be had back.
    pub fn ddw_reset(&self, buid: u64) -> Result<(), RtasStatus> {
        let mut names = write(&self.names);
        let phb = names.phbs.get(&buid).cloned().ok_or(RtasStatus::PARAMETER)?;
        names.liobns.retain(|_, t| !Arc::ptr_eq(&t.phb, &phb));
        for window in phb.container.windows() {
            let removed = phb.container.remove_window(window.start, Removal::Force);
            removed.map_err(|_| RtasStatus::HARDWARE)?;
        }
        let start = self.restore(&phb)?;
        names.liobns.insert(phb.spec.liobn, Target { phb, start, default: true });
        Ok(())
    }
}

impl Phb {
    fn starts(&self) -> impl Iterator<Item = Ioba> {
        self.container.caps().into_iter().flat_map(|c| c.window_starts).flatten()
    }

    /// The LIOBN of the slot that begins at `start`.
    fn liobn_at(&self, start: Ioba) -> Liobn {
        let slot = self.starts().position(|s| s == start).unwrap_or(0);
        Liobn(self.spec.liobn.0.wrapping_add(slot as u32))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn rtas_page_bits() {
        assert_eq!(page_mask(PageSizes(0x1101_1000)), 1 | 2 | 4 | 1 << 6);
        assert_eq!(page_mask(PageSizes::of(&[PageShift::M2, PageShift::K4])), 0x101);
    }
}
