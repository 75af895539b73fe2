// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench churn`: a group joins and leaves in a loop while pages of another are mapped and
//! unmapped. What is counted is whether anything of either is lost.

mod mapper;
mod report;
mod result;
mod rounds;
#[cfg(test)]
mod tests;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::geometry::WindowSpec;

use super::ground::{Ground, standing};
use super::{Status, check_outputs, present};
use crate::cli::ChurnConfig;
use crate::clock::Clock;
use crate::edu;
use crate::host::{self, HostFacts};
use crate::interrupt::interrupted;
use crate::kernel::Unavailable;
use crate::result::{BackendKind, Run, Tool, Warning};
use crate::run::lists::Random;
use crate::run::machine::Machine;
use crate::run::rig::Plan;
use crate::style::Style;
use mapper::{Cells, Reins, Signals, Times, work};
use result::{Doc, Found, SCHEMA, Settings};
use rounds::{Driven, Rounds, Scene};

/// Runs the rounds and reports.
///
/// # Errors
/// What failed other than a check, one line.
pub fn churn(config: &ChurnConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    let mut warnings = Vec::new();
    let machine = match Machine::open(&config.run, &mut warnings) {
        Ok(machine) => machine,
        Err(e) => return Ok(Status::Unavailable(e.to_string())),
    };
    let plan = match Plan::new(&config.run, &machine, host::mem_available()) {
        Ok(plan) => plan,
        Err(message) => return Ok(Status::Usage(message)),
    };
    if let Err(e) = machine.check_memlock(&config.run, &plan) {
        return Ok(Status::Unavailable(e.to_string()));
    }
    check_outputs(&config.run.output)?;
    let (started, begin) = (SystemTime::now(), Instant::now());
    let mut doc = match measure(config, &machine, &plan) {
        Ok(doc) => doc,
        Err(e) if e.is::<Unavailable>() => return Ok(Status::Unavailable(format!("{e:#}"))),
        Err(e) => return Err(e),
    };
    doc.run = Run::begin(started, argv, None, config.run.seed);
    doc.run.complete = !interrupted();
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    doc.warnings.splice(0..0, warnings);
    let output = &config.run.output;
    present(output.quiet, output.json.as_ref(), &doc, || report::table(&doc, Style::detect()))?;
    Ok(Status::of(doc.run.complete, doc.verified))
}

/// Makes the first group's window, has the rounds run, and gives everything back.
fn measure(config: &ChurnConfig, machine: &Machine, plan: &Plan) -> anyhow::Result<Doc> {
    let clock = Clock::measure();
    let policy = DetachPolicy::from(config.detach);
    let groups = [machine.groups[0], machine.groups[1]];
    let mut books = machine.books();
    let options =
        EngineOptions { tier: Some(plan.tier), detach: policy, ..EngineOptions::default() };
    let engine = Engine::new(machine.backend(), options);
    // Dropped before the memory that it knows.
    let buffer = machine.buffer(&config.run, plan)?;
    let container = Arc::new(engine.container());
    let page = plan.geometry.page();
    let spec = WindowSpec::new(config.run.window_bytes, page).levels(plan.geometry.levels());
    let mut compare = |step| books.iter_mut().for_each(|b| b.compare(engine.ledger(), step));
    container.attach(groups[0])?;
    compare("attaching the first group");
    container.register(buffer.start(), buffer.bytes())?;
    compare("registering the buffer");
    let start = container.create_window(spec)?.start;
    compare("creating the window");
    let pages = plan.geometry.requested_entries();
    let ground = Ground { buffer: &buffer, start, page, pages };
    let mut random = Random::new(config.run.seed);
    let standing = standing(&container, ground, config.standing, &mut random)?;
    compare("the first maps");

    let scene = Scene {
        config,
        policy,
        machine,
        engine: &engine,
        container: &container,
        ground,
        spec,
        standing: &standing,
        groups,
    };
    let mut found = Found::new();
    let devices = Driven::open(&scene)?;
    let driven = devices.is_some();
    let signals = Signals::default();
    let times = thread::scope(|scope| -> anyhow::Result<Times> {
        let (to, from_leader) = mpsc::channel();
        let (to_leader, from) = mpsc::channel();
        let (container, signals) = (&container, &signals);
        let thread =
            scope.spawn(move || work(container, ground, signals, &from_leader, &to_leader));
        let cells = Cells::new(pages, ground.buffer_pages(), random.next());
        let reins = Reins::new(signals, to, from, cells);
        // The thread ends when its reins are gone, whatever comes of the rounds.
        let done = Rounds::new(&scene, reins, &mut books, &mut found, devices).run();
        let times = thread.join().map_err(|_| anyhow!("the mapping thread panicked"));
        done.and(times)
    })?;
    let mut warnings = Vec::new();
    let unproven = machine.kind() == BackendKind::Vfio && !driven;
    if unproven {
        let without = groups.iter().filter(|group| edu::list(&[**group]).is_empty());
        let without: Vec<_> = without.map(ToString::to_string).collect();
        let text = format!(
            "not verified: no device whose DMA this tool can drive in group(s) {}",
            without.join(", ")
        );
        found.verification.unproven = Some(text.clone());
        warnings.push(Warning::new("NO_DMA_PROOF", text));
    }
    let well = found.is_well() && !interrupted();
    let (kernel, runs_on) = machine.kernel_and_machine();
    Ok(Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(SystemTime::now(), Vec::new(), None, config.run.seed),
        host: HostFacts::capture(),
        label: machine.label(),
        kernel,
        machine: runs_on,
        config: Settings {
            groups: groups.map(|group| group.0),
            detach: config.detach.name(),
            rounds: config.rounds,
            window_bytes: config.run.window_bytes,
            window_start: start.0,
            page_shift: config.run.page_shift,
            host_page_shift: plan.host_page.get() as u8,
            levels: plan.geometry.levels(),
            pages,
            standing: config.standing,
            calls: config.calls,
            buffer_bytes: buffer.bytes(),
            dma_every: driven.then_some(config.dma_every),
        },
        clock,
        results: found.results(&times)?,
        rounds: found.rounds,
        replay: found.replay,
        lost: found.lost,
        stray: found.stray,
        reached: found.reached,
        first_difference: found.first_difference,
        locked: found.locked,
        verification: found.verification,
        warnings,
        verified: if unproven && well { None } else { Some(well) },
    })
}
