// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::collections::BTreeMap;

use super::sources::{Source, SourceKind};
use super::*;
use crate::fixtures::{each_key_is_required, validator};
use crate::result::Skipped;
use crate::workload::Workload;

const SCHEMA_TEXT: &str = include_str!("../../../../results/schema/tce-bench.plan-1.schema.json");

fn config(line: &str) -> PlanConfig {
    parsed(&format!("plan {line}"))
}

fn parsed(line: &str) -> PlanConfig {
    let words = ["tce-bench"].into_iter().chain(line.split_whitespace());
    match crate::cli::parse(words) {
        Ok(crate::cli::Invocation::Plan(config)) => config,
        other => panic!("{line}: {other:?}"),
    }
}

fn doc(line: &str) -> Doc {
    make(&config(line)).unwrap().0
}

/// What can be mapped where, as "start/bits/backing": page sizes.
fn pages(doc: &Doc, start: u64, bits: u32, backing: u64) -> Vec<u64> {
    let window = doc.windows.iter().find(|w| w.start == start).unwrap();
    let reach = window.reach.iter().find(|r| r.mask_bits == bits).unwrap();
    reach.pages.iter().find(|row| row.backing_bytes == backing).unwrap().iommu_pages.clone()
}

#[test]
fn masks_and_backing_decide_which_pages_can_be_used_in_which_window() {
    let line = "--backend mock --platform phb4 --window 4G --page-size 64K --dma-mask 32,59,60,12";
    let doc = doc(line);
    let starts: Vec<_> = doc.windows.iter().map(|w| (w.start, w.used)).collect();
    assert_eq!(starts, [(0, true), (1 << 59, false)]);
    let (k, m, g) = (1 << 10, 1 << 20, 1 << 30);
    assert_eq!(pages(&doc, 0, 32, 4 * k), [4 * k]);
    assert_eq!(pages(&doc, 0, 32, 64 * k), [4 * k, 64 * k]);
    assert_eq!(pages(&doc, 0, 32, 16 * m), [4 * k, 64 * k, 2 * m]);
    assert_eq!(pages(&doc, 0, 32, g), [4 * k, 64 * k, 2 * m, g]);
    // 12 bits reach one page of 4 KiB and none of 64.
    assert_eq!(pages(&doc, 0, 12, g), [4 * k]);
    // The second window begins where the 60th bit is needed.
    assert_eq!(pages(&doc, 1 << 59, 59, g), [0; 0]);
    assert_eq!(pages(&doc, 1 << 59, 60, g), [4 * k, 64 * k, 2 * m, g]);
    let reach = |window: usize| {
        doc.windows[window].reach.iter().map(|r| (r.mask_bits, r.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(reach(0), [(12, 0), (32, 4 * g), (59, 4 * g), (60, 4 * g)]);
    assert_eq!(reach(1), [(12, 0), (32, 0), (59, 0), (60, 4 * g)]);
    let text = report::report(&doc, Style::new(false));
    assert!(
        text.contains("addresses from 0x80000000 to 0xffffffff are the devices' own"),
        "{text}"
    );
    assert!(text.contains("32 bits    4 GiB"), "{text}");
}

#[test]
fn levels_are_listed_top_first_and_add_up() {
    // 524288 TCEs are 64 leaves of 8192; one block of 64 KiB above them.
    let doc = doc("--backend mock --window 2G --levels 2 --groups 4 --containers 2");
    let levels: Vec<_> = doc.table.levels.iter().map(|l| (l.level, l.blocks, l.bytes)).collect();
    assert_eq!(levels, [(2, 1, 64 << 10), (1, 64, 4 << 20)]);
    assert_eq!((doc.table.tces, doc.table.charge_bytes), (1 << 19, 2 * ((4 << 20) + (64 << 10))));
    assert_eq!(doc.memory.table_blocks, 2 * 65);
    assert_eq!(doc.memory.table_bytes, 2 * 65 * (64 << 10));
    assert_eq!(doc.memory.table_charge_bytes, 2 * doc.table.charge_bytes);
}

#[test]
fn what_cannot_be_ends_as_a_run_would() {
    let status = |line: &str| match make(&config(line)) {
        Ok((_, status)) => status,
        Err(status) => Some(status),
    };
    assert!(matches!(
        status("--backend mock --window 1P --levels 1"),
        Some(Status::Usage(text)) if text.contains("--window 1 PiB")
    ));
    let line = "--backend mock-kernel --window 64M --buffer 1M --memlock 64K";
    assert!(matches!(status(line), Some(Status::Unavailable(text)) if text.contains("--memlock")));
    let line = "--backend mock --window 64M --buffer 1M --memlock 64K";
    assert_eq!(status(line), Some(Status::Failed));
    assert!(!doc(line).memory.memlock_fits);
    assert_eq!(status("--backend mock --window 64M --buffer 1M"), None);
}

#[test]
fn a_table_lies_where_the_group_that_joined_last_is() {
    let mut run = config("--backend mock-kernel --groups 4 --containers 2").run;
    let mut site = Site::simulated(&run).unwrap();
    site.nodes = vec![Some(0), Some(8), Some(0), None];
    assert_eq!(site.table_nodes(&run), [Some(0), None]);
    run.detach = Some(DetachPolicy::Isolate);
    site.nodes = vec![Some(0), Some(8), Some(0), Some(0)];
    assert_eq!(site.table_nodes(&run), [Some(0), None]);
}

#[test]
fn huge_pages_are_those_of_the_buffer() {
    let config = config("--backend mock-kernel --page-size 16M --window 1G --buffer 80M");
    assert_eq!(config.run.buffer_bytes, Some(80 << 20));
    let machine = Machine::open(&config.run, &mut Vec::new()).unwrap();
    let plan = Plan::new(&config.run, &machine, None).unwrap();
    let pool = |free| HostFacts {
        hugepages: vec![crate::host::HugePool { size: 16 << 20, total: 8, free }],
        ..HostFacts::default()
    };
    let needed = |free| HugePages::needed(&plan, &pool(free)).unwrap();
    assert_eq!((needed(4).needed, needed(4).fits, needed(5).fits), (5, false, true));
    let none = HugePages::needed(&plan, &HostFacts::default()).unwrap();
    assert_eq!((none.total, none.fits), (None, false));
}

#[test]
fn a_plan_fits_its_schema_and_each_field_is_required() {
    let validator = validator(SCHEMA_TEXT);
    let mut doc = doc("--backend mock-kernel --groups 2 --levels 2 --buffer 1M");
    let page_bytes = 2 << 20;
    doc.memory.huge_pages =
        Some(HugePages { page_bytes, needed: 1, total: None, free: None, fits: false });
    let name = "0000:01:00.0".to_owned();
    let driver = Some("vfio-pci".to_owned());
    let (node, dma_mask_bits) = (None, Some(32));
    doc.devices.push(Device { group: 1, name, driver, node, dma_mask_bits });
    doc.time.skipped.push(Skipped { id: "clear".to_owned(), reason: "why".to_owned() });
    let good = serde_json::to_value(&doc).unwrap();
    let parents = [
        "",
        "/time",
        "/time/skipped/0",
        "/sources/0",
        "/backend",
        "/table",
        "/table/levels/0",
        "/memory",
        "/memory/huge_pages",
        "/windows/0",
        "/windows/0/reach/0",
        "/windows/0/reach/0/pages/0",
        "/devices/0",
    ];
    each_key_is_required(&validator, &good, &parents);
}

/// Each source by its value, with the file and line of a workload.
fn origins(line: &str) -> BTreeMap<&'static str, (SourceKind, Option<String>)> {
    let doc = make(&parsed(line)).unwrap().0;
    let (count, values) = (doc.sources.len(), serde_json::to_value(&doc).unwrap());
    let of = |value: &str| values.pointer(&format!("/{}", value.replace('.', "/")));
    for source in &doc.sources {
        assert!(of(source.value).is_some(), "{line}: there is no {}", source.value);
    }
    // Nothing is left out, not even what another option added.
    for (place, members) in [("", &values), ("config", &values["config"])] {
        for key in members.as_object().unwrap().keys() {
            let path = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
            let own = ["schema", "tool", "sources", "warnings", "config.command"];
            let told = |s: &Source| s.value == path || s.value.starts_with(&format!("{path}."));
            let is_null = of(&path).is_none_or(serde_json::Value::is_null);
            let known = own.contains(&path.as_str()) || doc.sources.iter().any(told);
            assert!(known || (is_null && path == "config.mix"), "{line}: no source of {path}");
        }
    }
    let all: BTreeMap<_, _> = doc.sources.into_iter().map(|s| (s.value, (s.from, s.at))).collect();
    assert_eq!(all.len(), count, "{line}: a value has two sources");
    all
}

#[test]
fn each_value_says_where_it_comes_from() {
    let all = origins("plan --backend mock --window 64M --threads 2 --memlock 1G");
    for (value, from) in [
        ("backend.kind", SourceKind::CommandLine),
        ("backend.group_numbers", SourceKind::Settings),
        ("config.window_bytes", SourceKind::CommandLine),
        ("config.threads", SourceKind::CommandLine),
        ("config.groups", SourceKind::Default),
        ("config.levels", SourceKind::Settings),
        ("config.phases", SourceKind::Default),
        ("config.duration_s", SourceKind::Default),
        ("config.simd", SourceKind::Machine),
        ("config.memlock_bytes", SourceKind::CommandLine),
        ("memory.memlock_bytes", SourceKind::CommandLine),
        ("memory.locked_bytes", SourceKind::Machine),
        ("table", SourceKind::Settings),
        ("host", SourceKind::Machine),
    ] {
        assert_eq!(all[value], (from, None), "{value}");
    }
    let all = origins("run --dry-run --profile k6_11 --levels 1 --pages 4 --repetitions 3");
    for (value, from) in [
        ("backend.kind", SourceKind::Settings),
        ("config.levels", SourceKind::CommandLine),
        ("config.phases", SourceKind::Settings),
        ("config.duration_s", SourceKind::Settings),
        ("config.mix.pages", SourceKind::CommandLine),
        ("config.mix.live", SourceKind::Default),
        ("config.buffer_bytes", SourceKind::Default),
        ("memory.memlock_bytes", SourceKind::Default),
    ] {
        assert_eq!(all[value].0, from, "{value}");
    }
    // What is typed goes before the workload, which has its lines.
    let all = origins("--workload nic-ring --threads 2 --backend mock --dry-run");
    let workload = Workload::find("nic-ring").unwrap();
    let line = workload.setting("window.size").unwrap().line;
    let at = format!("workloads/synthetic/nic-ring.toml:{line}");
    assert_eq!(all["config.window_bytes"], (SourceKind::Workload, Some(at)));
    assert_eq!(all["config.threads"].0, SourceKind::CommandLine);
    assert_eq!(all["config.workload"].0, SourceKind::CommandLine);
}

#[test]
fn the_time_is_what_the_settings_say_and_no_estimate() {
    let time = |line: &str| doc(line).time;
    let two = "--backend mock --window 64M --phase bulk --phase ring";
    let by_time = time(&format!("{two} --duration 2s --warmup 250ms"));
    assert_eq!((by_time.least_s, by_time.phases, by_time.skipped.len()), (4.5, 2, 0));
    // Rounds take what they take.
    let by_rounds = time(&format!("{two} --repetitions 7 --warmup 250ms"));
    assert_eq!(by_rounds.least_s, 0.5);
    assert_eq!(by_rounds.at_run_time[1], "7 round(s) of each phase");
    let both = time(&format!("{two} --repetitions 7 --duration 2s --warmup 0s"));
    assert_eq!(both.least_s, 0.0);
    assert_eq!(both.at_run_time[1], "7 round(s) of each phase, or what can be begun in 2 s");
    // A kernel's tables are not cleared by us, and it is not asked for exposure.
    let kernel = "--backend mock-kernel --window 64M --phase clear --phase bulk --duration 1s";
    let kernel = time(kernel);
    assert_eq!((kernel.least_s, kernel.phases), (1.0, 1));
    assert_eq!(kernel.skipped[0].reason, "a kernel owns the tables");
    assert!(kernel.at_run_time.iter().all(|text| !text.contains("reachable")));
    let text = report::report(&doc(&format!("{two} --duration 2s")), Style::new(false));
    let line = "run time, by the settings: 4.2 s at least, of 2 phase(s); measured at run time, not \
                estimated: setting up, in each phase the round that is under way when its time is up, ";
    assert!(text.contains(line), "{text}");
    let row = |words: [&str; 5]| text.lines().any(|l| l.split_whitespace().eq(words));
    assert!(row(["config.window_bytes", "command", "line", "64", "MiB"]), "{text}");
}

#[test]
fn a_plan_measures_nothing() {
    for line in ["--hlog x", "--hlog -"] {
        let words = ["tce-bench", "run", "--dry-run"].into_iter().chain(line.split_whitespace());
        let text = crate::cli::parse(words).unwrap_err().text;
        assert!(text.contains("--hlog of a plan"), "{text}");
    }
}
