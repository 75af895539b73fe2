// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The primitives behind everything concurrent: `std`'s, or loom's under `--cfg loom`.
//!
//! What runs concurrently takes its primitives from here, so a loom model exercises the very code
//! that ships. The exceptions are `std::sync::OnceLock` for an arena's chunks, for a segment's
//! write-only bits and marks of debt, and for the tables by which registrations are found. The first three are set under a
//! lock from here, and read only by who got the block, or holds the segment, through something from
//! here; the tables follow from what is registered alone, so it is all the same who makes them.

mod bias;
mod br_lock;
mod turns;

pub(crate) use bias::{BiasLock, Who};
pub(crate) use br_lock::{BrLock, Inside, Reader, Seen, Version, Write};
pub(crate) use turns::Turns;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, RwLock};

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
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

/// Called between failed attempts to get something.
pub(crate) fn relax(spins: u32) {
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
