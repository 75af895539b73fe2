// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command lines of `dma`, `cost`, `limits`, `hazards`, `sharing` and
//! `teardown`.

use std::time::Duration;

use clap::Args;
use tce_engine::backend::linux::mock_kernel::Profile;

use super::values;
use crate::outfile::OutFile;
use crate::size::{format_arg, parse_duration, parse_size};

/// Options of `dma`.
#[derive(Debug, Args)]
pub(super) struct DmaArgs {
    /// Use the devices of these IOMMU groups, as 0,1,2 [default: all groups that have edu devices]
    #[arg(long, value_name = "LIST", value_parser = values::group_list)]
    vfio_groups: Option<values::GroupList>,
    #[command(flatten)]
    output: CheckOutput,
}

/// Options of `cost`.
#[derive(Debug, Args)]
pub(super) struct CostArgs {
    /// Pages per request, as 1,8,64,512
    #[arg(long, value_name = "LIST", default_value = "1,8,64,512", value_parser = pages)]
    pages: Pages,
    /// Measure everything so often and take the least
    #[arg(long, value_name = "N", default_value = "20", value_parser = values::count::<10_000>)]
    repeat: u32,
    /// Groups that share the window
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count::<256>)]
    groups: u32,
    /// Use these IOMMU groups, as 0,1,2 [default: the first ones that can be used]
    #[arg(long, value_name = "LIST", value_parser = values::group_list)]
    vfio_groups: Option<values::GroupList>,
    /// Refuse to run unless times are instruction counts, as under scripts/power8-vm --icount
    #[arg(long)]
    icount: bool,
    /// Whose containers: vfio, mock-kernel, mock for none, or auto for vfio if there is any
    #[arg(long, value_name = "KIND", default_value = "auto", value_enum)]
    #[arg(hide_possible_values = true)]
    backend: values::BackendChoice,
    #[command(flatten)]
    output: CheckOutput,
}

/// Options of `limits`.
#[derive(Debug, Args)]
pub(super) struct LimitsArgs {
    /// Bytes of table, as 64K,4M; multiples of 4K
    #[arg(long, value_name = "LIST", default_value = "64K,1M,4M,16M,64M,256M")]
    #[arg(value_parser = table_sizes)]
    sizes: TableSizes,
    /// Time each loop so often for each size
    #[arg(long, value_name = "N", default_value = "10", value_parser = values::count::<10_000>)]
    repeat: u32,
    #[command(flatten)]
    output: CheckOutput,
}

/// Options of `hazards`.
#[derive(Debug, Args)]
pub(super) struct HazardsArgs {
    /// Only these kernels, as k4_2,k6_11 [default: all]
    #[arg(long, value_name = "LIST", value_parser = profile, value_delimiter = ',')]
    profile: Vec<Profile>,
    /// Only this trap. May be given more than once [default: all]
    #[arg(long, value_name = "TRAP", value_parser = trap)]
    trap: Vec<String>,
    #[command(flatten)]
    output: CheckOutput,
}

pub(super) fn profile(name: &str) -> Result<Profile, String> {
    name.parse::<Profile>().map_err(|e| e.to_string())
}

fn trap(name: &str) -> Result<String, String> {
    let mut names = crate::cmd::hazards::names();
    if names.any(|known| known == name) {
        return Ok(name.to_owned());
    }
    let all: Vec<_> = crate::cmd::hazards::names().collect();
    Err(format!("no trap {name:?}; there are {}", all.join(", ")))
}

/// Options of `sharing`.
#[derive(Debug, Args)]
pub(super) struct SharingArgs {
    /// Numbers of groups, and of containers, as 1,2,64; at most 256
    #[arg(long, value_name = "LIST", default_value = "1,2,4,8,16,32,64,128,256")]
    #[arg(value_parser = values::count::<256>, value_delimiter = ',')]
    groups: Vec<u32>,
    #[command(flatten)]
    output: CheckOutput,
}

/// Options of `teardown`.
#[derive(Debug, Args)]
pub(super) struct TeardownArgs {
    /// Sizes of the window that goes, in pages of 64K; powers of two from 1G
    #[arg(long, value_name = "LIST", default_value = "1G,32G,1T", value_delimiter = ',')]
    #[arg(value_parser = window_size)]
    windows: Vec<u64>,
    /// Levels of its table, where it can have so many
    #[arg(long, value_name = "LIST", default_value = "2,3", value_delimiter = ',')]
    #[arg(value_parser = values::count::<5>)]
    levels: Vec<u32>,
    /// Groups that share it
    #[arg(long, value_name = "LIST", default_value = "1,8", value_delimiter = ',')]
    #[arg(value_parser = values::count::<255>)]
    groups: Vec<u32>,
    /// Live entries, spread over the window
    #[arg(long, value_name = "N", default_value = "4096", value_parser = values::count::<16384>)]
    live: u32,
    /// Windows that go, one after the other
    #[arg(long, value_name = "N", default_value = "20", value_parser = values::count::<100_000>)]
    rounds: u32,
    /// Peers: threads that map and unmap in another window meanwhile
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count::<32>)]
    threads: u32,
    /// Measure the peers for so long before each removal
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = parse_duration)]
    calm: Duration,
    #[command(flatten)]
    output: CheckOutput,
}

fn window_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if !bytes.is_power_of_two() || !(1 << 30..=1 << 50).contains(&bytes) {
        return Err(format!("{text} is no power of two from 1G to 1P"));
    }
    Ok(bytes)
}

