// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads `tce-trace 1` files: the hypercalls of a real guest, in order, plain or zstd-compressed.
//!
//! Reading is strict. A trace is the expectation that a replay is held to, so a line that is only
//! nearly right must stop the replay, not weaken it. What the engine has to answer (an address
//! outside every window, a list above 512 entries) is no error here.

mod parse;
mod reader;
mod stat;
mod target;
#[cfg(test)]
mod tests;
mod windows;
mod writer;

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use target::TargetScan;

pub(crate) use parse::clip;
pub use reader::Reader;
pub(crate) use reader::{Lines, Unpacked, open, plain_io, unreadable};
pub use stat::{Quantiles, Stat, StatDoc};
pub use windows::{Windows, phb_of};
pub use writer::write_line;

/// The most TCEs that a call may name: a list is one page of 4 KiB, and LoPAR says the same of H_STUFF_TCE.
pub const MAX_LIST: usize = 512;

/// The first line of every trace.
pub const HEADER: &str = "# tce-trace 1";

/// The longest line read, in bytes; 25 times the longest list a guest may pass. It bounds what a
/// corrupt or hostile compressed file can make us hold.
pub const MAX_LINE: usize = 256 << 10;

/// What is wrong with a trace, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceError {
    /// The file as the user named it.
    pub file: String,
    /// The line, from 1; 0 if the file could not be read at all.
    pub line: u64,
    /// What was wrong, with the value, and what would be accepted.
    pub text: String,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.text),
            line => write!(f, "{}:{line}: {}", self.file, self.text),
        }
    }
}

impl std::error::Error for TraceError {}

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Line in the (uncompressed) file, from 1.
    pub line: u64,
    /// Nanoseconds from the first recorded call, taken at its entry.
    pub t_ns: u64,
    /// The vCPU; `None` if no guest call or not known.
    pub cpu: Option<u32>,
    /// What was called.
    pub op: Op,
}

/// A call, its arguments and its recorded answer. `ret` is the hypercall's or RTAS call's return
/// code (0 = success), `ioba` the bus byte address as the guest passed it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    /// H_PUT_TCE.
    Put { liobn: u32, ioba: u64, tce: u64, ret: i64 },
    /// H_PUT_TCE_INDIRECT; `list` is a range of [`TraceFile::pool`], see [`TraceFile::list`].
    Indirect { liobn: u32, ioba: u64, list: Range<u32>, ret: i64 },
    /// H_STUFF_TCE.
    Stuff { liobn: u32, ioba: u64, value: u64, npages: u64, ret: i64 },
    /// H_GET_TCE; `value` is what it returned.
    Get { liobn: u32, ioba: u64, value: u64, ret: i64 },
    /// ibm,create-pe-dma-window, or (`power_on`) the default window that firmware gives.
    WindowCreate {
        /// As returned; `None` if the call failed.
        liobn: Option<u32>,
        /// Bus start as returned; `None` if the call failed.
        ioba: Option<u64>,
        /// log2 of the page size.
        page_shift: u8,
        /// TCEs in the window.
        entries: u64,
        /// RTAS status.
        ret: i64,
        /// Firmware's default window: at time 0 with no vCPU.
        power_on: bool,
    },
    /// ibm,remove-pe-dma-window.
    WindowRemove { liobn: u32, ret: i64 },
    /// ibm,reset-pe-dma-window.
    WindowReset { liobn: u32, ret: i64 },
    /// A translation that the device made: target page address OR'd with permission bits.
    Xlate { liobn: u32, ioba: u64, value: u64 },
}

impl Op {
    /// One of the four hypercalls.
    #[must_use]
    pub const fn is_call(&self) -> bool {
        matches!(
            self,
            Self::Put { .. } | Self::Indirect { .. } | Self::Stuff { .. } | Self::Get { .. }
        )
    }

