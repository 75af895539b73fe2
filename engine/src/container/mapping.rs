// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Map and unmap: the order of steps, nothing else.
//!
//! Check everything → prepare the table → claim → write → kill → fence → release.

use super::call::Call;
use super::publish::Piece;
use super::windows::Window;
use super::{Container, State};
use crate::addr::{Ioba, PageShift, Uaddr};
use crate::error::{MapError, UnmapError};
use crate::kill::KillCount;
use crate::regions::Registrations;
use crate::sabotage::{Guard, stands};
use crate::simd::Tier;
use crate::sync::Slot;
use crate::table::{Writer, Written};
use crate::tce::{Perm, Tce};

/// Most pages in one list, as in H_PUT_TCE_INDIRECT.
pub const LIST_MAX: usize = 512;

/// What a map does with what is mapped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Refuse if any entry of the range is live.
    #[default]
    Refuse,
    /// Replace, and release what was there.
    Replace,
}

impl Mode {
    /// The writer, if what is live in its range may be replaced.
    pub(super) fn admit<'a>(
        self,
        mut writer: Writer<'a>,
        start: Ioba,
    ) -> Result<Writer<'a>, MapError> {
        let refuse = self == Self::Refuse && stands(Guard::Overlap);
        let live = if refuse { writer.live() } else { 0 };
        if live > 0 { Err(MapError::Overlap { start, live }) } else { Ok(writer) }
    }
}

/// What a call did: plain counts for the caller to add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Receipt {
    /// Entries that the call wrote; for an unmap, which may skip most of its range, those that
    /// were live.
    pub tces: u64,
    /// Live entries that were replaced or cleared.
    pub released: u64,
    /// Steps of the walk over the table, where it may skip.
    pub steps: u64,
    /// Invalidations; none where a kernel does them.
    pub kills: KillCount,
    /// What the caller asked for: 1, or the length of a batch.
    pub requests: u64,
    /// Requests to the kernel that owns the table; 0 where the engine does.
    pub ioctls: u64,
}

impl Receipt {
    /// Nothing was done.
    pub const NONE: Self = Self {
        tces: 0,
        released: 0,
        steps: 0,
        kills: KillCount { asked: 0, issued: 0 },
        requests: 0,
        ioctls: 0,
    };
}

impl std::ops::AddAssign for Receipt {
    fn add_assign(&mut self, other: Self) {
        self.tces += other.tces;
        self.released += other.released;
        self.steps += other.steps;
        self.kills += other.kills;
        self.requests += other.requests;
        self.ioctls += other.ioctls;
    }
}

/// Why a bus range is not a range of entries.
pub(super) enum RangeError {
    Nothing,
    Unaligned { what: &'static str, value: u64, page: PageShift },
    Outside,
    LeftToKvm(Ioba),
}

impl State {
    /// The window that holds all of a bus range, and the entries it means there.
    fn range(&self, start: Ioba, bytes: u64) -> Result<(&Window, u64, u64), RangeError> {
        let window = self.window_at(start).ok_or(RangeError::Outside)?;
        let (page, offset) = (window.table.geometry().page(), start.0 - window.start.0);
        if window.left_to_kvm {
            return Err(RangeError::LeftToKvm(window.start));
        }
        if bytes == 0 {
            return Err(RangeError::Nothing);
        }
        for (what, value) in [("bus address", start.0), ("length", bytes)] {
            if value & (page.bytes() - 1) != 0 {
                return Err(RangeError::Unaligned { what, value, page });
            }
        }
        // The kernel checks only the first page; here a range ends inside its window.
        if bytes > window.table.geometry().covered() - offset {
            return Err(RangeError::Outside);
        }
        Ok((window, offset >> page.get(), bytes >> page.get()))
    }
}

impl Container {
    /// Maps registered memory at a bus address, for every member.
    ///
    /// Where [`Perm::WRITE`] is asked for, the table allows reads too, as on powernv; what was
    /// asked for is remembered ([`Container::requested`]).
    ///
    /// # Errors
    /// [`MapError`]; entries, counts and the devices' view are as before. Levels that a refused
    /// overlap had already added stay, empty.
    pub fn map(
        &self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        self.call(|call| call.map(at, memory, bytes, perm, mode))
    }

