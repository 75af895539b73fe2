// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long a run takes, as far as its settings say so. What depends on the machine is not estimated.

use std::fmt::Write;

use serde::Serialize;

use crate::cli::RunConfig;
use crate::result::{BackendKind, Skipped};
use crate::run::lane::Schedule;
use crate::run::machine::Machine;
use crate::run::phase;

/// The time of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Time {
    /// By the settings alone: warm-up and measuring of all phases.
    pub(super) least_s: f64,
    /// How many phases there are to run.
    pub(super) phases: u64,
    /// Phases that were asked for, and why they cannot run here.
    pub(super) skipped: Vec<Skipped>,
    /// What comes on top, and shows only when it is run.
    pub(super) at_run_time: Vec<String>,
}

impl Time {
    pub(super) fn of(config: &RunConfig, machine: &Machine, kind: BackendKind) -> Self {
        let schedule = Schedule::new(config, machine.has_kernel());
        let reason = |phase| phase::impossible(phase, machine);
        let skipped = config.phases.iter().filter_map(|phase| {
            reason(*phase).map(|reason| Skipped { id: phase.name().to_owned(), reason })
        });
        let skipped: Vec<_> = skipped.collect();
        let phases = config.phases.len() - skipped.len();
        // So many rounds may take less than the time.
        let measured = schedule.duration.filter(|_| schedule.repetitions.is_none());
        let each = schedule.warmup + measured.unwrap_or_default();
        let rounds = match (schedule.repetitions, schedule.duration) {
            (Some(n), None) => format!("{n} round(s) of each phase"),
            (Some(n), Some(most)) => {
                format!(
                    "{n} round(s) of each phase, or what can be begun in {} s",
                    most.as_secs_f64()
                )
            }
            (None, _) => "in each phase the round that is under way when its time is up".to_owned(),
        };
        let mut at_run_time = vec!["setting up".to_owned(), rounds];
        at_run_time.push("checks of all pages after each phase".to_owned());
        if kind == BackendKind::Mock {
            at_run_time
                .push("a pass that finds for how long released pages stay reachable".to_owned());
        }
        if config.detach.is_some() {
            at_run_time.push("groups that leave the others and come back".to_owned());
        }
        let least_s = (each * phases as u32).as_secs_f64();
        Self { least_s, phases: phases as u64, skipped, at_run_time }
    }

    pub(super) fn report(&self, out: &mut String) {
        for Skipped { id, reason } in &self.skipped {
            let _ = writeln!(out, "phase {id} cannot run here: {reason}");
        }
        let (least, phases) = (self.least_s, self.phases);
        let _ = writeln!(
            out,
            "run time, by the settings: {least} s at least, of {phases} phase(s); measured at run time, not \
             estimated: {}",
            self.at_run_time.join(", ")
        );
    }
}
