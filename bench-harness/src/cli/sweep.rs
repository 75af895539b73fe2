// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--sweep`: the values of a setting, one run each.

use super::config::{Output, RunConfig};
use super::workloads::check_option;
use crate::mix::Rate;
use crate::size::{format_arg, parse_size, whole};

/// Most runs of a sweep.
pub(super) const MOST_RUNS: usize = 1000;

/// How values of a setting are written.
#[derive(Clone, Copy)]
enum Unit {
    Count,
    Bytes,
    Rate,
}

/// What can be swept.
const SETTINGS: [(&str, Unit); 12] = [
    ("pages", Unit::Count),
    ("live", Unit::Count),
    ("burst", Unit::Count),
    ("groups", Unit::Count),
    ("containers", Unit::Count),
    ("levels", Unit::Count),
    ("window", Unit::Bytes),
    ("page-size", Unit::Bytes),
    ("buffer", Unit::Bytes),
    ("threads", Unit::Count),
    ("rate", Unit::Rate),
    ("seed", Unit::Count),
];

/// A setting and its values, each as one would type it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// As its option, without the dashes.
    pub setting: String,
    /// At least one, each once.
    pub values: Vec<String>,
}

impl Sweep {
    /// The option with the value number `nth`.
    pub(super) fn argument(&self, nth: usize) -> String {
        format!("--{}={}", self.setting, self.values[nth])
    }
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Each setting with its value, in the order of the command line.
    pub values: Vec<(String, String)>,
    /// Its settings; it writes nothing by itself.
    pub config: RunConfig,
}

/// The settings of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepConfig {
    /// At least one, each setting once.
    pub sweeps: Vec<Sweep>,
    /// All combinations, the last setting changing first.
    pub points: Vec<Point>,
    /// Where the results of all go.
    pub output: Output,
}

impl Unit {
    fn read(self, text: &str) -> Result<u64, String> {
        match self {
            Self::Bytes => parse_size(text),
            Self::Rate => text.parse::<Rate>().map(|rate| rate.0),
            Self::Count => whole(text).ok_or_else(|| {
                format!(
                    "'{text}' is no value; accepted: a whole number, as 8, or a range, as 1..512*2"
                )
            }),
        }
    }

    fn write(self, value: u64) -> String {
        match self {
            Self::Count => value.to_string(),
            Self::Bytes => format_arg(value),
            Self::Rate => Rate(value).to_string(),
        }
    }

    /// What an item of the list stands for.
    fn expand(self, item: &str) -> Result<Vec<u64>, String> {
        let Some((first, rest)) = item.split_once("..") else {
            return self.read(item).map(|one| vec![one]);
        };
        let forms = "a range with its step, as 1..512*2 or 1..9+4";
        let Some(at) = rest.find(['*', '+']) else {
            return Err(format!("'{item}' has no step; accepted: {forms}"));
        };
        let (last, step) = (&rest[..at], &rest[at + 1..]);
        let times = rest.as_bytes()[at] == b'*';
        let (first, last) = (self.read(first)?, self.read(last)?);
        let step = if times { Self::Count.read(step) } else { self.read(step) }
            .map_err(|_| format!("'{item}': '{step}' is no step; accepted: {forms}"))?;
        if first > last {
            return Err(format!("'{item}' goes down; accepted: {forms}"));
        }
        if step < 1 + u64::from(times) || (times && first == 0) {
            return Err(format!("'{item}' does not go on; accepted: {forms}"));
        }
        let next = |at: &u64| if times { at.checked_mul(step) } else { at.checked_add(step) };
        let all = std::iter::successors(Some(first), next).take_while(|value| *value <= last);
        Ok(all.take(MOST_RUNS + 1).collect())
    }
}

/// Reads `SETTING=VALUE[,…]`.
pub(super) fn parse(text: &str) -> Result<Sweep, String> {
    let names = SETTINGS.map(|(name, _)| name).join(", ");
    let Some((name, list)) = text.split_once('=') else {
        return Err(format!(
            "'{text}' has no values; accepted: a setting with values, as pages=1..512*2"
        ));
    };
    let name = name.trim().trim_start_matches("--");
    let found = SETTINGS.iter().find(|(known, _)| *known == name);
    let (name, unit) =
        found.ok_or_else(|| format!("'{name}' cannot be swept; accepted: {names}"))?;
    let mut values = Vec::new();
    for item in list.split(',') {
        for value in unit.expand(item.trim())? {
            let value = unit.write(value);
            if values.contains(&value) {
                return Err(format!("{name} is {value} twice; accepted: each value once"));
            }
            values.push(value);
        }
        if values.len() > MOST_RUNS {
            return Err(format!("more than {MOST_RUNS} values; accepted: up to {MOST_RUNS}"));
        }
    }
    for value in &values {
        check_option(&format!("--{name}={value}"))?;
    }
    Ok(Sweep { setting: (*name).to_owned(), values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lists_are_expanded() {
        let values = |text: &str| parse(text).unwrap().values.join(" ");
        assert_eq!(values("pages=1..512*2"), "1 2 4 8 16 32 64 128 256 512");
        assert_eq!(values("pages=1..500*2"), "1 2 4 8 16 32 64 128 256");
        assert_eq!(values("threads=1..9+4,16"), "1 5 9 16");
        assert_eq!(values("window=64M..1G*4"), "64M 256M 1G");
        assert_eq!(values("rate=1k/s..100k/s*10"), "1000/s 10000/s 100000/s");
        assert_eq!(values("rate=1k/s..3k/s+1k/s"), "1000/s 2000/s 3000/s");
        assert_eq!(values("--page-size=4K,0x10000"), "4K 64K");
    }

    #[test]
    fn what_does_not_end_or_is_no_setting_is_refused() {
        for (text, why) in [
            ("pages", "has no values"),
            ("simd=avx2", "cannot be swept; accepted: pages, live"),
            ("pages=", "is no value"),
            ("pages=1..8", "has no step"),
            ("pages=1..8*1", "does not go on"),
            ("pages=1..8+0", "does not go on"),
            ("pages=0..8*2", "does not go on"),
            ("pages=8..1*2", "goes down"),
            ("pages=1..8*x", "is no step"),
            ("pages=1,2,1", "1 twice"),
            ("seed=1..5000+1", "more than 1000"),
            ("levels=1..9+1", "--levels: '6'"),
            ("groups=0", "--groups: '0'"),
            ("page-size=4K..64K*2", "--page-size: '8K'"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
