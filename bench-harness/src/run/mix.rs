// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Phase `mix`: requests of several kinds and sizes, so many of them mapped at a time, in a closed loop or
//! at a rate.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use anyhow::ensure;
use tce_engine::container::{Mapper, Mode, Receipt};
use tce_engine::error::{MapError, UnmapError};
use tce_engine::tce::Perm;

use super::lists::Random;
use super::pace::{Pacer, Real};
use super::rig::{Rig, Windowed};
use super::work::{Meters, Share, Work, ns};
use crate::cli::RunConfig;
use crate::interrupt::interrupted;
use crate::mix::{Mix, Operation, Order, Place, Rate};

/// Operations in one turn; at a rate, as many as are due in [`PACED_TURN_MS`].
const TURN: u64 = 256;
/// How long a turn takes at a rate: it is only between turns that the time is found to be up.
const PACED_TURN_MS: u64 = 50;

/// Pages of the buffer behind a request.
enum Pages {
    /// From this one on.
    Run(u64),
    /// These.
    List(Box<[u64]>),
}

/// What is mapped.
struct Request {
    slot: u64,
    pages: u64,
    memory: Pages,
}

impl Request {
    /// Page of the buffer behind its page `n`.
    fn page(&self, n: u64) -> u64 {
        match &self.memory {
            Pages::Run(first) => first + n,
            Pages::List(list) => list[n as usize],
        }
    }
}

/// A window of one thread.
struct Space {
    /// A handle, where a policy for handles is asked for, and its calls of this batch.
    handle: Option<(Mapper, u64)>,
    /// By age.
    live: VecDeque<Request>,
    taken: HashSet<u64>,
    next: u64,
}

/// The mix on one thread.
pub(super) struct Mixed<'a> {
    rig: &'a Rig,
    share: Share,
    mix: &'a Mix,
    slots: u64,
    spaces: Vec<Space>,
    turn: usize,
    random: Random,
    batch: Option<u64>,
    rate: Option<(Rate, u32)>,
    pacer: Option<Pacer<Real>>,
}

impl<'a> Mixed<'a> {
    /// Of thread `nth`, whose share is known to be large enough.
    pub(super) fn new(rig: &'a Rig, share: Share, config: &'a RunConfig, nth: u64) -> Self {
        let mix = &config.mix;
        let with_handles = config.policy != crate::policy::Policy::Strict;
        let space = |container: &Windowed| Space {
            handle: with_handles.then(|| (container.mapper(), 0)),
            live: VecDeque::new(),
            taken: HashSet::new(),
            next: 0,
        };
        Self {
            rig,
            share,
            mix,
            slots: share.count / mix.slot(),
            spaces: rig.containers.iter().map(space).collect(),
            turn: 0,
            // Threads differ, and are the same in every run of a seed.
            random: Random::new(config.seed.wrapping_add(nth.wrapping_mul(0xd134_2543_de82_ef95))),
            batch: config.policy.calls(),
            rate: config.rate.map(|rate| (rate, config.threads)),
            pacer: None,
        }
    }

    /// Operations of a turn.
    fn operations(&self) -> u64 {
        self.rate.map_or(TURN, |(rate, threads)| {
            (rate.0 * PACED_TURN_MS / 1000 / u64::from(threads)).clamp(1, TURN)
        })
    }

    /// A place that nothing is mapped at.
    fn free_slot(&mut self, nth: usize) -> u64 {
        let space = &mut self.spaces[nth];
        loop {
            let slot = match self.mix.place {
                Place::Sequential => space.next % self.slots,
                Place::Random => self.random.below(self.slots),
            };
            space.next = (slot + 1) % self.slots;
            if space.taken.insert(slot) {
                return slot;
            }
        }
    }

    /// Memory for a request.
    fn memory(&mut self, operation: Operation, pages: u64) -> Pages {
        let all = self.rig.buffer_pages();
        match operation {
            Operation::List => Pages::List((0..pages).map(|_| self.random.below(all)).collect()),
            _ => Pages::Run(self.random.below(all - pages + 1)),
        }
    }

    /// The request that an unmap or a replacement is of.
    fn pick(&mut self, nth: usize, order: Order) -> usize {
        let live = self.spaces[nth].live.len();
        match order {
            Order::Fifo => 0,
            Order::Lifo => live - 1,
            Order::Random => self.random.below(live as u64) as usize,
        }
    }

    fn unmap_one(&mut self, nth: usize, meters: &mut Meters) -> anyhow::Result<()> {
        let which = self.pick(nth, self.mix.order);
        let (rig, share, slot) = (self.rig, self.share, self.mix.slot());
        let space = &mut self.spaces[nth];
        let Some(request) = space.live.get(which) else { return Ok(()) };
        let container = &rig.containers[nth];
        let bus = container.bus(share.first + request.slot * slot);
        let bytes = request.pages << rig.page().get();
        let done = meters.time_unmap(|| -> Result<Receipt, UnmapError> {
            match &mut space.handle {
                Some((handle, _)) => handle.unmap(bus, bytes),
                None => container.unmap(bus, bytes),
            }
        })?;
        let wanted = request.pages;
        ensure!(done.tces == wanted, "of {wanted} pages of a request, {} were mapped", done.tces);
        space.taken.remove(&request.slot);
        // Whoever takes a random one does not need the others in order.
        match self.mix.order {
            Order::Random => drop(space.live.swap_remove_back(which)),
            _ => drop(space.live.remove(which)),
        }
        self.called(nth, meters);
        Ok(())
    }

