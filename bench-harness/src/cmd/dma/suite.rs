// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The checks: what devices read and write through a window, against the memory itself.

use anyhow::{Context, ensure};
use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::container::{Container, Mode, Removal, WindowInfo};
use tce_engine::geometry::WindowSpec;
use tce_engine::tce::Perm;

use super::kinds::{Kind, SECOND};
use super::result::{Check, WindowResult};
use crate::edu::{Engine, Registers};
use crate::kernel::Buffer;

/// A device that copies between memory and a buffer of its own.
pub(in crate::cmd) trait Dma {
    fn group(&self) -> GroupId;
    fn name(&self) -> &str;
    /// Memory to the device's buffer.
    fn load(&self, from: Ioba, bytes: usize) -> anyhow::Result<()>;
    /// The device's buffer to memory.
    fn store(&self, to: Ioba, bytes: usize) -> anyhow::Result<()>;
}

impl<R: Registers> Dma for Engine<R> {
    fn group(&self) -> GroupId {
        self.group
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn load(&self, from: Ioba, bytes: usize) -> anyhow::Result<()> {
        Self::load(self, from, bytes)
    }

    fn store(&self, to: Ioba, bytes: usize) -> anyhow::Result<()> {
        Self::store(self, to, bytes)
    }
}

/// What is called after each change of the books and before each device, and may end everything.
pub(super) type Step<'a> = &'a mut dyn FnMut(&str) -> anyhow::Result<()>;

/// Bytes of a transfer.
const BYTES: usize = 2048;
/// What of a page is looked at: a whole page of the smallest size.
const SEEN: usize = 4096;
/// Where transfers begin in the page that is read, and in the one that is written.
const FROM: usize = 16;
const TO: usize = 64;

/// Bytes that never repeat, so that no transfer is mistaken for an earlier one.
struct Pattern(u64);

impl Pattern {
    fn next(&mut self, bytes: usize) -> Vec<u8> {
        let byte = || {
            // Knuth's MMIX generator; never 0, which is what a device reads where nothing is.
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 56) as u8 | 1
        };
        std::iter::repeat_with(byte).take(bytes).collect()
    }
}

/// The memory of a window: two pages to be checked and one that always works.
struct Pages<'a> {
    buffer: &'a Buffer,
    page: PageShift,
}

impl Pages<'_> {
    const ALWAYS: u64 = 2;

    fn address(&self, nth: u64) -> Uaddr {
        Uaddr(self.buffer.start().0 + (nth << self.page.get()))
    }

    fn read(&self, nth: u64) -> anyhow::Result<Vec<u8>> {
        let mut out = vec![0; SEEN];
        self.buffer.read(nth << self.page.get(), &mut out)?;
        Ok(out)
    }

    fn write(&self, nth: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.buffer.write(nth << self.page.get(), bytes)
    }
}

/// One window with its memory mapped at a place where nothing is checked.
struct Bench<'a> {
    container: &'a Container,
    window: WindowInfo,
    pages: Pages<'a>,
    always: Ioba,
    pattern: Pattern,
    step: Step<'a>,
}

/// Bytes of memory that a window of such pages needs.
pub(super) fn memory_bytes(page: PageShift, host_page: PageShift) -> u64 {
    (3 * page.bytes()).next_multiple_of(host_page.bytes())
}

/// Neighbours in a window, by the number of the first.
fn places(window: &WindowInfo) -> Vec<(&'static str, u64)> {
    let pages = window.geometry.requested_entries();
    let mut places = vec![("first pages", 0), ("middle", pages / 2), ("last pages", pages - 2)];
    let leaf = window.geometry.level_entries();
    if leaf < pages {
        places.push(("end of a leaf", leaf - 1));
    }
    places
}

