// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What needs `unsafe`: `ioctl`, two calls of libc, and the promise that [`Vfio::new`] asks for.
//!
//! EINTR is handed to the caller, never retried here. The waits inside these requests end early for
//! a fatal signal only, so nobody is left to retry; and REGISTER or CREATE are not idempotent, so
//! sending one twice is a decision for whoever keeps the books.

#![allow(unsafe_code)] // the module's purpose

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::tree::Tree;
use super::{Kernel, Vfio};
use crate::addr::PageShift;
use crate::backend::linux::raw::{Errno, Raw};
use crate::backend::linux::uapi::{
    DmaMap, DmaUnmap, EehPeOp, GroupStatus, RegionInfo, RegisterMemory, Request, TceCreate,
    TceInfo, TceRemove,
};

impl Vfio {
    /// The VFIO of this machine.
    ///
    /// # Safety
    /// Devices write to memory behind the compiler's back, and any safe code that holds a container
    /// can name any memory. Whoever creates this promises, for it and everything opened from it:
    ///
    /// * Memory that is registered or mapped through it is accessed only in ways that allow others
    ///   to write at any time (raw pointers and volatile accesses, or atomics): no Rust reference
    ///   to plain data points there and no allocator hands it out, until the memory is neither
    ///   mapped nor registered any more, or has been unmapped from the process.
    /// * It does not give it to code that breaks this.
    /// * The nodes below `/dev/vfio` are the kernel's own VFIO nodes.
    #[must_use]
    pub unsafe fn new() -> Self {
        Self::over(Tree::default())
    }
}

fn raw(returned: libc::c_int) -> Raw {
    if returned < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(returned) }
}

/// Requests whose argument is a number, or that have none.
macro_rules! by_value {
    ($($name:ident: $request:ident;)*) => {$(
        pub(super) fn $name(fd: BorrowedFd<'_>, value: u32) -> Raw {
            let number = Request::$request.number() as libc::Ioctl;
            // SAFETY: `fd` is open for the length of the call, and the kernel takes the argument
            // of this request as a number: it reads and writes no memory of ours.
            raw(unsafe { libc::ioctl(fd.as_raw_fd(), number, libc::c_ulong::from(value)) })
        }
    )*};
}

by_value! {
    api_version: GetApiVersion;
    check_extension: CheckExtension;
    set_iommu: SetIommu;
    unset_container: GroupUnsetContainer;
    enable: Enable;
    disable: Disable;
}

/// Requests whose argument is a structure that begins with its own size.
macro_rules! by_struct {
    ($($name:ident: $request:ident($arg:ident);)*) => {$(
        pub(super) fn $name(fd: BorrowedFd<'_>, arg: &mut $arg) -> Raw {
            let number = Request::$request.number() as libc::Ioctl;
            // Never more than is there, whatever the caller says; less is the kernel's to refuse.
            let mut sent = $arg { argsz: arg.argsz.min($arg::SIZE), ..*arg };
            // SAFETY: `fd` is open for the length of the call. The request takes a pointer to this
            // structure (uapi.rs asserts its layout); `sent` is ours alone, initialised and without
            // padding. The kernel touches the request's fixed part, which `sent` holds in full, and
            // beyond that nothing past `argsz`, also on a container of another type, where the
            // number may mean another request. What devices do afterwards to memory that is named
            // in it is covered by the promise of `Vfio::new`, without which nobody has a container.
            let returned = unsafe { libc::ioctl(fd.as_raw_fd(), number, &raw mut sent) };
            *arg = $arg { argsz: arg.argsz, ..sent };
            raw(returned)
        }
    )*};
}

by_struct! {
    group_status: GroupGetStatus(GroupStatus);
    region_info: DeviceGetRegionInfo(RegionInfo);
    info: TceGetInfo(TceInfo);
    register: RegisterMemory(RegisterMemory);
    unregister: UnregisterMemory(RegisterMemory);
    create: TceCreate(TceCreate);
    remove: TceRemove(TceRemove);
    map: MapDma(DmaMap);
    unmap: UnmapDma(DmaUnmap);
    eeh: EehPeOp(EehPeOp);
}

/// GROUP_SET_CONTAINER: puts `group` into `container`.
pub(super) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> Raw {
    let number = Request::GroupSetContainer.number() as libc::Ioctl;
    let container = container.as_raw_fd();
    // SAFETY: both descriptors are open for the length of the call; the kernel reads one int
    // through the pointer, and it points to one.
    raw(unsafe { libc::ioctl(group.as_raw_fd(), number, &raw const container) })
}

