// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether containers can be had here, before anything is changed. Nodes are opened, asked and
//! closed again; no group is attached, no driver changed.

mod error;
mod examine;
#[cfg(all(test, not(miri)))] // files
mod tests;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::fs::MetadataExt;

use super::tree::{DeviceInfo, Tree};
use super::{Kernel, proc, sys};
use crate::addr::{GroupId, PageShift};
use crate::backend::linux::raw::Errno;
use crate::backend::linux::uapi::{GroupStatus, kind};

pub use error::{NodeOwner, PreflightError};
pub use examine::{Examination, GroupExamination, examine};

/// What can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// The groups to use, all of them viable.
    pub groups: Vec<GroupId>,
    /// The devices of each of them.
    pub devices: BTreeMap<GroupId, Vec<DeviceInfo>>,
    /// The page size of the kernel.
    pub host_page: PageShift,
    /// The limit of locked bytes; `None` if the process has none, or may exceed it.
    pub memlock: Option<u64>,
    /// Bytes that the process has locked already.
    pub locked: u64,
}

/// Checks that this process can have a container of version 2, or 1 if `v1`, with the groups
/// `wanted`, or with the first `count` viable ones, and lock `need_locked` bytes more. If `wanted`
/// is given, all of it is used and must be at least `count` groups.
///
/// # Errors
/// The first reason why not, and what to do about it.
pub fn preflight(
    wanted: Option<&[GroupId]>,
    count: usize,
    need_locked: u64,
    v1: bool,
) -> Result<Preflight, PreflightError> {
    Check { tree: &Tree::default(), kernel: &sys::Here }.all(wanted, count, need_locked, v1)
}

struct Check<'a> {
    tree: &'a Tree,
    kernel: &'a dyn Kernel,
}

