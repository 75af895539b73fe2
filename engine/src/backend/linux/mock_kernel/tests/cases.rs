// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Listed cases, by their ids, and what is known from reading only.

use super::*;
use crate::backend::linux::uapi::{EehPeOp, Request, eeh_op};

#[test]
fn d1_d3_d4_before_set_iommu() {
    let kernel = MockKernel::new(1);
    let c = kernel.process().open_container().unwrap();
    assert_eq!(c.set_iommu(V2), Err(Errno::EINVAL));
    assert_eq!(map(&c, B, P, PS, RW), Err(Errno::EINVAL));
    let answers = [2, 5, 7, 8, 99].map(|extension| c.check_extension(extension));
    assert_eq!(answers, [Ok(1), Ok(1), Ok(1), Ok(0), Ok(0)]);
    assert_eq!(c.open_group(GroupId(1)), Err(Errno::ENOENT));
    assert_eq!(c.set_container(GroupId(0)), Err(Errno::EINVAL), "its node is not open");
}

#[test]
fn d10_d11_info_is_the_newest_groups() {
    let kernel = MockKernel::builder(2)
        .group(GroupId(1), |g| {
            g.page_sizes = PageSizes::of(&[PageShift::K64, PageShift::M16]);
            g.max_levels = 3;
        })
        .build();
    let process = kernel.process();
    let c = container(&process, 0, 2, V2);
    let mut info = TceInfo::new();
    assert_eq!(c.info(&mut info), Ok(0));
    assert_eq!((info.ddw.pgsizes, info.ddw.levels), (0x101_0000, 3));
    assert_eq!(c.unset_container(GroupId(1)), Ok(0));
    assert_eq!(c.info(&mut info), Ok(0));
    assert_eq!((info.ddw.pgsizes, info.ddw.levels), (0x1101_1000, 5));
    assert_eq!(reg(&c, P, SZ), Ok(0));
    assert_eq!(c.unset_container(GroupId(0)), Ok(0));
    assert_eq!(map(&c, B, P, PS, RW), Err(Errno::EINVAL));
    assert_eq!(process.locked_bytes(), 0);
}

#[test]
fn e5_enabled_is_checked_before_the_pointer() {
    let kernel = MockKernel::new(2);
    let process = kernel.process();
    let c = container(&process, 0, 1, V1);
    assert_eq!(c.fault(Request::MapDma), Err(Errno::EPERM));
    assert_eq!(c.fault(Request::RegisterMemory), Err(Errno::ENOTTY));
    assert_eq!(c.enable(), Ok(0));
    assert_eq!(c.fault(Request::MapDma), Err(Errno::EFAULT));
    let v2 = container(&process, 1, 1, V2);
    assert_eq!(v2.fault(Request::UnregisterMemory), Err(Errno::EPERM));
    assert_eq!(v2.fault(Request::TceCreate), Err(Errno::EFAULT));
    assert_eq!(v2.fault(Request::UnregisterMemory), Err(Errno::EFAULT));
    assert_eq!(v2.fault(Request::TceGetInfo), Err(Errno::EFAULT));
    let other = v2.shared_with(&kernel.process()).unwrap();
    assert_eq!(other.fault(Request::TceRemove), Err(Errno::EPERM), "CREATE made it ours");
    assert!(v2.shared_with(&MockKernel::new(1).process()).is_none());
}

#[test]
fn f10_the_right_to_exceed_the_limit() {
    let (kernel, process, c) = v2(1);
    process.set_memlock(Some(16 * PS + 5));
    assert_eq!((reg(&c, P, 8 * PS), reg(&c, P + 8 * PS, 8 * PS)), (Ok(0), Ok(0)));
    assert_eq!(reg(&c, P + SZ, PS), Err(Errno::ENOMEM));
    process.set_ipc_lock(true);
    assert_eq!(process.memlock(), None);
    assert_eq!(reg(&c, P + SZ, PS), Ok(0));
    end(&kernel, &process, c);
}

