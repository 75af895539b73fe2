// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The checks themselves are checked: on the mock, with devices that behave and devices that do not.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::Context;
use tce_engine::backend::mock::Access;
use tce_engine::{
    Engine, EngineOptions, GroupId, Ioba, Memory, Mock, MockBuilder, PageShift, PeNumber,
    WindowSpec,
};

use super::kinds::{Kind, SECOND};
use super::result::{Check, WindowResult};
use super::suite::{self, Dma};
use crate::interrupt::{Interrupted, unless_interrupted};
use crate::kernel::Buffer;

/// How a device, or the bridge before it, is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    No,
    /// Takes any entry that is not empty for one that allows everything.
    IgnoresPermissions,
    /// Remembers where a page led to, whatever is mapped later.
    Remembers,
    /// Reads nothing.
    Deaf,
    /// Writes nothing.
    Mute,
    /// Leaves what it held when it reads where nothing is.
    KeepsOld,
    /// Reads and writes the page that it is sent to, and nothing over its end.
    StopsAtPages,
}

struct Fake {
    mock: Arc<Mock>,
    group: GroupId,
    broken: Broken,
    held: RefCell<Vec<u8>>,
    seen: RefCell<Vec<(u64, u64)>>,
}

impl Fake {
    fn new(mock: &Arc<Mock>, group: u32, broken: Broken) -> Self {
        let (held, seen) = (RefCell::new(vec![0; 4096]), RefCell::default());
        Self { mock: mock.clone(), group: GroupId(group), broken, held, seen }
    }

    /// The process's memory at a bus address.
    fn address(&self, at: u64, access: Access) -> Option<u64> {
        let (page, offset) = (at & !0xfff, at & 0xfff);
        let known = self.seen.borrow().iter().find(|(bus, _)| *bus == page).copied();
        if let (Broken::Remembers, Some((_, memory))) = (self.broken, known) {
            return Some(memory + offset);
        }
        let access = if self.broken == Broken::IgnoresPermissions { Access::Any } else { access };
        let pe = PeNumber(self.group.0 as u16);
        let there = self.mock.translate(pe, Ioba(page), access).ok()?;
        let (memory, inside) = self.mock.owner(there.at)?;
        let Memory::User { start, .. } = memory else { return None };
        self.seen.borrow_mut().push((page, start.0 + inside));
        Some(start.0 + inside + offset)
    }

    /// Calls `each` with parts of the transfer that stay in a page.
    fn parts(&self, at: Ioba, bytes: usize, mut each: impl FnMut(u64, std::ops::Range<usize>)) {
        let mut done = 0;
        while done < bytes {
            let next = at.0 + done as u64;
            let part = (4096 - (next & 0xfff) as usize).min(bytes - done);
            each(next, done..done + part);
            done += part;
            if self.broken == Broken::StopsAtPages {
                return;
            }
        }
    }
}

fn memory() -> File {
    File::options().read(true).write(true).open("/proc/self/mem").unwrap()
}

impl Dma for Fake {
    fn group(&self) -> GroupId {
        self.group
    }

    fn name(&self) -> &str {
        "fake"
    }

    fn load(&self, from: Ioba, bytes: usize) -> anyhow::Result<()> {
        if self.broken == Broken::Deaf {
            return Ok(());
        }
        self.parts(from, bytes, |at, part| {
            let mut held = self.held.borrow_mut();
            match self.address(at, Access::Read) {
                Some(address) => memory().read_exact_at(&mut held[part], address).unwrap(),
                None if self.broken == Broken::KeepsOld => {}
                None => held[part].fill(0),
            }
        });
        Ok(())
    }

    fn store(&self, to: Ioba, bytes: usize) -> anyhow::Result<()> {
        if self.broken == Broken::Mute {
            return Ok(());
        }
        self.parts(to, bytes, |at, part| {
            if let Some(address) = self.address(at, Access::Write) {
                memory().write_all_at(&self.held.borrow()[part], address).unwrap();
            }
        });
        Ok(())
    }
}

/// What the checks say of a device that behaves and one that is broken, and how often the books
/// were looked at.
fn check(kind: Kind, broken: Broken) -> (WindowResult, u32) {
    let mock = MockBuilder::new(2).build();
    let engine = Engine::new(mock.clone(), EngineOptions::default());
    let container = engine.container();
    container.attach(GroupId(0)).unwrap();
    container.attach(GroupId(1)).unwrap();
    let bytes = suite::memory_bytes(kind.spec.page, PageShift::K64);
    let buffer = Buffer::real(bytes, PageShift::K64, PageShift::K64).unwrap();
    let devices = [Fake::new(&mock, 0, Broken::No), Fake::new(&mock, 1, broken)];
    let mut steps = 0;
    let mut step = |_: &str| -> anyhow::Result<()> {
        steps += 1;
        Ok(())
    };
    let result = suite::window(&container, &kind, &buffer, &devices, &mut step).unwrap();
    assert_eq!(container.windows(), [], "{kind}");
    container.close();
    assert_eq!((engine.ledger().pages(), mock.leftovers()), (0, (0, 0, 0)));
    (result, steps)
}