/// Checks one kind of window with every device.
///
/// # Errors
/// What the engine refused, a device that does not answer, or what `step` says; what is wrong is in the
/// result.
pub(super) fn window<D: Dma>(
    container: &Container,
    kind: &Kind,
    buffer: &Buffer,
    devices: &[D],
    step: Step<'_>,
) -> anyhow::Result<WindowResult> {
    container.register(buffer.start(), buffer.bytes())?;
    step("registering")?;
    // Only with the first slot taken a window comes into the second.
    let filler = (kind.slot == SECOND)
        .then(|| container.create_window(WindowSpec::new(1 << 30, kind.spec.page)))
        .transpose()?;
    let mut bench = Bench::new(container, kind.spec, buffer, step)?;
    let mut result = WindowResult::new(kind.to_string(), &bench.window, devices);
    for (place, first) in places(&bench.window) {
        bench.copies(devices, &mut result, place, first)?;
    }
    bench.permissions(devices, &mut result)?;
    bench.replacement(devices, &mut result)?;
    bench.nothing_mapped(devices, &mut result)?;
    bench.end()?;
    if let Some(filler) = filler {
        container.remove_window(filler.start, Removal::IfUnmapped)?;
        step("removing the first window")?;
    }
    container.unregister(buffer.start(), buffer.bytes())?;
    step("unregistering")?;
    Ok(result)
}

/// Checks that devices which come later find what was mapped before. `join` makes them members.
///
/// # Errors
/// As [`window`].
pub(super) fn late<D: Dma>(
    container: &Container,
    spec: WindowSpec,
    buffer: &Buffer,
    join: impl FnOnce() -> anyhow::Result<Vec<D>>,
    step: Step<'_>,
) -> anyhow::Result<(Vec<D>, WindowResult)> {
    container.register(buffer.start(), buffer.bytes())?;
    let mut bench = Bench::new(container, spec, buffer, step)?;
    let middle = bench.window.geometry.requested_entries() / 2;
    bench.map_pair(middle)?;
    let devices = join()?;
    (bench.step)("a late attach")?;
    let mut result = WindowResult::new("a group that joined late".into(), &bench.window, &devices);
    for (device, counts) in devices.iter().zip(&mut result.devices) {
        let wrong = bench.copy(device, middle)?;
        counts.count(Check::Copy, "existing mappings", wrong);
    }
    bench.unmap_pair(middle)?;
    bench.end()?;
    container.unregister(buffer.start(), buffer.bytes())?;
    step("unregistering")?;
    Ok((devices, result))
}

impl<'a> Bench<'a> {
    fn new(
        container: &'a Container,
        spec: WindowSpec,
        buffer: &'a Buffer,
        step: Step<'a>,
    ) -> anyhow::Result<Self> {
        let window = container.create_window(spec)?;
        step("creating a window")?;
        let pages = Pages { buffer, page: spec.page };
        let needed = memory_bytes(spec.page, PageShift::K4);
        ensure!(buffer.bytes() >= needed, "{} bytes are too few to check with", buffer.bytes());
        let pattern = Pattern(window.start.0 ^ window.geometry.charge());
        let always = window.geometry.requested_entries() / 4 + 3;
        let mut bench = Self { container, window, pages, always: Ioba(0), pattern, step };
        bench.always = bench.bus(always);
        bench.map(always, Pages::ALWAYS, Perm::READ_WRITE, Mode::Refuse)?;
        Ok(bench)
    }

    fn end(self) -> anyhow::Result<()> {
        self.container.unmap(self.always, self.pages.page.bytes())?;
        self.container.remove_window(self.window.start, Removal::IfUnmapped)?;
        (self.step)("removing a window")
    }

    fn bus(&self, page: u64) -> Ioba {
        Ioba(self.window.start.0 + (page << self.pages.page.get()))
    }

    fn map(&mut self, at: u64, memory: u64, perm: Perm, mode: Mode) -> anyhow::Result<()> {
        let (bus, memory) = (self.bus(at), self.pages.address(memory));
        let bytes = self.pages.page.bytes();
        let mapped = self.container.map(bus, memory, bytes, perm, mode);
        mapped.with_context(|| format!("mapping at bus address {bus}"))?;
        (self.step)("a map")
    }

