// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Facts about the machine that a result was made on. Everything is read from /proc and /sys; what
//! a machine does not tell is `None` (null in JSON), never a guess.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::cpus;

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Node name.
    pub hostname: String,
    /// As `uname -m`: `x86_64`, `ppc64le`.
    pub arch: String,
    /// The processor.
    pub cpu: CpuFacts,
    /// Kernel release.
    pub kernel: String,
    /// The host's page size in bytes.
    pub page_size: u64,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub thp: Option<String>,
    /// Pools of huge pages, by page size.
    pub hugepages: Vec<HugePool>,
    /// Frequency governor of CPU 0.
    pub governor: Option<String>,
    /// NUMA nodes that are online.
    pub numa_nodes: Vec<usize>,
    /// `vm` under a hypervisor, `none` on bare metal; `None` if that cannot be told.
    pub virt: Option<String>,
    /// Soft limit of locked memory in bytes; `None` = unlimited.
    pub memlock_bytes: Option<u64>,
    /// Load average over one minute.
    pub load1: Option<f64>,
    /// Memory that can be had without swapping, in bytes.
    pub mem_available_bytes: Option<u64>,
}

/// The processor, with the trailer that only POWER's /proc/cpuinfo has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuFacts {
    /// Model name.
    pub model: Option<String>,
    /// POWER: revision and PVR.
    pub revision: Option<String>,
    /// Logical CPUs that are online.
    pub cpus: u64,
    /// Physical cores, where the kernel lists them.
    pub cores: Option<u64>,
    /// POWER: ticks of the time base per second.
    pub timebase_hz: Option<u64>,
    /// POWER: `PowerNV` (bare metal) or `pSeries` (a guest or LPAR).
    pub platform: Option<String>,
    /// POWER: machine type and model number.
    pub machine_model: Option<String>,
    /// POWER: machine line.
    pub machine: Option<String>,
    /// POWER: firmware, as `OPAL`.
    pub firmware: Option<String>,
    /// POWER: `Radix` or `Hash`; decides the huge page sizes.
    pub mmu: Option<String>,
    /// POWER: threads of a core that are on, as `on`, `off`, `4`.
    #[serde(default)]
    pub smt: Option<String>,
    /// POWER: what instructions there are, the AT_HWCAP of the auxiliary vector, in hex.
    #[serde(default)]
    pub hwcap: Option<String>,
    /// POWER: AT_HWCAP2.
    #[serde(default)]
    pub hwcap2: Option<String>,
}

/// One pool of huge pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePool {
    /// Page size in bytes.
    pub size: u64,
    /// Pages in the pool.
    pub total: u64,
    /// Pages not in use.
    pub free: u64,
}

impl HostFacts {
    /// Reads the facts of this machine, now.
    pub fn capture() -> Self {
        let uname = rustix::system::uname();
        let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
        let files = Self::from_root(Path::new("/"));
        let (hwcap, hwcap2) = hwcap();
        Self {
            cpu: CpuFacts { hwcap, hwcap2, ..files.cpu },
            hostname: text(uname.nodename()),
            arch: text(uname.machine()),
            kernel: text(uname.release()),
            page_size: rustix::param::page_size() as u64,
            memlock_bytes: getrlimit(Resource::Memlock).current,
            ..files
        }
    }

