// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench workloads verify`: each workload once, briefly, and whether what it expects came out.

use std::fmt::Write as _;
use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use serde::Serialize;

use super::{asked, complain, usable};
use crate::cli::{VerifyConfig, small};
use crate::cmd::run::measure;
use crate::cmd::{Status, show, write_json};
use crate::host::HostFacts;
use crate::interrupt::interrupted;
use crate::outfile::OutFile;
use crate::result::{ResultDoc, Run, Tool};
use crate::style::Style;
use crate::workload::{Check, Workload};

/// The name of the schema.
const SCHEMA: &str = "tce-bench.verify/1";

/// The document.
#[derive(Debug, Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    run: Run,
    host: HostFacts,
    /// In the order in which they ran; not all of them if the run is not complete.
    workloads: Vec<Verified>,
    /// All of them are, and none is left.
    right: bool,
}

/// One workload.
#[derive(Debug, Serialize)]
struct Verified {
    /// As it was asked for.
    asked: String,
    verdict: Verdict,
    /// Why it was not run, or that it is not verified; null if neither.
    reason: Option<String>,
    /// Null if the file is not right.
    workload: Option<About>,
    /// What was measured on; null if it was not run.
    label: Option<String>,
    /// As of a result.
    verified: Option<bool>,
    /// What was expected, in the order of the file.
    checks: Vec<Check>,
}

/// What came of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// It is verified, and all that it expects came out.
    Right,
    /// It is not.
    Wrong,
    /// Its file is not right.
    Broken,
    /// It could not be run here.
    Failed,
}

#[derive(Debug, Serialize)]
struct About {
    name: String,
    origin: String,
    digest: String,
}

impl Verified {
    fn new(asked: &str, verdict: Verdict) -> Self {
        let (asked, checks) = (asked.to_owned(), Vec::new());
        Self { asked, verdict, reason: None, workload: None, label: None, verified: None, checks }
    }

    /// Of a run of it.
    fn of(asked: &str, workload: &Workload, doc: &ResultDoc) -> Self {
        let mut checks: Vec<Check> = workload.expect.iter().map(|e| e.check(doc)).collect();
        checks.sort_by_key(|check| check.line);
        // Expected or not: counts of wrong work mean nothing.
        let verified = doc.verified == Some(true);
        let right = verified && checks.iter().all(|check| check.right);
        let why = doc.verification.first_mismatch.as_deref().unwrap_or("nobody could be asked");
        Self {
            reason: (!verified).then(|| format!("not verified: {why}")),
            workload: Some(About::new(workload)),
            label: Some(doc.backend.label.clone()),
            verified: doc.verified,
            checks,
            ..Self::new(asked, if right { Verdict::Right } else { Verdict::Wrong })
        }
    }

    fn report(&self, workload: &Workload, style: Style) -> String {
        let mut out = String::new();
        let right = self.verdict == Verdict::Right;
        let mark = if right { style.green("ok    ") } else { style.red("FAILED") };
        let _ = writeln!(out, "{mark} {}", workload.name);
        // Else the check that failed says so.
        if self.checks.iter().all(|check| check.right)
            && let Some(reason) = &self.reason
        {
            let _ = writeln!(out, "       {reason}");
        }
        for Check { key, line, wanted, found, right } in &self.checks {
            let at = if *right { String::new() } else { format!(" ({}:{line})", workload.origin) };
            let sign = if *right { String::new() } else { style.red("wrong: ") };
            let _ = writeln!(out, "       {sign}{key}: {found}, expected {wanted}{at}");
        }
        out
    }
}

impl About {
    fn new(workload: &Workload) -> Self {
        let Workload { name, origin, digest, .. } = workload.clone();
        Self { name, origin, digest }
    }
}

/// Runs each and reports.
///
/// # Errors
/// What failed, one line; what was found before has been written.
pub(super) fn verify(config: &VerifyConfig, argv: &[String]) -> anyhow::Result<Status> {
    let VerifyConfig { names, json, quiet } = config;
    json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let (started, begin) = (SystemTime::now(), Instant::now());
    let told = !quiet && *json != Some(OutFile::Stdout);
    let (mut done, mut failed) = (Vec::new(), None);
    for name in asked(names) {
        if interrupted() || failed.is_some() {
            break;
        }
        let workload = match usable(&name) {
            Ok(workload) => workload,
            Err(lines) => {
                complain(&lines);
                let reason = Some(lines.join("\n"));
                done.push(Verified { reason, ..Verified::new(&name, Verdict::Broken) });
                continue;
            }
        };
        match result(&workload, argv) {
            Ok(_) if interrupted() => break,
            Ok(doc) => {
                let one = Verified::of(&name, &workload, &doc);
                show(told, || one.report(&workload, Style::detect()));
                done.push(one);
            }
            Err(e) => {
                let (reason, about) = (Some(format!("{e:#}")), Some(About::new(&workload)));
                let one = Verified::new(&name, Verdict::Failed);
                done.push(Verified { reason, workload: about, ..one });
                failed = Some(e.context(workload.name));
            }
        }
    }
    let mut run = Run::begin(started, argv.to_vec(), None, 0);
    run.complete = !interrupted() && failed.is_none();
    run.wall_s = begin.elapsed().as_secs_f64();
    let right = run.complete && done.iter().all(|one| one.verdict == Verdict::Right);
    let (tool, host) = (Tool::current(), HostFacts::capture());
    let doc = Doc { schema: SCHEMA, tool, run, host, workloads: done, right };
    write_json(json.as_ref(), &doc)?;
    match failed {
        Some(e) => Err(e),
        None => Ok(Status::of(doc.run.complete, Some(right))),
    }
}

fn result(workload: &Workload, argv: &[String]) -> anyhow::Result<ResultDoc> {
    let config = small(workload).map_err(|e| anyhow!(e))?;
    match measure(&config, argv.to_vec())? {
        Ok(measured) => Ok(measured.doc),
        Err(Status::Usage(text) | Status::Unavailable(text)) => Err(anyhow!(text)),
        Err(status) => Err(anyhow!("it ended early: {status:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{each_key_is_required, validator};

    const SCHEMA_TEXT: &str =
        include_str!("../../../../results/schema/tce-bench.verify-1.schema.json");

    #[test]
    fn a_verdict_fits_its_schema_and_each_field_is_required() {
        let run: ResultDoc =
            serde_json::from_str(include_str!("../../../tests/data/ring.json")).expect("a result");
        let workload = Workload::find("nic-ring").unwrap();
        let of = |verified| {
            let doc = ResultDoc { verified, ..run.clone() };
            Verified::of("nic-ring", &workload, &doc)
        };
        let broken =
            Verified { reason: Some("x:1: y".to_owned()), ..Verified::new("x", Verdict::Broken) };
        let workloads = vec![of(Some(true)), of(Some(false)), of(None), broken];
        // It is of another workload; none of its counts fits.
        assert!(workloads[..3].iter().all(|one| one.verdict == Verdict::Wrong));
        assert!(workloads[0].reason.is_none() && workloads[2].reason.is_some());
        let run = Run::begin(SystemTime::now(), Vec::new(), None, 0);
        let (tool, host) = (Tool::current(), HostFacts::capture());
        let doc = Doc { schema: SCHEMA, tool, run, host, workloads, right: false };
        let doc = serde_json::to_value(&doc).unwrap();
        let parents =
            ["", "/run", "/workloads/0", "/workloads/0/workload", "/workloads/0/checks/0"];
        each_key_is_required(&validator(SCHEMA_TEXT), &doc, &parents);
    }
}
