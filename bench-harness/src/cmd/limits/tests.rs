// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::result::LoopKind;
use super::*;
use serde_json::{Value, json};
use tce_engine::simd::Tier;

const SCHEMA_TEXT: &str = include_str!("../../../../results/schema/tce-bench.limits-1.schema.json");

fn config(line: &str) -> LimitsConfig {
    let words = ["tce-bench", "limits"].into_iter().chain(line.split_whitespace());
    match crate::cli::parse(words) {
        Ok(crate::cli::Invocation::Limits(config)) => config,
        other => panic!("{line}: {other:?}"),
    }
}

fn doc(line: &str) -> Doc {
    let config = config(line);
    let mut doc = Doc::begin(&config, SystemTime::now(), vec!["tce-bench".to_owned()]);
    measure(&config, &mut doc).unwrap();
    doc.run.complete = true;
    doc
}

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(SCHEMA_TEXT).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "the schema itself is wrong");
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn every_loop_is_timed_for_every_size_and_tier() {
    let doc = doc("--sizes 4K,1M --repeat 2");
    assert_eq!(doc.sizes.iter().map(|s| s.bytes).collect::<Vec<_>>(), [4096, 1 << 20]);
    for size in &doc.sizes {
        for result in &size.loops {
            let cost = result.ns_per_tce;
            assert!(0.0 < cost.min && cost.min <= cost.median, "{result:?}");
            assert!((result.gb_per_s * cost.min - 8.0).abs() < 1e-9, "{result:?}");
        }
        for kind in [LoopKind::Store, LoopKind::Copy, LoopKind::ClearStreaming] {
            let tiers: Vec<_> = size.loops.iter().filter(|l| l.kind == kind).collect();
            assert!(tiers.iter().map(|l| l.tier.unwrap()).eq(Tier::all().map(Tier::name)));
        }
    }
    assert!(doc.recording.recorder_ns.min > 0.0 && doc.recording.histogram_ns.min > 0.0);
}

#[test]
fn the_document_fits_its_schema_and_each_field_is_required() {
    let good = serde_json::to_value(doc("--sizes 64K --repeat 1")).unwrap();
    let validator = validator();
    let errors: Vec<_> = validator.iter_errors(&good).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    for parent in
        ["", "/recording", "/recording/histogram_ns", "/clock", "/sizes/0", "/sizes/0/loops/0"]
    {
        let keys: Vec<_> =
            good.pointer(parent).unwrap().as_object().unwrap().keys().cloned().collect();
        for key in keys {
            let changed = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
                let mut doc = good.clone();
                change(doc.pointer_mut(parent).unwrap().as_object_mut().unwrap());
                validator.is_valid(&doc)
            };
            assert!(!changed(&|map| drop(map.remove(&key))), "no {parent}/{key}");
            let wrong = json!([[{"x": 1}]]);
            let wrong =
                |map: &mut serde_json::Map<_, _>| drop(map.insert(key.clone(), wrong.clone()));
            assert!(!changed(&wrong), "wrong type of {parent}/{key}");
        }
    }
    let mut added = good;
    added["sizes"][0]["loops"][0]["later"] = json!(1);
    assert!(validator.is_valid(&added));
}

#[test]
fn the_tables_have_a_column_for_each_size() {
    let mut doc = doc("--sizes 4K,64K --repeat 1");
    doc.libc = Some("glibc 2.99".to_owned());
    let text = doc.report(Style::new(false));
    for part in ["glibc 2.99", "ns per TCE, least of 1", "median of 1", "GB/s of table", "timer: "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let heads: Vec<_> = text.lines().filter(|line| line.starts_with("table ")).collect();
    assert_eq!(heads.len(), 3);
    assert!(heads.iter().all(|h| h.ends_with("4 KiB  64 KiB")), "{heads:?}");
    assert!(text.contains("\nstore, portable") && text.contains("\nlocked exchange"), "{text}");
    assert!(!text.contains("interrupted"));
    doc.run.complete = false;
    assert!(doc.report(Style::new(false)).ends_with("interrupted, incomplete\n"));
}

#[test]
fn tables_larger_than_memory_are_refused() {
    let config = config("--sizes 64K,1G");
    assert_eq!(check_memory(&config, None), Ok(()));
    assert_eq!(check_memory(&config, Some(2 << 30)), Ok(()));
    let error = check_memory(&config, Some((2 << 30) - 4096)).unwrap_err();
    assert!(
        error.starts_with("--sizes 1 GiB: twice that is needed, more than the 2 GiB"),
        "{error}"
    );
}
