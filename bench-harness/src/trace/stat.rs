// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a trace holds, in numbers: those of the table in `workloads/traces/README.md`.
//!
//! What is kept grows with the pages that a trace names, not with its length.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::Op;
use super::windows::Windows;

const CONTROL: u64 = 3;
const READ: u64 = 1;
const WRITE: u64 = 2;

/// Counts one trace, call by call.
#[derive(Debug, Default)]
pub struct Stat {
    windows: Windows,
    /// By LIOBN, then by the bus address of the page.
    tables: HashMap<u32, Table>,
    /// How many entries lead to a page of memory now.
    targets: HashMap<u64, u64>,
    lists: BTreeMap<u64, u64>,
    lives: BTreeMap<u64, u64>,
    live: u64,
    doc: StatDoc,
}

#[derive(Debug, Default)]
struct Table {
    pages: HashMap<u64, Page>,
    /// Where the last map call ended.
    map_end: Option<u64>,
}

/// A page of bus addresses that was mapped at least once.
#[derive(Debug, Default)]
struct Page {
    /// The call that mapped it, from 1; 0 if it is clear.
    since: u64,
    target: u64,
    /// TCEs of the last map call that began here.
    extent: u64,
}

/// The statistics of a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StatDoc {
    /// The file as the user named it.
    pub file: String,
    /// The trace's own name.
    pub name: String,
    /// Size of the file.
    pub bytes: u64,
    /// From the first line's time to the last one's.
    pub duration_ns: u64,
    /// put, indirect, stuff and get.
    pub calls: u64,
    /// H_PUT_TCE.
    pub put: u64,
    /// H_PUT_TCE_INDIRECT.
    pub indirect: u64,
    /// H_STUFF_TCE.
    pub stuff: u64,
    /// H_GET_TCE.
    pub get: u64,
    /// Calls that failed. They count above and nowhere below.
    pub failed: u64,
    /// Windows created, removed and reset, those of power-on included.
    pub window: u64,
    /// Translations.
    pub xlate: u64,
    /// TCEs with permission bits that calls stored.
    pub tces_mapped: u64,
    /// Most entries that were mapped at a time.
    pub max_live: u64,
    /// Entries mapped at the end.
    pub live_at_end: u64,
    /// TCEs of an H_PUT_TCE_INDIRECT.
    pub indirect_npages: Quantiles,
    /// Calls from the one that mapped a page to the one that cleared it.
    pub life_in_calls: Quantiles,
    /// Calls that mapped at least one page.
    pub map_calls: u64,
    /// Those of them that have a map call of the same LIOBN before them.
    pub map_calls_after_another: u64,
    /// Those of them that begin where that one ended.
    pub map_calls_adjacent: u64,
    /// Pages of bus addresses that were mapped.
    pub iova_pages: u64,
    /// Pages of memory that were mapped.
    pub target_pages: u64,
    /// Most entries that led to one page of memory at a time.
    pub max_iovas_per_target: u64,
    /// Calls that cleared at least one mapped page.
    pub unmap_calls: u64,
    /// Those of them that name what the last map call that began there had named.
    pub unmap_calls_as_mapped: u64,
    /// TCEs that were stored over mapped ones.
    pub overwritten: u64,
    /// TCEs mapped with read permission alone.
    pub read_only: u64,
    /// With write permission alone.
    pub write_only: u64,
    /// With both.
    pub read_write: u64,
}

/// Nearest-rank percentiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Values seen; without any, the others are 0.
    pub count: u64,
    /// Half are at most this.
    pub p50: u64,
    /// Nine in ten are at most this.
    pub p90: u64,
    /// The largest.
    pub max: u64,
}

impl Quantiles {
    fn of(counts: &BTreeMap<u64, u64>) -> Self {
        let count: u64 = counts.values().sum();
        let rank = |tenths: u64| {
            let wanted = (count * tenths).div_ceil(10);
            let mut seen = 0;
            let reaches = |(_, n): &(&u64, &u64)| {
                seen += **n;
                seen >= wanted
            };
            counts.iter().find(reaches).map_or(0, |(value, _)| *value)
        };
        let max = counts.last_key_value().map_or(0, |(value, _)| *value);
        Self { count, p50: rank(5), p90: rank(9), max }
    }
}

