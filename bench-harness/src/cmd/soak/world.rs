// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One thread's containers and handles, and the model beside them: each call is made on both.

mod addresses;
mod audit;
mod compare;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tce_engine::addr::{GroupId, Ioba, PeNumber, Uaddr};
use tce_engine::backend::FillRule;
use tce_engine::container::{Container, MapRequest, Mapper, Mode, Receipt, UnmapRequest};
use tce_engine::error::{AttachError, MapError, UnmapError};
use tce_engine::ioba::IobaAllocator;
use tce_engine::kill::KillPolicy;
use tce_engine::{Engine, Mock};

use super::call::{By, Call};
use super::drift::Took;
use super::machine::Machine;
use super::model::Model;
pub(super) use addresses::space;
use compare::{Expect, expect, same};

/// What was not as the model has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) expected: String,
    pub(super) got: String,
}

/// Whether a call was done or refused, as it had to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Refused,
}

/// A container of the thread's.
pub(super) struct Real {
    pub(super) container: Arc<Container>,
    pub(super) handles: Vec<Mapper>,
    /// The allocator of the first handle, if it has one.
    pub(super) addresses: Option<Arc<IobaAllocator>>,
    /// Runs that were freed and are owed unless there has been a settlement: start, pages, settlements then.
    owed: Vec<(u64, u64, u64)>,
}

impl Real {
    pub(super) fn new(container: Arc<Container>, handles: usize) -> Self {
        let handles = (0..handles).map(|_| container.mapper()).collect();
        Self { container, handles, addresses: None, owed: Vec::new() }
    }
}

/// How much others interfere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody else uses the engine.
    None,
    /// Others have containers of their own.
    Apart,
    /// Others use the same container. It is this thread that has this place of so many.
    Shared { nth: u32, of: u32 },
}

/// See the [module](self).
pub(super) struct World<'a> {
    pub(super) mock: &'a Mock,
    pub(super) engine: &'a Engine,
    pub(super) machine: Machine,
    pub(super) policy: KillPolicy,
    pub(super) company: Company,
    pub(super) first_group: u32,
    pub(super) real: Vec<Real>,
    pub(super) model: Model,
    /// Calls so far.
    pub(super) calls: u64,
    pub(super) entries_compared: u64,
    /// Single maps and unmaps that were done.
    pub(super) took: Took,
}

