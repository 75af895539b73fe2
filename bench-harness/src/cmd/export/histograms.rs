// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The histograms themselves, for the tools around HdrHistogram: the log as they are, in picoseconds, and
//! percentiles to plot, in nanoseconds.

use std::fmt::Write;
use std::iter;

use anyhow::{Context, anyhow, bail};
use hdrhistogram::Histogram;

use super::series::{case, once, point};
use crate::cmd::documents::histogram;
use crate::result::{OpResult, ResultDoc};
use crate::stamp;

/// Of ps to ms.
const MAX_DIVISOR: f64 = 1e9;
const PS_PER_NS: f64 = 1e3;

/// An interval log 1.3. Each histogram is a line with the tag `BACKEND/GEOMETRY/OPERATION`; its interval is
/// the run it comes from, in the order of time that readers ask for. Nothing is lost: the text of a
/// histogram is that of the document.
///
/// # Errors
/// If there is no histogram, or the same run twice.
pub(super) fn hlog(docs: &[ResultDoc]) -> anyhow::Result<String> {
    once(docs)?;
    let mut in_order = Vec::new();
    for doc in docs {
        let began = stamp::seconds(&doc.run.started)
            .with_context(|| format!("{:?} is no time in UTC", doc.run.started))?;
        in_order.push((began, doc));
    }
    in_order.sort_by_key(|(began, _)| *began);
    let base = in_order.first().map_or(0, |(began, _)| *began);
    let mut out = format!(
        "#[Logged with tce-bench {}]\n\
         #[Histogram log format version 1.3]\n\
         #[StartTime: {base}.000 (seconds since epoch)]\n\
         #[BaseTime: {base}.000 (seconds since epoch)]\n\
         #[MaxValueDivisor: {MAX_DIVISOR:.3}]\n\
         #[Values in ps, Interval_Max in ms]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        env!("CARGO_PKG_VERSION"),
    );
    let mut lines = 0;
    for (began, doc) in in_order {
        let case = case(doc);
        for (result, hist) in with_samples(doc)? {
            let data = result.hist.as_ref().map_or("", |hist| hist.data.as_str());
            // Writing into a String cannot fail.
            let _ = writeln!(
                out,
                "Tag={case}/{},{:.3},{:.3},{:.3},{data}",
                result.id,
                (began - base) as f64,
                doc.run.wall_s,
                hist.max() as f64 / MAX_DIVISOR
            );
            lines += 1;
        }
    }
    if lines == 0 {
        bail!("there are no histograms: nothing was timed call by call");
    }
    Ok(out)
}

/// A file name without ending, and the percentiles, of each operation with samples.
///
/// # Errors
/// If there are several results of the same, which files of one name cannot hold, or no histogram.
pub(super) fn hgrm(docs: &[ResultDoc]) -> anyhow::Result<Vec<(String, String)>> {
    let of_same = |doc: &ResultDoc| docs.iter().filter(|d| d.point == doc.point).count();
    if let Some((doc, many)) = docs.iter().map(|d| (d, of_same(d))).find(|(_, n)| *n > 1) {
        let advice = if doc.point.is_none() { "merge them first" } else { "export one by one" };
        bail!("hgrm takes one result or one sweep, and there are {many}: {advice}");
    }
    let mut all = Vec::new();
    for doc in docs {
        for (result, hist) in with_samples(doc)? {
            let name = format!("{}{}", result.id.replace('/', "_"), point(&doc.point, '.'));
            all.push((name, percentiles(&hist)));
        }
    }
    if all.is_empty() {
        bail!("there are no histograms: nothing was timed call by call");
    }
    Ok(all)
}

fn with_samples(doc: &ResultDoc) -> anyhow::Result<Vec<(&OpResult, Histogram<u64>)>> {
    let mut all = Vec::new();
    for result in &doc.results {
        let Some(data) = &result.hist else { continue };
        all.push((result, histogram(data).map_err(|e| anyhow!("{}: {e}", result.id))?));
    }
    Ok(all)
}

/// How far it is to the next percentile: a fifth of half the distance to 100 that is left, rounded to a
/// power of two.
fn step_at(level: f64) -> f64 {
    let halves = (100.0 / (100.0 - level)).log2().floor() + 1.0;
    100.0 / (5.0 * halves.exp2())
}

