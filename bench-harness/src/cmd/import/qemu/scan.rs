// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The first reading of a capture: which windows there are at power-on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;

use super::capture::{self, Reader, Record};
use super::rtas::{Buids, WindowCall};
use crate::cli::PowerOn;
use crate::cmd::import::Window;
use crate::interrupt::interrupted_at;
use crate::trace::{TraceError, phb_of};

/// The pages of a window that nobody tells of: of power-on, they are of this size.
const DEFAULT_SHIFT: u8 = 12;

/// A window of power-on, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) spec: PowerOn,
    pub(super) from: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// `--window` or the capture's head.
    Told,
    /// The addresses of its calls.
    Calls,
}

/// What the first reading finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    /// Those that a call names, or whose PHB one does, by LIOBN.
    pub(super) windows: Vec<Known>,
    /// When the first call was.
    pub(super) begin_ns: u64,
    pub(super) calls: u64,
}

impl Scan {
    pub(super) fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for window in self.windows.iter().filter(|window| window.from == Source::Calls) {
            let PowerOn { liobn, start, page_shift, pages } = window.spec;
            lines.push(format!(
                "nobody tells of the window of LIOBN {liobn:#x}: taken to be \
                 {liobn:#x}:{start:#x}:{page_shift}:{pages}, which has all addresses of its calls"
            ));
        }
        let phbs: BTreeSet<u32> = self.windows.iter().map(|w| phb_of(w.spec.liobn)).collect();
        if phbs.len() < self.windows.len() {
            lines.push(
                "some windows of power-on have LIOBNs of one PHB, as several VIO devices do: replay takes \
                 one of them at a time, which trace cut --liobn makes a trace of"
                    .to_string(),
            );
        }
        lines
    }
}

/// Reads all of a capture; `None` if that was interrupted. `given` goes before what the capture tells.
pub(super) fn scan<R: Read>(
    mut reader: Reader<R>,
    given: &[PowerOn],
) -> Result<Option<Scan>, TraceError> {
    let mut told = BTreeMap::new();
    for window in reader.head().windows.iter().chain(given) {
        told.insert(window.liobn, *window);
    }
    let mut seen = Seen { told, ..Seen::default() };
    let (mut begin_ns, mut calls) = (None, 0);
    while let Some(record) = reader.next()? {
        calls += 1;
        if interrupted_at(calls) {
            return Ok(None);
        }
        begin_ns.get_or_insert(record.t_ns);
        seen.take(&record).map_err(|text| reader.fail(text))?;
    }
    let windows = seen.windows().map_err(|text| reader.fail(text))?;
    Ok(Some(Scan { windows, begin_ns: begin_ns.unwrap_or(0), calls }))
}

#[derive(Default)]
struct Seen {
    told: BTreeMap<u32, PowerOn>,
    /// Made by the guest.
    made: HashSet<u32>,
    /// LIOBNs that calls name, and PHBs.
    named: BTreeSet<u32>,
    phbs: BTreeSet<u32>,
    buids: Buids,
    /// The first and the last page that a call that succeeded names, of windows nobody told of.
    reach: BTreeMap<u32, (u64, u64)>,
}

impl Seen {
    fn take(&mut self, record: &Record) -> Result<(), String> {
        if record.nr == capture::H_RTAS {
            match WindowCall::of(record) {
                Some(WindowCall::Create { buid, given: Some((liobn, _)), .. }) => {
                    self.buids.learn(buid, liobn);
                    self.made.insert(liobn);
                    self.phbs.insert(phb_of(liobn));
                }
                Some(
                    WindowCall::Query { buid, .. }
                    | WindowCall::Create { buid, .. }
                    | WindowCall::Reset { buid, .. },
                ) => self.phbs.extend(self.buids.liobn(buid).map(phb_of)),
                Some(WindowCall::Remove { liobn, .. }) => {
                    self.phbs.insert(phb_of(liobn));
                }
                None => {}
            }
            return Ok(());
        }
        let Ok(liobn) = u32::try_from(record.args[0]) else { return Ok(()) };
        self.named.insert(liobn);
        if record.ret != 0 || !record.answered() {
            return Ok(());
        }
        self.phbs.insert(phb_of(liobn));
        if self.told.contains_key(&liobn) || self.made.contains(&liobn) {
            return Ok(());
        }
        let pages = match record.nr {
            capture::H_PUT_TCE_INDIRECT | capture::H_STUFF_TCE => record.args[3],
            _ => 1,
        };
        let Some(more) = pages.checked_sub(1) else { return Ok(()) };
        let page = 1 << DEFAULT_SHIFT;
        let first = record.args[1] & !(page - 1);
        let last = more.checked_mul(page).and_then(|more| first.checked_add(more));
        let last = last.ok_or_else(|| {
            format!("a call that succeeded from {first:#x} on reaches {pages} pages, beyond 2^64")
        })?;
        let (low, high) = self.reach.get(&liobn).copied().unwrap_or((first, last));
        self.reach.insert(liobn, (low.min(first), high.max(last)));
        Ok(())
    }

    fn windows(self) -> Result<Vec<Known>, String> {
        // A VIO device's window matters if the device is used: beside others of "its PHB" it cannot be replayed.
        let alone =
            |liobn: u32| self.told.keys().filter(|l| phb_of(**l) == phb_of(liobn)).count() == 1;
        let wanted = |liobn: u32| {
            self.named.contains(&liobn) || (self.phbs.contains(&phb_of(liobn)) && alone(liobn))
        };
        let told = self.told.values().filter(|spec| wanted(spec.liobn));
        let told = told.map(|spec| Known { spec: *spec, from: Source::Told });
        let mut windows: Vec<_> = told.collect();
        for (&liobn, &(low, high)) in &self.reach {
            let around = Window::around(low, high, 1 << DEFAULT_SHIFT).ok_or_else(|| {
                format!(
                    "the calls of LIOBN {liobn:#x} reach from {low:#x} to {high:#x}; accepted: a stretch of less \
                     than 2^64, or a --window"
                )
            })?;
            let (start, page_shift) = (around.base, DEFAULT_SHIFT);
            let spec = PowerOn { liobn, start, page_shift, pages: around.size >> DEFAULT_SHIFT };
            windows.push(Known { spec, from: Source::Calls });
        }
        windows.sort_by_key(|window| window.spec.liobn);
        Ok(windows)
    }
}
