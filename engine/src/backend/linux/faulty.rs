// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The simulated kernel ([`mock_kernel`](super::mock_kernel)) with requests that fail: before they arrive,
//! with a part of them done, or with all of it done and the answer lost. Which ones is said by [`Faults`];
//! how each kind of request can fail, and how none does, by [`REQUESTS`].

use std::fmt;

use super::mock_kernel::{MockContainer, Process};
use super::raw::{Errno, Raw, RawContainer, RawHost};
use super::uapi::{
    DmaMap, DmaUnmap, EehPeOp, RegisterMemory, Request, TceCreate, TceInfo, TceRemove, eeh_op,
};
use crate::addr::{GroupId, PageShift, Uaddr};
use crate::sync::Arc;
use Outcome::{All, Cleared, Ebusy, Einval, Enoent, Enomem, Enxio, Eperm, First, Most, One};

/// What becomes of a call that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// This error number, and nothing is done; the following ones likewise.
    Eperm,
    /// ENOENT.
    Enoent,
    /// ENOMEM.
    Enomem,
    /// EFAULT.
    Efault,
    /// EBUSY.
    Ebusy,
    /// EINVAL.
    Einval,
    /// ENXIO.
    Enxio,
    /// +1, and nothing is done: no error number, and no success.
    One,
    /// The first of the pages is done, and stays; then it fails.
    First,
    /// All but the last.
    Most,
    /// All of it is done, and the answer is lost.
    All,
    /// As Linux fails: what was done of it is cleared, whatever was there before.
    Cleared,
}

impl Outcome {
    /// All of them.
    pub const EVERY: [Self; 12] = [
        Self::Eperm,
        Self::Enoent,
        Self::Enomem,
        Self::Efault,
        Self::Ebusy,
        Self::Einval,
        Self::Enxio,
        Self::One,
        Self::First,
        Self::Most,
        Self::All,
        Self::Cleared,
    ];

    /// What the caller of a request gets.
    ///
    /// # Errors
    /// The error number, if it is one.
    pub const fn answer(self) -> Raw {
        match self {
            Self::Eperm => Err(Errno::EPERM),
            Self::Enoent => Err(Errno::ENOENT),
            Self::Enomem | Self::First | Self::Most | Self::Cleared => Err(Errno::ENOMEM),
            Self::Efault | Self::All => Err(Errno::EFAULT),
            Self::Ebusy => Err(Errno::EBUSY),
            Self::Einval => Err(Errno::EINVAL),
            Self::Enxio => Err(Errno::ENXIO),
            Self::One => Ok(1),
        }
    }

    /// How many of so many pages are done, if any is.
    #[must_use]
    pub const fn done(self, pages: u64) -> Option<u64> {
        match self {
            Self::First => Some(1),
            Self::Most | Self::Cleared => Some(pages - 1),
            Self::All => Some(pages),
            _ => None,
        }
    }

    /// A call for so many pages can end like this, and not just like another outcome.
    #[must_use]
    pub const fn fits(self, pages: u64) -> bool {
        match self {
            Self::First | Self::Cleared => pages >= 2,
            Self::Most => pages >= 3,
            Self::All => pages >= 1,
            _ => true,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Eperm => "EPERM",
            Self::Enoent => "ENOENT",
            Self::Enomem => "ENOMEM",
            Self::Efault => "EFAULT",
            Self::Ebusy => "EBUSY",
            Self::Einval => "EINVAL",
            Self::Enxio => "ENXIO",
            Self::One => "+1",
            Self::First => "1/n",
            Self::Most => "n-1/n",
            Self::All => "n/n",
            Self::Cleared => "cleared",
        })
    }
}

/// The name of a place where the engine calls out.
pub type Site = &'static str;

/// Outcomes that a site cannot have, and why.
pub type Never = (&'static [Outcome], &'static str);

/// A place where the engine calls out, and how it cannot fail.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name.
    pub site: Site,
    never: &'static [Never],
}

impl Row {
    /// The place of that name, which can end in all ways but these.
    #[must_use]
    pub const fn new(site: Site, never: &'static [Never]) -> Self {
        Self { site, never }
    }

    /// Why it cannot end like this, if it cannot.
    #[must_use]
    pub fn why_not(&self, outcome: Outcome) -> Option<&'static str> {
        self.never.iter().find(|(never, _)| never.contains(&outcome)).map(|(_, why)| *why)
    }

    /// A call for so many pages can end like this, and not just like another outcome.
    #[must_use]
    pub fn can(&self, outcome: Outcome, pages: u64) -> bool {
        self.why_not(outcome).is_none() && outcome.fits(pages)
    }
}

