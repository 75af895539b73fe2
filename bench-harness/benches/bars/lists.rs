// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lists of 512 scattered pages.

use tce_engine::mem::TableChunk;

use crate::Setup;
use crate::bulk::share;
use crate::common::limit::Limit;
use crate::common::peers::PAGES;
use crate::common::rig::{Guest, LIST, PAGE, Random, lists};
use crate::line::{Bar, Line, Unit};

/// The loop that validates, swaps and stores.
pub(crate) fn kernel(setup: &Setup) -> Vec<Line> {
    let limit = Limit::new(PAGES as usize);
    let chunk = TableChunk::new(8 * PAGES as usize).expect("memory for a table");
    let values: Vec<_> = lists(PAGES).iter().map(|list| list.map(u64::from_be)).collect();
    let samples = setup.repeat(|samples, _| {
        samples.time("copy", PAGES, || limit.copy());
        samples.time("list", PAGES, || {
            for (slots, list) in chunk.slots().chunks(LIST).zip(values.iter().cycle()) {
                assert_eq!(setup.tier.list(slots, list).live, LIST as u64);
            }
        });
    });
    vec![share(&samples, "list of 512 pages, the loop alone", Bar::AtLeast(75.0), "list", "copy")]
}

/// The hypercall, at places in random order, where entries are live before.
pub(crate) fn papr(setup: &Setup) -> Vec<Line> {
    const CALLS: usize = (Guest::WINDOW / PAGE) as usize / LIST;
    let mut guest = Guest::new(setup.tier);
    let limit = Limit::new(CALLS * LIST);
    let lists = lists(Guest::RAM / PAGE);
    let mut places: Vec<_> = (0..CALLS * LIST).step_by(LIST).collect();
    let mut random = Random::new(2);
    for last in (1..places.len()).rev() {
        places.swap(last, random.below(last as u64 + 1) as usize);
    }
    let units = (CALLS * LIST) as u64;
    let samples = setup.repeat(|samples, _| {
        samples.time("copy", units, || {
            for (place, list) in places.iter().zip(lists.iter().cycle()) {
                limit.copy_list(*place, list);
            }
        });
        samples.time("H_PUT_TCE_INDIRECT", units, || {
            for (place, list) in places.iter().zip(lists.iter().cycle()) {
                guest.put_list(*place as u64, list);
            }
        });
    });
    let (call, copy) = (samples.min("H_PUT_TCE_INDIRECT"), samples.min("copy"));
    let what = "H_PUT_TCE_INDIRECT of 512, against a copy of the list";
    let note = format!(
        "ns a call: {:.1}, the copy {:.1}; all {LIST} entries were live",
        call * LIST as f64,
        copy * LIST as f64
    );
    vec![Line::new(what, Bar::AtMost(3.5), Unit::Times, call / copy).note(note)]
}
