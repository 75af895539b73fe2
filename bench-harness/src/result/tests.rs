// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::host::HugePool;
use crate::mix::Mix;
use serde_json::{Value, json};
use std::time::{Duration, Instant, UNIX_EPOCH};

const SCHEMA_TEXT: &str = include_str!("../../../results/schema/tce-bench.result-1.schema.json");

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(SCHEMA_TEXT).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "the schema itself is wrong");
    jsonschema::validator_for(&schema).unwrap()
}

fn recorder() -> Recorder {
    let (begin, interval) = (Instant::now(), Duration::from_millis(20));
    let mut recorder = Recorder::with_timeline(begin, interval);
    for (nth, ns) in (50_000..60_000).enumerate() {
        recorder.at(begin + Duration::from_micros(60) * nth as u32, nth as u64);
        recorder.record(ns, 524_288);
    }
    recorder.end_round();
    recorder.end_timeline(begin + Duration::from_micros(599_950), 10_000);
    recorder
}

/// A document in which every optional field is filled.
fn sample() -> ResultDoc {
    let text = |value: &str| Some(value.to_string());
    let limit = Limit { kind: LimitKind::Store, ns_per_tce: 0.1, libc_ns_per_tce: Some(0.09) };
    let mut recorder = recorder();
    let mut result = OpResult::new("bulk.map", "map", &recorder, Some(limit)).unwrap();
    result.timeline = recorder.take_timeline();
    (result.kills_per_1000_tces, result.exposure_ns) = (Some(1.5), Some(2000));
    result.own_table = Some(OwnTable {
        window_bytes: 32 << 30,
        page_shift: 12,
        levels: 2,
        table_bytes: (64 << 20) + (64 << 10),
        groups: 1,
        cores: 2,
    });
    result.open_loop = Some(OpenLoop {
        asked_per_s: 1000,
        achieved_per_s: 999.5,
        late: 3,
        most_behind_ns: 12_000,
    });
    let mut host = HostFacts::capture();
    host.cpu.revision = text("2.2 (pvr 004e 1202)");
    host.cpu.timebase_hz = Some(512_000_000);
    host.thp = text("madvise");
    host.hugepages = vec![HugePool { size: 2 << 20, total: 8, free: 1 }];
    host.governor = text("performance");
    host.numa_nodes = vec![0, 8];
    host.virt = text("none");
    host.memlock_bytes = Some(64 << 20);
    ResultDoc {
        schema: SCHEMA.to_string(),
        tool: Tool::current(),
        run: Run::begin(UNIX_EPOCH, vec!["tce-bench".to_string()], text("main"), u64::MAX),
        host,
        backend: Backend {
            kind: BackendKind::Mock,
            label: MOCK_LABEL.to_string(),
            groups: 4,
            group_numbers: vec![0, 3],
            container_version: Some(2),
            kernel_release: text("6.12.0"),
            bridges: None,
            runs_on: text("IBM PowerNV (POWER8), emulated by QEMU"),
            page_sizes: vec![4096, 65536],
            max_windows: 2,
            max_levels: 5,
            table_nodes: vec![Some(8), None],
            table_memory: TableMemory {
                kind: TableMemoryKind::Thp,
                page_bytes: 2 << 20,
                reserved_bytes: 8 << 20,
                used_bytes: 5 << 20,
            },
            real_memory: Some(RealMemory { backing_bytes: 2 << 20, layout: Layout::Scattered }),
        },
        config: Config::Run(RunSettings {
            groups: 4,
            containers: 1,
            window_bytes: 2 << 30,
            window_start: 0,
            levels: 2,
            level_entries: 8192,
            page_shift: 12,
            host_page_shift: 16,
            threads: 1,
            cpus: Some(vec![0]),
            backing_bytes: 2 << 20,
            buffer_bytes: 2 << 30,
            phases: vec!["bulk".to_string(), "clear".to_string()],
            repetitions: Some(10),
            duration_s: Some(1.5),
            warmup_s: 0.0,
            simd: "avx2".to_string(),
            contiguous: false,
            memlock_bytes: Some(1 << 30),
            detach: text("replay"),
            kill_cost: Some(KillCostSettings { store_ns: 100, fence_ns: 1000, refill_ns: 200 }),
            policy: "deferred=256,10ms".to_string(),
            mix: Some(Box::new((&Mix::default()).into())),
            rate_per_s: Some(1000),
            workload: Some(Box::new(WorkloadSettings {
                name: "nic-ring".to_string(),
                digest: format!("sha256:{}", "0f".repeat(32)),
                overridden: vec!["window.size".to_string()],
            })),
        }),
        clock: Clock::measure(),
        results: vec![result],
        counters: Counters { tces_written: 1, ..Counters::default() },
        verified: Some(false),
        verification: Verification {
            translations: 524_288,
            passes: 2,
            mirror_entries: 16,
            first_mismatch: text("window 0, page 7"),
            books: Some(BooksResult {
                comparisons: 3,
                first_difference: text("after attach: 1 byte"),
            }),
            dma: Some(DmaResult { devices: vec!["group 3: x".into()], pages: 4, unmapped: 1 }),
            unproven: text("nobody could be asked"),
        },
        replay: Some(Replay {
            traces: vec![TraceResult {
                file: "a.tce.zst".to_string(),
                calls_per_s: Some(1e6),
                ns_per_tce: Some(10.0),
                ..TraceResult::default()
            }],
            total: ReplayTotal {
                calls_per_s: Some(1e6),
                ns_per_tce: Some(10.0),
                ..ReplayTotal::default()
            },
        }),
        left: vec![Left {
            container: 0,
            group: 3,
            others: 3,
            policy: "replay".to_string(),
            mapped_tces: 512,
            refused: None,
            detach_ns: 1e4,
            replayed: 512,
            ioctls: 1,
            replay_ns: 5e3,
            lost_tces: Some(0),
            joined: Some(Joined { attach_ns: 1e4, ..Joined::default() }),
        }],
        warnings: vec![Warning::new("NO_VFIO", "no VFIO here: the mock is used")],
        skipped: vec![Skipped { id: "clear".to_string(), reason: "no memory".to_string() }],
        hosts: Vec::new(),
        point: SweepPoint::default(),
    }
}

