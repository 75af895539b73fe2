// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Calls that have to be refused, each by another check.

use tce_engine::addr::{Ioba, PageShift, Uaddr};
use tce_engine::container::{LIST_MAX, MapRequest, Mode, Removal, UnmapRequest};
use tce_engine::geometry::{Levels, WindowSpec};
use tce_engine::tce::Perm;

use super::super::call::{By, Call};
use super::super::world::World;
use super::Draw;

impl Draw {
    pub(super) fn bad(&mut self, world: &World<'_>, side: usize) -> Call {
        let by = self.by(world, side);
        match self.below(16) {
            0..6 => {
                let request = self.bad_map(world, side);
                Call::Map(side, by, request, Mode::Replace)
            }
            6..9 => {
                let request = self.bad_map(world, side);
                Call::Unmap(
                    side,
                    by,
                    UnmapRequest { at: self.bad_bus(world, side), ..unmap(request) },
                )
            }
            9 | 10 => self.bad_list(world, side, by),
            11 | 12 => self.bad_batch(world, side, by),
            13 => self.bad_address(world, side),
            _ => self.bad_structure(world, side),
        }
    }

    /// A range that is not of a window's pages, though it may begin like one.
    fn bad_bus(&mut self, world: &World<'_>, side: usize) -> Ioba {
        let (_, window) = self.window(world, side);
        let end = window.bus(window.shape.entries).0;
        Ioba(match self.below(5) {
            0 => end,
            1 => end - 1,
            2 => u64::MAX - self.below(3) * 4095,
            3 => self.random.next(),
            _ => window.start + 1 + self.below(window.page.bytes() - 1),
        })
    }

    fn bad_map(&mut self, world: &World<'_>, side: usize) -> MapRequest {
        let (slot, window) = self.window(world, side);
        let page = window.page;
        let all = world.territory(side, slot);
        let entry = self.place(&all);
        let at = window.bus(entry);
        let memory = self.memory(world, side, page, 1);
        let good = MapRequest { at, memory, bytes: page.bytes(), perm: self.perm() };
        match self.below(9) {
            0 => MapRequest { perm: Perm::NONE, ..good },
            1 => MapRequest { bytes: 0, ..good },
            2 => MapRequest { at: self.bad_bus(world, side), ..good },
            3 => MapRequest { bytes: page.bytes() + 1 + self.below(page.bytes() - 1), ..good },
            4 => MapRequest { memory: Uaddr(memory.0 + 1 + self.below(page.bytes() - 1)), ..good },
            5 => MapRequest { memory: self.nowhere(page), ..good },
            // From the last page on, or all of the address space.
            6 => MapRequest {
                at: window.bus(window.shape.entries - 1),
                bytes: 2 << page.get(),
                ..good
            },
            7 => MapRequest { bytes: (u64::MAX >> page.get()) << page.get(), ..good },
            _ => {
                let bytes = (all.end - entry).min(16) << page.get();
                MapRequest { memory: self.end_of_memory(world, side, page), bytes, ..good }
            }
        }
    }

    /// Memory that nobody has registered.
    fn nowhere(&mut self, page: PageShift) -> Uaddr {
        let at = match self.below(3) {
            0 => u64::MAX,
            1 => 0,
            _ => self.random.next(),
        };
        Uaddr(at & !(page.bytes() - 1))
    }

    /// The last page of a region, behind which another may follow.
    fn end_of_memory(&mut self, world: &World<'_>, side: usize, page: PageShift) -> Uaddr {
        let regions = &world.model.sides[side].regions;
        let nth = self.below(regions.len() as u64) as usize;
        let (start, region) = regions.iter().nth(nth).expect("below their number");
        Uaddr((start + region.bytes - 1) & !(page.bytes() - 1))
    }

    fn bad_list(&mut self, world: &World<'_>, side: usize, by: By) -> Call {
        let (slot, window) = self.window(world, side);
        let at = window.bus(self.place(&world.territory(side, slot)));
        let good = self.memory(world, side, window.page, 1);
        let (at, pages) = match self.below(8) {
            0 => (at, vec![good; LIST_MAX + 1]),
            1 => (at, Vec::new()),
            2 => (self.bad_bus(world, side), vec![good; 3]),
            3 | 4 => (at, vec![good, Uaddr(good.0 + 1)]),
            5 => (window.bus(window.shape.entries - 1), vec![good; 2]),
            _ => (at, vec![self.nowhere(window.page), good]),
        };
        Call::List(side, by, at, pages, self.perm(), Mode::Replace)
    }

