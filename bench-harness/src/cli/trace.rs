// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command lines of `trace stat`, `trace cut` and `import`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::outfile::OutFile;
use crate::size::{hex, whole};

pub(super) const TRACE_EXAMPLES: &str = "\
Examples:
  tce-bench trace stat workloads/traces/*.zst
  tce-bench trace stat mixed.tce.zst --json stat.json
  tce-bench trace cut mixed.tce.zst --calls 100000-120000 -o part.tce.zst
  tce-bench trace cut boot.tce.zst --liobn 0x80000001 -o window.tce.zst";

const STAT_EXAMPLES: &str = "\
A map call maps at least one page, an unmap call clears at least one that is mapped. Percentiles are
nearest-rank. A page's life is the number of calls, of any kind and LIOBN, from its map to its unmap.";

const CUT_EXAMPLES: &str = "\
The result replays like any trace: all window calls before the range are kept, and what is mapped where it
begins is mapped by calls of its own first (cpu -, at the time of the line before the range). Times stay
those of the whole trace. Comments are not kept.

Examples:
  tce-bench trace cut mixed.tce.zst --calls 100000-120000 -o part.tce.zst
  tce-bench trace cut xlate-mixed.tce.zst --kind put,indirect,stuff -o calls.tce.zst";

/// Options of `trace`.
#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(Debug, Subcommand)]
enum TraceCommand {
    /// Count what traces hold: calls, mappings, lifetimes, adjacency
    #[command(after_help = STAT_EXAMPLES)]
    Stat(StatArgs),
    /// Write a part of a trace as a trace of its own
    #[command(after_help = CUT_EXAMPLES)]
    Cut(CutArgs),
}

#[derive(Debug, Args)]
struct StatArgs {
    /// Traces in the format `tce-trace 1`, plain or zstd-compressed
    #[arg(value_name = "TRACE", required = true)]
    traces: Vec<PathBuf>,
    /// Write the statistics as one JSON document (schema tce-bench.trace-stat/1); - is standard output
    #[arg(long, value_name = "FILE|-")]
    json: Option<String>,
    /// No table
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct CutArgs {
    /// A trace in the format `tce-trace 1`, plain or zstd-compressed
    #[arg(value_name = "TRACE")]
    trace: PathBuf,
    /// Keep these hypercalls and what stands between them, as 1000-2000; counted from 1, both ends kept
    #[arg(long, value_name = "FROM-TO", value_parser = call_range)]
    calls: Option<CallRange>,
    /// Keep these LIOBNs, and all window calls of their PHBs, as 0x80000000,0x80000001
    #[arg(long, value_name = "LIST", value_parser = liobn, value_delimiter = ',')]
    liobn: Vec<u32>,
    /// Keep these kinds, and all window calls: put, indirect, stuff, get, xlate
    #[arg(
        long,
        value_name = "LIST",
        value_enum,
        value_delimiter = ',',
        hide_possible_values = true
    )]
    kind: Vec<LineKind>,
    /// Where to, compressed by zstd if the name ends in .zst; - is standard output
    #[arg(long, short, value_name = "FILE|-")]
    output: String,
    /// Do not say on standard error what was kept
    #[arg(long, short)]
    quiet: bool,
}

/// Hypercalls from one to another, both included, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

fn call_range(text: &str) -> Result<CallRange, String> {
    let wrong = || format!("'{text}' is no range of calls; accepted: as 1000-2000, from 1");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| whole(text).ok_or_else(wrong);
    let range = CallRange { first: number(first)?, last: number(last)? };
    if range.first == 0 || range.last < range.first {
        return Err(wrong());
    }
    Ok(range)
}

fn liobn(text: &str) -> Result<u32, String> {
    let number = hex(text).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| format!("'{text}' is no LIOBN; accepted: 0x and 1 to 8 hex digits"))
}

/// Lines of a trace that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LineKind {
    /// H_PUT_TCE.
    Put,
    /// H_PUT_TCE_INDIRECT.
    Indirect,
    /// H_STUFF_TCE.
    Stuff,
    /// H_GET_TCE.
    Get,
    /// A translation.
    Xlate,
}

impl LineKind {
    /// What changes a table.
    pub const CHANGES: [Self; 3] = [Self::Put, Self::Indirect, Self::Stuff];
    /// What tells what is in it.
    pub const LOOKS: [Self; 2] = [Self::Get, Self::Xlate];
}

/// The settings of `trace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceConfig {
    /// Count.
    Stat(StatConfig),
    /// Cut.
    Cut(CutConfig),
}

/// The settings of `trace stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatConfig {
    /// At least one.
    pub traces: Vec<PathBuf>,
    /// The document.
    pub json: Option<OutFile>,
    /// No table.
    pub quiet: bool,
}

/// The settings of `trace cut`; at least one of the three says what to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutConfig {
    /// The trace.
    pub trace: PathBuf,
    /// Which calls.
    pub calls: Option<CallRange>,
    /// Empty = all.
    pub liobns: Vec<u32>,
    /// Empty = all.
    pub kinds: Vec<LineKind>,
    /// Where to.
    pub out: OutFile,
    /// No summary.
    pub quiet: bool,
}

impl TryFrom<TraceArgs> for TraceConfig {
    type Error = String;

    fn try_from(args: TraceArgs) -> Result<Self, String> {
        match args.command {
            TraceCommand::Stat(StatArgs { traces, json, quiet }) => {
                let json = json.as_deref().map(OutFile::from);
                Ok(Self::Stat(StatConfig { traces, json, quiet }))
            }
            TraceCommand::Cut(args) => cut(args).map(Self::Cut),
        }
    }
}

fn cut(args: CutArgs) -> Result<CutConfig, String> {
    let CutArgs { trace, calls, liobn: liobns, kind: kinds, output, quiet } = args;
    if calls.is_none() && liobns.is_empty() && kinds.is_empty() {
        return Err("nothing says what to keep; accepted: --calls, --liobn, --kind".to_string());
    }
    // Without a call that stores, what a call that looks has to find would not be known.
    let dropped = LineKind::CHANGES.iter().find(|kind| !kinds.contains(kind));
    let looks = LineKind::LOOKS.iter().find(|kind| kinds.contains(kind));
    if let (Some(dropped), Some(looks)) = (dropped.filter(|_| !kinds.is_empty()), looks) {
        let name = |kind: &LineKind| {
            kind.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
        };
        return Err(format!(
            "--kind with {} and without {}: what it finds is what that one stored; accepted: put, \
             indirect and stuff together, or neither get nor xlate",
            name(looks),
            name(dropped)
        ));
    }
    let out = OutFile::from(output.as_str());
    Ok(CutConfig { trace, calls, liobns, kinds, out, quiet })
}
