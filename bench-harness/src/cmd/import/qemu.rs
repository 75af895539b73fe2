// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Captures of `scripts/record-guest`: the hypercalls of a pseries guest, with their lists and answers.
//!
//! They are read twice: for the windows of power-on, which a trace begins with, and for the calls.

mod capture;
pub(crate) mod fuzz;
mod rtas;
mod scan;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::Read;

use anyhow::{anyhow, bail};

use crate::cli::ImportConfig;
use crate::cmd::Status;
use crate::interrupt::interrupted_at;
use crate::outfile::Pieces;
use crate::size::format_size;
use crate::style::thousands;
use crate::trace::{HEADER, Op, open, write_line};
use capture::{Head, Reader, Record};
use rtas::{Buids, WindowCall};
use scan::{Scan, scan};

/// What was found, and what could not be written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// TCE calls.
    calls: u64,
    /// Calls for windows.
    windows: u64,
    failed: u64,
    unanswered: u64,
    /// H_PUT_TCE_INDIRECT without its list: refused ones, and others.
    unlisted_refused: u64,
    unlisted: u64,
    /// LIOBNs of more than 32 bits.
    no_liobn: u64,
    /// Calls for windows of which too little is known.
    unknown_windows: u64,
    /// H_RTAS whose words could not be read.
    unreadable_rtas: u64,
}

/// Converts and writes.
///
/// # Errors
/// What cannot be read or written, one line, with its place in the capture. Then nothing is written.
pub(super) fn import(config: &ImportConfig) -> anyhow::Result<Status> {
    config.out.check().map_err(|e| anyhow!(e))?;
    if fs::metadata(&config.input).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        bail!("'{}' is no regular file, and is to be read twice", config.input.display());
    }
    let Some(scan) = scan(reader(config)?, &config.power_on)? else {
        return Ok(Status::Interrupted);
    };
    if scan.calls == 0 {
        bail!("'{}' has no call", config.input.display());
    }
    let name = config.input.file_stem().unwrap_or_default().to_string_lossy();
    let Some(lines) = config.out.stream(|out| convert(reader(config)?, &name, &scan, out))? else {
        return Ok(Status::Interrupted);
    };
    if !config.quiet {
        eprintln!("{}", lines.join("\n"));
    }
    Ok(Status::Ok)
}

fn reader(config: &ImportConfig) -> anyhow::Result<Reader<File>> {
    Ok(Reader::new(&config.input.display().to_string(), open(&config.input)?)?)
}

/// Writes the trace, and gives what there is to say.
fn convert<R: Read>(
    mut reader: Reader<R>,
    name: &str,
    scan: &Scan,
    out: Pieces<'_>,
) -> anyhow::Result<Option<Vec<String>>> {
    let name = name.replace(char::is_control, " ");
    writeln!(out, "{HEADER}\n# name {name}\n# recorded by {}", recorder(reader.head()))?;
    writeln!(out, "# columns: t_ns op liobn ioba value npages ret cpu dur_ns")?;
    for window in &scan.windows {
        let window = window.spec;
        let (liobn, start, shift) = (window.liobn, window.start, window.page_shift);
        writeln!(out, "0 window-create {liobn:#x} {start:#x} {shift} {} 0 - -", window.pages)?;
    }
    let mut calls = Calls {
        out,
        begin: scan.begin_ns,
        several: scan.windows.len() > 1,
        buids: Buids::default(),
        counts: Counts::default(),
    };
    let mut read = 0;
    while let Some(record) = reader.next()? {
        read += 1;
        if interrupted_at(read) {
            return Ok(None);
        }
        calls.take(&record)?;
    }
    let Calls { out, counts, .. } = calls;
    let mut lines = counts.summary();
    lines.extend(scan.summary());
    lines.extend(cut_short(&reader));
    for line in &lines {
        writeln!(out, "# import: {line}")?;
    }
    Ok(Some(lines))
}

fn recorder(head: &Head) -> String {
    let version = head.qemu.as_deref().unwrap_or("of unknown version");
    let ram = head.ram.map_or_else(|| "unknown".to_string(), format_size);
    format!("QEMU {version}, up to {} vCPU(s), guest RAM {ram}", head.vcpus)
}

fn cut_short<R: Read>(reader: &Reader<R>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(offset) = reader.cut() {
        lines.push(format!(
            "the recording was cut off at byte {}; what is whole before that is taken",
            thousands(offset)
        ));
    }
    if reader.missing() > 0 {
        lines.push(format!(
            "{} call(s) had begun, but their answers were not recorded: left out",
            thousands(reader.missing())
        ));
    }
    lines
}

/// Turns records into lines.
struct Calls<'a> {
    out: Pieces<'a>,
    /// When the first call was.
    begin: u64,
    /// There is more than one window of power-on, perhaps of more than one PHB.
    several: bool,
    buids: Buids,
    counts: Counts,
}

