// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `trace stat` and `trace cut` as a user meets them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{bench, fits, refused, text};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/traces")
}

fn trace(name: &str) -> String {
    folder().join(format!("{name}.tce.zst")).display().to_string()
}

fn stat(files: &[&str]) -> Vec<Value> {
    let out = bench(&[&["trace", "stat", "--json", "-"], files].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let doc: Value = serde_json::from_slice(&out.stdout).expect("one document");
    fits("trace-stat", &doc);
    doc["traces"].as_array().unwrap().clone()
}

/// A row of the table in the traces' README, out of the document.
fn row(of: &Value) -> String {
    let n = |name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{name} in {of:#}"));
    let quantiles = |name: &str| {
        let part = |part: &str| of[name][part].as_u64().unwrap();
        format!("{}/{}/{}", part("p50"), part("p90"), part("max"))
    };
    let ratio = |part: u64, whole: u64| part as f64 / whole as f64;
    let adjacent = ratio(n("map_calls_adjacent"), n("map_calls_after_another"));
    let name = Path::new(of["file"].as_str().unwrap()).file_name().unwrap().to_str().unwrap();
    let cells = [
        name.strip_suffix(".tce.zst").unwrap().to_string(),
        (n("bytes") / 1024).to_string(),
        n("calls").to_string(),
        n("put").to_string(),
        n("indirect").to_string(),
        n("stuff").to_string(),
        n("get").to_string(),
        n("tces_mapped").to_string(),
        n("max_live").to_string(),
        n("live_at_end").to_string(),
        quantiles("indirect_npages"),
        quantiles("life_in_calls"),
        format!("{:.1}%", 100.0 * adjacent),
        n("iova_pages").to_string(),
        format!("{:.1}", ratio(n("tces_mapped"), n("iova_pages"))),
        n("target_pages").to_string(),
        n("max_iovas_per_target").to_string(),
        format!("{}/{}", n("unmap_calls_as_mapped"), n("unmap_calls")),
        format!("{} / {}", n("read_only"), n("read_write")),
    ];
    format!("| {} |", cells.join(" | "))
}

#[test]
fn the_statistics_are_those_of_the_readme() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let table = readme.split("## Statistics").nth(1).expect("the statistics");
    let rows: Vec<_> = table.lines().filter(|l| l.starts_with("| ")).skip(1).collect();
    assert_eq!(rows.len(), 9);
    let names: Vec<_> =
        rows.iter().map(|r| trace(r.split(" | ").next().unwrap()[2..].trim())).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let found: Vec<_> = stat(&names).iter().map(row).collect();
    assert_eq!(found, rows);
}

fn write(folder: &Path, name: &str, lines: &[&str]) -> String {
    let path = folder.join(name);
    let head = "# tce-trace 1\n0 window-create 0x80000000 0x0 12 262144 0 - -\n";
    fs::write(&path, format!("{head}{}\n", lines.join("\n"))).unwrap();
    path.display().to_string()
}

/// Counted by hand.
#[test]
fn each_number_is_what_its_name_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        dir.path(),
        "t.tce",
        &[
            "5 put 0x80000000 0x1000 0x7001 1 0 0 9",
            "6 indirect 0x80000000 0x2000 7003,8002,9003 3 0 0 9",
            "7 put 0x80000000 0x10000 0x7003 1 -4 0 9",
            "8 put 0x80000000 0x2000 0xa003 1 0 0 9",
            "9 stuff 0x80000000 0x1000 0x0 3 0 0 9",
            "10 stuff 0x80000000 0x20000 0x0 512 0 0 9",
            "11 get 0x80000000 0x4000 0x9003 1 0 0 9",
            "12 put 0x80000000 0x4000 0x0 1 0 0 9",
            "13 window-create 0x80000001 0x800000000000000 16 1024 0 0 9",
            "14 stuff 0x80000001 0x800000000000000 0x10003 2 0 0 9",
            "15 window-remove 0x80000001 - - - 0 0 9",
            "16 xlate 0x80000000 0x1000 0x7001 1 0 - -",
            "45 put 0x80000000 0x5000 0x7001 1 0 0 9",
        ],
    );
    let found = &stat(&[&file])[0];
    let expected = serde_json::json!({
        "file": file, "name": "t.tce", "bytes": fs::metadata(&file).unwrap().len(),
        "duration_ns": 45, "calls": 10, "put": 5, "indirect": 1, "stuff": 3, "get": 1, "failed": 1,
        "window": 3, "xlate": 1, "tces_mapped": 8, "max_live": 4, "live_at_end": 1,
        "indirect_npages": {"count": 1, "p50": 3, "p90": 3, "max": 3},
        // 0x1000, the second TCE of 0x2000, 0x3000 by the stuff; 0x4000 by the put of 0.
        "life_in_calls": {"count": 4, "p50": 3, "p90": 6, "max": 6},
        "map_calls": 5, "map_calls_after_another": 3, "map_calls_adjacent": 1,
        "iova_pages": 7, "target_pages": 5, "max_iovas_per_target": 2,
        // The first put was of one page, the stuff of three; 0x4000 was no start of a map call.
        "unmap_calls": 2, "unmap_calls_as_mapped": 0,
        "overwritten": 1, "read_only": 2, "write_only": 1, "read_write": 5,
    });
    assert_eq!(found, &expected);
}

