// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What phase `mix` is made of, as it is typed and written to results: which operations in which shares,
//! how many pages a request, how many requests are mapped at a time, and where they go.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tce_engine::container::LIST_MAX;

use crate::size::whole;

/// Largest share that can be given: shares are weights, not per cent.
const MOST_SHARE: u32 = 1_000_000;
/// Most sizes of requests.
const MOST_SIZES: usize = 64;
/// Most pages of a request.
const MOST_PAGES: u64 = 1 << 30;
/// Most requests mapped at a time, of one thread in one window.
pub const MOST_LIVE: u32 = 1 << 22;

/// An operation of a mix. Unmaps are not among them: one comes before each map that finds as many
/// requests mapped as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Maps pages that follow each other in memory, too.
    Map,
    /// Maps a list of pages from all over the buffer.
    List,
    /// Maps other memory over a request that is mapped.
    Replace,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Map, Self::List, Self::Replace];

    /// As typed, and how result ids end.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::List => "list",
            Self::Replace => "replace",
        }
    }
}

/// Things with shares. At least one has a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares<T>(Vec<(T, u32)>);

impl<T: Copy + PartialEq> Shares<T> {
    /// Just this.
    #[must_use]
    pub fn only(one: T) -> Self {
        Self(vec![(one, 1)])
    }

    /// The things, each with its share.
    pub fn iter(&self) -> impl Iterator<Item = (T, u32)> + '_ {
        self.0.iter().copied()
    }

    /// True if this is never picked.
    #[must_use]
    pub fn lacks(&self, one: T) -> bool {
        self.0.iter().all(|(other, share)| *other != one || *share == 0)
    }

    /// The sum of all shares.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, share)| u64::from(*share)).sum()
    }

    /// What a number below [`Shares::total`] picks.
    #[must_use]
    pub fn pick(&self, mut number: u64) -> T {
        for (one, share) in self.iter() {
            match number.checked_sub(share.into()) {
                Some(left) => number = left,
                None => return one,
            }
        }
        self.0[0].0
    }

    /// Reads a list of things with shares; `one` reads a thing.
    fn parse(
        text: &str,
        between: char,
        one: impl Fn(&str) -> Option<T>,
        forms: &str,
    ) -> Result<Self, String> {
        let mut shares: Vec<(T, u32)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, share) = part.split_once(between).unwrap_or((part, "1"));
            let share = whole(share).filter(|share| *share <= MOST_SHARE);
            let share = share.ok_or_else(|| {
                format!("'{part}': a share is a whole number up to {MOST_SHARE}; accepted: {forms}")
            })?;
            let thing = one(name.trim()).ok_or_else(|| format!("'{part}'; accepted: {forms}"))?;
            if shares.iter().any(|(other, _)| *other == thing) {
                return Err(format!("'{name}' has two shares; accepted: one each"));
            }
            shares.push((thing, share));
        }
        if shares.iter().all(|(_, share)| *share == 0) {
            return Err(format!("'{text}' shares out nothing; accepted: {forms}"));
        }
        if shares.len() > MOST_SIZES {
            let n = shares.len();
            return Err(format!("{n} things share; accepted: up to {MOST_SIZES}"));
        }
        Ok(Self(shares))
    }
}

impl Shares<u64> {
    /// The largest size that is ever picked.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.iter().filter(|(_, share)| *share > 0).map(|(pages, _)| pages).max().unwrap_or(1)
    }
}

impl FromStr for Shares<Operation> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = |name: &str| Operation::ALL.into_iter().find(|op| op.name() == name);
        Self::parse(text, '=', one, "map, list and replace with their shares, as map=90,replace=10")
    }
}

impl FromStr for Shares<u64> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = |pages: &str| whole(pages).filter(|pages| (1..=MOST_PAGES).contains(pages));
        let forms =
            format!("pages, 1 to {MOST_PAGES}, or several with their shares, as 1:70,16:30");
        Self::parse(text, ':', one, &forms)
    }
}

impl fmt::Display for Shares<Operation> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.iter().map(|(op, n)| format!("{}={n}", op.name())).collect();
        f.write_str(&all.join(","))
    }
}

impl fmt::Display for Shares<u64> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [(pages, _)] => write!(f, "{pages}"),
            several => {
                let all: Vec<_> = several.iter().map(|(p, n)| format!("{p}:{n}")).collect();
                f.write_str(&all.join(","))
            }
        }
    }
}

/// Which of the mapped requests is unmapped next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The oldest.
    #[default]
    Fifo,
    /// The newest.
    Lifo,
    /// Any.
    Random,
}

/// Where the next request goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Behind the one before, round and round.
    #[default]
    Sequential,
    /// Anywhere.
    Random,
}

/// A mix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// What is done.
    pub operations: Shares<Operation>,
    /// Pages a request.
    pub pages: Shares<u64>,
    /// Requests mapped at a time by each thread in each window.
    pub live: u32,
    /// Requests unmapped together once so many are mapped; 1 to `live`.
    pub burst: u32,
    /// Which go first.
    pub order: Order,
    /// Where they go.
    pub place: Place,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            operations: Shares::only(Operation::Map),
            pages: Shares::only(1),
            live: 64,
            burst: 1,
            order: Order::default(),
            place: Place::default(),
        }
    }
}

