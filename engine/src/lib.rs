// SPDX-License-Identifier: Apache-2.0 OR MIT
//! x
#![deny(missing_docs)]

pub mod addr;
pub mod backend;
pub mod container;
pub mod engine;
pub mod error;
pub mod geometry;
pub mod kill;
pub mod ledger;
pub mod mem;
pub mod papr;
mod regions;
pub mod simd;
mod sync;
pub mod table;
pub mod tce;
