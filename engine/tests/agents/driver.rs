// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random calls of many threads on two containers, while devices use what is mapped. Each thread has its
//! own part of both windows of one container, and memory of its own; a group goes from one container to
//! the other and back.

mod owing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;

use tce_engine::addr::{GroupId, PeNumber, Uaddr};
use tce_engine::backend::KillCaps;
use tce_engine::backend::mock::agents::{Expectations, Violation, Watched};
use tce_engine::backend::mock::{MockBuilder, TceCache};
use tce_engine::container::{MapRequest, Mapper, Mode, Removal, UnmapRequest};
use tce_engine::engine::EngineOptions;
use tce_engine::error::MapError;
use tce_engine::kill::{DebtMetrics, KillPolicy};
use tce_engine::sabotage::inherit;
use tce_engine::tce::Perm;

use owing::To;

use crate::common::{G0, G1, G2, Rig, SECOND};
use crate::domain::{Domain, GIVEN, OWN, PAGES, PARTS, REGION, REGIONS, Run, STARTS, mapper};

/// The group that moves.
const G3: GroupId = GroupId(3);
/// Devices, each a thread.
const DEVICES: u64 = 2;
/// What is to be driven.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) threads: usize,
    pub(crate) cache: TceCache,
    pub(crate) seed: u64,
    /// Threads now and then lose their CPU before a kill, a fence, or whatever else the platform is asked
    /// for. They use the way to the kill registers that everybody shares, then, not one of their own.
    pub(crate) jitter: bool,
    /// All memory of a container is one region, which stays.
    pub(crate) one_region: bool,
    pub(crate) kill: KillCaps,
    pub(crate) policy: KillPolicy,
    /// Accesses for each call, at least.
    pub(crate) pace: u64,
    /// Calls, all threads together; fewer if there is a violation.
    pub(crate) calls: u64,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) calls: u64,
    pub(crate) accesses: u64,
    pub(crate) judged: u64,
    pub(crate) debts: DebtMetrics,
    pub(crate) violations: Vec<Violation>,
}

struct Drive<'a> {
    plan: Plan,
    domains: &'a [Domain],
    expect: &'a Arc<Expectations>,
    /// Where the group that moves is.
    moves: Mutex<Option<usize>>,
    calls: AtomicU64,
}

pub(crate) fn drive(plan: Plan) -> Outcome {
    let builder = MockBuilder::new(4).no_freeze(true).seed(plan.seed);
    let builder = builder.kill(plan.kill).tce_cache(plan.cache);
    let options = EngineOptions { policy: plan.policy, ..EngineOptions::default() };
    let rig = Rig::with(builder, options);
    if plan.jitter {
        let steps = AtomicU64::new(plan.seed);
        rig.faulty.watch(move |_| {
            let nth = steps.fetch_add(1, Ordering::Relaxed);
            if nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 == 0 {
                thread::yield_now();
            }
        });
    }
    let mine = |bus: usize| (0..plan.threads).filter(|n| n % 2 == bus).map(|n| n as u64).collect();
    let domains: Vec<_> = [&[G0, G1][..], &[G2]]
        .into_iter()
        .enumerate()
        .map(|(bus, fixed)| Domain {
            bus,
            container: Arc::new(rig.engine.container()),
            fixed,
            threads: mine(bus),
            windows: RwLock::default(),
            one_region: plan.one_region,
            resets: Default::default(),
        })
        .collect();
    let watched: Vec<[Watched; 2]> = domains.iter().map(Domain::watched).collect();
    let watched: Vec<&[Watched]> = watched.iter().map(|w| &w[..]).collect();
    let expect = Arc::new(Expectations::new(rig.mock.clone(), 4, &watched));
    domains.iter().for_each(|domain| domain.open(&expect));
    let drive = Drive {
        plan,
        domains: &domains,
        expect: &expect,
        moves: Mutex::new(None),
        calls: AtomicU64::new(0),
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for nth in 0..DEVICES {
            let agent = expect.agent(plan.seed * 100 + nth + 1);
            let stop = &stop;
            scope.spawn(move || agent.run(stop));
        }
        let threads: Vec<_> = (0..plan.threads)
            .map(|nth| {
                let drive = &drive;
                scope.spawn(inherit(move || Thread::new(drive, nth).run()))
            })
            .collect();
        let ends: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.unwrap());
    });
    let (accesses, judged) = expect.accesses();
    let calls = drive.calls.load(Ordering::Relaxed);
    let debts = rig.engine.debts();
    Outcome { calls, accesses, judged, debts, violations: expect.violations() }
}

