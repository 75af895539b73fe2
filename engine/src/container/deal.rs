// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dealing groups out to as few containers as there can be.

use super::Container;
use crate::addr::{GroupId, Ioba, PageSizes};
use crate::backend::{GroupCaps, MAX_WINDOWS};
use crate::engine::{DetachPolicy, Engine};
use crate::error::AttachError;

/// What groups of one container have to have in common, apart from a page size.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    window_starts: [Option<Ioba>; MAX_WINDOWS],
    default_bytes: u64,
    /// Of a group that shares with nobody.
    alone: Option<GroupId>,
}

impl Engine {
    /// Deals groups out to as few containers as there can be: two are in one if their windows begin at
    /// the same places, the windows that they come with are equally large, they have a page size in
    /// common with all others there, and their PEs can use a common table (which does not matter with
    /// [`DetachPolicy::Isolate`] on a kernel). On a kernel, a group whose tables have one level is alone:
    /// it is a guest's, where a table belongs to one group.
    ///
    /// Who is with whom does not depend on the order of `groups`, nor does the order of the containers.
    ///
    /// # Errors
    /// [`AttachError`] of the first group that could not be a member; no group is then.
    pub fn deal(&self, groups: &[GroupId]) -> Result<Vec<Container>, AttachError> {
        self.shared.same_process()?;
        let mut all = Vec::new();
        let mut groups = groups.to_vec();
        groups.sort_unstable();
        for pair in groups.windows(2) {
            if pair[0] == pair[1] {
                return Err(AttachError::Member(pair[0]));
            }
        }
        for group in groups {
            if self.shared.owner(group).is_some() {
                return Err(AttachError::Elsewhere(group));
            }
            let caps = self.shared.backend.group(group)?;
            all.push((self.kind(group, &caps), group, caps.page_sizes));
        }
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let mut containers = Vec::new();
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            let offered: Vec<_> = same.iter().map(|(_, _, sizes)| *sizes).collect();
            let parts = parts(&offered);
            for part in 0..=parts.iter().copied().max().unwrap_or(0) {
                let container = self.container();
                for (_, group, _) in
                    same.iter().zip(&parts).filter(|(_, p)| **p == part).map(|x| x.0)
                {
                    container.attach(*group)?;
                }
                containers.push(container);
            }
        }
        Ok(containers)
    }

    fn kind(&self, group: GroupId, caps: &GroupCaps) -> Kind {
        let kernel = self.shared.caps.tables.kernel().is_some();
        let shares = if kernel && self.shared.detach == DetachPolicy::Isolate {
            true
        } else {
            caps.can_share_tables && !(kernel && caps.max_levels == 1)
        };
        Kind {
            window_starts: caps.window_starts,
            default_bytes: caps.default_bytes,
            alone: (!shares).then_some(group),
        }
    }
}

/// Numbers from 0 for sets, so that all sets of one number have a page size in common: as few numbers as
/// will do.
fn parts(offered: &[PageSizes]) -> Vec<usize> {
    let all = offered.iter().fold(0, |all, sizes| all | sizes.0);
    let pages: Vec<u64> = (0..u64::BITS).map(|n| 1 << n).filter(|page| all & page != 0).collect();
    let mut chosen = Vec::new();
    // With all of them it works, unless a set is empty.
    let enough = (0..=pages.len()).any(|most| cover(offered, &pages, most, &mut chosen));
    let part = |(n, sizes): (usize, &PageSizes)| {
        let found = chosen.iter().position(|page| sizes.0 & page != 0);
        // What offers nothing can be with nobody.
        found.unwrap_or(chosen.len() + n)
    };
    let parts: Vec<_> = offered.iter().enumerate().map(part).collect();
    debug_assert!(enough || offered.contains(&PageSizes(0)));
    // In order of the first set of each.
    let mut seen = Vec::new();
    let number = |part: usize| {
        let found = seen.iter().position(|known| *known == part);
        found.unwrap_or_else(|| {
            seen.push(part);
            seen.len() - 1
        })
    };
    parts.into_iter().map(number).collect()
}

/// Extends `chosen` by at most `most` pages so that every set has one of them; smaller pages are tried
/// first, and pages of the first set that has none yet are the only ones that can help it.
fn cover(offered: &[PageSizes], pages: &[u64], most: usize, chosen: &mut Vec<u64>) -> bool {
    let open = offered.iter().find(|s| s.0 != 0 && chosen.iter().all(|page| s.0 & page == 0));
    let Some(open) = open else { return true };
    if most == 0 {
        return false;
    }
    for page in pages.iter().filter(|page| open.0 & **page != 0) {
        chosen.push(*page);
        if cover(offered, pages, most - 1, chosen) {
            return true;
        }
        chosen.pop();
    }
    false
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn as_few_parts_as_will_do() {
        let of = |masks: &[u64]| parts(&masks.iter().map(|m| PageSizes(*m)).collect::<Vec<_>>());
        assert_eq!(of(&[1, 1, 1]), [0, 0, 0]);
        assert_eq!(of(&[1, 2, 4]), [0, 1, 2]);
        // The smallest page of the first would need three.
        assert_eq!(of(&[0b011, 0b110, 0b100, 0b010]), [0, 0, 1, 0]);
        // One page in common is enough, wherever it is.
        assert_eq!(of(&[0b1001, 0b1010, 0b1100]), [0, 0, 0]);
        assert_eq!(of(&[0, 1, 0, 1]), [0, 1, 2, 1]);
        assert_eq!(of(&[]), [] as [usize; 0]);
    }
}
