// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes calls up. What is there decides what is likely, so that few of them are refused; a seed decides the
//! rest.

mod bad;
mod structural;

use std::ops::Range;

use tce_engine::addr::{DmaMask, GroupId, Ioba, PageShift, Uaddr};
use tce_engine::container::{MapRequest, Mode, UnmapRequest};
use tce_engine::kill::KillPolicy;
use tce_engine::tce::Perm;

use super::call::{By, Call};
use super::model::Window;
use super::world::World;
use crate::run::lists::Random;

/// Where a thread's memory is.
const MEMORY: u64 = 0x7000_0000_0000;
/// Bytes between the memory of two threads.
const APART: u64 = 1 << 40;
/// Pages of a thread that were handed out at most.
const GIVEN: u64 = 24;

/// See the [module](self).
pub(super) struct Draw {
    random: Random,
    /// Ranges of memory that may be registered; some overlap.
    candidates: Vec<(u64, u64)>,
    /// Groups that there are not, of this thread alone: while one tries to attach a group, others are told
    /// that it is elsewhere.
    nowhere: [GroupId; 2],
}

/// Ranges of memory of a thread, on a host with pages of so many bytes.
fn candidates(thread: u32, p: u64) -> Vec<(u64, u64)> {
    let base = MEMORY + u64::from(thread) * APART;
    let (m, g) = (1 << 20, 1 << 30);
    // Neighbours, with a hole behind; large ones, neighbours too, of which one is no whole number of 16M; one
    // that meets others.
    let all = [
        (0, 40 * p),
        (40 * p, 7 * p),
        (48 * p, 30 * p),
        (g, 64 * m),
        (g + 64 * m, 32 * m + p),
        (2 * g, p),
        (3 * g, 256 * p),
        (20 * p, 30 * p),
    ];
    all.map(|(start, bytes)| (base + start, bytes)).into()
}

impl Draw {
    pub(super) fn new(seed: u64, thread: u32, host: PageShift) -> Self {
        let candidates = candidates(thread, host.bytes());
        let nowhere = [0, 1].map(|n| GroupId(u32::MAX - 2 * thread - n));
        Self { random: Random::new(seed), candidates, nowhere }
    }

    /// The memory that a thread has from the beginning where a container is shared.
    pub(super) fn first_memory(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        [0, 3, 6].into_iter().map(|nth| self.candidates[nth])
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.below(end)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// The next call.
    pub(super) fn next(&mut self, world: &World<'_>) -> Call {
        let side = if world.real.len() > 1 && self.once_in(8) { 1 } else { 0 };
        if let Some(call) = self.rebuild(world, side) {
            return call;
        }
        let owing = world.policy != KillPolicy::Strict;
        match self.below(1024) {
            0..560 => self.single(world, side),
            560..720 => self.range(world, side),
            720..776 => self.list(world, side),
            776..820 => self.batch(world, side),
            820..912 => self.addresses(world),
            912..946 => self.question(world, side),
            946..974 if owing => self.settle(world, side),
            946..974 => self.single(world, side),
            974..980 => self.structural(world, side),
            980..982 => self.long(world, side),
            _ => self.bad(world, side),
        }
    }

    /// One of the windows, and its slot.
    fn window<'a>(&mut self, world: &'a World<'_>, side: usize) -> (usize, &'a Window) {
        let windows = &world.model.sides[side].windows;
        let first = self.below(2) as usize;
        let slot = if windows[first].is_some() { first } else { 1 - first };
        (slot, windows[slot].as_ref().expect("without a window there is another call"))
    }

    fn by(&mut self, world: &World<'_>, side: usize) -> By {
        match self.below(4) {
            0 => By::Anybody,
            n => By::Handle(n as usize % world.real[side].handles.len()),
        }
    }

    fn perm(&mut self) -> Perm {
        self.one_of(&[Perm::READ, Perm::WRITE, Perm::READ_WRITE])
    }

