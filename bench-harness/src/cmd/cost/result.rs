// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What requests cost: tables for people and a JSON document, schema `tce-bench.cost/1`.

use serde::Serialize;

use super::meter::Unit;
use super::paths::BATCH;
use super::tiers::{self, LEAF, TierCost};
use crate::cmd::least::Cost;
use crate::columns;
use crate::host::HostFacts;
use crate::result::{BackendKind, Run, Tool};
use crate::style::Style;

/// The name of the schema.
pub(super) const SCHEMA: &str = "tce-bench.cost/1";

/// A batch that is joined to one request may cost this much of it …
const FACTOR: f64 = 1.1;
/// … and so many instructions for each request of the batch.
const PER_REQUEST: f64 = 100.0;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PathKind {
    /// To the kernel, without the engine.
    Kernel,
    /// Through the engine to the kernel.
    Engine,
    /// Through the engine to the mock.
    Mock,
}

impl PathKind {
    fn title(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Engine => "engine + kernel",
            Self::Mock => "engine + mock",
        }
    }
}

/// What one request costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RequestCost {
    pub(super) pages: u64,
    /// Per request.
    pub(super) map: Cost,
    /// Per request.
    pub(super) unmap: Cost,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct PathResult {
    pub(super) path: PathKind,
    pub(super) requests: Vec<RequestCost>,
}

/// A batch against one request, least cost of each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Joined {
    /// The batch.
    pub(super) batch: Cost,
    /// One request for the same pages.
    pub(super) one: Cost,
    /// The first by the second.
    pub(super) ratio: f64,
    /// What the batch costs beyond [`FACTOR`] of the other, per request.
    pub(super) per_request: f64,
    /// Whether that is at most [`PER_REQUEST`]; null where it is not judged.
    pub(super) passed: Option<bool>,
}

impl Joined {
    pub(super) fn new(batch: Cost, one: Cost) -> Self {
        Self {
            batch,
            one,
            ratio: batch.min / one.min,
            per_request: (batch.min - FACTOR * one.min) / BATCH as f64,
            passed: None,
        }
    }
}

/// Both sorts of batches on one path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct BatchCost {
    pub(super) path: PathKind,
    pub(super) map: Joined,
    pub(super) unmap: Joined,
}

impl BatchCost {
    pub(super) fn new(path: PathKind, one: &RequestCost, map: Cost, unmap: Cost) -> Self {
        Self { path, map: Joined::new(map, one.map), unmap: Joined::new(unmap, one.unmap) }
    }
}

/// Everything of one shape of table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Shape {
    pub(super) levels: u32,
    pub(super) paths: Vec<PathResult>,
    pub(super) batches: Vec<BatchCost>,
}

impl Shape {
    fn least(&self, path: PathKind, nth: usize, unmap: bool) -> Option<f64> {
        let path = self.paths.iter().find(|p| p.path == path)?;
        let request = path.requests.get(nth)?;
        let cost = if unmap { request.unmap } else { request.map };
        Some(cost.min / request.pages as f64)
    }
}

/// The document. All costs are in `unit`.
#[derive(Debug, Serialize)]
pub(super) struct Doc {
    pub(super) schema: &'static str,
    pub(super) tool: Tool,
    pub(super) run: Run,
    pub(super) host: HostFacts,
    /// `instructions` or `ns`.
    pub(super) unit: &'static str,
    /// Null: there is none.
    pub(super) kernel: Option<BackendKind>,
    pub(super) kernel_label: Option<String>,
    pub(super) machine: Option<String>,
    pub(super) mock_label: &'static str,
    pub(super) groups: u32,
    pub(super) repeat: u32,
    /// Of reading the clock; subtracted everywhere.
    pub(super) clock_overhead: f64,
    /// A request that does nothing.
    pub(super) null_ioctl: Option<Cost>,
    pub(super) shapes: Vec<Shape>,
    /// Of this machine.
    pub(super) tiers: Vec<TierCost>,
    /// Whether joined batches are within their limit; null where that is not judged.
    pub(super) passed: Option<bool>,
}

impl Doc {
    /// Judges the batches, if instructions were counted: times are never judged. A simulated kernel
    /// is not either.
    pub(super) fn judge(&mut self, unit: Unit) {
        if unit == Unit::Ns || self.shapes.is_empty() {
            return;
        }
        let simulated = self.kernel == Some(BackendKind::MockKernel);
        let batches = self.shapes.iter_mut().flat_map(|shape| &mut shape.batches);
        let judged = batches.filter(|batch| !(simulated && batch.path == PathKind::Engine));
        let mut all = true;
        for joined in judged.flat_map(|batch| [&mut batch.map, &mut batch.unmap]) {
            let passed = joined.per_request <= PER_REQUEST;
            joined.passed = Some(passed);
            all &= passed;
        }
        self.passed = Some(all);
    }

