// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine, the engine on it with a back end that fails, one container, and what should be mapped
//! there. The books are counted anew from what the machine has, never from what the engine says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tce_engine::addr::{GroupId, Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::linux::faulty::FaultyHost;
use tce_engine::backend::linux::mock_kernel::{Injection, Leftovers, MockKernel, Process, Profile};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};
use tce_engine::backend::mock::{Fault as DmaFault, Mock, MockBuilder};
use tce_engine::backend::{Backend, Memory};
use tce_engine::container::{Container, Mapper, WindowInfo};
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::error::LostError;
use tce_engine::geometry::WindowSpec;
use tce_engine::kill::KillPolicy;
use tce_engine::ledger::ChargeKind;
use tce_engine::tce::Perm;

use super::backend::FaultyBackend;
use super::plan::Plan;

pub(crate) const HOST: u64 = 64 << 10;
pub(crate) const PAGE: u64 = 4 << 10;
/// Bus space of one leaf.
pub(crate) const LEAF: u64 = HOST / 8 * PAGE;
pub(crate) const BYTES: u64 = 1 << 20;
pub(crate) const A: Uaddr = Uaddr(0x7f00_0000_0000);
pub(crate) const B: Uaddr = Uaddr(0x7f00_1000_0000);
pub(crate) const GROUPS: [GroupId; 3] = [GroupId(0), GroupId(1), GroupId(2)];
pub(crate) const RW: Perm = Perm::READ_WRITE;

/// What to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The engine owns the tables.
    Phb(KillPolicy),
    /// A kernel does.
    Kernel(Profile, Version, DetachPolicy),
}

enum Machine {
    Phb(Arc<Mock>),
    Kernel(Arc<MockKernel>, Arc<Process>),
}

pub(crate) struct World {
    pub(crate) kind: Kind,
    machine: Machine,
    pub(crate) engine: Engine,
    pub(crate) c: Arc<Container>,
    pub(crate) mapper: Option<Mapper>,
    /// Bus address → memory.
    pub(crate) model: BTreeMap<u64, u64>,
    /// Bus addresses that a request has named.
    touched: BTreeSet<u64>,
    lacks_level: bool,
    /// A kernel found no memory while it mapped. By our reading, it then counts a page too many of the
    /// region, and keeps that, pinned and charged, when it is unregistered.
    doubtful: bool,
}

/// All that a call which failed has to leave as it was, but for what is mapped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Structure {
    groups: Vec<GroupId>,
    windows: Vec<WindowInfo>,
    regions: Vec<Memory>,
    ledger: Vec<(String, u64)>,
}

impl World {
    pub(crate) fn new(kind: Kind, plan: &Arc<Plan>) -> Self {
        let (machine, inner): (_, Arc<dyn Backend>) = match kind {
            Kind::Phb(_) => {
                let mock = MockBuilder::new(3).build();
                (Machine::Phb(mock.clone()), mock)
            }
            Kind::Kernel(profile, version, _) => {
                let machine = MockKernel::builder(3).profile(profile);
                let kernel = machine.platform(profile.usual_platform()).try_build().unwrap();
                let process = kernel.process();
                let host = FaultyHost::new(process.clone(), plan.clone(), PageShift::K4);
                let options = LinuxOptions { version, ..LinuxOptions::default() };
                (Machine::Kernel(kernel, process), Linux::new(Arc::new(host), options))
            }
        };
        let options = match kind {
            Kind::Phb(policy) => EngineOptions { policy, ..EngineOptions::default() },
            Kind::Kernel(.., detach) => EngineOptions { detach, ..EngineOptions::default() },
        };
        let engine = Engine::new(Arc::new(FaultyBackend { inner, plan: plan.clone() }), options);
        let c = Arc::new(engine.container());
        let (model, touched) = (BTreeMap::new(), BTreeSet::new());
        let (lacks_level, doubtful) = (false, false);
        Self { kind, machine, engine, c, mapper: None, model, touched, lacks_level, doubtful }
    }

    /// Levels that a kernel has added to its tables on demand.
    pub(crate) fn levels_made(&self) -> usize {
        match &self.machine {
            Machine::Kernel(kernel, _) => kernel.counters().levels as usize,
            Machine::Phb(_) => 0,
        }
    }

