// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each phase does on one thread: make its mapped state, and take it back.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use tce_engine::addr::{Ioba, Uaddr};
use tce_engine::container::{Container, LIST_MAX, Mode, Receipt};
use tce_engine::kill::KillCount;
use tce_engine::tce::Perm;

use super::naive::NaiveTable;
use super::rig::Rig;
use crate::recorder::Recorder;

/// What one thread measured in one phase.
#[derive(Default)]
pub struct Meters {
    /// Maps.
    pub map: Recorder,
    /// Unmaps.
    pub unmap: Recorder,
    /// Entries that the engine wrote or cleared.
    pub tces_written: u64,
    /// Kills of the engine.
    pub kills: KillCount,
}

impl Meters {
    fn count(&mut self, receipt: &Receipt) {
        self.tces_written += receipt.tces;
        self.kills += receipt.kills;
    }
}

/// Unmaps `count` window pages from `first`, timed.
fn unmap(
    rig: &Rig,
    container: &Container,
    (first, count): (u64, u64),
    meters: &mut Meters,
) -> anyhow::Result<()> {
    let page = rig.page();
    let from = Ioba(rig.start.0 + (first << page.get()));
    let at = Instant::now();
    let done = container.unmap(from, count << page.get())?;
    meters.unmap.record(ns(at), done.tces);
    meters.count(&done);
    Ok(())
}

fn ns(at: Instant) -> u64 {
    at.elapsed().as_nanos() as u64
}

/// One thread's part of a phase. All threads own disjoint leaves.
pub trait Work: Send {
    /// Makes the phase's mapped state and times the calls.
    ///
    /// # Errors
    /// What the engine refused.
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()>;

    /// Takes it back.
    ///
    /// # Errors
    /// What the engine refused.
    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()>;

    /// The pages that are mapped after [`Work::map`], as ranges of window pages.
    fn mapped(&self) -> (u64, u64);
}

/// A thread's pages of every window.
#[derive(Clone, Copy)]
pub struct Share {
    /// First page.
    pub first: u64,
    /// Number of pages.
    pub count: u64,
}

/// The whole share in as few calls as the buffer allows.
pub struct Bulk<'a> {
    /// The machine.
    pub rig: &'a Rig,
    /// The thread's pages.
    pub share: Share,
}

impl Bulk<'_> {
    /// Calls `f` with each run of pages that lies in the buffer in one piece: first page, number.
    fn runs(
        rig: &Rig,
        share: Share,
        mut f: impl FnMut(u64, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let around = rig.buffer.bytes() >> rig.page().get();
        let (mut at, end) = (share.first, share.first + share.count);
        while at < end {
            let count = (around - at % around).min(end - at);
            f(at, count)?;
            at += count;
        }
        Ok(())
    }
}

impl Work for Bulk<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let (rig, page) = (self.rig, self.rig.page());
        for container in &rig.containers {
            Self::runs(rig, self.share, |first, count| {
                let (memory, bytes) = (rig.buffer.page(first, page), count << page.get());
                let to = Ioba(rig.start.0 + (first << page.get()));
                let at = Instant::now();
                let done = container.map(to, memory, bytes, Perm::READ_WRITE, Mode::Refuse)?;
                meters.map.record(ns(at), done.tces);
                meters.count(&done);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let Share { first, count } = self.share;
        self.rig.containers.iter().try_for_each(|c| unmap(self.rig, c, (first, count), meters))
    }

    fn mapped(&self) -> (u64, u64) {
        (self.share.first, self.share.first + self.share.count)
    }
}

/// Lists of scattered pages, the same few again and again so that they stay in the cache, as the
/// list page of a vCPU does.
pub struct Lists {
    lists: Vec<[Uaddr; LIST_MAX]>,
    /// Number in the buffer of each page.
    numbers: Vec<[u64; LIST_MAX]>,
}

impl Lists {
    /// Number of lists.
    pub const COUNT: usize = 64;

    /// Seeded choices among all pages of the buffer.
    pub fn new(rig: &Rig, seed: u64) -> Arc<Self> {
        let pages = rig.buffer.bytes() >> rig.page().get();
        let mut state = seed;
        let mut next = || {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ z >> 31) % pages
        };
        let numbers: Vec<_> = (0..Self::COUNT).map(|_| std::array::from_fn(|_| next())).collect();
        let list = |n: &[u64; LIST_MAX]| n.map(|n| rig.buffer.page(n, rig.page()));
        let lists = numbers.iter().map(list).collect();
        Arc::new(Self { lists, numbers })
    }

    /// The buffer page that window page `index` is mapped to.
    pub fn number(&self, index: u64) -> u64 {
        let list = (index / LIST_MAX as u64) as usize % Self::COUNT;
        self.numbers[list][index as usize % LIST_MAX]
    }

    /// The part of a list for `count` pages from window page `index`.
    fn pages(&self, index: u64, count: u64) -> &[Uaddr] {
        let list = (index / LIST_MAX as u64) as usize % Self::COUNT;
        let at = index as usize % LIST_MAX;
        &self.lists[list][at..at + count as usize]
    }
}

