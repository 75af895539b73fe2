// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `/proc/self` tells about the process.

use std::io::BufRead;

use super::Kernel;
use super::tree::Tree;
use crate::addr::PageShift;

/// The number in a line such as `VmLck:      64 kB`, if `line` is the one of `name`.
fn kib(line: &str, name: &str) -> Option<u64> {
    let rest = line.strip_prefix(name)?.strip_prefix(':')?;
    rest.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

/// First and past-the-end address, and whether it can be read and written, if the line of `smaps`
/// begins an area.
fn area(line: &str) -> Option<(u64, u64, bool)> {
    let mut words = line.split_whitespace();
    let (low, high) = words.next()?.split_once('-')?;
    let low = u64::from_str_radix(low, 16).ok()?;
    Some((low, u64::from_str_radix(high, 16).ok()?, words.next()?.starts_with("rw")))
}

/// The smallest page of the areas over `start..end`, from the text of `smaps`; `None` if a part of
/// the range is in no area that can be read and written, or the range is empty. Stops reading at the end of the range.
pub(super) fn smallest_page(smaps: impl BufRead, start: u64, end: u64) -> Option<PageShift> {
    let mut smallest: Option<PageShift> = None;
    // How far the range is covered, and the part that the current area covers.
    let mut next = start;
    let mut here = (0, 0);
    for line in smaps.lines() {
        let line = line.ok()?;
        if let Some((low, high, writable)) = area(&line) {
            here = (low, high);
            if low > next || high > next && !writable {
                return None;
            }
        } else if let Some(kib) = kib(&line, "KernelPageSize")
            && here.1 > next
        {
            let page = PageShift::from_bytes(kib.checked_mul(1024)?)?;
            smallest = Some(smallest.map_or(page, |s| s.min(page)));
            next = here.1;
            if next >= end {
                return smallest.filter(|_| start < end);
            }
        }
    }
    None
}

/// `VmLck` of the text of `status`, in bytes.
pub(super) fn locked_bytes(status: &str) -> u64 {
    status.lines().find_map(|line| kib(line, "VmLck")).unwrap_or(0) * 1024
}

const CAP_IPC_LOCK: u32 = 14;

/// Whether the text of `status` shows CAP_IPC_LOCK as effective.
fn has_ipc_lock(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1)
}

