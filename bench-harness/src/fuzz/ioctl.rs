// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Calls of the engine over a kernel whose requests fail in whatever way the bytes say: before they
//! arrive, with a part of them done, or with all of it done and the answer lost. However often that
//! happens, the books are the kernel's, and nothing is left in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::linux::faulty::{Faults, FaultyHost, Outcome, Row};
use tce_engine::backend::linux::mock_kernel::{Leftovers, MockKernel, Process, Profile};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::eeh::EehOp;
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

use super::Bytes;

const GROUPS: u32 = 3;
const PAGE: u64 = 4 << 10;
const MEMORY: [Uaddr; 2] = [Uaddr(0x7f00_0000_0000), Uaddr(0x7f00_1000_0000)];
const BYTES: u64 = 1 << 20;
const SECOND: u64 = 1 << 59;
/// Most calls of one input.
const CALLS: usize = 64;

/// A kernel, a version and a policy; then calls, and for each request that one makes, what becomes of it.
///
/// Of a call's requests any number fail if what undoes it is the end of a container of the kernel's: where a
/// group joins or leaves, and with version 1. Of other calls one does. These kernels are none of those tried:
///
/// * One that refuses to take back what it has just given (REMOVE, UNREGISTER, UNMAP), or to give again what it
///   has just taken: it is beyond help, as `Space::take_back_window` and `container::publish` say.
/// * One that at the end refuses UNMAP and REMOVE of a window, and then has its memory unregistered: from 5.0 on
///   Linux orphans memory that is mapped.
/// * One that says EBUSY of memory which it then gives back with the container: for 4.9 to 4.20 that is how
///   memory is told which never comes back.
///
/// # Panics
/// If the books differ from the kernel's, or if something is left.
pub fn ioctl(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let profile = bytes.of(&[Profile::K6_11, Profile::K6_4, Profile::PSERIES]);
    let (version, detach) = bytes.of(&[
        (Version::V2, DetachPolicy::Isolate),
        (Version::V2, DetachPolicy::Replay),
        (Version::V2, DetachPolicy::RefuseWhileShared),
        (Version::V1, DetachPolicy::Isolate),
    ]);
    let machine = MockKernel::builder(GROUPS).profile(profile);
    let kernel = machine.platform(profile.usual_platform()).build();
    let process = kernel.process();
    let answers = Arc::new(Answers::new(version, bytes.rest()));
    let host = FaultyHost::new(process.clone(), answers.clone(), PageShift::K4);
    let options = LinuxOptions { version, ..LinuxOptions::default() };
    let backend = Linux::new(Arc::new(host), options);
    let engine = Engine::new(backend, EngineOptions { detach, ..EngineOptions::default() });
    let container = engine.container();
    for _ in 0..CALLS {
        if answers.is_empty() {
            break;
        }
        call(&container, &answers, detach);
        check(&engine, &kernel, &process);
    }
    // Those who leave may still fail.
    answers.begin(true);
    drop(container);
    check(&engine, &kernel, &process);
    let ledger = engine.ledger().pages();
    assert_eq!((ledger, process.locked_bytes()), (0, 0), "{:?}", engine.ledger().entries());
    assert_eq!(kernel.leftovers(), Leftovers::default());
}

