// SPDX-License-Identifier: Apache-2.0 OR MIT
//! RTAS calls for dynamic DMA windows, as QEMU has them.

use std::collections::HashMap;

use super::capture::Record;

const QUERY: u32 = 0x2026;
const CREATE: u32 = 0x2027;
const REMOVE: u32 = 0x2028;
const RESET: u32 = 0x2029;

/// QEMU's BUID of its first PHB; those of the others follow.
const FIRST_BUID: u64 = 0x0800_0000_2000_0000;
/// QEMU's LIOBN of the first window of its first PHB; those of the next PHB are 256 on.
const FIRST_LIOBN: u64 = 0x8000_0000;

/// A call and its answer. `status` is RTAS' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WindowCall {
    Query {
        buid: u64,
        status: i64,
        answers: Vec<u32>,
    },
    /// `given` is the LIOBN and where the window begins, if there is one.
    Create {
        buid: u64,
        page_shift: u8,
        entries: u64,
        status: i64,
        given: Option<(u32, u64)>,
    },
    Remove {
        liobn: u32,
        status: i64,
    },
    Reset {
        buid: u64,
        status: i64,
    },
}

impl WindowCall {
    /// The call of a record; `None` if it has not the arguments or answers that it needs.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let [token, inputs, outputs, rest @ ..] = record.words.as_slice() else { return None };
        let (inputs, answers) = rest.split_at_checked(usize::try_from(*inputs).ok()?)?;
        // H_RTAS itself may have refused.
        if record.ret != 0 || answers.len() != usize::try_from(*outputs).ok()? {
            return None;
        }
        let (status, answers) = answers.split_first()?;
        let status = i64::from(status.cast_signed());
        let long = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        Some(match (*token, inputs, answers) {
            (QUERY, [_, high, low], _) => {
                Self::Query { buid: long(*high, *low), status, answers: answers.to_vec() }
            }
            (CREATE, [_, high, low, page_shift, window_shift], [liobn, start, start_low]) => {
                let entries = window_shift.checked_sub(*page_shift);
                let entries = entries.and_then(|shift| 1_u64.checked_shl(shift));
                // A trace has no page of 2^64 bytes and more, and no window without a page.
                let page_shift = u8::try_from(*page_shift).ok().filter(|shift| *shift < 64)?;
                let given = (status == 0).then(|| (*liobn, long(*start, *start_low)));
                if given.is_some() && (entries.is_none() || page_shift < 12) {
                    return None;
                }
                let (buid, entries) = (long(*high, *low), entries.unwrap_or(0));
                Self::Create { buid, page_shift, entries, status, given }
            }
            (REMOVE, [liobn], _) => Self::Remove { liobn: *liobn, status },
            (RESET, [_, high, low], _) => Self::Reset { buid: long(*high, *low), status },
            _ => return None,
        })
    }
}

/// Which PHB a BUID is, as its windows' LIOBNs tell or else as QEMU numbers them.
#[derive(Debug, Default)]
pub(super) struct Buids(HashMap<u64, u32>);

impl Buids {
    pub(super) fn learn(&mut self, buid: u64, liobn: u32) {
        self.0.insert(buid, crate::trace::phb_of(liobn));
    }

    /// A LIOBN of the PHB.
    pub(super) fn liobn(&self, buid: u64) -> Option<u32> {
        self.0.get(&buid).copied().or_else(|| {
            let nth = buid.checked_sub(FIRST_BUID)?;
            u32::try_from(nth.checked_mul(256)?.checked_add(FIRST_LIOBN)?).ok()
        })
    }
}
