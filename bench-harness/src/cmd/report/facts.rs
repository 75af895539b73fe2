// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Machine, program and settings: whatever the documents say, so that a new field is shown, too.

use serde::Serialize;
use serde_json::Value;

use super::html::Html;
use super::page::section;
use super::results::{Shown, page_size};
use super::table::{boxed, heads};
use crate::size::format_size;

/// Names and values of one document.
type Facts = Vec<(String, String)>;

pub(super) fn sections(html: &mut Html, shown: &[Shown]) {
    let of = |fact: fn(&Shown) -> Facts| shown.iter().map(fact).collect::<Vec<_>>();
    section(html, "machine", "Machine", "", |h| {
        pair(h, shown, |h| {
            card(h, "The machine", shown, &of(|s| flat(&s.doc.host)));
            card(h, "Its clock", shown, &of(|s| flat(&s.doc.clock)));
        });
    });
    let run = |s: &Shown| {
        let mut facts = vec![("file".to_owned(), s.file.clone())];
        facts.extend(flat(&s.doc.run));
        facts
    };
    section(html, "settings", "Settings", "", |h| {
        pair(h, shown, |h| {
            card(h, "What was asked for, defaults filled in", shown, &of(|s| flat(&s.doc.config)));
            h.tag("div", &[], |h| {
                card(h, "The back end", shown, &of(|s| flat(&s.doc.backend)));
                card(h, "The program", shown, &of(|s| flat(&s.doc.tool)));
                card(h, "The run", shown, &of(run));
            });
        });
    });
}

/// Two tables beside each other where there is room: columns of one document leave some.
fn pair(html: &mut Html, shown: &[Shown], body: impl FnOnce(&mut Html)) {
    let class = if shown.len() > 1 { "" } else { "pair" };
    html.tag("div", &[("class", class)], body);
}

/// A table with a column for each document; lines that are not alike stand out.
fn card(html: &mut Html, caption: &str, shown: &[Shown], columns: &[Facts]) {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in columns.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    html.tag("div", &[("class", "card")], |h| {
        boxed(h, caption, "facts", |h| {
            if shown.len() > 1 {
                let mut all = vec![String::new()];
                all.extend(shown.iter().map(Shown::name));
                heads(h, &all);
            }
            h.tag("tbody", &[], |h| names.iter().for_each(|name| line(h, name, columns)));
        });
    });
}

fn line(html: &mut Html, name: &str, columns: &[Facts]) {
    let of = |facts: &Facts| {
        facts.iter().find(|(n, _)| n == name).map_or("–".to_owned(), |(_, v)| v.clone())
    };
    let values: Vec<String> = columns.iter().map(of).collect();
    let alike = values.iter().all(|v| *v == values[0]);
    let attrs = if alike { vec![] } else { vec![("class", "differs")] };
    html.tag("tr", &attrs, |h| {
        h.leaf("th", &[("scope", "row")], name);
        if alike {
            let columns = columns.len().to_string();
            h.leaf("td", &[("colspan", &columns)], &values[0]);
        } else {
            values.iter().for_each(|v| h.leaf("td", &[], v));
        }
    });
}

/// All fields, those of fields inside under both names.
fn flat(part: &impl Serialize) -> Facts {
    let mut facts = Vec::new();
    let value = serde_json::to_value(part).unwrap_or_default();
    for (name, value) in value.as_object().into_iter().flatten() {
        collect(&name.replace('_', " "), value, &mut facts);
    }
    facts
}

fn collect(name: &str, value: &Value, facts: &mut Facts) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                collect(&format!("{name} {}", field.replace('_', " ")), value, facts);
            }
        }
        value => facts.push((name.to_owned(), told(name, value))),
    }
}

/// A value in words; bytes and page sizes with their units.
fn told(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(n) if name.ends_with(" bytes") || name.ends_with("page size") => format_size(n),
            Some(n) if name.ends_with("page sizes") || name == "hugepages size" => format_size(n),
            Some(n) if name.ends_with(" shift") && n < 64 => page_size(n as u8),
            _ => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => {
            let all: Vec<String> = items.iter().map(|item| told(name, item)).collect();
            all.join(if name == "argv" { " " } else { ", " })
        }
        Value::Object(fields) => {
            let one = |(field, value): (&String, &Value)| {
                format!("{field} {}", told(&format!("{name} {field}"), value))
            };
            fields.iter().map(one).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_told_with_their_units() {
        let facts = flat(&json!({
            "window_bytes": 1u64 << 31, "page_shift": 16, "cpus": null, "thp": "always", "dirty": false,
            "kill_cost": {"store_ns": 100}, "argv": ["a", "b"], "page_sizes": [4096, 65536],
            "hugepages": [{"size": 2 << 20, "total": 3}]
        }));
        let told = |name: &str| facts.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(told("window bytes"), Some("2 GiB"));
        assert_eq!(told("page shift"), Some("64 KiB"));
        assert_eq!(told("cpus"), Some("–"));
        assert_eq!(told("dirty"), Some("no"));
        assert_eq!(told("kill cost store ns"), Some("100"));
        assert_eq!(told("argv"), Some("a b"));
        assert_eq!(told("page sizes"), Some("4 KiB, 64 KiB"));
        assert_eq!(told("hugepages"), Some("size 2 MiB total 3"));
    }
}
