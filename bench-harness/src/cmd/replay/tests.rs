// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::books::Books;
use super::checked::{Checked, checked};
use super::model::Model;
use super::outcome::label;
use super::timed::{latency, throughput};
use super::*;
use tce_engine::papr::Compat;

use crate::trace::{HEADER, TraceError, TraceFile};

/// Two PHBs with small default windows.
const POWER_ON: [&str; 2] = [
    "0 window-create 0x80000000 0x0 12 1024 0 - -",
    "0 window-create 0x80000100 0x0 12 1024 0 - -",
];

fn script(lines: &[&str]) -> Result<Script, TraceError> {
    let text = format!("{HEADER}\n{}\n", [&POWER_ON[..], lines].concat().join("\n"));
    Script::new(TraceFile::read("t.tce", text.as_bytes())?)
}

fn setup_for(ram: Option<u64>) -> Setup {
    Setup { ram, ..Setup::default() }
}

fn run(lines: &[&str], ram: Option<u64>) -> Checked {
    run_under(lines, setup_for(ram))
}

fn run_under(lines: &[&str], setup: Setup) -> Checked {
    let script = script(lines).unwrap();
    let ram = script.ram(setup.ram, setup.host_page).unwrap();
    let out = checked(&script, &setup, ram, &Progress::hidden()).unwrap();
    assert!(out.complete && out.books.nothing_left(), "{out:?}");
    out
}

fn passes(lines: &[&str]) -> Checked {
    let out = run(lines, None);
    assert_eq!(out.mismatches.first, Vec::<String>::new());
    assert_eq!(out.mismatches.count, 0);
    out
}

/// Runs a trace whose last line is wrong; the lines found for it.
fn finds(lines: &[&str]) -> Vec<String> {
    let out = run(lines, None);
    assert!(out.mismatches.count >= 1, "nothing found");
    // The header and the power-on lines come before.
    let at = format!("t.tce:{}: ", lines.len() + 3);
    assert!(out.mismatches.first[0].starts_with(&at), "{:?}", out.mismatches.first);
    out.mismatches.first
}

#[test]
fn every_call_is_answered_and_everything_is_compared() {
    let out = passes(&[
        "1 stuff 0x80000000 0x0 0x0 512 0 0 1",
        "2 put 0x80000000 0x1000 0x5003 1 0 0 1",
        "3 indirect 0x80000000 0x2000 6001,7003,0,8001 4 0 0 1",
        "4 xlate 0x80000000 0x2008 0x6001 1 0 - -",
        "5 xlate 0x80000000 0x3fff 0x7003 1 0 - -",
        "6 get 0x80000000 0x1000 0x5003 1 0 0 1",
        "7 get 0x80000000 0x4000 0x0 1 0 0 1",
        "8 stuff 0x80000000 0x2000 0x0 2 0 0 1",
        "9 put 0x80000100 0x1000 0x9003 1 0 0 1",
        "9 get 0x80000000 0x400000 0x0 1 -4 0 1",
        "9 put 0x80000200 0x1000 0x9003 1 -4 0 1",
    ]);
    assert_eq!((out.xlates, out.entries), (2, 2048));
    let counters = out.books.counters;
    assert_eq!(counters.tces_written, 512 + 1 + 4 + 2 + 1);
    assert!(counters.kills_issued > 0);
    assert_eq!(counters.kills_issued, counters.register_stores);
    // One level each: its only block is a leaf. Charged: blocks of a host page, per window.
    assert_eq!((counters.leaf_blocks, counters.table_blocks), (2, 2));
    assert_eq!(counters.pinned_end_bytes, 0);
    assert!(counters.pinned_peak_bytes >= 0x1_0000 + counters.table_charge_bytes);
}

#[test]
fn a_write_only_entry_is_kept_as_given() {
    passes(&[
        "1 put 0x80000000 0x1000 0x5002 1 0 0 1",
        "2 get 0x80000000 0x1000 0x5002 1 0 0 1",
        "3 xlate 0x80000000 0x1234 0x5002 1 0 - -",
    ]);
}

#[test]
fn poison_without_permission_is_empty_but_kept() {
    passes(&[
        "1 stuff 0x80000000 0x0 0xfffffffffffff000 512 0 0 1",
        "2 get 0x80000000 0x3000 0xfffffffffffff000 1 0 0 1",
        "3 put 0x80000000 0x3000 0xabc0 1 0 0 1",
    ]);
}

