// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the windows of a trace are, and how much of everything it takes to watch them.

use tce_engine::addr::{Ioba, PageShift};
use tce_engine::backend::mock::agents::{Stretch, Watched};

use super::super::script::{Call, Script, phb_of};
use crate::trace::TraceError;

/// Most pages of all windows of one thread.
const MOST_PAGES: u64 = 1 << 24;
/// Memory that is watched ends here.
const MOST_RAM: u64 = 1 << 44;

/// See the [module](self).
pub(super) struct Plan {
    /// Each window that there ever is, the bus by its PHB's place in the trace.
    pub(super) seats: Vec<(Stretch, Watched)>,
    /// Bytes of one thread's memory: its entries' targets stay aligned.
    pub(super) ram: u64,
}

impl Plan {
    /// # Errors
    /// If windows cannot be told apart by their place, are too large, or the memory is.
    pub(super) fn new(script: &Script, threads: u32) -> Result<Self, TraceError> {
        let mut plan = Self { seats: Vec::new(), ram: 0 };
        for (bus, phb) in script.phbs.iter().enumerate() {
            let (page, pages) = (phb.window.page, phb.window.size >> phb.window.page.get());
            plan.add(script, phb.line, bus, Watched { start: Ioba(phb.ioba), page, pages })?;
        }
        for step in &script.steps {
            let Call::Create { page_shift, entries, given: Some((liobn, start)), .. } = step.call
            else {
                continue;
            };
            let bus = script.phbs.iter().position(|phb| phb.phb() == phb_of(liobn));
            if let (Some(bus), Some(page)) = (bus, PageShift::new(page_shift.into())) {
                let watched = Watched { start: Ioba(start), page, pages: entries };
                plan.add(script, step.line, bus, watched)?;
            }
        }
        let page = PageShift::K64
            .bytes()
            .max(plan.seats.iter().map(|s| s.1.page.bytes()).max().unwrap_or(0));
        let needed = script.ram(None, PageShift::K64)?;
        plan.ram = needed.checked_next_multiple_of(page).unwrap_or(MOST_RAM);
        if plan.ram.saturating_mul(threads.into()) >= MOST_RAM {
            let text = format!(
                "targets up to {needed:#x} for each of {threads} threads; accepted: {MOST_RAM:#x} bytes \
                 of memory for all of them"
            );
            return Err(TraceError { file: script.file.clone(), line: 0, text });
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        script: &Script,
        line: u64,
        bus: usize,
        new: Watched,
    ) -> Result<(), TraceError> {
        if self.seat(bus, new).is_some() {
            return Ok(());
        }
        let fail = |text| Err(TraceError { file: script.file.clone(), line, text });
        let end = |w: &Watched| w.start.0.saturating_add(w.pages << w.page.get());
        let mut here = self.seats.iter().filter(|(stretch, _)| stretch.bus == bus);
        if here.any(|(_, w)| w.start.0 < end(&new) && new.start.0 < end(w)) {
            return fail(format!(
                "a window at {} where the PHB has had another of other pages or another size; accepted: \
                 always the same, as what devices must find there is known page by page",
                new.start
            ));
        }
        let pages: u64 = self.seats.iter().map(|(_, w)| w.pages).sum();
        if pages + new.pages > MOST_PAGES {
            return fail(format!(
                "{} pages in all windows up to here; accepted: {MOST_PAGES}, as each is watched",
                pages + new.pages
            ));
        }
        let nth = self.seats_on(bus).count();
        self.seats.push((Stretch { bus, nth }, new));
        Ok(())
    }

    fn seats_on(&self, bus: usize) -> impl Iterator<Item = &(Stretch, Watched)> {
        self.seats.iter().filter(move |(stretch, _)| stretch.bus == bus)
    }

    /// The windows of a bus, in order.
    pub(super) fn watched(&self, bus: usize) -> Vec<Watched> {
        self.seats_on(bus).map(|(_, watched)| *watched).collect()
    }

    /// Where this window is.
    pub(super) fn seat(&self, bus: usize, window: Watched) -> Option<usize> {
        self.seats.iter().position(|(stretch, w)| stretch.bus == bus && *w == window)
    }
}
