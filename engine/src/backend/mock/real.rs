// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The simulated machine's real memory: which addresses are table, which are pinned, which are
//! nothing.
//!
//! Guest RAM stands at its own addresses from 0, pinned process memory from [`USER_BASE`], tables
//! from [`TABLE_BASE`].

use std::collections::BTreeMap;

use crate::addr::{Hpa, PageShift};
use crate::backend::Memory;
use crate::backend::layout::RealLayout;
use crate::error::{BackendError, NoRealMemory};
use crate::mem::TableChunk;
use crate::sabotage::{Guard, stands};
use crate::sync::{Arc, Ordering, RwLock, Slot, read, write};

/// Process memory begins here; guest RAM must end below.
const USER_BASE: u64 = 1 << 46;
/// Tables begin here; process memory must end below.
const TABLE_BASE: u64 = 1 << 52;
/// Real addresses end here: TVEs and entries have no bits above.
const END: u64 = 1 << 59;
/// A contiguous region is congruent to its process address modulo this.
const RUN_ALIGN: u64 = 1 << 30;
/// Most backing pages of one region: 1 TiB in pages of 64 KiB, 32 TiB in pages of 2 MiB.
const MAX_FRAMES: u64 = 1 << 24;

#[derive(Default)]
struct Map {
    chunks: BTreeMap<u64, Arc<TableChunk>>,
    /// Stretches of table: start → length.
    stretches: BTreeMap<u64, u64>,
    /// Pinned spans, by where they start.
    pinned: BTreeMap<u64, Pinned>,
    next_table: u64,
    next_user: u64,
    pins: u64,
}

struct Pinned {
    end: u64,
    memory: Memory,
    /// Number of the backing page at each even place of a scattered region; empty for a run.
    places: Box<[u32]>,
    backing: PageShift,
    lead: u64,
}

impl Pinned {
    /// Offset in the region of a real address, if that address is part of it.
    fn offset(&self, start: u64, at: u64) -> Option<u64> {
        let offset = if self.places.is_empty() {
            at - start
        } else {
            let place = (at - start) >> self.backing.get();
            if !place.is_multiple_of(2) {
                return None;
            }
            let number = u64::from(*self.places.get((place / 2) as usize)?);
            let inside = (at - start) & (self.backing.bytes() - 1);
            ((number << self.backing.get()) + inside).checked_sub(self.lead)?
        };
        (offset < self.memory.bytes()).then_some(offset)
    }
}

pub(super) struct RealMemory {
    backing: PageShift,
    contiguous: bool,
    seed: u64,
    map: RwLock<Map>,
}

impl RealMemory {
    pub(super) fn new(backing: PageShift, contiguous: bool, seed: u64) -> Self {
        let map = Map { next_table: TABLE_BASE, next_user: USER_BASE, ..Map::default() };
        Self { backing, contiguous, seed, map: RwLock::new(map) }
    }

    /// A big-endian doubleword of table memory.
    pub(super) fn load_be(&self, at: Hpa) -> Result<u64, NoRealMemory> {
        self.slots(at, 1, |slots| u64::from_be(slots[0].load(Ordering::Acquire)))
    }

    /// So many of them in a row.
    pub(super) fn load_line(&self, at: Hpa, count: usize) -> Result<Vec<u64>, NoRealMemory> {
        self.slots(at, count, |slots| {
            slots.iter().map(|slot| u64::from_be(slot.load(Ordering::Acquire))).collect()
        })
    }

    /// How many of so many in a row are live.
    pub(super) fn live(&self, at: Hpa, count: usize) -> u64 {
        let live = |slot: &&Slot| u64::from_be(slot.load(Ordering::Relaxed)) & 3 != 0;
        self.slots(at, count, |slots| slots.iter().filter(live).count()).unwrap_or(0) as u64
    }

    fn slots<T>(
        &self,
        at: Hpa,
        count: usize,
        f: impl FnOnce(&[Slot]) -> T,
    ) -> Result<T, NoRealMemory> {
        let map = read(&self.map);
        let (start, chunk) = map.chunks.range(..=at.0).next_back().ok_or(NoRealMemory(at))?;
        let nth = ((at.0 - start) / 8) as usize;
        Ok(f(chunk.slots().get(nth..nth + count).ok_or(NoRealMemory(at))?))
    }

