// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An open loop: operations are due at times that were fixed beforehand, whether or not the ones before
//! are done. What waits behind a slow one has its waiting counted, which a closed loop omits.

use std::thread;
use std::time::{Duration, Instant};

use crate::interrupt::interrupted;

const NS_PER_S: u128 = 1_000_000_000;
/// The longest sleep at a time, so that Ctrl-C is looked at.
const NAP: Duration = Duration::from_millis(20);
/// A sleep may end so much later than it was to; the rest is spent looking at the clock.
const SPIN: Duration = Duration::from_micros(100);

/// Time since some start, and waiting for it to pass.
pub(super) trait Time: Send {
    /// Nanoseconds since then.
    fn now(&self) -> u64;

    /// Returns once it is `ns`, or early if the run is interrupted.
    fn wait_until(&self, ns: u64);
}

/// The clock.
pub(super) struct Real(Instant);

impl Real {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Time for Real {
    fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    fn wait_until(&self, ns: u64) {
        let until = Duration::from_nanos(ns);
        while let Some(left) = until.checked_sub(self.0.elapsed())
            && !left.is_zero()
            && !interrupted()
        {
            match left.checked_sub(SPIN) {
                Some(sleep) if !sleep.is_zero() => thread::sleep(sleep.min(NAP)),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

/// What came of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Paced {
    /// Operations that were done.
    pub done: u64,
    /// Of those, begun when the next one was due already, or later.
    pub late: u64,
    /// The longest time between when one was due and when it was begun, in nanoseconds.
    pub most_behind_ns: u64,
    /// Operations a second, added up over threads.
    pub achieved_per_s: f64,
}

impl Paced {
    /// Adds another thread's.
    pub(super) fn merge(&mut self, other: &Self) {
        self.done += other.done;
        self.late += other.late;
        self.most_behind_ns = self.most_behind_ns.max(other.most_behind_ns);
        self.achieved_per_s += other.achieved_per_s;
    }
}

/// One thread's times at which operations are due: number `n` at `n` intervals from the start.
pub(super) struct Pacer<T> {
    time: T,
    rate: u64,
    /// Threads share one rate, which need not be a multiple of their number.
    threads: u32,
    start: u64,
    begun: u64,
    due: u64,
    last_end: u64,
    late: u64,
    most_behind: u64,
}

impl Pacer<Real> {
    /// When the operation is due.
    pub(super) fn due_at(&self) -> Instant {
        self.time.0 + Duration::from_nanos(self.due)
    }
}

impl<T: Time> Pacer<T> {
    /// `rate` operations a second of `threads` threads, of which this is one. The first is due now.
    pub(super) fn new(time: T, rate: u64, threads: u32) -> Self {
        let start = time.now();
        Self {
            time,
            rate,
            threads,
            start,
            begun: 0,
            due: start,
            last_end: start,
            late: 0,
            most_behind: 0,
        }
    }

    /// When operation `n` is due.
    fn due(&self, n: u64) -> u64 {
        let ns = u128::from(n) * NS_PER_S * u128::from(self.threads) / u128::from(self.rate);
        self.start + ns as u64
    }

    /// Waits until the next operation is due, if it is not yet.
    pub(super) fn begin(&mut self) {
        self.due = self.due(self.begun);
        self.begun += 1;
        self.time.wait_until(self.due);
        let now = self.time.now();
        self.most_behind = self.most_behind.max(now.saturating_sub(self.due));
        self.late += u64::from(now >= self.due(self.begun));
    }

    /// Ends the operation: nanoseconds since it was due.
    pub(super) fn end(&mut self) -> u64 {
        self.last_end = self.time.now();
        self.last_end.saturating_sub(self.due)
    }

    /// What came of it. Who keeps up achieves just what was asked for.
    pub(super) fn paced(&self) -> Paced {
        let ns = self.last_end.max(self.due(self.begun)) - self.start;
        let achieved = self.begun as f64 * NS_PER_S as f64 / ns.max(1) as f64;
        Paced {
            done: self.begun,
            late: self.late,
            most_behind_ns: self.most_behind,
            achieved_per_s: if self.begun > 0 { achieved } else { 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A clock that goes on only when it is waited for or told to.
    #[derive(Default)]
    struct Fake(Cell<u64>);

    impl Time for Fake {
        fn now(&self) -> u64 {
            self.0.get()
        }

        fn wait_until(&self, ns: u64) {
            self.0.set(self.0.get().max(ns));
        }
    }

    /// Operations that take so long; the times since they were due.
    fn perform(pacer: &mut Pacer<Fake>, take: &[u64]) -> Vec<u64> {
        let one = |ns: &u64| {
            pacer.begin();
            pacer.time.0.set(pacer.time.0.get() + ns);
            pacer.end()
        };
        take.iter().map(one).collect()
    }

    #[test]
    fn who_keeps_up_is_measured_from_its_own_start() {
        let mut pacer = Pacer::new(Fake(Cell::new(77)), 1_000_000, 1);
        assert_eq!(perform(&mut pacer, &[10, 999, 1, 500]), [10, 999, 1, 500]);
        let told = Paced { done: 4, late: 0, most_behind_ns: 0, achieved_per_s: 1e6 };
        assert_eq!(pacer.paced(), told);
    }

    #[test]
    fn what_waits_behind_a_slow_one_has_its_waiting_counted() {
        let mut pacer = Pacer::new(Fake::default(), 1_000_000, 1);
        // A closed loop would have seen one long time and five short ones.
        assert_eq!(
            perform(&mut pacer, &[100, 3500, 100, 100, 100, 100]),
            [100, 3500, 2600, 1700, 800, 100]
        );
        let Paced { late, most_behind_ns, achieved_per_s, .. } = pacer.paced();
        assert_eq!((late, most_behind_ns, achieved_per_s), (2, 2500, 1e6));
    }

    #[test]
    fn a_rate_out_of_reach_is_not_achieved() {
        let mut pacer = Pacer::new(Fake::default(), 1_000_000, 1);
        let behind = perform(&mut pacer, &[2000; 100]);
        assert_eq!((behind[0], behind[99]), (2000, 101_000));
        let Paced { done, late, achieved_per_s, .. } = pacer.paced();
        assert_eq!((done, late, achieved_per_s), (100, 99, 5e5));
    }

    #[test]
    fn threads_share_a_rate_that_they_do_not_divide() {
        let mut pacer = Pacer::new(Fake::default(), 10, 3);
        perform(&mut pacer, &[1; 10]);
        assert_eq!(pacer.due(10), 3_000_000_000);
        let mut sum = pacer.paced();
        sum.merge(&pacer.paced());
        sum.merge(&pacer.paced());
        assert_eq!((sum.done, sum.achieved_per_s.round()), (30, 10.0));
    }

    #[test]
    fn nothing_done_is_nothing_achieved() {
        let pacer = Pacer::new(Fake::default(), 5, 1);
        assert_eq!(pacer.paced(), Paced::default());
    }
}
