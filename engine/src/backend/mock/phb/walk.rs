// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The walker, from a bus address to real memory.
//!
//! It is written from the architecture's description alone: it knows TVE and TCE bits and real memory,
//! and nothing of the engine's tables. Keep it so.

use std::ops::Range;

use super::super::real::RealMemory;
use super::{Access, Fault, OwnedTranslation, Pe, Phb, Translation};
use crate::addr::{Hpa, Ioba, PageShift, PeNumber};
use crate::sync::Ordering;
use crate::tce::Perm;

/// Bus address bit 59 selects the window.
const WINDOW_BIT: u32 = 59;

/// Leaf entries that are looked at together.
const LINE: usize = 64;
/// The same of interior ones: no block has less.
const SMALLEST_BLOCK: usize = 512;
/// Lines of a table's leaves that are looked at to know how many entries are live.
const LINES: u64 = 32;
/// Leaf blocks that are looked for at most.
const BLOCKS: usize = 4096;

/// A bus address as the TVT sees it.
#[derive(Clone, Copy)]
pub(in super::super) struct Place {
    /// Which of the PE's windows.
    pub(in super::super) slot: usize,
    /// Where that begins.
    pub(in super::super) base: u64,
    /// Offset in it.
    pub(in super::super) offset: u64,
}

/// A TVE that is not disabled.
#[derive(Clone, Copy)]
pub(in super::super) struct Tve {
    table: u64,
    levels: u32,
    /// Bits that one level decodes: its size in bytes, eight to an entry.
    level_bits: u32,
    /// log2 of the page.
    pub(in super::super) page_bits: u32,
}

/// What entries say, one after the other.
type Said = Vec<Result<Translation, Fault>>;

/// Where a leaf entry is: the `nth` of a block, for an offset in a window.
struct Found {
    tve: Tve,
    offset: u64,
    block: Hpa,
    nth: u64,
}

impl Tve {
    fn new(tve: u64) -> Option<Self> {
        let size_code = tve >> 8 & 0x1f;
        let page_code = tve & 0x1f;
        (size_code != 0 && page_code != 0).then(|| Self {
            table: tve >> 16 << 12,
            levels: (tve >> 13 & 7) as u32 + 1,
            level_bits: size_code as u32 + 11 - 3,
            page_bits: page_code as u32 + 11,
        })
    }

    /// The block of leaf entries that serves an offset, and the number of the entry in it.
    pub(in super::super) fn leaf_block(
        &self,
        real: &RealMemory,
        offset: u64,
    ) -> Result<(Hpa, u64), Fault> {
        let Self { mut table, levels, level_bits, page_bits } = *self;
        if offset >> (level_bits * levels + page_bits) != 0 {
            return Err(Fault::Extent { offset });
        }
        let number = offset >> page_bits;
        let nth = |level: u32| number >> (level * level_bits) & ((1 << level_bits) - 1);
        for level in (1..levels).rev() {
            let address = Hpa(table + 8 * nth(level));
            let entry = real.load_be(address).map_err(|_| Fault::NoMemory(address))?;
            if entry & 3 == 0 {
                return Err(Fault::NoLevel { level: level - 1 });
            }
            table = entry & !0xfff;
        }
        Ok((Hpa(table), nth(0)))
    }

    pub(in super::super) fn levels(&self) -> u32 {
        self.levels
    }

    /// How many leaf entries are live. Exact up to [`LINES`] lines of leaves; beyond that an estimate
    /// from so many, evenly spread, of which `nth` picks the first.
    pub(in super::super) fn live(&self, real: &RealMemory, nth: u64) -> u64 {
        let mut blocks = vec![self.table];
        for _ in 1..self.levels {
            blocks =
                blocks.iter().flat_map(|block| self.below(real, *block)).take(BLOCKS).collect();
        }
        let lines = (1 << self.level_bits) / LINE as u64;
        let all = blocks.len() as u64 * lines;
        let step = all.div_ceil(LINES).max(1);
        let looked = (nth % step..all).step_by(step as usize);
        let at =
            |line: u64| Hpa(blocks[(line / lines) as usize] + 8 * LINE as u64 * (line % lines));
        let live: u64 = looked.clone().map(|line| real.live(at(line), LINE)).sum();
        live * all / (looked.count() as u64).max(1)
    }

    /// The blocks that the entries of an interior one lead to.
    fn below(&self, real: &RealMemory, block: u64) -> impl Iterator<Item = u64> {
        let starts = (block..block + (8 << self.level_bits)).step_by(8 * SMALLEST_BLOCK).map(Hpa);
        // Most of a large one leads nowhere.
        let some = starts.filter(|at| real.live(*at, SMALLEST_BLOCK) > 0);
        let entries = some.flat_map(|at| real.load_line(at, SMALLEST_BLOCK).unwrap_or_default());
        entries.filter(|entry| entry & 3 != 0).map(|entry| entry & !0xfff)
    }
}

impl Phb {
    /// The PE, unless the host's own bypass or window is there.
    pub(in super::super) fn handed_over(&self, pe: PeNumber) -> Result<&Pe, Fault> {
        let state = self.pes.get(usize::from(pe.0)).ok_or(Fault::NoPe(pe))?;
        if self.bypass(pe) || self.default_window(pe) {
            return Err(Fault::NotOwned(pe));
        }
        Ok(state)
    }

