// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a kernel owns the tables: what it is told before the mirror changes, in as few requests as
//! will do, and how the mirror puts things right when it refuses.

use super::State;
use super::call::Call;
use super::groups::{Attached, Detached};
use super::windows::Window;
use crate::addr::{Ioba, Uaddr};
use crate::backend::BusRange;
use crate::error::{BackendError, LostError, MapError, UnmapError};
use crate::kill::Tally;
use crate::regions::Counts;
use crate::sabotage::{Guard, stands};
use crate::table::{Held, Old, One, Writer};
use crate::tce::{Perm, Tce};

/// Empty pages between live ones that are cleared along with them: on Linux 6.12 a request costs as
/// many instructions as clearing some four pages.
const GAP: u64 = 4;

/// Consecutive entries that get consecutive memory with the same permission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) memory: Uaddr,
    pub(super) perm: Perm,
}

/// Consecutive entries of a mirror: all empty, or one run of one region.
struct Stretch {
    first: u64,
    count: u64,
    was: Option<(Uaddr, Perm, usize)>,
}

/// Joins entries to stretches.
#[derive(Default)]
struct Stretches(Vec<Stretch>);

impl Stretches {
    fn push(&mut self, state: &State, window: &Window, index: u64, tce: Tce) {
        let region = state.registrations.number_of_entry(tce.address()).unwrap_or(usize::MAX);
        let was = (!tce.is_empty()).then(|| (Uaddr(tce.address()), tce.perm(), region));
        if let Some(last) = self.0.last_mut()
            && last.first + last.count == index
        {
            let bytes = last.count << window.table.geometry().page().get();
            if was == last.was.map(|(at, perm, region)| (Uaddr(at.0 + bytes), perm, region)) {
                last.count += 1;
                return;
            }
        }
        self.0.push(Stretch { first: index, count: 1, was });
    }
}

/// What was lost, as it adds up.
#[derive(Default)]
struct Lost {
    first: Option<u64>,
    entries: u64,
    owed: Tally,
}

impl Lost {
    fn add(&mut self, state: &State, first: u64, old: &Old<'_>) {
        self.first.get_or_insert(first);
        self.entries += old.summary.live;
        state.registrations.attribute(old, &mut self.owed);
    }

    /// The kernel has dropped the entries, so their memory is free.
    fn settle(
        self,
        state: &State,
        window: &Window,
        source: BackendError,
    ) -> Result<BackendError, LostError> {
        self.owed.iter().for_each(|(n, amount)| {
            state.registrations.unclaim(Counts::SHARED, n, amount);
        });
        match self.first {
            None => Ok(source),
            Some(first) => {
                Err(LostError { source, first: window.bus(first, 1).at, entries: self.entries })
            }
        }
    }
}

impl Window {
    pub(super) fn bus(&self, first: u64, count: u64) -> BusRange {
        let page = self.table.geometry().page().get();
        let at = Ioba(self.start.0 + (first << page));
        BusRange { slot: self.slot, window: self.start, at, bytes: count << page }
    }
}

