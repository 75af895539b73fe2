// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The options of `run` that say what phase `mix` is made of, and where settings come from.

use clap::Args;

use super::config::each_once;
use super::sweep::Sweep;
use super::values::{self, Phase};
use crate::mix::{MOST_LIVE, Mix, Operation, Order, Place, Rate, Shares};

/// What is mixed and how often, and what settings come from elsewhere.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct MixedArgs {
    /// Take settings from a workload of this name (see workloads list) or from a file; options that are
    /// given as well go first
    #[arg(long, value_name = "NAME|FILE", help_heading = "Workloads and sweeps")]
    pub(super) workload: Option<String>,
    /// One run for each value of a setting, in one table and one document: pages, live, burst, groups,
    /// containers, levels, window, page-size, buffer, threads, rate or seed. A value is a number or a range
    /// with a step, as 1..512*2 or 1..9+4. Given more than once: all combinations
    #[arg(long = "sweep", value_name = "SETTING=VALUE[,…]", value_parser = super::sweep::parse)]
    #[arg(help_heading = "Workloads and sweeps")]
    pub(super) sweeps: Vec<Sweep>,
    /// Pages a request of phase mix, or several sizes with their shares, as 1:70,16:30 [default: 1]
    #[arg(long, value_name = "N[:SHARE],…", value_parser = pages)]
    #[arg(help_heading = "Phase mix (each of these also asks for it)")]
    pub(super) pages: Option<Shares<u64>>,
    /// What is done, in shares: map, list (scattered pages in one call) and replace (other memory over what
    /// is mapped), as map=80,list=15,replace=5. Unmaps come by themselves [default: map]
    #[arg(long, value_name = "OP[=SHARE],…", value_parser = operations)]
    #[arg(help_heading = "Phase mix (each of these also asks for it)")]
    pub(super) mix: Option<Shares<Operation>>,
    /// Requests that are mapped at a time, of each thread in each window; a map beyond that has to wait for
    /// an unmap [default: 64]
    #[arg(long, value_name = "N", value_parser = values::count::<MOST_LIVE>)]
    #[arg(help_heading = "Phase mix (each of these also asks for it)")]
    pub(super) live: Option<u32>,
    /// Requests that are unmapped together when that is so; as many as --live empties the window [default: 1]
    #[arg(long, value_name = "N", value_parser = values::count::<MOST_LIVE>)]
    #[arg(help_heading = "Phase mix (each of these also asks for it)")]
    pub(super) burst: Option<u32>,
    /// Which request is unmapped: the oldest (fifo), the newest (lifo) or a random one [default: fifo]
    #[arg(long, value_name = "ORDER", value_enum, hide_possible_values = true)]
    #[arg(help_heading = "Phase mix (each of these also asks for it)")]
    pub(super) order: Option<Order>,
    /// Where requests go: sequential, round and round the thread's part of the window, or random
    /// [default: sequential]
    #[arg(long, value_name = "PLACE", value_enum, hide_possible_values = true)]
    #[arg(help_heading = "Phase mix (each of these also asks for it)")]
    pub(super) place: Option<Place>,
    /// Open loop: operations are due so many times a second, of all threads together, whether or not those
    /// before are done, as 100k/s. mix.response is then from when each was due, so that waiting behind slow
    /// ones counts (no coordinated omission) [default: closed loop, each begins when the last is done]
    #[arg(long, value_name = "N/s", value_parser = rate)]
    #[arg(help_heading = "Phase mix (each of these also asks for it)")]
    pub(super) rate: Option<Rate>,
}

fn pages(text: &str) -> Result<Shares<u64>, String> {
    text.parse()
}

fn operations(text: &str) -> Result<Shares<Operation>, String> {
    text.parse()
}

fn rate(text: &str) -> Result<Rate, String> {
    text.parse()
}

impl MixedArgs {
    /// The first option that was given.
    fn given(&self) -> Option<&'static str> {
        let all = [
            ("--pages", self.pages.is_some()),
            ("--mix", self.mix.is_some()),
            ("--live", self.live.is_some()),
            ("--burst", self.burst.is_some()),
            ("--order", self.order.is_some()),
            ("--place", self.place.is_some()),
            ("--rate", self.rate.is_some()),
        ];
        all.into_iter().find_map(|(name, given)| given.then_some(name))
    }

    /// The phases to run, the mix and its rate.
    pub(super) fn checked(
        self,
        mut phases: Vec<Phase>,
        threads: u32,
    ) -> Result<(Vec<Phase>, Mix, Option<Rate>), String> {
        if let Some(option) = self.given() {
            if phases.is_empty() {
                phases.push(Phase::Mix);
            } else if !phases.contains(&Phase::Mix) {
                return Err(format!(
                    "{option} is for phase mix, which --phase leaves out; accepted: --phase mix, too, or no \
                     --phase"
                ));
            }
        }
        let usual = Mix::default();
        let mix = Mix {
            operations: self.mix.unwrap_or(usual.operations),
            pages: self.pages.unwrap_or(usual.pages),
            live: self.live.unwrap_or(usual.live),
            burst: self.burst.unwrap_or(usual.burst),
            order: self.order.unwrap_or_default(),
            place: self.place.unwrap_or_default(),
        };
        mix.check()?;
        if let Some(Rate(rate)) = self.rate
            && rate < u64::from(threads)
        {
            return Err(format!(
                "--rate {rate}/s is less than one operation a second for each of --threads {threads}; \
                 accepted: {threads}/s or more"
            ));
        }
        Ok((each_once(phases, &Phase::ALL), mix, self.rate))
    }
}
