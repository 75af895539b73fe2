// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hypercalls with any arguments, and the memory of their lists.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tce_engine::addr::{Gra, Liobn};
use tce_engine::papr::{Answer, GuestMemory, HCode, Papr, RtasStatus, Vcpu};

use super::others::LIOBNS;
use super::{PHBS, RAM};
use crate::run::lists::Random;

/// Bytes of the guest's memory that lists are read from; behind it is nothing to be read.
const LISTS: u64 = 64 << 10;
const WORD: u64 = 8;
/// Where a second window begins.
const SECOND: u64 = 1 << 59;

/// Lists in the guest's memory, which change whenever it likes.
pub(super) struct Lists(Box<[AtomicU64]>);

impl Lists {
    pub(super) fn new() -> Self {
        Self((0..LISTS / WORD).map(|_| AtomicU64::new(0)).collect())
    }

    /// Changes them until it is to stop.
    pub(super) fn change(&self, stop: &AtomicBool) {
        let mut random = Random::new(7);
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..256 {
                let at = random.below(self.0.len() as u64) as usize;
                self.change_one(at, &mut random);
            }
            thread::yield_now();
        }
    }

    /// Changes all of them once.
    pub(super) fn fill(&self, seed: u64) {
        let mut random = Random::new(seed);
        (0..self.0.len()).for_each(|at| self.change_one(at, &mut random));
    }

    fn change_one(&self, at: usize, random: &mut Random) {
        // Some pages begin with LIOBNs, and half of them hold what can be stored.
        let word = match random.below(8) {
            _ if at as u64 * WORD < LISTS / 2 => good(random),
            0 => liobn(random),
            _ => tce(random),
        };
        self.0[at].store(word.to_be(), Ordering::Relaxed);
    }
}

impl GuestMemory for Lists {
    fn copy_words(&self, at: Gra, words: &mut [u64]) -> bool {
        let first = at.0 / WORD;
        let Some(end) = first.checked_add(words.len() as u64) else { return false };
        let Some(there) = self.0.get(first as usize..end as usize) else { return false };
        words.iter_mut().zip(there).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
        at.0.is_multiple_of(WORD)
    }
}

/// A hypercall.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hypercall {
    Put {
        liobn: u64,
        ioba: u64,
        tce: u64,
    },
    Indirect {
        liobn: u64,
        ioba: u64,
        list: u64,
        count: u64,
    },
    Stuff {
        liobn: u64,
        ioba: u64,
        tce: u64,
        count: u64,
    },
    Get {
        liobn: u64,
        ioba: u64,
    },
    Create {
        buid: u64,
        page_shift: u64,
        window_shift: u64,
    },
    Remove {
        liobn: u32,
    },
    Reset {
        buid: u64,
    },
    Query {
        buid: u64,
    },
    /// Not the guest's, but who runs its vCPU does it.
    Submit,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    /// The code, if there is no such one.
    unknown: Option<i64>,
    pub(super) done: bool,
    value: u64,
}

impl From<Answer> for Came {
    fn from(answer: Answer) -> Self {
        Self::of(answer.code, 0)
    }
}

impl Came {
    fn of(code: HCode, value: u64) -> Self {
        let known = [
            HCode::SUCCESS,
            HCode::HARDWARE,
            HCode::TOO_HARD,
            HCode::FUNCTION,
            HCode::PARAMETER,
            HCode::NOT_ENOUGH_RESOURCES,
            HCode::P4,
        ];
        let done = code == HCode::SUCCESS;
        let unknown = (!known.contains(&code)).then_some(code.0);
        Self { unknown, done, value }
    }

    fn rtas<T>(result: Result<T, RtasStatus>) -> Self {
        let known = [RtasStatus::HARDWARE, RtasStatus::PARAMETER];
        let status = result.err();
        let unknown = status.filter(|status| !known.contains(status)).map(|status| status.0);
        Self { unknown, done: status.is_none(), value: 0 }
    }
}

