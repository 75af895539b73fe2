// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench policies`: one guest under each kill policy, and what Linux's own rules would have cost it.
//! On a software PHB; times are of the mock, counts are not.

mod document;
mod plot;
mod report;
mod rules;
#[cfg(test)]
mod tests;

use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use indicatif::ProgressBar;
use tce_engine::platform::Platform;

use self::document::{Beside, Doc, Kills, Op, Row, Settings, Workload};
use self::rules::Linux;
use super::checked::checked;
use super::guests;
use super::machine::{Look, Machine, Setup};
use super::mismatch::Mismatches;
use super::progress::Progress;
use super::script::{Kind, Script};
use super::timed::{Latencies, latency, throughput};
use crate::cli::PoliciesConfig;
use crate::cmd::{Status, bar, show, write_json};
use crate::host::HostFacts;
use crate::interrupt::interrupted;
use crate::outfile::OutFile;
use crate::policy::{Batch, Fill, Policy};
use crate::recorder::Recorder;
use crate::result::{KillCostSettings, MOCK_LABEL, Run, Tool};
use crate::run::machine::costly;
use crate::style::Style;
use crate::trace::TraceError;

/// Runs everything and reports.
///
/// # Errors
/// One line: a trace that cannot be read, with file and line, a guest that cannot be set up, or a result
/// that cannot be written.
pub fn policies(config: &PoliciesConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    let (started, begin) = (SystemTime::now(), Instant::now());
    let files = || config.json.iter().chain(&config.svg);
    files().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let mut script = match guests::load(&config.workload, config.calls.into(), config.seed)? {
        Ok(script) => script,
        Err(message) => return Ok(Status::Usage(message)),
    };
    if !config.one_handle {
        script.on_vcpus();
    }
    let mut cases = Cases::new(config, script)?;
    let steps = cases.rows.len() as u64 * (1 + u64::from(config.repeat));
    let progress = bar(steps, config.quiet);
    cases.count(&progress)?;
    for _ in 0..config.repeat {
        cases.time(&progress)?;
    }
    progress.finish_and_clear();
    let mut run = Run::begin(started, argv, config.label.clone(), config.seed);
    run.complete = !interrupted();
    run.wall_s = begin.elapsed().as_secs_f64();
    let doc = cases.document(config, run);
    let taken = files().any(|file| *file == OutFile::Stdout);
    show(!config.quiet && !taken, || report::table(&doc, Style::detect()));
    write_json(config.json.as_ref(), &doc)?;
    if let Some(file) = &config.svg {
        let text = plot::svg(&doc).map_err(|e| anyhow!("the plot cannot be drawn: {e}"))?;
        file.write(text.as_bytes()).map_err(|e| anyhow!(e))?;
    }
    if let Some(first) = &doc.first_mismatch {
        eprintln!("error: {first}");
    }
    Ok(Status::of(doc.run.complete, Some(doc.verified)))
}

/// One row while it is measured.
struct Case {
    policy: Policy,
    fill: Fill,
    platform: Platform,
    /// Place in [`Cases::scripts`].
    script: usize,
    row: Row,
    latencies: Latencies,
    mismatches: Mismatches,
}

struct Cases {
    ram: u64,
    /// Each with the batches that end in it.
    scripts: Vec<(Option<Batch>, Script)>,
    rows: Vec<Case>,
    base: Setup,
    linux: Linux,
}

impl Cases {
    fn new(config: &PoliciesConfig, script: Script) -> Result<Self, TraceError> {
        let base = Setup {
            seed: config.seed,
            pes: config.groups as u16,
            kill_cost: config.kill_cost,
            ..Setup::default()
        };
        let ram = script.ram(None, base.host_page)?;
        drop(Machine::new(&script, &base, ram)?);
        let linux = Linux::of(&script, config.groups.into(), base.host_page);
        let made_up = guests::made_up(&config.workload);
        let usual = if made_up { Batch::MADE_UP } else { Batch::RECORDED };
        let mut scripts = vec![(None, script)];
        let mut rows = Vec::new();
        for platform in config.platforms.iter().copied() {
            for policy in config.policies.iter().map(|policy| policy.or_batch(usual)) {
                let batch = policy.batch();
                let place = scripts.iter().position(|(of, _)| *of == batch);
                let place = place.unwrap_or_else(|| {
                    let mut script = scripts[0].1.clone();
                    batch.into_iter().for_each(|batch| script.batch(batch));
                    scripts.push((batch, script));
                    scripts.len() - 1
                });
                for fill in fills(policy, &config.fills) {
                    rows.push(Case::new(policy, fill, platform, place, &linux));
                }
            }
        }
        Ok(Self { ram, scripts, rows, base, linux })
    }

