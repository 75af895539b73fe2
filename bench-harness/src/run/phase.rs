// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A phase: threads that map and unmap until the time is up, the state checked while mapped and
//! again when empty.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tce_engine::addr::GroupId;
use tce_engine::backend::{Backend, GroupCaps, Memory};

use super::clear;
use super::lane::{Lane, Schedule, on_all};
use super::limits::{self, LimitLoop};
use super::lists::{Batch, Indirect, Lists};
use super::live::{Checked, Exchange};
use super::machine::{Machine, What, mock};
use super::mix::Mixed;
use super::naive::{Naive, NaiveTable};
use super::pair::{self, Pairs};
use super::proof;
use super::rig::{Plan, Rig, Windowed};
use super::ring::{Ring, Singles};
use super::verify::{Content, Eye, Model, Part, Seen, verify};
use super::work::{Bulk, Io, Measured, Meters, Share, Work};
use crate::cli::{Phase, RunConfig};
use crate::interrupt::interrupted;
use crate::policy::Policy;
use crate::recorder::Recorder;
use crate::result::{Limit, LimitKind, OpResult, OpenLoop, Verification};

/// Pages of a thread's share that a phase works on where a kernel is asked for each of them, or for
/// a few, so that a round ends in reasonable time on an emulated machine too.
const KERNEL_PAGES: u64 = 1 << 13;

/// The results of a phase, id and operation: of what [`Work::map`] times, and of what
/// [`Work::unmap`] does.
fn operations(phase: Phase) -> [Option<(&'static str, &'static str)>; 2] {
    let (first, second) = match phase {
        Phase::Bulk => ("bulk.map", "bulk.unmap"),
        Phase::Checked => ("checked.map", "checked.unmap"),
        Phase::Indirect => ("indirect.map", "indirect.unmap"),
        Phase::Exchange => {
            return [Some(("exchange", "exchange")), Some(("exchange.bulk", "exchange"))];
        }
        Phase::Batch => ("batch.map", "batch.unmap"),
        Phase::Ring => ("ring.map", "ring.unmap"),
        Phase::Single => return [Some(("single.pair", "pair")), None],
        Phase::Clear => return [None, Some(("clear", "clear"))],
        Phase::Naive => ("naive.map", "naive.unmap"),
        Phase::Mix => ("mix.map", "mix.unmap"),
    };
    [Some((first, "map")), Some((second, "unmap"))]
}

/// The loop that an operation is compared with; none for pairs, whose entries are in the cache, nor for a
/// mix, of which no loop is like.
fn limit(phase: Phase) -> Option<LimitKind> {
    match phase {
        Phase::Indirect | Phase::Exchange => Some(LimitKind::Copy),
        Phase::Single | Phase::Mix => None,
        _ => Some(LimitKind::Store),
    }
}

/// What a phase gave.
pub struct Outcome {
    /// A result for each of its operations.
    pub results: Vec<OpResult>,
    /// For the log: the same histograms by id.
    pub recorders: Vec<(String, Recorder)>,
    /// Entries and kills of the run's engine.
    pub meters: Meters,
    /// The longest time that a released page stayed reachable; `None` unless it was measured.
    pub exposure: Option<Duration>,
    /// False if a check failed or was left out because of an interrupt.
    pub verified: bool,
}

/// What a phase works on, and who looks at it.
pub(super) struct Scene<'a> {
    pub(super) lanes: Vec<Lane<'a>>,
    pub(super) seen: Vec<Seen<'a>>,
    pub(super) content: Content,
}

impl Scene<'_> {
    /// What every window should look like, after maps or in the end.
    fn model(&self, mapped: bool) -> Model {
        let part = |lane: &Lane<'_>| {
            let Share { first, count } = lane.share;
            let mapped = if mapped { lane.work.mapped() } else { (first, first) };
            Part { first, count, mapped, shift: lane.work.shift() }
        };
        let parts = self.lanes.iter().map(part).collect();
        let content = match &self.content {
            Content::Places(_) => {
                let places = self.lanes.iter().flat_map(|lane| lane.work.places());
                Content::Places(Arc::new(places.collect()))
            }
            content => content.clone(),
        };
        Model { parts, content }
    }
}

