// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From documents to verdicts.

use serde::Serialize;

use super::load::{Metric, Side, points};
use super::stats::{self, Care, Interval};
use super::verdict::{self, Lines, Verdict};
use crate::cmd::documents::parameters;
use crate::result::{OpResult, ResultDoc, Skipped, SweepPoint, operation_ids};

/// How often a comparison may be wrong because of the noise, over everything that it judges.
pub(super) const ERROR: f64 = 0.05;

/// What decides.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) metrics: Vec<Metric>,
    /// As a part: 0.025.
    pub(super) threshold: f64,
    pub(super) seed: u64,
}

/// One metric of one operation. Changes are in per cent of A, above 0 where B is slower.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cell {
    /// Of a sweep; else none.
    pub(super) point: SweepPoint,
    pub(super) id: String,
    pub(super) metric: Metric,
    /// It counts for the verdict of all.
    pub(super) judged: bool,
    /// Of each run of A, in nanoseconds, in order of time; with pairs, that of the pairs, the least if A ran more
    /// than once in one.
    pub(super) a_ns: Vec<f64>,
    pub(super) b_ns: Vec<f64>,
    /// Medians of the runs.
    pub(super) a_median_ns: f64,
    pub(super) b_median_ns: f64,
    /// The median of the pairs' ratios; without pairs the ratio of the medians.
    pub(super) change_percent: f64,
    pub(super) low_percent: Option<f64>,
    pub(super) high_percent: Option<f64>,
    /// How far runs of one program differ, by the same measure.
    pub(super) noise_floor_percent: Option<f64>,
    pub(super) verdict: Verdict,
    /// Why nothing can be said.
    pub(super) reason: Option<String>,
}

impl Cell {
    /// `ring.map min`, behind its point if it has one.
    pub(super) fn name(&self) -> String {
        at(&self.point, &format!("{} {}", self.id, self.metric.name()))
    }
}

/// What was found of one point of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct PointVerdict {
    pub(super) values: SweepPoint,
    pub(super) verdict: Verdict,
    pub(super) reason: Option<String>,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Evaluation {
    /// The worst of all points.
    pub(super) verdict: Verdict,
    pub(super) reason: Option<String>,
    /// Of sweeps, in their order; empty for single results.
    pub(super) points: Vec<PointVerdict>,
    /// Each interval's own share of [`ERROR`].
    pub(super) error_per_interval: f64,
    pub(super) cells: Vec<Cell>,
    pub(super) skipped: Vec<Skipped>,
}

/// Times of one metric of an operation, by side.
struct Times {
    id: String,
    metric: Metric,
    ns: [Vec<f64>; 2],
}

/// What there is to compare at one point.
#[derive(Default)]
struct Found {
    times: Vec<Times>,
    skipped: Vec<Skipped>,
    /// Something that one side has and the other has not.
    missing: Option<String>,
}

