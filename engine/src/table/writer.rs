// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ranges that are locked to be written.

use super::locks::Locked;
use super::tree::Run;
use super::{Gone, Old, TceTable, wide};
use crate::simd::Tier;
use crate::sync::Slot;
use crate::tce::Tce;

/// What was written to a stretch.
pub(crate) struct Written {
    /// Live entries.
    pub(crate) live: u64,
    /// Whose they are, if they are one's.
    pub(crate) owner: Option<usize>,
    /// True if a write-only permission was asked for.
    pub(crate) write_only: bool,
}

/// Sole writer of a range of a table. Dropping it lets others in.
#[must_use]
pub struct Writer<'a> {
    table: &'a TceTable,
    range: Locked<'a>,
    /// Nothing is live in the range, as far as it was looked at.
    empty: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(table: &'a TceTable, range: Locked<'a>) -> Self {
        let empty = range.is_empty();
        Self { table, range, empty }
    }
}

impl Writer<'_> {
    /// First entry and number of entries of each part.
    #[must_use]
    pub fn parts(&self) -> &[(u64, u64)] {
        self.range.asked()
    }

    /// Number of entries.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.parts().iter().map(|part| part.1).sum()
    }

    /// First entry of the first part.
    fn base(&self) -> u64 {
        self.range.first()
    }

    /// Number of live entries in the range. Only tiles that may have some are looked at, and of no
    /// segment that is covered.
    #[must_use]
    pub fn live(&mut self) -> u64 {
        if self.empty {
            return 0;
        }
        let tier = self.table.tier;
        let count = |tile: Run<'_>| match tier.any_live(tile.slots) {
            true => tier.scan(tile.slots).live,
            false => 0,
        };
        let mut live = 0;
        for run in self.range.runs() {
            live += match run.segment.live() {
                0 => 0,
                all if run.is_whole() => all,
                _ => run.tiles().filter(Run::may_be_live).map(count).sum(),
            };
        }
        self.empty = live == 0;
        live
    }

    /// Calls `f` with each stretch that has live entries, and returns how many there are.
    pub fn old(&mut self, mut f: impl FnMut(&Old<'_>)) -> u64 {
        let mut live = 0;
        for run in self.range.runs().filter(Run::may_be_live) {
            live += look(self.table.tier, &run, &mut |gone| {
                if let Gone::Look(old) = gone {
                    f(old);
                }
            });
        }
        live
    }

    /// Calls `f` with the first and the number of entries in a row that are in debt.
    pub(crate) fn in_debt(&self, mut f: impl FnMut(u64, u64)) {
        for run in self.range.runs() {
            run.segment.in_debt(run.at..run.at + run.slots.len(), |at, count| {
                f(run.first + (at - run.at) as u64, count as u64);
            });
        }
    }

    /// Goes through all parts, run by run. `gone` gets the live entries of each before `f` writes
    /// every slot of it with the tier; `f` gets the number of the first entry and says what it has
    /// written. Returns the number of live entries that went.
    pub(crate) fn write(
        &mut self,
        mut gone: impl FnMut(Gone<'_>),
        f: impl Fn(&Tier, u64, &[Slot]) -> Written + Sync,
    ) -> u64 {
        let (mut all, tier) = (0, self.table.tier);
        let write = |run: &Run<'_>| finish(run, 0, &f(tier, run.first, run.slots));
        if wide::worth(self.count()) && self.range.runs().all(|run| run.segment.live() == 0) {
            wide::for_each(self.range.runs(), write);
            self.empty = false;
            return 0;
        }
        for run in self.range.runs() {
            // The common case of a bulk map: nothing to read.
            if self.empty || !run.may_be_live() {
                write(&run);
                continue;
            }
            // What is looked at is still in the innermost cache when it is written.
            for tile in run.tiles() {
                let before = if tile.may_be_live() { look(tier, &tile, &mut gone) } else { 0 };
                let written = f(tier, tile.first, tile.slots);
                finish(&tile, before, &written);
                all += before;
            }
        }
        self.empty = false;
        all
    }

    /// Clears a part of what is locked, as [`Held::clear`](super::Held::clear) does.
    pub fn forget(&mut self, part: (u64, u64), old: impl FnMut(&Old<'_>)) {
        self.range.forget(self.table.tier, part, old);
        self.empty = false;
    }

    /// Writes an arithmetic run: the entry that is `i` behind the first becomes `tce + i * step`.
    ///
    /// The low bits of `step` are 0 and `tce` is live, so that all entries are.
    ///
    /// # Panics
    /// Otherwise.
    pub fn fill(&mut self, tce: Tce, step: u64) {
        assert!(!tce.is_empty() && step & Tce::CONTROL_MASK == 0);
        let base = self.base();
        self.write(
            |_| (),
            |tier, first, slots| {
                let value = tce.value().wrapping_add(step.wrapping_mul(first - base));
                tier.fill(slots, Tce::from_value(value), step);
                Written { live: slots.len() as u64, owner: None, write_only: false }
            },
        );
    }

    /// Writes the same entry everywhere (H_STUFF_TCE).
    pub fn stuff(&mut self, tce: Tce) {
        self.stuff_for(tce, None, |_| ());
    }

    /// The same for an owner; `gone` gets what was live.
    pub(crate) fn stuff_for(
        &mut self,
        tce: Tce,
        owner: Option<usize>,
        gone: impl FnMut(Gone<'_>),
    ) -> u64 {
        self.write(gone, |tier, _, slots| {
            tier.store(slots, tce);
            let live = if tce.is_empty() { 0 } else { slots.len() as u64 };
            Written { live, owner, write_only: false }
        })
    }

    /// Writes a guest's entries, each of which is for `1 << parts` pages of the table in a row;
    /// `tce` gives them by their number in the range, and what is live is `owner`'s. An empty one is
    /// stored as it is throughout. `gone` gets what was live before; returns how many that were.
    pub(crate) fn put_parts(
        &mut self,
        parts: u32,
        tce: impl Fn(u64) -> Tce + Sync,
        owner: Option<usize>,
        gone: impl FnMut(Gone<'_>),
    ) -> u64 {
        let (base, page) = (self.base(), self.table.geometry().page().bytes());
        self.write(gone, |tier, first, mut slots| {
            let (mut at, mut live) = (first - base, 0);
            while !slots.is_empty() {
                let (nth, part) = (at >> parts, at & ((1 << parts) - 1));
                let n = slots.len().min(((1 << parts) - part) as usize);
                let (now, rest) = slots.split_at(n);
                let tce = tce(nth);
                if tce.is_empty() {
                    tier.store(now, tce);
                } else {
                    tier.fill(now, Tce::from_value(tce.value() + part * page), page);
                    live += n as u64;
                }
                (at, slots) = (at + n as u64, rest);
            }
            Written { live, owner, write_only: false }
        })
    }

    /// Writes a list of words that covers the range, and hands back what was there.
    ///
    /// # Panics
    /// If a list is not as long as the range.
    pub fn exchange(&mut self, words: &[u64], old: &mut [u64]) {
        assert!(words.len() as u64 == self.count() && old.len() == words.len());
        let (base, tier) = (self.base(), self.table.tier);
        for run in self.range.runs() {
            let at = (run.first - base) as usize;
            let (words, old) = (&words[at..][..run.slots.len()], &mut old[at..][..run.slots.len()]);
            tier.exchange(run.slots, words, old);
            let live = tier.survey(words).live;
            let written = Written { live, owner: None, write_only: false };
            finish(&run, tier.survey(old).live, &written);
        }
        self.empty = false;
    }

    /// Writes a list of words that covers the range; `write_only` says whether a write-only
    /// permission was asked for.
    ///
    /// # Panics
    /// If the list is not as long as the range.
    pub fn put(&mut self, words: &[u64], write_only: bool) {
        assert!(words.len() as u64 == self.count());
        let base = self.base();
        self.write(
            |_| (),
            |tier, first, slots| {
                let part = &words[(first - base) as usize..][..slots.len()];
                tier.put(slots, part);
                Written { live: tier.survey(part).live, owner: None, write_only }
            },
        );
    }

    /// Writes a guest's list of words that covers the range, of which `live` are live and
    /// `owner`'s; `gone` gets what was live before: with `look_at`, while it can still be looked at.
    /// Returns how many that were.
    ///
    /// # Panics
    /// If the list is not as long as the range.
    pub(crate) fn put_for(
        &mut self,
        words: &[u64],
        live: u64,
        owner: Option<usize>,
        look_at: bool,
        mut gone: impl FnMut(Gone<'_>),
    ) -> u64 {
        assert!(words.len() as u64 == self.count());
        let (base, tier) = (self.base(), self.table.tier);
        let mut all = 0;
        for run in self.range.runs() {
            let at = (run.first - base) as usize;
            let part = &words[at..][..run.slots.len()];
            let before = if self.empty || run.segment.live() == 0 {
                tier.put(run.slots, part);
                0
            } else if let Some(owner) = run.segment.owner().filter(|_| !look_at) {
                let before = tier.replace(run.slots, part).live;
                let (first, count) = (run.first, run.slots.len() as u64);
                if before > 0 {
                    gone(Gone::Known { first, count, live: before, owner });
                }
                before
            } else {
                let before = look(tier, &run, &mut gone);
                tier.put(run.slots, part);
                before
            };
            let live = if part.len() == words.len() { live } else { tier.survey(part).live };
            finish(&run, before, &Written { live, owner, write_only: false });
            all += before;
        }
        self.empty = false;
        all
    }
}

/// Hands the live entries of a run to `gone`.
fn look(tier: &Tier, run: &Run<'_>, gone: &mut impl FnMut(Gone<'_>)) -> u64 {
    let old = Old::of(tier, run);
    if old.summary.live > 0 {
        gone(Gone::Look(&old));
    }
    old.summary.live
}

fn finish(run: &Run<'_>, before: u64, written: &Written) {
    run.recount(before, written.live, written.owner);
    run.segment.set_write_only(run.at, run.slots.len(), written.write_only);
}
