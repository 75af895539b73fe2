// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A group leaves its container while all of the buffer is mapped, and comes back: what that takes
//! under the engine's detach policy, and whether the others have lost anything.

use std::time::Instant;

use tce_engine::addr::{GroupId, Ioba, Uaddr};
use tce_engine::container::{Container, Mode};
use tce_engine::engine::DetachPolicy;
use tce_engine::error::AttachError;
use tce_engine::tce::Perm;

use super::machine::What;
use super::rig::Rig;
use crate::result::{Joined, Left};

/// Has the last group of each container that has several leave and come back.
///
/// # Errors
/// What the engine refused other than that a group leaves others, or joins them late.
pub fn leave(rig: &mut Rig, policy: DetachPolicy) -> anyhow::Result<Vec<Left>> {
    // A device would keep its group.
    rig.close_devices();
    let mut all = Vec::new();
    for nth in 0..rig.containers.len() {
        let (container, at) = (rig.containers[nth].clone(), rig.containers[nth].bus(0));
        let groups = container.groups();
        let Some((leaver, others @ [_, ..])) = groups.split_last() else { continue };
        let bytes = rig.buffer.bytes().min(rig.pages() << rig.page().get());
        let mapped = bytes >> rig.page().get();
        let from = rig.buffer.start();
        container.map(at, from, bytes, Perm::READ_WRITE, Mode::Refuse)?;
        let begin = Instant::now();
        let detached = container.detach(*leaver);
        let detach_ns = begin.elapsed().as_nanos() as f64;
        rig.compare_books("detaching a group");
        let mut left = Left {
            container: nth as u64,
            group: leaver.0,
            others: others.len() as u64,
            policy: name(policy).to_owned(),
            mapped_tces: mapped,
            refused: None,
            detach_ns,
            replayed: 0,
            ioctls: 0,
            replay_ns: 0.0,
            lost_tces: None,
            joined: None,
        };
        match detached {
            Ok(done) => {
                (left.replayed, left.ioctls) = (done.replayed, done.ioctls);
                left.replay_ns = done.time.as_nanos() as f64;
                left.lost_tces = lost(rig, others, at, mapped);
                left.joined = Some(join(rig, &container, *leaver)?);
            }
            Err(e @ AttachError::Shared { .. }) => left.refused = Some(e.to_string()),
            Err(e) => return Err(e.into()),
        }
        container.unmap(at, bytes)?;
        all.push(left);
    }
    Ok(all)
}

fn join(rig: &mut Rig, container: &Container, group: GroupId) -> anyhow::Result<Joined> {
    let begin = Instant::now();
    let attached = container.attach(group);
    let attach_ns = begin.elapsed().as_nanos() as f64;
    rig.compare_books("attaching a group again");
    Ok(match attached {
        Ok(done) => Joined {
            refused: None,
            attach_ns,
            replayed: done.replayed,
            ioctls: done.ioctls,
            replay_ns: done.time.as_nanos() as f64,
        },
        Err(e) => Joined { refused: Some(e.to_string()), attach_ns, ..Joined::default() },
    })
}

/// Entries that devices of these groups do not reach any more; `None` if nobody can be asked.
fn lost(rig: &Rig, groups: &[GroupId], at: Ioba, pages: u64) -> Option<u64> {
    let What::MockKernel { kernel, .. } = &rig.machine.what else { return None };
    let page = rig.page().get();
    let wrong = |(group, n): &(GroupId, u64)| {
        let wanted = Uaddr(rig.buffer.start().0 + (n << page));
        let found = kernel.translate(*group, Ioba(at.0 + (n << page)), Perm::READ_WRITE);
        found.map(|to| to.at) != Ok(wanted)
    };
    let each = groups.iter().flat_map(|group| (0..pages).map(|n| (*group, n)));
    Some(each.filter(wrong).count() as u64)
}

/// As typed.
pub fn name(policy: DetachPolicy) -> &'static str {
    match policy {
        DetachPolicy::Replay => "replay",
        DetachPolicy::Isolate => "isolate",
        // The engine may learn others, which nobody can ask for here.
        _ => "refuse",
    }
}
