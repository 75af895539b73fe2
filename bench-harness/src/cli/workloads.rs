// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the settings of a run come from: the command line, a workload, a sweep; and the command line of
//! `workloads`.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Args, FromArgMatches, Subcommand};

use super::config::{Output, RunConfig};
use super::sweep::{MOST_RUNS, Point, SweepConfig};
use super::{Invocation, Origin, Origins, Phase, RunArgs, from_clap};
use crate::outfile::OutFile;
use crate::workload::{PHASES, Setting, Workload};

pub(super) const WORKLOADS_EXAMPLES: &str = "\
A workload is a file of TOML: the window, how it is used, and what has to come out (workloads/README.md).

Examples:
  tce-bench workloads list                     those that are part of the program
  tce-bench workloads show nic-ring > mine.toml
  tce-bench workloads check mine.toml          is it right? Every fault with its line
  tce-bench workloads verify                   runs each once and checks what it expects
  tce-bench workloads verify mine.toml --json verdicts.json
  tce-bench run --workload mine.toml --threads 2 --json out.json

Exit codes: 0 right, 1 not, 2 wrong command line.";

/// Rounds of each phase where a workload is verified and does not say how many.
const ROUNDS: u64 = 16;

/// Options of `workloads`.
#[derive(Debug, Args)]
pub(super) struct WorkloadsArgs {
    #[command(subcommand)]
    command: WorkloadsCommand,
}

#[derive(Debug, Subcommand)]
enum WorkloadsCommand {
    /// List the workloads that are part of the program
    List,
    /// Print a workload, as a file to start from
    Show {
        /// A workload of the program, or a file
        #[arg(value_name = "NAME|FILE")]
        name: String,
    },
    /// Look whether workloads are right: every fault with its line
    Check {
        /// Workloads of the program, or files [default: all of the program]
        #[arg(value_name = "NAME|FILE")]
        names: Vec<String>,
    },
    /// Run workloads once, briefly and in a closed loop, and check what they expect
    Verify {
        /// Workloads of the program, or files [default: all of the program]
        #[arg(value_name = "NAME|FILE")]
        names: Vec<String>,
        /// Write the verdicts as one JSON document (schema tce-bench.verify/1); - is standard output
        #[arg(long, value_name = "FILE|-", help_heading = "Output")]
        json: Option<String>,
        /// Print nothing
        #[arg(long, short, help_heading = "Output")]
        quiet: bool,
    },
}

/// What `workloads verify` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyConfig {
    /// Of the program, or files; empty = all of the program.
    pub names: Vec<String>,
    /// The JSON document.
    pub json: Option<OutFile>,
    /// No text.
    pub quiet: bool,
}

/// What `workloads` is to do. Names are of workloads of the program or of files; none: all of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadsConfig {
    /// List those of the program.
    List,
    /// Print one.
    Show(String),
    /// Read them.
    Check(Vec<String>),
    /// Run them.
    Verify(VerifyConfig),
}

impl From<WorkloadsArgs> for WorkloadsConfig {
    fn from(args: WorkloadsArgs) -> Self {
        match args.command {
            WorkloadsCommand::List => Self::List,
            WorkloadsCommand::Show { name } => Self::Show(name),
            WorkloadsCommand::Check { names } => Self::Check(names),
            WorkloadsCommand::Verify { names, json, quiet } => {
                let json = json.as_deref().map(OutFile::from);
                Self::Verify(VerifyConfig { names, json, quiet })
            }
        }
    }
}

/// The options of one command alone, of which the last one of a kind counts.
fn options<A: Args>() -> clap::Command {
    A::augment_args(clap::Command::new("tce-bench"))
        .args_override_self(true)
        .allow_negative_numbers(true)
}

/// Looks whether `run` takes an option, as `--window=2G`.
///
/// # Errors
/// What is wrong with it, one line.
pub fn check_option(argument: &str) -> Result<(), String> {
    matches::<RunArgs>(&[argument.into()]).map(drop)
}

fn matches<A: Args>(arguments: &[OsString]) -> Result<clap::ArgMatches, String> {
    let all = std::iter::once(OsString::from("tce-bench")).chain(arguments.iter().cloned());
    options::<A>().try_get_matches_from(all).map_err(|error| {
        let text = from_clap(&error).text;
        let text = text.trim_end();
        text.strip_prefix("error: ").unwrap_or(text).to_owned()
    })
}

