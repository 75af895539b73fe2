// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `policies`.

use clap::Args;
use tce_engine::backend::mock::KillCost;
use tce_engine::platform::Platform;

use super::values;
use crate::outfile::OutFile;
use crate::policy::{Fill, Policy};

pub(super) const EXAMPLES: &str = "\
A row is a policy on a platform, and what it costs. Kills stand beside those of Linux's own rules for the
same calls: on a PHB3 (POWER8) one store to a register for each page and PE, filled or cleared; on a PHB4
(POWER9) one call for each hypercall and PE, which kills the whole PE. Stores are compared with stores and
calls with calls. What a policy saves is paid for with exposure: the time that a released page stays
reachable. One thread makes all calls, in the order of the trace; each vCPU has a handle of its own.

Linux kills each entry that is filled, as a PHB may have cached that it was empty. No platform says when it
does not: rows with a fill rule other than always hold on a PHB of which somebody knows more.

Examples:
  tce-bench policies                           a receive ring, made up
  tce-bench policies net-rx --svg net-rx.svg   a recorded guest of workloads/traces, and a plot
  tce-bench policies my.tce.zst --policy strict --policy deferred=64,1ms --platform phb3
  tce-bench policies block --groups 4 --kill-cost default --json block.json

Exit code 1 if an answer or a table was not what the trace says (schema tce-bench.policies/1).";

/// Options of `policies`.
#[derive(Debug, Args)]
pub(super) struct PoliciesArgs {
    /// ring: single pages, as a NIC takes them; block: 1 to 128 pages, as a disk does; random: anything
    /// anywhere; the name of a trace in workloads/traces; or a trace file
    #[arg(value_name = "ring|block|random|TRACE", default_value = "ring")]
    workload: String,
    /// A policy to measure, as replay has them. May be given more than once [default: strict, batched,
    /// deferred=256 and deferred=256,10ms]
    #[arg(long = "policy", value_name = super::POLICY_FORMS, value_parser = values::policy)]
    policies: Vec<Policy>,
    /// When filled entries are killed: always; beside-live[=ENTRIES], where another entry of the line was
    /// live; never. strict knows only always and never
    #[arg(long, value_name = "LIST", default_value = "always,beside-live", value_delimiter = ',')]
    #[arg(value_parser = fill)]
    fill: Vec<Fill>,
    /// Platforms: phb3, phb4, phb5
    #[arg(long, value_name = "LIST", default_value = "phb3,phb4", value_delimiter = ',')]
    #[arg(value_parser = platform)]
    platform: Vec<Platform>,
    /// PEs behind each PHB of the guest; all have to forget what one does
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count::<64>)]
    groups: u32,
    /// Make all calls by one handle, as replay does, instead of one for each vCPU
    #[arg(long)]
    one_handle: bool,
    /// Have kills take as long as on a machine where they are slow: ns for a store to a kill register, for
    /// a fence, and for each level that is read again; default is 100,1000,200, an assumption
    #[arg(long, value_name = "default|STORE,FENCE,REFILL", value_parser = values::kill_cost)]
    kill_cost: Option<KillCost>,
    /// Time everything so often, in turns: the best throughput counts, and the latencies of all
    #[arg(long, value_name = "N", default_value = "3", value_parser = values::count::<1000>)]
    repeat: u32,
    /// Calls of a guest that is made up, at least
    #[arg(long, value_name = "N", default_value = "200000", value_parser = values::count::<10_000_000>)]
    calls: u32,
    /// Seed of all random choices, decimal or hex
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::seed)]
    seed: u64,
    /// Write the result as one JSON document; - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    json: Option<String>,
    /// Write a plot of kills against exposure, a mark for each row; - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    svg: Option<String>,
    /// A name for this run, kept in the result
    #[arg(long, value_name = "TEXT", help_heading = "Output")]
    label: Option<String>,
    /// No progress bar and no table
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

pub(super) fn fill(text: &str) -> Result<Fill, String> {
    text.parse()
}

pub(super) fn platform(text: &str) -> Result<Platform, String> {
    let platform = values::platform(text)?;
    // NPU2 kills pages or everything; older PEs have no room for a guest's window.
    const ACCEPTED: [Platform; 3] = [Platform::Phb3, Platform::Phb4, Platform::Phb5];
    if ACCEPTED.contains(&platform) {
        return Ok(platform);
    }
    Err(format!(
        "{platform} has no rule of Linux to compare with, or no room for a guest; accepted: phb3, phb4, phb5"
    ))
}

/// The settings of `policies`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoliciesConfig {
    /// A guest that is made up, a trace's name or a path; not yet looked for.
    pub workload: String,
    /// At least one, each once; a batch may still be unknown.
    pub policies: Vec<Policy>,
    /// At least one, each once.
    pub fills: Vec<Fill>,
    /// At least one, each once.
    pub platforms: Vec<Platform>,
    /// PEs behind each PHB, 1 to 64.
    pub groups: u32,
    /// One handle makes all calls.
    pub one_handle: bool,
    /// What kills are to cost; `None` = what they cost here.
    pub kill_cost: Option<KillCost>,
    /// At least 1.
    pub repeat: u32,
    /// Of a guest that is made up; at least 1.
    pub calls: u32,
    /// Of all random choices.
    pub seed: u64,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// The plot.
    pub svg: Option<OutFile>,
    /// A name for the run.
    pub label: Option<String>,
    /// No progress bar and no table.
    pub quiet: bool,
}

impl TryFrom<PoliciesArgs> for PoliciesConfig {
    type Error = String;

    fn try_from(args: PoliciesArgs) -> Result<Self, String> {
        if let (Some(json), Some(svg)) = (&args.json, &args.svg)
            && json == svg
        {
            return Err(format!("--json and --svg both name '{json}'; accepted: two places"));
        }
        let policies = if args.policies.is_empty() {
            ["strict", "batched", "deferred=256", "deferred=256,10ms"].map(values::policy).into()
        } else {
            args.policies.into_iter().map(Ok).collect::<Vec<_>>()
        };
        let policies = policies.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            workload: args.workload,
            policies: each_once(policies),
            fills: each_once(args.fill),
            platforms: each_once(args.platform),
            groups: args.groups,
            one_handle: args.one_handle,
            kill_cost: args.kill_cost,
            repeat: args.repeat,
            calls: args.calls,
            seed: args.seed,
            json: args.json.as_deref().map(OutFile::from),
            svg: args.svg.as_deref().map(OutFile::from),
            label: args.label,
            quiet: args.quiet,
        })
    }
}

/// In the order in which they were named.
pub(super) fn each_once<T: PartialEq>(named: Vec<T>) -> Vec<T> {
    let mut once = Vec::with_capacity(named.len());
    for one in named {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}
