// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Maps where something is mapped: beside it, so that only looking tells what is free, and over it.

use anyhow::ensure;
use tce_engine::container::{LIST_MAX, Mode, Receipt};
use tce_engine::error::MapError;
use tce_engine::tce::Perm;

use super::rig::{Rig, STRETCH, Windowed};
use super::work::{CALL_MAX, Meters, Share, Work, most, unmap};
use crate::interrupt::interrupted;

/// Maps `count` window pages from `first`; their memory lies `shift` buffer pages behind their own.
fn map(
    rig: &Rig,
    container: &Windowed,
    (first, count): (u64, u64),
    shift: u64,
    mode: Mode,
) -> Result<Receipt, MapError> {
    let (page, rw) = (rig.page(), Perm::READ_WRITE);
    container.map(
        container.bus(first),
        rig.buffer.page(first + shift, page),
        count << page.get(),
        rw,
        mode,
    )
}

/// The second half of every stretch that the engine keeps under one lock, while the first half stays
/// mapped: what is counted cannot tell that the second is empty, so every entry is looked at.
pub struct Checked<'a> {
    /// The machine.
    pub rig: &'a Rig,
    /// The thread's pages.
    pub share: Share,
}

impl Checked<'_> {
    /// Pages that a round maps.
    pub fn pages(rig: &Rig, share: Share) -> u64 {
        let (stretch, end) = (stretch(rig), share.first + share.count);
        let halves = (share.first..end).step_by(stretch as usize).map(|first| {
            let count = stretch.min(end - first);
            count - count / 2
        });
        halves.sum()
    }

    /// Calls `f` with the first or the second half of each stretch, in runs that the buffer has in
    /// one piece.
    fn halves(
        &self,
        second: bool,
        mut f: impl FnMut(u64, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.share.runs(stretch(self.rig), u64::MAX, |first, count| {
            let half = count / 2;
            let (first, count) = if second { (first + half, count - half) } else { (first, half) };
            Share { first, count }.runs(self.rig.buffer_pages(), CALL_MAX, &mut f)
        })
    }
}

/// Pages whose live entries are counted together.
fn stretch(rig: &Rig) -> u64 {
    STRETCH.min(rig.geometry.level_entries())
}

impl Work for Checked<'_> {
    fn begin(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            let mut refused = None;
            self.halves(false, |first, count| {
                meters.count(&map(self.rig, container, (first, count), 0, Mode::Refuse)?);
                // What this phase is about: it is seen that something is there.
                refused.get_or_insert_with(|| {
                    map(self.rig, container, (first + count - 1, 1), 0, Mode::Refuse)
                });
                Ok(())
            })?;
            let seen = matches!(refused, None | Some(Err(MapError::Overlap { live: 1, .. })));
            ensure!(seen, "a map over a live entry, which should be refused: {refused:?}");
        }
        Ok(())
    }

    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            self.halves(true, |first, count| {
                if interrupted() {
                    return Ok(());
                }
                meters
                    .time_map(|| map(self.rig, container, (first, count), 0, Mode::Refuse))
                    .map(drop)
            })?;
        }
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            self.halves(true, |first, count| unmap(self.rig, container, (first, count), meters))?;
        }
        Ok(())
    }

    fn end(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        self.unmap(meters)?;
        for container in &self.rig.containers {
            self.halves(false, |first, count| {
                let bytes = count << self.rig.page().get();
                let done = container.unmap(container.bus(first), bytes)?;
                meters.count(&done);
                let live = done.tces;
                ensure!(live == count, "of {count} pages that were to stay, {live} were there");
                Ok(())
            })?;
        }
        Ok(())
    }

    fn mapped(&self) -> (u64, u64) {
        self.share.bounds()
    }
}

