// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Containers of a Linux kernel, which owns the tables and writes the entries itself.
//!
//! [`Linux`] is the back end over a [`RawHost`]: the real `/dev/vfio` ([`vfio`]) or a simulated
//! kernel ([`mock_kernel`]). It sends no request that would make the kernel hang, write outside its
//! table, leak a charge or answer with what is not true; `guard.rs` has the list.

mod charging;
pub mod faulty;
mod guard;
pub mod mock_kernel;
mod opened;
pub mod raw;
mod space;
pub mod uapi;
pub mod vfio;

use crate::addr::{GroupId, Hpa, Ioba, PageShift, PageSizes, PeNumber, Uaddr};
use crate::backend::layout::RealLayout;
use crate::backend::{
    Backend, Caps, GroupCaps, KernelCaps, KillScope, MAX_WINDOWS, Memory, Space, Tables,
    WindowProgram,
};
use crate::error::BackendError;
use crate::mem::{TableChunk, TableMemory};
use crate::sabotage::{Guard, stands};
use crate::sync::{Arc, Mutex, lock};
use charging::Charging;
use opened::Opened;
use raw::RawHost;
use space::LinuxSpace;
use uapi::TceInfo;

/// The second window of a PE begins here; no request can choose it.
const SECOND_WINDOW: Ioba = Ioba(1 << 59);

/// On Linux 6.12 with 4 KiB pages, pinning what is further inside a huge page never comes to an end.
const PINNABLE: u64 = 2 << 20;

/// The version of a sPAPR TCE container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    /// One group, one window of 2 GiB, the whole of it charged ahead; memory is pinned as it is
    /// mapped.
    V1,
    /// Many groups, windows of the caller's choice, memory registered beforehand.
    #[default]
    V2,
}

/// How containers are to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LinuxOptions {
    /// Version of all containers.
    pub version: Version,
    /// Keeps the default window of version 2 containers, which is removed otherwise: then the first
    /// window that is created has to have its shape.
    pub keep_default_window: bool,
}

/// The back end over a kernel's containers.
#[derive(Debug)]
pub struct Linux {
    host: Arc<dyn RawHost>,
    options: LinuxOptions,
    /// Where the next mirror lies. Nobody walks it but the engine, so the addresses only have to
    /// differ.
    next_table: Mutex<u64>,
    /// Unknown until the first group was looked at.
    charging: Arc<Mutex<Option<Charging>>>,
    caps: Caps,
}

impl Linux {
    /// The back end over `host`. Opens nothing yet.
    #[must_use]
    pub fn new(host: Arc<dyn RawHost>, options: LinuxOptions) -> Arc<Self> {
        let host_page = host.host_page();
        let paid_ahead = match options.version {
            Version::V1 => space::V1_WINDOW,
            Version::V2 => 0,
        };
        let caps = Caps {
            host_page,
            // The page allocator's largest order: 8 with pages of 64 KiB, 12 with those of 4 KiB.
            max_block: 16 << 20,
            tables: Tables::Kernel(KernelCaps { detach_clears: true, paid_ahead }),
            memlock: host.memlock().map(|limit| limit.saturating_sub(host.locked_bytes())),
        };
        let (next_table, charging) = (Mutex::new(1 << 40), Arc::default());
        Arc::new(Self { host, options, next_table, charging, caps })
    }
}

impl TableMemory for Linux {
    fn reserve_table(&self, bytes: u64) -> Result<Hpa, BackendError> {
        let mut next = lock(&self.next_table);
        let aligned = bytes.checked_next_power_of_two().and_then(|align| {
            let at = next.checked_next_multiple_of(align)?;
            Some((at, at.checked_add(bytes)?))
        });
        let Some((at, end)) = aligned else {
            let reason = "no place left for a mirror".to_owned();
            return Err(BackendError::NoTableMemory { bytes, reason });
        };
        *next = end;
        Ok(Hpa(at))
    }

    fn back_table(&self, _: Hpa, _: Arc<TableChunk>) -> Result<(), BackendError> {
        Ok(())
    }

