// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All traces' passes added up, and the result document made of them.

use tce_engine::addr::GroupId;
use tce_engine::backend::mock::MockBuilder;
use tce_engine::backend::{Backend as _, MAX_WINDOWS};
use tce_engine::mem::TablePages;
use tce_engine::platform::Platform;

use super::books::Books;
use super::checked::checked;
use super::machine::Setup;
use super::mismatch::Mismatches;
use super::progress::Progress;
use super::script::{Kind, Script};
use super::timed::{Latencies, latency, throughput};
use crate::cli::{Pass, ReplayConfig};
use crate::clock::Clock;
use crate::cmd::profiler;
use crate::host::HostFacts;
use crate::recorder::Recorder;
use crate::result::{
    Backend, BackendKind, Config, MOCK_LABEL, OpResult, Replay, ReplaySettings, ReplayTotal,
    ResultDoc, Run, SCHEMA, SweepPoint, TableMemory, TableMemoryKind, Tool, TraceResult,
    Verification, Warning,
};
use crate::trace::TraceError;

/// Huge pages of table memory have this size.
const HUGE_PAGE: u64 = 2 << 20;

/// What a replay found so far.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) traces: Vec<TraceResult>,
    pub(super) mismatches: Mismatches,
    /// Of all traces; `None` without a latency pass.
    latencies: Option<Latencies>,
    /// Entries that the PHB's walker was compared with after the traces.
    walked: u64,
    /// Traces that passed through a whole checked pass.
    checked: u64,
    books: Books,
    throughput: Rate,
    groups: u64,
    page_sizes: u64,
    interrupted: bool,
}

/// Work and the time it took.
#[derive(Clone, Copy, Default)]
struct Rate {
    calls: u64,
    tces: u64,
    ns: u64,
}

impl Rate {
    fn calls_per_s(self) -> Option<f64> {
        (self.ns > 0 && self.calls > 0).then(|| self.calls as f64 * 1e9 / self.ns as f64)
    }

    fn ns_per_tce(self) -> Option<f64> {
        (self.tces > 0).then(|| self.ns as f64 / self.tces as f64)
    }
}

impl Outcome {
    /// Runs the passes of one trace.
    ///
    /// # Errors
    /// If its guest cannot be set up.
    pub(super) fn trace(
        &mut self,
        script: &Script,
        setup: &Setup,
        passes: &[Pass],
        progress: &Progress,
    ) -> Result<(), TraceError> {
        let ram = script.ram(setup.ram, setup.host_page)?;
        self.groups = self.groups.max(script.phbs.len() as u64);
        self.page_sizes |= script.page_sizes.0;
        let mut found = Mismatches::default();
        let mut result = TraceResult {
            file: script.file.clone(),
            name: script.name.clone(),
            calls: script.counts.calls(),
            tces_mapped: script.counts.mapped,
            ram_bytes: ram,
            complete: true,
            ..TraceResult::default()
        };
        for (nth, &pass) in passes.iter().enumerate() {
            progress.name(format!("{} · {}", label(&script.file), pass.name()));
            let (books, complete) = match pass {
                Pass::Checked => {
                    let out = checked(script, setup, ram, progress)?;
                    found.extend(&out.mismatches);
                    result.translations = out.xlates;
                    result.final_entries = out.entries;
                    self.walked += out.entries;
                    self.checked += u64::from(out.complete);
                    (out.books, out.complete)
                }
                Pass::Throughput => {
                    let (out, took) = throughput(script, setup, ram, progress)?;
                    let ns = took.as_nanos() as u64;
                    let rate = Rate { calls: out.sum.calls, tces: out.sum.tces, ns };
                    result.calls_per_s = rate.calls_per_s();
                    result.ns_per_tce = rate.ns_per_tce();
                    self.throughput.calls += rate.calls;
                    self.throughput.tces += rate.tces;
                    self.throughput.ns += rate.ns;
                    keep_new(&mut found, &out.mismatches(script, pass.name()));
                    (out.books, out.complete)
                }
                Pass::Latency => {
                    let (out, recorders) = latency(script, setup, ram, progress)?;
                    let sums = self.latencies.get_or_insert_with(Default::default);
                    sums.iter_mut().zip(&recorders).for_each(|(sum, one)| sum.merge(one));
                    keep_new(&mut found, &out.mismatches(script, pass.name()));
                    (out.books, out.complete)
                }
            };
            // Every pass does the same; it is counted once.
            if nth == 0 {
                self.books.merge(&books);
            }
            if !complete {
                result.complete = false;
                self.interrupted = true;
                break;
            }
        }
        result.mismatches = found.count;
        self.mismatches.extend(&found);
        self.traces.push(result);
        Ok(())
    }

    /// True if a signal ended the replay before its end.
    pub(super) const fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Notes that a signal came between two traces.
    pub(super) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// One recorder for each kind of call, over all traces; none without a latency pass.
    pub(super) fn recorders(&self) -> Vec<(String, Recorder)> {
        let named = |sums: &Latencies| {
            let each = Kind::ALL.into_iter().zip(sums.iter().cloned());
            // Batches end only where a policy has them.
            let each = each.filter(|(kind, r)| *kind != Kind::Submit || r.calls() > 0);
            each.map(|(kind, recorder)| (kind.name().to_string(), recorder)).collect()
        };
        self.latencies.as_ref().map(named).unwrap_or_default()
    }

