// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When translations are killed, as it is typed and written to results: `strict`, `batched=32`,
//! `batched=50us`, `deferred=256`, `deferred=256,10ms`; and what fills need, `always`, `beside-live=16`, `never`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tce_engine::backend::FillRule;
use tce_engine::kill::KillPolicy;

use crate::size::{parse_duration, whole};

/// Pages that [`Policy::Deferred`] holds back unless told otherwise.
const PAGES: u32 = 256;
/// Most that it can be told to.
const MOST_PAGES: u32 = KillPolicy::MAX_PAGES;
/// Most calls of a batch that can be asked for.
const MOST_CALLS: u32 = 1 << 20;
/// Entries of a line of the TCE cache, if nobody says: 128 bytes, a cache line of POWER.
const LINE: u32 = 16;

/// When kills are issued and waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Before each call returns.
    #[default]
    Strict,
    /// At the end of each batch; `None`: what is usual for the work.
    Batched(Option<Batch>),
    /// When so many pages wait for it, or the oldest for so long.
    Deferred {
        /// 1 to [`KillPolicy::MAX_PAGES`].
        max_pages: u32,
        /// Above zero; `None`: however long.
        max_age: Option<Duration>,
    },
}

/// Which calls of one handle are a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// So many.
    Calls(u32),
    /// Those that follow each other within this time, by the clock of the trace.
    Gap(Duration),
}

impl Batch {
    /// What is usual for recorded calls: what one vCPU does without a pause.
    pub const RECORDED: Self = Self::Gap(Duration::from_micros(50));
    /// What is usual for calls that are made up.
    pub const MADE_UP: Self = Self::Calls(32);
}

impl Policy {
    /// Its name without numbers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Batched(_) => "batched",
            Self::Deferred { .. } => "deferred",
        }
    }

    /// `deferred` without numbers.
    #[must_use]
    pub const fn deferred() -> Self {
        Self::Deferred { max_pages: PAGES, max_age: None }
    }

    /// The same with a batch that is known.
    #[must_use]
    pub fn or_batch(self, usual: Batch) -> Self {
        match self {
            Self::Batched(batch) => Self::Batched(Some(batch.unwrap_or(usual))),
            other => other,
        }
    }

    /// The batch, if it has any.
    #[must_use]
    pub const fn batch(self) -> Option<Batch> {
        match self {
            Self::Batched(batch) => batch,
            _ => None,
        }
    }

    /// Calls of a batch, if a number says when it ends.
    #[must_use]
    pub fn calls(self) -> Option<u64> {
        match self.batch()? {
            Batch::Calls(calls) => Some(calls.into()),
            Batch::Gap(_) => None,
        }
    }

    /// How long pages are held back at most, if there is a limit.
    #[must_use]
    pub const fn max_age(self) -> Option<Duration> {
        match self {
            Self::Deferred { max_age, .. } => max_age,
            _ => None,
        }
    }

    /// The same for which no clock is read.
    #[must_use]
    pub const fn ageless(self) -> Self {
        match self {
            Self::Deferred { max_pages, .. } => Self::Deferred { max_pages, max_age: None },
            other => other,
        }
    }
}

impl From<Policy> for KillPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Strict => Self::Strict,
            Policy::Batched(_) => Self::Batched,
            Policy::Deferred { max_pages, max_age } => {
                Self::Deferred { max_pages, max_age: max_age.unwrap_or(Duration::MAX) }
            }
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no policy; accepted: strict, batched, batched=CALLS or batched=TIME, \
                 deferred, deferred=PAGES or deferred=PAGES,AGE, as batched=32, batched=50us, \
                 deferred=256,10ms; up to {MOST_CALLS} calls, {MOST_PAGES} pages, no time of zero"
            )
        };
        let up_to = |text: &str, most: u32| whole(text).filter(|n| (1..=most).contains(n));
        let time = |text| parse_duration(text).ok().filter(|time| !time.is_zero());
        let (name, numbers) = match text.split_once('=') {
            Some((name, numbers)) => (name, Some(numbers)),
            None => (text, None),
        };
        match (name, numbers) {
            ("strict", None) => Ok(Self::Strict),
            ("batched", None) => Ok(Self::Batched(None)),
            ("batched", Some(n)) => {
                let calls = up_to(n, MOST_CALLS).map(Batch::Calls);
                let batch = calls.or_else(|| time(n).map(Batch::Gap)).ok_or_else(wrong)?;
                Ok(Self::Batched(Some(batch)))
            }
            ("deferred", None) => Ok(Self::deferred()),
            ("deferred", Some(n)) => {
                let (pages, age) = match n.split_once(',') {
                    Some((pages, age)) => (pages, Some(time(age).ok_or_else(wrong)?)),
                    None => (n, None),
                };
                let max_pages = up_to(pages, MOST_PAGES).ok_or_else(wrong)?;
                Ok(Self::Deferred { max_pages, max_age: age })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Strict | Self::Batched(None) => Ok(()),
            Self::Batched(Some(Batch::Calls(calls))) => write!(f, "={calls}"),
            Self::Batched(Some(Batch::Gap(gap))) => write!(f, "={}", typed(*gap)),
            Self::Deferred { max_pages, max_age: None } => write!(f, "={max_pages}"),
            Self::Deferred { max_pages, max_age: Some(age) } => {
                write!(f, "={max_pages},{}", typed(*age))
            }
        }
    }
}