const WHOLE: Never = (&[First, Most, All, Cleared], "names no range: it is done or not");
const NUMBER: Never = (&[One], "answers a number, and 1 is one");
const BUT_EFAULT: &[Outcome] =
    &[Eperm, Enoent, Enomem, Ebusy, Einval, Enxio, One, First, Most, All, Cleared];

/// The requests of [`RawHost`] and [`RawContainer`].
pub const REQUESTS: &[Row] = &[
    Row::new("open", &[WHOLE, (&[One], "answers a file")]),
    Row::new("open group", &[WHOLE]),
    Row::new("GROUP_GET_STATUS", &[WHOLE, NUMBER]),
    Row::new("GROUP_SET_CONTAINER", &[WHOLE]),
    Row::new("SET_IOMMU", &[WHOLE]),
    Row::new("TCE_GET_INFO", &[WHOLE]),
    Row::new("ENABLE", &[WHOLE]),
    Row::new("DISABLE", &[WHOLE]),
    Row::new(
        "REGISTER_MEMORY",
        &[
            (&[First], "+1 is the same: it answers how many pages it could pin"),
            (&[All, Cleared], "Linux keeps none of a range that it cannot pin whole"),
        ],
    ),
    Row::new("UNREGISTER_MEMORY", &[WHOLE]),
    Row::new("TCE_CREATE", &[(&[First, Most, Cleared], "names no range")]),
    Row::new("TCE_REMOVE", &[WHOLE]),
    Row::new("MAP_DMA", &[]),
    Row::new(
        "UNMAP_DMA",
        &[(&[All, Cleared], "clears anyway; when it has, nothing is left that could fail")],
    ),
    Row::new("EEH_PE_OP", &[WHOLE]),
    Row::new("EEH_PE_OP, state", &[WHOLE, NUMBER]),
    Row::new("GROUP_UNSET_CONTAINER", &[WHOLE]),
    Row::new("close group", &[WHOLE, (&[One], "close(2) answers 0 or an error number")]),
    Row::new("backing of memory", &[(BUT_EFAULT, "answers nothing, without a number")]),
    Row::new("CHECK_EXTENSION", &[(&Outcome::EVERY, "the engine never asks")]),
];

/// Says which calls fail.
pub trait Faults: Send + Sync + fmt::Debug {
    /// What becomes of the next request, which is for so many pages (1 if it names none): one of what
    /// [`Row::can`] allows, or `None` if it is up to the kernel.
    fn outcome(&self, request: &Row, pages: u64) -> Option<Outcome>;
}

/// A process of the simulated kernel, of whose requests some fail.
#[derive(Clone, Debug)]
pub struct FaultyHost {
    process: Arc<Process>,
    faults: Arc<dyn Faults>,
    page: PageShift,
}

impl FaultyHost {
    /// All windows have pages of `page`: what a MAP or an UNMAP has done of its own is counted in them.
    #[must_use]
    pub fn new(process: Arc<Process>, faults: Arc<dyn Faults>, page: PageShift) -> Self {
        Self { process, faults, page }
    }

    /// # Panics
    /// If the request cannot fail like this.
    fn next(&self, site: Site, pages: u64) -> Option<Outcome> {
        let row = REQUESTS.iter().find(|row| row.site == site);
        let row = row.unwrap_or_else(|| panic!("{site}: no row in REQUESTS"));
        let outcome = self.faults.outcome(row, pages)?;
        assert!(row.can(outcome, pages), "{site} for {pages} pages cannot end with {outcome}");
        Some(outcome)
    }
}

impl RawHost for FaultyHost {
    fn label(&self) -> &'static str {
        self.process.label()
    }

    fn open(&self) -> Result<Box<dyn RawContainer>, Errno> {
        if let Some(Err(e)) = self.next("open", 1).map(Outcome::answer) {
            return Err(e);
        }
        let inner = self.process.open_container()?;
        Ok(Box::new(FaultyContainer { inner, host: self.clone() }))
    }

    fn host_page(&self) -> PageShift {
        self.process.host_page()
    }

    fn backing(&self, start: Uaddr, bytes: u64) -> Option<PageShift> {
        match self.next("backing of memory", 1) {
            None => self.process.backing(start, bytes),
            Some(_) => None,
        }
    }

    fn node(&self, group: GroupId) -> Option<u32> {
        self.process.node(group)
    }

    fn locked_bytes(&self) -> u64 {
        self.process.locked_bytes()
    }

    fn memlock(&self) -> Option<u64> {
        self.process.memlock()
    }
}

#[derive(Debug)]
struct FaultyContainer {
    inner: MockContainer,
    host: FaultyHost,
}

