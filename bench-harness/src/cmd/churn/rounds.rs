// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The rounds: the second group joins, everything is compared, it leaves, everything is compared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tce_engine::addr::GroupId;
use tce_engine::container::{Attached, Container, Detached, Removal};
use tce_engine::engine::{DetachPolicy, Engine};
use tce_engine::error::{AttachError, BackendError};
use tce_engine::geometry::WindowSpec;

use super::mapper::{Now, Reins};
use super::result::Found;
use crate::cli::ChurnConfig;
use crate::cmd::ground::devices::{Kind, Trial, Wrong};
use crate::cmd::ground::{Ground, Pages, reached, through};
use crate::edu;
use crate::interrupt::interrupted;
use crate::kernel::{Books, OpenVfio};
use crate::run::machine::{Machine, What};

/// What the rounds are made with.
pub(super) struct Scene<'a> {
    pub(super) config: &'a ChurnConfig,
    pub(super) policy: DetachPolicy,
    pub(super) machine: &'a Machine,
    pub(super) engine: &'a Engine,
    pub(super) container: &'a Arc<Container>,
    pub(super) ground: Ground<'a>,
    pub(super) spec: WindowSpec,
    /// What stays mapped.
    pub(super) standing: &'a Pages,
    /// The group that stays, and the one that comes and goes.
    pub(super) groups: [GroupId; 2],
}

/// The rounds as they go on.
pub(super) struct Rounds<'a> {
    scene: &'a Scene<'a>,
    reins: Reins<'a>,
    books: &'a mut Option<Books>,
    found: &'a mut Found,
    devices: Option<Driven<'a>>,
    /// The second group is a member.
    member: bool,
    /// Bytes charged with so many members, when that was seen first.
    level: BTreeMap<bool, u64>,
}

/// Devices that do DMA, where the machine has any.
pub(super) struct Driven<'a> {
    open: &'a OpenVfio,
    /// Of the group that stays.
    first: Vec<edu::Engine>,
    trial: Trial<'a>,
}

impl<'a> Driven<'a> {
    /// Those of the two groups, if both have some.
    ///
    /// # Errors
    /// If one of the first group's does not behave.
    pub(super) fn open(scene: &Scene<'a>) -> anyhow::Result<Option<Self>> {
        let What::Vfio(open) = &scene.machine.what else { return Ok(None) };
        if scene.groups.iter().any(|group| edu::list(&[*group]).is_empty()) {
            return Ok(None);
        }
        let avoid_hole = open.platform.emulated != Some(true);
        let mut trial = Trial::new(scene.ground, scene.config.run.seed, avoid_hole);
        let named = edu::list(&scene.groups).into_iter();
        trial.sum.devices = named.map(|(group, name)| format!("group {group}: {name}")).collect();
        Ok(Some(Self { open, first: edu::find(open, &scene.groups[..1])?, trial }))
    }
}

impl<'a> Rounds<'a> {
    pub(super) fn new(
        scene: &'a Scene<'a>,
        reins: Reins<'a>,
        books: &'a mut Option<Books>,
        found: &'a mut Found,
        devices: Option<Driven<'a>>,
    ) -> Self {
        Self { scene, reins, books, found, devices, member: false, level: BTreeMap::new() }
    }