impl Check<'_> {
    fn all(
        &self,
        wanted: Option<&[GroupId]>,
        count: usize,
        need_locked: u64,
        v1: bool,
    ) -> Result<Preflight, PreflightError> {
        self.container(v1)?;
        let asked = wanted.map_or(count, |w| w.len().max(count));
        if v1 && asked > 1 {
            return Err(PreflightError::OneGroup { asked });
        }
        let chosen = match wanted {
            Some(wanted) => self.exactly(wanted, count)?,
            None => self.first(count)?,
        };
        let (memlock, locked) = self.locked();
        check_memlock(need_locked, locked, memlock)?;
        Ok(Preflight {
            groups: chosen.iter().map(|(group, _)| *group).collect(),
            devices: chosen.into_iter().collect(),
            host_page: self.kernel.page_size(),
            memlock,
            locked,
        })
    }

    /// The limit of locked bytes, and how many are.
    fn locked(&self) -> (Option<u64>, u64) {
        let status = self.tree.read("/proc/self/status").unwrap_or_default();
        (proc::memlock(self.tree, self.kernel), proc::locked_bytes(&status))
    }

    /// Opens `/dev/vfio/<name>`; gives back the errors that are not the same for every node.
    fn open(&self, name: &str) -> Result<Result<OwnedFd, Errno>, PreflightError> {
        match self.kernel.open_node(self.tree, name) {
            Err(errno @ (Errno::EACCES | Errno::EPERM)) => {
                let node = format!("/dev/vfio/{name}");
                let owner = self.tree.path(&node).metadata().ok().map(|m| NodeOwner {
                    uid: m.st_uid(),
                    gid: m.st_gid(),
                    mode: m.st_mode() & 0o777,
                });
                let status = self.tree.read("/proc/self/status").unwrap_or_default();
                // Of four numbers the second is the effective one.
                let euid = status.lines().find_map(|l| l.strip_prefix("Uid:"));
                let euid = euid.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
                Err(PreflightError::Denied { node, owner, euid, errno })
            }
            other => Ok(other),
        }
    }

    /// The container's node is there and offers the version.
    fn container(&self, v1: bool) -> Result<(), PreflightError> {
        let arch = self.kernel.arch();
        if arch != "powerpc64" {
            return Err(PreflightError::NotPower { arch: arch.to_owned() });
        }
        let node = || "/dev/vfio/vfio".to_owned();
        let fd = match self.open("vfio")? {
            Ok(fd) => fd,
            // The node can be there without the module that serves it.
            Err(errno @ (Errno::ENOENT | Errno::ENODEV | Errno::ENXIO)) => {
                return Err(PreflightError::NoVfio { errno });
            }
            Err(errno) => return Err(PreflightError::Open { node: node(), errno }),
        };
        let not_vfio = |errno| PreflightError::NotVfio { node: node(), errno };
        if let version @ 1.. = self.kernel.api_version(fd.as_fd()).map_err(not_vfio)? {
            return Err(PreflightError::ApiVersion { version });
        }
        let offers = |kind| self.kernel.check_extension(fd.as_fd(), kind).map_err(not_vfio);
        let (asked, other) = if v1 {
            (kind::SPAPR_TCE, kind::SPAPR_TCE_V2)
        } else {
            (kind::SPAPR_TCE_V2, kind::SPAPR_TCE)
        };
        if offers(asked)? > 0 {
            return Ok(());
        }
        Err(PreflightError::NoExtension { v1, other: offers(other)? > 0 })
    }

    fn exactly(
        &self,
        wanted: &[GroupId],
        count: usize,
    ) -> Result<Vec<(GroupId, Vec<DeviceInfo>)>, PreflightError> {
        let mut chosen: Vec<(GroupId, Vec<DeviceInfo>)> = Vec::new();
        for &group in wanted {
            // Named twice is not busy.
            if chosen.iter().all(|(g, _)| *g != group) {
                chosen.push((group, self.group(group)?));
            }
        }
        self.enough(chosen, count, Vec::new())
    }

    fn first(&self, count: usize) -> Result<Vec<(GroupId, Vec<DeviceInfo>)>, PreflightError> {
        let nodes = self.tree.nodes();
        if nodes.is_empty() && count > 0 {
            return Err(self.no_node());
        }
        let (mut chosen, mut refused) = (Vec::new(), Vec::new());
        for group in nodes {
            if chosen.len() == count {
                break;
            }
            match self.group(group) {
                Ok(devices) => chosen.push((group, devices)),
                Err(e) => refused.push(e),
            }
        }
        self.enough(chosen, count, refused)
    }

    /// Why VFIO has no group.
    fn no_node(&self) -> PreflightError {
        let candidates = self.tree.candidates();
        if candidates.is_empty() && self.tree.groups().is_empty() {
            PreflightError::NoIommuGroups
        } else {
            PreflightError::NoneBound { candidates }
        }
    }

    fn enough(
        &self,
        chosen: Vec<(GroupId, Vec<DeviceInfo>)>,
        asked: usize,
        refused: Vec<PreflightError>,
    ) -> Result<Vec<(GroupId, Vec<DeviceInfo>)>, PreflightError> {
        if chosen.len() >= asked {
            return Ok(chosen);
        }
        let viable = chosen.into_iter().map(|(group, _)| group).collect();
        Err(PreflightError::TooFew { asked, viable, refused })
    }

    /// The group can be had; its devices.
    fn group(&self, group: GroupId) -> Result<Vec<DeviceInfo>, PreflightError> {
        let devices = self.tree.devices(group);
        let fd = match self.open(&group.to_string())? {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => {
                let existing = self.tree.groups();
                return Err(if existing.contains(&group) {
                    PreflightError::NotBound { group, devices }
                } else {
                    PreflightError::NoGroup { group, existing }
                });
            }
            Err(Errno::EBUSY) => {
                return Err(PreflightError::Busy { group, holders: self.tree.holders(group) });
            }
            Err(errno) => {
                return Err(PreflightError::Open { node: format!("/dev/vfio/{group}"), errno });
            }
        };
        let node = || format!("/dev/vfio/{group}");
        let status = self.kernel.group_status(fd.as_fd());
        let flags = status.map_err(|errno| PreflightError::NotVfio { node: node(), errno })?;
        if flags & GroupStatus::VIABLE == 0 {
            return Err(PreflightError::NotViable { group, devices });
        }
        // Whoever closed the group with a device still open keeps it in a container.
        if flags & GroupStatus::CONTAINER_SET != 0 {
            return Err(PreflightError::Busy { group, holders: self.tree.holders(group) });
        }
        Ok(devices)
    }
}

fn check_memlock(need: u64, locked: u64, limit: Option<u64>) -> Result<(), PreflightError> {
    match limit {
        Some(limit) if locked.saturating_add(need) > limit => {
            Err(PreflightError::Memlock { need, locked, limit })
        }
        _ => Ok(()),
    }
}