#[test]
fn an_overwrite_replaces_and_releases() {
    let out = passes(&[
        "1 put 0x80000000 0x1000 0x5003 1 0 0 1",
        "2 put 0x80000000 0x1000 0x6001 1 0 0 1",
        "3 indirect 0x80000000 0x0 7001,8003 2 0 0 1",
        "4 xlate 0x80000000 0x1000 0x8003 1 0 - -",
        "5 stuff 0x80000000 0x0 0x9003 8 0 0 1",
        "6 stuff 0x80000000 0x0 0x0 1 0 0 1",
    ]);
    assert_eq!(out.xlates, 1);
}

#[test]
fn windows_come_and_go() {
    let out = passes(&[
        "1 put 0x80000100 0x1000 0x5003 1 0 0 1",
        "2 window-create 0x80000101 0x800000000000000 16 4096 0 0 1",
        "3 put 0x80000101 0x800000000010000 0x70003 1 0 0 1",
        "4 xlate 0x80000101 0x800000000012345 0x70003 1 0 - -",
        "5 window-remove 0x80000100 - - - 0 0 5",
        "6 put 0x80000100 0x1000 0x5003 1 -4 0 1",
        "7 window-remove 0x80000102 - - - -3 0 5",
        // The last window goes: the default one comes back, empty.
        "8 window-remove 0x80000101 - - - 0 0 5",
        "9 get 0x80000100 0x1000 0x0 1 0 0 1",
        "10 put 0x80000100 0x1000 0x6003 1 0 0 1",
    ]);
    assert_eq!(out.entries, 2048);
}

#[test]
fn a_dynamic_window_in_the_default_ones_place_is_no_default() {
    passes(&[
        "1 window-remove 0x80000000 - - - 0 0 5",
        "2 window-create 0x80000000 0x0 16 4096 0 0 1",
        "3 put 0x80000000 0x30000 0x70003 1 0 0 1",
        "4 window-remove 0x80000000 - - - 0 0 5",
        "5 put 0x80000000 0x1000 0x5003 1 0 0 1",
        // The default window itself does not come back by itself.
        "6 window-remove 0x80000100 - - - 0 0 5",
        "7 put 0x80000100 0x1000 0x5003 1 -4 0 1",
    ]);
}

#[test]
fn a_reset_brings_back_the_default_window_alone() {
    let out = passes(&[
        "1 put 0x80000000 0x1000 0x5003 1 0 0 1",
        "2 window-create 0x80000001 0x800000000000000 24 256 0 0 1",
        "3 stuff 0x80000001 0x800000000000000 0x1000003 200 0 0 1",
        "4 window-reset 0x80000000 - - - 0 0 5",
        "5 get 0x80000000 0x1000 0x0 1 0 0 1",
        "6 put 0x80000001 0x800000000000000 0x1000003 1 -4 0 1",
        "7 window-reset 0x80000900 - - - -3 0 5",
    ]);
    assert_eq!(out.entries, 2048);
}

#[test]
fn each_set_of_rules_has_answers_of_its_own() {
    const QEMU: [&str; 6] = [
        "1 indirect 0x80000000 0x3ff000 5003,6003 2 -4 0 1",
        "2 get 0x80000000 0x3ff000 0x5003 1 0 0 1",
        "3 put 0x80000000 0x1008 0x7003 1 0 0 1",
        "4 stuff 0x80000000 0x3ff004 0x50 2 -4 0 1",
        "5 stuff 0x80000000 0x0 0x0 1025 -4 0 1",
        "6 xlate 0x80000000 0x1000 0x7003 1 0 - -",
    ];
    const KVM: [&str; 6] = [
        "1 put 0x90000000 0x1000 0x5003 1 9999 0 1",
        "2 indirect 0x80000000 0x3ff000 5003,6003 2 -4 0 1",
        "3 get 0x80000000 0x3ff000 0x5003 1 0 0 1",
        "4 stuff 0x80000000 0x0 0x5003 2 -4 0 1",
        "5 stuff 0x80000000 0x1008 0x0 2 -4 0 1",
        "6 stuff 0x80000000 0x3fe000 0x60 700 -4 0 1",
    ];
    for (lines, own) in [(QEMU, Compat::Qemu), (KVM, Compat::Kvm)] {
        for compat in [Compat::Arch, Compat::Kvm, Compat::Qemu] {
            let out = run_under(&lines, Setup { compat, ..setup_for(None) });
            let found = &out.mismatches.first;
            assert_eq!(out.mismatches.count == 0, compat == own, "{compat:?}: {found:?}");
        }
    }
}

