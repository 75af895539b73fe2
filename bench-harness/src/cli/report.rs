// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of `report`.

use std::path::PathBuf;

use clap::Args;

use crate::outfile::OutFile;

/// Documents that can stand side by side and still be told apart.
const MOST: usize = 12;

pub(super) const REPORT_EXAMPLES: &str = "\
The page needs no network and no other file. A run that was interrupted or is not verified is shown, and
says so on top; with --trend such files are named and left out, as compare does with folders.

Examples:
  tce-bench report out.json                       writes report.html
  tce-bench report old.json new.json -o both.html side by side
  tce-bench report --trend results -o trend.html  all results below a folder, by commit";

/// Options of `report`.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Results of run or replay, or merged ones; several stand side by side
    #[arg(value_name = "RESULT", required_unless_present = "trend")]
    results: Vec<PathBuf>,
    /// All results below this folder, in order of time: medians per commit, regressions marked
    #[arg(long, value_name = "FOLDER", conflicts_with = "results")]
    trend: Option<PathBuf>,
    /// Where to; - is standard output
    #[arg(long, short, value_name = "FILE|-", default_value = "report.html")]
    output: String,
}

/// What is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// Documents side by side, at least one.
    Results(Vec<PathBuf>),
    /// The history in a folder.
    Trend(PathBuf),
}

/// The settings of `report`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportConfig {
    /// What.
    pub what: Reported,
    /// Where to.
    pub out: OutFile,
}

impl TryFrom<ReportArgs> for ReportConfig {
    type Error = String;

    fn try_from(args: ReportArgs) -> Result<Self, String> {
        let ReportArgs { results, trend, output } = args;
        if results.len() > MOST {
            return Err(format!(
                "{} results: at most {MOST} can be told apart side by side; --trend FOLDER shows more",
                results.len()
            ));
        }
        let what = trend.map_or(Reported::Results(results), Reported::Trend);
        Ok(Self { what, out: OutFile::from(output.as_str()) })
    }
}
