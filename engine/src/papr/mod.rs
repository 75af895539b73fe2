// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The PAPR calls by which a guest edits its windows: H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE,
//! H_GET_TCE by LIOBN, and the four RTAS calls for dynamic windows.
//!
//! Checks and return codes are the architecture's (LoPAR), or those of KVM or QEMU ([`Compat`]).
//! Entries hold the guest's own real addresses and are kept as given: what a guest stores, H_GET_TCE
//! returns, write-only and poison included. A list is copied once, validated whole, then stored: all
//! or nothing.
//!
//! With [`Papr::multi_table`] one list may be for up to 128 LIOBNs. Each of their windows is checked
//! and locked before the first entry is stored. A LIOBN that is unknown, or whose window does not hold
//! all of the range in its own pages, is `H_PARAMETER`, and so are two windows of one PHB, which never
//! overlap; a LIOBN that is named twice counts once; windows of different PHBs, sizes and page sizes
//! may be mixed.
//!
//! With [`Papr::compose_pages`] a guest may have pages that its PEs lack: each entry of the guest
//! becomes several of the table's, with the same permission. Bus addresses, alignment, memory and
//! counts of a call are then in the guest's pages; [`Receipt`] counts the table's entries.
//!
//! # Bounds
//!
//! What a guest can make the engine spend, whatever it calls:
//!
//! * **Time.** H_GET_TCE looks at one entry. H_PUT_TCE changes one, H_PUT_TCE_INDIRECT at most 512, in
//!   each of up to 128 windows where the multi-table option is on, and H_STUFF_TCE at most 512, or, under
//!   [`Compat::Kvm`] and [`Compat::Qemu`], as many as its window has. Composed pages multiply these by
//!   their parts. A call that removes windows goes over all levels that they have. No call waits for
//!   another guest's, but a moment for the books where windows come and go; vCPUs of one guest wait for
//!   each other where they change the same entries, or one of them the windows.
//! * **Memory.** A PHB has at most two windows. A window's whole table is charged before it is made, so
//!   all tables together stay below [`EngineOptions::memlock`](crate::EngineOptions::memlock), or the
//!   platform's limit, less what is registered; without either, nothing limits them but the bus. Levels
//!   are made on demand and stay until their window goes. Beside each 8192 entries of them stand a lock and
//!   counts and, where kills may wait, 2 KiB of marks. A call itself keeps a copy of its list and of what it
//!   has to kill.

mod compat;
mod ddw;
mod multi;
mod vcpu;

use std::collections::BTreeMap;
use std::fmt;

pub use compat::Compat;
pub use ddw::{DdwQuery, RtasStatus};
pub use vcpu::Vcpu;

use crate::addr::{Gra, GroupId, Ioba, Liobn, PageSizes};
use crate::backend::Memory;
use crate::container::{Container, LIST_MAX, Place, Receipt};
use crate::engine::Engine;
use crate::error::{AttachError, EntryError, RegisterError, WindowError};
use crate::geometry::WindowSpec;
use crate::sync::{Arc, RwLock, read, write};
use crate::tce::Tce;
use compat::Entries;

/// A hypercall's return code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HCode(pub i64);

impl HCode {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// The PHB or its memory failed.
    pub const HARDWARE: Self = Self(-1);
    /// KVM leaves the call to its user space ([`Compat::Kvm`] only).
    pub const TOO_HARD: Self = Self(9999);
    /// The option is not offered (here: one list for several LIOBNs).
    pub const FUNCTION: Self = Self(-2);
    /// A parameter is wrong: LIOBN, range, alignment or entry.
    pub const PARAMETER: Self = Self(-4);
    /// No memory for the table.
    pub const NOT_ENOUGH_RESOURCES: Self = Self(-44);
    /// The fourth parameter is wrong.
    pub const P4: Self = Self(-57);
}

impl fmt::Debug for HCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SUCCESS => f.write_str("H_SUCCESS"),
            Self::TOO_HARD => f.write_str("H_TOO_HARD"),
            Self::HARDWARE => f.write_str("H_HARDWARE"),
            Self::FUNCTION => f.write_str("H_FUNCTION"),
            Self::PARAMETER => f.write_str("H_PARAMETER"),
            Self::NOT_ENOUGH_RESOURCES => f.write_str("H_NOT_ENOUGH_RESOURCES"),
            Self::P4 => f.write_str("H_P4"),
            Self(code) => write!(f, "H({code})"),
        }
    }
}

impl From<EntryError> for HCode {
    fn from(e: EntryError) -> Self {
        match e {
            EntryError::Table(crate::error::TableError::NoMemory(_)) => Self::NOT_ENOUGH_RESOURCES,
            _ => Self::PARAMETER,
        }
    }
}

/// A hypercall's answer: the guest's return code, and plain counts for whoever measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the guest gets in r3.
    pub code: HCode,
    /// What the call did, in entries of the table; all 0 if it failed, but for a list or an
    /// H_STUFF_TCE that was done in part ([`Compat`]).
    pub receipt: Receipt,
}