    /// What the files below `root` tell.
    pub(crate) fn from_root(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let line = |path: &str| read(path).map(|text| text.trim().to_string());
        let cpuinfo = read("proc/cpuinfo").unwrap_or_default();
        let cpu = parse_cpuinfo(&cpuinfo);
        let power = cpu.timebase_hz.is_some();
        Self {
            cpu: CpuFacts {
                // Another kernel's file of this name tells of threads in other words.
                smt: power.then(|| line("sys/devices/system/cpu/smt/control")).flatten(),
                ..cpu
            },
            virt: parse_virt(&cpuinfo),
            thp: read("sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|text| parse_selected(&text)),
            hugepages: huge_pools(&root.join(HUGE_POOLS)),
            governor: line("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            numa_nodes: line("sys/devices/system/node/online")
                .and_then(|text| cpus::parse_list(&text).ok())
                .unwrap_or_default(),
            load1: read("proc/loadavg").and_then(|text| parse_load1(&text)),
            mem_available_bytes: read("proc/meminfo").and_then(|text| parse_mem_available(&text)),
            ..Self::default()
        }
    }
}

/// The words of the auxiliary vector, which on other machines mean other things.
fn hwcap() -> (Option<String>, Option<String>) {
    if !cfg!(target_arch = "powerpc64") {
        return (None, None);
    }
    // No POWER has none: 0 is a vector that could not be read, as by a static program under QEMU.
    let word = |value: usize| (value != 0).then(|| format!("{value:#x}"));
    let (first, second) = rustix::param::linux_hwcap();
    (word(first), word(second))
}

/// Memory that can be had without swapping, in bytes; `None` if the kernel does not tell.
pub fn mem_available() -> Option<u64> {
    fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_mem_available(&text))
}

/// `key : value` of a /proc/cpuinfo line.
fn key_value(line: &str) -> Option<(&str, &str)> {
    line.split_once(':').map(|(key, value)| (key.trim(), value.trim()))
}

/// Parses /proc/cpuinfo of x86 or POWER; the first CPU stands for all.
fn parse_cpuinfo(text: &str) -> CpuFacts {
    let mut facts = CpuFacts::default();
    let mut cores = BTreeSet::new();
    let mut package = "";
    let first = |slot: &mut Option<String>, value: &str| {
        if slot.is_none() && !value.is_empty() {
            *slot = Some(value.to_string());
        }
    };
    for (key, value) in text.lines().filter_map(key_value) {
        match key {
            "processor" => facts.cpus += 1,
            // POWER has "cpu" per CPU and "model" once at the end; x86 has a number as "model".
            "model name" | "cpu" => first(&mut facts.model, value),
            "revision" => first(&mut facts.revision, value),
            "physical id" => package = value,
            "core id" => {
                cores.insert((package, value));
            }
            "timebase" => facts.timebase_hz = value.parse().ok(),
            "platform" => first(&mut facts.platform, value),
            "machine" => first(&mut facts.machine, value),
            "firmware" => first(&mut facts.firmware, value),
            "MMU" => first(&mut facts.mmu, value),
            "model" if facts.timebase_hz.is_some() => first(&mut facts.machine_model, value),
            _ => {}
        }
    }
    facts.cores = (!cores.is_empty()).then_some(cores.len() as u64);
    facts
}

/// Bare metal or not: x86 has a CPU flag, POWER names its platform.
fn parse_virt(cpuinfo: &str) -> Option<String> {
    cpuinfo.lines().filter_map(key_value).find_map(|(key, value)| {
        let guest = match key {
            "flags" => value.split_whitespace().any(|flag| flag == "hypervisor"),
            "platform" => value != "PowerNV",
            _ => return None,
        };
        Some(if guest { "vm" } else { "none" }.to_string())
    })
}

/// The choice in brackets: "always \[madvise\] never".
fn parse_selected(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(chosen, _)| chosen.to_string())
}

fn parse_load1(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok().filter(|load: &f64| load.is_finite())
}

fn parse_mem_available(text: &str) -> Option<u64> {
    bytes_of(text, "MemAvailable:")
}

/// The bytes of the line that begins with `name`, as `VmLck:   64 kB`, in a file of /proc.
pub(crate) fn bytes_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(bytes)
}

/// As `   64 kB`.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    text.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// Where pools of huge pages are, below `/`.
pub(crate) const HUGE_POOLS: &str = "sys/kernel/mm/hugepages";

/// Lists the pools: the sizes differ by machine and MMU, so none is assumed.
pub(crate) fn huge_pools(directory: &Path) -> Vec<HugePool> {
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let pool = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        Some(HugePool {
            size: kib.parse::<u64>().ok()?.checked_mul(1024)?,
            total: number(entry.path().join("nr_hugepages"))?,
            free: number(entry.path().join("free_hugepages"))?,
        })
    };
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut pools: Vec<HugePool> = entries.flatten().filter_map(pool).collect();
    pools.sort_by_key(|pool| pool.size);
    pools
}

#[cfg(test)]
mod tests {
    use super::*;

    const POWER9: &str = "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n\
        clock\t\t: 2300.000000MHz\nrevision\t: 2.2 (pvr 004e 1202)\n\n\
        processor\t: 1\ncpu\t\t: POWER9, altivec supported\nrevision\t: 2.2 (pvr 004e 1202)\n\n\
        timebase\t: 512000000\nplatform\t: PowerNV\nmodel\t\t: 8335-GTH\n\
        machine\t\t: PowerNV 8335-GTH\nfirmware\t: OPAL\nMMU\t\t: Radix\n";