#[test]
fn f12_only_the_chunk_that_failed_is_counted() {
    let (kernel, process, c) = v2(1);
    let chunk = (16 << 20) / 8 * PS;
    process.vma(Uaddr(P + chunk), PS, Vma::HOLE);
    assert_eq!(reg(&c, P, 2 * chunk), Err(Errno::EFAULT));
    process.vma(Uaddr(P + chunk), PS, Vma::ANONYMOUS);
    process.vma(Uaddr(P + chunk + 3 * PS), PS, Vma::READ_ONLY);
    assert_eq!(reg(&c, P, 2 * chunk), Ok(3));
    kernel.inject(Injection::Pin { pages: 2 });
    assert_eq!(reg(&c, P, SZ), Ok(2));
    kernel.inject(Injection::Pin { pages: 0 });
    assert_eq!(reg(&c, P, SZ), Err(Errno::EFAULT));
    assert_eq!((process.locked_bytes(), kernel.leftovers().pinned_pages), (0, 0));
    end(&kernel, &process, c);
}

#[test]
fn memory_runs_out() {
    let kernel = MockKernel::builder(2).memory(5 * PS).build();
    let process = kernel.process();
    let (c, v1) = (container(&process, 0, 1, V2), container(&process, 1, 1, V1));
    assert_eq!(reg(&c, P, 6 * PS), Ok(5));
    assert_eq!(reg(&c, P, 4 * PS), Ok(0));
    assert_eq!(v1.enable(), Ok(0));
    // Nothing bounds what v1 pins but what there is.
    assert_eq!(map(&v1, B, P, 1 << 46, RW), Err(Errno::EFAULT));
    assert_eq!(map(&v1, B, P, PS, RW), Ok(0));
    assert_eq!(kernel.leftovers().pinned_pages, 5);
    drop(v1);
    assert_eq!(unreg(&c, P, 4 * PS), Ok(0));
    assert_eq!(reg(&c, P, 5 * PS), Ok(0));
    end(&kernel, &process, c);
}

#[test]
fn a_hugetlb_page_stands_for_the_small_ones_behind_it() {
    let (kernel, process, c) = v2(1);
    let m16 = 16 << 20;
    process.vma(Uaddr(P), m16, Vma::hugetlb(PageShift::M16));
    assert_eq!(process.backing(Uaddr(P), m16), Some(PageShift::M16));
    assert_eq!(process.backing(Uaddr(P), m16 + 1), Some(PageShift::K64));
    process.vma(Uaddr(P + 2 * m16), PS, Vma::HOLE);
    assert_eq!(process.backing(Uaddr(P), 2 * m16 + 1), None);
    assert_eq!(reg(&c, P, 2 * m16), Ok(0));
    assert_eq!(remove(&c, 0), Ok(0));
    assert_eq!(create(&c, 24, GB, 1), (Ok(0), 0));
    assert_eq!(map(&c, m16, P, 2 * m16, RW), Err(Errno::EPERM));
    assert_eq!(reaches(&kernel, 0, m16), Err(DmaFault::Empty));
    end(&kernel, &process, c);
}

#[test]
fn g7_g8_failed_creates_leak() {
    let (kernel, process, c) = v2(1);
    assert_eq!(remove(&c, 0), Ok(0));
    assert_eq!(create(&c, 16, 1 << 20, 3).0, Err(Errno::EINVAL));
    assert_eq!((process.leaked_pages(), process.locked_bytes()), (6, 6 * PS));
    assert_eq!(create(&c, 16, 256 * GB, 1).0, Err(Errno::ENOMEM));
    assert_eq!(create(&c, 16, 256 * GB, 2), (Ok(0), 0));
    assert_eq!(process.locked_bytes() / PS, 6 + 1024 + 1026);
    end(&kernel, &process, c);
}

#[test]
fn g10_the_firmwares_codes() {
    let (kernel, process, c) = v2(2);
    assert_eq!(remove(&c, 0), Ok(0));
    let named = [Errno::EPERM, Errno::ENOENT, Errno::ENXIO, Errno::E2BIG, Errno::ECHILD];
    for (code, errno) in [-1, -2, -6, -7, -10].into_iter().zip(named) {
        // Group 1 is first in the list, so group 0 is the second that is set.
        kernel.inject(Injection::SetWindow { group: GroupId(0), slot: 0, code });
        assert_eq!(create(&c, 16, GB, 1), (Err(errno), 0xdead_beef));
        assert_eq!(reaches(&kernel, 1, 0), Err(DmaFault::NoWindow(0)));
        assert_eq!(process.books(), Books::default());
    }
    w1_again(&c);
    end(&kernel, &process, c);
}

fn w1_again(c: &MockContainer) {
    assert_eq!(create(c, 16, GB, 1), (Ok(0), 0));
}

