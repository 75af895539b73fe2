// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How numbers and words look in the terminal table.

use std::io::IsTerminal;

/// Paints text, or leaves it alone where colour is not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// Colours only if stdout is a terminal and `NO_COLOR` is unset or empty (no-color.org) and
    /// the terminal is not "dumb".
    pub fn detect() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self::new(wants_colour(std::io::stdout().is_terminal(), no_color, dumb))
    }

    /// A style that paints or not as told.
    pub const fn new(colour: bool) -> Self {
        Self { colour }
    }

    /// True if this style emits escape sequences.
    pub const fn is_coloured(self) -> bool {
        self.colour
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Bold text.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Text that may be overlooked.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// What came of a check: `good` or `bad`, or that a signal ended it before all was looked at.
    pub fn verdict(self, verified: bool, complete: bool, good: &str, bad: &str) -> String {
        match (verified, complete) {
            (true, _) => self.green(good),
            (false, false) => self.yellow("interrupted, incomplete"),
            (false, true) => self.red(bad),
        }
    }

    /// Whether a document is verified; null if nobody could be asked.
    pub fn verified(self, verified: Option<bool>) -> String {
        match verified {
            Some(true) => self.green("verified: true"),
            Some(false) => self.red("verified: false"),
            None => self.yellow("verified: null"),
        }
    }

    /// Good news.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Warnings.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Failures.
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }
}

const fn wants_colour(terminal: bool, no_color: bool, dumb: bool) -> bool {
    terminal && !no_color && !dumb
}

/// A whole number with thousands separators: `8,388,608`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count for a narrow column, in decimal units: `4800`, `524 k`, `2.5 G`.
pub fn count(number: u64) -> String {
    if number < 10_000 {
        return number.to_string();
    }
    scaled(number as f64, &[("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15)])
}

/// A time given in nanoseconds: `0.12 ns`, `113 ns`, `58 µs`, `1.4 ms`, `12 s`.
pub fn time_ns(ns: f64) -> String {
    if !ns.is_finite() || ns < 0.0 {
        return "–".to_string();
    }
    if ns < 1.0 {
        return format!("{ns:.2} ns");
    }
    scaled(ns, &[("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)])
}

/// [`time_ns`], with the dash of a value that was not measured or not measured often enough.
pub fn time_or_dash(ns: Option<f64>) -> String {
    ns.map_or_else(|| "–".to_string(), time_ns)
}

/// Picks the largest unit not above the value and prints two significant digits below ten. A
/// value that would round up to 1000 goes to the next unit.
fn scaled(value: f64, units: &[(&str, f64)]) -> String {
    let mut chosen = units[0];
    for &unit in units {
        if value >= unit.1 * 0.9995 {
            chosen = unit;
        }
    }
    let number = value / chosen.1;
    // 9.95 would print as "9.9" or "10.0"; the whole number is the honest one.
    if number < 9.95 && (number - number.round()).abs() > 0.05 {
        format!("{number:.1} {}", chosen.0)
    } else {
        format!("{number:.0} {}", chosen.0)
    }
}

/// A text with what controls a terminal escaped, line ends included.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::new();
    for c in text.chars() {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_needs_a_terminal_and_consent() {
        assert!(wants_colour(true, false, false));
        assert!(!wants_colour(false, false, false));
        assert!(!wants_colour(true, true, false));
        assert!(!wants_colour(true, false, true));
    }

    #[test]
    fn plain_style_adds_nothing() {
        assert_eq!(Style::new(false).red("x"), "x");
        assert_eq!(Style::new(true).red("x"), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn separators_stand_at_every_third_digit_from_the_right() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(8_388_608), "8,388,608");
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn counts_stay_narrow() {
        assert_eq!(count(4800), "4800");
        assert_eq!(count(9999), "9999");
        assert_eq!(count(10_000), "10 k");
        assert_eq!(count(524_288), "524 k");
        assert_eq!(count(2_516_582_400), "2.5 G");
        assert_eq!(count(999_999), "1 M");
        assert_eq!(count(2_801_082), "2.8 M");
    }

    #[test]
    fn times_choose_their_unit() {
        assert_eq!(time_ns(0.113), "0.11 ns");
        assert_eq!(time_ns(113.0), "113 ns");
        assert_eq!(time_ns(999.9), "1 µs");
        assert_eq!(time_ns(58_000.0), "58 µs");
        assert_eq!(time_ns(1_400_000.0), "1.4 ms");
        assert_eq!(time_ns(12e9), "12 s");
        assert_eq!(time_ns(f64::NAN), "–");
        assert_eq!(time_or_dash(None), "–");
        assert_eq!(time_or_dash(Some(2.5)), "2.5 ns");
    }
}
