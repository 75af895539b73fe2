// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench plan`: what a run would take, found by the same code that a run begins with, before
//! anything is touched.

mod document;
mod report;
mod sources;
#[cfg(test)]
mod tests;
mod time;

use tce_engine::addr::{DmaMask, GroupId, Ioba, PageShift};
use tce_engine::backend::linux::vfio::{DeviceInfo, Tree, preflight};
use tce_engine::engine::DetachPolicy;
use tce_engine::geometry::Geometry;
use tce_engine::platform::Platform;

use super::run::facts;
use super::{Status, present};
use crate::cli::{BackendChoice, PlanConfig, RunConfig};
use crate::cpus;
use crate::host::{self, HostFacts};
use crate::kernel::Unavailable;
use crate::result::{BackendKind, Config, Tool, Warning};
use crate::run::machine::Machine;
use crate::run::model;
use crate::run::rig::Plan;
use crate::slow;
use crate::style::Style;
pub(super) use document::HugePages;
use document::{Backend, Device, Doc, Level, Memory, PageRow, Reach, SCHEMA, Table, Window};
use time::Time;

/// What memory can stand on.
const BACKINGS: [u64; 5] = [4 << 10, 64 << 10, 2 << 20, 16 << 20, 1 << 30];

/// Plans and reports.
///
/// # Errors
/// What could not be written, one line.
pub fn plan(config: &PlanConfig) -> anyhow::Result<Status> {
    let output = &config.run.output;
    let (doc, refused) = match make(config) {
        Ok(made) => made,
        Err(status) => return Ok(status),
    };
    present(output.quiet, output.json.as_ref(), &doc, || report::report(&doc, Style::detect()))?;
    Ok(refused.unwrap_or(Status::Ok))
}

/// The plan, and how a run would end before it begins, if it would.
fn make(config: &PlanConfig) -> Result<(Doc, Option<Status>), Status> {
    let run = &config.run;
    if let Some(cpus) = &run.cpus {
        cpus::check(cpus).map_err(Status::Usage)?;
    }
    let host = HostFacts::capture();
    let mut warnings: Vec<Warning> = Vec::new();
    warnings.extend(slow::from_env().map_err(Status::Usage)?);
    let slowed = !warnings.is_empty();
    let unavailable = |e: Unavailable| Status::Unavailable(e.to_string());
    let site = Site::of(run, &host, &mut warnings).map_err(unavailable)?;
    let plan = Plan::new(run, &site.machine, host::mem_available()).map_err(Status::Usage)?;
    let refused = site.check_memlock(run, &plan);
    let mut doc = site.document(config, &plan, host, warnings);
    if let Config::Run(settings) = &doc.config {
        doc.sources = sources::sources(config, settings, site.kind, &doc.memory, slowed);
    }
    Ok((doc, refused))
}

/// The machine that is planned for, or the one that stands for it.
struct Site {
    machine: Machine,
    /// As it is called in results.
    kind: BackendKind,
    label: String,
    groups: Vec<GroupId>,
    /// NUMA node of each group.
    nodes: Vec<Option<u32>>,
    /// The devices of each group, where they are real.
    devices: Vec<(GroupId, DeviceInfo)>,
    /// The limit of locked bytes beside that of the settings, and what is locked already.
    limit: Option<u64>,
    locked: u64,
    bridges: Option<Platform>,
}

