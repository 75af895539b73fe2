// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench soak`: random calls of the engine's whole interface beside a model with plain maps, or random
//! hypercalls of a hostile guest. Nothing is judged by the clock.

mod api;
mod call;
mod draw;
mod drift;
mod guest;
mod machine;
mod model;
mod report;
mod shrink;
#[cfg(test)]
mod tests;
mod world;

use std::io::Write;
use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use serde::Serialize;
use tce_engine::kill::KillPolicy;

pub use machine::Machine;

use self::api::{Counts, Difference, Episode};
use self::drift::{Course, Drift, Took};
use self::guest::Guest;
#[doc(hidden)]
pub use self::guest::fuzz::hypercall;
use super::{Status, bar, present};
use crate::cli::SoakConfig;
use crate::host::HostFacts;
use crate::interrupt::interrupted;
use crate::policy::Policy;
use crate::result::{MOCK_LABEL, Run, Tool};
use crate::run::lists::Random;
use crate::style::Style;

/// The document's schema.
const SCHEMA: &str = "tce-bench.soak/1";
/// Calls of a thread on one machine; then there is another.
const EPISODE: u64 = 1 << 16;
/// Of a hundred calls so many may be refused.
const MOST_REFUSED: u64 = 20;
/// From so many calls on the share of refused ones means something.
const ENOUGH: u64 = 20_000;

/// Everything that was found. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    run: Run,
    host: HostFacts,
    label: &'static str,
    config: Settings,
    rows: Vec<Row>,
    /// The most memory that the process has had, in bytes, if the system says.
    peak_rss_bytes: Option<u64>,
    /// Nothing was not as it has to be, in any row, and the mix was what it is to be. False if a signal ended
    /// it.
    verified: bool,
}

#[derive(Debug, Serialize)]
struct Settings {
    /// Hypercalls of a hostile guest in place of calls of the interface.
    guest: bool,
    operations: u64,
    threads: Vec<u32>,
    policies: Vec<String>,
    machines: Vec<&'static str>,
}

/// One policy with one number of threads. Numbers are of all threads together.
#[derive(Debug, Serialize)]
struct Row {
    /// Whose containers: own, of each thread; shared, by all; guest, those behind a guest's PHBs.
    containers: &'static str,
    policy: String,
    threads: u32,
    /// Machines that came and went.
    episodes: u64,
    calls: u64,
    refused: u64,
    /// Entries compared, as the PHB has them.
    entries: u64,
    /// Times that everything was looked at.
    audits: u64,
    wall_s: f64,
    /// Of the maps and unmaps, or hypercalls, that were done; none of too few machines.
    p50_drift: Option<Drift>,
    /// The first thing that was wrong.
    difference: Option<Found>,
    /// What only hypercalls have.
    guest: Option<guest::Bounds>,
    verified: bool,
}

/// What was wrong, and how to have it again.
#[derive(Debug, Serialize)]
struct Found {
    machine: &'static str,
    seed: u64,
    /// From 1.
    call_number: u64,
    call: Option<String>,
    what: String,
    expected: String,
    got: String,
    /// The command that makes the same calls, if one thread's decide.
    again: Option<String>,
    /// Few calls that lead to it, one after the other, on a machine with nothing on it.
    least_calls: Vec<String>,
}

/// Makes calls and writes what was found.
///
/// # Errors
/// One line: a result that cannot be written.
pub fn soak(config: &SoakConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let (started, begin) = (SystemTime::now(), Instant::now());
    let mut doc = Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(started, argv, config.label.clone(), config.seed),
        host: HostFacts::capture(),
        label: MOCK_LABEL,
        config: config.into(),
        rows: Vec::new(),
        peak_rss_bytes: None,
        verified: false,
    };
    let plans = plans(config);
    let progress = bar(config.operations, config.quiet);
    for (nth, plan) in plans.iter().enumerate() {
        let row = row(config, plan, nth as u64, plans.len() as u64, &progress);
        complain(&row);
        let over = row.difference.is_some() || interrupted();
        doc.rows.push(row);
        if over {
            break;
        }
    }
    progress.finish_and_clear();
    doc.run.complete = !interrupted();
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    doc.peak_rss_bytes = guest::memory("VmHWM:");
    doc.verified = doc.run.complete && doc.rows.iter().all(|row| row.verified);
    present(config.quiet, config.json.as_ref(), &doc, || report::table(&doc, Style::detect()))?;
    Ok(Status::of(
        doc.run.complete || doc.rows.iter().any(|r| r.difference.is_some()),
        Some(doc.verified),
    ))
}

impl From<&SoakConfig> for Settings {
    fn from(config: &SoakConfig) -> Self {
        Self {
            guest: config.guest,
            operations: config.operations,
            threads: config.threads.clone(),
            policies: config.policies.iter().map(Policy::to_string).collect(),
            machines: config.machines.iter().map(|machine| machine.name).collect(),
        }
    }
}

/// What a row is of.
struct Plan {
    policy: Policy,
    threads: u32,
    containers: &'static str,
    machines: Vec<Machine>,
}

fn plans(config: &SoakConfig) -> Vec<Plan> {
    let mut plans = Vec::new();
    for &policy in &config.policies {
        for &threads in &config.threads {
            let machines = config.machines.iter().copied().filter(|m| m.takes(threads));
            let machines: Vec<_> = machines.collect();
            let of: &[_] = match (config.guest, threads) {
                (true, _) => &["guest"],
                (false, 1) => &["own"],
                (false, _) => &["own", "shared"],
            };
            let plan =
                |containers| Plan { policy, threads, containers, machines: machines.clone() };
            plans.extend(of.iter().copied().map(plan));
        }
    }
    plans
}

