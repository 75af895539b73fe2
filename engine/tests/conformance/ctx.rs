// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a case works with: the machine, a container of either kind, and the books.

use std::fmt::Display;
use std::sync::Arc;

use tce_engine::addr::GroupId;
use tce_engine::backend::linux::mock_kernel::{Damage, MockKernel, MockKernelBuilder, Process};
use tce_engine::backend::linux::raw::RawHost;
use tce_engine::backend::linux::uapi::{Request, kind};
use tce_engine::backend::linux::{Linux, LinuxOptions, Version};
use tce_engine::container::Container;
use tce_engine::engine::{DetachPolicy, Engine, EngineOptions};

use crate::case::{Column, Done, Must, Said, Step, Stop, Zero};
pub(crate) use crate::ct::{Ct, Eng};
use crate::rig::{Mem, Rig};
use crate::spy::{Sent, Spy};

pub(crate) const K: u64 = 1 << 10;
pub(crate) const M: u64 = 1 << 20;
pub(crate) const G: u64 = 1 << 30;
/// Where the second window begins.
pub(crate) const SECOND: u64 = 1 << 59;
/// Both directions.
pub(crate) const RW: u32 = 3;

/// Host pages that a window costs: twice a tree whose leaves hold all entries, every level in whole
/// blocks.
pub(crate) fn charge(host: u32, shift: u32, size: u64, levels: u32) -> u64 {
    let index = size.ilog2() - shift;
    let block = 1u64 << (index.div_ceil(levels) + 3).max(host);
    let (mut level, mut tree) = ((8u64 << index).max(4 * K), 0);
    for _ in 0..levels {
        tree += level.next_multiple_of(block);
        level = (level / block * 8).max(block);
    }
    (2 * tree) >> host
}

/// One answer, for which nothing may be sent to the kernel.
macro_rules! refused {
    ($cx:expr, $label:expr, $answer:expr, $expected:expr $(,)?) => {{
        $cx.mark();
        let answer = $answer;
        $cx.refused($label, answer, $expected);
    }};
}
pub(crate) use refused;

pub(crate) struct Ctx {
    pub(crate) rig: Rig,
    pub(crate) spy: Arc<Spy>,
    column: Column,
    steps: Vec<Step>,
    engine: Option<Engine>,
    start: u64,
    mark: usize,
    leak: u64,
    pinned: u64,
    damage: usize,
    lost: bool,
    /// Pages that version 1 containers have locked before anything was asked of them.
    base: i64,
    /// Pages that the engine's containers may have locked before it is asked for a window.
    pays_late: i64,
    /// The groups have their own tables, and no dynamic windows.
    pub(crate) own_tables: bool,
    /// From here on a MAP tells that views were made.
    pub(crate) afresh: usize,
}

impl Ctx {
    pub(crate) fn new(rig: Rig, column: Column) -> Self {
        let spy = Spy::new(rig.machine());
        let start = spy.locked_bytes();
        Self {
            rig,
            spy,
            column,
            steps: Vec::new(),
            engine: None,
            start,
            mark: 0,
            leak: 0,
            pinned: 0,
            damage: 0,
            lost: false,
            base: 0,
            pays_late: 0,
            own_tables: false,
            afresh: 0,
        }
    }

    // The machine.

    pub(crate) fn is_real(&self) -> bool {
        matches!(self.rig, Rig::Real(_))
    }

    pub(crate) fn column(&self) -> Column {
        self.column
    }

    /// The simulated machine.
    pub(crate) fn kernel(&self) -> Result<&Arc<MockKernel>, Stop> {
        match &self.rig {
            Rig::Mock(mock) => Ok(&mock.kernel),
            Rig::Real(_) => Err(Stop::Skip("only a simulated kernel tells".to_owned())),
        }
    }

    pub(crate) fn process(&self) -> Result<&Arc<Process>, Stop> {
        match &self.rig {
            Rig::Mock(mock) => Ok(&mock.process),
            Rig::Real(_) => Err(Stop::Skip("only a simulated kernel tells".to_owned())),
        }
    }

    /// Another simulated machine instead of the default one.
    pub(crate) fn rebuild(
        &mut self,
        change: impl FnOnce(MockKernelBuilder) -> MockKernelBuilder,
    ) -> Done {
        self.kernel()?;
        self.rig = Rig::mock(change);
        self.spy = Spy::new(self.rig.machine());
        Ok(())
    }

    pub(crate) fn g(&self, n: usize) -> GroupId {
        self.rig.group(n)
    }

    /// log2 of the host page.
    pub(crate) fn host(&self) -> u32 {
        self.spy.host_page().get()
    }

    /// Bytes of the host page.
    pub(crate) fn p(&self) -> u64 {
        1 << self.host()
    }

    /// log2 of a window page that ordinary memory can be mapped with. It is the host page, so
    /// entries and host pages are as many.
    pub(crate) fn io(&self) -> u32 {
        self.host()
    }