/// Compares two sides. `pairs`, if runs of one are beside those of the other: how many of each are in each pair.
pub(super) fn evaluate(sides: &[Side; 2], pairs: Option<&[usize]>, rules: &Rules) -> Evaluation {
    let found: Vec<_> =
        points(sides).into_iter().map(|point| (point, find(sides, point, rules))).collect();
    let times = found.iter().flat_map(|(_, found)| &found.times);
    let judged = times.filter(|t| rules.metrics.contains(&t.metric)).count();
    // Each of many intervals has to be surer for all of them to be as sure.
    let error = ERROR / judged.max(1) as f64;
    let (mut cells, mut skipped, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
    for (point, found) in found {
        let of_point: Vec<Cell> =
            found.times.into_iter().map(|t| cell(point, t, pairs, error, rules)).collect();
        let (verdict, reason) = overall(&of_point, found.missing);
        verdicts.push(PointVerdict { values: point.clone(), verdict, reason });
        cells.extend(of_point);
        skipped.extend(found.skipped);
    }
    let verdict = Verdict::of_all(verdicts.iter().map(|v| v.verdict));
    let reason = match verdicts.iter().find(|v| v.verdict == verdict) {
        Some(first) => first.reason.as_ref().map(|reason| at(&first.values, reason)),
        None => Some(NOTHING.to_owned()),
    };
    verdicts.retain(|v| !v.values.is_none());
    Evaluation { verdict, reason, points: verdicts, error_per_interval: error, cells, skipped }
}

/// Whether the least of each judged time came twice, on both sides of a pair: what is as fast as it gets comes
/// again, and what was a moment's luck of one side does not.
pub(super) fn came_twice(sides: &[Side; 2], rules: &Rules) -> bool {
    let twice = |ns: &Vec<f64>| stats::least_came_twice(ns, rules.threshold);
    let all = |point| find(sides, point, rules).times;
    let mut judged =
        points(sides).into_iter().flat_map(all).filter(|t| rules.metrics.contains(&t.metric));
    judged.all(|times| times.ns.iter().all(twice))
}

/// Behind the point, if it is one of a sweep.
fn at(point: &SweepPoint, text: &str) -> String {
    if point.is_none() { text.to_owned() } else { format!("{point}: {text}") }
}

/// The times of a point, and what cannot be compared.
fn find(sides: &[Side; 2], point: &SweepPoint, rules: &Rules) -> Found {
    let mut found = Found::default();
    let docs = sides.each_ref().map(|side| side.at(point));
    if let Some(reason) = one_sided(docs.each_ref().map(|docs| docs.as_slice())) {
        let id = point.to_string();
        return Found {
            skipped: vec![Skipped { id, reason: reason.clone() }],
            missing: Some(reason),
            ..found
        };
    }
    let docs = docs.map(|side| side.into_iter().flatten().collect::<Vec<_>>());
    for id in operation_ids(docs.iter().flatten().copied()) {
        let of_side = |side: &Vec<&ResultDoc>| -> Vec<Option<OpResult>> {
            side.iter().map(|doc| doc.operation(id).cloned()).collect()
        };
        let runs = docs.each_ref().map(of_side);
        if let Some(reason) = one_sided(runs.each_ref().map(|runs| runs.as_slice())) {
            found.missing.get_or_insert(format!("{id}: {reason}"));
            found.skipped.push(Skipped { id: at(point, id), reason });
            continue;
        }
        let runs: [Vec<OpResult>; 2] = runs.map(|side| side.into_iter().flatten().collect());
        for metric in Metric::ALL {
            match times(&runs, metric) {
                Ok(ns) => found.times.push(Times { id: id.to_owned(), metric, ns }),
                Err((one_sided, reason)) => {
                    let id = format!("{id} {}", metric.name());
                    if one_sided && rules.metrics.contains(&metric) {
                        found.missing.get_or_insert(format!("{id}: {reason}"));
                    }
                    found.skipped.push(Skipped { id: at(point, &id), reason });
                }
            }
        }
    }
    found
}

/// How many runs have it, if not all of both sides do.
fn one_sided<T>([a, b]: [&[Option<T>]; 2]) -> Option<String> {
    let (in_a, in_b) = (a.iter().flatten().count(), b.iter().flatten().count());
    (in_a != a.len() || in_b != b.len())
        .then(|| format!("in {in_a} of {} runs of A, {in_b} of {} of B", a.len(), b.len()))
}

/// The times, or why there are none; `true` if it is not so for all runs alike.
fn times(runs: &[Vec<OpResult>; 2], metric: Metric) -> Result<[Vec<f64>; 2], (bool, String)> {
    let mut all = runs.iter().flatten();
    if metric != Metric::Min {
        let first = all.next().and_then(parameters);
        if let Some(other) = all.map(parameters).find(|p| *p != first) {
            let reason = format!("histograms of other parameters: {first:?} and {other:?}");
            return Err((true, reason));
        }
    }
    let of = |side: &Vec<OpResult>| side.iter().map(|r| metric.of(r)).collect::<Vec<_>>();
    let found = runs.each_ref().map(of);
    let failed = found.iter().flatten().filter(|t| t.is_err()).count();
    let one_sided = failed != found.iter().flatten().count();
    let side = |side: Vec<Result<f64, String>>| side.into_iter().collect::<Result<Vec<f64>, _>>();
    let [a, b] = found;
    match (side(a), side(b)) {
        (Ok(a), Ok(b)) => Ok([a, b]),
        (Err(why), _) | (_, Err(why)) => Err((one_sided, why)),
    }
}

/// The least of each pair: something else at work makes a run slower and none faster.
pub(super) fn least(ns: &[f64], pairs: &[usize]) -> Vec<f64> {
    let mut rest = ns.iter().copied();
    pairs.iter().map(|runs| rest.by_ref().take(*runs).fold(f64::INFINITY, f64::min)).collect()
}

fn cell(
    point: &SweepPoint,
    times: Times,
    pairs: Option<&[usize]>,
    error: f64,
    rules: &Rules,
) -> Cell {
    let Times { id, metric, ns } = times;
    let [a_ns, b_ns] = match pairs {
        Some(pairs) => ns.map(|ns| least(&ns, pairs)),
        None => ns,
    };
    let logs = |ns: &[f64]| ns.iter().map(|t| t.ln()).collect::<Vec<f64>>();
    let (a, b) = (logs(&a_ns), logs(&b_ns));
    // Each with choices of its own, which do not depend on what else is compared.
    let care = Care { error, seed: rules.seed ^ hash(&at(point, &id), metric) };
    let (change, interval, floor) = if pairs.is_some() {
        let ratios: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b - a).collect();
        let same: Vec<f64> = stats::neighbours(&a).chain(stats::neighbours(&b)).collect();
        (stats::median(&ratios), care.of_median(&ratios), care.of_median(&same))
    } else {
        let change = stats::median(&b) - stats::median(&a);
        (change, care.of_difference(&a, &b), halves(&a, &b, care))
    };
    let judged = rules.metrics.contains(&metric);
    let (verdict, reason) = match interval {
        None => (Verdict::Inconclusive, Some(too_few(a.len(), b.len(), pairs.is_some(), care))),
        Some(interval) => {
            // Without a floor of its own a difference is compared with the threshold alone.
            let floor = floor.map_or(0.0, Interval::farthest);
            verdict::judge(interval, Lines { threshold: rules.threshold.ln_1p(), floor })
        }
    };
    Cell {
        point: point.clone(),
        judged,
        a_median_ns: stats::median(&a_ns),
        b_median_ns: stats::median(&b_ns),
        change_percent: verdict::per_cent(change),
        low_percent: interval.map(|i| verdict::per_cent(i.low)),
        high_percent: interval.map(|i| verdict::per_cent(i.high)),
        noise_floor_percent: floor.map(|i| verdict::per_cent(i.farthest())),
        verdict,
        reason,
        id,
        metric,
        a_ns,
        b_ns,
    }
}

