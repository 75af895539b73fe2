// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A sPAPR TCE container as the kernel offers it: raw requests, raw returns, nothing checked.
//!
//! Everything that the kernel does wrong is still in here. [`Linux`](super::Linux) is the back end
//! that makes it safe to use; this layer is for it and for tests that look at the kernel itself.
//! It has two implementors: [`vfio`](super::vfio), the real thing, and
//! [`mock_kernel`](super::mock_kernel), a simulated one.

use std::fmt;

use super::uapi::{
    DmaMap, DmaUnmap, EehPeOp, RegisterMemory, Request, TceCreate, TceInfo, TceRemove,
};
use crate::addr::{GroupId, PageShift, Uaddr};

/// What a request returned: a number that is not negative, or the error number.
pub type Raw = Result<i32, Errno>;

/// A Linux error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errno {
    ($($name:ident),*) => {
        impl Errno {
            $(
                #[allow(missing_docs)] // the uapi's own names
                pub const $name: Self = Self(libc::$name);
            )*

            /// The symbolic name, where it is one that these interfaces use.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errno! {
    EPERM, ENOENT, ENXIO, E2BIG, ECHILD, ENOMEM, EACCES, EFAULT, EBUSY, EEXIST, ENODEV, EINVAL,
    ENOSPC, ENOTTY, EBADFD, EIO, EINTR, EAGAIN, ENOSYS, EOPNOTSUPP
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// Name and explanation, as in `EINVAL (Invalid argument)`.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = std::io::Error::from_raw_os_error(self.0).to_string();
        let said = said.split(" (os error").next().unwrap_or_default();
        write!(f, "{self:?} ({said})")
    }
}

impl From<std::io::Error> for Errno {
    fn from(e: std::io::Error) -> Self {
        Self(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// One open container (`/dev/vfio/vfio`) and the groups that were opened for it. Dropping it closes
/// all of them, groups first.
pub trait RawContainer: Send + Sync + fmt::Debug {
    /// CHECK_EXTENSION.
    fn check_extension(&self, extension: u32) -> Raw;
    /// SET_IOMMU to a container type ([`kind`](super::uapi::kind)).
    fn set_iommu(&self, kind: u32) -> Raw;

    /// Opens the group's node and keeps it. ENOENT: there is no such group; EBUSY: somebody has it
    /// open, this container included.
    fn open_group(&self, group: GroupId) -> Raw;
    /// Closes the group's node; a member leaves with it. EINVAL if it is not open here.
    fn close_group(&self, group: GroupId) -> Raw;
    /// GROUP_GET_STATUS: the flags of [`GroupStatus`](super::uapi::GroupStatus).
    fn group_status(&self, group: GroupId) -> Result<u32, Errno>;
    /// GROUP_SET_CONTAINER to this container.
    fn set_container(&self, group: GroupId) -> Raw;
    /// GROUP_UNSET_CONTAINER; the node stays open.
    fn unset_container(&self, group: GroupId) -> Raw;

    /// IOMMU_SPAPR_TCE_GET_INFO.
    fn info(&self, info: &mut TceInfo) -> Raw;
    /// IOMMU_ENABLE (v1).
    fn enable(&self) -> Raw;
    /// IOMMU_DISABLE (v1).
    fn disable(&self) -> Raw;
    /// SPAPR_REGISTER_MEMORY (v2).
    fn register(&self, arg: &RegisterMemory) -> Raw;
    /// SPAPR_UNREGISTER_MEMORY (v2).
    fn unregister(&self, arg: &RegisterMemory) -> Raw;
    /// SPAPR_TCE_CREATE (v2).
    fn create(&self, arg: &mut TceCreate) -> Raw;
    /// SPAPR_TCE_REMOVE (v2).
    fn remove(&self, arg: &TceRemove) -> Raw;
    /// IOMMU_MAP_DMA.
    fn map(&self, arg: &DmaMap) -> Raw;
    /// IOMMU_UNMAP_DMA.
    fn unmap(&self, arg: &mut DmaUnmap) -> Raw;
    /// EEH_PE_OP.
    fn eeh(&self, arg: &EehPeOp) -> Raw;

    /// Sends a request of the container with an argument that points to memory which is not there.
    fn fault(&self, request: Request) -> Raw;
}

/// The kernel as one process sees it: where containers come from, and what the process's memory
/// and books look like.
pub trait RawHost: Send + Sync + fmt::Debug {
    /// What results are labelled with.
    fn label(&self) -> &'static str;
    /// Opens a container.
    ///
    /// # Errors
    /// The error number of opening it.
    fn open(&self) -> Result<Box<dyn RawContainer>, Errno>;
    /// The page size of the kernel.
    fn host_page(&self) -> PageShift;
    /// The smallest page that any part of a range of the process stands on (hugetlb pages count,
    /// transparent huge pages do not); `None` if a part of it is not mapped for reading and writing.
    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift>;
    /// The NUMA node that a group's devices are at; `None` if it is not known, if there are no nodes, or
    /// if they are at several.
    fn node(&self, group: GroupId) -> Option<u32>;
    /// Bytes that the process shows as locked (`VmLck`).
    fn locked_bytes(&self) -> u64;
    /// The process's limit of locked bytes; `None` if it has none, or may exceed it.
    fn memlock(&self) -> Option<u64>;
}
