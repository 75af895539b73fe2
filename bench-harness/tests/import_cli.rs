// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `import` as a user meets it.

use std::fs;
use std::path::Path;

use crate::common::{bench, refused, text};

/// Imports a recording, replays what came out with every answer checked, and returns the trace's lines
/// without its head, and what was said.
fn imported(from: &str, recording: &str, more: &[&str]) -> (Vec<String>, String) {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in"), dir.path().join("out.tce.zst"));
    fs::write(&input, recording).unwrap();
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let out = bench(&[&["import", "--from", from, input, "-o", output], more].concat());
    assert!(out.status.success() && out.stdout.is_empty(), "{}", text(&out.stderr));
    let replay = bench(&["replay", output, "--pass", "checked"]);
    assert!(replay.status.success(), "{}", text(&replay.stderr));
    let trace = zstd::decode_all(fs::read(output).unwrap().as_slice()).unwrap();
    let trace: Vec<_> = text(&trace).lines().map(str::to_owned).collect();
    assert_eq!(trace[0], "# tce-trace 1");
    let said = text(&out.stderr);
    for line in said.lines() {
        assert!(trace.contains(&format!("# import: {line}")), "{line} is not in the trace");
    }
    (trace[2..].iter().filter(|l| !l.starts_with("# import")).cloned().collect(), said)
}

const FTRACE: &str = "\
# tracer: nop
#
# entries-in-buffer/entries-written: 9/14   #P:4
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
CPU:2 [LOST 3 EVENTS]
      kworker/2:1-77     [002] d..1.   100.000001: unmap: IOMMU: iova=0x00000000fff00000 - 0x00000000fff01000 size=4096 unmapped_size=4096
 my task [x] y-1234      [001] d..1.   100.000002: map: IOMMU: iova=0x00000000fff10000 - 0x00000000fff11000 paddr=0x0000000012345000 size=4096
       <idle>-0          [003] d.h1.   100.000003: iommu:map: IOMMU: iova=0xfff20000 - 0xfff23000 paddr=0x50000 size=0x3000
        fio-9            [001] .....   100.000010: sched_switch: prev_comm=map: next
        fio-9            [001] d..1.   100.000009: map: IOMMU: iova=0x00000000fff10000 paddr=0x0000000000777000 size=4096
        fio-9            [001] d..1.   100.000020: unmap: IOMMU: iova=0x00000000fff20000 - 0x00000000fff23000 size=12288 unmapped_size=8192
        fio-9            [001] d..1.   100.000021: map: IOMMU: iova=0x00000000fff30200 - 0x00000000fff31200 paddr=0x0000000000800200 size=4096
        fio-9            [001] d..1.   100.000022: map: IOMMU: iova=0x00000000fff40000 - 0x00000000fff41000 paddr=0x0000000000800200 size=4096
        fio-9            [001] d..1.   100.000023: unmap: IOMMU: iova=0x00000000fff22000 - 0x00000000fff23000 size=4096 unmapped_size=0
        fio-9            [000] d..1.   100.000024: map: IOMMU: iova=0x00000000ff800000 - 0x00000000ffa01000 paddr=0x0000000001000000 size=2101248
";

