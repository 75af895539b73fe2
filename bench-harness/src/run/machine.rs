// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a run's engine stands on: the mock, a simulated kernel, or the kernel of this machine.

use std::sync::Arc;

use tce_engine::addr::{GroupId, PageShift};
use tce_engine::backend::linux::mock_kernel::{MockKernel, Process, Vma};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::vfio::DeviceInfo;
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};
use tce_engine::backend::mock::{KillCost, Mock, MockBuilder};
use tce_engine::backend::{Backend, GroupCaps};
use tce_engine::platform::Platform;

use super::rig::Plan;
use crate::cli::{BackendChoice, RunConfig};
use crate::host::HostFacts;
use crate::kernel::{Books, Buffer, OpenVfio, Unavailable, open_vfio, told};
use crate::result::{BackendKind, MOCK_LABEL, Warning};
use crate::size::format_size;

/// The default page size of simulated hosts, as distributions build them.
const HOST_PAGE: PageShift = PageShift::K64;
/// Memory behind the window where it is really locked, unless told otherwise.
const KERNEL_BUFFER: u64 = 64 << 20;

/// A machine, and what is known of it before anything is taken.
#[derive(Debug)]
pub struct Machine {
    pub(crate) what: What,
    /// The groups of the run.
    pub(crate) groups: Vec<GroupId>,
    /// What all of them offer.
    pub(crate) offered: GroupCaps,
}

/// Which machine.
#[derive(Debug)]
pub(crate) enum What {
    /// A software PHB.
    Mock(Arc<Mock>),
    /// A simulated kernel and one process on it.
    MockKernel { kernel: Arc<MockKernel>, process: Arc<Process>, linux: Arc<Linux> },
    /// The kernel of this machine.
    Vfio(OpenVfio),
}

