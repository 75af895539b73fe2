// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A PCI device of a group: its regions, read and written through its file.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use super::sys;
use crate::backend::linux::raw::Errno;
use crate::backend::linux::uapi::RegionInfo;

/// Index of the region of BAR 0; the further BARs follow.
pub const BAR0_REGION: u32 = 0;
/// Index of the region of the configuration space.
pub const CONFIG_REGION: u32 = 7;

/// An open device; dropping it closes it.
#[derive(Debug)]
pub struct Device {
    file: File,
}

impl Device {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { file: fd.into() }
    }

    /// DEVICE_GET_REGION_INFO. A region that the device lacks has size 0.
    ///
    /// # Errors
    /// EINVAL if there is no such index.
    pub fn region_info(&self, index: u32) -> Result<RegionInfo, Errno> {
        let mut info = RegionInfo { argsz: RegionInfo::SIZE, index, ..RegionInfo::default() };
        sys::region_info(self.file.as_fd(), &mut info)?;
        Ok(info)
    }

    /// Reads `out.len()` bytes at byte `at` of a region. Registers are in the device's own byte
    /// order; an aligned access of 1, 2 or 4 bytes is one access of the device.
    ///
    /// # Errors
    /// EINVAL past the region's end; else that of the read.
    pub fn read_at(&self, region: &RegionInfo, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        let at = position(region, at, out.len())?;
        Ok(self.file.read_exact_at(out, at)?)
    }

    /// Writes `bytes` at byte `at` of a region; see [`Device::read_at`].
    ///
    /// # Errors
    /// As [`Device::read_at`].
    pub fn write_at(&self, region: &RegionInfo, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let at = position(region, at, bytes.len())?;
        Ok(self.file.write_all_at(bytes, at)?)
    }
}

/// Where in the file `len` bytes at `at` of the region are.
fn position(region: &RegionInfo, at: u64, len: usize) -> Result<u64, Errno> {
    let end = at.checked_add(len as u64).ok_or(Errno::EINVAL)?;
    if end > region.size {
        return Err(Errno::EINVAL);
    }
    region.offset.checked_add(at).ok_or(Errno::EINVAL)
}

#[cfg(all(test, not(miri)))] // it has no ioctl
mod tests {
    use super::super::sys::tests::unknown;
    use super::super::tree::testing::Fake;
    use super::*;

    #[test]
    fn regions_are_parts_of_the_file() {
        let fake = Fake::new();
        fake.file("device", "0123456789");
        let open = File::options().read(true).write(true).open(fake.path("/device"));
        let device = Device::new(open.unwrap().into());
        let region = RegionInfo { offset: 4, size: 5, ..RegionInfo::default() };
        let mut out = [0; 2];
        device.read_at(&region, 3, &mut out).unwrap();
        assert_eq!(&out, b"78");
        assert_eq!(device.read_at(&region, 4, &mut out), Err(Errno::EINVAL));
        assert_eq!(device.read_at(&region, u64::MAX, &mut out), Err(Errno::EINVAL));
        device.write_at(&region, 0, b"xy").unwrap();
        assert_eq!(std::fs::read(fake.path("/device")).unwrap(), b"0123xy6789");
        // The file is shorter than the region claims.
        let long = RegionInfo { size: 50, ..region };
        assert_eq!(device.read_at(&long, 40, &mut out), Err(Errno::EIO));
        assert_eq!(device.region_info(CONFIG_REGION), Err(unknown()));
    }
}