impl World<'_> {
    pub(super) fn shared(&self) -> bool {
        matches!(self.company, Company::Shared { .. })
    }

    /// True if each call kills what it has to, and nobody else changes who the members are.
    fn counts_kills(&self, by: By) -> bool {
        // Where not every fill kills, one that meets somebody's debt does.
        let marks = self.machine.fill != FillRule::Always;
        !self.shared() && (self.policy == KillPolicy::Strict || by == By::Anybody && !marks)
    }

    /// Makes a call.
    pub(super) fn make(&mut self, call: &Call) -> Result<Outcome, Wrong> {
        self.calls += 1;
        let looks = self.company == Company::None && self.calls.is_multiple_of(64);
        let before = looks.then(|| self.mock.register_stores());
        let outcome = match call {
            Call::Map(side, by, request, mode) => self.map(*side, *by, request, *mode, before),
            Call::List(side, by, at, pages, perm, mode) => {
                let real = &mut self.real[*side];
                let got = match by {
                    By::Anybody => real.container.map_list(*at, pages, *perm, *mode),
                    By::Handle(nth) => real.handles[*nth].map_list(*at, pages, *perm, *mode),
                };
                let expected = self.model.map_list(*side, *at, pages, *perm, *mode);
                let outcome = self.mapped(*by, got, expected, before)?;
                self.translations(*side, *at, pages.len() as u64, outcome)
            }
            Call::Batch(side, by, requests, mode) => {
                let real = &mut self.real[*side];
                let got = match by {
                    By::Anybody => real.container.map_batch(requests, *mode),
                    By::Handle(nth) => real.handles[*nth].map_batch(requests, *mode),
                };
                let expected = self.model.map_batch(*side, requests, *mode);
                let outcome = self.mapped(*by, got, expected, before)?;
                for request in requests {
                    self.translations(*side, request.at, 1, outcome)?;
                }
                Ok(outcome)
            }
            Call::Unmap(side, by, request) => self.unmap(*side, *by, request, before),
            Call::UnmapBatch(side, by, requests) => {
                let real = &mut self.real[*side];
                let got = match by {
                    By::Anybody => real.container.unmap_batch(requests),
                    By::Handle(nth) => real.handles[*nth].unmap_batch(requests),
                };
                let expected = self.model.unmap_batch(*side, requests);
                let outcome = self.unmapped(*by, got, expected, before)?;
                for request in requests {
                    self.translations(*side, request.at, 1, outcome)?;
                }
                Ok(outcome)
            }
            Call::Alloc(side, handle, memory, bytes, perm) => self.alloc(
                *side,
                *handle,
                MapRequest { at: Ioba(0), memory: *memory, bytes: *bytes, perm: *perm },
            ),
            Call::Free(side, handle, request) => self.free(*side, *handle, request),
            Call::Submit(side, handle) => {
                let handle = &mut self.real[*side].handles[*handle];
                handle.submit();
                let owed = (handle.owed(), handle.held_back());
                same("owed and held back after submit", &(0, 0), &owed)
            }
            Call::Retire(side) => {
                self.real[*side].container.retire_debts(Duration::ZERO);
                self.nothing_owed(*side)
            }
            _ if call.is_structural() => self.change(call),
            _ => self.look(call),
        };
        let outcome = outcome?;
        if let (By::Handle(nth), Some(side)) = who(call) {
            self.within_limits(side, nth)?;
        }
        Ok(outcome)
    }

    fn map(
        &mut self,
        side: usize,
        by: By,
        request: &MapRequest,
        mode: Mode,
        before: Option<u64>,
    ) -> Result<Outcome, Wrong> {
        let MapRequest { at, memory, bytes, perm } = *request;
        let real = &mut self.real[side];
        let begin = Instant::now();
        let got = match by {
            By::Anybody => real.container.map(at, memory, bytes, perm, mode),
            By::Handle(nth) => real.handles[nth].map(at, memory, bytes, perm, mode),
        };
        got.iter().for_each(|_| self.took.note(begin));
        let expected = self.model.map(side, request, mode);
        let pages = got.as_ref().map_or(1, |receipt| receipt.tces);
        let outcome = self.mapped(by, got, expected, before)?;
        self.translations(side, at, pages, outcome)
    }

    fn unmap(
        &mut self,
        side: usize,
        by: By,
        request: &UnmapRequest,
        before: Option<u64>,
    ) -> Result<Outcome, Wrong> {
        let real = &mut self.real[side];
        let begin = Instant::now();
        let got = match by {
            By::Anybody => real.container.unmap(request.at, request.bytes),
            By::Handle(nth) => real.handles[nth].unmap(request.at, request.bytes),
        };
        got.iter().for_each(|_| self.took.note(begin));
        let expected = self.model.unmap(side, request.at, request.bytes);
        let outcome = self.unmapped(by, got, expected, before)?;
        let pages = self.pages(side, request.at, request.bytes);
        self.translations(side, request.at, pages, outcome)
    }

    /// The pages of a bus range, if a window has them.
    fn pages(&self, side: usize, at: Ioba, bytes: u64) -> u64 {
        self.model.window_below(side, at).map_or(0, |(_, window)| bytes >> window.page.get())
    }

    fn mapped(
        &self,
        by: By,
        got: Result<Receipt, MapError>,
        expected: Result<super::model::Done, MapError>,
        before: Option<u64>,
    ) -> Result<Outcome, Wrong> {
        if let (Err(MapError::BatchOverlap(..)), Err(MapError::BatchOverlap(..))) =
            (&got, &expected)
        {
            // Which of the pairs is named depends on what was joined before.
            return Ok(Outcome::Refused);
        }
        self.receipt(by, got, expected, before)
    }

    fn unmapped(
        &self,
        by: By,
        got: Result<Receipt, UnmapError>,
        expected: Result<super::model::Done, UnmapError>,
        before: Option<u64>,
    ) -> Result<Outcome, Wrong> {
        if let (Err(UnmapError::BatchOverlap(..)), Err(UnmapError::BatchOverlap(..))) =
            (&got, &expected)
        {
            return Ok(Outcome::Refused);
        }
        self.receipt(by, got, expected, before)
    }

    fn receipt<E: std::fmt::Debug + PartialEq>(
        &self,
        by: By,
        got: Result<Receipt, E>,
        expected: Result<super::model::Done, E>,
        before: Option<u64>,
    ) -> Result<Outcome, Wrong> {
        let kills = self.counts_kills(by);
        let issued = got.as_ref().map_or(0, |receipt| receipt.kills.issued);
        let outcome = expect(expected, got, Expect { kills })?;
        match before {
            Some(before) if kills => {
                let stores = self.mock.register_stores() - before;
                same("stores to kill registers", &issued, &stores)?;
            }
            _ => {}
        }
        Ok(outcome)
    }

    /// Groups, windows and registrations.
    fn change(&mut self, call: &Call) -> Result<Outcome, Wrong> {
        let outcome = match *call {
            Call::Attach(side, group) => {
                let got = self.real[side].container.attach(group).map(drop);
                let expected = self.model.attach(side, group);
                same("attach", &expected.map_err(bare), &got.map_err(bare))
            }
            Call::Detach(side, group) => {
                let got = self.real[side].container.detach(group).map(drop);
                let outcome = same("detach", &self.model.detach(side, group), &got)?;
                self.forget_addresses(side);
                Ok(outcome)
            }
            Call::Create(side, spec) => {
                let got = self.real[side].container.create_window(spec);
                let expected = self.model.create(side, spec);
                let shape = |slot| {
                    let window = self.model.window(side, slot);
                    (Ioba(window.start), window.page, window.shape)
                };
                let expected = expected.map(shape);
                let got = got.map(|info| compare::shape_of(&info));
                let outcome = same("create_window", &expected, &got)?;
                self.give_addresses(side);
                Ok(outcome)
            }
            Call::Remove(side, start, removal) => {
                let got = self.real[side].container.remove_window(start, removal);
                let expected = self.model.remove(side, start, removal);
                let expected = expected.map(|(_, done)| done);
                let outcome = expect(expected, got, Expect { kills: true })?;
                self.forget_addresses(side);
                Ok(outcome)
            }
            Call::Register(side, start, bytes) => {
                let got = self.real[side].container.register(start, bytes);
                same("register", &self.model.register(side, start, bytes), &got)
            }
            Call::Unregister(side, start, bytes) => {
                let got = self.real[side].container.unregister(start, bytes);
                same("unregister", &self.model.unregister(side, start, bytes), &got)
            }
            Call::Close(side) => {
                self.real[side].container.close();
                self.model.close(side);
                self.forget_addresses(side);
                Ok(Outcome::Done)
            }
            _ => unreachable!("{call:?} changes no structure"),
        };
        let outcome = outcome?;
        self.books()?;
        Ok(outcome)
    }

    /// Questions.
    fn look(&mut self, call: &Call) -> Result<Outcome, Wrong> {
        match *call {
            Call::Requested(side, at) => {
                let got = self.real[side].container.requested(at).map(|(_, perm)| perm);
                same("requested", &self.requested(side, at), &got)
            }
            Call::Resolve(side, start, bytes) => self.resolve(side, start, bytes),
            Call::WindowFor(side, mask) => {
                let got = self.real[side].container.window_for(mask);
                let got = got.map(|reach| (reach.window.start, reach.bytes));
                same("window_for", &self.model.window_for(side, mask), &got)
            }
            _ => unreachable!("{call:?} is no question"),
        }
    }

    fn resolve(&mut self, side: usize, start: Uaddr, bytes: u64) -> Result<Outcome, Wrong> {
        let got = self.real[side].container.resolve(start, bytes);
        let Some(end) = start.0.checked_add(bytes) else {
            return expect_error(got, &MapError::NotRegistered { at: start });
        };
        let mut at = start.0;
        while at < end {
            match self.model.region_of(side, at) {
                Some((first, region)) => at = first + region.bytes,
                None => return expect_error(got, &MapError::NotRegistered { at: Uaddr(at) }),
            }
        }
        let extents = match got {
            Ok(extents) => extents,
            Err(error) => return Err(Wrong::new("resolve", "extents", &format!("{error:?}"))),
        };
        let mut at = start.0;
        for extent in extents {
            let owner = self.mock.owner(extent.at);
            let there = owner.map(|(memory, offset)| memory.start() + offset);
            same("extent", &Some(at), &there)?;
            at += extent.bytes;
        }
        same("end of the extents", &end, &at)
    }

    /// Entries of a window that this thread chooses from. Others' parts are theirs, and where addresses are
    /// handed out nobody chooses any.
    pub(super) fn territory(&self, side: usize, slot: usize) -> Range<u64> {
        let entries = self.model.window(side, slot).shape.entries;
        let hands_out = slot == 0 && (self.shared() || self.real[side].addresses.is_some());
        let end = if hands_out { entries / 2 } else { entries };
        match self.company {
            Company::Shared { nth, of } => {
                let (nth, part) = (u64::from(nth), end / u64::from(of));
                nth * part..(nth + 1) * part
            }
            _ => 0..end,
        }
    }

    /// A PE through which the container's windows are looked at.
    fn member_pe(&self, side: usize, nth: u64) -> Option<PeNumber> {
        let members = &self.model.sides[side].members;
        if members.is_empty() {
            return None;
        }
        let GroupId(group) = members[(nth % members.len() as u64) as usize];
        Some(PeNumber(group as u16))
    }
}

