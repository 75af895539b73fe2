// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The two machines: where memory, limits and other processes come from.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use tce_engine::addr::{GroupId, PageShift, Uaddr};
use tce_engine::backend::linux::mock_kernel::{MockKernel, MockKernelBuilder, Process, Vma};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::vfio::{Preflight, PreflightError, Vfio, preflight};
use tce_engine::mem::TableChunk;

use crate::case::{Must, Stop};
use crate::kernels::Kernel;
use crate::spy::Machine;

/// Groups that the cases ask for.
pub(crate) const GROUPS: usize = 6;

/// Memory of the process, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mem {
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    host: u32,
}

impl Mem {
    fn new(at: u64, pages: u64, host: PageShift) -> Self {
        Self { at, bytes: pages << host.get(), host: host.get() }
    }

    /// Host pages `from..from + pages`, which may lie outside.
    pub(crate) fn part(self, from: u64, pages: u64) -> Self {
        let at = self.at + (from << self.host);
        Self { at, bytes: pages << self.host, host: self.host }
    }

    /// Some of its bytes.
    pub(crate) fn bytes(self, from: u64, bytes: u64) -> Self {
        Self { at: self.at + from, bytes, host: self.host }
    }

    pub(crate) fn uaddr(self) -> Uaddr {
        Uaddr(self.at)
    }
}

/// A simulated machine and the process on it that acts.
pub(crate) struct MockRig {
    pub(crate) kernel: Arc<MockKernel>,
    pub(crate) process: Arc<Process>,
    pub(crate) other: Arc<Process>,
    next: u64,
}

/// Real memory, by what keeps it.
enum Held {
    Words(TableChunk),
    Pages { _map: MmapRaw },
}

/// The machine that this runs on.
pub(crate) struct RealRig {
    pub(crate) vfio: Arc<Vfio>,
    pub(crate) found: Preflight,
    held: BTreeMap<u64, Held>,
    host: PageShift,
}

pub(crate) enum Rig {
    Mock(MockRig),
    Real(RealRig),
}

/// What this machine has.
pub(crate) fn look() -> Result<Preflight, PreflightError> {
    preflight(None, GROUPS, 0, false)
}

/// The VFIO of this machine.
#[allow(unsafe_code)] // the one promise that the whole program rests on
pub(crate) fn vfio() -> Arc<Vfio> {
    // SAFETY: what the cases register or map is memory of `RealRig` and nothing else: mappings of
    // its own that no allocator knows. Their contents are accessed through `TableChunk`'s atomics
    // or not at all; the others are `MmapRaw`s that nobody dereferences. Addresses that are made up
    // (of the kernel, of nobody) are refused by the kernel before it pins anything. Memory that is
    // unmapped while it is registered is not handed out again by us, and a case has a process of
    // its own, in which nothing else runs. The nodes are those of the machine.
    let vfio = unsafe { Vfio::new() };
    Arc::new(vfio)
}

impl Rig {
    pub(crate) fn mock(change: impl FnOnce(MockKernelBuilder) -> MockKernelBuilder) -> Self {
        let Kernel { profile, platform, host_page } = Kernel::now();
        let machine = MockKernel::builder(GROUPS as u32).profile(profile).platform(platform);
        let machine = machine.host_page(host_page).record(true);
        let kernel = change(machine).build();
        let (process, other) = (kernel.process(), kernel.process());
        Self::Mock(MockRig { kernel, process, other, next: 0x7000_0000_0000 })
    }

    pub(crate) fn real(found: Preflight) -> Self {
        let vfio = vfio();
        let host = vfio.host_page();
        Self::Real(RealRig { vfio, found, held: BTreeMap::new(), host })
    }

    pub(crate) fn machine(&self) -> Machine {
        match self {
            Self::Mock(mock) => {
                Machine::Mock { own: mock.process.clone(), other: mock.other.clone() }
            }
            Self::Real(real) => Machine::Real(real.vfio.clone()),
        }
    }

    pub(crate) fn group(&self, n: usize) -> GroupId {
        match self {
            Self::Mock(_) => GroupId(n as u32),
            Self::Real(real) => real.found.groups[n],
        }
    }

    /// Writable memory.
    pub(crate) fn memory(&mut self, pages: u64) -> Result<Mem, Stop> {
        match self {
            Self::Mock(mock) => Ok(mock.declare(pages, Vma::ANONYMOUS)),
            Self::Real(real) => {
                let chunk = TableChunk::new((pages << real.host.get()) as usize).must("memory")?;
                let at = chunk.process_address() as u64;
                real.held.insert(at, Held::Words(chunk));
                Ok(Mem::new(at, pages, real.host))
            }
        }
    }

    pub(crate) fn read_only(&mut self, pages: u64) -> Result<Mem, Stop> {
        match self {
            Self::Mock(mock) => Ok(mock.declare(pages, Vma::READ_ONLY)),
            Self::Real(real) => {
                let map = real.pages(pages)?.make_read_only().must("making memory read-only")?;
                Ok(real.hold(map.into(), pages))
            }
        }
    }

    /// Memory whose pages from `hole` on are not mapped.
    pub(crate) fn with_hole(&mut self, pages: u64, hole: u64) -> Result<Mem, Stop> {
        match self {
            Self::Mock(mock) => {
                let all = mock.declare(pages, Vma::ANONYMOUS);
                let hole = all.part(hole, pages - hole);
                mock.process.vma(hole.uaddr(), hole.bytes, Vma::HOLE);
                Ok(all)
            }
            Self::Real(real) => real.with_hole(pages, hole),
        }
    }

