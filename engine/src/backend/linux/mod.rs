// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Containers of a Linux kernel, which owns the tables and writes the entries itself.

pub mod mock_kernel;
pub mod raw;
pub mod uapi;
pub mod vfio;
