// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Work whose instructions and allocations are counted: ready to run, warmed up, one stretch of it
//! between two breakpoints.

use tce_engine::mem::TableChunk;
use tce_engine::{Mode, Perm, Tce, Tier};

use super::allocs::Counting;
use super::peers::{PAGES, RING};
use super::rig::{Guest, LEAF, LIST, PAGE, Rig, Ring, USUAL, WINDOW, lists};
use super::stepper::{Counts, between_breakpoints, count};

/// Single pages in a stretch.
const SINGLES: u64 = 64;
/// Lists in a stretch.
const LISTS: u64 = 16;

/// One stretch of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Fill,
    CheckedFill,
    List,
    Exchange,
    MapOne,
    UnmapOne,
    BulkMap,
    BulkUnmap,
    PutTce,
    StuffTce,
    PutList,
}

/// The loops over one leaf of 8192 entries.
pub(crate) const LOOPS: [Work; 4] = [Work::Fill, Work::CheckedFill, Work::List, Work::Exchange];
/// The calls, end to end.
pub(crate) const CALLS: [Work; 7] = [
    Work::MapOne,
    Work::UnmapOne,
    Work::PutTce,
    Work::StuffTce,
    Work::PutList,
    Work::BulkMap,
    Work::BulkUnmap,
];

