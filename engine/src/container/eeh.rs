// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Error handling of the members' PEs, each for itself.

use super::isolate::Side;
use super::{Container, State};
use crate::addr::GroupId;
use crate::eeh::{EehOp, EehState};
use crate::error::{BackendError, EehError};

/// What became of each member, in order of joining: as many as the container has groups.
pub type EehResults<T = ()> = Vec<(GroupId, Result<T, BackendError>)>;

impl Container {
    /// Does `op` to each member's PE. All of them are tried, whatever becomes of the others, so there
    /// is one result for each group.
    ///
    /// A kernel's container does it to its groups in turn, until one fails: with several members it
    /// is not asked, unless each has one of its own
    /// ([`DetachPolicy::Isolate`](crate::engine::DetachPolicy::Isolate)).
    ///
    /// # Errors
    /// [`EehError`]; nothing was done to any of them.
    pub fn eeh(&self, op: EehOp) -> Result<EehResults, EehError> {
        // Held by all, so that no group joins or leaves meanwhile.
        let state = self.state.read();
        let alone = self.asked_alone(&state, Some(op))?;
        Ok(each(&state, |group| self.eeh_one(alone, group, op)))
    }

    /// Does `op` to the PE of one member, and nothing to the others.
    ///
    /// # Errors
    /// [`EehError`]; of a kernel's container, also if it has several members.
    pub fn eeh_of(&self, group: GroupId, op: EehOp) -> Result<(), EehError> {
        let state = self.state.read();
        if !state.member_ids.is_empty() && !state.member_ids.contains(&group) {
            return Err(EehError::NotMember(group));
        }
        let alone = self.asked_alone(&state, Some(op))?;
        Ok(self.eeh_one(alone, group, op)?)
    }

    /// The state of each member's PE. A kernel's container goes through its groups and answers with
    /// the first state that is not normal, without a word on whose it is: of several members it
    /// cannot be told.
    ///
    /// # Errors
    /// [`EehError`].
    pub fn eeh_states(&self) -> Result<EehResults<EehState>, EehError> {
        let state = self.state.read();
        let alone = self.asked_alone(&state, None)?;
        Ok(each(&state, |group| {
            if alone {
                return Ok(self.space.of(group, |space| space.eeh_state())?.into());
            }
            self.engine.backend.eeh_state(group)
        }))
    }

    fn eeh_one(&self, alone: bool, group: GroupId, op: EehOp) -> Result<(), BackendError> {
        if alone {
            self.space.of(group, |space| space.eeh(op))
        } else {
            self.engine.backend.eeh(group, op)
        }
    }

    /// True if a kernel is to be asked, about the only group of each of its containers.
    fn asked_alone(&self, state: &State, op: Option<EehOp>) -> Result<bool, EehError> {
        let kernel = self.engine.caps.tables.kernel().is_some();
        let shared = kernel && matches!(self.space, Side::Shared(_));
        match (state.members.len(), shared, op) {
            (0, ..) => Err(EehError::NoGroup),
            (members @ 2.., true, Some(op)) => Err(EehError::Shared { op, members }),
            (members @ 2.., true, None) => Err(EehError::Ambiguous { members }),
            _ => Ok(kernel),
        }
    }
}

/// One result for each member: nothing here can end the loop.
fn each<T>(
    state: &State,
    f: impl Fn(GroupId) -> Result<T, BackendError>,
) -> Vec<(GroupId, Result<T, BackendError>)> {
    state.member_ids.iter().map(|group| (*group, f(*group))).collect()
}