    /// The document.
    ///
    /// # Errors
    /// If a histogram cannot be encoded.
    pub(super) fn document(
        &self,
        config: &ReplayConfig,
        setup: &Setup,
        run: Run,
        clock: Clock,
        recorders: &[(String, Recorder)],
    ) -> Result<ResultDoc, String> {
        let checked = config.passes.contains(&Pass::Checked);
        let mut warnings: Vec<_> = profiler::warning(&config.output).into_iter().collect();
        if !checked {
            let text = "the checked pass was not asked for: of the answers only the return codes \
                        were compared";
            warnings.push(Warning::new("NOT_CHECKED", text));
        }
        if self.books.no_huge {
            let text = "huge pages were granted for the tables, but they stand on small ones";
            warnings.push(Warning::new("NO_HUGE_PAGES", text));
        }
        let results = recorders
            .iter()
            .map(|(name, recorder)| OpResult::new(name, name, recorder, None))
            .collect::<Result<_, _>>()?;
        let total = self.total();
        let all = self.checked == config.traces.len() as u64;
        Ok(ResultDoc {
            schema: SCHEMA.to_string(),
            tool: Tool::current(),
            verified: Some(all && !self.interrupted && total.mismatches == 0),
            verification: Verification {
                translations: total.translations + self.walked,
                passes: self.checked,
                first_mismatch: self.mismatches.first.first().cloned(),
                ..Verification::default()
            },
            run,
            host: HostFacts::capture(),
            backend: self.backend(),
            config: Config::Replay(ReplaySettings {
                traces: config.traces.iter().map(|path| path.display().to_string()).collect(),
                ram_bytes: config.ram_bytes,
                passes: config.passes.iter().map(|pass| pass.name().to_string()).collect(),
                compat: config.compat.name().to_string(),
                policy: config.policy.to_string(),
                host_page_shift: config.host_page_shift,
                simd: setup.tier.name().to_string(),
            }),
            clock,
            results,
            counters: self.books.counters,
            replay: Some(Replay { traces: self.traces.clone(), total }),
            left: Vec::new(),
            warnings,
            skipped: Vec::new(),
            hosts: Vec::new(),
            point: SweepPoint::default(),
        })
    }

    fn total(&self) -> ReplayTotal {
        let sum = |of: fn(&TraceResult) -> u64| self.traces.iter().map(of).sum();
        ReplayTotal {
            calls: sum(|t| t.calls),
            tces_mapped: sum(|t| t.tces_mapped),
            translations: sum(|t| t.translations),
            final_entries: sum(|t| t.final_entries),
            mismatches: sum(|t| t.mismatches),
            calls_per_s: self.throughput.calls_per_s(),
            ns_per_tce: self.throughput.ns_per_tce(),
        }
    }

    fn backend(&self) -> Backend {
        // Any group of any mock says what a PE offers, even if no trace had a PHB.
        let offered = MockBuilder::new(1).build().group(GroupId(0)).ok();
        let sizes = offered.map_or(0, |caps| caps.page_sizes.0) | self.page_sizes;
        let kind = match self.books.pages {
            _ if self.books.no_huge => TableMemoryKind::Small,
            Some(TablePages::Hugetlb) => TableMemoryKind::Hugetlb,
            Some(TablePages::Transparent) => TableMemoryKind::Thp,
            Some(TablePages::Small) | None => TableMemoryKind::Small,
        };
        let page_bytes = match kind {
            TableMemoryKind::Small => rustix::param::page_size() as u64,
            TableMemoryKind::Hugetlb | TableMemoryKind::Thp => HUGE_PAGE,
        };
        Backend {
            kind: BackendKind::Mock,
            label: MOCK_LABEL.to_string(),
            groups: self.groups,
            group_numbers: Vec::new(),
            container_version: None,
            kernel_release: None,
            runs_on: None,
            bridges: Some(Platform::Phb3.to_string()),
            page_sizes: (0..u64::BITS).map(|n| 1 << n).filter(|page| sizes & page != 0).collect(),
            max_windows: MAX_WINDOWS as u64,
            max_levels: offered.map_or(1, |caps| u64::from(caps.max_levels)),
            table_nodes: Vec::new(),
            table_memory: TableMemory {
                kind,
                page_bytes,
                reserved_bytes: self.books.table_reserved,
                used_bytes: self.books.table_used,
            },
            real_memory: None,
        }
    }
}

/// A timed pass meets what the checked pass met before it; then it says nothing new.
fn keep_new(found: &mut Mismatches, more: &Mismatches) {
    if found.count == 0 {
        found.extend(more);
    }
}

/// A file's name without directory and endings.
pub(super) fn label(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.strip_suffix(".zst").unwrap_or(name);
    name.strip_suffix(".tce").unwrap_or(name)
}
