// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One thread of the guest: it replays the trace on PHBs and memory of its own.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use tce_engine::papr::{Papr, Vcpu};

use super::super::checked::{Named, ShowSeen, reaches};
use super::super::machine::{Seen, hypercall, probe, rtas};
use super::super::mismatch::{Code, Given, Mismatches};
use super::super::model::Model;
use super::super::progress::{BATCH, Flow};
use super::super::script::{Call, Step, phb_of};
use super::promises::{Promises, Run};
use super::stage::{Counts, Stage};

/// What the guest's entries say of their targets.
const CONTROL: u64 = 3;

/// See the [module](self).
pub(super) struct Guest<'a> {
    stage: &'a Stage<'a>,
    papr: Arc<Papr>,
    /// Which of the threads.
    nth: usize,
    vcpus: Vec<Vcpu>,
    promises: Promises,
    /// The windows, but not what is in them.
    windows: Model,
    /// The LIOBN that was named last, and where its window is.
    last: Option<(u32, usize)>,
    /// What the call at hand stores, as it stands in the guest's memory if it is a list.
    entries: Vec<u64>,
    words: Vec<u64>,
    mismatches: Mismatches,
    counts: Counts,
    /// Calls that others have not been told of, and how many those may be.
    untold: (u64, u64),
}

impl<'a> Guest<'a> {
    pub(super) fn new(stage: &'a Stage<'a>, papr: Arc<Papr>, nth: usize) -> Self {
        let handles = usize::from(stage.script.vcpus);
        Self {
            stage,
            nth,
            vcpus: (0..handles).map(|_| papr.vcpu()).collect(),
            papr,
            promises: stage.promises(nth),
            windows: Model::new(stage.script, tce_engine::papr::Compat::Arch),
            last: None,
            entries: Vec::new(),
            words: Vec::new(),
            mismatches: Mismatches::default(),
            counts: Counts::default(),
            untold: (0, 1),
        }
    }

    /// Replays the trace as long as there is something to do, then says what came of it.
    pub(super) fn run(mut self) -> (Counts, Mismatches) {
        while self.stage.takes_turn() && self.turn().is_continue() {
            self.counts.loops += 1;
        }
        self.counts.calls += self.untold.0;
        self.counts.pages = self.promises.pages;
        (self.counts, self.mismatches)
    }

    /// Once through the trace, a look at all that it has left, and a reset.
    fn turn(&mut self) -> Flow {
        let script = self.stage.script;
        for batch in script.steps.chunks(BATCH) {
            for step in batch {
                self.step(step)?;
            }
            self.stage.progress.done(batch.len())?;
        }
        self.tables()?;
        // What handles owe is settled by this, if they have not done so.
        for phb in &script.phbs {
            let call = Call::Reset { phb: phb.phb() };
            self.window(&Step { line: script.last_line, ret: 0, vcpu: 0, call })?;
        }
        match self.vcpus.iter().map(Vcpu::owed).sum() {
            0 => ControlFlow::Continue(()),
            owed => self.mismatch(script.last_line, "pages owed after a reset", 0, owed),
        }
    }

    fn step(&mut self, step: &Step) -> Flow {
        let handle = usize::from(step.vcpu);
        match step.call {
            Call::Create { .. } | Call::Remove { .. } | Call::Reset { .. } => self.window(step)?,
            Call::Xlate { liobn, ioba, value } => {
                let seen = self.probe(liobn, ioba);
                let value = self.own(value, 0);
                self.counts.xlates += 1;
                if seen != Some(Ok(Seen { value, offset_kept: true })) {
                    let expected = format_args!("{value:#x}");
                    return self.mismatch(step.line, Named(&step.call), expected, ShowSeen(seen));
                }
            }
            Call::Submit => {
                let _ = self.vcpus[handle].submit();
                self.promises.submitted(handle);
            }
            call => {
                let call = self.ours(&call, step.ret);
                self.hypercall(step, &call)?;
                self.keep_pace()?;
            }
        }
        ControlFlow::Continue(())
    }

