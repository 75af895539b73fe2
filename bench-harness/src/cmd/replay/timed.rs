// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The passes that measure: throughput over the whole trace, latency call by call. Nothing is
//! compared but return codes; translations of the device are left out.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::books::{Books, Sum};
use super::machine::{Machine, Setup};
use super::mismatch::{Code, Mismatches};
use super::progress::{BATCH, Progress, go_on};
use super::script::{Call, Kind, Script, Step};
use crate::recorder::Recorder;
use crate::trace::TraceError;

/// What both passes found beside the times.
#[derive(Debug, Default)]
pub(super) struct Timed {
    pub(super) sum: Sum,
    pub(super) books: Books,
    /// False if a signal ended the pass.
    pub(super) complete: bool,
    /// Answers that were not the recorded ones, and the first with its code: a refused call is
    /// fast, so its time would flatter.
    wrong: u64,
    first_wrong: Option<(Step, i64)>,
}

impl Timed {
    #[inline]
    fn compare(&mut self, step: &Step, code: i64) {
        if code != step.ret {
            self.wrong += 1;
            self.first_wrong.get_or_insert((*step, code));
        }
    }

    /// Reports wrong answers, as one mismatch with its first line.
    pub(super) fn mismatches(&self, script: &Script, pass: &str) -> Mismatches {
        let mut found = Mismatches::default();
        if let Some((step, code)) = self.first_wrong {
            let what = format_args!("{pass} pass, first of {} wrong answers", self.wrong);
            let expected = format!("ret {}", Code(step.ret));
            found.add(|| script.at(step.line), what, expected, Code(code));
            found.count = self.wrong;
        }
        if !self.books.nothing_left() {
            let got = format!("{:?}, {} pages", self.books.leftovers, self.books.charged);
            let what = format_args!("{pass} pass, after closing");
            found.add(|| script.at(script.last_line), what, "nothing", got);
        }
        found
    }
}

/// Replays as fast as it goes, between one pair of clock readings: also the time of the window
/// calls is in it.
///
/// # Errors
/// If the machine cannot be set up.
pub(super) fn throughput(
    script: &Script,
    setup: &Setup,
    ram: u64,
    progress: &Progress,
) -> Result<(Timed, Duration), TraceError> {
    let steps = calls(script);
    let mut machine = Machine::new(script, setup, ram)?;
    let mut out = Timed::default();
    let mut sum = Sum::default();
    let mut flow = go_on();
    let start = Instant::now();
    for batch in steps.chunks(BATCH) {
        if flow.is_break() {
            break;
        }
        for step in batch {
            let code = if step.call.kind().is_some() {
                let outcome = black_box(machine.hypercall(step, &script.words));
                sum.add(&step.call, &outcome.receipt);
                outcome.code
            } else {
                machine.rtas(&step.call).0
            };
            out.compare(step, code);
        }
        // No bar here: drawing it would be measured.
        flow = go_on();
    }
    sum.kills += machine.submit_all();
    let took = start.elapsed();
    out.complete = flow.is_continue();
    out.books = Books::close(machine, script, &sum);
    out.sum = sum;
    let _ = progress.done(script.steps.len());
    Ok((out, took))
}

/// The times of each kind of call.
pub(super) type Latencies = [Recorder; Kind::ALL.len()];

/// Replays with a pair of clock readings around each hypercall.
///
/// # Errors
/// If the machine cannot be set up.
pub(super) fn latency(
    script: &Script,
    setup: &Setup,
    ram: u64,
    progress: &Progress,
) -> Result<(Timed, Latencies), TraceError> {
    let steps = calls(script);
    let mut machine = Machine::new(script, setup, ram)?;
    let mut out = Timed::default();
    let mut sum = Sum::default();
    let mut latencies: Latencies = Default::default();
    let mut flow = go_on();
    for batch in steps.chunks(BATCH) {
        if flow.is_break() {
            break;
        }
        for step in batch {
            let code = if let Some(kind) = step.call.kind() {
                let start = Instant::now();
                let outcome = black_box(machine.hypercall(step, &script.words));
                let ns = start.elapsed().as_nanos() as u64;
                latencies[kind as usize].record(ns, outcome.receipt.tces);
                sum.add(&step.call, &outcome.receipt);
                outcome.code
            } else {
                machine.rtas(&step.call).0
            };
            out.compare(step, code);
        }
        flow = progress.done(batch.len());
    }
    sum.kills += machine.submit_all();
    out.complete = flow.is_continue();
    out.books = Books::close(machine, script, &sum);
    out.sum = sum;
    Ok((out, latencies))
}

/// The steps that are calls of the guest.
fn calls(script: &Script) -> Vec<Step> {
    let called = script.steps.iter().filter(|step| !matches!(step.call, Call::Xlate { .. }));
    called.copied().collect()
}