    /// Hands over the LIOBN, bus address and TCEs that a call that succeeded stored; `list` holds those of an
    /// indirect. False if it is no such call.
    ///
    /// # Errors
    /// If it says of itself that it stored more than a call can.
    pub fn stores(
        &self,
        list: &[u64],
        store: impl FnOnce(u32, u64, &[u64]),
    ) -> Result<bool, String> {
        let possible = |tces: u64| match tces <= MAX_LIST as u64 {
            true => Ok(tces as usize),
            false => Err(format!(
                "a call that stored {tces} TCEs; accepted: up to {MAX_LIST} if ret is 0"
            )),
        };
        match *self {
            Self::Put { liobn, ioba, tce, ret: 0 } => store(liobn, ioba, &[tce]),
            Self::Indirect { liobn, ioba, ret: 0, .. } => {
                possible(list.len() as u64)?;
                store(liobn, ioba, list);
            }
            Self::Stuff { liobn, ioba, value, npages, ret: 0 } => {
                store(liobn, ioba, &[value; MAX_LIST][..possible(npages)?]);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Its return code is 0, or it has none.
    #[must_use]
    pub const fn succeeded(&self) -> bool {
        match *self {
            Self::Put { ret, .. }
            | Self::Indirect { ret, .. }
            | Self::Stuff { ret, .. }
            | Self::Get { ret, .. }
            | Self::WindowCreate { ret, .. }
            | Self::WindowRemove { ret, .. }
            | Self::WindowReset { ret, .. } => ret == 0,
            Self::Xlate { .. } => true,
        }
    }
}

/// How many lines of each kind a trace has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// H_PUT_TCE calls.
    pub put: u64,
    /// H_PUT_TCE_INDIRECT calls.
    pub indirect: u64,
    /// H_STUFF_TCE calls.
    pub stuff: u64,
    /// H_GET_TCE calls.
    pub get: u64,
    /// Window creations, removals and resets, power-on windows included.
    pub window: u64,
    /// Device translations.
    pub xlate: u64,
    /// TCEs with permission bits in successful put and indirect calls.
    pub mapped: u64,
}

impl Counts {
    /// The hypercalls: put, indirect, stuff and get.
    pub const fn calls(&self) -> u64 {
        self.put + self.indirect + self.stuff + self.get
    }
}

/// A whole trace in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceFile {
    /// The file as the user named it.
    pub file: String,
    /// The `# name` comment, else the file's name without directory.
    pub name: String,
    /// Every line that is no comment, in order.
    pub records: Vec<Record>,
    /// All INDIRECT lists, one after another: a list of its own per call would cost more than the
    /// entries do.
    pub pool: Vec<u64>,
    /// Lines by kind.
    pub counts: Counts,
    largest_target: u64,
}

impl TraceFile {
    /// Reads the trace at `path`; zstd is recognised by its magic number.
    ///
    /// # Errors
    /// The first thing that is wrong with the file, and its line.
    pub fn load(path: &Path) -> Result<Self, TraceError> {
        Self::collect(Reader::open(path)?)
    }

    /// Reads a trace from `input`; `file` is the name that errors carry.
    ///
    /// # Errors
    /// As [`TraceFile::load`].
    pub fn read(file: &str, input: impl Read) -> Result<Self, TraceError> {
        Self::collect(Reader::new(file, input)?)
    }

    fn collect(mut reader: Reader<impl Read>) -> Result<Self, TraceError> {
        let mut builder = Builder::default();
        while let Some(record) = reader.next(&mut builder.pool)? {
            builder.take(record);
        }
        Ok(builder.finish(reader.file(), reader.name()))
    }

    /// The entries of an [`Op::Indirect`] of this trace.
    pub fn list(&self, range: &Range<u32>) -> &[u64] {
        &self.pool[range.start as usize..range.end as usize]
    }

    /// The end (exclusive, in bytes) of the highest page that a TCE of a successful call names,
    /// with the page size of its window at that time: how much RAM the guest must have had at the
    /// least. 0 if nothing is mapped. A failed call names nothing, as its address may be the
    /// reason why it failed.
    pub const fn largest_target(&self) -> u64 {
        self.largest_target
    }
}

/// A trace while it is being read.
#[derive(Default)]
struct Builder {
    records: Vec<Record>,
    pool: Vec<u64>,
    counts: Counts,
    target: TargetScan,
}

impl Builder {
    fn take(&mut self, record: Record) {
        self.count(&record.op);
        self.target.see(&record.op, &self.pool);
        self.records.push(record);
    }

    fn count(&mut self, op: &Op) {
        let counts = &mut self.counts;
        let mapped = |entries: &[u64], ret: i64| {
            if ret == 0 { entries.iter().filter(|&tce| tce & 3 != 0).count() as u64 } else { 0 }
        };
        match op {
            Op::Put { tce, ret, .. } => {
                counts.put += 1;
                counts.mapped += mapped(&[*tce], *ret);
            }
            Op::Indirect { list, ret, .. } => {
                counts.indirect += 1;
                counts.mapped += mapped(&self.pool[list.start as usize..list.end as usize], *ret);
            }
            Op::Stuff { .. } => counts.stuff += 1,
            Op::Get { .. } => counts.get += 1,
            Op::WindowCreate { .. } | Op::WindowRemove { .. } | Op::WindowReset { .. } => {
                counts.window += 1;
            }
            Op::Xlate { .. } => counts.xlate += 1,
        }
    }

    fn finish(mut self, file: &str, name: String) -> TraceFile {
        self.records.shrink_to_fit();
        self.pool.shrink_to_fit();
        TraceFile {
            file: file.to_string(),
            name,
            records: self.records,
            pool: self.pool,
            counts: self.counts,
            largest_target: self.target.end(),
        }
    }
}
