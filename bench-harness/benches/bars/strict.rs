// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What strict kills cost, without a TCE cache: a call with them beside the same call without them.

use std::sync::Arc;

use tce_engine::backend::layout::RealLayout;
use tce_engine::backend::{
    Backend, Caps, FillRule, GroupCaps, KillCaps, KillPort, KillScope, Memory, WindowProgram,
};
use tce_engine::error::BackendError;
use tce_engine::mem::{TableChunk, TableMemory};
use tce_engine::{GroupId, Hpa, Mock, MockBuilder, Mode};

use crate::Setup;
use crate::common::rig::{Rig, WINDOW};
use crate::common::samples::Samples;
use crate::line::{Bar, Line, Unit};

/// Pairs of a map and an unmap between two readings of the clock.
const GROUP: u64 = 64;

/// A machine that does everything but kill.
#[derive(Debug)]
struct NoKills(Arc<Mock>);

impl KillPort for NoKills {
    fn kill(&mut self, _: KillScope) -> u64 {
        0
    }

    fn fence(&mut self) {}
}

impl TableMemory for NoKills {
    fn reserve_table(&self, bytes: u64) -> Result<Hpa, BackendError> {
        self.0.reserve_table(bytes)
    }

    fn back_table(&self, at: Hpa, chunk: Arc<TableChunk>) -> Result<(), BackendError> {
        self.0.back_table(at, chunk)
    }

    fn free_table(&self, at: Hpa) {
        self.0.free_table(at);
    }
}

impl Backend for NoKills {
    fn caps(&self) -> Caps {
        self.0.caps()
    }

    fn group(&self, group: GroupId) -> Result<GroupCaps, BackendError> {
        self.0.group(group)
    }

    fn take_ownership(&self, group: GroupId) -> Result<(), BackendError> {
        self.0.take_ownership(group)
    }

    fn release_ownership(&self, group: GroupId) {
        self.0.release_ownership(group);
    }

    fn set_window(
        &self,
        group: GroupId,
        slot: usize,
        window: &WindowProgram,
    ) -> Result<(), BackendError> {
        self.0.set_window(group, slot, window)
    }

    fn unset_window(&self, group: GroupId, slot: usize) {
        self.0.unset_window(group, slot);
    }

    fn kill(&self, _: GroupId, _: KillScope) -> u64 {
        0
    }

    fn fence(&self) {}

    fn kill_port(self: Arc<Self>, _: &[GroupId]) -> Option<Box<dyn KillPort>> {
        Some(Box::new(Self(self.0.clone())))
    }

    fn pin(&self, memory: Memory) -> Result<RealLayout, BackendError> {
        self.0.pin(memory)
    }

    fn unpin(&self, memory: Memory, layout: &RealLayout) {
        self.0.unpin(memory, layout);
    }
}

fn mock(groups: u16, fill: FillRule) -> Arc<Mock> {
    MockBuilder::new(groups).kill(KillCaps { fill, ..KillCaps::PHB3 }).build()
}

/// Maps and unmaps `pages` at a time, over and over.
fn pairs(rig: &mut Rig, pages: u64) {
    for _ in 0..GROUP {
        rig.map(0, pages, 0, Mode::Refuse);
        rig.unmap(0, pages);
    }
}

fn time(setup: &Setup, pages: u64, rigs: &mut [(&'static str, Rig)]) -> Samples {
    setup.repeat(|samples, _| {
        for (name, rig) in rigs.iter_mut() {
            samples.time(name, GROUP, || pairs(rig, pages));
        }
    })
}

/// Requests of 512 pages: a kill of the whole PE each, on so many PEs.
pub(crate) fn requests(setup: &Setup) -> Vec<Line> {
    let line = |groups: u16| {
        let rig = |backend: Arc<dyn Backend>| Rig::on(backend, groups, WINDOW, setup.tier);
        let off = Arc::new(NoKills(mock(groups, FillRule::Never)));
        let mut rigs = [("strict", rig(mock(groups, FillRule::Always))), ("off", rig(off))];
        let samples = time(setup, 512, &mut rigs);
        let [strict, off] = ["strict", "off"].map(|name| samples.min(name));
        let what = format!("512 pages, map + unmap, strict kills of {groups} PE against none");
        Line::new(what, Bar::AtMost(110.0), Unit::Percent, strict / off * 100.0)
            .note(format!("minima: {strict:.1} ns with, {off:.1} ns without"))
    };
    [1, 8].map(line).into()
}

/// One page: what the kill of a filled entry costs, which is the same as that of a cleared one.
pub(crate) fn one_page(setup: &Setup) -> Vec<Line> {
    let line = |groups: u16| {
        let rig = |fill| Rig::on(mock(groups, fill), groups, WINDOW, setup.tier);
        let samples = time(
            setup,
            1,
            &mut [("two kills", rig(FillRule::Always)), ("one kill", rig(FillRule::Never))],
        );
        let [two, one] = ["two kills", "one kill"].map(|name| samples.min(name));
        let what = format!("one page, a strict kill of {groups} PE");
        let most = 2.0 + 1.5 * f64::from(groups);
        Line::new(what, Bar::AtMost(most), Unit::Ns, two - one)
            .note(format!("minima: map + unmap {two:.2} ns, without the map's kill {one:.2} ns"))
    };
    [1, 2, 4, 8].map(line).into()
}
