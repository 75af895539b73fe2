// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Threads that make calls of the engine's interface, each beside a model of its own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tce_engine::addr::{GroupId, PageShift, PeNumber, Uaddr};
use tce_engine::container::Container;
use tce_engine::geometry::WindowSpec;
use tce_engine::ioba::{IobaAllocator, IobaOptions};
use tce_engine::kill::KillPolicy;
use tce_engine::sabotage::inherit;
use tce_engine::{Engine, EngineOptions, Mock};

use super::call::Call;
use super::draw::Draw;
use super::drift::Took;
use super::machine::{GROUPS, Machine};
use super::model::{Mistake, Model};
use super::world::{Company, Outcome, Real, World, Wrong, space};
use crate::interrupt::interrupted;

/// Calls between two looks whether to go on.
const BATCH: u64 = 1024;

/// What threads do on one machine.
#[derive(Clone, Debug)]
pub(super) struct Episode {
    pub(super) machine: Machine,
    pub(super) policy: KillPolicy,
    /// All threads use one container.
    pub(super) shared: bool,
    /// Of each thread: its seed and calls.
    pub(super) threads: Vec<(u64, u64)>,
    /// What is wrong with the models.
    pub(super) mistake: Option<Mistake>,
}

impl Episode {
    /// One thread's calls on a machine of its own, and what was wrong.
    pub(super) fn alone(
        &self,
        seed: u64,
        calls: impl FnOnce(&mut World<'_>) -> Result<(), Wrong>,
    ) -> Option<Wrong> {
        let mock = self.machine.build(1, seed);
        let engine = Engine::new(mock.clone(), self.options());
        let one = Self { threads: vec![(seed, 0)], ..self.clone() };
        let mut world = apart(&one, &mock, &engine, 0);
        world.model.mistake = self.mistake;
        let found = calls(&mut world).err();
        close(vec![world], seed);
        found
    }

    fn options(&self) -> EngineOptions {
        EngineOptions {
            memlock: self.machine.memlock,
            policy: self.policy,
            ..EngineOptions::default()
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) refused: u64,
    /// Entries compared through the PHB.
    pub(super) entries: u64,
    /// Looks at everything.
    pub(super) audits: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.refused += other.refused;
        self.entries += other.entries;
        self.audits += other.audits;
    }
}

/// A call, a look or an end that was not as the model has it.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    /// Of the thread.
    pub(super) seed: u64,
    /// Number of the thread's call, from 1.
    pub(super) number: u64,
    /// The last call.
    pub(super) call: Option<Call>,
    pub(super) wrong: Wrong,
}

/// A thread's end.
struct Ended<'a> {
    world: World<'a>,
    counts: Counts,
    found: Option<Difference>,
    panicked: bool,
}

/// Runs an episode to its end, or to the first difference.
pub(super) fn run(episode: &Episode, took: &mut Took) -> (Counts, Option<Difference>) {
    let threads = episode.threads.len() as u32;
    let seed = episode.threads[0].0;
    let mock = episode.machine.build(if episode.shared { 1 } else { threads }, seed);
    let engine = Engine::new(mock.clone(), episode.options());
    let mut worlds: Vec<_> = if episode.shared {
        shared(episode, &mock, &engine)
    } else {
        (0..threads).map(|nth| apart(episode, &mock, &engine, nth)).collect()
    };
    worlds.iter_mut().for_each(|world| world.model.mistake = episode.mistake);
    let stop = AtomicBool::new(false);
    let ended: Vec<_> = thread::scope(|scope| {
        let (stop, nth) = (&stop, 0..);
        let spawned: Vec<_> = worlds
            .into_iter()
            .zip(nth)
            .map(|(world, nth)| {
                let (seed, calls) = episode.threads[nth];
                let draw = Draw::new(seed, nth as u32, episode.machine.host);
                scope.spawn(inherit(move || work(world, draw, (seed, calls), stop)))
            })
            .collect();
        spawned.into_iter().map(|t| t.join().expect("panics are caught in the thread")).collect()
    });
    let mut counts = Counts::default();
    for ended in &ended {
        counts += ended.counts;
        took.add(&ended.world.took);
    }
    let panicked = ended.iter().any(|ended| ended.panicked);
    let mut found = ended.iter().find_map(|ended| ended.found.clone());
    let mut worlds: Vec<_> = ended.into_iter().map(|ended| ended.world).collect();
    if panicked {
        // Whatever they hold may be half done, and locks of theirs taken.
        std::mem::forget(worlds);
        std::mem::forget(engine);
        return (counts, found);
    }
    if found.is_none() {
        let end = at_rest(&mut worlds, &mock, &engine);
        found = end.err().map(|wrong| at_end(episode, wrong));
    }
    close(worlds, seed);
    if found.is_none() {
        found = left(&mock, &engine).err().map(|wrong| at_end(episode, wrong));
    }
    (counts, found)
}

