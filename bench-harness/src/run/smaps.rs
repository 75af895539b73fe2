// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much of a range of this process really stands on transparent huge pages. Advice is only
//! advice: what was got is in `/proc/self/smaps`.

use std::fs;
use std::ops::Range;
use std::sync::Arc;

use tce_engine::mem::TableChunk;

/// Bytes of these chunks' mappings that stand on transparent huge pages; 0 if the kernel does not
/// say.
pub fn huge_share(chunks: &[Arc<TableChunk>]) -> u64 {
    let range = |c: &Arc<TableChunk>| c.process_address()..c.process_address() + c.bytes();
    huge_bytes(&chunks.iter().map(range).collect::<Vec<_>>()).unwrap_or(0)
}

/// Bytes on huge pages in all mappings that touch one of `ranges`; `None` if the kernel does not
/// say.
fn huge_bytes(ranges: &[Range<usize>]) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/smaps").ok()?;
    Some(parse(&text, ranges))
}

fn parse(text: &str, ranges: &[Range<usize>]) -> u64 {
    let mut inside = false;
    let mut sum = 0;
    for line in text.lines() {
        if let Some(mapping) = header(line) {
            inside = ranges.iter().any(|r| r.start < mapping.end && mapping.start < r.end);
        } else if inside && let Some(value) = line.strip_prefix("AnonHugePages:") {
            let kib = value.trim().trim_end_matches("kB").trim();
            sum += kib.parse::<u64>().unwrap_or(0) << 10;
        }
    }
    sum
}

/// `7f00-7f80 rw-p …` as a range.
fn header(line: &str) -> Option<Range<usize>> {
    let (start, rest) = line.split_once('-')?;
    let (end, _) = rest.split_once(' ')?;
    let hex = |text| usize::from_str_radix(text, 16).ok();
    Some(hex(start)?..hex(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Size:               4096 kB
AnonHugePages:      2048 kB
7f0000800000-7f0000a00000 rw-p 00000000 00:00 0 [heap]
AnonHugePages:      1024 kB
VmFlags: rd wr mr mw me ac hg
";

    #[test]
    fn counts_only_mappings_that_are_asked_for() {
        let at = |start: usize| start..start + 4096;
        let (first, second) = (at(0x7f00_0000_1000), at(0x7f00_0080_0000));
        let between = at(0x7f00_0050_0000);
        assert_eq!(parse(TEXT, &[first.clone(), between.clone()]), 2 << 20);
        assert_eq!(parse(TEXT, &[second.clone(), between.clone()]), 1 << 20);
        assert_eq!(parse(TEXT, &[first, second]), 3 << 20);
        assert_eq!(parse(TEXT, std::slice::from_ref(&between)), 0);
    }

    #[test]
    fn this_process_has_maps() {
        let on_stack = [0u8; 64];
        let at = on_stack.as_ptr().addr();
        assert!(huge_bytes(std::slice::from_ref(&(at..at + 1))).is_some());
    }
}
