// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bus addresses for users who do not choose their own.
//!
//! An [`IobaAllocator`] serves one window, or a part of one, to threads that have a [`Magazine`]
//! each. Single pages come out of the magazine without a locked instruction; the shared bitmap is
//! met once in up to 64 pages. Runs are next-fit: one is looked for where the thread's last one
//! ended. Each thread sweeps a stretch of its own, then gets the next that nobody was sent to, so
//! threads meet neither in the bitmap nor at the locks of the table until the space gets full. A
//! stretch is only where a search begins: every page is found before a run is refused.
//!
//! Which pages are out is a bit each: 2 MiB for 1 TiB in pages of 64K. It is taken as zeroed memory
//! when the allocator is made, so what the allocator never came to is not backed by memory. A search
//! that finds nothing reads all of it, and may miss what others give back meanwhile.
//!
//! ```
//! use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace, Magazine};
//! use tce_engine::{Ioba, PageShift};
//!
//! # fn main() -> Result<(), tce_engine::error::IobaError> {
//! let space = IobaSpace { start: Ioba(0), bytes: 1 << 30, page: PageShift::K4 };
//! let allocator = IobaAllocator::new(space, IobaOptions::default())?;
//! // A buffer that has to be at a certain place.
//! allocator.reserve(Ioba(0), 1 << 20)?;
//!
//! let mut magazine = Magazine::new(&allocator);
//! let page = magazine.take_page()?;
//! let run = magazine.take(20)?;
//! assert_eq!(allocator.in_use(), 256 + 1 + 20);
//! magazine.give(run, 20);
//! magazine.give_page(page);
//! assert_eq!(allocator.in_use(), 256);
//! # Ok(())
//! # }
//! ```

mod bitmap;
mod magazine;

use std::fmt;
use std::ops::Range;

use crate::addr::{DmaMask, Ioba, PageShift};
use crate::error::IobaError;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

use bitmap::{Align, Bitmap, WORD};
pub use magazine::Magazine;

/// Most pages of one allocator: 16 TiB in pages of 4K, 256 TiB in pages of 64K. Its bitmap has
/// 512 MiB then.
pub const MAX_PAGES: u64 = 1 << 32;

/// Bus addresses that a PHB routes to 32-bit MMIO of its devices, and not to a window that reaches
/// across them.
pub const MMIO_HOLE: Range<u64> = 2 << 30..4 << 30;

/// Entries of a cache line of the table: 128 bytes on POWER.
const LINE: u64 = 16;

/// Most pages that a thread sweeps before it is sent elsewhere: a segment of the table, which has
/// one lock.
const STRETCH: u64 = 8192;

/// A window, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IobaSpace {
    /// First bus address.
    pub start: Ioba,
    /// Length in bytes.
    pub bytes: u64,
    /// The window's page size.
    pub page: PageShift,
}

/// How an allocator is to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IobaOptions {
    /// Every run, a single page too, begins on a cache line of the table where no other run begins:
    /// at a multiple of 16 pages. Linux does this for what is smaller than a line.
    ///
    /// Threads that map single pages then do not write to each other's lines, and a kill that takes
    /// a line with it drops nothing of others. The price is window: a page takes the bus space of
    /// 16, and each entry that is written is another line of the table, so the cache holds a
    /// sixteenth of the entries. Reservations are not rounded and may share a line with a run.
    pub own_line: bool,
}

/// Places in the space, without the state.
#[derive(Clone, Copy)]
struct Layout {
    start: u64,
    shift: u32,
    pages: u64,
    /// First page of the space that meets [`MMIO_HOLE`], and how many do.
    hole: u64,
    hole_pages: u64,
    /// The bus page of bit 0. A multiple of 64, so a word of the bitmap is four whole lines.
    origin: u64,
    /// Bits of an address that are 0 where a run may begin.
    low_bits: u64,
}

