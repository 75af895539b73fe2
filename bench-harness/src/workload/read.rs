// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From TOML to a workload, or to all that is wrong with it, each with its line.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::expect;
use super::keys::{DESCRIBING, KEYS, Key, Kind, Setting, TABLES};
use super::{Fault, Workload, digest};
use crate::cli;
use crate::style::printable;

/// Longer names do not fit in a table.
const LONGEST_NAME: usize = 40;

/// Collects faults; knows where lines begin.
pub(super) struct Reader<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    /// What a file holds may be in it, so it is made one printable line.
    pub(super) fn fault(&mut self, span: &Range<usize>, text: impl Into<String>) {
        let text = printable(&text.into());
        self.faults.push(Fault { line: Some(self.line(span)), text });
    }

    /// A key that is not known, with the one that was probably meant.
    pub(super) fn unknown(&mut self, span: &Range<usize>, what: &str, key: &str, known: &[&str]) {
        let meant = nearest(key, known.iter().copied());
        let meant = meant.map_or(String::new(), |near| format!(", perhaps {near} is meant"));
        let known = known.join(", ");
        self.fault(span, format!("unknown {what} '{key}'{meant}; accepted: {known}"));
    }
}

/// Which of `names` is nearest, if any is near.
pub(super) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let distance = |name: &str| strsim::damerau_levenshtein(&plain(text), &plain(name));
    let near = names.map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, name)| *distance <= 1 + name.len() / 4).map(|(_, name)| name)
}

/// What a value is called in an error.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A whole number in decimal digits.
pub(super) fn whole(value: &DeValue<'_>) -> Option<String> {
    let DeValue::Integer(number) = value else { return None };
    i128::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
}

/// Reads all of it.
///
/// # Errors
/// Everything that is wrong, in the order of lines.
pub(super) fn read(origin: &str, text: &str) -> Result<Workload, Vec<Fault>> {
    let mut reader = Reader { text, faults: Vec::new() };
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(e) => {
            let span = e.span().unwrap_or(0..0);
            let message = e.message().replace('\n', ", ");
            reader.fault(&span, format!("this is no TOML: {message}"));
            return Err(reader.faults);
        }
    };
    let root = root.get_ref();
    let name = describing(&mut reader, root, "name");
    let description = describing(&mut reader, root, "description");
    if let Some((name, span)) = &name
        && (name.len() > LONGEST_NAME
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)))
    {
        let text = format!(
            "name: '{name}' is no name; accepted: up to {LONGEST_NAME} of the characters a-z, A-Z, 0-9, - _ ."
        );
        reader.fault(span, text);
    }
    let mut settings = Vec::new();
    let (mut expect, mut rounds) = (Vec::new(), None);
    for (key, value) in root {
        let known = |key: &str| KEYS.iter().any(|k| k.table.is_empty() && k.name == key);
        match (key.get_ref().as_ref(), value.get_ref()) {
            (name, _) if DESCRIBING.contains(&name) => {}
            (name, _) if known(name) => {
                settings.extend(setting(&mut reader, "", key, value));
            }
            ("expect", DeValue::Table(table)) => {
                rounds = expect::rounds(&mut reader, table);
                expect = expect::read(&mut reader, table);
            }
            (table, DeValue::Table(inner)) if TABLES.contains(&table) => {
                for (key, value) in inner {
                    settings.extend(setting(&mut reader, table, key, value));
                }
            }
            (table, other) if TABLES.contains(&table) => {
                let text = format!("{table}: {}; accepted: a table, [{table}]", shown(other));
                reader.fault(&value.span(), text);
            }
            (other, _) => {
                let own = KEYS.iter().filter(|k| k.table.is_empty()).map(|k| k.name);
                let all: Vec<_> = DESCRIBING.into_iter().chain(own).chain(TABLES).collect();
                reader.unknown(&key.span(), "key", other, &all);
            }
        }
    }
    if expect.is_empty() && reader.faults.is_empty() {
        let text = "nothing is expected; accepted: [expect] with what has to come out, at least verified = true";
        reader.faults.push(Fault { line: None, text: text.to_owned() });
    }
    let mut faults = reader.faults;
    faults.sort_by_key(|fault| fault.line);
    match (name, description) {
        (Some((name, _)), Some((description, _))) if faults.is_empty() => {
            settings.sort_by_key(|setting| setting.line);
            Ok(Workload {
                name,
                description,
                origin: origin.to_owned(),
                digest: digest(text),
                text: text.to_owned(),
                settings,
                expect,
                rounds,
            })
        }
        _ => Err(faults),
    }
}

