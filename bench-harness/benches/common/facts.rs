// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machine and the build that a report was made on.

use std::fmt::Write;
use std::fs;
use std::time::SystemTime;

use tce_bench::host::HostFacts;
use tce_bench::loops::libc_version;
use tce_bench::result::Tool;
use tce_bench::stamp::rfc3339;

/// Lines of `name: value`. What the machine does not tell is `?`.
pub(crate) fn text() -> String {
    let (host, tool) = (HostFacts::capture(), Tool::current());
    let or = |value: Option<String>| value.unwrap_or_else(|| "?".to_string());
    let cpu = format!(
        "{}, {} CPUs, {}",
        or(host.cpu.model),
        host.cpu.cpus,
        or(host.virt.map(|v| if v == "vm" { "virtual machine".to_string() } else { v }))
    );
    let git = tool.git.map(|git| match tool.dirty {
        Some(true) => format!("{git}, changed"),
        _ => git,
    });
    let load = host.load1.map(|load| format!("{load:.2}"));
    let huge: Vec<_> =
        host.hugepages.iter().map(|p| format!("{} x {} KiB", p.total, p.size >> 10)).collect();
    let rows = [
        ("date", rfc3339(SystemTime::now())),
        ("cpu", cpu),
        ("caches", caches()),
        ("kernel", host.kernel),
        ("rustc", or(tool.rustc)),
        ("libc", or(libc_version())),
        ("transparent huge pages", or(host.thp)),
        ("reserved huge pages", huge.join(", ")),
        ("load average, 1 min", or(load)),
        ("commit", or(git)),
    ];
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<24}{value}");
        text
    })
}

/// `L1d 48K, L2 2048K`, as CPU 0 has them.
fn caches() -> String {
    let read = |index: u32, file: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
        fs::read_to_string(path).ok().map(|text| text.trim().to_string())
    };
    let cache = |index| {
        let (level, kind) = (read(index, "level")?, read(index, "type")?);
        let kind = match kind.as_str() {
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        Some(format!("L{level}{kind} {}", read(index, "size")?))
    };
    (0..).map_while(cache).collect::<Vec<_>>().join(", ")
}
