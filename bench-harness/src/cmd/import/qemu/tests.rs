// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::path::Path;

use super::capture::{
    H_GET_TCE, H_PUT_TCE, H_PUT_TCE_INDIRECT, H_RTAS, H_STUFF_TCE, Head, KIND_CALL, KIND_END,
    KIND_RTAS, MAGIC, NO_ANSWER, NO_MEMORY, ORDER_MARK, Reader, Record, VERSION,
};
use super::*;
use crate::cli::{ImportFormat, PowerOn};
use crate::outfile::OutFile;
use crate::trace::TraceError;

const WINDOW: &str = "window=0x80000000:0:12:1024\n";
/// What a failure of any hypercall looks like.
const H_PARAMETER: i64 = -4;
const CREATE: u32 = 0x2027;
/// Status -3.
const FAILED: u32 = u32::MAX - 2;
/// QEMU's first PHB, in words.
const BUID: [u32; 2] = [0x0800_0000, 0x2000_0000];

/// Writes what the plugin writes.
struct Writer {
    bytes: Vec<u8>,
    calls: u64,
}

impl Writer {
    fn new(text: &str) -> Self {
        let whole = (40 + text.len()).next_multiple_of(8);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(ORDER_MARK.to_le_bytes());
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend((whole as u32).to_le_bytes());
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(1_800_000_000_000_000_000_u64.to_le_bytes());
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(text.bytes());
        bytes.resize(whole, 0);
        Self { bytes, calls: 0 }
    }