    /// What does not depend on how fast it goes, and exposure, in passes of their own.
    fn count(&mut self, progress: &ProgressBar) -> Result<(), TraceError> {
        for case in &mut self.rows {
            if interrupted() {
                return Ok(());
            }
            progress.set_message(format!("{} on {}: counts", case.policy, case.platform));
            let script = &self.scripts[case.script].1;
            case.count(script, &self.base, self.ram, self.linux.tces)?;
            progress.inc(1);
        }
        Ok(())
    }

    /// Times each row once.
    fn time(&mut self, progress: &ProgressBar) -> Result<(), TraceError> {
        for case in &mut self.rows {
            if interrupted() {
                return Ok(());
            }
            progress.set_message(format!("{} on {}: times", case.policy, case.platform));
            case.time(&self.scripts[case.script].1, &self.base, self.ram)?;
            progress.inc(1);
        }
        Ok(())
    }

    fn document(self, config: &PoliciesConfig, run: Run) -> Doc {
        let script = &self.scripts[0].1;
        let shifts = script.page_sizes;
        let last = script.when.last().map_or(0, |when| when.t_ns);
        let cost = config.kill_cost.map_or_else(String::new, costly);
        let mut first_mismatch = None;
        let mut rows = Vec::new();
        for mut case in self.rows {
            case.end();
            if shifts.iter().count() == 1 {
                let pages = case.row.held_back_pages;
                case.row.held_back_bytes = pages.map(|pages| pages * shifts.0);
            }
            if let Some(first) = case.mismatches.first.first() {
                let Row { policy, fill, platform, .. } = &case.row;
                first_mismatch.get_or_insert(format!("{policy}, {fill}, {platform}: {first}"));
            }
            rows.push(case.row);
        }
        let complete = run.complete;
        Doc {
            schema: document::SCHEMA,
            tool: Tool::current(),
            run,
            host: HostFacts::capture(),
            label: format!("{MOCK_LABEL}{cost}"),
            workload: Workload {
                name: script.name.clone(),
                file: script.file.clone(),
                recorded: !guests::made_up(&config.workload),
                hypercalls: script.counts.calls(),
                tces_mapped: script.counts.mapped,
                handles: script.vcpus.into(),
                phbs: script.phbs.len() as u64,
                seconds: last as f64 / 1e9,
            },
            config: Settings {
                groups: config.groups.into(),
                repeat: config.repeat.into(),
                host_page_shift: self.base.host_page.get() as u8,
                simd: self.base.tier.name(),
                kill_cost: config.kill_cost.map(KillCostSettings::from),
            },
            linux: self.linux,
            verified: complete && rows.iter().all(|row| row.verified),
            rows,
            first_mismatch,
        }
    }
}

/// The rules for fills that make a difference: strictly, all but `never` is `always`.
fn fills(policy: Policy, asked: &[Fill]) -> Vec<Fill> {
    let mut fills = Vec::with_capacity(asked.len());
    for fill in asked {
        let fill = match (policy, fill) {
            (Policy::Strict, Fill::BesideLive(_)) => Fill::Always,
            (_, fill) => *fill,
        };
        if !fills.contains(&fill) {
            fills.push(fill);
        }
    }
    fills
}

