// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the calls that led to a difference, few that still do.

use super::api::Episode;
use super::call::Call;
use super::draw::Draw;
use super::world::{World, Wrong};

/// Calls that all tries together may make.
const BUDGET: u64 = 4_000_000;

/// Calls without which the difference does not come about, as far as that was tried; empty if they do not
/// lead to it by themselves. `number` is that of the last call.
pub(super) fn shrink(episode: &Episode, (seed, number): (u64, u64), wrong: &Wrong) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut draw = Draw::new(seed, 0, episode.machine.host);
    episode.alone(seed, |world| {
        for _ in 0..number {
            let call = draw.next(world);
            calls.push(call.clone());
            world.make(&call)?;
        }
        Ok(())
    });
    let leads = |calls: &[Call]| {
        let found = episode.alone(seed, |world| {
            for call in calls {
                if is_possible(world, call) {
                    world.make(call)?;
                }
            }
            world.audit()
        });
        found.is_some_and(|found| found.what == wrong.what)
    };
    if !leads(&calls) {
        return Vec::new();
    }
    let (mut budget, mut chunk) = (BUDGET, calls.len().div_ceil(2));
    loop {
        let mut first = 0;
        while first < calls.len() && budget > 0 {
            budget = budget.saturating_sub(calls.len() as u64);
            let end = (first + chunk).min(calls.len());
            let less = [&calls[..first], &calls[end..]].concat();
            if leads(&less) { calls = less } else { first = end }
        }
        if chunk == 1 || budget == 0 {
            return calls;
        }
        chunk /= 2;
    }
}

/// A run that was not handed out, as what did that is left out, cannot be freed.
fn is_possible(world: &World<'_>, call: &Call) -> bool {
    match call {
        Call::Free(0, 0, request) => {
            let given = &world.model.sides[0].given;
            let lower = world.real[0].addresses.is_some()
                && request.at.0 < super::world::space(world.model.window(0, 0)).start.0;
            lower || given.contains_key(&request.at.0)
        }
        Call::Alloc(0, 0, ..) => world.real[0].addresses.is_some(),
        _ => true,
    }
}
