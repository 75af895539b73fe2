// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench import`: what other programs recorded, as a trace.
//!
//! The recording is read line by line and never held; what is kept is the ranges that are mapped.
//! A capture of hypercalls needs no such conversion: `import/qemu.rs` has it.

mod csv;
mod ftrace;
pub(crate) mod fuzz;
mod qemu;
mod ranges;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{anyhow, bail};

use super::Status;
use crate::cli::{ImportConfig, ImportFormat};
use crate::interrupt::interrupted_at;
use crate::outfile::Pieces;
use crate::size::{hex, whole};
use crate::style::thousands;
use crate::trace::{HEADER, Lines, MAX_LIST, Op, Record, TraceError, clip, write_line};
use ranges::Ranges;

/// The LIOBN of all that is imported: of pseries' first PHB, its default window.
const LIOBN: u32 = 0x8000_0000;

/// The least window: enough for a leaf of any table.
const LEAST_WINDOW: u64 = 1 << 20;

/// An event of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    t_ns: Option<u64>,
    cpu: Option<u32>,
    iova: u64,
    size: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Map { paddr: u64, perm: u64 },
    Unmap,
}

/// What was found.
#[derive(Debug, Default)]
struct Counts {
    maps: u64,
    unmaps: u64,
    other_lines: u64,
    /// As the recording says.
    lost: u64,
    /// Events that are not made of whole pages.
    rounded: u64,
    /// Maps whose addresses differ in their place within a page.
    misaligned: u64,
    empty: u64,
    /// Maps of pages that were mapped, and how many.
    overlaps: u64,
    overlap_pages: u64,
    /// Unmaps of pages that nothing mapped as far as is known, and how many.
    unknown: u64,
    unknown_pages: u64,
    /// Unmaps that the kernel did in part or not at all.
    short_unmaps: u64,
    clock_back: u64,
    calls: u64,
    live_pages: u64,
}

/// Converts and writes.
///
/// # Errors
/// What cannot be read or written, one line, with its number in the recording. Then nothing is written.
pub fn import(config: &ImportConfig) -> anyhow::Result<Status> {
    let format: fn() -> Format = match config.from {
        ImportFormat::Ftrace => || Format::Ftrace,
        ImportFormat::Csv => || Format::Csv(None),
        ImportFormat::Qemu => return qemu::import(config),
    };
    config.out.check().map_err(|e| anyhow!(e))?;
    let window = match config.window {
        Some(size) => Window { base: 0, size },
        None => {
            let meta = fs::metadata(&config.input);
            if meta.is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
                bail!(
                    "'{}' is no regular file, and is to be read twice; give --window, with which once is enough",
                    config.input.display()
                );
            }
            match bounds(Events::open(config, format())?, config.page_shift)? {
                Some(window) => window,
                None => return Ok(Status::Interrupted),
            }
        }
    };
    let converted = config
        .out
        .stream(|out| convert(Events::open(config, format())?, config.page_shift, window, out))?;
    let Some(counts) = converted else {
        return Ok(Status::Interrupted);
    };
    if !config.quiet {
        eprintln!("{}", counts.summary().join("\n"));
    }
    Ok(Status::Ok)
}

/// The stretch of bus addresses that becomes the window; `base` becomes 0, where a default window begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    base: u64,
    size: u64,
}

impl Window {
    /// The smallest aligned one from `first` to `last`, both included.
    fn around(first: u64, last: u64, page: u64) -> Option<Self> {
        let mut size = page.max(LEAST_WINDOW);
        while first / size != last / size {
            size = size.checked_mul(2)?;
        }
        Some(Self { base: first & !(size - 1), size })
    }
}

/// Reads the recording for its lowest and highest address. `None` if it was interrupted.
fn bounds<R: Read>(mut events: Events<R>, page_shift: u8) -> anyhow::Result<Option<Window>> {
    let page = 1_u64 << page_shift;
    let mut counts = Counts::default();
    let mut found: Option<(u64, u64)> = None;
    loop {
        match events.next(&mut counts)? {
            Next::Interrupted => return Ok(None),
            Next::End => break,
            Next::Event(event) => {
                if let Some((first, pages)) = events.pages(&event, page)? {
                    let last = first + (pages - 1) * page;
                    let (low, high) = found.unwrap_or((first, last));
                    found = Some((low.min(first), high.max(last)));
                }
            }
        }
    }
    let file = events.lines.file();
    let Some((low, high)) = found else {
        bail!("'{file}' has no event that maps or unmaps anything");
    };
    Window::around(low, high, page).map(Some).ok_or_else(|| {
        anyhow!(
            "{file}: its addresses reach from {low:#x} to {high:#x}; accepted: a stretch of less than 2^64"
        )
    })
}