/// Where the results of a check go.
#[derive(Debug, Args)]
struct CheckOutput {
    /// Write the result as one JSON document; - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    json: Option<String>,
    /// No table
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

/// Numbers of pages; a type of its own, since clap gives `Vec` another meaning.
#[derive(Debug, Clone)]
struct Pages(Vec<u64>);

/// Most pages per request.
const MOST_PAGES: u64 = 4096;

fn pages(text: &str) -> Result<Pages, String> {
    let number = |part: &str| {
        part.trim().parse().ok().filter(|n| (1..=MOST_PAGES).contains(n)).ok_or_else(|| {
            format!("'{part}' is no number of pages; accepted: 1 to {MOST_PAGES}, as 1,8,64")
        })
    };
    text.split(',').map(number).collect::<Result<_, _>>().map(Pages)
}

/// Sizes of tables.
#[derive(Debug, Clone)]
struct TableSizes(Vec<u64>);

/// One list: what a copy passes over at a time.
const TABLE_UNIT: u64 = 4096;

fn table_sizes(text: &str) -> Result<TableSizes, String> {
    let size = |part: &str| {
        let bytes = parse_size(part)?;
        if bytes == 0 || !bytes.is_multiple_of(TABLE_UNIT) {
            let unit = format_arg(TABLE_UNIT);
            return Err(format!("'{part}' is no size of a table; accepted: multiples of {unit}"));
        }
        Ok(bytes)
    };
    text.split(',').map(size).collect::<Result<_, _>>().map(TableSizes)
}

/// The settings of `dma`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmaConfig {
    /// `None`: all that have edu devices.
    pub vfio_groups: Option<Vec<u32>>,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// No table.
    pub quiet: bool,
}

/// The settings of `cost`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostConfig {
    /// Pages per request, each 1 to 4096.
    pub pages: Vec<u64>,
    /// At least 1.
    pub repeat: u32,
    /// At least 1.
    pub groups: u32,
    /// At least `groups` of them.
    pub vfio_groups: Option<Vec<u32>>,
    /// Only if times are instruction counts.
    pub icount: bool,
    /// Whose containers.
    pub backend: values::BackendChoice,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// No table.
    pub quiet: bool,
}

/// The settings of `limits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Bytes of each table, at least one, whole lists of 4096; not yet checked against the memory.
    pub sizes: Vec<u64>,
    /// At least 1.
    pub repeat: u32,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// No table.
    pub quiet: bool,
}

/// The settings of `hazards`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HazardsConfig {
    /// At least one.
    pub profiles: Vec<Profile>,
    /// Names of traps; none for all.
    pub traps: Vec<String>,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// No table.
    pub quiet: bool,
}

impl From<HazardsArgs> for HazardsConfig {
    fn from(args: HazardsArgs) -> Self {
        let all = || Profile::ALL.to_vec();
        Self {
            profiles: if args.profile.is_empty() { all() } else { args.profile },
            traps: args.trap,
            json: args.output.json.as_deref().map(OutFile::from),
            quiet: args.output.quiet,
        }
    }
}

/// The settings of `sharing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharingConfig {
    /// Each 1 to 256.
    pub groups: Vec<u32>,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// No table.
    pub quiet: bool,
}

impl From<SharingArgs> for SharingConfig {
    fn from(args: SharingArgs) -> Self {
        Self {
            groups: args.groups,
            json: args.output.json.as_deref().map(OutFile::from),
            quiet: args.output.quiet,
        }
    }
}

/// The settings of `teardown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeardownConfig {
    /// Each a power of two from 1 GiB.
    pub windows: Vec<u64>,
    /// Each 1 to 5; not every window can have them.
    pub levels: Vec<u32>,
    /// Each 1 to 255.
    pub members: Vec<u32>,
    /// 1 to 16384, as many pages as the smallest window has.
    pub live: u64,
    /// At least 1.
    pub rounds: u32,
    /// At least 1.
    pub threads: u32,
    /// Before each removal.
    pub calm: Duration,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// No table.
    pub quiet: bool,
}

impl From<TeardownArgs> for TeardownConfig {
    fn from(args: TeardownArgs) -> Self {
        Self {
            windows: args.windows,
            levels: args.levels,
            members: args.groups,
            live: args.live.into(),
            rounds: args.rounds,
            threads: args.threads,
            calm: args.calm,
            json: args.output.json.as_deref().map(OutFile::from),
            quiet: args.output.quiet,
        }
    }
}

impl From<LimitsArgs> for LimitsConfig {
    fn from(args: LimitsArgs) -> Self {
        Self {
            sizes: args.sizes.0,
            repeat: args.repeat,
            json: args.output.json.as_deref().map(OutFile::from),
            quiet: args.output.quiet,
        }
    }
}

impl From<DmaArgs> for DmaConfig {
    fn from(args: DmaArgs) -> Self {
        Self {
            vfio_groups: args.vfio_groups.map(|list| list.0),
            json: args.output.json.as_deref().map(OutFile::from),
            quiet: args.output.quiet,
        }
    }
}

impl TryFrom<CostArgs> for CostConfig {
    type Error = String;

    fn try_from(args: CostArgs) -> Result<Self, String> {
        let vfio_groups = args.vfio_groups.map(|list| list.0);
        if let Some(named) = &vfio_groups
            && named.len() < args.groups as usize
        {
            let (groups, named) = (args.groups, named.len());
            return Err(format!("--groups {groups}, but --vfio-groups names {named}"));
        }
        Ok(Self {
            pages: args.pages.0,
            repeat: args.repeat,
            groups: args.groups,
            vfio_groups,
            icount: args.icount,
            backend: args.backend,
            json: args.output.json.as_deref().map(OutFile::from),
            quiet: args.output.quiet,
        })
    }
}
