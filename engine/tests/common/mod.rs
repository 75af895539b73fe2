// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fixtures of the integration tests: a rig that looks for leaks when it goes, and a back end that
//! can be told to fail or to watch.

#![allow(dead_code)] // every test binary uses its own part

pub(crate) mod guest;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tce_engine::addr::{GroupId, Hpa, Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::layout::RealLayout;
use tce_engine::backend::linux::mock_kernel::MockKernel;
use tce_engine::backend::linux::{Linux, LinuxOptions};
use tce_engine::backend::mock::{Fault, Mock, MockBuilder, MockEvent};
use tce_engine::backend::{
    Backend, Caps, FillRule, GroupCaps, KillCaps, KillPort, KillScope, Memory, WindowProgram,
};
use tce_engine::container::Container;
use tce_engine::eeh::{EehOp, EehState};
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::error::BackendError;
use tce_engine::mem::{TableChunk, TableMemory};
use tce_engine::tce::Perm;

pub(crate) const K: u64 = 1 << 10;
pub(crate) const M: u64 = 1 << 20;
pub(crate) const G: u64 = 1 << 30;
pub(crate) const T: u64 = 1 << 40;

pub(crate) const G0: GroupId = GroupId(0);
pub(crate) const G1: GroupId = GroupId(1);
pub(crate) const G2: GroupId = GroupId(2);
pub(crate) const SECOND: Ioba = Ioba(1 << 59);

/// Ends the threads of a test, also if it fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A PHB3, or one that caches no empty entry.
pub(crate) fn phb3(on_fill: bool) -> KillCaps {
    let fill = if on_fill { FillRule::Always } else { FillRule::Never };
    KillCaps { fill, ..KillCaps::PHB3 }
}

/// An engine on a simulated kernel with two groups.
pub(crate) fn on_a_kernel() -> Engine {
    on_a_kernel_with(EngineOptions::default())
}

pub(crate) fn on_a_kernel_with(options: EngineOptions) -> Engine {
    let process = MockKernel::builder(2).build().process();
    Engine::new(Linux::new(process, LinuxOptions::default()), options)
}

/// Words stored to kill registers since the last look, and of which PE.
pub(crate) fn kill_words(rig: &Rig) -> Vec<(u16, u64)> {
    let word = |event| match event {
        MockEvent::Kill(PeNumber(pe), word) => Some((pe, word)),
        _ => None,
    };
    rig.mock.take_events().into_iter().filter_map(word).collect()
}

/// A mock, what stands between it and the engine, and the engine. Declared before containers, it
/// goes after them, and then nothing may be left.
pub(crate) struct Rig {
    pub(crate) mock: Arc<Mock>,
    pub(crate) faulty: Arc<FaultyBackend>,
    pub(crate) engine: Engine,
}

impl Rig {
    pub(crate) fn new(builder: MockBuilder) -> Self {
        Self::with(builder, EngineOptions::default())
    }

    pub(crate) fn with(builder: MockBuilder, options: EngineOptions) -> Self {
        let mock = builder.build();
        let faulty = Arc::new(FaultyBackend::new(mock.clone()));
        let engine = Engine::new(faulty.clone(), options);
        Self { mock, faulty, engine }
    }

    /// A container with these groups.
    pub(crate) fn container(&self, groups: &[GroupId]) -> Container {
        let container = self.engine.container();
        for group in groups {
            container.attach(*group).unwrap();
        }
        container
    }

    pub(crate) fn pages(&self) -> u64 {
        let entries = self.engine.ledger().entries();
        let sum = entries.iter().map(|e| e.pages).sum::<u64>();
        assert_eq!(sum, self.engine.ledger().pages(), "the total is the sum of the entries");
        sum
    }

    /// Drops what was recorded so far.
    pub(crate) fn forget_events(&self) {
        drop(self.mock.take_events());
    }

    /// Nothing pinned, no table, no window, no charge, and every PE is the host's.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.mock.leftovers(), (0, 0, 0), "pinned, tables, windows");
        assert_eq!(self.mock.taken(), 0, "PEs that the host did not get back");
        assert_eq!(self.pages(), 0, "{:?}", self.engine.ledger().entries());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_empty();
        }
    }
}

