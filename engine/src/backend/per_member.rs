// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A platform's container of its own for each member group: what is asked for is asked for in each.

use std::fmt;

use super::{Backend, BusRange, CreateError, MAX_WINDOWS, Memory, Space, WindowCost};
use crate::addr::{GroupId, Ioba, Uaddr};
use crate::eeh::EehOp;
use crate::error::BackendError;
use crate::geometry::{Geometry, WindowSpec};
use crate::sync::{Arc, RwLock, read, write};
use crate::tce::Perm;

/// One member and its container.
struct Seat {
    group: GroupId,
    space: Arc<dyn Space>,
}

impl Seat {
    /// Closing a container ends its windows, but old kernels (4.2) then forget that it had memory
    /// registered, and keep it. The other members' containers have it too, so what is still mapped
    /// here does not matter.
    fn close(self, memory: &[Memory]) {
        for memory in memory {
            let _ = self.space.unregister(*memory, false);
        }
        self.space.detach(self.group);
    }
}

/// Who has a container, and what the next one has to be furnished with.
#[derive(Default)]
struct Seats {
    seats: Vec<Seat>,
    windows: [Option<Geometry>; MAX_WINDOWS],
    /// Where the windows of each slot begin, as soon as there was one.
    starts: [Option<Ioba>; MAX_WINDOWS],
    memory: Vec<Memory>,
}

/// The [`Space`] that is as many of the platform's as there are members.
pub(crate) struct PerMember {
    backend: Arc<dyn Backend>,
    seats: RwLock<Seats>,
}

impl PerMember {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, seats: RwLock::new(Seats::default()) }
    }

    /// The container of one member.
    pub(crate) fn seat(&self, group: GroupId) -> Option<Arc<dyn Space>> {
        let seats = read(&self.seats);
        seats.seats.iter().find(|seat| seat.group == group).map(|seat| seat.space.clone())
    }

    /// Creates the window of a slot in one container, whose windows are `windows`. A platform gives
    /// its first free slot: where that is another one, a table of one host page takes it meanwhile,
    /// and is charged so long.
    fn create(
        &self,
        space: &dyn Space,
        windows: &[Option<Geometry>; MAX_WINDOWS],
        starts: &[Option<Ioba>; MAX_WINDOWS],
        slot: usize,
    ) -> Result<(), CreateError> {
        let (Some(start), Some(geometry)) = (starts[slot], &windows[slot]) else { return Ok(()) };
        let filled =
            (0..slot).find_map(|s| starts[s].filter(|_| windows[s].is_none()).map(|at| (s, at)));
        let Some((first, at)) = filled else { return space.create_window(slot, start, geometry) };
        let (page, host_page) = (geometry.page(), self.backend.caps().host_page);
        let spec = WindowSpec::new(page.bytes() * (host_page.bytes() / 8), page).levels(1);
        let filler = Geometry::new(spec, host_page, u64::MAX);
        space.create_window(first, at, &filler.expect("one host page of entries is a table"))?;
        let created = space.create_window(slot, start, geometry);
        let removed = space.remove_window(first, at);
        created?;
        removed.map_err(|e| {
            let _ = space.remove_window(slot, start);
            e.into()
        })
    }

    /// Gives a new container what the others have; or says of how much memory it knows.
    fn furnish(&self, seats: &Seats, space: &dyn Space) -> Result<(), (usize, CreateError)> {
        // Memory first: some kernels charge all of a window only where there is some.
        for (done, memory) in seats.memory.iter().enumerate() {
            space.register(*memory).map_err(|e| (done, e.into()))?;
        }
        let mut windows = [None; MAX_WINDOWS];
        for slot in 0..MAX_WINDOWS {
            windows[slot] = seats.windows[slot];
            let created = self.create(space, &windows, &seats.starts, slot);
            created.map_err(|e| (seats.memory.len(), e))?;
        }
        Ok(())
    }
}

impl Space for PerMember {
    fn attach(&self, group: GroupId) -> Result<(), CreateError> {
        let mut seats = write(&self.seats);
        let space: Arc<dyn Space> = self.backend.space().into();
        space.attach(group)?;
        let seat = Seat { group, space };
        match self.furnish(&seats, &*seat.space) {
            Ok(()) => seats.seats.push(seat),
            Err((registered, e)) => {
                seat.close(&seats.memory[..registered]);
                return Err(e);
            }
        }
        Ok(())
    }

