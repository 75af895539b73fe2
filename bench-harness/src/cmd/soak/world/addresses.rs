// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Maps where there is room, by the handle that has an allocator.

use tce_engine::container::{MapRequest, Mode, UnmapRequest};
use tce_engine::error::{MapError, UnmapError};
use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace};
use tce_engine::kill::KillPolicy;

use super::super::model::Window;
use super::compare::same;
use super::{Outcome, World, Wrong, expect_error};

impl World<'_> {
    pub(super) fn alloc(
        &mut self,
        side: usize,
        handle: usize,
        request: MapRequest,
    ) -> Result<Outcome, Wrong> {
        let MapRequest { memory, bytes, perm, .. } = request;
        let got = self.real[side].handles[handle].map_alloc(memory, bytes, perm);
        if handle != 0 || self.real[side].addresses.is_none() {
            return expect_error(got, &MapError::NoAddresses);
        }
        if let Err(error) = self.model.map_anywhere(side, memory, bytes) {
            return expect_error(got, &error);
        }
        let owing = self.policy != KillPolicy::Strict;
        let at = match got {
            Ok(at) => at,
            // Others owe what is missing here.
            Err(MapError::Addresses(_)) if self.shared() && owing => return Ok(Outcome::Refused),
            Err(error) => {
                return Err(Wrong::new("map_alloc", "an address", &format!("{error:?}")));
            }
        };
        let window = self.model.window(side, 0);
        let (page, pages) = (window.page, bytes >> window.page.get());
        let settled = self.engine.debts().retirements;
        self.real[side].owed.retain(|(_, _, before)| *before == settled);
        let end = at.0 + bytes;
        let meets = |(start, pages, _): &&(u64, u64, u64)| {
            *start < end && at.0 < start + (pages << page.get())
        };
        if let Some(owed) = self.real[side].owed.iter().find(meets) {
            let got = format!("{at}, and {:#x} is owed", owed.0);
            return Err(Wrong::new("map_alloc", "an address that is not owed", &got));
        }
        if let Err(expected) = self.model.give(side, at, pages) {
            return Err(Wrong::new("map_alloc", &expected, &format!("{at}, {pages} pages")));
        }
        let request = MapRequest { at, ..request };
        if let Err(error) = self.model.map(side, &request, Mode::Refuse) {
            return Err(Wrong::new("map_alloc", &format!("{error:?}"), &format!("{at}")));
        }
        self.translations(side, at, pages, Outcome::Done)
    }

    pub(super) fn free(
        &mut self,
        side: usize,
        handle: usize,
        request: &UnmapRequest,
    ) -> Result<Outcome, Wrong> {
        let UnmapRequest { at, bytes } = *request;
        let settled = self.engine.debts().retirements;
        let before = self.real[side].handles[handle].owed();
        let got = self.real[side].handles[handle].unmap_free(at, bytes);
        if handle != 0 || self.real[side].addresses.is_none() {
            return expect_error(got, &UnmapError::NoAddresses);
        }
        let pages = bytes >> self.model.window(side, 0).page.get();
        if self.model.sides[side].given.get(&at.0) != Some(&pages) {
            return expect_error(got, &UnmapError::Foreign { start: at, pages });
        }
        same("unmap_free", &Ok(()), &got)?;
        self.model.sides[side].given.remove(&at.0);
        let (owed, now) = (self.real[side].handles[handle].owed(), self.engine.debts().retirements);
        // More than a handle may owe is killed at once. Where that cannot be told from a settlement and a new
        // debt of as many pages, nothing is expected.
        let waits = match settled == now {
            true => owed == before + pages,
            false => owed == pages && before != pages,
        };
        if waits {
            self.real[side].owed.push((at.0, pages, now));
        }
        match self.model.unmap(side, at, bytes) {
            Ok(_) => self.translations(side, at, pages, Outcome::Done),
            Err(error) => Err(Wrong::new("unmap_free", &format!("{error:?}"), "Ok(())")),
        }
    }

    /// Whoever has a first window in the first container has an allocator of its upper half.
    pub(super) fn give_addresses(&mut self, side: usize) {
        let windows = &self.model.sides[side].windows;
        if side > 0 || windows[0].is_none() || self.real[0].addresses.is_some() {
            return;
        }
        let space = space(self.model.window(0, 0));
        // Some are in the hole of 32-bit MMIO.
        let Ok(addresses) = IobaAllocator::new(space, IobaOptions::default()) else { return };
        let handle = self.real[0].handles.remove(0).with_addresses(&addresses);
        let real = &mut self.real[0];
        real.handles.insert(0, handle);
        real.addresses = Some(addresses);
    }

    pub(super) fn forget_addresses(&mut self, side: usize) {
        if self.model.sides[side].windows[0].is_none() {
            let real = &mut self.real[side];
            real.addresses = None;
            real.owed.clear();
        }
    }
}

/// Where addresses of a window are given out.
pub(in super::super) fn space(window: &Window) -> IobaSpace {
    let half = window.shape.entries / 2;
    let bytes = half << window.page.get();
    IobaSpace { start: window.bus(half), bytes, page: window.page }
}
