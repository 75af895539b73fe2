// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An engine in a child process: it refuses to change anything, and its end changes nothing.

#![cfg(not(miri))] // it cannot fork
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::Backend;
use tce_engine::backend::linux::mock_kernel::{MockKernel, Process};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::{Linux, LinuxOptions};
use tce_engine::backend::mock::{Mock, MockBuilder};
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};
use tce_engine::error::{AttachError, ProcessError, RegisterError, UnregisterError, WindowError};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

const A: Uaddr = Uaddr(0x7f00_0000_0000);
const BYTES: u64 = 1 << 20;
const G0: GroupId = GroupId(0);
const G1: GroupId = GroupId(1);

/// Runs `work` in a child process; true if it did not panic. The child ends without any destructor of
/// the test.
fn in_child(work: impl FnOnce()) -> bool {
    // SAFETY: the child has this thread alone. What it uses of the standard library is memory, whose
    // locks glibc holds over the fork, and locks of the engine, which no other thread of this test has.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child");
    if child == 0 {
        let good = catch_unwind(AssertUnwindSafe(work)).is_ok();
        // SAFETY: it ends the process, as nothing after it is to run.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: it writes to `status` alone.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

fn spec() -> WindowSpec {
    WindowSpec::new(1 << 30, PageShift::K4).levels(2)
}

/// An engine with a group, a window, a region and a mapping.
fn begin(backend: Arc<dyn Backend>, detach: DetachPolicy) -> (Engine, Container) {
    let engine = Engine::new(backend, EngineOptions { detach, ..EngineOptions::default() });
    let c = engine.container();
    c.attach(G0).unwrap();
    c.register(A, BYTES).unwrap();
    c.create_window(spec()).unwrap();
    c.map(Ioba(0), A, 8 << 12, Perm::READ_WRITE, Mode::Refuse).unwrap();
    (engine, c)
}

/// Everything that changes structure is refused with both numbers.
fn all_is_refused(engine: &Engine, c: &Container, owner: u32) {
    let caller = std::process::id();
    assert_ne!(caller, owner);
    let error = ProcessError { owner, caller };
    assert_eq!(c.attach(G1), Err(AttachError::Process(error)));
    assert_eq!(c.detach(G0).unwrap_err(), AttachError::Process(error));
    assert_eq!(c.register(Uaddr(A.0 + BYTES), BYTES), Err(RegisterError::Process(error)));
    assert_eq!(c.unregister(A, BYTES), Err(UnregisterError::Process(error)));
    assert_eq!(c.create_window(spec()).unwrap_err(), WindowError::Process(error));
    let removed = c.remove_window(Ioba(0), Removal::Force);
    assert_eq!(removed.unwrap_err(), WindowError::Process(error));
    assert_eq!(c.leave_to_kvm(Ioba(0)), Err(WindowError::Process(error)));
    assert_eq!(engine.deal(&[G1]).unwrap_err(), AttachError::Process(error));
    assert_eq!(engine.container().attach(G1), Err(AttachError::Process(error)));
    let text = error.to_string();
    assert!(text.contains(&owner.to_string()) && text.contains(&caller.to_string()), "{text}");
    c.close();
    assert_eq!((c.groups(), c.windows().len(), c.regions().len()), (vec![G0], 1, 1));
}

fn over_a_kernel(detach: DetachPolicy) {
    let kernel = MockKernel::new(2);
    let process: Arc<Process> = kernel.process();
    let linux = Linux::new(process.clone(), LinuxOptions::default());
    let (engine, c) = begin(linux, detach);
    let (locked, requests) = (process.locked_bytes(), kernel.counters().requests);
    let parent = std::process::id();
    let (mut engine, mut c) = (Some(engine), Some(c));
    assert!(in_child(|| {
        let (engine, c) = (engine.take().unwrap(), c.take().unwrap());
        all_is_refused(&engine, &c, parent);
        drop(c);
        drop(engine);
        // The files are closed, as the child's end would do: the parent has them open. Nothing was asked.
        assert_eq!(kernel.counters().requests, requests);
    }));
    let (engine, c) = (engine.unwrap(), c.unwrap());
    assert_eq!((process.locked_bytes(), kernel.counters().requests), (locked, requests));
    assert_eq!(locked, engine.ledger().pages() << engine.ledger().page().get());
    assert!(kernel.translate(G0, Ioba(0), Perm::READ).is_ok());
    c.attach(G1).unwrap();
    assert!(kernel.translate(G1, Ioba(0), Perm::READ).is_ok());
    c.close();
    assert_eq!((engine.ledger().pages(), process.locked_bytes()), (0, 0));
    assert_eq!(kernel.leftovers(), Default::default());
}

fn over_a_software_phb() {
    let mock: Arc<Mock> = MockBuilder::new(2).build();
    let (engine, c) = begin(mock.clone(), DetachPolicy::default());
    let before = (mock.leftovers(), mock.register_stores(), engine.ledger().pages());
    let parent = std::process::id();
    let (mut engine, mut c) = (Some(engine), Some(c));
    assert!(in_child(|| {
        let (engine, c) = (engine.take().unwrap(), c.take().unwrap());
        all_is_refused(&engine, &c, parent);
        drop(c);
        drop(engine);
        // No window was unset, nothing killed.
        assert_eq!((mock.leftovers().2, mock.register_stores()), (before.0.2, before.1));
    }));
    let (engine, c) = (engine.unwrap(), c.unwrap());
    assert_eq!((mock.leftovers(), mock.register_stores(), engine.ledger().pages()), before);
    c.attach(G1).unwrap();
    c.close();
    assert_eq!((mock.leftovers(), engine.ledger().pages()), ((0, 0, 0), 0));
}

/// One test, so that no other thread of this program works while it forks.
#[test]
fn a_childs_copy_of_an_engine_is_dead() {
    assert!(in_child(|| ()), "a child that does nothing is well");
    assert!(!in_child(|| std::panic::resume_unwind(Box::new(()))), "one that fails is not");
    over_a_kernel(DetachPolicy::Replay);
    over_a_kernel(DetachPolicy::Isolate);
    over_a_software_phb();
}
