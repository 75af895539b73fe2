// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench info`: what this machine is, as far as it matters here. A document, schema
//! `tce-bench.info/1`, and lines for people.

#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Serialize;
use tce_engine::addr::GroupId;
use tce_engine::backend::linux::vfio::{DeviceInfo, ModuleState, Tree};
use tce_engine::simd::Tier;

use super::doctor::MODULES;
use super::{Status, present};
use crate::cli::InfoConfig;
use crate::clock::Clock;
use crate::cpus;
use crate::host::{self, HostFacts};
use crate::result::Tool;
use crate::run::model;
use crate::size::{format_arg, format_size};
use crate::style::Style;

/// The name of the schema.
const SCHEMA: &str = "tce-bench.info/1";

/// Captures and reports.
///
/// # Errors
/// What could not be written, one line.
pub fn info(config: &InfoConfig) -> anyhow::Result<Status> {
    let doc = Doc::capture(Path::new("/"), HostFacts::capture());
    present(config.quiet, config.json.as_ref(), &doc, || doc.report(Style::detect()))?;
    Ok(Status::Ok)
}

#[derive(Debug, Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    host: HostFacts,
    clock: Clock,
    /// Tiers that this machine can run, the fastest last.
    tiers: Vec<&'static str>,
    /// The host bridges that come with the processor; null if it is none of POWER.
    bridges: Option<String>,
    numa: Vec<Node>,
    vfio: Vfio,
    iommu_groups: Vec<Group>,
}

/// A NUMA node.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Node {
    node: usize,
    /// Its CPUs, as in `0-3,8`.
    cpus: Option<String>,
    mem_total_bytes: Option<u64>,
    mem_free_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Vfio {
    /// True if `/dev/vfio/vfio` is there.
    container: bool,
    /// Groups that have a node.
    groups: Vec<u32>,
    modules: Vec<Module>,
}

#[derive(Debug, Serialize)]
struct Module {
    name: &'static str,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct Group {
    group: u32,
    /// The NUMA node of all its devices that name one.
    node: Option<u32>,
    devices: Vec<Device>,
}

#[derive(Debug, Serialize)]
struct Device {
    name: String,
    driver: Option<String>,
    bridge: bool,
    node: Option<u32>,
    dma_mask_bits: Option<u32>,
}

impl From<DeviceInfo> for Device {
    fn from(device: DeviceInfo) -> Self {
        let DeviceInfo { name, driver, bridge, node, dma_mask_bits } = device;
        Self { name, driver, bridge, node, dma_mask_bits }
    }
}

impl Doc {
    /// The machine whose files are below `root`.
    fn capture(root: &Path, host: HostFacts) -> Self {
        let tree = Tree::at(root);
        let module = |name| Module {
            name,
            state: match tree.module(name) {
                ModuleState::Present => "present",
                ModuleState::Available => "available",
                ModuleState::Missing => "missing",
                ModuleState::Unknown => "unknown",
            },
        };
        let group = |group: GroupId| Group {
            group: group.0,
            node: tree.node(group),
            devices: tree.devices(group).into_iter().map(Device::from).collect(),
        };
        Self {
            schema: SCHEMA,
            tool: Tool::current(),
            clock: Clock::measure(),
            tiers: Tier::all().map(Tier::name).collect(),
            bridges: model::bridges(&host.cpu).map(|platform| platform.to_string()),
            numa: host.numa_nodes.iter().map(|node| Node::read(root, *node)).collect(),
            vfio: Vfio {
                container: root.join("dev/vfio/vfio").exists(),
                groups: tree.nodes().iter().map(|group| group.0).collect(),
                modules: MODULES.map(module).into(),
            },
            iommu_groups: tree.groups().into_iter().map(group).collect(),
            host,
        }
    }