impl Machine {
    /// The machine that the settings mean.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(config: &RunConfig, warnings: &mut Vec<Warning>) -> Result<Self, Unavailable> {
        let vfio =
            || open_vfio(config.vfio_groups.as_deref(), config.groups as usize, 0, config.vfio_v1);
        let what = match config.backend {
            BackendChoice::Mock => What::mock(config)?,
            BackendChoice::MockKernel => What::mock_kernel(config)?,
            BackendChoice::Vfio => What::Vfio(vfio()?),
            BackendChoice::Auto => match vfio() {
                Ok(open) => What::Vfio(open),
                Err(e) => {
                    let text = format!("no vfio: {}; measured on the mock", e.cause);
                    warnings.push(Warning::new("NO_VFIO", text));
                    What::mock(config)?
                }
            },
        };
        let groups: Vec<_> = match (&what, &config.vfio_groups) {
            (What::Vfio(open), _) => open.groups.clone(),
            (_, Some(named)) => named.iter().copied().map(GroupId).collect(),
            (_, None) => (0..config.groups).map(GroupId).collect(),
        };
        let offered = offered(&*what.backend(), &groups)?;
        Ok(Self { what, groups, offered })
    }

    /// The back end.
    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        self.what.backend()
    }

    /// As in results.
    pub fn kind(&self) -> BackendKind {
        match self.what {
            What::Mock(_) => BackendKind::Mock,
            What::MockKernel { .. } => BackendKind::MockKernel,
            What::Vfio(_) => BackendKind::Vfio,
        }
    }

    /// As in results and on every table.
    pub fn label(&self) -> String {
        match &self.what {
            What::Mock(mock) => {
                let label = match mock.platform() {
                    Platform::Phb3 => MOCK_LABEL.to_owned(),
                    other => format!("mock of {other}: software PHB, not hardware"),
                };
                label + &mock.kill_cost().map_or_else(String::new, costly)
            }
            What::MockKernel { kernel, .. } => {
                let (profile, platform) = (kernel.profile(), kernel.platform());
                format!("mock kernel {profile} on {platform}: simulated, not hardware")
            }
            What::Vfio(open) => open.vfio.label().to_owned(),
        }
    }

    /// The host bridges that are simulated.
    pub(crate) fn platform(&self) -> Option<Platform> {
        match &self.what {
            What::Mock(mock) => Some(mock.platform()),
            What::MockKernel { kernel, .. } => Some(kernel.platform()),
            What::Vfio(_) => None,
        }
    }

    /// True if a kernel owns the tables.
    pub fn has_kernel(&self) -> bool {
        self.host().is_some()
    }

    /// The release of the kernel, and the machine that it runs on; see
    /// [`Backend`](crate::result::Backend).
    pub(crate) fn kernel_and_machine(&self) -> (Option<String>, Option<String>) {
        match &self.what {
            What::Mock(_) => (None, None),
            What::MockKernel { kernel, .. } => {
                let release = format!("simulated, as {}", kernel.profile().kernels);
                (Some(release), Some(format!("simulated, {}", kernel.platform())))
            }
            What::Vfio(open) => {
                (Some(HostFacts::capture().kernel), Some(open.platform.to_string()))
            }
        }
    }

    /// The real groups that were chosen, with their devices, as in `group 3: 0000:04:00.0 (driver
    /// vfio-pci)`.
    pub(crate) fn chosen(&self) -> Option<String> {
        let What::Vfio(open) = &self.what else { return None };
        let one = |(group, devices): (&GroupId, &Vec<DeviceInfo>)| {
            let devices: Vec<_> = devices.iter().map(DeviceInfo::to_string).collect();
            format!("group {group}: {}", devices.join(", "))
        };
        Some(open.groups.iter().zip(&open.devices).map(one).collect::<Vec<_>>().join("; "))
    }

    /// The kernel as the process sees it.
    fn host(&self) -> Option<&dyn RawHost> {
        match &self.what {
            What::Mock(_) => None,
            What::MockKernel { process, .. } => Some(&**process),
            What::Vfio(open) => Some(&*open.vfio),
        }
    }

    /// The books of the process, if a kernel keeps any.
    pub(crate) fn books(&self) -> Option<Books> {
        match &self.what {
            What::Mock(_) => None,
            What::MockKernel { process, .. } => Some(Books::open(process.clone())),
            What::Vfio(open) => Some(Books::open(open.vfio.clone())),
        }
    }

    /// Bytes behind the window unless told otherwise, in whole `unit`s.
    pub fn default_buffer(&self, window: u64, unit: u64, available: Option<u64>) -> u64 {
        let most = match self.what {
            What::Mock(_) => available.map_or(u64::MAX, |a| a / 4),
            What::MockKernel { .. } | What::Vfio(_) => KERNEL_BUFFER,
        };
        window.max(unit).min((most / unit * unit).max(unit))
    }

    /// The memory of the run.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn buffer(&self, config: &RunConfig, plan: &Plan) -> anyhow::Result<Buffer> {
        let page = plan.geometry.page();
        match &self.what {
            What::Mock(_) => {
                Buffer::reserved(plan.buffer_bytes, page.bytes().max(config.backing_bytes))
            }
            What::MockKernel { process, .. } => {
                let stands_on = page.max(plan.host_page);
                let buffer = Buffer::reserved(plan.buffer_bytes, stands_on.bytes())?;
                if page > plan.host_page {
                    process.vma(buffer.start(), buffer.bytes(), Vma::hugetlb(page));
                }
                Ok(buffer)
            }
            What::Vfio(_) => Buffer::real(plan.buffer_bytes, page, plan.host_page),
        }
    }

    /// Checks that what the run will have locked may be.
    ///
    /// # Errors
    /// What is needed, what there is, and what to do about it.
    pub fn check_memlock(&self, config: &RunConfig, plan: &Plan) -> Result<(), Unavailable> {
        // The mock's limit is the engine's, which says itself what it refuses.
        if !self.has_kernel() {
            return Ok(());
        }
        let need = plan.need_locked;
        if let Some(limit) = config.memlock_bytes
            && need > limit
        {
            return Err(Unavailable {
                cause: format!(
                    "this run has to lock {need} bytes ({}), --memlock is {limit} ({})",
                    format_size(need),
                    format_size(limit)
                ),
                fix: format!("--memlock {need}, a smaller --buffer or a smaller --window"),
            });
        }
        match &self.what {
            What::Vfio(open) => open.check_memlock(need),
            What::Mock(_) | What::MockKernel { .. } => Ok(()),
        }
    }

    /// Stores that the mock's kill registers saw; 0 where a kernel kills.
    pub(crate) fn register_stores(&self) -> u64 {
        match &self.what {
            What::Mock(mock) => mock.register_stores(),
            What::MockKernel { .. } | What::Vfio(_) => 0,
        }
    }

    /// Time that kills and fences were made to take; 0 unless they are to cost some.
    pub(crate) fn kill_cost_ns(&self) -> u64 {
        match &self.what {
            What::Mock(mock) => mock.kill_charge().total_ns(),
            What::MockKernel { .. } | What::Vfio(_) => 0,
        }
    }

    /// What should not be there when all containers are closed, in words.
    pub(crate) fn leftovers(&self) -> Option<String> {
        match &self.what {
            What::Mock(mock) => {
                let left = mock.leftovers();
                (left != (0, 0, 0)).then(|| format!("(pins, tables, windows) = {left:?}"))
            }
            What::MockKernel { kernel, .. } => {
                let (left, damage) = (kernel.leftovers(), kernel.damage());
                (left != Default::default() || !damage.is_empty())
                    .then(|| format!("{left:?}, damage to the kernel {damage:?}"))
            }
            // A kernel shows its books only.
            What::Vfio(_) => None,
        }
    }
}

