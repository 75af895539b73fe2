// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Stands between whoever asks and the kernel, simulated or real, and writes down what is sent.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tce_engine::addr::{GroupId, PageShift, Uaddr};
use tce_engine::backend::linux::mock_kernel::{MockContainer, Process};
use tce_engine::backend::linux::raw::{Errno, Raw, RawContainer, RawHost};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, RegisterMemory, Request, TceCreate, TceInfo, TceRemove,
};
use tce_engine::backend::linux::vfio::{Container as VfioContainer, Vfio};

/// A request that went out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) request: Request,
    pub(crate) argsz: u32,
}

#[derive(Default)]
struct Log {
    sent: Mutex<Vec<Sent>>,
    /// MAPs of so many bytes or more fail after them, ...
    fail_map: AtomicU64,
    /// ... the next ones, so many.
    fail_maps: AtomicU64,
    /// The next CREATE finds no memory and leaks so many bytes; 0 is none.
    fail_create: AtomicU64,
    /// What those have leaked.
    leaked: AtomicU64,
}

#[derive(Clone)]
pub(crate) enum Machine {
    /// The process that acts, and another one on the same machine.
    Mock {
        own: Arc<Process>,
        other: Arc<Process>,
    },
    Real(Arc<Vfio>),
}

/// A host whose containers are watched.
pub(crate) struct Spy {
    machine: Machine,
    log: Arc<Log>,
}

impl Spy {
    pub(crate) fn new(machine: Machine) -> Arc<Self> {
        Arc::new(Self { machine, log: Arc::default() })
    }

    fn host(&self) -> &dyn RawHost {
        match &self.machine {
            Machine::Mock { own, .. } => &**own,
            Machine::Real(vfio) => &**vfio,
        }
    }

    pub(crate) fn watched(&self) -> Result<Watched, Errno> {
        let inner = match &self.machine {
            Machine::Mock { own, other } => {
                let mock = own.open_container()?;
                Inner::Mock { other: mock.shared_with(other), mock }
            }
            Machine::Real(vfio) => Inner::Real(vfio.open_container()?),
        };
        Ok(Watched { inner, log: self.log.clone() })
    }

    /// All that was sent so far, by every container.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.log.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next MAPs of `bytes` or more, so many `times`, fail after `bytes`, as if there were no
    /// memory for a level of the table: what they had done until then is cleared, whatever was there
    /// before.
    pub(crate) fn fail_maps(&self, bytes: u64, times: u64) {
        self.log.fail_map.store(bytes, Ordering::SeqCst);
        self.log.fail_maps.store(times, Ordering::SeqCst);
    }

    /// The next CREATE ends as it does on Linux when there is no memory for the table: its charge,
    /// `bytes`, stays.
    pub(crate) fn fail_create(&self, bytes: u64) {
        self.log.fail_create.store(bytes, Ordering::SeqCst);
    }
}

impl RawHost for Spy {
    fn label(&self) -> &'static str {
        self.host().label()
    }

    fn open(&self) -> Result<Box<dyn RawContainer>, Errno> {
        Ok(Box::new(self.watched()?))
    }

    fn host_page(&self) -> PageShift {
        self.host().host_page()
    }

    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift> {
        self.host().backing(start, bytes)
    }

    fn node(&self, group: GroupId) -> Option<u32> {
        self.host().node(group)
    }

    fn locked_bytes(&self) -> u64 {
        self.host().locked_bytes() + self.log.leaked.load(Ordering::SeqCst)
    }

    fn memlock(&self) -> Option<u64> {
        self.host().memlock()
    }
}

impl fmt::Debug for Spy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spy({:?})", self.host())
    }
}

enum Inner {
    /// The other process lets go first: where a container belongs to nobody, whoever closes it gets
    /// what others have paid.
    Mock {
        other: Option<MockContainer>,
        mock: MockContainer,
    },
    Real(VfioContainer),
}

/// A watched container.
pub(crate) struct Watched {
    inner: Inner,
    log: Arc<Log>,
}

impl Watched {
    fn raw(&self) -> &dyn RawContainer {
        match &self.inner {
            Inner::Mock { mock, .. } => mock,
            Inner::Real(real) => real,
        }
    }

