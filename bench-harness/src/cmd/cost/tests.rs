// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::meter::{Meter, Unit};
use super::result::Joined;
use super::*;
use crate::cmd::least::Cost;
use serde_json::{Value, json};
use tce_engine::simd::Tier;

#[test]
fn instructions_are_claimed_only_if_the_command_line_says_so() {
    assert_eq!(Unit::of("console=hvc0 tce.icount=0 panic=1\n"), Unit::Instructions { shift: 0 });
    assert_eq!(Unit::of("tce.icount=3"), Unit::Instructions { shift: 3 });
    for not in ["", "quiet", "tce.icount=", "tce.icount=x", "tce.icount=99", "xtce.icount=0"] {
        assert_eq!(Unit::of(not), Unit::Ns, "{not}");
    }
}

#[test]
fn least_and_median() {
    let cost = Cost::of(vec![5.0, 1.0, 9.0, 3.0, 4.0]);
    assert_eq!((cost.min, cost.median), (1.0, 4.0));
    let meter = Meter::new(Unit::Instructions { shift: 10 });
    let mut calls = (0, 0);
    let (there, back) = meter
        .pairs(
            3,
            7,
            |nth| {
                calls.0 += nth;
                std::thread::sleep(std::time::Duration::from_millis(1));
                Ok(())
            },
            |_| {
                calls.1 += 1;
                Ok(())
            },
        )
        .unwrap();
    assert_eq!(calls, (5 * 21, 5 * 7));
    // A millisecond has some 977 units of 1024 ns.
    assert!(there.min > 970.0 && there.min <= there.median, "{there:?}");
    assert!(back.min < there.min);
    assert!(meter.calls(1, 1, |_| anyhow::bail!("no")).is_err());
}

fn flat(value: f64) -> Cost {
    Cost { min: value, median: value }
}

const SCHEMA_TEXT: &str = include_str!("../../../../results/schema/tce-bench.cost-1.schema.json");

fn errors(doc: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA_TEXT).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "the schema itself is wrong");
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(doc).map(|error| error.to_string()).collect()
}

fn config(line: &str) -> CostConfig {
    let words = ["tce-bench", "cost"].into_iter().chain(line.split_whitespace());
    match crate::cli::parse(words) {
        Ok(crate::cli::Invocation::Cost(config)) => config,
        other => panic!("{line}: {other:?}"),
    }
}

fn doc(unit: Unit, kernel: Option<&Kernel>, line: &str) -> Doc {
    let config = config(line);
    let meter = Meter::new(unit);
    let mut doc = Doc {
        schema: SCHEMA,
        tool: Tool::current(),
        run: Run::begin(SystemTime::now(), Vec::new(), None, 0),
        host: HostFacts::capture(),
        unit: unit.name(),
        kernel: kernel.map(|k| k.kind),
        kernel_label: kernel.map(|k| k.host.label().to_owned()),
        machine: None,
        mock_label: MOCK_LABEL,
        groups: config.groups,
        repeat: config.repeat,
        clock_overhead: 0.0,
        null_ioctl: None,
        shapes: Vec::new(),
        tiers: Vec::new(),
        passed: None,
    };
    measure(&config, kernel, &meter, &mut doc).unwrap();
    doc
}

#[test]
fn the_limit_is_a_tenth_and_a_hundred_a_request() {
    let one = flat(10_000.0);
    let at = Joined::new(flat(11_000.0 + 512.0 * 100.0), one);
    assert_eq!((at.per_request, at.ratio), (100.0, 6.22));
    let mut doc = doc(Unit::Ns, None, "--repeat 1 --pages 1");
    for (cost, passed) in [(62_200.0, true), (62_201.0, false)] {
        for batch in doc.shapes.iter_mut().flat_map(|s| &mut s.batches) {
            (batch.map, batch.unmap) = (Joined::new(flat(cost), one), Joined::new(one, one));
        }
        doc.judge(Unit::Ns);
        assert_eq!(doc.passed, None, "times are not judged");
        doc.judge(Unit::Instructions { shift: 0 });
        assert_eq!(doc.passed, Some(passed));
        let text = doc.report(Style::new(false));
        assert_eq!(text.contains("FAIL"), !passed, "{text}");
        doc.passed = None;
    }
}

