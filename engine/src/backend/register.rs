// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A kill register that is used without a call.

use crate::addr::Ioba;
use crate::sync::{Arc, AtomicU64, Ordering};

/// A doubleword on a line of its own; two lines, because some machines fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Word(AtomicU64);

impl Word {
    /// The value; what its writer did before is seen.
    #[must_use]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Release, as the barrier before a store to a device: table writes first.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Adds where nobody else writes.
    #[inline(always)]
    pub fn bump(&self, by: u64) {
        self.store(self.0.load(Ordering::Relaxed) + by);
    }
}

/// One thread's way to kill a page of one PE by a store, where that is complete when it is made: as
/// on a PHB that keeps no translation.
#[derive(Clone, Debug)]
pub struct PageRegister {
    /// Where the kill is stored.
    pub register: Arc<Word>,
    /// What is stored is this and the page's bus address in one word.
    pub kill: u64,
    /// Pages that were killed and waited for in this way. Only the thread adds to it.
    pub kills: Arc<Word>,
}

impl PageRegister {
    /// Kills the page that begins at `start` and waits; returns the number of stores.
    #[inline(always)]
    pub(crate) fn kill_page_and_wait(&self, start: Ioba) -> u64 {
        self.register.store(self.kill | start.0);
        self.kills.bump(1);
        1
    }
}
