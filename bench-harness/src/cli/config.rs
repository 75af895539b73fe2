// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Settings after every check that needs no engine.

use std::path::PathBuf;
use std::time::Duration;

use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::backend::mock::KillCost;
use tce_engine::engine::DetachPolicy;
use tce_engine::platform::Platform;

use super::values::{BackendChoice, Detach, Levels, Pass, Phase, ProfileArg, Rules, Simd};
use super::{OutputArgs, ReplayArgs, RunArgs};
use crate::mix::{Mix, Rate};
use crate::outfile::OutFile;
use crate::policy::{Batch, Policy};
use crate::profile;
use crate::result::WorkloadSettings;
use crate::size::format_arg;

/// Real memory comes in runs of this size unless told otherwise.
const DEFAULT_BACKING: u64 = 2 << 20;
/// The largest backing page there is.
const MAX_BACKING: u64 = 16 << 20;

/// Where results go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The JSON document.
    pub json: Option<OutFile>,
    /// The HdrHistogram log.
    pub hlog: Option<OutFile>,
    /// The CPU profile.
    pub profile: Option<OutFile>,
    /// A name for the run.
    pub label: Option<String>,
    /// No progress bar and no table.
    pub quiet: bool,
}

/// The settings of `run`. Sizes are bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// IOMMU groups, 1 to 256.
    pub groups: u32,
    /// Containers, 1 to `groups`.
    pub containers: u32,
    /// A power of two, at least one page.
    pub window_bytes: u64,
    /// Not yet checked against the geometry.
    pub levels: Levels,
    /// log2 of the IOMMU page size: 12, 16, 21, 24, 28 or 30.
    pub page_shift: u8,
    /// log2 of the host's page size: 12 or 16; `None` = the back end's own.
    pub host_page_shift: Option<u8>,
    /// Size of a run of real memory; at least an IOMMU page unless `contiguous`. Of the mock only.
    pub backing_bytes: u64,
    /// One run of real memory.
    pub contiguous: bool,
    /// Whole IOMMU pages, at most the window; `None` = to be chosen.
    pub buffer_bytes: Option<u64>,
    /// 1 to 1024.
    pub threads: u32,
    /// At least one per thread, not yet checked against the machine; `None` = not pinned.
    pub cpus: Option<Vec<usize>>,
    /// Sorted, each once, at least one.
    pub phases: Vec<Phase>,
    /// At least 1; `None` = by time.
    pub repetitions: Option<u32>,
    /// Per phase, above zero; `None` = to be chosen.
    pub duration: Option<Duration>,
    /// Per phase; `None` = to be chosen.
    pub warmup: Option<Duration>,
    /// Not yet checked against the CPU.
    pub simd: Simd,
    /// Of all random choices.
    pub seed: u64,
    /// A limit beside the system's; `None` = none.
    pub memlock_bytes: Option<u64>,
    /// Which back end.
    pub backend: BackendChoice,
    /// The groups to use, `groups` in number; `None` = the first viable ones.
    pub vfio_groups: Option<Vec<u32>>,
    /// Containers of version 1.
    pub vfio_v1: bool,
    /// What the engine does when a group leaves others, to be tried in the end; `None` = its default,
    /// and nothing is tried.
    pub detach: Option<DetachPolicy>,
    /// Kernel and host bridges of the simulated machine; a pair that there was. Of the mock, only the
    /// bridges count.
    pub simulated: (Profile, Platform),
    /// What kills of the mock are to cost; `None` = what they cost here.
    pub kill_cost: Option<KillCost>,
    /// When the mock's translations are killed; a batch is a number of calls.
    pub policy: Policy,
    /// What phase `mix` is made of.
    pub mix: Mix,
    /// Of phase `mix`; `None` = a closed loop.
    pub rate: Option<Rate>,
    /// Where settings came from that the command line does not have.
    pub workload: Option<WorkloadSettings>,
    /// Measure how long released pages stay reachable, instead of times. Not an option: a run does it by
    /// itself, in a pass of its own.
    pub measure_exposure: bool,
    /// Where results go.
    pub output: Output,
}

/// The settings of `replay`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayConfig {
    /// At least one; not yet opened.
    pub traces: Vec<PathBuf>,
    /// Guest RAM in bytes, whole host pages; `None` = up to the largest target.
    pub ram_bytes: Option<u64>,
    /// Sorted, each once, at least one.
    pub passes: Vec<Pass>,
    /// Whose rules the hypercalls are under.
    pub compat: Rules,
    /// When translations are killed; a batch is known.
    pub policy: Policy,
    /// Not yet checked against the CPU.
    pub simd: Simd,
    /// Of all random choices.
    pub seed: u64,
    /// log2 of the host's page size: 12 or 16.
    pub host_page_shift: u8,
    /// Where results go.
    pub output: Output,
}

