// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Axes: from values to places, and where to write numbers.

/// Most lines of an axis.
const MOST_TICKS: usize = 7;

/// One axis of a plot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// Linear from `low` to `high`, drawn from `from` to `to`.
    pub(super) fn linear((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, from, to, log: false }
    }

    /// Logarithmic; values below `low` lie at its end.
    pub(super) fn log((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let low = if low > 0.0 && low.is_finite() { low } else { 1.0 };
        let high = if high > low && high.is_finite() { high } else { low * 10.0 };
        Self { low, high, from, to, log: true }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Where it ends.
    pub(super) const fn end(&self) -> f64 {
        self.to
    }

    /// Values for lines and numbers, in order, from 2 to some more than [`MOST_TICKS`].
    pub(super) fn ticks(&self) -> Vec<f64> {
        if !self.log {
            return linear(self.low, self.high);
        }
        let fine = [&[1.0, 2.0, 3.0, 5.0, 7.0][..], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
        for digits in fine {
            let found = decades(self.low, self.high, 1, digits);
            if (3..=MOST_TICKS).contains(&found.len()) {
                return found;
            }
        }
        if self.high / self.low < 10.0 {
            return linear(self.low, self.high);
        }
        let step = ((self.high / self.low).log10() / MOST_TICKS as f64).ceil().max(1.0) as i32;
        decades(self.low, self.high, step, &[1.0])
    }
}

/// Those of the `digits` times every so manyth power of ten that lie in between.
fn decades(low: f64, high: f64, step: i32, digits: &[f64]) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let powers = (first..=last).filter(|power| power.rem_euclid(step) == 0);
    let all = powers.flat_map(|power| digits.iter().map(move |digit| digit * ten(power)));
    all.filter(|v| *v >= low * (1.0 - 1e-9) && *v <= high * (1.0 + 1e-9)).collect()
}

/// Exact where a power of ten is.
fn ten(power: i32) -> f64 {
    if power < 0 { 1.0 / 10f64.powi(-power) } else { 10f64.powi(power) }
}

fn linear(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| *s >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil();
    (0..MOST_TICKS)
        .map(|n| (first + n as f64) * step)
        .filter(|v| *v <= high + step * 1e-9)
        .collect()
}

/// The decade or part of it that holds all of them, with some room; none without values above 0.
pub(super) fn span(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let some = values.filter(|v| *v > 0.0 && v.is_finite());
    let (low, high) =
        some.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    (high > 0.0).then(|| {
        let room = (high / low).powf(0.04).max(1.01);
        (low / room, high * room)
    })
}

/// A time for an axis: up to four digits, none that says nothing.
pub(super) fn time(ns: f64) -> String {
    let units = [("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0), ("ps", 1e-3)];
    let (unit, size) =
        units.into_iter().find(|(_, size)| ns >= size * 0.9999).unwrap_or(("ps", 1e-3));
    format!("{} {unit}", number(ns / size))
}

/// A number for an axis, up to four digits.
pub(super) fn number(value: f64) -> String {
    let digits = if value.abs() >= 1000.0 { 0 } else { 3 };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if value != 0.0 && matches!(text, "0" | "-0") {
        format!("{value:.0e}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_in_order_and_inside() {
        let scale = Scale::log((10.0, 1000.0), (0.0, 100.0));
        assert_eq!([10.0, 100.0, 1000.0].map(|v| scale.at(v).round()), [0.0, 50.0, 100.0]);
        assert_eq!((scale.at(0.0), scale.at(1e9)), (0.0, 100.0));
        let down = Scale::linear((0.0, 4.0), (50.0, 10.0));
        assert_eq!([0.0, 1.0, 4.0].map(|v| down.at(v)), [50.0, 40.0, 10.0]);
        // Nothing to divide by.
        assert!(Scale::linear((3.0, 3.0), (0.0, 1.0)).at(3.0).is_finite());
        assert!(Scale::log((0.0, 0.0), (0.0, 1.0)).at(0.0).is_finite());
    }

    #[test]
    fn every_axis_has_some_numbers_in_it() {
        for (low, high) in [
            (0.001, 3.6e12),
            (90.0, 101.0),
            (1.0, 2.0),
            (99.99, 100.0),
            (0.2, 9.0),
            (1.0, 1e6),
            (3.0, 7e8),
            (5e-3, 6e-3),
        ] {
            let ticks = Scale::log((low, high), (0.0, 1.0)).ticks();
            assert!((2..=MOST_TICKS + 2).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks.is_sorted() && ticks[0] >= low * 0.999, "{ticks:?}");
            assert!(ticks.iter().all(|t| *t <= high * 1.001), "{high}: {ticks:?}");
        }
        assert_eq!(linear(0.0, 100.0), [0.0, 50.0, 100.0]);
        assert_eq!(
            Scale::log((1.0, 1000.0), (0.0, 1.0)).ticks(),
            [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
        );
    }

    #[test]
    fn numbers_are_short_and_true() {
        assert_eq!(time(1.0), "1 ns");
        assert_eq!(time(92.5), "92.5 ns");
        assert_eq!(time(1500.0), "1.5 µs");
        assert_eq!(time(0.001), "1 ps");
        assert_eq!(time(3.6e12), "3600 s");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.0001), "1e-4");
        assert_eq!(number(200.0), "200");
    }
}
