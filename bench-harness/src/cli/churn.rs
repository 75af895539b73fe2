// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `churn`.

use clap::Args;
use tce_engine::backend::linux::mock_kernel::Profile;
use tce_engine::platform::Platform;
use tce_engine::simd::Tier;

use super::config::RunConfig;
use super::mixed::MixedArgs;
use super::values::{self, BackendChoice, Detach, Levels, Limit, ProfileArg, Simd};
use super::{OutputArgs, RunArgs};
use crate::policy::Policy;
use crate::size::{format_arg, parse_size};

/// Memory behind the window.
const BUFFER: u64 = 64 << 20;
/// Fewer pages would not hold two kinds of mappings, more would not be compared in a round.
const PAGES: std::ops::RangeInclusive<u64> = 64..=1 << 22;

/// Options of `churn`.
#[derive(Debug, Args)]
pub(super) struct ChurnArgs {
    /// The second group joins and leaves so often
    #[arg(long, value_name = "N", default_value = "1000", value_parser = values::count::<1_000_000>)]
    rounds: u32,
    /// What happens when it leaves. refuse: it may not while the first shares its windows, where a
    /// kernel might empty them. replay: what such a kernel has emptied is mapped again. isolate:
    /// each has a container of the kernel of its own
    #[arg(long, value_name = "POLICY", default_value = "replay", value_enum)]
    #[arg(hide_possible_values = true)]
    detach: Detach,
    /// Bytes of bus address space of the window; a power of two
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    window: u64,
    /// IOMMU page size: 4K, 64K, 2M, 16M, 256M or 1G
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = values::page_shift)]
    page_size: u8,
    /// Levels of the table: 1 to 5, or auto to let the engine pick
    #[arg(long, value_name = "N", default_value = "auto", value_parser = values::levels)]
    levels: Levels,
    /// Pages of the lower half that are mapped all the time: a run from its start, and as many single
    /// ones [default: a 16th of that half]
    #[arg(long, value_name = "N", value_parser = values::count::<{ 1 << 21 }>)]
    standing: Option<u32>,
    /// Maps and unmaps in the upper half before and after each attach and detach, at least
    #[arg(long, value_name = "N", default_value = "64", value_parser = values::count::<1_000_000>)]
    calls: u32,
    /// With a real kernel, where devices of the first group read and write at the end of each round: have
    /// those of the second do so, too, and look at all of the engine's mirror rather than at what is
    /// mapped, in every Nth round and in the first and the last
    #[arg(long, value_name = "N", default_value = "50", value_parser = values::count::<1_000_000>)]
    dma_every: u32,
    /// Seed of all random choices, decimal or hex
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::seed)]
    seed: u64,
    /// mock: a software PHB; mock-kernel: a simulated kernel's containers; vfio: the real /dev/vfio;
    /// auto: vfio if usable, else mock
    #[arg(long, value_name = "KIND", default_value = "auto", value_enum)]
    #[arg(hide_possible_values = true)]
    backend: BackendChoice,
    /// The two groups to use, as 0,1: the one that stays first [default: the first viable ones]
    #[arg(long, value_name = "LIST", value_parser = values::group_list)]
    vfio_groups: Option<values::GroupList>,
    /// The kernel to simulate: k4_2, k4_9, k4_12, k5_0, k6_4, k6_11 or pseries [default: k6_11]
    #[arg(long, value_name = "KERNEL", value_parser = super::checks::profile)]
    profile: Option<Profile>,
    /// Host bridges of the simulated machine [default: phb3; pseries for its profile]
    #[arg(long, value_name = "NAME", value_parser = values::platform)]
    platform: Option<Platform>,
    /// Write the result as one JSON document; - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    json: Option<String>,
    /// No table
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

/// The settings of `churn`.
#[derive(Debug, Clone, PartialEq)]
pub struct ChurnConfig {
    /// Machine, window, buffer, seed and output, as of a run with two groups.
    pub run: RunConfig,
    /// At least 1.
    pub rounds: u32,
    /// What happens when the second group leaves.
    pub detach: Detach,
    /// At least 2, at most half of the lower half.
    pub standing: u64,
    /// At least 1.
    pub calls: u64,
    /// At least 1.
    pub dma_every: u32,
}

impl TryFrom<ChurnArgs> for ChurnConfig {
    type Error = String;

    fn try_from(args: ChurnArgs) -> Result<Self, String> {
        if let Some(values::GroupList(named)) = &args.vfio_groups
            && named.len() != 2
        {
            return Err(format!(
                "--vfio-groups names {}; accepted: two groups, the one that stays first",
                named.len()
            ));
        }
        let (page, pages) = (1u64 << args.page_size, args.window >> args.page_size);
        if !PAGES.contains(&pages) {
            let (least, most) = (PAGES.start() * page, PAGES.end() * page);
            return Err(format!(
                "--window {} is {pages} pages of {}; accepted: {} to {}",
                format_arg(args.window),
                format_arg(page),
                format_arg(least),
                format_arg(most)
            ));
        }
        let most = pages / 4;
        let standing = args.standing.map_or((pages / 32).max(2), u64::from);
        if !(2..=most).contains(&standing) {
            return Err(format!(
                "--standing {standing} of the {} pages of the lower half; accepted: 2 to {most}",
                pages / 2
            ));
        }
        let simulated = args.profile.is_some();
        let profiles = args.profile.map(|kernel| ProfileArg::Kernel(Box::new(kernel)));
        let output = OutputArgs {
            json: args.json,
            hlog: None,
            profiles: profiles.into_iter().collect(),
            label: None,
            quiet: args.quiet,
        };
        let run = RunArgs {
            groups: Some(2),
            // The second one has a table of its own when it is shown to reach nothing.
            containers: 2,
            window: args.window,
            levels: args.levels,
            page_size: args.page_size,
            host_page: None,
            backing: None,
            // Pages that no run of the mock's memory is large enough for.
            contiguous: args.page_size > 24 && !simulated && !args.backend.has_kernel(),
            buffer: Some(BUFFER.max(4 * page).min(args.window)),
            memlock: Limit(None),
            threads: 1,
            cpus: None,
            phases: Vec::new(),
            repetitions: None,
            duration: None,
            warmup: None,
            simd: Simd(Tier::best()),
            seed: args.seed,
            backend: args.backend,
            vfio_groups: args.vfio_groups,
            vfio_v1: false,
            kill_cost: None,
            policy: Policy::Strict,
            platform: args.platform,
            detach: None,
            mixed: MixedArgs::default(),
            dry_run: false,
            output,
        };
        Ok(Self {
            run: run.try_into()?,
            rounds: args.rounds,
            detach: args.detach,
            standing,
            calls: args.calls.into(),
            dma_every: args.dma_every,
        })
    }
}
