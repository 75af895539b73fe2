// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The PAPR calls by which a guest edits its windows: H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE,
//! H_GET_TCE by LIOBN, and the four RTAS calls for dynamic windows.
//!
//! Checks and return codes are the architecture's (LoPAR). Entries hold the guest's own real
//! addresses and are kept as given: what a guest stores, H_GET_TCE returns, write-only and poison
//! included. A list is copied once, validated whole, then stored: all or nothing.

mod ddw;
mod vcpu;

use std::collections::BTreeMap;
use std::fmt;

pub use ddw::{DdwQuery, RtasStatus};
pub use vcpu::Vcpu;

use crate::addr::{Gra, GroupId, Ioba, Liobn};
use crate::backend::Memory;
use crate::container::{Container, LIST_MAX, Receipt};
use crate::engine::Engine;
use crate::error::{AttachError, EntryError, RegisterError, WindowError};
use crate::geometry::WindowSpec;
use crate::sync::{Arc, RwLock, read, write};
use crate::tce::Tce;

/// A hypercall's return code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HCode(pub i64);

impl HCode {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// The PHB or its memory failed.
    pub const HARDWARE: Self = Self(-1);
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
    /// What the call did; all 0 unless it succeeded.
    pub receipt: Receipt,
}

impl Answer {
    const fn refused(code: HCode) -> Self {
        Self { code, receipt: Receipt::NONE }
    }
}

impl From<Result<Receipt, EntryError>> for Answer {
    #[inline(always)]
    fn from(result: Result<Receipt, EntryError>) -> Self {
        match result {
            Ok(receipt) => Self { code: HCode::SUCCESS, receipt },
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
    names: RwLock<Names>,
}

impl Papr {
    /// A guest with `ram` bytes of memory from real address 0 and no PHB yet.
    #[must_use]
    pub fn new(ram: u64) -> Self {
        let ram = Memory::Guest { start: Gra(0), bytes: ram };
        Self { ram, names: RwLock::new(Names::default()) }
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
        let start = container.create_window(spec.window)?.start;
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
            info.map_or(0, |w| w.geometry.requested_entries())
        };
        names.liobns.iter().map(|(liobn, t)| (*liobn, t.start, entries(t))).collect()
    }

    /// The container behind a PHB: its windows, regions and tables.
    pub fn with_container<T>(&self, buid: u64, f: impl FnOnce(&Container) -> T) -> Option<T> {
        let phb = read(&self.names).phbs.get(&buid).cloned()?;
        Some(f(&phb.container))
    }

    /// Calls `f` with the window that a guest's register names.
    fn with_target(
        &self,
        liobn: u64,
        f: impl FnOnce(&Target) -> Result<Receipt, EntryError>,
    ) -> Answer {
        let names = read(&self.names);
        let target = u32::try_from(liobn).ok().and_then(|n| names.liobns.get(&Liobn(n)));
        target.map_or(Answer::refused(HCode::PARAMETER), |t| f(t).into())
    }

    /// H_PUT_TCE: one entry at `ioba`, the address of a page.
    #[must_use]
    pub fn put_tce(&self, liobn: u64, ioba: u64, tce: u64) -> Answer {
        let word = Tce::from_value(tce).to_be_word();
        self.with_target(liobn, |t| t.phb.container.store_words(t.start, Ioba(ioba), &[word]))
    }

    /// H_PUT_TCE_INDIRECT: `count` entries, at most 512, from the 4 KiB page at `list`.
    #[must_use]
    pub fn put_tce_indirect(
        &self,
        liobn: u64,
        ioba: u64,
        list: u64,
        count: u64,
        memory: &dyn GuestMemory,
    ) -> Answer {
        if (liobn as i64) < 0 {
            // The negative of a number of LIOBNs: the multi-table option, which is off.
            return Answer::refused(HCode::FUNCTION);
        }
        self.with_target(liobn, |t| {
            let mut words = [0u64; LIST_MAX];
            let words = indirect(list, count, memory, &mut words)?;
            t.phb.container.store_words(t.start, Ioba(ioba), words)
        })
    }

    /// H_STUFF_TCE: the same entry at `count` pages, at most 512.
    #[must_use]
    pub fn stuff_tce(&self, liobn: u64, ioba: u64, tce: u64, count: u64) -> Answer {
        if let Some(refused) = stuff(count) {
            return refused;
        }
        let tce = Tce::from_value(tce);
        self.with_target(liobn, |t| t.phb.container.store_same(t.start, Ioba(ioba), tce, count))
    }

    /// H_GET_TCE: the entry at `ioba`, the address of a page, as the guest stored it.
    #[must_use]
    pub fn get_tce(&self, liobn: u64, ioba: u64) -> (HCode, u64) {
        get(|value| {
            self.with_target(liobn, |t| {
                *value = t.phb.container.load(t.start, Ioba(ioba))?.value();
                Ok(Receipt::default())
            })
        })
    }
}

/// The private copy of a list: what is validated is what is stored.
fn indirect<'a>(
    list: u64,
    count: u64,
    memory: &dyn GuestMemory,
    words: &'a mut [u64; LIST_MAX],
) -> Result<&'a [u64], EntryError> {
    let bad_list = EntryError::NotMemory { address: list };
    if list & 0xfff != 0 || count > LIST_MAX as u64 {
        return Err(bad_list);
    }
    let words = &mut words[..count as usize];
    if memory.copy_words(Gra(list), words) { Ok(words) } else { Err(bad_list) }
}

/// Refuses H_STUFF_TCE of too many entries.
#[inline]
fn stuff(count: u64) -> Option<Answer> {
    (count > LIST_MAX as u64).then(|| Answer::refused(HCode::P4))
}

/// H_GET_TCE's answer by a load that hands out the value.
fn get(load: impl FnOnce(&mut u64) -> Answer) -> (HCode, u64) {
    let mut value = 0;
    let answer = load(&mut value);
    (answer.code, value)
}

impl fmt::Debug for Papr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Papr({:?}, windows {:?})", self.ram, self.windows())
    }
}
