// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `tce-bench` does as a user meets it, and what its documents promise, in one program: to link one for
//! each file takes longer than most of these tests.

mod common;

mod checks_cli;
mod compare_cli;
mod compare_sweep_cli;
mod corpus;
mod crash_cli;
mod export_cli;
mod import_cli;
mod kernel_cli;
mod look_cli;
mod merge_cli;
mod profile_cli;
mod readme;
mod replay_cli;
mod report_cli;
mod results_cli;
mod run_cli;
mod samples;
mod security;
mod soak_cli;
mod stale_cli;
mod trace_cli;
mod workloads_cli;
