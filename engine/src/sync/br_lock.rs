// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A lock that registered readers take without a locked instruction, and writers hardly ever.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};

use super::bias::Who;
use super::turns::{Ticket, Turns, Visit};
use super::{Arc, AtomicU64, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard, read, write};

/// What a registered reader has seen: no two that differ are of the same structure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version(u64);

impl Version {
    /// Of no structure: there are never so many writers.
    pub(crate) const NEVER: Self = Self(u64::MAX);
}

/// A version by which its reader comes in again; made by [`Inside::seen`] alone.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// If the reader needs no barrier of its own, and [`Version::NEVER`] if it does.
    plain: Version,
    /// The other way round.
    fenced: Version,
}

impl Seen {
    /// Of no structure.
    pub(crate) const NOTHING: Self = Self { plain: Version::NEVER, fenced: Version::NEVER };
}

/// `T` behind a lock for many registered readers, a few others, and a rare writer.
pub(crate) struct BrLock<T> {
    value: UnsafeCell<T>,
    /// Readers that are not registered share it; a writer has it alone.
    others: RwLock<()>,
    turns: Arc<Turns>,
    /// Twice the number of writers so far, and one more while somebody writes.
    version: AtomicU64,
}

// SAFETY: a `&T` is handed to several threads at once, a `&mut T` to one, as by an `RwLock`; which
// asks for the same bounds.
unsafe impl<T: Send + Sync> Sync for BrLock<T> {}

impl<T> BrLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
            others: RwLock::new(()),
            turns: Arc::new(Turns::new()),
            version: AtomicU64::new(0),
        }
    }

    /// The registered readers.
    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// Shared access for whoever is not registered.
    pub(crate) fn read(&self) -> Read<'_, T> {
        let guard = read(&self.others);
        // SAFETY: writers hold `others` alone, so there is none while `guard` lives, and the
        // reference ends with it.
        let value = unsafe { &*self.value.get() };
        Read { value, _guard: guard }
    }

    /// Access for one, after all that are inside have left.
    pub(crate) fn write(&self) -> Write<'_, T> {
        let guard = write(&self.others);
        self.version.fetch_add(1, Ordering::SeqCst);
        self.turns.wait_until_left();
        Write { lock: self, _guard: guard }
    }

    /// Registers a reader, which one thread at a time may use.
    pub(crate) fn reader(self: &Arc<Self>) -> Reader<T> {
        Reader { lock: self.clone(), ticket: self.turns.register() }
    }
}

/// Shared access.
pub(crate) struct Read<'a, T> {
    value: &'a T,
    _guard: RwLockReadGuard<'a, ()>,
}

impl<T> Deref for Read<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

/// Access for one.
pub(crate) struct Write<'a, T> {
    lock: &'a BrLock<T>,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl<T> Deref for Write<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `write` has waited until no reader of either kind was left, and none comes in
        // while the version is odd and `others` is held; the reference ends before this guard does.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Write<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; `&mut self` makes it the only reference from this guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Write<'_, T> {
    fn drop(&mut self) {
        // Release: a reader that finds nobody writing sees all that was written.
        self.lock.version.fetch_add(1, Ordering::Release);
    }
}

/// A registered reader.
pub(crate) struct Reader<T> {
    lock: Arc<BrLock<T>>,
    ticket: Ticket,
}

impl<T> Reader<T> {
    /// Whom locks know the reader by.
    pub(crate) fn who(&self) -> Who {
        self.ticket.who()
    }

