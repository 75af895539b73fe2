// SPDX-License-Identifier: Apache-2.0 OR MIT
use tce_engine::addr::PageShift;
use tce_engine::backend::linux::raw::Errno;
use tce_engine::backend::linux::vfio::{
    DeviceInfo, Examination, GroupExamination, Holder, ModuleState, PreflightError,
};

use super::*;
use crate::fixtures::{each_key_is_required, put_file, validator};

const SCHEMA_TEXT: &str = include_str!("../../../../results/schema/tce-bench.doctor-1.schema.json");

/// A POWER9 with a pool of huge pages, from its files.
fn power9() -> HostFacts {
    let root = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| put_file(root.path(), path, text);
    file(
        "proc/cpuinfo",
        "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n\ntimebase\t: 512000000\n\
         platform\t: PowerNV\nmodel\t\t: 8335-GTH\nmachine\t\t: PowerNV 8335-GTH\n\
         firmware\t: OPAL\nMMU\t\t: Radix\n",
    );
    file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "10\n");
    file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "4\n");
    file("proc/loadavg", "0.01 0.02 0.03 1/100 1\n");
    HostFacts {
        arch: "ppc64le".to_owned(),
        kernel: "6.12.1".to_owned(),
        page_size: 1 << 16,
        ..HostFacts::from_root(root.path())
    }
}

fn device(name: &str, driver: Option<&str>) -> DeviceInfo {
    let driver = driver.map(str::to_owned);
    DeviceInfo { name: name.to_owned(), driver, bridge: false, node: None, dma_mask_bits: None }
}

fn group(number: u32, usable: Result<(), PreflightError>) -> GroupExamination {
    let devices = vec![device("0000:02:00.0", Some("vfio-pci"))];
    GroupExamination { group: GroupId(number), devices, usable }
}

/// A machine on which nothing is wrong.
fn good() -> Examination {
    Examination {
        container: Ok(()),
        groups: vec![group(2, Ok(()))],
        enough: Ok(()),
        memlock: Ok(()),
        limit: None,
        locked: 0,
        host_page: PageShift::K64,
    }
}

const PRESENT: [(&str, ModuleState); 3] = [
    ("vfio", ModuleState::Present),
    ("vfio_pci", ModuleState::Present),
    ("vfio_iommu_spapr_tce", ModuleState::Present),
];

fn config(line: &str) -> DoctorConfig {
    let words = ["tce-bench", "doctor"].into_iter().chain(line.split_whitespace());
    match crate::cli::parse(words) {
        Ok(crate::cli::Invocation::Doctor(config)) => config,
        other => panic!("{line}: {other:?}"),
    }
}

fn look(
    line: &str,
    host: HostFacts,
    examined: &Examination,
    modules: &[(&'static str, ModuleState)],
) -> Doc {
    let run = config(line).run;
    let (machine, _) = model::model(&run, &host).unwrap();
    let plan = Plan::new(&run, &machine, None).unwrap();
    let seen = Seen { host: &host, examined, modules, plan: &plan };
    let findings = seen.findings(run.vfio_groups.is_some());
    Doc::new(findings, &plan, u64::from(run.groups), run.vfio_v1, host)
}

fn find<'a>(doc: &'a Doc, code: &str) -> &'a Finding {
    doc.findings.iter().find(|f| f.code == code).unwrap_or_else(|| panic!("no {code}: {doc:?}"))
}

/// The finding of a machine on which this one thing is wrong.
fn only(code: &str, examined: &Examination) -> Finding {
    let doc = look("", power9(), examined, &PRESENT);
    let bad: Vec<_> = doc.findings.iter().filter(|f| f.status == Level::Fail).collect();
    assert!(!doc.usable && !bad.is_empty(), "{doc:?}");
    assert!(matches!(doc.status(), Status::Unavailable(_)));
    find(&doc, code).clone()
}

#[test]
fn a_good_machine_is_usable() {
    let doc = look("", power9(), &good(), &PRESENT);
    let all: Vec<_> = doc.findings.iter().map(|f| (f.code, f.status)).collect();
    let codes = ["MACHINE", "MODULES", "CONTAINER", "GROUP", "GROUPS", "MEMLOCK", "HUGE_PAGES"];
    assert_eq!(all, codes.map(|code| (code, Level::Ok)));
    assert!(doc.usable && doc.status() == Status::Ok);
    let machine = &find(&doc, "MACHINE").text;
    for word in ["ppc64le", "POWER9", "PowerNV", "OPAL", "Radix"] {
        assert!(machine.contains(word), "{machine}");
    }
    // 64 MiB and a table of 2 GiB in 4 KiB pages, twice.
    assert_eq!(doc.wanted.need_locked_bytes, (64 << 20) + (8 << 20));
    assert!(report::report(&doc, true, Style::new(false)).ends_with("\nusable\n"));
}