impl Calls<'_> {
    fn take(&mut self, record: &Record) -> anyhow::Result<()> {
        if !record.answered() {
            self.counts.unanswered += 1;
            return Ok(());
        }
        if record.nr == capture::H_RTAS {
            return self.window_call(record);
        }
        let [liobn, ioba, third, fourth] = record.args;
        let Ok(liobn) = u32::try_from(liobn) else {
            self.counts.no_liobn += 1;
            return Ok(());
        };
        let ret = record.ret;
        let op = match record.nr {
            capture::H_PUT_TCE => Op::Put { liobn, ioba, tce: third, ret },
            capture::H_STUFF_TCE => Op::Stuff { liobn, ioba, value: third, npages: fourth, ret },
            // What r4 holds after a failure means nothing.
            capture::H_GET_TCE if ret == 0 => Op::Get { liobn, ioba, value: record.value, ret },
            capture::H_GET_TCE => Op::Get { liobn, ioba, value: 0, ret },
            _ if record.list.len() as u64 == fourth => {
                Op::Indirect { liobn, ioba, list: 0..record.list.len() as u32, ret }
            }
            _ if ret == 0 => {
                self.counts.unlisted += 1;
                return Ok(());
            }
            _ => {
                self.counts.unlisted_refused += 1;
                return Ok(());
            }
        };
        self.counts.calls += 1;
        self.counts.failed += u64::from(ret != 0);
        self.write(record, op)
    }

    fn window_call(&mut self, record: &Record) -> anyhow::Result<()> {
        if !record.readable() {
            self.counts.unreadable_rtas += 1;
            return Ok(());
        }
        let t_ns = record.t_ns.saturating_sub(self.begin);
        let op = match WindowCall::of(record) {
            Some(WindowCall::Query { buid, status, answers }) => {
                let answers: Vec<_> = answers.iter().map(|answer| format!("{answer:#x}")).collect();
                let answers = answers.join(",");
                let cpu = record.vcpu;
                return Ok(writeln!(
                    self.out,
                    "# {t_ns} window-query buid={buid:#x} status={status} out={answers} cpu={cpu}"
                )?);
            }
            // It names no PHB, and a replay has to know of which one it is.
            Some(WindowCall::Create { buid, page_shift, status, given: None, .. })
                if self.several =>
            {
                self.counts.unknown_windows += 1;
                return Ok(writeln!(
                    self.out,
                    "# {t_ns} window-create buid={buid:#x} page_shift={page_shift} status={status}"
                )?);
            }
            Some(WindowCall::Create { buid, page_shift, entries, status, given }) => {
                if let Some((liobn, _)) = given {
                    self.buids.learn(buid, liobn);
                }
                let (liobn, ioba) = given.unzip();
                let (ret, power_on) = (status, false);
                Some(Op::WindowCreate { liobn, ioba, page_shift, entries, ret, power_on })
            }
            Some(WindowCall::Remove { liobn, status: ret }) => {
                Some(Op::WindowRemove { liobn, ret })
            }
            Some(WindowCall::Reset { buid, status: ret }) => {
                self.buids.liobn(buid).map(|liobn| Op::WindowReset { liobn, ret })
            }
            None => None,
        };
        let Some(op) = op else {
            self.counts.unknown_windows += 1;
            let words: Vec<_> = record.words.iter().map(|word| format!("{word:#x}")).collect();
            return Ok(writeln!(self.out, "# {t_ns} rtas {}", words.join(" "))?);
        };
        self.counts.windows += 1;
        self.counts.failed += u64::from(!op.succeeded());
        self.write(record, op)
    }

    fn write(&mut self, record: &Record, op: Op) -> anyhow::Result<()> {
        let (t_ns, cpu) = (record.t_ns.saturating_sub(self.begin), Some(record.vcpu));
        let line = crate::trace::Record { line: 0, t_ns, cpu, op };
        Ok(write_line(&mut self.out, &line, &record.list, Some(record.dur_ns))?)
    }
}

impl Counts {
    /// What was found, and what could not be written.
    fn summary(&self) -> Vec<String> {
        let n = thousands;
        let mut lines = vec![format!(
            "{} call(s) and {} for windows, of which {} failed",
            n(self.calls),
            n(self.windows),
            n(self.failed)
        )];
        for (count, text) in [
            (self.unanswered, "call(s) had no answer when recording ended: left out"),
            (
                self.unlisted,
                "H_PUT_TCE_INDIRECT that succeeded left out, as their lists could not be read: what they \
                 mapped is not in the trace",
            ),
            (
                self.unlisted_refused,
                "H_PUT_TCE_INDIRECT that failed left out, as their lists are too long or could not be read",
            ),
            (self.no_liobn, "call(s) with a LIOBN of more than 32 bits left out"),
            (
                self.unknown_windows,
                "call(s) for windows left as comments, as they do not tell of which PHB they are or are \
                 not as QEMU has them",
            ),
            (self.unreadable_rtas, "RTAS call(s) left out, as their arguments could not be read"),
        ] {
            if count > 0 {
                lines.push(format!("{} {text}", n(count)));
            }
        }
        lines
    }
}
