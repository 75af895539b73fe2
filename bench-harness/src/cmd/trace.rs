// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench trace`: what traces hold, and parts of them.

mod cut;
mod stat;

use super::Status;
use crate::cli::TraceConfig;

/// Counts or cuts.
///
/// # Errors
/// What cannot be read, cut or written, one line. Then nothing is written.
pub fn trace(config: &TraceConfig) -> anyhow::Result<Status> {
    match config {
        TraceConfig::Stat(config) => stat::stat(config),
        TraceConfig::Cut(config) => cut::cut(config),
    }
}
