// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command lines of `compare` and `gate`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values;
use crate::cmd::compare::Metric;
use crate::outfile::OutFile;

/// Options of a child's that would take its document away from us.
const OURS: [&str; 2] = ["--json", "--hlog"];

pub(super) const COMPARE_EXAMPLES: &str = "\
Two programs run in turns: each pair in an order that the seed decides, half of them A first. Of each
metric of each operation, the median of the pairs' ratios B/A has an interval; all judged intervals
together are 95 % sure. regression: one is above the threshold as a whole. no change: all are within.
inconclusive: anything else, and whatever runs of one program differ by themselves. Two documents are
one run of each and always inconclusive; folders of documents are compared, but were not taken in turns.
Sweeps are compared point by point; the verdict of all is the worst of the points', and comes first.

Examples:
  tce-bench compare --run old/tce-bench new/tce-bench -- --phase ring --duration 100ms
  tce-bench compare --run A B --pairs 40 --metric min --format iommu -- --backend mock
  tce-bench compare old.json new.json            what two runs were like
  tce-bench gate --run A B --confirm -- --duration 200ms
  tce-bench gate --run A B --best-of 10 --metric min -- --duration 100ms   on a noisy machine
  tce-bench gate --run A B -- --phase ring --sweep groups=1..8*2
  tce-bench gate --baseline results/main results/new

Exit codes: 0 done, and for gate no regression; gate: 3 regression, 5 inconclusive. 1 failed, or cannot
be compared (other machines, builds or settings; not verified; not complete).";

/// Options of `compare`.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Results to compare, the old one (A) first: documents of tce-bench run, --sweep or replay, or folders of
    /// such documents, each a run of the same
    #[arg(value_name = "OLD NEW", num_args = 2, required_unless_present = "run")]
    #[arg(conflicts_with_all = ["run", "confirm", "pairs", "best_of", "keep", "args"])]
    results: Vec<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

/// Options of `gate`.
#[derive(Debug, Args)]
pub(super) struct GateArgs {
    /// The result to compare
    #[arg(value_name = "NEW", requires = "baseline")]
    result: Option<PathBuf>,
    /// What it is compared with: a document or a folder of them
    #[arg(long, value_name = "FILE|FOLDER", required_unless_present = "run", requires = "result")]
    #[arg(conflicts_with_all = ["run", "confirm", "pairs", "best_of", "keep", "args"])]
    baseline: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

/// Options of both.
#[derive(Debug, Args)]
struct CommonArgs {
    /// Run two programs in turns instead, the old one (A) first, with the arguments behind --
    #[arg(long, value_names = ["A", "B"], num_args = 2)]
    run: Option<Vec<PathBuf>>,
    /// Runs of each, beside one of each to warm up; in half of the pairs A is first, chosen by the seed
    #[arg(long, value_name = "N", default_value = "20", value_parser = values::count::<10_000>)]
    pairs: u32,
    /// Run each up to so often in a pair, in turns, until the least of each judged time came twice, and take the
    /// least: for machines that others slow down for a while
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count::<100>)]
    best_of: u32,
    /// A regression is one only if as many more pairs say so, too
    #[arg(long)]
    confirm: bool,
    /// Keep the programs' documents in this folder, as a/01.json and b/01.json
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// What is judged: min, p50, p99. All three are shown
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_value = "min,p50")]
    #[arg(hide_possible_values = true)]
    metric: Vec<Metric>,
    /// A change is what is larger than this, in per cent
    #[arg(long, value_name = "PERCENT", default_value = "2.5", value_parser = per_cent)]
    threshold: f64,
    /// Seed of the order of the pairs and of the bootstrap, decimal or hex
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::seed)]
    seed: u64,
    /// Compare runs of unlike machines, builds or settings all the same; the result says so
    #[arg(long)]
    force: bool,
    /// table, markdown, json, iommu (the table of iommu_map() and iommu_unmap() in cover letters) or
    /// kernel (the lines of dma_map_benchmark)
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "table")]
    #[arg(hide_possible_values = true, help_heading = "Output")]
    format: Format,
    /// Write the comparison as one JSON document (schema tce-bench.compare/1); - is standard output
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    json: Option<String>,
    /// Nothing on standard output
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
    /// What both programs are called with; --quiet --json - is added
    #[arg(last = true, value_name = "ARGUMENTS", requires = "run")]
    args: Vec<OsString>,
}

