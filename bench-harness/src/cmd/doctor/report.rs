// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Findings for people.

use std::fmt::Write;

use super::Doc;
use super::findings::Level;
use crate::size::{format_arg, format_size};
use crate::style::Style;

/// Columns before the text of a finding.
const INDENT: &str = "                  ";

/// The report; `root` if the user is root already.
pub(super) fn report(doc: &Doc, root: bool, style: Style) -> String {
    let mut out = String::new();
    let wanted = &doc.wanted;
    let _ = writeln!(
        out,
        "{} · wanted: {} group(s), version {} container, window {} of {} pages, {} to be locked\n",
        style.bold("can the real back end be used?"),
        wanted.groups,
        wanted.container_version,
        format_size(wanted.window_bytes),
        format_arg(wanted.page_bytes),
        format_size(wanted.need_locked_bytes)
    );
    for finding in &doc.findings {
        let word = match finding.status {
            Level::Ok => style.green("ok  "),
            Level::Warn => style.yellow("warn"),
            Level::Fail => style.red("FAIL"),
        };
        let _ = writeln!(out, "{word}  {:<10}  {}", finding.code, finding.text);
        if finding.status == Level::Ok {
            continue;
        }
        let seen = style.dim(&format!("seen: {}", finding.seen));
        let _ = writeln!(out, "{INDENT}{seen}");
        // The command says it better.
        match (&finding.command, &finding.fix) {
            (Some(command), _) => {
                let _ = writeln!(out, "{INDENT}run:  {}", for_user(command, root));
                if takes_something(command) {
                    let _ = writeln!(out, "{INDENT}only if nobody needs what this takes away");
                }
            }
            (None, Some(fix)) => {
                let _ = writeln!(out, "{INDENT}fix:  {fix}");
            }
            (None, None) => {}
        }
    }
    let verdict = match doc.usable {
        true => style.green("usable"),
        false => style.red("not usable"),
    };
    let _ = writeln!(out, "\n{verdict}");
    out
}

/// True for commands that take a device from its driver, or end a process.
fn takes_something(command: &str) -> bool {
    command.contains("driver_override") || command.starts_with("kill ")
}

/// A line for the user's own shell.
fn for_user(command: &str, root: bool) -> String {
    if root {
        return command.to_owned();
    }
    // Only a shell of root may write where this goes.
    if command.contains(['>', ';', '|', '*']) {
        return format!("sudo sh -c '{}'", command.replace('\'', r"'\''"));
    }
    format!("sudo {command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_root_gets_a_line_that_makes_root() {
        assert_eq!(for_user("modprobe vfio", true), "modprobe vfio");
        assert_eq!(for_user("modprobe vfio", false), "sudo modprobe vfio");
        assert_eq!(for_user("echo 'a' > /b", false), r"sudo sh -c 'echo '\''a'\'' > /b'");
    }
}