    fn detach(&self, group: GroupId) {
        let mut seats = write(&self.seats);
        if let Some(at) = seats.seats.iter().position(|seat| seat.group == group) {
            seats.seats.remove(at).close(&seats.memory);
        }
        if seats.seats.is_empty() {
            *seats = Seats::default();
        }
    }

    fn create_window(
        &self,
        slot: usize,
        start: Ioba,
        geometry: &Geometry,
    ) -> Result<(), CreateError> {
        let mut seats = write(&self.seats);
        for (done, seat) in seats.seats.iter().enumerate() {
            if let Err(e) = seat.space.create_window(slot, start, geometry) {
                for seat in &seats.seats[..done] {
                    seat.space.take_back_window(slot, start);
                }
                return Err(e);
            }
        }
        seats.windows[slot] = Some(*geometry);
        seats.starts[slot] = Some(start);
        Ok(())
    }

    fn cost(&self, geometry: &Geometry) -> WindowCost {
        match read(&self.seats).seats.first() {
            Some(seat) => seat.space.cost(geometry),
            None => self.backend.space().cost(geometry),
        }
    }

    /// If one refuses, the others get the window again, empty.
    fn remove_window(&self, slot: usize, start: Ioba) -> Result<(), BackendError> {
        let mut seats = write(&self.seats);
        for (done, seat) in seats.seats.iter().enumerate() {
            if let Err(e) = seat.space.remove_window(slot, start) {
                for seat in &seats.seats[..done] {
                    let _ = self.create(&*seat.space, &seats.windows, &seats.starts, slot);
                }
                return Err(e);
            }
        }
        seats.windows[slot] = None;
        Ok(())
    }

    fn take_back_window(&self, slot: usize, start: Ioba) {
        let mut seats = write(&self.seats);
        seats.seats.iter().for_each(|seat| seat.space.take_back_window(slot, start));
        seats.windows[slot] = None;
    }

    fn register(&self, memory: Memory) -> Result<(), BackendError> {
        let mut seats = write(&self.seats);
        for (done, seat) in seats.seats.iter().enumerate() {
            if let Err(e) = seat.space.register(memory) {
                for seat in &seats.seats[..done] {
                    let _ = seat.space.unregister(memory, false);
                }
                return Err(e);
            }
        }
        seats.memory.push(memory);
        Ok(())
    }

    fn eeh_state(&self) -> Result<i32, BackendError> {
        match &read(&self.seats).seats[..] {
            [seat] => seat.space.eeh_state(),
            _ => Err(ambiguous("asking for the error state".to_owned())),
        }
    }

    fn eeh(&self, op: EehOp) -> Result<(), BackendError> {
        match &read(&self.seats).seats[..] {
            [seat] => seat.space.eeh(op),
            _ => Err(ambiguous(op.to_string())),
        }
    }

    /// A process is charged until the last container has given it back. If one refuses, the others
    /// get it again.
    fn unregister(&self, memory: Memory, watch: bool) -> Result<bool, BackendError> {
        let mut seats = write(&self.seats);
        let count = seats.seats.len();
        let mut kept = false;
        for (done, seat) in seats.seats.iter().enumerate() {
            match seat.space.unregister(memory, watch && done + 1 == count) {
                Ok(yes) => kept = yes,
                Err(e) => {
                    for seat in &seats.seats[..done] {
                        let _ = seat.space.register(memory);
                    }
                    return Err(e);
                }
            }
        }
        seats.memory.retain(|known| *known != memory);
        Ok(kept)
    }

    /// Stops at the first that refuses; those before it have the range mapped.
    fn map(&self, range: BusRange, memory: Uaddr, perm: Perm) -> Result<u64, BackendError> {
        let seats = read(&self.seats);
        seats.seats.iter().map(|seat| seat.space.map(range, memory, perm)).sum()
    }

    /// Goes through all of them, whatever one says.
    fn unmap(&self, range: BusRange) -> Result<u64, BackendError> {
        let mut all = Ok(0);
        for seat in &read(&self.seats).seats {
            // Also after an error: what is left mapped would be reached by that member alone.
            let one = seat.space.unmap(range);
            all = all.and_then(|all| Ok(all + one?));
        }
        all
    }
}

fn ambiguous(request: String) -> BackendError {
    BackendError::Guarded { request, reason: "each member has a PE of its own" }
}

impl fmt::Debug for PerMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seats = read(&self.seats);
        f.debug_list().entries(seats.seats.iter().map(|seat| &seat.space)).finish()
    }
}
