// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The VFIO uapi for sPAPR TCE containers: request numbers and argument layouts.
//!
//! Fields are in host byte order, naturally aligned. Reserved fields are not checked by Linux and
//! are always 0 here.

use crate::eeh::{EehInjection, EehOp};

/// Container types, which are extensions too.
pub mod kind {
    /// sPAPR TCE, version 1.
    pub const SPAPR_TCE: u32 = 2;
    /// Extended error handling is offered.
    pub const EEH: u32 = 5;
    /// sPAPR TCE, version 2.
    pub const SPAPR_TCE_V2: u32 = 7;
}

/// `_IOC_NONE` is 1 on powerpc and stands in the top three bits; elsewhere it is 0.
const NONE: u32 =
    if cfg!(any(target_arch = "powerpc", target_arch = "powerpc64")) { 0x2000_0000 } else { 0 };

/// A request of the container, the group or a device. All of them are without a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
#[allow(missing_docs)] // the uapi's own names
pub enum Request {
    GetApiVersion = 0x64,
    CheckExtension = 0x65,
    SetIommu = 0x66,
    GroupGetStatus = 0x67,
    GroupSetContainer = 0x68,
    GroupUnsetContainer = 0x69,
    GroupGetDeviceFd = 0x6a,
    DeviceGetRegionInfo = 0x6c,
    TceGetInfo = 0x70,
    MapDma = 0x71,
    UnmapDma = 0x72,
    Enable = 0x73,
    Disable = 0x74,
    RegisterMemory = 0x75,
    UnregisterMemory = 0x76,
    TceCreate = 0x77,
    TceRemove = 0x78,
    EehPeOp = 0x79,
}

impl Request {
    /// The number that `ioctl` takes on this architecture.
    #[must_use]
    pub const fn number(self) -> u32 {
        NONE | 0x3b00 | self as u32
    }
}

/// Flags of [`DmaMap`].
pub mod map_flags {
    /// The device may read memory.
    pub const READ: u32 = 1;
    /// The device may write memory.
    pub const WRITE: u32 = 2;
}

/// [`Request::MapDma`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)] // the uapi's own names
pub struct DmaMap {
    pub argsz: u32,
    pub flags: u32,
    pub vaddr: u64,
    pub iova: u64,
    pub size: u64,
}

/// [`Request::UnmapDma`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct DmaUnmap {
    pub argsz: u32,
    pub flags: u32,
    pub iova: u64,
    pub size: u64,
}

/// [`Request::RegisterMemory`] and [`Request::UnregisterMemory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RegisterMemory {
    pub argsz: u32,
    pub flags: u32,
    pub vaddr: u64,
    pub size: u64,
}

/// [`Request::TceCreate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct TceCreate {
    pub argsz: u32,
    pub flags: u32,
    pub page_shift: u32,
    pub resv1: u32,
    pub window_size: u64,
    pub levels: u32,
    pub resv2: u32,
    /// Written by the kernel.
    pub start_addr: u64,
}

/// [`Request::TceRemove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct TceRemove {
    pub argsz: u32,
    pub flags: u32,
    pub start_addr: u64,
}

/// The part of [`TceInfo`] that is written if `argsz` reaches it and [`TceInfo::DDW`] is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct DdwInfo {
    pub pgsizes: u64,
    pub max_dynamic_windows_supported: u32,
    pub levels: u32,
}

/// [`Request::TceGetInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct TceInfo {
    pub argsz: u32,
    pub flags: u32,
    pub dma32_window_start: u32,
    pub dma32_window_size: u32,
    pub ddw: DdwInfo,
}

impl TceInfo {
    /// Flag: [`TceInfo::ddw`] has been written.
    pub const DDW: u32 = 1;
}

/// The error that [`EehPeOp`] injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct EehPeErr {
    pub kind: u32,
    pub func: u32,
    pub addr: u64,
    pub mask: u64,
}

/// [`Request::EehPeOp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct EehPeOp {
    pub argsz: u32,
    pub flags: u32,
    pub op: u32,
    pub resv: u32,
    pub err: EehPeErr,
}

/// Values of [`EehPeOp::op`].
#[allow(missing_docs)]
pub mod eeh_op {
    pub const DISABLE: u32 = 0;
    pub const ENABLE: u32 = 1;
    pub const UNFREEZE_IO: u32 = 2;
    pub const UNFREEZE_DMA: u32 = 3;
    pub const GET_STATE: u32 = 4;
    pub const RESET_DEACTIVATE: u32 = 5;
    pub const RESET_HOT: u32 = 6;
    pub const RESET_FUNDAMENTAL: u32 = 7;
    pub const CONFIGURE: u32 = 8;
    pub const INJECT_ERR: u32 = 9;
}

/// [`Request::GroupGetStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct GroupStatus {
    pub argsz: u32,
    pub flags: u32,
}

impl GroupStatus {
    /// Flag: every device of the group is bound to a driver that user space may have.
    pub const VIABLE: u32 = 1;
    /// Flag: the group is in a container.
    pub const CONTAINER_SET: u32 = 2;
}