    /// All of them, or until something is wrong.
    ///
    /// # Errors
    /// What the engine refused without a rule to do so, or a device that does not work.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let rounds = self.scene.config.rounds;
        for nth in 0..rounds {
            if interrupted() {
                break;
            }
            let due = nth % self.scene.config.dma_every == 0 || nth + 1 == rounds;
            self.round(due).with_context(|| format!("round {}", nth + 1))?;
            if !self.found.is_well() {
                break;
            }
        }
        self.end()
    }

    fn round(&mut self, due: bool) -> anyhow::Result<()> {
        let calls = self.scene.config.calls;
        let joins = !self.member;
        let (container, group) = (self.scene.container, self.scene.groups[1]);
        let attached = self.reins.leg(calls, |signals| {
            joins.then(|| {
                signals.set(Now::Attach);
                let begin = Instant::now();
                let done = container.attach(group);
                let took = begin.elapsed().as_nanos() as u64;
                signals.set(if done.is_ok() { Now::Member } else { Now::Alone });
                (done, took)
            })
        })?;
        if let Some((done, took)) = attached {
            self.attached(done, took)?;
        }
        // Nobody but devices sees a real kernel's tables change by it.
        if due || !matches!(self.scene.machine.what, What::Vfio(_)) {
            self.compare(due, "after the attach")?;
        }
        self.books("after the attach");
        self.drive((due, due), "after the attach")?;
        if interrupted() || !self.found.is_well() {
            return Ok(());
        }
        let leaves = self.member;
        let detached = self.reins.leg(calls, |signals| {
            leaves.then(|| {
                signals.set(Now::Detach);
                let begin = Instant::now();
                let done = container.detach(group);
                let took = begin.elapsed().as_nanos() as u64;
                let stays = matches!(done, Err(AttachError::Shared { .. }));
                signals.set(if stays { Now::Member } else { Now::Alone });
                (done, took)
            })
        })?;
        if let Some((done, took)) = detached {
            self.detached(done, took)?;
        }
        self.compare(due, "after the detach")?;
        self.books("after the detach");
        self.drive((true, due), "after the detach")?;
        self.found.rounds.done += u64::from(!interrupted());
        Ok(())
    }

    fn attached(&mut self, done: Result<Attached, AttachError>, took: u64) -> anyhow::Result<()> {
        let rounds = &mut self.found.rounds;
        match done {
            Ok(done) => {
                rounds.attached += 1;
                self.member = true;
                self.found.attach.record(took, done.replayed);
                self.found.replay.entries += done.replayed;
                self.found.replay.ioctls += done.ioctls;
            }
            // Kernels that may not give a late joiner its windows.
            Err(e @ AttachError::Backend(BackendError::Guarded { .. })) => {
                rounds.attach_refused += 1;
                rounds.refusal.get_or_insert_with(|| e.to_string());
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    fn detached(&mut self, done: Result<Detached, AttachError>, took: u64) -> anyhow::Result<()> {
        let kernel = self.scene.engine.caps().tables.kernel();
        let empties = kernel.is_some_and(|kernel| kernel.detach_clears);
        let refuses = empties && self.scene.policy == DetachPolicy::RefuseWhileShared;
        let replays = empties && self.scene.policy == DetachPolicy::Replay;
        let found = &mut *self.found;
        match done {
            Ok(done) => {
                self.member = false;
                found.rounds.detached += 1;
                found.detach.record(took, done.replayed);
                found.replay.entries += done.replayed;
                found.replay.ioctls += done.ioctls;
                // So often the caller has to stop the devices of those that stay.
                found.replay.pauses += u64::from(replays);
                if refuses {
                    found.wrong("the group has left where the policy refuses it".to_owned());
                }
            }
            Err(e @ AttachError::Shared { .. }) if refuses => {
                found.rounds.detach_refused += 1;
                found.rounds.refusal.get_or_insert_with(|| e.to_string());
            }
            Err(AttachError::Replay { lost, .. }) => {
                self.member = false;
                found.lost += lost.entries;
                found.wrong(format!("the replay: {lost}"));
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// What should be mapped now, and the places of the thread that are not any more.
    fn pages(&self) -> (Pages, Pages) {
        let mut pages = self.scene.standing.clone();
        pages.extend(self.reins.mapped());
        (pages, self.reins.gone().collect())
    }

    /// Looks at the pages through both groups.
    fn compare(&mut self, due: bool, when: &str) -> anyhow::Result<()> {
        let Scene { machine, container, ground, groups: [first, second], .. } = *self.scene;
        let (pages, _) = self.pages();
        let sum = &mut self.found.verification;
        let mirror = matches!(machine.what, What::Vfio(_));
        // The mirror is the same for all members.
        let members = if self.member && !mirror { &[first, second][..] } else { &[first] };
        for group in members {
            let wanted = (&pages, due);
            let Some(wrong) = through(machine, container, ground, *group, wanted, sum)? else {
                return Ok(());
            };
            self.found.lost += wrong.lost;
            self.found.stray += wrong.stray;
            if let Some(text) = wrong.first {
                self.found.first_difference.get_or_insert(format!("{when}: {text}"));
            }
        }
        if !self.member {
            let sum = &mut self.found.verification;
            let (count, wrong) = reached(machine, ground, second, &pages, sum)?;
            self.found.reached += count;
            if let Some(text) = wrong {
                self.found.first_difference.get_or_insert(format!("{when}: {text}"));
            }
        }
        Ok(())
    }

    /// The books are those of the engine, and do not move from round to round.
    fn books(&mut self, when: &str) {
        let ledger = self.scene.engine.ledger();
        self.books.iter_mut().for_each(|books| books.compare(ledger, when));
        let charged = ledger.pages() << ledger.page().get();
        let level = *self.level.entry(self.member).or_insert(charged);
        let locked = &mut self.found.locked;
        *(if self.member { &mut locked.shared_bytes } else { &mut locked.alone_bytes }) =
            Some(level);
        if charged != level {
            locked.first_change.get_or_insert_with(|| {
                format!("{when}: {charged} bytes are charged, {level} in the first round")
            });
        }
    }

    /// Has devices of the two groups read and write, if it is time. Those of the first are open all the
    /// time; opening one resets it, which takes long.
    fn drive(&mut self, (first, second): (bool, bool), when: &str) -> anyhow::Result<()> {
        if !first || self.devices.is_none() || interrupted() {
            return Ok(());
        }
        let (pages, gone) = self.pages();
        let Some(driven) = &mut self.devices else { return Ok(()) };
        let group = self.scene.groups[1];
        let Driven { open, first: devices, trial } = driven;
        let mut wrong = None;
        for device in &*devices {
            wrong = wrong.or(trial.member(device, &pages, &gone)?);
        }
        if second && self.member {
            // Dropped at once: a group whose devices are open cannot leave.
            for device in &edu::find(open, &[group])? {
                wrong = wrong.or(trial.member(device, &pages, &gone)?);
            }
        } else if second {
            let spec = self.scene.spec;
            wrong = wrong.or(trial.apart(self.scene.engine, open, group, spec, &pages)?);
        }
        self.found.verification.dma = Some(trial.sum.clone());
        if let Some(Wrong { kind, text }) = wrong {
            *match kind {
                Kind::Lost => &mut self.found.lost,
                Kind::Stray => &mut self.found.stray,
                Kind::Reached => &mut self.found.reached,
            } += 1;
            self.found.wrong(format!("{when}: {text}"));
        }
        self.books(when);
        Ok(())
    }

    /// Unmaps and gives back everything. Nothing may be left anywhere.
    fn end(self) -> anyhow::Result<()> {
        let (pages, _) = self.pages();
        let Self { scene, reins, books, found, devices, member, .. } = self;
        drop((reins, devices));
        let Scene { machine, engine, container, ground, groups, .. } = *scene;
        let ledger = engine.ledger();
        for half in [0..ground.pages / 2, ground.pages / 2..ground.pages] {
            let (first, count) = (half.start, half.end - half.start);
            let done = container.unmap(ground.bus(first), ground.bytes(count))?;
            let wanted = pages.range(half).count() as u64;
            if done.tces != wanted {
                found.wrong(format!("at the end {} pages were mapped, not {wanted}", done.tces));
            }
        }
        let sum = &mut found.verification;
        let members = if member { &groups[..] } else { &groups[..1] };
        for group in members {
            let wanted = (&Pages::new(), true);
            let Some(wrong) = through(machine, container, ground, *group, wanted, sum)? else {
                break;
            };
            found.stray += wrong.stray;
            if let Some(text) = wrong.first {
                found.first_difference.get_or_insert(format!("at the end: {text}"));
            }
        }
        let mut compare = |step| books.iter_mut().for_each(|b| b.compare(ledger, step));
        container.remove_window(ground.start, Removal::IfUnmapped)?;
        compare("removing the window");
        container.unregister(ground.buffer.start(), ground.buffer.bytes())?;
        compare("unregistering the buffer");
        container.close();
        compare("closing the container");
        if ledger.pages() != 0 {
            found.wrong(format!("{} host pages are still charged at the end", ledger.pages()));
        }
        if let Some(left) = machine.leftovers() {
            found.wrong(format!("left at the end: {left}"));
        }
        found.verification.books = books.take().map(|books| books.result);
        Ok(())
    }
}
