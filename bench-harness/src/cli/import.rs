// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tce_engine::addr::PageShift;

use super::values;
use crate::outfile::OutFile;
use crate::size::{hex, parse_size, whole};
use crate::trace::clip;

/// Of recordings that do not tell it.
const DEFAULT_PAGE_SHIFT: u8 = 12;

pub(super) const EXAMPLES: &str = "\
ftrace: what /sys/kernel/tracing/trace, trace-cmd report or perf script print of iommu:map and iommu:unmap.
The events name no device, domain or permission: all go to LIOBN 0x80000000, with read and write.
csv: a first line that names the columns op (map or unmap), iova, size and, of maps, paddr; and perhaps t_ns,
cpu and perm (r, w or rw). Numbers are decimal, or hex with 0x.

A map of one page becomes an H_PUT_TCE, a longer one an H_PUT_TCE_INDIRECT for each 512 pages; an unmap an
H_STUFF_TCE of 0 for each 512 pages. What could not be known is counted, on standard error and in comments
at the end of the trace.

qemu: what scripts/record-guest or its plugin wrote of a pseries guest: the hypercalls themselves, with their
lists and answers. The capture tells the windows of power-on. --window tells others or of others; a LIOBN whose
window nobody tells gets the smallest aligned one that has all addresses it was called with, which is the whole
one if a Linux cleared it as it booted. Of a recording that was cut off, what is whole is taken.

Examples:
  tce-bench import --from ftrace trace.txt -o host.tce.zst
  tce-bench import --from csv maps.csv --page-size 64K -o maps.tce.zst
  tce-bench import --from qemu boot.tcecap -o boot.tce.zst
  tce-bench import --from qemu boot.tcecap --window 0x80000000:0:12:262144 -o boot.tce.zst";

/// Options of `import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// ftrace (text of the events iommu:map and iommu:unmap), csv, or qemu (a capture of scripts/record-guest)
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    from: ImportFormat,
    /// What was recorded, plain or zstd-compressed
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// Where to, compressed by zstd if the name ends in .zst; - is standard output
    #[arg(long, short, value_name = "FILE|-")]
    output: String,
    /// IOMMU page size: 4K, 64K, 2M, 16M, 256M or 1G. What is not made of whole pages is rounded outwards;
    /// not for qemu [default: 4K]
    #[arg(long, value_name = "SIZE", value_parser = values::page_shift)]
    page_size: Option<u8>,
    /// Bytes of bus address space from 0 on; a power of two [default: the smallest aligned stretch that
    /// has all addresses, moved to 0; the file is read twice for it]. For qemu, a window of power-on:
    /// LIOBN:START:SHIFT:PAGES (0x80000000:0:12:262144), which may be repeated
    #[arg(long, value_name = "SIZE", value_parser = WindowArg::parse)]
    window: Vec<WindowArg>,
    /// Do not say on standard error what was found
    #[arg(long, short)]
    quiet: bool,
}

/// What recordings there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// Text of Linux' event tracing.
    Ftrace,
    /// Comma-separated values.
    Csv,
    /// A capture of scripts/record-guest.
    Qemu,
}

/// A window that there is before the first call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerOn {
    /// Its name.
    pub liobn: u32,
    /// Where it begins on the bus.
    pub start: u64,
    /// log2 of its page size.
    pub page_shift: u8,
    /// How many pages it has.
    pub pages: u64,
}

