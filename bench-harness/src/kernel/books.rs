// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compares, step by step, what the process shows as locked with what the engine has charged.

use std::sync::Arc;

use tce_engine::backend::linux::raw::RawHost;
use tce_engine::ledger::Ledger;

use crate::result::BooksResult;
use crate::size::format_size;

/// The kernel's books of this process beside the engine's.
#[derive(Debug)]
pub(crate) struct Books {
    host: Arc<dyn RawHost>,
    start: u64,
    /// What the comparisons gave.
    pub(crate) result: BooksResult,
}

impl Books {
    /// Books that begin with what is locked now: nothing is the engine's yet.
    pub(crate) fn open(host: Arc<dyn RawHost>) -> Self {
        let start = host.locked_bytes();
        Self { host, start, result: BooksResult { comparisons: 0, first_difference: None } }
    }

    /// Compares after a step. The first difference is kept.
    pub(crate) fn compare(&mut self, ledger: &Ledger, step: &str) {
        self.result.comparisons += 1;
        let locked = self.host.locked_bytes();
        let charged = ledger.pages() << ledger.page().get();
        if locked.checked_sub(self.start) == Some(charged) {
            return;
        }
        self.result.first_difference.get_or_insert_with(|| {
            format!(
                "after {step}: the process has {locked} bytes locked (VmLck), {} at the start, and \
                 the engine has charged {charged} ({})",
                self.start,
                format_size(charged)
            )
        });
    }
}
