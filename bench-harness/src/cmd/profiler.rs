// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The profile of a command, in the file that was named for it.

use anyhow::anyhow;

use crate::cli::Output;
use crate::outfile::OutFile;
use crate::profile::{FREQUENCY, Sampler};
use crate::result::Warning;

/// Takes samples of all threads until it is written or dropped.
pub(super) struct Profiler<'a> {
    file: &'a OutFile,
    sampler: Sampler,
}

impl<'a> Profiler<'a> {
    /// A running profiler, if one is wanted.
    ///
    /// # Errors
    /// Why there cannot be one.
    pub(super) fn start(output: &'a Output) -> anyhow::Result<Option<Self>> {
        let start = |file| Ok(Self { file, sampler: Sampler::start()? });
        output.profile.as_ref().map(start).transpose()
    }

    /// Ends it and writes what it has: a protocol buffer, packed with gzip.
    ///
    /// # Errors
    /// If it cannot be made or written, one line.
    pub(super) fn write(self) -> anyhow::Result<()> {
        self.file.write(&self.sampler.finish()?).map_err(|e| anyhow!(e))
    }
}

/// What a reader of a result has to know if it was profiled.
#[must_use]
pub(super) fn warning(output: &Output) -> Option<Warning> {
    let text = format!("profiled: interrupted {FREQUENCY} times a second, which costs time");
    output.profile.as_ref().map(|_| Warning::new("PROFILED", text))
}
