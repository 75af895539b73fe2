// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A phase: threads that map and unmap until the time is up, the state checked while mapped and
//! again when empty.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tce_engine::addr::GroupId;
use tce_engine::backend::mock::MockBuilder;
use tce_engine::backend::{Backend, Memory};

use super::limits::{self, LimitLoop};
use super::naive::NaiveTable;
use super::rig::{Plan, Rig};
use super::verify::{Content, Model, Part, Seen, verify};
use super::work::{Bulk, Indirect, Lists, Meters, Naive, Ring, Share, Work};
use crate::cli::RunConfig;
use crate::cpus;
use crate::interrupt::interrupted;
use crate::recorder::Recorder;
use crate::result::{LimitKind, OpResult, Verification};

/// Time for each phase where neither repetitions nor a duration was asked for.
const DEFAULT_DURATION: Duration = Duration::from_millis(1500);
/// Time for each phase before it counts.
const DEFAULT_WARMUP: Duration = Duration::from_millis(200);

/// The phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The whole window at once.
    Bulk,
    /// Lists of 512 scattered pages.
    Indirect,
    /// Single pages.
    Ring,
    /// The bulk work by the naive peer.
    Naive,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bulk, Self::Indirect, Self::Ring, Self::Naive];

    /// As in result ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Indirect => "indirect",
            Self::Ring => "ring",
            Self::Naive => "naive",
        }
    }

    fn limit(self) -> LimitKind {
        if self == Self::Indirect { LimitKind::Copy } else { LimitKind::Store }
    }
}

/// When a phase ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Before anything counts.
    pub warmup: Duration,
    /// No new round after this.
    pub duration: Option<Duration>,
    /// No more rounds than this.
    pub repetitions: Option<u32>,
}

impl Schedule {
    /// What was asked for, or the defaults.
    pub fn new(config: &RunConfig) -> Self {
        let duration = match (config.duration, config.repetitions) {
            (None, None) => Some(DEFAULT_DURATION),
            (duration, _) => duration,
        };
        Self {
            warmup: config.warmup.unwrap_or(DEFAULT_WARMUP),
            duration,
            repetitions: config.repetitions,
        }
    }
}

/// What a phase gave.
pub struct Outcome {
    /// The map and the unmap result.
    pub results: Vec<OpResult>,
    /// For the log: the same histograms by id.
    pub recorders: Vec<(String, Recorder)>,
    /// Entries and kills of the engine.
    pub meters: Meters,
    /// False if a check failed or was left out because of an interrupt.
    pub verified: bool,
}

/// One thread's things.
struct Lane<'a> {
    work: Box<dyn Work + 'a>,
    limit: LimitLoop,
    meters: Meters,
    cpu: Option<usize>,
}

impl Lane<'_> {
    /// Warm-up, then rounds, the last of which is left mapped.
    fn run(&mut self, schedule: Schedule) -> anyhow::Result<()> {
        if let Some(cpu) = self.cpu {
            cpus::pin_current(cpu).map_err(|e| anyhow!(e))?;
        }
        let begin = Instant::now();
        while begin.elapsed() < schedule.warmup && !interrupted() {
            self.work.map(&mut self.meters)?;
            self.work.unmap(&mut self.meters)?;
            self.limit.measure();
        }
        // The times of the warm-up go; what was counted stays, the PHB counted it too.
        self.meters.map = Recorder::new();
        self.meters.unmap = Recorder::new();
        self.limit.reset();
        let begin = Instant::now();
        let mut rounds = 0;
        loop {
            self.limit.measure();
            self.work.map(&mut self.meters)?;
            rounds += 1;
            let over = schedule.duration.is_some_and(|d| begin.elapsed() >= d);
            if over || schedule.repetitions.is_some_and(|r| rounds >= r) || interrupted() {
                return Ok(());
            }
            self.work.unmap(&mut self.meters)?;
        }
    }
}

