// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A call of the engine's interface, with all of its arguments: what is made up, made, and printed.

use tce_engine::addr::{DmaMask, GroupId, Ioba, Uaddr};
use tce_engine::container::{MapRequest, Mode, Removal, UnmapRequest};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

/// Who makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The container itself.
    Anybody,
    /// One of the thread's handles for it.
    Handle(usize),
}

/// See the [module](self). The first field is the container's number in its thread.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Map(usize, By, MapRequest, Mode),
    List(usize, By, Ioba, Vec<Uaddr>, Perm, Mode),
    Batch(usize, By, Vec<MapRequest>, Mode),
    Unmap(usize, By, UnmapRequest),
    UnmapBatch(usize, By, Vec<UnmapRequest>),
    /// By a handle: map where there is room.
    Alloc(usize, usize, Uaddr, u64, Perm),
    Free(usize, usize, UnmapRequest),
    Submit(usize, usize),
    Retire(usize),
    Requested(usize, Ioba),
    Resolve(usize, Uaddr, u64),
    WindowFor(usize, DmaMask),
    Attach(usize, GroupId),
    Detach(usize, GroupId),
    Create(usize, WindowSpec),
    Remove(usize, Ioba, Removal),
    Register(usize, Uaddr, u64),
    Unregister(usize, Uaddr, u64),
    Close(usize),
}

impl Call {
    /// True if it changes groups, windows or registrations.
    pub(super) fn is_structural(&self) -> bool {
        matches!(
            self,
            Self::Attach(..)
                | Self::Detach(..)
                | Self::Create(..)
                | Self::Remove(..)
                | Self::Register(..)
                | Self::Unregister(..)
                | Self::Close(..)
        )
    }
}