impl Stat {
    /// Takes the next call; `list` holds the TCEs of an indirect.
    ///
    /// # Errors
    /// If it says of itself that it stored more than a call can.
    pub fn see(&mut self, op: &Op, list: &[u64]) -> Result<(), String> {
        self.doc.calls += u64::from(op.is_call());
        self.doc.failed += u64::from(op.is_call() && !op.succeeded());
        match *op {
            Op::Put { .. } => self.doc.put += 1,
            Op::Indirect { .. } => self.doc.indirect += 1,
            Op::Stuff { .. } => self.doc.stuff += 1,
            Op::Get { .. } => self.doc.get += 1,
            Op::Xlate { .. } => self.doc.xlate += 1,
            Op::WindowCreate { .. } | Op::WindowRemove { .. } | Op::WindowReset { .. } => {
                self.doc.window += 1;
            }
        }
        if matches!(op, Op::Indirect { ret: 0, .. }) {
            *self.lists.entry(list.len() as u64).or_default() += 1;
        }
        if !op.stores(list, |liobn, ioba, tces| self.store(liobn, ioba, tces))? {
            for liobn in self.windows.see(op) {
                self.close(liobn);
            }
        }
        Ok(())
    }

    fn store(&mut self, liobn: u32, ioba: u64, tces: &[u64]) {
        let page = 1u64 << self.windows.page_shift(liobn);
        let start = ioba & !(page - 1);
        let end = start.wrapping_add(page.wrapping_mul(tces.len() as u64));
        let doc = &mut self.doc;
        let call = doc.calls;
        let table = self.tables.entry(liobn).or_default();
        let (mut mapped, mut cleared) = (0, 0);
        for (place, tce) in tces.iter().enumerate() {
            let at = start.wrapping_add(page.wrapping_mul(place as u64));
            if tce & CONTROL == 0 {
                let Some(entry) = table.pages.get_mut(&at).filter(|e| e.since != 0) else {
                    continue;
                };
                *self.lives.entry(call - entry.since).or_default() += 1;
                release(&mut self.targets, entry.target);
                entry.since = 0;
                cleared += 1;
                continue;
            }
            let entry = table.pages.entry(at).or_default();
            if entry.since != 0 {
                doc.overwritten += 1;
                self.live -= 1;
                release(&mut self.targets, entry.target);
            }
            (entry.since, entry.target) = (call, tce & !(page - 1));
            let users = self.targets.entry(entry.target).or_default();
            *users += 1;
            doc.max_iovas_per_target = doc.max_iovas_per_target.max(*users);
            match tce & CONTROL {
                READ => doc.read_only += 1,
                WRITE => doc.write_only += 1,
                _ => doc.read_write += 1,
            }
            self.live += 1;
            mapped += 1;
        }
        self.live -= cleared;
        doc.max_live = doc.max_live.max(self.live);
        doc.tces_mapped += mapped;
        let first = table.pages.get_mut(&start);
        if mapped > 0 {
            doc.map_calls += 1;
            doc.map_calls_after_another += u64::from(table.map_end.is_some());
            doc.map_calls_adjacent += u64::from(table.map_end == Some(start));
            table.map_end = Some(end);
            if let Some(first) = first {
                first.extent = tces.len() as u64;
            }
        } else if cleared > 0 {
            doc.unmap_calls += 1;
            let as_mapped = first.is_some_and(|first| first.extent == tces.len() as u64);
            doc.unmap_calls_as_mapped += u64::from(as_mapped);
        }
    }

    /// The window goes, with all that is mapped in it.
    fn close(&mut self, liobn: u32) {
        let Some(table) = self.tables.get_mut(&liobn) else { return };
        for entry in table.pages.values_mut().filter(|entry| entry.since != 0) {
            release(&mut self.targets, entry.target);
            entry.since = 0;
            self.live -= 1;
        }
        table.map_end = None;
    }

    /// What was counted; the caller fills in what is the file's.
    pub fn finish(self) -> StatDoc {
        let pages = self.tables.values().map(|table| table.pages.len() as u64).sum();
        StatDoc {
            live_at_end: self.live,
            indirect_npages: Quantiles::of(&self.lists),
            life_in_calls: Quantiles::of(&self.lives),
            iova_pages: pages,
            target_pages: self.targets.len() as u64,
            ..self.doc
        }
    }
}

fn release(targets: &mut HashMap<u64, u64>, target: u64) {
    if let Some(users) = targets.get_mut(&target) {
        *users -= 1;
    }
}