impl Hypercall {
    pub(super) fn make(&self, papr: &Papr, vcpu: &mut Vcpu, lists: &Lists) -> Came {
        match *self {
            Self::Put { liobn, ioba, tce } => vcpu.put_tce(liobn, ioba, tce).into(),
            Self::Indirect { liobn, ioba, list, count } => {
                vcpu.put_tce_indirect(liobn, ioba, list, count, lists).into()
            }
            Self::Stuff { liobn, ioba, tce, count } => {
                vcpu.stuff_tce(liobn, ioba, tce, count).into()
            }
            Self::Get { liobn, ioba } => {
                let (code, value) = vcpu.get_tce(liobn, ioba);
                Came::of(code, value)
            }
            Self::Create { buid, page_shift, window_shift } => {
                Came::rtas(papr.ddw_create(buid, page_shift, window_shift))
            }
            Self::Remove { liobn } => Came::rtas(papr.ddw_remove(Liobn(liobn))),
            Self::Reset { buid } => Came::rtas(papr.ddw_reset(buid)),
            Self::Query { buid } => Came::rtas(papr.ddw_query(buid)),
            Self::Submit => {
                vcpu.submit();
                Came { unknown: None, done: true, value: 0 }
            }
        }
    }

    /// What should have come of it instead, if that was not right whatever is there at the moment.
    pub(super) fn unsound(&self, came: &Came) -> Option<&'static str> {
        if came.unknown.is_some() {
            return Some("a code of the architecture's");
        }
        if !came.done {
            return None;
        }
        let own = |liobn: u64| {
            let first = PHBS.map(|(.., first)| u64::from(first));
            first.iter().any(|first| liobn == *first || liobn == first + 1)
        };
        let outside = |tce: u64| tce & 3 != 0 && tce & !0xfff >= RAM;
        match *self {
            Self::Put { liobn, .. } | Self::Stuff { liobn, .. } | Self::Get { liobn, .. }
                if !own(liobn) =>
            {
                Some("a refusal: it is no LIOBN of the guest's")
            }
            Self::Indirect { liobn, .. } if !own(liobn) && (liobn as i64) > 0 => {
                Some("a refusal: it is no LIOBN of the guest's")
            }
            Self::Remove { liobn } if !own(liobn.into()) => {
                Some("a refusal: it is no LIOBN of the guest's")
            }
            Self::Create { buid, .. } | Self::Reset { buid } | Self::Query { buid }
                if PHBS.iter().all(|(own, ..)| *own != buid) =>
            {
                Some("a refusal: it is no PHB of the guest's")
            }
            Self::Put { tce, .. } if outside(tce) => Some("a refusal: that is not its memory"),
            Self::Stuff { tce, count, .. } if count > 0 && outside(tce) => {
                Some("a refusal: that is not its memory")
            }
            Self::Indirect { count, .. } if count > 512 => Some("a refusal: too many entries"),
            Self::Get { .. } if outside(came.value) => Some("an entry to its own memory"),
            _ => None,
        }
    }
}

/// Any LIOBN: own ones mostly, others', none, many at once.
fn liobn(random: &mut Random) -> u64 {
    let (.., own) = PHBS[random.below(PHBS.len() as u64) as usize];
    match random.below(32) {
        0..14 => own.into(),
        14..26 => u64::from(own) + 1,
        26 => LIOBNS[random.below(LIOBNS.len() as u64) as usize].into(),
        27 => u64::from(own) + 2 + random.below(3),
        28 => random.below(140).wrapping_neg(),
        29 => u64::from(own) | 1 << (32 + random.below(31)),
        30 => [0, 1, u64::MAX, u64::from(u32::MAX), 1 << 63][random.below(5) as usize],
        _ => random.next(),
    }
}

