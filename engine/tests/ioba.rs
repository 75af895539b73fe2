// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The allocator of bus addresses against a plain set of pages, and with threads.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tce_engine::error::IobaError;
use tce_engine::ioba::{IobaAllocator, IobaOptions, IobaSpace, Magazine};
use tce_engine::{Ioba, PageShift};

const LINE: u64 = 16;

#[derive(Clone, Debug)]
enum Op {
    Page,
    Run {
        pages: u64,
    },
    Aligned {
        pages: u64,
        lg2: u32,
    },
    /// Part of a run: the first so many 16ths of it, at least a page.
    Give {
        which: usize,
        part: u64,
    },
    Reserve {
        at: u64,
        pages: u64,
    },
    Unreserve {
        which: usize,
    },
    Flush,
    /// Drops the magazine and makes another.
    Renew,
}

fn op() -> impl Strategy<Value = Op> {
    let pages = || prop_oneof![4 => 1u64..20, 2 => 20u64..150, 1 => 100u64..1500];
    prop_oneof![
        10 => Just(Op::Page),
        4 => pages().prop_map(|pages| Op::Run { pages }),
        2 => (pages(), 0u32..9).prop_map(|(pages, lg2)| Op::Aligned { pages, lg2 }),
        12 => (any::<usize>(), prop_oneof![3 => Just(16), 1 => 0u64..16])
            .prop_map(|(which, part)| Op::Give { which, part }),
        1 => (0u64..1500, pages()).prop_map(|(at, pages)| Op::Reserve { at, pages }),
        1 => any::<usize>().prop_map(|which| Op::Unreserve { which }),
        1 => Just(Op::Flush),
        1 => Just(Op::Renew),
    ]
}

/// First bus page, pages and page shift: a window; a part of one; one with the hole in it; one that
/// begins at the end of a word of 64, whose only page below the hole is its first.
fn spaces() -> impl Strategy<Value = (u64, u64, PageShift)> {
    prop_oneof![
        Just((1 << 43, 1024, PageShift::K64)),
        (0u64..300, 1u64..900).prop_map(|(first, pages)| (first, pages, PageShift::K4)),
        (0u64..128, 700u64..1000).prop_map(|(first, pages)| (first, pages, PageShift::M16)),
        Just((127, 700, PageShift::M16)),
    ]
}

/// Which pages of the bus are out, and as what.
struct Model {
    space: IobaSpace,
    own_line: bool,
    /// Bus pages that can be handed out.
    usable: BTreeSet<u64>,
    out: BTreeSet<u64>,
    /// First page and pages of what was taken, and of what was reserved.
    runs: Vec<(u64, u64)>,
    reserved: Vec<(u64, u64)>,
}

impl Model {
    fn new(space: IobaSpace, own_line: bool) -> Self {
        let shift = space.page.get();
        let first = space.start.0 >> shift;
        let hole =
            |page: &u64| space.start.0 < 1 << 31 && (1 << 31..1 << 32).contains(&(page << shift));
        let usable = (first..first + (space.bytes >> shift)).filter(|page| !hole(page)).collect();
        Self { space, own_line, usable, out: BTreeSet::new(), runs: vec![], reserved: vec![] }
    }

    fn at(&self, page: u64) -> Ioba {
        Ioba(page << self.space.page.get())
    }

    fn step(&self, align: u64) -> u64 {
        if self.own_line { align.max(LINE) } else { align }
    }

    fn is_free(&self, first: u64, pages: u64) -> bool {
        (first..first + pages).all(|page| self.usable.contains(&page) && !self.out.contains(&page))
    }

    fn has_place(&self, pages: u64, align: u64) -> bool {
        let starts = self.usable.iter().filter(|page| page.is_multiple_of(self.step(align)));
        starts.into_iter().any(|page| self.is_free(*page, pages))
    }

    /// A run was handed out: rightly so?
    fn took(&mut self, at: Ioba, pages: u64, align: u64) {
        assert!(at.is_aligned(self.space.page));
        let first = at.0 >> self.space.page.get();
        assert!(first.is_multiple_of(self.step(align)), "{at} for {align}");
        assert!(self.is_free(first, pages), "{pages} pages at {at} were not free");
        self.out.extend(first..first + pages);
        self.runs.push((first, pages));
    }

    /// The first pages of the `which`th of `list` are gone.
    fn gave(&mut self, first: u64, pages: u64) {
        (first..first + pages).for_each(|page| assert!(self.out.remove(&page)));
    }
}

