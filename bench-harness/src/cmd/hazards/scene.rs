// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A user at work on a simulated machine, what it believes of it, and what is true.
//!
//! Beliefs follow from what the user was told: a request that succeeded did all of it, one that was
//! refused did nothing. The audit compares them with what devices reach and what is charged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::linux::Version;
use tce_engine::backend::linux::mock_kernel::{
    Damage, DmaFault, Event, GroupState, MockKernel, MockKernelBuilder, Process,
};
use tce_engine::tce::Perm;

use super::user::{Answer, Engined, Naive, Shape, User};

/// Page of most windows here.
pub(super) const PAGE: u64 = 64 << 10;
/// Memory of the process from here on; page n is at `MEMORY + n * PAGE`.
const MEMORY: u64 = 0x7000_0000_0000;

/// The nth page of memory.
pub(super) fn memory(page: u64) -> Uaddr {
    Uaddr(MEMORY + page * PAGE)
}

/// The nth page of a window.
pub(super) fn page_at(window: Ioba, page: u64) -> Ioba {
    Ioba(window.0 + page * PAGE)
}

/// What became of it: each number is counted on the simulated machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize)]
pub(super) struct Harm {
    /// Requests after which the kernel never came back.
    pub(super) hung: u64,
    /// Entries that were written where no table is.
    pub(super) corrupted: u64,
    /// Pages that devices reach although the user was told that they do not.
    pub(super) exposed: u64,
    /// Mappings that the user relies on and that devices do not find, one for each group.
    pub(super) lost: u64,
    /// Bytes that stay charged or pinned after everything was closed, or after they were given back.
    pub(super) leaked_bytes: u64,
    /// Healthy groups whose devices were reset or stopped with another.
    pub(super) disturbed: u64,
    /// Answers that say something else than what happened, or name another cause.
    pub(super) misled: u64,
}

impl Harm {
    /// True if nothing at all happened.
    pub(super) fn none(&self) -> bool {
        *self == Self::default()
    }
}

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Actor {
    /// A program that believes what the kernel answers.
    Naive,
    /// The same by way of the engine.
    Engine,
}

/// A window that somebody believes to have.
#[derive(Clone, Copy)]
struct Window {
    container: usize,
    start: Ioba,
    shape: Shape,
}

/// One case under way.
pub(super) struct Scene {
    pub(super) kernel: Arc<MockKernel>,
    pub(super) process: Arc<Process>,
    user: Box<dyn User>,
    members: BTreeMap<GroupId, usize>,
    windows: Vec<Window>,
    /// By container and region.
    regions: BTreeSet<(usize, Uaddr, u64)>,
    /// By container and bus page: what is there.
    mapped: BTreeMap<(usize, Ioba), Uaddr>,
    /// Bus pages that are not mapped any more.
    gone: BTreeSet<(usize, Ioba)>,
    harm: Harm,
    /// The first refusal, for the report.
    refused: Option<String>,
}

impl Scene {
    /// A machine as `builder` says, and one process of it.
    pub(super) fn new(builder: MockKernelBuilder, actor: Actor, version: Version) -> Self {
        let kernel = builder.record(true).build();
        let process = kernel.process();
        let user: Box<dyn User> = match actor {
            Actor::Naive => Box::new(Naive::new(process.clone(), version)),
            Actor::Engine => Box::new(Engined::new(process.clone(), version)),
        };
        Self {
            kernel,
            process,
            user,
            members: BTreeMap::new(),
            windows: Vec::new(),
            regions: BTreeSet::new(),
            mapped: BTreeMap::new(),
            gone: BTreeSet::new(),
            harm: Harm::default(),
            refused: None,
        }
    }

    fn heard<T>(&mut self, answer: Answer<T>) -> Answer<T> {
        if let Err(text) = &answer {
            self.refused.get_or_insert_with(|| text.clone());
        }
        answer
    }

    pub(super) fn open(&mut self, group: GroupId) -> Answer<usize> {
        let container = self.open_as_it_comes(group)?;
        let answer = self.user.drop_default(container);
        self.heard(answer)?;
        Ok(container)
    }

