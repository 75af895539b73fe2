// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The corpora of `fuzz/`, replayed: what fuzzers found, and what leads them on. No fuzzer is needed.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tce_bench::fuzz::TARGETS;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(name)
}

/// What is in a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn names(folder: &Path) -> BTreeSet<String> {
    let stem = |file: PathBuf| file.file_stem().unwrap().to_string_lossy().into_owned();
    files(folder).into_iter().map(stem).collect()
}

#[test]
fn every_input_that_is_kept_is_right() {
    let mut wrong = Vec::new();
    for (name, target) in TARGETS {
        let files = files(&folder("corpus").join(name));
        assert!(!files.is_empty(), "fuzz/corpus/{name} is empty");
        for file in files {
            let input = fs::read(&file).unwrap();
            // All of them are told, not only the first.
            if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
                wrong.push(file);
            }
        }
    }
    assert!(wrong.is_empty(), "told above: {wrong:#?}");
}

#[test]
fn every_target_has_a_program_and_a_corpus_and_no_others_are_there() {
    let targets: BTreeSet<_> = TARGETS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(names(&folder("fuzz_targets")), targets, "fuzz/fuzz_targets");
    assert_eq!(names(&folder("corpus")), targets, "fuzz/corpus");
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(
            manifest.contains(&format!("[[bin]]\nname = \"{name}\"\n")),
            "fuzz/Cargo.toml: {name}"
        );
        let program = folder("fuzz_targets").join(format!("{name}.rs"));
        let call = format!("tce_bench::fuzz::{name}(data)");
        assert!(fs::read_to_string(&program).unwrap().contains(&call), "{}", program.display());
    }
}

/// They are in every clone.
#[test]
fn corpora_are_small() {
    const MOST_FILES: usize = 40;
    const MOST_BYTES: u64 = 200 << 10;
    let mut bytes = 0;
    for (name, _) in TARGETS {
        let files = files(&folder("corpus").join(name));
        let number = files.len();
        assert!(
            number <= MOST_FILES,
            "fuzz/corpus/{name} has {number} files; the limit is {MOST_FILES}"
        );
        bytes += files.iter().map(|file| fs::metadata(file).unwrap().len()).sum::<u64>();
    }
    assert!(bytes <= MOST_BYTES, "fuzz/corpus has {bytes} bytes; the limit is {MOST_BYTES}");
}
