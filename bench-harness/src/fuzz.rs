// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What fuzzers call: a function of any bytes for each thing that comes from outside. It panics if what
//! was read is not as it has to be, so "does not crash" is the least of what is tried.
//!
//! `fuzz/` calls them by libFuzzer; `tests/corpus.rs` gives them the corpora that are kept.

mod hlog;
mod ioctl;
mod trace;
mod workload;

use std::io::{self, Write};

pub use crate::cmd::fuzz::result;
pub use crate::cmd::import::fuzz::{capture, import};
pub use crate::cmd::soak::hypercall;
pub use hlog::hlog;
pub use ioctl::ioctl;
pub use trace::trace;
pub use workload::workload;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("capture", capture),
    ("hlog", hlog),
    ("hypercall", hypercall),
    ("import", import),
    ("ioctl", ioctl),
    ("result", result),
    ("trace", trace),
    ("workload", workload),
];

/// An error is one line of printable text, whatever a file holds.
pub(crate) fn is_one_line(error: &impl std::fmt::Display) {
    let text = format!("{error:#}");
    assert!(!text.is_empty() && !text.contains(char::is_control), "no line: {text:?}");
}

/// Most bytes of output: a recording of one line can ask for more calls than any disk takes.
const MOST_BYTES: usize = 1 << 20;

/// A disk that is full soon.
#[derive(Default)]
pub(crate) struct SmallDisk(pub(crate) Vec<u8>);

impl Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_BYTES {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are taken one after another; 0 after the last.
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn long(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// One of some.
    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }
}
