// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Answers beside what they have to be.

use std::fmt::Debug;

use tce_engine::addr::{Ioba, PageShift};
use tce_engine::container::{Receipt, WindowInfo};

use super::super::model::Done;
use super::super::model::shape::Shape;
use super::{Outcome, Wrong};

/// Which parts of a receipt are compared beside the entries.
#[derive(Clone, Copy)]
pub(super) struct Expect {
    pub(super) kills: bool,
}

/// Refuses what differs. What is the same is done or refused.
#[inline]
pub(super) fn same<T: Verdict>(what: &str, expected: &T, got: &T) -> Result<Outcome, Wrong> {
    if expected == got {
        return Ok(got.verdict());
    }
    Err(differ(what, expected, got))
}

#[cold]
fn differ(what: &str, expected: &dyn Debug, got: &dyn Debug) -> Wrong {
    Wrong { what: what.to_owned(), expected: format!("{expected:?}"), got: format!("{got:?}") }
}

/// What can be compared.
pub(super) trait Verdict: Debug + PartialEq {
    fn verdict(&self) -> Outcome {
        Outcome::Done
    }
}

impl<T: Debug + PartialEq, E: Debug + PartialEq> Verdict for Result<T, E> {
    fn verdict(&self) -> Outcome {
        if self.is_ok() { Outcome::Done } else { Outcome::Refused }
    }
}

impl<T: Debug + PartialEq> Verdict for Option<T> {}
impl<T: Debug + PartialEq> Verdict for Vec<T> {}
impl<T: Debug + PartialEq, U: Debug + PartialEq> Verdict for (T, U) {}
impl<T: Debug + PartialEq, U: Debug + PartialEq, V: Debug + PartialEq> Verdict for (T, U, V) {}
impl Verdict for u64 {}
impl Verdict for usize {}
impl Verdict for bool {}

/// The same for a receipt. Steps of a walk are not told by the interface, and requests to a kernel there
/// are none.
#[inline]
pub(super) fn expect<E: Debug + PartialEq>(
    expected: Result<Done, E>,
    got: Result<Receipt, E>,
    which: Expect,
) -> Result<Outcome, Wrong> {
    let fits = match (&expected, &got) {
        (Ok(done), Ok(receipt)) => {
            let kills = (receipt.kills.asked, receipt.kills.issued);
            (done.tces, done.released, done.requests, 0)
                == (receipt.tces, receipt.released, receipt.requests, receipt.ioctls)
                && (!which.kills || kills == (done.asked, done.issued))
        }
        (Err(expected), Err(got)) => expected == got,
        _ => false,
    };
    if fits {
        return Ok(if got.is_ok() { Outcome::Done } else { Outcome::Refused });
    }
    Err(differ("the answer", &expected, &got))
}

/// What of a window is compared.
pub(super) fn shape_of(info: &WindowInfo) -> (Ioba, PageShift, Shape) {
    let geometry = info.geometry;
    let (levels, entries, charge) = (geometry.levels(), geometry.entries(), geometry.charge());
    (info.start, geometry.page(), Shape { levels, entries, charge })
}
