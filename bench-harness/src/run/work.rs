// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each phase does on one thread: make its mapped state, and take it back.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use tce_engine::container::{Mode, Receipt};
use tce_engine::kill::KillCount;
use tce_engine::tce::Perm;

use super::pace::Paced;
use super::rig::{Rig, Windowed};
use crate::interrupt::interrupted;
use crate::mix::Operation;
use crate::recorder::Recorder;
use crate::slow;

/// Most pages in one call, so that Ctrl-C is looked at often enough even where a kernel needs
/// microseconds for each: 64 MiB of small pages.
pub const CALL_MAX: u64 = 1 << 14;

/// What the engine was asked for, and what it asked the kernel for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Maps or unmaps.
    pub requests: u64,
    /// Requests to the kernel; 0 where the engine owns the tables.
    pub ioctls: u64,
    /// Stores to kill registers; 0 where a kernel owns the tables.
    pub kills: u64,
}

impl AddAssign<&Receipt> for Io {
    fn add_assign(&mut self, done: &Receipt) {
        self.requests += done.requests;
        self.ioctls += done.ioctls;
        self.kills += done.kills.issued;
    }
}

impl AddAssign for Io {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.ioctls += other.ioctls;
        self.kills += other.kills;
    }
}

/// What calls of a third kind came to.
pub struct Measured {
    /// Its result's id.
    pub id: &'static str,
    /// What was done.
    pub op: &'static str,
    /// Times.
    pub recorder: Recorder,
    /// What the calls came to.
    pub io: Io,
}

/// What one thread measured in one phase.
#[derive(Default)]
pub struct Meters {
    /// Maps.
    pub map: Recorder,
    /// Unmaps.
    pub unmap: Recorder,
    /// What the calls behind `map` came to.
    pub map_io: Io,
    /// What the calls behind `unmap` came to.
    pub unmap_io: Io,
    /// Calls that are neither.
    pub more: Vec<Measured>,
    /// Operations of an open loop, from when they were due.
    pub response: Option<Recorder>,
    /// How the open loop went.
    pub paced: Option<Paced>,
    /// All calls, warm-up included.
    pub io: Io,
    /// Entries that the engine wrote or cleared.
    pub tces_written: u64,
    /// Kills of the engine.
    pub kills: KillCount,
    /// When timelines begin, and the length of their intervals; `None` if none are kept.
    timelines: Option<(Instant, Duration)>,
    paused: Option<Instant>,
}

impl Meters {
    /// Forgets the times of a warm-up. What was counted stays: the PHB counted it too. From now on there
    /// are timelines of intervals of this length.
    pub fn restart(&mut self, interval: Duration) {
        self.timelines = Some((Instant::now(), interval));
        (self.map, self.unmap) = (recorder(self.timelines), recorder(self.timelines));
        (self.map_io, self.unmap_io) = (Io::default(), Io::default());
        self.more.clear();
        (self.response, self.paced) = (None, None);
    }

    /// Calls `f` with each recorder, and the kills that have been issued for it.
    fn each(&mut self, mut f: impl FnMut(&mut Recorder, u64)) {
        f(&mut self.map, self.map_io.kills);
        f(&mut self.unmap, self.unmap_io.kills);
        self.more.iter_mut().for_each(|m| f(&mut m.recorder, m.io.kills));
        self.response.iter_mut().for_each(|r| f(r, 0));
    }

    /// From here on nothing is measured.
    pub(super) fn pause(&mut self) {
        self.paused = Some(Instant::now());
    }

    /// Measures again, as if no time had passed.
    pub(super) fn resume(&mut self) {
        let Some(pause) = self.paused.take().map(|at| at.elapsed()) else { return };
        self.each(|recorder, _| recorder.skip(pause));
    }

    /// Ends the timelines.
    pub(super) fn end(&mut self) {
        let now = Instant::now();
        self.each(|recorder, kills| recorder.end_timeline(now, kills));
    }

