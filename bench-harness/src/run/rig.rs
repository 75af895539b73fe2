// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a run stands on: the machine, the engine, containers with their windows, and the buffer.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, anyhow, bail};
use tce_engine::addr::{GroupId, Ioba, PageShift};
use tce_engine::container::{Container, Removal};
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::geometry::{Geometry, WindowSpec};
use tce_engine::simd::Tier;

use super::machine::{Machine, What};
use crate::cli::{Levels, Phase, RunConfig};
use crate::edu;
use crate::interrupt::interrupted;
use crate::kernel::{Books, Buffer};
use crate::size::{format_arg, format_size};

/// Smallest stretch of a window that a thread owns: what the engine keeps under one lock.
pub(super) const STRETCH: u64 = 8192;

/// Everything that can be known and refused before memory is taken.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Shape of each container's table.
    pub geometry: Geometry,
    /// The host's page size.
    pub host_page: PageShift,
    /// Bytes behind the window, mapped repeatedly where it is smaller.
    pub buffer_bytes: u64,
    /// Bytes that will be charged.
    pub need_locked: u64,
    /// Loops to use.
    pub tier: &'static Tier,
}

impl Plan {
    /// Checks the settings against the geometry, the machine and each other. `available` is the
    /// memory that can be had, in bytes, if it is known.
    ///
    /// # Errors
    /// One line with the value, the limit and what would be accepted.
    pub fn new(
        config: &RunConfig,
        machine: &Machine,
        available: Option<u64>,
    ) -> Result<Self, String> {
        let tier = config.simd.0;
        let caps = machine.backend().caps();
        let page = shift(config.page_shift)?;
        if let Some(asked) = config.host_page_shift
            && u32::from(asked) != caps.host_page.get()
        {
            return Err(format!(
                "--host-page {}, but this kernel's pages are {}; accepted: that, or none",
                format_arg(1 << asked),
                caps.host_page
            ));
        }
        let spec = WindowSpec::new(config.window_bytes, page);
        let spec = match config.levels {
            Levels::Auto => spec,
            Levels::Count(levels) => spec.levels(u32::from(levels)),
        };
        let geometry = Geometry::new(spec, caps.host_page, caps.max_block)
            .map_err(|e| format!("--window {}: {e}", format_size(config.window_bytes)))?;
        let offered = machine.offered;
        if !offered.page_sizes.contains(page) {
            let by = match machine.platform() {
                Some(platform) if !machine.has_kernel() => format!("the mock's {platform}"),
                _ => "these groups".to_owned(),
            };
            return Err(format!(
                "--page-size {page} is not offered by {by}; accepted: {}",
                offered.page_sizes
            ));
        }
        if geometry.levels() > offered.max_levels {
            return Err(format!(
                "a table of {} levels is more than these groups walk; accepted: 1 to {}",
                geometry.levels(),
                offered.max_levels
            ));
        }
        let pages = geometry.requested_entries();
        let stretches = pages.div_ceil(STRETCH.min(geometry.level_entries()));
        if u64::from(config.threads) > stretches {
            return Err(format!(
                "--threads {} is more than the {stretches} separate stretch(es) of this window; \
                 accepted: 1 to {stretches}, or a larger window",
                config.threads
            ));
        }
        let tables = table_bytes(&geometry, config.containers);
        let unit = page.bytes().max(caps.host_page.bytes());
        let buffer_bytes = match (config.buffer_bytes, available) {
            (Some(buffer), Some(available)) if buffer > available => {
                return Err(format!(
                    "--buffer {} is more than the {} of memory available",
                    format_size(buffer),
                    format_size(available)
                ));
            }
            (Some(buffer), _) if !buffer.is_multiple_of(unit) => {
                return Err(format!(
                    "--buffer {} is not a number of the host's pages; accepted: a multiple of {}",
                    format_size(buffer),
                    format_arg(unit)
                ));
            }
            (Some(buffer), _) => buffer,
            (None, available) => machine.default_buffer(config.window_bytes, unit, available),
        };
        if config.phases.contains(&Phase::Mix) {
            let threads = u64::from(config.threads);
            let least = (0..threads).map(|nth| share(&geometry, nth, threads).1).min();
            config.mix.fits(least.unwrap_or(0), buffer_bytes >> page.get())?;
        }
        if let Some(available) = available
            && tables > available
        {
            return Err(format!(
                "the tables of this run need {}, more than the {} of memory available; use larger \
                 pages, a smaller window or fewer containers",
                format_size(tables),
                format_size(available)
            ));
        }
        let ahead = caps.tables.kernel().map_or(0, |kernel| kernel.paid_ahead);
        let each = geometry.charge() + ahead;
        // What was paid ahead holds the regions too.
        let regions = if ahead > 0 { 0 } else { buffer_bytes };
        // Where each group has a container of the kernel's, each pays for its table.
        let need_locked = regions.saturating_add(config.tables() * each);
        let host_page = caps.host_page;
        Ok(Self { geometry, host_page, buffer_bytes, need_locked, tier })
    }
}

