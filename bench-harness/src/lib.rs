// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The benchmark around `tce-engine`: what `tce-bench` runs, measures, checks and writes.

pub mod cli;
pub mod clock;
pub mod cmd;
pub mod columns;
pub mod cpus;
pub mod edu;
#[cfg(test)]
mod fixtures;
#[doc(hidden)]
pub mod fuzz;
pub mod hist_io;
pub mod host;
pub mod interrupt;
pub mod kernel;
pub mod loops;
pub mod mix;
pub mod outfile;
pub mod policy;
pub mod profile;
pub mod recorder;
pub mod result;
pub mod run;
pub mod size;
pub mod slow;
pub mod stamp;
pub mod steps;
pub mod style;
pub mod timeline;
pub mod trace;
pub mod workload;

/// The README's examples of the library are tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
