// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why not, and what to do about it.

use std::fmt;

use crate::addr::GroupId;
use crate::backend::linux::raw::Errno;
use crate::backend::linux::vfio::tree::{DeviceInfo, Holder};

/// Whose a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeOwner {
    /// User.
    pub uid: u32,
    /// Group of users.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Why a container cannot be used. Prints as `cause; fix: what to do`, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PreflightError {
    /// The machine is none of POWER.
    NotPower {
        /// What it is instead.
        arch: String,
    },
    /// There is no VFIO.
    NoVfio {
        /// What opening `/dev/vfio/vfio` returned.
        errno: Errno,
    },
    /// A node may not be opened.
    Denied {
        /// The node.
        node: String,
        /// Whose it is, if that can be seen.
        owner: Option<NodeOwner>,
        /// The user that this process acts for, if known.
        euid: Option<u32>,
        /// EACCES: its permissions; EPERM: a policy above them.
        errno: Errno,
    },
    /// A node cannot be opened for another reason.
    Open {
        /// The node.
        node: String,
        /// The reason.
        errno: Errno,
    },
    /// A node does not answer as VFIO's nodes do.
    NotVfio {
        /// The node.
        node: String,
        /// What it answered.
        errno: Errno,
    },
    /// The kernel's VFIO has another interface.
    ApiVersion {
        /// Its version; known is 0.
        version: i32,
    },
    /// The sPAPR TCE extension is not offered in the version that is wanted.
    NoExtension {
        /// True if version 1 is wanted, else 2.
        v1: bool,
        /// True if the other version is offered.
        other: bool,
    },
    /// A container of version 1 takes one group.
    OneGroup {
        /// What was asked for.
        asked: usize,
    },
    /// The kernel has no groups at all.
    NoIommuGroups,
    /// No group has been given to VFIO.
    NoneBound {
        /// Devices that are in a group.
        candidates: Vec<(DeviceInfo, GroupId)>,
    },
    /// The kernel has no such group.
    NoGroup {
        /// What was asked for.
        group: GroupId,
        /// What there is.
        existing: Vec<GroupId>,
    },
    /// The group has not been given to VFIO.
    NotBound {
        /// The group.
        group: GroupId,
        /// Its devices.
        devices: Vec<DeviceInfo>,
    },
    /// Somebody else has the group open.
    Busy {
        /// The group.
        group: GroupId,
        /// Who, as far as that can be seen.
        holders: Vec<Holder>,
    },
    /// Not all devices of the group are with VFIO.
    NotViable {
        /// The group.
        group: GroupId,
        /// Its devices.
        devices: Vec<DeviceInfo>,
    },
    /// There are fewer viable groups than asked for.
    TooFew {
        /// What was asked for.
        asked: usize,
        /// The viable ones.
        viable: Vec<GroupId>,
        /// What keeps the others from it.
        refused: Vec<PreflightError>,
    },
    /// The limit of locked memory is too small.
    Memlock {
        /// Bytes needed.
        need: u64,
        /// Bytes that the process has locked already.
        locked: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

/// More than this of a list would only hide the rest of the message.
const LISTED: usize = 12;

/// The items with commas between; `none` if there are none.
fn list<T: fmt::Display>(items: &[T], none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    let shown: Vec<_> = items.iter().take(LISTED).map(T::to_string).collect();
    let more = match items.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}

/// Commands that give a device to vfio-pci.
fn bind(name: &str, bound: bool) -> String {
    let device = format!("/sys/bus/pci/devices/{name}");
    let unbind =
        if bound { format!("echo {name} > {device}/driver/unbind; ") } else { String::new() };
    format!(
        "echo vfio-pci > {device}/driver_override; {unbind}echo {name} > /sys/bus/pci/drivers_probe"
    )
}

/// The same for all devices of a group that are in its way; `None` if none is.
fn bind_commands(devices: &[DeviceInfo]) -> Option<String> {
    let all: Vec<_> = devices
        .iter()
        .filter(|d| d.in_the_way())
        .map(|d| bind(&d.name, d.driver.is_some()))
        .collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn bind_all(devices: &[DeviceInfo]) -> Option<String> {
    let commands = bind_commands(devices)?;
    Some(format!("if the host can do without these devices, as root: {commands}"))
}

fn bind_any() -> String {
    format!(
        "choose a group that the host can do without and, as root, for each of its devices, ADDR: {}",
        bind("ADDR", true)
    )
}

const LOAD: &str = "modprobe -a vfio vfio-pci vfio_iommu_spapr_tce";

impl PreflightError {
    /// What stands in the way, in one line.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::NotPower { arch } => {
                format!("this machine is {arch}; sPAPR TCE containers exist on POWER only")
            }
            Self::NoVfio { errno } => {
                format!("/dev/vfio/vfio cannot be opened, {errno}: the kernel's VFIO is not there")
            }
            Self::Denied { node, owner, euid, errno } => {
                let owner = owner.map_or_else(String::new, |o| {
                    format!(" of user {} and group {} with mode {:04o}", o.uid, o.gid, o.mode)
                });
                let user = euid.map_or_else(String::new, |u| format!(" to user {u}"));
                format!("{node}{owner} is denied{user}, {errno}")
            }
            Self::Open { node, errno } => format!("{node} cannot be opened, {errno}"),
            Self::NotVfio { node, errno } => {
                format!("{node} does not answer as a node of VFIO, {errno}")
            }
            Self::ApiVersion { version } => {
                format!("the kernel's VFIO has interface version {version}; known is 0")
            }
            Self::NoExtension { v1, other } => {
                let (asked, else_offered) = if *v1 { (1, 2) } else { (2, 1) };
                let also = match other {
                    true => format!("; it offers version {else_offered}"),
                    false => " nor any other".to_owned(),
                };
                format!("the kernel's VFIO does not offer sPAPR TCE version {asked}{also}")
            }
            Self::OneGroup { asked } => {
                format!("{asked} groups asked for; a container of version 1 takes 1")
            }
            Self::NoIommuGroups => {
                "the kernel has no IOMMU groups: /sys/kernel/iommu_groups is empty".to_owned()
            }
            Self::NoneBound { candidates } => {
                let named: Vec<_> =
                    candidates.iter().map(|(d, g)| format!("{d} in group {g}")).collect();
                let named = list(&named, "none");
                format!(
                    "no device is bound to vfio-pci, /dev/vfio has no group; candidates: {named}"
                )
            }
            Self::NoGroup { group, existing } => {
                format!("there is no IOMMU group {group}; there are: {}", list(existing, "none"))
            }
            Self::NotBound { group, devices } => format!(
                "group {group} has no /dev/vfio/{group}; its devices: {}",
                list(devices, "none")
            ),
            Self::Busy { group, holders } => format!(
                "group {group} is held by {}",
                list(holders, "a process that cannot be seen from here")
            ),
            Self::NotViable { group, devices } => {
                let others: Vec<_> = devices.iter().filter(|d| d.in_the_way()).collect();
                let others = list(&others, "none that sysfs shows");
                format!("group {group} is not viable; devices not bound to vfio-pci: {others}")
            }
            Self::TooFew { asked, viable, refused } => {
                let refused: String = refused.iter().map(|e| format!("; {}", e.cause())).collect();
                let viable = list(viable, "none");
                format!("{asked} groups asked for; usable: {viable}{refused}")
            }
            Self::Memlock { need, locked, limit } => format!(
                "{need} bytes ({} KiB) have to be locked and {locked} are (VmLck); the limit \
                 (RLIMIT_MEMLOCK) is {limit} bytes ({} KiB)",
                need.div_ceil(1024),
                limit / 1024
            ),
        }
    }

    /// What to do about it, in one line.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::NotPower { .. } => "use a mock back end, or run on a POWER machine".to_owned(),
            Self::NoVfio { .. } => format!(
                "{LOAD}; in a container, let it have /dev/vfio/vfio; the kernel needs CONFIG_VFIO, \
                 and newer ones CONFIG_VFIO_GROUP and CONFIG_VFIO_CONTAINER"
            ),
            Self::Denied { node, errno, .. } if *errno == Errno::EPERM => {
                format!("a policy denies it, such as a container's: let it have the device {node}")
            }
            Self::Denied { node, euid, .. } => {
                let user = euid.map_or_else(|| "USER".to_owned(), |u| u.to_string());
                format!("as root, chown {user} {node}; or run as root")
            }
            Self::Open { node, .. } => format!("see what the kernel says about {node} in dmesg"),
            Self::NotVfio { node, .. } => {
                format!("see with ls -l what {node} is; udev makes the real one: {LOAD}")
            }
            Self::ApiVersion { .. } => "use another kernel, or a mock back end".to_owned(),
            Self::NoExtension { v1, other: true } => {
                let offered = if *v1 { 2 } else { 1 };
                format!("use version {offered}")
            }
            Self::NoExtension { other: false, .. } => {
                "modprobe vfio_iommu_spapr_tce; the kernel needs CONFIG_VFIO_IOMMU_SPAPR_TCE, and \
                 must not be set to serve /dev/vfio/vfio by iommufd"
                    .to_owned()
            }
            Self::OneGroup { .. } => "ask for 1 group, or use version 2".to_owned(),
            Self::NoIommuGroups => "see with lspci that there are PCI devices; the kernel needs \
                 CONFIG_SPAPR_TCE_IOMMU and must not run with iommu=off"
                .to_owned(),
            Self::NoneBound { .. } => bind_any(),
            Self::NoGroup { .. } => "ask for a group that exists".to_owned(),
            Self::NotBound { group, devices } => bind_all(devices).unwrap_or_else(|| {
                format!(
                    "its devices are with VFIO, so in a container, let it have /dev/vfio/{group}"
                )
            }),
            Self::Busy { holders, .. } if holders.is_empty() => {
                "run as root to see who, and end it; or ask for other groups".to_owned()
            }
            Self::Busy { .. } => "end that process, or ask for other groups".to_owned(),
            Self::NotViable { devices, .. } => bind_all(devices).unwrap_or_else(bind_any),
            Self::TooFew { viable, refused, .. } => {
                let make_more = refused.first().map_or_else(bind_any, Self::fix);
                match viable.len() {
                    0 => make_more,
                    n => format!("ask for at most {n}, or make more usable: {make_more}"),
                }
            }
            Self::Memlock { need, locked, .. } => format!(
                "ulimit -l {} as root before the start, or run with CAP_IPC_LOCK",
                need.saturating_add(*locked).div_ceil(1024)
            ),
        }
    }
}

