// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A phase: threads that map and unmap until the time is up, the state checked while mapped and
//! again when empty.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tce_engine::addr::GroupId;
use tce_engine::backend::{Backend, Memory};

use super::limits::{self, LimitLoop};
use super::lists::{Batch, Indirect, Lists};
use super::machine::{What, mock};
use super::naive::{Naive, NaiveTable};
use super::proof;
use super::rig::{Plan, Rig};
use super::ring::{Ring, Singles};
use super::verify::{Content, Eye, Model, Part, Seen, verify};
use super::work::{Bulk, Meters, Share, Work};
use crate::cli::RunConfig;
use crate::cpus;
use crate::interrupt::interrupted;
use crate::recorder::Recorder;
use crate::result::{LimitKind, OpResult, Verification};

/// Time for each phase where neither repetitions nor a duration was asked for.
const DEFAULT_DURATION: Duration = Duration::from_millis(1500);
/// The same where a kernel is asked: one round may take longer than this.
const KERNEL_DURATION: Duration = Duration::from_millis(300);
/// Time for each phase before it counts.
const DEFAULT_WARMUP: Duration = Duration::from_millis(200);
/// Pages of a thread's share that a phase works on where a kernel is asked for each of them, or for
/// a few, so that a round ends in reasonable time on an emulated machine too.
const KERNEL_PAGES: u64 = 1 << 13;

/// The phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The whole window at once.
    Bulk,
    /// Lists of 512 scattered pages.
    Indirect,
    /// 512 requests of a single page in one call.
    Batch,
    /// Single pages.
    Ring,
    /// The bulk work by the naive peer; where a kernel owns the tables, one call a page.
    Naive,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Bulk, Self::Indirect, Self::Batch, Self::Ring, Self::Naive];

    /// As in result ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Indirect => "indirect",
            Self::Batch => "batch",
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
    /// What was asked for, or the defaults. A kernel needs no warm-up by default: it has no caches
    /// of its own to fill.
    pub fn new(config: &RunConfig, has_kernel: bool) -> Self {
        let defaults = if has_kernel {
            (KERNEL_DURATION, Duration::ZERO)
        } else {
            (DEFAULT_DURATION, DEFAULT_WARMUP)
        };
        let duration = match (config.duration, config.repetitions) {
            (None, None) => Some(defaults.0),
            (duration, _) => duration,
        };
        Self {
            warmup: config.warmup.unwrap_or(defaults.1),
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
    /// None where a kernel writes the entries.
    limit: Option<LimitLoop>,
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
            self.limit.iter_mut().for_each(LimitLoop::measure);
        }
        self.meters.forget_times();
        self.limit.iter_mut().for_each(LimitLoop::reset);
        let begin = Instant::now();
        let mut rounds = 0;
        loop {
            self.limit.iter_mut().for_each(LimitLoop::measure);
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
    let has_kernel = rig.machine.has_kernel();
    let lists = Lists::new(rig, config.seed);
    let peer = phase == Phase::Naive && !has_kernel;
    let naive = if peer { naive_tables(rig, config)? } else { Arc::default() };
    let threads = u64::from(config.threads);
    let mut lanes = Vec::new();
    for nth in 0..threads {
        let (first, count) = rig.share(nth, threads);
        let share = Share { first, count };
        let part = if has_kernel { Share { first, count: count.min(KERNEL_PAGES) } } else { share };
        let work: Box<dyn Work + '_> = match phase {
            Phase::Bulk => Box::new(Bulk { rig, share }),
            Phase::Indirect => Box::new(Indirect { rig, share: part, lists: lists.clone() }),
            Phase::Batch => Box::new(Batch { rig, share: part }),
            Phase::Ring => Box::new(Ring { rig, share, head: 0, tail: 0 }),
            Phase::Naive if has_kernel => Box::new(Singles { rig, share: part }),
            Phase::Naive => Box::new(Naive { rig, tables: naive.clone(), share }),
        };
        let limit = || LimitLoop::new(phase.limit(), plan.tier, count);
        let limit = if has_kernel { None } else { Some(limit()?) };
        let cpu = config.cpus.as_ref().and_then(|cpus| cpus.get(nth as usize).copied());
        lanes.push(Lane { work, limit, meters: Meters::default(), cpu });
    }
    let content = match phase {
        Phase::Indirect => Content::Lists(lists),
        _ => Content::Around(rig.buffer_pages()),
    };
    let seen = if peer { seen_naive(rig, &naive)? } else { seen(rig)? };
    let schedule = Schedule::new(config, has_kernel);
    let mut check = |model: &Model| -> anyhow::Result<bool> {
        let mut right = !interrupted() && verify(&seen, model, verification);
        if let Some(dma) = &mut verification.dma {
            let wrong = proof::prove(rig, model, config.seed, dma)?;
            right &= wrong.is_none();
            if let Some(wrong) = wrong {
                verification.first_mismatch.get_or_insert(wrong);
            }
        }
        Ok(right && !interrupted())
    };

    on_all(&mut lanes, |lane| lane.run(schedule))?;
    let mapped = Model { parts: parts(rig, &lanes, true), content: content.clone() };
    let mut verified = check(&mapped)?;
    on_all(&mut lanes, |lane| lane.work.unmap(&mut lane.meters))?;
    let empty = Model { parts: parts(rig, &lanes, false), content };
    verified &= check(&empty)?;

    on_all(&mut lanes, |lane| {
        lane.limit.iter_mut().for_each(LimitLoop::measure_libc);
        Ok(())
    })?;
    let loops: Vec<_> = lanes.iter().filter_map(|lane| lane.limit.as_ref()).collect();
    let limits = limits::limits(&loops);
    let mut meters = Meters::default();
    lanes.iter().for_each(|lane| meters.merge(&lane.meters));
    let mut results = Vec::new();
    let mut recorders = Vec::new();
    let ops = [("map", &meters.map, meters.map_io), ("unmap", &meters.unmap, meters.unmap_io)];
    for ((op, recorder, io), limit) in ops.into_iter().zip(limits) {
        let id = format!("{}.{op}", phase.name());
        let mut result = OpResult::new(&id, op, recorder, limit).map_err(|e| anyhow!(e))?;
        if has_kernel {
            (result.requests, result.ioctls) = (Some(io.requests), Some(io.ioctls));
        }
        results.push(result);
        recorders.push((id, recorder.clone()));
    }
    Ok(Outcome { results, recorders, meters, verified })
}

