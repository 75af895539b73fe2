// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything that can be asked of a container, and what each step changes if it is done.

use std::fmt::Debug;

use tce_engine::addr::{GroupId, Ioba, Uaddr};
use tce_engine::container::{MapRequest, Mapper, Mode, Removal, UnmapRequest};
use tce_engine::eeh::EehOp;
use tce_engine::error::{
    AttachError, BackendError, EehError, LostError, MapError, RegisterError, UnmapError,
    UnregisterError, WindowError,
};

use super::world::{A, B, BYTES, GROUPS, Kind, LEAF, PAGE, RW, World};

const SECOND: u64 = 1 << 59;
const G0: GroupId = GROUPS[0];
const G1: GroupId = GROUPS[1];
const G2: GroupId = GROUPS[2];

/// What a caller was told.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The names of the error's variants, from outside to inside.
    pub(crate) variant: String,
    pub(crate) lost: Option<LostError>,
    /// The step was done all the same.
    pub(crate) done: bool,
}

impl Refusal {
    fn new(error: &impl Debug, lost: Option<&LostError>) -> Self {
        // As in `Backend(Kernel { request: ...`: up to the first value.
        let text = format!("{error:?}");
        let end = text.find(|c: char| !(c.is_ascii_alphabetic() || c == '(')).unwrap_or(text.len());
        let names = text[..end].trim_end_matches('(');
        let variant = format!("{names}{}", ")".repeat(names.matches('(').count()));
        Self { variant, lost: lost.cloned(), done: false }
    }
}

impl From<MapError> for Refusal {
    fn from(e: MapError) -> Self {
        let lost = if let MapError::Lost(lost) = &e { Some(lost) } else { None };
        Self::new(&e, lost)
    }
}

impl From<UnmapError> for Refusal {
    fn from(e: UnmapError) -> Self {
        let lost = if let UnmapError::Lost(lost) = &e { Some(lost) } else { None };
        Self::new(&e, lost)
    }
}

impl From<WindowError> for Refusal {
    fn from(e: WindowError) -> Self {
        let lost = if let WindowError::Unmap(UnmapError::Lost(l)) = &e { Some(l) } else { None };
        Self::new(&e, lost)
    }
}

impl From<AttachError> for Refusal {
    fn from(e: AttachError) -> Self {
        let lost = if let AttachError::Replay { lost, .. } = &e { Some(lost) } else { None };
        Self { done: lost.is_some(), ..Self::new(&e, lost) }
    }
}

macro_rules! plain {
    ($($error:ty),*) => {
        $(impl From<$error> for Refusal {
            fn from(e: $error) -> Self {
                Self::new(&e, None)
            }
        })*
    };
}

plain!(RegisterError, UnregisterError, EehError, BackendError);

type Done = Result<(), Refusal>;

pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut World) -> Done,
}

macro_rules! steps {
    ($($name:literal: $run:expr),* $(,)?) => {
        &[$(Step { name: $name, run: $run }),*]
    };
}

/// Version 2 containers, and where the engine owns the tables.
pub(crate) const ALL: &[Step] = steps! {
    "attach": |w| attach(w, G0),
    "eeh": |w| w.c.eeh_of(G0, EehOp::Enable).map_err(Refusal::from),
    "eeh_states": eeh_states,
    "register": |w| Ok(w.c.register(A, BYTES)?),
    "register, another": |w| Ok(w.c.register(B, BYTES)?),
    "create_window": create_window,
    // Nothing is there yet, not even a leaf.
    "map, first leaf, one page": |w| map(w, 0, A, 1),
    "map": |w| map(w, 2 * LEAF, A, 20),
    // Over what is live, in part, from two regions.
    "map_list, replacing": |w| {
        let (at, list) = (2 * LEAF + 18 * PAGE, [A, B, Uaddr(A.0 + PAGE), Uaddr(B.0 + 9 * PAGE)]);
        w.touch(at, 4);
        w.c.map_list(Ioba(at), &list, RW, Mode::Replace)?;
        (0..).zip(list).for_each(|(i, memory)| w.mapped(at + i * PAGE, memory, 1));
        Ok(())
    },
    "attach, late": |w| if w.joins_late() { attach(w, G1) } else { Ok(()) },
    "Mapper::map, one page": |w| map_one(w, 2 * LEAF + 40 * PAGE, B),
    "Mapper::map, replacing one": |w| map_one(w, 2 * LEAF + 3 * PAGE, B),
    "Mapper::unmap, one page": |w| unmap_by_handle(w, 2 * LEAF + 4 * PAGE, 1),
    "Mapper::map_batch": |w| {
        let part = |at, memory, pages| MapRequest { at: Ioba(at), memory, bytes: pages * PAGE, perm: RW };
        let parts = [
            (2 * LEAF + 10 * PAGE, Uaddr(B.0 + 4 * PAGE), 4),
            (2 * LEAF + 60 * PAGE, A, 3),
            // The next leaf.
            (3 * LEAF - PAGE, B, 3),
        ];
        parts.iter().for_each(|(at, _, pages)| w.touch(*at, *pages));
        let requests = parts.map(|(at, memory, pages)| part(at, memory, pages));
        handle(w).map_batch(&requests, Mode::Replace)?;
        parts.iter().for_each(|(at, memory, pages)| w.mapped(*at, *memory, *pages));
        Ok(())
    },
    // So many leaves that their memory comes in several parts.
    "map_batch, many leaves": |w| {
        let leaves = if matches!(w.kind, Kind::Phb(_)) { 40 } else { 2 };
        let at = |leaf: u64| (8 + leaf) * LEAF;
        let part = |leaf| MapRequest { at: Ioba(at(leaf)), memory: A, bytes: PAGE, perm: RW };
        (0..leaves).for_each(|leaf| w.touch(at(leaf), 1));
        w.c.map_batch(&(0..leaves).map(part).collect::<Vec<_>>(), Mode::Refuse)?;
        (0..leaves).for_each(|leaf| w.mapped(at(leaf), A, 1));
        Ok(())
    },
    "unmap": |w| unmap(w, 2 * LEAF, 8),
    "Mapper::unmap": |w| unmap_by_handle(w, 2 * LEAF + 8 * PAGE, 4),
    "unmap_batch": |w| {
        let parts = [(2 * LEAF + 13 * PAGE, 2), (2 * LEAF + 17 * PAGE, 3)];
        w.c.unmap_batch(&parts.map(|(at, pages)| UnmapRequest { at: Ioba(at), bytes: pages * PAGE }))?;
        parts.iter().for_each(|(at, pages)| w.unmapped(*at, *pages));
        Ok(())
    },
    "create_window, the second": |w| if w.is_roomy() { create_window(w) } else { Ok(()) },
    "attach, last": |w| if w.joins_late() { attach(w, G2) } else { Ok(()) },
    "map, the second window": |w| if w.is_roomy() { map(w, SECOND + 5 * PAGE, B, 6) } else { Ok(()) },
    "detach": |w| if w.c.groups().len() > 1 { detach(w, G1) } else { Ok(()) },
    "remove_window": remove_window,
    // Who comes now has the second window alone.
    "attach, second window only": |w| if w.joins_late() { attach(w, G1) } else { Ok(()) },
    "create_window, again": create_window,
    "Mapper::map, first leaf": |w| map_one(w, 0, A),
    "unregister": |w| {
        unmap(w, 0, 1)?;
        if let Some(mapper) = &mut w.mapper {
            mapper.submit();
        }
        Ok(w.c.unregister(A, BYTES)?)
    },
    "detach, the last": leave,
};

