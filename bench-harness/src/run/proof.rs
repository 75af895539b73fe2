// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Has devices read and write a few pages of a window, and looks at what arrived. A real kernel
//! shows its tables to nobody else.
//!
//! In a pair of mapped pages the device reads the first and writes the second: what was put into the
//! memory of the one has to arrive in that of the other. At an unmapped page it must neither find
//! what is in the memory that was or will be mapped there, nor change it.

use std::collections::BTreeSet;
use std::thread;

use anyhow::anyhow;
use tce_engine::addr::Ioba;

use super::lists::Random;
use super::rig::Rig;
use super::verify::{Model, Part};
use crate::edu;
use crate::interrupt::interrupted;
use crate::result::DmaResult;

/// Bytes of one transfer: no more than a page, and what the device's buffer holds.
const BYTES: usize = edu::BUFFER_BYTES;

/// Draws that may miss before there is no such page.
const TRIES: usize = 64;

/// Where a page is, for the device and for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bus: Ioba,
    /// In the buffer.
    offset: u64,
}

/// What one device does.
#[derive(Debug, Default)]
struct Samples {
    pair: Option<(Place, Place)>,
    unmapped: Option<Place>,
}

/// Picks pages, none of whose memory is used twice.
struct Picker<'a> {
    rig: &'a Rig,
    model: &'a Model,
    random: Random,
    used: BTreeSet<u64>,
}

impl Picker<'_> {
    fn samples(&mut self) -> Samples {
        let pair = self.pick(true).and_then(|from| Some((from, self.pick(true)?)));
        Samples { pair, unmapped: self.pick(false) }
    }

    fn pick(&mut self, mapped: bool) -> Option<Place> {
        (0..TRIES).find_map(|_| {
            let index =
                if mapped { self.mapped_page()? } else { self.random.below(self.rig.pages()) };
            if self.model.page(0, index).is_some() != mapped {
                return None;
            }
            let number = self.model.if_mapped(index);
            if !self.used.insert(number) {
                return None;
            }
            let page = self.rig.page();
            let inside = self.random.below(page.bytes() / BYTES as u64) * BYTES as u64;
            let bus = Ioba(self.rig.bus(index).0 + inside);
            Some(Place { bus, offset: (number << page.get()) + inside })
        })
    }

    /// A page of a part that has mapped ones.
    fn mapped_page(&mut self) -> Option<u64> {
        let parts = &self.model.parts;
        let part = parts[self.random.below(parts.len() as u64) as usize];
        let Part { first, count, mapped: (from, to), .. } = part;
        let n = from + self.random.below(to.checked_sub(from).filter(|n| *n > 0)?);
        Some(if n < first + count { n } else { n - count })
    }
}

/// Has every device that can be driven try some pages, all at the same time, and adds to `sum`. Says
/// the first thing that was wrong.
///
/// # Errors
/// If a device does not work.
pub(super) fn prove(
    rig: &Rig,
    model: &Model,
    seed: u64,
    sum: &mut DmaResult,
) -> anyhow::Result<Option<String>> {
    if interrupted() {
        return Ok(None);
    }
    let devices = rig.devices()?;
    let (random, used) = (Random::new(seed ^ sum.pages), BTreeSet::new());
    let mut picker = Picker { rig, model, random, used };
    let work: Vec<_> =
        devices.iter().map(|device| (device, picker.samples(), picker.random.next())).collect();
    let answers: anyhow::Result<Vec<_>> = thread::scope(|scope| {
        let threads: Vec<_> = work
            .iter()
            .map(|(device, samples, seed)| scope.spawn(|| try_out(rig, device, samples, *seed)))
            .collect();
        threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    });
    let mut wrong = None;
    for ((device, ..), answer) in work.iter().zip(answers?) {
        sum.pages += answer.pages;
        sum.unmapped += answer.unmapped;
        if let Some(text) = answer.wrong {
            wrong.get_or_insert(format!("group {}, {}: {text}", device.group, device.name));
        }
    }
    Ok(wrong)
}

#[derive(Default)]
struct Answer {
    pages: u64,
    unmapped: u64,
    wrong: Option<String>,
}