/// Runs `f` on every lane in a thread of its own.
fn on_all<'a>(
    lanes: &mut [Lane<'a>],
    f: impl Fn(&mut Lane<'a>) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = lanes.iter_mut().map(|lane| scope.spawn(|| f(lane))).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

/// Runs one phase. The windows are empty before and after.
///
/// # Errors
/// What the engine refused, or no memory.
pub fn run(
    phase: Phase,
    rig: &Rig,
    config: &RunConfig,
    plan: &Plan,
    verification: &mut Verification,
) -> anyhow::Result<Outcome> {
    let lists = Lists::new(rig, config.seed);
    let naive = if phase == Phase::Naive { naive_tables(rig, config)? } else { Arc::default() };
    let threads = u64::from(config.threads);
    let mut lanes = Vec::new();
    for nth in 0..threads {
        let (first, count) = rig.share(nth, threads);
        let share = Share { first, count };
        let work: Box<dyn Work + '_> = match phase {
            Phase::Bulk => Box::new(Bulk { rig, share }),
            Phase::Indirect => Box::new(Indirect { rig, share, lists: lists.clone() }),
            Phase::Ring => Box::new(Ring { rig, share, head: 0, tail: 0 }),
            Phase::Naive => Box::new(Naive { rig, tables: naive.clone(), share }),
        };
        let limit = LimitLoop::new(phase.limit(), plan.tier, count)?;
        let cpu = config.cpus.as_ref().and_then(|cpus| cpus.get(nth as usize).copied());
        lanes.push(Lane { work, limit, meters: Meters::default(), cpu });
    }
    let around = rig.buffer.bytes() >> rig.page().get();
    let content = match phase {
        Phase::Indirect => Content::Lists(lists),
        _ => Content::Around(around),
    };
    let seen = if phase == Phase::Naive { seen_naive(rig, &naive)? } else { seen(rig)? };
    let schedule = Schedule::new(config);

    on_all(&mut lanes, |lane| lane.run(schedule))?;
    let mapped = Model { parts: parts(rig, &lanes, true), content: content.clone() };
    let mut verified = !interrupted() && verify(&seen, &mapped, verification);
    on_all(&mut lanes, |lane| lane.work.unmap(&mut lane.meters))?;
    let empty = Model { parts: parts(rig, &lanes, false), content };
    verified &= !interrupted() && verify(&seen, &empty, verification);

    on_all(&mut lanes, |lane| {
        lane.limit.measure_libc();
        Ok(())
    })?;
    let limits = limits::limits(&lanes.iter().map(|lane| &lane.limit).collect::<Vec<_>>());
    let mut meters = Meters::default();
    for lane in &lanes {
        meters.map.merge(&lane.meters.map);
        meters.unmap.merge(&lane.meters.unmap);
        meters.tces_written += lane.meters.tces_written;
        meters.kills += lane.meters.kills;
    }
    let mut results = Vec::new();
    let mut recorders = Vec::new();
    let ops = [("map", &meters.map), ("unmap", &meters.unmap)];
    for ((op, recorder), limit) in ops.into_iter().zip(limits) {
        let id = format!("{}.{op}", phase.name());
        let result = OpResult::new(&id, op, recorder, limit);
        results.push(result.map_err(|e| anyhow!(e))?);
        recorders.push((id, recorder.clone()));
    }
    Ok(Outcome { results, recorders, meters, verified })
}

/// The windows of the rig through every PE.
pub fn seen(rig: &Rig) -> anyhow::Result<Vec<Seen<'_>>> {
    let mut seen = Vec::new();
    for container in &rig.containers {
        for pe in rig.pes(container)? {
            seen.push(Seen {
                mock: &rig.mock,
                pe,
                start: rig.start,
                page: rig.page(),
                pages: rig.pages(),
                buffer: (rig.buffer.start(), rig.buffer.bytes()),
            });
        }
    }
    Ok(seen)
}

fn seen_naive<'a>(rig: &Rig, tables: &'a [NaiveTable]) -> anyhow::Result<Vec<Seen<'a>>> {
    let mut seen = Vec::new();
    for table in tables {
        for group in table.groups() {
            seen.push(Seen {
                mock: table.mock(),
                pe: table.mock().group(*group)?.pe,
                start: rig.start,
                page: rig.page(),
                pages: rig.pages(),
                buffer: (rig.buffer.start(), rig.buffer.bytes()),
            });
        }
    }
    Ok(seen)
}

fn parts(rig: &Rig, lanes: &[Lane<'_>], mapped: bool) -> Vec<Part> {
    let part = |(nth, lane): (usize, &Lane<'_>)| {
        let (first, count) = rig.share(nth as u64, lanes.len() as u64);
        let mapped = if mapped { lane.work.mapped() } else { (first, first) };
        Part { first, count, mapped }
    };
    lanes.iter().enumerate().map(part).collect()
}

/// A table of the naive peer for each container, each on a mock like the rig's.
fn naive_tables(rig: &Rig, config: &RunConfig) -> anyhow::Result<Arc<Vec<NaiveTable>>> {
    let memory = Memory::User { start: rig.buffer.start(), bytes: rig.buffer.bytes() };
    let table = |container: &tce_engine::container::Container| {
        let groups = container.groups().len() as u16;
        let mock = MockBuilder::new(groups)
            .host_page(rig.engine.caps().host_page)
            .backing(
                tce_engine::addr::PageShift::from_bytes(config.backing_bytes)
                    .context("backing is no page size")?,
            )
            .contiguous(config.contiguous)
            .seed(config.seed)
            .build();
        let groups = (0..u32::from(groups)).map(GroupId).collect();
        Ok(NaiveTable::new(mock, groups, rig.geometry, memory)?)
    };
    let tables: anyhow::Result<Vec<_>> = rig.containers.iter().map(table).collect();
    Ok(Arc::new(tables?))
}