/// Version 1 containers: one window, which is there as soon as it is enabled.
pub(crate) const VERSION_1: &[Step] = steps! {
    "attach": |w| attach(w, G0),
    "register": |w| Ok(w.c.register(A, BYTES)?),
    "register, another": |w| Ok(w.c.register(B, BYTES)?),
    "attach, another": |w| if w.joins_late() { attach(w, G1) } else { Ok(()) },
    "create_window": create_window,
    "map, first leaf, one page": |w| map(w, 0, A, 1),
    "map": |w| map(w, 2 * LEAF, A, 5),
    "attach, late": |w| if w.joins_late() { attach(w, G2) } else { Ok(()) },
    "Mapper::map, replacing one": |w| map_one(w, 2 * LEAF + 3 * PAGE, B),
    "unmap": |w| unmap(w, 2 * LEAF, 3),
    "detach": |w| if w.c.groups().len() > 1 { detach(w, G1) } else { Ok(()) },
    "unregister": |w| {
        unmap(w, 0, 3 * LEAF / PAGE)?;
        Ok(w.c.unregister(A, BYTES)?)
    },
    "detach, the last": leave,
};

fn attach(w: &mut World, group: GroupId) -> Done {
    w.c.attach(group)?;
    Ok(())
}

fn detach(w: &mut World, group: GroupId) -> Done {
    w.c.detach(group)?;
    Ok(())
}

impl World {
    /// With the last one all goes that is mapped.
    fn leave(&mut self, group: GroupId) -> Done {
        detach(self, group)?;
        if self.c.groups().is_empty() {
            self.model.clear();
        }
        Ok(())
    }
}

fn leave(w: &mut World) -> Done {
    for group in w.c.groups() {
        w.leave(group)?;
    }
    Ok(())
}

/// Each member has an answer of its own.
fn eeh_states(w: &mut World) -> Done {
    for (_, state) in w.c.eeh_states()? {
        state?;
    }
    Ok(())
}

fn create_window(w: &mut World) -> Done {
    w.c.create_window(w.window())?;
    Ok(())
}

fn remove_window(w: &mut World) -> Done {
    w.c.remove_window(Ioba(0), Removal::Force)?;
    w.model.retain(|at, _| *at >= SECOND);
    Ok(())
}

fn map(w: &mut World, at: u64, memory: Uaddr, pages: u64) -> Done {
    w.touch(at, pages);
    w.c.map(Ioba(at), memory, pages * PAGE, RW, Mode::Refuse)?;
    w.mapped(at, memory, pages);
    Ok(())
}

fn map_one(w: &mut World, at: u64, memory: Uaddr) -> Done {
    w.touch(at, 1);
    handle(w).map(Ioba(at), memory, PAGE, RW, Mode::Replace)?;
    w.mapped(at, memory, 1);
    Ok(())
}

fn unmap(w: &mut World, at: u64, pages: u64) -> Done {
    w.c.unmap(Ioba(at), pages * PAGE)?;
    w.unmapped(at, pages);
    Ok(())
}

fn unmap_by_handle(w: &mut World, at: u64, pages: u64) -> Done {
    handle(w).unmap(Ioba(at), pages * PAGE)?;
    w.unmapped(at, pages);
    Ok(())
}

fn handle(w: &mut World) -> &mut Mapper {
    let c = &w.c;
    w.mapper.get_or_insert_with(|| c.mapper())
}
