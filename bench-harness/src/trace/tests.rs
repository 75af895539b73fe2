// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use std::io::Write;

const CREATE: &str = "0 window-create 0x80000000 0x0 12 262144 0 - -";

fn read(lines: &[&str]) -> Result<TraceFile, TraceError> {
    let text = format!("{HEADER}\n{}\n", lines.join("\n"));
    TraceFile::read("t.tce", text.as_bytes())
}

/// The error of a trace whose last line is `line`, checked to name that line and be one line.
fn refused(line: &str) -> String {
    let error = read(&[CREATE, line]).expect_err(line);
    assert_eq!((error.file.as_str(), error.line), ("t.tce", 3), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    error.text
}

fn traces() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/traces")
}

#[test]
fn every_op_parses_to_its_fields() {
    let trace = read(&[
        "# name demo",
        CREATE,
        "5 put 0x80000000 0x1000 0x2003 1 0 1 99",
        "5 indirect 0x80000000 0x2000 3001,4003,0 3 -4 0 -",
        "6 stuff 0x80000000 0x2000 0x0 512 0 - 7",
        "7 get 0x80000000 0x1000 0x2003 1 0 1 7",
        "8 window-create 0x80000001 0x800000000000000 16 65536 0 0 1",
        "8 window-create - - 24 0 -3 0 1",
        "9 xlate 0x80000000 0x1008 0x2003 1 0 - -",
        "10 window-remove 0x80000001 - - - 0 0 5",
        "11 window-reset 0x80000000 0x0 0x0 0 0 0 5",
    ])
    .unwrap();
    assert_eq!(trace.name, "demo");
    assert_eq!(trace.records.len(), 10);
    let op = |index: usize| trace.records[index].op.clone();
    assert_eq!(
        op(0),
        Op::WindowCreate {
            liobn: Some(0x8000_0000),
            ioba: Some(0),
            page_shift: 12,
            entries: 262_144,
            ret: 0,
            power_on: true
        }
    );
    let put = Op::Put { liobn: 0x8000_0000, ioba: 0x1000, tce: 0x2003, ret: 0 };
    assert_eq!(trace.records[1], Record { line: 4, t_ns: 5, cpu: Some(1), op: put });
    let Op::Indirect { list, ret: -4, .. } = op(2) else { panic!("{:?}", op(2)) };
    assert_eq!(trace.list(&list), [0x3001, 0x4003, 0]);
    assert_eq!(
        op(3),
        Op::Stuff { liobn: 0x8000_0000, ioba: 0x2000, value: 0, npages: 512, ret: 0 }
    );
    assert_eq!(op(4), Op::Get { liobn: 0x8000_0000, ioba: 0x1000, value: 0x2003, ret: 0 });
    assert!(matches!(op(5), Op::WindowCreate { power_on: false, page_shift: 16, .. }));
    assert!(matches!(op(6), Op::WindowCreate { liobn: None, ioba: None, ret: -3, .. }));
    assert_eq!(op(7), Op::Xlate { liobn: 0x8000_0000, ioba: 0x1008, value: 0x2003 });
    assert_eq!(op(8), Op::WindowRemove { liobn: 0x8000_0001, ret: 0 });
    assert_eq!(op(9), Op::WindowReset { liobn: 0x8000_0000, ret: 0 });
    let counts = Counts { put: 1, indirect: 1, stuff: 1, get: 1, window: 5, xlate: 1, mapped: 1 };
    assert_eq!(trace.counts, counts);
    assert_eq!(counts.calls(), 4);
}

#[test]
fn an_empty_list_and_a_list_above_512_are_the_engines_business() {
    let long = vec!["1003"; 513].join(",");
    let line = format!("1 indirect 0x80000000 0x0 {long} 513 -4 0 1");
    let trace = read(&[&line, "2 indirect 0x80000000 0x0 - 0 0 0 1"]).unwrap();
    assert_eq!(trace.pool.len(), 513);
    assert_eq!(trace.counts.indirect, 2);
    assert_eq!(trace.counts.mapped, 0, "a failed call maps nothing");
}

