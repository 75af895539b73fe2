// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One page mapped and unmapped again, at an address that the engine picks, through a handle that each
//! thread has for itself.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use tce_engine::addr::{Ioba, Uaddr};
use tce_engine::container::{Mapper, Mode, Receipt};
use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace};
use tce_engine::kill::KillCount;
use tce_engine::tce::Perm;

use super::rig::{Rig, Windowed};
use super::work::{Meters, Share, Work, ns};
use crate::interrupt::interrupted;
use crate::policy::Policy;

/// Pairs timed together: one takes less than reading the clock.
const GROUP: usize = 64;
/// Groups in one turn.
const TURN: usize = 256;

/// An allocator for each container's window.
///
/// # Errors
/// If a window is none that addresses can be had of.
pub(super) fn allocators(rig: &Rig) -> anyhow::Result<Vec<Arc<IobaAllocator>>> {
    let bytes = rig.pages() << rig.page().get();
    let new = |container: &Windowed| {
        let space = IobaSpace { start: container.start, bytes, page: rig.page() };
        Ok(IobaAllocator::new(space, IobaOptions::default())?)
    };
    rig.containers.iter().map(new).collect()
}

/// One thread's way to one container.
struct Handle {
    mapper: Mapper,
    /// Pairs of this batch.
    pairs: usize,
    /// What the calls of a pair come to: these calls themselves do not tell.
    each: Receipt,
    /// Pages that stay mapped after a turn, so that there is something to look at: where, and which
    /// page of the buffer.
    held: Vec<(Ioba, u64)>,
}

/// Pairs.
pub struct Pairs<'a> {
    rig: &'a Rig,
    handles: Vec<Handle>,
    /// Pairs of a batch, if the policy has any.
    batch: Option<usize>,
    /// Pages held at a time.
    hold: usize,
    /// Page of the buffer that comes next.
    next: u64,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(
        rig: &'a Rig,
        share: Share,
        addresses: &[Arc<IobaAllocator>],
        policy: Policy,
    ) -> Self {
        let handle = |(container, addresses): (&Windowed, &_)| Handle {
            mapper: container.mapper().with_addresses(addresses),
            pairs: 0,
            each: Receipt::NONE,
            held: Vec::new(),
        };
        let handles = rig.containers.iter().zip(addresses).map(handle).collect();
        let hold = GROUP.min(share.count as usize);
        let batch = policy.calls().map(|calls| calls.div_ceil(2) as usize);
        Self { rig, handles, batch, hold, next: share.first }
    }

    /// The next so many pages of the buffer.
    fn memory(&mut self, count: usize) -> Vec<(Uaddr, u64)> {
        let (rig, pages) = (self.rig, self.rig.buffer_pages());
        let numbers = (self.next..).take(count).map(|n| n % pages);
        self.next = (self.next + count as u64) % pages;
        numbers.map(|n| (rig.buffer.page(n, rig.page()), n)).collect()
    }
}

impl Handle {
    /// What a map and an unmap of one page come to, from calls that tell.
    fn probe(&mut self, memory: Uaddr, bytes: u64, meters: &mut Meters) -> anyhow::Result<()> {
        // The first calls of a handle look up what later ones know.
        for _ in 0..4 {
            let at = self.mapper.map_alloc(memory, bytes, Perm::READ_WRITE)?;
            let unmapped = self.mapper.unmap(at, bytes)?;
            let mapped = self.mapper.map(at, memory, bytes, Perm::READ_WRITE, Mode::Refuse)?;
            self.mapper.unmap_free(at, bytes)?;
            ensure!(
                (mapped.tces, unmapped.tces) == (1, 1),
                "a page was mapped and unmapped as {} and {} entries",
                mapped.tces,
                unmapped.tces
            );
            for done in [mapped, unmapped] {
                (0..2).for_each(|_| meters.count(&done));
            }
            let (map, unmap) = (mapped.kills, unmapped.kills);
            self.each = Receipt {
                tces: 2,
                kills: KillCount {
                    asked: map.asked + unmap.asked,
                    issued: map.issued + unmap.issued,
                },
                requests: mapped.requests + unmapped.requests,
                ..Receipt::NONE
            };
        }
        Ok(())
    }

    /// What a number of pairs come to, none of which told.
    fn pairs(&self, pairs: u64) -> Receipt {
        let Receipt { tces, kills, requests, .. } = self.each;
        Receipt {
            tces: tces * pairs,
            kills: KillCount { asked: kills.asked * pairs, issued: kills.issued * pairs },
            requests: requests * pairs,
            ..Receipt::NONE
        }
    }
}