/// What stands behind the command, which for `run` need not be named.
fn typed(arguments: &[OsString]) -> &[OsString] {
    match arguments.get(1) {
        Some(command) if command == "run" || command == "plan" => &arguments[2..],
        _ => &arguments[1..],
    }
}

/// Where the options come from, of a command that takes those of `run`, with a workload or without.
pub(super) fn origins<A: Args>(
    workload: Option<&str>,
    arguments: &[OsString],
) -> Result<Origins, String> {
    let workload = workload.map(Workload::find).transpose();
    let workload = workload.map_err(|faults| one_line(&faults.to_string()))?;
    let typed = Typed::new::<A>(typed(arguments))?;
    let kept = |w: &Workload| -> Vec<(String, Origin)> {
        let settings = w.settings.iter().filter(|setting| !typed.overrides(setting));
        let at = |s: &Setting| Origin::Workload(format!("{}:{}", w.origin, s.line));
        settings.map(|s| (s.option.to_owned(), at(s))).collect()
    };
    let of_workload: Vec<_> = workload.iter().flat_map(kept).collect();
    let of_line = typed.options.into_iter().map(|option| (option, Origin::CommandLine));
    Ok(Origins::new(of_line.chain(of_workload)))
}

/// What `run` is to do.
pub(super) fn run(args: RunArgs, arguments: &[OsString]) -> Result<Invocation, String> {
    let sweeps = args.mixed.sweeps.clone();
    let workload = args.mixed.workload.as_deref().map(Workload::find).transpose();
    let workload = workload.map_err(|faults| one_line(&faults.to_string()))?;
    if workload.is_none() && sweeps.is_empty() {
        return args.try_into().map(Invocation::Run);
    }
    let typed = typed(arguments);
    let source = Source { workload: workload.as_ref(), typed };
    if sweeps.is_empty() {
        return source.config(&[]).map(Invocation::Run);
    }
    let output = Output::try_from(args.output)?;
    for (option, given) in
        [("--hlog", output.hlog.is_some()), ("--profile", output.profile.is_some())]
    {
        if given {
            return Err(format!("{option} with --sweep; accepted: --json, or a run by itself"));
        }
    }
    for (nth, sweep) in sweeps.iter().enumerate() {
        if sweeps[..nth].iter().any(|other| other.setting == sweep.setting) {
            return Err(format!("--sweep {} twice; accepted: one list of values", sweep.setting));
        }
    }
    let runs = sweeps.iter().try_fold(1usize, |n, sweep| n.checked_mul(sweep.values.len()));
    let runs = runs.filter(|runs| *runs <= MOST_RUNS).ok_or_else(|| {
        format!(
            "--sweep: all combinations are more than {MOST_RUNS} runs; accepted: up to {MOST_RUNS}"
        )
    })?;
    let mut points = Vec::new();
    for mut number in 0..runs {
        let mut chosen = vec![0; sweeps.len()];
        for (nth, sweep) in sweeps.iter().enumerate().rev() {
            (chosen[nth], number) = (number % sweep.values.len(), number / sweep.values.len());
        }
        let chosen = || sweeps.iter().zip(&chosen);
        let extra: Vec<String> = chosen().map(|(sweep, nth)| sweep.argument(*nth)).collect();
        let config =
            source.config(&extra).map_err(|e| format!("--sweep {}: {e}", extra.join(" ")))?;
        let values = chosen().map(|(s, nth)| (s.setting.clone(), s.values[*nth].clone())).collect();
        let output = Output { quiet: true, label: output.label.clone(), ..Output::default() };
        points.push(Point { values, config: RunConfig { output, ..config } });
    }
    Ok(Invocation::Sweep(SweepConfig { sweeps, points, output }))
}