    fn record(&mut self, record: &Record) -> &mut Self {
        let mut numbers: Vec<u8> = record.list.iter().flat_map(|n| n.to_le_bytes()).collect();
        let (mut kind, mut count) = (KIND_CALL, record.list.len());
        if record.nr == H_RTAS {
            numbers = record.words.iter().flat_map(|n| n.to_le_bytes()).collect();
            (kind, count) = (KIND_RTAS, record.words.len());
        }
        numbers.resize(numbers.len().next_multiple_of(8), 0);
        self.bytes.extend((96 + numbers.len() as u32).to_le_bytes());
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(record.flags.to_le_bytes());
        for number in [record.seq, record.t_ns, record.dur_ns] {
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.extend(record.vcpu.to_le_bytes());
        self.bytes.extend((count as u32).to_le_bytes());
        let [a, b, c, d] = record.args;
        for number in [record.nr, a, b, c, d, record.ret.cast_unsigned(), record.value] {
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.extend(numbers);
        self.calls += 1;
        self
    }

    fn end(&mut self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.extend(48_u32.to_le_bytes());
        bytes.extend(KIND_END.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(self.calls.to_le_bytes());
        bytes.extend([0; 32]);
        bytes
    }
}

fn call(seq: u64, nr: u64, args: [u64; 4]) -> Record {
    let (t_ns, dur_ns, vcpu) = (1000 + 10 * seq, 3, (seq % 4) as u32);
    Record { seq, t_ns, dur_ns, vcpu, nr, args, ..Record::default() }
}

fn put(seq: u64, ioba: u64, tce: u64) -> Record {
    call(seq, H_PUT_TCE, [0x8000_0000, ioba, tce, 0])
}

fn rtas(seq: u64, token: u32, inputs: &[u32], answers: &[u32]) -> Record {
    let mut words = vec![token, inputs.len() as u32, answers.len() as u32];
    words.extend(inputs);
    words.extend(answers);
    Record { words, ..call(seq, H_RTAS, [0x1000, 0, 0, 0]) }
}

/// All calls of a capture, and where it was cut.
fn read(bytes: &[u8]) -> Result<(Vec<Record>, Option<u64>, u64), String> {
    let told = |error: TraceError| error.to_string();
    let mut reader = Reader::new("it", bytes).map_err(told)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next().map_err(told)? {
        records.push(record);
    }
    Ok((records, reader.cut(), reader.missing()))
}

/// The lines of the trace without its first two, and what was said.
fn converted(capture: &[u8], power_on: &[PowerOn]) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let dir = tempfile::tempdir()?;
    let (input, output) = (dir.path().join("guest.tcecap"), dir.path().join("out.tce"));
    std::fs::write(&input, capture)?;
    let config = ImportConfig {
        from: ImportFormat::Qemu,
        input,
        out: OutFile::File(output.clone()),
        page_shift: 12,
        window: None,
        power_on: power_on.to_vec(),
        quiet: true,
    };
    import(&config)?;
    let text = std::fs::read_to_string(&output)?;
    // What is written can be read, and is checked by a replay in the tests of the command line.
    crate::trace::TraceFile::load(Path::new(&output))?;
    assert!(text.starts_with("# tce-trace 1\n# name guest\n# recorded by QEMU "), "{text}");
    let lines = text.lines().skip(2).map(str::to_owned);
    let (said, lines): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("# import: "));
    Ok((lines, said))
}

#[test]
fn what_is_written_is_read() {
    let records = [
        put(0, 0x1000, 0x5003),
        Record { value: 7, ret: -1, ..call(1, H_GET_TCE, [u64::MAX, 2, 3, 4]) },
        Record { list: vec![1, 2, 3], ..call(2, H_PUT_TCE_INDIRECT, [1, 2, 3, 3]) },
        rtas(3, CREATE, &[0, BUID[0], BUID[1], 16, 31], &[0, 0x8000_0001, 0x0800_0000, 0]),
        Record { flags: NO_ANSWER | NO_MEMORY, ..call(4, H_PUT_TCE_INDIRECT, [1, 2, 3, 512]) },
        Record { list: (0..512).collect(), ..call(5, H_PUT_TCE_INDIRECT, [1, 2, 3, 512]) },
        call(6, H_STUFF_TCE, [1, 2, 0, 512]),
    ];
    let mut writer = Writer::new("qemu=10.0.2\nram=4096\nwindow=1:0:12:2\nlater=more\n");
    for record in &records {
        writer.record(record);
    }
    let bytes = writer.end();
    assert_eq!(read(&bytes).unwrap(), (records.to_vec(), None, 0));
    let packed = zstd::encode_all(bytes.as_slice(), 3).unwrap();
    assert_eq!(read(&packed).unwrap(), (records.to_vec(), None, 0));
    let reader = Reader::new("it", bytes.as_slice()).unwrap();
    let windows = vec![PowerOn { liobn: 1, start: 0, page_shift: 12, pages: 2 }];
    let head = Head { vcpus: 4, qemu: Some("10.0.2".into()), ram: Some(4096), windows };
    assert_eq!(reader.head(), &head);
}

/// The bytes of one call and the end, as the page of the format has them.
#[test]
fn the_bytes_of_a_capture_are_these() {
    #[rustfmt::skip]
    let bytes: &[u8] = &[
        0x89, b'T', b'C', b'E', b'C', b'A', b'P', b'\n', 0x0d, 0x0c, 0x0b, 0x0a, 1, 0, 0, 0,
        48, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        b'r', b'a', b'm', b'=', b'5', b'\n', 0, 0,
        104, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 1, 0, 0, 0, 0x3c, 1, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 6, 0, 0, 0, 0, 0, 0, 0,
        3, 0x40, 0, 0, 0, 0, 0, 0,
        48, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let record = Record {
        seq: 0,
        t_ns: 9,
        dur_ns: 2,
        vcpu: 1,
        flags: 0,
        nr: H_PUT_TCE_INDIRECT,
        args: [0x8000_0000, 0x1000, 0x2000, 1],
        ret: H_PARAMETER,
        value: 6,
        list: vec![0x4003],
        words: Vec::new(),
    };
    assert_eq!(read(bytes).unwrap(), (vec![record.clone()], None, 0));
    let mut writer = Writer::new("ram=5\n");
    let own = writer.record(&record).end();
    // All but the time of day, the number of vCPUs and the end's other numbers.
    assert_eq!(own[48..48 + 104], bytes[48..48 + 104]);
    assert_eq!((&own[..24], own.len()), (&bytes[..24], bytes.len()));
}

#[test]
fn calls_are_in_the_order_in_which_they_were_begun() {
    let mut writer = Writer::new(WINDOW);
    for seq in [2, 0, 3, 1, 6, 5, 4, 7] {
        writer.record(&put(seq, 0, seq));
    }
    let (records, ..) = read(&writer.end()).unwrap();
    let order: Vec<_> = records.iter().map(|record| record.seq).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7]);
    // Cut off, the first is taken all the same, if those before it never came.
    let (records, cut, missing) = read(&writer.bytes[..48 + 24 + 3 * 96 + 50]).unwrap();
    let order: Vec<_> = records.iter().map(|record| record.seq).collect();
    assert_eq!((order.as_slice(), missing), ([0, 2, 3].as_slice(), 1));
    assert_eq!(cut, Some(72 + 3 * 96));
}