/// Bytes of all tables of a run with every page mapped: the engine's, the naive peer's, and the
/// memory that the limits are measured on.
fn table_bytes(geometry: &Geometry, containers: u32) -> u64 {
    let tree = geometry.blocks().saturating_mul(geometry.block_bytes());
    tree.saturating_mul(2 * u64::from(containers)).saturating_add(4 * 8 * geometry.entries())
}

fn shift(shift: u8) -> Result<PageShift, String> {
    PageShift::new(u32::from(shift)).ok_or_else(|| format!("page shift {shift} is unknown"))
}

/// A container and where its window is.
pub(crate) struct Windowed {
    container: Arc<Container>,
    /// Where the window starts.
    pub(crate) start: Ioba,
    page: PageShift,
}

impl Windowed {
    /// The bus address of page `number` of the window.
    #[inline]
    pub(crate) fn bus(&self, number: u64) -> Ioba {
        Ioba(self.start.0 + (number << self.page.get()))
    }
}

impl Deref for Windowed {
    type Target = Arc<Container>;

    fn deref(&self) -> &Arc<Container> {
        &self.container
    }
}

/// A run's machine, ready to be measured. Fields are dropped in this order: a device keeps its group
/// in its container, and containers know the buffer.
pub struct Rig {
    /// See [`Rig::devices`].
    devices: OnceLock<Vec<edu::Engine>>,
    /// The containers, each with one window and all of the buffer registered.
    pub(crate) containers: Vec<Windowed>,
    /// The engine.
    pub(crate) engine: Engine,
    /// The memory behind the windows.
    pub(crate) buffer: Buffer,
    /// The machine.
    pub(crate) machine: Machine,
    /// What the process shows as locked beside what is charged, if a kernel keeps books.
    pub(crate) books: Option<Books>,
    /// Where the first window starts; the others do too, unless each group has a part of the bus of
    /// its own.
    pub start: Ioba,
    /// NUMA node that each window's table was made for.
    pub nodes: Vec<Option<u32>>,
    /// Shape of every window's table.
    pub geometry: Geometry,
    /// Register stores that setting up took.
    pub setup_stores: u64,
}

impl Rig {
    /// Builds it.
    ///
    /// # Errors
    /// What the engine refused, or no memory.
    pub fn new(config: &RunConfig, plan: &Plan, machine: Machine) -> anyhow::Result<Self> {
        let mut books = machine.books();
        let options = EngineOptions {
            memlock: config.memlock_bytes,
            tier: Some(plan.tier),
            policy: config.policy.into(),
            detach: config.detach.unwrap_or_default(),
            measure_exposure: config.measure_exposure,
        };
        let engine = Engine::new(machine.backend(), options);
        let buffer = machine.buffer(config, plan)?;
        let page = plan.geometry.page();
        let spec = WindowSpec::new(config.window_bytes, page).levels(plan.geometry.levels());
        let (mut containers, mut nodes) = (Vec::new(), Vec::new());
        let mut start = None;
        let mut compare = |engine: &Engine, step: &str| {
            books.iter_mut().for_each(|b| b.compare(engine.ledger(), step));
        };
        let hint = || memlock_hint(config, plan);
        for nth in 0..config.containers as usize {
            let container = engine.container();
            // Groups in turn, so that containers differ by at most one.
            for group in machine.groups.iter().skip(nth).step_by(config.containers as usize) {
                container.attach(*group)?;
                compare(&engine, "attaching a group");
            }
            container
                .register(buffer.start(), buffer.bytes())
                .map_err(|e| anyhow!("{e}{}", hint()))?;
            compare(&engine, "registering the buffer");
            let window = container.create_window(spec).map_err(|e| anyhow!("{e}{}", hint()))?;
            compare(&engine, "creating a window");
            // Devices are told one address for all.
            if *start.get_or_insert(window.start) != window.start && machine.has_kernel() {
                bail!("windows start at {} and {}", window.start, start.unwrap_or_default());
            }
            nodes.push(window.node);
            containers.push(Windowed { container: Arc::new(container), start: window.start, page });
        }
        let start = start.context("no container")?;
        let setup_stores = machine.register_stores();
        let geometry = plan.geometry;
        Ok(Self {
            devices: OnceLock::new(),
            containers,
            engine,
            buffer,
            machine,
            books,
            start,
            nodes,
            geometry,
            setup_stores,
        })
    }