#[test]
fn g14_i16_order_of_events() {
    let (kernel, process, c) = v2(2);
    w1(&c);
    assert_eq!(reg(&c, P, SZ), Ok(0));
    assert_eq!(map(&c, B, P, 2 * PS, RW), Ok(0));
    let _ = kernel.take_events();
    assert_eq!(remove(&c, 0), Ok(0));
    let (container, slot) = (c.id(), 0);
    let kill = |g| Event::Kill { group: GroupId(g), at: Ioba(0), pages: 16384 };
    let unset = |g| Event::Unset { group: GroupId(g), slot };
    let all = |g| Event::KillAll { group: GroupId(g) };
    let clear = Event::Clear { container, slot, live: 2 };
    let free = Event::Free { container, slot };
    let wanted = [clear, kill(0), kill(1), unset(1), all(1), unset(0), all(0), free];
    assert_eq!(kernel.take_events(), wanted);

    w1_again(&c);
    assert_eq!(map(&c, B, P, 2 * PS, RW), Ok(0));
    let _ = kernel.take_events();
    drop(c);
    let events = kernel.take_events();
    let unpin = events.iter().position(|e| matches!(e, Event::Unpin { .. })).unwrap();
    for group in [GroupId(0), GroupId(1)] {
        let last = events.iter().rposition(|e| *e == Event::KillAll { group }).unwrap();
        assert!(last < unpin, "{events:?}");
    }
    assert_eq!(process.books(), Books::default());
}

#[test]
fn h8_the_end_of_the_range_is_not_checked() {
    let (kernel, process, c) = v2(1);
    assert_eq!(remove(&c, 0), Ok(0));
    assert_eq!(reg(&c, P, SZ), Ok(0));
    // Two levels: into the spare part, where DMA works and UNMAP does not reach.
    assert_eq!(create(&c, 16, GB, 2), (Ok(0), 0));
    assert_eq!(map(&c, GB - PS, P, 3 * PS, RW), Ok(0));
    assert_eq!(reaches(&kernel, 0, GB + PS + 9), Ok(P + 2 * PS + 9));
    assert_eq!(reaches(&kernel, 0, 0), Err(DmaFault::NoLevel(0)), "no wrap");
    assert_eq!(unmap(&c, GB, PS), Err(Errno::ENXIO));
    assert_eq!(unmap(&c, GB - PS, 2 * PS), Ok(0));
    assert_eq!(process.region_counts(Uaddr(P)), Some((1, 1)));
    assert_eq!(kernel.damage(), [], "the table has memory there");
    assert_eq!(remove(&c, 0), Ok(0));
    assert_eq!(process.region_counts(Uaddr(P)), Some((1, 1)), "for good");
    // One level: past the table.
    w1_again(&c);
    assert_eq!(map(&c, GB - PS, P, 3 * PS, RW), Ok(0));
    let (container, slot, first) = (c.id(), 0, 16384);
    assert_eq!(kernel.damage(), [Damage::OutOfTable { container, slot, first, entries: 2 }]);
    assert!(matches!(reaches(&kernel, 0, GB), Err(DmaFault::Extent { .. })));
    assert_eq!(process.region_counts(Uaddr(P)), Some((4, 1)));
    assert_eq!(unmap(&c, GB - PS, 3 * PS), Ok(0));
    assert_eq!(process.region_counts(Uaddr(P)), Some((1, 1)));
    assert_eq!(kernel.damage().len(), 2);
    assert_eq!(unmap(&c, B, !(PS - 1)), Ok(0), "and it ends");
    assert_eq!(kernel.damage().len(), 3);
    drop(c);
    assert_eq!(kernel.leftovers().pinned_pages, 64, "counted for ever");
    assert_eq!(process.books().sum(), process.books().locked);
}