    fn bad_batch(&mut self, world: &World<'_>, side: usize, by: By) -> Call {
        let (slot, window) = self.window(world, side);
        let all = world.territory(side, slot);
        let (at, bytes) = (window.bus(self.place(&all)), window.page.bytes());
        let other = match (self.below(3), &world.model.sides[side].windows[1 - slot]) {
            // Another window, if there is one; the same page once more; what is bad by itself.
            (0, Some(other)) => other.bus(0),
            (0 | 1, _) => at,
            _ => self.bad_bus(world, side),
        };
        if self.once_in(2) {
            let requests = [at, other].map(|at| UnmapRequest { at, bytes });
            return Call::UnmapBatch(side, by, requests.into());
        }
        let memory = self.memory(world, side, window.page, 1);
        let perm = self.perm();
        let requests = [at, other].map(|at| MapRequest { at, memory, bytes, perm });
        Call::Batch(side, by, requests.into(), Mode::Replace)
    }

    /// By a handle without an allocator, or of an address that none has handed out.
    fn bad_address(&mut self, world: &World<'_>, side: usize) -> Call {
        let last = world.real[side].handles.len() - 1;
        let (_, window) = self.window(world, side);
        let (at, bytes) = (window.bus(0), window.page.bytes());
        match (self.below(3), &world.real[0].addresses) {
            (0, Some(_)) => {
                let window = world.model.window(0, 0);
                // In the lower half.
                let bytes = window.page.bytes();
                Call::Free(0, 0, UnmapRequest { at: window.bus(self.below(64)), bytes })
            }
            (1, Some(_)) => {
                let page = world.model.window(0, 0).page;
                Call::Alloc(0, 0, Uaddr(at.0), page.bytes() + 1, self.perm())
            }
            _ if last == 0 && side == 0 => Call::Requested(0, Ioba(u64::MAX)),
            (2, _) => Call::Alloc(side, last, Uaddr(at.0), bytes, self.perm()),
            _ => Call::Free(side, last, UnmapRequest { at, bytes }),
        }
    }

    fn bad_structure(&mut self, world: &World<'_>, side: usize) -> Call {
        let (start, bytes) = self.candidates[0];
        let page = world.machine.host.bytes();
        let all = self.nowhere;
        let nowhere = self.one_of(&all);
        let create = |size, page, levels| {
            Call::Create(side, WindowSpec { size, page, levels: Levels::Exactly(levels) })
        };
        let change = match self.below(12) {
            0 => Call::Register(side, Uaddr(start), 0),
            1 => Call::Register(side, Uaddr(start + 1), bytes),
            2 => Call::Register(side, Uaddr(!(page - 1)), 2 * page),
            3 => Call::Unregister(side, Uaddr(start), bytes + page),
            4 => Call::Attach(side, nowhere),
            5 => Call::Detach(side, nowhere),
            6 => Call::Attach(side, self.one_of(&world.model.sides[side].members)),
            7 => create(3 << 20, PageShift::K4, 1),
            8 => create(1 << 30, PageShift::K4, self.one_of(&[0, 6, u32::MAX])),
            9 => create(1 << 50, PageShift::K4, 5),
            10 => create(1 << 20, PageShift::new(13).unwrap_or(PageShift::K4), 1),
            _ => {
                let (_, window) = self.window(world, side);
                Call::Remove(side, Ioba(window.start + (1 << 12)), Removal::Force)
            }
        };
        // It would be refused as well, but others wait meanwhile.
        let of_windows = matches!(change, Call::Create(..) | Call::Remove(..));
        if world.shared() && of_windows { Call::Requested(side, Ioba(u64::MAX)) } else { change }
    }
}

fn unmap(request: MapRequest) -> UnmapRequest {
    UnmapRequest { at: request.at, bytes: request.bytes }
}
