// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Histograms as text: base64 for the JSON result, and an HdrHistogram interval log (V1.3) that
//! the tools around HdrHistogram read.

use std::io::{self, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// The name of the encoding in the JSON result.
pub const ENCODING: &str = "hdr-v2-deflate-base64";

const PS_PER_NS: u64 = 1000;

/// Base64 of the compressed V2 form.
///
/// # Errors
/// Only if the histogram cannot be serialised (a count above 2^63).
pub fn encode(hist: &Histogram<u64>) -> Result<String, String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(hist, &mut bytes)
        .map_err(|error| format!("a histogram cannot be serialised: {error}"))?;
    Ok(STANDARD.encode(bytes))
}

/// The first words of the compressed form, and of what is in it.
pub(crate) const COMPRESSED: u32 = 0x1c84_9314;
const PLAIN: u32 = 0x1c84_9313;
/// Bytes before the counts.
const HEAD: usize = 40;
/// Most digits of a histogram here; each one more takes ten times the memory, whatever is in it.
const MOST_DIGITS: u32 = 3;
/// Most bytes that so many digits over all of 64 bits can be: 56,320 counts of 9.
const MOST_BYTES: u64 = 512 << 10;

/// The histogram that [`encode`] wrote. However few bytes say that they are many, it takes little memory.
///
/// # Errors
/// If the text is no base64, or its content no histogram.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| format!("the histogram is not base64: {error}; accepted: {ENCODING}"))?;
    let read = plain(&bytes).and_then(|plain| {
        let read: Result<Histogram<u64>, _> =
            Deserializer::new().deserialize(&mut plain.as_slice());
        let hist = read.map_err(|error| error.to_string())?;
        // Two buckets may become one, whose count has to fit.
        match hist.len() <= i64::MAX as u64 {
            true => Ok(hist),
            false => Err(format!("it has {} samples; the limit is {}", hist.len(), i64::MAX)),
        }
    });
    read.map_err(|error| format!("the histogram cannot be read: {error}; accepted: {ENCODING}"))
}

/// The uncompressed form of [`encode`]'s bytes, if the library that takes it can hold it: it trusts lengths,
/// and negates what it reads.
fn plain(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let word = |bytes: &[u8], at: usize| {
        let four = bytes.get(at..at + 4)?;
        four.try_into().ok().map(u32::from_be_bytes)
    };
    if word(bytes, 0) != Some(COMPRESSED)
        || word(bytes, 4).map(|n| n as usize + 8) != Some(bytes.len())
    {
        return Err("it does not begin as one, or has not the length that it says".to_owned());
    }
    let mut plain = Vec::new();
    let unpacked = ZlibDecoder::new(&bytes[8..]).take(MOST_BYTES + 1).read_to_end(&mut plain);
    unpacked.map_err(|error| error.to_string())?;
    if plain.len() as u64 > MOST_BYTES {
        return Err(format!("it has more than {MOST_BYTES} bytes"));
    }
    let counts = plain.get(HEAD..).unwrap_or_default();
    if word(&plain, 0) != Some(PLAIN) || word(&plain, 4).map(|n| n as usize) != Some(counts.len()) {
        return Err("what is in it is none, or has not the length that it says".to_owned());
    }
    match word(&plain, 12) {
        Some(digits) if digits > MOST_DIGITS => {
            return Err(format!("it is of {digits} digits; the limit is {MOST_DIGITS}"));
        }
        _ => {}
    }
    // A number of zeros that has no positive one: nine bytes with all bits set.
    if counts.windows(9).any(|number| number == [0xff; 9]) {
        return Err("it has a count that is none".to_owned());
    }
    Ok(plain)
}

/// One histogram of an interval log.
#[derive(Debug, Clone, Copy)]
pub struct LogEntry<'a> {
    /// The result's id; commas, spaces and control characters are replaced, the format has no
    /// quoting.
    pub tag: &'a str,
    /// When the phase began, from the start of the run.
    pub start: Duration,
    /// How long the phase took.
    pub length: Duration,
    /// In picoseconds, as [`Recorder::histogram`](crate::recorder::Recorder::histogram) gives it.
    pub hist: &'a Histogram<u64>,
}

