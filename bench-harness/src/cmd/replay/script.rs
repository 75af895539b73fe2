// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A trace made ready: the PHBs that firmware set up, then steps that need no more decoding.

use std::collections::BTreeSet;
use std::path::Path;

use tce_engine::addr::{PageShift, PageSizes};
use tce_engine::geometry::WindowSpec;

pub(super) use crate::trace::phb_of;
use crate::trace::{Counts, Op, TraceError, TraceFile};

/// A PHB and the default window that firmware gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PhbSetup {
    pub(super) line: u64,
    pub(super) liobn: u32,
    pub(super) ioba: u64,
    pub(super) window: WindowSpec,
}

impl PhbSetup {
    pub(super) const fn phb(&self) -> u32 {
        phb_of(self.liobn)
    }
}

/// A line of the trace with everything that its call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) line: u64,
    /// The recorded return code or status.
    pub(super) ret: i64,
    /// Which of the guest's handles makes the call; 0 unless [`Script::on_vcpus`] dealt them out.
    pub(super) vcpu: u16,
    pub(super) call: Call,
}

/// What to call. A list is a range of [`Script::words`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Put {
        liobn: u32,
        ioba: u64,
        tce: u64,
    },
    Indirect {
        liobn: u32,
        ioba: u64,
        start: u32,
        end: u32,
    },
    Stuff {
        liobn: u32,
        ioba: u64,
        value: u64,
        count: u64,
    },
    /// `value` is what the guest got.
    Get {
        liobn: u32,
        ioba: u64,
        value: u64,
    },
    /// `given` is the LIOBN and bus address that the guest got.
    Create {
        phb: u32,
        page_shift: u8,
        entries: u64,
        given: Option<(u32, u64)>,
    },
    Remove {
        liobn: u32,
    },
    Reset {
        phb: u32,
    },
    /// `value` is the target page and the permission that the device got.
    Xlate {
        liobn: u32,
        ioba: u64,
        value: u64,
    },
    /// The handle's batch ends; no trace has it. See [`Script::batch`].
    Submit,
}

/// The four hypercalls and the end of a batch, as results name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Indirect,
    Stuff,
    Get,
    Submit,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Put, Self::Indirect, Self::Stuff, Self::Get, Self::Submit];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Indirect => "indirect",
            Self::Stuff => "stuff",
            Self::Get => "get",
            Self::Submit => "submit",
        }
    }
}

impl Call {
    /// Which hypercall it is, or the end of a batch; `None` for window calls and translations.
    #[inline]
    pub(super) const fn kind(&self) -> Option<Kind> {
        match self {
            Self::Put { .. } => Some(Kind::Put),
            Self::Indirect { .. } => Some(Kind::Indirect),
            Self::Stuff { .. } => Some(Kind::Stuff),
            Self::Get { .. } => Some(Kind::Get),
            Self::Submit => Some(Kind::Submit),
            _ => None,
        }
    }
}

/// When a line was recorded, and on which vCPU, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct When {
    pub(super) t_ns: u64,
    pub(super) cpu: Option<u32>,
}

/// A trace ready to be replayed any number of times.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// As the user named it.
    pub(super) file: String,
    /// The trace's own name.
    pub(super) name: String,
    pub(super) phbs: Vec<PhbSetup>,
    pub(super) steps: Vec<Step>,
    /// Of each step.
    pub(super) when: Vec<When>,
    /// Handles that make the calls.
    pub(super) vcpus: u16,
    /// All lists, as they stand in the guest's memory: big-endian.
    pub(super) words: Vec<u64>,
    pub(super) counts: Counts,
    /// Page sizes of all windows that the recorded platform made.
    pub(super) page_sizes: PageSizes,
    pub(super) last_line: u64,
    largest_target: u64,
}

impl Script {
    /// Reads and prepares the trace at `path`.
    ///
    /// # Errors
    /// The first thing that is wrong, and its line.
    pub(super) fn load(path: &Path) -> Result<Self, TraceError> {
        Self::new(TraceFile::load(path)?)
    }