impl Answer {
    const fn refused(code: HCode) -> Self {
        Self { code, receipt: Receipt::NONE }
    }

    const fn done(receipt: Receipt) -> Self {
        Self { code: HCode::SUCCESS, receipt }
    }
}

impl From<Result<Receipt, EntryError>> for Answer {
    #[inline(always)]
    fn from(result: Result<Receipt, EntryError>) -> Self {
        match result {
            Ok(receipt) => Self::done(receipt),
            Err(e) => Self::refused(e.into()),
        }
    }
}

/// Where a guest's list pages are read from. It is called in the middle of a hypercall and must not
/// call back into the same [`Papr`].
pub trait GuestMemory {
    /// Copies big-endian doublewords from `at`, byte for byte, once: the guest may change them
    /// meanwhile. False if there is no such memory.
    fn copy_words(&self, at: Gra, words: &mut [u64]) -> bool;
}

/// A PHB to be given to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhbSpec {
    /// The guest's name for it.
    pub buid: u64,
    /// The group whose PE stands behind it.
    pub group: GroupId,
    /// LIOBN of the window in slot 0; that in slot 1 has the next one.
    pub liobn: Liobn,
    /// The default window.
    pub window: WindowSpec,
}

/// Why a PHB could not be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PhbError {
    /// The buid or one of the LIOBNs is taken.
    #[error("buid {buid:#x} or LIOBN {liobn} is in use")]
    InUse {
        /// The buid.
        buid: u64,
        /// The LIOBN of slot 0.
        liobn: Liobn,
    },
    /// The group cannot be had.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The guest's RAM cannot be pinned.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The default window cannot be made.
    #[error(transparent)]
    Window(#[from] WindowError),
}

/// A PHB of the guest: a container with one group.
struct Phb {
    spec: PhbSpec,
    container: Arc<Container>,
}

/// A window that a LIOBN names.
#[derive(Clone)]
struct Target {
    phb: Arc<Phb>,
    start: Ioba,
    /// True for the window that firmware made, false for a dynamic one.
    default: bool,
}

#[derive(Default)]
struct Names {
    phbs: BTreeMap<u64, Arc<Phb>>,
    liobns: BTreeMap<Liobn, Target>,
}

/// One guest's view: its PHBs and their LIOBNs.
pub struct Papr {
    ram: Memory,
    compat: Compat,
    multi_table: bool,
    composed: PageSizes,
    names: RwLock<Names>,
}

impl Papr {
    /// A guest with `ram` bytes of memory from real address 0 and no PHB yet, under the rules of the
    /// architecture and without its options.
    #[must_use]
    pub fn new(ram: u64) -> Self {
        let ram = Memory::Guest { start: Gra(0), bytes: ram };
        let (compat, composed) = (Compat::Arch, PageSizes::default());
        Self { ram, compat, multi_table: false, composed, names: RwLock::new(Names::default()) }
    }

    /// The same under the rules of `compat`.
    #[must_use]
    pub fn compat(self, compat: Compat) -> Self {
        Self { compat, ..self }
    }

    /// The same with the architecture's multi-TCE-table option: one list of H_PUT_TCE_INDIRECT for
    /// several LIOBNs. KVM and QEMU have no such option, and under their rules it stays off.
    #[must_use]
    pub fn multi_table(self) -> Self {
        Self { multi_table: true, ..self }
    }

    /// The same with windows in pages of `sizes` also where the PEs lack them, if they have smaller
    /// ones: each page is made of several of the largest of these.
    #[must_use]
    pub fn compose_pages(self, sizes: PageSizes) -> Self {
        Self { composed: sizes, ..self }
    }

    /// Gives the guest a PHB with its default window. Its RAM is registered with each, charged
    /// once.
    ///
    /// # Errors
    /// [`PhbError`]; nothing was added.
    pub fn add_phb(&self, engine: &Engine, spec: PhbSpec) -> Result<(), PhbError> {
        let mut names = write(&self.names);
        // Each PHB owns two LIOBNs, whether they name a window at the moment or not.
        let near =
            |p: &Arc<Phb>| [0, 1, u32::MAX].contains(&spec.liobn.0.wrapping_sub(p.spec.liobn.0));
        if names.phbs.contains_key(&spec.buid) || names.phbs.values().any(near) {
            return Err(PhbError::InUse { buid: spec.buid, liobn: spec.liobn });
        }
        // Dropped, and so closed, on any error.
        let container = engine.container();
        container.attach(spec.group)?;
        container.register_memory(self.ram)?;
        let start = container.create_guest_window(spec.window, self.composed)?.start;
        let phb = Arc::new(Phb { spec, container: Arc::new(container) });
        names.liobns.insert(spec.liobn, Target { phb: phb.clone(), start, default: true });
        names.phbs.insert(spec.buid, phb);
        Ok(())
    }