/// [`Request::DeviceGetRegionInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RegionInfo {
    pub argsz: u32,
    pub flags: u32,
    pub index: u32,
    pub cap_offset: u32,
    pub size: u64,
    pub offset: u64,
}

macro_rules! argument {
    ($($name:ident: $bytes:literal),*) => {
        $(
            const _: () = assert!(size_of::<$name>() == $bytes);
            impl $name {
                /// The size that `argsz` has to tell.
                pub const SIZE: u32 = $bytes;
            }
        )*
    };
}

argument! {
    DmaMap: 32, DmaUnmap: 24, RegisterMemory: 24, TceCreate: 40, TceRemove: 16, TceInfo: 32,
    EehPeOp: 40, GroupStatus: 8, RegionInfo: 32
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(TceCreate, window_size) == 16);
    assert!(offset_of!(TceCreate, levels) == 24);
    assert!(offset_of!(TceCreate, start_addr) == 32);
    assert!(offset_of!(TceInfo, ddw) == 16);
    assert!(offset_of!(EehPeOp, err) == 16);
    assert!(offset_of!(EehPeErr, mask) == 16);
    assert!(offset_of!(DmaMap, vaddr) == 8);
    assert!(offset_of!(DmaMap, iova) == 16);
    assert!(offset_of!(DmaMap, size) == 24);
    assert!(offset_of!(DmaUnmap, iova) == 8);
    assert!(offset_of!(RegisterMemory, vaddr) == 8);
    assert!(offset_of!(TceRemove, start_addr) == 8);
    assert!(offset_of!(RegionInfo, size) == 16);
};

impl DmaMap {
    /// A well-formed request.
    #[must_use]
    pub const fn new(flags: u32, vaddr: u64, iova: u64, size: u64) -> Self {
        Self { argsz: Self::SIZE, flags, vaddr, iova, size }
    }
}

impl DmaUnmap {
    /// A well-formed request.
    #[must_use]
    pub const fn new(iova: u64, size: u64) -> Self {
        Self { argsz: Self::SIZE, flags: 0, iova, size }
    }
}

impl RegisterMemory {
    /// A well-formed request.
    #[must_use]
    pub const fn new(vaddr: u64, size: u64) -> Self {
        Self { argsz: Self::SIZE, flags: 0, vaddr, size }
    }
}

impl TceCreate {
    /// A well-formed request.
    #[must_use]
    pub const fn new(page_shift: u32, window_size: u64, levels: u32) -> Self {
        let argsz = Self::SIZE;
        Self { argsz, flags: 0, page_shift, resv1: 0, window_size, levels, resv2: 0, start_addr: 0 }
    }
}

impl TceRemove {
    /// A well-formed request.
    #[must_use]
    pub const fn new(start_addr: u64) -> Self {
        Self { argsz: Self::SIZE, flags: 0, start_addr }
    }
}

impl TceInfo {
    /// A well-formed request, to be filled in.
    #[must_use]
    pub fn new() -> Self {
        Self { argsz: Self::SIZE, ..Self::default() }
    }
}

impl EehPeOp {
    /// A well-formed request.
    #[must_use]
    pub fn new(op: u32) -> Self {
        Self { argsz: Self::SIZE, op, ..Self::default() }
    }
}

impl From<EehOp> for EehPeOp {
    fn from(op: EehOp) -> Self {
        match op {
            EehOp::Enable => Self::new(eeh_op::ENABLE),
            EehOp::Disable => Self::new(eeh_op::DISABLE),
            EehOp::UnfreezeIo => Self::new(eeh_op::UNFREEZE_IO),
            EehOp::UnfreezeDma => Self::new(eeh_op::UNFREEZE_DMA),
            EehOp::ResetDeactivate => Self::new(eeh_op::RESET_DEACTIVATE),
            EehOp::ResetHot => Self::new(eeh_op::RESET_HOT),
            EehOp::ResetFundamental => Self::new(eeh_op::RESET_FUNDAMENTAL),
            EehOp::Configure => Self::new(eeh_op::CONFIGURE),
            EehOp::Inject(EehInjection { function, address: addr, mask, wide }) => {
                let err = EehPeErr { kind: wide.into(), func: function.number(), addr, mask };
                Self { err, ..Self::new(eeh_op::INJECT_ERR) }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a3_a4_request_numbers_of_this_architecture() {
        let none = if cfg!(target_arch = "powerpc64") { 0x2000_0000 } else { 0 };
        let numbers = [
            (Request::GetApiVersion, 0x3b64),
            (Request::SetIommu, 0x3b66),
            (Request::GroupSetContainer, 0x3b68),
            (Request::TceGetInfo, 0x3b70),
            (Request::MapDma, 0x3b71),
            (Request::RegisterMemory, 0x3b75),
            (Request::TceCreate, 0x3b77),
            (Request::EehPeOp, 0x3b79),
        ];
        for (request, number) in numbers {
            assert_eq!(request.number(), number | none, "{request:?}");
        }
    }
}
