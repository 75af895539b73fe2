// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench hazards`: each known trap of the kernels, lived through twice: by a program that
//! believes every answer, and by way of the engine. What is reported was counted on the simulated
//! machine afterwards.

mod report;
mod scene;
#[cfg(test)]
mod tests;
mod traps;
mod user;

use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use serde::Serialize;
use tce_engine::backend::linux::mock_kernel::{MockKernel, Profile};

use super::{Status, present};
use crate::cli::HazardsConfig;
use crate::interrupt::interrupted;
use crate::result::{Run, Tool};
use crate::style::Style;
use scene::{Actor, Harm, Scene};
use traps::{TRAPS, Trap};

/// The names of all traps.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TRAPS.iter().map(|trap| trap.id)
}

/// The document's schema.
const SCHEMA: &str = "tce-bench.hazards/1";

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    run: Run,
    label: &'static str,
    traps: Vec<Row>,
    /// The engine came to no harm that it does not explain. False if a signal ended it.
    verified: bool,
}

/// One trap under all profiles.
#[derive(Debug, Serialize)]
struct Row {
    id: &'static str,
    what: &'static str,
    /// Why the engine cannot prevent it, where it cannot.
    helpless: Option<&'static str>,
    cells: Vec<Cell>,
}

/// One trap under one profile.
#[derive(Debug, Serialize)]
struct Cell {
    profile: &'static str,
    platform: &'static str,
    naive: Lived,
    engine: Lived,
}

/// How one user fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Lived {
    harm: Harm,
    /// The first thing that was refused.
    refused: Option<String>,
    /// The story ended early because of that: this kernel has not what it needs.
    stopped: bool,
}

/// Runs the traps and reports.
///
/// # Errors
/// What failed other than a check, one line.
pub fn hazards(config: &HazardsConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let begin = Instant::now();
    let mut doc = empty(argv);
    play(config, &mut doc, interrupted);
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    present(config.quiet, config.json.as_ref(), &doc, || report::table(&doc, Style::detect()))?;
    Ok(Status::of(doc.run.complete, Some(doc.verified)))
}

/// The document before anything was played.
fn empty(argv: Vec<String>) -> Doc {
    Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(SystemTime::now(), argv, None, 0),
        label: "mock kernel: simulated, not hardware",
        traps: Vec::new(),
        verified: false,
    }
}

/// Plays the traps that are wanted until `over`. One that not all kernels had their turn at is left out.
fn play(config: &HazardsConfig, doc: &mut Doc, over: impl Fn() -> bool) {
    let wanted =
        |trap: &&Trap| config.traps.is_empty() || config.traps.iter().any(|t| t == trap.id);
    for trap in TRAPS.iter().filter(wanted) {
        let turns = config.profiles.iter().take_while(|_| !over());
        let cells: Vec<_> = turns.map(|profile| cell(trap, *profile)).collect();
        if cells.len() < config.profiles.len() {
            break;
        }
        doc.traps.push(Row { id: trap.id, what: trap.what, helpless: trap.helpless, cells });
    }
    doc.run.complete = !over();
    doc.verified = doc.run.complete && doc.traps.iter().all(Row::engine_is_well);
}

impl Row {
    /// The engine came to no harm, or says why it cannot help.
    fn engine_is_well(&self) -> bool {
        self.helpless.is_some() || self.cells.iter().all(|cell| cell.engine.harm.none())
    }
}

fn cell(trap: &Trap, profile: Profile) -> Cell {
    Cell {
        profile: profile.name,
        platform: profile.usual_platform().name(),
        naive: live(trap, profile, Actor::Naive),
        engine: live(trap, profile, Actor::Engine),
    }
}

/// One user lives through one trap on a machine of its own.
fn live(trap: &Trap, profile: Profile, actor: Actor) -> Lived {
    let machine = MockKernel::builder(2).profile(profile).platform(profile.usual_platform());
    let mut scene = Scene::new((trap.machine)(machine), actor, trap.version);
    let ended = (trap.story)(&mut scene);
    let (harm, refused) = scene.end();
    Lived { harm, refused, stopped: ended.is_err() }
}
