// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a run's document says of the settings, the machine and what was counted.

use tce_engine::addr::GroupId;
use tce_engine::kill::KillCount;
use tce_engine::mem::TablePages;

use crate::cli::{Phase, RunConfig};
use crate::host::HostFacts;
use crate::policy::Policy;
use crate::result::{
    Backend, BackendKind, Counters, DmaResult, KillCostSettings, Layout, OpResult, RealMemory,
    RunSettings, TableMemory, TableMemoryKind, Warning,
};
use crate::run::lane::Schedule;
use crate::run::leave;
use crate::run::phase::Outcome;
use crate::run::rig::{Plan, Rig};
use crate::run::smaps;
use crate::run::work::Io;
use crate::style::time_ns;

/// What part of a rate has to be achieved: the end of a run may cut off the last few operations.
const REACHED: f64 = 0.99;

/// The settings with all that is chosen by itself; the first window starts at `start`.
pub(in crate::cmd) fn settings(
    config: &RunConfig,
    plan: &Plan,
    has_kernel: bool,
    start: u64,
) -> RunSettings {
    let schedule = Schedule::new(config, has_kernel);
    RunSettings {
        groups: u64::from(config.groups),
        containers: u64::from(config.containers),
        window_bytes: config.window_bytes,
        window_start: start,
        levels: u64::from(plan.geometry.levels()),
        level_entries: plan.geometry.level_entries(),
        page_shift: config.page_shift,
        host_page_shift: plan.host_page.get() as u8,
        threads: u64::from(config.threads),
        cpus: config.cpus.clone(),
        backing_bytes: backing(config, plan, has_kernel),
        buffer_bytes: plan.buffer_bytes,
        phases: config.phases.iter().map(|phase| phase.name().to_owned()).collect(),
        repetitions: config.repetitions.map(u64::from),
        duration_s: schedule.duration.map(|d| d.as_secs_f64()),
        warmup_s: schedule.warmup.as_secs_f64(),
        simd: plan.tier.name().to_owned(),
        contiguous: config.contiguous && !has_kernel,
        memlock_bytes: config.memlock_bytes,
        kill_cost: config.kill_cost.map(KillCostSettings::from),
        policy: config.policy.to_string(),
        mix: config.phases.contains(&Phase::Mix).then(|| Box::new((&config.mix).into())),
        rate_per_s: config.rate.map(|rate| rate.0),
        workload: config.workload.clone().map(Box::new),
        detach: config.detach.map(|policy| leave::name(policy).to_owned()),
    }
}

pub(super) fn counters(config: &RunConfig, rig: &Rig, outcomes: &[Outcome]) -> Counters {
    let mut kills = KillCount::default();
    let mut io = Io::default();
    for outcome in outcomes {
        kills += outcome.meters.kills;
        io += outcome.meters.io;
    }
    let uses: Vec<_> = rig.containers.iter().flat_map(|c| c.table_use()).collect();
    let blocks: u64 = uses.iter().map(|u| u.blocks).sum();
    let full = &rig.geometry;
    let interior = full.blocks() - full.entries().div_ceil(full.level_entries());
    let page = rig.engine.ledger().page().get();
    let containers = rig.containers.len() as u64;
    Counters {
        tces_written: outcomes.iter().map(|o| o.meters.tces_written).sum(),
        kills_asked: kills.asked,
        kills_issued: kills.issued,
        register_stores: rig.machine.register_stores() - rig.setup_stores,
        kill_cost_ns: rig.machine.kill_cost_ns(),
        requests: io.requests,
        ioctls: io.ioctls,
        pinned_peak_bytes: rig.engine.ledger().peak_pages() << page,
        pinned_end_bytes: 0,
        table_charge_bytes: config.tables() * full.charge(),
        leaf_blocks: blocks.saturating_sub(containers * interior),
        table_blocks: blocks,
    }
}

/// Says which phases a policy for handles does not concern.
pub(super) fn strict_phases(config: &RunConfig) -> Option<Warning> {
    let with_handles = |phase: &&Phase| matches!(phase, Phase::Ring | Phase::Single | Phase::Mix);
    let others = config.phases.iter().filter(|phase| !with_handles(phase));
    let names: Vec<_> = others.map(|phase| phase.name()).collect();
    (config.policy != Policy::Strict && !names.is_empty()).then(|| {
        let text = format!(
            "--policy {} is for handles, as ring, single and mix use them; strict were: {}",
            config.policy,
            names.join(", ")
        );
        Warning::new("STRICT_PHASES", text)
    })
}

/// Says that a rate was out of reach: then times grow for as long as one measures, and mean nothing else.
pub(super) fn rate_not_reached(results: &[OpResult]) -> Option<Warning> {
    let open = results.iter().find_map(|result| result.open_loop)?;
    let (asked, achieved) = (open.asked_per_s as f64, open.achieved_per_s);
    (achieved < REACHED * asked).then(|| {
        let text = format!(
            "--rate {}/s was not reached: {achieved:.0}/s were done, and some began {} after they were due; \
             mix.response shows how long this was measured, not how fast an operation is",
            open.asked_per_s,
            time_ns(open.most_behind_ns as f64)
        );
        Warning::new("RATE_NOT_REACHED", text)
    })
}

