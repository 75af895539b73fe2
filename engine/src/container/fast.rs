// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a [`Mapper`](super::Mapper) remembers, so that one page of the usual kind costs no look-up
//! and no locked instruction. Whatever is not usual it leaves to the general path.

mod later;
mod near;

use super::State;
use super::windows::Window;
use crate::addr::{Ioba, PageShift, Uaddr};
use crate::backend::{KillPort, PageRegister};
use crate::ioba::Magazine;
use crate::kill::pages;
use crate::regions::{Count, Counts, Hits, Shard};
use crate::sync::{Ordering, Who};
use crate::table::{Lane, SEGMENT_LG2};
use crate::tce::{Perm, Tce};
use near::UserHit;

/// Segments that are remembered: rings and the data between them.
const LANES: usize = 8;

/// A segment of a table, by bus address.
#[derive(Clone)]
#[repr(align(128))]
struct BusLane {
    start: u64,
    /// What of it the guest asked for and stores to page by page.
    guest_pages: u64,
    page: PageShift,
    /// Start of the window.
    window: Ioba,
    lane: Lane,
    /// The same if each page is one that the handle's magazine may be given, and nowhere if not.
    ours: Lane,
}

/// See the [module](self). All of it is of one version of the structure. Where there is nothing, there
/// is something that never fits, so that nobody has to ask whether there is.
pub(super) struct Fast {
    /// The page size of the handle's magazine; without one no lane is the magazine's.
    pub(super) ours: PageShift,
    lanes: [BusLane; LANES],
    user: UserHit,
    /// What the general path looked up last.
    pub(super) hits: Hits,
    shard: Option<Shard>,
    /// The handle's count of the guest's RAM that was named last.
    guest: Count,
    /// The segment that was locked last, and how often in a row.
    last: Option<(Ioba, u64)>,
    streak: u32,
}

/// Most pages of a run that is cleared here.
const RUN: u64 = 32;

/// What was done to one page, or to a short run. Small enough to be returned in registers.
pub(super) struct Done {
    /// Live entries that went.
    pub(super) released: u32,
    /// Stores to kill registers.
    pub(super) issued: u32,
    /// Entries that had to be killed, times the members.
    pub(super) asked: u32,
}

impl Done {
    const NOTHING: Self = Self { released: 0, issued: 0, asked: 0 };
}

/// The size of one page.
#[derive(Clone, Copy)]
pub(super) enum Page {
    /// Whatever the window's is.
    Any(PageShift),
    /// [`Fast::ours`]; the bus address is to be the magazine's.
    Ours(PageShift),
}

impl Page {
    #[inline(always)]
    fn size(self) -> PageShift {
        match self {
            Self::Any(page) | Self::Ours(page) => page,
        }
    }
}

/// What the fast path needs beside what it remembers.
pub(super) struct At {
    pub(super) who: Who,
    /// Filled entries are killed too.
    pub(super) on_fill: bool,
    pub(super) members: u32,
    /// 0: the engine does not kill page by page, so nothing is usual.
    pub(super) max_page_kills: u64,
    /// To the members.
    pub(super) port: Box<dyn KillPort>,
    /// The port's register, if it has one.
    pub(super) register: Option<PageRegister>,
    /// The same if filled entries are killed too.
    pub(super) fill_register: Option<PageRegister>,
}

#[inline]
fn nth(at: Ioba) -> usize {
    // By segments of 4 KiB pages.
    (at.0 >> (PageShift::K4.get() + SEGMENT_LG2)) as usize % LANES
}

impl Fast {
    /// Counts the visits to a segment that has to be locked.
    pub(super) fn streak(&mut self, at: Ioba) -> u32 {
        let lane = &self.lanes[nth(at)];
        let segment = (lane.lane.entries() > 0).then_some((lane.window, lane.start));
        if segment.is_some() && segment == self.last {
            self.streak += 1;
        } else {
            (self.last, self.streak) = (segment, 1);
        }
        self.streak
    }

