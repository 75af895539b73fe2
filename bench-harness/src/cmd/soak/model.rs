// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the engine has to do, with plain maps: what is mapped where, what is registered, who is a member,
//! what is charged. One call after the other, and nothing that would make it fast.

pub(super) mod shape;
mod structure;

use std::collections::BTreeMap;

use tce_engine::addr::{GroupId, Ioba, PageShift, PageSizes, Uaddr};
use tce_engine::backend::{FillRule, MAX_WINDOWS};
use tce_engine::container::{LIST_MAX, MapRequest, Mode, UnmapRequest};
use tce_engine::error::{MapError, UnmapError};
use tce_engine::tce::Perm;

use super::machine::{FEW_LEVELS, FEW_PAGES, GROUPS, Machine};
use shape::Shape;

/// What is mapped at an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) memory: u64,
    /// What was asked for.
    pub(super) perm: Perm,
}

/// A window and what is mapped in it, by number of the entry.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) page: PageShift,
    pub(super) shape: Shape,
    pub(super) live: BTreeMap<u64, Mapped>,
}

impl Window {
    pub(super) fn bus(&self, entry: u64) -> Ioba {
        Ioba(self.start + (entry << self.page.get()))
    }

    fn covers(&self, at: u64) -> bool {
        at >= self.start && (at - self.start) >> self.page.get() < self.shape.entries
    }

    fn live_in(&self, first: u64, count: u64) -> u64 {
        self.live.range(first..first + count).count() as u64
    }
}

/// Memory that a container has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) bytes: u64,
    pub(super) mapped: u64,
}

/// A container.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    /// In order of joining.
    pub(super) members: Vec<GroupId>,
    pub(super) windows: [Option<Window>; MAX_WINDOWS],
    /// By start.
    pub(super) regions: BTreeMap<u64, Region>,
    /// Runs of addresses that were handed out: start and pages.
    pub(super) given: BTreeMap<u64, u64>,
}

/// What a call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Done {
    pub(super) tces: u64,
    pub(super) released: u64,
    pub(super) requests: u64,
    /// Pages to be killed, times members; and stores. Only of calls that kill by themselves.
    pub(super) asked: u64,
    pub(super) issued: u64,
}

/// Errors that are put into the model, to see that somebody notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// A page that is mapped counts twice.
    CountTwice,
    /// What is unmapped stays.
    KeepUnmapped,
    /// What is replaced still counts.
    KeepReplaced,
    /// Writing does not imply reading.
    WriteOnly,
    /// Fills are not killed.
    QuietFills,
    /// Tables cost nothing.
    FreeTables,
    /// Who leaves stays a member.
    NobodyLeaves,
    /// A refused map still maps.
    RefusedMaps,
    /// Memory that is mapped can be given back.
    GiveMappedBack,
    /// An address can be handed out twice.
    GiveTwice,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Model {
    machine: Machine,
    /// The first group of this thread.
    first_group: u32,
    pub(super) sides: Vec<Side>,
    /// Regions of the process: bytes and containers that use them, by start.
    pub(super) registry: BTreeMap<u64, (u64, u64)>,
    /// What is wrong with it.
    pub(super) mistake: Option<Mistake>,
}

/// The entries that a bus range means: slot, first, number.
type Place = (usize, u64, u64);

enum RangeError {
    Nothing,
    Unaligned(&'static str, u64, PageShift),
    Outside,
}

impl Model {
    pub(super) fn new(machine: Machine, first_group: u32, sides: usize) -> Self {
        let sides = vec![Side::default(); sides];
        Self { machine, first_group, sides, registry: BTreeMap::new(), mistake: None }
    }

    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// What a group offers, if there is such a group.
    fn group(&self, group: GroupId) -> Option<(PageSizes, u32)> {
        let platform = self.machine.platform;
        match group.0.checked_sub(self.first_group) {
            Some(nth) if nth == GROUPS - 1 => Some((FEW_PAGES, FEW_LEVELS)),
            Some(nth) if nth < GROUPS => Some((platform.page_sizes(), platform.max_levels())),
            _ => None,
        }
    }

    /// The permission that the table holds.
    pub(super) fn in_table(&self, perm: Perm) -> Perm {
        if self.is(Mistake::WriteOnly) { perm } else { perm.powernv() }
    }

