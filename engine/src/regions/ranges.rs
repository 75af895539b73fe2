// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disjoint ranges of addresses with a look-up that waits for two loads: a table says, for the
//! leading bits of an address, where the few ranges are that it may lie in. Where many ranges are
//! close together, another table tells them apart, so that clusters with wide gaps between them cost
//! a load more and not a search.

#[cfg(all(test, not(loom)))]
mod tests;

use std::ops::Range;
use std::sync::OnceLock;

/// So many ranges are compared at once.
const LOOK: usize = 4;
/// What is added to the number of a node in a table's place.
const NODES: u32 = 1 << 31;

/// A range of addresses and the number of the registration that it belongs to.
#[derive(Clone, Copy, Default)]
pub(super) struct Numbered {
    pub(super) start: u64,
    /// 0 where nothing is known.
    pub(super) bytes: u64,
    pub(super) number: usize,
}

impl Numbered {
    #[inline]
    pub(super) fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.bytes
    }

    /// The last address.
    fn last(&self) -> u64 {
        self.start + (self.bytes - 1)
    }
}

/// Disjoint ranges, none of them empty. A change costs a move of what lies behind; the first look-up
/// after it makes the tables anew.
#[derive(Default)]
pub(super) struct Ranges {
    /// By start.
    ranges: Vec<Numbered>,
    index: OnceLock<Index>,
}

/// Where to look.
struct Index {
    /// The first is where a look-up begins.
    nodes: Vec<Node>,
    /// The places of all nodes: of up to [`LOOK`] ranges that meet the place's addresses the first,
    /// or [`NODES`] and the number of a node.
    places: Vec<u32>,
}

/// A table of equal stretches of addresses, as many as it has ranges or up to four times that.
struct Node {
    start: u64,
    /// log2 of the bytes of a stretch.
    shift: u32,
    /// Of its places, the first and the number of those behind it.
    place: u32,
    more: u32,
}

impl Ranges {
    pub(super) fn insert(&mut self, range: Numbered) {
        let at = self.ranges.partition_point(|other| other.start < range.start);
        debug_assert!(range.bytes > 0);
        debug_assert!(at == 0 || self.ranges[at - 1].last() < range.start);
        debug_assert!(self.ranges.get(at).is_none_or(|other| range.last() < other.start));
        self.ranges.insert(at, range);
        self.index.take();
    }

    /// Takes out the range that begins at `start`.
    pub(super) fn remove(&mut self, start: u64) {
        if let Ok(at) = self.ranges.binary_search_by_key(&start, |range| range.start) {
            self.ranges.remove(at);
            self.index.take();
        }
    }

    /// The range that an address lies in.
    #[inline]
    pub(super) fn at(&self, address: u64) -> Option<&Numbered> {
        let index = self.index.get_or_init(|| Index::new(&self.ranges));
        let near = &self.ranges[index.first_near(address)..];
        // No branch until it is known: which one it is cannot be predicted.
        let found = match near.first_chunk::<LOOK>() {
            Some(near) => (1..LOOK).fold(0, |n, m| if near[m].contains(address) { m } else { n }),
            None => near.iter().position(|range| range.contains(address))?,
        };
        near.get(found).filter(|range| range.contains(address))
    }

    /// The range that meets some of the addresses from `low` up to `high`, if it is the only one.
    pub(super) fn only(&self, low: u64, high: u64) -> Option<&Numbered> {
        let up_to = &self.ranges[..self.ranges.partition_point(|range| range.start <= high)];
        let (last, before) = up_to.split_last()?;
        let only = last.last() >= low && before.last().is_none_or(|other| other.last() < low);
        only.then_some(last)
    }
}

impl Index {
    #[cold]
    fn new(ranges: &[Numbered]) -> Self {
        let mut index = Self { nodes: Vec::new(), places: Vec::new() };
        index.add_node(ranges, 0..ranges.len(), 0, u64::MAX);
        index
    }

    /// The first of up to [`LOOK`] ranges, one of which is that of `address`, if any is.
    #[inline]
    fn first_near(&self, address: u64) -> usize {
        let mut node = &self.nodes[0];
        loop {
            // Of an address outside of the node any place will do: no range there contains it.
            let nth = (address.saturating_sub(node.start) >> node.shift).min(node.more.into());
            let place = self.places[node.place as usize + nth as usize];
            if place < NODES {
                return place as usize;
            }
            node = &self.nodes[(place - NODES) as usize];
        }
    }

    /// A node for the `part` of the ranges that meet the addresses from `low` up to `high`. The
    /// stretches of a node below another are at least 16 times shorter.
    fn add_node(&mut self, ranges: &[Numbered], part: Range<usize>, low: u64, high: u64) -> u32 {
        let hull = match &ranges[part.clone()] {
            [] => (0, 0),
            part => (part[0].start.max(low), part[part.len() - 1].last().min(high)),
        };
        let (start, last) = hull;
        let bits = u64::BITS - (last - start).leading_zeros();
        let shift = bits.saturating_sub((4 * part.len().max(1)).ilog2());
        let more = (last - start) >> shift;
        let (node, first) = (self.nodes.len(), self.places.len());
        let narrow = |n: usize| u32::try_from(n).ok().filter(|n| *n < NODES).expect("memory ends");
        self.nodes.push(Node { start, shift, place: narrow(first), more: more as u32 });
        self.places.resize(first + more as usize + 1, 0);
        let (mut from, mut to) = (part.start, part.start);
        for nth in 0..=more {
            let low = start + (nth << shift);
            let high = low.saturating_add((1 << shift) - 1).min(last);
            while from < part.end && ranges[from].last() < low {
                from += 1;
            }
            while to < part.end && ranges[to].start <= high {
                to += 1;
            }
            let place = match to.saturating_sub(from) {
                0..=LOOK => narrow(from),
                _ => NODES + self.add_node(ranges, from..to, low, high),
            };
            self.places[first + nth as usize] = place;
        }
        narrow(node)
    }
}
