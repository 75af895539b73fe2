// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The checked pass: every answer, every translation and, at the end, every entry is compared.

use std::fmt;
use std::ops::ControlFlow;

use tce_engine::backend::mock::Fault;

use super::books::{Books, Sum};
use super::handles::{HeldBack, Watch};
use super::live::Live;
use super::machine::{Look, Machine, Seen, Setup};
use super::mismatch::{Code, Given, Mismatches};
use super::model::Model;
use super::progress::{BATCH, Flow, Progress};
use super::script::{Call, Script, Step, When};
use crate::trace::TraceError;

/// What the pass found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) mismatches: Mismatches,
    /// `xlate` lines compared.
    pub(super) xlates: u64,
    /// Entries compared by H_GET_TCE after the trace; the PHB's walker saw the same ones.
    pub(super) entries: u64,
    pub(super) books: Books,
    pub(super) held: HeldBack,
    /// False if a signal ended the pass.
    pub(super) complete: bool,
}

/// Replays and compares everything.
///
/// # Errors
/// If the machine cannot be set up.
pub(super) fn checked(
    script: &Script,
    setup: &Setup,
    ram: u64,
    progress: &Progress,
) -> Result<Checked, TraceError> {
    // Pages grow old by the clock of the trace here, so that the same calls take the same kills.
    let ageless = Setup { policy: setup.policy.ageless(), ..*setup };
    let machine = Machine::new(script, &ageless, ram)?;
    let mut pass = Pass {
        script,
        machine,
        watch: Watch::new(script.vcpus, setup.policy.max_age()),
        live: (setup.look == Look::Kills).then(|| Live::new(script, setup.host_page)),
        model: Model::new(script, setup.compat),
        sum: Sum::default(),
        out: Checked::default(),
    };
    pass.windows();
    pass.out.complete = pass.run(progress).is_continue() && pass.entries(progress).is_continue();
    if pass.out.complete {
        pass.counts();
    }
    Ok(pass.close())
}

struct Pass<'a> {
    script: &'a Script,
    machine: Machine,
    watch: Watch,
    /// Only if kills are looked at.
    live: Option<Live>,
    model: Model,
    sum: Sum,
    out: Checked,
}

impl Pass<'_> {
    fn run(&mut self, progress: &Progress) -> Flow {
        let script = self.script;
        for (batch, when) in script.steps.chunks(BATCH).zip(script.when.chunks(BATCH)) {
            for (step, When { t_ns, .. }) in batch.iter().zip(when) {
                // As if somebody's timer looked after handles that are idle.
                while let Some((vcpu, due)) = self.watch.too_old(*t_ns) {
                    self.sum.kills += self.machine.submit(vcpu);
                    self.watch.see(&self.machine, due);
                }
                self.step(step);
                self.watch.see(&self.machine, *t_ns);
                self.model.apply(step, script);
                self.refill(step);
            }
            progress.done(batch.len())?;
        }
        self.sum.kills += self.machine.submit_all();
        self.watch.see(&self.machine, script.when.last().map_or(0, |when| when.t_ns));
        self.out.held = self.watch.found();
        ControlFlow::Continue(())
    }

    fn step(&mut self, step: &Step) {
        match step.call {
            Call::Xlate { liobn, ioba, value } => self.xlate(step.line, liobn, ioba, value),
            Call::Create { .. } | Call::Remove { .. } | Call::Reset { .. } => self.window(step),
            call => {
                let outcome = self.machine.hypercall(step, &self.script.words);
                self.sum.add(&call, &outcome.receipt);
                if outcome.code != step.ret {
                    let (expected, got) = (Code(step.ret), Code(outcome.code));
                    let (expected, got) = (format_args!("ret {expected}"), got);
                    self.mismatch(step.line, Named(&call), expected, got);
                } else if let Call::Get { value, .. } = call
                    && step.ret == 0
                    && outcome.value != value
                {
                    let (expected, got) =
                        (format_args!("{value:#x}"), format_args!("{:#x}", outcome.value));
                    self.mismatch(step.line, Named(&call), expected, got);
                }
            }
        }
    }

    /// Counts what kills of whole PEs have thrown away in a step, and before it.
    fn refill(&mut self, step: &Step) {
        let Some(live) = &mut self.live else { return };
        live.apply(step, self.script);
        for nth in self.machine.look() {
            let levels = self.script.phbs.get(nth).map_or(0, |phb| live.refills(phb.phb()));
            self.machine.add_refills(levels);
        }
    }

    fn window(&mut self, step: &Step) {
        let (status, given) = self.machine.rtas(&step.call);
        let expected = match step.call {
            Call::Create { given, .. } => given,
            _ => None,
        };
        if (status, given) != (step.ret, expected) {
            let (expected, got) = (Given(step.ret, expected), Given(status, given));
            self.mismatch(step.line, Named(&step.call), expected, got);
        }
    }

    fn xlate(&mut self, line: u64, liobn: u32, ioba: u64, value: u64) {
        self.out.xlates += 1;
        let seen = self.machine.probe(self.script, liobn, ioba);
        if seen != Some(Ok(Seen { value, offset_kept: true })) {
            let call = Call::Xlate { liobn, ioba, value };
            self.mismatch(line, Named(&call), format_args!("{value:#x}"), ShowSeen(seen));
        }
    }

    /// The windows there are must be those of the model.
    fn windows(&mut self) {
        let windows = self.machine.papr.windows();
        let mut wrong = Vec::new();
        for (liobn, window) in &self.model.windows {
            let got = windows.iter().find(|(l, ..)| l.0 == *liobn).map(|w| (w.1.0, w.2));
            if got != Some((window.start, window.entries)) {
                wrong.push((window.line, *liobn, Some((window.start, window.entries)), got));
            }
        }
        for (liobn, start, entries) in &windows {
            if !self.model.windows.contains_key(&liobn.0) {
                let line = self.script.last_line;
                wrong.push((line, liobn.0, None, Some((start.0, *entries))));
            }
        }
        for (line, liobn, expected, got) in wrong {
            let show = |window: Option<(u64, u64)>| {
                window.map_or("none".to_string(), |(at, n)| format!("{n} TCEs at {at:#x}"))
            };
            let what = format_args!("window {liobn:#x}");
            self.mismatch(line, what, show(expected), show(got));
        }
    }

    /// H_GET_TCE of every entry of every window, and what the PHB makes of the same address.
    fn entries(&mut self, progress: &Progress) -> Flow {
        self.windows();
        let Self { script, machine, model, out, .. } = self;
        for (&liobn, window) in &model.windows {
            let mut page = 0;
            while page < window.entries {
                let end = window.entries.min(page + BATCH as u64);
                for page in page..end {
                    let (expected, line) = window.entry(page);
                    let ioba = window.ioba(page);
                    let (code, value) = machine.papr.get_tce(u64::from(liobn), ioba);
                    if (code.0, value) != (0, expected) {
                        let what = format_args!("H_GET_TCE {liobn:#x} {ioba:#x} after the trace");
                        let got = format_args!("{value:#x}, ret {}", Code(code.0));
                        let expected = format_args!("{expected:#x}");
                        out.mismatches.add(|| script.at(line), what, expected, got);
                    }
                    let seen = machine.probe(script, liobn, ioba);
                    if !reaches(seen, expected, window.shift) {
                        let what = format_args!("PHB at {liobn:#x} {ioba:#x} after the trace");
                        let expected = format_args!("the entry {expected:#x}");
                        out.mismatches.add(|| script.at(line), what, expected, ShowSeen(seen));
                    }
                }
                out.entries += end - page;
                progress.done((end - page) as usize)?;
                page = end;
            }
        }
        ControlFlow::Continue(())
    }

    /// Mapped counts and kills must be those that the calls add up to.
    fn counts(&mut self) {
        let line = self.script.last_line;
        for phb in &self.script.phbs {
            let expected = self.model.live(phb.phb());
            let regions = self.machine.papr.with_container(u64::from(phb.phb()), |c| c.regions());
            let got = regions.into_iter().flatten().map(|region| region.mapped).sum::<u64>();
            if got != expected {
                let what = format_args!("mapped count of PHB {:#x} after the trace", phb.phb());
                self.mismatch(line, what, expected, got);
            }
        }
        let expected = self.sum.kills.issued;
        let got = self.machine.mock.register_stores() - self.machine.setup_stores;
        if got != expected {
            let what = "stores to kill registers after the trace";
            self.mismatch(line, what, format_args!("{expected} as the receipts say"), got);
        }
    }

    fn close(self) -> Checked {
        let Self { script, machine, sum, mut out, .. } = self;
        out.books = Books::close(machine, script, &sum);
        if !out.books.nothing_left() {
            let (pinned, tables, windows) = out.books.leftovers;
            let charged = out.books.charged;
            let got = format!(
                "{pinned} pinned ranges, {tables} tables, {windows} windows, {charged} pages charged"
            );
            out.mismatches.add(|| script.at(script.last_line), "after closing", "nothing", got);
        }
        out
    }

    fn mismatch(
        &mut self,
        line: u64,
        what: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) {
        self.out.mismatches.add(|| self.script.at(line), what, expected, got);
    }
}

