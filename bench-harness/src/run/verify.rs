// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compares what every PE translates, page by page, with an independent model of the window.
//!
//! The model is arithmetic on what the phase was told to map; it asks neither the engine nor its
//! table. The other side is a walker that shares nothing with the engine: the mock's over real
//! memory, with the mock's own record of which real page belongs to which address of the buffer, or
//! the simulated kernel's. A real kernel shows its tables to nobody but devices (see
//! [`proof`](super::proof)); of it, the engine's mirror is compared, page by page.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tce_engine::addr::{GroupId, Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::Memory;
use tce_engine::backend::linux::mock_kernel::{DmaFault, MockKernel, ProcessId};
use tce_engine::backend::mock::{Fault, Mock};
use tce_engine::container::Container;
use tce_engine::tce::Perm;

use super::lists::Lists;
use crate::interrupt::interrupted;
use crate::result::Verification;

/// Pages between two looks at the signal flag.
const TURN: u64 = 1 << 14;

/// Which buffer page a window page is mapped to.
#[derive(Clone)]
pub enum Content {
    /// Page `i` to page `i` of the buffer, or so much further as its part says, counted around.
    Around(u64),
    /// As the lists say.
    Lists(Arc<Lists>),
    /// No stretches but single pages, by window and page, each with its page of the buffer.
    Places(Arc<BTreeMap<(usize, u64), u64>>),
}

/// The pages of one thread: its share of the window, and the stretch of it that is mapped. A
/// stretch that ends beyond the share goes on at the share's start.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// First page of the share.
    pub first: u64,
    /// Pages of the share.
    pub count: u64,
    /// Mapped pages, from..to.
    pub mapped: (u64, u64),
    /// The memory of a page lies so many buffer pages behind its own.
    pub shift: u64,
}

/// What every window should look like.
pub struct Model {
    /// Parts, by first page; together the whole window.
    pub parts: Vec<Part>,
    /// What mapped pages hold.
    pub content: Content,
}

impl Model {
    /// The buffer page that page `index` of a window should lead to. All windows are alike, but for
    /// [`Content::Places`].
    pub(super) fn page(&self, window: usize, index: u64) -> Option<u64> {
        if let Content::Places(places) = &self.content {
            return places.get(&(window, index)).copied();
        }
        let part = self.part(index)?;
        let Part { count, mapped: (from, to), .. } = *part;
        let inside = |i: u64| from <= i && i < to;
        (inside(index) || inside(index + count)).then(|| self.content_of(Some(part), index))
    }

    /// The buffer page that window page `index` leads to whenever it is mapped.
    pub(super) fn if_mapped(&self, index: u64) -> u64 {
        self.content_of(self.part(index), index)
    }

    fn content_of(&self, part: Option<&Part>, index: u64) -> u64 {
        match &self.content {
            Content::Around(pages) => (index + part.map_or(0, |part| part.shift)) % pages,
            Content::Lists(lists) => lists.number(index),
            // No place of its own: any page would do.
            Content::Places(_) => 0,
        }
    }

    /// The part that the page is of.
    fn part(&self, index: u64) -> Option<&Part> {
        let at = self.parts.partition_point(|p| p.first <= index).checked_sub(1)?;
        self.parts.get(at)
    }
}

/// Who looks at a window.
pub(crate) enum Eye<'a> {
    /// A PE of the mock.
    Pe(&'a Mock, PeNumber),
    /// A group's device on the simulated kernel, in whose tables it should find memory of the
    /// process.
    Group(&'a MockKernel, ProcessId, GroupId),
    /// Nobody but the engine, whose mirror says what the kernel was told.
    Mirror(&'a Container),
}

impl Eye<'_> {
    fn is_independent(&self) -> bool {
        !matches!(self, Self::Mirror(_))
    }
}

/// A window as one of those sees it.
pub struct Seen<'a> {
    /// Who.
    pub(crate) eye: Eye<'a>,
    /// Where the window starts.
    pub start: Ioba,
    /// Its page size.
    pub page: PageShift,
    /// Its pages.
    pub pages: u64,
    /// The memory that is mapped.
    pub buffer: (Uaddr, u64),
    /// Number of its container.
    pub window: usize,
}