/// A string that has to be there.
fn describing(
    reader: &mut Reader<'_>,
    root: &DeTable<'_>,
    key: &str,
) -> Option<(String, Range<usize>)> {
    let Some(value) = root.get(key) else {
        let text = format!("there is no {key}; accepted: {key} = \"…\" before all tables");
        reader.faults.push(Fault { line: None, text });
        return None;
    };
    match value.get_ref() {
        DeValue::String(text) if !text.trim().is_empty() && !text.contains('\n') => {
            Some((text.clone().into_owned(), value.span()))
        }
        other => {
            let text = format!("{key}: {}; accepted: one line of text", shown(other));
            reader.fault(&value.span(), text);
            None
        }
    }
}

/// A key of a table and its value, as the command line would have it.
fn setting(
    reader: &mut Reader<'_>,
    table: &str,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Option<Setting> {
    let name = key.get_ref().as_ref();
    let Some(known) = KEYS.iter().find(|k| k.table == table && k.name == name) else {
        let names: Vec<_> = KEYS.iter().filter(|k| k.table == table).map(|k| k.name).collect();
        reader.unknown(&key.span(), &format!("key of [{table}]"), name, &names);
        return None;
    };
    let Some(values) = values(known.kind, value.get_ref()) else {
        let (got, accepted) = (shown(value.get_ref()), known.kind.accepted());
        reader.fault(&value.span(), format!("{name}: {got}; accepted: {accepted}"));
        return None;
    };
    let with = |value: String| format!("{}={value}", known.option);
    let arguments: Vec<String> = match values {
        Values::Flag(on) => on.then(|| known.option.to_owned()).into_iter().collect(),
        Values::Texts(texts) => texts.into_iter().map(with).collect(),
    };
    for argument in &arguments {
        if let Err(text) = cli::check_option(argument) {
            let text = text
                .strip_prefix(known.option)
                .map_or(text.clone(), |rest| format!("{name}{rest}"));
            reader.fault(&value.span(), text);
            return None;
        }
    }
    Some(Setting {
        key: full(known),
        option: known.option,
        arguments,
        line: reader.line(&key.span()),
    })
}

fn full(key: &Key) -> String {
    if key.table.is_empty() { key.name.to_owned() } else { format!("{}.{}", key.table, key.name) }
}

enum Values {
    Flag(bool),
    Texts(Vec<String>),
}

/// The value, if it is of the right kind.
fn values(kind: Kind, value: &DeValue<'_>) -> Option<Values> {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        _ => None,
    };
    match kind {
        Kind::Flag => match value {
            DeValue::Boolean(on) => Some(Values::Flag(*on)),
            _ => None,
        },
        Kind::Text => text(value).map(|t| Values::Texts(vec![t])),
        Kind::Number => whole(value).or_else(|| text(value)).map(|t| Values::Texts(vec![t])),
        Kind::List => match value {
            DeValue::Array(array) if !array.is_empty() => {
                let all: Option<Vec<_>> = array.iter().map(|item| text(item.get_ref())).collect();
                all.map(Values::Texts)
            }
            _ => None,
        },
        Kind::Shares(between) => match value {
            DeValue::Table(table) => {
                let one = |(name, share): &(&Spanned<_>, &Spanned<_>)| {
                    whole(share.get_ref())
                        .map(|share| format!("{}{between}{share}", name.get_ref()))
                };
                // As they stand in the file.
                let mut entries: Vec<_> = table.iter().collect();
                entries.sort_by_key(|(name, _)| name.span().start);
                let all: Option<Vec<String>> = entries.iter().map(one).collect();
                all.filter(|all| !all.is_empty()).map(|all| Values::Texts(vec![all.join(",")]))
            }
            other => whole(other).or_else(|| text(other)).map(|t| Values::Texts(vec![t])),
        },
    }
}
