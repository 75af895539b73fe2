// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench sharing`: what it costs that several groups share a container, and that several
//! containers share memory, on a software PHB. Counts first; times are of the mock.

mod report;
#[cfg(test)]
mod tests;

use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use serde::Serialize;
use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::mock::{Mock, MockBuilder};
use tce_engine::container::{Container, Mode, Receipt, Removal};
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::geometry::WindowSpec;
use tce_engine::ledger::ChargeKind;
use tce_engine::tce::Perm;

use super::{Status, present};
use crate::cli::SharingConfig;
use crate::host::HostFacts;
use crate::interrupt::interrupted;
use crate::result::{Run, Tool};
use crate::style::Style;

const SCHEMA: &str = "tce-bench.sharing/1";
/// Memory that is registered, 64 MiB.
const MEMORY: Uaddr = Uaddr(0x7000_0000_0000);
const BYTES: u64 = 64 << 20;
/// Pages of a long request; more than are killed one by one.
const LONG: u64 = 512;
/// Beyond so many pages, a request kills whole PEs.
const PAGE_KILLS: u64 = 128;

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Doc {
    schema: &'static str,
    tool: Tool,
    run: Run,
    host: HostFacts,
    label: String,
    /// Groups of one container.
    members: Vec<Members>,
    /// Containers of one group each, with the same memory.
    containers: Vec<Containers>,
    /// Everything is as the rules say. False if a signal ended it.
    verified: bool,
}

/// One container with so many groups.
#[derive(Debug, PartialEq, Serialize)]
struct Members {
    groups: u32,
    /// Mean time to attach one of them to a container that has a window, mock.
    attach_ns: f64,
    /// Charged for the window, in host pages.
    table_pages: u64,
    /// Charged for the memory, in host pages.
    region_pages: u64,
    requests: Vec<Request>,
    /// Taking the window away, with all that is mapped.
    remove: Kills,
    /// What was charged and killed is what the rules say, and nothing was left.
    as_ruled: bool,
}

/// What one map and its unmap kill, in all members.
#[derive(Debug, PartialEq, Serialize)]
struct Request {
    pages: u64,
    map: Kills,
    unmap: Kills,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Kills {
    /// Translations that had to go.
    asked: u64,
    /// Register stores that it took.
    stores: u64,
}

impl From<Receipt> for Kills {
    fn from(receipt: Receipt) -> Self {
        Self { asked: receipt.kills.asked, stores: receipt.kills.issued }
    }
}

/// So many containers.
#[derive(Debug, PartialEq, Serialize)]
struct Containers {
    containers: u32,
    table_pages: u64,
    region_pages: u64,
    /// Mean time to attach, make the window and register, mock.
    set_up_ns: f64,
    /// After all but one have given the memory back.
    region_pages_with_one_left: u64,
    as_ruled: bool,
}

/// Runs the sweeps and reports.
///
/// # Errors
/// What failed other than a check, one line.
pub fn sharing(config: &SharingConfig, argv: Vec<String>) -> anyhow::Result<Status> {
    config.json.iter().try_for_each(|file| file.check().map_err(|e| anyhow!(e)))?;
    let (started, begin) = (SystemTime::now(), Instant::now());
    let mut doc = Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(started, argv, None, 0),
        host: HostFacts::capture(),
        label: "mock: software PHB, not hardware".to_owned(),
        members: Vec::new(),
        containers: Vec::new(),
        verified: false,
    };
    measure(config, &mut doc, interrupted)?;
    doc.run.wall_s = begin.elapsed().as_secs_f64();
    present(config.quiet, config.json.as_ref(), &doc, || report::table(&doc, Style::detect()))?;
    Ok(Status::of(doc.run.complete, Some(doc.verified)))
}

/// Fills the document until `over`, which is asked between two machines.
fn measure(config: &SharingConfig, doc: &mut Doc, over: impl Fn() -> bool) -> anyhow::Result<()> {
    for groups in config.groups.iter().take_while(|_| !over()) {
        doc.members.push(members(*groups)?);
    }
    for count in config.groups.iter().take_while(|_| !over()) {
        doc.containers.push(containers(*count)?);
    }
    doc.run.complete = !over();
    doc.verified = doc.run.complete
        && doc.members.iter().all(|m| m.as_ruled)
        && doc.containers.iter().all(|c| c.as_ruled)
        && same(doc.members.iter().map(|m| m.table_pages));
    Ok(())
}

