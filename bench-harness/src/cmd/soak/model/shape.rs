// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a table looks like and costs, by powernv's rules. Written anew, not the engine's.

use tce_engine::addr::PageShift;
use tce_engine::error::GeometryError;
use tce_engine::geometry::{Levels, MAX_ADDRESS_BITS, MAX_LEVELS, WindowSpec};

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Shape {
    pub(in super::super) levels: u32,
    /// Entries that it serves.
    pub(in super::super) entries: u64,
    /// Bytes of locked memory.
    pub(in super::super) charge: u64,
}

pub(super) fn shape(spec: WindowSpec, host: PageShift, most: u64) -> Result<Shape, GeometryError> {
    match spec.levels {
        Levels::Exactly(levels) => with_levels(spec, levels, host, most),
        Levels::Auto => {
            let mut all = (1..=MAX_LEVELS).map(|levels| with_levels(spec, levels, host, most));
            let first = all.next().expect("there is one level at least");
            first.or_else(|error| all.find_map(Result::ok).ok_or(error))
        }
    }
}

fn with_levels(
    spec: WindowSpec,
    levels: u32,
    host_page: PageShift,
    limit: u64,
) -> Result<Shape, GeometryError> {
    let WindowSpec { size, page, .. } = spec;
    if !(1..=MAX_LEVELS).contains(&levels) {
        return Err(GeometryError::Levels { levels });
    }
    if size.count_ones() != 1 {
        return Err(GeometryError::NotPowerOfTwo { size });
    }
    if size / page.bytes() == 0 {
        return Err(GeometryError::SmallerThanPage { size, page });
    }
    let asked = size / page.bytes();
    // The smallest block, a host page or more, of which so many levels serve all entries.
    let mut block = host_page.bytes();
    while (block / 8).checked_pow(levels).is_some_and(|entries| entries < asked) {
        block *= 2;
    }
    let bits = (block / 8).ilog2() * levels + page.get();
    if bits >= MAX_ADDRESS_BITS {
        return Err(GeometryError::TooManyBits { levels, bits, page, host_page });
    }
    if block > limit {
        return Err(GeometryError::BlockTooLarge { levels, block, limit });
    }
    // Each level's blocks, from the leaves up, twice: Linux keeps a second table beside the first.
    let (mut bytes, mut charge) = ((8 * asked).max(4096), 0);
    for _ in 0..levels {
        let blocks = bytes.div_ceil(block);
        charge += 2 * blocks * block;
        bytes = (8 * (bytes / block)).max(block);
    }
    Ok(Shape { levels, entries: asked.max(host_page.bytes() / 8), charge })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two who have read the same source separately.
    #[test]
    fn shapes_are_those_of_the_engine() {
        for host in [PageShift::K4, PageShift::K64] {
            for page in [PageShift::K4, PageShift::K64, PageShift::M16] {
                for (lg2, levels) in (0..60).flat_map(|lg2| (0..8).map(move |l| (lg2, l))) {
                    let levels = if levels == 7 { Levels::Auto } else { Levels::Exactly(levels) };
                    let size = (1u64 << lg2) + u64::from(lg2 == 33);
                    let spec = WindowSpec { levels, ..WindowSpec::new(size, page) };
                    let engine = tce_engine::Geometry::new(spec, host, 1 << 20).map(|g| Shape {
                        levels: g.levels(),
                        entries: g.entries(),
                        charge: g.charge(),
                    });
                    assert_eq!(shape(spec, host, 1 << 20), engine, "{spec:?} on {host}");
                }
            }
        }
    }
}