fn convert<R: Read>(
    mut events: Events<R>,
    page_shift: u8,
    window: Window,
    out: Pieces<'_>,
) -> anyhow::Result<Option<Counts>> {
    let name = Path::new(events.lines.file()).file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let name = name.replace(char::is_control, " ");
    writeln!(out, "{HEADER}\n# name {name}\n# iova_base {:#x}", window.base)?;
    writeln!(out, "# columns: t_ns op liobn ioba value npages ret cpu dur_ns")?;
    let (shift, entries) = (page_shift, window.size >> page_shift);
    writeln!(out, "0 window-create {LIOBN:#x} 0x0 {shift} {entries} 0 - -")?;
    let mut calls = Calls {
        out,
        page: 1 << shift,
        window,
        counts: Counts::default(),
        mapped: Ranges::default(),
        clock: Clock::default(),
        list: Vec::with_capacity(MAX_LIST),
    };
    loop {
        match events.next(&mut calls.counts)? {
            Next::Interrupted => return Ok(None),
            Next::End => break,
            Next::Event(event) => calls.take(&event, &events)?,
        }
    }
    let Calls { out, counts, .. } = calls;
    if counts.calls == 0 {
        bail!("'{}' has no event that maps or unmaps anything", events.lines.file());
    }
    for line in counts.summary() {
        writeln!(out, "# import: {line}")?;
    }
    Ok(Some(counts))
}

/// Nanoseconds from the first event on, never back.
#[derive(Debug, Default)]
struct Clock {
    begin: Option<u64>,
    last: u64,
}

impl Clock {
    /// The time of the next event, and whether it had an earlier one than that before it.
    fn next(&mut self, t_ns: Option<u64>) -> (u64, bool) {
        let begin = self.begin.or(t_ns).unwrap_or(0);
        let back = t_ns.is_some_and(|t| t < begin + self.last);
        if let Some(t_ns) = t_ns {
            self.begin = Some(begin);
            self.last = self.last.max(t_ns.saturating_sub(begin));
        }
        (self.last, back)
    }
}

/// Turns events into calls.
struct Calls<'a> {
    out: Pieces<'a>,
    page: u64,
    window: Window,
    counts: Counts,
    /// By page of the window.
    mapped: Ranges,
    clock: Clock,
    list: Vec<u64>,
}

impl Calls<'_> {
    fn take<R: Read>(&mut self, event: &Event, events: &Events<R>) -> anyhow::Result<()> {
        let (page, window, counts) = (self.page, self.window, &mut self.counts);
        let (t_ns, back) = self.clock.next(event.t_ns);
        counts.clock_back += u64::from(back);
        match event.what {
            What::Map { .. } => counts.maps += 1,
            What::Unmap => counts.unmaps += 1,
        }
        let Some((first, pages)) = events.pages(event, page)? else {
            counts.empty += 1;
            return Ok(());
        };
        if let What::Map { paddr, .. } = event.what
            && paddr % page != event.iova % page
        {
            counts.misaligned += 1;
            return Ok(());
        }
        let whole = event.iova.is_multiple_of(page) && event.size.is_multiple_of(page);
        counts.rounded += u64::from(!whole);
        let inside = |at: &u64| pages <= window.size / page && *at <= window.size - pages * page;
        let Some(ioba) = first.checked_sub(window.base).filter(inside) else {
            bail!(events.lines.fail(format_args!(
                "iova {:#x} and size {:#x} are not in the window; it is from {:#x} on, {:#x} bytes",
                event.iova, event.size, window.base, window.size
            )));
        };
        self.account(&event.what, ioba / page, pages);
        self.write(event, t_ns, ioba, pages)
    }

    /// Compares with what is known to be mapped.
    fn account(&mut self, what: &What, first: u64, pages: u64) {
        let counts = &mut self.counts;
        match what {
            What::Map { .. } => {
                let known = self.mapped.insert(first, first + pages);
                counts.overlaps += u64::from(known > 0);
                counts.overlap_pages += known;
                counts.live_pages += pages - known;
            }
            What::Unmap => {
                let known = self.mapped.take(first, first + pages);
                counts.unknown += u64::from(known < pages);
                counts.unknown_pages += pages - known;
                counts.live_pages -= known;
            }
        }
    }

    fn write(&mut self, event: &Event, t_ns: u64, ioba: u64, pages: u64) -> anyhow::Result<()> {
        let page = self.page;
        let mut done = 0;
        while done < pages {
            let part = (pages - done).min(MAX_LIST as u64);
            let (liobn, ioba, ret) = (LIOBN, ioba + done * page, 0);
            let op = match event.what {
                What::Map { paddr, perm } => {
                    let target = (paddr & !(page - 1)) + done * page;
                    self.list.clear();
                    self.list.extend((0..part).map(|nth| (target + nth * page) | perm));
                    match self.list.as_slice() {
                        [tce] => Op::Put { liobn, ioba, tce: *tce, ret },
                        _ => Op::Indirect { liobn, ioba, list: 0..part as u32, ret },
                    }
                }
                What::Unmap => Op::Stuff { liobn, ioba, value: 0, npages: part, ret },
            };
            let record = Record { line: 0, t_ns, cpu: event.cpu, op };
            write_line(&mut self.out, &record, &self.list, None)?;
            self.counts.calls += 1;
            done += part;
        }
        Ok(())
    }
}

