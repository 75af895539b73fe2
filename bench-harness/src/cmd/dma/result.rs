// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the checks gave: counts for people and as a JSON document, schema `tce-bench.dma/1`.

use std::collections::BTreeMap;

use serde::Serialize;
use tce_engine::container::WindowInfo;

use super::suite::Dma;
use crate::columns;
use crate::host::HostFacts;
use crate::result::{BooksResult, Run, Tool};
use crate::style::Style;

/// The name of the schema.
pub(super) const SCHEMA: &str = "tce-bench.dma/1";

/// So many wrong ones are described.
const KEPT: usize = 20;

/// What is checked of each window with each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Memory → device → memory.
    Copy,
    /// A read that begins in one page and ends in the next.
    Crossing,
    /// A write to a mapping for reads stays out.
    ReadOnly,
    /// A write to a mapping for writes arrives.
    WriteOnly,
    /// What replaced a mapping is reached, what was replaced is not.
    Replaced,
    /// Where nothing is mapped any more, reads give zeros and writes are lost.
    Unmapped,
    /// A copy after an access that failed.
    AfterBad,
}

impl Check {
    const ALL: [Self; 7] = [
        Self::Copy,
        Self::Crossing,
        Self::ReadOnly,
        Self::WriteOnly,
        Self::Replaced,
        Self::Unmapped,
        Self::AfterBad,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Copy => "copies",
            Self::Crossing => "crossing",
            Self::ReadOnly => "read_only",
            Self::WriteOnly => "write_only",
            Self::Replaced => "replaced",
            Self::Unmapped => "unmapped",
            Self::AfterBad => "after_bad",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Copy => "copies",
            Self::Crossing => "over 2 pages",
            Self::ReadOnly => "read-only",
            Self::WriteOnly => "write-only",
            Self::Replaced => "replaced",
            Self::Unmapped => "unmapped",
            Self::AfterBad => "after a bad one",
        }
    }
}

/// How many were right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    pub(super) right: u64,
    pub(super) of: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.of += other.of;
    }

    fn text(self) -> String {
        if self.of == 0 { "–".into() } else { format!("{}/{}", self.right, self.of) }
    }
}

/// One device and one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct DeviceResult {
    pub(super) group: u32,
    pub(super) name: String,
    pub(super) checks: BTreeMap<&'static str, Tally>,
    /// Mappings for writes alone that the device could read: on powernv all of them.
    pub(super) write_only_readable: u64,
    /// What was wrong, the first of it.
    pub(super) wrong: Vec<String>,
}

impl DeviceResult {
    /// Counts one check, which was right if nothing is `wrong`.
    pub(super) fn count(&mut self, check: Check, place: &str, wrong: Option<&str>) {
        let right = u64::from(wrong.is_none());
        self.checks.entry(check.name()).or_default().add(Tally { right, of: 1 });
        if let Some(text) = wrong
            && self.wrong.len() < KEPT
        {
            self.wrong.push(format!("{}, {place}: {text}", check.title()));
        }
    }

    fn tally(&self, check: Check) -> Tally {
        self.checks.get(check.name()).copied().unwrap_or_default()
    }
}

/// One window, or why it was not checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct WindowResult {
    pub(super) name: String,
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) page_bytes: u64,
    pub(super) levels: u32,
    pub(super) devices: Vec<DeviceResult>,
}

