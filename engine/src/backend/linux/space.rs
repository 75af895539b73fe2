// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One kernel container of the engine: the requests, in the order in which they are safe.

use std::fmt;

use super::charging::Charging;
use super::opened::{Opened, Slot};
use super::raw::{Errno, RawHost};
use super::uapi::{EehPeOp, RegisterMemory, eeh_op};
use super::{LinuxOptions, Version, guard, range};
use crate::addr::{GroupId, Ioba, PageShift, Uaddr};
use crate::backend::{BusRange, CreateError, Memory, Space, WindowCost};
use crate::eeh::EehOp;
use crate::error::BackendError;
use crate::geometry::Geometry;
use crate::sabotage::{Guard, stands};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, RwLock, lock, read, write};
use crate::tce::Perm;

/// Usual size of the one window of a version 1 container, and of version 2's default window.
pub(super) const V1_WINDOW: u64 = 2 << 30;

/// The [`Space`] over one raw container. The container is open while there are members.
pub(super) struct LinuxSpace {
    host: Arc<dyn RawHost>,
    options: LinuxOptions,
    charging: Arc<Mutex<Option<Charging>>>,
    opened: RwLock<Held>,
}

/// The container of the kernel's.
#[derive(Default)]
struct Held {
    opened: Option<Opened>,
    /// The member of a version 1 container.
    lone: Option<GroupId>,
}

impl LinuxSpace {
    pub(super) fn new(
        host: Arc<dyn RawHost>,
        options: LinuxOptions,
        charging: Arc<Mutex<Option<Charging>>>,
    ) -> Self {
        Self { host, options, charging, opened: RwLock::default() }
    }

    /// How windows are charged; as observed on Linux 6.12 if it could not be found out.
    fn charging(&self) -> Charging {
        lock(&self.charging).unwrap_or(Charging::Twice)
    }

    fn with<T>(
        &self,
        f: impl FnOnce(&Opened) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        read(&self.opened).opened.as_ref().map_or(Err(no_group()), f)
    }

    /// Closes a version 1 container, as nothing else rids it of its window and of all that it was charged
    /// with, and opens it again. If that fails, whoever asks for something next tries once more.
    fn renew(&self, held: &mut Held) {
        if let (Some(opened), Some(group)) = (held.opened.take(), held.lone) {
            // A device that is open keeps the container, but not what was paid ahead.
            let _ = opened.raw.disable();
            opened.leave(group);
        }
        let _ = self.reopen(held);
    }

    /// Opens a version 1 container that is still closed.
    fn reopen(&self, held: &mut Held) -> Result<(), BackendError> {
        if let (None, Some(group)) = (&held.opened, held.lone) {
            held.opened = Some(self.first_member(group)?);
        }
        Ok(())
    }

    /// For requests that a container without a window has an answer to.
    fn with_any<T>(
        &self,
        f: impl FnOnce(&Opened) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        // Not everybody else has to wait for a question.
        if read(&self.opened).opened.is_none() {
            self.reopen(&mut write(&self.opened))?;
        }
        self.with(f)
    }

    /// Version 1 pins as it maps, and would hang if it could not pin page 0.
    fn pinnable(&self, memory: Uaddr, bytes: u64) -> Result<(), BackendError> {
        match self.host.backing(memory, bytes) {
            Some(_) => Ok(()),
            None => Err(BackendError::Pin {
                at: memory.0,
                bytes,
                reason: "it is not mapped for reading and writing any more".into(),
            }),
        }
    }

    fn first_member(&self, group: GroupId) -> Result<Opened, BackendError> {
        let mut opened = Opened::new(&*self.host)?;
        opened.join(group)?;
        opened.set_iommu(self.options.version)?;
        opened.members = 1;
        let info = opened.info()?;
        if self.options.version == Version::V2 && !self.options.keep_default_window {
            opened.remove_window(Ioba(u64::from(info.dma32_window_start)))?;
            return Ok(opened);
        }
        opened.default_window = Some(info.dma32_window_size.into());
        Ok(opened)
    }