    /// A bus offset that is far from page 0, where failing requests hang a real kernel.
    pub(crate) fn base(&self) -> u64 {
        64 << self.host()
    }

    /// Host pages that the window of [`Ct::w1`] costs.
    pub(crate) fn w1_cost(&self) -> i64 {
        self.cost(G, self.io(), 1)
    }

    /// Host pages that the default window costs.
    pub(crate) fn default_cost(&self) -> i64 {
        self.cost(2 * G, 12, 1)
    }

    pub(crate) fn memory(&mut self, pages: u64) -> Result<Mem, Stop> {
        self.rig.memory(pages)
    }

    /// Reserved huge pages of 16M.
    pub(crate) fn huge(&mut self, count: u64) -> Result<Mem, Stop> {
        // The engine does not ask for it there.
        if self.is_real() && self.host() == 12 && self.column == Column::Raw {
            // Seen on Debian's 6.12: REGISTER stays in pin_user_pages() until it is killed.
            return Err(Stop::Skip("a kernel with 4K pages does not return from this".to_owned()));
        }
        self.rig.huge(count)
    }

    /// The process may lock so many pages and no more.
    pub(crate) fn limit(&mut self, pages: u64) -> Done {
        self.rig.limit(pages << self.host(), false)
    }

    // What is noted.

    fn note(&mut self, label: &str, expected: String, answered: String) {
        self.steps.push(Step { label: label.to_owned(), expected, answered });
    }

    /// One answer. In the engine's column the books have to be right after it.
    pub(crate) fn says(&mut self, label: &str, answer: impl Said, expected: impl Display) {
        self.note(label, expected.to_string(), answer.said());
        self.mark();
        self.books(label);
    }

    /// What is sent from now on is what the next step is about.
    pub(crate) fn mark(&mut self) {
        self.mark = self.spy.sent().len();
    }

    /// An answer for which nothing may have been sent to the kernel since the mark.
    pub(crate) fn refused(&mut self, label: &str, answer: impl Said, expected: impl Display) {
        let sent = self.sent();
        self.says(label, answer, expected);
        if !sent.is_empty() {
            let sent = format!("{:?}", sent.iter().map(|s| s.request).collect::<Vec<_>>());
            self.note(&format!("{label}: sent"), "nothing".to_owned(), sent);
        }
    }

    /// An error whose message has to say so.
    pub(crate) fn says_why<T, E: Display>(
        &mut self,
        label: &str,
        answer: &Result<T, E>,
        contains: &str,
    ) {
        let said = answer.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
        let answered = if said.contains(contains) { contains.to_owned() } else { said };
        self.note(label, contains.to_owned(), answered);
        self.mark();
        self.books(label);
    }

