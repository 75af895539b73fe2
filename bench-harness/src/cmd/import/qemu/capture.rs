// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads a capture, which `scripts/record/tcerec.c` wrote, record by record in the order in which the calls
//! were begun; `scripts/record/README.md` describes it.
//!
//! A recording may end anywhere: QEMU was killed, the disk was full. What is whole is then taken, and where it
//! was cut is told. Whatever else is not as the plugin writes it is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use crate::cli::PowerOn;
use crate::size::whole;
use crate::trace::{MAX_LIST, TraceError, Unpacked, clip, plain_io, unreadable};

pub(super) const MAGIC: [u8; 8] = *b"\x89TCECAP\n";
pub(super) const ORDER_MARK: u32 = 0x0a0b_0c0d;
pub(super) const VERSION: u16 = 1;
pub(super) const KIND_CALL: u16 = 1;
pub(super) const KIND_RTAS: u16 = 2;
pub(super) const KIND_END: u16 = 3;
/// The guest had not gone on when recording ended.
pub(super) const NO_ANSWER: u16 = 1;
/// The list or the words could not be read.
pub(super) const NO_MEMORY: u16 = 2;

const HEAD: usize = 40;
const MAX_TEXT: usize = 16 << 10;
const RECORD: usize = 96;
const END: usize = 48;
/// Token, two counts and sixteen arguments.
const MAX_WORDS: usize = 19;
/// What may wait for calls that were begun earlier and answered later: one vCPU may rest while others go on.
const MAX_WAITING: usize = 64 << 20;

pub(super) const H_GET_TCE: u64 = 0x1c;
pub(super) const H_PUT_TCE: u64 = 0x20;
pub(super) const H_STUFF_TCE: u64 = 0x138;
pub(super) const H_PUT_TCE_INDIRECT: u64 = 0x13c;
pub(super) const H_RTAS: u64 = 0xf000;

/// What a capture says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) vcpus: u32,
    /// QEMU's version.
    pub(super) qemu: Option<String>,
    /// Bytes of the guest's memory.
    pub(super) ram: Option<u64>,
    /// The windows of power-on.
    pub(super) windows: Vec<PowerOn>,
}

/// A call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) seq: u64,
    /// Since the recording began, at the call.
    pub(super) t_ns: u64,
    pub(super) dur_ns: u64,
    pub(super) vcpu: u32,
    pub(super) flags: u16,
    /// Which hypercall: r3.
    pub(super) nr: u64,
    /// r4 to r7.
    pub(super) args: [u64; 4],
    /// r3 after it.
    pub(super) ret: i64,
    /// r4 after it.
    pub(super) value: u64,
    /// The TCEs of an H_PUT_TCE_INDIRECT.
    pub(super) list: Vec<u64>,
    /// Of H_RTAS: token, number of arguments, number of answers, and these.
    pub(super) words: Vec<u32>,
}

/// What came after a record's first bytes.
enum Piece {
    Call(Record),
    End {
        calls: u64,
    },
    /// The file ends, here or in the midst of a record.
    Cut,
}

/// Reads a capture.
pub(super) struct Reader<R: Read> {
    file: String,
    input: Unpacked<R>,
    /// Of the record that is read.
    offset: u64,
    next_offset: u64,
    head: Head,
    calls: u64,
    next_seq: u64,
    last_t_ns: u64,
    waiting: BTreeMap<u64, Record>,
    waiting_bytes: usize,
    done: bool,
    cut: Option<u64>,
    missing: u64,
}

impl<R: Read> Reader<R> {
    /// Begins to read; `file` is the name that errors carry.
    ///
    /// # Errors
    /// What is wrong with the head.
    pub(super) fn new(file: &str, input: R) -> Result<Self, TraceError> {
        let input = Unpacked::new(input).map_err(|error| unreadable(file, &error))?;
        let mut reader = Self {
            file: file.to_string(),
            input,
            offset: 0,
            next_offset: 0,
            head: Head::default(),
            calls: 0,
            next_seq: 0,
            last_t_ns: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            done: false,
            cut: None,
            missing: 0,
        };
        reader.read_head()?;
        Ok(reader)
    }

    pub(super) const fn head(&self) -> &Head {
        &self.head
    }

    /// Where the file ends, if it does before its end record.
    pub(super) const fn cut(&self) -> Option<u64> {
        self.cut
    }

    /// How many calls before the last one are not there, because recording ended before their answers.
    pub(super) const fn missing(&self) -> u64 {
        self.missing
    }

