// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `cargo bench --bench NAME -- ...` passes on.

use std::path::PathBuf;

use clap::Parser;

/// Options of the benches that have a main of their own.
#[derive(Parser)]
pub(crate) struct Args {
    /// Few repetitions, to see that everything runs; the result says that it is not valid
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only the lines whose section or name contains this
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Write the report to a file too
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}
