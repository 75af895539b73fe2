// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::os::unix::fs::symlink;

use super::*;
use crate::fixtures::{each_key_is_required, put_file, validator};

const SCHEMA_TEXT: &str = include_str!("../../../../results/schema/tce-bench.info-1.schema.json");

/// The files of a POWER9 with one device, which VFIO has.
fn power9() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| put_file(root.path(), path, text);
    file(
        "proc/cpuinfo",
        "processor\t: 0\ncpu\t\t: POWER9, altivec supported\nrevision\t: 2.2 (pvr 004e 1202)\n\n\
         timebase\t: 512000000\nplatform\t: PowerNV\nmodel\t\t: 8335-GTH\n\
         machine\t\t: PowerNV 8335-GTH\nfirmware\t: OPAL\nMMU\t\t: Radix\n",
    );
    file("sys/devices/system/node/online", "0,8\n");
    file("sys/devices/system/node/node0/cpulist", "0-79\n");
    let meminfo = "Node 0 MemTotal:  1024 kB\nNode 0 MemFree:    512 kB\n";
    file("sys/devices/system/node/node0/meminfo", meminfo);
    file("dev/vfio/vfio", "");
    file("dev/vfio/3", "");
    file("sys/module/vfio/refcnt", "1\n");
    file("proc/sys/kernel/osrelease", "6.12.1\n");
    file("lib/modules/6.12.1/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko:\n");
    let device = "sys/kernel/iommu_groups/3/devices/0000:01:00.0";
    file(&format!("{device}/numa_node"), "8\n");
    file(&format!("{device}/dma_mask_bits"), "64\n");
    symlink("../../bus/pci/drivers/vfio-pci", root.path().join(device).join("driver")).unwrap();
    root
}

fn captured() -> Doc {
    let root = power9();
    let host = HostFacts {
        arch: "ppc64le".into(),
        page_size: 1 << 16,
        ..HostFacts::from_root(root.path())
    };
    Doc::capture(root.path(), host)
}

#[test]
fn a_power_machine_is_captured_from_its_files() {
    let doc = captured();
    let node0 = Node {
        node: 0,
        cpus: Some("0-79".to_owned()),
        mem_total_bytes: Some(1 << 20),
        mem_free_bytes: Some(512 << 10),
    };
    let node8 = Node { node: 8, cpus: None, mem_total_bytes: None, mem_free_bytes: None };
    assert_eq!(doc.numa, [node0, node8]);
    assert_eq!((doc.bridges.as_deref(), doc.vfio.container), (Some("phb4"), true));
    assert_eq!(doc.vfio.groups, [3]);
    let states: Vec<_> = doc.vfio.modules.iter().map(|m| m.state).collect();
    assert_eq!(states, ["present", "available", "missing"]);
    let group = &doc.iommu_groups[0];
    assert_eq!((group.group, group.node), (3, Some(8)));
    let device = &group.devices[0];
    assert_eq!((device.driver.as_deref(), device.dma_mask_bits), (Some("vfio-pci"), Some(64)));
    let text = doc.report(Style::new(false));
    for part in [
        "POWER9, altivec supported",
        "8335-GTH",
        "OPAL",
        "Radix",
        "512000000 Hz",
        "phb4",
        "CPUs 0-79; 1 MiB, 512 KiB free",
        "vfio_iommu_spapr_tce missing",
        "node 8: 0000:01:00.0 (vfio-pci, 64 bits)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_capture_fits_its_schema_and_each_field_is_required() {
    let validator = validator(SCHEMA_TEXT);
    let here = Doc::capture(Path::new("/"), HostFacts::capture());
    assert!(validator.is_valid(&serde_json::to_value(here).unwrap()));
    let good = serde_json::to_value(captured()).unwrap();
    let parents =
        ["", "/numa/0", "/vfio", "/vfio/modules/0", "/iommu_groups/0", "/iommu_groups/0/devices/0"];
    each_key_is_required(&validator, &good, &parents);
}
