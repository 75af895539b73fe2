// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's side of a PE: while it owns the PE its own bypass is on and its own window is set. It
//! hands the PE over, and gets it back, in one order only.

use super::{MockEvent, OPAL_PARAMETER, Phb};
use crate::addr::PeNumber;
use crate::sync::{AtomicU64, Ordering};

/// The host's devices reach all memory untranslated. The TVE of slot 1 serves it.
const BYPASS: u64 = 1;
/// The host's own window, for devices with short addresses. The TVE of slot 0 serves it.
const DEFAULT_WINDOW: u64 = 2;

/// Whose a PE is.
pub(super) struct Owner {
    /// What of the host's is there: [`BYPASS`], [`DEFAULT_WINDOW`].
    host: AtomicU64,
    /// 1 while somebody has it from the host.
    taken: AtomicU64,
}

impl Default for Owner {
    /// The host's.
    fn default() -> Self {
        Self { host: AtomicU64::new(BYPASS | DEFAULT_WINDOW), taken: AtomicU64::new(0) }
    }
}

impl Phb {
    /// The host hands the PE over, if nobody has it: its bypass goes, then its window.
    pub(in super::super) fn take(&self, pe: PeNumber) -> bool {
        let taken = &self.pe(pe).owner.taken;
        let free = taken.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if free {
            self.event(|| MockEvent::Take(pe));
            self.bypass_off(pe);
            self.unset_default(pe);
        }
        free
    }

    /// The host takes the PE back: its window comes, then its bypass. It cannot while a window of
    /// another's is where they go; then the PE stays taken.
    pub(in super::super) fn give_back(&self, pe: PeNumber) {
        if self.set_default(pe).and_then(|()| self.bypass_on(pe)).is_ok() {
            self.event(|| MockEvent::GiveBack(pe));
            self.pe(pe).owner.taken.store(0, Ordering::Release);
        }
    }

    fn bypass_off(&self, pe: PeNumber) {
        self.pe(pe).owner.host.fetch_and(!BYPASS, Ordering::AcqRel);
        self.event(|| MockEvent::Bypass(pe, false));
    }

    fn unset_default(&self, pe: PeNumber) {
        self.pe(pe).owner.host.fetch_and(!DEFAULT_WINDOW, Ordering::AcqRel);
        self.event(|| MockEvent::DefaultWindow(pe, false));
    }

    /// The error is firmware's own code.
    fn set_default(&self, pe: PeNumber) -> Result<(), i64> {
        self.hosts_place(pe)?;
        self.pe(pe).owner.host.fetch_or(DEFAULT_WINDOW, Ordering::AcqRel);
        self.event(|| MockEvent::DefaultWindow(pe, true));
        Ok(())
    }

    /// The error is firmware's own code.
    fn bypass_on(&self, pe: PeNumber) -> Result<(), i64> {
        self.hosts_place(pe)?;
        self.pe(pe).owner.host.fetch_or(BYPASS, Ordering::AcqRel);
        self.event(|| MockEvent::Bypass(pe, true));
        Ok(())
    }

    /// Both of the PE's TVEs are free for what the host has there.
    fn hosts_place(&self, pe: PeNumber) -> Result<(), i64> {
        let free = self.pe(pe).tve.iter().all(|tve| tve.load(Ordering::Acquire) == 0);
        if free { Ok(()) } else { Err(OPAL_PARAMETER) }
    }

    pub(in super::super) fn bypass(&self, pe: PeNumber) -> bool {
        self.pe(pe).owner.host.load(Ordering::Acquire) & BYPASS != 0
    }

    pub(in super::super) fn default_window(&self, pe: PeNumber) -> bool {
        self.pe(pe).owner.host.load(Ordering::Acquire) & DEFAULT_WINDOW != 0
    }

    /// PEs that are not the host's.
    pub(in super::super) fn taken(&self) -> usize {
        self.pes.iter().filter(|pe| pe.owner.taken.load(Ordering::Acquire) != 0).count()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::addr::{Hpa, PageShift};
    use crate::backend::WindowProgram;

    const WINDOW: WindowProgram = WindowProgram {
        root: Hpa(0x1234_5000),
        levels: 2,
        block_bytes: 1 << 16,
        page: PageShift::K64,
    };

    #[test]
    fn a_pe_changes_hands_in_one_order_only() {
        use MockEvent::{Bypass, DefaultWindow, GiveBack, SetWindow, Take, UnsetWindow};
        let phb = Phb::new(1, true, None);
        let pe = PeNumber(0);
        let set = |slot| phb.set_window(pe, slot, &WINDOW);
        assert_eq!((phb.bypass(pe), phb.default_window(pe), phb.taken()), (true, true, 0));
        // Neither before the bypass is off, nor while the host's window stands.
        for step in [Phb::bypass_off, Phb::unset_default] {
            assert_eq!([set(0), set(1)], [Err(OPAL_PARAMETER); 2]);
            step(&phb, pe);
        }
        assert_eq!(phb.set_default(pe).and_then(|()| phb.bypass_on(pe)), Ok(()));
        drop(phb.take_events());

        assert!(phb.take(pe) && !phb.take(pe));
        set(1).unwrap();
        // The host gets nothing back while a window is set, whichever it is.
        phb.give_back(pe);
        assert_eq!((phb.bypass_on(pe), phb.set_default(pe)), (Err(-1), Err(-1)));
        assert_eq!((phb.bypass(pe), phb.default_window(pe), phb.taken()), (false, false, 1));
        phb.unset_window(pe, 1);
        phb.give_back(pe);
        assert_eq!((phb.bypass(pe), phb.default_window(pe), phb.taken()), (true, true, 0));
        let (off, on) = (false, true);
        let takes = [Take(pe), Bypass(pe, off), DefaultWindow(pe, off), SetWindow(pe, 1)];
        let gives = [UnsetWindow(pe, 1), DefaultWindow(pe, on), Bypass(pe, on), GiveBack(pe)];
        assert_eq!(phb.take_events(), [takes, gives].concat());
    }
}
