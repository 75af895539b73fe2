// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compares what every PE translates, page by page, with an independent model of the window.
//!
//! The model is arithmetic on what the phase was told to map; it asks neither the engine nor its
//! table. The other side is the mock's walker over real memory, and the mock's own record of which
//! real page belongs to which address of the buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use tce_engine::addr::{Ioba, PageShift, PeNumber, Uaddr};
use tce_engine::backend::Memory;
use tce_engine::backend::mock::{Fault, Mock};
use tce_engine::tce::Perm;

use super::work::Lists;
use crate::result::Verification;

/// Pages that one task compares.
const TASK: u64 = 1 << 14;

/// Which buffer page a window page is mapped to.
#[derive(Clone)]
pub enum Content {
    /// Page `i` to page `i` of the buffer, counted around.
    Around(u64),
    /// As the lists say.
    Lists(Arc<Lists>),
}

/// The pages of one thread: its share of the window, and the stretch of it that is mapped. A
/// stretch that ends beyond the share goes on at the share's start.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// First page of the share.
    pub first: u64,
    /// Pages of the share.
    pub count: u64,
    /// Mapped pages, from..to.
    pub mapped: (u64, u64),
}

/// What every window should look like.
pub struct Model {
    /// Parts, by first page; together the whole window.
    pub parts: Vec<Part>,
    /// What mapped pages hold.
    pub content: Content,
}

impl Model {
    /// The buffer page that window page `index` should lead to.
    fn page(&self, index: u64) -> Option<u64> {
        let at = self.parts.partition_point(|p| p.first <= index).checked_sub(1)?;
        let Part { count, mapped: (from, to), .. } = self.parts[at];
        let inside = |i: u64| from <= i && i < to;
        if !inside(index) && !inside(index + count) {
            return None;
        }
        Some(match &self.content {
            Content::Around(pages) => index % pages,
            Content::Lists(lists) => lists.number(index),
        })
    }
}

/// A window as one PE sees it.
pub struct Seen<'a> {
    /// The machine.
    pub mock: &'a Mock,
    /// The PE.
    pub pe: PeNumber,
    /// Where the window starts.
    pub start: Ioba,
    /// Its page size.
    pub page: PageShift,
    /// Its pages.
    pub pages: u64,
    /// The memory that is mapped.
    pub buffer: (Uaddr, u64),
}

impl Seen<'_> {
    /// What is wrong with one page, if anything.
    fn check(&self, model: &Model, index: u64) -> Option<String> {
        let at = Ioba(self.start.0 + (index << self.page.get()));
        let got = self.mock.probe(self.pe, at);
        let wanted = model.page(index);
        let right = match (wanted, &got) {
            (None, Err(Fault::Empty { .. } | Fault::NoLevel { .. })) => true,
            (Some(number), Ok(to)) => {
                let (start, bytes) = self.buffer;
                let owner = (Memory::User { start, bytes }, number << self.page.get());
                to.perm == Perm::READ_WRITE
                    && to.page == self.page
                    && self.mock.owner(to.at) == Some(owner)
            }
            _ => false,
        };
        if right {
            return None;
        }
        let wanted = wanted.map_or("nothing".to_owned(), |n| format!("page {n} of the buffer"));
        Some(format!("PE {} at {at}: expected {wanted}, got {got:?}", self.pe))
    }
}

/// Compares every page of every window, and adds to `sum`. False at the first difference.
pub fn verify(seen: &[Seen<'_>], model: &Model, sum: &mut Verification) -> bool {
    let translations = AtomicU64::new(0);
    let tasks: Vec<_> = seen
        .iter()
        .flat_map(|s| (0..s.pages).step_by(TASK as usize).map(move |first| (s, first)))
        .collect();
    let wrong = tasks.par_iter().find_map_first(|(s, first)| {
        let end = (first + TASK).min(s.pages);
        translations.fetch_add(end - first, Ordering::Relaxed);
        (*first..end).find_map(|index| s.check(model, index))
    });
    sum.translations += translations.into_inner();
    sum.passes += 1;
    let right = wrong.is_none();
    if sum.first_mismatch.is_none() {
        sum.first_mismatch = wrong;
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Invocation};
    use crate::run::phase::seen;
    use crate::run::rig::{Plan, Rig};
    use tce_engine::container::Mode;

    fn rig() -> Rig {
        let args = ["tce-bench", "--groups", "2", "--window", "64M", "--levels", "2"];
        let Ok(Invocation::Run(config)) = cli::parse(args) else { panic!("a plain run") };
        let plan = Plan::new(&config, None).unwrap();
        Rig::new(&config, &plan).unwrap()
    }

    fn whole(pages: u64, mapped: (u64, u64)) -> Model {
        let parts = vec![Part { first: 0, count: pages, mapped }];
        Model { parts, content: Content::Around(pages) }
    }

    #[test]
    fn one_flipped_bit_in_one_entry_is_found() {
        let rig = rig();
        let (pages, bytes) = (rig.pages(), rig.buffer.bytes());
        let container = &rig.containers[0];
        let (at, rw) = (rig.start, Perm::READ_WRITE);
        container.map(at, rig.buffer.start(), bytes, rw, Mode::Refuse).unwrap();
        let mut sum = Verification::default();
        let model = whole(pages, (0, pages));
        assert!(verify(&seen(&rig).unwrap(), &model, &mut sum));
        assert_eq!((sum.translations, sum.passes), (2 * pages, 1));

        // One address bit of some leaf entry, in the memory that the PHB walks.
        let chunks = container.table_memory();
        let slots = chunks.iter().flat_map(|c| c.slots());
        let slot = slots.filter(|s| s.load(Ordering::Relaxed) != 0).nth(12_345).unwrap();
        let flip = (1u64 << 21).to_be();
        slot.fetch_xor(flip, Ordering::Relaxed);
        assert!(!verify(&seen(&rig).unwrap(), &model, &mut sum));
        assert!(sum.first_mismatch.as_ref().is_some_and(|m| m.contains("PE 0 at 0x")), "{sum:?}");

        // And right again once it is mended; what was found stays on record.
        slot.fetch_xor(flip, Ordering::Relaxed);
        assert!(verify(&seen(&rig).unwrap(), &model, &mut sum));
        assert!(sum.first_mismatch.is_some());
        container.unmap(at, bytes).unwrap();
        assert!(verify(&seen(&rig).unwrap(), &whole(pages, (0, 0)), &mut sum));
        assert!(!verify(&seen(&rig).unwrap(), &model, &mut sum), "an empty window is not full");
    }

    #[test]
    fn a_ring_that_wraps_in_its_share() {
        let part = Part { first: 100, count: 50, mapped: (140, 160) };
        let model = Model { parts: vec![part], content: Content::Around(1000) };
        let mapped: Vec<_> = (100..150).filter(|i| model.page(*i).is_some()).collect();
        assert_eq!(mapped, (100..110).chain(140..150).collect::<Vec<_>>());
        assert_eq!(model.page(145), Some(145));
    }
}
