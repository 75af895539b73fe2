// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When a run was started, and a name for it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment as RFC 3339 in UTC with whole seconds: `2026-11-22T10:32:08Z`. Moments before 1970
/// print as 1970 (a clock that wrong has no better answer).
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: years start in March, so the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A name for one run: 26 characters that sort by start time (48 bits of milliseconds, 80 random
/// bits, in Crockford's base 32, as a ULID).
pub fn run_id(started: SystemTime) -> String {
    let millis = started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    // RandomState is seeded by the system's random source; that is all a name needs.
    let random = u128::from(RandomState::new().build_hasher().finish()) << 64
        | u128::from(RandomState::new().hash_one(std::process::id()));
    encode_ulid((millis & ((1 << 48) - 1)) << 80 | random & ((1 << 80) - 1))
}

fn encode_ulid(value: u128) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    (0..26).rev().map(|place| char::from(DIGITS[(value >> (5 * place)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn known_dates() {
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(951_782_399)), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(at(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(at(951_868_800)), "2000-03-01T00:00:00Z");
        assert_eq!(rfc3339(at(1_795_343_528)), "2026-11-22T10:32:08Z");
        assert_eq!(rfc3339(at(4_107_542_400)), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn ids_differ_and_sort_by_time() {
        let early = run_id(at(1_000_000));
        let late = run_id(at(1_000_001));
        assert_eq!(early.len(), 26);
        assert!(early < late, "{early} {late}");
        assert_ne!(run_id(at(5)), run_id(at(5)));
        assert_eq!(encode_ulid(u128::MAX), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    }
}