    /// LIOBNs that name a window now, with the window's start and number of entries.
    #[must_use]
    pub fn windows(&self) -> Vec<(Liobn, Ioba, u64)> {
        let names = read(&self.names);
        let entries = |t: &Target| {
            let info = t.phb.container.windows().into_iter().find(|w| w.start == t.start);
            info.map_or(0, |w| w.geometry.size() >> w.guest_page.get())
        };
        names.liobns.iter().map(|(liobn, t)| (*liobn, t.start, entries(t))).collect()
    }

    /// The container behind a PHB: its windows, regions and tables.
    pub fn with_container<T>(&self, buid: u64, f: impl FnOnce(&Container) -> T) -> Option<T> {
        let phb = read(&self.names).phbs.get(&buid).cloned()?;
        Some(f(&phb.container))
    }

    /// Calls `f` with the window that a guest's register names.
    fn with_target(&self, liobn: u64, f: impl FnOnce(&mut &Target) -> Answer) -> Answer {
        let names = read(&self.names);
        let target = u32::try_from(liobn).ok().and_then(|n| names.liobns.get(&Liobn(n)));
        match target {
            Some(mut target) => f(&mut target),
            None => Answer::refused(self.compat.unknown()),
        }
    }

    /// H_PUT_TCE: one entry at `ioba`, the address of a page.
    #[must_use]
    pub fn put_tce(&self, liobn: u64, ioba: u64, tce: u64) -> Answer {
        self.with_target(liobn, |on| self.compat.put(on, ioba, tce))
    }

    /// H_PUT_TCE_INDIRECT: `count` entries, at most 512, from the 4 KiB page at `list`. With
    /// [`Papr::multi_table`], `liobn` may be the negative of a number of LIOBNs, at most 128, with
    /// which the list begins; with them it is of at most 512 doublewords.
    #[must_use]
    pub fn put_tce_indirect(
        &self,
        liobn: u64,
        ioba: u64,
        list: u64,
        count: u64,
        memory: &dyn GuestMemory,
    ) -> Answer {
        let mut words = [0u64; LIST_MAX];
        if let Some(liobns) = several(self.compat, liobn) {
            return self.put_multi(liobns, ioba, list, count, memory, &mut words);
        }
        self.with_target(liobn, |on| {
            match copy_list(self.compat, list, count, memory, &mut words) {
                Ok(words) => self.compat.list(on, ioba, words),
                Err(code) => self.compat.no_list(on, ioba, code),
            }
        })
    }

    /// H_STUFF_TCE: the same entry at `count` pages, at most 512.
    #[must_use]
    pub fn stuff_tce(&self, liobn: u64, ioba: u64, tce: u64, count: u64) -> Answer {
        if too_many(self.compat, count) {
            return Answer::refused(HCode::P4);
        }
        self.with_target(liobn, |on| self.compat.stuff(on, ioba, tce, count))
    }

    /// H_GET_TCE: the entry at `ioba`, the address of a page, as the guest stored it.
    #[must_use]
    pub fn get_tce(&self, liobn: u64, ioba: u64) -> (HCode, u64) {
        let mut value = 0;
        let answer = self.with_target(liobn, |on| self.compat.get(on, ioba, &mut value));
        (answer.code, value)
    }
}

impl Entries for &Target {
    fn store_words(&mut self, at: Ioba, words: &[u64]) -> Result<Receipt, EntryError> {
        self.phb.container.store_words(self.start, at, words)
    }

    fn store_same(&mut self, at: Ioba, tce: Tce, count: u64) -> Result<Receipt, EntryError> {
        self.phb.container.store_same(self.start, at, tce, count)
    }

    fn load(&mut self, at: Ioba) -> Result<Tce, EntryError> {
        self.phb.container.load(self.start, at)
    }

    fn check(&mut self, at: Ioba, words: &[u64]) -> Result<(), EntryError> {
        self.phb.container.check(self.start, at, words)
    }

    fn place(&mut self, at: Ioba) -> Result<Place, EntryError> {
        self.phb.container.place(self.start, at)
    }
}

/// How many LIOBNs the list of H_PUT_TCE_INDIRECT begins with, if its first argument says so.
#[inline]
fn several(compat: Compat, liobn: u64) -> Option<u64> {
    let negative = (liobn as i64) < 0;
    (negative && compat == Compat::Arch).then(|| liobn.wrapping_neg())
}

/// True if H_STUFF_TCE of so many entries is refused whatever the window is.
#[inline]
fn too_many(compat: Compat, count: u64) -> bool {
    count > LIST_MAX as u64 && compat == Compat::Arch
}

/// The private copy of a list: what is validated is what is stored.
fn copy_list<'a>(
    compat: Compat,
    list: u64,
    count: u64,
    memory: &dyn GuestMemory,
    words: &'a mut [u64; LIST_MAX],
) -> Result<&'a [u64], HCode> {
    if list & 0xfff != 0 || count > LIST_MAX as u64 {
        return Err(HCode::PARAMETER);
    }
    let words = &mut words[..count as usize];
    if memory.copy_words(Gra(list), words) { Ok(words) } else { Err(compat.unreadable()) }
}

impl fmt::Debug for Papr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Papr({:?}, windows {:?})", self.ram, self.windows())
    }
}