/// Why a phase cannot be run, if so.
#[must_use]
pub fn impossible(phase: Phase, machine: &Machine) -> Option<String> {
    match phase {
        // Asking it page by page is what ring and naive do there.
        Phase::Single | Phase::Clear if machine.has_kernel() => {
            Some("a kernel owns the tables".to_owned())
        }
        Phase::Clear => clear::impossible(&machine.offered),
        _ => None,
    }
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
    if phase == Phase::Clear {
        return clear::run(rig, config, plan, verification);
    }
    let has_kernel = rig.machine.has_kernel();
    let lists = Lists::new(rig, config.seed);
    let peer = phase == Phase::Naive && !has_kernel;
    let naive = if peer { naive_tables(rig, config)? } else { Arc::default() };
    let addresses = if phase == Phase::Single { pair::allocators(rig)? } else { Vec::new() };
    let threads = u64::from(config.threads);
    let mut lanes = Vec::new();
    for nth in 0..threads {
        let (first, count) = rig.share(nth, threads);
        let share = Share { first, count };
        let part = if has_kernel { Share { first, count: count.min(KERNEL_PAGES) } } else { share };
        let work: Box<dyn Work + '_> = match phase {
            Phase::Bulk => Box::new(Bulk { rig, share }),
            Phase::Checked => Box::new(Checked { rig, share: part }),
            Phase::Indirect => Box::new(Indirect { rig, share: part, lists: lists.clone() }),
            Phase::Exchange => Box::new(Exchange { rig, share: part, shift: 0 }),
            Phase::Batch => Box::new(Batch { rig, share: part }),
            Phase::Ring => Box::new(Ring::new(rig, share, config.policy)),
            Phase::Single => Box::new(Pairs::new(rig, share, &addresses, config.policy)),
            Phase::Naive if has_kernel => Box::new(Singles { rig, share: part }),
            Phase::Naive => Box::new(Naive { rig, tables: naive.clone(), share }),
            Phase::Mix => Box::new(Mixed::new(rig, share, config, nth)),
            Phase::Clear => unreachable!("has a table of its own"),
        };
        let written = if phase == Phase::Checked { Checked::pages(rig, share) } else { count };
        let kind = limit(phase).filter(|_| !has_kernel);
        let limit = kind.map(|kind| LimitLoop::new(kind, plan.tier, written)).transpose()?;
        let cpu = config.cpus.as_ref().and_then(|cpus| cpus.get(nth as usize).copied());
        lanes.push(Lane { work, share, limit, meters: Meters::default(), cpu });
    }
    let content = match phase {
        Phase::Indirect => Content::Lists(lists),
        Phase::Single | Phase::Mix => Content::Places(Arc::default()),
        _ => Content::Around(rig.buffer_pages()),
    };
    let seen = if peer { seen_naive(rig, &naive)? } else { seen(rig)? };
    let mut outcome = perform(phase, Scene { lanes, seen, content }, rig, config, verification)?;
    outcome.exposure = rig.engine.take_exposure();
    // All handles are gone.
    let taken: u64 = addresses.iter().map(|addresses| addresses.in_use()).sum();
    if taken != 0 {
        outcome.verified = false;
        let text = format!("{}: {taken} bus addresses were not given back", phase.name());
        verification.first_mismatch.get_or_insert(text);
    }
    Ok(outcome)
}

/// Rounds, checks, results.
pub(super) fn perform(
    phase: Phase,
    mut scene: Scene<'_>,
    rig: &Rig,
    config: &RunConfig,
    verification: &mut Verification,
) -> anyhow::Result<Outcome> {
    let has_kernel = rig.machine.has_kernel();
    let schedule = Schedule::new(config, has_kernel);
    let mut check = |scene: &Scene<'_>, mapped: bool| -> anyhow::Result<bool> {
        let model = scene.model(mapped);
        let mut right = !interrupted() && verify(&scene.seen, &model, verification);
        if let Some(dma) = &mut verification.dma {
            let wrong = proof::prove(rig, &model, config.seed, dma)?;
            right &= wrong.is_none();
            if let Some(wrong) = wrong {
                verification.first_mismatch.get_or_insert(wrong);
            }
        }
        Ok(right && !interrupted())
    };

    let stores = rig.machine.register_stores();
    on_all(&mut scene.lanes, |lane| lane.run(schedule))?;
    let mut verified = check(&scene, true)?;
    on_all(&mut scene.lanes, Lane::end)?;
    verified &= check(&scene, false)?;

    on_all(&mut scene.lanes, |lane| {
        lane.limit.iter_mut().for_each(LimitLoop::measure_libc);
        Ok(())
    })?;
    let loops: Vec<_> = scene.lanes.iter().filter_map(|lane| lane.limit.as_ref()).collect();
    let limits = limits::limits(&loops);
    let mut meters = Meters::default();
    scene.lanes.iter().for_each(|lane| meters.merge(&lane.meters));
    if phase == Phase::Single && config.policy != Policy::Strict {
        // These calls do not tell, and what is owed by one is settled by another: the PHB is asked.
        meters.kills.issued = rig.machine.register_stores() - stores;
        let share = meters.map.tces() as f64 / (meters.tces_written / 2).max(1) as f64;
        meters.map_io.kills = (meters.kills.issued as f64 * share) as u64;
    }
    let mut results = Vec::new();
    let mut recorders = Vec::new();
    let measured = [(&mut meters.map, meters.map_io), (&mut meters.unmap, meters.unmap_io)];
    for ((operation, (recorder, io)), limit) in
        operations(phase).into_iter().zip(measured).zip(limits)
    {
        let Some((id, op)) = operation else { continue };
        if phase == Phase::Mix && recorder.calls() == 0 {
            continue;
        }
        results.push(result(id, op, recorder, limit, io, has_kernel)?);
        recorders.push((id.to_owned(), recorder.clone()));
    }
    for measured in &mut meters.more {
        let Measured { id, op, recorder, io } = measured;
        results.push(result(id, op, recorder, None, *io, has_kernel)?);
        recorders.push(((*id).to_owned(), recorder.clone()));
    }
    if let (Some(response), Some(paced), Some(rate)) =
        (&mut meters.response, meters.paced, config.rate)
    {
        let mut result =
            OpResult::new("mix.response", "response", response, None).map_err(|e| anyhow!(e))?;
        result.timeline = response.take_timeline();
        // Waiting is no cost of an entry.
        (result.ns_per_tce, result.best_ns_per_tce, result.best_round_ns_per_tce) =
            (None, None, None);
        result.open_loop = Some(OpenLoop {
            asked_per_s: rate.0,
            achieved_per_s: paced.achieved_per_s,
            late: paced.late,
            most_behind_ns: paced.most_behind_ns,
        });
        results.push(result);
        recorders.push(("mix.response".to_owned(), response.clone()));
    }
    // Which calls they were is not known, or they are those of other operations.
    let guessed = has_kernel || phase == Phase::Single && config.policy != Policy::Strict;
    for result in results.iter_mut().filter(|r| guessed || r.open_loop.is_some()) {
        result.timeline.iter_mut().flatten().for_each(|interval| interval.kills = None);
    }
    Ok(Outcome { results, recorders, meters, exposure: None, verified })
}

