// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A fresh mock, engine and guest, and the calls of a trace on them.

use std::sync::Arc;

use tce_engine::addr::{Gra, GroupId, Ioba, Liobn, PageShift, PageSizes, PeNumber};
use tce_engine::backend::mock::{Fault, KillCost, Mock, MockBuilder, MockEvent};
use tce_engine::backend::{Backend, KillCaps};
use tce_engine::container::{Container, Receipt};
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::kill::KillCount;
use tce_engine::papr::{Compat, GuestMemory, HCode, Papr, PhbSpec, Vcpu};
use tce_engine::platform::Platform;
use tce_engine::simd::Tier;

use super::script::{Call, PhbSetup, Script, Step, phb_of};
use crate::policy::{Fill, Policy};
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
    pub(super) policy: Policy,
    pub(super) fill: Fill,
    pub(super) platform: Platform,
    /// PEs behind each PHB of the trace.
    pub(super) pes: u16,
    pub(super) kill_cost: Option<KillCost>,
    pub(super) look: Look,
}

/// What a pass looks at beside its own things. Both take time that a timed pass does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Look {
    #[default]
    Nothing,
    /// What kills of which kind.
    Kills,
    /// How long released pages stay reachable.
    Exposure,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            tier: Tier::best(),
            host_page: PageShift::K64,
            seed: 1,
            ram: None,
            compat: Compat::Arch,
            policy: Policy::Strict,
            fill: Fill::Always,
            platform: Platform::Phb3,
            pes: 1,
            kill_cost: None,
            look: Look::Nothing,
        }
    }
}

/// What kill registers saw, without what attaching groups and making windows took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KillsSeen {
    /// Stores that killed a page.
    pub(super) pages: u64,
    /// Stores that killed a PE, or everything.
    pub(super) whole: u64,
    pub(super) fences: u64,
    /// Levels that have to be read again for what `whole` threw away.
    pub(super) refills: u64,
}

/// In a word for a PHB3's register, kill this PE, or kill all.
const WHOLE: u64 = 0b11 << 62;

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
    vcpus: Vec<Vcpu>,
    /// Stores to kill registers that attaching groups and making windows took.
    pub(super) setup_stores: u64,
    phbs: usize,
    look: Look,
    seen: KillsSeen,
    /// Fences when `seen` was last brought up to date.
    fences: u64,
}

impl Machine {
    /// A machine with a PE for each PHB of the trace, and the guest with its default windows.
    ///
    /// # Errors
    /// If a default window cannot be had, with its line, or no guest of that size.
    pub(super) fn new(script: &Script, setup: &Setup, ram: u64) -> Result<Self, TraceError> {
        let phbs = script.phbs.len() as u16;
        let mut builder = MockBuilder::new(phbs * setup.pes)
            .platform(setup.platform)
            .kill(KillCaps { fill: setup.fill.into(), ..KillCaps::of(setup.platform) })
            .host_page(setup.host_page)
            .seed(setup.seed)
            .record(setup.look == Look::Kills);
        // Counting needs no time.
        if let Some(cost) = setup.kill_cost.filter(|_| setup.look != Look::Kills) {
            builder = builder.kill_cost(cost);
        }
        for group in (0..phbs * setup.pes).map(|nth| GroupId(nth.into())) {
            // What the recorded platform offered, this one offers too.
            builder = builder.group(group, |caps| {
                caps.page_sizes = PageSizes(caps.page_sizes.0 | script.page_sizes.0);
            });
        }
        let mock = builder.build();
        let options = EngineOptions {
            tier: Some(setup.tier),
            policy: setup.policy.into(),
            measure_exposure: setup.look == Look::Exposure,
            ..EngineOptions::default()
        };
        let engine = Engine::new(mock.clone(), options);
        let papr = Arc::new(Papr::new(ram).compat(setup.compat));
        for (group, phb) in groups(&script.phbs) {
            let spec = PhbSpec {
                buid: u64::from(phb.phb()),
                group,
                liobn: Liobn(phb.liobn),
                window: phb.window,
            };
            let fail = |error: &dyn std::fmt::Display| TraceError {
                file: script.file.clone(),
                line: phb.line,
                text: format!("PHB {:#x} cannot be set up: {error}", phb.phb()),
            };
            papr.add_phb(&engine, spec).map_err(|error| fail(&error))?;
            let more = (1..setup.pes).map(|nth| GroupId(group.0 + u32::from(nth * phbs)));
            let attach = |container: &Container| {
                more.into_iter().try_for_each(|group| container.attach(group).map(drop))
            };
            let attached = papr.with_container(u64::from(phb.phb()), attach);
            attached.unwrap_or(Ok(())).map_err(|error| fail(&error))?;
        }
        let vcpus = (0..script.vcpus).map(|_| papr.vcpu()).collect();
        let (setup_stores, seen) = (mock.register_stores(), KillsSeen::default());
        let mut machine = Self {
            mock,
            engine,
            papr,
            vcpus,
            setup_stores,
            look: setup.look,
            seen,
            fences: 0,
            phbs: script.phbs.len().max(1),
        };
        machine.look();
        machine.seen = seen;
        let _ = machine.engine.take_exposure();
        Ok(machine)
    }