/// All numbers are equal.
fn same(mut numbers: impl Iterator<Item = u64>) -> bool {
    let first = numbers.next();
    numbers.all(|number| Some(number) == first)
}

fn machine(groups: u32) -> (std::sync::Arc<Mock>, Engine) {
    let mock = MockBuilder::new(groups as u16).build();
    let engine = Engine::new(mock.clone(), EngineOptions::default());
    (mock, engine)
}

/// What is charged for one kind of thing, in host pages.
fn charged(engine: &Engine, kind: ChargeKind) -> u64 {
    let entries = engine.ledger().entries();
    entries.iter().filter(|entry| entry.kind == kind).map(|entry| entry.pages).sum()
}

fn window() -> WindowSpec {
    WindowSpec::new(2 << 30, PageShift::K4).levels(2)
}

fn members(groups: u32) -> anyhow::Result<Members> {
    let (mock, engine) = machine(groups);
    let container = engine.container();
    container.attach(GroupId(0))?;
    let start = container.create_window(window())?.start;
    container.register(MEMORY, BYTES)?;
    let begin = Instant::now();
    for group in 1..groups {
        container.attach(GroupId(group))?;
    }
    let attach_ns = begin.elapsed().as_nanos() as f64 / f64::from((groups - 1).max(1));
    let (table_pages, region_pages) =
        (charged(&engine, ChargeKind::Table), charged(&engine, ChargeKind::Region));
    let requests = [1, PAGE_KILLS, LONG].into_iter().map(|pages| request(&container, start, pages));
    let requests = requests.collect::<anyhow::Result<Vec<_>>>()?;
    map(&container, start, LONG)?;
    let remove = container.remove_window(start, Removal::Force)?.into();
    container.close();
    let n = u64::from(groups);
    let ruled = |kills: Kills, pages: u64| {
        // Beyond the threshold one store a PE does for all.
        let each = if pages > PAGE_KILLS { 1 } else { pages };
        kills == Kills { asked: pages * n, stores: each * n }
    };
    let as_ruled = requests.iter().all(|r| ruled(r.map, r.pages) && ruled(r.unmap, r.pages))
        // The entries, then once more each PE whose window is disabled.
        && remove == Kills { asked: LONG * n, stores: 2 * n }
        && region_pages == BYTES / engine.caps().host_page.bytes()
        && engine.ledger().pages() == 0
        && mock.leftovers() == (0, 0, 0);
    let attach_ns = if groups == 1 { 0.0 } else { attach_ns };
    Ok(Members { groups, attach_ns, table_pages, region_pages, requests, remove, as_ruled })
}

fn map(container: &Container, at: Ioba, pages: u64) -> anyhow::Result<Receipt> {
    Ok(container.map(at, MEMORY, pages << 12, Perm::READ_WRITE, Mode::Refuse)?)
}

fn request(container: &Container, at: Ioba, pages: u64) -> anyhow::Result<Request> {
    let map = map(container, at, pages)?.into();
    let unmap = container.unmap(at, pages << 12)?.into();
    Ok(Request { pages, map, unmap })
}

fn containers(count: u32) -> anyhow::Result<Containers> {
    let (mock, engine) = machine(count);
    let begin = Instant::now();
    let mut all = Vec::new();
    for group in 0..count {
        let container = engine.container();
        container.attach(GroupId(group))?;
        container.create_window(window())?;
        container.register(MEMORY, BYTES)?;
        all.push(container);
    }
    let set_up_ns = begin.elapsed().as_nanos() as f64 / f64::from(count);
    let (table_pages, region_pages) =
        (charged(&engine, ChargeKind::Table), charged(&engine, ChargeKind::Region));
    all[1..].iter().try_for_each(|container| container.unregister(MEMORY, BYTES))?;
    let region_pages_with_one_left = charged(&engine, ChargeKind::Region);
    let each = all[0].windows()[0].geometry.charge() / engine.caps().host_page.bytes();
    all.iter().for_each(Container::close);
    let region = BYTES / engine.caps().host_page.bytes();
    let as_ruled = table_pages == each * u64::from(count)
        && (region_pages, region_pages_with_one_left) == (region, region)
        && engine.ledger().pages() == 0
        && mock.leftovers() == (0, 0, 0);
    Ok(Containers {
        containers: count,
        table_pages,
        region_pages,
        set_up_ns,
        region_pages_with_one_left,
        as_ruled,
    })
}