#[test]
fn what_is_written_reads_as_it_was() {
    let lines = [
        CREATE,
        "5 put 0x80000000 0x1000 0x2003 1 0 1 -",
        "5 indirect 0x80000000 0x2000 3001,4003,0 3 -4 0 -",
        "5 indirect 0x80000000 0x2000 - 0 -4 0 -",
        "6 stuff 0x80000000 0x2000 0x0 512 0 - -",
        "7 get 0x80000000 0x1000 0x2003 1 0 1 -",
        "8 window-create 0x80000001 0x800000000000000 16 65536 0 0 -",
        "8 window-create - - 24 0 -3 0 -",
        "9 xlate 0x80000000 0x1008 0x2003 1 0 - -",
        "10 window-remove 0x80000001 - - - 0 0 -",
        "11 window-reset 0x80000000 - - - 0 0 -",
    ];
    let trace = read(&lines).unwrap();
    let mut text = Vec::new();
    for record in &trace.records {
        write_line(&mut text, record, &trace.pool, None).unwrap();
    }
    assert_eq!(String::from_utf8(text).unwrap(), lines.join("\n") + "\n");
}

#[test]
fn each_wrong_field_is_named() {
    let put = |fields: &str| refused(fields);
    assert!(put("x put 0x80000000 0x0 0x0 1 0 0 0").starts_with("t_ns 'x'"));
    assert!(put("-1 put 0x80000000 0x0 0x0 1 0 0 0").starts_with("t_ns '-1'"));
    assert!(put("01 put 0x80000000 0x0 0x0 1 0 0 0").starts_with("t_ns '01'"));
    assert!(put("18446744073709551616 put 0x0 0x0 0x0 1 0 0 0").contains("too large"));
    assert!(put("0 putt 0x80000000 0x0 0x0 1 0 0 0").contains("accepted: put, indirect"));
    assert!(put("0 put 80000000 0x0 0x0 1 0 0 0").starts_with("liobn '80000000'"));
    assert!(put("0 put 0x100000000 0x0 0x0 1 0 0 0").contains("the limit is 0xffffffff"));
    assert!(put("0 put - 0x0 0x0 1 0 0 0").starts_with("liobn '-'"));
    assert!(put("0 put 0x0 0x+1 0x0 1 0 0 0").starts_with("ioba '0x+1'"));
    assert!(put("0 put 0x0 0x0 0x11112222333344445 1 0 0 0").starts_with("value "));
    assert!(put("0 put 0x0 0x0 0x0 2 0 0 0").contains("npages '2' of a put; accepted: 1"));
    assert!(put("0 get 0x0 0x0 0x0 0 0 0 0").contains("npages '0' of a get"));
    assert!(put("0 put 0x0 0x0 0x0 1 ok 0 0").starts_with("ret 'ok'"));
    assert!(put("0 put 0x0 0x0 0x0 1 --4 0 0").starts_with("ret '--4'"));
    assert!(put("0 put 0x0 0x0 0x0 1 0 4294967296 0").starts_with("cpu 4294967296"));
    assert!(put("0 put 0x0 0x0 0x0 1 0 0 1.5").starts_with("dur_ns '1.5'"));
    assert!(put("0 xlate 0x0 0x0 0x1003 1 -4 - -").starts_with("ret -4 of an xlate"));
}

#[test]
fn the_layout_of_a_line_is_exact() {
    assert!(refused("0 put 0x0 0x0 0x0 1 0 0").contains("8 columns"));
    assert!(refused("0 put 0x0 0x0 0x0 1 0 0 0 0").contains("10 columns"));
    assert!(refused("0 put 0x0 0x0 0x0 1 0 0 0 ").contains("10 columns"));
    assert!(refused("0 put 0x0  0x0 0x0 1 0 0").contains("column 4 is empty"));
    assert!(refused("0\tput\t0x0\t0x0\t0x0\t1\t0\t0\t0").contains("1 columns"));
    assert!(refused("0 put 0x0 0x0 0x0 1 0 0 0\r").starts_with("dur_ns"));
    assert!(refused("").contains("the line is empty"));
}

#[test]
fn lists_must_be_exact() {
    let list = |list: &str, n: &str| refused(&format!("0 indirect 0x0 0x0 {list} {n} 0 0 0"));
    assert!(list("1003,2003", "3").contains("2 entries but npages is 3"));
    assert!(list("1003,2003", "1").contains("2 entries but npages is 1"));
    assert!(list("1003,,2003", "3").contains("entry 1 of the list is ''"));
    assert!(list("1003,", "2").contains("entry 1"));
    assert!(list("0x1003", "1").contains("entry 0 of the list is '0x1003'"));
    assert!(list("10000000000000003", "1").contains("entry 0"));
}

