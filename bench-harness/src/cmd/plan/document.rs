// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A plan as a JSON document, schema `tce-bench.plan/1`. What a run reports, too, has the same name and,
//! if it is run, the same value.

use serde::Serialize;
use tce_engine::addr::GroupId;
use tce_engine::backend::linux::vfio::DeviceInfo;

use super::sources::Source;
use super::time::Time;
use crate::host::HostFacts;
use crate::result::{BackendKind, Config, Tool, Warning};
use crate::run::rig::Plan;

/// The name of the schema.
pub(super) const SCHEMA: &str = "tce-bench.plan/1";

#[derive(Debug, Serialize)]
pub(super) struct Doc {
    pub(super) schema: &'static str,
    pub(super) tool: Tool,
    pub(super) host: HostFacts,
    pub(super) backend: Backend,
    pub(super) config: Config,
    pub(super) time: Time,
    /// Of all values here but the warnings.
    pub(super) sources: Vec<Source>,
    /// Of each container's window.
    pub(super) table: Table,
    pub(super) memory: Memory,
    pub(super) windows: Vec<Window>,
    /// Of the groups, where they are real.
    pub(super) devices: Vec<Device>,
    pub(super) warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
pub(super) struct Backend {
    pub(super) kind: BackendKind,
    pub(super) label: String,
    pub(super) groups: u64,
    pub(super) group_numbers: Vec<u32>,
    pub(super) container_version: Option<u8>,
    pub(super) bridges: Option<String>,
    pub(super) page_sizes: Vec<u64>,
    pub(super) max_windows: u64,
    pub(super) max_levels: u64,
    /// The NUMA node that each container's table would land on.
    pub(super) table_nodes: Vec<Option<u32>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Table {
    /// Pages of the window.
    pub(super) tces: u64,
    /// Entries that the table has; more, where a window is smaller than the smallest table.
    pub(super) entries: u64,
    pub(super) covered_bytes: u64,
    pub(super) address_bits: u32,
    pub(super) block_bytes: u64,
    /// The top first.
    pub(super) levels: Vec<Level>,
    pub(super) charge_bytes: u64,
}

/// One level with every page mapped.
#[derive(Debug, Serialize)]
pub(super) struct Level {
    /// 1 is the leaves.
    pub(super) level: u32,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) buffer_bytes: u64,
    pub(super) table_charge_bytes: u64,
    pub(super) need_locked_bytes: u64,
    pub(super) locked_bytes: u64,
    /// The least limit that applies; null = none.
    pub(super) memlock_bytes: Option<u64>,
    pub(super) memlock_fits: bool,
    /// Of all tables, with every page mapped.
    pub(super) table_blocks: u64,
    pub(super) table_bytes: u64,
    /// That the buffer has to stand on; null = it need not.
    pub(super) huge_pages: Option<HugePages>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cmd) struct HugePages {
    pub(in crate::cmd) page_bytes: u64,
    pub(in crate::cmd) needed: u64,
    /// Null if the kernel has no pages of this size.
    pub(in crate::cmd) total: Option<u64>,
    pub(in crate::cmd) free: Option<u64>,
    pub(in crate::cmd) fits: bool,
}

impl HugePages {
    /// `None` where the pages of the kernel do.
    pub(in crate::cmd) fn needed(plan: &Plan, host: &HostFacts) -> Option<Self> {
        let page = plan.geometry.page();
        if page <= plan.host_page {
            return None;
        }
        let needed = plan.buffer_bytes.div_ceil(page.bytes());
        let pool = host.hugepages.iter().find(|pool| pool.size == page.bytes());
        Some(Self {
            page_bytes: page.bytes(),
            needed,
            total: pool.map(|pool| pool.total),
            free: pool.map(|pool| pool.free),
            fits: pool.is_some_and(|pool| pool.free >= needed),
        })
    }
}

/// One DMA window that a group can have.
#[derive(Debug, Serialize)]
pub(super) struct Window {
    pub(super) slot: usize,
    pub(super) start: u64,
    /// True for the one that the run creates.
    pub(super) used: bool,
    pub(super) bytes: u64,
    /// Bytes from its start on that no device has for its own registers; null = all.
    pub(super) free_bytes: Option<u64>,
    pub(super) reach: Vec<Reach>,
}

/// A window as devices with one mask see it.
#[derive(Debug, Serialize)]
pub(super) struct Reach {
    pub(super) mask_bits: u32,
    /// In pages of the run, from the window's start.
    pub(super) bytes: u64,
    pub(super) pages: Vec<PageRow>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct PageRow {
    pub(super) backing_bytes: u64,
    /// Sizes that can map such memory there.
    pub(super) iommu_pages: Vec<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Device {
    pub(super) group: u32,
    pub(super) name: String,
    pub(super) driver: Option<String>,
    pub(super) node: Option<u32>,
    /// As the last driver left it; the kernel begins with 32, and vfio-pci leaves it alone.
    pub(super) dma_mask_bits: Option<u32>,
}

impl Device {
    pub(super) fn new(group: GroupId, device: &DeviceInfo) -> Self {
        Self {
            group: group.0,
            name: device.name.clone(),
            driver: device.driver.clone(),
            node: device.node,
            dma_mask_bits: device.dma_mask_bits,
        }
    }
}