#[test]
fn another_machine_has_one_finding() {
    let no = PreflightError::NotPower { arch: "x86_64".to_owned() };
    let (container, enough) = (Err(no.clone()), Err(no));
    let examined = Examination { container, enough, groups: Vec::new(), ..good() };
    let doc = look("", power9(), &examined, &PRESENT);
    assert_eq!(doc.findings.iter().map(|f| f.code).collect::<Vec<_>>(), ["MACHINE"]);
    assert!(doc.findings[0].text.contains("x86_64") && !doc.usable);
}

#[test]
fn a_guest_is_warned() {
    let mut host = power9();
    host.cpu.platform = Some("pSeries".to_owned());
    let doc = look("--groups 1", host, &good(), &PRESENT);
    assert_eq!(find(&doc, "MACHINE").status, Level::Warn);
    assert!(doc.usable);
}

#[test]
fn modules_are_loaded_if_there_are_any() {
    let container = Err(PreflightError::NoVfio { errno: Errno::ENOENT });
    let examined = Examination { container, ..good() };
    let idle = PRESENT.map(|(name, _)| (name, ModuleState::Available));
    let doc = look("", power9(), &examined, &idle);
    let command = Some("modprobe -a vfio vfio_pci vfio_iommu_spapr_tce");
    assert_eq!(find(&doc, "MODULES").command.as_deref(), command);
    let command = Some("modprobe -a vfio vfio-pci vfio_iommu_spapr_tce");
    assert_eq!(find(&doc, "CONTAINER").command.as_deref(), command);

    let container = Err(PreflightError::NoExtension { v1: false, other: false });
    let examined = Examination { container, ..good() };
    let lacks = [PRESENT[0], PRESENT[1], ("vfio_iommu_spapr_tce", ModuleState::Missing)];
    let doc = look("", power9(), &examined, &lacks);
    for code in ["MODULES", "CONTAINER"] {
        let finding = find(&doc, code);
        assert_eq!((finding.status, &finding.command), (Level::Fail, &None));
        assert!(finding.fix.as_ref().unwrap().contains("CONFIG_VFIO_IOMMU_SPAPR_TCE"));
    }
    let doc = look("", power9(), &examined, &PRESENT);
    let command = Some("modprobe vfio_iommu_spapr_tce");
    assert_eq!(find(&doc, "CONTAINER").command.as_deref(), command);
}

/// Every way in which a group can be refused.
fn refusals() -> Vec<PreflightError> {
    let devices =
        vec![device("0000:02:00.0", Some("vfio-pci")), device("0000:02:00.1", Some("nvme"))];
    let (group, node) = (GroupId(2), "/dev/vfio/2".to_owned());
    let holders = vec![Holder { pid: 42, program: "qemu".to_owned() }];
    vec![
        PreflightError::NotBound { group, devices: devices.clone() },
        PreflightError::NotViable { group, devices },
        PreflightError::Busy { group, holders },
        PreflightError::Denied { node, owner: None, euid: Some(1000), errno: Errno::EACCES },
    ]
}

#[test]
fn each_refusal_has_its_command_and_counts_if_the_group_is_needed() {
    let bind = "echo vfio-pci > /sys/bus/pci/devices/0000:02:00.1/driver_override; echo 0000:02:00.1 \
                > /sys/bus/pci/devices/0000:02:00.1/driver/unbind; echo 0000:02:00.1 > \
                /sys/bus/pci/drivers_probe";
    let commands = [bind, bind, "kill 42", "chown 1000 /dev/vfio/2"];
    for (error, command) in refusals().into_iter().zip(commands) {
        let viable = Vec::new();
        let few = PreflightError::TooFew { asked: 1, viable, refused: vec![error.clone()] };
        let groups = vec![group(2, Err(error.clone()))];
        let examined = Examination { groups, enough: Err(few), ..good() };
        let finding = only("GROUP", &examined);
        assert_eq!((finding.status, finding.command.as_deref()), (Level::Fail, Some(command)));
        assert_eq!(only("GROUPS", &examined).text, "0 usable, 1 wanted");

        // Another one will do, unless this one was named.
        let groups = vec![group(2, Err(error)), group(3, Ok(()))];
        let examined = Examination { groups, ..good() };
        let doc = look("", power9(), &examined, &PRESENT);
        assert_eq!((find(&doc, "GROUP").status, doc.usable), (Level::Warn, true));
        let doc = look("--vfio-groups 2", power9(), &examined, &PRESENT);
        assert_eq!((find(&doc, "GROUP").status, doc.usable), (Level::Fail, false));
    }
}

