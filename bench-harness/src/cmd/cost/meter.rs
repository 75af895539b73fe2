// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A clock that may count instructions.

use std::time::Instant;

use crate::cmd::least::Cost;
use crate::interrupt::go_on;

/// What the clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nanoseconds.
    Ns,
    /// Instructions of an emulated CPU, each of which takes `1 << shift` ns.
    Instructions {
        /// QEMU's `-icount shift=`.
        shift: u32,
    },
}

impl Unit {
    /// A guest cannot see how QEMU counts, so whoever starts it says so on the kernel's command line.
    pub(super) fn of(cmdline: &str) -> Self {
        let shift = cmdline.split_whitespace().find_map(|word| word.strip_prefix("tce.icount="));
        match shift.and_then(|shift| shift.parse().ok()) {
            Some(shift @ 0..=10) => Self::Instructions { shift },
            _ => Self::Ns,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ns => "ns",
            Self::Instructions { .. } => "instructions",
        }
    }

    fn of_ns(self, ns: f64) -> f64 {
        match self {
            Self::Ns => ns,
            Self::Instructions { shift } => ns / f64::from(1 << shift),
        }
    }
}

/// Measures.
pub(super) struct Meter {
    unit: Unit,
    /// Of reading the clock, in ns.
    overhead: f64,
}

/// Rounds before the first that counts: caches are filled, leaves are made.
const WARM_UP: u32 = 2;

impl Meter {
    pub(super) fn new(unit: Unit) -> Self {
        let pair = |_| {
            let begin = Instant::now();
            begin.elapsed().as_nanos() as f64
        };
        let overhead = (0..1000).map(pair).fold(f64::INFINITY, f64::min);
        Self { unit, overhead }
    }

    /// What reading the clock costs; it has been subtracted everywhere.
    pub(super) fn overhead(&self) -> f64 {
        self.unit.of_ns(self.overhead)
    }

    /// One measurement of `count` calls: the cost of each.
    pub(super) fn time(
        &self,
        count: u64,
        mut call: impl FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        let begin = Instant::now();
        for nth in 0..count {
            call(nth)?;
        }
        let ns = begin.elapsed().as_nanos() as f64 - self.overhead;
        Ok(self.unit.of_ns(ns.max(0.0)) / count as f64)
    }

    /// `repeat` measurements of two sorts of calls in turns, each of which undoes the other.
    ///
    /// # Errors
    /// Those of the calls, or [`Interrupted`](crate::interrupt::Interrupted).
    pub(super) fn pairs(
        &self,
        repeat: u32,
        count: u64,
        mut there: impl FnMut(u64) -> anyhow::Result<()>,
        mut back: impl FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<(Cost, Cost)> {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for round in 0..repeat + WARM_UP {
            go_on()?;
            let pair = (self.time(count, &mut there)?, self.time(count, &mut back)?);
            if round >= WARM_UP {
                first.push(pair.0);
                second.push(pair.1);
            }
        }
        Ok((Cost::of(first), Cost::of(second)))
    }

    /// `repeat` measurements of `count` calls.
    pub(super) fn calls(
        &self,
        repeat: u32,
        count: u64,
        call: impl FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<Cost> {
        Ok(self.pairs(repeat, count, call, |_| Ok(()))?.0)
    }
}
