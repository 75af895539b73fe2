// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the benches share.

#![allow(dead_code)] // each bench uses its own part

pub(crate) mod allocs;
pub(crate) mod args;
#[cfg(target_arch = "x86_64")]
pub(crate) mod counted;
pub(crate) mod facts;
pub(crate) mod limit;
pub(crate) mod peers;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod rig;
pub(crate) mod samples;
#[cfg(target_arch = "x86_64")]
pub(crate) mod stepper;
