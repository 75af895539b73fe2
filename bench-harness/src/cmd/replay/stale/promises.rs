// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the engine promises about each page of a guest's windows, by policy, told to the judge of what
//! devices find.
//!
//! A page that nobody changes leads where it led, or nowhere. While a call is made that changes it, nobody
//! can say. After that, under
//!
//! * strict, it is as the call left it;
//! * deferred, so it is if it is mapped; if it is not, devices may find the page that was there before,
//!   and no other, until the handle that unmapped it has settled what it owed;
//! * batched, nobody can say until each handle that changed it has ended its batch.
//!
//! Whatever is said, memory that is found has to be the guest's.

use std::sync::Arc;

use tce_engine::addr::Uaddr;
use tce_engine::backend::mock::agents::{Expectations, Stretch, Watched};
use tce_engine::tce::Perm;

use crate::policy::Policy;

/// Permission bits of an entry; one without any leads nowhere.
const CONTROL: u64 = 3;

/// Where a window is, or will be, and what is known of its pages. One that is not there is empty.
struct Seat {
    stretch: Stretch,
    shift: u32,
    /// The entries.
    value: Box<[u64]>,
    /// By page, the last entry that was cleared and may still be found; 0: none.
    late: Box<[u64]>,
    /// By page, the changes that handles have not settled.
    open: Box<[u32]>,
}

/// See the [module](self). Of one guest.
pub(super) struct Promises {
    expect: Arc<Expectations>,
    policy: Policy,
    seats: Vec<Seat>,
    /// By handle, seats and pages of changes that it has not settled, in order.
    unsettled: Vec<Vec<(u32, u32)>>,
    /// By handle, the pages that it owed when it was last asked.
    owed: Vec<u64>,
    /// Pages that changed.
    pub(super) pages: u64,
}

/// Pages of one seat that a call changes.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) seat: usize,
    pub(super) first: u64,
}

impl Promises {
    /// Of windows that are all empty. `seats` says where they are watched.
    pub(super) fn new(
        expect: Arc<Expectations>,
        policy: Policy,
        handles: usize,
        seats: impl Iterator<Item = (Stretch, Watched)>,
    ) -> Self {
        let seat = |(stretch, watched): (Stretch, Watched)| {
            let pages = watched.pages as usize;
            Seat {
                stretch,
                shift: watched.page.get(),
                value: vec![0; pages].into(),
                late: vec![0; pages].into(),
                open: vec![0; pages].into(),
            }
        };
        Self {
            expect,
            policy,
            seats: seats.map(seat).collect(),
            unsettled: vec![Vec::new(); handles],
            owed: vec![0; handles],
            pages: 0,
        }
    }

    /// The call that comes stores these entries.
    pub(super) fn begin(&self, at: Run, entries: &[u64], why: &'static str) {
        let seat = &self.seats[at.seat];
        for (page, entry) in (at.first..).zip(entries) {
            // Said before, if there is more to be settled.
            if seat.changes(page, *entry) && (self.is_said(seat, page)) {
                self.expect.changing(seat.stretch, page, why);
            }
        }
    }

    fn is_said(&self, seat: &Seat, page: u64) -> bool {
        !matches!(self.policy, Policy::Batched(_)) || seat.open[page as usize] == 0
    }

    /// The call has returned. The handle that made it owes so many pages now.
    pub(super) fn end(&mut self, handle: usize, at: Run, entries: &[u64], owed: u64) {
        let seat = &mut self.seats[at.seat];
        let before = self.unsettled[handle].len();
        for (page, entry) in (at.first..).zip(entries) {
            let nth = page as usize;
            let changes = seat.changes(page, *entry);
            let was = std::mem::replace(&mut seat.value[nth], *entry);
            if !changes {
                continue;
            }
            self.pages += 1;
            let owes = match self.policy {
                Policy::Strict => false,
                Policy::Batched(_) => true,
                Policy::Deferred { .. } => is_empty(*entry),
            };
            if owes {
                seat.open[nth] += 1;
                self.unsettled[handle].push((at.seat as u32, page as u32));
            }
            match self.policy {
                Policy::Batched(_) => {}
                Policy::Deferred { .. } if owes => {
                    seat.late[nth] = was;
                    let (memory, perm) = seat.target(was);
                    self.expect.owed(seat.stretch, page, memory, perm);
                }
                _ => {
                    seat.late[nth] = 0;
                    seat.say(&self.expect, page);
                }
            }
        }
        self.looked(handle, before, owed);
    }

