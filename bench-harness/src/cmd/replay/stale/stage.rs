// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A software PHB with its TCE cache on, devices that use it, and a guest whose threads replay a trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tce_engine::addr::{GroupId, Ioba, Liobn, PageShift, PageSizes, PeNumber};
use tce_engine::backend::KillCaps;
use tce_engine::backend::mock::agents::{Expectations, Stretch, Violation, Watched};
use tce_engine::backend::mock::{Mock, MockBuilder, TceCache};
use tce_engine::container::Container;
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::kill::DebtMetrics;
use tce_engine::papr::{Compat, Papr, PhbSpec};
use tce_engine::sabotage::inherit;

use super::super::mismatch::Mismatches;
use super::super::model::{Model, Window};
use super::super::progress::{Progress, go_on};
use super::super::script::{Script, phb_of};
use super::guest::Guest;
use super::plan::Plan;
use super::promises::Promises;
use crate::cli::StaleConfig;
use crate::policy::{Fill, Policy};
use crate::trace::TraceError;

/// The first thread's first PHB; each has 256 LIOBNs, as pseries numbers them.
const FIRST_PHB: u32 = 0x8000_0000;
/// PHBs that the trace did not set up are here.
const NO_PHB: u32 = 0x7f00_0000;
/// Accesses after everything was closed, of each device.
const LAST_LOOKS: u64 = 5_000;

/// What one thread, or all, did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Turns through the trace.
    pub(super) loops: u64,
    pub(super) calls: u64,
    /// Pages that were mapped, replaced or unmapped.
    pub(super) pages: u64,
    pub(super) xlates: u64,
    /// Entries of final tables that were compared.
    pub(super) entries: u64,
}

/// What came of it.
pub(super) struct Ran {
    pub(super) counts: Counts,
    pub(super) mismatches: Mismatches,
    pub(super) violations: Vec<Violation>,
    pub(super) violation_count: u64,
    /// Of devices: all, those that were judged, and those that reached a page.
    pub(super) accesses: [u64; 3],
    pub(super) register_stores: u64,
    pub(super) debts: DebtMetrics,
    pub(super) took: Duration,
    /// False if a signal came.
    pub(super) complete: bool,
}

/// See the [module](self).
pub(super) struct Stage<'a> {
    pub(super) config: &'a StaleConfig,
    pub(super) script: &'a Script,
    plan: &'a Plan,
    pub(super) progress: &'a Progress,
    policy: Policy,
    pub(super) mock: Arc<Mock>,
    engine: Engine,
    pub(super) expect: Arc<Expectations>,
    /// What the trace leaves in its windows.
    pub(super) left: &'a Model,
    /// Bytes of a thread's part of the guest's RAM.
    pub(super) ram: u64,
    /// Turns that were taken, and calls.
    turns: AtomicU64,
    pub(super) calls: AtomicU64,
    over: AtomicBool,
}

/// Ends others when this thread ends, if only by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The cache that a rule for fills speaks of.
fn cache_for(fill: Fill, asked: TceCache) -> TceCache {
    match fill {
        Fill::Always => asked,
        Fill::BesideLive(line) => TceCache { line: line as usize, keep_faults: false, ..asked },
        Fill::Never => TceCache { line: 1, keep_faults: false, ..asked },
    }
}