#[test]
fn without_a_kernel_its_columns_are_empty() {
    let doc = doc(Unit::Ns, None, "--repeat 2 --pages 1,8");
    let text = doc.report(Style::new(false));
    assert!(text.contains("kernel: none") && text.contains("–"), "{text}");
    assert!(text.contains("ns per page, least of 2") && text.contains("not judged"), "{text}");
    assert_eq!(doc.shapes.len(), 2);
}

#[test]
fn a_simulated_kernel_is_asked_as_a_real_one_and_left_as_it_was() {
    let kernel = Kernel::simulated(2);
    let mut doc = doc(Unit::Ns, Some(&kernel), "--repeat 1 --pages 1,8,600 --groups 2");
    for shape in &doc.shapes {
        let paths: Vec<_> = shape.paths.iter().map(|p| (p.path, p.requests.len())).collect();
        let expected = [PathKind::Kernel, PathKind::Engine, PathKind::Mock];
        assert_eq!(paths, expected.map(|path| (path, 3)));
    }
    assert_eq!(kernel.host.locked_bytes(), 0, "everything was given back");
    assert!(doc.null_ioctl.is_some());
    doc.judge(Unit::Instructions { shift: 0 });
    let judged = doc.shapes.iter().flat_map(|s| &s.batches);
    for batch in judged {
        assert_eq!(batch.map.passed.is_some(), batch.path == PathKind::Mock);
    }
}

#[test]
fn documents_fit_the_schema() {
    let kernel = Kernel::simulated(1);
    let mut with = doc(Unit::Ns, Some(&kernel), "--repeat 1 --pages 1");
    with.judge(Unit::Instructions { shift: 0 });
    with.unit = "instructions";
    let without = doc(Unit::Ns, None, "--repeat 1 --pages 1");
    for doc in [&with, &without] {
        let good = serde_json::to_value(doc).unwrap();
        assert_eq!(errors(&good), Vec::<String>::new());
        for (pointer, wrong) in [
            ("/schema", json!("tce-bench.cost/2")),
            ("/unit", json!("cycles")),
            ("/kernel", json!("hardware")),
            ("/shapes/0/levels", json!(0)),
            ("/shapes/0/paths/0/path", json!("none")),
            ("/shapes/0/paths/0/requests/0/map/min", json!("1")),
            ("/shapes/0/batches/0/unmap/ratio", json!(null)),
            ("/tiers/0/loops/0/per_tce/median", json!(-1)),
            ("/passed", json!("yes")),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = wrong;
            assert!(!errors(&bad).is_empty(), "{pointer}");
        }
        for key in good.as_object().unwrap().keys() {
            let mut less = good.clone();
            less.as_object_mut().unwrap().remove(key);
            // Documents of earlier versions lack it.
            assert_eq!(errors(&less).is_empty(), key == "tiers", "{key}");
        }
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/baseline/emulated");
    let mut baselines = 0;
    for host in fs::read_dir(folder).unwrap() {
        for day in fs::read_dir(host.unwrap().path()).unwrap() {
            let Ok(text) = fs::read_to_string(day.unwrap().path().join("cost.json")) else {
                continue;
            };
            assert_eq!(errors(&serde_json::from_str(&text).unwrap()), Vec::<String>::new());
            baselines += 1;
        }
    }
    assert!(baselines > 0);
}

#[test]
fn every_loop_of_every_tier_is_counted() {
    let doc = doc(Unit::Ns, None, "--repeat 3 --pages 1");
    assert!(doc.tiers.iter().map(|t| t.tier).eq(Tier::all().map(Tier::name)));
    for tier in &doc.tiers {
        let names: Vec<_> = tier.loops.iter().map(|l| l.name).collect();
        assert!(names.starts_with(&[
            "fill",
            "fill_empty",
            "fill_frames",
            "store",
            "put",
            "list",
            "exchange"
        ]));
        assert!(
            tier.loops.iter().all(|l| 0.0 < l.per_tce.min && l.per_tce.min <= l.per_tce.median)
        );
    }
    let text = doc.report(Style::new(false));
    assert!(
        text.contains("ns per TCE of each tier's loops over a leaf of 8192, least of 3"),
        "{text}"
    );
    assert!(text.contains("\nclear_streaming  ") && text.contains("  portable"), "{text}");
}
