// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads `tce-trace 1` files: the hypercalls of a real guest, in order, plain or zstd-compressed.
//!
//! Reading is strict. A trace is the expectation that a replay is held to, so a line that is only
//! nearly right must stop the replay, not weaken it. What the engine has to answer (an address
//! outside every window, a list above 512 entries) is no error here.

mod parse;
mod target;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;

use target::TargetScan;

/// The first line of every trace.
pub const HEADER: &str = "# tce-trace 1";

/// The longest line read, in bytes; 25 times the longest list a guest may pass. It bounds what a
/// corrupt or hostile compressed file can make us hold.
pub const MAX_LINE: usize = 256 << 10;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

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
        let file = path.display().to_string();
        let unreadable = |error: io::Error| TraceError {
            file: file.clone(),
            line: 0,
            text: format!("cannot be read: {}", plain_io(&error)),
        };
        let input = File::open(path).map_err(unreadable)?;
        if input.metadata().map_err(unreadable)?.is_dir() {
            return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Self::read(&file, input)
    }

    /// Reads a trace from `input`; `file` is the name that errors carry.
    ///
    /// # Errors
    /// As [`TraceFile::load`].
    pub fn read(file: &str, input: impl Read) -> Result<Self, TraceError> {
        let fail = |line, text| TraceError { file: file.to_string(), line, text };
        let mut input = BufReader::with_capacity(128 << 10, input);
        let mut magic = Vec::with_capacity(4);
        let unreadable =
            |error: io::Error| fail(0, format!("cannot be read: {}", plain_io(&error)));
        (&mut input).take(4).read_to_end(&mut magic).map_err(unreadable)?;
        if magic.is_empty() {
            return Err(fail(1, format!("the file is empty; accepted: a line '{HEADER}' first")));
        }
        let input = magic.as_slice().chain(input);
        let mut builder = Builder::new(file);
        if magic == ZSTD_MAGIC {
            let decoder = zstd::Decoder::with_buffer(input).map_err(unreadable)?;
            builder.read_lines(BufReader::with_capacity(128 << 10, decoder), true)?;
        } else {
            builder.read_lines(input, false)?;
        }
        builder.finish()
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
struct Builder<'a> {
    file: &'a str,
    line: u64,
    last_t_ns: u64,
    name: Option<String>,
    records: Vec<Record>,
    pool: Vec<u64>,
    counts: Counts,
    target: TargetScan,
}

impl<'a> Builder<'a> {
    fn new(file: &'a str) -> Self {
        Self {
            file,
            line: 0,
            last_t_ns: 0,
            name: None,
            records: Vec::new(),
            pool: Vec::new(),
            counts: Counts::default(),
            target: TargetScan::default(),
        }
    }

    fn fail(&self, text: impl fmt::Display) -> TraceError {
        TraceError { file: self.file.to_string(), line: self.line, text: text.to_string() }
    }

    fn read_lines(&mut self, mut input: impl BufRead, zstd: bool) -> Result<(), TraceError> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = MAX_LINE as u64 + 1;
            let read = (&mut input).take(limit).read_until(b'\n', &mut line);
            self.line += 1;
            match read {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if zstd => {
                    return Err(self.fail(format_args!(
                        "the zstd stream is truncated or corrupt after line {}: {error}; \
                         accepted: a complete zstd file",
                        self.line - 1
                    )));
                }
                Err(error) => {
                    return Err(self.fail(format_args!("cannot be read: {}", plain_io(&error))));
                }
            }
            if line.pop_if(|&mut byte| byte == b'\n').is_none() {
                return Err(self.fail(if line.len() > MAX_LINE {
                    format!("the line is longer than the limit of {MAX_LINE} bytes")
                } else {
                    "the last line has no end; the file is truncated".to_string()
                }));
            }
            let text = std::str::from_utf8(&line).map_err(|error| {
                self.fail(format_args!(
                    "byte {} of the line is not UTF-8; accepted: an ASCII trace, plain or zstd",
                    error.valid_up_to() + 1
                ))
            })?;
            self.take_line(text)?;
        }
    }

    fn take_line(&mut self, text: &str) -> Result<(), TraceError> {
        if self.line == 1 {
            if text != HEADER {
                return Err(self.fail(format_args!(
                    "the first line is '{}'; accepted: '{HEADER}'",
                    parse::clip(text)
                )));
            }
            return Ok(());
        }
        if let Some(comment) = text.strip_prefix('#') {
            if let Some(name) = comment.strip_prefix(" name ") {
                self.name.get_or_insert_with(|| name.trim().to_string());
            }
            return Ok(());
        }
        let mut record =
            parse::record(text, &mut self.pool).map_err(|message| self.fail(message))?;
        if record.t_ns < self.last_t_ns {
            return Err(self.fail(format_args!(
                "t_ns {} is before the line above; accepted: {} or later",
                record.t_ns, self.last_t_ns
            )));
        }
        self.last_t_ns = record.t_ns;
        record.line = self.line;
        self.count(&record.op);
        self.target.see(&record.op, &self.pool);
        self.records.push(record);
        Ok(())
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

    fn finish(mut self) -> Result<TraceFile, TraceError> {
        // A replay of nothing would "pass"; more likely the file was cut after its header.
        if self.records.is_empty() {
            return Err(
                self.fail("the trace has no calls; accepted: at least one line of 9 columns")
            );
        }
        self.records.shrink_to_fit();
        self.pool.shrink_to_fit();
        let name = self.name.unwrap_or_else(|| {
            Path::new(self.file)
                .file_name()
                .map_or_else(|| self.file.to_string(), |name| name.to_string_lossy().into_owned())
        });
        Ok(TraceFile {
            file: self.file.to_string(),
            name,
            records: self.records,
            pool: self.pool,
            counts: self.counts,
            largest_target: self.target.end(),
        })
    }
}

/// An I/O error without Rust's "(os error 2)".
fn plain_io(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}
