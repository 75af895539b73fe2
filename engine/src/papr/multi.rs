// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The multi-TCE-table option: one list for several LIOBNs.

use super::{Answer, GuestMemory, HCode, Papr, Target, copy_list};
use crate::addr::{Ioba, Liobn};
use crate::container::{LIST_MAX, Receipt};
use crate::error::EntryError;
use crate::sync::read;

/// Most LIOBNs in one list.
const LIOBNS_MAX: u64 = 128;

impl Papr {
    /// H_PUT_TCE_INDIRECT whose first argument is the negative of a number of LIOBNs: these come
    /// first in the list, `count` entries follow.
    pub(super) fn put_multi(
        &self,
        liobns: u64,
        ioba: u64,
        list: u64,
        count: u64,
        memory: &dyn GuestMemory,
        words: &mut [u64; LIST_MAX],
    ) -> Answer {
        if !self.multi_table {
            return Answer::refused(HCode::FUNCTION);
        }
        if liobns > LIOBNS_MAX || count > LIST_MAX as u64 {
            return Answer::refused(HCode::PARAMETER);
        }
        let words = match copy_list(self.compat, list, liobns + count, memory, words) {
            Ok(words) => words,
            Err(code) => return Answer::refused(code),
        };
        let (liobns, words) = words.split_at(liobns as usize);
        let names = read(&self.names);
        let mut targets = [None; LIOBNS_MAX as usize];
        for (target, liobn) in targets.iter_mut().zip(liobns) {
            let liobn = u32::try_from(u64::from_be(*liobn)).ok();
            *target = liobn.and_then(|n| names.liobns.get(&Liobn(n)));
            if target.is_none() {
                return Answer::refused(HCode::PARAMETER);
            }
        }
        // One order for everybody, so that no two calls wait for each other's locks.
        let targets = &mut targets[..liobns.len()];
        targets.sort_unstable_by_key(|t| t.map(Target::order));
        store(targets, ioba, words).into()
    }
}

impl Target {
    /// Place in the order in which several are locked.
    fn order(&self) -> (u64, Ioba) {
        (self.phb.spec.buid, self.start)
    }
}

/// Stores to all of them or to none: what is checked and locked goes on to the next, and the last
/// one is the first to store. The receipts are added up.
fn store(targets: &[Option<&Target>], ioba: u64, words: &[u64]) -> Result<Receipt, EntryError> {
    let Some((&Some(target), rest)) = targets.split_first() else { return Ok(Receipt::NONE) };
    let (buid, start) = target.order();
    // Twice the same is once. Windows of one PHB never overlap, so `ioba` is outside of one of them.
    let again = rest.iter().take_while(|t| t.map(Target::order) == Some((buid, start))).count();
    let rest = &rest[again..];
    if let Some(Some(next)) = rest.first()
        && next.phb.spec.buid == buid
    {
        return Err(EntryError::OutsideWindow { at: Ioba(ioba), count: words.len() as u64 });
    }
    let mut others = Receipt::NONE;
    let mut done = target.phb.container.store_words_after(start, Ioba(ioba), words, || {
        others = store(rest, ioba, words)?;
        Ok(())
    })?;
    done += others;
    Ok(done)
}
