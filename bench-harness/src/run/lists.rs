// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many single pages in one call: as a list of scattered pages, and as a batch of requests that
//! follow one another.

use std::sync::Arc;

use tce_engine::addr::Uaddr;
use tce_engine::container::{LIST_MAX, MapRequest, Mode, UnmapRequest};
use tce_engine::tce::Perm;

use super::rig::Rig;
use super::work::{Meters, Share, Work, unmap};
use crate::loops::Source;

/// Choices that a seed decides: splitmix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
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
    /// Number of lists: what the copy limit reads is as much.
    pub const COUNT: usize = Source::LISTS;

    /// Seeded choices among all pages of the buffer.
    pub fn new(rig: &Rig, seed: u64) -> Arc<Self> {
        let pages = rig.buffer_pages();
        let mut random = Random::new(seed);
        let mut numbers = || std::array::from_fn(|_| random.below(pages));
        let numbers: Vec<_> = (0..Self::COUNT).map(|_| numbers()).collect();
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

impl Work for Indirect<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            self.share.runs_until_interrupted(LIST_MAX as u64, u64::MAX, |first, count| {
                let list = self.lists.pages(first, count);
                let (at, perm, mode) = (container.bus(first), Perm::READ_WRITE, Mode::Refuse);
                meters.time_map(|| container.map_list(at, list, perm, mode)).map(drop)
            })?;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            self.share.runs(LIST_MAX as u64, u64::MAX, |first, count| {
                unmap(self.rig, container, (first, count), meters)
            })?;
        }
        Ok(())
    }

    fn mapped(&self) -> (u64, u64) {
        self.share.bounds()
    }
}

/// 512 requests in one call, each of a single page, each next to the one before.
pub struct Batch<'a> {
    /// The machine.
    pub rig: &'a Rig,
    /// The thread's pages.
    pub share: Share,
}

impl Work for Batch<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let (rig, page) = (self.rig, self.rig.page());
        let mut requests = Vec::with_capacity(LIST_MAX);
        for container in &rig.containers {
            self.share.runs_until_interrupted(LIST_MAX as u64, u64::MAX, |first, count| {
                requests.clear();
                requests.extend((first..first + count).map(|n| MapRequest {
                    at: container.bus(n),
                    memory: rig.buffer.page(n, page),
                    bytes: page.bytes(),
                    perm: Perm::READ_WRITE,
                }));
                meters.time_map(|| container.map_batch(&requests, Mode::Refuse)).map(drop)
            })?;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let (rig, page) = (self.rig, self.rig.page());
        let mut requests = Vec::with_capacity(LIST_MAX);
        for container in &rig.containers {
            self.share.runs(LIST_MAX as u64, u64::MAX, |first, count| {
                requests.clear();
                let request = |n| UnmapRequest { at: container.bus(n), bytes: page.bytes() };
                requests.extend((first..first + count).map(request));
                meters.time_unmap(|| container.unmap_batch(&requests)).map(drop)
            })?;
        }
        Ok(())
    }

    fn mapped(&self) -> (u64, u64) {
        self.share.bounds()
    }
}
