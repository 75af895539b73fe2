// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One page a call: as a ring does, and as a user does that knows nothing of coalescing.

use std::time::Instant;

use tce_engine::container::{Mapper, Mode};
use tce_engine::tce::Perm;

use super::rig::Rig;
use super::work::{Meters, Share, Work, ns, unmap};
use crate::interrupt::interrupted;
use crate::policy::Policy;

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
    /// A handle of each container, where a policy for handles is asked for, and its calls of this batch.
    handles: Vec<(Mapper, u64)>,
    /// Calls of a batch.
    batch: Option<u64>,
}

impl<'a> Ring<'a> {
    pub(super) fn new(rig: &'a Rig, share: Share, policy: Policy) -> Self {
        let with_handles = policy != Policy::Strict;
        let handles = rig.containers.iter().filter(|_| with_handles);
        let handles = handles.map(|container| (container.mapper(), 0)).collect();
        Self { rig, share, head: 0, tail: 0, handles, batch: policy.calls() }
    }
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

    /// A call was made; it may have been the last of a batch.
    fn called(&mut self, nth: usize, meters: &mut Meters) {
        let Some((handle, calls)) = self.handles.get_mut(nth) else { return };
        *calls += 1;
        if self.batch.is_some_and(|batch| *calls >= batch) {
            *calls = 0;
            meters.submitted(handle.submit());
        }
    }

    fn unmap_burst(&mut self, meters: &mut Meters, count: u64) -> anyhow::Result<()> {
        let (rig, page) = (self.rig, self.rig.page());
        for (nth, container) in rig.containers.iter().enumerate() {
            let (mut tces, kills) = (0, meters.unmap_io.kills);
            let at = Instant::now();
            for n in self.tail..self.tail + count {
                let bus = container.bus(self.place(n));
                let done = match self.handles.get_mut(nth) {
                    Some((handle, _)) => handle.unmap(bus, page.bytes()),
                    None => container.unmap(bus, page.bytes()),
                }?;
                tces += done.tces;
                meters.unmapped(&done);
                self.called(nth, meters);
            }
            let took = ns(at);
            meters.unmap.at(at, kills);
            meters.unmap.record_group(took, count, tces);
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
            if interrupted() {
                break;
            }
            if self.head + burst - self.tail > self.length() {
                let over = self.head + burst - self.tail - self.length();
                self.unmap_burst(meters, over)?;
            }
            for (nth, container) in rig.containers.iter().enumerate() {
                let (mut tces, kills) = (0, meters.map_io.kills);
                let at = Instant::now();
                for n in self.head..self.head + burst {
                    let place = self.place(n);
                    let (bus, memory) = (container.bus(place), rig.buffer.page(place, page));
                    let (perm, mode) = (Perm::READ_WRITE, Mode::Refuse);
                    let done = match self.handles.get_mut(nth) {
                        Some((handle, _)) => handle.map(bus, memory, page.bytes(), perm, mode),
                        None => container.map(bus, memory, page.bytes(), perm, mode),
                    }?;
                    tces += done.tces;
                    meters.mapped(&done);
                    self.called(nth, meters);
                }
                let took = ns(at);
                meters.map.at(at, kills);
                meters.map.record_group(took, burst, tces);
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

    fn end(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        self.unmap(meters)?;
        self.handles.iter_mut().for_each(|(handle, _)| meters.submitted(handle.submit()));
        Ok(())
    }

    /// May end beyond the share: then it goes on at its start.
    fn mapped(&self) -> (u64, u64) {
        let first = self.place(self.tail);
        (first, first + (self.head - self.tail))
    }
}

/// The bulk work page by page: what a kernel's container costs a user that does not coalesce.
pub struct Singles<'a> {
    /// The machine.
    pub rig: &'a Rig,
    /// The thread's pages.
    pub share: Share,
}

impl Work for Singles<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let (rig, page) = (self.rig, self.rig.page());
        for container in &rig.containers {
            self.share.runs_until_interrupted(1, 1, |n, _| {
                let (at, memory) = (container.bus(n), rig.buffer.page(n, page));
                let (perm, mode) = (Perm::READ_WRITE, Mode::Refuse);
                meters.time_map(|| container.map(at, memory, page.bytes(), perm, mode)).map(drop)
            })?;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            self.share
                .runs(1, 1, |first, count| unmap(self.rig, container, (first, count), meters))?;
        }
        Ok(())
    }

    fn mapped(&self) -> (u64, u64) {
        self.share.bounds()
    }
}
