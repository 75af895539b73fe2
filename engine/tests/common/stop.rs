// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What ends the threads of a test.

use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the threads of a test, also if it fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
