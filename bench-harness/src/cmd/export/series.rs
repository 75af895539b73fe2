// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names that stay the same from commit to commit, and the values under them.

use anyhow::bail;

use crate::cli::Better;
use crate::cmd::documents::{Tally, unlike};
use crate::recorder::Summary;
use crate::result::{Config, MixSettings, OpResult, ResultDoc, RunSettings, SweepPoint};
use crate::size::format_arg;

/// The operation that a replay's throughput pass is.
pub(super) const REPLAY: &str = "replay";

/// What is told of an operation. Times are ns, rates are of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Measure {
    /// The shortest sample.
    Min,
    /// Total time by calls.
    Mean,
    /// The median.
    P50,
    /// 90 of 100 samples are shorter.
    P90,
    /// 99 of 100.
    P99,
    /// 999 of 1,000.
    #[value(name = "p99.9")]
    P99_9,
    /// 9,999 of 10,000.
    #[value(name = "p99.99")]
    P99_99,
    /// The longest sample.
    Max,
    /// Time per TCE, the mean over all calls.
    NsPerTce,
    /// The least time per TCE of any sample.
    BestNsPerTce,
    /// Calls by their total time.
    CallsPerS,
    /// TCEs by their total time.
    TcesPerS,
}

impl Measure {
    /// What is exported if nothing else is asked for.
    pub const USUAL: [Self; 5] = [Self::Min, Self::P50, Self::P99, Self::CallsPerS, Self::TcesPerS];

    /// As typed, and at the end of a series' name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Mean => "mean",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P99_9 => "p99.9",
            Self::P99_99 => "p99.99",
            Self::Max => "max",
            Self::NsPerTce => "ns-per-tce",
            Self::BestNsPerTce => "best-ns-per-tce",
            Self::CallsPerS => "calls-per-s",
            Self::TcesPerS => "tces-per-s",
        }
    }

    /// Of its values.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::NsPerTce | Self::BestNsPerTce => "ns/TCE",
            Self::CallsPerS => "calls/s",
            Self::TcesPerS => "TCEs/s",
            _ => "ns",
        }
    }

    /// Times are to be small, rates large.
    #[must_use]
    pub const fn better(self) -> Better {
        match self {
            Self::CallsPerS | Self::TcesPerS => Better::Bigger,
            _ => Better::Smaller,
        }
    }

    fn of(self, operation: &Operation) -> Option<f64> {
        let (latency, p) = (&operation.latency, &operation.latency.p);
        match self {
            Self::Min => latency.min,
            Self::Mean => latency.mean,
            Self::P50 => p.p50,
            Self::P90 => p.p90,
            Self::P99 => p.p99,
            Self::P99_9 => p.p99_9,
            Self::P99_99 => p.p99_99,
            Self::Max => latency.max,
            Self::NsPerTce => operation.ns_per_tce,
            Self::BestNsPerTce => operation.best_ns_per_tce,
            Self::CallsPerS => operation.calls_per_s,
            Self::TcesPerS => rate(operation.ns_per_tce),
        }
    }
}

fn rate(ns: Option<f64>) -> Option<f64> {
    ns.filter(|ns| *ns > 0.0).map(|ns| 1e9 / ns)
}

/// An operation of a result, or the throughput pass of a replay.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) calls: u64,
    pub(super) tces: u64,
    /// None where it was timed as a whole.
    pub(super) samples: Option<u64>,
    pub(super) latency: Summary,
    pub(super) ns_per_tce: Option<f64>,
    pub(super) best_ns_per_tce: Option<f64>,
    pub(super) calls_per_s: Option<f64>,
}

impl Operation {
    pub(super) fn new(result: &OpResult) -> Self {
        Self {
            id: result.id.clone(),
            calls: result.count,
            tces: result.tces,
            samples: Tally::of(result).ok().map(|t| t.samples),
            latency: result.latency,
            ns_per_tce: result.ns_per_tce,
            best_ns_per_tce: result.best_ns_per_tce,
            calls_per_s: rate(result.latency.mean),
        }
    }
}

/// All of a document, in its order.
pub(super) fn operations(doc: &ResultDoc) -> Vec<Operation> {
    let of_results = doc.results.iter().map(Operation::new);
    let of_replay = doc.replay.iter().map(|r| &r.total).filter(|t| t.calls_per_s.is_some());
    let of_replay = of_replay.map(|total| Operation {
        id: REPLAY.to_owned(),
        calls: total.calls,
        tces: total.tces_mapped,
        samples: None,
        latency: Summary::default(),
        ns_per_tce: total.ns_per_tce,
        best_ns_per_tce: None,
        calls_per_s: total.calls_per_s,
    });
    of_results.chain(of_replay).collect()
}

