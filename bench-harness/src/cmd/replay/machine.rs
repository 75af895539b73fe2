// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A fresh mock, engine and guest, and the calls of a trace on them.

use std::sync::Arc;

use tce_engine::addr::{Gra, GroupId, Ioba, Liobn, PageShift, PageSizes, PeNumber};
use tce_engine::backend::Backend;
use tce_engine::backend::mock::{Fault, Mock, MockBuilder};
use tce_engine::container::Receipt;
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::papr::{Compat, GuestMemory, HCode, Papr, PhbSpec, Vcpu};
use tce_engine::simd::Tier;

use super::script::{Call, PhbSetup, Script, phb_of};
use crate::trace::TraceError;

/// Where the guest's list page lies; any page will do, as nothing else reads guest memory.
const LIST_PAGE: u64 = 0x1000;

/// What a replay does not take from the trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) tier: &'static Tier,
    pub(super) host_page: PageShift,
    pub(super) seed: u64,
    /// Guest RAM; `None` = as the trace needs.
    pub(super) ram: Option<u64>,
    pub(super) compat: Compat,
}

/// The guest's list page while one call runs.
struct ListPage<'a>(&'a [u64]);

impl GuestMemory for ListPage<'_> {
    fn copy_words(&self, at: Gra, words: &mut [u64]) -> bool {
        let Some(list) = self.0.get(..words.len()).filter(|_| at.0 == LIST_PAGE) else {
            return false;
        };
        words.copy_from_slice(list);
        true
    }
}

/// A hypercall's answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) code: i64,
    /// What H_GET_TCE returned; 0 for the others.
    pub(super) value: u64,
    pub(super) receipt: Receipt,
}

/// One guest on one machine. Dropping it closes everything.
pub(super) struct Machine {
    pub(super) mock: Arc<Mock>,
    pub(super) engine: Engine,
    pub(super) papr: Arc<Papr>,
    /// All calls are one vCPU's.
    pub(super) vcpu: Vcpu,
    /// Stores to kill registers that attaching groups and making windows took.
    pub(super) setup_stores: u64,
}

impl Machine {
    /// A machine with a PE for each PHB of the trace, and the guest with its default windows.
    ///
    /// # Errors
    /// If a default window cannot be had, with its line, or no guest of that size.
    pub(super) fn new(script: &Script, setup: &Setup, ram: u64) -> Result<Self, TraceError> {
        let mut builder =
            MockBuilder::new(script.phbs.len() as u16).host_page(setup.host_page).seed(setup.seed);
        for (group, _) in groups(&script.phbs) {
            // What the recorded platform offered, this one offers too.
            builder = builder.group(group, |caps| {
                caps.page_sizes = PageSizes(caps.page_sizes.0 | script.page_sizes.0);
            });
        }
        let mock = builder.build();
        let options = EngineOptions { tier: Some(setup.tier), ..EngineOptions::default() };
        let engine = Engine::new(mock.clone(), options);
        let papr = Arc::new(Papr::new(ram).compat(setup.compat));
        for (group, phb) in groups(&script.phbs) {
            let spec = PhbSpec {
                buid: u64::from(phb.phb()),
                group,
                liobn: Liobn(phb.liobn),
                window: phb.window,
            };
            papr.add_phb(&engine, spec).map_err(|error| TraceError {
                file: script.file.clone(),
                line: phb.line,
                text: format!("PHB {:#x} cannot be set up: {error}", phb.phb()),
            })?;
        }
        let setup_stores = mock.register_stores();
        let vcpu = papr.vcpu();
        Ok(Self { mock, engine, papr, vcpu, setup_stores })
    }

    /// Makes a hypercall; other calls do nothing.
    #[inline]
    pub(super) fn hypercall(&mut self, call: &Call, words: &[u64]) -> Outcome {
        let answer = match *call {
            Call::Put { liobn, ioba, tce } => self.vcpu.put_tce(u64::from(liobn), ioba, tce),
            Call::Indirect { liobn, ioba, start, end } => {
                let list = &words[start as usize..end as usize];
                let count = list.len() as u64;
                let memory = ListPage(list);
                self.vcpu.put_tce_indirect(u64::from(liobn), ioba, LIST_PAGE, count, &memory)
            }
            Call::Stuff { liobn, ioba, value, count } => {
                self.vcpu.stuff_tce(u64::from(liobn), ioba, value, count)
            }
            Call::Get { liobn, ioba, .. } => {
                let (code, value) = self.vcpu.get_tce(u64::from(liobn), ioba);
                let tces = u64::from(code == HCode::SUCCESS);
                let receipt = Receipt { tces, ..Receipt::default() };
                return Outcome { code: code.0, value, receipt };
            }
            _ => return Outcome { code: 0, value: 0, receipt: Receipt::default() },
        };
        Outcome { code: answer.code.0, value: 0, receipt: answer.receipt }
    }

    /// Makes a window call: its RTAS status, and what a new window is called and where it begins.
    /// Other calls do nothing.
    pub(super) fn rtas(&mut self, call: &Call) -> (i64, Option<(u32, u64)>) {
        let before = self.mock.register_stores();
        let done = match *call {
            Call::Create { phb, page_shift, entries, .. } => {
                // A guest that was refused may have asked for a window of no size (shift 0).
                let window_shift =
                    entries.checked_ilog2().map_or(0, |lg2| u64::from(lg2) + u64::from(page_shift));
                let made = self.papr.ddw_create(u64::from(phb), page_shift.into(), window_shift);
                made.map(|(liobn, ioba)| Some((liobn.0, ioba.0)))
            }
            Call::Remove { liobn } => self.papr.ddw_remove(Liobn(liobn)).map(|()| None),
            Call::Reset { phb } => self.papr.ddw_reset(u64::from(phb)).map(|()| None),
            _ => Ok(None),
        };
        self.setup_stores += self.mock.register_stores() - before;
        match done {
            Ok(given) => (0, given),
            Err(status) => (status.0, None),
        }
    }

    /// Translates as the device of the PE behind a LIOBN would have it; `None` if the trace set
    /// up no such PHB.
    pub(super) fn probe(
        &self,
        script: &Script,
        liobn: u32,
        ioba: u64,
    ) -> Option<Result<Seen, Fault>> {
        let (group, _) = groups(&script.phbs).find(|(_, p)| p.phb() == phb_of(liobn))?;
        let pe = self.mock.group(group).map_or(PeNumber(u16::MAX), |caps| caps.pe);
        Some(self.mock.probe(pe, Ioba(ioba)).map(|t| {
            let inside = t.page.bytes() - 1;
            Seen {
                value: (t.at.0 & !inside) | t.perm.bits(),
                offset_kept: (t.at.0 ^ ioba) & inside == 0,
            }
        }))
    }
}

/// What the PHB made of a bus address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Target page and permission, as an `xlate` line has them.
    pub(super) value: u64,
    /// True if the offset in the page is that of the bus address.
    pub(super) offset_kept: bool,
}

/// The PHBs with the group whose PE stands behind each.
pub(super) fn groups(phbs: &[PhbSetup]) -> impl Iterator<Item = (GroupId, &PhbSetup)> {
    phbs.iter().enumerate().map(|(nth, phb)| (GroupId(nth as u32), phb))
}
