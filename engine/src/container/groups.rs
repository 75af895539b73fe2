// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Groups that join and leave. A member has all windows of the container or is none.

use std::time::{Duration, Instant};

use super::isolate::Side;
use super::{Container, Member, State};
use crate::addr::{GroupId, Ioba, PageSizes};
use crate::backend::{Backend, GroupCaps, MAX_WINDOWS};
use crate::engine::DetachPolicy;
use crate::error::{AttachError, BackendError};
use crate::sabotage::{Guard, stands};
use crate::sync::lock;

/// What every member of a container can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedCaps {
    /// Page sizes that all offer.
    pub page_sizes: PageSizes,
    /// Most levels that all can walk.
    pub max_levels: u32,
    /// Where the windows begin, the same for all.
    pub window_starts: [Option<Ioba>; MAX_WINDOWS],
}

/// What all members can do, kept so that a further one costs as much as the second.
#[derive(Clone, Copy)]
pub(super) struct Common {
    caps: SharedCaps,
    default_bytes: u64,
    can_share_tables: bool,
    /// What some member can do, or could.
    any_page_sizes: PageSizes,
    most_levels: u32,
}

impl From<&GroupCaps> for Common {
    fn from(member: &GroupCaps) -> Self {
        Self {
            caps: SharedCaps {
                page_sizes: member.page_sizes,
                max_levels: member.max_levels,
                window_starts: member.window_starts,
            },
            default_bytes: member.default_bytes,
            can_share_tables: member.can_share_tables,
            any_page_sizes: member.page_sizes,
            most_levels: member.max_levels,
        }
    }
}

impl Common {
    /// The intersection; the order does not matter. Members with other starts, or another default
    /// window, were refused when they wanted to join.
    fn and(self, member: &GroupCaps) -> Self {
        Self {
            caps: SharedCaps {
                page_sizes: self.caps.page_sizes.intersect(member.page_sizes),
                max_levels: self.caps.max_levels.min(member.max_levels),
                ..self.caps
            },
            can_share_tables: self.can_share_tables && member.can_share_tables,
            any_page_sizes: PageSizes(self.any_page_sizes.0 | member.page_sizes.0),
            most_levels: self.most_levels.max(member.max_levels),
            ..self
        }
    }

    /// True if without this member the others might have more in common.
    fn limited_by(&self, member: &GroupCaps) -> bool {
        member.page_sizes != self.any_page_sizes
            || member.max_levels != self.most_levels
            || !member.can_share_tables
    }
}

impl State {
    pub(super) fn caps(&self) -> Option<SharedCaps> {
        self.common.map(|common| common.caps)
    }

    fn push_member(&mut self, group: GroupId, caps: GroupCaps) {
        self.common = Some(self.common.map_or_else(|| (&caps).into(), |all| all.and(&caps)));
        if self.members.is_empty() {
            // For all PEs of a PHB3. What is not touched costs nothing, and growing step by step does.
            self.members.reserve(256);
            self.member_ids.reserve(256);
        }
        self.members.push(Member { group, caps });
        self.member_ids.push(group);
    }

    fn remove_member(&mut self, at: usize) -> GroupId {
        let Member { group, caps } = self.members.remove(at);
        self.member_ids.remove(at);
        match self.members.split_first() {
            None => self.common = None,
            Some((first, others)) if self.common.is_some_and(|all| all.limited_by(&caps)) => {
                let all =
                    others.iter().fold((&first.caps).into(), |all: Common, m| all.and(&m.caps));
                self.common = Some(all);
            }
            Some(_) => {}
        }
        group
    }
}

impl Container {
    /// What all members offer, or `None` without a member.
    #[must_use]
    pub fn caps(&self) -> Option<SharedCaps> {
        self.state.read().caps()
    }

