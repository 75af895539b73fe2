// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices that use a mock while an engine maps and unmaps, and a judge who knows what they must find.
//!
//! Whoever changes mappings says so to [`Expectations`]: before a call, which pages it may change, and
//! after it, what is there. In between anything may be found. A device's access that finds something
//! else than what is expected, or is still under way to a page that the engine has let go of, is a
//! [`Violation`]: a kill that is missing, wrong or early, or that nobody waited for.
//!
//! What was unmapped under a policy that kills later is said to be owed: until the engine has settled it,
//! devices find nothing, or the page that was there, which is still pinned.
//!
//! Pages carry their owner's stamp by where they are: the mock uses no real address of a process twice, so
//! [`Mock::owner`] says of each whose it is, and nobody's once it is unpinned. A guest's RAM is always at
//! the same place; guests whose devices are to be told apart have pages of their own in it.

mod judge;
mod state;

use std::collections::VecDeque;

pub use judge::{Event, Found, Kind, Violation};
use state::{Cell, Stable};

use super::{Access, Fault, Mock, Translation};
use crate::addr::{Hpa, Ioba, PageShift, PeNumber, Uaddr};
use crate::backend::Memory;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock};
use crate::tce::Perm;

/// A stretch of a container's bus that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// First page.
    pub start: Ioba,
    /// Size of the pages.
    pub page: PageShift,
    /// Number of pages, at least 1.
    pub pages: u64,
}

/// A stretch, by number: of which bus, and which of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Number of the bus.
    pub bus: usize,
    /// Number of the stretch.
    pub nth: usize,
}

/// Violations that are kept; more are only counted.
const KEPT: u64 = 16;
/// Events that are remembered for the pages of a stretch that share a log.
const REMEMBERED: usize = 128;
/// Logs of a stretch.
const LOGS: u64 = 64;

/// When, to which page, what.
type Log = VecDeque<(u64, u64, Event)>;

struct Pages {
    watched: Watched,
    cells: Box<[AtomicU64]>,
    logs: Box<[Mutex<Log>]>,
    /// The page that was changed last: there is most to be found.
    hot: AtomicU64,
}

/// What devices must find, who says so, and what they found instead. See the [module](self).
pub struct Expectations {
    mock: Arc<Mock>,
    /// By PE: whose bus it is on.
    pes: Box<[AtomicU64]>,
    buses: Vec<Vec<Pages>>,
    violations: Mutex<Vec<Violation>>,
    count: AtomicU64,
    accesses: AtomicU64,
    judged: AtomicU64,
    arrived: AtomicU64,
    as_given: bool,
}

impl Expectations {
    /// Nothing is mapped and no PE is on any bus. `buses` are containers, each with its stretches.
    #[must_use]
    pub fn new(mock: Arc<Mock>, pes: u16, buses: &[&[Watched]]) -> Self {
        let pages = |watched: &Watched| Pages {
            watched: *watched,
            cells: (0..watched.pages).map(|_| AtomicU64::new(Cell::NOTHING.0)).collect(),
            logs: (0..LOGS.min(watched.pages)).map(|_| Mutex::default()).collect(),
            hot: AtomicU64::new(0),
        };
        Self {
            mock,
            pes: (0..pes).map(|_| AtomicU64::new(Cell::NOTHING.0)).collect(),
            buses: buses.iter().map(|bus| bus.iter().map(pages).collect()).collect(),
            violations: Mutex::default(),
            count: AtomicU64::new(0),
            accesses: AtomicU64::new(0),
            judged: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            as_given: false,
        }
    }

    /// The same for a guest's entries, which hold their permission as it was given. A process may also
    /// read what it may write.
    #[must_use]
    pub fn as_given(self) -> Self {
        Self { as_given: true, ..self }
    }