    /// Closes the devices: while one is open, its group cannot leave.
    pub(crate) fn close_devices(&mut self) {
        self.devices.take();
    }

    /// Devices of the groups that can be told to do DMA, as group and name.
    pub(crate) fn device_names(&self) -> Vec<(GroupId, String)> {
        match &self.machine.what {
            What::Vfio(_) => edu::list(&self.machine.groups),
            What::Mock(_) | What::MockKernel { .. } => Vec::new(),
        }
    }

    /// The same, open. Done when they are first needed: opening a device resets it, which can take
    /// a second, and nothing interrupts it. Not all of them if the run is interrupted.
    ///
    /// # Errors
    /// If one cannot be opened, or does not answer.
    pub(crate) fn devices(&self) -> anyhow::Result<&[edu::Engine]> {
        if let Some(devices) = self.devices.get() {
            return Ok(devices);
        }
        let mut devices = Vec::new();
        if let What::Vfio(open) = &self.machine.what {
            for group in self.machine.groups.iter().take_while(|_| !interrupted()) {
                devices.extend(edu::find(open, &[*group])?);
            }
        }
        Ok(self.devices.get_or_init(|| devices))
    }

    /// Compares the books, if there are any.
    pub(crate) fn compare_books(&mut self, step: &str) {
        self.books.iter_mut().for_each(|b| b.compare(self.engine.ledger(), step));
    }

    /// Gives everything back, in the order in which it is safe, and compares the books at each step.
    /// Says what could not be given back as it should, or is still there.
    pub(crate) fn close(&mut self) -> Option<String> {
        self.close_devices();
        let mut wrong = None;
        let mut done = |result: Result<(), String>| {
            if let Err(e) = result {
                wrong.get_or_insert(e);
            }
        };
        let ledger = self.engine.ledger();
        let mut compare = |step: &str| self.books.iter_mut().for_each(|b| b.compare(ledger, step));
        // A version 1 container keeps both until it is closed.
        let by_steps = self.engine.caps().tables.kernel().is_some_and(|k| k.paid_ahead == 0);
        for container in self.containers.iter().filter(|_| by_steps) {
            let removed = container.remove_window(container.start, Removal::IfUnmapped);
            done(removed.map(drop).map_err(|e| e.to_string()));
            compare("removing a window");
            let (start, bytes) = (self.buffer.start(), self.buffer.bytes());
            done(container.unregister(start, bytes).map_err(|e| e.to_string()));
            compare("unregistering the buffer");
        }
        for container in &self.containers {
            container.close();
            compare("closing a container");
        }
        let bytes = ledger.pages() << ledger.page().get();
        if bytes != 0 {
            done(Err(format!("{bytes} bytes are still charged at the end")));
        }
        if let Some(left) = self.machine.leftovers() {
            done(Err(format!("left at the end: {left}")));
        }
        wrong
    }

    /// The IOMMU page size.
    pub fn page(&self) -> PageShift {
        self.geometry.page()
    }

    /// Pages of the buffer.
    pub fn buffer_pages(&self) -> u64 {
        self.buffer.bytes() >> self.page().get()
    }

    /// The bus address of page `number` of the first window.
    pub fn bus(&self, number: u64) -> Ioba {
        Ioba(self.start.0 + (number << self.page().get()))
    }

    /// Pages of the window that was asked for.
    pub fn pages(&self) -> u64 {
        self.geometry.requested_entries()
    }

    /// The part of every window that thread `nth` of `threads` owns: whole leaves, or whole
    /// stretches where a leaf is larger than that.
    pub fn share(&self, nth: u64, threads: u64) -> (u64, u64) {
        share(&self.geometry, nth, threads)
    }
}

/// See [`Rig::share`].
fn share(geometry: &Geometry, nth: u64, threads: u64) -> (u64, u64) {
    let (pages, unit) = (geometry.requested_entries(), STRETCH.min(geometry.level_entries()));
    let stretches = pages.div_ceil(unit);
    let at = |n: u64| (stretches * n / threads * unit).min(pages);
    (at(nth), at(nth + 1) - at(nth))
}

fn memlock_hint(config: &RunConfig, plan: &Plan) -> String {
    let Some(limit) = config.memlock_bytes else { return String::new() };
    let (limit, need) = (format_size(limit), format_size(plan.need_locked));
    format!("; --memlock is {limit}, this run needs {need}")
}
