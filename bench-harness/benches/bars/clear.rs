// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clearing tables that are larger than the caches.

use tce_engine::mem::TableChunk;

use crate::Setup;
use crate::common::limit::Limit;
use crate::common::samples::Samples;
use crate::line::{Bar, Line, Unit};

pub(crate) fn clear(setup: &Setup) -> Vec<Line> {
    [64usize, 256].map(|mib| one(setup, mib)).into()
}

fn one(setup: &Setup, mib: usize) -> Line {
    let entries = (mib << 20) / 8;
    let limit = Limit::new(entries);
    let chunk = TableChunk::new(8 * entries).expect("memory for a table");
    let mut samples = Samples::new();
    for rep in 0..Setup::WARM_UP + setup.reps {
        if rep == Setup::WARM_UP {
            samples.restart();
        }
        samples.time("store", entries as u64, || limit.store());
        samples.time("clear", entries as u64, || {
            setup.tier.clear_streaming(chunk.slots());
            setup.tier.drain();
        });
    }
    let (clear, store) = (samples.min("clear"), samples.min("store"));
    let note = format!("ns a TCE: clear {clear:.3}, store {store:.3}");
    Line::new(
        format!("clear of {mib} MiB of table, against the store limit"),
        Bar::AtLeast(1.4),
        Unit::Times,
        store / clear,
    )
    .note(note)
}