impl PowerOn {
    /// Reads `LIOBN:START:SHIFT:PAGES`.
    ///
    /// # Errors
    /// What is wrong with it, one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "the window '{}' is wrong: {what}; accepted: LIOBN:START:SHIFT:PAGES",
                clip(text)
            )
        };
        let mut parts = text.split(':');
        let mut next = |name: &str| {
            let part = parts.next().ok_or_else(|| wrong(&format!("it has no {name}")))?;
            let number = whole(part).or_else(|| hex(part));
            number.ok_or_else(|| wrong(&format!("its {name} is no number")))
        };
        let (liobn, start) = (next("LIOBN")?, next("START")?);
        let (shift, pages): (u64, u64) = (next("SHIFT")?, next("PAGES")?);
        if parts.next().is_some() {
            return Err(wrong("it has more than four parts"));
        }
        let liobn = u32::try_from(liobn)
            .map_err(|_| wrong(&format!("the limit of a LIOBN is {:#x}", u32::MAX)))?;
        let page = u32::try_from(shift).ok().and_then(PageShift::new);
        let page = page.ok_or_else(|| wrong("a SHIFT is 12 to 34"))?;
        let size = pages.checked_mul(page.bytes()).filter(|_| pages.is_power_of_two());
        let size =
            size.ok_or_else(|| wrong("PAGES are a power of two, together less than 2^64 bytes"))?;
        if !start.is_multiple_of(page.bytes()) || start.checked_add(size - 1).is_none() {
            return Err(wrong("it begins on no whole page, or reaches beyond 2^64"));
        }
        Ok(Self { liobn, start, page_shift: shift as u8, pages })
    }
}

/// What `--window` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WindowArg {
    /// Bytes.
    Size(u64),
    /// One of power-on.
    PowerOn(PowerOn),
}

impl WindowArg {
    fn parse(text: &str) -> Result<Self, String> {
        match text.contains(':') {
            true => PowerOn::parse(text).map(Self::PowerOn),
            false => parse_size(text).map(Self::Size),
        }
    }
}

/// The settings of `import`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportConfig {
    /// What it is.
    pub from: ImportFormat,
    /// The recording.
    pub input: PathBuf,
    /// Where to.
    pub out: OutFile,
    /// log2 of the page size.
    pub page_shift: u8,
    /// Size of the window, from 0 on.
    pub window: Option<u64>,
    /// Windows of power-on, of a capture.
    pub power_on: Vec<PowerOn>,
    /// No summary.
    pub quiet: bool,
}

impl TryFrom<ImportArgs> for ImportConfig {
    type Error = String;

    fn try_from(args: ImportArgs) -> Result<Self, String> {
        let ImportArgs { from, input, output, page_size, window: windows, quiet } = args;
        let page_shift = page_size.unwrap_or(DEFAULT_PAGE_SHIFT);
        let (mut window, mut power_on) = (None, Vec::new());
        for given in windows {
            match (given, from) {
                (WindowArg::PowerOn(new), ImportFormat::Qemu) => {
                    if power_on.iter().any(|old: &PowerOn| old.liobn == new.liobn) {
                        return Err(format!("--window names the LIOBN {:#x} twice", new.liobn));
                    }
                    power_on.push(new);
                }
                (WindowArg::Size(size), ImportFormat::Ftrace | ImportFormat::Csv) => {
                    if !size.is_power_of_two() || size < 1 << page_shift {
                        return Err(format!(
                            "--window {size:#x} is wrong; accepted: a power of two, at least a page of {:#x}",
                            1_u64 << page_shift
                        ));
                    }
                    if window.replace(size).is_some() {
                        return Err(
                            "--window is given twice; accepted: once, but with --from qemu".into(),
                        );
                    }
                }
                (WindowArg::Size(size), ImportFormat::Qemu) => {
                    return Err(format!(
                        "--window {size:#x} says no LIOBN; accepted with --from qemu: LIOBN:START:SHIFT:PAGES"
                    ));
                }
                (WindowArg::PowerOn(_), _) => {
                    return Err(
                        "--window LIOBN:START:SHIFT:PAGES is for --from qemu; accepted: a size"
                            .into(),
                    );
                }
            }
        }
        if page_size.is_some() && from == ImportFormat::Qemu {
            return Err("--page-size is not for --from qemu: there, each window has its own".into());
        }
        let out = OutFile::from(output.as_str());
        Ok(Self { from, input, out, page_shift, window, power_on, quiet })
    }
}