/// The settings of a workload alone, briefly: a fixed number of rounds, in a closed loop, on the mock
/// unless it names another back end.
///
/// # Errors
/// What cannot be, one line.
pub fn small(workload: &Workload) -> Result<RunConfig, String> {
    // What is left out below may be wrong, too.
    Source { workload: Some(workload), typed: &[] }.config(&[])?;
    let closed = Workload {
        settings: workload.settings.iter().filter(|s| s.key != "run.rate").cloned().collect(),
        ..workload.clone()
    };
    let mut extra = vec!["--quiet".to_owned(), "--warmup=0s".to_owned()];
    if workload.setting("run.backend").is_none() {
        extra.push("--backend=mock".to_owned());
    }
    extra.push(format!("--repetitions={}", workload.rounds.unwrap_or(ROUNDS)));
    // The rate would have asked for the phase.
    if workload.setting("run.rate").is_some() && workload.setting(PHASES).is_none() {
        extra.push("--phase=mix".to_owned());
    }
    Source { workload: Some(&closed), typed: &[] }.config(&extra)
}

/// Several faults of a file on one line.
fn one_line(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.count() {
        0 => first,
        more => format!("{first} (and {more} more: tce-bench workloads check)"),
    }
}

/// What settings come from.
struct Source<'a> {
    workload: Option<&'a Workload>,
    /// Options of the command line, which go before the workload's.
    typed: &'a [OsString],
}

impl Source<'_> {
    /// The settings with some more options, which go before all.
    fn config(&self, extra: &[String]) -> Result<RunConfig, String> {
        let own: Vec<OsString> =
            self.typed.iter().cloned().chain(extra.iter().map(OsString::from)).collect();
        let Some(workload) = self.workload else {
            return settings(&matches::<RunArgs>(&own)?);
        };
        let typed = Typed::new::<RunArgs>(&own)?;
        let taken = |setting: &&Setting| !typed.overrides(setting);
        let mut all: Vec<OsString> = Vec::new();
        for setting in workload.settings.iter().filter(taken) {
            all.extend(setting.arguments.iter().map(OsString::from));
        }
        all.extend(own);
        let mut config = matches::<RunArgs>(&all).and_then(|m| settings(&m)).map_err(|text| {
            // The line, if what is named first stands there.
            let option = text.split([' ', ':']).find(|word| word.starts_with("--"));
            let mut kept = workload.settings.iter().filter(taken);
            let line = kept.find(|setting| Some(setting.option) == option).map(|s| s.line);
            let at = line.map_or(String::new(), |line| format!(":{line}"));
            format!("{}{at}: {text}", workload.origin)
        })?;
        let changed = workload.settings.iter().filter(|setting| typed.overrides(setting));
        config.workload = Some(workload.told(changed.map(|setting| setting.key.clone()).collect()));
        Ok(config)
    }
}

fn settings(matches: &clap::ArgMatches) -> Result<RunConfig, String> {
    RunArgs::from_arg_matches(matches).map_err(|error| from_clap(&error).text)?.try_into()
}

/// What was typed, and so goes before what a workload says.
struct Typed {
    /// Options, as `--window`.
    options: Vec<String>,
    /// Phases are named, and mix is not among them.
    no_mix: bool,
}

impl Typed {
    /// Of the arguments of a command that takes those of `run`.
    fn new<A: Args>(arguments: &[OsString]) -> Result<Self, String> {
        let given = matches::<A>(arguments)?;
        let typed = |argument: &&clap::Arg| {
            given.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine)
        };
        let command = options::<A>();
        let names = command.get_arguments().filter(typed).filter_map(clap::Arg::get_long);
        let options = names.map(|name| format!("--{name}")).collect();
        let mut phases = given.get_many::<Phase>("phases").into_iter().flatten().peekable();
        let no_mix = phases.peek().is_some() && phases.all(|phase| *phase != Phase::Mix);
        Ok(Self { options, no_mix })
    }

    /// True if the command line says something else, or what would not go with it.
    fn overrides(&self, setting: &Setting) -> bool {
        let typed = |option: &str| self.options.iter().any(|typed| typed == option);
        typed(setting.option)
            || match setting.option {
                // One of both says when a phase ends.
                "--repetitions" => typed("--duration"),
                "--duration" => typed("--repetitions"),
                "--groups" => typed("--vfio-groups"),
                "--rate" => self.no_mix,
                _ => self.no_mix && setting.key.starts_with("mix."),
            }
    }
}
