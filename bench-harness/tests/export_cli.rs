// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `tce-bench export` as a user calls it; each format is held against its own rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::common::{bench, hlog, refused, text};
use serde_json::{Value, json};
use tce_bench::hist_io;

/// A document of a real run of `--phase ring`.
const RUN: &str = include_str!("data/ring.json");
/// What its series are called.
const CASE: &str = "mock/g1c1-4M-4K-l1-t1";

fn document() -> Value {
    serde_json::from_str(RUN).unwrap()
}

/// `RUN` as run number `nth`, with times of its own.
fn taken(nth: u64, ns: f64) -> Value {
    let mut doc = document();
    doc["run"]["id"] = format!("01TEST{nth:020}").into();
    doc["run"]["started"] = format!("2026-11-29T10:00:{nth:02}Z").into();
    for result in doc["results"].as_array_mut().unwrap() {
        let p = json!({"50": ns, "90": ns, "99": ns + 5.0, "99.9": null, "99.99": null});
        result["latency"] = json!({"min": ns - 5.0, "mean": ns, "max": 2.0 * ns, "p": p});
    }
    doc
}

/// Files of `docs` in a folder that lives as long as the first part.
fn files(docs: &[Value]) -> (tempfile::TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = |nth| dir.path().join(format!("{nth}.json"));
    let names = docs.iter().enumerate().map(|(nth, doc)| {
        fs::write(path(nth), doc.to_string()).unwrap();
        path(nth).display().to_string()
    });
    let names = names.collect();
    (dir, names)
}

fn exported(options: &str, files: &[String]) -> String {
    let mut args: Vec<&str> = ["export", "--to"].into_iter().chain(options.split(' ')).collect();
    args.extend(files.iter().map(String::as_str));
    let out = bench(&args);
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    assert_eq!(text(&out.stderr), "");
    text(&out.stdout)
}