/// Writes an interval log: values in nanoseconds, maxima in milliseconds, times from `started`.
///
/// # Errors
/// What the writer says, or a histogram that cannot be serialised.
pub fn write_hlog(
    out: &mut impl Write,
    started: SystemTime,
    entries: &[LogEntry<'_>],
) -> io::Result<()> {
    let epoch = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    writeln!(out, "#[Logged with tce-bench {}]", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "#[Histogram log format version 1.3]")?;
    writeln!(out, "#[StartTime: {epoch:.3} (seconds since epoch)]")?;
    writeln!(out, "#[BaseTime: {epoch:.3} (seconds since epoch)]")?;
    writeln!(out, "#[MaxValueDivisor: 1000000.000]")?;
    writeln!(out, "#[Values in ns; shorter ones count as 1 ns, the JSON result has them in ps]")?;
    writeln!(
        out,
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
    )?;
    for entry in entries {
        let ns = to_nanoseconds(entry.hist);
        let data = encode(&ns).map_err(io::Error::other)?;
        writeln!(
            out,
            "Tag={},{:.3},{:.3},{:.3},{data}",
            clean_tag(entry.tag),
            entry.start.as_secs_f64(),
            entry.length.as_secs_f64(),
            ns.max() as f64 / 1e6
        )?;
    }
    Ok(())
}

/// The same samples in nanoseconds, rounded, at least 1.
fn to_nanoseconds(ps: &Histogram<u64>) -> Histogram<u64> {
    // The bounds are those of the source, so nothing saturates and every log entry merges.
    let mut ns = Histogram::new_with_bounds(1, (ps.high() / PS_PER_NS).max(2), ps.sigfig())
        .expect("a thousandth of valid bounds is valid");
    for step in ps.iter_recorded() {
        let value = (ps.median_equivalent(step.value_iterated_to()) + PS_PER_NS / 2) / PS_PER_NS;
        ns.saturating_record_n(value.max(1), step.count_at_value());
    }
    ns
}

fn clean_tag(tag: &str) -> String {
    tag.chars()
        .map(|c| if c == ',' || c.is_whitespace() || c.is_control() { '_' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry as Read};

    fn sample() -> Recorder {
        let mut recorder = Recorder::new();
        for ns in [1, 113, 58_000, 60_000, 1_000_000] {
            recorder.record(ns, 1);
        }
        recorder.record_group(1, 10, 10);
        recorder
    }

    #[test]
    fn a_histogram_survives_the_trip() {
        let recorder = sample();
        let text = encode(recorder.histogram()).unwrap();
        assert!(text.starts_with("HISTFAAA"), "the magic of V2 + deflate: {text}");
        assert_eq!(&decode(&text).unwrap(), recorder.histogram());
    }

    #[test]
    fn junk_is_an_error_not_a_panic() {
        assert!(decode("!!!").unwrap_err().contains("not base64"));
        assert!(decode("AAAA").unwrap_err().contains("cannot be read"));
        let short = STANDARD.encode([0x1c, 0x84, 0x93, 0x14, 0xff, 0xff, 0xff, 0xff]);
        assert!(decode(&short).unwrap_err().contains("not the length that it says"));
        let mut cut = encode(sample().histogram()).unwrap();
        cut.truncate(cut.len() / 8 * 4);
        assert!(decode(&cut).is_err());
    }

    /// [`encode`]'s form of these bytes.
    fn packed(plain: &[u8]) -> String {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(plain).unwrap();
        let zlib = zlib.finish().unwrap();
        let mut bytes = COMPRESSED.to_be_bytes().to_vec();
        bytes.extend((zlib.len() as u32).to_be_bytes());
        bytes.extend(zlib);
        STANDARD.encode(bytes)
    }

    #[test]
    fn few_bytes_that_say_they_are_many_are_refused() {
        let bomb = packed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        let limit = format!("it has more than {MOST_BYTES} bytes");
        assert!(decode(&bomb).unwrap_err().contains(&limit), "{:?}", decode(&bomb));
        // A head without counts, of so many digits.
        let of = |digits: u32| {
            let mut head = [0; HEAD];
            head[..4].copy_from_slice(&PLAIN.to_be_bytes());
            head[12..16].copy_from_slice(&digits.to_be_bytes());
            head[16..24].copy_from_slice(&1_u64.to_be_bytes());
            head[24..32].copy_from_slice(&(u64::MAX >> 1).to_be_bytes());
            head[32..].copy_from_slice(&1_f64.to_be_bytes());
            decode(&packed(&head))
        };
        assert!(of(MOST_DIGITS).unwrap().is_empty());
        assert!(of(MOST_DIGITS + 1).unwrap_err().contains("4 digits; the limit is 3"));
    }

    #[test]
    fn the_log_reads_back_with_the_reference_reader() {
        let recorder = sample();
        let entry = LogEntry {
            tag: "bulk.map, all",
            start: Duration::from_millis(1500),
            length: Duration::from_secs(2),
            hist: recorder.histogram(),
        };
        let mut log = Vec::new();
        let started = UNIX_EPOCH + Duration::from_millis(1_763_800_000_000);
        write_hlog(&mut log, started, &[entry]).unwrap();
        let text = String::from_utf8(log.clone()).unwrap();
        assert!(text.contains("#[StartTime: 1763800000.000 (seconds since epoch)]\n"), "{text}");
        assert!(text.contains("\nTag=bulk.map__all,1.500,2.000,1.000,HISTFAAA"), "{text}");

        let entries: Vec<Read<'_>> = IntervalLogIterator::new(&log).map(Result::unwrap).collect();
        let interval = entries
            .iter()
            .find_map(|entry| match entry {
                Read::Interval(interval) => Some(interval),
                _ => None,
            })
            .unwrap();
        let hist = decode(interval.encoded_histogram()).unwrap();
        assert_eq!(hist.len(), 6);
        // The sub-nanosecond mean became 1 ns beside the real one.
        assert_eq!(hist.count_at(1), 2);
        assert_eq!(hist.count_at(113), 1);
        assert!(hist.equivalent(hist.max(), 1_000_000));
    }

    #[test]
    fn a_full_device_is_reported() {
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let recorder = sample();
        let hist = recorder.histogram();
        let entry = LogEntry { tag: "x", start: Duration::ZERO, length: Duration::ZERO, hist };
        assert!(write_hlog(&mut full, UNIX_EPOCH, &[entry]).is_err());
    }
}