    fn window_at(&self, side: usize, at: Ioba) -> Option<(usize, &Window)> {
        let mut windows = self.sides[side].windows.iter().enumerate();
        windows.find_map(|(slot, w)| Some((slot, w.as_ref().filter(|w| w.covers(at.0))?)))
    }

    /// The last window that begins at or below a bus address.
    pub(super) fn window_below(&self, side: usize, at: Ioba) -> Option<(usize, &Window)> {
        let windows = self.sides[side].windows.iter().enumerate();
        let below = windows.filter_map(|(slot, w)| Some((slot, w.as_ref()?)));
        below.rev().find(|(_, window)| window.start <= at.0)
    }

    fn range(&self, side: usize, at: Ioba, bytes: u64) -> Result<Place, RangeError> {
        let (slot, window) = self.window_at(side, at).ok_or(RangeError::Outside)?;
        if bytes == 0 {
            return Err(RangeError::Nothing);
        }
        for (what, value) in [("bus address", at.0), ("length", bytes)] {
            if !value.is_multiple_of(window.page.bytes()) {
                return Err(RangeError::Unaligned(what, value, window.page));
            }
        }
        let (first, count) =
            ((at.0 - window.start) >> window.page.get(), bytes >> window.page.get());
        if count > window.shape.entries - first {
            return Err(RangeError::Outside);
        }
        Ok((slot, first, count))
    }

    fn map_range(&self, side: usize, at: Ioba, bytes: u64, perm: Perm) -> Result<Place, MapError> {
        if perm == Perm::NONE {
            return Err(MapError::Nothing(at));
        }
        self.range(side, at, bytes).map_err(|e| match e {
            RangeError::Nothing => MapError::Nothing(at),
            RangeError::Outside => MapError::OutsideWindows { start: at, bytes },
            RangeError::Unaligned(what, value, page) => MapError::Unaligned { what, value, page },
        })
    }

    fn unmap_range(&self, side: usize, at: Ioba, bytes: u64) -> Result<Place, UnmapError> {
        self.range(side, at, bytes).map_err(|e| match e {
            RangeError::Nothing => UnmapError::Nothing(at),
            RangeError::Outside => UnmapError::OutsideWindows { start: at, bytes },
            RangeError::Unaligned(what, value, page) => UnmapError::Unaligned { what, value, page },
        })
    }

    /// The region that an address of the process is in: its start.
    pub(super) fn region_of(&self, side: usize, at: u64) -> Option<(u64, Region)> {
        let (start, region) = self.sides[side].regions.range(..=at).next_back()?;
        (at - start < region.bytes).then_some((*start, *region))
    }

    /// Whether one page of memory can be mapped.
    fn usable(&self, side: usize, at: u64, page: PageShift) -> Result<(), MapError> {
        let not = |at| Err(MapError::NotRegistered { at: Uaddr(at) });
        let Some((start, region)) = self.region_of(side, at) else { return not(at) };
        let backing = self.machine.backing;
        if page > backing && !self.machine.contiguous {
            return Err(MapError::BackingTooSmall { at: Uaddr(at), backing, page });
        }
        let end = start + region.bytes;
        if end - at < page.bytes() { not(end) } else { Ok(()) }
    }

    fn all_usable(
        &self,
        side: usize,
        memory: Uaddr,
        count: u64,
        page: PageShift,
    ) -> Result<(), MapError> {
        if memory.0.checked_add(count * page.bytes()).is_none() {
            return Err(MapError::NotRegistered { at: memory });
        }
        (0..count).try_for_each(|n| self.usable(side, memory.0 + n * page.bytes(), page))
    }

    fn page(&self, side: usize, slot: usize) -> PageShift {
        self.window(side, slot).page
    }

    pub(super) fn window(&self, side: usize, slot: usize) -> &Window {
        self.sides[side].windows[slot].as_ref().expect("a place is in a window")
    }

    fn window_mut(&mut self, side: usize, slot: usize) -> &mut Window {
        self.sides[side].windows[slot].as_mut().expect("a place is in a window")
    }

    fn aligned(memory: Uaddr, page: PageShift) -> Result<(), MapError> {
        if memory.0.is_multiple_of(page.bytes()) {
            return Ok(());
        }
        Err(MapError::Unaligned { what: "user address", value: memory.0, page })
    }

    fn admit(&self, mode: Mode, start: Ioba, live: u64) -> Result<(), MapError> {
        if mode == Mode::Refuse && live > 0 && !self.is(Mistake::RefusedMaps) {
            return Err(MapError::Overlap { start, live });
        }
        Ok(())
    }