    /// Ends a round of maps, or of unmaps.
    pub(super) fn end_round(&mut self) {
        self.map.end_round();
        self.unmap.end_round();
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.map.merge(&other.map);
        self.unmap.merge(&other.unmap);
        self.map_io += other.map_io;
        self.unmap_io += other.unmap_io;
        for measured in &other.more {
            let mine = self.measured(measured.id, measured.op);
            mine.recorder.merge(&measured.recorder);
            mine.io += measured.io;
        }
        if let Some(response) = &other.response {
            self.response.get_or_insert_default().merge(response);
        }
        if let Some(paced) = &other.paced {
            self.paced.get_or_insert_default().merge(paced);
        }
        self.io += other.io;
        self.tces_written += other.tces_written;
        self.kills += other.kills;
    }

    /// Adds what a map did.
    pub(super) fn mapped(&mut self, done: &Receipt) {
        self.map_io += done;
        self.count(done);
    }

    /// Adds what an unmap did.
    pub(super) fn unmapped(&mut self, done: &Receipt) {
        self.unmap_io += done;
        self.count(done);
    }

    /// Times one map and adds what it did.
    #[inline]
    pub(super) fn time_map<E: Into<anyhow::Error>>(
        &mut self,
        map: impl FnOnce() -> Result<Receipt, E>,
    ) -> anyhow::Result<Receipt> {
        let at = Instant::now();
        let done = map().map_err(Into::into)?;
        let took = ns(at);
        self.map.at(at, self.map_io.kills);
        self.map.record(took, done.tces);
        self.mapped(&done);
        Ok(done)
    }

    /// Times one unmap and adds what it did.
    #[inline]
    pub(super) fn time_unmap<E: Into<anyhow::Error>>(
        &mut self,
        unmap: impl FnOnce() -> Result<Receipt, E>,
    ) -> anyhow::Result<Receipt> {
        let at = Instant::now();
        let done = unmap().map_err(Into::into)?;
        let took = ns(at);
        self.unmap.at(at, self.unmap_io.kills);
        self.unmap.record(took, done.tces);
        self.unmapped(&done);
        Ok(done)
    }

    /// Those of this id.
    fn measured(&mut self, id: &'static str, op: &'static str) -> &mut Measured {
        let at = self.more.iter().position(|m| m.id == id).unwrap_or_else(|| {
            let recorder = recorder(self.timelines);
            self.more.push(Measured { id, op, recorder, io: Io::default() });
            self.more.len() - 1
        });
        &mut self.more[at]
    }

    /// Adds an operation of a mix that began at `at` and took `ns`.
    #[inline]
    pub(super) fn operation(
        &mut self,
        operation: Operation,
        (at, ns): (Instant, u64),
        done: &Receipt,
    ) {
        let (id, op) = match operation {
            Operation::Map => {
                self.map.at(at, self.map_io.kills);
                self.map.record(ns, done.tces);
                return self.mapped(done);
            }
            Operation::List => ("mix.list", "map"),
            Operation::Replace => ("mix.replace", "exchange"),
        };
        let measured = self.measured(id, op);
        measured.recorder.at(at, measured.io.kills);
        measured.recorder.record(ns, done.tces);
        measured.io += done;
        self.count(done);
    }

    /// Adds an operation that ended so long after it was due.
    #[inline]
    pub(super) fn responded(&mut self, due: Instant, ns: u64, tces: u64) {
        let timelines = self.timelines;
        let response = self.response.get_or_insert_with(|| recorder(timelines));
        response.at(due, 0);
        response.record(ns, tces);
    }

    /// Adds what the end of a batch of unmaps, or of all, took.
    pub(super) fn submitted(&mut self, kills: KillCount) {
        let done = Receipt { kills, ..Receipt::NONE };
        self.unmap_io += &done;
        self.count(&done);
    }

    /// Adds what a call did that is not measured.
    pub(super) fn count(&mut self, done: &Receipt) {
        self.io += done;
        self.tces_written += done.tces;
        self.kills += done.kills;
    }
}

/// An empty recorder, with a timeline if any are kept.
fn recorder(timelines: Option<(Instant, Duration)>) -> Recorder {
    match timelines {
        Some((begin, interval)) => Recorder::with_timeline(begin, interval),
        None => Recorder::new(),
    }
}

