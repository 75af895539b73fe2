// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo bench --bench counters`: instructions, locked instructions, system calls and allocations
//! of the loops and the calls, counted exactly. Fails if one is over its budget; takes no time.

#[path = "../common/mod.rs"]
mod common;
mod members;
mod recording;

use std::fmt::Write;
use std::process::ExitCode;

use clap::Parser;
use tce_engine::Tier;

use common::allocs::Counting;
use common::args::Args;
use common::counted::{self, CALLS, LOOPS};
use common::report::Report;
use common::stepper::{check_classification, child};

#[global_allocator]
static COUNTING: Counting = Counting::new();

fn main() -> ExitCode {
    child(|what| {
        if !members::child(what) && !recording::child(what) {
            counted::child(what);
        }
    });
    let args = Args::parse();
    check_classification();
    let mut report = Report::new("counters", &args);
    match measure(&mut report.text) {
        Ok(good) => report.finish(&args, good),
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}

fn measure(text: &mut String) -> Result<bool, String> {
    let mut over = 0;
    let mut check = |text: &mut String, ok: bool, line: String| {
        let _ = writeln!(text, "{line}{}", if ok { "" } else { "   OVER BUDGET" });
        over += u32::from(!ok);
    };
    let _ = writeln!(text, "instructions for each TCE, a leaf of 8192 entries");
    for tier in Tier::all() {
        for work in LOOPS {
            let each = work.count(tier)?.instructions as f64 / work.units() as f64;
            // The budgets are the AVX2 tier's; the others are shown beside it.
            let budget = work.instruction_budget().filter(|_| tier.name() == "avx2");
            let bound = budget.map_or(String::new(), |budget| format!("{budget:>10.2}"));
            let line = format!("{:<12}{:<26}{each:>10.4}{bound}", tier.name(), work.name());
            check(text, budget.is_none_or(|budget| each <= budget), line);
        }
    }
    let _ = writeln!(
        text,
        "\nfor each call, everything on{:>20}{:>10}{:>10}{:>10}{:>13}",
        "instructions", "locked", "fences", "syscalls", "allocations"
    );
    let tier = Tier::best();
    for work in CALLS {
        let (counts, units) = (work.count(tier)?, work.units() as f64);
        let allocations = work.allocations(tier, &COUNTING);
        let each = |count: u64| count as f64 / units;
        let line = format!(
            "{:<28}{:>20.1}{:>10.2}{:>10.2}{:>10.2}{:>13.2}",
            work.name(),
            each(counts.instructions),
            each(counts.locked),
            each(counts.fences),
            each(counts.syscalls),
            each(allocations)
        );
        let locked = work.locked_budget().is_none_or(|budget| each(counts.locked) <= budget);
        check(text, locked && counts.syscalls == 0 && allocations == 0, line);
    }
    over += members::measure(text)?;
    over += recording::measure(text, &COUNTING)?;
    let _ = writeln!(text, "\nover budget: {over}");
    Ok(over == 0)
}
