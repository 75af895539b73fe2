// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A full window of 64 MiB of table, emptied by one call: what removing a window costs, or a guest
//! that stuffs everything with zeros. Runs have smaller windows, so it has a mock, an engine and a
//! window of its own; the run's books know nothing of it.

use anyhow::anyhow;
use tce_engine::addr::{GroupId, Ioba, PageShift, Uaddr};
use tce_engine::backend::{Backend, GroupCaps};
use tce_engine::container::{Container, Mode, Removal};
use tce_engine::engine::{Engine, EngineOptions};
use tce_engine::geometry::WindowSpec;
use tce_engine::kill::KillCount;
use tce_engine::tce::Perm;

use super::lane::Lane;
use super::limits::LimitLoop;
use super::machine::mock;
use super::phase::{Outcome, Scene, perform};
use super::rig::{Plan, Rig};
use super::verify::{Content, Eye, Seen};
use super::work::{Meters, Share, Work};
use crate::cli::{Phase, RunConfig};
use crate::host::mem_available;
use crate::result::{LimitKind, OwnTable, Verification};
use crate::size::format_size;

/// Bytes of leaves.
const LEAVES: u64 = 64 << 20;
/// IOMMU pages.
const PAGE: PageShift = PageShift::K4;
/// What so many entries cover.
const WINDOW: u64 = (LEAVES / 8) << PAGE.get();
/// Levels of the table.
const LEVELS: u32 = 2;
/// The memory behind the window: addresses only, since the mock moves no data.
const MEMORY: Uaddr = Uaddr(0x1000_0000_0000);

/// Why the groups cannot have such a window, or what is missing, if there is not enough memory.
pub(super) fn impossible(offered: &GroupCaps) -> Option<String> {
    if offered.max_levels < LEVELS {
        let window = format_size(WINDOW);
        return Some(format!("its window of {window} has {LEVELS} levels, these groups walk 1"));
    }
    // The table, and as much for each of the limit's loops; a little for the upper level.
    let need = 3 * LEAVES + (4 << 20);
    let available = mem_available().filter(|available| *available < need)?;
    let (need, available) = (format_size(need), format_size(available));
    Some(format!("it needs {need} of memory, {available} are available"))
}

struct Clear<'a> {
    container: &'a Container,
    start: Ioba,
}

impl Work for Clear<'_> {
    fn map(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        let (perm, mode) = (Perm::READ_WRITE, Mode::Refuse);
        meters.count(&self.container.map(self.start, MEMORY, WINDOW, perm, mode)?);
        Ok(())
    }

    fn unmap(&mut self, meters: &mut Meters) -> anyhow::Result<()> {
        meters.time_unmap(|| self.container.unmap(self.start, WINDOW)).map(drop)
    }

    fn mapped(&self) -> (u64, u64) {
        (0, WINDOW >> PAGE.get())
    }
}

/// Runs the phase.
///
/// # Errors
/// What the engine refused, or no memory.
pub(super) fn run(
    rig: &Rig,
    config: &RunConfig,
    plan: &Plan,
    verification: &mut Verification,
) -> anyhow::Result<Outcome> {
    let mock = mock(config, 1).build();
    let options = EngineOptions {
        tier: Some(plan.tier),
        measure_exposure: config.measure_exposure,
        ..EngineOptions::default()
    };
    let engine = Engine::new(mock.clone(), options);
    let container = engine.container();
    container.attach(GroupId(0))?;
    container.register(MEMORY, WINDOW)?;
    let window = container.create_window(WindowSpec::new(WINDOW, PAGE).levels(LEVELS))?;
    let setup_stores = mock.register_stores();

    let pages = WINDOW >> PAGE.get();
    let share = Share { first: 0, count: pages };
    let lane = Lane {
        work: Box::new(Clear { container: &container, start: window.start }),
        share,
        limit: Some(LimitLoop::new(LimitKind::Store, plan.tier, pages)?),
        meters: Meters::default(),
        cpu: config.cpus.as_ref().and_then(|cpus| cpus.first().copied()),
    };
    let pe = mock.group(GroupId(0))?.pe;
    let seen = Seen {
        eye: Eye::Pe(&mock, pe),
        start: window.start,
        page: PAGE,
        pages,
        buffer: (MEMORY, WINDOW),
        window: 0,
    };
    let scene = Scene { lanes: vec![lane], seen: vec![seen], content: Content::Around(pages) };
    let mut outcome = perform(Phase::Clear, scene, rig, config, verification)?;

    outcome.exposure = engine.take_exposure();
    let uses = container.table_use();
    for result in &mut outcome.results {
        result.own_table = Some(OwnTable {
            window_bytes: WINDOW,
            page_shift: PAGE.get() as u8,
            levels: LEVELS.into(),
            table_bytes: uses.iter().map(|u| u.used_bytes).sum(),
            groups: 1,
            // The engine shares a long range out to them.
            cores: rayon::current_num_threads() as u64,
        });
    }
    let KillCount { issued, .. } = outcome.meters.kills;
    let stores = mock.register_stores() - setup_stores;
    container.remove_window(window.start, Removal::IfUnmapped).map_err(|e| anyhow!("{e}"))?;
    container.unregister(MEMORY, WINDOW)?;
    container.close();
    let left = (engine.ledger().pages(), mock.leftovers());
    let wrong = if stores != issued {
        Some(format!("clear: the engine counted {issued} kills, the registers saw {stores}"))
    } else if left != (0, (0, 0, 0)) {
        Some(format!("clear: left at the end, pages charged and the mock's: {left:?}"))
    } else {
        None
    };
    if let Some(wrong) = wrong {
        outcome.verified = false;
        verification.first_mismatch.get_or_insert(wrong);
    }
    // Not of the run's engine.
    outcome.meters = Meters::default();
    Ok(outcome)
}
