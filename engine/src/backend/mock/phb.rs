// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The software PHB: a TVT with two TVEs a PE, a walker, and a kill register, which counts and, where
//! there is a [`cache`](super::cache), empties it.

mod host;
pub(super) mod walk;

use super::cache::Caches;
use crate::addr::{Hpa, Ioba, PageShift, PeNumber};
use crate::backend::{KillScope, MAX_WINDOWS, Memory, PageRegister, WindowProgram, Word};
use crate::eeh::EehState;
use crate::sabotage::{Guard, stands};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use crate::tce::Perm;

/// What a device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads memory.
    Read,
    /// It writes memory.
    Write,
    /// Nothing: only whether there is a translation.
    Any,
}

/// Where an access arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The byte's real address.
    pub at: Hpa,
    /// What the entry allows.
    pub perm: Perm,
    /// Size of the page.
    pub page: PageShift,
}

/// Where an access arrives, and whose memory that is, with the offset in it.
pub type OwnedTranslation = (Translation, (Memory, u64));

/// Why an access does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no such PE.
    #[error("there is no PE {0}")]
    NoPe(PeNumber),
    /// The host still owns the PE: its own bypass or window is there and translation is not ours.
    #[error("PE {0} is the host's")]
    NotOwned(PeNumber),
    /// The address bits above a window's are not 0.
    #[error("bus address {0} is in no window's range")]
    BadAddress(Ioba),
    /// The TVE is disabled.
    #[error("window {slot} is not set")]
    NoWindow {
        /// Which of the PE's two.
        slot: usize,
    },
    /// The address is beyond what the levels decode.
    #[error("offset {offset:#x} is beyond the window")]
    Extent {
        /// Offset in the window.
        offset: u64,
    },
    /// An interior entry is empty.
    #[error("level {level} is absent")]
    NoLevel {
        /// The level it would have led to; 0 is the leaf.
        level: u32,
    },
    /// The leaf entry is empty.
    #[error("the entry is empty ({value:#x})")]
    Empty {
        /// The entry's bytes as a number.
        value: u64,
    },
    /// The entry does not allow this access.
    #[error("the entry allows {perm:?} only")]
    Denied {
        /// What it allows.
        perm: Perm,
    },
    /// An entry points to where no memory is.
    #[error("there is no memory at {0}")]
    NoMemory(Hpa),
    /// The PE's DMA is stopped; only [`Mock::dma`](super::Mock::dma) says so.
    #[error("PE {pe} is frozen ({state:?})")]
    Frozen {
        /// The PE.
        pe: PeNumber,
        /// Its state.
        state: EehState,
    },
}

/// What the recorder keeps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MockEvent {
    /// A window was programmed.
    SetWindow(PeNumber, usize),
    /// A window was disabled.
    UnsetWindow(PeNumber, usize),
    /// A word was stored to the kill register.
    Kill(PeNumber, u64),
    /// A completion fence.
    Fence,
    /// Ownership was taken: the two that follow belong to it.
    Take(PeNumber),
    /// The host's bypass went on or off.
    Bypass(PeNumber, bool),
    /// The host's own window, in slot 0, was set or unset.
    DefaultWindow(PeNumber, bool),
    /// Ownership was given back: the two before belong to it.
    GiveBack(PeNumber),
    /// The PE was frozen.
    Freeze(PeNumber),
}

/// One PE's state: two TVEs as the hardware has them, and whose it is.
pub(super) struct Pe {
    number: PeNumber,
    tve: [AtomicU64; MAX_WINDOWS],
    owner: host::Owner,
    last_kill: Arc<Word>,
    stores: AtomicU64,
}

pub(super) struct Phb {
    pes: Box<[Arc<Pe>]>,
    fences: AtomicU64,
    /// Stores through ports that are closed; their fences are in `fences`.
    closed_stores: AtomicU64,
    /// Counters of threads that have a port.
    ports: Mutex<Vec<Arc<PortCounts>>>,
    events: Option<Mutex<Vec<MockEvent>>>,
    /// Without them nothing that a device does is remembered.
    pub(super) caches: Option<Caches>,
}

/// What went through one thread's port, which alone writes it.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct PortCounts {
    stores: AtomicU64,
    fences: AtomicU64,
    /// By a register of its own: a store and a fence each.
    pages: Arc<Word>,
}

impl Pe {
    pub(super) fn number(&self) -> PeNumber {
        self.number
    }

    fn new(number: PeNumber) -> Self {
        Self {
            number,
            tve: Default::default(),
            owner: host::Owner::default(),
            last_kill: Arc::default(),
            stores: AtomicU64::new(0),
        }
    }

    /// The store that kills one page; returns the word.
    #[inline]
    pub(super) fn store_page_kill(&self, at: Ioba) {
        self.last_kill.store(self.page_kill() | at.0 & !0xfff);
    }

