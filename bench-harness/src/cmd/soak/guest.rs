// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest that means harm: hypercalls with any arguments, beside others who must not notice.

mod calls;
pub(crate) mod fuzz;
mod others;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tce_engine::addr::{GroupId, Ioba, Liobn, PageShift, PageSizes, PeNumber};
use tce_engine::backend::Memory;
use tce_engine::geometry::WindowSpec;
use tce_engine::kill::KillPolicy;
use tce_engine::papr::{Compat, Papr, PhbSpec, Vcpu};
use tce_engine::{Engine, EngineOptions, Mock, MockBuilder};

use self::calls::{Lists, Stream};
use self::others::Others;
use super::api::{Counts, Difference, Episode, said};
use super::drift::Took;
use super::machine::Machine;
use super::world::Wrong;
use crate::host::bytes_of;
use crate::interrupt::interrupted;
use crate::run::lists::Random;
use crate::size::format_size;

/// The guest's memory: by the guest's addresses, which an engine has for one guest only, so that the other
/// guest has the same.
pub(super) const RAM: u64 = 256 << 20;
/// What the guest's windows may cost together, beside the memory.
const TABLES: u64 = 64 << 20;
/// Memory that the process may take meanwhile beyond all tables and what it keeps of them: an allocator gives
/// nothing back at once.
const SLACK: u64 = 256 << 20;
/// The guest's two PHBs: buid, group and first LIOBN.
pub(super) const PHBS: [(u64, u32, u32); 2] = [(0xa0, 0, 0x8000_0000), (0xa1, 1, 0x8000_0010)];
/// Calls of a thread between two looks at everything.
const ROUND: u64 = 1 << 14;
/// Entries of a window of which all are tried; of larger ones so many.
const TRIED: u64 = 1 << 16;

/// See the [module](self).
pub(super) struct Guest<'a> {
    episode: &'a Episode,
    /// Whose rules.
    compat: Compat,
}

/// What stayed within its bounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Bounds {
    /// Most windows at a time, and how many there may be.
    most_windows: u64,
    windows_bound: u64,
    /// Most bytes of table memory that were in use at a time, and how many may be.
    most_table_bytes: u64,
    table_bytes_bound: u64,
    /// Most bytes that were charged, and how many may be.
    most_charged_bytes: u64,
    charged_bytes_bound: u64,
    /// By how much the process's memory has grown, if the system says, and by how much it may.
    rss_growth_bytes: Option<u64>,
    rss_growth_bound: u64,
    /// The longest hypercall, other threads and programs included.
    longest_call_ns: u64,
    /// Words of tables that were looked at.
    words: u64,
    /// Times that the others changed something of theirs and found it right.
    turns_of_others: u64,
}

impl Bounds {
    #[cfg(test)]
    pub(super) fn turns_of_others(&self) -> u64 {
        self.turns_of_others
    }

    /// Of both.
    pub(super) fn and(self, other: &Self) -> Self {
        Self {
            most_windows: self.most_windows.max(other.most_windows),
            most_table_bytes: self.most_table_bytes.max(other.most_table_bytes),
            most_charged_bytes: self.most_charged_bytes.max(other.most_charged_bytes),
            rss_growth_bytes: self.rss_growth_bytes.max(other.rss_growth_bytes),
            longest_call_ns: self.longest_call_ns.max(other.longest_call_ns),
            words: self.words + other.words,
            turns_of_others: self.turns_of_others + other.turns_of_others,
            ..self
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let growth = self.rss_growth_bytes.map_or("unknown".to_owned(), format_size);
        write!(
            f,
            "up to {} windows (bound {}), {} of tables ({}), {} charged ({}), {growth} more memory ({}); \
             longest call {:?}; others used theirs {} times",
            self.most_windows,
            self.windows_bound,
            format_size(self.most_table_bytes),
            format_size(self.table_bytes_bound),
            format_size(self.most_charged_bytes),
            format_size(self.charged_bytes_bound),
            format_size(self.rss_growth_bound),
            Duration::from_nanos(self.longest_call_ns),
            self.turns_of_others,
        )
    }
}

/// What a thread of the guest's is.
struct Attacker {
    stream: Stream,
    vcpu: Vcpu,
    /// Seed and calls.
    deal: (u64, u64),
    counts: Counts,
    longest: Duration,
    took: Took,
    found: Option<Difference>,
}

/// A machine with the guest and others on it.
struct Place {
    mock: Arc<Mock>,
    engine: Engine,
    papr: Arc<Papr>,
    others: Others,
    limit: u64,
}

impl<'a> Guest<'a> {
    /// The guest of an episode. Whose rules it is under goes round.
    pub(super) fn new(episode: &'a Episode, nth: u64) -> Self {
        // A guest of a seed alone has the first.
        let compat = [Compat::Arch, Compat::Kvm, Compat::Qemu][(nth % 3) as usize];
        Self { episode, compat }
    }

