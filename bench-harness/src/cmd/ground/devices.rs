// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What devices reach: a real kernel shows its tables to nobody else.
//!
//! A device reads one mapped page and writes another: what was put into the memory of the one has to
//! arrive in that of the other. Where nothing is mapped for it, what it writes must not arrive.

use anyhow::Context;
use tce_engine::addr::{GroupId, Ioba};
use tce_engine::container::{Container, Mode};
use tce_engine::engine::Engine;
use tce_engine::geometry::WindowSpec;
use tce_engine::ioba::MMIO_HOLE;
use tce_engine::tce::Perm;

use super::{Ground, Pages};
use crate::cmd::dma::suite::Dma;
use crate::edu;
use crate::kernel::OpenVfio;
use crate::result::DmaResult;
use crate::run::lists::Random;

/// Bytes of one transfer.
const BYTES: usize = edu::BUFFER_BYTES;

/// Where a page is, for the device and for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bus: Ioba,
    /// In the buffer.
    offset: u64,
}

/// What was wrong.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cmd) struct Wrong {
    pub(in crate::cmd) kind: Kind,
    pub(in crate::cmd) text: String,
}

/// Which of the counts it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cmd) enum Kind {
    /// A member does not find what is mapped.
    Lost,
    /// A member finds what is not.
    Stray,
    /// Another finds what is not its own.
    Reached,
}

impl Wrong {
    fn of(kind: Kind, text: String) -> Option<Self> {
        Some(Self { kind, text })
    }
}

/// Picks pages and tries them.
pub(in crate::cmd) struct Trial<'a> {
    ground: Ground<'a>,
    random: Random,
    /// Leaves out bus addresses that a real bridge would keep to itself.
    avoid_hole: bool,
    /// What was done.
    pub(in crate::cmd) sum: DmaResult,
}

impl<'a> Trial<'a> {
    pub(in crate::cmd) fn new(ground: Ground<'a>, seed: u64, avoid_hole: bool) -> Self {
        Self { ground, random: Random::new(seed), avoid_hole, sum: DmaResult::default() }
    }

    fn usable(&self, page: u64) -> bool {
        !self.avoid_hole || !MMIO_HOLE.contains(&self.ground.bus(page).0)
    }

    /// A place inside a page, whose memory is none of the buffer pages in `used`.
    fn pick(&mut self, pages: &Pages, used: &[u64]) -> Option<(u64, Place)> {
        let usable: Vec<_> = pages
            .iter()
            .filter(|(page, memory)| self.usable(**page) && !used.contains(*memory))
            .collect();
        let last = (usable.len() as u64).checked_sub(1)?;
        let (page, memory) = usable[self.random.below(last + 1) as usize];
        let inside = self.random.below(self.ground.bytes(1) / BYTES as u64) * BYTES as u64;
        let bus = Ioba(self.ground.bus(*page).0 + inside);
        Some((*memory, Place { bus, offset: self.ground.bytes(*memory) + inside }))
    }

    fn fresh(&mut self) -> [u8; BYTES] {
        std::array::from_fn(|_| self.random.next() as u8)
    }

    fn read(&self, place: Place) -> anyhow::Result<[u8; BYTES]> {
        let mut seen = [0; BYTES];
        self.ground.buffer.read(place.offset, &mut seen)?;
        Ok(seen)
    }

    /// A member's device copies from one mapped page to another, and writes to a page that was mapped
    /// and is `gone`. Says what was wrong.
    ///
    /// # Errors
    /// If the device does not work.
    pub(in crate::cmd) fn member(
        &mut self,
        device: &impl Dma,
        pages: &Pages,
        gone: &Pages,
    ) -> anyhow::Result<Option<Wrong>> {
        let who = format!("group {}, {}", device.group(), device.name());
        let (memory, from) = self.pick(pages, &[]).context("nothing is mapped")?;
        let (_, to) = self.pick(pages, &[memory]).context("one buffer page is mapped only")?;
        let (sent, kept) = (self.fresh(), self.fresh());
        self.ground.buffer.write(from.offset, &sent)?;
        self.ground.buffer.write(to.offset, &kept)?;
        device.load(from.bus, BYTES)?;
        device.store(to.bus, BYTES)?;
        let seen = self.read(to)?;
        if seen != sent {
            let what = if seen == kept { "nothing" } else { "something else" };
            let text = format!(
                "{who}: what it read at {} and wrote at {} did not arrive; {what} did",
                from.bus, to.bus
            );
            return Ok(Wrong::of(Kind::Lost, text));
        }
        self.sum.pages += 2;
        let Some((_, there)) = self.pick(gone, &[]) else { return Ok(None) };
        self.ground.buffer.write(there.offset, &kept)?;
        device.store(there.bus, BYTES)?;
        if self.read(there)? != kept {
            let at = there.bus;
            let text = format!("{who}: it wrote to memory at {at}, which is unmapped");
            return Ok(Wrong::of(Kind::Stray, text));
        }
        self.sum.unmapped += 1;
        Ok(None)
    }