/// The seed of a thread; that of the first one is the user's.
fn seed_of(seed: u64, row: u64, episode: u64, thread: u32) -> u64 {
    match (row << 48) + (episode << 8) + u64::from(thread) {
        0 => seed,
        stream => Random::new(Random::new(seed).next() ^ stream).next(),
    }
}

fn row(
    config: &SoakConfig,
    plan: &Plan,
    nth: u64,
    rows: u64,
    progress: &indicatif::ProgressBar,
) -> Row {
    let Plan { policy, threads, containers, .. } = *plan;
    let begin = Instant::now();
    let mut course = Course::default();
    let mut left = config.operations / rows + u64::from(nth < config.operations % rows);
    let mut row = Row {
        containers,
        policy: policy.to_string(),
        threads,
        episodes: 0,
        calls: 0,
        refused: 0,
        entries: 0,
        audits: 0,
        wall_s: 0.0,
        p50_drift: None,
        difference: None,
        guest: None,
        verified: false,
    };
    progress.set_message(format!("{policy} · {} · {containers}", report::threads(threads)));
    while left > 0 && row.difference.is_none() && !interrupted() {
        let machine = plan.machines[((nth + row.episodes) % plan.machines.len() as u64) as usize];
        let calls = left.min(EPISODE * u64::from(threads));
        let dealt = |thread: u32| {
            let more = u64::from(u64::from(thread) < calls % u64::from(threads));
            let seed = seed_of(config.seed, nth, row.episodes, thread);
            (seed, calls / u64::from(threads) + more)
        };
        let episode = Episode {
            machine,
            policy: KillPolicy::from(policy),
            shared: containers == "shared",
            threads: (0..threads).map(dealt).collect(),
            mistake: None,
        };
        let mut took = Took::new();
        let (counts, difference) = if config.guest {
            let guest = Guest::new(&episode, row.episodes);
            let (counts, bounds, difference) = guest.run(&mut took);
            row.guest = Some(row.guest.map_or(bounds, |before| before.and(&bounds)));
            (counts, difference)
        } else {
            api::run(&episode, &mut took)
        };
        course.push(machine.name, &took);
        row.add(counts);
        left -= calls;
        progress.inc(calls);
        row.difference = difference.map(|found| Found::new(config, &episode, policy, found));
    }
    row.wall_s = begin.elapsed().as_secs_f64();
    row.p50_drift = course.drift();
    row.verified = row.difference.is_none() && row.mix_is_right() && left == 0;
    row
}

impl Row {
    fn add(&mut self, counts: Counts) {
        self.episodes += 1;
        self.calls += counts.calls;
        self.refused += counts.refused;
        self.entries += counts.entries;
        self.audits += counts.audits;
    }

    /// Few enough calls are refused for the others to be many. A hostile guest's are refused as they come.
    fn mix_is_right(&self) -> bool {
        self.guest.is_some()
            || self.calls < ENOUGH
            || self.refused * 100 <= self.calls * MOST_REFUSED
    }
}

impl Found {
    fn new(config: &SoakConfig, episode: &Episode, policy: Policy, found: Difference) -> Self {
        let Difference { seed, number, call, wrong } = found;
        let machine = episode.machine.name;
        let by_itself = !episode.shared && (!config.guest || episode.threads.len() == 1);
        let again = || {
            let guest = if config.guest { " --guest" } else { "" };
            format!(
                "tce-bench soak{guest} --operations {number} --seed {seed:#x} --threads 1 --policy {policy} \
                 --machine {machine}"
            )
        };
        let shrinks = by_itself && !config.guest && wrong.what != "panic";
        let least =
            if shrinks { shrink::shrink(episode, (seed, number), &wrong) } else { Vec::new() };
        // What the thread's calls do not lead to by themselves took others to meet them.
        let by_itself = by_itself && (episode.threads.len() == 1 || !shrinks || !least.is_empty());
        Self {
            machine,
            seed,
            call_number: number,
            call: call.map(|call| format!("{call:x?}")),
            what: wrong.what,
            expected: wrong.expected,
            got: wrong.got,
            again: by_itself.then(again),
            least_calls: least.iter().map(|call| format!("{call:x?}")).collect(),
        }
    }
}

/// Says on stderr what was wrong.
fn complain(row: &Row) {
    let mut text = String::new();
    let under = format!("{}, {}, {}", row.policy, report::threads(row.threads), row.containers);
    if let Some(found) = &row.difference {
        let call = found.call.as_deref().unwrap_or("after the last call");
        text += &format!(
            "error: {under}, {}: call {} of seed {:#x}: {call}: {}: expected {}, got {}\n",
            found.machine, found.call_number, found.seed, found.what, found.expected, found.got
        );
        match &found.again {
            Some(again) => text += &format!("again: {again}\n"),
            None => text += "again: the same command; threads may not meet in the same way\n",
        }
        found.least_calls.iter().for_each(|call| text += &format!("  {call}\n"));
    } else if !row.mix_is_right() {
        text += &format!(
            "error: {under}: {} of {} calls were refused; accepted: {MOST_REFUSED} % at most\n",
            row.refused, row.calls
        );
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}
