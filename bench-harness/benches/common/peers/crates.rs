// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Published page-table crates, on tables in ordinary memory. Physical addresses of tables are
//! addresses of this process; nothing flushes, because no processor walks these tables.
//!
//! All three walk four levels, as their architectures do.

#![allow(unsafe_code)] // their interfaces are unsafe: what is a table's memory is the caller's word

use std::ptr::NonNull;
use std::sync::Mutex;

use aarch64_paging::descriptor::{PhysicalAddress, Stage2Attributes};
use aarch64_paging::paging::{Constraints, MemoryRegion, RootTable, Stage2, Translation};
use memory_addr::{PhysAddr as PlainPhys, VirtAddr as PlainVirt};
use page_table_entry::MappingFlags;
use page_table_entry::x86_64::X64PTE;
use page_table_multiarch::{PageSize, PageTable64, PagingHandler, PagingMetaData};
use tce_engine::mem::TableChunk;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::{Kind, PAGE, Peer, TARGET};

/// Tables of 4 KiB that one crate needs: 1024 leaves, two levels of directories, a root.
const TABLES: usize = 1024 + 2 + 1 + 1;

pub(super) fn all() -> [Box<dyn Peer>; 3] {
    [Box::new(Aarch64Paging::new()), Box::new(Multiarch::new()), Box::new(X86_64::new())]
}

/// Zeroed memory for tables, as the engine's own is: aligned to 2 MiB, on huge pages. It is never
/// freed; a table that comes back is zeroed when it is handed out again.
struct Pool {
    chunk: &'static TableChunk,
    used: usize,
    free: Vec<usize>,
}

impl Pool {
    fn new() -> Self {
        let bytes = (TABLES * PAGE as usize).next_multiple_of(2 << 20);
        let chunk = TableChunk::new(bytes).expect("memory for a peer's table");
        Self { chunk: Box::leak(Box::new(chunk)), used: 0, free: Vec::new() }
    }

    /// A zeroed table. Nobody else has a pointer to it.
    fn take(&mut self) -> NonNull<u8> {
        if let Some(address) = self.free.pop() {
            let table = std::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: `free` holds tables of this pool that were given back, so it is writable,
            // as long as a table, and nobody uses it.
            unsafe { table.write_bytes(0, PAGE as usize) };
            return NonNull::new(table).expect("tables are not at 0");
        }
        let per = PAGE as usize / 8;
        let slots = &self.chunk.slots()[self.used * per..][..per];
        self.used += 1;
        let table = slots.as_ptr().cast_mut().cast::<u8>();
        table.expose_provenance();
        NonNull::new(table).expect("a slice is not at 0")
    }

    fn give_back(&mut self, address: usize) {
        self.free.push(address);
    }
}

// --- x86_64 ---

struct X86_64 {
    table: OffsetPageTable<'static>,
    pool: Pool,
}

// SAFETY: every frame comes from the pool, which hands each out once.
unsafe impl FrameAllocator<Size4KiB> for Pool {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let address = PhysAddr::new(self.take().as_ptr().addr() as u64);
        Some(PhysFrame::containing_address(address))
    }
}

impl X86_64 {
    fn new() -> Self {
        let mut pool = Pool::new();
        let root = pool.take().as_ptr().cast::<PageTable>();
        // SAFETY: the pool's memory lives for ever, is aligned to 4 KiB and zeroed, which is an
        // empty table; nobody else has a pointer to it.
        let root = unsafe { &mut *root };
        // SAFETY: the root is an empty table, and the frames that the pool hands out have the
        // addresses of their memory, so the offset is 0.
        let table = unsafe { OffsetPageTable::new(root, VirtAddr::zero()) };
        Self { table, pool }
    }
}

#[inline(always)]
fn page(number: u64) -> Page {
    Page::containing_address(VirtAddr::new_truncate(number * PAGE))
}

impl Peer for X86_64 {
    fn name(&self) -> &'static str {
        "x86_64"
    }

    fn kind(&self) -> Kind {
        Kind::Crate
    }

    #[inline(always)]
    fn map_one(&mut self, number: u64) {
        let frame = PhysFrame::containing_address(PhysAddr::new_truncate(TARGET + number * PAGE));
        let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
        // SAFETY: no processor walks this table, so what it maps changes nobody's memory.
        let flush = unsafe { self.table.map_to(page(number), frame, flags, &mut self.pool) };
        flush.expect("the page is not mapped").ignore();
    }

    #[inline(always)]
    fn unmap_one(&mut self, number: u64) {
        let (_, flush) = self.table.unmap(page(number)).expect("the page is mapped");
        flush.ignore();
    }

    fn target(&self, number: u64) -> Option<u64> {
        let frame = self.table.translate_page(page(number)).ok()?;
        Some(frame.start_address().as_u64())
    }
}

// --- aarch64-paging ---

/// A stage 2 table: what an IOMMU of that architecture walks.
struct Aarch64Paging(RootTable<Stage2, Identity>);

/// The table's memory has the addresses of this process.
struct Identity(Pool);

type Stage2Table = aarch64_paging::paging::PageTable<Stage2Attributes>;

impl Translation<Stage2Attributes> for Identity {
    fn allocate_table(&mut self) -> (NonNull<Stage2Table>, PhysicalAddress) {
        let table = self.0.take();
        (table.cast(), PhysicalAddress(table.as_ptr().addr()))
    }

    unsafe fn deallocate_table(&mut self, table: NonNull<Stage2Table>) {
        self.0.give_back(table.as_ptr().addr());
    }

    fn physical_to_virtual(&self, at: PhysicalAddress) -> NonNull<Stage2Table> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(at.0)).expect("tables are not at 0")
    }
}

