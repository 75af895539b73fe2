// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Texts that the command line itself makes: completions, manual pages.

use std::path::PathBuf;

use super::Status;
use crate::outfile::OutFile;

/// Prints it.
///
/// # Errors
/// If it cannot all be written.
pub fn print(text: &[u8]) -> anyhow::Result<Status> {
    OutFile::Stdout.write(text).map_err(anyhow::Error::msg)?;
    Ok(Status::Ok)
}

/// Writes all of them, or finds out beforehand that one cannot be.
///
/// # Errors
/// The file and why.
pub fn write_all(files: &[(PathBuf, Vec<u8>)]) -> anyhow::Result<Status> {
    let files: Vec<_> =
        files.iter().map(|(path, text)| (OutFile::File(path.clone()), text)).collect();
    files.iter().try_for_each(|(file, _)| file.check().map_err(anyhow::Error::msg))?;
    files.iter().try_for_each(|(file, text)| file.write(text).map_err(anyhow::Error::msg))?;
    Ok(Status::Ok)
}
