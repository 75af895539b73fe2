// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Follows the windows of a trace to learn how high in memory its TCEs point.

use std::collections::HashMap;

use super::Op;

/// The permission bits of a TCE; both clear means no mapping.
const CONTROL: u64 = 3;

/// The page size of a LIOBN that no line created: the smallest there is.
const DEFAULT_SHIFT: u8 = 12;

/// The PHB that a LIOBN belongs to (pseries numbers them so).
const fn phb(liobn: u32) -> u32 {
    liobn & !0xff
}

/// Page shifts by LIOBN at the current line, and the highest end seen.
#[derive(Debug, Default)]
pub(super) struct TargetScan {
    shifts: HashMap<u32, u8>,
    power_on: HashMap<u32, u8>,
    // Runs of calls are for one LIOBN; this saves the hash for 1.7 million of them.
    last: Option<(u32, u8)>,
    end: u64,
}

impl TargetScan {
    /// Takes the next call; `pool` holds the lists.
    pub(super) fn see(&mut self, op: &Op, pool: &[u64]) {
        match *op {
            Op::Put { liobn, tce, ret: 0, .. } => self.name(liobn, &[tce]),
            Op::Indirect { liobn, ref list, ret: 0, .. } => {
                self.name(liobn, &pool[list.start as usize..list.end as usize]);
            }
            Op::Stuff { liobn, value, npages, ret: 0, .. } if npages > 0 => {
                self.name(liobn, &[value]);
            }
            Op::WindowCreate { liobn: Some(liobn), page_shift, ret: 0, power_on, .. } => {
                self.last = None;
                self.shifts.insert(liobn, page_shift);
                if power_on {
                    self.power_on.insert(liobn, page_shift);
                }
            }
            Op::WindowRemove { liobn, ret: 0 } => {
                self.last = None;
                self.shifts.remove(&liobn);
            }
            // A reset brings back what the PHB had at power-on, and only that.
            Op::WindowReset { liobn, ret: 0 } => {
                self.last = None;
                self.shifts.retain(|&other, _| phb(other) != phb(liobn));
                let back = self.power_on.iter().filter(|&(&other, _)| phb(other) == phb(liobn));
                self.shifts.extend(back);
            }
            _ => {}
        }
    }

    fn name(&mut self, liobn: u32, tces: &[u64]) {
        let shift = match self.last {
            Some((known, shift)) if known == liobn => shift,
            _ => {
                let shift = self.shifts.get(&liobn).copied().unwrap_or(DEFAULT_SHIFT);
                self.last = Some((liobn, shift));
                shift
            }
        };
        let page = 1u64 << shift;
        for tce in tces.iter().filter(|&tce| tce & CONTROL != 0) {
            let address = tce & !(page - 1);
            self.end = self.end.max(address.saturating_add(page));
        }
    }

    /// End (exclusive) of the highest page named.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }
}
