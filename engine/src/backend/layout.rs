// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a region lies in the address space of table entries.

use std::ops::Range;
use std::sync::Arc;

use crate::addr::{Hpa, PageShift, Uaddr};
use crate::simd::{self, Tier};
use crate::sync::Slot;
use crate::tce::{Perm, Tce};

/// Contiguous memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its start.
    pub at: Hpa,
    /// Its length.
    pub bytes: u64,
}

/// Where each backing page of a region lies. Copies share the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealLayout {
    backing: PageShift,
    /// Offset of the region's first byte inside its first backing page.
    lead: u64,
    bytes: u64,
    frames: Frames,
    span: Range<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Frames {
    /// One contiguous run; the address is the first byte's.
    Run(Hpa),
    /// User addresses, for a kernel that looks the pages up itself.
    Process(Hpa),
    /// One address for each backing page.
    Scattered(Arc<[Hpa]>),
}

impl RealLayout {
    /// A region in one run from `at`.
    #[must_use]
    pub fn contiguous(at: Hpa, bytes: u64, backing: PageShift) -> Self {
        let lead = at.0 & (backing.bytes() - 1);
        Self { backing, lead, bytes, frames: Frames::Run(at), span: at.0..at.0 + bytes }
    }

    /// A region of the process whose entries hold its user addresses, from which a kernel maps pages
    /// of up to `largest`.
    #[must_use]
    pub fn process(start: Uaddr, bytes: u64, largest: PageShift) -> Self {
        let (at, span) = (Hpa(start.0), start.0..start.0 + bytes);
        Self { backing: largest, lead: 0, bytes, frames: Frames::Process(at), span }
    }

    /// A region whose first byte is `lead` bytes into the first of `frames`, which all lie inside
    /// `span`, where no other region has any.
    #[must_use]
    pub fn scattered(
        frames: Box<[Hpa]>,
        lead: u64,
        bytes: u64,
        backing: PageShift,
        span: Range<u64>,
    ) -> Self {
        debug_assert!(lead < backing.bytes());
        debug_assert!(lead + bytes <= frames.len() as u64 * backing.bytes());
        Self { backing, lead, bytes, frames: Frames::Scattered(frames.into()), span }
    }

    /// Size of the backing pages.
    #[must_use]
    pub fn backing(&self) -> PageShift {
        self.backing
    }

