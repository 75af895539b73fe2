// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `stale`.

use clap::Args;
use tce_engine::backend::mock::TceCache;
use tce_engine::platform::Platform;

use super::policies::{each_once, fill, platform};
use super::values;
use crate::outfile::OutFile;
use crate::policy::{Batch, Fill, Policy};

pub(super) const EXAMPLES: &str = "\
The PHB remembers translations: in lines of several TCEs, empty ones among them, and only kills make it
forget. Each thread replays the trace on PHBs, LIOBNs and memory of its own, by a handle for each recorded
vCPU, and devices read and write meanwhile. Before each call it is said which pages may change, and after
it what is there: a device that then finds anything else has met a violation, and so has one whose access
is still under way when its page has been let go of. All that happened to that page is printed.

After strict calls, that is what they stored. With deferred, what was unmapped may be found until the
handle has settled what it owes, but nothing else, and what was mapped must be. With batched, all of this
holds at the end of a batch. Whatever is reached is the guest's. Each turn through the trace ends with a
look at all entries, and a reset.

Examples:
  tce-bench stale workloads/traces/mixed.tce.zst --loops 200 --threads 2
  tce-bench stale random --calls 1000000 --seed 7 --loops 8 --threads 8
  tce-bench stale net-rx.tce.zst --policy deferred=64,1ms --tce-cache 64,4 --pace 8
  tce-bench stale my.tce.zst --fill always,never --platform phb4 --groups 3 --json stale.json

Exit code 1 after a violation, or an answer or an entry that is not the trace's (schema
tce-bench.stale/1).";

/// Options of `stale`.
#[derive(Debug, Args)]
pub(super) struct StaleArgs {
    /// A trace file; the name of a trace in workloads/traces; or a guest that is made up: random, anything
    /// anywhere in two small windows; ring or block, as policies has them
    #[arg(value_name = "TRACE|random|ring|block")]
    workload: String,
    /// Calls of a guest that is made up, in a turn
    #[arg(long, value_name = "N", default_value = "200000", value_parser = values::count::<10_000_000>)]
    calls: u32,
    /// A policy to try, as replay has them. May be given more than once [default: strict, batched=50us and
    /// deferred=256]
    #[arg(long = "policy", value_name = super::POLICY_FORMS, value_parser = values::policy)]
    policies: Vec<Policy>,
    /// When filled entries are killed: always; beside-live[=ENTRIES], where another entry of the line was
    /// live; never. Each with a cache that makes it right: with beside-live its lines are of so many
    /// entries, and failed translations are not kept; with never no empty entry is
    #[arg(long, value_name = "LIST", default_value = "always", value_delimiter = ',')]
    #[arg(value_parser = fill)]
    fill: Vec<Fill>,
    /// Devices, each a thread that uses all PEs
    #[arg(long, value_name = "N", default_value = "2", value_parser = values::count::<16>)]
    devices: u32,
    /// Accesses of all devices for each hypercall, at least: threads that are ahead wait
    #[arg(long, value_name = "N", default_value = "2", value_parser = values::count::<1000>)]
    pace: u32,
    /// Threads that replay the trace
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count::<64>)]
    threads: u32,
    /// Turns through the trace, of all threads together [default: one for each]
    #[arg(long, value_name = "N", value_parser = values::count::<1_000_000>)]
    loops: Option<u32>,
    /// PEs behind each PHB; all have to forget what one does
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count::<64>)]
    groups: u32,
    /// Entries of the PHB's TCE cache, and of a line of it; powers of two
    #[arg(long, value_name = "ENTRIES,LINE", default_value = "1024,8", value_parser = cache)]
    tce_cache: TceCache,
    /// phb3, phb4 or phb5
    #[arg(long, value_name = "NAME", default_value = "phb3", value_parser = platform)]
    platform: Platform,
    /// Seed of all random choices, decimal or hex
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::seed)]
    seed: u64,
    /// Write the result as one JSON document; - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    json: Option<String>,
    /// A name for this run, kept in the result
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    label: Option<String>,
    /// No progress bar and no table
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

fn cache(text: &str) -> Result<TceCache, String> {
    let number = |part: &str| {
        let number: Option<usize> = part.trim().parse().ok();
        number.filter(|n| n.is_power_of_two())
    };
    let sizes = text.split_once(',').and_then(|(a, b)| Some((number(a)?, number(b)?)));
    match sizes {
        Some((entries, line)) if line <= entries && line <= 512 && entries <= 1 << 20 => {
            Ok(TceCache { entries, line, ..TceCache::POWER8 })
        }
        _ => Err(format!(
            "'{text}' is no TCE cache; accepted: its entries, up to 1048576, and those of a line, up to \
             512, as 1024,8, powers of two"
        )),
    }
}

/// The settings of `stale`.
#[derive(Debug, Clone, PartialEq)]
pub struct StaleConfig {
    /// A guest that is made up, a trace's name or a path; not yet looked for.
    pub workload: String,
    /// Of a guest that is made up; at least 1.
    pub calls: u32,
    /// At least one, each once.
    pub policies: Vec<Policy>,
    /// At least one, each once.
    pub fills: Vec<Fill>,
    /// 1 to 16.
    pub devices: u32,
    /// At least 1.
    pub pace: u32,
    /// 1 to 64.
    pub threads: u32,
    /// At least as many as threads.
    pub loops: u32,
    /// PEs behind each PHB, 1 to 64.
    pub groups: u32,
    /// What the PHB remembers; of those rules for fills that say nothing of it.
    pub cache: TceCache,
    /// Whose kill registers.
    pub platform: Platform,
    /// Of all random choices.
    pub seed: u64,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// A name for the run.
    pub label: Option<String>,
    /// No progress bar and no table.
    pub quiet: bool,
}

impl TryFrom<StaleArgs> for StaleConfig {
    type Error = String;

    fn try_from(args: StaleArgs) -> Result<Self, String> {
        let loops = args.loops.unwrap_or(args.threads);
        if loops < args.threads {
            return Err(format!(
                "--loops {loops} with --threads {threads}; accepted: {threads} or more, as they are dealt \
                 out",
                threads = args.threads
            ));
        }
        let too_long = |fill: &Fill| matches!(fill, Fill::BesideLive(line) if *line as usize > args.tce_cache.entries);
        if let Some(fill) = args.fill.iter().find(|fill| too_long(fill)) {
            return Err(format!(
                "--fill {fill} in a TCE cache of {} entries; accepted: lines that fit in",
                args.tce_cache.entries
            ));
        }
        let mut policies = args.policies;
        if policies.is_empty() {
            policies = vec![Policy::Strict, Policy::Batched(None), Policy::deferred()];
        }
        let policies = policies.into_iter().map(|policy| policy.or_batch(Batch::RECORDED));
        Ok(Self {
            workload: args.workload,
            calls: args.calls,
            policies: each_once(policies.collect()),
            fills: each_once(args.fill),
            devices: args.devices,
            pace: args.pace,
            threads: args.threads,
            loops,
            groups: args.groups,
            cache: args.tce_cache,
            platform: args.platform,
            seed: args.seed,
            json: args.json.as_deref().map(OutFile::from),
            label: args.label,
            quiet: args.quiet,
        })
    }
}
