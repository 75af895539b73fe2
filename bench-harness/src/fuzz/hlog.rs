// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Histograms as results have them: what is decoded can be encoded, and be put into a log.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::is_one_line;
use crate::hist_io::{COMPRESSED, LogEntry, decode, encode, write_hlog};

/// The text of a histogram, its bytes, or what is packed in them.
///
/// # Panics
/// If it was not read as it has to be.
pub fn hlog(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        histogram(text);
    }
    histogram(&STANDARD.encode(data));
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(data).expect("memory takes everything");
    let packed = packed.finish().expect("memory takes everything");
    let head = [COMPRESSED, packed.len() as u32].map(u32::to_be_bytes);
    histogram(&STANDARD.encode([&head.concat()[..], &packed].concat()));
}

fn histogram(text: &str) {
    let hist = match decode(text) {
        Ok(hist) => hist,
        Err(error) => return is_one_line(&error),
    };
    assert!(hist.min() <= hist.max() && hist.mean() >= 0.0, "{hist:?}");
    let again = encode(&hist).expect("what was decoded is encoded");
    assert_eq!(decode(&again).as_ref(), Ok(&hist));
    let (start, length) = (Duration::ZERO, Duration::from_secs(1));
    let entry = LogEntry { tag: "it", start, length, hist: &hist };
    let mut log = Vec::new();
    write_hlog(&mut log, UNIX_EPOCH, &[entry]).expect("memory takes everything");
    let log = String::from_utf8(log).expect("a log is text");
    let (_, data) = log.trim_end().rsplit_once(',').expect("the last line is the histogram");
    let in_ns = decode(data).expect("what a log has is decoded");
    assert_eq!(in_ns.len(), hist.len(), "every sample is in the log");
}
