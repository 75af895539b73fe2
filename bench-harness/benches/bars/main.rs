// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo bench --bench bars`: every bar that the engine is held to, with what was reached. Three
//! runs, of which the worst counts; in each, an operation and what it is compared with are timed in
//! turn, and their minima are compared. METHODOLOGY.md says how each number is taken.
//!
//! The exit code is 1 if a bar was missed.

mod bulk;
mod clear;
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_arch = "x86_64")]
mod counts;
mod line;
mod lists;
mod parts;
mod replay;
mod single;
mod strict;

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use tce_engine::Tier;

use common::allocs::Counting;
use common::args::Args;
use common::report::Report;
use common::samples::Samples;
use line::{Judged, Line};

/// What a section needs to know.
struct Setup {
    /// Repetitions in each run: so many, and on for so long.
    reps: usize,
    long: Duration,
    /// The engine's tier.
    tier: &'static Tier,
}

impl Setup {
    /// Repetitions that come first and are not counted: they bring pages, caches and branch
    /// predictors in.
    const WARM_UP: usize = 5;

    /// Times what `rep`, which is told how many were before, times in each repetition. Where one
    /// takes microseconds, 200 are over before a neighbour of this machine pauses: so they go on.
    fn repeat(&self, mut rep: impl FnMut(&mut Samples, usize)) -> Samples {
        let mut samples = Samples::new();
        for nth in 0..Self::WARM_UP {
            rep(&mut samples, nth);
        }
        samples.restart();
        let begin = Instant::now();
        for nth in Self::WARM_UP.. {
            if nth >= Self::WARM_UP + self.reps && begin.elapsed() >= self.long {
                break;
            }
            rep(&mut samples, nth);
        }
        samples
    }
}

#[global_allocator]
static COUNTING: Counting = Counting::new();

type Section = (&'static str, fn(&Setup) -> Vec<Line>);

const SECTIONS: &[Section] = &[
    ("bulk", bulk::scattered),
    ("bulk, peers", bulk::against_peers),
    ("bulk, other backing", bulk::other_backing),
    ("overlap", bulk::overlap),
    ("exchange", bulk::exchange),
    ("lists", lists::kernel),
    ("lists, papr", lists::papr),
    ("clear", clear::clear),
    ("several cores", clear::cores),
    ("one page", single::pair),
    ("replay", replay::net_rx),
    ("accounting", parts::accounting),
    ("look-up", parts::lookup),
    ("kill coalescing", parts::coalescing),
    ("strict kills, requests", strict::requests),
    ("strict kills, one page", strict::one_page),
    #[cfg(target_arch = "x86_64")]
    ("counters", counts::counts),
];

fn main() -> ExitCode {
    #[cfg(target_arch = "x86_64")]
    common::stepper::child(common::counted::child);
    let args = Args::parse();
    let (reps, long, runs) =
        if args.quick { (8, Duration::ZERO, 1) } else { (200, Duration::from_millis(500), 3) };
    let setup = Setup { reps, long, tier: Tier::best() };
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| name.contains(only));
    let sections: Vec<_> = SECTIONS.iter().filter(|(name, _)| wanted(name)).collect();
    if sections.is_empty() {
        let names: Vec<_> = SECTIONS.iter().map(|(name, _)| *name).collect();
        eprintln!("error: --only names no section; accepted: a part of {}", names.join("; "));
        return ExitCode::from(2);
    }
    let mut report = Report::new("bars", &args);
    let mut judged: Vec<Vec<Judged>> = sections.iter().map(|_| Vec::new()).collect();
    for run in 0..runs {
        for ((name, section), judged) in sections.iter().zip(&mut judged) {
            eprintln!("run {} of {runs}: {name}", run + 1);
            for line in section(&setup) {
                match judged.iter_mut().find(|j| j.what() == line.what) {
                    Some(judged) => judged.add(line),
                    None => judged.push(Judged::new(line)),
                }
            }
        }
    }
    let _ = writeln!(
        report.text,
        "{runs} runs of at least {reps} interleaved repetitions and {} ms, the worst run counts; \
         the engine's tier is {}, the limits are {}'s store and copy loops\n",
        setup.long.as_millis(),
        setup.tier.name(),
        common::limit::reference().name()
    );
    for line in judged.iter().flatten() {
        let _ = writeln!(report.text, "{line}");
    }
    let bars = judged.iter().flatten().filter(|j| j.judged());
    let (all, met) = bars.fold((0, 0), |(all, met), j| (all + 1, met + u32::from(j.passed())));
    let _ = writeln!(report.text, "\n{met} of {all} bars met");
    // A smoke test proves nothing about bars.
    report.finish(&args, met == all || args.quick)
}
