// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: what can be typed, and its help. [`parse`] gives checked settings.

mod checks;
mod churn;
mod compare;
mod config;
mod crash;
mod examples;
mod export;
mod import;
mod machine;
mod mixed;
mod origins;
mod parse;
mod policies;
mod report;
mod soak;
mod stale;
mod sweep;
#[cfg(test)]
mod tests;
mod trace;
mod values;
mod workloads;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use tce_engine::backend::mock::KillCost;
use tce_engine::platform::Platform;

use crate::policy::Policy;
use crate::size::{parse_duration, parse_size};

use checks::{CostArgs, DmaArgs, HazardsArgs, LimitsArgs, SharingArgs, TeardownArgs};
use churn::ChurnArgs;
use compare::{COMPARE_EXAMPLES, CompareArgs, GateArgs};
use crash::CrashArgs;
use export::{EXPORT_EXAMPLES, ExportArgs, MERGE_EXAMPLES, MergeArgs};
use import::ImportArgs;
use machine::{CompletionsArgs, DoctorArgs, InfoArgs, ManArgs, PlanArgs};
use mixed::MixedArgs;
use parse::from_clap;
use policies::PoliciesArgs;
use report::{REPORT_EXAMPLES, ReportArgs};
use soak::SoakArgs;
use stale::StaleArgs;
use trace::{TRACE_EXAMPLES, TraceArgs};
use workloads::{WORKLOADS_EXAMPLES, WorkloadsArgs};

pub use checks::{
    CostConfig, DmaConfig, HazardsConfig, LimitsConfig, SharingConfig, TeardownConfig,
};
pub use churn::ChurnConfig;
pub use compare::{CompareConfig, Compared, Format, PairsConfig};
pub use config::{Output, ReplayConfig, RunConfig};
pub use crash::CrashConfig;
pub use export::{Better, ExportConfig, ExportFormat, MergeConfig};
pub use import::{ImportConfig, ImportFormat, PowerOn};
pub use machine::{DoctorConfig, InfoConfig, PlanConfig};
pub use origins::{Origin, Origins};
pub use parse::{Exit, Invocation, parse};
pub use policies::PoliciesConfig;
pub use report::{ReportConfig, Reported};
pub use soak::SoakConfig;
pub use stale::StaleConfig;
pub use sweep::{Point, Sweep, SweepConfig};
pub use trace::{CallRange, CutConfig, LineKind, StatConfig, TraceConfig};
pub use values::{BackendChoice, Detach, Levels, Limit, Pass, Phase, Rules, Simd};
pub use workloads::{VerifyConfig, WorkloadsConfig, check_option, small};

/// Exit code of a command line that cannot be understood or asks for what cannot be.
pub const EXIT_USAGE: u8 = 2;

const ABOUT: &str = "Benchmarks a DMA mapping engine for POWER IOMMUs (TCE tables)";

const EXAMPLES: &str = "\
Sizes are binary (2G = 2 GiB = 0x80000000) and times need a unit (500ms, 10s).