/// Of the groups that nobody drives any device of, the first, with its devices: taking it takes nothing
/// from the host.
fn idle(candidates: &[(DeviceInfo, GroupId)]) -> Option<Vec<DeviceInfo>> {
    let of = |group: GroupId| candidates.iter().filter(move |(_, g)| *g == group).map(|(d, _)| d);
    let idle = |group: &GroupId| {
        of(*group).all(|d| d.driver.is_none() || d.bridge) && of(*group).any(DeviceInfo::in_the_way)
    };
    let group = candidates.iter().map(|(_, group)| *group).find(idle)?;
    Some(of(group).cloned().collect())
}

impl PreflightError {
    /// The one command line that puts it right, for a shell of root; `None` where no command does. What
    /// `fix` says besides still has to be minded.
    #[must_use]
    pub fn command(&self) -> Option<String> {
        match self {
            Self::NoVfio { .. } => Some(LOAD.to_owned()),
            Self::NoExtension { other: false, .. } => {
                Some("modprobe vfio_iommu_spapr_tce".to_owned())
            }
            Self::Denied { node, euid, errno, .. } if *errno != Errno::EPERM => {
                euid.map(|user| format!("chown {user} {node}"))
            }
            Self::NoneBound { candidates } => bind_commands(&idle(candidates)?),
            Self::NotBound { devices, .. } | Self::NotViable { devices, .. } => {
                bind_commands(devices)
            }
            Self::Busy { holders, .. } if !holders.is_empty() => {
                let pids: Vec<_> = holders.iter().map(|h| h.pid.to_string()).collect();
                Some(format!("kill {}", pids.join(" ")))
            }
            Self::TooFew { refused, .. } => refused.iter().find_map(Self::command),
            Self::Memlock { need, locked, .. } => {
                // Limits count whole pages, the largest of which are 64 KiB.
                let bytes = need.saturating_add(*locked).div_ceil(1 << 16).saturating_mul(1 << 16);
                Some(format!("prlimit --pid $$ --memlock={bytes}:{bytes}"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for PreflightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; fix: {}", self.cause(), self.fix())
    }
}

impl std::error::Error for PreflightError {}
