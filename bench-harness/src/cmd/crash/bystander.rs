// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process beside: it keeps a container with pinned memory while others are killed, maps and unmaps
//! in it all the time, and says on demand whether all is as it should be. It ends with its input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use tce_engine::container::Mode;
use tce_engine::tce::Perm;

use super::processes::{self, locked_bytes};
use crate::cli::CrashConfig;
use crate::cmd::ground::devices::Trial;
use crate::cmd::ground::{Ground, Pages, standing, through};
use crate::host;
use crate::interrupt::interrupted;
use crate::result::{BackendKind, DmaResult, Verification};
use crate::run::lists::Random;
use crate::run::machine::Machine;
use crate::run::rig::{Plan, Rig};

/// Between two turns, so that others have the processor too.
const PAUSE: Duration = Duration::from_millis(10);
/// Maps and unmaps of a turn.
const CALLS: u64 = 8;
/// What is asked for on its input.
const CHECK: &str = "check";

/// What it says when its pages are mapped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) label: String,
    pub(super) kernel: Option<String>,
    pub(super) machine: Option<String>,
    /// The engine's books: what it has to have locked.
    pub(super) charged_bytes: u64,
    /// Pages that stay mapped.
    pub(super) standing: u64,
    /// Devices that can be told to do DMA.
    pub(super) devices: Vec<String>,
}

/// What it says when it is asked, of all that it did so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Times that it mapped and unmapped a few pages, and compared.
    pub(super) turns: u64,
    pub(super) calls: u64,
    pub(super) translations: u64,
    pub(super) mirror_entries: u64,
    pub(super) dma: Option<DmaResult>,
    /// The first thing that was wrong, in words.
    pub(super) wrong: Option<String>,
}

/// It, as its starter sees it. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Bystander {
    child: Child,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(super) hello: Hello,
    /// Its books when it was ready.
    pub(super) locked_bytes: u64,
}

impl Bystander {
    /// Starts it and waits until its pages are mapped.
    ///
    /// # Errors
    /// If it cannot be had; what it said stands on standard error.
    pub(super) fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = processes::spawn(&mut command)?;
        let asks = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("no pipe from the bystander")?);
        let mut new = Self { child, asks, answers, hello: Hello::default(), locked_bytes: 0 };
        new.hello = serde_json::from_str(&new.line()?)?;
        new.locked_bytes = new.locked()?;
        Ok(new)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the bystander has ended: {}", self.child.wait()?);
        }
        Ok(line)
    }

    /// What it has locked now, by the kernel's books.
    ///
    /// # Errors
    /// If it is gone.
    pub(super) fn locked(&self) -> anyhow::Result<u64> {
        locked_bytes(self.child.id()).context("the bystander is gone")
    }

    /// Has it look at all of its pages, after a turn more at least.
    ///
    /// # Errors
    /// If it has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<Answer> {
        let asks = self.asks.as_mut().context("the bystander is not asked any more")?;
        writeln!(asks, "{CHECK}").context("the bystander does not listen")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }

    /// Ends it; what it could not give back is an error.
    ///
    /// # Errors
    /// That, in words.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        drop(self.asks.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(anyhow!("the bystander ended with {status}")) }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.asks.take());
        // Without its input it ends, and what it holds goes with it.
        let _ = self.child.wait();
    }
}

/// Is the bystander.
///
/// # Errors
/// What failed, one line.
pub(super) fn serve(config: &CrashConfig) -> anyhow::Result<()> {
    let run = &config.run;
    let machine = Machine::open(run, &mut Vec::new())?;
    let plan = Plan::new(run, &machine, host::mem_available()).map_err(|e| anyhow!(e))?;
    let mut rig = Rig::new(run, &plan, machine)?;
    let wrong = Keeper::new(&rig, run.seed)?.keep()?;
    if let Some(wrong) = wrong.or(rig.close()) {
        bail!("the bystander: {wrong}");
    }
    if let Some(difference) = rig.books.as_ref().and_then(|b| b.result.first_difference.clone()) {
        bail!("the bystander: {difference}");
    }
    Ok(())
}

/// Maps, unmaps and compares.
struct Keeper<'a> {
    rig: &'a Rig,
    ground: Ground<'a>,
    random: Random,
    trial: Trial<'a>,
    mapped: Pages,
    /// Was unmapped in the last turn.
    gone: Pages,
    sum: Verification,
    answer: Answer,
    standing: u64,
}