    /// Prepares a trace.
    ///
    /// # Errors
    /// A window that no platform can have made, a failed window-create that names no PHB where
    /// there are several, two default windows of one PHB.
    pub(super) fn new(trace: TraceFile) -> Result<Self, TraceError> {
        let largest_target = trace.largest_target();
        let TraceFile { file, name, records, mut pool, counts, .. } = trace;
        let fail = |line, text| TraceError { file: file.clone(), line, text };
        let mut phbs: Vec<PhbSetup> = Vec::new();
        let mut page_sizes = PageSizes::default();
        for record in &records {
            let Op::WindowCreate { liobn, ioba, page_shift, entries, power_on, .. } = record.op
            else {
                continue;
            };
            let (Some(liobn), Some(ioba)) = (liobn, ioba) else {
                if power_on {
                    let text = "the default window was not created; accepted: ret 0";
                    return Err(fail(record.line, text.to_string()));
                }
                continue;
            };
            let window = window_spec(page_shift, entries).map_err(|e| fail(record.line, e))?;
            page_sizes.0 |= window.page.bytes();
            if !power_on {
                continue;
            }
            if let Some(other) = phbs.iter().find(|p| p.phb() == phb_of(liobn)) {
                return Err(fail(
                    record.line,
                    format!(
                        "a second default window for PHB {:#x}, after line {}; accepted: one",
                        other.phb(),
                        other.line
                    ),
                ));
            }
            phbs.push(PhbSetup { line: record.line, liobn, ioba, window });
        }
        if phbs.len() > usize::from(u16::MAX) {
            let text = format!("{} PHBs; accepted: up to {}", phbs.len(), u16::MAX);
            return Err(fail(0, text));
        }
        let known: BTreeSet<u32> = phbs.iter().map(PhbSetup::phb).collect();
        let last_line = records.last().map_or(1, |record| record.line);
        let mut steps = Vec::with_capacity(records.len() - phbs.len());
        let mut when = Vec::with_capacity(steps.capacity());
        for record in records {
            let line = record.line;
            if let Some((call, ret)) = step(record.op, &known).map_err(|text| fail(line, text))? {
                steps.push(Step { line, ret, vcpu: 0, call });
                when.push(When { t_ns: record.t_ns, cpu: record.cpu });
            }
        }
        // The guest's list page is big-endian; a copy of it is what each call then makes.
        pool.iter_mut().for_each(|word| *word = word.to_be());
        Ok(Self {
            file,
            name,
            phbs,
            steps,
            when,
            vcpus: 1,
            words: pool,
            counts,
            page_sizes,
            last_line,
            largest_target,
        })
    }

    /// The guest's RAM: what was asked for, else up to the largest target, in whole host pages.
    ///
    /// # Errors
    /// If the trace names the very end of the address space.
    pub(super) fn ram(&self, asked: Option<u64>, host_page: PageShift) -> Result<u64, TraceError> {
        if let Some(bytes) = asked {
            return Ok(bytes);
        }
        let needed = self.largest_target.max(1);
        needed.checked_next_multiple_of(host_page.bytes()).ok_or_else(|| TraceError {
            file: self.file.clone(),
            line: 0,
            text: format!("its targets end at {needed:#x}; accepted: guest RAM below 2^64"),
        })
    }

    /// A list's entries as numbers.
    pub(super) fn values(&self, start: u32, end: u32) -> impl Iterator<Item = u64> {
        self.words[start as usize..end as usize].iter().map(|word| u64::from_be(*word))
    }

    /// `FILE:LINE`.
    pub(super) fn at(&self, line: u64) -> String {
        format!("{}:{line}", self.file)
    }
}

pub(super) fn window_spec(page_shift: u8, entries: u64) -> Result<WindowSpec, String> {
    let page = PageShift::new(u32::from(page_shift))
        .ok_or_else(|| format!("a window of 2^{page_shift} byte pages; accepted: 2^12 to 2^34"))?;
    let size = power_of_two(entries)?
        .checked_mul(page.bytes())
        .ok_or_else(|| format!("a window of {entries} pages of {page} does not fit in 64 bits"))?;
    Ok(WindowSpec::new(size, page))
}

fn power_of_two(entries: u64) -> Result<u64, String> {
    if entries.is_power_of_two() {
        return Ok(entries);
    }
    Err(format!("a window of {entries} TCEs; accepted: a power of two"))
}

/// The call of a line and its recorded answer; `None` for a default window, which no guest asks
/// for.
fn step(op: Op, phbs: &BTreeSet<u32>) -> Result<Option<(Call, i64)>, String> {
    Ok(Some(match op {
        Op::Put { liobn, ioba, tce, ret } => (Call::Put { liobn, ioba, tce }, ret),
        Op::Indirect { liobn, ioba, list, ret } => {
            (Call::Indirect { liobn, ioba, start: list.start, end: list.end }, ret)
        }
        Op::Stuff { liobn, ioba, value, npages, ret } => {
            (Call::Stuff { liobn, ioba, value, count: npages }, ret)
        }
        Op::Get { liobn, ioba, value, ret } => (Call::Get { liobn, ioba, value }, ret),
        Op::WindowCreate { power_on: true, .. } => return Ok(None),
        Op::WindowCreate { liobn, ioba, page_shift, entries, ret, .. } => {
            if entries != 0 {
                power_of_two(entries)?;
            }
            let phb = match (liobn, phbs.first()) {
                (Some(liobn), _) => phb_of(liobn),
                (None, Some(phb)) if phbs.len() == 1 => *phb,
                (None, _) => {
                    return Err(format!(
                        "a failed window-create names no PHB and the trace has {}; accepted: one",
                        phbs.len()
                    ));
                }
            };
            (Call::Create { phb, page_shift, entries, given: liobn.zip(ioba) }, ret)
        }
        Op::WindowRemove { liobn, ret } => (Call::Remove { liobn }, ret),
        Op::WindowReset { liobn, ret } => (Call::Reset { phb: phb_of(liobn) }, ret),
        Op::Xlate { liobn, ioba, value } => (Call::Xlate { liobn, ioba, value }, 0),
    }))
}