impl Layout {
    /// A layout for the space, if it can have one.
    fn new(space: IobaSpace, options: IobaOptions) -> Result<Self, IobaError> {
        let IobaSpace { start, bytes, page } = space;
        aligned(start, bytes, page)?;
        let end = start.checked_add(bytes).ok_or(IobaError::Wraps { start, bytes })?.0;
        let pages = bytes >> page.get();
        if pages > MAX_PAGES {
            return Err(IobaError::TooLarge { pages });
        }
        let pages_to = |at: u64| at.saturating_sub(start.0).div_ceil(page.bytes()).min(pages);
        // Only a space across the hole's start has one. A page larger than it may begin before it.
        let (hole, hole_end) = if start.0 < MMIO_HOLE.start && end > MMIO_HOLE.start {
            ((MMIO_HOLE.start - start.0) >> page.get(), pages_to(MMIO_HOLE.end))
        } else {
            (0, 0)
        };
        if MMIO_HOLE.contains(&start.0) || hole_end - hole == pages {
            return Err(IobaError::InHole { start, bytes });
        }
        let first = start.0 >> page.get();
        let low_pages = if options.own_line { LINE } else { 1 };
        Ok(Self {
            start: start.0,
            shift: page.get(),
            pages,
            hole,
            hole_pages: hole_end - hole,
            origin: first - first % WORD,
            low_bits: (low_pages << page.get()) - 1,
        })
    }

    /// The part of it that a device with this mask reaches.
    fn below(&self, mask: DmaMask) -> Result<Self, IobaError> {
        let Self { start, pages, shift, hole, hole_pages, .. } = *self;
        let (space, bytes) = (Ioba(start), pages << shift);
        let pages = mask.pages(space, bytes, self.shift());
        let hole_pages = hole_pages.min(pages.saturating_sub(hole));
        if pages == hole_pages {
            return Err(IobaError::Mask { mask, start: space, bytes });
        }
        let hole = if hole_pages > 0 { hole } else { 0 };
        Ok(Self { pages, hole, hole_pages, ..*self })
    }

    /// Pages that can be handed out.
    fn capacity(&self) -> u64 {
        self.pages - self.hole_pages
    }

    /// The page of the space that begins at `at`.
    #[inline]
    fn page(&self, at: Ioba) -> Option<u64> {
        // Low bits that are not 0 become high ones, and the number too large.
        let page = at.0.wrapping_sub(self.start).rotate_right(self.shift);
        let usable = page < self.pages && page.wrapping_sub(self.hole) >= self.hole_pages;
        usable.then_some(page)
    }

    /// The bits of `pages` pages at `at`, all of which can be handed out.
    fn run(&self, at: Ioba, pages: u64) -> Option<Range<u64>> {
        let first = self.page(at)?;
        let end = first.checked_add(pages).filter(|end| *end <= self.pages)?;
        let holey = self.hole_pages > 0 && first < self.hole && end > self.hole;
        let bit = self.bits().start + first;
        (pages > 0 && !holey).then_some(bit..bit + pages)
    }

    /// The bits of the space; those of the hole among them.
    fn bits(&self) -> Range<u64> {
        let first = (self.start >> self.shift) - self.origin;
        first..first + self.pages
    }

    fn at(&self, bit: u64) -> Ioba {
        Ioba((self.origin + bit) << self.shift)
    }

    /// Pages from one place where a run may begin to the next.
    fn step(&self) -> u64 {
        (self.low_bits + 1) >> self.shift
    }

    fn shift(&self) -> PageShift {
        PageShift::new(self.shift).expect("it came from one")
    }
}

/// `start` and `bytes` are multiples of the page, and there are bytes.
fn aligned(start: Ioba, bytes: u64, page: PageShift) -> Result<(), IobaError> {
    if bytes == 0 {
        return Err(IobaError::Empty);
    }
    for (what, value) in [("bus address", start.0), ("length", bytes)] {
        if !Ioba(value).is_aligned(page) {
            return Err(IobaError::Unaligned { what, value, page });
        }
    }
    Ok(())
}

