// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Error handling of PEs (EEH): what can be asked for, and the states that a PE can be in.
//!
//! A bridge that meets an error of a PE freezes it: loads from its devices answer all-ones, stores to
//! them are dropped, and their DMA reaches nothing. Nothing of the other PEs changes, whatever windows
//! they share. [`Container::eeh`](crate::container::Container::eeh) carries operations out.

use std::fmt;

/// The state of a PE. In any but the first its devices do not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EehState {
    /// All is well.
    Normal,
    /// It is being reset.
    InReset,
    /// Neither loads and stores nor DMA.
    Stopped,
    /// Loads and stores, but no DMA.
    DmaStopped,
    /// It has been given up, or is in none of the other states.
    Unavailable,
    /// A number that has no name here.
    Other(i32),
}

impl From<i32> for EehState {
    fn from(state: i32) -> Self {
        match state {
            0 => Self::Normal,
            1 => Self::InReset,
            2 => Self::Stopped,
            4 => Self::DmaStopped,
            5 => Self::Unavailable,
            other => Self::Other(other),
        }
    }
}

/// What can be done to a PE. Windows and mappings are as before after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EehOp {
    /// Errors are to be handled. A bridge freezes PEs whether or not they are.
    Enable,
    /// They are not, any more.
    Disable,
    /// Loads and stores work again.
    UnfreezeIo,
    /// DMA works again.
    UnfreezeDma,
    /// Ends a reset: everything works again.
    ResetDeactivate,
    /// Begins a reset of the devices and of the links to them.
    ResetHot,
    /// Begins a reset as after power-on.
    ResetFundamental,
    /// Sets up the bridges of the PE again after a reset.
    Configure,
    /// Has the bridge see an error.
    Inject(EehInjection),
}

impl EehOp {
    /// Its name, for reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::UnfreezeIo => "unfreeze IO",
            Self::UnfreezeDma => "unfreeze DMA",
            Self::ResetDeactivate => "deactivate the reset",
            Self::ResetHot => "hot reset",
            Self::ResetFundamental => "fundamental reset",
            Self::Configure => "configure",
            Self::Inject(_) => "inject an error",
        }
    }
}

impl fmt::Display for EehOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error to be injected: it strikes at the PE's next access of this kind at such an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EehInjection {
    /// At which access.
    pub function: EehFunction,
    /// Its address: on the bus, of device memory or of main memory.
    pub address: u64,
    /// Which bits of the address count; 0 = any address.
    pub mask: u64,
    /// A 64-bit bus cycle instead of a 32-bit one.
    pub wide: bool,
}

impl EehInjection {
    /// An error at any address.
    #[must_use]
    pub const fn anywhere(function: EehFunction) -> Self {
        Self { function, address: 0, mask: 0, wide: true }
    }

    /// True if it strikes at an access of this kind at this address.
    #[must_use]
    pub const fn strikes(&self, access: EehAccess, at: u64) -> bool {
        self.function.access() as u32 == access as u32 && (at ^ self.address) & self.mask == 0
    }
}

/// The kind of error that is injected, by its number in the uapi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EehFunction(u32);

/// What an injected error waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EehAccess {
    /// The processor reads from a device.
    Load,
    /// The processor writes to a device.
    Store,
    /// A device reads memory.
    DmaRead,
    /// A device writes memory.
    DmaWrite,
}

impl EehFunction {
    /// The address of a load from device memory is wrong.
    pub const LOAD: Self = Self(0);
    /// The address of a store to device memory is wrong.
    pub const STORE: Self = Self(6);
    /// The address of a DMA read is wrong.
    pub const DMA_READ: Self = Self(12);
    /// The address of a DMA write is wrong.
    pub const DMA_WRITE: Self = Self(16);

    /// By number, 0 to 19: six each for loads and stores (of memory, IO and configuration space, by
    /// address and by data), four each for DMA reads and writes.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number < 20 { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The access that it is about.
    #[must_use]
    pub const fn access(self) -> EehAccess {
        match self.0 {
            0..6 => EehAccess::Load,
            6..12 => EehAccess::Store,
            12..16 => EehAccess::DmaRead,
            _ => EehAccess::DmaWrite,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn functions_are_sorted_by_access() {
        let all: Vec<_> = (0..20).map(|n| EehFunction::new(n).unwrap().access()).collect();
        let count = |access| all.iter().filter(|a| **a == access).count();
        assert_eq!((count(EehAccess::Load), count(EehAccess::Store)), (6, 6));
        assert_eq!((count(EehAccess::DmaRead), count(EehAccess::DmaWrite)), (4, 4));
        assert_eq!(EehFunction::new(20), None);
        assert_eq!(EehFunction::DMA_WRITE.access(), EehAccess::DmaWrite);
    }

    #[test]
    fn an_injection_strikes_where_its_mask_says() {
        let at = |address, mask| EehInjection {
            function: EehFunction::DMA_READ,
            address,
            mask,
            wide: false,
        };
        assert!(at(0x1000, !0xfff).strikes(EehAccess::DmaRead, 0x1abc));
        assert!(!at(0x1000, !0xfff).strikes(EehAccess::DmaRead, 0x2abc));
        assert!(!at(0x1000, !0xfff).strikes(EehAccess::DmaWrite, 0x1abc));
        assert!(EehInjection::anywhere(EehFunction::LOAD).strikes(EehAccess::Load, u64::MAX));
    }
}