/// Takes from one magazine. What is refused while pages wait in others is right once they do not.
fn take(
    model: &mut Model,
    magazines: &mut [Magazine],
    by: usize,
    (pages, align): (u64, u64),
    f: impl Fn(&mut Magazine) -> Result<Ioba, IobaError>,
) {
    let mut answer = f(&mut magazines[by]);
    if let Err(e) = &answer {
        let own = magazines[by].held();
        let held = magazines.iter().map(Magazine::held).sum();
        let free = model.usable.len() as u64 - model.out.len() as u64 - held;
        assert_eq!(*e, IobaError::Exhausted { pages, align: model.step(align), free, held });
        assert_eq!(own, 0, "not refused before the own magazine is empty");
        magazines.iter_mut().for_each(Magazine::flush);
        answer = f(&mut magazines[by]);
        assert_eq!(answer.is_ok(), model.has_place(pages, align), "{answer:?}");
    }
    if let Ok(at) = answer {
        model.took(at, pages, align);
    }
}

fn reserve(model: &mut Model, magazines: &mut [Magazine], at: u64, pages: u64) {
    let allocator = magazines[0].allocator().clone();
    let start = model.space.start.0 >> model.space.page.get();
    let (first, range) = (start + at, start + at..start + at + pages);
    let ask = || allocator.reserve(model.at(first), pages << model.space.page.get());
    let answer = match ask() {
        Err(IobaError::Busy { .. }) => {
            magazines.iter_mut().for_each(Magazine::flush);
            ask()
        }
        other => other,
    };
    match answer {
        Ok(()) => {
            assert!(model.is_free(first, pages));
            model.out.extend(range);
            model.reserved.push((first, pages));
        }
        Err(IobaError::Busy { at }) => {
            let busy = range.clone().find(|page| model.out.contains(page));
            assert_eq!(busy.map(|page| model.at(page)), Some(at));
        }
        Err(IobaError::InHole { .. } | IobaError::OutsideSpace { .. }) => {
            assert!(!range.clone().all(|page| model.usable.contains(&page)));
        }
        Err(other) => panic!("{other}"),
    }
}