#[test]
fn h11_h14_h15_counts_and_what_a_failure_leaves() {
    let (kernel, process, c) = v2(1);
    w1(&c);
    let b = P + 16 * PS;
    assert_eq!((reg(&c, P, 4 * PS), reg(&c, b, 8 * PS)), (Ok(0), Ok(0)));
    let counts = || [P, b].map(|start| process.region_counts(Uaddr(start)).unwrap().0);
    assert_eq!(map(&c, B, b, 8 * PS, RW), Ok(0));
    assert_eq!(map(&c, B, P, PS, RW), Ok(0));
    assert_eq!(counts(), [1, 7]);
    assert_eq!(map(&c, B, P, 8 * PS, RW), Err(Errno::EINVAL), "4 pages are there");
    assert_eq!(counts(), [0, 4]);
    assert_eq!(reaches(&kernel, 0, B + 3 * PS), Err(DmaFault::Empty));
    assert_eq!(reaches(&kernel, 0, B + 4 * PS), Ok(b + 4 * PS));
    let denied = kernel.translate(GroupId(0), Ioba(B + 4 * PS), Perm::READ_WRITE);
    assert!(denied.is_ok());
    assert_eq!(map(&c, B, P, PS, 1), Ok(0));
    let denied = kernel.translate(GroupId(0), Ioba(B), Perm::WRITE);
    assert_eq!(denied, Err(DmaFault::Denied(Perm::READ)));
    assert_eq!(map(&c, B, P, PS, 2), Ok(0));
    let both = kernel.translate(GroupId(0), Ioba(B), Perm::READ_WRITE);
    assert!(both.is_ok(), "write-only reads, too");
    end(&kernel, &process, c);
}

#[test]
fn i3_i4_i7_attaching() {
    let kernel = MockKernel::builder(4)
        .group(GroupId(1), |g| g.ops = 1)
        .group(GroupId(2), |g| g.viable = false)
        .build();
    let process = kernel.process();
    let c = container(&process, 0, 1, V2);
    w1(&c);
    assert_eq!(create(&c, 12, GB, 2), (Ok(0), 1 << 59));
    assert_eq!(reg(&c, P, SZ), Ok(0));
    assert_eq!(map(&c, B, P, PS, RW), Ok(0));
    let before = process.books();
    for group in (1..4).map(GroupId) {
        assert_eq!(c.open_group(group), Ok(0));
    }
    assert_eq!(c.set_container(GroupId(0)), Err(Errno::EINVAL));
    assert_eq!(c.set_container(GroupId(1)), Err(Errno::EPERM));
    assert_eq!(c.group_status(GroupId(2)), Ok(0));
    assert_eq!(c.set_container(GroupId(2)), Err(Errno::EPERM));
    kernel.inject(Injection::SetWindow { group: GroupId(3), slot: 1, code: -6 });
    assert_eq!(c.set_container(GroupId(3)), Err(Errno::ENXIO));
    for at in [B, 1 << 59] {
        let slot = usize::from(at != B);
        assert_eq!(reaches(&kernel, 3, at), Err(DmaFault::NoWindow(slot)));
    }
    assert_eq!(process.books(), before);
    assert_eq!(reaches(&kernel, 0, B), Ok(P));
    assert_eq!(c.set_container(GroupId(3)), Ok(0));
    assert_eq!(reaches(&kernel, 3, B), Ok(P));
    // I13: and when it leaves, everything is gone.
    assert_eq!(c.close_group(GroupId(3)), Ok(0));
    assert_eq!(reaches(&kernel, 0, B), Err(DmaFault::Empty));
    end(&kernel, &process, c);
}

#[test]
fn i17_eeh_stops_at_the_first_answer() {
    let (kernel, process, c) = v2(2);
    let op = |op| c.eeh(&EehPeOp::new(op));
    assert_eq!(op(eeh_op::ENABLE), Ok(0));
    kernel.set_group_state(GroupId(0), GroupState::Stopped);
    assert_eq!(op(eeh_op::GET_STATE), Ok(2));
    kernel.set_group_state(GroupId(1), GroupState::InReset);
    assert_eq!(op(eeh_op::GET_STATE), Ok(1), "the newest group is asked first");
    assert_eq!(reaches(&kernel, 0, B), Err(DmaFault::Stopped));
    assert_eq!(op(eeh_op::UNFREEZE_IO), Ok(0));
    assert_eq!(kernel.group_state(GroupId(0)), Some(GroupState::DmaStopped));
    assert_eq!(op(77), Err(Errno::EINVAL));
    let short = EehPeOp { argsz: 12, ..EehPeOp::new(eeh_op::INJECT_ERR) };
    assert_eq!(c.eeh(&short), Err(Errno::EINVAL));
    assert_eq!(op(eeh_op::INJECT_ERR), Ok(0));
    assert_eq!(c.eeh(&EehPeOp { argsz: 4, ..EehPeOp::new(4) }), Err(Errno::EINVAL));
    assert_eq!(c.eeh(&EehPeOp { flags: 1, ..EehPeOp::new(4) }), Err(Errno::EINVAL));
    end(&kernel, &process, c);
}

