// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What has to come out of a workload: counts, never times.

use std::ops::Range;

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::{Reader, shown};
use crate::result::{Config, OpResult, ResultDoc};
use crate::run::phase::per_1000;

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    KillsPer1000Tces,
    TcesPerCall,
    RequestsPerIoctl,
    ChargedPages,
    TablePages,
    LeafBlocks,
}

/// Of a run as a whole.
pub(super) const OF_RUN: [(&str, Metric); 6] = [
    ("kills_per_1000_tces", Metric::KillsPer1000Tces),
    ("tces_per_call", Metric::TcesPerCall),
    ("requests_per_ioctl", Metric::RequestsPerIoctl),
    ("charged_pages", Metric::ChargedPages),
    ("table_pages", Metric::TablePages),
    ("leaf_blocks", Metric::LeafBlocks),
];
/// Of one operation.
const OF_RESULT: [(&str, Metric); 3] = [
    ("kills_per_1000_tces", Metric::KillsPer1000Tces),
    ("tces_per_call", Metric::TcesPerCall),
    ("requests_per_ioctl", Metric::RequestsPerIoctl),
];

/// What something that is counted has to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// As the file has it: `kills_per_1000_tces`, `results.mix.map.tces_per_call`.
    pub key: String,
    /// Where it stands.
    pub line: usize,
    /// The operation that it is of, if one.
    result: Option<String>,
    /// `None`: that the run is verified.
    metric: Option<Metric>,
    min: Option<f64>,
    max: Option<f64>,
}

/// What came of an expectation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The expectation's.
    pub key: String,
    /// The expectation's.
    pub line: usize,
    /// What was to be.
    pub wanted: String,
    /// What was.
    pub found: String,
    /// True if it was.
    pub right: bool,
}

/// Most rounds that are waited for.
const MOST_ROUNDS: u64 = 100_000;

/// After how many rounds it is looked, if `[expect]` says so.
pub(super) fn rounds(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<u64> {
    let value = table.get("rounds")?;
    let number = super::read::whole(value.get_ref()).and_then(|text| text.parse().ok());
    let number = number.filter(|n| (1..=MOST_ROUNDS).contains(n));
    if number.is_none() {
        let got = shown(value.get_ref());
        let text = format!("rounds: {got}; accepted: a whole number from 1 to {MOST_ROUNDS}");
        reader.fault(&value.span(), text);
    }
    number
}

/// Reads `[expect]`.
pub(super) fn read(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Vec<Expectation> {
    let mut all = Vec::new();
    for (key, value) in table {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("verified", DeValue::Boolean(true)) => all.push(Expectation {
                key: "verified".to_owned(),
                line: reader.line(&key.span()),
                result: None,
                metric: None,
                min: None,
                max: None,
            }),
            ("verified", other) => {
                let text = format!("verified: {}; accepted: true", shown(other));
                reader.fault(&value.span(), text);
            }
            // See `rounds`.
            ("rounds", _) => {}
            ("results", DeValue::Table(results)) => {
                for (id, value) in results {
                    of_result(reader, id, value, &mut all);
                }
            }
            ("results", other) => {
                let accepted = "tables, as [expect.results.\"mix.map\"]";
                reader.fault(
                    &value.span(),
                    format!("results: {}; accepted: {accepted}", shown(other)),
                );
            }
            (name, of) => match OF_RUN.iter().find(|(known, _)| *known == name) {
                Some((_, metric)) => {
                    all.extend(expectation(reader, None, (name, *metric), (of, &value.span())));
                }
                None => {
                    let known = OF_RUN.iter().map(|(known, _)| *known);
                    let known: Vec<_> = known.chain(["verified", "rounds", "results"]).collect();
                    reader.unknown(&key.span(), "key of [expect]", name, &known);
                }
            },
        }
    }
    all
}

fn of_result(
    reader: &mut Reader<'_>,
    id: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    all: &mut Vec<Expectation>,
) {
    let DeValue::Table(table) = value.get_ref() else {
        let text = format!(
            "results: {} for '{}'; accepted: a table, as [expect.results.\"mix.map\"] with the quotes",
            shown(value.get_ref()),
            id.get_ref()
        );
        reader.fault(&value.span(), text);
        return;
    };
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        match OF_RESULT.iter().find(|(known, _)| *known == name) {
            Some((_, metric)) => {
                let of = (value.get_ref(), &value.span());
                all.extend(expectation(reader, Some(id.get_ref()), (name, *metric), of));
            }
            None => {
                let known = OF_RESULT.map(|(known, _)| known);
                let what = format!("key of [expect.results.\"{}\"]", id.get_ref());
                reader.unknown(&key.span(), &what, name, &known);
            }
        }
    }
}

