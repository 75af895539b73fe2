// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench [run]`: sets up, runs the phases, checks, reports.

use std::io::IsTerminal;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tce_engine::addr::GroupId;
use tce_engine::backend::Backend as _;
use tce_engine::kill::KillCount;
use tce_engine::mem::TablePages;

use super::{Status, check_outputs, write_outputs};
use crate::cli::{BackendChoice, RunConfig};
use crate::clock::Clock;
use crate::cpus;
use crate::host::{self, HostFacts};
use crate::interrupt::interrupted;
use crate::recorder::Recorder;
use crate::result::{
    Backend, BackendKind, Config, Counters, Layout, MOCK_LABEL, OpResult, RealMemory, ResultDoc,
    Run, RunSettings, SCHEMA, TableMemory, TableMemoryKind, Tool, Verification, Warning,
};
use crate::run::phase::{self, Outcome, Phase, Schedule};
use crate::run::report::report;
use crate::run::rig::{Plan, Rig};
use crate::run::smaps;
use crate::style::Style;

/// Runs and reports.
///
/// # Errors
/// What failed, one line.
pub fn run(config: &RunConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    let mut warnings = Vec::new();
    const NOT_THERE: &str = "the vfio back end is not part of this version";
    match config.backend {
        BackendChoice::Mock => {}
        BackendChoice::Auto => {
            warnings.push(Warning::new("NO_VFIO", format!("{NOT_THERE}; measured on the mock")));
        }
        BackendChoice::Vfio => {
            return Ok(Status::Unavailable(format!("{NOT_THERE}; use --backend mock")));
        }
    }
    let plan = match plan(config) {
        Ok(plan) => plan,
        Err(message) => return Ok(Status::Usage(message)),
    };
    check_outputs(&config.output)?;

    let started = SystemTime::now();
    let begin = Instant::now();
    let clock = Clock::measure();
    let rig = Rig::new(config, &plan)?;
    let progress = progress(config);
    let mut verification = Verification::default();
    let mut verified = true;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for phase in Phase::ALL {
        if interrupted() {
            break;
        }
        progress.set_message(phase.name());
        let outcome = phase::run(phase, &rig, config, &plan, &mut verification)
            .with_context(|| format!("phase {}", phase.name()))?;
        verified &= outcome.verified;
        outcomes.push(outcome);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let complete = !interrupted();

    let backend = backend(config, &rig, &mut warnings)?;
    let settings = settings(config, &plan, &rig);
    let mut counters = counters(&rig, &outcomes);
    let mut fail = |text: String| {
        verified = false;
        verification.first_mismatch.get_or_insert(text);
    };
    if counters.register_stores != counters.kills_issued {
        let Counters { register_stores: seen, kills_issued: issued, .. } = counters;
        fail(format!("the engine counted {issued} kills, the PHB's registers saw {seen}"));
    }
    let (mock, ledger_page) = (rig.mock.clone(), rig.engine.ledger().page());
    // Everything is given back, and what is not is a leak.
    rig.containers.iter().for_each(tce_engine::container::Container::close);
    counters.pinned_end_bytes = rig.engine.ledger().pages() << ledger_page.get();
    drop(rig);
    let left = mock.leftovers();
    if counters.pinned_end_bytes != 0 || left != (0, 0, 0) {
        let bytes = counters.pinned_end_bytes;
        fail(format!("{bytes} bytes still charged at the end; (pins, tables, windows) = {left:?}"));
    }

    let results: Vec<OpResult> = outcomes.iter().flat_map(|o| o.results.clone()).collect();
    let recorders: Vec<(String, Recorder)> =
        outcomes.into_iter().flat_map(|o| o.recorders).collect();
    let mut run = Run::begin(started, argv, config.output.label.clone(), config.seed);
    run.complete = complete;
    run.wall_s = begin.elapsed().as_secs_f64();
    let doc = ResultDoc {
        schema: SCHEMA.to_owned(),
        tool: Tool::current(),
        run,
        host: HostFacts::capture(),
        backend,
        config: Config::Run(settings),
        clock,
        results,
        counters,
        verified: verified && complete,
        verification,
        replay: None,
        warnings,
    };
    let text = report(&doc, &recorders, Style::detect());
    write_outputs(&config.output, &doc, started, &recorders, &text)?;
    Ok(if !complete {
        Status::Interrupted
    } else if doc.verified {
        Status::Ok
    } else {
        Status::Failed
    })
}

/// What can be refused before anything is taken.
fn plan(config: &RunConfig) -> Result<Plan, String> {
    if let Some(cpus) = &config.cpus {
        cpus::check(cpus)?;
    }
    Plan::new(config, host::mem_available())
}

fn progress(config: &RunConfig) -> ProgressBar {
    if config.output.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(Phase::ALL.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:24} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

fn settings(config: &RunConfig, plan: &Plan, rig: &Rig) -> RunSettings {
    let schedule = Schedule::new(config);
    RunSettings {
        groups: u64::from(config.groups),
        containers: u64::from(config.containers),
        window_bytes: config.window_bytes,
        window_start: rig.start.0,
        levels: u64::from(plan.geometry.levels()),
        level_entries: plan.geometry.level_entries(),
        page_shift: config.page_shift,
        host_page_shift: config.host_page_shift,
        threads: u64::from(config.threads),
        cpus: config.cpus.clone(),
        backing_bytes: config.backing_bytes,
        buffer_bytes: plan.buffer_bytes,
        repetitions: config.repetitions.map(u64::from),
        duration_s: schedule.duration.map(|d| d.as_secs_f64()),
        warmup_s: schedule.warmup.as_secs_f64(),
        simd: plan.tier.name().to_owned(),
        contiguous: config.contiguous,
        memlock_bytes: config.memlock_bytes,
    }
}

fn counters(rig: &Rig, outcomes: &[Outcome]) -> Counters {
    let mut kills = KillCount::default();
    outcomes.iter().for_each(|o| kills += o.meters.kills);
    let uses: Vec<_> = rig.containers.iter().flat_map(|c| c.table_use()).collect();
    let blocks: u64 = uses.iter().map(|u| u.blocks).sum();
    let full = &rig.geometry;
    let interior = full.blocks() - full.entries().div_ceil(full.level_entries());
    let page = rig.engine.ledger().page().get();
    let containers = rig.containers.len() as u64;
    Counters {
        tces_written: outcomes.iter().map(|o| o.meters.tces_written).sum(),
        kills_asked: kills.asked,
        kills_issued: kills.issued,
        register_stores: rig.mock.register_stores() - rig.setup_stores,
        pinned_peak_bytes: rig.engine.ledger().peak_pages() << page,
        pinned_end_bytes: 0,
        table_charge_bytes: containers * full.charge(),
        leaf_blocks: blocks.saturating_sub(containers * interior),
        table_blocks: blocks,
    }
}

/// What the run stood on, as it was got.
fn backend(config: &RunConfig, rig: &Rig, warnings: &mut Vec<Warning>) -> anyhow::Result<Backend> {
    let caps = rig.mock.group(GroupId(0))?;
    let uses: Vec<_> = rig.containers.iter().flat_map(|c| c.table_use()).collect();
    let used_bytes = uses.iter().map(|u| u.used_bytes).sum();
    let mut pages = uses.iter().filter_map(|u| u.pages).max().unwrap_or(TablePages::Small);
    if pages == TablePages::Transparent {
        let chunks: Vec<_> = rig.containers.iter().flat_map(|c| c.table_memory()).collect();
        // The kernel may take the advice and give small pages all the same.
        let got = smaps::huge_share(&chunks);
        if got < used_bytes / 2 {
            pages = TablePages::Small;
            warnings.push(Warning::new(
                "NO_HUGE_PAGES",
                format!(
                    "huge pages were granted for the tables, but {got} of {used_bytes} bytes \
                         stand on them"
                ),
            ));
        }
    }
    let (kind, page_bytes) = match pages {
        TablePages::Hugetlb => (TableMemoryKind::Hugetlb, 2 << 20),
        TablePages::Transparent => (TableMemoryKind::Thp, 2 << 20),
        TablePages::Small => (TableMemoryKind::Small, HostFacts::capture().page_size),
    };
    Ok(Backend {
        kind: BackendKind::Mock,
        label: MOCK_LABEL.to_owned(),
        groups: u64::from(config.groups),
        page_sizes: caps.page_sizes.iter().map(|p| p.bytes()).collect(),
        max_windows: caps.window_starts.iter().flatten().count() as u64,
        max_levels: u64::from(caps.max_levels),
        table_memory: TableMemory {
            kind,
            page_bytes,
            reserved_bytes: uses.iter().map(|u| u.mapped_bytes).sum(),
            used_bytes,
        },
        real_memory: Some(RealMemory {
            backing_bytes: config.backing_bytes,
            layout: if config.contiguous { Layout::Contiguous } else { Layout::Scattered },
        }),
    })
}
