// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where each value of a plan comes from.

use serde::Serialize;

use super::document::Memory;
use crate::cli::{BackendChoice, Levels, Origin, PlanConfig, RunConfig};
use crate::result::{BackendKind, RunSettings};
use crate::slow;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SourceKind {
    /// Nobody said anything.
    Default,
    CommandLine,
    Workload,
    Environment,
    /// Found on this machine.
    Machine,
    /// It follows from the other settings.
    Settings,
}

impl SourceKind {
    /// For people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::CommandLine => "command line",
            Self::Workload => "workload file",
            Self::Environment => "environment",
            Self::Machine => "found on this machine",
            Self::Settings => "follows from the settings",
        }
    }
}

/// A value, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Source {
    /// Its place in the document, as `config.window_bytes`; all that is below it, too.
    pub(super) value: &'static str,
    pub(super) from: SourceKind,
    /// File and line of a workload, or the name of a variable.
    pub(super) at: Option<String>,
}

/// Values that options give, and which ones.
const OPTIONS: [(&str, &[&str]); 27] = [
    ("backend.kind", &["--backend"]),
    ("backend.bridges", &["--platform"]),
    ("backend.groups", &["--groups", "--vfio-groups"]),
    ("backend.group_numbers", &["--vfio-groups"]),
    ("backend.container_version", &["--vfio-v1"]),
    ("config.groups", &["--groups", "--vfio-groups"]),
    ("config.containers", &["--containers"]),
    ("config.window_bytes", &["--window"]),
    ("config.levels", &["--levels"]),
    ("config.page_shift", &["--page-size"]),
    ("config.host_page_shift", &["--host-page"]),
    ("config.threads", &["--threads"]),
    ("config.cpus", &["--cpus"]),
    ("config.backing_bytes", &["--backing"]),
    ("config.buffer_bytes", &["--buffer"]),
    ("config.phases", &["--phase"]),
    ("config.repetitions", &["--repetitions"]),
    ("config.duration_s", &["--duration"]),
    ("config.warmup_s", &["--warmup"]),
    ("config.simd", &["--simd"]),
    ("config.contiguous", &["--contiguous"]),
    ("config.memlock_bytes", &["--memlock"]),
    ("config.detach", &["--detach"]),
    ("config.kill_cost", &["--kill-cost"]),
    ("config.policy", &["--policy"]),
    ("config.rate_per_s", &["--rate"]),
    ("config.workload", &["--workload"]),
];

/// The same of the phase `mix`.
const OF_MIX: [(&str, &[&str]); 6] = [
    ("config.mix.operations", &["--mix"]),
    ("config.mix.pages", &["--pages"]),
    ("config.mix.live", &["--live"]),
    ("config.mix.burst", &["--burst"]),
    ("config.mix.order", &["--order"]),
    ("config.mix.place", &["--place"]),
];

/// Values that no option gives.
const FOUND: [(&str, SourceKind); 19] = [
    ("time", SourceKind::Settings),
    ("config.window_start", SourceKind::Settings),
    ("config.level_entries", SourceKind::Settings),
    ("backend.label", SourceKind::Settings),
    ("backend.page_sizes", SourceKind::Settings),
    ("backend.max_windows", SourceKind::Settings),
    ("backend.max_levels", SourceKind::Settings),
    ("backend.table_nodes", SourceKind::Settings),
    ("table", SourceKind::Settings),
    ("windows", SourceKind::Settings),
    ("memory.buffer_bytes", SourceKind::Settings),
    ("memory.table_charge_bytes", SourceKind::Settings),
    ("memory.need_locked_bytes", SourceKind::Settings),
    ("memory.table_blocks", SourceKind::Settings),
    ("memory.table_bytes", SourceKind::Settings),
    ("memory.locked_bytes", SourceKind::Machine),
    ("memory.huge_pages", SourceKind::Machine),
    ("devices", SourceKind::Machine),
    ("host", SourceKind::Machine),
];

/// What a simulated machine makes up and a real one has.
const OF_REAL: [&str; 7] = [
    "config.window_start",
    "config.host_page_shift",
    "backend.group_numbers",
    "backend.page_sizes",
    "backend.max_windows",
    "backend.max_levels",
    "backend.table_nodes",
];

/// Of all values of a plan; `slowed` if the environment asks for a slow run.
pub(super) fn sources(
    config: &PlanConfig,
    settings: &RunSettings,
    kind: BackendKind,
    memory: &Memory,
    slowed: bool,
) -> Vec<Source> {
    let source = |value, options: &[&str], otherwise| {
        let (from, at) = match config.origins.of(options) {
            Origin::Default => (otherwise, None),
            Origin::CommandLine => (SourceKind::CommandLine, None),
            Origin::Workload(at) => (SourceKind::Workload, Some(at)),
        };
        Source { value, from, at }
    };
    let real = kind == BackendKind::Vfio;
    let found =
        |value, usual| if real && OF_REAL.contains(&value) { SourceKind::Machine } else { usual };
    let of_mix = OF_MIX.iter().filter(|_| settings.mix.is_some());
    let mut all = Vec::new();
    for &(value, options) in OPTIONS.iter().chain(of_mix) {
        all.push(match chosen(value, &config.run) {
            // Also if it was asked for by name that it be chosen.
            Some(from) => Source { value, from, at: None },
            None => source(value, options, found(value, unsaid(value, settings, kind))),
        });
    }
    all.extend(FOUND.map(|(value, from)| Source { value, from: found(value, from), at: None }));
    // The less of what was given and what the system has.
    let limit = memory.memlock_bytes.filter(|limit| config.run.memlock_bytes != Some(*limit));
    let options = if limit.is_some() { &[][..] } else { &["--memlock"] };
    let otherwise = if limit.is_some() { SourceKind::Machine } else { SourceKind::Default };
    all.push(source("memory.memlock_bytes", options, otherwise));
    if slowed {
        let at = Some(slow::VARIABLE.to_owned());
        all.push(Source { value: "warnings", from: SourceKind::Environment, at });
    }
    all
}

/// Where a value comes from that was left to be chosen.
fn chosen(value: &str, run: &RunConfig) -> Option<SourceKind> {
    match value {
        "backend.kind" if run.backend == BackendChoice::Auto => Some(SourceKind::Machine),
        "config.levels" if run.levels == Levels::Auto => Some(SourceKind::Settings),
        _ => None,
    }
}

/// Where a value comes from whose options nobody gave.
fn unsaid(value: &str, settings: &RunSettings, kind: BackendKind) -> SourceKind {
    match value {
        // Another option asked for it.
        "backend.kind" | "backend.group_numbers" | "backend.container_version" => {
            SourceKind::Settings
        }
        "config.backing_bytes" if kind != BackendKind::Mock => SourceKind::Settings,
        "config.buffer_bytes" if settings.buffer_bytes >= settings.window_bytes => {
            SourceKind::Settings
        }
        // A part of what is free.
        "config.buffer_bytes" if kind == BackendKind::Mock => SourceKind::Machine,
        "config.phases" if settings.phases == ["mix"] => SourceKind::Settings,
        "config.duration_s" if settings.repetitions.is_some() => SourceKind::Settings,
        "config.simd" => SourceKind::Machine,
        _ => SourceKind::Default,
    }
}
