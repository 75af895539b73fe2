// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One list of cases for every kernel: what its containers answer to raw requests, and what the
//! engine makes of the same situation.
//!
//!     conformance [--backend mock-kernel|vfio] [--host-page 4K|64K] [--column raw|engine]
//!                 [--json FILE] [--list] [ID...]
//!
//! `ID` is a case (`F12`) or a letter (`F`). On a real kernel each column of a case runs in a process
//! of its own, since charges and leaks last as long as a process. Exit status: 0 all passed; 1 some
//! failed; 2 wrong usage; 4 this machine has no containers.

#[cfg(not(any(loom, miri)))]
mod case;
#[cfg(not(any(loom, miri)))]
mod cases;
#[cfg(not(any(loom, miri)))]
mod ctx;
#[cfg(not(any(loom, miri)))]
mod device;
#[cfg(not(any(loom, miri)))]
mod options;
#[cfg(not(any(loom, miri)))]
mod other;
#[cfg(not(any(loom, miri)))]
mod report;
#[cfg(not(any(loom, miri)))]
mod rig;
#[cfg(not(any(loom, miri)))]
mod run;
#[cfg(not(any(loom, miri)))]
mod spy;

#[cfg(not(any(loom, miri)))]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(any(loom, miri))]
fn main() {}