/// One thread's.
struct Thread<'a> {
    drive: &'a Drive<'a>,
    domain: &'a Domain,
    number: u64,
    /// Its first page in each window.
    first: [u64; 2],
    random: u64,
    mapper: Mapper,
    resets: [u64; 2],
    /// What is at pages of which devices are not sure yet.
    owed: BTreeMap<(usize, u64), To>,
    /// Pages of the second window that its allocator has given out.
    given: Vec<(u64, u64)>,
}

impl<'a> Thread<'a> {
    fn new(drive: &'a Drive<'a>, nth: usize) -> Self {
        let domain = &drive.domains[nth % 2];
        let place = (nth / 2) as u64;
        let first = PARTS.map(|part| place * part);
        let seed = drive.plan.seed * 1000 + nth as u64 + 1;
        Self {
            drive,
            domain,
            number: nth as u64,
            first,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            mapper: mapper(domain, first[1] + OWN),
            resets: domain.generation(),
            owed: BTreeMap::new(),
            given: Vec::new(),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    fn run(mut self) {
        let drive = self.drive;
        loop {
            let calls = drive.calls.fetch_add(1, Ordering::Relaxed);
            if calls >= drive.plan.calls || drive.expect.count() > 0 {
                drive.calls.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            // Devices that get no turn see nothing; and where many calls come between two turns, a later
            // kill makes good for an earlier one.
            let burst = 2 << (2 * (calls / 512 % 4));
            let due = calls * drive.plan.pace;
            while calls.is_multiple_of(burst) && drive.expect.accesses().0 < due {
                thread::yield_now();
            }
            if self.draw(200) == 0 {
                self.structure();
            } else {
                let domain = self.domain;
                let _windows = domain.windows.read().unwrap();
                self.renew();
                self.call();
            }
        }
    }

    /// Windows that are new know nothing of what the allocator has given out.
    fn renew(&mut self) {
        let before = std::mem::replace(&mut self.resets, self.domain.generation());
        for window in (0..2).filter(|window| before[*window] != self.resets[*window]) {
            self.owed.retain(|(of, _), _| *of != window);
            if window == 1 {
                self.given.clear();
                self.mapper = mapper(self.domain, self.first[1] + OWN);
            }
        }
        self.say_settled();
    }

    fn pick(&mut self, most: u64) -> Run {
        let window = self.draw(2) as usize;
        let count = 1 + self.draw(most);
        let page = self.first[window] + self.draw(OWN + 1 - count);
        self.with_memory(window, page, count)
    }

    fn with_memory(&mut self, window: usize, page: u64, count: u64) -> Run {
        let bits = PAGES[window].get();
        let places = ((REGIONS * REGION) >> bits) + 1 - count;
        let memory = Uaddr(self.domain.memory(self.number).0 + (self.draw(places) << bits));
        Run { window, page, count, memory }
    }

    fn perm(&mut self) -> Perm {
        [Perm::READ_WRITE, Perm::READ_WRITE, Perm::READ, Perm::WRITE][self.draw(4) as usize]
    }

    fn call(&mut self) {
        let ends = match self.drive.plan.policy {
            KillPolicy::Batched => 8,
            KillPolicy::Deferred { .. } => 64,
            _ => 0,
        };
        if ends > 0 && self.draw(ends) == 0 {
            return self.submit();
        }
        match self.draw(100) {
            0..22 => self.one(true),
            22..34 => self.one(false),
            34..48 => self.map_run(),
            48..62 => self.unmap_run(),
            62..69 => self.list(),
            69..76 => self.map_batch(),
            76..82 => self.unmap_batch(),
            82..86 => self.refused(),
            86..99 => self.addresses(),
            _ => self.recycle(),
        }
    }

    /// A page is mapped, replaced or unmapped.
    fn one(&mut self, by_handle: bool) {
        let (run, perm) = (self.pick(1), self.perm());
        let live = self.live(&run);
        let unmap = live && self.draw(4) > 0;
        let mode = if live { Mode::Replace } else { Mode::Refuse };
        let (at, bytes, memory) = (run.at(), run.bytes(), run.memory);
        let then = (!unmap).then_some(perm);
        let released = self.expecting("one page", by_handle, &[(run, then)], |mapper, c| {
            let done = match (by_handle, unmap) {
                (true, true) => return mapper.unmap(at, bytes).unwrap().released,
                (false, true) => return c.unmap(at, bytes).unwrap().released,
                (true, false) => mapper.map(at, memory, bytes, perm, mode),
                (false, false) => c.map(at, memory, bytes, perm, mode),
            };
            done.unwrap().released
        });
        assert_eq!(released, u64::from(live));
    }

    fn map_run(&mut self) {
        let (run, perm, by_handle) = (self.pick(24), self.perm(), self.draw(2) == 0);
        let (at, bytes, memory) = (run.at(), run.bytes(), run.memory);
        self.expecting("map of a run", by_handle, &[(run, Some(perm))], |mapper, c| {
            if by_handle {
                mapper.map(at, memory, bytes, perm, Mode::Replace).unwrap();
            } else {
                c.map(at, memory, bytes, perm, Mode::Replace).unwrap();
            }
        });
    }

    fn unmap_run(&mut self) {
        let (run, by_handle) = (self.pick(24), self.draw(2) == 0);
        let (at, bytes) = (run.at(), run.bytes());
        self.expecting("unmap of a run", by_handle, &[(run, None)], |mapper, c| {
            if by_handle {
                mapper.unmap(at, bytes).unwrap();
            } else {
                c.unmap(at, bytes).unwrap();
            }
        });
    }

    /// A list: each page has memory of its own.
    fn list(&mut self) {
        let (run, perm, by_handle) = (self.pick(16), self.perm(), self.draw(2) == 0);
        let runs: Vec<_> = (0..run.count)
            .map(|n| (self.with_memory(run.window, run.page + n, 1), Some(perm)))
            .collect();
        let list: Vec<_> = runs.iter().map(|(run, _)| run.memory).collect();
        self.expecting("map of a list", by_handle, &runs, |mapper, c| {
            if by_handle {
                mapper.map_list(run.at(), &list, perm, Mode::Replace).unwrap();
            } else {
                c.map_list(run.at(), &list, perm, Mode::Replace).unwrap();
            }
        });
    }

    /// Several runs of one window, apart or one after the other, in any order.
    fn runs(&mut self) -> Vec<Run> {
        let window = self.draw(2) as usize;
        let mut runs = Vec::new();
        let mut page = self.first[window] + self.draw(8);
        while page < self.first[window] + OWN {
            let count = (1 + self.draw(8)).min(self.first[window] + OWN - page);
            runs.push(self.with_memory(window, page, count));
            page += count + self.draw(12);
        }
        if self.draw(2) == 0 {
            runs.reverse();
        }
        runs
    }

    fn map_batch(&mut self) {
        let (perm, by_handle) = (self.perm(), self.draw(2) == 0);
        let runs: Vec<_> = self.runs().into_iter().map(|run| (run, Some(perm))).collect();
        let request = |(run, _): &(Run, _)| MapRequest {
            at: run.at(),
            memory: run.memory,
            bytes: run.bytes(),
            perm,
        };
        let requests: Vec<_> = runs.iter().map(request).collect();
        self.expecting("map of a batch", by_handle, &runs, |mapper, c| {
            if by_handle {
                mapper.map_batch(&requests, Mode::Replace).unwrap();
            } else {
                c.map_batch(&requests, Mode::Replace).unwrap();
            }
        });
    }

    fn unmap_batch(&mut self) {
        let by_handle = self.draw(2) == 0;
        let runs: Vec<_> = self.runs().into_iter().map(|run| (run, None)).collect();
        let request = |(run, _): &(Run, _)| UnmapRequest { at: run.at(), bytes: run.bytes() };
        let requests: Vec<_> = runs.iter().map(request).collect();
        self.expecting("unmap of a batch", by_handle, &runs, |mapper, c| {
            if by_handle {
                mapper.unmap_batch(&requests).unwrap();
            } else {
                c.unmap_batch(&requests).unwrap();
            }
        });
    }

    /// A map over what is mapped is refused, and no device notices.
    fn refused(&mut self) {
        let run = self.pick(8);
        if !self.live(&run) {
            return;
        }
        let (at, bytes) = (run.at(), run.bytes());
        let done = self.mapper.map(at, run.memory, bytes, Perm::READ_WRITE, Mode::Refuse);
        assert!(matches!(done, Err(MapError::Overlap { .. })), "{done:?}");
    }

    /// A run at an address that the handle chooses, or one of those before.
    fn addresses(&mut self) {
        let (expect, stretch) = (self.drive.expect, self.domain.stretch(1));
        if self.given.len() as u64 >= GIVEN / 4 || !self.given.is_empty() && self.draw(2) == 0 {
            let nth = self.draw(self.given.len() as u64) as usize;
            let (page, count) = self.given.swap_remove(nth);
            let run = self.with_memory(1, page, count);
            self.expecting("unmap and free", true, &[(run, None)], |mapper, _| {
                mapper.unmap_free(run.at(), run.bytes()).unwrap();
            });
            return;
        }
        let (count, perm) = (1 + self.draw(3) / 2, self.perm());
        let area = self.first[1] + OWN..self.first[1] + OWN + GIVEN;
        let run = self.with_memory(1, area.start, count);
        // It may be any that is free.
        let free: Vec<_> = area.filter(|page| self.mapped_at(1, *page).is_none()).collect();
        free.iter().for_each(|page| expect.changing(stretch, *page, "map where there is room"));
        let at = self.mapper.map_alloc(run.memory, run.bytes(), perm).unwrap();
        let page = (at.0 - SECOND.0) >> PAGES[1].get();
        assert!((page..page + count).all(|page| free.contains(&page)), "{at} is not free");
        for free in free {
            let to = free.checked_sub(page).filter(|n| *n < count);
            let to = to.map(|n| (run.memory_of(n), perm));
            // What the call has left alone is as it was.
            self.left(1, free, to, to.is_some(), false);
        }
        self.say_settled();
        self.given.push((page, count));
    }

    /// Gives a region back and registers it anew, where it lies elsewhere in real memory.
    fn recycle(&mut self) {
        if self.domain.one_region {
            return self.unmap_run();
        }
        let start = Uaddr(self.domain.memory(self.number).0 + self.draw(REGIONS) * REGION);
        for (window, part) in PARTS.into_iter().enumerate() {
            for page in self.first[window]..self.first[window] + part {
                let memory = self.mapped_at(window, page);
                if !memory.is_some_and(|at| (start.0..start.0 + REGION).contains(&at.0)) {
                    continue;
                }
                if page >= self.first[window] + OWN {
                    // The allocator's.
                    let of = |(first, count): &(u64, u64)| (*first..first + count).contains(&page);
                    let nth = self.given.iter().position(of).unwrap();
                    let (page, count) = self.given.swap_remove(nth);
                    let run = Run { window, page, count, memory: start };
                    self.expecting("unmap and free", true, &[(run, None)], |mapper, _| {
                        mapper.unmap_free(run.at(), run.bytes()).unwrap();
                    });
                } else {
                    let run = Run { window, page, count: 1, memory: start };
                    self.expecting("unmap for good", true, &[(run, None)], |mapper, _| {
                        mapper.unmap(run.at(), run.bytes()).unwrap();
                    });
                }
            }
        }
        self.domain.container.unregister(start, REGION).unwrap();
        // Others' debts are nobody's any more when memory goes.
        assert_eq!(self.mapper.owed(), 0);
        self.say_settled();
        self.domain.container.register(start, REGION).unwrap();
    }

    /// Something that others notice.
    fn structure(&mut self) {
        match self.draw(16) {
            0 => self.new_container(),
            1..4 => self.new_window(),
            _ => self.moves(),
        }
    }

    /// The group that moves goes to the other container, or leaves, while others map.
    fn moves(&mut self) {
        let to = Some(self.draw(3) as usize).filter(|to| *to < 2);
        let mut at = self.drive.moves.lock().unwrap();
        if let Some(from) = at.take() {
            self.drive.domains[from].detach(G3, self.drive.expect);
        }
        if let Some(to) = to {
            self.drive.domains[to].attach(G3, self.drive.expect);
        }
        *at = to;
    }

    /// A window goes, with all that is mapped in it, and another comes.
    fn new_window(&mut self) {
        let (domain, expect) = (self.domain, self.drive.expect);
        let window = self.draw(2) as usize;
        let _alone = domain.windows.write().unwrap();
        let _nobody_moves = self.drive.moves.lock().unwrap();
        domain.all(window, |stretch, page| expect.changing(stretch, page, "the window goes"));
        domain.container.remove_window(STARTS[window], Removal::Force).unwrap();
        domain.all(window, |stretch, page| expect.released(stretch, page));
        thread::yield_now();
        domain.create(window);
        domain.resets[window].fetch_add(1, Ordering::SeqCst);
    }

    /// The container is closed with all that is mapped, and everything is set up again.
    fn new_container(&mut self) {
        let (domain, expect) = (self.domain, self.drive.expect);
        let _alone = domain.windows.write().unwrap();
        let mut moves = self.drive.moves.lock().unwrap();
        let moving = moves.take_if(|at| *at == domain.bus).map(|_| G3);
        let members: Vec<_> = domain.fixed.iter().copied().chain(moving).collect();
        for window in 0..2 {
            domain.all(window, |stretch, page| expect.changing(stretch, page, "all goes"));
        }
        members.iter().for_each(|group| expect.moving(PeNumber(group.0 as u16)));
        domain.container.close();
        members.iter().for_each(|group| expect.moved(PeNumber(group.0 as u16), None));
        for window in 0..2 {
            domain.all(window, |stretch, page| expect.released(stretch, page));
        }
        domain.open(expect);
        for resets in &domain.resets {
            resets.fetch_add(1, Ordering::SeqCst);
        }
    }
}
