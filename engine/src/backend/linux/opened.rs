// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An open container of the kernel's and its members, and each request to it by itself.

use super::raw::{Errno, RawContainer, RawHost};
use super::uapi::{DmaMap, DmaUnmap, GroupStatus, TceCreate, TceInfo, TceRemove, kind, map_flags};
use super::{Version, guard, range};
use crate::addr::{GroupId, Ioba, PageShift, Uaddr};
use crate::backend::MAX_WINDOWS;
use crate::error::BackendError;
use crate::geometry::Geometry;
use crate::sync::{AtomicBool, Ordering};
use crate::tce::Perm;

/// Which containers there are for which groups.
const KINDS: &str = "version 2 is for groups with dynamic windows (PHB3 and later, guests), version 1 \
                     for the others, from Linux 6.4 on for one group of any kind";

/// An open container and its members.
pub(super) struct Opened {
    pub(super) raw: Box<dyn RawContainer>,
    pub(super) members: u32,
    /// Memory was registered once, so that MAP and UNMAP are allowed.
    pub(super) registered: AtomicBool,
    /// ENABLE has charged the window of a version 1 container ahead.
    pub(super) enabled: bool,
    /// Bytes of the default window that stands in slot 0, or will as soon as anything is mapped.
    pub(super) default_window: Option<u64>,
    pub(super) windows: [Option<Slot>; MAX_WINDOWS],
}

/// What has to be known of a window.
pub(super) struct Slot {
    pub(super) start: Ioba,
    pub(super) page: u64,
    /// Its array of user addresses has not been charged yet.
    pub(super) array_due: AtomicBool,
    /// Bytes of bus space that the leaf of page 0 serves.
    pub(super) leaf: u64,
    /// The leaf of page 0 exists; leaves never go.
    pub(super) first_leaf: AtomicBool,
}

impl Opened {
    pub(super) fn new(host: &dyn RawHost) -> Result<Self, BackendError> {
        let raw = host.open().map_err(|e| guard::plain(e, || "opening /dev/vfio/vfio".into()))?;
        Ok(Self {
            raw,
            members: 0,
            registered: AtomicBool::new(false),
            enabled: false,
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
    pub(super) fn force_arrays(&self) -> Result<(), BackendError> {
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
            Err(e @ Errno::EFAULT) => {
                // The window may be there, and only the answer is not.
                let _ = self.remove_window(start);
                return Err(guard::window(e, request));
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

    pub(super) fn map(
        &self,
        at: Ioba,
        memory: Uaddr,
        bytes: u64,
        perm: Perm,
    ) -> Result<(), BackendError> {
        let read = if perm.allows(Perm::READ) { map_flags::READ } else { 0 };
        let write = if perm.allows(Perm::WRITE) { map_flags::WRITE } else { 0 };
        let request = DmaMap::new(read | write, memory.0, at.0, bytes);
        guard::done(self.raw.map(&request), || {
            format!("mapping {} at bus address {at}", range(memory, bytes))
        })
    }

    pub(super) fn unmap(&self, at: Ioba, bytes: u64) -> Result<(), BackendError> {
        guard::done(self.raw.unmap(&mut DmaUnmap::new(at.0, bytes)), || {
            format!("unmapping {bytes:#x} bytes at bus address {at}")
        })
    }

    /// Maps from page 0 of a window at bus address 0 whose first leaf may be missing. Linux hangs if
    /// page 0 is the one for which there is no memory for a leaf, so another page of that leaf goes
    /// first. Returns the number of requests.
    pub(super) fn map_first_leaf(
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