    /// Mostly among the same few, and where leaves, tiles and windows begin and end.
    fn place(&mut self, all: &Range<u64>) -> u64 {
        let length = all.end - all.start;
        let about = |place: u64, random: u64| place.saturating_sub(8) + random % 16;
        let random = self.random.next() >> 8;
        let offset = match self.below(16) {
            0..11 => random % 64,
            11 => about(512, random),
            12 => about(1024, random),
            13 => about(8192, random),
            14 => length - 1 - random % 4,
            _ => random,
        };
        all.start + offset % length
    }

    /// Registered memory for so many pages in a row, or what is nearly that.
    fn memory(&mut self, world: &World<'_>, side: usize, page: PageShift, pages: u64) -> Uaddr {
        let regions = &world.model.sides[side].regions;
        let mut first = 0;
        for _ in 0..8 {
            let nth = self.below(regions.len() as u64) as usize;
            let (start, region) = regions.iter().nth(nth).expect("below their number");
            first = start.next_multiple_of(page.bytes());
            let end = start + region.bytes;
            let room = end.saturating_sub(first) >> page.get();
            if room >= pages {
                let at = first + (self.below(room - pages + 1) << page.get());
                // Sometimes on into the next region, if that is there.
                let far = pages > 1 && self.once_in(64);
                return Uaddr(if far { first + ((room - 1) << page.get()) } else { at });
            }
        }
        Uaddr(first)
    }

    /// A page that is mapped or not, and mostly what can be done with it.
    fn single(&mut self, world: &World<'_>, side: usize) -> Call {
        let (slot, window) = self.window(world, side);
        let entry = self.place(&world.territory(side, slot));
        let (at, page) = (window.bus(entry), window.page);
        let by = self.by(world, side);
        let unmap = Call::Unmap(side, by, UnmapRequest { at, bytes: page.bytes() });
        let live = window.live.contains_key(&entry);
        let mode = match (live, self.below(16)) {
            (true, 0..9) | (false, 0) => return unmap,
            (true, 9 | 10) => return Call::Requested(side, at),
            (true, 11) | (false, 1..13) => Mode::Refuse,
            (true, _) | (false, _) => Mode::Replace,
        };
        let memory = self.memory(world, side, page, 1);
        let request = MapRequest { at, memory, bytes: page.bytes(), perm: self.perm() };
        Call::Map(side, by, request, mode)
    }

    /// A few pages from somewhere on, all of this thread's.
    fn stretch(&mut self, all: &Range<u64>, most: u64) -> (u64, u64) {
        let first = self.place(all);
        (first, (1 + self.below(most)).min(all.end - first))
    }

    /// Refused only now and then where something is mapped.
    fn mode(&mut self, window: &Window, first: u64, count: u64) -> Mode {
        let live = window.live.range(first..first + count).next().is_some();
        if self.once_in(if live { 16 } else { 2 }) { Mode::Refuse } else { Mode::Replace }
    }

    fn range(&mut self, world: &World<'_>, side: usize) -> Call {
        self.some(world, side, 8)
    }

    fn long(&mut self, world: &World<'_>, side: usize) -> Call {
        self.some(world, side, 1024)
    }

    fn some(&mut self, world: &World<'_>, side: usize, most: u64) -> Call {
        let (slot, window) = self.window(world, side);
        let (first, count) = self.stretch(&world.territory(side, slot), most);
        let (at, by, bytes) = (window.bus(first), self.by(world, side), count << window.page.get());
        if self.below(9) < 5 {
            return Call::Unmap(side, by, UnmapRequest { at, bytes });
        }
        let memory = self.memory(world, side, window.page, count);
        let mode = self.mode(window, first, count);
        Call::Map(side, by, MapRequest { at, memory, bytes, perm: self.perm() }, mode)
    }

    fn list(&mut self, world: &World<'_>, side: usize) -> Call {
        let (slot, window) = self.window(world, side);
        let most = if self.once_in(64) { 512 } else { 8 };
        let (first, count) = self.stretch(&world.territory(side, slot), most);
        let pages = (0..count).map(|_| self.memory(world, side, window.page, 1)).collect();
        let mode = self.mode(window, first, count);
        let by = self.by(world, side);
        Call::List(side, by, window.bus(first), pages, self.perm(), mode)
    }