#[test]
fn no_group_at_all() {
    let enough = Err(PreflightError::NoIommuGroups);
    let finding = only("GROUPS", &Examination { groups: Vec::new(), enough, ..good() });
    assert!(finding.fix.unwrap().contains("iommu=off"));
    let candidates = vec![(device("0000:05:00.0", None), GroupId(5))];
    let enough = Err(PreflightError::NoneBound { candidates });
    let finding = only("GROUPS", &Examination { groups: Vec::new(), enough, ..good() });
    assert!(finding.command.unwrap().contains("0000:05:00.0"));
}

#[test]
fn a_limit_that_is_too_low_is_raised_for_now_and_for_good() {
    let error = PreflightError::Memlock { need: 72 << 20, locked: 0, limit: 8 << 20 };
    let finding = only("MEMLOCK", &Examination { memlock: Err(error), ..good() });
    assert_eq!(finding.command.as_deref(), Some("prlimit --pid $$ --memlock=75497472:75497472"));
    assert!(finding.fix.unwrap().contains("limits.conf"));
}

#[test]
fn huge_pages_are_reserved_beside_those_in_use() {
    // 16 MiB are 8 pages of 2 MiB, of which 4 are free.
    let doc = look("--page-size 2M --buffer 16M", power9(), &good(), &PRESENT);
    let finding = find(&doc, "HUGE_PAGES");
    assert_eq!((finding.status, doc.usable), (Level::Fail, false));
    assert_eq!(finding.text, "8 of 2M needed, 4 of 10 free");
    let command = "echo 14 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    assert_eq!(finding.command.as_deref(), Some(command));
    let doc = look("--page-size 2M --buffer 8M", power9(), &good(), &PRESENT);
    assert_eq!((find(&doc, "HUGE_PAGES").status, doc.usable), (Level::Ok, true));
    let doc = look("--page-size 1G", power9(), &good(), &PRESENT);
    let finding = find(&doc, "HUGE_PAGES");
    assert_eq!(finding.text, "IOMMU pages of 1G need such huge pages; the kernel has 2M");
    assert_eq!((finding.status, &finding.command), (Level::Fail, &None));
}

#[test]
fn noise_is_a_warning() {
    let host = HostFacts { governor: Some("powersave".to_owned()), load1: Some(7.5), ..power9() };
    let doc = look("", host, &good(), &PRESENT);
    for code in ["GOVERNOR", "LOAD"] {
        assert_eq!(find(&doc, code).status, Level::Warn);
    }
    assert!(doc.usable);
}

/// Documents with all that can be wrong.
fn documents() -> Vec<Doc> {
    let mut groups: Vec<_> = refusals().into_iter().map(|e| group(2, Err(e))).collect();
    groups.push(group(3, Ok(())));
    let memlock = Err(PreflightError::Memlock { need: 1, locked: 0, limit: 0 });
    let container = Err(PreflightError::NoVfio { errno: Errno::ENOENT });
    let examined = Examination { container, groups, memlock, ..good() };
    let bad = look("--page-size 2M", power9(), &examined, &PRESENT);
    vec![bad, look("", power9(), &good(), &PRESENT)]
}

#[test]
fn documents_fit_the_schema_and_its_fields_are_required() {
    let validator = validator(SCHEMA_TEXT);
    for doc in documents() {
        let good = serde_json::to_value(&doc).unwrap();
        each_key_is_required(&validator, &good, &["", "/wanted", "/findings/0"]);
    }
}

#[test]
fn every_command_is_one_line_that_a_shell_understands() {
    let mut checked = 0;
    for finding in documents().iter().flat_map(|doc| &doc.findings) {
        assert!(!finding.text.contains('\n'), "{finding:?}");
        assert_eq!(finding.status == Level::Ok, finding.fix.is_none(), "{finding:?}");
        let Some(command) = &finding.command else { continue };
        assert!(!command.contains('\n'), "{command}");
        let status = std::process::Command::new("sh").args(["-n", "-c", command]).status();
        assert!(status.unwrap().success(), "{command}");
        checked += 1;
    }
    assert!(checked >= 6, "{checked}");
}

#[test]
fn the_report_says_what_to_run() {
    let docs = documents();
    let text = report::report(&docs[0], false, Style::new(false));
    assert!(text.contains("FAIL  CONTAINER   /dev/vfio/vfio cannot be opened"), "{text}");
    assert!(text.contains("run:  sudo modprobe -a vfio vfio-pci vfio_iommu_spapr_tce\n"), "{text}");
    assert!(text.contains("run:  sudo sh -c 'echo vfio-pci > "), "{text}");
    // Two to bind, one to kill.
    assert_eq!(text.matches("only if nobody needs what this takes away").count(), 3, "{text}");
    assert!(text.ends_with("\nnot usable\n"), "{text}");
}