impl WindowResult {
    pub(super) fn new<D: Dma>(name: String, window: &WindowInfo, devices: &[D]) -> Self {
        let geometry = &window.geometry;
        let device = |device: &D| DeviceResult {
            group: device.group().0,
            name: device.name().to_owned(),
            checks: BTreeMap::new(),
            write_only_readable: 0,
            wrong: Vec::new(),
        };
        Self {
            name,
            start: window.start.0,
            size: geometry.size(),
            page_bytes: geometry.page().bytes(),
            levels: geometry.levels(),
            devices: devices.iter().map(device).collect(),
        }
    }

    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.devices.iter().flat_map(|d| d.checks.values()).for_each(|t| total.add(*t));
        total
    }

    /// The table of this window.
    pub(super) fn report(&self, style: Style) -> String {
        let mut out = format!("\n{} at {:#x}\n", style.bold(&self.name), self.start);
        // No column for what was not asked.
        let asked: Vec<Check> = Check::ALL
            .into_iter()
            .filter(|c| self.devices.iter().any(|d| d.tally(*c).of > 0))
            .collect();
        let cell = |text: &str| text.to_owned();
        if asked.len() == Check::ALL.len() {
            let mut rows = vec![std::array::from_fn::<_, 9, _>(|column| match column {
                0 => cell("device"),
                1 => cell("group"),
                nth => cell(asked[nth - 2].title()),
            })];
            rows.extend(self.devices.iter().map(|device| {
                std::array::from_fn(|column| match column {
                    0 => device.name.clone(),
                    1 => device.group.to_string(),
                    nth => device.tally(asked[nth - 2]).text(),
                })
            }));
            columns::table(&mut out, &rows, style);
        } else {
            for device in &self.devices {
                for check in &asked {
                    let tally = device.tally(*check).text();
                    out += &format!(
                        "{} of group {}: {tally} {} right\n",
                        device.name,
                        device.group,
                        check.title()
                    );
                }
            }
        }
        for device in &self.devices {
            for text in &device.wrong {
                out += &format!("{} {}: {text}\n", style.red("wrong"), device.name);
            }
        }
        out
    }
}

/// A kind of window that could not be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Skipped {
    pub(super) name: String,
    pub(super) reason: String,
}

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Doc {
    pub(super) schema: &'static str,
    pub(super) tool: Tool,
    pub(super) run: Run,
    pub(super) host: HostFacts,
    pub(super) label: String,
    pub(super) machine: String,
    /// Null: unknown.
    pub(super) emulated: Option<bool>,
    pub(super) groups: Vec<u32>,
    /// The check with the group that was attached last; null with one group.
    pub(super) late: Option<WindowResult>,
    pub(super) windows: Vec<WindowResult>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) total: Tally,
    pub(super) books: BooksResult,
    /// Host pages that the engine still had charged at the end.
    pub(super) leaked_pages: u64,
    pub(super) verified: bool,
}

impl Doc {
    /// Adds up, and tells whether all was right.
    pub(super) fn conclude(&mut self) {
        let mut total = Tally::default();
        self.windows.iter().chain(&self.late).for_each(|w| total.add(w.total()));
        self.total = total;
        self.verified = self.run.complete
            && total.of > 0
            && total.right == total.of
            && self.books.first_difference.is_none()
            && self.leaked_pages == 0;
    }

    /// What stands below the tables.
    pub(super) fn summary(&self, style: Style) -> String {
        let mut out = String::from("\n");
        for Skipped { name, reason } in &self.skipped {
            out += &format!("{} {name}: {reason}\n", style.yellow("not checked"));
        }
        let devices: Vec<_> = self.windows.iter().flat_map(|w| &w.devices).collect();
        let (mut asked, mut readable) = (0, 0);
        for device in &devices {
            asked += device.tally(Check::WriteOnly).of;
            readable += device.write_only_readable;
        }
        if asked > 0 {
            out += &format!("write-only mappings that could be read: {readable} of {asked}\n");
        }
        match &self.books.first_difference {
            None => {
                let times = self.books.comparisons;
                out += &format!("locked memory equal to the ledger after all {times} steps\n");
            }
            Some(text) => out += &format!("{} {text}\n", style.red("wrong")),
        }
        if self.leaked_pages > 0 {
            out += &format!("{} {} pages still charged\n", style.red("wrong"), self.leaked_pages);
        }
        let Tally { right, of } = self.total;
        let complete = self.run.complete;
        let verdict = style.verdict(self.verified, complete, "verified: true", "verified: false");
        let windows = self.windows.len();
        out += &format!("{right} of {of} checks right in {windows} kinds of windows; {verdict}\n");
        out
    }
}