/// A against A without pairs: the first half of a side's runs by the second, which shows how the machine
/// changed meanwhile; the worse of both sides.
pub(super) fn halves(a: &[f64], b: &[f64], care: Care) -> Option<Interval> {
    let of = |side: &[f64]| {
        let (first, second) = side.split_at(side.len() / 2);
        care.of_difference(first, second)
    };
    [of(a), of(b)].into_iter().flatten().max_by(|x, y| x.farthest().total_cmp(&y.farthest()))
}

fn too_few(a: usize, b: usize, paired: bool, care: Care) -> String {
    let least = care.least();
    match (paired, a, b) {
        (true, ..) => format!("{a} pairs, and it takes {least} to be sure enough"),
        (false, 1, 1) => {
            "one run of each does not tell how much runs differ; --run A B measures that".to_owned()
        }
        _ => format!("{a} and {b} runs, and it takes {least} of each to be sure enough"),
    }
}

/// Why there is no verdict if nothing is judged.
const NOTHING: &str = "there is nothing to judge";

/// The verdict of all that is judged at a point; something that is missing is not known to be as it was.
fn overall(cells: &[Cell], missing: Option<String>) -> (Verdict, Option<String>) {
    let judged: Vec<&Cell> = cells.iter().filter(|c| c.judged).collect();
    let unknown = missing.iter().map(|_| Verdict::Inconclusive);
    let verdict = Verdict::of_all(judged.iter().map(|c| c.verdict).chain(unknown));
    let first = judged.iter().find(|c| c.verdict == verdict);
    let reason = match (verdict, first) {
        (Verdict::NoChange, _) => None,
        (Verdict::Inconclusive, Some(cell)) => {
            let reason = cell.reason.as_deref().unwrap_or_default();
            Some(format!("{} {}: {reason}", cell.id, cell.metric.name()))
        }
        (Verdict::Inconclusive, None) => Some(missing.unwrap_or_else(|| NOTHING.to_owned())),
        (_, Some(cell)) => {
            Some(format!("{} {}: {:+.1} %", cell.id, cell.metric.name(), cell.change_percent))
        }
        (_, None) => None,
    };
    (verdict, reason)
}

/// FNV-1a.
pub(super) fn hash(id: &str, metric: Metric) -> u64 {
    let bytes = id.bytes().chain([0]).chain(metric.name().bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
