// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `crash`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};

use super::config::RunConfig;
use super::values::{self, BackendChoice};
use super::{Cli, OutputArgs, RunArgs};
use crate::size::parse_duration;

pub(super) const EXAMPLES: &str = "\
Each round starts a run, a churn or a replay of this program and kills it (SIGKILL): after a random while,
when it begins a random one of its requests, or when it has so much memory locked. Then nothing may be left:
the groups can be had at once, or as soon as the kernel has let go of them, which is timed; pinned pages,
locked memory and free huge pages are as before; a result file holds the old content or all of the new; and a
fresh run says that it is verified. All the while another process keeps a container of its own, maps and
unmaps in it and compares, and what it has locked may not change.

On real groups, the bystander has the first one and victims have the others: two are needed, five are better.
Memory that others lock or unpin on the machine meanwhile is taken for the victims'. On mocks, victims are
processes of mocks and of simulated kernels; there is no group that could be looked at afterwards.

Examples:
  tce-bench crash --backend mock
  tce-bench crash --backend mock --trace workloads/traces/net-tx.tce.zst
  tce-bench crash --backend vfio --rounds 200 --json crash.json
  tce-bench crash --backend vfio --vfio-groups 3,4,5 --seed 7

Exit code 1 if anything was left or lost (schema tce-bench.crash/1).";

/// Options of `crash`.
#[derive(Debug, Args)]
pub(super) struct CrashArgs {
    /// So many kills
    #[arg(long, value_name = "N", default_value = "20", value_parser = values::count::<1_000_000>)]
    rounds: u32,
    /// mock: processes with mocks and simulated kernels; vfio: the real /dev/vfio; auto: vfio if usable,
    /// else mock
    #[arg(long, value_name = "KIND", default_value = "auto", value_enum)]
    #[arg(hide_possible_values = true)]
    backend: BackendChoice,
    /// The groups to use, as 0,1,2: the first one is the bystander's [default: all viable ones]
    #[arg(long, value_name = "LIST", value_parser = values::group_list)]
    vfio_groups: Option<values::GroupList>,
    /// Without real groups: kill replays of this trace, too. May be given more than once
    #[arg(long = "trace", value_name = "FILE")]
    traces: Vec<PathBuf>,
    /// How long the kernel may take until a killed process is gone, until its groups can be had, and until
    /// the system is as before; it resets each device that was open, which can take seconds
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    patience: Duration,
    /// Seed of all random choices, decimal or hex
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::seed)]
    seed: u64,
    /// Write the result as one JSON document; - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    json: Option<String>,
    /// No log and no table
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
    /// Be the process beside.
    #[arg(long, hide = true)]
    bystander: bool,
}

/// The settings of `crash`.
#[derive(Debug, Clone, PartialEq)]
pub struct CrashConfig {
    /// Machine, window, seed and output; of the bystander, with the first group alone.
    pub run: RunConfig,
    /// At least 1.
    pub rounds: u32,
    /// Traces whose replays are killed; none on real groups.
    pub traces: Vec<PathBuf>,
    /// How long the kernel may take.
    pub patience: Duration,
    /// Not the command itself but the process beside its victims.
    pub is_bystander: bool,
}

/// Pages of the bystander's window and of the memory behind it.
const PAGES: u64 = 1024;
const BUFFER: u64 = 256;

impl TryFrom<CrashArgs> for CrashConfig {
    type Error = String;

    fn try_from(args: CrashArgs) -> Result<Self, String> {
        if args.backend == BackendChoice::MockKernel {
            return Err(
                "--backend mock-kernel is a part of mock, whose victims have simulated kernels, \
                        too; accepted: mock, vfio or auto"
                    .to_owned(),
            );
        }
        if args.backend == BackendChoice::Mock && args.vfio_groups.is_some() {
            return Err("--vfio-groups with --backend mock; accepted: vfio".to_owned());
        }
        let backend = match args.vfio_groups {
            Some(_) => BackendChoice::Vfio,
            None => args.backend,
        };
        if backend == BackendChoice::Vfio && !args.traces.is_empty() {
            return Err(
                "--trace with real groups: a replay needs the mock; accepted: --backend mock"
                    .to_owned(),
            );
        }
        if let Some(values::GroupList(named)) = &args.vfio_groups
            && (named.len() == 1) != args.bystander
        {
            return Err(format!(
                "--vfio-groups names {}; accepted: two groups or more, the bystander's first",
                named.len()
            ));
        }
        let defaults = Cli::try_parse_from(["tce-bench"]).map_err(|e| e.to_string())?.run;
        let real = backend == BackendChoice::Vfio;
        let host_page = rustix::param::page_size() as u64;
        let page = if real { host_page } else { 1 << 16 };
        let run = RunArgs {
            groups: None,
            vfio_groups: args.vfio_groups,
            window: PAGES * page,
            buffer: Some(BUFFER * page),
            page_size: page.trailing_zeros() as u8,
            backend,
            seed: args.seed,
            output: OutputArgs {
                json: args.json,
                hlog: None,
                profiles: Vec::new(),
                label: None,
                quiet: args.quiet,
            },
            ..defaults
        };
        Ok(Self {
            run: run.try_into()?,
            rounds: args.rounds,
            traces: args.traces,
            patience: args.patience,
            is_bystander: args.bystander,
        })
    }
}
