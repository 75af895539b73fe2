// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes and times as a user types and reads them. Sizes are always binary: a DMA window of
//! 2·10⁹ bytes is not a power of two, so "2G" can only mean 2 GiB here.

use std::str::FromStr;
use std::time::Duration;

/// Binary unit letters, smallest first: K = 2^10, M = 2^20, …
const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];

/// The longest time an option accepts.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

const SIZE_FORMS: &str = "a whole number of bytes with an optional binary unit K, M, G, T or P \
                          (64K, 2M, 2G, 2GiB), or hex (0x80000000)";

/// Parses a size in bytes: `4096`, `64K`, `2GiB`, `2GB` (also 2 GiB) or `0x80000000`.
///
/// # Errors
/// One line that names the text and the accepted forms: empty, fraction, unknown unit, or more
/// than 64 bits.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(format!("a size is empty; accepted: {SIZE_FORMS}"));
    }
    let too_big = || format!("'{text}' does not fit in 64 bits; the limit is {} bytes", u64::MAX);
    if let Some(hex) = trimmed.strip_prefix("0x").or_else(|| trimmed.strip_prefix("0X")) {
        // from_str_radix would accept a sign, so the digits are checked first.
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("'{text}' is not a hex size; accepted: {SIZE_FORMS}"));
        }
        return u64::from_str_radix(hex, 16).map_err(|_| too_big());
    }
    let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(split);
    if unit.starts_with(['.', ',']) {
        return Err(format!("'{text}' is not a whole number; accepted: {SIZE_FORMS}"));
    }
    if digits.is_empty() {
        return Err(format!("'{text}' is not a size; accepted: {SIZE_FORMS}"));
    }
    let shift = unit_shift(unit.trim())
        .ok_or_else(|| format!("'{text}' has an unknown unit '{unit}'; accepted: {SIZE_FORMS}"))?;
    let number: u64 = digits.parse().map_err(|_| too_big())?;
    number.checked_mul(1 << shift).ok_or_else(too_big)
}

/// A whole number in decimal digits and nothing else; `parse` alone would accept a sign.
pub(crate) fn whole<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(feature = "program")]
/// A number in hex digits behind `0x`.
pub(crate) fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    u64::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The power of two of a unit suffix: "" or "B" is 0, "K", "KB" and "KiB" are 10, and so on.
fn unit_shift(unit: &str) -> Option<u32> {
    let upper = unit.to_ascii_uppercase();
    let mut chars = upper.chars();
    let Some(first) = chars.next() else { return Some(0) };
    let rest = chars.as_str();
    if first == 'B' {
        return rest.is_empty().then_some(0);
    }
    let index = UNITS.iter().position(|&u| u == first)?;
    matches!(rest, "" | "B" | "IB").then_some(10 * (index as u32 + 1))
}

/// Bytes for people: `2 GiB`, `8.1 MiB`, `64 KiB`, `512 B`; one decimal unless exact.
pub fn format_size(bytes: u64) -> String {
    let mut shift = 0;
    let mut unit = "B".to_string();
    for (index, letter) in UNITS.iter().enumerate() {
        if bytes >> (10 * (index + 1)) == 0 {
            break;
        }
        shift = 10 * (index + 1);
        unit = format!("{letter}iB");
    }
    let scale = 1u64 << shift;
    if bytes.is_multiple_of(scale) {
        return format!("{} {unit}", bytes >> shift);
    }
    // Rounding in integers; 1023.96 KiB becomes "1024.0 KiB", which is still true.
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    if tenths.is_multiple_of(10) {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// Bytes as one would type them: `2G`, `64K`, and plain decimal where no unit is exact.
pub fn format_arg(bytes: u64) -> String {
    for (index, letter) in UNITS.iter().enumerate().rev() {
        let scale = 1u64 << (10 * (index + 1));
        if bytes != 0 && bytes.is_multiple_of(scale) {
            return format!("{}{letter}", bytes / scale);
        }
    }
    bytes.to_string()
}

/// Parses a time with a unit: `500ns`, `10us`, `250ms`, `1.5s`, `2m`, `1h`.
///
/// # Errors
/// One line that names the text and the accepted forms: no or unknown unit, not a number, or
/// longer than [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const FORMS: &str = "a number with a unit ns, us, ms, s, m or h (500ms, 1.5s, 2m), at most 24h";
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(|| format!("'{text}' has no time unit; accepted: {FORMS}"))?;
    let (number, unit) = trimmed.split_at(split);
    let scale = match unit.trim() {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{text}' is not a time; accepted: {FORMS}")),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("'{text}' is not a time; accepted: {FORMS}"))?;
    Duration::try_from_secs_f64(number * scale)
        .ok()
        .filter(|&time| time <= MAX_DURATION)
        .ok_or_else(|| format!("'{text}' is too long; accepted: {FORMS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_whatever_the_suffix() {
        for text in
            ["2G", "2g", "2GiB", "2gib", "2GB", "2 GiB", "0x80000000", "2147483648", "2048M"]
        {
            assert_eq!(parse_size(text), Ok(1 << 31), "{text}");
        }
        assert_eq!(parse_size("4096B"), Ok(4096));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size("3T"), Ok(3 << 40));
        assert_eq!(parse_size("1P"), Ok(1 << 50));
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("0xffffffffffffffff"), Ok(u64::MAX));
    }

    #[test]
    fn a_fraction_is_refused_with_the_accepted_forms() {
        let error = parse_size("2.5G").unwrap_err();
        assert!(error.starts_with("'2.5G' is not a whole number; accepted:"), "{error}");
        assert!(error.contains("2GiB") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn overflow_is_found_in_each_form() {
        for text in ["16384P", "18446744073709551616", "0x10000000000000000", "99999999999999999T"]
        {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains("64 bits"), "{text}: {error}");
        }
        assert_eq!(parse_size("16383P"), Ok(16383 << 50));
    }

    #[test]
    fn junk_is_refused() {
        for text in
            ["", "  ", "G", "-1", "+1", "2X", "2GG", "2iB", "0x", "0x-1", "2Bi", "12 34", "2Kb/s"]
        {
            assert!(parse_size(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn sizes_print_short() {
        assert_eq!(format_size(1 << 31), "2 GiB");
        assert_eq!(format_size(65536), "64 KiB");
        assert_eq!(format_size(0), "0 B");
        assert_eq!(format_size(1023), "1023 B");
        assert_eq!(format_size(8_500_000), "8.1 MiB");
        assert_eq!(format_size((1 << 31) + 1), "2 GiB");
        assert_eq!(format_size(u64::MAX), "16384 PiB");
    }

    #[test]
    fn typed_sizes_parse_back() {
        for bytes in [0, 1, 4095, 4096, 3 << 30, 1 << 50, u64::MAX] {
            assert_eq!(parse_size(&format_arg(bytes)), Ok(bytes));
        }
        assert_eq!(format_arg(2 << 30), "2G");
        assert_eq!(format_arg(1 << 20), "1M");
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("10us"), Ok(Duration::from_micros(10)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("24h"), Ok(MAX_DURATION));
        for text in ["", "10", "s", "1.2.3s", "-1s", "1d", "25h", "99999999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
    }
}