Examples:
  tce-bench                                    one group, a 2 GiB window of 4 KiB pages
  tce-bench --groups 4 --window 2G --levels 2  four groups that share one container's window
  tce-bench --threads 4 --cpus 0-3 --json out.json
  tce-bench --backend vfio --groups 4          the first four groups that vfio-pci has
  tce-bench --backend mock-kernel --profile k4_9 --platform phb4    an older kernel, simulated
  tce-bench doctor                             is the real back end usable, and what is missing
  tce-bench plan --groups 4 --window 64G       what a run would take, before it is begun
  tce-bench replay workloads/traces/*.zst      recorded guests, every answer checked
  tce-bench --phase ring --profile cpu.pb.gz   where the time of one phase goes, on x86-64

  tce-bench --workload nic-ring --threads 2    a workload of the tree, on two threads
  tce-bench --sweep 'pages=1..512*2'           one run for each number of pages a request
  tce-bench --pages 8 --rate 100k/s            an open loop: latency from when each call was due
  tce-bench limits                             what memory and clock allow, per table size

Exit codes: 0 done and not found wrong, 1 failed, 2 wrong command line, 4 back end not usable, 130
interrupted. gate: 3 regression, 5 inconclusive.";

const LIMITS_EXAMPLES: &str = "\
A TCE is 8 bytes. The loops take turns, and each sample passes over its table until it has written
4 MiB, so that reading the clock does not show; least times are comparable, medians hold other
people's work too.

Examples:
  tce-bench limits                              64 KiB to 256 MiB of table, some 15 seconds
  tce-bench limits --sizes 64K,4M --repeat 200  two sizes, more samples of each loop
  tce-bench limits --quiet --json limits.json   for programs (schema tce-bench.limits/1)";

const HAZARDS_EXAMPLES: &str = "\
Everything happens on simulated kernels. Each trap is lived through twice on a machine of its own; what
was lost, leaked, exposed or corrupted is counted afterwards, from what devices reach and what is
charged.

Examples:
  tce-bench hazards                            all traps, all kernels
  tce-bench hazards --profile k6_11            what the kernels of today do
  tce-bench hazards --trap detach --trap closed --json hazards.json";

const CHURN_EXAMPLES: &str = "\
The first group is a member all the time. Pages of the window's lower half stay mapped, and a thread maps
and unmaps in the upper half while the second group joins and leaves. After each of both the thread
rests, and every page is looked at through each member; so is the locked memory. A real kernel shows its
tables to nobody but devices: edu devices of both groups read and write, where there are any.

Examples:
  tce-bench churn --backend mock               on a software PHB
  tce-bench churn --profile k6_11              a kernel that empties the windows of those that stay
  tce-bench churn --profile k6_11 --detach refuse --rounds 20
  tce-bench churn --backend vfio --vfio-groups 0,1 --json churn.json

Exit code 1 if anything was lost, or the books moved (schema tce-bench.churn/1).";

/// How a policy is typed.
const POLICY_FORMS: &str = "strict|batched[=CALLS|TIME]|deferred[=PAGES[,AGE]]";

#[derive(Debug, Parser)]
#[command(name = "tce-bench", version, about = ABOUT, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, allow_negative_numbers = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Map and unmap a window in several ways and print latencies (the default command)
    #[command(allow_negative_numbers = true, after_help = examples::RUN)]
    Run(Box<RunArgs>),
    /// Replay recorded hypercalls of real guests and check every answer
    #[command(allow_negative_numbers = true, after_help = examples::REPLAY)]
    Replay(ReplayArgs),
    /// Replay one workload under each kill policy, beside what Linux's own rules would cost
    #[command(allow_negative_numbers = true, after_help = policies::EXAMPLES)]
    Policies(PoliciesArgs),
    /// Have devices read and write through a TCE cache while a trace is replayed, and look for stale
    /// translations
    #[command(allow_negative_numbers = true, after_help = stale::EXAMPLES)]
    Stale(StaleArgs),
    /// Make random calls beside a model, or hypercalls of a hostile guest, and look for a difference
    #[command(allow_negative_numbers = true, after_help = soak::EXAMPLES)]
    Soak(SoakArgs),
    /// Have devices read and write memory through every kind of window, and check what arrives
    #[command(allow_negative_numbers = true, after_help = examples::DMA)]
    Dma(DmaArgs),
    /// Measure what the engine costs beside the kernel's requests themselves
    #[command(allow_negative_numbers = true, after_help = examples::COST)]
    Cost(CostArgs),
    /// Measure what this machine's memory and clock allow: store, copy and clear loops per table size
    #[command(allow_negative_numbers = true, after_help = LIMITS_EXAMPLES)]
    Limits(LimitsArgs),
    /// Play the known traps of the kernels to a program that believes them, and to the engine
    #[command(allow_negative_numbers = true, after_help = HAZARDS_EXAMPLES)]
    Hazards(HazardsArgs),
    /// Show what sharing costs: 1 to 256 groups in a container, and as many containers with the same memory
    #[command(allow_negative_numbers = true, after_help = examples::SHARING)]
    Sharing(SharingArgs),
    /// Measure how long peers wait while a window beside them goes, or a group leaves
    #[command(allow_negative_numbers = true, after_help = examples::TEARDOWN)]
    Teardown(TeardownArgs),
    /// Have a group join and leave in a loop while another's pages are mapped and unmapped, and look for
    /// what is lost
    #[command(allow_negative_numbers = true, after_help = CHURN_EXAMPLES)]
    Churn(Box<ChurnArgs>),
    /// Kill runs of this program at random moments, and look for what they leave behind
    #[command(after_help = crash::EXAMPLES)]
    Crash(CrashArgs),
    /// Compare two programs that run in turns, or results: regression, no change or inconclusive
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(Box<CompareArgs>),
    /// compare, with the verdict as the exit code: 0 no regression, 3 regression, 5 inconclusive
    #[command(after_help = COMPARE_EXAMPLES)]
    Gate(Box<GateArgs>),
    /// Convert results into what dashboards and other tools read
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Add up results of many hosts or runs
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(MergeArgs),
    /// Count what traces hold, or cut parts out of them
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArgs),
    /// Make a trace of what Linux' event tracing or another program recorded
    #[command(after_help = import::EXAMPLES)]
    Import(ImportArgs),
    /// List, show, check and verify workloads, which --workload of run takes settings from
    #[command(after_help = WORKLOADS_EXAMPLES)]
    Workloads(WorkloadsArgs),
    /// Show results as one HTML page: percentiles, histograms, kills, accounting, the machine
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Say whether the real back end is usable here, what is wrong, and what puts it right
    #[command(after_help = examples::DOCTOR)]
    Doctor(DoctorArgs),
    /// Show what this machine is: processor, memory, kernel, VFIO and IOMMU groups
    #[command(after_help = examples::INFO)]
    Info(InfoArgs),
    /// Print what a run would take: table, memory, locked bytes, huge pages, windows; touch nothing
    #[command(allow_negative_numbers = true, after_help = examples::PLAN)]
    Plan(Box<PlanArgs>),
    /// Print what a shell needs to complete command lines
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    #[command(after_help = examples::MAN)]
    Man(ManArgs),
}

/// Options of `run`.
#[derive(Debug, Args)]
struct RunArgs {
    /// IOMMU groups (each a PE of the mock) [default: 1, or as many as --vfio-groups names]
    #[arg(long, value_name = "N", value_parser = values::count::<256>)]
    #[arg(help_heading = "What is mapped")]
    groups: Option<u32>,
    /// Containers that the groups are dealt out to; groups of one container share its tables
    #[arg(long, value_name = "M", default_value = "1", value_parser = values::count::<256>)]
    #[arg(help_heading = "What is mapped")]
    containers: u32,
    /// Bytes of bus address space that each container's window covers; a power of two
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    #[arg(help_heading = "What is mapped")]
    window: u64,
    /// Levels of the table: 1 to 5, or auto to let the engine pick
    #[arg(long, value_name = "N", default_value = "auto", value_parser = values::levels)]
    #[arg(help_heading = "What is mapped")]
    levels: Levels,
    /// IOMMU page size: 4K, 64K, 2M, 16M, 256M or 1G
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = values::page_shift)]
    #[arg(help_heading = "What is mapped")]
    page_size: u8,
    /// The host's page size, which sizes table blocks and charges: 4K or 64K [default: 64K; with
    /// vfio the kernel's]
    #[arg(long, value_name = "SIZE", value_parser = values::host_page_shift)]
    #[arg(help_heading = "What is mapped")]
    host_page: Option<u8>,
    /// Contiguous real memory comes in runs of this size, never adjacent: 64K, 2M or 16M
    /// [default: 2M, or 16M for 16M pages]
    #[arg(long, value_name = "SIZE", value_parser = values::backing)]
    #[arg(help_heading = "What is mapped")]
    backing: Option<u64>,
    /// Lay real memory out in one contiguous run instead; flatters the results, which say so
    #[arg(long, help_heading = "What is mapped")]
    contiguous: bool,
    /// Memory behind the window, mapped repeatedly if smaller [default: the window, but at most a
    /// quarter of free memory on the mock and 64M with a kernel, where it is really locked]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    #[arg(help_heading = "What is mapped")]
    buffer: Option<u64>,
    /// Limit of locked memory, beside the system's, or none
    #[arg(long, value_name = "SIZE|none", default_value = "none", value_parser = values::limit)]
    #[arg(help_heading = "What is mapped")]
    memlock: Limit,

    /// Threads; each owns leaves of the table that no other touches
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count::<1024>)]
    #[arg(help_heading = "How it is measured")]
    threads: u32,
    /// Pin the threads to these CPUs in this order, as 0,2-5; at least one CPU per thread
    #[arg(long, value_name = "LIST", value_parser = values::cpu_list)]
    #[arg(help_heading = "How it is measured")]
    cpus: Option<values::CpuList>,
    /// Run only this phase: bulk, checked, indirect, exchange, batch, ring, single, clear, naive or
    /// mix. May be given more than once [default: all but mix]
    #[arg(long = "phase", value_name = "PHASE", value_enum, hide_possible_values = true)]
    #[arg(help_heading = "How it is measured")]
    phases: Vec<Phase>,
    /// Repeat each phase so often [default: as --duration allows]
    #[arg(long, value_name = "N", value_parser = values::count::<1_000_000>)]
    #[arg(help_heading = "How it is measured")]
    repetitions: Option<u32>,
    /// Measure each phase for so long, as 10s or 500ms [default: a second or so, less with a kernel]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    #[arg(help_heading = "How it is measured")]
    duration: Option<Duration>,
    /// Run each phase for so long before measuring, as 200ms; 0s for none
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    #[arg(help_heading = "How it is measured")]
    warmup: Option<Duration>,
    /// Instructions that fill tables: portable, avx2, … (as this machine has), or auto for the best
    #[arg(long, value_name = "TIER", default_value = "auto", value_parser = values::simd)]
    #[arg(help_heading = "How it is measured")]
    simd: Simd,
    /// Seed of all random choices, decimal or hex; the same seed gives the same work
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::seed)]
    #[arg(help_heading = "How it is measured")]
    seed: u64,
    /// mock: a software PHB on any machine; mock-kernel: a simulated kernel's containers; vfio: the
    /// real /dev/vfio of a POWER machine; auto: vfio if usable, else mock
    #[arg(long, value_name = "KIND", default_value = "auto", value_enum)]
    #[arg(hide_possible_values = true)]
    #[arg(help_heading = "How it is measured")]
    backend: BackendChoice,
    /// The groups to use, as 0,1,2, not with the mock [default: the first viable ones]
    #[arg(long, value_name = "LIST", value_parser = values::group_list)]
    #[arg(help_heading = "How it is measured")]
    vfio_groups: Option<values::GroupList>,
    /// Containers of version 1, as older hosts have: one group, and the one window that they come
    /// with (2G, 4K pages), paid for in full beforehand
    #[arg(long, help_heading = "How it is measured")]
    vfio_v1: bool,
    /// In the end, have a group of each container that has several leave the others, and come back. refuse:
    /// the engine refuses. replay: it maps again what the kernel may have wiped of the others. isolate: each
    /// group has a container of the kernel of its own, for the whole run, so nothing is wiped
    #[arg(long, value_name = "POLICY", value_enum, hide_possible_values = true)]
    #[arg(help_heading = "How it is measured")]
    detach: Option<Detach>,
    /// Host bridges of the simulated machine, the mock's or the mock kernel's: p5ioc2, ioda1, phb3,
    /// phb4, phb5, npu2 or, of the mock kernel only, pseries [default: phb3; pseries for its profile]
    #[arg(long, value_name = "NAME", value_parser = values::platform)]
    #[arg(help_heading = "How it is measured")]
    platform: Option<Platform>,
    /// Have kills of the mock take as long as on a machine where they are slow: so many ns for a store to a
    /// kill register, for a fence, and for each level that is read again after a kill of a whole PE. default
    /// is 100,1000,200, an assumption like all such numbers; the results say so [default: they cost
    /// nothing]
    #[arg(long, value_name = "default|STORE,FENCE,REFILL", value_parser = values::kill_cost)]
    #[arg(help_heading = "How it is measured")]
    kill_cost: Option<KillCost>,
    /// When translations of the mock are killed. strict: before each call returns. batched: at the end of so
    /// many calls. deferred: clears when so many pages wait for it, or the oldest for so long; fills at once.
    /// It concerns handles, which ring, single and mix then use; other phases ask the container and are strict
    #[arg(
        long,
        value_name = "strict|batched[=CALLS]|deferred[=PAGES[,AGE]]",
        default_value = "strict"
    )]
    #[arg(value_parser = values::policy)]
    #[arg(help_heading = "How it is measured")]
    policy: Policy,
    /// Do nothing, print what it would take, as plan does; --json is then of the schema tce-bench.plan/1
    #[arg(long, help_heading = "Output")]
    dry_run: bool,

    #[command(flatten)]
    mixed: MixedArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `replay`.
#[derive(Debug, Args)]
struct ReplayArgs {
    /// Traces in the format `tce-trace 1`, plain or zstd-compressed
    #[arg(value_name = "TRACE", required = true)]
    traces: Vec<PathBuf>,
    /// Guest RAM [default: up to the largest target in the trace]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    ram: Option<u64>,
    /// checked: compare every answer; throughput: as fast as it goes; latency: time each call.
    /// May be given more than once [default: all three]
    #[arg(long = "pass", value_name = "PASS", value_enum, hide_possible_values = true)]
    passes: Vec<Pass>,
    /// Whose rules the hypercalls are under. arch: LoPAR's, a call is done or nothing is. kvm: what KVM
    /// leaves to user space is H_TOO_HARD, a list that fails half way keeps its beginning, H_STUFF_TCE
    /// takes no permission. qemu: bus addresses are rounded down to a page, and a list is stored up to
    /// its first bad entry. An answer that this changes is a mismatch with a trace of another platform
    #[arg(
        long,
        value_name = "RULES",
        value_enum,
        default_value = "arch",
        hide_possible_values = true
    )]
    compat: Rules,
    /// When translations are killed. strict: before each call returns. batched: at the end of so many calls,
    /// or of calls that follow each other within a time of the trace's clock. deferred: clears when so many
    /// pages wait for it, or the oldest for so long; fills at once. All calls are one handle's
    #[arg(long, value_name = POLICY_FORMS, default_value = "strict", value_parser = values::policy)]
    policy: Policy,
    /// Instructions that fill tables: portable, avx2, … (as this machine has), or auto for the best
    #[arg(long, value_name = "TIER", default_value = "auto", value_parser = values::simd)]
    simd: Simd,
    /// Seed of all random choices, decimal or hex
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::seed)]
    seed: u64,
    /// The host's page size, which sizes table blocks and charges: 4K or 64K
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = values::host_page_shift)]
    host_page: u8,

    #[command(flatten)]
    output: OutputArgs,
}

/// Where results go.
#[derive(Debug, Args)]
struct OutputArgs {
    /// Write the result as one JSON document (schema tce-bench.result/1); - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    json: Option<String>,
    /// Write the histograms as an HdrHistogram log; - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    hlog: Option<String>,
    /// With a file name, as cpu.pb.gz, which has a dot or a slash in it, or with - for standard output:
    /// profile the work and write it for pprof, packed with gzip, on x86-64 and powerpc64le only. With the name
    /// of a kernel: simulate that one (k4_2, k4_9, k4_12, k5_0, k6_4, k6_11 or pseries) for mock-kernel
    /// [default: k6_11]. May be given once for each
    #[arg(long = "profile", value_name = "FILE|-|KERNEL", value_parser = values::profile)]
    #[arg(help_heading = "Output")]
    profiles: Vec<values::ProfileArg>,
    /// A name for this run, kept in the result
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    label: Option<String>,
    /// No progress bar and no table
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}