    /// Without removing the default window.
    pub(super) fn open_as_it_comes(&mut self, group: GroupId) -> Answer<usize> {
        let answer = self.user.open(group);
        let container = self.heard(answer)?;
        self.members.insert(group, container);
        Ok(container)
    }

    pub(super) fn attach(&mut self, container: usize, group: GroupId) -> Answer {
        let answer = self.user.attach(container, group);
        self.heard(answer)?;
        self.members.insert(group, container);
        Ok(())
    }

    pub(super) fn detach(&mut self, container: usize, group: GroupId) -> Answer {
        let answer = self.user.detach(container, group);
        self.heard(answer)?;
        self.members.remove(&group);
        Ok(())
    }

    /// The largest page on offer.
    pub(super) fn largest_page(&mut self, container: usize) -> Answer<PageShift> {
        let answer = self.user.page_sizes(container);
        let sizes = self.heard(answer)?;
        sizes.iter().last().ok_or_else(|| "no page size".to_owned())
    }

    pub(super) fn create(&mut self, container: usize, shape: Shape) -> Answer<Ioba> {
        let answer = self.user.create(container, shape);
        let start = self.heard(answer)?;
        self.windows.push(Window { container, start, shape });
        Ok(start)
    }

    pub(super) fn remove(&mut self, container: usize, start: Ioba) -> Answer {
        let answer = self.user.remove(container, start);
        self.heard(answer)?;
        // It believes to have removed what begins there, if anything does.
        let named = |w: &Window| w.container == container && w.start == start;
        if let Some(at) = self.windows.iter().position(named) {
            let end = Ioba(start.0 + self.windows.swap_remove(at).shape.bytes);
            let inside: Vec<_> =
                self.mapped.range((container, start)..(container, end)).map(|(k, _)| *k).collect();
            for key in inside {
                self.mapped.remove(&key);
                self.gone.insert(key);
            }
        }
        Ok(())
    }

    pub(super) fn register(&mut self, container: usize, first: u64, pages: u64) -> Answer {
        let (at, bytes) = (memory(first), pages * PAGE);
        let answer = self.user.register(container, at, bytes);
        self.heard(answer)?;
        self.regions.insert((container, at, bytes));
        Ok(())
    }

    pub(super) fn unregister(&mut self, container: usize, first: u64, pages: u64) -> Answer {
        let (at, bytes) = (memory(first), pages * PAGE);
        let answer = self.user.unregister(container, at, bytes);
        self.heard(answer)?;
        self.regions.remove(&(container, at, bytes));
        // What is not registered cannot be reached, says the interface.
        let end = Uaddr(at.0 + bytes);
        let there = |(key, to): (&(usize, Ioba), &Uaddr)| {
            (key.0 == container && *to >= at && *to < end).then_some(*key)
        };
        let dead: Vec<_> = self.mapped.iter().filter_map(there).collect();
        for key in dead {
            self.mapped.remove(&key);
            self.gone.insert(key);
        }
        Ok(())
    }

    /// Maps pages where nothing should be.
    pub(super) fn map(&mut self, c: usize, at: Ioba, first: u64, pages: u64) -> Answer {
        let answer = self.user.map(c, at, memory(first), pages * PAGE);
        self.heard(answer)?;
        for n in 0..pages {
            let key = (c, page_at(at, n));
            self.gone.remove(&key);
            if self.mapped.insert(key, memory(first + n)).is_some() {
                self.harm.lost += 1; // somebody else's, without a word
            }
        }
        Ok(())
    }

    /// Maps, although it is known that something is there.
    pub(super) fn replace(&mut self, c: usize, at: Ioba, first: u64, pages: u64) -> Answer {
        let answer = self.user.replace(c, at, memory(first), pages * PAGE);
        self.heard(answer)?;
        self.mapped.extend((0..pages).map(|n| ((c, page_at(at, n)), memory(first + n))));
        Ok(())
    }

