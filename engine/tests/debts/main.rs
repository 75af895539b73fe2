// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kills that wait: what a handle owes, what waits with it, and who settles it.

mod marks;
mod model;

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use tce_engine::addr::{Ioba, Liobn, PageShift, Uaddr};
use tce_engine::backend::KillCaps;
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::{Container, MapRequest, Mapper, Mode, Removal, UnmapRequest};
use tce_engine::engine::EngineOptions;
use tce_engine::error::{MapError, UnmapError};
use tce_engine::geometry::WindowSpec;
use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace};
use tce_engine::kill::KillPolicy;
use tce_engine::papr::{HCode, Papr, PhbSpec};
use tce_engine::tce::Perm;

pub(crate) const A: Uaddr = Uaddr(0x7f00_0000_0000);
pub(crate) const P: u64 = 4 * K;
pub(crate) const RW: Perm = Perm::READ_WRITE;
const FOREVER: Duration = Duration::MAX;

pub(crate) fn deferred(max_pages: u32) -> KillPolicy {
    KillPolicy::Deferred { max_pages, max_age: FOREVER }
}

pub(crate) fn rig(policy: KillPolicy, kill: KillCaps) -> Rig {
    let options = EngineOptions { policy, ..EngineOptions::default() };
    Rig::with(MockBuilder::new(3).kill(kill), options)
}

/// Two members, a window of 64 MiB and as much memory in two regions.
pub(crate) fn container(rig: &Rig) -> Arc<Container> {
    let c = rig.container(&[G0, G1]);
    c.create_window(WindowSpec::new(64 * M, PageShift::K4)).unwrap();
    c.register(A, 32 * M).unwrap();
    c.register(Uaddr(A.0 + 32 * M), 32 * M).unwrap();
    Arc::new(c)
}

pub(crate) fn memory(page: u64) -> Uaddr {
    Uaddr(A.0 + page * P)
}

fn map(mapper: &mut Mapper, page: u64) {
    mapper.map(Ioba(page * P), memory(page), P, RW, Mode::Refuse).unwrap();
}

fn unmap(mapper: &mut Mapper, page: u64) {
    let done = mapper.unmap(Ioba(page * P), P).unwrap();
    assert_eq!((done.tces, done.released), (1, 1));
}

/// A handle to which the lock of the page's segment was left, and which owes nothing.
fn settled(c: &Arc<Container>, page: u64) -> Mapper {
    let mut mapper = c.mapper();
    (0..4).for_each(|_| {
        map(&mut mapper, page);
        unmap(&mut mapper, page);
    });
    mapper.submit();
    mapper
}

/// One of another page, with the first eight addresses of the bus.
fn settled_with_addresses(c: &Arc<Container>) -> (Arc<IobaAllocator>, Mapper) {
    let space = IobaSpace { start: Ioba(0), bytes: 8 * P, page: PageShift::K4 };
    let addresses = IobaAllocator::new(space, IobaOptions::default()).unwrap();
    let mapper = settled(c, 100).with_addresses(&addresses);
    (addresses, mapper)
}

/// Kills that were stored, and fences.
pub(crate) fn kills(rig: &Rig) -> (u64, u64) {
    (rig.mock.register_stores(), rig.mock.fences())
}

/// A range is filled on credit where all fills may wait and there is room, and nowhere else.
#[test]
fn ranges_that_are_filled_on_credit() {
    let most = u64::from(KillPolicy::MAX_PAGES);
    for (policy, on_fill, pages, owed, kills) in [
        (KillPolicy::Batched, true, 4, 4, 0),
        (KillPolicy::Batched, true, most, most, 0),
        (KillPolicy::Batched, true, most + 1, 0, 2 * (most + 1)),
        (KillPolicy::Batched, false, 4, 0, 2),
        (deferred(64), true, 4, 0, 2 * 4),
    ] {
        let rig = rig(policy, phb3(on_fill));
        let c = container(&rig);
        let mut m = settled(&c, 1);
        c.map(Ioba(0), A, P, RW, Mode::Refuse).unwrap();
        let done = m.map(Ioba(0), memory(1), pages * P, RW, Mode::Replace).unwrap();
        assert_eq!((m.owed(), done.kills.asked), (owed, kills), "{policy:?}, {on_fill}, {pages}");
        m.submit();
    }
}

