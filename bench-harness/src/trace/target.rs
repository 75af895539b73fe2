// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Follows the windows of a trace to learn how high in memory its TCEs point.

use super::Op;
use super::windows::Windows;

/// The permission bits of a TCE; both clear means no mapping.
const CONTROL: u64 = 3;

/// The windows at the current line, and the highest end seen.
#[derive(Debug, Default)]
pub(super) struct TargetScan {
    windows: Windows,
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
            _ => drop(self.windows.see(op)),
        }
    }

    fn name(&mut self, liobn: u32, tces: &[u64]) {
        let page = 1u64 << self.windows.page_shift(liobn);
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
