// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--profile` as a user meets it.
#![cfg(all(
    feature = "pprof",
    any(target_arch = "x86_64", all(target_arch = "powerpc64", target_endian = "little"))
))]

use std::fs;
use std::io::Read;
use std::path::Path;

use crate::common::{bench, text};
use pprof::protos::{Message, Profile};

fn decoded(packed: &[u8]) -> Profile {
    let mut profile = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut profile).expect("it is gzip");
    Profile::decode(profile.as_slice()).expect("it is a profile")
}

/// Checks that every index of the profile leads to something, and returns the names of the functions
/// that samples were taken in, callers included.
fn functions(profile: &Profile) -> Vec<&str> {
    let string = |index: i64| profile.string_table[index as usize].as_str();
    let units: Vec<_> =
        profile.sample_type.iter().map(|t| (string(t.ty), string(t.unit))).collect();
    assert_eq!(units, [("samples", "count"), ("cpu", "nanoseconds")]);
    let mut names = Vec::new();
    for sample in &profile.sample {
        assert!(sample.value[0] > 0 && !sample.location_id.is_empty());
        for id in &sample.location_id {
            let location = profile.location.iter().find(|l| l.id == *id).expect("its location");
            for line in &location.line {
                let function = profile.function.iter().find(|f| f.id == line.function_id);
                names.push(string(function.expect("its function").name));
            }
        }
    }
    names
}

#[test]
fn a_run_is_profiled() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cpu.pb.gz");
    let line = "--backend mock --window 64M --phase naive --warmup 0s --duration 500ms --profile";
    let args: Vec<_> = line.split(' ').chain([file.to_str().unwrap()]).collect();
    let out = bench(&args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let table = text(&out.stdout);
    assert!(table.contains("verified: true") && table.contains("warning: profiled"), "{table}");
    let profile = decoded(&fs::read(&file).unwrap());
    let names = functions(&profile);
    assert!(names.len() > 10, "{names:?}");
    // The threads of the phase, and what they do nearly all of the time.
    for part in ["tce_bench::run::lane", "naive::NaiveTable"] {
        assert!(names.iter().any(|name| name.contains(part)), "no {part} in {names:?}");
    }
}

#[test]
fn a_replay_is_profiled() {
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/traces/net-rx.tce.zst");
    let out = bench(&["replay", trace.to_str().unwrap(), "--profile", "-"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let profile = decoded(&out.stdout);
    let names = functions(&profile);
    assert!(names.iter().any(|name| name.contains("tce_bench::cmd::replay")), "{names:?}");
}

#[test]
fn a_profile_that_cannot_be_written_is_found_out_before_the_run() {
    let out = bench(&["--profile", "/nowhere/at/all.pb.gz"]);
    assert_eq!(out.status.code(), Some(1));
    let error = text(&out.stderr);
    assert!(error.contains("/nowhere/at") && error.lines().count() == 1, "{error}");
    assert!(out.stdout.is_empty());
}
