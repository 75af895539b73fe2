// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Opens a kernel's containers for a command: whether they can be had, which groups are used, and
//! the memory and the books that go with them.
//!
//! Nothing outside this crate gets hold of an open container, which is what makes
//! `open_vfio` keep the promise that real devices need.

mod books;
mod buffer;
mod told;

use std::fmt;
use std::sync::Arc;

use tce_engine::addr::GroupId;
use tce_engine::backend::linux::raw::Errno;
use tce_engine::backend::linux::vfio::{
    Device, DeviceInfo, Platform, PreflightError, Vfio, platform, preflight,
};
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};

use crate::steps::{Step, tell};

pub(crate) use books::Books;
pub(crate) use buffer::Buffer;
pub(crate) use told::told;

/// Why the back end that was asked for cannot be used, and what to do about it: one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// What stands in the way.
    pub cause: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; fix: {}", self.cause, self.fix)
    }
}

impl std::error::Error for Unavailable {}

impl From<PreflightError> for Unavailable {
    fn from(e: PreflightError) -> Self {
        Self { cause: e.cause(), fix: e.fix() }
    }
}

/// The `/dev/vfio` of this machine, as far as a command uses it. Drop devices before containers, and
/// the memory that containers know after them.
#[derive(Debug)]
pub struct OpenVfio {
    /// Where containers come from.
    pub(crate) vfio: Arc<Vfio>,
    /// The back end on it.
    pub(crate) linux: Arc<Linux>,
    /// The groups to use, all viable when they were looked at.
    pub(crate) groups: Vec<GroupId>,
    /// The devices of each group, in the same order.
    pub(crate) devices: Vec<Vec<DeviceInfo>>,
    /// What machine this is.
    pub(crate) platform: Platform,
    /// Version 1 containers.
    pub(crate) v1: bool,
}

/// Finds the groups `groups`, or the first `count` viable ones, checks that `need_locked` bytes more
/// may be locked, and gives the back end on them. No group is attached yet. Nothing but a [`Buffer`]
/// may be registered or mapped through it.
///
/// # Errors
/// What stands in the way and what to do about it.
pub(crate) fn open_vfio(
    groups: Option<&[u32]>,
    count: usize,
    need_locked: u64,
    v1: bool,
) -> Result<OpenVfio, Unavailable> {
    let wanted: Option<Vec<_>> = groups.map(|g| g.iter().copied().map(GroupId).collect());
    let found = preflight(wanted.as_deref(), count, need_locked, v1)?;
    let vfio = Arc::new(real());
    let version = if v1 { Version::V1 } else { Version::V2 };
    let options = LinuxOptions { version, ..LinuxOptions::default() };
    let linux = Linux::new(told(vfio.clone()), options);
    let devices = found.groups.iter().map(|g| found.devices.get(g).cloned().unwrap_or_default());
    Ok(OpenVfio {
        vfio,
        linux,
        devices: devices.collect(),
        groups: found.groups,
        platform: platform(),
        v1,
    })
}

#[allow(unsafe_code)] // the one promise of this crate
fn real() -> Vfio {
    // SAFETY: `Vfio::new` wants that memory which devices may write is accessed only in ways that
    // allow for it. What this crate registers and maps is a `Buffer` and nothing else. That is a
    // mapping of its own, held as `MmapRaw`: the crate never makes a reference to what is in it, and
    // reads and writes it by system calls only (`Buffer::read`, `Buffer::write`). No allocator knows
    // it, and the only thing that ever happens to it is that it is unmapped from the process. This,
    // and what is opened from it, stays in the crate: the fields of `OpenVfio` and `Rig` that lead
    // there are private to it. The nodes below `/dev/vfio` are what the system's administrator put
    // there; a process that can put others there can do as it likes with this one anyway.
    unsafe { Vfio::new() }
}

impl OpenVfio {
    /// Checks once more, for the groups that were found, that so many bytes may be locked.
    ///
    /// # Errors
    /// What stands in the way and what to do about it.
    pub(crate) fn check_memlock(&self, need_locked: u64) -> Result<(), Unavailable> {
        preflight(Some(&self.groups), self.groups.len(), need_locked, self.v1)?;
        Ok(())
    }

    /// Opens a device of a group that a container has as a member; see [`Vfio::device`].
    ///
    /// # Errors
    /// The error number.
    pub(crate) fn device(&self, group: GroupId, name: &str) -> Result<Device, Errno> {
        tell(Step::Device);
        self.vfio.device(group, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a machine that has groups to give can say more than why not.
    #[test]
    fn what_stands_in_the_way_comes_with_what_to_do() {
        if let Err(e) = open_vfio(None, 1, 0, false) {
            let text = e.to_string();
            assert!(text.contains("; fix: ") && !text.contains('\n'), "{text}");
        }
    }
}
