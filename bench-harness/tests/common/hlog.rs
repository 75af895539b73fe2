// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A reader of HdrHistogram logs by the rules of the Java one: fields end at a space, a comma or the end of
//! the line, what begins with # is a comment but for the start time, and a payload is base64 of a zlib
//! stream of counts. It shares nothing with the crate that writes them.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine as _;

/// The magic numbers of version 2, with deflate around it and without.
const COMPRESSED: u32 = 0x1c84_9304 | 0x10;
const PLAIN: u32 = 0x1c84_9303 | 0x10;

/// An interval.
pub(crate) struct Interval {
    pub(crate) tag: String,
    /// Seconds since 1970.
    pub(crate) start: f64,
    pub(crate) length: f64,
    pub(crate) max: f64,
    pub(crate) counts: Counts,
}

/// Samples by the highest value that their bucket stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts(pub(crate) BTreeMap<u64, u64>);

impl Counts {
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// As `getValueAtPercentile`.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        let wanted = ((percent / 100.0 * self.total() as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let reaches = |(_, count): &(&u64, &u64)| {
            seen += **count;
            seen >= wanted
        };
        *self.0.iter().find(reaches).expect("samples").0
    }
}

pub(crate) fn read(log: &str) -> Vec<Interval> {
    let mut began = 0.0;
    let mut all: Vec<Interval> = Vec::new();
    for line in log.lines() {
        let mut fields = line.split([' ', ',', '\r']);
        let first = fields.next().expect("a field");
        if first.starts_with('#') {
            if first == "#[StartTime:" {
                began = number(fields.next());
            }
            continue;
        }
        if first.starts_with("\"StartTimestamp\"") {
            continue;
        }
        let tag = first.strip_prefix("Tag=").expect("our lines have tags").to_owned();
        let [start, length, max] = [(); 3].map(|()| number(fields.next()));
        let start = began + start;
        // Its reader stops at an interval that begins before the one that it asked for.
        assert!(all.last().is_none_or(|last| last.start <= start), "out of order: {line}");
        let payload = fields.next().expect("a payload");
        assert_eq!(fields.next(), None, "{line}");
        all.push(Interval { tag, start, length, max, counts: decoded(payload) });
    }
    all
}

fn number(field: Option<&str>) -> f64 {
    field.and_then(|f| f.parse().ok()).expect("a number")
}

fn decoded(payload: &str) -> Counts {
    let packed = base64::engine::general_purpose::STANDARD.decode(payload).expect("base64");
    let word = |bytes: &[u8], at: usize| {
        u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    };
    assert_eq!(word(&packed, 0), COMPRESSED);
    assert_eq!(word(&packed, 4) as usize, packed.len() - 8);
    let mut bytes = Vec::new();
    flate2::read::ZlibDecoder::new(&packed[8..]).read_to_end(&mut bytes).expect("a zlib stream");
    // Magic, length, offset, digits, lowest, highest, ratio; then the counts.
    assert_eq!((word(&bytes, 0), word(&bytes, 4) as usize), (PLAIN, bytes.len() - 40));
    assert_eq!(word(&bytes, 8), 0, "no normalising offset");
    let lowest = u64::from_be_bytes(bytes[16..24].try_into().expect("eight bytes"));
    assert_eq!(f64::from_bits(u64::from_be_bytes(bytes[32..40].try_into().unwrap())), 1.0);
    let layout = Layout::new(lowest, word(&bytes, 12));
    let mut counts = BTreeMap::new();
    let mut index = 0;
    let mut rest = &bytes[40..];
    while !rest.is_empty() {
        let count = zig_zag(&mut rest);
        if count < 0 {
            index += count.unsigned_abs();
        } else {
            if count > 0 {
                counts.insert(layout.highest(index), count.unsigned_abs());
            }
            index += 1;
        }
    }
    Counts(counts)
}

/// LEB128 of at most nine bytes, the last of which has all its bits; then the sign is the lowest bit.
fn zig_zag(bytes: &mut &[u8]) -> i64 {
    let mut value = 0u64;
    for nth in 0..9 {
        let (&byte, rest) = bytes.split_first().expect("a byte");
        *bytes = rest;
        let (bits, more) =
            if nth == 8 { (u64::from(byte), false) } else { (u64::from(byte & 127), byte > 127) };
        value |= bits << (7 * nth);
        if !more {
            break;
        }
    }
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Which values a bucket stands for.
struct Layout {
    unit: u32,
    /// log2 of half a bucket's parts.
    half: u32,
}

impl Layout {
    fn new(lowest: u64, digits: u32) -> Self {
        let parts = (2 * 10u64.pow(digits)).next_power_of_two();
        Self { unit: lowest.ilog2(), half: parts.ilog2() - 1 }
    }

    fn highest(&self, index: u64) -> u64 {
        let (bucket, part) = match index >> self.half {
            0 => (0, index),
            n => (n - 1, (index & ((1 << self.half) - 1)) + (1 << self.half)),
        };
        let shift = bucket as u32 + self.unit;
        ((part + 1) << shift) - 1
    }
}
