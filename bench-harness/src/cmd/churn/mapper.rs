// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The thread that maps and unmaps in the upper half of the window, and how it is led.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use tce_engine::container::{Container, Mapper, Mode};
use tce_engine::tce::Perm;

use crate::cmd::ground::Ground;
use crate::interrupt::interrupted;
use crate::recorder::Recorder;
use crate::run::lists::Random;

/// Most pages of a request.
const LENGTH: u64 = 4;
/// Most places in the upper half; about half of them are mapped at a time.
const CELLS: u64 = 1024;
/// Between two looks at how far the thread is.
const PAUSE: Duration = Duration::from_micros(50);

/// What goes on while the thread works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Now {
    /// The first group is the only member.
    Alone,
    /// The second one is a member too.
    Member,
    /// It joins.
    Attach,
    /// It leaves.
    Detach,
}

impl Now {
    pub(super) const ALL: [Self; 4] = [Self::Alone, Self::Member, Self::Attach, Self::Detach];

    /// How ids of results end.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Member => "member",
            Self::Attach => "attach",
            Self::Detach => "detach",
        }
    }

    const fn is_change(self) -> bool {
        matches!(self, Self::Attach | Self::Detach)
    }
}

/// [`Now`] with the change that came last, and the number of changes so far.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    fn now(self) -> Now {
        Now::ALL[(self.0 & 3) as usize]
    }

    fn last(self) -> Now {
        Now::ALL[(self.0 >> 2 & 3) as usize]
    }

    fn next(self, now: Now) -> Self {
        let last = if now.is_change() { now } else { self.last() };
        Self(((self.0 >> 4) + 1) << 4 | (last as u64) << 2 | now as u64)
    }

    /// What a call met that began and ended so.
    fn met(self, after: Self) -> Now {
        if self == after || self.now().is_change() {
            self.now()
        } else if after.now().is_change() {
            after.now()
        } else {
            after.last()
        }
    }
}

/// What the thread and its leader look at.
#[derive(Default)]
pub(super) struct Signals {
    now: AtomicU64,
    halt: AtomicBool,
    calls: AtomicU64,
    ended: AtomicBool,
}

impl Signals {
    pub(super) fn set(&self, now: Now) {
        let next = self.word().next(now);
        self.now.store(next.0, Ordering::Release);
    }

    fn word(&self) -> Word {
        Word(self.now.load(Ordering::Acquire))
    }
}

/// Places in the upper half, so far apart that no request meets another's pages.
pub(super) struct Cells {
    first: u64,
    step: u64,
    /// Pages and the buffer page of the first of them.
    mapped: Vec<Option<(u64, u64)>>,
    /// The same of what was unmapped last.
    was: Vec<Option<(u64, u64)>>,
    longest: u64,
    buffer_pages: u64,
    random: Random,
}

impl Cells {
    pub(super) fn new(pages: u64, buffer_pages: u64, seed: u64) -> Self {
        let half = pages / 2;
        let step = (half / CELLS).max(2 * LENGTH).min(half);
        Self {
            first: half,
            step,
            mapped: vec![None; (half / step) as usize],
            was: vec![None; (half / step) as usize],
            longest: LENGTH.min(buffer_pages),
            buffer_pages,
            random: Random::new(seed),
        }
    }

    /// What is mapped: window page and buffer page.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u64, u64)> {
        let cell = |(nth, cell): (usize, &Option<(u64, u64)>)| {
            let at = self.first + nth as u64 * self.step;
            let (pages, memory) = (*cell)?;
            Some((0..pages).map(move |n| (at + n, memory + n)))
        };
        self.mapped.iter().enumerate().filter_map(cell).flatten()
    }

    /// The first page of each place that was mapped and is not now, and its buffer page then.
    pub(super) fn gone(&self) -> impl Iterator<Item = (u64, u64)> {
        let places = self.mapped.iter().zip(&self.was).enumerate();
        places.filter_map(|(nth, (now, was))| match (now, was) {
            (None, Some((_, memory))) => Some((self.first + nth as u64 * self.step, *memory)),
            _ => None,
        })
    }
}

/// Times of what the thread did.
pub(super) struct Times {
    pub(super) map: [Recorder; 4],
    pub(super) unmap: [Recorder; 4],
}

/// Says that the thread has ended, also if it panics.
struct Ended<'a>(&'a Signals);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// The thread: works on what it is sent until it is halted, and sends it back.
pub(super) fn work(
    container: &Arc<Container>,
    ground: Ground<'_>,
    signals: &Signals,
    from: &Receiver<Cells>,
    to: &Sender<anyhow::Result<Cells>>,
) -> Times {
    let _ended = Ended(signals);
    let new = || std::array::from_fn(|_| Recorder::new());
    let mut times = Times { map: new(), unmap: new() };
    let mut mapper = container.mapper();
    while let Ok(mut cells) = from.recv() {
        let mut done = Ok(());
        while done.is_ok() && !signals.halt.load(Ordering::Acquire) {
            done = call(&mut mapper, ground, &mut cells, signals, &mut times);
        }
        let failed = done.is_err();
        if to.send(done.map(|()| cells)).is_err() || failed {
            break;
        }
    }
    times
}