    /// True if the whole region is one run.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        matches!(self.frames, Frames::Run(_))
    }

    /// Addresses that belong to this region and to no other; some may belong to none.
    #[must_use]
    pub fn span(&self) -> Range<u64> {
        self.span.clone()
    }

    /// True if pages of `page` bytes can be mapped from `offset` on: each lies in one backing page,
    /// or the region is one run that is aligned like them. `offset` is that of an address that is
    /// a multiple of `page`.
    #[must_use]
    pub fn can_map(&self, offset: u64, page: PageShift) -> bool {
        match self.frames {
            Frames::Run(at) => Hpa(at.0 + offset).is_aligned(page),
            Frames::Process(_) | Frames::Scattered(_) => page <= self.backing,
        }
    }

    /// The contiguous extent that begins `offset` bytes into the region, as long as it goes, at
    /// most to the region's end.
    ///
    /// # Panics
    /// If `offset` is not inside the region.
    #[inline]
    #[must_use]
    pub fn extent_at(&self, offset: u64) -> Extent {
        assert!(offset < self.bytes, "offset {offset:#x} in a region of {:#x}", self.bytes);
        let left = self.bytes - offset;
        match &self.frames {
            Frames::Run(at) | Frames::Process(at) => Extent { at: Hpa(at.0 + offset), bytes: left },
            Frames::Scattered(frames) => {
                let at = self.lead + offset;
                let inside = at & (self.backing.bytes() - 1);
                let frame = frames[(at >> self.backing.get()) as usize];
                let bytes = (self.backing.bytes() - inside).min(left);
                Extent { at: Hpa(frame.0 + inside), bytes }
            }
        }
    }

    /// The address at `offset` alone; [`RealLayout::extent_at`] without the length.
    ///
    /// # Panics
    /// If `offset` is not inside the region.
    #[inline]
    #[must_use]
    pub fn page_at(&self, offset: u64) -> Hpa {
        match &self.frames {
            Frames::Run(at) | Frames::Process(at) => {
                assert!(offset < self.bytes);
                Hpa(at.0 + offset)
            }
            Frames::Scattered(frames) => {
                let at = self.lead + offset;
                let frame = frames[(at >> self.backing.get()) as usize];
                Hpa(frame.0 + (at & (self.backing.bytes() - 1)))
            }
        }
    }

    /// Writes for each of `pages`, pages of the process whose region begins at `start`, the number
    /// of an entry with control bits `bits`. Stops at the first one that is not aligned, or more than
    /// `last` behind the start, which is inside the region; returns how many were written.
    #[inline]
    pub(crate) fn entries_of(
        &self,
        (start, last): (u64, u64),
        page: PageShift,
        pages: &[Uaddr],
        bits: u64,
        values: &mut [u64],
    ) -> usize {
        let offset = |page_at: &Uaddr| {
            let offset = page_at.0.wrapping_sub(start);
            (offset <= last && page_at.is_aligned(page)).then_some(offset)
        };
        let mut done = 0;
        match &self.frames {
            Frames::Run(at) | Frames::Process(at) => {
                for (value, page_at) in values.iter_mut().zip(pages) {
                    let Some(offset) = offset(page_at) else { break };
                    *value = (at.0 + offset) | bits;
                    done += 1;
                }
            }
            Frames::Scattered(frames) => {
                let (lead, backing) = (self.lead, self.backing);
                let inside = backing.bytes() - 1;
                for (value, page_at) in values.iter_mut().zip(pages) {
                    let Some(offset) = offset(page_at) else { break };
                    let at = lead + offset;
                    *value = (frames[(at >> backing.get()) as usize].0 + (at & inside)) | bits;
                    done += 1;
                }
            }
        }
        done
    }

    /// Writes the entries for the memory from `offset` on, which is mapped in pages of `page`.
    ///
    /// # Panics
    /// If some of it is not inside the region.
    pub(crate) fn fill(
        &self,
        tier: &Tier,
        slots: &[Slot],
        offset: u64,
        perm: Perm,
        page: PageShift,
    ) {
        let perm = perm.powernv();
        let bytes = |slots: &[Slot]| (slots.len() as u64) << page.get();
        assert!(bytes(slots) <= self.bytes.saturating_sub(offset), "it ends before");
        let run = |slots: &[Slot], at: u64| tier.fill(slots, Tce::new(at, perm), page.bytes());
        let frames = match &self.frames {
            Frames::Run(at) | Frames::Process(at) => return run(slots, at.0 + offset),
            Frames::Scattered(frames) => frames,
        };
        let at = self.lead + offset;
        let (first, inside) =
            ((at >> self.backing.get()) as usize, at & (self.backing.bytes() - 1));
        let frames = &frames[first..];
        let each = 1 << (self.backing.get() - page.get());
        let lead = if inside == 0 { 0 } else { each - (inside >> page.get()) as usize };
        let (lead, rest) = slots.split_at(lead.min(slots.len()));
        let frames = match lead {
            [] => frames,
            _ => {
                run(lead, frames[0].0 + inside);
                &frames[1..]
            }
        };
        let whole = rest.len() / each;
        let (body, rest) = rest.split_at(whole * each);
        let (at, frames) = frames.split_at(whole);
        tier.fill_frames(body, &simd::Frames { at, each, perm, step: page.bytes() });
        if let ([_, ..], [next, ..]) = (rest, frames) {
            run(rest, next.0);
        }
    }

    /// The extents of a part of the region, in order: the slow way, for tests.
    ///
    /// # Panics
    /// If the part is not inside the region.
    #[cfg(test)]
    pub(crate) fn extents(&self, part: Range<u64>) -> impl Iterator<Item = Extent> + '_ {
        assert!(part.end <= self.bytes, "{part:#x?} in a region of {:#x}", self.bytes);
        let mut at = part.start;
        std::iter::from_fn(move || {
            (at < part.end).then(|| {
                let mut extent = self.extent_at(at);
                extent.bytes = extent.bytes.min(part.end - at);
                at += extent.bytes;
                extent
            })
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    #[test]
    fn extents_stop_at_backing_pages_and_at_the_end() {
        let frames = [0x50_0000u64, 0x20_0000, 0x90_0000].map(Hpa);
        let layout =
            RealLayout::scattered(frames.into(), 0x4000, 0x2_5000, PageShift::K64, 0..1 << 30);
        let extents: Vec<_> = layout.extents(0..0x2_5000).map(|e| (e.at.0, e.bytes)).collect();
        assert_eq!(extents, [(0x50_4000, 0xc000), (0x20_0000, 0x1_0000), (0x90_0000, 0x9000)]);
        let part: Vec<_> = layout.extents(0xb000..0xd000).map(|e| (e.at.0, e.bytes)).collect();
        assert_eq!(part, [(0x50_f000, 0x1000), (0x20_0000, 0x1000)]);
    }

    /// Every part of a region that begins and ends anywhere in its backing pages, entry by entry.
    #[test]
    fn entries_are_those_of_the_extents() {
        let frames: Vec<_> = [5u64, 2, 9, 3, 4].map(|n| Hpa(n << 20)).into();
        let span = 0..1 << 30;
        let (lead, bytes) = (0x4000, 0x4_9000);
        let layouts = [
            RealLayout::scattered(frames.into(), lead, bytes, PageShift::K64, span),
            RealLayout::contiguous(Hpa(0x4000_4000), bytes, PageShift::K64),
            RealLayout::process(Uaddr(0x1000_4000), bytes, PageShift::K64),
        ];
        let page = PageShift::K4;
        let pages = bytes >> page.get();
        for (layout, tier) in layouts.iter().flat_map(|l| Tier::all().map(move |t| (l, t))) {
            // An interpreter has no time for all.
            let step = if cfg!(miri) { 7 } else { 1 };
            let starts = (0..=pages).step_by(step);
            let parts =
                starts.flat_map(|from| (from..=pages).step_by(step).map(move |to| (from, to)));
            for (from, to) in parts {
                let part = from << page.get()..to << page.get();
                let expected: Vec<_> = layout
                    .extents(part.clone())
                    .flat_map(|e| (e.at.0..e.at.0 + e.bytes).step_by(0x1000))
                    .map(|at| Tce::new(at, Perm::READ_WRITE))
                    .collect();
                let slots: Vec<_> = (from..to).map(|_| Slot::new(0)).collect();
                layout.fill(tier, &slots, part.start, Perm::WRITE, page);
                let written: Vec<_> = slots
                    .iter()
                    .map(|slot| Tce::from_be_word(slot.load(Ordering::Relaxed)))
                    .collect();
                assert_eq!(written, expected, "{layout:?} {part:x?} {}", tier.name());
            }
        }
    }

    #[test]
    fn a_run_is_one_extent() {
        let layout = RealLayout::contiguous(Hpa(0x4000_0000), 0x30_0000, PageShift::K64);
        let all: Vec<_> = layout.extents(0x1000..0x30_0000).collect();
        assert_eq!(all, [Extent { at: Hpa(0x4000_1000), bytes: 0x2f_f000 }]);
        assert!(layout.can_map(0, PageShift::M16));
        assert!(!layout.can_map(0x1000, PageShift::K64));
    }
}
