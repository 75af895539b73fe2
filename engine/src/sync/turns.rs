// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who is inside what, without locked instructions.
//!
//! A thread that is registered says "inside" by a plain store to a line of its own, and then looks
//! whether it may be. Whoever wants it out says so, and then looks whether it is inside. One of them
//! has to see the other, which takes a full barrier between store and load on both sides. Entering
//! happens some ten million times a second and the other hardly ever, so the other pays for both:
//! `membarrier` makes every running thread of the process execute one. Where the kernel lacks
//! it, each entry has a barrier of its own.

use super::bias::Who;
use super::{Arc, AtomicU64, Mutex, Ordering, fence, lock, relax};
use crate::places;

/// A thread's turn is odd while it is inside.
const INSIDE: u64 = 1;
/// Set while it is inside and may wait for locks: then it relies on none that it has not taken.
const WAITING: u64 = 2;
/// So much is added each time, that one visit is not mistaken for the next.
const NEXT: u64 = 4;

/// On a line that nobody else writes; two lines, because some machines fetch them in pairs.
#[repr(align(128))]
struct Turn(AtomicU64);

/// The registered threads.
pub(crate) struct Turns {
    list: Mutex<Vec<Option<Arc<Turn>>>>,
    /// True if those who want others out can make their barriers.
    heavy: bool,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self { list: Mutex::new(Vec::new()), heavy: membarrier::available() }
    }

    /// Registers a thread.
    pub(crate) fn register(self: &Arc<Self>) -> Ticket {
        let turn = Arc::new(Turn(AtomicU64::new(0)));
        let mut list = lock(&self.list);
        let id = places::put(&mut list, turn.clone());
        Ticket { turns: self.clone(), turn, id: id as u32, heavy: self.heavy }
    }

    /// Returns when every thread that was inside has left. Who enters later sees what was stored
    /// before this call.
    pub(crate) fn wait_until_left(&self) {
        // Not only until the next visit: its first store tells nothing of the visit before. It is short, as
        // it finds that it may not be.
        self.wait_while(|turn| turn & INSIDE != 0, |_, _| true);
    }

    /// The same, but for threads that wait for locks.
    pub(crate) fn wait_until_not_relying(&self) {
        self.wait_while(|turn| turn & (INSIDE | WAITING) == INSIDE, |first, now| first == now);
    }

    fn wait_while(&self, inside: impl Fn(u64) -> bool, waits: impl Fn(u64, u64) -> bool) {
        if self.heavy {
            membarrier::all_threads();
        }
        fence(Ordering::SeqCst);
        // Who registers later does so under this mutex, after what was stored before. It is not held
        // while waiting: those that are waited for may want it.
        let turns: Vec<_> = lock(&self.list).iter().flatten().cloned().collect();
        for turn in turns {
            // Acquire: what the thread did inside comes before what its waiter does.
            let first = turn.0.load(Ordering::Acquire);
            let (mut now, mut spins) = (first, 0);
            while inside(now) && waits(first, now) {
                relax(spins);
                spins = spins.saturating_add(1);
                now = turn.0.load(Ordering::Acquire);
            }
        }
    }
}

/// A registered thread's means to enter.
pub(crate) struct Ticket {
    turns: Arc<Turns>,
    turn: Arc<Turn>,
    id: u32,
    heavy: bool,
}

/// A thread's time inside: what its turn holds after it.
#[derive(Clone, Copy)]
pub(crate) struct Visit(u64);

impl Ticket {
    /// Whom locks know the thread by; another may be it when this one is gone.
    #[inline]
    pub(crate) fn who(&self) -> Who {
        Who::registered(self.id)
    }

    /// Says "inside". What is loaded after it is not older than the saying. With `waiting`, the
    /// thread may wait for locks inside. Returns the visit, to be left.
    #[inline]
    pub(crate) fn enter(&mut self, waiting: bool) -> Visit {
        let inside = if waiting { INSIDE | WAITING } else { INSIDE };
        // Only the ticket's holder stores to it.
        let outside = self.turn.0.load(Ordering::Relaxed);
        self.turn.0.store(outside + inside, Ordering::Relaxed);
        if self.heavy {
            // The barrier itself is the other's; the compiler must not move loads up.
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
        } else {
            full_barrier();
        }
        Visit(outside.wrapping_add(NEXT))
    }

    /// True if the others make the thread's barriers.
    pub(crate) fn is_plain(&self) -> bool {
        self.heavy
    }

    /// [`Ticket::enter`] without waiting, for a thread whose barriers the others make. Any other is
    /// not inside by it, and has nothing but to leave.
    #[inline(always)]
    pub(crate) fn enter_plain(&mut self) -> Visit {
        let outside = self.turn.0.load(Ordering::Relaxed);
        self.turn.0.store(outside + INSIDE, Ordering::Relaxed);
        // The compiler must not move loads up.
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        Visit(outside.wrapping_add(NEXT))
    }

    /// Says "outside". Release: who sees it sees all that was done inside.
    #[inline]
    pub(crate) fn leave(&mut self, visit: Visit) {
        self.turn.0.store(visit.0, Ordering::Release);
    }
}

/// Apart, so that who needs none jumps over none.
#[cold]
fn full_barrier() {
    fence(Ordering::SeqCst);
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.turns.list)[self.id as usize] = None;
    }
}

/// A barrier in every running thread of the process.
#[cfg(all(target_os = "linux", not(any(loom, miri))))]
mod membarrier {
    use rustix::thread::{MembarrierCommand, membarrier};
    use std::sync::OnceLock;

    /// True if the kernel has it and this process may use it from now on.
    pub(super) fn available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        let register = || membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
        *AVAILABLE.get_or_init(register)
    }

    pub(super) fn all_threads() {
        membarrier(MembarrierCommand::PrivateExpedited).expect("the process is registered for it");
    }
}

#[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
mod membarrier {
    pub(super) fn available() -> bool {
        false
    }

    pub(super) fn all_threads() {}
}
