// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Calls that change groups, windows and registrations.

use tce_engine::addr::{GroupId, PageShift, Uaddr};
use tce_engine::container::Removal;
use tce_engine::geometry::{Levels, WindowSpec};

use super::super::call::Call;
use super::super::machine::GROUPS;
use super::super::world::{Company, World};
use super::Draw;

impl Draw {
    /// What has to be there before anything can be mapped.
    pub(super) fn rebuild(&mut self, world: &World<'_>, side: usize) -> Option<Call> {
        let here = &world.model.sides[side];
        if here.members.is_empty() {
            return Some(self.attach(world, side));
        }
        if here.windows.iter().all(Option::is_none) {
            return Some(self.create(world, side));
        }
        if here.regions.is_empty() {
            return Some(self.register(side));
        }
        None
    }

    pub(super) fn structural(&mut self, world: &World<'_>, side: usize) -> Call {
        if let Company::Shared { nth, .. } = world.company {
            return self.beside_others(world, nth);
        }
        let here = &world.model.sides[side];
        match self.below(16) {
            0..3 => self.attach(world, side),
            3..5 => self.detach(world, side),
            5..7 if here.windows.iter().any(Option::is_none) => self.create(world, side),
            5..8 => self.remove(world, side),
            8..12 => self.register(side),
            12..15 => self.unregister(world, side),
            // The first container has the allocator and most of the calls; it ends when its last group leaves.
            _ if side > 0 => Call::Close(side),
            _ => self.attach(world, side),
        }
    }

    /// What does not change what the other threads of a container have to find.
    fn beside_others(&mut self, world: &World<'_>, nth: u32) -> Call {
        match self.below(4) {
            0 if nth == 0 => {
                let group = GroupId(world.first_group + 1 + self.below(3) as u32);
                let member = world.model.sides[0].members.contains(&group);
                if member { Call::Detach(0, group) } else { Call::Attach(0, group) }
            }
            0 | 1 if world.model.sides[0].regions.len() > 1 => self.unregister(world, 0),
            _ => self.register(0),
        }
    }

    fn attach(&mut self, world: &World<'_>, side: usize) -> Call {
        let first = self.below(GROUPS.into()) as u32;
        let mut groups = (0..GROUPS).map(|n| GroupId(world.first_group + (first + n) % GROUPS));
        let taken = |group: &GroupId| world.model.sides.iter().any(|s| s.members.contains(group));
        let free = groups.find(|group| !taken(group));
        match free {
            // The last of the groups may not fit.
            Some(group) => Call::Attach(side, group),
            None if world.model.sides[side].members.is_empty() => {
                // The other container has all of them.
                Call::Detach(1 - side, GroupId(world.first_group + first))
            }
            None => self.detach(world, side),
        }
    }

    fn detach(&mut self, world: &World<'_>, side: usize) -> Call {
        let members = &world.model.sides[side].members;
        if members.len() == 1 && !self.once_in(16) {
            return self.register(side);
        }
        let group = self.one_of(members);
        Call::Detach(side, group)
    }

    /// Pages that the machine's memory is good for.
    fn page(&mut self, world: &World<'_>) -> PageShift {
        let machine = &world.machine;
        let good = |page: &PageShift| machine.contiguous || *page <= machine.backing;
        let offered = machine.platform.page_sizes().iter();
        let good: Vec<_> = offered.filter(good).filter(|page| *page <= PageShift::M16).collect();
        self.one_of(&good)
    }

    pub(super) fn create(&mut self, world: &World<'_>, side: usize) -> Call {
        let page = self.page(world);
        // Up to two leaves and their lock's segments.
        let pages = 1 << self.below(15);
        let levels = match self.below(6) {
            0 => Levels::Auto,
            n => Levels::Exactly(n.min(4) as u32),
        };
        Call::Create(side, WindowSpec { size: pages << page.get(), page, levels })
    }

    fn remove(&mut self, world: &World<'_>, side: usize) -> Call {
        let (_, window) = self.window(world, side);
        let clean = window.live.is_empty() || self.once_in(8);
        let removal = if clean { Removal::IfUnmapped } else { Removal::Force };
        Call::Remove(side, window.bus(0), removal)
    }

    pub(super) fn register(&mut self, side: usize) -> Call {
        let nth = self.below(self.candidates.len() as u64) as usize;
        let (start, bytes) = self.candidates[nth];
        Call::Register(side, Uaddr(start), bytes)
    }

    /// One that nothing points into, if there is one; now and then another.
    fn unregister(&mut self, world: &World<'_>, side: usize) -> Call {
        let regions = &world.model.sides[side].regions;
        let any = self.below(regions.len() as u64) as usize;
        let unused = regions.iter().find(|(_, region)| region.mapped == 0);
        let found = match unused {
            Some(unused) if !self.once_in(4) => Some(unused),
            _ => regions.iter().nth(any),
        };
        let (start, region) = found.expect("there is one, or another call");
        Call::Unregister(side, Uaddr(*start), region.bytes)
    }
}
