// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest's windows must hold, by the recorded answers alone. Shares nothing with the
//! engine: a map of entries per window, and the rules of LoPAR for windows that come and go.

use std::collections::BTreeMap;
use std::ops::Range;

use tce_engine::papr::{Compat, HCode};

use super::script::{Call, Script, Step, phb_of};

/// Permission bits; an entry without any is empty, whatever else it holds.
const CONTROL: u64 = 3;

/// Pages of a block.
const BLOCK: usize = 64;

/// What a window holds: value and line of the last store to a page. A page of line 0, or of a block that is
/// not there, was never stored to and is 0. Calls store to neighbours, so they are looked up together.
#[derive(Debug, Clone, Default)]
struct Content(BTreeMap<u64, Box<[(u64, u64); BLOCK]>>);

impl Content {
    fn get(&self, page: u64) -> Option<(u64, u64)> {
        let (block, nth) = Self::place(page);
        self.0.get(&block).map(|block| block[nth]).filter(|(_, line)| *line != 0)
    }

    /// Stores to so many of the pages as there are values.
    fn store(&mut self, pages: Range<u64>, values: impl Iterator<Item = u64>, line: u64) {
        let (mut page, mut values) = (pages.start, values.peekable());
        while page < pages.end && values.peek().is_some() {
            let (block, nth) = Self::place(page);
            let block = self.0.entry(block).or_insert_with(|| Box::new([(0, 0); BLOCK]));
            let left = usize::try_from(pages.end - page).unwrap_or(BLOCK);
            for (slot, value) in block[nth..].iter_mut().take(left).zip(&mut values) {
                *slot = (value, line);
                page += 1;
            }
        }
    }

    /// Entries that allow something.
    fn live(&self) -> u64 {
        let all = self.0.values().flat_map(|block| block.iter());
        all.filter(|(value, _)| value & CONTROL != 0).count() as u64
    }

    /// The block of a page, and where in it that is.
    fn place(page: u64) -> (u64, usize) {
        (page / BLOCK as u64, (page % BLOCK as u64) as usize)
    }
}

/// One window.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) shift: u32,
    pub(super) entries: u64,
    /// The line that made it.
    pub(super) line: u64,
    /// The one that firmware gave.
    default: bool,
    content: Content,
}

impl Window {
    /// The entry of the page with this number and the line that stored it.
    pub(super) fn entry(&self, page: u64) -> (u64, u64) {
        self.content.get(page).unwrap_or((0, self.line))
    }

    /// The bus address of a page.
    pub(super) fn ioba(&self, page: u64) -> u64 {
        self.start.wrapping_add(page << self.shift)
    }
}

/// All windows of a guest by LIOBN.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) windows: BTreeMap<u32, Window>,
    /// The default window of each PHB, empty.
    defaults: BTreeMap<u32, (u32, Window)>,
    compat: Compat,
}

impl Model {
    /// The windows that firmware gave.
    pub(super) fn new(script: &Script, compat: Compat) -> Self {
        let mut model = Self { compat, ..Self::default() };
        for phb in &script.phbs {
            let window = Window {
                start: phb.ioba,
                shift: phb.window.page.get(),
                entries: phb.window.size >> phb.window.page.get(),
                line: phb.line,
                default: true,
                content: Content::default(),
            };
            model.windows.insert(phb.liobn, window.clone());
            model.defaults.insert(phb.phb(), (phb.liobn, window));
        }
        model
    }

    /// True if a call that went past its window's end has stored what is before the end.
    fn in_part(&self, call: &Call) -> bool {
        let (liobn, ioba, done) = match *call {
            Call::Indirect { liobn, ioba, .. } => (liobn, ioba, true),
            Call::Stuff { liobn, ioba, value, count } => {
                let entries = self.windows.get(&liobn).map_or(0, |window| window.entries);
                let qemu = self.compat == Compat::Qemu;
                (liobn, ioba, if qemu { count <= entries } else { value & CONTROL == 0 })
            }
            _ => return false,
        };
        let page = self.windows.get(&liobn).map_or(1, |window| 1 << window.shift);
        match self.compat {
            Compat::Arch => false,
            Compat::Kvm => done && ioba % page == 0,
            Compat::Qemu => done,
        }
    }