/// On cache lines of its own, those that are fetched in pairs included.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What a magazine tells the allocator. Only its thread stores to it, so no instruction is locked.
#[derive(Default)]
struct Shelf {
    /// Pages that wait in the magazine.
    held: AtomicU64,
    /// Pages that it took from the bitmap, less what it gave back; wraps below 0 if others took them.
    claimed: AtomicU64,
}

#[derive(Default)]
struct Books {
    shelves: Vec<Arc<Apart<Shelf>>>,
    /// Claimed by reservations and by magazines that are gone; wraps as a [`Shelf`]'s does.
    claimed: u64,
}

impl Books {
    fn add(&mut self, pages: u64) {
        self.claimed = self.claimed.wrapping_add(pages);
    }
}

/// Hands out the pages of a space, each to one owner at a time.
pub struct IobaAllocator {
    layout: Layout,
    options: IobaOptions,
    map: Bitmap,
    books: Mutex<Books>,
    /// Number of the next stretch to be swept; beyond the last comes the first.
    next: Apart<AtomicU64>,
}

impl IobaAllocator {
    /// An allocator of all pages of `space`, but for those that meet [`MMIO_HOLE`] if the space
    /// begins below the hole and reaches into it.
    ///
    /// # Errors
    /// If the space is empty, unaligned, wraps, begins in the hole, has no page beside it, or has
    /// more than [`MAX_PAGES`].
    pub fn new(space: IobaSpace, options: IobaOptions) -> Result<Arc<Self>, IobaError> {
        let layout = Layout::new(space, options)?;
        let bits = layout.bits();
        let map = Bitmap::new(bits.end);
        // What cannot be handed out is out for ever.
        map.fill(0..bits.start);
        map.fill(bits.end..map.bits());
        let hole = bits.start + layout.hole;
        map.fill(hole..hole + layout.hole_pages);
        Ok(Arc::new(Self { layout, options, map, books: Mutex::default(), next: Apart::default() }))
    }

    /// The space.
    #[must_use]
    pub fn space(&self) -> IobaSpace {
        let Layout { start, pages, shift, .. } = self.layout;
        IobaSpace { start: Ioba(start), bytes: pages << shift, page: self.layout.shift() }
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> IobaOptions {
        self.options
    }

    /// Pages that can be handed out: all of the space but the hole.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.layout.capacity()
    }

