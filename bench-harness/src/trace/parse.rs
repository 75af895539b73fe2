// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One line of a trace: nine columns, one space between them.

use std::ops::Range;

use super::{Op, Record};

const COLUMNS: usize = 9;
const LAYOUT: &str = "t_ns op liobn ioba value npages ret cpu dur_ns";
const OPS: &str = "put, indirect, stuff, get, window-create, window-remove, window-reset, xlate";

/// The largest page shift that a 64-bit address can have a page of.
const MAX_PAGE_SHIFT: u64 = 63;
/// No IOMMU page is smaller than 4 KiB.
const MIN_PAGE_SHIFT: u64 = 12;

/// The raw columns of a line.
struct Columns<'a> {
    liobn: &'a str,
    ioba: &'a str,
    value: &'a str,
    npages: &'a str,
    ret: &'a str,
}

/// Parses a line that is no comment. The list of an `indirect` is appended to `pool`; the record's
/// `line` is left 0 for the caller.
pub(super) fn record(text: &str, pool: &mut Vec<u64>) -> Result<Record, String> {
    let mut fields = [""; COLUMNS];
    let mut count = 0;
    for field in text.split(' ') {
        if let Some(slot) = fields.get_mut(count) {
            *slot = field;
        }
        count += 1;
    }
    if text.is_empty() {
        return Err(format!("the line is empty; accepted: {COLUMNS} columns, {LAYOUT}"));
    }
    if count != COLUMNS {
        return Err(format!(
            "the line has {count} columns; accepted: {COLUMNS} with one space between, {LAYOUT}"
        ));
    }
    if let Some(empty) = fields.iter().position(|field| field.is_empty()) {
        return Err(format!("column {} is empty; accepted: one space between columns", empty + 1));
    }
    let [t_ns, op, liobn, ioba, value, npages, ret, cpu, dur_ns] = fields;
    let t_ns = decimal("t_ns", t_ns, u64::MAX)?;
    let cpu = optional("cpu", cpu, u64::from(u32::MAX))?.map(|cpu| cpu as u32);
    optional("dur_ns", dur_ns, u64::MAX)?;
    let columns = Columns { liobn, ioba, value, npages, ret };
    let op = match op {
        "put" => columns.put()?,
        "indirect" => columns.indirect(pool)?,
        "stuff" => columns.stuff()?,
        "get" => columns.get()?,
        "window-create" => columns.window_create(t_ns == 0 && cpu.is_none())?,
        "window-remove" => {
            let (liobn, ret) = columns.window_end()?;
            Op::WindowRemove { liobn, ret }
        }
        "window-reset" => {
            let (liobn, ret) = columns.window_end()?;
            Op::WindowReset { liobn, ret }
        }
        "xlate" => columns.xlate()?,
        other => return Err(format!("unknown op '{}'; accepted: {OPS}", clip(other))),
    };
    Ok(Record { line: 0, t_ns, cpu, op })
}

impl Columns<'_> {
    fn put(&self) -> Result<Op, String> {
        self.one_page("put")?;
        Ok(Op::Put {
            liobn: self.liobn()?,
            ioba: self.ioba()?,
            tce: hex("value", self.value)?,
            ret: self.ret()?,
        })
    }

    fn get(&self) -> Result<Op, String> {
        self.one_page("get")?;
        Ok(Op::Get {
            liobn: self.liobn()?,
            ioba: self.ioba()?,
            value: hex("value", self.value)?,
            ret: self.ret()?,
        })
    }

    fn stuff(&self) -> Result<Op, String> {
        Ok(Op::Stuff {
            liobn: self.liobn()?,
            ioba: self.ioba()?,
            value: hex("value", self.value)?,
            npages: decimal("npages", self.npages, u64::MAX)?,
            ret: self.ret()?,
        })
    }

    fn indirect(&self, pool: &mut Vec<u64>) -> Result<Op, String> {
        let (liobn, ioba, ret) = (self.liobn()?, self.ioba()?, self.ret()?);
        let npages = decimal("npages", self.npages, u64::MAX)?;
        let list = list(self.value, pool)?;
        let entries = u64::from(list.end - list.start);
        if entries != npages {
            return Err(format!(
                "the list has {entries} entries but npages is {npages}; accepted: equal numbers"
            ));
        }
        Ok(Op::Indirect { liobn, ioba, list, ret })
    }

    fn window_create(&self, power_on: bool) -> Result<Op, String> {
        let ret = self.ret()?;
        let (liobn, ioba) = if ret == 0 {
            (Some(self.liobn()?), Some(self.ioba()?))
        } else if self.liobn == "-" && self.ioba == "-" {
            (None, None)
        } else {
            return Err(format!(
                "window-create failed with {ret} but has liobn '{}' and ioba '{}'; accepted: '-' \
                 for both",
                clip(self.liobn),
                clip(self.ioba)
            ));
        };
        let page_shift = decimal("value (page shift)", self.value, MAX_PAGE_SHIFT)?;
        // A guest may ask for nonsense and be refused; it cannot be given a nonsense window.
        if ret == 0 && page_shift < MIN_PAGE_SHIFT {
            return Err(format!(
                "value (page shift) {page_shift} of a window that was created; accepted: \
                 {MIN_PAGE_SHIFT} to {MAX_PAGE_SHIFT}"
            ));
        }
        let entries = decimal("npages", self.npages, u64::MAX)?;
        if ret == 0 && entries == 0 {
            return Err("npages 0 of a window that was created; accepted: 1 or more".to_string());
        }
        Ok(Op::WindowCreate { liobn, ioba, page_shift: page_shift as u8, entries, ret, power_on })
    }

    /// window-remove and window-reset: the LIOBN and the status; the rest may be given or `-`.
    fn window_end(&self) -> Result<(u32, i64), String> {
        if self.ioba != "-" {
            self.ioba()?;
        }
        for (name, field) in [("value", self.value), ("npages", self.npages)] {
            if field.starts_with("0x") {
                hex(name, field)?;
            } else {
                optional(name, field, u64::MAX)?;
            }
        }
        Ok((self.liobn()?, self.ret()?))
    }

    fn xlate(&self) -> Result<Op, String> {
        self.one_page("xlate")?;
        let ret = self.ret()?;
        if ret != 0 {
            return Err(format!("ret {ret} of an xlate; accepted: 0 (translations that worked)"));
        }
        Ok(Op::Xlate { liobn: self.liobn()?, ioba: self.ioba()?, value: hex("value", self.value)? })
    }

    fn one_page(&self, op: &str) -> Result<(), String> {
        if self.npages == "1" {
            return Ok(());
        }
        Err(format!("npages '{}' of a {op}; accepted: 1", clip(self.npages)))
    }

    fn liobn(&self) -> Result<u32, String> {
        let liobn = hex("liobn", self.liobn)?;
        u32::try_from(liobn)
            .map_err(|_| format!("liobn {liobn:#x} is too large; the limit is {:#x}", u32::MAX))
    }

    fn ioba(&self) -> Result<u64, String> {
        hex("ioba", self.ioba)
    }

    fn ret(&self) -> Result<i64, String> {
        let digits = self.ret.strip_prefix('-').unwrap_or(self.ret);
        let negative = digits.len() < self.ret.len();
        let limit = if negative { i64::MIN.unsigned_abs() } else { i64::MAX as u64 };
        let number = decimal("ret", digits, limit)
            .map_err(|_| wrong("ret", self.ret, "a decimal return code, as 0 or -4"))?;
        Ok(if negative { 0_i64.wrapping_sub_unsigned(number) } else { number as i64 })
    }
}

