// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An allocator that counts.

#![allow(unsafe_code)] // its interface is unsafe

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's, with a count of what was asked for.
pub(crate) struct Counting {
    calls: AtomicU64,
}

impl Counting {
    pub(crate) const fn new() -> Self {
        Self { calls: AtomicU64::new(0) }
    }

    /// Allocations that `work` makes, growing and shrinking included.
    pub(crate) fn during(&self, work: impl FnOnce()) -> u64 {
        let before = self.calls.load(Ordering::Relaxed);
        work();
        self.calls.load(Ordering::Relaxed) - before
    }

    fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: all that is asked for is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: the caller keeps the promises of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        self.count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}