/// Whether the text of `uid_map` is that of the first user namespace. Only there a capability lifts
/// the limit.
fn is_first_namespace(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The limit of locked bytes that applies to the process.
pub(super) fn memlock(tree: &Tree, kernel: &dyn Kernel) -> Option<u64> {
    let limit = kernel.memlock()?;
    let read = |path| tree.read(path).unwrap_or_default();
    // A kernel without user namespaces has no map.
    let first = tree.read("/proc/self/uid_map").is_none_or(|map| is_first_namespace(&map));
    (!(first && has_ipc_lock(&read("/proc/self/status")))).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(areas: &[(u64, u64, u64)]) -> String {
        let area = |&(low, high, kib): &(u64, u64, u64)| {
            format!(
                "{low:08x}-{high:08x} rw-p 00000000 00:00 0          [heap-like name: 5 kB]\n\
                 Size:                {} kB\n\
                 KernelPageSize:    {kib:5} kB\n\
                 MMUPageSize:           4 kB\n\
                 AnonHugePages:      2048 kB\n\
                 VmFlags: rd wr mr mw me ac sd \n",
                (high - low) / 1024
            )
        };
        areas.iter().map(area).collect()
    }

    fn smallest(areas: &[(u64, u64, u64)], start: u64, end: u64) -> Option<u32> {
        smallest_page(text(areas).as_bytes(), start, end).map(PageShift::get)
    }

    #[test]
    fn smaps_gives_the_smallest_page_of_the_range() {
        let areas = [
            (0x10000, 0x20000, 64),
            (0x100_0000, 0x300_0000, 16384),
            (0x300_0000, 0x301_0000, 64),
            (0x400_0000, 0x401_0000, 4),
        ];
        assert_eq!(smallest(&areas, 0x100_0000, 0x300_0000), Some(24));
        assert_eq!(smallest(&areas, 0x100_1234, 0x100_1235), Some(24));
        assert_eq!(smallest(&areas, 0x200_0000, 0x300_0001), Some(16));
        assert_eq!(smallest(&areas, 0x10000, 0x20000), Some(16));
    }

    #[test]
    fn smaps_with_a_hole_gives_none() {
        let areas = [(0x10000, 0x20000, 64), (0x30000, 0x40000, 64)];
        assert_eq!(smallest(&areas, 0x10000, 0x20001), None, "past the first");
        assert_eq!(smallest(&areas, 0x10000, 0x40000), None, "hole between");
        assert_eq!(smallest(&areas, 0x0, 0x20000), None, "before the first");
        assert_eq!(smallest(&areas, 0x30000, 0x40001), None, "past the last");
        assert_eq!(smallest(&areas, 0x20000, 0x30000), None, "hole only");
        assert_eq!(smallest(&areas, 0x10000, 0x10000), None, "empty range");
        assert_eq!(smallest(&[], 0, 1), None);
    }

    #[test]
    fn smaps_with_a_part_that_is_read_only_gives_none() {
        let text = text(&[(0x10000, 0x20000, 64), (0x20000, 0x30000, 64)]);
        let text = text.replacen("00020000-00030000 rw-p", "00020000-00030000 r--p", 1);
        let smallest = |start, end| smallest_page(text.as_bytes(), start, end);
        assert_eq!(smallest(0x10000, 0x20000), Some(PageShift::K64));
        assert_eq!(smallest(0x10000, 0x20001), None);
        assert_eq!(smallest(0x20000, 0x30000), None);
    }

    #[test]
    fn smaps_that_makes_no_sense_gives_none() {
        let odd = "00010000-00020000 rw-p 0 00:00 0\nKernelPageSize: 3 kB\n";
        assert_eq!(smallest_page(odd.as_bytes(), 0x10000, 0x20000), None);
        let without = "00010000-00020000 rw-p 0 00:00 0\nSize: 64 kB\n";
        assert_eq!(smallest_page(without.as_bytes(), 0x10000, 0x20000), None);
        let binary = [0xff, 0xfe, b'\n'];
        assert_eq!(smallest_page(binary.as_slice(), 0x10000, 0x20000), None);
    }

    #[test]
    fn smaps_is_read_no_further_than_needed() {
        let mut text = text(&[(0x10000, 0x20000, 64)]).into_bytes();
        text.extend([0xff, b'\n']);
        assert!(smallest_page(text.as_slice(), 0x10000, 0x20000).is_some());
    }

    const STATUS: &str = "Name:\tVmLck: 5 kB\nVmPeak:\t  9999 kB\nVmLck:\t  2097152 kB\n\
        VmPin:\t       0 kB\nCapInh:\t0000000000000000\nCapEff:\t0000000000004000\n";

    #[test]
    fn status_gives_locked_bytes() {
        assert_eq!(locked_bytes(STATUS), 2 << 30);
        assert_eq!(locked_bytes(""), 0);
        assert_eq!(locked_bytes("VmLck:\tmany\n"), 0);
    }

    #[test]
    fn status_and_namespace_decide_about_the_limit() {
        assert!(has_ipc_lock(STATUS));
        assert!(!has_ipc_lock("CapEff:\t000001ffffffbfff\n"));
        assert!(has_ipc_lock("CapEff:\t000001ffffffffff\n"));
        assert!(!has_ipc_lock("CapPrm:\t000001ffffffffff\nCapEff:\t\n"));
        assert!(is_first_namespace("         0          0 4294967295\n"));
        assert!(!is_first_namespace("         0       1000          1\n"));
    }
}