    /// Maps single pages of registered memory, scattered, at consecutive bus pages from `at`.
    ///
    /// # Errors
    /// [`MapError`], also for more than [`LIST_MAX`] pages; all or nothing.
    pub fn map_list(
        &self,
        at: Ioba,
        pages: &[Uaddr],
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        self.call(|call| call.map_list(at, pages, perm, mode))
    }

    /// Clears a bus range for every member and releases what was mapped there, after the kill.
    /// Entries that were never mapped are fine.
    ///
    /// # Errors
    /// [`UnmapError`]; nothing was changed.
    pub fn unmap(&self, at: Ioba, bytes: u64) -> Result<Receipt, UnmapError> {
        self.call(|call| call.unmap(at, bytes))
    }

    /// The entry at a bus address and the permission that was asked for, which for a write-only
    /// mapping is less than the entry allows. `None` outside the windows.
    #[must_use]
    pub fn requested(&self, at: Ioba) -> Option<(Tce, Perm)> {
        let state = self.state.read();
        let page = state.page_at(at)?;
        let start = Ioba(at.0 & !(page.bytes() - 1));
        let (window, index, _) = state.range(start, page.bytes()).ok()?;
        let tce = window.table.get(index).ok()?;
        let write_only = !tce.is_empty() && window.table.write_only(index).ok()?;
        Some((tce, if write_only { Perm::WRITE } else { tce.perm() }))
    }
}

impl Call<'_> {
    /// See [`Container::map`].
    pub(super) fn map(
        &mut self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        let state = self.state;
        let (window, first, count) = state.map_range(at, bytes, perm)?;
        let page = window.table.geometry().page();
        aligned("user address", memory, page)?;
        if count == 1 {
            return self.map_one(window, first, memory, perm, mode);
        }
        let claim = state.registrations.plan(memory, bytes, page, self.hand.hits)?;
        let mut writer =
            mode.admit(window.table.prepare_as(self.hand.user.who, first, count)?, at)?;
        let ioctls = if window.kernel {
            self.publish(window, &mut writer, &[Piece { first, count, memory, perm }])?
        } else {
            0
        };
        let done = self.commit(window, writer, &claim, |writer, gone| {
            writer.write(gone, |tier, index, slots| {
                let next = Uaddr(memory.0 + ((index - first) << page.get()));
                fill(&state.registrations, tier, slots, next, perm, page)
            })
        });
        Ok(Receipt { requests: 1, ioctls, ..done })
    }

    /// See [`Container::map_list`].
    pub(super) fn map_list(
        &mut self,
        at: Ioba,
        pages: &[Uaddr],
        perm: Perm,
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        if pages.len() > LIST_MAX {
            return Err(MapError::ListTooLong { count: pages.len(), limit: LIST_MAX });
        }
        let state = self.state;
        let page = state.page_at(at).ok_or(MapError::OutsideWindows { start: at, bytes: 0 })?;
        let bytes = (pages.len() as u64) << page.get();
        let (window, first, count) = state.map_range(at, bytes, perm)?;
        let mut values = [0u64; LIST_MAX];
        let values = &mut values[..pages.len()];
        let bits = perm.powernv().bits();
        let claim = state.registrations.list(pages, page, bits, values)?;
        let mut writer =
            mode.admit(window.table.prepare_as(self.hand.user.who, first, count)?, at)?;
        let ioctls = if window.kernel {
            self.publish(window, &mut writer, &list_pieces(first, pages, perm, page))?
        } else {
            0
        };
        let done = self.commit(window, writer, &claim, |writer, gone| {
            writer.write(gone, |tier, index, slots| {
                let values = &values[(index - first) as usize..][..slots.len()];
                let live = tier.list(slots, values).live;
                Written { live, owner: claim.sole(), write_only: perm == Perm::WRITE }
            })
        });
        Ok(Receipt { requests: 1, ioctls, ..done })
    }

