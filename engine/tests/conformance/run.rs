// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the cases: here on a simulated kernel, each column in a process of its own on a real one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::case::{Case, Column, Done, End, On, Outcome, Run, Step, Stop};
use crate::cases;
use crate::ctx::Ctx;
use crate::kernels::Kernel;
use crate::options::{Backend, CHILD, Options, Role, USAGE};
use crate::other::{heir, rest, victim};
use crate::report::Report;
use crate::rig::{Rig, look};

/// A column of a case that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("conformance: {e} (--help tells how to use it)");
            return ExitCode::from(2);
        }
    };
    let done = match &options.role {
        Role::Parent => return parent(&options),
        Role::Child(id, column) => child(id, *column),
        Role::Heir(column) => heir(*column),
        Role::Victim(column) => victim(*column),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("conformance: {e}");
            ExitCode::FAILURE
        }
    }
}

fn parent(options: &Options) -> ExitCode {
    if options.help {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let all = cases::all();
    let wanted: Vec<_> = all.iter().filter(|case| options.wants(case)).collect();
    if wanted.is_empty() {
        // A filter of `cargo test` is for all test programs, so this is no mistake.
        println!("no case is called {}", options.ids.join(" or "));
        return ExitCode::SUCCESS;
    }
    if options.list {
        if options.terse {
            println!("conformance: test");
        } else {
            wanted.iter().for_each(|c| println!("{:4} {:4} {}", c.id, c.on.name(), c.what));
        }
        return ExitCode::SUCCESS;
    }
    let here = match options.backend {
        Backend::MockKernel => On::Mock,
        Backend::Vfio => On::Real,
    };
    if here == On::Real
        && let Err(e) = look()
    {
        eprintln!("conformance: {e}");
        return ExitCode::from(4);
    }
    let kernels = match Kernel::wanted(options, here == On::Real) {
        Ok(kernels) => kernels,
        Err(e) => {
            eprintln!("conformance: {e}");
            return ExitCode::from(2);
        }
    };
    let mut reports: Vec<_> = Vec::new();
    for (nth, kernel) in kernels.into_iter().enumerate() {
        kernel.select();
        let mut report = Report::new(here, options.column, kernel, nth > 0);
        // The other letters are not about what differs from kernel to kernel.
        let these = wanted.iter().filter(|case| nth == 0 || case.id.starts_with(DIFFERENT));
        run_all(&mut report, here, options, these.copied());
        reports.push(report);
    }
    if reports.len() > 1 {
        println!();
        reports.iter().for_each(Report::totals);
    }
    let rows: Vec<_> = reports.iter().flat_map(Report::json).collect();
    if let Some(path) = &options.json
        && let Err(e) = std::fs::write(path, format!("[{}\n]\n", rows.join(",")))
    {
        eprintln!("conformance: {}: {e}", path.display());
        return ExitCode::FAILURE;
    }
    let failed = reports.iter().any(|report| report.failed() > 0);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Letters of the cases that run on every simulated kernel.
const DIFFERENT: [char; 6] = ['D', 'E', 'F', 'G', 'H', 'I'];

fn run_all<'a>(
    report: &mut Report,
    here: On,
    options: &Options,
    cases: impl Iterator<Item = &'a Case>,
) {
    report.header();
    for case in cases {
        let runs_here = case.on == On::Both || case.on == here;
        let run = |column| -> Option<Outcome> {
            let wanted = options.column.is_none_or(|only| only == column);
            let run = case.run(column).filter(|_| wanted && runs_here)?;
            Some(match here {
                On::Real => in_child(case, column),
                _ => on_mock(run, column),
            })
        };
        report.add(case, Column::ALL.map(run));
    }
    report.summary();
}

fn on_mock(run: Run, column: Column) -> Outcome {
    conduct(Ctx::new(Rig::mock(|machine| machine), column), run)
}

fn conduct(mut cx: Ctx, run: Run) -> Outcome {
    let ended = catch_unwind(AssertUnwindSafe(|| -> Done { run(&mut cx) }));
    match ended {
        Ok(Ok(())) => Outcome { steps: cx.finish(), end: End::Ended },
        Ok(Err(Stop::Skip(why))) => Outcome { steps: cx.give_up(), end: End::Skipped(why) },
        Ok(Err(Stop::Broken(why))) => Outcome { steps: cx.give_up(), end: End::Broken(why) },
        Err(_) => Outcome { steps: cx.give_up(), end: End::Broken("panicked".to_owned()) },
    }
}

// What a child says: one line for each step, and one for the end.

const STEP: &str = "@step";
const END: &str = "@end";

fn child(id: &str, column: Column) -> Result<(), String> {
    let all = cases::all();
    let case = all.iter().find(|case| case.id == id).ok_or(format!("no case {id}"))?;
    let run = case.run(column).ok_or(format!("{id} has no such column"))?;
    let found = look().map_err(|e| e.to_string())?;
    let outcome = conduct(Ctx::new(Rig::real(found), column), run);
    let word = |text: &str| text.replace(['\t', '\n'], " ");
    for Step { label, expected, answered } in &outcome.steps {
        println!("{STEP}\t{}\t{}\t{}", word(label), word(expected), word(answered));
    }
    match &outcome.end {
        End::Ended => println!("{END}\tended\t"),
        End::Skipped(why) => println!("{END}\tskipped\t{}", word(why)),
        End::Broken(why) => println!("{END}\tbroken\t{}", word(why)),
    }
    Ok(())
}

fn in_child(case: &Case, column: Column) -> Outcome {
    let broken = |why: String| Outcome { steps: Vec::new(), end: End::Broken(why) };
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => return broken(e.to_string()),
    };
    let mut command = Command::new(program);
    command.args([CHILD, case.id, column.name()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = match command.spawn() {
        Ok(process) => process,
        Err(e) => return broken(e.to_string()),
    };
    let reader = process.stdout.take().map(|stdout| spawn(move || rest(stdout)));
    let begun = Instant::now();
    let status = loop {
        match process.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < PATIENCE => sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ = process.kill();
                // A process that hangs in the kernel does not end; it is not waited for.
                return broken(format!("hangs: killed after {PATIENCE:?}"));
            }
            Err(e) => return broken(e.to_string()),
        }
    };
    let said = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    let mut steps = Vec::new();
    let mut end = End::Broken(format!("the process ended with {status}"));
    for line in said.lines() {
        let words: Vec<_> = line.split('\t').map(str::to_owned).collect();
        match words.as_slice() {
            [kind, label, expected, answered] if kind == STEP => steps.push(Step {
                label: label.clone(),
                expected: expected.clone(),
                answered: answered.clone(),
            }),
            [kind, how, why] if kind == END => {
                end = match how.as_str() {
                    "ended" => End::Ended,
                    "skipped" => End::Skipped(why.clone()),
                    _ => End::Broken(why.clone()),
                }
            }
            _ => {}
        }
    }
    Outcome { steps, end }
}
