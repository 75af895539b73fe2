// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Results: any bytes are refused, or are what every command that takes results can take.

use serde_json::{Map, Value, json};

use super::documents::{document, document_of_any, each};
use super::export::{Measure, converted};
use super::{compare, merge, report};
use crate::cli::{Better, ExportConfig, ExportFormat};
use crate::outfile::OutFile;
use crate::result::{ResultDoc, SWEEP_SCHEMA};

/// What a patch is laid over.
const BASE: &[u8] = include_bytes!("../../tests/data/ring.json");

/// A result, or what is different in one: an object without a schema is laid over a right result, so that
/// a few bytes reach what is behind the first checks.
///
/// # Panics
/// If it was not read as it has to be.
pub fn result(data: &[u8]) {
    each_command(data);
    if let Ok(Value::Object(patch)) = serde_json::from_slice(data)
        && !patch.contains_key("schema")
    {
        let mut base = serde_json::from_slice(BASE).expect("the base is JSON");
        lay_over(&mut base, patch);
        each_command(base.to_string().as_bytes());
    }
}

/// Null takes a member away; a number as a key names a place in a list.
fn lay_over(base: &mut Value, patch: Map<String, Value>) {
    for (key, value) in patch {
        let place = match &mut *base {
            Value::Object(members) if value.is_null() => {
                members.remove(&key);
                continue;
            }
            Value::Object(members) => members.entry(key).or_insert(Value::Null),
            Value::Array(items) => match key.parse().ok().and_then(|at: usize| items.get_mut(at)) {
                Some(item) => item,
                None => continue,
            },
            _ => continue,
        };
        match value {
            Value::Object(inner) if place.is_object() || place.is_array() => lay_over(place, inner),
            other => *place = other,
        }
    }
}

/// What is wrong is said. It may quote the file, line ends and all; who prints it escapes them.
fn is_told(error: &anyhow::Error) {
    assert!(!format!("{error:#}").is_empty());
}

fn each_command(text: &[u8]) {
    if let Err(error) = each(text) {
        is_told(&error);
    }
    match document_of_any(text) {
        Err(error) => is_told(&error),
        Ok(doc) => {
            let page = report::drawn(vec![("it.json".to_owned(), doc.clone())]);
            assert!(page.expect("it is there once").trim_end().ends_with("</html>"));
        }
    }
    let doc = match document(text) {
        Err(error) => return is_told(&error),
        Ok(doc) => doc,
    };
    let again = doc.to_json().expect("what was read is written");
    let again = document(again.as_bytes()).expect("what was written is read");
    assert!(alike(&value(&again), &value(&doc)), "what was written reads otherwise");
    let mut other = doc.clone();
    other.run.id.push('x');
    for (nth, host) in other.hosts.iter_mut().enumerate() {
        host.run.id = format!("{}x{nth}", host.run.id);
    }
    let both = [doc.clone(), other.clone()];
    compare::fuzz::with_itself(&both.clone().map(|doc| vec![doc]));
    export(&both[..1]);
    export(&both);
    swept(both.clone());
    let named = both.map(|doc| (doc.run.id.clone(), doc));
    if let Err(error) = report::drawn(named.to_vec()) {
        is_told(&error);
    }
    merged(&named);
}

/// The same as the points of a sweep, whose document is written and read.
fn swept(docs: [ResultDoc; 2]) {
    let [tool, run] = [value(&docs[0])["tool"].take(), value(&docs[0])["run"].take()];
    let runs = docs
        .iter()
        .enumerate()
        .map(|(nth, doc)| json!({ "values": { "pages": (nth + 1).to_string() }, "result": doc }));
    let sweep = json!({
        "schema": SWEEP_SCHEMA,
        "tool": tool,
        "run": run,
        "swept": [{ "setting": "pages", "values": ["1", "2"] }],
        "runs": runs.collect::<Vec<_>>(),
        "verified": docs[0].verified,
    });
    // A run of theirs may be called as another's.
    match each(sweep.to_string().as_bytes()) {
        Err(error) => is_told(&error),
        Ok(points) => {
            export(&points);
            compare::fuzz::with_itself(&[points.clone(), points]);
        }
    }
}

fn value(doc: &ResultDoc) -> Value {
    serde_json::to_value(doc).expect("what was read is written")
}

/// Alike but for the last digit of a number, which reading JSON may change.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| alike(a, b)))
        }
        (Value::Number(a), Value::Number(b)) if a != b => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-12,
            _ => false,
        },
        (a, b) => a == b,
    }
}

/// What can be merged is a result, and as much as its parts.
fn merged(named: &[(String, ResultDoc)]) {
    let sum = match merge::merged(named) {
        Ok(sum) => sum,
        Err(error) => return is_told(&error),
    };
    let text = sum.to_json().expect("what was merged is written");
    document(text.as_bytes()).expect("what was merged is a result");
    for result in &sum.results {
        let of = |doc: &ResultDoc| doc.operation(&result.id).map_or(0, |r| r.count);
        assert_eq!(result.count, named.iter().map(|(_, doc)| of(doc)).sum::<u64>());
    }
}

fn export(docs: &[ResultDoc]) {
    use ExportFormat as F;
    let formats = [
        F::Gha,
        F::Bmf,
        F::Openmetrics,
        F::Prometheus,
        F::Hlog,
        F::Hgrm,
        F::Csv,
        F::Lnt,
        F::Perfherder,
    ];
    for to in formats {
        let config = ExportConfig {
            to,
            results: Vec::new(),
            out: OutFile::Stdout,
            better: Better::Smaller,
            measures: vec![Measure::Min, Measure::P50],
            ids: Vec::new(),
        };
        if let Err(error) = converted(docs, &config) {
            is_told(&error);
        }
    }
}
