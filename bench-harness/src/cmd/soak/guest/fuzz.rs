// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hypercalls out of bytes, by one vCPU, with the checks of the hostile guest.

use std::time::Duration;

use tce_engine::kill::KillPolicy;
use tce_engine::papr::Compat;

use super::calls::{Hypercall, Lists};
use super::{Machine, PHBS, Place, RAM};
use crate::fuzz::Bytes;

/// A machine, a policy, a guest's rules and what its lists hold; then calls.
///
/// # Panics
/// If an answer cannot be right, if somebody else notices, or if something is left.
pub fn hypercall(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let machine = bytes.of(&Machine::ALL);
    let deferred = KillPolicy::Deferred { max_pages: 64, max_age: Duration::MAX };
    let policy = bytes.of(&[KillPolicy::Strict, KillPolicy::Batched, deferred]);
    let compat = bytes.of(&[Compat::Arch, Compat::Kvm, Compat::Qemu]);
    let lists = Lists::new();
    lists.fill(bytes.byte().into());
    let place = Place::new(&machine, policy, compat, 1);
    let mut vcpu = place.papr.vcpu();
    while !bytes.is_empty() {
        let call = next(&mut bytes);
        let came = call.make(&place.papr, &mut vcpu, &lists);
        if let Some(expected) = call.unsound(&came) {
            panic!("{call:x?}: {expected}, not {came:x?}");
        }
    }
    vcpu.submit();
    let mut bounds = place.bounds();
    place.check(&mut bounds).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    if let Some(wrong) = bounds.broken() {
        panic!("{wrong:?}");
    }
    drop(vcpu);
    place.end().unwrap_or_else(|wrong| panic!("{wrong:?}"));
}

fn next(bytes: &mut Bytes<'_>) -> Hypercall {
    match bytes.byte() % 16 {
        0..4 => Hypercall::Put { liobn: liobn(bytes), ioba: ioba(bytes), tce: tce(bytes) },
        4..6 => {
            let (liobn, ioba) = (liobn(bytes), ioba(bytes));
            let list = match bytes.byte() {
                page @ 0..240 => u64::from(page % 32) << 12,
                240..248 => u64::from(bytes.short()),
                _ => bytes.long(),
            };
            Hypercall::Indirect { liobn, ioba, list, count: count(bytes) }
        }
        6..9 => {
            let (liobn, ioba) = (liobn(bytes), ioba(bytes));
            Hypercall::Stuff { liobn, ioba, tce: tce(bytes), count: count(bytes) }
        }
        9 => Hypercall::Get { liobn: liobn(bytes), ioba: ioba(bytes) },
        10..12 => {
            let (page_shift, window_shift) = (bytes.byte().into(), bytes.byte().into());
            Hypercall::Create { buid: buid(bytes), page_shift, window_shift }
        }
        12 => Hypercall::Remove { liobn: liobn(bytes) as u32 },
        13 => Hypercall::Reset { buid: buid(bytes) },
        14 => Hypercall::Query { buid: buid(bytes) },
        _ => Hypercall::Submit,
    }
}

/// Own windows, those next to them, another guest's, several at once by a negative number, or any.
fn liobn(bytes: &mut Bytes<'_>) -> u64 {
    let [(.., first), (.., second)] = PHBS.map(|(a, b, liobn)| (a, b, u64::from(liobn)));
    match bytes.byte() {
        224.. => bytes.long(),
        200..224 => u64::from(bytes.byte()).wrapping_neg(),
        which => {
            let all = [first, first + 1, second, second + 1, first + 2, 0x9000_0000, 0];
            all[usize::from(which) % all.len()]
        }
    }
}

/// A page of one of the two windows there may be, or any address.
fn ioba(bytes: &mut Bytes<'_>) -> u64 {
    let kind = bytes.byte();
    if kind >= 0xf0 {
        return bytes.long();
    }
    let (start, shift) = (u64::from(kind & 1) << 59, [12, 16, 21, 24][usize::from(kind >> 1 & 3)]);
    start + (u64::from(bytes.short()) << shift)
}

/// An entry to the guest's memory, to what is behind it, or any.
fn tce(bytes: &mut Bytes<'_>) -> u64 {
    let kind = bytes.byte();
    let perm = u64::from(kind & 3);
    match kind >> 5 {
        0 => perm,
        1..4 => u64::from(bytes.short()) << 12 | perm,
        4..6 => ((u64::from(bytes.byte()) << 24) % RAM) | perm,
        6 => (RAM - 4096 + (u64::from(bytes.byte()) << 8)) | perm,
        _ => bytes.long(),
    }
}

fn count(bytes: &mut Bytes<'_>) -> u64 {
    match bytes.byte() {
        few @ 0..200 => few.into(),
        200..240 => bytes.short().into(),
        _ => bytes.long(),
    }
}

fn buid(bytes: &mut Bytes<'_>) -> u64 {
    bytes.of(&[PHBS[0].0, PHBS[1].0, PHBS[0].0, PHBS[1].0, 0xb0, 0, u64::MAX])
}
