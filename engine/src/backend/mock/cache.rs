// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The TCE cache of each host bridge.
//!
//! A line holds consecutive entries of one window as they were when a device missed one of them, empty
//! ones included, and the TVE that led there. Only words of the kill register empty it: a window that
//! is unset or set again leaves its lines where they are. A set has a lock of its own, held while one of
//! its lines is filled, so a kill comes before the walk or after the fill, as on a bridge that orders
//! them.

use std::collections::VecDeque;
use std::ops::Range;

use super::flight::{Flight, Flights};
use super::phb::walk::{Place, Tve, leaf};
use super::phb::{Access, Fault, KILL_ALL, KILL_PAGE, KILL_PE, Phb, Translation};
use super::real::RealMemory;
use crate::addr::{Hpa, Ioba, PeNumber};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// What a host bridge's TCE cache is like. The hardware's is not documented; about 1024 entries is an
/// estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TceCache {
    /// Entries that it holds: a power of two.
    pub entries: usize,
    /// Entries of a line: a power of two, at most 512 and no more than it holds.
    pub line: usize,
    /// True if a line is kept whose entry was missed and is empty. If not, empty entries are held only
    /// as neighbours of a live one.
    pub keep_faults: bool,
}

impl TceCache {
    /// 1024 entries, 8 a line, whatever was found.
    pub const POWER8: Self = Self { entries: 1024, line: 8, keep_faults: true };

    pub(super) const fn possible(self) -> bool {
        let Self { entries, line, .. } = self;
        entries.is_power_of_two() && line.is_power_of_two() && line <= 512 && line <= entries
    }
}

/// Something that happened to the entries of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TceEvent {
    /// A walk brought the line; the value of the entry that was asked for, 0 where its level is absent.
    Fill {
        /// That entry.
        entry: u64,
    },
    /// So many accesses in a row found it.
    Hits(u64),
    /// It made room for another.
    Evicted,
    /// A kill word arrived that names it, whether it was there or not.
    Kill(u64),
    /// Whoever fenced had waited for all accesses.
    Fence,
}

/// When, in an order that all events of one machine share, and what.
pub type Happened = (u64, TceEvent);

/// Most lines of a set.
const WAYS: usize = 4;
/// Events that a set remembers.
const REMEMBERED: usize = 96;
/// Fences that the machine remembers.
const FENCES: usize = 64;

/// Which entries a line holds: those of `pe` from bus address `start` on, in pages of `page_bits`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag {
    pe: PeNumber,
    start: u64,
    page_bits: u32,
}

struct Line {
    tag: Tag,
    /// Empty if the level that would lead to them was absent.
    entries: Vec<u64>,
    /// The fault of an absent level.
    absent: Option<Fault>,
}

impl Line {
    fn entry(&self, at: u64) -> Result<u64, Fault> {
        self.absent.map_or_else(
            || Ok(self.entries[((at - self.tag.start) >> self.tag.page_bits) as usize]),
            Err,
        )
    }
}

#[derive(Default)]
struct Set {
    lines: [Option<Line>; WAYS],
    /// Picks the line that goes.
    random: u64,
    events: VecDeque<(u64, Option<Tag>, TceEvent)>,
}

struct Cache {
    sets: Box<[Mutex<Set>]>,
    /// By PE, log2 of the page sizes that it ever had lines of.
    pages: Box<[AtomicU64]>,
    line_bits: u32,
    /// Lines of a set.
    ways: usize,
    keep_faults: bool,
}

/// The caches of all bridges, and what is in flight through them.
pub(super) struct Caches {
    caches: Box<[Cache]>,
    flights: Flights,
    now: AtomicU64,
    fences: [AtomicU64; FENCES],
    nth_fence: AtomicU64,
}

impl Set {
    fn find(&mut self, tag: &Tag) -> Option<&mut Line> {
        self.lines.iter_mut().flatten().find(|line| line.tag == *tag)
    }

    fn note(&mut self, now: u64, tag: Option<Tag>, event: TceEvent) {
        if let (TceEvent::Hits(_), Some((_, last, TceEvent::Hits(n)))) =
            (event, self.events.back_mut())
            && *last == tag
        {
            *n += 1;
            return;
        }
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back((now, tag, event));
    }