    /// A page of the window where nothing is mapped.
    fn empty(&mut self, pages: &Pages) -> Option<u64> {
        (0..64).find_map(|_| {
            let page = self.random.below(self.ground.pages);
            (!pages.contains_key(&page) && self.usable(page)).then_some(page)
        })
    }

    /// Devices that lead their own lives write where the others' pages are mapped, and must not reach
    /// them. `always` is a place that they do reach.
    ///
    /// # Errors
    /// If the device does not work.
    pub(in crate::cmd) fn stranger(
        &mut self,
        device: &impl Dma,
        pages: &Pages,
        (always, memory): (u64, u64),
    ) -> anyhow::Result<Option<Wrong>> {
        let who = format!("group {}, {}", device.group(), device.name());
        let own = Place { bus: self.ground.bus(always), offset: self.ground.bytes(memory) };
        let sent = self.fresh();
        self.ground.buffer.write(own.offset, &sent)?;
        device.load(own.bus, BYTES)?;
        for _ in 0..2 {
            let (_, there) = self.pick(pages, &[memory]).context("nothing is mapped")?;
            let kept = self.fresh();
            self.ground.buffer.write(there.offset, &kept)?;
            device.store(there.bus, BYTES)?;
            if self.read(there)? != kept {
                let at = there.bus;
                let text = format!("{who}: it is no member, and wrote to memory at {at}");
                return Ok(Wrong::of(Kind::Reached, text));
            }
            self.sum.unmapped += 1;
        }
        // That nothing arrived means something only if what it wrote could.
        let blank = self.fresh();
        self.ground.buffer.write(own.offset, &blank)?;
        device.store(own.bus, BYTES)?;
        if self.read(own)? != sent {
            let text = format!("{who}: it does not reach its own page at {}", own.bus);
            return Ok(Wrong::of(Kind::Lost, text));
        }
        self.sum.pages += 1;
        Ok(None)
    }

    /// Puts a group that has left into a container of its own, with a window of the same shape, and has
    /// its devices try the others' pages.
    ///
    /// # Errors
    /// What the engine refused, or a device that does not work.
    pub(in crate::cmd) fn apart(
        &mut self,
        engine: &Engine,
        open: &OpenVfio,
        group: GroupId,
        spec: WindowSpec,
        pages: &Pages,
    ) -> anyhow::Result<Option<Wrong>> {
        let own = engine.container();
        own.attach(group)?;
        let wrong = self.in_own(&own, open, group, spec, pages);
        own.close();
        wrong
    }