fn kind(slot: usize, size: u64, page: PageShift, levels: u32) -> Kind {
    Kind { slot, spec: WindowSpec::new(size, page).levels(levels), levels }
}

#[test]
fn devices_that_behave_are_right_in_all_windows() {
    for kind in [
        kind(0, 2 << 30, PageShift::K4, 1),
        kind(0, 1 << 30, PageShift::K4, 3),
        kind(0, 1 << 30, PageShift::K64, 2),
        kind(SECOND, 8 << 30, PageShift::K64, 2),
    ] {
        let (result, steps) = check(kind, Broken::No);
        let total = result.total();
        assert_eq!(total.right, total.of, "{result:?}");
        // With several leaves there is one place more, with a copy and a read over two pages.
        let places = if kind.levels > 1 { 4 } else { 3 };
        assert_eq!(total.of, 2 * (2 * places + 1 + 1 + 2 + 2 + 1), "{kind}");
        assert!(result.devices.iter().all(|d| d.write_only_readable == 1), "{result:?}");
        assert_eq!(result.start, if kind.slot == SECOND { 1 << 59 } else { 0 });
        assert!(steps > 10);
        let text = result.report(crate::style::Style::new(false));
        assert!(text.contains(&format!("{places}/{places}")), "{text}");
    }
}

#[test]
fn every_way_to_be_wrong_is_noticed() {
    let window = kind(0, 1 << 30, PageShift::K4, 2);
    for (broken, kind) in [
        (Broken::IgnoresPermissions, Check::ReadOnly),
        (Broken::Remembers, Check::Replaced),
        (Broken::Deaf, Check::Copy),
        (Broken::Mute, Check::Copy),
        (Broken::KeepsOld, Check::Unmapped),
        (Broken::StopsAtPages, Check::Crossing),
    ] {
        let (result, _) = check(window, broken);
        let [good, bad] = &result.devices[..] else { panic!("{result:?}") };
        assert_eq!(good.wrong, [""; 0], "{broken:?}");
        let found = bad.wrong.iter().any(|text| text.starts_with(kind.title()));
        assert!(found, "{broken:?}: {kind:?} is not in {:?}", bad.wrong);
        assert!(result.total().right < result.total().of);
    }
}

#[test]
fn a_late_group_sees_what_is_mapped() {
    for (broken, right) in [(Broken::No, 1), (Broken::Mute, 0)] {
        let mock = MockBuilder::new(2).build();
        let engine = Engine::new(mock.clone(), EngineOptions::default());
        let container = engine.container();
        container.attach(GroupId(0)).unwrap();
        let buffer = Buffer::real(1 << 18, PageShift::K64, PageShift::K64).unwrap();
        let join = || {
            container.attach(GroupId(1))?;
            Ok(vec![Fake::new(&mock, 1, broken)])
        };
        let spec = WindowSpec::new(1 << 30, PageShift::K4);
        let (devices, result) =
            suite::late(&container, spec, &buffer, join, &mut |_| Ok(())).unwrap();
        assert_eq!((devices.len(), result.total().right, result.total().of), (1, right, 1));
        let text = result.report(crate::style::Style::new(false));
        assert!(text.contains(&format!("group 1: {right}/1 copies right")), "{text}");
        container.close();
        assert_eq!((engine.ledger().pages(), mock.leftovers()), (0, (0, 0, 0)));
    }
}

/// Wherever a signal ends it, the container gives everything back, and it is no failure.
#[test]
fn an_interrupt_at_any_step_leaves_nothing() {
    let window = kind(SECOND, 8 << 30, PageShift::K64, 2);
    let (_, steps) = check(window, Broken::No);
    for last in 1..=steps {
        let mock = MockBuilder::new(1).build();
        let engine = Engine::new(mock.clone(), EngineOptions::default());
        let container = engine.container();
        container.attach(GroupId(0)).unwrap();
        let bytes = suite::memory_bytes(window.spec.page, PageShift::K64);
        let buffer = Buffer::real(bytes, PageShift::K64, PageShift::K64).unwrap();
        let devices = [Fake::new(&mock, 0, Broken::No), Fake::new(&mock, 0, Broken::No)];
        let mut step_number = 0;
        let mut step = |_: &str| -> anyhow::Result<()> {
            step_number += 1;
            if step_number < last { Ok(()) } else { Err(Interrupted.into()) }
        };
        let ended = suite::window(&container, &window, &buffer, &devices, &mut step).map(drop);
        assert_eq!(step_number, last, "it went on");
        assert!(ended.as_ref().is_err_and(|e| e.is::<Interrupted>()), "step {last}: {ended:?}");
        let told = ended.context("of this window");
        unless_interrupted(told).expect("the context does not hide it");
        container.close();
        assert_eq!((engine.ledger().pages(), mock.leftovers()), (0, (0, 0, 0)), "step {last}");
    }
}
