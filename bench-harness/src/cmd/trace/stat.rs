// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench trace stat`.

use std::fs;
use std::path::Path;

use anyhow::anyhow;
use serde::Serialize;

use crate::cli::StatConfig;
use crate::cmd::{Status, present};
use crate::interrupt::interrupted_at;
use crate::result::Tool;
use crate::style::{Style, thousands, time_ns};
use crate::trace::{Quantiles, Reader, Stat, StatDoc};

const SCHEMA: &str = "tce-bench.trace-stat/1";

/// How many lines are read between two looks at the interrupt flag.
#[derive(Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    traces: Vec<StatDoc>,
}

pub(super) fn stat(config: &StatConfig) -> anyhow::Result<Status> {
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let mut doc = Doc { schema: SCHEMA, tool: Tool::current(), traces: Vec::new() };
    for path in &config.traces {
        match count(path)? {
            Some(counted) => doc.traces.push(counted),
            // Half a trace has no statistics that anybody asked for.
            None => return Ok(Status::Interrupted),
        }
    }
    present(config.quiet, config.json.as_ref(), &doc, || {
        let style = Style::detect();
        doc.traces.iter().map(|trace| table(trace, style)).collect::<Vec<_>>().join("\n")
    })?;
    Ok(Status::Ok)
}

/// The statistics of a file; `None` if it was interrupted.
fn count(path: &Path) -> anyhow::Result<Option<StatDoc>> {
    let mut reader = Reader::open(path)?;
    let (mut stat, mut pool) = (Stat::default(), Vec::new());
    let (mut first, mut last, mut lines) = (None, 0, 0_u64);
    while let Some(record) = reader.next(&mut pool)? {
        stat.see(&record.op, &pool).map_err(|text| reader.fail(text))?;
        pool.clear();
        first.get_or_insert(record.t_ns);
        last = record.t_ns;
        lines += 1;
        if interrupted_at(lines) {
            return Ok(None);
        }
    }
    Ok(Some(StatDoc {
        file: reader.file().to_string(),
        name: reader.name(),
        bytes: fs::metadata(path).map_or(0, |meta| meta.len()),
        duration_ns: last - first.unwrap_or(0),
        ..stat.finish()
    }))
}

fn table(doc: &StatDoc, style: Style) -> String {
    let n = thousands;
    let mut rows: Vec<(&str, String)> = Vec::new();
    let kinds = [(doc.put, "put"), (doc.indirect, "indirect"), (doc.stuff, "stuff")];
    let kinds = kinds.into_iter().chain([(doc.get, "get")]);
    let kinds: Vec<_> = kinds.map(|(count, name)| format!("{} {name}", n(count))).collect();
    rows.push(("calls", format!("{}: {}", n(doc.calls), kinds.join(", "))));
    let others = [(doc.failed, "failed"), (doc.window, "window"), (doc.xlate, "translations")];
    let others: Vec<_> = others
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{} {name}", n(count)))
        .collect();
    rows.push(("others", if others.is_empty() { "none".to_string() } else { others.join(", ") }));
    rows.push((
        "TCEs mapped",
        format!(
            "{}: {} read-only, {} read-write, {} write-only; {} over mapped ones",
            n(doc.tces_mapped),
            n(doc.read_only),
            n(doc.read_write),
            n(doc.write_only),
            n(doc.overwritten)
        ),
    ));
    rows.push(("live", format!("at most {}, {} at the end", n(doc.max_live), n(doc.live_at_end))));
    rows.push(("TCEs of an indirect", quantiles(doc.indirect_npages)));
    rows.push(("life in calls", quantiles(doc.life_in_calls)));
    rows.push((
        "map calls",
        format!(
            "{}, {} adjacent to the one before of the LIOBN",
            n(doc.map_calls),
            percent(doc.map_calls_adjacent, doc.map_calls_after_another)
        ),
    ));
    rows.push((
        "unmap calls",
        format!("{}, {} as mapped", n(doc.unmap_calls), n(doc.unmap_calls_as_mapped)),
    ));
    let each = doc.tces_mapped as f64 / doc.iova_pages.max(1) as f64;
    rows.push(("IOVA pages", format!("{}, each mapped {each:.1} times", n(doc.iova_pages))));
    rows.push((
        "target pages",
        format!("{}, at most {} IOVAs on one", n(doc.target_pages), n(doc.max_iovas_per_target)),
    ));
    let (kib, time) = (n(doc.bytes / 1024), time_ns(doc.duration_ns as f64));
    let mut text = format!("{}  {kib} KiB, {time}\n", style.bold(&doc.name));
    for (name, value) in rows {
        text += &format!("  {name:<20} {value}\n");
    }
    text
}

fn quantiles(of: Quantiles) -> String {
    if of.count == 0 {
        return "–".to_string();
    }
    format!("p50 {}, p90 {}, max {}", thousands(of.p50), thousands(of.p90), thousands(of.max))
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_string();
    }
    format!("{:.1}%", 100.0 * part as f64 / whole as f64)
}