impl TryFrom<OutputArgs> for Output {
    type Error = String;

    fn try_from(args: OutputArgs) -> Result<Self, String> {
        let (to, _) = profiles(args.profiles)?;
        if to.is_some() && !profile::AVAILABLE {
            return Err(profile::UNAVAILABLE.to_string());
        }
        let named = [("--json", &args.json), ("--hlog", &args.hlog), ("--profile", &to)];
        for (nth, (option, name)) in named.iter().enumerate() {
            let Some(name) = name else { continue };
            if let Some((other, _)) = named[..nth].iter().find(|n| n.1.as_ref() == Some(name)) {
                return Err(format!(
                    "{other} and {option} both name '{name}'; accepted: two places"
                ));
            }
        }
        let file = |name: &Option<String>| name.as_deref().map(OutFile::from);
        let (json, hlog, profile) = (file(&args.json), file(&args.hlog), file(&to));
        Ok(Self { json, hlog, profile, label: args.label, quiet: args.quiet })
    }
}

impl RunConfig {
    /// Tables that the kernel makes, or the engine where there is none.
    #[must_use]
    pub fn tables(&self) -> u64 {
        let isolated = self.detach == Some(DetachPolicy::Isolate);
        u64::from(if isolated { self.groups } else { self.containers })
    }
}

impl TryFrom<RunArgs> for RunConfig {
    type Error = String;

    fn try_from(args: RunArgs) -> Result<Self, String> {
        let page = 1u64 << args.page_size;
        let (_, kernel) = profiles(args.output.profiles.clone())?;
        let backend = backend(&args, kernel.as_ref())?;
        let simulated = match backend {
            // No kernel is part of it.
            BackendChoice::Mock => (Profile::K6_11, args.platform.unwrap_or(Platform::Phb3)),
            _ => simulated(kernel, args.platform)?,
        };
        let vfio_groups = args.vfio_groups.map(|list| list.0);
        let groups = group_count(args.groups, vfio_groups.as_deref())?;
        if args.containers > groups {
            return Err(format!(
                "--containers {} is more than --groups {groups}; accepted: 1 to {groups}",
                args.containers
            ));
        }
        check_window(args.window, page)?;
        if args.vfio_v1 {
            let (_, only) = simulated.1.default_window(0);
            check_v1(groups, args.window, page, args.levels, only.into())?;
        }
        if matches!(backend, BackendChoice::Mock | BackendChoice::MockKernel) {
            let shared = args.detach != Some(Detach::Isolate);
            check_platform(simulated.1, shared, groups, args.containers, args.window)?;
        }
        // What a kernel's memory stands on is not chosen here.
        let run = if backend.has_kernel() { page.min(DEFAULT_BACKING) } else { page };
        let backing_bytes = backing(args.backing, args.contiguous, run)?;
        if let Some(buffer) = args.buffer {
            check_buffer(buffer, args.window, page)?;
        }
        let cpus = args.cpus.map(|list| list.0);
        if let Some(cpus) = &cpus
            && cpus.len() < args.threads as usize
        {
            return Err(format!(
                "--cpus names {} for --threads {}; accepted: at least one CPU per thread",
                cpus.len(),
                args.threads
            ));
        }
        let (phases, mix, rate) = args.mixed.checked(args.phases, args.threads)?;
        if args.duration == Some(Duration::ZERO) {
            return Err("--duration is zero; accepted: a longer time, as 500ms".to_string());
        }
        Ok(Self {
            groups,
            containers: args.containers,
            window_bytes: args.window,
            levels: args.levels,
            page_shift: args.page_size,
            host_page_shift: args.host_page,
            backing_bytes,
            contiguous: args.contiguous,
            buffer_bytes: args.buffer,
            threads: args.threads,
            cpus,
            phases,
            repetitions: args.repetitions,
            duration: args.duration,
            warmup: args.warmup,
            simd: args.simd,
            seed: args.seed,
            memlock_bytes: args.memlock.0,
            backend,
            vfio_groups,
            vfio_v1: args.vfio_v1,
            detach: args.detach.map(DetachPolicy::from),
            simulated,
            kill_cost: args.kill_cost,
            policy: args.policy.or_batch(Batch::MADE_UP),
            mix,
            rate,
            workload: None,
            measure_exposure: false,
            output: args.output.try_into()?,
        })
    }
}

impl TryFrom<ReplayArgs> for ReplayConfig {
    type Error = String;

