// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Windows: at most two, programmed into every member or into none.

use super::call::Call;
use super::groups::Detached;
use super::isolate::WindowCharge;
use super::{Container, Receipt, State};
use crate::addr::{DmaMask, GroupId, Ioba, PageShift, PageSizes};
use crate::backend::{CreateError, MAX_WINDOWS, WindowProgram};
use crate::error::{BackendError, GeometryError, UnmapError, WindowError};
use crate::geometry::{Geometry, WindowSpec};
use crate::ioba::IobaSpace;
use crate::sabotage::{Guard, stands};
use crate::sync::lock;
use crate::table::{Held, TceTable};

/// Entries of a window that goes which are cleared in one go, 64 MiB of table: so much is cleared past
/// the caches.
const STRETCH: u64 = 8 << 20;

/// One window and the table it owns.
pub(super) struct Window {
    pub(super) start: Ioba,
    pub(super) slot: usize,
    pub(super) table: TceTable,
    /// What one entry of a guest stands for: one page of the table, or several.
    pub(super) guest_page: PageShift,
    pub(super) node: Option<u32>,
    /// True if a kernel owns the table and this one is its mirror.
    pub(super) kernel: bool,
    /// True if KVM edits the kernel's table, so that the mirror says nothing.
    pub(super) left_to_kvm: bool,
    /// Given back when the window goes.
    pub(super) charges: Vec<WindowCharge>,
}

/// A window, as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowInfo {
    /// Where it begins on the bus.
    pub start: Ioba,
    /// Shape of its table.
    pub geometry: Geometry,
    /// What one entry of a guest ([`papr`](crate::papr)) stands for: a page of the table, or more.
    pub guest_page: PageShift,
    /// The NUMA node of the group that its table was made for, if the platform tells: the member that had
    /// joined last, where Linux has the table. Devices of members at other nodes reach it across nodes.
    /// Where each member has a table of its own, the node of all of them, if it is the same.
    pub node: Option<u32>,
}

/// A window as a device with a certain mask sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The window.
    pub window: WindowInfo,
    /// How many bytes of it from its start on the device reaches, in whole pages; at least one page.
    pub bytes: u64,
}

impl Reach {
    /// What an [`IobaAllocator`](crate::ioba::IobaAllocator) for such devices alone takes.
    #[must_use]
    pub fn space(&self) -> IobaSpace {
        let page = self.window.geometry.page();
        IobaSpace { start: self.window.start, bytes: self.bytes, page }
    }
}

/// What to do with a window that still has live entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Removal {
    /// Refuse.
    #[default]
    IfUnmapped,
    /// Clear them.
    Force,
}

impl Window {
    pub(super) fn info(&self) -> WindowInfo {
        let geometry = *self.table.geometry();
        WindowInfo { start: self.start, geometry, guest_page: self.guest_page, node: self.node }
    }

    /// log2 of the table's entries behind one of a guest's.
    #[inline]
    pub(super) fn parts(&self) -> u32 {
        self.guest_page.get() - self.table.geometry().page().get()
    }

    pub(super) fn program(&self) -> WindowProgram {
        let geometry = self.table.geometry();
        WindowProgram {
            root: self.table.root(),
            levels: geometry.levels(),
            block_bytes: geometry.block_bytes(),
            page: geometry.page(),
        }
    }
}

fn whole(window: &Window) -> Held<'_> {
    let held = window.table.hold(0, window.table.geometry().entries());
    held.expect("the whole table is inside the table")
}

impl Container {
    /// Creates a window in the first free slot and programs it into every member.
    ///
    /// # Errors
    /// [`WindowError`]; no member has the window and nothing is charged.
    pub fn create_window(&self, spec: WindowSpec) -> Result<WindowInfo, WindowError> {
        self.create_guest_window(spec, PageSizes::default())
    }

