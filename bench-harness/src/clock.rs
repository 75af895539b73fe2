// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the clock itself costs, so that a reader can judge the shortest latencies.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The clock of a run and what it can tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// Which clock: always `clock_monotonic` (`std::time::Instant`).
    pub source: String,
    /// Least time between two readings one after the other, in ns: what each timed call pays.
    pub overhead_ns: f64,
    /// Least step above zero that two readings differed by, in ns.
    pub resolution_ns: f64,
}

impl Clock {
    /// Measures for a few milliseconds.
    pub fn measure() -> Self {
        Self::measure_with(Instant::now, 20_000)
    }

    fn measure_with(mut now: impl FnMut() -> Instant, pairs: u32) -> Self {
        // A pair costs one reading: half is spent before the first stamp is taken, half after the
        // second. A coarse clock answers 0 for most pairs, so the mean of many in a row is taken,
        // and the least of several such means, since only interference can make one longer.
        const RUN: u32 = 100;
        let mut overhead = f64::INFINITY;
        let mut resolution = Duration::MAX;
        for _ in 0..(pairs / RUN).max(1) {
            let first = now();
            let mut last = first;
            for _ in 0..RUN {
                let next = now();
                let step = next.saturating_duration_since(last);
                if !step.is_zero() {
                    resolution = resolution.min(step);
                }
                last = next;
            }
            let run = last.saturating_duration_since(first).as_nanos() as f64;
            overhead = overhead.min(run / f64::from(RUN));
        }
        let resolution_ns =
            if resolution == Duration::MAX { 0.0 } else { resolution.as_nanos() as f64 };
        Self { source: "clock_monotonic".to_string(), overhead_ns: overhead, resolution_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_clock_has_a_plausible_cost() {
        let clock = Clock::measure();
        assert!(clock.overhead_ns > 0.0 && clock.overhead_ns < 100_000.0, "{clock:?}");
        assert!(clock.resolution_ns >= 1.0, "{clock:?}");
    }

    #[test]
    fn cost_and_step_of_a_coarse_clock_are_told_apart() {
        // Ticks of 100 ns, of which ten readings fall in each: a reading costs 10 ns.
        let start = Instant::now();
        let mut readings = 0u64;
        let coarse = || {
            readings += 1;
            start + Duration::from_nanos(readings / 10 * 100)
        };
        let clock = Clock::measure_with(coarse, 1000);
        assert_eq!(clock.resolution_ns, 100.0);
        assert!((clock.overhead_ns - 10.0).abs() <= 1.0, "{clock:?}");
    }

    #[test]
    fn a_standing_clock_is_not_infinite() {
        let start = Instant::now();
        let clock = Clock::measure_with(|| start, 10);
        assert_eq!((clock.overhead_ns, clock.resolution_ns), (0.0, 0.0));
    }
}
