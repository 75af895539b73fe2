// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a pass used, and what it left behind.

use std::time::Duration;

use tce_engine::addr::Ioba;
use tce_engine::backend::Backend;
use tce_engine::backend::mock::Fault;
use tce_engine::container::{Container, Receipt};
use tce_engine::kill::KillCount;
use tce_engine::ledger::ChargeKind;
use tce_engine::mem::TablePages;

use super::machine::{KillsSeen, Machine, groups};
use super::script::{Call, Script};
use crate::result::Counters;
use crate::run::smaps;

/// The receipts of a pass, added up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) calls: u64,
    /// Entries stored, cleared or read.
    pub(super) tces: u64,
    /// Of these, read.
    read: u64,
    pub(super) kills: KillCount,
}

impl Sum {
    /// Adds what one hypercall did.
    #[inline]
    pub(super) fn add(&mut self, call: &Call, receipt: &Receipt) {
        self.calls += u64::from(!matches!(call, Call::Submit));
        self.tces += receipt.tces;
        if matches!(call, Call::Get { .. }) {
            self.read += receipt.tces;
        }
        self.kills += receipt.kills;
    }
}

/// The books of one pass.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Books {
    pub(super) counters: Counters,
    /// The worst pages that any table stood on; `None` if nothing was ever stored.
    pub(super) pages: Option<TablePages>,
    /// True if the kernel granted huge pages and gave small ones all the same.
    pub(super) no_huge: bool,
    pub(super) table_reserved: u64,
    pub(super) table_used: u64,
    /// Pinned ranges, stretches of table and windows that were still there after closing.
    pub(super) leftovers: (usize, usize, usize),
    /// Host pages that were still charged then.
    pub(super) charged: u64,
    /// All 0 unless the pass [looked](super::machine::Look) at kills.
    pub(super) seen: KillsSeen,
    /// The longest; `None` unless the pass looked at exposure.
    pub(super) exposure: Option<Duration>,
    /// Time that kills and fences were made to take, with setting up.
    pub(super) kill_cost_ns: u64,
}

impl Books {
    /// Takes stock, then closes the machine and takes stock again.
    pub(super) fn close(mut machine: Machine, script: &Script, sum: &Sum) -> Self {
        let mut books = Self {
            seen: machine.kills_seen(),
            exposure: machine.engine.take_exposure(),
            kill_cost_ns: machine.mock.kill_charge().total_ns(),
            ..Self::default()
        };
        let mut chunks = Vec::new();
        for (_, phb) in groups(&script.phbs) {
            machine.papr.with_container(u64::from(phb.phb()), |container| {
                books.tables(container, &machine);
                chunks.extend(container.table_memory());
            });
        }
        if books.pages == Some(TablePages::Transparent) {
            books.no_huge = smaps::huge_share(&chunks) < books.table_used / 2;
        }
        drop(chunks);
        let ledger = machine.engine.ledger();
        let page = ledger.page();
        let tables = ledger.entries().into_iter().filter(|entry| entry.kind == ChargeKind::Table);
        let counters = &mut books.counters;
        counters.table_charge_bytes = tables.map(|entry| entry.pages << page.get()).sum();
        counters.tces_written = sum.tces - sum.read;
        counters.kills_asked = sum.kills.asked;
        counters.kills_issued = sum.kills.issued;
        counters.register_stores = machine.mock.register_stores() - machine.setup_stores;
        counters.pinned_peak_bytes = ledger.peak_pages() << page.get();
        let (mock, engine) = machine.close();
        books.charged = engine.ledger().pages();
        books.counters.pinned_end_bytes = books.charged << page.get();
        books.leftovers = mock.leftovers();
        books
    }

    fn tables(&mut self, container: &Container, machine: &Machine) {
        for usage in container.table_use() {
            self.counters.table_blocks += usage.blocks;
            self.table_reserved += usage.mapped_bytes;
            self.table_used += usage.used_bytes;
            self.pages = self.pages.max(usage.pages);
        }
        // Leaves are counted as the PHB sees them: where its walk reaches one.
        let Some(caps) = container.groups().first().and_then(|g| machine.mock.group(*g).ok())
        else {
            return;
        };
        for window in container.windows() {
            let geometry = window.geometry;
            let leaf_bytes = geometry.level_entries() << geometry.page().get();
            let leaves = geometry.covered().div_ceil(leaf_bytes);
            let there = |nth: &u64| {
                let found = machine.mock.probe(caps.pe, Ioba(window.start.0 + nth * leaf_bytes));
                matches!(found, Ok(_) | Err(Fault::Empty { .. }))
            };
            self.counters.leaf_blocks += (0..leaves).filter(there).count() as u64;
        }
    }

    /// True if closing took everything away.
    pub(super) fn nothing_left(&self) -> bool {
        self.leftovers == (0, 0, 0) && self.charged == 0
    }

    /// Adds the books of another trace: events add up; of memory, the most at a time counts, as
    /// traces run one after the other.
    pub(super) fn merge(&mut self, other: &Self) {
        let (a, b) = (&mut self.counters, &other.counters);
        a.tces_written += b.tces_written;
        a.kills_asked += b.kills_asked;
        a.kills_issued += b.kills_issued;
        a.register_stores += b.register_stores;
        a.pinned_peak_bytes = a.pinned_peak_bytes.max(b.pinned_peak_bytes);
        a.pinned_end_bytes = a.pinned_end_bytes.max(b.pinned_end_bytes);
        a.table_charge_bytes = a.table_charge_bytes.max(b.table_charge_bytes);
        a.leaf_blocks = a.leaf_blocks.max(b.leaf_blocks);
        a.table_blocks = a.table_blocks.max(b.table_blocks);
        self.pages = self.pages.max(other.pages);
        self.no_huge |= other.no_huge;
        self.table_reserved = self.table_reserved.max(other.table_reserved);
        self.table_used = self.table_used.max(other.table_used);
    }
}
