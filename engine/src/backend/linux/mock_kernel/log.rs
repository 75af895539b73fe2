// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What went wrong, what happened, how often, and what a test wants to go wrong next.

use super::{ContainerId, ProcessId};
use crate::addr::{GroupId, Ioba, Uaddr};

/// Damage that a request did to the kernel itself. A correct user never causes any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A kill of no pages at the first entry of a window at 0: the CPU loops. Every later request
    /// to the machine gets EIO, as does the one that did it.
    Hang {
        /// Whose request it was.
        container: ContainerId,
    },
    /// Entries behind the end of a table's memory were written: somebody else's memory.
    OutOfTable {
        /// Whose request it was.
        container: ContainerId,
        /// The window.
        slot: usize,
        /// First such entry, counted from the start of the window.
        first: u64,
        /// How many.
        entries: u64,
    },
}

/// What the recorder keeps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are ids, a slot (0 or 1) and addresses
pub enum Event {
    /// A group became a member.
    Attach { container: ContainerId, group: GroupId },
    /// A group left; its windows are unset after this.
    Detach { container: ContainerId, group: GroupId },
    /// A table was made; no group uses it yet.
    Create { container: ContainerId, slot: usize, start: Ioba },
    /// A group's window was programmed.
    Set { group: GroupId, slot: usize },
    /// A group's window was disabled.
    Unset { group: GroupId, slot: usize },
    /// A whole window was cleared; so many of its entries were live. The kill comes after.
    Clear { container: ContainerId, slot: usize, live: u64 },
    /// The pages from `at` were killed for one group.
    Kill { group: GroupId, at: Ioba, pages: u64 },
    /// The pages from `at` were killed for one group, each as its entry changed.
    KillEach { group: GroupId, at: Ioba, pages: u64 },
    /// Everything was killed for one group.
    KillAll { group: GroupId },
    /// A table was freed.
    Free { container: ContainerId, slot: usize },
    /// Memory was pinned.
    Pin { process: ProcessId, start: Uaddr, bytes: u64 },
    /// Memory was unpinned.
    Unpin { process: ProcessId, start: Uaddr, bytes: u64 },
}

/// What was asked for and done since the machine was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests of any kind, refused ones included.
    pub requests: u64,
    /// MAP requests that came as far as their first page.
    pub maps: u64,
    /// Pages that those named.
    pub map_pages: u64,
    /// UNMAP requests that came as far as their first page.
    pub unmaps: u64,
    /// Pages that those named.
    pub unmap_pages: u64,
    /// Kills of a range, or of single pages, one for each member group.
    pub range_kills: u64,
    /// Kills of all that a group has cached.
    pub group_kills: u64,
    /// Table levels below the top that were added on demand, of both trees.
    pub levels: u64,
}

/// Something that shall fail once. What was injected stays until it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// The nth table level (1 is the next) that is added on demand: there is no memory for it.
    Level {
        /// Which one.
        nth: u64,
    },
    /// The firmware refuses this group's window with this code, -1 for instance. The kernel hands
    /// the code on as if it were an error number.
    SetWindow {
        /// The group.
        group: GroupId,
        /// 0 or 1.
        slot: usize,
        /// The firmware's code.
        code: i32,
    },
    /// A registration can pin no more than so many pages.
    Pin {
        /// How many it gets.
        pages: u64,
    },
    /// The nth page (1 is the next) that a v2 MAP wants to count on its region: another thread has
    /// just taken the last count of the region away.
    RegionDying {
        /// Which one.
        nth: u64,
    },
    /// CREATE succeeds, but its result cannot be written back.
    CopyOut,
}

/// What is recorded and what is to fail.
#[derive(Default)]
pub(super) struct Log {
    pub(super) record: bool,
    pub(super) events: Vec<Event>,
    pub(super) damage: Vec<Damage>,
    pub(super) hung: bool,
    pub(super) counters: Counters,
    pub(super) injected: Vec<Injection>,
}

impl Log {
    pub(super) fn event(&mut self, event: Event) {
        if self.record {
            self.events.push(event);
        }
    }

    pub(super) fn damage(&mut self, damage: Damage) {
        self.hung |= matches!(damage, Damage::Hang { .. });
        self.damage.push(damage);
    }

    /// Removes and returns the first injection that `pick` wants.
    pub(super) fn fire<T>(&mut self, pick: impl Fn(&Injection) -> Option<T>) -> Option<T> {
        let (at, found) =
            self.injected.iter().enumerate().find_map(|(i, x)| Some((i, pick(x)?)))?;
        self.injected.remove(at);
        Some(found)
    }

    /// Counts down the injections of one kind; true if one is due.
    pub(super) fn due(&mut self, counter: impl Fn(&mut Injection) -> Option<&mut u64>) -> bool {
        for (i, injection) in self.injected.iter_mut().enumerate() {
            if let Some(nth) = counter(injection) {
                *nth = nth.saturating_sub(1);
                if *nth == 0 {
                    self.injected.remove(i);
                    return true;
                }
            }
        }
        false
    }
}