#[test]
fn what_the_recorded_platform_offered_is_offered() {
    passes(&["1 window-create 0x80000001 0x800000000000000 21 512 0 0 1"]);
}

#[test]
fn wrong_answers_are_found_with_their_line() {
    const PUT: &str = "1 put 0x80000000 0x1000 0x5003 1 0 0 1";
    let found = finds(&[PUT, "2 put 0x80000000 0x2000 0x6003 1 -4 0 1"]);
    assert_eq!(
        found[0],
        "t.tce:5: put 0x80000000 0x2000 0x6003: expected ret -4 (H_PARAMETER), got 0 (H_SUCCESS)"
    );
    // The engine has an entry that the model lacks: also found at the end, twice, and counted.
    assert_eq!(found.len(), 4, "{found:?}");
    let found = finds(&[PUT, "2 get 0x80000000 0x1000 0x5001 1 0 0 1"]);
    assert_eq!(found, ["t.tce:5: get 0x80000000 0x1000: expected 0x5001, got 0x5003"]);
    let found = finds(&[PUT, "2 xlate 0x80000000 0x1000 0x5001 1 0 - -"]);
    assert_eq!(found, ["t.tce:5: xlate 0x80000000 0x1000: expected 0x5001, got 0x5003"]);
    let found = finds(&[PUT, "2 xlate 0x80000000 0x2000 0x5003 1 0 - -"]);
    assert_eq!(
        found,
        ["t.tce:5: xlate 0x80000000 0x2000: expected 0x5003, got Empty { value: 0 }"]
    );
    let found = finds(&["2 xlate 0x90000000 0x2000 0x5003 1 0 - -"]);
    assert!(found[0].ends_with("got no PHB of that LIOBN"), "{found:?}");
}

#[test]
fn wrong_windows_are_found_with_their_line() {
    let found = finds(&["2 window-create 0x80000002 0x800000000000000 16 256 0 0 1"]);
    assert_eq!(
        found[0],
        "t.tce:4: window-create of 256 pages of 2^16: expected status 0 with LIOBN 0x80000002 at \
         0x800000000000000, got status 0 with LIOBN 0x80000001 at 0x800000000000000"
    );
    let found = finds(&["2 window-remove 0x80000100 - - - -1 0 5"]);
    assert!(found[0].ends_with("expected status -1, got status 0"), "{found:?}");
    // A default window that the mock has elsewhere.
    let elsewhere = "0 window-create 0x80000200 0x40000000 12 1024 0 - -";
    assert!(finds(&[elsewhere])[0].contains("window 0x80000200: expected 1024 TCEs at 0x40000000"));
}

#[test]
fn guest_ram_that_is_too_small_is_a_mismatch() {
    let lines = ["1 put 0x80000000 0x1000 0xf003 1 0 0 1", "1 put 0x80000000 0x0 0x10003 1 0 0 1"];
    assert_eq!(run(&lines, Some(2 << 16)).mismatches.count, 0);
    let out = run(&lines, Some(1 << 16));
    assert!(out.mismatches.first[0].starts_with("t.tce:5: put 0x80000000 0x0 0x10003: expected"));
    assert!(out.mismatches.first[0].ends_with("ret 0 (H_SUCCESS), got -4 (H_PARAMETER)"));
}

#[test]
fn only_the_first_are_kept_but_all_are_counted() {
    let wrong = ["1 put 0x90000000 0x1000 0x5003 1 0 0 1"; 25];
    let out = run(&wrong, None);
    assert_eq!((out.mismatches.count, out.mismatches.first.len()), (25, KEPT));
}

