// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many requests in one call: all of them or none, neighbours joined.

use super::call::Call;
use super::mapping::{Mode, Receipt, aligned, fill};
use super::publish::Piece;
use super::windows::Window;
use super::{Container, State};
use crate::addr::{Ioba, PageShift, Uaddr};
use crate::error::{MapError, UnmapError};
use crate::kill::Tally;
use crate::tce::Perm;

/// One request of [`Container::map_batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// Where on the bus.
    pub at: Ioba,
    /// What: registered memory.
    pub memory: Uaddr,
    /// Length in bytes.
    pub bytes: u64,
    /// What devices may do.
    pub perm: Perm,
}

/// One request of [`Container::unmap_batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmapRequest {
    /// Where on the bus.
    pub at: Ioba,
    /// Length in bytes.
    pub bytes: u64,
}

impl Piece {
    /// Takes in what follows on the bus and in memory with the same permission.
    pub(super) fn extend(&mut self, next: &Self, page: u32) -> bool {
        let follows = self.first + self.count == next.first
            && self.memory.0 + (self.count << page) == next.memory.0
            && self.perm == next.perm;
        if follows {
            self.count += next.count;
        }
        follows
    }
}

/// Memory that a thread's batches use again.
#[derive(Default)]
pub(super) struct Scratch {
    pieces: Vec<Piece>,
    parts: Vec<(u64, u64)>,
}

/// The end of the request before. Most requests of a batch go on from there, and of those only the
/// length and the window's end are left to check.
struct Tail {
    page: PageShift,
    window_end: u64,
    next: u64,
}

impl Tail {
    fn new(window: &Window, at: Ioba, bytes: u64) -> Self {
        let geometry = window.table.geometry();
        let window_end = window.start.0 + geometry.covered();
        Self { page: geometry.page(), window_end, next: at.0 + bytes }
    }

    /// The number of pages of a request that goes on from here, which is then the end.
    #[inline]
    fn goes_on(&mut self, at: Ioba, bytes: u64) -> Option<u64> {
        let whole = bytes & (self.page.bytes() - 1) == 0;
        let inside = bytes.wrapping_sub(1) < self.window_end - self.next;
        if at.0 != self.next || !whole || !inside {
            return None;
        }
        self.next += bytes;
        Some(bytes >> self.page.get())
    }
}

impl State {
    fn piece(&self, request: &MapRequest) -> Result<(usize, Piece), MapError> {
        let MapRequest { at, memory, bytes, perm } = *request;
        let (window, first, count) = self.map_range(at, bytes, perm)?;
        aligned("user address", memory, window.table.geometry().page())?;
        Ok((window.slot, Piece { first, count, memory, perm }))
    }
}

/// Sorts by the first entry unless it is sorted already, as a batch mostly is.
fn sort<T>(list: &mut [T], first: impl Fn(&T) -> u64) {
    if !list.is_sorted_by_key(&first) {
        list.sort_unstable_by_key(first);
    }
}

impl Container {
    /// Maps several ranges of one window: all of them, or none. Requests that follow one another on
    /// the bus and in memory, with the same permission, are joined, in whatever order they come; a
    /// kernel's container gets one request for each joined range of a region.
    ///
    /// # Errors
    /// [`MapError`], as [`Container::map`] for each request; also if two requests overlap or are in
    /// different windows.
    pub fn map_batch(&self, requests: &[MapRequest], mode: Mode) -> Result<Receipt, MapError> {
        self.call(|call| call.map_batch(requests, mode))
    }

    /// Clears several ranges of one window, as [`Container::unmap`] does each. Ranges that follow
    /// one another are joined, in whatever order they come.
    ///
    /// # Errors
    /// [`UnmapError`], as [`Container::unmap`] for each request; also if two requests overlap or are
    /// in different windows. Nothing was changed.
    pub fn unmap_batch(&self, requests: &[UnmapRequest]) -> Result<Receipt, UnmapError> {
        self.call(|call| call.unmap_batch(requests))
    }
}

