// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench dma`: whether devices reach what the engine maps, and nothing else, in every kind of
//! window that the machine can have.

mod kinds;
mod result;
pub(super) mod suite;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::{Context, anyhow};
use tce_engine::addr::{GroupId, PageShift};
use tce_engine::backend::linux::raw::RawHost as _;
use tce_engine::container::Container;
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::geometry::WindowSpec;

use super::{Status, show, write_json};
use crate::cli::DmaConfig;
use crate::edu;
use crate::host::HostFacts;
use crate::interrupt::{go_on, interrupted, unless_interrupted};
use crate::kernel::{Books, Buffer, OpenVfio, open_vfio};
use crate::outfile::OutFile;
use crate::result::{BooksResult, Run, Tool};
use crate::style::Style;
use kinds::kinds;
use result::{Doc, SCHEMA, Skipped, Tally, WindowResult};

/// Runs the checks and reports.
///
/// # Errors
/// What failed other than a check, one line.
pub fn dma(config: &DmaConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let groups = match &config.vfio_groups {
        Some(groups) => groups.clone(),
        None => edu::groups().iter().map(|group| group.0).collect(),
    };
    let wanted: Vec<_> = groups.iter().copied().map(GroupId).collect();
    if edu::list(&wanted).is_empty() {
        return Ok(Status::Unavailable(no_device(config)));
    }
    let open = match open_vfio(Some(&groups), groups.len(), 0, false) {
        Ok(open) => open,
        Err(e) => return Ok(Status::Unavailable(e.to_string())),
    };
    let started = SystemTime::now();
    let begin = Instant::now();
    let mut doc = Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(started, argv, None, 0),
        host: HostFacts::capture(),
        label: open.vfio.label().to_owned(),
        machine: open.platform.to_string(),
        emulated: open.platform.emulated,
        groups,
        late: None,
        windows: Vec::new(),
        skipped: Vec::new(),
        total: Tally::default(),
        books: BooksResult::default(),
        leaked_pages: 0,
        verified: false,
    };
    // A document on standard output has it to itself.
    let silent = config.quiet || config.json == Some(OutFile::Stdout);
    let style = Style::detect();
    let show = |text: &str| {
        show(!silent, || text.to_owned());
    };
    show(&format!("{}\n{}\n", doc.label, doc.machine));
    checks(&open, &wanted, &mut doc, &mut |window| show(&window.report(style)))?;
    doc.run.complete = !interrupted();
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    doc.conclude();
    show(&doc.summary(style));
    write_json(config.json.as_ref(), &doc)?;
    Ok(Status::of(doc.run.complete, Some(doc.verified)))
}

fn no_device(config: &DmaConfig) -> String {
    let place = match &config.vfio_groups {
        Some(_) => "in these groups",
        None => "in any IOMMU group",
    };
    format!(
        "there is no edu device (PCI 1234:11e8) {place}; fix: run it on the emulated machine of \
         scripts/power8-vm, which has seven"
    )
}

/// All groups in one container; the last of them joins when something is mapped already.
fn checks(
    open: &OpenVfio,
    groups: &[GroupId],
    doc: &mut Doc,
    show: &mut dyn FnMut(&WindowResult),
) -> anyhow::Result<()> {
    let engine = Engine::new(open.linux.clone(), EngineOptions::default());
    let mut books = Books::open(open.vfio.clone());
    // What an interrupt leaves registered goes after the container.
    let mut kept = None;
    // Closed after the devices: a group whose devices are open cannot leave.
    let container = engine.container();
    let (last, early) = groups.split_last().context("no group")?;
    let early = if early.is_empty() { groups } else { early };
    let mut step = |what: &str| -> anyhow::Result<()> {
        books.compare(engine.ledger(), what);
        Ok(go_on()?)
    };
    let mut all = || -> anyhow::Result<()> {
        attach(&container, early)?;
        step("attaching")?;
        let mut devices = edu::find(open, early)?;
        if early.len() < groups.len() {
            let join = || {
                attach(&container, &[*last])?;
                edu::find(open, &[*last])
            };
            let spec = WindowSpec::new(1 << 30, PageShift::K4);
            let host_page = engine.caps().host_page;
            let bytes = suite::memory_bytes(spec.page, host_page);
            let buffer = kept.insert(Buffer::real(bytes, spec.page, host_page)?);
            let (late, result) = suite::late(&container, spec, buffer, join, &mut step)?;
            devices.extend(late);
            show(&result);
            doc.late = Some(result);
        }
        let shared = container.caps().context("no member")?;
        for kind in kinds(&engine.caps(), &shared) {
            let buffer = match memory(kind.spec.page, engine.caps().host_page) {
                Ok(buffer) => kept.insert(buffer),
                Err(reason) => {
                    doc.skipped.push(Skipped { name: kind.to_string(), reason });
                    continue;
                }
            };
            let result = suite::window(&container, &kind, buffer, &devices, &mut step)
                .with_context(|| kind.to_string())?;
            show(&result);
            doc.windows.push(result);
        }
        Ok(())
    };
    unless_interrupted(all())?;
    container.close();
    doc.leaked_pages = engine.ledger().pages();
    books.compare(engine.ledger(), "closing");
    doc.books = books.result;
    Ok(())
}

fn attach(container: &Container, groups: &[GroupId]) -> anyhow::Result<()> {
    for group in groups {
        container.attach(*group)?;
    }
    Ok(())
}

/// So much of a huge page of 16 MiB can be pinned where the kernel's pages are 4 KiB.
const PINNABLE: u64 = 2 << 20;

/// Memory that pages of `page` can be mapped from, on huge pages where they have to be.
fn memory(page: PageShift, host_page: PageShift) -> Result<Buffer, String> {
    let bytes = suite::memory_bytes(page, host_page);
    let mut reason = String::new();
    // Those of the size itself, or the next larger ones that the machine has reserved.
    let larger = [PageShift::M2, PageShift::M16].into_iter().filter(|p| *p > page);
    for stands_on in std::iter::once(page).chain(larger) {
        let pool = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", stands_on.bytes() >> 10);
        if stands_on > host_page && stands_on != page && !Path::new(&pool).exists() {
            continue;
        }
        if host_page == PageShift::K4 && stands_on == PageShift::M16 && bytes > PINNABLE {
            reason = "Linux with 4K pages never comes to an end when it pins what is behind the \
                      first 2 MiB of a huge page of 16 MiB (seen with 6.12)"
                .to_owned();
            continue;
        }
        match Buffer::real(bytes, stands_on, host_page) {
            Ok(buffer) => return Ok(buffer),
            Err(e) => reason = format!("{e:#}"),
        }
    }
    Err(reason)
}
