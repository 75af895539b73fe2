// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo bench --bench peers`: the same 2 GiB in pages of 4 KiB mapped and unmapped by the engine,
//! by models of per-entry loops and by published page-table crates, in turn; then single pages in a
//! ring. Prints ns for a page. METHODOLOGY.md says how they are taken.

#[path = "../common/mod.rs"]
mod common;

use std::fmt::Write;
use std::process::ExitCode;

use clap::Parser;
use tce_engine::{Mode, Tier};

use common::args::Args;
use common::limit::{Limit, reference};
use common::peers::{self, Kind, PAGES, Peer, RING};
use common::report::Report;
use common::rig::{Rig, Ring, USUAL, WINDOW};
use common::samples::Samples;

/// Rounds in a row, so that whoever was at work before does not count.
const IN_A_ROW: usize = 3;
const LIMIT: &str = "store limit";
/// Pairs of a map and an unmap between two readings of the clock.
const GROUP: u64 = 64;

/// The engine as one of the peers, everything on.
struct Engine {
    rig: Rig,
    ring: Ring,
}

impl Peer for Engine {
    fn name(&self) -> &'static str {
        "tce-engine"
    }

    fn kind(&self) -> Kind {
        Kind::Engine
    }

    fn map_many(&mut self, count: u64) {
        self.rig.map(0, count, 0, Mode::Refuse);
    }

    fn unmap_many(&mut self, count: u64) {
        self.rig.unmap(0, count);
    }

    #[inline(always)]
    fn map_one(&mut self, _: u64) {
        self.ring.map();
    }

    #[inline(always)]
    fn unmap_one(&mut self, _: u64) {
        self.ring.unmap();
    }

    fn start_ring(&mut self) {} // it turns since it was made

    fn stop_ring(&mut self, _: u64) {}

    fn turn_ring(&mut self, _: u64, count: u64) {
        for _ in 0..count {
            self.ring.unmap();
            self.ring.map();
        }
    }

    fn target(&self, _: u64) -> Option<u64> {
        None // the mock lays the buffer out as it likes; the engine's own tests walk its tables
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let rounds = if args.quick { 5 } else { 200 };
    let tier = Tier::best();
    let mut all: Vec<Box<dyn Peer>> =
        vec![Box::new(Engine { rig: Rig::new(WINDOW, USUAL, tier), ring: Ring::new(tier) })];
    all.extend(peers::all());
    if let Some(only) = &args.only {
        all.retain(|peer| peer.name().contains(only.as_str()));
    }
    let limit = Limit::new(PAGES as usize);
    let [mut store, mut map, mut unmap, mut pair] = [const { Samples::new() }; 4];
    // The first rounds bring pages, caches and branch predictors in.
    for round in 0..rounds + 3 {
        if round == 3 {
            [&mut store, &mut map, &mut unmap, &mut pair].into_iter().for_each(Samples::restart);
        }
        for _ in 0..IN_A_ROW {
            store.time(LIMIT, PAGES, || limit.store());
        }
        for peer in &mut all {
            for _ in 0..IN_A_ROW {
                map.time(peer.name(), PAGES, || peer.map_many(PAGES));
                unmap.time(peer.name(), PAGES, || peer.unmap_many(PAGES));
            }
            peer.start_ring();
            for first in (0..2 * RING).step_by(GROUP as usize) {
                pair.time(peer.name(), GROUP, || peer.turn_ring(first, GROUP));
            }
            peer.stop_ring(2 * RING);
        }
    }
    let mut report = Report::new("peers", &args);
    let text = &mut report.text;
    let _ = writeln!(
        text,
        "2 GiB in pages of 4 KiB, {rounds} interleaved rounds; ns a page, minimum / median; a pair \
         is one\nmap and one unmap in a ring of {RING} pages, timed {GROUP} at a time\n\n\
         {:<36}{:>18}{:>18}{:>18}",
        "", "map", "unmap", "pair"
    );
    let cell = |s: &Samples, name| format!("{:.3} / {:.3}", s.min(name), s.median(name));
    let _ = writeln!(
        text,
        "{:<36}{:>18}",
        format!("{LIMIT} ({})", reference().name()),
        cell(&store, LIMIT)
    );
    for (name, kind) in all.iter().map(|peer| (peer.name(), peer.kind())) {
        let [map, unmap, pair] = [&map, &unmap, &pair].map(|s| cell(s, name));
        let what = match kind {
            Kind::Engine => name.to_string(),
            Kind::Model => format!("model: {name}"),
            Kind::Crate => format!("crate: {name}"),
        };
        let _ = writeln!(text, "{what:<36}{map:>18}{unmap:>18}{pair:>18}");
    }
    report.finish(&args, true)
}
