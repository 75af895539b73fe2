// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a thread knows of its pages, and what devices are told of it. Where kills may wait, a page that was
//! cleared counts as released when its thread's handle owes nothing any more; what was mapped devices
//! find at once, or from then on if fills wait as well.

use tce_engine::container::{Container, Mapper};
use tce_engine::kill::KillPolicy;
use tce_engine::{Perm, Uaddr};

use super::{Run, Thread};

/// What is mapped at a page.
pub(super) type To = Option<(Uaddr, Perm)>;

impl Thread<'_> {
    /// The memory that is mapped at a page of the thread's, whether devices are sure of it or not.
    pub(super) fn mapped_at(&self, window: usize, page: u64) -> Option<Uaddr> {
        match self.owed.get(&(window, page)) {
            Some(to) => to.map(|to| to.0),
            None => self.drive.expect.expected(self.domain.stretch(window), page),
        }
    }

    pub(super) fn live(&self, run: &Run) -> bool {
        (0..run.count).any(|n| self.mapped_at(run.window, run.page + n).is_some())
    }

    fn say(&self, window: usize, page: u64, to: To) {
        let (expect, stretch) = (self.drive.expect, self.domain.stretch(window));
        match to {
            Some((memory, perm)) => expect.mapped(stretch, page, memory, perm),
            None => expect.released(stretch, page),
        }
    }

    /// Says what is sure from now on, if the handle owes nothing.
    pub(super) fn say_settled(&mut self) {
        if self.mapper.owed() == 0 {
            while let Some(((window, page), to)) = self.owed.pop_first() {
                self.say(window, page, to);
            }
        }
    }

    /// A call has left this at a page, `by_handle` or not; `live` if something was mapped there before.
    pub(super) fn left(&mut self, window: usize, page: u64, to: To, by_handle: bool, live: bool) {
        let waits = match to {
            Some(_) => by_handle && self.drive.plan.policy == KillPolicy::Batched,
            // What was not there any more nobody kills.
            None => by_handle || !live && self.owed.contains_key(&(window, page)),
        };
        if waits && self.mapper.owed() > 0 {
            self.owed.insert((window, page), to);
        } else {
            self.owed.remove(&(window, page));
            self.say(window, page, to);
        }
    }

    /// Makes a call, and says before and after it what there is to be found.
    pub(super) fn expecting<T>(
        &mut self,
        why: &'static str,
        by_handle: bool,
        runs: &[(Run, Option<Perm>)],
        call: impl FnOnce(&mut Mapper, &Container) -> T,
    ) -> T {
        let pages = runs.iter().flat_map(|(run, perm)| {
            (0..run.count)
                .map(move |n| (run.window, run.page + n, perm.map(|p| (run.memory_of(n), p))))
        });
        let pages: Vec<_> =
            pages.map(|(w, page, to)| (w, page, to, self.mapped_at(w, page).is_some())).collect();
        for (window, page, ..) in &pages {
            self.drive.expect.changing(self.domain.stretch(*window), *page, why);
        }
        let done = call(&mut self.mapper, &self.domain.container);
        for (window, page, to, live) in pages {
            self.left(window, page, to, by_handle, live);
        }
        self.say_settled();
        done
    }

    /// The end of a batch, or of a debt.
    pub(super) fn submit(&mut self) {
        self.mapper.submit();
        assert_eq!(self.mapper.owed(), 0);
        self.say_settled();
    }
}