    pub(super) fn unmap(&mut self, c: usize, at: Ioba, pages: u64) -> Answer {
        let answer = self.user.unmap(c, at, pages * PAGE);
        self.heard(answer)?;
        for n in 0..pages {
            let key = (c, page_at(at, n));
            self.mapped.remove(&key);
            self.gone.insert(key);
        }
        Ok(())
    }

    /// Asks for the groups' states, and counts those that are told wrongly.
    pub(super) fn states(&mut self, container: usize, groups: &[GroupId]) -> Answer {
        let answer = self.user.states(container, groups);
        let told = self.heard(answer)?;
        for (group, told) in groups.iter().zip(told) {
            let is = self.kernel.group_state(*group).map(|state| (state as i32).into());
            self.harm.misled += u64::from(is != Some(told));
        }
        Ok(())
    }

    /// Resets a group. Its peers are well, and know nothing of it; afterwards all are well again.
    pub(super) fn reset(&mut self, container: usize, group: GroupId) -> Answer {
        let states = |scene: &Self| -> Vec<_> {
            scene.members.keys().map(|member| scene.kernel.group_state(*member)).collect()
        };
        let before = states(self);
        let answer = self.user.reset(container, group);
        // What was refused did nothing.
        self.harm.misled += u64::from(answer.is_err() && states(self) != before);
        for member in self.members.keys() {
            let well = self.kernel.group_state(*member) == Some(GroupState::Normal);
            self.harm.disturbed += u64::from(*member != group && !well);
            self.kernel.set_group_state(*member, GroupState::Normal);
        }
        self.heard(answer)
    }

    /// The kernel gave wrong information, or named a wrong cause.
    pub(super) fn misled_if(&mut self, yes: bool) {
        self.harm.misled += u64::from(yes);
    }

    /// Takes the event log of what happened since.
    pub(super) fn events(&self) -> Vec<Event> {
        self.kernel.take_events()
    }

    /// Pages whose memory was given back while a device could still use it.
    pub(super) fn exposed(&mut self, pages: u64) {
        self.harm.exposed += pages;
    }

    /// What is true of the beliefs now, and after everything has been closed.
    pub(super) fn end(mut self) -> (Harm, Option<String>) {
        let page = self.host_page();
        for (group, container) in &self.members {
            let here = |key: &(usize, Ioba)| key.0 == *container;
            for (key, to) in self.mapped.iter().filter(|(key, _)| here(key)) {
                let there = self.kernel.translate(*group, key.1, Perm::READ_WRITE);
                let found = there.is_ok_and(|r| r.at == *to && r.process == self.process.id());
                self.harm.lost += u64::from(!found);
            }
            for key in self.gone.iter().filter(|key| here(key)) {
                let there = self.kernel.translate(*group, key.1, Perm::NONE);
                let reached = matches!(there, Ok(_) | Err(DmaFault::NotPinned(_)));
                self.harm.exposed += u64::from(reached);
            }
        }
        let believed: BTreeSet<_> =
            self.regions.iter().map(|(_, at, bytes)| (*at, *bytes)).collect();
        let believed: u64 = believed.iter().map(|(_, bytes)| bytes).sum();
        let kept = (self.process.books().regions * page).saturating_sub(believed);
        self.user.close();
        let books = self.process.books();
        let left = books.locked.max(self.kernel.leftovers().pinned_pages) * page;
        self.harm.leaked_bytes += left.max(kept);
        for damage in self.kernel.damage() {
            match damage {
                Damage::Hang { .. } => self.harm.hung += 1,
                Damage::OutOfTable { entries, .. } => self.harm.corrupted += entries,
            }
        }
        if self.harm.hung > 0 {
            // Whatever else is missing is so because nothing works any more.
            self.harm = Harm { hung: self.harm.hung, ..Harm::default() };
        }
        (self.harm, self.refused)
    }

    fn host_page(&self) -> u64 {
        use tce_engine::backend::linux::raw::RawHost;
        self.process.host_page().bytes()
    }
}
