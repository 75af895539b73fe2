// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A set of numbers as ranges: what is mapped, without an entry for each page.

use std::collections::BTreeMap;

/// Ranges that neither overlap nor touch: first to end (exclusive).
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `first..end`, and tells how many of them were there.
    pub(super) fn insert(&mut self, first: u64, end: u64) -> u64 {
        let known = self.take(first, end);
        let (mut first, mut end) = (first, end);
        if let Some((&left, &left_end)) = self.0.range(..first).next_back()
            && left_end == first
        {
            first = left;
        }
        if let Some(right_end) = self.0.remove(&end) {
            end = right_end;
        }
        self.0.insert(first, end);
        known
    }

    /// Takes `first..end` away, and tells how many of them were there.
    pub(super) fn take(&mut self, first: u64, end: u64) -> u64 {
        let mut known = 0;
        while let Some((&left, &right)) = self.0.range(..end).next_back() {
            if right <= first {
                break;
            }
            self.0.remove(&left);
            if right > end {
                self.0.insert(end, right);
            }
            if left < first {
                self.0.insert(left, first);
            }
            known += right.min(end) - left.max(first);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a set of single numbers.
    #[test]
    fn ranges_are_a_set() {
        let (mut ranges, mut model) = (Ranges::default(), [false; 64]);
        let mut state = 1_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..20_000 {
            let first = next(63);
            let end = first + 1 + next(64 - first - 1).min(9);
            let part = &mut model[first as usize..end as usize];
            let known = part.iter().filter(|there| **there).count() as u64;
            let add = next(2) == 0;
            part.fill(add);
            let found = if add { ranges.insert(first, end) } else { ranges.take(first, end) };
            assert_eq!(found, known);
            let all: Vec<_> = ranges.0.iter().flat_map(|(a, b)| *a..*b).collect();
            let expected: Vec<_> = (0..64).filter(|n| model[*n as usize]).collect();
            assert_eq!(all, expected);
            let ends: Vec<_> = ranges.0.values().collect();
            assert!(ends.iter().all(|end| !ranges.0.contains_key(end)), "touching: {ranges:?}");
        }
    }
}
