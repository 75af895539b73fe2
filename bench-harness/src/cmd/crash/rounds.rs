// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One round: a victim is killed, then all that it could have left behind is looked at.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;
use tce_engine::addr::GroupId;
use tce_engine::backend::linux::vfio::{PreflightError, Tree, examine};
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::error::{AttachError, BackendError};

use super::bystander::{Answer, Bystander};
use super::moment::{Course, Moment, Watch};
use super::processes::{System, is_left, locked_bytes, program, spawn};
use super::result::Kill;
use super::victims::{Kind, list, pick};
use crate::interrupt::interrupted;
use crate::kernel::open_vfio;
use crate::outfile::is_temporary;
use crate::run::lists::Random;
use crate::steps::{self, Steps};

/// What stands in a victim's result file before it writes it.
const BEFORE: &str = "before";
/// So often a victim may have ended before its moment came; then moments are drawn wrongly.
const ATTEMPTS: u32 = 20;
/// SIGKILL.
const KILLED: i32 = 9;

/// What the rounds are made of.
pub(super) struct Rounds<'a> {
    /// For files of victims; nobody else's.
    pub(super) directory: &'a Path,
    pub(super) kinds: &'a [Kind],
    /// How the fresh run after each kill is called.
    pub(super) fresh: Kind,
    /// Real groups that victims take; none on mocks.
    pub(super) groups: &'a [GroupId],
    pub(super) patience: Duration,
    pub(super) bystander: Bystander,
    /// Before the first victim.
    pub(super) before: System,
    /// What each kind does if it is left alone, once it is known.
    pub(super) courses: Vec<Option<Course>>,
    pub(super) random: Random,
    pub(super) answer: Answer,
    /// A fresh run had no device to prove anything with.
    pub(super) unproven: bool,
    pub(super) ended_before: u64,
}

/// How a victim ended.
struct Ran {
    /// Killed, or `false`: it had ended by itself.
    killed: bool,
    course: Course,
    /// When it was killed.
    locked_bytes: u64,
    after: Duration,
    /// From the kill until it was gone.
    reap: Duration,
}