impl<'a> Keeper<'a> {
    fn new(rig: &'a Rig, seed: u64) -> anyhow::Result<Self> {
        let (page, pages) = (rig.page(), rig.pages());
        let ground = Ground { buffer: &rig.buffer, start: rig.start, page, pages };
        let mut random = Random::new(seed);
        let mapped = standing(&rig.containers[0], ground, pages / 8, &mut random)?;
        let real = rig.machine.kind() == BackendKind::Vfio;
        let trial = Trial::new(ground, random.next(), real);
        let (gone, sum, answer) = (Pages::new(), Verification::default(), Answer::default());
        let standing = mapped.len() as u64;
        Ok(Self { rig, ground, random, trial, mapped, gone, sum, answer, standing })
    }

    /// Goes on until the input ends; what was wrong.
    fn keep(mut self) -> anyhow::Result<Option<String>> {
        let devices: Vec<_> =
            self.rig.device_names().iter().map(|(g, name)| format!("group {g}: {name}")).collect();
        // Opened now, as that takes a second or more.
        self.rig.devices()?;
        self.answer.dma = (!devices.is_empty()).then(DmaResult::default);
        let (kernel, machine) = self.rig.machine.kernel_and_machine();
        let ledger = self.rig.engine.ledger();
        say(&Hello {
            label: self.rig.machine.label(),
            kernel,
            machine,
            charged_bytes: ledger.pages() << ledger.page().get(),
            standing: self.standing,
            devices: devices.clone(),
        })?;
        let (to, asked) = mpsc::channel();
        thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    break;
                }
            }
        });
        while self.answer.wrong.is_none() && !interrupted() {
            match asked.recv_timeout(PAUSE) {
                Err(RecvTimeoutError::Timeout) => self.turn(false)?,
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(line) if line == CHECK => {
                    self.turn(true)?;
                    self.dma(&devices)?;
                    (self.answer.translations, self.answer.mirror_entries) =
                        (self.sum.translations, self.sum.mirror_entries);
                    say(&self.answer)?;
                }
                Ok(line) => bail!("the bystander was asked for '{line}'; accepted: {CHECK}"),
            }
        }
        // A window that is not empty is not given back.
        for at in self.mapped.keys() {
            self.rig.containers[0].unmap(self.ground.bus(*at), self.ground.bytes(1))?;
        }
        Ok(self.answer.wrong)
    }

    /// A few pages of the upper half change, and what is mapped is compared, or `all`.
    fn turn(&mut self, all: bool) -> anyhow::Result<()> {
        let rig = self.rig;
        let container = &rig.containers[0];
        let (half, one) = (self.ground.pages / 2, self.ground.bytes(1));
        self.gone.clear();
        for _ in 0..CALLS {
            let at = half + self.random.below(half);
            if let Some(memory) = self.mapped.remove(&at) {
                container.unmap(self.ground.bus(at), one)?;
                self.gone.insert(at, memory);
            } else {
                let memory = self.random.below(self.ground.buffer_pages());
                let (to, from) = (self.ground.bus(at), self.ground.memory(memory));
                container.map(to, from, one, Perm::READ_WRITE, Mode::Refuse)?;
                self.mapped.insert(at, memory);
                self.gone.remove(&at);
            }
        }
        self.answer.turns += 1;
        self.answer.calls += CALLS;
        let Self { ground, mapped, sum, .. } = self;
        let group = rig.machine.groups[0];
        let found = through(&rig.machine, container, *ground, group, (mapped, all), sum)?;
        if let Some(first) = found.and_then(|found| found.first) {
            self.answer.wrong.get_or_insert(first);
        }
        Ok(())
    }

    /// Devices read and write what is mapped, and must not write what was unmapped.
    fn dma(&mut self, names: &[String]) -> anyhow::Result<()> {
        let rig = self.rig;
        for device in rig.devices()? {
            if let Some(wrong) = self.trial.member(device, &self.mapped, &self.gone)? {
                self.answer.wrong.get_or_insert(wrong.text);
            }
        }
        if let Some(dma) = &mut self.answer.dma {
            *dma = DmaResult { devices: names.to_vec(), ..self.trial.sum.clone() };
        }
        Ok(())
    }
}

/// A line of JSON.
fn say(what: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    Ok(out.flush()?)
}
