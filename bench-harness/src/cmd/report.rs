// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench report`: results as one page that needs nothing else.

mod facts;
mod history;
mod html;
mod intervals;
mod operations;
mod overview;
mod page;
mod plots;
mod resources;
mod results;
mod scale;
mod svg;
mod table;
mod timeline;
mod trend;

use anyhow::anyhow;

use super::documents::read_any;
use super::export::once;
use super::{Status, write_text};
use crate::cli::{ReportConfig, Reported};
use crate::result::{ResultDoc, Skipped};
use crate::style::printable;

/// Reads, draws and writes.
///
/// # Errors
/// What cannot be read or written, one line. Then nothing is written.
pub fn report(config: &ReportConfig) -> anyhow::Result<Status> {
    config.out.check().map_err(|e| anyhow!(e))?;
    let page = match &config.what {
        Reported::Results(files) => {
            let mut docs = Vec::new();
            for path in files {
                docs.push((path.display().to_string(), read_any(path)?));
            }
            drawn(docs)?
        }
        Reported::Trend(folder) => {
            let trend = trend::trend(folder)?;
            for Skipped { id, reason } in &trend.skipped {
                eprintln!("left out: '{id}': {}", printable(reason));
            }
            history::html(&trend)
        }
    };
    write_text(&config.out, &page)?;
    Ok(Status::Ok)
}

/// The page of named results.
///
/// # Errors
/// If a run is there twice.
pub(super) fn drawn(docs: Vec<(String, ResultDoc)>) -> anyhow::Result<String> {
    once(docs.iter().map(|(_, doc)| doc))?;
    Ok(results::html(docs))
}
