// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What Linux's own rules would have cost for the same calls. Nothing of the engine is asked.
//!
//! Since 5.4 a map or an unmap changes all of its entries and then invalidates the whole range once,
//! whatever the entries held before. On a PHB3 that is a register store for each page and PE; on a PHB4 a
//! call of the firmware for each PE, which kills all of it. So there stores are counted, here calls.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use tce_engine::addr::PageShift;
use tce_engine::backend::mock::TceCache;
use tce_engine::geometry::{Geometry, WindowSpec};

use super::super::script::{Call, PhbSetup, Script, phb_of, window_spec};

/// Permission bits; an entry without any is empty.
const CONTROL: u64 = 3;
/// Largest block of a table level; the mock's.
const MAX_BLOCK: u64 = 16 << 20;

/// The costs of Linux's rules, for all PEs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Linux {
    /// Hypercalls that changed entries.
    pub(super) calls: u64,
    /// Entries that they stored or cleared.
    pub(super) tces: u64,
    /// Of these, the ones that were valid before or after. The others are boot-time clearing of tables
    /// that are clear.
    pub(super) valid_tces: u64,
    /// PHB3: a store for each of `tces` and PE.
    pub(super) phb3_stores: u64,
    /// The same without the clearing of what was clear.
    pub(super) phb3_stores_valid: u64,
    /// PHB4: a call for each of `calls` and PE.
    pub(super) phb4_calls: u64,
    /// The same without the clearing of what was clear.
    pub(super) phb4_calls_valid: u64,
    /// PHB4: levels that have to be read again after those calls, as the cost model counts: as if a cache
    /// of 1024 translations had been full again of what is still valid.
    pub(super) phb4_refills: u64,
}

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

impl Linux {
    /// The costs of a script's calls with so many PEs behind each PHB. Failed calls and window calls cost
    /// nothing.
    pub(super) fn of(script: &Script, pes: u64, host_page: PageShift) -> Self {
        let mut sum = Self::default();
        let default = |phb: &PhbSetup| (phb.liobn, Window::of(phb, host_page));
        let mut windows: BTreeMap<u32, Window> = script.phbs.iter().map(default).collect();
        for step in script.steps.iter().filter(|step| step.ret == 0) {
            let (liobn, tces, valid) = match step.call {
                Call::Put { liobn, ioba, tce } => {
                    let Some(window) = windows.get_mut(&liobn) else { continue };
                    (liobn, 1, window.store(ioba, [tce].into_iter()))
                }
                Call::Indirect { liobn, ioba, start, end } => {
                    let Some(window) = windows.get_mut(&liobn) else { continue };
                    (liobn, u64::from(end - start), window.store(ioba, script.values(start, end)))
                }
                Call::Stuff { liobn, ioba, value, count } => {
                    let Some(window) = windows.get_mut(&liobn) else { continue };
                    let count = count.min(window.entries);
                    (liobn, count, window.store(ioba, (0..count).map(|_| value)))
                }
                Call::Create { page_shift, entries, given: Some((liobn, start)), .. } => {
                    windows.insert(liobn, Window::new(start, page_shift, entries, host_page));
                    continue;
                }
                Call::Remove { liobn } => {
                    windows.remove(&liobn);
                    let phb = phb_of(liobn);
                    if !windows.keys().any(|other| phb_of(*other) == phb) {
                        windows.extend(script.phbs.iter().filter(|p| p.phb() == phb).map(default));
                    }
                    continue;
                }
                Call::Reset { phb } => {
                    windows.retain(|liobn, _| phb_of(*liobn) != phb);
                    windows.extend(script.phbs.iter().filter(|p| p.phb() == phb).map(default));
                    continue;
                }
                _ => continue,
            };
            sum.calls += 1;
            sum.tces += tces;
            sum.valid_tces += valid;
            sum.phb3_stores += tces * pes;
            sum.phb3_stores_valid += valid * pes;
            sum.phb4_calls += pes;
            sum.phb4_calls_valid += pes * u64::from(valid > 0);
            sum.phb4_refills += pes * refills(&windows, phb_of(liobn));
        }
        sum
    }
}

/// Levels that are read again after a kill of a PE: for as many translations as its cache holds, or as are
/// valid.
fn refills(windows: &BTreeMap<u32, Window>, phb: u32) -> u64 {
    let mut left = TceCache::POWER8.entries as u64;
    let of_phb = windows.iter().filter(|(liobn, _)| phb_of(**liobn) == phb);
    let levels = of_phb.map(|(_, window)| {
        let lost = left.min(window.live.len() as u64);
        left -= lost;
        lost * window.levels
    });
    levels.sum()
}