#[test]
fn window_lines_must_make_sense() {
    assert!(refused("1 window-create - - 12 1 0 0 0").starts_with("liobn '-'"));
    assert!(refused("1 window-create 0x1 - 12 1 0 0 0").starts_with("ioba '-'"));
    assert!(refused("1 window-create 0x1 0x0 12 1 -3 0 0").contains("accepted: '-' for both"));
    assert!(refused("1 window-create 0x1 0x0 64 1 0 0 0").contains("the limit is 63"));
    assert!(refused("1 window-create 0x1 0x0 11 1 0 0 0").contains("accepted: 12 to 63"));
    assert!(refused("1 window-create 0x1 0x0 12 0 0 0 0").contains("npages 0"));
    assert!(refused("1 window-remove 0x1 junk - - 0 0 0").starts_with("ioba 'junk'"));
    assert!(refused("1 window-reset 0x1 - - x 0 0 0").starts_with("npages 'x'"));
}

#[test]
fn times_must_be_sorted() {
    let error = read(&["5 put 0x0 0x0 0x0 1 0 0 0", "4 put 0x0 0x0 0x0 1 0 0 0"]).unwrap_err();
    assert_eq!(error.to_string(), "t.tce:3: t_ns 4 is before the line above; accepted: 5 or later");
}

#[test]
fn the_file_as_a_whole() {
    let bad = |bytes: &[u8]| TraceFile::read("f", bytes).unwrap_err();
    assert_eq!(bad(b"").line, 1);
    assert!(bad(b"").text.contains("the file is empty"));
    assert!(bad(b"# tce-trace 2\n").text.contains("accepted: '# tce-trace 1'"));
    assert!(bad(b"# tce-trace 1 \n").text.contains("first line"));
    assert!(bad(b"\x1f\x8b\x08garbage\n").text.contains("not UTF-8"));
    assert!(bad(b"# tce-trace 1\n# only comments\n").text.contains("no calls"));
    let cut = bad(b"# tce-trace 1\n0 put 0x0 0x0 0x0 1 0 0 0");
    assert_eq!((cut.line, cut.text.contains("truncated")), (2, true));
    let not_utf8 = bad(b"# tce-trace 1\n0 put 0x\xff 0x0 0x0 1 0 0 0\n");
    assert_eq!((not_utf8.line, not_utf8.text.contains("byte 9 ")), (2, true), "{not_utf8}");
    let mut long = format!("{HEADER}\n0 indirect 0x0 0x0 ").into_bytes();
    long.resize(long.len() + MAX_LINE, b'0');
    assert!(bad(&long).text.contains("longer than the limit"));
}

#[test]
fn missing_files_and_directories_are_one_line() {
    let missing = TraceFile::load(Path::new("no/such.tce")).unwrap_err();
    assert_eq!(missing.to_string(), "no/such.tce: cannot be read: No such file or directory");
    let directory = TraceFile::load(&traces()).unwrap_err();
    assert!(directory.text.starts_with("cannot be read: "), "{directory}");
}

#[test]
fn zstd_reads_as_plain_and_truncation_is_found() {
    let mut text = format!("{HEADER}\n{CREATE}\n");
    for t in 0..2000 {
        text += &format!("{t} put 0x80000000 {:#x} {:#x} 1 0 0 {}\n", t << 12, t << 12 | 3, t * 7);
    }
    let plain = TraceFile::read("f", text.as_bytes()).unwrap();
    let mut packed = Vec::new();
    let mut encoder = zstd::Encoder::new(&mut packed, 3).unwrap();
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap();
    assert_eq!(TraceFile::read("f", packed.as_slice()).unwrap(), plain);

    for keep in [5, packed.len() / 2, packed.len() - 1] {
        let error = TraceFile::read("f", &packed[..keep]).unwrap_err();
        assert!(error.text.contains("truncated or corrupt"), "{keep}: {error}");
    }
    let mut garbage = packed.clone();
    garbage.extend_from_slice(b"more");
    assert!(TraceFile::read("f", garbage.as_slice()).is_err());
}