#[test]
fn the_events_of_linux_become_calls() {
    let (lines, said) = imported("ftrace", FTRACE, &[]);
    let long = |from: u64| {
        let list: Vec<_> = (0..512).map(|n| format!("{:x}", from + n * 0x1000 + 3)).collect();
        list.join(",")
    };
    // The stretch from 0xff800000 to 0xfff31fff begins at 0.
    let expected = [
        "# iova_base 0xff800000".to_string(),
        "# columns: t_ns op liobn ioba value npages ret cpu dur_ns".to_string(),
        "0 window-create 0x80000000 0x0 12 2048 0 - -".to_string(),
        "0 stuff 0x80000000 0x700000 0x0 1 0 2 -".to_string(),
        "1000 put 0x80000000 0x710000 0x12345003 1 0 1 -".to_string(),
        "2000 indirect 0x80000000 0x720000 50003,51003,52003 3 0 3 -".to_string(),
        "8000 put 0x80000000 0x710000 0x777003 1 0 1 -".to_string(),
        "19000 stuff 0x80000000 0x720000 0x0 2 0 1 -".to_string(),
        "20000 indirect 0x80000000 0x730000 800003,801003 2 0 1 -".to_string(),
        format!("23000 indirect 0x80000000 0x0 {} 512 0 0 -", long(0x100_0000)),
        "23000 put 0x80000000 0x200000 0x1200003 1 0 0 -".to_string(),
    ];
    assert_eq!(lines, expected);
    for part in [
        "6 map(s) and 3 unmap(s) became 8 call(s); 517 page(s) are mapped at the end\n",
        "8 event(s) were lost",
        "1 unmap(s) name 1 page(s) that nothing here had mapped",
        "1 map(s) name 1 page(s) that were mapped",
        "1 event(s) not of whole pages",
        "1 map(s) left out: iova and paddr differ",
        "2 unmap(s) did less",
        "1 event(s) of no bytes",
        "7 other line(s)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("before the one above"), "{said}");
}

#[test]
fn times_that_run_back_are_counted() {
    let times = ["5.000002", "5.000001", "5.000009123", "5.000004"];
    let line = |t: &&str| {
        format!("a-1 [000] d..1. {t}: map: IOMMU: iova=0x{}000 paddr=0x0 size=4096\n", &t[7..8])
    };
    let (lines, said) =
        imported("ftrace", &times.iter().map(line).collect::<String>(), &["--window", "1M"]);
    let times: Vec<_> = lines[3..].iter().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(times, ["0", "0", "7123", "7123"], "{lines:#?}");
    assert!(said.contains("2 event(s) before the one above"), "{said}");
}

#[test]
fn tables_of_values_become_calls() {
    let text = "size,op,\"iova\",paddr,perm,t_ns,cpu\r\n0x20000,map,0x10000,131072,r,500,7\r\n\
                65536,\"map\",0x30000,0x50000,,501,\r\n\n0x30000,unmap,65536,,,502,1\n";
    let (lines, said) = imported("csv", text, &["--page-size", "64K", "--window", "16M"]);
    assert_eq!(
        lines[2..],
        [
            "0 window-create 0x80000000 0x0 16 256 0 - -",
            "0 indirect 0x80000000 0x10000 20001,30001 2 0 7 -",
            "1 put 0x80000000 0x30000 0x50003 1 0 - -",
            "2 stuff 0x80000000 0x10000 0x0 3 0 1 -",
        ]
    );
    assert_eq!(said, "2 map(s) and 1 unmap(s) became 3 call(s); 0 page(s) are mapped at the end\n");
}

/// A Linux 6.12 of one vCPU that `scripts/record-check dynamic` recorded: it boots, uses an NVMe and a virtio
/// disk and the network, and powers off.
const CAPTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/nvme-net.tcecap.zst");

#[test]
fn a_recorded_guest_becomes_a_trace_that_replays() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("guest.tce.zst");
    let output = output.to_str().unwrap();
    let out = bench(&["import", "--from", "qemu", CAPTURE, "-o", output]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(text(&out.stderr), "5,649 call(s) and 0 for windows, of which 0 failed\n");
    let trace = zstd::decode_all(fs::read(output).unwrap().as_slice()).unwrap();
    let trace = text(&trace);
    let mut lines = trace.lines().skip(2);
    for line in [
        "# recorded by QEMU 10.0.2, up to 1 vCPU(s), guest RAM 1 GiB",
        "# columns: t_ns op liobn ioba value npages ret cpu dur_ns",
        "0 window-create 0x71000002 0x0 12 65536 0 - -",
        "0 window-create 0x80000000 0x0 12 262144 0 - -",
    ] {
        assert_eq!(lines.next(), Some(line));
    }
    assert!(lines.next().is_some_and(|l| l.starts_with("0 stuff 0x80000000 0x0 0x0 512 0 0 ")));
    // As QEMU's own log of the same run has them.
    let count = |op: &str| trace.lines().filter(|l| l.split(' ').nth(1) == Some(op)).count();
    assert_eq!([count("put"), count("indirect"), count("stuff")], [2452, 57, 3140]);
    let replay = bench(&["replay", output, "--pass", "checked"]);
    assert!(replay.status.success(), "{}", text(&replay.stderr));
}

#[test]
fn a_recorded_guest_may_be_cut_off_and_its_windows_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("part.tcecap");
    let whole = zstd::decode_all(fs::read(CAPTURE).unwrap().as_slice()).unwrap();
    fs::write(&input, &whole[..100_000]).unwrap();
    let input = input.to_str().unwrap();
    let part = ["import", "--from", "qemu", input, "-o", "-", "--window", "0x80000000:0:12:524288"];
    let out = bench(&part);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("the recording was cut off at byte 99,"), "{out:?}");
    assert!(text(&out.stdout).contains("\n0 window-create 0x80000000 0x0 12 524288 0 - -\n"));
}

/// The error of a recording that is refused; nothing is written.
fn wrong(from: &str, recording: &str, more: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in"), dir.path().join("out.tce"));
    fs::write(&input, recording).unwrap();
    let (input, out) = (input.to_str().unwrap(), output.to_str().unwrap());
    let error = refused(&[&["import", "--from", from, input, "-o", out], more].concat(), 1);
    assert!(!output.exists());
    error
}

