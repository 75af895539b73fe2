// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a [`Mapper`](super::Mapper) remembers, so that one page of the usual kind costs no look-up
//! and no locked instruction. Whatever is not usual it leaves to the general path.

use super::State;
use super::windows::Window;
use crate::addr::{Hpa, Ioba, PageShift, Uaddr};
use crate::backend::layout::RealLayout;
use crate::backend::{KillPort, KillScope};
use crate::regions::{Counts, Hits, Shard};
use crate::sync::{Ordering, Slot, Who};
use crate::table::{Entry, Lane};
use crate::tce::{Perm, Tce};

/// Segments that are remembered: rings and the data between them.
const LANES: usize = 8;

/// A segment of a table, by bus address.
#[repr(align(128))]
struct BusLane {
    start: u64,
    bytes: u64,
    /// What of it the guest asked for and stores to page by page.
    guest_bytes: u64,
    page: PageShift,
    /// Start of the window.
    window: Ioba,
    lane: Lane,
}

/// A region of the process.
struct UserHit {
    start: u64,
    /// Last offset at which a page begins.
    last: u64,
    page: PageShift,
    number: usize,
    layout: RealLayout,
    /// The extent of the last page: start, last offset at which a page begins, and what leads from
    /// user addresses to entry addresses.
    near: (u64, u64, u64),
}

#[inline(always)]
fn lane(lanes: &[Option<BusLane>; LANES], at: Ioba) -> Option<&BusLane> {
    let lane = lanes[nth(at)].as_ref()?;
    if lane.holds(at) { Some(lane) } else { None }
}

/// See the [module](self). All of it is of one version of the structure.
#[derive(Default)]
pub(super) struct Fast {
    lanes: [Option<BusLane>; LANES],
    user: Option<UserHit>,
    /// What the general path looked up last.
    pub(super) hits: Hits,
    shard: Option<Shard>,
    /// The segment that was locked last, and how often in a row.
    last: Option<(Ioba, u64)>,
    streak: u32,
}

/// Most pages of a run that is cleared here.
const RUN: u64 = 32;

/// What was done to one page, or to a short run.
pub(super) struct Done {
    /// Live entries that went.
    pub(super) released: u64,
    /// Stores to kill registers.
    pub(super) issued: u64,
    /// Entries that had to be killed, times the members.
    pub(super) asked: u64,
}

/// What the fast path needs beside what it remembers.
pub(super) struct At {
    pub(super) who: Who,
    /// Filled entries are killed too.
    pub(super) on_fill: bool,
    pub(super) members: u64,
    /// 0: the engine does not kill page by page, so nothing is usual.
    pub(super) max_page_kills: u64,
    /// To the members.
    pub(super) port: Box<dyn KillPort>,
}

#[inline]
fn nth(at: Ioba) -> usize {
    // 32 MiB of bus are a segment of 4 KiB pages.
    (at.0 >> 25) as usize % LANES
}

impl Fast {
    /// Counts the visits to a segment that has to be locked.
    pub(super) fn streak(&mut self, at: Ioba) -> u32 {
        let segment = self.lanes[nth(at)].as_ref().map(|lane| (lane.window, lane.start));
        if segment.is_some() && segment == self.last {
            self.streak += 1;
        } else {
            (self.last, self.streak) = (segment, 1);
        }
        self.streak
    }

    /// Remembers where the general path found a page at `at` and, if it was mapped, its memory.
    #[cold]
    pub(super) fn learn(&mut self, state: &State, counts: Counts, at: Ioba, memory: Option<Uaddr>) {
        if self.shard.is_none() {
            self.shard = state.registrations.shard(counts);
        }
        let usual = |w: &&Window| !w.kernel && !w.left_to_kvm;
        let Some(window) = state.window_at(at).filter(usual) else { return };
        let page = window.table.geometry().page();
        if self.lanes[nth(at)].as_ref().is_none_or(|lane| !lane.holds(at)) {
            self.lanes[nth(at)] = BusLane::new(window, at);
        }
        if let Some(memory) = memory
            && self.user.as_mut().is_none_or(|hit| hit.page(memory, page).is_none())
        {
            self.user = UserHit::new(state, memory, page);
        }
    }

