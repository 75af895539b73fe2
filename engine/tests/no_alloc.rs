// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Nothing is allocated on the paths that maps, unmaps and a guest's calls take again and again. A
//! counting allocator says so; it has a test binary of its own, with one test.

#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use common::*;
use tce_engine::addr::{Gra, Ioba, Liobn, PageShift, PageSizes, Uaddr};
use tce_engine::backend::mock::MockBuilder;
use tce_engine::container::{MapRequest, Mode, UnmapRequest};
use tce_engine::engine::EngineOptions;
use tce_engine::geometry::WindowSpec;
use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace};
use tce_engine::kill::KillPolicy;
use tce_engine::papr::{GuestMemory, HCode, Papr, PhbSpec};
use tce_engine::tce::Perm;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator with the same arguments; counting touches a
// thread-local cell that needs neither an allocation nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `f` twice: first it may make levels and what else is made once. Returns what the second run
/// allocated.
fn allocations(mut f: impl FnMut()) -> u64 {
    f();
    f();
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

const A: Uaddr = Uaddr(0x7f00_0000_0000);
const P: u64 = 4 * K;
const RW: Perm = Perm::READ_WRITE;

struct List(Vec<u64>);

impl GuestMemory for List {
    fn copy_words(&self, _: Gra, words: &mut [u64]) -> bool {
        words.copy_from_slice(&self.0[..words.len()]);
        true
    }
}

#[test]
fn nothing_is_allocated_on_the_hot_paths() {
    let made = allocations(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(made, 1, "the counter counts");

    let rig = Rig::new(MockBuilder::new(2));
    let c = rig.container(&[G0, G1]);
    c.create_window(WindowSpec::new(2 * G, PageShift::K4).levels(2)).unwrap();
    c.register(A, 2 * G).unwrap();
    let c = Arc::new(c);
    let space = IobaSpace { start: Ioba(G), bytes: G, page: PageShift::K4 };
    let addresses = IobaAllocator::new(space, IobaOptions::default()).unwrap();
    let mut m = c.mapper().with_addresses(&addresses);
    let pages: Vec<_> = (0..512u64).map(|n| Uaddr(A.0 + n * 7919 % 4096 * P)).collect();

    let single = allocations(|| {
        for n in 0..20 {
            m.map(Ioba(n * P), A, P, RW, Mode::Refuse).unwrap();
            m.unmap(Ioba(n * P), P).unwrap();
        }
    });
    let shared = allocations(|| {
        c.map(Ioba(0), A, P, RW, Mode::Refuse).unwrap();
        c.unmap(Ioba(0), P).unwrap();
    });
    let by_allocator = allocations(|| {
        let places = [(); 100].map(|()| m.map_alloc(A, P, RW).unwrap());
        places.into_iter().for_each(|at| m.unmap_free(at, P).unwrap());
    });
    let ranges = allocations(|| {
        for bytes in [2 * P, 100 * P, 64 * M, G] {
            m.map(Ioba(0), A, bytes, RW, Mode::Refuse).unwrap();
            m.map(Ioba(0), A, bytes, RW, Mode::Replace).unwrap();
            m.unmap(Ioba(0), bytes).unwrap();
        }
    });
    let lists = allocations(|| {
        m.map_list(Ioba(0), &pages, RW, Mode::Refuse).unwrap();
        m.map_list(Ioba(0), &pages, RW, Mode::Replace).unwrap();
        m.unmap(Ioba(0), 512 * P).unwrap();
    });
    // Every second page: as many ranges to kill as there are pages.
    for n in 0..256 {
        m.map(Ioba(n * 2 * P), A, P, RW, Mode::Refuse).unwrap();
    }
    let scattered = allocations(|| {
        m.unmap(Ioba(0), 100 * P).unwrap();
        for n in 0..50 {
            m.map(Ioba(n * 2 * P), A, P, RW, Mode::Refuse).unwrap();
        }
    });
    m.unmap(Ioba(0), 512 * P).unwrap();
    let requests: Vec<_> = (0..512)
        .map(|n| MapRequest { at: Ioba(n * P), memory: Uaddr(A.0 + n * P), bytes: P, perm: RW })
        .collect();
    let back: Vec<_> = requests.iter().map(|r| UnmapRequest { at: r.at, bytes: P }).collect();
    let batches = allocations(|| {
        m.map_batch(&requests, Mode::Refuse).unwrap();
        m.unmap_batch(&back).unwrap();
    });
    let calls = [single, shared, by_allocator, ranges, lists, scattered, batches];
    assert_eq!(calls, [0; 7], "single, shared, by allocator, ranges, lists, scattered, batches");
    drop(m);

    let rig = Rig::new(MockBuilder::new(1));
    let papr = Arc::new(Papr::new(G));
    let liobn = 0x8000_0000;
    let window = WindowSpec::new(G, PageShift::K4);
    let spec = PhbSpec { buid: 1, group: G0, liobn: Liobn(liobn as u32), window };
    papr.add_phb(&rig.engine, spec).unwrap();
    let mut vcpu = papr.vcpu();
    let list = List((0..512u64).map(|n| ((n * 7919 % 4096 * P) | 3).to_be()).collect());
    let guest = allocations(|| {
        for n in 0..20 {
            assert_eq!(vcpu.put_tce(liobn, n * P, (n * P) | 3).code, HCode::SUCCESS);
            assert_eq!(vcpu.put_tce(liobn, n * P, 3).code, HCode::SUCCESS);
        }
        let stored = vcpu.put_tce_indirect(liobn, 0, 0x4000, 512, &list);
        assert_eq!(stored.receipt.tces, 512);
        assert_eq!(vcpu.get_tce(liobn, P).0, HCode::SUCCESS);
        assert_eq!(vcpu.stuff_tce(liobn, 0, 3, 512).code, HCode::SUCCESS);
        assert_eq!(vcpu.stuff_tce(liobn, 0, 0, 2).code, HCode::SUCCESS);
        assert_eq!(vcpu.stuff_tce(liobn, 0, 0, 512).code, HCode::SUCCESS);
    });
    assert_eq!(guest, 0, "a guest's calls");
    drop(vcpu);

    // Kills that wait, and the settling of them.
    let max_age = std::time::Duration::from_secs(3600);
    let deferred = KillPolicy::Deferred { max_pages: 40, max_age };
    let waits =
        [(deferred, phb3(true)), (deferred, phb3(false)), (KillPolicy::Batched, phb3(true))];
    for (policy, kill) in waits {
        let options = EngineOptions { policy, ..EngineOptions::default() };
        let rig = Rig::with(MockBuilder::new(1).kill(kill), options);
        let c = rig.container(&[G0]);
        c.create_window(WindowSpec::new(2 * G, PageShift::K4).levels(2)).unwrap();
        c.register(A, 2 * G).unwrap();
        let c = Arc::new(c);
        let addresses = IobaAllocator::new(space, IobaOptions::default()).unwrap();
        let mut m = c.mapper().with_addresses(&addresses);
        let waiting = allocations(|| {
            for n in 0..100 {
                m.map(Ioba(n * P), A, P, RW, Mode::Refuse).unwrap();
                m.unmap(Ioba(n * P), P).unwrap();
                let at = m.map_alloc(A, P, RW).unwrap();
                m.unmap_free(at, P).unwrap();
            }
            m.map(Ioba(0), A, 30 * P, RW, Mode::Refuse).unwrap();
            m.unmap(Ioba(0), 30 * P).unwrap();
            m.submit();
        });
        assert_eq!(waiting, 0, "{policy:?}");
        let debts = rig.engine.debts();
        assert!(debts.pages > 200 && debts.most_pages > 30, "{debts:?}");
    }

    // A list for two windows, and pages of 64 KiB that are made of smaller ones.
    let small = PageSizes::of(&[PageShift::K4]);
    let rig = Rig::new(MockBuilder::new(2).group(G0, |caps| caps.page_sizes = small));
    let papr = Papr::new(G).multi_table().compose_pages(PageSizes::of(&[PageShift::K64]));
    for (buid, group) in [(1, G0), (2, G1)] {
        let window = WindowSpec::new(G, PageShift::K64);
        let liobn = Liobn((liobn + 0x100 * buid) as u32);
        papr.add_phb(&rig.engine, PhbSpec { buid, group, liobn, window }).unwrap();
    }
    let papr = Arc::new(papr);
    let mut vcpu = papr.vcpu();
    let (first, second) = (liobn + 0x100, liobn + 0x200);
    let tces = (0..510u64).map(|n| (n * 7919 % 4096 * 64 * K) | 3);
    let list = List([second, first].into_iter().chain(tces).map(u64::to_be).collect());
    let composed = allocations(|| {
        for n in 0..20 {
            assert_eq!(vcpu.put_tce(first, n * 64 * K, 3).code, HCode::SUCCESS);
        }
        assert_eq!(vcpu.stuff_tce(first, 0, 3, 100).code, HCode::SUCCESS);
        assert_eq!(vcpu.stuff_tce(first, 0, 0, 100).code, HCode::SUCCESS);
        let stored = vcpu.put_tce_indirect((-2i64) as u64, 0, 0x4000, 510, &list);
        assert_eq!(stored.receipt.tces, 510 * 17);
    });
    assert_eq!(composed, 0, "composed pages, several tables");
}