impl Rounds<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Kills a victim and looks. `None` if the user wants no more.
    ///
    /// # Errors
    /// What was left behind, or did not work.
    pub(super) fn round(&mut self, number: u32) -> anyhow::Result<Option<Kill>> {
        let nth = (number as usize - 1) % self.kinds.len();
        let kinds = self.kinds;
        let kind = &kinds[nth];
        for _ in 0..ATTEMPTS {
            let groups = pick(self.groups, kind.groups, &mut self.random);
            let who = if groups.is_empty() {
                kind.name.to_owned()
            } else {
                format!("{} on group(s) {}", kind.name, list(&groups))
            };
            let course = match &self.courses[nth] {
                Some(course) => course.clone(),
                None => {
                    let ran = self.victim(kind, &groups, None, 0).with_context(|| who.clone())?;
                    if interrupted() {
                        return Ok(None);
                    }
                    // Nor may one that ends by itself leave anything.
                    self.look(&groups).with_context(|| format!("{who}, not killed"))?;
                    self.courses[nth].insert(ran.course).clone()
                }
            };
            let moment = Moment::draw(&course, &mut self.random);
            let ran = self.victim(kind, &groups, Some(moment), course.peak_bytes / 2);
            let ran = ran.with_context(|| format!("{who}, {}", moment.words()))?;
            if interrupted() {
                return Ok(None);
            }
            let context = || format!("{who}, killed {}", moment.words());
            let temporary_files = self.temporary_files()?;
            let (release, settle) = self.look(&groups).with_context(context)?;
            self.fresh_run(&groups).with_context(context)?;
            if !ran.killed {
                self.ended_before += 1;
                continue;
            }
            return Ok(Some(Kill {
                round: number,
                victim: kind.name,
                groups: groups.iter().map(|group| group.0).collect(),
                moment: moment.words(),
                at: ran.course.steps.last.map_or("start", steps::Step::name),
                after_s: ran.after.as_secs_f64(),
                locked_bytes: ran.locked_bytes,
                reap_ns: ran.reap.as_nanos() as u64,
                release_ns: release.map(|release| release.as_nanos() as u64),
                settle_ns: settle.as_nanos() as u64,
                temporary_files,
            }));
        }
        bail!("{ATTEMPTS} victims ({}) had ended before they were to be killed", kind.name)
    }

    /// Starts one, and kills it if its moment comes.
    fn victim(
        &self,
        kind: &Kind,
        groups: &[GroupId],
        moment: Option<Moment>,
        half: u64,
    ) -> anyhow::Result<Ran> {
        let (json, told) = (self.file("victim.json"), self.file("steps"));
        fs::write(&json, BEFORE)?;
        File::create(&told)?;
        let steps = File::open(&told)?;
        let complaints = self.file("victim.err");
        let mut command = program()?;
        command.args(kind.args(groups)).arg("--quiet").arg("--json").arg(&json);
        command.env(steps::VARIABLE, &told).stdin(Stdio::null()).stdout(Stdio::null());
        let begun = Instant::now();
        let mut child = spawn(command.stderr(File::create(&complaints)?))?;
        let mut watch =
            Watch { child: &mut child, steps: &steps, begun, peak_bytes: 0, locked_bytes: 0 };
        let come = watch.wait_for(moment, half);
        let (peak_bytes, locked) = (watch.peak_bytes, watch.locked_bytes);
        let (sent, after) = (Instant::now(), begun.elapsed());
        // One that has ended meanwhile is none the worse.
        child.kill()?;
        let status = self.reap(&mut child)?;
        let reap = sent.elapsed();
        come?;
        ensure!(!is_left(&child), "a process of it is left");
        let killed = status.signal() == Some(KILLED);
        let told = || fs::read_to_string(&complaints).unwrap_or_default();
        ensure!(
            killed || status.success(),
            "it ended with {status} by itself: {}",
            told().trim_end()
        );
        self.result_is_whole(&json, killed)?;
        let course = Course { took: after, steps: Steps::read(&steps)?, peak_bytes };
        Ok(Ran { killed, course, locked_bytes: locked, after, reap })
    }

    fn reap(&self, child: &mut Child) -> anyhow::Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                begun.elapsed() < self.patience,
                "process {} is still there {:?} after the kill",
                child.id(),
                self.patience
            );
            sleep(Duration::from_micros(100));
        }
    }

    /// A result file holds what was there before, or all of a document.
    fn result_is_whole(&self, path: &Path, killed: bool) -> anyhow::Result<()> {
        let text = fs::read_to_string(path)?;
        if killed && text == BEFORE {
            return Ok(());
        }
        let doc: Value = serde_json::from_str(&text)
            .map_err(|e| anyhow!("its result file holds a part of a document: {e}"))?;
        ensure!(
            doc["verified"] != Value::Bool(false) && doc["run"]["complete"] == Value::Bool(true),
            "its result says verified: {}, complete: {}",
            doc["verified"],
            doc["run"]["complete"]
        );
        Ok(())
    }

    /// Groups, books, pins, huge pages, and the bystander: how long it took until the groups could be
    /// had, and until the system was as before.
    fn look(&mut self, groups: &[GroupId]) -> anyhow::Result<(Option<Duration>, Duration)> {
        let begun = Instant::now();
        let release = match groups {
            [] => None,
            groups => Some(self.free(groups)?),
        };
        loop {
            let now = System::now();
            // Others' huge pages and locked memory are nobody's business where no group is taken.
            if groups.is_empty() || now == self.before {
                break;
            }
            ensure!(
                begun.elapsed() < self.patience,
                "after {:?} the system has {now:?}, before the first victim it had {:?}",
                self.patience,
                self.before
            );
            sleep(Duration::from_millis(2));
        }
        let settle = begun.elapsed();
        let (locked, right) = (self.bystander.locked()?, self.bystander.locked_bytes);
        ensure!(locked == right, "the bystander has {locked} bytes locked (VmLck), it had {right}");
        let answer = self.bystander.check()?;
        if let Some(wrong) = &answer.wrong {
            bail!("the bystander: {wrong}");
        }
        ensure!(answer.turns > self.answer.turns, "the bystander has done nothing");
        self.answer = answer;
        Ok((release, settle))
    }

    /// Takes all of the groups into a container, and lets go of them: how long they could not be had.
    fn free(&self, groups: &[GroupId]) -> anyhow::Result<Duration> {
        let own = || locked_bytes(std::process::id()).context("no VmLck of this process");
        let (begun, locked) = (Instant::now(), own()?);
        loop {
            let waited = begun.elapsed();
            match taken(groups)? {
                None => {
                    let left = own()?;
                    ensure!(left == locked, "{left} bytes are locked here, {locked} were before");
                    return Ok(waited);
                }
                Some(why) => ensure!(waited < self.patience, "after {:?}: {why}", self.patience),
            }
            sleep(Duration::from_millis(1));
        }
    }

    fn temporary_files(&self) -> anyhow::Result<u64> {
        let names = fs::read_dir(self.directory)?.flatten().map(|entry| entry.file_name());
        Ok(names.filter(|name| is_temporary(name)).count() as u64)
    }

    /// A run as if nothing had been.
    fn fresh_run(&mut self, groups: &[GroupId]) -> anyhow::Result<()> {
        let group = pick(groups, self.fresh.groups, &mut self.random);
        let json = self.file("fresh.json");
        let mut command = program()?;
        command.args(self.fresh.args(&group)).arg("--quiet").arg("--json").arg(&json);
        // Not for what is typed at a terminal.
        let out = command.process_group(0).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(
            out.status.success(),
            "the fresh run ended with {}: {}",
            out.status,
            said.trim_end()
        );
        let doc: Value = serde_json::from_slice(&fs::read(&json)?)?;
        self.unproven |= doc["verified"].is_null();
        ensure!(doc["verified"] != Value::Bool(false), "the fresh run says verified: false");
        let left = self.temporary_files()?;
        ensure!(left == 0, "{left} temporary files are still there after a fresh run");
        Ok(())
    }
}

/// Takes groups as a new program would; why not, if somebody still has one.
fn taken(groups: &[GroupId]) -> anyhow::Result<Option<String>> {
    let seen = examine(&Tree::default(), Some(groups), groups.len(), 0, false);
    for group in seen.groups {
        match group.usable {
            Ok(()) => {}
            Err(e @ PreflightError::Busy { .. }) => return Ok(Some(e.cause())),
            Err(e) => bail!(e.cause()),
        }
    }
    let numbers: Vec<_> = groups.iter().map(|group| group.0).collect();
    let open = open_vfio(Some(&numbers), groups.len(), 0, false)?;
    let engine = Engine::new(open.linux.clone(), EngineOptions::default());
    let container = engine.container();
    let attached = groups.iter().try_for_each(|group| container.attach(*group).map(drop));
    container.close();
    match attached {
        Ok(()) => Ok(None),
        Err(e @ AttachError::Backend(BackendError::GroupBusy(_))) => Ok(Some(e.to_string())),
        Err(e) => Err(e.into()),
    }
}
