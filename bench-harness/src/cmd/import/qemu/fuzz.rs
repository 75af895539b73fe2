// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Any capture becomes a trace that can be read, or an error of one line.

use super::capture::Reader;
use super::{convert, scan};
use crate::fuzz::{SmallDisk, is_one_line};
use crate::trace::TraceFile;

/// Bytes of a capture, plain or packed.
///
/// # Panics
/// If it was not read as it has to be.
pub fn capture(data: &[u8]) {
    if let Err(error) = one(data) {
        is_one_line(&error);
    }
}

fn one(data: &[u8]) -> anyhow::Result<()> {
    let found = scan(Reader::new("it.tcecap", data)?, &[])?.expect("nobody interrupts");
    if found.calls == 0 {
        return Ok(());
    }
    let mut out = SmallDisk::default();
    let again = Reader::new("it.tcecap", data)?;
    let lines = convert(again, "it", &found, &mut out)?.expect("nobody interrupts");
    lines.iter().for_each(is_one_line);
    let lines_of_calls = |line: &&[u8]| !line.is_empty() && !line.starts_with(b"#");
    // What could not be written is a comment; a trace of that alone is none.
    if out.0.split(|byte| *byte == b'\n').any(|line| lines_of_calls(&line)) {
        TraceFile::read("it.tce", out.0.as_slice()).expect("what was written is read");
    }
    Ok(())
}