impl Work {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::CheckedFill => "checked fill",
            Self::List => "list",
            Self::Exchange => "exchange",
            Self::MapOne => "map of one page",
            Self::UnmapOne => "unmap of one page",
            Self::BulkMap => "map of 2 GiB",
            Self::BulkUnmap => "unmap of 2 GiB",
            Self::PutTce => "H_PUT_TCE",
            Self::StuffTce => "H_STUFF_TCE of one page",
            Self::PutList => "H_PUT_TCE_INDIRECT of 512",
        }
    }

    /// Calls in the stretch; for a loop, entries.
    pub(crate) const fn units(self) -> u64 {
        match self {
            Self::Fill | Self::CheckedFill | Self::List | Self::Exchange => LEAF as u64,
            Self::MapOne | Self::UnmapOne | Self::PutTce | Self::StuffTce => SINGLES,
            Self::PutList => LISTS,
            Self::BulkMap | Self::BulkUnmap => 1,
        }
    }

    /// Instructions for each TCE that a loop of the AVX2 tier may take.
    pub(crate) const fn instruction_budget(self) -> Option<f64> {
        match self {
            Self::Fill => Some(1.05),
            Self::CheckedFill => Some(1.6),
            Self::List => Some(1.85),
            Self::Exchange => Some(2.1),
            _ => None,
        }
    }

    /// Locked instructions that a call for one page may take.
    pub(crate) const fn locked_budget(self) -> Option<f64> {
        match self {
            Self::MapOne | Self::UnmapOne | Self::PutTce | Self::StuffTce => Some(1.0),
            _ => None,
        }
    }

    fn named(name: &str) -> Option<Self> {
        LOOPS.into_iter().chain(CALLS).find(|work| work.name() == name)
    }

    /// Instructions of the stretch on a tier.
    pub(crate) fn count(self, tier: &Tier) -> Result<Counts, String> {
        count(&format!("{}@{}", self.name(), tier.name()))
    }

    /// Does it, with `stretch` around what is to be counted.
    pub(crate) fn run(self, tier: &'static Tier, stretch: &mut dyn FnMut(&mut dyn FnMut())) {
        match self {
            Self::Fill | Self::CheckedFill | Self::List | Self::Exchange => {
                self.run_loop(tier, stretch);
            }
            Self::PutTce | Self::StuffTce | Self::PutList => self.run_guest(tier, stretch),
            Self::MapOne | Self::UnmapOne => self.run_ring(tier, stretch),
            Self::BulkMap | Self::BulkUnmap => {
                let mut rig = Rig::new(WINDOW, USUAL, tier);
                rig.map(0, PAGES, 0, Mode::Refuse);
                rig.unmap(0, PAGES);
                if self == Self::BulkMap {
                    stretch(&mut || rig.map(0, PAGES, 0, Mode::Refuse));
                } else {
                    rig.map(0, PAGES, 0, Mode::Refuse);
                    stretch(&mut || rig.unmap(0, PAGES));
                }
            }
        }
    }

    fn run_loop(self, tier: &'static Tier, stretch: &mut dyn FnMut(&mut dyn FnMut())) {
        let chunk = TableChunk::new(2 << 20).expect("memory for a leaf");
        let slots = &chunk.slots()[..LEAF];
        let words: Vec<_> = lists(PAGES).into_iter().flatten().take(LEAF).collect();
        let values: Vec<_> = words.iter().map(|word| u64::from_be(*word)).collect();
        let first = Tce::new(1 << 30, Perm::READ_WRITE);
        let mut old = vec![0; LEAF];
        match self {
            Self::Fill => stretch(&mut || tier.fill(slots, first, PAGE)),
            Self::CheckedFill => {
                stretch(&mut || assert!(tier.fill_empty(slots, first, PAGE), "it is empty"));
            }
            Self::List => stretch(&mut || assert!(tier.list(slots, &values).live == LEAF as u64)),
            _ => stretch(&mut || tier.exchange(slots, &words, &mut old)),
        }
    }

    /// The ring has turned some times, so what a handle learns it knows.
    fn run_ring(self, tier: &'static Tier, stretch: &mut dyn FnMut(&mut dyn FnMut())) {
        let mut ring = Ring::new(tier);
        for _ in 0..4 * RING {
            ring.unmap();
            ring.map();
        }
        if self == Self::UnmapOne {
            stretch(&mut || (0..SINGLES).for_each(|nth| ring.unmap_nth(nth as usize)));
        } else {
            (0..SINGLES).for_each(|nth| ring.unmap_nth(nth as usize));
            stretch(&mut || (0..SINGLES).for_each(|_| ring.map()));
        }
    }

    fn run_guest(self, tier: &'static Tier, stretch: &mut dyn FnMut(&mut dyn FnMut())) {
        let mut guest = Guest::new(tier);
        let lists = lists(Guest::RAM / PAGE);
        let put = |guest: &mut Guest| {
            for (n, list) in (0..LISTS).zip(&lists) {
                guest.put_list(n * LIST as u64, list);
            }
        };
        put(&mut guest);
        put(&mut guest);
        let one = |guest: &mut Guest, count: u64, tce: u64| {
            for n in 0..count {
                let at = n % SINGLES * PAGE;
                let answer = if tce == 0 {
                    guest.vcpu.stuff_tce(Guest::LIOBN, at, 0, 1)
                } else {
                    guest.vcpu.put_tce(Guest::LIOBN, at, tce)
                };
                assert_eq!(answer.receipt.tces, 1, "{answer:?}");
            }
        };
        let live = 0x1234_5000 | 3;
        for _ in 0..4 {
            one(&mut guest, SINGLES, 0);
            one(&mut guest, SINGLES, live);
        }
        match self {
            Self::PutList => stretch(&mut || put(&mut guest)),
            Self::StuffTce => stretch(&mut || one(&mut guest, SINGLES, 0)),
            _ => {
                one(&mut guest, SINGLES, 0);
                stretch(&mut || one(&mut guest, SINGLES, live));
            }
        }
    }

    /// Allocations in the stretch.
    pub(crate) fn allocations(self, tier: &'static Tier, counting: &Counting) -> u64 {
        let mut found = None;
        self.run(tier, &mut |work| found = Some(counting.during(work)));
        found.expect("the work has a stretch")
    }
}

/// A traced child's work, `NAME@TIER`.
pub(crate) fn child(what: &str) {
    let (name, tier) = what.split_once('@').expect("NAME@TIER");
    let work = Work::named(name).expect("a name that the parent knows");
    let tier = Tier::named(tier).expect("a tier that the parent can run");
    work.run(tier, &mut |work| between_breakpoints(work));
}
