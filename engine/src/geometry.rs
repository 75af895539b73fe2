// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Window size × page shift × levels × host page shift → shape, covered size and charge.
//!
//! The rules are those of powernv's table code as observed: a level is at least one host page, all
//! levels have the same number of entries, and the bits they decode plus the page shift stay
//! below 55.

use crate::addr::PageShift;
use crate::error::GeometryError;

/// Most levels that a TVE of the platform can name.
pub const MAX_LEVELS: u32 = 5;
/// A table must decode fewer address bits than this.
pub const MAX_ADDRESS_BITS: u32 = 55;

/// How many levels a window's table gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Levels {
    /// The fewest whose blocks the platform can provide.
    #[default]
    Auto,
    /// Exactly so many; a count that cannot be is refused, never changed.
    Exactly(u32),
}

/// What a caller asks for when it creates a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    /// Size in bytes, a power of two.
    pub size: u64,
    /// The IOMMU page size.
    pub page: PageShift,
    /// Levels of the table.
    pub levels: Levels,
}

impl WindowSpec {
    /// A window of `size` bytes of bus space in pages of `page`, levels chosen by the engine.
    #[must_use]
    pub const fn new(size: u64, page: PageShift) -> Self {
        Self { size, page, levels: Levels::Auto }
    }

    /// The same with a fixed number of levels.
    #[must_use]
    pub const fn levels(self, levels: u32) -> Self {
        Self { levels: Levels::Exactly(levels), ..self }
    }
}

/// The shape of a table. Built only by [`Geometry::new`], so every value has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    size: u64,
    page: PageShift,
    host_page: PageShift,
    levels: u32,
    /// log2 of the entries that the table serves.
    entries_lg2: u32,
    /// log2 of the entries of one level block.
    level_entries_lg2: u32,
    charge: u64,
}

impl Geometry {
    /// The shape for `spec` on a host with pages of `host_page` whose platform provides contiguous
    /// blocks of up to `max_block` bytes.
    ///
    /// # Errors
    /// A size that is no power of two or smaller than a page, a level count outside 1..=5, too many
    /// address bits, a block beyond `max_block`; with [`Levels::Auto`] only if no count fits.
    pub fn new(
        spec: WindowSpec,
        host_page: PageShift,
        max_block: u64,
    ) -> Result<Self, GeometryError> {
        let fits = |l: u32| {
            Self::shape(spec, l, host_page).and_then(|g| {
                if g.block_bytes() > max_block {
                    return Err(GeometryError::BlockTooLarge {
                        levels: l,
                        block: g.block_bytes(),
                        limit: max_block,
                    });
                }
                Ok(g)
            })
        };
        match spec.levels {
            Levels::Exactly(levels) => fits(levels),
            Levels::Auto => {
                fits(1).or_else(|first| (2..=MAX_LEVELS).find_map(|l| fits(l).ok()).ok_or(first))
            }
        }
    }

    fn shape(spec: WindowSpec, levels: u32, host_page: PageShift) -> Result<Self, GeometryError> {
        let WindowSpec { size, page, .. } = spec;
        if levels == 0 || levels > MAX_LEVELS {
            return Err(GeometryError::Levels { levels });
        }
        if !size.is_power_of_two() {
            return Err(GeometryError::NotPowerOfTwo { size });
        }
        if size < page.bytes() {
            return Err(GeometryError::SmallerThanPage { size, page });
        }
        let asked_lg2 = size.trailing_zeros() - page.get();
        let entries_lg2 = asked_lg2.max(host_page.get() - 3);
        let block_lg2 = (asked_lg2.div_ceil(levels) + 3).max(host_page.get());
        let bits = (block_lg2 - 3) * levels + page.get();
        if bits >= MAX_ADDRESS_BITS {
            return Err(GeometryError::TooManyBits { levels, bits, page, host_page });
        }
        Ok(Self {
            size,
            page,
            host_page,
            levels,
            entries_lg2,
            level_entries_lg2: block_lg2 - 3,
            charge: charge_bytes(asked_lg2, block_lg2, levels),
        })
    }

    /// The window size that was asked for, in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of bus space that the table serves. Small windows grow: a table is never smaller
    /// than one host page of entries.
    #[must_use]
    pub const fn covered(&self) -> u64 {
        self.entries() << self.page.get()
    }