#[test]
fn the_largest_target_uses_the_page_size_of_its_window_at_that_line() {
    let end = |lines: &[&str]| read(lines).unwrap().largest_target();
    assert_eq!(end(&[CREATE]), 0);
    assert_eq!(end(&[CREATE, "1 put 0x80000000 0x0 0x7ffff003 1 0 0 0"]), 0x8000_0000);
    // No permission bits: not a mapping, whatever the address. A failed call names nothing.
    assert_eq!(end(&[CREATE, "1 put 0x80000000 0x0 0x7ffff000 1 0 0 0"]), 0);
    assert_eq!(end(&[CREATE, "1 put 0x80000000 0x0 0x7ffff003 1 -4 0 0"]), 0);
    let wide = "1 window-create 0x80000001 0x800000000000000 24 256 0 0 0";
    let put = "2 put 0x80000001 0x800000000000000 0x1000003 1 0 0 0";
    assert_eq!(end(&[CREATE, wide, put]), 0x200_0000);
    assert_eq!(end(&[CREATE, wide, "2 window-remove 0x80000001 - - - 0 0 0", put]), 0x100_1000);
    assert_eq!(end(&[CREATE, wide, "2 window-reset 0x80000000 - - - 0 0 0", put]), 0x100_1000);
    assert_eq!(
        end(&[CREATE, wide, "2 indirect 0x80000001 0x0 1000003,0,2000001 3 0 0 0"]),
        0x300_0000
    );
    assert_eq!(end(&[CREATE, "1 stuff 0x80000000 0x0 0x5001 4 0 0 0"]), 0x6000);
    assert_eq!(end(&[CREATE, "1 put 0x80000000 0x0 0xffffffffffffffff 1 0 0 0"]), u64::MAX);
}

/// A damaged byte anywhere gives a trace or an error with a line of the file; never a panic.
#[test]
fn damage_never_panics() {
    let good = format!(
        "{HEADER}\n# name x\n{CREATE}\n1 put 0x80000000 0x0 0x1003 1 0 0 5\n\
         2 indirect 0x80000000 0x1000 2003,3003 2 0 1 5\n3 window-create - - 24 0 -3 0 1\n\
         4 xlate 0x80000000 0x8 0x1003 1 0 - -\n5 window-remove 0x80000000 - - - 0 0 5\n"
    );
    let lines = good.lines().count() as u64;
    let mut refused = 0;
    for place in 0..good.len() {
        for byte in [0, b' ', b'\n', b'#', b'-', b',', b'0', b'9', b'f', b'x', 0x80, 0xff] {
            let mut bad = good.clone().into_bytes();
            bad[place] = byte;
            if let Err(error) = TraceFile::read("f", bad.as_slice()) {
                assert!((1..=lines + 1).contains(&error.line), "{error}");
                assert!(!error.text.contains('\n') && error.text.len() < 300, "{error}");
                refused += 1;
            }
        }
        // A file cut within a line is found; one cut between lines is a shorter trace.
        let cut = &good[..place];
        assert!(TraceFile::read("f", cut.as_bytes()).is_err() || cut.ends_with('\n'), "{cut}");
    }
    // Most damage must be seen; a changed digit or comment cannot be.
    assert!(refused > good.len() * 6, "only {refused} of {}", good.len() * 12);
}

/// The table of `workloads/traces/README.md`: calls, put, indirect, stuff, TCEs mapped, xlate.
const TABLE: [(&str, [u64; 6]); 9] = [
    ("boot-ddw-4k", [1536, 0, 1024, 512, 524_288, 0]),
    ("boot-ddw", [1089, 0, 65, 1024, 32_896, 0]),
    ("mixed", [566_736, 340_675, 6380, 219_681, 385_653, 0]),
    ("net-rx", [529_428, 264_458, 1, 264_969, 264_460, 0]),
    ("net-tx", [120_790, 56_584, 3556, 60_650, 65_978, 0]),
    ("nvme-randrw-qd32", [267_298, 133_393, 4, 133_901, 133_433, 0]),
    ("nvme-seq-write", [60_728, 18, 32_830, 27_880, 2_801_082, 0]),
    ("xlate-mixed", [161_558, 70_661, 10_550, 80_347, 195_723, 499_765]),
    ("boot-ddw-fallback", [546, 17, 4, 525, 57, 0]),
];

#[test]
fn the_recorded_traces_hold_what_their_readme_says() {
    let mut total = 0;
    for (name, expected) in TABLE {
        let trace = TraceFile::load(&traces().join(format!("{name}.tce.zst"))).unwrap();
        let c = trace.counts;
        assert_eq!([c.calls(), c.put, c.indirect, c.stuff, c.mapped, c.xlate], expected, "{name}");
        assert_eq!(c.get, 0, "{name}");
        // 2 GiB guests; the README names 0x7ffff000 as the largest target.
        assert!(trace.largest_target() <= 2 << 30, "{name}: {:#x}", trace.largest_target());
        total += c.calls();
    }
    assert_eq!(total, 1_709_709);
}