    /// The stores of one kill, of each of which `heard` is told the word; returns how many.
    #[inline]
    pub(super) fn store_kills(&self, scope: KillScope, mut heard: impl FnMut(u64)) -> u64 {
        let mut store = |word| {
            self.last_kill.store(word);
            heard(word);
        };
        match scope {
            KillScope::Pages { start, count, page } => {
                let at = |i: u64| start.0 + (i << page.get());
                (0..count).for_each(|i| store(self.page_kill() | at(i) & !0xfff));
                return count;
            }
            KillScope::Pe => store(KILL_PE | self.named()),
            KillScope::All => store(KILL_ALL),
        }
        1
    }

    /// The word, but for the page.
    fn page_kill(&self) -> u64 {
        KILL_PAGE | self.named()
    }

    /// The PE as kill words name it.
    fn named(&self) -> u64 {
        u64::from(self.number.0) ^ u64::from(!stands(Guard::KillPe))
    }
}

impl PortCounts {
    #[inline]
    pub(super) fn add(&self, stores: u64, fences: u64) {
        bump(&self.stores, stores);
        bump(&self.fences, fences);
    }

    pub(super) fn page_register(&self, pe: &Pe) -> PageRegister {
        let (register, kills) = (pe.last_kill.clone(), self.pages.clone());
        PageRegister { register, kill: pe.page_kill(), kills }
    }

    fn all_stores(&self) -> u64 {
        self.stores.load(Ordering::Acquire) + self.pages.load()
    }

    fn all_fences(&self) -> u64 {
        self.fences.load(Ordering::Acquire) + self.pages.load()
    }
}

/// Adds where nobody else writes.
#[inline]
fn bump(count: &AtomicU64, by: u64) {
    // Release: what the thread wrote before, tables above all, is seen by who sees the count.
    count.store(count.load(Ordering::Relaxed) + by, Ordering::Release);
}

#[cold]
fn record(events: &Mutex<Vec<MockEvent>>, event: MockEvent) {
    lock(events).push(event);
}

/// Firmware's word for what it does not do.
const OPAL_PARAMETER: i64 = -1;

/// Kill register: one page.
pub(super) const KILL_PAGE: u64 = 1 << 61;
/// Kill register: one PE.
pub(super) const KILL_PE: u64 = 1 << 62;
/// Kill register: all PEs.
pub(super) const KILL_ALL: u64 = 1 << 63;

/// A TVE: table address >> 12 in IBM bits 0–47, levels − 1 in 48–50, log2 of a level's bytes − 11
/// in 51–55, log2 of the page − 11 in 59–63.
fn encode_tve(w: &WindowProgram) -> u64 {
    let size_code = u64::from(w.block_bytes.trailing_zeros() - 11);
    (w.root.0 >> 12) << 16
        | u64::from(w.levels - 1) << 13
        | size_code << 8
        | u64::from(w.page.get() - 11)
}

impl Phb {
    pub(super) fn new(pes: usize, record: bool, caches: Option<Caches>) -> Self {
        Self {
            pes: (0..pes).map(|pe| Arc::new(Pe::new(PeNumber(pe as u16)))).collect(),
            fences: AtomicU64::new(0),
            closed_stores: AtomicU64::new(0),
            ports: Mutex::new(Vec::new()),
            events: record.then(|| Mutex::new(Vec::new())),
            caches,
        }
    }

    #[inline]
    pub(super) fn event(&self, event: impl FnOnce() -> MockEvent) {
        if let Some(events) = &self.events {
            record(events, event());
        }
    }

    #[inline]
    pub(super) fn pe(&self, pe: PeNumber) -> &Arc<Pe> {
        &self.pes[usize::from(pe.0)]
    }

    /// The error is firmware's own code.
    pub(super) fn set_window(
        &self,
        pe: PeNumber,
        slot: usize,
        window: &WindowProgram,
    ) -> Result<(), i64> {
        let bytes = window.block_bytes;
        if !bytes.is_power_of_two() || bytes < 4096 || !(1..=5).contains(&window.levels) {
            return Err(OPAL_PARAMETER);
        }
        // The host's bypass or window is still there: its devices would reach our memory.
        if window.root.0 & 0xfff != 0 || self.bypass(pe) || self.default_window(pe) {
            return Err(OPAL_PARAMETER);
        }
        self.pe(pe).tve[slot].store(encode_tve(window), Ordering::Release);
        self.event(|| MockEvent::SetWindow(pe, slot));
        Ok(())
    }

    pub(super) fn unset_window(&self, pe: PeNumber, slot: usize) {
        self.pe(pe).tve[slot].store(0, Ordering::Release);
        self.event(|| MockEvent::UnsetWindow(pe, slot));
    }

    pub(super) fn pe_count(&self) -> usize {
        self.pes.len()
    }

    /// The windows that are set on PE number `pe`.
    pub(super) fn windows(&self, pe: usize) -> impl Iterator<Item = walk::Tve> {
        (0..MAX_WINDOWS).filter_map(move |slot| self.pes[pe].tve(slot).ok())
    }

