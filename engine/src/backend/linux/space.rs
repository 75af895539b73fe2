// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One kernel container of the engine: the requests, in the order in which they are safe.

use std::fmt;

use super::charging::Charging;
use super::raw::{Errno, RawContainer, RawHost};
use super::uapi::{
    DmaMap, DmaUnmap, EehPeOp, GroupStatus, RegisterMemory, TceCreate, TceInfo, TceRemove, eeh_op,
    kind, map_flags,
};
use super::{LinuxOptions, Version, guard, range};
use crate::addr::{GroupId, Ioba, PageShift, Uaddr};
use crate::backend::{BusRange, CreateError, MAX_WINDOWS, Memory, Space, WindowCost};
use crate::eeh::EehOp;
use crate::error::BackendError;
use crate::geometry::Geometry;
use crate::sabotage::{Guard, stands};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, RwLock, lock, read, write};
use crate::tce::Perm;

/// Usual size of the one window of a version 1 container, and of version 2's default window.
pub(super) const V1_WINDOW: u64 = 2 << 30;

/// Which containers there are for which groups.
const KINDS: &str = "version 2 is for groups with dynamic windows (PHB3 and later, guests), version 1 \
                     for the others, from Linux 6.4 on for one group of any kind";

/// An open container and its members.
pub(super) struct Opened {
    raw: Box<dyn RawContainer>,
    members: u32,
    /// Memory was registered once, so that MAP and UNMAP are allowed.
    registered: AtomicBool,
    /// Bytes of the default window that stands in slot 0, or will as soon as anything is mapped.
    default_window: Option<u64>,
    windows: [Option<Slot>; MAX_WINDOWS],
}

/// What has to be known of a window.
struct Slot {
    start: Ioba,
    page: u64,
    /// Its array of user addresses has not been charged yet.
    array_due: AtomicBool,
    /// Bytes of bus space that the leaf of page 0 serves.
    leaf: u64,
    /// The leaf of page 0 exists; leaves never go.
    first_leaf: AtomicBool,
}

impl Opened {
    pub(super) fn new(host: &dyn RawHost) -> Result<Self, BackendError> {
        let raw = host.open().map_err(|e| guard::plain(e, || "opening /dev/vfio/vfio".into()))?;
        Ok(Self {
            raw,
            members: 0,
            registered: AtomicBool::new(false),
            default_window: None,
            windows: [None, None],
        })
    }

    /// Opens the group and makes it a member, or leaves it alone.
    pub(super) fn join(&self, group: GroupId) -> Result<(), BackendError> {
        match self.raw.open_group(group) {
            Ok(_) => {}
            Err(Errno::ENOENT) => return Err(BackendError::NoGroup(group)),
            Err(Errno::EBUSY) => return Err(BackendError::GroupBusy(group)),
            Err(e) => {
                return Err(guard::plain(e, || format!("opening the node of group {group}")));
            }
        }
        let joined = match self.raw.group_status(group) {
            Ok(flags) if flags & GroupStatus::VIABLE == 0 => Err(BackendError::NotViable(group)),
            Err(e) => Err(guard::plain(e, || format!("status of group {group}"))),
            Ok(_) => match self.raw.set_container(group) {
                Err(Errno::EPERM) => Err(BackendError::Kernel {
                    request: format!("adding group {group}"),
                    answer: "EPERM: its tables are of another kind than the members', or firmware \
                             code -1; in a guest, a table is one group's alone"
                        .into(),
                    errno: Some(Errno::EPERM.0),
                }),
                Err(e) => Err(guard::window(e, || format!("adding group {group}"))),
                answer => guard::done(answer, || format!("adding group {group}")),
            },
        };
        joined.inspect_err(|_| {
            let _ = self.raw.close_group(group);
        })
    }

    pub(super) fn leave(&self, group: GroupId) {
        // Closing the node would do for both; a member that is asked first leaves even if the node
        // is kept open by a device.
        let _ = self.raw.unset_container(group);
        let _ = self.raw.close_group(group);
    }

    pub(super) fn set_iommu(&self, version: Version) -> Result<(), BackendError> {
        let (kind, name) = match version {
            Version::V1 => (kind::SPAPR_TCE, "v1"),
            Version::V2 => (kind::SPAPR_TCE_V2, "v2"),
        };
        let request = || format!("making it an sPAPR TCE {name} container");
        match self.raw.set_iommu(kind) {
            // Nobody has used it yet, so it is nobody's.
            Err(e @ (Errno::EPERM | Errno::EINVAL)) => Err(BackendError::Kernel {
                request: request(),
                answer: format!(
                    "{e:?}: this kernel has no such container for such a group; {KINDS}"
                ),
                errno: Some(e.0),
            }),
            Err(e) => Err(guard::plain(e, request)),
            answer => guard::done(answer, request),
        }
    }

