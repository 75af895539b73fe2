// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The benchmark around `tce-engine`: what `tce-bench` runs, measures, checks and writes.

#[cfg(feature = "program")]
pub mod cli;
pub mod clock;
#[cfg(feature = "program")]
pub mod cmd;
pub mod columns;
pub mod cpus;
#[cfg(feature = "program")]
pub mod edu;
#[cfg(test)]
mod fixtures;
#[doc(hidden)]
#[cfg(feature = "program")]
pub mod fuzz;
pub mod hist_io;
pub mod host;
#[cfg(feature = "program")]
pub mod interrupt;
#[cfg(feature = "program")]
pub mod kernel;
pub mod loops;
pub mod mix;
#[cfg(feature = "program")]
pub mod outfile;
pub mod policy;
pub mod profile;
pub mod recorder;
pub mod result;
#[cfg(feature = "program")]
pub mod run;
pub mod size;
#[cfg(feature = "program")]
pub mod slow;
pub mod stamp;
#[cfg(feature = "program")]
pub mod steps;
pub mod style;
pub mod timeline;
#[cfg(feature = "program")]
pub mod trace;
#[cfg(feature = "program")]
pub mod workload;

/// The README's examples of the library are tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