/// 512-entry lists of scattered pages.
pub struct Indirect<'a> {
    /// The machine.
    pub rig: &'a Rig,
    /// The thread's pages.
    pub share: Share,
    /// What is mapped.
    pub lists: Arc<Lists>,
}

impl Indirect<'_> {
    fn each(&self, mut f: impl FnMut(u64, u64) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (mut at, end) = (self.share.first, self.share.first + self.share.count);
        while at < end {
            let count = (LIST_MAX as u64 - at % LIST_MAX as u64).min(end - at);
            f(at, count)?;
            at += count;
        }
        Ok(())
    }
}

impl Work for Indirect<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let (rig, page) = (self.rig, self.rig.page());
        for container in &rig.containers {
            self.each(|first, count| {
                let list = self.lists.pages(first, count);
                let to = Ioba(rig.start.0 + (first << page.get()));
                let at = Instant::now();
                let done = container.map_list(to, list, Perm::READ_WRITE, Mode::Refuse)?;
                meters.map.record(ns(at), done.tces);
                meters.count(&done);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            self.each(|first, count| unmap(self.rig, container, (first, count), meters))?;
        }
        Ok(())
    }

    fn mapped(&self) -> (u64, u64) {
        (self.share.first, self.share.first + self.share.count)
    }
}

/// Single pages, as a NIC's receive ring: bursts of maps at the head, of unmaps at the tail, a
/// ring's length apart, sweeping over the share.
pub struct Ring<'a> {
    /// The machine.
    pub rig: &'a Rig,
    /// The thread's pages.
    pub share: Share,
    /// Pages mapped and unmapped since the start.
    pub head: u64,
    /// Pages unmapped since the start.
    pub tail: u64,
}

impl Ring<'_> {
    /// Calls timed together: one call takes about as long as reading the clock.
    const BURST: u64 = 16;
    /// Outstanding pages.
    const LENGTH: u64 = 256;
    /// Bursts in one turn.
    const TURN: u64 = 256;

    fn length(&self) -> u64 {
        Self::LENGTH.min(self.share.count / 2).max(1)
    }

    /// The window page of the `n`th map.
    fn place(&self, n: u64) -> u64 {
        self.share.first + n % self.share.count
    }

    fn unmap_burst(&mut self, meters: &mut Meters, count: u64) -> anyhow::Result<()> {
        let (rig, page) = (self.rig, self.rig.page());
        for container in &rig.containers {
            let mut tces = 0;
            let at = Instant::now();
            for n in self.tail..self.tail + count {
                let from = Ioba(rig.start.0 + (self.place(n) << page.get()));
                let done = container.unmap(from, page.bytes())?;
                tces += done.tces;
                meters.kills += done.kills;
            }
            meters.unmap.record_group(ns(at), count, tces);
            meters.tces_written += tces;
        }
        self.tail += count;
        Ok(())
    }
}

impl Work for Ring<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let (rig, page) = (self.rig, self.rig.page());
        let burst = Self::BURST.min(self.length());
        for _ in 0..Self::TURN {
            if self.head + burst - self.tail > self.length() {
                let over = self.head + burst - self.tail - self.length();
                self.unmap_burst(meters, over)?;
            }
            for container in &rig.containers {
                let mut tces = 0;
                let at = Instant::now();
                for n in self.head..self.head + burst {
                    let place = self.place(n);
                    let to = Ioba(rig.start.0 + (place << page.get()));
                    let memory = rig.buffer.page(place, page);
                    let (perm, mode) = (Perm::READ_WRITE, Mode::Refuse);
                    let done = container.map(to, memory, page.bytes(), perm, mode)?;
                    tces += done.tces;
                    meters.kills += done.kills;
                }
                meters.map.record_group(ns(at), burst, tces);
                meters.tces_written += tces;
            }
            self.head += burst;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        while self.tail < self.head {
            let count = Self::BURST.min(self.head - self.tail);
            self.unmap_burst(meters, count)?;
        }
        Ok(())
    }

    /// May end beyond the share: then it goes on at its start.
    fn mapped(&self) -> (u64, u64) {
        let first = self.place(self.tail);
        (first, first + (self.head - self.tail))
    }
}

/// The bulk work by the naive peer.
pub struct Naive<'a> {
    /// The machine that is imitated.
    pub rig: &'a Rig,
    /// One table for each container.
    pub tables: Arc<Vec<NaiveTable>>,
    /// The thread's pages.
    pub share: Share,
}

impl Work for Naive<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let page = self.rig.page();
        for table in self.tables.iter() {
            Bulk::runs(self.rig, self.share, |first, count| {
                let offset = self.rig.buffer.page(first, page).0 - self.rig.buffer.start().0;
                let at = Instant::now();
                let live = table.map(first, count, offset);
                meters.map.record(ns(at), count);
                ensure!(live == 0, "the naive table had {live} live entries before a map");
                Ok(())
            })?;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let Share { first, count } = self.share;
        for table in self.tables.iter() {
            let at = Instant::now();
            let live = table.unmap(first, count);
            meters.unmap.record(ns(at), count);
            ensure!(live == count, "the naive table had {live} of {count} entries to unmap");
        }
        Ok(())
    }

    fn mapped(&self) -> (u64, u64) {
        (self.share.first, self.share.first + self.share.count)
    }
}