    /// What was sent since the step before.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.spy.sent().split_off(self.mark)
    }

    /// Requests of one kind since the step before.
    pub(crate) fn count(&self, request: Request) -> u64 {
        self.sent().iter().filter(|sent| sent.request == request).count() as u64
    }

    fn locked(&self) -> i64 {
        (self.spy.locked_bytes() as i64 - self.start as i64) >> self.host()
    }

    /// Locked pages since the start of the case.
    pub(crate) fn v(&mut self, pages: i64) {
        let pages = pages + self.base;
        let locked = self.locked();
        if pages == locked && self.steps.last().is_some_and(|step| step.label == "V") {
            return;
        }
        self.note("V", format!("V{pages:+}"), format!("V{locked:+}"));
    }

    /// What the process has locked is what the ledger says.
    fn books(&mut self, label: &str) {
        let Some(engine) = &self.engine else { return };
        if self.lost {
            return;
        }
        let (sum, total) =
            (engine.ledger().entries().iter().map(|e| e.pages).sum(), engine.ledger().pages());
        let locked = self.locked();
        // A table may be there before the engine is asked for a window.
        let late = self.pays_late > 0 && locked - total as i64 == self.pays_late;
        let ahead = late || self.pays_ahead() && locked <= total as i64;
        if total != sum || locked != total as i64 && !ahead {
            let answered = format!("VmLck {locked:+}, ledger {total}");
            self.note(&format!("{label}: books"), format!("both {sum}"), answered);
        }
    }

    /// So many pages stay charged when all is closed.
    pub(crate) fn leaks(&mut self, charged: i64, pinned: u64) {
        (self.leak, self.pinned) = (charged as u64, pinned);
    }

    /// The request before this one damaged the simulated kernel.
    pub(crate) fn damages(&mut self, what: &str) -> Done {
        self.damage += 1;
        let damage = self.kernel()?.damage();
        let last = damage.last().map(|damage| match damage {
            Damage::Hang { .. } => "hang",
            Damage::OutOfTable { .. } => "oob",
        });
        let answered = last.filter(|_| damage.len() == self.damage).unwrap_or("none").to_owned();
        self.note("damage", what.to_owned(), answered);
        Ok(())
    }

    /// So many pages are locked before the engine is asked for a window.
    pub(crate) fn lag_behind(&mut self, pages: i64) {
        self.pays_late = pages;
    }

    /// The container is lost, so the kernel has given back what the ledger still shows.
    pub(crate) fn lose_books(&mut self) {
        self.lost = true;
    }

    /// Nothing may be left.
    pub(crate) fn finish(mut self) -> Vec<Step> {
        let (locked, leak) = (self.locked(), self.leak as i64);
        if locked != leak {
            self.note("V at the end", format!("V{leak:+}"), format!("V{locked:+}"));
        }
        let ledger = self.engine.as_ref().map_or(leak as u64, |engine| engine.ledger().pages());
        if ledger != self.leak {
            self.note("ledger at the end", self.leak.to_string(), ledger.to_string());
        }
        if let Rig::Mock(mock) = &self.rig {
            let (left, damage) = (mock.kernel.leftovers(), mock.kernel.damage());
            let left = (left.containers, left.windows, left.pinned_pages);
            let injected = mock.kernel.take_injections();
            if left != (0, 0, self.pinned) {
                let expected = format!("{:?}", (0, 0, self.pinned));
                self.note("left: containers, windows, pins", expected, format!("{left:?}"));
            }
            let allowed = if self.column == Column::Engine { 0 } else { self.damage };
            if damage.len() != allowed {
                self.note("damage at the end", allowed.to_string(), format!("{damage:?}"));
            }
            if !injected.is_empty() {
                self.note("faults", "all used".to_owned(), format!("{injected:?}"));
            }
        }
        self.steps
    }

    /// What was noted, when the case did not come to its end.
    pub(crate) fn give_up(self) -> Vec<Step> {
        self.steps
    }

    // The kernel's containers.

    pub(crate) fn open(&self) -> Result<Ct, Stop> {
        let raw = self.spy.watched().must("opening a container")?;
        Ok(Ct::new(raw, self.io(), !self.profile().lists_regions))
    }

    fn raw(&self, groups: &[usize], kind: u32) -> Result<Ct, Stop> {
        let ct = self.open()?;
        for (i, n) in groups.iter().enumerate() {
            ct.join(self.g(*n))?;
            if i == 0 {
                ct.set_iommu(kind).zero("SET_IOMMU")?;
                // Where the default window is there at once it is put off, so that the cases begin
                // alike; those that are about it begin otherwise.
                if kind == kind::SPAPR_TCE_V2 && self.early() > 0 {
                    ct.put_off_default_window()?;
                }
            }
        }
        Ok(ct)
    }

    /// A version 2 container with these groups.
    pub(crate) fn v2(&self, groups: &[usize]) -> Result<Ct, Stop> {
        self.raw(groups, kind::SPAPR_TCE_V2)
    }

    /// One with the first group, and with whatever window comes with it.
    pub(crate) fn v2_as_it_comes(&self) -> Result<Ct, Stop> {
        let ct = self.open()?;
        ct.join(self.g(0))?;
        ct.set_iommu(kind::SPAPR_TCE_V2).zero("SET_IOMMU")?;
        Ok(ct)
    }

    pub(crate) fn v1(&mut self, group: usize) -> Result<Ct, Stop> {
        self.for_version_1()?;
        self.base += self.v1_early();
        self.raw(&[group], kind::SPAPR_TCE)
    }

    // The engine's.

    pub(crate) fn engine_with(&mut self, linux: LinuxOptions, options: EngineOptions) -> &Engine {
        let backend = Linux::new(self.spy.clone(), linux);
        self.engine.insert(Engine::new(backend, options))
    }

    pub(crate) fn engine(&mut self) -> &Engine {
        if self.engine.is_none() {
            self.engine_with(LinuxOptions::default(), EngineOptions::default());
        }
        self.engine.as_ref().expect("just made")
    }

    /// An engine of version 1 containers.
    pub(crate) fn engine_v1(&mut self) -> Done {
        self.for_version_1()?;
        self.pays_late = self.v1_early();
        let linux = LinuxOptions { version: Version::V1, ..LinuxOptions::default() };
        self.engine_with(linux, EngineOptions::default());
        Ok(())
    }

    /// An engine that maps again what a detach has wiped.
    pub(crate) fn engine_replays(&mut self) -> &Engine {
        let options = EngineOptions { detach: DetachPolicy::Replay, ..EngineOptions::default() };
        self.engine_with(LinuxOptions::default(), options)
    }

    /// A container of the engine with these groups.
    pub(crate) fn container(&mut self, groups: &[usize]) -> Result<Container, Stop> {
        let container = self.engine().container();
        for n in groups {
            container.attach(self.g(*n)).must("attach")?;
        }
        Ok(container)
    }

    /// The same with one window of 1 GiB at 0, one level.
    pub(crate) fn windowed(&mut self, groups: &[usize]) -> Result<Container, Stop> {
        let container = self.container(groups)?;
        container.window(G, self.io(), 1).must("the window")?;
        Ok(container)
    }
}