#[test]
fn a_clear_waits_and_what_it_releases_too() {
    let rig = rig(deferred(8), KillCaps::PHB3);
    let c = container(&rig);
    let mut m = settled(&c, 1);
    (10..20).for_each(|page| map(&mut m, page));
    let before = kills(&rig);
    (10..13).for_each(|page| unmap(&mut m, page));
    let run = m.unmap(Ioba(13 * P), 3 * P).unwrap();
    assert_eq!((run.released, run.kills.issued, run.kills.asked), (3, 0, 0));
    assert_eq!((kills(&rig), m.held_back(), mapped(&c, A)), (before, 6, 10));
    assert_eq!(reach(&rig.mock, 0, Ioba(10 * P)), None, "the entry is cleared all the same");

    // A fill kills its page at once, and the debt stays.
    let fill = m.map(Ioba(10 * P), memory(30), P, RW, Mode::Refuse).unwrap();
    assert_eq!((fill.kills.issued, m.held_back(), mapped(&c, A)), (2, 6, 11));
    unmap(&mut m, 10);
    assert_eq!(m.held_back(), 7);

    // Two more are too many: first the seven are settled, six of which are different.
    let (before, two) = (kills(&rig), m.unmap(Ioba(16 * P), 2 * P).unwrap());
    assert_eq!((two.kills.asked, two.kills.issued), (14, 12));
    assert_eq!(kills(&rig), (before.0 + 12, before.1 + 1));
    assert_eq!((m.held_back(), mapped(&c, A)), (2, 4));
    // More than may be held back is strict.
    let nine = m.unmap(Ioba(16 * P), 9 * P).unwrap();
    assert_eq!((nine.released, nine.kills.issued, m.held_back(), mapped(&c, A)), (2, 4, 2, 2));
    let rest = m.submit();
    assert_eq!((rest.asked, rest.issued, m.held_back(), mapped(&c, A)), (4, 4, 0, 0));
    assert_eq!(m.submit().issued, 0);
    let books = rig.engine.debts();
    assert_eq!(books.most_pages, 7);
    assert!(books.longest > Duration::ZERO && books.retirements >= 3);
}

/// As many as may be held back, and as long, and not one less.
#[test]
fn debts_are_as_large_and_as_old_as_they_may_be() {
    for max_age in [FOREVER, Duration::from_secs(3600)] {
        let rig = rig(KillPolicy::Deferred { max_pages: 8, max_age }, KillCaps::PHB3);
        let c = container(&rig);
        let mut m = settled(&c, 1);
        (10..20).for_each(|page| map(&mut m, page));
        (10..18).for_each(|page| {
            unmap(&mut m, page);
            assert_eq!(m.owed(), page - 9, "{max_age:?}");
        });
        unmap(&mut m, 18);
        assert_eq!(m.owed(), 1, "{max_age:?}");
        // By the general path, too.
        assert_eq!(m.unmap(Ioba(0), 7 * P).unwrap().tces, 0);
        assert_eq!(m.owed(), 1, "{max_age:?}");
        (20..27).for_each(|page| map(&mut m, page));
        assert_eq!(m.unmap(Ioba(20 * P), 7 * P).unwrap().released, 7);
        assert_eq!(m.owed(), 8, "{max_age:?}");
        m.submit();
    }
}

#[test]
fn a_range_over_two_segments_is_owed_page_by_page() {
    let rig = rig(deferred(64), KillCaps::PHB3);
    let c = container(&rig);
    let mut m = settled(&c, 1);
    (8184..8200).for_each(|page| map(&mut m, page));
    let done = m.unmap(Ioba(8184 * P), 16 * P).unwrap();
    assert_eq!((done.released, done.kills.issued), (16, 0));
    // Half of them lie in the other region.
    assert_eq!((m.owed(), m.held_back(), mapped(&c, A)), (16, 16, 8));
    let done = m.submit();
    assert_eq!((done.asked, done.issued, m.owed(), mapped(&c, A)), (32, 32, 0, 0));
}