impl What {
    fn mock(config: &RunConfig) -> Result<Self, Unavailable> {
        let mock = mock(config, config.groups as u16).try_build().map_err(|e| Unavailable {
            cause: e.to_string(),
            fix: "ask for another machine".into(),
        })?;
        Ok(Self::Mock(mock))
    }

    fn mock_kernel(config: &RunConfig) -> Result<Self, Unavailable> {
        let named = config.vfio_groups.iter().flatten().max().map_or(0, |last| last + 1);
        let page = config.host_page_shift.and_then(|s| PageShift::new(s.into()));
        let (profile, platform) = config.simulated;
        let kernel = MockKernel::builder(named.max(config.groups).min(MOCK_KERNEL_GROUPS))
            .host_page(page.unwrap_or(HOST_PAGE))
            .profile(profile)
            .platform(platform)
            .try_build()
            .map_err(|e| Unavailable {
                cause: e.to_string(),
                fix: "ask for another pair".into(),
            })?;
        let process = kernel.process();
        process.set_memlock(config.memlock_bytes);
        let version = if config.vfio_v1 { Version::V1 } else { Version::V2 };
        let options = LinuxOptions { version, ..LinuxOptions::default() };
        let linux = Linux::new(told(process.clone()), options);
        Ok(Self::MockKernel { kernel, process, linux })
    }

    fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Mock(mock) => mock.clone(),
            Self::MockKernel { linux, .. } => linux.clone(),
            Self::Vfio(open) => open.linux.clone(),
        }
    }
}

/// The simulated kernel has no more groups than this, whatever is named.
const MOCK_KERNEL_GROUPS: u32 = 256;

/// The mock of these settings with `groups` groups, the same each time.
pub(crate) fn mock(config: &RunConfig, groups: u16) -> MockBuilder {
    let page = |shift: u32| PageShift::new(shift);
    let builder = MockBuilder::new(groups)
        .platform(config.simulated.1)
        .host_page(config.host_page_shift.and_then(|s| page(s.into())).unwrap_or(HOST_PAGE))
        .backing(page(config.backing_bytes.trailing_zeros()).unwrap_or(PageShift::M2))
        .contiguous(config.contiguous)
        .seed(config.seed);
    match config.kill_cost {
        Some(cost) => builder.kill_cost(cost),
        None => builder,
    }
}

/// What a label says of slow kills.
pub(crate) fn costly(cost: KillCost) -> String {
    let KillCost { store_ns, fence_ns, refill_ns } = cost;
    format!(
        "; kills cost as modelled: {store_ns} ns a store, {fence_ns} ns a fence, {refill_ns} ns a level \
         read again, an assumption"
    )
}

/// What all groups offer.
fn offered(backend: &dyn Backend, groups: &[GroupId]) -> Result<GroupCaps, Unavailable> {
    let mut all: Option<GroupCaps> = None;
    for group in groups {
        let caps = backend.group(*group).map_err(|e| Unavailable {
            cause: format!("group {group}: {e}"),
            fix: "ask for another group".to_owned(),
        })?;
        all = Some(match all {
            None => caps,
            Some(all) => GroupCaps {
                page_sizes: all.page_sizes.intersect(caps.page_sizes),
                max_levels: all.max_levels.min(caps.max_levels),
                ..all
            },
        });
    }
    all.ok_or_else(|| Unavailable {
        cause: "no group was asked for".to_owned(),
        fix: "ask for one".to_owned(),
    })
}