/// A time as one would type it, in the largest unit that is exact.
fn typed(time: Duration) -> String {
    let ns = time.as_nanos();
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)];
    match units.into_iter().find(|(_, unit)| ns.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ns / unit),
        None => format!("{ns}ns"),
    }
}

/// When a filled entry has to be killed: whether a PHB may have cached it while it was empty. No
/// platform says when it does not, so all but `always` are assumptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Always, as Linux does.
    #[default]
    Always,
    /// If another entry of its line of so many was live: empty ones are cached as neighbours only.
    BesideLive(u32),
    /// Never: empty entries are not cached.
    Never,
}

impl Fill {
    /// `beside-live` without a number.
    pub const BESIDE_LIVE: Self = Self::BesideLive(LINE);
}

impl From<Fill> for FillRule {
    fn from(fill: Fill) -> Self {
        match fill {
            Fill::Always => Self::Always,
            Fill::BesideLive(line) => Self::BesideLive { line },
            Fill::Never => Self::Never,
        }
    }
}

impl FromStr for Fill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let line = |n: &str| n.parse().ok().filter(|n: &u32| n.is_power_of_two() && *n <= 64);
        match (text, text.strip_prefix("beside-live=").and_then(line)) {
            ("always", _) => Ok(Self::Always),
            ("never", _) => Ok(Self::Never),
            ("beside-live", _) => Ok(Self::BESIDE_LIVE),
            (_, Some(line)) => Ok(Self::BesideLive(line)),
            _ => Err(format!(
                "'{text}' is no rule for fills; accepted: always, beside-live, beside-live=ENTRIES of a \
                 line (1 to 64, a power of two), never"
            )),
        }
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::BesideLive(line) => write!(f, "beside-live={line}"),
            Self::Never => f.write_str("never"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_print_as_they_are_typed() {
        for text in
            ["strict", "batched", "batched=1", "batched=50us", "deferred=9", "deferred=256,10ms"]
        {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        assert_eq!("deferred".parse(), Ok(Policy::deferred()));
        assert_eq!(Policy::deferred().to_string(), "deferred=256");
        let usual = "batched".parse::<Policy>().unwrap().or_batch(Batch::Calls(7));
        assert_eq!((usual.to_string(), usual.batch()), ("batched=7".into(), Some(Batch::Calls(7))));
        for text in [
            "",
            "Strict",
            "strict=1",
            "batched=",
            "batched=0",
            "batched=0us",
            "batched=-1",
            "deferred=0",
            "deferred=4097",
            "deferred=1,",
            "deferred=1,0s",
            "deferred=1,2,3",
            "deferred=+1",
        ] {
            let error = text.parse::<Policy>().unwrap_err();
            assert!(error.contains("accepted: strict, batched"), "{error}");
        }
    }

    #[test]
    fn rules_for_fills_print_as_they_are_typed() {
        for text in ["always", "beside-live=1", "beside-live=64", "never"] {
            assert_eq!(text.parse::<Fill>().unwrap().to_string(), text);
        }
        assert_eq!("beside-live".parse(), Ok(Fill::BesideLive(16)));
        for text in ["", "beside-live=", "beside-live=3", "beside-live=128", "always=1"] {
            assert!(text.parse::<Fill>().unwrap_err().contains("a power of two"), "{text}");
        }
    }
}