    /// The IOMMU page size.
    #[must_use]
    pub const fn page(&self) -> PageShift {
        self.page
    }

    /// The host page size that this shape was made for.
    #[must_use]
    pub const fn host_page(&self) -> PageShift {
        self.host_page
    }

    /// Number of levels, 1 = a plain array.
    #[must_use]
    pub const fn levels(&self) -> u32 {
        self.levels
    }

    /// Entries that the table serves (Linux: `it_size`).
    #[must_use]
    pub const fn entries(&self) -> u64 {
        1 << self.entries_lg2
    }

    /// Entries of the window that was asked for, at most [`Geometry::entries`].
    #[must_use]
    pub const fn requested_entries(&self) -> u64 {
        self.size >> self.page.get()
    }

    /// Entries of one level block (Linux: `it_level_size`).
    #[must_use]
    pub const fn level_entries(&self) -> u64 {
        1 << self.level_entries_lg2
    }

    /// log2 of [`Geometry::level_entries`].
    #[must_use]
    pub const fn level_entries_lg2(&self) -> u32 {
        self.level_entries_lg2
    }

    /// Bytes of one level block.
    #[must_use]
    pub const fn block_bytes(&self) -> u64 {
        8 << self.level_entries_lg2
    }

    /// Address bits that the hardware decodes; more than the window has where levels round up.
    #[must_use]
    pub const fn address_bits(&self) -> u32 {
        self.level_entries_lg2 * self.levels + self.page.get()
    }

    /// Blocks of the complete tree.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        let mut below = self.entries();
        (0..self.levels).fold(0, |sum, _| {
            below = below.div_ceil(self.level_entries());
            sum + below
        })
    }

    /// Bytes charged to the process for the window: the complete tree twice (the hardware table
    /// and the view that Linux keeps beside it), whatever is allocated.
    #[must_use]
    pub const fn charge(&self) -> u64 {
        self.charge
    }

    /// [`Geometry::charge`] in host pages.
    #[must_use]
    pub const fn charge_pages(&self) -> u64 {
        self.charge >> self.host_page.get()
    }
}

/// The kernel's own sum, level by level (`get_table_size`), for the hardware table and its view.
fn charge_bytes(asked_lg2: u32, block_lg2: u32, levels: u32) -> u64 {
    let block = 1u64 << block_lg2;
    let mut bytes = (8u64 << asked_lg2).max(4096);
    let mut sum = 0;
    for _ in 0..levels {
        sum += bytes.next_multiple_of(block);
        bytes = (8 * (bytes / block)).max(block);
    }
    2 * sum
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_fewest_levels_that_fit() {
        let limit = 16 << 20;
        let g = |size| Geometry::new(WindowSpec::new(size, PageShift::K64), PageShift::K64, limit);
        assert_eq!(g(128 << 30).unwrap().levels(), 1);
        assert_eq!(g(256 << 30).unwrap().levels(), 2);
        assert!(matches!(g(1 << 60), Err(GeometryError::TooManyBits { levels: 1, .. })));
    }

    #[test]
    fn a_window_may_be_one_page() {
        let spec = WindowSpec::new(4 << 10, PageShift::K4);
        let g = Geometry::new(spec, PageShift::K64, 16 << 20).unwrap();
        assert_eq!((g.requested_entries(), g.entries(), g.levels()), (1, 8192, 1));
        assert_eq!(g.host_page(), PageShift::K64);
        let (size, page) = (2 << 10, PageShift::K4);
        let smaller = Geometry::new(WindowSpec::new(size, page), PageShift::K64, 16 << 20);
        assert_eq!(smaller, Err(GeometryError::SmallerThanPage { size, page }));
    }

    #[test]
    fn blocks_of_a_complete_tree() {
        let spec = WindowSpec::new(2 << 30, PageShift::K4);
        let l2 = Geometry::new(spec.levels(2), PageShift::K64, 16 << 20).unwrap();
        assert_eq!(l2.blocks(), 1 + 64);
        let l3 = Geometry::new(spec.levels(3), PageShift::K64, 16 << 20).unwrap();
        assert_eq!(l3.blocks(), 1 + 1 + 64);
    }
}