    /// The first violations.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        lock(&self.violations).clone()
    }

    /// Number of violations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Accesses so far, and how many of them met a page that nobody was changing.
    #[must_use]
    pub fn accesses(&self) -> (u64, u64) {
        (self.accesses.load(Ordering::Relaxed), self.judged.load(Ordering::Relaxed))
    }

    /// Accesses so far that reached a page.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    fn pages(&self, stretch: Stretch) -> &Pages {
        &self.buses[stretch.bus][stretch.nth]
    }

    /// The call that comes may change the page.
    pub fn changing(&self, stretch: Stretch, page: u64, why: &'static str) {
        let pages = self.pages(stretch);
        let cell = &pages.cells[page as usize];
        cell.store(Cell(cell.load(Ordering::Relaxed)).changing().0, Ordering::SeqCst);
        pages.note(self.mock.tce_time(), page, Event::Begin(why));
    }

    /// It leads to this memory now. The address is a multiple of 4 KiB and below 2^44.
    pub fn mapped(&self, stretch: Stretch, page: u64, memory: Uaddr, perm: Perm) {
        let perm = self.of_entry(perm);
        self.is(stretch, page, Event::Mapped(memory), Stable::Mapped { memory, perm });
    }

    /// Nothing is there now, but the kill of what led to this memory is still owed: devices may find
    /// that, until it is said to be released.
    pub fn owed(&self, stretch: Stretch, page: u64, memory: Uaddr, perm: Perm) {
        let perm = self.of_entry(perm);
        self.is(stretch, page, Event::Owed(memory), Stable::Owed { memory, perm });
    }

    /// Nothing is there now.
    pub fn released(&self, stretch: Stretch, page: u64) {
        self.is(stretch, page, Event::Released, Stable::Nothing);
    }

    fn of_entry(&self, perm: Perm) -> Perm {
        if self.as_given { perm } else { perm.powernv() }
    }

    fn is(&self, stretch: Stretch, page: u64, event: Event, now: Stable) {
        let pages = self.pages(stretch);
        pages.note(self.mock.tce_time(), page, event);
        let cell = &pages.cells[page as usize];
        cell.store(Cell(cell.load(Ordering::Relaxed)).stable(now).0, Ordering::SeqCst);
        pages.hot.store(page, Ordering::Relaxed);
    }

    /// What was said of a page last: the memory that it leads to.
    #[must_use]
    pub fn expected(&self, stretch: Stretch, page: u64) -> Option<Uaddr> {
        match Cell(self.pages(stretch).cells[page as usize].load(Ordering::SeqCst)).get() {
            Some(Stable::Mapped { memory, .. }) => Some(memory),
            _ => None,
        }
    }

    /// The call that comes may move the PE to a bus, or off it.
    pub fn moving(&self, pe: PeNumber) {
        let cell = &self.pes[usize::from(pe.0)];
        cell.store(Cell(cell.load(Ordering::Relaxed)).changing().0, Ordering::SeqCst);
    }

    /// The PE is on this bus now, or on none.
    pub fn moved(&self, pe: PeNumber, bus: Option<usize>) {
        let cell = &self.pes[usize::from(pe.0)];
        let on = bus.map_or(Stable::Nothing, |bus| Stable::On(bus as u64));
        cell.store(Cell(cell.load(Ordering::Relaxed)).stable(on).0, Ordering::SeqCst);
    }

    /// A device that works by chance.
    #[must_use]
    pub fn agent(self: &Arc<Self>, seed: u64) -> Agent {
        Agent { all: self.clone(), random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// The PE's bus, and what is to be found at a page of it; both in one moment.
    fn look(&self, pe: PeNumber, stretch: Stretch, page: u64) -> Look {
        let of_pe = &self.pes[usize::from(pe.0)];
        let bus = Cell(of_pe.load(Ordering::SeqCst));
        let cell = Cell(self.pages(stretch).cells[page as usize].load(Ordering::SeqCst));
        let same = of_pe.load(Ordering::SeqCst) == bus.0;
        Look { bus, cell, same, stretch_bus: stretch.bus as u64 }
    }

    /// One access of the PE's device to a page of a stretch; if it lasts `patience`, it waits for a
    /// change that it would be a violation of.
    pub fn access(
        &self,
        pe: PeNumber,
        stretch: Stretch,
        page: u64,
        access: Access,
        patience: u32,
    ) -> Option<Kind> {
        let pages = self.pages(stretch);
        let at = pages.watched.at(page);
        let before = self.look(pe, stretch, page);
        let found = self.mock.dma_with(pe, at, access, |found| {
            let owner = self.mock.owner(found.at);
            let mut now = self.look(pe, stretch, page);
            for turn in 0..patience {
                let overtaken = now != before && now.must().is_some();
                if overtaken || self.mock.owner(found.at).is_none() {
                    break;
                }
                if turn % 32 == 31 {
                    std::thread::yield_now();
                }
                now = self.look(pe, stretch, page);
            }
            (found, owner, self.mock.owner(found.at), now)
        });
        let (found, looked) = match found {
            Ok((to, owner, owner_then, now)) => {
                (Found::Page { to, owner: owner.filter(|_| owner_then.is_some()) }, now)
            }
            Err(fault) => {
                let after = self.look(pe, stretch, page);
                (Found::Fault(fault), if after == before { after } else { after.unknown() })
            }
        };
        self.accesses.fetch_add(1, Ordering::Relaxed);
        let must = looked.must();
        self.judged.fetch_add(u64::from(must.is_some()), Ordering::Relaxed);
        self.arrived.fetch_add(u64::from(found.arrived()), Ordering::Relaxed);
        pages.note_access(self.mock.tce_time(), page, pe, access, found.arrived());
        let kind = judge::judge(must, &found, access)?;
        if self.count.fetch_add(1, Ordering::AcqRel) < KEPT {
            let violation =
                Violation { kind, pe, at, access, found, history: self.history(pe, stretch, page) };
            lock(&self.violations).push(violation);
        }
        Some(kind)
    }

    /// Everything that is known of a page, in order.
    fn history(&self, pe: PeNumber, stretch: Stretch, page: u64) -> Vec<(u64, Event)> {
        let pages = self.pages(stretch);
        let cache = self.mock.tce_history(pe, pages.watched.at(page)).into_iter();
        let mut all: Vec<_> = cache.map(|(now, event)| (now, Event::Cache(event))).collect();
        let log = lock(pages.log(page));
        all.extend(log.iter().filter(|e| e.1 == page).map(|(now, _, event)| (*now, *event)));
        all.sort_by_key(|(now, _)| *now);
        all
    }
}

/// What is expected in one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    bus: Cell,
    cell: Cell,
    /// False if the PE was moved meanwhile.
    same: bool,
    stretch_bus: u64,
}