    /// Puts a line in, in a free place or at random.
    fn put(&mut self, now: u64, ways: usize, line: Line) {
        let lines = &self.lines[..ways];
        let way = lines.iter().position(Option::is_none).unwrap_or_else(|| {
            // xorshift64
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random as usize % ways
        });
        if let Some(gone) = self.lines[way].replace(line) {
            self.note(now, Some(gone.tag), TceEvent::Evicted);
        }
    }

    /// Empties the lines that `named` picks.
    fn kill(&mut self, named: impl Fn(&Tag) -> bool) {
        for line in &mut self.lines {
            line.take_if(|line| named(&line.tag));
        }
    }
}

impl Cache {
    fn new(shape: TceCache, pes: usize, seed: u64) -> Self {
        let lines = shape.entries / shape.line;
        let set = |nth: usize| {
            let random = seed.wrapping_add(nth as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            Mutex::new(Set { random, ..Set::default() })
        };
        Self {
            sets: (0..lines.div_ceil(WAYS)).map(set).collect(),
            pages: (0..pes).map(|_| AtomicU64::new(0)).collect(),
            line_bits: shape.line.trailing_zeros(),
            ways: lines.min(WAYS),
            keep_faults: shape.keep_faults,
        }
    }

    /// The line of a bus address. Windows begin at multiples of any line's size.
    fn tag(&self, pe: PeNumber, at: u64, page_bits: u32) -> Tag {
        Tag {
            pe,
            start: at >> (page_bits + self.line_bits) << (page_bits + self.line_bits),
            page_bits,
        }
    }

    fn set(&self, tag: &Tag) -> &Mutex<Set> {
        let nth = tag.start >> (tag.page_bits + self.line_bits);
        let nth = (nth ^ nth >> 17).wrapping_add(u64::from(tag.pe.0) * 5);
        &self.sets[nth as usize % self.sets.len()]
    }

    /// The page sizes that the PE has lines of. As a modification, so that a kill comes before the bit
    /// of a walk, which then sees the table as it was at the kill, or finds the bit.
    fn pages(&self, pe: PeNumber, and: u64) -> impl Iterator<Item = u32> {
        let bits =
            self.pages.get(usize::from(pe.0)).map_or(0, |p| p.fetch_or(and, Ordering::AcqRel));
        (0..u64::BITS).filter(move |bit| bits >> bit & 1 == 1)
    }

    fn kill_page(&self, pe: PeNumber, at: u64, word: u64, now: u64) {
        for page_bits in self.pages(pe, 0) {
            let tag = self.tag(pe, at, page_bits);
            let mut set = lock(self.set(&tag));
            set.kill(|line| *line == tag);
            set.note(now, Some(tag), TceEvent::Kill(word));
        }
    }

    fn kill_all(&self, pe: Option<PeNumber>, word: u64, now: u64) {
        for set in &self.sets {
            let mut set = lock(set);
            set.kill(|line| pe.is_none_or(|pe| line.pe == pe));
            set.note(now, None, TceEvent::Kill(word));
        }
    }

    /// Brings the line of an offset.
    fn fill(&self, real: &RealMemory, tag: Tag, tve: &Tve, offset: u64) -> Result<Line, Fault> {
        let (block, nth) = match tve.leaf_block(real, offset) {
            Ok(place) => place,
            Err(fault @ Fault::NoLevel { .. }) => {
                return Ok(Line { tag, entries: Vec::new(), absent: Some(fault) });
            }
            Err(fault) => return Err(fault),
        };
        // A block is at least 512 entries, aligned, so a line lies in one.
        let first = nth >> self.line_bits << self.line_bits;
        let at = Hpa(block.0 + 8 * first);
        let entries = real.load_line(at, 1 << self.line_bits).map_err(|_| Fault::NoMemory(at))?;
        Ok(Line { tag, entries, absent: None })
    }
}

impl Caches {
    pub(super) fn new(shape: TceCache, pes: usize, bridges: u16, seed: u64) -> Self {
        let cache = |nth: u16| Cache::new(shape, pes, seed.wrapping_add(u64::from(nth)));
        Self {
            caches: (0..bridges).map(cache).collect(),
            flights: Flights::new(),
            now: AtomicU64::new(1),
            fences: std::array::from_fn(|_| AtomicU64::new(0)),
            nth_fence: AtomicU64::new(0),
        }
    }

