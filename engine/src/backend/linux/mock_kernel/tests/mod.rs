// SPDX-License-Identifier: Apache-2.0 OR MIT

mod cases;
mod fuzz;
mod observed;
mod observed_groups;
mod platforms;
mod profiles;
mod replay;

use super::*;
use crate::addr::Uaddr;
use crate::backend::linux::raw::{Errno, Raw, RawContainer, RawHost};
use crate::backend::linux::uapi::{
    DmaMap, DmaUnmap, RegisterMemory, TceCreate, TceInfo, TceRemove, kind,
};

/// The host page of most tests.
const PS: u64 = 1 << 16;
const GB: u64 = 1 << 30;
/// Where the process's buffers are.
const P: u64 = 0x7f00_0000_0000;
/// The size of the usual region.
const SZ: u64 = 64 * PS;
/// A bus address away from entry 0.
const B: u64 = 1024 * PS;
/// Nothing is mapped from here on, where a test says so.
const NOWHERE: u64 = 16 << 30;
const V1: u32 = kind::SPAPR_TCE;
const V2: u32 = kind::SPAPR_TCE_V2;
/// Both directions.
const RW: u32 = 3;

/// A container with the groups `first..first + n`.
fn container(process: &Process, first: u32, n: u32, kind: u32) -> MockContainer {
    let c = process.open_container().unwrap();
    for group in (first..first + n).map(GroupId) {
        assert_eq!(c.open_group(group), Ok(0));
        assert_eq!(c.set_container(group), Ok(0));
        if group.0 == first {
            assert_eq!(c.set_iommu(kind), Ok(0));
        }
    }
    c
}

/// A machine with so many groups, its process, and a v2 container with all of them.
fn v2(groups: u32) -> (Arc<MockKernel>, Arc<Process>, MockContainer) {
    let kernel = MockKernel::builder(groups).record(true).build();
    let process = kernel.process();
    let c = container(&process, 0, groups, V2);
    (kernel, process, c)
}

fn map(c: &MockContainer, iova: u64, va: u64, size: u64, flags: u32) -> Raw {
    c.map(&DmaMap::new(flags, va, iova, size))
}

fn unmap(c: &MockContainer, iova: u64, size: u64) -> Raw {
    let mut arg = DmaUnmap::new(iova, size);
    let ret = c.unmap(&mut arg);
    assert_eq!(arg, DmaUnmap::new(iova, size), "nothing is written back");
    ret
}

fn reg(c: &MockContainer, va: u64, size: u64) -> Raw {
    c.register(&RegisterMemory::new(va, size))
}

fn unreg(c: &MockContainer, va: u64, size: u64) -> Raw {
    c.unregister(&RegisterMemory::new(va, size))
}

/// CREATE, and what stands in `start_addr` after it.
fn create(c: &MockContainer, shift: u32, size: u64, levels: u32) -> (Raw, u64) {
    let mut arg = TceCreate { start_addr: 0xdead_beef, ..TceCreate::new(shift, size, levels) };
    (c.create(&mut arg), arg.start_addr)
}

fn remove(c: &MockContainer, start: u64) -> Raw {
    c.remove(&TceRemove::new(start))
}

/// Window W1: 64K pages, 1 GiB, one level, at 0.
fn w1(c: &MockContainer) {
    assert_eq!(remove(c, 0), Ok(0));
    assert_eq!(create(c, 16, GB, 1), (Ok(0), 0));
}

fn reaches(kernel: &MockKernel, group: u32, at: u64) -> Result<u64, DmaFault> {
    kernel.translate(GroupId(group), Ioba(at), Perm::NONE).map(|there| there.at.0)
}

/// Closes everything and looks for what is left.
fn end(kernel: &MockKernel, process: &Process, c: MockContainer) {
    drop(c);
    assert_eq!(kernel.leftovers(), Leftovers::default());
    let books = process.books();
    assert_eq!((books.locked, books.sum()), (books.leaked, books.leaked));
    assert_eq!(kernel.damage(), []);
}