    /// Maps one page where nothing is.
    #[inline(always)]
    pub(super) fn map(
        &mut self,
        at: &mut At,
        bus: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
    ) -> Option<Done> {
        let lane = lane(&self.lanes, bus)?;
        let page = lane.page;
        if bytes != page.bytes() || perm == Perm::NONE {
            return None;
        }
        let entry = lane.entry(at.who, bus)?;
        let (number, real) = self.user.as_mut()?.page(memory, page)?;
        let old = entry.get();
        if !old.is_empty() {
            return None;
        }
        self.shard.as_ref()?.add(number, 1);
        let tce = Tce::new(real.0, perm.powernv());
        entry.fill(tce, number, perm == Perm::WRITE);
        Some(at.kill(bus, page, false, at.on_fill))
    }

    /// Clears one page, or a short run.
    #[inline(always)]
    pub(super) fn unmap(&self, at: &mut At, bus: Ioba, bytes: u64) -> Option<Done> {
        let lane = lane(&self.lanes, bus)?;
        if bytes != lane.page.bytes() {
            return self.unmap_run(at, lane, bus, bytes);
        }
        let entry = lane.entry(at.who, bus)?;
        self.clear(at, &entry, bus, lane.page)
    }

    #[inline(never)]
    fn unmap_run(&self, at: &mut At, lane: &BusLane, bus: Ioba, bytes: u64) -> Option<Done> {
        let whole = bytes & (lane.page.bytes() - 1) == 0;
        let inside = bytes > 0 && bytes <= lane.bytes - (bus.0 - lane.start);
        if !whole || !inside {
            None
        } else {
            self.clear_run(at, lane, bus, bytes >> lane.page.get())
        }
    }

    /// Clears `count` entries of one lane: all of them, then the kills, then the counts.
    fn clear_run(&self, at: &mut At, lane: &BusLane, bus: Ioba, count: u64) -> Option<Done> {
        if count > RUN.min(at.max_page_kills) {
            return None;
        }
        let (page, shard) = (lane.page, self.shard.as_ref()?);
        let first = lane.entry(at.who, bus)?;
        let owner = first.owner();
        let run = lane.run(bus, count);
        let mut live = 0u64;
        for (n, slot) in run.iter().enumerate() {
            let is_live = !Tce::from_be_word(slot.load(Ordering::Relaxed)).is_empty();
            live |= u64::from(is_live) << n;
        }
        if live != 0 && owner.is_none() {
            return None;
        }
        run.iter().for_each(|slot| slot.store(Tce::EMPTY.to_be_word(), Ordering::Relaxed));
        let released = u64::from(live.count_ones());
        first.cleared(count as usize, released);
        let mut issued = 0;
        let mut left = live;
        while left != 0 {
            let from = left.trailing_zeros();
            let n = (left >> from).trailing_ones();
            let start = Ioba(bus.0 + (u64::from(from) << page.get()));
            issued += at.port.kill(KillScope::Pages { start, count: n.into(), page });
            left &= !(((1 << n) - 1) << from);
        }
        if issued > 0 {
            at.port.fence();
        }
        // Waited for: released.
        owner.into_iter().for_each(|number| shard.add(number, released.wrapping_neg()));
        Some(Done { released, issued, asked: released * at.members })
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
        let lane = lane(&self.lanes, bus)?;
        let offset = bus.0 - lane.start;
        let inside = offset < lane.guest_bytes
            && count > 0
            && count <= (lane.guest_bytes - offset) >> lane.page.get();
        if lane.window == window && inside { self.clear_run(at, lane, bus, count) } else { None }
    }

    #[inline(always)]
    fn clear(&self, at: &mut At, entry: &Entry<'_>, bus: Ioba, page: PageShift) -> Option<Done> {
        let old = entry.get();
        let owner = if old.is_empty() { None } else { Some(entry.owner()?) };
        let shard = self.shard.as_ref()?;
        entry.clear(owner.is_some());
        let done = at.kill(bus, page, owner.is_some(), false);
        // Waited for: released.
        owner.into_iter().for_each(|number| shard.add(number, 1u64.wrapping_neg()));
        Some(done)
    }