impl Seen<'_> {
    /// What is wrong with the first of some pages that is not as it should be.
    fn wrong(&self, model: &Model, pages: Range<u64>) -> Option<String> {
        let there = |number: u64| Uaddr(self.buffer.0.0 + (number << self.page.get()));
        match &self.eye {
            Eye::Pe(mock, pe) => self.wrong_of_pe(mock, *pe, model, pages),
            Eye::Group(kernel, process, group) => self.first(model, pages, |wanted, at| {
                let got = kernel.translate(*group, at, Perm::NONE);
                let right = match (wanted.map(there), &got) {
                    (None, Err(DmaFault::Empty | DmaFault::NoLevel(_))) => true,
                    (Some(there), Ok(to)) => {
                        (to.process, to.at, to.perm) == (*process, there, Perm::READ_WRITE)
                    }
                    _ => false,
                };
                (!right).then(|| format!("{got:?}"))
            }),
            Eye::Mirror(container) => self.first(model, pages, |wanted, at| {
                let got = container.requested(at);
                let right = match (wanted.map(there), got) {
                    (None, Some((tce, _))) => tce.is_empty(),
                    (Some(there), Some((tce, perm))) => {
                        (tce.address(), perm) == (there.0, Perm::READ_WRITE)
                    }
                    (_, None) => false,
                };
                (!right).then(|| format!("{got:?}"))
            }),
        }
    }

    /// The same, where `unlike` says what was found at an address if that is not the page of the buffer,
    /// or nothing.
    fn first(
        &self,
        model: &Model,
        mut pages: Range<u64>,
        unlike: impl Fn(Option<u64>, Ioba) -> Option<String>,
    ) -> Option<String> {
        pages.find_map(|index| {
            let wanted = model.page(self.window, index);
            unlike(wanted, self.at(index)).map(|got| self.words(wanted, index, &got))
        })
    }

    /// The same of what a PE's walker finds.
    fn wrong_of_pe(
        &self,
        mock: &Mock,
        pe: PeNumber,
        model: &Model,
        pages: Range<u64>,
    ) -> Option<String> {
        let (start, bytes) = self.buffer;
        let memory = Memory::User { start, bytes };
        let mut wrong = None;
        let many = (self.at(pages.start), self.page, pages.end - pages.start);
        mock.probe_pages(pe, many, &mut |nth, got| {
            let index = pages.start + nth;
            let wanted = model.page(self.window, index);
            let right = match (wanted, &got) {
                (None, Err(Fault::Empty { .. } | Fault::NoLevel { .. })) => true,
                (Some(number), Ok((to, owner))) => {
                    to.perm == Perm::READ_WRITE
                        && to.page == self.page
                        && *owner == (memory, number << self.page.get())
                }
                _ => false,
            };
            if !right {
                let got = got.map(|(to, _)| to);
                wrong = Some(self.words(wanted, index, &format!("{got:?}")));
            }
            right
        });
        wrong
    }

    fn at(&self, index: u64) -> Ioba {
        Ioba(self.start.0 + (index << self.page.get()))
    }

    /// Who got that at a page, and what should be there.
    fn words(&self, wanted: Option<u64>, index: u64, got: &str) -> String {
        let who = match &self.eye {
            Eye::Pe(_, pe) => format!("PE {pe}"),
            Eye::Group(.., group) => format!("group {group}"),
            Eye::Mirror(_) => "the mirror".to_owned(),
        };
        let at = self.at(index);
        let wanted = wanted.map_or("nothing".to_owned(), |n| format!("page {n} of the buffer"));
        format!("{who} at {at}: expected {wanted}, got {got}")
    }
}

