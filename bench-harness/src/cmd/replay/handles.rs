// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The calls of a script dealt out to handles, the ends of their batches, and what handles hold back.
//! Time is the trace's: a replay is many times as fast.

use std::collections::HashMap;
use std::time::Duration;

use super::machine::Machine;
use super::script::{Call, Script, Step, When};
use crate::policy::Batch;

impl Script {
    /// Each vCPU of the guest has a handle of its own; all are used by one thread, in the order of the
    /// trace. Before, one handle makes all calls.
    pub(super) fn on_vcpus(&mut self) {
        let mut known: HashMap<Option<u32>, u16> = HashMap::new();
        for (step, when) in self.steps.iter_mut().zip(&self.when) {
            if step.call.kind().is_some() {
                let next = known.len() as u16;
                step.vcpu = *known.entry(when.cpu).or_insert(next);
            }
        }
        self.vcpus = known.len().max(1) as u16;
    }

    /// Ends batches: after so many calls of a handle, or after a call that the handle's next one does not
    /// follow in time. Such an end comes when the time is over, as nobody knows earlier, but before all
    /// calls that come later.
    pub(super) fn batch(&mut self, batch: Batch) {
        let (mut steps, mut when) = (Vec::new(), Vec::new());
        // Of each handle: calls of its batch so far, and its last one.
        let mut open = vec![(0, When { t_ns: 0, cpu: None }, 0); usize::from(self.vcpus)];
        let end =
            |of: &mut (u32, When, u64), vcpu, t_ns, steps: &mut Vec<_>, whens: &mut Vec<_>| {
                if of.0 > 0 {
                    steps.push(Step { line: of.2, ret: 0, vcpu, call: Call::Submit });
                    whens.push(When { t_ns, ..of.1 });
                    of.0 = 0;
                }
            };
        for (step, now) in self.steps.iter().zip(&self.when) {
            if let Batch::Gap(gap) = batch {
                let gap = gap.as_nanos() as u64;
                for (vcpu, of) in (0..).zip(&mut open) {
                    let over = of.1.t_ns.saturating_add(gap);
                    if over < now.t_ns {
                        end(of, vcpu, over, &mut steps, &mut when);
                    }
                }
            }
            steps.push(*step);
            when.push(*now);
            if step.call.kind().is_some() {
                let of = &mut open[usize::from(step.vcpu)];
                *of = (of.0 + 1, *now, step.line);
                if batch == Batch::Calls(of.0) {
                    end(of, step.vcpu, now.t_ns, &mut steps, &mut when);
                }
            }
        }
        for (vcpu, of) in (0..).zip(&mut open) {
            end(of, vcpu, of.1.t_ns, &mut steps, &mut when);
        }
        (self.steps, self.when) = (steps, when);
    }
}

/// What handles held back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HeldBack {
    /// Most pages that all handles held back together.
    pub(super) most: u64,
    /// The longest that a page was held back.
    pub(super) longest_ns: u64,
}

/// Watches handles while a script is replayed.
#[derive(Debug)]
pub(super) struct Watch {
    max_age: Option<u64>,
    /// Of each handle, the pages it holds back, and since when the oldest.
    handles: Vec<(u64, Option<u64>)>,
    retirements: u64,
    found: HeldBack,
}

impl Watch {
    pub(super) fn new(vcpus: u16, max_age: Option<Duration>) -> Self {
        Self {
            max_age: max_age.map(|age| age.as_nanos() as u64),
            handles: vec![(0, None); usize::from(vcpus)],
            retirements: 0,
            found: HeldBack::default(),
        }
    }

    /// A handle whose oldest page is too old by now, and since when.
    pub(super) fn too_old(&self, now: u64) -> Option<(u16, u64)> {
        let age = self.max_age?;
        let due = |since: Option<u64>| since.map(|since| since.saturating_add(age));
        let old = |(vcpu, handle): (u16, &(u64, Option<u64>))| {
            due(handle.1).filter(|due| *due <= now).map(|due| (vcpu, due))
        };
        (0..).zip(&self.handles).find_map(old)
    }

    /// A handle has made a call, or all handles' debts may have been settled.
    pub(super) fn see(&mut self, machine: &Machine, now: u64) {
        let retirements = machine.engine.debts().retirements;
        let settled = retirements != self.retirements;
        self.retirements = retirements;
        let mut all = 0;
        for (vcpu, (pages, since)) in (0..).zip(&mut self.handles) {
            let held = machine.held_back(vcpu);
            all += held;
            // One that settled its debt and has as much again is not told from one that did neither.
            if settled
                && (held < *pages || held == 0)
                && let Some(since) = since.take()
            {
                self.found.longest_ns = self.found.longest_ns.max(now.saturating_sub(since));
            }
            if held > 0 {
                since.get_or_insert(now);
            }
            *pages = held;
        }
        self.found.most = self.found.most.max(all);
    }

    pub(super) fn found(&self) -> HeldBack {
        self.found
    }
}
