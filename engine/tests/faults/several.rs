// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Failures that follow one another, where one alone would show nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tce_engine::addr::PageShift;
use tce_engine::backend::linux::faulty::{Faults, FaultyHost, Outcome, Row, Site};
use tce_engine::backend::linux::mock_kernel::{Leftovers, MockKernel, Process};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};
use tce_engine::container::Container;
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::geometry::WindowSpec;

use super::world::{A, BYTES, GROUPS};

const WINDOW: WindowSpec = WindowSpec::new(2 << 30, PageShift::K4).levels(1);
const NO_MEMORY: Option<Outcome> = Some(Outcome::Enomem);

/// What becomes of the next calls of these sites, in this order; `None` is up to the kernel.
#[derive(Debug, Default)]
struct InTurn(Mutex<VecDeque<(Site, Option<Outcome>)>>);

impl Faults for InTurn {
    fn outcome(&self, request: &Row, _: u64) -> Option<Outcome> {
        let mut turns = self.0.lock().unwrap();
        turns.pop_front_if(|(site, _)| *site == request.site)?.1
    }
}

/// Version 1 containers.
struct Rig {
    kernel: Arc<MockKernel>,
    process: Arc<Process>,
    faults: Arc<InTurn>,
    engine: Engine,
    c: Container,
}

impl Rig {
    fn new(members: usize) -> Self {
        let kernel = MockKernel::new(GROUPS.len() as u32);
        let (process, faults) = (kernel.process(), Arc::new(InTurn::default()));
        let host = FaultyHost::new(process.clone(), faults.clone(), PageShift::K4);
        let options = LinuxOptions { version: Version::V1, ..LinuxOptions::default() };
        let linux = Linux::new(Arc::new(host), options);
        let detach = DetachPolicy::Isolate;
        let engine = Engine::new(linux, EngineOptions { detach, ..EngineOptions::default() });
        let c = engine.container();
        for group in &GROUPS[..members] {
            c.attach(*group).unwrap();
        }
        c.register(A, BYTES).unwrap();
        Self { kernel, process, faults, engine, c }
    }

    fn then(&self, turns: &[(Site, Option<Outcome>)]) {
        self.faults.0.lock().unwrap().extend(turns);
    }

    /// Everything that was to fail has, and the ledger is what the kernel keeps.
    fn check(&self) {
        assert_eq!(*self.faults.0.lock().unwrap(), []);
        let books = self.process.books();
        let entries = self.engine.ledger().entries();
        assert_eq!(books.locked, self.engine.ledger().pages(), "{books:?} {entries:?}");
    }

    /// A window that was refused can be had now, and all of it is given back.
    fn end(self) {
        self.c.create_window(WINDOW).unwrap();
        self.check();
        drop(self.c);
        assert_eq!((self.process.locked_bytes(), self.engine.ledger().pages()), (0, 0));
        assert_eq!(self.kernel.leftovers(), Leftovers::default());
    }
}

/// DISABLE would give back what ENABLE has charged.
#[test]
fn a_version_1_container_that_can_be_neither_used_nor_disabled() {
    let rig = Rig::new(1);
    let before = rig.engine.ledger().entries();
    rig.then(&[("ENABLE", None), ("UNMAP_DMA", NO_MEMORY), ("DISABLE", NO_MEMORY)]);
    rig.c.create_window(WINDOW).unwrap_err();
    rig.check();
    assert_eq!(rig.engine.ledger().entries(), before);
    assert_eq!(rig.kernel.containers().len(), 1, "it is opened again");
    rig.end();
}

/// The first member's has its window by then, and only its end is rid of that.
#[test]
fn a_version_1_container_whose_window_is_taken_back() {
    let rig = Rig::new(2);
    let before = rig.engine.ledger().entries();
    rig.then(&[("ENABLE", None), ("ENABLE", NO_MEMORY), ("open", NO_MEMORY)]);
    rig.c.create_window(WINDOW).unwrap_err();
    rig.check();
    assert_eq!(rig.engine.ledger().entries(), before);
    // It could not be opened again at once, but can now.
    assert_eq!(rig.kernel.containers().len(), 1);
    assert!(rig.c.eeh_states().unwrap().iter().all(|(_, state)| state.is_ok()));
    assert_eq!(rig.kernel.containers().len(), 2);
    rig.end();
}