impl Call<'_> {
    /// Has the kernel that owns the window map the pieces, which cover what `writer` has locked.
    /// Returns the number of requests.
    #[cold]
    pub(super) fn publish(
        &self,
        window: &Window,
        writer: &mut Writer<'_>,
        pieces: &[Piece],
    ) -> Result<u64, MapError> {
        let page = window.table.geometry().page();
        let mut ioctls = 0;
        for (done, piece) in pieces.iter().enumerate() {
            match self.publish_piece(window, piece) {
                Ok(requests) => ioctls += requests,
                Err(e) => {
                    self.state.registrations.doubt(piece.memory, piece.count << page.get());
                    let touched = pieces[..=done].iter().map(|p| (p.first, p.count));
                    let forget = |part: (u64, u64), old: &mut dyn FnMut(&Old<'_>)| {
                        writer.forget(part, old);
                    };
                    return Err(self.restore(window, touched, e, forget));
                }
            }
        }
        Ok(ioctls)
    }

    /// [`Call::publish`] for one entry, which `one` has locked.
    pub(super) fn publish_one(
        &self,
        window: &Window,
        index: u64,
        one: &One<'_>,
        memory: Uaddr,
        perm: Perm,
    ) -> Result<u64, MapError> {
        let range = window.bus(index, 1);
        self.space.map(range, memory, perm).map_err(|e| {
            self.state.registrations.doubt(memory, range.bytes);
            self.restore_one(window, index, one, e)
        })
    }

    /// A request never spans two regions: what is undone is then undone in one of them.
    fn publish_piece(&self, window: &Window, piece: &Piece) -> Result<u64, BackendError> {
        let page = window.table.geometry().page().get();
        let (mut first, mut memory) = (piece.first, piece.memory);
        let end = piece.first + piece.count;
        let mut ioctls = 0;
        while first < end {
            let left = self.state.registrations.extent(memory).bytes >> page;
            let count = left.min(end - first);
            ioctls += self.space.map(window.bus(first, count), memory, piece.perm)?;
            first += count;
            memory.0 += count << page;
        }
        Ok(ioctls)
    }

    /// Has the kernel that owns the window clear what is live in the range. Returns the number of
    /// requests; none where the engine owns it.
    #[inline]
    pub(super) fn publish_clear(
        &self,
        window: &Window,
        held: &Held<'_>,
    ) -> Result<u64, UnmapError> {
        if window.kernel { self.clear_in_kernel(window, held) } else { Ok(0) }
    }

    #[cold]
    fn clear_in_kernel(&self, window: &Window, held: &Held<'_>) -> Result<u64, UnmapError> {
        let stretches = live_stretches(held);
        let mut ioctls = 0;
        for (done, (first, count)) in stretches.iter().enumerate() {
            match self.space.unmap(window.bus(*first, *count)) {
                Ok(requests) => ioctls += requests,
                Err(e) => {
                    let touched = stretches[..=done].iter().copied();
                    let forget = |part: (u64, u64), old: &mut dyn FnMut(&Old<'_>)| {
                        held.forget(part, old);
                    };
                    return Err(self.restore(window, touched, e, forget));
                }
            }
        }
        Ok(ioctls)
    }

    /// Has the kernel that owns the window clear one entry, which is live and which `one` has locked.
    pub(super) fn publish_clear_one(
        &self,
        window: &Window,
        index: u64,
        one: &One<'_>,
    ) -> Result<u64, UnmapError> {
        let cleared = self.space.unmap(window.bus(index, 1));
        cleared.map_err(|e| self.restore_one(window, index, one, e))
    }

    #[cold]
    fn restore_one<E: From<BackendError> + From<LostError>>(
        &self,
        window: &Window,
        index: u64,
        one: &One<'_>,
        source: BackendError,
    ) -> E {
        let touched = std::iter::once((index, 1));
        let forget = |_, old: &mut dyn FnMut(&Old<'_>)| window.table.forget_one(index, one, old);
        self.restore(window, touched, source, forget)
    }

    /// Makes the kernel's entries of the touched parts equal to the mirror's again. What it refuses
    /// to map is taken out of the mirror and released. Returns what to tell the caller.
    fn restore<E: From<BackendError> + From<LostError>>(
        &self,
        window: &Window,
        touched: impl Iterator<Item = (u64, u64)>,
        source: BackendError,
        mut forget: impl FnMut((u64, u64), &mut dyn FnMut(&Old<'_>)),
    ) -> E {
        let state = self.state;
        let mut stretches = Stretches::default();
        for index in touched.flat_map(|(first, count)| first..first + count) {
            let tce = window.table.get(index).expect("what was locked is inside the table");
            stretches.push(state, window, index, tce);
        }
        let mut lost = Lost::default();
        for Stretch { first, count, was } in stretches.0 {
            let range = window.bus(first, count);
            let Some((memory, perm, _)) = was else {
                let _ = self.space.unmap(range);
                continue;
            };
            if stands(Guard::PutBack) && self.put_back(range, memory, perm).is_err() {
                forget((first, count), &mut |old| lost.add(state, first, old));
            }
        }
        lost.settle(state, window, source).map_or_else(E::from, E::from)
    }

    /// Maps again what the mirror says. If the kernel refuses, nothing shall be there; a container
    /// that refuses even that is lost, and closing it ends all it has.
    fn put_back(&self, range: BusRange, memory: Uaddr, perm: Perm) -> Result<u64, BackendError> {
        self.space.map(range, memory, perm).inspect_err(|_| {
            self.state.registrations.doubt(memory, range.bytes);
            let _ = self.space.unmap(range);
        })
    }

    /// Maps again what the mirrors of all windows say. What is lost is told for all of them together.
    pub(super) fn replay(&self, done: &mut Detached) -> Result<(), LostError> {
        let mut all: Result<(), LostError> = Ok(());
        for window in self.state.windows.iter().flatten() {
            if let Err(lost) = self.replay_window(window, done) {
                match &mut all {
                    Ok(()) => all = Err(lost),
                    Err(told) => told.entries += lost.entries,
                }
            }
        }
        all
    }

    /// The same for one window.
    pub(super) fn replay_window(
        &self,
        window: &Window,
        done: &mut Detached,
    ) -> Result<(), LostError> {
        let state = self.state;
        if window.left_to_kvm {
            done.skipped += 1;
            return Ok(());
        }
        let (mut lost, mut refused) = (Lost::default(), None);
        for Stretch { first, count, was } in mirrored(state, window) {
            let Some((memory, perm, _)) = was else { continue };
            match self.put_back(window.bus(first, count), memory, perm) {
                Ok(requests) => {
                    done.ioctls += requests;
                    done.replayed += count;
                }
                Err(source) => {
                    refused.get_or_insert(source);
                    let held = window.table.hold(first, count).expect("live entries");
                    held.clear(|old| lost.add(state, first, old));
                }
            }
        }
        refused.map_or(Ok(()), |source| lost.settle(state, window, source).map(drop))
    }

    /// Maps what the mirrors of all windows say in a container that has nothing mapped yet. The
    /// mirrors stay as they are.
    pub(super) fn supply(&self, done: &mut Attached) -> Result<(), BackendError> {
        for window in self.state.windows.iter().flatten() {
            for Stretch { first, count, was } in mirrored(self.state, window) {
                let Some((memory, perm, _)) = was else { continue };
                let range = window.bus(first, count);
                let sent = self.space.map(range, memory, perm);
                done.ioctls += sent.inspect_err(|_| {
                    self.state.registrations.doubt(memory, range.bytes);
                })?;
                done.replayed += count;
            }
        }
        Ok(())
    }
}

/// All that is live in a window's mirror.
fn mirrored(state: &State, window: &Window) -> Vec<Stretch> {
    let mut stretches = Stretches::default();
    let all = window.table.for_each_live(0, window.table.geometry().entries(), |i, tce| {
        stretches.push(state, window, i, tce);
    });
    all.expect("the whole table is inside the table");
    stretches.0
}

/// What is live in the parts, joined over short gaps inside a part.
fn live_stretches(held: &Held<'_>) -> Vec<(u64, u64)> {
    let mut parts = held.parts().iter();
    let mut part = (0, 0);
    let mut all: Vec<(u64, u64)> = Vec::new();
    held.live(|old| {
        let mut join = |first: u64, count: u64| {
            let mut same = true;
            while first >= part.0 + part.1 {
                part = *parts.next().expect("what is live is in a part");
                same = false;
            }
            match all.last_mut() {
                Some(last) if first - (last.0 + last.1) <= if same { GAP } else { 0 } => {
                    last.1 = first + count - last.0;
                }
                _ => all.push((first, count)),
            }
        };
        if old.summary.live == old.count() {
            join(old.first(), old.count());
        } else {
            old.entries().for_each(|(index, _)| join(index, 1));
        }
    });
    all
}