/// GROUP_GET_DEVICE_FD: opens the device of that name.
pub(super) fn device(group: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let number = Request::GroupGetDeviceFd.number() as libc::Ioctl;
    // SAFETY: `group` is open for the length of the call; the kernel reads a string through the
    // pointer and stops at its end, which a `CStr` has.
    let fd = raw(unsafe { libc::ioctl(group.as_raw_fd(), number, name.as_ptr()) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The last 64 KiB of the address space belong to the kernel on every architecture: unlike page 0,
/// no process can have mapped anything there.
const NOT_OURS: usize = usize::MAX << 16;

/// Sends `request` with an argument that points to memory that is not there.
pub(super) fn fault(fd: BorrowedFd<'_>, request: Request) -> Raw {
    let number = request.number() as libc::Ioctl;
    // SAFETY: `fd` is open for the length of the call. Whatever the kernel tries to read or write
    // at this address on our behalf, it refuses, because it is none of a process; a request that
    // takes a number gets one that means nothing.
    raw(unsafe { libc::ioctl(fd.as_raw_fd(), number, NOT_OURS) })
}

/// The kernel this process runs on.
#[derive(Debug)]
pub(super) struct Here;

impl Kernel for Here {
    fn page_size(&self) -> PageShift {
        // SAFETY: `sysconf` only reads what it was passed by value.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = u64::try_from(bytes).ok().and_then(PageShift::from_bytes);
        page.expect("Linux has told every process its page size")
    }

    fn memlock(&self) -> Option<u64> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the call writes one `rlimit` through the pointer, and it points to one.
        let returned = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
        // It fails for a bad pointer or an unknown resource only; then the limit is what we set.
        debug_assert_eq!(returned, 0);
        (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
    }
}

#[cfg(all(test, not(miri)))] // it has no ioctl
pub(super) mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::backend::linux::uapi::kind;

    /// What a file answers that is not VFIO's: ENOTTY. QEMU's user mode, under which CI runs the
    /// powerpc64le tests, passes on no request that it does not know, and says ENOSYS.
    pub(in super::super) fn unknown() -> Errno {
        let null = File::open("/dev/null").unwrap();
        let errno = api_version(null.as_fd(), 0).unwrap_err();
        let emulated = cfg!(target_arch = "powerpc64") && errno == Errno::ENOSYS;
        assert!(emulated || errno == Errno::ENOTTY, "{errno:?}");
        errno
    }

    /// A file that knows none of the requests says so for each: they arrive, as far as that shows.
    #[test]
    fn a_node_that_is_not_vfio_answers_enotty() {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let fd = null.as_fd();
        let answers = [
            api_version(fd, 0),
            check_extension(fd, kind::SPAPR_TCE_V2),
            set_iommu(fd, kind::SPAPR_TCE_V2),
            unset_container(fd, 0),
            enable(fd, 0),
            disable(fd, 0),
            group_status(fd, &mut GroupStatus::default()),
            region_info(fd, &mut RegionInfo::default()),
            info(fd, &mut TceInfo::new()),
            register(fd, &mut RegisterMemory::new(0, 0)),
            unregister(fd, &mut RegisterMemory::new(0, 0)),
            create(fd, &mut TceCreate::new(16, 1 << 30, 1)),
            remove(fd, &mut TceRemove::new(0)),
            map(fd, &mut DmaMap::new(3, 0, 0, 0)),
            unmap(fd, &mut DmaUnmap::new(0, 0)),
            eeh(fd, &mut EehPeOp::new(0)),
            set_container(fd, fd),
            fault(fd, Request::TceGetInfo),
        ];
        for (i, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, Err(unknown()), "{i}");
        }
        assert_eq!(device(fd, c"0000:00:00.0").err(), Some(unknown()));
    }

    /// FIONREAD writes an int through its pointer: the address of [`fault`] is refused.
    #[test]
    fn the_address_of_fault_is_refused() {
        let (reader, _writer) = std::io::pipe().unwrap();
        // SAFETY: the kernel refuses to write there.
        let returned = unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, NOT_OURS) };
        assert_eq!(raw(returned), Err(Errno::EFAULT));
    }

    #[test]
    fn the_callers_argsz_stays_as_it_was() {
        let null = File::open("/dev/null").unwrap();
        let mut info = TceInfo { argsz: 4096, flags: 7, ..TceInfo::new() };
        assert!(super::info(null.as_fd(), &mut info).is_err());
        assert_eq!((info.argsz, info.flags), (4096, 7));
    }

    #[test]
    fn page_size_and_limit_are_those_of_the_process() {
        assert!(Here.page_size().bytes() >= 4096);
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|l| l.starts_with("Max locked memory")).unwrap();
        let soft = line.split_whitespace().nth(3).unwrap();
        assert_eq!(Here.memlock(), soft.parse().ok());
    }
}