    /// Does what the recorded call did; if it failed, nothing, or what the rules let it do.
    pub(super) fn apply(&mut self, step: &Step, script: &Script) {
        if step.ret != 0 && !(step.ret == HCode::PARAMETER.0 && self.in_part(&step.call)) {
            return;
        }
        let line = step.line;
        match step.call {
            Call::Put { liobn, ioba, tce } => self.store(liobn, ioba, [tce], line),
            Call::Indirect { liobn, ioba, start, end } => {
                self.store(liobn, ioba, script.values(start, end), line);
            }
            Call::Stuff { liobn, ioba, value, count } => {
                // A count that no window has would only be dropped entry by entry.
                let pages = self.windows.get(&liobn).map_or(0, |window| window.entries);
                self.store(liobn, ioba, (0..count.min(pages)).map(|_| value), line);
            }
            Call::Create { page_shift, entries, given: Some((liobn, start)), .. } => {
                let window = Window {
                    start,
                    shift: u32::from(page_shift),
                    entries,
                    line,
                    default: false,
                    content: Content::default(),
                };
                self.windows.insert(liobn, window);
            }
            Call::Remove { liobn } => {
                let Some(gone) = self.windows.remove(&liobn) else { return };
                // "removing the last non-default restores the default"
                if !gone.default && !self.windows.keys().any(|l| phb_of(*l) == phb_of(liobn)) {
                    self.restore(phb_of(liobn), line);
                }
            }
            Call::Reset { phb } => {
                self.windows.retain(|liobn, _| phb_of(*liobn) != phb);
                self.restore(phb, line);
            }
            Call::Get { .. } | Call::Create { .. } | Call::Xlate { .. } | Call::Submit => {}
        }
    }

    fn restore(&mut self, phb: u32, line: u64) {
        if let Some((liobn, window)) = self.defaults.get(&phb) {
            self.windows.insert(*liobn, Window { line, ..window.clone() });
        }
    }

    fn store(&mut self, liobn: u32, ioba: u64, values: impl IntoIterator<Item = u64>, line: u64) {
        let Some(window) = self.windows.get_mut(&liobn) else { return };
        let Some(offset) = ioba.checked_sub(window.start) else { return };
        let first = offset >> window.shift;
        // Ends at the window's end: a call beyond it stores no more, and says itself that it failed.
        window.content.store(first..window.entries, values.into_iter(), line);
    }

    /// Live entries of all windows of a PHB.
    pub(super) fn live(&self, phb: u32) -> u64 {
        let of_phb = self.windows.iter().filter(|(liobn, _)| phb_of(**liobn) == phb);
        of_phb.map(|(_, window)| window.content.live()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Page by page is how it was before there were blocks.
    #[test]
    fn blocks_hold_what_pages_would() {
        let (mut content, mut pages) = (Content::default(), BTreeMap::new());
        let mut seed = 7u64;
        let mut below = |limit: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % limit
        };
        for line in 1..500 {
            let (first, end, count) =
                (below(1100), 1000, [0, 1, 1, 63, 64, 65, 200][below(7) as usize]);
            let values: Vec<_> = (0..count).map(|_| below(6)).collect();
            content.store(first..end, values.iter().copied(), line);
            pages.extend((first..end).zip(values).map(|(page, value)| (page, (value, line))));
            for page in first.saturating_sub(70)..first + 270 {
                assert_eq!(content.get(page), pages.get(&page).copied(), "{page} after {line}");
            }
            let live = pages.values().filter(|(value, _)| value & CONTROL != 0).count();
            assert_eq!(content.live(), live as u64);
        }
        assert!(pages.len() > 900);
    }
}