    /// See [`Container::unmap`].
    pub(super) fn unmap(&mut self, at: Ioba, bytes: u64) -> Result<Receipt, UnmapError> {
        let (window, first, count) = self.state.unmap_range(at, bytes)?;
        if count == 1 {
            return self.unmap_one(window, first);
        }
        // The range is inside the window, hence inside its table.
        let held = window.table.hold_as(self.hand.user.who, first, count);
        let held = held.map_err(|_| UnmapError::OutsideWindows { start: at, bytes })?;
        let ioctls = self.publish_clear(window, &held)?;
        Ok(Receipt { requests: 1, ioctls, ..self.clear(window, held) })
    }
}

impl State {
    /// The window that covers a bus address.
    pub(super) fn window_at(&self, at: Ioba) -> Option<&Window> {
        let covers = |w: &&Window| {
            at.0.checked_sub(w.start.0).is_some_and(|o| o < w.table.geometry().covered())
        };
        self.windows.iter().flatten().find(covers)
    }

    /// Its page size.
    fn page_at(&self, at: Ioba) -> Option<PageShift> {
        self.window_at(at).map(|w| w.table.geometry().page())
    }

    pub(super) fn unmap_range(
        &self,
        at: Ioba,
        bytes: u64,
    ) -> Result<(&Window, u64, u64), UnmapError> {
        self.range(at, bytes).map_err(|e| match e {
            RangeError::Nothing => UnmapError::Nothing(at),
            RangeError::Outside => UnmapError::OutsideWindows { start: at, bytes },
            RangeError::LeftToKvm(window) => UnmapError::LeftToKvm(window),
            RangeError::Unaligned { what, value, page } => {
                UnmapError::Unaligned { what, value, page }
            }
        })
    }

    pub(super) fn map_range(
        &self,
        at: Ioba,
        bytes: u64,
        perm: Perm,
    ) -> Result<(&Window, u64, u64), MapError> {
        if perm == Perm::NONE {
            return Err(MapError::Nothing(at));
        }
        self.range(at, bytes).map_err(|e| match e {
            RangeError::Nothing => MapError::Nothing(at),
            RangeError::Outside => MapError::OutsideWindows { start: at, bytes },
            RangeError::LeftToKvm(window) => MapError::LeftToKvm(window),
            RangeError::Unaligned { what, value, page } => {
                MapError::Unaligned { what, value, page }
            }
        })
    }
}

/// Writes the entries of a run with the memory from `next` on, region by region.
pub(super) fn fill(
    registrations: &Registrations,
    tier: &Tier,
    slots: &[Slot],
    mut next: Uaddr,
    perm: Perm,
    page: PageShift,
) -> Written {
    let mut left = slots;
    let mut owner = None;
    let mut several = false;
    while !left.is_empty() {
        let (number, region, offset) = registrations.region(next);
        several |= owner.is_some_and(|owner| owner != number);
        owner = Some(number);
        let pages = (region.memory.bytes() - offset) >> page.get();
        let (now, then) = left.split_at(left.len().min(pages as usize));
        region.layout.fill(tier, now, offset, perm, page);
        next.0 += (now.len() as u64) << page.get();
        left = then;
    }
    let owner = owner.filter(|_| !several);
    Written { live: slots.len() as u64, owner, write_only: perm == Perm::WRITE }
}

/// A list as pieces of contiguous memory.
fn list_pieces(first: u64, pages: &[Uaddr], perm: Perm, page: PageShift) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (index, memory) in (first..).zip(pages.iter().copied()) {
        let piece = Piece { first: index, count: 1, memory, perm };
        if !pieces.last_mut().is_some_and(|last| last.extend(&piece, page.get())) {
            pieces.push(piece);
        }
    }
    pieces
}

pub(super) fn aligned(what: &'static str, at: Uaddr, page: PageShift) -> Result<(), MapError> {
    if at.is_aligned(page) {
        return Ok(());
    }
    Err(MapError::Unaligned { what, value: at.0, page })
}