    /// The kernel finds no memory for the nth of them, from 0.
    pub(crate) fn lack_level(&mut self, nth: usize) {
        if let Machine::Kernel(kernel, _) = &self.machine {
            kernel.inject(Injection::Level { nth: nth as u64 + 1 });
            self.lacks_level = true;
        }
    }

    /// True once after it has found none.
    pub(crate) fn lacked_level(&mut self) -> bool {
        let Machine::Kernel(kernel, _) = &self.machine else { return false };
        let left = kernel.take_injections();
        let met = self.lacks_level && left.is_empty();
        left.into_iter().for_each(|injection| kernel.inject(injection));
        self.lacks_level &= !met;
        self.doubtful |= met;
        met
    }

    /// The window that the steps use.
    pub(crate) fn window(&self) -> WindowSpec {
        let (size, levels) = match (&self.machine, self.kind) {
            (_, Kind::Kernel(_, Version::V1, _)) => (2 << 30, 1),
            (Machine::Kernel(kernel, _), _) => (512 << 20, kernel.platform().max_levels().min(2)),
            (Machine::Phb(_), _) => (2 << 30, 2),
        };
        WindowSpec::new(size, PageShift::K4).levels(levels)
    }

    /// A second window can be had, and others may use the first.
    pub(crate) fn is_roomy(&self) -> bool {
        match (&self.machine, self.kind) {
            (_, Kind::Kernel(_, Version::V1, _)) => false,
            (Machine::Kernel(kernel, _), _) => kernel.platform().shares_tables(),
            (Machine::Phb(_), _) => true,
        }
    }

    /// Each member has a container of the kernel's own.
    fn isolates(&self) -> bool {
        matches!(self.kind, Kind::Kernel(.., DetachPolicy::Isolate))
    }

    /// Groups may join a container with windows.
    pub(crate) fn joins_late(&self) -> bool {
        match self.kind {
            Kind::Phb(_) | Kind::Kernel(.., DetachPolicy::Isolate) => true,
            Kind::Kernel(profile, version, _) => {
                version == Version::V2 && profile.late_joiner_gets_windows && self.is_roomy()
            }
        }
    }

    /// A call is about to name these pages.
    pub(crate) fn touch(&mut self, at: u64, pages: u64) {
        // One more: whatever goes astray goes there first.
        self.touched.extend((0..=pages).map(|page| at + page * PAGE));
    }

    pub(crate) fn mapped(&mut self, at: u64, memory: Uaddr, pages: u64) {
        self.model.extend((0..pages).map(|i| (at + i * PAGE, memory.0 + i * PAGE)));
    }

    pub(crate) fn unmapped(&mut self, at: u64, pages: u64) {
        self.model.retain(|page, _| !(at..at + pages * PAGE).contains(page));
    }

    pub(crate) fn structure(&self) -> Structure {
        let entries = self.engine.ledger().entries();
        let mut ledger: Vec<_> =
            entries.iter().map(|e| (format!("{:?}", e.kind), e.pages)).collect();
        ledger.sort();
        Structure {
            groups: self.c.groups(),
            windows: self.c.windows(),
            regions: self.c.regions().iter().map(|r| r.memory).collect(),
            ledger,
        }
    }

    /// Where a group's device gets to.
    fn reach(&self, group: GroupId, at: u64) -> Option<u64> {
        match &self.machine {
            Machine::Kernel(kernel, _) => {
                kernel.translate(group, Ioba(at), Perm::NONE).ok().map(|to| to.at.0)
            }
            Machine::Phb(mock) => match mock.probe(PeNumber(group.0 as u16), Ioba(at)) {
                Ok(found) => {
                    let (memory, offset) = mock.owner(found.at).expect("pinned memory");
                    Some(memory.start() + offset)
                }
                Err(
                    DmaFault::Empty { .. }
                    | DmaFault::NoLevel { .. }
                    | DmaFault::NoWindow { .. }
                    | DmaFault::NotOwned(_),
                ) => None,
                Err(other) => panic!("group {group} at {at:#x}: {other:?}"),
            },
        }
    }

    /// A call has lost entries and says how many. They are exactly those that no member reaches.
    pub(crate) fn take_lost(&mut self, lost: &LostError) {
        let member = self.c.groups()[0];
        let gone: Vec<u64> =
            self.model.keys().copied().filter(|at| self.reach(member, *at).is_none()).collect();
        assert_eq!((gone.len() as u64, gone.first()), (lost.entries, Some(&lost.first.0)));
        self.model.retain(|at, _| !gone.contains(at));
    }

