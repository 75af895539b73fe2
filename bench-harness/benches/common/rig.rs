// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The engine on the mock, as every bench uses it: one group, one window at bus address 0, all of a
//! buffer registered, everything checked and accounted, strict kills.

use tce_engine::{
    Container, Engine, EngineOptions, GroupId, MockBuilder, PageShift, Tier, Uaddr, WindowSpec,
};

/// Where the buffer begins. The engine never follows the address.
pub(crate) const BUFFER: Uaddr = Uaddr(0x7000_0000_0000);
/// The window of the bulk work.
pub(crate) const WINDOW: u64 = 2 << 30;
/// The IOMMU page.
pub(crate) const PAGE: u64 = 4096;

/// What real memory looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Scattered pages of this size.
    Pages(PageShift),
    /// One run.
    Contiguous,
}

/// An engine, and a container with one window.
pub(crate) struct Rig {
    pub(crate) container: Container,
    /// Keeps what containers share.
    _engine: Engine,
}

impl Rig {
    /// A window of `bytes` in pages of 4 KiB and two levels, and as much memory.
    pub(crate) fn new(bytes: u64, backing: Backing, tier: &'static Tier) -> Self {
        let mock = MockBuilder::new(1);
        let mock = match backing {
            Backing::Pages(page) => mock.backing(page),
            Backing::Contiguous => mock.contiguous(true),
        };
        let options = EngineOptions { tier: Some(tier), ..EngineOptions::default() };
        let engine = Engine::new(mock.build(), options);
        let container = engine.container();
        container.attach(GroupId(0)).expect("the mock has this group");
        container.register(BUFFER, bytes).expect("no limit is set");
        let spec = WindowSpec::new(bytes, PageShift::K4).levels(2);
        let window = container.create_window(spec).expect("a shape that the mock has");
        assert_eq!(window.start.0, 0);
        Self { container, _engine: engine }
    }
}
