// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A window some of whose pages are mapped, who looks at it, and what they see: what `churn` and `crash` do
//! their work on.

pub(super) mod devices;

use std::collections::BTreeMap;
use std::sync::Arc;

use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::Backend;
use tce_engine::backend::linux::mock_kernel::DmaFault;
use tce_engine::container::{Container, Mode};
use tce_engine::tce::Perm;

use crate::kernel::Buffer;
use crate::result::Verification;
use crate::run::lists::Random;
use crate::run::machine::{Machine, What};
use crate::run::verify::{Content, Differences, Eye, Model, Seen, differences};

/// Where a window and its memory lie.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) buffer: &'a Buffer,
    pub(super) start: Ioba,
    pub(super) page: PageShift,
    /// Pages of the window.
    pub(super) pages: u64,
}

impl Ground<'_> {
    pub(super) fn bus(&self, page: u64) -> Ioba {
        Ioba(self.start.0 + (page << self.page.get()))
    }

    pub(super) fn memory(&self, page: u64) -> Uaddr {
        self.buffer.page(page, self.page)
    }

    pub(super) fn bytes(&self, pages: u64) -> u64 {
        pages << self.page.get()
    }

    pub(super) fn buffer_pages(&self) -> u64 {
        self.buffer.bytes() >> self.page.get()
    }
}

/// Window pages that are mapped, and to which pages of the buffer.
pub(super) type Pages = BTreeMap<u64, u64>;

/// Maps what stays in the lower half: half of it a run from page 0, the rest single pages.
///
/// # Errors
/// What the engine refused.
pub(super) fn standing(
    container: &Container,
    ground: Ground<'_>,
    count: u64,
    random: &mut Random,
) -> anyhow::Result<Pages> {
    let mut pages = Pages::new();
    let (run, buffer_pages) = (count / 2, ground.buffer_pages());
    let mut map = |at: u64, memory: u64, count: u64| -> anyhow::Result<()> {
        let (from, bytes) = (ground.memory(memory), ground.bytes(count));
        container.map(ground.bus(at), from, bytes, Perm::READ_WRITE, Mode::Refuse)?;
        pages.extend((0..count).map(|n| (at + n, memory + n)));
        Ok(())
    };
    for first in (0..run).step_by(buffer_pages as usize) {
        map(first, 0, buffer_pages.min(run - first))?;
    }
    let (singles, room) = (count - run, ground.pages / 2 - run);
    for nth in 0..singles {
        map(run + nth * (room / singles), random.below(buffer_pages), 1)?;
    }
    Ok(pages)
}

/// What should be found.
fn model(pages: &Pages) -> Model {
    let places = pages.iter().map(|(at, memory)| ((0, *at), *memory)).collect();
    Model { parts: Vec::new(), content: Content::Places(Arc::new(places)) }
}

/// Compares the window through the group, if anybody but its devices can: page by page where somebody
/// independent can be asked. Of the engine's mirror, which stands for a real kernel's table, all pages
/// take a second of an emulated machine's time: unless `all` is asked for, only what is mapped is
/// looked at. `None` if the run was interrupted.
///
/// # Errors
/// If the mock has no such group.
pub(super) fn through(
    machine: &Machine,
    container: &Container,
    ground: Ground<'_>,
    group: GroupId,
    (mapped, all): (&Pages, bool),
    sum: &mut Verification,
) -> anyhow::Result<Option<Differences>> {
    let (eye, all) = match &machine.what {
        What::Mock(mock) => (Eye::Pe(mock, mock.group(group)?.pe), true),
        What::MockKernel { kernel, process, .. } => (Eye::Group(kernel, process.id(), group), true),
        What::Vfio(_) => (Eye::Mirror(container), all),
    };
    let Ground { buffer, start, page, pages } = ground;
    let buffer = (buffer.start(), buffer.bytes());
    let (window, model) = (Seen { eye, start, page, pages, buffer, window: 0 }, model(mapped));
    Ok(if all {
        differences(&window, &model, 0..pages, sum)
    } else {
        differences(&window, &model, mapped.keys().copied(), sum)
    })
}

/// The first of the mapped pages that a group which is no member reaches, in words, and how many it
/// reaches. Of a real kernel nobody can say but devices.
///
/// # Errors
/// If the mock has no such group.
pub(super) fn reached(
    machine: &Machine,
    ground: Ground<'_>,
    group: GroupId,
    pages: &Pages,
    sum: &mut Verification,
) -> anyhow::Result<(u64, Option<String>)> {
    let there: Box<dyn Fn(Ioba) -> Option<String>> = match &machine.what {
        What::Mock(mock) => {
            let pe = mock.group(group)?.pe;
            Box::new(move |at| mock.probe(pe, at).ok().map(|to| format!("{to:?}")))
        }
        What::MockKernel { kernel, .. } => {
            Box::new(move |at| match kernel.translate(group, at, Perm::NONE) {
                Ok(to) => Some(format!("{to:?}")),
                Err(fault @ DmaFault::NotPinned(_)) => Some(format!("{fault:?}")),
                Err(_) => None,
            })
        }
        What::Vfio(_) => return Ok((0, None)),
    };
    let (mut count, mut first) = (0, None);
    for at in pages.keys().map(|page| ground.bus(*page)) {
        sum.translations += 1;
        if let Some(to) = there(at) {
            count += 1;
            first.get_or_insert_with(|| format!("group {group}, no member, at {at}: got {to}"));
        }
    }
    Ok((count, first))
}
