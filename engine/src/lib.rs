// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A DMA mapping engine for devices behind IBM POWER's sPAPR TCE IOMMU: it pins and charges memory,
//! builds and edits the TCE tables of DMA windows that several IOMMU groups may share, and kills
//! what the host bridge has cached before anything is released. A map, registration, window or
//! attach that is refused changes no entry, no count and no charge, and the ledger says what the
//! process should show as locked memory.
//!
//! It is for authors of virtual machine monitors, whose guests edit their own windows by hypercall
//! ([`papr`]), and of user-space drivers, who map ring buffers and data for one or more devices
//! ([`Container`]). It has no clocks and no command line; only [`backend::linux`] opens files.
//!
//! # The data path
//!
//! ```text
//! map ─► check the range, plan the memory ─► install levels, lock the stretch ─► claim counts
//!                                                                                   │
//!        release counts ◄─ fence ◄─ kill on every PE ◄─ unlock ◄─ write the entries ◄┘
//! ```
//!
//! Everything that can fail comes before the first entry is written. Each stretch of a leaf is
//! looked up once and then written by a loop of the [`simd`] tier that suits the machine.
//!
//! # Example
//!
//! Two devices share one window:
//!
//! ```
//! use tce_engine::backend::mock::{Access, Fault};
//! use tce_engine::{
//!     Engine, EngineOptions, GroupId, Ioba, Memory, MockBuilder, Mode, PageShift, PeNumber, Perm,
//!     Uaddr, WindowSpec,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A machine with two groups. It is a mock: software PHB, not hardware.
//! let mock = MockBuilder::new(2).build();
//! let engine = Engine::new(mock.clone(), EngineOptions::default());
//!
//! let container = engine.container();
//! container.attach(GroupId(0))?;
//! container.attach(GroupId(1))?;
//!
//! // 4 MiB of the process. The engine never follows the address.
//! let (start, bytes) = (Uaddr(0x7000_0000_0000), 4 << 20);
//! container.register(start, bytes)?;
//! let window = container.create_window(WindowSpec::new(2 << 30, PageShift::K4))?;
//! // Charged once, although two groups use it: the region and the window's table.
//! let charged = engine.ledger().pages() * engine.ledger().page().bytes();
//! assert_eq!(charged, bytes + window.geometry.charge());
//!
//! // 16 pages, for both devices at once.
//! let at = Ioba(window.start.0 + 0x10_0000);
//! let receipt = container.map(at, start, 16 << 12, Perm::READ, Mode::Refuse)?;
//! assert_eq!(receipt.tces, 16);
//!
//! // Each PE walks the table on its own and arrives at the same byte.
//! let byte = Ioba(at.0 + 0x3210);
//! for pe in [PeNumber(0), PeNumber(1)] {
//!     let there = mock.translate(pe, byte, Access::Read).expect("is mapped");
//!     assert_eq!(mock.owner(there.at), Some((Memory::User { start, bytes }, 0x3210)));
//!     // Only reads were asked for.
//!     let denied = mock.translate(pe, byte, Access::Write);
//!     assert_eq!(denied, Err(Fault::Denied { perm: Perm::READ }));
//! }
//!
//! // When this returns, no device can reach the memory any more.
//! let receipt = container.unmap(at, 16 << 12)?;
//! assert_eq!((receipt.released, receipt.kills.asked), (16, 16 * 2));
//! for pe in [PeNumber(0), PeNumber(1)] {
//!     assert_eq!(mock.translate(pe, byte, Access::Read), Err(Fault::Empty { value: 0 }));
//! }
//!
//! // The last group to leave ends the address space. Nothing is left behind.
//! container.close();
//! assert_eq!(engine.ledger().pages(), 0);
//! assert_eq!(mock.leftovers(), (0, 0, 0));
//! # Ok(())
//! # }
//! ```
//!
//! `examples/vmm.rs` and `examples/userspace_driver.rs` show the two uses at length; `DESIGN.md` has
//! the glossary, the owners of the invariants and the lock order.
//!
//! # What is real and what is mock
//!
//! Real: the tables, byte for byte as a PHB reads them, the geometry and charges of powernv, the
//! order of steps, the books, the hypercalls' checks and return codes. And [`backend::linux`] over
//! [`vfio`](backend::linux::vfio): containers of `/dev/vfio`, whose tables are the kernel's.
//!
//! Mock: [`backend::mock`], a software PHB, not hardware, on which the engine is the hypervisor. It
//! pins nothing, lays out memory in a simulated real address space, and translates only when a test
//! or an emulated device asks it to. And [`mock_kernel`](backend::linux::mock_kernel), a simulated
//! Linux behind the same interface as the real one. No time measured on either is a time of
//! hardware.
//!
//! # What is there
//!
//! * Windows of 1 to 5 levels in the page sizes that the platform offers, levels on demand
//!   ([`geometry`], [`table`]).
//! * Containers of several groups that share up to two windows; attach and window creation roll
//!   back exactly ([`container`]).
//! * Regions charged once a process, tables once a window, a limit that is checked first
//!   ([`ledger`]).
//! * Kills that are done and waited for before a call returns, together at the end of a batch, or later
//!   up to a limit ([`KillPolicy`]).
//! * H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE, H_GET_TCE and the four DDW calls ([`papr`]).
//! * Tiers for x86-64 and POWER beside the portable one ([`simd`]).
//! * Handles for threads and vCPUs, whose single pages take no lock that others share ([`Mapper`],
//!   [`Vcpu`]), and bus addresses for those who do not choose them ([`ioba`]).
//! * Containers of a kernel, version 1 and 2, with a guard between the engine's requests and what a
//!   kernel does wrong; batches whose neighbours become one request ([`backend::linux`],
//!   [`Container::map_batch`]).
//! * Bus addresses for those who do not choose them: an allocator with a magazine for each thread
//!   ([`ioba`]).
//! * A TCE cache in the software PHB, and devices behind it that find a missing or wrong kill
//!   ([`backend::mock::agents`]).
//! * Error handling for each PE: freezes, fences of a bridge, resets, injected errors ([`eeh`]).
//!
//! # What is not there yet
//!
//! * Hypercalls of a guest over a kernel's container.
//! * Several guests on one engine: guest RAM is named by the guest's addresses alone.
#![deny(missing_docs)]
#![cfg_attr(
    all(feature = "stdarch-powerpc", target_arch = "powerpc64", target_endian = "little"),
    feature(asm_experimental_reg, powerpc_target_feature, stdarch_powerpc)
)]

