// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A document from the runs that it is the sum of. Sums of fractions go in the order of the runs, which
//! is always the same.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow};
use hdrhistogram::Histogram;

use super::Tally;
use crate::clock::Clock;
use crate::recorder::{Percentiles, Summary};
use crate::result::{
    BooksResult, Counters, DmaResult, HistData, HostRun, OpResult, OpenLoop, Replay, ReplayTotal,
    ResultDoc, Run, SweepPoint, TraceResult, Verification,
};
use crate::stamp::joint_id;

/// The samples of each operation: encoded, and as they are.
pub(super) type Hists<'a> = BTreeMap<&'a str, (HistData, &'a Histogram<u64>)>;

/// The sum of `rows`, which are in order; program and settings are those of `like`.
///
/// # Errors
/// If counts have no room.
pub(super) fn document(
    like: &ResultDoc,
    rows: Vec<HostRun>,
    hists: &Hists<'_>,
) -> anyhow::Result<ResultDoc> {
    let first = rows.first().context("there is nothing to merge")?;
    let mut results = Vec::new();
    for result in &first.results {
        let of_rows: Option<Vec<&OpResult>> =
            rows.iter().map(|row| row.results.iter().find(|r| r.id == result.id)).collect();
        let of_rows = of_rows.with_context(|| format!("not all runs have {}", result.id))?;
        results.push(operation(&of_rows, hists.get(result.id.as_str()))?);
    }
    let mut host = first.host.clone();
    let names: BTreeSet<&str> = rows.iter().map(|r| r.host.hostname.as_str()).collect();
    if names.len() > 1 {
        host.hostname = format!("{} hosts", names.len());
    }
    let verified = rows.iter().try_fold(true, |all, row| row.verified.map(|this| all && this));
    Ok(ResultDoc {
        schema: like.schema.clone(),
        tool: like.tool.clone(),
        run: run(first, &rows),
        host,
        backend: first.backend.clone(),
        config: like.config.clone(),
        clock: clock(first, &rows),
        results,
        counters: counters(&rows)?,
        verified,
        verification: verification(&rows)?,
        replay: replay(&rows)?,
        left: Vec::new(),
        warnings: each_once(rows.iter().flat_map(|r| &r.warnings)),
        skipped: each_once(rows.iter().flat_map(|r| &r.skipped)),
        hosts: rows,
        point: SweepPoint::default(),
    })
}

fn run(first: &HostRun, rows: &[HostRun]) -> Run {
    let label = &first.run.label;
    Run {
        id: joint_id(rows.iter().map(|row| row.run.id.as_str())),
        // Of one form, so the least text is the earliest.
        started: rows.iter().map(|r| &r.run.started).min().unwrap_or(&first.run.started).clone(),
        wall_s: rows.iter().map(|r| r.run.wall_s).fold(0.0, f64::max),
        complete: true,
        argv: first.run.argv.clone(),
        label: rows.iter().all(|r| r.run.label == *label).then(|| label.clone()).flatten(),
        seed: first.run.seed,
    }
}

/// The worst of all.
fn clock(first: &HostRun, rows: &[HostRun]) -> Clock {
    let worst = |of: fn(&Clock) -> f64| rows.iter().map(|r| of(&r.clock)).fold(0.0, f64::max);
    Clock {
        source: first.clock.source.clone(),
        overhead_ns: worst(|c| c.overhead_ns),
        resolution_ns: worst(|c| c.resolution_ns),
    }
}

fn operation(
    rows: &[&OpResult],
    hist: Option<&(HistData, &Histogram<u64>)>,
) -> anyhow::Result<OpResult> {
    let first = *rows.first().context("no run has it")?;
    let mut sum = Tally::default();
    for row in rows {
        sum.add(Tally::of(row)?)?;
    }
    // By weight: what a run took for one, times how many it did.
    let mean = |of: fn(&OpResult) -> Option<f64>, weight: fn(&OpResult) -> u64| {
        let known = rows.iter().filter_map(|r| of(r).map(|value| (value, weight(r) as f64)));
        let (total, n) = known.fold((0.0, 0.0), |(total, n), (v, w)| (total + v * w, n + w));
        (n > 0.0).then(|| total / n)
    };
    let least =
        |of: fn(&OpResult) -> Option<f64>| rows.iter().filter_map(|r| of(r)).reduce(f64::min);
    let min = least(|r| r.latency.min);
    let max = rows.iter().filter_map(|r| r.latency.max).reduce(f64::max);
    let p = match (hist, min, max) {
        (Some((_, hist)), Some(min), Some(max)) => Percentiles::of(hist, ps(min), ps(max)),
        _ => Percentiles::default(),
    };
    Ok(OpResult {
        id: first.id.clone(),
        op: first.op.clone(),
        unit: first.unit.clone(),
        direction: first.direction.clone(),
        count: sum.calls,
        tces: sum.tces,
        ns_per_tce: mean(|r| r.ns_per_tce, |r| r.tces),
        best_ns_per_tce: least(|r| r.best_ns_per_tce),
        best_round_ns_per_tce: least(|r| r.best_round_ns_per_tce),
        group: rows.iter().map(|r| r.group).max().unwrap_or(1),
        samples: Some(sum.samples),
        latency: Summary { min, mean: mean(|r| r.latency.mean, |r| r.count), max, p },
        // Each machine has one of its own.
        limit: None,
        of_limit: None,
        requests: total(rows, |r| r.requests),
        ioctls: total(rows, |r| r.ioctls),
        kills_per_1000_tces: mean(|r| r.kills_per_1000_tces, |r| r.tces),
        exposure_ns: rows.iter().filter_map(|r| r.exposure_ns).max(),
        own_table: first.own_table.clone(),
        open_loop: open_loop(rows),
        // They were not at the same time; each row has its own.
        timeline: None,
        hist: hist.map(|(data, _)| data.clone()),
    })
}

/// Rates add up.
fn open_loop(rows: &[&OpResult]) -> Option<OpenLoop> {
    rows.iter().map(|row| row.open_loop).reduce(|sum, one| {
        let (sum, one) = (sum?, one?);
        Some(OpenLoop {
            asked_per_s: sum.asked_per_s.saturating_add(one.asked_per_s),
            achieved_per_s: sum.achieved_per_s + one.achieved_per_s,
            late: sum.late.saturating_add(one.late),
            most_behind_ns: sum.most_behind_ns.max(one.most_behind_ns),
        })
    })?
}

fn ps(ns: f64) -> u64 {
    (ns * 1e3).round() as u64
}

/// The sum, if all have one.
fn total(rows: &[&OpResult], of: fn(&OpResult) -> Option<u64>) -> Option<u64> {
    rows.iter().try_fold(0u64, |sum, r| sum.checked_add(of(r)?))
}

fn add(a: u64, b: u64) -> anyhow::Result<u64> {
    a.checked_add(b).ok_or_else(|| anyhow!("counters add up to more than 2^64"))
}

/// Sums; of what was pinned at a time, the most of any run.
fn counters(rows: &[HostRun]) -> anyhow::Result<Counters> {
    let mut sum = Counters::default();
    for row in rows {
        // By name, so that a new counter is not forgotten.
        let Counters {
            tces_written,
            kills_asked,
            kills_issued,
            register_stores,
            kill_cost_ns,
            requests,
            ioctls,
            pinned_peak_bytes,
            pinned_end_bytes,
            table_charge_bytes,
            leaf_blocks,
            table_blocks,
        } = row.counters;
        for (to, from) in [
            (&mut sum.tces_written, tces_written),
            (&mut sum.kills_asked, kills_asked),
            (&mut sum.kills_issued, kills_issued),
            (&mut sum.register_stores, register_stores),
            (&mut sum.kill_cost_ns, kill_cost_ns),
            (&mut sum.requests, requests),
            (&mut sum.ioctls, ioctls),
            (&mut sum.pinned_end_bytes, pinned_end_bytes),
            (&mut sum.table_charge_bytes, table_charge_bytes),
            (&mut sum.leaf_blocks, leaf_blocks),
            (&mut sum.table_blocks, table_blocks),
        ] {
            *to = add(*to, from)?;
        }
        sum.pinned_peak_bytes = sum.pinned_peak_bytes.max(pinned_peak_bytes);
    }
    Ok(sum)
}

fn verification(rows: &[HostRun]) -> anyhow::Result<Verification> {
    let mut sum = Verification::default();
    let mut devices = BTreeSet::new();
    for row in rows {
        let v = &row.verification;
        sum.translations = add(sum.translations, v.translations)?;
        sum.mirror_entries = add(sum.mirror_entries, v.mirror_entries)?;
        sum.passes = add(sum.passes, v.passes)?;
        if let Some(books) = &v.books {
            let all = sum.books.get_or_insert_with(BooksResult::default);
            all.comparisons = add(all.comparisons, books.comparisons)?;
        }
        if let Some(dma) = &v.dma {
            let all = sum.dma.get_or_insert_with(DmaResult::default);
            all.pages = add(all.pages, dma.pages)?;
            all.unmapped = add(all.unmapped, dma.unmapped)?;
            devices.extend(dma.devices.iter().cloned());
        }
        if sum.unproven.is_none() {
            sum.unproven.clone_from(&v.unproven);
        }
    }
    if let Some(dma) = &mut sum.dma {
        dma.devices = devices.into_iter().collect();
    }
    Ok(sum)
}

/// Each once, in the order of the runs.
fn each_once<'a, T: Clone + PartialEq + 'a>(all: impl Iterator<Item = &'a T>) -> Vec<T> {
    let mut once = Vec::new();
    for one in all {
        if !once.contains(one) {
            once.push(one.clone());
        }
    }
    once
}

fn replay(rows: &[HostRun]) -> anyhow::Result<Option<Replay>> {
    let all: Option<Vec<&Replay>> = rows.iter().map(|row| row.replay.as_ref()).collect();
    let Some(all) = all else { return Ok(None) };
    let Some(first) = all.first() else { return Ok(None) };
    let mut traces = Vec::new();
    for (nth, trace) in first.traces.iter().enumerate() {
        let mut sum = TraceResult {
            file: trace.file.clone(),
            name: trace.name.clone(),
            ..Default::default()
        };
        let mut pace = Pace::default();
        sum.complete = true;
        for replay in &all {
            let one = replay.traces.get(nth).context("not all runs have the same traces")?;
            sum.calls = add(sum.calls, one.calls)?;
            sum.tces_mapped = add(sum.tces_mapped, one.tces_mapped)?;
            sum.translations = add(sum.translations, one.translations)?;
            sum.final_entries = add(sum.final_entries, one.final_entries)?;
            sum.mismatches = add(sum.mismatches, one.mismatches)?;
            sum.ram_bytes = sum.ram_bytes.max(one.ram_bytes);
            sum.complete &= one.complete;
            pace.add(one.calls, one.calls_per_s, one.ns_per_tce);
        }
        (sum.calls_per_s, sum.ns_per_tce) = (pace.calls_per_s(), pace.ns_per_tce());
        traces.push(sum);
    }
    let mut total = ReplayTotal::default();
    let mut pace = Pace::default();
    for replay in &all {
        let one = &replay.total;
        total.calls = add(total.calls, one.calls)?;
        total.tces_mapped = add(total.tces_mapped, one.tces_mapped)?;
        total.translations = add(total.translations, one.translations)?;
        total.final_entries = add(total.final_entries, one.final_entries)?;
        total.mismatches = add(total.mismatches, one.mismatches)?;
        pace.add(one.calls, one.calls_per_s, one.ns_per_tce);
    }
    (total.calls_per_s, total.ns_per_tce) = (pace.calls_per_s(), pace.ns_per_tce());
    Ok(Some(Replay { traces, total }))
}

/// The time of several throughput passes together.
#[derive(Default)]
struct Pace {
    calls: f64,
    tces: f64,
    ns: f64,
}

impl Pace {
    /// A pass, unless it was not timed.
    fn add(&mut self, calls: u64, calls_per_s: Option<f64>, ns_per_tce: Option<f64>) {
        let Some(rate) = calls_per_s.filter(|rate| *rate > 0.0) else { return };
        let ns = calls as f64 / rate * 1e9;
        self.calls += calls as f64;
        self.ns += ns;
        self.tces += ns_per_tce.filter(|time| *time > 0.0).map_or(0.0, |time| ns / time);
    }

    fn calls_per_s(&self) -> Option<f64> {
        (self.ns > 0.0).then(|| self.calls / self.ns * 1e9)
    }

    fn ns_per_tce(&self) -> Option<f64> {
        (self.tces > 0.0).then(|| self.ns / self.tces)
    }
}
