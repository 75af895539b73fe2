// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The real thing: containers of `/dev/vfio`.
//!
//! [`preflight()`] says beforehand whether this machine can give any, and what to do if not.

mod container;
mod device;
mod platform;
pub mod preflight;
mod proc;
mod sys;
mod tree;

use std::ffi::CString;
use std::fs::File;
use std::io::BufReader;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Weak;

use crate::addr::{GroupId, PageShift, Uaddr};
use crate::backend::linux::raw::{Errno, Raw, RawContainer, RawHost};
use crate::sync::lock;

pub use container::Container;
use container::Groups;
pub use device::{BAR0_REGION, CONFIG_REGION, Device};
pub use platform::{Platform, platform};
pub use preflight::{Examination, GroupExamination, Preflight, PreflightError, examine, preflight};
pub use tree::{DeviceInfo, Holder, ModuleState, Tree};

/// The kernel apart from the files of [`Tree`]; tests of [`preflight()`] have their own.
trait Kernel {
    fn page_size(&self) -> PageShift;
    /// The soft limit of locked bytes.
    fn memlock(&self) -> Option<u64>;

    fn arch(&self) -> &str {
        std::env::consts::ARCH
    }

    /// Opens `/dev/vfio/<name>`.
    fn open_node(&self, tree: &Tree, name: &str) -> Result<OwnedFd, Errno> {
        tree.open_node(name)
    }

    /// The version of the interface that a container has.
    fn api_version(&self, container: BorrowedFd<'_>) -> Raw {
        sys::api_version(container, 0)
    }

    fn check_extension(&self, container: BorrowedFd<'_>, extension: u32) -> Raw {
        sys::check_extension(container, extension)
    }

    fn group_status(&self, group: BorrowedFd<'_>) -> Result<u32, Errno> {
        container::status(group)
    }
}

/// The VFIO of this machine.
#[derive(Debug)]
pub struct Vfio {
    tree: Tree,
    label: &'static str,
    groups: Groups,
}

impl Vfio {
    /// Safe for tests only, which have no devices.
    fn over(tree: Tree) -> Self {
        let label = match Platform::of(&tree).emulated {
            Some(true) => "vfio: real kernel, machine emulated by QEMU",
            Some(false) => "vfio: real kernel, hardware",
            None => "vfio: real kernel, unknown machine",
        };
        Self { tree, label, groups: Groups::default() }
    }

    /// Opens a container.
    ///
    /// # Errors
    /// The error number of opening it.
    pub fn open_container(&self) -> Result<Container, Errno> {
        Container::open(&self.tree, self.groups.clone())
    }

    /// Opens a device of a group that a container of this `Vfio` has open, by its PCI address such
    /// as `0000:01:00.0`. While it is open the group cannot leave, and the kernel keeps both beyond
    /// the closing of the container: drop devices first. The kernel may reset the device, which
    /// takes seconds.
    ///
    /// # Errors
    /// EINVAL if the group is not open here, or in no container; ENODEV if it has no such device.
    pub fn device(&self, group: GroupId, name: &str) -> Result<Device, Errno> {
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let fd = lock(&self.groups).get(&group).and_then(Weak::upgrade).ok_or(Errno::EINVAL)?;
        sys::device(fd.as_fd(), &name).map(Device::new)
    }
}

impl RawHost for Vfio {
    fn label(&self) -> &'static str {
        self.label
    }

    fn open(&self) -> Result<Box<dyn RawContainer>, Errno> {
        Ok(Box::new(self.open_container()?))
    }

    fn host_page(&self) -> PageShift {
        sys::Here.page_size()
    }

    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift> {
        let smaps = File::open(self.tree.path("/proc/self/smaps")).ok()?;
        proc::smallest_page(BufReader::new(smaps), start.0, start.0.checked_add(bytes)?)
    }

    fn node(&self, group: GroupId) -> Option<u32> {
        self.tree.node(group)
    }

    /// 0 if `/proc` is not there.
    fn locked_bytes(&self) -> u64 {
        proc::locked_bytes(&self.tree.read("/proc/self/status").unwrap_or_default())
    }

    fn memlock(&self) -> Option<u64> {
        proc::memlock(&self.tree, &sys::Here)
    }
}

#[cfg(all(test, not(miri)))] // it has no /proc of its own
mod tests {
    use super::*;

    #[test]
    fn this_process_as_it_is() {
        let vfio = Vfio::over(Tree::default());
        let page = vfio.host_page();
        let memory = memmap2::MmapMut::map_anon(3 << page.get()).unwrap();
        let start = memory.as_ptr() as u64;
        assert_eq!(vfio.backing(Uaddr(start), 3 << page.get()), Some(page));
        assert_eq!(vfio.backing(Uaddr(start + 5), 1), Some(page));
        // Page 0 is nobody's, and neither is the hole between the halves.
        assert_eq!(vfio.backing(Uaddr(0), 1), None);
        assert_eq!(vfio.backing(Uaddr(start), 1 << 56), None);
        assert_eq!(vfio.backing(Uaddr(start), u64::MAX), None);
        assert!(vfio.label().starts_with("vfio: real kernel"));
    }

    #[test]
    fn a_machine_without_vfio_says_enoent() {
        let fake = tree::testing::Fake::new();
        let vfio = Vfio::over(fake.clone());
        assert_eq!(vfio.open().err(), Some(Errno::ENOENT));
        assert_eq!(vfio.backing(Uaddr(0x10000), 1), None);
        assert_eq!(vfio.locked_bytes(), 0);
    }
}