/// How a comparison is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For terminals.
    Table,
    /// For pull requests.
    Markdown,
    /// For programs.
    Json,
    /// As the kernel's page-table benchmark prints it.
    Iommu,
    /// As `dma_map_benchmark` prints it.
    Kernel,
}

fn per_cent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>();
    match number {
        Ok(number) if number > 0.0 && number <= 100.0 => Ok(number / 100.0),
        _ => Err(format!(
            "'{text}' is no threshold; accepted: per cent above 0, at most 100, as 2.5"
        )),
    }
}

/// Two programs that run in turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairsConfig {
    /// The old one.
    pub a: PathBuf,
    /// The new one.
    pub b: PathBuf,
    /// At least 1.
    pub pairs: u32,
    /// Most runs of each in a pair, at least 1.
    pub best_of: u32,
    /// Run them again before a regression is called one.
    pub confirm: bool,
    /// Where the documents go.
    pub keep: Option<PathBuf>,
    /// For both.
    pub args: Vec<OsString>,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// Documents or folders, the old one first.
    Results(PathBuf, PathBuf),
    /// Programs.
    Run(PairsConfig),
}

impl Compared {
    /// Most runs of each that count as one.
    pub(crate) fn best_of(&self) -> u32 {
        match self {
            Self::Run(programs) => programs.best_of,
            Self::Results(..) => 1,
        }
    }
}

/// The settings of `compare` and `gate`.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareConfig {
    /// The verdict is the exit code.
    pub gate: bool,
    /// What is compared.
    pub what: Compared,
    /// What is judged, in order, each once.
    pub metrics: Vec<Metric>,
    /// Above 0, at most 1.
    pub threshold: f64,
    /// Of all choices.
    pub seed: u64,
    /// Unlike runs, too.
    pub force: bool,
    /// On standard output.
    pub format: Format,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// Nothing on standard output.
    pub quiet: bool,
}

impl TryFrom<CompareArgs> for CompareConfig {
    type Error = String;

    fn try_from(args: CompareArgs) -> Result<Self, String> {
        let results = <[PathBuf; 2]>::try_from(args.results).ok();
        args.common.config(false, results.map(|[old, new]| (old, new)))
    }
}

impl TryFrom<GateArgs> for CompareConfig {
    type Error = String;

    fn try_from(args: GateArgs) -> Result<Self, String> {
        args.common.config(true, args.baseline.zip(args.result))
    }
}

impl CommonArgs {
    fn config(
        self,
        gate: bool,
        results: Option<(PathBuf, PathBuf)>,
    ) -> Result<CompareConfig, String> {
        let run = self.run.and_then(|run| <[PathBuf; 2]>::try_from(run).ok());
        let what = match (results, run) {
            (Some((old, new)), _) => Compared::Results(old, new),
            (None, Some([a, b])) => {
                if let Some(taken) = self.args.iter().find(|a| is_ours(a)) {
                    let taken = taken.to_string_lossy();
                    return Err(format!(
                        "{taken} behind --: the programs' results come here; --keep FOLDER keeps them"
                    ));
                }
                let Self { pairs, best_of, confirm, keep, args, .. } = self;
                Compared::Run(PairsConfig { a, b, pairs, best_of, confirm, keep, args })
            }
            (None, None) => return Err("nothing to compare: two results or --run A B".to_owned()),
        };
        let mut metrics = self.metric;
        metrics.sort_unstable();
        metrics.dedup();
        Ok(CompareConfig {
            gate,
            what,
            metrics,
            threshold: self.threshold,
            seed: self.seed,
            force: self.force,
            format: self.format,
            json: self.json.as_deref().map(OutFile::from),
            quiet: self.quiet,
        })
    }
}

fn is_ours(argument: &OsString) -> bool {
    let text = argument.to_string_lossy();
    OURS.iter().any(|ours| {
        text.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}
