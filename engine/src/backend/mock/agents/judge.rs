// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an access may find, and what is wrong if it finds something else.

use std::fmt;

use super::state::Stable;
use super::{Access, Fault, Hpa, Ioba, Memory, PeNumber, Translation, Uaddr};
use crate::backend::mock::TceEvent;
use crate::tce::Perm;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The page was reached although the engine had let it go.
    Stale,
    /// Nothing was reached although the page was mapped.
    StaleEmpty,
    /// Another page was reached than the one that was mapped.
    OtherPage,
    /// A store was let through to what the engine has mapped for loads only.
    Permission,
    /// Memory was reached that is nobody's any more.
    Unpinned,
}

/// What an access found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A page.
    Page {
        /// Where.
        to: Translation,
        /// Whose it was all the time, and the offset there; `None` if nobody's, then or in the end.
        owner: Option<(Memory, u64)>,
    },
    /// Nothing.
    Fault(Fault),
}

impl Found {
    pub(super) fn arrived(&self) -> bool {
        matches!(self, Self::Page { .. })
    }
}

/// Something that happened to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A call began that may change it.
    Begin(&'static str),
    /// Such a call returned, and this is mapped.
    Mapped(Uaddr),
    /// Such a call returned, and nothing is mapped; but until kills that are owed have been waited for,
    /// this may be found.
    Owed(Uaddr),
    /// Such a call returned, or what it owed was settled, and nothing is mapped.
    Released,
    /// Accesses in a row that ended alike.
    Access {
        /// Whose.
        pe: PeNumber,
        /// What the first of them was.
        access: Access,
        /// Whether a page was reached.
        arrived: bool,
        /// How many.
        times: u64,
    },
    /// In the TCE cache.
    Cache(TceEvent),
}

/// A device found what it must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong.
    pub kind: Kind,
    /// Whose access it was.
    pub pe: PeNumber,
    /// Where to.
    pub at: Ioba,
    /// What it was.
    pub access: Access,
    /// What it found.
    pub found: Found,
    /// What had happened to the page, by the mock's time.
    pub history: Vec<(u64, Event)>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, pe, at, access, found, history } = self;
        write!(f, "{kind:?}: PE {pe} at {at}, {access:?}, found {found:x?}")?;
        history.iter().try_for_each(|(now, event)| write!(f, "\n  {now:>8} {event:x?}"))
    }
}

/// What is wrong with what an access found, if it must find something.
pub(super) fn judge(must: Option<Stable>, found: &Found, access: Access) -> Option<Kind> {
    match found {
        // Whatever else is going on, a translation never leads to what is not there.
        Found::Page { owner: None, .. } | Found::Fault(Fault::NoMemory(Hpa(_))) => {
            Some(Kind::Unpinned)
        }
        Found::Page { to, owner: Some((memory, offset)) } => match must? {
            Stable::Nothing => Some(Kind::Stale),
            Stable::Mapped { memory: page, perm } | Stable::Owed { memory: page, perm } => {
                if memory.start() + offset != page.0 {
                    return Some(Kind::OtherPage);
                }
                let more = access == Access::Write && !perm.allows(Perm::WRITE);
                (more || to.perm != perm).then_some(Kind::Permission)
            }
            Stable::On(_) => None,
        },
        Found::Fault(_) => match must? {
            Stable::Mapped { perm, .. } => {
                let needed = if access == Access::Write { Perm::WRITE } else { Perm::READ };
                perm.allows(needed).then_some(Kind::StaleEmpty)
            }
            Stable::Nothing | Stable::Owed { .. } | Stable::On(_) => None,
        },
    }
}