    /// Remembers where the general path found a page at `at` and, if it was mapped, its memory.
    #[cold]
    pub(super) fn learn(
        &mut self,
        state: &State,
        counts: Counts,
        magazine: Option<&Magazine>,
        at: Ioba,
        memory: Option<Uaddr>,
    ) {
        if self.shard.is_none() {
            self.shard = state.registrations.shard(counts);
        }
        if let (Some(shard), Some(number)) = (&self.shard, self.hits.guest_number())
            && number != self.guest.number()
        {
            self.guest = shard.one(number);
        }
        let usual = |w: &&Window| !w.kernel && !w.left_to_kvm;
        let Some(window) = state.window_at(at).filter(usual) else { return };
        let page = window.table.geometry().page();
        let known = &mut self.lanes[nth(at)];
        if (known.page != page || known.place(at) as u64 >= known.lane.entries())
            && let Some(lane) = BusLane::new(window, magazine, at)
        {
            *known = lane;
        }
        if let (Some(memory), Some(shard)) = (memory, &self.shard)
            && !self.user.move_near(memory, page, self.ours)
            && let Some(hit) = UserHit::new(state, shard, memory, page)
        {
            self.user = hit;
            self.user.move_near(memory, page, self.ours);
        }
    }

    /// Pages of a range that begins in a lane; too many if there is none.
    pub(super) fn pages(&self, at: Ioba, bytes: u64) -> u64 {
        bytes >> self.lanes[nth(at)].page.get()
    }

    /// Makes the extent of a page the near one. True if the page is of the region that is known.
    pub(super) fn move_near(&mut self, memory: Uaddr, page: PageShift) -> bool {
        self.user.move_near(memory, page, self.ours)
    }

    /// The lane of a page, and the page's place there, which may be beyond it.
    #[inline(always)]
    fn lane(&self, at: Ioba) -> (&BusLane, usize) {
        let lane = &self.lanes[nth(at)];
        (lane, lane.place(at))
    }

    /// The same for a page of that size. If it is said to be the magazine's, only the lanes of what
    /// the magazine may be given are there.
    #[inline(always)]
    fn lane_of(&self, at: Ioba, page: Page) -> Option<(&Lane, usize)> {
        let lane = &self.lanes[nth(at)];
        let entries = match page {
            Page::Any(page) if page == lane.page => &lane.lane,
            Page::Any(_) => return None,
            Page::Ours(_) => &lane.ours,
        };
        Some((entries, place(lane.start, at, page.size())))
    }

    /// Maps one page of the near extent where nothing is.
    #[inline(always)]
    pub(super) fn map(
        &self,
        at: &mut At,
        bus: Ioba,
        memory: Uaddr,
        page: Page,
        perm: Perm,
    ) -> Option<Done> {
        let (lane, place) = self.lane_of(bus, page)?;
        if perm == Perm::NONE {
            return None;
        }
        let user = &self.user;
        let real = user.near(memory, page)?;
        let entry = lane.entry(at.who, place)?;
        if !entry.is_zero() {
            return None;
        }
        user.count.add(1);
        let tce = Tce::of_page(real.0, perm.powernv());
        entry.fill(tce, user.count.number(), perm == Perm::WRITE);
        Some(at.kill_filled(bus, page.size()))
    }

    /// Clears one page, or a short run.
    #[inline(always)]
    pub(super) fn unmap(&self, at: &mut At, bus: Ioba, bytes: u64) -> Option<Done> {
        let page = PageShift::from_bytes(bytes).map(Page::Any);
        match page.and_then(|page| self.unmap_usual(at, bus, page)) {
            Some(done) => Some(done),
            None => self.unmap_other(at, bus, bytes),
        }
    }

    /// Clears one live page of the region that was mapped last.
    #[inline(always)]
    pub(super) fn unmap_usual(&self, at: &mut At, bus: Ioba, page: Page) -> Option<Done> {
        let (lane, place) = self.lane_of(bus, page)?;
        let user = &self.user;
        let entry = lane.entry(at.who, place)?;
        if entry.get().is_empty() || !entry.clear_of(user.count.number()) {
            return None;
        }
        let done = at.kill_live(bus, page.size());
        // Waited for: released.
        user.count.add(1u64.wrapping_neg());
        Some(done)
    }