/// Unmaps a place, or maps there what comes to mind.
fn call(
    mapper: &mut Mapper,
    ground: Ground<'_>,
    cells: &mut Cells,
    signals: &Signals,
    times: &mut Times,
) -> anyhow::Result<()> {
    let nth = cells.random.below(cells.mapped.len() as u64);
    let at = ground.bus(cells.first + nth * cells.step);
    let pages = 1 + cells.random.below(cells.longest);
    let memory = cells.random.below(cells.buffer_pages - pages + 1);
    let (cell, was) = (&mut cells.mapped[nth as usize], &mut cells.was[nth as usize]);
    let (begin, before) = (Instant::now(), signals.word());
    let (record, tces) = if let Some((pages, memory)) = cell.take() {
        *was = Some((pages, memory));
        let done = mapper.unmap(at, ground.bytes(pages))?;
        ensure!(done.tces == pages, "of {pages} pages at {at}, {} were to be unmapped", done.tces);
        (&mut times.unmap, pages)
    } else {
        let (from, bytes) = (ground.memory(memory), ground.bytes(pages));
        mapper.map(at, from, bytes, Perm::READ_WRITE, Mode::Refuse)?;
        *cell = Some((pages, memory));
        (&mut times.map, pages)
    };
    let took = begin.elapsed().as_nanos() as u64;
    record[before.met(signals.word()) as usize].record(took, tces);
    signals.calls.fetch_add(1, Ordering::Release);
    Ok(())
}

/// The leader's end. The thread rests but for [`Reins::leg`].
pub(super) struct Reins<'a> {
    pub(super) signals: &'a Signals,
    pub(super) to: Sender<Cells>,
    pub(super) from: Receiver<anyhow::Result<Cells>>,
    /// With the thread while it works.
    cells: Option<Cells>,
}

impl<'a> Reins<'a> {
    pub(super) fn new(
        signals: &'a Signals,
        to: Sender<Cells>,
        from: Receiver<anyhow::Result<Cells>>,
        cells: Cells,
    ) -> Self {
        Self { signals, to, from, cells: Some(cells) }
    }

    /// Has the thread work, makes a change meanwhile, and lets the thread rest: it makes so many calls
    /// before the change and after it, at least.
    ///
    /// # Errors
    /// What the engine refused the thread.
    pub(super) fn leg<T>(
        &mut self,
        calls: u64,
        change: impl FnOnce(&Signals) -> T,
    ) -> anyhow::Result<T> {
        let cells = self.cells.take().context("the thread has failed before")?;
        self.signals.halt.store(false, Ordering::Release);
        self.to.send(cells).map_err(|_| anyhow!("the thread is gone"))?;
        self.wait(calls);
        let done = change(self.signals);
        self.wait(calls);
        self.signals.halt.store(true, Ordering::Release);
        self.cells = Some(self.from.recv().context("the thread is gone")??);
        Ok(done)
    }

    fn wait(&self, calls: u64) {
        let so_far = || self.signals.calls.load(Ordering::Acquire);
        let goal = so_far() + calls;
        let ended = || self.signals.ended.load(Ordering::Acquire);
        while so_far() < goal && !ended() && !interrupted() {
            thread::sleep(PAUSE);
        }
    }

    /// What the thread has left mapped.
    pub(super) fn mapped(&self) -> impl Iterator<Item = (u64, u64)> {
        self.cells.iter().flat_map(Cells::pages)
    }

    /// What it has unmapped.
    pub(super) fn gone(&self) -> impl Iterator<Item = (u64, u64)> {
        self.cells.iter().flat_map(Cells::gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_under_the_change_that_it_met() {
        let alone = Word(0);
        let attach = alone.next(Now::Attach);
        let member = attach.next(Now::Member);
        let detach = member.next(Now::Detach);
        let again = detach.next(Now::Alone);
        // A refused attach, of which nothing is left but that it was.
        let refused = alone.next(Now::Attach).next(Now::Alone);
        for (before, after, met) in [
            (alone, alone, Now::Alone),
            (alone, attach, Now::Attach),
            (attach, member, Now::Attach),
            (alone, member, Now::Attach),
            (member, member, Now::Member),
            (member, detach, Now::Detach),
            (member, again, Now::Detach),
            (alone, refused, Now::Attach),
        ] {
            assert_eq!(before.met(after), met);
        }
    }

    #[test]
    fn cells_lie_in_the_upper_half_and_apart() {
        for (pages, buffer) in [(64, 4), (65536, 1024), (1 << 20, 1024)] {
            let mut cells = Cells::new(pages, buffer, 1);
            assert!(cells.mapped.len() as u64 <= CELLS && cells.step > LENGTH, "{pages}");
            let longest = cells.longest;
            cells.mapped.fill(Some((longest, 0)));
            let all: Vec<_> = cells.pages().map(|(at, _)| at).collect();
            assert_eq!(all.len() as u64, longest * cells.mapped.len() as u64);
            assert!(all.is_sorted_by(|a, b| a < b), "{pages}");
            assert!(all[0] >= pages / 2 && all.last() < Some(&pages), "{pages}");
        }
    }
}
