// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench trace cut`: a part of a trace that replays by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use anyhow::{anyhow, bail};

use crate::cli::{CallRange, CutConfig, LineKind};
use crate::cmd::Status;
use crate::interrupt::interrupted_at;
use crate::outfile::Pieces;
use crate::style::thousands;
use crate::trace::{HEADER, MAX_LIST, Op, Reader, Record, Windows, phb_of, write_line};

/// What was written.
#[derive(Debug, Default)]
struct Kept {
    calls: u64,
    xlates: u64,
    windows: u64,
    /// TCEs that were mapped where the range begins, and the calls that map them.
    tces: u64,
    prologue: u64,
}

pub(super) fn cut(config: &CutConfig) -> anyhow::Result<Status> {
    config.out.check().map_err(|e| anyhow!(e))?;
    let mut reader = Reader::open(&config.trace)?;
    let Some(kept) = config.out.stream(|out| copy(config, &mut reader, out))? else {
        return Ok(Status::Interrupted);
    };
    if !config.quiet {
        eprintln!(
            "{} call(s), {} translation(s), {} window line(s); {} TCE(s) mapped before them by {} call(s)",
            thousands(kept.calls),
            thousands(kept.xlates),
            thousands(kept.windows),
            thousands(kept.tces),
            thousands(kept.prologue)
        );
    }
    Ok(Status::Ok)
}

fn copy(
    config: &CutConfig,
    reader: &mut Reader<File>,
    out: Pieces<'_>,
) -> anyhow::Result<Option<Kept>> {
    let range = config.calls.unwrap_or(CallRange { first: 0, last: u64::MAX });
    let mut choice = Choice { config, power_on: BTreeSet::new(), seen: BTreeSet::new() };
    let (mut kept, mut before) = (Kept::default(), Some(Before::default()));
    let (mut calls, mut lines, mut pool) = (0, 0_u64, Vec::new());
    while let Some(record) = reader.next(&mut pool)? {
        if lines == 0 {
            header(config, &reader.name(), out)?;
        }
        lines += 1;
        if interrupted_at(lines) {
            return Ok(None);
        }
        calls += u64::from(record.op.is_call());
        if calls > range.last {
            break;
        }
        let wanted = choice.wants(&record.op);
        let inside = calls >= range.first;
        if inside && let Some(before) = before.take() {
            before.write(out, &mut kept)?;
        }
        if let Some(before) = &mut before
            && choice.has_liobn(&record.op)
        {
            before.see(&record, &pool).map_err(|text| reader.fail(text))?;
        }
        pool.clear();
        let window = is_window(&record.op);
        if wanted && (inside || window) {
            writeln!(out, "{}", reader.text()?)?;
            let xlate = matches!(record.op, Op::Xlate { .. });
            kept.windows += u64::from(window);
            kept.xlates += u64::from(xlate);
            kept.calls += u64::from(!window && !xlate);
        }
    }
    let name = reader.file();
    if let Some(CallRange { first, last }) = config.calls
        && calls < last
    {
        bail!("{name}: --calls {first}-{last}: the trace has {calls} calls; accepted: 1-{calls}");
    }
    if let Some(liobn) = config.liobns.iter().find(|liobn| !choice.seen.contains(liobn)) {
        let all: Vec<_> = choice.seen.iter().map(|liobn| format!("{liobn:#x}")).collect();
        bail!("{name}: --liobn {liobn:#x}: no line names it; there are: {}", all.join(", "));
    }
    if kept.calls + kept.xlates == 0 {
        bail!("{name}: none of its calls and translations is in what is to be kept");
    }
    Ok(Some(kept))
}

fn header(config: &CutConfig, name: &str, out: Pieces<'_>) -> anyhow::Result<()> {
    writeln!(out, "{HEADER}\n# name {name}")?;
    write!(out, "# cut of {name}:")?;
    if let Some(CallRange { first, last }) = config.calls {
        write!(out, " calls {first}-{last}")?;
    }
    for liobn in &config.liobns {
        write!(out, " liobn {liobn:#x}")?;
    }
    for kind in &config.kinds {
        write!(out, " {}", format!("{kind:?}").to_lowercase())?;
    }
    writeln!(out, "\n# columns: t_ns op liobn ioba value npages ret cpu dur_ns")?;
    Ok(())
}

const fn is_window(op: &Op) -> bool {
    matches!(op, Op::WindowCreate { .. } | Op::WindowRemove { .. } | Op::WindowReset { .. })
}

