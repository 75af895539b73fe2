// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The primitives behind everything concurrent: `std`'s, or loom's under `--cfg loom`.
//!
//! What runs concurrently takes its primitives from here, so a loom model exercises the very code
//! that ships. The exceptions are `std::sync::OnceLock` for an arena's chunks and for a segment's
//! write-only bits: both are set under a lock from here, and read only by who got the block, or
//! holds the segment, through something from here.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, RwLock};

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, RwLock};

// Not modelled: it only counts owners, and loom's cannot hold a `dyn` back end.
pub(crate) use std::sync::Arc;

/// The memory of one TCE slot: an atomic doubleword that holds the entry's big-endian bytes.
pub(crate) type Slot = AtomicU64;

/// Takes a lock; a panic of another holder does not make our own books wrong (every invariant is
/// restored before anything that can panic), so poisoning is ignored.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// Shared access to `l`; see [`lock`] for poisoning.
pub(crate) fn read<T>(l: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    l.read().unwrap_or_else(|e| e.into_inner())
}

/// Exclusive access to `l`; see [`lock`] for poisoning.
pub(crate) fn write<T>(l: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    l.write().unwrap_or_else(|e| e.into_inner())
}

#[cfg(loom)]
pub(crate) use loom::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// Called between failed attempts to take a [`SpinLock`].
fn relax(spins: u32) {
    #[cfg(loom)]
    {
        let _ = spins;
        loom::thread::yield_now();
    }
    #[cfg(not(loom))]
    if spins < 64 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// A one-word lock for a stretch of table. It is held for at most one pass over that stretch, and
/// one locked instruction takes it (a `std` mutex needs two for the pair).
#[derive(Debug)]
pub(crate) struct SpinLock(AtomicU32);

impl SpinLock {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(crate) fn acquire(&self) {
        let mut spins = 0;
        while self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            relax(spins);
            spins = spins.saturating_add(1);
        }
    }

    /// Only the holder may call this.
    pub(crate) fn release(&self) {
        debug_assert_eq!(self.0.load(Ordering::Relaxed), 1, "release of a free lock");
        self.0.store(0, Ordering::Release);
    }
}