    /// The slot has a default window, so nothing else can be there.
    fn adopt_default(
        &self,
        opened: &mut Opened,
        start: Ioba,
        geometry: &Geometry,
        bytes: u64,
    ) -> Result<(), BackendError> {
        let shape = (geometry.size(), geometry.page(), geometry.levels());
        if shape != (bytes, PageShift::K4, 1) {
            return Err(BackendError::Guarded {
                request: format!(
                    "creating a window of {:#x} bytes, {} pages, {} level(s) where the default \
                     window of {bytes:#x} bytes, 4K pages, 1 level stands",
                    shape.0, shape.1, shape.2
                ),
                reason: "it can be used as it is only",
            });
        }
        if self.options.version == Version::V2 {
            // It comes into being with the first request that needs it. A window of the same shape,
            // made now, is no different, and its charge is not a surprise.
            opened.remove_window(start)?;
            return opened.create(geometry, start);
        }
        opened.enable()?;
        opened.enabled = true;
        opened.force_default_window(start).inspect_err(|_| {
            opened.enabled = opened.raw.disable() != Ok(0);
        })
    }

    fn make_window(
        &self,
        opened: &mut Opened,
        slot: usize,
        start: Ioba,
        geometry: &Geometry,
        array_due: bool,
    ) -> Result<(), BackendError> {
        match opened.default_window {
            Some(bytes) if slot == 0 => self.adopt_default(opened, start, geometry, bytes)?,
            _ => opened.create(geometry, start)?,
        }
        let page = geometry.page().bytes();
        opened.windows[slot] = Some(Slot {
            start,
            page,
            array_due: AtomicBool::new(array_due),
            leaf: page * geometry.level_entries(),
            // One level is allocated whole: there is no leaf that could be missing.
            first_leaf: AtomicBool::new(geometry.levels() == 1),
        });
        if *opened.registered.get_mut() {
            opened.force_arrays().inspect_err(|_| {
                opened.windows[slot] = None;
                let _ = opened.remove_window(start);
            })?;
        }
        Ok(())
    }
}

/// A request without a container to send it to.
fn no_group() -> BackendError {
    BackendError::Guarded { request: "a request".into(), reason: "the container has no group" }
}

impl Space for LinuxSpace {
    fn attach(&self, group: GroupId) -> Result<(), CreateError> {
        let mut held = write(&self.opened);
        match &mut held.opened {
            Some(opened) => {
                if opened.windows.iter().any(Option::is_some)
                    && self.charging().may_forget_windows()
                {
                    return Err(BackendError::Guarded {
                        request: format!("adding group {group} to a container with windows"),
                        reason: "kernels of the kind of this one (4.9) may not give them to it; \
                                 add all groups first, then create windows, or choose \
                                 DetachPolicy::Isolate",
                    }
                    .into());
                }
                opened.join(group)?;
                opened.members += 1;
            }
            none => *none = Some(self.first_member(group)?),
        }
        held.lone = (self.options.version == Version::V1).then_some(group);
        Ok(())
    }

    fn detach(&self, group: GroupId) {
        let mut held = write(&self.opened);
        held.lone = None;
        let Some(container) = &mut held.opened else { return };
        container.leave(group);
        container.members -= 1;
        if container.members == 0 {
            // The kernel has released all of it; a new first member begins anew.
            held.opened = None;
        }
    }

    fn create_window(
        &self,
        slot: usize,
        start: Ioba,
        geometry: &Geometry,
    ) -> Result<(), CreateError> {
        let mut held = write(&self.opened);
        self.reopen(&mut held)?;
        let before = self.host.locked_bytes();
        let charging = self.charging();
        let array_due = charging == Charging::FlatLater;
        let opened = held.opened.as_mut().ok_or_else(no_group)?;
        let created = self.make_window(opened, slot, start, geometry, array_due);
        if created.is_err() && opened.enabled {
            self.renew(&mut held);
        }
        created.map_err(|error| {
            // Linux forgets to give the charge back if there is no memory for the table.
            let more = self.host.locked_bytes().saturating_sub(before);
            let charged = charging.created(geometry);
            CreateError { error, leaked: if more >= charged { charged } else { 0 } }
        })
    }

    fn cost(&self, geometry: &Geometry) -> WindowCost {
        self.charging().cost(geometry, self.options.version)
    }

    fn remove_window(&self, slot: usize, start: Ioba) -> Result<(), BackendError> {
        let mut held = write(&self.opened);
        let opened = held.opened.as_mut().ok_or_else(no_group)?;
        if self.options.version == Version::V1 {
            // What was paid ahead comes back; the window itself stays until the container goes.
            return guard::done(opened.raw.disable(), || "disabling the container".into());
        }
        opened.remove_window(start)?;
        opened.windows[slot] = None;
        opened.default_window = opened.default_window.filter(|_| slot != 0);
        Ok(())
    }