    /// Makes a group a member: it gets every window of the container, with all that is mapped.
    ///
    /// # Errors
    /// [`AttachError`]; the group, the other members and the books are as before.
    pub fn attach(&self, group: GroupId) -> Result<Attached, AttachError> {
        self.engine.same_process()?;
        let _structure = lock(&self.structure);
        let mut state = self.alone();
        if let Err(owner) = self.engine.own(group, self.id) {
            let ours = owner == self.id;
            let refuse = if ours { AttachError::Member } else { AttachError::Elsewhere };
            return Err(refuse(group));
        }
        let joined = self.join(&mut state, group);
        let (caps, done) = joined.inspect_err(|_| self.engine.disown(group))?;
        state.push_member(group, caps);
        Ok(done)
    }

    /// Takes a group out. When the last one leaves, the address space ends: windows are removed
    /// and regions given back. Where a kernel may empty the windows of those that stay, the engine's
    /// [`DetachPolicy`] decides.
    ///
    /// # Errors
    /// [`AttachError::NotMember`] and [`AttachError::Shared`] change nothing; with
    /// [`AttachError::Replay`] the group has left.
    pub fn detach(&self, group: GroupId) -> Result<Detached, AttachError> {
        self.engine.same_process()?;
        let _structure = lock(&self.structure);
        let mut state = self.alone();
        let Some(at) = state.members.iter().position(|m| m.group == group) else {
            return Err(AttachError::NotMember(group));
        };
        let others = state.members.len() - 1;
        let clears = self.engine.caps.tables.kernel().is_some_and(|kernel| kernel.detach_clears);
        let shared = others > 0 && clears && matches!(self.space, Side::Shared(_));
        if shared && self.engine.detach == DetachPolicy::RefuseWhileShared {
            return Err(AttachError::Shared { group, others });
        }
        if others == 0 {
            self.end(&mut state);
        }
        self.leave(&mut state, at);
        let mut done = Detached::default();
        if shared && stands(Guard::Replay) {
            let begin = Instant::now();
            let replayed = self.call_on(&state, |call| call.replay(&mut done));
            done.time = begin.elapsed();
            replayed.map_err(|lost| AttachError::Replay { group, lost })?;
        }
        Ok(done)
    }

    /// Takes every group out, and everything else before. Does nothing in a process that a fork has
    /// made.
    pub fn close(&self) {
        if self.engine.same_process().is_err() {
            return;
        }
        let _structure = lock(&self.structure);
        let mut state = self.alone();
        self.end(&mut state);
        while let Some(last) = state.members.len().checked_sub(1) {
            self.leave(&mut state, last);
        }
    }

    /// Ends the address space while there are members that can be killed.
    fn end(&self, state: &mut State) {
        if !stands(Guard::UnpinLast) {
            state.registrations.unpin(&*self.engine.backend);
        }
        for slot in 0..MAX_WINDOWS {
            self.drop_window(state, slot);
        }
        for region in state.registrations.take_all() {
            self.give_back(region);
        }
    }

    fn leave(&self, state: &mut State, at: usize) {
        let group = state.remove_member(at);
        unprogram(&*self.engine.backend, state, group);
        self.space.detach(group);
        state.forget_charges(group);
        self.engine.disown(group);
    }

    fn join(
        &self,
        state: &mut State,
        group: GroupId,
    ) -> Result<(GroupCaps, Attached), AttachError> {
        let backend = &*self.engine.backend;
        let caps = backend.group(group)?;
        compatible(state, group, &caps, matches!(self.space, Side::Shared(_)))?;
        if let Side::Each(each) = &self.space {
            return Ok((caps, self.join_alone(each, state, group)?));
        }
        // The platform's container last: on some kernels, to leave it again empties the members' windows.
        program(backend, state, group)?;
        if let Err(e) = self.space.attach(group) {
            unprogram(backend, state, group);
            return Err(e.error.into());
        }
        Ok((caps, Attached::default()))
    }
}

/// What an attach took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attached {
    /// Live entries that were mapped once more, for this group
    /// ([`DetachPolicy::Isolate`](crate::engine::DetachPolicy::Isolate)).
    pub replayed: u64,
    /// Requests to the kernel for them.
    pub ioctls: u64,
    /// Time of those requests.
    pub time: Duration,
}