    /// The tables.
    pub(super) fn report(&self, style: Style) -> String {
        let mut out = String::new();
        match &self.kernel_label {
            Some(label) => out += &format!("kernel: {label}\n"),
            None => out += "kernel: none (--backend vfio tells why)\n",
        }
        if let Some(machine) = &self.machine {
            out += &format!("machine: {machine}\n");
        }
        out += &format!("mock: {}\n", self.mock_label);
        if let Some(null) = self.null_ioctl {
            out += &format!("a request that does nothing: {:.0} {}\n", null.min, self.unit);
        }
        for shape in &self.shapes {
            self.table(&mut out, shape, style);
        }
        self.batches(&mut out, style);
        if !self.tiers.is_empty() {
            let (title, n) = (style.bold(&format!("{} per TCE", self.unit)), self.repeat);
            out += &format!("\n{title} of each tier's loops over a leaf of {LEAF}, least of {n}\n");
            tiers::table(&mut out, &self.tiers, style);
        }
        if !self.run.complete {
            out += &format!("\n{}\n", style.yellow("interrupted, incomplete"));
        }
        out
    }

    fn table(&self, out: &mut String, shape: &Shape, style: Style) {
        let s = |number: u32| if number == 1 { "" } else { "s" };
        let (groups, levels) = (self.groups, shape.levels);
        let title = format!("{groups} group{}, {levels} level{}", s(groups), s(levels));
        *out += &format!(
            "\n{}: {} per page, least of {}\n",
            style.bold(&title),
            self.unit,
            self.repeat
        );
        let heads = ["kernel", "engine + kernel", "its own", "engine + mock"];
        let mut rows = vec![std::array::from_fn::<_, 9, _>(|column| match column {
            0 => "pages a request".to_owned(),
            nth @ 1..5 => format!("map: {}", heads[nth - 1]),
            5 => format!("unmap: {}", heads[0]),
            nth => heads[nth - 5].to_owned(),
        })];
        for (head, name) in rows[0][2..5].iter_mut().zip(&heads[1..]) {
            *head = (*name).to_owned();
        }
        let dash = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.1}"));
        let requests = shape.paths.first().map(|p| p.requests.as_slice()).unwrap_or_default();
        for (nth, request) in requests.iter().enumerate() {
            let mut row = vec![request.pages.to_string()];
            for unmap in [false, true] {
                let least = |path| shape.least(path, nth, unmap);
                let (raw, over) = (least(PathKind::Kernel), least(PathKind::Engine));
                let own = raw.zip(over).map(|(raw, over)| over - raw);
                row.extend([raw, over, own, least(PathKind::Mock)].map(dash));
            }
            rows.extend(<[String; 9]>::try_from(row));
        }
        columns::table(out, &rows, style);
    }

    fn batches(&self, out: &mut String, style: Style) {
        *out += &format!(
            "\n{}: {}\n",
            style.bold(&format!("{BATCH} adjacent requests of one page, joined")),
            format_args!(
                "{} a batch; limit {FACTOR} × one request + {PER_REQUEST} each",
                self.unit
            )
        );
        let heads = ["path", "levels", "op", "batch", "one request", "ratio", "each beyond", ""];
        let mut rows = vec![heads.map(str::to_owned)];
        for shape in &self.shapes {
            for batch in &shape.batches {
                for (op, joined) in [("map", &batch.map), ("unmap", &batch.unmap)] {
                    rows.push([
                        batch.path.title().to_owned(),
                        shape.levels.to_string(),
                        op.to_owned(),
                        format!("{:.0}", joined.batch.min),
                        format!("{:.0}", joined.one.min),
                        format!("{:.3}", joined.ratio),
                        format!("{:.1}", joined.per_request),
                        match joined.passed {
                            None => "not judged".to_owned(),
                            Some(true) => style.green("PASS"),
                            Some(false) => style.red("FAIL"),
                        },
                    ]);
                }
            }
        }
        columns::table(out, &rows, style);
        if self.passed.is_none() {
            *out += "only instruction counts are judged (scripts/power8-vm --icount), not times\n";
        }
    }
}