    fn try_from(args: ReplayArgs) -> Result<Self, String> {
        if let (_, Some(kernel)) = profiles(args.output.profiles.clone())? {
            return Err(format!(
                "--profile {kernel} is for mock-kernel, and a replay needs the mock; accepted: the \
                 name of a file"
            ));
        }
        let host_page = 1u64 << args.host_page;
        if let Some(ram) = args.ram
            && (ram == 0 || !ram.is_multiple_of(host_page))
        {
            return Err(format!(
                "--ram {} is not a number of host pages; accepted: a multiple of {}",
                show(ram),
                format_arg(host_page)
            ));
        }
        let passes = each_once(args.passes, &[Pass::Checked, Pass::Throughput, Pass::Latency]);
        Ok(Self {
            traces: args.traces,
            ram_bytes: args.ram,
            passes,
            compat: args.compat,
            policy: args.policy.or_batch(Batch::RECORDED),
            simd: args.simd,
            seed: args.seed,
            host_page_shift: args.host_page,
            output: args.output.try_into()?,
        })
    }
}

/// What was asked for, in order, or all.
pub(super) fn each_once<T: Copy + Ord>(mut asked: Vec<T>, all: &[T]) -> Vec<T> {
    if asked.is_empty() {
        return all.to_vec();
    }
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// Options that only a kernel's containers have say that one is wanted, and others that not.
fn backend(args: &RunArgs, kernel: Option<&Profile>) -> Result<BackendChoice, String> {
    match (args.backend, kernel, args.platform) {
        // A kernel that is named is to be simulated.
        (BackendChoice::Auto | BackendChoice::MockKernel, Some(_), _) => {
            return check_layout(args, BackendChoice::MockKernel);
        }
        (_, Some(kernel), _) => {
            return Err(format!(
                "--profile {kernel} is of a simulated kernel; accepted: --backend mock-kernel"
            ));
        }
        (BackendChoice::Auto, None, Some(platform)) => {
            return Err(format!("--platform {platform} needs --backend mock or mock-kernel"));
        }
        (BackendChoice::Vfio, None, Some(platform)) => {
            return Err(format!(
                "--platform {platform} is of a simulated machine; accepted: --backend mock or \
                 mock-kernel"
            ));
        }
        (BackendChoice::Mock, None, Some(Platform::Pseries)) => {
            return Err("--platform pseries with --backend mock: a guest's tables are its \
                        firmware's; accepted: --backend mock-kernel"
                .to_owned());
        }
        _ => {}
    }
    let named = [
        ("--vfio-groups", args.vfio_groups.is_some()),
        ("--vfio-v1", args.vfio_v1),
        ("--detach", args.detach.is_some()),
    ];
    let named = named.into_iter().find(|(_, given)| *given);
    let backend = match (args.backend, named) {
        (BackendChoice::Mock, Some((name, _))) => {
            return Err(format!("{name} with --backend mock; accepted: vfio or mock-kernel"));
        }
        (BackendChoice::Auto, Some(_)) => BackendChoice::Vfio,
        (backend, _) => backend,
    };
    check_layout(args, backend)
}

fn check_layout(args: &RunArgs, backend: BackendChoice) -> Result<BackendChoice, String> {
    if args.kill_cost.is_some() && backend != BackendChoice::Mock {
        return Err("--kill-cost is of the mock's kills; accepted: --backend mock".to_owned());
    }
    if args.policy != Policy::Strict && backend != BackendChoice::Mock {
        return Err("--policy is of the mock's kills; accepted: --backend mock".to_owned());
    }
    if let Some(Batch::Gap(_)) = args.policy.batch() {
        return Err(format!(
            "--policy {}: a run has no clock of a trace; accepted: batched=CALLS, as batched=32",
            args.policy
        ));
    }
    let laid_out = [("--backing", args.backing.is_some()), ("--contiguous", args.contiguous)];
    match laid_out.into_iter().find(|(_, given)| *given && backend.has_kernel()) {
        Some((name, _)) => Err(format!("{name} is for the mock; a kernel lays out memory itself")),
        None => Ok(backend),
    }
}

/// The two things that `--profile` can name, each at most once.
fn profiles(args: Vec<ProfileArg>) -> Result<(Option<String>, Option<Profile>), String> {
    let (mut file, mut kernel) = (None, None);
    for arg in args {
        let twice = match arg {
            ProfileArg::File(name) => file.replace(name).is_some(),
            ProfileArg::Kernel(profile) => kernel.replace(*profile).is_some(),
        };
        if twice {
            return Err("--profile twice; accepted: one file and one kernel".to_owned());
        }
    }
    Ok((file, kernel))
}

/// The simulated machine, if there ever was one like it.
fn simulated(
    kernel: Option<Profile>,
    platform: Option<Platform>,
) -> Result<(Profile, Platform), String> {
    let profile = kernel.unwrap_or(Profile::K6_11);
    let platform = platform.unwrap_or(profile.usual_platform());
    profile.runs_on(platform).map_err(|e| e.to_string())?;
    Ok((profile, platform))
}

fn group_count(asked: Option<u32>, named: Option<&[u32]>) -> Result<u32, String> {
    match (asked, named.map(|n| n.len() as u32)) {
        (Some(asked), Some(named)) if asked != named => Err(format!(
            "--groups {asked}, but --vfio-groups names {named}; accepted: --groups {named}, or none"
        )),
        (Some(n), _) | (None, Some(n)) => Ok(n),
        (None, None) => Ok(1),
    }
}

/// Version 1 has one group, and the window that it comes with.
fn check_v1(
    groups: u32,
    window: u64,
    page: u64,
    levels: Levels,
    its_window: u64,
) -> Result<(), String> {
    let only = "a version 1 container";
    if groups > 1 {
        return Err(format!("--vfio-v1 with {groups} groups; accepted: 1, as {only} takes one"));
    }
    if window != its_window || page != 4096 || !matches!(levels, Levels::Auto | Levels::Count(1)) {
        return Err(format!(
            "--vfio-v1 with a window of {} in pages of {}; accepted: {}, 4K and 1 level, the only \
             window of {only}",
            show(window),
            format_arg(page),
            format_arg(its_window)
        ));
    }
    Ok(())
}

/// A size as typed, with the bytes where a unit hides them: `3G (3221225472)`.
fn show(bytes: u64) -> String {
    let short = format_arg(bytes);
    if short == bytes.to_string() { short } else { format!("{short} ({bytes})") }
}

/// What PEs of older bridges cannot do.
fn check_platform(
    platform: Platform,
    shared_tables: bool,
    groups: u32,
    containers: u32,
    window: u64,
) -> Result<(), String> {
    if shared_tables && !platform.shares_tables() && containers != groups {
        let isolate = if platform == Platform::Pseries { ", or --detach isolate" } else { "" };
        return Err(format!(
            "--platform {platform} with --groups {groups} and --containers {containers}; accepted: \
             --containers {groups}, as its PEs share no table{isolate}"
        ));
    }
    let (_, most) = platform.default_window(0);
    if platform.dynamic_windows() == 0 && window > most.into() {
        return Err(format!(
            "--window {} is more than a PE of {platform} has of the bus; accepted: up to {}",
            show(window),
            format_arg(most.into())
        ));
    }
    Ok(())
}

fn check_window(window: u64, page: u64) -> Result<(), String> {
    if window < page {
        return Err(format!(
            "--window {} is smaller than one page of {}; accepted: a power of two from {} up",
            show(window),
            format_arg(page),
            format_arg(page)
        ));
    }
    if window.is_power_of_two() {
        return Ok(());
    }
    let below = format_arg(1 << window.ilog2());
    let nearest = match window.checked_next_power_of_two() {
        Some(above) => format!("the nearest are {below} and {}", format_arg(above)),
        None => format!("the nearest is {below}"),
    };
    Err(format!("--window {} is not a power of two; {nearest}", show(window)))
}

/// A TCE maps one page of contiguous real memory, so a run must hold at least a page.
fn backing(asked: Option<u64>, contiguous: bool, page: u64) -> Result<u64, String> {
    let backing = match asked {
        Some(backing) => backing,
        None if page <= DEFAULT_BACKING || contiguous => DEFAULT_BACKING,
        None => page.min(MAX_BACKING),
    };
    if contiguous || page <= backing {
        return Ok(backing);
    }
    let larger = if page <= MAX_BACKING {
        format!("--backing {}, ", format_arg(page))
    } else {
        String::new()
    };
    Err(format!(
        "--page-size {} does not fit in contiguous runs of --backing {}; accepted: {larger}\
         --contiguous, or pages up to {}",
        format_arg(page),
        format_arg(backing),
        format_arg(backing)
    ))
}

fn check_buffer(buffer: u64, window: u64, page: u64) -> Result<(), String> {
    if buffer == 0 || !buffer.is_multiple_of(page) {
        return Err(format!(
            "--buffer {} is not a number of IOMMU pages; accepted: a multiple of {}",
            show(buffer),
            format_arg(page)
        ));
    }
    if buffer > window {
        return Err(format!(
            "--buffer {} is larger than the window; accepted: up to {}",
            show(buffer),
            format_arg(window)
        ));
    }
    Ok(())
}