/// Other memory over what is mapped: in calls of 512 pages, and then in as few calls as the buffer
/// allows.
pub struct Exchange<'a> {
    /// The machine.
    pub rig: &'a Rig,
    /// The thread's pages.
    pub share: Share,
    /// How many buffer pages behind its own the memory of a page lies.
    pub shift: u64,
}

impl Exchange<'_> {
    /// Pages of the shorter calls: as a list of a guest has.
    const CALL: u64 = LIST_MAX as u64;
    /// What each turn adds to the shift: calls begin where a run of real memory does.
    const STEP: u64 = 7 * LIST_MAX as u64;

    fn turn(&mut self) {
        let pages = self.rig.buffer_pages();
        // In a buffer of which that is a multiple, nothing would change.
        let step = if Self::STEP.is_multiple_of(pages) { 1 } else { Self::STEP };
        self.shift = (self.shift + step) % pages;
    }

    /// Calls `f` with runs of pages, none of which crosses a multiple of `unit`, is longer than
    /// `most`, or has memory beyond the buffer's end.
    fn runs(
        &self,
        unit: u64,
        most: u64,
        mut f: impl FnMut(u64, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let pages = self.rig.buffer_pages();
        self.share.runs(unit, u64::MAX, |mut first, mut count| {
            while count > 0 {
                let inside = pages - (first + self.shift) % pages;
                let now = count.min(inside).min(most);
                f(first, now)?;
                (first, count) = (first + now, count - now);
            }
            Ok(())
        })
    }

    /// One turn, in long calls or in short ones.
    fn exchange(&mut self, long: bool, meters: &mut Meters) -> anyhow::Result<()> {
        self.turn();
        let unit = if long { u64::MAX } else { Self::CALL };
        for container in &self.rig.containers {
            self.runs(unit, most(self.rig), |first, count| {
                if interrupted() {
                    return Ok(());
                }
                let call = || map(self.rig, container, (first, count), self.shift, Mode::Replace);
                let done = if long { meters.time_unmap(call) } else { meters.time_map(call) };
                let live = done?.released;
                ensure!(live == count, "{live} of {count} entries were there to be replaced");
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Work for Exchange<'_> {
    fn begin(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            self.runs(u64::MAX, most(self.rig), |first, count| {
                let shift = self.shift;
                meters.count(&map(self.rig, container, (first, count), shift, Mode::Refuse)?);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        self.exchange(false, meters)
    }

    /// Not an unmap: the other kind of turn.
    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        self.exchange(true, meters)
    }

    fn end(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        for container in &self.rig.containers {
            self.share.runs(u64::MAX, most(self.rig), |first, count| {
                let bytes = count << self.rig.page().get();
                meters.count(&container.unmap(container.bus(first), bytes)?);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn mapped(&self) -> (u64, u64) {
        self.share.bounds()
    }

    fn shift(&self) -> u64 {
        self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Invocation};
    use crate::result::Verification;
    use crate::run::machine::Machine;
    use crate::run::phase::seen;
    use crate::run::rig::Plan;
    use crate::run::verify::{Content, Model, Part, verify};

    fn rig(line: &str) -> Rig {
        let line = format!("tce-bench --backend mock {line}");
        let Ok(Invocation::Run(config)) = cli::parse(line.split(' ')) else { panic!("{line}") };
        let machine = Machine::open(&config, &mut Vec::new()).unwrap();
        let plan = Plan::new(&config, &machine, None).unwrap();
        Rig::new(&config, &plan, machine).unwrap()
    }

    /// True if just this is mapped, so much shifted, as the PHB sees it.
    fn is(rig: &Rig, mapped: &[(u64, u64)], shift: u64) -> bool {
        let mut parts = Vec::new();
        let mut at = 0;
        for (nth, (from, to)) in mapped.iter().copied().enumerate() {
            let end = mapped.get(nth + 1).map_or(rig.pages(), |next| next.0);
            parts.push(Part { first: at, count: end - at, mapped: (from, to), shift });
            at = end;
        }
        let model = Model { parts, content: Content::Around(rig.buffer_pages()) };
        verify(&seen(rig).unwrap(), &model, &mut Verification::default())
    }

    #[test]
    fn checked_leaves_the_first_halves_alone() {
        for (line, stretch) in
            [("--window 64M --levels 2", 8192), ("--window 8M --levels 2 --host-page 4K", 512)]
        {
            let rig = rig(line);
            let share = Share { first: 0, count: rig.pages() };
            assert_eq!(Checked::pages(&rig, share), rig.pages() / 2);
            let (mut work, mut meters) = (Checked { rig: &rig, share }, Meters::default());
            let stretches = (0..rig.pages()).step_by(stretch);
            let halves: Vec<_> =
                stretches.map(|first| (first, first + stretch as u64 / 2)).collect();
            work.begin(&mut meters).unwrap();
            assert!(is(&rig, &halves, 0));
            work.map(&mut meters).unwrap();
            assert!(is(&rig, &[work.mapped()], 0));
            work.unmap(&mut meters).unwrap();
            assert!(is(&rig, &halves, 0));
            assert_eq!(
                (meters.map.tces(), meters.unmap.tces()),
                (rig.pages() / 2, rig.pages() / 2)
            );
            work.map(&mut meters).unwrap();
            work.end(&mut meters).unwrap();
            assert!(is(&rig, &[(0, 0)], 0));
        }
    }

    #[test]
    fn a_stretch_too_short_to_be_halved() {
        let rig = rig("--window 4K");
        let share = Share { first: 0, count: 1 };
        assert_eq!(Checked::pages(&rig, share), 1);
        let (mut work, mut meters) = (Checked { rig: &rig, share }, Meters::default());
        work.begin(&mut meters).unwrap();
        assert!(is(&rig, &[(0, 0)], 0));
        work.map(&mut meters).unwrap();
        assert!(is(&rig, &[(0, 1)], 0));
        work.end(&mut meters).unwrap();
        assert!(is(&rig, &[(0, 0)], 0));
    }

    #[test]
    fn what_should_have_stayed_is_missed() {
        let rig = rig("--window 64M");
        let share = Share { first: 0, count: rig.pages() };
        let (mut work, mut meters) = (Checked { rig: &rig, share }, Meters::default());
        work.begin(&mut meters).unwrap();
        work.map(&mut meters).unwrap();
        rig.containers[0].unmap(rig.bus(7), rig.page().bytes()).unwrap();
        let error = work.end(&mut meters).unwrap_err().to_string();
        assert_eq!(error, "of 4096 pages that were to stay, 4095 were there");
    }

    #[test]
    fn exchange_puts_other_memory_everywhere_each_time() {
        for (line, step) in [
            ("--window 64M", 3584),
            ("--window 64M --buffer 2M", 1),
            ("--window 64M --buffer 192K", 32),
        ] {
            let rig = rig(line);
            let share = Share { first: 0, count: rig.pages() };
            let mut work = Exchange { rig: &rig, share, shift: 0 };
            let mut meters = Meters::default();
            work.begin(&mut meters).unwrap();
            assert!(is(&rig, &[(0, rig.pages())], 0));
            work.map(&mut meters).unwrap();
            let first = 3584 % rig.buffer_pages();
            assert_eq!(work.shift(), if first == 0 { step } else { first }, "{line}");
            assert!(is(&rig, &[work.mapped()], work.shift()), "{line}");
            assert!(!is(&rig, &[work.mapped()], work.shift() + 1), "{line}");
            work.unmap(&mut meters).unwrap();
            assert!(is(&rig, &[work.mapped()], work.shift()), "{line}");
            assert_eq!((meters.map.tces(), meters.unmap.tces()), (rig.pages(), rig.pages()));
            work.end(&mut meters).unwrap();
            assert!(is(&rig, &[(0, 0)], 0));
        }
    }
}
