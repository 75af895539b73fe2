// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::cmd::replay::live;
use crate::cmd::replay::script::Call;
use crate::trace::{HEADER, TraceFile};

fn config(workload: &str, policies: &[&str], fills: &[Fill]) -> PoliciesConfig {
    PoliciesConfig {
        workload: workload.to_owned(),
        policies: policies.iter().map(|policy| policy.parse().unwrap()).collect(),
        fills: fills.to_vec(),
        platforms: vec![Platform::Phb3, Platform::Phb4],
        groups: 1,
        one_handle: false,
        kill_cost: None,
        repeat: 1,
        calls: 3000,
        seed: 1,
        json: None,
        svg: None,
        label: None,
        quiet: true,
    }
}

fn trace(name: &str) -> String {
    format!("{}/../{}/{name}.tce.zst", env!("CARGO_MANIFEST_DIR"), guests::TRACES)
}

/// The counting passes of all rows.
fn counted(config: &PoliciesConfig) -> Doc {
    let mut script =
        guests::load(&config.workload, config.calls.into(), config.seed).unwrap().unwrap();
    if !config.one_handle {
        script.on_vcpus();
    }
    let mut cases = Cases::new(config, script).unwrap();
    cases.count(&ProgressBar::hidden()).unwrap();
    let mut run = Run::begin(SystemTime::now(), Vec::new(), None, 1);
    run.complete = true;
    let doc = cases.document(config, run);
    assert!(doc.verified, "{:?}", doc.first_mismatch);
    doc
}

fn made_of(lines: &[&str]) -> Script {
    let power_on = "0 window-create 0x80000000 0x0 12 262144 0 - -";
    let text = format!("{HEADER}\n{power_on}\n{}\n", lines.join("\n"));
    Script::new(TraceFile::read("t.tce", text.as_bytes()).unwrap()).unwrap()
}

#[test]
fn linux_kills_pages_or_ranges_whatever_was_there() {
    let script = made_of(&[
        "1 stuff 0x80000000 0x0 0x0 512 0 0 1",
        "2 put 0x80000000 0x1000 0x5003 1 0 0 1",
        "3 indirect 0x80000000 0x2000 6001,7003,0,8001 4 0 0 1",
        "4 get 0x80000000 0x1000 0x5003 1 0 0 1",
        "5 put 0x80000000 0x1000 0x6003 1 0 0 1",
        "6 stuff 0x80000000 0x1000 0x0 3 0 0 1",
        "7 put 0x90000000 0x1000 0x5003 1 -4 0 1",
    ]);
    let linux = Linux::of(&script, 3, Setup::default().host_page);
    // Live after each call, at one level: 0, 1, 4, 4, 1. The third of the list is empty before and after.
    let found = (linux.calls, linux.tces, linux.valid_tces, linux.phb4_refills);
    assert_eq!(found, (5, 521, 1 + 3 + 1 + 3, 3 * 10));
    assert_eq!((linux.phb3_stores, linux.phb3_stores_valid), (3 * 521, 3 * 8));
    assert_eq!((linux.phb4_calls, linux.phb4_calls_valid), (3 * 5, 3 * 4));
}

#[test]
fn windows_take_their_entries_with_them() {
    let script = made_of(&[
        "1 put 0x80000000 0x1000 0x5003 1 0 0 1",
        "2 window-create 0x80000001 0x800000000000000 16 4096 0 0 1",
        "3 put 0x80000001 0x800000000010000 0x70003 1 0 0 1",
        "4 window-remove 0x80000000 - - - 0 0 5",
        "5 put 0x80000001 0x800000000020000 0x70003 1 0 0 1",
        "6 window-reset 0x80000000 - - - 0 0 5",
        "7 stuff 0x80000000 0x1000 0x0 1 0 0 1",
    ]);
    let linux = Linux::of(&script, 1, Setup::default().host_page);
    assert_eq!((linux.calls, linux.valid_tces), (4, 3));
    // Live after each call: 1, with 1 beside it, 2 of the window that stays, nothing after the reset.
    assert_eq!(linux.phb4_refills, 1 + 2 + 2);
}

/// The table of the cost model is the engine's.
#[test]
fn levels_are_those_that_the_engine_makes() {
    for name in ["boot-ddw", "boot-ddw-4k", "net-rx"] {
        let script = Script::load(Path::new(&trace(name))).unwrap();
        let setup = Setup::default();
        let machine =
            Machine::new(&script, &setup, script.ram(None, setup.host_page).unwrap()).unwrap();
        for phb in &script.phbs {
            let windows = machine.papr.with_container(phb.phb().into(), |c| c.windows()).unwrap();
            let ours = live::levels(phb.window, setup.host_page);
            assert_eq!(ours, u64::from(windows[0].geometry.levels()), "{name}");
        }
    }
}