    fn hypercall(&mut self, step: &Step, call: &Call) -> Flow {
        let handle = usize::from(step.vcpu);
        // A call that is refused changes nothing, and no device may notice it.
        let at = if step.ret == 0 { self.stores(&step.call) } else { None };
        if let Some(at) = at {
            self.promises.begin(at, &self.entries, call.kind().map_or("", |kind| kind.name()));
        }
        let vcpu = &mut self.vcpus[handle];
        let done = hypercall(vcpu, call, &self.words);
        let owed = vcpu.owed();
        match at {
            Some(at) => self.promises.end(handle, at, &self.entries, owed),
            None => self.promises.look(handle, owed),
        }
        if done.code != step.ret {
            let expected = format_args!("ret {}", Code(step.ret));
            return self.mismatch(step.line, Named(call), expected, Code(done.code));
        }
        if let Call::Get { value, .. } = *call
            && step.ret == 0
            && done.value != value
        {
            let (expected, got) = (format_args!("{value:#x}"), format_args!("{:#x}", done.value));
            return self.mismatch(step.line, Named(call), expected, got);
        }
        ControlFlow::Continue(())
    }

    fn window(&mut self, step: &Step) -> Flow {
        let call = self.ours(&step.call, 0);
        let gone: Vec<usize> = match step.call {
            _ if step.ret != 0 => Vec::new(),
            Call::Remove { liobn } => self.seat(liobn).into_iter().collect(),
            Call::Reset { phb } => {
                let all = self.windows.windows.keys().filter(|liobn| phb_of(**liobn) == phb);
                let all: Vec<_> = all.copied().collect();
                all.into_iter().filter_map(|liobn| self.seat(liobn)).collect()
            }
            _ => Vec::new(),
        };
        gone.iter().for_each(|seat| self.promises.begin_removal(*seat));
        let (status, given) = rtas(&self.papr, &call);
        gone.iter().for_each(|seat| self.promises.end_removal(*seat));
        for (handle, vcpu) in self.vcpus.iter().enumerate() {
            self.promises.look(handle, vcpu.owed());
        }
        let expected = match call {
            Call::Create { given, .. } => given,
            _ => None,
        };
        if (status, given) != (step.ret, expected) {
            let (expected, got) = (Given(step.ret, expected), Given(status, given));
            return self.mismatch(step.line, Named(&call), expected, got);
        }
        self.windows.apply(step, self.stage.script);
        self.last = None;
        ControlFlow::Continue(())
    }

