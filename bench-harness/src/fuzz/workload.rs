// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Workloads: every fault has its line; what is right says the same as plain TOML of its settings.

use std::fmt::Write as _;

use super::is_one_line;
use crate::cli::small;
use crate::workload::{Setting, Workload};

/// A workload file.
///
/// # Panics
/// If it was not read as it has to be.
pub fn workload(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = match Workload::parse("it.toml", text) {
        Ok(read) => read,
        Err(faults) => {
            assert!(!faults.faults.is_empty());
            assert!(faults.faults.is_sorted_by_key(|fault| fault.line), "{faults:?}");
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            for fault in &faults.faults {
                assert!(fault.line.is_none_or(|line| (1..=lines).contains(&line)), "{fault:?}");
                is_one_line(&fault.text);
            }
            return;
        }
    };
    let plain = plain(&read);
    let again = Workload::parse("it.toml", &plain);
    let again = again.unwrap_or_else(|faults| panic!("{faults}\n{plain}"));
    assert_eq!((&again.name, &again.description), (&read.name, &read.description));
    let without_lines = |workload: &Workload| {
        let mut settings = workload.settings.clone();
        settings.iter_mut().for_each(|setting| setting.line = 0);
        settings.sort_by(|a, b| a.key.cmp(&b.key));
        settings
    };
    assert_eq!(without_lines(&again), without_lines(&read), "{plain}");
    // What cannot be together is told, too.
    if let Err(text) = small(&read) {
        is_one_line(&text);
    }
}

/// The settings as strings, flags and lists of strings, in tables.
fn plain(workload: &Workload) -> String {
    let (name, description) = (quoted(&workload.name), quoted(&workload.description));
    let mut text = format!("name = {name}\ndescription = {description}\n");
    for table in ["", "window", "run", "mix"] {
        if !table.is_empty() {
            let _ = writeln!(text, "[{table}]");
        }
        for setting in &workload.settings {
            let (of, key) = setting.key.split_once('.').unwrap_or(("", &setting.key));
            if of == table {
                let _ = writeln!(text, "{key} = {}", value(setting));
            }
        }
    }
    text + "[expect]\nverified = true\n"
}

fn value(setting: &Setting) -> String {
    let values: Vec<_> = setting.arguments.iter().map(|a| a.split_once('=')).collect();
    match values.as_slice() {
        [] => "false".to_owned(),
        [None] => "true".to_owned(),
        [Some((_, value))] if setting.option != "--phase" => quoted(value),
        several => {
            let several = several.iter().flatten().map(|(_, value)| quoted(value));
            format!("[{}]", several.collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
