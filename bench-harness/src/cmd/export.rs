// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench export`: results in the formats of dashboards and of other tools.

mod csv;
mod histograms;
mod metrics;
mod series;
mod trackers;

use anyhow::{anyhow, bail};

use super::Status;
use super::documents::read_each;
use crate::cli::{ExportConfig, ExportFormat};
use crate::outfile::OutFile;
use crate::result::ResultDoc;

pub use series::Measure;
pub(super) use series::{case, once};

/// Converts and writes.
///
/// # Errors
/// What cannot be read, converted or written, one line. Then nothing is written, but of several `.hgrm`
/// those before.
pub fn export(config: &ExportConfig) -> anyhow::Result<Status> {
    let mut docs = Vec::new();
    for path in &config.results {
        for mut doc in read_each(path)? {
            only(&mut doc, &config.ids);
            docs.push(doc);
        }
    }
    if let Some(id) = config.ids.iter().find(|id| !docs.iter().any(|d| has(d, id))) {
        bail!("no result has the operation {id:?}; there are: {}", operations(config)?.join(", "));
    }
    match converted(&docs, config)? {
        Converted::Text(text) => config.out.write(text.as_bytes()).map_err(|e| anyhow!(e))?,
        Converted::Several(all) => write_several(&all, &config.out)?,
    }
    Ok(Status::Ok)
}

/// What is to be written.
pub(super) enum Converted {
    /// One file.
    Text(String),
    /// Names without ending, and what each has.
    Several(Vec<(String, String)>),
}

/// The results in the format that is asked for.
///
/// # Errors
/// What cannot be converted, one line.
pub(super) fn converted(docs: &[ResultDoc], config: &ExportConfig) -> anyhow::Result<Converted> {
    Ok(Converted::Text(match config.to {
        ExportFormat::Gha => trackers::gha(docs, config)?,
        ExportFormat::Bmf => trackers::bmf(docs, config)?,
        ExportFormat::Lnt => trackers::lnt(docs, config)?,
        ExportFormat::Perfherder => trackers::perfherder(docs, config)?,
        ExportFormat::Openmetrics => metrics::text(docs, metrics::Dialect::OpenMetrics)?,
        ExportFormat::Prometheus => metrics::text(docs, metrics::Dialect::Prometheus)?,
        ExportFormat::Csv => csv::text(docs),
        ExportFormat::Hlog => histograms::hlog(docs)?,
        ExportFormat::Hgrm => return Ok(Converted::Several(histograms::hgrm(docs)?)),
    }))
}

/// Takes the other operations away, from the runs of a merged document, too.
fn only(doc: &mut ResultDoc, ids: &[String]) {
    if ids.is_empty() {
        return;
    }
    doc.results.retain(|r| ids.contains(&r.id));
    for host in &mut doc.hosts {
        host.results.retain(|r| ids.contains(&r.id));
    }
    if !ids.iter().any(|id| id == series::REPLAY) {
        doc.replay = None;
        doc.hosts.iter_mut().for_each(|host| host.replay = None);
    }
}

fn has(doc: &ResultDoc, id: &str) -> bool {
    series::operations(doc).iter().any(|o| o.id == id)
}

/// What there is to choose from.
fn operations(config: &ExportConfig) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for path in &config.results {
        for operation in read_each(path)?.iter().flat_map(series::operations) {
            if !ids.contains(&operation.id) {
                ids.push(operation.id);
            }
        }
    }
    Ok(ids)
}

/// One file for each operation, since the format has one distribution in a file.
fn write_several(all: &[(String, String)], out: &OutFile) -> anyhow::Result<()> {
    if let OutFile::File(folder) = out
        && folder.is_dir()
    {
        for (name, text) in all {
            let file = folder.join(format!("{name}.hgrm"));
            OutFile::File(file).write(text.as_bytes()).map_err(|e| anyhow!(e))?;
        }
        return Ok(());
    }
    let [(_, text)] = all else {
        bail!(
            "hgrm has one operation in a file, and there are {}: name one with --id, or a folder that is \
             there with -o",
            all.len()
        );
    };
    out.write(text.as_bytes()).map_err(|e| anyhow!(e))
}
