// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench`: see `tce-bench --help`.

use std::process::ExitCode;

use tce_bench::cli::{self, EXIT_USAGE, Invocation};
use tce_bench::cmd::{self, Status};
use tce_bench::interrupt;
use tce_bench::steps;
use tce_bench::style::printable;

/// Something failed, or a check did.
const EXIT_FAILURE: u8 = 1;
/// A gate found a regression (gungraun's code for it).
const EXIT_REGRESSION: u8 = 3;
/// A gate could not tell.
const EXIT_INCONCLUSIVE: u8 = 5;
/// The back end that was asked for is not there (kselftest's SKIP).
const EXIT_UNAVAILABLE: u8 = 4;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(exit) => return exit.print(),
    };
    let argv = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    if let Err(text) = steps::from_env() {
        eprintln!("error: {text}");
        return ExitCode::from(EXIT_USAGE);
    }
    let result =
        interrupt::install().map_err(anyhow::Error::from).and_then(|()| match &invocation {
            Invocation::Run(config) => cmd::run::run(config, argv),
            Invocation::Sweep(config) => cmd::sweep::sweep(config, argv),
            Invocation::Replay(config) => cmd::replay::replay(config, argv),
            Invocation::Policies(config) => cmd::policies::policies(config, argv),
            Invocation::Stale(config) => cmd::stale::stale(config, argv),
            Invocation::Soak(config) => cmd::soak::soak(config, argv),
            Invocation::Dma(config) => cmd::dma::dma(config, argv),
            Invocation::Cost(config) => cmd::cost::cost(config, argv),
            Invocation::Limits(config) => cmd::limits::limits(config, argv),
            Invocation::Sharing(config) => cmd::sharing::sharing(config, argv),
            Invocation::Teardown(config) => cmd::teardown::teardown(config, argv),
            Invocation::Churn(config) => cmd::churn::churn(config, argv),
            Invocation::Crash(config) => cmd::crash::crash(config, argv),
            Invocation::Compare(config) => cmd::compare::compare(config, argv),
            Invocation::Export(config) => cmd::export::export(config),
            Invocation::Merge(config) => cmd::merge::merge(config),
            Invocation::Trace(config) => cmd::trace::trace(config),
            Invocation::Import(config) => cmd::import::import(config),
            Invocation::Workloads(config) => cmd::workloads::workloads(config, argv),
            Invocation::Report(config) => cmd::report::report(config),
            Invocation::Hazards(config) => cmd::hazards::hazards(config, argv),
            Invocation::Doctor(config) => cmd::doctor::doctor(config),
            Invocation::Info(config) => cmd::info::info(config),
            Invocation::Plan(config) => cmd::plan::plan(config),
            Invocation::Print(text) => cmd::files::print(text),
            Invocation::WriteAll(files) => cmd::files::write_all(files),
        });
    let complain = |code: u8, text: &str| {
        // It may quote a file, which shall not control the terminal.
        let lines: Vec<_> = text.lines().map(printable).collect();
        eprintln!("error: {}", lines.join("\n"));
        ExitCode::from(code)
    };
    match result {
        Ok(Status::Ok) => ExitCode::SUCCESS,
        Ok(Status::Failed) => ExitCode::from(EXIT_FAILURE),
        Ok(Status::Regression) => ExitCode::from(EXIT_REGRESSION),
        Ok(Status::Inconclusive) => ExitCode::from(EXIT_INCONCLUSIVE),
        Ok(Status::Interrupted) => ExitCode::from(interrupt::EXIT_INTERRUPTED),
        Ok(Status::Usage(text)) => complain(EXIT_USAGE, &text),
        Ok(Status::Unavailable(text)) => complain(EXIT_UNAVAILABLE, &text),
        Err(error) => complain(EXIT_FAILURE, &format!("{error:#}")),
    }
}