    /// Pages that somebody has: taken or reserved. Those that wait in magazines are not among them.
    /// Exact while nobody takes or gives.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        let (claimed, held) = self.count();
        claimed.saturating_sub(held)
    }

    /// Pages that wait in the magazines of all threads. Exact while nobody takes or gives.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.count().1
    }

    /// Takes a range out, for a user who chooses addresses. It is refused while a range of another
    /// thread that overlaps it is tried, even if that is then refused itself.
    ///
    /// # Errors
    /// If the range is not made of pages of the space that can be handed out, or one of them is in
    /// use or in a magazine.
    pub fn reserve(&self, start: Ioba, bytes: u64) -> Result<(), IobaError> {
        let bits = self.range(start, bytes)?;
        let pages = bits.end - bits.start;
        self.map.claim(bits).map_err(|bit| IobaError::Busy { at: self.layout.at(bit) })?;
        lock(&self.books).add(pages);
        Ok(())
    }

    /// Gives a range back, whether it was reserved or taken.
    ///
    /// # Errors
    /// If the range is not made of pages of the space that can be handed out, or one of them is
    /// free.
    pub fn unreserve(&self, start: Ioba, bytes: u64) -> Result<(), IobaError> {
        let bits = self.range(start, bytes)?;
        if let Some(bit) = self.map.first_clear(bits.clone()) {
            return Err(IobaError::Free { at: self.layout.at(bit) });
        }
        let pages = self.map.release(bits);
        lock(&self.books).add(pages.wrapping_neg());
        Ok(())
    }

    /// The bits of a range.
    fn range(&self, start: Ioba, bytes: u64) -> Result<Range<u64>, IobaError> {
        let IobaSpace { start: space, bytes: space_bytes, page } = self.space();
        aligned(start, bytes, page)?;
        let end = start.checked_add(bytes).ok_or(IobaError::Wraps { start, bytes })?;
        if let Some(bits) = self.layout.run(start, bytes >> page.get()) {
            return Ok(bits);
        }
        let outside = start < space || end.0 > space.0 + space_bytes;
        Err(if outside {
            IobaError::OutsideSpace { start, bytes, space, space_bytes }
        } else {
            IobaError::InHole { start, bytes }
        })
    }

    /// Claimed, and of that held in magazines.
    fn count(&self) -> (u64, u64) {
        let books = lock(&self.books);
        let sum = |of: fn(&Shelf) -> &AtomicU64| {
            let each = books.shelves.iter().map(|s| of(&s.0).load(Ordering::Relaxed));
            each.fold(0, u64::wrapping_add)
        };
        let claimed = books.claimed.wrapping_add(sum(|s| &s.claimed));
        // Below 0 if a page was seen to be given back, but not to be taken before.
        (claimed.cast_signed().max(0).cast_unsigned(), sum(|s| &s.held))
    }

    /// Bits for one thread to sweep.
    fn stretch(&self) -> Range<u64> {
        let Range { start, end } = self.layout.bits();
        let size = (self.layout.pages / 64).clamp(WORD, STRETCH);
        // They meet where the table's segments do.
        let size = 1 << size.ilog2();
        let skew = self.layout.origin % size;
        let number = self.next.0.fetch_add(1, Ordering::Relaxed) % (skew + end).div_ceil(size);
        let bit = (number * size).saturating_sub(skew).max(start);
        bit..((number + 1) * size - skew).max(start)
    }

    /// Claims up to `most` single pages of one word, the first at or after bit `from` that has one,
    /// or the first of all: the word, and which.
    fn claim_singles(&self, layout: &Layout, from: u64, most: u32) -> Option<(usize, u64)> {
        let mut pattern = u64::MAX / ((1 << layout.step()) - 1);
        let from = (from / WORD) as usize;
        let end = layout.bits().end;
        let words = end.div_ceil(WORD) as usize;
        // A mask ends inside a word only if that is the first of the bus, or the space ends there.
        if end < WORD {
            pattern &= (1 << end) - 1;
        }
        let after = self.map.claim_word(from.min(words)..words, pattern, most);
        after.or_else(|| self.map.claim_word(0..from.min(words), pattern, most))
    }

    /// Claims `pages` consecutive pages at a multiple of `align`, at or after bit `from` or else
    /// before it; the first bit.
    fn claim_run(&self, layout: &Layout, from: u64, pages: u64, align: u64) -> Option<u64> {
        let align = Align { origin: layout.origin, to: align.max(layout.step()) };
        let Range { start, end } = layout.bits();
        self.map.claim_run(from..end, pages, align).or_else(|| {
            // Everything that begins before `from`.
            let end = end.min(from.saturating_add(pages - 1));
            self.map.claim_run(start..end, pages, align)
        })
    }

    fn exhausted(&self, pages: u64, align: u64) -> IobaError {
        let (claimed, held) = self.count();
        let free = self.capacity().saturating_sub(claimed);
        IobaError::Exhausted { pages, align: align.max(self.layout.step()), free, held }
    }
}

impl fmt::Debug for IobaAllocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IobaSpace { start, bytes, page } = self.space();
        let (used, all) = (self.in_use(), self.capacity());
        write!(f, "IobaAllocator({start}, {bytes:#x} bytes, {used} of {all} pages of {page})")
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