    #[inline(never)]
    fn unmap_other(&self, at: &mut At, bus: Ioba, bytes: u64) -> Option<Done> {
        let (lane, place) = self.lane(bus);
        if PageShift::from_bytes(bytes) == Some(lane.page) {
            return self.clear(at, bus);
        }
        let whole = bytes & (lane.page.bytes() - 1) == 0;
        let count = bytes >> lane.page.get();
        if !whole || count == 0 || count > lane.lane.entries().saturating_sub(place as u64) {
            None
        } else {
            self.clear_run(at, (lane, place), bus, count)
        }
    }

    /// Clears `count` entries of one lane: all of them, then the kills, then the counts.
    fn clear_run(
        &self,
        at: &mut At,
        (lane, place): (&BusLane, usize),
        bus: Ioba,
        count: u64,
    ) -> Option<Done> {
        if count > RUN.min(at.max_page_kills) {
            return None;
        }
        let (page, shard) = (lane.page, self.shard.as_ref()?);
        let first = lane.lane.entry(at.who, place)?;
        let owner = first.owner();
        let run = lane.lane.run(place, count as usize);
        let mut live = 0u64;
        for (n, slot) in run.iter().enumerate() {
            let is_live = !Tce::from_be_word(slot.load(Ordering::Relaxed)).is_empty();
            live |= u64::from(is_live) << n;
        }
        if live != 0 && owner.is_none() {
            return None;
        }
        run.iter().for_each(|slot| slot.store(Tce::EMPTY.to_be_word(), Ordering::Relaxed));
        let released = live.count_ones();
        first.cleared(count as usize, released.into());
        let mut issued = 0;
        let mut left = live;
        while left != 0 {
            let from = left.trailing_zeros();
            let n = (left >> from).trailing_ones();
            let start = Ioba(bus.0 + (u64::from(from) << page.get()));
            issued += at.port.kill(pages(start, n.into(), page));
            left &= !(((1 << n) - 1) << from);
        }
        if issued > 0 {
            at.port.fence();
        }
        // Waited for: released.
        let amount = u64::from(released).wrapping_neg();
        owner.into_iter().for_each(|number| shard.add(number, amount));
        Some(Done { released, issued: issued as u32, asked: released * at.members })
    }

    /// H_STUFF_TCE of 0 for a short run of the window that starts at `window`.
    #[inline]
    pub(super) fn clear_guest(
        &self,
        at: &mut At,
        window: Ioba,
        bus: Ioba,
        count: u64,
    ) -> Option<Done> {
        let (lane, place) = self.lane(bus);
        let left = lane.guest_pages.saturating_sub(place as u64);
        let inside = count > 0 && count <= left;
        if lane.window == window && inside {
            self.clear_run(at, (lane, place), bus, count)
        } else {
            None
        }
    }

    /// Clears one page, whatever was there.
    #[inline(never)]
    fn clear(&self, at: &mut At, bus: Ioba) -> Option<Done> {
        let (lane, place) = self.lane(bus);
        let entry = lane.lane.entry(at.who, place)?;
        let old = entry.get();
        let owner = if old.is_empty() { None } else { Some(entry.owner()?) };
        let shard = self.shard.as_ref()?;
        entry.clear(owner.is_some());
        let done = if owner.is_some() { at.kill_live(bus, lane.page) } else { Done::NOTHING };
        // Waited for: released.
        owner.into_iter().for_each(|number| shard.add(number, 1u64.wrapping_neg()));
        Some(done)
    }

    /// Stores what a guest gives for one page of the window that starts at `window`.
    #[inline(always)]
    pub(super) fn store(&self, at: &mut At, window: Ioba, bus: Ioba, tce: Tce) -> Option<Done> {
        let (lane, place) = self.lane(bus);
        let page = lane.page;
        if lane.window != window || place as u64 >= lane.guest_pages {
            return None;
        }
        let entry = lane.lane.entry(at.who, place)?;
        let was_live = !entry.get().is_empty();
        if tce == Tce::EMPTY {
            let guest = &self.guest;
            if !was_live || !entry.clear_of(guest.number()) {
                return self.clear(at, bus);
            }
            let done = at.kill_live(bus, page);
            // Waited for: released.
            guest.add(1u64.wrapping_neg());
            return Some(done);
        }
        if tce.is_empty() || tce.value() & Tce::must_be_zero(page) != 0 {
            return None;
        }
        let number = self.hits.guest_page(tce.address(), page)?;
        let guest = &self.guest;
        if was_live || guest.number() != number {
            return self.replace(at, bus, tce, number);
        }
        guest.add(1);
        entry.fill(tce, number, false);
        Some(at.kill_filled(bus, page))
    }