/// What a page of bus space leads to, as the PHB sees it: the owning memory's address and what the
/// device may do. Any fault but an empty entry or an absent level is a mistake.
pub(crate) fn reach(mock: &Mock, pe: u16, at: Ioba) -> Option<(u64, Perm)> {
    match mock.probe(PeNumber(pe), at) {
        Ok(found) => {
            let (memory, offset) = mock.owner(found.at).expect("translated to pinned memory");
            Some((memory.start() + offset, found.perm))
        }
        Err(Fault::Empty { .. } | Fault::NoLevel { .. }) => None,
        Err(other) => panic!("PE {pe} at {at}: {other:?}"),
    }
}

/// Live entries of a container that point into the region at `start`.
pub(crate) fn mapped(container: &Container, start: Uaddr) -> u64 {
    let regions = container.regions();
    regions.iter().find(|r| r.memory.start() == start.0).expect("the region").mapped
}

/// What a [`FaultyBackend`] tells its watcher, before it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Take(GroupId),
    Kill(GroupId, KillScope),
    Fence,
    Set(GroupId, usize),
    Unset(GroupId, usize),
    Release(GroupId),
    FreeTable,
    Unpin(Memory),
}

type Watcher = Box<dyn Fn(Step) + Send + Sync>;

/// The mock, with calls that fail on demand and a watcher.
pub(crate) struct FaultyBackend {
    mock: Arc<Mock>,
    take: AtomicI64,
    set_window: Mutex<Option<(u32, i64)>>,
    table_chunks: AtomicI64,
    pin: Mutex<bool>,
    eeh: Mutex<Option<GroupId>>,
    watcher: OnceLock<Watcher>,
}

impl FaultyBackend {
    pub(crate) fn new(mock: Arc<Mock>) -> Self {
        Self {
            mock,
            take: AtomicI64::new(0),
            set_window: Mutex::new(None),
            table_chunks: AtomicI64::new(i64::MAX),
            pin: Mutex::new(false),
            eeh: Mutex::new(None),
            watcher: OnceLock::new(),
        }
    }

    /// The `nth` take_ownership from now, 1 = the next, is refused; once.
    pub(crate) fn fail_take(&self, nth: i64) {
        self.take.store(nth, Ordering::SeqCst);
    }

    /// The `nth` set_window from now, 1 = the next, fails with firmware's `code`; once.
    pub(crate) fn fail_set_window(&self, nth: u32, code: i64) {
        *self.set_window.lock().unwrap() = Some((nth, code));
    }

    /// Table memory ends after so many more chunks.
    pub(crate) fn allow_chunks(&self, chunks: i64) {
        self.table_chunks.store(chunks, Ordering::SeqCst);
    }

    /// Pinning fails from now on, or works again.
    pub(crate) fn fail_pin(&self, yes: bool) {
        *self.pin.lock().unwrap() = yes;
    }

    /// Error handling of this group fails from now on, or works again for all.
    pub(crate) fn fail_eeh(&self, group: Option<GroupId>) {
        *self.eeh.lock().unwrap() = group;
    }

    fn refuse_eeh(&self, group: GroupId, request: &'static str) -> Result<(), BackendError> {
        match *self.eeh.lock().unwrap() {
            Some(bad) if bad == group => {
                Err(BackendError::Eeh { group, request, reason: "injected".to_owned() })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn watch(&self, watcher: impl Fn(Step) + Send + Sync + 'static) {
        assert!(self.watcher.set(Box::new(watcher)).is_ok(), "one watcher");
    }

    fn tell(&self, step: Step) {
        if let Some(watcher) = self.watcher.get() {
            watcher(step);
        }
    }
}

impl fmt::Debug for FaultyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyBackend({:?})", self.mock)
    }
}

impl TableMemory for FaultyBackend {
    fn reserve_table(&self, bytes: u64) -> Result<Hpa, BackendError> {
        self.mock.reserve_table(bytes)
    }

    fn back_table(&self, at: Hpa, chunk: Arc<TableChunk>) -> Result<(), BackendError> {
        if self.table_chunks.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.table_chunks.store(0, Ordering::SeqCst);
            let bytes = chunk.bytes() as u64;
            return Err(BackendError::NoTableMemory { bytes, reason: "injected".to_owned() });
        }
        self.mock.back_table(at, chunk)
    }

    fn free_table(&self, at: Hpa) {
        self.tell(Step::FreeTable);
        self.mock.free_table(at);
    }
}

impl Backend for FaultyBackend {
    fn caps(&self) -> Caps {
        self.mock.caps()
    }

    fn group(&self, group: GroupId) -> Result<GroupCaps, BackendError> {
        self.mock.group(group)
    }

