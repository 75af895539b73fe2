// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest's calls.

use super::*;
use crate::addr::Gra;
use crate::backend::Memory;

/// A handle on a guest's window, settled at page 0.
fn guest(policy: KillPolicy) -> (Arc<Mock>, Arc<Container>, Mapper) {
    let mock = MockBuilder::new(2).build();
    let c = engine(&mock, policy).container();
    c.attach(GroupId(0)).unwrap();
    c.register_memory(Memory::Guest { start: Gra(0), bytes: 16 * M }).unwrap();
    // With two levels the table has more entries than the guest asked for.
    c.create_window(WindowSpec::new(2 * M, PageShift::K4).levels(2)).unwrap();
    let c = Arc::new(c);
    let mut m = c.mapper();
    for tce in [Tce::of_page(0, RW), Tce::EMPTY].into_iter().cycle().take(8) {
        m.store_same(Ioba(0), Ioba(0), tce, 1).unwrap();
    }
    m.submit();
    (mock, c, m)
}

#[test]
fn words_of_a_guest() {
    let (_, c, mut m) = guest(KillPolicy::Strict);
    let mut store = |window, at, tce| {
        let done = m.try_one(Ioba(window), Ioba(at), tce)?;
        assert_eq!((done.tces, done.steps), (1, u64::from(tce == Tce::EMPTY)));
        Some(done.released)
    };
    let page = |n: u64| Tce::of_page(n * P, RW);
    assert_eq!(store(0, 0, page(1)), Some(0));
    assert_eq!(c.regions()[0].mapped, 1);
    assert_eq!(store(0, 0, page(2)), Some(1), "replaced");
    assert_eq!(c.regions()[0].mapped, 1);
    assert_eq!(store(0, 0, Tce::EMPTY), Some(1));
    assert_eq!(store(0, 0, Tce::EMPTY), Some(0));
    assert_eq!(c.regions()[0].mapped, 0);
    let odd = Tce::from_value(page(1).value() | 4);
    let beyond = 2 * M;
    for (window, at, tce) in [
        (0, 0, odd),
        (0, 0, page(16 * M / P)),
        (0, 0, Tce::from_value(P)),
        (P, P, page(1)),
        (0, beyond, page(1)),
        (0, 1, page(1)),
    ] {
        assert_eq!(store(window, at, tce), None, "{tce:?} at {at:#x} of {window:#x}");
    }
    assert_eq!(store(0, beyond - P, page(1)), Some(0));
}

#[test]
fn runs_that_a_guest_clears() {
    let (mock, c, mut m) = guest(KillPolicy::Strict);
    for n in 0..8 {
        m.store_same(Ioba(0), Ioba(n * P), Tce::of_page(n * P, RW), 1).unwrap();
    }
    let last = 2 * M - P;
    m.store_same(Ioba(0), Ioba(last), Tce::of_page(0, RW), 1).unwrap();
    for (window, at, count) in [(0, 0, 0), (0, 0, 33), (P, P, 2), (0, last, 2)] {
        assert!(m.try_clear(Ioba(window), Ioba(at), count).is_none(), "{count} at {at:#x}");
    }
    assert_eq!(c.regions()[0].mapped, 9);
    let done = m.try_clear(Ioba(0), Ioba(0), 32).unwrap();
    assert_eq!((done.tces, done.released, done.steps), (32, 8, 1));
    assert_eq!(m.try_clear(Ioba(0), Ioba(last), 1).map(|done| done.released), Some(1));
    let pe = crate::addr::PeNumber(0);
    assert!((0..2 * M / P).all(|n| mock.probe(pe, Ioba(n * P)).is_err()));
    assert_eq!(c.regions()[0].mapped, 0);
}

#[test]
fn a_guest_whose_kills_wait() {
    let (_, c, mut m) = guest(deferred());
    let page = |n: u64| Tce::of_page(n * P, RW);
    let last = 2 * M - P;
    let odd = Tce::from_value(page(1).value() | 4);
    for (window, at, tce) in [
        (0, 0, odd),
        (0, 0, page(16 * M / P)),
        (0, 0, Tce::from_value(P)),
        (P, P, page(1)),
        (0, last + P, page(1)),
        (P, P, Tce::EMPTY),
        (0, last + P, Tce::EMPTY),
    ] {
        let done = m.try_one_later(Ioba(window), Ioba(at), tce);
        assert!(done.is_none(), "{tce:?} at {at:#x} of {window:#x}");
    }
    for at in [0, P, 2 * P, last] {
        let done = m.try_one_later(Ioba(0), Ioba(at), page(1)).unwrap();
        assert_eq!((done.tces, done.released, done.steps, done.kills.issued), (1, 0, 0, 1));
    }
    assert!(m.try_one_later(Ioba(0), Ioba(0), page(2)).is_none(), "it is live");
    let done = m.try_one_later(Ioba(0), Ioba(0), Tce::EMPTY).unwrap();
    assert_eq!((done.tces, done.released, done.steps, done.kills.issued), (1, 1, 1, 0));
    assert_eq!((m.owed(), c.regions()[0].mapped), (1, 4));
    for (window, at, count) in [(0, 0, 0), (P, P, 2), (0, last, 2), (0, 0, 65)] {
        let done = m.try_clear_later(Ioba(window), Ioba(at), count);
        assert!(done.is_none(), "{count} at {at:#x} of {window:#x}");
    }
    let done = m.try_clear_later(Ioba(0), Ioba(0), 32).unwrap();
    assert_eq!((done.tces, done.released, done.steps), (32, 2, 1));
    assert_eq!(m.try_clear_later(Ioba(0), Ioba(last), 1).map(|done| done.released), Some(1));
    assert_eq!((m.owed(), m.held_back()), (4, 4));
    assert_eq!((m.submit().issued, c.regions()[0].mapped), (4, 0));
}
