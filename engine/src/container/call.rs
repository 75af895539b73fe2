// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a map or an unmap works with, whoever makes it.

use super::batch::Scratch;
use super::debtor::Debtor;
use super::windows::Window;
use super::{Container, State};
use crate::addr::GroupId;
use crate::backend::{Backend, KillPort, SharedPort, Space};
use crate::engine::Shared;
use crate::kill::{KillCount, KillDebt};
use crate::regions::{Counts, Hits};
use crate::table::User;

/// A call on a container whose structure does not change meanwhile.
pub(super) struct Call<'a> {
    pub(super) engine: &'a Shared,
    pub(super) space: &'a dyn Space,
    pub(super) state: &'a State,
    pub(super) hand: Hand<'a>,
}

/// What is the caller's own: a thread's that has a [`Mapper`](super::Mapper), or made for one call.
pub(super) struct Hand<'a> {
    /// Nothing is owed between calls.
    pub(super) debt: &'a mut KillDebt,
    /// What may be.
    pub(super) debtor: Option<&'a Debtor>,
    /// To the container's members.
    pub(super) port: &'a mut dyn KillPort,
    /// By whom locks know it, and how often it has met the segment of a single page in a row.
    pub(super) user: User,
    /// Where mapped counts go.
    pub(super) counts: Counts,
    pub(super) hits: &'a mut Hits,
    pub(super) scratch: &'a mut Scratch,
}

impl Container {
    /// Makes a call that shares the structure with others.
    pub(super) fn call<T>(&self, f: impl FnOnce(&mut Call<'_>) -> T) -> T {
        self.call_on(&self.state.read(), f)
    }

    /// The same for who holds the structure already.
    pub(super) fn call_on<T>(&self, state: &State, f: impl FnOnce(&mut Call<'_>) -> T) -> T {
        self.call_in(&*self.space, state, f)
    }

    /// The same with a container of the platform that serves less than all members.
    pub(super) fn call_in<T>(
        &self,
        space: &dyn Space,
        state: &State,
        f: impl FnOnce(&mut Call<'_>) -> T,
    ) -> T {
        let mut debt = self.engine.kill_debt();
        let mut port: SharedPort<&dyn Backend, &[GroupId]> =
            SharedPort { backend: &*self.engine.backend, members: &state.member_ids };
        let hand = Hand {
            debt: &mut debt,
            debtor: None,
            port: &mut port,
            user: User::ANYONE,
            counts: Counts::SHARED,
            hits: &mut Hits::default(),
            scratch: &mut Scratch::default(),
        };
        f(&mut Call { engine: &self.engine, space, state, hand })
    }
}

impl Call<'_> {
    /// Kill → fence → release; all of that later on `credit`, which has room for it.
    pub(super) fn settle(&mut self, window: &Window, credit: Option<&Debtor>) -> KillCount {
        if let Some(debtor) = credit {
            self.put_off(window, debtor);
            return KillCount::default();
        }
        let Self { state, hand: Hand { debt, port, counts, .. }, .. } = self;
        let at = (window.start, window.table.geometry().page());
        let kills = debt.settle(*port, state.member_ids.len(), at, |(number, n)| {
            state.registrations.unclaim(*counts, number, n);
        });
        self.forgive();
        kills
    }
}