    /// Lets devices have their turns, and ends when all have to.
    fn keep_pace(&mut self) -> Flow {
        self.untold.0 += 1;
        if self.untold.0 < self.untold.1 {
            return ControlFlow::Continue(());
        }
        let (stage, told) = (self.stage, self.untold.0);
        self.counts.calls += told;
        let calls = stage.calls.fetch_add(told, Ordering::Relaxed) + told;
        // Devices that get no turn see nothing; and where many calls come between two turns, a later kill
        // makes good for an earlier one.
        self.untold = (0, 2 << (2 * (calls / 512 % 4)));
        let due = calls * u64::from(stage.config.pace);
        while !stage.is_over() && stage.expect.accesses().0 < due {
            thread::yield_now();
        }
        if stage.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// All entries of all windows, by H_GET_TCE and as the PHB has them, and the mapped counts.
    fn tables(&mut self) -> Flow {
        let stage = self.stage;
        for (&liobn, window) in &stage.left.windows {
            let ours = self.liobn(liobn);
            for page in 0..window.entries {
                let (entry, line) = window.entry(page);
                let (entry, ioba) = (self.own(entry, 0), window.ioba(page));
                let (code, value) = self.papr.get_tce(u64::from(ours), ioba);
                let seen = self.probe(liobn, ioba);
                if (code.0, value) != (0, entry) {
                    let what = format_args!("H_GET_TCE {ours:#x} {ioba:#x} after the trace");
                    let got = format_args!("{value:#x}, ret {}", Code(code.0));
                    return self.mismatch(line, what, format_args!("{entry:#x}"), got);
                }
                if !reaches(seen, entry, window.shift) {
                    let what = format_args!("PHB at {ours:#x} {ioba:#x} after the trace");
                    let expected = format_args!("the entry {entry:#x}");
                    return self.mismatch(line, what, expected, ShowSeen(seen));
                }
            }
            self.counts.entries += window.entries;
        }
        let phbs = stage.script.phbs.iter().map(|phb| phb.phb());
        // Pages that are held back still count.
        let held_back = self.vcpus.iter().map(Vcpu::held_back).sum::<u64>();
        let expected = phbs.clone().map(|phb| stage.left.live(phb)).sum::<u64>() + held_back;
        let regions = phbs.filter_map(|phb| {
            let buid = u64::from(self.liobn(phb));
            self.papr.with_container(buid, |container| container.regions())
        });
        let got = regions.flatten().map(|region| region.mapped).sum::<u64>();
        if got != expected {
            let what = "mapped counts after the trace";
            return self.mismatch(stage.script.last_line, what, expected, got);
        }
        if stage.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Fills in the entries that a call stores, and says where; `None` if it stores nothing.
    fn stores(&mut self, call: &Call) -> Option<Run> {
        self.entries.clear();
        let (liobn, ioba) = match *call {
            Call::Put { liobn, ioba, tce } => {
                self.entries.push(self.own(tce, 0));
                (liobn, ioba)
            }
            Call::Indirect { liobn, ioba, .. } => {
                self.entries.extend(self.words.iter().map(|word| u64::from_be(*word)));
                (liobn, ioba)
            }
            Call::Stuff { liobn, ioba, value, count } => {
                let value = self.own(value, 0);
                self.entries.resize(count as usize, value);
                (liobn, ioba)
            }
            _ => return None,
        };
        let seat = self.seat(liobn)?;
        let window = &self.windows.windows[&liobn];
        Some(Run { seat, first: (ioba - window.start) >> window.shift })
    }

    /// The call as it is for this thread, and its list if it has one.
    fn ours(&mut self, call: &Call, ret: i64) -> Call {
        let script = self.stage.script;
        match *call {
            Call::Put { liobn, ioba, tce } => {
                Call::Put { liobn: self.liobn(liobn), ioba, tce: self.own(tce, ret) }
            }
            Call::Indirect { liobn, ioba, start, end } => {
                let mut words = std::mem::take(&mut self.words);
                words.clear();
                words.extend(script.values(start, end).map(|value| self.own(value, ret).to_be()));
                self.words = words;
                Call::Indirect { liobn: self.liobn(liobn), ioba, start: 0, end: end - start }
            }
            Call::Stuff { liobn, ioba, value, count } => {
                Call::Stuff { liobn: self.liobn(liobn), ioba, value: self.own(value, ret), count }
            }
            Call::Get { liobn, ioba, value } => {
                Call::Get { liobn: self.liobn(liobn), ioba, value: self.own(value, 0) }
            }
            Call::Create { phb, page_shift, entries, given } => Call::Create {
                phb: self.liobn(phb),
                page_shift,
                entries,
                given: given.map(|(liobn, ioba)| (self.liobn(liobn), ioba)),
            },
            Call::Remove { liobn } => Call::Remove { liobn: self.liobn(liobn) },
            Call::Reset { phb } => Call::Reset { phb: self.liobn(phb) },
            Call::Xlate { .. } | Call::Submit => *call,
        }
    }

    fn liobn(&self, of_trace: u32) -> u32 {
        self.stage.liobn(self.nth, of_trace)
    }

    /// An entry of this thread: its targets are in memory of its own. One that was refused is beyond all
    /// memory, as it may have been.
    fn own(&self, entry: u64, ret: i64) -> u64 {
        let shift = if ret == 0 { self.nth as u64 * self.stage.ram } else { self.stage.all_ram() };
        if entry & CONTROL == 0 { entry } else { entry.wrapping_add(shift) }
    }

    /// Where the window of a LIOBN of the trace is.
    fn seat(&mut self, liobn: u32) -> Option<usize> {
        if let Some((_, seat)) = self.last.filter(|(last, _)| *last == liobn) {
            return Some(seat);
        }
        let window = self.windows.windows.get(&liobn)?;
        let seat = self.stage.seat(phb_of(liobn), window)?;
        self.last = Some((liobn, seat));
        Some(seat)
    }

    fn probe(
        &self,
        liobn: u32,
        ioba: u64,
    ) -> Option<Result<Seen, tce_engine::backend::mock::Fault>> {
        let pe = self.stage.pe(self.nth, phb_of(liobn))?;
        Some(probe(&self.stage.mock, pe, ioba))
    }

    /// Notes an answer that is wrong. Nobody goes on after that: what devices must find is unknown.
    fn mismatch(
        &mut self,
        line: u64,
        what: impl std::fmt::Display,
        expected: impl std::fmt::Display,
        got: impl std::fmt::Display,
    ) -> Flow {
        self.mismatches.add(|| self.stage.script.at(line), what, expected, got);
        self.stage.end();
        ControlFlow::Break(())
    }
}