#[test]
fn strict_kills_what_linux_kills_but_for_what_was_clear() {
    for (workload, groups) in [("ring", 1), ("block", 3)] {
        let doc =
            counted(&PoliciesConfig { groups, ..config(workload, &["strict"], &[Fill::Always]) });
        let [phb3, phb4] = &doc.rows[..] else { panic!("{:?}", doc.rows) };
        let kills = |row: &Row| row.kills.unwrap();
        assert_eq!(kills(phb3).asked, doc.linux.phb3_stores_valid);
        // Pages, or PEs where there are too many.
        assert!(kills(phb3).stores <= doc.linux.phb3_stores_valid);
        assert_eq!(kills(phb4).stores, doc.linux.phb4_calls_valid);
        assert_eq!((kills(phb4).page_stores, kills(phb4).refills), (0, doc.linux.phb4_refills));
        assert_eq!((phb3.held_back_pages, phb3.exposure_trace_ns), (Some(0), Some(0)));
        assert!(phb3.exposure_ns.is_some_and(|ns| ns > 0));
    }
}

#[test]
fn batches_end_by_number_and_by_time() {
    let lines = [
        "1000 put 0x80000000 0x1000 0x5003 1 0 0 1",
        "2000 put 0x80000000 0x10000 0x5003 1 0 1 1",
        "3000 put 0x80000000 0x2000 0x5003 1 0 0 1",
        "9000 put 0x80000000 0x3000 0x5003 1 0 0 1",
    ];
    let ends = |batch, handles: bool| {
        let mut script = made_of(&lines);
        if handles {
            script.on_vcpus();
        }
        script.batch(batch);
        let steps = script.steps.iter().zip(&script.when).enumerate();
        let ends = steps.filter(|(_, (step, _))| step.call == Call::Submit);
        ends.map(|(nth, (step, when))| (nth, step.vcpu, when.t_ns)).collect::<Vec<_>>()
    };
    let gap = Batch::Gap(Duration::from_micros(3));
    assert_eq!(ends(Batch::Calls(2), false), [(2, 0, 2000), (5, 0, 9000)]);
    assert_eq!(ends(Batch::Calls(3), true), [(4, 0, 9000), (5, 1, 2000)]);
    assert_eq!(ends(gap, false), [(3, 0, 6000), (5, 0, 9000)]);
    assert_eq!(ends(gap, true), [(3, 0, 6000), (4, 1, 5000), (6, 0, 9000)]);
}

#[test]
fn guests_that_are_made_up_are_the_same_each_time() {
    for name in guests::NAMES {
        let one = guests::script(name, 3000, 7).unwrap();
        assert_eq!(one.steps, guests::script(name, 3000, 7).unwrap().steps);
        assert_ne!(one.steps, guests::script(name, 3000, 8).unwrap().steps);
        assert!(one.counts.calls() >= 3000 && one.counts.mapped > 0);
    }
}

#[test]
fn the_plot_is_a_document_with_a_mark_for_each_row() {
    let mut doc = counted(&config(
        "ring",
        &["strict", "batched", "deferred"],
        &[Fill::Always, Fill::BESIDE_LIVE],
    ));
    doc.workload.name = "<a & b>".to_owned();
    // What an interrupt leaves of a row, and a row without kills, have marks, too.
    doc.rows[1].kills = None;
    doc.rows[2].exposure_ns = None;
    for rows in [doc.rows.len(), 1, 0] {
        doc.rows.truncate(rows);
        let text = plot::svg(&doc).unwrap();
        let svg = roxmltree::Document::parse(&text).unwrap();
        let of = ("http://www.w3.org/2000/svg", "circle");
        let marks = svg.descendants().filter(|n| n.has_tag_name(of)).count();
        assert_eq!(marks, rows);
        let labels: Vec<_> = svg.descendants().filter_map(|n| n.text()).map(str::trim).collect();
        for row in &doc.rows {
            let label = format!("{}, {}, {}", row.policy, row.fill, row.platform);
            assert!(labels.contains(&label.as_str()), "{label}: {labels:?}");
        }
        assert!(labels.iter().any(|label| label.starts_with("<a & b>")));
    }
}

/// By the least number of times that stores are fewer than Linux's on a PHB3: where every map kills, where
/// those kill that have a live neighbour in their line, and where none does. No clock is in it.
#[test]
fn ten_times_fewer_stores_than_linux_unless_maps_have_to_kill() {
    // Of `mixed`, 128,649 maps fill a line with a live entry, and kill before they return.
    for (name, least) in [
        ("mixed", [2.5, 5.0, 10.0]),
        ("net-rx", [2.9, 10.0, 10.0]),
        ("nvme-randrw-qd32", [3.9, 10.0, 10.0]),
    ] {
        let doc = counted(&PoliciesConfig {
            platforms: vec![Platform::Phb3],
            ..config(
                &trace(name),
                &["deferred=256"],
                &[Fill::Always, Fill::BESIDE_LIVE, Fill::Never],
            )
        });
        for (row, least) in doc.rows.iter().zip(least) {
            let fewer = row.linux.times_fewer.unwrap();
            assert!(fewer >= least, "{name}, {}: {fewer} times, not {least}: {row:?}", row.fill);
            let most = row.held_back_pages.unwrap();
            assert!(most <= 256 * doc.workload.handles, "{name}: {most} held back");
            assert!(row.exposure_trace_ns.unwrap() > 0);
        }
    }
}