#[test]
fn what_is_wrong_with_a_recording_is_told_with_its_line() {
    let event = |rest: &str| format!("# a comment\na-1 [000] d..1. 5.000001: {rest}\n");
    for (rest, part) in [
        ("map: IOMMU: iova=0x1000 - 0x3000 paddr=0x0 size=4096", "the end 0x3000 is not iova"),
        ("map: IOMMU: iova=0x1000 - 0x2000 size=4096", "the event has no paddr"),
        ("unmap: IOMMU: iova=0x1000 - 0x2000 size=4096", "the event has no unmapped_size"),
        ("map: IOMMU: iova=0x1000 - 0x2000 paddr=zero size=4096", "paddr 'zero' is wrong"),
        ("map: IOMMU: iova=0xffffffffffffffff - 0xfff paddr=0x0 size=4096", "reach beyond 2^64"),
    ] {
        let error = wrong("ftrace", &event(rest), &[]);
        assert!(error.contains("in:2: ") && error.contains(part), "{part}: {error}");
    }
    let ticks = event("map: IOMMU: iova=0x0 paddr=0x0 size=4096").replace("5.000001", "123456");
    assert!(wrong("ftrace", &ticks, &[]).contains("the time '123456:' is wrong"));
    assert!(wrong("ftrace", "# tracer: nop\n", &[]).contains("no event that maps or unmaps"));
    assert!(wrong("ftrace", "a-1 [000] d..1. 5.0", &[]).contains("the file is truncated"));

    let csv = |text: &str| wrong("csv", text, &[]);
    assert!(csv("op,iova,size\n").contains("in:1: the first line has no column 'paddr'"));
    assert!(csv("op,iova,size,paddr,colour\n").contains("unknown column 'colour'"));
    assert!(csv("op,iova,size,paddr,op\n").contains("'op' is there twice"));
    let head = "op,iova,size,paddr,perm\n";
    let line = |line: &str| csv(&format!("{head}{line}\n"));
    assert!(line("map,1,2,3").contains("in:2: the line has 4 cells; accepted: 5"));
    assert!(line("mop,1,2,3,r").contains("op 'mop' is wrong"));
    assert!(line("map,,2,3,r").contains("the cell 'iova' is empty"));
    assert!(line("map,-1,2,3,r").contains("iova '-1' is wrong"));
    assert!(line("map,1,0x10000000000000000,3,r").contains("size '0x10000000000000000' is wrong"));
    assert!(line("map,0,4096,0,x").contains("perm 'x' is wrong"));
    let far = format!("{head}map,0x100000,4096,0,r\n");
    assert!(
        wrong("csv", &far, &["--window", "1M"]).contains("in:2: iova 0x100000 and size 0x1000")
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let usual = ["import", "--from", "csv", "no/such", "-o", "/nowhere/at/all"];
    assert!(refused(&usual, 1).contains("/nowhere/at"));
    assert!(refused(&["import", "--from", "csv", "no/such", "-o", "-"], 1).contains("no/such"));
    let odd = ["import", "--from", "csv", "no/such", "-o", "-", "--window", "3M"];
    assert!(refused(&odd, 2).contains("a power of two"));
    let twice = ["import", "--from", "csv", "/dev/null", "-o", "-"];
    assert!(refused(&twice, 1).contains("give --window"));
    let qemu = ["import", "--from", "qemu", "no/such", "-o", "-"];
    assert!(refused(&qemu, 1).contains("no/such: cannot be read: No such file"));
    assert!(refused(&["import", "--from", "qemu", "/dev/null", "-o", "-"], 1).contains("twice"));
    for (window, part) in [
        (
            "1M",
            "--window 0x100000 says no LIOBN; accepted with --from qemu: LIOBN:START:SHIFT:PAGES",
        ),
        ("1:2", "the window '1:2' is wrong: it has no SHIFT"),
        ("1:x:12:1", "its START is no number"),
        ("0x100000000:0:12:1", "the limit of a LIOBN is 0xffffffff"),
        ("1:0:11:1", "a SHIFT is 12 to 34"),
        ("1:0:12:3", "PAGES are a power of two"),
        ("1:0:34:0x40000000", "together less than 2^64 bytes"),
        ("1:0x800:12:1", "it begins on no whole page"),
        ("1:0:12:1:1", "it has more than four parts"),
    ] {
        let error = refused(&[&qemu[..], &["--window", window]].concat(), 2);
        assert!(error.contains(part), "{window}: {error}");
    }
    let twice = ["--window", "1:0:12:1", "--window", "1:0:12:2"];
    assert!(refused(&[&qemu[..], &twice].concat(), 2).contains("the LIOBN 0x1 twice"));
    assert!(
        refused(&[&qemu[..], &["--page-size", "4K"]].concat(), 2).contains("--page-size is not")
    );
    let other = ["import", "--from", "csv", "no/such", "-o", "-", "--window"];
    assert!(refused(&[&other[..], &["1:0:12:1"]].concat(), 2).contains("accepted: a size"));
    let twice = ["1M", "--window", "1M"];
    assert!(refused(&[&other[..], &twice].concat(), 2).contains("--window is given twice"));
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    fs::write(&input, FTRACE).unwrap();
    let trace = ["import", "--from", "qemu", input.to_str().unwrap(), "-o", "-"];
    assert!(refused(&trace, 1).contains("at byte 0: it begins with '# tracer'"));
    let full = ["import", "--from", "ftrace", input.to_str().unwrap(), "-o", "/dev/full"];
    assert!(refused(&full, 1).contains("No space left"));
    assert!(!Path::new("no").exists());
}