    /// Makes the calls; what was done, what it took, and what was wrong.
    pub(super) fn run(&self, took: &mut Took) -> (Counts, Bounds, Option<Difference>) {
        let Episode { machine, threads, policy, .. } = self.episode;
        let place = Place::new(machine, *policy, self.compat, threads[0].0);
        let lists = Lists::new();
        let mut bounds = place.bounds();
        let before = memory("VmRSS:");
        let attacker = |(nth, deal): (usize, &(u64, u64))| Attacker {
            stream: Stream::new(deal.0, nth as u64),
            vcpu: place.papr.vcpu(),
            deal: *deal,
            counts: Counts::default(),
            longest: Duration::ZERO,
            took: Took::new(),
            found: None,
        };
        let mut attackers: Vec<_> = threads.iter().enumerate().map(attacker).collect();
        let mut wrong = None;
        while wrong.is_none() && attackers.iter().any(Attacker::goes_on) && !interrupted() {
            let turns = round(&mut attackers, &lists, &place);
            wrong = turns.map(|turns| bounds.turns_of_others += turns).err();
            if wrong.is_none() && attackers.iter().all(|a| a.found.is_none()) {
                attackers.iter_mut().for_each(|attacker| _ = attacker.vcpu.submit());
                wrong = place.check(&mut bounds).err();
                let grown =
                    memory("VmRSS:").zip(before).map(|(now, then)| now.saturating_sub(then));
                bounds.rss_growth_bytes = bounds.rss_growth_bytes.max(grown);
                wrong = wrong.or_else(|| bounds.broken());
                attackers[0].counts.audits += 1;
            }
        }
        let mut counts = Counts::default();
        for attacker in &attackers {
            counts += attacker.counts;
            took.add(&attacker.took);
            let longest = attacker.longest.as_nanos() as u64;
            bounds.longest_call_ns = bounds.longest_call_ns.max(longest);
        }
        let (seed, number) = (threads[0].0, attackers[0].counts.calls);
        let found = attackers.iter_mut().find_map(|attacker| attacker.found.take());
        let mut found = found.or(wrong.map(|wrong| Difference { seed, number, call: None, wrong }));
        if found.is_some() {
            // Whoever has panicked may hold locks.
            std::mem::forget((attackers, place));
            return (counts, bounds, found);
        }
        drop(attackers);
        found = place.end().err().map(|wrong| Difference { seed, number, call: None, wrong });
        (counts, bounds, found)
    }
}

/// A part of all threads' calls, while lists change and others use what is theirs; how often they did.
fn round(attackers: &mut [Attacker], lists: &Lists, place: &Place) -> Result<u64, Wrong> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let changing = scope.spawn(move || lists.change(stop));
        let beside = scope.spawn(move || {
            let turns = catch_unwind(AssertUnwindSafe(|| place.others.live(&place.mock, stop)));
            turns.unwrap_or_else(|panic| Err(said(&*panic)))
        });
        let each = attackers.iter_mut().map(|a| scope.spawn(move || a.round(&place.papr, lists)));
        each.collect::<Vec<_>>().into_iter().for_each(|t| t.join().expect("panics are caught"));
        stop.store(true, Ordering::Relaxed);
        changing.join().expect("stores do not panic");
        beside.join().expect("panics are caught")
    })
}