    /// Stores to kill registers for so many pages.
    fn stores(&self, side: usize, pages: u64) -> u64 {
        let most = self.machine.kill().max_page_kills;
        let each = if pages > most { 1 } else { pages };
        each * self.sides[side].members.len() as u64
    }

    fn kills(&self, side: usize, pages: u64) -> (u64, u64) {
        (pages * self.sides[side].members.len() as u64, self.stores(side, pages))
    }

    fn set(&mut self, side: usize, slot: usize, entry: u64, new: Option<Mapped>) -> bool {
        let keep = self.is(Mistake::KeepUnmapped) && new.is_none();
        let live = &mut self.window_mut(side, slot).live;
        let old = match new {
            _ if keep => live.get(&entry).copied(),
            Some(new) => live.insert(entry, new),
            None => live.remove(&entry),
        };
        if let Some(new) = new {
            let by = if self.is(Mistake::CountTwice) { 2 } else { 1 };
            self.count(side, new.memory, by);
        }
        if let Some(old) = old
            && !(self.is(Mistake::KeepReplaced) && new.is_some())
        {
            self.count(side, old.memory, -1);
        }
        old.is_some()
    }

    fn count(&mut self, side: usize, memory: u64, by: i64) {
        if let Some((start, _)) = self.region_of(side, memory)
            && let Some(region) = self.sides[side].regions.get_mut(&start)
        {
            region.mapped = region.mapped.wrapping_add_signed(by);
        }
    }

    fn filled(&self, side: usize, tces: u64, released: u64, requests: u64) -> Done {
        let all = self.machine.fill == FillRule::Always && !self.is(Mistake::QuietFills);
        let (asked, issued) = self.kills(side, if all { tces } else { released });
        Done { tces, released, requests, asked, issued }
    }

    fn cleared(&self, side: usize, released: u64, requests: u64) -> Done {
        let (asked, issued) = self.kills(side, released);
        Done { tces: released, released, requests, asked, issued }
    }

    pub(super) fn map(
        &mut self,
        side: usize,
        request: &MapRequest,
        mode: Mode,
    ) -> Result<Done, MapError> {
        let MapRequest { at, memory, bytes, perm } = *request;
        let (slot, first, count) = self.map_range(side, at, bytes, perm)?;
        let page = self.page(side, slot);
        Self::aligned(memory, page)?;
        self.all_usable(side, memory, count, page)?;
        self.admit(mode, at, self.window(side, slot).live_in(first, count))?;
        let mut released = 0;
        for n in 0..count {
            let new = Mapped { memory: memory.0 + n * page.bytes(), perm };
            released += u64::from(self.set(side, slot, first + n, Some(new)));
        }
        Ok(self.filled(side, count, released, 1))
    }

    pub(super) fn map_list(
        &mut self,
        side: usize,
        at: Ioba,
        pages: &[Uaddr],
        perm: Perm,
        mode: Mode,
    ) -> Result<Done, MapError> {
        if pages.len() > LIST_MAX {
            return Err(MapError::ListTooLong { count: pages.len(), limit: LIST_MAX });
        }
        let outside = MapError::OutsideWindows { start: at, bytes: 0 };
        let page = self.window_at(side, at).ok_or(outside)?.1.page;
        let bytes = pages.len() as u64 * page.bytes();
        let (slot, first, count) = self.map_range(side, at, bytes, perm)?;
        for memory in pages {
            Self::aligned(*memory, page)?;
            self.all_usable(side, *memory, 1, page)?;
        }
        self.admit(mode, at, self.window(side, slot).live_in(first, count))?;
        let mut released = 0;
        for (entry, memory) in (first..).zip(pages) {
            let new = Mapped { memory: memory.0, perm };
            released += u64::from(self.set(side, slot, entry, Some(new)));
        }
        Ok(self.filled(side, count, released, 1))
    }