/// `BACKEND/GEOMETRY`, the first parts of a series' name, and of a point of a sweep `/POINT`. They say what
/// decides most about a time; what is not in them has to stay the same from commit to commit.
pub(in crate::cmd) fn case(doc: &ResultDoc) -> String {
    format!("{}/{}{}", backend(doc), geometry(doc), point(&doc.point, '/'))
}

/// `groups-2+pages-8` behind `before`; of a run by itself nothing.
pub(super) fn point(point: &SweepPoint, before: char) -> String {
    let value = |(setting, value): (&String, &String)| format!("{setting}-{}", plain(value));
    let all: Vec<_> = point.0.iter().map(value).collect();
    if all.is_empty() { String::new() } else { format!("{before}{}", all.join("+")) }
}

/// As the label begins: `mock`, `mock-of-phb4`, `mock-kernel-k6_11-on-pseries`, `vfio`, `vfio-emulated`.
pub(super) fn backend(doc: &ResultDoc) -> String {
    let label = &doc.backend.label;
    let kind = label.split(':').next().unwrap_or(label).trim().replace(' ', "-");
    if label.contains("emulated") { format!("{kind}-emulated") } else { kind }
}

/// `g4c1-2G-4K-l2-t1`: groups and containers, window, IOMMU page, levels, threads, and what else makes
/// other work of it. Of a replay: its rules and its trace, or how many.
pub(super) fn geometry(doc: &ResultDoc) -> String {
    match &doc.config {
        Config::Run(run) => of_run(run),
        Config::Replay(replay) => {
            let what = match replay.traces.as_slice() {
                [one] => {
                    let name = one.rsplit('/').next().unwrap_or(one);
                    name.trim_end_matches(".zst").trim_end_matches(".tce").to_owned()
                }
                many => format!("{}-traces", many.len()),
            };
            format!("replay-{}-{}{}", replay.compat, plain(&what), other_policy(&replay.policy))
        }
    }
}

fn of_run(run: &RunSettings) -> String {
    let mut name = format!(
        "g{}c{}-{}-{}-l{}-t{}",
        run.groups,
        run.containers,
        format_arg(run.window_bytes),
        page_size(run.page_shift),
        run.levels,
        run.threads
    );
    if run.contiguous {
        name.push_str("-contiguous");
    }
    if let Some(policy) = &run.detach {
        name.push('-');
        name.push_str(policy);
    }
    name.push_str(&other_policy(&run.policy));
    if let Some(workload) = &run.workload {
        name.push('-');
        name.push_str(&plain(&workload.name));
    } else if let Some(mix) = &run.mix {
        name.push_str(&of_mix(mix));
    }
    if let Some(rate) = run.rate_per_s {
        name.push_str(&format!("-r{rate}"));
    }
    if let Some(cost) = &run.kill_cost {
        let (store, fence, refill) = (cost.store_ns, cost.fence_ns, cost.refill_ns);
        name.push_str(&format!("-kills{store}+{fence}+{refill}"));
    }
    name
}

/// A shift that no page has is told as it is.
fn page_size(shift: u8) -> String {
    1u64.checked_shl(shift.into()).map_or_else(|| format!("2^{shift}"), format_arg)
}

/// What makes other work of a mix, as `-p1+16-live64`.
fn of_mix(mix: &MixSettings) -> String {
    let pages: Vec<_> = mix.pages.split(',').filter_map(|part| part.split(':').next()).collect();
    format!("-p{}-live{}", pages.join("+"), mix.live)
}

/// A kill policy other than the default, as `-deferred-256-10ms`.
fn other_policy(policy: &str) -> String {
    if policy == "strict" { String::new() } else { format!("-{}", policy.replace(['=', ','], "-")) }
}

/// Without what separates names or fields anywhere.
fn plain(text: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    text.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

/// The values of one name.
#[derive(Debug)]
pub(super) struct Series<'a> {
    /// The first document that has it.
    pub(super) doc: &'a ResultDoc,
    pub(super) case: String,
    pub(super) id: String,
    pub(super) measure: Measure,
    /// One for each document, in the order of the command line.
    pub(super) values: Vec<f64>,
}

