// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kinds of windows that a machine can have, by its page sizes and the geometry of tables.

use std::fmt;

use tce_engine::addr::PageShift;
use tce_engine::backend::Caps;
use tce_engine::container::SharedCaps;
use tce_engine::geometry::{Geometry, WindowSpec};

use crate::size::format_arg;

/// Window slots of a PE.
pub(super) const FIRST: usize = 0;
pub(super) const SECOND: usize = 1;

/// A window to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) slot: usize,
    pub(super) spec: WindowSpec,
    pub(super) levels: u32,
}

/// As in `1G of 4K pages, 3 levels`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, page) = (format_arg(self.spec.size), self.spec.page);
        let s = if self.levels == 1 { "" } else { "s" };
        let which = if self.slot == SECOND { ", second window" } else { "" };
        write!(f, "{size} of {page} pages, {} level{s}{which}", self.levels)
    }
}

/// Pages up to the largest that memory can be had for.
const PAGES: [PageShift; 4] = [PageShift::K4, PageShift::K64, PageShift::M2, PageShift::M16];

/// One like the kernel's default window, then 1 GiB in every page size and number of levels, then
/// 8 GiB in the second slot. What the machine cannot have is left out.
pub(super) fn kinds(caps: &Caps, shared: &SharedCaps) -> Vec<Kind> {
    let of = |slot: usize, spec: WindowSpec| {
        let levels = (1..=shared.max_levels).filter(move |levels| {
            shared.page_sizes.contains(spec.page)
                && shared.window_starts[slot].is_some()
                && Geometry::new(spec.levels(*levels), caps.host_page, caps.max_block).is_ok()
        });
        levels.map(move |levels| Kind { slot, spec: spec.levels(levels), levels })
    };
    let like_default = of(FIRST, WindowSpec::new(2 << 30, PageShift::K4)).take(1);
    let first = PAGES.into_iter().flat_map(|page| of(FIRST, WindowSpec::new(1 << 30, page)));
    let second = of(SECOND, WindowSpec::new(8 << 30, PageShift::K64));
    like_default.chain(first).chain(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tce_engine::backend::Backend;
    use tce_engine::{Engine, EngineOptions, GroupId, MockBuilder};

    fn of(host_page: PageShift) -> Vec<String> {
        let mock = MockBuilder::new(1).host_page(host_page).build();
        let engine = Engine::new(mock.clone(), EngineOptions::default());
        let container = engine.container();
        container.attach(GroupId(0)).unwrap();
        kinds(&mock.caps(), &container.caps().unwrap()).iter().map(Kind::to_string).collect()
    }

    #[test]
    fn kinds_of_a_power8() {
        assert_eq!(
            of(PageShift::K64),
            [
                "2G of 4K pages, 1 level",
                "1G of 4K pages, 1 level",
                "1G of 4K pages, 2 levels",
                "1G of 4K pages, 3 levels",
                "1G of 64K pages, 1 level",
                "1G of 64K pages, 2 levels",
                "1G of 16M pages, 1 level",
                "1G of 16M pages, 2 levels",
                "8G of 64K pages, 1 level, second window",
                "8G of 64K pages, 2 levels, second window",
            ]
        );
        // Small host pages allow more levels.
        assert!(of(PageShift::K4).contains(&"1G of 4K pages, 4 levels".to_owned()));
    }
}