/// A comma-separated list of hex numbers without 0x, or `-` for none, appended to the pool.
fn list(text: &str, pool: &mut Vec<u64>) -> Result<Range<u32>, String> {
    let index = |length: usize| {
        u32::try_from(length).map_err(|_| {
            format!("the lists of this trace are above the limit of {} TCEs", u32::MAX)
        })
    };
    let start = index(pool.len())?;
    if text != "-" {
        for (place, entry) in text.as_bytes().split(|&byte| byte == b',').enumerate() {
            let Some(tce) = hex_digits(entry) else {
                return Err(format!(
                    "entry {place} of the list is '{}'; accepted: 1 to 16 hex digits without 0x, \
                     one comma between",
                    clip(&String::from_utf8_lossy(entry))
                ));
            };
            pool.push(tce);
        }
    }
    Ok(start..index(pool.len())?)
}

/// A decimal number up to `limit`; no sign, no leading zero but for "0".
fn decimal(name: &str, text: &str, limit: u64) -> Result<u64, String> {
    let plain =
        text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if !plain || text.is_empty() {
        return Err(wrong(name, text, "a decimal number"));
    }
    text.parse::<u64>()
        .ok()
        .filter(|&number| number <= limit)
        .ok_or_else(|| format!("{name} {} is too large; the limit is {limit}", clip(text)))
}

/// A decimal number, or `-` for not known.
fn optional(name: &str, text: &str, limit: u64) -> Result<Option<u64>, String> {
    if text == "-" {
        return Ok(None);
    }
    decimal(name, text, limit).map(Some)
}

/// A hex number with 0x.
fn hex(name: &str, text: &str) -> Result<u64, String> {
    text.strip_prefix("0x")
        .and_then(|digits| hex_digits(digits.as_bytes()))
        .ok_or_else(|| wrong(name, text, "0x and 1 to 16 hex digits"))
}

/// The value of each hex digit by its byte; anything above 15 is none. A table, as the recorded
/// traces have 80 million digits.
const DIGITS: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value];
        table[digit as usize] = value as u8;
        table[digit.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    table
};

/// 1 to 16 hex digits; `from_str_radix` would also take a sign.
fn hex_digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    let mut number = 0;
    let mut seen = 0;
    for &byte in text {
        let digit = DIGITS[usize::from(byte)];
        seen |= digit;
        number = number << 4 | u64::from(digit);
    }
    (seen < 16).then_some(number)
}

fn wrong(name: &str, text: &str, accepted: &str) -> String {
    format!("{name} '{}' is wrong; accepted: {accepted}", clip(text))
}

/// A text for an error message: one short printable line whatever the file holds.
pub(crate) fn clip(text: &str) -> String {
    const LIMIT: usize = 40;
    let mut shown: String = text.chars().take(LIMIT).flat_map(char::escape_default).collect();
    if text.chars().nth(LIMIT).is_some() {
        shown.push('…');
    }
    shown
}