    /// A call was made; it may have been the last of a batch.
    fn called(&mut self, nth: usize, meters: &mut Meters) {
        let Some((handle, calls)) = &mut self.spaces[nth].handle else { return };
        *calls += 1;
        if self.batch.is_some_and(|batch| *calls >= batch) {
            *calls = 0;
            meters.submitted(handle.submit());
        }
    }

    /// One operation, with the unmaps that it needs; entries that it wrote.
    fn step(&mut self, meters: &mut Meters) -> anyhow::Result<u64> {
        let nth = self.turn % self.spaces.len();
        self.turn += 1;
        let number = self.random.below(self.mix.operations.total());
        let mut operation = self.mix.operations.pick(number);
        let live = self.spaces[nth].live.len();
        if operation == Operation::Replace {
            if live > 0 {
                return self.replace(nth, meters);
            }
            operation = Operation::Map;
        }
        if live >= self.mix.live as usize {
            for _ in 0..self.mix.burst {
                self.unmap_one(nth, meters)?;
            }
        }
        let pages = self.mix.pages.pick(self.random.below(self.mix.pages.total()));
        let memory = self.memory(operation, pages);
        let request = Request { slot: self.free_slot(nth), pages, memory };
        self.map_one(nth, operation, &request, Mode::Refuse, meters)?;
        self.spaces[nth].live.push_back(request);
        Ok(pages)
    }

    fn replace(&mut self, nth: usize, meters: &mut Meters) -> anyhow::Result<u64> {
        let which = self.pick(nth, Order::Random);
        let Request { slot, pages, .. } = self.spaces[nth].live[which];
        let request = Request { slot, pages, memory: self.memory(Operation::Replace, pages) };
        let done = self.map_one(nth, Operation::Replace, &request, Mode::Replace, meters)?;
        let live = done.released;
        ensure!(live == pages, "{live} of {pages} entries were there to be replaced");
        self.spaces[nth].live[which] = request;
        Ok(pages)
    }

    fn map_one(
        &mut self,
        nth: usize,
        operation: Operation,
        request: &Request,
        mode: Mode,
        meters: &mut Meters,
    ) -> anyhow::Result<Receipt> {
        let (rig, page, perm) = (self.rig, self.rig.page(), Perm::READ_WRITE);
        let container = &rig.containers[nth];
        let bus = container.bus(self.share.first + request.slot * self.mix.slot());
        let handle = &mut self.spaces[nth].handle;
        // The list is the caller's: making it is not the engine's time.
        let list: Vec<_> = match &request.memory {
            Pages::List(list) => list.iter().map(|n| rig.buffer.page(*n, page)).collect(),
            Pages::Run(first) => vec![rig.buffer.page(*first, page)],
        };
        let bytes = request.pages << page.get();
        let call = || -> Result<Receipt, MapError> {
            match (operation, handle) {
                (Operation::List, Some((handle, _))) => handle.map_list(bus, &list, perm, mode),
                (Operation::List, None) => container.map_list(bus, &list, perm, mode),
                (_, Some((handle, _))) => handle.map(bus, list[0], bytes, perm, mode),
                (_, None) => container.map(bus, list[0], bytes, perm, mode),
            }
        };
        let at = Instant::now();
        let done = call()?;
        meters.operation(operation, (at, ns(at)), &done);
        self.called(nth, meters);
        Ok(done)
    }
}

impl Work for Mixed<'_> {
    fn restart(&mut self) {
        self.pacer = self.rate.map(|(rate, threads)| Pacer::new(Real::new(), rate.0, threads));
    }

    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for _ in 0..self.operations() {
            if let Some(pacer) = &mut self.pacer {
                pacer.begin();
            }
            // Perhaps while it waited.
            if interrupted() {
                break;
            }
            let tces = self.step(meters)?;
            if let Some(pacer) = &mut self.pacer {
                meters.responded(pacer.due_at(), pacer.end(), tces);
                meters.paced = Some(pacer.paced());
            }
        }
        Ok(())
    }

    /// Nothing: the next turn goes on where this one ended.
    fn unmap(&mut self, _: &mut Meters) -> anyhow::Result<()> {
        Ok(())
    }

    fn end(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for nth in 0..self.spaces.len() {
            while !self.spaces[nth].live.is_empty() {
                self.unmap_one(nth, meters)?;
            }
            if let Some((handle, _)) = &mut self.spaces[nth].handle {
                meters.submitted(handle.submit());
            }
        }
        Ok(())
    }

    /// No stretch: see [`Work::places`].
    fn mapped(&self) -> (u64, u64) {
        (0, 0)
    }

    fn places(&self) -> Vec<((usize, u64), u64)> {
        let mut places = Vec::new();
        for (nth, space) in self.spaces.iter().enumerate() {
            for request in &space.live {
                let first = self.share.first + request.slot * self.mix.slot();
                places.extend((0..request.pages).map(|n| ((nth, first + n), request.page(n))));
            }
        }
        places
    }
}