/// The error without what is only text.
fn bare(error: AttachError) -> AttachError {
    match error {
        AttachError::Incompatible { group, .. } => {
            AttachError::Incompatible { group, reason: String::new() }
        }
        other => other,
    }
}

impl Wrong {
    pub(super) fn new(what: &str, expected: &str, got: &str) -> Self {
        Self { what: what.to_owned(), expected: expected.to_owned(), got: got.to_owned() }
    }
}

fn expect_error<T, E>(got: Result<T, E>, expected: &E) -> Result<Outcome, Wrong>
where
    T: std::fmt::Debug,
    E: std::fmt::Debug + PartialEq,
{
    match got {
        Err(error) if error == *expected => Ok(Outcome::Refused),
        other => Err(Wrong::new("the error", &format!("{expected:?}"), &format!("{other:?}"))),
    }
}

/// The container and the handle that make a call.
fn who(call: &Call) -> (By, Option<usize>) {
    match call {
        Call::Map(side, by, ..)
        | Call::List(side, by, ..)
        | Call::Batch(side, by, ..)
        | Call::Unmap(side, by, ..)
        | Call::UnmapBatch(side, by, ..) => (*by, Some(*side)),
        Call::Alloc(side, handle, ..) | Call::Free(side, handle, ..) => {
            (By::Handle(*handle), Some(*side))
        }
        _ => (By::Anybody, None),
    }
}
