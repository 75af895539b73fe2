// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices, and what bridges cache for them.

use crate::protocol::Protocol;
use crate::state::{Actor, Cached, HANDLES, Member, Page, Pe, Set, State, Tce};

/// What a walk leaves in the cache, beside the entry that was asked for: the others of its line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeps {
    /// All of them, empty or not, even if the one that was asked for was empty.
    Everything,
    /// All of them, but only if one is live: a failed translation leaves nothing.
    BesideLive,
    /// Those that are live.
    Live,
}

/// A TCE cache. No kill but of a page or of the whole PE takes anything out of it for sure: a line may
/// make room for another at any time, or never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cache {
    pub(crate) keeps: Keeps,
    /// A page's kill drops its line; else that entry alone is sure to go.
    pub(crate) drops_line: bool,
}

impl Cache {
    /// The worst.
    pub(crate) const ANY: Self = Self { keeps: Keeps::Everything, drops_line: false };
    /// What `FillRule::BesideLive` asks for.
    pub(crate) const BESIDE_LIVE: Self = Self { keeps: Keeps::BesideLive, drops_line: true };
    /// What `FillRule::Never` asks for.
    pub(crate) const LIVE: Self = Self { keeps: Keeps::Live, drops_line: false };
}

impl Protocol {
    /// A walk brings a line, whatever made a device or its bridge want it. What had been there made
    /// room for it.
    pub(crate) fn load(&self, s: &State, pe: usize, line: usize) -> Option<State> {
        let mut s = *s;
        let entries = self.line(line);
        if entries.is_empty() {
            return None;
        }
        let live = entries.iter().any(|e| s.table[e].is_some());
        let Pe { member, cache, .. } = &mut s.pes[pe];
        match member {
            // Actor had the PE before was no better.
            Member::No => entries.iter().for_each(|e| cache[e] = Cached::Foreign),
            Member::Yes if live || self.cache.keeps == Keeps::Everything => {
                let kept = |tce: Tce| self.cache.keeps != Keeps::Live || tce.is_some();
                for e in entries.iter() {
                    let tce = s.table[e];
                    cache[e] = if kept(tce) { Cached::Entry(tce) } else { Cached::No };
                }
            }
            _ => return None,
        }
        Some(s)
    }

    /// A page's entry goes, or all of the PE's.
    pub(crate) fn invalidate(&self, pe: &mut Pe, page: Option<usize>) {
        let gone = match page {
            None => Set::below(self.entries()),
            Some(e) if self.cache.drops_line => self.line(self.lines[e]),
            Some(e) => Set::of(e),
        };
        gone.iter().for_each(|e| pe.cache[e] = Cached::No);
    }

    /// A device's access is translated by what is cached. There is one at a time.
    pub(crate) fn access(&self, s: &State, pe: usize, page: Page) -> Option<State> {
        let mut s = *s;
        let Pe { cache, flight, .. } = &mut s.pes[pe];
        if flight.is_some() || !cache.contains(&Cached::Entry(Some(page))) {
            return None;
        }
        *flight = Some(page);
        Some(s)
    }

    /// The device has done with the memory.
    pub(crate) fn done(&self, s: &State, pe: usize) -> Option<State> {
        let mut s = *s;
        s.pes[pe].flight.take()?;
        (0..HANDLES).for_each(|h| s.handles[h].op.waits.remove(pe));
        s.op_mut(Actor::Writer).waits.remove(pe);
        Some(s)
    }
}