/// Compares every page of every window, and adds to `sum`. False at the first difference, or if the
/// run was interrupted.
///
/// One thread does it: every step of a walker takes the lock of the mock's memory for reading, and two
/// cores that passed its cache line to and fro took four times as long as one.
pub fn verify(seen: &[Seen<'_>], model: &Model, sum: &mut Verification) -> bool {
    let mut wrong = None;
    for window in seen {
        for first in (0..window.pages).step_by(TURN as usize) {
            if wrong.is_some() || interrupted() {
                break;
            }
            let end = (first + TURN).min(window.pages);
            let independent = window.eye.is_independent();
            let count = if independent { &mut sum.translations } else { &mut sum.mirror_entries };
            *count += end - first;
            wrong = window.wrong(model, first..end);
        }
    }
    sum.passes += 1;
    let right = wrong.is_none() && !interrupted();
    if sum.first_mismatch.is_none() {
        sum.first_mismatch = wrong;
    }
    right
}

/// What is wrong with a window, page by page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// Pages that should be mapped and lead nowhere, or elsewhere.
    pub(crate) lost: u64,
    /// Pages that should be empty and are not.
    pub(crate) stray: u64,
    /// The first of either, in words.
    pub(crate) first: Option<String>,
}

/// Compares pages of a window like [`verify`], but counts all that is wrong. `None` if the run was
/// interrupted.
pub(crate) fn differences(
    window: &Seen<'_>,
    model: &Model,
    pages: impl Iterator<Item = u64>,
    sum: &mut Verification,
) -> Option<Differences> {
    let mut found = Differences::default();
    let mut seen = 0;
    for index in pages {
        if seen % TURN == 0 && interrupted() {
            return None;
        }
        seen += 1;
        let Some(wrong) = window.wrong(model, index..index + 1) else { continue };
        let kind = match model.page(window.window, index) {
            Some(_) => &mut found.lost,
            None => &mut found.stray,
        };
        *kind += 1;
        found.first.get_or_insert(wrong);
    }
    let independent = window.eye.is_independent();
    *(if independent { &mut sum.translations } else { &mut sum.mirror_entries }) += seen;
    sum.passes += 1;
    Some(found)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::cli::{self, Invocation};
    use crate::run::machine::{Machine, What};
    use crate::run::phase::{seen, whole_window};
    use crate::run::rig::{Plan, Rig};
    use tce_engine::backend::linux::mock_kernel::GroupState;
    use tce_engine::container::Mode;

    fn rig(backend: &str) -> Rig {
        let args = "tce-bench --groups 2 --window 64M --levels 2 --buffer 64M --backend";
        let args = args.split(' ').chain([backend]);
        let Ok(Invocation::Run(config)) = cli::parse(args) else { panic!("a plain run") };
        let machine = Machine::open(&config, &mut Vec::new()).unwrap();
        let plan = Plan::new(&config, &machine, None).unwrap();
        Rig::new(&config, &plan, machine).unwrap()
    }

    fn whole(pages: u64, mapped: (u64, u64)) -> Model {
        let parts = vec![Part { first: 0, count: pages, mapped, shift: 0 }];
        Model { parts, content: Content::Around(pages) }
    }

    #[test]
    fn one_flipped_bit_in_one_entry_is_found() {
        let rig = rig("mock");
        let (pages, bytes) = (rig.pages(), rig.buffer.bytes());
        let container = &rig.containers[0];
        let (at, rw) = (rig.start, Perm::READ_WRITE);
        container.map(at, rig.buffer.start(), bytes, rw, Mode::Refuse).unwrap();
        let mut sum = Verification::default();
        let model = whole(pages, (0, pages));
        assert!(verify(&seen(&rig).unwrap(), &model, &mut sum));
        assert_eq!((sum.translations, sum.passes), (2 * pages, 1));

        // One address bit of some leaf entry, in the memory that the PHB walks.
        let chunks = container.table_memory();
        let slots = chunks.iter().flat_map(|c| c.slots());
        let slot = slots.filter(|s| s.load(Ordering::Relaxed) != 0).nth(12_345).unwrap();
        let flip = (1u64 << 21).to_be();
        slot.fetch_xor(flip, Ordering::Relaxed);
        assert!(!verify(&seen(&rig).unwrap(), &model, &mut sum));
        assert!(sum.first_mismatch.as_ref().is_some_and(|m| m.contains("PE 0 at 0x")), "{sum:?}");

        // And right again once it is mended; what was found stays on record.
        slot.fetch_xor(flip, Ordering::Relaxed);
        assert!(verify(&seen(&rig).unwrap(), &model, &mut sum));
        assert!(sum.first_mismatch.is_some());
        container.unmap(at, bytes).unwrap();
        assert!(verify(&seen(&rig).unwrap(), &whole(pages, (0, 0)), &mut sum));
        assert!(!verify(&seen(&rig).unwrap(), &model, &mut sum), "an empty window is not full");
    }

    /// What the kernel's own walker says counts, whatever the engine thinks.
    #[test]
    fn a_group_that_reaches_nothing_is_found() {
        let rig = rig("mock-kernel");
        let What::MockKernel { kernel, .. } = &rig.machine.what else { panic!("asked for") };
        let (pages, bytes) = (rig.pages(), rig.buffer.bytes());
        let (container, rw) = (&rig.containers[0], Perm::READ_WRITE);
        container.map(rig.start, rig.buffer.start(), bytes, rw, Mode::Refuse).unwrap();
        let (mut sum, model) = (Verification::default(), whole(pages, (0, pages)));
        assert!(verify(&seen(&rig).unwrap(), &model, &mut sum), "{sum:?}");
        assert_eq!((sum.translations, sum.mirror_entries), (2 * pages, 0));

        let mirror = |rig: &Rig| {
            let seen = whole_window(rig, 0, Eye::Mirror(&rig.containers[0]));
            verify(&[seen], &model, &mut Verification::default())
        };
        assert!(mirror(&rig));
        kernel.set_group_state(GroupId(1), GroupState::Stopped);
        assert!(!verify(&seen(&rig).unwrap(), &model, &mut sum));
        assert!(sum.first_mismatch.as_ref().is_some_and(|m| m.contains("group 1 at")), "{sum:?}");
        assert!(mirror(&rig), "the engine does not know");
        kernel.set_group_state(GroupId(1), GroupState::Normal);
        container.unmap(rig.bus(7), rig.page().bytes()).unwrap();
        assert!(!verify(&seen(&rig).unwrap(), &model, &mut sum));
        assert!(!mirror(&rig), "one page is missing");
    }

    #[test]
    fn places_are_those_of_their_window() {
        let places = BTreeMap::from([((0, 3), 9), ((1, 4), 9)]);
        let model = Model { parts: Vec::new(), content: Content::Places(Arc::new(places)) };
        for (window, mapped) in [(0, Some(3)), (1, Some(4)), (2, None)] {
            let found = (0..9).find(|index| model.page(window, *index) == Some(9));
            assert_eq!(found, mapped, "{window}");
        }
    }

    #[test]
    fn a_ring_that_wraps_in_its_share() {
        let part = Part { first: 100, count: 50, mapped: (140, 160), shift: 0 };
        let model = Model { parts: vec![part], content: Content::Around(1000) };
        let mapped: Vec<_> = (100..150).filter(|i| model.page(0, *i).is_some()).collect();
        assert_eq!(mapped, (100..110).chain(140..150).collect::<Vec<_>>());
        assert_eq!(model.page(0, 145), Some(145));
        let parts = [0, 900].map(|shift| Part { first: 100 + shift / 18, shift, ..part }).to_vec();
        let model = Model { parts, content: Content::Around(1000) };
        assert_eq!((model.page(0, 145), model.page(0, 150)), (Some(145), Some(50)));
    }
}