/// The table that HdrHistogram prints, with five steps to each half of the distance to 100 %.
fn percentiles(hist: &Histogram<u64>) -> String {
    let digits = usize::from(hist.sigfig());
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let total = hist.len();
    let (mut level, mut count) = (0.0, 0);
    for step in hist.iter_recorded() {
        let value = step.value_iterated_to() as f64 / PS_PER_NS;
        count += step.count_at_value();
        // Writing into a String cannot fail.
        while level < 100.0 && 100.0 * count as f64 / total as f64 >= level {
            let quantile = level / 100.0;
            // Halves go up; Rust's own rounding makes the last digit even.
            let parts = (quantile * 1e12).round() as u64;
            let beyond = 1.0 / (1.0 - quantile);
            let _ = writeln!(out, "{value:12.digits$} 0.{parts:012} {count:10} {beyond:14.2}");
            level = if count == total { 100.0 } else { level + step_at(level) };
        }
        if count == total {
            let _ = writeln!(out, "{value:12.digits$} {:.12} {count:10}", 1.0);
        }
    }
    // As many as keep the digits; one value for each up to twice their power of ten.
    let sub_buckets = (2 * 10u64.pow(u32::from(hist.sigfig()))).next_power_of_two();
    let (mean, deviation) = moments(hist);
    let (mean, deviation) = (fixed(mean / PS_PER_NS, digits), fixed(deviation / PS_PER_NS, digits));
    let _ = writeln!(
        out,
        "#[Mean    = {mean:>12}, StdDeviation   = {deviation:>12}]\n\
         #[Max     = {:12.digits$}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]",
        hist.max() as f64 / PS_PER_NS,
        hist.len(),
        hist.buckets(),
    );
    out
}

/// Mean and standard deviation, summed in the order of the Java reader: the mean of few samples often ends
/// in a half, and then the last bit of it decides.
fn moments(hist: &Histogram<u64>) -> (f64, f64) {
    let total = hist.len() as f64;
    let mean_of = |of: &dyn Fn(f64) -> f64| {
        let sum = hist.iter_recorded().fold(0.0, |sum, step| {
            let value = hist.median_equivalent(step.value_iterated_to()) as f64;
            sum + of(value) * step.count_at_value() as f64
        });
        sum / total
    };
    let mean = mean_of(&|value| value);
    (mean, mean_of(&|value| (value - mean).powi(2)).sqrt())
}

/// A number that is not negative with so many digits after the point. As in Java, halves of the shortest
/// decimal that means the number go up; Rust takes the number to its last bit, by which few halves are any.
fn fixed(number: f64, digits: usize) -> String {
    let shortest = number.to_string();
    let (whole, fraction) = shortest.split_once('.').unwrap_or((&shortest, ""));
    let kept = fraction.bytes().chain(iter::repeat(b'0')).take(digits);
    let up = fraction.as_bytes().get(digits).is_some_and(|next| *next >= b'5');
    let all = whole.bytes().chain(kept).fold(0, |all, digit| 10 * all + u128::from(digit - b'0'));
    let power = 10_u128.pow(digits as u32);
    let all = all + u128::from(up);
    format!("{}.{:0digits$}", all / power, all % power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_up() {
        for (number, digits, text) in [
            (0.0045, 3, "0.005"),
            (0.0044, 3, "0.004"),
            (12.3455, 3, "12.346"),
            (1.0, 3, "1.000"),
            (0.9996, 3, "1.000"),
            (0.0, 2, "0.00"),
            (99.995, 2, "100.00"),
            (123_456_789.25, 1, "123456789.3"),
        ] {
            assert_eq!(fixed(number, digits), text);
        }
    }

    #[test]
    fn moments_of_few() {
        let mut hist = Histogram::<u64>::new(3).unwrap();
        [4, 5, 5, 4].into_iter().for_each(|ps| hist.record(ps).unwrap());
        assert_eq!(moments(&hist), (4.5, 0.5));
        let text = percentiles(&hist);
        assert!(
            text.contains("#[Mean    =        0.005, StdDeviation   =        0.001]"),
            "{text}"
        );
    }
}