/// Takes the `which`th run out of a list.
fn pick(list: &mut Vec<(u64, u64)>, which: usize) -> Option<(u64, u64)> {
    (!list.is_empty()).then(|| list.swap_remove(which % list.len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_requests_equal_a_set_of_pages(
        (first, pages, page) in spaces(),
        own_line in any::<bool>(),
        ops in prop::collection::vec((0usize..3, op()), 1..300),
    ) {
        let space = IobaSpace { start: Ioba(first << page.get()), bytes: pages << page.get(), page };
        let allocator = match IobaAllocator::new(space, IobaOptions { own_line }) {
            Ok(allocator) => allocator,
            Err(e) => panic!("{e}"),
        };
        let mut model = Model::new(space, own_line);
        prop_assert_eq!(allocator.capacity(), model.usable.len() as u64);
        let mut magazines = [0; 3].map(|_| Magazine::new(&allocator));
        for (by, op) in ops {
            match op {
                Op::Page => take(&mut model, &mut magazines, by, (1, 1), Magazine::take_page),
                Op::Run { pages } => {
                    take(&mut model, &mut magazines, by, (pages, 1), |m| m.take(pages));
                }
                Op::Aligned { pages, lg2 } => {
                    let align = 1 << lg2;
                    let f = |m: &mut Magazine| m.take_aligned(pages, align);
                    take(&mut model, &mut magazines, by, (pages, align), f);
                }
                Op::Give { which, part } => {
                    let Some((first, pages)) = pick(&mut model.runs, which) else { continue };
                    let given = (pages * part / 16).max(1);
                    magazines[by].give(model.at(first), given);
                    model.gave(first, given);
                    if given < pages {
                        model.runs.push((first + given, pages - given));
                    }
                }
                Op::Reserve { at, pages } => reserve(&mut model, &mut magazines, at, pages),
                Op::Unreserve { which } => {
                    let Some((first, pages)) = pick(&mut model.reserved, which) else { continue };
                    let (at, bytes) = (model.at(first), pages << page.get());
                    prop_assert_eq!(allocator.unreserve(at, bytes), Ok(()));
                    model.gave(first, pages);
                    // What is in use elsewhere or in a magazine is not: nothing was changed.
                    if magazines.iter().all(|m| m.held() == 0) {
                        prop_assert_eq!(allocator.unreserve(at, bytes), Err(IobaError::Free { at }));
                    }
                }
                Op::Flush => magazines[by].flush(),
                Op::Renew => magazines[by] = Magazine::new(&allocator),
            }
            prop_assert_eq!(allocator.in_use(), model.out.len() as u64);
            prop_assert_eq!(allocator.held(), magazines.iter().map(Magazine::held).sum::<u64>());
        }
        drop(magazines);
        prop_assert_eq!(allocator.held(), 0);
        prop_assert_eq!(allocator.in_use(), model.out.len() as u64);
        // Everything comes back: each page can be had on its own.
        for (first, pages) in model.runs.iter().chain(&model.reserved) {
            prop_assert_eq!(allocator.unreserve(model.at(*first), pages << page.get()), Ok(()));
        }
        for usable in &model.usable {
            prop_assert_eq!(allocator.reserve(model.at(*usable), page.bytes()), Ok(()));
        }
        prop_assert_eq!(allocator.in_use(), allocator.capacity());
    }
}

const THREADS: u64 = 4;

/// Who has each page; 0 for nobody. Taking a page twice, or giving one that is another's, shows.
struct Owners(Vec<AtomicU64>);

impl Owners {
    fn pass(&self, at: Ioba, pages: u64, from: u64, to: u64) {
        let first = at.0 >> 12;
        for page in first..first + pages {
            assert_eq!(self.0[page as usize].swap(to, Ordering::Relaxed), from, "page {page}");
        }
    }
}

/// One thread's part: takes and gives at random, and now and then gives what another took.
fn hammer(
    allocator: &Arc<IobaAllocator>,
    owners: &Owners,
    exchange: &Mutex<Vec<(Ioba, u64)>>,
    me: u64,
) -> u64 {
    let mut magazine = Magazine::new(allocator);
    let mut mine = vec![];
    let mut taken = 0;
    let mut random = me.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..30_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let pages = if random >> 60 < 10 { 1 } else { 1 + (random >> 20) % 90 };
        match random % 16 {
            0..8 => {
                if let Ok(at) = magazine.take(pages) {
                    owners.pass(at, pages, 0, me);
                    mine.push((at, pages));
                    taken += pages;
                }
            }
            8..15 => {
                if let Some((at, pages)) = pick_any(&mut mine, random >> 32) {
                    owners.pass(at, pages, me, 0);
                    magazine.give(at, pages);
                }
            }
            _ => {
                // Both ways through one lock: it goes to whoever comes next.
                let mut others = exchange.lock().unwrap();
                let theirs = others.pop();
                if let Some((at, pages)) = pick_any(&mut mine, random >> 32) {
                    owners.pass(at, pages, me, THREADS + 1);
                    others.push((at, pages));
                }
                drop(others);
                if let Some((at, pages)) = theirs {
                    owners.pass(at, pages, THREADS + 1, me);
                    mine.push((at, pages));
                }
            }
        }
    }
    for (at, pages) in mine {
        owners.pass(at, pages, me, 0);
        magazine.give(at, pages);
    }
    taken
}

fn pick_any(list: &mut Vec<(Ioba, u64)>, random: u64) -> Option<(Ioba, u64)> {
    (!list.is_empty()).then(|| list.swap_remove((random % list.len() as u64) as usize))
}

/// The space is smaller than what the threads would have, so they fight for the last pages.
#[test]
fn threads_never_share_a_page() {
    for own_line in [false, true] {
        let pages = 4000;
        let space = IobaSpace { start: Ioba(0), bytes: pages << 12, page: PageShift::K4 };
        let allocator = IobaAllocator::new(space, IobaOptions { own_line }).unwrap();
        let owners = Owners((0..pages).map(|_| AtomicU64::new(0)).collect());
        let exchange = Mutex::default();
        let taken: u64 = std::thread::scope(|scope| {
            let (allocator, owners, exchange) = (&allocator, &owners, &exchange);
            let run = move |me| scope.spawn(move || hammer(allocator, owners, exchange, me));
            let threads: Vec<_> = (1..=THREADS).map(run).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(taken > 10 * pages, "{taken} pages: every page several times");
        let mut magazine = Magazine::new(&allocator);
        for (at, pages) in exchange.into_inner().unwrap() {
            owners.pass(at, pages, THREADS + 1, 0);
            magazine.give(at, pages);
        }
        drop(magazine);
        assert_eq!((allocator.in_use(), allocator.held()), (0, 0));
        assert_eq!(allocator.reserve(Ioba(0), pages << 12), Ok(()));
    }
}