    fn take_back_window(&self, slot: usize, start: Ioba) {
        match self.options.version {
            Version::V1 => self.renew(&mut write(&self.opened)),
            Version::V2 => drop(self.remove_window(slot, start)),
        }
    }

    fn register(&self, memory: Memory) -> Result<(), BackendError> {
        let (at, bytes) = (memory.start(), memory.bytes());
        if self.options.version == Version::V1 {
            return Ok(());
        }
        self.with(|opened| {
            let answer = opened.raw.register(&RegisterMemory::new(at, bytes));
            let request = || format!("registering {}", range(Uaddr(at), bytes));
            match answer {
                Ok(_) if !stands(Guard::Hole) => Ok(()),
                Ok(pages) if pages > 0 => Err(BackendError::Pin {
                    at,
                    bytes,
                    reason: format!("behind its first {pages} pages there is a hole"),
                }),
                Err(Errno::EFAULT) => Err(BackendError::Pin {
                    at,
                    bytes,
                    reason: "the kernel cannot pin all of it".to_owned(),
                }),
                answer => guard::done(answer, request),
            }?;
            opened.registered.store(true, Ordering::Relaxed);
            opened.force_arrays().inspect_err(|_| {
                let _ = opened.raw.unregister(&RegisterMemory::new(at, bytes));
            })
        })
    }

    fn eeh_state(&self) -> Result<i32, BackendError> {
        self.with_any(|opened| {
            let answer = opened.raw.eeh(&EehPeOp::new(eeh_op::GET_STATE));
            answer.map_err(|e| guard::refused(e, || "asking for the error state".into()))
        })
    }

    fn eeh(&self, op: EehOp) -> Result<(), BackendError> {
        self.with_any(|opened| {
            guard::done(opened.raw.eeh(&EehPeOp::from(op)), || format!("error handling: {op}"))
        })
    }

    fn unregister(&self, memory: Memory, watch: bool) -> Result<bool, BackendError> {
        if self.options.version == Version::V1 {
            return Ok(false);
        }
        let locked = || if watch { self.host.locked_bytes() } else { 0 };
        let before = locked();
        let done = self.with(|opened| {
            let arg = RegisterMemory::new(memory.start(), memory.bytes());
            let request =
                || format!("unregistering {}", range(Uaddr(memory.start()), memory.bytes()));
            guard::done(opened.raw.unregister(&arg), request)
        });
        match done {
            Ok(()) => Ok(watch && before.saturating_sub(locked()) < memory.bytes()),
            // Older kernels say so, later ones only do so.
            Err(BackendError::Kernel { errno: Some(errno), .. })
                if watch && errno == Errno::EBUSY.0 =>
            {
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }

    fn map(&self, to: BusRange, memory: Uaddr, perm: Perm) -> Result<u64, BackendError> {
        self.with(|opened| {
            let slot = opened.windows[to.slot].as_ref().ok_or_else(no_group)?;
            let low_window = to.window == Ioba(0);
            if low_window && to.at == Ioba(0) {
                if self.options.version == Version::V1 {
                    self.pinnable(memory, slot.page)?;
                }
                if !slot.first_leaf.load(Ordering::Relaxed) && stands(Guard::FirstLeaf) {
                    let sent = opened.map_first_leaf(slot, memory, to.bytes, perm)?;
                    slot.first_leaf.store(true, Ordering::Relaxed);
                    return Ok(sent);
                }
            }
            opened.map(to.at, memory, to.bytes, perm)?;
            if low_window && to.at.0 < slot.leaf {
                slot.first_leaf.store(true, Ordering::Relaxed);
            }
            Ok(1)
        })
    }

    fn unmap(&self, from: BusRange) -> Result<u64, BackendError> {
        self.with(|opened| {
            let slot = opened.windows[from.slot].as_ref().ok_or_else(no_group)?;
            let mut bytes = from.bytes;
            // A map of page 0 that failed may have left what it mapped first.
            let first = from.window == Ioba(0) && from.at == Ioba(0);
            if first && !slot.first_leaf.load(Ordering::Relaxed) {
                bytes = bytes.max(2 * slot.page);
            }
            opened.unmap(from.at, bytes).map(|()| 1)
        })
    }
}

impl fmt::Debug for LinuxSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &read(&self.opened).opened {
            Some(opened) => write!(f, "{:?}, {} groups", opened.raw, opened.members),
            None => f.write_str("no container open"),
        }
    }
}
