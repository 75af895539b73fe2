// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where not every fill kills: what is in debt is marked, and who fills it kills.

use std::sync::Mutex;

use tce_engine::backend::FillRule;

use super::*;

/// Where fills need no kill, one of an entry in debt does, whoever fills it and however.
#[test]
fn a_fill_of_an_entry_in_debt_kills() {
    let rig = rig(deferred(64), phb3(false));
    let c = container(&rig);
    let (mut m, mut other) = (settled(&c, 1), c.mapper());
    (0..32).for_each(|page| map(&mut m, 8 + page));
    let clear = |m: &mut Mapper| {
        m.unmap(Ioba(8 * P), 32 * P).unwrap();
        assert_eq!(m.held_back(), 32);
    };
    clear(&mut m);
    let fill = |kills: u64, done: Result<tce_engine::Receipt, MapError>| {
        assert_eq!(done.unwrap().kills.issued, kills);
    };
    let (rw, mode) = (RW, Mode::Refuse);
    fill(2, m.map(Ioba(8 * P), A, P, rw, mode));
    fill(2, other.map(Ioba(9 * P), A, P, rw, mode));
    fill(2, c.map(Ioba(10 * P), A, P, rw, mode));
    fill(6, c.map(Ioba(11 * P), A, 3 * P, rw, mode));
    fill(4, other.map_list(Ioba(14 * P), &[A, memory(4)], rw, mode));
    let request = |page| MapRequest { at: Ioba(page * P), memory: A, bytes: P, perm: rw };
    fill(4, m.map_batch(&[request(20), request(18), request(50)], mode));
    fill(0, m.map(Ioba(60 * P), A, P, rw, mode));
    // Two of three are in debt.
    fill(4, c.map(Ioba(38 * P), A, 3 * P, rw, mode));
    // Another handle cannot owe for entries beside those of the first, and kills them at once.
    let done = other.unmap(Ioba(8 * P), P).unwrap();
    assert_eq!((done.kills.issued, other.held_back()), (2, 0));
    m.submit();
    // Now nothing is in debt any more.
    fill(0, m.map(Ioba(8 * P), A, P, rw, mode));
    fill(0, c.map(Ioba(21 * P), A, 3 * P, rw, mode));
    // Who has the structure alone settles it as well. The lock was taken away meanwhile.
    for _ in 0..64 {
        m.unmap(Ioba(8 * P), P).unwrap();
        m.submit();
        fill(0, m.map(Ioba(8 * P), A, P, rw, mode));
    }
    m.unmap(Ioba(8 * P), P).unwrap();
    assert_eq!(c.retire_debts(Duration::ZERO).issued, 2);
    fill(0, other.map(Ioba(8 * P), A, P, rw, mode));
    c.unmap(Ioba(0), 64 * M).unwrap();
    m.submit();
    other.submit();
    assert_eq!(mapped(&c, A), 0);
}

/// Clears that go the way that all share are owed and marked as those of the usual one.
#[test]
fn clears_by_the_general_path_are_in_debt_too() {
    let rig = rig(deferred(64), phb3(false));
    let c = container(&rig);
    let (mut m, mut other) = (settled(&c, 1), c.mapper());
    let rw = |at: u64, pages: u64| {
        c.map(Ioba(at * P), A, pages * P, RW, Mode::Refuse).unwrap();
    };
    // A page of a segment that the handle does not know, and some of both.
    rw(9000, 1);
    rw(8190, 4);
    let before = kills(&rig);
    unmap(&mut m, 9000);
    assert_eq!(m.unmap(Ioba(8190 * P), 4 * P).unwrap().released, 4);
    assert_eq!((kills(&rig), m.owed()), (before, 5));
    let mut fill =
        |page: u64| other.map(Ioba(page * P), A, P, RW, Mode::Refuse).unwrap().kills.issued;
    assert_eq!([8189, 8190, 8191, 8192, 8193, 8194].map(&mut fill), [0, 2, 2, 2, 2, 0]);
    assert_eq!([8999, 9000, 9001].map(fill), [0, 2, 0]);
    m.submit();
}

/// A live entry that becomes another one on credit is no empty one in debt.
#[test]
fn what_was_replaced_is_not_marked() {
    let rig = rig(KillPolicy::Batched, phb3(false));
    let c = container(&rig);
    let mut m = settled(&c, 1);
    map(&mut m, 8);
    m.map(Ioba(8 * P), memory(9), P, RW, Mode::Replace).unwrap();
    assert_eq!(m.owed(), 1);
    assert_eq!(c.unmap(Ioba(8 * P), P).unwrap().kills.issued, 2);
    assert_eq!(c.map(Ioba(8 * P), A, P, RW, Mode::Refuse).unwrap().kills.issued, 0);
    m.submit();
}

/// Where fills kill beside live entries only, those in debt and those that are just being cleared count.
#[test]
fn a_fill_kills_beside_what_may_be_cached() {
    let kill = KillCaps { fill: FillRule::BesideLive { line: 8 }, ..KillCaps::PHB3 };
    let rig = rig(deferred(64), kill);
    let c = container(&rig);
    let (before, after) = (Arc::new(Mutex::new(None::<Mapper>)), Arc::new(Mutex::new(None)));
    let (waits, done) = (before.clone(), after.clone());
    rig.faulty.watch(move |step| {
        let mapper = match step {
            Step::Kill(..) => waits.lock().unwrap().take(),
            _ => None,
        };
        if let Some(mut m) = mapper {
            let fill = m.map(Ioba(17 * P), memory(1), P, RW, Mode::Refuse).unwrap();
            *done.lock().unwrap() = Some((m, fill.kills.issued));
        }
    });
    let mut m = settled(&c, 1);
    let fill = |m: &mut Mapper, page: u64| {
        m.map(Ioba(page * P), memory(1), P, RW, Mode::Refuse).unwrap().kills.issued
    };
    assert_eq!([fill(&mut m, 32), fill(&mut m, 33), fill(&mut m, 47)], [0, 2, 0]);
    // Others and longer maps kill each time.
    assert_eq!(c.map(Ioba(56 * P), memory(1), P, RW, Mode::Refuse).unwrap().kills.issued, 2);
    assert_eq!(m.map(Ioba(64 * P), memory(1), 2 * P, RW, Mode::Refuse).unwrap().kills.issued, 4);

    // Between a clear and its kill.
    c.map(Ioba(16 * P), memory(1), P, RW, Mode::Refuse).unwrap();
    *before.lock().unwrap() = Some(m);
    c.unmap(Ioba(16 * P), P).unwrap();
    let (mut m, issued) = after.lock().unwrap().take().unwrap();
    assert_eq!(issued, 2);
    // In debt, and not any more.
    unmap(&mut m, 17);
    assert_eq!((m.held_back(), fill(&mut m, 18)), (1, 2));
    unmap(&mut m, 18);
    m.submit();
    assert_eq!(fill(&mut m, 19), 0);
    c.unmap(Ioba(0), 64 * M).unwrap();
}