impl FaultyContainer {
    /// A request that is done or not.
    fn ask(&self, site: Site, arrive: impl FnOnce() -> Raw) -> Raw {
        self.host.next(site, 1).map_or_else(arrive, Outcome::answer)
    }

    fn pages(&self, bytes: u64) -> u64 {
        bytes >> self.host.page.get()
    }

    fn bytes(&self, pages: u64) -> u64 {
        pages << self.host.page.get()
    }
}

/// The part of a request that is done before it fails. The engine sends none that would be refused.
fn do_part(part: Raw) {
    assert_eq!(part, Ok(0), "a part of a request that would have been refused anyway");
}

impl RawContainer for FaultyContainer {
    fn check_extension(&self, extension: u32) -> Raw {
        self.ask("CHECK_EXTENSION", || self.inner.check_extension(extension))
    }

    fn set_iommu(&self, kind: u32) -> Raw {
        self.ask("SET_IOMMU", || self.inner.set_iommu(kind))
    }

    fn open_group(&self, group: GroupId) -> Raw {
        self.ask("open group", || self.inner.open_group(group))
    }

    /// Linux closes a file whatever it answers.
    fn close_group(&self, group: GroupId) -> Raw {
        let closed = self.inner.close_group(group);
        self.ask("close group", || closed)
    }

    fn group_status(&self, group: GroupId) -> Result<u32, Errno> {
        match self.host.next("GROUP_GET_STATUS", 1) {
            None => self.inner.group_status(group),
            Some(outcome) => outcome.answer().map(|flags| flags as u32),
        }
    }

    fn set_container(&self, group: GroupId) -> Raw {
        self.ask("GROUP_SET_CONTAINER", || self.inner.set_container(group))
    }

    fn unset_container(&self, group: GroupId) -> Raw {
        self.ask("GROUP_UNSET_CONTAINER", || self.inner.unset_container(group))
    }

    fn info(&self, info: &mut TceInfo) -> Raw {
        self.ask("TCE_GET_INFO", || self.inner.info(info))
    }

    fn enable(&self) -> Raw {
        self.ask("ENABLE", || self.inner.enable())
    }

    fn disable(&self) -> Raw {
        self.ask("DISABLE", || self.inner.disable())
    }

    /// Of a range with a hole Linux answers how many pages it could pin, and keeps none of them.
    fn register(&self, arg: &RegisterMemory) -> Raw {
        let pages = arg.size >> self.host.host_page().get();
        match self.host.next("REGISTER_MEMORY", pages) {
            None => self.inner.register(arg),
            Some(outcome) => match outcome.done(pages) {
                Some(pinned) => Ok(pinned as i32),
                None => outcome.answer(),
            },
        }
    }

    fn unregister(&self, arg: &RegisterMemory) -> Raw {
        self.ask("UNREGISTER_MEMORY", || self.inner.unregister(arg))
    }

    fn create(&self, arg: &mut TceCreate) -> Raw {
        match self.host.next("TCE_CREATE", 1) {
            None => self.inner.create(arg),
            Some(All) => self.inner.create(arg).and(All.answer()),
            Some(outcome) => outcome.answer(),
        }
    }

    fn remove(&self, arg: &TceRemove) -> Raw {
        self.ask("TCE_REMOVE", || self.inner.remove(arg))
    }

    fn map(&self, arg: &DmaMap) -> Raw {
        let pages = self.pages(arg.size);
        let Some(outcome) = self.host.next("MAP_DMA", pages) else { return self.inner.map(arg) };
        if let Some(done) = outcome.done(pages) {
            let size = self.bytes(done);
            do_part(self.inner.map(&DmaMap { size, ..*arg }));
            if outcome == Cleared {
                do_part(self.inner.unmap(&mut DmaUnmap::new(arg.iova, size)));
            }
        }
        outcome.answer()
    }

    fn unmap(&self, arg: &mut DmaUnmap) -> Raw {
        let pages = self.pages(arg.size);
        let Some(outcome) = self.host.next("UNMAP_DMA", pages) else {
            return self.inner.unmap(arg);
        };
        if let Some(done) = outcome.done(pages) {
            do_part(self.inner.unmap(&mut DmaUnmap { size: self.bytes(done), ..*arg }));
        }
        outcome.answer()
    }

    fn eeh(&self, arg: &EehPeOp) -> Raw {
        let site = if arg.op == eeh_op::GET_STATE { "EEH_PE_OP, state" } else { "EEH_PE_OP" };
        self.ask(site, || self.inner.eeh(arg))
    }

    fn fault(&self, request: Request) -> Raw {
        self.inner.fault(request)
    }
}
