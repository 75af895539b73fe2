// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The synthetic run: phases on a mock, a simulated kernel or a real one, each timed on its own
//! threads and then checked page by page.

mod clear;
pub mod exposure;
pub mod lane;
pub mod leave;
pub mod limits;
pub mod lists;
pub mod live;
pub mod machine;
mod mix;
pub(crate) mod model;
pub mod naive;
pub mod pace;
pub mod pair;
pub mod phase;
pub mod proof;
pub mod report;
pub mod rig;
pub mod ring;
pub mod smaps;
pub mod verify;
pub mod work;
