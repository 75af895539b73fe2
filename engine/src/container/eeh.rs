// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What error handling says of the members' PEs.

use super::Container;
use crate::addr::GroupId;
use crate::error::EehError;

/// The state of a PE. In any but the first its devices reach nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EehState {
    /// All is well.
    Normal,
    /// It is being reset.
    InReset,
    /// Neither loads and stores nor DMA.
    Stopped,
    /// Loads and stores, but no DMA.
    DmaStopped,
    /// It has been given up.
    Unavailable,
    /// A number that has no name here.
    Other(i32),
}

impl From<i32> for EehState {
    fn from(state: i32) -> Self {
        match state {
            0 => Self::Normal,
            1 => Self::InReset,
            2 => Self::Stopped,
            4 => Self::DmaStopped,
            5 => Self::Unavailable,
            other => Self::Other(other),
        }
    }
}

impl Container {
    /// The state of each member's PE. A kernel's container goes through its groups and answers with
    /// the first state that is not normal, without a word on whose it is: of several members it
    /// cannot be told.
    ///
    /// # Errors
    /// [`EehError`].
    pub fn eeh_states(&self) -> Result<Vec<(GroupId, EehState)>, EehError> {
        let state = self.state.read();
        match &state.members[..] {
            [] => Err(EehError::NoGroup),
            [member] => Ok(vec![(member.group, self.space.eeh_state()?.into())]),
            members => Err(EehError::Ambiguous { members: members.len() }),
        }
    }
}
