// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables that are larger than the caches: clearing them, and where several cores begin to pay.

use tce_bench::loops;
use tce_engine::Mode;
use tce_engine::mem::TableChunk;

use crate::Setup;
use crate::common::limit::{Limit, reference};
use crate::common::rig::{PAGE, Rig, USUAL};
use crate::common::samples::Samples;
use crate::line::{Bar, Line, Unit};

const MIB: usize = 1 << 20;

pub(crate) fn clear(setup: &Setup) -> Vec<Line> {
    let mut lines: Vec<_> = [64, 256].map(|mib| one(setup, mib)).into();
    lines.push(unmap(setup, 64));
    lines
}

/// The loop alone.
fn one(setup: &Setup, mib: usize) -> Line {
    let entries = mib * MIB / 8;
    let limit = Limit::new(entries);
    let chunk = TableChunk::new(8 * entries).expect("memory for a table");
    let samples = setup.repeat(|samples, _| {
        samples.time("store", entries as u64, || limit.store());
        samples.time("clear", entries as u64, || {
            loops::clear_streaming(setup.tier, chunk.slots());
        });
    });
    let what = format!("clear of {mib} MiB of table, against the store limit");
    faster(&samples, what, Bar::AtLeast(1.4), "clear")
}

/// An unmap of everything, which looks at what it clears, and may use all cores.
fn unmap(setup: &Setup, mib: usize) -> Line {
    let entries = (mib * MIB / 8) as u64;
    let limit = Limit::new(entries as usize);
    let mut rig = Rig::new(entries * PAGE, USUAL, setup.tier);
    let samples = setup.repeat(|samples, _| {
        samples.time("store", entries, || limit.store());
        rig.map(0, entries, 0, Mode::Refuse);
        samples.time("unmap", entries, || rig.unmap(0, entries));
    });
    let cores = rayon::current_num_threads();
    let what = format!("unmap of {mib} MiB of table on {cores} cores, against the store limit");
    faster(&samples, what, Bar::None, "unmap")
}

fn faster(samples: &Samples, what: String, bar: Bar, op: &str) -> Line {
    let (ns, store) = (samples.min(op), samples.min("store"));
    Line::new(what, bar, Unit::Times, store / ns)
        .note(format!("ns a TCE: {op} {ns:.3}, store {store:.3}"))
}

/// The store loop on one core and on all of them, over memory that one core touched last, as the
/// table of a map is.
pub(crate) fn cores(setup: &Setup) -> Vec<Line> {
    let line = |mib: usize| {
        let entries = mib * MIB / 8;
        let chunk = TableChunk::new(8 * entries).expect("memory for a table");
        let part = entries / rayon::current_num_threads();
        let samples = setup.repeat(|samples, _| {
            samples.time("one core", entries as u64, || loops::store(reference(), chunk.slots()));
            samples.time("all cores", entries as u64, || {
                rayon::scope(|scope| {
                    for part in chunk.slots().chunks(part.max(1)) {
                        scope.spawn(move |_| loops::store(reference(), part));
                    }
                });
            });
        });
        let (one, all) = (samples.min("one core"), samples.min("all cores"));
        let what = format!("store of {mib} MiB on {} cores", rayon::current_num_threads());
        Line::new(what, Bar::None, Unit::Times, one / all)
            .note(format!("times one core; ns a TCE: {one:.3}, {all:.3}"))
    };
    [2, 4, 8, 16, 64].map(line).into()
}
