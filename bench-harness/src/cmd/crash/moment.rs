// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When a victim is killed: after a while, when it begins a certain request, or when it has so much
//! locked. How long it takes, what it asks and what it locks is known from a run of it to its end.

use std::fs::File;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::processes::locked_bytes;
use crate::interrupt::interrupted;
use crate::run::lists::Random;
use crate::size::format_size;
use crate::steps::{Step, Steps};

/// Between two looks at a victim.
const PAUSE: Duration = Duration::from_micros(200);
/// Most time between what is waited for and the kill.
const LATER: u64 = 3_000;

/// What a victim did that was left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) took: Duration,
    pub(super) steps: Steps,
    /// The most that it had locked when it was looked at.
    pub(super) peak_bytes: u64,
}

/// When to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// So long after the start.
    After(Duration),
    /// When it has begun its so-manieth step of this kind.
    Step(Step, u64),
    /// When it has so many bytes locked.
    Locked(u64),
    /// When it has no longer so many bytes locked, after it had at least half of its most.
    Unlocked(u64),
}

/// When, and how much later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) when: When,
    later: Duration,
}

impl Moment {
    /// A random one that such a victim lives to see: half of them by the clock, the rest by what it does.
    pub(super) fn draw(course: &Course, random: &mut Random) -> Self {
        let steps: Vec<_> =
            Step::ALL.into_iter().filter(|step| course.steps.count(*step) > 0).collect();
        let locked = course.peak_bytes;
        // Also where there is nothing to be chosen, so that a seed gives the same choices.
        let (what, later, pick) = (random.below(6), random.below(LATER), random.next());
        let when = match what {
            3 | 4 if !steps.is_empty() => {
                let step = steps[(pick % steps.len() as u64) as usize];
                When::Step(step, 1 + random.below(course.steps.count(step)))
            }
            5 if locked > 0 && pick & 1 == 0 => When::Locked(1 + random.below(locked)),
            5 if locked > 0 => When::Unlocked(1 + random.below(locked)),
            _ => When::After(course.took.mul_f64(pick as f64 / u64::MAX as f64)),
        };
        // Some of them at once.
        let later = if later & 1 == 0 { Duration::ZERO } else { Duration::from_micros(later) };
        Self { when, later }
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match self.when {
            When::After(time) => format!("after {:.3} s", time.as_secs_f64()),
            When::Step(step, nth) => format!("at {} {nth}", step.name()),
            When::Locked(bytes) => format!("with {} locked", format_size(bytes)),
            When::Unlocked(bytes) => format!("with {} no longer locked", format_size(bytes)),
        }
    }
}

/// Follows a victim.
pub(super) struct Watch<'a> {
    pub(super) child: &'a mut Child,
    /// Where it counts its steps.
    pub(super) steps: &'a File,
    pub(super) begun: Instant,
    pub(super) peak_bytes: u64,
    pub(super) locked_bytes: u64,
}

impl Watch<'_> {
    /// Returns when the moment has come, the victim has ended (false), or the user wants no more.
    ///
    /// # Errors
    /// If the system refuses to say.
    pub(super) fn wait_for(&mut self, moment: Option<Moment>, half: u64) -> std::io::Result<bool> {
        while !interrupted() {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            let (come, pause) = match moment.map(|moment| moment.when) {
                None => {
                    self.look();
                    // Nothing is to be met, so it need not be looked at so often.
                    (false, 10 * PAUSE)
                }
                Some(When::After(time)) => {
                    let left = time.saturating_sub(self.begun.elapsed());
                    (left.is_zero(), left.min(Duration::from_millis(20)))
                }
                Some(When::Step(step, nth)) => (Steps::read(self.steps)?.count(step) >= nth, PAUSE),
                Some(When::Locked(bytes)) => (self.look() >= bytes, PAUSE),
                Some(When::Unlocked(bytes)) => {
                    let locked = self.look();
                    (self.peak_bytes >= half.max(bytes) && locked < bytes, PAUSE)
                }
            };
            if come {
                sleep(moment.map_or(Duration::ZERO, |moment| moment.later));
                self.look();
                return Ok(true);
            }
            sleep(pause);
        }
        Ok(false)
    }

    /// What it has locked.
    fn look(&mut self) -> u64 {
        self.locked_bytes = locked_bytes(self.child.id()).unwrap_or(0);
        self.peak_bytes = self.peak_bytes.max(self.locked_bytes);
        self.locked_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_ones_that_a_victim_lives_to_see() {
        let took = Duration::from_secs(2);
        let mut random = Random::new(1);
        let blind = Course { took, ..Course::default() };
        for _ in 0..100 {
            let moment = Moment::draw(&blind, &mut random);
            assert!(matches!(moment.when, When::After(time) if time <= took), "{moment:?}");
        }
        let told = Course {
            peak_bytes: 1 << 20,
            steps: Steps::of(&[(Step::Map, 9), (Step::Open, 1)]),
            took,
        };
        let mut kinds = [0; 4];
        for _ in 0..600 {
            let moment = Moment::draw(&told, &mut random);
            let kind = match moment.when {
                When::After(time) => usize::from(time > took),
                When::Step(Step::Map, nth) if (1..=9).contains(&nth) => 1,
                When::Step(Step::Open, 1) => 1,
                When::Locked(bytes) if (1..=1 << 20).contains(&bytes) => 2,
                When::Unlocked(bytes) if (1..=1 << 20).contains(&bytes) => 3,
                other => panic!("{other:?}"),
            };
            kinds[kind] += 1;
        }
        assert!(kinds.into_iter().all(|count| count > 20), "{kinds:?}");
    }
}
