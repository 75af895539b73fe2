// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All that is wrong at once, where [`preflight()`](super::preflight()) stops at the first.

use super::{Check, PreflightError, check_memlock};
use crate::addr::{GroupId, PageShift};
use crate::backend::linux::vfio::sys;
use crate::backend::linux::vfio::tree::{DeviceInfo, Tree};

/// Everything that decides whether containers can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// Whether the container's node is there and offers the version that is wanted.
    pub container: Result<(), PreflightError>,
    /// The groups that were named, or else all that VFIO has; none on another machine than POWER.
    pub groups: Vec<GroupExamination>,
    /// Whether as many groups as wanted can be used.
    pub enough: Result<(), PreflightError>,
    /// Whether as many bytes as wanted may be locked.
    pub memlock: Result<(), PreflightError>,
    /// The limit of locked bytes; `None` if the process has none, or may exceed it.
    pub limit: Option<u64>,
    /// Bytes that the process has locked already.
    pub locked: u64,
    /// The page size of the kernel.
    pub host_page: PageShift,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupExamination {
    /// Its number.
    pub group: GroupId,
    /// Its devices.
    pub devices: Vec<DeviceInfo>,
    /// Whether it can be had.
    pub usable: Result<(), PreflightError>,
}

/// As [`preflight()`](super::preflight()) with the same arguments, over the files below `tree`, but to
/// the end.
#[must_use]
pub fn examine(
    tree: &Tree,
    wanted: Option<&[GroupId]>,
    count: usize,
    need_locked: u64,
    v1: bool,
) -> Examination {
    Check { tree, kernel: &sys::Here }.everything(wanted, count, need_locked, v1)
}

impl Check<'_> {
    pub(super) fn everything(
        &self,
        wanted: Option<&[GroupId]>,
        count: usize,
        need_locked: u64,
        v1: bool,
    ) -> Examination {
        let container = self.container(v1);
        let (limit, locked) = self.locked();
        let memlock = check_memlock(need_locked, locked, limit);
        let host_page = self.kernel.page_size();
        if let Err(PreflightError::NotPower { .. }) = container {
            // Its groups are those of another IOMMU.
            let (groups, enough) = (Vec::new(), container.clone());
            return Examination { container, groups, enough, memlock, limit, locked, host_page };
        }
        let mut numbers = wanted.map_or_else(|| self.tree.nodes(), <[_]>::to_vec);
        let mut seen = std::collections::BTreeSet::new();
        numbers.retain(|group| seen.insert(*group));
        let look = |group: GroupId| {
            let devices = self.tree.devices(group);
            GroupExamination { group, devices, usable: self.group(group).map(drop) }
        };
        let groups: Vec<_> = numbers.into_iter().map(look).collect();
        let asked = wanted.map_or(count, |_| groups.len().max(count));
        let enough = if v1 && asked > 1 {
            Err(PreflightError::OneGroup { asked })
        } else if wanted.is_none() && groups.is_empty() && asked > 0 {
            Err(self.no_node())
        } else {
            enough(&groups, asked)
        };
        Examination { container, groups, enough, memlock, limit, locked, host_page }
    }
}

fn enough(groups: &[GroupExamination], asked: usize) -> Result<(), PreflightError> {
    let viable: Vec<_> = groups.iter().filter(|g| g.usable.is_ok()).map(|g| g.group).collect();
    if viable.len() >= asked {
        return Ok(());
    }
    let refused = groups.iter().filter_map(|g| g.usable.clone().err()).collect();
    Err(PreflightError::TooFew { asked, viable, refused })
}
