// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the engine's interface does, in one program: linking one for each file took longer than the tests.
//! Beside it are those that need a process, an allocator, a feature or a `main` of their own.

mod common;

mod batch;
mod blackbox_geometry;
mod blackbox_papr;
mod blackbox_papr_compat;
mod blackbox_papr_model;
mod blackbox_papr_multi;
mod blackbox_papr_pages;
mod blackbox_table;
mod container;
mod deal;
#[path = "debts/main.rs"]
mod debts;
mod design;
mod dma_mask;
mod eeh;
mod exposure;
#[path = "faults/main.rs"]
mod faults;
mod ioba;
#[path = "isolate/main.rs"]
mod isolate;
mod kernel_model;
mod mapper;
mod mapping;
mod mapping_model;
mod platforms;
mod registration;
mod review;
mod seed_patch;
mod seed_patch_kernel;