#[test]
fn the_table_says_the_same() {
    let out = bench(&["trace", "stat", &trace("boot-ddw-fallback")]);
    assert!(out.status.success() && out.stderr.is_empty());
    let table = text(&out.stdout);
    for part in
        ["546: 17 put, 4 indirect, 525 stuff, 0 get", "p50 4, p90 16, max 16", "44 at the end"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(bench(&["trace", "stat", "--quiet", &trace("boot-ddw-fallback")]).stdout.is_empty());
}

#[test]
fn what_is_wrong_with_a_trace_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let wide = write(dir.path(), "w.tce", &["1 stuff 0x80000000 0x0 0x0 513 0 0 9"]);
    let cut = dir.path().join("cut.tce").display().to_string();
    for args in
        [&["trace", "stat", &wide][..], &["trace", "cut", &wide, "--calls", "9-9", "-o", &cut]]
    {
        let error = refused(args, 1);
        assert!(error.contains("w.tce:3: ") && error.contains("513 TCEs"), "{error}");
    }
    assert!(refused(&["trace", "stat", "no/such"], 1).contains("no/such: cannot be read"));
    let full = ["trace", "stat", &trace("boot-ddw-fallback"), "--quiet", "--json", "/dev/full"];
    assert!(refused(&full, 1).contains("No space left"));
    assert!(!Path::new(&cut).exists());
}

/// Cuts, replays what came out with every answer checked, and returns its statistics.
fn cut(name: &str, choice: &[&str]) -> (Value, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("part.tce.zst").display().to_string();
    let trace = trace(name);
    let out = bench(&[&["trace", "cut", &trace, "-o", &file], choice].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(fs::read(&file).unwrap()[..4], [0x28, 0xb5, 0x2f, 0xfd], "zstd");
    let replay = bench(&["replay", &file, "--pass", "checked"]);
    assert!(replay.status.success(), "{}", text(&replay.stderr));
    let packed = fs::read(&file).unwrap();
    let plain = String::from_utf8(zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    (stat(&[&file])[0].clone(), plain)
}

#[test]
fn a_range_replays_with_what_was_mapped_before_it() {
    let whole = zstd::decode_all(fs::read(trace("net-rx")).unwrap().as_slice()).unwrap();
    let whole = String::from_utf8(whole).unwrap();
    let calls: Vec<_> =
        whole.lines().filter(|l| !l.starts_with('#') && !l.contains("window")).collect();
    let (found, plain) = cut("net-rx", &["--calls", "200001-201000"]);
    // The calls of the range are those of the trace, to the letter.
    assert!(plain.ends_with(&(calls[200_000..201_000].join("\n") + "\n")));
    let before: u64 = found["calls"].as_u64().unwrap() - 1000;
    let mapped: Vec<_> = plain.lines().skip(5).take(before as usize).collect();
    assert!(!mapped.is_empty() && mapped.iter().all(|l| l.ends_with(" 0 - -")), "{mapped:?}");
    // Nothing in the range clears what is not mapped: the ring was full when it began.
    let ahead = calls[200_000..201_000].iter().filter(|l| l.contains(" stuff ")).count() as u64;
    assert_eq!(found["unmap_calls"].as_u64().unwrap(), ahead);
}

#[test]
fn windows_made_before_the_range_are_made_again() {
    let (found, _) = cut("boot-ddw", &["--liobn", "0x80000101", "--calls", "1060-1080"]);
    assert_eq!(found["window"], 2, "the default one and the other of its PHB: {found:#}");
    let (found, _) = cut("xlate-mixed", &["--calls", "80000-90000"]);
    assert!(found["xlate"].as_u64().unwrap() > 1000, "{found:#}");
    let (found, _) = cut("xlate-mixed", &["--kind", "stuff,put"]);
    assert_eq!((&found["xlate"], &found["indirect"]), (&0.into(), &0.into()));
    assert_eq!(found["put"], 70_661);
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("part.tce").display().to_string();
    let boot = trace("boot-ddw-fallback");
    let no = |choice: &[&str], code| {
        let error = refused(&[&["trace", "cut", &boot, "-o", &out], choice].concat(), code);
        assert!(!Path::new(&out).exists());
        error
    };
    assert!(no(&[], 2).contains("nothing says what to keep"));
    assert!(no(&["--calls", "5"], 2).contains("'5' is no range"));
    assert!(no(&["--calls", "9-5"], 2).contains("'9-5' is no range"));
    assert!(no(&["--calls", "0-5"], 2).contains("'0-5' is no range"));
    assert!(no(&["--liobn", "80000000"], 2).contains("0x and 1 to 8"));
    assert!(no(&["--kind", "put,xlate"], 2).contains("xlate and without indirect"));
    assert!(no(&["--calls", "500-547"], 1).contains("has 546 calls"));
    assert!(no(&["--liobn", "0x80000007"], 1).contains("there are: 0x80000000"));
    assert!(no(&["--kind", "get,put,indirect,stuff", "--calls", "600-700"], 1).contains("546"));
    assert!(no(&["--kind", "indirect", "--calls", "1-9"], 1).contains("none of its calls"));
    let full = ["trace", "cut", &boot, "--calls", "1-9", "-o", "/dev/full"];
    assert!(refused(&full, 1).contains("No space left"));
}