/// Where so many pages go that the whole PE will be killed, nobody looks which of a stretch they are.
#[test]
fn what_is_held_back_is_what_counts() {
    for live in [100, 128, 129, 300] {
        let rig = rig(deferred(1024), KillCaps::PHB3);
        let c = container(&rig);
        let mut m = settled(&c, 1);
        (0..live).for_each(|n| map(&mut m, 20 + 2 * n));
        let done = m.unmap(Ioba(20 * P), 2 * live * P).unwrap();
        assert_eq!((done.released, done.kills.issued), (live, 0));
        assert_eq!((m.owed(), m.held_back(), mapped(&c, A)), (live, live, live));
        let done = m.submit();
        assert_eq!((done.asked, done.issued), (2 * live, if live > 128 { 2 } else { 2 * live }));
        assert_eq!((m.owed(), m.held_back(), mapped(&c, A)), (0, 0, 0));
    }
    // A fill that is killed later is owed, but holds nothing back.
    let rig = rig(KillPolicy::Batched, KillCaps::PHB3);
    let c = container(&rig);
    let mut m = settled(&c, 1);
    (10..14).for_each(|page| map(&mut m, page));
    m.map(Ioba(10 * P), memory(30), P, RW, Mode::Replace).unwrap();
    unmap(&mut m, 11);
    assert_eq!((m.owed(), m.held_back(), mapped(&c, A)), (6, 2, 5));
    m.submit();
    assert_eq!((m.owed(), m.held_back(), mapped(&c, A)), (0, 0, 3));
}

#[test]
fn who_changes_the_structure_finds_no_debt() {
    type Change = fn(&Arc<Container>);
    let changes: [(&str, Change); 7] = [
        ("unregister", |c| c.unregister(A, 32 * M).unwrap()),
        ("register", |c| c.register(Uaddr(A.0 + 64 * M), 2 * M).unwrap()),
        ("window", |c| {
            c.create_window(WindowSpec::new(64 * M, PageShift::K4)).unwrap();
        }),
        ("removal", |c| {
            c.remove_window(Ioba(0), Removal::IfUnmapped).unwrap();
        }),
        ("attach", |c| {
            c.attach(G2).unwrap();
        }),
        ("detach", |c| {
            c.detach(G1).unwrap();
        }),
        ("close", |c| c.close()),
    ];
    for (what, change) in changes {
        for policy in [deferred(64), KillPolicy::Batched] {
            let rig = rig(policy, KillCaps::PHB3);
            let c = container(&rig);
            let mut all = [settled(&c, 1), settled(&c, 9000)];
            for (m, page) in all.iter_mut().zip([2, 9001]) {
                map(m, page);
                m.submit();
                unmap(m, page);
                assert_eq!(m.held_back(), 1, "{what}");
            }
            let fences = rig.mock.fences();
            assert_eq!(c.regions().iter().map(|r| r.mapped).sum::<u64>(), 2);
            change(&c);
            assert!(rig.mock.fences() >= fences + 2, "{what}");
            assert!(all.iter().all(|m| m.held_back() == 0), "{what}");
            assert!(c.regions().iter().all(|r| r.mapped == 0), "{what}");
            if what == "close" {
                continue;
            }
            // The handles go on, and owe again.
            if what != "removal" && what != "unregister" {
                map(&mut all[0], 5);
                assert!(c.unregister(A, 32 * M).is_err());
                unmap(&mut all[0], 5);
                all[0].submit();
                assert_eq!(mapped(&c, A), 0, "{what}");
            }
        }
    }
}

#[test]
fn a_handle_that_goes_owes_nothing() {
    for policy in [deferred(64), KillPolicy::Batched] {
        let rig = rig(policy, KillCaps::PHB3);
        let c = container(&rig);
        let mut m = settled(&c, 1);
        map(&mut m, 2);
        unmap(&mut m, 2);
        assert_eq!(mapped(&c, A), 1);
        let fences = rig.mock.fences();
        drop(m);
        assert_eq!((mapped(&c, A), rig.mock.fences()), (0, fences + 1));
    }
}

#[test]
fn age_is_looked_at_in_each_call_and_by_request() {
    let policy = KillPolicy::Deferred { max_pages: 64, max_age: Duration::ZERO };
    let rig = rig(policy, KillCaps::PHB3);
    let c = container(&rig);
    let mut m = settled(&c, 1);
    (2..5).for_each(|page| map(&mut m, page));
    unmap(&mut m, 2);
    assert_eq!((m.held_back(), mapped(&c, A)), (1, 3));
    map(&mut m, 6);
    assert_eq!((m.held_back(), mapped(&c, A)), (0, 3), "a map settles what has waited too long");
    unmap(&mut m, 3);
    let batch =
        [UnmapRequest { at: Ioba(4 * P), bytes: P }, UnmapRequest { at: Ioba(7 * P), bytes: P }];
    let done = m.unmap_batch(&batch).unwrap();
    // It settles the one before it, and owes for its own.
    assert_eq!((done.kills.issued, m.held_back(), mapped(&c, A)), (2, 1, 2));
    assert_eq!((m.submit().issued, mapped(&c, A)), (2, 1));

    unmap(&mut m, 6);
    assert_eq!(c.retire_debts(Duration::from_secs(3600)).issued, 0);
    assert_eq!(m.held_back(), 1);
    assert_eq!(c.retire_debts(Duration::ZERO).issued, 2);
    assert_eq!((m.held_back(), mapped(&c, A)), (0, 0));
    assert_eq!(c.retire_debts(Duration::ZERO).issued, 0);
}