/// What was found after all threads had ended is nobody's in particular.
fn at_end(episode: &Episode, wrong: Wrong) -> Difference {
    let (seed, number) = episode.threads[0];
    Difference { seed, number, call: None, wrong }
}

/// Two containers of the thread's own, with nothing in them.
fn apart<'a>(episode: &Episode, mock: &'a Mock, engine: &'a Engine, nth: u32) -> World<'a> {
    let alone = episode.threads.len() == 1;
    let real = [2, 1].map(|handles| Real::new(Arc::new(engine.container()), handles));
    World {
        mock,
        engine,
        machine: episode.machine,
        policy: episode.policy,
        company: if alone { Company::None } else { Company::Apart },
        first_group: nth * GROUPS,
        real: real.into(),
        model: Model::new(episode.machine, nth * GROUPS, 2),
        calls: 0,
        entries_compared: 0,
        took: Took::new(),
    }
}

/// One container of all threads, in which each has memory and a part of each window of its own.
fn shared<'a>(episode: &Episode, mock: &'a Mock, engine: &'a Engine) -> Vec<World<'a>> {
    const READY: &str = "a container like this can be made on each machine";
    let container = Arc::new(engine.container());
    let mut model = Model::new(episode.machine, 0, 1);
    container.attach(GroupId(0)).expect(READY);
    model.attach(0, GroupId(0)).expect(READY);
    for (page, levels) in [(PageShift::K4, 2), (PageShift::K64, 1)] {
        let spec = WindowSpec::new(1 << (14 + page.get()), page).levels(levels);
        container.create_window(spec).expect(READY);
        model.create(0, spec).expect(READY);
    }
    let addresses = IobaAllocator::new(space(model.window(0, 0)), IobaOptions::default());
    let addresses = addresses.expect(READY);
    let of = episode.threads.len() as u32;
    let world = |nth| {
        let mut model = model.clone();
        let draw = Draw::new(0, nth, episode.machine.host);
        for (start, bytes) in draw.first_memory() {
            container.register(Uaddr(start), bytes).expect(READY);
            model.register(0, Uaddr(start), bytes).expect(READY);
        }
        let mut real = Real::new(container.clone(), 1);
        real.handles.insert(0, container.mapper().with_addresses(&addresses));
        real.addresses = Some(addresses.clone());
        World {
            mock,
            engine,
            machine: episode.machine,
            policy: episode.policy,
            company: Company::Shared { nth, of },
            first_group: 0,
            real: vec![real],
            model,
            calls: 0,
            entries_compared: 0,
            took: Took::new(),
        }
    };
    (0..of).map(world).collect()
}

/// One thread's calls.
fn work<'a>(
    mut world: World<'a>,
    mut draw: Draw,
    (seed, calls): (u64, u64),
    stop: &AtomicBool,
) -> Ended<'a> {
    let (mut counts, mut last) = (Counts::default(), None);
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut next_audit = world.audit_interval();
        while counts.calls < calls {
            let over = || stop.load(Ordering::Relaxed) || interrupted();
            if counts.calls.is_multiple_of(BATCH) && over() {
                break;
            }
            let call = last.insert(draw.next(&world));
            counts.calls += 1;
            if world.make(call)? == Outcome::Refused {
                counts.refused += 1;
            }
            if counts.calls >= next_audit {
                world.audit()?;
                counts.audits += 1;
                next_audit = counts.calls + world.audit_interval();
            }
        }
        counts.audits += 1;
        world.audit()
    }));
    counts.entries = world.entries_compared;
    let (found, panicked) = match done {
        Ok(Ok(())) => (None, false),
        Ok(Err(wrong)) => (Some(wrong), false),
        Err(panic) => (Some(said(&*panic)), true),
    };
    if found.is_some() {
        stop.store(true, Ordering::Relaxed);
    }
    let number = counts.calls;
    let found = found.map(|wrong| Difference { seed, number, call: last, wrong });
    Ended { world, counts, found, panicked }
}