    /// The same for a guest. If the platform lacks the page of `spec` and it is one of `composed`,
    /// each is made of several of the largest page below it that the platform has.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn create_guest_window(
        &self,
        spec: WindowSpec,
        composed: PageSizes,
    ) -> Result<WindowInfo, WindowError> {
        self.engine.same_process()?;
        let _structure = lock(&self.structure);
        let mut state = self.alone();
        let caps = state.caps().ok_or(WindowError::NoGroup)?;
        let slots = caps.window_starts.iter().flatten().count();
        let free = (0..MAX_WINDOWS)
            .filter(|s| state.windows[*s].is_none())
            .find_map(|s| caps.window_starts[s].map(|start| (s, start)));
        let (slot, start) = free.ok_or(WindowError::NoSlot(slots))?;
        let engine = &self.engine;
        let guest_page = spec.page;
        let spec = match caps.page_sizes.largest_below(guest_page) {
            Some(page)
                if composed.contains(guest_page) && !caps.page_sizes.contains(guest_page) =>
            {
                if spec.size < guest_page.bytes() {
                    let (size, page) = (spec.size, guest_page);
                    return Err(GeometryError::SmallerThanPage { size, page }.into());
                }
                WindowSpec { page, ..spec }
            }
            _ => spec,
        };
        let geometry = Geometry::new(spec, engine.caps.host_page, engine.caps.max_block)?;
        if !caps.page_sizes.contains(spec.page) {
            return Err(WindowError::PageSize { page: spec.page, offered: caps.page_sizes });
        }
        if geometry.levels() > caps.max_levels {
            let (levels, offered) = (geometry.levels(), caps.max_levels);
            return Err(WindowError::Levels { levels, offered });
        }
        let mut charges = self.charge_window(&state, &geometry)?;
        let kernel = engine.caps.tables.kernel();
        let (memory, turns) = (engine.backend.clone(), self.state.turns().clone());
        let table = TceTable::shared(geometry, memory, engine.tier, turns)?;
        if let Err(CreateError { error, leaked }) = self.space.create_window(slot, start, &geometry)
        {
            WindowCharge::leak(&mut charges, leaked);
            return Err(error.into());
        }
        let window = Window {
            start,
            slot,
            table,
            guest_page,
            node: self.table_node(&state),
            kernel: kernel.is_some(),
            left_to_kvm: false,
            charges,
        };
        for (done, member) in state.members.iter().enumerate() {
            if let Err(e) = engine.backend.set_window(member.group, slot, &window.program()) {
                // Exactly those that have it.
                self.disable(&state.member_ids[..done], slot);
                self.space.take_back_window(slot, start);
                return Err(e.into());
            }
        }
        // Nothing of an earlier window in this slot may be remembered.
        let whole = engine.caps.tables.kill_of_pe();
        for member in state.members.iter().filter(|_| stands(Guard::Forget)) {
            engine.backend.kill(member.group, whole);
        }
        engine.backend.fence();
        let info = window.info();
        state.windows[slot] = Some(window);
        Ok(info)
    }

    /// The window that serves a device with this mask: the one of which it reaches most, the first of
    /// equals. A window that ends beyond the mask serves it up to there
    /// ([`Magazine::below`](crate::ioba::Magazine::below) takes addresses accordingly).
    ///
    /// # Errors
    /// [`WindowError::Mask`] if the device reaches no whole page of any window.
    pub fn window_for(&self, mask: DmaMask) -> Result<Reach, WindowError> {
        let windows = self.windows();
        let reach = |window: &WindowInfo| {
            let page = window.geometry.page();
            let pages = mask.pages(window.start, window.geometry.covered(), page);
            (pages > 0).then_some(Reach { window: *window, bytes: pages << page.get() })
        };
        let all = windows.iter().filter_map(reach);
        let most = all.reduce(|best, other| if other.bytes > best.bytes { other } else { best });
        most.ok_or_else(|| {
            let range = |w: &WindowInfo| (w.start, w.geometry.covered());
            WindowError::Mask { mask, windows: windows.iter().map(range).collect() }
        })
    }

    /// The largest window in pages of `page` that a table can serve here, in bytes; 0 if none.
    #[must_use]
    pub fn largest_window(&self, page: PageShift) -> u64 {
        let Some(caps) = self.caps() else { return 0 };
        let engine = &self.engine.caps;
        let fits = |size: &u64| {
            let spec = WindowSpec::new(*size, page);
            Geometry::new(spec, engine.host_page, engine.max_block)
                .is_ok_and(|g| g.levels() <= caps.max_levels)
        };
        (page.get()..u64::BITS).rev().map(|lg2| 1u64 << lg2).find(fits).unwrap_or(0)
    }

    /// Removes the window that starts exactly at `start`. The receipt holds what clearing it took,
    /// the kills of unsetting it included.
    ///
    /// # Errors
    /// [`WindowError::NotFound`], or [`WindowError::Mapped`] unless forced.
    pub fn remove_window(&self, start: Ioba, removal: Removal) -> Result<Receipt, WindowError> {
        self.engine.same_process()?;
        let _structure = lock(&self.structure);
        let inside = |w: &Window| start.0.wrapping_sub(w.start.0) < w.table.geometry().covered();
        let named = |w: &&Window| w.start == start || !stands(Guard::ExactStart) && inside(w);
        // Counting takes the longer the larger the window is: not while others wait, if it can be helped.
        let unmapped = |state: &State| match state.windows.iter().flatten().find(named) {
            Some(window) if removal == Removal::IfUnmapped => match window.table.live() {
                0 => Ok(()),
                live => Err(WindowError::Mapped { start, live }),
            },
            _ => Ok(()),
        };
        unmapped(&self.state.read())?;
        let mut state = self.alone();
        unmapped(&state)?;
        let found = state.windows.iter().flatten().find(named);
        let window = found.ok_or(WindowError::NotFound(start))?;
        if window.left_to_kvm && removal == Removal::IfUnmapped {
            return Err(WindowError::LeftToKvm(start));
        }
        if self.engine.caps.tables.kernel().is_some_and(|k| k.paid_ahead > 0) {
            return Err(WindowError::Backend(BackendError::Guarded {
                request: format!("removing the window at {start}"),
                reason: "a version 1 container has one window, which stays until it is closed",
            }));
        }
        let slot = window.slot;
        if window.kernel {
            // The kernel's own maps must not meet its removal, so everybody waits for it.
            let ioctls = self.call_on(&state, |call| call.publish_clear(window, &whole(window)))?;
            if let Err(e) = self.space.remove_window(slot, start) {
                // It stays, so what was cleared is put back.
                let put_back =
                    |call: &mut Call<'_>| call.replay_window(window, &mut Detached::default());
                self.call_on(&state, put_back).map_err(UnmapError::from)?;
                return Err(e.into());
            }
            return Ok(Receipt { ioctls: ioctls + 1, ..self.unset(&mut state, slot) });
        }
        let window = state.windows[slot].take();
        drop(state);
        Ok(window.map_or_else(Receipt::default, |window| self.take_down(&window)))
    }

    /// Clear → kill → unset of a window that nobody finds any more, while maps and unmaps of the others
    /// go on. Its memory and its charge go when it is dropped.
    fn take_down(&self, window: &Window) -> Receipt {
        let mut receipt = Receipt::default();
        let entries = window.table.geometry().entries();
        for first in (0..entries).step_by(STRETCH as usize) {
            let held = window.table.hold(first, STRETCH.min(entries - first));
            let held = held.expect("inside the table");
            // Given back in between, for those who make or drop handles.
            let part = self.call(|call| call.clear(window, held));
            receipt.tces += part.tces;
            receipt.released += part.released;
            receipt.steps += part.steps;
            receipt.kills += part.kills;
        }
        let state = self.state.read();
        receipt.kills.issued += self.disable(&state.member_ids, window.slot);
        receipt
    }

    /// Tells the engine that KVM edits the window from now on
    /// (`KVM_DEV_VFIO_GROUP_SET_SPAPR_TCE`). The engine's mirror says nothing about such a window
    /// any more: maps and unmaps are refused, nothing is replayed or restored from the mirror, and
    /// no region of the container can be given back before the window is removed.
    ///
    /// # Errors
    /// [`WindowError::NotFound`]; [`WindowError::Mapped`] if the engine has mapped something there.
    pub fn leave_to_kvm(&self, start: Ioba) -> Result<(), WindowError> {
        self.engine.same_process()?;
        let _structure = lock(&self.structure);
        let mut state = self.alone();
        let found = state.windows.iter_mut().flatten().find(|w| w.start == start);
        let window = found.ok_or(WindowError::NotFound(start))?;
        match window.table.live() {
            0 => window.left_to_kvm = true,
            live => return Err(WindowError::Mapped { start, live }),
        }
        Ok(())
    }

    /// Removes a window whatever the platform says about it: when the groups leave, it goes anyway.
    pub(super) fn drop_window(&self, state: &mut State, slot: usize) {
        let Some(window) = &state.windows[slot] else { return };
        let _ = self.call_on(state, |call| call.publish_clear(window, &whole(window)));
        let _ = self.space.remove_window(slot, window.start);
        self.unset(state, slot);
    }

    /// Clear → kill → unset → free → uncharge, in this order.
    fn unset(&self, state: &mut State, slot: usize) -> Receipt {
        let Some(window) = state.windows[slot].take() else { return Receipt::default() };
        let mut receipt = self.call_on(state, |call| call.clear(&window, whole(&window)));
        receipt.kills.issued += self.disable(&state.member_ids, slot);
        receipt
    }

    /// Disables a slot in these members, and waits until they have forgotten it. Returns the kills.
    fn disable(&self, members: &[GroupId], slot: usize) -> u64 {
        let backend = &*self.engine.backend;
        members.iter().for_each(|group| backend.unset_window(*group, slot));
        // A kill that goes beyond the PE must find no other member with the window.
        let whole = self.engine.caps.tables.kill_of_pe();
        let killed = members.iter().filter(|_| stands(Guard::Forget));
        let kills = killed.map(|group| backend.kill(*group, whole)).sum();
        backend.fence();
        kills
    }
}
