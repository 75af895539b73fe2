// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ways to a map: the kernel's own request, and the engine's.

use anyhow::{anyhow, ensure};
use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::linux::raw::{Errno, RawContainer, RawHost};
use tce_engine::backend::linux::uapi::{
    DmaMap, DmaUnmap, RegisterMemory, TceCreate, TceRemove, kind, map_flags,
};
use tce_engine::container::{Container, MapRequest, Mode, UnmapRequest};
use tce_engine::engine::Engine;
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

use super::meter::Meter;
use super::result::RequestCost;
use crate::cmd::least::Cost;
use crate::kernel::Buffer;

/// IOMMU pages.
pub(super) const PAGE: PageShift = PageShift::K4;
/// The window, as large as the ones in published counts of the kernel.
const WINDOW: u64 = 1 << 30;
/// Entry of the first page that is mapped. A kernel must not be made to fail at entry 0.
const FIRST: u64 = 64;
/// So many pages are mapped per measurement, or one request if that is more: a clock of 512 MHz
/// cannot tell single requests apart.
const PAGES_PER_SAMPLE: u64 = 64;
/// Requests of a batch.
pub(super) const BATCH: u64 = 512;

/// A container with one window and memory behind [`most_pages`] pages of it.
pub(super) trait Path {
    /// Maps pages from `FIRST + page` on.
    fn map(&self, page: u64, pages: u64) -> anyhow::Result<()>;
    /// Unmaps them.
    fn unmap(&self, page: u64, pages: u64) -> anyhow::Result<()>;
}

/// Pages of memory that all measurements together need.
pub(super) fn most_pages(pages: &[u64]) -> u64 {
    let most = pages.iter().copied().max().unwrap_or(1);
    most.max(BATCH).next_multiple_of(PageShift::K64.bytes() / PAGE.bytes())
}

/// What requests of so many pages cost on a path.
pub(super) fn requests(
    path: &impl Path,
    pages: u64,
    repeat: u32,
    meter: &Meter,
) -> anyhow::Result<RequestCost> {
    let calls = (PAGES_PER_SAMPLE / pages).max(1);
    let map = |nth: u64| path.map(nth * pages, pages);
    let unmap = |nth: u64| path.unmap(nth * pages, pages);
    let (map, unmap) = meter.pairs(repeat, calls, map, unmap)?;
    Ok(RequestCost { pages, map, unmap })
}

/// A page of the window and the memory behind it.
#[derive(Clone, Copy)]
struct Base {
    bus: u64,
    memory: u64,
}

impl Base {
    fn new(window: Ioba, buffer: &Buffer) -> Self {
        Self { bus: window.0 + (FIRST << PAGE.get()), memory: buffer.start().0 }
    }

    fn bus(self, page: u64) -> Ioba {
        Ioba(self.bus + (page << PAGE.get()))
    }

    fn memory(self, page: u64) -> Uaddr {
        Uaddr(self.memory + (page << PAGE.get()))
    }
}

/// The kernel's requests, sent as they are.
pub(super) struct Raw {
    raw: Box<dyn RawContainer>,
    base: Base,
}

impl Raw {
    pub(super) fn open(
        host: &dyn RawHost,
        groups: &[GroupId],
        levels: u32,
        buffer: &Buffer,
    ) -> anyhow::Result<Self> {
        let raw = host.open().map_err(|e| anyhow!("opening a container: {e}"))?;
        let done = |answer: Result<i32, Errno>, what: &str| match answer {
            Ok(0) => Ok(()),
            Ok(number) => Err(anyhow!("{what}: the kernel answered {number}")),
            Err(e) => Err(anyhow!("{what}: {e}")),
        };
        for group in groups {
            done(raw.open_group(*group), "opening a group")?;
            done(raw.set_container(*group), "adding a group")?;
        }
        done(raw.set_iommu(kind::SPAPR_TCE_V2), "making it a version 2 container")?;
        done(raw.register(&RegisterMemory::new(buffer.start().0, buffer.bytes())), "registering")?;
        done(raw.remove(&TceRemove::new(0)), "removing the default window")?;
        let mut create = TceCreate::new(PAGE.get(), WINDOW, levels);
        done(raw.create(&mut create), "creating a window")?;
        let base = Base::new(Ioba(create.start_addr), buffer);
        Ok(Self { raw, base })
    }
}

impl Path for Raw {
    fn map(&self, page: u64, pages: u64) -> anyhow::Result<()> {
        let flags = map_flags::READ | map_flags::WRITE;
        let (memory, bus) = (self.base.memory(page).0, self.base.bus(page).0);
        let answer = self.raw.map(&DmaMap::new(flags, memory, bus, pages << PAGE.get()));
        ensure!(answer == Ok(0), "a map of {pages} pages: {answer:?}");
        Ok(())
    }

    fn unmap(&self, page: u64, pages: u64) -> anyhow::Result<()> {
        let mut request = DmaUnmap::new(self.base.bus(page).0, pages << PAGE.get());
        let answer = self.raw.unmap(&mut request);
        ensure!(answer == Ok(0), "an unmap of {pages} pages: {answer:?}");
        Ok(())
    }
}

/// The engine, whatever is below it.
pub(super) struct Over {
    container: Container,
    base: Base,
}

impl Over {
    pub(super) fn open(
        engine: &Engine,
        groups: &[GroupId],
        levels: u32,
        buffer: &Buffer,
    ) -> anyhow::Result<Self> {
        let container = engine.container();
        for group in groups {
            container.attach(*group)?;
        }
        container.register(buffer.start(), buffer.bytes())?;
        let window = container.create_window(WindowSpec::new(WINDOW, PAGE).levels(levels))?;
        Ok(Self { container, base: Base::new(window.start, buffer) })
    }

    /// Adjacent single pages: mapped as one batch, unmapped as one.
    pub(super) fn batches(&self, repeat: u32, meter: &Meter) -> anyhow::Result<(Cost, Cost)> {
        let bytes = PAGE.bytes();
        let map = |page| {
            let (at, memory) = (self.base.bus(page), self.base.memory(page));
            MapRequest { at, memory, bytes, perm: Perm::READ_WRITE }
        };
        let unmap = |page| UnmapRequest { at: self.base.bus(page), bytes };
        let maps: Vec<_> = (0..BATCH).map(map).collect();
        let unmaps: Vec<_> = (0..BATCH).map(unmap).collect();
        meter.pairs(
            repeat,
            1,
            |_| Ok(self.container.map_batch(&maps, Mode::Refuse).map(drop)?),
            |_| Ok(self.container.unmap_batch(&unmaps).map(drop)?),
        )
    }
}

impl Path for Over {
    fn map(&self, page: u64, pages: u64) -> anyhow::Result<()> {
        let (bus, memory) = (self.base.bus(page), self.base.memory(page));
        let bytes = pages << PAGE.get();
        Ok(self.container.map(bus, memory, bytes, Perm::READ_WRITE, Mode::Refuse).map(drop)?)
    }

    fn unmap(&self, page: u64, pages: u64) -> anyhow::Result<()> {
        Ok(self.container.unmap(self.base.bus(page), pages << PAGE.get()).map(drop)?)
    }
}
