// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The bar on stderr, and the question whether to go on.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::interrupt::interrupted;

/// Work between two looks at the bar and the signal flag.
pub(super) const BATCH: usize = 4096;

/// Ends a pass early.
pub(super) type Flow = ControlFlow<()>;

/// A bar over calls and entries, or none.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar of `total` units, drawn only on a terminal and unless `quiet`.
    pub(super) fn new(total: u64, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} % {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// No bar.
    pub(super) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Names what runs now.
    pub(super) fn name(&self, text: String) {
        self.0.set_message(text);
    }

    /// Counts work done; breaks once a signal came.
    pub(super) fn done(&self, units: usize) -> Flow {
        self.0.inc(units as u64);
        go_on()
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Breaks once a signal came.
pub(super) fn go_on() -> Flow {
    if interrupted() { Flow::Break(()) } else { Flow::Continue(()) }
}
