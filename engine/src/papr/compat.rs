// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the four calls do to one window: the architecture's rules, and those of KVM and QEMU where
//! they differ.
//!
//! All begin with the architecture's all-or-nothing store. What that accepts, KVM and QEMU accept
//! too, with the same result; so only a refused call, which is rare, asks which rules it is under.

use super::{Answer, HCode};
use crate::addr::{Ioba, PageShift};
use crate::container::{Place, Receipt};
use crate::error::EntryError;
use crate::tce::Tce;

/// Whose answers a guest gets.
///
/// | | [`Arch`](Self::Arch) | [`Kvm`](Self::Kvm) | [`Qemu`](Self::Qemu) |
/// |---|---|---|---|
/// | unknown LIOBN | `H_PARAMETER` | `H_TOO_HARD` | `H_PARAMETER` |
/// | LIOBN that is a negative number, in H_PUT_TCE_INDIRECT | the multi-TCE-table option; `H_FUNCTION` if it is off | as unknown | as unknown |
/// | bus address inside a page | `H_PARAMETER` | `H_PARAMETER` | that of the page |
/// | bad entry, H_PUT_TCE | `H_PARAMETER` | `H_TOO_HARD` | `H_PARAMETER` |
/// | bad entry, list | nothing stored, `H_PARAMETER` | nothing stored, `H_TOO_HARD` | those before it stay, `H_PARAMETER` |
/// | list that goes past the window's end | nothing stored, `H_PARAMETER` | those before the end stay, `H_PARAMETER` | the same |
/// | no memory for a level at entry *i* of a list | nothing stored | those before *i* stay, *i* reads 0 | those before *i* stay |
/// | list page that cannot be read | `H_PARAMETER` | `H_TOO_HARD` | `H_PARAMETER` |
/// | list of more than 512, or not at a multiple of 4 KiB | `H_PARAMETER` | the same | the same |
/// | empty list | `H_SUCCESS` | `H_SUCCESS` | `H_PARAMETER` |
/// | H_STUFF_TCE with a permission bit | stored | `H_PARAMETER` | stored |
/// | H_STUFF_TCE of more than 512 | `H_P4` | stored | stored; `H_PARAMETER` if the window has fewer |
/// | H_STUFF_TCE past the window's end | nothing stored, `H_PARAMETER` | those before the end stored, `H_PARAMETER` | the same |
///
/// `H_TOO_HARD` is what KVM tells its user space, which then answers the guest.
///
/// What is not imitated, as it would write outside of the window, or let a device reach what is
/// not the guest's memory:
/// * KVM looks at the first bus address of a call only. Here nothing beyond the window's end is
///   stored, and the call that tried is told so.
/// * QEMU stores any value and finds out when a device uses it. Here a live entry has to point to
///   RAM, and has no reserved bit set, before it is stored.
/// * KVM reads the list twice, QEMU entry by entry. Here it is copied once, whole: a guest that
///   changes it meanwhile gets one of its versions. QEMU reads a missing page as something.
/// * KVM kills what it changed entry by entry. Here one kill is made for each call that succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compat {
    /// The architecture's (LoPAR): a call is done, or nothing is.
    #[default]
    Arch,
    /// Those of KVM's handlers in virtual mode.
    Kvm,
    /// Those of QEMU.
    Qemu,
}

/// One window, as a call finds it.
pub(super) trait Entries {
    fn store_words(&mut self, at: Ioba, words: &[u64]) -> Result<Receipt, EntryError>;
    fn store_same(&mut self, at: Ioba, tce: Tce, count: u64) -> Result<Receipt, EntryError>;
    fn load(&mut self, at: Ioba) -> Result<Tce, EntryError>;
    /// Checks a list, but of its bus addresses only the first.
    fn check(&mut self, at: Ioba, words: &[u64]) -> Result<(), EntryError>;
    fn place(&mut self, at: Ioba) -> Result<Place, EntryError>;
}

/// Bus address of the page that `ioba` lies in.
fn page_of(ioba: u64, page: PageShift) -> u64 {
    ioba & !(page.bytes() - 1)
}

impl Compat {
    /// For a LIOBN that names nothing.
    #[cold]
    pub(super) const fn unknown(self) -> HCode {
        match self {
            Self::Kvm => HCode::TOO_HARD,
            Self::Arch | Self::Qemu => HCode::PARAMETER,
        }
    }

    /// For a list page that cannot be read.
    #[cold]
    pub(super) const fn unreadable(self) -> HCode {
        self.unknown()
    }

    #[cold]
    fn refuse(self, e: EntryError) -> Answer {
        Answer::refused(match e {
            // A vCPU remembers LIOBNs whose window has gone.
            EntryError::NoWindow(_) => self.unknown(),
            EntryError::Reserved { .. } | EntryError::NotMemory { .. } if self == Self::Kvm => {
                HCode::TOO_HARD
            }
            e => e.into(),
        })
    }

