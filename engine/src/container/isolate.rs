// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The platform's side of a container: one container for all members, or one for each
//! ([`DetachPolicy::Isolate`]); and what windows cost in either.

use std::ops::Deref;
use std::time::Instant;

use super::groups::Attached;
use super::{Container, Member, State};
use crate::addr::GroupId;
use crate::backend::per_member::PerMember;
use crate::backend::{CreateError, Space};
use crate::engine::{DetachPolicy, Shared};
use crate::error::{AttachError, LimitError};
use crate::geometry::Geometry;
use crate::ledger::{Charge, ChargeKind};

/// What the platform does for a container.
pub(super) enum Side {
    /// One of its containers, with all groups.
    Shared(Box<dyn Space>),
    /// One for each group.
    Each(PerMember),
}

impl Side {
    pub(super) fn new(engine: &Shared) -> Self {
        let kernel = engine.caps.tables.kernel().is_some();
        if kernel && engine.detach == DetachPolicy::Isolate {
            Self::Each(PerMember::new(engine.backend.clone()))
        } else {
            Self::Shared(engine.backend.space())
        }
    }
}

impl Side {
    /// The container that has the member, alone or among others.
    pub(super) fn of<T>(&self, group: GroupId, f: impl FnOnce(&dyn Space) -> T) -> T {
        let seat = match self {
            Self::Shared(_) => None,
            Self::Each(each) => each.seat(group),
        };
        f(seat.as_deref().unwrap_or(&**self))
    }
}

impl Deref for Side {
    type Target = dyn Space;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Shared(space) => &**space,
            Self::Each(each) => each,
        }
    }
}

/// What one container of the platform is charged with for a window.
pub(super) struct WindowCharge {
    /// Whose container it is, if each member has one.
    of: Option<GroupId>,
    table: Charge,
    /// What a version 1 container pays ahead.
    _ahead: Option<Charge>,
}

impl WindowCharge {
    /// So many bytes of one of them never come back.
    pub(super) fn leak(charges: &mut Vec<Self>, bytes: u64) {
        if bytes > 0
            && let Some(charge) = charges.pop()
        {
            charge.table.leak(bytes);
        }
    }
}

impl State {
    /// A member that had a container of its own has closed it.
    pub(super) fn forget_charges(&mut self, group: GroupId) {
        for window in self.windows.iter_mut().flatten() {
            window.charges.retain(|charge| charge.of != Some(group));
        }
    }
}

impl Container {
    /// Charges a window in all containers of the platform.
    pub(super) fn charge_window(
        &self,
        state: &State,
        geometry: &Geometry,
    ) -> Result<Vec<WindowCharge>, LimitError> {
        match &self.space {
            Side::Shared(_) => Ok(vec![self.charge_one(None, geometry)?]),
            Side::Each(_) => {
                let each = state.member_ids.iter();
                each.map(|group| self.charge_one(Some(*group), geometry)).collect()
            }
        }
    }

    /// The NUMA node of a table that is made now.
    pub(super) fn table_node(&self, state: &State) -> Option<u32> {
        let last = state.members.last()?.caps.node;
        let same = |member: &Member| member.caps.node == last;
        match &self.space {
            Side::Each(_) if !state.members.iter().all(same) => None,
            _ => last,
        }
    }

    fn charge_one(
        &self,
        of: Option<GroupId>,
        geometry: &Geometry,
    ) -> Result<WindowCharge, LimitError> {
        let (cost, ledger) = (self.space.cost(geometry), &self.engine.ledger);
        let table = ledger.charge(ChargeKind::Table, cost.table)?;
        let ahead = (cost.ahead > 0).then(|| ledger.charge(ChargeKind::Enable, cost.ahead));
        Ok(WindowCharge { of, table, _ahead: ahead.transpose()? })
    }

    /// Makes a group a member with a container of its own: all windows and regions, then what the
    /// mirrors say.
    pub(super) fn join_alone(
        &self,
        each: &PerMember,
        state: &mut State,
        group: GroupId,
    ) -> Result<Attached, AttachError> {
        if let Some(window) = state.windows.iter().flatten().find(|w| w.left_to_kvm) {
            let start = window.start;
            let reason = format!(
                "the window at {start} was left to KVM, so what is mapped there cannot be mapped for \
                 it too"
            );
            return Err(AttachError::Incompatible { group, reason });
        }
        let windows = state.windows.iter().flatten();
        let charges = windows.map(|w| self.charge_one(Some(group), w.table.geometry()));
        let mut charges = charges.collect::<Result<Vec<_>, _>>()?;
        if let Err(CreateError { error, leaked }) = each.attach(group) {
            // Of the largest, as it is not known which it was.
            charges.sort_by_key(|charge| charge.table.pages());
            WindowCharge::leak(&mut charges, leaked);
            return Err(error.into());
        }
        let space = each.seat(group).expect("it has just been given one");
        let mut done = Attached::default();
        let begin = Instant::now();
        let supplied = self.call_in(&*space, state, |call| call.supply(&mut done));
        supplied.inspect_err(|_| each.detach(group))?;
        if done.ioctls > 0 {
            done.time = begin.elapsed();
        }
        for (window, charge) in state.windows.iter_mut().flatten().zip(charges) {
            window.charges.push(charge);
        }
        Ok(done)
    }
}