    fn in_own(
        &mut self,
        own: &Container,
        open: &OpenVfio,
        group: GroupId,
        spec: WindowSpec,
        pages: &Pages,
    ) -> anyhow::Result<Option<Wrong>> {
        let buffer = self.ground.buffer;
        own.register(buffer.start(), buffer.bytes())?;
        own.create_window(spec)?;
        let always = self.empty(pages).context("every page is mapped")?;
        let memory = self.random.below(self.ground.buffer_pages());
        let (at, from) = (self.ground.bus(always), self.ground.memory(memory));
        own.map(at, from, self.ground.bytes(1), Perm::READ_WRITE, Mode::Refuse)?;
        for device in edu::find(open, &[group])? {
            let wrong = self.stranger(&device, pages, (always, memory))?;
            if wrong.is_some() {
                return Ok(wrong);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tce_engine::addr::{PageShift, Uaddr};
    use tce_engine::backend::linux::mock_kernel::{MockKernel, Profile};
    use tce_engine::backend::linux::{Linux, LinuxOptions};
    use tce_engine::engine::{DetachPolicy, EngineOptions};

    use super::*;
    use crate::kernel::Buffer;

    const A: GroupId = GroupId(0);
    const B: GroupId = GroupId(1);

    /// A device on the simulated kernel.
    struct Fake<'a> {
        kernel: &'a MockKernel,
        buffer: &'a Buffer,
        group: GroupId,
        /// It goes to memory as if this group's windows were its own.
        as_group: GroupId,
        held: RefCell<Vec<u8>>,
    }

    impl<'a> Fake<'a> {
        fn new(kernel: &'a MockKernel, buffer: &'a Buffer, group: GroupId) -> Self {
            let held = RefCell::new(vec![0; BYTES]);
            Self { kernel, buffer, group, as_group: group, held }
        }

        fn offset(&self, at: Ioba, need: Perm) -> Option<u64> {
            let there = self.kernel.translate(self.as_group, at, need).ok()?;
            Some(there.at.0 - self.buffer.start().0)
        }
    }

    impl Dma for Fake<'_> {
        fn group(&self) -> GroupId {
            self.group
        }

        fn name(&self) -> &str {
            "fake"
        }

        fn load(&self, from: Ioba, bytes: usize) -> anyhow::Result<()> {
            let mut held = self.held.borrow_mut();
            match self.offset(from, Perm::READ) {
                Some(offset) => self.buffer.read(offset, &mut held[..bytes])?,
                None => held.fill(0),
            }
            Ok(())
        }

        fn store(&self, to: Ioba, bytes: usize) -> anyhow::Result<()> {
            match self.offset(to, Perm::WRITE) {
                Some(offset) => self.buffer.write(offset, &self.held.borrow()[..bytes]),
                None => Ok(()),
            }
        }
    }

    /// A machine whose first group has pages 0 to 7 of a window mapped, and page 40 no more.
    fn with(
        check: impl FnOnce(&MockKernel, &Engine, &Container, Ground<'_>, [&Pages; 2], &mut Trial<'_>),
    ) {
        let page = PageShift::K64;
        let kernel = MockKernel::builder(2).profile(Profile::K6_11).build();
        let linux = Linux::new(kernel.process(), LinuxOptions::default());
        let detach = DetachPolicy::Replay;
        let engine = Engine::new(linux, EngineOptions { detach, ..EngineOptions::default() });
        let buffer = Buffer::reserved(16 << 16, page.bytes()).unwrap();
        let container = engine.container();
        container.attach(A).unwrap();
        container.register(buffer.start(), buffer.bytes()).unwrap();
        let start = container.create_window(WindowSpec::new(4 << 20, page)).unwrap().start;
        let ground = Ground { buffer: &buffer, start, page, pages: 64 };
        let map = |at, memory: u64| {
            let (at, from): (_, Uaddr) = (ground.bus(at), ground.memory(memory));
            container.map(at, from, page.bytes(), Perm::READ_WRITE, Mode::Refuse).unwrap();
        };
        (0..8).for_each(|n| map(n, 2 * n));
        map(40, 1);
        container.unmap(ground.bus(40), page.bytes()).unwrap();
        let (pages, gone) = ((0..8).map(|n| (n, 2 * n)).collect(), Pages::from([(40, 1)]));
        let mut trial = Trial::new(ground, 1, true);
        check(&kernel, &engine, &container, ground, [&pages, &gone], &mut trial);
        container.close();
        drop(container);
        assert_eq!((engine.ledger().pages(), kernel.leftovers()), (0, Default::default()));
    }

    #[test]
    fn members_reach_what_is_mapped_and_nothing_else() {
        with(|kernel, _, container, ground, [pages, gone], trial| {
            container.attach(B).unwrap();
            for group in [A, B] {
                let device = Fake::new(kernel, ground.buffer, group);
                assert_eq!(trial.member(&device, pages, gone).unwrap(), None);
            }
            assert_eq!((trial.sum.pages, trial.sum.unmapped), (4, 2));
            // Taken for gone, but it is still there.
            let device = Fake::new(kernel, ground.buffer, A);
            let wrong = trial.member(&device, pages, &Pages::from([(3, 6)])).unwrap().unwrap();
            assert_eq!(wrong.kind, Kind::Stray);
            assert!(wrong.text.contains("wrote to memory at 0x3"), "{wrong:?}");
        });
    }

    #[test]
    fn what_a_kernel_has_wiped_is_missed() {
        with(|kernel, _, container, ground, [pages, gone], trial| {
            let device = Fake::new(kernel, ground.buffer, A);
            container.unmap(ground.bus(0), ground.bytes(8)).unwrap();
            let wrong = trial.member(&device, pages, gone).unwrap().unwrap();
            assert_eq!(wrong.kind, Kind::Lost);
            assert!(wrong.text.starts_with("group 0, fake: what it read at"), "{wrong:?}");
            assert!(wrong.text.ends_with("did not arrive; nothing did"), "{wrong:?}");
        });
    }

    #[test]
    fn who_has_left_and_reaches_something_is_caught() {
        with(|kernel, engine, _, ground, [pages, _], trial| {
            let own = engine.container();
            own.attach(B).unwrap();
            own.register(ground.buffer.start(), ground.buffer.bytes()).unwrap();
            own.create_window(WindowSpec::new(4 << 20, ground.page)).unwrap();
            let (at, from) = (ground.bus(50), ground.memory(3));
            own.map(at, from, ground.bytes(1), Perm::READ_WRITE, Mode::Refuse).unwrap();
            let mut device = Fake::new(kernel, ground.buffer, B);
            assert_eq!(trial.stranger(&device, pages, (50, 3)).unwrap(), None);
            assert_eq!((trial.sum.pages, trial.sum.unmapped), (1, 2));
            // A device that does nothing proves nothing.
            let wrong = trial.stranger(&device, pages, (51, 3)).unwrap().unwrap();
            assert!(wrong.text.contains("does not reach its own page"), "{wrong:?}");
            // Its PE still has the others' table.
            device.as_group = A;
            let wrong = trial.stranger(&device, pages, (0, 0)).unwrap().unwrap();
            assert_eq!(wrong.kind, Kind::Reached);
            assert!(wrong.text.contains("it is no member, and wrote to memory"), "{wrong:?}");
            own.close();
        });
    }
}
