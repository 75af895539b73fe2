// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Accesses in flight, and who waits for them.
//!
//! Each takes a word of its own, makes it odd, and makes it even again when the device has done with
//! the memory. Who waits looks at each word once and waits while an odd one stays as it was: accesses
//! that begin later are none of its concern.

use crate::sync::{AtomicU64, Ordering, fence, relax};

/// Accesses at a time; more wait for a place. Few enough to be looked at by each fence.
const PLACES: usize = 32;

#[derive(Default)]
#[repr(align(128))]
struct Place(AtomicU64);

pub(super) struct Flights(Box<[Place]>);

/// An access that goes on until this is dropped.
pub(super) struct Flight<'a> {
    place: &'a Place,
    odd: u64,
}

impl Flights {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| Place::default()).collect())
    }

    /// Begins an access; `hint` says where to look for a place first.
    pub(super) fn begin(&self, hint: usize) -> Flight<'_> {
        for nth in hint.. {
            let place = &self.0[nth % PLACES];
            let even = place.0.load(Ordering::Relaxed);
            let odd = even + 1;
            if even & 1 == 0
                && place.0.compare_exchange(even, odd, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                // Against the one in `wait`: either that sees the access, or this sees what was
                // killed before.
                fence(Ordering::SeqCst);
                return Flight { place, odd };
            }
            if nth - hint >= PLACES {
                relax((nth - hint) as u32);
            }
        }
        unreachable!("the places are tried again and again")
    }

    /// Returns when all accesses that were in flight have ended.
    pub(super) fn wait(&self) {
        fence(Ordering::SeqCst);
        let seen: [u64; PLACES] = std::array::from_fn(|nth| self.0[nth].0.load(Ordering::Acquire));
        for (place, seen) in self.0.iter().zip(seen) {
            let mut spins = 0;
            while seen & 1 == 1 && place.0.load(Ordering::Acquire) == seen {
                relax(spins);
                spins += 1;
            }
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        // Release: who has waited comes after all that the device did.
        self.place.0.store(self.odd + 1, Ordering::Release);
    }
}