/// The LIOBN that a line names, and what kind it is; no kind for windows, which cannot be left out.
const fn named(op: &Op) -> (Option<u32>, Option<LineKind>) {
    match *op {
        Op::Put { liobn, .. } => (Some(liobn), Some(LineKind::Put)),
        Op::Indirect { liobn, .. } => (Some(liobn), Some(LineKind::Indirect)),
        Op::Stuff { liobn, .. } => (Some(liobn), Some(LineKind::Stuff)),
        Op::Get { liobn, .. } => (Some(liobn), Some(LineKind::Get)),
        Op::Xlate { liobn, .. } => (Some(liobn), Some(LineKind::Xlate)),
        Op::WindowCreate { liobn, .. } => (liobn, None),
        Op::WindowRemove { liobn, .. } | Op::WindowReset { liobn, .. } => (Some(liobn), None),
    }
}

/// Which lines are to be kept, wherever they stand.
struct Choice<'a> {
    config: &'a CutConfig,
    /// PHBs that firmware gave a window.
    power_on: BTreeSet<u32>,
    /// LIOBNs that lines named.
    seen: BTreeSet<u32>,
}

impl Choice<'_> {
    fn wants(&mut self, op: &Op) -> bool {
        let (liobn, kind) = named(op);
        self.seen.extend(liobn);
        if let Op::WindowCreate { liobn: Some(liobn), power_on: true, .. } = op {
            self.power_on.insert(phb_of(*liobn));
        }
        match kind {
            Some(kind) => {
                let kinds = &self.config.kinds;
                self.has_liobn(op) && (kinds.is_empty() || kinds.contains(&kind))
            }
            None => self.has_phb(liobn),
        }
    }

    fn has_liobn(&self, op: &Op) -> bool {
        let liobns = &self.config.liobns;
        let (liobn, kind) = named(op);
        liobns.is_empty() || kind.is_none() || liobn.is_some_and(|liobn| liobns.contains(&liobn))
    }

    /// All windows of a PHB are kept: which LIOBN and bus address the next one gets depends on them. A
    /// create that failed names none; it is of the only PHB.
    fn has_phb(&self, liobn: Option<u32>) -> bool {
        let liobns = &self.config.liobns;
        let has = |phb: u32| liobns.iter().any(|liobn| phb_of(*liobn) == phb);
        liobns.is_empty()
            || match liobn {
                Some(liobn) => has(phb_of(liobn)),
                None => self.power_on.len() == 1 && self.power_on.iter().any(|phb| has(*phb)),
            }
    }
}

/// What was mapped before the range.
#[derive(Debug, Default)]
struct Before {
    windows: Windows,
    /// TCEs by LIOBN and bus address of their page.
    live: BTreeMap<u32, BTreeMap<u64, u64>>,
    t_ns: u64,
}

impl Before {
    fn see(&mut self, record: &Record, list: &[u64]) -> Result<(), String> {
        self.t_ns = record.t_ns;
        if !record.op.stores(list, |liobn, ioba, tces| self.store(liobn, ioba, tces))? {
            for liobn in self.windows.see(&record.op) {
                self.live.remove(&liobn);
            }
        }
        Ok(())
    }

    fn store(&mut self, liobn: u32, ioba: u64, tces: &[u64]) {
        let page = 1u64 << self.windows.page_shift(liobn);
        let table = self.live.entry(liobn).or_default();
        let mut at = ioba & !(page - 1);
        for &tce in tces {
            if tce & 3 == 0 {
                table.remove(&at);
            } else {
                table.insert(at, tce);
            }
            at = at.wrapping_add(page);
        }
    }

    /// Calls that map it again: lists of adjacent pages.
    fn write(mut self, mut out: Pieces<'_>, kept: &mut Kept) -> anyhow::Result<()> {
        for (liobn, table) in std::mem::take(&mut self.live) {
            let page = 1u64 << self.windows.page_shift(liobn);
            let (mut ioba, mut list) = (0, Vec::new());
            for (at, tce) in table {
                let end = page.wrapping_mul(list.len() as u64).wrapping_add(ioba);
                if list.len() == MAX_LIST || at != end {
                    self.flush(&mut out, liobn, ioba, &mut list, kept)?;
                }
                if list.is_empty() {
                    ioba = at;
                }
                list.push(tce);
            }
            self.flush(&mut out, liobn, ioba, &mut list, kept)?;
        }
        Ok(())
    }

    fn flush(
        &self,
        out: &mut Pieces<'_>,
        liobn: u32,
        ioba: u64,
        list: &mut Vec<u64>,
        kept: &mut Kept,
    ) -> anyhow::Result<()> {
        let op = match list.as_slice() {
            [] => return Ok(()),
            [tce] => Op::Put { liobn, ioba, tce: *tce, ret: 0 },
            _ => Op::Indirect { liobn, ioba, list: 0..list.len() as u32, ret: 0 },
        };
        let record = Record { line: 0, t_ns: self.t_ns, cpu: None, op };
        write_line(out, &record, list, None)?;
        kept.prologue += 1;
        kept.tces += list.len() as u64;
        list.clear();
        Ok(())
    }
}
