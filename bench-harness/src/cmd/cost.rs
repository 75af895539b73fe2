// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench cost`: what a map and an unmap cost in the kernel alone, in the engine above it, and in
//! the engine on the mock, side by side from one run; and what the loops over a leaf cost in each tier.

mod meter;
mod paths;
mod result;
#[cfg(test)]
mod tests;
mod tiers;

use std::fs;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use tce_engine::MockBuilder;
use tce_engine::addr::{GroupId, PageShift};
use tce_engine::backend::linux::mock_kernel::{MockKernel, Process};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::uapi::kind;
use tce_engine::backend::linux::{Linux, LinuxOptions};
use tce_engine::engine::{Engine, EngineOptions};

use super::{Status, present};
use crate::cli::{BackendChoice, CostConfig};
use crate::host::HostFacts;
use crate::interrupt::{interrupted, unless_interrupted};
use crate::kernel::{Buffer, OpenVfio, Unavailable, open_vfio};
use crate::result::{BackendKind, MOCK_LABEL, Run, Tool};
use crate::style::Style;
use meter::{Meter, Unit};
use paths::{BATCH, Over, PAGE, Path, Raw, most_pages};
use result::{BatchCost, Doc, PathKind, PathResult, SCHEMA, Shape};

/// Levels of the tables that are compared.
const LEVELS: [u32; 2] = [1, 2];

/// Measures and reports.
///
/// # Errors
/// What failed, one line.
pub fn cost(config: &CostConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let unit = Unit::of(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    if config.icount && unit == Unit::Ns {
        return Ok(Status::Unavailable(
            "times are no instruction counts here (the kernel's command line has no tce.icount); \
             fix: run it on the emulated machine, scripts/power8-vm --icount"
                .to_owned(),
        ));
    }
    let kernel = match Kernel::open(config) {
        Ok(kernel) => kernel,
        Err(e) => return Ok(Status::Unavailable(e.to_string())),
    };
    let started = SystemTime::now();
    let begin = Instant::now();
    let meter = Meter::new(unit);
    let mut doc = Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(started, argv, None, 0),
        host: HostFacts::capture(),
        unit: unit.name(),
        kernel: kernel.as_ref().map(|k| k.kind),
        kernel_label: kernel.as_ref().map(|k| k.host.label().to_owned()),
        machine: kernel.as_ref().and_then(Kernel::machine),
        mock_label: MOCK_LABEL,
        groups: config.groups,
        repeat: config.repeat,
        clock_overhead: meter.overhead(),
        null_ioctl: None,
        shapes: Vec::new(),
        tiers: Vec::new(),
        passed: None,
    };
    unless_interrupted(measure(config, kernel.as_ref(), &meter, &mut doc))?;
    doc.run.complete = !interrupted();
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    if doc.run.complete {
        doc.judge(unit);
    }
    present(config.quiet, config.json.as_ref(), &doc, || doc.report(Style::detect()))?;
    Ok(Status::of(doc.run.complete, doc.passed))
}