impl Counts {
    /// What was found, and what could not be known.
    fn summary(&self) -> Vec<String> {
        let n = thousands;
        let mut lines = vec![format!(
            "{} map(s) and {} unmap(s) became {} call(s); {} page(s) are mapped at the end",
            n(self.maps),
            n(self.unmaps),
            n(self.calls),
            n(self.live_pages)
        )];
        let mut tell = |count: u64, text: String| {
            if count > 0 {
                lines.push(text);
            }
        };
        tell(self.lost, format!("{} event(s) were lost, the recording says", n(self.lost)));
        tell(
            self.unknown,
            format!(
                "{} unmap(s) name {} page(s) that nothing here had mapped: recording began later, or the \
                 map was lost; the call is kept",
                n(self.unknown),
                n(self.unknown_pages)
            ),
        );
        tell(
            self.overlaps,
            format!(
                "{} map(s) name {} page(s) that were mapped: several devices' addresses, or an unmap was \
                 lost; the call is kept and stores over them",
                n(self.overlaps),
                n(self.overlap_pages)
            ),
        );
        tell(
            self.rounded,
            format!("{} event(s) not of whole pages: rounded outwards", n(self.rounded)),
        );
        tell(
            self.misaligned,
            format!(
                "{} map(s) left out: iova and paddr differ in their place within a page",
                n(self.misaligned)
            ),
        );
        tell(self.empty, format!("{} event(s) of no bytes left out", n(self.empty)));
        tell(
            self.short_unmaps,
            format!(
                "{} unmap(s) did less than was asked; what they did is kept",
                n(self.short_unmaps)
            ),
        );
        tell(
            self.clock_back,
            format!("{} event(s) before the one above: given its time", n(self.clock_back)),
        );
        tell(self.other_lines, format!("{} other line(s)", n(self.other_lines)));
        lines
    }
}

enum Next {
    Event(Event),
    End,
    Interrupted,
}

/// The events of a recording, one after another.
struct Events<R: Read> {
    lines: Lines<R>,
    format: Format,
}

enum Format {
    Ftrace,
    /// `None` until the first line was read.
    Csv(Option<csv::Columns>),
}

impl Events<File> {
    fn open(config: &ImportConfig, format: Format) -> Result<Self, TraceError> {
        Ok(Self { lines: Lines::open(&config.input)?, format })
    }
}

impl<R: Read> Events<R> {
    fn next(&mut self, counts: &mut Counts) -> Result<Next, TraceError> {
        while self.lines.advance()? {
            if interrupted_at(self.lines.line()) {
                return Ok(Next::Interrupted);
            }
            let text = self.lines.text()?;
            let event = match &mut self.format {
                Format::Ftrace => ftrace::line(text, counts),
                Format::Csv(Some(columns)) => columns.line(text),
                Format::Csv(columns) => csv::Columns::new(text).map(|new| {
                    *columns = Some(new);
                    None
                }),
            };
            match event.map_err(|text| self.lines.fail(text))? {
                Some(event) => return Ok(Next::Event(event)),
                None => counts.other_lines += u64::from(matches!(self.format, Format::Ftrace)),
            }
        }
        Ok(Next::End)
    }

    /// The first page and how many; `None` of no bytes.
    fn pages(&self, event: &Event, page: u64) -> Result<Option<(u64, u64)>, TraceError> {
        if event.size == 0 {
            return Ok(None);
        }
        let fits = |at: u64| at.checked_add(event.size - 1);
        let paddr = match event.what {
            What::Map { paddr, .. } => paddr,
            What::Unmap => 0,
        };
        let (Some(last), Some(_)) = (fits(event.iova), fits(paddr)) else {
            return Err(self.lines.fail(format_args!(
                "iova {:#x} or paddr {paddr:#x} and size {:#x} reach beyond 2^64",
                event.iova, event.size
            )));
        };
        let first = event.iova & !(page - 1);
        Ok(Some((first, (last - first) / page + 1)))
    }
}

/// A decimal number, or a hex one with 0x.
fn number(name: &str, text: &str) -> Result<u64, String> {
    whole(text)
        .or_else(|| hex(text))
        .ok_or_else(|| format!("{name} '{}' is wrong; accepted: a number below 2^64", clip(text)))
}
