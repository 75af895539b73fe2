// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What recording a sample costs, and what of it is the timeline's.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use tce_bench::recorder::Recorder;

use super::common::allocs::Counting;
use super::common::stepper::{between_breakpoints, count};

const SAMPLES: u64 = 1024;
const INTERVAL: Duration = Duration::from_millis(1);
/// Instructions that a sample may take more with a timeline.
const MOST: f64 = 40.0;
const PLAIN: &str = "sample: histogram";
const WITH: &str = "sample: histogram and timeline";

/// Times as they come: most of about one size, a few far from it.
fn ns(nth: u64) -> u64 {
    black_box(200 + nth * 7919 % 4096 * (1 + nth % 64))
}

/// Does the work of a traced child, if it is one of these.
pub(crate) fn child(what: &str) -> bool {
    let begin = Instant::now();
    let mut recorder = match what {
        PLAIN => Recorder::new(),
        WITH => Recorder::with_timeline(begin, INTERVAL),
        _ => return false,
    };
    (0..SAMPLES).for_each(|nth| recorder.record(ns(nth), 1));
    match what {
        PLAIN => between_breakpoints(|| (0..SAMPLES).for_each(|nth| recorder.record(ns(nth), 1))),
        _ => between_breakpoints(|| {
            for nth in 0..SAMPLES {
                recorder.at(black_box(begin), nth);
                recorder.record(ns(nth), 1);
            }
        }),
    }
    assert_eq!(recorder.samples(), 2 * SAMPLES);
    true
}

/// Writes the lines; how many are over their budget.
pub(crate) fn measure(text: &mut String, counting: &Counting) -> Result<u32, String> {
    let each =
        |what| -> Result<f64, String> { Ok(count(what)?.instructions as f64 / SAMPLES as f64) };
    let (plain, with) = (each(PLAIN)?, each(WITH)?);
    // One in each interval, so that there are too many and they are joined, three times over.
    let begin = Instant::now();
    let mut recorder = Recorder::with_timeline(begin, INTERVAL);
    let allocations = counting.during(|| {
        for nth in 0..SAMPLES {
            recorder.at(begin + INTERVAL * nth as u32, nth);
            recorder.record(ns(nth), 1);
        }
    });
    let over = with - plain > MOST || allocations > 0;
    let _ = writeln!(
        text,
        "\nfor each sample that is recorded{:>26}{:>14}{:>10}{:>13}",
        "instructions", "with timeline", "at most", "allocations"
    );
    let mark = if over { "   OVER BUDGET" } else { "" };
    let most = plain + MOST;
    let _ =
        writeln!(text, "{:<32}{plain:>26.1}{with:>14.1}{most:>10.1}{allocations:>13}{mark}", "");
    Ok(u32::from(over))
}