#[test]
fn a_capture_that_was_cut_off_has_what_is_whole() {
    let mut writer = Writer::new(WINDOW);
    let head = writer.bytes.len();
    let records = [put(0, 0, 3), put(1, 0x1000, 3), put(2, 0x2000, 3)];
    for record in &records {
        writer.record(record);
    }
    let bytes = writer.end();
    for length in head..bytes.len() {
        let whole = (length - head) / 96;
        let (found, cut, missing) = read(&bytes[..length]).unwrap();
        assert_eq!(found, records[..whole.min(3)], "{length} bytes");
        assert_eq!((cut, missing), (Some((head + 96 * whole.min(3)) as u64), 0));
    }
    for length in 0..head {
        let error = read(&bytes[..length]).unwrap_err();
        assert!(error.starts_with("it: at byte 0: "), "{length} bytes: {error}");
    }
    let (lines, said) = converted(&bytes[..head + 200], &[]).unwrap();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert_eq!(
        said[1],
        "# import: the recording was cut off at byte 264; what is whole before that is taken"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let mut writer = Writer::new(WINDOW);
    let good = writer.record(&put(0, 0, 3)).record(&put(1, 0, 0)).end();
    let first = 72;
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        read(&bytes).unwrap_err()
    };
    for (at, with, part) in [
        (0, b"# tce-tr".as_slice(), "at byte 0: it begins with '# tce-tr'; accepted: a capture"),
        (
            8,
            &[0x0a, 0x0b, 0x0c, 0x0d],
            "mark of the byte order is 0x0d0c0b0a; accepted: 0x0a0b0c0d",
        ),
        (12, &[2], "its version is 2; accepted: 1"),
        (16, &[80], "the head has 80 bytes and a text of 28"),
        (20, &[0xff, 0xff, 0xff, 0xff], "a text of 4294967295; accepted: a text of up to 16384"),
        (40, b"window=1:", "the window '1:80000000:0:12:1024' is wrong: it has more than four"),
        (42, &[0xff], "not UTF-8"),
        (first + 4, &[9], "at byte 72: a record of the kind 9; accepted: 1, 2, 3"),
        (first, &[0xff, 0xff, 0xff, 0x7f], "of 2147483647 bytes; accepted: 96 to 4192"),
        (first, &[88], "of 88 bytes; accepted: 96"),
        (first, &[97], "of 97 bytes"),
        (first + 4, &[3], "a record of the kind 3 of 96 bytes; accepted: 48 to 48"),
        (first + 6, &[4], "flags 0x4; accepted: 0 to 3"),
        (first + 36, &[1], "says it has 1 numbers of 8 bytes"),
        (first + 36, &[0xff, 0xff, 0xff, 0xff], "says it has 4294967295 numbers"),
        (first + 32, &[4], "a call of vCPU 4; accepted: below 4"),
        (first + 40, &[0x24], "hypercall 0x24 in a record of the kind 1"),
        (first + 4, &[2], "hypercall 0x20 in a record of the kind 2"),
        (first + 8, &[1], "at byte 168: call 1 is there twice"),
        (first + 104, &[0], "at byte 168: call 0 is there twice"),
        (first + 104, &[5], "call 1 is not there"),
        (
            first + 112,
            &[1, 0],
            "call 1 has the time 1 ns; accepted: that of the call before it, 1000",
        ),
        (first + 192 + 8, &[3], "the end tells of 3 calls, but there are 2"),
    ] {
        let error = changed(at, with);
        assert!(error.starts_with("it: at byte ") && error.contains(part), "{part}: {error}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(read(&longer).unwrap_err().contains("something stands behind the end record"));
    let packed = zstd::encode_all(good.as_slice(), 3).unwrap();
    let error = read(&packed[..packed.len() - 5]).unwrap_err();
    assert!(error.contains("cannot be read"), "{error}");
}

/// Whatever a file holds, it is read or refused, and little memory is taken.
#[test]
fn no_byte_is_trusted() {
    let mut writer = Writer::new(WINDOW);
    writer.record(&Record { list: vec![3; 4], ..call(0, H_PUT_TCE_INDIRECT, [1, 0, 0, 4]) });
    let good = writer.record(&rtas(1, CREATE, &[0, 1, 2, 16, 31], &[0, 1, 0, 0])).end();
    for at in 0..good.len() {
        for with in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = with;
            if let Ok((records, ..)) = read(&bytes) {
                assert!(records.len() <= 2, "byte {at} as {with}");
                let _ = scan(Reader::new("it", bytes.as_slice()).unwrap(), &[]);
            }
        }
    }
}

#[test]
fn waiting_calls_have_a_limit() {
    let mut writer = Writer::new(WINDOW);
    let list: Vec<u64> = vec![3; 512];
    for seq in 1..=17_000 {
        let args = [0x8000_0000, 0, 0, 512];
        writer.record(&Record { list: list.clone(), ..call(seq, H_PUT_TCE_INDIRECT, args) });
    }
    let error = read(&writer.end()).unwrap_err();
    assert!(error.contains("call 0 is not there while those after it take more"), "{error}");
}

#[test]
fn calls_become_lines() {
    let mut writer =
        Writer::new(&format!("qemu=10.0.2\nram=2147483648\n{WINDOW}window=0x80000100:0:12:4\n"));
    writer
        .record(&put(0, 0x1000, 0x5003))
        .record(&Record {
            list: vec![0x6001, 0x7003],
            ..call(1, H_PUT_TCE_INDIRECT, [0x8000_0000, 0x2000, 0x9000, 2])
        })
        .record(&Record { value: 0x5003, ..call(2, H_GET_TCE, [0x8000_0000, 0x1000, 0, 0]) })
        .record(&Record { value: 99, ret: H_PARAMETER, ..call(3, H_GET_TCE, [7, 0x1000, 0, 0]) })
        .record(&call(4, H_STUFF_TCE, [0x8000_0000, 0x1000, 0, 3]))
        .record(&Record { flags: NO_ANSWER, ..put(5, 0x8000, 3) })
        .record(&Record {
            ret: H_PARAMETER,
            ..call(6, H_PUT_TCE_INDIRECT, [0x8000_0000, 0, 0, 513])
        })
        .record(&Record { flags: NO_MEMORY, ..call(7, H_PUT_TCE_INDIRECT, [0x8000_0000, 0, 0, 2]) })
        .record(&Record { ret: H_PARAMETER, ..call(8, H_PUT_TCE, [1 << 40, 0, 0, 2]) })
        .record(&Record { flags: NO_MEMORY, ..rtas(9, 0, &[], &[]) });
    let (lines, said) = converted(&writer.end(), &[]).unwrap();
    // Nothing was done on the second PHB.
    assert_eq!(
        lines,
        [
            "# recorded by QEMU 10.0.2, up to 4 vCPU(s), guest RAM 2 GiB",
            "# columns: t_ns op liobn ioba value npages ret cpu dur_ns",
            "0 window-create 0x80000000 0x0 12 1024 0 - -",
            "0 put 0x80000000 0x1000 0x5003 1 0 0 3",
            "10 indirect 0x80000000 0x2000 6001,7003 2 0 1 3",
            "20 get 0x80000000 0x1000 0x5003 1 0 2 3",
            "30 get 0x7 0x1000 0x0 1 -4 3 3",
            "40 stuff 0x80000000 0x1000 0x0 3 0 0 3",
        ]
    );
    let parts = [
        "5 call(s) and 0 for windows, of which 1 failed",
        "1 call(s) had no answer",
        "1 H_PUT_TCE_INDIRECT that succeeded left out",
        "1 H_PUT_TCE_INDIRECT that failed left out",
        "1 call(s) with a LIOBN of more than 32 bits",
        "1 RTAS call(s) left out",
    ];
    assert_eq!(said.len(), parts.len(), "{said:#?}");
    for (line, part) in said.iter().zip(parts) {
        assert!(line.starts_with(&format!("# import: {part}")), "{part}: {line}");
    }
}

#[test]
fn window_calls_become_lines() {
    let [high, low] = BUID;
    let mut writer = Writer::new(WINDOW);
    writer
        .record(&put(0, 0, 3))
        .record(&rtas(1, 0x2026, &[0, high, low], &[0, 1, 0x8000, 0x107]))
        .record(&rtas(2, CREATE, &[0, high, low, 16, 31], &[0, 0x8000_0001, 0x0800_0000, 0]))
        .record(&call(3, H_STUFF_TCE, [0x8000_0001, 0x0800_0000_0000_0000, 0, 512]))
        .record(&rtas(4, CREATE, &[0, high, low, 24, 0], &[FAILED, 0, 0, 0]))
        .record(&rtas(5, 0x2028, &[0x8000_0001], &[0]))
        .record(&rtas(6, 0x2029, &[0, high, low], &[0]))
        .record(&rtas(7, 0x2029, &[0, 0, 1], &[0]))
        .record(&rtas(8, CREATE, &[0, high, low], &[0]))
        .record(&rtas(9, CREATE, &[0, high, low, 16, 99], &[0, 1, 0, 0]));
    let (lines, said) = converted(&writer.end(), &[]).unwrap();
    assert_eq!(
        lines[2..],
        [
            "0 window-create 0x80000000 0x0 12 1024 0 - -",
            "0 put 0x80000000 0x0 0x3 1 0 0 3",
            "# 10 window-query buid=0x800000020000000 status=0 out=0x1,0x8000,0x107 cpu=1",
            "20 window-create 0x80000001 0x800000000000000 16 32768 0 2 3",
            "30 stuff 0x80000001 0x800000000000000 0x0 512 0 3 3",
            "40 window-create - - 24 0 -3 0 3",
            "50 window-remove 0x80000001 - - - 0 1 3",
            "60 window-reset 0x80000000 - - - 0 2 3",
            "# 70 rtas 0x2029 0x3 0x1 0x0 0x0 0x1 0x0",
            "# 80 rtas 0x2027 0x3 0x1 0x0 0x8000000 0x20000000 0x0",
            "# 90 rtas 0x2027 0x5 0x4 0x0 0x8000000 0x20000000 0x10 0x63 0x0 0x1 0x0 0x0",
        ]
    );
    assert_eq!(said[0], "# import: 2 call(s) and 4 for windows, of which 1 failed");
    assert!(said[1].starts_with("# import: 3 call(s) for windows left as comments"), "{said:#?}");
}

#[test]
fn a_failed_creation_on_one_of_several_phbs_is_a_comment() {
    let [high, low] = BUID;
    let mut writer = Writer::new(&format!("{WINDOW}window=0x80000100:0:12:4\n"));
    writer.record(&put(0, 0, 3)).record(&call(1, H_PUT_TCE, [0x8000_0100, 0, 3, 0]));
    writer.record(&rtas(2, CREATE, &[0, high, low, 24, 0], &[FAILED, 0, 0, 0]));
    let (lines, _) = converted(&writer.end(), &[]).unwrap();
    assert_eq!(lines[6], "# 20 window-create buid=0x800000020000000 page_shift=24 status=-3");
}

#[test]
fn windows_of_power_on_are_told_or_found() {
    let mut writer = Writer::new("window=0x71000002:0:12:4\nwindow=0x71000003:0:12:4\n");
    writer
        .record(&call(0, H_STUFF_TCE, [0x8000_0000, 0, 0, 512]))
        .record(&call(1, H_STUFF_TCE, [0x8000_0000, 512 << 12, 0, 512]))
        .record(&put(2, 0x5000, 3))
        // What failed says nothing of the window.
        .record(&Record { ret: H_PARAMETER, ..put(3, 1 << 40, 3) })
        .record(&call(4, H_PUT_TCE, [0x7100_0003, 0, 3, 0]));
    let bytes = writer.end();
    let (lines, said) = converted(&bytes, &[]).unwrap();
    assert_eq!(lines[2], "0 window-create 0x71000003 0x0 12 4 0 - -");
    assert_eq!(lines[3], "0 window-create 0x80000000 0x0 12 1024 0 - -");
    assert!(said[1].contains("the window of LIOBN 0x80000000: taken to be 0x80000000:0x0:12:1024"));
    let given = PowerOn::parse("0x80000000:0:16:64").unwrap();
    let (lines, said) = converted(&bytes, &[given]).unwrap();
    assert_eq!(lines[3], "0 window-create 0x80000000 0x0 16 64 0 - -");
    assert_eq!(said.len(), 1);
    // Beyond all addresses.
    let mut writer = Writer::new("");
    let bytes = writer.record(&call(0, H_STUFF_TCE, [1, 0x1000, 0, 1 << 52])).end();
    let error = converted(&bytes, &[]).unwrap_err().to_string();
    assert!(error.contains("reaches 4503599627370496 pages, beyond 2^64"), "{error}");
    let mut writer = Writer::new("");
    writer.record(&put(0, 0, 3)).record(&put(1, u64::MAX - 4095, 3));
    let error = converted(&writer.end(), &[]).unwrap_err().to_string();
    assert!(error.contains("0x80000000 reach from 0x0 to 0xfffffffffffff000; accepted"), "{error}");
    assert!(
        converted(&Writer::new("").end(), &[]).unwrap_err().to_string().ends_with("has no call")
    );
}