impl Site {
    fn of(
        run: &RunConfig,
        host: &HostFacts,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, Unavailable> {
        match run.backend {
            BackendChoice::Vfio => Self::real(run, host),
            BackendChoice::Auto => Self::real(run, host).or_else(|e| {
                let text = format!("no vfio: {}; planned for the mock", e.cause);
                warnings.push(Warning::new("NO_VFIO", text));
                Self::simulated(&RunConfig { backend: BackendChoice::Mock, ..run.clone() })
            }),
            BackendChoice::Mock | BackendChoice::MockKernel => Self::simulated(run),
        }
    }

    fn simulated(run: &RunConfig) -> Result<Self, Unavailable> {
        let machine = Machine::open(run, &mut Vec::new())?;
        let backend = machine.backend();
        let node = |group: &GroupId| backend.group(*group).ok().and_then(|caps| caps.node);
        Ok(Self {
            kind: machine.kind(),
            label: machine.label(),
            nodes: machine.groups.iter().map(node).collect(),
            groups: machine.groups.clone(),
            devices: Vec::new(),
            limit: None,
            locked: 0,
            bridges: machine.platform(),
            machine,
        })
    }

    fn real(run: &RunConfig, host: &HostFacts) -> Result<Self, Unavailable> {
        let wanted: Option<Vec<_>> =
            run.vfio_groups.as_ref().map(|all| all.iter().copied().map(GroupId).collect());
        let found = preflight(wanted.as_deref(), run.groups as usize, 0, run.vfio_v1)?;
        let (machine, platform) = model::model(run, host)?;
        let tree = Tree::default();
        let devices = found.groups.iter().flat_map(|group| {
            let devices = found.devices.get(group).into_iter().flatten();
            devices.map(|device| (*group, device.clone()))
        });
        Ok(Self {
            machine,
            kind: BackendKind::Vfio,
            label: format!("vfio, by what a {platform} offers: the groups were not asked"),
            nodes: found.groups.iter().map(|group| tree.node(*group)).collect(),
            devices: devices.collect(),
            groups: found.groups.clone(),
            limit: found.memlock,
            locked: found.locked,
            bridges: None,
        })
    }

    /// How a run would end where it may not lock what it has to.
    fn check_memlock(&self, run: &RunConfig, plan: &Plan) -> Option<Status> {
        if let Err(e) = self.machine.check_memlock(run, plan) {
            return Some(Status::Unavailable(e.to_string()));
        }
        let need = plan.need_locked;
        if self.kind == BackendKind::Vfio {
            let check = preflight(Some(&self.groups), self.groups.len(), need, run.vfio_v1);
            return check.err().map(|e| Status::Unavailable(e.to_string()));
        }
        run.memlock_bytes.is_some_and(|limit| need > limit).then_some(Status::Failed)
    }

    fn document(
        &self,
        config: &PlanConfig,
        plan: &Plan,
        host: HostFacts,
        warnings: Vec<Warning>,
    ) -> Doc {
        let run = &config.run;
        let has_kernel = self.machine.has_kernel();
        let offered = self.machine.offered;
        let start = offered.window_starts.iter().flatten().next().map_or(0, |start| start.0);
        Doc {
            schema: SCHEMA,
            tool: Tool::current(),
            backend: Backend {
                kind: self.kind,
                label: self.label.clone(),
                groups: u64::from(run.groups),
                group_numbers: self.groups.iter().map(|g| g.0).collect(),
                container_version: has_kernel.then_some(if run.vfio_v1 { 1 } else { 2 }),
                bridges: self.bridges.map(|platform| platform.to_string()),
                page_sizes: offered.page_sizes.iter().map(|p| p.bytes()).collect(),
                max_windows: offered.window_starts.iter().flatten().count() as u64,
                max_levels: u64::from(offered.max_levels),
                table_nodes: self.table_nodes(run),
            },
            config: Config::Run(facts::settings(run, plan, has_kernel, start)),
            time: Time::of(run, &self.machine, self.kind),
            sources: Vec::new(),
            table: table(&plan.geometry),
            memory: self.memory(run, plan, &host),
            windows: self.windows(config, &plan.geometry),
            devices: self
                .devices
                .iter()
                .map(|(group, device)| Device::new(*group, device))
                .collect(),
            host,
            warnings,
        }
    }

    /// Where the tables will lie: the groups are dealt out to the containers in turn, and a table is made
    /// for the one that joined last.
    fn table_nodes(&self, run: &RunConfig) -> Vec<Option<u32>> {
        let containers = run.containers as usize;
        let of = |nth: usize| {
            let nodes: Vec<_> = self.nodes.iter().skip(nth).step_by(containers).copied().collect();
            let last = nodes.last().copied().flatten();
            let each = run.detach == Some(DetachPolicy::Isolate);
            last.filter(|_| !each || nodes.iter().all(|node| *node == last))
        };
        (0..containers).map(of).collect()
    }

    fn memory(&self, run: &RunConfig, plan: &Plan, host: &HostFacts) -> Memory {
        let geometry = &plan.geometry;
        let limit = [self.limit, run.memlock_bytes].into_iter().flatten().min();
        let blocks = u64::from(run.containers) * geometry.blocks();
        let need = plan.need_locked;
        Memory {
            buffer_bytes: plan.buffer_bytes,
            table_charge_bytes: run.tables() * geometry.charge(),
            need_locked_bytes: need,
            locked_bytes: self.locked,
            memlock_bytes: limit,
            memlock_fits: limit.is_none_or(|limit| self.locked.saturating_add(need) <= limit),
            table_blocks: blocks,
            table_bytes: blocks * geometry.block_bytes(),
            huge_pages: (self.kind == BackendKind::Vfio)
                .then(|| HugePages::needed(plan, host))
                .flatten(),
        }
    }

    /// What each window could be, were it as large as the one of the run.
    fn windows(&self, config: &PlanConfig, geometry: &Geometry) -> Vec<Window> {
        let mut masks = config.masks.clone();
        if !config.masks_given {
            masks.extend(self.devices.iter().filter_map(|(_, device)| device.dma_mask_bits));
            masks.sort_unstable();
            masks.dedup();
        }
        let starts = self.machine.offered.window_starts;
        let slots = starts.iter().enumerate().filter_map(|(slot, start)| Some((slot, (*start)?)));
        let mut used = true;
        slots
            .map(|(slot, start)| Window {
                slot,
                start: start.0,
                used: std::mem::take(&mut used),
                bytes: geometry.size(),
                free_bytes: self.free_bytes(slot),
                reach: masks.iter().filter_map(|bits| self.reach(start, *bits, geometry)).collect(),
            })
            .collect()
    }

    /// What the bus leaves to the first window before the devices' own addresses begin.
    fn free_bytes(&self, slot: usize) -> Option<u64> {
        (slot == 0).then_some(self.machine.offered.default_bytes)
    }

    fn reach(&self, start: Ioba, bits: u32, geometry: &Geometry) -> Option<Reach> {
        let mask = DmaMask::new(bits)?;
        let size = geometry.size();
        let reached = |page: PageShift| mask.pages(start, size, page) << page.get();
        let fits = |page: &PageShift| reached(*page) > 0;
        let pages: Vec<_> = self.machine.offered.page_sizes.iter().filter(fits).collect();
        let row = |backing: u64| {
            let pages = pages.iter().map(|page| page.bytes()).filter(|bytes| *bytes <= backing);
            PageRow { backing_bytes: backing, iommu_pages: pages.collect() }
        };
        Some(Reach {
            mask_bits: bits,
            bytes: reached(geometry.page()),
            pages: BACKINGS.map(row).to_vec(),
        })
    }
}

/// The shape of one table, its top first.
fn table(geometry: &Geometry) -> Table {
    let mut blocks = geometry.entries();
    let mut levels: Vec<_> = (0..geometry.levels())
        .map(|above_leaves| {
            blocks = blocks.div_ceil(geometry.level_entries());
            let bytes = blocks * geometry.block_bytes();
            Level { level: above_leaves + 1, blocks, bytes }
        })
        .collect();
    levels.reverse();
    Table {
        tces: geometry.requested_entries(),
        entries: geometry.entries(),
        covered_bytes: geometry.covered(),
        address_bits: geometry.address_bits(),
        block_bytes: geometry.block_bytes(),
        levels,
        charge_bytes: geometry.charge(),
    }
}