    /// Counts what kill registers have seen since the last time; the places, in the script, of the PHBs
    /// that had a whole PE killed, one each time.
    pub(super) fn look(&mut self) -> Vec<usize> {
        if self.look != Look::Kills {
            return Vec::new();
        }
        let mut whole = Vec::new();
        for event in self.mock.take_events() {
            match event {
                MockEvent::Kill(pe, word) if word & WHOLE != 0 => {
                    whole.push(usize::from(pe.0) % self.phbs);
                }
                MockEvent::Kill(..) => self.seen.pages += 1,
                _ => {}
            }
        }
        self.seen.whole += whole.len() as u64;
        let fences = self.mock.fences();
        self.seen.fences += fences - self.fences;
        self.fences = fences;
        whole
    }

    /// Levels have to be read again after kills of whole PEs.
    pub(super) fn add_refills(&mut self, levels: u64) {
        self.seen.refills += levels;
    }

    /// What was counted.
    pub(super) fn kills_seen(&mut self) -> KillsSeen {
        self.look();
        self.seen
    }

    /// Ends the batch of a handle.
    pub(super) fn submit(&mut self, vcpu: u16) -> KillCount {
        self.vcpus[usize::from(vcpu)].submit()
    }

    /// Ends the batches of all handles.
    pub(super) fn submit_all(&mut self) -> KillCount {
        let mut kills = KillCount::default();
        self.vcpus.iter_mut().for_each(|vcpu| kills += vcpu.submit());
        kills
    }

    /// Pages that a handle holds back.
    pub(super) fn held_back(&self, vcpu: u16) -> u64 {
        self.vcpus[usize::from(vcpu)].held_back()
    }

    /// Makes a hypercall, or ends a batch; other calls do nothing.
    #[inline]
    pub(super) fn hypercall(&mut self, step: &Step, words: &[u64]) -> Outcome {
        hypercall(&mut self.vcpus[usize::from(step.vcpu)], &step.call, words)
    }

    /// Makes a window call: its RTAS status, and what a new window is called and where it begins.
    /// Other calls do nothing.
    pub(super) fn rtas(&mut self, call: &Call) -> (i64, Option<(u32, u64)>) {
        self.look();
        let (before, seen) = (self.mock.register_stores(), self.seen);
        let done = rtas(&self.papr, call);
        self.setup_stores += self.mock.register_stores() - before;
        self.look();
        self.seen = seen;
        done
    }

    /// Takes guest and handles away; what is left of the rest tells of leaks.
    pub(super) fn close(self) -> (Arc<Mock>, Engine) {
        let Self { mock, engine, papr, vcpus, .. } = self;
        drop((vcpus, papr));
        (mock, engine)
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
        Some(probe(&self.mock, pe, ioba))
    }
}

/// Makes a hypercall, or ends a batch; other calls do nothing.
#[inline]
pub(super) fn hypercall(vcpu: &mut Vcpu, call: &Call, words: &[u64]) -> Outcome {
    let answer = match *call {
        Call::Put { liobn, ioba, tce } => vcpu.put_tce(u64::from(liobn), ioba, tce),
        Call::Indirect { liobn, ioba, start, end } => {
            let list = &words[start as usize..end as usize];
            let count = list.len() as u64;
            let memory = ListPage(list);
            vcpu.put_tce_indirect(u64::from(liobn), ioba, LIST_PAGE, count, &memory)
        }
        Call::Stuff { liobn, ioba, value, count } => {
            vcpu.stuff_tce(u64::from(liobn), ioba, value, count)
        }
        Call::Get { liobn, ioba, .. } => {
            let (code, value) = vcpu.get_tce(u64::from(liobn), ioba);
            let tces = u64::from(code == HCode::SUCCESS);
            let receipt = Receipt { tces, ..Receipt::default() };
            return Outcome { code: code.0, value, receipt };
        }
        Call::Submit => {
            let receipt = Receipt { kills: vcpu.submit(), ..Receipt::NONE };
            return Outcome { code: 0, value: 0, receipt };
        }
        _ => return Outcome { code: 0, value: 0, receipt: Receipt::default() },
    };
    Outcome { code: answer.code.0, value: 0, receipt: answer.receipt }
}

/// Makes a window call: its RTAS status, and what a new window is called and where it begins. Other calls
/// do nothing.
pub(super) fn rtas(papr: &Papr, call: &Call) -> (i64, Option<(u32, u64)>) {
    let done = match *call {
        Call::Create { phb, page_shift, entries, .. } => {
            // A guest that was refused may have asked for a window of no size (shift 0).
            let window_shift =
                entries.checked_ilog2().map_or(0, |lg2| u64::from(lg2) + u64::from(page_shift));
            let made = papr.ddw_create(u64::from(phb), page_shift.into(), window_shift);
            made.map(|(liobn, ioba)| Some((liobn.0, ioba.0)))
        }
        Call::Remove { liobn } => papr.ddw_remove(Liobn(liobn)).map(|()| None),
        Call::Reset { phb } => papr.ddw_reset(u64::from(phb)).map(|()| None),
        _ => Ok(None),
    };
    match done {
        Ok(given) => (0, given),
        Err(status) => (status.0, None),
    }
}

/// Translates as the device of a PE would have it.
pub(super) fn probe(mock: &Mock, pe: PeNumber, ioba: u64) -> Result<Seen, Fault> {
    mock.probe(pe, Ioba(ioba)).map(|t| {
        let inside = t.page.bytes() - 1;
        Seen {
            value: (t.at.0 & !inside) | t.perm.bits(),
            offset_kept: (t.at.0 ^ ioba) & inside == 0,
        }
    })
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