impl Attacker {
    fn goes_on(&self) -> bool {
        self.found.is_none() && self.counts.calls < self.deal.1
    }

    fn round(&mut self, papr: &Papr, lists: &Lists) {
        let calls = ROUND.min(self.deal.1 - self.counts.calls);
        let mut last = String::new();
        let done = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..calls {
                let call = self.stream.next();
                self.counts.calls += 1;
                let begin = Instant::now();
                let answer = call.make(papr, &mut self.vcpu, lists);
                self.longest = self.longest.max(begin.elapsed());
                self.counts.refused += u64::from(!answer.done);
                if answer.done {
                    self.took.note(begin);
                }
                if let Some(expected) = call.unsound(&answer) {
                    last = format!("{call:x?}");
                    return Err(Wrong::new("the answer", expected, &format!("{answer:x?}")));
                }
            }
            Ok(())
        }));
        let wrong = match done {
            Ok(Ok(())) => return,
            Ok(Err(wrong)) => wrong,
            Err(panic) => said(&*panic),
        };
        let wrong = Wrong { what: format!("{last} {}", wrong.what).trim().to_owned(), ..wrong };
        let (seed, number) = (self.deal.0, self.counts.calls);
        self.found = Some(Difference { seed, number, call: None, wrong });
    }
}

impl Bounds {
    /// The bound that was not kept.
    fn broken(&self) -> Option<Wrong> {
        let kept = [
            ("windows", self.most_windows, self.windows_bound),
            ("bytes of tables", self.most_table_bytes, self.table_bytes_bound),
            ("bytes charged", self.most_charged_bytes, self.charged_bytes_bound),
            ("more bytes of memory", self.rss_growth_bytes.unwrap_or(0), self.rss_growth_bound),
        ];
        let (what, most, bound) = kept.into_iter().find(|(_, most, bound)| most > bound)?;
        Some(Wrong::new(what, &format!("{bound} at most"), &most.to_string()))
    }
}

impl Place {
    fn new(machine: &Machine, policy: KillPolicy, compat: Compat, seed: u64) -> Self {
        let mock = MockBuilder::new(8)
            .platform(machine.platform)
            .host_page(machine.host)
            .backing(machine.backing)
            .kill(machine.kill())
            .seed(seed)
            .build();
        let limit = RAM + Others::CHARGED + TABLES;
        let options = EngineOptions { memlock: Some(limit), policy, ..EngineOptions::default() };
        let engine = Engine::new(mock.clone(), options);
        let papr = Arc::new(
            Papr::new(RAM)
                .compat(compat)
                .multi_table()
                .compose_pages(PageSizes::of(&[PageShift::M2])),
        );
        for (buid, group, liobn) in PHBS {
            let window = WindowSpec::new(1 << 26, PageShift::K4);
            let spec = PhbSpec { buid, group: GroupId(group), liobn: Liobn(liobn), window };
            papr.add_phb(&engine, spec).expect("a guest like this can be made on each machine");
        }
        let others = Others::new(&engine, compat);
        Self { mock, engine, papr, others, limit }
    }

    /// Everybody leaves.
    fn end(self) -> Result<(), Wrong> {
        let Self { mock, engine, papr, others, .. } = self;
        drop((others, papr));
        let left = (engine.ledger().pages(), mock.leftovers(), mock.taken());
        if left == (0, (0, 0, 0), 0) {
            return Ok(());
        }
        Err(Wrong::new("what is left at the end", "nothing", &format!("{left:?}")))
    }