    pub(super) fn map_batch(
        &mut self,
        side: usize,
        requests: &[MapRequest],
        mode: Mode,
    ) -> Result<Done, MapError> {
        let Some(head) = requests.first() else { return Ok(Done::default()) };
        let mut places = Vec::new();
        for request in requests {
            let MapRequest { at, memory, bytes, perm } = *request;
            let (slot, first, count) = self.map_range(side, at, bytes, perm)?;
            Self::aligned(memory, self.page(side, slot))?;
            let (other, ..) = *places.first().map_or(&(slot, 0, 0, request), |place| place);
            if slot != other {
                return Err(MapError::BatchWindows(head.at, at));
            }
            places.push((slot, first, count, request));
        }
        let slot = places[0].0;
        let page = self.page(side, slot);
        places.sort_by_key(|place| place.1);
        if let Some(pair) = places.windows(2).find(|pair| pair[1].1 < pair[0].1 + pair[0].2) {
            return Err(MapError::BatchOverlap(pair[0].3.at, pair[1].3.at));
        }
        for (_, _, count, request) in &places {
            self.all_usable(side, request.memory, *count, page)?;
        }
        let live = |place: &(usize, u64, u64, &MapRequest)| {
            self.window(side, slot).live_in(place.1, place.2)
        };
        self.admit(mode, head.at, places.iter().map(live).sum())?;
        let (mut tces, mut released) = (0, 0);
        for (_, first, count, request) in places {
            for n in 0..count {
                let memory = request.memory.0 + n * page.bytes();
                let new = Mapped { memory, perm: request.perm };
                released += u64::from(self.set(side, slot, first + n, Some(new)));
            }
            tces += count;
        }
        Ok(self.filled(side, tces, released, requests.len() as u64))
    }

    fn clear(&mut self, side: usize, (slot, first, count): Place) -> u64 {
        let live = self.window(side, slot).live.range(first..first + count);
        let gone: Vec<_> = live.map(|(entry, _)| *entry).collect();
        gone.iter().for_each(|entry| _ = self.set(side, slot, *entry, None));
        gone.len() as u64
    }

    pub(super) fn unmap(&mut self, side: usize, at: Ioba, bytes: u64) -> Result<Done, UnmapError> {
        let place = self.unmap_range(side, at, bytes)?;
        let released = self.clear(side, place);
        Ok(self.cleared(side, released, 1))
    }

    pub(super) fn unmap_batch(
        &mut self,
        side: usize,
        requests: &[UnmapRequest],
    ) -> Result<Done, UnmapError> {
        let Some(head) = requests.first() else { return Ok(Done::default()) };
        let mut places = Vec::new();
        for request in requests {
            let place = self.unmap_range(side, request.at, request.bytes)?;
            let (other, ..) = *places.first().unwrap_or(&place);
            if place.0 != other {
                return Err(UnmapError::BatchWindows(head.at, request.at));
            }
            places.push(place);
        }
        let mut sorted = places.clone();
        sorted.sort_by_key(|place| place.1);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[1].1 < pair[0].1 + pair[0].2) {
            let bus = |place: &Place| self.window(side, place.0).bus(place.1);
            return Err(UnmapError::BatchOverlap(bus(&pair[0]), bus(&pair[1])));
        }
        let released = places.into_iter().map(|place| self.clear(side, place)).sum();
        Ok(self.cleared(side, released, requests.len() as u64))
    }

    /// A map at an address that was handed out, which is the engine's to choose: what is wrong with it
    /// wherever that is, or nothing.
    pub(super) fn map_anywhere(
        &self,
        side: usize,
        memory: Uaddr,
        bytes: u64,
    ) -> Result<(), MapError> {
        let page = self.page(side, 0);
        if !bytes.is_multiple_of(page.bytes()) {
            return Err(MapError::Unaligned { what: "length", value: bytes, page });
        }
        Self::aligned(memory, page)?;
        self.all_usable(side, memory, bytes / page.bytes(), page)
    }

    /// The address that was chosen, or why it cannot be.
    pub(super) fn give(&mut self, side: usize, at: Ioba, pages: u64) -> Result<(), String> {
        let window = self.window(side, 0);
        let first = at.0.checked_sub(window.start).map(|offset| offset >> window.page.get());
        let space = window.shape.entries / 2..window.shape.entries;
        if !first.is_some_and(|first| space.contains(&first) && first + pages <= space.end) {
            return Err(format!("an address of the upper half of the window of {space:?} entries"));
        }
        let end = at.0 + pages * window.page.bytes();
        let before = self.sides[side].given.range(..end).next_back();
        if let Some((start, pages)) = before
            && start + pages * self.page(side, 0).bytes() > at.0
        {
            return Err(format!(
                "an address that nobody has; {start:#x} and {pages} pages are given"
            ));
        }
        if !self.is(Mistake::GiveTwice) {
            self.sides[side].given.insert(at.0, pages);
        }
        Ok(())
    }
}