    fn pinned_at<T>(&self, at: Hpa, f: impl FnOnce(&Pinned, u64) -> Option<T>) -> Option<T> {
        let map = read(&self.map);
        let (start, pinned) = map.pinned.range(..=at.0).next_back()?;
        if at.0 < pinned.end { f(pinned, pinned.offset(*start, at.0)?) } else { None }
    }

    pub(super) fn is_pinned(&self, at: Hpa) -> bool {
        self.pinned_at(at, |_, _| Some(())).is_some()
    }

    pub(super) fn owner(&self, at: Hpa) -> Option<(Memory, u64)> {
        self.pinned_at(at, |pinned, offset| Some((pinned.memory, offset)))
    }

    pub(super) fn reserve_table(&self, bytes: u64) -> Result<Hpa, BackendError> {
        let mut map = write(&self.map);
        let fail = || BackendError::NoTableMemory {
            bytes,
            reason: "the simulated real address space is full".to_owned(),
        };
        let size = bytes.max(4096).checked_next_power_of_two().ok_or_else(fail)?;
        let at = map.next_table.next_multiple_of(size);
        // A hole behind each: an index past a table's end reads no other table.
        let next = at.checked_add(2 * size).filter(|end| *end <= END).ok_or_else(fail)?;
        map.next_table = next;
        map.stretches.insert(at, bytes);
        Ok(Hpa(at))
    }

    pub(super) fn back_table(&self, at: Hpa, chunk: Arc<TableChunk>) {
        write(&self.map).chunks.insert(at.0, chunk);
    }

    pub(super) fn free_table(&self, at: Hpa) {
        let mut map = write(&self.map);
        if let Some(bytes) = map.stretches.remove(&at.0) {
            let mut tail = map.chunks.split_off(&at.0);
            map.chunks.append(&mut tail.split_off(&(at.0 + bytes)));
        }
    }

    pub(super) fn pin(&self, memory: Memory) -> Result<RealLayout, BackendError> {
        let bytes = memory.bytes();
        let fail = |reason: &str| BackendError::Pin {
            at: memory.start(),
            bytes,
            reason: reason.to_owned(),
        };
        let mut map = write(&self.map);
        let (layout, lead, places) = match memory {
            Memory::Guest { start, .. } => {
                let end = start.0.checked_add(bytes).filter(|end| *end <= USER_BASE);
                let end = end.ok_or_else(|| fail("guest RAM ends at 64 TiB on the mock"))?;
                if map.pinned.range(..end).next_back().is_some_and(|(_, p)| p.end > start.0) {
                    return Err(fail("other guest RAM is there"));
                }
                (RealLayout::contiguous(Hpa(start.0), bytes, self.backing), 0, Box::default())
            }
            Memory::User { start, .. } => {
                let lead = start.0 & (self.backing.bytes() - 1);
                let pages = (lead + bytes).div_ceil(self.backing.bytes());
                // Every second place stays empty, so no two backing pages are neighbours. A power of
                // two, aligned: then the common leading bits of any two entries name the region.
                if !self.contiguous && pages > MAX_FRAMES {
                    return Err(fail("more backing pages than the mock keeps track of"));
                }
                let least = if self.contiguous { 2 * RUN_ALIGN } else { 0 };
                let room = pages
                    .checked_mul(2 * self.backing.bytes())
                    .and_then(|places| places.max(least).checked_next_power_of_two())
                    .filter(|room| *room <= TABLE_BASE / 4)
                    .ok_or_else(|| fail("larger than the simulated real memory"))?;
                let base = map.next_user.next_multiple_of(room);
                let next = base + room;
                if next > TABLE_BASE {
                    return Err(fail("the simulated real memory is full"));
                }
                map.next_user = next;
                map.pins += 1;
                if self.contiguous {
                    let at = Hpa(base + start.0 % RUN_ALIGN);
                    (RealLayout::contiguous(at, bytes, self.backing), lead, Box::default())
                } else {
                    let seed = self.seed.wrapping_add(map.pins);
                    let place_of = scatter(pages, seed);
                    let frame =
                        |place: &u32| Hpa(base + 2 * u64::from(*place) * self.backing.bytes());
                    let frames = place_of.iter().map(frame).collect();
                    let layout =
                        RealLayout::scattered(frames, lead, bytes, self.backing, base..next);
                    (layout, lead, inverse(&place_of))
                }
            }
        };
        let span = layout.span();
        let pinned = Pinned { end: span.end, memory, places, backing: self.backing, lead };
        map.pinned.insert(span.start, pinned);
        Ok(layout)
    }

