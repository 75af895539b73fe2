// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which call fails, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use tce_engine::backend::linux::raw::{Errno, Raw};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Eperm,
    Enoent,
    Enomem,
    Efault,
    Ebusy,
    Einval,
    Enxio,
    /// +1: no error number, and no success.
    One,
    /// The first of the pages is done, and stays; then it fails.
    First,
    /// All but the last.
    Most,
    /// All of it is done, and the answer is lost.
    All,
    /// As Linux fails: what was done of it is cleared, whatever was there before.
    Cleared,
}

impl Outcome {
    pub(crate) const EVERY: [Self; 12] = [
        Self::Eperm,
        Self::Enoent,
        Self::Enomem,
        Self::Efault,
        Self::Ebusy,
        Self::Einval,
        Self::Enxio,
        Self::One,
        Self::First,
        Self::Most,
        Self::All,
        Self::Cleared,
    ];

    /// What the caller of a request gets.
    pub(crate) fn answer(self) -> Raw {
        match self {
            Self::Eperm => Err(Errno::EPERM),
            Self::Enoent => Err(Errno::ENOENT),
            Self::Enomem | Self::First | Self::Most | Self::Cleared => Err(Errno::ENOMEM),
            Self::Efault | Self::All => Err(Errno::EFAULT),
            Self::Ebusy => Err(Errno::EBUSY),
            Self::Einval => Err(Errno::EINVAL),
            Self::Enxio => Err(Errno::ENXIO),
            Self::One => Ok(1),
        }
    }

    /// How many of so many pages are done, if any is.
    pub(crate) fn done(self, pages: u64) -> Option<u64> {
        match self {
            Self::First => Some(1),
            Self::Most | Self::Cleared => Some(pages - 1),
            Self::All => Some(pages),
            _ => None,
        }
    }

    /// A call for so many pages can end like this, and not just like another outcome.
    pub(crate) fn fits(self, pages: u64) -> bool {
        match self {
            Self::First | Self::Cleared => pages >= 2,
            Self::Most => pages >= 3,
            Self::All => pages >= 1,
            _ => true,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Eperm => "EPERM",
            Self::Enoent => "ENOENT",
            Self::Enomem => "ENOMEM",
            Self::Efault => "EFAULT",
            Self::Ebusy => "EBUSY",
            Self::Einval => "EINVAL",
            Self::Enxio => "ENXIO",
            Self::One => "+1",
            Self::First => "1/n",
            Self::Most => "n-1/n",
            Self::All => "n/n",
            Self::Cleared => "cleared",
        })
    }
}

/// Where the engine calls out, by the name that the table has for it.
pub(crate) type Site = &'static str;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) site: Site,
    /// Which of its calls, from 0.
    pub(crate) nth: usize,
    pub(crate) outcome: Outcome,
    /// Whatever else the step asks of the site is refused with ENOMEM.
    pub(crate) lasts: bool,
}

#[derive(Default)]
struct State {
    /// The pages that each call of a site was for.
    calls: BTreeMap<Site, Vec<u64>>,
    met: bool,
    /// The step has met it and is not over yet.
    lasts: bool,
}

/// Counts calls, and lets one of them fail.
#[derive(Default)]
pub(crate) struct Plan {
    fault: Option<Fault>,
    state: Mutex<State>,
}

impl Plan {
    pub(crate) fn failing(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// A call for so many pages; what is to become of it, if it is to fail.
    pub(crate) fn next(&self, site: Site, pages: u64) -> Option<Outcome> {
        let mut state = self.state.lock().unwrap();
        let calls = state.calls.entry(site).or_default();
        let nth = calls.len();
        calls.push(pages);
        let fault = self.fault.filter(|fault| fault.site == site)?;
        if fault.nth == nth {
            state.met = true;
            state.lasts = fault.lasts;
            return Some(fault.outcome);
        }
        state.lasts.then_some(Outcome::Enomem)
    }

    /// A step is over. True if a call of it failed.
    pub(crate) fn take_met(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.lasts = false;
        std::mem::take(&mut state.met)
    }

    pub(crate) fn calls(&self) -> BTreeMap<Site, Vec<u64>> {
        self.state.lock().unwrap().calls.clone()
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({:?})", self.fault)
    }
}