fn expectation(
    reader: &mut Reader<'_>,
    result: Option<&str>,
    (name, metric): (&str, Metric),
    (value, span): (&DeValue<'_>, &Range<usize>),
) -> Option<Expectation> {
    let accepted = "a number, or { min = …, max = … }, one of them or both";
    let wrong = |got: &str| format!("{name}: {got}; accepted: {accepted}");
    let (min, max) = match value {
        DeValue::Table(table) => {
            let bound = |key: &str| table.get(key).map(|value| number(value.get_ref()));
            if let Some(other) =
                table.keys().find(|k| !["min", "max"].contains(&k.get_ref().as_ref()))
            {
                reader.unknown(
                    &other.span(),
                    &format!("bound of {name}"),
                    other.get_ref(),
                    &["min", "max"],
                );
                return None;
            }
            match (bound("min"), bound("max")) {
                (None, None) => {
                    reader.fault(span, wrong("an empty table"));
                    return None;
                }
                (Some(None), _) | (_, Some(None)) => {
                    reader.fault(span, wrong("a bound that is no number"));
                    return None;
                }
                (min, max) => (min.flatten(), max.flatten()),
            }
        }
        other => match number(other) {
            Some(number) => (Some(number), Some(number)),
            None => {
                reader.fault(span, wrong(&shown(other)));
                return None;
            }
        },
    };
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        reader.fault(
            span,
            format!("{name}: min {min} is more than max {max}; accepted: up to {max}"),
        );
        return None;
    }
    let key = result.map_or(name.to_owned(), |id| format!("results.{id}.{name}"));
    let (result, metric) = (result.map(str::to_owned), Some(metric));
    Some(Expectation { key, line: reader.line(span), result, metric, min, max })
}

/// A number that something counted can be.
fn number(value: &DeValue<'_>) -> Option<f64> {
    let number = match value {
        DeValue::Integer(_) => super::read::whole(value)?.parse().ok()?,
        DeValue::Float(number) => number.as_str().parse::<f64>().ok()?,
        _ => return None,
    };
    (number.is_finite() && number >= 0.0).then_some(number)
}

impl Expectation {
    /// Looks whether it holds.
    #[must_use]
    pub fn check(&self, doc: &ResultDoc) -> Check {
        let (key, line) = (self.key.clone(), self.line);
        let Some(metric) = self.metric else {
            let why = doc.verification.first_mismatch.clone();
            let found = match doc.verified {
                Some(true) => "verified".to_owned(),
                Some(false) => why.unwrap_or_else(|| "not verified".to_owned()),
                None => doc.verification.unproven.clone().unwrap_or_default(),
            };
            let right = doc.verified == Some(true);
            return Check { key, line, wanted: "verified".to_owned(), found, right };
        };
        let wanted = match (self.min, self.max) {
            (Some(min), Some(max)) if min == max => format!("{min}"),
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} or more"),
            (_, max) => format!("{} or less", max.unwrap_or_default()),
        };
        let (found, right) = match self.found(metric, doc) {
            Some(n) => {
                let right =
                    self.min.is_none_or(|min| n >= min) && self.max.is_none_or(|max| n <= max);
                (format!("{}", (n * 1000.0).round() / 1000.0), right)
            }
            None => ("not counted".to_owned(), false),
        };
        Check { key, line, wanted, found, right }
    }

    fn found(&self, metric: Metric, doc: &ResultDoc) -> Option<f64> {
        let ratio = |a: u64, b: u64| (b > 0).then(|| a as f64 / b as f64);
        if let Some(id) = &self.result {
            let result = doc.operation(id)?;
            return match metric {
                Metric::KillsPer1000Tces => result.kills_per_1000_tces,
                Metric::TcesPerCall => ratio(result.tces, result.count),
                _ => ratio(result.requests?, result.ioctls?),
            };
        }
        let counters = &doc.counters;
        let Config::Run(settings) = &doc.config else { return None };
        let pages = |bytes: u64| Some((bytes >> settings.host_page_shift) as f64);
        // Operations of an open loop are there a second time.
        let of_calls = |of: fn(&OpResult) -> u64| {
            doc.results.iter().filter(|r| r.open_loop.is_none()).map(of).sum()
        };
        let has_kernel = doc.backend.container_version.is_some();
        match metric {
            Metric::KillsPer1000Tces if has_kernel => None,
            Metric::KillsPer1000Tces => per_1000(counters.kills_issued, counters.tces_written),
            Metric::TcesPerCall => ratio(of_calls(|r| r.tces), of_calls(|r| r.count)),
            Metric::RequestsPerIoctl => ratio(counters.requests, counters.ioctls),
            Metric::ChargedPages => pages(counters.pinned_peak_bytes),
            Metric::TablePages => pages(counters.table_charge_bytes),
            Metric::LeafBlocks => Some(counters.leaf_blocks as f64),
        }
    }
}