impl<'a> Stage<'a> {
    /// A machine with nobody on it.
    pub(super) fn new(
        config: &'a StaleConfig,
        script: &'a Script,
        (plan, left): (&'a Plan, &'a Model),
        (policy, fill): (Policy, Fill),
        progress: &'a Progress,
    ) -> Self {
        let pes = (config.threads * script.phbs.len() as u32 * config.groups) as u16;
        let mut builder = MockBuilder::new(pes)
            .platform(config.platform)
            .kill(KillCaps { fill: fill.into(), ..KillCaps::of(config.platform) })
            .tce_cache(cache_for(fill, config.cache))
            .no_freeze(true)
            .seed(config.seed);
        for group in (0..pes).map(|nth| GroupId(nth.into())) {
            // What the recorded platform offered, this one offers too.
            builder = builder.group(group, |caps| {
                caps.page_sizes = PageSizes(caps.page_sizes.0 | script.page_sizes.0);
            });
        }
        let mock = builder.build();
        let options = EngineOptions { policy: policy.into(), ..EngineOptions::default() };
        let engine = Engine::new(mock.clone(), options);
        let of_thread = || (0..script.phbs.len()).map(|bus| plan.watched(bus));
        let watched: Vec<_> = (0..config.threads).flat_map(|_| of_thread()).collect();
        let buses: Vec<&[Watched]> = watched.iter().map(|bus| &bus[..]).collect();
        let expect = Expectations::new(mock.clone(), pes, &buses).as_given();
        Self {
            config,
            script,
            plan,
            progress,
            policy,
            mock,
            engine,
            expect: Arc::new(expect),
            left,
            ram: plan.ram,
            turns: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Has threads and devices do their work, closes everything, and has the devices look once more.
    ///
    /// # Errors
    /// If a default window cannot be had, with its line.
    pub(super) fn run(&self) -> Result<Ran, TraceError> {
        let begin = Instant::now();
        let papr = self.guest()?;
        let done = AtomicBool::new(false);
        let (counts, mut mismatches) = thread::scope(|scope| {
            for nth in 0..self.config.devices {
                let agent = self.expect.agent(self.config.seed * 1000 + u64::from(nth) + 1);
                let done = &done;
                scope.spawn(move || {
                    let _ends = Ends(&self.over);
                    agent.run(done);
                });
            }
            let threads: Vec<_> = (0..self.config.threads as usize)
                .map(|nth| {
                    let papr = papr.clone();
                    scope.spawn(inherit(move || {
                        let ends = Ends(&self.over);
                        let ran = Guest::new(self, papr, nth).run();
                        std::mem::forget(ends);
                        ran
                    }))
                })
                .collect();
            let devices_end = Ends(&done);
            let ends: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
            self.close(papr);
            drop(devices_end);
            let mut sum = (Counts::default(), Mismatches::default());
            for end in ends {
                match end {
                    Ok((counts, mismatches)) => sum = added(sum, counts, &mismatches),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            sum
        });
        self.leftovers(&mut mismatches);
        let (accesses, judged) = self.expect.accesses();
        Ok(Ran {
            counts,
            mismatches,
            violations: self.expect.violations(),
            violation_count: self.expect.count(),
            accesses: [accesses, judged, self.expect.arrived()],
            register_stores: self.mock.register_stores(),
            debts: self.engine.debts(),
            took: begin.elapsed(),
            complete: go_on().is_continue(),
        })
    }

    /// A guest with the PHBs of all threads.
    fn guest(&self) -> Result<Arc<Papr>, TraceError> {
        let papr = Arc::new(Papr::new(self.all_ram()).compat(Compat::Arch));
        let phbs = self.script.phbs.len();
        for bus in 0..phbs * self.config.threads as usize {
            let (nth, phb) = (bus / phbs, &self.script.phbs[bus % phbs]);
            let fail = |error: &dyn std::fmt::Display| TraceError {
                file: self.script.file.clone(),
                line: phb.line,
                text: format!("PHB {:#x} cannot be set up: {error}", phb.phb()),
            };
            let buid = u64::from(self.liobn(nth, phb.phb()));
            let liobn = Liobn(self.liobn(nth, phb.liobn));
            let pes: Vec<_> = self.pes_of(bus).collect();
            let spec = PhbSpec { buid, group: GroupId(pes[0].0.into()), liobn, window: phb.window };
            pes.iter().for_each(|pe| self.expect.moving(*pe));
            papr.add_phb(&self.engine, spec).map_err(|error| fail(&error))?;
            let attach = |container: &Container| {
                let more = pes[1..].iter().map(|pe| GroupId(pe.0.into()));
                more.into_iter().try_for_each(|group| container.attach(group).map(drop))
            };
            let attached = papr.with_container(buid, attach);
            attached.unwrap_or(Ok(())).map_err(|error| fail(&error))?;
            pes.iter().for_each(|pe| self.expect.moved(*pe, Some(bus)));
        }
        Ok(papr)
    }

    /// Takes the guest away, whose threads have ended, and lets the devices look at what is left.
    fn close(&self, papr: Arc<Papr>) {
        let pes = || {
            (0..self.script.phbs.len() * self.config.threads as usize)
                .flat_map(|bus| self.pes_of(bus))
        };
        pes().for_each(|pe| self.expect.moving(pe));
        drop(papr);
        pes().for_each(|pe| self.expect.moved(pe, None));
        let enough = self.expect.accesses().0 + LAST_LOOKS * u64::from(self.config.devices);
        while !self.is_over() && self.expect.accesses().0 < enough {
            thread::yield_now();
        }
    }

    fn leftovers(&self, mismatches: &mut Mismatches) {
        let (left, charged) = (self.mock.leftovers(), self.engine.ledger().pages());
        if (left, charged) != ((0, 0, 0), 0) {
            let (pinned, tables, windows) = left;
            let got = format!(
                "{pinned} pinned ranges, {tables} tables, {windows} windows, {charged} pages charged"
            );
            let at = || self.script.at(self.script.last_line);
            mismatches.add(at, "after closing", "nothing", got);
        }
    }

    /// What one thread's pages are to be found as.
    pub(super) fn promises(&self, nth: usize) -> Promises {
        let first = nth * self.script.phbs.len();
        let seats = self.plan.seats.iter().map(move |(stretch, watched)| {
            (Stretch { bus: first + stretch.bus, ..*stretch }, *watched)
        });
        let (expect, handles) = (self.expect.clone(), usize::from(self.script.vcpus));
        Promises::new(expect, self.policy, handles, seats)
    }

    /// True if there is another turn to be taken.
    pub(super) fn takes_turn(&self) -> bool {
        let turns = u64::from(self.config.loops);
        !self.is_over() && self.turns.fetch_add(1, Ordering::Relaxed) < turns
    }

    /// Everybody has to end.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// True if that is so: after the first violation nothing more is to be learned.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.expect.count() > 0 || go_on().is_break()
    }

    /// The guest's RAM.
    pub(super) fn all_ram(&self) -> u64 {
        self.ram * u64::from(self.config.threads)
    }

    /// Place of a PHB of the trace.
    fn phb(&self, phb: u32) -> Option<usize> {
        self.script.phbs.iter().position(|p| p.phb() == phb)
    }

    /// What a LIOBN of the trace is called for a thread.
    pub(super) fn liobn(&self, nth: usize, of_trace: u32) -> u32 {
        let phb = self.phb(phb_of(of_trace)).map_or(NO_PHB, |place| {
            FIRST_PHB + ((nth * self.script.phbs.len() + place) << 8) as u32
        });
        phb | of_trace & 0xff
    }

    /// The PEs behind a bus.
    fn pes_of(&self, bus: usize) -> impl Iterator<Item = PeNumber> + use<> {
        let buses = self.script.phbs.len() * self.config.threads as usize;
        (0..self.config.groups as usize).map(move |nth| PeNumber((bus + nth * buses) as u16))
    }

    /// The first PE behind a PHB of the trace, for a thread.
    pub(super) fn pe(&self, nth: usize, phb: u32) -> Option<PeNumber> {
        self.pes_of(nth * self.script.phbs.len() + self.phb(phb)?).next()
    }

    /// Where a window of the trace is.
    pub(super) fn seat(&self, phb: u32, window: &Window) -> Option<usize> {
        let page = PageShift::new(window.shift)?;
        let watched = Watched { start: Ioba(window.start), page, pages: window.entries };
        self.plan.seat(self.phb(phb)?, watched)
    }
}

fn added(
    (mut sum, mut all): (Counts, Mismatches),
    counts: Counts,
    mismatches: &Mismatches,
) -> (Counts, Mismatches) {
    sum.loops += counts.loops;
    sum.calls += counts.calls;
    sum.pages += counts.pages;
    sum.xlates += counts.xlates;
    sum.entries += counts.entries;
    all.extend(mismatches);
    (sum, all)
}
