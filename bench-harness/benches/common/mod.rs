// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the benches share.

#![allow(dead_code)] // each bench uses a part of it

pub(crate) mod args;
pub(crate) mod facts;
pub(crate) mod peers;
pub(crate) mod report;
pub(crate) mod rig;
pub(crate) mod samples;
