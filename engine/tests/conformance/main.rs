// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One list of cases for every kernel: what its containers answer to raw requests, and what the
//! engine makes of the same situation.
//!
//!     conformance [--backend mock-kernel|vfio] [--profile NAME] [--platform NAME]
//!                 [--host-page 4K|64K] [--column raw|engine] [--json FILE] [--list] [ID...]
//!
//! Of simulated kernels there are several; without `--profile`, all cases run on k6_11, which is also
//! what a real one is expected to be, and those of the letters D to I on each of the others.
//!
//! `ID` is a case (`F12`) or a letter (`F`). On a real kernel each column of a case runs in a process
//! of its own, since charges and leaks last as long as a process. Exit status: 0 all passed; 1 some
//! failed; 2 wrong usage; 4 this machine has no containers.

#[cfg(not(any(loom, miri)))]
mod case;
#[cfg(not(any(loom, miri)))]
mod cases;
#[cfg(not(any(loom, miri)))]
mod ct;
#[cfg(not(any(loom, miri)))]
mod ctx;
#[cfg(not(any(loom, miri)))]
mod device;
#[cfg(not(any(loom, miri)))]
mod kernels;
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
