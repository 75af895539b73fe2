// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench teardown`: how long peers wait while a window, however large, is removed beside them or a
//! group leaves them. On a software PHB; times are of the mock.

mod report;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use serde::Serialize;
use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::geometry::{Geometry, WindowSpec};
use tce_engine::tce::Perm;

use super::{Status, present};
use crate::cli::TeardownConfig;
use crate::host::HostFacts;
use crate::interrupt::interrupted;
use crate::recorder::{Recorder, Summary};
use crate::result::{Run, Tool};
use crate::style::Style;

const SCHEMA: &str = "tce-bench.teardown/1";
/// Memory of the window that goes, and of the peers.
const DOOMED: Uaddr = Uaddr(0x7000_0000_0000);
const PEERS: Uaddr = Uaddr(0x7100_0000_0000);
const MEMORY: u64 = 16 << 20;
/// Pages that each peer maps and unmaps in turn.
const TURN: u64 = 8;

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    run: Run,
    host: HostFacts,
    label: &'static str,
    rows: Vec<Row>,
    /// Windows, books and devices were as they should after each round. False if a signal ended it.
    verified: bool,
}

/// One size of window, with so many members and levels.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    window_bytes: u64,
    levels: u32,
    members: u32,
    /// Entries that are live when it goes, spread over all of it.
    live: u64,
    rounds: u32,
    /// Time of a removal, in nanoseconds.
    removal: Summary,
    /// Time for one group to leave.
    detach: Summary,
    /// A peer's map or unmap of one page while nothing goes.
    calm: Summary,
    /// Those that met the removal, or waited for it.
    during_removal: Summary,
    /// The longest of each peer's in a round.
    longest_in_removal: Summary,
    /// Those that met a group's leave, while the window was there.
    during_detach: Summary,
    verified: bool,
}

/// What a round consists of, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// The window is made and filled: not counted.
    Prepare,
    Calm,
    Detach,
    Removal,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Prepare, Self::Calm, Self::Detach, Self::Removal];

    /// The phase of a step; steps count up through all rounds.
    const fn of(step: u64) -> Self {
        Self::ALL[(step % Self::ALL.len() as u64) as usize]
    }
}

/// What the peers look at.
#[derive(Default)]
struct Clock {
    /// Phases that have begun, less one.
    step: AtomicU64,
    stop: AtomicBool,
    /// Some peer has made a call in the calm.
    calm_seen: AtomicBool,
}

impl Clock {
    fn begin(&self, phase: Phase) {
        let step = self.step.fetch_add(1, Ordering::AcqRel) + 1;
        debug_assert!(Phase::of(step) == phase);
    }
}

/// Runs the sweeps and reports.
///
/// # Errors
/// What failed other than a check, one line.
pub fn teardown(config: &TeardownConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let (started, begin) = (SystemTime::now(), Instant::now());
    let mut doc = Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(started, argv, None, 0),
        host: HostFacts::capture(),
        label: "mock: software PHB, not hardware",
        rows: Vec::new(),
        verified: false,
    };
    for case in cases(config) {
        if interrupted() {
            break;
        }
        let row = measure(config, case).with_context(|| format!("{case:?}"))?;
        doc.rows.push(row);
    }
    doc.run.complete = !interrupted();
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    doc.verified = doc.run.complete && doc.rows.iter().all(|row| row.verified);
    present(config.quiet, config.json.as_ref(), &doc, || report::table(&doc, Style::detect()))?;
    Ok(Status::of(doc.run.complete, Some(doc.verified)))
}

/// One row to be measured.
#[derive(Clone, Copy, Debug)]
struct Case {
    window: u64,
    levels: u32,
    members: u32,
}

/// All combinations that a table can have.
fn cases(config: &TeardownConfig) -> impl Iterator<Item = Case> {
    let sizes = config.windows.iter().copied();
    sizes.flat_map(move |window| {
        let shapes = config.levels.iter().copied().filter(move |levels| {
            let spec = WindowSpec::new(window, PageShift::K64).levels(*levels);
            Geometry::new(spec, PageShift::K4, 16 << 20).is_ok()
        });
        shapes.flat_map(move |levels| {
            config.members.iter().map(move |members| Case { window, levels, members: *members })
        })
    })
}

