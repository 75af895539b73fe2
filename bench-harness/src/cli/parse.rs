// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a command line comes to.

use std::error::Error as _;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{
    ChurnConfig, Cli, Command, CompareConfig, CostConfig, CrashConfig, DmaConfig, DoctorConfig,
    EXIT_USAGE, ExportConfig, HazardsConfig, ImportConfig, InfoConfig, LimitsConfig, MergeConfig,
    PlanConfig, PoliciesConfig, ReplayConfig, ReportConfig, RunConfig, SharingConfig, SoakConfig,
    StaleConfig, SweepConfig, TeardownConfig, TraceConfig, WorkloadsConfig, machine,
};
use crate::style::Style;

/// What the user wants done, checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Invocation {
    /// Measure.
    Run(RunConfig),
    /// Measure once for each value of some settings.
    Sweep(SweepConfig),
    /// Replay traces.
    Replay(ReplayConfig),
    /// Compare kill policies.
    Policies(PoliciesConfig),
    /// Look for stale translations.
    Stale(StaleConfig),
    /// Make random calls beside a model.
    Soak(SoakConfig),
    /// Have devices try windows.
    Dma(DmaConfig),
    /// Measure the way to the kernel.
    Cost(CostConfig),
    /// Measure what the machine allows.
    Limits(LimitsConfig),
    /// Play traps.
    Hazards(HazardsConfig),
    /// Show what sharing costs.
    Sharing(SharingConfig),
    /// Measure teardown.
    Teardown(TeardownConfig),
    /// Have a group join and leave.
    Churn(ChurnConfig),
    /// Kill, and look.
    Crash(CrashConfig),
    /// Compare, and perhaps judge.
    Compare(CompareConfig),
    /// Convert.
    Export(ExportConfig),
    /// Add up.
    Merge(MergeConfig),
    /// Look at traces.
    Trace(TraceConfig),
    /// Make a trace.
    Import(ImportConfig),
    /// Look at workloads.
    Workloads(WorkloadsConfig),
    /// Show.
    Report(ReportConfig),
    /// Look whether VFIO can be used.
    Doctor(DoctorConfig),
    /// Show the machine.
    Info(InfoConfig),
    /// Say what a run would take.
    Plan(PlanConfig),
    /// Print this.
    Print(Vec<u8>),
    /// Write these files.
    WriteAll(Vec<(PathBuf, Vec<u8>)>),
}

/// Why nothing is to be done: help was asked for, or the command line is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// 0 for help and version, else [`EXIT_USAGE`].
    pub code: u8,
    /// Help, or one line that begins with "error: ". Ends with a newline.
    pub text: String,
}

impl Exit {
    fn usage(message: &str) -> Self {
        Self { code: EXIT_USAGE, text: format!("error: {message}\n") }
    }

    /// Prints the text, help to stdout and errors to stderr, and gives the exit code.
    pub fn print(&self) -> ExitCode {
        // A closed pipe is no reason to panic.
        let _ = if self.code == 0 {
            std::io::stdout().write_all(self.text.as_bytes())
        } else {
            std::io::stderr().write_all(self.text.as_bytes())
        };
        ExitCode::from(self.code)
    }
}

/// Parses and checks a command line, the program's name first.
///
/// # Errors
/// What to print and the exit code, for help and for wrong usage.
pub fn parse<I, T>(arguments: I) -> Result<Invocation, Exit>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let cli = Cli::try_parse_from(&arguments).map_err(|error| from_clap(&error))?;
    let checked = match cli.command {
        None => machine::run_or_plan(cli.run, &arguments),
        Some(Command::Run(run)) => machine::run_or_plan(*run, &arguments),
        Some(Command::Replay(replay)) => ReplayConfig::try_from(replay).map(Invocation::Replay),
        Some(Command::Policies(args)) => PoliciesConfig::try_from(args).map(Invocation::Policies),
        Some(Command::Stale(args)) => StaleConfig::try_from(args).map(Invocation::Stale),
        Some(Command::Soak(args)) => SoakConfig::try_from(args).map(Invocation::Soak),
        Some(Command::Dma(dma)) => Ok(Invocation::Dma(dma.into())),
        Some(Command::Cost(cost)) => CostConfig::try_from(cost).map(Invocation::Cost),
        Some(Command::Limits(limits)) => Ok(Invocation::Limits(limits.into())),
        Some(Command::Sharing(sharing)) => Ok(Invocation::Sharing(sharing.into())),
        Some(Command::Teardown(args)) => Ok(Invocation::Teardown(args.into())),
        Some(Command::Churn(churn)) => ChurnConfig::try_from(*churn).map(Invocation::Churn),
        Some(Command::Crash(args)) => CrashConfig::try_from(args).map(Invocation::Crash),
        Some(Command::Compare(args)) => CompareConfig::try_from(*args).map(Invocation::Compare),
        Some(Command::Gate(args)) => CompareConfig::try_from(*args).map(Invocation::Compare),
        Some(Command::Export(args)) => ExportConfig::try_from(args).map(Invocation::Export),
        Some(Command::Workloads(args)) => Ok(Invocation::Workloads(args.into())),
        Some(Command::Merge(args)) => Ok(Invocation::Merge(args.into())),
        Some(Command::Trace(args)) => TraceConfig::try_from(args).map(Invocation::Trace),
        Some(Command::Import(args)) => ImportConfig::try_from(args).map(Invocation::Import),
        Some(Command::Report(args)) => ReportConfig::try_from(args).map(Invocation::Report),
        Some(Command::Doctor(args)) => DoctorConfig::try_from(args).map(Invocation::Doctor),
        Some(Command::Info(args)) => Ok(Invocation::Info(args.into())),
        Some(Command::Plan(args)) => machine::plan(*args, &arguments),
        Some(Command::Completions(args)) => Ok(machine::completions(&args)),
        Some(Command::Man(args)) => machine::manual(args),
        Some(Command::Hazards(hazards)) => Ok(Invocation::Hazards(hazards.into())),
    };
    checked.map_err(|message| Exit::usage(&message))
}

/// clap's error as one line; its usage block would bury what is wrong.
pub(super) fn from_clap(error: &clap::Error) -> Exit {
    let rendered = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let plain = !Style::detect().is_coloured();
            let text = if plain { rendered.to_string() } else { rendered.ansi().to_string() };
            return Exit { code: 0, text };
        }
        // Our own value parsers: their message says it all.
        ErrorKind::ValueValidation => {
            let argument = error.get(ContextKind::InvalidArg);
            if let (Some(ContextValue::String(argument)), Some(source)) = (argument, error.source())
            {
                let option = argument.split(' ').next().unwrap_or(argument);
                return Exit::usage(&format!("{option}: {source}"));
            }
        }
        _ => {}
    }
    let text = rendered.to_string();
    let lines = text.lines().map(str::trim);
    let shown: Vec<&str> = lines
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = shown.join(" ").replace(" tip: ", "; tip: ");
    Exit::usage(&format!("{}; see --help", line.strip_prefix("error: ").unwrap_or(&line)))
}