    const X86: &str = "processor\t: 0\nmodel\t\t: 106\nmodel name\t: Some Xeon\nphysical id\t: 0\n\
        core id\t\t: 0\nflags\t\t: fpu vme hypervisor avx2\n\nprocessor\t: 1\nmodel\t\t: 106\n\
        model name\t: Some Xeon\nphysical id\t: 0\ncore id\t\t: 0\nflags\t\t: fpu vme\n\n\
        processor\t: 2\nphysical id\t: 1\ncore id\t\t: 0\n";

    #[test]
    fn the_power_trailer_is_read() {
        let facts = parse_cpuinfo(POWER9);
        let some = |text: &str| Some(text.to_string());
        assert_eq!(facts.model, some("POWER9, altivec supported"));
        assert_eq!(facts.revision, some("2.2 (pvr 004e 1202)"));
        assert_eq!((facts.cpus, facts.cores), (2, None));
        assert_eq!(facts.timebase_hz, Some(512_000_000));
        assert_eq!(facts.platform, some("PowerNV"));
        assert_eq!(facts.machine_model, some("8335-GTH"));
        assert_eq!(facts.machine, some("PowerNV 8335-GTH"));
        assert_eq!(facts.firmware, some("OPAL"));
        assert_eq!(facts.mmu, some("Radix"));
        assert_eq!(parse_virt(POWER9), some("none"));
        let guest = POWER9.replace("PowerNV", "pSeries");
        assert_eq!(parse_virt(&guest), some("vm"));
    }

    #[test]
    fn x86_has_cores_and_no_trailer() {
        let facts = parse_cpuinfo(X86);
        assert_eq!(facts.model.as_deref(), Some("Some Xeon"));
        assert_eq!((facts.cpus, facts.cores), (3, Some(2)));
        assert_eq!(facts.machine_model, None);
        assert_eq!(parse_virt(X86).as_deref(), Some("vm"));
        assert_eq!(parse_virt(&X86.replace("hypervisor ", "")).as_deref(), Some("none"));
    }

    #[test]
    fn small_files_parse_or_are_none() {
        assert_eq!(parse_selected("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(parse_selected("always"), None);
        assert_eq!(parse_load1("0.52 0.58 0.59 1/389 1\n"), Some(0.52));
        assert_eq!(parse_load1("nan"), None);
        let meminfo = "MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(parse_mem_available(meminfo), Some(2 << 20));
        assert_eq!(parse_mem_available("MemAvailable: many kB"), None);
        assert_eq!(parse_mem_available("MemAvailable: 18446744073709551615 kB"), None);
    }

    #[test]
    fn a_machine_without_any_file_gives_nothing_and_no_panic() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(HostFacts::from_root(empty.path()), HostFacts::default());
    }

    #[test]
    fn a_power_machine_is_told_by_its_files() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| crate::fixtures::put_file(root.path(), path, text);
        file("proc/cpuinfo", POWER9);
        file("sys/devices/system/cpu/smt/control", "4\n");
        file("sys/devices/system/node/online", "0,8\n");
        file("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        let facts = HostFacts::from_root(root.path());
        assert_eq!(facts.cpu.smt.as_deref(), Some("4"));
        assert_eq!((facts.numa_nodes, facts.virt.as_deref()), (vec![0, 8], Some("none")));
        assert_eq!(facts.thp.as_deref(), Some("madvise"));
        file("proc/cpuinfo", X86);
        assert_eq!(HostFacts::from_root(root.path()).cpu.smt, None);
    }

    #[test]
    fn huge_page_pools_are_listed_by_size() {
        let dir = tempfile::tempdir().unwrap();
        for (name, total) in [("hugepages-1048576kB", "1"), ("hugepages-16384kB", "8"), ("x", "1")]
        {
            let pool = dir.path().join(name);
            fs::create_dir(&pool).unwrap();
            fs::write(pool.join("nr_hugepages"), format!("{total}\n")).unwrap();
            fs::write(pool.join("free_hugepages"), "0\n").unwrap();
        }
        let expected = [
            HugePool { size: 16 << 20, total: 8, free: 0 },
            HugePool { size: 1 << 30, total: 1, free: 0 },
        ];
        assert_eq!(huge_pools(dir.path()), expected);
    }

    #[test]
    fn this_machine_has_a_name_and_pages() {
        let facts = HostFacts::capture();
        assert!(!facts.arch.is_empty() && !facts.kernel.is_empty());
        assert!(facts.page_size.is_power_of_two());
        assert!(facts.cpu.cpus > 0, "{facts:?}");
        assert_eq!(facts.mem_available_bytes.is_some(), mem_available().is_some());
    }
}