impl Work for Pairs<'_> {
    fn begin(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let bytes = self.rig.page().bytes();
        let memory = self.memory(1)[0].0;
        self.handles.iter_mut().try_for_each(|handle| handle.probe(memory, bytes, meters))
    }

    /// A turn of pairs, and then some pages that stay.
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let bytes = self.rig.page().bytes();
        for _ in 0..TURN {
            if interrupted() {
                break;
            }
            let memory = self.memory(GROUP);
            for handle in &mut self.handles {
                let mapper = &mut handle.mapper;
                let at = Instant::now();
                for memory in memory.chunks(self.batch.unwrap_or(GROUP).min(GROUP)) {
                    for (memory, _) in memory {
                        let bus = mapper.map_alloc(*memory, bytes, Perm::READ_WRITE)?;
                        mapper.unmap_free(bus, bytes)?;
                    }
                    handle.pairs += memory.len();
                    if self.batch.is_some_and(|batch| handle.pairs >= batch) {
                        handle.pairs = 0;
                        mapper.submit();
                    }
                }
                let took = ns(at);
                meters.map.at(at, meters.map_io.kills);
                meters.map.record_group(took, GROUP as u64, GROUP as u64);
                meters.mapped(&handle.pairs(GROUP as u64));
            }
        }
        let memory = self.memory(self.hold);
        for handle in &mut self.handles {
            for (memory, number) in memory.iter().copied() {
                let at = handle.mapper.map_alloc(memory, bytes, Perm::READ_WRITE)?;
                handle.held.push((at, number));
            }
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let bytes = self.rig.page().bytes();
        for handle in &mut self.handles {
            meters.count(&handle.pairs(handle.held.len() as u64));
            for (at, _) in std::mem::take(&mut handle.held) {
                handle.mapper.unmap_free(at, bytes)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        self.unmap(meters)?;
        for handle in &mut self.handles {
            handle.mapper.submit();
        }
        Ok(())
    }

    /// No stretch: see [`Work::places`].
    fn mapped(&self) -> (u64, u64) {
        (0, 0)
    }

    fn places(&self) -> Vec<((usize, u64), u64)> {
        let page = self.rig.page().get();
        let mut places = Vec::new();
        for (nth, (handle, window)) in self.handles.iter().zip(&self.rig.containers).enumerate() {
            let index = |at: &Ioba| (at.0 - window.start.0) >> page;
            places.extend(handle.held.iter().map(|(at, number)| ((nth, index(at)), *number)));
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Invocation};
    use crate::result::Verification;
    use crate::run::machine::Machine;
    use crate::run::phase::seen;
    use crate::run::rig::Plan;
    use crate::run::verify::{Content, Model, verify};

    #[test]
    fn a_turn_leaves_as_many_pages_as_it_says_and_counts_every_kill() {
        let line = "tce-bench --backend mock --window 64M --groups 3 --containers 2 --buffer 128K";
        let Ok(Invocation::Run(config)) = cli::parse(line.split(' ')) else { panic!("{line}") };
        let machine = Machine::open(&config, &mut Vec::new()).unwrap();
        let plan = Plan::new(&config, &machine, None).unwrap();
        let rig = Rig::new(&config, &plan, machine).unwrap();
        let is = |work: &Pairs<'_>| {
            let places = Arc::new(work.places().into_iter().collect());
            let model = Model { parts: Vec::new(), content: Content::Places(places) };
            verify(&seen(&rig).unwrap(), &model, &mut Verification::default())
        };
        let addresses = allocators(&rig).unwrap();
        let in_use = || addresses.iter().map(|a| a.in_use()).collect::<Vec<_>>();
        let (share, mut meters) = (Share { first: 0, count: rig.pages() }, Meters::default());
        let mut work = Pairs::new(&rig, share, &addresses, config.policy);
        work.begin(&mut meters).unwrap();
        assert!(is(&work) && work.places().is_empty());
        work.map(&mut meters).unwrap();
        assert_eq!((work.places().len(), in_use()), (2 * GROUP, vec![GROUP as u64; 2]));
        assert!(is(&work));
        let mut other = work.places();
        other[0].1 ^= 1;
        let places = Arc::new(other.into_iter().collect());
        let model = Model { parts: Vec::new(), content: Content::Places(places) };
        assert!(!verify(&seen(&rig).unwrap(), &model, &mut Verification::default()));
        work.end(&mut meters).unwrap();
        assert!(is(&work) && work.places().is_empty());
        assert_eq!(in_use(), [0, 0]);
        let pairs = 2 * (TURN * GROUP) as u64;
        assert_eq!((meters.map.calls(), meters.map.tces()), (pairs, pairs));
        // Four pairs of calls to find out, and those that stayed.
        assert_eq!(meters.tces_written, 2 * pairs + 2 * 4 * 4 + 2 * 2 * GROUP as u64);
        // A kill each for what is filled and for what is cleared, by one PE or two.
        assert_eq!(meters.map_io.kills, (2 + 1) * pairs);
        assert_eq!(meters.kills.issued, rig.machine.register_stores() - rig.setup_stores);
    }
}