/// The result of an operation, with what its calls came to. Takes the recorder's timeline.
fn result(
    id: &str,
    op: &str,
    recorder: &mut Recorder,
    limit: Option<Limit>,
    io: Io,
    has_kernel: bool,
) -> anyhow::Result<OpResult> {
    let mut result = OpResult::new(id, op, recorder, limit).map_err(|e| anyhow!(e))?;
    result.timeline = recorder.take_timeline();
    if has_kernel {
        (result.requests, result.ioctls) = (Some(io.requests), Some(io.ioctls));
    } else {
        result.kills_per_1000_tces = per_1000(io.kills, recorder.tces());
    }
    Ok(result)
}

/// Of each 1000; `None` of none.
pub(crate) fn per_1000(kills: u64, tces: u64) -> Option<f64> {
    (tces > 0).then(|| 1000.0 * kills as f64 / tces as f64)
}

/// The windows of the rig, as everybody sees them who can be asked.
pub(crate) fn seen(rig: &Rig) -> anyhow::Result<Vec<Seen<'_>>> {
    let mut seen = Vec::new();
    for (nth, container) in rig.containers.iter().enumerate() {
        match &rig.machine.what {
            What::Mock(mock) => {
                for group in container.groups() {
                    seen.push(whole_window(rig, nth, Eye::Pe(mock, mock.group(group)?.pe)));
                }
            }
            What::MockKernel { kernel, process, .. } => {
                for group in container.groups() {
                    seen.push(whole_window(rig, nth, Eye::Group(kernel, process.id(), group)));
                }
            }
            What::Vfio(_) => seen.push(whole_window(rig, nth, Eye::Mirror(container))),
        }
    }
    Ok(seen)
}

fn seen_naive<'a>(rig: &Rig, tables: &'a [NaiveTable]) -> anyhow::Result<Vec<Seen<'a>>> {
    let mut seen = Vec::new();
    for (nth, table) in tables.iter().enumerate() {
        for group in table.groups() {
            let GroupCaps { pe, window_starts, .. } = table.mock().group(*group)?;
            let eye = Eye::Pe(table.mock(), pe);
            // Its groups are numbered from 0, and may have other parts of the bus than the rig's.
            let start = window_starts[0].unwrap_or_default();
            seen.push(Seen { start, ..whole_window(rig, nth, eye) });
        }
    }
    Ok(seen)
}

/// The window of container number `window`.
pub(super) fn whole_window<'a>(rig: &Rig, window: usize, eye: Eye<'a>) -> Seen<'a> {
    let buffer = (rig.buffer.start(), rig.buffer.bytes());
    let start = rig.containers[window].start;
    Seen { eye, start, page: rig.page(), pages: rig.pages(), buffer, window }
}

/// A table of the naive peer for each container, each on a mock like the rig's.
fn naive_tables(rig: &Rig, config: &RunConfig) -> anyhow::Result<Arc<Vec<NaiveTable>>> {
    let memory = Memory::User { start: rig.buffer.start(), bytes: rig.buffer.bytes() };
    let table = |container: &Windowed| {
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
    use std::thread;

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
        for phase in [Phase::Bulk, Phase::Checked, Phase::Exchange, Phase::Indirect, Phase::Ring] {
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