    /// H_PUT_TCE.
    #[inline]
    pub(super) fn put(self, on: &mut impl Entries, ioba: u64, tce: u64) -> Answer {
        let tce = Tce::from_value(tce);
        match on.store_same(Ioba(ioba), tce, 1) {
            Ok(receipt) => Answer::done(receipt),
            Err(e) => self.put_refused(on, ioba, tce, e),
        }
    }

    #[cold]
    fn put_refused(self, on: &mut impl Entries, ioba: u64, tce: Tce, e: EntryError) -> Answer {
        let done = match e {
            EntryError::Unaligned { page, .. } if self == Self::Qemu => {
                on.store_same(Ioba(page_of(ioba, page)), tce, 1)
            }
            e => Err(e),
        };
        done.map_or_else(|e| self.refuse(e), Answer::done)
    }

    /// H_GET_TCE.
    #[inline]
    pub(super) fn get(self, on: &mut impl Entries, ioba: u64, value: &mut u64) -> Answer {
        let found = match on.load(Ioba(ioba)) {
            Err(EntryError::Unaligned { page, .. }) if self == Self::Qemu => {
                on.load(Ioba(page_of(ioba, page)))
            }
            found => found,
        };
        match found {
            Ok(tce) => {
                *value = tce.value();
                Answer::done(Receipt::NONE)
            }
            Err(e) => self.refuse(e),
        }
    }

    /// H_PUT_TCE_INDIRECT of a list that was copied.
    #[inline]
    pub(super) fn list(self, on: &mut impl Entries, ioba: u64, words: &[u64]) -> Answer {
        match on.store_words(Ioba(ioba), words) {
            Ok(receipt) if !words.is_empty() => Answer::done(receipt),
            done => self.list_refused(on, ioba, words, done),
        }
    }

    /// H_PUT_TCE_INDIRECT of a list that could not be copied, for which it would get `code`.
    #[cold]
    pub(super) fn no_list(self, on: &mut impl Entries, ioba: u64, code: HCode) -> Answer {
        match on.place(Ioba(ioba)) {
            Err(e @ EntryError::NoWindow(_)) => self.refuse(e),
            _ => Answer::refused(code),
        }
    }

    #[cold]
    fn list_refused(
        self,
        on: &mut impl Entries,
        ioba: u64,
        words: &[u64],
        done: Result<Receipt, EntryError>,
    ) -> Answer {
        if words.is_empty() && self == Self::Qemu {
            return Answer::refused(HCode::PARAMETER);
        }
        let Err(e) = done else { return Answer::done(Receipt::NONE) };
        if self == Self::Arch {
            return self.refuse(e);
        }
        let place = match on.place(Ioba(ioba)) {
            Ok(place) => place,
            Err(e) => return self.refuse(e),
        };
        if self == Self::Kvm
            && let Err(e) = on.check(Ioba(ioba), words)
        {
            return self.refuse(e);
        }
        // As far as it goes. An entry that fails now had no level, so it reads 0 as if cleared.
        let (start, mut receipt) = (page_of(ioba, place.page), Receipt::NONE);
        for (n, word) in (0..place.left()).zip(words) {
            let at = Ioba(start + (n << place.page.get()));
            match on.store_same(at, Tce::from_be_word(*word), 1) {
                Ok(done) => receipt += done,
                Err(e) => return Answer { code: e.into(), receipt },
            }
        }
        let whole = words.len() as u64 <= place.left();
        Answer { code: if whole { HCode::SUCCESS } else { HCode::PARAMETER }, receipt }
    }

    /// H_STUFF_TCE of a count that the architecture allows, or under other rules.
    #[inline]
    pub(super) fn stuff(self, on: &mut impl Entries, ioba: u64, tce: u64, count: u64) -> Answer {
        let tce = Tce::from_value(tce);
        if !tce.is_empty() && self == Self::Kvm {
            let found = on.place(Ioba(ioba));
            return found.map_or_else(|e| self.refuse(e), |_| Answer::refused(HCode::PARAMETER));
        }
        match on.store_same(Ioba(ioba), tce, count) {
            Ok(receipt) => Answer::done(receipt),
            Err(e) => self.stuff_refused(on, ioba, tce, count, e),
        }
    }

    #[cold]
    fn stuff_refused(
        self,
        on: &mut impl Entries,
        ioba: u64,
        tce: Tce,
        count: u64,
        e: EntryError,
    ) -> Answer {
        let place = match (self, on.place(Ioba(ioba))) {
            (Self::Kvm | Self::Qemu, Ok(place)) => place,
            _ => return self.refuse(e),
        };
        let start = page_of(ioba, place.page);
        if self == Self::Kvm && start != ioba || self == Self::Qemu && count > place.entries {
            return Answer::refused(HCode::PARAMETER);
        }
        let inside = count.min(place.left());
        match on.store_same(Ioba(start), tce, inside) {
            Ok(receipt) if inside == count => Answer::done(receipt),
            Ok(receipt) => Answer { code: HCode::PARAMETER, receipt },
            Err(e) => self.refuse(e),
        }
    }
}