    /// Requests of a window, in order or not, some of which go on where another ends.
    fn batch(&mut self, world: &World<'_>, side: usize) -> Call {
        let (slot, window) = self.window(world, side);
        let all = world.territory(side, slot);
        let (mut next, by) = (self.place(&all), self.by(world, side));
        let number = 2 + self.below(4);
        let mut places = Vec::with_capacity(number as usize);
        for _ in 0..number {
            next += [0, 0, 1, 3][self.below(4) as usize];
            let count = 1 + self.below(3);
            if next + count > all.end {
                break;
            }
            places.push((next, count));
            next += count;
        }
        if self.once_in(4) {
            places.reverse();
        }
        let page = window.page;
        let live =
            |(first, count): &(u64, u64)| window.live.range(*first..first + count).next().is_some();
        if self.below(9) < 5 {
            let request = |(first, count): &(u64, u64)| UnmapRequest {
                at: window.bus(*first),
                bytes: count << page.get(),
            };
            return Call::UnmapBatch(side, by, places.iter().map(request).collect());
        }
        let mode =
            if places.iter().any(live) && !self.once_in(16) { Mode::Replace } else { Mode::Refuse };
        let (mut perm, mut memory) = (self.perm(), Uaddr(0));
        let mut requests = Vec::with_capacity(places.len());
        for (first, count) in places {
            let bytes = count << page.get();
            if memory == Uaddr(0) || self.once_in(2) {
                (memory, perm) = (self.memory(world, side, page, 2 * count), self.perm());
            }
            requests.push(MapRequest { at: window.bus(first), memory, bytes, perm });
            memory = Uaddr(memory.0 + bytes);
        }
        Call::Batch(side, by, requests, mode)
    }

    /// By the handle that has an allocator, if it has one now.
    fn addresses(&mut self, world: &World<'_>) -> Call {
        let side = &world.model.sides[0];
        if world.real[0].addresses.is_none() || side.regions.is_empty() {
            return self.single_or_question(world);
        }
        let given = world.model.given_pages(0);
        if given >= GIVEN || given > 0 && self.once_in(2) {
            let nth = self.below(side.given.len() as u64) as usize;
            let (at, pages) = side.given.iter().nth(nth).expect("below their number");
            let bytes = pages << world.model.window(0, 0).page.get();
            return Call::Free(0, 0, UnmapRequest { at: Ioba(*at), bytes });
        }
        let page = world.model.window(0, 0).page;
        let pages = if self.once_in(4) { 1 + self.below(4) } else { 1 };
        let memory = self.memory(world, 0, page, pages);
        Call::Alloc(0, 0, memory, pages << page.get(), self.perm())
    }

    fn single_or_question(&mut self, world: &World<'_>) -> Call {
        match self.rebuild(world, 0) {
            Some(call) => call,
            None => self.single(world, 0),
        }
    }

    fn question(&mut self, world: &World<'_>, side: usize) -> Call {
        let (slot, window) = self.window(world, side);
        match self.below(16) {
            0 => {
                let memory = self.memory(world, side, window.page, 1);
                Call::Resolve(side, memory, self.below(8) << world.machine.host.get())
            }
            1 => {
                let bits = 13 + self.below(52) as u32;
                Call::WindowFor(side, DmaMask::new(bits).unwrap_or(DmaMask::ALL))
            }
            _ => {
                let entry = self.place(&world.territory(side, slot));
                let inside = self.below(window.page.bytes());
                Call::Requested(side, Ioba(window.bus(entry).0 + inside))
            }
        }
    }

    fn settle(&mut self, world: &World<'_>, side: usize) -> Call {
        if self.once_in(8) && !world.shared() {
            return Call::Retire(side);
        }
        Call::Submit(side, self.below(world.real[side].handles.len() as u64) as usize)
    }
}
