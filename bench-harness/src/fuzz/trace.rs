// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Traces: what is read, and written again, reads the same.

use super::is_one_line;
use crate::trace::{HEADER, Op, Record, Stat, TraceError, TraceFile, write_line};

/// Bytes of a trace, plain or packed.
///
/// # Panics
/// If it was not read as it has to be.
pub fn trace(data: &[u8]) {
    let read = match TraceFile::read("it.tce", data) {
        Ok(read) => read,
        Err(error) => return wrong(&error),
    };
    let mut text = format!("{HEADER}\n# name {}\n", read.name).into_bytes();
    for record in &read.records {
        write_line(&mut text, record, &read.pool, None).expect("memory takes everything");
    }
    let mut again = TraceFile::read("it.tce", text.as_slice()).expect("what was written is read");
    // Lines that are none of the records' are not written.
    for (again, first) in again.records.iter_mut().zip(&read.records) {
        assert!(again.line <= first.line + 1, "{again:?} {first:?}");
        again.line = first.line;
    }
    assert_eq!(again, read);
    let mut stat = Stat::default();
    for Record { op, .. } in &read.records {
        let list = if let Op::Indirect { list, .. } = op { read.list(list) } else { &[] };
        if let Err(text) = stat.see(op, list) {
            return is_one_line(&text);
        }
    }
    let (stat, counts) = (stat.finish(), read.counts);
    let told = (stat.put, stat.indirect, stat.stuff, stat.get, stat.window, stat.xlate);
    let wanted =
        (counts.put, counts.indirect, counts.stuff, counts.get, counts.window, counts.xlate);
    assert_eq!(told, wanted, "the numbers of calls");
    assert!(stat.live_at_end <= stat.max_live, "{stat:?}");
}

fn wrong(error: &TraceError) {
    assert!(error.line >= 1, "names no line: {error}");
    is_one_line(error);
}
