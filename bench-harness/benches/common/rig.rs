// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The engine on the mock, as every bench uses it: one group, one window at bus address 0, a
//! registered buffer, everything checked and accounted, strict kills.

use std::sync::Arc;

use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace};
use tce_engine::{
    Backend, Container, Engine, EngineOptions, Gra, GroupId, GuestMemory, Ioba, Liobn, Mapper,
    Mock, MockBuilder, Mode, PageShift, Papr, Perm, PhbSpec, Tier, Uaddr, Vcpu, WindowSpec,
};

use super::peers::RING;

/// Where the buffer begins. The engine never follows the address.
pub(crate) const BUFFER: Uaddr = Uaddr(0x7000_0000_0000);
/// The window of the bulk work.
pub(crate) const WINDOW: u64 = 2 << 30;
/// The IOMMU page.
pub(crate) const PAGE: u64 = 4096;
/// Entries of a leaf, which is one segment, in a window of 2 GiB and two levels.
pub(crate) const LEAF: usize = 8192;

/// What real memory looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Scattered pages of this size.
    Pages(PageShift),
    /// One run.
    Contiguous,
}

/// What the engine's numbers are reached with.
pub(crate) const USUAL: Backing = Backing::Pages(PageShift::M2);

fn mock(backing: Backing) -> Arc<Mock> {
    let mock = MockBuilder::new(1);
    let mock = match backing {
        Backing::Pages(page) => mock.backing(page),
        Backing::Contiguous => mock.contiguous(true),
    };
    mock.build()
}

/// A container with one window and one thread's handle to it.
pub(crate) struct Rig {
    pub(crate) mapper: Mapper,
    pub(crate) container: Arc<Container>,
    /// Keeps what containers share.
    _engine: Engine,
}

impl Rig {
    /// A window of `bytes` in pages of 4 KiB and two levels, and as much memory.
    pub(crate) fn new(bytes: u64, backing: Backing, tier: &'static Tier) -> Self {
        Self::with_buffer(bytes, bytes, backing, tier)
    }

    /// On a machine of the caller's, whose first `groups` share the container.
    pub(crate) fn on(
        backend: Arc<dyn Backend>,
        groups: u16,
        bytes: u64,
        tier: &'static Tier,
    ) -> Self {
        Self::with((backend, groups), bytes, bytes, tier)
    }

    /// With `buffer` bytes of memory.
    pub(crate) fn with_buffer(
        bytes: u64,
        buffer: u64,
        backing: Backing,
        tier: &'static Tier,
    ) -> Self {
        Self::with((mock(backing), 1), bytes, buffer, tier)
    }

    fn with(
        (backend, groups): (Arc<dyn Backend>, u16),
        bytes: u64,
        buffer: u64,
        tier: &'static Tier,
    ) -> Self {
        let options = EngineOptions { tier: Some(tier), ..EngineOptions::default() };
        let engine = Engine::new(backend, options);
        let container = Arc::new(engine.container());
        for group in 0..groups {
            container.attach(GroupId(group.into())).expect("the machine has this group");
        }
        container.register(BUFFER, buffer).expect("no limit is set");
        let spec = WindowSpec::new(bytes, PageShift::K4).levels(2);
        let window = container.create_window(spec).expect("a shape that the mock has");
        assert_eq!(window.start, Ioba(0));
        let space = IobaSpace { start: window.start, bytes, page: PageShift::K4 };
        let addresses =
            IobaAllocator::new(space, IobaOptions::default()).expect("a window's space");
        let mapper = container.mapper().with_addresses(&addresses);
        Self { mapper, container, _engine: engine }
    }

    /// Maps `count` pages from bus page `first` to as many pages of the buffer from `from`.
    #[inline]
    pub(crate) fn map(&mut self, first: u64, count: u64, from: u64, mode: Mode) {
        let (at, memory) = (Ioba(first * PAGE), Uaddr(BUFFER.0 + from * PAGE));
        let done = self.mapper.map(at, memory, count * PAGE, Perm::READ_WRITE, mode);
        let done = done.expect("registered memory, a range inside the window");
        assert_eq!(done.tces, count);
    }

    /// Unmaps `count` pages from bus page `first`, all of which are mapped.
    #[inline]
    pub(crate) fn unmap(&mut self, first: u64, count: u64) {
        let done = self.mapper.unmap(Ioba(first * PAGE), count * PAGE).expect("inside the window");
        assert_eq!(done.released, count);
    }
}

/// Single pages in a ring, everything on: addresses are allocated, half of the ring is mapped.
pub(crate) struct Ring {
    rig: Rig,
    /// Where the mapped pages are, the oldest at `turns`, in turn.
    mapped: [Ioba; Self::MAPPED],
    turns: usize,
}