#[test]
fn timed_passes_make_the_same_calls() {
    let script = script(&[
        "1 put 0x80000000 0x1000 0x5003 1 0 0 1",
        "2 indirect 0x80000000 0x2000 6001,7003 2 0 0 1",
        "3 xlate 0x80000000 0x2000 0xdead001 1 0 - -",
        "4 stuff 0x80000000 0x1000 0x0 3 0 0 1",
        "5 get 0x80000000 0x1000 0x0 1 0 0 1",
        "6 window-create 0x80000001 0x800000000000000 16 256 0 0 1",
    ])
    .unwrap();
    let (setup, progress) = (setup_for(None), Progress::hidden());
    let (out, took) = throughput(&script, &setup, 1 << 16, &progress).unwrap();
    assert!(out.complete && !took.is_zero());
    assert_eq!((out.sum.calls, out.sum.tces), (4, 7));
    assert_eq!(out.mismatches(&script, "throughput").count, 0);
    let (out, times) = latency(&script, &setup, 1 << 16, &progress).unwrap();
    assert_eq!(
        times.each_ref().map(|r| (r.calls(), r.tces())),
        [(1, 1), (1, 2), (1, 3), (1, 1), (0, 0)]
    );
    assert_eq!(out.books.counters.tces_written, 6);
}

#[test]
fn a_timed_pass_does_not_time_refusals_in_silence() {
    let script = script(&["1 put 0x80000000 0x1000 0x5003 1 -4 0 1"; 3]).unwrap();
    let (out, _) = throughput(&script, &setup_for(None), 1 << 16, &Progress::hidden()).unwrap();
    let found = out.mismatches(&script, "throughput");
    assert_eq!(found.count, 3);
    assert!(found.first[0].starts_with("t.tce:4: throughput pass, first of 3 wrong answers"));
}

#[test]
fn traces_that_cannot_be_are_refused_with_their_line() {
    for (line, text) in [
        ("0 window-create 0x80000001 0x0 12 1024 0 - -", "a second default window for PHB"),
        ("5 window-create - - 24 0 -3 0 1", "names no PHB and the trace has 2"),
        ("5 window-create 0x80000001 0x0 12 1000 0 0 1", "1000 TCEs; accepted: a power of two"),
        ("5 window-create 0x80000001 0x0 40 1024 0 0 1", "2^40 byte pages"),
        ("5 window-create 0x80000001 0x0 34 1125899906842624 0 0 1", "does not fit in 64 bits"),
        ("0 window-create - - 12 1024 -3 - -", "the default window was not created"),
    ] {
        let error = script(&[line]).unwrap_err();
        assert_eq!(error.line, 4, "{error}");
        assert!(error.text.contains(text), "{error}");
    }
    // Not a mismatch: there is no guest to replay on.
    let script = script(&["0 window-create 0x80000200 0x0 12 281474976710656 0 - -"]).unwrap();
    let error = Machine::new(&script, &setup_for(None), 1 << 16).err().unwrap();
    assert!(error.to_string().starts_with("t.tce:4: PHB 0x80000200 cannot be set up"), "{error}");
}

#[test]
fn ram_follows_the_largest_target() {
    let script = script(&["1 put 0x80000000 0x1000 0x15003 1 0 0 1"]).unwrap();
    assert_eq!(script.ram(None, PageShift::K64).unwrap(), 0x2_0000);
    assert_eq!(script.ram(None, PageShift::K4).unwrap(), 0x1_6000);
    assert_eq!(script.ram(Some(7), PageShift::K4).unwrap(), 7);
    let top = "1 put 0x80000000 0x1000 0xfffffffffffff003 1 0 0 1";
    assert!(super::tests::script(&[top]).unwrap().ram(None, PageShift::K64).is_err());
}

#[test]
fn a_model_that_lost_an_entry_is_told_from_the_engine() {
    // The model must be able to disagree: it knows the recorded answers only.
    let script = script(&["1 put 0x80000000 0x1000 0x5003 1 0 0 1"]).unwrap();
    let mut model = Model::new(&script, Compat::Arch);
    assert_eq!(model.live(0x8000_0000), 0);
    model.apply(&script.steps[0], &script);
    assert_eq!((model.live(0x8000_0000), model.live(0x8000_0100)), (1, 0));
    assert_eq!(model.windows[&0x8000_0000].entry(1), (0x5003, 4));
    assert_eq!(model.windows[&0x8000_0000].entry(2), (0, 2));
    assert!(Books::default().nothing_left());
}

#[test]
fn labels_are_short() {
    assert_eq!(label("a/b/net-rx.tce.zst"), "net-rx");
    assert_eq!(label("x.zst"), "x");
    assert_eq!(label("plain"), "plain");
}