    /// Addresses that are nobody's.
    pub(crate) fn nowhere(&mut self, pages: u64) -> Result<Mem, Stop> {
        match self {
            Self::Mock(mock) => Ok(mock.declare(pages, Vma::HOLE)),
            Self::Real(real) => Ok(real.with_hole(1 + pages, 1)?.part(1, pages)),
        }
    }

    /// A file's memory, shared, that ends `pages` into a mapping of `mapped`.
    pub(crate) fn of_file(&mut self, mapped: u64, pages: u64) -> Result<Mem, Stop> {
        match self {
            Self::Mock(_) => self.with_hole(mapped, pages),
            Self::Real(real) => {
                let path = std::env::temp_dir().join(format!("conformance.{}", std::process::id()));
                let mut options = File::options();
                let file = options.read(true).write(true).create(true).truncate(true).open(&path);
                let file = file.must("a file")?;
                std::fs::remove_file(&path).must("removing the file")?;
                file.set_len(pages << real.host.get()).must("the file's length")?;
                let bytes = (mapped << real.host.get()) as usize;
                let map = MmapOptions::new().len(bytes).map_raw(&file).must("mapping a file")?;
                Ok(real.hold(map, mapped))
            }
        }
    }

    /// Reserved huge pages of 16M.
    pub(crate) fn huge(&mut self, count: u64) -> Result<Mem, Stop> {
        let bytes = count << 24;
        match self {
            Self::Mock(mock) => {
                mock.next = mock.next.next_multiple_of(1 << 24);
                let pages = bytes >> mock.host().get();
                Ok(mock.declare(pages, Vma::hugetlb(PageShift::M16)))
            }
            Self::Real(real) => {
                let map = MmapOptions::new().len(bytes as usize).huge(Some(24)).map_anon();
                let map = map.map_err(|e| Stop::Skip(format!("no huge pages of 16M: {e}")))?;
                Ok(real.hold(map.into(), bytes >> real.host.get()))
            }
        }
    }

    /// Unmaps memory from the process.
    pub(crate) fn munmap(&mut self, memory: Mem) {
        match self {
            Self::Mock(mock) => mock.process.vma(memory.uaddr(), memory.bytes, Vma::HOLE),
            Self::Real(real) => drop(real.held.remove(&memory.at)),
        }
    }

    /// Limits what the process may lock, with or without the right to exceed it.
    pub(crate) fn limit(&self, bytes: u64, ipc_lock: bool) -> Result<(), Stop> {
        match self {
            Self::Mock(mock) => {
                mock.process.set_memlock(Some(bytes));
                mock.process.set_ipc_lock(ipc_lock);
                Ok(())
            }
            Self::Real(_) => {
                use rustix::process::{Resource, Rlimit, setrlimit};
                use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
                let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
                setrlimit(Resource::Memlock, limit).must("setrlimit")?;
                let mut sets = capabilities(None).must("capabilities")?;
                if ipc_lock {
                    let has = sets.effective.contains(CapabilitySet::IPC_LOCK);
                    return has.then_some(()).ok_or(Stop::Skip("no CAP_IPC_LOCK".to_owned()));
                }
                for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
                    set.remove(CapabilitySet::IPC_LOCK);
                }
                set_capabilities(None, sets).must("dropping CAP_IPC_LOCK")
            }
        }
    }
}

impl MockRig {
    fn host(&self) -> PageShift {
        self.process.host_page()
    }

    fn declare(&mut self, pages: u64, vma: Vma) -> Mem {
        let memory = Mem::new(self.next, pages, self.host());
        self.process.vma(memory.uaddr(), memory.bytes, vma);
        // Never neighbours.
        self.next = (self.next + memory.bytes + (1 << 20)).next_multiple_of(1 << 20);
        memory
    }
}

impl RealRig {
    fn pages(&self, pages: u64) -> Result<memmap2::MmapMut, Stop> {
        let bytes = (pages << self.host.get()) as usize;
        MmapOptions::new().len(bytes).map_anon().must("memory")
    }

    fn hold(&mut self, map: MmapRaw, pages: u64) -> Mem {
        let at = map.as_ptr() as u64;
        self.held.insert(at, Held::Pages { _map: map });
        Mem::new(at, pages, self.host)
    }

    /// Two mappings, the second right below the first, which then goes. They are so large that there
    /// is hardly room for them elsewhere, and too small to be aligned to huge pages. Where there was
    /// room, they stay and fill it.
    fn with_hole(&mut self, pages: u64, hole: u64) -> Result<Mem, Stop> {
        let half = (1 << 20) >> self.host.get();
        for _ in 0..16 {
            let above = self.pages(half)?;
            let below = self.pages(half)?;
            let adjacent = below.as_ptr() as u64 + below.len() as u64 == above.as_ptr() as u64;
            let below = self.hold(below.into(), half);
            if !adjacent {
                self.hold(above.into(), half);
                continue;
            }
            drop(above);
            let memory = below.part(half - hole, pages);
            let missing = |n| self.vfio.backing(memory.part(n, 1).uaddr(), 1).is_none();
            if (hole..pages).all(missing) {
                return Ok(memory);
            }
        }
        Err(Stop::Skip("the kernel would not leave a hole".to_owned()))
    }

    /// A doubleword of writable memory.
    pub(crate) fn word(&self, at: u64) -> Result<&AtomicU64, Stop> {
        let (start, held) = self.held.range(..=at).next_back().must("no memory there")?;
        let Held::Words(chunk) = held else {
            return Err(Stop::Broken("memory that cannot be looked at".to_owned()));
        };
        chunk.slots().get(((at - start) / 8) as usize).must("no memory there")
    }
}