/// What the run stood on, as it was got.
pub(super) fn backend(
    config: &RunConfig,
    plan: &Plan,
    rig: &Rig,
    warnings: &mut Vec<Warning>,
) -> anyhow::Result<Backend> {
    let caps = rig.machine.offered;
    let uses: Vec<_> = rig.containers.iter().flat_map(|c| c.table_use()).collect();
    let used_bytes = uses.iter().map(|u| u.used_bytes).sum();
    let mut pages = uses.iter().filter_map(|u| u.pages).max().unwrap_or(TablePages::Small);
    if pages == TablePages::Transparent {
        let chunks: Vec<_> = rig.containers.iter().flat_map(|c| c.table_memory()).collect();
        // The kernel may take the advice and give small pages all the same.
        let got = smaps::huge_share(&chunks);
        if got < used_bytes / 2 {
            pages = TablePages::Small;
        }
        // Nothing is measured on the mirror of a kernel's table.
        if pages == TablePages::Small && !rig.machine.has_kernel() {
            warnings.push(Warning::new(
                "NO_HUGE_PAGES",
                format!(
                    "huge pages were granted for the tables, but {got} of {used_bytes} bytes \
                         stand on them"
                ),
            ));
        }
    }
    let (kind, page_bytes) = match pages {
        TablePages::Hugetlb => (TableMemoryKind::Hugetlb, 2 << 20),
        TablePages::Transparent => (TableMemoryKind::Thp, 2 << 20),
        TablePages::Small => (TableMemoryKind::Small, HostFacts::capture().page_size),
    };
    let has_kernel = rig.machine.has_kernel();
    let layout = match config.contiguous {
        _ if has_kernel => Layout::Unknown,
        true => Layout::Contiguous,
        false => Layout::Scattered,
    };
    let (kernel_release, runs_on) = rig.machine.kernel_and_machine();
    Ok(Backend {
        kind: rig.machine.kind(),
        label: rig.machine.label(),
        groups: u64::from(config.groups),
        group_numbers: rig.machine.groups.iter().map(|g| g.0).collect(),
        container_version: has_kernel.then_some(if config.vfio_v1 { 1 } else { 2 }),
        kernel_release,
        runs_on,
        bridges: rig.machine.platform().map(|platform| platform.to_string()),
        page_sizes: caps.page_sizes.iter().map(|p| p.bytes()).collect(),
        max_windows: caps.window_starts.iter().flatten().count() as u64,
        max_levels: u64::from(caps.max_levels),
        table_nodes: rig.nodes.clone(),
        table_memory: TableMemory {
            kind,
            page_bytes,
            reserved_bytes: uses.iter().map(|u| u.mapped_bytes).sum(),
            used_bytes,
        },
        real_memory: Some(RealMemory { backing_bytes: backing(config, plan, has_kernel), layout }),
    })
}

/// The pages that the buffer stands on, at least: those of the kernel, or huge ones where an IOMMU
/// page is larger.
fn backing(config: &RunConfig, plan: &Plan, has_kernel: bool) -> u64 {
    if has_kernel { plan.host_page.max(plan.geometry.page()).bytes() } else { config.backing_bytes }
}

/// Devices that will be told to do DMA, by group and name; `None` without any.
pub(super) fn dma(devices: &[(GroupId, String)]) -> Option<DmaResult> {
    let name = |(group, name): &(GroupId, String)| format!("group {group}: {name}");
    let devices: Vec<_> = devices.iter().map(name).collect();
    (!devices.is_empty()).then(|| DmaResult { devices, ..DmaResult::default() })
}

/// Why nobody but the engine says that what is mapped is right; `None` if somebody does, for every
/// group.
pub(super) fn unproven(
    kind: BackendKind,
    groups: &[GroupId],
    dma: Option<&DmaResult>,
    devices: &[(GroupId, String)],
) -> Option<String> {
    if kind != BackendKind::Vfio {
        return None;
    }
    let without = groups.iter().filter(|g| devices.iter().all(|(group, _)| group != *g));
    let without: Vec<_> = without.map(GroupId::to_string).collect();
    if !without.is_empty() {
        let without = without.join(", ");
        return Some(format!("no device whose DMA this tool can drive in group(s) {without}"));
    }
    // One page alone is read by the device, but what it has read cannot be put anywhere else.
    let pages = dma.map_or(0, |dma| dma.pages);
    (pages == 0).then(|| "too few pages are mapped for devices to copy between".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_of_a_real_kernel_needs_a_device_that_has_copied() {
        let groups = [GroupId(3), GroupId(5)];
        let devices = |groups: &[u32]| -> Vec<_> {
            groups.iter().map(|g| (GroupId(*g), "0000:01:00.0".to_owned())).collect()
        };
        let why = |kind, all: &[u32], pages| {
            let devices = devices(all);
            let dma = dma(&devices).map(|dma| DmaResult { pages, ..dma });
            unproven(kind, &groups, dma.as_ref(), &devices).unwrap_or_default()
        };
        assert_eq!(why(BackendKind::MockKernel, &[], 0), "");
        assert!(why(BackendKind::Vfio, &[], 0).ends_with("in group(s) 3, 5"));
        assert!(why(BackendKind::Vfio, &[5, 5], 8).ends_with("in group(s) 3"));
        assert!(why(BackendKind::Vfio, &[5, 3], 0).starts_with("too few pages"));
        assert_eq!(why(BackendKind::Vfio, &[5, 3], 2), "");
    }
}
