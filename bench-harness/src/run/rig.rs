// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a run stands on: the mock, the engine, containers with their windows, and the buffer.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use memmap2::{MmapMut, MmapOptions};
use tce_engine::addr::{GroupId, Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::Backend;
use tce_engine::backend::mock::{Mock, MockBuilder};
use tce_engine::container::Container;
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::geometry::{Geometry, WindowSpec};
use tce_engine::simd::Tier;

use crate::cli::{Levels, RunConfig, Simd};
use crate::size::format_size;

/// Smallest stretch of a window that a thread owns: what the engine keeps under one lock.
const STRETCH: u64 = 8192;

/// Everything that can be known and refused before memory is taken.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Shape of each container's table.
    pub geometry: Geometry,
    /// Bytes behind the window, mapped repeatedly where it is smaller.
    pub buffer_bytes: u64,
    /// Loops to use.
    pub tier: &'static Tier,
}

impl Plan {
    /// Checks the settings against the geometry, the machine and each other. `available` is the
    /// memory that can be had, in bytes, if it is known.
    ///
    /// # Errors
    /// One line with the value, the limit and what would be accepted.
    pub fn new(config: &RunConfig, available: Option<u64>) -> Result<Self, String> {
        let tier = tier(config.simd)?;
        let caps = mock(config).build().caps();
        let page = shift(config.page_shift)?;
        let spec = WindowSpec::new(config.window_bytes, page);
        let spec = match config.levels {
            Levels::Auto => spec,
            Levels::Count(levels) => spec.levels(u32::from(levels)),
        };
        let geometry = Geometry::new(spec, caps.host_page, caps.max_block)
            .map_err(|e| format!("--window {}: {e}", format_size(config.window_bytes)))?;
        let offered = mock(config).build().group(GroupId(0)).map_err(|e| e.to_string())?;
        if !offered.page_sizes.contains(page) {
            return Err(format!(
                "--page-size {page} is not offered by the mock's POWER8; accepted: {}",
                offered.page_sizes
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
        let buffer_bytes = match (config.buffer_bytes, available) {
            (Some(buffer), Some(available)) if buffer > available => {
                return Err(format!(
                    "--buffer {} is more than the {} of memory available",
                    format_size(buffer),
                    format_size(available)
                ));
            }
            (Some(buffer), _) => buffer,
            (None, available) => {
                let quarter = available.map_or(u64::MAX, |a| a / 4);
                let unit = page.bytes().max(1 << config.host_page_shift);
                let most = (quarter / unit * unit).max(unit);
                config.window_bytes.max(unit).min(most)
            }
        };
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
        Ok(Self { geometry, buffer_bytes, tier })
    }
}

/// Bytes of all tables of a run with every page mapped: the engine's, the naive peer's, and the
/// memory that the limits are measured on.
fn table_bytes(geometry: &Geometry, containers: u32) -> u64 {
    let tree = geometry.blocks().saturating_mul(geometry.block_bytes());
    tree.saturating_mul(2 * u64::from(containers)).saturating_add(4 * 8 * geometry.entries())
}

/// The tier that `--simd` means on this machine.
///
/// # Errors
/// One line with the tiers that it can run.
pub fn tier(simd: Simd) -> Result<&'static Tier, String> {
    let name = match simd {
        Simd::Auto => return Ok(Tier::best()),
        Simd::Portable => "portable",
        Simd::Avx2 => "avx2",
    };
    Tier::named(name).ok_or_else(|| {
        let names: Vec<_> = Tier::all().map(Tier::name).collect();
        format!("--simd {name}: this CPU cannot run it; accepted: auto, {}", names.join(", "))
    })
}

fn shift(shift: u8) -> Result<PageShift, String> {
    PageShift::new(u32::from(shift)).ok_or_else(|| format!("page shift {shift} is unknown"))
}

/// The machine of this run, the same each time.
fn mock(config: &RunConfig) -> MockBuilder {
    let page = |shift: u32| PageShift::new(shift).unwrap_or(PageShift::K4);
    MockBuilder::new(config.groups as u16)
        .host_page(page(u32::from(config.host_page_shift)))
        .backing(page(config.backing_bytes.trailing_zeros()))
        .contiguous(config.contiguous)
        .seed(config.seed)
}

/// Memory of the process that the windows map. It is never touched: the mock's devices move no
/// data.
pub struct Buffer {
    _map: MmapMut,
    start: u64,
    bytes: u64,
}

impl Buffer {
    /// Address space for `bytes`, aligned for the largest page that may be mapped from it.
    fn new(bytes: u64, align: u64) -> anyhow::Result<Self> {
        let length = bytes
            .checked_add(align)
            .and_then(|n| usize::try_from(n).ok())
            .with_context(|| format!("a buffer of {bytes} bytes is larger than memory can be"))?;
        let map =
            MmapOptions::new().len(length).no_reserve_swap().map_anon().with_context(|| {
                format!("no address space for a buffer of {}", format_size(bytes))
            })?;
        let start = (map.as_ptr().addr() as u64).next_multiple_of(align);
        Ok(Self { _map: map, start, bytes })
    }

    /// Its address.
    pub fn start(&self) -> Uaddr {
        Uaddr(self.start)
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The address of page `number` of `page` bytes, counted around.
    pub fn page(&self, number: u64, page: PageShift) -> Uaddr {
        let number = number % (self.bytes >> page.get());
        Uaddr(self.start + (number << page.get()))
    }
}

/// A run's machine, ready to be measured.
pub struct Rig {
    /// The machine.
    pub mock: Arc<Mock>,
    /// The engine on it.
    pub engine: Engine,
    /// The containers, each with one window and all of the buffer registered.
    pub containers: Vec<Container>,
    /// Where every window starts.
    pub start: Ioba,
    /// Shape of every window's table.
    pub geometry: Geometry,
    /// The memory behind the windows.
    pub buffer: Buffer,
    /// Register stores that setting up took.
    pub setup_stores: u64,
}

impl Rig {
    /// Builds it.
    ///
    /// # Errors
    /// What the engine refused, or no memory.
    pub fn new(config: &RunConfig, plan: &Plan) -> anyhow::Result<Self> {
        let mock = mock(config).build();
        let options = EngineOptions {
            memlock: config.memlock_bytes,
            tier: Some(plan.tier),
            ..EngineOptions::default()
        };
        let engine = Engine::new(mock.clone(), options);
        let page = plan.geometry.page();
        let align = page.bytes().max(config.backing_bytes);
        let buffer = Buffer::new(plan.buffer_bytes, align)?;
        let spec = WindowSpec::new(config.window_bytes, page).levels(plan.geometry.levels());
        let mut containers = Vec::new();
        let mut start = None;
        for nth in 0..config.containers {
            let container = engine.container();
            // Groups in turn, so that containers differ by at most one.
            for group in (nth..config.groups).step_by(config.containers as usize) {
                container.attach(GroupId(group))?;
            }
            container
                .register(buffer.start(), buffer.bytes())
                .map_err(|e| anyhow!("{e}{}", memlock_hint(config, plan)))?;
            let window = container
                .create_window(spec)
                .map_err(|e| anyhow!("{e}{}", memlock_hint(config, plan)))?;
            if *start.get_or_insert(window.start) != window.start {
                bail!("windows start at {} and {}", window.start, start.unwrap_or_default());
            }
            containers.push(container);
        }
        let start = start.context("no container")?;
        let setup_stores = mock.register_stores();
        let geometry = plan.geometry;
        Ok(Self { mock, engine, containers, start, geometry, buffer, setup_stores })
    }

    /// The IOMMU page size.
    pub fn page(&self) -> PageShift {
        self.geometry.page()
    }

    /// Pages of the window that was asked for.
    pub fn pages(&self) -> u64 {
        self.geometry.requested_entries()
    }

    /// The PEs of a container.
    pub fn pes(&self, container: &Container) -> anyhow::Result<Vec<PeNumber>> {
        container.groups().iter().map(|g| Ok(self.mock.group(*g)?.pe)).collect()
    }

    /// The part of every window that thread `nth` of `threads` owns: whole leaves, or whole
    /// stretches where a leaf is larger than that.
    pub fn share(&self, nth: u64, threads: u64) -> (u64, u64) {
        let unit = STRETCH.min(self.geometry.level_entries());
        let stretches = self.pages().div_ceil(unit);
        let at = |n: u64| (stretches * n / threads * unit).min(self.pages());
        (at(nth), at(nth + 1) - at(nth))
    }
}

fn memlock_hint(config: &RunConfig, plan: &Plan) -> String {
    let Some(limit) = config.memlock_bytes else { return String::new() };
    let need = plan.buffer_bytes + u64::from(config.containers) * plan.geometry.charge();
    format!("; --memlock is {}, this run needs {}", format_size(limit), format_size(need))
}