/// The document, found valid by the schema that we have of `format`.
fn valid(format: &str, text: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats");
    let schema = fs::read_to_string(format!("{folder}/{format}.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "the schema itself is wrong");
    let doc: Value = serde_json::from_str(text).expect("JSON");
    let errors: Vec<_> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&doc)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    doc
}

#[test]
fn every_tracker_has_the_median_of_the_runs() {
    let (_dir, files) = files(&[taken(1, 100.0), taken(2, 108.0), taken(3, 101.0)]);
    let gha = valid("gha", &exported("gha", &files));
    let names: Vec<_> = gha.as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    let wanted = ["ring.map", "ring.unmap"]
        .map(|op| ["min", "p50", "p99"].map(|m| format!("{CASE}/{op}/{m}")));
    assert_eq!(names, wanted.concat());
    let point = &gha[1];
    assert_eq!((&point["value"], &point["unit"]), (&json!(101.0), &json!("ns")));
    assert_eq!(point["range"], "± 7.000");
    let about = point["extra"].as_str().unwrap();
    assert!(about.contains("mock: software PHB, not hardware"), "{about}");
    assert!(about.contains("median of 3 runs"), "{about}");
    let bigger = valid("gha", &exported("gha --better bigger", &files));
    assert_eq!(bigger[0]["name"], format!("{CASE}/ring.map/calls-per-s"));
    assert_eq!(bigger[0]["value"], 1e9 / 101.0);
    assert_eq!(bigger.as_array().unwrap().len(), 4);

    let bmf = valid("bmf", &exported("bmf --measure p50,tces-per-s", &files));
    let map = &bmf[format!("{CASE}/ring.map")];
    let wanted = json!({"value": 101.0, "lower_value": 100.0, "upper_value": 108.0});
    assert_eq!(map["latency-p50"], wanted);
    assert_eq!(map.as_object().unwrap().len(), 2);

    let lnt = valid("lnt", &exported("lnt --measure p50,calls-per-s --id ring.map", &files));
    assert_eq!(lnt["run"]["llvm_project_revision"], "20261129100001");
    assert_eq!(lnt["run"]["end_time"], "2026-11-29T10:00:03");
    assert_eq!(lnt["tests"].as_array().unwrap().len(), 2);
    assert_eq!(lnt["tests"][0]["name"], format!("{CASE}/ring.map/p50"));
    assert_eq!(lnt["tests"][0]["execution_time"], json!([100.0 / 1e9, 108.0 / 1e9, 101.0 / 1e9]));
    assert_eq!(lnt["tests"][1]["score"], json!([1e9 / 100.0, 1e9 / 108.0, 1e9 / 101.0]));

    let perfherder = valid("perfherder", &exported("perfherder --measure p50,calls-per-s", &files));
    let suite = &perfherder["suites"][0];
    assert_eq!((&suite["name"], suite["subtests"].as_array().unwrap().len()), (&json!(CASE), 4));
    let subtest = &suite["subtests"][0];
    assert_eq!((&subtest["name"], &subtest["value"]), (&json!("ring.map/p50"), &json!(101.0)));
    assert_eq!(subtest["replicates"], json!([100.0, 108.0, 101.0]));
    let directions: BTreeSet<_> = suite["subtests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["unit"].to_string(), s["lowerIsBetter"].as_bool().unwrap()))
        .collect();
    assert_eq!(directions, [("\"calls/s\"".into(), false), ("\"ns\"".into(), true)].into());
}

#[test]
fn one_run_has_no_range() {
    let (_dir, files) = files(&[document()]);
    for point in valid("gha", &exported("gha", &files)).as_array().unwrap() {
        assert!(
            point.get("range").is_none() && point["extra"].as_str().unwrap().ends_with("1 run")
        );
    }
    let bmf = valid("bmf", &exported("bmf", &files));
    assert_eq!(bmf[format!("{CASE}/ring.map")]["latency-min"].as_object().unwrap().len(), 1);
    // It has 512 samples: a p99 would be an anecdote.
    assert!(bmf[format!("{CASE}/ring.map")].get("latency-p99").is_none());
}

/// Counts and percentiles of every histogram arrive as they were, and so do those of a merged one.
#[test]
fn the_log_loses_nothing() {
    let (dir, names) = files(&[taken(1, 100.0), document(), taken(3, 100.0)]);
    let merged = dir.path().join("merged.json");
    let mut args = vec!["merge", "-q", "-o", merged.to_str().unwrap()];
    args.extend(names.iter().map(String::as_str));
    assert!(bench(&args).status.success());
    let sum: Value = serde_json::from_slice(&fs::read(&merged).unwrap()).unwrap();
    for (doc, name) in [(document(), &names[1]), (sum, &merged.display().to_string())] {
        let log = exported("hlog", std::slice::from_ref(name));
        assert!(log.contains("\n#[Histogram log format version 1.3]\n"), "{log}");
        let intervals = hlog::read(&log);
        let results = doc["results"].as_array().unwrap();
        assert_eq!(intervals.len(), results.len());
        for (interval, result) in intervals.iter().zip(results) {
            assert_eq!(interval.tag, format!("{CASE}/{}", result["id"].as_str().unwrap()));
            let hist = hist_io::decode(result["hist"]["data"].as_str().unwrap()).unwrap();
            let counts = hist.iter_recorded().map(|s| (s.value_iterated_to(), s.count_at_value()));
            assert_eq!(interval.counts, hlog::Counts(counts.collect()));
            assert_eq!(interval.counts.total(), result["samples"].as_u64().unwrap());
            for percent in [0.0, 50.0, 90.0, 99.0, 99.9, 100.0] {
                let wanted = hist.value_at_quantile(f64::max(percent, 1e-9) / 100.0);
                assert_eq!(interval.counts.percentile(percent), wanted, "{percent}");
            }
            assert!((interval.max - hist.max() as f64 / 1e9).abs() < 0.001);
            assert!((interval.length - doc["run"]["wall_s"].as_f64().unwrap()).abs() < 0.001);
        }
        let p50 = results[0]["latency"]["p"]["50"].as_f64().unwrap();
        assert_eq!(intervals[0].counts.percentile(50.0) as f64 / 1e3, p50);
    }
    // Several runs follow each other in time, whatever the order of the files.
    let intervals = hlog::read(&exported("hlog", &[names[2].clone(), names[0].clone()]));
    let starts: Vec<f64> = intervals.iter().map(|i| i.start).collect();
    assert_eq!(starts, [1_795_946_401.0, 1_795_946_401.0, 1_795_946_403.0, 1_795_946_403.0]);
}

#[test]
fn percentiles_to_plot_come_one_file_for_each_operation() {
    let (dir, names) = files(&[document()]);
    let plots = dir.path().join("plots");
    fs::create_dir(&plots).unwrap();
    assert_eq!(exported(&format!("hgrm -o {}", plots.display()), &names), "");
    let map = fs::read_to_string(plots.join("ring.map.hgrm")).unwrap();
    assert!(plots.join("ring.unmap.hgrm").exists());
    assert_eq!(exported("hgrm --id ring.map", &names), map);
    let lines: Vec<&str> = map.lines().collect();
    assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
    assert_eq!(lines[1], "");
    let rows = &lines[2..lines.len() - 3];
    let parsed: Vec<Vec<f64>> =
        rows.iter().map(|r| r.split_whitespace().map(|n| n.parse().unwrap()).collect()).collect();
    let hist = document();
    let hist = hist_io::decode(hist["results"][0]["hist"]["data"].as_str().unwrap()).unwrap();
    for (nth, row) in parsed.iter().enumerate() {
        let (value, quantile, count) = ((row[0] * 1e3).round() as u64, row[1], row[2] as u64);
        assert_eq!(value, hist.value_at_quantile(quantile.max(1e-9)), "{row:?}");
        assert_eq!(count, hist.count_between(0, value), "{row:?}");
        assert_eq!(row.len(), if nth + 1 == parsed.len() { 3 } else { 4 }, "{row:?}");
    }
    assert!(parsed.is_sorted_by(|a, b| a[1] < b[1] && a[0] <= b[0]));
    assert_eq!(parsed.last().unwrap()[1..], [1.0, hist.len() as f64]);
    let tail = &lines[lines.len() - 3..];
    assert!(tail[0].starts_with("#[Mean    = ") && tail[0].contains(", StdDeviation   = "));
    assert!(tail[1].contains(&format!("Total count    = {:12}]", hist.len())), "{}", tail[1]);
    assert_eq!(
        tail[2],
        format!("#[Buckets = {:12}, SubBuckets     = {:12}]", hist.buckets(), 2048)
    );
    let out = plots.join("x.hgrm");
    let error = refused(&["export", "--to", "hgrm", &names[0], "-o", out.to_str().unwrap()], 1);
    assert!(error.contains("there are 2: name one with --id") && !out.exists(), "{error}");
}

/// Families with their samples, by the grammar that both texts have in common.
fn families(text: &str) -> BTreeMap<String, (String, Vec<(String, String)>)> {
    let mut all = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            match words.as_slice() {
                ["HELP", name, _] => {
                    current = (*name).to_owned();
                    let new = all.insert(current.clone(), (String::new(), Vec::new())).is_none();
                    assert!(new, "{name} is there twice");
                }
                ["TYPE", name, kind] => {
                    assert_eq!(*name, current);
                    all.get_mut(*name).unwrap().0 = (*kind).to_owned();
                }
                ["UNIT", name, unit] => assert!(*name == current && name.ends_with(unit), "{line}"),
                ["EOF"] => assert!(text.ends_with("\n# EOF\n")),
                other => panic!("{other:?}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        assert!(series.starts_with(&current) && series.ends_with('}'), "{line} under {current}");
        assert!(seen.insert(series.to_owned()), "{series} is there twice");
        let family: &mut (String, Vec<_>) = all.get_mut(&current).unwrap();
        family.1.push((series.to_owned(), value.to_owned()));
    }
    assert!(text.ends_with('\n'));
    all
}

/// What each tool says of the same texts: `scripts/export-check`.
#[test]
fn prometheus_and_openmetrics_are_of_one_mind() {
    let mut other = taken(2, 100.0);
    other["host"]["hostname"] = "node\"7\\".into();
    let (_dir, files) = files(&[document(), other]);
    let prometheus = families(&exported("prometheus", &files));
    let open = exported("openmetrics", &files);
    let open = families(&open);
    let kinds = |all: &BTreeMap<String, (String, Vec<_>)>| -> Vec<(String, String)> {
        all.iter().map(|(name, (kind, _))| (name.clone(), kind.clone())).collect()
    };
    for (name, kind) in [
        ("tce_bench_call_duration_seconds", "summary"),
        ("tce_bench_tces_total", "counter"),
        ("tce_bench_tce_duration_seconds", "gauge"),
        ("tce_bench_best_tce_duration_seconds", "gauge"),
        ("tce_bench_merged_runs", "gauge"),
        ("tce_bench_verified", "gauge"),
        ("tce_bench_start_time_seconds", "gauge"),
        ("tce_bench_info", "gauge"),
    ] {
        assert_eq!(prometheus[name].0, kind, "{name}");
        let of_open = match name {
            "tce_bench_info" => ("tce_bench", "info"),
            "tce_bench_tces_total" => ("tce_bench_tces", "counter"),
            _ => (name, kind),
        };
        assert_eq!(open[of_open.0].0, of_open.1, "{name}");
        assert_eq!(open[of_open.0].1, prometheus[name].1, "{name}");
    }
    assert_eq!(kinds(&open).len(), kinds(&prometheus).len());
    let doc = document();
    let p50 = doc["results"][0]["latency"]["p"]["50"].as_f64().unwrap();
    let (_, samples) = &prometheus["tce_bench_call_duration_seconds"];
    let labels =
        r#"{backend="mock",case="g1c1-4M-4K-l1-t1",host="vm",operation="ring.map",quantile="0.5"}"#;
    let name = format!("tce_bench_call_duration_seconds{labels}");
    let found = samples.iter().find(|(series, _)| *series == name).expect("its median");
    assert_eq!(found.1, format!("{p50}e-9"));
    assert!(
        samples.iter().any(|(series, _)| series.contains(r#"host="node\"7\\""#)),
        "{samples:?}"
    );
}

#[test]
fn a_textfile_is_replaced_whole() {
    let (dir, files) = files(&[document()]);
    let out = dir.path().join("tce_bench.prom");
    fs::write(&out, "old").unwrap();
    assert_eq!(exported(&format!("prometheus -o {}", out.display()), &files), "");
    assert_eq!(fs::read_to_string(&out).unwrap(), exported("prometheus", &files));
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 2, "something stayed beside the result and the export");
}

#[test]
fn rows_of_csv_are_results_and_the_runs_in_them() {
    let mut doc = taken(1, 100.0);
    doc["run"]["label"] = "a, \"b\"".into();
    let (dir, names) = files(&[doc, taken(2, 110.0)]);
    let merged = dir.path().join("merged.json").display().to_string();
    assert!(bench(&["merge", "-q", &names[0], &names[1], "-o", &merged]).status.success());
    let csv = exported("csv", &[merged]);
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("run,runs,host,label,backend,case,operation,calls,tces,samples,"));
    assert_eq!(lines.len(), 1 + 3 * 2);
    let calls = document()["results"][0]["count"].as_u64().unwrap();
    assert!(lines[1].contains(&format!(",2,vm,,mock,{CASE},ring.map,{}", 2 * calls)), "{csv}");
    assert!(lines[3].contains(",1,vm,\"a, \"\"b\"\"\",mock,"), "{csv}");
    assert!(lines[5].starts_with("01TEST00000000000000000002,1,vm,,"), "{csv}");
}

/// A sweep of `pages` and `page-size`: two points, whose runs are `RUN` with times of their own.
fn sweep() -> Value {
    let runs = [("1", 1, 100.0), ("8", 2, 400.0)].map(|(pages, nth, ns)| {
        json!({ "values": { "pages": pages, "page-size": "4K" }, "result": taken(nth, ns) })
    });
    let first = document();
    json!({
        "schema": "tce-bench.sweep/1",
        "tool": first["tool"],
        "run": first["run"],
        "swept": [
            { "setting": "pages", "values": ["1", "8"] },
            { "setting": "page-size", "values": ["4K"] },
        ],
        "runs": runs,
        "verified": true,
    })
}

/// Each format names a point in its own way, and points are never taken for runs of the same.
#[test]
fn points_of_a_sweep_are_series_of_their_own() {
    let (dir, names) = files(&[sweep()]);
    let points = ["page-size-4K+pages-1", "page-size-4K+pages-8"];
    let case = |nth: usize| format!("{CASE}/{}", points[nth]);
    let gha = valid("gha", &exported("gha --measure p50 --id ring.map", &names));
    let found: Vec<_> = gha.as_array().unwrap().iter().map(|p| (&p["name"], &p["value"])).collect();
    let [first, second] = [0, 1].map(|nth| json!(format!("{}/ring.map/p50", case(nth))));
    assert_eq!(found, [(&first, &json!(100.0)), (&second, &json!(400.0))]);
    let bmf = valid("bmf", &exported("bmf --measure p50", &names));
    assert_eq!(bmf[format!("{}/ring.map", case(1))], json!({"latency-p50": {"value": 400.0}}));
    assert_eq!(bmf.as_object().unwrap().len(), 4);
    let lnt = valid("lnt", &exported("lnt --measure p50 --id ring.map", &names));
    assert_eq!(lnt["tests"][1]["name"], format!("{}/ring.map/p50", case(1)));
    assert_eq!(lnt["tests"][1]["execution_time"], json!([400.0 / 1e9]));
    let perfherder = valid("perfherder", &exported("perfherder", &names));
    let suites = perfherder["suites"].as_array().unwrap();
    assert_eq!(suites.iter().map(|s| &s["name"]).collect::<Vec<_>>(), [&case(0), &case(1)]);
    let prometheus = exported("prometheus", &names);
    let families_of = families(&prometheus);
    let labels = r#"{backend="mock",case="g1c1-4M-4K-l1-t1",host="vm",sweep_page_size="4K",sweep_pages="8",operation="ring.map",quantile="0.5"}"#;
    let series = format!("tce_bench_call_duration_seconds{labels}");
    let samples = &families_of["tce_bench_call_duration_seconds"].1;
    assert!(samples.contains(&(series, "400e-9".to_owned())), "{samples:?}");
    assert_eq!(families(&exported("openmetrics", &names))["tce_bench_verified"].1.len(), 2);
    let csv = exported("csv --id ring.map", &names);
    let rows: Vec<_> = csv.lines().map(|l| l.split(',').next_back().unwrap()).collect();
    assert_eq!(rows, ["point", "page-size=4K pages=1", "page-size=4K pages=8"]);
    let log = hlog::read(&exported("hlog --id ring.map", &names));
    let tags: Vec<_> = log.iter().map(|interval| interval.tag.clone()).collect();
    assert_eq!(tags, [0, 1].map(|nth| format!("{}/ring.map", case(nth))));
    let plots = dir.path().join("plots");
    fs::create_dir(&plots).unwrap();
    exported(&format!("hgrm -o {}", plots.display()), &names);
    let plot = |name: &str| fs::read_to_string(plots.join(format!("ring.map{name}.hgrm"))).unwrap();
    assert_eq!(fs::read_dir(&plots).unwrap().count(), 4);
    let (_dir, single) = files(&[document()]);
    assert_eq!(plot(&format!(".{}", points[1])), exported("hgrm --id ring.map", &single));
    // Sweeps of the same are runs of the same, point by point.
    let mut again = sweep();
    for (nth, ns) in [(0, 110.0), (1, 440.0)] {
        again["runs"][nth]["result"] = taken(10 + nth as u64, ns);
    }
    let (_dir, both) = files(&[sweep(), again.clone()]);
    let bmf = valid("bmf", &exported("bmf --measure p50", &both));
    let wanted = json!({"value": 420.0, "lower_value": 400.0, "upper_value": 440.0});
    assert_eq!(bmf[format!("{}/ring.unmap", case(1))]["latency-p50"], wanted);
    again["runs"][1]["result"]["verified"] = false.into();
    let (_dir, wrong) = files(&[again]);
    let error = refused(&["export", "--to", "csv", &wrong[0]], 1);
    assert!(error.contains("page-size=4K pages=8: the run is not verified"), "{error}");
    let error = refused(&["export", "--to", "hgrm", &both[0], &both[1]], 1);
    assert!(error.contains("hgrm takes one result or one sweep, and there are 2"), "{error}");
}

#[test]
fn what_is_no_result_is_refused_and_nothing_is_written() {
    let changed = |pointer: &str, value: Value| {
        let mut doc = taken(9, 100.0);
        *doc.pointer_mut(pointer).unwrap() = value;
        doc
    };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out").display().to_string();
    for (doc, part) in [
        (changed("/schema", json!("tce-bench.result/2")), "of the schema \"tce-bench.result/2\""),
        (changed("/run/complete", json!(false)), "interrupted"),
        (changed("/verified", json!(false)), "not verified"),
        (changed("/results/0/latency/min", json!(-1.0)), "a clock went backwards"),
        (changed("/results/0/hist/sigfig", json!(2)), "its histogram is said to be of"),
        (json!([]), "names no schema"),
    ] {
        let (_dir, names) = files(&[doc]);
        let error = refused(&["export", "--to", "csv", &names[0], "-o", &out], 1);
        assert!(error.contains(&names[0]) && error.contains(part), "{part}: {error}");
    }
    let mut unlike = taken(2, 100.0);
    unlike["host"]["cpu"]["model"] = "POWER9".into();
    let (_dir, names) = files(&[taken(1, 100.0), unlike, taken(1, 100.0)]);
    for (line, part) in [
        (vec!["gha", &names[0], &names[1]], "are unlike: host.cpu.model"),
        (vec!["bmf", &names[0], &names[2]], "01TEST00000000000000000001 is there twice"),
        (vec!["prometheus", &names[0], &names[1]], "two results have the labels backend=\"mock\""),
        (vec!["csv", "--id", "bulk", &names[0]], "there are: ring.map, ring.unmap"),
        (vec!["hgrm", &names[0], &names[1]], "there are 2: merge them first"),
        (vec!["csv", "nofile.json"], "'nofile.json' cannot be read: No such file"),
    ] {
        let mut args = vec!["export", "-o", &out, "--to"];
        args.extend(line);
        let error = refused(&args, 1);
        assert!(error.contains(part), "{args:?}: {error}");
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn wrong_usage_is_exit_2() {
    for (line, part) in [
        ("export a.json", "--to"),
        ("export --to gha", "RESULT"),
        ("export --to xml a.json", "xml"),
        ("export --to bmf --better bigger a.json", "--better is for gha"),
        ("export --to csv --measure p50 a.json", "--measure is for gha, bmf, lnt and perfherder"),
        ("export --to gha --measure p50,calls-per-s a.json", "--measure calls-per-s: "),
        ("export --to gha --better bigger --measure min a.json", "--measure min: "),
        ("merge a.json", "--output"),
        ("merge -o x", "RESULT"),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let error = refused(&args, 2);
        assert!(error.contains(part), "{line}: {error}");
    }
}