    fn unmap(&mut self, at: u64, pages: u64) -> anyhow::Result<()> {
        let (bus, bytes) = (self.bus(at), pages << self.pages.page.get());
        self.container.unmap(bus, bytes).with_context(|| format!("unmapping at {bus}"))?;
        (self.step)("an unmap")
    }

    /// Page 0 of the memory readable, page 1 readable and writable behind it.
    fn map_pair(&mut self, first: u64) -> anyhow::Result<()> {
        self.map(first, 0, Perm::READ, Mode::Refuse)?;
        self.map(first + 1, 1, Perm::READ_WRITE, Mode::Refuse)
    }

    fn unmap_pair(&mut self, first: u64) -> anyhow::Result<()> {
        self.unmap(first, 2)
    }

    fn fresh(&mut self, nth: u64) -> anyhow::Result<Vec<u8>> {
        let bytes = self.pattern.next(SEEN);
        self.pages.write(nth, &bytes)?;
        Ok(bytes)
    }

    /// Puts new bytes into a device's buffer.
    fn prime(&mut self, device: &impl Dma) -> anyhow::Result<Vec<u8>> {
        let bytes = self.fresh(Pages::ALWAYS)?;
        device.load(self.always, BYTES)?;
        Ok(bytes[..BYTES].to_vec())
    }

    /// What is in a device's buffer.
    fn held(&mut self, device: &impl Dma) -> anyhow::Result<Vec<u8>> {
        self.fresh(Pages::ALWAYS)?;
        device.store(self.always, BYTES)?;
        Ok(self.pages.read(Pages::ALWAYS)?[..BYTES].to_vec())
    }