/// True if the PHB's walk gives what an entry of this value means.
pub(super) fn reaches(seen: Option<Result<Seen, Fault>>, entry: u64, shift: u32) -> bool {
    let perm = entry & 3;
    match seen {
        Some(Ok(seen)) => {
            perm != 0 && seen == Seen { value: entry >> shift << shift | perm, offset_kept: true }
        }
        Some(Err(Fault::Empty { value })) => perm == 0 && value == entry,
        // A level that nobody needed.
        Some(Err(Fault::NoLevel { .. })) => entry == 0,
        Some(Err(_)) | None => false,
    }
}

/// A translation in words.
pub(super) struct ShowSeen(pub(super) Option<Result<Seen, Fault>>);

impl fmt::Display for ShowSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("no PHB of that LIOBN"),
            Some(Err(fault)) => write!(f, "{fault:?}"),
            Some(Ok(seen)) if seen.offset_kept => write!(f, "{:#x}", seen.value),
            Some(Ok(seen)) => write!(f, "{:#x} with another offset in the page", seen.value),
        }
    }
}

/// A call as its line begins.
pub(super) struct Named<'a>(pub(super) &'a Call);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            Call::Put { liobn, ioba, tce } => write!(f, "put {liobn:#x} {ioba:#x} {tce:#x}"),
            Call::Indirect { liobn, ioba, start, end } => {
                write!(f, "indirect {liobn:#x} {ioba:#x} of {}", end - start)
            }
            Call::Stuff { liobn, ioba, value, count } => {
                write!(f, "stuff {liobn:#x} {ioba:#x} {value:#x} of {count}")
            }
            Call::Get { liobn, ioba, .. } => write!(f, "get {liobn:#x} {ioba:#x}"),
            Call::Create { page_shift, entries, .. } => {
                write!(f, "window-create of {entries} pages of 2^{page_shift}")
            }
            Call::Remove { liobn } => write!(f, "window-remove {liobn:#x}"),
            Call::Reset { phb } => write!(f, "window-reset {phb:#x}"),
            Call::Xlate { liobn, ioba, .. } => write!(f, "xlate {liobn:#x} {ioba:#x}"),
            Call::Submit => f.write_str("the end of a batch"),
        }
    }
}