/// One call, done or refused.
fn call(container: &Container, bytes: &Answers, detach: DetachPolicy) {
    let version = bytes.version;
    let group = |nth: u8| GroupId(u32::from(nth) % GROUPS);
    let memory = |nth: u8| MEMORY[usize::from(nth) % MEMORY.len()];
    // Pages at the two ends of a leaf of the first window, and of the second one's begin.
    let place = |nth: u8| {
        let start = if nth & 0x80 == 0 { 0 } else { SECOND };
        start + u64::from(nth & 0x7f) * 16 * PAGE
    };
    let pages = |nth: u8| u64::from(nth % 32 + 1);
    let mode = |nth: u8| if nth & 0x80 == 0 { Mode::Refuse } else { Mode::Replace };
    let size = if version == Version::V1 { 2 << 30 } else { 512 << 20 };
    let (what, a, b) = (bytes.next(), bytes.next(), bytes.next());
    bytes.begin(match what % 12 {
        0 => true,
        // The windows of those that stay are filled again.
        1 => detach != DetachPolicy::Replay,
        _ => version == Version::V1,
    });
    match what % 12 {
        0 => drop(container.attach(group(a))),
        1 => drop(container.detach(group(a))),
        2 => drop(container.register(memory(a), BYTES)),
        3 => drop(container.unregister(memory(a), BYTES)),
        4 => {
            let levels = if version == Version::V1 { 1 } else { 1 + u32::from(a % 2) };
            drop(container.create_window(WindowSpec::new(size, PageShift::K4).levels(levels)));
        }
        5 => {
            let start = Ioba(if a & 1 == 0 { 0 } else { SECOND });
            let removal = if a & 2 == 0 { Removal::Force } else { Removal::IfUnmapped };
            drop(container.remove_window(start, removal));
        }
        6..9 => {
            let (at, from) = (Ioba(place(a)), memory(b >> 6));
            let bytes = pages(b) * PAGE;
            drop(container.map(at, from, bytes, Perm::READ_WRITE, mode(what)));
        }
        9..11 => drop(container.unmap(Ioba(place(a)), pages(b) * PAGE)),
        _ => drop(container.eeh_of(group(a), EehOp::Enable)),
    }
}

/// What the engine thinks that it pays for is what the kernel keeps.
fn check(engine: &Engine, kernel: &MockKernel, process: &Process) {
    let (ledger, books) = (engine.ledger(), process.books());
    assert_eq!(books.sum(), books.locked, "{books:?}");
    assert_eq!(books.leaked, 0, "{books:?}");
    let entries = ledger.entries();
    assert_eq!(entries.iter().map(|entry| entry.pages).sum::<u64>(), ledger.pages());
    assert_eq!(books.locked, ledger.pages(), "VmLck and ledger: {books:?} {entries:?}");
    assert_eq!(kernel.damage(), []);
}

/// Bytes that calls and requests take in turn.
#[derive(Debug)]
struct Answers {
    version: Version,
    bytes: Vec<u8>,
    taken: AtomicUsize,
    /// Any number of this call's requests may fail.
    several: AtomicBool,
    /// One has failed.
    failed: AtomicBool,
}

impl Answers {
    fn new(version: Version, bytes: &[u8]) -> Self {
        let (taken, several, failed) = Default::default();
        Self { version, bytes: bytes.to_vec(), taken, several, failed }
    }

    /// A call begins, of whose requests one may fail, or several.
    fn begin(&self, several: bool) {
        self.several.store(several, Ordering::Relaxed);
        self.failed.store(false, Ordering::Relaxed);
    }

    fn is_empty(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.bytes.len()
    }

    /// 0 after the last.
    fn next(&self) -> u8 {
        self.bytes.get(self.taken.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or(0)
    }
}

impl Faults for Answers {
    /// Most requests are up to the kernel.
    fn outcome(&self, request: &Row, pages: u64) -> Option<Outcome> {
        let again = match request.site {
            "TCE_REMOVE" | "UNMAP_DMA" | "UNREGISTER_MEMORY" => self.version == Version::V1,
            _ => self.several.load(Ordering::Relaxed),
        };
        if self.failed.load(Ordering::Relaxed) && !again {
            return None;
        }
        let nth = usize::from(self.next() % 32).checked_sub(32 - Outcome::EVERY.len())?;
        let lies = |outcome| outcome == Outcome::Ebusy && request.site == "UNREGISTER_MEMORY";
        let possible = |outcome: &Outcome| request.can(*outcome, pages) && !lies(*outcome);
        let outcome = Some(Outcome::EVERY[nth]).filter(possible);
        self.failed.fetch_or(outcome.is_some(), Ordering::Relaxed);
        outcome
    }
}