    fn take_ownership(&self, group: GroupId) -> Result<(), BackendError> {
        self.tell(Step::Take(group));
        if self.take.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(BackendError::GroupBusy(group));
        }
        self.mock.take_ownership(group)
    }

    fn release_ownership(&self, group: GroupId) {
        self.tell(Step::Release(group));
        self.mock.release_ownership(group);
    }

    fn set_window(
        &self,
        group: GroupId,
        slot: usize,
        window: &WindowProgram,
    ) -> Result<(), BackendError> {
        self.tell(Step::Set(group, slot));
        let mut plan = self.set_window.lock().unwrap();
        if let Some((nth, code)) = plan.take() {
            if nth == 1 {
                return Err(BackendError::Firmware { group, slot, code });
            }
            *plan = Some((nth - 1, code));
        }
        self.mock.set_window(group, slot, window)
    }

    fn unset_window(&self, group: GroupId, slot: usize) {
        self.tell(Step::Unset(group, slot));
        self.mock.unset_window(group, slot);
    }

    fn kill(&self, group: GroupId, scope: KillScope) -> u64 {
        self.tell(Step::Kill(group, scope));
        self.mock.kill(group, scope)
    }

    fn fence(&self) {
        self.tell(Step::Fence);
        self.mock.fence();
    }

    fn eeh(&self, group: GroupId, op: EehOp) -> Result<(), BackendError> {
        self.refuse_eeh(group, op.name())?;
        self.mock.eeh(group, op)
    }

    fn eeh_state(&self, group: GroupId) -> Result<EehState, BackendError> {
        self.refuse_eeh(group, "state")?;
        self.mock.eeh_state(group)
    }

    fn kill_port(self: Arc<Self>, members: &[GroupId]) -> Option<Box<dyn KillPort>> {
        // A watcher sees the shared way only.
        if self.watcher.get().is_some() { None } else { self.mock.clone().kill_port(members) }
    }

    fn pin(&self, memory: Memory) -> Result<RealLayout, BackendError> {
        if *self.pin.lock().unwrap() {
            let (at, bytes) = (memory.start(), memory.bytes());
            return Err(BackendError::Pin { at, bytes, reason: "injected".to_owned() });
        }
        self.mock.pin(memory)
    }

    fn unpin(&self, memory: Memory, layout: &RealLayout) {
        self.tell(Step::Unpin(memory));
        self.mock.unpin(memory, layout);
    }
}

/// What a thread did while another was in the midst of something.
pub(crate) struct Meanwhile<T> {
    peer: Arc<Mutex<Option<JoinHandle<T>>>>,
    early: Arc<AtomicBool>,
}

impl<T> Meanwhile<T> {
    /// What came of it, and whether it was over before the other went on.
    pub(crate) fn end(self) -> (T, bool) {
        let peer = self.peer.lock().unwrap().take().expect("the step was taken");
        let ended = peer.join().unwrap();
        (ended, self.early.load(Ordering::SeqCst))
    }
}

/// Watches for a step: there, once, `peer` gets a thread and a moment in which nothing else happens.
pub(crate) fn meanwhile<T: Send + 'static>(
    rig: &Rig,
    at: impl Fn(Step) -> bool + Send + Sync + 'static,
    peer: impl FnOnce() -> T + Send + 'static,
) -> Meanwhile<T> {
    let waiting = Mutex::new(Some(peer));
    let (thread, early) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
    let meanwhile = Meanwhile { peer: thread.clone(), early: early.clone() };
    rig.faulty.watch(move |step| {
        if !at(step) {
            return;
        }
        // Only the first time: what the peer does may be watched as well.
        let Some(peer) = waiting.lock().unwrap().take() else { return };
        let (over, is_over) = mpsc::channel();
        let handle = thread::spawn(move || {
            let ended = peer();
            // Nobody waits any more if it took long.
            let _ = over.send(());
            ended
        });
        let soon = is_over.recv_timeout(Duration::from_millis(200)).is_ok();
        early.store(soon, Ordering::SeqCst);
        *thread.lock().unwrap() = Some(handle);
    });
    meanwhile
}

/// Parses a size such as `16M`, `8.125MB` or `64KB` in bytes, or `8K` as a number.
pub(crate) fn parse_size(text: &str) -> f64 {
    let text = text.trim_end_matches('B');
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let scale = match &text[unit..] {
        "" => 1,
        "K" => K,
        "M" => M,
        "G" => G,
        "T" => T,
        other => panic!("unit {other}"),
    };
    text[..unit].parse::<f64>().unwrap() * scale as f64
}

pub(crate) fn page(shift: u32) -> PageShift {
    PageShift::new(shift).unwrap()
}