/// Everything; what an interrupt ended half way is left out.
fn measure(
    config: &CostConfig,
    kernel: Option<&Kernel>,
    meter: &Meter,
    doc: &mut Doc,
) -> anyhow::Result<()> {
    let host_page = kernel.map_or(PageShift::K64, |k| k.host.host_page());
    let bytes = most_pages(&config.pages) << PAGE.get();
    if let Some(kernel) = kernel {
        let container = kernel.host.open().map_err(|e| anyhow!("opening a container: {e}"))?;
        let extension =
            || container.check_extension(kind::SPAPR_TCE_V2).map_err(|e| anyhow!("{e}"));
        doc.null_ioctl = Some(meter.calls(config.repeat, 64, |_| extension().map(drop))?);
    }
    for levels in LEVELS {
        let mut shape = Shape { levels, paths: Vec::new(), batches: Vec::new() };
        if let Some(kernel) = kernel {
            // Each has the groups for itself, and its memory: what is registered twice is free.
            let buffer = kernel.buffer(bytes)?;
            let raw = Raw::open(&*kernel.host, &kernel.groups, levels, &buffer)?;
            shape.paths.push(path(PathKind::Kernel, &raw, config, meter)?);
            drop(raw);
            let engine = Engine::new(kernel.linux.clone(), EngineOptions::default());
            let over = Over::open(&engine, &kernel.groups, levels, &buffer)?;
            shape.paths.push(path(PathKind::Engine, &over, config, meter)?);
            shape.batches.push(batch(PathKind::Engine, &over, config, meter)?);
        }
        let mock = MockBuilder::new(config.groups as u16).host_page(host_page).build();
        let engine = Engine::new(mock, EngineOptions::default());
        let groups: Vec<_> = (0..config.groups).map(GroupId).collect();
        let buffer = Buffer::reserved(bytes, PageShift::M2.bytes())?;
        let over = Over::open(&engine, &groups, levels, &buffer)?;
        shape.paths.push(path(PathKind::Mock, &over, config, meter)?);
        shape.batches.push(batch(PathKind::Mock, &over, config, meter)?);
        doc.shapes.push(shape);
    }
    doc.tiers = tiers::measure(config.repeat, meter)?;
    Ok(())
}

/// All sizes of requests on one path.
fn path(
    kind: PathKind,
    path: &impl Path,
    config: &CostConfig,
    meter: &Meter,
) -> anyhow::Result<PathResult> {
    let mut result = PathResult { path: kind, requests: Vec::new() };
    for pages in &config.pages {
        result.requests.push(paths::requests(path, *pages, config.repeat, meter)?);
    }
    Ok(result)
}

/// Adjacent single pages as one batch, and the same pages as one request.
fn batch(
    kind: PathKind,
    over: &Over,
    config: &CostConfig,
    meter: &Meter,
) -> anyhow::Result<BatchCost> {
    let one = paths::requests(over, BATCH, config.repeat, meter)?;
    let (map, unmap) = over.batches(config.repeat, meter)?;
    Ok(BatchCost::new(kind, &one, map, unmap))
}

/// A kernel with containers.
struct Kernel {
    kind: BackendKind,
    host: Arc<dyn RawHost>,
    linux: Arc<Linux>,
    groups: Vec<GroupId>,
    vfio: Option<OpenVfio>,
}

impl Kernel {
    fn open(config: &CostConfig) -> Result<Option<Self>, Unavailable> {
        let vfio = || {
            let open = open_vfio(config.vfio_groups.as_deref(), config.groups as usize, 0, false)?;
            let groups = open.groups[..config.groups as usize].to_vec();
            let (host, linux) = (open.vfio.clone(), open.linux.clone());
            Ok(Self { kind: BackendKind::Vfio, host, linux, groups, vfio: Some(open) })
        };
        match config.backend {
            BackendChoice::Mock => Ok(None),
            BackendChoice::MockKernel => Ok(Some(Self::simulated(config.groups))),
            BackendChoice::Vfio => vfio().map(Some),
            // Why there is none is said by --backend vfio.
            BackendChoice::Auto => Ok(vfio().ok()),
        }
    }

    fn simulated(groups: u32) -> Self {
        let process: Arc<Process> = MockKernel::builder(groups).build().process();
        Self {
            kind: BackendKind::MockKernel,
            linux: Linux::new(process.clone(), LinuxOptions::default()),
            host: process,
            groups: (0..groups).map(GroupId).collect(),
            vfio: None,
        }
    }

    fn machine(&self) -> Option<String> {
        self.vfio.as_ref().map(|open| open.platform.to_string())
    }

    fn buffer(&self, bytes: u64) -> anyhow::Result<Buffer> {
        let host_page = self.host.host_page();
        match self.vfio {
            Some(_) => Buffer::real(bytes, PAGE, host_page),
            None => Buffer::reserved(bytes, host_page.bytes()),
        }
    }
}
