// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lines of Linux' event tracing, as the kernel, `trace-cmd report` and `perf script` print them:
//!
//! ```text
//! TASK-PID [CPU] FLAGS TIME: map: IOMMU: iova=0xA - 0xB paddr=0xC size=N
//! TASK-PID [CPU] FLAGS TIME: unmap: IOMMU: iova=0xA - 0xB size=N unmapped_size=M
//! ```
//!
//! Older kernels leave the end out.

use super::{Counts, Event, What, number};
use crate::size::whole;
use crate::trace::clip;

const MARK: &str = "IOMMU: iova=";

/// The event of a line; `None` if it is another line.
pub(super) fn line(text: &str, counts: &mut Counts) -> Result<Option<Event>, String> {
    counts.lost = counts.lost.saturating_add(lost(text));
    let Some((before, fields)) = text.split_once(MARK) else {
        return Ok(None);
    };
    let mut words = before.split_whitespace().rev();
    let maps = match words.next().map(|name| name.strip_prefix("iommu:").unwrap_or(name)) {
        Some("map:") => true,
        Some("unmap:") => false,
        _ => return Ok(None),
    };
    let time = words.next().unwrap_or_default();
    let t_ns = time.strip_suffix(':').and_then(nanoseconds).ok_or_else(|| {
        format!(
            "the time '{}' is wrong; accepted: seconds with 6 or 9 decimals and a colon, as the \
             trace clocks local, global and mono have",
            clip(time)
        )
    })?;
    let in_brackets = |word: &str| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned());
    let cpu = words.find_map(in_brackets).and_then(|cpu| cpu.parse().ok());
    let fields = format!("iova={fields}");
    let field = |name: &str| {
        let mut all = fields.split_whitespace();
        all.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let value = |name: &str| {
        let text = field(name).ok_or_else(|| format!("the event has no {name}"))?;
        number(name, text)
    };
    let (iova, size) = (value("iova")?, value("size")?);
    let end = fields.split_once(" - ").and_then(|(_, rest)| rest.split_whitespace().next());
    if let Some(end) = end
        && number("the end", end)? != iova.wrapping_add(size)
    {
        return Err(format!("the end {end} is not iova {iova:#x} plus size {size:#x}"));
    }
    if maps {
        let what = What::Map { paddr: value("paddr")?, perm: 3 };
        return Ok(Some(Event { t_ns: Some(t_ns), cpu, iova, size, what }));
    }
    let done = value("unmapped_size")?;
    if done < size {
        counts.short_unmaps += 1;
    }
    Ok(Some(Event { t_ns: Some(t_ns), cpu, iova, size: done, what: What::Unmap }))
}

/// Seconds with a fraction of 6 or 9 digits.
fn nanoseconds(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.')?;
    let scale = match fraction.len() {
        6 => 1000,
        9 => 1,
        _ => return None,
    };
    whole::<u64>(seconds)?.checked_mul(1_000_000_000)?.checked_add(whole::<u64>(fraction)? * scale)
}

/// How many events a line says were lost: `CPU:0 [LOST 12 EVENTS]`, `CPU:0 [12 EVENTS DROPPED]`, or what
/// the head's `entries-in-buffer/entries-written: 100/250` leaves out.
fn lost(text: &str) -> u64 {
    if let Some((_, counts)) = text.split_once("# entries-in-buffer/entries-written: ") {
        let both = counts.split_whitespace().next().and_then(|both| both.split_once('/'));
        let both = both.and_then(|(kept, all)| Some((kept.parse().ok()?, all.parse().ok()?)));
        return both.map_or(0, |(kept, all): (u64, u64)| all.saturating_sub(kept));
    }
    if !text.starts_with("CPU:") {
        return 0;
    }
    let number = text.split_once("[LOST ").or_else(|| text.split_once('['));
    let number =
        number.filter(|_| text.ends_with(" EVENTS]") || text.ends_with(" EVENTS DROPPED]"));
    let number = number.and_then(|(_, rest)| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