/// `doc` as a merged document has it, once for itself and once for the run in it.
fn merged(doc: ResultDoc) -> ResultDoc {
    let ResultDoc { run, host, backend, clock, counters, verified, .. } = doc.clone();
    let ResultDoc { mut results, verification, replay, left, warnings, skipped, .. } = doc.clone();
    results.iter_mut().for_each(|result| result.hist = None);
    let row = HostRun {
        run,
        host,
        backend,
        clock,
        results,
        counters,
        verified,
        verification,
        replay,
        left,
        warnings,
        skipped,
    };
    ResultDoc { hosts: vec![row], ..doc }
}

fn replay_sample() -> ResultDoc {
    let config = Config::Replay(ReplaySettings {
        traces: vec!["a.tce.zst".to_string()],
        ram_bytes: None,
        passes: vec!["checked".to_string(), "latency".to_string()],
        compat: "kvm".to_string(),
        policy: "batched=50us".to_string(),
        host_page_shift: 16,
        simd: "portable".to_string(),
    });
    let results = vec![OpResult::new("get", "get", &Recorder::new(), None).unwrap()];
    let mut doc = ResultDoc { config, results, ..sample() };
    doc.backend.real_memory = None;
    doc.host = HostFacts { arch: "x".into(), page_size: 4096, ..HostFacts::default() };
    doc.verification.first_mismatch = None;
    doc
}

fn errors(doc: &Value) -> Vec<String> {
    validator().iter_errors(doc).map(|error| error.to_string()).collect()
}