    /// Memory → device → memory over a mapped pair. `None`: right.
    fn copy(&mut self, device: &impl Dma, first: u64) -> anyhow::Result<Option<&'static str>> {
        let from = self.fresh(0)?;
        let mut expected = self.fresh(1)?;
        device.load(Ioba(self.bus(first).0 + FROM as u64), BYTES)?;
        device.store(Ioba(self.bus(first + 1).0 + TO as u64), BYTES)?;
        expected[TO..TO + BYTES].copy_from_slice(&from[FROM..FROM + BYTES]);
        if self.pages.read(1)? != expected {
            return Ok(Some("the copy differs"));
        }
        Ok((self.pages.read(0)? != from).then_some("what was only read has changed"))
    }

    fn copies<D: Dma>(
        &mut self,
        devices: &[D],
        result: &mut WindowResult,
        place: &'static str,
        first: u64,
    ) -> anyhow::Result<()> {
        self.map_pair(first)?;
        let half = BYTES / 2;
        for (device, counts) in devices.iter().zip(&mut result.devices) {
            (self.step)("a device")?;
            let wrong = self.copy(device, first)?;
            counts.count(Check::Copy, place, wrong);
            // One transfer over the boundary of the two pages.
            let end = self.pages.page.bytes() - half as u64;
            let expected = self.pattern.next(BYTES);
            self.pages.buffer.write(end, &expected)?;
            device.load(Ioba(self.bus(first).0 + end), BYTES)?;
            let wrong = self.held(device)? != expected;
            counts.count(Check::Crossing, place, wrong.then_some("the two halves differ"));
        }
        self.unmap_pair(first)
    }

    fn permissions<D: Dma>(
        &mut self,
        devices: &[D],
        result: &mut WindowResult,
    ) -> anyhow::Result<()> {
        let at = self.window.geometry.requested_entries() / 2;
        self.map(at, 0, Perm::READ, Mode::Refuse)?;
        for (device, counts) in devices.iter().zip(&mut result.devices) {
            (self.step)("a device")?;
            let before = self.fresh(0)?;
            self.prime(device)?;
            device.store(self.bus(at), BYTES)?;
            let wrong = (self.pages.read(0)? != before).then_some("a write came through");
            counts.count(Check::ReadOnly, "middle", wrong);
        }
        self.map(at, 0, Perm::WRITE, Mode::Replace)?;
        for (device, counts) in devices.iter().zip(&mut result.devices) {
            (self.step)("a device")?;
            let mut expected = self.fresh(0)?;
            let sent = self.prime(device)?;
            device.store(self.bus(at), BYTES)?;
            expected[..BYTES].copy_from_slice(&sent);
            let wrong = (self.pages.read(0)? != expected).then_some("the write is not there");
            counts.count(Check::WriteOnly, "middle", wrong);
            // On powernv it can be read as well; that is noted, not judged.
            let there = self.fresh(0)?;
            device.load(self.bus(at), BYTES)?;
            counts.write_only_readable += u64::from(self.held(device)? == there[..BYTES]);
        }
        self.unmap(at, 1)
    }

    fn replacement<D: Dma>(
        &mut self,
        devices: &[D],
        result: &mut WindowResult,
    ) -> anyhow::Result<()> {
        let at = self.window.geometry.requested_entries() / 2;
        self.map(at, 0, Perm::READ_WRITE, Mode::Refuse)?;
        // Each device uses the old mapping, so that each could remember it.
        for (nth, device) in devices.iter().enumerate() {
            (self.step)("a device")?;
            let there = self.fresh(0)?;
            device.load(self.bus(at), BYTES)?;
            let wrong = self.held(device)? != there[..BYTES];
            let wrong = wrong.then_some("the first mapping is not seen");
            result.devices[nth].count(Check::Replaced, "middle", wrong);
        }
        self.map(at, 1, Perm::READ_WRITE, Mode::Replace)?;
        for (device, counts) in devices.iter().zip(&mut result.devices) {
            (self.step)("a device")?;
            let (old, mut new) = (self.fresh(0)?, self.fresh(1)?);
            device.load(self.bus(at), BYTES)?;
            let read = self.held(device)?;
            let sent = self.prime(device)?;
            device.store(self.bus(at), BYTES)?;
            let wrong = if read == old[..BYTES] {
                Some("the old memory was read")
            } else if read != new[..BYTES] {
                Some("the new memory was not read")
            } else {
                new[..BYTES].copy_from_slice(&sent);
                if self.pages.read(0)? != old {
                    Some("the old memory was written")
                } else {
                    (self.pages.read(1)? != new).then_some("the new memory was not written")
                }
            };
            counts.count(Check::Replaced, "middle", wrong);
        }
        self.unmap(at, 1)
    }

    fn nothing_mapped<D: Dma>(
        &mut self,
        devices: &[D],
        result: &mut WindowResult,
    ) -> anyhow::Result<()> {
        let at = self.window.geometry.requested_entries() / 2;
        // The neighbours are gone too: whatever is read or written there is an accident.
        self.map_pair(at)?;
        for device in devices {
            device.load(self.bus(at), BYTES)?;
        }
        self.unmap_pair(at)?;
        for (device, counts) in devices.iter().zip(&mut result.devices) {
            (self.step)("a device")?;
            let before = (self.fresh(0)?, self.fresh(1)?);
            self.prime(device)?;
            device.load(self.bus(at), BYTES)?;
            let wrong = self.held(device)?.iter().any(|byte| *byte != 0);
            counts.count(Check::Unmapped, "read", wrong.then_some("a read gave something"));
            self.prime(device)?;
            device.store(self.bus(at), BYTES)?;
            device.store(self.bus(at + 1), BYTES)?;
            let after = (self.pages.read(0)?, self.pages.read(1)?);
            let wrong = (after != before).then_some("a write reached memory");
            counts.count(Check::Unmapped, "write", wrong);
        }
        let first = at + 2;
        self.map_pair(first)?;
        for (device, counts) in devices.iter().zip(&mut result.devices) {
            (self.step)("a device")?;
            // A bad access right before a good one.
            device.load(self.bus(at), BYTES)?;
            let wrong = self.copy(device, first)?;
            counts.count(Check::AfterBad, "beside it", wrong);
        }
        self.unmap_pair(first)
    }
}