#[test]
fn an_address_is_taken_until_its_debt_is_settled() {
    let rig = rig(deferred(64), KillCaps::PHB3);
    let c = container(&rig);
    let (addresses, mut m) = settled_with_addresses(&c);
    for _ in 0..4 {
        let at = m.map_alloc(A, P, RW).unwrap();
        m.unmap_free(at, P).unwrap();
    }
    m.submit();
    let all: Vec<_> = (0..8).map(|_| m.map_alloc(A, P, RW).unwrap()).collect();
    all[..3].iter().for_each(|at| m.unmap_free(*at, P).unwrap());
    assert_eq!((m.held_back(), addresses.in_use(), mapped(&c, A)), (3, 8, 8));
    // None is left, so the debt is settled for one.
    let at = m.map_alloc(A, P, RW).unwrap();
    assert!(all[..3].contains(&at));
    assert_eq!((m.held_back(), addresses.in_use(), mapped(&c, A)), (0, 6, 6));
    m.unmap_free(at, P).unwrap();
    // Somebody else settles it; the handle takes the address back when it comes by.
    assert_eq!(c.retire_debts(Duration::ZERO).issued, 2);
    assert_eq!((addresses.in_use(), mapped(&c, A)), (6, 5));
    m.submit();
    assert_eq!(addresses.in_use(), 5);
    all[3..].iter().for_each(|at| m.unmap_free(*at, P).unwrap());
    // A run goes back whole.
    m.submit();
    let run = m.map_alloc(A, 4 * P, RW).unwrap();
    m.unmap_free(run, 4 * P).unwrap();
    assert_eq!((m.held_back(), addresses.in_use()), (4, 4));
    drop(m);
    assert_eq!((addresses.in_use(), mapped(&c, A)), (0, 0));
}

/// Also where its kills wait.
#[test]
fn a_run_that_was_not_all_mapped_keeps_its_addresses() {
    let rig = rig(deferred(64), KillCaps::PHB3);
    let c = container(&rig);
    let (addresses, mut m) = settled_with_addresses(&c);
    let run = m.map_alloc(A, 4 * P, RW).unwrap();
    m.unmap(Ioba(run.0 + P), P).unwrap();
    let not_all = UnmapError::NotMapped { start: run, pages: 4, live: 3 };
    assert_eq!(m.unmap_free(run, 4 * P), Err(not_all));
    assert_eq!((m.held_back(), mapped(&c, A)), (4, 4));
    m.submit();
    assert_eq!((addresses.in_use(), mapped(&c, A)), (4, 0));
    // What goes next says for itself whether it gives addresses back.
    let other = m.map_alloc(A, 2 * P, RW).unwrap();
    m.unmap(other, 2 * P).unwrap();
    m.submit();
    assert_eq!(addresses.in_use(), 6);
}

/// Where pages cannot be killed one by one, a debt goes with any other kill.
#[test]
fn a_kill_of_everything_settles_what_the_handle_owes() {
    let rig = rig(deferred(64), KillCaps::PHB4);
    let c = container(&rig);
    let mut m = settled(&c, 1);
    (2..6).for_each(|page| map(&mut m, page));
    let before = kills(&rig);
    (2..5).for_each(|page| unmap(&mut m, page));
    assert_eq!((kills(&rig), m.held_back(), mapped(&c, A)), (before, 3, 4));
    map(&mut m, 2);
    assert_eq!((m.held_back(), mapped(&c, A)), (0, 2));
    assert_eq!(kills(&rig), (before.0 + 2, before.1 + 1), "one for the fill and the debt");
    unmap(&mut m, 2);
    unmap(&mut m, 5);
    assert_eq!((m.submit().issued, mapped(&c, A)), (2, 0));

    // The same where so many pages go that the PE is killed.
    let rig = self::rig(deferred(64), KillCaps::PHB3);
    let c = container(&rig);
    let mut m = settled(&c, 1);
    map(&mut m, 2);
    unmap(&mut m, 2);
    let before = kills(&rig);
    m.map(Ioba(M), A, 129 * P, RW, Mode::Refuse).unwrap();
    assert_eq!((m.held_back(), mapped(&c, A)), (0, 129));
    assert_eq!(kills(&rig), (before.0 + 2, before.1 + 1));
    m.unmap(Ioba(M), 129 * P).unwrap();
}