impl Ring {
    const MAPPED: usize = RING as usize / 2;

    pub(crate) fn new(tier: &'static Tier) -> Self {
        let mut ring =
            Self { rig: Rig::new(WINDOW, USUAL, tier), mapped: [Ioba(0); Self::MAPPED], turns: 0 };
        for _ in 0..Self::MAPPED {
            ring.map();
        }
        ring
    }

    /// Maps the next page of the buffer, wherever there is room on the bus. Inlined as the peers' calls
    /// are.
    #[inline(always)]
    pub(crate) fn map(&mut self) {
        let memory = Uaddr(BUFFER.0 + self.turns as u64 % RING * PAGE);
        let at = self.rig.mapper.map_alloc(memory, PAGE, Perm::READ_WRITE);
        self.mapped[self.turns % Self::MAPPED] = at.expect("there is room");
        self.turns += 1;
    }

    /// `count` times: the oldest page is unmapped, the next one mapped. A function by itself with a
    /// counter in a register, as the peers' loop is: what is around it decides nothing.
    #[inline(never)]
    pub(crate) fn turn(&mut self, count: usize) {
        let Self { rig, mapped, turns } = self;
        for turn in *turns..*turns + count {
            let place = &mut mapped[turn % Self::MAPPED];
            rig.mapper.unmap_free(*place, PAGE).expect("it is mapped");
            let memory = Uaddr(BUFFER.0 + turn as u64 % RING * PAGE);
            let at = rig.mapper.map_alloc(memory, PAGE, Perm::READ_WRITE);
            *place = at.expect("there is room");
        }
        *turns += count;
    }

    /// Unmaps the oldest page.
    #[inline(always)]
    pub(crate) fn unmap(&mut self) {
        self.unmap_nth(0);
    }

    /// Unmaps the `nth` oldest page.
    #[inline(always)]
    pub(crate) fn unmap_nth(&mut self, nth: usize) {
        let at = self.mapped[(self.turns + nth) % Self::MAPPED];
        self.rig.mapper.unmap_free(at, PAGE).expect("it is mapped");
    }
}

/// Entries of a guest's list.
pub(crate) const LIST: usize = tce_engine::LIST_MAX;

/// Lists of scattered pages below `pages`, the same few again and again so that they stay in the
/// cache, as the list page of a vCPU does. Words as a guest has them in memory.
pub(crate) fn lists(pages: u64) -> Vec<[u64; LIST]> {
    const LISTS: usize = 64;
    let mut random = Random::new(1);
    let mut word = || ((random.below(pages) * PAGE) | 3).to_be();
    (0..LISTS).map(|_| std::array::from_fn(|_| word())).collect()
}

/// Seeded choices: splitmix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A guest's list page.
pub(crate) struct ListPage<'a>(pub(crate) &'a [u64]);

impl GuestMemory for ListPage<'_> {
    fn copy_words(&self, _: Gra, words: &mut [u64]) -> bool {
        let Some(list) = self.0.get(..words.len()) else { return false };
        words.copy_from_slice(list);
        true
    }
}

/// A guest with 2 GiB of RAM, a PHB with a window of 1 GiB, and one vCPU.
pub(crate) struct Guest {
    pub(crate) vcpu: Vcpu,
    /// Keeps what containers share.
    _engine: Engine,
}

impl Guest {
    pub(crate) const RAM: u64 = 2 << 30;
    pub(crate) const WINDOW: u64 = 1 << 30;
    pub(crate) const LIOBN: u64 = 0x8000_0000;

    pub(crate) fn new(tier: &'static Tier) -> Self {
        let options = EngineOptions { tier: Some(tier), ..EngineOptions::default() };
        let engine = Engine::new(mock(USUAL), options);
        let papr = Arc::new(Papr::new(Self::RAM));
        let spec = PhbSpec {
            buid: 1,
            group: GroupId(0),
            liobn: Liobn(Self::LIOBN as u32),
            window: WindowSpec::new(Self::WINDOW, PageShift::K4),
        };
        papr.add_phb(&engine, spec).expect("a plain PHB");
        Self { vcpu: papr.vcpu(), _engine: engine }
    }

    /// Stores a whole list at bus page `first`.
    #[inline]
    pub(crate) fn put_list(&mut self, first: u64, list: &[u64; LIST]) {
        let (at, page) = (first * PAGE, ListPage(list));
        let answer = self.vcpu.put_tce_indirect(Self::LIOBN, at, 0x1000, LIST as u64, &page);
        assert_eq!(answer.receipt.tces, LIST as u64, "{answer:?}");
    }
}