    pub(in super::super) fn translate(
        &self,
        real: &RealMemory,
        pe: PeNumber,
        segment: Option<&Range<u64>>,
        at: Ioba,
        access: Access,
    ) -> Result<Translation, Fault> {
        let Found { tve, offset, block, nth } = self.find(real, pe, segment, at)?;
        let address = Hpa(block.0 + 8 * nth);
        let entry = real.load_be(address).map_err(|_| Fault::NoMemory(address))?;
        leaf(real, entry, offset, tve.page_bits, access)
    }

    /// Where the leaf entry of an address is.
    fn find(
        &self,
        real: &RealMemory,
        pe: PeNumber,
        segment: Option<&Range<u64>>,
        at: Ioba,
    ) -> Result<Found, Fault> {
        let state = self.handed_over(pe)?;
        let Place { slot, offset, .. } = Place::of(segment, at)?;
        let tve = state.tve(slot)?;
        let (block, nth) = tve.leaf_block(real, offset)?;
        Ok(Found { tve, offset, block, nth })
    }

    /// What is found at each of `count` pages from `start` on, in order, until `heard` says false: what
    /// [`Phb::translate`] finds there, but the levels above are read once for a line of leaves.
    pub(in super::super) fn translate_pages(
        &self,
        real: &RealMemory,
        pe: PeNumber,
        segment: Option<&Range<u64>>,
        (start, page, count): (Ioba, PageShift, u64),
        heard: &mut dyn FnMut(u64, Result<OwnedTranslation, Fault>) -> bool,
    ) {
        let owned = |to: Translation| {
            real.owner(to.at).map(|owner| (to, owner)).ok_or(Fault::NoMemory(to.at))
        };
        let mut nth = 0;
        while nth < count {
            let at = Ioba(start.0 + (nth << page.get()));
            let found = self.find(real, pe, segment, at);
            let line = found.and_then(|found| found.line(real, page, count - nth));
            for to in line.unwrap_or_else(|fault| vec![Err(fault)]) {
                if !heard(nth, to.and_then(owned)) {
                    return;
                }
                nth += 1;
            }
        }
    }
}

impl Found {
    /// What the entry says and those behind it, to the end of their line, at most so many; it alone if pages
    /// of the window have another size. No window ends behind its segment, so no line does.
    fn line(&self, real: &RealMemory, page: PageShift, most: u64) -> Result<Said, Fault> {
        let Self { tve: Tve { page_bits, .. }, offset, block, nth } = *self;
        let left = if page_bits == page.get() { LINE as u64 - nth % LINE as u64 } else { 1 };
        let address = Hpa(block.0 + 8 * nth);
        let entries = real.load_line(address, left.min(most) as usize);
        let entries = entries.map_err(|_| Fault::NoMemory(address))?.into_iter();
        let said =
            |(entry, i): (u64, u64)| says(entry, offset + (i << page_bits), page_bits, Access::Any);
        Ok(entries.zip(0..).map(said).collect())
    }
}

impl Place {
    pub(in super::super) fn of(segment: Option<&Range<u64>>, at: Ioba) -> Result<Self, Fault> {
        match segment {
            Some(segment) if segment.contains(&at.0) => {
                Ok(Self { slot: 0, base: segment.start, offset: at.0 - segment.start })
            }
            None if at.0 >> 60 == 0 => {
                let base = at.0 & 1 << WINDOW_BIT;
                Ok(Self { slot: (at.0 >> WINDOW_BIT & 1) as usize, base, offset: at.0 - base })
            }
            _ => Err(Fault::BadAddress(at)),
        }
    }
}

impl Pe {
    pub(in super::super) fn tve(&self, slot: usize) -> Result<Tve, Fault> {
        Tve::new(self.tve[slot].load(Ordering::Acquire)).ok_or(Fault::NoWindow { slot })
    }
}

/// What an entry makes of an access.
pub(in super::super) fn leaf(
    real: &RealMemory,
    entry: u64,
    offset: u64,
    page_bits: u32,
    access: Access,
) -> Result<Translation, Fault> {
    let found = says(entry, offset, page_bits, access)?;
    if real.is_pinned(found.at) { Ok(found) } else { Err(Fault::NoMemory(found.at)) }
}

/// What an entry says, whatever is there.
fn says(entry: u64, offset: u64, page_bits: u32, access: Access) -> Result<Translation, Fault> {
    let perm = match entry & 3 {
        0 => return Err(Fault::Empty { value: entry }),
        1 => Perm::READ,
        2 => Perm::WRITE,
        _ => Perm::READ_WRITE,
    };
    let needed = match access {
        Access::Read => Perm::READ,
        Access::Write => Perm::WRITE,
        Access::Any => Perm::NONE,
    };
    if !perm.allows(needed) {
        return Err(Fault::Denied { perm });
    }
    let inside = offset & ((1 << page_bits) - 1);
    let at = Hpa((entry & !0xfff & !((1 << page_bits) - 1)) | inside);
    let page = PageShift::new(page_bits).ok_or(Fault::BadAddress(Ioba(offset)))?;
    Ok(Translation { at, perm, page })
}

#[cfg(all(test, not(loom)))]
mod tests;