    pub(super) fn unpin(&self, memory: Memory, layout: &RealLayout) {
        let gone = write(&self.map).pinned.remove(&layout.span().start);
        let ours = gone.map(|p| p.memory) == Some(memory);
        debug_assert!(ours || !stands(Guard::UnpinLast), "unpin of what was not pinned");
    }

    /// Pinned ranges and stretches of table that are still there.
    pub(super) fn leftovers(&self) -> (usize, usize) {
        let map = read(&self.map);
        (map.pinned.len(), map.stretches.len())
    }
}

/// The even place of each backing page: a permutation, from a seed.
fn scatter(pages: u64, seed: u64) -> Box<[u32]> {
    let mut places: Box<[u32]> = (0..pages).map(|place| place as u32).collect();
    let mut state = seed;
    // Fisher–Yates over splitmix64.
    for i in (1..places.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        places.swap(i, ((z ^ z >> 31) % (i as u64 + 1)) as usize);
    }
    places
}

/// Where in a permutation each number stands.
fn inverse(numbers: &[u32]) -> Box<[u32]> {
    let mut at = vec![0; numbers.len()];
    numbers.iter().enumerate().for_each(|(i, number)| at[*number as usize] = i as u32);
    at.into()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::addr::{Gra, Uaddr};

    #[test]
    fn scattered_pages_are_never_neighbours_and_lead_back() {
        let real = RealMemory::new(PageShift::K64, false, 7);
        let memory = Memory::User { start: Uaddr(0x7f00_0001_0000), bytes: 40 << 16 };
        let layout = real.pin(memory).unwrap();
        let mut at: Vec<_> = layout.extents(0..40 << 16).map(|e| e.at.0).collect();
        assert_eq!(at.len(), 40);
        for (i, a) in at.iter().enumerate() {
            assert_eq!(real.owner(Hpa(a + 5)), Some((memory, ((i as u64) << 16) + 5)));
            assert_eq!(real.owner(Hpa(a + (1 << 16))), None, "a hole behind each page");
        }
        let shuffled = at.clone();
        at.sort_unstable();
        assert_ne!(shuffled, at);
        assert!(at.windows(2).all(|w| w[1] - w[0] >= 2 << 16));
        real.unpin(memory, &layout);
        assert_eq!(real.leftovers(), (0, 0));
        assert!(!real.is_pinned(Hpa(at[0])));
    }

    #[test]
    fn guest_ram_stands_at_its_own_addresses() {
        let real = RealMemory::new(PageShift::M2, false, 7);
        let memory = Memory::Guest { start: Gra(0), bytes: 3 << 30 };
        let layout = real.pin(memory).unwrap();
        assert_eq!(layout.extent_at(0x1234_5000).at, Hpa(0x1234_5000));
        assert!(real.pin(Memory::Guest { start: Gra(1 << 30), bytes: 4096 }).is_err());
        assert!(real.pin(Memory::Guest { start: Gra(1 << 45), bytes: 1 << 46 }).is_err());
        assert!(real.is_pinned(Hpa((3 << 30) - 1)) && !real.is_pinned(Hpa(3 << 30)));
        real.unpin(memory, &layout);
    }

    #[test]
    fn table_memory_comes_and_goes() {
        let real = RealMemory::new(PageShift::M2, false, 7);
        let at = real.reserve_table(1 << 20).unwrap();
        assert_eq!(real.load_be(at), Err(NoRealMemory(at)));
        let chunk = Arc::new(TableChunk::new(1 << 16).unwrap());
        chunk.slots()[3].store(0x0102_0304_0506_0708u64.to_be(), Ordering::Relaxed);
        real.back_table(at, chunk);
        assert_eq!(real.load_be(Hpa(at.0 + 24)), Ok(0x0102_0304_0506_0708));
        assert!(real.load_be(Hpa(at.0 + (1 << 16))).is_err());
        real.free_table(at);
        assert!(real.load_be(at).is_err());
        assert_eq!(real.leftovers(), (0, 0));
    }
}