/// Any bus address: first pages mostly, the ends of windows and of everything, no page at all. Mostly where
/// the window of the LIOBN begins.
fn ioba(random: &mut Random, liobn: u64) -> u64 {
    let own = liobn % 2 * SECOND;
    let start = if random.below(16) > 0 { own } else { SECOND - own };
    let shift = [12, 12, 16, 16, 21, 24][random.below(6) as usize];
    let near = |place: u64, random: &mut Random| {
        place.wrapping_sub(8 << shift).wrapping_add(random.below(16) << shift)
    };
    match random.below(32) {
        0..10 => start + (random.below(2) << 24),
        10..16 => start + (random.below(4) << shift),
        16..22 => start + (random.below(128) << shift),
        22..25 => start + (random.below(1 << 20) << shift),
        25 => near(start + (1 << (shift + random.below(20))), random),
        26 => near(1 << random.below(64), random),
        27 => near(0, random),
        28 => start + random.below(1 << 24),
        29 => u64::MAX - random.below(1 << 17),
        _ => random.next(),
    }
}

/// An entry of the guest's memory, in pages of all sizes.
fn good(random: &mut Random) -> u64 {
    random.below(RAM >> 24) << 24 | random.below(4)
}

/// Any entry: good ones mostly, to what is not there, with bits that must be 0, empty ones with others.
fn tce(random: &mut Random) -> u64 {
    let perm = random.below(4);
    match random.below(16) {
        0..9 => good(random),
        9..11 => random.below(RAM >> 12) << 12 | perm,
        11 => 0,
        12 => (RAM - 4096 + random.below(3) * 4096) | perm,
        13 => random.below(RAM) | perm,
        14 => (u64::MAX << 12) | perm,
        _ => random.next(),
    }
}

fn count(random: &mut Random) -> u64 {
    match random.below(16) {
        0..6 => 1,
        6..11 => random.below(17),
        11 => 512,
        12 => 513,
        13 => random.below(600),
        14 => u64::MAX - random.below(2),
        _ => random.next(),
    }
}

fn buid(random: &mut Random) -> u64 {
    let (own, ..) = PHBS[random.below(PHBS.len() as u64) as usize];
    if random.below(16) > 0 { own } else { [0, 0xb0, u64::MAX, own + 7][random.below(4) as usize] }
}

/// The calls of one vCPU.
pub(super) struct Stream(Random);

impl Stream {
    pub(super) fn new(seed: u64, nth: u64) -> Self {
        Self(Random::new(seed ^ nth << 40))
    }

    pub(super) fn next(&mut self) -> Hypercall {
        let random = &mut self.0;
        match random.below(256) {
            0..110 => {
                let liobn = liobn(random);
                Hypercall::Put { liobn, ioba: ioba(random, liobn), tce: tce(random) }
            }
            110..160 => {
                let list = match random.below(16) {
                    0..13 => random.below(LISTS >> 12) << 12,
                    13 => random.below(LISTS),
                    14 => u64::MAX << 12,
                    _ => random.next(),
                };
                let (liobn, count) = (liobn(random), count(random));
                let ioba = ioba(random, liobn);
                Hypercall::Indirect { liobn, ioba, list, count }
            }
            160..210 => {
                let clear = random.below(4) > 0;
                let tce = if clear { 0 } else { tce(random) };
                let (liobn, count) = (liobn(random), count(random));
                let ioba = ioba(random, liobn);
                Hypercall::Stuff { liobn, ioba, tce, count }
            }
            210..236 => {
                let liobn = liobn(random);
                Hypercall::Get { liobn, ioba: ioba(random, liobn) }
            }
            236..242 => {
                let page_shift = match random.below(8) {
                    0..7 => [12, 16, 21, 24][random.below(4) as usize],
                    _ => random.below(80),
                };
                // Many are tiny.
                let window_shift = match random.below(8) {
                    0..3 => page_shift + random.below(4),
                    3..7 => page_shift + random.below(23),
                    _ => random.below(80),
                };
                Hypercall::Create { buid: buid(random), page_shift, window_shift }
            }
            // Windows that live for long are filled; others come and go.
            242 => Hypercall::Remove { liobn: liobn(random) as u32 },
            243 if random.below(16) == 0 => Hypercall::Reset { buid: buid(random) },
            243..252 => Hypercall::Query { buid: buid(random) },
            _ => Hypercall::Submit,
        }
    }
}