impl Aarch64Paging {
    const ROOT_LEVEL: usize = 0;
    /// Entries of a leaf.
    const LEAF: usize = 512;

    fn new() -> Self {
        Self(RootTable::new(Identity(Pool::new()), Self::ROOT_LEVEL, Stage2))
    }

    #[inline(always)]
    fn change(&mut self, first: u64, count: u64, flags: Stage2Attributes) {
        let (start, end) = (first * PAGE, (first + count) * PAGE);
        let region = MemoryRegion::new(start as usize, end as usize);
        let at = PhysicalAddress((TARGET + start) as usize);
        let constraints = Constraints::NO_BLOCK_MAPPINGS | Constraints::NO_CONTIGUOUS_HINT;
        self.0.map_range(&region, at, flags, constraints).expect("a range inside the table");
    }

    const MAPPED: Stage2Attributes = Stage2Attributes::VALID
        .union(Stage2Attributes::ACCESS_FLAG)
        .union(Stage2Attributes::S2AP_ACCESS_RW);
}

impl Peer for Aarch64Paging {
    fn name(&self) -> &'static str {
        "aarch64-paging"
    }

    fn kind(&self) -> Kind {
        Kind::Crate
    }

    fn map_many(&mut self, count: u64) {
        self.change(0, count, Self::MAPPED);
    }

    fn unmap_many(&mut self, count: u64) {
        // In halves of a leaf: told to unmap a whole leaf, the crate frees it, and the next map
        // has to allocate and link it again.
        for first in (0..count).step_by(Self::LEAF / 2) {
            self.change(first, Self::LEAF as u64 / 2, Stage2Attributes::empty());
        }
    }

    #[inline(always)]
    fn map_one(&mut self, page: u64) {
        self.change(page, 1, Self::MAPPED);
    }

    #[inline(always)]
    fn unmap_one(&mut self, page: u64) {
        self.change(page, 1, Stage2Attributes::empty());
    }

    fn target(&self, page: u64) -> Option<u64> {
        let start = (page * PAGE) as usize;
        let region = MemoryRegion::new(start, start + PAGE as usize);
        let mut found = None;
        let walked = self.0.walk_range(&region, &mut |_, entry, level| {
            if level == 3 && entry.is_valid() {
                found = Some(entry.output_address().0 as u64);
            }
            Ok(())
        });
        walked.expect("a page inside the table");
        found
    }
}

// --- page_table_multiarch ---

/// x86-64's four levels. The crate's own description of them executes `invlpg`.
struct FourLevels;

impl PagingMetaData for FourLevels {
    const LEVELS: usize = 4;
    const PA_MAX_BITS: usize = 52;
    const VA_MAX_BITS: usize = 48;
    type VirtAddr = PlainVirt;

    fn flush_tlb(_: Option<PlainVirt>) {}
}

/// The crate allocates through functions without a receiver, hence a pool for all its tables.
static MULTIARCH_POOL: Mutex<Option<Pool>> = Mutex::new(None);

struct Handler;

impl PagingHandler for Handler {
    fn alloc_frames(count: usize, align: usize) -> Option<PlainPhys> {
        assert!(count == 1 && align == PAGE as usize, "four levels of 4 KiB");
        let mut pool = MULTIARCH_POOL.lock().expect("no panic under this lock");
        Some(PlainPhys::from(pool.get_or_insert_with(Pool::new).take().as_ptr().addr()))
    }

    fn dealloc_frames(at: PlainPhys, _: usize) {
        let mut pool = MULTIARCH_POOL.lock().expect("no panic under this lock");
        pool.get_or_insert_with(Pool::new).give_back(at.as_usize());
    }

    #[inline(always)]
    fn phys_to_virt(at: PlainPhys) -> PlainVirt {
        PlainVirt::from(at.as_usize())
    }
}

struct Multiarch(PageTable64<FourLevels, X64PTE, Handler>);

impl Multiarch {
    fn new() -> Self {
        Self(PageTable64::try_new().expect("the pool has memory"))
    }
}

fn bus(page: u64) -> PlainVirt {
    PlainVirt::from((page * PAGE) as usize)
}

fn real(page: u64) -> PlainPhys {
    PlainPhys::from((TARGET + page * PAGE) as usize)
}

const READ_WRITE: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE);

impl Peer for Multiarch {
    fn name(&self) -> &'static str {
        "page_table_multiarch"
    }

    fn kind(&self) -> Kind {
        Kind::Crate
    }

    fn map_many(&mut self, count: u64) {
        let (bytes, huge) = ((count * PAGE) as usize, false);
        let lookup = |at: PlainVirt| PlainPhys::from(at.as_usize() + TARGET as usize);
        let mapped = self.0.cursor().map_region(bus(0), lookup, bytes, READ_WRITE, huge);
        mapped.expect("nothing is mapped");
    }

    fn unmap_many(&mut self, count: u64) {
        let unmapped = self.0.cursor().unmap_region(bus(0), (count * PAGE) as usize);
        unmapped.expect("all is mapped");
    }

    #[inline(always)]
    fn map_one(&mut self, page: u64) {
        let mapped = self.0.cursor().map(bus(page), real(page), PageSize::Size4K, READ_WRITE);
        mapped.expect("the page is not mapped");
    }

    #[inline(always)]
    fn unmap_one(&mut self, page: u64) {
        self.0.cursor().unmap(bus(page)).expect("the page is mapped");
    }

    fn target(&self, page: u64) -> Option<u64> {
        let (at, ..) = self.0.query(bus(page)).ok()?;
        Some(at.as_usize() as u64)
    }
}
