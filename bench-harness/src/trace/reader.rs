// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The lines of a trace one after another, so that its length does not matter.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::{HEADER, MAX_LINE, Record, TraceError, parse};

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The first bytes of the input, put back in front of the rest.
type Whole<R> = io::Chain<io::Cursor<Vec<u8>>, BufReader<R>>;

/// A file, unpacked if it begins as zstd's do.
pub(crate) enum Unpacked<R: Read> {
    Plain(Whole<R>),
    Zstd(Box<BufReader<zstd::Decoder<'static, Whole<R>>>>),
}

impl<R: Read> Unpacked<R> {
    /// # Errors
    /// If nothing can be read.
    pub(crate) fn new(input: R) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(128 << 10, input);
        let mut magic = Vec::with_capacity(4);
        (&mut input).take(4).read_to_end(&mut magic)?;
        let packed = magic == ZSTD_MAGIC;
        let whole = io::Cursor::new(magic).chain(input);
        Ok(if packed {
            let decoder = zstd::Decoder::with_buffer(whole)?;
            Self::Zstd(Box::new(BufReader::with_capacity(128 << 10, decoder)))
        } else {
            Self::Plain(whole)
        })
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(into),
            Self::Zstd(input) => input.read(into),
        }
    }
}

/// Opens a file to be read.
///
/// # Errors
/// If that cannot be.
pub(crate) fn open(path: &Path) -> Result<File, TraceError> {
    let input = File::open(path).and_then(|input| match input.metadata()?.is_dir() {
        true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        false => Ok(input),
    });
    input.map_err(|error| unreadable(&path.display().to_string(), &error))
}

/// Reads lines, plain or out of a zstd stream, of at most [`MAX_LINE`] bytes.
pub(crate) struct Lines<R: Read> {
    file: String,
    text: Unpacked<R>,
    line: u64,
    buffer: Vec<u8>,
}

impl Lines<File> {
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, TraceError> {
        Self::new(&path.display().to_string(), open(path)?)
    }
}

impl<R: Read> Lines<R> {
    /// # Errors
    /// If nothing can be read.
    pub(crate) fn new(file: &str, input: R) -> Result<Self, TraceError> {
        let text = Unpacked::new(input).map_err(|error| unreadable(file, &error))?;
        Ok(Self { file: file.to_string(), text, line: 0, buffer: Vec::new() })
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The number of the last line read, from 1.
    pub(crate) const fn line(&self) -> u64 {
        self.line
    }

    /// An error at the last line read.
    pub(crate) fn fail(&self, text: impl fmt::Display) -> TraceError {
        TraceError { file: self.file.clone(), line: self.line, text: text.to_string() }
    }

    /// Reads the next line; false after the last one.
    ///
    /// # Errors
    /// A line that is too long, has no end or is not UTF-8, or what the system says.
    pub(crate) fn advance(&mut self) -> Result<bool, TraceError> {
        self.buffer.clear();
        let limit = MAX_LINE as u64 + 1;
        let read = match &mut self.text {
            Unpacked::Plain(text) => text.take(limit).read_until(b'\n', &mut self.buffer),
            Unpacked::Zstd(text) => text.take(limit).read_until(b'\n', &mut self.buffer),
        };
        self.line += 1;
        match read {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if matches!(self.text, Unpacked::Zstd(_)) => {
                return Err(self.fail(format_args!(
                    "the zstd stream is truncated or corrupt after line {}: {error}; accepted: a \
                     complete zstd file",
                    self.line - 1
                )));
            }
            Err(error) => {
                return Err(self.fail(format_args!("cannot be read: {}", plain_io(&error))));
            }
        }
        if self.buffer.pop_if(|&mut byte| byte == b'\n').is_none() {
            return Err(self.fail(if self.buffer.len() > MAX_LINE {
                format!("the line is longer than the limit of {MAX_LINE} bytes")
            } else {
                "the last line has no end; the file is truncated".to_string()
            }));
        }
        Ok(true)
    }

    /// The last line read, without its end.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub(crate) fn text(&self) -> Result<&str, TraceError> {
        std::str::from_utf8(&self.buffer).map_err(|error| {
            self.fail(format_args!(
                "byte {} of the line is not UTF-8; accepted: ASCII text, plain or zstd",
                error.valid_up_to() + 1
            ))
        })
    }
}

/// Reads a trace record by record.
pub struct Reader<R: Read> {
    lines: Lines<R>,
    last_t_ns: u64,
    records: u64,
    name: Option<String>,
}

impl Reader<File> {
    /// Opens the trace at `path`; zstd is recognised by its magic number.
    ///
    /// # Errors
    /// If it cannot be read, or does not begin as a trace.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        Self::begin(Lines::open(path)?)
    }
}

impl<R: Read> Reader<R> {
    /// Reads from `input`; `file` is the name that errors carry.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(file: &str, input: R) -> Result<Self, TraceError> {
        Self::begin(Lines::new(file, input)?)
    }

    fn begin(mut lines: Lines<R>) -> Result<Self, TraceError> {
        if !lines.advance()? {
            return Err(
                lines.fail(format_args!("the file is empty; accepted: a line '{HEADER}' first"))
            );
        }
        let text = lines.text()?;
        if text != HEADER {
            return Err(lines.fail(format_args!(
                "the first line is '{}'; accepted: '{HEADER}'",
                parse::clip(text)
            )));
        }
        Ok(Self { lines, last_t_ns: 0, records: 0, name: None })
    }

    /// The next record; the list of an indirect is appended to `pool`. `None` after the last one.
    ///
    /// # Errors
    /// The first thing that is wrong with the file, and its line.
    pub fn next(&mut self, pool: &mut Vec<u64>) -> Result<Option<Record>, TraceError> {
        while self.lines.advance()? {
            let text = self.lines.text()?;
            if let Some(comment) = text.strip_prefix('#') {
                if let Some(name) = comment.strip_prefix(" name ") {
                    self.name.get_or_insert_with(|| name.trim().to_string());
                }
                continue;
            }
            let parsed = parse::record(text, pool);
            let mut record = parsed.map_err(|message| self.lines.fail(message))?;
            if record.t_ns < self.last_t_ns {
                return Err(self.lines.fail(format_args!(
                    "t_ns {} is before the line above; accepted: {} or later",
                    record.t_ns, self.last_t_ns
                )));
            }
            self.last_t_ns = record.t_ns;
            self.records += 1;
            record.line = self.lines.line();
            return Ok(Some(record));
        }
        // A replay of nothing would "pass"; more likely the file was cut after its header.
        if self.records == 0 {
            let text = "the trace has no calls; accepted: at least one line of 9 columns";
            return Err(self.lines.fail(text));
        }
        Ok(None)
    }

    /// The text of the last record.
    ///
    /// # Errors
    /// None, if there was one.
    pub fn text(&self) -> Result<&str, TraceError> {
        self.lines.text()
    }

    /// The file as the user named it.
    pub fn file(&self) -> &str {
        self.lines.file()
    }

    /// The `# name` comment if there was one by now, else the file's name without directory.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let name = Path::new(self.file()).file_name();
            name.map_or_else(|| self.file().to_string(), |n| n.to_string_lossy().into_owned())
        })
    }

    /// An error at the last record.
    pub fn fail(&self, text: impl fmt::Display) -> TraceError {
        self.lines.fail(text)
    }
}

pub(crate) fn unreadable(file: &str, error: &io::Error) -> TraceError {
    let text = format!("cannot be read: {}", plain_io(error));
    TraceError { file: file.to_string(), line: 0, text }
}

/// An I/O error without Rust's "(os error 2)".
pub(crate) fn plain_io(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}