impl Case {
    fn new(policy: Policy, fill: Fill, platform: Platform, script: usize, linux: &Linux) -> Self {
        let (unit, kills, kills_valid) = match platform {
            Platform::Phb3 => ("stores", linux.phb3_stores, linux.phb3_stores_valid),
            _ => ("calls", linux.phb4_calls, linux.phb4_calls_valid),
        };
        let linux = Beside { unit, kills, kills_valid, times_fewer: None, times_fewer_valid: None };
        let row = Row {
            policy: policy.to_string(),
            fill: fill.to_string(),
            platform: platform.to_string(),
            linux,
            ..Row::default()
        };
        let (latencies, mismatches) = (Latencies::default(), Mismatches::default());
        Self { policy, fill, platform, script, row, latencies, mismatches }
    }

    fn setup(&self, base: &Setup, look: Look) -> Setup {
        Setup { policy: self.policy, fill: self.fill, platform: self.platform, look, ..*base }
    }

    fn count(
        &mut self,
        script: &Script,
        base: &Setup,
        ram: u64,
        tces: u64,
    ) -> Result<(), TraceError> {
        let progress = Progress::hidden();
        let out = checked(script, &self.setup(base, Look::Kills), ram, &progress)?;
        self.mismatches.extend(&out.mismatches);
        if !out.complete {
            return Ok(());
        }
        let (seen, row) = (out.books.seen, &mut self.row);
        let stores = seen.pages + seen.whole;
        row.kills = Some(Kills {
            asked: out.books.counters.kills_asked,
            stores,
            page_stores: seen.pages,
            whole_stores: seen.whole,
            fences: seen.fences,
            refills: seen.refills,
            per_1000_tces: 1e3 * stores as f64 / tces.max(1) as f64,
        });
        let fewer = |linux: u64| (stores > 0).then(|| linux as f64 / stores as f64);
        row.linux.times_fewer = fewer(row.linux.kills);
        row.linux.times_fewer_valid = fewer(row.linux.kills_valid);
        row.held_back_pages = Some(out.held.most);
        row.exposure_trace_ns = Some(out.held.longest_ns);
        row.entries_compared = out.entries;
        let (out, _) = throughput(script, &self.setup(base, Look::Exposure), ram, &progress)?;
        self.mismatches.extend(&out.mismatches(script, "exposure"));
        if out.complete {
            self.row.exposure_ns = out.books.exposure.map(|longest| longest.as_nanos() as u64);
            self.row.verified = true;
        }
        Ok(())
    }

    fn time(&mut self, script: &Script, base: &Setup, ram: u64) -> Result<(), TraceError> {
        let (setup, progress) = (self.setup(base, Look::Nothing), Progress::hidden());
        let (out, took) = throughput(script, &setup, ram, &progress)?;
        self.mismatches.extend(&out.mismatches(script, "throughput"));
        if !out.complete {
            return Ok(());
        }
        let ns = took.as_nanos() as f64;
        let best = |a: &mut Option<f64>, b: f64| *a = Some(a.map_or(b, |a| a.min(b)));
        best(&mut self.row.ns_per_call, ns / out.sum.calls.max(1) as f64);
        best(&mut self.row.ns_per_tce, ns / out.sum.tces.max(1) as f64);
        self.row.kill_cost_ns = out.books.kill_cost_ns;
        let (out, times) = latency(script, &setup, ram, &progress)?;
        self.mismatches.extend(&out.mismatches(script, "latency"));
        if out.complete {
            self.latencies.iter_mut().zip(&times).for_each(|(sum, one)| sum.merge(one));
        }
        Ok(())
    }

    fn end(&mut self) {
        let row = &mut self.row;
        row.calls_per_s = row.ns_per_call.filter(|ns| *ns > 0.0).map(|ns| 1e9 / ns);
        row.latency = Recorder::merged(&self.latencies).summary();
        let ops = Kind::ALL.iter().zip(&self.latencies).filter(|(_, times)| times.calls() > 0);
        row.operations = ops
            .map(|(kind, times)| Op {
                op: kind.name(),
                count: times.calls(),
                latency: times.summary(),
            })
            .collect();
        row.mismatches = self.mismatches.count;
        row.verified &= self.mismatches.count == 0;
    }
}