fn measure(config: &TeardownConfig, case: Case) -> anyhow::Result<Row> {
    // With 4K pages of the host there are more counts of levels to choose from.
    let mock = MockBuilder::new(case.members as u16 + 1).host_page(PageShift::K4).build();
    let engine = Engine::new(mock.clone(), EngineOptions::default());
    let container = Arc::new(engine.container());
    for group in 0..case.members {
        container.attach(GroupId(group))?;
    }
    let leaver = GroupId(case.members);
    let spec = WindowSpec::new(case.window, PageShift::K64).levels(case.levels);
    let peers_spec = WindowSpec::new(2 << 30, PageShift::K4).levels(2);
    container.register(DOOMED, MEMORY)?;
    container.register(PEERS, MEMORY)?;
    // Made once, so that the peers' window is in the second slot.
    let doomed = container.create_window(spec)?.start;
    let peers_at = container.create_window(peers_spec)?.start;
    container.remove_window(doomed, Removal::IfUnmapped)?;

    let clock = Clock::default();
    let (mut removal, mut detach) = (Recorder::new(), Recorder::new());
    let mut verified = true;
    let mut rounds = 0;
    let peers = thread::scope(|scope| -> anyhow::Result<Peer> {
        let threads: Vec<_> = (0..config.threads)
            .map(|nth| {
                let (container, clock) = (&container, &clock);
                scope.spawn(move || peer(container, peers_at, nth, clock))
            })
            .collect();
        let work = || -> anyhow::Result<()> {
            while rounds < config.rounds && !interrupted() {
                verified &= container.create_window(spec)?.start == doomed;
                spread(&container, doomed, case.window, config.live)?;
                container.attach(leaver)?;
                clock.begin(Phase::Calm);
                thread::sleep(config.calm);
                // A busy machine may not have let any peer run meanwhile.
                let ended = || threads.iter().any(thread::ScopedJoinHandle::is_finished);
                while !clock.calm_seen.swap(false, Ordering::AcqRel) && !ended() {
                    thread::sleep(Duration::from_micros(50));
                }
                clock.begin(Phase::Detach);
                let begin = Instant::now();
                container.detach(leaver)?;
                detach.record(begin.elapsed().as_nanos() as u64, 0);
                clock.begin(Phase::Removal);
                let begin = Instant::now();
                let receipt = container.remove_window(doomed, Removal::Force)?;
                removal.record(begin.elapsed().as_nanos() as u64, receipt.released);
                clock.begin(Phase::Prepare);
                verified &= receipt.released == config.live;
                rounds += 1;
            }
            Ok(())
        };
        let done = { work }();
        clock.stop.store(true, Ordering::Release);
        let joined = threads.into_iter().map(|t| t.join().expect("a peer does not panic"));
        let parts = joined.collect::<anyhow::Result<Vec<_>>>()?;
        done?;
        Ok(Peer::merged(&parts))
    })?;
    container.close();
    verified &= engine.ledger().pages() == 0 && mock.leftovers() == (0, 0, 0);
    Ok(Row {
        window_bytes: case.window,
        levels: case.levels,
        members: case.members,
        live: config.live,
        rounds,
        removal: removal.summary(),
        detach: detach.summary(),
        calm: peers.of(Phase::Calm).summary(),
        during_removal: peers.of(Phase::Removal).summary(),
        longest_in_removal: peers.longest.summary(),
        during_detach: peers.of(Phase::Detach).summary(),
        verified,
    })
}

/// Maps single pages all over the window.
fn spread(container: &Container, start: Ioba, window: u64, live: u64) -> anyhow::Result<()> {
    let page = PageShift::K64.bytes();
    let step = (window / page / live).max(1) * page;
    for nth in 0..live {
        let from = Uaddr(DOOMED.0 + nth * page % MEMORY);
        container.map(Ioba(start.0 + nth * step), from, page, Perm::READ_WRITE, Mode::Refuse)?;
    }
    Ok(())
}

/// What one peer, or all of them, have seen.
struct Peer {
    /// By phase.
    times: [Recorder; Phase::ALL.len()],
    /// The longest call of each round that met the removal.
    longest: Recorder,
}

impl Peer {
    fn new() -> Self {
        Self { times: std::array::from_fn(|_| Recorder::new()), longest: Recorder::new() }
    }

    fn merged(parts: &[Self]) -> Self {
        let phase = |nth: usize| Recorder::merged(parts.iter().map(|part| &part.times[nth]));
        let longest = Recorder::merged(parts.iter().map(|part| &part.longest));
        Self { times: std::array::from_fn(phase), longest }
    }

    fn of(&self, phase: Phase) -> &Recorder {
        &self.times[phase as usize]
    }

    /// A call that began in the first of these steps and ended in the last. It is counted under all that
    /// it met: it may have waited for a whole detach, having begun before and ended after. Calm it is
    /// only if it met nothing else.
    fn record(&mut self, steps: RangeInclusive<u64>, took: u64) {
        let only = steps.start() == steps.end();
        for phase in Phase::ALL.into_iter().filter(|phase| only || *phase != Phase::Calm) {
            if steps.clone().any(|step| Phase::of(step) == phase) {
                self.times[phase as usize].record(took, 1);
            }
        }
    }
}

/// Maps and unmaps single pages of its own until it is told to stop; times by phase.
fn peer(container: &Arc<Container>, window: Ioba, nth: u32, clock: &Clock) -> anyhow::Result<Peer> {
    let mut mapper = container.mapper();
    let mut seen = Peer::new();
    let page = PageShift::K4.bytes();
    // Leaves of its own.
    let base = window.0 + u64::from(nth) * (64 << 20);
    // Step of the last removal that a call has met, and the longest of these calls.
    let mut met = (0, 0);
    while !clock.stop.load(Ordering::Acquire) {
        for turn in 0..TURN {
            let (at, from) = (Ioba(base + turn * page), Uaddr(PEERS.0 + turn * page));
            let begin = Instant::now();
            let before = clock.step.load(Ordering::Acquire);
            mapper.map(at, from, page, Perm::READ_WRITE, Mode::Refuse)?;
            mapper.unmap(at, page)?;
            let took = begin.elapsed().as_nanos() as u64;
            let after = clock.step.load(Ordering::Acquire);
            seen.record(before..=after, took);
            if before == after && Phase::of(after) == Phase::Calm {
                if !clock.calm_seen.load(Ordering::Relaxed) {
                    clock.calm_seen.store(true, Ordering::Release);
                }
            } else if let Some(removal) =
                (before..=after).find(|step| Phase::of(*step) == Phase::Removal)
            {
                if removal != met.0 && met.1 > 0 {
                    seen.longest.record(met.1, 1);
                    met.1 = 0;
                }
                met = (removal, met.1.max(took));
            }
        }
    }
    if met.1 > 0 {
        seen.longest.record(met.1, 1);
    }
    Ok(seen)
}