    /// As the other process sees it; none of a real one.
    pub(crate) fn other(&self) -> Option<&MockContainer> {
        match &self.inner {
            Inner::Mock { other, .. } => other.as_ref(),
            Inner::Real(_) => None,
        }
    }

    /// The open file, for another process. Whoever holds it keeps the container.
    pub(crate) fn file(&self) -> Option<std::io::Result<OwnedFd>> {
        match &self.inner {
            Inner::Mock { .. } => None,
            Inner::Real(real) => Some(real.as_fd().try_clone_to_owned()),
        }
    }

    fn sent(&self, request: Request, argsz: u32, answer: Raw) -> Raw {
        let mut sent = self.log.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push(Sent { request, argsz });
        answer
    }
}

impl RawContainer for Watched {
    fn check_extension(&self, extension: u32) -> Raw {
        self.raw().check_extension(extension)
    }

    fn set_iommu(&self, kind: u32) -> Raw {
        self.sent(Request::SetIommu, 0, self.raw().set_iommu(kind))
    }

    fn open_group(&self, group: GroupId) -> Raw {
        self.raw().open_group(group)
    }

    fn close_group(&self, group: GroupId) -> Raw {
        self.raw().close_group(group)
    }

    fn group_status(&self, group: GroupId) -> Result<u32, Errno> {
        self.raw().group_status(group)
    }

    fn set_container(&self, group: GroupId) -> Raw {
        self.sent(Request::GroupSetContainer, 0, self.raw().set_container(group))
    }

    fn unset_container(&self, group: GroupId) -> Raw {
        self.sent(Request::GroupUnsetContainer, 0, self.raw().unset_container(group))
    }

    fn info(&self, info: &mut TceInfo) -> Raw {
        let argsz = info.argsz;
        self.sent(Request::TceGetInfo, argsz, self.raw().info(info))
    }

    fn enable(&self) -> Raw {
        self.sent(Request::Enable, 0, self.raw().enable())
    }

    fn disable(&self) -> Raw {
        self.sent(Request::Disable, 0, self.raw().disable())
    }

    fn register(&self, arg: &RegisterMemory) -> Raw {
        self.sent(Request::RegisterMemory, arg.argsz, self.raw().register(arg))
    }

    fn unregister(&self, arg: &RegisterMemory) -> Raw {
        self.sent(Request::UnregisterMemory, arg.argsz, self.raw().unregister(arg))
    }

    fn create(&self, arg: &mut TceCreate) -> Raw {
        let argsz = arg.argsz;
        let leak = self.log.fail_create.swap(0, Ordering::SeqCst);
        if leak > 0 {
            self.log.leaked.fetch_add(leak, Ordering::SeqCst);
            return self.sent(Request::TceCreate, argsz, Err(Errno::ENOMEM));
        }
        self.sent(Request::TceCreate, argsz, self.raw().create(arg))
    }

    fn remove(&self, arg: &TceRemove) -> Raw {
        self.sent(Request::TceRemove, arg.argsz, self.raw().remove(arg))
    }

    fn map(&self, arg: &DmaMap) -> Raw {
        let fail = self.log.fail_map.load(Ordering::SeqCst);
        let times = self.log.fail_maps.load(Ordering::SeqCst);
        if times > 0 && arg.size >= fail {
            self.log.fail_maps.store(times - 1, Ordering::SeqCst);
            let undone = self.raw().unmap(&mut DmaUnmap::new(arg.iova, fail));
            return self.sent(Request::MapDma, arg.argsz, undone.and(Err(Errno::ENOMEM)));
        }
        self.sent(Request::MapDma, arg.argsz, self.raw().map(arg))
    }

    fn unmap(&self, arg: &mut DmaUnmap) -> Raw {
        let argsz = arg.argsz;
        self.sent(Request::UnmapDma, argsz, self.raw().unmap(arg))
    }

    fn eeh(&self, arg: &EehPeOp) -> Raw {
        self.sent(Request::EehPeOp, arg.argsz, self.raw().eeh(arg))
    }

    fn fault(&self, request: Request) -> Raw {
        self.sent(request, 0, self.raw().fault(request))
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({:?})", self.raw())
    }
}
