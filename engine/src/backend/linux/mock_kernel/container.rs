// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A container's open file, as one process holds it.

use std::fmt;

use super::spapr::Spapr;
use super::state::State;
use super::{ContainerId, MockKernel, Process, ProcessId};
use crate::addr::GroupId;
use crate::backend::linux::raw::{Errno, Raw, RawContainer};
use crate::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, RegisterMemory, Request, TceCreate, TceInfo, TceRemove, kind,
};
use crate::sync::{Arc, lock};

/// The file; it is closed when the last process that holds it lets go.
struct File {
    kernel: Arc<MockKernel>,
    id: ContainerId,
}

impl Drop for File {
    fn drop(&mut self) {
        lock(&self.kernel.state).close(self.id);
    }
}

/// A container, as one process sees it.
pub struct MockContainer {
    file: Arc<File>,
    process: ProcessId,
}

impl Drop for MockContainer {
    fn drop(&mut self) {
        // If the file is closed now, it is this process that does.
        lock(&self.file.kernel.state).used_by(self.file.id, self.process);
    }
}

/// Which container types know a request.
#[derive(Clone, Copy)]
enum Known {
    V1,
    V2,
    Both,
}

impl MockContainer {
    pub(super) fn open(kernel: &Arc<MockKernel>, process: ProcessId) -> Result<Self, Errno> {
        let id = lock(&kernel.state).open()?;
        Ok(Self { file: Arc::new(File { kernel: kernel.clone(), id }), process })
    }

    /// The same open file in the hands of another process, as after a fork; `None` if that is a
    /// process of another machine.
    #[must_use]
    pub fn shared_with(&self, process: &Process) -> Option<Self> {
        let here = Arc::ptr_eq(&self.file.kernel, process.kernel());
        here.then(|| Self { file: self.file.clone(), process: process.id() })
    }

    /// By which [`Damage`](super::Damage) and [`Event`](super::Event) name it.
    #[must_use]
    pub fn id(&self) -> ContainerId {
        self.file.id
    }

    fn call<R>(&self, request: impl FnOnce(&mut State) -> Result<R, Errno>) -> Result<R, Errno> {
        let mut state = lock(&self.file.kernel.state);
        state.log.counters.requests += 1;
        state.used_by(self.file.id, self.process);
        if state.log.hung {
            return Err(Errno::EIO);
        }
        if state.containers.get(&self.file.id).is_none_or(|container| container.lost) {
            return Err(Errno::ENODEV);
        }
        let ret = request(&mut state);
        if state.log.hung { Err(Errno::EIO) } else { ret }
    }

    fn ioctl(&self, known: Known, request: impl FnOnce(&mut State, &mut Spapr) -> Raw) -> Raw {
        self.call(|state| {
            let owner_only = state.profile.owner_only;
            state.with_spapr(self.file.id, |state, spapr| {
                if owner_only && spapr.owner.is_some_and(|owner| owner != self.process) {
                    return Err(Errno::EPERM);
                }
                match (known, spapr.v2) {
                    (Known::V1, true) | (Known::V2, false) => Err(Errno::ENOTTY),
                    _ => request(state, spapr),
                }
            })
        })
    }

    fn do_enable(&self) -> Raw {
        self.ioctl(Known::V1, |state, spapr| state.enable(spapr, self.process))
    }

    fn do_disable(&self) -> Raw {
        self.ioctl(Known::V1, |state, spapr| state.disable(spapr))
    }

    fn do_register(&self, arg: Option<&RegisterMemory>) -> Raw {
        self.ioctl(Known::V2, |state, spapr| state.register(spapr, self.process, arg))
    }

    fn do_unregister(&self, arg: Option<&RegisterMemory>) -> Raw {
        self.ioctl(Known::V2, |state, spapr| state.unregister(spapr, arg))
    }

    fn do_create(&self, arg: Option<&mut TceCreate>) -> Raw {
        self.ioctl(Known::V2, |state, spapr| state.create(spapr, self.process, arg))
    }

    fn do_remove(&self, arg: Option<&TceRemove>) -> Raw {
        self.ioctl(Known::V2, |state, spapr| state.remove(spapr, self.process, arg))
    }
}

