// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether calls become slower the longer a soak goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

/// From so many machines of a kind on, the first quarter and the last are worth a look.
const ENOUGH: usize = 4;

/// Longer calls count as this long, in ns.
const LONGEST: u64 = 60_000_000_000;

/// What calls of one machine took, in ns.
pub(super) struct Took(Histogram<u64>);

impl Took {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 2).expect("they are bounds, and digits"))
    }

    /// A call that began then has just been done.
    pub(super) fn note(&mut self, begin: Instant) {
        self.0.saturating_record(begin.elapsed().as_nanos() as u64);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("their bounds are the same");
    }
}

/// The p50 of each machine, in the order in which they came and went, by what kind it was of.
#[derive(Default)]
pub(super) struct Course(BTreeMap<&'static str, Vec<f64>>);

/// The p50 of the first machines and of the last: of each kind the median of a quarter of them, and of these the
/// geometric mean. No time of hardware, and nothing is judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Drift {
    pub(super) first_p50_ns: f64,
    pub(super) last_p50_ns: f64,
}

impl Course {
    pub(super) fn push(&mut self, kind: &'static str, took: &Took) {
        if !took.0.is_empty() {
            self.0.entry(kind).or_default().push(took.0.value_at_quantile(0.5) as f64);
        }
    }

    /// None if there were too few of every kind.
    pub(super) fn drift(&self) -> Option<Drift> {
        let enough: Vec<_> = self.0.values().filter(|p50| p50.len() >= ENOUGH).collect();
        let mean = |part: fn(&[f64], usize) -> &[f64]| {
            let logs = enough.iter().map(|p50| median(part(p50, p50.len() / ENOUGH)).ln());
            (logs.sum::<f64>() / enough.len() as f64).exp()
        };
        (!enough.is_empty()).then(|| Drift {
            first_p50_ns: mean(|p50, quarter| &p50[..quarter]),
            last_p50_ns: mean(|p50, quarter| &p50[p50.len() - quarter..]),
        })
    }
}

impl Drift {
    pub(super) fn percent(&self) -> f64 {
        100.0 * (self.last_p50_ns / self.first_p50_ns - 1.0)
    }
}

/// The middle one, or the lower of two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // A clock that is coarse says 0.
    sorted[(sorted.len() - 1) / 2].max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kinds: &[(&'static str, &[u64])]) -> Option<Drift> {
        let mut course = Course::default();
        for (kind, times) in kinds {
            for time in *times {
                let mut took = Took::new();
                took.0.record(*time).unwrap();
                course.push(kind, &took);
            }
        }
        course.drift()
    }

    #[test]
    fn too_few_say_nothing() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("a", &[100; 3])]), None);
    }

    #[test]
    fn the_last_quarter_beside_the_first() {
        // Twice as slow in the end, whatever lies between; one odd machine does not count.
        let times = [50, 50, 90, 7, 7, 7, 7, 7, 7, 7, 7, 100, 100, 5];
        let drift = of(&[("a", &times)]).unwrap();
        assert!((drift.first_p50_ns - 50.0).abs() < 1e-9, "{drift:?}");
        assert!((drift.last_p50_ns - 100.0).abs() < 1e-9, "{drift:?}");
        assert!((drift.percent() - 100.0).abs() < 1e-9, "{drift:?}");
    }

    #[test]
    fn each_kind_counts_once() {
        let drift = of(&[("a", &[100; 5]), ("b", &[1, 9, 9, 9, 4]), ("c", &[1, 1])]).unwrap();
        assert!((drift.percent() - 100.0).abs() < 1e-9, "{drift:?}");
    }

    #[test]
    fn a_call_counts_with_the_time_that_it_took() {
        let (mut took, mut all) = (Took::new(), Took::new());
        let begin = Instant::now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        took.note(begin);
        all.add(&took);
        let most = begin.elapsed().as_nanos() as u64;
        let p50 = all.0.value_at_quantile(0.5);
        assert!((1_000_000..=most + most / 100).contains(&p50), "{p50} of {most}");
    }

    #[test]
    fn machines_without_a_call_are_none() {
        let mut course = Course::default();
        (0..9).for_each(|_| course.push("a", &Took::new()));
        assert_eq!(course.drift(), None);
    }
}