/// The windows of the rig, as everybody sees them who can be asked.
pub(crate) fn seen(rig: &Rig) -> anyhow::Result<Vec<Seen<'_>>> {
    let mut seen = Vec::new();
    for container in &rig.containers {
        match &rig.machine.what {
            What::Mock(mock) => {
                for group in container.groups() {
                    seen.push(whole_window(rig, Eye::Pe(mock, mock.group(group)?.pe)));
                }
            }
            What::MockKernel { kernel, process, .. } => {
                for group in container.groups() {
                    seen.push(whole_window(rig, Eye::Group(kernel, process.id(), group)));
                }
            }
            What::Vfio(_) => seen.push(whole_window(rig, Eye::Mirror(container))),
        }
    }
    Ok(seen)
}

fn seen_naive<'a>(rig: &Rig, tables: &'a [NaiveTable]) -> anyhow::Result<Vec<Seen<'a>>> {
    let mut seen = Vec::new();
    for table in tables {
        for group in table.groups() {
            let pe = table.mock().group(*group)?.pe;
            seen.push(whole_window(rig, Eye::Pe(table.mock(), pe)));
        }
    }
    Ok(seen)
}

pub(super) fn whole_window<'a>(rig: &Rig, eye: Eye<'a>) -> Seen<'a> {
    let buffer = (rig.buffer.start(), rig.buffer.bytes());
    Seen { eye, start: rig.start, page: rig.page(), pages: rig.pages(), buffer }
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
        let mock = mock(config, groups).build();
        let groups = (0..u32::from(groups)).map(GroupId).collect();
        Ok(NaiveTable::new(mock, groups, rig.geometry, memory)?)
    };
    let tables: anyhow::Result<Vec<_>> = rig.containers.iter().map(table).collect();
    Ok(Arc::new(tables?))
}

#[cfg(test)]
mod tests {
    use tce_engine::backend::linux::mock_kernel::Leftovers;

    use super::*;
    use crate::cli::{self, Invocation};
    use crate::run::machine::Machine;

    fn setup(line: &str) -> (RunConfig, Plan, Rig) {
        let Ok(Invocation::Run(config)) = cli::parse(line.split(' ')) else { panic!("{line}") };
        let machine = Machine::open(&config, &mut Vec::new()).unwrap();
        let plan = Plan::new(&config, &machine, None).unwrap();
        let rig = Rig::new(&config, &plan, machine).unwrap();
        (config, plan, rig)
    }

    #[test]
    fn a_container_lost_half_way_fails_the_phase_and_leaves_nothing_charged() {
        let line = "tce-bench --backend mock-kernel --groups 2 --window 64M --duration 1h";
        for phase in [Phase::Bulk, Phase::Indirect, Phase::Ring] {
            let (config, plan, mut rig) = setup(line);
            let What::MockKernel { kernel, process, .. } = &rig.machine.what else { panic!("no") };
            let (kernel, process) = (kernel.clone(), process.clone());
            let result = thread::scope(|scope| {
                scope.spawn(|| {
                    while kernel.counters().maps < 100 {
                        thread::yield_now();
                    }
                    kernel.containers().into_iter().for_each(|c| kernel.lose(c));
                });
                run(phase, &rig, &config, &plan, &mut Verification::default())
            });
            let error = result.err().map(|e| format!("{e:#}")).expect("a lost container");
            assert!(error.contains("ENODEV (No such device)"), "{error}");
            // What cannot be unmapped any more goes when the container is closed.
            rig.close();
            assert_eq!((kernel.leftovers(), process.books().sum()), (Leftovers::default(), 0));
            assert_eq!(rig.engine.ledger().pages(), 0);
        }
    }
}
