// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which windows there are at a line of a trace.

use std::collections::HashMap;

use super::Op;

/// The page size of a LIOBN that no line created: the smallest there is.
const DEFAULT_SHIFT: u8 = 12;

/// The PHB that a LIOBN belongs to (pseries numbers them so).
#[must_use]
pub const fn phb_of(liobn: u32) -> u32 {
    liobn & !0xff
}

/// Page shifts by LIOBN at the current line.
#[derive(Debug, Default)]
pub struct Windows {
    now: HashMap<u32, u8>,
    power_on: HashMap<u32, u8>,
    // Runs of calls are for one LIOBN; this saves the hash for 1.7 million of them.
    last: Option<(u32, u8)>,
}

impl Windows {
    /// Takes the next call, and gives the windows that are gone after it.
    pub fn see(&mut self, op: &Op) -> Vec<u32> {
        match *op {
            Op::WindowCreate { liobn: Some(liobn), page_shift, ret: 0, power_on, .. } => {
                self.last = None;
                self.now.insert(liobn, page_shift);
                if power_on {
                    self.power_on.insert(liobn, page_shift);
                }
                Vec::new()
            }
            Op::WindowRemove { liobn, ret: 0 } => {
                self.last = None;
                self.now.remove(&liobn);
                vec![liobn]
            }
            // A reset brings back what the PHB had at power-on, empty, and only that.
            Op::WindowReset { liobn, ret: 0 } => {
                self.last = None;
                let same = |other: u32| phb_of(other) == phb_of(liobn);
                let gone = self.now.keys().copied().filter(|&l| same(l)).collect();
                self.now.retain(|&other, _| !same(other));
                self.now.extend(self.power_on.iter().filter(|&(&other, _)| same(other)));
                gone
            }
            _ => Vec::new(),
        }
    }

    /// The page shift of a LIOBN; the smallest there is if no line created it.
    pub fn page_shift(&mut self, liobn: u32) -> u8 {
        match self.last {
            Some((known, shift)) if known == liobn => shift,
            _ => {
                let shift = self.now.get(&liobn).copied().unwrap_or(DEFAULT_SHIFT);
                self.last = Some((liobn, shift));
                shift
            }
        }
    }
}
