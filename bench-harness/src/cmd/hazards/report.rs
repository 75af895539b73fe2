// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table: two lines for each trap, one for each user, and a column for each profile.

use std::fmt::Write;

use super::{Doc, Harm, Lived};
use crate::size::format_size;
use crate::style::Style;

/// Width of a profile's column.
const COLUMN: usize = 13;
/// Width of the names.
const NAMES: usize = 18;

pub(super) fn table(doc: &Doc, style: Style) -> String {
    let mut out = format!("hazards: {}\n\n", doc.label);
    let Some(first) = doc.traps.first() else { return out + "interrupted before the first trap\n" };
    let _ = write!(out, "{:NAMES$} {:7}", "trap", "");
    for cell in &first.cells {
        let _ = write!(out, " {:COLUMN$}", cell.profile);
    }
    out.push('\n');
    for row in &doc.traps {
        let mut line = |name: &str, actor: &str, of: &dyn Fn(usize) -> String| {
            let _ = write!(out, "{name:NAMES$} {actor:7}");
            for i in 0..row.cells.len() {
                let _ = write!(out, " {:COLUMN$}", of(i));
            }
            let trimmed = out.trim_end().len();
            out.truncate(trimmed);
            out.push('\n');
        };
        line(row.id, "naive", &|i| short(&row.cells[i].naive));
        line("", "engine", &|i| short(&row.cells[i].engine));
    }
    out.push('\n');
    for row in &doc.traps {
        let _ = writeln!(out, "{:NAMES$} {}", row.id, row.what);
        if let Some(why) = row.helpless {
            let _ = writeln!(out, "{:NAMES$} the engine cannot help: {why}", "");
        }
    }
    let verdict = style.verdict(
        doc.verified,
        doc.run.complete,
        "the engine came to no harm that it does not explain",
        "THE ENGINE CAME TO HARM",
    );
    let _ = write!(
        out,
        "\nok: done, nothing wrong; refused: the user was told; - : this kernel has not what the story \
         needs;\nlost: mappings that devices do not find; exposed: pages that devices still reach; \
         leaked: bytes that\nstay charged or pinned; corrupt: entries written outside of the table; \
         hung: the kernel; disturbed: groups\nreset with another; misled: wrong answers\n\n{verdict}\n"
    );
    out
}

/// A cell in a word or two: the worst, and a + if there is more.
fn short(lived: &Lived) -> String {
    let harm = &lived.harm;
    let found = words(harm);
    match (found.first(), &lived.refused, lived.stopped) {
        (Some(worst), _, _) => format!("{worst}{}", if found.len() > 1 { " +" } else { "" }),
        (None, Some(_), true) => "-".to_owned(),
        (None, Some(_), false) => "refused".to_owned(),
        (None, None, _) => "ok".to_owned(),
    }
}

/// All that happened, the worst first.
fn words(harm: &Harm) -> Vec<String> {
    let counts = [
        ("hung", harm.hung),
        ("corrupt", harm.corrupted),
        ("exposed", harm.exposed),
        ("lost", harm.lost),
        ("disturbed", harm.disturbed),
    ];
    let mut words: Vec<_> = counts
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(word, n)| if word == "hung" { word.to_owned() } else { format!("{word} {n}") })
        .collect();
    if harm.leaked_bytes > 0 {
        words.push(format!("leaked {}", format_size(harm.leaked_bytes)));
    }
    if harm.misled > 0 {
        words.push("misled".to_owned());
    }
    words
}
