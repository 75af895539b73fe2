// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values;
use crate::outfile::OutFile;
use crate::size::parse_size;

pub(super) const EXAMPLES: &str = "\
ftrace: what /sys/kernel/tracing/trace, trace-cmd report or perf script print of iommu:map and iommu:unmap.
The events name no device, domain or permission: all go to LIOBN 0x80000000, with read and write.
csv: a first line that names the columns op (map or unmap), iova, size and, of maps, paddr; and perhaps t_ns,
cpu and perm (r, w or rw). Numbers are decimal, or hex with 0x.

A map of one page becomes an H_PUT_TCE, a longer one an H_PUT_TCE_INDIRECT for each 512 pages; an unmap an
H_STUFF_TCE of 0 for each 512 pages. What could not be known is counted, on standard error and in comments
at the end of the trace.

Examples:
  tce-bench import --from ftrace trace.txt -o host.tce.zst
  tce-bench import --from csv maps.csv --page-size 64K -o maps.tce.zst";

/// Options of `import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// ftrace (text of the events iommu:map and iommu:unmap) or csv
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    from: ImportFormat,
    /// What was recorded, plain or zstd-compressed
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// Where to, compressed by zstd if the name ends in .zst; - is standard output
    #[arg(long, short, value_name = "FILE|-")]
    output: String,
    /// IOMMU page size: 4K, 64K, 2M, 16M, 256M or 1G. What is not made of whole pages is rounded outwards
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = values::page_shift)]
    page_size: u8,
    /// Bytes of bus address space from 0 on; a power of two [default: the smallest aligned stretch that
    /// has all addresses, moved to 0; the file is read twice for it]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    window: Option<u64>,
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
    /// No summary.
    pub quiet: bool,
}

impl TryFrom<ImportArgs> for ImportConfig {
    type Error = String;

    fn try_from(args: ImportArgs) -> Result<Self, String> {
        let ImportArgs { from, input, output, page_size: page_shift, window, quiet } = args;
        if let Some(size) = window
            && (!size.is_power_of_two() || size < 1 << page_shift)
        {
            return Err(format!(
                "--window {size:#x} is wrong; accepted: a power of two, at least a page of {:#x}",
                1_u64 << page_shift
            ));
        }
        let out = OutFile::from(output.as_str());
        Ok(Self { from, input, out, page_shift, window, quiet })
    }
}