    fn bounds(&self) -> Bounds {
        // The whole tree of a window is charged twice when it is made.
        let tables = (self.limit - RAM) / 2;
        Bounds {
            most_windows: 0,
            windows_bound: 2 * PHBS.len() as u64,
            most_table_bytes: 0,
            table_bytes_bound: tables,
            most_charged_bytes: 0,
            charged_bytes_bound: self.limit,
            rss_growth_bytes: None,
            rss_growth_bound: 2 * tables + SLACK,
            longest_call_ns: 0,
            words: 0,
            turns_of_others: 0,
        }
    }

    /// Everything, while no call is under way.
    fn check(&self, bounds: &mut Bounds) -> Result<(), Wrong> {
        self.others.are_unchanged(&self.mock)?;
        let windows = self.papr.windows();
        bounds.most_windows = bounds.most_windows.max(windows.len() as u64);
        let mut tables = 0;
        for (buid, group, _) in PHBS {
            let (words, used) = self.own_memory_only(buid)?;
            bounds.words += words;
            tables += used;
            self.by_the_phb(PeNumber(group as u16), buid)?;
        }
        bounds.most_table_bytes = bounds.most_table_bytes.max(tables);
        let charged = self.engine.ledger().pages() << self.engine.ledger().page().get();
        bounds.most_charged_bytes = bounds.most_charged_bytes.max(charged);
        let (pinned, ..) = self.mock.leftovers();
        // The guests' memory, and the driver's.
        if pinned != 2 {
            return Err(Wrong::new("pinned ranges", "2", &pinned.to_string()));
        }
        Ok(())
    }

    /// Each word of the tables leads to another table or to the guest's memory, and as many to that as are
    /// counted. Returns the words, and the bytes in use.
    fn own_memory_only(&self, buid: u64) -> Result<(u64, u64), Wrong> {
        let tables = self.papr.with_container(buid, |container| {
            let mapped: u64 = container.regions().iter().map(|region| region.mapped).sum();
            let used: u64 = container.table_use().iter().map(|used| used.used_bytes).sum();
            (container.table_memory(), mapped, used)
        });
        let Some((chunks, mapped, used)) = tables else {
            return Err(Wrong::new("the guest's PHB", "is there", "is gone"));
        };
        let (mut words, mut leaves) = (0, 0);
        for slot in chunks.iter().flat_map(|chunk| chunk.slots()) {
            words += 1;
            let word = u64::from_be(slot.load(Ordering::Relaxed));
            if word & 3 == 0 {
                continue;
            }
            let address = word & !0xfff;
            if address < RAM {
                leaves += 1;
            } else if let Some((memory, _)) = self.mock.owner(tce_engine::addr::Hpa(address)) {
                let got = format!("{word:#x}, to {memory:?}");
                return Err(Wrong::new("a word of the guest's tables", "none to others", &got));
            }
        }
        if leaves != mapped {
            let (expected, got) = (format!("{mapped} entries, as counted"), leaves.to_string());
            return Err(Wrong::new("live entries of the guest's", &expected, &got));
        }
        Ok((words, used))
    }

    /// The same as the PHB walks: all entries of a window, or some of a large one.
    fn by_the_phb(&self, pe: PeNumber, buid: u64) -> Result<(), Wrong> {
        let windows = self.papr.with_container(buid, |container| container.windows());
        for window in windows.into_iter().flatten() {
            let (entries, page) = (window.geometry.entries(), window.geometry.page());
            let mut random = Random::new(entries);
            for nth in 0..entries.min(TRIED) {
                let entry = if entries <= TRIED { nth } else { random.below(entries) };
                let at = Ioba(window.start.0 + (entry << page.get()));
                let Ok(found) = self.mock.probe(pe, at) else { continue };
                let owner = self.mock.owner(found.at);
                if !matches!(owner, Some((Memory::Guest { .. }, offset)) if offset < RAM) {
                    let got = format!("{owner:?} at {at}");
                    return Err(Wrong::new("a device of the guest's", "its own memory", &got));
                }
            }
        }
        Ok(())
    }
}

/// A number of bytes that Linux tells of this process.
pub(super) fn memory(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    bytes_of(&text, field)
}