    pub(super) fn windows_set(&self) -> usize {
        let tves = self.pes.iter().flat_map(|pe| &pe.tve);
        tves.filter(|tve| tve.load(Ordering::Acquire) != 0).count()
    }

    pub(super) fn kill(&self, pe: PeNumber, scope: KillScope) -> u64 {
        let pe = self.pe(pe);
        let stores = self.store_kills(pe, scope);
        pe.stores.fetch_add(stores, Ordering::SeqCst);
        stores
    }

    /// The stores of one kill, but for their count.
    fn store_kills(&self, pe: &Pe, scope: KillScope) -> u64 {
        pe.store_kills(scope, |word| {
            if let Some(caches) = &self.caches {
                caches.kill(pe.number, word);
            }
            self.event(|| MockEvent::Kill(pe.number, word));
        })
    }

    pub(super) fn fence(&self) {
        self.wait();
        self.fences.fetch_add(1, Ordering::AcqRel);
        self.event(|| MockEvent::Fence);
    }

    /// Without a cache no access is in flight that a kill could have meant.
    fn wait(&self) {
        if let Some(caches) = &self.caches {
            caches.fence();
        }
    }

    pub(super) fn open_port(&self) -> Arc<PortCounts> {
        let counts = Arc::<PortCounts>::default();
        lock(&self.ports).push(counts.clone());
        counts
    }

    /// Keeps what a port has counted.
    pub(super) fn close_port(&self, counts: &Arc<PortCounts>) {
        let mut ports = lock(&self.ports);
        ports.retain(|port| !Arc::ptr_eq(port, counts));
        self.fences.fetch_add(counts.all_fences(), Ordering::AcqRel);
        self.closed_stores.fetch_add(counts.all_stores(), Ordering::SeqCst);
    }

    pub(super) fn port_kill(&self, counts: &PortCounts, pe: &Pe, scope: KillScope) -> u64 {
        let stores = self.store_kills(pe, scope);
        counts.add(stores, 0);
        stores
    }

    pub(super) fn port_fence(&self, counts: &PortCounts) {
        self.wait();
        counts.add(0, 1);
        self.event(|| MockEvent::Fence);
    }

    pub(super) fn register_stores(&self) -> u64 {
        let ports = lock(&self.ports);
        let pes = self.pes.iter().map(|pe| pe.stores.load(Ordering::Relaxed)).sum::<u64>();
        let closed = self.closed_stores.load(Ordering::Acquire);
        pes + closed + ports.iter().map(|port| port.all_stores()).sum::<u64>()
    }

    pub(super) fn last_kill_word(&self, pe: PeNumber) -> u64 {
        self.pe(pe).last_kill.load()
    }

    pub(super) fn fences(&self) -> u64 {
        let ports = lock(&self.ports);
        let closed = self.fences.load(Ordering::Acquire);
        closed + ports.iter().map(|port| port.all_fences()).sum::<u64>()
    }

    pub(super) fn take_events(&self) -> Vec<MockEvent> {
        self.events.as_ref().map(|e| std::mem::take(&mut *lock(e))).unwrap_or_default()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn k12_kill_register_words() {
        let phb = Phb::new(6, false, None);
        let pe = PeNumber(5);
        let stores = phb
            .kill(pe, KillScope::Pages { start: Ioba(0x1_0000), count: 1, page: PageShift::K64 });
        assert_eq!((stores, phb.last_kill_word(pe)), (1, 0x2000_0000_0001_0005));
        assert_eq!(phb.kill(pe, KillScope::Pe), 1);
        assert_eq!(phb.last_kill_word(pe), 0x4000_0000_0000_0005);
        assert_eq!(phb.kill(pe, KillScope::All), 1);
        assert_eq!(phb.last_kill_word(pe), 0x8000_0000_0000_0000);
        assert_eq!(phb.register_stores(), 3);
    }

    #[test]
    fn page_kills_step_by_the_iommu_page() {
        let phb = Phb::new(1, true, None);
        let scope = KillScope::Pages { start: Ioba(0x2_0000), count: 3, page: PageShift::K64 };
        assert_eq!(phb.kill(PeNumber(0), scope), 3);
        let words: Vec<_> = phb
            .take_events()
            .into_iter()
            .map(|e| if let MockEvent::Kill(_, w) = e { w & 0xffff_ffff } else { 0 })
            .collect();
        assert_eq!(words, [0x2_0000, 0x3_0000, 0x4_0000]);
    }

    #[test]
    fn tve_bits() {
        let tve = encode_tve(&WindowProgram {
            root: Hpa(0x1234_5000),
            levels: 2,
            block_bytes: 1 << 16,
            page: PageShift::K64,
        });
        assert_eq!(tve, 0x12345 << 16 | 1 << 13 | 5 << 8 | 5);
    }
}