#[test]
fn an_empty_kill_at_entry_0_hangs_the_machine() {
    let cases: [fn(&MockContainer) -> Raw; 4] = [
        |c| map(c, 0, P, 0, RW),
        |c| unmap(c, 0, 0),
        |c| map(c, 0, P + SZ, PS, RW),
        |c| map(c, PS, P + SZ, PS, RW),
    ];
    for (i, case) in cases.into_iter().enumerate() {
        let (kernel, process, c) = v2(1);
        assert_eq!(reg(&c, P, SZ), Ok(0));
        w1(&c);
        if i == 3 {
            assert_eq!(case(&c), Err(Errno::EINVAL), "not at another entry");
            end(&kernel, &process, c);
            continue;
        }
        assert_eq!(case(&c), Err(Errno::EIO));
        assert_eq!(kernel.damage(), [Damage::Hang { container: c.id() }]);
        assert_eq!(c.check_extension(V2), Err(Errno::EIO));
        assert!(process.open().is_err());
    }
    // Nor in a window at 1 << 59.
    let (kernel, process, c) = v2(1);
    assert_eq!(reg(&c, P, SZ), Ok(0));
    assert_eq!(create(&c, 16, GB, 1), (Ok(0), 1 << 59));
    assert_eq!(map(&c, 1 << 59, P, 0, RW), Ok(0));
    end(&kernel, &process, c);
}

#[test]
fn injected_failures() {
    let (kernel, process, c) = v2(1);
    assert_eq!(remove(&c, 0), Ok(0));
    assert_eq!(create(&c, 12, GB, 3), (Ok(0), 0));
    assert_eq!(reg(&c, P, SZ), Ok(0));
    // The view's leaf, the view's level 1 is there by then.
    kernel.inject(Injection::Level { nth: 2 });
    assert_eq!(map(&c, B, P, PS, RW), Err(Errno::ENOMEM));
    assert_eq!(process.region_counts(Uaddr(P)), Some((0, 1)));
    kernel.inject(Injection::RegionDying { nth: 3 });
    assert_eq!(map(&c, B, P, PS, RW), Ok(0), "success, they say");
    assert!(reaches(&kernel, 0, B + 4096).is_ok());
    assert_eq!(reaches(&kernel, 0, B + 2 * 4096), Err(DmaFault::Empty));
    assert_eq!(kernel.take_injections(), []);
    // The hardware's level: what was counted is not taken back.
    kernel.inject(Injection::Level { nth: 2 });
    assert_eq!(map(&c, GB / 2, P, 4096, RW), Err(Errno::ENOMEM));
    assert_eq!(process.region_counts(Uaddr(P)), Some((3, 1)));
    kernel.inject(Injection::CopyOut);
    assert_eq!(create(&c, 16, GB, 1), (Err(Errno::EFAULT), 0xdead_beef));
    assert_eq!(remove(&c, 1 << 59), Ok(0), "the window is there");
    kernel.lose(c.id());
    assert_eq!(unmap(&c, B, PS), Err(Errno::ENODEV));
    drop(c);
    assert_eq!(kernel.leftovers(), Leftovers { pinned_pages: 64, ..Leftovers::default() });
}

#[test]
fn an_open_device_keeps_its_group() {
    let (kernel, process, c) = v2(1);
    w1(&c);
    kernel.set_device_open(GroupId(0), true);
    drop(c);
    assert_eq!(kernel.leftovers().containers, 1);
    assert_ne!(process.locked_bytes(), 0);
    kernel.set_device_open(GroupId(0), false);
    assert_eq!(kernel.leftovers(), Leftovers::default());
    assert_eq!(process.locked_bytes(), 0);
}

#[test]
fn i9_other_starts_are_not_noticed() {
    let kernel = MockKernel::builder(2).group(GroupId(1), |g| g.dma32_start = 1 << 28).build();
    let process = kernel.process();
    let c = container(&process, 0, 2, V2);
    assert_eq!(reg(&c, P, SZ), Ok(0));
    assert_eq!(map(&c, B, P, PS, RW), Err(Errno::ENXIO), "the newest group's start");
    assert_eq!(map(&c, (1 << 28) + B, P, PS, RW), Ok(0));
    assert_eq!(reaches(&kernel, 1, (1 << 28) + B), Ok(P));
    assert_eq!(reaches(&kernel, 0, B), Ok(P), "shifted for the other");
    end(&kernel, &process, c);
}