impl RawContainer for MockContainer {
    fn check_extension(&self, extension: u32) -> Raw {
        self.call(|state| {
            Ok(match extension {
                kind::SPAPR_TCE | kind::SPAPR_TCE_V2 => 1,
                kind::EEH => state.eeh.into(),
                _ => 0,
            })
        })
    }

    fn set_iommu(&self, kind: u32) -> Raw {
        self.call(|state| state.set_iommu(self.file.id, kind))
    }

    fn open_group(&self, group: GroupId) -> Raw {
        self.call(|state| state.open_group(self.file.id, group))
    }

    fn close_group(&self, group: GroupId) -> Raw {
        // It is a close, not a request: it works on what is lost too.
        let mut state = lock(&self.file.kernel.state);
        state.used_by(self.file.id, self.process);
        state.close_group(self.file.id, group)
    }

    fn group_status(&self, group: GroupId) -> Result<u32, Errno> {
        self.call(|state| state.group_status(self.file.id, group))
    }

    fn set_container(&self, group: GroupId) -> Raw {
        self.call(|state| state.set_container(self.file.id, group))
    }

    fn unset_container(&self, group: GroupId) -> Raw {
        self.call(|state| state.unset_container(self.file.id, group))
    }

    fn info(&self, info: &mut TceInfo) -> Raw {
        self.ioctl(Known::Both, |state, spapr| state.info(spapr, Some(info)))
    }

    fn enable(&self) -> Raw {
        self.do_enable()
    }

    fn disable(&self) -> Raw {
        self.do_disable()
    }

    fn register(&self, arg: &RegisterMemory) -> Raw {
        self.do_register(Some(arg))
    }

    fn unregister(&self, arg: &RegisterMemory) -> Raw {
        self.do_unregister(Some(arg))
    }

    fn create(&self, arg: &mut TceCreate) -> Raw {
        self.do_create(Some(arg))
    }

    fn remove(&self, arg: &TceRemove) -> Raw {
        self.do_remove(Some(arg))
    }

    fn map(&self, arg: &DmaMap) -> Raw {
        self.ioctl(Known::Both, |state, spapr| state.map(spapr, Some(arg)))
    }

    fn unmap(&self, arg: &mut DmaUnmap) -> Raw {
        self.ioctl(Known::Both, |state, spapr| state.unmap(spapr, Some(arg)))
    }

    fn eeh(&self, arg: &EehPeOp) -> Raw {
        self.ioctl(Known::Both, |state, spapr| state.eeh(spapr, Some(arg)))
    }

    /// Requests that take no pointer are sent as they are; those of groups and devices are not
    /// known to a container.
    fn fault(&self, request: Request) -> Raw {
        match request {
            Request::GetApiVersion => self.call(|_| Ok(0)),
            Request::CheckExtension => self.check_extension(u32::MAX),
            Request::SetIommu => self.set_iommu(u32::MAX),
            Request::TceGetInfo => self.ioctl(Known::Both, |state, spapr| state.info(spapr, None)),
            Request::MapDma => self.ioctl(Known::Both, |state, spapr| state.map(spapr, None)),
            Request::UnmapDma => self.ioctl(Known::Both, |state, spapr| state.unmap(spapr, None)),
            Request::Enable => self.do_enable(),
            Request::Disable => self.do_disable(),
            Request::RegisterMemory => self.do_register(None),
            Request::UnregisterMemory => self.do_unregister(None),
            Request::TceCreate => self.do_create(None),
            Request::TceRemove => self.do_remove(None),
            Request::EehPeOp => self.ioctl(Known::Both, |state, spapr| state.eeh(spapr, None)),
            Request::GroupGetStatus
            | Request::GroupSetContainer
            | Request::GroupUnsetContainer
            | Request::GroupGetDeviceFd
            | Request::DeviceGetRegionInfo => self.ioctl(Known::Both, |_, _| Err(Errno::ENOTTY)),
        }
    }
}

impl fmt::Debug for MockContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MockContainer({}, process {})", self.file.id.0, self.process.0)
    }
}