impl Mix {
    /// What cannot be, whatever the window.
    ///
    /// # Errors
    /// One line with the value, the limit and what would be accepted.
    pub fn check(&self) -> Result<(), String> {
        let pages = self.pages.largest();
        if !self.operations.lacks(Operation::List) && pages > LIST_MAX as u64 {
            return Err(format!(
                "--pages {pages} with lists; accepted: up to {LIST_MAX} pages, as a list holds no more"
            ));
        }
        if self.burst > self.live {
            return Err(format!(
                "--burst {} is more than --live {}; accepted: 1 to {}",
                self.burst, self.live, self.live
            ));
        }
        Ok(())
    }

    /// Pages of the place that each request has, which is large enough for any.
    #[must_use]
    pub fn slot(&self) -> u64 {
        self.pages.largest().next_power_of_two()
    }

    /// Looks whether a thread's share of a window, in pages, and the buffer are large enough.
    ///
    /// # Errors
    /// As [`Mix::check`].
    pub fn fits(&self, share: u64, buffer: u64) -> Result<(), String> {
        let (largest, slot) = (self.pages.largest(), self.slot());
        if largest > buffer {
            return Err(format!(
                "--pages {largest} is more than the {buffer} pages of the buffer; accepted: 1 to {buffer}, \
                 or a larger --buffer"
            ));
        }
        // A place that is drawn should mostly be free.
        let most = match self.place {
            Place::Sequential => share / slot,
            Place::Random => share / slot / 2,
        };
        if u64::from(self.live) > most {
            let half = if self.place == Place::Random { ", half of them" } else { "" };
            return Err(format!(
                "--live {} requests of up to {slot} pages are more than a thread's {share} pages of the \
                 window have room for{half}; accepted: 1 to {most}, or a larger window",
                self.live
            ));
        }
        Ok(())
    }
}

/// Calls that are due at intended times, so many a second, of all threads together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub u64);

impl Rate {
    /// Closer together than this, nobody could tell when a call was due.
    const MOST: u64 = 1_000_000_000;
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no rate; accepted: operations per second, 1/s to {}/s, as 5000/s, 100k/s or \
                 2M/s",
                Self::MOST
            )
        };
        let number = text.strip_suffix("/s").ok_or_else(wrong)?;
        let (digits, unit) = match number.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1000),
            None => number.strip_suffix('M').map_or((number, 1), |digits| (digits, 1_000_000)),
        };
        let rate = whole::<u64>(digits).and_then(|n| n.checked_mul(unit));
        rate.filter(|rate| (1..=Self::MOST).contains(rate)).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_picked_and_written() {
        let ops: Shares<Operation> = "map=3, list=0,replace".parse().unwrap();
        assert_eq!(ops.to_string(), "map=3,list=0,replace=1");
        let picked: Vec<_> = (0..ops.total()).map(|n| ops.pick(n).name()).collect();
        assert_eq!(picked, ["map", "map", "map", "replace"]);
        assert!(ops.lacks(Operation::List) && !ops.lacks(Operation::Replace));
        let sizes: Shares<u64> = "1:70,16:30,64:0".parse().unwrap();
        assert_eq!((sizes.largest(), sizes.total()), (16, 100));
        assert_eq!(("8".parse::<Shares<u64>>().unwrap()).to_string(), "8");
        for wrong in ["", "map=0", "unmap=1", "map=1,map=2", "map=-1", "map=+1", "map=9999999"] {
            assert!(wrong.parse::<Shares<Operation>>().is_err(), "{wrong}");
        }
        for wrong in ["", "0", "1:0", "+1", "2:1,2:1", "1:", "x", "1=2", "1152921504606846976"] {
            assert!(wrong.parse::<Shares<u64>>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_need_their_unit() {
        for (text, rate) in [("1/s", 1), ("5000/s", 5000), ("100k/s", 100_000), ("2M/s", 2_000_000)]
        {
            assert_eq!(text.parse(), Ok(Rate(rate)));
        }
        for wrong in
            ["", "5", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "2G/s", "1/m", "1001M/s", "k/s"]
        {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_has_no_room_is_said_with_what_has() {
        let mix = Mix { pages: "1:1,48:1".parse().unwrap(), live: 9, ..Mix::default() };
        assert_eq!(mix.slot(), 64);
        assert_eq!(mix.fits(640, 48), Ok(()));
        assert!(mix.fits(575, 48).unwrap_err().contains("accepted: 1 to 8,"));
        assert!(mix.fits(640, 47).unwrap_err().contains("accepted: 1 to 47,"));
        let random = Mix { place: Place::Random, ..mix.clone() };
        assert!(random.fits(640, 48).unwrap_err().contains("accepted: 1 to 5,"));
        let lists = "list".parse().unwrap();
        let long = Mix { operations: lists, pages: Shares::only(513), ..Mix::default() };
        assert!(long.check().unwrap_err().contains("up to 512 pages"));
        let bursts = Mix { burst: 10, ..mix };
        assert!(bursts.check().unwrap_err().contains("accepted: 1 to 9"));
    }
}
