// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the tiers for x86-64 share.

use crate::sync::Slot;

/// The same for each vector of a turn. Written out, because a closure is not always inlined into a
/// function that needs more of the CPU than its caller (without LTO: 36 instructions an entry, not 1).
macro_rules! four {
    (|$v:ident| $do:expr, $turn:expr) => {{
        let [a, b, c, d] = $turn;
        [
            {
                let $v = a;
                $do
            },
            {
                let $v = b;
                $do
            },
            {
                let $v = c;
                $do
            },
            {
                let $v = d;
                $do
            },
        ]
    }};
}
pub(super) use four;

/// Bytes in a cache line.
const LINE: usize = 64;

/// Lengths of the parts of a stretch: before the whole turns, and all of these.
pub(super) struct Cut {
    head: usize,
    body: usize,
}

impl Cut {
    /// Cuts a stretch into whole turns. If there are enough of them to pay for it they begin at a
    /// multiple of `align` bytes: stores that cross a cache line take twice the time.
    #[inline]
    pub(super) fn new(slots: &[Slot], turn: usize, align: usize) -> Self {
        let skip = if slots.len() < 4 * turn { 0 } else { slots.as_ptr().align_offset(align) };
        Self::after(skip, slots.len(), turn)
    }

    /// Cuts a stretch into whole turns that begin a cache line, and what is around them.
    #[inline]
    pub(super) fn lines(slots: &[Slot], turn: usize) -> Self {
        Self::after(slots.as_ptr().align_offset(LINE), slots.len(), turn)
    }

    #[inline]
    fn after(skip: usize, n: usize, turn: usize) -> Self {
        let head = skip.min(n);
        Self { head, body: (n - head) / turn * turn }
    }

    /// The parts of a slice that is as long as the stretch: head, turns, rest.
    #[inline]
    pub(super) fn split<'a, T>(&self, all: &'a [T]) -> [&'a [T]; 3] {
        let (head, all) = all.split_at(self.head);
        let (body, rest) = all.split_at(self.body);
        [head, body, rest]
    }

    /// The same of a slice to write.
    #[inline]
    pub(super) fn split_mut<'a, T>(&self, all: &'a mut [T]) -> [&'a mut [T]; 3] {
        let (head, all) = all.split_at_mut(self.head);
        let (body, rest) = all.split_at_mut(self.body);
        [head, body, rest]
    }
}