#[test]
fn a_batch_is_killed_at_its_end_fills_and_all() {
    let rig = rig(KillPolicy::Batched, KillCaps::PHB3);
    let c = container(&rig);
    let mut m = settled(&c, 1);
    let before = kills(&rig);
    (10..14).for_each(|page| map(&mut m, page));
    unmap(&mut m, 10);
    m.map(Ioba(11 * P), memory(40), P, RW, Mode::Replace).unwrap();
    m.map_list(Ioba(20 * P), &[memory(3), memory(9)], RW, Mode::Refuse).unwrap();
    let requests = [15, 17].map(|page| MapRequest {
        at: Ioba(page * P),
        memory: memory(page),
        bytes: P,
        perm: RW,
    });
    m.map_batch(&requests, Mode::Refuse).unwrap();
    assert_eq!(m.unmap(Ioba(19 * P), 3 * P).unwrap().released, 2);
    assert_eq!((kills(&rig), mapped(&c, A)), (before, 9));
    // Pages 10 to 13, 15, 17, 19 to 21 of two members.
    let done = m.submit();
    assert!((16..=18).contains(&done.issued), "{done:?}");
    assert_eq!((kills(&rig), mapped(&c, A)), ((before.0 + done.issued, before.1 + 1), 5));
    // Many are the whole PE.
    (100..400).for_each(|page| map(&mut m, page));
    assert_eq!(m.submit().issued, 2);
    // More than there is room for is settled in parts.
    let before = rig.mock.fences();
    for page in 500..5000 {
        map(&mut m, page);
    }
    assert_eq!(rig.mock.fences(), before + 1);
    m.unmap(Ioba(0), 64 * M).unwrap();
    m.submit();
    assert_eq!(mapped(&c, A), 0);
}

#[test]
fn a_guests_calls_owe_too() {
    for policy in [deferred(600), KillPolicy::Batched] {
        let rig = rig(policy, KillCaps::PHB3);
        let papr = Arc::new(Papr::new(G));
        let liobn = 0x8000_0000;
        let window = WindowSpec::new(G, PageShift::K4);
        let spec = PhbSpec { buid: 1, group: G0, liobn: Liobn(liobn as u32), window };
        papr.add_phb(&rig.engine, spec).unwrap();
        let mut vcpu = papr.vcpu();
        let count = || papr.with_container(1, |c| c.regions()[0].mapped).unwrap();
        for _ in 0..4 {
            assert_eq!(vcpu.put_tce(liobn, 0, 3).code, HCode::SUCCESS);
            assert_eq!(vcpu.put_tce(liobn, 0, 0).code, HCode::SUCCESS);
        }
        vcpu.submit();
        for n in 0..512 {
            assert_eq!(vcpu.put_tce(liobn, n * P, (n * P) | 3).code, HCode::SUCCESS);
        }
        vcpu.submit();
        let before = kills(&rig);
        assert_eq!(vcpu.put_tce(liobn, 0, 0).receipt.released, 1);
        let done = vcpu.stuff_tce(liobn, 0, 0, 512);
        assert_eq!((done.receipt.released, done.receipt.tces), (511, 512));
        assert_eq!((kills(&rig), vcpu.held_back(), count()), (before, 512, 512));
        assert_eq!(vcpu.get_tce(liobn, 0), (HCode::SUCCESS, 0));
        assert_eq!((vcpu.submit().issued, count()), (1, 0));
        // A value that replaces another: killed at once, or at the end of the batch.
        assert_eq!(vcpu.put_tce(liobn, 0, 3).code, HCode::SUCCESS);
        vcpu.submit();
        assert_eq!(vcpu.put_tce(liobn, 0, P | 3).code, HCode::SUCCESS);
        let owed = u64::from(policy == KillPolicy::Batched);
        assert_eq!((vcpu.held_back(), count()), (owed, 1 + owed));
        assert_eq!(vcpu.put_tce(liobn, 0, 0).code, HCode::SUCCESS);
    }
}