fn try_out<R: edu::Registers>(
    rig: &Rig,
    device: &edu::Engine<R>,
    samples: &Samples,
    seed: u64,
) -> anyhow::Result<Answer> {
    let mut random = Random::new(seed);
    let mut fresh = || -> [u8; BYTES] { std::array::from_fn(|_| random.next() as u8) };
    let (sent, kept) = (fresh(), fresh());
    let mut seen = [0; BYTES];
    let mut answer = Answer::default();
    if interrupted() {
        return Ok(answer);
    }
    if let Some((from, to)) = samples.pair {
        rig.buffer.write(from.offset, &sent)?;
        rig.buffer.write(to.offset, &kept)?;
        device.load(from.bus, BYTES)?;
        device.store(to.bus, BYTES)?;
        rig.buffer.read(to.offset, &mut seen)?;
        if seen != sent {
            let what = if seen == kept { "nothing" } else { "something else" };
            answer.wrong = Some(format!(
                "what it read at {} and wrote at {} did not arrive; {what} did",
                from.bus, to.bus
            ));
            return Ok(answer);
        }
        answer.pages += 2;
    }
    let Some(unmapped) = samples.unmapped.filter(|_| !interrupted()) else { return Ok(answer) };
    rig.buffer.write(unmapped.offset, &kept)?;
    device.store(unmapped.bus, BYTES)?;
    rig.buffer.read(unmapped.offset, &mut seen)?;
    if seen != kept {
        answer.wrong = Some(format!("it wrote to memory at {}, which is unmapped", unmapped.bus));
        return Ok(answer);
    }
    if let Some((_, to)) = samples.pair {
        // Into the device and out again, to where we can look.
        device.load(unmapped.bus, BYTES)?;
        device.store(to.bus, BYTES)?;
        rig.buffer.read(to.offset, &mut seen)?;
        // It has read zeros, or nothing at all, and then holds what it held.
        if seen != sent && seen != [0; BYTES] {
            let what = if seen == kept { "memory" } else { "something" };
            answer.wrong = Some(format!("it read {what} at {}, which is unmapped", unmapped.bus));
            return Ok(answer);
        }
    }
    answer.unmapped += 1;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tce_engine::addr::GroupId;
    use tce_engine::container::Mode;
    use tce_engine::tce::Perm;

    use super::super::machine::{Machine, What};
    use super::super::rig::Plan;
    use super::super::verify::Content;
    use super::*;
    use crate::cli::{self, Invocation};

    /// An edu device of group 0 of the simulated kernel, little-endian. Its transfers are over at
    /// once.
    struct Fake<'a> {
        rig: &'a Rig,
        /// Reaches other pages than it should: so many further on.
        off_by: u64,
        /// Reaches the buffer where nothing is mapped.
        no_iommu: bool,
        state: Mutex<([u64; 4], [u8; 4], Vec<u8>)>,
    }

    impl<'a> Fake<'a> {
        fn engine(rig: &'a Rig, off_by: u64, no_iommu: bool) -> edu::Engine<Self> {
            let state = Mutex::new(([0; 4], [0; 4], vec![0; BYTES]));
            let fake = Self { rig, off_by, no_iommu, state };
            edu::Engine::new(GroupId(0), "fake", fake).unwrap()
        }

        fn reach(&self, at: u64, need: Perm) -> Option<u64> {
            let What::MockKernel { kernel, .. } = &self.rig.machine.what else {
                panic!("no kernel")
            };
            let at = at + (self.off_by << self.rig.page().get());
            let start = self.rig.buffer.start();
            match kernel.translate(GroupId(0), Ioba(at), need) {
                Ok(there) => Some(there.at.0 - start.0),
                Err(_) if self.no_iommu => Some(at % self.rig.buffer.bytes()),
                Err(_) => None,
            }
        }
    }

    impl edu::Registers for Fake<'_> {
        fn read(&self, at: u64, out: &mut [u8]) -> anyhow::Result<()> {
            let state = self.state.lock().unwrap();
            match at {
                0 => out.copy_from_slice(&0x0100_00edu32.to_le_bytes()),
                4 => out.copy_from_slice(&state.1.map(|byte| !byte)),
                at => out.copy_from_slice(&state.0[(at - 0x80) as usize / 8].to_le_bytes()),
            }
            Ok(())
        }

        fn write(&self, at: u64, bytes: &[u8]) -> anyhow::Result<()> {
            let mut state = self.state.lock().unwrap();
            if at == 4 {
                state.1.copy_from_slice(bytes);
                return Ok(());
            }
            let value = u64::from_le_bytes(bytes.try_into()?);
            state.0[(at - 0x80) as usize / 8] = value;
            let (from, to) = (state.0[0], state.0[1]);
            match (at, value) {
                (0x98, 1) => match self.reach(from, Perm::READ) {
                    Some(offset) => self.rig.buffer.read(offset, &mut state.2)?,
                    None => state.2.fill(0),
                },
                (0x98, 3) => {
                    if let Some(offset) = self.reach(to, Perm::WRITE) {
                        self.rig.buffer.write(offset, &state.2)?;
                    }
                }
                _ => return Ok(()),
            }
            state.0[3] = 0;
            Ok(())
        }
    }

    fn rig() -> Rig {
        let line = "tce-bench --backend mock-kernel --window 64M --levels 2 --buffer 32M";
        let Ok(Invocation::Run(config)) = cli::parse(line.split(' ')) else { panic!("{line}") };
        let machine = Machine::open(&config, &mut Vec::new()).unwrap();
        let plan = Plan::new(&config, &machine, None).unwrap();
        Rig::new(&config, &plan, machine).unwrap()
    }

    /// Pages 0 to 4095 of 16384 are mapped.
    fn try_with(off_by: u64, no_iommu: bool, mapped: u64) -> Answer {
        let rig = rig();
        let (memory, rw) = (rig.buffer.start(), Perm::READ_WRITE);
        if mapped > 0 {
            let bytes = mapped << rig.page().get();
            rig.containers[0].map(rig.start, memory, bytes, rw, Mode::Refuse).unwrap();
        }
        let parts = vec![Part { first: 0, count: rig.pages(), mapped: (0, mapped), shift: 0 }];
        let model = Model { parts, content: Content::Around(rig.buffer_pages()) };
        let (random, used) = (Random::new(3), BTreeSet::new());
        let samples = Picker { rig: &rig, model: &model, random, used }.samples();
        assert_eq!(samples.pair.is_some(), mapped > 1);
        let unmapped = samples.unmapped.expect("most are");
        assert!(unmapped.bus >= rig.bus(mapped));
        try_out(&rig, &Fake::engine(&rig, off_by, no_iommu), &samples, 5).unwrap()
    }

    #[test]
    fn a_device_that_reaches_what_is_mapped_and_nothing_else() {
        let answer = try_with(0, false, 4096);
        assert_eq!((answer.pages, answer.unmapped, answer.wrong), (2, 1, None));
        let answer = try_with(0, false, 0);
        assert_eq!((answer.pages, answer.unmapped, answer.wrong), (0, 1, None));
    }

    #[test]
    fn a_device_that_reaches_something_else() {
        let wrong = |off_by, no_iommu, mapped| try_with(off_by, no_iommu, mapped).wrong.unwrap();
        assert!(wrong(1, false, 4096).contains("did not arrive"));
        assert!(wrong(0, true, 4096).contains("it wrote to memory at"));
        assert!(wrong(0, true, 0).contains("it wrote to memory at"));
    }

    #[test]
    fn no_memory_is_used_twice() {
        let rig = rig();
        let parts = vec![Part { first: 0, count: rig.pages(), mapped: (0, 9), shift: 0 }];
        let model = Model { parts, content: Content::Around(3) };
        let (random, used) = (Random::new(1), BTreeSet::new());
        let mut picker = Picker { rig: &rig, model: &model, random, used };
        let picked: BTreeSet<_> =
            std::iter::from_fn(|| picker.pick(true)).map(|p| p.offset).collect();
        assert_eq!(picked, (0..3).map(|n| n << 12).collect());
        assert_eq!(picker.samples().pair, None);
    }
}
