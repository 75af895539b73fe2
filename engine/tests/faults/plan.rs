// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which call fails, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use tce_engine::backend::linux::faulty::{Faults, Outcome, Row, Site};

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

impl Faults for Plan {
    fn outcome(&self, request: &Row, pages: u64) -> Option<Outcome> {
        self.next(request.site, pages)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({:?})", self.fault)
    }
}