    /// Devices reach the model's pages and nothing else; every region's count is that of its entries;
    /// the ledger is what the machine has.
    pub(crate) fn check(&self) {
        let members = self.c.groups();
        for group in GROUPS {
            for at in &self.touched {
                let wanted = self.model.get(at).copied().filter(|_| members.contains(&group));
                assert_eq!(self.reach(group, *at), wanted, "group {group} at {at:#x}");
            }
        }
        let regions = self.c.regions();
        let here = |start| move |m: &&u64| (start..start + BYTES).contains(*m);
        let held_back = self.mapper.as_ref().map_or(0, Mapper::held_back);
        let counted: u64 = regions.iter().map(|region| region.mapped).sum();
        assert_eq!(counted, self.model.len() as u64 + held_back, "entries counted");
        for region in regions.iter().filter(|_| held_back == 0) {
            let count = self.model.values().filter(here(region.memory.start())).count() as u64;
            assert_eq!(region.mapped, count, "entries into {:?}", region.memory);
            self.check_in_kernel(region.memory, count);
        }
        self.check_ledger();
    }

    /// The kernel counts a region's entries in each of its containers.
    fn check_in_kernel(&self, memory: Memory, count: u64) {
        let Machine::Kernel(_, process) = &self.machine else { return };
        let Kind::Kernel(_, Version::V2, _) = self.kind else { return };
        let containers = if self.isolates() { self.c.groups().len() as u64 } else { 1 };
        let counts = process.region_counts(Uaddr(memory.start()));
        let (counted, wanted) = (counts.unwrap().0, count * containers);
        let right = counted == wanted || self.doubtful && counted == wanted + 1;
        assert!(right, "the kernel counts {counted} entries into {memory:?}, there are {wanted}");
    }

    fn check_ledger(&self) {
        let ledger = self.engine.ledger();
        let entries = ledger.entries();
        assert_eq!(entries.iter().map(|e| e.pages).sum::<u64>(), ledger.pages());
        assert!(entries.iter().all(|e| e.kind != ChargeKind::Leaked), "{entries:?}");
        let (windows, regions) = (self.c.windows(), self.c.regions());
        match &self.machine {
            Machine::Phb(mock) => {
                let tables: u64 = windows.iter().map(|w| w.geometry.charge_pages()).sum();
                let pinned = regions.iter().map(|r| r.memory.bytes() / HOST).sum::<u64>();
                assert_eq!(ledger.pages(), tables + pinned, "{entries:?}");
                let (members, windows) = (self.c.groups().len(), windows.len());
                let left = (regions.len(), windows, windows * members);
                assert_eq!(mock.leftovers(), left, "pinned, tables, windows set");
                assert_eq!(mock.taken(), members, "PEs that the host does not have");
            }
            Machine::Kernel(kernel, process) => {
                let books = process.books();
                assert_eq!(books.sum(), books.locked, "{books:?}");
                assert_eq!(books.leaked, 0, "{books:?}");
                assert_eq!(books.locked, ledger.pages(), "VmLck and ledger: {books:?} {entries:?}");
                let members = self.c.groups().len();
                let containers = if self.isolates() { members } else { members.min(1) };
                assert_eq!(kernel.containers().len(), containers, "open containers");
                assert_eq!(kernel.damage(), []);
            }
        }
    }

    /// Everything goes; nothing may be left.
    pub(crate) fn end(mut self) {
        self.mapper = None;
        self.model.clear();
        drop(std::mem::replace(&mut self.c, Arc::new(self.engine.container())));
        self.check();
        let kept = self.engine.ledger().pages();
        // No more than the regions that a kernel without memory was mapping.
        let regions = self.engine.regions();
        assert!(self.doubtful || regions.is_empty(), "{regions:?}");
        assert!(regions.iter().all(|region| region.containers == 0), "{regions:?}");
        assert_eq!(kept, regions.iter().map(|r| r.memory.bytes() / HOST).sum::<u64>());
        match &self.machine {
            Machine::Phb(mock) => assert_eq!((mock.leftovers(), mock.taken()), ((0, 0, 0), 0)),
            Machine::Kernel(kernel, process) => {
                let left = Leftovers { pinned_pages: kept, ..Leftovers::default() };
                assert_eq!(kernel.leftovers(), left);
                assert_eq!(process.locked_bytes(), kept * HOST);
            }
        }
    }
}