    /// The next call; `None` after the last one.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub(super) fn next(&mut self) -> Result<Option<Record>, TraceError> {
        loop {
            if let Some(record) = self.waiting.remove(&self.next_seq) {
                self.waiting_bytes -= record.held();
                return self.hand_out(record).map(Some);
            }
            if self.done {
                let Some((seq, record)) = self.waiting.pop_first() else { return Ok(None) };
                if self.cut.is_none() {
                    return Err(self.fail(format_args!("call {} is not there", self.next_seq)));
                }
                self.missing += seq - self.next_seq;
                return self.hand_out(record).map(Some);
            }
            match self.read_record()? {
                Piece::Call(record) if record.seq == self.next_seq => {
                    return self.hand_out(record).map(Some);
                }
                Piece::Call(record) => self.wait(record)?,
                Piece::End { calls } => self.finish(calls)?,
                Piece::Cut => {
                    self.done = true;
                    self.cut = Some(self.offset);
                }
            }
        }
    }

    fn hand_out(&mut self, record: Record) -> Result<Record, TraceError> {
        if record.t_ns < self.last_t_ns {
            return Err(self.fail(format_args!(
                "call {} has the time {} ns; accepted: that of the call before it, {}, or later",
                record.seq, record.t_ns, self.last_t_ns
            )));
        }
        self.last_t_ns = record.t_ns;
        self.next_seq = record.seq + 1;
        Ok(record)
    }

    fn wait(&mut self, record: Record) -> Result<(), TraceError> {
        let seq = record.seq;
        // The number after it has to be one.
        if seq < self.next_seq || seq == u64::MAX || self.waiting.contains_key(&seq) {
            return Err(self.fail(format_args!(
                "call {seq} is there twice, or none; accepted: each number once, from 0 on"
            )));
        }
        self.waiting_bytes += record.held();
        self.waiting.insert(seq, record);
        if self.waiting_bytes > MAX_WAITING {
            return Err(self.fail(format_args!(
                "call {} is not there while those after it take more than the limit of {MAX_WAITING} bytes",
                self.next_seq
            )));
        }
        Ok(())
    }

    fn finish(&mut self, calls: u64) -> Result<(), TraceError> {
        if calls != self.calls {
            return Err(self.fail(format_args!(
                "the end tells of {calls} calls, but there are {}",
                self.calls
            )));
        }
        let mut more = [0];
        if self.fill(&mut more)? != 0 {
            let text = "something stands behind the end record; accepted: one recording in a file";
            return Err(self.fail(text));
        }
        self.done = true;
        Ok(())
    }

    fn read_head(&mut self) -> Result<(), TraceError> {
        let mut head = [0; HEAD];
        let read = self.fill(&mut head)?;
        if head[..read.min(MAGIC.len())] != MAGIC[..read.min(MAGIC.len())] || read == 0 {
            return Err(self.fail(format_args!(
                "it begins with '{}'; accepted: a capture of scripts/record-guest, which begins with '{}'",
                head[..read.min(MAGIC.len())].escape_ascii(),
                MAGIC.escape_ascii()
            )));
        }
        if read < HEAD {
            return Err(self.fail(format_args!("the head has {read} bytes; it needs {HEAD}")));
        }
        let order = u32_at(&head, 8);
        if order != ORDER_MARK {
            return Err(self.fail(format_args!(
                "the mark of the byte order is {order:#010x}; accepted: {ORDER_MARK:#010x}, little-endian"
            )));
        }
        let version = u16_at(&head, 12);
        if version != VERSION {
            return Err(self.fail(format_args!("its version is {version}; accepted: {VERSION}")));
        }
        let (whole, length) = (u32_at(&head, 16) as usize, u32_at(&head, 20) as usize);
        if length > MAX_TEXT || whole != (HEAD + length).next_multiple_of(8) {
            return Err(self.fail(format_args!(
                "the head has {whole} bytes and a text of {length}; accepted: a text of up to {MAX_TEXT}, \
                 and {HEAD} bytes more, in whole words of 8"
            )));
        }
        self.head.vcpus = u32_at(&head, 32);
        let mut text = vec![0; whole - HEAD];
        if self.fill(&mut text)? < text.len() {
            return Err(self.fail(format_args!("the file ends within its head of {whole} bytes")));
        }
        text.truncate(length);
        let text = String::from_utf8(text).map_err(|_| {
            self.fail("the text of the head is not UTF-8; accepted: lines KEY=VALUE")
        })?;
        for line in text.lines() {
            self.read_line(line)?;
        }
        self.offset = self.next_offset;
        Ok(())
    }

    /// Keys that are not known here are for others.
    fn read_line(&mut self, line: &str) -> Result<(), TraceError> {
        match line.split_once('=') {
            Some(("qemu", version)) => self.head.qemu = Some(clip(version)),
            Some(("ram", bytes)) => {
                let ram = whole(bytes).ok_or_else(|| {
                    self.fail(format_args!("ram '{}' is wrong; accepted: bytes", clip(bytes)))
                })?;
                self.head.ram = Some(ram);
            }
            Some(("window", spec)) => {
                let window = PowerOn::parse(spec).map_err(|text| self.fail(text))?;
                self.head.windows.push(window);
            }
            _ => {}
        }
        Ok(())
    }

    fn read_record(&mut self) -> Result<Piece, TraceError> {
        self.offset = self.next_offset;
        let mut begin = [0; 8];
        if self.fill(&mut begin)? < begin.len() {
            return Ok(Piece::Cut);
        }
        let (bytes, kind, flags) =
            (u32_at(&begin, 0) as usize, u16_at(&begin, 4), u16_at(&begin, 6));
        let (least, most) = match kind {
            KIND_CALL => (RECORD, RECORD + 8 * MAX_LIST),
            KIND_RTAS => (RECORD, RECORD + (4 * MAX_WORDS).next_multiple_of(8)),
            KIND_END => (END, END),
            _ => {
                return Err(self.fail(format_args!(
                    "a record of the kind {kind}; accepted: {KIND_CALL}, {KIND_RTAS}, {KIND_END}"
                )));
            }
        };
        if bytes < least || bytes > most || !bytes.is_multiple_of(8) {
            return Err(self.fail(format_args!(
                "a record of the kind {kind} of {bytes} bytes; accepted: {least} to {most}, in whole words of 8"
            )));
        }
        if flags & !(NO_ANSWER | NO_MEMORY) != 0 {
            return Err(
                self.fail(format_args!("a record with the flags {flags:#x}; accepted: 0 to 3"))
            );
        }
        let mut record = [0; RECORD + 8 * MAX_LIST];
        let rest = &mut record[8..bytes];
        if self.fill(rest)? < rest.len() {
            return Ok(Piece::Cut);
        }
        if kind == KIND_END {
            return Ok(Piece::End { calls: u64_at(&record, 8) });
        }
        let record = self.decode(&record[..bytes], kind, flags)?;
        self.calls += 1;
        Ok(Piece::Call(record))
    }

    fn decode(&self, bytes: &[u8], kind: u16, flags: u16) -> Result<Record, TraceError> {
        let (vcpu, count) = (u32_at(bytes, 32), u32_at(bytes, 36) as usize);
        let width = if kind == KIND_RTAS { 4 } else { 8 };
        // The record is of this size at most, so the product is small unless the count is wrong.
        if count > MAX_LIST || bytes.len() != RECORD + (count * width).next_multiple_of(8) {
            return Err(self.fail(format_args!(
                "a record of {} bytes that says it has {count} numbers of {width} bytes behind its {RECORD}",
                bytes.len()
            )));
        }
        if vcpu >= self.head.vcpus {
            return Err(self.fail(format_args!(
                "a call of vCPU {vcpu}; accepted: below {}, as the head has it",
                self.head.vcpus
            )));
        }
        let nr = u64_at(bytes, 40);
        let known = match kind {
            KIND_RTAS => nr == H_RTAS,
            _ => [H_GET_TCE, H_PUT_TCE, H_STUFF_TCE, H_PUT_TCE_INDIRECT].contains(&nr),
        };
        if !known {
            return Err(self.fail(format_args!(
                "hypercall {nr:#x} in a record of the kind {kind}; accepted: {H_GET_TCE:#x}, {H_PUT_TCE:#x}, \
                 {H_STUFF_TCE:#x}, {H_PUT_TCE_INDIRECT:#x} in {KIND_CALL}, {H_RTAS:#x} in {KIND_RTAS}"
            )));
        }
        let numbers = &bytes[RECORD..RECORD + count * width];
        Ok(Record {
            seq: u64_at(bytes, 8),
            t_ns: u64_at(bytes, 16),
            dur_ns: u64_at(bytes, 24),
            vcpu,
            flags,
            nr,
            args: [48, 56, 64, 72].map(|at| u64_at(bytes, at)),
            ret: u64_at(bytes, 80).cast_signed(),
            value: u64_at(bytes, 88),
            list: match kind {
                KIND_RTAS => Vec::new(),
                _ => numbers.chunks_exact(8).map(|number| u64_at(number, 0)).collect(),
            },
            words: match kind {
                KIND_RTAS => numbers.chunks_exact(4).map(|number| u32_at(number, 0)).collect(),
                _ => Vec::new(),
            },
        })
    }

    /// Reads until the buffer is full or the file ends, and tells how much that was.
    fn fill(&mut self, into: &mut [u8]) -> Result<usize, TraceError> {
        let mut read = 0;
        while read < into.len() {
            match self.input.read(&mut into[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(self.fail(format_args!("cannot be read: {}", plain_io(&error))));
                }
            }
        }
        self.next_offset += read as u64;
        Ok(read)
    }

    /// An error of the record that is read.
    pub(super) fn fail(&self, text: impl fmt::Display) -> TraceError {
        let text = format!("at byte {}: {text}", self.offset);
        TraceError { file: self.file.clone(), line: 0, text }
    }
}

impl Record {
    /// Bytes that it takes here.
    const fn held(&self) -> usize {
        size_of::<Self>() + 8 * self.list.len() + 4 * self.words.len()
    }

    pub(super) const fn answered(&self) -> bool {
        self.flags & NO_ANSWER == 0
    }

    pub(super) const fn readable(&self) -> bool {
        self.flags & NO_MEMORY == 0
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}