    /// Shared access; no locked instruction unless somebody writes. `waiting` if the reader may wait
    /// for other locks meanwhile.
    #[inline]
    pub(crate) fn enter(&mut self, waiting: bool) -> Inside<'_, T> {
        loop {
            let visit = self.ticket.enter(waiting);
            let version = self.lock.version.load(Ordering::Acquire);
            if version & 1 == 0 {
                return Inside {
                    lock: &self.lock,
                    ticket: &mut self.ticket,
                    visit,
                    version: Version(version),
                };
            }
            self.wait(visit);
        }
    }

    /// The same if nobody has written since `seen`, and nobody is at it.
    #[inline(always)]
    pub(crate) fn enter_if(&mut self, seen: &Seen) -> Option<Inside<'_, T>> {
        let mut version = seen.plain;
        let mut visit = self.ticket.enter_plain();
        // One that was seen inside is even, so nobody writes.
        if self.lock.version.load(Ordering::Acquire) != version.0 {
            self.ticket.leave(visit);
            (visit, version) = self.enter_fenced_if(seen)?;
        }
        Some(Inside { lock: &self.lock, ticket: &mut self.ticket, visit, version })
    }

    #[cold]
    #[inline(never)]
    fn enter_fenced_if(&mut self, seen: &Seen) -> Option<(Visit, Version)> {
        let version = seen.fenced;
        if version == Version::NEVER {
            return None;
        }
        let visit = self.ticket.enter(false);
        let same = self.lock.version.load(Ordering::Acquire) == version.0;
        if !same {
            self.ticket.leave(visit);
        }
        same.then_some((visit, version))
    }

    /// Steps back until the writer has ended.
    #[cold]
    fn wait(&mut self, visit: Visit) {
        self.ticket.leave(visit);
        drop(read(&self.lock.others));
    }
}

/// Shared access of a registered reader. Made by [`Reader::enter`] and [`Reader::enter_if`] alone,
/// after they found nobody writing.
pub(crate) struct Inside<'a, T> {
    lock: &'a BrLock<T>,
    ticket: &'a mut Ticket,
    visit: Visit,
    version: Version,
}

impl<T> Inside<'_, T> {
    /// Another after each writer: what was learnt inside holds until it changes.
    #[inline]
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// For this reader to come in again by.
    pub(crate) fn seen(&self) -> Seen {
        let version = self.version;
        if self.ticket.is_plain() {
            Seen { plain: version, ..Seen::NOTHING }
        } else {
            Seen { fenced: version, ..Seen::NOTHING }
        }
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a writer that makes the version odd after `enter` looked finds this ticket inside,
        // since the barrier stands between, and waits until the drop below. One that made it odd
        // before has ended, and its release was read. So no `&mut T` exists while this does.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for Inside<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.ticket.leave(self.visit);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn readers_and_writers_exclude_each_other() {
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        let both = Arc::new(BrLock::new((0u64, 0u64)));
        std::thread::scope(|scope| {
            for waiting in [false, true] {
                let mut reader = both.reader();
                scope.spawn(move || {
                    for _ in 0..10 * rounds {
                        let inside = reader.enter(waiting);
                        assert_eq!(inside.0, inside.1);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..rounds {
                    let other = both.read();
                    assert_eq!(other.0, other.1);
                }
            });
            for _ in 0..rounds {
                let mut alone = both.write();
                alone.0 += 1;
                std::hint::black_box(&alone.0);
                alone.1 += 1;
            }
        });
        assert_eq!(both.read().0, rounds);
        assert!(both.reader().who() == Who::registered(0), "readers that are gone are forgotten");
    }

    #[test]
    fn who_has_seen_the_version_comes_in() {
        let lock = Arc::new(BrLock::new(1));
        let mut reader = lock.reader();
        assert!(reader.enter_if(&Seen::NOTHING).is_none());
        let seen = reader.enter(false).seen();
        assert_eq!(reader.enter_if(&seen).as_deref(), Some(&1));
        *lock.write() = 2;
        assert!(reader.enter_if(&seen).is_none());
        // Nobody is left inside, so there is nobody to wait for.
        *lock.write() = 3;
        let seen = reader.enter(false).seen();
        assert_eq!(reader.enter_if(&seen).as_deref(), Some(&3));
    }

    #[test]
    fn a_version_is_a_writer() {
        let lock = Arc::new(BrLock::new(1));
        let mut reader = lock.reader();
        let inside = reader.enter(false);
        assert_eq!((*inside, inside.version().0), (1, 0));
        drop(inside);
        *lock.write() = 2;
        let inside = reader.enter(false);
        assert_eq!((*inside, inside.version().0), (2, 2));
    }
}