impl Look {
    fn unknown(self) -> Self {
        Self { same: false, ..self }
    }

    /// What a device must find, if that can be said.
    fn must(&self) -> Option<Stable> {
        match self.bus.get().filter(|_| self.same)? {
            Stable::On(bus) if bus == self.stretch_bus => self.cell.get(),
            // Another bus has its own mapping there, or not.
            Stable::On(_) => None,
            _ => Some(Stable::Nothing),
        }
    }
}

impl Watched {
    /// The bus address of a page.
    #[must_use]
    pub fn at(&self, page: u64) -> Ioba {
        Ioba(self.start.0 + (page << self.page.get()))
    }
}

impl Pages {
    fn log(&self, page: u64) -> &Mutex<Log> {
        &self.logs[page as usize % self.logs.len()]
    }

    fn note(&self, now: u64, page: u64, event: Event) {
        let mut log = lock(self.log(page));
        if log.len() == REMEMBERED {
            log.pop_front();
        }
        log.push_back((now, page, event));
    }

    /// Accesses in a row that ended alike are one event.
    fn note_access(&self, now: u64, page: u64, pe: PeNumber, access: Access, arrived: bool) {
        let mut log = lock(self.log(page));
        if let Some((_, of, Event::Access { pe: by, arrived: did, times, .. })) = log.back_mut()
            && (*of, *by, *did) == (page, pe, arrived)
        {
            *times += 1;
            return;
        }
        if log.len() == REMEMBERED {
            log.pop_front();
        }
        log.push_back((now, page, Event::Access { pe, access, arrived, times: 1 }));
    }
}

/// A device that works by chance, for one thread.
pub struct Agent {
    all: Arc<Expectations>,
    random: u64,
}

/// One of so many accesses takes its time.
const SLOW: u64 = 32;
/// How long it waits for something to happen, in looks.
const PATIENCE: u32 = 120;

impl Agent {
    fn draw(&mut self, below: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    /// One access: by any PE, mostly to its own bus, and there mostly where something has changed.
    pub fn step(&mut self) {
        let all = self.all.clone();
        let pe = PeNumber(self.draw(all.pes.len() as u64) as u16);
        let bus = match Cell(all.pes[usize::from(pe.0)].load(Ordering::Relaxed)).get() {
            Some(Stable::On(bus)) => bus as usize,
            _ => self.draw(all.buses.len() as u64) as usize,
        };
        let nth = self.draw(all.buses[bus].len() as u64) as usize;
        let pages = &all.buses[bus][nth];
        let page = match self.draw(4) {
            0 => self.draw(pages.watched.pages),
            1 => pages.hot.load(Ordering::Relaxed),
            _ => {
                let hot = pages.hot.load(Ordering::Relaxed) + self.draw(24);
                hot.saturating_sub(16).min(pages.watched.pages - 1)
            }
        };
        let access = if self.draw(2) == 0 { Access::Read } else { Access::Write };
        let patience = if self.draw(SLOW) == 0 { PATIENCE } else { 0 };
        let _ = all.access(pe, Stretch { bus, nth }, page, access, patience);
    }

    /// Works until it is told to stop.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            (0..8).for_each(|_| self.step());
            // So it loses its CPU here, and not while others wait for an access of its.
            std::thread::yield_now();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
