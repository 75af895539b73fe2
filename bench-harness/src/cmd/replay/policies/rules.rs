// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What Linux's own rules would have cost for the same calls. Nothing of the engine is asked.
//!
//! Since 5.4 a map or an unmap changes all of its entries and then invalidates the whole range once,
//! whatever the entries held before. On a PHB3 that is a register store for each page and PE; on a PHB4 a
//! call of the firmware for each PE, which kills all of it. So there stores are counted, here calls.

use serde::Serialize;
use tce_engine::addr::PageShift;

use super::super::live::{Changed, Live};
use super::super::script::Script;

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

impl Linux {
    /// The costs of a script's calls with so many PEs behind each PHB. Failed calls and window calls cost
    /// nothing.
    pub(super) fn of(script: &Script, pes: u64, host_page: PageShift) -> Self {
        let (mut sum, mut live) = (Self::default(), Live::new(script, host_page));
        for step in &script.steps {
            let Some(Changed { phb, tces, valid }) = live.apply(step, script) else { continue };
            sum.calls += 1;
            sum.tces += tces;
            sum.valid_tces += valid;
            sum.phb3_stores += tces * pes;
            sum.phb3_stores_valid += valid * pes;
            sum.phb4_calls += pes;
            sum.phb4_calls_valid += pes * u64::from(valid > 0);
            sum.phb4_refills += pes * live.refills(phb);
        }
        sum
    }
}