#[test]
fn full_and_sparse_documents_are_valid() {
    let unproven = ResultDoc { verified: None, ..sample() };
    let no_replay = ResultDoc { replay: None, ..sample() };
    for doc in [sample(), replay_sample(), no_replay, unproven, merged(sample())] {
        let value = serde_json::from_str(&doc.to_json().unwrap()).unwrap();
        assert_eq!(errors(&value), Vec::<String>::new());
    }
}

#[test]
fn a_document_reads_back_the_same() {
    for doc in [sample(), replay_sample(), merged(sample())] {
        let text = doc.to_json().unwrap();
        assert!(text.ends_with("}\n"));
        assert_eq!(serde_json::from_str::<ResultDoc>(&text).unwrap(), doc);
    }
}

/// Every object of the document, by JSON pointer.
fn objects(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                objects(child, format!("{at}/{key}"), found);
            }
            found.push(at);
        }
        Value::Array(list) => {
            for (index, child) in list.iter().enumerate() {
                objects(child, format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn each_field_is_required_and_typed() {
    // Left out of `required` on purpose: present on POWER only, or added later.
    const OPTIONAL: [&str; 35] = [
        "smt",
        "hwcap",
        "hwcap2",
        "revision",
        "machine_model",
        "group_numbers",
        "container_version",
        "kernel_release",
        "runs_on",
        "bridges",
        "requests",
        "ioctls",
        "mirror_entries",
        "books",
        "dma",
        "unproven",
        "best_round_ns_per_tce",
        "own_table",
        "phases",
        "skipped",
        "compat",
        "detach",
        "left",
        "table_nodes",
        "kill_cost",
        "kill_cost_ns",
        "kills_per_1000_tces",
        "exposure_ns",
        "samples",
        "hosts",
        "mix",
        "rate_per_s",
        "workload",
        "open_loop",
        "timeline",
    ];
    let validator = validator();
    for doc in [merged(sample()), replay_sample()] {
        let good = serde_json::to_value(doc).unwrap();
        let mut pointers = Vec::new();
        objects(&good, String::new(), &mut pointers);
        assert!(pointers.len() > 10, "{pointers:?}");
        for pointer in pointers {
            let keys: Vec<String> =
                good.pointer(&pointer).unwrap().as_object().unwrap().keys().cloned().collect();
            for key in keys {
                let field = |doc: &mut Value, change: &dyn Fn(&mut serde_json::Map<_, _>)| {
                    change(doc.pointer_mut(&pointer).unwrap().as_object_mut().unwrap());
                };
                let mut missing = good.clone();
                field(&mut missing, &|map| drop(map.remove(&key)));
                let accepted = validator.is_valid(&missing);
                // Where a group left, what was done about it is named the same.
                let optional = OPTIONAL.contains(&key.as_str())
                    || (pointer.as_str(), key.as_str()) == ("/config", "policy");
                assert_eq!(accepted, optional, "no {pointer}/{key}");
                // No field is an object with this member, an array of it, or such a string.
                let mut wrong = good.clone();
                field(&mut wrong, &|map| drop(map.insert(key.clone(), json!([[{"x": 1}]]))));
                assert!(!validator.is_valid(&wrong), "wrong type of {pointer}/{key}");
            }
        }
    }
}

#[test]
fn wrong_values_are_refused() {
    let good = serde_json::to_value(merged(sample())).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut doc = good.clone();
        *doc.pointer_mut(pointer).unwrap() = value;
        doc
    };
    for (pointer, value) in [
        ("/schema", json!("tce-bench.result/2")),
        ("/verified", json!("true")),
        ("/backend/kind", json!("hardware")),
        // Nor a simulation for the kernel, nor anything for a kernel by another label.
        ("/backend/kind", json!("mock-kernel")),
        ("/backend/kind", json!("vfio")),
        ("/backend/container_version", json!(3)),
        // The mock must not pass for hardware.
        ("/backend/label", json!("POWER9")),
        ("/config/levels", json!(6)),
        ("/config/command", json!("replay")),
        ("/results/0/count", json!(-1)),
        ("/results/0/hist/data", json!("not base64!")),
        ("/results/0/latency/p/99", json!("fast")),
        ("/run/started", json!("yesterday")),
        ("/counters/kills_asked", json!(1.5)),
        // A run in a merged document has its samples in the document's histogram.
        ("/hosts/0/results/0/hist", good["results"][0]["hist"].clone()),
        ("/hosts/0/results/0/samples", json!(-1)),
        ("/results/0/timeline", json!([])),
        ("/results/0/timeline/0/length_ns", json!(0)),
        ("/results/0/timeline/1/start_ns", json!(-1)),
        ("/results/0/timeline/1/p99", json!("slow")),
        ("/hosts/0/results/0/timeline/0/kills", json!(0.5)),
    ] {
        assert!(!errors(&with(pointer, value.clone())).is_empty(), "{pointer} = {value}");
    }
    assert!(errors(&json!({})).len() >= 10);
}

#[test]
fn new_fields_are_welcome() {
    let mut doc = serde_json::to_value(sample()).unwrap();
    doc["added"] = json!(1);
    doc["results"][0]["latency"]["p"]["75"] = json!(3.5);
    doc["counters"]["evictions"] = json!(7);
    assert_eq!(errors(&doc), Vec::<String>::new());
}

#[test]
fn the_ratio_to_the_limit_is_one_at_the_limit() {
    let limit =
        |ns_per_tce| Some(Limit { kind: LimitKind::Copy, ns_per_tce, libc_ns_per_tce: None });
    let mut recorder = Recorder::new();
    recorder.record(200, 1000);
    recorder.end_round();
    let result = OpResult::new("a", "a", &recorder, limit(0.1)).unwrap();
    assert_eq!((result.ns_per_tce, result.of_limit), (Some(0.2), Some(0.5)));
    assert_eq!(OpResult::new("a", "a", &recorder, None).unwrap().of_limit, None);
    let empty = OpResult::new("a", "a", &Recorder::new(), limit(0.1)).unwrap();
    assert_eq!((empty.ns_per_tce, empty.of_limit, empty.hist), (None, None, None));
}

#[test]
fn an_interval_is_a_line_of_the_document() {
    let doc = sample();
    let timeline = doc.results[0].timeline.as_ref().unwrap();
    assert_eq!(timeline.len(), 30);
    let text = doc.to_json().unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("\"start_ns\"")).collect();
    assert_eq!(lines.len(), 30);
    let first =
        r#"{"start_ns":0,"length_ns":20000000,"calls":334,"tces":175112192,"mean":50166.5,"#;
    assert!(lines[0].trim().starts_with(first), "{}", lines[0]);
    assert!(lines[29].contains(r#""length_ns":19950000,"#), "{}", lines[29]);
}

#[test]
fn a_timeline_that_is_none_is_refused_by_name() {
    type Change<'a> = &'a dyn Fn(&mut Vec<Interval>);
    let good = merged(sample());
    assert_eq!(good.results[0].check_timeline(), Ok(()));
    let refused = |change: Change<'_>| {
        let mut result = good.results[0].clone();
        change(result.timeline.as_mut().unwrap());
        result.check_timeline().expect_err("it is none")
    };
    let ns = 20_000_000;
    let cases: [(Change<'_>, &str); 15] = [
        (
            &|all| all[3].start_ns -= 1,
            "interval 3 of its timeline begins at 59999999 ns, when the one before ends at 60000000 ns",
        ),
        (&|all| all.swap(4, 5), "interval 5 of its timeline begins at 80000000 ns, when the one"),
        (&|all| all[2].length_ns = 0, "interval 2 of its timeline is 0 ns long"),
        (
            &|all| all[2].length_ns = ns - 1,
            "interval 2 of its timeline is 19999999 ns long, and the",
        ),
        (&|all| all[29].length_ns = ns + 1, "interval 29 of its timeline is 20000001 ns long"),
        (
            &|all| all[29].start_ns = u64::MAX,
            "interval 29 of its timeline begins at 18446744073709551615",
        ),
        (&|all| all.resize(121, all[0]), "its timeline has 121 intervals; accepted: 1 to 120"),
        (&Vec::clear, "its timeline has 0 intervals; accepted: 1 to 120"),
        (
            &|all| all[7].p50 = Some(1e9),
            "interval 7 of its timeline has percentiles that do not rise",
        ),
        (&|all| all[7].mean = Some(-1.0), "interval 7 of its timeline has a time of -1 ns"),
        (&|all| all[7].max = Some(f64::NAN), "interval 7 of its timeline has a time of NaN ns"),
        (&|all| all[7].calls += 1, "its timeline has 10001 calls, and all together 10000"),
        (&|all| all[7].calls = u64::MAX, "its timeline has more than 2^64 calls"),
        (&|all| all.truncate(29), "its timeline has 9"),
        (&|all| all[0].tces -= 1, "its timeline has 5242879999 TCEs, and all together 5242880000"),
    ];
    for (change, error) in cases {
        let found = refused(change);
        assert!(found.starts_with(error), "{found}, not {error}");
    }
}

#[test]
fn the_embedded_histogram_decodes_to_the_samples() {
    let recorder = recorder();
    let hist = HistData::new(recorder.histogram()).unwrap();
    let decoded = hist_io::decode(&hist.data).unwrap();
    assert_eq!((decoded.low(), decoded.high()), (hist.lowest, hist.highest));
    assert_eq!(decoded.len(), 10_000);
}

/// Each schema stands by itself, so what documents have in common is in all of them.
#[test]
fn what_documents_share_is_the_same_in_all_schemas() {
    let parse = |text| serde_json::from_str::<Value>(text).unwrap();
    let ours = parse(SCHEMA_TEXT);
    for other in [
        include_str!("../../../results/schema/tce-bench.limits-1.schema.json"),
        include_str!("../../../results/schema/tce-bench.cost-1.schema.json"),
        include_str!("../../../results/schema/tce-bench.churn-1.schema.json"),
        include_str!("../../../results/schema/tce-bench.crash-1.schema.json"),
        include_str!("../../../results/schema/tce-bench.sweep-1.schema.json"),
    ] {
        let other = parse(other);
        let mut shared = 0;
        for (name, definition) in other["$defs"].as_object().unwrap() {
            let Some(own) = ours["$defs"].get(name) else { continue };
            assert_eq!(definition, own, "{name}");
            shared += 1;
        }
        assert!(shared >= 5, "{shared}");
        let clock = &other["properties"]["clock"];
        assert!(clock.is_null() || *clock == ours["properties"]["clock"]);
    }
}

/// What stands in `results/baseline` can be read, was right, and is in the folder of its kind.
#[test]
fn baselines_are_valid_and_where_they_belong() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/baseline");
    let mut folders = vec![std::path::PathBuf::from(root)];
    let mut documents = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            if value["schema"] != SCHEMA {
                continue;
            }
            let errors: Vec<_> = validator().iter_errors(&value).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
            let doc: ResultDoc = serde_json::from_value(value).unwrap();
            assert!(doc.verified == Some(true) && doc.run.complete, "{}", path.display());
            assert_eq!(doc.tool.dirty, Some(false), "{}", path.display());
            let kind = path.strip_prefix(root).unwrap().iter().next().unwrap();
            let label = &doc.backend.label;
            let wanted = match doc.backend.kind {
                BackendKind::Mock | BackendKind::MockKernel => "mock",
                BackendKind::Vfio if label.contains("emulated") => "emulated",
                BackendKind::Vfio => "hardware",
            };
            assert_eq!(kind, wanted, "{}: {label}", path.display());
            documents += 1;
        }
    }
    assert!(documents > 0, "no baseline was found");
}
