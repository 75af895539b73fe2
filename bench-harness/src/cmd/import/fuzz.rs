// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Any recording becomes a trace that can be read, or an error of one line.

pub use super::qemu::fuzz::capture;
use super::{Events, Format, Window, bounds, convert};
use crate::fuzz::{SmallDisk, is_one_line};
use crate::trace::{Lines, TraceFile};

/// Text, taken for each format in turn, with the window that is found and with one that is given.
///
/// # Panics
/// If it was not read as it has to be.
pub fn import(data: &[u8]) {
    let given = Window { base: 0, size: 1 << 30 };
    let formats: [fn() -> Format; 2] = [|| Format::Ftrace, || Format::Csv(None)];
    for format in formats {
        for (page_shift, given) in [(12, None), (16, Some(given))] {
            if let Err(error) = one(data, format, page_shift, given) {
                is_one_line(&error);
            }
        }
    }
}

fn one(
    data: &[u8],
    format: fn() -> Format,
    page_shift: u8,
    given: Option<Window>,
) -> anyhow::Result<()> {
    let events = || anyhow::Ok(Events { lines: Lines::new("it.txt", data)?, format: format() });
    let window = match given {
        Some(window) => window,
        None => bounds(events()?, page_shift)?.expect("nobody interrupts"),
    };
    let mut out = SmallDisk::default();
    let counts = convert(events()?, page_shift, window, &mut out)?.expect("nobody interrupts");
    let trace = TraceFile::read("it.tce", out.0.as_slice()).expect("what was written is read");
    assert_eq!(trace.counts.calls(), counts.calls);
    for line in counts.summary() {
        is_one_line(&line);
    }
    Ok(())
}