/// What a detach took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Detached {
    /// Entries of the groups that stay which were mapped again.
    pub replayed: u64,
    /// Requests to the kernel for them.
    pub ioctls: u64,
    /// Windows that were left to KVM and hence not replayed.
    pub skipped: u32,
    /// Time of the replay: so long the devices of the groups that stay may have found nothing.
    pub time: Duration,
}

/// Refuses a group that could not have the members' windows; `shared_tables` if by the very same tables.
fn compatible(
    state: &State,
    group: GroupId,
    caps: &GroupCaps,
    shared_tables: bool,
) -> Result<(), AttachError> {
    let refuse = |reason: String| Err(AttachError::Incompatible { group, reason });
    let Some(common) = &state.common else { return Ok(()) };
    let shared = common.caps;
    if shared_tables && !(caps.can_share_tables && common.can_share_tables) {
        return refuse("its PE, or a member's, cannot use a table of others".to_owned());
    }
    if caps.window_starts != shared.window_starts && stands(Guard::SameStarts) {
        let show = |starts: [Option<Ioba>; MAX_WINDOWS]| {
            let each = starts.map(|s| s.map_or("none".to_owned(), |s| s.to_string()));
            each.join(" and ")
        };
        let (its, ours) = (show(caps.window_starts), show(shared.window_starts));
        return refuse(format!("its windows start at {its}, the members' at {ours}"));
    }
    if caps.default_bytes != common.default_bytes {
        let (its, ours) = (caps.default_bytes, common.default_bytes);
        return refuse(format!(
            "the window it comes with has {its:#x} bytes, a member's {ours:#x}"
        ));
    }
    if shared.page_sizes.intersect(caps.page_sizes) == PageSizes(0) {
        let (its, ours) = (caps.page_sizes, shared.page_sizes);
        return refuse(format!("it offers pages of {its}, the members {ours}: none in common"));
    }
    for window in state.windows.iter().flatten() {
        let geometry = window.table.geometry();
        if !caps.page_sizes.contains(geometry.page()) {
            let (page, offered) = (geometry.page(), caps.page_sizes);
            return refuse(format!(
                "the window at {} has {page} pages, it offers {offered}",
                window.start
            ));
        }
        if geometry.levels() > caps.max_levels {
            let (levels, offered) = (geometry.levels(), caps.max_levels);
            return refuse(format!(
                "the window at {} has {levels} levels, it walks {offered}",
                window.start
            ));
        }
    }
    Ok(())
}

/// Takes ownership and sets every window, or undoes what it did.
fn program(backend: &dyn Backend, state: &State, group: GroupId) -> Result<(), BackendError> {
    backend.take_ownership(group)?;
    // What the PE cached in its former life must be gone before it can translate.
    forget(backend, group);
    let mut set = Vec::with_capacity(MAX_WINDOWS);
    for window in state.windows.iter().flatten() {
        if let Err(e) = backend.set_window(group, window.slot, &window.program()) {
            undo(backend, group, &set);
            backend.release_ownership(group);
            return Err(e);
        }
        set.push(window.slot);
    }
    Ok(())
}

/// Unsets every window of a leaving group and gives it back.
fn unprogram(backend: &dyn Backend, state: &State, group: GroupId) {
    let set: Vec<_> = state.windows.iter().flatten().map(|w| w.slot).collect();
    undo(backend, group, &set);
    backend.release_ownership(group);
}

/// Unsets exactly these slots, and waits until the PE has forgotten them.
fn undo(backend: &dyn Backend, group: GroupId, slots: &[usize]) {
    slots.iter().for_each(|slot| backend.unset_window(group, *slot));
    forget(backend, group);
}

/// Returns when the PE has forgotten everything.
fn forget(backend: &dyn Backend, group: GroupId) {
    if stands(Guard::Forget) {
        backend.kill(group, backend.caps().tables.kill_of_pe());
    }
    backend.fence();
}