    fn report(&self, style: Style) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{} {value}", style.dim(&format!("{name:<14}")));
        };
        let host = &self.host;
        let size = |bytes: Option<u64>, none: &str| bytes.map_or(none.to_owned(), format_size);
        let virt = match host.virt.as_deref() {
            Some("vm") => ", a virtual machine",
            Some(_) => ", bare metal",
            None => "",
        };
        line("host", format!("{}, {}, Linux {}{virt}", host.hostname, host.arch, host.kernel));
        let cpu = &host.cpu;
        let model = cpu.model.as_deref().unwrap_or("unknown");
        let cores = cpu.cores.map_or_else(String::new, |n| format!(" on {n} cores"));
        line("processor", format!("{model}, {} CPUs{cores}", cpu.cpus));
        for (name, value) in [
            ("revision", &cpu.revision),
            ("platform", &cpu.platform),
            ("machine", &cpu.machine),
            ("model", &cpu.machine_model),
            ("firmware", &cpu.firmware),
            ("MMU", &cpu.mmu),
            ("SMT", &cpu.smt),
            ("HWCAP", &cpu.hwcap),
            ("HWCAP2", &cpu.hwcap2),
            ("host bridges", &self.bridges),
            ("governor", &host.governor),
            ("THP", &host.thp),
        ] {
            if let Some(value) = value {
                line(name, value.clone());
            }
        }
        if let Some(hz) = cpu.timebase_hz {
            line("time base", format!("{hz} Hz"));
        }
        line("SIMD tiers", self.tiers.join(", "));
        line("page size", format_arg(host.page_size));
        let pools = host
            .hugepages
            .iter()
            .map(|pool| format!("{} of {}, {} free", pool.total, format_arg(pool.size), pool.free));
        let pools: Vec<_> = pools.collect();
        line("huge pages", if pools.is_empty() { "none".to_owned() } else { pools.join("; ") });
        line("memlock limit", size(host.memlock_bytes, "unlimited"));
        line("memory", format!("{} available", size(host.mem_available_bytes, "unknown")));
        for node in &self.numa {
            let memory = size(node.mem_total_bytes, "unknown");
            let free = size(node.mem_free_bytes, "unknown");
            let cpus = node.cpus.as_deref().filter(|c| !c.is_empty()).unwrap_or("none");
            line(
                &format!("NUMA node {}", node.node),
                format!("CPUs {cpus}; {memory}, {free} free"),
            );
        }
        let modules: Vec<_> =
            self.vfio.modules.iter().map(|m| format!("{} {}", m.name, m.state)).collect();
        line("modules", modules.join(", "));
        let there = if self.vfio.container { "there" } else { "not there" };
        let groups: Vec<_> = self.vfio.groups.iter().map(u32::to_string).collect();
        let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(", ") };
        line("VFIO", format!("/dev/vfio/vfio {there}; groups: {groups}"));
        if self.iommu_groups.is_empty() {
            line("IOMMU groups", "none".to_owned());
        }
        for group in &self.iommu_groups {
            let devices = group.devices.iter().map(|device| {
                let driver = device.driver.as_deref().unwrap_or("no driver");
                let mask =
                    device.dma_mask_bits.map_or_else(String::new, |bits| format!(", {bits} bits"));
                format!("{} ({driver}{mask})", device.name)
            });
            let node = group.node.map_or_else(String::new, |n| format!("node {n}: "));
            let devices: Vec<_> = devices.collect();
            line(&format!("IOMMU group {}", group.group), format!("{node}{}", devices.join(", ")));
        }
        out
    }
}

impl Node {
    fn read(root: &Path, node: usize) -> Self {
        let directory = root.join(format!("sys/devices/system/node/node{node}"));
        let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
        let meminfo = read("meminfo").unwrap_or_default();
        // As in "Node 0 MemTotal:  1024 kB".
        let bytes = |name: &str| {
            let (_, rest) = meminfo.lines().find_map(|line| line.split_once(name))?;
            host::bytes(rest)
        };
        let list = read("cpulist").map(|list| list.trim().to_owned());
        Self {
            node,
            cpus: list.filter(|list| list.is_empty() || cpus::parse_list(list).is_ok()),
            mem_total_bytes: bytes("MemTotal:"),
            mem_free_bytes: bytes("MemFree:"),
        }
    }
}
