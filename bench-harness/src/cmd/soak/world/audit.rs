// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Looks at what is there: at what a call has changed, now and then at everything, and at what is left.

use std::time::Duration;

use tce_engine::addr::{Ioba, Uaddr};
use tce_engine::backend::Memory;
use tce_engine::backend::mock::Fault;
use tce_engine::kill::KillPolicy;
use tce_engine::tce::Perm;

use super::super::model::{Mapped, Window};
use super::compare::{same, shape_of};
use super::{Company, Outcome, World, Wrong};

/// Pages of a call that are looked at: its first and last ones.
const LOOKED_AT: u64 = 4;

impl World<'_> {
    /// What devices find at the pages of a call, the outcome of which is passed on.
    pub(super) fn translations(
        &mut self,
        side: usize,
        at: Ioba,
        pages: u64,
        outcome: Outcome,
    ) -> Result<Outcome, Wrong> {
        let Some((slot, window)) = self.model.window_below(side, at) else { return Ok(outcome) };
        let page = window.page;
        let first = (at.0 - window.start) >> page.get();
        let Some(pe) = self.member_pe(side, self.calls) else { return Ok(outcome) };
        let tail = pages.saturating_sub(LOOKED_AT / 2).max(LOOKED_AT / 2);
        let looked_at = (0..pages.min(LOOKED_AT / 2)).chain(tail..pages);
        // What was refused may have been of others' entries.
        let ours = match outcome {
            Outcome::Refused if self.shared() => self.territory(side, slot),
            _ => 0..window.shape.entries,
        };
        let mut compared = 0;
        for entry in looked_at.map(|n| first + n).filter(|entry| ours.contains(entry)) {
            self.entry(side, window, entry, pe)?;
            compared += 1;
        }
        self.entries_compared += compared;
        Ok(outcome)
    }

    /// One entry as the PHB sees it.
    #[inline]
    fn entry(
        &self,
        side: usize,
        window: &Window,
        entry: u64,
        pe: tce_engine::PeNumber,
    ) -> Result<(), Wrong> {
        let expected = window.live.get(&entry);
        let at = window.bus(entry);
        let seen = match self.mock.probe(pe, at) {
            Ok(seen) => {
                let owner = self.mock.owner(seen.at);
                let there = owner.map(|(memory, offset)| memory.start() + offset);
                Some((there, seen.perm))
            }
            Err(Fault::Empty { .. } | Fault::NoLevel { .. }) => None,
            Err(fault) => return Err(self.odd(side, at, expected, &format!("{fault:?}"))),
        };
        let must = expected.map(|mapped| (Some(mapped.memory), self.model.in_table(mapped.perm)));
        if seen == must { Ok(()) } else { Err(self.odd(side, at, expected, &format!("{seen:x?}"))) }
    }

    #[cold]
    fn odd(&self, side: usize, at: Ioba, expected: Option<&Mapped>, got: &str) -> Wrong {
        let expected = format!("{expected:x?}");
        Wrong::new(&format!("the PHB at {at} of container {side}"), &expected, got)
    }

    /// The permission that was asked for at a bus address; `None` outside the windows.
    pub(super) fn requested(&self, side: usize, at: Ioba) -> Option<Perm> {
        let (_, window) = self.model.window_below(side, at)?;
        let entry = (at.0 - window.start) >> window.page.get();
        let live = window.live.get(&entry);
        (entry < window.shape.entries).then(|| live.map_or(Perm::NONE, |mapped| mapped.perm))
    }

    /// Pages that a handle may owe.
    fn most_owed(&self) -> u64 {
        match self.policy {
            KillPolicy::Strict => 0,
            KillPolicy::Deferred { max_pages, .. } => max_pages.into(),
            _ => KillPolicy::MAX_PAGES.into(),
        }
    }

    /// A handle owes no more than it may.
    pub(super) fn within_limits(&self, side: usize, handle: usize) -> Result<(), Wrong> {
        if self.policy == KillPolicy::Strict {
            return Ok(());
        }
        let most = self.most_owed();
        let handle = &self.real[side].handles[handle];
        let (owed, held) = (handle.owed(), handle.held_back());
        if held > owed || owed > most {
            let expected = format!("held back up to owed, and that up to {most}");
            return Err(Wrong::new("debts", &expected, &format!("{held} and {owed}")));
        }
        Ok(())
    }

    /// After all debts of a container were settled.
    pub(super) fn nothing_owed(&self, side: usize) -> Result<Outcome, Wrong> {
        let owed: u64 = self.real[side].handles.iter().map(|handle| handle.owed()).sum();
        same("owed by all handles", &0, &owed)
    }

    fn held_back(&self, side: usize) -> u64 {
        self.real[side].handles.iter().map(|handle| handle.held_back()).sum()
    }

    /// The books after a change of the structure, which settles debts.
    pub(super) fn books(&mut self) -> Result<(), Wrong> {
        if self.company != Company::None {
            return Ok(());
        }
        same("pages in the ledger", &self.model.charged(), &self.engine.ledger().pages())?;
        let (pinned, _, set) = self.mock.leftovers();
        let expected = (self.model.registry.len(), self.model.windows_set());
        same("pinned ranges and windows set", &expected, &(pinned, set))?;
        Ok(())
    }

    /// Calls between two looks at everything: so many that these are not most of the work.
    pub(in super::super) fn audit_interval(&self) -> u64 {
        let windows = self.model.sides.iter().flat_map(|side| side.windows.iter().flatten());
        let entries: u64 = windows.map(|window| window.shape.entries).sum();
        (2 * entries).max(4096)
    }

    /// Everything: entries, counts, members, windows, debts, addresses, charges.
    pub(in super::super) fn audit(&mut self) -> Result<(), Wrong> {
        for side in 0..self.real.len() {
            self.counts(side, false)?;
            if self.calls.is_multiple_of(2) {
                self.real[side].container.retire_debts(Duration::ZERO);
            } else {
                self.real[side].handles.iter_mut().for_each(|handle| _ = handle.submit());
            }
            self.nothing_owed(side)?;
            self.counts(side, true)?;
            self.entries(side)?;
            if !self.shared() {
                self.members_and_windows(side)?;
            }
            self.addresses(side)?;
        }
        let debts = self.engine.debts();
        let most = self.most_owed();
        if debts.most_pages > most || most == 0 && debts.retirements > 0 {
            let expected = format!("{most} pages of one handle at most");
            return Err(Wrong::new("the engine's debts", &expected, &format!("{debts:?}")));
        }
        if self.company == Company::None {
            let users = self.model.registry.iter();
            let expected: Vec<_> = users.map(|(start, (bytes, n))| (*start, *bytes, *n)).collect();
            let regions = self.engine.regions().into_iter();
            let got = regions.map(|r| (r.memory.start(), r.memory.bytes(), r.containers as u64));
            same("regions of the process", &expected, &got.collect())?;
        }
        self.books()
    }

    /// Mapped counts; exact if nothing is owed.
    fn counts(&self, side: usize, exact: bool) -> Result<(), Wrong> {
        let most = self.held_back(side);
        let regions = self.real[side].container.regions();
        let own = &self.model.sides[side].regions;
        let ours: Vec<_> = regions.iter().filter(|r| own.contains_key(&r.memory.start())).collect();
        if !self.shared() {
            same("number of regions", &own.len(), &regions.len())?;
        }
        same("own regions", &own.len(), &ours.len())?;
        let mut held = 0;
        for info in ours {
            let region = own[&info.memory.start()];
            let start = Uaddr(info.memory.start());
            let expected = (Memory::User { start, bytes: region.bytes }, self.machine.contiguous);
            same("a region", &expected, &(info.memory, info.contiguous))?;
            if info.mapped < region.mapped || exact && info.mapped != region.mapped {
                let what = format!("mapped count of the region at {start}");
                let expected = format!("{}", region.mapped);
                return Err(Wrong::new(&what, &expected, &info.mapped.to_string()));
            }
            held += info.mapped - region.mapped;
        }
        // Others may settle meanwhile.
        let least = self.held_back(side);
        if held < least || held > most {
            let expected = format!("{least} to {most} pages that are held back");
            return Err(Wrong::new(
                "mapped counts",
                &expected,
                &format!("{held} beyond what is live"),
            ));
        }
        Ok(())
    }

    /// All entries of all windows; where others use them too, those of this thread.
    fn entries(&mut self, side: usize) -> Result<(), Wrong> {
        let Some(pe) = self.member_pe(side, self.calls / 2) else { return Ok(()) };
        let mut compared = 0;
        for (slot, window) in self.model.sides[side].windows.iter().enumerate() {
            let Some(window) = window else { continue };
            let all =
                if self.shared() { self.territory(side, slot) } else { 0..window.shape.entries };
            for entry in all.clone() {
                self.entry(side, window, entry, pe)?;
            }
            compared += all.end - all.start;
            for (entry, mapped) in &window.live {
                let at = window.bus(*entry);
                let got = self.real[side].container.requested(at).map(|(_, perm)| perm);
                if got != Some(mapped.perm) {
                    return Err(self.odd(side, at, Some(mapped), &format!("requested {got:?}")));
                }
                if !all.contains(entry) {
                    self.entry(side, window, *entry, pe)?;
                }
            }
        }
        self.entries_compared += compared;
        Ok(())
    }

    fn members_and_windows(&self, side: usize) -> Result<(), Wrong> {
        let real = &self.real[side].container;
        same("members", &self.model.sides[side].members, &real.groups())?;
        let windows = self.model.sides[side].windows.iter().flatten();
        let expected: Vec<_> = windows.map(|w| (Ioba(w.start), w.page, w.shape)).collect();
        same("windows", &expected, &real.windows().iter().map(shape_of).collect())?;
        Ok(())
    }

    /// Addresses that are out. What was freed while its kill was owed goes back when its handle comes by.
    fn addresses(&mut self, side: usize) -> Result<(), Wrong> {
        let (given, shared) = (self.model.given_pages(side), self.shared());
        let real = &mut self.real[side];
        let Some(addresses) = &real.addresses else { return Ok(()) };
        real.handles[0].submit();
        real.owed.clear();
        if !shared {
            same("addresses in use", &given, &addresses.in_use())?;
        }
        Ok(())
    }
}