    fn of(&self, pe: PeNumber) -> &Cache {
        &self.caches[usize::from(pe.0) % self.caches.len()]
    }

    pub(super) fn now(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed)
    }

    /// An access of the PE's begins.
    pub(super) fn begin(&self, pe: PeNumber) -> Flight<'_> {
        self.flights.begin(usize::from(pe.0) * 3)
    }

    /// Does what a word says that is stored to the register of this PE's bridge.
    pub(super) fn kill(&self, bridge_of: PeNumber, word: u64) {
        let (cache, now) = (self.of(bridge_of), self.now());
        let pe = PeNumber((word & 0xff) as u16);
        if word & KILL_ALL != 0 {
            cache.kill_all(None, word, now);
        } else if word & KILL_PE != 0 {
            cache.kill_all(Some(pe), word, now);
        } else if word & KILL_PAGE != 0 {
            cache.kill_page(pe, word & !KILL_PAGE & !0xfff, word, now);
        }
    }

    /// Returns when no access is in flight that began before.
    pub(super) fn fence(&self) {
        self.flights.wait();
        let nth = self.nth_fence.fetch_add(1, Ordering::Relaxed) as usize % FENCES;
        self.fences[nth].store(self.now(), Ordering::Relaxed);
    }

    /// What a device's access finds: in the cache, or by a walk, which fills a line.
    pub(super) fn translate(
        &self,
        phb: &Phb,
        real: &RealMemory,
        pe: PeNumber,
        segment: Option<&Range<u64>>,
        at: Ioba,
        access: Access,
    ) -> Result<Translation, Fault> {
        let state = phb.handed_over(pe)?;
        let Place { slot, base, offset } = Place::of(segment, at)?;
        let cache = self.of(pe);
        let finish =
            |entry: Result<u64, Fault>, page_bits| leaf(real, entry?, offset, page_bits, access);
        // A line is found whatever has become of the window.
        for page_bits in cache.pages(pe, 0) {
            let tag = cache.tag(pe, base + offset, page_bits);
            let mut set = lock(cache.set(&tag));
            if let Some(entry) = set.find(&tag).map(|line| line.entry(base + offset)) {
                set.note(self.now(), Some(tag), TceEvent::Hits(1));
                drop(set);
                return finish(entry, page_bits);
            }
        }
        let page_bits = state.tve(slot)?.page_bits;
        let tag = cache.tag(pe, base + offset, page_bits);
        let mut set = lock(cache.set(&tag));
        drop(cache.pages(pe, 1 << page_bits));
        // Read again: what was set or unset before a kill is seen by who comes after it.
        let tve = state.tve(slot)?;
        if tve.page_bits != page_bits {
            return Err(Fault::NoWindow { slot });
        }
        let line = cache.fill(real, tag, &tve, offset)?;
        let entry = line.entry(base + offset);
        let now = self.now();
        set.kill(|line| *line == tag);
        if cache.keep_faults || entry.as_ref().is_ok_and(|entry| entry & 3 != 0) {
            set.put(now, cache.ways, line);
        }
        set.note(now, Some(tag), TceEvent::Fill { entry: entry.unwrap_or(0) });
        drop(set);
        finish(entry, page_bits)
    }

    /// What is remembered of the line that a bus address of the PE is in, fences included.
    pub(super) fn history(&self, pe: PeNumber, at: Ioba) -> Vec<Happened> {
        let cache = self.of(pe);
        let mut all = Vec::new();
        for page_bits in cache.pages(pe, 0) {
            let tag = cache.tag(pe, at.0, page_bits);
            let set = lock(cache.set(&tag));
            let ours = set.events.iter().filter(|(_, of, _)| of.is_none_or(|of| of == tag));
            all.extend(ours.map(|(now, _, event)| (*now, *event)));
        }
        let first = all.iter().map(|(now, _)| *now).min().unwrap_or(0);
        let fences = self.fences.iter().map(|at| at.load(Ordering::Relaxed));
        all.extend(fences.filter(|now| *now > first).map(|now| (now, TceEvent::Fence)));
        all.sort_unstable_by_key(|(now, _)| *now);
        all.dedup();
        all
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