    /// Stores an entry that points into the registration `number`, whatever was there.
    #[inline(never)]
    fn replace(&self, at: &mut At, bus: Ioba, tce: Tce, number: usize) -> Option<Done> {
        let (lane, place) = self.lane(bus);
        let entry = lane.lane.entry(at.who, place)?;
        let old = entry.get();
        let owner = if old.is_empty() { None } else { Some(entry.owner()?) };
        let shard = self.shard.as_ref()?;
        shard.add(number, 1);
        entry.set(old, tce, Some(number), false);
        let done = match owner {
            Some(_) => at.kill_live(bus, lane.page),
            None => at.kill_filled(bus, lane.page),
        };
        owner.into_iter().for_each(|number| shard.add(number, 1u64.wrapping_neg()));
        Some(done)
    }
}

impl At {
    /// Kills a page that was live on every member, and waits.
    #[inline(always)]
    fn kill_live(&mut self, bus: Ioba, page: PageShift) -> Done {
        let issued = match &self.register {
            Some(register) => register.kill_page_and_wait(bus),
            None => self.port.kill_page_and_wait(bus, page),
        };
        Done { released: 1, issued: issued as u32, asked: self.members }
    }

    /// The same for a page that was empty, where that has to be.
    #[inline(always)]
    fn kill_filled(&mut self, bus: Ioba, page: PageShift) -> Done {
        let issued = match &self.fill_register {
            Some(register) => register.kill_page_and_wait(bus),
            None if self.on_fill => self.port.kill_page_and_wait(bus, page),
            None => return Done::NOTHING,
        };
        Done { released: 0, issued: issued as u32, asked: self.members }
    }
}

impl Fast {
    /// Nothing is known yet; `ours` is the page size of the handle's magazine, if it has one.
    pub(super) fn new(ours: PageShift) -> Self {
        let nowhere = BusLane::nowhere();
        Self {
            ours,
            lanes: std::array::from_fn(|_| nowhere.clone()),
            user: UserHit::none(),
            hits: Hits::default(),
            shard: None,
            guest: Count::nobody(),
            last: None,
            streak: 0,
        }
    }
}

/// The place of the page that begins at `at`. If none begins there, it is beyond every lane.
#[inline(always)]
fn place(start: u64, at: Ioba, page: PageShift) -> usize {
    // Low bits that are not 0 become high ones.
    at.0.wrapping_sub(start).rotate_right(page.get()) as usize
}

impl BusLane {
    fn nowhere() -> Self {
        let lane = Lane::nowhere();
        let (page, window) = (PageShift::K4, Ioba(0));
        Self { start: 0, guest_pages: 0, page, window, ours: lane.clone(), lane }
    }

    fn new(window: &Window, magazine: Option<&Magazine>, at: Ioba) -> Option<Self> {
        let geometry = window.table.geometry();
        let page = geometry.page();
        let lane = window.table.lane((at.0 - window.start.0) >> page.get())?;
        let first = lane.first();
        // A table may end inside a segment.
        let lane = lane.of_first(geometry.entries() - first);
        // Where a guest's page is several of the table's, its calls take the general path.
        let guest = if window.parts() == 0 { geometry.requested_entries() } else { 0 };
        let guest_pages = guest.saturating_sub(first).min(lane.entries());
        let start = window.start.0 + (first << page.get());
        let ours = magazine.is_some_and(|magazine| {
            magazine.page() == page && magazine.covers_each(Ioba(start), lane.entries())
        });
        let (ours, window) = (lane.of_first(if ours { u64::MAX } else { 0 }), window.start);
        Some(Self { start, guest_pages, page, window, lane, ours })
    }

    #[inline(always)]
    fn place(&self, at: Ioba) -> usize {
        place(self.start, at, self.page)
    }
}
