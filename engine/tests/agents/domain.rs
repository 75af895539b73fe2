// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A container whose windows several threads share, each with a part and memory of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use tce_engine::addr::{GroupId, Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::mock::agents::{Expectations, Stretch, Watched};
use tce_engine::container::{Container, Mapper};
use tce_engine::geometry::WindowSpec;
use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace};

use crate::common::{M, SECOND};

/// Pages of a thread in each window that it maps by address.
pub(crate) const OWN: u64 = 40;
/// Pages of a thread in the second window whose addresses come from its allocator.
pub(crate) const GIVEN: u64 = 24;
/// Pages of a thread in each window.
pub(crate) const PARTS: [u64; 2] = [OWN, OWN + GIVEN];
pub(crate) const PAGES: [PageShift; 2] = [PageShift::K64, PageShift::K4];
pub(crate) const STARTS: [Ioba; 2] = [Ioba(0), SECOND];
/// A thread's memory: regions of so many bytes, one after the other.
pub(crate) const REGION: u64 = 2 * M;
pub(crate) const REGIONS: u64 = 3;

/// One container and who uses it.
pub(crate) struct Domain {
    pub(crate) bus: usize,
    pub(crate) container: Arc<Container>,
    pub(crate) fixed: &'static [GroupId],
    pub(crate) threads: Vec<u64>,
    /// Shared by calls; alone for what changes whole windows under them.
    pub(crate) windows: RwLock<()>,
    /// All of its threads use one region: then a segment of its tables has one owner, which is what
    /// handles have short cuts for.
    pub(crate) one_region: bool,
    /// How often each was changed so; with the second one go all allocators.
    pub(crate) resets: [AtomicU64; 2],
}

impl Domain {
    pub(crate) fn watched(&self) -> [Watched; 2] {
        let threads = self.threads.len().max(1) as u64;
        std::array::from_fn(|w| Watched {
            start: STARTS[w],
            page: PAGES[w],
            pages: threads * PARTS[w],
        })
    }

    pub(crate) fn generation(&self) -> [u64; 2] {
        std::array::from_fn(|window| self.resets[window].load(Ordering::SeqCst))
    }

    /// Where a thread's memory begins.
    pub(crate) fn memory(&self, thread: u64) -> Uaddr {
        let whose = if self.one_region { self.bus as u64 } else { thread };
        Uaddr(0x0100_0000_0000 + (whose << 28))
    }

    pub(crate) fn stretch(&self, nth: usize) -> Stretch {
        Stretch { bus: self.bus, nth }
    }

    /// Groups, windows, regions.
    pub(crate) fn open(&self, expect: &Expectations) {
        for group in self.fixed {
            self.attach(*group, expect);
        }
        (0..2).for_each(|w| self.create(w));
        if self.one_region {
            self.container.register(self.memory(0), REGIONS * REGION).unwrap();
            return;
        }
        for thread in &self.threads {
            for region in 0..REGIONS {
                let start = Uaddr(self.memory(*thread).0 + region * REGION);
                self.container.register(start, REGION).unwrap();
            }
        }
    }

    pub(crate) fn create(&self, window: usize) {
        let size = if window == 0 { 512 * M } else { 32 * M };
        let info = self.container.create_window(WindowSpec::new(size, PAGES[window])).unwrap();
        assert_eq!(info.start, STARTS[window]);
    }

    pub(crate) fn attach(&self, group: GroupId, expect: &Expectations) {
        let pe = PeNumber(group.0 as u16);
        expect.moving(pe);
        self.container.attach(group).unwrap();
        expect.moved(pe, Some(self.bus));
    }

    pub(crate) fn detach(&self, group: GroupId, expect: &Expectations) {
        let pe = PeNumber(group.0 as u16);
        expect.moving(pe);
        self.container.detach(group).unwrap();
        expect.moved(pe, None);
    }

    pub(crate) fn all(&self, window: usize, f: impl Fn(Stretch, u64)) {
        (0..self.watched()[window].pages).for_each(|page| f(self.stretch(window), page));
    }
}

/// Pages in a row of one window, and their memory if they are to be mapped.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) window: usize,
    pub(crate) page: u64,
    pub(crate) count: u64,
    pub(crate) memory: Uaddr,
}

impl Run {
    pub(crate) fn at(&self) -> Ioba {
        Ioba(STARTS[self.window].0 + (self.page << PAGES[self.window].get()))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.count << PAGES[self.window].get()
    }

    pub(crate) fn memory_of(&self, nth: u64) -> Uaddr {
        Uaddr(self.memory.0 + (nth << PAGES[self.window].get()))
    }
}

pub(crate) fn mapper(domain: &Domain, first: u64) -> Mapper {
    let page = PAGES[1];
    let start = Ioba(SECOND.0 + (first << page.get()));
    let space = IobaSpace { start, bytes: GIVEN << page.get(), page };
    let addresses = IobaAllocator::new(space, IobaOptions::default()).unwrap();
    domain.container.mapper().with_addresses(&addresses)
}
