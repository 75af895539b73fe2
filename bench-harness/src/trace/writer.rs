// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes the lines that [`parse`](super::parse) reads.

use std::io::{self, Write};
use std::ops::Range;

use super::{Op, Record};

/// Writes a record as a line; its list is in `pool`, `dur_ns` is how long the call took, if known.
///
/// # Errors
/// What `out` says.
pub fn write_line(
    out: &mut impl Write,
    record: &Record,
    pool: &[u64],
    dur_ns: Option<u64>,
) -> io::Result<()> {
    write!(out, "{} ", record.t_ns)?;
    match record.op {
        Op::Put { liobn, ioba, tce, ret } => {
            write!(out, "put {liobn:#x} {ioba:#x} {tce:#x} 1 {ret}")?;
        }
        Op::Indirect { liobn, ioba, ref list, ret } => {
            write!(out, "indirect {liobn:#x} {ioba:#x} ")?;
            write_list(out, pool, list)?;
            write!(out, " {} {ret}", list.len())?;
        }
        Op::Stuff { liobn, ioba, value, npages, ret } => {
            write!(out, "stuff {liobn:#x} {ioba:#x} {value:#x} {npages} {ret}")?;
        }
        Op::Get { liobn, ioba, value, ret } => {
            write!(out, "get {liobn:#x} {ioba:#x} {value:#x} 1 {ret}")?;
        }
        Op::WindowCreate { liobn, ioba, page_shift, entries, ret, .. } => {
            let (liobn, ioba) = (hex_or_dash(liobn.map(u64::from)), hex_or_dash(ioba));
            write!(out, "window-create {liobn} {ioba} {page_shift} {entries} {ret}")?;
        }
        Op::WindowRemove { liobn, ret } => write!(out, "window-remove {liobn:#x} - - - {ret}")?,
        Op::WindowReset { liobn, ret } => write!(out, "window-reset {liobn:#x} - - - {ret}")?,
        Op::Xlate { liobn, ioba, value } => {
            write!(out, "xlate {liobn:#x} {ioba:#x} {value:#x} 1 0")?;
        }
    }
    writeln!(out, " {} {}", or_dash(record.cpu.map(u64::from)), or_dash(dur_ns))
}

fn write_list(out: &mut impl Write, pool: &[u64], list: &Range<u32>) -> io::Result<()> {
    if list.is_empty() {
        return write!(out, "-");
    }
    for (place, tce) in pool[list.start as usize..list.end as usize].iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        write!(out, "{comma}{tce:x}")?;
    }
    Ok(())
}

fn hex_or_dash(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_string(), |n| format!("{n:#x}"))
}

fn or_dash(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_string(), |n| n.to_string())
}