impl Call<'_> {
    /// See [`Container::map_batch`].
    pub(super) fn map_batch(
        &mut self,
        requests: &[MapRequest],
        mode: Mode,
    ) -> Result<Receipt, MapError> {
        let Some(head) = requests.first() else { return Ok(Receipt::default()) };
        let state = self.state;
        let (slot, first) = state.piece(head)?;
        let window = state.windows[slot].as_ref().expect("the piece's window");
        let page = window.table.geometry().page();
        let mut tail = Tail::new(window, head.at, head.bytes);
        let (mut memory, mut perm) = (head.memory.0.wrapping_add(head.bytes), head.perm);
        // Lost, and made anew next time, if the batch is refused.
        let mut pieces = std::mem::take(&mut self.hand.scratch.pieces);
        pieces.clear();
        pieces.push(first);
        for request in &requests[1..] {
            if request.memory.0 == memory
                && request.perm == perm
                && let Some(count) = tail.goes_on(request.at, request.bytes)
                && let Some(last) = pieces.last_mut()
            {
                last.count += count;
                memory = memory.wrapping_add(request.bytes);
                continue;
            }
            let (other, piece) = state.piece(request)?;
            if other != slot {
                return Err(MapError::BatchWindows(head.at, request.at));
            }
            pieces.push(piece);
            tail = Tail::new(window, request.at, request.bytes);
            (memory, perm) = (request.memory.0.wrapping_add(request.bytes), request.perm);
        }
        sort(&mut pieces, |piece| piece.first);
        pieces.dedup_by(|next, last| last.extend(next, page.get()));
        let bus = |entry: u64| Ioba(window.start.0 + (entry << page.get()));
        if let Some(pair) = pieces.windows(2).find(|p| p[1].first < p[0].first + p[0].count) {
            return Err(MapError::BatchOverlap(bus(pair[0].first), bus(pair[1].first)));
        }
        let mut claim = Tally::default();
        for piece in &pieces {
            let bytes = piece.count << page.get();
            let planned = state.registrations.plan(piece.memory, bytes, page, self.hand.hits)?;
            planned.iter().for_each(|(number, pages)| claim.add(number, pages));
        }
        let mut parts = std::mem::take(&mut self.hand.scratch.parts);
        parts.clear();
        parts.extend(pieces.iter().map(|piece| (piece.first, piece.count)));
        let mut writer =
            mode.admit(window.table.prepare_all_as(self.hand.user.who, &parts)?, head.at)?;
        let ioctls = if window.kernel { self.publish(window, &mut writer, &pieces)? } else { 0 };
        let done = self.commit(window, writer, &claim, |writer, gone| {
            writer.write(gone, |tier, first, slots| {
                let piece = &pieces[pieces.partition_point(|piece| piece.first <= first) - 1];
                let at = Uaddr(piece.memory.0 + ((first - piece.first) << page.get()));
                fill(&state.registrations, tier, slots, at, piece.perm, page)
            })
        });
        *self.hand.scratch = Scratch { pieces, parts };
        Ok(Receipt { requests: requests.len() as u64, ioctls, ..done })
    }

    /// See [`Container::unmap_batch`].
    pub(super) fn unmap_batch(&mut self, requests: &[UnmapRequest]) -> Result<Receipt, UnmapError> {
        let Some(head) = requests.first() else { return Ok(Receipt::default()) };
        let state = self.state;
        let (window, first, count) = state.unmap_range(head.at, head.bytes)?;
        let mut tail = Tail::new(window, head.at, head.bytes);
        let mut parts = std::mem::take(&mut self.hand.scratch.parts);
        parts.clear();
        parts.push((first, count));
        for request in &requests[1..] {
            if let Some(count) = tail.goes_on(request.at, request.bytes)
                && let Some(last) = parts.last_mut()
            {
                last.1 += count;
                continue;
            }
            let (other, first, count) = state.unmap_range(request.at, request.bytes)?;
            if other.slot != window.slot {
                return Err(UnmapError::BatchWindows(head.at, request.at));
            }
            parts.push((first, count));
            tail = Tail::new(window, request.at, request.bytes);
        }
        sort(&mut parts, |part| part.0);
        let page = window.table.geometry().page().get();
        let bus = |entry: u64| Ioba(window.start.0 + (entry << page));
        if let Some(pair) = parts.windows(2).find(|p| p[1].0 < p[0].0 + p[0].1) {
            return Err(UnmapError::BatchOverlap(bus(pair[0].0), bus(pair[1].0)));
        }
        let outside = UnmapError::OutsideWindows { start: head.at, bytes: head.bytes };
        let held = window.table.hold_all_as(self.hand.user.who, &parts).map_err(|_| outside)?;
        let ioctls = self.publish_clear(window, &held)?;
        let done = self.clear(window, held);
        self.hand.scratch.parts = parts;
        Ok(Receipt { requests: requests.len() as u64, ioctls, ..done })
    }
}