pub mod addr;
pub mod backend;
pub mod container;
pub mod eeh;
pub mod engine;
pub mod error;
pub mod geometry;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
pub mod ioba;
pub mod kill;
pub mod ledger;
pub mod mem;
#[cfg(all(test, loom))]
mod models;
pub mod papr;
mod places;
pub mod platform;
mod regions;
#[doc(hidden)]
pub mod sabotage;
pub mod simd;
mod sync;
pub mod table;
pub mod tce;

pub use addr::{DmaMask, Gra, GroupId, Hpa, Ioba, Liobn, PageShift, PageSizes, PeNumber, Uaddr};
pub use backend::mock::{Mock, MockBuilder};
pub use backend::{Backend, Caps, Memory};
pub use container::{
    Attached, Container, Detached, EehResults, LIST_MAX, MapRequest, Mapper, Mode, Reach, Receipt,
    RegionInfo, Removal, UnmapRequest, WindowInfo,
};
pub use eeh::{EehFunction, EehInjection, EehOp, EehState};
pub use engine::{DetachPolicy, Engine, EngineOptions};
pub use error::{
    AttachError, BackendError, EehError, EntryError, GeometryError, IobaError, LimitError,
    MapError, ProcessError, RegisterError, UnmapError, UnregisterError, WindowError,
};
pub use geometry::{Geometry, Levels, WindowSpec};
pub use ioba::{IobaAllocator, IobaOptions, IobaSpace, Magazine};
pub use kill::{DebtMetrics, KillCount, KillPolicy};
pub use ledger::{ChargeKind, Ledger, LedgerEntry};
pub use mem::{ArenaUse, TablePages};
pub use papr::{GuestMemory, HCode, Papr, PhbSpec, RtasStatus, Vcpu};
pub use platform::Platform;
pub use simd::Tier;
pub use tce::{Perm, Tce};

/// The crate's README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
