// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command lines of `export` and `merge`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cmd::export::Measure;
use crate::outfile::OutFile;

pub(super) const EXPORT_EXAMPLES: &str = "\
A series is called BACKEND/GEOMETRY/OPERATION/MEASURE, as mock/g1c1-2G-4K-l2-t1/bulk.map/p50; README.md
says what each part is. Each point of a sweep is a series of its own, as mock/g4c1-2G-4K-l2-t1/groups-4/….
Results that a comparison would refuse are refused.

Examples:
  tce-bench export --to gha out.json -o smaller.json
  tce-bench export --to gha --better bigger out.json -o bigger.json
  tce-bench export --to bmf kept/a/*.json -o bmf.json        the median of 20 runs, and their range
  tce-bench export --to prometheus out.json -o /var/lib/node_exporter/tce_bench.prom
  tce-bench export --to hgrm --id ring.map out.json -o ring.hgrm";

pub(super) const MERGE_EXAMPLES: &str = "\
Histograms are added bucket by bucket, counts exactly; percentiles are those of all samples together. Each
run stays in the document with its host, in hosts. Merged results can be merged, compared and exported.

Examples:
  tce-bench merge node*.json -o fleet.json
  tce-bench merge --skip-unusable results/*.json -o fleet.json";

/// Options of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// gha (github-action-benchmark), bmf (Bencher), openmetrics, prometheus (a textfile collector's .prom),
    /// hlog (HdrHistogram log 1.3), hgrm (percentiles to plot), csv, lnt (LLVM's LNT) or perfherder
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    to: ExportFormat,
    /// Results of run, --sweep or replay, or merged ones. Runs of the same become one point: their median, and
    /// how far they reach
    #[arg(value_name = "RESULT", required = true)]
    results: Vec<PathBuf>,
    /// Where to; - is standard output. For hgrm of several operations a folder that is there
    #[arg(long, short, value_name = "FILE|-|FOLDER", default_value = "-")]
    output: String,
    /// Of gha, which has a file for each: smaller is better (times), bigger is better (rates)
    #[arg(long, value_name = "WHICH", value_enum, default_value = "smaller")]
    #[arg(hide_possible_values = true)]
    better: Better,
    /// What to export, for gha, bmf, lnt and perfherder: min, mean, p50, p90, p99, p99.9, p99.99, max,
    /// ns-per-tce, best-ns-per-tce, calls-per-s, tces-per-s [default: min, p50, p99 and the rates]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    #[arg(hide_possible_values = true)]
    measure: Vec<Measure>,
    /// Only these operations, as bulk.map,ring.map [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    id: Vec<String>,
}

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// What github-action-benchmark reads.
    Gha,
    /// Bencher Metric Format.
    Bmf,
    /// Text of OpenMetrics 1.0.
    Openmetrics,
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// HdrHistogram interval log 1.3.
    Hlog,
    /// HdrHistogram percentile distribution.
    Hgrm,
    /// RFC 4180.
    Csv,
    /// LNT report, format 2.
    Lnt,
    /// Perfherder artifact.
    Perfherder,
}

impl ExportFormat {
    /// As typed.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
    }

    /// It has a place for single measures.
    const fn takes_measures(self) -> bool {
        matches!(self, Self::Gha | Self::Bmf | Self::Lnt | Self::Perfherder)
    }
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Better {
    /// Times.
    Smaller,
    /// Rates.
    Bigger,
}

/// The settings of `export`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportConfig {
    /// Into what.
    pub to: ExportFormat,
    /// At least one.
    pub results: Vec<PathBuf>,
    /// Where to.
    pub out: OutFile,
    /// For gha.
    pub better: Better,
    /// Each once, in the order of the enum; for gha those of its direction only.
    pub measures: Vec<Measure>,
    /// Empty = all.
    pub ids: Vec<String>,
}

impl TryFrom<ExportArgs> for ExportConfig {
    type Error = String;

    fn try_from(args: ExportArgs) -> Result<Self, String> {
        let ExportArgs { to, results, output, better, mut measure, id } = args;
        if better == Better::Bigger && to != ExportFormat::Gha {
            return Err(format!(
                "--better is for gha, whose files are of one direction; {} says it of each series",
                to.name()
            ));
        }
        if !measure.is_empty() && !to.takes_measures() {
            return Err(format!(
                "--measure is for gha, bmf, lnt and perfherder; {} has everything",
                to.name()
            ));
        }
        let fits = |m: &Measure| to != ExportFormat::Gha || m.better() == better;
        if let Some(other) = measure.iter().find(|m| !fits(m)) {
            return Err(format!(
                "--measure {}: the other way is better; gha takes a file for each, see --better",
                other.name()
            ));
        }
        if measure.is_empty() {
            measure = Measure::USUAL.into_iter().filter(fits).collect();
        }
        measure.sort_unstable();
        measure.dedup();
        let out = OutFile::from(output.as_str());
        Ok(Self { to, results, out, better, measures: measure, ids: id })
    }
}

/// Options of `merge`.
#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// Results of run or replay with the same settings, or merged ones
    #[arg(value_name = "RESULT", required = true)]
    results: Vec<PathBuf>,
    /// Where to; - is standard output
    #[arg(long, short, value_name = "FILE|-")]
    output: String,
    /// Leave out files that are broken, interrupted, not verified or of another schema, and name them
    #[arg(long)]
    skip_unusable: bool,
    /// Do not say on standard error what was merged
    #[arg(long, short)]
    quiet: bool,
}

/// The settings of `merge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeConfig {
    /// At least one.
    pub results: Vec<PathBuf>,
    /// Where to.
    pub out: OutFile,
    /// Go on without what is broken.
    pub skip_unusable: bool,
    /// No summary.
    pub quiet: bool,
}

impl From<MergeArgs> for MergeConfig {
    fn from(args: MergeArgs) -> Self {
        let MergeArgs { results, output, skip_unusable, quiet } = args;
        Self { results, out: OutFile::from(output.as_str()), skip_unusable, quiet }
    }
}
