// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::fixtures::{each_key_is_required, validator};

const SCHEMA_TEXT: &str = include_str!("../../../../results/schema/tce-bench.plan-1.schema.json");

fn config(line: &str) -> PlanConfig {
    let words = ["tce-bench", "plan"].into_iter().chain(line.split_whitespace());
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
    let good = serde_json::to_value(&doc).unwrap();
    let parents = [
        "",
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

#[test]
fn a_plan_measures_nothing() {
    for line in ["--hlog x", "--hlog -"] {
        let words = ["tce-bench", "run", "--dry-run"].into_iter().chain(line.split_whitespace());
        let text = crate::cli::parse(words).unwrap_err().text;
        assert!(text.contains("--hlog of a plan"), "{text}");
    }
}
