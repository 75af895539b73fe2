// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is told of several measurements of one thing.

use serde::Serialize;

/// Least and median.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Cost {
    /// Least: interference can only make a measurement longer.
    pub(super) min: f64,
    /// Median.
    pub(super) median: f64,
}

impl Cost {
    /// Of at least one sample.
    pub(super) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { min: samples[0], median: samples[samples.len() / 2] }
    }
}
