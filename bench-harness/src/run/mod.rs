// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The synthetic run: four phases on a mock, each timed on its own threads and then checked page
//! by page.

pub mod limits;
pub mod naive;
pub mod phase;
pub mod report;
pub mod rig;
pub mod smaps;
pub mod verify;
pub mod work;
