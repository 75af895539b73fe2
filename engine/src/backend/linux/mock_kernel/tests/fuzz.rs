// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Any request with any argument: no panic, and books that add up after each.

use proptest::prelude::*;

use super::*;
use crate::backend::linux::uapi::{EehPeErr, EehPeOp};

#[derive(Clone, Debug)]
enum Op {
    OpenGroup(u32),
    CloseGroup(u32),
    SetContainer(u32),
    UnsetContainer(u32),
    SetIommu(u32),
    Info(u32),
    Enable,
    Disable,
    Register(u32, u32, u64, u64),
    Unregister(u32, u32, u64, u64),
    Create(u32, u32, u32, u64, u32),
    Remove(u32, u32, u64),
    Map(u32, u32, u64, u64, u64),
    Unmap(u32, u32, u64, u64),
    Eeh(u32, u32, u32),
    Fault(u8),
    Inject(u8, u64, i32),
    Declare(u64, u64, u8),
    DeviceOpen(u32, bool),
    Reopen,
    Lose,
}

/// Sizes that mean something more often than not.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0u64..20).prop_map(|n| n << 16),
        3 => (12u32..64).prop_map(|n| 1 << n),
        1 => Just(u64::MAX),
        1 => Just(!0xffff),
        1 => any::<u64>(),
    ]
}

fn va() -> impl Strategy<Value = u64> {
    prop_oneof![8 => (0u64..24).prop_map(|n| P + (n << 16)), 1 => size()]
}

fn iova() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (1u64..64).prop_map(|n| n << 16),
        2 => (0u64..64).prop_map(|n| (1 << 59) + (n << 16)),
        1 => (0u64..8).prop_map(|n| GB - (4 << 16) + (n << 16)),
        1 => size(),
    ]
}

fn argsz(right: u32) -> impl Strategy<Value = u32> {
    prop_oneof![20 => Just(right), 1 => any::<u32>()]
}

fn flags(right: u32) -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0..=right, 1 => any::<u32>()]
}

fn op() -> impl Strategy<Value = Op> {
    let shift = prop_oneof![4 => Just(12), 4 => Just(16), 1 => 0u32..80, 1 => any::<u32>()];
    let kind = prop_oneof![6 => Just(7u32), 2 => Just(2), 1 => any::<u32>()];
    prop_oneof![
        4 => (0u32..4).prop_map(Op::OpenGroup),
        1 => (0u32..8).prop_map(Op::CloseGroup),
        4 => (0u32..4).prop_map(Op::SetContainer),
        1 => (0u32..8).prop_map(Op::UnsetContainer),
        4 => kind.prop_map(Op::SetIommu),
        1 => argsz(TceInfo::SIZE).prop_map(Op::Info),
        2 => Just(Op::Enable),
        1 => Just(Op::Disable),
        8 => (argsz(24), flags(0), va(), size()).prop_map(|(a, f, v, s)| Op::Register(a, f, v, s)),
        4 => (argsz(24), flags(0), va(), size()).prop_map(|(a, f, v, s)| Op::Unregister(a, f, v, s)),
        5 => (argsz(40), flags(0), shift, size(), 0u32..7)
            .prop_map(|(a, f, p, s, l)| Op::Create(a, f, p, s, l)),
        3 => (argsz(16), flags(0), iova()).prop_map(|(a, f, s)| Op::Remove(a, f, s)),
        24 => (argsz(32), flags(3), va(), iova(), prop_oneof![3 => (0u64..6).prop_map(|n| n << 16), 1 => size()])
            .prop_map(|(a, f, v, i, s)| Op::Map(a, f, v, i, s)),
        8 => (argsz(24), flags(0), iova(), size()).prop_map(|(a, f, i, s)| Op::Unmap(a, f, i, s)),
        1 => (argsz(40), flags(0), 0u32..12).prop_map(|(a, f, o)| Op::Eeh(a, f, o)),
        1 => any::<u8>().prop_map(Op::Fault),
        2 => (any::<u8>(), 0u64..9, -11i32..2).prop_map(|(k, n, c)| Op::Inject(k, n, c)),
        2 => (va(), size(), any::<u8>()).prop_map(|(v, s, k)| Op::Declare(v, s, k)),
        1 => (0u32..4, any::<bool>()).prop_map(|(g, o)| Op::DeviceOpen(g, o)),
        2 => Just(Op::Reopen),
        1 => (0u8..8).prop_map(|n| if n == 0 { Op::Lose } else { Op::Enable }),
    ]
}

