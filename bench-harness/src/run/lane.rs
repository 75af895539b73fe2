// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The threads of a phase: each has its own share of the windows and goes round until the time is up.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::limits::LimitLoop;
use super::work::{Meters, Share, Work};
use crate::cli::RunConfig;
use crate::cpus;
use crate::interrupt::interrupted;
use crate::timeline;

/// Time for each phase where neither repetitions nor a duration was asked for.
const DEFAULT_DURATION: Duration = Duration::from_millis(800);
/// The same where a kernel is asked: one round may take longer than this.
const KERNEL_DURATION: Duration = Duration::from_millis(300);
/// Time for each phase before it counts.
const DEFAULT_WARMUP: Duration = Duration::from_millis(100);

/// When a phase ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Before anything counts.
    pub warmup: Duration,
    /// No new round after this.
    pub duration: Option<Duration>,
    /// No more rounds than this.
    pub repetitions: Option<u32>,
}

impl Schedule {
    /// What was asked for, or the defaults. A kernel needs no warm-up by default: it has no caches
    /// of its own to fill.
    pub fn new(config: &RunConfig, has_kernel: bool) -> Self {
        let defaults = if has_kernel {
            (KERNEL_DURATION, Duration::ZERO)
        } else {
            (DEFAULT_DURATION, DEFAULT_WARMUP)
        };
        let duration = match (config.duration, config.repetitions) {
            (None, None) => Some(defaults.0),
            (duration, _) => duration,
        };
        Self {
            warmup: config.warmup.unwrap_or(defaults.1),
            duration,
            repetitions: config.repetitions,
        }
    }
}

/// One thread's things.
pub(super) struct Lane<'a> {
    pub(super) work: Box<dyn Work + 'a>,
    /// The pages that no other thread touches.
    pub(super) share: Share,
    /// None where a kernel writes the entries.
    pub(super) limit: Option<LimitLoop>,
    pub(super) meters: Meters,
    pub(super) cpu: Option<usize>,
}

impl Lane<'_> {
    /// Warm-up, then rounds, the last of which is left mapped.
    pub(super) fn run(&mut self, schedule: Schedule) -> anyhow::Result<()> {
        if let Some(cpu) = self.cpu {
            cpus::pin_current(cpu).map_err(|e| anyhow!(e))?;
        }
        self.work.begin(&mut self.meters)?;
        let begin = Instant::now();
        while begin.elapsed() < schedule.warmup && !interrupted() {
            self.work.map(&mut self.meters)?;
            self.work.unmap(&mut self.meters)?;
            self.limit.iter_mut().for_each(LimitLoop::measure);
        }
        self.limit.iter_mut().for_each(LimitLoop::reset);
        self.meters.restart(timeline::interval(schedule.duration));
        self.work.restart();
        let begin = Instant::now();
        let mut rounds = 0;
        loop {
            self.limit.iter_mut().for_each(LimitLoop::measure);
            self.work.map(&mut self.meters)?;
            self.meters.end_round();
            rounds += 1;
            let over = schedule.duration.is_some_and(|d| begin.elapsed() >= d);
            if over || schedule.repetitions.is_some_and(|r| rounds >= r) || interrupted() {
                self.meters.pause();
                return Ok(());
            }
            self.work.unmap(&mut self.meters)?;
            self.meters.end_round();
        }
    }

    /// Takes everything back.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        self.meters.resume();
        self.work.end(&mut self.meters)?;
        self.meters.end_round();
        self.meters.end();
        Ok(())
    }
}

/// Runs `f` on every lane in a thread of its own.
pub(super) fn on_all<'a>(
    lanes: &mut [Lane<'a>],
    f: impl Fn(&mut Lane<'a>) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = lanes.iter_mut().map(|lane| scope.spawn(|| f(lane))).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}