    /// Stores what a guest gives for one page of the window that starts at `window`.
    #[inline(always)]
    pub(super) fn store(&self, at: &mut At, window: Ioba, bus: Ioba, tce: Tce) -> Option<Done> {
        let lane = lane(&self.lanes, bus)?;
        if lane.window != window || bus.0 - lane.start >= lane.guest_bytes {
            return None;
        }
        let entry = lane.entry(at.who, bus)?;
        if tce == Tce::EMPTY {
            return self.clear(at, &entry, bus, lane.page);
        }
        if tce.is_empty() || tce.value() & Tce::must_be_zero(lane.page) != 0 {
            return None;
        }
        let number = self.hits.guest_page(tce.address(), lane.page)?;
        let old = entry.get();
        let owner = if old.is_empty() { None } else { Some(entry.owner()?) };
        let shard = self.shard.as_ref()?;
        shard.add(number, 1);
        if owner.is_none() {
            entry.fill(tce, number, false);
        } else {
            entry.set(old, tce, Some(number), false);
        }
        let done = at.kill(bus, lane.page, owner.is_some(), at.on_fill);
        owner.into_iter().for_each(|number| shard.add(number, 1u64.wrapping_neg()));
        Some(done)
    }
}

impl At {
    /// Kills the page on every member and waits.
    #[inline(always)]
    fn kill(&mut self, bus: Ioba, page: PageShift, released: bool, filled: bool) -> Done {
        let mut done = Done { released: u64::from(released), issued: 0, asked: 0 };
        if released || filled {
            done.issued = self.port.kill_page_and_wait(bus, page);
            done.asked = self.members;
        }
        done
    }
}

impl BusLane {
    fn new(window: &Window, at: Ioba) -> Option<Self> {
        let geometry = window.table.geometry();
        let page = geometry.page();
        let lane = window.table.lane((at.0 - window.start.0) >> page.get())?;
        let entries = lane.entries();
        // A table may end inside a segment.
        let end = entries.end.min(geometry.entries());
        // Where a guest's page is several of the table's, its calls take the general path.
        let guest = if window.parts() == 0 { geometry.requested_entries() } else { 0 };
        let guest_end = guest.clamp(entries.start, end);
        Some(Self {
            start: window.start.0 + (entries.start << page.get()),
            bytes: (end - entries.start) << page.get(),
            guest_bytes: (guest_end - entries.start) << page.get(),
            page,
            window: window.start,
            lane,
        })
    }

    #[inline]
    fn holds(&self, at: Ioba) -> bool {
        at.0.wrapping_sub(self.start) < self.bytes
    }

    /// The slots of `count` pages from a bus page on, which are inside.
    fn run(&self, at: Ioba, count: u64) -> &[Slot] {
        self.lane.run(((at.0 - self.start) >> self.page.get()) as usize, count as usize)
    }

    /// The entry of a bus page, if nobody has to be asked.
    #[inline(always)]
    fn entry(&self, who: Who, at: Ioba) -> Option<Entry<'_>> {
        if !at.is_aligned(self.page) {
            return None;
        }
        self.lane.entry(who, ((at.0 - self.start) >> self.page.get()) as usize)
    }
}

impl UserHit {
    fn new(state: &State, memory: Uaddr, page: PageShift) -> Option<Self> {
        let (number, registration, offset) = state.registrations.user(memory).ok()?;
        let region = &registration.region;
        // A run may be aligned for one page and not for the next: only what holds for all is kept.
        if !region.layout.can_map(offset, page) {
            return None;
        }
        let last = region.memory.bytes().checked_sub(page.bytes())?;
        let (start, layout) = (region.memory.start(), region.layout.clone());
        // No page is in an extent that ends before it begins.
        Some(Self { start, last, page, number, layout, near: (u64::MAX, 0, 0) })
    }

    /// Registration and entry address of the page at `at`.
    #[inline(always)]
    fn page(&mut self, at: Uaddr, page: PageShift) -> Option<(usize, Hpa)> {
        let (start, last, to_real) = self.near;
        if page != self.page || !at.is_aligned(page) {
            return None;
        }
        if at.0.wrapping_sub(start) <= last {
            return Some((self.number, Hpa(at.0.wrapping_add(to_real))));
        }
        self.far(at)
    }

    #[inline(never)]
    fn far(&mut self, at: Uaddr) -> Option<(usize, Hpa)> {
        let offset = at.0.wrapping_sub(self.start);
        if offset > self.last {
            return None;
        }
        let extent = self.layout.extent_at(offset);
        let last = extent.bytes.checked_sub(self.page.bytes())?;
        self.near = (at.0, last, extent.at.0.wrapping_sub(at.0));
        Some((self.number, extent.at))
    }
}