    pub(super) fn info(&self) -> Result<TceInfo, BackendError> {
        let mut info = TceInfo::new();
        guard::done(self.raw.info(&mut info), || "asking for the windows offered".into())?;
        Ok(info)
    }

    /// ENABLE of a version 1 container.
    pub(super) fn enable(&self) -> Result<(), BackendError> {
        guard::done(self.raw.enable(), || "enabling the container".into())
    }

    /// Has the kernel make the arrays of user addresses that the first MAP would make: by a MAP of
    /// nothing, which needs memory to be registered. Never at page 0, where it would hang others.
    fn force_arrays(&self) -> Result<(), BackendError> {
        for slot in self.windows.iter().flatten() {
            if slot.array_due.load(Ordering::Relaxed) {
                self.map(Ioba(slot.start.0 + slot.page), Uaddr(0), 0, Perm::READ)?;
                slot.array_due.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// The one CREATE for a window that has been checked.
    pub(super) fn create(&self, geometry: &Geometry, start: Ioba) -> Result<(), BackendError> {
        let (page, size) = (geometry.page(), geometry.size());
        let mut create = TceCreate::new(page.get(), size, geometry.levels());
        let request = || format!("creating a window of {size:#x} bytes, {page} pages");
        match self.raw.create(&mut create) {
            // To another process everything is forbidden; else it is firmware's -1.
            Err(Errno::EPERM) if self.info() == Err(BackendError::WrongProcess) => {
                return Err(BackendError::WrongProcess);
            }
            Err(e) => return Err(guard::window(e, request)),
            answer => guard::done(answer, request)?,
        }
        if create.start_addr == start.0 {
            return Ok(());
        }
        let _ = self.remove_window(Ioba(create.start_addr));
        Err(BackendError::Kernel {
            request: request(),
            answer: format!(
                "start {:#x} where {start} was expected; it was removed again",
                create.start_addr
            ),
            errno: None,
        })
    }

    pub(super) fn remove_window(&self, start: Ioba) -> Result<(), BackendError> {
        guard::done(self.raw.remove(&TceRemove::new(start.0)), || {
            format!("removing the window at {start}")
        })
    }

    fn map(&self, at: Ioba, memory: Uaddr, bytes: u64, perm: Perm) -> Result<(), BackendError> {
        let read = if perm.allows(Perm::READ) { map_flags::READ } else { 0 };
        let write = if perm.allows(Perm::WRITE) { map_flags::WRITE } else { 0 };
        let request = DmaMap::new(read | write, memory.0, at.0, bytes);
        guard::done(self.raw.map(&request), || {
            format!("mapping {} at bus address {at}", range(memory, bytes))
        })
    }

    fn unmap(&self, at: Ioba, bytes: u64) -> Result<(), BackendError> {
        guard::done(self.raw.unmap(&mut DmaUnmap::new(at.0, bytes)), || {
            format!("unmapping {bytes:#x} bytes at bus address {at}")
        })
    }

    /// Maps from page 0 of a window at bus address 0 whose first leaf may be missing. Linux hangs if
    /// page 0 is the one for which there is no memory for a leaf, so another page of that leaf goes
    /// first. Returns the number of requests.
    fn map_first_leaf(
        &self,
        slot: &Slot,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
    ) -> Result<u64, BackendError> {
        let next = Ioba(slot.page);
        if bytes > slot.page {
            self.map(next, Uaddr(memory.0 + slot.page), bytes - slot.page, perm)?;
            self.map(Ioba(0), memory, slot.page, perm)?;
            return Ok(2);
        }
        // Nothing was ever mapped in the leaf, and nobody else can now: the caller has it locked.
        self.map(next, memory, slot.page, perm)?;
        let done = self.map(Ioba(0), memory, slot.page, perm);
        self.unmap(next, slot.page)?;
        done.map(|()| 3)
    }

    /// A page of the default window that is cleared: it makes the kernel create the window, and
    /// charge it, now. Never page 0, where nothing done would hang Linux.
    pub(super) fn force_default_window(&self, start: Ioba) -> Result<(), BackendError> {
        let page = PageShift::K4.bytes();
        self.unmap(Ioba(start.0 + page), page)
    }
}

/// The [`Space`] over one raw container. The container is open while there are members.
pub(super) struct LinuxSpace {
    host: Arc<dyn RawHost>,
    options: LinuxOptions,
    charging: Arc<Mutex<Option<Charging>>>,
    opened: RwLock<Option<Opened>>,
}

impl LinuxSpace {
    pub(super) fn new(
        host: Arc<dyn RawHost>,
        options: LinuxOptions,
        charging: Arc<Mutex<Option<Charging>>>,
    ) -> Self {
        Self { host, options, charging, opened: RwLock::new(None) }
    }

    /// How windows are charged; as observed on Linux 6.12 if it could not be found out.
    fn charging(&self) -> Charging {
        lock(&self.charging).unwrap_or(Charging::Twice)
    }

    fn with<T>(
        &self,
        f: impl FnOnce(&Opened) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        read(&self.opened).as_ref().map_or(Err(no_group()), f)
    }

    fn with_mut<T>(
        &self,
        f: impl FnOnce(&mut Opened) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        write(&self.opened).as_mut().map_or(Err(no_group()), f)
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
        opened: &Opened,
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
        opened.force_default_window(start).inspect_err(|_| {
            let _ = opened.raw.disable();
        })
    }
}

/// A request without a container to send it to.
fn no_group() -> BackendError {
    BackendError::Guarded { request: "a request".into(), reason: "the container has no group" }
}

impl Space for LinuxSpace {
    fn attach(&self, group: GroupId) -> Result<(), CreateError> {
        let mut opened = write(&self.opened);
        match &mut *opened {
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
        Ok(())
    }

    fn detach(&self, group: GroupId) {
        let mut opened = write(&self.opened);
        let Some(container) = &mut *opened else { return };
        container.leave(group);
        container.members -= 1;
        if container.members == 0 {
            // The kernel has released all of it; a new first member begins anew.
            *opened = None;
        }
    }

    fn create_window(
        &self,
        slot: usize,
        start: Ioba,
        geometry: &Geometry,
    ) -> Result<(), CreateError> {
        let before = self.host.locked_bytes();
        let charging = self.charging();
        let created = self.with_mut(|opened| {
            match opened.default_window {
                Some(bytes) if slot == 0 => self.adopt_default(opened, start, geometry, bytes)?,
                _ => opened.create(geometry, start)?,
            }
            let page = geometry.page().bytes();
            opened.windows[slot] = Some(Slot {
                start,
                page,
                array_due: AtomicBool::new(charging == Charging::FlatLater),
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
        });
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
        self.with_mut(|opened| {
            if self.options.version == Version::V1 {
                // What was paid ahead comes back; the window itself stays until the container goes.
                return guard::done(opened.raw.disable(), || "disabling the container".into());
            }
            opened.remove_window(start)?;
            opened.windows[slot] = None;
            opened.default_window = opened.default_window.filter(|_| slot != 0);
            Ok(())
        })
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
        self.with(|opened| {
            let answer = opened.raw.eeh(&EehPeOp::new(eeh_op::GET_STATE));
            answer.map_err(|e| guard::refused(e, || "asking for the error state".into()))
        })
    }

    fn eeh(&self, op: EehOp) -> Result<(), BackendError> {
        self.with(|opened| {
            guard::done(opened.raw.eeh(&EehPeOp::from(op)), || format!("error handling: {op}"))
        })
    }

    fn unregister(&self, memory: Memory, watch: bool) -> bool {
        if self.options.version == Version::V1 {
            return false;
        }
        let locked = || if watch { self.host.locked_bytes() } else { 0 };
        let before = locked();
        let done = self.with(|opened| {
            let arg = RegisterMemory::new(memory.start(), memory.bytes());
            guard::done(opened.raw.unregister(&arg), String::new)
        });
        // Older kernels say so, later ones only do so. If it failed otherwise the container is lost,
        // and the memory is given back when it is closed.
        let busy = matches!(&done, Err(BackendError::Kernel { errno, .. })
            if *errno == Some(Errno::EBUSY.0));
        watch && (busy || done.is_ok() && before.saturating_sub(locked()) < memory.bytes())
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
        self.with(|opened| opened.unmap(from.at, from.bytes).map(|()| 1))
    }
}

impl fmt::Debug for LinuxSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*read(&self.opened) {
            Some(opened) => write!(f, "{:?}, {} groups", opened.raw, opened.members),
            None => f.write_str("no container open"),
        }
    }
}