    fn free_table(&self, _: Hpa) {}
}

impl Backend for Linux {
    fn caps(&self) -> Caps {
        self.caps
    }

    /// Asked of a container that has this group alone: a container of several reports only one of
    /// them. The first such container also shows how this kernel charges windows.
    fn group(&self, group: GroupId) -> Result<GroupCaps, BackendError> {
        let mut charging = lock(&self.charging);
        let before = self.host.locked_bytes();
        let mut trial = Opened::new(&*self.host)?;
        trial.join(group)?;
        trial.set_iommu(self.options.version)?;
        let info = trial.info()?;
        if charging.is_none() {
            *charging = Charging::probe(&mut trial, &info, &*self.host, self.options, before);
        }
        let ddw = info.flags & TceInfo::DDW != 0;
        let (page_sizes, max_levels, windows) = if ddw {
            let ddw = info.ddw;
            (PageSizes(ddw.pgsizes), ddw.levels, ddw.max_dynamic_windows_supported)
        } else {
            (PageSizes::of(&[PageShift::K4]), 1, 1)
        };
        let first = Ioba(u64::from(info.dma32_window_start));
        let mut window_starts = [Some(first), (windows > 1).then_some(SECOND_WINDOW)];
        if windows == 0 {
            window_starts = [None; MAX_WINDOWS];
        }
        Ok(GroupCaps {
            // The kernel does not tell PE numbers; to it, a group is one PE.
            pe: PeNumber(group.0 as u16),
            page_sizes,
            max_levels,
            window_starts,
            default_bytes: u64::from(info.dma32_window_size),
            can_share_tables: self.options.version == Version::V2,
            node: self.host.node(group),
        })
    }

    fn space(&self) -> Box<dyn Space> {
        Box::new(LinuxSpace::new(self.host.clone(), self.options, self.charging.clone()))
    }

    // The kernel programs PEs and kills translations within the requests of a `Space`.

    fn take_ownership(&self, _: GroupId) -> Result<(), BackendError> {
        Ok(())
    }

    fn release_ownership(&self, _: GroupId) {}

    fn set_window(&self, _: GroupId, _: usize, _: &WindowProgram) -> Result<(), BackendError> {
        Ok(())
    }

    fn unset_window(&self, _: GroupId, _: usize) {}

    fn kill(&self, _: GroupId, _: KillScope) -> u64 {
        0
    }

    fn fence(&self) {}

    /// Pins nothing yet: registering the memory in a container does, or mapping it in one of version
    /// 1. Both need memory that is there and writable.
    fn pin(&self, memory: Memory) -> Result<RealLayout, BackendError> {
        let (at, bytes) = (memory.start(), memory.bytes());
        let failed = |reason: &str| BackendError::Pin { at, bytes, reason: reason.to_owned() };
        let Memory::User { start, bytes } = memory else {
            return Err(failed("a kernel's container maps memory of the process, not a guest's"));
        };
        let backing = self
            .host
            .backing(start, bytes)
            .or_else(|| (!stands(Guard::Hole)).then_some(self.caps.host_page))
            .ok_or_else(|| failed("part of it is not mapped for reading and writing"))?;
        let inside = start.0 & (backing.bytes() - 1);
        if self.caps.host_page == PageShift::K4
            && inside + bytes > PINNABLE
            && backing > PageShift::K4
        {
            return Err(failed(
                "Linux with 4K pages hangs when it pins what is behind the first 2 MiB of a huge page",
            ));
        }
        // IOMMU pages are at most as large as what the memory stands on, and as what its ends are
        // aligned to.
        let aligned = PageShift::new((start.0 | bytes).trailing_zeros().min(34));
        let largest = aligned.map_or(backing, |aligned| aligned.min(backing));
        Ok(RealLayout::process(start, bytes, largest))
    }

    fn unpin(&self, _: Memory, _: &RealLayout) {}
}

/// A range of the process, for messages.
fn range(start: Uaddr, bytes: u64) -> String {
    format!("{bytes:#x} bytes at {start}")
}