const REQUESTS: [crate::backend::linux::uapi::Request; 9] = {
    use crate::backend::linux::uapi::Request::*;
    [
        GetApiVersion,
        CheckExtension,
        SetIommu,
        TceGetInfo,
        MapDma,
        UnmapDma,
        RegisterMemory,
        TceCreate,
        GroupGetStatus,
    ]
};

/// Makes success likely.
fn prepare(c: &MockContainer, group: u32) {
    let _ = c.open_group(GroupId(group));
    let _ = c.set_container(GroupId(group));
    let _ = c.set_iommu(V2);
    let _ = reg(c, P, 16 << 16);
    let _ = reg(c, P + (16 << 16), 8 << 16);
}

fn run(kernel: &MockKernel, process: &Process, c: &mut MockContainer, op: Op) {
    let ignore = |_: Raw| {};
    match op {
        Op::OpenGroup(g) => ignore(c.open_group(GroupId(g))),
        Op::CloseGroup(g) => ignore(c.close_group(GroupId(g))),
        Op::SetContainer(g) => ignore(c.set_container(GroupId(g))),
        Op::UnsetContainer(g) => ignore(c.unset_container(GroupId(g))),
        Op::SetIommu(kind) => ignore(c.set_iommu(kind)),
        Op::Info(argsz) => ignore(c.info(&mut TceInfo { argsz, ..TceInfo::default() })),
        Op::Enable => ignore(c.enable()),
        Op::Disable => ignore(c.disable()),
        Op::Register(argsz, flags, vaddr, size) => {
            ignore(c.register(&RegisterMemory { argsz, flags, vaddr, size }));
        }
        Op::Unregister(argsz, flags, vaddr, size) => {
            ignore(c.unregister(&RegisterMemory { argsz, flags, vaddr, size }));
        }
        Op::Create(argsz, flags, shift, size, levels) => {
            let mut arg = TceCreate { argsz, flags, ..TceCreate::new(shift, size, levels) };
            ignore(c.create(&mut arg));
        }
        Op::Remove(argsz, flags, start_addr) => {
            ignore(c.remove(&TceRemove { argsz, flags, start_addr }));
        }
        Op::Map(argsz, flags, vaddr, iova, size) => {
            ignore(c.map(&DmaMap { argsz, flags, vaddr, iova, size }));
        }
        Op::Unmap(argsz, flags, iova, size) => {
            ignore(c.unmap(&mut DmaUnmap { argsz, flags, iova, size }));
        }
        Op::Eeh(argsz, flags, op) => {
            let err = EehPeErr::default();
            ignore(c.eeh(&EehPeOp { argsz, flags, op, resv: 0, err }));
        }
        Op::Fault(i) => ignore(c.fault(REQUESTS[usize::from(i) % REQUESTS.len()])),
        Op::Inject(kind, n, code) => kernel.inject(match kind % 5 {
            0 => Injection::Level { nth: n },
            1 => Injection::SetWindow { group: GroupId(n as u32 % 4), slot: 0, code },
            2 => Injection::Pin { pages: n },
            3 => Injection::RegionDying { nth: n },
            _ => Injection::CopyOut,
        }),
        Op::Declare(start, bytes, kind) => {
            let vma = match kind % 4 {
                0 => Vma::HOLE,
                1 => Vma::READ_ONLY,
                2 => Vma::hugetlb(PageShift::M16),
                _ => Vma::ANONYMOUS,
            };
            process.vma(Uaddr(start), bytes, vma);
        }
        Op::DeviceOpen(group, open) => kernel.set_device_open(GroupId(group), open),
        Op::Reopen => {
            if let Ok(new) = process.open_container() {
                *c = new;
                prepare(c, process.id().0);
            }
        }
        Op::Lose => kernel.lose(c.id()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn f22_books_add_up_after_any_request(
        ops in prop::collection::vec((op(), 0u8..8, any::<u64>()), 1..160),
        small in any::<bool>(),
        profile in prop::sample::select(Profile::ALL.to_vec()),
    ) {
        let page = if small { PageShift::K4 } else { PageShift::K64 };
        let machine = MockKernel::builder(3).host_page(page).memory(1 << 28).record(true);
        let kernel = machine.profile(profile).platform(profile.usual_platform()).build();
        let processes = [kernel.process(), kernel.process()];
        // Enough for the default window; more would only make it slow.
        processes.iter().for_each(|process| process.set_memlock(Some(3 * GB)));
        let mut containers = processes.each_ref().map(|process| {
            let c = process.open_container().unwrap();
            prepare(&c, process.id().0);
            c
        });
        for (op, which, at) in ops {
            // Now and then a process uses the other's container.
            let (mine, of) = (usize::from(which & 1), usize::from(which < 7));
            let c = &mut containers[if of == 1 { mine } else { 1 - mine }];
            let mut seen = c.shared_with(&processes[mine]).unwrap();
            run(&kernel, &processes[mine], &mut seen, op);
            if of == 1 {
                *c = seen;
            }
            for process in &processes {
                let books = process.books();
                prop_assert_eq!(books.locked, books.sum());
                let _ = process.backing(Uaddr(at), at);
            }
            for group in 0..4 {
                let _ = kernel.translate(GroupId(group), Ioba(at), Perm::NONE);
            }
        }
        drop(containers);
        (0..3).for_each(|group| kernel.set_device_open(GroupId(group), false));
        let left = kernel.leftovers();
        prop_assert_eq!((left.containers, left.windows), (0, 0));
        for process in &processes {
            let books = process.books();
            prop_assert_eq!((books.tables, books.enabled), (0, 0));
            prop_assert_eq!(books.locked, books.sum());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn c7_translations_are_a_flat_models(
        // 64K pages on three levels are too many bits.
        (shift, levels) in prop::sample::select(vec![(12u32, 1u32), (12, 2), (12, 3), (16, 1), (16, 2)]),
        ops in prop::collection::vec((0u64..1024, 1u64..40, 0u64..200, 0u32..4, any::<bool>()), 1..60),
    ) {
        let (kernel, process, c) = v2(2);
        prop_assert_eq!(reg(&c, P, 256 << 16), Ok(0));
        prop_assert_eq!(remove(&c, 0), Ok(0));
        let (ret, _) = create(&c, shift, GB, levels);
        prop_assert_eq!(ret, Ok(0));
        let mut model = std::collections::BTreeMap::new();
        // Around the borders of the leaves, at the start of a page other than 0.
        let base = 8192 - 512;
        for (at, pages, from, flags, undo) in ops {
            let (iova, size) = ((base + at) << shift, pages << shift);
            let va = P + (from << shift);
            if undo {
                prop_assert_eq!(unmap(&c, iova, size), Ok(0));
                model.retain(|i, _| !(at..at + pages).contains(i));
            } else if flags == 0 {
                prop_assert_eq!(map(&c, iova, va, size, 0), Err(Errno::EINVAL));
            } else {
                prop_assert_eq!(map(&c, iova, va, size, flags), Ok(0));
                model.extend((0..pages).map(|i| (at + i, (va + (i << shift), flags))));
            }
        }
        for i in 0..1100 {
            let at = Ioba(((base + i) << shift) + 0x123);
            let wanted = model.get(&i).map(|(va, flags)| {
                let perm = if flags & 2 != 0 { Perm::READ_WRITE } else { Perm::READ };
                Reached { process: process.id(), at: Uaddr(va + 0x123), perm }
            });
            prop_assert_eq!(kernel.translate(GroupId((i % 2) as u32), at, Perm::NONE).ok(), wanted);
        }
        prop_assert_eq!(process.region_counts(Uaddr(P)), Some((model.len() as u64, 1)));
        end(&kernel, &process, c);
    }
}
