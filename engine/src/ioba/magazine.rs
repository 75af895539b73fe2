// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A thread's own stock of single pages.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use super::bitmap::WORD;
use super::{Apart, IobaAllocator, Layout, Shelf};
use crate::addr::{DmaMask, Ioba, PageShift};
use crate::error::IobaError;
use crate::sync::{Arc, AtomicU64, Ordering, lock};

/// Most pages that are claimed, or given back, at once.
const BATCH: u64 = WORD;

/// Hands out bus addresses to one thread. What is taken through one magazine may be given back
/// through another of the same allocator.
///
/// It keeps single pages that are given back and hands them out again, the last one first, because
/// its line of the table is still in the cache. It holds at most 128, and in a small space a 64th of
/// it, but 2 at least; beyond that the older half goes back. While pages wait here no other thread
/// can have them: [`flush`](Self::flush) an idle magazine. Dropping it gives back what it holds, not
/// what was taken.
pub struct Magazine {
    /// Of what is taken here: the allocator's, or a part of that.
    layout: Layout,
    mask: DmaMask,
    page: PageShift,
    shelf: Arc<Apart<Shelf>>,
    /// The first [`Shelf::held`] of these wait; the length is the limit.
    stack: Box<[Ioba]>,
    allocator: Arc<IobaAllocator>,
    /// Bits of the thread's stretch that the next search begins with.
    stretch: Range<u64>,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl Magazine {
    /// An empty magazine. This and dropping it take a lock; nothing else does, unless there are no
    /// pages.
    #[must_use]
    pub fn new(allocator: &Arc<IobaAllocator>) -> Self {
        Self::with(allocator, allocator.layout, DmaMask::ALL)
    }

    /// The same for a device that does not reach all of the space: what is taken here lies within its
    /// mask. So does what waits here: pages beyond it that are given back go to the allocator.
    ///
    /// # Errors
    /// [`IobaError::Mask`] if the mask reaches no page of the space.
    pub fn below(allocator: &Arc<IobaAllocator>, mask: DmaMask) -> Result<Self, IobaError> {
        Ok(Self::with(allocator, allocator.layout.below(mask)?, mask))
    }

    fn with(allocator: &Arc<IobaAllocator>, layout: Layout, mask: DmaMask) -> Self {
        let shelf = Arc::<Apart<Shelf>>::default();
        lock(&allocator.books).shelves.push(shelf.clone());
        let batch = (layout.capacity() / layout.step() / 128).clamp(1, BATCH);
        Self {
            layout,
            mask,
            page: layout.shift(),
            shelf,
            stack: vec![Ioba(0); 2 * batch as usize].into(),
            allocator: allocator.clone(),
            stretch: 0..0,
            not_sync: PhantomData,
        }
    }

    /// Where the pages come from.
    #[must_use]
    pub fn allocator(&self) -> &Arc<IobaAllocator> {
        &self.allocator
    }

    /// Takes one page.
    ///
    /// # Errors
    /// [`IobaError::Exhausted`] if no page waits here and none is free. Pages that wait in other
    /// threads' magazines are then not had; the error says how many there are.
    #[inline]
    pub fn take_page(&mut self) -> Result<Ioba, IobaError> {
        match self.take_held() {
            Some(page) => Ok(page),
            None => self.refill(),
        }
    }

    /// Takes one page if any waits here.
    #[inline(always)]
    pub(crate) fn take_held(&mut self) -> Option<Ioba> {
        // Beyond the stack if nothing is held.
        let left = self.held().wrapping_sub(1);
        let page = *self.stack.get(left as usize)?;
        set(&self.shelf.0.held, left);
        Some(page)
    }

    /// Gives one page back. Nothing may use it any more: its entry is cleared, and killed.
    ///
    /// It has to be a page that is out; that one is given twice is noticed in debug builds only. An
    /// address that is no page of the space panics in debug builds and is ignored in others.
    #[inline]
    pub fn give_page(&mut self, at: Ioba) {
        if self.layout.page(at).is_none() || at.0 & self.layout.low_bits != 0 {
            return self.give_run(at, 1);
        }
        self.give_covered(at);
    }

    /// Gives back one page that is known to be of the space.
    #[inline(always)]
    pub(crate) fn give_covered(&mut self, at: Ioba) {
        debug_assert!(self.covers(at, 1), "the page at {at} is not of {:?}", self.allocator);
        debug_assert!(self.is_out(at), "the page at {at} is given back, but free already");
        let held = self.held();
        match self.stack.get_mut(held as usize) {
            Some(place) => {
                *place = at;
                set(&self.shelf.0.held, held + 1);
            }
            None => self.spill(at),
        }
    }

    /// Takes a run of `pages` consecutive pages.
    ///
    /// # Errors
    /// [`IobaError::Empty`] for no pages; [`IobaError::Exhausted`] if no such run is free, not even
    /// with the pages that wait here.
    pub fn take(&mut self, pages: u64) -> Result<Ioba, IobaError> {
        if pages == 1 { self.take_page() } else { self.take_run(pages, 1) }
    }

    /// Takes a run whose bus address is a multiple of `align` pages.
    ///
    /// # Errors
    /// As [`take`](Self::take), and [`IobaError::Alignment`] if `align` is not a power of two.
    pub fn take_aligned(&mut self, pages: u64, align: u64) -> Result<Ioba, IobaError> {
        if !align.is_power_of_two() {
            return Err(IobaError::Alignment { pages: align });
        }
        if align <= self.layout.step() { self.take(pages) } else { self.take_run(pages, align) }
    }

    /// Gives `pages` consecutive pages back: a run, a part of one, or several. See
    /// [`give_page`](Self::give_page).
    pub fn give(&mut self, at: Ioba, pages: u64) {
        if pages == 1 { self.give_page(at) } else { self.give_run(at, pages) }
    }

    /// The page size.
    #[inline]
    pub(crate) fn page(&self) -> PageShift {
        self.page
    }

    /// True if `pages` pages at `at` are a run of the space.
    #[inline]
    pub(crate) fn covers(&self, at: Ioba, pages: u64) -> bool {
        let aligned = at.0 & self.layout.low_bits == 0;
        aligned
            && if pages == 1 {
                self.layout.page(at).is_some()
            } else {
                self.layout.run(at, pages).is_some()
            }
    }

    /// True if each of `pages` pages at `at` is one that can be handed out by itself.
    pub(crate) fn covers_each(&self, at: Ioba, pages: u64) -> bool {
        self.layout.step() == 1 && self.layout.run(at, pages).is_some()
    }

    /// Pages that wait here.
    #[inline]
    #[must_use]
    pub fn held(&self) -> u64 {
        self.shelf.0.held.load(Ordering::Relaxed)
    }

    /// Lets all other threads have the pages that wait here.
    pub fn flush(&mut self) {
        self.give_oldest(self.held() as usize);
    }

    fn take_run(&mut self, pages: u64, align: u64) -> Result<Ioba, IobaError> {
        if pages == 0 {
            return Err(IobaError::Empty);
        }
        let from = self.search_from();
        let layout = self.layout;
        let mut bit = self.allocator.claim_run(&layout, from, pages, align);
        if bit.is_none() && self.held() > 0 {
            self.flush();
            bit = self.allocator.claim_run(&layout, from, pages, align);
        }
        let bit = bit.ok_or_else(|| self.exhausted(pages, align))?;
        self.stretch.start = bit + pages;
        self.claimed(pages);
        Ok(self.layout.at(bit))
    }

    /// The bit where a search begins.
    fn search_from(&mut self) -> u64 {
        if self.stretch.is_empty() {
            self.stretch = self.allocator.stretch();
            if self.stretch.start >= self.layout.bits().end {
                // Beyond the mask.
                self.stretch = self.layout.bits();
            }
        }
        self.stretch.start
    }

    fn exhausted(&self, pages: u64, align: u64) -> IobaError {
        let (whole, mask) = (self.allocator.layout.pages, self.mask);
        if self.layout.pages == whole {
            return self.allocator.exhausted(pages, align);
        }
        IobaError::BelowMask { pages, align: align.max(self.layout.step()), mask }
    }

    /// Straight into the bitmap.
    fn give_run(&mut self, at: Ioba, pages: u64) {
        let bits = self.allocator.layout.run(at, pages);
        debug_assert!(bits.is_some(), "{pages} page(s) at {at} are not of {:?}", self.allocator);
        let Some(bits) = bits else { return };
        let given = self.allocator.map.release(bits);
        debug_assert_eq!(given, pages, "some of {pages} page(s) at {at} were free already");
        self.claimed(given.wrapping_neg());
    }

    /// Takes a page when none is held.
    #[cold]
    #[inline(never)]
    fn refill(&mut self) -> Result<Ioba, IobaError> {
        let batch = (self.stack.len() / 2) as u32;
        let from = self.search_from();
        let Some((word, mask)) = self.allocator.claim_singles(&self.layout, from, batch) else {
            return Err(self.exhausted(1, 1));
        };
        self.stretch.start = word as u64 * WORD + u64::from(mask.ilog2()) + 1;
        let pages = u64::from(mask.count_ones());
        self.claimed(pages);
        // The lowest is taken first.
        let mut rest = mask;
        for place in self.stack[..pages as usize].iter_mut().rev() {
            let bit = word as u64 * WORD + u64::from(rest.trailing_zeros());
            *place = self.layout.at(bit);
            rest &= rest - 1;
        }
        set(&self.shelf.0.held, pages - 1);
        Ok(self.stack[pages as usize - 1])
    }

    /// Gives a page back when no more can be held.
    #[cold]
    #[inline(never)]
    fn spill(&mut self, at: Ioba) {
        self.give_oldest(self.stack.len() / 2);
        let held = self.held();
        self.stack[held as usize] = at;
        set(&self.shelf.0.held, held + 1);
    }

    /// Gives back the `count` pages that were not used for longest, those of a word at once.
    fn give_oldest(&mut self, count: usize) {
        let oldest = &mut self.stack[..count];
        oldest.sort_unstable();
        let mut given = 0;
        let bits = |at: Ioba| (at.0 >> self.layout.shift) - self.layout.origin;
        for pages in oldest.chunk_by(|a, b| bits(*a) / WORD == bits(*b) / WORD) {
            let mask = pages.iter().fold(0, |mask, at| mask | 1 << (bits(*at) % WORD));
            given += self.allocator.map.release_word((bits(pages[0]) / WORD) as usize, mask);
        }
        let held = self.held() as usize;
        self.stack.copy_within(count..held, 0);
        set(&self.shelf.0.held, (held - count) as u64);
        self.claimed(given.wrapping_neg());
    }

    /// More pages, or fewer if negative, came from the bitmap through this magazine.
    fn claimed(&self, pages: u64) {
        let claimed = &self.shelf.0.claimed;
        set(claimed, claimed.load(Ordering::Relaxed).wrapping_add(pages));
    }

    /// True if somebody has the page, and not this magazine.
    fn is_out(&self, at: Ioba) -> bool {
        let bits = self.layout.run(at, 1);
        bits.is_some_and(|bits| self.allocator.map.first_clear(bits).is_none())
            && !self.stack[..self.held() as usize].contains(&at)
    }
}

/// A store to a counter that this thread alone stores to.
#[inline]
fn set(counter: &AtomicU64, value: u64) {
    counter.store(value, Ordering::Relaxed);
}

impl Drop for Magazine {
    fn drop(&mut self) {
        self.flush();
        let mut books = lock(&self.allocator.books);
        books.add(self.shelf.0.claimed.load(Ordering::Relaxed));
        books.shelves.retain(|shelf| !Arc::ptr_eq(shelf, &self.shelf));
    }
}

impl fmt::Debug for Magazine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Magazine({} pages of {:?})", self.held(), self.allocator)
    }
}
