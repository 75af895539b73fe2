// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long released pages stay reachable, in a pass of its own: to look at a clock in each call would
//! take longer than most calls.

use std::time::Duration;

use anyhow::Context;

use super::machine::Machine;
use super::phase::{self, Outcome};
use super::rig::{Plan, Rig};
use crate::cli::{BackendChoice, Phase, RunConfig};
use crate::interrupt::interrupted;
use crate::result::{OpResult, Verification};

/// What the pass found.
pub struct Exposures {
    /// The longest of each phase, in the order of the phases. Those that an interrupt left out are not
    /// there, nor are those whose tables are not the engine's.
    pub longest: Vec<(Phase, Duration)>,
    /// What was wrong, in words.
    pub wrong: Option<String>,
}

impl Exposures {
    /// Adds each to the results of its phase.
    pub fn add_to(&self, results: &mut [OpResult]) {
        for result in results {
            let of =
                |(phase, _): &&(Phase, Duration)| result.id.split('.').next() == Some(phase.name());
            let longest = self.longest.iter().find(of);
            result.exposure_ns = longest.map(|(_, longest)| longest.as_nanos() as u64);
        }
    }
}

/// One round of each phase on a mock, an engine and containers as the run had them, once more. What
/// is measured otherwise is thrown away.
///
/// # Errors
/// What the engine refused, or no memory.
pub fn measure(config: &RunConfig, plan: &Plan, phases: &[Phase]) -> anyhow::Result<Exposures> {
    let once = RunConfig {
        measure_exposure: true,
        backend: BackendChoice::Mock,
        repetitions: Some(1),
        duration: None,
        warmup: Some(Duration::ZERO),
        rate: None,
        ..config.clone()
    };
    let machine = Machine::open(&once, &mut Vec::new()).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut rig = Rig::new(&once, plan, machine)?;
    let mut verification = Verification::default();
    let mut found = Exposures { longest: Vec::new(), wrong: None };
    // The peer is not the engine.
    for phase in phases.iter().copied().filter(|phase| *phase != Phase::Naive) {
        if interrupted() {
            break;
        }
        let Outcome { exposure, verified, .. } =
            phase::run(phase, &rig, &once, plan, &mut verification)
                .with_context(|| format!("exposure of phase {}", phase.name()))?;
        if interrupted() {
            break;
        }
        if !verified {
            let what = verification.first_mismatch.clone().unwrap_or_default();
            found.wrong.get_or_insert(format!("exposure of phase {}: {what}", phase.name()));
        }
        found.longest.extend(exposure.map(|longest| (phase, longest)));
    }
    if let Some(wrong) = rig.close() {
        found.wrong.get_or_insert(wrong);
    }
    Ok(found)
}