/// A panic as what was wrong.
pub(super) fn said(panic: &(dyn Any + Send)) -> Wrong {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
    Wrong { what: "panic".into(), expected: "none".into(), got: text.to_owned() }
}

/// What all threads together have, now that they are at rest.
fn at_rest(worlds: &mut [World<'_>], mock: &Mock, engine: &Engine) -> Result<(), Wrong> {
    let one = &worlds[0];
    if one.shared() {
        return shared_at_rest(worlds);
    }
    let charged = worlds.iter().map(|world| world.model.charged()).sum();
    equal("pages in the ledger", charged, engine.ledger().pages())?;
    let pinned = worlds.iter().map(|world| world.model.registry.len() as u64).sum();
    let set = worlds.iter().map(|world| world.model.windows_set() as u64).sum();
    let (pins, _, windows) = mock.leftovers();
    equal("pinned ranges", pinned, pins as u64)?;
    equal("windows set", set, windows as u64)
}

/// Entries where addresses are handed out, and mapped counts, of all threads.
fn shared_at_rest(worlds: &mut [World<'_>]) -> Result<(), Wrong> {
    let real = &worlds[0].real[0];
    let container = real.container.clone();
    let given = worlds.iter().map(|world| world.model.given_pages(0)).sum();
    if let Some(addresses) = &real.addresses {
        equal("addresses in use", given, addresses.in_use())?;
    }
    let live = |world: &World<'_>| {
        let windows = world.model.sides[0].windows.iter().flatten();
        windows.map(|w| w.live.len() as u64).sum::<u64>()
    };
    let live: u64 = worlds.iter().map(live).sum();
    let mapped = container.regions().iter().map(|region| region.mapped).sum();
    equal("mapped counts", live, mapped)?;
    let mock = worlds[0].mock;
    let mut found = 0;
    for slot in 0..2 {
        let window = worlds[0].model.window(0, slot);
        let entries = (0..window.shape.entries).map(|entry| window.bus(entry));
        found += entries.filter(|at| mock.probe(PeNumber(0), *at).is_ok()).count() as u64;
    }
    equal("live entries", live, found)
}

/// Ends everything, in one way or another.
fn close(worlds: Vec<World<'_>>, seed: u64) {
    let containers: Vec<Arc<Container>> =
        worlds.iter().flat_map(|w| w.real.iter().map(|real| real.container.clone())).collect();
    match seed % 3 {
        0 => drop(worlds),
        1 => {
            // Handles outlive the address space.
            containers.iter().for_each(|container| container.close());
            drop(worlds);
        }
        _ => {
            drop(worlds);
            for container in &containers {
                for group in container.groups() {
                    // Each is a member until it has left, and on a mock it can.
                    let _ = container.detach(group);
                }
            }
        }
    }
}

/// Nothing is left.
fn left(mock: &Mock, engine: &Engine) -> Result<(), Wrong> {
    let (pins, tables, windows) = mock.leftovers();
    equal("pages in the ledger at the end", 0, engine.ledger().pages())?;
    equal("pinned ranges at the end", 0, pins as u64)?;
    equal("stretches of table at the end", 0, tables as u64)?;
    equal("windows set at the end", 0, windows as u64)?;
    equal("PEs that the host has not got back", 0, mock.taken() as u64)
}

fn equal(what: &str, expected: u64, got: u64) -> Result<(), Wrong> {
    if expected == got {
        return Ok(());
    }
    Err(Wrong { what: what.into(), expected: expected.to_string(), got: got.to_string() })
}
