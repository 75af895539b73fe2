// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Times of operations that are measured in turn, so that all of them meet the same machine.

use std::time::Instant;

/// The times of one operation.
struct Series {
    name: &'static str,
    /// Units of work in each of the times.
    units: u64,
    ns: Vec<u64>,
}

/// Several operations, timed alternately.
pub(crate) struct Samples {
    series: Vec<Series>,
}

impl Samples {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { series: Vec::new() }
    }

    /// Does `work`, which is `units` units of it, and keeps its time under `name`.
    pub(crate) fn time<T>(
        &mut self,
        name: &'static str,
        units: u64,
        work: impl FnOnce() -> T,
    ) -> T {
        let nth = self.series.iter().position(|s| s.name == name).unwrap_or_else(|| {
            self.series.push(Series { name, units, ns: Vec::new() });
            self.series.len() - 1
        });
        let at = Instant::now();
        let out = work();
        let ns = at.elapsed().as_nanos() as u64;
        let series = &mut self.series[nth];
        assert_eq!(series.units, units, "{name}: the repetitions differ");
        series.ns.push(ns);
        out
    }

    /// Drops what was measured so far, and keeps the names and the memory.
    pub(crate) fn restart(&mut self) {
        self.series.iter_mut().for_each(|s| s.ns.clear());
    }

    fn of(&self, name: &str) -> &Series {
        self.series
            .iter()
            .find(|s| s.name == name && !s.ns.is_empty())
            .unwrap_or_else(|| panic!("{name} was not measured"))
    }

    /// The shortest time, in ns a unit.
    pub(crate) fn min(&self, name: &str) -> f64 {
        let series = self.of(name);
        let ns = series.ns.iter().min().copied().unwrap_or_default();
        ns as f64 / series.units as f64
    }

    /// The median, in ns a unit.
    pub(crate) fn median(&self, name: &str) -> f64 {
        let series = self.of(name);
        let mut ns = series.ns.clone();
        ns.sort_unstable();
        ns[ns.len() / 2] as f64 / series.units as f64
    }

    /// How often `name` was timed.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.of(name).ns.len()
    }
}
