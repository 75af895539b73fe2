// SPDX-License-Identifier: Apache-2.0 OR MIT
//! DESIGN.md against the sources: what it promises of tests and locks is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A section of DESIGN.md.
fn section(title: &str) -> String {
    let all = fs::read_to_string(root().join("DESIGN.md")).unwrap();
    let start =
        all.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    let rest = &all[start + 4..];
    rest[..rest.find("\n## ").unwrap_or(rest.len())].to_owned()
}

/// What stands between back quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_row_of_the_review_has_its_tests() {
    let section = section("Rules from the review");
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut seen = BTreeMap::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, rule, owner, tests] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!rule.is_empty() && !owner.is_empty(), "{row}");
        let tests: Vec<_> = quoted(tests).collect();
        for test in &tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{id}: {test}"));
            let source = fs::read_to_string(root().join(file));
            let source = source.unwrap_or_else(|e| panic!("{id}: {file}: {e}"));
            assert!(source.contains(&format!("fn {name}(")), "{id}: no {name} in {file}");
        }
        // Its own test bears its name, and is one.
        let named = format!("::{}_", id.to_lowercase());
        let own = tests.iter().filter(|test| test.contains(&named));
        for test in own.clone() {
            let (file, name) = test.split_once("::").unwrap();
            let source = fs::read_to_string(root().join(file)).unwrap();
            assert!(source.contains(&format!("#[test]\nfn {name}()")), "{id}: {name} is no test");
        }
        assert!(id.starts_with('T') || own.count() > 0, "{id} has no test named after it");
        assert_eq!(seen.insert(id.to_owned(), ()), None, "{id} twice");
    }
    let numbered = |letter, last| (1..=last).map(move |n| format!("{letter}{n}"));
    let all = numbered('G', 8).chain(numbered('S', 20)).chain(numbered('T', 10));
    for id in all {
        assert!(seen.contains_key(&id), "no row {id}");
    }
}

/// All sources below a directory, but for those of tests and models, and of the locks themselves.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if ["sync", "tests.rs", "testing.rs", "models.rs"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Who shares a list says by which lock, and when that is taken.
#[test]
fn g7_every_lock_is_in_the_lock_order() {
    let section = section("Lock order");
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut locks = 0;
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let mut name = String::new();
        for line in source.lines() {
            let words: Vec<_> = line.split([' ', '<', '(', '{', ';']).collect();
            if let Some(at) = words.iter().position(|word| *word == "struct")
                && !line.starts_with(' ')
            {
                name = words[at + 1].to_owned();
            }
            let Some((field, kind)) = line.split_once(": ") else { continue };
            let field =
                field.strip_prefix("    ").filter(|f| !f.starts_with([' ', '/'])).unwrap_or("");
            let locked = ["Mutex<", "RwLock<", "BrLock<"].iter().any(|lock| kind.contains(lock));
            if field.is_empty() || !locked || !kind.ends_with(',') {
                continue;
            }
            let field = field.rsplit(' ').next().unwrap();
            locks += 1;
            let said = section.contains(&format!("`{name}::{field}`"));
            assert!(said, "{}: `{name}::{field}` is not in DESIGN.md's lock order", file.display());
        }
    }
    assert!(locks >= 15, "only {locks} found: has the way of writing fields changed?");
}