    /// The handle has made a call that changed nothing, or others have.
    pub(super) fn look(&mut self, handle: usize, owed: u64) {
        self.looked(handle, self.unsettled[handle].len(), owed);
    }

    /// Handles settle all that they owe or nothing, and then owe what the call itself has changed.
    fn looked(&mut self, handle: usize, before: usize, owed: u64) {
        let had = std::mem::replace(&mut self.owed[handle], owed);
        if matches!(self.policy, Policy::Deferred { .. }) {
            if owed == 0 {
                self.settle(handle, self.unsettled[handle].len());
            } else if owed < had {
                self.settle(handle, before);
            }
        }
    }

    /// The handle has settled everything.
    pub(super) fn submitted(&mut self, handle: usize) {
        self.owed[handle] = 0;
        self.settle(handle, self.unsettled[handle].len());
    }

    /// The handle's first so many changes are settled.
    fn settle(&mut self, handle: usize, count: usize) {
        let batched = matches!(self.policy, Policy::Batched(_));
        for (seat, page) in self.unsettled[handle].drain(..count) {
            let seat = &mut self.seats[seat as usize];
            let nth = page as usize;
            seat.open[nth] -= 1;
            // Mapped again, a page has been settled before.
            if seat.open[nth] == 0 && (batched || seat.late[nth] != 0) {
                seat.late[nth] = 0;
                seat.say(&self.expect, page.into());
            }
        }
    }

    /// The call that comes takes the window away, or empties it.
    pub(super) fn begin_removal(&self, seat: usize) {
        let seat = &self.seats[seat];
        for page in seat.used().filter(|page| self.is_said(seat, *page)) {
            self.expect.changing(seat.stretch, page, "the window goes");
        }
    }

    /// It has returned: whatever the policy, nothing is owed for the window any more.
    pub(super) fn end_removal(&mut self, nth: usize) {
        let seat = &mut self.seats[nth];
        let used: Vec<_> = seat.used().collect();
        for page in used {
            let at = page as usize;
            (seat.value[at], seat.late[at], seat.open[at]) = (0, 0, 0);
            seat.say(&self.expect, page);
        }
        seat.value.fill(0);
        self.unsettled.iter_mut().for_each(|all| all.retain(|(of, _)| *of as usize != nth));
    }
}

const fn is_empty(entry: u64) -> bool {
    entry & CONTROL == 0
}

impl Seat {
    /// True if a device could tell that the entry is stored.
    fn changes(&self, page: u64, entry: u64) -> bool {
        !is_empty(self.value[page as usize]) || !is_empty(entry)
    }

    /// Pages that are mapped, or of which something else is said than that they are empty.
    fn used(&self) -> impl Iterator<Item = u64> {
        (0..self.value.len() as u64).filter(|page| {
            let nth = *page as usize;
            !is_empty(self.value[nth]) || self.late[nth] != 0 || self.open[nth] != 0
        })
    }

    /// Where an entry leads.
    fn target(&self, entry: u64) -> (Uaddr, Perm) {
        let perm = match entry & CONTROL {
            0 => Perm::NONE,
            1 => Perm::READ,
            2 => Perm::WRITE,
            _ => Perm::READ_WRITE,
        };
        (Uaddr(entry >> self.shift << self.shift), perm)
    }

    /// Says that the page is as its entry is.
    fn say(&self, expect: &Expectations, page: u64) {
        let entry = self.value[page as usize];
        if is_empty(entry) {
            expect.released(self.stretch, page);
        } else {
            let (memory, perm) = self.target(entry);
            expect.mapped(self.stretch, page, memory, perm);
        }
    }
}