/// Unmaps `count` window pages from `first`, timed.
pub(super) fn unmap(
    rig: &Rig,
    container: &Windowed,
    (first, count): (u64, u64),
    meters: &mut Meters,
) -> anyhow::Result<()> {
    let (at, bytes) = (container.bus(first), count << rig.page().get());
    meters.time_unmap(|| container.unmap(at, bytes)).map(drop)
}

pub(super) fn ns(at: Instant) -> u64 {
    slow::elapsed_ns(at)
}

/// One thread's part of a phase. All threads own disjoint leaves.
pub trait Work: Send {
    /// Makes what must be there before the first round, untimed.
    ///
    /// # Errors
    /// What the engine refused.
    fn begin(&mut self, _: &mut Meters) -> anyhow::Result<()> {
        Ok(())
    }

    /// What was done so far was to warm up: now it counts.
    fn restart(&mut self) {}

    /// Makes the phase's mapped state and times the calls. Ends early, with less mapped, once the
    /// run is interrupted.
    ///
    /// # Errors
    /// What the engine refused.
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()>;

    /// Takes back what a round maps.
    ///
    /// # Errors
    /// What the engine refused.
    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()>;

    /// Takes back everything that is mapped after [`Work::map`].
    ///
    /// # Errors
    /// What the engine refused.
    fn end(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        self.unmap(meters)
    }

    /// The pages that are mapped after [`Work::map`], as ranges of window pages.
    fn mapped(&self) -> (u64, u64);

    /// Single pages that are mapped, where no stretch is: number of the container and window page, and
    /// page of the buffer.
    fn places(&self) -> Vec<((usize, u64), u64)> {
        Vec::new()
    }

    /// How many buffer pages behind its own the memory of a page lies, after [`Work::map`].
    fn shift(&self) -> u64 {
        0
    }
}

/// A thread's pages of every window.
#[derive(Clone, Copy)]
pub struct Share {
    /// First page.
    pub first: u64,
    /// Number of pages.
    pub count: u64,
}

impl Share {
    /// Calls `f` with runs of pages, first page and number. None crosses a multiple of `unit` or is
    /// longer than `most`.
    pub(super) fn runs(
        self,
        unit: u64,
        most: u64,
        mut f: impl FnMut(u64, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (mut at, end) = (self.first, self.first + self.count);
        while at < end {
            let count = (unit - at % unit).min(end - at).min(most);
            f(at, count)?;
            at += count;
        }
        Ok(())
    }

    /// The same, but no more calls once the run is interrupted.
    pub(super) fn runs_until_interrupted(
        self,
        unit: u64,
        most: u64,
        mut f: impl FnMut(u64, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.runs(unit, most, |first, n| if interrupted() { Ok(()) } else { f(first, n) })
    }

    /// First page and the one after the last.
    pub(super) fn bounds(self) -> (u64, u64) {
        (self.first, self.first + self.count)
    }
}

/// The whole share in as few calls as the buffer allows. Where a kernel has to be asked, no call is
/// of more than [`CALL_MAX`] pages.
pub struct Bulk<'a> {
    /// The machine.
    pub rig: &'a Rig,
    /// The thread's pages.
    pub share: Share,
}

/// Most pages of a call that may be long.
pub(super) fn most(rig: &Rig) -> u64 {
    if rig.machine.has_kernel() { CALL_MAX } else { u64::MAX }
}

impl Work for Bulk<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let (rig, page) = (self.rig, self.rig.page());
        for container in &rig.containers {
            self.share.runs_until_interrupted(
                rig.buffer_pages(),
                most(self.rig),
                |first, count| {
                    let (memory, bytes) = (rig.buffer.page(first, page), count << page.get());
                    let (at, perm, mode) = (container.bus(first), Perm::READ_WRITE, Mode::Refuse);
                    meters.time_map(|| container.map(at, memory, bytes, perm, mode)).map(drop)
                },
            )?;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            self.share.runs(u64::MAX, most(self.rig), |first, count| {
                unmap(self.rig, container, (first, count), meters)
            })?;
        }
        Ok(())
    }

    fn mapped(&self) -> (u64, u64) {
        self.share.bounds()
    }
}