impl Series<'_> {
    /// `BACKEND/GEOMETRY/OPERATION/MEASURE`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}/{}", self.case, self.id, self.measure.name())
    }

    /// The median; of an even number, the mean of the two in the middle.
    pub(super) fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let (n, half) = (sorted.len(), sorted.len() / 2);
        if n % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
    }

    /// The least and the largest value; None of a single run, which does not know how far runs reach.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        let low = self.values.iter().copied().reduce(f64::min)?;
        let high = self.values.iter().copied().reduce(f64::max)?;
        (self.values.len() > 1).then_some((low, high))
    }
}

/// The series of `measures` over all documents, in the order in which they come.
///
/// # Errors
/// If runs that are unlike, or the same one twice, would stand under one name; if there is nothing.
pub(super) fn series<'a>(
    docs: &'a [ResultDoc],
    measures: &[Measure],
) -> anyhow::Result<Vec<Series<'a>>> {
    once(docs)?;
    let mut all: Vec<Series<'a>> = Vec::new();
    let mut cases: Vec<(String, &ResultDoc)> = Vec::new();
    for doc in docs {
        let case = case(doc);
        match cases.iter().find(|(known, _)| *known == case) {
            None => cases.push((case.clone(), doc)),
            Some((_, first)) => {
                let difference = unlike(first, doc);
                if !difference.is_empty() {
                    bail!(
                        "the runs {} and {} would be points of one series, and are unlike: {}; export \
                         them one by one",
                        first.run.id,
                        doc.run.id,
                        difference.join("; ")
                    );
                }
            }
        }
        for operation in operations(doc) {
            for &measure in measures {
                let Some(value) = measure.of(&operation) else { continue };
                let id = &operation.id;
                let of =
                    |s: &&mut Series<'_>| s.case == case && s.id == *id && s.measure == measure;
                match all.iter_mut().find(of) {
                    Some(known) => known.values.push(value),
                    None => all.push(Series {
                        doc,
                        case: case.clone(),
                        id: id.clone(),
                        measure,
                        values: vec![value],
                    }),
                }
            }
        }
    }
    if all.is_empty() {
        let names: Vec<_> = measures.iter().map(|m| m.name()).collect();
        bail!("no operation has any of {}: too few samples", names.join(", "));
    }
    Ok(all)
}

/// That no run is there twice, by itself or in a merged result.
///
/// # Errors
/// Which one is.
pub(in crate::cmd) fn once<'a>(
    docs: impl IntoIterator<Item = &'a ResultDoc>,
) -> anyhow::Result<()> {
    let docs: Vec<_> = docs.into_iter().collect();
    for (nth, doc) in docs.iter().enumerate() {
        if let Some(id) = docs[..nth].iter().find_map(|other| other.shared_run(doc)) {
            bail!("the run {id} is there twice; give each result once");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::KillCostSettings;

    #[test]
    fn what_makes_other_work_is_in_the_name_and_needs_no_quotes() {
        let run = include_str!("../../../tests/data/ring.json");
        let mut doc: ResultDoc = serde_json::from_str(run).unwrap();
        assert_eq!(case(&doc), "mock/g1c1-4M-4K-l1-t1");
        let Config::Run(run) = &mut doc.config else { unreachable!() };
        (run.groups, run.containers, run.threads, run.levels) = (8, 2, 4, 3);
        (run.contiguous, run.detach) = (true, Some("isolate".to_owned()));
        run.policy = "deferred=256,10ms".to_owned();
        run.kill_cost = Some(KillCostSettings { store_ns: 1, fence_ns: 2, refill_ns: 3 });
        doc.backend.label = "mock of phb4: software PHB, not hardware".to_owned();
        let name = case(&doc);
        assert_eq!(
            name,
            "mock-of-phb4/g8c2-4M-4K-l3-t4-contiguous-isolate-deferred-256-10ms-kills1+2+3"
        );
        // Neither a tag of a log nor a cell of a table may have these.
        assert!(!name.contains([',', ' ', '"', '=']));
        doc.backend.label = "vfio: real kernel 6.12, emulated by QEMU".to_owned();
        assert_eq!(backend(&doc), "vfio-emulated");
        let values = [("rate", "1000/s"), ("page-size", "64K")];
        doc.point = SweepPoint(values.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        let name = case(&doc);
        assert!(name.ends_with("-kills1+2+3/page-size-64K+rate-1000_s"), "{name}");
        assert!(!name.contains([',', ' ', '"', '=']));
    }
}
