// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which entries of a guest are valid, call by call, and what that makes a kill of a whole PE cost. By the
//! recorded answers alone.

use std::collections::{BTreeMap, HashSet};

use tce_engine::addr::PageShift;
use tce_engine::backend::mock::TceCache;
use tce_engine::geometry::{Geometry, WindowSpec};

use super::script::{Call, PhbSetup, Script, Step, phb_of, window_spec};

/// Permission bits; an entry without any is empty.
const CONTROL: u64 = 3;
/// Largest block of a table level; the mock's.
const MAX_BLOCK: u64 = 16 << 20;

struct Window {
    start: u64,
    shift: u32,
    entries: u64,
    levels: u64,
    live: HashSet<u64>,
}

impl Window {
    fn new(start: u64, shift: u8, entries: u64, host_page: PageShift) -> Self {
        let levels = window_spec(shift, entries).map_or(1, |spec| levels(spec, host_page));
        Self { start, shift: shift.into(), entries, levels, live: HashSet::new() }
    }

    fn of(phb: &PhbSetup, host_page: PageShift) -> Self {
        let page = phb.window.page;
        Self::new(phb.ioba, page.get() as u8, phb.window.size >> page.get(), host_page)
    }

    /// Stores values from a bus address on; how many were valid before or after.
    fn store(&mut self, ioba: u64, values: impl Iterator<Item = u64>) -> u64 {
        let mut valid = 0;
        // A trace may say that a call beyond its window was done.
        let Some(offset) = ioba.checked_sub(self.start) else { return 0 };
        for (page, value) in (offset >> self.shift..self.entries).zip(values) {
            let fills = value & CONTROL != 0;
            let was = if fills { !self.live.insert(page) } else { self.live.remove(&page) };
            valid += u64::from(fills || was);
        }
        valid
    }
}

/// Levels of a window's table, if the engine picks them.
pub(super) fn levels(spec: WindowSpec, host_page: PageShift) -> u64 {
    let geometry = Geometry::new(spec, host_page, MAX_BLOCK);
    geometry.map_or(1, |geometry| geometry.levels().into())
}

/// All windows of a guest by LIOBN.
pub(super) struct Live {
    windows: BTreeMap<u32, Window>,
    /// Those that firmware gives.
    phbs: Vec<PhbSetup>,
    host_page: PageShift,
}

/// What a call changed.
pub(super) struct Changed {
    pub(super) phb: u32,
    /// Entries that it stored or cleared.
    pub(super) tces: u64,
    /// Of these, the ones that were valid before or after.
    pub(super) valid: u64,
}

impl Live {
    pub(super) fn new(script: &Script, host_page: PageShift) -> Self {
        let mut live = Self { windows: BTreeMap::new(), phbs: script.phbs.clone(), host_page };
        live.restore(|_| true);
        live
    }

    fn restore(&mut self, of: impl Fn(&PhbSetup) -> bool) {
        for phb in self.phbs.iter().filter(|phb| of(phb)) {
            self.windows.insert(phb.liobn, Window::of(phb, self.host_page));
        }
    }

    /// Does what a step did that succeeded; `None` if it stored nothing.
    pub(super) fn apply(&mut self, step: &Step, script: &Script) -> Option<Changed> {
        if step.ret != 0 {
            return None;
        }
        let (liobn, tces, valid) = match step.call {
            Call::Put { liobn, ioba, tce } => {
                (liobn, 1, self.windows.get_mut(&liobn)?.store(ioba, [tce].into_iter()))
            }
            Call::Indirect { liobn, ioba, start, end } => {
                let valid = self.windows.get_mut(&liobn)?.store(ioba, script.values(start, end));
                (liobn, u64::from(end - start), valid)
            }
            Call::Stuff { liobn, ioba, value, count } => {
                let window = self.windows.get_mut(&liobn)?;
                let count = count.min(window.entries);
                (liobn, count, window.store(ioba, (0..count).map(|_| value)))
            }
            Call::Create { page_shift, entries, given: Some((liobn, start)), .. } => {
                let window = Window::new(start, page_shift, entries, self.host_page);
                self.windows.insert(liobn, window);
                return None;
            }
            Call::Remove { liobn } => {
                self.windows.remove(&liobn);
                let phb = phb_of(liobn);
                if !self.windows.keys().any(|other| phb_of(*other) == phb) {
                    self.restore(|setup| setup.phb() == phb);
                }
                return None;
            }
            Call::Reset { phb } => {
                self.windows.retain(|liobn, _| phb_of(*liobn) != phb);
                self.restore(|setup| setup.phb() == phb);
                return None;
            }
            _ => return None,
        };
        Some(Changed { phb: phb_of(liobn), tces, valid })
    }

    /// Levels that are read again after a kill of one of the PHB's PEs: for as many translations as a cache
    /// holds, or as are valid.
    pub(super) fn refills(&self, phb: u32) -> u64 {
        let mut left = TceCache::POWER8.entries as u64;
        let of_phb = self.windows.iter().filter(|(liobn, _)| phb_of(**liobn) == phb);
        let levels = of_phb.map(|(_, window)| {
            let lost = left.min(window.live.len() as u64);
            left -= lost;
            lost * window.levels
        });
        levels.sum()
    }
}
